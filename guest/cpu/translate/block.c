/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block: one block from guest code to host code.
 */
#include "guest/cpu/translate/translate.h"

#include "base/log.h"
#include "guest/memory/ram.h"

static struct stub all_stubs[STUBS];
static struct tr the_translation; /* the cache lock is held */

struct stub *stub_new(struct tr *t, enum stub_kind kind)
{
    struct stub *s = &t->stubs[t->n_stubs < STUBS - 1 ? t->n_stubs++ : STUBS - 1];
    if (t->n_stubs == STUBS - 1) {
        t->hot.full = true; /* cannot happen: four to an instruction */
    }
    *s = (struct stub){.kind = kind, .insn = (uint8_t)t->at};
    return s;
}

struct desc *desc_new(struct tr *t, unsigned insn, bool saved)
{
    struct desc *d = (struct desc *)t->cold.at;
    if (t->cold.end - t->cold.at < (ptrdiff_t)sizeof(*d)) {
        t->cold.full = true;
        return NULL;
    }
    t->cold.at += sizeof(*d);
    *d = (struct desc){.block = (int32_t)((uint8_t *)t->block - (uint8_t *)d),
                       .insn = (uint16_t)insn, .bits = saved ? DESC_SAVED : 0,
                       .store = STORE_OTHER};
    return d;
}

static void point_at(uint8_t *field, const uint8_t *target)
{
    if (field) {
        emit_patch_rel32(field, target);
    }
}

static void slow_address(struct code *c, const struct stub *s)
{
    if (s->address == ADDRESS_MEM) {
        emit_lea(c, S0, s->m);
    } else if (s->address == ADDRESS_CONST) {
        emit_mov_imm(c, S0, s->value);
    }
}

/* What a plain MOV to memory stores: bt_slow() does it where others have to hear of the write. */
static uint8_t store_of(const struct tr *t, unsigned insn)
{
    const struct insn *i = &t->in[insn];
    bool high = i->opsize == 1 && !(i->prefixes & PFX_REX) && i->reg >= 4;
    if (i->op != OP_MOV || !i->has_modrm || !i->mem || (insn == 0 && t->block->host2)) {
        return STORE_OTHER;
    }
    return i->imm_bytes ? STORE_IMM : high ? STORE_OTHER : i->reg;
}

/* An access without an entry, or perhaps across pages: see memory.c. */
static void write_slow(struct tr *t, const struct stub *s)
{
    struct code *c = &t->cold;
    struct desc *d = desc_new(t, s->insn, s->saved);
    if (!d) {
        return;
    }
    d->size = s->size;
    d->store = s->write ? store_of(t, s->insn) : STORE_OTHER;
    d->bits |= (s->write ? DESC_WRITE : 0) | (s->apart ? DESC_NO_NEXT : 0);
    d->retry = (uint16_t)(s->retry - t->block->code);
    if (s->back) { /* the same page for the last byte? */
        point_at(s->odd, c->at);
        emit_lea32(c, S2, MEM_BASE(s->reg, s->size - 1));
        emit_xor32(c, S2, s->reg);
        emit_shr32(c, S2, 12);
        emit_jcc(c, CC_E, s->back);
    } else {
        point_at(s->odd, c->at);
    }
    point_at(s->miss, c->at);
    slow_address(c, s);
    emit_lea_rip(c, S2, (const uint8_t *)d);
    emit_jmp(c, thunk_at[THUNK_SLOW]);
}

static void write_fp(struct tr *t, const struct stub *s)
{
    struct desc *d = desc_new(t, s->insn, s->saved);
    if (d) {
        d->size = s->fp;
        d->bits |= DESC_NO_NEXT; /* behind it the state counts as loaded */
        d->retry = (uint16_t)(s->retry - t->block->code);
        point_at(s->miss, t->cold.at);
        emit_lea_rip(&t->cold, S2, (const uint8_t *)d);
        emit_jmp(&t->cold, thunk_at[THUNK_FP]);
    }
}

