/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run: the engine's table, its loop, and the helpers that generated code calls.
 *
 * A helper finds the guest's registers in cpu->r.gpr, put there by its thunk; the flags are
 * in .fl, or in .fl_saved where the code has used the host's.  state_in() completes cpu->r,
 * state_out() is the way back.
 */
#include "guest/cpu/translate/direct.h"

#include "base/log.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paging.h"
#include "guest/cpu/translate/bt.h"
#include "guest/memory/ram.h"
#include "guest/time/clock.h"

#include <cpuid.h>
#include <immintrin.h>
#include <inttypes.h>
#include <sched.h>
#include <sys/auxv.h>

enum { HWCAP2_FSGSBASE = 2, FL_FLAGS = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF };
#define POLL_BAD   ((const uint64_t *)UINT64_C(0x8000000000000000))
#define SLOT_FLAGS (FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_AC)

uint64_t bt_cache_bytes;
unsigned bt_hot = 8;

/* ---- state ---- */

static void state_in(struct bt_cpu *b, bool saved)
{
    struct regs *r = &b->cpu->r;
    uint16_t fl = saved ? b->fl_saved : b->fl;
    r->rflags = (r->rflags & ~(uint64_t)SLOT_FLAGS) | (fl >> 8 & FL_FLAGS) |
                (fl & 1 ? FLAG_OF : 0) | (b->df ? FLAG_DF : 0) | (b->intf ? FLAG_IF : 0) |
                (b->ac ? FLAG_AC : 0);
    r->seg[SEG_FS].base = b->seg_base[SEG_FS];
    r->seg[SEG_GS].base = b->seg_base[SEG_GS];
    r->kernel_gs_base = b->kernel_gs;
    b->fp_was = b->fp_ok;
    b->fp_ok = 0;
}

static bool flat(const struct segment *s)
{
    return s->base == 0 && s->limit == UINT32_MAX && !(s->attr & SEG_UNUSABLE) &&
           (s->attr & (SEG_S | SEG_P)) == (SEG_S | SEG_P);
}

static bool flat_data(const struct segment *s)
{
    return flat(s) && (s->attr & 0xe) == 2; /* writable, expands up */
}

static bool flat_but_base(struct segment s)
{
    s.base = 0;
    return flat_data(&s);
}

static bool flat_32(const struct regs *r)
{
    return flat(&r->seg[SEG_CS]) && (r->seg[SEG_CS].attr & SEG_DB) && flat_data(&r->seg[SEG_SS]) &&
           (r->seg[SEG_SS].attr & SEG_DB) && flat_data(&r->seg[SEG_DS]) &&
           flat_data(&r->seg[SEG_ES]);
}

/* What only the interpreter does: 16-bit code, traps, breakpoints, alignment checks. */
static bool only_interp(const struct vcpu *cpu)
{
    const struct regs *r = &cpu->r;
    bool aligned = (r->cr0 & CR0_AM) && (r->rflags & FLAG_AC) && vcpu_cpl(cpu) == 3;
    return !(r->cr0 & CR0_PE) || (r->rflags & (FLAG_VM | FLAG_TF)) || (r->dr[7] & 0xff) ||
           cpu->points || cpu->single_step || r->a20_off || aligned || r->in_smm ||
           (!vcpu_code64(cpu) && !flat_32(r));
}

static uint32_t flags_of(const struct vcpu *cpu)
{
    if (only_interp(cpu)) {
        return BLOCK_INTERP;
    }
    uint32_t extra = 0;
    if (!vcpu_code64(cpu)) {
        extra = BLOCK_32 | (flat_but_base(cpu->r.seg[SEG_FS]) ? BLOCK_FS : 0) |
                (flat_but_base(cpu->r.seg[SEG_GS]) ? BLOCK_GS : 0);
    }
    return (uint32_t)tlb_mode(cpu) | extra | (cpu->r.cr4 & CR4_TSD ? BLOCK_TSD : 0) |
           (cpu->r.cr4 & CR4_SMAP ? BLOCK_SMAP : 0) | (vcpu_cpl(cpu) ? 0 : BLOCK_CPL0);
}

static struct cpuid_regs remember_cpuid(struct bt_cpu *b, uint32_t eax, uint32_t ecx)
{
    struct cpuid_regs r = cpu_cpuid(b->cpu, eax, ecx);
    b->cpuid_key = (uint64_t)ecx << 32 | eax;
    b->cpuid[0] = r.eax;
    b->cpuid[1] = r.ebx;
    b->cpuid[2] = r.ecx;
    b->cpuid[3] = r.edx;
    return r;
}

