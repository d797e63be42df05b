/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A definition as the command line of lodge-vm: each element becomes options, in the words that
 * QEMU and lodge-vm share.
 */
#include "manage/daemon/cpu.h"
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/memory_line.h"
#include "manage/daemon/sysinfo.h"
#include "manage/model/iothreads.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* --- words --- */

static void word(GPtrArray *out, const char *option, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
static void word(GPtrArray *out, const char *option, const char *fmt, ...)
{
    g_ptr_array_add(out, g_strdup(option));
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        g_ptr_array_add(out, g_strdup_vprintf(fmt, ap));
        va_end(ap);
    }
}

/* A value inside an option: each comma twice. */
static char *comma(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    return g_strjoinv(",,", parts);
}

/* {"driver": "x", "id": "y", ...} as x,id=y,... */
char *json_words(const json_t *options)
{
    g_autoptr(GString) out = g_string_new(json_string_value(json_object_get(options, "driver")));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)options, key, value)
    {
        if (strcmp(key, "driver") == 0) {
            continue;
        }
        g_autofree char *text = json_is_string(value) ? comma(json_string_value(value)) : NULL;
        g_string_append_printf(out, ",%s=", key);
        if (text) {
            g_string_append(out, text);
        } else if (json_is_integer(value)) {
            g_string_append_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        } else {
            g_string_append(out, json_is_true(value) ? "on" : "off");
        }
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* --- backends --- */

static bool add_chardev(GPtrArray *out, const struct launch *l, struct domain_char *c,
                        GError **error)
{
    const struct char_source *s = c->sources ? c->sources->pdata[0] : NULL;
    g_autofree char *id = g_strconcat("char", c->alias, NULL), *path = NULL, *rest = NULL;
    if (c->type == CHAR_UNIX && (!s || !s->path)) {
        if (!c->sources) {
            xml_append(NULL, &c->sources, xml_new(&char_source_table));
        }
        struct char_source *own = c->sources->pdata[0];
        own->mode = SOURCE_BIND;
        own->path = g_strdup_printf("%s/%s", l->folder, c->alias);
        s = own;
    }
    path = s && s->path ? comma(s->path) : NULL;
    bool bind = !s || s->mode != SOURCE_CONNECT;
    const char *server = bind ? ",server=on,wait=off" : "";
    switch (c->type) {
    case CHAR_NULL:
    case CHAR_VC:
    case CHAR_PTY:
    case CHAR_STDIO:
        rest = g_strdup(char_type_words[c->type]);
        break;
    case CHAR_DEV:
        rest = g_strdup_printf("serial,path=%s", path ? path : "");
        break;
    case CHAR_FILE:
        rest = g_strdup_printf("file,path=%s,append=%s", path ? path : "",
                               s && s->append == TRI_YES ? "on" : "off");
        break;
    case CHAR_PIPE:
        rest = g_strdup_printf("pipe,path=%s", path ? path : "");
        break;
    case CHAR_UNIX:
        rest = g_strdup_printf("socket,path=%s%s", path, server);
        break;
    case CHAR_TCP:
        rest = g_strdup_printf("socket,host=%s,port=%s%s%s", s && s->host ? s->host : "",
                               s && s->service ? s->service : "0", server,
                               c->protocol == 2 ? ",telnet=on" : "");
        break;
    default: {
        const struct char_source *to = s,
                                 *from = xml_count(c->sources) > 1 ? c->sources->pdata[1] : NULL;
        if (from && to->mode == SOURCE_BIND) {
            const struct char_source *swap = to;
            to = from;
            from = swap;
        }
        rest =
            g_strdup_printf("udp,host=%s,port=%s%s%s%s%s", to && to->host ? to->host : "127.0.0.1",
                            to && to->service ? to->service : "0", from ? ",localaddr=" : "",
                            from && from->host ? from->host : "", from ? ",localport=" : "",
                            from && from->service ? from->service : "");
    }
    }
    if (c->type != CHAR_NULL && c->type >= CHAR_DEV && c->type <= CHAR_PIPE && !path) {
        libvirt_error(error, ERR_XML, "Missing source path attribute for char device");
        return false;
    }
    const char *comma_at = strchr(rest, ',');
    size_t kind = comma_at ? (size_t)(comma_at - rest) : strlen(rest);
    g_autofree char *log = c->log_file ? comma(c->log_file) : NULL;
    word(out, "-chardev", "%.*s,id=%s%s%s%s%s", (int)kind, rest, id, rest + kind,
         log ? ",logfile=" : "", log ? log : "",
         log ? c->log_append == TRI_YES ? ",logappend=on" : ",logappend=off" : "");
    return true;
}

static bool add_netdev(GPtrArray *out, const struct launch *l, struct machine *m,
                       struct domain_interface *nic, GError **error)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(GString) numbers = g_string_new(NULL);
    g_autoptr(json_t) netdev = machine_netdev(m, nic, fds, error);
    if (!netdev) {
        return false;
    }
    for (unsigned i = 0; i < fds->len; i++) {
        g_string_append_printf(numbers, "%s%d", i ? ":" : "", g_array_index(fds, int, i));
    }
    if (fds->len) {
        json_object_set_new(netdev, fds->len > 1 ? "fds" : "fd", json_string(numbers->str));
    }
    g_array_append_vals(l->fds, fds->data, fds->len);
    g_autofree char *text = json_dumps(netdev, JSON_COMPACT);
    word(out, "-netdev", "%s", text);
    return true;
}

