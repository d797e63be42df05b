/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cpuid: what CPUID shows of a model.
 *
 * Spec: Intel SDM, volume 2, "CPUID - CPU Identification"; AMD APM, volume 3, appendix
 * "Obtaining Processor Information Via the CPUID Instruction"; Linux kernel documentation,
 * "KVM CPUID bits".
 */
#include "guest/cpu/models.h"
#include "guest/cpu/vcpu.h"

#include <glib.h>
#include <string.h>

enum { MAX_BASIC = 0xd, MAX_EXTENDED = 0x80000021, MAX_EXTENDED_INTEL = 0x80000008 };
enum { XSAVE_LEGACY_BYTES = 576 };

uint32_t cpu_signature(const struct cpu_model *m)
{
    uint32_t low = MIN(m->family, 15), ext = m->family - low;
    return ext << 20 | (m->model >> 4 & 15) << 16 | low << 8 | (m->model & 15) << 4 |
           (m->stepping & 15);
}

static bool is_amd(const struct cpu_model *m)
{
    return !strcmp(m->vendor, "AuthenticAMD");
}

static uint32_t text32(const char *text, unsigned at)
{
    uint32_t v;
    memcpy(&v, text + at, 4);
    return v;
}

static unsigned log2_up(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n) {
        bits++;
    }
    return bits;
}

static unsigned threads_per_socket(const struct cpu_topology *t)
{
    return MAX(t->dies, 1) * MAX(t->cores, 1) * MAX(t->threads, 1);
}

static unsigned thread_bits(const struct cpu_topology *t)
{
    return log2_up(MAX(t->threads, 1));
}

static unsigned socket_bits(const struct cpu_topology *t)
{
    return thread_bits(t) + log2_up(MAX(t->cores, 1)) + log2_up(MAX(t->dies, 1));
}

static bool cpuid_limited(const struct cpu_model *m)
{
    return m->family < 6 || (m->family == 6 && m->model < 14);
}

static struct cpuid_regs vendor_leaf(const struct cpu_model *m, uint32_t max)
{
    return (struct cpuid_regs){max, text32(m->vendor, 0), text32(m->vendor, 8),
                               text32(m->vendor, 4)};
}

static struct cpuid_regs leaf_1(const struct vcpu *cpu)
{
    const struct cpu_model *m = cpu->model;
    uint32_t ecx = m->words[CPUID_1_ECX] & ~(UINT32_C(1) << 27), edx = m->words[CPUID_1_EDX];
    if (cpu->r.cr4 & CR4_OSXSAVE) {
        ecx |= UINT32_C(1) << 27;
    }
    if (!(cpu->r.apic_base & 0x800)) {
        edx &= ~(UINT32_C(1) << 9);
    }
    unsigned logical = MIN(1u << socket_bits(&m->topology), 255);
    uint32_t ebx = 8 << 8 | logical << 16 | (cpu->apic_id & 0xff) << 24;
    return (struct cpuid_regs){cpu_signature(m), ebx, ecx, edx};
}

/* Caches: L1D, L1I, L2 of a core, L3 of a die. */
struct cache {
    uint8_t type, level, ways;
    uint32_t sets;
};
static const struct cache caches[] = {
    {1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 8, 1024}, {3, 3, 16, 16384}};

static struct cpuid_regs cache_leaf(const struct cpu_model *m, uint32_t n, bool amd)
{
    if (n >= G_N_ELEMENTS(caches) || (m->no_l3 && caches[n].level == 3)) {
        return (struct cpuid_regs){0};
    }
    const struct cache *c = &caches[n];
    const struct cpu_topology *t = &m->topology;
    unsigned bits = c->level == 3 ? socket_bits(t) : thread_bits(t);
    uint32_t eax = c->type | (uint32_t)c->level << 5 | 1 << 8 | ((1u << bits) - 1) << 14;
    if (!amd) {
        eax |= ((1u << (socket_bits(t) - thread_bits(t))) - 1) << 26;
    }
    return (struct cpuid_regs){eax, 63 | (uint32_t)(c->ways - 1) << 22, c->sets - 1, 0};
}

