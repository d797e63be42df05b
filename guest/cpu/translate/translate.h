/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/decode/insn.h"
#include "guest/cpu/interp/step.h"
#include "guest/cpu/tlb.h"
#include "guest/cpu/translate/emit_x64.h"
#include "guest/cpu/translate/encode.h"
#include "guest/cpu/vcpu.h"

#include <pthread.h>

/*
 * translate - the parts of the bt engine among themselves.  docs/notes/translator.md tells
 * how they fit.
 *
 * In generated code the guest's registers are in the host registers of the same name, its
 * flags in the host's flags, its x87 and vector registers in the host's (once fp_ok says so);
 * R10, R11 and R15, which compilers use least, are scratch, and the guest's are in .high.  GS
 * is the address of tlb->table[0][0]; struct bt_cpu lies TLB_HEADER_BYTES below it.
 */
enum { S0 = R10, S1 = R11, S2 = R15 };

enum { GROUPS = 4 }; /* of accesses checked together, that a block knows at a time */

#define JUMP_BITS 14
enum { JUMP_SLOTS = 1 << JUMP_BITS, JUMP_PAIR = JUMP_SLOTS / 2, JUMP_LOG = 32768 };

/*
 * From a guest address to translated code, one for each tlb_mode.  An entry is at its
 * jump_slot(), or, displaced by a newer one, JUMP_PAIR further on.  An empty slot looks like
 * one for address 0, so the two slots of that are never used: their code is a thunk.
 */
struct jump_cache {
    struct {
        uint64_t key; /* pc; 0: empty */
        uint64_t code;
    } at[JUMP_SLOTS];
};

/*
 * Where a page of programs' code was entered through the jump cache, which forgets that with each
 * address space: the next program that has the page gets all of it at once.  By host page,
 * hashed; under cache_lock.
 */
enum { PAGE_ENTRIES = 32, ENTERED_PAGES = 512 };
struct entered_page {
    const uint8_t *host;
    uint64_t linear; /* of blocks that do not float */
    uint32_t flags;  /* enum block_flag of all of them */
    uint32_t turn;  /* .jump_turn when they were last put into the jump cache */
    uint8_t n, next;
    uint16_t offset[PAGE_ENTRIES];
    uint32_t code[PAGE_ENTRIES]; /* from the start of the executable view */
};

/* Bits of .fp_ok: state that is in the host's registers and may be used. */
enum { FP_X87 = 1, FP_SSE = 2, FP_AVX = 4 };

struct bt_stats {
    uint64_t slow, one, dispatch, link, fp, system, cold, poll, fault, direct, translated, insns;
};

struct bt_cpu {
    struct bt_cpu *self;
    struct vcpu *cpu;
    uint64_t host_rsp;
    uint64_t high[3];       /* guest R10, R11, R15 */
    uint64_t s0, s1;        /* S0 and S1 when .resume is entered */
    uint64_t resume;
    uint64_t page;          /* linear, of the floating block that runs */
    uint64_t target;        /* S0 while an indirect call pushes */
    const uint64_t *poll;   /* read at block heads; not canonical: something is requested */
    uint64_t seg_base[SEG_COUNT];
    uint64_t tsc_add, tsc_aux;
    uint64_t cpuid_key;     /* ECX and EAX of the last CPUID */
    uint32_t cpuid[4];      /* its EAX, EBX, ECX, EDX */
    uint64_t cpuid_of;      /* what they were made from; 0: nothing */
    uint64_t temp;
    uint64_t link_pc;
    uint64_t count, source; /* of a rep instruction: RCX, addend of RSI */
    uint64_t near[GROUPS];  /* addends of groups: group.c */
    uint64_t kernel_gs;     /* MSR_KERNEL_GS_BASE */
    uint64_t sys;           /* RFLAGS without the flags that are elsewhere */
    uint16_t fl, fl_saved;  /* LAHF's AH in the high byte, OF in the low one */
    uint8_t df, intf, ac;   /* RFLAGS.DF, IF, AC: 0 or 1 */
    uint8_t fp_ok;
    uint8_t fp_resume;      /* load the state before .resume is entered */
    uint8_t fp_was;         /* .fp_ok when generated code was left */
    uint8_t mode;           /* enum tlb_mode of the code that runs */
    uint8_t waiting;        /* requests wait for IF */
    uint32_t mxcsr_default;
    uint32_t flags;         /* enum block_flag in force */
    uint64_t ok;            /* what .poll points to */

