/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * link: from block to block without C.
 *
 * A link inside a page holds as long as both blocks do.  A link to another page is made in
 * the kernel only, to a global page, after a fresh walk of the page tables: a change of that
 * mapping is followed by a flush that tells us, on the vCPU that goes first, and whoever
 * links again afterwards walks the changed tables.
 */
#include "guest/cpu/translate/translate.h"

enum { FILTER = 4096 };
struct bt_cpu *bt_cpus[BT_CPUS];

static struct exit cross_end;
static struct exit *cross_links = &cross_end;
static uint64_t cross_pages[FILTER / 64]; /* hashed: pages that cross links lead to */

static unsigned page_hash(uint64_t linear)
{
    return (unsigned)(linear >> 12 ^ linear >> 24) % FILTER;
}

static uint8_t *field_of(const struct exit_desc *d)
{
    return exit_block(d)->code + d->field;
}

void link_exit(const struct exit_desc *d, struct block *to, bool cross)
{
    struct exit *x = &exit_block(d)->exits[d->number];
    if (x->to) {
        return;
    }
    x->to = to;
    x->next_in = to->in;
    to->in = x;
    if (cross) {
        unsigned h = page_hash(to->pc);
        cross_pages[h / 64] |= UINT64_C(1) << h % 64;
        if (!x->next_cross) {
            x->next_cross = cross_links;
            cross_links = x;
        }
    }
    /* A loop goes through the poll; forward jumps need not. */
    if ((d->bits & EXIT_SAVED) && to->flags_in) {
        emit_patch_rel32(field_of(d), to->flags_in);
    } else {
        emit_patch_rel32(field_of(d), to->code + (to->pc > exit_block(d)->pc ? to->skip_poll : 0));
    }
}

void link_never(const struct exit_desc *d)
{
    bool saved = d->bits & EXIT_SAVED;
    unsigned which = exit_block(d)->flags & BLOCK_FLOAT
                         ? (saved ? THUNK_PASS_FLOAT_SAVED : THUNK_PASS_FLOAT)
                         : (saved ? THUNK_PASS_SAVED_0 : THUNK_PASS_0) + d->mode;
    emit_patch_rel32((uint8_t *)d->stub + EXIT_STUB - 4, thunk_at[which]);
}

static void cut(struct exit *x)
{
    emit_patch_rel32(field_of(x->desc), x->desc->stub);
    struct exit **at = &x->to->in;
    while (*at != x) {
        at = &(*at)->next_in;
    }
    *at = x->next_in;
    x->to = NULL;
}

void unlink_block(struct block *block)
{
    while (block->in) {
        cut(block->in);
    }
    for (unsigned k = 0; k < block->n_exits; k++) {
        if (block->exits[k].to) {
            cut(&block->exits[k]);
        }
    }
}

void unlink_cross(uint64_t linear, uint64_t bytes)
{
    bool any = !bytes;
    for (uint64_t at = linear; !any && at < linear + bytes; at += 4096) {
        unsigned h = page_hash(at);
        any = cross_pages[h / 64] >> h % 64 & 1;
    }
    if (!any) {
        return;
    }
    for (struct exit **at = &cross_links; *at != &cross_end;) {
        struct exit *x = *at;
        if (bytes && x->desc->pc - linear >= bytes) {
            at = &x->next_cross;
            continue;
        }
        if (x->to) {
            cut(x);
        }
        *at = x->next_cross;
        x->next_cross = NULL;
    }
    if (!bytes) {
        memset(cross_pages, 0, sizeof(cross_pages));
    }
}

/* ---- jump caches: filled and flushed by their own vCPU, forgotten from by any ---- */

static void set_key(struct bt_cpu *b, unsigned mode, unsigned slot, uint64_t key)
{
    __atomic_store_n(&b->jump[mode].at[slot].key, key, __ATOMIC_RELEASE);
}

static unsigned log_hash(uint64_t linear)
{
    return (unsigned)(linear >> 12) % (64 * 64);
}

static void mark(uint64_t pages[64], uint64_t linear)
{
    unsigned h = log_hash(linear);
    pages[h / 64] |= UINT64_C(1) << h % 64;
}

/* May there be an entry for [linear, linear + bytes), or for an instruction of the page before
 * that goes on there? */
static bool marked(const uint64_t pages[64], uint64_t linear, uint64_t bytes)
{
    for (uint64_t at = 0; at <= bytes; at += 4096) {
        unsigned h = log_hash(linear + at - 4096);
        if (pages[h / 64] >> h % 64 & 1) {
            return true;
        }
    }
    return false;
}

static void drop_logged(struct bt_cpu *b)
{
    for (unsigned k = 0; k < b->n_jump_log; k++) {
        set_key(b, b->jump_log[k] >> JUMP_BITS, b->jump_log[k] & (JUMP_SLOTS - 1), 0);
    }
    b->n_jump_log = 0;
    b->jump_turn++;
    memset(b->jump_pages, 0, sizeof(b->jump_pages));
}