/* What CPUID shows depends on these: on a change the answer in the slots is made again. */
static void check_cpuid(struct bt_cpu *b)
{
    const struct regs *r = &b->cpu->r;
    uint64_t now = r->cr4 + r->xcr0 * 3 + r->apic_base * 5 + r->misc_enable * 7 + r->efer * 11;
    if (now != b->cpuid_of) {
        b->cpuid_of = now;
        remember_cpuid(b, (uint32_t)b->cpuid_key, (uint32_t)(b->cpuid_key >> 32));
    }
}

/* After the interpreter: flags, segments and time may have changed. */
static void state_out(struct bt_cpu *b)
{
    struct regs *r = &b->cpu->r;
    uint64_t f = r->rflags;
    b->fl = b->fl_saved = (uint16_t)((f & FL_FLAGS) << 8 | (f & FLAG_OF ? 1 : 0));
    b->df = f & FLAG_DF ? 1 : 0;
    b->intf = f & FLAG_IF ? 1 : 0;
    b->ac = f & FLAG_AC ? 1 : 0;
    b->seg_base[SEG_FS] = r->seg[SEG_FS].base;
    b->seg_base[SEG_GS] = r->seg[SEG_GS].base;
    b->kernel_gs = r->kernel_gs_base;
    b->sys = r->rflags & ~(uint64_t)(SLOT_FLAGS | FLAG_RF | FLAG_VM);
    b->tsc_aux = r->tsc_aux;
    check_cpuid(b);
    b->tsc_add = r->tsc_offset + (uint64_t)tsc_offset();
    b->flags = flags_of(b->cpu);
    uint8_t was = b->mode;
    b->mode = b->flags & BLOCK_MODE;
    if (b->native && (b->mode == TLB_USER || was == TLB_USER)) {
        (was != TLB_USER       ? direct_enter_user
         : b->mode == TLB_USER ? direct_still_user
                               : direct_leave_user)(b);
    }
    b->waiting = atomic_load_explicit(&b->cpu->requests, memory_order_relaxed) != 0;
}

/* ---- finding the next block ---- */

static uint8_t *code_host(struct vcpu *cpu, uint64_t pc)
{
    struct tlb_result res;
    uint32_t code;
    if (!canonical(pc) ||
        tlb_fill(cpu, (enum tlb_mode)bt_of(cpu)->mode, pc, ACCESS_FETCH, &res, &code) < 0) {
        return NULL;
    }
    return res.host;
}

static bool is_global(struct vcpu *cpu, uint64_t pc)
{
    struct translation tr;
    uint32_t code;
    return vcpu_cpl(cpu) != 3 && paging_walk(cpu, pc, ACCESS_FETCH, true, &tr, &code) == 0 &&
           tr.global;
}

/*
 * Code that has run only a few times is interpreted: most of it never comes again, and its
 * translation would cost more time and memory than it gives back.  Now and then the counts are
 * halved, or in the end nothing would be new.
 */
enum { HEAT_SLOTS = 1 << 16, HEAT_COUNTED = 1 << 17 };
static uint8_t heat[HEAT_SLOTS];

/* Other code at the same place is new: its first bytes count, too (RAM has a guard behind it). */
uint16_t heat_of(const uint8_t *host)
{
    uint64_t code;
    memcpy(&code, host, sizeof(code));
    code = (uint64_t)host ^ code * UINT64_C(0x9e3779b97f4a7c15);
    return (uint16_t)(code * UINT64_C(0xd6e8feb86659fd93) >> 48);
}

void keep_heat(uint16_t of)
{
    heat[of] = UINT8_MAX;
}

void forget_heat(uint16_t of)
{
    heat[of] = 0;
}

/* Where there is translated code, more becomes hot sooner. */
static unsigned hot_at(const uint8_t *host)
{
    return ram_flags(host) & PAGE_CODE ? bt_hot - bt_hot / 2 : bt_hot;
}

/* One look at little memory tells by far most of what is cold. */
static bool is_new(const uint8_t *host)
{
    return heat[heat_of(host)] < hot_at(host);
}

/* The same, and it runs now. */
static bool is_cold(const uint8_t *host)
{
    static unsigned counted;
    uint8_t *n = &heat[heat_of(host)];
    if (*n >= hot_at(host)) {
        return false;
    }
    if (++counted % HEAT_COUNTED == 0) {
        for (unsigned k = 0; k < HEAT_SLOTS; k++) {
            heat[k] /= 2;
        }
    }
    ++*n;
    return true;
}

/* Does the instruction at @pc go on in the next page? */
static bool crosses_page(const struct vcpu *cpu, uint64_t pc, const uint8_t *host)
{
    struct insn i;
    unsigned left = 4096 - (unsigned)(pc & 4095);
    return left < INSN_BYTES &&
           insn_decode(host, left, vcpu_code64(cpu) ? 8 : 4, &i) == DECODE_SHORT;
}

