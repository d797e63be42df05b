/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel inside a bzImage: packed in every way there is, placed everywhere it may lie,
 * relocated, and damaged.
 */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/machine/load.h"
#include "tests/unit/seed.h"

#include <bzlib.h>
#include <libdeflate.h>
#include <lzma.h>
#include <string.h>
#include <zstd.h>

enum { MB = 1 << 20, KIB = 1 << 10, SETUP = 512, PAYLOAD = 64, RAM_BYTES = 16 * MB };
#define LINKED UINT64_C(0x400000) /* a small kernel's; like Linux, a multiple of its alignment */
#define WINDOW UINT64_C(0xffffffff80000000)

/* The file of the kernel: headers, two segments, relocations. */
enum {
    TEXT_FROM = 4096,
    TEXT_BYTES = 20000,
    DATA_FROM = 32768,
    DATA_BYTES = 9000,
    DATA_TO = 24576,
    SECTIONS = 45056,
    RELOCS = SECTIONS + 64,
    N_RELOCS = 12,
    FILE_BYTES = RELOCS + 4 * N_RELOCS
};
enum { RELOC_64_AT = 0x100, RELOC_NEGATIVE_AT = 0x200, RELOC_32_AT = 0x300 };
static uint8_t elf[FILE_BYTES], *ram;

static void put_segment(uint8_t *p, uint64_t from, uint64_t to, uint64_t bytes, uint64_t memory)
{
    le32_put(p, 1);
    le64_put(p + 8, from);
    le64_put(p + 24, LINKED + to);
    le64_put(p + 32, bytes);
    le64_put(p + 40, memory);
}

static void put_relocs(uint8_t *p)
{
    const uint32_t start[] = {RELOC_64_AT, RELOC_NEGATIVE_AT, RELOC_32_AT};
    for (unsigned list = 0; list < 3; list++) {
        le32_put(p, 0);
        for (unsigned i = 0; i < 3; i++) {
            le32_put(p + 4 + 4 * i, (uint32_t)(WINDOW + LINKED + start[list] + 16 * i));
        }
        p += 16;
    }
}

static void make_elf(void)
{
    for (unsigned i = 0; i < FILE_BYTES; i++) { /* packs well, with matches near and far */
        elf[i] = (uint8_t)(i % 977 < 300 ? 7 : i % 977 < 600 ? i % 5 : i * i >> 3);
    }
    memset(elf, 0, 64 + 2 * 56);
    memcpy(elf, "\177ELF\2\1\1", 7);
    le16_put(elf + 16, 2);
    le16_put(elf + 18, 62);
    le64_put(elf + 24, LINKED + 0x40);
    le64_put(elf + 32, 64);
    le64_put(elf + 40, SECTIONS);
    le16_put(elf + 54, 56);
    le16_put(elf + 56, 2);
    le16_put(elf + 58, 64);
    le16_put(elf + 60, 1);
    put_segment(elf + 64, TEXT_FROM, 0, TEXT_BYTES, TEXT_BYTES);
    put_segment(elf + 64 + 56, DATA_FROM, DATA_TO, DATA_BYTES, DATA_BYTES + 10000);
    put_relocs(elf + RELOCS);
}

/* ---- packers: each returns how many bytes it made ---- */

static size_t pack_gzip(uint8_t *to, size_t room)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    size_t n = libdeflate_gzip_compress(c, elf, FILE_BYTES, to, room);
    libdeflate_free_compressor(c);
    return n;
}

static size_t pack_bzip2(uint8_t *to, size_t room)
{
    unsigned n = (unsigned)room;
    assert_int_equal(BZ2_bzBuffToBuffCompress((char *)to, &n, (char *)elf, FILE_BYTES, 9, 0, 0), 0);
    return n;
}

static size_t pack_xz(uint8_t *to, size_t room)
{
    size_t n = 0;
    lzma_options_lzma o;
    lzma_lzma_preset(&o, 6);
    const lzma_filter filters[] = {
        {LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &o}, {LZMA_VLI_UNKNOWN, NULL}};
    assert_int_equal(lzma_stream_buffer_encode((lzma_filter *)filters, LZMA_CHECK_CRC32, NULL, elf,
                                               FILE_BYTES, to, &n, room),
                     LZMA_OK);
    return n;
}