/* --- the machine as a whole --- */

static void add_machine(GPtrArray *out, const DomainDef *def)
{
    g_autoptr(GString) text = g_string_new(def->machine);
    static const char *const onoff[] = {NULL, "on", "off"};
    g_string_append(text, ",usb=off");
    if (def->vmport) {
        g_string_append_printf(text, ",vmport=%s", onoff[def->vmport]);
    }
    if (def->smm) {
        g_string_append_printf(text, ",smm=%s", onoff[def->smm]);
    }
    if (!def->acpi) {
        g_string_append(text, ",acpi=off");
    }
    for (unsigned i = 0; i < xml_count(def->timers); i++) {
        const struct clock_timer *timer = def->timers->pdata[i];
        if (timer->name == TIMER_HPET && timer->present) {
            g_string_append_printf(text, ",hpet=%s", onoff[timer->present]);
        }
    }
    for (unsigned i = 0; i < xml_count(def->sounds); i++) {
        const struct domain_sound *sound = def->sounds->pdata[i];
        if (strcmp(sound->model, "pcspk") == 0) { /* which every board has */
            g_autofree char *audio = audio_name(sound);
            g_string_append_printf(text, ",pcspk-audiodev=%s", audio);
        }
    }
    word(out, "-machine", "%s", text->str);
    word(out, "-accel", def->type == DOMAIN_TYPE_KVM ? "kvm" : "bt");
}

/* Which sleep states ACPI tells the guest of. */
static void add_sleep(GPtrArray *out, const DomainDef *def)
{
    const char *chip = domain_is_q35(def) ? "ICH9-LPC" : "PIIX4_PM";
    if (def->suspend_to_mem) {
        word(out, "-global", "%s.disable_s3=%d", chip, def->suspend_to_mem == TRI_NO);
    }
    if (def->suspend_to_disk) {
        word(out, "-global", "%s.disable_s4=%d", chip, def->suspend_to_disk == TRI_NO);
    }
}

static bool add_cpu(GPtrArray *out, DomainDef *def, GError **error)
{
    const struct domain_cpu *cpu = def->cpu;
    unsigned fixed = 1; /* those that come as devices may go again */
    while (fixed < def->vcpus && domain_vcpu_online(def, fixed) &&
           !domain_vcpu_removable(def, fixed)) {
        fixed++;
    }
    g_autoptr(GString) smp = g_string_new(NULL);
    g_string_append_printf(smp, "%u", fixed);
    if (fixed != def->vcpus) {
        g_string_append_printf(smp, ",maxcpus=%ld", (long)def->vcpus);
    }
    if (cpu && cpu->sockets != XML_ABSENT) {
        g_string_append_printf(smp, ",sockets=%ld,dies=%ld,cores=%ld,threads=%ld",
                               (long)cpu->sockets, cpu->dies == XML_ABSENT ? 1L : (long)cpu->dies,
                               (long)cpu->cores, (long)cpu->threads);
    } else {
        g_string_append_printf(smp, ",sockets=%ld,cores=1,threads=1", (long)def->vcpus);
    }
    word(out, "-smp", "%s", smp->str);
    g_autofree char *text = cpu_argument(def, error);
    if (text && *text) {
        word(out, "-cpu", "%s", text);
    }
    for (unsigned i = fixed; text && i < def->vcpus; i++) {
        g_autoptr(json_t) options = domain_vcpu_online(def, i) ? vcpu_options(def, i, error) : NULL;
        if (!options && domain_vcpu_online(def, i)) {
            return false;
        }
        g_autofree char *words = options ? json_words(options) : NULL;
        if (words) {
            word(out, "-device", "%s", words);
        }
    }
    return text != NULL;
}