/* Where code is: of the first byte, and of the next page if the instruction needs it. */
struct code_place {
    uint8_t *host, *host2;
    bool global;
};

static bool find_place(struct vcpu *cpu, uint64_t pc, bool want_global, struct code_place *out)
{
    uint64_t next = (pc | 4095) + 1;
    *out = (struct code_place){.host = code_host(cpu, pc)};
    if (!out->host) {
        return false;
    }
    out->global = want_global && is_global(cpu, pc);
    if (crosses_page(cpu, pc, out->host)) {
        next = vcpu_code64(cpu) ? next : (uint32_t)next;
        out->host2 = code_host(cpu, next);
        out->global &= out->host2 && is_global(cpu, next);
        return out->host2 != NULL;
    }
    return true;
}

/* The block at r.rip, translated if need be and in the jump cache; NULL: none, or not
 * yet (@cold). */
static struct block *block_at_rip(struct bt_cpu *b, bool link, bool *cold)
{
    struct vcpu *cpu = b->cpu;
    uint64_t pc = cpu->r.rip;
    uint32_t flags = block_key(b, &pc);
    struct code_place at;
    struct block *block = NULL;
    uint8_t *host = code_host(cpu, cpu->r.rip);
    cache_expect(host, pc);
    if (host && is_cold(host)) {
        *cold = true;
        return NULL;
    }
    if (!host || !find_place(cpu, cpu->r.rip, !link, &at)) {
        return NULL;
    }
    pthread_mutex_lock(&cache_lock);
    block = cache_find(at.host, at.host2, pc, flags);
    if (!block) {
        pthread_mutex_unlock(&cache_lock);
        smc_watch(b, at.host);
        if (at.host2) {
            smc_watch(b, at.host2);
        }
        pthread_mutex_lock(&cache_lock);
        bool watched = smc_watched(at.host) && (!at.host2 || smc_watched(at.host2));
        if (watched && !atomic_load(&cache_full)) { /* else a write has come in between */
            block = cache_find(at.host, at.host2, pc, flags);
            block = block ? block : translate(b, pc, flags, at.host, at.host2);
        }
    }
    if (block) {
        keep_heat(block->heat);
    }
    if (block && !link) {
        jump_cache_add(b, block, cpu->r.rip, at.global);
    }
    pthread_mutex_unlock(&cache_lock);
    return block;
}

/* Generated code for r.rip is entered at @code next. */
static void start_at(struct bt_cpu *b, uint64_t code)
{
    b->resume = code;
    b->fp_resume = 0;
    b->s0 = b->cpu->r.rip;
    b->page = b->s0 & PAGE_MASK;
    b->cpu->r.rflags &= ~(uint64_t)FLAG_RF;
}

/* The same from the jump cache, without a lock. */
static bool cached_at_rip(struct bt_cpu *b)
{
    uint64_t pc = b->cpu->r.rip;
    uint64_t code = b->jump_flags[b->mode] == b->flags ? jump_cache_find(b, b->mode, pc) : 0;
    if (code) {
        b->fl_saved = b->fl;
        start_at(b, code);
    }
    return code;
}

/* The same by what was known of the page in another address space. */
static bool restored_at_rip(struct bt_cpu *b)
{
    uint64_t pc = b->cpu->r.rip;
    uint8_t *host = b->mode == TLB_USER ? code_host(b->cpu, pc) : NULL;
    if (!host) {
        return false;
    }
    pthread_mutex_lock(&cache_lock);
    bool found = jump_cache_restore(b, host, pc);
    pthread_mutex_unlock(&cache_lock);
    return found && cached_at_rip(b);
}

/* One instruction by the interpreter; false: leave generated code. */
static bool step(struct bt_cpu *b)
{
    int stop = interp_step(b->cpu);
    b->stats.one++;
    state_out(b);
    if (stop != STOP_NONE) {
        b->stop = stop;
        return false;
    }
    return true;
}

/* Is what comes next the interpreter's, too? */
static bool goes_on_cold(struct bt_cpu *b)
{
    struct vcpu *cpu = b->cpu;
    if (!cpu_may_go_on(cpu) || cpu->r.halted || cpu->r.shadow || (b->flags & BLOCK_INTERP) ||
        direct_wanted(b)) {
        return false;
    }
    const uint8_t *host = code_host(cpu, cpu->r.rip);
    return host && is_cold(host);
}

/* Interprets from branch to branch, up to code that is not new; false: leave generated code. */
static bool run_cold(struct bt_cpu *b)
{
    int stop;
    do {
        stop = interp_straight(b->cpu);
        b->stats.cold++;
        state_out(b);
    } while (stop == STOP_NONE && goes_on_cold(b));
    if (stop != STOP_NONE) {
        b->stop = stop;
    }
    return stop == STOP_NONE;
}

