/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * i8259 - the PC's two cascaded interrupt controllers, one device
 *
 * Wire "int": to the processor (LINT0 of the local APICs).  The part "pic" of the board.
 */
struct irq *i8259_input(struct device *pic, unsigned n); /* 0 to 15, but not 2 */
/* The processor's INTA cycle: the vector; that of a spurious interrupt if none is pending. */
int i8259_acknowledge(struct device *pic);
/* Whether the INT output is high: any thread. */
bool i8259_asks(struct device *pic);
