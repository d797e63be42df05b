/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * mc146818 - clock and battery-backed memory (CMOS)
 *
 * Wire "irq": IRQ 8.  The part "rtc" of the board.
 */
/* Bytes from 14 on are the firmware's: boards leave sizes and boot order there. */
void mc146818_set(struct device *rtc, uint8_t index, uint8_t value);
uint8_t mc146818_get(struct device *rtc, uint8_t index);
/* HPET's legacy replacement takes IRQ 8 away from the clock. */
void mc146818_mute(struct device *rtc, bool mute);
