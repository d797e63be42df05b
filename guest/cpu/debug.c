/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/debug.h"

#include "guest/cpu/paging.h"

#include <glib.h>
#include <string.h>

enum { OPCODE_INT3 = 0xcc };

static struct gdb_points points;
static _Atomic unsigned registers; /* of the engine; 0: it looks at every point by itself */

/* ---- breakpoints as INT3 ---- */

void debug_in_hardware(unsigned n)
{
    registers = n;
}

static unsigned count_watches(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < points.n; i++) {
        n += points.at[i].kind != GDB_EXECUTE;
    }
    return n;
}

/* Where the byte at @linear lies, as the first vCPU that maps it sees it; NULL: nowhere. */
static uint8_t *code_byte(uint64_t linear)
{
    struct translation t;
    uint32_t code;
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *cpu = vcpu_at(i);
        uint64_t n = 1;
        if (paging_walk(cpu, linear, ACCESS_READ, true, &t, &code) == 0) {
            return space_map(cpu->memory, t.gpa, &n, false);
        }
    }
    return NULL;
}

/* Watchpoints need registers; breakpoints take what is left of them. */
static void arrange(void)
{
    unsigned left = registers - MIN(count_watches(), registers);
    for (unsigned i = 0; i < points.n; i++) {
        struct gdb_point *p = &points.at[i];
        p->soft = registers && p->kind == GDB_EXECUTE && !left;
        left -= registers && p->kind == GDB_EXECUTE && left;
    }
}

void debug_patch(void)
{
    for (unsigned i = 0; i < points.n; i++) {
        struct gdb_point *p = &points.at[i];
        uint8_t *host = p->soft && !p->host ? code_byte(p->linear) : NULL;
        if (host) {
            p->host = host;
            p->byte = *host;
            *host = OPCODE_INT3;
            ram_note_write(host, 1);
        }
    }
}

void debug_unpatch(void)
{
    for (unsigned i = 0; i < points.n; i++) {
        struct gdb_point *p = &points.at[i];
        if (p->host && *p->host == OPCODE_INT3) { /* else the guest put new code there */
            *p->host = p->byte;
            ram_note_write(p->host, 1);
        }
        p->host = NULL;
    }
}

/* Can the engine do it?  A watchpoint takes a register, which knows 1, 2, 4 or 8 bytes. */
static bool engine_takes(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes)
{
    bool whole = bytes <= 8 && !(bytes & (bytes - 1)) && !(linear & (bytes - 1));
    if (!registers) {
        return true;
    }
    if (kind != GDB_EXECUTE) {
        return whole && count_watches() < registers;
    }
    return points.n < registers || code_byte(linear);
}

static void publish(void)
{
    arrange();
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_at(i)->points = points.n ? &points : NULL;
    }
    vcpus_flush_tlb();
}

static struct gdb_point *find(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes)
{
    for (unsigned i = 0; i < points.n; i++) {
        struct gdb_point *p = &points.at[i];
        if (p->kind == kind && p->linear == linear && p->bytes == bytes) {
            return p;
        }
    }
    return NULL;
}

bool debug_add_point(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes)
{
    if (find(kind, linear, bytes)) {
        return true;
    }
    if (points.n == GDB_POINTS_MAX || !bytes || !engine_takes(kind, linear, bytes)) {
        return false;
    }
    points.at[points.n++] = (struct gdb_point){.linear = linear, .bytes = bytes, .kind = kind};
    publish();
    return true;
}

bool debug_remove_point(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes)
{
    struct gdb_point *p = find(kind, linear, bytes);
    if (!p) {
        return false;
    }
    *p = points.at[--points.n];
    publish();
    return true;
}

void debug_clear_points(void)
{
    points.n = 0;
    publish();
}

enum { RW_EXECUTE = 0, RW_WRITE = 1, RW_IO = 2, RW_ACCESS = 3 };

static unsigned dr_kind(const struct vcpu *cpu, unsigned n)
{
    return (unsigned)(cpu->r.dr[7] >> (16 + 4 * n)) & 3;
}

static uint64_t dr_bytes(const struct vcpu *cpu, unsigned n)
{
    static const uint8_t bytes[] = {1, 2, 8, 4};
    return bytes[cpu->r.dr[7] >> (18 + 4 * n) & 3];
}

static bool dr_on(const struct vcpu *cpu, unsigned n)
{
    return cpu->r.dr[7] >> (2 * n) & 3;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a - b < b_bytes || b - a < a_bytes;
}

static uint64_t data_hits(const struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool write)
{
    uint64_t hits = 0;
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = dr_kind(cpu, n);
        if (!dr_on(cpu, n) || !(kind == RW_ACCESS || (kind == RW_WRITE && write))) {
            continue;
        }
        uint64_t size = dr_bytes(cpu, n), at = cpu->r.dr[n] & ~(size - 1);
        if (overlap(at, size, linear, bytes)) {
            hits |= 1u << n;
        }
    }
    return hits;
}

bool debug_watches_page(const struct vcpu *cpu, uint64_t linear)
{
    uint64_t page = linear & PAGE_MASK;
    if ((cpu->r.dr[7] & DR7_ANY) && data_hits(cpu, page, PAGE_SIZE, true)) {
        return true;
    }
    for (unsigned i = 0; cpu->points && i < cpu->points->n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        if (p->kind != GDB_EXECUTE && overlap(p->linear, p->bytes, page, PAGE_SIZE)) {
            return true;
        }
    }
    return false;
}

void debug_data_access(struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool write)
{
    if (cpu->r.dr[7] & DR7_ANY) {
        cpu->traps |= data_hits(cpu, linear, bytes, write);
    }
    for (unsigned i = 0; cpu->points && i < cpu->points->n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        bool kind = p->kind == GDB_ACCESS || p->kind == (write ? GDB_WRITE : GDB_READ);
        if (kind && overlap(p->linear, p->bytes, linear, bytes)) {
            cpu->watch_hit = p->linear;
            cpu->watched = true;
        }
    }
}

uint64_t debug_code_hits(const struct vcpu *cpu, uint64_t linear)
{
    uint64_t hits = 0;
    for (unsigned n = 0; n < 4; n++) {
        if (dr_on(cpu, n) && dr_kind(cpu, n) == RW_EXECUTE && cpu->r.dr[n] == linear) {
            hits |= 1u << n;
        }
    }
    return hits;
}

bool debug_gdb_breakpoint(const struct vcpu *cpu, uint64_t linear)
{
    for (unsigned i = 0; cpu->points && i < cpu->points->n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        if (p->kind == GDB_EXECUTE && p->linear == linear) {
            return true;
        }
    }
    return false;
}
