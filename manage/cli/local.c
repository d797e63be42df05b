/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include "base/util.h"
#include "host/image/chain.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>

/*
 * What virsh has no verb for: from an image to its console, the machines that work, the host.
 */

/* ---- run ---- */

enum { HEAD = 65536, DEFAULT_MEMORY_KIB = 1 << 20 };

static ssize_t read_head(const char *path, uint8_t *head, GError **error)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, head, HEAD, 0);
    if (n < 0) {
        shell_fail(error, "Failed to open file '%s': %s", path, g_strerror(errno));
    }
    return n;
}

/* The format of the image at @path by its first bytes; raw if nothing else fits. */
static char *format_of(const char *path, GError **error)
{
    static uint8_t head[HEAD];
    ssize_t n = read_head(path, head, error);
    if (n < 0) {
        return NULL;
    }
    const struct image_format *format = format_probe(head, (size_t)n, path);
    return g_strdup(format ? format->name : "raw");
}

/* Whether it is an image of a CD (ECMA-119, Volume Descriptor Set): those start from a drive. */
static bool is_cd(const char *path)
{
    enum { AT = 0x8001 };
    static uint8_t head[HEAD];
    return path && read_head(path, head, NULL) >= AT + 5 && memcmp(head + AT, "CD001", 5) == 0;
}

static void element(GString *xml, const char *fmt, const char *value)
{
    if (value) {
        g_autofree char *safe = g_markup_escape_text(value, -1);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        g_string_append_printf(xml, fmt, safe);
#pragma GCC diagnostic pop
    }
}

static bool disk_xml(GString *xml, const char *path, const char *known, const char *device,
                     const char *target, const char *bus, GError **error)
{
    g_autofree char *whole = g_canonicalize_filename(path, NULL);
    g_autofree char *format = known ? g_strdup(known) : format_of(whole, error);
    if (!format) {
        return false;
    }
    g_string_append_printf(xml, "<disk type='file' device='%s'><driver name='qemu' type='%s'/>",
                           device, format);
    element(xml, "<source file='%s'/>", whole);
    g_string_append_printf(xml, "<target dev='%s' bus='%s'/></disk>", target, bus);
    return true;
}

static void network_xml(GString *xml, const char *network)
{
    if (!network || strcmp(network, "user") == 0) {
        g_string_append(xml, "<interface type='user'><model type='virtio'/></interface>");
    } else if (strcmp(network, "none") != 0) {
        element(xml,
                "<interface type='network'><source network='%s'/><model type='virtio'/>"
                "</interface>",
                network);
    }
}

static char *whole_path(const char *path)
{
    return path ? g_canonicalize_filename(path, NULL) : NULL;
}

static void os_xml(GString *xml, const struct args *a)
{
    g_autofree char *kernel = whole_path(args_text(a, "kernel"));
    g_autofree char *initrd = whole_path(args_text(a, "initrd"));
    g_string_append_printf(xml, "<os%s><type arch='x86_64' machine='q35'>hvm</type>",
                           args_flag(a, "uefi") ? " firmware='efi'" : "");
    element(xml, "<kernel>%s</kernel>", kernel);
    element(xml, "<initrd>%s</initrd>", initrd);
    element(xml, "<cmdline>%s</cmdline>", args_text(a, "append"));
    if (!kernel) { /* an empty disk leaves the turn to the CD */
        bool cd = !args_text(a, "format") && is_cd(args_text(a, "image"));
        g_string_append(xml, args_text(a, "image") && !cd ? "<boot dev='hd'/>" : "");
        g_string_append(xml, args_text(a, "cdrom") || cd ? "<boot dev='cdrom'/>" : "");
    }
    g_string_append(xml, "</os><features><acpi/><apic/></features>");
    if (args_flag(a, "no-reboot")) {
        g_string_append(xml, "<on_reboot>destroy</on_reboot>");
    }
}

