/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * native: vector, MMX and x87 instructions executed by the host's own instruction.
 *
 * Spec: Intel SDM, volume 1, "Managing State Using the XSAVE Feature Set"; volume 2,
 * "Instruction Format", "Intel Advanced Vector Extensions"; System V ABI for AMD64,
 * "Register Usage".
 *
 * The guest's instruction is encoded again so that its memory operand lies in a scratch
 * buffer at [rsi] and its general registers are rcx (modrm.reg), rdx (modrm.rm) and rax;
 * vector and x87 registers keep their numbers.  Around it a stub loads and stores the
 * registers concerned.  Stubs are cached by their instruction, in a buffer of the thread
 * that is mapped twice, once to write and once to execute.
 *
 * An exception that the guest's MXCSR does not mask is a SIGFPE here; the handler leads it
 * to the end of the stub, before anything was stored.
 */
#include "guest/cpu/interp/native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* What a stub works on: rdi.  Offsets are in the code it is made of. */
struct frame {
    uint64_t rax, rcx, rdx;
    uint64_t flags;
    uint8_t *xsave;
    uint8_t *scratch;
    uint32_t host_mxcsr;
    uint32_t fault;      /* the SIGFPE handler was here */
    const uint8_t *tail; /* where it goes on */
};

enum {
    CODE_BYTES = 256 << 10, STUB_BYTES = 512, STUBS = 2048, /* a power of two */
};

struct stub {
    uint8_t key[16]; /* the instruction as encoded again; [15] is its length, 0: free */
    uint32_t at, tail; /* offsets in the code buffer */
};

struct stubs {
    uint8_t *write;       /* the buffer, writable */
    const uint8_t *code;  /* the same, executable */
    uint32_t used, count;
    struct stub table[STUBS];
};

static __thread struct stubs *stubs;
static __thread struct frame *running; /* of the stub in execution */

/* ---- state ---- */

void xstate_init(struct vcpu *cpu, uint64_t parts)
{
    uint8_t *x = cpu->r.xsave;
    uint64_t bv = xstate_bv(cpu) | parts;
    static const uint32_t mxcsr = MXCSR_DEFAULT;
    if (parts & XSTATE_X87) {
        memset(x, 0, XSAVE_MXCSR);
        memset(x + XSAVE_ST, 0, XSAVE_XMM - XSAVE_ST);
        fpu_set_word(cpu, XSAVE_FCW, 0x37f);
    }
    if (parts & XSTATE_SSE) {
        memset(x + XSAVE_XMM, 0, 256);
        memcpy(x + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
    }
    if (parts & XSTATE_AVX) {
        memset(x + XSAVE_YMM, 0, 256);
    }
    memcpy(x + XSAVE_BV, &bv, sizeof(bv));
}

void xstate_own(struct vcpu *cpu, uint64_t parts)
{
    uint64_t missing = parts & ~xstate_bv(cpu);
    if (missing) {
        /* MXCSR is there though SSE may not be: XRSTOR and XSAVE treat it apart. */
        uint32_t mxcsr;
        memcpy(&mxcsr, cpu->r.xsave + XSAVE_MXCSR, sizeof(mxcsr));
        xstate_init(cpu, missing);
        memcpy(cpu->r.xsave + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
    }
}

void fpu_check_pending(struct vcpu *cpu)
{
    xstate_own(cpu, XSTATE_X87);
    if (!(fpu_word(cpu, XSAVE_FSW) & ~fpu_word(cpu, XSAVE_FCW) & 0x3f)) {
        return;
    }
    if (cpu->r.cr0 & CR0_NE) {
        cpu_raise(cpu, VEC_MF);
    }
    if (cpu->board && cpu->board->ferr) {
        cpu->board->ferr(cpu->board->owner, cpu);
    }
}

/* ---- the buffer ---- */

static struct sigaction before;

static void on_sigfpe(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    if (running && stubs) {
        const uint8_t *pc = (const uint8_t *)g[REG_RIP];
        if (pc >= stubs->code && pc < stubs->code + CODE_BYTES) {
            running->fault = 1;
            g[REG_RIP] = (greg_t)running->tail;
            return;
        }
    }
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
        return;
    }
    signal(SIGFPE, SIG_DFL); /* not ours: the instruction runs again and ends the process */
}

void native_catch_signals(void)
{
    struct sigaction action = {.sa_sigaction = on_sigfpe,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    struct sigaction old;
    sigaction(SIGFPE, &action, &old);
    if (old.sa_sigaction != on_sigfpe) {
        before = old;
    }
}

/* At the end of a thread. */
static void stubs_free(void *own)
{
    struct stubs *s = own;
    stubs = NULL;
    munmap(s->write, CODE_BYTES);
    munmap((void *)(uintptr_t)s->code, CODE_BYTES);
    munmap(s, sizeof(*s));
}

/* NULL if there is no memory. */
static struct stubs *stubs_new(void)
{
    static GPrivate key = G_PRIVATE_INIT(stubs_free);
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, native_catch_signals);
    struct stubs *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                           -1, 0);
    if (s == MAP_FAILED) {
        return NULL;
    }
    int fd = memfd_create("lodge-stubs", MFD_CLOEXEC);
    void *write = MAP_FAILED, *code = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, CODE_BYTES) == 0) {
        write = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (write == MAP_FAILED || code == MAP_FAILED) {
        if (write != MAP_FAILED) {
            munmap(write, CODE_BYTES);
        }
        munmap(s, sizeof(*s));
        return NULL;
    }
    s->write = write;
    s->code = code;
    g_private_set(&key, s);
    return s;
}

