/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache: memory for code, and finding blocks.
 *
 * One file in memory, with huge pages where the host has them, mapped twice, writable and
 * executable, so that no page is ever both.  It has parts, which are filled one after the other. In
 * each hot code grows from the start, out-of-line code from behind it, blocks and descriptors down
 * from the end.  When one of them meets another all vCPUs leave, and the part that was begun
 * longest ago gives up its blocks.  The first time all but the newest may go for good: a boot
 * translates far more than the guest needs later.
 */
#include "guest/cpu/translate/translate.h"

#include "base/util.h"
#include "guest/memory/ahead.h"
#include "guest/memory/hugefile.h"

#include <string.h>
#include <sys/mman.h>

/* What runs straight on is a bit more than a third of all that is written for a block. */
#define HOT_SHARE(bytes) ((bytes) / 64 * 22 & PAGE_MASK)
enum {
    PARTS = 4,
    MOST_PARTS = 24,
    HASH_BITS_LEAST = 14,
    HASH_SHARE = 512 /* bytes of cache a slot */,
    LISTED = 1 << 16,
    BLOCK_ROOM = 32768,
    META_ROOM = 16384
};

struct part {
    uint8_t *hot_start, *middle, *end;
    uint8_t *hot_at, *cold_at, *meta_at;
    struct block **listed; /* by ascending .code, for faults */
    _Atomic unsigned n_listed;
};

pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
_Atomic bool cache_full;
unsigned cache_generation;
uint8_t *cache_start, *cache_end;
ptrdiff_t cache_exec;

static struct part parts[MOST_PARTS]; /* a ring, of which .. */
static unsigned n_parts, may_live;    /* .. so many may hold blocks at a time */
static bool resting;                  /* what the boot needed is not needed any more */
static uint64_t part_bytes;
static struct part *now = parts; /* the one that is filled */
static uint8_t *meta_before;
static struct block **hash; /* [1 << hash_bits] */
static unsigned hash_bits;

