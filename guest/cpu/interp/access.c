/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * access: the interpreter's way to memory.
 *
 * Spec: Intel SDM, volume 3A, "Protected-Mode Memory Management" and "Protection": "Limit
 * Checking", "Type Checking"; volume 1, "Canonical Addressing".
 */
#include "base/bytes.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/interp/interp.h"
#include "guest/cpu/interp/step.h"
#include "guest/cpu/paging.h"

#include <pthread.h>

/* ---- addresses ---- */

uint64_t interp_offset(const struct vcpu *cpu, const struct insn *i)
{
    uint64_t at = (uint64_t)i->disp;
    if (i->rip_relative) {
        at += cpu->r.rip + i->len;
    }
    if (i->base >= 0) {
        at += cpu->r.gpr[i->base];
    }
    if (i->index >= 0) {
        at += cpu->r.gpr[i->index] << i->scale;
    }
    return at & size_mask(i->addrsize);
}

static G_NORETURN void refuse(struct vcpu *cpu, enum seg_name seg)
{
    cpu_raise_code(cpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

enum { TYPE_CODE = 8, TYPE_EXPAND_DOWN = 4, TYPE_RW = 2 };

static bool inside(const struct segment *s, uint64_t offset, unsigned bytes)
{
    uint64_t last = offset + bytes - 1;
    if ((s->attr & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN) {
        return offset > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffu : 0xffffu);
    }
    return last <= s->limit;
}

/* Outside 64-bit mode. */
static bool permitted(const struct vcpu *cpu, const struct segment *s, bool write)
{
    if (cpu_real_mode(cpu) || cpu_v86(cpu)) {
        return true;
    }
    if (s->attr & SEG_UNUSABLE) {
        return false;
    }
    if (s->attr & TYPE_CODE) {
        return !write && (s->attr & TYPE_RW);
    }
    return !write || (s->attr & TYPE_RW);
}

uint64_t seg_linear(struct vcpu *cpu, enum seg_name seg, uint64_t offset, unsigned bytes,
                    bool write)
{
    const struct segment *s = &cpu->r.seg[seg];
    if (vcpu_code64(cpu)) {
        uint64_t linear = offset + (seg >= SEG_FS ? s->base : 0);
        if (!is_canonical(linear) || !is_canonical(linear + bytes - 1)) {
            refuse(cpu, seg);
        }
        return linear;
    }
    if (!permitted(cpu, s, write) || !inside(s, offset, bytes)) {
        refuse(cpu, seg);
    }
    return (uint32_t)(s->base + offset);
}

/* ---- pages ---- */

static enum tlb_mode system_mode(const struct vcpu *cpu)
{
    return cpu->r.cr4 & CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC;
}

static void resolve(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, bool write,
                    struct tlb_result *out)
{
    uint32_t code;
    if (tlb_fill(cpu, mode, linear, write ? ACCESS_WRITE : ACCESS_READ, out, &code) < 0) {
        cpu_raise_page_fault(cpu, linear, code);
    }
}

static inline unsigned left_in_page(uint64_t linear)
{
    return (unsigned)(PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
}

/* Where the second page of an access begins: 32-bit addresses wrap. */
static inline uint64_t next_page(const struct vcpu *cpu, uint64_t linear)
{
    uint64_t next = (linear | (PAGE_SIZE - 1)) + 1;
    return vcpu_code64(cpu) ? next : (uint32_t)next;
}

static void get(struct vcpu *cpu, const struct tlb_result *from, void *to, unsigned n)
{
    if (from->host) {
        memcpy(to, from->host, n);
    } else if (n == 1 || n == 2 || n == 4 || n == 8) {
        uint64_t v = space_load(cpu->memory, from->gpa, n);
        memcpy(to, &v, n);
    } else {
        space_read(cpu->memory, from->gpa, to, n);
    }
}

static void put(struct vcpu *cpu, const struct tlb_result *at, const void *from, unsigned n)
{
    if (at->host) {
        memcpy(at->host, from, n);
        if (at->note) {
            ram_note_write(at->host, n);
        }
    } else if (n == 1 || n == 2 || n == 4 || n == 8) {
        uint64_t v = 0;
        memcpy(&v, from, n);
        space_store(cpu->memory, at->gpa, v, n);
    } else {
        space_write(cpu->memory, at->gpa, from, n);
    }
}

static inline void watch(struct vcpu *cpu, uint64_t linear, unsigned n, bool write)
{
    if (G_UNLIKELY(debug_active(cpu))) {
        debug_data_access(cpu, linear, n, write);
    }
}

static void read_slowly(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, void *to,
                        unsigned n, bool as_write)
{
    struct tlb_result a, b = {.host = NULL};
    unsigned first = MIN(n, left_in_page(linear));
    resolve(cpu, mode, linear, as_write, &a);
    if (first < n) {
        resolve(cpu, mode, next_page(cpu, linear), as_write, &b);
    }
    watch(cpu, linear, n, as_write);
    get(cpu, &a, to, first);
    if (first < n) {
        get(cpu, &b, (uint8_t *)to + first, n - first);
    }
}

static void write_slowly(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, const void *from,
                         unsigned n)
{
    struct tlb_result a, b = {.host = NULL};
    unsigned first = MIN(n, left_in_page(linear));
    resolve(cpu, mode, linear, true, &a);
    if (first < n) {
        resolve(cpu, mode, next_page(cpu, linear), true, &b);
    }
    watch(cpu, linear, n, true);
    put(cpu, &a, from, first);
    if (first < n) {
        put(cpu, &b, (const uint8_t *)from + first, n - first);
    }
}

static inline uint64_t load(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, unsigned bytes)
{
    uint64_t v = 0;
    if (G_LIKELY(left_in_page(linear) >= bytes)) {
        const void *host = tlb_lookup(cpu->tlb, mode, false, linear);
        if (G_LIKELY(host)) {
            switch (bytes) {
            case 1:
                return *(const uint8_t *)host;
            case 2:
                return le16_at(host);
            case 4:
                return le32_at(host);
            default:
                return le64_at(host);
            }
        }
    }
    read_slowly(cpu, mode, linear, &v, bytes, false);
    return v;
}

static inline void store(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, uint64_t v,
                         unsigned bytes)
{
    if (G_LIKELY(left_in_page(linear) >= bytes)) {
        void *host = tlb_lookup(cpu->tlb, mode, true, linear);
        if (G_LIKELY(host)) {
            switch (bytes) {
            case 1:
                *(uint8_t *)host = (uint8_t)v;
                return;
            case 2:
                le16_put(host, (uint16_t)v);
                return;
            case 4:
                le32_put(host, (uint32_t)v);
                return;
            default:
                le64_put(host, v);
                return;
            }
        }
    }
    write_slowly(cpu, mode, linear, &v, bytes);
}

/* ---- the interface ---- */

static inline void check_alignment(struct vcpu *cpu, uint64_t linear, unsigned bytes)
{
    if (G_UNLIKELY(linear & (bytes - 1)) && cpu_alignment_checked(cpu)) {
        cpu_raise_code(cpu, VEC_AC, 0);
    }
}

uint64_t mem_load(struct vcpu *cpu, uint64_t linear, unsigned bytes)
{
    check_alignment(cpu, linear, bytes);
    return load(cpu, tlb_mode(cpu), linear, bytes);
}

void mem_store(struct vcpu *cpu, uint64_t linear, uint64_t value, unsigned bytes)
{
    check_alignment(cpu, linear, bytes);
    store(cpu, tlb_mode(cpu), linear, value, bytes);
}

uint64_t mem_load_rmw(struct vcpu *cpu, uint64_t linear, unsigned bytes)
{
    enum tlb_mode mode = tlb_mode(cpu);
    uint64_t v = 0;
    check_alignment(cpu, linear, bytes);
    if (G_LIKELY(left_in_page(linear) >= bytes && tlb_lookup(cpu->tlb, mode, true, linear))) {
        return load(cpu, mode, linear, bytes);
    }
    read_slowly(cpu, mode, linear, &v, bytes, true);
    return v;
}

void mem_read(struct vcpu *cpu, uint64_t linear, void *to, unsigned n)
{
    enum tlb_mode mode = tlb_mode(cpu);
    const void *host = NULL;
    if (left_in_page(linear) >= n) {
        host = tlb_lookup(cpu->tlb, mode, false, linear);
    }
    if (host) {
        memcpy(to, host, n);
    } else {
        read_slowly(cpu, mode, linear, to, n, false);
    }
}

void mem_write(struct vcpu *cpu, uint64_t linear, const void *from, unsigned n)
{
    enum tlb_mode mode = tlb_mode(cpu);
    void *host = NULL;
    if (left_in_page(linear) >= n) {
        host = tlb_lookup(cpu->tlb, mode, true, linear);
    }
    if (host) {
        memcpy(host, from, n);
    } else {
        write_slowly(cpu, mode, linear, from, n);
    }
}

static void probe_page(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, bool write)
{
    struct tlb_result r;
    if (!tlb_lookup(cpu->tlb, mode, write, linear)) {
        resolve(cpu, mode, linear, write, &r);
    }
}

static void probe(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear, unsigned n, bool write)
{
    probe_page(cpu, mode, linear, write);
    if (left_in_page(linear) < n) {
        probe_page(cpu, mode, next_page(cpu, linear), write);
    }
}

void mem_probe(struct vcpu *cpu, uint64_t linear, unsigned n, bool write)
{
    probe(cpu, tlb_mode(cpu), linear, n, write);
}

uint8_t *mem_map(struct vcpu *cpu, uint64_t linear, uint64_t *n, bool write)
{
    enum tlb_mode mode = tlb_mode(cpu);
    struct tlb_result r;
    *n = MIN(*n, left_in_page(linear));
    uint8_t *host = tlb_lookup(cpu->tlb, mode, write, linear);
    if (host) {
        return host;
    }
    resolve(cpu, mode, linear, write, &r);
    return r.note || debug_watches_page(cpu, linear) ? NULL : r.host;
}

void *mem_atomic(struct vcpu *cpu, uint64_t linear, unsigned bytes)
{
    enum tlb_mode mode = tlb_mode(cpu);
    struct tlb_result r;
    check_alignment(cpu, linear, bytes);
    if (left_in_page(linear) < bytes) {
        probe(cpu, mode, linear, bytes, true);
        return NULL;
    }
    void *host = tlb_lookup(cpu->tlb, mode, true, linear);
    if (host) {
        return host;
    }
    resolve(cpu, mode, linear, true, &r);
    watch(cpu, linear, bytes, true);
    return r.host;
}

void mem_wrote(struct vcpu *cpu, void *host, unsigned bytes)
{
    (void)cpu;
    if (ram_flags(host)) {
        ram_note_write(host, bytes);
    }
}

static pthread_mutex_t split_lock = PTHREAD_MUTEX_INITIALIZER;

void mem_lock(void)
{
    pthread_mutex_lock(&split_lock);
}

void mem_unlock(void)
{
    pthread_mutex_unlock(&split_lock);
}

uint64_t sys_load(struct vcpu *cpu, uint64_t linear, unsigned bytes)
{
    return load(cpu, system_mode(cpu), linear, bytes);
}

void sys_store(struct vcpu *cpu, uint64_t linear, uint64_t value, unsigned bytes)
{
    store(cpu, system_mode(cpu), linear, value, bytes);
}

void sys_probe(struct vcpu *cpu, uint64_t linear, unsigned n, bool write)
{
    probe(cpu, system_mode(cpu), linear, n, write);
}

/* ---- stack ---- */

void stack_set(struct vcpu *cpu, uint64_t sp)
{
    switch (stack_bytes(cpu)) {
    case 2:
        cpu->r.gpr[RSP] = (cpu->r.gpr[RSP] & ~UINT64_C(0xffff)) | (sp & 0xffff);
        break;
    case 4:
        cpu->r.gpr[RSP] = (uint32_t)sp;
        break;
    default:
        cpu->r.gpr[RSP] = sp;
    }
}

uint64_t stack_linear(struct vcpu *cpu, int64_t delta, unsigned bytes, bool write)
{
    uint64_t sp = (cpu->r.gpr[RSP] + (uint64_t)delta) & size_mask(stack_bytes(cpu));
    return seg_linear(cpu, SEG_SS, sp, bytes, write);
}

void stack_push(struct vcpu *cpu, uint64_t value, unsigned bytes)
{
    mem_store(cpu, stack_linear(cpu, -(int64_t)bytes, bytes, true), value, bytes);
    stack_set(cpu, cpu->r.gpr[RSP] - bytes);
}

uint64_t stack_pop(struct vcpu *cpu, unsigned bytes)
{
    uint64_t v = mem_load(cpu, stack_linear(cpu, 0, bytes, false), bytes);
    stack_set(cpu, cpu->r.gpr[RSP] + bytes);
    return v;
}

void cpu_jump(struct vcpu *cpu, uint64_t target, unsigned bytes)
{
    target &= size_mask(bytes);
    if (vcpu_code64(cpu) ? !is_canonical(target) : target > cpu->r.seg[SEG_CS].limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    cpu->next_rip = target;
}
