/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * string: movs, stos, lods, scas, cmps, ins, alone and repeated.
 *
 * Spec: Intel SDM, volume 1, "String Operations"; volume 2, "REP/REPE/REPZ/REPNE/REPNZ".
 *
 * A repeated instruction goes in runs: elements whose addresses do not wrap, and whose
 * memory is plain and in one page at both sides, are done at once by the host.  After each
 * run the registers are as after that many iterations, so a fault or an interrupt finds
 * them exact, with RIP still at the instruction.
 */
#include "guest/cpu/interp/alu.h"
#include "guest/cpu/interp/system.h"

enum { REPNE = 3 }; /* .pp of F2; of several prefixes it names the last */

/* The two ends of a string instruction; .reg < 0: not used. */
struct string {
    struct vcpu *cpu;
    const struct insn *i;
    unsigned bytes; /* an element */
    int64_t step;   /* bytes, negative with DF */
    uint64_t mask;  /* of the address size */
};

static struct string string_of(struct vcpu *cpu, const struct insn *i)
{
    int64_t bytes = i->op == OP_INS ? MIN(i->opsize, 4) : i->opsize; /* ports have 32 bits */
    return (struct string){cpu, i, (unsigned)bytes, cpu->r.rflags & FLAG_DF ? -bytes : bytes,
                           size_mask(i->addrsize)};
}

static uint64_t index_of(const struct string *s, unsigned reg)
{
    return s->cpu->r.gpr[reg] & s->mask;
}

/* Moves an index or the counter; a 32-bit one clears the upper half as any such write. */
static void set_index(const struct string *s, unsigned reg, uint64_t v)
{
    reg_write(s->cpu, s->i, reg, s->i->addrsize, v);
}

static void advance(const struct string *s, unsigned reg, uint64_t count)
{
    set_index(s, reg, s->cpu->r.gpr[reg] + count * (uint64_t)s->step);
}

static uint64_t source_linear(const struct string *s, unsigned bytes)
{
    return seg_linear(s->cpu, (enum seg_name)s->i->seg, index_of(s, RSI), bytes, false);
}

static uint64_t target_linear(const struct string *s, unsigned bytes, bool write)
{
    return seg_linear(s->cpu, SEG_ES, index_of(s, RDI), bytes, write);
}

static bool repeated(const struct insn *i)
{
    return i->prefixes & (PFX_F2 | PFX_F3);
}

/* ---- one element ---- */

static void one_movs(const struct string *s)
{
    uint64_t v = mem_load(s->cpu, source_linear(s, s->bytes), s->bytes);
    mem_store(s->cpu, target_linear(s, s->bytes, true), v, s->bytes);
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}

static void one_stos(const struct string *s)
{
    mem_store(s->cpu, target_linear(s, s->bytes, true), s->cpu->r.gpr[RAX], s->bytes);
    advance(s, RDI, 1);
}

static void one_lods(const struct string *s)
{
    uint64_t v = mem_load(s->cpu, source_linear(s, s->bytes), s->bytes);
    reg_write(s->cpu, s->i, RAX, s->bytes, v);
    advance(s, RSI, 1);
}

/* a - b, flags only */
static void compare_numbers(struct vcpu *cpu, uint64_t a, uint64_t b, unsigned bytes)
{
    uint32_t ax = alu_pack(cpu->r.rflags);
    unsigned up = 64 - 8 * bytes;
    uint8_t low_a = (uint8_t)a, low_b = (uint8_t)b;
    uint32_t low;
    a <<= up, b <<= up;
    /* The upper flags from the numbers at the top of a word, PF and AF from their bytes. */
    __asm__("cmp %[b], %[a]" ALU_FLAGS_OUT : "+a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");
    __asm__("xor %%eax, %%eax\n\tcmp %[b], %[a]" ALU_FLAGS_OUT
            : "=&a"(low)
            : [a] "q"(low_a), [b] "q"(low_b)
            : "cc");
    uint32_t from_low = (FLAG_PF | FLAG_AF) << 8;
    ax = (ax & ~from_low) | (low & from_low);
    cpu->r.rflags = alu_unpack(cpu->r.rflags, ax);
}

static void one_scas(const struct string *s)
{
    uint64_t v = mem_load(s->cpu, target_linear(s, s->bytes, false), s->bytes);
    compare_numbers(s->cpu, s->cpu->r.gpr[RAX], v, s->bytes);
    advance(s, RDI, 1);
}

static void one_cmps(const struct string *s)
{
    uint64_t a = mem_load(s->cpu, source_linear(s, s->bytes), s->bytes);
    uint64_t b = mem_load(s->cpu, target_linear(s, s->bytes, false), s->bytes);
    compare_numbers(s->cpu, a, b, s->bytes);
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}

static uint16_t port_of(const struct string *s)
{
    return (uint16_t)s->cpu->r.gpr[RDX];
}

static void one_ins(const struct string *s)
{
    uint64_t linear = target_linear(s, s->bytes, true);
    mem_probe(s->cpu, linear, s->bytes, true); /* before the device is read */
    mem_store(s->cpu, linear, space_load(s->cpu->ports, port_of(s), s->bytes), s->bytes);
    advance(s, RDI, 1);
}

