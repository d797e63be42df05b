/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/* One interrupt wire, seen from its source.  irq_set() forwards only changes. */
struct irq {
    void (*set)(struct irq *irq, bool level);
    void *owner;  /* the receiver's */
    unsigned n;   /* which of its inputs */
    bool level;
    unsigned high; /* how many joined sources hold it high */
};

static inline void irq_set(struct irq *irq, bool level)
{
    if (irq && irq->level != level) {
        irq->level = level;
        irq->set(irq, level);
    }
}

/* An edge, for sources without a level (PIT, RTC periodic on some boards, MSI-like). */
static inline void irq_pulse(struct irq *irq)
{
    irq_set(irq, true);
    irq_set(irq, false);
}

/*
 * Another source of a line that several drive: the line is high while any source is.  Who
 * joins a line does not also irq_set() it directly.  irq_join(NULL) is NULL, an end that
 * goes nowhere; irq_leave() lowers the source and frees it.
 */
struct irq *irq_join(struct irq *line);
void irq_leave(struct irq *source);

/* A line that drives two inputs alike (either may be NULL); lives as long as the board. */
struct irq *irq_fan(struct irq *a, struct irq *b);
