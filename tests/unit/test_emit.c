/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host instructions: what is written is what the GNU assembler makes of the text. */
#include "tests/unit/test.h"

#include "guest/cpu/translate/emit_x64.h"

#include <stdio.h>
#include <string.h>

static const char *const r64[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const r32[] = {"eax", "ecx", "edx",  "ebx",  "esp",  "ebp",  "esi",  "edi",
                                  "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"};
static const char *const r16[] = {"ax",  "cx",  "dx",   "bx",   "sp",   "bp",   "si",   "di",
                                  "r8w", "r9w", "r10w", "r11w", "r12w", "r13w", "r14w", "r15w"};
static const char *const r8[] = {"al",  "cl",  "dl",   "bl",   "spl",  "bpl",  "sil",  "dil",
                                 "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b", "r15b"};

enum { BYTES = 1 << 20 };
static uint8_t bytes[BYTES];
static struct code code;
static GString *text;

static void say(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_string_append_vprintf(text, fmt, ap);
    va_end(ap);
    g_string_append_c(text, '\n');
}

static const char *text_of(struct mem m)
{
    static char out[4][96];
    static unsigned turn;
    char *s = out[turn++ % 4], *at = s;
    at += sprintf(at, "%s[", m.gs ? "gs:" : "");
    if (m.base >= 0) {
        at += sprintf(at, "%s+", r64[m.base]);
    }
    if (m.index >= 0) {
        at += sprintf(at, "%s*%d+", r64[m.index], 1 << m.scale);
    }
    sprintf(at, "%d]", m.disp);
    return s;
}

static void with_registers(unsigned a, unsigned b)
{
    emit_mov(&code, a, b), say("mov %s, %s", r64[a], r64[b]);
    emit_mov32(&code, a, b), say("mov %s, %s", r32[a], r32[b]);
    emit_mov16(&code, a, b), say("mov %s, %s", r16[a], r16[b]);
    emit_mov8(&code, a, b), say("mov %s, %s", r8[a], r8[b]);
    if (a != RAX && b != RAX) { /* has a short form with RAX, as the assembler knows */
        emit_xchg(&code, a, b), say("xchg %s, %s", r64[a], r64[b]);
    }
    emit_test(&code, a, b), say("test %s, %s", r64[a], r64[b]);
    emit_cmp(&code, a, b), say("cmp %s, %s", r64[a], r64[b]);
    emit_sub(&code, a, b), say("sub %s, %s", r64[a], r64[b]);
    emit_xor32(&code, a, b), say("xor %s, %s", r32[a], r32[b]);
    emit_movsxd(&code, a, b), say("movsxd %s, %s", r64[a], r32[b]);
    emit_or(&code, a, b), say("or %s, %s", r64[a], r64[b]);
    emit_cmov(&code, CC_A, a, b), say("cmova %s, %s", r64[a], r64[b]);
    emit_rorx(&code, a, b, 32), say("rorx %s, %s, 32", r64[a], r64[b]);
    emit_shlx(&code, a, b, R9), say("shlx %s, %s, r9", r64[a], r64[b]);
    emit_bextr(&code, a, b, R15), say("bextr %s, %s, r15", r64[a], r64[b]);
}

static void with_memory(unsigned r, struct mem m)
{
    const char *t = text_of(m);
    emit_load(&code, 8, r, m), say("mov %s, %s", r64[r], t);
    emit_load(&code, 4, r, m), say("mov %s, %s", r32[r], t);
    emit_load(&code, 2, r, m), say("movzx %s, word ptr %s", r32[r], t);
    emit_load(&code, 1, r, m), say("movzx %s, byte ptr %s", r32[r], t);
    emit_store(&code, 8, m, r), say("mov %s, %s", t, r64[r]);
    emit_store(&code, 4, m, r), say("mov %s, %s", t, r32[r]);
    emit_store(&code, 2, m, r), say("mov %s, %s", t, r16[r]);
    emit_store(&code, 1, m, r), say("mov %s, %s", t, r8[r]);
    emit_store_imm(&code, 8, m, -5), say("mov qword ptr %s, -5", t);
    emit_store_imm(&code, 4, m, 77), say("mov dword ptr %s, 77", t);
    emit_store_imm(&code, 2, m, 77), say("mov word ptr %s, 77", t);
    emit_store_imm(&code, 1, m, 77), say("mov byte ptr %s, 77", t);
    emit_cmp_mem(&code, r, m), say("cmp %s, %s", r64[r], t);
    emit_add_mem(&code, r, m), say("add %s, %s", r64[r], t);
    emit_cmp_mem8_imm(&code, m, 3), say("cmp byte ptr %s, 3", t);
    emit_test_mem8_imm(&code, m, 3), say("test byte ptr %s, 3", t);
    emit_test_mem32_imm(&code, m, 300), say("test dword ptr %s, 300", t);
    emit_and_mem32_imm(&code, m, -300), say("and dword ptr %s, -300", t);
    emit_or_mem32_imm(&code, m, 300), say("or dword ptr %s, 300", t);
    emit_inc_mem(&code, m), say("inc qword ptr %s", t);
    emit_setcc(&code, CC_NE, m), say("setne byte ptr %s", t);
    emit_jmp_mem(&code, m), say("jmp qword ptr %s", t);
    if (!m.gs && (m.base >= 0)) {
        emit_lea(&code, r, m), say("lea %s, %s", r64[r], t);
        emit_lea32(&code, r, m), say("lea %s, %s", r32[r], t);
    }
}

static void with_one(unsigned r)
{
    emit_mov_imm(&code, r, 0x12345678), say("mov %s, 0x12345678", r32[r]);
    emit_mov_imm(&code, r, UINT64_MAX - 4), say("mov %s, -5", r64[r]);
    emit_mov_imm(&code, r, 0x123456789abcdef0), say("movabs %s, 0x123456789abcdef0", r64[r]);
    emit_shl(&code, r, 16), say("shl %s, 16", r64[r]);
    emit_shr(&code, r, 28), say("shr %s, 28", r64[r]);
    if (r != RAX) {
        emit_test_imm8(&code, r, 7), say("test %s, 7", r8[r]);
        emit_cmp32_imm(&code, r, 4000), say("cmp %s, 4000", r32[r]);
        emit_and32_imm(&code, r, 4095), say("and %s, 4095", r32[r]);
        emit_or32_imm(&code, r, 4095), say("or %s, 4095", r32[r]);
        emit_add_imm(&code, r, 4095), say("add %s, 4095", r64[r]);
    }
    emit_shr32(&code, r, 12), say("shr %s, 12", r32[r]);
    emit_sar(&code, r, 6), say("sar %s, 6", r64[r]);
    emit_neg32(&code, r), say("neg %s", r32[r]);
    emit_add_imm(&code, r, -8), say("add %s, -8", r64[r]);
    emit_push(&code, r), say("push %s", r64[r]);
    emit_pop(&code, r), say("pop %s", r64[r]);
    emit_jmp_reg(&code, r), say("jmp %s", r64[r]);
    emit_call_reg(&code, r), say("call %s", r64[r]);
}

static void without_operands(void)
{
    emit_lahf(&code), say("lahf");
    emit_sahf(&code), say("sahf");
    emit_seto_al(&code), say("seto al");
    emit_add_al_imm(&code, 0x7f), say("add al, 0x7f");
    emit_ret(&code), say("ret");
    emit_cld(&code), say("cld");
    emit_rdtsc(&code), say("rdtsc");
}

static void write_everything(void)
{
    static const int32_t disps[] = {0, 1, -128, 127, 128, -129, 0x12345678};
    for (unsigned a = 0; a < 16; a++) {
        with_one(a);
        for (unsigned b = 0; b < 16; b++) {
            with_registers(a, b);
            for (unsigned k = 0; k < G_N_ELEMENTS(disps); k++) {
                with_memory(a, MEM_BASE(b, disps[k]));
            }
            if (b != RSP) {
                with_memory(5, (struct mem){.base = (int8_t)a, .index = (int8_t)b, .scale = b & 3,
                                            .disp = disps[a % 7]});
                with_memory(a, (struct mem){.base = -1, .index = (int8_t)b, .scale = 3, .gs = true,
                                            .disp = -0x100000});
            }
        }
        with_memory(a, MEM_SLOT(-0x1234));
    }
    without_operands();
}

static void assemble(const char *dir, GByteArray *out)
{
    g_autofree char *src = g_build_filename(dir, "t.s", NULL);
    g_autofree char *command = g_strdup_printf(
        "cd %s && as --64 -o t.o t.s && objcopy -O binary -j .text t.o t.bin", dir);
    g_autofree char *bin = g_build_filename(dir, "t.bin", NULL);
    char *data = NULL;
    gsize n = 0;
    assert_true(g_file_set_contents(src, text->str, (gssize)text->len, NULL));
    assert_int_equal(system(command), 0);
    assert_true(g_file_get_contents(bin, &data, &n, NULL));
    g_byte_array_append(out, (const guint8 *)data, (guint)n);
    g_free(data);
}

static void every_instruction_is_what_the_assembler_writes(void **state)
{
    (void)state;
    g_autofree char *dir = g_dir_make_tmp("lodge-emit-XXXXXX", NULL);
    g_autoptr(GByteArray) want = g_byte_array_new();
    text = g_string_new(".intel_syntax noprefix\n");
    code = (struct code){bytes, bytes + BYTES, false};
    write_everything();
    assert_false(code.full);
    assemble(dir, want);
    size_t n = (size_t)(code.at - bytes);
    for (size_t k = 0; k < n && k < want->len; k++) {
        if (bytes[k] != want->data[k]) {
            fail_msg("first difference at byte %zu", k);
        }
    }
    assert_int_equal(n, want->len);
    g_string_free(text, TRUE);
    g_autofree char *rm = g_strdup_printf("rm -r %s", dir);
    assert_int_equal(system(rm), 0);
}

static void a_full_region_sets_a_flag_and_is_not_overrun(void **state)
{
    (void)state;
    uint8_t small[8] = {0};
    code = (struct code){small, small + 4, false};
    emit_mov_imm(&code, RAX, 0x123456789abcdef0);
    assert_true(code.full);
    assert_int_equal(small[4], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_is_what_the_assembler_writes),
        cmocka_unit_test(a_full_region_sets_a_flag_and_is_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
