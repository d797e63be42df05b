/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/capabilities.h"

#include "manage/daemon/cpu.h"
#include "manage/daemon/daemon.h"
#include "manage/model/cpuset.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* The host as /proc and /sys show it, and as libvirt's capabilities document. */

/* A small number in a file of /sys; @otherwise if there is none. */
static int number_in(const char *path, int otherwise)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? atoi(text) : otherwise;
}

static void read_cpuinfo(struct host_cpus *h)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL)) {
        return;
    }
    const char *mhz = strstr(text, "cpu MHz"), *vendor = strstr(text, "vendor_id");
    if (mhz && (mhz = strchr(mhz, ':'))) {
        h->mhz = atoi(mhz + 1);
    }
    if (vendor && (vendor = strchr(vendor, ':'))) {
        sscanf(vendor + 1, " %15s", h->vendor);
    }
}

/* Distinct values of topology file @name over all processors. */
static int distinct(const char *name, int cpus)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    for (int i = 0; i < cpus; i++) {
        g_autofree char *path =
            g_strdup_printf("/sys/devices/system/cpu/cpu%d/topology/%s", i, name);
        g_hash_table_add(seen, GINT_TO_POINTER(number_in(path, 0)));
    }
    return (int)g_hash_table_size(seen);
}

static int count_nodes(void)
{
    int nodes = 0;
    g_autoptr(GDir) dir = g_dir_open("/sys/devices/system/node", 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        nodes += g_str_has_prefix(name, "node") && g_ascii_isdigit(name[4]);
    }
    return MAX(nodes, 1);
}

const struct host_cpus *host_cpus(void)
{
    static struct host_cpus h;
    if (!h.online) {
        h.present = (int)sysconf(_SC_NPROCESSORS_CONF);
        h.nodes = count_nodes();
        int sockets = distinct("physical_package_id", h.present);
        h.sockets = MAX(sockets / h.nodes, 1);
        h.cores = MAX(distinct("core_id", h.present), 1);
        h.threads = MAX(h.present / (h.nodes * h.sockets * h.cores), 1);
        read_cpuinfo(&h);
        h.online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    }
    return &h;
}

unsigned long long host_memory(void)
{
    struct sysinfo info;
    return sysinfo(&info) == 0 ? (unsigned long long)info.totalram * info.mem_unit / 1024 : 0;
}

char *host_uuid(void)
{
    g_autofree char *text = NULL;
    if (g_file_get_contents("/sys/class/dmi/id/product_uuid", &text, NULL, NULL) &&
        g_uuid_string_is_valid(g_strstrip(text))) {
        return g_steal_pointer(&text);
    }
    g_clear_pointer(&text, g_free);
    if (g_file_get_contents("/etc/machine-id", &text, NULL, NULL) && strlen(text) >= 32) {
        return g_strdup_printf("%.8s-%.4s-%.4s-%.4s-%.12s", text, text + 8, text + 12, text + 16,
                               text + 20);
    }
    return NULL;
}

uint64_t host_node_memory(int node, const char *name)
{
    g_autofree char *path = node < 0
                                ? g_strdup("/proc/meminfo")
                                : g_strdup_printf("/sys/devices/system/node/node%d/meminfo", node);
    g_autofree char *text = NULL, *key = g_strconcat(name, ":", NULL);
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return node == 0 ? host_node_memory(-1, name) : 0; /* a kernel without nodes has one */
    }
    const char *at = strstr(text, key);
    return at ? g_ascii_strtoull(at + strlen(key), NULL, 10) : 0;
}

uint64_t host_node_pages(int node, unsigned kib, const char *what)
{
    g_autofree char *text = NULL;
    g_autofree char *path = g_strdup_printf(
        "/sys/devices/system/node/node%d/hugepages/hugepages-%ukB/%s", node, kib, what);
    if (kib == (unsigned)sysconf(_SC_PAGESIZE) / 1024) {
        return host_node_memory(node,
                                strcmp(what, "free_hugepages") == 0 ? "MemFree" : "MemTotal") /
               kib;
    }
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return UINT64_MAX;
    }
    return g_ascii_strtoull(text, NULL, 10);
}

static void put_cpu(GString *xml, int i)
{
    g_autofree char *folder = g_strdup_printf("/sys/devices/system/cpu/cpu%d/topology/", i);
    g_autofree char *package = g_strconcat(folder, "physical_package_id", NULL);
    g_autofree char *die = g_strconcat(folder, "die_id", NULL);
    g_autofree char *core = g_strconcat(folder, "core_id", NULL);
    g_autofree char *siblings = g_strconcat(folder, "thread_siblings_list", NULL);
    g_autofree char *list = NULL;
    if (!g_file_get_contents(siblings, &list, NULL, NULL)) {
        list = g_strdup_printf("%d", i);
    }
    g_string_append_printf(xml,
                           "            <cpu id='%d' socket_id='%d' die_id='%d' core_id='%d' "
                           "siblings='%s'/>\n",
                           i, number_in(package, 0), MAX(number_in(die, 0), 0), number_in(core, i),
                           g_strstrip(list));
}