static size_t pack_lzma(uint8_t *to, size_t room)
{
    lzma_options_lzma o;
    lzma_lzma_preset(&o, 6);
    lzma_stream s = LZMA_STREAM_INIT;
    assert_int_equal(lzma_alone_encoder(&s, &o), LZMA_OK);
    s.next_in = elf;
    s.avail_in = FILE_BYTES;
    s.next_out = to;
    s.avail_out = room;
    assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
    lzma_end(&s);
    return room - s.avail_out;
}

static size_t pack_zstd(uint8_t *to, size_t room)
{
    return ZSTD_compress(to, room, elf, FILE_BYTES, 19);
}

static uint8_t *lz4_length(uint8_t *p, size_t n)
{
    for (; n >= 255; n -= 255) {
        *p++ = 255;
    }
    *p++ = (uint8_t)n;
    return p;
}

static uint8_t *lz4_sequence(uint8_t *p, size_t from, size_t literals, size_t distance,
                             size_t match)
{
    size_t more = match ? match - 4 : 0;
    *p++ = (uint8_t)(MIN(literals, 15) << 4 | MIN(more, 15));
    p = literals >= 15 ? lz4_length(p, literals - 15) : p;
    memcpy(p, elf + from, literals);
    p += literals;
    if (match) {
        le16_put(p, (uint16_t)distance);
        p = more >= 15 ? lz4_length(p + 2, more - 15) : p + 2;
    }
    return p;
}

/* Greedy, with the distances that unpackers treat apart: 1, some bytes, far. */
static size_t pack_lz4(uint8_t *to, size_t room)
{
    static const size_t distances[] = {1, 5, 40, 977};
    uint8_t *p = to + 8;
    size_t begin = 0;
    (void)room;
    for (size_t at = 0; at < FILE_BYTES;) {
        size_t best = 0, distance = 0;
        for (unsigned k = 0; k < G_N_ELEMENTS(distances); k++) {
            size_t d = distances[k], n = 0;
            while (d <= at && at + n < FILE_BYTES - 12 && elf[at + n] == elf[at + n - d]) {
                n++;
            }
            distance = n > best ? d : distance;
            best = MAX(best, n);
        }
        if (best >= 4) {
            p = lz4_sequence(p, begin, at - begin, distance, best);
            begin = at + best;
        }
        at += best >= 4 ? best : 1;
    }
    p = lz4_sequence(p, begin, FILE_BYTES - begin, 0, 0);
    memcpy(to, "\x02\x21\x4c\x18", 4);
    le32_put(to + 4, (uint32_t)(p - to - 8));
    return (size_t)(p - to);
}

static const struct {
    const char *name;
    size_t (*pack)(uint8_t *to, size_t room);
    bool with_size; /* it says itself how much it is */
} packers[] = {
    {"gzip", pack_gzip, true}, {"bzip2", pack_bzip2}, {"xz", pack_xz},
    {"lzma", pack_lzma},       {"zstd", pack_zstd},   {"lz4", pack_lz4},
};

/* ---- bzImages ---- */

/* Around @payload; as large as it has to be, so that a sanitizer sees what lies outside. */
static struct direct_boot *image(const uint8_t *payload, size_t n, const char *text)
{
    struct direct_boot *d = g_new0(struct direct_boot, 1);
    uint8_t *k = g_malloc0(2 * SETUP + PAYLOAD + n);
    d->data = k;
    d->size = 2 * SETUP + PAYLOAD + n;
    d->setup_bytes = 2 * SETUP;
    d->kind = BOOT_LINUX;
    d->text = g_strdup(text);
    le16_put(k + 0x206, 0x20f);
    le32_put(k + 0x230, 2 * MB);
    k[0x234] = 1;
    le16_put(k + 0x236, 0x7f);
    le32_put(k + 0x248, PAYLOAD);
    le32_put(k + 0x24c, (uint32_t)n);
    le64_put(k + 0x258, LINKED);
    le32_put(k + 0x260, 128 * KIB);
    memcpy(k + 2 * SETUP + PAYLOAD, payload, n);
    return d;
}

