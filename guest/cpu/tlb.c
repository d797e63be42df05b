/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tlb: filling and flushing of the flat tables.  What they are stands in tlb.h.
 *
 * The tables are one NORESERVE mapping of zeroes, of which the kernel gives memory to the
 * pages that are used.  A flush zeroes what was filled, from a log; where the log has
 * overflowed, or where more table pages hold memory than MAX_TABLE_PAGES, all memory is
 * given back at once.
 */
#include "guest/cpu/tlb.h"

#include "guest/cpu/debug.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/paging.h"
#include "guest/memory/ahead.h"

#include <string.h>
#include <sys/mman.h>

enum {
    LOG_SLOTS = 65536,      /* 256 MiB of pages; memory only where it was used */
    MAX_TABLE_PAGES = 1024, /* 4 MiB */
    SEEN_SLOTS = 4096,
    SIDE_SLOTS = 256,
    LARGE_SLOTS = 4096,
    MANY_MISSES = 64, /* since a flush: from there on neighbours are filled, too */
    NEIGHBOURS = 8,   /* pages whose entries share a cache line */
};
#define TABLES_BYTES (TLB_TABLES * (TLB_TABLE_BYTES + TLB_TABLE_SKEW))
#define WHOLE_BYTES  (TLB_HEADER_BYTES + TABLES_BYTES)
#define WRITER_BYTES (ram_pool_size / PAGE_SIZE * sizeof(uint64_t))
G_STATIC_ASSERT(sizeof(struct tlb) <= TLB_HEADER_BYTES - TLB_ENGINE_BYTES);

/* Larger than any tag: until all of the TLB is flushed. */
#define LARGE_SEVERAL UINT32_MAX

/* Pages without a direct path: device registers, pages with flags; and fetches. */
struct side {
    uint64_t key;  /* linear page | mode << 2 | kind; 0 is no key, see side_key() */
    uint32_t turn; /* another than the TLB's: stale */
    bool io, note;
    uint8_t *host; /* of the page */
    uint64_t gpa;
};

struct tlb_log {
    uint64_t *slot[2]; /* filled slots, numbered through all tables; [1]: global pages */
    unsigned n[2];
    bool huge;                   /* 1 GiB pages were filled: INVLPG flushes all */
    uint32_t large[LARGE_SLOTS]; /* hashed: which 2 MiB a large page maps, see large_tag() */
    uint32_t seen[SEEN_SLOTS];   /* hashed: table pages that have been touched */
    struct side side[SIDE_SLOTS];
    /*
     * The direct write path to each page of RAM, by ram_page_index(): its slot, and the number
     * of the last flush (of global entries: with WRITER_GLOBAL) before the fill.  A stale
     * number means none, WRITER_MANY that there may be several.
     */
    _Atomic uint64_t *writer;
    uint32_t writer_turn[2];
};

#define WRITER_SLOT   ((UINT64_C(1) << (TLB_INDEX_BITS + 3)) - 1)
#define WRITER_MANY   (UINT64_C(1) << 39)
#define WRITER_GLOBAL (UINT64_C(1) << 40)
enum { WRITER_TURN_SHIFT = 41 };
G_STATIC_ASSERT(TLB_INDEX_BITS + 3 <= 39);

struct tlb *tlb_new(GError **error)
{
    uint8_t *base = mmap(NULL, WHOLE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        error_set_errno(error, errno, "cannot reserve address space for the TLB of a vCPU");
        return NULL;
    }
    madvise(base, WHOLE_BYTES, MADV_NOHUGEPAGE); /* a fill must not cost 2 MiB */
    madvise(base, WHOLE_BYTES, MADV_DONTDUMP);
    struct tlb *t = (struct tlb *)(base + TLB_ENGINE_BYTES);
    for (unsigned i = 0; i < TLB_MODES * 2; i++) {
        unsigned place = tlb_table((enum tlb_mode)(i / 2), i & 1);
        t->table[i / 2][i & 1] = (int64_t *)(base + TLB_HEADER_BYTES + tlb_table_offset(place));
    }
    t->log = g_new0(struct tlb_log, 1);
    t->log->writer = mmap(NULL, WRITER_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->log->writer == MAP_FAILED) {
        error_set_errno(error, errno, "cannot reserve address space for the TLB of a vCPU");
        g_free(t->log);
        munmap(base, WHOLE_BYTES);
        return NULL;
    }
    t->log->slot[0] = g_new(uint64_t, LOG_SLOTS);
    t->log->slot[1] = g_new(uint64_t, LOG_SLOTS);
    t->turn = 1;
    return t;
}

