/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * models: the table of CPU models and the parser of -cpu.  What CPUID makes of a model
 * stands in cpuid.c.
 */
#include "guest/cpu/models.h"

#include "guest/cpu/engine.h"

#include "guest/cpu/decode/insn.h"
#include "guest/time/clock.h"

#include <cpuid.h>
#include <glib.h>
#include <string.h>

struct feature {
    uint8_t word, bit; /* word: enum cpuid_word */
    const char *names; /* comma-separated */
};

static const struct feature features[FEAT_COUNT] = {
    {0, 0, ""},
#define FEATURE(symbol, word, bit, names) {CPUID_##word, bit, names},
#include "guest/cpu/features.def"
#undef FEATURE
};

/* ---- the table ---- */

#define F_PENTIUM3 "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx " \
                   "fxsr sse"
#define F_64 "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx "    \
             "fxsr sse sse2 pni syscall nx lm"
#define F_V2 F_64 " vme cx16 lahf-lm popcnt ssse3 sse4.1 sse4.2"
#define F_WESTMERE F_V2 " pclmulqdq aes"
#define F_SANDY F_WESTMERE " avx xsave x2apic tsc-deadline rdtscp xsaveopt"
#define F_IVY F_SANDY " f16c rdrand fsgsbase smep erms"
#define F_HASWELL F_IVY " fma movbe pcid invpcid abm bmi1 bmi2 avx2"
#define F_BROADWELL F_HASWELL " adx rdseed smap 3dnowprefetch"
#define F_SKYLAKE F_BROADWELL " xsavec xgetbv1"
#define F_SKYLAKE_SERVER F_SKYLAKE " clwb pdpe1gb avx512f avx512dq avx512bw avx512cd avx512vl"
#define F_ICELAKE F_SKYLAKE_SERVER " gfni vaes vpclmulqdq umip rdpid avx512vnni avx512vbmi " \
                                   "avx512vbmi2 avx512bitalg avx512-vpopcntdq clflushopt " \
                                   "wbnoinvd"
#define F_EPYC F_V2 " pclmulqdq aes avx xsave rdtscp xsaveopt f16c rdrand fsgsbase smep fma "       \
               "movbe abm bmi1 bmi2 avx2 adx rdseed smap 3dnowprefetch mmxext fxsr-opt pdpe1gb "         \
               "cr8legacy sse4a misalignsse osvw topoext xsavec xgetbv1 sha-ni clflushopt arat"
#define F_EPYC_ROME F_EPYC " clwb umip rdpid clzero xsaveerptr wbnoinvd"
#define F_EPYC_MILAN F_EPYC_ROME " invpcid pcid fsrm erms vaes vpclmulqdq"

#define F_COREDUO "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx " \
                  "fxsr sse sse2 pni nx"
#define F_DENVERTON F_WESTMERE " movbe xsave rdrand fsgsbase smep erms rdseed smap clflushopt "      \
                               "sha-ni pdpe1gb rdtscp 3dnowprefetch xsaveopt xsavec xgetbv1"
#define F_SNOWRIDGE F_DENVERTON " clwb umip gfni"

struct row {
    const char *name, *vendor;
    uint16_t family, model, stepping;
    const char *features; /* NULL: what the engine gives */
    const char *brand;
};

