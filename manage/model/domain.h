/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/bandwidth.h"
#include "manage/model/xml.h"

/*
 * A machine as libvirt's domain XML describes it, in plain structs; domain.c has the tables.
 * Numbers that may be absent are int64_t with XML_ABSENT, words that may be absent enums whose
 * 0 says so, lists GPtrArrays that are NULL when empty.
 */
enum domain_type { DOMAIN_TYPE_QEMU = 1, DOMAIN_TYPE_KVM };

enum address_type {
    ADDRESS_NONE,
    ADDRESS_PCI,
    ADDRESS_DRIVE,
    ADDRESS_VIRTIO_SERIAL,
    ADDRESS_USB,
    ADDRESS_ISA,
    ADDRESS_DIMM,
    ADDRESS_UNASSIGNED,
};
struct address {
    int type;
    int64_t domain, bus, slot, function;
    enum tristate multifunction;
    int64_t controller, target, unit, port_number;
    char *port; /* on USB: "1" or "1.2" */
    int64_t iobase, irq, base;
};

/* What every device has. */
#define DEVICE_FIELDS                                                                              \
    char *alias;                                                                                   \
    struct address *address
struct device_head {
    DEVICE_FIELDS;
};

enum disk_type { DISK_FILE = 1, DISK_BLOCK, DISK_NETWORK, DISK_VOLUME };
enum disk_device { DISK_DEVICE_DISK = 1, DISK_DEVICE_CDROM, DISK_DEVICE_FLOPPY };
enum disk_bus { BUS_IDE = 1, BUS_FDC, BUS_SCSI, BUS_VIRTIO, BUS_USB, BUS_SATA };
enum { POLICY_STOP = 1, POLICY_REPORT, POLICY_IGNORE, POLICY_ENOSPACE };
enum disk_cache {
    CACHE_DEFAULT = 1,
    CACHE_NONE,
    CACHE_WRITETHROUGH,
    CACHE_WRITEBACK,
    CACHE_DIRECTSYNC,
    CACHE_UNSAFE,
};
enum disk_io { IO_NATIVE = 1, IO_THREADS, IO_URING };
enum disk_transport { TRANSPORT_TCP = 1, TRANSPORT_UNIX, TRANSPORT_TLS };
struct disk_host {
    char *name, *socket;
    int64_t port;
    int transport; /* enum disk_transport */
};
struct iotune {
    int64_t v[19]; /* iotune_words, one later */
    char *group;
};
struct volume_encryption; /* volume.h */
struct disk_auth {
    char *user, *secret_type, *secret_usage, *secret_uuid;
};
struct disk_source { /* of a disk, a mirror, or what backs one */
    char *file, *dev, *pool, *volume, *mode, *protocol, *name, *startup;
    int64_t index;
    GPtrArray *hosts;
    enum tristate tls;
    char *tls_hostname, *initiator;
    struct disk_auth *auth;
    struct volume_encryption *encryption;
    char *path, *access; /* ours: what a pool's volume is, a path or JSON of host/image */
};
struct disk_backing {
    int type;
    int64_t index;
    char *format;
    struct disk_source *source;
    struct disk_backing *backing;
};
struct disk_mirror {
    int type, job, ready;
    char *format, *file, *file_format;
    struct disk_source *source;
};
struct domain_disk {
    DEVICE_FIELDS;
    int type, device, snapshot;
    char *model;
    char *driver_name, *format;
    int cache, error_policy, rerror_policy, io, discard, detect_zeroes;
    enum tristate ioeventfd, event_idx, copy_on_read;
    int64_t queues, queue_size, iothread;
    struct disk_source *source;
    struct disk_auth *auth; /* where older XML has them */
    struct volume_encryption *encryption;
    struct disk_backing *backing;
    struct disk_mirror *mirror;
    char *target;
    int bus, tray;
    enum tristate removable;
    struct iotune *iotune;
    bool readonly, shareable, transient;
    char *serial, *wwn, *vendor, *product;
    int64_t boot_order, rotation_rate, logical_block, physical_block;
    int64_t cylinders, heads, track_sectors; /* all three or none */
};