/* ---- runs ---- */

/* The same downwards, for run_at(); @host is that of the first element. */
static uint64_t run_down(const struct string *s, enum seg_name seg, unsigned reg, bool write,
                         uint64_t count, uint8_t **host)
{
    uint64_t index = index_of(s, reg), in_page = index & (PAGE_SIZE - 1);
    uint64_t n = MIN(in_page / s->bytes + 1, count), bytes = n * s->bytes, have = bytes;
    if (in_page + s->bytes > PAGE_SIZE) {
        return 0;
    }
    uint64_t low = index - (bytes - s->bytes);
    *host = mem_map(s->cpu, seg_linear(s->cpu, seg, low, (unsigned)bytes, write), &have, write);
    if (!*host || have < bytes) {
        return 0;
    }
    *host += bytes - s->bytes;
    return n;
}

/*
 * How many elements at @reg in @seg lie in one plain page, at most @count, and where.  0: do
 * one element the slow way.
 */
static uint64_t run_at(const struct string *s, enum seg_name seg, unsigned reg, bool write,
                       uint64_t count, uint8_t **host)
{
    if (s->step < 0) {
        return run_down(s, seg, reg, write, count, host);
    }
    uint64_t index = index_of(s, reg);
    uint64_t room = s->mask - index; /* bytes before the index wraps, less one */
    uint64_t in_page = PAGE_SIZE - (index & (PAGE_SIZE - 1));
    uint64_t bytes = in_page < PAGE_SIZE ? in_page : PAGE_SIZE;
    if (count < bytes / s->bytes) {
        bytes = count * s->bytes;
    }
    if (room < bytes) {
        return 0;
    }
    bytes -= bytes % s->bytes;
    if (bytes == 0) {
        return 0;
    }
    /* The segment base may be unaligned: mem_map() says how much really is in the page. */
    uint64_t linear = seg_linear(s->cpu, seg, index, (unsigned)bytes, write), n = bytes;
    *host = mem_map(s->cpu, linear, &n, write);
    return *host ? n / s->bytes : 0;
}

/*
 * seg_linear() raises if the run leaves the segment though its first element may not: near
 * the limit go by elements.
 */
static bool near_limit(const struct string *s, enum seg_name seg, unsigned reg)
{
    const struct segment *d = &s->cpu->r.seg[seg];
    if (vcpu_code64(s->cpu)) {
        return false;
    }
    if ((d->attr & (SEG_S | 0xc)) == (SEG_S | 4)) {
        return true; /* expand-down: rare */
    }
    return index_of(s, reg) + PAGE_SIZE > d->limit;
}

/* In the guest's direction: element by element where what was written is read again. */
static void copy_down(const struct string *s, uint8_t *to, const uint8_t *from, uint64_t count)
{
    uint64_t bytes = count * s->bytes, back = bytes - s->bytes;
    if (to >= from || (uint64_t)(from - to) >= bytes) {
        memmove(to - back, from - back, bytes);
        return;
    }
    for (uint64_t n = 0; n < count; n++, to -= s->bytes, from -= s->bytes) {
        uint64_t v = 0;
        memcpy(&v, from, s->bytes);
        memcpy(to, &v, s->bytes);
    }
}

static void copy_run(const struct string *s, uint8_t *to, const uint8_t *from, uint64_t count)
{
    uint64_t n = count;
    if (s->step < 0) {
        copy_down(s, to, from, count);
        return;
    }
    switch (s->bytes) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        break;
    }
}

static void fill_run(const struct string *s, uint8_t *to, uint64_t v, uint64_t count)
{
    uint64_t n = count;
    switch (s->bytes) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    }
}

static uint8_t *lowest(const struct string *s, uint8_t *first, uint64_t n)
{
    return s->step < 0 ? first - (n - 1) * s->bytes : first;
}

/* Elements done at once; 0: none, take the slow way for one. */
static uint64_t run_movs(const struct string *s, uint64_t count)
{
    uint8_t *from, *to;
    if (near_limit(s, (enum seg_name)s->i->seg, RSI) || near_limit(s, SEG_ES, RDI)) {
        return 0;
    }
    uint64_t n = run_at(s, (enum seg_name)s->i->seg, RSI, false, count, &from);
    if (n) {
        n = run_at(s, SEG_ES, RDI, true, n, &to);
    }
    if (n) {
        copy_run(s, to, from, n);
        mem_wrote(s->cpu, lowest(s, to, n), (unsigned)n * s->bytes);
        advance(s, RSI, n);
        advance(s, RDI, n);
    }
    return n;
}

static uint64_t run_stos(const struct string *s, uint64_t count)
{
    uint8_t *to;
    if (s->step < 0 || near_limit(s, SEG_ES, RDI)) {
        return 0;
    }
    uint64_t n = run_at(s, SEG_ES, RDI, true, count, &to);
    if (n) {
        fill_run(s, to, s->cpu->r.gpr[RAX], n);
        mem_wrote(s->cpu, to, (unsigned)n * s->bytes);
        advance(s, RDI, n);
    }
    return n;
}

