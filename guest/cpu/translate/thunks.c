/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thunks: the code between C and generated code, generated too.
 *
 * Generated code cannot call: its stack pointer is the guest's.  It jumps to a thunk, which
 * puts the guest's registers into cpu->r, takes the host's stack and calls a helper; that
 * says whether to go on at .resume or to leave bt_run()'s call of THUNK_ENTER.
 */
#include "guest/cpu/translate/translate.h"

enum { FP_MASK = FP_X87 | FP_SSE | FP_AVX };
enum { XSAVE_HEADER = 512 };

uint8_t *thunk_at[THUNKS];

static const uint8_t high[3] = {R10, R11, R15};

static struct mem reg_slot(unsigned reg)
{
    return MEM_BASE(S1, (int32_t)(offsetof(struct vcpu, r.gpr) + reg * 8));
}

/* xsave64 (4) or xrstor64 (5) of cpu->r.xsave; cpu is in S1.  Changes RAX and RDX. */
static void fp_area(struct code *c, unsigned which)
{
    emit_mov_imm(c, RAX, FP_MASK);
    emit_mov_imm(c, RDX, 0);
    emit_copy(c, (const uint8_t[]){0x49, 0x0f, 0xae}, 3);
    emit_modrm(c, which, MEM_BASE(S1, offsetof(struct vcpu, r.xsave)));
}

/*
 * The state goes to memory whole, also what is in its initial configuration, so that the
 * interpreter may change any of it; C code gets clean registers.
 */
static void fp_save(struct code *c)
{
    emit_cmp_mem8_imm(c, SLOT(fp_ok), 0);
    uint8_t *none = emit_jcc_short(c, CC_E);
    fp_area(c, 4);
    emit_copy(c, (const uint8_t[]){0x49, 0x83}, 2); /* or qword [...], FP_MASK */
    emit_modrm(c, 1, MEM_BASE(S1, offsetof(struct vcpu, r.xsave) + XSAVE_HEADER));
    emit_byte(c, FP_MASK);
    emit_copy(c, (const uint8_t[]){0xdb, 0xe3}, 2);             /* fninit */
    emit_copy(c, (const uint8_t[]){0x65, 0x0f, 0xae}, 3);       /* ldmxcsr gs:[...] */
    emit_modrm(c, 2, MEM_BASE(-1, SLOT(mxcsr_default).disp));
    emit_short_target(c, none);
}

static void fp_load(struct code *c)
{
    emit_cmp_mem8_imm(c, SLOT(fp_resume), 0);
    uint8_t *none = emit_jcc_short(c, CC_E);
    fp_area(c, 5);
    emit_short_target(c, none);
}

static void spill(struct code *c)
{
    emit_load(c, 8, S1, SLOT(cpu));
    for (unsigned r = RAX; r <= R15; r++) {
        if (!stolen((int)r)) {
            emit_store(c, 8, reg_slot(r), r);
        }
    }
    emit_lahf(c);
    emit_seto_al(c);
    emit_store(c, 2, SLOT(fl), RAX);
    for (unsigned k = 0; k < 3; k++) {
        struct mem m = SLOT(high);
        m.disp += (int32_t)k * 8;
        emit_load(c, 8, RAX, m);
        emit_store(c, 8, reg_slot(high[k]), RAX);
    }
    emit_load(c, 8, RSP, SLOT(host_rsp));
    fp_save(c);
}

static void reload(struct code *c)
{
    emit_load(c, 8, S1, SLOT(cpu));
    fp_load(c);
    for (unsigned k = 0; k < 3; k++) {
        struct mem m = SLOT(high);
        m.disp += (int32_t)k * 8;
        emit_load(c, 8, RAX, reg_slot(high[k]));
        emit_store(c, 8, m, RAX);
    }
    emit_load(c, 2, RAX, SLOT(fl));
    emit_add_al_imm(c, 0x7f);
    emit_sahf(c);
    for (unsigned r = RAX; r <= R15; r++) {
        if (!stolen((int)r)) {
            emit_load(c, 8, r, reg_slot(r));
        }
    }
    emit_load(c, 8, S0, SLOT(s0));
    emit_load(c, 8, S1, SLOT(s1));
    emit_jmp_mem(c, SLOT(resume));
}

static const uint8_t kept[] = {RBX, RBP, R12, R13, R14, R15};

static void write_enter(struct code *c)
{
    thunk_at[THUNK_ENTER] = c->at;
    for (unsigned k = 0; k < sizeof(kept); k++) {
        emit_push(c, kept[k]);
    }
    emit_lea(c, RSP, MEM_BASE(RSP, -8)); /* aligned to 16 for the helpers */
    emit_store(c, 8, SLOT(host_rsp), RSP);
    thunk_at[THUNK_RESUME] = c->at;
    reload(c);
}

