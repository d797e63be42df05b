/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * ioapic - I/O APIC with 24 inputs
 *
 * Sends through the board's .msi.  The part "ioapic" of the board.
 */
struct irq *ioapic_input(struct device *ioapic, unsigned n); /* 0 to 23 */
/* An EOI for @vector went out on the bus; machine lock held. */
void ioapic_eoi(struct device *ioapic, uint8_t vector);
/* The message that input @n sends now. */
void ioapic_message(const struct device *ioapic, unsigned n, uint64_t *address, uint32_t *data);
/* Calls back whenever messages may have changed: a register was written, reset or loaded. */
void ioapic_on_change(struct device *ioapic, void (*changed)(struct device *ioapic));
