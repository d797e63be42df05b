/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Spec: Intel 82371SB (PIIX3) data sheet, "PIRQx Route Control Registers". */
#include "guest/device/pirq.h"

void pirq_hold(struct pirq *p, unsigned n, bool level)
{
    if (level) {
        p->held[n]++;
    } else if (p->held[n]) {
        p->held[n]--;
    }
}

void pirq_settle(struct pirq *p, const uint8_t *route, unsigned lines)
{
    uint16_t high = 0, used = 0;
    for (unsigned n = 0; n < lines; n++) {
        if (!(route[n] & PIRQ_OFF)) {
            used |= (uint16_t)(1u << (route[n] & 15));
            high |= (uint16_t)((p->held[n] ? 1u : 0) << (route[n] & 15));
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        if (p->isa[i] && ((used >> i & 1) || p->isa[i]->level)) {
            irq_set(p->isa[i], high >> i & 1);
        }
    }
}
