/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A definition as the command line of lodge-vm: each element becomes options, in the words that
 * QEMU and lodge-vm share.
 */
#include "manage/daemon/cpu.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/memory_line.h"
#include "manage/daemon/sysinfo.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* --- what lodge-vm has --- */

char *vm_program(void)
{
    return daemon_program("lodge-vm");
}

/* The names in `lodge-vm -device help`, asked anew when the program has changed. */
bool vm_has_device(const char *name)
{
    static GHashTable *names;
    static struct timespec of;
    g_autofree char *program = vm_program();
    struct stat st;
    if (!program || stat(program, &st) != 0) {
        return false;
    }
    if (!names || st.st_mtim.tv_sec != of.tv_sec || st.st_mtim.tv_nsec != of.tv_nsec) {
        char *argv[] = {program, (char *)"-device", (char *)"help", NULL};
        g_autofree char *out = NULL;
        g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL, NULL,
                     NULL);
        g_clear_pointer(&names, g_hash_table_unref);
        names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        of = st.st_mtim;
        g_auto(GStrv) quoted = g_strsplit(out ? out : "", "\"", -1);
        for (unsigned i = 0; quoted[i]; i++) { /* name "x", bus PCI, alias "y,z", desc "..." */
            if (g_str_has_suffix(quoted[i], "name ") || g_str_has_suffix(quoted[i], "alias ")) {
                g_auto(GStrv) each = g_strsplit(quoted[i + 1] ? quoted[i + 1] : "", ",", -1);
                for (unsigned k = 0; each[k]; k++) {
                    g_hash_table_add(names, g_strdup(each[k]));
                }
            }
        }
    }
    return g_hash_table_contains(names, name);
}

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

static void set_text(json_t *o, const char *key, const char *text)
{
    if (text) {
        json_object_set_new(o, key, json_string(text));
    }
}

static void set_int(json_t *o, const char *key, int64_t v)
{
    if (v != XML_ABSENT) {
        json_object_set_new(o, key, json_integer(v));
    }
}

static void set_tri(json_t *o, const char *key, enum tristate v)
{
    if (v) {
        json_object_set_new(o, key, json_boolean(v == TRI_YES));
    }
}

static json_t *device(const char *driver, const char *id, GError **error)
{
    if (!vm_has_device(driver)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "lodge-vm has no device '%s'", driver);
        return NULL;
    }
    json_t *o = json_pack("{s:s}", "driver", driver);
    set_text(o, "id", id);
    return o;
}

/* bus and addr of a PCI device. */
static void set_place(const DomainDef *def, json_t *o, const struct address *a)
{
    if (!o || !a || a->type != ADDRESS_PCI) {
        return;
    }
    g_autofree char *bus = a->bus == 0 ? g_strdup(domain_is_q35(def) ? "pcie.0" : "pci.0")
                                       : g_strdup_printf("pci.%ld", (long)a->bus);
    g_autofree char *addr = a->function
                                ? g_strdup_printf("0x%lx.0x%lx", (long)a->slot, (long)a->function)
                                : g_strdup_printf("0x%lx", (long)a->slot);
    set_text(o, "bus", bus);
    set_text(o, "addr", addr);
    set_tri(o, "multifunction", a->multifunction);
}

/* --- boot order --- */

/* The place of a device in the boot order: its own, or the first of its kind by <boot dev>. */
static int64_t boot_index(const DomainDef *def, int64_t own, int kind, bool first)
{
    if (own != XML_ABSENT || !first) {
        return own;
    }
    for (unsigned i = 0; i < xml_count(def->boots); i++) {
        if (((struct os_boot *)def->boots->pdata[i])->dev == kind) {
            return i + 1;
        }
    }
    return XML_ABSENT;
}

static int64_t disk_boot_index(const DomainDef *def, const struct domain_disk *disk)
{
    static const int kinds[] = {[DISK_DEVICE_DISK] = BOOT_HD,
                                [DISK_DEVICE_CDROM] = BOOT_CDROM,
                                [DISK_DEVICE_FLOPPY] = BOOT_FD};
    bool first = false;
    for (unsigned i = 0; i < xml_count(def->disks) && !first; i++) {
        const struct domain_disk *other = def->disks->pdata[i];
        if (other->device == disk->device) {
            first = other == disk;
            break;
        }
    }
    return boot_index(def, disk->boot_order, kinds[disk->device], first);
}

