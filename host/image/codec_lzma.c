/* SPDX-License-Identifier: GPL-2.0-or-later */

/* codec_lzma: LZMA in xz streams, as in dmg; reading only. */
#include "host/image/codec.h"

#include <errno.h>
#include <lzma.h>

enum { MEMORY_MAX = 128 << 20 }; /* xz -9 takes 65 MiB */

static int unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    uint64_t memory = MEMORY_MAX;
    size_t in_at = 0, out_at = 0;
    lzma_ret r = lzma_stream_buffer_decode(&memory, 0, NULL, in, &in_at, in_n, out, &out_at, out_n);
    return r == LZMA_MEM_ERROR || r == LZMA_MEMLIMIT_ERROR ? -ENOMEM
           : r == LZMA_OK && out_at == out_n               ? 0
                                                           : -EIO;
}

const struct codec codec_lzma = {.name = "lzma", .unpack = unpack};
