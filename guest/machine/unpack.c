/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * unpack: the ways in which a Linux kernel is packed into its bzImage, but LZO.
 *
 * Spec: Linux kernel documentation, "The Linux/x86 Boot Protocol", field payload_offset (which
 * names the formats by their first bytes); LZ4, "LZ4 Block Format Description", "LZ4 Frame Format
 * Description", section "Legacy frame".
 *
 * Packed bytes come from a file that nobody vouches for: each unpacker stays in what it was given
 * and says no to everything else.
 */
#include "base/bytes.h"
#include "guest/machine/load.h"
#include "guest/memory/ahead.h"

#include <bzlib.h>
#include <libdeflate.h>
#include <lzma.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <zstd.h>

/* Packed bytes, and where they go: all of it must be filled. */
struct job {
    const uint8_t *from, *from_end;
    uint8_t *to, *to_end;
};

enum { LZMA_MEMORY = 256 << 20, ZSTD_WINDOW_LOG = 27 };

static bool gzip(const struct job *j)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    size_t used, room = (size_t)(j->to_end - j->to), n = 0;
    bool ok = d && libdeflate_gzip_decompress_ex(d, j->from, (size_t)(j->from_end - j->from), j->to,
                                                 room, &used, &n) == LIBDEFLATE_SUCCESS;
    libdeflate_free_decompressor(d);
    return ok && n == room;
}

static bool bzip2(const struct job *j)
{
    unsigned room = (unsigned)(j->to_end - j->to), n = room;
    return BZ2_bzBuffToBuffDecompress((char *)j->to, &n, (char *)j->from,
                                      (unsigned)(j->from_end - j->from), 0, 0) == BZ_OK &&
           n == room;
}

static bool lzma_or_xz(const struct job *j)
{
    lzma_stream s = LZMA_STREAM_INIT;
    bool ok = lzma_auto_decoder(&s, LZMA_MEMORY, 0) == LZMA_OK;
    s.next_in = j->from;
    s.avail_in = (size_t)(j->from_end - j->from);
    s.next_out = j->to;
    s.avail_out = (size_t)(j->to_end - j->to);
    /* Without LZMA_CONCATENATED it ends behind the first stream; the size follows there. */
    ok = ok && lzma_code(&s, LZMA_RUN) == LZMA_STREAM_END && s.avail_out == 0;
    lzma_end(&s);
    return ok;
}

static bool zstd(const struct job *j)
{
    ZSTD_DCtx *d = ZSTD_createDCtx();
    size_t room = (size_t)(j->to_end - j->to), packed = (size_t)(j->from_end - j->from);
    size_t frame = ZSTD_findFrameCompressedSize(j->from, packed);
    bool ok = d && !ZSTD_isError(frame) &&
              !ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)) &&
              ZSTD_decompressDCtx(d, j->to, room, j->from, frame) == room;
    ZSTD_freeDCtx(d);
    return ok;
}

/* ---- LZ4 ---- */

enum { LZ4_BLOCK = 8 << 20, LZ4_LEAST_MATCH = 4, LZ4_MORE = 15, CHUNK = 16 };

/* Copies in chunks where nothing is harmed by some bytes too many. */
static void copy_literals(struct job *j, size_t n)
{
    if ((size_t)(j->from_end - j->from) >= n + CHUNK && (size_t)(j->to_end - j->to) >= n + CHUNK) {
        for (size_t i = 0; i < n; i += CHUNK) {
            memcpy(j->to + i, j->from + i, CHUNK);
        }
    } else {
        memcpy(j->to, j->from, n);
    }
    j->from += n;
    j->to += n;
}

static void copy_match(struct job *j, size_t distance, size_t n)
{
    const uint8_t *from = j->to - distance;
    uint8_t *to = j->to;
    if (distance >= CHUNK && (size_t)(j->to_end - to) >= n + CHUNK) {
        for (size_t i = 0; i < n; i += CHUNK) {
            memcpy(to + i, from + i, CHUNK);
        }
    } else if (distance == 1) {
        memset(to, *from, n);
    } else {
        for (size_t i = 0; i < n; i++) { /* what was just written is read again */
            to[i] = from[i];
        }
    }
    j->to += n;
}

