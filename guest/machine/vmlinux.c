/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmlinux: the 64-bit kernel inside a bzImage, placed as its own decompressor would place it,
 * only faster.  Its places in memory and in its address space are chosen by chance out of those
 * that the decompressor would choose from, if the kernel can be relocated.
 *
 * Spec: Linux kernel documentation, "The Linux/x86 Boot Protocol", "Details of Header Fields",
 * "64-bit Boot Protocol"; Tool Interface Standard, Executable and Linking Format 1.2.  The table
 * of relocations behind the ELF file is what the kernel's build puts there: addresses (32 bits,
 * sign-extended) of 64-bit words, of 32-bit words that are subtracted from, if this kernel has
 * such, and of 32-bit words; 0 in front of each of the lists.
 *
 * What is not understood is left to the kernel's own decompressor; the bytes are a file's that
 * nobody vouches for.
 */
#include "base/bytes.h"
#include "guest/machine/load.h"
#include "guest/memory/ram.h"

#include <string.h>
#include <sys/random.h>

/* In the setup header. */
enum {
    SETUP_VERSION = 0x206,
    SETUP_ALIGNMENT = 0x230,
    SETUP_RELOCATABLE = 0x234,
    SETUP_XLOADFLAGS = 0x236,
    SETUP_PAYLOAD = 0x248,
    SETUP_PAYLOAD_BYTES = 0x24c,
    SETUP_PREF_ADDRESS = 0x258,
    SETUP_INIT_SIZE = 0x260
};
enum { HAS_64_BIT_ENTRY = 1, FIVE_LEVELS_ENABLED = 1 << 6 };
enum {
    ELF_MACHINE_X86_64 = 62,
    PT_LOAD = 1,
    ELF_HEADER = 64,
    PROGRAM_HEADER = 56,
    SEGMENTS_MAX = 16
};
enum { RELOC_64, RELOC_NEGATIVE, RELOC_32, RELOC_LISTS };
#define IMAGE_AT      UINT64_C(0xffffffff80000000) /* the kernel's window for itself */
#define IMAGE_BYTES   (UINT64_C(1) << 30)          /* ... with relocations */
#define HIGHEST_START (UINT64_C(512) << 20)
#define SPAN_ALIGN    (UINT64_C(2) << 20)

struct segment {
    uint64_t from, to, bytes; /* in the file; from the kernel's start */
};

struct list {
    const uint8_t *at;
    size_t n;
};

struct image {
    const uint8_t *packed;
    size_t packed_bytes, unpacked_bytes;
    uint64_t linked_at, align, span; /* span: bytes that are its own from its start on */
    bool relocatable;
    struct segment segment[SEGMENTS_MAX];
    unsigned n_segments;
    uint64_t entry, end; /* from the kernel's start; of what is loaded from the file */
    struct list relocs[RELOC_LISTS];
    bool has_relocs;
};

/* Words of the command line after which the decompressor chooses otherwise. */
static const char *const left_to_the_kernel[] = {
    "mem=", "memmap=", "hugepages=", "hugepagesz=", "default_hugepagesz=", "movable_node",
};

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static bool has_word(const char *text, const char *word, bool prefix)
{
    size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)); at += n) {
        bool begins = at == text || g_ascii_isspace(at[-1]);
        if (begins && (prefix || !at[n] || g_ascii_isspace(at[n]))) {
            return true;
        }
    }
    return false;
}

/* ---- the file ---- */

static bool find_payload(const struct direct_boot *d, struct image *k)
{
    const uint8_t *h = d->data;
    uint64_t at = d->setup_bytes + (uint64_t)le32_at(h + SETUP_PAYLOAD);
    uint64_t n = le32_at(h + SETUP_PAYLOAD_BYTES);
    if (le16_at(h + SETUP_VERSION) < 0x20c || !(le16_at(h + SETUP_XLOADFLAGS) & HAS_64_BIT_ENTRY) ||
        n < 4 || at > d->size || n > d->size - at) {
        return false;
    }
    k->packed = h + at;
    k->packed_bytes = n;
    k->unpacked_bytes = le32_at(k->packed + n - 4);
    k->linked_at = le64_at(h + SETUP_PREF_ADDRESS);
    k->align = le32_at(h + SETUP_ALIGNMENT);
    k->relocatable = h[SETUP_RELOCATABLE];
    k->span = round_up(le32_at(h + SETUP_INIT_SIZE), SPAN_ALIGN);
    return k->unpacked_bytes >= ELF_HEADER && k->unpacked_bytes <= k->span &&
           k->align >= PAGE_SIZE && (k->align & (k->align - 1)) == 0 &&
           k->linked_at >= SPAN_ALIGN && k->linked_at % k->align == 0 &&
           k->linked_at <= IMAGE_BYTES && k->span <= IMAGE_BYTES - k->linked_at;
}

