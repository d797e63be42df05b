/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of libvirt's domain XML: one row an attribute or text.  What has no row is refused
 * by its name, so a row stands here only when something comes of it.
 *
 * Spec: libvirt, "Domain XML format"; the RELAX NG schema domain.rng of libvirt 9.0.
 */
#include "manage/model/domain.h"

#include "manage/model/volume.h"

#include "manage/error.h"

#include <string.h>

#define WORDS XML_WORDS

WORDS(domain_type_words, "qemu", "kvm", XML_OTHERS, "kqemu", "xen", "lxc", "uml", "openvz", "test",
      "vmware", "hyperv", "vbox", "phyp", "vz", "bhyve", "hvf", "mshv");
WORDS(disk_device_words, "disk", "cdrom", "floppy", XML_OTHERS, "lun");
WORDS(disk_bus_words, "ide", "fdc", "scsi", "virtio", "usb", "sata", XML_OTHERS, "xen", "uml", "sd",
      "nvme");
WORDS(disk_cache_words, "default", "none", "writethrough", "writeback", "directsync", "unsafe");
WORDS(disk_io_words, "native", "threads", "io_uring");
WORDS(disk_discard_words, "unmap", "ignore");
WORDS(detect_zeroes_words, "off", "on", "unmap");
WORDS(error_policy_words, "stop", "report", "ignore", "enospace");
WORDS(snapshot_words, "no", "internal", "external", XML_OTHERS, "manual");
WORDS(boot_dev_words, "fd", "hd", "cdrom", "network");
WORDS(lifecycle_words, "destroy", "restart", "preserve", "rename-restart", "coredump-destroy",
      "coredump-restart");
WORDS(watchdog_action_words, "reset", "shutdown", "poweroff", "pause", "none", "dump",
      "inject-nmi");
WORDS(controller_type_words, "usb", "pci", "ide", "fdc", "scsi", "sata", "virtio-serial",
      XML_OTHERS, "ccid", "isa", "xenbus");
WORDS(controller_model_words, "pci-root", "pcie-root", "pcie-root-port", "qemu-xhci", "nec-xhci",
      "piix3-uhci", "ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3", "none", "virtio-scsi",
      "piix4-uhci", "ehci", "pci-bridge", "dmi-to-pci-bridge", "pcie-to-pci-bridge",
      "pcie-switch-upstream-port", "pcie-switch-downstream-port", XML_OTHERS, "auto", "buslogic",
      "lsilogic", "lsisas1068", "vmpvscsi", "ibmvscsi", "lsisas1078", "virtio-transitional",
      "virtio-non-transitional", "ncr53c90", "dc390", "am53c974", "vt82c686b-uhci", "pci-ohci",
      "qusb1", "qusb2", "piix3", "piix4", "ich6", "pci-expander-bus", "pcie-expander-bus",
      "virtio");
WORDS(video_type_words, "vga", "bochs", "virtio", "none", XML_OTHERS, "cirrus", "vmvga", "xen",
      "vbox", "gop", "ramfb", "qxl");
WORDS(char_type_words, "null", "vc", "pty", "dev", "file", "pipe", "stdio", "udp", "tcp", "unix",
      XML_OTHERS, "spicevmc", "spiceport", "nmdm", "qemu-vdagent", "dbus");
WORDS(iotune_words, "total_bytes_sec", "read_bytes_sec", "write_bytes_sec", "total_iops_sec",
      "read_iops_sec", "write_iops_sec", "total_bytes_sec_max", "read_bytes_sec_max",
      "write_bytes_sec_max", "total_iops_sec_max", "read_iops_sec_max", "write_iops_sec_max",
      "size_iops_sec", "total_bytes_sec_max_length", "read_bytes_sec_max_length",
      "write_bytes_sec_max_length", "total_iops_sec_max_length", "read_iops_sec_max_length",
      "write_iops_sec_max_length");

static WORDS(controller_name_words, "pcie-root-port", "pci-bridge", "i82801b11-bridge",
             "pcie-pci-bridge", "x3130-upstream", "xio3130-downstream", XML_OTHERS, "ioh3420",
             "pxb", "pxb-pcie", "spapr-pci-host-bridge");
static WORDS(serial_name_words, "isa-serial", "pci-serial", "isa-debugcon", XML_OTHERS,
             "usb-serial", "spapr-vty", "pl011", "16550a", "sclpconsole", "sclplmconsole");
static WORDS(address_words, "pci", "drive", "virtio-serial", "usb", "isa", "dimm", "unassigned",
             XML_OTHERS, "ccid", "spapr-vio", "ccw", "virtio-mmio", "mdev");
WORDS(disk_type_words, "file", "block", "network", "volume", XML_OTHERS, "dir", "nvme",
      "vhostuser");
static WORDS(disk_protocol_words, "nbd", "http", "https", "ftp", "ftps", "iscsi", "rbd", XML_OTHERS,
             "gluster", "sheepdog", "tftp", "nfs", "vxhs", "ssh");
static WORDS(pool_mode_words, "host", "direct");
static WORDS(startup_words, "mandatory", "requisite", "optional");
static WORDS(auth_words, "ceph", "iscsi");
static WORDS(transport_words, "tcp", "unix", "tls", XML_OTHERS, "rdma");
static WORDS(tray_words, "open", "closed");
static WORDS(job_words, "copy", "active-commit");
static WORDS(ready_words, "yes", "abort", "pivot");
static WORDS(interface_type_words, "network", "bridge", "user", "direct", "ethernet", XML_OTHERS,
             "vhostuser", "internal", "mcast", "client", "udp", "server", "hostdev", "vdpa", "null",
             "vds");
static WORDS(direct_mode_words, "vepa", "bridge", "private", "passthrough");
static WORDS(net_driver_words, "qemu", "vhost", XML_OTHERS, "kvm", "vfio", "xen");
static WORDS(link_words, "up", "down");
static WORDS(native_words, "tagged", "untagged");
static WORDS(proto_words, "tcp", "udp");
static WORDS(family_words, "ipv4", "ipv6");
static WORDS(source_mode_words, "bind", "connect");
static WORDS(protocol_words, "raw", "telnet", XML_OTHERS, "telnets", "tls");
WORDS(char_target_words, "isa-serial", "serial", "virtio", "pci-serial", "isa-debug", XML_OTHERS,
      "xen", "uml", "lxc", "openvz", "sclp", "sclplm", "usb-serial", "spapr-vio-serial",
      "system-serial", "sclp-serial", "guestfwd");
static WORDS(state_words, "connected", "disconnected");
static WORDS(input_words, "tablet", "mouse", "keyboard", XML_OTHERS, "passthrough", "evdev");
static WORDS(input_bus_words, "ps2", "usb", "virtio", XML_OTHERS, "xen");
static WORDS(graphics_words, "vnc", XML_OTHERS, "sdl", "spice", "rdp", "desktop", "egl-headless",
             "dbus");
static WORDS(listen_words, "address", "network", "socket", "none");
static WORDS(share_words, "allow-exclusive", "force-shared", "ignore");
static WORDS(sound_words, "ich6", "ich9", "ac97", "pcspk", XML_OTHERS, "sb16", "es1370", "usb",
             "ich7");
static WORDS(codec_words, "duplex", "micro", "output");
static WORDS(audio_words, "none", "file", XML_OTHERS, "dbus", "alsa", "coreaudio", "jack", "oss",
             "pulseaudio", "sdl", "spice");
