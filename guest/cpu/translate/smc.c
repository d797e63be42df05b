/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * smc: code that is written to.
 *
 * A page that blocks were made from has PAGE_CODE, so no vCPU has a direct way to write to
 * it, and every write (also DMA) comes to smc_written().  Blocks remember from which
 * 64-byte lines they were made: data beside code costs the slow path, but no code.
 */
#include "guest/cpu/translate/translate.h"

#include "guest/memory/ram.h"

#include <sched.h>
#include <sys/mman.h>

enum { IDLE_WRITES = 64 };

struct code_page {
    uint64_t lines;
    struct page_ref *blocks;
    unsigned idle; /* writes since the last block went */
};

static struct code_page *pages; /* by ram_page_index(); memory only where there is code */

bool smc_open(void)
{
    size_t bytes = ram_pool_size / PAGE_SIZE * sizeof(*pages);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pages = p == MAP_FAILED ? NULL : p;
    return pages;
}

/* Until every other vCPU has left generated code once. */
static void wait_for_others(struct bt_cpu *b)
{
    uint64_t seen[BT_CPUS];
    for (unsigned k = 0; k < BT_CPUS; k++) {
        seen[k] = bt_cpus[k] ? atomic_load(&bt_cpus[k]->turns) : 0;
    }
    atomic_store(&b->inside, false); /* two that wait must not wait for each other */
    for (unsigned k = 0; k < BT_CPUS; k++) {
        struct bt_cpu *other = bt_cpus[k];
        while (other && other != b && atomic_load(&other->inside) &&
               atomic_load(&other->turns) == seen[k]) {
            bt_kick(other->cpu);
            sched_yield();
        }
    }
    atomic_store(&b->inside, true);
}

/* How many pages have the flag while somebody may still write to them without looking. */
static _Atomic unsigned unsettled;
static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;

bool smc_watched(const uint8_t *host)
{
    bool flag = ram_flags(host) & PAGE_CODE;
    atomic_thread_fence(memory_order_seq_cst); /* the flag is set after the count */
    return flag && !atomic_load(&unsettled);
}

void smc_watch(struct bt_cpu *b, uint8_t *host)
{
    if (smc_watched(host)) {
        return;
    }
    atomic_store(&b->inside, false); /* who has the lock must not wait for us */
    pthread_mutex_lock(&watch_lock);
    if (!(ram_flags(host) & PAGE_CODE)) {
        atomic_fetch_add(&unsettled, 1);
        ram_flags_set(host, PAGE_CODE);
        if (tlb_drop_writes(b->cpu, host)) {
            wait_for_others(b);
        }
        atomic_fetch_sub(&unsettled, 1);
    }
    pthread_mutex_unlock(&watch_lock);
    atomic_store(&b->inside, true);
}

static void add_to_page(struct page_ref *ref, const uint8_t *host)
{
    struct code_page *p = &pages[ram_page_index(host)];
    p->lines |= ref->lines;
    p->idle = 0;
    ref->next = p->blocks;
    p->blocks = ref;
}

void smc_add(struct block *block)
{
    add_to_page(&block->ref[0], block->host);
    if (block->host2) {
        add_to_page(&block->ref[1], block->host2);
    }
}

void block_take_out(struct block *block)
{
    if (block->valid) {
        block->valid = false;
        cache_remove(block);
        unlink_block(block);
    }
}

void block_kill(struct block *block)
{
    forget_heat(block->heat);
    block_take_out(block);
    jump_cache_forget(block);
}

static uint64_t lines_of(uint64_t from, uint64_t to) /* offsets in the page, @to inclusive */
{
    uint64_t first = from / 64, last = to / 64;
    return (last == 63 ? ~UINT64_C(0) : (UINT64_C(1) << (last + 1)) - 1) &
           ~((UINT64_C(1) << first) - 1);
}

/* Out of the page's list go blocks that are not valid; what is made from @lines no more is. */
static void page_sweep(struct code_page *p, uint64_t lines)
{
    uint64_t left = 0;
    struct page_ref **at = &p->blocks;
    while (*at) {
        struct page_ref *ref = *at;
        struct block *block = ref->block;
        if (block->valid && !(ref->lines & lines)) {
            left |= ref->lines;
            at = &ref->next;
            continue;
        }
        *at = ref->next;
        ref->block = NULL;
        if (block->valid) { /* else its other page was written to */
            block_kill(block);
        }
    }
    p->lines = left;
}

static void page_written(uint8_t *page_host, uint64_t lines)
{
    struct code_page *p = &pages[ram_page_index(page_host)];
    if (!p->blocks && ++p->idle >= IDLE_WRITES) {
        ram_flags_clear(page_host, PAGE_CODE); /* not before: code that is patched comes again */
    }
    if (p->lines & lines) {
        page_sweep(p, lines);
    }
}

static void leave_page(struct page_ref *ref, const uint8_t *host)
{
    struct code_page *p = &pages[ram_page_index(host)];
    if (!host || !ref->block) {
        return;
    }
    page_sweep(p, 0);
    if (!p->blocks) {
        ram_flags_clear(host, PAGE_CODE);
    }
}

void smc_written(void *host, uint64_t bytes)
{
    uint64_t at = (uint64_t)host, end = at + bytes;
    pthread_mutex_lock(&cache_lock);
    while (at < end) {
        uint64_t page_end = (at | 4095) + 1, stop = page_end < end ? page_end : end;
        page_written((uint8_t *)(at & ~UINT64_C(4095)), lines_of(at & 4095, (stop - 1) & 4095));
        at = stop;
    }
    pthread_mutex_unlock(&cache_lock);
}

void block_leave_pages(struct block *block)
{
    leave_page(&block->ref[0], block->host);
    leave_page(&block->ref[1], block->host2);
}
