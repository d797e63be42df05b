/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices of a definition as lodge-vm has them: the object of each for -device and device_add,
 * and of a disk for -blockdev, in the words that QEMU and lodge-vm share.
 */
#include "manage/daemon/cpu.h"
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/memory_line.h"
#include "manage/daemon/run.h"
#include "manage/daemon/sysinfo.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* --- what lodge-vm has --- */

enum { HELP_SECONDS = 60 };

char *vm_program(void)
{
    return daemon_program("lodge-vm");
}

/* The names in `lodge-vm -device help`, of the program that was installed at .of. */
static struct {
    GHashTable *names;
    struct timespec of;
} known;

static void learn(const char *text)
{
    g_auto(GStrv) quoted = g_strsplit(text, "\"", -1);
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; quoted[i]; i++) { /* name "x", bus PCI, alias "y,z", desc "..." */
        if (g_str_has_suffix(quoted[i], "name ") || g_str_has_suffix(quoted[i], "alias ")) {
            g_auto(GStrv) each = g_strsplit(quoted[i + 1] ? quoted[i + 1] : "", ",", -1);
            for (unsigned k = 0; each[k]; k++) {
                g_hash_table_add(names, g_strdup(each[k]));
            }
        }
    }
    g_clear_pointer(&known.names, g_hash_table_unref);
    known.names = names;
}

void vm_learn_devices(void)
{
    g_autofree char *program = vm_program(), *out = NULL;
    struct stat st;
    if (!program || stat(program, &st) != 0 ||
        (known.names && memcmp(&known.of, &st.st_mtim, sizeof(st.st_mtim)) == 0)) {
        return;
    }
    const char *const argv[] = {program, "-device", "help", NULL};
    daemon_unlock();
    bool ok = run_program(argv, NULL, HELP_SECONDS, &out, NULL, NULL);
    daemon_lock();
    if (ok) {
        learn(out);
        known.of = st.st_mtim;
    }
}

bool vm_has_device(const char *name)
{
    return known.names && g_hash_table_contains(known.names, name);
}

/* --- values --- */

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

static void set_iothread(json_t *o, int64_t id)
{
    g_autofree char *name = id == XML_ABSENT ? NULL : g_strdup_printf("iothread%ld", (long)id);
    set_text(o, "iothread", name);
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

/* The definition may choose it, but not that of the board's own; a companion has its master's. */
static const char *controller_name(const DomainDef *def, int type, int64_t index)
{
    bool q35 = domain_is_q35(def);
    if (index == 0 && type == CONTROLLER_PCI) {
        return q35 ? "pcie.0" : "pci.0";
    }
    if (index == 0 && type == (q35 ? CONTROLLER_SATA : CONTROLLER_IDE)) {
        return "ide";
    }
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        const struct domain_controller *c = def->controllers->pdata[i];
        if (c->type == type && c->index == index && c->master_startport == XML_ABSENT) {
            return c->alias;
        }
    }
    return controller_type_words[type];
}

static void set_bus(json_t *o, const DomainDef *def, int type, int64_t index, int64_t number)
{
    const char *name = controller_name(def, type, index);
    g_autofree char *bus = g_strdup_printf("%s.%ld", name, (long)number);
    set_text(o, "bus", bus);
}

/* bus and addr of a PCI device. */
static void set_place(const DomainDef *def, json_t *o, const struct address *a)
{
    if (!o || !a || a->type != ADDRESS_PCI) {
        return;
    }
    g_autofree char *addr = a->function
                                ? g_strdup_printf("0x%lx.0x%lx", (long)a->slot, (long)a->function)
                                : g_strdup_printf("0x%lx", (long)a->slot);
    set_text(o, "bus", controller_name(def, CONTROLLER_PCI, a->bus));
    set_text(o, "addr", addr);
    set_tri(o, "multifunction", a->multifunction);
}