static WORDS(watchdog_words, "i6300esb", "ib700", XML_OTHERS, "diag288", "itco");
static WORDS(balloon_words, "virtio", "none", XML_OTHERS, "virtio-transitional",
             "virtio-non-transitional", "xen");
static WORDS(rng_words, "virtio", XML_OTHERS, "virtio-transitional", "virtio-non-transitional");
static WORDS(rng_backend_words, "random", "builtin", XML_OTHERS, "egd");
static WORDS(memory_model_words, "dimm", XML_OTHERS, "nvdimm", "virtio-pmem", "virtio-mem",
             "sgx-epc");
static WORDS(panic_words, "isa", XML_OTHERS, "pseries", "hyperv", "s390", "pvpanic");
static WORDS(sysinfo_words, "smbios", "fwcfg");
static WORDS(smbios_words, "sysinfo", "emulate", "host");
static WORDS(firmware_words, "bios", "efi");
static WORDS(arch_words, "x86_64", "i686", XML_OTHERS, "ia64", "aarch64", "loongarch64", "alpha",
             "armv6l", "armv7l", "cris", "lm32", "m68k", "microblaze", "microblazeel", "mips",
             "mipsel", "mips64", "mips64el", "openrisc", "parisc", "parisc64", "ppc", "ppc64",
             "ppc64le", "ppcemb", "riscv32", "riscv64", "s390", "s390x", "sh4", "sh4eb", "sparc",
             "sparc64", "unicore32", "xtensa", "xtensaeb");
static WORDS(flash_words, "raw", XML_OTHERS, "qcow2");
static WORDS(address_mode_words, "emulate", "passthrough");
static WORDS(loader_words, "rom", "pflash");
static WORDS(cpu_mode_words, "custom", "host-model", "host-passthrough", "maximum");
static WORDS(match_words, "minimum", "exact", "strict");
static WORDS(check_words, "none", "partial", "full");
static WORDS(fallback_words, "allow", "forbid");
static WORDS(policy_words, "force", "require", "optional", "disable", "forbid");
static WORDS(cache_mode_words, "emulate", "passthrough", "disable");
static WORDS(offset_words, "utc", "localtime", "timezone", "variable", "absolute");
static WORDS(basis_words, "utc", "localtime");
static WORDS(timer_words, "rtc", "pit", "hpet", "tsc", "kvmclock", XML_OTHERS, "platform",
             "armvtimer", "hypervclock");
static WORDS(tick_words, "delay", "catchup", "merge", "discard");
static WORDS(track_words, "boot", "guest", "wall", "realtime");
static WORDS(placement_words, "static", "auto");
static WORDS(memory_source_words, "file", "anonymous", "memfd");
static WORDS(access_words, "shared", "private");
static WORDS(allocation_words, "immediate", "ondemand");
static WORDS(numatune_words, "strict", "preferred", "interleave", "restrictive");
static WORDS(label_type_words, "dynamic", "static", "none");

/* --- addresses: what they hold depends on their type --- */

#define A struct address
static const struct xml_row pci_rows[] = {
    XML_HEX(A, domain, "@domain", 4, 0xffff, 0),
    XML_HEX(A, bus, "@bus", 2, 0xff, 0),
    XML_HEX(A, slot, "@slot", 2, 0x1f, 0),
    XML_HEX(A, function, "@function", 1, 7, 0),
    XML_ONOFF(A, multifunction, "@multifunction", 0),
};
static const struct xml_row drive_rows[] = {
    XML_INT(A, controller, "@controller", 0),
    XML_INT(A, bus, "@bus", 0),
    XML_INT(A, target, "@target", 0),
    XML_INT(A, unit, "@unit", 0),
};
static const struct xml_row virtio_serial_rows[] = {
    XML_INT(A, controller, "@controller", 0),
    XML_INT(A, bus, "@bus", 0),
    XML_INT(A, port_number, "@port", 0),
};
static const struct xml_row usb_rows[] = {
    XML_INT(A, bus, "@bus", 0),
    XML_TEXT(A, port, "@port", 0),
};
static const struct xml_row isa_rows[] = {
    XML_HEX(A, iobase, "@iobase", 1, UINT16_MAX, 0),
    XML_HEX(A, irq, "@irq", 1, 15, 0),
};
static const struct xml_row dimm_rows[] = {
    XML_INT(A, slot, "@slot", 0),
    XML_HEX(A, base, "@base", 1, INT64_MAX, 0),
};
static const struct xml_row address_rows[] = {
    XML_INT(A, domain, "@domain", 0),
    XML_INT(A, bus, "@bus", 0),
    XML_INT(A, slot, "@slot", 0),
    XML_INT(A, function, "@function", 0),
    XML_INT(A, controller, "@controller", 0),
    XML_INT(A, target, "@target", 0),
    XML_INT(A, unit, "@unit", 0),
    XML_INT(A, port_number, "@number", 0),
    XML_TEXT(A, port, "@port", 0),
    XML_INT(A, iobase, "@iobase", 0),
    XML_INT(A, irq, "@irq", 0),
    XML_LONG(A, base, "@base", 0),
};
static const struct xml_table address_variants[] = {
    [ADDRESS_PCI] = XML_TABLE("address", A, pci_rows),
    [ADDRESS_DRIVE] = XML_TABLE("address", A, drive_rows),
    [ADDRESS_VIRTIO_SERIAL] = XML_TABLE("address", A, virtio_serial_rows),
    [ADDRESS_USB] = XML_TABLE("address", A, usb_rows),
    [ADDRESS_ISA] = XML_TABLE("address", A, isa_rows),
    [ADDRESS_DIMM] = XML_TABLE("address", A, dimm_rows),
    [ADDRESS_UNASSIGNED] = {.element = "address"},
};
const struct xml_table address_table = {
    .element = "address",
    .size = sizeof(A),
    .rows = address_rows,
    .n = G_N_ELEMENTS(address_rows),
    .by = "type",
    .by_offset = offsetof(A, type),
    .words = address_words,
    .variants = address_variants,
};
#undef A

#define ALIAS(type)   XML_TEXT(type, alias, "alias/@name", 0)
#define ADDRESS(type) XML_STRUCT(type, address, "address", &address_table, 0)

/* --- disks --- */

static const struct xml_row host_rows[] = {
    XML_TEXT(struct disk_host, name, "@name", 0),
    XML_RANGE(struct disk_host, port, "@port", 0, UINT16_MAX, 0),
    XML_ENUM(struct disk_host, transport, "@transport", transport_words, 0),
    XML_TEXT(struct disk_host, socket, "@socket", 0),
};
static const struct xml_table host_table = XML_TABLE("host", struct disk_host, host_rows);

static const struct xml_row auth_rows[] = {
    XML_TEXT(struct disk_auth, user, "@username", XML_REQUIRED),
    XML_WORD(struct disk_auth, secret_type, "secret/@type", auth_words, 0),
    XML_TEXT(struct disk_auth, secret_usage, "secret/@usage", 0),
    XML_TEXT(struct disk_auth, secret_uuid, "secret/@uuid", 0),
};
static const struct xml_table auth_table = XML_TABLE("auth", struct disk_auth, auth_rows);

