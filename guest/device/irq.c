/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/irq.h"

#include <glib.h>

static void joined_set(struct irq *irq, bool level)
{
    struct irq *line = irq->owner;
    if (level) {
        line->high++;
    } else {
        line->high--;
    }
    irq_set(line, line->high > 0);
}

struct irq *irq_join(struct irq *line)
{
    if (!line) {
        return NULL;
    }
    struct irq *source = g_new0(struct irq, 1);
    source->set = joined_set;
    source->owner = line;
    return source;
}

void irq_leave(struct irq *source)
{
    irq_set(source, false);
    g_free(source);
}

struct irq_fan {
    struct irq irq;
    struct irq *a, *b;
};

static void fan_set(struct irq *irq, bool level)
{
    struct irq_fan *f = irq->owner;
    irq_set(f->a, level);
    irq_set(f->b, level);
}

struct irq *irq_fan(struct irq *a, struct irq *b)
{
    struct irq_fan *f = g_new0(struct irq_fan, 1);
    f->irq = (struct irq){.set = fan_set, .owner = f};
    f->a = a;
    f->b = b;
    return &f->irq;
}