static bool read_segment(struct image *k, const uint8_t *p)
{
    uint64_t from = le64_at(p + 8), paddr = le64_at(p + 24), n = le64_at(p + 32);
    uint64_t all = le64_at(p + 40), to = paddr - k->linked_at;
    if (le32_at(p) != PT_LOAD) {
        return true;
    }
    if (from > k->unpacked_bytes || n > k->unpacked_bytes - from || paddr < k->linked_at ||
        n > all || to > k->span || all > k->span - to || k->n_segments == SEGMENTS_MAX) {
        return false;
    }
    k->segment[k->n_segments++] = (struct segment){.from = from, .to = to, .bytes = n};
    k->end = MAX(k->end, to + n);
    return true;
}

/* Segments are moved one after another: none may land on what is still to be moved. */
static bool can_be_moved(const struct image *k, uint64_t tail)
{
    for (unsigned i = 0; i < k->n_segments; i++) {
        uint64_t end = k->segment[i].to + k->segment[i].bytes;
        for (unsigned j = i + 1; j < k->n_segments; j++) {
            const struct segment *s = &k->segment[j];
            if (end > s->from && k->segment[i].to < s->from + s->bytes) {
                return false;
            }
        }
        if (end > tail) {
            return false;
        }
    }
    return k->n_segments > 0;
}

/* The lists of relocations lie between @tail and the file's end. */
static bool read_relocs(struct image *k, const uint8_t *file, uint64_t tail)
{
    const uint8_t *p = file + tail;
    size_t n = (k->unpacked_bytes - tail) / 4;
    size_t starts[RELOC_LISTS + 1], n_lists = 0;
    if (!n) {
        return true;
    }
    if (k->unpacked_bytes % 4 || tail % 4 || le32_at(p)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)(int32_t)le32_at(p + 4 * i);
        if (at == 0) {
            if (n_lists == RELOC_LISTS) {
                return false;
            }
            starts[n_lists++] = i + 1;
        } else if (at < IMAGE_AT + k->linked_at || at - IMAGE_AT - k->linked_at > k->end - 8) {
            return false;
        }
    }
    if (n_lists < 2) {
        return false;
    }
    starts[n_lists] = n + 1;
    for (size_t i = 0; i < n_lists; i++) {
        unsigned kind = i + 1 == n_lists ? RELOC_32 : (unsigned)i;
        k->relocs[kind] = (struct list){p + 4 * starts[i], starts[i + 1] - 1 - starts[i]};
    }
    k->has_relocs = k->relocatable;
    return true;
}

static bool read_elf(struct image *k, const uint8_t *file)
{
    uint64_t headers = le64_at(file + 32), sections = le64_at(file + 40);
    unsigned n = le16_at(file + 56), shentsize = le16_at(file + 58), shnum = le16_at(file + 60);
    uint64_t tail = sections + (uint64_t)shentsize * shnum;
    if (memcmp(file, "\177ELF\2\1", 6) != 0 || le16_at(file + 18) != ELF_MACHINE_X86_64 ||
        le16_at(file + 54) != PROGRAM_HEADER || headers > k->unpacked_bytes ||
        n * PROGRAM_HEADER > k->unpacked_bytes - headers || sections > k->unpacked_bytes ||
        tail > k->unpacked_bytes) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!read_segment(k, file + headers + i * PROGRAM_HEADER)) {
            return false;
        }
    }
    k->entry = le64_at(file + 24) - k->linked_at;
    return k->end >= 8 && k->entry < k->end && can_be_moved(k, tail) && read_relocs(k, file, tail);
}

/* ---- its place ---- */

