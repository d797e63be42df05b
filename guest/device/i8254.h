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
/* What the speaker's cone does at guest time @at: in, or out. */
bool i8254_speaker(struct device *pit, int64_t at);
/* Both switches of port 61h are on: the speaker may sound. */
bool i8254_speaker_on(struct device *pit);
/* @ear is called when port 61h was written; NULL: nobody listens any more. */
void i8254_listen(struct device *pit, void (*ear)(void *owner), void *owner);
