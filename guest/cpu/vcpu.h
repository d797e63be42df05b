/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "guest/memory/space.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A virtual CPU: architectural state, its thread, and how others get its attention.
 *
 * Spec: Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), volumes 1 to 4;
 * AMD64 Architecture Programmer's Manual (APM), volumes 1 to 5.
 */

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum seg_name { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

enum {
    FLAG_CF = 1 << 0, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7,
    FLAG_TF = 1 << 8, FLAG_IF = 1 << 9, FLAG_DF = 1 << 10, FLAG_OF = 1 << 11,
    FLAG_IOPL = 3 << 12, FLAG_NT = 1 << 14, FLAG_RF = 1 << 16, FLAG_VM = 1 << 17,
    FLAG_AC = 1 << 18, FLAG_VIF = 1 << 19, FLAG_VIP = 1 << 20, FLAG_ID = 1 << 21,
};
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_NW (1u << 29)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)
#define CR4_VME (1u << 0)
#define CR4_PVI (1u << 1)
#define CR4_TSD (1u << 2)
#define CR4_DE (1u << 3)
#define CR4_PSE (1u << 4)
#define CR4_PAE (1u << 5)
#define CR4_MCE (1u << 6)
#define CR4_PGE (1u << 7)
#define CR4_PCE (1u << 8)
#define CR4_OSFXSR (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP (1u << 11)
#define CR4_LA57 (1u << 12)
#define CR4_FSGSBASE (1u << 16)
#define CR4_PCIDE (1u << 17)
#define CR4_OSXSAVE (1u << 18)
#define CR4_SMEP (1u << 20)
#define CR4_SMAP (1u << 21)
#define CR4_PKE (1u << 22)
#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)
#define EFER_FFXSR (1u << 14)

enum vector {
    VEC_DE = 0, VEC_DB = 1, VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_BR = 5, VEC_UD = 6,
    VEC_NM = 7, VEC_DF = 8, VEC_TS = 10, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14,
    VEC_MF = 16, VEC_AC = 17, VEC_MC = 18, VEC_XM = 19,
};

/*
 * A segment register with its hidden part.  .attr has the access-rights layout of the
 * descriptor's upper half shifted right by 8 (as KVM and VMX have it): type 0-3, S 4,
 * DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15; bit 16 set: unusable (null).
 */
struct segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint32_t attr;
    uint16_t selector;
};
enum {
    SEG_TYPE = 15, SEG_S = 1 << 4, SEG_DPL_SHIFT = 5, SEG_P = 1 << 7, SEG_L = 1 << 13,
    SEG_DB = 1 << 14, SEG_G = 1 << 15, SEG_UNUSABLE = 1 << 16,
};

struct table_register {
    uint64_t base;
    uint16_t limit;
};

/*
 * XSAVE area in standard (not compacted) format: legacy region, header, AVX at 576, the
 * AVX-512 parts at 832, 896 and 1408 as on every processor that has them (PKRU at 2688).
 * The engines load it with XRSTOR and store it with XSAVE.
 */
enum { XSAVE_BYTES = 2752 };

/*
 * Architectural state.  regs.def has a row for each field: it is what is saved, shown to
 * gdb and QMP, and compared between engines.
 */
struct regs {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags; /* bit 1 always set */
    struct segment seg[SEG_COUNT];
    struct segment ldt, tr;
    struct table_register gdt, idt;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t cr8;         /* mirror of the local APIC's TPR bits 7-4, for gdb */
    uint64_t efer;
    uint64_t dr[8];       /* 4 and 5 unused */
    uint64_t pdpte[4];    /* PAE: loaded with CR3 */
    uint64_t xcr0;
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset;  /* guest TSC = tsc_now() + this */
    uint64_t tsc_adjust, tsc_aux;
    uint64_t pat, mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t misc_enable, feature_control, smbase;
    uint64_t apic_base;
    uint64_t mcg_status, mcg_ctl, mc_bank[40];
    uint64_t spec_ctrl, debugctl;
    uint64_t kvm_wall_clock, kvm_system_time, kvm_steal_time, kvm_async_pf, kvm_poll;
    uint64_t kvm_eoi;

    /* Not registers, but needed to continue exactly where the CPU stood. */
    uint8_t halted;       /* in HLT */
    uint8_t wait_sipi;    /* after INIT, not the boot processor */
    uint8_t in_smm;
    uint8_t nmi_blocked;
    uint8_t shadow;       /* enum shadow: interrupts held off for one instruction */
    uint8_t a20_off;
    /* An event whose delivery was begun and must be finished: set by pull() of an engine. */
    uint8_t event_pending, event_vector, event_has_code, event_soft;
    uint32_t event_code;

    uint8_t xsave[XSAVE_BYTES] __attribute__((aligned(64)));
};
enum shadow { SHADOW_STI = 1, SHADOW_MOV_SS = 2 };

/*
 * Things others ask of a vCPU: bits of .requests, set by vcpu_request() from any thread.
 * Engines look at .requests at every block head; anything set ends run() unless the engine
 * deals with it itself.
 */
