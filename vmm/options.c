/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/options.h"

#include "base/error.h"
#include "base/log.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/translate/bt.h"
#include "guest/memory/ram.h"
#include "host/audio/audio.h"
#include "host/chardev/chardev.h"
#include "host/net/net.h"
#include "vmm/vm.h"

#include <string.h>

const char vm_version[] = "0.1";

/* ---- what the rows call; @arg is what follows the option ---- */

static bool answer(struct vm_options *o, GString *text)
{
    g_free(o->answer);
    o->answer = g_string_free(text, FALSE);
    return true;
}

static bool is_help(const char *arg)
{
    return g_str_equal(arg, "help") || g_str_equal(arg, "?");
}

const char *vm_options_keep(struct vm_options *o, const char *text)
{
    char *copy = g_strdup(text);
    if (copy) {
        g_ptr_array_add(o->texts, copy);
    }
    return copy;
}

static bool refuse(GError **error, const char *fmt, const char *arg)
{
    g_autofree char *text = g_strdup_printf(fmt, arg);
    g_set_error_literal(error, LODGE_ERROR, ENOTSUP, text);
    return false;
}
#define REFUSE(error, fmt, arg) refuse(error, "" fmt "", arg)

static bool on_machine(struct vm_options *o, const char *arg, GError **error)
{
    struct machine_config *m = &o->machine;
    if (is_help(arg)) {
        g_autoptr(GString) text = g_string_new(NULL);
        machine_list(text);
        return answer(o, g_steal_pointer(&text));
    }
    g_autoptr(KeyVal) kv = keyval_parse(arg, "type", error);
    if (!kv) {
        return false;
    }
    if (!keyval_bool(kv, "usb", &o->usb, error)) {
        return false;
    }
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        const char *key = keyval_key(kv, i), *value = keyval_value(kv, i);
        if (g_str_equal(key, "usb")) {
            continue; /* -usb by another name */
        } else if (g_str_equal(key, "type")) {
            m->machine = vm_options_keep(o, value);
        } else if (g_str_equal(key, "accel")) {
            o->accel = vm_options_keep(o, value);
        } else if (g_str_equal(key, "memory-backend")) {
            o->memory_backend = vm_options_keep(o, value);
        } else if (g_str_equal(key, "kernel") || g_str_equal(key, "initrd") ||
                   g_str_equal(key, "append")) {
            const char **to = *key == 'k' ? &m->kernel : *key == 'i' ? &m->initrd : &m->append;
            *to = vm_options_keep(o, value);
        } else {
            g_hash_table_insert(m->props, g_strdup(key), g_strdup(value));
        }
    }
    return true;
}