/* How far the clock of @zone (NULL: of this host) is before UTC now. */
static int64_t zone_offset(const char *zone)
{
    g_autoptr(GTimeZone) tz = zone ? g_time_zone_new_identifier(zone) : g_time_zone_new_local();
    g_autoptr(GDateTime) there = tz ? g_date_time_new_now(tz) : NULL;
    return there ? g_date_time_get_utc_offset(there) / G_USEC_PER_SEC : 0;
}

static void add_clock(GPtrArray *out, const DomainDef *def)
{
    g_autoptr(GString) text = g_string_new("base=");
    bool zone = def->clock_offset == OFFSET_TIMEZONE;
    if (zone || def->clock_offset == OFFSET_VARIABLE || def->clock_offset == OFFSET_ABSOLUTE) {
        int64_t at = g_get_real_time() / G_USEC_PER_SEC;
        if (def->clock_offset == OFFSET_ABSOLUTE && def->clock_start) {
            at = g_ascii_strtoll(def->clock_start, NULL, 10);
        } else if (def->clock_adjustment) {
            at += g_ascii_strtoll(def->clock_adjustment, NULL, 10);
        }
        if (def->clock_offset == OFFSET_VARIABLE && def->clock_basis == BASIS_LOCALTIME) {
            at += zone_offset(NULL);
        }
        at += zone ? zone_offset(def->clock_timezone) : 0;
        g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(at);
        g_autofree char *stamp = when ? g_date_time_format(when, "%Y-%m-%dT%H:%M:%S") : NULL;
        g_string_append(text, stamp ? stamp : "utc");
    } else {
        g_string_append(text, def->clock_offset == OFFSET_LOCALTIME ? "localtime" : "utc");
    }
    for (unsigned i = 0; i < xml_count(def->timers); i++) {
        const struct clock_timer *timer = def->timers->pdata[i];
        if (timer->name == TIMER_RTC && timer->tickpolicy == TICK_CATCHUP) {
            g_string_append(text, ",driftfix=slew");
        }
    }
    word(out, "-rtc", "%s", text->str);
}

/* A firmware's variables, and what they are when they are new. */
struct variables {
    char *path, *template;
    bool reset;
    GError *error;
};

static void variables_free(void *data)
{
    struct variables *v = data;
    g_free(v->path);
    g_free(v->template);
    g_clear_error(&v->error);
    g_free(v);
}

static void variables_make(void *data)
{
    struct variables *v = data;
    g_autofree char *bytes = NULL;
    gsize n;
    if ((v->reset || !g_file_test(v->path, G_FILE_TEST_EXISTS)) &&
        g_file_get_contents(v->template, &bytes, &n, &v->error)) {
        daemon_write_file(v->path, bytes, (gssize)n, 0600, &v->error);
    }
}

static bool have_variables(const char *path, const char *template, bool reset, GError **error)
{
    struct variables *v = g_new0(struct variables, 1);
    *v = (struct variables){g_strdup(path), g_strdup(template), reset, NULL};
    if (!file_act(path, variables_make, v, variables_free, error)) {
        return false;
    }
    bool ok = !v->error;
    if (!ok) {
        libvirt_error(error, ERR_SYSTEM, "NVRAM of the firmware: %s", v->error->message);
    }
    variables_free(v);
    return ok;
}

/* @reset: its variables are to be as new. */
static bool add_firmware(GPtrArray *out, struct machine *m, bool reset, GError **error)
{
    DomainDef *def = m->def;
    bool flash = def->firmware == FIRMWARE_EFI || def->loader_type == LOADER_PFLASH;
    if (!flash) {
        if (def->loader) {
            word(out, "-bios", "%s", def->loader);
        }
        return true;
    }
    const char *code = def->loader ? def->loader : "/usr/share/OVMF/OVMF_CODE_4M.fd";
    const char *template =
        def->nvram_template ? def->nvram_template : "/usr/share/OVMF/OVMF_VARS_4M.fd";
    domain_name_variables(def);
    g_autofree char *folder = daemon_path(DAEMON_VAR, "qemu", "nvram", NULL);
    g_mkdir_with_parents(folder, 0755); /* for variables that are kept there */
    if (!have_variables(def->nvram, template, reset, error)) {
        return false;
    }
    g_autofree char *code_text = comma(code), *nvram = comma(def->nvram);
    word(out, "-drive", "if=pflash,unit=0,format=raw,readonly=%s,file=%s",
         def->loader_readonly == TRI_NO ? "off" : "on", code_text);
    word(out, "-drive", "if=pflash,unit=1,format=raw,file=%s", nvram);
    return true;
}

