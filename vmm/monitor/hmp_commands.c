/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/hmp.h"

#include "base/json.h"
#include "base/log.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/paging.h"
#include "guest/cpu/regs.h"
#include "guest/cpu/translate/bt.h"
#include "guest/device/pci.h"
#include "guest/device/virtio_balloon.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "vmm/migrate.h"
#include "vmm/monitor/qemu_io.h"
#include "vmm/options.h"
#include "vmm/savevm.h"
#include "vmm/vm.h"

#include <string.h>

/* The human monitor's commands; each prints to @out. */

#define ARGS const struct hmp_args *args, GString *out, GError **error
#define UNUSED (void)args, (void)out, (void)error

enum { VIEWERS_SHOWN = 64 };

static unsigned chosen_cpu;

struct vcpu *hmp_cpu(void)
{
    struct vcpu *cpu = vcpu_find(chosen_cpu);
    return cpu ? cpu : vcpu_at(0); /* it was taken out */
}

/* ---- info ---- */

static bool info_version(ARGS)
{
    UNUSED;
    g_string_append_printf(out, "%s\n", vm_version);
    return true;
}

static bool info_status(ARGS)
{
    UNUSED;
    g_string_append_printf(out, "VM status: %s%s%s%s\n", vm_running() ? "running" : "paused",
                           vm_running() || vm_state() == VM_PAUSED ? "" : " (",
                           vm_running() || vm_state() == VM_PAUSED ? "" : vm_states[vm_state()],
                           vm_running() || vm_state() == VM_PAUSED ? "" : ")");
    return true;
}

static bool info_name(ARGS)
{
    UNUSED;
    const char *name = vm_options()->machine.name;
    g_string_append_printf(out, "%s%s", name ? name : "", name ? "\n" : "");
    return true;
}