static void write_exit(struct tr *t, const struct stub *s)
{
    struct code *c = &t->cold;
    if (s->link) {
        emit_align_field(c, sizeof(struct exit_desc) + EXIT_STUB - 4);
        struct exit_desc *d = (struct exit_desc *)c->at;
        if (c->end - c->at < (ptrdiff_t)sizeof(*d)) {
            c->full = true;
            return;
        }
        c->at += sizeof(*d);
        *d = (struct exit_desc){.block = (int32_t)((uint8_t *)t->block - (uint8_t *)d),
                                .pc = t->code64 ? s->value : (uint32_t)s->value,
                                .field = (uint16_t)(s->miss - t->block->code),
                                .mode = s->flags & BLOCK_MODE,
                                .number = (uint8_t)t->n_exits,
                                .bits = (s->saved ? EXIT_SAVED : 0) |
                                        (s->apart ? EXIT_APART : 0)};
        t->exit[t->n_exits++] = d;
        point_at(s->miss, c->at);
        emit_lea_rip(c, S2, (const uint8_t *)d);
        emit_jmp(c, thunk_at[THUNK_LINK]);
        return;
    }
    point_at(s->miss, c->at);
    if (!s->saved) {
        flags_save(c);
    }
    if (floats(t)) {
        jump_floating(c, s->value);
    } else {
        jump_cached(c, s->flags & BLOCK_MODE, s->value);
    }
}

/* Not in the first slot of the jump cache. */
static void write_target(struct tr *t, const struct stub *s)
{
    struct code *c = &t->cold;
    struct desc *d = desc_new(t, s->insn, s->saved);
    if (!d) {
        return;
    }
    d->retry = (uint16_t)(s->back - t->block->code);
    point_at(s->miss, c->at);
    jump_look_again(c, s->flags & BLOCK_MODE);
    emit_jcc(c, CC_E, s->back);
    emit_lea_rip(c, S2, (const uint8_t *)d);
    emit_jmp(c, thunk_at[THUNK_TARGET]);
}

/* .page from S0.  The first instruction has the form that emit_patch_jmp() wants. */
static void write_place(struct code *c, uint64_t offset)
{
    emit_copy(c, (const uint8_t[]){0x4d, 0x8d, 0x9a}, 3); /* lea S1, [S0 - offset] */
    emit_value(c, -offset, 4);
    emit_store(c, 8, SLOT(page), S1);
}

/*
 * The way in from the jump cache, for those who bring the flags in .fl_saved: they are loaded if
 * they matter.
 */
static void write_entry(struct tr *t)
{
    struct block *b = t->block;
    bool matter = t->live[0] & FLAGS_ARITH;
    struct code *c = matter ? &t->cold : &t->hot;
    if (floats(t)) {
        c->at = (uint8_t *)(((uintptr_t)c->at + 7) & ~(uintptr_t)7);
    }
    b->entry = c->at;
    if (floats(t)) {
        write_place(c, b->pc);
    }
    b->code = t->hot.at;
    b->flags_in = NULL;
    if (matter) {
        b->flags_in = c->at;
        flags_load(c);
        emit_jmp(c, b->code);
    }
}

void stubs_write(struct tr *t)
{
    for (unsigned k = 0; k < t->n_stubs && !t->hot.full && !t->cold.full; k++) {
        const struct stub *s = &t->stubs[k];
        switch (s->kind) {
        case STUB_SLOW:
            write_slow(t, s);
            break;
        case STUB_FP:
            write_fp(t, s);
            break;
        case STUB_TARGET:
            write_target(t, s);
            break;
        default:
            write_exit(t, s);
        }
    }
}

static void write_poll(struct tr *t)
{
    emit_load(&t->hot, 8, S0, SLOT(poll));
    emit_load(&t->hot, 4, S0, MEM_BASE(S0, 0));
    t->block->skip_poll = (uint16_t)(t->hot.at - t->block->code);
}

static void add_point(struct tr *t, unsigned guest)
{
    t->point[t->n_points++] = (struct point){
        .host = (uint16_t)(t->hot.at - t->block->code),
        .guest = (uint16_t)(guest | (t->saved ? POINT_SAVED : 0))};
}

/*
 * The instruction in hand has found a group's page behind its stubs from @first on.  If the
 * interpreter does it in one of them, the code behind it must not count on that.
 */
static void found_by_all(struct tr *t, unsigned first)
{
    for (unsigned k = first; k < t->n_stubs; k++) {
        if (t->stubs[k].kind == STUB_SLOW) {
            t->stubs[k].apart = true;
        }
    }
}

