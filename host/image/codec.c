/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * codec: deflate, zlib and zstd.
 *
 * Formats: RFC 1950 "ZLIB Compressed Data Format Specification", RFC 1951 "DEFLATE
 * Compressed Data Format Specification", RFC 8878 "Zstandard Compression".
 * libdeflate packs and unpacks; only what is packed for qcow2 must not refer back more than 4 KiB
 * and goes through deflate.c.  Each thread keeps the library's state it used last.
 */
#include "host/image/codec.h"

#include "host/image/deflate.h"

#include <errno.h>
#include <glib.h>
#include <libdeflate.h>
#include <zstd.h>

enum { QCOW2_WINDOW = 4096 };
/* What comes within a few per cent of zlib's level 6 and takes a third or a fourth of its time;
 * zstd's level 2 is 1.3 % larger than its level 3, QEMU's, and a third faster. */
enum { ZSTD_LEVEL = 2, DEFLATER_LEVEL = 3, SMALL_LEVEL = 2, ZLIB_LEVEL = 4, COMPRESSOR_LEVEL_MAX = 12 };

struct compressor {
    struct libdeflate_compressor *state;
    int level;
};

/* ---- unpacking ---- */

static void free_decompressor(void *d)
{
    libdeflate_free_decompressor(d);
}

static GPrivate decompressor = G_PRIVATE_INIT(free_decompressor);

static struct libdeflate_decompressor *my_decompressor(void)
{
    struct libdeflate_decompressor *d = g_private_get(&decompressor);
    if (!d) {
        d = libdeflate_alloc_decompressor();
        g_private_set(&decompressor, d);
    }
    return d;
}

static int deflate_unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    struct libdeflate_decompressor *d = my_decompressor();
    size_t used;
    if (!d) {
        return -ENOMEM;
    }
    return libdeflate_deflate_decompress_ex(d, in, in_n, out, out_n, &used, NULL) ? -EIO : 0;
}

static int zlib_unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    struct libdeflate_decompressor *d = my_decompressor();
    size_t used;
    if (!d) {
        return -ENOMEM;
    }
    return libdeflate_zlib_decompress_ex(d, in, in_n, out, out_n, &used, NULL) ? -EIO : 0;
}

/* ---- packing ---- */

static void free_deflater(void *d)
{
    deflater_free(d);
}

static void free_compressor(void *c)
{
    libdeflate_free_compressor(((struct compressor *)c)->state);
    g_free(c);
}

static GPrivate deflater = G_PRIVATE_INIT(free_deflater);
static GPrivate compressor = G_PRIVATE_INIT(free_compressor);

static struct deflater *my_deflater(void)
{
    struct deflater *d = g_private_get(&deflater);
    if (!d) {
        d = deflater_new();
        g_private_set(&deflater, d);
    }
    return d;
}

static struct libdeflate_compressor *my_compressor(int level)
{
    struct compressor *c = g_private_get(&compressor);
    level = MIN(level, COMPRESSOR_LEVEL_MAX);
    if (c && c->level == level) {
        return c->state;
    }
    c = g_new0(struct compressor, 1);
    c->level = level;
    c->state = libdeflate_alloc_compressor(level);
    g_private_replace(&compressor, c);
    return c->state;
}

static int64_t deflate_pack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level)
{
    if (in_n <= QCOW2_WINDOW) { /* nothing can lie farther back */
        struct libdeflate_compressor *c = my_compressor(level ? level : SMALL_LEVEL);
        return c ? (int64_t)libdeflate_deflate_compress(c, in, in_n, out, out_n) : -ENOMEM;
    }
    struct deflater *d = my_deflater();
    return d ? (int64_t)deflater_pack(d, in, in_n, out, out_n, level ? level : DEFLATER_LEVEL)
             : -ENOMEM;
}

static int64_t zlib_pack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level)
{
    struct libdeflate_compressor *c = my_compressor(level ? level : ZLIB_LEVEL);
    return c ? (int64_t)libdeflate_zlib_compress(c, in, in_n, out, out_n) : -ENOMEM;
}

const struct codec codec_deflate = {"deflate", deflate_unpack, deflate_pack};
const struct codec codec_zlib = {"zlib", zlib_unpack, zlib_pack};

/* ---- zstd ---- */

static void free_dctx(void *d)
{
    ZSTD_freeDCtx(d);
}

static void free_cctx(void *c)
{
    ZSTD_freeCCtx(c);
}

static GPrivate dctx = G_PRIVATE_INIT(free_dctx), cctx = G_PRIVATE_INIT(free_cctx);

/* @in may go on behind the frame, and a unit may be several frames. */
static int zstd_unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    ZSTD_DCtx *d = g_private_get(&dctx);
    ZSTD_inBuffer from = {in, in_n, 0};
    ZSTD_outBuffer to = {out, out_n, 0};
    if (!d) {
        d = ZSTD_createDCtx();
        g_private_set(&dctx, d);
    }
    if (!d || ZSTD_isError(ZSTD_DCtx_reset(d, ZSTD_reset_session_only))) {
        return -ENOMEM;
    }
    while (to.pos < to.size) {
        size_t before = from.pos + to.pos, left = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(left) || from.pos + to.pos == before) {
            return -EIO;
        }
    }
    return 0;
}

static int64_t zstd_pack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level)
{
    ZSTD_CCtx *c = g_private_get(&cctx);
    if (!c) {
        c = ZSTD_createCCtx();
        g_private_set(&cctx, c);
    }
    if (!c) {
        return -ENOMEM;
    }
    size_t n = ZSTD_compressCCtx(c, out, out_n, in, in_n, level ? level : ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

const struct codec codec_zstd = {"zstd", zstd_unpack, zstd_pack};