enum controller_type {
    CONTROLLER_USB = 1,
    CONTROLLER_PCI,
    CONTROLLER_IDE,
    CONTROLLER_FDC,
    CONTROLLER_SCSI,
    CONTROLLER_SATA,
    CONTROLLER_VIRTIO_SERIAL,
};
enum controller_model {
    MODEL_PCI_ROOT = 1,
    MODEL_PCIE_ROOT,
    MODEL_PCIE_ROOT_PORT,
    MODEL_QEMU_XHCI,
    MODEL_NEC_XHCI,
    MODEL_PIIX3_UHCI,
    MODEL_ICH9_EHCI1,
    MODEL_ICH9_UHCI1,
    MODEL_ICH9_UHCI2,
    MODEL_ICH9_UHCI3,
    MODEL_USB_NONE,
    MODEL_VIRTIO_SCSI,
    MODEL_PIIX4_UHCI,
    MODEL_EHCI,
    MODEL_PCI_BRIDGE,
    MODEL_DMI_TO_PCI,
    MODEL_PCIE_TO_PCI,
    MODEL_SWITCH_UPSTREAM,
    MODEL_SWITCH_DOWNSTREAM,
};
/* lodge-vm's name of a <controller type='pci'> model, NULL for the roots. */
const char *domain_pci_controller(int model);
bool domain_has_slot(int model); /* one Express slot is behind it */
struct domain_controller {
    DEVICE_FIELDS;
    int type, model;
    int64_t index, ports, vectors, queues, iothread;
    char *model_name;
    int64_t chassis, chassis_nr, port, master_startport;
    enum tristate hotplug;
};

enum interface_type {
    IFACE_NETWORK = 1,
    IFACE_BRIDGE,
    IFACE_USER,
    IFACE_DIRECT,
    IFACE_ETHERNET,
};
struct filter_parameter {
    char *name, *value;
};
struct vlan_tag {
    int64_t id;
    int native;
};
struct port_range {
    int64_t start, end, to;
    enum tristate exclude;
};
struct port_forward {
    int proto;
    char *address, *dev;
    GPtrArray *ranges;
};
struct interface_ip {
    int family;
    char *address;
    int64_t prefix;
};
struct domain_interface {
    DEVICE_FIELDS;
    int type;
    char *mac, *network, *bridge, *dev, *portgroup, *port_id;
    int mode; /* of macvtap */
    char *target, *model, *filter;
    GPtrArray *filter_parameters, *forwards, *ips, *tags;
    enum tristate target_managed, vlan_trunk, isolated;
    int64_t queues, rx_queue_size, tx_queue_size, mtu;
    int driver, link;
    struct bandwidth *inbound, *outbound;
    int64_t boot_order;
    enum tristate rom_enabled;
    char *rom_file;
};

enum char_type {
    CHAR_NULL = 1,
    CHAR_VC,
    CHAR_PTY,
    CHAR_DEV,
    CHAR_FILE,
    CHAR_PIPE,
    CHAR_STDIO,
    CHAR_UDP,
    CHAR_TCP,
    CHAR_UNIX,
};
struct char_source {
    int mode;
    char *path, *host, *service;
    enum tristate append;
};
enum char_target {
    TARGET_ISA_SERIAL = 1,
    TARGET_SERIAL,
    TARGET_VIRTIO,
    TARGET_PCI_SERIAL,
    TARGET_ISA_DEBUG,
};
struct domain_char {
    DEVICE_FIELDS;
    int type;
    char *tty;
    GPtrArray *sources; /* UDP has two */
    int protocol;
    char *log_file;
    enum tristate log_append;
    int target;
    int64_t port;
    char *name; /* of a channel */
    int state;
    char *target_model;
};

struct domain_input {
    DEVICE_FIELDS;
    int type, bus;
};
struct graphics_listen {
    int type;
    char *address, *network, *socket;
};
struct domain_graphics {
    int type;
    int64_t port, websocket;
    enum tristate autoport;
    char *listen, *socket, *passwd, *passwd_valid_to, *keymap;
    int share_policy;
    GPtrArray *listens;
};
/* Beside which port browsers find it, if they may find it anywhere. */
static inline int64_t domain_websocket(const struct domain_graphics *g)
{
    return g->port - 200;
}
struct domain_sound {
    DEVICE_FIELDS;
    char *model;
    GPtrArray *codecs;
    int64_t audio_id;
};
struct sound_codec {
    int type;
};
struct domain_audio {
    int64_t id;
    int type;
    char *path;
};
enum video_type { VIDEO_VGA = 1, VIDEO_BOCHS, VIDEO_VIRTIO, VIDEO_NONE };
struct domain_video {
    DEVICE_FIELDS;
    int type;
    int64_t vram, vgamem, heads, x, y;
    enum tristate primary;
};
struct domain_watchdog {
    DEVICE_FIELDS;
    int model, action;
};
struct domain_balloon {
    DEVICE_FIELDS;
    int model;
    enum tristate autodeflate, reporting;
    int64_t period;
};
struct domain_rng {
    DEVICE_FIELDS;
    int model, backend_model;
    char *backend;
    int64_t rate_bytes, rate_period;
};
struct domain_memory_device {
    DEVICE_FIELDS;
    int model, access;
    int64_t size, node; /* KiB */
    char *nodeset;      /* of the host */
};
struct domain_panic {
    DEVICE_FIELDS;
    int model;
};