static void add_boot(GPtrArray *out, const DomainDef *def)
{
    g_autoptr(GString) text = g_string_new("strict=on");
    if (def->boot_menu) {
        g_string_append_printf(text, ",menu=%s", def->boot_menu == TRI_YES ? "on" : "off");
        if (def->boot_menu_timeout != XML_ABSENT) {
            g_string_append_printf(text, ",splash-time=%ld", (long)def->boot_menu_timeout);
        }
    }
    if (def->reboot_timeout != XML_ABSENT) {
        g_string_append_printf(text, ",reboot-timeout=%ld", (long)def->reboot_timeout);
    }
    word(out, "-boot", "%s", text->str);
    if (def->kernel) {
        word(out, "-kernel", "%s", def->kernel);
        if (def->initrd) {
            word(out, "-initrd", "%s", def->initrd);
        }
        if (def->cmdline) {
            word(out, "-append", "%s", def->cmdline);
        }
    }
}

/* What libvirt knows of each type of SMBIOS structures, which lodge-vm calls the same. */
static const struct {
    const char *element;
    size_t list;
    const char *names[8];
} smbios_types[] = {
#define S(member) offsetof(struct domain_sysinfo, member)
    {"bios", S(bios), {"vendor", "version", "date", "release"}},
    {"system",
     S(system),
     {"manufacturer", "product", "version", "serial", "uuid", "sku", "family"}},
    {"baseBoard",
     S(base_board),
     {"manufacturer", "product", "version", "serial", "asset", "location"}},
    {"chassis", S(chassis), {"manufacturer", "version", "serial", "asset", "sku"}},
#undef S
};

static bool add_smbios_type(GPtrArray *out, const struct domain_sysinfo *s, unsigned type,
                            GError **error)
{
    const GPtrArray *list =
        *(GPtrArray *const *)(const void *)((const char *)s + smbios_types[type].list);
    g_autoptr(GString) text = g_string_new(NULL);
    for (unsigned k = 0; k < xml_count(list); k++) {
        const struct sysinfo_entry *e = list->pdata[k];
        g_autofree char *value = comma(e->value ? e->value : "");
        bool known = false;
        for (unsigned n = 0; n < 8 && smbios_types[type].names[n]; n++) {
            known |= strcmp(smbios_types[type].names[n], e->name) == 0;
        }
        if (!known) {
            libvirt_error(error, ERR_XML, "<sysinfo><%s><entry name='%s'> is not known",
                          smbios_types[type].element, e->name);
            return false;
        }
        g_string_append_printf(text, ",%s=%s", e->name, value);
    }
    if (text->len) {
        word(out, "-smbios", "type=%u%s", type, text->str);
    }
    return true;
}

/* <sysinfo type='fwcfg'>: files for the firmware. */
static bool add_fw_cfg(GPtrArray *out, const struct domain_sysinfo *s, GError **error)
{
    for (unsigned k = 0; k < xml_count(s->files); k++) {
        const struct sysinfo_entry *e = s->files->pdata[k];
        const char *what = e->file ? e->file : e->value;
        if (!what || !*what || !g_str_has_prefix(e->name, "opt/")) {
            libvirt_error(error, ERR_XML,
                          "fw_cfg entry '%s' must begin with 'opt/' and have a value or a file",
                          e->name);
            return false;
        }
        g_autofree char *name = comma(e->name), *value = comma(what);
        word(out, "-fw_cfg", "name=%s,%s=%s", name, e->file ? "file" : "string", value);
    }
    return true;
}

/* The host's own; its UUID stays with it. */
static bool add_host_smbios(GPtrArray *out, GError **error)
{
    bool any = false;
    for (unsigned type = 0; type < G_N_ELEMENTS(smbios_types); type++) {
        g_autofree char *words = sysinfo_words(type);
        if (*words) {
            word(out, "-smbios", "type=%u%s", type, words);
            any = true;
        }
    }
    if (!any) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Host SMBIOS information is not available");
    }
    return any;
}