/* --- disks --- */

char *disk_node_name(const struct domain_disk *disk)
{
    return disk->source && disk->source->index != XML_ABSENT
               ? g_strdup_printf("libvirt-%ld-format", (long)disk->source->index)
               : NULL;
}

/* A drive whose medium can be changed: lodge-vm keeps those by the id of their -drive. */
static bool changeable(const struct domain_disk *disk)
{
    return disk->device != DISK_DEVICE_DISK &&
           !(disk->source && (disk->source->protocol || disk->source->access));
}

/* What drive= of its device says. */
static char *disk_drive_name(const struct domain_disk *disk)
{
    return changeable(disk) ? g_strconcat("drive-", disk->alias, NULL) : disk_node_name(disk);
}

static json_t *file_node(const struct domain_disk *disk, GError **error)
{
    const struct disk_source *s = disk->source;
    if (s->protocol || s->access) {
        return disk_network_file(disk, error);
    }
    const char *path = disk_path(disk);
    struct stat st;
    if (stat(path, &st) != 0) {
        libvirt_error(error, ERR_SYSTEM, "Cannot access storage file '%s': %s", path,
                      g_strerror(errno));
        return NULL;
    }
    bool device = S_ISBLK(st.st_mode);
    json_t *o =
        json_pack("{s:s, s:s}", "driver", device ? "host_device" : "file", "filename", path);
    if (disk->io) {
        set_text(o, "aio", disk_io_words[disk->io]);
    }
    return o;
}

json_t *disk_node(const struct domain_disk *disk, GError **error)
{
    static const struct {
        bool direct, no_flush;
    } caches[] = {[2] = {true, false}, [5] = {true, false}, [6] = {false, true}};
    g_autofree char *name = disk_node_name(disk);
    json_t *file = file_node(disk, error);
    if (!file) {
        return NULL;
    }
    json_t *o = json_pack("{s:s, s:s, s:b, s:o}", "driver", disk->format, "node-name", name,
                          "read-only", disk->readonly, "file", file);
    if (!disk_decrypt(disk, o, error)) {
        json_decref(o);
        return NULL;
    }
    unsigned cache = (unsigned)disk->cache;
    json_object_set_new(o, "cache",
                        json_pack("{s:b, s:b}", "direct", cache < 7 && caches[cache].direct,
                                  "no-flush", cache < 7 && caches[cache].no_flush));
    if (disk->discard) {
        set_text(o, "discard", disk_discard_words[disk->discard]);
    }
    if (disk->detect_zeroes) {
        set_text(o, "detect-zeroes", detect_zeroes_words[disk->detect_zeroes]);
    }
    return o;
}

/* Where a disk that is no PCI device hangs. */
static void set_drive_place(const DomainDef *def, json_t *o, const struct domain_disk *disk)
{
    const struct address *a = disk->address;
    g_autofree char *bus = NULL;
    if (!a || a->type != ADDRESS_DRIVE) {
        return;
    }
    switch (disk->bus) {
    case BUS_IDE:
        bus = g_strdup_printf("ide.%ld", (long)a->bus);
        set_int(o, "unit", a->unit);
        break;
    case BUS_SATA:
        bus = a->controller == 0 && domain_is_q35(def)
                  ? g_strdup_printf("ide.%ld", (long)a->unit)
                  : g_strdup_printf("sata%ld.%ld", (long)a->controller, (long)a->unit);
        break;
    case BUS_SCSI:
        bus = g_strdup_printf("scsi%ld.0", (long)a->controller);
        set_int(o, "channel", a->bus);
        set_int(o, "scsi-id", a->target);
        set_int(o, "lun", a->unit);
        break;
    default:
        break;
    }
    set_text(o, "bus", bus);
}