static struct cpuid_regs leaf_b(const struct vcpu *cpu, uint32_t level)
{
    const struct cpu_topology *t = &cpu->model->topology;
    struct cpuid_regs r = {.ecx = level & 0xff, .edx = cpu->apic_id};
    if (level == 0) {
        r.eax = thread_bits(t);
        r.ebx = MAX(t->threads, 1);
        r.ecx |= 1 << 8;
    } else if (level == 1) {
        r.eax = socket_bits(t);
        r.ebx = threads_per_socket(t);
        r.ecx |= 2 << 8;
    }
    return r;
}

/* Extended states by bit of XCR0: where they lie in the standard format. */
struct xstate {
    uint16_t bytes, at;
};
static const struct xstate xstates[] = {
    [2] = {256, 576}, [5] = {64, 832}, [6] = {512, 896}, [7] = {1024, 1408}};

static uint32_t xsave_bytes(uint64_t states)
{
    uint32_t end = XSAVE_LEGACY_BYTES;
    for (unsigned i = 2; i < G_N_ELEMENTS(xstates); i++) {
        if (states >> i & 1) {
            end = MAX(end, (uint32_t)xstates[i].at + xstates[i].bytes);
        }
    }
    return end;
}

static struct cpuid_regs leaf_d(const struct vcpu *cpu, uint32_t subleaf)
{
    const struct cpu_model *m = cpu->model;
    if (!m->offers[FEAT_XSAVE]) {
        return (struct cpuid_regs){0};
    }
    if (subleaf == 0) {
        return (struct cpuid_regs){m->xcr0_mask, xsave_bytes(cpu->r.xcr0),
                                   xsave_bytes(m->xcr0_mask), 0};
    }
    if (subleaf == 1) {
        uint32_t eax = m->words[CPUID_D_1_EAX];
        return (struct cpuid_regs){eax, eax & 2 ? xsave_bytes(cpu->r.xcr0) : 0, 0, 0};
    }
    if (subleaf < G_N_ELEMENTS(xstates) && (m->xcr0_mask >> subleaf & 1)) {
        return (struct cpuid_regs){xstates[subleaf].bytes, xstates[subleaf].at, 0, 0};
    }
    return (struct cpuid_regs){0};
}

static struct cpuid_regs leaf_7(const struct cpu_model *m, uint32_t subleaf)
{
    const uint32_t *w = m->words;
    if (subleaf == 0) {
        return (struct cpuid_regs){1, w[CPUID_7_0_EBX], w[CPUID_7_0_ECX], w[CPUID_7_0_EDX]};
    }
    return (struct cpuid_regs){subleaf == 1 ? w[CPUID_7_1_EAX] : 0, 0, 0, 0};
}

static struct cpuid_regs basic_leaf(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpu_model *m = cpu->model;
    switch (leaf) {
    case 0:
        return vendor_leaf(m, cpuid_limited(m) ? 3 : MAX_BASIC);
    case 1:
        return leaf_1(cpu);
    case 2:
        return (struct cpuid_regs){is_amd(m) ? 0 : 1, 0, 0, 0};
    case 4:
        return is_amd(m) ? (struct cpuid_regs){0} : cache_leaf(m, subleaf, false);
    case 6:
        return (struct cpuid_regs){m->words[CPUID_6_EAX], 0, 0, 0};
    case 7:
        return leaf_7(m, subleaf);
    case 0xb:
        return leaf_b(cpu, subleaf);
    case 0xd:
        return leaf_d(cpu, subleaf);
    default:
        return (struct cpuid_regs){0};
    }
}

static struct cpuid_regs leaf_8000_0001(const struct cpu_model *m)
{
    /* AMD repeats these bits of leaf 1. */
    uint32_t edx = m->words[CPUID_8000_0001_EDX], ecx = m->words[CPUID_8000_0001_ECX];
    if (is_amd(m)) {
        edx |= m->words[CPUID_1_EDX] & 0x0183f3ff;
        ecx |= threads_per_socket(&m->topology) > 1 ? 2 : 0;
    }
    return (struct cpuid_regs){cpu_signature(m), 0, ecx, edx};
}