    /* C only. */
    int stop;
    uint8_t direct;         /* the program in force runs in a process of its own */
    _Atomic int tracee;     /* that process, while it runs; 0 */
    struct direct *native;  /* direct.c's; NULL: no program does */
    uint32_t apart;         /* BLOCK_APART: such a block is looked for */
    uint32_t jump_flags[TLB_MODES]; /* .flags that the entries of .jump[] were made under */
    _Atomic bool inside;    /* may hold pointers into the code cache */
    _Atomic uint64_t turns; /* how often it was seen outside */
    unsigned generation;    /* of the cache, when last looked */
    bool jump_global[TLB_MODES]; /* has entries that are not in the log */
    unsigned n_jump_log;
    uint16_t jump_log[JUMP_LOG]; /* slots of non-global entries: mode << JUMP_BITS | slot */
    uint64_t jump_pages[64];     /* hashed: pages with entries in the log */
    uint64_t jump_seen[64];      /* hashed: pages with entries */
    struct bt_stats stats;
    uint32_t jump_turn; /* moves when the jump cache forgets programs */
    struct entered_page entered[ENTERED_PAGES];

    struct jump_cache jump[TLB_MODES];
};
G_STATIC_ASSERT(sizeof(struct bt_cpu) <= TLB_ENGINE_BYTES);
#define SLOT(field) MEM_SLOT((int32_t)(offsetof(struct bt_cpu, field) - TLB_HEADER_BYTES))
static inline struct mem slot_at(struct mem first, unsigned k)
{
    first.disp += (int32_t)k * 8;
    return first;
}
#define SLOT_AT(field, k) slot_at(SLOT(field[0]), (k))
#define JUMP_SLOT(mode, field, reg)                                                              \
    ((struct mem){.base = -1, .index = (reg), .scale = 3, .gs = true,                            \
                  .disp = (int32_t)(offsetof(struct bt_cpu, jump) +                              \
                                    (mode) * sizeof(struct jump_cache) +                         \
                                    offsetof(struct jump_cache, at[0].field) - TLB_HEADER_BYTES)})

static inline bool canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* Function entries and returns share many of their bits: all of them decide. */
static inline __attribute__((target("sse4.2"))) unsigned jump_slot(uint64_t pc)
{
    return (unsigned)__builtin_ia32_crc32di(0, pc) >> 1 & (JUMP_SLOTS - 1);
}

static inline bool is_slot_of_0(unsigned slot)
{
    return (slot | JUMP_PAIR) == JUMP_PAIR;
}

static inline struct bt_cpu *bt_of(const struct vcpu *cpu)
{
    return cpu->priv;
}

/* ---- blocks ---- */

/* What a block's code depends on beside its bytes. */
enum block_flag {
    BLOCK_MODE = 3,      /* enum tlb_mode */
    BLOCK_32 = 4,        /* 32-bit code with flat segments */
    BLOCK_TSD = 8,       /* CR4.TSD */
    BLOCK_CPL0 = 16,
    BLOCK_SMAP = 64,
    BLOCK_FS = 128,      /* 32-bit code: FS, GS reach everywhere and are writable */
    BLOCK_GS = 256,
    BLOCK_INTERP = 32,   /* nothing here can be translated: never a block's */
    BLOCK_APART = 512,   /* each access is checked apart: only reached from a group's check */
    BLOCK_FLOAT = 1024,  /* made for any linear address of its page: block_key() */
};

struct block;

/* A block's membership in a page of guest code: smc.c. */
struct page_ref {
    struct block *block;  /* NULL: not in the page's list */
    struct page_ref *next;
    uint64_t lines;       /* 64-byte lines of the page that the block was made from */
};

/*
 * Programs and their libraries lie elsewhere each time they are started, so what is made of
 * them does not depend on that: all addresses in it are relative to .page, where its page is
 * now.  The jump cache's way into such a block sets that; links inside the page keep it.
 */
