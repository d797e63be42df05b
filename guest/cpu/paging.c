/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paging: page walks.  The specification and the contract stand in paging.h.
 *
 * A walk first reads all levels and decides, then sets A and D flags; if an entry has
 * changed in between, it starts again.
 */
#include "guest/cpu/paging.h"

#include "guest/cpu/models.h"
#include "guest/cpu/vcpu.h"

#include <glib.h>
#include <string.h>

enum {
    PTE_P = 1 << 0, PTE_RW = 1 << 1, PTE_US = 1 << 2, PTE_A = 1 << 5, PTE_D = 1 << 6,
    PTE_PS = 1 << 7, PTE_PAT = 1 << 7, PTE_G = 1 << 8, PTE_PAT_LARGE = 1 << 12,
};
#define PTE_NX (UINT64_C(1) << 63)
enum { PF_P = 1, PF_RSVD = 1 << 3 };
enum { MAX_LEVELS = 4 };

/* One level of a paging mode, root first. */
struct level {
    uint8_t shift, index_bits;
    bool large; /* PS may be set here, if the processor has that page size */
};
struct paging_mode {
    uint8_t n, entry_bytes;
    struct level level[MAX_LEVELS];
};

static const struct paging_mode mode_32 = {2, 4, {{22, 10, true}, {12, 10, false}}};
static const struct paging_mode mode_pae = {2, 8, {{21, 9, true}, {12, 9, false}}};
static const struct paging_mode mode_4level = {
    4, 8, {{39, 9, false}, {30, 9, true}, {21, 9, true}, {12, 9, false}}};

struct walk {
    const struct paging_mode *mode;
    uint64_t entry[MAX_LEVELS];
    uint8_t *host[MAX_LEVELS]; /* NULL if the entry is not in writable memory */
    unsigned depth;            /* entries read; the last is the leaf */
    uint64_t base;             /* physical address of the page */
    unsigned shift;            /* its size */
};

static uint64_t a20(const struct vcpu *cpu, uint64_t gpa)
{
    return cpu->r.a20_off ? gpa & ~(UINT64_C(1) << 20) : gpa;
}

/* Structures outside memory read as all ones. */
static uint64_t read_entry(struct vcpu *cpu, uint64_t gpa, unsigned bytes, uint8_t **host)
{
    struct span v = space_find(cpu->memory, a20(cpu, gpa));
    uint8_t *at = v.host ? v.host + (a20(cpu, gpa) - v.start) : NULL;
    *host = v.writable ? at : NULL;
    if (!at) {
        return bytes == 8 ? UINT64_MAX : UINT32_MAX;
    }
    return bytes == 8 ? __atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED)
                      : __atomic_load_n((uint32_t *)at, __ATOMIC_RELAXED);
}

static unsigned phys_bits(const struct vcpu *cpu)
{
    return cpu->model && cpu->model->phys_bits ? cpu->model->phys_bits : 40;
}

static bool offers(const struct vcpu *cpu, enum cpuid_feature feature)
{
    return !cpu->model || cpu->model->offers[feature];
}

/* Address bits above what the processor has, and NX where it is off. */
static uint64_t reserved_high(const struct vcpu *cpu)
{
    uint64_t bits = (UINT64_C(1) << 52) - (UINT64_C(1) << phys_bits(cpu));
    return cpu->r.efer & EFER_NXE ? bits : bits | PTE_NX;
}

/* Bits that must be 0 in an entry of level @l; sets *@leaf. */
static uint64_t reserved_bits(const struct vcpu *cpu, const struct paging_mode *m, unsigned l,
                              uint64_t entry, bool *leaf)
{
    const struct level *level = &m->level[l];
    bool ps = entry & PTE_PS;
    *leaf = l + 1 == m->n;
    if (m == &mode_32) {
        if (*leaf || !ps || !(cpu->r.cr4 & CR4_PSE)) {
            return 0;
        }
        *leaf = true;
        return offers(cpu, FEAT_PSE36) ? 1u << 21 : 0x1ffu << 13;
    }
    uint64_t bits = reserved_high(cpu);
    if (m == &mode_pae) {
        bits |= UINT64_C(0x7ff) << 52; /* ignored in long mode, reserved here */
    }
    if (*leaf || !ps) {
        return bits;
    }
    if (!level->large || (level->shift == 30 && !offers(cpu, FEAT_PDPE1GB))) {
        return bits | PTE_PS;
    }
    *leaf = true;
    return bits | ((UINT64_C(1) << level->shift) - (UINT64_C(1) << 13));
}

static uint64_t page_base(const struct walk *w, uint64_t entry)
{
    uint64_t base = entry & ((UINT64_C(1) << 52) - 1) & ~((UINT64_C(1) << w->shift) - 1);
    if (w->mode == &mode_32 && w->shift == 22) { /* PSE-36: bits 20-13 are 39-32 */
        base |= (entry >> 13 & 0xff) << 32;
    }
    return base;
}

