/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/machine/load.h"
#include "guest/machine/machine.h"
#include "guest/machine/tables.h"

/*
 * What the files of this folder share: the machine behind a board, the parts that "pc" and
 * "q35" have in common, and the loader for kernels that start without firmware.
 */
struct memory_range {
    uint64_t at, bytes;
    uint32_t type; /* 1 RAM, 2 reserved: as in E820 */
};
enum { Q35_ECAM_BYTES = 256 << 20 };
#define Q35_ECAM_AT 0xb0000000u
enum { E820_RAM = 1, E820_RESERVED = 2, E820_MAX = 16 };

struct machine {
    struct board *board;
    const struct machine_model *model;
    struct machine_config config;
    bool q35, kvm, split_irqchip, smm;
    uint64_t below_4g, above_4g; /* bytes of RAM; below_4g is where it ends, too */
    uint32_t *apic_ids;          /* of maxcpus vCPUs */
    const struct vcpu_board *vcpu_board;
    struct ram *ram, *bios, *isa_bios;
    struct region ram_640k, ram_low, ram_high, bios_region, isa_bios_region;
    struct irq line[24];         /* to PIC and I/O APIC at once */
    struct irq *pic_in[16], *ioapic_in[24];
    struct cpu_model *cpu_model;
    struct memory_range e820[E820_MAX];
    unsigned n_e820;
    bool direct_wanted;          /* -kernel without firmware */
    struct direct_boot *direct;  /* NULL: the firmware boots */
    struct direct_boot *firmware_kernel; /* -kernel through the firmware */
    struct region kernel_port;
    struct acpi_tables *acpi;
    uint64_t tables_at, smbios_at; /* in guest memory, if there is no firmware */
    GByteArray *smbios, *smbios_anchor;
    uint8_t uuid[16];
    bool has_uuid, booted;
};

struct machine *machine_of(struct board *board);
/* Text of property @name of -M, or @otherwise. */
const char *machine_prop(const struct machine *m, const char *name, const char *otherwise);
bool machine_prop_bool(const struct machine *m, const char *name, bool otherwise, bool *out,
                       GError **error);

/* ---- machine.c ---- */
/* Makes device @model at @path from "key", "value" texts that end with NULL. */
struct device *pc_device(struct machine *m, const char *model, const char *path, GError **error,
                         ...) G_GNUC_NULL_TERMINATED;
/* The same in two steps, for wires and backends between them. */
struct device *pc_device_new(const char *model, GError **error);

/* ---- pc_memory.c ---- */
/* Where RAM, and what may become RAM, ends: a multiple of 1 GiB from 4 GiB on. */
uint64_t pc_memory_end(const struct machine *m);
/* RAM: below @gap_at if all of it fits there, else split at @split_at. */
bool pc_memory(struct machine *m, uint64_t gap_at, uint64_t split_at, GError **error);
/* The firmware ROM (-bios, or @file) or flash below 4 GiB, and its end below 1 MiB. */
bool pc_firmware(struct machine *m, const char *file, GError **error);
void e820_add(struct machine *m, uint64_t at, uint64_t bytes, uint32_t type);

/* ---- pc_parts.c ---- */
/* What comes first on every PC: options, RAM, firmware, processors. */
bool pc_begin(struct machine *m, uint64_t gap_at, uint64_t split_at, GError **error);
/* IDE or AHCI with the drives of -hda and so on, floppies. */
bool pc_drives(struct machine *m, GError **error);
/* Interrupt controllers, vCPUs with their local APICs. */
bool pc_cpus(struct machine *m, GError **error);
/* By ACPI: who says to the guest that something came. */
bool pc_hot_plug(struct machine *m, GError **error);
/* Is processor @index there, and will it be when the guest looks? */
bool pc_cpu_present(const struct machine *m, unsigned index);
/* Clock, timers, serial and parallel ports, keyboard, fw_cfg ... */
bool pc_isa_devices(struct machine *m, GError **error);
/* The screen of -vga, in slot @addr. */
bool pc_screen(struct machine *m, const char *addr, GError **error);
/* Connects wires "irq0" to "irq15" of @dev to the ISA interrupts. */
bool pc_connect_isa_irqs(struct machine *m, struct device *dev, GError **error);

/* ---- pc_finish.c ---- */
/* ACPI, SMBIOS, memory map; the kernel of -kernel, or what the firmware wants to know. */
bool pc_finish(struct board *board, GError **error);
/* Direct boot: sets up the chipset as firmware would, and enters the kernel. */
void pc_direct_boot(struct machine *m);
/* The same after S3, at the guest's own waking vector. */
void pc_direct_wake(struct machine *m);

/* ---- firmware.c ---- */
/* fw_cfg and CMOS. */
bool firmware_prepare(struct machine *m, GError **error);
/* How many processors there are, after a reset. */
void firmware_cpus(struct machine *m);
/* -boot once= counts until the first reset after the start. */
void firmware_boot_order(struct machine *m);

/* ---- vga_text.c ---- */
/* False if there is no VGA or its BIOS has no characters. */
bool vga_text_mode(struct machine *m);

/* ---- linuxboot.c ---- */
/* Gives the kernel of -kernel to the firmware. */
bool linuxboot_add(struct machine *m, GError **error);

/* ---- load.c ---- */
/* Places kernel, tables and initrd in memory and sets the boot processor. */
void direct_boot_go(struct machine *m);
/* The same for .firmware_kernel, up to a stub that firmware's last jump goes to. */
void direct_boot_behind_firmware(struct machine *m);
/* The firmware's tables lie at the end of low RAM: what is loaded must stay below. */
enum { FIRMWARE_BYTES = 1 << 20 };
