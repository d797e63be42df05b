/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"

/*
 * lapic - local APICs: what the vCPUs see of interrupts
 *
 * A board calls lapic_vcpu_board() before it makes vCPUs, lapic_new() for each vCPU,
 * connects the PIC's "int" to lapic_lint(board, 0) and sets .msi to lapic_msi().
 * None of it exists where KVM keeps the interrupt controllers.
 */
/* For vcpu_new(). */
const struct vcpu_board *lapic_vcpu_board(struct board *board);
/* Makes and starts the APIC of @cpu.  Its ids are those of @cpu. */
struct device *lapic_new(struct board *board, struct vcpu *cpu, GError **error);
/* The line to LINT0 or LINT1 of all APICs. */
struct irq *lapic_lint(struct board *board, unsigned n);
/* A write to 0xfee..... from anywhere but a vCPU: struct board's .msi. */
void lapic_msi(struct board *board, uint64_t address, uint32_t data);
/* An NMI to all vCPUs: the monitor, a watchdog. */
void lapic_nmi_all(void);