#define S struct disk_source
static const struct xml_row source_rows[] = {
    XML_WORD(S, protocol, "@protocol", disk_protocol_words, 0),
    XML_TEXT(S, name, "@name", 0),
    XML_TEXT(S, file, "@file", 0),
    XML_TEXT(S, dev, "@dev", 0),
    XML_TEXT(S, pool, "@pool", 0),
    XML_TEXT(S, volume, "@volume", 0),
    XML_WORD(S, mode, "@mode", pool_mode_words, 0),
    XML_WORD(S, startup, "@startupPolicy", startup_words, 0),
    XML_INT(S, index, "@index", XML_LIVE),
    XML_YESNO(S, tls, "@tls", 0),
    XML_TEXT(S, tls_hostname, "@tlsHostname", 0),
    XML_LIST(S, hosts, "host", &host_table, 0),
    XML_STRUCT(S, auth, "auth", &auth_table, 0),
    XML_STRUCT(S, encryption, "encryption", &encryption_table, 0),
    XML_TEXT(S, initiator, "initiator/iqn/@name", 0),
    XML_TEXT(S, path, "", XML_OURS),
    XML_TEXT(S, access, "", XML_OURS),
};
#undef S
const struct xml_table disk_source_table = XML_TABLE("source", struct disk_source, source_rows);

#define B struct disk_backing

static const struct xml_row backing_rows[] = {
    XML_ENUM(B, type, "@type", disk_type_words, 0),
    XML_INT(B, index, "@index", XML_LIVE),
    XML_TEXT(B, format, "format/@type", 0),
    XML_STRUCT(B, source, "source", &disk_source_table, 0),
    XML_STRUCT(B, backing, "backingStore", &backing_table, 0),
};
const struct xml_table backing_table = XML_TABLE("backingStore", B, backing_rows);
#undef B

#define M struct disk_mirror
static const struct xml_row mirror_rows[] = {
    XML_ENUM(M, type, "@type", disk_type_words, 0),
    XML_TEXT(M, file, "@file", 0),
    XML_TEXT(M, file_format, "@format", 0),
    XML_ENUM(M, job, "@job", job_words, 0),
    XML_ENUM(M, ready, "@ready", ready_words, 0),
    XML_TEXT(M, format, "format/@type", 0),
    XML_STRUCT(M, source, "source", &disk_source_table, 0),
};
const struct xml_table mirror_table = XML_TABLE("mirror", M, mirror_rows);
#undef M

#define T(i, word) XML_LONG(struct iotune, v[i], word, 0)
static const struct xml_row iotune_rows[] = {
    T(0, "total_bytes_sec"),
    T(1, "read_bytes_sec"),
    T(2, "write_bytes_sec"),
    T(3, "total_iops_sec"),
    T(4, "read_iops_sec"),
    T(5, "write_iops_sec"),
    T(6, "total_bytes_sec_max"),
    T(7, "read_bytes_sec_max"),
    T(8, "write_bytes_sec_max"),
    T(9, "total_iops_sec_max"),
    T(10, "read_iops_sec_max"),
    T(11, "write_iops_sec_max"),
    T(12, "size_iops_sec"),
    XML_TEXT(struct iotune, group, "group_name", 0),
    T(13, "total_bytes_sec_max_length"),
    T(14, "read_bytes_sec_max_length"),
    T(15, "write_bytes_sec_max_length"),
    T(16, "total_iops_sec_max_length"),
    T(17, "read_iops_sec_max_length"),
    T(18, "write_iops_sec_max_length"),
};
#undef T
const struct xml_table iotune_table = XML_TABLE("iotune", struct iotune, iotune_rows);

#define D struct domain_disk
static const struct xml_row disk_rows[] = {
    XML_ENUM(D, type, "@type", disk_type_words, 0),
    XML_ENUM(D, device, "@device", disk_device_words, 0),
    XML_ENUM(D, snapshot, "@snapshot", snapshot_words, 0),
    XML_TEXT(D, driver_name, "driver/@name", 0),
    XML_TEXT(D, format, "driver/@type", 0),
    XML_ENUM(D, cache, "driver/@cache", disk_cache_words, 0),
    XML_ENUM(D, error_policy, "driver/@error_policy", error_policy_words, 0),
    XML_ENUM(D, rerror_policy, "driver/@rerror_policy", error_policy_words, 0),
    XML_ENUM(D, io, "driver/@io", disk_io_words, 0),
    XML_ONOFF(D, ioeventfd, "driver/@ioeventfd", 0),
    XML_ONOFF(D, event_idx, "driver/@event_idx", 0),
    XML_ONOFF(D, copy_on_read, "driver/@copy_on_read", 0),
    XML_ENUM(D, discard, "driver/@discard", disk_discard_words, 0),
    XML_INT(D, iothread, "driver/@iothread", 0),
    XML_ENUM(D, detect_zeroes, "driver/@detect_zeroes", detect_zeroes_words, 0),
    XML_INT(D, queues, "driver/@queues", 0),
    XML_INT(D, queue_size, "driver/@queue_size", 0),
    XML_STRUCT(D, auth, "auth", &auth_table, 0),
    XML_STRUCT(D, source, "source", &disk_source_table, 0),
    XML_STRUCT(D, backing, "backingStore", &backing_table, 0),
    XML_STRUCT(D, mirror, "mirror", &mirror_table, XML_LIVE),
    XML_INT(D, cylinders, "geometry/@cyls", 0),
    XML_INT(D, heads, "geometry/@heads", 0),
    XML_INT(D, track_sectors, "geometry/@secs", 0),
    XML_INT(D, logical_block, "blockio/@logical_block_size", 0),
    XML_INT(D, physical_block, "blockio/@physical_block_size", 0),
    XML_TEXT(D, target, "target/@dev", XML_REQUIRED),
    XML_ENUM(D, bus, "target/@bus", disk_bus_words, 0),
    XML_ENUM(D, tray, "target/@tray", tray_words, 0),
    XML_ONOFF(D, removable, "target/@removable", 0),
    XML_INT(D, rotation_rate, "target/@rotation_rate", 0),
    XML_STRUCT(D, iotune, "iotune", &iotune_table, 0),
    XML_FLAG(D, readonly, "readonly", 0),
    XML_FLAG(D, shareable, "shareable", 0),
    XML_FLAG(D, transient, "transient", 0),
    XML_TEXT(D, serial, "serial", 0),
    XML_TEXT(D, wwn, "wwn", 0),
    XML_TEXT(D, vendor, "vendor", 0),
    XML_TEXT(D, product, "product", 0),
    XML_INT(D, boot_order, "boot/@order", 0),
    XML_STRUCT(D, encryption, "encryption", &encryption_table, 0),
    ALIAS(D),
    ADDRESS(D),
};
const struct xml_table disk_table = XML_TABLE("disk", D, disk_rows);
#undef D

/* --- controllers --- */

#define C struct domain_controller
static const struct xml_row controller_rows[] = {
    XML_ENUM(C, type, "@type", controller_type_words, XML_REQUIRED),
    XML_INT(C, index, "@index", 0),
    XML_ENUM(C, model, "@model", controller_model_words, 0),
    XML_INT(C, ports, "@ports", 0),
    XML_INT(C, vectors, "@vectors", 0),
    XML_WORD(C, model_name, "model/@name", controller_name_words, 0),
    XML_RANGE(C, chassis_nr, "target/@chassisNr", 1, 255, 0),
    XML_RANGE(C, chassis, "target/@chassis", 0, 255, 0),
    XML_HEX(C, port, "target/@port", 1, 255, 0),
    XML_ONOFF(C, hotplug, "target/@hotplug", 0),
    XML_INT(C, master_startport, "master/@startport", 0),
    XML_INT(C, queues, "driver/@queues", 0),
    XML_INT(C, iothread, "driver/@iothread", 0),
    ALIAS(C),
    ADDRESS(C),
};
const struct xml_table controller_table = XML_TABLE("controller", C, controller_rows);
#undef C