#define INTEL "GenuineIntel"
#define AMD "AuthenticAMD"
#define HYGON "HygonGenuine"
static const struct row rows[] = {
    {"max", NULL, 0, 0, 0, NULL, "Lodge virtual CPU"},
    {"host", NULL, 0, 0, 0, NULL, NULL},
    {"qemu64", AMD, 15, 107, 1, F_64 " cx16 lahf-lm", "QEMU Virtual CPU version 2.5+"},
    {"qemu32", INTEL, 6, 6, 3, F_PENTIUM3 " sse2 pni", "QEMU Virtual CPU version 2.5+"},
    {"kvm64", INTEL, 15, 6, 1, F_64 " cx16", "Common KVM processor"},
    {"kvm32", INTEL, 15, 6, 1, F_PENTIUM3 " clflush sse2 pni", "Common 32-bit KVM processor"},
    {"486", INTEL, 4, 8, 0, "fpu vme pse", ""},
    {"pentium", INTEL, 5, 4, 3, "fpu vme de pse tsc msr mce cx8 mmx", ""},
    {"pentium2", INTEL, 6, 5, 2,
     "fpu vme de pse tsc msr pae mce cx8 sep mtrr pge mca cmov pat pse36 mmx fxsr", ""},
    {"pentium3", INTEL, 6, 7, 3, F_PENTIUM3, ""},
    {"Conroe", INTEL, 6, 15, 3, F_64 " vme lahf-lm ssse3",
     "Intel Celeron_4x0 (Conroe/Merom Class Core 2)"},
    {"Penryn", INTEL, 6, 23, 3, F_64 " vme cx16 lahf-lm ssse3 sse4.1",
     "Intel Core 2 Duo P9xxx (Penryn Class Core 2)"},
    {"Nehalem", INTEL, 6, 26, 3, F_V2, "Intel Core i7 9xx (Nehalem Class Core i7)"},
    {"Westmere", INTEL, 6, 44, 1, F_WESTMERE, "Westmere E56xx/L56xx/X56xx (Nehalem-C)"},
    {"SandyBridge", INTEL, 6, 42, 1, F_SANDY, "Intel Xeon E312xx (Sandy Bridge)"},
    {"IvyBridge", INTEL, 6, 58, 9, F_IVY, "Intel Xeon E3-12xx v2 (Ivy Bridge)"},
    {"Haswell", INTEL, 6, 60, 4, F_HASWELL, "Intel Core Processor (Haswell)"},
    {"Broadwell", INTEL, 6, 61, 2, F_BROADWELL, "Intel Core Processor (Broadwell)"},
    {"Skylake-Client", INTEL, 6, 94, 3, F_SKYLAKE, "Intel Core Processor (Skylake)"},
    {"Skylake-Server", INTEL, 6, 85, 4, F_SKYLAKE_SERVER, "Intel Xeon Processor (Skylake)"},
    {"Cascadelake-Server", INTEL, 6, 85, 6, F_SKYLAKE_SERVER " avx512vnni",
     "Intel Xeon Processor (Cascadelake)"},
    {"Icelake-Server", INTEL, 6, 134, 0, F_ICELAKE, "Intel Xeon Processor (Icelake)"},
    {"Opteron_G3", AMD, 16, 2, 3, F_64 " cx16 lahf-lm popcnt abm sse4a misalignsse rdtscp monitor",
     "AMD Opteron 23xx (Gen 3 Class Opteron)"},
    {"EPYC", AMD, 23, 1, 2, F_EPYC, "AMD EPYC Processor"},
    {"EPYC-Rome", AMD, 23, 49, 0, F_EPYC_ROME, "AMD EPYC-Rome Processor"},
    {"EPYC-Milan", AMD, 25, 1, 1, F_EPYC_MILAN, "AMD EPYC-Milan Processor"},
    {"EPYC-Genoa", AMD, 25, 17, 0, F_EPYC_MILAN " gfni avx512f avx512dq avx512bw avx512cd avx512vl",
     "AMD EPYC-Genoa Processor"},
    {"athlon", AMD, 6, 2, 3, F_PENTIUM3 " sse2 mmxext 3dnowext 3dnow",
     "QEMU Virtual CPU version 2.5+"},
    {"Broadwell-IBRS", INTEL, 6, 61, 2, F_BROADWELL, "Intel Core Processor (Broadwell, IBRS)"},
    {"Broadwell-noTSX", INTEL, 6, 61, 2, F_BROADWELL, "Intel Core Processor (Broadwell, no TSX)"},
    {"Broadwell-noTSX-IBRS", INTEL, 6, 61, 2, F_BROADWELL,
     "Intel Core Processor (Broadwell, no TSX, IBRS)"},
    {"Cascadelake-Server-noTSX", INTEL, 6, 85, 6, F_SKYLAKE_SERVER " avx512vnni",
     "Intel Xeon Processor (Cascadelake)"},
    {"Cooperlake", INTEL, 6, 85, 10, F_SKYLAKE_SERVER " clflushopt avx512vnni avx512-bf16",
     "Intel Xeon Processor (Cooperlake)"},
    {"core2duo", INTEL, 6, 15, 11, F_64 " vme ssse3 cx16 lahf-lm",
     "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz"},
    {"coreduo", INTEL, 6, 14, 8, F_COREDUO, "Genuine Intel(R) CPU           T2600  @ 2.16GHz"},
    {"Denverton", INTEL, 6, 95, 1, F_DENVERTON, "Intel Atom Processor (Denverton)"},
    {"Dhyana", HYGON, 24, 0, 1,
     F_V2 " fma movbe xsave avx f16c rdrand fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap "
     "clflushopt mmxext fxsr-opt pdpe1gb rdtscp cr8legacy abm sse4a misalignsse "
     "3dnowprefetch osvw topoext xsaveopt xsavec xgetbv1",
     "Hygon Dhyana Processor"},
    {"EPYC-IBPB", AMD, 23, 1, 2, F_EPYC, "AMD EPYC Processor (with IBPB)"},
    {"Haswell-IBRS", INTEL, 6, 60, 4, F_HASWELL, "Intel Core Processor (Haswell, IBRS)"},
    {"Haswell-noTSX", INTEL, 6, 60, 1, F_HASWELL, "Intel Core Processor (Haswell, no TSX)"},
    {"Haswell-noTSX-IBRS", INTEL, 6, 60, 1, F_HASWELL,
     "Intel Core Processor (Haswell, no TSX, IBRS)"},
    {"Icelake-Server-noTSX", INTEL, 6, 134, 0, F_ICELAKE, "Intel Xeon Processor (Icelake)"},
    {"IvyBridge-IBRS", INTEL, 6, 58, 9, F_IVY, "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)"},
    {"KnightsMill", INTEL, 6, 133, 0,
     F_IVY " fma movbe bmi1 avx2 bmi2 avx512f rdseed adx avx512cd avx512-vpopcntdq pdpe1gb "
     "abm 3dnowprefetch",
     "Intel Xeon Phi Processor (Knights Mill)"},
    {"n270", INTEL, 6, 28, 2, F_COREDUO " ssse3 movbe lahf-lm",
     "Intel(R) Atom(TM) CPU N270   @ 1.60GHz"},
    {"Nehalem-IBRS", INTEL, 6, 26, 3, F_V2, "Intel Core i7 9xx (Nehalem Core i7, IBRS update)"},
    {"Opteron_G1", AMD, 15, 6, 1, F_64 " vme", "AMD Opteron 240 (Gen 1 Class Opteron)"},
    {"Opteron_G2", AMD, 15, 6, 1, F_64 " vme cx16 lahf-lm",
     "AMD Opteron 22xx (Gen 2 Class Opteron)"},
    {"Opteron_G4", AMD, 21, 1, 2,
     F_WESTMERE " xsave avx pdpe1gb rdtscp abm sse4a misalignsse 3dnowprefetch xop fma4",
     "AMD Opteron 62xx class CPU"},
    {"Opteron_G5", AMD, 21, 2, 0,
     F_WESTMERE " fma xsave avx f16c pdpe1gb rdtscp abm sse4a misalignsse 3dnowprefetch xop fma4 "
     "tbm",
     "AMD Opteron 63xx class CPU"},
    {"phenom", AMD, 16, 2, 3,
     F_64 " vme cx16 popcnt mmxext fxsr-opt pdpe1gb rdtscp 3dnowext 3dnow lahf-lm abm sse4a",
     "AMD Phenom(tm) 9550 Quad-Core Processor"},
    {"SandyBridge-IBRS", INTEL, 6, 42, 1, F_SANDY, "Intel Xeon E312xx (Sandy Bridge, IBRS update)"},
    {"Skylake-Client-IBRS", INTEL, 6, 94, 3, F_SKYLAKE, "Intel Core Processor (Skylake, IBRS)"},
    {"Skylake-Client-noTSX-IBRS", INTEL, 6, 94, 3, F_SKYLAKE,
     "Intel Core Processor (Skylake, IBRS, no TSX)"},
    {"Skylake-Server-IBRS", INTEL, 6, 85, 4, F_SKYLAKE_SERVER,
     "Intel Xeon Processor (Skylake, IBRS)"},
    {"Skylake-Server-noTSX-IBRS", INTEL, 6, 85, 4, F_SKYLAKE_SERVER,
     "Intel Xeon Processor (Skylake, IBRS, no TSX)"},
    {"Snowridge", INTEL, 6, 134, 1, F_SNOWRIDGE, "Intel Atom Processor (SnowRidge)"},
    {"Westmere-IBRS", INTEL, 6, 44, 1, F_WESTMERE, "Westmere E56xx/L56xx/X56xx (IBRS update)"},
    {"EPYC-v3", AMD, 23, 1, 2, F_EPYC " clzero xsaveerptr", "AMD EPYC Processor"},
    {"Icelake-Server-v4", INTEL, 6, 106, 0, F_ICELAKE " avx512ifma sha-ni fsrm",
     "Intel Xeon Processor (Icelake)"},
    {"Snowridge-v2", INTEL, 6, 134, 1, F_SNOWRIDGE, "Intel Atom Processor (Snowridge, no MPX)"},
    {"SapphireRapids", INTEL, 6, 143, 4,
     F_ICELAKE " avx512ifma sha-ni fsrm serialize avx512-fp16 avx-vnni avx512-bf16 fzrm fsrs fsrc",
     "Intel Xeon Processor (SapphireRapids)"},
};