static bool info_uuid(ARGS)
{
    UNUSED;
    const char *uuid = vm_options()->machine.uuid;
    g_string_append_printf(out, "%s\n", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
    return true;
}

static bool info_kvm(ARGS)
{
    UNUSED;
    g_string_append_printf(out, "kvm support: %s\n",
                           g_str_equal(vm_options()->machine.engine->name, "kvm") ? "enabled"
                                                                                  : "disabled");
    return true;
}

/* With the vCPUs paused for the while, since their registers are only then in .r. */
static void with_paused_cpus(void (*look)(GString *out), GString *out)
{
    vm_hold();
    look(out);
    vm_release();
}

static void look_cpus(GString *out)
{
    for (unsigned i = 0; i < vcpu_count(); i++) {
        const struct vcpu *cpu = vcpu_at(i);
        g_string_append_printf(out, "%c CPU #%u: pc=0x%016" G_GINT64_MODIFIER "x%s\n",
                               cpu == hmp_cpu() ? '*' : ' ', cpu->index, cpu->r.rip,
                               cpu->r.halted ? " (halted)" : "");
    }
}

static bool info_cpus(ARGS)
{
    UNUSED;
    with_paused_cpus(look_cpus, out);
    return true;
}

static void look_registers(GString *out)
{
    static const char *const titles[] = {"general", "segments", "control", "debug",
                                         "clock",   "MSRs",     "hidden",  "vectors"};
    const struct vcpu *cpu = hmp_cpu();
    unsigned group = UINT_MAX, column = 0;
    g_string_append_printf(out, "CPU#%u", cpu->index);
    for (unsigned i = 0; i < n_cpu_regs && cpu_regs[i].group != REGS_HIDDEN; i++) {
        const struct cpu_reg *r = &cpu_regs[i];
        uint64_t v = 0;
        if (r->bytes > 8) {
            continue;
        }
        if (r->group != group) {
            group = r->group;
            column = 0;
            g_string_append_printf(out, "\n%s:", titles[group]);
        }
        memcpy(&v, (const char *)&cpu->r + r->at, r->bytes);
        g_string_append_printf(out, "%s%s=%0*" G_GINT64_MODIFIER "x", column++ % 4 ? " " : "\n  ",
                               r->name, r->bytes * 2, v);
    }
    g_string_append_c(out, '\n');
}

static bool info_registers(ARGS)
{
    UNUSED;
    with_paused_cpus(look_registers, out);
    return true;
}

/* ---- info mem, info tlb: what the CPU's page tables map ---- */

enum { LOOK_ENTRIES = 1 << 22, LOOK_LINES = 100000 }; /* a guest may map itself in circles */

static void one_page(const struct translation *t, uint64_t at, GString *out)
{
    g_string_append_printf(out, "%016" G_GINT64_MODIFIER "x: %016" G_GINT64_MODIFIER "x %c%c%c%c%c%c\n",
                           at, t->gpa, t->executable ? '-' : 'X', t->global ? 'G' : '-',
                           t->bytes > PAGE_SIZE ? 'P' : '-', t->dirty ? 'D' : '-',
                           t->user ? 'U' : '-', t->writable ? 'W' : '-');
}

struct run {
    uint64_t from, bytes;
    char rights[4];
};

static void one_run(const struct run *r, GString *out)
{
    if (r->bytes) {
        g_string_append_printf(out, "%016" G_GINT64_MODIFIER "x-%016" G_GINT64_MODIFIER
                               "x %016" G_GINT64_MODIFIER "x %s\n",
                               r->from, r->from + r->bytes, r->bytes, r->rights);
    }
}

static void look_pages(GString *out, bool each)
{
    struct translation t;
    struct run run = {0};
    unsigned budget = LOOK_ENTRIES, lines = 0;
    if (!(hmp_cpu()->r.cr0 & CR0_PG)) {
        g_string_append(out, "PG disabled\n");
        return;
    }
    for (uint64_t at = 0; lines < LOOK_LINES && paging_next(hmp_cpu(), &at, &t, &budget);) {
        const char rights[4] = {t.user ? 'u' : '-', 'r', t.writable ? 'w' : '-', '\0'};
        lines += each;
        if (each) {
            one_page(&t, at, out);
        } else if (run.bytes && run.from + run.bytes == at && g_str_equal(rights, run.rights)) {
            run.bytes += t.bytes;
        } else {
            one_run(&run, out);
            lines++;
            run = (struct run){.from = at, .bytes = t.bytes};
            memcpy(run.rights, rights, sizeof(rights));
        }
        at += t.bytes;
        if (!at) {
            break;
        }
    }
    one_run(&run, out);
    if (!budget || lines == LOOK_LINES) {
        g_string_append(out, "... and more\n");
    }
}

static void look_mem(GString *out)
{
    look_pages(out, false);
}

static void look_tlb(GString *out)
{
    look_pages(out, true);
}

static bool info_mem(ARGS)
{
    UNUSED;
    with_paused_cpus(look_mem, out);
    return true;
}

static bool info_tlb(ARGS)
{
    UNUSED;
    with_paused_cpus(look_tlb, out);
    return true;
}

static bool info_jit(ARGS)
{
    UNUSED;
    gsize before = out->len;
    bt_describe(out);
    if (out->len == before) {
        g_string_append(out, "no CPU runs translated code\n");
    }
    return true;
}

static bool info_mtree(ARGS)
{
    UNUSED;
    g_string_append(out, "memory\n");
    space_describe(vm_board()->memory, out);
    g_string_append(out, "I/O ports\n");
    space_describe(vm_board()->ports, out);
    return true;
}

static bool info_ramblock(ARGS)
{
    UNUSED;
    for (unsigned i = 0; ram_at(i); i++) {
        g_string_append_printf(out, "%-24s %#14" G_GINT64_MODIFIER "x bytes%s\n", ram_at(i)->name,
                               ram_at(i)->size, ram_at(i)->read_only ? ", read-only" : "");
    }
    return true;
}

static void pci_function(const struct pci_device *pci, unsigned bus, GString *out)
{
    const uint8_t *c = pci->config;
    g_string_append_printf(out, "  Bus %2u, device %3u, function %u:\n    %s: PCI device %02x%02x:%02x%02x\n",
                           bus, pci->devfn >> 3, pci->devfn & 7, pci->dev.model->name, c[1], c[0],
                           c[3], c[2]);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (pci->bar[i].region) {
            uint32_t low = (uint32_t)c[16 + i * 4] | (uint32_t)c[17 + i * 4] << 8 |
                           (uint32_t)c[18 + i * 4] << 16 | (uint32_t)c[19 + i * 4] << 24;
            g_string_append_printf(out, "      BAR%u: %s at 0x%08x, %#" G_GINT64_MODIFIER "x bytes\n",
                                   i, pci->bar[i].io ? "I/O" : "memory",
                                   low & (pci->bar[i].io ? ~3u : ~15u), pci->bar[i].size);
        }
    }
    g_string_append_printf(out, "      id \"%s\"\n", pci->dev.id ? pci->dev.id : "");
}

