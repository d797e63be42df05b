/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/progress.h"

#include "base/util.h"

#include <fcntl.h>
#include <string.h>

/*
 * Domains: what changes them.
 */
#define NAMED         DOMAIN_OPTION(COMPLETE_DOMAIN)
#define NAMED_ACTIVE  DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)
#define NAMED_SHUTOFF DOMAIN_OPTION(COMPLETE_DOMAIN_INACTIVE)
#define CONFIG_LIVE                                                                                \
    {"config", OPT_BOOL, 0, "from the next start on"},                                             \
        {"live", OPT_BOOL, 0, "in the running machine"},                                           \
        {"current", OPT_BOOL, 0, "in whichever of the two there is"}

/* ---- Start, stop ---- */

static bool run_start(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"paused", 1}, {"autodestroy", 2}, {"bypass-cache", 4}, {"force-boot", 8},
        {"reset-nvram", 32}};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_domain_ret) ret = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (dom.id != -1) {
        return shell_fail(error, "Domain is already active");
    }
    rpc_domain_flags args = {dom, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_domain_create_with_flags(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Failed to start domain '%s'", dom.name);
        return false;
    }
    out_note(sh, "Domain '%s' started", dom.name);
    if (args_flag(a, "console")) {
        char *words[] = {(char *)"console", dom.name};
        return shell_run_words(sh, words, 2);
    }
    return true;
}

/* --mode acpi,agent of shutdown and reboot. */
static bool modes_of(const struct args *a, unsigned *flags, GError **error)
{
    static const char *const names[] = {"acpi", "agent", "initctl", "signal", "paravirt"};
    g_auto(GStrv) modes = g_strsplit(args_text(a, "mode") ? args_text(a, "mode") : "", ",", -1);
    *flags = 0;
    for (unsigned i = 0; modes[i] && *modes[i]; i++) {
        unsigned m = 0;
        while (m < G_N_ELEMENTS(names) && strcmp(names[m], modes[i]) != 0) {
            m++;
        }
        if (m == G_N_ELEMENTS(names)) {
            return shell_fail(error, "Unknown mode %s value, expecting 'acpi', 'agent', 'initctl', "
                                     "'signal', or 'paravirt'", modes[i]);
        }
        *flags |= 1u << m;
    }
    return true;
}

static bool run_with_modes(struct shell *sh, const struct args *a, GError **error)
{
    bool reboot = strcmp(shell_data(sh), "reboot") == 0;
    g_auto(rpc_domain) dom = {0};
    rpc_domain_flags args = {0};
    rpc_none none;
    if (!modes_of(a, &args.flags, error) ||
        !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom;
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!(reboot ? ask_domain_reboot(rpc, &args, &none, error)
                 : ask_domain_shutdown_flags(rpc, &args, &none, error))) {
        shell_failing(sh, "Failed to %s domain '%s'", (const char *)shell_data(sh), dom.name);
        return false;
    }
    out_note(sh, reboot ? "Domain '%s' is being rebooted" : "Domain '%s' is being shutdown",
             dom.name);
    return true;
}

static bool run_rename(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_int done;
    char *to = (char *)args_text(a, "new-name");
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_maybe_flags args = {dom, &to, 0};
    if (!ask_domain_rename(shell_rpc(sh, NULL), &args, &done, error)) {
        return false;
    }
    out_note(sh, "Domain successfully renamed");
    return true;
}

/* ---- Memory, processors ---- */

static bool run_memory(struct shell *sh, const struct args *a, GError **error)
{
    enum { MAXIMUM = 4 };
    bool maximum = shell_data(sh) != NULL;
    g_auto(rpc_domain) dom = {0};
    uint64_t kib = 0;
    rpc_none none;
    args_number(a, "size", &kib);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uhyper_flags args = {dom, kib, affect_of(a) | (maximum ? MAXIMUM : 0)};
    if (!ask_domain_set_memory_flags(shell_rpc(sh, NULL), &args, &none, error)) {
        if (maximum) {
            shell_failing(sh, "Unable to change MaxMemorySize");
        }
        return false;
    }
    return true;
}