enum vcpu_request {
    REQ_INTR = 1 << 0,   /* the interrupt controllers have a maskable interrupt (level) */
    REQ_NMI = 1 << 1,
    REQ_SMI = 1 << 2,
    REQ_INIT = 1 << 3,
    REQ_SIPI = 1 << 4,   /* vector in .sipi_vector */
    REQ_PAUSE = 1 << 5,  /* leave run(): the machine is being stopped or inspected */
    REQ_FLUSH = 1 << 6,  /* drop all translations of addresses */
    REQ_WORK = 1 << 7,   /* vcpu_call() is waiting */
    REQ_A20 = 1 << 8,    /* A20 changed: vcpu_set_a20() */
    REQ_EXIT = 1 << 9,   /* the machine ends */
    REQ_ENGINE = 1 << 10, /* for the engine's own use between its vCPUs */
};

struct vcpu;
struct cpu_engine;
struct cpu_model;
struct tlb;

/*
 * What a vCPU needs of the board; guest/cpu does not know devices.  Called in the vCPU's
 * own thread without the machine lock.
 */
struct vcpu_board {
    void *owner; /* handed to each */
    /* The vector of the interrupt to deliver now, acknowledged; -1 if there is none. */
    int (*acknowledge)(void *owner, struct vcpu *cpu);
    /* Is there one?  Recomputes REQ_INTR's level. */
    bool (*interrupt_pending)(void *owner, struct vcpu *cpu);
    uint64_t (*tpr_read)(void *owner, struct vcpu *cpu); /* CR8 */
    void (*tpr_write)(void *owner, struct vcpu *cpu, uint64_t cr8);
    /* x2APIC registers (MSR 0x800 to 0x8ff), IA32_APIC_BASE, IA32_TSC_DEADLINE, KVM's PV EOI.
     * False: #GP. */
    bool (*apic_msr_read)(void *owner, struct vcpu *cpu, uint32_t msr, uint64_t *value);
    bool (*apic_msr_write)(void *owner, struct vcpu *cpu, uint32_t msr, uint64_t value);
    /* An interrupt (ICR's lower half @icr) to processors: bit n of @who is APIC id @first + n.
     * How many there are of them; negative: no such interrupt. */
    int (*send_ipis)(void *owner, struct vcpu *cpu, uint64_t who, uint32_t first, uint32_t icr);
    /* A halted vCPU need not be woken for its own timer: from now on it wakes itself at that time of the
     * host's CLOCK_MONOTONIC, if it is not 0; then, or woken by somebody else, it calls the other one. */
    int64_t (*sleeps)(void *owner, struct vcpu *cpu);
    void (*wakes)(void *owner, struct vcpu *cpu);
    void (*ferr)(void *owner, struct vcpu *cpu); /* x87 error with CR0.NE clear: IRQ 13 */
    /* Level-triggered EOI went out, INIT happened ... are the APIC's own business. */
    void (*init)(void *owner, struct vcpu *cpu); /* INIT reached the CPU: reset the APIC */
};

/*
 * An event to deliver through the IDT.  Exceptions are the only ones that combine to double
 * and triple faults.
 */
enum event_kind {
    EVENT_EXCEPTION, /* of the processor's making: faults, traps; INT1 too */
    EVENT_SOFT,      /* INT n: checks the gate's DPL, IOPL in v8086 mode */
    EVENT_SOFT_EXCEPTION, /* INT3, INTO: checks the gate's DPL */
    EVENT_EXTERNAL,  /* from the interrupt controllers */
    EVENT_NMI,
};

struct cpu_event {
    uint8_t kind;    /* enum event_kind */
    uint8_t vector;
    bool has_code;
    uint32_t code;
    uint64_t cr2;    /* page faults: loaded when delivery begins */
    uint64_t dr6;    /* debug exceptions: bits to set in DR6 */
};

struct vcpu {
    struct regs r; /* first: engines address it with small offsets */

    /* Hot for engines. */
    _Atomic uint32_t requests;
    struct tlb *tlb;            /* interp and bt: guest/cpu/tlb.h */
    uint64_t next_rip;          /* where the instruction in hand continues: interp/interp.h */
    struct interp *interp;      /* the interpreter's caches: interp/run.c */
    void *unwind;               /* jmp_buf of whoever executes guest code: cpu_raise() */
    struct cpu_event raised;    /* what cpu_raise() brought there */
    uint64_t raised_at;         /* the interpreter's: address of the instruction in hand */
    struct space *memory;       /* .memory_normal, or .memory_smm while in SMM */
    struct space *ports;