void tlb_free(struct tlb *t)
{
    if (!t) {
        return;
    }
    g_free(t->log->slot[0]);
    g_free(t->log->slot[1]);
    munmap(t->log->writer, WRITER_BYTES);
    g_free(t->log);
    munmap(tlb_engine_area(t), WHOLE_BYTES);
}

static int64_t *entry_at(const struct tlb *t, uint64_t slot)
{
    uint64_t index = slot & ((UINT64_C(1) << TLB_INDEX_BITS) - 1);
    uint8_t *table =
        (uint8_t *)t->table[0][0] + tlb_table_offset((unsigned)(slot >> TLB_INDEX_BITS));
    return (int64_t *)table + index;
}

/* ---- dropping ---- */

static void drop_side(struct tlb *t)
{
    t->missed = 0;
    if (++t->turn == 0) { /* after 2^32 flushes */
        memset(t->log->side, 0, sizeof(t->log->side));
        t->turn = 1;
    }
}

static void drop_writers(struct tlb_log *log, bool global)
{
    __atomic_store_n(&log->writer_turn[global], log->writer_turn[global] + 1, __ATOMIC_RELAXED);
}

static void drop_all(struct tlb *t)
{
    struct tlb_log *log = t->log;
    drop_writers(log, false);
    drop_writers(log, true);
    madvise(t->table[0][0], TABLES_BYTES, MADV_DONTNEED);
    memset(log->seen, 0, sizeof(log->seen));
    memset(log->large, 0, sizeof(log->large));
    log->huge = false;
    log->n[0] = log->n[1] = 0;
    t->pages_touched = 0;
    t->full_flushes++;
    drop_side(t);
}

static void drop_logged(struct tlb *t, bool global)
{
    struct tlb_log *log = t->log;
    for (unsigned i = 0; i < log->n[global]; i++) {
        *entry_at(t, log->slot[global][i]) = 0;
    }
    log->n[global] = 0;
    drop_writers(log, global);
}

static void tell_engine(struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool global)
{
    if (cpu->engine && cpu->engine->unmapped) {
        cpu->engine->unmapped(cpu, linear, bytes, global);
    }
}

void tlb_flush(struct vcpu *cpu, bool global_too)
{
    struct tlb *t = cpu->tlb;
    if (t) {
        t->flushes++;
        drop_logged(t, false);
        if (global_too) {
            drop_logged(t, true);
            memset(t->log->large, 0, sizeof(t->log->large));
            t->log->huge = false;
        }
        drop_side(t);
    }
    tell_engine(cpu, 0, 0, global_too);
}

static uint32_t *large_at(struct tlb_log *log, uint64_t linear)
{
    return &log->large[(linear >> 21 ^ linear >> 33) % LARGE_SLOTS];
}

/* Of the 2 MiB around @linear; 0 is none. */
static uint32_t large_tag(uint64_t linear)
{
    return (uint32_t)(linear << 16 >> 37) + 1;
}

static void note_large(struct tlb *t, uint64_t linear, uint64_t bytes)
{
    uint32_t *at = large_at(t->log, linear), tag = large_tag(linear);
    t->log->huge |= bytes > UINT64_C(1) << 22;
    *at = *at && *at != tag ? LARGE_SEVERAL : tag;
}

