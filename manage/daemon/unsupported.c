/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/machine.h"

#include "manage/rpc/error.h"

#include <string.h>

/*
 * What libvirt's XML can ask for and a machine here does not get, or not from the device that it
 * stands at.  Such a domain can be defined, but starting it as if nothing had been asked would be
 * a lie.
 */
enum wish_kind {
    WISH_NUMBER, /* int64_t, XML_ABSENT if it is not there */
    WISH_TEXT,   /* char *, or a struct * */
    WISH_LIST,   /* GPtrArray * */
    WISH_WORD,   /* int: any word of an enumeration */
    WISH_ON,     /* enum tristate: on; what is off is off here anyway */
    WISH_OFF,    /* the same the other way round */
};
struct wish {
    const char *element;
    enum wish_kind kind;
    uint16_t offset;
    bool (*vain)(const void *object); /* NULL: always */
};

/* --- the machine as a whole --- */

static bool not_flash(const void *object)
{
    const DomainDef *def = object;
    return def->firmware != FIRMWARE_EFI && def->loader_type != LOADER_PFLASH;
}

static bool no_kernel(const void *object)
{
    return !((const DomainDef *)object)->kernel;
}

/* Where control groups of machines are. */
static bool other_partition(const void *object)
{
    return strcmp(((const DomainDef *)object)->partition, "/machine") != 0;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_def, member), ##__VA_ARGS__                          \
    }
static const struct wish domain_wishes[] = {
    D(WISH_ON, loader_secure, "os/loader/@secure"),
    D(WISH_OFF, loader_readonly, "os/loader/@readonly='no' of a ROM", not_flash),
    D(WISH_TEXT, nvram, "os/nvram without a loader of type 'pflash'", not_flash),
    D(WISH_TEXT, nvram_template, "os/nvram/@template without a loader of type 'pflash'", not_flash),
    D(WISH_TEXT, initrd, "os/initrd without a kernel", no_kernel),
    D(WISH_TEXT, cmdline, "os/cmdline without a kernel", no_kernel),
    D(WISH_ON, bios_useserial, "os/bios/@useserial"),
    D(WISH_ON, pmu, "features/pmu"),
    D(WISH_TEXT, partition, "resource/partition other than '/machine'", other_partition),
};
#undef D

static bool other_cache(const void *object)
{
    const struct domain_cpu *cpu = object;
    return cpu->cache_mode == CACHE_PASSTHROUGH ||
           (cpu->cache_level != XML_ABSENT &&
            (cpu->cache_level != 3 || cpu->cache_mode == CACHE_DISABLE));
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_cpu, member), ##__VA_ARGS__                          \
    }
static const struct wish cpu_wishes[] = {
    D(WISH_WORD, cache_mode, "cpu/cache but mode='emulate' of level 3 and mode='disable' of all",
      other_cache),
};
#undef D

/* Ticks that were missed: those of the RTC and the PIT come later, or faster. */
static bool other_policy(const void *object)
{
    const struct clock_timer *timer = object;
    return (timer->name != TIMER_RTC && timer->name != TIMER_PIT) ||
           timer->tickpolicy > TICK_CATCHUP;
}

static bool other_track(const void *object)
{
    const struct clock_timer *timer = object;
    return timer->name != TIMER_RTC || timer->track != TRACK_WALL;
}

static bool stays(const void *object)
{
    const struct clock_timer *timer = object;
    return timer->name != TIMER_HPET && timer->name != TIMER_KVMCLOCK;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct clock_timer, member), ##__VA_ARGS__                         \
    }
static const struct wish timer_wishes[] = {
    D(WISH_NUMBER, frequency, "clock/timer/@frequency"),
    D(WISH_WORD, track, "clock/timer/@track but 'wall' of the RTC", other_track),
    D(WISH_WORD, tickpolicy, "clock/timer/@tickpolicy but 'delay' and 'catchup' of RTC and PIT",
      other_policy),
    D(WISH_OFF, present, "clock/timer/@present='no' of RTC, PIT or TSC", stays),
};
#undef D