/* What differs in nothing that an engine gives, by number: another name. */
static const char *const versions[][2] = {
    {"486-v1", "486"}, {"athlon-v1", "athlon"}, {"Broadwell-v1", "Broadwell"},
    {"Broadwell-v2", "Broadwell-noTSX"}, {"Broadwell-v3", "Broadwell-IBRS"},
    {"Broadwell-v4", "Broadwell-noTSX-IBRS"}, {"Cascadelake-Server-v1", "Cascadelake-Server"},
    {"Cascadelake-Server-v2", "Cascadelake-Server"},
    {"Cascadelake-Server-v3", "Cascadelake-Server"},
    {"Cascadelake-Server-v4", "Cascadelake-Server"},
    {"Cascadelake-Server-v5", "Cascadelake-Server"}, {"Conroe-v1", "Conroe"},
    {"Cooperlake-v1", "Cooperlake"}, {"Cooperlake-v2", "Cooperlake"}, {"core2duo-v1", "core2duo"},
    {"coreduo-v1", "coreduo"}, {"Denverton-v1", "Denverton"}, {"Denverton-v2", "Denverton"},
    {"Denverton-v3", "Denverton"}, {"Dhyana-v1", "Dhyana"}, {"Dhyana-v2", "Dhyana"},
    {"EPYC-Genoa-v1", "EPYC-Genoa"}, {"EPYC-Milan-v1", "EPYC-Milan"},
    {"EPYC-Milan-v2", "EPYC-Milan"}, {"EPYC-Rome-v1", "EPYC-Rome"}, {"EPYC-Rome-v2", "EPYC-Rome"},
    {"EPYC-Rome-v3", "EPYC-Rome"}, {"EPYC-Rome-v4", "EPYC-Rome"}, {"EPYC-v1", "EPYC"},
    {"EPYC-v2", "EPYC-IBPB"}, {"EPYC-v4", "EPYC-v3"}, {"Haswell-v1", "Haswell"},
    {"Haswell-v2", "Haswell-noTSX"}, {"Haswell-v3", "Haswell-IBRS"},
    {"Haswell-v4", "Haswell-noTSX-IBRS"}, {"Icelake-Server-v1", "Icelake-Server"},
    {"Icelake-Server-v2", "Icelake-Server"}, {"Icelake-Server-v3", "Icelake-Server"},
    {"Icelake-Server-v5", "Icelake-Server-v4"}, {"Icelake-Server-v6", "Icelake-Server-v4"},
    {"IvyBridge-v1", "IvyBridge"}, {"IvyBridge-v2", "IvyBridge-IBRS"},
    {"KnightsMill-v1", "KnightsMill"}, {"kvm32-v1", "kvm32"}, {"kvm64-v1", "kvm64"},
    {"n270-v1", "n270"}, {"Nehalem-v1", "Nehalem"}, {"Nehalem-v2", "Nehalem-IBRS"},
    {"Opteron_G1-v1", "Opteron_G1"}, {"Opteron_G2-v1", "Opteron_G2"},
    {"Opteron_G3-v1", "Opteron_G3"}, {"Opteron_G4-v1", "Opteron_G4"},
    {"Opteron_G5-v1", "Opteron_G5"}, {"Penryn-v1", "Penryn"}, {"pentium-v1", "pentium"},
    {"pentium2-v1", "pentium2"}, {"pentium3-v1", "pentium3"}, {"phenom-v1", "phenom"},
    {"qemu32-v1", "qemu32"}, {"qemu64-v1", "qemu64"}, {"SandyBridge-v1", "SandyBridge"},
    {"SandyBridge-v2", "SandyBridge-IBRS"}, {"SapphireRapids-v1", "SapphireRapids"},
    {"SapphireRapids-v2", "SapphireRapids"}, {"Skylake-Client-v1", "Skylake-Client"},
    {"Skylake-Client-v2", "Skylake-Client-IBRS"},
    {"Skylake-Client-v3", "Skylake-Client-noTSX-IBRS"},
    {"Skylake-Client-v4", "Skylake-Client-noTSX-IBRS"}, {"Skylake-Server-v1", "Skylake-Server"},
    {"Skylake-Server-v2", "Skylake-Server-IBRS"},
    {"Skylake-Server-v3", "Skylake-Server-noTSX-IBRS"},
    {"Skylake-Server-v4", "Skylake-Server-noTSX-IBRS"},
    {"Skylake-Server-v5", "Skylake-Server-noTSX-IBRS"}, {"Snowridge-v1", "Snowridge"},
    {"Snowridge-v3", "Snowridge-v2"}, {"Snowridge-v4", "Snowridge-v2"}, {"Westmere-v1", "Westmere"},
    {"Westmere-v2", "Westmere-IBRS"},
};