/* --- interfaces --- */

static const struct xml_row parameter_rows[] = {
    XML_TEXT(struct filter_parameter, name, "@name", XML_REQUIRED),
    XML_TEXT(struct filter_parameter, value, "@value", XML_REQUIRED),
};
static const struct xml_table parameter_table =
    XML_TABLE("parameter", struct filter_parameter, parameter_rows);
static const struct xml_row tag_rows[] = {
    XML_INT(struct vlan_tag, id, "@id", XML_REQUIRED),
    XML_ENUM(struct vlan_tag, native, "@nativeMode", native_words, 0),
};
static const struct xml_table tag_table = XML_TABLE("tag", struct vlan_tag, tag_rows);
static const struct xml_row range_rows[] = {
    XML_INT(struct port_range, start, "@start", XML_REQUIRED),
    XML_INT(struct port_range, end, "@end", 0),
    XML_INT(struct port_range, to, "@to", 0),
    XML_YESNO(struct port_range, exclude, "@exclude", 0),
};
static const struct xml_table range_table = XML_TABLE("range", struct port_range, range_rows);
static const struct xml_row forward_rows[] = {
    XML_ENUM(struct port_forward, proto, "@proto", proto_words, XML_REQUIRED),
    XML_TEXT(struct port_forward, address, "@address", 0),
    XML_TEXT(struct port_forward, dev, "@dev", 0),
    XML_LIST(struct port_forward, ranges, "range", &range_table, 0),
};
static const struct xml_table forward_table =
    XML_TABLE("portForward", struct port_forward, forward_rows);
static const struct xml_row ip_rows[] = {
    XML_ENUM(struct interface_ip, family, "@family", family_words, 0),
    XML_TEXT(struct interface_ip, address, "@address", XML_REQUIRED),
    XML_INT(struct interface_ip, prefix, "@prefix", 0),
};
static const struct xml_table ip_table = XML_TABLE("ip", struct interface_ip, ip_rows);

#define I struct domain_interface
static const struct xml_row interface_rows[] = {
    XML_ENUM(I, type, "@type", interface_type_words, XML_REQUIRED),
    XML_TEXT(I, mac, "mac/@address", 0),
    XML_TEXT(I, network, "source/@network", 0),
    XML_TEXT(I, portgroup, "source/@portgroup", 0),
    XML_TEXT(I, port_id, "source/@portid", XML_LIVE),
    XML_TEXT(I, bridge, "source/@bridge", 0),
    XML_TEXT(I, dev, "source/@dev", 0),
    XML_ENUM(I, mode, "source/@mode", direct_mode_words, 0),
    XML_YESNO(I, vlan_trunk, "vlan/@trunk", 0),
    XML_LIST(I, tags, "vlan/tag", &tag_table, 0),
    XML_LIST(I, ips, "ip", &ip_table, 0),
    XML_LIST(I, forwards, "portForward", &forward_table, 0),
    XML_TEXT(I, target, "target/@dev", 0),
    XML_YESNO(I, target_managed, "target/@managed", 0),
    XML_YESNO(I, isolated, "port/@isolated", 0),
    XML_TEXT(I, filter, "filterref/@filter", 0),
    XML_LIST(I, filter_parameters, "filterref/parameter", &parameter_table, 0),
    XML_STRUCT(I, inbound, "bandwidth/inbound", &inbound_table, 0),
    XML_STRUCT(I, outbound, "bandwidth/outbound", &outbound_table, 0),
    XML_TEXT(I, model, "model/@type", 0),
    XML_ENUM(I, driver, "driver/@name", net_driver_words, 0),
    XML_INT(I, queues, "driver/@queues", 0),
    XML_INT(I, rx_queue_size, "driver/@rx_queue_size", 0),
    XML_INT(I, tx_queue_size, "driver/@tx_queue_size", 0),
    XML_ENUM(I, link, "link/@state", link_words, 0),
    XML_INT(I, mtu, "mtu/@size", 0),
    XML_INT(I, boot_order, "boot/@order", 0),
    XML_YESNO(I, rom_enabled, "rom/@enabled", 0),
    XML_TEXT(I, rom_file, "rom/@file", 0),
    ALIAS(I),
    ADDRESS(I),
};
const struct xml_table interface_table = XML_TABLE("interface", I, interface_rows);
#undef I

/* --- character devices --- */

static const struct xml_row char_source_rows[] = {
    XML_ENUM(struct char_source, mode, "@mode", source_mode_words, 0),
    XML_TEXT(struct char_source, path, "@path", 0),
    XML_TEXT(struct char_source, host, "@host", 0),
    XML_TEXT(struct char_source, service, "@service", 0),
    XML_ONOFF(struct char_source, append, "@append", 0),
};
const struct xml_table char_source_table =
    XML_TABLE("source", struct char_source, char_source_rows);

#define C struct domain_char
static const struct xml_row char_rows[] = {
    XML_ENUM(C, type, "@type", char_type_words, XML_REQUIRED),
    XML_TEXT(C, tty, "@tty", XML_LIVE),
    XML_LIST(C, sources, "source", &char_source_table, 0),
    XML_ENUM(C, protocol, "protocol/@type", protocol_words, 0),
    XML_TEXT(C, log_file, "log/@file", 0),
    XML_ONOFF(C, log_append, "log/@append", 0),
    XML_ENUM(C, target, "target/@type", char_target_words, 0),
    XML_TEXT(C, name, "target/@name", 0),
    XML_ENUM(C, state, "target/@state", state_words, XML_LIVE),
    XML_INT(C, port, "target/@port", 0),
    XML_WORD(C, target_model, "target/model/@name", serial_name_words, 0),
    ALIAS(C),
    ADDRESS(C),
};
const struct xml_table serial_table = XML_TABLE("serial", C, char_rows);
const struct xml_table parallel_table = XML_TABLE("parallel", C, char_rows);
const struct xml_table console_table = XML_TABLE("console", C, char_rows);
const struct xml_table channel_table = XML_TABLE("channel", C, char_rows);
#undef C

/* --- what a person sees and touches --- */

static const struct xml_row input_rows[] = {
    XML_ENUM(struct domain_input, type, "@type", input_words, XML_REQUIRED),
    XML_ENUM(struct domain_input, bus, "@bus", input_bus_words, 0),
    ALIAS(struct domain_input),
    ADDRESS(struct domain_input),
};
const struct xml_table input_table = XML_TABLE("input", struct domain_input, input_rows);

static const struct xml_row listen_rows[] = {
    XML_ENUM(struct graphics_listen, type, "@type", listen_words, XML_REQUIRED),
    XML_TEXT(struct graphics_listen, address, "@address", 0),
    XML_TEXT(struct graphics_listen, network, "@network", 0),
    XML_TEXT(struct graphics_listen, socket, "@socket", 0),
};
const struct xml_table graphics_listen_table =
    XML_TABLE("listen", struct graphics_listen, listen_rows);