/* A processor is known by its place in the topology, as -smp makes it. */
json_t *vcpu_options(const DomainDef *def, unsigned id, GError **error)
{
    const struct domain_cpu *cpu = def->cpu;
    bool given = cpu && cpu->sockets != XML_ABSENT;
    unsigned threads = given ? (unsigned)cpu->threads : 1, cores = given ? (unsigned)cpu->cores : 1;
    unsigned dies = given && cpu->dies != XML_ABSENT ? (unsigned)cpu->dies : 1;
    g_autofree char *alias = g_strdup_printf("vcpu%u", id);
    json_t *o = device("x86_64-cpu", alias, error);
    if (o) {
        set_int(o, "socket-id", id / threads / cores / dies);
        set_int(o, "die-id", id / threads / cores % dies);
        set_int(o, "core-id", id / threads % cores);
        set_int(o, "thread-id", id % threads);
    }
    return o;
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

int64_t disk_boot_index(const DomainDef *def, const struct domain_disk *disk)
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
bool disk_changeable(const struct domain_disk *disk)
{
    return disk->device != DISK_DEVICE_DISK &&
           !(disk->source && (disk->source->protocol || disk->source->access));
}

char *disk_file_name(const struct domain_disk *disk)
{
    return disk->source && disk->source->index != XML_ABSENT
               ? g_strdup_printf("libvirt-%ld-storage", (long)disk->source->index)
               : NULL;
}

/* What drive= of its device says. */
char *disk_drive_name(const struct domain_disk *disk)
{
    return disk_changeable(disk) ? g_strconcat("drive-", disk->alias, NULL) : disk_node_name(disk);
}

static json_t *file_node(const struct domain_disk *disk, GError **error)
{
    const struct disk_source *s = disk->source;
    if (s->protocol || s->access) {
        return disk_network_file(disk, error);
    }
    const char *path = disk_path(disk);
    struct stat st;
    if (path_stat(path, &st) != 0) {
        path_error(error, ERR_SYSTEM, "Cannot access storage file", path);
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
    g_autofree char *name = disk_node_name(disk);
    json_t *file = file_node(disk, error);
    if (!file) {
        return NULL;
    }
    g_autofree char *storage = disk_file_name(disk);
    set_text(file, "node-name", storage);
    json_t *o = json_pack("{s:s, s:s, s:b, s:o}", "driver", disk->format, "node-name", name,
                          "read-only", disk->readonly, "file", file);
    if (!disk_decrypt(disk, o, error)) {
        json_decref(o);
        return NULL;
    }
    bool direct = disk->cache == CACHE_NONE || disk->cache == CACHE_DIRECTSYNC;
    json_object_set_new(
        o, "cache",
        json_pack("{s:b, s:b}", "direct", direct, "no-flush", disk->cache == CACHE_UNSAFE));
    if (disk->discard) {
        set_text(o, "discard", disk_discard_words[disk->discard]);
    }
    set_tri(o, "copy-on-read", disk->copy_on_read);
    if (disk->detect_zeroes) {
        set_text(o, "detect-zeroes", detect_zeroes_words[disk->detect_zeroes]);
    }
    return o;
}

/* Of a policy that means a full disk only, reads know nothing. */
const char *disk_on_error(int policy, bool write)
{
    static const char *const words[] = {NULL, "stop", "report", "ignore", "enospc"};
    return policy == POLICY_ENOSPACE && !write ? "report" : words[policy];
}

/* bus and port of a USB device. */
static void set_usb_place(const DomainDef *def, json_t *o, const struct address *a)
{
    if (!o || !a || a->type != ADDRESS_USB) {
        return;
    }
    set_bus(o, def, CONTROLLER_USB, a->bus == XML_ABSENT ? 0 : a->bus, 0);
    set_text(o, "port", a->port);
}

/* Where a disk that is no PCI device hangs. */
static void set_drive_place(const DomainDef *def, json_t *o, const struct domain_disk *disk)
{
    const struct address *a = disk->address;
    if (!a || a->type != ADDRESS_DRIVE) {
        return;
    }
    switch (disk->bus) {
    case BUS_IDE:
        set_bus(o, def, CONTROLLER_IDE, a->controller, a->bus);
        set_int(o, "unit", a->unit);
        break;
    case BUS_SATA:
        set_bus(o, def, CONTROLLER_SATA, a->controller, a->unit);
        break;
    case BUS_SCSI:
        set_bus(o, def, CONTROLLER_SCSI, a->controller, 0);
        set_int(o, "channel", a->bus);
        set_int(o, "scsi-id", a->target);
        set_int(o, "lun", a->unit);
        break;
    default:
        break;
    }
}

static json_t *disk_device(const DomainDef *def, const struct domain_disk *disk, GError **error)
{
    static const char *const hard[] = {[BUS_IDE] = "ide-hd",
                                       [BUS_SCSI] = "scsi-hd",
                                       [BUS_VIRTIO] = "virtio-blk-pci",
                                       [BUS_USB] = "usb-storage",
                                       [BUS_SATA] = "ide-hd"};
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
    set_usb_place(def, o, disk->address);
    set_text(o, "drive", node);
    set_text(o, "serial", disk->serial);
    if (disk->wwn) {
        g_autofree char *wwn = g_strconcat("0x", disk->wwn, NULL);
        set_text(o, "wwn", wwn);
    }
    set_int(o, "rotation_rate", disk->rotation_rate);
    set_int(o, "cyls", disk->cylinders);
    set_int(o, "heads", disk->heads);
    set_int(o, "secs", disk->track_sectors);
    set_int(o, "logical_block_size", disk->logical_block);
    set_int(o, "physical_block_size", disk->physical_block);
    set_int(o, "num-queues", disk->queues);
    set_int(o, "queue-size", disk->queue_size);
    set_tri(o, "event_idx", disk->event_idx);
    set_tri(o, "ioeventfd", disk->ioeventfd);
    if (disk->cache && disk->device == DISK_DEVICE_DISK) {
        bool through = disk->cache == CACHE_WRITETHROUGH || disk->cache == CACHE_DIRECTSYNC;
        set_tri(o, "write-cache", through ? TRI_NO : TRI_YES);
    }
    if (disk->shareable) {
        set_tri(o, "share-rw", TRI_YES);
    }
    set_iothread(o, disk->iothread);
    set_text(o, "werror", disk_on_error(disk->error_policy, true));
    set_text(o, "rerror",
             disk_on_error(disk->rerror_policy ? disk->rerror_policy : disk->error_policy, false));
    if (disk->bus == BUS_USB) {
        set_tri(o, "removable", disk->removable);
    }
    if (disk->bus == BUS_SCSI) {
        set_text(o, "vendor", disk->vendor);
        set_text(o, "product", disk->product);
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
        if (c->hotplug) {
            json_object_set_new(o, "hotplug", json_boolean(c->hotplug == TRI_YES));
        }
    }
    if (c->model == MODEL_PCI_BRIDGE) {
        set_int(o, "chassis_nr", c->chassis_nr);
    }
    bool is_xhci = c->model == MODEL_QEMU_XHCI || c->model == MODEL_NEC_XHCI;
    if (c->type == CONTROLLER_USB && is_xhci && c->ports != XML_ABSENT) {
        set_int(o, "p2", c->ports);
        set_int(o, "p3", c->ports);
    }
    if (c->type == CONTROLLER_USB && c->master_startport != XML_ABSENT) {
        /* A companion: the id is its master's. */
        g_autofree char *master =
            g_strconcat(controller_name(def, CONTROLLER_USB, c->index), ".0", NULL);
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
        set_iothread(o, c->iothread);
    }
    set_place(def, o, c->address);
    return o;
}

/* What the board has without being asked. */
bool controller_builtin(const DomainDef *def, const struct domain_controller *c)
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
        if (nic->queues > 1) {
            json_object_set_new(o, "mq", json_true());
        }
    }
    bool first = def->interfaces && def->interfaces->pdata[0] == nic;
    set_int(o, "bootindex", boot_index(def, nic->boot_order, BOOT_NETWORK, first));
    if (nic->rom_file || nic->rom_enabled == TRI_NO) {
        set_text(o, "romfile", nic->rom_enabled == TRI_NO ? "" : nic->rom_file);
    }
    set_place(def, o, nic->address);
    return o;
}