struct block {
    uint64_t pc;          /* floating: its offset in the page */
    uint64_t linear;      /* floating: where it was last in a jump cache */
    uint8_t *host;        /* of the first byte of guest code */
    uint8_t *host2;       /* its first instruction goes on in this page, and so does the block;
                             or NULL: it lies in one page */
    uint8_t *code;        /* writable view; the guest's flags are in the host's */
    uint8_t *entry;       /* from the jump cache: the guest's flags in .fl_saved, S0 its pc */
    uint8_t *flags_in;    /* a link's with the flags in .fl_saved; NULL: .code does not care */
    uint32_t flags;
    struct page_ref ref[2]; /* in the pages of .host and .host2 */
    uint16_t bytes;       /* of guest code */
    uint16_t n_points;
    uint32_t code_bytes;
    uint16_t heat;        /* heat_of() */
    uint16_t skip_poll;   /* from .code to behind the poll */
    bool valid;
    bool fp;              /* its code counts on x87 or vector state behind a check */
    struct block *next_hash;
    struct exit *exits;   /* its own direct jumps, .n_exits of them */
    unsigned n_exits;
    struct exit *in;      /* links that lead here */
    struct point *points; /* ascending */
};

/* Where an instruction begins in host code. */
struct point {
    uint16_t host, guest; /* offsets; bit 15 of .guest: flags are in .fl_saved */
};
enum { POINT_SAVED = 1 << 15 };

/*
 * What out-of-line code tells a helper; read-only, in front of that code in the cache, so
 * packed.
 */
struct desc {
    int32_t block;      /* from this to its struct block */
    uint16_t insn;      /* its number in the block */
    uint16_t retry;     /* host offset in the block */
    uint8_t size;       /* of the access; or an argument */
    uint8_t bits;       /* enum desc_bit */
    uint8_t store;      /* a plain store: the number of its register, or enum desc_store */
} __attribute__((packed));
enum desc_store { STORE_IMM = 16, STORE_OTHER };
enum desc_bit { DESC_WRITE = 1, DESC_SAVED = 2 /* flags are in .fl_saved */, DESC_NO_NEXT = 4 };

/* The same for a direct jump out of a block, which leads to .stub until it is linked. */
struct exit_desc {
    int32_t block;
    uint16_t field;     /* host offset of the jump's rel32 */
    uint8_t mode;       /* enum tlb_mode of the target */
    uint8_t bits;       /* enum exit_bit */
    uint8_t number;     /* in block.exits */
    uint64_t pc;        /* of the target */
    uint8_t stub[];     /* S2 = this; jmp a thunk */
} __attribute__((packed));
enum { EXIT_STUB = 12 };
enum exit_bit { EXIT_SAVED = 1 /* the flags are in .fl_saved: leads to .entry */, EXIT_APART = 2 };

/* A direct jump; it is linked if .to is set. */
struct exit {
    const struct exit_desc *desc; /* writable view */
    struct block *to;
    struct exit *next_in;
    struct exit *next_cross; /* in the list of links between pages; NULL: it is not there */
};

/* ---- the code cache: cache.c ---- */

extern pthread_mutex_t cache_lock; /* blocks, links, the code memory */
extern _Atomic bool cache_full;    /* everybody out: a part of it will be emptied */
extern unsigned cache_generation; /* how often that happened */
extern uint8_t *cache_start, *cache_end; /* writable view */
extern ptrdiff_t cache_exec;             /* from it to the executable one */

/* Up to @first bytes until it is full or cache_reclaim() is called, @later from then on. */
bool cache_open(uint64_t first, uint64_t later, GError **error);
bool cache_shrinks(void); /* that is still to come */
void cache_rest(void);    /* Lock held: the next cache_reclaim() makes it smaller, full or not */
/* With nobody inside: makes room by taking out the oldest blocks. */
void cache_reclaim(void);
uint64_t cache_size(void); /* how much it may hold */
/* Room for a block: hot and cold code; and metadata, which never fails once begun. */
bool cache_begin(struct code *hot, struct code *cold);
void *cache_meta(size_t bytes); /* NULL: full */
void cache_abort(void);         /* gives back what was taken since cache_begin() */
void cache_end_block(const struct code *hot, const struct code *cold);
/* @pc and @flags: block_key() */
struct block *cache_find(const uint8_t *host, const uint8_t *host2, uint64_t pc, uint32_t flags);
void cache_expect(const uint8_t *host, uint64_t pc); /* the same is to come: a prefetch */
void cache_add(struct block *b);
void cache_remove(struct block *b);
struct block *cache_block_at(const uint8_t *exec_pc); /* of a host address, or NULL */
uint64_t cache_used(void);

