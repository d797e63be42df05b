/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Raw DEFLATE that refers back at most 4 KiB, which the libraries that are fast do not offer
 * (see docs/notes/deflate.md).
 */
struct deflater;

struct deflater *deflater_new(void); /* NULL: no memory */
void deflater_free(struct deflater *d);
/* Bytes written, 0 if they would not fit.  @level 1 to 9; the same input gives the same output. */
size_t deflater_pack(struct deflater *d, const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n,
                     int level);