/* Sets .resume to the code for r.rip, stepping over what has none.  With @block it has to
 * tell which block that is, or NULL. */
static bool find_code(struct bt_cpu *b, struct block **block)
{
    struct vcpu *cpu = b->cpu;
    for (;;) {
        if (!cpu_may_go_on(cpu) || cpu->r.halted || (b->flags & BLOCK_INTERP) || direct_wanted(b)) {
            return false;
        }
        if (!cpu->r.shadow) {
            if (!block && (cached_at_rip(b) || restored_at_rip(b))) {
                return true;
            }
            bool cold = false;
            struct block *found = block_at_rip(b, block != NULL, &cold);
            if (cold) {
                b->apart = 0;
                if (!run_cold(b)) {
                    return false;
                }
                continue;
            }
            if (found) {
                start_at(b, exec_of(found->code));
                if (block) {
                    *block = found;
                }
                return true;
            }
        }
        b->apart = 0;
        if (atomic_load(&cache_full) || !step(b)) {
            return false;
        }
    }
}

/* ---- helpers ---- */

/* Goes on inside the block, with what state_in() found. */
static bool resume_at(struct bt_cpu *b, const struct block *block, unsigned offset)
{
    b->resume = exec_of(block->code + offset);
    b->fp_ok = b->fp_resume = block->fp ? b->fp_was : 0;
    return true;
}

/*
 * Does what the block has found out about pages still stand in the TLB?  There others see that
 * this vCPU may be writing to a page; what has left it must not be used on.
 */
static bool still_known(const struct bt_cpu *b, uint64_t full_flushes)
{
    return b->cpu->tlb->full_flushes == full_flushes;
}

static bool resume_next(struct bt_cpu *b, const struct desc *d, uint32_t flags, uint64_t flushes)
{
    const struct block *block = desc_block(d);
    if (!(d->bits & DESC_NO_NEXT) && still_known(b, flushes) && d->insn + 2u < block->n_points &&
        b->cpu->r.rip == block_pc(b, block) + desc_guest(d, 1) && block->valid &&
        b->flags == flags && cpu_may_go_on(b->cpu) && !b->cpu->r.shadow) {
        return resume_at(b, block, block->points[d->insn + 2].host);
    }
    return find_code(b, NULL);
}

static bool one(struct bt_cpu *b, const struct desc *d, uint64_t flushes)
{
    uint32_t flags = b->flags;
    uint64_t pc = block_pc(b, desc_block(d)) + desc_guest(d, 0);
    b->cpu->r.rip = pc;
    state_in(b, d->bits & DESC_SAVED);
    do {
        if (!step(b)) {
            return false;
        }
    } while (b->cpu->r.rip == pc && cpu_may_go_on(b->cpu) && !(b->flags & BLOCK_INTERP)); /* rep */
    return resume_next(b, d, flags, flushes);
}

bool bt_one(struct bt_cpu *b, const struct desc *d, uint64_t unused)
{
    (void)unused;
    return one(b, d, b->cpu->tlb->full_flushes);
}

/* Behind the store that @d tells of, which has been done. */
static bool stored(struct bt_cpu *b, const struct desc *d)
{
    const struct block *block = desc_block(d);
    if (block->valid && !(d->bits & DESC_NO_NEXT) && d->insn + 2u < block->n_points) {
        b->fp_was = b->fp_ok;
        return resume_at(b, block, block->points[d->insn + 2].host);
    }
    uint64_t next = block_pc(b, block) + desc_guest(d, 1);
    state_in(b, d->bits & DESC_SAVED);
    b->cpu->r.rip = b->flags & BLOCK_32 ? (uint32_t)next : next;
    state_out(b);
    return find_code(b, NULL);
}

/* A plain store to a page of code, without the interpreter: @d->store says of what. */
static void store_noted(const struct bt_cpu *b, const struct desc *d, uint8_t *host)
{
    uint64_t value = 0;
    if (d->store == STORE_IMM) {
        unsigned bytes = MIN(d->size, 4u);
        int32_t imm = 0;
        memcpy(&imm, desc_block(d)->host + desc_guest(d, 1) - bytes, bytes);
        value = (uint64_t)(int64_t)imm;
    } else {
        value = b->cpu->r.gpr[d->store];
    }
    switch (d->size) { /* one store each */
    case 1:
        *host = (uint8_t)value;
        break;
    case 2:
        memcpy(host, &value, 2);
        break;
    case 4:
        memcpy(host, &value, 4);
        break;
    default:
        memcpy(host, &value, 8);
    }
    ram_note_write(host, d->size);
}

