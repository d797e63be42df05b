/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * paging - linear to guest-physical translation as the processor does it
 *
 * Spec: Intel SDM, volume 3A, chapter "Paging": "32-Bit Paging", "PAE Paging", "4-Level
 * Paging and 5-Level Paging", "Access Rights", "Page-Fault Exceptions", "Accessed and
 * Dirty Flags".  Titles, not numbers: the chapter has been renumbered before.
 *
 * Used by the TLB's miss path and the debugger.  Knows nothing of TLBs.
 */

struct vcpu;

enum access {
    ACCESS_READ = 0,
    ACCESS_WRITE = 1 << 1, /* the values are the bits of the #PF error code */
    ACCESS_USER = 1 << 2,
    ACCESS_FETCH = 1 << 4,
    ACCESS_IMPLICIT = 1 << 5, /* descriptor tables, TSS: RFLAGS.AC does not lift SMAP */
};

struct translation {
    uint64_t gpa;      /* guest-physical address of the first byte */
    uint64_t bytes;    /* size of the page that maps it: 4 KiB, 2 MiB, 4 MiB or 1 GiB */
    bool user;         /* user mode may use the page */
    bool writable;     /* the R/W flags of all levels are set */
    bool executable;
    bool global;       /* the entry survives a CR3 write */
    bool dirty;        /* the leaf's D flag is set (now) */
    bool accessed;     /* the A flags of all levels were set before */
    uint8_t attribute; /* PAT index, 0 to 7 */
};

/**
 * paging_walk() - translate one linear address
 * @cpu:    whose CR0, CR3, CR4, EFER and RFLAGS.AC apply
 * @linear: canonical linear address; the caller has done segment and canonical checks
 * @want:   kinds of access, enum access or-ed
 * @quiet:  a debugger is looking: set no A or D flag
 * @out:    filled on success, untouched otherwise
 *
 * Without CR0.PG the identity, all allowed.  Applies the A20 mask to the result.  Sets
 * accessed and dirty flags with locked compare-and-swap, so a walk may race with guest
 * code on other vCPUs.
 *
 * Return: 0 on success; -1 if the guest must take a #PF, whose error code is then in
 * *@error_code (bits as in "Page-Fault Exceptions"; bit 0 is the P flag).  A paging
 * structure outside guest memory reads as all ones.
 *
 * Thread: the vCPU's own thread, or any thread while the vCPU is paused.
 */
int paging_walk(struct vcpu *cpu, uint64_t linear, unsigned want, bool quiet,
                struct translation *out, uint32_t *error_code);

/*
 * For debuggers: the first page at or above *@linear that is mapped.  False: there is none, or
 * *@budget, which counts down with each entry that is looked at, is spent.  With CR0.PG only.
 */
bool paging_next(struct vcpu *cpu, uint64_t *linear, struct translation *out, unsigned *budget);

/* Loads r.pdpte[] from CR3 for PAE paging; false if reserved bits are set (#GP). */
bool paging_load_pdptes(struct vcpu *cpu, uint64_t cr3);

/*
 * For debuggers: reads or writes @n bytes at a linear address without side effects on the
 * guest's paging structures.  False if a page is not mapped.
 */
bool paging_peek(struct vcpu *cpu, uint64_t linear, void *to, uint64_t n);
bool paging_poke(struct vcpu *cpu, uint64_t linear, const void *from, uint64_t n);