struct os_boot {
    int dev;
};
enum boot_dev { BOOT_FD = 1, BOOT_HD, BOOT_CDROM, BOOT_NETWORK };
struct sysinfo_entry {
    char *name, *value, *file;
};
enum { SYSINFO_SMBIOS = 1, SYSINFO_FWCFG };
enum { SMBIOS_SYSINFO = 1, SMBIOS_EMULATE, SMBIOS_HOST };
struct domain_sysinfo {
    int type;
    GPtrArray *bios, *system, *base_board, *chassis, *oem, *files;
};
struct cpu_feature {
    int policy;
    char *name;
};
struct firmware_feature {
    enum tristate enabled;
    char *name;
};
struct cell_distance {
    int64_t id, value;
};
struct cpu_cell {
    int64_t id, memory; /* KiB once it is checked */
    char *cpus, *unit;
    int access;
    GPtrArray *distances;
};
struct numa_memnode {
    int64_t cell;
    int mode;
    char *nodeset;
};
struct domain_cpu {
    int mode, match, check;
    enum tristate migratable;
    char *model, *vendor;
    int fallback;
    int64_t sockets, dies, clusters, cores, threads;
    int address_mode;
    int64_t address_bits;
    int cache_mode;
    int64_t cache_level;
    GPtrArray *features, *cells;
};
struct clock_timer {
    int name, tickpolicy, track;
    enum tristate present;
    int64_t frequency;
};
struct huge_page {
    int64_t size; /* KiB once it is checked */
    char *nodeset, *unit;
};
struct vcpu_state {
    int64_t id, order;
    enum tristate enabled, hotpluggable;
};
struct iothread_id {
    int64_t id;
};
struct iothread_pin {
    int64_t iothread;
    char *cpuset;
};
struct vcpu_pin {
    int64_t vcpu;
    char *cpuset;
};
struct blkio_device {
    char *path;
    int64_t weight, read_iops, write_iops, read_bytes, write_bytes;
};
struct domain_label {
    int type;
    char *model, *label, *image_label;
    enum tristate relabel;
};

struct qemu_argument {
    char *value;
};
struct qemu_variable {
    char *name, *value;
};

struct domain_def {
    int type;
    int64_t id;
    char *name, *uuid, *title, *description, *metadata;
    int64_t max_memory, memory_slots, memory, current_memory; /* KiB */
    enum tristate dump_core;
    bool hugepages, nosharepages, locked;
    bool discard_memory; /* always so: a machine's memory has no name that outlives it */
    GPtrArray *pages;
    int memory_source, memory_access, memory_allocation;
    int64_t vcpus, current_vcpus, iothreads;
    int vcpu_placement;
    char *vcpu_cpuset;
    GPtrArray *vcpu_states;
    int64_t blkio_weight;
    GPtrArray *blkio_devices;
    int64_t cpu_shares, cpu_period, cpu_quota, emulator_period, emulator_quota, global_period,
        global_quota;
    GPtrArray *iothread_ids, *iothread_pins;
    GPtrArray *vcpu_pins;
    char *emulator_pin;
    int64_t hard_limit, soft_limit, swap_hard_limit;
    int numatune_mode, numatune_placement;
    char *numatune_nodeset;
    GPtrArray *memnodes;
    int firmware, os_arch;
    char *machine, *os_type, *loader, *nvram, *nvram_template, *kernel, *initrd, *cmdline;
    enum tristate loader_readonly, loader_secure;
    int loader_type, loader_format, nvram_format, template_format;
    GPtrArray *firmware_features;
    GPtrArray *boots;
    enum tristate boot_menu, bios_useserial;
    int64_t boot_menu_timeout, reboot_timeout;
    int smbios_mode;
    GPtrArray *sysinfos;
    bool has_features, acpi, apic, pae;
    enum tristate apic_eoi, vmcoreinfo, vmport, pmu, smm, kvm_hidden;
    struct domain_cpu *cpu;
    int clock_offset, clock_basis;
    char *clock_adjustment, *clock_timezone, *clock_start;
    GPtrArray *timers;
    int on_poweroff, on_reboot, on_crash;
    enum tristate suspend_to_mem, suspend_to_disk;
    char *emulator;
    GPtrArray *disks, *controllers, *interfaces, *serials, *parallels, *consoles, *channels,
        *inputs, *graphics, *sounds, *audios, *videos, *memory_devices, *panics, *rngs;
    struct domain_watchdog *watchdog;
    struct domain_balloon *balloon;
    GPtrArray *labels;
    char *partition;
    GPtrArray *qemu_arguments, *qemu_variables; /* for lodge-vm itself */
};

