/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"

void put_le(GByteArray *out, uint64_t v, unsigned bytes)
{
    v = GUINT64_TO_LE(v);
    g_byte_array_append(out, (const uint8_t *)&v, bytes);
}

void put_text(GByteArray *out, const char *text)
{
    size_t n = strlen(text);
    g_assert(n <= UINT8_MAX); /* our own names; the generic tests read them back */
    put_le(out, n, 1);
    g_byte_array_append(out, (const uint8_t *)text, (guint)n);
}

struct reader reader_of(GBytes *bytes)
{
    size_t n;
    const uint8_t *at = g_bytes_get_data(bytes, &n);
    return (struct reader){at, n ? at + n : at}; /* GLib says NULL for empty */
}

const uint8_t *read_bytes(struct reader *in, size_t n)
{
    const uint8_t *at = in->at;
    if ((size_t)(in->end - in->at) < n) {
        return NULL;
    }
    in->at += n;
    return at;
}

bool read_le(struct reader *in, uint64_t *out, unsigned bytes)
{
    uint64_t v = 0;
    const uint8_t *at = bytes <= sizeof(v) ? read_bytes(in, bytes) : NULL;
    if (!at) {
        return false;
    }
    memcpy(&v, at, bytes);
    *out = GUINT64_FROM_LE(v);
    return true;
}

bool read_text(struct reader *in, char out[256])
{
    size_t left = (size_t)(in->end - in->at);
    if (left < 1 || left - 1 < *in->at) {
        return false;
    }
    uint8_t n = *in->at++;
    memcpy(out, in->at, n);
    out[n] = '\0';
    in->at += n;
    return true;
}
