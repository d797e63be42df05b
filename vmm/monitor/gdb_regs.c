/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/gdb.h"

#include "guest/cpu/models.h"

#include <string.h>

/*
 * gdb_regs - the registers that a debugger sees, as a table
 *
 * Spec: "Debugging with GDB", appendix "Target Descriptions", "i386 Features"; Intel SDM,
 * volume 1, "Managing State Using the XSAVE Feature Set": "Legacy Region of an XSAVE Area".
 *
 * The description follows the CPU model, not the mode of the moment, because a debugger asks
 * for it once: with long mode it is amd64's, else i386's.
 */
enum where { BOTH, ONLY64, ONLY32 };
enum special { PLAIN, SELECTOR, TAGS };

struct row {
    const char *name, *feature, *type;
    uint16_t bits;
    uint16_t slot, bytes; /* in struct regs */
    uint8_t where, special;
};

#define CORE "org.gnu.gdb.i386.core"
#define SSE "org.gnu.gdb.i386.sse"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define SYSTEM "org.lodge.i386.system"
#define R(field) offsetof(struct regs, field), sizeof(((struct regs *)0)->field)
#define X(at, bytes) offsetof(struct regs, xsave) + (at), bytes
#define G64(name, n, type) {name, CORE, type, 64, R(gpr[n]), ONLY64, PLAIN}
#define G32(name, n, type) {name, CORE, type, 32, offsetof(struct regs, gpr[n]), 4, ONLY32, PLAIN}
#define SEL(name, n) {name, CORE, "int32", 32, R(seg[n].selector), BOTH, SELECTOR}
#define ST(n) {"st" #n, CORE, "i387_ext", 80, X(32 + 16 * n, 10), BOTH, PLAIN}
#define CONTROL(name, at, bytes) {name, CORE, "int", 32, X(at, bytes), BOTH, PLAIN}
#define XMM(n, where) {"xmm" #n, SSE, "vec128", 128, X(160 + 16 * n, 16), where, PLAIN}
#define SYS(name, field) {name, SYSTEM, "int64", 64, R(field), BOTH, PLAIN}

static const struct row rows[] = {
    G64("rax", RAX, "int64"), G64("rbx", RBX, "int64"), G64("rcx", RCX, "int64"),
    G64("rdx", RDX, "int64"), G64("rsi", RSI, "int64"), G64("rdi", RDI, "int64"),
    G64("rbp", RBP, "data_ptr"), G64("rsp", RSP, "data_ptr"), G64("r8", R8, "int64"),
    G64("r9", R9, "int64"), G64("r10", R10, "int64"), G64("r11", R11, "int64"),
    G64("r12", R12, "int64"), G64("r13", R13, "int64"), G64("r14", R14, "int64"),
    G64("r15", R15, "int64"),
    {"rip", CORE, "code_ptr", 64, R(rip), ONLY64, PLAIN},
    G32("eax", RAX, "int32"), G32("ecx", RCX, "int32"), G32("edx", RDX, "int32"),
    G32("ebx", RBX, "int32"), G32("esp", RSP, "data_ptr"), G32("ebp", RBP, "data_ptr"),
    G32("esi", RSI, "int32"), G32("edi", RDI, "int32"),
    {"eip", CORE, "code_ptr", 32, offsetof(struct regs, rip), 4, ONLY32, PLAIN},
    {"eflags", CORE, "i386_eflags", 32, offsetof(struct regs, rflags), 4, BOTH, PLAIN},
    SEL("cs", SEG_CS), SEL("ss", SEG_SS), SEL("ds", SEG_DS), SEL("es", SEG_ES),
    SEL("fs", SEG_FS), SEL("gs", SEG_GS),
    ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
    CONTROL("fctrl", 0, 2), CONTROL("fstat", 2, 2),
    {"ftag", CORE, "int", 32, X(4, 1), BOTH, TAGS},
    CONTROL("fiseg", 12, 2), CONTROL("fioff", 8, 4), CONTROL("foseg", 20, 2),
    CONTROL("fooff", 16, 4), CONTROL("fop", 6, 2),
    XMM(0, BOTH), XMM(1, BOTH), XMM(2, BOTH), XMM(3, BOTH), XMM(4, BOTH), XMM(5, BOTH),
    XMM(6, BOTH), XMM(7, BOTH), XMM(8, ONLY64), XMM(9, ONLY64), XMM(10, ONLY64),
    XMM(11, ONLY64), XMM(12, ONLY64), XMM(13, ONLY64), XMM(14, ONLY64), XMM(15, ONLY64),
    {"mxcsr", SSE, "i386_mxcsr", 32, X(24, 4), BOTH, PLAIN},
    {"fs_base", SEGMENTS, "int64", 64, R(seg[SEG_FS].base), ONLY64, PLAIN},
    {"gs_base", SEGMENTS, "int64", 64, R(seg[SEG_GS].base), ONLY64, PLAIN},
    {"k_gs_base", SYSTEM, "int64", 64, R(kernel_gs_base), ONLY64, PLAIN},
    SYS("cr0", cr0), SYS("cr2", cr2), SYS("cr3", cr3), SYS("cr4", cr4), SYS("cr8", cr8),
    SYS("efer", efer),
};

static bool is_amd64(const struct vcpu *cpu)
{
    return cpu_model_has(cpu->model, "lm");
}