bool bt_slow(struct bt_cpu *b, const struct desc *d, uint64_t ea)
{
    struct tlb_result res;
    uint32_t code;
    uint64_t flushes = b->cpu->tlb->full_flushes;
    unsigned want = d->bits & DESC_WRITE ? ACCESS_WRITE : ACCESS_READ;
    b->stats.slow++;
    if (!canonical(ea) || (ea & 4095) + d->size > 4096 ||
        tlb_fill(b->cpu, (enum tlb_mode)b->mode, ea, want, &res, &code) < 0 || !res.host ||
        !still_known(b, flushes)) {
        return one(b, d, flushes);
    }
    if (!res.note) {
        b->s0 = ea;
        b->s1 = (uint64_t)res.host - ea;
        b->fp_was = b->fp_ok;
        return resume_at(b, desc_block(d), d->retry);
    }
    if (d->store != STORE_OTHER && !(ram_flags(res.host) & PAGE_WATCH)) {
        store_noted(b, d, res.host);
        return stored(b, d);
    }
    return one(b, d, flushes);
}

/* The block at @pc, if there is one, is in the jump cache from now on. */
static bool learn_target(struct bt_cpu *b, uint64_t pc)
{
    struct code_place at;
    const uint8_t *host = code_host(b->cpu, pc);
    uint64_t key = pc;
    uint32_t flags = block_key(b, &key);
    cache_expect(host, key);
    if (!host || is_new(host) || is_slot_of_0(jump_slot(pc)) ||
        !find_place(b->cpu, pc, true, &at)) {
        return false;
    }
    pthread_mutex_lock(&cache_lock);
    bool found = !at.host2 && jump_cache_restore(b, at.host, pc);
    struct block *block = found ? NULL : cache_find(at.host, at.host2, key, flags);
    if (block) {
        jump_cache_add(b, block, pc, at.global);
    }
    pthread_mutex_unlock(&cache_lock);
    return found || block;
}

/*
 * An indirect jump to @pc, which the jump cache does not know.  Nothing has been done of it; the
 * interpreter does it if its target is new, or none.
 */
bool bt_target(struct bt_cpu *b, const struct desc *d, uint64_t pc)
{
    uint64_t flushes = b->cpu->tlb->full_flushes;
    b->stats.dispatch++;
    if (learn_target(b, pc) && still_known(b, flushes)) {
        b->s0 = pc;
        b->s1 = jump_slot(pc) * 2;
        b->fp_was = b->fp_ok;
        return resume_at(b, desc_block(d), d->retry);
    }
    return one(b, d, flushes);
}

bool bt_dispatch(struct bt_cpu *b, const struct desc *d, uint64_t pc)
{
    (void)d;
    b->stats.dispatch++;
    b->fl = b->fl_saved;
    state_in(b, false);
    b->cpu->r.rip = b->flags & BLOCK_32 ? (uint32_t)pc : pc;
    jump_cache_remove(b, b->mode, b->cpu->r.rip); /* it may lead to a dead block's door */
    return find_code(b, NULL);
}

/* Makes the exit @d lead to @block for good, if that is sound. */
static void try_link(struct bt_cpu *b, const struct exit_desc *d, struct block *block)
{
    struct block *from = exit_block(d);
    bool apart = d->bits & EXIT_APART;
    uint32_t flags =
        (from->flags & ~(uint32_t)(BLOCK_MODE | BLOCK_APART)) | d->mode | (apart ? BLOCK_APART : 0);
    int page = block_page(from, block->pc);
    const uint8_t *near = page < 0 ? NULL : page ? from->host2 : from->host;
    if (!from->valid || !block->valid || block->pc != d->pc || block->flags != flags) {
        return;
    }
    if (block->host2 && !apart) {
        link_never(d); /* nobody vouches for its second page */
    } else if (near && (uint64_t)near >> 12 == (uint64_t)block->host >> 12) {
        link_exit(d, block, false);
    } else if (!near && b->mode != TLB_USER && is_global(b->cpu, block->pc)) {
        link_exit(d, block, true);
    } else if (!apart) {
        link_never(d);
    }
}

bool bt_link(struct bt_cpu *b, const struct exit_desc *exec_d, uint64_t unused)
{
    const struct exit_desc *x = (const struct exit_desc *)((const uint8_t *)exec_d - cache_exec);
    unsigned generation = cache_generation;
    (void)unused;
    b->stats.link++;
    if (x->bits & EXIT_SAVED) {
        b->fl = b->fl_saved;
    }
    state_in(b, false);
    b->cpu->r.rip = x->pc + (exit_block(x)->flags & BLOCK_FLOAT ? b->page : 0);
    struct block *block = NULL;
    b->apart = x->bits & EXIT_APART ? BLOCK_APART : 0;
    bool found = find_code(b, &block);
    b->apart = 0;
    if (found) {
        pthread_mutex_lock(&cache_lock);
        if (generation == cache_generation) {
            try_link(b, x, block);
        }
        pthread_mutex_unlock(&cache_lock);
    }
    return found;
}