static json_t *disk_device(const DomainDef *def, const struct domain_disk *disk, GError **error)
{
    static const char *const hard[] = {
        [BUS_IDE] = "ide-hd",      [BUS_SCSI] = "scsi-hd", [BUS_VIRTIO] = "virtio-blk-pci",
        [BUS_USB] = "usb-storage", [BUS_SATA] = "ide-hd",  [BUS_FDC] = "floppy"};
    const char *driver = hard[disk->bus];
    if (disk->device == DISK_DEVICE_CDROM && disk->bus != BUS_USB) {
        driver = disk->bus == BUS_SCSI ? "scsi-cd" : "ide-cd";
    }
    json_t *o = device(driver, disk->alias, error);
    if (!o) {
        return NULL;
    }
    g_autofree char *node = disk_drive_name(disk);
    set_place(def, o, disk->address);
    set_drive_place(def, o, disk);
    set_text(o, "drive", node);
    set_text(o, "serial", disk->serial);
    if (disk->wwn) {
        g_autofree char *wwn = g_strconcat("0x", disk->wwn, NULL);
        set_text(o, "wwn", wwn);
    }
    set_int(o, "rotation_rate", disk->rotation_rate);
    set_int(o, "logical_block_size", disk->logical_block);
    set_int(o, "physical_block_size", disk->physical_block);
    set_int(o, "num-queues", disk->queues);
    set_int(o, "queue-size", disk->queue_size);
    set_tri(o, "event_idx", disk->event_idx);
    set_tri(o, "ioeventfd", disk->ioeventfd);
    if (disk->shareable) {
        set_tri(o, "share-rw", TRI_YES);
    }
    set_int(o, "bootindex", disk_boot_index(def, disk));
    return o;
}

/* --- controllers, interfaces, the rest --- */

static json_t *controller_device(const DomainDef *def, const struct domain_controller *c,
                                 GError **error)
{
    static const char *const usb[] = {
        [MODEL_QEMU_XHCI] = "qemu-xhci",
        [MODEL_NEC_XHCI] = "nec-usb-xhci",
        [MODEL_PIIX3_UHCI] = "piix3-usb-uhci",
        [MODEL_ICH9_EHCI1] = "ich9-usb-ehci1",
        [MODEL_ICH9_UHCI1] = "ich9-usb-uhci1",
        [MODEL_ICH9_UHCI2] = "ich9-usb-uhci2",
        [MODEL_ICH9_UHCI3] = "ich9-usb-uhci3",
        [MODEL_PIIX4_UHCI] = "piix4-usb-uhci",
        [MODEL_EHCI] = "usb-ehci",
    };
    const char *driver = c->type == CONTROLLER_USB             ? usb[c->model]
                         : c->type == CONTROLLER_PCI           ? domain_pci_controller(c->model)
                         : c->type == CONTROLLER_SCSI          ? "virtio-scsi-pci"
                         : c->type == CONTROLLER_SATA          ? "ich9-ahci"
                         : c->type == CONTROLLER_VIRTIO_SERIAL ? "virtio-serial-pci"
                                                               : "piix3-ide";
    json_t *o = device(driver, c->alias, error);
    if (!o) {
        return NULL;
    }
    if (c->type == CONTROLLER_PCI && domain_has_slot(c->model)) {
        set_int(o, "port", c->port);
        set_int(o, "chassis", c->chassis);
        json_object_set_new(o, "slot",
                            json_integer(c->chassis == XML_ABSENT ? c->index : c->chassis));
    }
    bool is_xhci = c->model == MODEL_QEMU_XHCI || c->model == MODEL_NEC_XHCI;
    if (c->type == CONTROLLER_USB && is_xhci && c->ports != XML_ABSENT) {
        set_int(o, "p2", c->ports);
        set_int(o, "p3", c->ports);
    }
    if (c->type == CONTROLLER_USB && c->master_startport != XML_ABSENT) {
        /* A companion: the id is its master's. */
        g_autofree char *master = g_strconcat(c->alias, ".0", NULL);
        json_object_del(o, "id");
        set_text(o, "masterbus", master);
        set_int(o, "firstport", c->master_startport);
    }
    if (c->type == CONTROLLER_VIRTIO_SERIAL) {
        set_int(o, "max_ports", c->ports);
        set_int(o, "vectors", c->vectors);
    }
    if (c->type == CONTROLLER_SCSI) {
        set_int(o, "num_queues", c->queues);
    }
    set_place(def, o, c->address);
    return o;
}