static int fault(uint32_t *code, uint32_t bits)
{
    *code = bits;
    return -1;
}

/* Reads down to the leaf.  *@code gets P and RSVD bits only. */
static int descend(struct vcpu *cpu, struct walk *w, uint64_t linear, uint32_t *code)
{
    uint64_t table = cpu->r.cr3 & (w->mode == &mode_4level ? 0xffffffffff000u : 0xfffff000u);
    w->depth = 0;
    if (w->mode == &mode_pae) {
        uint64_t pdpte = cpu->r.pdpte[linear >> 30 & 3];
        if (!(pdpte & PTE_P)) {
            return fault(code, 0);
        }
        table = pdpte & 0xffffffffff000u;
    }
    for (unsigned l = 0;; l++) {
        const struct level *level = &w->mode->level[l];
        uint64_t index = linear >> level->shift & ((1u << level->index_bits) - 1);
        bool leaf;
        uint64_t entry = read_entry(cpu, table + index * w->mode->entry_bytes,
                                    w->mode->entry_bytes, &w->host[l]);
        w->entry[l] = entry;
        w->depth = l + 1;
        if (!(entry & PTE_P)) {
            return fault(code, 0);
        }
        if (entry & reserved_bits(cpu, w->mode, l, entry, &leaf)) {
            return fault(code, PF_P | PF_RSVD);
        }
        if (leaf) {
            w->shift = level->shift;
            w->base = page_base(w, entry);
            return 0;
        }
        table = entry & 0xffffffffff000u;
    }
}

/* "Access Rights".  @all is the conjunction of the entries' flags, @nx their disjunction. */
static bool allowed(const struct vcpu *cpu, unsigned want, uint64_t all, bool nx)
{
    bool user_page = all & PTE_US, writable = all & PTE_RW;
    if ((want & ACCESS_FETCH) && nx) {
        return false;
    }
    if (want & ACCESS_USER) {
        return user_page && (writable || !(want & ACCESS_WRITE));
    }
    if ((want & ACCESS_WRITE) && !writable && (cpu->r.cr0 & CR0_WP)) {
        return false;
    }
    if (!user_page) {
        return true;
    }
    if (want & ACCESS_FETCH) {
        return !(cpu->r.cr4 & CR4_SMEP);
    }
    return !(cpu->r.cr4 & CR4_SMAP) ||
           ((cpu->r.rflags & FLAG_AC) && !(want & ACCESS_IMPLICIT));
}