extern const struct xml_table domain_table;
extern const struct xml_table inactive_domain_table; /* the same, inside a snapshot */
extern const struct xml_table disk_table, controller_table, interface_table, input_table,
    graphics_table, sound_table, video_table, watchdog_table, balloon_table, rng_table,
    serial_table, console_table, channel_table, parallel_table, memory_device_table, audio_table,
    panic_table, address_table, graphics_listen_table, char_source_table, disk_source_table,
    backing_table, mirror_table, iotune_table;

/* The lists of devices, in the order of the XML, for whoever walks all of them. */
struct device_list {
    const struct xml_table *table;
    uint16_t offset; /* of the GPtrArray * in struct domain_def */
    bool single;     /* there it is a pointer to the struct */
    bool placed;     /* begins with DEVICE_FIELDS */
};
extern const struct device_list device_lists[];
extern const unsigned device_list_count;

extern const char *const disk_type_words[],
    *const disk_bus_words[],
        *const char_target_words[],
            *const disk_device_words[],
                *const disk_cache_words[],
                    *const disk_io_words[],
                        *const disk_discard_words[],
                            *const boot_dev_words[],
                                *const lifecycle_words[],
                                    *const watchdog_action_words[],
                                        *const controller_type_words[],
                                            *const controller_model_words[],
                                                *const error_policy_words[],
                                                    *const detect_zeroes_words[],
                                                        *const video_type_words[],
                                                            *const char_type_words[],
                                                                *const iotune_words[],
                                                                    *const domain_type_words[],
                                                                        *const snapshot_words[];
enum { IOTUNE_WORDS = 13 };

enum lifecycle_action {
    ACTION_DESTROY = 1,
    ACTION_RESTART,
    ACTION_PRESERVE,
    ACTION_RENAME_RESTART,
    ACTION_COREDUMP_DESTROY,
    ACTION_COREDUMP_RESTART,
};
enum { MODE_CUSTOM = 1, MODE_HOST_MODEL, MODE_HOST_PASSTHROUGH, MODE_MAXIMUM };
enum { POLICY_FORCE = 1, POLICY_REQUIRE, POLICY_OPTIONAL, POLICY_DISABLE, POLICY_FORBID };
enum { TIMER_RTC = 1, TIMER_PIT, TIMER_HPET, TIMER_TSC, TIMER_KVMCLOCK };
enum { OFFSET_UTC = 1, OFFSET_LOCALTIME, OFFSET_TIMEZONE, OFFSET_VARIABLE, OFFSET_ABSOLUTE };
enum { BASIS_UTC = 1, BASIS_LOCALTIME };
enum { LINK_UP = 1, LINK_DOWN };
enum { INPUT_TABLET = 1, INPUT_MOUSE, INPUT_KEYBOARD };
enum { INPUT_PS2 = 1, INPUT_USB, INPUT_VIRTIO };
enum { BALLOON_VIRTIO = 1, BALLOON_NONE };
enum { LISTEN_ADDRESS = 1, LISTEN_NETWORK, LISTEN_SOCKET, LISTEN_NONE };
enum { LOADER_ROM = 1, LOADER_PFLASH };
enum { SOURCE_BIND = 1, SOURCE_CONNECT };
enum { FIRMWARE_BIOS = 1, FIRMWARE_EFI };
enum { ARCH_X86_64 = 1, ARCH_I686 };
enum { CACHE_EMULATE = 1, CACHE_PASSTHROUGH, CACHE_DISABLE };
enum { ADDRESSES_EMULATE = 1, ADDRESSES_PASSTHROUGH };
enum { TICK_DELAY = 1, TICK_CATCHUP, TICK_MERGE, TICK_DISCARD };
enum { TRACK_BOOT = 1, TRACK_GUEST, TRACK_WALL, TRACK_REALTIME };
enum { LABEL_DYNAMIC = 1, LABEL_STATIC, LABEL_NONE };
enum { AUDIO_NONE = 1, AUDIO_FILE };