/* What the board has without being asked. */
static bool controller_builtin(const DomainDef *def, const struct domain_controller *c)
{
    return (c->type == CONTROLLER_PCI && c->index == 0) || c->type == CONTROLLER_FDC ||
           c->model == MODEL_USB_NONE ||
           (c->index == 0 && c->type == (domain_is_q35(def) ? CONTROLLER_SATA : CONTROLLER_IDE));
}

static json_t *interface_device(const DomainDef *def, const struct domain_interface *nic,
                                GError **error)
{
    bool virtio = g_str_has_prefix(nic->model, "virtio");
    json_t *o = device(virtio ? "virtio-net-pci" : nic->model, nic->alias, error);
    if (!o) {
        return NULL;
    }
    g_autofree char *netdev = g_strconcat("host", nic->alias, NULL);
    set_text(o, "netdev", netdev);
    set_text(o, "mac", nic->mac);
    if (virtio) {
        set_int(o, "rx_queue_size", nic->rx_queue_size);
        set_int(o, "tx_queue_size", nic->tx_queue_size);
        set_int(o, "host_mtu", nic->mtu);
    }
    bool first = def->interfaces && def->interfaces->pdata[0] == nic;
    set_int(o, "bootindex", boot_index(def, nic->boot_order, BOOT_NETWORK, first));
    if (nic->rom_file || nic->rom_enabled == TRI_NO) {
        set_text(o, "romfile", nic->rom_enabled == TRI_NO ? "" : nic->rom_file);
    }
    set_place(def, o, nic->address);
    return o;
}

static json_t *char_device(const struct xml_table *t, const struct domain_char *c, GError **error)
{
    g_autofree char *chardev = g_strconcat("char", c->alias, NULL);
    if (c->target == TARGET_VIRTIO) {
        json_t *o = device(t == &console_table ? "virtconsole" : "virtserialport", c->alias, error);
        if (o) {
            g_autofree char *bus = g_strdup_printf("virtio-serial%ld.0",
                                                   c->address ? (long)c->address->controller : 0L);
            set_text(o, "bus", bus);
            set_int(o, "nr", c->address ? c->address->port_number : XML_ABSENT);
            set_text(o, "chardev", chardev);
            set_text(o, "name", c->name);
        }
        return o;
    }
    const char *driver = t == &parallel_table             ? "isa-parallel"
                         : c->target == TARGET_PCI_SERIAL ? "pci-serial"
                         : c->target == TARGET_ISA_DEBUG  ? "isa-debugcon"
                                                          : "isa-serial";
    json_t *o = device(driver, c->alias, error);
    if (o) {
        set_text(o, "chardev", chardev);
        if (strcmp(driver, "isa-serial") == 0 || t == &parallel_table) {
            set_int(o, "index", c->port);
        }
        if (c->address && c->address->type == ADDRESS_ISA) {
            set_int(o, "iobase", c->address->iobase);
            set_int(o, "irq", c->address->irq);
        }
    }
    return o;
}

static json_t *input_device(const DomainDef *def, const struct domain_input *input, GError **error)
{
    static const char *const names[] = {
        [INPUT_TABLET] = "tablet", [INPUT_MOUSE] = "mouse", [INPUT_KEYBOARD] = "keyboard"};
    g_autofree char *driver =
        input->bus == INPUT_USB
            ? g_strdup_printf("usb-%s", input->type == INPUT_KEYBOARD ? "kbd" : names[input->type])
            : g_strdup_printf("virtio-%s-pci", names[input->type]);
    json_t *o = device(driver, input->alias, error);
    if (o && input->bus == INPUT_USB && input->address) {
        g_autofree char *bus = input->address->bus > 0
                                   ? g_strdup_printf("usb%ld.0", (long)input->address->bus)
                                   : g_strdup("usb.0");
        set_text(o, "bus", bus);
        set_text(o, "port", input->address->port);
    }
    set_place(def, o, input->address);
    return o;
}