/* What a block for @pc and the state in force is found by: *@pc becomes block.pc. */
static inline uint32_t block_key(const struct bt_cpu *b, uint64_t *pc)
{
    const uint64_t room = UINT64_C(1) << 32; /* what a displacement reaches stays canonical */
    uint32_t flags = b->flags | b->apart;
    if ((flags & (BLOCK_MODE | BLOCK_32)) != TLB_USER || *pc < room ||
        *pc >= (UINT64_C(1) << 47) - room) {
        return flags;
    }
    *pc &= 4095;
    return flags | BLOCK_FLOAT;
}
/* Of a block that runs on @b. */
static inline uint64_t block_pc(const struct bt_cpu *b, const struct block *block)
{
    return block->pc + (block->flags & BLOCK_FLOAT ? b->page : 0);
}

static inline uint64_t exec_of(const uint8_t *at)
{
    return (uint64_t)(at + cache_exec);
}
/* The block of a descriptor as generated code names it (executable view). */
static inline struct block *desc_block(const struct desc *d)
{
    return (struct block *)((uint8_t *)d - cache_exec + d->block);
}
/* Offsets of its instruction, and of the next, in the guest's code. */
static inline unsigned desc_guest(const struct desc *d, unsigned ahead)
{
    const struct point *p = &desc_block(d)->points[d->insn + 1u + ahead];
    return p->guest & ~(unsigned)POINT_SAVED;
}
static inline struct block *exit_block(const struct exit_desc *d) /* writable view */
{
    return (struct block *)((uint8_t *)d + d->block);
}

/* ---- self-modifying code: smc.c ---- */

/* Makes writes to the page of @host known before its bytes are read. */
void smc_watch(struct bt_cpu *b, uint8_t *host);
bool smc_watched(const uint8_t *host);
void smc_add(struct block *block);
bool smc_open(void);
/* Before the memory of blocks is used again, with nobody inside. */
void block_take_out(struct block *block);
void block_leave_pages(struct block *block);
void smc_written(void *host, uint64_t bytes);
void block_kill(struct block *block); /* lock held */

/* ---- links: link.c ---- */

/* Lock held.  @cross: the link relies on a global mapping of its target. */
void link_exit(const struct exit_desc *d, struct block *to, bool cross);
void link_never(const struct exit_desc *d); /* by the jump cache from now on */
void unlink_block(struct block *block);
/* Links that rely on mappings of [linear, linear + bytes); bytes 0: all. */
void unlink_cross(uint64_t linear, uint64_t bytes);
void link_reclaim(const uint8_t *from, const uint8_t *to); /* this part of the cache goes */
void jump_cache_add(struct bt_cpu *b, struct block *block, uint64_t pc, bool global);
/* What is known of the page of @pc, whose byte is at @host, is there from now on; false: not the
 * way into @pc.  Lock held. */
bool jump_cache_restore(struct bt_cpu *b, const uint8_t *host, uint64_t pc);
uint64_t jump_cache_find(const struct bt_cpu *b, unsigned mode, uint64_t pc); /* 0: not there */
void jump_cache_drop(struct bt_cpu *b, uint64_t linear, uint64_t bytes, bool global);
void jump_cache_clear(struct bt_cpu *b, unsigned mode);
void jump_cache_forget(const struct block *block); /* in all vCPUs */
void jump_cache_remove(struct bt_cpu *b, unsigned mode, uint64_t pc);
extern struct bt_cpu *bt_cpus[]; /* by vCPU index; NULL: not this engine's */
enum { BT_CPUS = 256 };

/* ---- translation ---- */

enum { BLOCK_INSNS = 48, INSN_BYTES = 15, STUBS = BLOCK_INSNS * 4 };

/* Accesses of [base + lo, base + hi) that were checked; relative to what the register is now. */
struct group {
    bool valid, write;
    uint8_t base;
    int32_t lo, hi;
};