static void pci_bus(const struct pci_bus *bus, GString *out)
{
    for (; bus; bus = bus->sibling) {
        for (unsigned i = 0; i < G_N_ELEMENTS(bus->function); i++) {
            if (bus->function[i]) {
                pci_function(bus->function[i], bus->number, out);
            }
        }
        pci_bus(bus->child, out);
    }
}

static bool info_pci(ARGS)
{
    UNUSED;
    pci_bus(vm_board()->pci, out);
    return true;
}

static bool info_qtree(ARGS)
{
    UNUSED;
    for (const struct device *d = vm_board()->devices; d; d = d->next) {
        g_string_append_printf(out, "dev: %s, path \"%s\", id \"%s\"\n", d->model->name, d->path,
                               d->id ? d->id : "");
    }
    return true;
}

static bool info_device(ARGS)
{
    struct device *d = board_find(vm_board(), args->at[0]);
    if (!d) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", args->at[0]);
        return false;
    }
    device_describe(d, out);
    return true;
}

static void one_image(Image *img, void *owner)
{
    GString *out = owner;
    if (image_inserted(img)) {
        g_string_append_printf(out, "%s: %s (%s%s)\n", image_id(img), image_file(img),
                               image_format_name(img), image_read_only(img) ? ", read-only" : "");
    } else {
        g_string_append_printf(out, "%s: [not inserted]\n", image_id(img));
    }
}

static bool info_block(ARGS)
{
    UNUSED;
    image_each(one_image, out);
    return true;
}

static bool info_snapshots(ARGS)
{
    (void)args, (void)error;
    savevm_list(out);
    return true;
}

static void one_image_stats(Image *img, void *owner)
{
    struct image_stats s = image_stats(img);
    g_string_append_printf(owner,
                           "%s: rd_bytes=%" G_GUINT64_FORMAT " wr_bytes=%" G_GUINT64_FORMAT
                           " rd_operations=%" G_GUINT64_FORMAT " wr_operations=%" G_GUINT64_FORMAT
                           " flush_operations=%" G_GUINT64_FORMAT "\n",
                           image_id(img), s.rd_bytes, s.wr_bytes, s.rd_ops, s.wr_ops, s.flush_ops);
}

static bool info_blockstats(ARGS)
{
    UNUSED;
    image_each(one_image_stats, out);
    return true;
}

static void one_netdev(struct netdev *net, void *owner)
{
    g_string_append_printf(owner, "%s: type=%s,%s%s\n", net->id, net->kind,
                           net->about ? net->about : "", net->link_up ? "" : " (link down)");
}

static bool info_network(ARGS)
{
    UNUSED;
    netdev_each(one_netdev, out);
    return true;
}

static void one_usernet(struct netdev *net, void *owner)
{
    if (net->connections) {
        char *table = net->connections(net); /* libslirp's, by GLib's allocator */
        g_string_append_printf(owner, "%s:\n%s", net->id, table);
        g_free(table);
    }
}

