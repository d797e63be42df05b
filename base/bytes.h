/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Little-endian and big-endian numbers in files, guest memory, state streams and wire formats. */

static inline uint16_t le16_at(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return GUINT16_FROM_LE(v);
}

static inline uint32_t le32_at(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return GUINT32_FROM_LE(v);
}

static inline uint64_t le64_at(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return GUINT64_FROM_LE(v);
}

static inline uint16_t be16_at(const void *p)
{
    return GUINT16_SWAP_LE_BE(le16_at(p));
}

static inline uint32_t be32_at(const void *p)
{
    return GUINT32_SWAP_LE_BE(le32_at(p));
}

static inline uint64_t be64_at(const void *p)
{
    return GUINT64_SWAP_LE_BE(le64_at(p));
}

static inline void le16_put(void *p, uint16_t v)
{
    v = GUINT16_TO_LE(v);
    memcpy(p, &v, sizeof(v));
}

static inline void le32_put(void *p, uint32_t v)
{
    v = GUINT32_TO_LE(v);
    memcpy(p, &v, sizeof(v));
}

static inline void le64_put(void *p, uint64_t v)
{
    v = GUINT64_TO_LE(v);
    memcpy(p, &v, sizeof(v));
}

static inline void be16_put(void *p, uint16_t v)
{
    le16_put(p, GUINT16_SWAP_LE_BE(v));
}

static inline void be32_put(void *p, uint32_t v)
{
    le32_put(p, GUINT32_SWAP_LE_BE(v));
}

static inline void be64_put(void *p, uint64_t v)
{
    le64_put(p, GUINT64_SWAP_LE_BE(v));
}

/* Appends the low @bytes bytes of @v, little-endian. */
void put_le(GByteArray *out, uint64_t v, unsigned bytes);
/* Appends a length byte and @text, at most 255 bytes. */
void put_text(GByteArray *out, const char *text);

/* A read position in bytes that somebody else holds. */
struct reader {
    const uint8_t *at, *end;
};

struct reader reader_of(GBytes *bytes);
/* False, leaving @out and the position alone, if fewer than @bytes are left. */
bool read_le(struct reader *in, uint64_t *out, unsigned bytes);
bool read_text(struct reader *in, char out[256]);
/* A view of the next @n bytes, or NULL if fewer are left. */
const uint8_t *read_bytes(struct reader *in, size_t n);

/* Are all bytes 0? */
bool is_zero(const void *p, size_t n);