static void write_insn(struct tr *t)
{
    const struct insn *i = &t->in[t->at];
    struct tr before;
    add_point(t, t->offset[t->at]);
    before.hot = t->hot;
    before.saved = t->saved;
    before.fp = t->fp;
    before.n_stubs = t->n_stubs;
    before.next_group = t->next_group;
    before.in_s1 = t->in_s1;
    memcpy(before.group, t->group, sizeof(t->group));
    if (!emit_insn(t, i) && !t->hot.full) {
        t->hot = before.hot;
        t->saved = before.saved;
        t->fp = before.fp;
        t->n_stubs = before.n_stubs;
        t->next_group = before.next_group;
        t->in_s1 = before.in_s1;
        memcpy(t->group, before.group, sizeof(t->group));
        t->done = false;
        bool ends = t->at + 1 == t->n || i->desc->class == CLASS_BRANCH;
        insn_interp(t, ends);
    } else if (i->desc->class == CLASS_STRING || i->desc->class == CLASS_STACK) {
        point_saved(t); /* its look-ups have changed the host's; copied ones tell themselves */
    }
    if (t->next_group != before.next_group) {
        found_by_all(t, before.n_stubs);
    }
    group_after(t, i);
}

static void write_insns(struct tr *t)
{
    write_poll(t);
    add_point(t, 0); /* the poll's */
    for (t->at = 0; t->at < t->n && !t->hot.full && !t->done; t->at++) {
        write_insn(t);
    }
    if (!t->done) {
        t->at = t->n - 1;
        exit_direct(t, t->code64 ? insn_pc(t, t->n) : (uint32_t)insn_pc(t, t->n));
    } else {
        t->n = t->at;
    }
}

static bool finish(struct tr *t)
{
    struct block *b = t->block;
    size_t bytes = t->n_points * sizeof(struct point);
    b->points = cache_meta(bytes + sizeof(struct point));
    b->exits = cache_meta(t->n_exits * sizeof(struct exit));
    if (t->hot.full || t->cold.full || !b->points || !b->exits) {
        return false;
    }
    b->n_exits = t->n_exits;
    for (unsigned k = 0; k < b->n_exits; k++) {
        b->exits[k] = (struct exit){.desc = t->exit[k]};
    }
    memcpy(b->points, t->point, bytes);
    b->points[t->n_points] = (struct point){(uint16_t)(t->hot.at - b->code), t->offset[t->n]};
    b->n_points = (uint16_t)t->n_points;
    b->code_bytes = (uint32_t)(t->hot.at - b->code);
    b->bytes = t->offset[t->n];
    b->ref[0] = (struct page_ref){.block = b, .lines = t->lines[0]};
    b->ref[1] = (struct page_ref){.block = b, .lines = t->lines[1]};
    b->fp = t->fp_used;
    b->valid = true;
    cache_end_block(&t->hot, &t->cold);
    cache_add(b);
    smc_add(b);
    return true;
}

struct block *translate(struct bt_cpu *b, uint64_t pc, uint32_t flags, uint8_t *host,
                        uint8_t *host2)
{
    struct tr *t = &the_translation;
    t->b = b;
    t->cpu = b->cpu;
    t->stubs = all_stubs;
    t->n_stubs = t->n_points = t->n_exits = 0;
    t->saved = t->done = false;
    t->fp = 0;
    t->fp_used = false;
    memset(t->group, 0, sizeof(t->group));
    t->in_s1 = 0;
    t->mode = (enum tlb_mode)(b->flags & BLOCK_MODE);
    t->code64 = !(b->flags & BLOCK_32);
    struct block *block = cache_begin(&t->hot, &t->cold) ? cache_meta(sizeof(*block)) : NULL;
    if (!block) {
        atomic_store(&cache_full, true);
        return NULL;
    }
    *block = (struct block){.pc = pc, .host = host, .host2 = host2, .code = t->hot.at,
                            .flags = flags, .heat = heat_of(host)};
    t->block = block;
    t->exit_flags = b->flags;
    analyse(t);
    if (!t->n) {
        cache_abort();
        return NULL;
    }
    write_entry(t);
    write_insns(t);
    stubs_write(t);
    if (!finish(t)) {
        atomic_store(&cache_full, true);
        return NULL;
    }
    b->stats.translated++;
    b->stats.insns += t->n;
    return block;
}
