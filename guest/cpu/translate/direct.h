/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/interp/native.h"
#include "guest/cpu/translate/translate.h"
#include "guest/memory/ram.h"

/*
 * direct - hot user programs run as they are, in a process of their own
 *
 * Four parts: tracee.c is the process, mirror.c keeps its mappings what the guest's page
 * tables say, account.c decides who gets one, direct.c goes in and out.
 */

/* ---- tracee.c ---- */

/* Where it has its own page and the list of what it shall map; no program is at home there. */
#define TRACEE_HOME UINT64_C(0x600000000000)
#define TRACEE_END  UINT64_C(0x7ffffffff000)
enum { TRACEE_BYTES = (64 << 10) + 2 * PAGE_SIZE, TRACEE_FILES = 64, TRACEE_BREAKS = 4 };
/* A program's segments have to be those that Linux gives its programs. */
enum { TRACEE_CS = 0x33, TRACEE_SS = 0x2b };
/* Flags that are the program's own. */
enum {
    TRACEE_FLAGS = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID,
    XSTATE_ALL = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX,
    XSAVE_SOFTWARE = 464, /* from here to the header: the operating system's own */
    XSAVE_AVX_END = 832,
};

enum tracee_why {
    TRACEE_KICK,
    TRACEE_CALL,     /* r.rip is at the instruction that makes a system call */
    TRACEE_FAULT,    /* of the instruction at r.rip, which has done nothing yet */
    TRACEE_TRAP,     /* behind an instruction */
    TRACEE_BROKEN,   /* it could not map what it should; the program is where it was */
    TRACEE_VSYSCALL, /* a jump to the host's page of that name, and back */
};
struct tracee_stop {
    enum tracee_why why;
    bool has_address;
    uint64_t address; /* of a page fault of the host; of a vsyscall its number */
    uint64_t began;   /* TSC; the program may have written anything there */
};

struct tracee;
/* For the vCPU whose thread this is.  @fds: what it can map, by number.  NULL: it cannot be. */
struct tracee *tracee_new(const int *fds, unsigned n);
void tracee_free(struct tracee *t);
int tracee_pid(const struct tracee *t);
/* Ends tracee_run(), now or the next.  Any thread. */
void tracee_kick(int pid);
/* Noted, and done before the next instruction of the program.  False: the process is of no use any
 * more. */
bool tracee_map(struct tracee *t, uint64_t linear, uint64_t bytes, unsigned file, uint64_t offset,
                unsigned prot);
bool tracee_unmap(struct tracee *t, uint64_t linear, uint64_t bytes);
/* RDTSC and RDTSCP may be executed there, or they fault. */
bool tracee_may_read_tsc(struct tracee *t, bool may);
/* Breakpoint @n stops it before it executes what is at @linear; 0: it is free.  False: the host
 * has none to give. */
bool tracee_break(struct tracee *t, unsigned n, uint64_t linear);
bool tracee_has_more(const struct tracee *t); /* to be done there first */
/* Executes @cpu's program.  False: the process died, and the program with it. */
bool tracee_run(struct tracee *t, struct vcpu *cpu, struct tracee_stop *out);

/* ---- mirror.c ---- */

struct mirror;
struct mirror *mirror_new(void); /* NULL: guest memory cannot be mapped elsewhere */
void mirror_free(struct mirror *m);
/* All of the program's memory, by page tables that may have changed anywhere.  @deep: so may what
 * lies at a physical address.  *@other: so much is new that it is another program.  False: give
 * it up. */
bool mirror_sync(struct mirror *m, struct vcpu *cpu, bool deep, bool *other);
/* What is near @linear, by the tables as they are now; *@shown: so is @linear, which it was not
 * before.  @fetch: it shall be executed. */
bool mirror_look(struct mirror *m, struct vcpu *cpu, uint64_t linear, bool fetch, bool *shown);
bool mirror_drop(struct mirror *m, uint64_t linear, uint64_t bytes);
struct tracee *mirror_tracee(const struct mirror *m);
/* Pages that a mirror may let its program write to have their bit here. */
bool mirror_open(void);
bool mirror_forget_writes(const void *host_page); /* true: it had */

/* ---- account.c ---- */

/* One program's.  All in ticks. */
struct account {
    uint64_t us;                         /* of a microsecond */
    uint64_t translated, inside, beside; /* of the stretch in hand: time in translated code; what
                                            ran in the process; what going there and back took */
    uint64_t trip, move;                 /* what a stretch there costs, and a process */
    int64_t recent;                      /* what a stretch gains, by the last ones */
    int64_t missed, earned;              /* what a process would have gained, and has */
    unsigned patience, unused;
    unsigned bar; /* how often it went there late in vain, of late */
    bool hot;     /* it shall have a process */
};
/* @trip and @move as they are known; 0: not yet */
void account_start(struct account *a, uint64_t ticks_of_us, uint64_t trip, uint64_t move);
void account_end(struct account *a); /* a visit to the kernel begins */
/* A stretch begins: there? */
static inline bool account_now(const struct account *a)
{
    return a->hot && a->recent >= 0;
}
/* It began here: shall it go on there? */
static inline bool account_late(const struct account *a)
{
    return a->hot && a->translated > (2 * a->trip) << a->bar;
}

/* It is there, and comes back more than it computes: not before the next stretch. */
static inline bool account_vain(const struct account *a)
{
    return a->beside > 4 * a->trip && a->inside < a->beside / 2;
}

/* ---- direct.c ---- */

struct direct;
bool direct_open(struct bt_cpu *b);
void direct_close(struct bt_cpu *b);
/* A program goes on: whose is it? */
void direct_enter_user(struct bt_cpu *b);
/* It goes on still, translated. */
void direct_still_user(struct bt_cpu *b);
void direct_leave_user(struct bt_cpu *b);
/* The vCPU slept, or stood still: that time does not count. */
void direct_rested(struct bt_cpu *b);
void direct_unmapped(struct bt_cpu *b, uint64_t linear, uint64_t bytes, bool global);
/* Executes the program; false: .stop says why run() ends. */
bool direct_run(struct bt_cpu *b);
static inline bool direct_wanted(const struct bt_cpu *b)
{
    return b->direct && b->mode == TLB_USER;
}