static bool on_accel(struct vm_options *o, const char *arg, GError **error)
{
    if (is_help(arg)) {
        GString *text =
            g_string_new("Accelerators (CPU engines); they can be joined, as in kvm:bt:\n");
        for (unsigned i = 0; i < n_cpu_engines; i++) {
            g_string_append_printf(text, "%-8s %s\n", cpu_engines[i]->name, cpu_engines[i]->about);
        }
        g_string_append(text, "tcg      another name of bt\n");
        return answer(o, text);
    }
    g_autoptr(KeyVal) kv = keyval_parse(arg, "accel", error);
    if (!kv) {
        return false;
    }
    const char *name = keyval_get(kv, "accel"), *thread = keyval_get(kv, "thread");
    const char *irqchip = keyval_get(kv, "kernel-irqchip");
    if (thread && !g_str_equal(thread, "multi")) {
        return REFUSE(error, "-accel: thread=%s: each vCPU has a thread of its own", thread);
    }
    if (irqchip) {
        g_hash_table_insert(o->machine.props, g_strdup("kernel-irqchip"), g_strdup(irqchip));
    }
    const char *direct = keyval_get(kv, "direct");
    if (direct && !bt_direct_named(direct)) {
        return REFUSE(error, "-accel: direct=%s: want on, off or always", direct);
    }
    uint64_t cache = 0;
    if (!keyval_size(kv, "tb-size", 1 << 20, &cache, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-accel %s: ", arg);
        return false;
    }
    if (keyval_get(kv, "tb-size")) {
        if (cache < UINT64_C(4) << 20 || cache > UINT64_C(1) << 30) {
            return REFUSE(error, "-accel: tb-size=%s: want 4M to 1G", keyval_get(kv, "tb-size"));
        }
        bt_cache_bytes = cache & PAGE_MASK;
    }
    g_autofree char *both = o->accel ? g_strconcat(o->accel, ":", name, NULL) : g_strdup(name);
    o->accel = vm_options_keep(o, both);
    return true;
}

static bool on_cpu(struct vm_options *o, const char *arg, GError **error)
{
    (void)error;
    if (is_help(arg)) {
        g_autoptr(GString) text = g_string_new(NULL);
        cpu_models_list(text);
        return answer(o, g_steal_pointer(&text));
    }
    o->machine.cpu = vm_options_keep(o, arg);
    return true;
}

static bool on_smp(struct vm_options *o, const char *arg, GError **error)
{
    return vm_options_smp(&o->machine, arg, error);
}

static bool on_m(struct vm_options *o, const char *arg, GError **error)
{
    struct machine_config *m = &o->machine;
    uint64_t slots = 0, size = m->ram_bytes, most = 0;
    g_autoptr(KeyVal) kv = keyval_parse(arg, "size", error);
    bool ok = kv && keyval_size(kv, "size", 1 << 20, &size, error) &&
              keyval_size(kv, "maxmem", 1 << 20, &most, error) &&
              keyval_u64(kv, "slots", 256, &slots, error) && keyval_done(kv, error);
    const char *wrong = size == 0                      ? "a machine needs memory"
                        : slots && !most               ? "missing 'maxmem' option"
                        : most && most < size          ? "maxmem is less than the size"
                        : slots && most == size        ? "slots are of no use where maxmem is the size"
                        : most > UINT64_C(1) << 44     ? "maxmem is more than 16T"
                                                       : NULL;
    if (ok && wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
        ok = false;
    }
    if (!ok) {
        g_prefix_error(error, "-m %s: ", arg);
        return false;
    }
    m->ram_bytes = (size + PAGE_SIZE - 1) & PAGE_MASK;
    m->max_ram_bytes = MAX(m->ram_bytes, most);
    m->ram_slots = (unsigned)slots;
    return true;
}

/* Letters a to p, each once; a, c, d and n mean something on a PC. */
static bool boot_letters(const char *letters, GError **error)
{
    for (const char *s = letters; *s; s++) {
        if (*s < 'a' || *s > 'p' || strchr(s + 1, *s)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s boot device \"%c\"",
                        *s >= 'a' && *s <= 'p' ? "twice the" : "no", *s);
            return false;
        }
    }
    return true;
}

/* reboot-timeout=: milliseconds, or -1 for never. */
static bool take_fail_wait(KeyVal *kv, struct machine_config *m, GError **error)
{
    const char *text = keyval_get(kv, "reboot-timeout");
    gint64 ms;
    if (!text) {
        return true;
    }
    if (!g_ascii_string_to_signed(text, 10, -1, 0xffff, &ms, NULL)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "reboot-timeout is invalid, it should be a value between -1 and 65535");
        return false;
    }
    m->boot_fail_wait = (uint32_t)ms + 1;
    return true;
}

