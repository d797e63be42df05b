/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * CPU models: what CPUID and the MSRs show.
 *
 * A model is a row of a table (name, vendor, family/model/stepping, features, name
 * string); -cpu NAME[,+feature][,-feature][,feature=on|off] makes a struct cpu_model from
 * one.  An engine says which features it can give (for interp and bt: what the host's own
 * processor has, because SIMD runs on it, less what they do not virtualise); what it
 * cannot give is removed, with a warning if `enforce` is not set, an error if it is.
 */
struct vcpu;

/* Feature words by CPUID leaf, subleaf and register. */
enum cpuid_word {
    CPUID_1_EDX, CPUID_1_ECX, CPUID_7_0_EBX, CPUID_7_0_ECX, CPUID_7_0_EDX, CPUID_7_1_EAX,
    CPUID_8000_0001_EDX, CPUID_8000_0001_ECX, CPUID_8000_0007_EDX, CPUID_8000_0008_EBX,
    CPUID_8000_0021_EAX, CPUID_8000_0021_ECX, CPUID_D_1_EAX, CPUID_6_EAX, CPUID_KVM_EAX,
    CPUID_WORDS,
};

/* FEAT_SSE42 ...: a number for each row of features.def; FEAT_NONE is 0 and always offered. */
enum cpuid_feature {
    FEAT_NONE,
#define FEATURE(symbol, word, bit, names) FEAT_##symbol,
#include "guest/cpu/features.def"
#undef FEATURE
    FEAT_COUNT,
};

/* Where CPUID shows a word; @reg: 0 EAX to 3 EDX. */
void cpuid_word_at(enum cpuid_word word, uint32_t *leaf, uint32_t *subleaf, unsigned *reg);

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

struct cpu_topology {
    unsigned sockets, dies, cores, threads; /* cores a die, threads a core */
};

struct cpu_model {
    const char *name;
    char vendor[13];
    char brand[49];
    uint32_t family, model, stepping;
    uint32_t words[CPUID_WORDS];
    uint8_t offers[FEAT_COUNT]; /* the same, one byte a feature: for engines */
    uint8_t insn_offers[256];   /* the same by the instruction table's .cpuid */
    uint32_t xcr0_mask;   /* states that XSETBV may switch on */
    unsigned phys_bits;
    struct cpu_topology topology;
    bool no_l3;           /* caches end with L2 */
    bool kvm_pv;          /* offer KVM's paravirtual leaves 0x4000000x */
    bool hypervisor;
    uint32_t tsc_khz;
    char missing[512]; /* features that were asked for and that the engine cannot give */
};

/* Names of features, as QEMU writes them ("sse4.2", "x2apic"); generated index. */
bool cpu_model_has(const struct cpu_model *m, const char *feature);
/* @spec is -cpu's argument; @engine's name decides what can be given.  Caller frees. */
struct cpu_model *cpu_model_new(const char *spec, const char *engine,
                                const struct cpu_topology *topo, GError **error);
/* Family, model and stepping as in leaf 1's EAX. */
uint32_t cpu_signature(const struct cpu_model *m);
/* The name of model @i, NULL behind the last; its vendor, NULL if that is the host's. */
const char *cpu_model_name(unsigned i, const char **vendor);
/* What model @i wants and @engine cannot give, each name followed by a comma. */
void cpu_model_lacks(unsigned i, const char *engine, GString *out);
/* Every feature there is, by its first name. */
void cpu_model_each_feature(const struct cpu_model *m,
                            void (*each)(const char *name, bool on, void *data), void *data);
/* Text of `-cpu help`. */
void cpu_models_list(GString *out);
/* What CPUID shows to @cpu for leaf and subleaf. */
struct cpuid_regs cpu_cpuid(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf);
