/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * pc_ports - the loose ports of a PC: 92h (fast A20 and reset) and F0h (coprocessor error)
 *
 * Wire "irq13".  The part "pc-ports" of the board.
 */
/* The processor's FERR#; machine lock held. */
void pc_ports_ferr(struct device *ports);
