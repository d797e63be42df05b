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

enum { PAGE_SLOTS = 1 << 12, IDLE_WRITES = 64 };

struct code_page {
    uint64_t page; /* ram_page_index() */
    uint64_t lines;
    struct page_ref *blocks;
    unsigned idle; /* writes since the last block went */
    struct code_page *next;
};

static struct code_page *pages[PAGE_SLOTS];

static struct code_page *find_page(uint64_t page)
{
    struct code_page *p = pages[page % PAGE_SLOTS];
    while (p && p->page != page) {
        p = p->next;
    }
    return p;
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
    uint64_t page = ram_page_index(host);
    struct code_page *p = find_page(page);
    if (!p) {
        p = cache_meta(sizeof(*p));
        if (!p) {
            atomic_store(&cache_full, true);
            return;
        }
        *p = (struct code_page){.page = page, .next = pages[page % PAGE_SLOTS]};
        pages[page % PAGE_SLOTS] = p;
    }
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

void block_kill(struct block *block)
{
    block->valid = false;
    forget_heat(block->heat);
    cache_remove(block);
    unlink_block(block);
    jump_cache_forget(block);
}

static uint64_t lines_of(uint64_t from, uint64_t to) /* offsets in the page, @to inclusive */
{
    uint64_t first = from / 64, last = to / 64;
    return (last == 63 ? ~UINT64_C(0) : (UINT64_C(1) << (last + 1)) - 1) &
           ~((UINT64_C(1) << first) - 1);
}

static void page_written(uint8_t *page_host, uint64_t lines)
{
    struct code_page *p = find_page(ram_page_index(page_host));
    if (!p) {
        return;
    }
    if (!p->blocks && ++p->idle >= IDLE_WRITES) {
        ram_flags_clear(page_host, PAGE_CODE); /* not before: code that is patched comes again */
    }
    if (!(p->lines & lines)) {
        return;
    }
    uint64_t left = 0;
    struct page_ref **at = &p->blocks;
    while (*at) {
        struct page_ref *ref = *at;
        if (ref->block->valid && !(ref->lines & lines)) {
            left |= ref->lines;
            at = &ref->next;
            continue;
        }
        *at = ref->next;
        if (ref->block->valid) { /* else its other page was written to */
            block_kill(ref->block);
        }
    }
    p->lines = left;
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

void smc_reset(void)
{
    for (unsigned k = 0; k < PAGE_SLOTS; k++) {
        for (struct code_page *p = pages[k]; p; p = p->next) {
            ram_flags_clear(ram_pool + (p->page << 12), PAGE_CODE);
        }
        pages[k] = NULL;
    }
}
