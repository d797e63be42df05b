/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/models.h"
#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"
#include "guest/machine/numa.h"

/*
 * machine - boards by name: a board is a list of devices, addresses and wires.
 */
struct machine_config {
    const char *machine;      /* -M name */
    GHashTable *props;        /* the rest of -M: name -> text */
    unsigned cpus, maxcpus;
    struct cpu_topology topology;
    uint64_t ram_bytes, max_ram_bytes;
    unsigned ram_slots;       /* for memory modules */
    const struct numa *numa;  /* -numa; NULL: all lies equally close */
    struct ram_source ram_source;
    const char *cpu;          /* -cpu */
    const struct cpu_engine *engine;
    const char *bios;         /* -bios, or NULL for the board's default */
    struct image *pflash[2];  /* -pflash / if=pflash */
    const char *kernel, *initrd, *append, *dtb;
    const char *boot_order, *boot_once; /* letters: a c d n */
    bool boot_menu, boot_strict; /* strict: from nothing but what has a boot index */
    unsigned boot_splash_ms;
    uint32_t boot_fail_wait; /* one more than the milliseconds until another try; 0: never */
    bool graphic;             /* somebody may look at the screen */
    const char *rtc_base;
    const char *uuid, *name;
    const char *vga;          /* "std", "none", "cirrus" refused ... */
    struct image *floppy[2], *ide[4]; /* -fda.., -hda..: by bus position; NULL: none */
    bool ide_is_cd[4];
    struct chardev *serial[4], *parallel[1], *debugcon;
    bool no_hpet, no_acpi, nodefaults, usb;
    GPtrArray *smbios;        /* of char *: -smbios arguments */
    GPtrArray *acpitable;
    GPtrArray *fw_cfg;        /* -fw_cfg arguments */
    /* For the board, before any of its devices starts. */
    struct backends backends;
    void (*request)(struct board *board, enum board_event event, int code);
    void *owner;
    struct display *display;  /* NULL: the board makes one */
};

struct machine_model {
    const char *name;  /* "pc", "q35", "isapc", "microvm", "none" */
    const char *alias; /* "pc-i440fx-7.2,..." or NULL */
    const char *about;
    bool is_default;
    unsigned max_cpus;
    /* Makes board, RAM, vCPUs and the devices that are soldered on; loads firmware. */
    bool (*build)(struct board *board, const struct machine_config *config, GError **error);
    /* After -device devices were added: tables for the firmware (ACPI, SMBIOS, e820). */
    bool (*finish)(struct board *board, GError **error);
};

/* Generated from the list in guest/machine/meson.build. */
extern const struct machine_model *const machine_models[];
extern const unsigned n_machine_models;
const struct machine_model *machine_find(const char *name);
void machine_list(GString *out); /* -M help */

/* An empty board, and then all that is on it, not yet running.  A failure ends the process: what was
 * made so far stays, as vCPUs cannot be unmade. */
struct board *machine_new(const struct machine_config *config, GError **error);
bool machine_build(struct board *board, GError **error);
bool machine_finish(struct board *board, GError **error);
/* Reset as by the reset button: devices, then vCPUs (paused). */
void machine_reset(struct board *board);
/* Out of ACPI S3: as reset, but the guest's memory stays and the power management says that
 * the machine was asleep.  vCPUs are paused. */
void machine_wakeup(struct board *board);
/* The guest wakes from S3: devices and vCPUs are reset, memory is kept, and the guest goes on
 * where it told the firmware to (or where its FACS says, if there is none). */
void machine_wake(struct board *board);
/* Full path of firmware file @name ("bios-256k.bin"); the error names the Debian package. */
char *machine_firmware(const char *name, GError **error);
/* -L: a folder that is searched before the usual ones; the latest first. */
void machine_firmware_folder(const char *path);