static bool has_smbios(const DomainDef *def)
{
    for (unsigned i = 0; i < xml_count(def->sysinfos); i++) {
        if (((struct domain_sysinfo *)def->sysinfos->pdata[i])->type == SYSINFO_SMBIOS) {
            return true;
        }
    }
    return false;
}

static bool add_smbios(GPtrArray *out, const DomainDef *def, GError **error)
{
    if (def->smbios_mode == SMBIOS_HOST && !add_host_smbios(out, error)) {
        return false;
    }
    if (def->smbios_mode == SMBIOS_SYSINFO && !has_smbios(def)) {
        libvirt_error(error, ERR_XML, "Domain '%s' sysinfo are not available", def->name);
        return false;
    }
    for (unsigned i = 0; i < xml_count(def->sysinfos); i++) {
        const struct domain_sysinfo *s = def->sysinfos->pdata[i];
        if (s->type == SYSINFO_FWCFG) {
            if (!add_fw_cfg(out, s, error)) {
                return false;
            }
            continue;
        }
        for (unsigned type = 0; def->smbios_mode == SMBIOS_SYSINFO && type < 4; type++) {
            if (!add_smbios_type(out, s, type, error)) {
                return false;
            }
        }
        for (unsigned k = 0; def->smbios_mode == SMBIOS_SYSINFO && k < xml_count(s->oem); k++) {
            const struct sysinfo_entry *e = s->oem->pdata[k];
            g_autofree char *value = comma(e->value ? e->value : "");
            word(out, "-smbios", "type=11,value=%s", value);
        }
    }
    return true;
}

static void add_actions(GPtrArray *out, const DomainDef *def)
{
    if (def->locked) {
        word(out, "-overcommit", "mem-lock=on");
    }
    if (def->vmcoreinfo == TRI_YES) {
        word(out, "-device", "vmcoreinfo");
    }
    if (def->on_reboot == ACTION_DESTROY) {
        word(out, "-no-reboot", NULL);
    }
    if (def->on_poweroff == ACTION_RESTART) {
        word(out, "-no-shutdown", NULL);
    }
    if (def->panics) {
        word(out, "-action", "panic=pause");
    }
    if (def->watchdog && def->watchdog->action) {
        const char *action = watchdog_action_words[def->watchdog->action];
        word(out, "-watchdog-action", "%s", strcmp(action, "dump") == 0 ? "pause" : action);
    }
}

/* Screens, VNC, sound. */
static bool add_screen(GPtrArray *out, struct machine *m, GError **error)
{
    DomainDef *def = m->def;
    if (!def->graphics) {
        word(out, "-display", "none");
    }
    for (unsigned i = 0; i < xml_count(def->graphics); i++) {
        struct domain_graphics *g = def->graphics->pdata[i];
        g_autofree char *where = machine_vnc_address(m, g, error);
        if (!where) {
            return false;
        }
        g_autoptr(GString) text = g_string_new(where);
        static const char *const shares[] = {NULL, "allow-exclusive", "force-shared", "ignore"};
        if (g->passwd) {
            g_string_append(text, ",password=on");
        }
        if (g->share_policy) {
            g_string_append_printf(text, ",share=%s", shares[g->share_policy]);
        }
        if (g->websocket == -1 && !g->socket) { /* by the display's number */
            g->websocket = domain_websocket(g);
        }
        if (g->websocket > 0) {
            g_string_append_printf(text, ",websocket=%ld", (long)g->websocket);
        }
        word(out, "-vnc", "%s", text->str);
        if (g->keymap) {
            word(out, "-k", "%s", g->keymap);
        }
    }
    for (unsigned i = 0; def->sounds && i < xml_count(def->audios); i++) {
        const struct domain_audio *a = def->audios->pdata[i];
        if (a->type == AUDIO_FILE) {
            g_autofree char *path = comma(a->path ? a->path : "");
            word(out, "-audiodev", "wav,id=audio%ld,path=%s", (long)a->id, path);
        } else {
            word(out, "-audiodev", "none,id=audio%ld", (long)a->id);
        }
    }
    return true;
}