void jump_cache_clear(struct bt_cpu *b, unsigned mode)
{
    for (unsigned k = 0; k < JUMP_SLOTS; k++) {
        if (b->jump[mode].at[k].key) {
            set_key(b, mode, k, 0);
        }
    }
    b->jump_global[mode] = false;
    b->jump_turn++;
}

static void log_slot(struct bt_cpu *b, unsigned mode, unsigned slot)
{
    b->jump_log[b->n_jump_log++] = (uint16_t)(mode << JUMP_BITS | slot);
}

/* Room at @slot: its entry goes to the other slot of the pair. */
static void displace(struct bt_cpu *b, unsigned mode, unsigned slot, uint64_t pc)
{
    struct jump_cache *j = &b->jump[mode];
    uint64_t key = j->at[slot].key;
    if (!key || key == pc) {
        return;
    }
    set_key(b, mode, slot ^ JUMP_PAIR, 0);
    j->at[slot ^ JUMP_PAIR].code = j->at[slot].code;
    set_key(b, mode, slot ^ JUMP_PAIR, key);
    log_slot(b, mode, slot ^ JUMP_PAIR); /* it may not be global */
}

static struct entered_page *entered_at(struct bt_cpu *b, const uint8_t *host)
{
    uint64_t page = (uint64_t)host >> PAGE_BITS;
    return &b->entered[page * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (ENTERED_PAGES - 1)];
}

static const uint8_t *page_of(const uint8_t *host)
{
    return (const uint8_t *)((uintptr_t)host & PAGE_MASK);
}

static unsigned entry_of(const struct entered_page *e, unsigned offset)
{
    unsigned k = 0;
    while (k < e->n && e->offset[k] != offset) {
        k++;
    }
    return k;
}

/* @pc and @flags: block_key() */
static bool is_entered(const struct entered_page *e, const uint8_t *host, uint64_t pc,
                       uint32_t flags)
{
    return e->host == page_of(host) && e->flags == flags && e->linear == (pc & PAGE_MASK);
}

static void note_entry(struct bt_cpu *b, const struct block *block)
{
    struct entered_page *e = entered_at(b, block->host);
    if ((block->flags & BLOCK_MODE) != TLB_USER || block->host2) {
        return; /* nobody vouches for its second page */
    }
    if (!is_entered(e, block->host, block->pc, block->flags)) {
        *e = (struct entered_page){.host = page_of(block->host),
                                   .linear = block->pc & PAGE_MASK,
                                   .flags = block->flags,
                                   .turn = b->jump_turn};
    }
    unsigned k = entry_of(e, block->pc & ~PAGE_MASK);
    if (k == PAGE_ENTRIES) {
        k = e->next++ % PAGE_ENTRIES;
    }
    e->n = (uint8_t)MAX(e->n, k + 1);
    e->offset[k] = block->pc & ~PAGE_MASK;
    e->code[k] = (uint32_t)(block->entry - cache_start);
}

static void forget_entry(struct bt_cpu *b, const struct block *block)
{
    struct entered_page *e = entered_at(b, block->host);
    unsigned k = entry_of(e, block->pc & ~PAGE_MASK);
    if (is_entered(e, block->host, block->pc, block->flags) && k < e->n) {
        e->n--;
        e->offset[k] = e->offset[e->n];
        e->code[k] = e->code[e->n];
    }
}

/* An entry of a page that is not global. */
static void add_entry(struct bt_cpu *b, unsigned mode, uint64_t pc, uint64_t code)
{
    unsigned slot = jump_slot(pc);
    if (is_slot_of_0(slot)) {
        return;
    }
    if (b->n_jump_log > JUMP_LOG - 2) {
        drop_logged(b);
    }
    displace(b, mode, slot, pc);
    mark(b->jump_pages, pc);
    log_slot(b, mode, slot);
    mark(b->jump_seen, pc);
    set_key(b, mode, slot, 0);
    b->jump[mode].at[slot].code = code;
    set_key(b, mode, slot, pc);
}

bool jump_cache_restore(struct bt_cpu *b, const uint8_t *host, uint64_t pc)
{
    uint64_t key = pc;
    uint32_t flags = block_key(b, &key);
    struct entered_page *e = entered_at(b, host);
    unsigned mode = flags & BLOCK_MODE;
    if (mode != TLB_USER || !is_entered(e, host, key, flags) || e->turn == b->jump_turn ||
        b->jump_flags[mode] != (flags & ~(uint32_t)BLOCK_FLOAT)) {
        return false;
    }
    unsigned wanted = entry_of(e, pc & ~PAGE_MASK);
    e->turn = b->jump_turn;
    for (unsigned k = 0; k < e->n; k++) {
        if (k != wanted) {
            add_entry(b, mode, (pc & PAGE_MASK) + e->offset[k], exec_of(cache_start) + e->code[k]);
        }
    }
    if (wanted < e->n && !is_slot_of_0(jump_slot(pc))) { /* last, so in its first place */
        add_entry(b, mode, pc, exec_of(cache_start) + e->code[wanted]);
        return true;
    }
    return false;
}