#define G struct domain_graphics
static const struct xml_row graphics_rows[] = {
    XML_RANGE(G, port, "@port", -1, UINT16_MAX, 0),
    XML_YESNO(G, autoport, "@autoport", 0),
    XML_RANGE(G, websocket, "@websocket", -1, UINT16_MAX, 0),
    XML_TEXT(G, listen, "@listen", 0),
    XML_TEXT(G, socket, "@socket", 0),
    XML_TEXT(G, keymap, "@keymap", 0),
    XML_ENUM(G, share_policy, "@sharePolicy", share_words, 0),
    XML_TEXT(G, passwd, "@passwd", XML_SECRET),
    XML_TEXT(G, passwd_valid_to, "@passwdValidTo", XML_SECRET),
    XML_LIST(G, listens, "listen", &graphics_listen_table, 0),
};
static const struct xml_table graphics_variants[] = {
    [1] = XML_TABLE("graphics", G, graphics_rows),
};
const struct xml_table graphics_table = {
    .element = "graphics",
    .size = sizeof(G),
    .rows = graphics_rows,
    .n = G_N_ELEMENTS(graphics_rows),
    .by = "type",
    .by_offset = offsetof(G, type),
    .words = graphics_words,
    .variants = graphics_variants,
};
#undef G

static const struct xml_row codec_rows[] = {
    XML_ENUM(struct sound_codec, type, "@type", codec_words, XML_REQUIRED),
};
static const struct xml_table codec_table = XML_TABLE("codec", struct sound_codec, codec_rows);
static const struct xml_row sound_rows[] = {
    XML_WORD(struct domain_sound, model, "@model", sound_words, XML_REQUIRED),
    XML_LIST(struct domain_sound, codecs, "codec", &codec_table, 0),
    XML_INT(struct domain_sound, audio_id, "audio/@id", 0),
    ALIAS(struct domain_sound),
    ADDRESS(struct domain_sound),
};
const struct xml_table sound_table = XML_TABLE("sound", struct domain_sound, sound_rows);
static const struct xml_row audio_rows[] = {
    XML_INT(struct domain_audio, id, "@id", XML_REQUIRED),
    XML_ENUM(struct domain_audio, type, "@type", audio_words, XML_REQUIRED),
    XML_TEXT(struct domain_audio, path, "@path", 0),
};
const struct xml_table audio_table = XML_TABLE("audio", struct domain_audio, audio_rows);

#define V struct domain_video
static const struct xml_row video_rows[] = {
    XML_ENUM(V, type, "model/@type", video_type_words, 0),
    XML_INT(V, vram, "model/@vram", 0),
    XML_INT(V, vgamem, "model/@vgamem", 0),
    XML_INT(V, heads, "model/@heads", 0),
    XML_YESNO(V, primary, "model/@primary", 0),
    XML_INT(V, x, "model/resolution/@x", 0),
    XML_INT(V, y, "model/resolution/@y", 0),
    ALIAS(V),
    ADDRESS(V),
};
const struct xml_table video_table = XML_TABLE("video", V, video_rows);
#undef V

/* --- smaller devices --- */

static const struct xml_row watchdog_rows[] = {
    XML_ENUM(struct domain_watchdog, model, "@model", watchdog_words, XML_REQUIRED),
    XML_ENUM(struct domain_watchdog, action, "@action", watchdog_action_words, 0),
    ALIAS(struct domain_watchdog),
    ADDRESS(struct domain_watchdog),
};
const struct xml_table watchdog_table =
    XML_TABLE("watchdog", struct domain_watchdog, watchdog_rows);
static const struct xml_row balloon_rows[] = {
    XML_ENUM(struct domain_balloon, model, "@model", balloon_words, XML_REQUIRED),
    XML_ONOFF(struct domain_balloon, autodeflate, "@autodeflate", 0),
    XML_ONOFF(struct domain_balloon, reporting, "@freePageReporting", 0),
    XML_INT(struct domain_balloon, period, "stats/@period", 0),
    ALIAS(struct domain_balloon),
    ADDRESS(struct domain_balloon),
};
const struct xml_table balloon_table = XML_TABLE("memballoon", struct domain_balloon, balloon_rows);
static const struct xml_row rng_rows[] = {
    XML_ENUM(struct domain_rng, model, "@model", rng_words, XML_REQUIRED),
    XML_INT(struct domain_rng, rate_bytes, "rate/@bytes", 0),
    XML_INT(struct domain_rng, rate_period, "rate/@period", 0),
    XML_ENUM(struct domain_rng, backend_model, "backend/@model", rng_backend_words, XML_REQUIRED),
    XML_TEXT(struct domain_rng, backend, "backend", 0),
    ALIAS(struct domain_rng),
    ADDRESS(struct domain_rng),
};
const struct xml_table rng_table = XML_TABLE("rng", struct domain_rng, rng_rows);
static const struct xml_row memory_device_rows[] = {
    XML_ENUM(struct domain_memory_device, model, "@model", memory_model_words, XML_REQUIRED),
    XML_ENUM(struct domain_memory_device, access, "@access", access_words, 0),
    XML_TEXT(struct domain_memory_device, nodeset, "source/nodemask", 0),
    XML_SIZE(struct domain_memory_device, size, "target/size", 1024, XML_REQUIRED),
    XML_INT(struct domain_memory_device, node, "target/node", 0),
    ALIAS(struct domain_memory_device),
    ADDRESS(struct domain_memory_device),
};
const struct xml_table memory_device_table =
    XML_TABLE("memory", struct domain_memory_device, memory_device_rows);
static const struct xml_row panic_rows[] = {
    XML_ENUM(struct domain_panic, model, "@model", panic_words, 0),
    ALIAS(struct domain_panic),
    ADDRESS(struct domain_panic),
};
const struct xml_table panic_table = XML_TABLE("panic", struct domain_panic, panic_rows);

/* --- the machine as a whole --- */

static const struct xml_row boot_rows[] = {
    XML_ENUM(struct os_boot, dev, "@dev", boot_dev_words, XML_REQUIRED),
};
static const struct xml_table boot_table = XML_TABLE("boot", struct os_boot, boot_rows);

static const struct xml_row entry_rows[] = {
    XML_TEXT(struct sysinfo_entry, name, "@name", XML_REQUIRED),
    XML_TEXT(struct sysinfo_entry, value, ".", 0),
};
static const struct xml_row oem_rows[] = {XML_TEXT(struct sysinfo_entry, value, ".", 0)};
static const struct xml_table oem_table = XML_TABLE("entry", struct sysinfo_entry, oem_rows);
static const struct xml_row file_rows[] = {
    XML_TEXT(struct sysinfo_entry, name, "@name", XML_REQUIRED),
    XML_TEXT(struct sysinfo_entry, file, "@file", 0),
    XML_TEXT(struct sysinfo_entry, value, ".", 0),
};
static const struct xml_table file_table = XML_TABLE("entry", struct sysinfo_entry, file_rows);
static const struct xml_table entry_table = XML_TABLE("entry", struct sysinfo_entry, entry_rows);
static const struct xml_row sysinfo_rows[] = {
    XML_ENUM(struct domain_sysinfo, type, "@type", sysinfo_words, XML_REQUIRED),
    XML_LIST(struct domain_sysinfo, bios, "bios/entry", &entry_table, 0),
    XML_LIST(struct domain_sysinfo, system, "system/entry", &entry_table, 0),
    XML_LIST(struct domain_sysinfo, base_board, "baseBoard/entry", &entry_table, 0),
    XML_LIST(struct domain_sysinfo, chassis, "chassis/entry", &entry_table, 0),
    XML_LIST(struct domain_sysinfo, oem, "oemStrings/entry", &oem_table, 0),
    XML_LIST(struct domain_sysinfo, files, "entry", &file_table, 0),
};
static const struct xml_table sysinfo_table =
    XML_TABLE("sysinfo", struct domain_sysinfo, sysinfo_rows);