/* ---- encoding ---- */

struct text {
    uint8_t *at;
};

static void put(struct text *t, unsigned byte)
{
    *t->at++ = (uint8_t)byte;
}

static void put32(struct text *t, uint32_t v)
{
    memcpy(t->at, &v, sizeof(v));
    t->at += sizeof(v);
}

/* Does a general register stand in modrm.reg (or modrm.rm)? */
static bool general_reg(const struct insn *i)
{
    const uint8_t *k = i->desc->operand;
    return k[0] == OPD_REG || k[1] == OPD_REG || k[2] == OPD_REG;
}

static bool general_rm(const struct insn *i)
{
    const uint8_t *k = i->desc->operand;
    return !i->mem && (k[0] == OPD_RM || k[1] == OPD_RM || k[2] == OPD_RM);
}

enum { IN_RCX = 1, IN_RDX = 2, AT_RSI = 6 };

/* The ModRM byte that suits the stub, and the R and B bits that go with it. */
static uint8_t new_modrm(const struct insn *i, unsigned *r, unsigned *b)
{
    unsigned reg = (i->modrm >> 3) & 7, rm = i->modrm & 7, mod = 3;
    *r = i->reg >> 3;
    *b = 0;
    if (general_reg(i)) {
        reg = IN_RCX;
        *r = 0;
    }
    if (i->mem) {
        mod = 0;
        rm = AT_RSI;
    } else if (general_rm(i)) {
        rm = IN_RDX;
    } else {
        *b = i->rm >> 3;
    }
    return (uint8_t)(mod << 6 | reg << 3 | rm);
}

static void put_vex(struct text *t, const struct insn *i, unsigned r, unsigned b)
{
    put(t, 0xc4);
    put(t, (r ^ 1) << 7 | 0x40 | (b ^ 1) << 5 | i->map);
    put(t, (i->rex >> 3 & 1u) << 7 | (~(unsigned)i->vvvv & 15) << 3 | (unsigned)i->vl << 2 | i->pp);
}

static void put_legacy(struct text *t, const struct insn *i, unsigned r, unsigned b)
{
    static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};
    unsigned w = i->opsize == 8 && (i->rex & 8);
    if (i->pp && (i->desc->bits & INSN_MANDATORY)) {
        put(t, prefix[i->pp]);
    }
    if (w | r | b) {
        put(t, 0x40 | w << 3 | r << 2 | b);
    }
    if (i->map != MAP_1BYTE) {
        put(t, 0x0f);
    }
    if (i->map > MAP_0F) {
        put(t, i->map == MAP_0F38 ? 0x38 : 0x3a);
    }
}

/* The instruction, encoded for the stub; its length also in key[15]. */
static void encode(const struct insn *i, uint8_t key[16])
{
    struct text t = {key};
    unsigned r = 0, b = 0;
    uint8_t modrm = i->has_modrm ? new_modrm(i, &r, &b) : 0;
    memset(key, 0, 16);
    if (i->encoding == ENC_VEX) {
        put_vex(&t, i, r, b);
    } else {
        put_legacy(&t, i, r, b);
    }
    put(&t, i->opcode);
    if (i->has_modrm) {
        put(&t, modrm);
    }
    for (unsigned n = 0; n < i->imm_bytes; n++) {
        put(&t, i->bytes[i->at_imm + n]);
    }
    key[15] = (uint8_t)(t.at - key);
}