static bool add_codecs(GPtrArray *out, const struct domain_sound *sound, GError **error)
{
    static const char *const codecs[] = {"hda-duplex", "hda-duplex", "hda-micro", "hda-output"};
    if (!g_str_has_prefix(sound->model, "ich")) {
        return true;
    }
    for (unsigned i = 0; i < MAX(xml_count(sound->codecs), 1); i++) {
        int type = sound->codecs ? ((struct sound_codec *)sound->codecs->pdata[i])->type : 0;
        if (!vm_has_device(codecs[type])) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "lodge-vm has no device '%s'",
                          codecs[type]);
            return false;
        }
        g_autofree char *audio = audio_name(sound);
        word(out, "-device", "%s,id=%s-codec%u,bus=%s.0,cad=%u,audiodev=%s", codecs[type],
             sound->alias, i, sound->alias, i, audio);
    }
    return true;
}

/* A secret in memory that only this process can hand over: a command line is for all to read. */
struct secret_words {
    GPtrArray *out;
    const struct launch *l;
};

static bool add_secret(void *owner, const char *id, GBytes *value, GError **error)
{
    const struct secret_words *w = owner;
    gsize n;
    const void *bytes = g_bytes_get_data(value, &n);
    int fd = memfd_create("secret", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) {
        libvirt_error(error, ERR_SYSTEM, "a secret's memory: %s", g_strerror(errno));
        close(fd);
        return false;
    }
    g_array_append_val(w->l->fds, fd);
    word(w->out, "-object", "secret,id=%s,file=/proc/self/fd/%d", id, fd);
    return true;
}

/* A drive whose medium can change, as a whole. */
static bool add_changeable(GPtrArray *out, const struct launch *l, struct domain_disk *disk,
                           GError **error)
{
    const char *path = disk_path(disk);
    g_autofree char *name = disk_drive_name(disk), *file = path ? comma(path) : NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    if (!disk_decrypt(disk, NULL, error)) {
        return false;
    }
    struct stat st;
    if (path && path_stat(path, &st) != 0) {
        path_error(error, ERR_SYSTEM, "Cannot access storage file", path);
        return false;
    }
    if (!l->how->incoming) {
        disk->tray = 0; /* a machine begins with closed ones */
    }
    g_string_append_printf(text, "if=none,id=%s,media=%s,readonly=%s", name,
                           disk->device == DISK_DEVICE_CDROM ? "cdrom" : "disk",
                           disk->readonly ? "on" : "off");
    if (file) {
        const struct {
            const char *key, *value;
        } words[] = {
            {"cache", disk->cache > 1 ? disk_cache_words[disk->cache] : NULL}, /* 1: default */
            {"discard", disk_discard_words[disk->discard]},
            {"detect-zeroes", detect_zeroes_words[disk->detect_zeroes]},
            {"file.aio", disk_io_words[disk->io]},
        };
        g_string_append_printf(text, ",format=%s,%s=%s", disk->format,
                               disk->io ? "file.filename" : "file", file);
        for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
            if (words[i].value) {
                g_string_append_printf(text, ",%s=%s", words[i].key, words[i].value);
            }
        }
    }
    const char *werror = disk_on_error(disk->error_policy, true);
    const char *rerror =
        disk_on_error(disk->rerror_policy ? disk->rerror_policy : disk->error_policy, false);
    bool floppy = disk->bus == BUS_FDC; /* others are told by their device */
    if (floppy && werror) {
        g_string_append_printf(text, ",werror=%s", werror);
    }
    if (floppy && rerror) {
        g_string_append_printf(text, ",rerror=%s", rerror);
    }
    word(out, "-drive", "%s", text->str);
    return true;
}

static bool add_blockdev(GPtrArray *out, const struct launch *l, struct machine *m,
                         struct domain_disk *disk, GError **error)
{
    struct secret_words words = {out, l};
    if (!disk_resolve(disk, error)) {
        return false;
    }
    if (disk_changeable(disk)) {
        return add_changeable(out, l, disk, error);
    }
    if (!disk_has_medium(disk)) {
        return true; /* an empty drive */
    }
    disk->source->index = ++m->next_node;
    if (!disk_secrets(disk, add_secret, &words, error)) {
        return false;
    }
    g_autoptr(json_t) node = disk_node(disk, error);
    if (!node) {
        return false;
    }
    g_autoptr(json_t) tls = disk_tls(disk);
    g_autofree char *creds = tls ? json_dumps(tls, JSON_COMPACT) : NULL;
    if (creds) {
        word(out, "-object", "%s", creds);
    }
    g_autofree char *text = json_dumps(node, JSON_COMPACT);
    if (disk->transient) { /* what is written goes with the machine */
        g_autofree char *name = disk_node_name(disk), *file = comma(text);
        word(out, "-drive", "if=none,id=%s,node-name=%s,snapshot=on,file=json:%s", name, name,
             file);
        return true;
    }
    word(out, "-blockdev", "%s", text);
    return true;
}

