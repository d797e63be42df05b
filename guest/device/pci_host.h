/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/*
 * What the host bridges of i440FX and Q35 have in common: configuration mechanism #1 with
 * the reset control register inside it, and the shadow RAM between 0xa0000 and 1 MiB.
 * Embedded in the bridge's device; RAM is found as "pc.ram", the firmware below 1 MiB as
 * "isa-bios".
 */
enum { SHADOW_SEGMENTS = 13 };

/* One stretch of 0xc0000 to 0xfffff whose reads and writes go to RAM or to the bus. */
struct shadow_segment {
    struct region rw, ro, wo;
    struct placing *placed_rw, *placed_ro, *placed_wo;
    uint8_t *host;
};

struct shadow {
    struct shadow_segment segment[SHADOW_SEGMENTS];
    struct region smram, tseg, tseg_hole;
    struct placing *smram_open, *smram_smm, *tseg_smm, *tseg_hidden;
    uint64_t tseg_bytes; /* as it is placed now */
};

struct pci_host {
    struct pci_bus bus;
    uint32_t address;
    uint8_t reset_control;
    struct board *board;
    struct region ports;
    struct shadow shadow;
};

#define PCI_HOST_STATE(type, member)                                                               \
    STATE(type, member.address), STATE(type, member.reset_control)

/* Makes the root bus @name and the ports 0xcf8 to 0xcff; from the bridge's start(). */
void pci_host_init(struct pci_host *host, struct board *board, const char *name, bool express);

/*
 * Spec: Intel 82441FX PMC data sheet, "PAM - Programmable Attribute Map Registers".
 * @pam: the seven registers.
 */
void shadow_init(struct shadow *s, struct board *board);
void shadow_pam(struct shadow *s, const uint8_t *pam);
/* SMRAM control (D_OPEN 0x40, G_SMRAME 0x08): legacy SMRAM at 0xa0000. */
enum { SMRAM_OPEN = 0x40, SMRAM_CLOSED = 0x20, SMRAM_LOCK = 0x10, SMRAM_ENABLE = 0x08 };
void shadow_smram(struct shadow *s, uint8_t control);
/* TSEG: the top @bytes of RAM below 4 GiB show in SMM only; 0: none. */
void shadow_tseg(struct shadow *s, struct board *board, uint64_t bytes, bool open);