static bool info_usernet(ARGS)
{
    UNUSED;
    netdev_each(one_usernet, out);
    return true;
}

static bool info_numa(ARGS)
{
    UNUSED;
    const struct machine_config *m = &vm_options()->machine;
    unsigned nodes = m->numa ? m->numa->nodes : 0;
    g_string_append_printf(out, "%u nodes\n", nodes);
    for (unsigned n = 0; n < nodes; n++) {
        g_string_append_printf(out, "node %u cpus:", n);
        for (unsigned i = 0; i < m->cpus; i++) {
            if (m->numa->cpu_node[i] == n) {
                g_string_append_printf(out, " %u", i);
            }
        }
        g_string_append_printf(out, "\nnode %u size: %" G_GUINT64_FORMAT " MB\n", n,
                               m->numa->bytes[n] >> 20);
    }
    return true;
}

static void one_chardev(struct chardev *chr, void *owner)
{
    g_string_append_printf(owner, "%s: filename=%s%s\n", chr->id, chr->open ? "" : "disconnected:",
                           chr->about);
}

static bool info_chardev(ARGS)
{
    UNUSED;
    chardev_each(one_chardev, out);
    return true;
}

static bool info_vnc(ARGS)
{
    UNUSED;
    struct vnc_end server, client[VIEWERS_SHOWN];
    if (!vnc_server(&server)) {
        g_string_append(out, "Server: disabled\n");
        return true;
    }
    unsigned n = vnc_clients(client, VIEWERS_SHOWN);
    g_string_append(out, "Server: ");
    vnc_end_text(&server, out);
    g_string_append_printf(out, "\n  auth: %s\n", vnc_auth());
    for (unsigned i = 0; i < n; i++) {
        g_string_append(out, "Client: ");
        vnc_end_text(&client[i], out);
        g_string_append(out, client[i].websocket ? " (WebSocket)\n" : "\n");
    }
    return true;
}

static bool info_migrate(ARGS)
{
    UNUSED;
    g_autofree char *text = migrate_describe();
    g_string_append(out, text);
    return true;
}

static bool info_balloon(ARGS)
{
    struct device *dev = board_part(vm_board(), "balloon");
    (void)args;
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENXIO, "No balloon device has been activated");
        return false;
    }
    g_string_append_printf(out, "balloon: actual=%" G_GUINT64_FORMAT "\n",
                           (vm_memory() - balloon_given(dev)) >> 20);
    return true;
}

/* What the chosen CPU's page tables make of a linear address. */
static bool info_gva2gpa(ARGS)
{
    uint64_t at;
    struct translation t;
    uint32_t code;
    if (!hmp_number(args->at[0], &at, error)) {
        return false;
    }
    vm_hold();
    int r = paging_walk(hmp_cpu(), at, ACCESS_READ, true, &t, &code);
    vm_release();
    if (r < 0) {
        g_string_append(out, "Unmapped\n");
    } else {
        g_string_append_printf(out, "gpa: %#" G_GINT64_MODIFIER "x\n", t.gpa);
    }
    return true;
}

static bool info_roms(ARGS)
{
    UNUSED;
    for (unsigned i = 0; ram_at(i); i++) {
        if (ram_at(i)->read_only) {
            g_string_append_printf(out, "%s, %#" G_GINT64_MODIFIER "x bytes\n", ram_at(i)->name,
                                   ram_at(i)->size);
        }
    }
    return true;
}