/* --- devices --- */

static bool is_floppy(const void *object)
{
    return ((const struct domain_disk *)object)->bus == BUS_FDC;
}

/* Reached by one server. */
static bool one_server(const void *object)
{
    const struct domain_disk *disk = object;
    return xml_count(disk->source->hosts) > 1 && g_strcmp0(disk->source->protocol, "rbd") != 0;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_disk, member), ##__VA_ARGS__                         \
    }
static const struct wish disk_wishes[] = {
    D(WISH_TEXT, serial, "disk/serial of a floppy", is_floppy),
    D(WISH_TEXT, wwn, "disk/wwn of a floppy", is_floppy),
    D(WISH_NUMBER, queues, "disk/driver/@queues of a floppy", is_floppy),
    D(WISH_NUMBER, queue_size, "disk/driver/@queue_size of a floppy", is_floppy),
    D(WISH_WORD, event_idx, "disk/driver/@event_idx of a floppy", is_floppy),
    D(WISH_WORD, ioeventfd, "disk/driver/@ioeventfd of a floppy", is_floppy),
    D(WISH_NUMBER, logical_block, "disk/blockio of a floppy", is_floppy),
    D(WISH_NUMBER, physical_block, "disk/blockio of a floppy", is_floppy),
    D(WISH_NUMBER, rotation_rate, "disk/target/@rotation_rate of a floppy", is_floppy),
    D(WISH_TEXT, source, "more than one disk/source/host", one_server),
};
#undef D

static bool has_no_ports(const void *object)
{
    const struct domain_controller *c = object;
    return c->type != CONTROLLER_VIRTIO_SERIAL &&
           !(c->type == CONTROLLER_USB &&
             (c->model == MODEL_QEMU_XHCI || c->model == MODEL_NEC_XHCI));
}

static bool not_virtio_serial(const void *object)
{
    return ((const struct domain_controller *)object)->type != CONTROLLER_VIRTIO_SERIAL;
}

static bool not_scsi(const void *object)
{
    return ((const struct domain_controller *)object)->type != CONTROLLER_SCSI;
}

static bool no_slot(const void *object)
{
    const struct domain_controller *c = object;
    return c->type != CONTROLLER_PCI || !domain_has_slot(c->model);
}

static bool no_bridge(const void *object)
{
    const struct domain_controller *c = object;
    return c->type != CONTROLLER_PCI || c->model != MODEL_PCI_BRIDGE;
}

static bool no_usb(const void *object)
{
    return ((const struct domain_controller *)object)->type != CONTROLLER_USB;
}

static bool other_type(const void *object)
{
    const struct domain_controller *c = object;
    const bool pci = c->model <= MODEL_PCIE_ROOT_PORT ||
                     (c->model >= MODEL_PCI_BRIDGE && c->model <= MODEL_SWITCH_DOWNSTREAM);
    return c->type == CONTROLLER_PCI    ? !pci
           : c->type == CONTROLLER_SCSI ? c->model != MODEL_VIRTIO_SCSI
           : c->type == CONTROLLER_USB  ? pci || c->model == MODEL_VIRTIO_SCSI
                                        : true;
}

static bool other_name(const void *object)
{
    const struct domain_controller *c = object;
    const char *name = c->type == CONTROLLER_PCI ? domain_pci_controller(c->model) : NULL;
    return g_strcmp0(c->model_name, name) != 0;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_controller, member), ##__VA_ARGS__                   \
    }