static bool on_boot(struct vm_options *o, const char *arg, GError **error)
{
    struct machine_config *m = &o->machine;
    g_autoptr(KeyVal) kv = keyval_parse(arg, "order", error);
    if (!kv) {
        return false;
    }
    const char *order = keyval_get(kv, "order"), *once = keyval_get(kv, "once");
    if ((order && !boot_letters(order, error)) || (once && !boot_letters(once, error)) ||
        !keyval_bool(kv, "menu", &m->boot_menu, error) ||
        !keyval_bool(kv, "strict", &m->boot_strict, error) ||
        !keyval_unsigned(kv, "splash-time", 65535, &m->boot_splash_ms, error) ||
        !take_fail_wait(kv, m, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-boot %s: ", arg);
        return false;
    }
    m->boot_order = order ? vm_options_keep(o, order) : m->boot_order;
    m->boot_once = once ? vm_options_keep(o, once) : m->boot_once;
    return true;
}

static bool on_name(struct vm_options *o, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, "guest", error);
    if (!kv) {
        return false;
    }
    const char *guest = keyval_get(kv, "guest"), *process = keyval_get(kv, "process");
    bool threads;
    if (!keyval_bool(kv, "debug-threads", &threads, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-name %s: ", arg);
        return false;
    }
    o->machine.name = guest ? vm_options_keep(o, guest) : o->machine.name;
    if (process) {
        vm_options_add(o, "process-name", process);
    }
    return true;
}

static bool on_uuid(struct vm_options *o, const char *arg, GError **error)
{
    if (!g_uuid_string_is_valid(arg)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-uuid %s: no UUID", arg);
        return false;
    }
    o->machine.uuid = vm_options_keep(o, arg);
    return true;
}

static bool on_rtc(struct vm_options *o, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, NULL, error);
    if (!kv) {
        return false;
    }
    const char *base = keyval_get(kv, "base"), *clock = keyval_get(kv, "clock");
    const char *drift = keyval_get(kv, "driftfix");
    if (!keyval_done(kv, error)) {
        g_prefix_error(error, "-rtc %s: ", arg);
        return false;
    }
    if (clock && !g_str_equal(clock, "host")) {
        return REFUSE(error, "-rtc: clock=%s is not supported, clock=host is", clock);
    }
    if (drift && !g_str_equal(drift, "none") && !g_str_equal(drift, "slew")) {
        return REFUSE(error, "-rtc: driftfix=%s: want none or slew", drift);
    }
    o->rtc_base = base ? vm_options_keep(o, base) : o->rtc_base;
    return true;
}

static const struct {
    const char *key, *value;
    uint32_t slot;
    unsigned number;
} actions[] = {
    {"reboot", "reset", offsetof(struct vm_options, on_reboot), REBOOT_RESET},
    {"reboot", "shutdown", offsetof(struct vm_options, on_reboot), REBOOT_SHUTDOWN},
    {"shutdown", "poweroff", offsetof(struct vm_options, on_shutdown), SHUTDOWN_POWEROFF},
    {"shutdown", "pause", offsetof(struct vm_options, on_shutdown), SHUTDOWN_PAUSE},
    {"watchdog", "reset", offsetof(struct vm_options, on_watchdog), WATCHDOG_RESET},
    {"watchdog", "shutdown", offsetof(struct vm_options, on_watchdog), WATCHDOG_SHUTDOWN},
    {"watchdog", "poweroff", offsetof(struct vm_options, on_watchdog), WATCHDOG_POWEROFF},
    {"watchdog", "inject-nmi", offsetof(struct vm_options, on_watchdog), WATCHDOG_INJECT_NMI},
    {"watchdog", "pause", offsetof(struct vm_options, on_watchdog), WATCHDOG_PAUSE},
    {"watchdog", "debug", offsetof(struct vm_options, on_watchdog), WATCHDOG_DEBUG},
    {"watchdog", "none", offsetof(struct vm_options, on_watchdog), WATCHDOG_NONE},
    {"panic", "pause", offsetof(struct vm_options, on_panic), PANIC_PAUSE},
    {"panic", "shutdown", offsetof(struct vm_options, on_panic), PANIC_SHUTDOWN},
    {"panic", "exit-failure", offsetof(struct vm_options, on_panic), PANIC_EXIT_FAILURE},
    {"panic", "none", offsetof(struct vm_options, on_panic), PANIC_NONE},
};

static bool set_action(struct vm_options *o, const char *key, const char *value, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (g_str_equal(actions[i].key, key) && g_strcmp0(actions[i].value, value) == 0) {
            *(unsigned *)((char *)o + actions[i].slot) = actions[i].number;
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "action: no %s=%s", key, value ? value : "");
    return false;
}

bool vm_set_action(const char *key, const char *value, GError **error)
{
    return set_action((struct vm_options *)vm_options(), key, value, error);
}

static bool on_action(struct vm_options *o, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, NULL, error);
    bool ok = kv != NULL;
    for (unsigned i = 0; ok && i < keyval_count(kv); i++) {
        ok = set_action(o, keyval_key(kv, i), keyval_value(kv, i), error);
    }
    return ok;
}

static bool on_watchdog_action(struct vm_options *o, const char *arg, GError **error)
{
    return set_action(o, "watchdog", arg, error);
}