static json_t *char_device(const DomainDef *def, const struct xml_table *t,
                           const struct domain_char *c, GError **error)
{
    g_autofree char *chardev = g_strconcat("char", c->alias, NULL);
    if (c->target == TARGET_VIRTIO) {
        json_t *o = device(t == &console_table ? "virtconsole" : "virtserialport", c->alias, error);
        if (o) {
            set_bus(o, def, CONTROLLER_VIRTIO_SERIAL, c->address ? c->address->controller : 0, 0);
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
    set_usb_place(def, o, input->address);
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
    if (o && video->type == VIDEO_BOCHS && video->vram != XML_ABSENT) {
        set_int(o, "vgamem", video->vram * 1024);
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

char *audio_name(const struct domain_sound *sound)
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
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<sound model='%s'> is no device", sound->model);
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
            set_tri(o, "free-page-reporting", ((const struct domain_balloon *)item)->reporting);
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
    } else if (t == &memory_device_table) {
        const struct domain_memory_device *dimm = item;
        g_autofree char *memdev = g_strconcat("mem", d->alias, NULL);
        o = device("pc-dimm", d->alias, error);
        if (o) {
            set_text(o, "memdev", memdev);
            set_int(o, "node", dimm->node);
            set_int(o, "slot", d->address ? d->address->slot : XML_ABSENT);
            set_int(o, "addr", d->address ? d->address->base : XML_ABSENT);
        }
    } else if (t == &panic_table) {
        o = device("pvpanic", NULL, error);
        if (o && d->address) {
            set_int(o, "ioport", d->address->iobase);
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
               ? char_device(def, t, item, error)
           : t == &input_table ? input_device(def, item, error)
           : t == &video_table ? video_device(def, item, error)
           : t == &sound_table ? sound_device(def, item, error)
                               : small_device(def, t, item, error);
}
