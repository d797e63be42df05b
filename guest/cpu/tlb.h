/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/*
 * tlb - the flat software TLB that interp and bt share
 *
 * For each mode and direction a sparse reserved table of 2^36 eight-byte entries, indexed
 * by bits 12 to 47 of the linear address.  An entry is what to add to a linear address to
 * get a host address, or 0: no direct path.  Because the index drops bits 48 to 63 while
 * the addition keeps them, a non-canonical address with a filled index yields a
 * non-canonical host address, which the host's hardware refuses: a fault in the engine, not
 * an escape.  An entry is present only if the access needs nothing but the bytes: page
 * present and allowed in that mode, A set (and D for writes), plain RAM (or ROM, for reads),
 * no page flags (enum page_flag) for writes, not PAGE_WATCH for reads.
 *
 * An access that crosses a page must not use one entry for both: take the slow path.
 */

enum tlb_mode {
    TLB_USER,      /* CPL 3 */
    TLB_KERNEL,    /* CPL 0-2, SMAP in force (CR4.SMAP set and RFLAGS.AC clear) */
    TLB_KERNEL_AC, /* CPL 0-2 without SMAP */
    TLB_MODES
};

/* The place of a table in the reservation; the first ones are reached with shorter code. */
enum { TLB_TABLES = 6 };
static inline unsigned tlb_table(enum tlb_mode mode, bool write)
{
    return mode == TLB_USER ? write : mode == TLB_KERNEL ? 2u << write : 3u + 2u * write;
}
static inline bool tlb_table_is_write(unsigned number)
{
    return number == 1 || number >= 4;
}

#define TLB_INDEX_BITS  36
#define TLB_TABLE_BYTES (UINT64_C(8) << TLB_INDEX_BITS)
/*
 * Each table lies this much further on.  AMD's processors guess the way of a line in the first
 * cache from a hash of bits 12 to 27 of its linear address: two lines of one set with the same
 * hash push each other out, and a page is read and written in turn all the time.
 */
#define TLB_TABLE_SKEW (UINT64_C(0x2b) << 12)
static inline uint64_t tlb_table_offset(unsigned number)
{
    return number * (TLB_TABLE_BYTES + TLB_TABLE_SKEW);
}

/*
 * The reservation of a vCPU: TLB_HEADER_BYTES of zero-filled memory, then the tables.  Of
 * the header the first TLB_ENGINE_BYTES are the engine's (bt: what its code addresses
 * relative to table[0][0]); struct tlb lies in the rest.
 */
#define TLB_HEADER_BYTES (UINT64_C(2) << 20)
#define TLB_ENGINE_BYTES (TLB_HEADER_BYTES - 65536)

struct tlb {
    /*
     * table[mode][0] is for reads, [1] for writes.  All six lie in one reservation, in the
     * order of tlb_table(), at tlb_table_offset(), and struct tlb lies just below the first,
     * so that one base register reaches all of them with an offset that is the same on every
     * vCPU.
     */
    int64_t *table[TLB_MODES][2];

    /* Indexes that were filled and may be dropped, by global or not; a ring that
     * overflows makes the next flush a full one (madvise). */
    struct tlb_log *log;
    uint64_t pages_touched;                /* table pages that hold memory: bounded, see tlb.c */
    uint64_t fills, flushes, full_flushes; /* for statistics */
    uint32_t turn;                         /* moves whenever translations are dropped */
    uint32_t missed;                       /* fills that were asked for since the last flush */
};

static inline void *tlb_engine_area(const struct tlb *t)
{
    return (uint8_t *)t->table[0][0] - TLB_HEADER_BYTES;
}

struct tlb *tlb_new(GError **error);
void tlb_free(struct tlb *t);

static inline uint64_t tlb_index(uint64_t linear)
{
    return linear << 16 >> 28;
}

static inline enum tlb_mode tlb_mode(const struct vcpu *cpu)
{
    if (vcpu_cpl(cpu) == 3) {
        return TLB_USER;
    }
    return (cpu->r.cr4 & CR4_SMAP) && !(cpu->r.rflags & FLAG_AC) ? TLB_KERNEL : TLB_KERNEL_AC;
}

/* Host address of @linear for reading (@write false) or writing, or NULL: tlb_fill(). */
static inline void *tlb_lookup(const struct tlb *t, enum tlb_mode mode, bool write, uint64_t linear)
{
    int64_t add = t->table[mode][write][tlb_index(linear)];
    return add ? (void *)(linear + (uint64_t)add) : NULL;
}

/*
 * What to do about an access for which the table has no entry.
 */
struct tlb_result {
    uint8_t *host; /* direct path (now also in the table unless .flags forbade it) */
    uint64_t gpa;
    bool io;   /* no memory there: space_load/space_store at .gpa */
    bool note; /* write: call ram_note_write() after the bytes are stored */
};

/*
 * Walks the guest's page tables for one access inside one page.  @want as in paging.h.
 * Returns 0 with *@out filled, or -1: #PF with *@error_code; sets nothing in the vCPU.
 * Fills the tables for @mode where the page allows it.
 */
int tlb_fill(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, unsigned want,
             struct tlb_result *out, uint32_t *error_code);

/* Drop translations; own thread.  They call the engine's unmapped(). */
void tlb_flush_page(struct vcpu *cpu, uint64_t linear); /* INVLPG: global ones too */
void tlb_flush(struct vcpu *cpu, bool global_too);      /* CR3 write; all of it */
/*
 * Drops the direct write paths of all vCPUs to a page that has just got a flag.  True: a vCPU
 * other than @cpu had one and may be between its look-up and its store; it is past that when
 * it has left the guest once.
 */
bool tlb_drop_writes(struct vcpu *cpu, const void *host_page);
/* The same of who maps guest memory beside the TLB; one, or NULL. */
extern bool (*tlb_other_writers)(struct vcpu *cpu, const void *host_page);