const struct hmp_command hmp_infos[] = {
    {"balloon", "", 0, 0, "memory the guest has left", info_balloon},
    {"block", "", 0, 0, "drives", info_block},
    {"snapshots", "", 0, 0, "snapshots of the machine", info_snapshots},
    {"blockstats", "", 0, 0, "counters of drives", info_blockstats},
    {"chardev", "", 0, 0, "character devices", info_chardev},
    {"cpus", "", 0, 0, "CPUs", info_cpus},
    {"device", "ID", 1, 1, "registers of a device", info_device},
    {"gva2gpa", "ADDRESS", 1, 1, "linear to physical address", info_gva2gpa},
    {"jit", "", 0, 0, "counters of the translator", info_jit},
    {"kvm", "", 0, 0, "whether KVM runs the guest", info_kvm},
    {"mem", "", 0, 0, "ranges that the CPU's page tables map", info_mem},
    {"migrate", "", 0, 0, "migration", info_migrate},
    {"mtree", "", 0, 0, "what answers at which address", info_mtree},
    {"name", "", 0, 0, "name of the guest", info_name},
    {"network", "", 0, 0, "network backends", info_network},
    {"numa", "", 0, 0, "nodes of CPUs and memory", info_numa},
    {"pci", "", 0, 0, "PCI functions", info_pci},
    {"qtree", "", 0, 0, "devices", info_qtree},
    {"ramblock", "", 0, 0, "blocks of guest memory", info_ramblock},
    {"registers", "", 0, 0, "registers of the CPU", info_registers},
    {"roms", "", 0, 0, "read-only memory", info_roms},
    {"status", "", 0, 0, "run state", info_status},
    {"tlb", "", 0, 0, "pages that the CPU's page tables map", info_tlb},
    {"uuid", "", 0, 0, "UUID of the machine", info_uuid},
    {"usernet", "", 0, 0, "connections of user networks", info_usernet},
    {"version", "", 0, 0, "version", info_version},
    {"vnc", "", 0, 0, "VNC server", info_vnc},
};
const unsigned n_hmp_infos = G_N_ELEMENTS(hmp_infos);

static bool do_info(ARGS)
{
    if (args->n == 0) {
        hmp_list(hmp_infos, n_hmp_infos, out, "info ");
        return true;
    }
    const struct hmp_command *c = hmp_find(hmp_infos, n_hmp_infos, args->at[0]);
    struct hmp_args rest = {args->at + 1, args->n - 1};
    if (!c || rest.n < c->min || rest.n > c->max) {
        g_set_error(error, LODGE_ERROR, EINVAL, "info %s: %s%s", args->at[0],
                    c ? "usage: " : "no such thing", c ? c->args : "");
        return false;
    }
    return c->run(&rest, out, error);
}

/* ---- commands ---- */

static bool do_help(ARGS)
{
    const struct hmp_command *c = args->n ? hmp_find(hmp_commands, n_hmp_commands, args->at[0]) : NULL;
    if (args->n && !c) {
        g_set_error(error, LODGE_ERROR, EINVAL, "unknown command: '%s'", args->at[0]);
        return false;
    }
    hmp_list(c ? c : hmp_commands, c ? 1 : n_hmp_commands, out, "");
    return true;
}

static bool do_stop(ARGS)
{
    UNUSED;
    if (vm_running()) {
        vm_stop(VM_PAUSED);
    }
    return true;
}

static bool do_cont(ARGS)
{
    UNUSED;
    return vm_cont(error);
}

static bool do_quit(ARGS)
{
    UNUSED;
    vm_request_shutdown(CAUSE_HOST);
    return true;
}

static bool do_reset(ARGS)
{
    UNUSED;
    vm_request_reset(CAUSE_HOST_RESET);
    return true;
}

static bool do_powerdown(ARGS)
{
    UNUSED;
    vm_power_button();
    return true;
}

static bool do_wakeup(ARGS)
{
    UNUSED;
    return vm_wakeup(error);
}

static bool do_nmi(ARGS)
{
    UNUSED;
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_request(vcpu_at(i), REQ_NMI);
    }
    return true;
}