/* Were entries of these 2 MiB filled from a large page?  All of them are dropped now. */
static bool forget_large(struct tlb_log *log, uint64_t linear)
{
    uint32_t *at = large_at(log, linear), was = *at;
    if (was == LARGE_SEVERAL) {
        return true;
    }
    *at = was == large_tag(linear) ? 0 : was;
    return was && !*at;
}

/* The table pages of the 2 MiB around @linear, one page in each table. */
static void drop_2m(struct tlb *t, uint64_t linear)
{
    uint64_t first = tlb_index(linear) & ~UINT64_C(511);
    for (unsigned i = 0; i < TLB_TABLES; i++) {
        madvise(&t->table[i / 2][i & 1][first], 4096, MADV_DONTNEED);
    }
}

void tlb_flush_page(struct vcpu *cpu, uint64_t linear)
{
    struct tlb *t = cpu->tlb;
    if (!t) {
        return;
    }
    if (t->log->huge) {
        tlb_flush(cpu, true);
        return;
    }
    bool four_mib = !(cpu->r.cr4 & CR4_PAE);
    bool large = forget_large(t->log, linear);
    large |= four_mib && forget_large(t->log, linear ^ 1u << 21);
    if (large) {
        uint64_t bytes = UINT64_C(2) << (20 + four_mib);
        drop_2m(t, linear);
        if (four_mib) {
            drop_2m(t, linear ^ 1u << 21);
        }
        drop_side(t);
        tell_engine(cpu, linear & ~(bytes - 1), bytes, true);
        return;
    }
    for (unsigned i = 0; i < TLB_TABLES; i++) {
        int64_t *slot = &t->table[i / 2][i & 1][tlb_index(linear)];
        if (*slot) {
            *slot = 0;
        }
    }
    drop_side(t);
    tell_engine(cpu, linear & PAGE_MASK, PAGE_SIZE, true);
}