static void image_free(struct direct_boot *d)
{
    g_free((void *)d->data);
    g_free(d->text);
    g_free(d);
}

static size_t pack(unsigned how, uint8_t *to, size_t room)
{
    size_t n = packers[how].pack(to, room);
    if (!packers[how].with_size) {
        le32_put(to + n, FILE_BYTES);
        n += 4;
    }
    return n;
}

static bool place(const struct direct_boot *d, struct vmlinux *v)
{
    /* What a PC with little memory below the hole has. */
    const struct ram_range ranges[] = {{MB, 11 * MB, ram},
                                       {UINT64_C(1) << 32, 5 * MB, ram + 11 * MB}};
    *v = (struct vmlinux){0};
    return vmlinux_place(d, ranges, 2, v);
}

static const uint8_t *host_of(uint64_t at)
{
    return at >= UINT64_C(1) << 32 ? ram + 11 * MB + (at - (UINT64_C(1) << 32)) : ram + at - MB;
}

/* The kernel at @v is the file's, all its addresses moved by the same; returns by what. */
static uint64_t check(const struct vmlinux *v)
{
    const uint8_t *k = host_of(v->at);
    g_autofree uint8_t *want = g_memdup2(elf + TEXT_FROM, TEXT_BYTES);
    uint64_t by = le64_at(k + RELOC_64_AT) - le64_at(want + RELOC_64_AT);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *wide = want + RELOC_64_AT + 16 * i, *negative = want + RELOC_NEGATIVE_AT + 16 * i;
        uint8_t *narrow = want + RELOC_32_AT + 16 * i;
        le64_put(wide, le64_at(wide) + by);
        le32_put(negative, le32_at(negative) - (uint32_t)by);
        le32_put(narrow, le32_at(narrow) + (uint32_t)by);
    }
    assert_memory_equal(k, want, TEXT_BYTES);
    assert_memory_equal(k + DATA_TO, elf + DATA_FROM, DATA_BYTES);
    assert_int_equal(v->entry, v->at + 0x40);
    assert_int_equal(by % (2 * MB), 0);
    assert_true(by <= (UINT64_C(1) << 30) - LINKED - 2 * MB);
    assert_int_equal(v->at % (2 * MB), 0);
    return by;
}

static void every_packing_is_understood(void **state)
{
    static uint8_t packed[FILE_BYTES * 2];
    (void)state;
    for (unsigned how = 0; how < G_N_ELEMENTS(packers); how++) {
        struct vmlinux v;
        struct direct_boot *d = image(packed, pack(how, packed, sizeof(packed)), "quiet");
        print_message("%s\n", packers[how].name);
        memset(ram, 0xcc, RAM_BYTES);
        assert_true(place(d, &v));
        assert_true(v.random);
        check(&v);
        image_free(d);
    }
}

/* Two threads share them. */
static void lz4_has_blocks_of_8_mib(void **state)
{
    enum { LZ4_BLOCK = 8 * MB, BLOCKS = 3, LAST = 1000, ALL = BLOCKS * LZ4_BLOCK + LAST };
    g_autofree uint8_t *packed = g_malloc0(BLOCKS * 40000), *to = g_malloc(ALL);
    uint8_t *p = packed + 4, *end;
    (void)state;
    memcpy(packed, "\x02\x21\x4c\x18", 4);
    for (unsigned i = 0; i < BLOCKS; i++, p = end) {
        end = lz4_sequence(p + 4, i, 1, 1, LZ4_BLOCK - 6);
        end = lz4_sequence(end, i + 1, 5, 0, 0);
        le32_put(p, (uint32_t)(end - p - 4));
    }
    end = lz4_sequence(p + 4, 100, LAST, 0, 0);
    le32_put(p, (uint32_t)(end - p - 4));
    size_t n = (size_t)(end - packed);
    assert_true(kernel_unpack(packed, n, to, ALL));
    for (unsigned i = 0; i < BLOCKS; i++) {
        const uint8_t *block = to + (size_t)i * LZ4_BLOCK;
        assert_int_equal(block[0], elf[i]);
        assert_memory_equal(block, block + 1, LZ4_BLOCK - 6);
        assert_memory_equal(block + LZ4_BLOCK - 5, elf + i + 1, 5);
    }
    assert_memory_equal(to + ALL - LAST, elf + 100, LAST);
    assert_false(kernel_unpack(packed, n, to, ALL - 1));
    for (unsigned cut = 1; cut < 12; cut++) { /* in its own room, which a sanitizer watches */
        g_autofree uint8_t *some = g_memdup2(packed, n - cut), *head = g_memdup2(packed, 4 + cut);
        assert_false(kernel_unpack(some, n - cut, to, ALL));
        assert_false(kernel_unpack(head, 4 + cut, to, ALL));
    }
    packed[8]++; /* the first block is a byte longer than it may be */
    assert_false(kernel_unpack(packed, n, to, ALL));
}