/* Places of @k in @r, from *first on. */
static uint64_t places_in(const struct image *k, const struct ram_range *r, uint64_t *first)
{
    *first = round_up(MAX(r->at, MIN(k->linked_at, HIGHEST_START)), k->align);
    uint64_t end = r->at + r->bytes;
    return end < *first || end - *first < k->span ? 0 : (end - *first - k->span) / k->align + 1;
}

/* Host address of the kernel's place, *at in guest memory.  NULL: there is none. */
static uint8_t *choose_place(const struct image *k, const struct ram_range *free, unsigned n,
                             const uint64_t *random, uint64_t *at)
{
    uint64_t all = 0, first, chosen;
    for (unsigned i = 0; i < n; i++) {
        all += places_in(k, &free[i], &first);
    }
    chosen = random && all ? random[0] % all : 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t here = places_in(k, &free[i], &first);
        uint64_t wanted = random ? first + chosen * k->align : k->linked_at;
        if (random ? chosen < here
                   : here && first <= wanted && wanted - first <= (here - 1) * k->align) {
            *at = wanted;
            return free[i].host + (wanted - free[i].at);
        }
        chosen -= MIN(here, chosen);
    }
    return NULL;
}

/* RAM without the initrd: at most one range more. */
static unsigned without_initrd(const struct direct_boot *d, const struct ram_range *ram, unsigned n,
                               struct ram_range *free)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        struct ram_range r = ram[i];
        uint64_t end = r.at + r.bytes, initrd_end = d->initrd_at + d->initrd_bytes;
        if (d->initrd_bytes && d->initrd_at < end && initrd_end > r.at) {
            uint64_t below = d->initrd_at - MIN(r.at, d->initrd_at);
            free[count++] = (struct ram_range){r.at, below, r.host};
            uint64_t skip = MIN(initrd_end, end) - r.at;
            r = (struct ram_range){r.at + skip, r.bytes - skip, r.host + skip};
        }
        free[count++] = r;
    }
    return count;
}

static void relocate(const struct image *k, uint8_t *kernel, uint64_t by)
{
    for (unsigned kind = 0; kind < RELOC_LISTS; kind++) {
        const struct list *l = &k->relocs[kind];
        for (size_t i = 0; i < l->n; i++) {
            uint64_t at = (uint64_t)(int32_t)le32_at(l->at + 4 * i) - IMAGE_AT - k->linked_at;
            uint8_t *p = kernel + at;
            if (kind == RELOC_64) {
                le64_put(p, le64_at(p) + by);
            } else {
                le32_put(p, le32_at(p) + (uint32_t)(kind == RELOC_32 ? by : 0 - by));
            }
        }
    }
}

bool vmlinux_place(const struct direct_boot *d, const struct ram_range *ram, unsigned n,
                   struct vmlinux *out)
{
    struct image k = {0};
    struct ram_range free[VMLINUX_RANGES + 1];
    uint64_t random[2];
    for (unsigned i = 0; i < G_N_ELEMENTS(left_to_the_kernel); i++) {
        if (has_word(d->text, left_to_the_kernel[i], true)) {
            return false;
        }
    }
    if (n > VMLINUX_RANGES || !find_payload(d, &k) ||
        getrandom(random, sizeof(random), 0) != sizeof(random)) {
        return false;
    }
    bool by_chance = k.relocatable && !has_word(d->text, "nokaslr", false);
    unsigned n_free = without_initrd(d, ram, n, free);
    uint8_t *kernel = choose_place(&k, free, n_free, by_chance ? random : NULL, &out->at);
    if (!kernel || !kernel_unpack(k.packed, k.packed_bytes, kernel, k.unpacked_bytes) ||
        !read_elf(&k, kernel)) {
        return false;
    }
    for (unsigned i = 0; i < k.n_segments; i++) {
        memmove(kernel + k.segment[i].to, kernel + k.segment[i].from, k.segment[i].bytes);
    }
    out->end = out->at + k.span;
    out->entry = out->at + k.entry;
    out->random = by_chance && k.has_relocs;
    if (out->random) {
        uint64_t places = (IMAGE_BYTES - k.linked_at - k.span) / k.align + 1;
        relocate(&k, kernel, random[1] % places * k.align);
    }
    return true;
}

bool vmlinux_wants_five_levels(const struct direct_boot *d)
{
    return (le16_at(d->data + SETUP_XLOADFLAGS) & FIVE_LEVELS_ENABLED) &&
           !has_word(d->text, "no5lvl", false);
}