/* The rest of a length of which the token holds @n; SIZE_MAX if it is longer than can be. */
static size_t longer(struct job *j, size_t n)
{
    for (uint8_t more = UINT8_MAX; n >= LZ4_MORE && more == UINT8_MAX;) {
        if (j->from == j->from_end || n > LZ4_BLOCK) {
            return SIZE_MAX;
        }
        more = *j->from++;
        n += more;
    }
    return n;
}

static bool lz4_block(struct job *j)
{
    const uint8_t *begin = j->to;
    while (j->from < j->from_end) {
        uint8_t token = *j->from++;
        size_t n = longer(j, token >> 4);
        if (n > (size_t)(j->from_end - j->from) || n > (size_t)(j->to_end - j->to)) {
            return false;
        }
        copy_literals(j, n);
        if (j->from == j->from_end) { /* the last sequence has no match */
            return true;
        }
        if (j->from_end - j->from < 2) {
            return false;
        }
        size_t distance = le16_at(j->from);
        j->from += 2;
        n = longer(j, token & 15);
        if (!distance || distance > (size_t)(j->to - begin) || n == SIZE_MAX ||
            n + LZ4_LEAST_MATCH > (size_t)(j->to_end - j->to)) {
            return false;
        }
        copy_match(j, distance, n + LZ4_LEAST_MATCH);
    }
    return false;
}

/* Blocks of 8 MiB, each behind its packed length; none needs another. */
enum { LZ4_BLOCKS_MAX = 128 };
struct lz4_blocks {
    struct job block[LZ4_BLOCKS_MAX];
    unsigned n;
    _Atomic unsigned next;
    _Atomic bool bad;
};

static void *lz4_some(void *arg)
{
    struct lz4_blocks *b = arg;
    for (unsigned i; (i = atomic_fetch_add(&b->next, 1)) < b->n;) {
        struct job block = b->block[i];
        ahead_back(block.to, (size_t)(block.to_end - block.to));
        if (!lz4_block(&block) || block.to != block.to_end) {
            atomic_store(&b->bad, true);
        }
    }
    return NULL;
}

static bool lz4_find_blocks(const struct job *j, struct lz4_blocks *b)
{
    struct job block = {.from = j->from + 4, .to = j->to};
    while (block.to < j->to_end) {
        size_t left = (size_t)(j->from_end - block.from);
        if (b->n == LZ4_BLOCKS_MAX || left < 4 || le32_at(block.from) > left - 4) {
            return false;
        }
        uint32_t n = le32_at(block.from);
        block.from += 4;
        block.from_end = block.from + n;
        block.to_end = block.to + MIN(LZ4_BLOCK, j->to_end - block.to);
        b->block[b->n++] = block;
        block.from = block.from_end;
        block.to = block.to_end;
    }
    return true;
}

/*
 * By two threads, as a guest waits for it.  Not one of GLib's, which allocate: a new arena would
 * wait for the address space, which who backs it with memory keeps for milliseconds.
 */
static bool lz4(const struct job *j)
{
    g_autofree struct lz4_blocks *b = g_new0(struct lz4_blocks, 1);
    if (!lz4_find_blocks(j, b)) {
        return false;
    }
    pthread_t helper;
    bool helped = b->n > 1 && pthread_create(&helper, NULL, lz4_some, b) == 0;
    lz4_some(b);
    if (helped) {
        pthread_join(helper, NULL);
    }
    return !b->bad;
}

static const struct {
    const char *magic;
    size_t n;
    bool (*unpack)(const struct job *j);
} packings[] = {
    {"\x1f\x8b", 2, gzip},
    {"BZh", 3, bzip2},
    {"\x5d\0\0", 3, lzma_or_xz},
    {"\xfd"
     "7zXZ",
     5, lzma_or_xz},
    {"\x02\x21\x4c\x18", 4, lz4},
    {"\x28\xb5\x2f\xfd", 4, zstd},
};

bool kernel_unpack(const uint8_t *from, size_t n, uint8_t *to, size_t room)
{
    const struct job j = {.from = from, .from_end = from + n, .to = to, .to_end = to + room};
    for (unsigned i = 0; i < G_N_ELEMENTS(packings); i++) {
        if (n > packings[i].n && memcmp(from, packings[i].magic, packings[i].n) == 0) {
            if (packings[i].unpack != lz4) {
                ahead_back(to, room);
            }
            return n <= INT32_MAX && room <= INT32_MAX && packings[i].unpack(&j);
        }
    }
    return false;
}