void jump_cache_add(struct bt_cpu *b, struct block *block, uint64_t pc, bool global)
{
    unsigned mode = block->flags & BLOCK_MODE, slot = jump_slot(pc);
    uint32_t flags = block->flags & ~(uint32_t)BLOCK_FLOAT;
    if (b->jump_flags[mode] != flags) {
        jump_cache_clear(b, mode);
        b->jump_flags[mode] = flags;
    }
    block->linear = pc;
    if (is_slot_of_0(slot)) {
        return;
    }
    note_entry(b, block);
    if (!global) {
        add_entry(b, mode, pc, exec_of(block->entry));
        return;
    }
    displace(b, mode, slot, pc);
    b->jump_global[mode] = true;
    mark(b->jump_seen, pc);
    set_key(b, mode, slot, 0);
    b->jump[mode].at[slot].code = exec_of(block->entry);
    set_key(b, mode, slot, pc);
}

uint64_t jump_cache_find(const struct bt_cpu *b, unsigned mode, uint64_t pc)
{
    const struct jump_cache *j = &b->jump[mode];
    unsigned slot = jump_slot(pc);
    if (is_slot_of_0(slot)) {
        return 0;
    }
    for (unsigned k = 0; k < 2; k++, slot ^= JUMP_PAIR) {
        if (__atomic_load_n(&j->at[slot].key, __ATOMIC_ACQUIRE) == pc) {
            return j->at[slot].code;
        }
    }
    return 0;
}

static void drop_range(struct bt_cpu *b, uint64_t linear, uint64_t bytes)
{
    for (unsigned mode = 0; mode < TLB_MODES; mode++) {
        for (unsigned k = 0; k < JUMP_SLOTS; k++) {
            uint64_t key = b->jump[mode].at[k].key;
            if (key && key - linear < bytes) {
                set_key(b, mode, k, 0);
            }
        }
    }
}

void jump_cache_drop(struct bt_cpu *b, uint64_t linear, uint64_t bytes, bool global)
{
    if (!bytes) {
        drop_logged(b);
        for (unsigned mode = 0; global && mode < TLB_MODES; mode++) {
            if (b->jump_global[mode]) { /* firmware flushes at each change of the mode */
                jump_cache_clear(b, mode);
            }
        }
    } else if (linear >> 63 || bytes > 4096) {
        if (marked(b->jump_seen, linear, bytes)) {
            drop_range(b, linear - 4096, bytes + 4096);
        }
    } else if (marked(b->jump_pages, linear, bytes)) {
        drop_logged(b);
    }
}

void jump_cache_remove(struct bt_cpu *b, unsigned mode, uint64_t pc)
{
    unsigned slot = jump_slot(pc);
    for (unsigned n = 0; n < 2; n++, slot ^= JUMP_PAIR) {
        if (b->jump[mode].at[slot].key == pc) {
            set_key(b, mode, slot, 0);
        }
    }
}

/* Who comes to a floating block at another address is sent away at its door. */
void jump_cache_forget(const struct block *block)
{
    bool floating = block->flags & BLOCK_FLOAT;
    for (unsigned k = 0; k < BT_CPUS; k++) {
        if (bt_cpus[k]) {
            forget_entry(bt_cpus[k], block);
            jump_cache_remove(bt_cpus[k], block->flags & BLOCK_MODE,
                              floating ? block->linear : block->pc);
        }
    }
    if (floating) {
        emit_patch_jmp(block->entry, thunk_at[THUNK_DISPATCH]);
    }
}

/* ---- memory that will be used again ---- */

static void forget_code(struct jump_cache *j, uint64_t from, uint64_t bytes)
{
    for (unsigned k = 0; k < JUMP_SLOTS; k++) {
        if (j->at[k].key && j->at[k].code - from < bytes) {
            j->at[k].key = 0;
        }
    }
}

void link_reclaim(const uint8_t *from, const uint8_t *to)
{
    for (struct exit **at = &cross_links; *at != &cross_end;) {
        const uint8_t *x = (const uint8_t *)*at;
        if (x >= from && x < to) {
            *at = (*at)->next_cross;
        } else {
            at = &(*at)->next_cross;
        }
    }
    for (unsigned k = 0; k < BT_CPUS; k++) {
        if (bt_cpus[k]) {
            memset(bt_cpus[k]->entered, 0, sizeof(bt_cpus[k]->entered));
        }
        for (unsigned mode = 0; bt_cpus[k] && mode < TLB_MODES; mode++) {
            forget_code(&bt_cpus[k]->jump[mode], exec_of(from), (uint64_t)(to - from));
        }
    }
}
