/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * i8237 - the PC's two DMA controllers, for floppy and parallel port
 *
 * The part "dma" of the board.  A peripheral registers for its channel, asks with
 * i8237_request(), and moves bytes from .ready, which runs whenever its channel may
 * transfer: at once, or when the guest has unmasked it.
 */
void i8237_attach(struct device *dma, unsigned channel, void (*ready)(void *owner), void *owner);
/* The peripheral's DREQ line; .ready may run inside. */
void i8237_request(struct device *dma, unsigned channel, bool dreq);
/*
 * Moves up to @n bytes as the guest has programmed the channel: memory to @data for reads
 * by the peripheral, @data to memory for writes; a verify transfer moves nothing but
 * counts.  Returns how many bytes were counted: 0 if the channel is masked, programmed for
 * the other direction, or done.
 */
size_t i8237_read_memory(struct device *dma, unsigned channel, void *data, size_t n);
size_t i8237_write_memory(struct device *dma, unsigned channel, const void *data, size_t n);
/* Terminal count was reached by the last transfer. */
bool i8237_done(struct device *dma, unsigned channel);