static void *lazy_zeroes(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static struct block **bucket(const uint8_t *host, uint64_t pc)
{
    uint64_t h = ((uint64_t)host ^ pc >> 12) * UINT64_C(0x9e3779b97f4a7c15);
    return &hash[h >> (64 - hash_bits)];
}

static void hash_in(struct block *b)
{
    struct block **head = bucket(b->host, b->pc);
    b->next_hash = *head;
    *head = b;
}

static void part_clear(struct part *p)
{
    p->hot_at = p->hot_start;
    p->cold_at = p->middle;
    p->meta_at = p->end;
    atomic_store(&p->n_listed, 0);
}

static void parts_make(uint8_t *rw, uint64_t first, uint64_t later)
{
    part_bytes = later / PARTS & PAGE_MASK;
    n_parts = may_live = MIN((unsigned)(first / part_bytes), MOST_PARTS);
    for (unsigned k = 0; k < n_parts; k++) {
        struct part *p = &parts[k];
        p->hot_start = rw + k * part_bytes;
        p->middle = p->hot_start + HOT_SHARE(part_bytes);
        p->end = p->hot_start + part_bytes;
        if (k == 0) {
            struct code c = {rw, p->middle, false};
            thunks_write(&c);
            p->hot_start = c.at;
        }
        part_clear(p);
    }
}

static unsigned hash_bits_for(uint64_t bytes)
{
    unsigned bits = HASH_BITS_LEAST;
    while (bytes >> bits > HASH_SHARE) {
        bits++;
    }
    return bits;
}

bool cache_shrinks(void)
{
    return may_live > PARTS;
}

bool cache_open(uint64_t first, uint64_t later, GError **error)
{
    if (cache_start) {
        return true;
    }
    autofd int fd = huge_file("lodge-code", first);
    if (fd < 0) {
        error_set_errno(error, errno, "translation cache of %" G_GUINT64_FORMAT " bytes", first);
        return false;
    }
    uint8_t *rw = mmap(NULL, first, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *rx = mmap(NULL, first, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    bool ok = rw != MAP_FAILED && rx != MAP_FAILED && smc_open();
    hash_bits = hash_bits_for(first);
    hash = lazy_zeroes(sizeof(*hash) << hash_bits);
    for (unsigned k = 0; k < MOST_PARTS; k++) {
        parts[k].listed = lazy_zeroes(LISTED * sizeof(*parts[k].listed));
        ok &= parts[k].listed != NULL;
    }
    if (!ok || !hash) {
        error_set_errno(error, errno, "mapping the translation cache");
        return false;
    }
    cache_exec = rx - rw;
    parts_make(rw, first, later);
    cache_end = rw + first;
    cache_start = rw;
    return true;
}

static void empty(struct part *p)
{
    unsigned n = atomic_load(&p->n_listed);
    for (unsigned k = 0; k < n; k++) {
        block_take_out(p->listed[k]);
    }
    for (unsigned k = 0; k < n; k++) { /* each page is looked through once for all of its blocks */
        block_leave_pages(p->listed[k]);
    }
    link_reclaim(p->hot_start, p->end);
    part_clear(p);
    cache_generation++;
}

/* What it held goes back to the host. */
static void give_back(struct part *p)
{
    uint8_t *from = (uint8_t *)(((uintptr_t)p->hot_start + PAGE_SIZE - 1) & PAGE_MASK);
    empty(p);
    madvise(from, (size_t)(p->end - from), MADV_REMOVE);
    madvise(p->listed, LISTED * sizeof(*p->listed), MADV_DONTNEED);
}

static void shrink(void)
{
    for (unsigned k = 0; k < n_parts; k++) {
        if (&parts[k] != now && parts[k].n_listed) {
            give_back(&parts[k]);
        }
    }
    madvise(hash, sizeof(*hash) << hash_bits, MADV_DONTNEED);
    may_live = PARTS;
    hash_bits = hash_bits_for(may_live * part_bytes);
    for (unsigned k = 0; k < atomic_load(&now->n_listed); k++) {
        if (now->listed[k]->valid) {
            hash_in(now->listed[k]);
        }
    }
}

void cache_rest(void)
{
    resting = true;
}

void cache_reclaim(void)
{
    unsigned next = (unsigned)(now - parts + 1) % n_parts;
    if (cache_shrinks() && (resting || parts[next].n_listed)) {
        shrink();
    }
    struct part *oldest = &parts[(next + n_parts - may_live) % n_parts];
    now = &parts[next];
    if (oldest != now) {
        give_back(oldest);
    } else if (now->n_listed) {
        empty(now);
    }
}

uint64_t cache_size(void)
{
    return may_live * part_bytes;
}

uint64_t cache_used(void)
{
    uint64_t used = 0;
    for (unsigned k = 0; k < n_parts; k++) {
        const struct part *p = &parts[k];
        used += (uint64_t)(p->hot_at - p->hot_start) + (uint64_t)(p->cold_at - p->middle) +
                (uint64_t)(p->end - p->meta_at);
    }
    return used;
}

/* The next part's memory takes a while; who does not shrink any more needs no other. */
static void ask_for_next(void)
{
    if (cache_shrinks()) {
        ahead_ask(parts[(unsigned)(now - parts + 1) % n_parts].hot_start);
    }
}

bool cache_begin(struct code *hot, struct code *cold)
{
    uint8_t *at = (uint8_t *)(((uintptr_t)now->hot_at + 15) & ~(uintptr_t)15);
    if (now->middle - at < BLOCK_ROOM || now->meta_at - now->cold_at < BLOCK_ROOM + META_ROOM ||
        atomic_load(&now->n_listed) == LISTED) {
        return false;
    }
    if (!now->n_listed) {
        ask_for_next();
    }
    meta_before = now->meta_at;
    *hot = (struct code){.at = at, .end = at + BLOCK_ROOM};
    *cold = (struct code){.at = now->cold_at, .end = now->cold_at + BLOCK_ROOM};
    return true;
}

void *cache_meta(size_t bytes)
{
    uint8_t *at = (uint8_t *)(((uintptr_t)now->meta_at - bytes) & ~(uintptr_t)7);
    if (at < now->cold_at + BLOCK_ROOM) {
        return NULL;
    }
    return now->meta_at = at;
}

void cache_abort(void)
{
    now->meta_at = meta_before;
}

void cache_end_block(const struct code *hot, const struct code *cold)
{
    now->hot_at = hot->at;
    now->cold_at = cold->at;
}

/* Hardly ever is the slot anywhere near. */
void cache_expect(const uint8_t *host, uint64_t pc)
{
    __builtin_prefetch(bucket(host, pc));
}

struct block *cache_find(const uint8_t *host, const uint8_t *host2, uint64_t pc, uint32_t flags)
{
    struct block *b = *bucket(host, pc);
    while (b && (b->host != host || b->pc != pc || b->flags != flags || b->host2 != host2)) {
        b = b->next_hash;
    }
    return b;
}

void cache_add(struct block *b)
{
    hash_in(b);
    unsigned n = atomic_load(&now->n_listed);
    now->listed[n] = b;
    atomic_store(&now->n_listed, n + 1);
}

void cache_remove(struct block *b)
{
    struct block **at = bucket(b->host, b->pc);
    while (*at && *at != b) {
        at = &(*at)->next_hash;
    }
    if (*at) {
        *at = b->next_hash;
    }
}

struct block *cache_block_at(const uint8_t *exec_pc)
{
    const uint8_t *pc = exec_pc - cache_exec;
    uint64_t in = (uint64_t)(pc - cache_start) / part_bytes;
    const struct part *p = &parts[MIN(in, n_parts - 1)];
    unsigned low = 0, high = atomic_load(&p->n_listed);
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (p->listed[mid]->code <= pc) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    struct block *b = low ? p->listed[low - 1] : NULL;
    return b && pc < b->code + b->code_bytes ? b : NULL;
}