static bool do_cpu(ARGS)
{
    uint64_t n;
    (void)out;
    if (!text_u64(args->at[0], &n) || n > UINT_MAX || !vcpu_find((unsigned)n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no CPU %s", args->at[0]);
        return false;
    }
    chosen_cpu = (unsigned)n;
    return true;
}

static bool do_x(ARGS)
{
    vm_hold();
    bool ok = hmp_examine(args, false, out, error);
    vm_release();
    return ok;
}

static bool do_xp(ARGS)
{
    return hmp_examine(args, true, out, error);
}

static bool do_print(ARGS)
{
    vm_hold();
    bool ok = hmp_print(args, out, error);
    vm_release();
    return ok;
}

static bool do_in(ARGS)
{
    return hmp_port(args, false, out, error);
}

static bool do_out(ARGS)
{
    return hmp_port(args, true, out, error);
}

static bool do_gdbserver(ARGS)
{
    const char *spec = args->n ? args->at[0] : "tcp::1234";
    bool ok = gdb_start(spec, error);
    if (ok) {
        g_string_append_printf(out, g_str_equal(spec, "none") ? "Disabled gdbserver\n"
                                                              : "Waiting for gdb connection on device '%s'\n",
                               spec);
    }
    return ok;
}

/* Commands of QMP with one or two words: what they take is their row's. */
static bool by_qmp(const char *name, json_t *arguments, GError **error)
{
    const char *class;
    g_autoptr(json_t) args = arguments;
    g_autoptr(json_t) result = qmp_run(name, args, &class, error);
    return result != NULL;
}

static bool do_eject(ARGS)
{
    (void)out;
    bool force = args->n == 2;
    return by_qmp("eject", json_pack("{s:s}", "device", args->at[force]), error);
}

static bool do_change(ARGS)
{
    (void)out;
    if (g_str_equal(args->at[0], "vnc") && g_str_equal(args->at[1], "password") && args->n == 3) {
        return by_qmp("change-vnc-password", json_pack("{s:s}", "password", args->at[2]), error);
    }
    json_t *a = json_pack("{s:s, s:s}", "device", args->at[0], "filename", args->at[1]);
    if (args->n > 2) {
        json_object_set_new(a, "format", json_string(args->at[2]));
    }
    return by_qmp("blockdev-change-medium", a, error);
}

static bool do_screendump(ARGS)
{
    (void)out;
    bool png = args->n == 3 && g_str_equal(args->at[1], "-f") && g_str_equal(args->at[2], "png");
    return by_qmp("screendump", json_pack("{s:s, s:s}", "filename", args->at[0], "format", png ? "png" : "ppm"),
                  error);
}

static bool do_migrate(ARGS)
{
    bool detach = args->n == 2 && g_str_equal(args->at[0], "-d");
    (void)out;
    return by_qmp("migrate", json_pack("{s:s}", "uri", args->at[detach]), error);
}

static bool do_migrate_cancel(ARGS)
{
    UNUSED;
    return by_qmp("migrate_cancel", NULL, error);
}

static bool do_migrate_incoming(ARGS)
{
    (void)out;
    return by_qmp("migrate-incoming", json_pack("{s:s}", "uri", args->at[0]), error);
}

static bool do_set_link(ARGS)
{
    bool up;
    (void)out;
    if (!text_bool(args->at[1], &up)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want on or off");
        return false;
    }
    return by_qmp("set_link", json_pack("{s:s, s:b}", "name", args->at[0], "up", up), error);
}

static void first_user(struct netdev *net, void *owner)
{
    struct netdev **found = owner;
    *found = *found || !net->forward ? *found : net;
}

/* [ID] RULE; without an ID the first user network is meant. */
static bool hostfwd(bool add, const struct hmp_args *args, GError **error)
{
    struct netdev *net = args->at[1] ? netdev_find(args->at[0]) : NULL;
    if (!args->at[1]) {
        netdev_each(first_user, &net);
    }
    if (!net || !net->forward) {
        g_set_error(error, LODGE_ERROR, ENODEV, "%s%s", args->at[1] ? args->at[0] : "",
                    args->at[1] ? ": no user network" : "the machine has no user network");
        return false;
    }
    return net->forward(net, add, args->at[1] ? args->at[1] : args->at[0], error);
}

static bool do_hostfwd_add(ARGS)
{
    (void)out;
    return hostfwd(true, args, error);
}

static bool do_hostfwd_remove(ARGS)
{
    bool removed = hostfwd(false, args, error);
    if (removed) {
        g_string_append_printf(out, "host forwarding rule for %s removed\n",
                               args->at[1] ? args->at[1] : args->at[0]);
    }
    return removed;
}

static bool do_balloon(ARGS)
{
    uint64_t mib;
    (void)out;
    if (!text_u64(args->at[0], &mib) || mib > 1 << 30) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want a number of MiB");
        return false;
    }
    return by_qmp("balloon", json_pack("{s:I}", "value", (json_int_t)(mib << 20)), error);
}