typedef struct domain_def DomainDef;
void domain_def_free(DomainDef *def);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DomainDef, domain_def_free)

/*
 * XML text to a checked definition with libvirt's defaults filled in: UUID, MACs, controllers,
 * addresses.  XML_MODE_LIVE keeps what only a running machine has, DOMAIN_NEW leaves room for
 * devices to come where the definition says nothing of buses.
 */
enum { DOMAIN_NEW = 1 << 8 };
DomainDef *domain_def_parse(const char *text, unsigned mode, GError **error);
/* For a file of ours, whose contents were checked before: no defaults, quick. */
DomainDef *domain_def_load(const char *text, unsigned mode, GError **error);
char *domain_def_format(const DomainDef *def, unsigned mode);
DomainDef *domain_def_copy(const DomainDef *def);
/* domain_default.c: the steps of domain_def_parse() after reading. */
bool domain_def_fill(DomainDef *def, GError **error);
bool domain_def_check(const DomainDef *def, GError **error);
/* domain_check.c: parts of it. */
bool domain_check_cpu(const struct domain_cpu *cpu, GError **error);
bool domain_check_devices(const DomainDef *def, GError **error);
/* domain_address.c: gives addresses to devices that need one and lack it. */
bool domain_def_place(DomainDef *def, unsigned mode, GError **error);
/* domain_inactive.c: forgets what the host had chosen for a running machine: ports, terminals,
 * taps, sockets below @folder, where machines have theirs. */
void domain_def_forget_host(DomainDef *def, const char *folder);
/* That, and the names that the user has not given: what remains is a definition. */
void domain_def_inactive(DomainDef *def, const char *folder);
void domain_device_forget_alias(struct device_head *d);
/* Names for everything of a machine about to run. */
void domain_def_alias(DomainDef *def);

/* One device, the root element says which: its list and the new struct; NULL with an error. */
const struct device_list *domain_device_parse(const char *text, void **device, GError **error);
GPtrArray **domain_device_array(DomainDef *def, const struct device_list *list);
/* Calls for every device of @def that has DEVICE_FIELDS. */
void domain_each_device(DomainDef *def,
                        void (*each)(const struct xml_table *t, struct device_head *d, void *data),
                        void *data);

int64_t domain_modules(const DomainDef *def); /* KiB of <memory>'s devices, part of .memory */
/* domain_vcpu.c: which of the vCPUs there are, and which of those may go. */
unsigned domain_vcpus_online(const DomainDef *def);
bool domain_vcpu_online(const DomainDef *def, unsigned id);
bool domain_vcpu_removable(const DomainDef *def, unsigned id);
void domain_vcpu_set(DomainDef *def, unsigned id, bool online, bool removable);
void domain_vcpus_set(DomainDef *def, unsigned n, bool removable); /* so many of them */
void domain_vcpus_limit(DomainDef *def, unsigned n);               /* and at most */
bool domain_vcpus_fill(DomainDef *def, GError **error);            /* checks <vcpus>, too */

bool domain_is_q35(const DomainDef *def);
/* The boards of lodge-vm; a canonical name is what a short one stands for; the last has no name. */
struct domain_board {
    const char *name, *canonical;
    int max_cpus;
};
extern const struct domain_board domain_boards[];
/* The full name of a board, "pc" and "q35" stand for one; NULL: lodge-vm has none of that name. */
const char *domain_board(const char *name);
/* The name of a program for which lodge-vm stands in, QEMU's. */
bool domain_stands_for_ours(const char *program);
/* vda: how many'th on its bus; -1 if the name is none. */
int disk_index(const char *target);
struct domain_disk *domain_find_disk(const DomainDef *def, const char *target_or_source);
struct domain_interface *domain_find_interface(const DomainDef *def, const char *target_or_mac);
/* The file or device of a disk; NULL if it is empty or neither. */
const char *disk_path(const struct domain_disk *disk);
/* domain_check.c: passwdValidTo in seconds since 1970; -1 if it is no time. */
int64_t domain_valid_to(const char *text);
bool domain_check_keymaps(const DomainDef *def, GError **error);
bool domain_check_valid_to(const struct domain_graphics *g, GError **error); /* or has none */
bool mac_valid(const char *text);
char *mac_random(void);