static bool on_no_reboot(struct vm_options *o, const char *arg, GError **error)
{
    (void)arg, (void)error;
    o->on_reboot = REBOOT_SHUTDOWN;
    return true;
}

static bool on_no_shutdown(struct vm_options *o, const char *arg, GError **error)
{
    (void)arg, (void)error;
    o->on_shutdown = SHUTDOWN_PAUSE;
    return true;
}

static bool on_s(struct vm_options *o, const char *arg, GError **error)
{
    (void)arg, (void)error;
    o->gdb = "tcp::1234";
    return true;
}

static bool on_msg(struct vm_options *o, const char *arg, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(arg, NULL, error);
    bool ok = kv && keyval_bool(kv, "timestamp", &o->timestamps, error) && keyval_done(kv, error);
    if (!ok) {
        g_prefix_error(error, "-msg %s: ", arg);
    }
    return ok;
}

static bool on_overcommit(struct vm_options *o, const char *arg, GError **error)
{
    bool pm = false;
    (void)o;
    g_autoptr(KeyVal) kv = keyval_parse(arg, NULL, error);
    if (!kv || !keyval_bool(kv, "mem-lock", &ram_locked, error) ||
        !keyval_bool(kv, "cpu-pm", &pm, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-overcommit %s: ", arg);
        return false;
    }
    return !pm || REFUSE(error, "-overcommit %s: only cpu-pm=off is supported", arg);
}

static bool on_log(struct vm_options *o, const char *arg, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (!log_enable(arg, &why)) {
        if (g_error_matches(why, LODGE_ERROR, ECANCELED)) {
            return answer(o, g_string_new(why->message));
        }
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    o->log_items = vm_options_keep(o, arg);
    return true;
}

static bool on_firmware_folder(struct vm_options *o, const char *arg, GError **error)
{
    (void)o, (void)error;
    machine_firmware_folder(arg);
    return true;
}

static bool on_usbdevice(struct vm_options *o, const char *arg, GError **error)
{
    static const struct {
        const char *name, *model;
    } names[] = {{"tablet", "usb-tablet"}, {"mouse", "usb-mouse"}, {"keyboard", "usb-kbd"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i].name, arg)) {
            o->usb = true;
            vm_options_add(o, "usb-device", names[i].model);
            return true;
        }
    }
    return REFUSE(error, "-usbdevice %s: only tablet, mouse and keyboard are supported", arg);
}

static bool on_vga(struct vm_options *o, const char *arg, GError **error)
{
    if (!g_str_equal(arg, "std") && !g_str_equal(arg, "virtio") && !g_str_equal(arg, "none")) {
        return REFUSE(error, "-vga %s: only std, virtio and none are supported", arg);
    }
    o->machine.vga = vm_options_keep(o, arg);
    return true;
}

static bool on_display(struct vm_options *o, const char *arg, GError **error)
{
    if (is_help(arg)) {
        return answer(o, g_string_new("Available display backend types:\nnone\nvnc=DISPLAY\n"));
    }
    if (!g_str_equal(arg, "none") && !g_str_has_prefix(arg, "vnc=")) {
        return REFUSE(error, "-display %s: only none and vnc=DISPLAY are supported", arg);
    }
    o->display = vm_options_keep(o, arg);
    return true;
}

static bool on_device(struct vm_options *o, const char *arg, GError **error)
{
    g_autofree char *name = g_strndup(arg, strcspn(arg, ","));
    if (is_help(arg)) {
        GString *text = g_string_new(NULL);
        vm_list_devices(text);
        return answer(o, text);
    }
    if (g_str_has_suffix(arg, ",help") || g_str_has_suffix(arg, ",?")) {
        GString *text = g_string_new(NULL);
        if (!vm_list_device_properties(name, text, error)) {
            g_string_free(text, TRUE);
            return false;
        }
        return answer(o, text);
    }
    vm_options_add(o, "device", arg);
    return true;
}

static bool on_object(struct vm_options *o, const char *arg, GError **error)
{
    (void)error;
    if (is_help(arg)) {
        GString *text = g_string_new("List of user creatable objects:\n");
        vm_list_objects(text);
        return answer(o, text);
    }
    vm_options_add(o, "object", arg);
    return true;
}