/* False: the entry changed, walk again. */
static bool set_flags(struct walk *w, unsigned l, uint64_t bits)
{
    uint64_t old = w->entry[l];
    uint8_t *host = w->host[l];
    if ((old & bits) == bits || !host) {
        return true;
    }
    bool done;
    if (w->mode->entry_bytes == 8) {
        done = __atomic_compare_exchange_n((uint64_t *)host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint32_t old32 = (uint32_t)old;
        done = __atomic_compare_exchange_n((uint32_t *)host, &old32, old32 | (uint32_t)bits,
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (done && ram_flags(host)) {
        ram_note_write(host, w->mode->entry_bytes);
    }
    w->entry[l] |= bits;
    return done;
}

static bool set_accessed_dirty(struct walk *w, bool write)
{
    for (unsigned l = 0; l < w->depth; l++) {
        bool leaf = l + 1 == w->depth;
        if (!set_flags(w, l, leaf && write ? PTE_A | PTE_D : PTE_A)) {
            return false;
        }
    }
    return true;
}

static uint8_t pat_index(const struct walk *w, uint64_t leaf)
{
    uint64_t pat = w->shift == 12 ? leaf & PTE_PAT : leaf & PTE_PAT_LARGE;
    return (uint8_t)((leaf >> 3 & 3) | (pat ? 4 : 0));
}

static const struct paging_mode *mode_of(const struct vcpu *cpu)
{
    if (cpu->r.efer & EFER_LMA) {
        return &mode_4level;
    }
    return cpu->r.cr4 & CR4_PAE ? &mode_pae : &mode_32;
}

static void identity(struct vcpu *cpu, uint64_t linear, struct translation *out)
{
    *out = (struct translation){.gpa = a20(cpu, linear), .bytes = PAGE_SIZE, .user = true,
                                .writable = true, .executable = true, .dirty = true, .accessed = true};
}

/* What all entries on the way allow; *@nx: one of them forbids execution. */
static uint64_t rights(const struct vcpu *cpu, const struct walk *w, bool *nx)
{
    uint64_t all = ~UINT64_C(0);
    *nx = false;
    for (unsigned l = 0; l < w->depth; l++) {
        all &= w->entry[l];
        *nx |= w->mode->entry_bytes == 8 && (cpu->r.efer & EFER_NXE) && (w->entry[l] & PTE_NX);
    }
    return all;
}

static struct translation translation_of(const struct vcpu *cpu, const struct walk *w,
                                         uint64_t linear, uint64_t all, bool nx)
{
    uint64_t leaf = w->entry[w->depth - 1], size = UINT64_C(1) << w->shift;
    return (struct translation){.gpa = a20(cpu, w->base | (linear & (size - 1))),
                                .bytes = size,
                                .user = all & PTE_US,
                                .writable = all & PTE_RW,
                                .executable = !nx,
                                .global = (leaf & PTE_G) && (cpu->r.cr4 & CR4_PGE),
                                .dirty = leaf & PTE_D,
                                .accessed = all & PTE_A,
                                .attribute = pat_index(w, leaf)};
}

int paging_walk(struct vcpu *cpu, uint64_t linear, unsigned want, bool quiet,
                struct translation *out, uint32_t *error_code)
{
    struct walk w = {.mode = mode_of(cpu)};
    uint32_t code;
    uint64_t all;
    bool nx;
    if (!(cpu->r.cr0 & CR0_PG)) {
        identity(cpu, linear, out);
        return 0;
    }
    do {
        code = PF_P;
        if (descend(cpu, &w, linear, &code) < 0) {
            goto fault;
        }
        all = rights(cpu, &w, &nx);
        if (!allowed(cpu, want, all, nx)) {
            goto fault;
        }
    } while (!quiet && !set_accessed_dirty(&w, want & ACCESS_WRITE));

    *out = translation_of(cpu, &w, linear, all, nx);
    return 0;
fault:
    code |= want & (ACCESS_WRITE | ACCESS_USER);
    bool nx_on = (cpu->r.cr4 & CR4_PAE) && (cpu->r.efer & EFER_NXE);
    if ((want & ACCESS_FETCH) && (nx_on || (cpu->r.cr4 & CR4_SMEP))) {
        code |= ACCESS_FETCH;
    }
    return fault(error_code, code);
}

bool paging_load_pdptes(struct vcpu *cpu, uint64_t cr3)
{
    uint64_t pdpte[4];
    uint64_t reserved = (UINT64_MAX << phys_bits(cpu)) | 0x1e6;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *host;
        pdpte[i] = read_entry(cpu, (cr3 & 0xffffffe0u) + i * 8, 8, &host);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved)) {
            return false;
        }
    }
    memcpy(cpu->r.pdpte, pdpte, sizeof(pdpte));
    return true;
}

/* ---- debuggers ---- */

/* Behind the largest unit around @linear that is known not to be mapped; 0: the end. */
static uint64_t behind(const struct walk *w, uint64_t linear)
{
    unsigned shift = w->depth ? w->mode->level[w->depth - 1].shift : 30; /* PAE's directory */
    return ((linear >> shift) + 1) << shift;
}

bool paging_next(struct vcpu *cpu, uint64_t *linear, struct translation *out, unsigned *budget)
{
    struct walk w = {.mode = mode_of(cpu)};
    uint32_t code;
    for (; *budget; --*budget) {
        if (w.mode != &mode_4level && *linear >> 32) {
            return false;
        }
        if (*linear == UINT64_C(1) << 47) {
            *linear = UINT64_MAX << 47; /* what is canonical goes on there */
        }
        if (descend(cpu, &w, *linear, &code) == 0) {
            bool nx;
            uint64_t all = rights(cpu, &w, &nx);
            *out = translation_of(cpu, &w, *linear, all, nx);
            return true;
        }
        *linear = behind(&w, *linear);
        if (!*linear) {
            return false;
        }
    }
    return false;
}

static bool debug_access(struct vcpu *cpu, uint64_t linear, uint8_t *bytes, uint64_t n, bool write)
{
    while (n) {
        struct translation t;
        uint32_t code;
        uint64_t step = MIN(n, PAGE_SIZE - (linear & ~PAGE_MASK));
        /* A supervisor's read that SMAP does not stop, so all pages are seen. */
        uint64_t flags = cpu->r.rflags;
        cpu->r.rflags |= FLAG_AC;
        int bad = paging_walk(cpu, linear, ACCESS_READ, true, &t, &code);
        cpu->r.rflags = flags;
        if (bad) {
            return false;
        }
        if (!(write ? space_write(cpu->memory, t.gpa, bytes, step)
                    : space_read(cpu->memory, t.gpa, bytes, step))) {
            return false;
        }
        linear += step;
        bytes += step;
        n -= step;
    }
    return true;
}

bool paging_peek(struct vcpu *cpu, uint64_t linear, void *to, uint64_t n)
{
    return debug_access(cpu, linear, to, n, false);
}

bool paging_poke(struct vcpu *cpu, uint64_t linear, const void *from, uint64_t n)
{
    return debug_access(cpu, linear, (uint8_t *)(uintptr_t)from, n, true);
}