static void write_leave(struct code *c)
{
    thunk_at[THUNK_LEAVE] = c->at;
    emit_lea(c, RSP, MEM_BASE(RSP, 8));
    for (unsigned k = sizeof(kept); k-- > 0;) {
        emit_pop(c, kept[k]);
    }
    emit_ret(c);
}

/* The helper gets its struct bt_cpu, S2 and S0. */
static void write_helper(struct code *c, enum thunk which, const void *helper)
{
    thunk_at[which] = c->at;
    spill(c);
    emit_load(c, 8, RDI, SLOT(self));
    emit_mov(c, RSI, S2);
    emit_mov(c, RDX, S0);
    emit_mov_imm(c, RAX, (uint64_t)helper);
    emit_call_reg(c, RAX);
    emit_test_imm8(c, RAX, 1);
    emit_jcc(c, CC_NE, thunk_at[THUNK_RESUME]);
    emit_jmp(c, thunk_at[THUNK_LEAVE]);
}

/* Bits of the sum that are no part of the slot go, and it counts twice. */
static void look_at_slot(struct code *c, unsigned mode)
{
    emit_and32_imm(c, S1, (JUMP_SLOTS - 1) * 2);
    emit_cmp_mem(c, S0, JUMP_SLOT(mode, key, S1));
}

void jump_look_up(struct code *c, unsigned mode)
{
    emit_xor32(c, S1, S1); /* jump_slot() */
    emit_crc32(c, S1, S0);
    look_at_slot(c, mode);
}

void jump_look_again(struct code *c, unsigned mode)
{
    emit_lea(c, S1, MEM_BASE(S1, JUMP_PAIR * 2));
    look_at_slot(c, mode);
}

static void write_jump(struct code *c, unsigned mode)
{
    thunk_at[THUNK_JUMP_0 + mode] = c->at;
    jump_look_up(c, mode);
    uint8_t *hit = emit_jcc_short(c, CC_E);
    jump_look_again(c, mode);
    emit_jcc(c, CC_NE, thunk_at[THUNK_DISPATCH]);
    emit_short_target(c, hit);
    emit_jmp_mem(c, JUMP_SLOT(mode, code, S1));
}

/* A direct jump, described at S2, that is never linked. */
static void write_pass(struct code *c, enum thunk which, unsigned mode, bool saved)
{
    thunk_at[which] = c->at;
    emit_load(c, 8, S0, MEM_BASE(S2, offsetof(struct exit_desc, pc)));
    if (which == THUNK_PASS_FLOAT || which == THUNK_PASS_FLOAT_SAVED) {
        emit_load(c, 8, S1, SLOT(page));
        emit_lea(c, S0, MEM_SUM(S0, S1));
    }
    if (!saved) {
        flags_save(c);
    }
    emit_jmp(c, thunk_at[THUNK_JUMP_0 + mode]);
}

/* What the slots of address 0 lead to; S0 may have been used since the look-up. */
static void write_pc_0(struct code *c)
{
    thunk_at[THUNK_PC_0] = c->at;
    emit_mov_imm(c, S0, 0);
    emit_jmp(c, thunk_at[THUNK_DISPATCH]);
}

void thunks_write(struct code *c)
{
    write_enter(c);
    write_leave(c);
    write_helper(c, THUNK_SLOW, (const void *)bt_slow);
    write_helper(c, THUNK_ONE, (const void *)bt_one);
    write_helper(c, THUNK_TARGET, (const void *)bt_target);
    write_helper(c, THUNK_DISPATCH, (const void *)bt_dispatch);
    write_helper(c, THUNK_LINK, (const void *)bt_link);
    write_helper(c, THUNK_FP, (const void *)bt_fp);
    write_helper(c, THUNK_SYSTEM, (const void *)bt_system);
    write_helper(c, THUNK_POLL, (const void *)bt_poll);
    write_helper(c, THUNK_FAULT, (const void *)bt_fault);
    for (unsigned mode = 0; mode < TLB_MODES; mode++) {
        write_jump(c, mode);
        write_pass(c, THUNK_PASS_0 + mode, mode, false);
        write_pass(c, THUNK_PASS_SAVED_0 + mode, mode, true);
    }
    write_pass(c, THUNK_PASS_FLOAT, TLB_USER, false);
    write_pass(c, THUNK_PASS_FLOAT_SAVED, TLB_USER, true);
    write_pc_0(c);
}