/* ---- stubs ---- */

/* mov r64, [rdi + at], and back; the low eight registers */
static void put_load(struct text *t, unsigned reg, unsigned at)
{
    put(t, 0x48);
    put(t, 0x8b);
    put(t, 0x47 | reg << 3);
    put(t, at);
}

static void put_store(struct text *t, unsigned reg, unsigned at)
{
    put(t, 0x48);
    put(t, 0x89);
    put(t, 0x47 | reg << 3);
    put(t, at);
}

/* movups xmmN, [r8 + at] or back; VEX form too */
static void put_xmm(struct text *t, unsigned n, unsigned at, bool store, bool vex)
{
    if (vex) {
        put(t, 0xc4);
        put(t, (n >> 3 ^ 1) << 7 | 0x40 | 1); /* B: r8 */
        put(t, 0x78);
    } else {
        put(t, 0x41 | (n >> 3) << 2);
        put(t, 0x0f);
    }
    put(t, store ? 0x11 : 0x10);
    put(t, 0x80 | (n & 7) << 3);
    put32(t, at);
}

/* vinsertf128 ymmN, ymmN, [r8 + at], 1, or vextractf128 [r8 + at], ymmN, 1 */
static void put_upper(struct text *t, unsigned n, unsigned at, bool store)
{
    put(t, 0xc4);
    put(t, (n >> 3 ^ 1) << 7 | 0x40 | 3);
    put(t, store ? 0x7d : ((~n & 15) << 3) | 5);
    put(t, store ? 0x19 : 0x18);
    put(t, 0x80 | (n & 7) << 3);
    put32(t, at);
    put(t, 1);
}

static void put_vector(struct text *t, unsigned n, bool store, bool vex)
{
    put_xmm(t, n, XSAVE_XMM + 16 * n, store, vex);
    if (vex) {
        put_upper(t, n, XSAVE_YMM + 16 * n, store);
    }
}

/* Vector registers that the instruction names: to load, and to store. */
static void vector_registers(const struct insn *i, uint32_t *load, uint32_t *store)
{
    *load = *store = 0;
    for (unsigned n = 0; n < 4; n++) {
        uint32_t bit = 0;
        switch (i->desc->operand[n]) {
        case OPD_XMM:
            bit = 1u << i->reg;
            break;
        case OPD_XMM_RM:
            bit = i->mem ? 0 : 1u << i->rm;
            break;
        case OPD_VVVV:
            bit = 1u << i->vvvv;
            break;
        case OPD_IS4:
            bit = 1u << (i->imm >> 4 & 15);
            break;
        case OPD_XMM0:
            bit = 1;
            break;
        default:
            break;
        }
        *load |= bit;
        if (i->desc->access[n] & MEM_WRITE) {
            *store |= bit;
        }
    }
    if (i->op == OP_PCMPESTRM || i->op == OP_PCMPISTRM || i->op == OP_VPCMPESTRM ||
        i->op == OP_VPCMPISTRM) {
        *load |= 1;
        *store |= 1;
    }
}

/* ldmxcsr or stmxcsr [r8 + XSAVE_MXCSR] */
static void put_guest_mxcsr(struct text *t, bool store)
{
    put(t, 0x41);
    put(t, 0x0f);
    put(t, 0xae);
    put(t, store ? 0x58 : 0x50);
    put(t, XSAVE_MXCSR);
}

static void put_tail(struct text *t, bool vex)
{
    put_guest_mxcsr(t, true);
    put(t, 0x0f); /* ldmxcsr [rdi + host_mxcsr] */
    put(t, 0xae);
    put(t, 0x57);
    put(t, offsetof(struct frame, host_mxcsr));
    if (vex) {
        put(t, 0xc5); /* vzeroupper */
        put(t, 0xf8);
        put(t, 0x77);
    }
    put(t, 0xc3);
}

