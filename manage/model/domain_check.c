/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What devices of a definition may say depends on what they are: the rest is refused, because
 * nothing would come of it.
 *
 * Spec: libvirt, "Domain XML format"; measured: what libvirt's parser refuses.
 */
#include "manage/model/domain.h"

#include "manage/error.h"

#include <string.h>

int64_t domain_valid_to(const char *text)
{
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autoptr(GDateTime) at = g_date_time_new_from_iso8601(text, utc);
    return at ? g_date_time_to_unix(at) : -1;
}

bool domain_check_valid_to(const struct domain_graphics *g, GError **error)
{
    if (g->passwd_valid_to && domain_valid_to(g->passwd_valid_to) < 0) {
        libvirt_error(error, ERR_XML,
                      "cannot parse password validity time '%s', expect YYYY-MM-DDTHH:MM:SS",
                      g->passwd_valid_to);
        return false;
    }
    return true;
}

static bool check_chars(const DomainDef *def, GError **error)
{
    enum {
        ISA = 1 << TARGET_ISA_SERIAL,
        PCI = 1 << TARGET_PCI_SERIAL,
        DEBUG = 1 << TARGET_ISA_DEBUG
    };
    const struct {
        const GPtrArray *list;
        const char *element;
        unsigned targets;
    } rows[] = {{def->serials, "serial", ISA | PCI | DEBUG},
                {def->parallels, "parallel", 1},
                {def->consoles, "console", 1 << TARGET_SERIAL | 1 << TARGET_VIRTIO},
                {def->channels, "channel", 1 << TARGET_VIRTIO}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        for (unsigned k = 0; k < xml_count(rows[i].list); k++) {
            const struct domain_char *c = rows[i].list->pdata[k];
            if (!(rows[i].targets >> c->target & 1)) {
                libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                              "<%s> with a target of type '%s' is not supported", rows[i].element,
                              c->target ? char_target_words[c->target] : "");
                return false;
            }
        }
    }
    return true;
}

/* Of a new definition: keys of other layouts come as scan codes. */
bool domain_check_keymaps(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->graphics); i++) {
        const struct domain_graphics *g = def->graphics->pdata[i];
        if (g->keymap && strcmp(g->keymap, "en-us") != 0) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "<graphics keymap='%s'> is not supported; there is: en-us (a viewer that "
                          "sends scan codes works with any)",
                          g->keymap);
            return false;
        }
    }
    return true;
}

static bool check_screen(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->graphics); i++) {
        if (!domain_check_valid_to(def->graphics->pdata[i], error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->inputs); i++) {
        const struct domain_input *input = def->inputs->pdata[i];
        if (input->bus == INPUT_PS2 && input->type == INPUT_TABLET) {
            libvirt_error(error, ERR_INTERNAL, "ps2 bus does not support tablet input device");
            return false;
        }
    }
    if (xml_count(def->graphics) > 1) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "only 1 graphics device of each type (sdl, vnc, spice) is supported");
    } else if (xml_count(def->videos) > 1) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "more than one <video> is not supported: a machine has one screen");
    } else {
        return true;
    }
    return false;
}

/* What a processor's XML says of features and of the bits of physical addresses. */
bool domain_check_cpu(const struct domain_cpu *cpu, GError **error)
{
    bool emulated = cpu->address_mode == ADDRESSES_EMULATE;
    if (cpu->mode <= MODE_CUSTOM && !cpu->model && xml_count(cpu->features)) {
        libvirt_error(error, ERR_XML, "Non-empty feature list specified without CPU model");
    } else if (emulated != (cpu->address_bits != XML_ABSENT)) {
        libvirt_error(error, ERR_XML, "'bits' of <maxphysaddr> belongs to mode='emulate'");
    } else if (emulated && (cpu->address_bits < 32 || cpu->address_bits > 52)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<maxphysaddr bits='%ld'>: it has 32 to 52",
                      (long)cpu->address_bits);
    } else if (cpu->address_mode == ADDRESSES_PASSTHROUGH && cpu->mode != MODE_HOST_PASSTHROUGH &&
               cpu->mode != MODE_MAXIMUM) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "CPU maximum physical address bits mode 'passthrough' can only be used with "
                      "'host-passthrough' CPUs");
    } else {
        return true;
    }
    return false;
}