static bool run_xml(const struct args *a, const char *type, const char *name, GString *xml,
                    GError **error)
{
    uint64_t memory = DEFAULT_MEMORY_KIB, vcpus = 1;
    args_number(a, "memory", &memory);
    args_number(a, "vcpus", &vcpus);
    g_string_append_printf(xml, "<domain type='%s'>", type);
    element(xml, "<name>%s</name>", name);
    g_string_append_printf(xml, "<memory unit='KiB'>%" PRIu64 "</memory><vcpu>%" PRIu64 "</vcpu>",
                           memory, vcpus);
    os_xml(xml, a);
    g_string_append(xml, "<devices>");
    const char *image = args_text(a, "image"), *format = args_text(a, "format");
    bool cd = !format && is_cd(image);
    if (image && !disk_xml(xml, image, cd ? "raw" : format, cd ? "cdrom" : "disk",
                           cd ? "sdb" : "vda", cd ? "sata" : "virtio", error)) {
        return false;
    }
    if (args_text(a, "cdrom") &&
        !disk_xml(xml, args_text(a, "cdrom"), "raw", "cdrom", "sda", "sata", error)) {
        return false;
    }
    network_xml(xml, args_text(a, "network"));
    g_string_append(xml, "<console type='pty'/></devices></domain>");
    return true;
}

/* "debian-12.qcow2" runs as "debian-12". */
static char *name_of(const struct args *a)
{
    const char *path = args_text(a, "image") ? args_text(a, "image") : args_text(a, "kernel");
    path = path ? path : args_text(a, "cdrom");
    if (args_text(a, "name")) {
        return g_strdup(args_text(a, "name"));
    }
    char *name = g_path_get_basename(path);
    char *dot = strrchr(name, '.');
    if (dot && dot != name) {
        *dot = 0;
    }
    return name;
}

/*
 * The line ends a moment before the process does, and that before the daemon knows: who got the
 * prompt back may use the name again.
 */
static void wait_for_end(Rpc *rpc, const rpc_domain *dom)
{
    enum { PATIENCE_MS = 10000, STEP_MS = 5, US = 1000 };
    for (unsigned ms = 0; ms < PATIENCE_MS; ms += STEP_MS) {
        rpc_domain_flags args = {*dom, 0};
        rpc_domain_state state;
        if (!ask_domain_get_state(rpc, &args, &state, NULL)) {
            return;
        }
        g_usleep(STEP_MS * US);
    }
}

/* A disk on a web server cannot be written to: a machine would not get far. */
static bool are_files(const struct args *a, GError **error)
{
    static const char *const names[] = {"image", "kernel", "initrd", "cdrom"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        const char *path = args_text(a, names[i]);
        if (path && strstr(path, "://") && g_uri_peek_scheme(path)) {
            return shell_fail(error,
                              "'%s' is a URL, and run takes files: lodge-img convert -O qcow2 URL "
                              "FILE fetches an image",
                              path);
        }
    }
    return true;
}