/* Writes the stub at @t; returns where its tail begins. */
static uint8_t *put_stub(struct text *t, const struct insn *i, const uint8_t key[16])
{
    bool vex = i->encoding == ENC_VEX;
    uint32_t load, store;
    vector_registers(i, &load, &store);
    put_load(t, RSI, offsetof(struct frame, scratch));
    put(t, 0x4c); /* mov r8, [rdi + xsave] */
    put(t, 0x8b);
    put(t, 0x47);
    put(t, offsetof(struct frame, xsave));
    for (unsigned n = 0; n < 16; n++) {
        if (load >> n & 1) {
            put_vector(t, n, false, vex);
        }
    }
    put_load(t, RAX, offsetof(struct frame, rax));
    put_load(t, RCX, offsetof(struct frame, rcx));
    put_load(t, RDX, offsetof(struct frame, rdx));
    put_guest_mxcsr(t, false);
    if (i->desc->flags_read) { /* fcmov: push [rdi + flags]; popf */
        put(t, 0xff);
        put(t, 0x77);
        put(t, offsetof(struct frame, flags));
        put(t, 0x9d);
    }
    memcpy(t->at, key, key[15]);
    t->at += key[15];
    if (i->desc->flags_written) {
        put(t, 0x9c); /* pushf; pop [rdi + flags] */
        put(t, 0x8f);
        put(t, 0x47);
        put(t, offsetof(struct frame, flags));
    }
    put_store(t, RCX, offsetof(struct frame, rcx));
    put_store(t, RDX, offsetof(struct frame, rdx));
    for (unsigned n = 0; n < 16; n++) {
        if (store >> n & 1) {
            put_vector(t, n, true, vex);
        }
    }
    uint8_t *tail = t->at;
    put_tail(t, vex);
    return tail;
}

static uint32_t hash(const uint8_t key[16])
{
    uint64_t a, b;
    memcpy(&a, key, 8);
    memcpy(&b, key + 8, 8);
    a = (a ^ b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd);
    return (uint32_t)(a >> 40);
}

static const struct stub *find_stub(const struct insn *i)
{
    uint8_t key[16];
    encode(i, key);
    struct stub *s;
    for (uint32_t h = hash(key);; h++) {
        s = &stubs->table[h & (STUBS - 1)];
        if (memcmp(s->key, key, 16) == 0) {
            return s;
        }
        if (s->key[15] == 0) {
            break;
        }
    }
    if (stubs->used + STUB_BYTES > CODE_BYTES || stubs->count > STUBS / 2) {
        memset(stubs->table, 0, sizeof(stubs->table)); /* full: start again */
        stubs->used = stubs->count = 0;
        s = &stubs->table[hash(key) & (STUBS - 1)];
    }
    struct text t = {stubs->write + stubs->used};
    const uint8_t *tail = put_stub(&t, i, key);
    memcpy(s->key, key, 16);
    s->at = stubs->used;
    s->tail = (uint32_t)(tail - stubs->write);
    stubs->used = (uint32_t)(t.at - stubs->write + 15) & ~15u;
    stubs->count++;
    return s;
}

/* ---- execution ---- */

static void call_stub(const struct stub *s, struct frame *f)
{
    void (*code)(struct frame *) = (void (*)(struct frame *))(uintptr_t)(stubs->code + s->at);
    f->tail = stubs->code + s->tail;
    running = f;
    code(f);
    running = NULL;
}

/* x87 and MMX: all of that state, around the stub. */
static void call_with_x87(struct vcpu *cpu, const struct stub *s, struct frame *f)
{
    uint32_t low = XSTATE_X87, high = 0;
    __asm__ volatile("xrstor64 (%0)" : : "r"(cpu->r.xsave), "a"(low), "d"(high) : "memory");
    call_stub(s, f);
    __asm__ volatile("xsave64 (%0)\n\tfninit"
                     :
                     : "r"(cpu->r.xsave), "a"(low), "d"(high)
                     : "memory");
    xstate_own(cpu, XSTATE_X87); /* XSAVE leaves out what is in its initial state */
}

/* Last instruction and operand pointers, which now tell of the stub. */
struct fpu_pointers {
    uint16_t opcode;
    uint64_t ip, dp;
};

static struct fpu_pointers pointers_of(const struct vcpu *cpu)
{
    struct fpu_pointers p;
    memcpy(&p.opcode, cpu->r.xsave + XSAVE_FOP, 2);
    memcpy(&p.ip, cpu->r.xsave + XSAVE_FIP, 8);
    memcpy(&p.dp, cpu->r.xsave + XSAVE_FDP, 8);
    return p;
}