/* What a device needs before its -device. */
static bool add_backend(GPtrArray *out, const struct launch *l, struct machine *m,
                        const struct xml_table *t, void *item, GError **error)
{
    const struct device_head *d = item;
    if (t == &disk_table) {
        return add_blockdev(out, l, m, item, error);
    }
    if (t == &interface_table) {
        return add_netdev(out, l, m, item, error);
    }
    if (t == &serial_table || t == &parallel_table || t == &channel_table || t == &console_table) {
        return add_chardev(out, l, item, error);
    }
    if (t == &memory_device_table) {
        const struct memory_line memory = {m->def, l->folder};
        char *object = memory_module(&memory, item, error);
        if (object) {
            g_ptr_array_add(out, g_strdup("-object"));
            g_ptr_array_add(out, object);
        }
        return object != NULL;
    }
    if (t == &rng_table) {
        const struct domain_rng *rng = item;
        if (rng->backend_model == 1) {
            word(out, "-object", "rng-random,id=obj%s,filename=%s", d->alias,
                 rng->backend ? rng->backend : "/dev/urandom");
        } else {
            word(out, "-object", "rng-builtin,id=obj%s", d->alias);
        }
    }
    return true;
}

static bool has_device(const DomainDef *def, const struct xml_table *t, const void *item)
{
    if (t == &controller_table) {
        return !controller_builtin(def, item);
    }
    if (t == &console_table) { /* the first is the first serial port */
        return ((const struct domain_char *)item)->target != TARGET_SERIAL;
    }
    if (t == &input_table) {
        return ((const struct domain_input *)item)->bus != INPUT_PS2;
    }
    if (t == &balloon_table) {
        return ((const struct domain_balloon *)item)->model != BALLOON_NONE;
    }
    if (t == &video_table) {
        return ((const struct domain_video *)item)->type != VIDEO_NONE;
    }
    if (t == &sound_table) {
        return strcmp(((const struct domain_sound *)item)->model, "pcspk") != 0;
    }
    return t != &graphics_table && t != &audio_table;
}

static bool add_device(GPtrArray *out, const struct launch *l, struct machine *m,
                       const struct xml_table *t, void *item, GError **error)
{
    if (!has_device(m->def, t, item)) {
        return true;
    }
    if (t == &disk_table && ((struct domain_disk *)item)->bus == BUS_FDC) {
        return true; /* add_floppies() */
    }
    if (!add_backend(out, l, m, t, item, error)) {
        return false;
    }
    g_autoptr(json_t) options = device_options(m->def, t, item, error);
    if (!options) {
        return false;
    }
    g_autofree char *text = json_words(options);
    word(out, "-device", "%s", text);
    return t != &sound_table || add_codecs(out, item, error);
}

/* Drives are properties of their controller. */
static bool add_floppies(GPtrArray *out, const struct launch *l, struct machine *m, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        if (disk->bus != BUS_FDC) {
            continue;
        }
        if (!add_blockdev(out, l, m, disk, error)) {
            return false;
        }
        char letter = disk->address->unit ? 'B' : 'A';
        g_autofree char *node = disk_drive_name(disk);
        int64_t order = disk_boot_index(m->def, disk);
        g_string_append_printf(text, ",drive%c=%s", letter, node);
        if (order != XML_ABSENT) {
            g_string_append_printf(text, ",bootindex%c=%ld", letter, (long)order);
        }
    }
    if (text->len) {
        word(out, "-device", "isa-fdc%s", text->str);
    }
    return true;
}

/* By index: a bridge's own bus has a lower one than the bus behind it. */
static int by_index(const void *a, const void *b)
{
    const struct domain_controller *const *x = a, *const *y = b;
    return ((*x)->index > (*y)->index) - ((*x)->index < (*y)->index);
}