static bool run_setvcpus(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"live", 1}, {"config", 2}, {"maximum", 4}, {"guest", 8}, {"hotpluggable", 16}};
    g_auto(rpc_domain) dom = {0};
    uint64_t count = 0;
    rpc_none none;
    args_number(a, "count", &count);
    if (!exclusive(a, "current", "live", error) || !exclusive(a, "current", "config", error) ||
        !exclusive(a, "guest", "config", error)) {
        return false;
    }
    if (count == 0 || count > INT32_MAX) {
        return shell_fail(error, "Can't set 0 processors for a VM");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uint_flags args = {dom, (unsigned)count, flags_of(a, bits, G_N_ELEMENTS(bits))};
    return ask_domain_set_vcpus_flags(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_setvcpu(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"live", 1}, {"config", 2}};
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    bool enable = args_flag(a, "enable");
    if (enable == args_flag(a, "disable")) {
        return shell_fail(error, enable ? "Options --enable and --disable are mutually exclusive"
                                        : "one of options --enable or --disable is required");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_cpus_flags args = {dom, (char *)args_text(a, "vcpulist"), enable,
                                  flags_of(a, bits, G_N_ELEMENTS(bits))};
    return ask_domain_set_vcpu(shell_rpc(sh, NULL), &args, &none, error);
}

/* ---- State in files ---- */

static bool read_optional_xml(const struct args *a, char **xml, GError **error)
{
    const char *path = args_text(a, "xml");
    *xml = path ? shell_read_file(path, error) : NULL;
    return !path || *xml;
}

static const struct flag_bit save_bits[] = {
    {"bypass-cache", 1}, {"running", 2}, {"paused", 4}, {"reset-nvram", 8}};

static bool run_save(struct shell *sh, const struct args *a, GError **error)
{
    g_autofree char *xml = NULL;
    g_autofree char *to = g_canonicalize_filename(args_text(a, "file"), NULL);
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    if (!read_optional_xml(a, &xml, error) ||
        !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_save_args args = {dom, to, xml ? &xml : NULL, flags_of(a, save_bits, 3)};
    struct progress *p = args_flag(a, "verbose") ? progress_begin(sh, &dom, "Save") : NULL;
    bool ok = ask_domain_save_flags(shell_rpc(sh, NULL), &args, &none, error);
    if (p) {
        progress_end(p, ok);
    }
    if (!ok) {
        shell_failing(sh, "Failed to save domain '%s' to %s", dom.name, args_text(a, "file"));
        return false;
    }
    out_note(sh, "\nDomain '%s' saved to %s", dom.name, args_text(a, "file"));
    return true;
}

static bool run_managedsave(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    struct progress *p = args_flag(a, "verbose") ? progress_begin(sh, &dom, "Managedsave") : NULL;
    bool ok = run_simple(sh, a, error);
    if (p) {
        progress_end(p, ok);
    }
    return ok;
}

static bool run_restore(struct shell *sh, const struct args *a, GError **error)
{
    g_autofree char *xml = NULL;
    g_autofree char *from = g_canonicalize_filename(args_text(a, "file"), NULL);
    rpc_none none;
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !read_optional_xml(a, &xml, error)) {
        return false;
    }
    rpc_restore_args args = {from, xml ? &xml : NULL, flags_of(a, save_bits, 4)};
    if (!ask_domain_restore_flags(rpc, &args, &none, error)) {
        shell_failing(sh, "Failed to restore domain from %s", args_text(a, "file"));
        return false;
    }
    out_note(sh, "Domain restored from %s", args_text(a, "file"));
    return true;
}

static bool run_managedsave_remove(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_int saved;
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_has_managed_save_image(rpc, &args, &saved, error)) {
        shell_failing(sh, "Failed to check for domain managed save image");
        return false;
    }
    if (!saved.value) {
        out_note_open(sh, "Domain '%s' has no manage save image; removal skipped", dom.name);
        return true;
    }
    if (!ask_domain_managed_save_remove(rpc, &args, &none, error)) {
        shell_failing(sh, "Failed to remove managed save image for domain '%s'", dom.name);
        return false;
    }
    out_note_open(sh, "Removed managedsave image for domain '%s'", dom.name);
    return true;
}

/* ---- Keys and pictures ---- */