/* Given by interp and bt whatever the host is: they are ours to virtualise. */
static const char own_features[] =
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "
    "sse2 pni ht cx16 x2apic tsc-deadline hypervisor popcnt fsgsbase tsc-adjust smep erms smap "
    "umip fsrm spec-ctrl arch-capabilities syscall nx pdpe1gb rdtscp lm lahf-lm invtsc "
    "arat kvmclock kvm-nopiodelay kvmclock-stable-bit kvm-steal-time kvm-pv-eoi kvm-pv-tlb-flush "
    "kvm-pv-ipi "
    /* No speculation, so nothing that leaks by it and nothing to pay for against it. */
    "lfence-always-serializing null-sel-clr-base srso-no tsa-sq-no tsa-l1-no";
/* Given if the host has them: executed by its own instructions. */
static const char host_features[] =
    "pclmulqdq ssse3 fma sse4.1 sse4.2 movbe aes xsave avx f16c rdrand bmi1 avx2 bmi2 rdseed adx "
    "clflushopt clwb sha-ni gfni vaes vpclmulqdq rdpid avx-vnni mmxext abm sse4a misalignsse "
    "3dnowprefetch xsaveopt xsaveerptr fsrs fsrc fzrm cr8legacy topoext";
/* Shown only if asked for: of no use, or a cost, to most guests. */
static const char shy_features[] = "ht";