static const struct xml_row feature_rows[] = {
    XML_ENUM(struct cpu_feature, policy, "@policy", policy_words, 0),
    XML_TEXT(struct cpu_feature, name, "@name", XML_REQUIRED),
};
static const struct xml_table feature_table =
    XML_TABLE("feature", struct cpu_feature, feature_rows);
static const struct xml_row firmware_rows[] = {
    XML_YESNO(struct firmware_feature, enabled, "@enabled", XML_REQUIRED),
    XML_TEXT(struct firmware_feature, name, "@name", XML_REQUIRED),
};
static const struct xml_table firmware_table =
    XML_TABLE("feature", struct firmware_feature, firmware_rows);
static const struct xml_row distance_rows[] = {
    XML_INT(struct cell_distance, id, "@id", XML_REQUIRED),
    XML_INT(struct cell_distance, value, "@value", XML_REQUIRED),
};
static const struct xml_table distance_table =
    XML_TABLE("sibling", struct cell_distance, distance_rows);
static const struct xml_row cell_rows[] = {
    XML_INT(struct cpu_cell, id, "@id", 0),
    XML_TEXT(struct cpu_cell, cpus, "@cpus", 0),
    XML_LONG(struct cpu_cell, memory, "@memory", XML_REQUIRED),
    XML_TEXT(struct cpu_cell, unit, "@unit", 0),
    XML_ENUM(struct cpu_cell, access, "@memAccess", access_words, 0),
    XML_LIST(struct cpu_cell, distances, "distances/sibling", &distance_table, 0),
};
static const struct xml_table cell_table = XML_TABLE("cell", struct cpu_cell, cell_rows);
#define C struct domain_cpu
static const struct xml_row cpu_rows[] = {
    XML_ENUM(C, mode, "@mode", cpu_mode_words, 0),
    XML_ENUM(C, match, "@match", match_words, 0),
    XML_ENUM(C, check, "@check", check_words, 0),
    XML_ONOFF(C, migratable, "@migratable", 0),
    XML_ENUM(C, fallback, "model/@fallback", fallback_words, 0),
    XML_TEXT(C, model, "model", 0),
    XML_TEXT(C, vendor, "vendor", 0),
    XML_INT(C, sockets, "topology/@sockets", 0),
    XML_INT(C, dies, "topology/@dies", 0),
    XML_INT(C, clusters, "topology/@clusters", 0),
    XML_INT(C, cores, "topology/@cores", 0),
    XML_INT(C, threads, "topology/@threads", 0),
    XML_INT(C, cache_level, "cache/@level", 0),
    XML_ENUM(C, cache_mode, "cache/@mode", cache_mode_words, 0),
    XML_ENUM(C, address_mode, "maxphysaddr/@mode", address_mode_words, 0),
    XML_INT(C, address_bits, "maxphysaddr/@bits", 0),
    XML_LIST(C, features, "feature", &feature_table, 0),
    XML_LIST(C, cells, "numa/cell", &cell_table, 0),
};
#undef C
static const struct xml_table cpu_table = XML_TABLE("cpu", struct domain_cpu, cpu_rows);

static const struct xml_row timer_rows[] = {
    XML_ENUM(struct clock_timer, name, "@name", timer_words, XML_REQUIRED),
    XML_YESNO(struct clock_timer, present, "@present", 0),
    XML_ENUM(struct clock_timer, tickpolicy, "@tickpolicy", tick_words, 0),
    XML_ENUM(struct clock_timer, track, "@track", track_words, 0),
    XML_LONG(struct clock_timer, frequency, "@frequency", 0),
};
static const struct xml_table timer_table = XML_TABLE("timer", struct clock_timer, timer_rows);

static const struct xml_row page_rows[] = {
    XML_LONG(struct huge_page, size, "@size", XML_REQUIRED),
    XML_TEXT(struct huge_page, unit, "@unit", 0),
    XML_TEXT(struct huge_page, nodeset, "@nodeset", 0),
};
static const struct xml_table page_table = XML_TABLE("page", struct huge_page, page_rows);
static const struct xml_row vcpu_rows[] = {
    XML_INT(struct vcpu_state, id, "@id", XML_REQUIRED),
    XML_YESNO(struct vcpu_state, enabled, "@enabled", XML_REQUIRED),
    XML_YESNO(struct vcpu_state, hotpluggable, "@hotpluggable", 0),
    XML_INT(struct vcpu_state, order, "@order", 0),
};
static const struct xml_table vcpu_table = XML_TABLE("vcpu", struct vcpu_state, vcpu_rows);
static const struct xml_row pin_rows[] = {
    XML_INT(struct vcpu_pin, vcpu, "@vcpu", XML_REQUIRED),
    XML_TEXT(struct vcpu_pin, cpuset, "@cpuset", XML_REQUIRED),
};
static const struct xml_table pin_table = XML_TABLE("vcpupin", struct vcpu_pin, pin_rows);
static const struct xml_row iothread_rows[] = {
    XML_INT(struct iothread_id, id, "@id", XML_REQUIRED),
};
static const struct xml_table iothread_table =
    XML_TABLE("iothread", struct iothread_id, iothread_rows);
static const struct xml_row iothread_pin_rows[] = {
    XML_INT(struct iothread_pin, iothread, "@iothread", XML_REQUIRED),
    XML_TEXT(struct iothread_pin, cpuset, "@cpuset", XML_REQUIRED),
};
static const struct xml_table iothread_pin_table =
    XML_TABLE("iothreadpin", struct iothread_pin, iothread_pin_rows);
static const struct xml_row blkio_rows[] = {
    XML_TEXT(struct blkio_device, path, "path", XML_REQUIRED),
    XML_INT(struct blkio_device, weight, "weight", 0),
    XML_INT(struct blkio_device, read_iops, "read_iops_sec", 0),
    XML_INT(struct blkio_device, write_iops, "write_iops_sec", 0),
    XML_LONG(struct blkio_device, read_bytes, "read_bytes_sec", 0),
    XML_LONG(struct blkio_device, write_bytes, "write_bytes_sec", 0),
};
static const struct xml_table blkio_table = XML_TABLE("device", struct blkio_device, blkio_rows);
static const struct xml_row label_rows[] = {
    XML_ENUM(struct domain_label, type, "@type", label_type_words, 0),
    XML_TEXT(struct domain_label, model, "@model", 0),
    XML_YESNO(struct domain_label, relabel, "@relabel", 0),
    XML_TEXT(struct domain_label, label, "label", 0),
    XML_TEXT(struct domain_label, image_label, "imagelabel", 0),
};
static const struct xml_table label_table = XML_TABLE("seclabel", struct domain_label, label_rows);

static const struct xml_row argument_rows[] = {
    XML_TEXT(struct qemu_argument, value, "@value", XML_REQUIRED),
};
static const struct xml_table argument_table =
    XML_TABLE("qemu:arg", struct qemu_argument, argument_rows);
static const struct xml_row variable_rows[] = {
    XML_TEXT(struct qemu_variable, name, "@name", XML_REQUIRED),
    XML_TEXT(struct qemu_variable, value, "@value", 0),
};
static const struct xml_table variable_table =
    XML_TABLE("qemu:env", struct qemu_variable, variable_rows);