static bool run_run(struct shell *sh, const struct args *a, GError **error)
{
    enum { AUTODESTROY = 2 };
    rpc_none none = {0};
    g_auto(rpc_text) caps = {0};
    g_auto(rpc_domain_ret) ret = {0};
    g_autoptr(GString) xml = g_string_new(NULL);
    if (!args_text(a, "image") && !args_text(a, "kernel") && !args_text(a, "cdrom")) {
        return shell_fail(error, "an image, --kernel or --cdrom is needed");
    }
    if (!are_files(a, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_capabilities(rpc, &none, &caps, error)) {
        return false;
    }
    g_autofree char *name = name_of(a);
    bool kvm = strstr(caps.text, "<domain type='kvm'") != NULL;
    if (!run_xml(a, kvm ? "kvm" : "qemu", name, xml, error)) {
        return false;
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s\n", xml->str);
        return true;
    }
    rpc_text_flags args = {xml->str, args_flag(a, "autodestroy") ? AUTODESTROY : 0};
    if (!ask_domain_create_xml(rpc, &args, &ret, error)) {
        shell_failing(sh, "Failed to run '%s'", name);
        return false;
    }
    bool left;
    if (!console_on_terminal(rpc, &ret.dom, NULL, 0, true, &left, error)) {
        return false;
    }
    if (left && args_flag(a, "autodestroy")) {
        rpc_domain_args dom = {ret.dom};
        ask_domain_destroy(rpc, &dom, &none, NULL);
    }
    if (!left || args_flag(a, "autodestroy")) {
        wait_for_end(rpc, &ret.dom);
    }
    return true;
}

/* ---- top ---- */

enum { STATS_STATE = 1, STATS_CPU = 2, STATS_BALLOON = 4, STATS_ACTIVE = 1 };

static bool sample(Rpc *rpc, rpc_all_stats *out, GError **error)
{
    rpc_stats_args args = {{0, NULL}, STATS_STATE | STATS_CPU | STATS_BALLOON, STATS_ACTIVE};
    memset(out, 0, sizeof(*out));
    return ask_connect_get_all_domain_stats(rpc, &args, out, error);
}

static uint64_t time_before(const rpc_all_stats *before, const rpc_domain *dom)
{
    for (unsigned i = 0; i < before->items.items_len; i++) {
        const rpc_domain_stats *s = &before->items.items_val[i];
        if (memcmp(s->dom.uuid, dom->uuid, sizeof(rpc_uuid)) == 0) {
            return stats_number(s, "cpu.time");
        }
    }
    return 0;
}

static void show_top(struct shell *sh, const rpc_all_stats *before, const rpc_all_stats *now,
                     gint64 elapsed_us)
{
    static const char *const headers[] = {"Id",       "Name",   "State", "CPU %",
                                          "CPU time", "Memory", NULL};
    out_table(sh, headers);
    for (unsigned i = 0; i < now->items.items_len; i++) {
        const rpc_domain_stats *s = &now->items.items_val[i];
        uint64_t time = stats_number(s, "cpu.time"), last = time_before(before, &s->dom);
        double share = last && time > last ? (double)(time - last) / 10.0 / (double)elapsed_us : 0;
        g_autofree char *id = g_strdup_printf("%d", s->dom.id);
        g_autofree char *cpu = g_strdup_printf("%.1f", share);
        g_autofree char *total = g_strdup_printf("%.1fs", (double)time / 1e9);
        g_autofree char *memory = out_size(stats_number(s, "balloon.current") << 10, 2);
        out_row(sh, id, s->dom.name, domain_state_name((int)stats_number(s, "state.state")), cpu,
                total, memory, NULL);
    }
    out_table_end(sh);
}

/* Waits; false if the user wants to leave or nobody reads what is printed. */
static bool pause_for(uint64_t ms, bool keys)
{
    struct pollfd ends[] = {{STDOUT_FILENO, 0, 0}, {keys ? STDIN_FILENO : -1, POLLIN, 0}};
    char key;
    poll(ends, G_N_ELEMENTS(ends), (int)MIN(ms, INT32_MAX));
    return !(ends[0].revents & POLLERR) && (!ends[1].revents || read(STDIN_FILENO, &key, 1) == 0);
}

/* A key counts at once, without the end of a line; @was is for when it is over. */
static bool take_keys(struct termios *was)
{
    struct termios now;
    if (tcgetattr(STDIN_FILENO, was) != 0) {
        return false;
    }
    now = *was;
    now.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    return tcsetattr(STDIN_FILENO, TCSANOW, &now) == 0;
}

static bool run_top(struct shell *sh, const struct args *a, GError **error)
{
    enum { MS = 1000 };
    uint64_t delay = 1, rounds = UINT64_MAX;
    rpc_all_stats before, now;
    struct termios was;
    struct sigaction before_us, ignore = {.sa_handler = SIG_IGN};
    bool screen = isatty(STDOUT_FILENO) && !out_is_json(sh), go_on = true;
    args_number(a, "delay", &delay);
    args_number(a, "count", &rounds);
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !sample(rpc, &before, error)) {
        return false;
    }
    gint64 at = g_get_monotonic_time();
    bool keys = take_keys(&was);
    sigaction(SIGPIPE, &ignore, &before_us); /* to leave the terminal as it was */
    while (go_on && rounds--) {
        go_on = pause_for(MIN(delay, INT32_MAX) * MS, keys);
        if (!sample(rpc, &now, error)) {
            break;
        }
        if (screen) {
            printf("\033[H\033[J"); /* to the corner, and empty below */
        }
        gint64 then = at;
        at = g_get_monotonic_time();
        show_top(sh, &before, &now, at - then);
        go_on = out_look(sh) && go_on;
        rpc_all_stats_clear(&before);
        before = now;
    }
    if (keys) {
        tcsetattr(STDIN_FILENO, TCSANOW, &was);
    }
    sigaction(SIGPIPE, &before_us, NULL);
    rpc_all_stats_clear(&before);
    return !error || !*error;
}