struct direct;
struct stub;
struct tr {
    struct bt_cpu *b;
    struct vcpu *cpu;
    struct code hot, cold;
    struct block *block;
    uint8_t across[2 * INSN_BYTES]; /* guest code around the end of the first page, with .host2 */
    unsigned n;
    bool code64;
    enum tlb_mode mode;
    bool saved;             /* the flags are in .fl_saved */
    uint8_t fp;             /* FP_* known to be loaded */
    bool fp_used;
    unsigned at;            /* the instruction in hand */
    bool done;              /* the block's end was written */
    uint32_t exit_flags;    /* enum block_flag behind it */
    struct insn in[BLOCK_INSNS];
    uint32_t live[BLOCK_INSNS + 1]; /* flags needed before instruction i; last: after all */
    uint16_t offset[BLOCK_INSNS + 1];
    struct point point[BLOCK_INSNS + 2];
    unsigned n_points;
    struct group group[GROUPS]; /* the addend of each is in .near[] */
    unsigned next_group;
    uint8_t in_s1;          /* 1 + number of the group whose addend S1 holds; 0: none */
    struct stub *stubs;
    unsigned n_stubs;
    const struct exit_desc *exit[STUBS];
    unsigned n_exits;
    uint64_t lines[2];      /* of the pages, looked at */
};

/* The block of the key @pc and @flags, whose code bytes are at @host, and go on at @host2 if its
 * first instruction lies across pages; NULL: no room, or not translatable. */
struct block *translate(struct bt_cpu *b, uint64_t pc, uint32_t flags, uint8_t *host,
                        uint8_t *host2);

/* analyse.c */
void analyse(struct tr *t);
/* The part of @pc's page number in that of the block: 0 or 1; -1: in neither page. */
static inline int block_page(const struct block *b, uint64_t pc)
{
    uint64_t page = (pc >> 12) - (b->pc >> 12);
    return page == 0 ? 0 : page == 1 && b->host2 ? 1 : -1;
}
static inline bool floats(const struct tr *t)
{
    return t->block->flags & BLOCK_FLOAT;
}
/* These are relative to .page in a floating block. */
static inline uint64_t insn_pc(const struct tr *t, unsigned i)
{
    return t->block->pc + t->offset[i];
}
static inline uint64_t next_pc(const struct tr *t)
{
    return insn_pc(t, t->at + 1);
}

/* flags.c: the guest's flags around glue that changes them; S2 is used */
void flags_free(struct tr *t);    /* the host's flags may be changed now */
void flags_restore(struct tr *t); /* the guest's are in place, if they matter */
/* Where a fault of the instruction in hand finds the flags: where they are now. */
void point_saved(struct tr *t);
void flags_save(struct code *c);  /* to .fl_saved */
void flags_load(struct code *c);

/* memory.c */
/*
 * Checks an access to the instruction's memory operand and returns the host operand; S2 is
 * free afterwards.  False: not translatable.
 */
bool memory_operand(struct tr *t, const struct insn *i, unsigned size, bool write,
                    struct mem *out);
/* The same for the address in S0; the operand is [S0 + S1]. */
void memory_probe(struct tr *t, unsigned size, bool write);
/* The same for the address @base + @disp, which the operand then names itself. */
struct mem memory_near(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write);
/* S0 = the operand's linear address; S1 is used. */
void memory_address(struct tr *t, const struct insn *i);
void load_guest(struct tr *t, unsigned dst, unsigned guest); /* any guest register */
void store_guest(struct tr *t, unsigned guest, unsigned src);
static inline bool stolen(int reg)
{
    return reg == R10 || reg == R11 || reg == R15;
}

/* group.c */
/* Is the access the first of several?  Then @out says what to check, and when that has been
 * done and the addend is in S1, group_add() is called. */
bool group_start(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write,
                 struct group *out);
void group_add(struct tr *t, const struct group *g);
/* S1 = the addend, if the access was checked before; no flag changes. */
bool group_use(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write);
void group_after(struct tr *t, const struct insn *i); /* @i has been written */

/* Out-of-line code: written when the block's own is complete. */
enum stub_kind { STUB_SLOW, STUB_FP, STUB_EXIT, STUB_TARGET };
struct stub {
    uint8_t kind;
    uint8_t insn;        /* which, in the block */
    uint8_t size, write, saved, fp, apart;
    uint8_t reg;         /* slow: holds the address at .odd */
    enum { ADDRESS_IN_S0, ADDRESS_MEM, ADDRESS_CONST } address;
    struct mem m;
    uint64_t value;      /* the constant address, or an exit's target */
    uint32_t flags;      /* an exit's */
    uint8_t *miss, *odd; /* rel32 fields: no entry; not aligned (or across pages) */
    uint8_t *back;       /* from .odd, if the access lies in one page after all; where a target
                            that was found in the second slot goes on */
    uint8_t *retry;
    bool link;           /* an exit that may be linked */
};
struct stub *stub_new(struct tr *t, enum stub_kind kind);
void stubs_write(struct tr *t);
/* Written to the cold code at once; NULL: no room. */
struct desc *desc_new(struct tr *t, unsigned insn, bool saved);