static uint8_t fp_allowed(const struct regs *r)
{
    uint8_t may = 0;
    if (r->cr0 & (CR0_TS | CR0_EM)) {
        return 0;
    }
    may |= FP_X87;
    if (r->cr4 & CR4_OSFXSR) {
        may |= FP_SSE;
        if ((r->cr4 & CR4_OSXSAVE) && (r->xcr0 & 6) == 6) {
            may |= FP_AVX;
        }
    }
    return may;
}

bool bt_fp(struct bt_cpu *b, const struct desc *d, uint64_t unused)
{
    uint8_t may = fp_allowed(&b->cpu->r);
    (void)unused;
    b->stats.fp++;
    if (may & d->size) {
        b->fp_was = may;
        return resume_at(b, desc_block(d), d->retry);
    }
    return one(b, d, b->cpu->tlb->full_flushes);
}

static bool cpuid(struct bt_cpu *b, const struct desc *d)
{
    const struct block *block = desc_block(d);
    uint64_t *g = b->cpu->r.gpr;
    struct cpuid_regs r = remember_cpuid(b, (uint32_t)g[RAX], (uint32_t)g[RCX]);
    g[RAX] = r.eax;
    g[RBX] = r.ebx;
    g[RCX] = r.ecx;
    g[RDX] = r.edx;
    b->fp_was = b->fp_ok;
    return resume_at(b, block, block->points[d->insn + 2].host);
}

bool bt_system(struct bt_cpu *b, const struct desc *d, uint64_t unused)
{
    struct vcpu *cpu = b->cpu;
    (void)unused;
    if (d->size == SYSTEM_CPUID) {
        return cpuid(b, d);
    }
    state_in(b, d->bits & DESC_SAVED);
    uint64_t start = block_pc(b, desc_block(d));
    cpu->r.rip = start + desc_guest(d, 0);
    bool ok = d->size == SYSTEM_SYSCALL ? system_call(cpu, start + desc_guest(d, 1))
              : d->size == SYSTEM_IRET  ? system_iret(cpu)
                                        : system_return(cpu);
    if (!ok) {
        return step(b) && find_code(b, NULL);
    }
    b->stats.system += d->size != SYSTEM_IRET;
    state_out(b);
    return find_code(b, NULL);
}

bool bt_poll(struct bt_cpu *b, uint64_t saved, uint64_t pc)
{
    b->stats.poll++;
    state_in(b, saved);
    b->cpu->r.rip = pc;
    return false;
}

bool bt_fault(struct bt_cpu *b, uint64_t saved, uint64_t pc)
{
    b->stats.fault++;
    state_in(b, saved);
    b->cpu->r.rip = pc;
    return step(b) && find_code(b, NULL);
}

/* ---- the loop ---- */

/* Somebody found the cache full: when all are outside, the first to see it makes room. */
static void wait_for_room(void)
{
    while (atomic_load(&cache_full)) {
        bool anybody = false;
        pthread_mutex_lock(&cache_lock);
        for (unsigned k = 0; k < BT_CPUS; k++) {
            struct bt_cpu *other = bt_cpus[k];
            if (other && atomic_load(&other->inside)) {
                bt_kick(other->cpu);
                anybody = true;
            }
        }
        if (!anybody && atomic_load(&cache_full)) {
            cache_reclaim();
            atomic_store(&cache_full, false);
        }
        pthread_mutex_unlock(&cache_lock);
        if (anybody) {
            sched_yield();
        }
    }
}

static void enter(struct bt_cpu *b)
{
    (void)b;
    ((void (*)(void))exec_of(thunk_at[THUNK_ENTER]))();
}

static bool go_on(struct bt_cpu *b)
{
    struct vcpu *cpu = b->cpu;
    atomic_store(&b->inside, false);
    atomic_fetch_add(&b->turns, 1);
    if (atomic_load(&cache_full)) {
        wait_for_room();
    }
    __atomic_store_n(&b->poll, &b->ok, __ATOMIC_SEQ_CST);
    if (atomic_load(&cpu->requests)) {
        int stop = cpu_take_requests(cpu);
        if (stop != STOP_NONE) {
            b->stop = stop;
            return false;
        }
    }
    state_out(b);
    if (cpu->r.halted) { /* what had woken it is gone: a request was taken back */
        b->stop = STOP_HALTED;
        return false;
    }
    atomic_store(&b->inside, true);
    if (b->flags & BLOCK_INTERP) {
        return run_cold(b); /* inside as well: it writes to memory, too */
    }
    if (direct_wanted(b)) {
        return direct_run(b);
    }
    if (find_code(b, NULL)) {
        enter(b);
    }
    return b->stop == STOP_NONE;
}

