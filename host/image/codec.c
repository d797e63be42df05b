/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * codec: deflate, zlib and zstd.
 *
 * Formats: RFC 1950 "ZLIB Compressed Data Format Specification", RFC 1951 "DEFLATE
 * Compressed Data Format Specification", RFC 8878 "Zstandard Compression".
 * libdeflate unpacks; what is packed for qcow2 must not refer back more than 4 KiB, which of
 * the libraries only zlib promises.  Each thread keeps the library's state it used last.
 */
#include "host/image/codec.h"

#include <errno.h>
#include <glib.h>
#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

enum { QCOW2_WINDOW_BITS = 12, ZLIB_WINDOW_BITS = 15, MEMORY_LEVEL = 9, LEVEL = 6 };

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

struct packer {
    z_stream stream;
    int window_bits, level;
};

static void free_packer(void *p)
{
    deflateEnd(&((struct packer *)p)->stream);
    g_free(p);
}

static GPrivate packers[2] = {G_PRIVATE_INIT(free_packer), G_PRIVATE_INIT(free_packer)};

static struct packer *my_packer(GPrivate *slot, int window_bits, int level)
{
    struct packer *p = g_private_get(slot);
    if (p && p->level == level) {
        return deflateReset(&p->stream) == Z_OK ? p : NULL;
    }
    p = g_new0(struct packer, 1);
    p->window_bits = window_bits;
    p->level = level;
    if (deflateInit2(&p->stream, level, Z_DEFLATED, window_bits, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        g_free(p);
        return NULL;
    }
    g_private_replace(slot, p);
    return p;
}

static int64_t pack_with(GPrivate *slot, int window_bits, const uint8_t *in, size_t in_n,
                         uint8_t *out, size_t out_n, int level)
{
    struct packer *p = my_packer(slot, window_bits, level ? MIN(level, 9) : LEVEL);
    if (!p) {
        return -ENOMEM;
    }
    p->stream.next_in = (uint8_t *)(uintptr_t)in;
    p->stream.avail_in = (unsigned)in_n;
    p->stream.next_out = out;
    p->stream.avail_out = (unsigned)out_n;
    int r = deflate(&p->stream, Z_FINISH);
    return r == Z_STREAM_END ? (int64_t)(out_n - p->stream.avail_out) : 0;
}

static int64_t deflate_pack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level)
{
    return pack_with(&packers[0], -QCOW2_WINDOW_BITS, in, in_n, out, out_n, level);
}

static int64_t zlib_pack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n, int level)
{
    return pack_with(&packers[1], ZLIB_WINDOW_BITS, in, in_n, out, out_n, level);
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
    size_t n = ZSTD_compressCCtx(c, out, out_n, in, in_n, level ? level : ZSTD_CLEVEL_DEFAULT);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

const struct codec codec_zstd = {"zstd", zstd_unpack, zstd_pack};