/* ---- features by name ---- */

static bool same_name(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((a[i] == '_' ? '-' : a[i]) != (b[i] == '_' ? '-' : b[i])) {
            return false;
        }
    }
    return true;
}

static unsigned feature_find(const char *name, size_t n)
{
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        for (const char *at = features[f].names; at;) {
            const char *end = strchrnul(at, ',');
            if ((size_t)(end - at) == n && same_name(name, at, n)) {
                return f;
            }
            at = *end ? end + 1 : NULL;
        }
    }
    return FEAT_NONE;
}

static bool word_has(const uint32_t *words, unsigned f)
{
    return words[features[f].word] >> features[f].bit & 1;
}

static void word_set(uint32_t *words, unsigned f, bool on)
{
    uint32_t bit = UINT32_C(1) << features[f].bit;
    words[features[f].word] = on ? words[features[f].word] | bit : words[features[f].word] & ~bit;
}

static void add_names(uint32_t *words, const char *names)
{
    for (const char *at = names; *at;) {
        size_t n = strcspn(at, " ");
        unsigned f = feature_find(at, n);
        g_assert(f); /* a name in our own tables */
        word_set(words, f, true);
        at += n + (at[n] != '\0');
    }
}

bool cpu_model_has(const struct cpu_model *m, const char *feature)
{
    unsigned f = feature_find(feature, strlen(feature));
    return f && m->offers[f];
}

static void feature_name(unsigned f, char out[32])
{
    g_strlcpy(out, features[f].names, MIN(32, strcspn(features[f].names, ",") + 1));
}

/* ---- the host ---- */

