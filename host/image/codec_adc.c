/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * codec_adc: Apple Data Compression, of the oldest dmg images; reading only.
 *
 * A byte of 0x80 or more: so many literal bytes follow.  Else a copy of what is already there:
 * of two bytes (length 3 to 18, up to 1 KiB back) or, with 0x40, of three (4 to 67, 64 KiB).
 *
 * Spec: dmg2img, adc.c, describes the format.
 */
#include "host/image/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Overlaps repeat what was just written. */
static bool copy_back(uint8_t *out, size_t *at, size_t out_n, size_t back, size_t n)
{
    if (back > *at || n > out_n - *at) {
        return false;
    }
    for (size_t i = 0; i < n; i++, (*at)++) {
        out[*at] = out[*at - back];
    }
    return true;
}

static int unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    size_t i = 0, at = 0;
    while (at < out_n && i < in_n) {
        uint8_t b = in[i];
        size_t need = b & 0x80 ? 2 + (b & 0x7f) : b & 0x40 ? 3 : 2;
        bool ok = need <= in_n - i;
        if (ok && b & 0x80) {
            ok = need - 1 <= out_n - at;
            memcpy(out + at, in + i + 1, ok ? need - 1 : 0);
            at += need - 1;
        } else if (ok && b & 0x40) {
            ok = copy_back(out, &at, out_n, (size_t)(in[i + 1] << 8 | in[i + 2]) + 1, (b & 0x3f) + 4);
        } else if (ok) {
            ok = copy_back(out, &at, out_n, (size_t)((b & 3) << 8 | in[i + 1]) + 1, (b >> 2) + 3);
        }
        if (!ok) {
            return -EIO;
        }
        i += need;
    }
    return at == out_n ? 0 : -EIO;
}

const struct codec codec_adc = {.name = "adc", .unpack = unpack};