static bool save_memory(const char *name, ARGS)
{
    uint64_t at, size;
    (void)out;
    return hmp_number(args->at[0], &at, error) && hmp_number(args->at[1], &size, error) &&
           by_qmp(name, json_pack("{s:I, s:I, s:s}", "val", (json_int_t)at, "size", (json_int_t)size,
                                  "filename", args->at[2]), error);
}

static bool do_memsave(ARGS)
{
    return save_memory("memsave", args, out, error);
}

static bool do_pmemsave(ARGS)
{
    return save_memory("pmemsave", args, out, error);
}

/* "ctrl-alt-f1", held so many milliseconds. */
static bool do_sendkey(ARGS)
{
    unsigned codes[16], n = 0;
    uint64_t hold = 100;
    g_auto(GStrv) keys = g_strsplit(args->at[0], "-", -1);
    (void)out;
    for (; keys[n] && n < G_N_ELEMENTS(codes); n++) {
        codes[n] = display_scancode(keys[n]);
        if (!codes[n]) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no key \"%s\"", keys[n]);
            return false;
        }
    }
    if (args->n > 1 && (!text_u64(args->at[1], &hold) || hold > 60000)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want milliseconds");
        return false;
    }
    return vm_send_keys(codes, n, (unsigned)MAX(hold, 1));
}

static bool do_device_add(ARGS)
{
    (void)out;
    g_autoptr(KeyVal) kv = vm_keyval(args->at[0], "driver", error);
    return kv && vm_device_hotplug(kv, error);
}

static bool do_device_del(ARGS)
{
    (void)out;
    return vm_device_remove(args->at[0], error);
}

static bool do_ringbuf_read(ARGS)
{
    uint64_t n;
    struct chardev *chr = chardev_find(args->at[0]);
    g_autofree char *text = chr && text_u64(args->at[1], &n) ? chardev_ring_take(chr, n) : NULL;
    if (!text) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: no ring buffer", args->at[0]);
        return false;
    }
    g_string_append(out, text);
    return true;
}

static bool do_log(ARGS)
{
    (void)out;
    if (g_str_equal(args->at[0], "none")) {
        atomic_store(&log_topics, 0);
        return true;
    }
    return log_enable(args->at[0], error);
}

static bool do_qemu_io(ARGS)
{
    return qemu_io(args->at[0], args->at[1], out, error);
}

static bool do_block_resize(ARGS)
{
    uint64_t size;
    (void)out;
    if (!text_size(args->at[1], 1 << 20, &size) || size > INT64_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: no size", args->at[1]);
        return false;
    }
    return by_qmp("block_resize", json_pack("{s:s, s:I}", "device", args->at[0], "size",
                                            (json_int_t)size), error);
}

static bool do_savevm(ARGS)
{
    (void)out;
    return savevm_save(args->at[0], NULL, error);
}

static bool do_loadvm(ARGS)
{
    (void)out;
    return savevm_load(args->at[0], NULL, error);
}

static bool do_delvm(ARGS)
{
    (void)out;
    return savevm_remove(args->at[0], NULL, error);
}