    unsigned index;             /* 0 is the boot processor */
    int tid;                    /* its thread, for people with top -H; 0 before it first ran */
    uint32_t apic_id;
    const struct cpu_engine *engine;
    void *priv;                 /* the engine's */
    const struct vcpu_board *board;
    const struct cpu_model *model;     /* guest/cpu/models.h */
    struct space *memory_normal, *memory_smm;
    _Atomic uint8_t sipi_vector;
    int stop;                   /* enum stop: why the last run() ended */
    GError *error;              /* set with STOP_BROKEN; otherwise NULL */
    struct gdb_points *points;  /* breakpoints and watchpoints, guest/cpu/debug.h; NULL: none */
    uint64_t traps;             /* DR6 bits for a #DB after the instruction in hand */
    uint64_t watch_hit;         /* with .watched: the debugger's watchpoint that was hit */
    uint64_t stopped_at;        /* 1 + address of the debugger's breakpoint that ended run() */
    bool watched;
    bool single_step;           /* the debugger wants STOP_DEBUG after one instruction */

    int64_t steal_wall, steal_thread; /* since when steal time counts: paravirt.c */
    struct vcpu_thread *thread; /* vcpu.c's */
};

/*
 * One vCPU; not running.  @index counts from 0.  Its state is that after power-on.  The
 * engine's attach() is called in the vCPU's own thread when it first runs.  Machine lock held,
 * all vCPUs are paused: they may come while a machine lives.
 */
struct vcpu *vcpu_new(unsigned index, uint32_t apic_id, const struct cpu_engine *engine,
                      const struct cpu_model *model, const struct vcpu_board *board,
                      struct space *memory, struct space *memory_smm, struct space *ports,
                      GError **error);
/* Takes @cpu away: its thread ends.  Main loop's thread; the machine lock, which is given up
 * meanwhile, is held and all are paused.  The struct stays, for a vCPU of the same index. */
void vcpu_remove(struct vcpu *cpu);
/* Those that there are, in the order of their index, which may have gaps. */
unsigned vcpu_count(void);
struct vcpu *vcpu_at(unsigned n);       /* NULL after the last */
struct vcpu *vcpu_find(unsigned index); /* NULL: none has it */
struct vcpu *vcpu_self(void);         /* the one whose thread this is, or NULL */

/* State after power-on or INIT (@init keeps what INIT keeps).  The vCPU is paused. */
void vcpu_reset(struct vcpu *cpu, bool init);

/* .r was replaced (a state was loaded, a debugger wrote): what hangs on it follows. */
void vcpu_loaded(struct vcpu *cpu);

/* ---- attention; any thread, with or without the machine lock ---- */

/* Sets request bits and gets the vCPU out of the guest or out of its sleep. */
void vcpu_request(struct vcpu *cpu, uint32_t bits);
static inline void vcpu_unrequest(struct vcpu *cpu, uint32_t bits)
{
    atomic_fetch_and(&cpu->requests, ~bits);
}
/* Makes every vCPU drop its cached address translations before its next guest access. */
void vcpus_flush_tlb(void);
/* A20 gate (one for all); only interp and bt honour it. */
void vcpus_set_a20(bool on);

/* REQ_A20, own thread. */
void vcpu_take_a20(struct vcpu *cpu);

/* From a device, in the thread of @cpu, which is in the middle of a port access: brings .r.gpr
 * up to date, or (@push) lets the guest go on with what was written there. */
void vcpu_gprs(struct vcpu *cpu, bool push);

/* ---- running and pausing; main loop thread with the machine lock ---- */

/* Its thread, which is made if it has not run yet: managers pin it before it does. */
int vcpu_thread_id(struct vcpu *cpu);
/* Lets all run.  They run until vcpus_pause(). */
void vcpus_resume(void);
/* Returns when no vCPU executes guest code and all states are pulled into .r.  Releases
 * the machine lock while it waits.  Not from a vCPU thread: those call vm_request_*(). */
void vcpus_pause(void);
bool vcpus_paused(void);
/* While paused: does @cpu stand still when the others run next (a debugger steps one)? */
void vcpu_hold(struct vcpu *cpu, bool held);
/* Ends the threads; the vCPUs stay readable. */
void vcpus_exit(void);
/* What a vCPU thread tells the owner of the machine: stop is an enum stop that the loop
 * does not deal with itself (STOP_RESET, STOP_DEBUG, STOP_BROKEN).  Called in the vCPU's
 * thread with the machine lock held; the vCPU waits until it is resumed. */
void vcpus_on_stop(void (*stopped)(void *owner, struct vcpu *cpu, int stop), void *owner);

/* Guest TSC now. */
uint64_t vcpu_tsc(const struct vcpu *cpu);

/* Current privilege level, code size: from the hidden parts of SS and CS. */
static inline unsigned vcpu_cpl(const struct vcpu *cpu)
{
    return (cpu->r.seg[SEG_SS].attr >> SEG_DPL_SHIFT) & 3;
}
static inline bool vcpu_long_mode(const struct vcpu *cpu) /* EFER.LMA; compatibility mode too */
{
    return cpu->r.efer & EFER_LMA;
}
static inline bool vcpu_code64(const struct vcpu *cpu)
{
    return vcpu_long_mode(cpu) && (cpu->r.seg[SEG_CS].attr & SEG_L);
}
