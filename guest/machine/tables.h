/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct numa;

/*
 * tables - ACPI tables and SMBIOS structures of a PC, made without knowing the machine:
 * from this description only.
 */
/* A PCI bus whose slots ACPI hot-plug fills and empties. */
struct hot_bus {
    int parent;     /* its bridge is on that bus of the list; -1: the root */
    uint8_t devfn;  /* of the bridge */
    uint32_t slots; /* a bit each */
};

struct pc_layout {
    bool q35;
    unsigned cpus, maxcpus;      /* present at first; firmware_cpus() tells the others */
    uint16_t cpus_port;          /* I/O port of the hot-plug registers; 0: none */
    uint16_t panic_port;         /* of pvpanic; 0: none */
    const uint32_t *apic_id;     /* of maxcpus processors */
    uint64_t ram_below_4g, ram_above_4g; /* bytes */
    unsigned dimm_slots;                 /* for memory modules that come and go */
    uint64_t dimm_at, dimm_bytes;        /* addresses that are kept for them */
    uint64_t hole64_at, hole64_bytes;    /* for 64-bit BARs */
    uint32_t ecam_at, ecam_bytes;        /* q35 */
    bool hpet, serial[4], parallel, floppy, keyboard, fw_cfg, s3, s4;
    const struct numa *numa; /* NULL: all lies equally close */
    const struct hot_bus *hot_buses; /* their place is their number: guest/device/acpi_pcihp.h */
    unsigned n_hot_buses;
    uint16_t pcihp_port; /* I/O port of their registers */
    GPtrArray *extra; /* of GBytes: tables of -acpitable, headers included; NULL: none */
};

enum { PM_BASE = 0x600, SCI_IRQ = 9, SMB_BASE = 0x700 };

/* A step of the script by which firmware, or acpi_install(), links the tables. */
enum link_op { LINK_ALLOCATE = 1, LINK_POINTER = 2, LINK_CHECKSUM = 3 };
struct link_step {
    enum link_op op;
    const char *file, *from; /* "etc/acpi/tables", "etc/acpi/rsdp" */
    uint32_t align, zone;    /* LINK_ALLOCATE; zone 1: anywhere, 2: below 1 MiB */
    uint32_t at, start, length; /* at: the pointer or checksum; start, length: checksummed */
    uint8_t bytes;           /* of the pointer */
};

struct acpi_tables {
    GByteArray *tables, *rsdp;
    unsigned madt_at, madt_cpus_at; /* where in .tables; the first processor's entry */
    unsigned maxcpus;
    bool installed; /* .tables are linked and have their checksums */
    GArray *links; /* of struct link_step */
};
#define ACPI_TABLES_FILE "etc/acpi/tables"
#define ACPI_RSDP_FILE "etc/acpi/rsdp"

struct acpi_tables *acpi_tables_new(const struct pc_layout *pc);
/* Says in @bytes, which are .tables or the firmware's copy that it will link, which of the maxcpus
 * processors are there. */
void acpi_tables_cpus(const struct acpi_tables *t, uint8_t *bytes, const bool present[]);
void acpi_tables_free(struct acpi_tables *t);
/* The script in the format of QEMU's fw_cfg file "etc/table-loader". */
GByteArray *acpi_loader_script(const struct acpi_tables *t);
/* Links the tables in place for the given addresses, as firmware would. */
void acpi_install(struct acpi_tables *t, uint64_t tables_at, uint64_t rsdp_at);

/* One table out of the arguments of -acpitable; NULL with an error. */
GBytes *acpi_table_from_option(const char *option, GError **error);

/*
 * SMBIOS: the structures and the entry point of version 2.8.  @options: -smbios arguments,
 * checked here.
 */
struct smbios_config {
    const char *product;  /* "Standard PC (i440FX + PIIX, 1996)" */
    const char *version;  /* "pc-i440fx-7.2" */
    const uint8_t *uuid;  /* 16 bytes, or NULL */
    const char *cpu_brand;
    uint64_t ram_bytes, ram_below_4g, ram_above_4g;
    unsigned sockets, cores_per_socket, threads_per_core;
    GPtrArray *options;
};
bool smbios_new(const struct smbios_config *config, GByteArray **tables, GByteArray **anchor,
                GError **error);
/* For a table area at @at, without firmware: fills address and checksums of the anchor. */
void smbios_install(GByteArray *anchor, uint64_t at);
