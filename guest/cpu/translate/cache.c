/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cache: memory for code, and finding blocks.
 *
 * One memfd mapped twice, writable and executable, so that no page is ever both.  Hot code
 * grows from the start, out-of-line code from behind it, blocks and descriptors down from
 * the end.  When one of them is full all vCPUs leave and everything is dropped.  The first
 * time it may be larger than it stays: a boot translates far more than the guest needs later.
 */
#include "guest/cpu/translate/translate.h"

#include "base/util.h"

#include <string.h>
#include <sys/mman.h>

/* What runs straight on is a bit more than a third of all that is written for a block. */
#define HOT_SHARE(bytes) ((bytes) / 64 * 23 & PAGE_MASK)
enum {
    HASH_BITS_LEAST = 14,
    HASH_SHARE = 512 /* bytes of cache a slot */,
    LISTED = 1 << 18,
    BLOCK_ROOM = 32768
};

pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
_Atomic bool cache_full;
unsigned cache_generation;
uint8_t *cache_start, *cache_end;
ptrdiff_t cache_exec;

static uint8_t *hot_start, *hot_at, *middle, *cold_at, *meta_at, *meta_before;
static struct block **hash; /* [1 << hash_bits] */
static unsigned hash_bits;
static uint64_t bytes_now, bytes_later;
static struct block **listed; /* by ascending .code, for faults */
static _Atomic unsigned n_listed;

static void *lazy_zeroes(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static unsigned hash_bits_for(uint64_t bytes)
{
    unsigned bits = HASH_BITS_LEAST;
    while (bytes >> bits > HASH_SHARE) {
        bits++;
    }
    return bits;
}

/* Puts the parts where they lie in a cache of @bytes. */
static void lay_out(uint64_t bytes)
{
    bytes_now = bytes;
    hash_bits = hash_bits_for(bytes);
    middle = cache_start + HOT_SHARE(bytes);
    cache_end = cache_start + bytes;
}

bool cache_open(uint64_t first, uint64_t later, GError **error)
{
    if (cache_start) {
        return true;
    }
    autofd int fd = memfd_create("lodge-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)first) < 0) {
        error_set_errno(error, errno, "translation cache of %" G_GUINT64_FORMAT " bytes", first);
        return false;
    }
    uint8_t *rw = mmap(NULL, first, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *rx = mmap(NULL, first, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    hash = lazy_zeroes(sizeof(*hash) << hash_bits_for(first));
    listed = lazy_zeroes(LISTED * sizeof(*listed));
    if (rw == MAP_FAILED || rx == MAP_FAILED || !hash || !listed) {
        error_set_errno(error, errno, "mapping the translation cache");
        return false;
    }
    cache_exec = rx - rw;
    struct code c = {rw, rw + HOT_SHARE(first), false};
    thunks_write(&c);
    hot_start = c.at;
    cache_start = rw;
    bytes_later = later;
    lay_out(first);
    cache_reset();
    return true;
}

bool cache_shrinks(void)
{
    return bytes_now > bytes_later;
}

/* What it held goes back to the host. */
static void shrink(void)
{
    uint8_t *from = (uint8_t *)(((uintptr_t)hot_start + PAGE_SIZE - 1) & PAGE_MASK);
    madvise(from, (size_t)(cache_end - from), MADV_REMOVE);
    madvise(hash, sizeof(*hash) << hash_bits, MADV_DONTNEED);
    madvise(listed, LISTED * sizeof(*listed), MADV_DONTNEED);
    lay_out(bytes_later);
}

void cache_reset(void)
{
    if (cache_generation && cache_shrinks()) {
        shrink();
    } else {
        memset(hash, 0, sizeof(*hash) << hash_bits);
    }
    hot_at = hot_start;
    cold_at = middle;
    meta_at = cache_end;
    atomic_store(&n_listed, 0);
    cache_generation++;
    smc_reset();
    link_reset();
}

uint64_t cache_used(void)
{
    return (uint64_t)(hot_at - cache_start) + (uint64_t)(cold_at - middle) +
           (uint64_t)(cache_end - meta_at);
}

bool cache_begin(struct code *hot, struct code *cold)
{
    uint8_t *at = (uint8_t *)(((uintptr_t)hot_at + 15) & ~(uintptr_t)15);
    if (middle - at < BLOCK_ROOM || meta_at - cold_at < 2 * BLOCK_ROOM ||
        atomic_load(&n_listed) == LISTED) {
        return false;
    }
    meta_before = meta_at;
    *hot = (struct code){.at = at, .end = at + BLOCK_ROOM};
    *cold = (struct code){.at = cold_at, .end = cold_at + BLOCK_ROOM};
    return true;
}

void *cache_meta(size_t bytes)
{
    uint8_t *at = (uint8_t *)(((uintptr_t)meta_at - bytes) & ~(uintptr_t)7);
    if (at < cold_at + BLOCK_ROOM) {
        return NULL;
    }
    return meta_at = at;
}

void cache_abort(void)
{
    meta_at = meta_before;
}

void cache_end_block(const struct code *hot, const struct code *cold)
{
    hot_at = hot->at;
    cold_at = cold->at;
}

static struct block **bucket(const uint8_t *host, uint64_t pc)
{
    uint64_t h = ((uint64_t)host ^ pc >> 12) * UINT64_C(0x9e3779b97f4a7c15);
    return &hash[h >> (64 - hash_bits)];
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
    struct block **head = bucket(b->host, b->pc);
    b->next_hash = *head;
    *head = b;
    unsigned n = atomic_load(&n_listed);
    listed[n] = b;
    atomic_store(&n_listed, n + 1);
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
    unsigned low = 0, high = atomic_load(&n_listed);
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (listed[mid]->code <= pc) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    struct block *b = low ? listed[low - 1] : NULL;
    return b && pc < b->code + b->code_bytes ? b : NULL;
}