static const struct xml_row memnode_rows[] = {
    XML_INT(struct numa_memnode, cell, "@cellid", XML_REQUIRED),
    XML_ENUM(struct numa_memnode, mode, "@mode", numatune_words, XML_REQUIRED),
    XML_TEXT(struct numa_memnode, nodeset, "@nodeset", XML_REQUIRED),
};
static const struct xml_table memnode_table =
    XML_TABLE("memnode", struct numa_memnode, memnode_rows);

#define D struct domain_def
static const struct xml_row domain_rows[] = {
    XML_ENUM(D, type, "@type", domain_type_words, XML_REQUIRED),
    XML_INT(D, id, "@id", XML_LIVE),
    XML_TEXT(D, name, "name", XML_REQUIRED),
    XML_TEXT(D, uuid, "uuid", 0),
    XML_TEXT(D, title, "title", 0),
    XML_TEXT(D, description, "description", 0),
    XML_RAW(D, metadata, "metadata", 0),
    XML_INT(D, memory_slots, "maxMemory/@slots", 0),
    XML_SIZE(D, max_memory, "maxMemory", 1024, 0),
    XML_ONOFF(D, dump_core, "memory/@dumpCore", 0),
    XML_SIZE(D, memory, "memory", 1024, XML_REQUIRED),
    XML_SIZE(D, current_memory, "currentMemory", 1024, 0),
    XML_FLAG(D, hugepages, "memoryBacking/hugepages", 0),
    XML_LIST(D, pages, "memoryBacking/hugepages/page", &page_table, 0),
    XML_FLAG(D, nosharepages, "memoryBacking/nosharepages", 0),
    XML_FLAG(D, locked, "memoryBacking/locked", 0),
    XML_ENUM(D, memory_source, "memoryBacking/source/@type", memory_source_words, 0),
    XML_ENUM(D, memory_access, "memoryBacking/access/@mode", access_words, 0),
    XML_ENUM(D, memory_allocation, "memoryBacking/allocation/@mode", allocation_words, 0),
    XML_FLAG(D, discard_memory, "memoryBacking/discard", 0),
    XML_INT(D, blkio_weight, "blkiotune/weight", 0),
    XML_LIST(D, blkio_devices, "blkiotune/device", &blkio_table, 0),
    XML_SIZE(D, hard_limit, "memtune/hard_limit", 1024, 0),
    XML_SIZE(D, soft_limit, "memtune/soft_limit", 1024, 0),
    XML_SIZE(D, swap_hard_limit, "memtune/swap_hard_limit", 1024, 0),
    XML_ENUM(D, vcpu_placement, "vcpu/@placement", placement_words, 0),
    XML_TEXT(D, vcpu_cpuset, "vcpu/@cpuset", 0),
    XML_INT(D, current_vcpus, "vcpu/@current", 0),
    XML_INT(D, vcpus, "vcpu", 0),
    XML_LIST(D, vcpu_states, "vcpus/vcpu", &vcpu_table, 0),
    XML_INT(D, iothreads, "iothreads", 0),
    XML_LIST(D, iothread_ids, "iothreadids/iothread", &iothread_table, 0),
    XML_LONG(D, cpu_shares, "cputune/shares", 0),
    XML_LONG(D, cpu_period, "cputune/period", 0),
    XML_RANGE(D, cpu_quota, "cputune/quota", -INT64_MAX, INT64_MAX, 0),
    XML_LONG(D, global_period, "cputune/global_period", 0),
    XML_RANGE(D, global_quota, "cputune/global_quota", -INT64_MAX, INT64_MAX, 0),
    XML_LONG(D, emulator_period, "cputune/emulator_period", 0),
    XML_RANGE(D, emulator_quota, "cputune/emulator_quota", -INT64_MAX, INT64_MAX, 0),
    XML_LIST(D, vcpu_pins, "cputune/vcpupin", &pin_table, 0),
    XML_TEXT(D, emulator_pin, "cputune/emulatorpin/@cpuset", 0),
    XML_LIST(D, iothread_pins, "cputune/iothreadpin", &iothread_pin_table, 0),
    XML_ENUM(D, numatune_mode, "numatune/memory/@mode", numatune_words, 0),
    XML_ENUM(D, numatune_placement, "numatune/memory/@placement", placement_words, 0),
    XML_TEXT(D, numatune_nodeset, "numatune/memory/@nodeset", 0),
    XML_LIST(D, memnodes, "numatune/memnode", &memnode_table, 0),
    XML_TEXT(D, partition, "resource/partition", 0),
    XML_LIST(D, sysinfos, "sysinfo", &sysinfo_table, 0),
    XML_ENUM(D, firmware, "os/@firmware", firmware_words, 0),
    XML_ENUM(D, os_arch, "os/type/@arch", arch_words, 0),
    XML_TEXT(D, machine, "os/type/@machine", 0),
    XML_TEXT(D, os_type, "os/type", XML_REQUIRED),
    XML_LIST(D, firmware_features, "os/firmware/feature", &firmware_table, 0),
    XML_YESNO(D, loader_readonly, "os/loader/@readonly", 0),
    XML_YESNO(D, loader_secure, "os/loader/@secure", 0),
    XML_ENUM(D, loader_type, "os/loader/@type", loader_words, 0),
    XML_ENUM(D, loader_format, "os/loader/@format", flash_words, 0),
    XML_TEXT(D, loader, "os/loader", 0),
    XML_TEXT(D, nvram_template, "os/nvram/@template", 0),
    XML_ENUM(D, template_format, "os/nvram/@templateFormat", flash_words, 0),
    XML_ENUM(D, nvram_format, "os/nvram/@format", flash_words, 0),
    XML_TEXT(D, nvram, "os/nvram", 0),
    XML_TEXT(D, kernel, "os/kernel", 0),
    XML_TEXT(D, initrd, "os/initrd", 0),
    XML_TEXT(D, cmdline, "os/cmdline", 0),
    XML_LIST(D, boots, "os/boot", &boot_table, 0),
    XML_YESNO(D, boot_menu, "os/bootmenu/@enable", 0),
    XML_INT(D, boot_menu_timeout, "os/bootmenu/@timeout", 0),
    XML_YESNO(D, bios_useserial, "os/bios/@useserial", 0),
    XML_RANGE(D, reboot_timeout, "os/bios/@rebootTimeout", INT32_MIN, INT32_MAX, 0),
    XML_ENUM(D, smbios_mode, "os/smbios/@mode", smbios_words, 0),
    XML_FLAG(D, has_features, "features", 0),
    XML_FLAG(D, acpi, "features/acpi", 0),
    XML_FLAG(D, apic, "features/apic", 0),
    XML_ONOFF(D, apic_eoi, "features/apic/@eoi", 0),
    XML_FLAG(D, pae, "features/pae", 0),
    XML_ONOFF(D, kvm_hidden, "features/kvm/hidden/@state", 0),
    XML_ONOFF(D, pmu, "features/pmu/@state", 0),
    XML_ONOFF(D, vmport, "features/vmport/@state", 0),
    XML_ONOFF(D, smm, "features/smm/@state", 0),
    XML_ONOFF(D, vmcoreinfo, "features/vmcoreinfo/@state", 0),
    XML_STRUCT(D, cpu, "cpu", &cpu_table, 0),
    XML_ENUM(D, clock_offset, "clock/@offset", offset_words, 0),
    XML_TEXT(D, clock_adjustment, "clock/@adjustment", 0),
    XML_ENUM(D, clock_basis, "clock/@basis", basis_words, 0),
    XML_TEXT(D, clock_timezone, "clock/@timezone", 0),
    XML_TEXT(D, clock_start, "clock/@start", 0),
    XML_LIST(D, timers, "clock/timer", &timer_table, 0),
    XML_ENUM(D, on_poweroff, "on_poweroff", lifecycle_words, 0),
    XML_ENUM(D, on_reboot, "on_reboot", lifecycle_words, 0),
    XML_ENUM(D, on_crash, "on_crash", lifecycle_words, 0),
    XML_YESNO(D, suspend_to_mem, "pm/suspend-to-mem/@enabled", 0),
    XML_YESNO(D, suspend_to_disk, "pm/suspend-to-disk/@enabled", 0),
    XML_TEXT(D, emulator, "devices/emulator", 0),
    XML_LIST(D, disks, "devices/disk", &disk_table, 0),
    XML_LIST(D, controllers, "devices/controller", &controller_table, 0),
    XML_LIST(D, interfaces, "devices/interface", &interface_table, 0),
    XML_LIST(D, serials, "devices/serial", &serial_table, 0),
    XML_LIST(D, parallels, "devices/parallel", &parallel_table, 0),
    XML_LIST(D, consoles, "devices/console", &console_table, 0),
    XML_LIST(D, channels, "devices/channel", &channel_table, 0),
    XML_LIST(D, inputs, "devices/input", &input_table, 0),
    XML_LIST(D, graphics, "devices/graphics", &graphics_table, 0),
    XML_LIST(D, sounds, "devices/sound", &sound_table, 0),
    XML_LIST(D, audios, "devices/audio", &audio_table, 0),
    XML_LIST(D, videos, "devices/video", &video_table, 0),
    XML_STRUCT(D, watchdog, "devices/watchdog", &watchdog_table, 0),
    XML_STRUCT(D, balloon, "devices/memballoon", &balloon_table, 0),
    XML_LIST(D, rngs, "devices/rng", &rng_table, 0),
    XML_LIST(D, memory_devices, "devices/memory", &memory_device_table, 0),
    XML_LIST(D, panics, "devices/panic", &panic_table, 0),
    XML_LIST(D, labels, "seclabel", &label_table, 0),
    XML_LIST(D, qemu_arguments, "qemu:commandline/qemu:arg", &argument_table, 0),
    XML_LIST(D, qemu_variables, "qemu:commandline/qemu:env", &variable_table, 0),
};
const struct xml_table domain_table = XML_TABLE("domain", D, domain_rows);
const struct xml_table inactive_domain_table = XML_TABLE("inactiveDomain", D, domain_rows);