static bool on_netdev(struct vm_options *o, const char *arg, GError **error)
{
    (void)error;
    if (is_help(arg)) {
        GString *text = g_string_new("Available netdev backend types:\n");
        netdev_kinds(text);
        return answer(o, text);
    }
    vm_options_add(o, "netdev", arg);
    return true;
}

static bool on_audiodev(struct vm_options *o, const char *arg, GError **error)
{
    (void)error;
    if (is_help(arg)) {
        GString *text = g_string_new("Available audiodev drivers:\n");
        audio_kinds(text);
        return answer(o, text);
    }
    vm_options_add(o, "audiodev", arg);
    return true;
}

static bool on_chardev(struct vm_options *o, const char *arg, GError **error)
{
    (void)error;
    if (is_help(arg)) {
        GString *text = g_string_new(NULL);
        chardev_kinds(text);
        return answer(o, text);
    }
    vm_options_add(o, "chardev", arg);
    return true;
}

static bool on_echr(struct vm_options *o, const char *arg, GError **error)
{
    uint64_t key;
    (void)o;
    if (!text_u64(arg, &key) || key < 1 || key > 255) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-echr %s: want a character code, 1 to 255", arg);
        return false;
    }
    chardev_escape_key = (uint8_t)key;
    return true;
}

static bool on_help(struct vm_options *o, const char *arg, GError **error)
{
    (void)arg, (void)error;
    o->answer = vm_options_help();
    return true;
}

static bool on_version(struct vm_options *o, const char *arg, GError **error)
{
    (void)arg, (void)error;
    o->answer =
        g_strdup_printf("lodge-vm version %s (command line and QMP of QEMU 7.2)\n", vm_version);
    return true;
}

/* ---- the table ---- */

enum option_kind {
    OPT_CALL, /* .call */
    OPT_FLAG, /* a bool at .slot becomes true */
    OPT_TEXT, /* a const char * at .slot */
    OPT_USE,  /* kept in .uses */
    OPT_LIST, /* a GPtrArray * of text at .slot */
    OPT_NO,   /* QEMU has it; .help says why not here */
};

struct option_row {
    const char *name;
    const char *arg; /* what follows, for -help; NULL: nothing does */
    enum option_kind kind;
    bool (*call)(struct vm_options *o, const char *arg, GError **error);
    uint32_t slot;
    const char *help; /* NULL: another name of the row above */
};

#define CALL(fn)    OPT_CALL, fn, 0
#define FLAG(field) OPT_FLAG, NULL, offsetof(struct vm_options, field)
#define TEXT(field) OPT_TEXT, NULL, offsetof(struct vm_options, field)
#define LIST(field) OPT_LIST, NULL, offsetof(struct vm_options, field)
#define USE         OPT_USE, NULL, 0
#define NO          OPT_NO, NULL, 0
#define SECTION(title)                                                                             \
    {                                                                                              \
        NULL, NULL, OPT_NO, NULL, 0, title                                                         \
    }

static const struct option_row rows[] = {
#include "vmm/options.def"
};

unsigned vm_option_count(void)
{
    return G_N_ELEMENTS(rows);
}

const char *vm_option_name(unsigned i, bool *has_argument, bool *refused)
{
    *has_argument = rows[i].arg != NULL;
    *refused = rows[i].kind == OPT_NO;
    return rows[i].name;
}

static void help_row(GString *out, const struct option_row *r)
{
    g_autofree char *left = g_strdup_printf("-%s %s", r->name ? r->name : "", r->arg ? r->arg : "");
    const char *help = r->help ? r->help : "the same";
    if (!r->name) {
        g_string_append_printf(out, "\n%s:\n", r->help);
    } else if (r->kind == OPT_NO) {
        return;
    } else if (strlen(left) > 30) {
        g_string_append_printf(out, "%s\n%31s%s\n", left, "", help);
    } else {
        g_string_append_printf(out, "%-30s %s\n", left, help);
    }
}

char *vm_options_help(void)
{
    GString *out = g_string_new(NULL);
    g_string_append_printf(out, "lodge-vm version %s\nusage: lodge-vm [options] [disk image]\n",
                           vm_version);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        help_row(out, &rows[i]);
    }
    return g_string_free(out, FALSE);
}

/* ---- parsing ---- */

static void use_clear(void *data)
{
    g_free(((struct option_use *)data)->text);
}