/* flow.c */
void exit_apart(struct tr *t, unsigned cc);       /* jcc to this instruction, BLOCK_APART */
void exit_direct(struct tr *t, uint64_t pc);      /* jmp */
void exit_cond(struct tr *t, unsigned cc, uint64_t pc);
/* The flags are saved; they are changed. */
void jump_cached(struct code *c, unsigned mode, uint64_t pc);
void jump_floating(struct code *c, uint64_t pc);
void address_floating(struct code *c, unsigned reg, uint64_t pc); /* @reg = .page + @pc */
void insn_interp(struct tr *t, bool ends);        /* the interpreter does this one */
bool emit_branch(struct tr *t, const struct insn *i);
bool emit_indirect(struct tr *t, const struct insn *i);

/* insns.c, stack.c, string.c, system.c: false: the interpreter must do it */
bool emit_insn(struct tr *t, const struct insn *i);
bool emit_stack(struct tr *t, const struct insn *i);
bool model_offers(const struct cpu_model *model, const char *feature); /* feature.c */
void stack_move(struct tr *t, unsigned from, int by); /* RSP = @from + @by */
bool emit_string(struct tr *t, const struct insn *i);
bool emit_system(struct tr *t, const struct insn *i);

/* syscall.c: state complete; false: the interpreter must do it */
enum { SYSTEM_SYSCALL, SYSTEM_SYSRET, SYSTEM_IRET, SYSTEM_CPUID };
bool system_call(struct vcpu *cpu, uint64_t next);
bool system_return(struct vcpu *cpu);
bool system_iret(struct vcpu *cpu);

/* ---- thunks.c: between C and generated code ---- */

enum thunk { THUNK_ENTER, THUNK_RESUME, THUNK_LEAVE, THUNK_SLOW, THUNK_ONE, THUNK_TARGET,
             THUNK_DISPATCH, THUNK_LINK, THUNK_FP, THUNK_SYSTEM,
             THUNK_POLL, THUNK_FAULT, THUNK_JUMP_0, THUNK_JUMP_1, THUNK_JUMP_2,
             THUNK_PASS_0, THUNK_PASS_1, THUNK_PASS_2, /* flags in the host's */
             THUNK_PASS_SAVED_0, THUNK_PASS_SAVED_1, THUNK_PASS_SAVED_2,
             THUNK_PASS_FLOAT, THUNK_PASS_FLOAT_SAVED,
             THUNK_PC_0, THUNKS };
extern uint8_t *thunk_at[THUNKS]; /* writable view */
void thunks_write(struct code *c);
/*
 * Looks for the guest address in S0 in the jump cache, then in its other slot: ZF is set if it
 * is there.  S1 is twice the slot, for JUMP_SLOT().
 */
void jump_look_up(struct code *c, unsigned mode);
void jump_look_again(struct code *c, unsigned mode);

/* ---- run.c: what the thunks call; true: resume at .resume, false: leave ---- */

bool bt_slow(struct bt_cpu *b, const struct desc *d, uint64_t ea);
bool bt_one(struct bt_cpu *b, const struct desc *d, uint64_t unused);
bool bt_target(struct bt_cpu *b, const struct desc *d, uint64_t pc);
bool bt_dispatch(struct bt_cpu *b, const struct desc *d, uint64_t pc);
bool bt_link(struct bt_cpu *b, const struct exit_desc *d, uint64_t unused);
bool bt_fp(struct bt_cpu *b, const struct desc *d, uint64_t unused);
bool bt_system(struct bt_cpu *b, const struct desc *d, uint64_t unused);
bool bt_poll(struct bt_cpu *b, uint64_t saved, uint64_t pc);
bool bt_fault(struct bt_cpu *b, uint64_t saved, uint64_t pc);

/* Makes the vCPU leave generated code soon; any thread. */
void bt_kick(struct vcpu *cpu);

uint16_t heat_of(const uint8_t *host); /* where it is counted how often code has run */
void keep_heat(uint16_t of);           /* that code has been translated */
void forget_heat(uint16_t of);         /* that code has been written to */

/* ---- signal.c ---- */
bool signals_open(GError **error); /* once a process */
bool signals_thread(GError **error);