static void put_pages(GString *xml, int node)
{
    static const unsigned sizes[] = {4, 2048, 1048576};
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        uint64_t n = host_node_pages(node, sizes[i], "nr_hugepages");
        if (n != UINT64_MAX) {
            g_string_append_printf(xml, "          <pages unit='KiB' size='%u'>%llu</pages>\n",
                                   sizes[i], (unsigned long long)n);
        }
    }
}

static void put_distances(GString *xml, int node)
{
    g_autofree char *path = g_strdup_printf("/sys/devices/system/node/node%d/distance", node);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    g_auto(GStrv) values = g_strsplit(g_strstrip(text), " ", -1);
    g_string_append(xml, "          <distances>\n");
    for (unsigned i = 0; values[i]; i++) {
        g_string_append_printf(xml, "            <sibling id='%u' value='%s'/>\n", i, values[i]);
    }
    g_string_append(xml, "          </distances>\n");
}

static void put_cell(GString *xml, int node)
{
    g_autofree char *path = g_strdup_printf("/sys/devices/system/node/node%d/cpulist", node);
    g_autofree char *list = NULL;
    struct cpuset set;
    if (!g_file_get_contents(path, &list, NULL, NULL) ||
        !cpuset_parse(g_strstrip(list), &set, NULL)) {
        cpuset_all(&set, node == 0 ? (unsigned)host_cpus()->present : 0);
    }
    g_string_append_printf(xml,
                           "        <cell id='%d'>\n"
                           "          <memory unit='KiB'>%llu</memory>\n",
                           node, (unsigned long long)host_node_memory(node, "MemTotal"));
    put_pages(xml, node);
    put_distances(xml, node);
    g_string_append_printf(xml, "          <cpus num='%u'>\n", cpuset_count(&set));
    for (unsigned i = 0; i < CPUSET_BITS; i++) {
        if (cpuset_has(&set, i)) {
            put_cpu(xml, (int)i);
        }
    }
    g_string_append(xml, "          </cpus>\n        </cell>\n");
}

static void put_cells(GString *xml)
{
    g_string_append_printf(xml, "    <topology>\n      <cells num='%d'>\n", host_cpus()->nodes);
    for (int i = 0; i < host_cpus()->nodes; i++) {
        put_cell(xml, i);
    }
    g_string_append(xml, "      </cells>\n    </topology>\n");
}

static void put_host(GString *xml)
{
    const struct host_cpus *h = host_cpus();
    g_autofree char *uuid = host_uuid();
    g_string_append(xml, "  <host>\n");
    if (uuid) {
        g_string_append_printf(xml, "    <uuid>%s</uuid>\n", uuid);
    }
    g_string_append_printf(xml,
                           "    <cpu>\n      <arch>x86_64</arch>\n"
                           "      <topology sockets='%d' dies='1' cores='%d' threads='%d'/>\n"
                           "    </cpu>\n"
                           "    <power_management/>\n"
                           "    <iommu support='no'/>\n"
                           "    <migration_features>\n      <live/>\n"
                           "      <uri_transports>\n        <uri_transport>tcp</uri_transport>\n"
                           "      </uri_transports>\n    </migration_features>\n",
                           h->sockets, h->cores, h->threads);
    put_cells(xml);
    g_string_append(xml, "    <secmodel>\n      <model>none</model>\n      <doi>0</doi>\n"
                         "    </secmodel>\n  </host>\n");
}

static void put_guest(GString *xml, const char *arch, int bits, bool kvm)
{
    g_autofree char *emulator = daemon_program("lodge-vm");
    g_string_append_printf(xml,
                           "  <guest>\n    <os_type>hvm</os_type>\n    <arch name='%s'>\n"
                           "      <wordsize>%d</wordsize>\n      <emulator>%s</emulator>\n",
                           arch, bits, emulator ? emulator : "/usr/bin/lodge-vm");
    for (const struct domain_board *b = domain_boards; b->name; b++) {
        g_string_append(xml, "      <machine");
        if (b->canonical) {
            g_string_append_printf(xml, " canonical='%s'", b->canonical);
        }
        g_string_append_printf(xml, " maxCpus='%d'>%s</machine>\n", b->max_cpus, b->name);
    }
    g_string_append(xml, "      <domain type='qemu'/>\n");
    if (kvm) {
        g_string_append(xml, "      <domain type='kvm'/>\n");
    }
    g_string_append_printf(xml,
                           "    </arch>\n    <features>\n%s"
                           "      <acpi default='on' toggle='yes'/>\n"
                           "      <apic default='on' toggle='%s'/>\n"
                           "      <cpuselection/>\n      <deviceboot/>\n"
                           "      <disksnapshot default='on' toggle='no'/>\n"
                           "    </features>\n  </guest>\n",
                           bits == 32 ? "      <pae/>\n      <nonpae/>\n" : "",
                           bits == 32 ? "yes" : "no");
}

char *capabilities_xml(void)
{
    const char *why;
    bool kvm = cpu_has_kvm(&why);
    GString *xml = g_string_new("<capabilities>\n");
    put_host(xml);
    put_guest(xml, "i686", 32, kvm);
    put_guest(xml, "x86_64", 64, kvm);
    g_string_append(xml, "</capabilities>\n");
    return g_string_free(xml, FALSE);
}
