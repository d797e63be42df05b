/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * i8254 - the PC's interval timer and port 61h
 *
 * Wire "irq": output of channel 0.  The part "pit" of the board.
 */
/* HPET's legacy replacement takes IRQ 0 away from the timer. */
void i8254_mute(struct device *pit, bool mute);