/* Before all other devices what they hang on: first buses, then other controllers. */
static bool add_controllers(GPtrArray *out, const struct launch *l, struct machine *m,
                            GError **error)
{
    g_autoptr(GPtrArray) buses = g_ptr_array_new();
    const GPtrArray *all = m->def->controllers;
    for (unsigned i = 0; i < xml_count(all); i++) {
        if (((struct domain_controller *)all->pdata[i])->type == CONTROLLER_PCI) {
            g_ptr_array_add(buses, all->pdata[i]);
        }
    }
    g_ptr_array_sort(buses, by_index);
    for (unsigned i = 0; i < buses->len; i++) {
        if (!add_device(out, l, m, &controller_table, buses->pdata[i], error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(all); i++) {
        if (((struct domain_controller *)all->pdata[i])->type != CONTROLLER_PCI &&
            !add_device(out, l, m, &controller_table, all->pdata[i], error)) {
            return false;
        }
    }
    return true;
}

static void add_iothreads(GPtrArray *out, const DomainDef *def)
{
    g_autoptr(GArray) ids = domain_iothreads(def);
    for (unsigned i = 0; i < ids->len; i++) {
        word(out, "-object", "iothread,id=iothread%ld", (long)g_array_index(ids, int64_t, i));
    }
}

static bool add_devices(GPtrArray *out, const struct launch *l, struct machine *m, GError **error)
{
    if (!add_controllers(out, l, m, error)) {
        return false;
    }
    for (unsigned i = 0; i < device_list_count; i++) {
        const struct device_list *list = &device_lists[i];
        void **at = (void **)domain_device_array(m->def, list);
        if (list->table != &controller_table && *at) {
            GPtrArray *items = list->single ? NULL : *at;
            for (unsigned k = 0; k < (items ? items->len : 1); k++) {
                if (!add_device(out, l, m, list->table, items ? items->pdata[k] : *at, error)) {
                    return false;
                }
            }
        }
    }
    return add_floppies(out, l, m, error);
}

static bool engine_works(const DomainDef *def, GError **error)
{
    const char *why;
    if (def->type == DOMAIN_TYPE_KVM && !cpu_has_kvm(&why)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "KVM does not work on this host (%s): <domain type='qemu'> runs the same "
                      "machine on Lodge's own engine, without KVM",
                      why);
        return false;
    }
    return true;
}

char **command_line(struct machine *m, const struct launch *l, GError **error)
{
    DomainDef *def = m->def;
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    if (!machine_can_be(def, error) || !engine_works(def, error)) {
        return NULL;
    }
    char *program = vm_program();
    if (!program) {
        libvirt_error(error, ERR_INTERNAL, "lodge-vm is not installed");
        return NULL;
    }
    g_ptr_array_add(out, program);
    g_free(def->emulator);
    def->emulator = g_strdup(program);
    g_autofree char *name = comma(def->name);
    word(out, "-name", "guest=%s,debug-threads=on", name);
    word(out, "-S", NULL);
    word(out, "-nodefaults", NULL);
    word(out, "-no-user-config", NULL);
    word(out, "-uuid", "%s", def->uuid);
    word(out, "-chardev", "socket,id=charmonitor,fd=%d,server=on,wait=off", l->qmp_fd);
    word(out, "-mon", "chardev=charmonitor,mode=control");
    word(out, "-pidfile", "%s/pid", l->folder);
    add_machine(out, def);
    add_sleep(out, def);
    const struct memory_line memory = {def, l->folder};
    if (!add_cpu(out, def, error) || !memory_line(out, &memory, error) ||
        !add_firmware(out, m, l->how->flags & START_RESET_NVRAM, error)) {
        return NULL;
    }
    add_clock(out, def);
    add_boot(out, def);
    add_actions(out, def);
    add_iothreads(out, def);
    if (!add_smbios(out, def, error) || !add_screen(out, m, error) ||
        !add_devices(out, l, m, error)) {
        return NULL;
    }
    if (l->how->incoming) {
        if (l->how->incoming_fd >= 0) {
            word(out, "-incoming", "fd:%d", g_array_index(l->fds, int, 1));
        } else {
            word(out, "-incoming", "%s", l->how->incoming);
        }
    }
    if (l->uid != getuid()) {
        word(out, "-runas", "%u:%u", l->uid, l->uid);
    }
    word(out, "-sandbox",
         "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    for (unsigned i = 0; i < xml_count(def->qemu_arguments); i++) {
        const struct qemu_argument *own = def->qemu_arguments->pdata[i];
        g_ptr_array_add(out, g_strdup(own->value));
    }
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}