static json_t *video_device(const DomainDef *def, const struct domain_video *video, GError **error)
{
    static const char *const drivers[] = {[VIDEO_VGA] = "VGA", [VIDEO_BOCHS] = "bochs-display"};
    bool first = def->videos->pdata[0] == video;
    json_t *o = device(video->type == VIDEO_VIRTIO ? first ? "virtio-vga" : "virtio-gpu-pci"
                                                   : drivers[video->type],
                       video->alias, error);
    if (o && video->type == VIDEO_VGA) {
        int64_t kib = video->vgamem != XML_ABSENT ? video->vgamem : video->vram;
        set_int(o, "vgamem_mb", kib == XML_ABSENT ? XML_ABSENT : MAX(kib / 1024, 1));
    }
    if (o && video->type == VIDEO_VIRTIO) {
        set_int(o, "max_outputs", video->heads);
    }
    if (o) {
        set_int(o, "xres", video->x);
        set_int(o, "yres", video->y);
    }
    set_place(def, o, video->address);
    return o;
}

static char *audio_name(const struct domain_sound *sound)
{
    return g_strdup_printf("audio%ld", sound->audio_id == XML_ABSENT ? 1L : (long)sound->audio_id);
}

static json_t *sound_device(const DomainDef *def, const struct domain_sound *sound, GError **error)
{
    static const struct {
        const char *model, *driver;
    } models[] = {{"ich6", "intel-hda"}, {"ich9", "ich9-intel-hda"}, {"ac97", "AC97"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++) {
        if (strcmp(sound->model, models[i].model) == 0) {
            json_t *o = device(models[i].driver, sound->alias, error);
            if (o && strcmp(sound->model, "ac97") == 0) {
                g_autofree char *audio = audio_name(sound);
                set_text(o, "audiodev", audio);
            }
            set_place(def, o, sound->address);
            return o;
        }
    }
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<sound model='%s'> is not supported",
                  sound->model);
    return NULL;
}

static json_t *small_device(const DomainDef *def, const struct xml_table *t, const void *item,
                            GError **error)
{
    const struct device_head *d = item;
    json_t *o = NULL;
    if (t == &watchdog_table) {
        o = device(((const struct domain_watchdog *)item)->model == 1 ? "i6300esb" : "ib700",
                   d->alias, error);
    } else if (t == &balloon_table) {
        o = device("virtio-balloon-pci", d->alias, error);
        if (o) {
            set_tri(o, "deflate-on-oom", ((const struct domain_balloon *)item)->autodeflate);
        }
    } else if (t == &rng_table) {
        const struct domain_rng *rng = item;
        g_autofree char *object = g_strconcat("obj", d->alias, NULL);
        o = device("virtio-rng-pci", d->alias, error);
        if (o) {
            set_text(o, "rng", object);
            set_int(o, "max-bytes", rng->rate_bytes);
            set_int(o, "period",
                    rng->rate_bytes == XML_ABSENT    ? XML_ABSENT
                    : rng->rate_period == XML_ABSENT ? 1000
                                                     : rng->rate_period);
        }
    } else if (t == &panic_table) {
        o = device("pvpanic", NULL, error);
    } else if (t == &memory_device_table) {
        g_autofree char *memdev = g_strconcat("mem", d->alias, NULL);
        o = device("pc-dimm", d->alias, error);
        if (o) {
            set_text(o, "memdev", memdev);
            set_int(o, "node", ((const struct domain_memory_device *)item)->node);
            set_int(o, "slot", d->address ? d->address->slot : XML_ABSENT);
        }
    }
    set_place(def, o, d->address);
    return o;
}