static const struct wish controller_wishes[] = {
    D(WISH_WORD, model, "controller/@model of another type of controller", other_type),
    D(WISH_TEXT, model_name, "controller/model/@name of another model", other_name),
    D(WISH_NUMBER, ports, "controller/@ports but of virtio-serial and xHCI", has_no_ports),
    D(WISH_NUMBER, vectors, "controller/@vectors but of virtio-serial", not_virtio_serial),
    D(WISH_NUMBER, queues, "controller/driver/@queues but of virtio-scsi", not_scsi),
    D(WISH_NUMBER, iothread, "controller/driver/@iothread but of virtio-scsi", not_scsi),
    D(WISH_NUMBER, chassis, "controller/target/@chassis but of a PCI Express port", no_slot),
    D(WISH_NUMBER, port, "controller/target/@port but of a PCI Express port", no_slot),
    D(WISH_WORD, hotplug, "controller/target/@hotplug but of a PCI Express port", no_slot),
    D(WISH_NUMBER, chassis_nr, "controller/target/@chassisNr but of a pci-bridge", no_bridge),
    D(WISH_NUMBER, master_startport, "controller/master but of USB", no_usb),
};
#undef D

static bool no_network(const void *object)
{
    return ((const struct domain_char *)object)->type != CHAR_TCP;
}

static bool no_name(const void *object)
{
    return ((const struct domain_char *)object)->target != TARGET_VIRTIO;
}

static bool other_serial(const void *object)
{
    const struct domain_char *c = object;
    static const char *const names[] = {[TARGET_ISA_SERIAL] = "isa-serial",
                                        [TARGET_PCI_SERIAL] = "pci-serial",
                                        [TARGET_ISA_DEBUG] = "isa-debugcon"};
    return g_strcmp0(c->target_model, names[c->target]) != 0;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_char, member), ##__VA_ARGS__                         \
    }
static const struct wish char_wishes[] = {
    D(WISH_WORD, protocol, "protocol of a character device but TCP", no_network),
    D(WISH_TEXT, name, "target/@name of a character device but virtio", no_name),
    D(WISH_TEXT, target_model, "target/model/@name of another type of character device",
      other_serial),
};
#undef D

static bool no_password(const void *object)
{
    return !((const struct domain_graphics *)object)->passwd;
}

static bool many_listens(const void *object)
{
    return xml_count(((const struct domain_graphics *)object)->listens) > 1;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_graphics, member), ##__VA_ARGS__                     \
    }
static const struct wish graphics_wishes[] = {
    D(WISH_TEXT, passwd_valid_to, "graphics/@passwdValidTo without a password", no_password),
    D(WISH_LIST, listens, "more than one graphics/listen", many_listens),
};
#undef D

static bool one_screen(const void *object)
{
    const struct domain_video *video = object;
    return video->type != VIDEO_VIRTIO && video->heads != 1;
}

static bool no_vgamem(const void *object)
{
    return ((const struct domain_video *)object)->type != VIDEO_VGA;
}

static bool no_picture(const void *object)
{
    return ((const struct domain_video *)object)->type == VIDEO_NONE;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_video, member), ##__VA_ARGS__                        \
    }
static const struct wish video_wishes[] = {
    D(WISH_NUMBER, heads, "video/model/@heads of more than one but of virtio", one_screen),
    D(WISH_NUMBER, vgamem, "video/model/@vgamem but of vga", no_vgamem),
    D(WISH_NUMBER, x, "video/model/resolution of none", no_picture),
};
#undef D

static bool has_no_codecs(const void *object)
{
    return !g_str_has_prefix(((const struct domain_sound *)object)->model, "ich");
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_sound, member), ##__VA_ARGS__                        \
    }
static const struct wish sound_wishes[] = {
    D(WISH_LIST, codecs, "sound/codec but of ich6 and ich9", has_no_codecs),
};
#undef D

static bool no_file(const void *object)
{
    return ((const struct domain_audio *)object)->type != AUDIO_FILE;
}

#define D(kind, member, element, ...)                                                              \
    {                                                                                              \
        element, kind, offsetof(struct domain_audio, member), ##__VA_ARGS__                        \
    }
static const struct wish audio_wishes[] = {
    D(WISH_TEXT, path, "audio/@path but of type 'file'", no_file),
};
#undef D

