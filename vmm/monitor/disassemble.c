/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/disassemble.h"

#include "base/error.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <string.h>

/* Zydis is opened at first use: few machines are ever disassembled. */
#define ZYDIS_FUNCTIONS(F)                                                                         \
    F(ZydisDecoderInit) F(ZydisDecoderDecodeFull) F(ZydisFormatterInit)                            \
    F(ZydisFormatterFormatInstruction)
static struct {
#define F(name) __typeof__(name) *name;
    ZYDIS_FUNCTIONS(F)
#undef F
} lib;

static bool open_library(GError **error)
{
    static const struct {
        const char *name;
        void **slot;
    } rows[] = {
#define F(name) {#name, (void **)(void *)&lib.name},
        ZYDIS_FUNCTIONS(F)
#undef F
    };
    if (lib.ZydisDecoderInit) {
        return true;
    }
    void *so = dlopen("libZydis.so.4.0", RTLD_NOW | RTLD_LOCAL);
    for (unsigned i = 0; so && i < G_N_ELEMENTS(rows); i++) {
        *rows[i].slot = dlsym(so, rows[i].name);
        so = *rows[i].slot ? so : NULL;
    }
    if (!so) {
        g_set_error(error, LODGE_ERROR, ENOENT, "the disassembler needs libzydis: %s", dlerror());
        memset(&lib, 0, sizeof(lib));
    }
    return so != NULL;
}

unsigned disassemble(const uint8_t *code, unsigned n, unsigned code_bytes, uint64_t pc,
                     GString *out, GError **error)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth width;
    } modes[] = {[2] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
                 [4] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
                 [8] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64}};
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    char text[128];
    if (!open_library(error)) {
        return 0;
    }
    lib.ZydisDecoderInit(&decoder, modes[code_bytes].mode, modes[code_bytes].width);
    lib.ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
    if (!ZYAN_SUCCESS(lib.ZydisDecoderDecodeFull(&decoder, code, n, &insn, operand)) ||
        !ZYAN_SUCCESS(lib.ZydisFormatterFormatInstruction(
            &formatter, &insn, operand, insn.operand_count_visible, text, sizeof(text), pc, NULL))) {
        g_string_append_printf(out, ".byte 0x%02x", code[0]);
        return 1;
    }
    g_string_append(out, text);
    return insn.length;
}