/* 4 MiB and 6 MiB (8 MiB is the initrd's), 10 MiB, and two places above 4 GiB. */
static void all_places_are_taken_and_no_other(void **state)
{
    static uint8_t packed[FILE_BYTES * 2];
    unsigned seen[5] = {0}, addresses = 0;
    uint64_t last = 1;
    (void)state;
    struct direct_boot *d = image(packed, pack(5, packed, sizeof(packed)), "quiet nokaslr2 xmem=1");
    d->initrd_at = 8 * MB;
    d->initrd_bytes = MB;
    for (unsigned n = 0; n < 400; n++) {
        static const uint64_t places[] = {4 * MB, 6 * MB, UINT64_C(1) << 32,
                                          (UINT64_C(1) << 32) + 2 * MB, 10 * MB};
        struct vmlinux v;
        unsigned i = 0;
        assert_true(place(d, &v));
        uint64_t by = check(&v);
        addresses += by != last;
        last = by;
        while (i < G_N_ELEMENTS(places) && places[i] != v.at) {
            i++;
        }
        assert_in_range(i, 0, G_N_ELEMENTS(places) - 1);
        seen[i]++;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(seen); i++) {
        assert_true(seen[i] > 20);
    }
    assert_true(addresses > 300);
    image_free(d);
}

static void what_the_user_says_counts(void **state)
{
    static const char *const left[] = {"mem=64M", "quiet memmap=1M$2M", "a hugepages=2",
                                       "hugepagesz=1G", "movable_node"};
    static uint8_t packed[FILE_BYTES * 2];
    struct vmlinux v;
    (void)state;
    size_t n = pack(0, packed, sizeof(packed));
    struct direct_boot *d = image(packed, n, "quiet nokaslr");
    assert_true(place(d, &v));
    assert_false(v.random);
    assert_int_equal(v.at, LINKED);
    assert_int_equal(check(&v), 0);
    assert_true(vmlinux_wants_five_levels(d));
    image_free(d);
    for (unsigned i = 0; i < G_N_ELEMENTS(left); i++) {
        d = image(packed, n, left[i]);
        assert_false(place(d, &v));
        image_free(d);
    }
    d = image(packed, n, "no5lvl"); /* not relocatable: where it was linked */
    ((uint8_t *)d->data)[0x234] = 0;
    assert_true(place(d, &v));
    assert_int_equal(v.at, LINKED);
    assert_false(v.random);
    assert_false(vmlinux_wants_five_levels(d));
    d->initrd_at = LINKED + MB / 16;
    d->initrd_bytes = 1;
    assert_false(place(d, &v));
    image_free(d);
}