json_t *device_options(const DomainDef *def, const struct xml_table *t, const void *item,
                       GError **error)
{
    return t == &disk_table         ? disk_device(def, item, error)
           : t == &controller_table ? controller_device(def, item, error)
           : t == &interface_table  ? interface_device(def, item, error)
           : t == &serial_table || t == &parallel_table || t == &console_table ||
                   t == &channel_table
               ? char_device(t, item, error)
           : t == &input_table ? input_device(def, item, error)
           : t == &video_table ? video_device(def, item, error)
           : t == &sound_table ? sound_device(def, item, error)
                               : small_device(def, t, item, error);
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
    int fd = -1;
    if (nic->type == IFACE_USER) {
        g_autoptr(GString) more = g_string_new(NULL);
        for (unsigned i = 0; i < xml_count(nic->forwards); i++) {
            const struct port_forward *f = nic->forwards->pdata[i];
            for (unsigned k = 0; k < xml_count(f->ranges); k++) {
                const struct port_range *r = f->ranges->pdata[k];
                int64_t end = r->end == XML_ABSENT ? r->start : r->end;
                int64_t to = r->to == XML_ABSENT ? r->start : r->to;
                for (int64_t p = r->start; p <= end && p < r->start + 256; p++) {
                    g_string_append_printf(
                        more, ",hostfwd=%s:%s:%ld-:%ld", f->proto == 1 ? "tcp" : "udp",
                        f->address ? f->address : "", (long)p, (long)(to + p - r->start));
                }
            }
        }
        word(out, "-netdev", "user,id=host%s%s", nic->alias, more->str);
        return true;
    }
    if (!machine_net_open(m, nic, &fd, error)) {
        return false;
    }
    g_array_append_val(l->fds, fd);
    word(out, "-netdev", "tap,fd=%d,id=host%s", fd, nic->alias);
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
    int64_t current = def->current_vcpus == XML_ABSENT ? def->vcpus : def->current_vcpus;
    g_autoptr(GString) smp = g_string_new(NULL);
    g_string_append_printf(smp, "%ld", (long)current);
    if (current != def->vcpus) {
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
    return text != NULL;
}

static void add_clock(GPtrArray *out, const DomainDef *def)
{
    g_autoptr(GString) text = g_string_new("base=");
    if (def->clock_offset == OFFSET_VARIABLE || def->clock_offset == OFFSET_ABSOLUTE) {
        int64_t at = g_get_real_time() / G_USEC_PER_SEC;
        if (def->clock_offset == OFFSET_ABSOLUTE && def->clock_start) {
            at = g_ascii_strtoll(def->clock_start, NULL, 10);
        } else if (def->clock_adjustment) {
            at += g_ascii_strtoll(def->clock_adjustment, NULL, 10);
        }
        g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(at);
        g_autofree char *stamp = when ? g_date_time_format(when, "%Y-%m-%dT%H:%M:%S") : NULL;
        g_string_append(text, stamp ? stamp : "utc");
    } else {
        g_string_append(text, def->clock_offset == OFFSET_LOCALTIME ? "localtime" : "utc");
    }
    for (unsigned i = 0; i < xml_count(def->timers); i++) {
        const struct clock_timer *timer = def->timers->pdata[i];
        if (timer->name == TIMER_RTC && timer->tickpolicy == 2) { /* catchup */
            g_string_append(text, ",driftfix=slew");
        }
    }
    word(out, "-rtc", "%s", text->str);
}

static bool add_firmware(GPtrArray *out, struct machine *m, GError **error)
{
    DomainDef *def = m->def;
    bool flash = def->firmware == 2 || def->loader_type == LOADER_PFLASH;
    if (!flash) {
        if (def->loader) {
            word(out, "-bios", "%s", def->loader);
        }
        return true;
    }
    const char *code = def->loader ? def->loader : "/usr/share/OVMF/OVMF_CODE_4M.fd";
    const char *template =
        def->nvram_template ? def->nvram_template : "/usr/share/OVMF/OVMF_VARS_4M.fd";
    if (!def->nvram) {
        g_autofree char *file = g_strconcat(def->name, "_VARS.fd", NULL);
        def->nvram = daemon_path_make(DAEMON_VAR, 0755, error, "qemu", "nvram", file, NULL);
        if (!def->nvram) {
            return false;
        }
    }
    if (!g_file_test(def->nvram, G_FILE_TEST_EXISTS)) {
        g_autofree char *vars = NULL;
        gsize n;
        g_autoptr(GError) own = NULL;
        if (!g_file_get_contents(template, &vars, &n, &own) ||
            !daemon_write_file(def->nvram, vars, (gssize)n, 0600, &own)) {
            libvirt_error(error, ERR_SYSTEM, "NVRAM of the firmware: %s", own->message);
            return false;
        }
    }
    g_autofree char *code_text = comma(code), *nvram = comma(def->nvram);
    word(out, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=%s", code_text);
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

static bool add_smbios(GPtrArray *out, const DomainDef *def, GError **error)
{
    for (unsigned type = 0; def->smbios_mode == SMBIOS_HOST && type < 3; type++) {
        g_autofree char *words = sysinfo_words(type);
        if (*words) {
            word(out, "-smbios", "type=%u%s", type, words);
        }
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
        if (g->websocket != XML_ABSENT) {
            g_string_append_printf(text, ",websocket=%ld", (long)g->websocket);
        }
        word(out, "-vnc", "%s", text->str);
        if (g->keymap) {
            word(out, "-k", "%s", g->keymap);
        }
    }
    for (unsigned i = 0; def->sounds && i < xml_count(def->audios); i++) {
        const struct domain_audio *a = def->audios->pdata[i];
        if (a->type == 2) {
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

static bool add_blockdev(GPtrArray *out, const struct launch *l, struct machine *m,
                         struct domain_disk *disk, GError **error)
{
    struct secret_words words = {out, l};
    if (!disk_resolve(disk, error)) {
        return false;
    }
    const char *path = disk_path(disk);
    if (changeable(disk)) {
        g_autofree char *name = disk_drive_name(disk), *file = path ? comma(path) : NULL;
        if (!disk_decrypt(disk, NULL, error)) {
            return false;
        }
        if (path && access(path, F_OK) != 0) {
            libvirt_error(error, ERR_SYSTEM, "Cannot access storage file '%s': %s", path,
                          g_strerror(errno));
            return false;
        }
        word(out, "-drive", "if=none,id=%s,media=%s,readonly=%s%s%s%s%s", name,
             disk->device == DISK_DEVICE_CDROM ? "cdrom" : "disk", disk->readonly ? "on" : "off",
             file ? ",format=" : "", file ? disk->format : "", file ? ",file=" : "",
             file ? file : "");
        return true;
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
    g_autofree char *text = json_dumps(node, JSON_COMPACT);
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
    if (t == &rng_table) {
        const struct domain_rng *rng = item;
        if (rng->backend_model == 1) {
            word(out, "-object", "rng-random,id=obj%s,filename=%s", d->alias,
                 rng->backend ? rng->backend : "/dev/urandom");
        } else {
            word(out, "-object", "rng-builtin,id=obj%s", d->alias);
        }
    }
    if (t == &memory_device_table) {
        word(out, "-object", "memory-backend-ram,id=mem%s,size=%ldk", d->alias,
             (long)((struct domain_memory_device *)item)->size);
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
    return t != &graphics_table && t != &audio_table;
}

static bool add_device(GPtrArray *out, const struct launch *l, struct machine *m,
                       const struct xml_table *t, void *item, GError **error)
{
    if (!has_device(m->def, t, item)) {
        return true;
    }
    if (t == &disk_table && ((struct domain_disk *)item)->bus == BUS_FDC) {
        struct domain_disk *disk = item;
        if (!add_blockdev(out, l, m, disk, error)) {
            return false;
        }
        g_autofree char *node = disk_drive_name(disk);
        if (node) {
            word(out, "-global", "isa-fdc.drive%c=%s", disk->address->unit ? 'B' : 'A', node);
        }
        return true;
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
    return true;
}

char **command_line(struct machine *m, const struct launch *l, GError **error)
{
    DomainDef *def = m->def;
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    if (!machine_can_be(def, error)) {
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
    if (!add_cpu(out, def, error) || !memory_line(out, &memory, error) || !add_firmware(out, m, error)) {
        return NULL;
    }
    add_clock(out, def);
    add_boot(out, def);
    add_actions(out, def);
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
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}