static __attribute__((target("fsgsbase"))) void set_gs(struct bt_cpu *b)
{
    _writegsbase_u64((uint64_t)b->cpu->tlb->table[0][0]);
}

static enum stop bt_run(struct vcpu *cpu)
{
    struct bt_cpu *b = bt_of(cpu);
    set_gs(b);
    b->stop = STOP_NONE;
    b->fp_ok = 0;
    direct_rested(b);
    while (go_on(b)) {
    }
    atomic_store(&b->inside, false);
    return (enum stop)b->stop;
}

void bt_kick(struct vcpu *cpu)
{
    struct bt_cpu *b = bt_of(cpu);
    if (b) {
        __atomic_store_n(&b->poll, POLL_BAD, __ATOMIC_SEQ_CST);
        int tracee = atomic_load(&b->tracee);
        if (tracee) {
            tracee_kick(tracee);
        }
    }
}

static void bt_unmapped(struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool global)
{
    struct bt_cpu *b = bt_of(cpu);
    if (!b) {
        return;
    }
    jump_cache_drop(b, linear, bytes, global);
    direct_unmapped(b, linear, bytes, global);
    if (global && (!bytes || linear >> 63 || bytes > 4096)) {
        pthread_mutex_lock(&cache_lock);
        unlink_cross(linear, bytes);
        pthread_mutex_unlock(&cache_lock);
    }
}

/* ---- coming and going ---- */

static bool bt_probe(GError **error)
{
    unsigned a, bx, c, d;
    if (!__get_cpuid_count(7, 0, &a, &bx, &c, &d) || !(bx & bit_BMI) || !(bx & bit_BMI2)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "bt: this processor lacks BMI1 or BMI2; use -accel interp");
        return false;
    }
    if (!__get_cpuid(1, &a, &bx, &c, &d) || !(c & bit_OSXSAVE)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "bt: XSAVE is not enabled; use -accel interp");
        return false;
    }
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "bt: the kernel does not let programs set GS; use -accel interp");
        return false;
    }
    return true;
}

/* In MiB.  In steps of CACHE_LEAST, as each part of the cache is to be of whole huge pages. */
enum { CACHE_LEAST = 8, CACHE_MOST = 128, CACHE_FIRST = 32, SMALL_GUEST = 160 };

/* A large guest runs more programs, and may cost more. */
static uint64_t cache_bytes(void)
{
    uint64_t ram = 0;
    for (unsigned i = 0; ram_at(i); i++) {
        ram += ram_at(i)->size >> 20;
    }
    uint64_t more = ram > SMALL_GUEST ? (ram - SMALL_GUEST) / 10 : 0;
    return MIN(CACHE_LEAST + more / CACHE_LEAST * CACHE_LEAST, CACHE_MOST) << 20;
}

static bool open_cache(GError **error)
{
    uint64_t later = bt_cache_bytes ? bt_cache_bytes : cache_bytes();
    return cache_open(bt_cache_bytes ? later : MAX(later, CACHE_FIRST << 20), later, error);
}

/* ---- the end of a boot ---- */

enum { LOOKS_MS = 50, LOOKS_AT_REST = 4 };

/* A guest that rests has started: what that took is not needed any more. */
static void look_for_rest(void *timer)
{
    static unsigned at_rest;
    struct vcpu *cpu = NULL;
    bool busy = false;
    pthread_mutex_lock(&cache_lock);
    bool wanted = cache_shrinks();
    for (unsigned k = 0; k < BT_CPUS; k++) {
        cpu = bt_cpus[k] ? bt_cpus[k]->cpu : cpu;
        busy |= bt_cpus[k] && atomic_load(&bt_cpus[k]->inside);
    }
    at_rest = busy ? 0 : at_rest + 1;
    if (wanted && cpu && at_rest == LOOKS_AT_REST) {
        cache_rest();
        atomic_store(&cache_full, true);
        vcpu_request(cpu, REQ_WORK); /* it empties the cache on its way in */
    } else if (wanted && cpu) {
        timer_arm(timer, clock_now() + LOOKS_MS * INT64_C(1000000));
    }
    pthread_mutex_unlock(&cache_lock);
}

static void look_for_rest_later(void)
{
    static struct timer looks = {.fire = look_for_rest, .owner = &looks};
    if (cache_shrinks()) {
        timer_arm(&looks, clock_now() + LOOKS_MS * INT64_C(1000000));
    }
}