/* The kinds of places that a device has; one of another kind would be without effect. */
static unsigned address_kinds(const struct xml_table *t, const struct device_head *d)
{
    enum {
        PCI = 1 << ADDRESS_PCI,
        DRIVE = 1 << ADDRESS_DRIVE,
        USB = 1 << ADDRESS_USB,
        ISA = 1 << ADDRESS_ISA,
        SERIAL = 1 << ADDRESS_VIRTIO_SERIAL
    };
    if (t == &disk_table) {
        int bus = ((const struct domain_disk *)d)->bus;
        return bus == BUS_VIRTIO ? PCI : bus == BUS_USB ? USB : DRIVE;
    }
    if (t == &input_table) {
        int bus = ((const struct domain_input *)d)->bus;
        return bus == INPUT_VIRTIO ? PCI : bus == INPUT_USB ? USB : 0;
    }
    if (t == &serial_table || t == &parallel_table || t == &console_table || t == &channel_table) {
        int target = ((const struct domain_char *)d)->target;
        return target == TARGET_VIRTIO       ? SERIAL
               : target == TARGET_PCI_SERIAL ? PCI
               : target == TARGET_SERIAL     ? ISA | PCI
                                             : ISA;
    }
    return t == &memory_device_table ? 1 << ADDRESS_DIMM
           : t == &panic_table       ? ISA
           : t == &controller_table && ((const struct domain_controller *)d)->type == CONTROLLER_FDC
               ? 0
               : PCI;
}

struct address_check {
    GError **error;
    bool wrong;
};

static void check_address(const struct xml_table *t, struct device_head *d, void *data)
{
    struct address_check *check = data;
    if (!check->wrong && d->address && d->address->type &&
        !(address_kinds(t, d) >> d->address->type & 1)) {
        libvirt_error(check->error, ERR_CONFIG_UNSUPPORTED,
                      "address of type '%s' is not supported for <%s>",
                      address_table.words[d->address->type], t->element);
        check->wrong = true;
    }
}

static bool check_addresses(const DomainDef *def, GError **error)
{
    struct address_check check = {.error = error};
    domain_each_device((DomainDef *)def, check_address, &check); /* which changes nothing */
    return !check.wrong;
}

/* Of which lodge-vm says itself which it reads. */
static bool check_formats(const DomainDef *def, GError **error)
{
    static const char *const formats[] = {
        "none",  "raw", "dir",  "bochs", "cloop", "dmg",  "iso",  "vpc",  "vdi",       "fat", "vhd",
        "ploop", "cow", "qcow", "qed",   "qcow2", "vmdk", "vhdx", "luks", "parallels", NULL};
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const char *format = ((struct domain_disk *)def->disks->pdata[i])->format;
        if (format && !g_strv_contains(formats, format)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unknown driver format value '%s'",
                          format);
            return false;
        }
    }
    return true;
}

static bool check_usb(const DomainDef *def, GError **error)
{
    bool none = false, used = false;
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        none |= ((struct domain_controller *)def->controllers->pdata[i])->model == MODEL_USB_NONE;
    }
    for (unsigned i = 0; i < xml_count(def->inputs); i++) {
        used |= ((struct domain_input *)def->inputs->pdata[i])->bus == INPUT_USB;
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        used |= ((struct domain_disk *)def->disks->pdata[i])->bus == BUS_USB;
    }
    if (none && used) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "USB is disabled for this domain, but USB devices are present in the domain "
                      "XML");
    }
    return !none || !used;
}

static bool check_variables(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->qemu_variables); i++) {
        const struct qemu_variable *v = def->qemu_variables->pdata[i];
        if (!g_regex_match_simple("^[A-Za-z_][A-Za-z0-9_]*$", v->name, G_REGEX_DOLLAR_ENDONLY, 0)) {
            libvirt_error(error, ERR_XML,
                          "Invalid environment name '%.200s': a letter or underscore, then those "
                          "and digits",
                          v->name);
            return false;
        }
    }
    return true;
}

bool domain_check_devices(const DomainDef *def, GError **error)
{
    return check_formats(def, error) && check_chars(def, error) && check_screen(def, error) &&
           check_addresses(def, error) && check_usb(def, error) && check_variables(def, error);
}