/* ---- validate-host ---- */

enum verdict { PASS, WARN, FAIL };

static bool cpu_has(const char *flag)
{
    g_autofree char *text = NULL;
    g_autofree char *word = g_strdup_printf(" %s ", flag);
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL)) {
        return false;
    }
    char *flags = strstr(text, "\nflags");
    char *end = flags ? strchr(flags + 1, '\n') : NULL;
    if (end) {
        *end = ' ', end[1] = 0;
    }
    return flags && strstr(flags, word);
}

static bool usable(const char *path)
{
    return access(path, R_OK | W_OK) == 0;
}

static bool folder_has_entries(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    return dir && g_dir_read_name(dir);
}

static bool cgroup_has(const char *controller)
{
    g_autofree char *two = NULL, *one = g_build_filename("/sys/fs/cgroup", controller, NULL);
    if (g_file_get_contents("/sys/fs/cgroup/cgroup.controllers", &two, NULL, NULL)) {
        g_auto(GStrv) words = g_strsplit_set(two, " \n", -1);
        if (g_strv_contains((const char *const *)words, controller)) {
            return true;
        }
    }
    return g_file_test(one, G_FILE_TEST_IS_DIR);
}

static bool bridges_work(void)
{
    return g_file_test("/proc/sys/net/bridge", G_FILE_TEST_IS_DIR) ||
           g_file_test("/sys/module/bridge", G_FILE_TEST_IS_DIR);
}

static void verdict(struct shell *sh, enum verdict v, const char *what, const char *advice,
                    bool *failed)
{
    static const char *const names[] = {"PASS", "WARN", "FAIL"};
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool colour = isatty(STDOUT_FILENO);
    *failed |= v == FAIL;
    if (out_is_json(sh)) {
        g_autofree char *label = g_strconcat(what, " advice", NULL);
        out_field(sh, what, "%s", names[v]);
        if (v != PASS) {
            out_field(sh, label, "%s", advice);
        }
        return;
    }
    out_field_wide(sh, 60, what, "%s%s%s%s%s%s", colour ? colours[v] : "", names[v],
                   colour ? "\033[0m" : "", v == PASS ? "" : " (", v == PASS ? "" : advice,
                   v == PASS ? "" : ")");
}

