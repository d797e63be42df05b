/* SPDX-License-Identifier: GPL-2.0-or-later */

/* codec_bzip2: bzip2, as in dmg; reading only. */
#include "host/image/codec.h"

#include <bzlib.h>
#include <errno.h>
#include <limits.h>

static int unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    unsigned n = (unsigned)out_n;
    if (in_n > INT_MAX || out_n > INT_MAX) {
        return -EIO;
    }
    int r = BZ2_bzBuffToBuffDecompress((char *)out, &n, (char *)(uintptr_t)in, (unsigned)in_n, 0, 0);
    return r == BZ_MEM_ERROR ? -ENOMEM : r == BZ_OK && n == out_n ? 0 : -EIO;
}

const struct codec codec_bzip2 = {.name = "bzip2", .unpack = unpack};
