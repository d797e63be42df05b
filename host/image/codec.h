/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Compression of units.  A unit is packed and unpacked whole, by any thread. */
struct codec {
    const char *name;
    /* Unpacks exactly @out_n bytes; @in may be longer than the unit.  0, -EIO or -ENOTSUP. */
    int (*unpack)(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n);
    /* Stored bytes, 0 if it would not fit in @out_n, or -errno.  @level 0: the default. */
    int64_t (*pack)(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level);
};

extern const struct codec codec_deflate; /* raw; with a window of 4 KiB on write: qcow2 */
extern const struct codec codec_zlib;    /* vmdk, cloop, dmg */
extern const struct codec codec_zstd;
extern const struct codec codec_bzip2, codec_lzma, codec_lzfse, codec_adc; /* dmg; reading only */