static bool run_validate(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const controllers[][2] = {
        {"cpu", "cpu"}, {"cpuset", "cpuset"}, {"memory", "memory"}, {"io", "blkio"}};
    bool failed = false, virt = cpu_has("vmx") || cpu_has("svm");
    (void)a;
    verdict(sh, virt ? PASS : WARN, "hardware virtualization",
            "the CPU shows neither vmx nor svm; machines run translated", &failed);
    verdict(sh, usable("/dev/kvm") ? PASS : WARN, "/dev/kvm can be used",
            access("/dev/kvm", F_OK) == 0 ? "no permission: join group kvm"
                                          : "it is not there; machines run translated",
            &failed);
    verdict(sh, folder_has_entries("/sys/kernel/iommu_groups") ? PASS : WARN, "IOMMU",
            "none: host devices cannot be given to machines", &failed);
    verdict(sh, usable("/dev/net/tun") ? PASS : WARN, "/dev/net/tun can be used",
            "networks with bridges do not work; user networking does", &failed);
    verdict(sh, usable("/dev/vhost-net") ? PASS : WARN, "/dev/vhost-net can be used",
            "network cards are served by the machine's own process", &failed);
    verdict(sh, bridges_work() ? PASS : WARN, "bridges", "load module 'bridge'", &failed);
    for (unsigned i = 0; i < G_N_ELEMENTS(controllers); i++) {
        g_autofree char *what = g_strdup_printf("cgroup controller '%s'", controllers[i][0]);
        bool there = cgroup_has(controllers[i][0]) || cgroup_has(controllers[i][1]);
        verdict(sh, there ? PASS : WARN, what, "limits of that kind are not possible", &failed);
    }
    for (const char *const *p = (const char *const[]){"lodge-vm", "dnsmasq", "nft", NULL}; *p;
         p++) {
        g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
        g_autofree char *folder = self ? g_path_get_dirname(self) : NULL;
        g_autofree char *beside = folder ? g_build_filename(folder, *p, NULL) : NULL;
        g_autofree char *found = g_find_program_in_path(*p);
        g_autofree char *what = g_strdup_printf("program '%s'", *p);
        bool needed = strcmp(*p, "lodge-vm") == 0;
        bool there = found || (beside && access(beside, X_OK) == 0);
        verdict(sh,
                there    ? PASS
                : needed ? FAIL
                         : WARN,
                what, needed ? "nothing runs without it" : "networks with addresses need it",
                &failed);
    }
    return !failed || shell_fail(error, "this host cannot run machines");
}

const struct verb_group verb_group_local = {
    "Beyond virsh", "local",
    (const struct verb_row[]){
        {"run",
         (const struct option_row[]){
             {"image", OPT_TEXT, 0, "disk image, of any format", COMPLETE_FILE},
             {"format", OPT_TEXT, OPT_NAMED, "of the image (default: by its first bytes)"},
             {"name", OPT_TEXT, OPT_NAMED, "name of the domain (default: the image's)"},
             {"memory", OPT_SIZE, OPT_NAMED, "KiB, or with a suffix (1 GiB)"},
             {"vcpus", OPT_NUMBER, OPT_NAMED, "processors (1)"},
             {"cdrom", OPT_TEXT, OPT_NAMED, "image of a CD", COMPLETE_FILE},
             {"network", OPT_TEXT, OPT_NAMED, "user (default), none, or a network's name",
              COMPLETE_NETWORK},
             {"uefi", OPT_BOOL, 0, "with UEFI firmware"},
             {"kernel", OPT_TEXT, OPT_NAMED, "Linux kernel to boot", COMPLETE_FILE},
             {"initrd", OPT_TEXT, OPT_NAMED, "its initial RAM disk", COMPLETE_FILE},
             {"append", OPT_TEXT, OPT_NAMED, "its command line"},
             {"no-reboot", OPT_BOOL, 0, "end when the guest restarts"},
             {"autodestroy", OPT_BOOL, 0, "end when this shell does"},
             {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"},
             {NULL}},
         "runs an image and connects to its console", run_run},
        {"ssh-helper",
         (const struct option_row[]){
             {"uri", OPT_TEXT, OPT_NEEDED, "qemu:///system, qemu:///session"}, {NULL}},
         "carries a client's bytes between ssh and the daemon", run_ssh_helper},
        {"top",
         (const struct option_row[]){
             {"delay", OPT_NUMBER, OPT_NAMED, "seconds between two looks (1)"},
             {"count", OPT_NUMBER, OPT_NAMED, "how many looks (until a key is pressed)"},
             {NULL}},
         "shows what running domains do; with --json each look is a line", run_top},
        {"validate-host", NULL, "tells what this host can do for machines", run_validate},
        {NULL},
    }};