const struct hmp_command hmp_commands[] = {
    {"help|?", "[COMMAND]", 0, 1, "this list", do_help},
    {"info", "[WHAT]", 0, 3, "show something", do_info},
    {"stop|s", "", 0, 0, "stop the CPUs", do_stop},
    {"cont|c", "", 0, 0, "let them run", do_cont},
    {"quit|q", "", 0, 0, "end the process", do_quit},
    {"system_reset", "", 0, 0, "the reset button", do_reset},
    {"system_powerdown", "", 0, 0, "the power button", do_powerdown},
    {"system_wakeup", "", 0, 0, "wake from S3", do_wakeup},
    {"nmi", "", 0, 0, "an NMI for every CPU", do_nmi},
    {"cpu", "N", 1, 1, "choose the CPU of the other commands", do_cpu},
    {"x", "[/COUNTfSIZE] ADDRESS", 1, 2, "show linear memory; formats x d u o c, sizes b h w g", do_x},
    {"xp", "[/COUNTfSIZE] ADDRESS", 1, 2, "show physical memory", do_xp},
    {"print|p", "[/FORMAT] EXPRESSION", 1, 2, "calculate; $rip is a register", do_print},
    {"i", "[/SIZE] PORT", 1, 2, "read an I/O port", do_in},
    {"o", "[/SIZE] PORT VALUE", 2, 3, "write an I/O port", do_out},
    {"gdbserver", "[DEV|none]", 0, 1, "start or end the gdb server", do_gdbserver},
    {"eject", "[-f] DRIVE", 1, 2, "take a medium out", do_eject},
    {"change", "DRIVE FILE [FORMAT] | vnc password TEXT", 2, 3, "put another medium in", do_change},
    {"sendkey", "KEY[-KEY...] [MILLISECONDS]", 1, 2, "press keys, as ctrl-alt-delete", do_sendkey},
    {"screendump", "FILE [-f png]", 1, 3, "write the screen to a file", do_screendump},
    {"migrate", "[-d] URI", 1, 2, "send the machine's state to file:, exec:, unix:, tcp:", do_migrate},
    {"migrate_cancel", "", 0, 0, "stop sending", do_migrate_cancel},
    {"migrate_incoming", "URI", 1, 1, "take a state, after -incoming defer", do_migrate_incoming},
    {"block_resize", "DRIVE SIZE", 2, 2, "another size for a drive; megabytes without a suffix", do_block_resize},
    {"qemu-io", "DRIVE \"COMMAND\"", 2, 2, "read, write, discard or flush as the guest would", do_qemu_io},
    {"savevm", "NAME", 1, 1, "keep disks and machine as a snapshot", do_savevm},
    {"loadvm", "NAME", 1, 1, "go back to a snapshot", do_loadvm},
    {"delvm", "NAME", 1, 1, "remove a snapshot", do_delvm},
    {"device_add", "MODEL[,PROP=VALUE...]", 1, 1, "add a device", do_device_add},
    {"device_del", "ID", 1, 1, "take a device out", do_device_del},
    {"set_link", "NAME on|off", 2, 2, "pull or plug a network cable", do_set_link},
    {"hostfwd_add", "[NETDEV] [tcp|udp]:[ADDRESS]:PORT-[ADDRESS]:PORT", 1, 2,
     "lead a port of the host into a user network", do_hostfwd_add},
    {"hostfwd_remove", "[NETDEV] [tcp|udp]:[ADDRESS]:PORT", 1, 2, "lead it there no longer",
     do_hostfwd_remove},
    {"balloon", "MEGABYTES", 1, 1, "memory that the guest shall keep", do_balloon},
    {"memsave", "ADDRESS SIZE FILE", 3, 3, "write linear memory to a file", do_memsave},
    {"pmemsave", "ADDRESS SIZE FILE", 3, 3, "write physical memory to a file", do_pmemsave},
    {"ringbuf_read", "CHARDEV SIZE", 2, 2, "take text out of a ring buffer", do_ringbuf_read},
    {"log", "ITEMS|none", 1, 1, "what is logged, as -d", do_log},
};
const unsigned n_hmp_commands = G_N_ELEMENTS(hmp_commands);