#define LIST(field, t, ...)                                                                        \
    {                                                                                              \
        .table = &(t), .offset = offsetof(D, field), ##__VA_ARGS__                                 \
    }
const struct device_list device_lists[] = {
    LIST(disks, disk_table, .placed = true),
    LIST(controllers, controller_table, .placed = true),
    LIST(interfaces, interface_table, .placed = true),
    LIST(serials, serial_table, .placed = true),
    LIST(parallels, parallel_table, .placed = true),
    LIST(consoles, console_table, .placed = true),
    LIST(channels, channel_table, .placed = true),
    LIST(inputs, input_table, .placed = true),
    LIST(graphics, graphics_table),
    LIST(sounds, sound_table, .placed = true),
    LIST(audios, audio_table),
    LIST(videos, video_table, .placed = true),
    LIST(watchdog, watchdog_table, .single = true, .placed = true),
    LIST(balloon, balloon_table, .single = true, .placed = true),
    LIST(rngs, rng_table, .placed = true),
    LIST(memory_devices, memory_device_table, .placed = true),
    LIST(panics, panic_table, .placed = true),
};
const unsigned device_list_count = G_N_ELEMENTS(device_lists);
#undef LIST
#undef D

/* --- the door --- */

void domain_def_free(DomainDef *def)
{
    xml_free(&domain_table, def);
}

static void drop_empty(char **text)
{
    if (*text && !**text) {
        g_clear_pointer(text, g_free);
    }
}

/* A drive without a medium is often said so. */
static void drop_no_medium(struct domain_disk *disk)
{
    if (disk->source) {
        drop_empty(&disk->source->file);
        drop_empty(&disk->source->dev);
    }
}

/* As libvirt, which takes these for absent when they are empty: programs write them from templates.
 */
static void drop_no_texts(DomainDef *def)
{
    char **const texts[] = {&def->uuid,     &def->title,  &def->description,
                            &def->emulator, &def->loader, &def->nvram,
                            &def->kernel,   &def->initrd, &def->cmdline};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        drop_empty(texts[i]);
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        drop_no_medium(def->disks->pdata[i]);
    }
    for (unsigned i = 0; i < xml_count(def->rngs); i++) {
        drop_empty(&((struct domain_rng *)def->rngs->pdata[i])->backend);
    }
}

DomainDef *domain_def_load(const char *text, unsigned mode, GError **error)
{
    DomainDef *def = xml_read_text(&domain_table, text, "domain_definition", mode, error);
    if (def) {
        drop_no_texts(def);
    }
    return def;
}

DomainDef *domain_def_parse(const char *text, unsigned mode, GError **error)
{
    g_autoptr(DomainDef) def = domain_def_load(text, mode, error);
    if (!def || !domain_def_fill(def, error) || !domain_def_check(def, error) ||
        ((mode & DOMAIN_NEW) && !domain_check_keymaps(def, error)) ||
        !domain_def_place(def, mode, error)) {
        return NULL;
    }
    return g_steal_pointer(&def);
}

char *domain_def_format(const DomainDef *def, unsigned mode)
{
    return xml_write_text(&domain_table, def, mode);
}

DomainDef *domain_def_copy(const DomainDef *def)
{
    return xml_copy(&domain_table, def);
}

GPtrArray **domain_device_array(DomainDef *def, const struct device_list *list)
{
    return (GPtrArray **)(void *)((char *)def + list->offset);
}

const struct device_list *domain_device_parse(const char *text, void **device, GError **error)
{
    g_autoptr(xmlDoc) doc = xml_parse(text, "device_definition", NULL, error);
    if (!doc) {
        return NULL;
    }
    const xmlNode *root = xmlDocGetRootElement(doc);
    for (unsigned i = 0; i < device_list_count; i++) {
        const struct device_list *list = &device_lists[i];
        if (strcmp((const char *)root->name, list->table->element) == 0) {
            *device = xml_read(list->table, root, 0, error);
            if (*device && list->table == &disk_table) {
                drop_no_medium(*device);
            }
            return *device ? list : NULL;
        }
    }
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "device <%s> is not supported",
                  (const char *)root->name);
    return NULL;
}

void domain_each_device(DomainDef *def,
                        void (*each)(const struct xml_table *t, struct device_head *d, void *data),
                        void *data)
{
    for (unsigned i = 0; i < device_list_count; i++) {
        const struct device_list *list = &device_lists[i];
        void **at = (void **)domain_device_array(def, list);
        if (!list->placed || !*at) {
            continue;
        }
        GPtrArray *items = list->single ? NULL : *at;
        for (unsigned k = 0; k < (items ? items->len : 1); k++) {
            each(list->table, items ? items->pdata[k] : *at, data);
        }
    }
}