struct leaf_of_word {
    uint32_t leaf, subleaf;
    uint8_t reg; /* 0 to 3: eax ebx ecx edx */
};
static const struct leaf_of_word leaf_of_word[CPUID_WORDS] = {
    [CPUID_1_EDX] = {1, 0, 3},           [CPUID_1_ECX] = {1, 0, 2},
    [CPUID_7_0_EBX] = {7, 0, 1},         [CPUID_7_0_ECX] = {7, 0, 2},
    [CPUID_7_0_EDX] = {7, 0, 3},         [CPUID_7_1_EAX] = {7, 1, 0},
    [CPUID_8000_0001_EDX] = {0x80000001, 0, 3}, [CPUID_8000_0001_ECX] = {0x80000001, 0, 2},
    [CPUID_8000_0007_EDX] = {0x80000007, 0, 3}, [CPUID_8000_0008_EBX] = {0x80000008, 0, 1},
    [CPUID_8000_0021_EAX] = {0x80000021, 0, 0}, [CPUID_8000_0021_ECX] = {0x80000021, 0, 2},
    [CPUID_D_1_EAX] = {0xd, 1, 0},       [CPUID_6_EAX] = {6, 0, 0},
    [CPUID_KVM_EAX] = {0x40000001, 0, 0},
};

void cpuid_word_at(enum cpuid_word word, uint32_t *leaf, uint32_t *subleaf, unsigned *reg)
{
    *leaf = leaf_of_word[word].leaf;
    *subleaf = leaf_of_word[word].subleaf;
    *reg = leaf_of_word[word].reg;
}

static void host_words(uint32_t *words)
{
    for (unsigned w = 0; w < CPUID_WORDS; w++) {
        uint32_t r[4] = {0};
        if (w != CPUID_KVM_EAX) {
            __get_cpuid_count(leaf_of_word[w].leaf, leaf_of_word[w].subleaf, &r[0], &r[1], &r[2],
                              &r[3]);
        }
        words[w] = r[leaf_of_word[w].reg];
    }
}

static unsigned host_phys_bits(void)
{
    uint32_t a = 0, b, c, d;
    __get_cpuid(0x80000008, &a, &b, &c, &d);
    return a & 0xff ? a & 0xff : 36;
}

/* What @engine can give. */
static void engine_words(const char *engine, uint32_t *words)
{
    uint32_t host[CPUID_WORDS], may[CPUID_WORDS] = {0};
    host_words(host);
    const struct cpu_engine *e = cpu_engine_find(engine);
    if (e && e->features && e->features(words)) {
        return;
    }
    add_names(may, host_features);
    memset(words, 0, CPUID_WORDS * sizeof(*words));
    add_names(words, own_features);
    for (unsigned w = 0; w < CPUID_WORDS; w++) {
        words[w] |= may[w] & host[w];
    }
}

static void host_identity(struct cpu_model *m)
{
    uint32_t a = 0, r[4] = {0};
    __get_cpuid(0, &a, &r[0], &r[2], &r[1]);
    memcpy(m->vendor, r, 12);
    __get_cpuid(1, &a, &r[0], &r[1], &r[2]);
    uint32_t family = a >> 8 & 15;
    m->family = family == 15 ? family + (a >> 20 & 0xff) : family;
    m->model = (a >> 4 & 15) | (a >> 16 & 15) << 4;
    m->stepping = a & 15;
    for (uint32_t i = 0; i < 3; i++) {
        __get_cpuid(0x80000002 + i, &r[0], &r[1], &r[2], &r[3]);
        memcpy(m->brand + i * 16, r, 16);
    }
}

/* ---- -cpu ---- */

struct request {
    uint32_t on[CPUID_WORDS], off[CPUID_WORDS];
    bool enforce, kvm_off, no_l3;
    unsigned phys_bits;
};

static bool parse_bool(const char *key, const char *value, bool *out, GError **error)
{
    if (g_str_equal(value, "on") || g_str_equal(value, "yes") || g_str_equal(value, "true")) {
        *out = true;
    } else if (g_str_equal(value, "off") || g_str_equal(value, "no") ||
               g_str_equal(value, "false")) {
        *out = false;
    } else {
        g_set_error(error, LODGE_ERROR, EINVAL, "-cpu: %s=%s: expected on or off", key, value);
        return false;
    }
    return true;
}

static bool request_feature(struct request *q, const char *name, bool on, GError **error)
{
    unsigned f = feature_find(name, strlen(name));
    if (!f) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-cpu: there is no feature \"%s\"", name);
        return false;
    }
    word_set(on ? q->on : q->off, f, true);
    word_set(on ? q->off : q->on, f, false);
    return true;
}