void vm_options_add(struct vm_options *o, const char *option, const char *text)
{
    struct option_use use = {option, g_strdup(text)};
    g_array_append_val(o->uses, use);
}

static struct vm_options *defaults(void)
{
    struct vm_options *o = g_new0(struct vm_options, 1);
    o->uses = g_array_new(FALSE, FALSE, sizeof(struct option_use));
    g_array_set_clear_func(o->uses, use_clear);
    o->texts = g_ptr_array_new_with_free_func(g_free);
    o->machine = (struct machine_config){
        .props = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
        .cpus = 1,
        .maxcpus = 1,
        .topology = {1, 1, 1, 1},
        .ram_bytes = 128 << 20,
        .max_ram_bytes = 128 << 20,
        .smbios = g_ptr_array_new(),
        .acpitable = g_ptr_array_new(),
        .fw_cfg = g_ptr_array_new(),
    };
    return o;
}

void vm_options_free(struct vm_options *o)
{
    g_hash_table_unref(o->machine.props);
    g_ptr_array_unref(o->machine.smbios);
    g_ptr_array_unref(o->machine.acpitable);
    g_ptr_array_unref(o->machine.fw_cfg);
    g_array_unref(o->uses);
    g_ptr_array_unref(o->texts);
    g_free(o->answer);
    g_free(o);
}

static const struct option_row *row_find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (rows[i].name && g_str_equal(rows[i].name, name)) {
            return &rows[i];
        }
    }
    return NULL;
}

static bool apply(struct vm_options *o, const struct option_row *r, const char *arg, GError **error)
{
    void *slot = (char *)o + r->slot;
    switch (r->kind) {
    case OPT_CALL:
        return r->call(o, arg, error);
    case OPT_FLAG:
        *(bool *)slot = true;
        return true;
    case OPT_TEXT:
        *(const char **)slot = vm_options_keep(o, arg);
        return true;
    case OPT_LIST:
        g_ptr_array_add(*(GPtrArray **)slot, (void *)vm_options_keep(o, arg));
        return true;
    case OPT_USE:
        vm_options_add(o, r->name, arg);
        return true;
    case OPT_NO:
        break;
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "-%s is not supported: %s", r->name, r->help);
    return false;
}

bool vm_options_apply(struct vm_options *o, const char *option, const char *text, GError **error)
{
    const struct option_row *r = row_find(option);
    if (!r || !r->arg) {
        g_set_error(error, LODGE_ERROR, EINVAL, "there is no group \"%s\"", option);
        return false;
    }
    return apply(o, r, text, error);
}

static bool parse_all(struct vm_options *o, int argc, char **argv, GError **error)
{
    for (int i = 1; i < argc && !o->answer; i++) {
        const char *word = argv[i];
        if (*word != '-' || !word[1]) {
            vm_options_add(o, "hda", word);
            continue;
        }
        const struct option_row *r = row_find(word + 1 + (word[1] == '-'));
        if (!r) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s: invalid option", word);
            return false;
        }
        if (r->arg && i + 1 == argc && r->kind != OPT_NO) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s: requires an argument", word);
            return false;
        }
        if (!apply(o, r, r->arg && i + 1 < argc ? argv[++i] : NULL, error)) {
            return false;
        }
    }
    return true;
}

struct vm_options *vm_options_parse(int argc, char **argv, GError **error)
{
    struct vm_options *o = defaults();
    if (!parse_all(o, argc, argv, error)) {
        vm_options_free(o);
        return NULL;
    }
    return o;
}

bool vm_options_each(struct vm_options *o, const char *const *names,
                     bool (*each)(const struct option_use *use, void *owner, GError **error),
                     void *owner, GError **error)
{
    for (unsigned i = 0; i < o->uses->len; i++) {
        struct option_use use = g_array_index(o->uses, struct option_use, i);
        if (g_strv_contains(names, use.option) && !each(&use, owner, error)) {
            return false;
        }
    }
    return true;
}

bool vm_options_used(const struct vm_options *o, const char *name)
{
    for (unsigned i = 0; i < o->uses->len; i++) {
        if (g_str_equal(g_array_index(o->uses, struct option_use, i).option, name)) {
            return true;
        }
    }
    return false;
}