/* A kernel without relocations is moved in memory, but keeps its virtual addresses. */
static void other_lists_of_relocations(void **state)
{
    uint8_t kept[4 * N_RELOCS], packed[FILE_BYTES * 2];
    struct vmlinux v;
    (void)state;
    memcpy(kept, elf + RELOCS, sizeof(kept));
    le64_put(elf + 40, RELOCS + sizeof(kept) - 64);
    struct direct_boot *d = image(packed, pack(4, packed, sizeof(packed)), "");
    assert_true(place(d, &v));
    assert_false(v.random);
    assert_int_equal(check(&v), 0);
    image_free(d);
    le64_put(elf + 40, SECTIONS);
    for (unsigned i = 0; i < N_RELOCS; i++) { /* one list, four of them, an address outside */
        le32_put(elf + RELOCS + 4 * i, i ? le32_at(kept + 4) : 0);
    }
    for (unsigned bad = 0; bad < 3; bad++) {
        if (bad == 1) {
            le32_put(elf + RELOCS + 8, 0);
            le32_put(elf + RELOCS + 16, 0);
            le32_put(elf + RELOCS + 24, 0);
        } else if (bad == 2) {
            memcpy(elf + RELOCS, kept, sizeof(kept));
            le32_put(elf + RELOCS + 4, (uint32_t)(WINDOW + LINKED + DATA_TO + DATA_BYTES - 7));
        }
        d = image(packed, pack(4, packed, sizeof(packed)), "");
        assert_false(place(d, &v));
        image_free(d);
    }
    memcpy(elf + RELOCS, kept, sizeof(kept));
}

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Nothing outside its place is written, whatever is wrong; a sanitizer sees more. */
static void damaged_images_do_no_harm(void **state)
{
    static uint8_t packed[FILE_BYTES * 2], kept[FILE_BYTES];
    static uint8_t good[G_N_ELEMENTS(packers)][FILE_BYTES * 2];
    size_t good_size[G_N_ELEMENTS(packers)];
    uint64_t seed = test_seed("damaged images");
    unsigned placed = 0;
    (void)state;
    memcpy(kept, elf, FILE_BYTES);
    for (unsigned how = 0; how < G_N_ELEMENTS(packers); how++) {
        good_size[how] = pack(how, good[how], sizeof(good[how]));
    }
    for (unsigned round = 0; round < 6000; round++) {
        struct vmlinux v;
        unsigned how = round % G_N_ELEMENTS(packers);
        size_t size;
        bool inside = next(&seed) % 2; /* the ELF file itself is wrong */
        for (uint64_t n = next(&seed) % 4; inside && n; n--) {
            uint64_t at =
                next(&seed) % 3 ? next(&seed) % 176 : RELOCS + next(&seed) % (4 * N_RELOCS);
            elf[at] = (uint8_t)(next(&seed) % 3 ? next(&seed) : 0xff);
        }
        if (inside) { /* lzma, zstd and bzip2 take their time */
            size = pack(G_N_ELEMENTS(packers) - 1, packed, sizeof(packed));
            memcpy(elf, kept, FILE_BYTES);
        } else {
            size = good_size[how];
            memcpy(packed, good[how], size);
        }
        for (uint64_t n = inside ? 0 : 1 + next(&seed) % 3; n; n--) {
            packed[next(&seed) % (next(&seed) % 2 ? 40 : size)] ^= (uint8_t)(1 << next(&seed) % 8);
        }
        size_t cut = next(&seed) % 5 ? 0 : next(&seed) % size;
        struct direct_boot *d = image(packed, size - cut, "");
        if (next(&seed) % 4 == 0) {
            static const uint16_t fields[] = {0x230, 0x234, 0x248, 0x24c, 0x258, 0x260};
            ((uint8_t *)d->data)[fields[next(&seed) % G_N_ELEMENTS(fields)] + next(&seed) % 4] =
                (uint8_t)next(&seed);
        }
        placed += place(d, &v);
        image_free(d);
    }
    print_message("%u of 6000 could be placed\n", placed);
}

static int make(void **state)
{
    (void)state;
    ram = g_malloc(RAM_BYTES);
    make_elf();
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    g_free(ram);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_packing_is_understood),
        cmocka_unit_test(lz4_has_blocks_of_8_mib),
        cmocka_unit_test(all_places_are_taken_and_no_other),
        cmocka_unit_test(what_the_user_says_counts),
        cmocka_unit_test(other_lists_of_relocations),
        cmocka_unit_test(damaged_images_do_no_harm),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