static bool codeset_of(const char *name, unsigned *out, GError **error)
{
    static const char *const sets[] = {"linux", "xt",        "atset1", "atset2", "atset3",
                                       "os_x",  "xt_kbd",    "usb",    "win32",  "qnum"};
    for (unsigned i = 0; i < G_N_ELEMENTS(sets); i++) {
        if (strcmp(name, sets[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return shell_fail(error, "unknown codeset: '%s'", name);
}

/* The names of <linux/input-event-codes.h> that people send, in the order of its numbers. */
static const char *const linux_keys[] = {
    "RESERVED", "ESC", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "MINUS", "EQUAL",
    "BACKSPACE", "TAB", "Q", "W", "E", "R", "T", "Y", "U", "I", "O", "P", "LEFTBRACE",
    "RIGHTBRACE", "ENTER", "LEFTCTRL", "A", "S", "D", "F", "G", "H", "J", "K", "L", "SEMICOLON",
    "APOSTROPHE", "GRAVE", "LEFTSHIFT", "BACKSLASH", "Z", "X", "C", "V", "B", "N", "M", "COMMA",
    "DOT", "SLASH", "RIGHTSHIFT", "KPASTERISK", "LEFTALT", "SPACE", "CAPSLOCK", "F1", "F2", "F3",
    "F4", "F5", "F6", "F7", "F8", "F9", "F10", "NUMLOCK", "SCROLLLOCK", "KP7", "KP8", "KP9",
    "KPMINUS", "KP4", "KP5", "KP6", "KPPLUS", "KP1", "KP2", "KP3", "KP0", "KPDOT", NULL,
    "ZENKAKUHANKAKU", "102ND", "F11", "F12", "RO", "KATAKANA", "HIRAGANA", "HENKAN",
    "KATAKANAHIRAGANA", "MUHENKAN", "KPJPCOMMA", "KPENTER", "RIGHTCTRL", "KPSLASH", "SYSRQ",
    "RIGHTALT", "LINEFEED", "HOME", "UP", "PAGEUP", "LEFT", "RIGHT", "END", "DOWN", "PAGEDOWN",
    "INSERT", "DELETE", "MACRO", "MUTE", "VOLUMEDOWN", "VOLUMEUP", "POWER", "KPEQUAL", "KPPLUSMINUS",
    "PAUSE", "SCALE", "KPCOMMA", "HANGEUL", "HANJA", "YEN", "LEFTMETA", "RIGHTMETA", "COMPOSE",
};

static bool key_of(const char *word, unsigned *out, GError **error)
{
    char *end;
    guint64 n = g_ascii_strtoull(word, &end, 0);
    if (end != word && !*end && n <= 0xffff) {
        *out = (unsigned)n;
        return true;
    }
    for (unsigned i = 0; g_str_has_prefix(word, "KEY_") && i < G_N_ELEMENTS(linux_keys); i++) {
        if (linux_keys[i] && strcmp(word + 4, linux_keys[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return shell_fail(error, "invalid keycode: '%s'", word);
}

static bool run_send_key(struct shell *sh, const struct args *a, GError **error)
{
    enum { KEYS_MAX = 16 };
    unsigned keys[KEYS_MAX], n = 0;
    uint64_t hold = 0;
    rpc_send_key_args args = {0};
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    if (args_text(a, "codeset") && !codeset_of(args_text(a, "codeset"), &args.codeset, error)) {
        return false;
    }
    args_number(a, "holdtime", &hold);
    for (char **w = args_many(a, "keycode"); w && *w; w++, n++) {
        if (n == KEYS_MAX) {
            return shell_fail(error, "too many keycodes");
        }
        if (!key_of(*w, &keys[n], error)) {
            return false;
        }
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom, args.hold_ms = (unsigned)MIN(hold, UINT32_MAX);
    args.keys.keys_val = keys, args.keys.keys_len = n;
    return ask_domain_send_key(shell_rpc(sh, NULL), &args, &none, error);
}

static bool stream_to_file(Rpc *rpc, int fd, GError **error)
{
    static char buffer[STREAM_CHUNK];
    ssize_t n;
    while ((n = rpc_stream_receive(rpc, buffer, sizeof(buffer), NULL, error)) > 0) {
        if (write(fd, buffer, (size_t)n) != n) {
            shell_fail(error, "write: %s", g_strerror(errno));
            rpc_stream_abort(rpc, NULL);
            return false;
        }
    }
    return n == 0 && rpc_stream_finish(rpc, error);
}

static bool run_screenshot(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_maybe_text) type = {0};
    uint64_t screen = 0;
    args_number(a, "screen", &screen);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uint_flags args = {dom, (unsigned)screen, 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!ask_domain_screenshot(rpc, &args, &type, error)) {
        shell_failing(sh, "could not take a screenshot of %s", dom.name);
        return false;
    }
    const char *mime = type.text ? *type.text : "";
    bool png = strcmp(mime, "image/png") == 0;
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *stamp = g_date_time_format(now, "%F-%T");
    g_autofree char *path = args_text(a, "file")
                                ? g_strdup(args_text(a, "file"))
                                : g_strdup_printf("%s-%s.%s", dom.name, stamp, png ? "png" : "ppm");
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rpc_stream_abort(rpc, NULL);
        return shell_fail(error, "cannot create file %s: %s", path, g_strerror(errno));
    }
    if (!stream_to_file(rpc, fd, error)) {
        shell_failing(sh, "could not receive data from domain '%s'", dom.name);
        return false;
    }
    out_note_open(sh, "Screenshot saved to %s, with type of %s", path, mime);
    return true;
}

/* ---- The table ---- */

#define SIMPLE(...) (&(const struct simple){&kind_domain, __VA_ARGS__})

const struct verb_group verb_group_domain = {"Domain Management", "domain", (const struct verb_row[]){
    {"autostart", (const struct option_row[]){NAMED,
        {"disable", OPT_BOOL, 0, "not any more"}, {NULL}},
     "starts a domain together with the daemon", run_autostart, &kind_domain},
    {"console", (const struct option_row[]){NAMED_ACTIVE,
        {"devname", OPT_TEXT, OPT_NAMED, "alias of another line than the first"},
        {"force", OPT_BOOL, 0, "take it from whoever has it"},
        {"safe", OPT_BOOL, 0, "only if that is safe"}, {NULL}},
     "connects this terminal to the guest's serial line", run_console},
    {"create", (const struct option_row[]){FILE_OPTION,
        {"console", OPT_BOOL, 0, "connect to the console"},
        {"paused", OPT_BOOL, 0, "leave it paused"},
        {"autodestroy", OPT_BOOL, 0, "destroy it when this connection ends"},
        {"validate", OPT_BOOL, 0, "check the XML against the schema"},
        {"reset-nvram", OPT_BOOL, 0, "with fresh firmware variables"}, {NULL}},
     "starts a domain from XML without defining it", run_from_file,
     &(const struct from_file){&kind_domain, PROC_domain_create_xml, true,
        "Failed to create domain from %s", "Domain '%s' created from %s",
        {{"paused", 1}, {"autodestroy", 2}, {"validate", 16}, {"reset-nvram", 32}}}},
    {"define", (const struct option_row[]){FILE_OPTION,
        {"validate", OPT_BOOL, 0, "check the XML against the schema"}, {NULL}},
     "keeps a domain's XML, without starting it", run_from_file,
     &(const struct from_file){&kind_domain, PROC_domain_define_xml_flags, true,
        "Failed to define domain from %s", "Domain '%s' defined from %s",
        {{"validate", 1}}}},
    {"destroy", (const struct option_row[]){NAMED_ACTIVE,
        {"graceful", OPT_BOOL, 0, "do not kill a machine that does not end by itself"},
        {"remove-logs", OPT_BOOL, 0, "remove its logs"}, {NULL}},
     "stops a domain at once, like pulling the plug", run_simple,
     SIMPLE(PROC_domain_destroy_flags, true, 0, "Failed to destroy domain '%s'",
            "Domain '%s' destroyed", {{"graceful", 1}, {"remove-logs", 2}})},
    {"domrename", (const struct option_row[]){NAMED_SHUTOFF,
        {"new-name", OPT_TEXT, OPT_NEEDED, "the new name"}, {NULL}},
     "gives a domain another name", run_rename},
    {"dumpxml", (const struct option_row[]){NAMED,
        {"inactive", OPT_BOOL, 0, "as it will be at the next start"},
        {"security-info", OPT_BOOL, 0, "passwords too"},
        {"update-cpu", OPT_BOOL, 0, "with the CPU as it is here"},
        {"migratable", OPT_BOOL, 0, "as another host takes it"}, XPATH_OPTIONS, {NULL}},
     "prints a domain's XML", run_object_xml,
     SIMPLE(PROC_domain_get_xml_desc, true, 0, NULL, NULL,
            {{"security-info", 1}, {"inactive", 2}, {"update-cpu", 4}, {"migratable", 8}})},
    {"edit", (const struct option_row[]){NAMED,
        {"skip-validate", OPT_BOOL, 0, "do not check against the schema"}, {NULL}},
     "changes a domain's XML in an editor", run_edit, &kind_domain},
    {"inject-nmi", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
     "sends an NMI to the guest", run_simple,
     SIMPLE(PROC_domain_inject_nmi, true, 0, NULL, NULL, {{NULL}})},
    {"managedsave", (const struct option_row[]){NAMED_ACTIVE,
        {"bypass-cache", OPT_BOOL, 0, "keep the state out of the page cache"},
        {"running", OPT_BOOL, 0, "it will run when it is started again"},
        {"paused", OPT_BOOL, 0, "it will be paused when it is started again"},
        {"verbose", OPT_BOOL, 0, "show how it goes on"}, {NULL}},
     "saves a domain's state and stops it; the next start goes on there", run_managedsave,
     SIMPLE(PROC_domain_managed_save, true, 0, "Failed to save domain '%s' state",
            "\nDomain '%s' state saved by libvirt",
            {{"bypass-cache", 1}, {"running", 2}, {"paused", 4}})},
    {"managedsave-remove", (const struct option_row[]){NAMED, {NULL}},
     "forgets a managed save", run_managedsave_remove},
    {"reboot", (const struct option_row[]){NAMED_ACTIVE,
        {"mode", OPT_TEXT, OPT_NAMED, "acpi, agent"}, {NULL}},
     "asks the guest to restart", run_with_modes, "reboot"},
    {"reset", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
     "resets the machine, like its button", run_simple,
     SIMPLE(PROC_domain_reset, true, 0, "Failed to reset domain '%s'", "Domain '%s' was reset",
            {{NULL}})},
    {"restore", (const struct option_row[]){
        {"file", OPT_TEXT, OPT_NEEDED, "what save wrote", COMPLETE_FILE},
        {"bypass-cache", OPT_BOOL, 0, "keep the state out of the page cache"},
        {"xml", OPT_TEXT, OPT_NAMED, "file with changed XML", COMPLETE_FILE},
        {"running", OPT_BOOL, 0, "run"}, {"paused", OPT_BOOL, 0, "stay paused"},
        {"reset-nvram", OPT_BOOL, 0, "with fresh firmware variables"}, {NULL}},
     "goes on from a state in a file", run_restore},
    {"resume", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
     "lets a paused domain go on", run_simple,
     SIMPLE(PROC_domain_resume, false, 0, "Failed to resume domain '%s'", "Domain '%s' resumed",
            {{NULL}})},
    {"save", (const struct option_row[]){NAMED_ACTIVE,
        {"file", OPT_TEXT, OPT_NEEDED, "where to", COMPLETE_FILE},
        {"bypass-cache", OPT_BOOL, 0, "keep the state out of the page cache"},
        {"xml", OPT_TEXT, OPT_NAMED, "file with the XML for the restored domain", COMPLETE_FILE},
        {"running", OPT_BOOL, 0, "it will run when restored"},
        {"paused", OPT_BOOL, 0, "it will be paused when restored"},
        {"verbose", OPT_BOOL, 0, "show how it goes on"}, {NULL}},
     "saves a domain's state to a file and stops it", run_save},
    {"screenshot", (const struct option_row[]){NAMED_ACTIVE,
        {"file", OPT_TEXT, 0, "where to", COMPLETE_FILE},
        {"screen", OPT_NUMBER, OPT_NAMED, "which screen"}, {NULL}},
     "saves a picture of the screen", run_screenshot},
    {"send-key", (const struct option_row[]){NAMED_ACTIVE,
        {"codeset", OPT_TEXT, OPT_NAMED, "linux (default), xt, qnum, usb, ..."},
        {"holdtime", OPT_NUMBER, OPT_NAMED, "ms that the keys stay down"},
        {"keycode", OPT_MANY, OPT_NEEDED, "KEY_LEFTCTRL or numbers"}, {NULL}},
     "presses keys together", run_send_key},
    {"setmaxmem", (const struct option_row[]){NAMED,
        {"size", OPT_SIZE, OPT_NEEDED, "KiB, or with a suffix"}, CONFIG_LIVE, {NULL}},
     "changes the limit of a domain's memory", run_memory, "maximum"},
    {"setmem", (const struct option_row[]){NAMED,
        {"size", OPT_SIZE, OPT_NEEDED, "KiB, or with a suffix"}, CONFIG_LIVE, {NULL}},
     "changes a domain's memory", run_memory},
    {"setvcpu", (const struct option_row[]){NAMED,
        {"vcpulist", OPT_TEXT, OPT_NEEDED, "which, as 1,3-4"},
        {"enable", OPT_BOOL, 0, "they come"}, {"disable", OPT_BOOL, 0, "they go"}, CONFIG_LIVE, {NULL}},
     "attaches or detaches processors of a domain", run_setvcpu},
    {"setvcpus", (const struct option_row[]){NAMED,
        {"count", OPT_NUMBER, OPT_NEEDED, "how many"},
        {"maximum", OPT_BOOL, 0, "the limit, from the next start on"}, CONFIG_LIVE,
        {"guest", OPT_BOOL, 0, "by the guest agent"},
        {"hotpluggable", OPT_BOOL, 0, "make them removable"}, {NULL}},
     "changes the number of a domain's processors", run_setvcpus},
    {"shutdown", (const struct option_row[]){NAMED_ACTIVE,
        {"mode", OPT_TEXT, OPT_NAMED, "acpi, agent"}, {NULL}},
     "asks the guest to power off", run_with_modes, "shutdown"},
    {"start", (const struct option_row[]){NAMED_SHUTOFF,
        {"console", OPT_BOOL, 0, "connect to the console"},
        {"paused", OPT_BOOL, 0, "leave it paused"},
        {"autodestroy", OPT_BOOL, 0, "destroy it when this connection ends"},
        {"bypass-cache", OPT_BOOL, 0, "keep a saved state out of the page cache"},
        {"force-boot", OPT_BOOL, 0, "forget a saved state"},
        {"reset-nvram", OPT_BOOL, 0, "begin with fresh firmware variables"}, {NULL}},
     "starts a domain that is defined", run_start},
    {"suspend", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
     "pauses a domain", run_simple,
     SIMPLE(PROC_domain_suspend, false, 0, "Failed to suspend domain '%s'",
            "Domain '%s' suspended", {{NULL}})},
    {"undefine", (const struct option_row[]){NAMED,
        {"managed-save", OPT_BOOL, 0, "its saved state too"},
        {"snapshots-metadata", OPT_BOOL, 0, "what is known of its snapshots too"},
        {"checkpoints-metadata", OPT_BOOL, 0, "what is known of its checkpoints too"},
        {"nvram", OPT_BOOL, 0, "its firmware variables too"},
        {"keep-nvram", OPT_BOOL, 0, "but not its firmware variables"},
        {"storage", OPT_TEXT, OPT_NAMED, "these volumes too: targets or paths, with commas"},
        {"remove-all-storage", OPT_BOOL, 0, "all volumes that are its disks too"},
        {"delete-storage-volume-snapshots", OPT_BOOL, 0, "and the snapshots of those"},
        {"wipe-storage", OPT_BOOL, 0, "overwrite those first"},
        {"tpm", OPT_BOOL, 0, "its TPM's state too"},
        {"keep-tpm", OPT_BOOL, 0, "but not its TPM's state"}, {NULL}},
     "forgets a domain's definition", run_undefine_domain},
    {NULL},
}};