static uint64_t run_ins(const struct string *s, uint64_t count)
{
    uint8_t *to;
    if (s->step < 0 || near_limit(s, SEG_ES, RDI)) {
        return 0;
    }
    uint64_t n = run_at(s, SEG_ES, RDI, true, count, &to);
    if (n) {
        space_load_many(s->cpu->ports, port_of(s), s->bytes, to, n);
        mem_wrote(s->cpu, to, (unsigned)n * s->bytes);
        advance(s, RDI, n);
    }
    return n;
}

static uint64_t element(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, at, bytes);
    return v;
}

/*
 * Elements that @s may skip: those before the one that ends the loop.  The last one is left
 * to the slow way, which sets the flags.
 */
static uint64_t run_scas(const struct string *s, uint64_t count)
{
    uint8_t *at;
    bool until_equal = s->i->pp == REPNE;
    if (s->step < 0 || near_limit(s, SEG_ES, RDI)) {
        return 0;
    }
    uint64_t n = run_at(s, SEG_ES, RDI, false, count, &at), done = 0;
    uint64_t want = s->cpu->r.gpr[RAX] & size_mask(s->bytes);
    if (n && s->bytes == 1 && until_equal) {
        const uint8_t *hit = memchr(at, (int)want, n);
        done = hit ? (uint64_t)(hit - at) : n;
    } else {
        while (done < n && (element(at + done * s->bytes, s->bytes) == want) != until_equal) {
            done++;
        }
    }
    if (done && done == n) {
        done--;
    }
    advance(s, RDI, done);
    return done;
}

static uint64_t run_cmps(const struct string *s, uint64_t count)
{
    uint8_t *a, *b;
    bool until_equal = s->i->pp == REPNE;
    if (s->step < 0 || near_limit(s, (enum seg_name)s->i->seg, RSI) || near_limit(s, SEG_ES, RDI)) {
        return 0;
    }
    uint64_t n = run_at(s, (enum seg_name)s->i->seg, RSI, false, count, &a), done = 0;
    if (n) {
        n = run_at(s, SEG_ES, RDI, false, n, &b);
    }
    while (done < n && (element(a + done * s->bytes, s->bytes) ==
                        element(b + done * s->bytes, s->bytes)) != until_equal) {
        done++;
    }
    if (done && done == n) {
        done--;
    }
    advance(s, RSI, done);
    advance(s, RDI, done);
    return done;
}

/* ---- the loop ---- */

typedef void one_fn(const struct string *s);
typedef uint64_t run_fn(const struct string *s, uint64_t count);

static void take_count(const struct string *s, uint64_t done)
{
    set_index(s, RCX, s->cpu->r.gpr[RCX] - done);
}

/* Somebody wants to see every element. */
static bool traced(const struct vcpu *cpu)
{
    return (cpu->r.rflags & FLAG_TF) || cpu->single_step || cpu->points || (cpu->r.dr[7] & 0xff);
}

/* @compares: REPE and REPNE look at ZF after each element. */
static void repeat(struct vcpu *cpu, const struct insn *i, one_fn *one, run_fn *run, bool compares)
{
    struct string s = string_of(cpu, i);
    if (!repeated(i)) {
        one(&s);
        return;
    }
    bool single = traced(cpu);
    for (uint64_t count = index_of(&s, RCX); count; count = index_of(&s, RCX)) {
        uint64_t done = run && count > 1 && !single ? run(&s, count) : 0;
        take_count(&s, done);
        if (!done || compares) {
            one(&s);
            take_count(&s, 1);
            bool equal = cpu->r.rflags & FLAG_ZF;
            if (compares && equal != (i->pp != REPNE)) {
                return;
            }
        }
        if (index_of(&s, RCX) && interp_rep_must_stop(cpu)) {
            cpu->next_rip = cpu->r.rip;
            return;
        }
    }
}

static void do_movs(struct vcpu *cpu, const struct insn *i)
{
    repeat(cpu, i, one_movs, run_movs, false);
}

static void do_stos(struct vcpu *cpu, const struct insn *i)
{
    repeat(cpu, i, one_stos, run_stos, false);
}

static void do_lods(struct vcpu *cpu, const struct insn *i)
{
    repeat(cpu, i, one_lods, NULL, false);
}

static void do_scas(struct vcpu *cpu, const struct insn *i)
{
    repeat(cpu, i, one_scas, run_scas, true);
}

static void do_cmps(struct vcpu *cpu, const struct insn *i)
{
    repeat(cpu, i, one_cmps, run_cmps, true);
}

static void do_ins(struct vcpu *cpu, const struct insn *i)
{
    cpu_check_io(cpu, (uint16_t)cpu->r.gpr[RDX], MIN(i->opsize, 4));
    repeat(cpu, i, one_ins, run_ins, false);
}

static const struct interp_row interp_string_rows[] = {
    {OP_MOVS, do_movs}, {OP_STOS, do_stos}, {OP_LODS, do_lods},
    {OP_SCAS, do_scas}, {OP_CMPS, do_cmps}, {OP_INS, do_ins},
};
INTERP_TABLE(interp_string);