static bool request_key(struct request *q, const char *key, const char *value, GError **error)
{
    bool on = true;
    if (g_str_equal(key, "phys-bits")) {
        guint64 bits;
        if (!g_ascii_string_to_unsigned(value, 10, 32, 52, &bits, NULL)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "-cpu: phys-bits=%s: expected 32 to 52", value);
            return false;
        }
        q->phys_bits = (unsigned)bits;
        return true;
    }
    if (!parse_bool(key, value, &on, error)) {
        return false;
    }
    if (g_str_equal(key, "host-phys-bits")) {
        q->phys_bits = on ? host_phys_bits() : q->phys_bits;
    } else if (g_str_equal(key, "enforce")) {
        q->enforce = on;
    } else if (g_str_equal(key, "kvm")) {
        q->kvm_off = !on;
    } else if (g_str_equal(key, "l3-cache")) {
        q->no_l3 = !on;
    } else if (g_str_equal(key, "check") || g_str_equal(key, "migratable")) {
        return true; /* what they say is how it is, or makes no difference here */
    } else {
        return request_feature(q, key, on, error);
    }
    return true;
}

static bool parse_part(struct request *q, const char *part, GError **error)
{
    if (*part == '+' || *part == '-') {
        return request_feature(q, part + 1, *part == '+', error);
    }
    const char *eq = strchr(part, '=');
    if (!eq) {
        return request_key(q, part, "on", error);
    }
    g_autofree char *key = g_strndup(part, (gsize)(eq - part));
    return request_key(q, key, eq + 1, error);
}

static const struct row *row_find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(versions); i++) {
        name = g_ascii_strcasecmp(versions[i][0], name) ? name : versions[i][1];
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (!g_ascii_strcasecmp(rows[i].name, name)) {
            return &rows[i];
        }
    }
    return NULL;
}

static void take_row(struct cpu_model *m, const struct row *row, const uint32_t *can)
{
    m->name = row->name;
    if (!row->features) {
        uint32_t shy[CPUID_WORDS] = {0};
        host_identity(m);
        add_names(shy, shy_features);
        for (unsigned w = 0; w < CPUID_WORDS; w++) {
            m->words[w] = can[w] & ~shy[w];
        }
    } else {
        memcpy(m->vendor, row->vendor, 12);
        m->family = row->family;
        m->model = row->model;
        m->stepping = row->stepping;
        add_names(m->words, row->features);
        add_names(m->words, "hypervisor x2apic tsc-deadline tsc-adjust arat kvmclock "
                            "kvm-nopiodelay kvmclock-stable-bit kvm-steal-time kvm-pv-eoi "
                            "kvm-pv-tlb-flush kvm-pv-ipi spec-ctrl arch-capabilities "
                            "lfence-always-serializing null-sel-clr-base srso-no tsa-sq-no "
                            "tsa-l1-no");
    }
    if (row->brand) {
        memset(m->brand, 0, sizeof(m->brand));
        g_strlcpy(m->brand, row->brand, sizeof(m->brand));
    }
}

static bool apply(struct cpu_model *m, const struct request *q, const uint32_t *can,
                  GError **error)
{
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        bool on = (word_has(m->words, f) || word_has(q->on, f)) && !word_has(q->off, f);
        if (on && !word_has(can, f)) {
            char name[32];
            feature_name(f, name);
            g_strlcat(m->missing, m->missing[0] ? "," : "", sizeof(m->missing));
            g_strlcat(m->missing, name, sizeof(m->missing));
            on = false;
        }
        word_set(m->words, f, on);
    }
    if (m->missing[0] && q->enforce) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "-cpu %s,enforce: this host lacks %s", m->name,
                    m->missing);
        return false;
    }
    return true;
}