static struct cpuid_regs leaf_8000_0008(const struct cpu_model *m)
{
    unsigned virt = m->offers[FEAT_LM] ? 48 : 32;
    uint32_t ecx = 0;
    if (is_amd(m)) {
        ecx = (threads_per_socket(&m->topology) - 1) | socket_bits(&m->topology) << 12;
    }
    return (struct cpuid_regs){m->phys_bits | virt << 8, m->words[CPUID_8000_0008_EBX], ecx, 0};
}

static struct cpuid_regs leaf_8000_001e(const struct vcpu *cpu)
{
    const struct cpu_topology *t = &cpu->model->topology;
    unsigned core_bits = socket_bits(t) - thread_bits(t);
    uint32_t core = cpu->apic_id >> thread_bits(t) & ((1u << core_bits) - 1);
    uint32_t node = cpu->apic_id >> socket_bits(t);
    return (struct cpuid_regs){cpu->apic_id, core | (MAX(t->threads, 1) - 1) << 8, node & 0xff, 0};
}

static struct cpuid_regs extended_leaf(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpu_model *m = cpu->model;
    bool amd = is_amd(m);
    switch (leaf) {
    case 0x80000000:
        return vendor_leaf(m, amd ? MAX_EXTENDED : MAX_EXTENDED_INTEL);
    case 0x80000001:
        return leaf_8000_0001(m);
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: {
        unsigned at = (leaf - 0x80000002) * 16;
        return (struct cpuid_regs){text32(m->brand, at), text32(m->brand, at + 4),
                                   text32(m->brand, at + 8), text32(m->brand, at + 12)};
    }
    case 0x80000005: /* L1: 32 KiB, 8 ways, 64-byte lines */
        return amd ? (struct cpuid_regs){0, 0, 0x20080140, 0x20080140} : (struct cpuid_regs){0};
    case 0x80000006: /* L2: 512 KiB, 8 ways; L3: 16 MiB, 16 ways */
        return (struct cpuid_regs){0, 0, 0x02006140, amd && !m->no_l3 ? 0x00808140 : 0};
    case 0x80000007:
        return (struct cpuid_regs){0, 0, 0, m->words[CPUID_8000_0007_EDX]};
    case 0x80000008:
        return leaf_8000_0008(m);
    case 0x8000001d:
        return amd && m->offers[FEAT_TOPOEXT] ? cache_leaf(m, subleaf, true)
                                              : (struct cpuid_regs){0};
    case 0x8000001e:
        return amd && m->offers[FEAT_TOPOEXT] ? leaf_8000_001e(cpu) : (struct cpuid_regs){0};
    case 0x80000021:
        return (struct cpuid_regs){m->words[CPUID_8000_0021_EAX], 0,
                                   m->words[CPUID_8000_0021_ECX], 0};
    default:
        return (struct cpuid_regs){0};
    }
}

static struct cpuid_regs hypervisor_leaf(const struct cpu_model *m, uint32_t leaf)
{
    if (leaf == 0x40000000) {
        static const char name[12] = "KVMKVMKVM";
        return (struct cpuid_regs){0x40000001, text32(name, 0), text32(name, 4), text32(name, 8)};
    }
    return (struct cpuid_regs){leaf == 0x40000001 ? m->words[CPUID_KVM_EAX] : 0, 0, 0, 0};
}

struct cpuid_regs cpu_cpuid(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpu_model *m = cpu->model;
    uint32_t max = is_amd(m) ? MAX_EXTENDED : MAX_EXTENDED_INTEL;
    if (leaf >= 0x40000000 && leaf <= 0x400000ff) {
        return m->kvm_pv ? hypervisor_leaf(m, leaf) : (struct cpuid_regs){0};
    }
    if (leaf >= 0x80000000 && leaf <= max) {
        return extended_leaf(cpu, leaf, subleaf);
    }
    /* Beyond the end Intel's processors repeat the last basic leaf, AMD's show zeroes. */
    return leaf <= MAX_BASIC ? basic_leaf(cpu, leaf, subleaf) : (struct cpuid_regs){0};
}