/* Zeroes a write entry if it leads to the page; any thread. */
static bool drop_write(struct tlb *t, uint64_t slot, uint64_t host_page)
{
    uint64_t linear = (uint64_t)((int64_t)(slot << 28) >> 16); /* sign of bit 47 */
    int64_t add = (int64_t)(host_page - linear);
    return __atomic_compare_exchange_n(entry_at(t, slot), &add, 0, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

static bool drop_writes_in(struct tlb *t, bool global, uint64_t host_page)
{
    struct tlb_log *log = t->log;
    unsigned n = MIN(__atomic_load_n(&log->n[global], __ATOMIC_ACQUIRE), LOG_SLOTS);
    bool found = false;
    for (unsigned i = 0; i < n; i++) {
        uint64_t slot = __atomic_load_n(&log->slot[global][i], __ATOMIC_RELAXED);
        if (tlb_table_is_write((unsigned)(slot >> TLB_INDEX_BITS))) {
            found |= drop_write(t, slot, host_page);
        }
    }
    return found;
}

static bool is_current(const struct tlb_log *log, uint64_t writer)
{
    uint32_t turn =
        __atomic_load_n(&log->writer_turn[!!(writer & WRITER_GLOBAL)], __ATOMIC_RELAXED);
    return ((uint64_t)turn << WRITER_TURN_SHIFT ^ writer) >> WRITER_TURN_SHIFT == 0;
}

/* Zeroes the write entries of @t for the page; any thread.  False: there was none. */
static bool drop_writes_of(struct tlb *t, uint64_t host_page)
{
    _Atomic uint64_t *writer = &t->log->writer[ram_page_index((void *)host_page)];
    uint64_t w = atomic_load(writer);
    bool found;
    if (!w) {
        return false;
    }
    atomic_store(writer, 0); /* who fills now sees the page's flag afterwards */
    if (!(w & WRITER_MANY)) {
        return is_current(t->log, w) && drop_write(t, w & WRITER_SLOT, host_page);
    }
    found = drop_writes_in(t, false, host_page);
    found |= drop_writes_in(t, true, host_page);
    return found;
}

bool (*tlb_other_writers)(struct vcpu *cpu, const void *host_page);

bool tlb_drop_writes(struct vcpu *cpu, const void *host)
{
    uint64_t page = (uint64_t)host & PAGE_MASK;
    bool others = tlb_other_writers && tlb_other_writers(cpu, (const void *)page);
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *one = vcpu_at(i);
        if (one->tlb) {
            bool found = drop_writes_of(one->tlb, page);
            others |= found && one != cpu;
        }
    }
    return others;
}

/* ---- filling ---- */

/* Counts the table page of @slot if it was not counted lately; an estimate from above. */
static void touch(struct tlb *t, uint64_t slot)
{
    uint32_t page = (uint32_t)(slot >> 9) + 1;
    uint32_t *seen = &t->log->seen[(page ^ page >> 12 ^ page >> 24) % SEEN_SLOTS];
    if (*seen != page) {
        *seen = page;
        t->pages_touched++;
    }
}

static uint64_t slot_of(enum tlb_mode mode, bool write, uint64_t linear)
{
    return (uint64_t)tlb_table(mode, write) << TLB_INDEX_BITS | tlb_index(linear);
}

static void fill(struct tlb *t, enum tlb_mode mode, bool write, uint64_t linear, uint8_t *page,
                 bool global)
{
    struct tlb_log *log = t->log;
    uint64_t slot = slot_of(mode, write, linear);
    touch(t, slot);
    if (t->pages_touched > MAX_TABLE_PAGES || log->n[global] == LOG_SLOTS) {
        drop_all(t);
        touch(t, slot);
    }
    log->slot[global][log->n[global]] = slot;
    __atomic_store_n(&log->n[global], log->n[global] + 1, __ATOMIC_RELEASE);
    *entry_at(t, slot) = (int64_t)((uint64_t)page - (linear & PAGE_MASK));
    t->fills++;
    if (!write) {
        return;
    }
    /* Who gives the page a flag sees this entry, or this sees the flag: tlb_drop_writes(). */
    _Atomic uint64_t *writer = &log->writer[ram_page_index(page)];
    uint64_t was = atomic_load(writer);
    bool many = was && (was & WRITER_MANY || (is_current(log, was) && (was & WRITER_SLOT) != slot));
    atomic_store(writer, slot | (many ? WRITER_MANY : 0) | (global ? WRITER_GLOBAL : 0) |
                             (uint64_t)log->writer_turn[global] << WRITER_TURN_SHIFT);
    atomic_thread_fence(memory_order_seq_cst);
    if (ram_flags(page)) {
        *entry_at(t, slot) = 0;
    }
}

static uint64_t side_key(enum tlb_mode mode, uint64_t linear, unsigned want)
{
    unsigned kind = want & ACCESS_FETCH ? 3 : want & ACCESS_WRITE ? 2 : 1;
    return (linear & PAGE_MASK) | (unsigned)mode << 2 | kind;
}

/* Code that is written to and fetched in turn has a place for each. */
static struct side *side_at(struct tlb *t, uint64_t key)
{
    return &t->log->side[(key >> 12 ^ key >> 20 ^ (key & 3) << 6) % SIDE_SLOTS];
}

static void side_answer(const struct side *s, uint64_t linear, struct tlb_result *out)
{
    uint64_t at = linear & ~PAGE_MASK;
    *out = (struct tlb_result){
        .host = s->host ? s->host + at : NULL, .gpa = s->gpa + at, .io = s->io, .note = s->note};
}

/* What the page at @gpa is, for accesses of kind @want; rights were checked. */
static void resolve(struct vcpu *cpu, uint64_t gpa, unsigned want, struct side *s, uint8_t *flags)
{
    uint64_t page = gpa & PAGE_MASK;
    struct span v = space_find(cpu->memory, page);
    bool whole = v.host && v.start <= page && v.end - page >= PAGE_SIZE;
    bool write = want & ACCESS_WRITE;
    s->gpa = page;
    s->host = whole && (v.writable || !write) ? v.host + (page - v.start) : NULL;
    *flags = 0;
    if (s->host) {
        ahead_touch(s->host);
        *flags = ram_flags(s->host);
    }
    s->note = write && *flags;
    s->io = !s->host;
}

/* @want for the walk: a kernel table without the AC rule is for implicit accesses too. */
static unsigned walk_want(enum tlb_mode mode, unsigned want)
{
    return mode == TLB_USER     ? want | ACCESS_USER
           : mode == TLB_KERNEL ? (want & ~(unsigned)ACCESS_USER) | ACCESS_IMPLICIT
                                : want & ~(unsigned)ACCESS_USER;
}

static bool may_be_direct(const struct vcpu *cpu, uint64_t linear, const struct side *page,
                          uint8_t flags)
{
    return page->host && !(flags & PAGE_WATCH) && !debug_watches_page(cpu, linear);
}

/*
 * Fills the entries beside that of @linear which need nothing but to be filled: after a flush
 * a program misses all its pages, one after the other.  A processor may do so as well: what
 * is filled is present, allowed, and has its A and D flags.
 */
static void fill_around(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, unsigned want)
{
    struct tlb *t = cpu->tlb;
    bool write = want & ACCESS_WRITE;
    uint64_t first = linear & ~(uint64_t)(NEIGHBOURS * PAGE_SIZE - 1);
    for (uint64_t at = first; at < first + NEIGHBOURS * PAGE_SIZE; at += PAGE_SIZE) {
        struct translation tr;
        struct side page;
        uint32_t code;
        uint8_t flags;
        if (t->table[mode][write][tlb_index(at)] || t->log->n[0] >= LOG_SLOTS - NEIGHBOURS ||
            t->log->n[1] >= LOG_SLOTS - NEIGHBOURS ||
            paging_walk(cpu, at, walk_want(mode, want), true, &tr, &code) < 0 || !tr.accessed ||
            (write && !tr.dirty)) {
            continue;
        }
        resolve(cpu, tr.gpa, want, &page, &flags);
        if (may_be_direct(cpu, at, &page, flags) && !page.note) {
            if (tr.bytes > PAGE_SIZE) {
                note_large(t, at, tr.bytes);
            }
            fill(t, mode, write, at, page.host, tr.global);
        }
    }
}

int tlb_fill(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, unsigned want,
             struct tlb_result *out, uint32_t *error_code)
{
    struct tlb *t = cpu->tlb;
    uint64_t key = side_key(mode, linear, want);
    struct side *side = side_at(t, key), fresh;
    struct translation tr;
    uint8_t flags;
    if (side->key == key && side->turn == t->turn && (!side->note || ram_flags(side->host))) {
        side_answer(side, linear, out);
        return 0;
    }
    if (!(want & ACCESS_FETCH)) {
        touch(t, slot_of(mode, want & ACCESS_WRITE, linear)); /* the lookup that missed did */
    }
    if (paging_walk(cpu, linear, walk_want(mode, want), false, &tr, error_code) < 0) {
        return -1;
    }
    resolve(cpu, tr.gpa, want, &fresh, &flags);
    if (tr.bytes > PAGE_SIZE) {
        note_large(t, linear, tr.bytes);
    }
    bool direct = !(want & ACCESS_FETCH) && may_be_direct(cpu, linear, &fresh, flags);
    if (direct && !fresh.note) {
        fill(t, mode, want & ACCESS_WRITE, linear, fresh.host, tr.global);
        if (++t->missed > MANY_MISSES) {
            fill_around(cpu, mode, linear, want);
        }
    }
    if (!direct || fresh.note) {
        fresh.key = key;
        fresh.turn = t->turn;
        *side = fresh;
    }
    side_answer(&fresh, linear, out);
    return 0;
}