static void derive(struct cpu_model *m, const struct request *q)
{
    static const struct {
        uint8_t feature, needs;
    } needs[] = {{FEAT_AVX, FEAT_XSAVE}, {FEAT_AVX2, FEAT_AVX}, {FEAT_FMA, FEAT_AVX},
                 {FEAT_F16C, FEAT_AVX}, {FEAT_VAES, FEAT_AVX}, {FEAT_VPCLMULQDQ, FEAT_AVX},
                 {FEAT_AVX_VNNI, FEAT_AVX2}, {FEAT_XSAVEOPT, FEAT_XSAVE}, {FEAT_XSAVEC, FEAT_XSAVE},
                 {FEAT_XGETBV1, FEAT_XSAVE}, {FEAT_XSAVES, FEAT_XSAVE}};
    for (unsigned i = 0; i < G_N_ELEMENTS(needs); i++) {
        if (!word_has(m->words, needs[i].needs)) {
            word_set(m->words, needs[i].feature, false);
        }
    }
    if (m->topology.threads * m->topology.cores > 1) {
        word_set(m->words, FEAT_HT, true);
    }
    m->hypervisor = word_has(m->words, FEAT_HYPERVISOR);
    m->kvm_pv = m->hypervisor && !q->kvm_off;
    m->no_l3 = q->no_l3;
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        m->offers[f] = word_has(m->words, f);
    }
    m->offers[FEAT_NONE] = 1;
    m->insn_offers[FEATURE_NONE] = 1;
    for (unsigned f = FEATURE_NONE + 1; f < FEATURE_COUNT; f++) {
        m->insn_offers[f] = cpu_model_has(m, cpu_feature_names[f]);
    }
    m->xcr0_mask = m->offers[FEAT_AVX] ? 7 : 3;
    if (m->offers[FEAT_AVX512F]) {
        m->xcr0_mask |= 0xe0;
    }
    /* As QEMU has it: OVMF maps all that there could be, with more bits in more memory than a
     * small machine has. */
    unsigned bits = m->offers[FEAT_LM] ? MIN(host_phys_bits(), 40) : 36;
    m->phys_bits = q->phys_bits ? q->phys_bits : bits;
    m->tsc_khz = (uint32_t)(tsc_hz() / 1000);
}

struct cpu_model *cpu_model_new(const char *spec, const char *engine,
                                const struct cpu_topology *topo, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(spec && *spec ? spec : "max", ",", -1);
    struct request q = {.enforce = false};
    uint32_t can[CPUID_WORDS];
    const struct row *row = row_find(parts[0]);
    if (!row) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "there is no CPU model \"%s\"; -cpu help lists them", parts[0]);
        return NULL;
    }
    for (unsigned i = 1; parts[i]; i++) {
        if (!parse_part(&q, parts[i], error)) {
            return NULL;
        }
    }
    g_autofree struct cpu_model *m = g_new0(struct cpu_model, 1);
    m->topology = topo ? *topo : (struct cpu_topology){1, 1, 1, 1};
    engine_words(engine, can);
    take_row(m, row, can);
    if (!apply(m, &q, can, error)) {
        return NULL;
    }
    derive(m, &q);
    return g_steal_pointer(&m);
}

/* Model @i: first the rows, then their other names. */
static const char *name_at(unsigned i)
{
    return i < G_N_ELEMENTS(rows) ? rows[i].name : versions[i - G_N_ELEMENTS(rows)][0];
}

const char *cpu_model_name(unsigned i, const char **vendor)
{
    if (i >= G_N_ELEMENTS(rows) + G_N_ELEMENTS(versions)) {
        return NULL;
    }
    const struct row *row = row_find(name_at(i));
    *vendor = row->features ? row->vendor : NULL;
    return name_at(i);
}

void cpu_model_lacks(unsigned i, const char *engine, GString *out)
{
    uint32_t can[CPUID_WORDS], wants[CPUID_WORDS] = {0};
    const struct row *row = row_find(name_at(i));
    engine_words(engine, can);
    add_names(wants, row->features ? row->features : "");
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        char name[32];
        if (word_has(wants, f) && !word_has(can, f)) {
            feature_name(f, name);
            g_string_append_printf(out, "%s,", name);
        }
    }
}

void cpu_model_each_feature(const struct cpu_model *m,
                            void (*each)(const char *name, bool on, void *data), void *data)
{
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        char name[32];
        feature_name(f, name);
        each(name, m->offers[f], data);
    }
}

void cpu_models_list(GString *out)
{
    g_string_append(out, "Available CPUs:\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const struct row *r = &rows[i];
        g_string_append_printf(out, "  %-20s %s\n", r->name,
                               !r->features ? "all features that the host and the engine can give"
                                            : r->brand);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(versions); i++) {
        g_string_append_printf(out, "  %-20s (alias of %s)\n", versions[i][0], versions[i][1]);
    }
    g_string_append(out, "\nRecognized CPUID flags:\n ");
    size_t column = 1;
    for (unsigned f = 1; f < FEAT_COUNT; f++) {
        char name[32];
        feature_name(f, name);
        if (column + strlen(name) + 1 > 78) {
            g_string_append(out, "\n ");
            column = 1;
        }
        g_string_append_printf(out, " %s", name);
        column += strlen(name) + 1;
    }
    g_string_append_c(out, '\n');
}