static bool bt_attach(struct vcpu *cpu, GError **error)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once);
    bool ok = open_cache(error) && signals_open(error);
    pthread_mutex_unlock(&once);
    if (!ok || !signals_thread(error)) {
        return false;
    }
    bool fresh = !cpu->tlb; /* all zeroes: most of it will not be touched */
    if (fresh) {
        cpu->tlb = tlb_new(error);
        if (!cpu->tlb) {
            return false;
        }
    }
    struct bt_cpu *b = tlb_engine_area(cpu->tlb);
    if (!fresh) {
        memset(b, 0, sizeof(*b));
    }
    b->self = b;
    b->cpu = cpu;
    b->poll = &b->ok;
    b->mxcsr_default = 0x1f80;
    for (unsigned mode = 0; mode < TLB_MODES; mode++) {
        b->jump[mode].at[0].code = exec_of(thunk_at[THUNK_PC_0]);
        b->jump[mode].at[JUMP_PAIR].code = exec_of(thunk_at[THUNK_PC_0]);
    }
    cpu->priv = b;
    direct_open(b);
    ram_code_written = smc_written;
    pthread_mutex_lock(&cache_lock);
    bt_cpus[cpu->index] = b;
    look_for_rest_later();
    pthread_mutex_unlock(&cache_lock);
    return true;
}

/* Lock held. */
static void counters_of(const struct bt_cpu *b, struct bt_counter out[BT_COUNTERS])
{
    const struct bt_stats *s = &b->stats;
    const struct tlb *t = b->cpu->tlb;
    const struct bt_counter all[] = {
        {"blocks", s->translated}, {"instructions", s->insns}, {"tlb-miss", s->slow},
        {"interpreted", s->one},   {"look-up", s->dispatch},   {"link", s->link},
        {"vector-state", s->fp},   {"system-call", s->system}, {"cold", s->cold},
        {"request", s->poll},      {"host-fault", s->fault},   {"direct", s->direct},
        {"tlb-fill", t->fills},    {"tlb-flush", t->flushes},  {"tlb-full-flush", t->full_flushes},
    };
    G_STATIC_ASSERT(G_N_ELEMENTS(all) == BT_COUNTERS);
    memcpy(out, all, sizeof(all));
}

bool bt_counters(unsigned index, struct bt_counter out[BT_COUNTERS])
{
    pthread_mutex_lock(&cache_lock);
    const struct bt_cpu *b = index < BT_CPUS ? bt_cpus[index] : NULL;
    if (b) {
        counters_of(b, out);
    }
    pthread_mutex_unlock(&cache_lock);
    return b != NULL;
}

struct bt_cache_use bt_cache_use(void)
{
    pthread_mutex_lock(&cache_lock);
    struct bt_cache_use u = {cache_size(), cache_start ? cache_used() : 0, cache_generation};
    pthread_mutex_unlock(&cache_lock);
    return u;
}

static void describe(const struct bt_cpu *b, GString *out)
{
    struct bt_counter c[BT_COUNTERS];
    counters_of(b, c);
    g_string_append_printf(out, "cpu %u:", b->cpu->index);
    for (unsigned k = 0; k < BT_COUNTERS; k++) {
        g_string_append_printf(out, " %s %" PRIu64, c[k].name, c[k].value);
    }
}

void bt_describe(GString *out)
{
    pthread_mutex_lock(&cache_lock);
    bool any = false;
    for (unsigned k = 0; k < BT_CPUS; k++) {
        if (bt_cpus[k]) {
            describe(bt_cpus[k], out);
            g_string_append_c(out, '\n');
            any = true;
        }
    }
    if (any) {
        g_string_append_printf(out, "cache: %" PRIu64 " of %" PRIu64 " KiB, parts emptied: %u\n",
                               cache_used() >> 10, cache_size() >> 10, cache_generation);
    }
    pthread_mutex_unlock(&cache_lock);
}

static void bt_detach(struct vcpu *cpu)
{
    struct bt_cpu *b = bt_of(cpu);
    g_autoptr(GString) text = g_string_new(NULL);
    describe(b, text);
    log_line(LOG_JIT_STATS, "%s; cache: %" PRIu64 " KiB, parts emptied: %u", text->str,
             cache_used() >> 10, cache_generation);
    pthread_mutex_lock(&cache_lock);
    bt_cpus[cpu->index] = NULL;
    pthread_mutex_unlock(&cache_lock);
    direct_close(b);
    cpu->priv = NULL;
}

const struct cpu_engine engine_bt = {
    .name = "bt",
    .about = "x86 to x86 binary translation",
    .probe = bt_probe,
    .attach = bt_attach,
    .detach = bt_detach,
    .run = bt_run,
    .kick = bt_kick,
    .unmapped = bt_unmapped,
};