static bool shown(const struct row *r, bool amd64)
{
    return r->where == BOTH || (r->where == ONLY64) == amd64;
}

/* ---- description ---- */

static const char flag_types[] =
    "<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/>"
    "<field name=\"\" start=\"1\" end=\"1\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
    "<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
    "<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
    "<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
    "<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
    "<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
    "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
    "<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>";

static const char vector_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/></union>"
    "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/>"
    "<field name=\"DE\" start=\"1\" end=\"1\"/><field name=\"ZE\" start=\"2\" end=\"2\"/>"
    "<field name=\"OE\" start=\"3\" end=\"3\"/><field name=\"UE\" start=\"4\" end=\"4\"/>"
    "<field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/>"
    "<field name=\"IM\" start=\"7\" end=\"7\"/><field name=\"DM\" start=\"8\" end=\"8\"/>"
    "<field name=\"ZM\" start=\"9\" end=\"9\"/><field name=\"OM\" start=\"10\" end=\"10\"/>"
    "<field name=\"UM\" start=\"11\" end=\"11\"/><field name=\"PM\" start=\"12\" end=\"12\"/>"
    "<field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";

char *gdb_target_xml(const struct vcpu *cpu)
{
    bool amd64 = is_amd64(cpu);
    const char *feature = NULL;
    GString *out = g_string_new("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>");
    g_string_append_printf(out, "<architecture>%s</architecture>", amd64 ? "i386:x86-64" : "i386");
    for (unsigned i = 0, number = 0; i < G_N_ELEMENTS(rows); i++) {
        const struct row *r = &rows[i];
        if (!shown(r, amd64)) {
            continue;
        }
        if (!feature || !g_str_equal(feature, r->feature)) {
            g_string_append_printf(out, "%s<feature name=\"%s\">%s", feature ? "</feature>" : "", r->feature,
                                   g_str_equal(r->feature, CORE)  ? flag_types
                                   : g_str_equal(r->feature, SSE) ? vector_types
                                                                  : "");
            feature = r->feature;
        }
        g_string_append_printf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"/>", r->name,
                               r->bits, r->type, number++);
    }
    g_string_append(out, "</feature></target>");
    return g_string_free(out, FALSE);
}

/* ---- values ---- */

/* The tag word has two bits a register, of which XSAVE keeps whether it is empty. */
static uint16_t full_tags(uint8_t kept)
{
    uint16_t tags = 0;
    for (unsigned i = 0; i < 8; i++) {
        tags |= (uint16_t)((kept >> i & 1 ? 0 : 3) << (2 * i));
    }
    return tags;
}

static uint8_t kept_tags(uint16_t tags)
{
    uint8_t kept = 0;
    for (unsigned i = 0; i < 8; i++) {
        kept |= (uint8_t)(((tags >> (2 * i) & 3) != 3) << i);
    }
    return kept;
}

static size_t read_row(const struct vcpu *cpu, const struct row *r, uint8_t out[16])
{
    const uint8_t *from = (const uint8_t *)&cpu->r + r->slot;
    memset(out, 0, 16);
    if (r->special == TAGS) {
        uint16_t tags = full_tags(*from);
        memcpy(out, &tags, sizeof(tags));
    } else {
        memcpy(out, from, r->bytes);
    }
    return r->bits / 8;
}

/* A selector alone would part from its hidden register: segments are for looking at. */
static void write_row(struct vcpu *cpu, const struct row *r, const uint8_t *data)
{
    uint8_t *to = (uint8_t *)&cpu->r + r->slot;
    if (r->special == TAGS) {
        *to = kept_tags((uint16_t)(data[0] | data[1] << 8));
    } else if (r->special == PLAIN) {
        memcpy(to, data, r->bytes);
    }
    cpu->r.rflags |= 2;
}

static const struct row *row_at(const struct vcpu *cpu, unsigned n)
{
    bool amd64 = is_amd64(cpu);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (shown(&rows[i], amd64) && n-- == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

size_t gdb_reg_read(const struct vcpu *cpu, unsigned n, uint8_t out[16])
{
    const struct row *r = row_at(cpu, n);
    return r ? read_row(cpu, r, out) : 0;
}

bool gdb_reg_write(struct vcpu *cpu, unsigned n, const uint8_t *data, size_t bytes)
{
    const struct row *r = row_at(cpu, n);
    if (!r || bytes != r->bits / 8) {
        return false;
    }
    write_row(cpu, r, data);
    vcpu_loaded(cpu);
    return true;
}

size_t gdb_regs_read_all(const struct vcpu *cpu, uint8_t out[GDB_REGS_BYTES])
{
    uint8_t value[16];
    size_t n = 0, bytes;
    for (unsigned i = 0; (bytes = gdb_reg_read(cpu, i, value)) > 0; i++) {
        memcpy(out + n, value, bytes);
        n += bytes;
    }
    return n;
}

bool gdb_regs_write_all(struct vcpu *cpu, const uint8_t *data, size_t n)
{
    const struct row *r;
    size_t at = 0;
    for (unsigned i = 0; (r = row_at(cpu, i)) && n - at >= r->bits / 8; i++) {
        write_row(cpu, r, data + at);
        at += r->bits / 8;
    }
    vcpu_loaded(cpu);
    return at == n;
}