static bool asked(const void *object, const struct wish *w)
{
    const void *at = (const char *)object + w->offset;
    switch (w->kind) {
    case WISH_NUMBER:
        return *(const int64_t *)at != XML_ABSENT;
    case WISH_TEXT:
        return *(void *const *)at != NULL;
    case WISH_LIST:
        return xml_count(*(GPtrArray *const *)at) > 0;
    case WISH_WORD:
        return *(const int *)at != 0;
    case WISH_OFF:
        return *(const enum tristate *)at == TRI_NO;
    case WISH_ON:
        return *(const enum tristate *)at == TRI_YES;
    }
    return false;
}

static bool granted(const void *object, const struct wish *wishes, unsigned n, GError **error)
{
    for (unsigned i = 0; i < n; i++) {
        if (asked(object, &wishes[i]) && (!wishes[i].vain || wishes[i].vain(object))) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s is not supported by lodged",
                          wishes[i].element);
            return false;
        }
    }
    return true;
}

static bool all_granted(const GPtrArray *list, const struct wish *wishes, unsigned n,
                        GError **error)
{
    for (unsigned i = 0; i < xml_count(list); i++) {
        if (!granted(list->pdata[i], wishes, n, error)) {
            return false;
        }
    }
    return true;
}

#define TABLE(t) t, G_N_ELEMENTS(t)

static bool devices_can_be(const DomainDef *def, GError **error)
{
    const GPtrArray *const chars[] = {def->serials, def->parallels, def->consoles, def->channels};
    for (unsigned i = 0; i < G_N_ELEMENTS(chars); i++) {
        if (!all_granted(chars[i], TABLE(char_wishes), error)) {
            return false;
        }
    }
    return all_granted(def->disks, TABLE(disk_wishes), error) &&
           all_granted(def->controllers, TABLE(controller_wishes), error) &&
           all_granted(def->graphics, TABLE(graphics_wishes), error) &&
           all_granted(def->videos, TABLE(video_wishes), error) &&
           all_granted(def->sounds, TABLE(sound_wishes), error) &&
           all_granted(def->audios, TABLE(audio_wishes), error) && cards_can_be(def, error);
}

/* Files belong to the machine's own user ("dac"), which lodged chooses: that is all there is. */
static bool labels_can_be(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->labels); i++) {
        const struct domain_label *label = def->labels->pdata[i];
        if (label->type == LABEL_NONE) {
            continue;
        }
        if (label->model && strcmp(label->model, "dac") != 0) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "Unable to find security driver for model %s", label->model);
            return false;
        }
        if (label->type == LABEL_STATIC || label->relabel == TRI_NO) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s is not supported by lodged",
                          label->type == LABEL_STATIC ? "seclabel/@type='static'"
                                                      : "seclabel/@relabel='no'");
            return false;
        }
    }
    return true;
}

/* The firmware that firmware='efi' chooses has no Secure Boot and no keys. */
static bool firmware_can_be(const DomainDef *def, GError **error)
{
    static const char *const known[] = {"secure-boot", "enrolled-keys", NULL};
    for (unsigned i = 0; i < xml_count(def->firmware_features); i++) {
        const struct firmware_feature *f = def->firmware_features->pdata[i];
        if (f->enabled == TRI_YES || !g_strv_contains(known, f->name) ||
            def->firmware != FIRMWARE_EFI) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "Unable to find firmware that has feature '%s'%s", f->name,
                          def->firmware == FIRMWARE_EFI ? "" : ": <os> has no firmware='efi'");
            return false;
        }
    }
    return true;
}

bool machine_can_be(const DomainDef *def, GError **error)
{
    return granted(def, TABLE(domain_wishes), error) && labels_can_be(def, error) &&
           firmware_can_be(def, error) &&
           (!def->cpu || granted(def->cpu, TABLE(cpu_wishes), error)) &&
           all_granted(def->timers, TABLE(timer_wishes), error) && devices_can_be(def, error);
}