static void set_pointers(struct vcpu *cpu, const struct insn *i, struct fpu_pointers p)
{
    if (i->desc->class == CLASS_X87) {
        p.opcode = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
        p.ip = cpu->r.rip;
        if (i->mem) {
            p.dp = interp_offset(cpu, i);
        }
    }
    memcpy(cpu->r.xsave + XSAVE_FOP, &p.opcode, 2);
    memcpy(cpu->r.xsave + XSAVE_FIP, &p.ip, 8);
    memcpy(cpu->r.xsave + XSAVE_FDP, &p.dp, 8);
}

/* Memory operand into @scratch, or proof that it can be written.  Returns its address. */
static uint64_t bring_memory(struct vcpu *cpu, const struct insn *i, uint8_t *scratch, bool x87)
{
    unsigned bytes = insn_mem_bytes(i), access = i->desc->mem;
    uint64_t linear = interp_linear(cpu, i, bytes, access & MEM_WRITE);
    if ((i->desc->bits & INSN_ALIGN) && (linear & (bytes - 1))) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if (access & MEM_WRITE) {
        mem_probe(cpu, linear, bytes, true);
    }
    /* A store that an unmasked x87 error suppresses must leave what was there. */
    if ((access & MEM_READ) || (x87 && (fpu_word(cpu, XSAVE_FCW) & 0x3f) != 0x3f)) {
        mem_read(cpu, linear, scratch, bytes);
    }
    return linear;
}

static void take_general(struct vcpu *cpu, const struct insn *i, const struct frame *f)
{
    for (unsigned n = 0; n < 2; n++) {
        if (!(i->desc->access[n] & MEM_WRITE)) {
            continue;
        }
        if (i->desc->operand[n] == OPD_REG) {
            cpu->r.gpr[i->reg] = f->rcx;
        } else if (i->desc->operand[n] == OPD_RM && !i->mem) {
            cpu->r.gpr[i->rm] = f->rdx;
        }
    }
    if (i->desc->regs_written & 1 << RCX) {
        cpu->r.gpr[RCX] = f->rcx;
    }
    if (i->desc->flags_written) {
        cpu->r.rflags = (cpu->r.rflags & ~(uint64_t)FLAGS_ARITH) | (f->flags & FLAGS_ARITH);
    }
}

void native_execute(struct vcpu *cpu, const struct insn *i)
{
    uint8_t scratch[64] __attribute__((aligned(64)));
    bool x87 = i->desc->class == CLASS_X87;
    /* From memory these two use no MMX register. */
    bool from_memory = i->mem && (i->op == OP_CVTPI2PS || i->op == OP_CVTPI2PD);
    bool with_x87 = x87 || (i->desc->class == CLASS_MMX && !from_memory);
    if (!stubs && !(stubs = stubs_new())) {
        cpu_raise(cpu, VEC_UD); /* no memory: the host cannot go on for long */
    }
    if (with_x87) {
        fpu_check_pending(cpu);
    }
    if (!x87) {
        xstate_own(cpu, i->encoding == ENC_VEX ? XSTATE_SSE | XSTATE_AVX : XSTATE_SSE);
    }
    uint64_t linear = i->mem ? bring_memory(cpu, i, scratch, x87) : 0;
    struct frame f = {.rax = cpu->r.gpr[RAX], .rcx = cpu->r.gpr[i->reg & 15],
                      .rdx = cpu->r.gpr[i->rm & 15], .xsave = cpu->r.xsave, .scratch = scratch,
                      .host_mxcsr = __builtin_ia32_stmxcsr(),
                      .flags = (cpu->r.rflags & FLAGS_ARITH) | 2};
    if (i->desc->regs_read & 1 << RDX) {
        f.rdx = cpu->r.gpr[RDX];
    }
    const struct stub *s = find_stub(i);
    if (with_x87) {
        struct fpu_pointers p = pointers_of(cpu);
        call_with_x87(cpu, s, &f);
        set_pointers(cpu, i, p);
    } else {
        call_stub(s, &f);
    }
    if (f.fault) {
        cpu_raise(cpu, cpu->r.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
    }
    if (i->mem && (i->desc->mem & MEM_WRITE)) {
        mem_write(cpu, linear, scratch, insn_mem_bytes(i));
    }
    take_general(cpu, i, &f);
}

#define NATIVE_ROW(op) {op, native_execute},
static const struct interp_row interp_native_rows[] = {INSN_NATIVE_OPS(NATIVE_ROW)};
INTERP_TABLE(interp_native);
