/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * pirq - steers PCI interrupt lines to ISA interrupts, as PIIX3 and ICH9 do it.
 * How many functions hold a line follows from their states, so nothing of it is saved.
 */
enum { PIRQ_MAX = 8, PIRQ_OFF = 0x80 };

struct pirq {
    struct irq *isa[16]; /* wires "irq0" to "irq15" */
    unsigned held[PIRQ_MAX];
};

/* Rows for the wires of a device whose struct pirq is @member. */
#define PIRQ_WIRE(type, member, n) {"irq" #n, WIRE_IRQ, offsetof(type, member.isa[n])}
#define PIRQ_WIRES(type, m)                                                                        \
    PIRQ_WIRE(type, m, 0), PIRQ_WIRE(type, m, 1), PIRQ_WIRE(type, m, 2), PIRQ_WIRE(type, m, 3),    \
        PIRQ_WIRE(type, m, 4), PIRQ_WIRE(type, m, 5), PIRQ_WIRE(type, m, 6),                       \
        PIRQ_WIRE(type, m, 7), PIRQ_WIRE(type, m, 8), PIRQ_WIRE(type, m, 9),                       \
        PIRQ_WIRE(type, m, 10), PIRQ_WIRE(type, m, 11), PIRQ_WIRE(type, m, 12),                    \
        PIRQ_WIRE(type, m, 13), PIRQ_WIRE(type, m, 14), PIRQ_WIRE(type, m, 15)

/* One more or one fewer function holds line @n. */
void pirq_hold(struct pirq *p, unsigned n, bool level);
/* Drives the ISA interrupts; @route[n] is a PIRQx route control register. */
void pirq_settle(struct pirq *p, const uint8_t *route, unsigned lines);
