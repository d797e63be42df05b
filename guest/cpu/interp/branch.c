/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * branch: near branches, calls, loops, and the stack.
 *
 * Spec: Intel SDM, volume 2, "Instruction Set Reference"; volume 1, "Procedure Calls,
 * Interrupts, and Exceptions", there "Stack Alignment" and "Calling Procedures Using Call
 * and Ret".
 *
 * A fault must leave everything as it was: a target is checked before the stack pointer
 * moves, and cpu_jump() changes nothing but next_rip.
 */
#include "guest/cpu/interp/alu.h"

/* ---- branches ---- */

static void jump_relative(struct vcpu *cpu, const struct insn *i)
{
    cpu_jump(cpu, cpu->next_rip + (uint64_t)i->imm, i->opsize);
}

static void do_jmp(struct vcpu *cpu, const struct insn *i)
{
    jump_relative(cpu, i);
}

static void do_jcc(struct vcpu *cpu, const struct insn *i)
{
    if (condition_holds(cpu, i->opcode)) {
        jump_relative(cpu, i);
    }
}

static void do_call(struct vcpu *cpu, const struct insn *i)
{
    uint64_t back = cpu->next_rip;
    jump_relative(cpu, i);
    stack_push(cpu, back, i->opsize);
}

static void do_jmp_ind(struct vcpu *cpu, const struct insn *i)
{
    cpu_jump(cpu, operand_load(cpu, i, 0), i->opsize);
}

static void do_call_ind(struct vcpu *cpu, const struct insn *i)
{
    uint64_t back = cpu->next_rip, to = operand_load(cpu, i, 0);
    uint64_t top = stack_linear(cpu, -(int64_t)i->opsize, i->opsize, true);
    mem_probe(cpu, top, i->opsize, true); /* #SS and #PF come before the target's #GP */
    cpu_jump(cpu, to, i->opsize);
    stack_push(cpu, back, i->opsize);
}

static void do_ret(struct vcpu *cpu, const struct insn *i)
{
    uint64_t to = mem_load(cpu, stack_linear(cpu, 0, i->opsize, false), i->opsize);
    cpu_jump(cpu, to, i->opsize);
    stack_set(cpu, cpu->r.gpr[RSP] + i->opsize + (uint64_t)i->imm);
}

/* loop, loope, loopne, jcxz: the counter has the address size. */
static void do_loop(struct vcpu *cpu, const struct insn *i)
{
    uint64_t count = cpu->r.gpr[RCX] & size_mask(i->addrsize);
    bool zero = cpu->r.rflags & FLAG_ZF, taken;
    if (i->op == OP_JCXZ) {
        if (count == 0) {
            jump_relative(cpu, i);
        }
        return;
    }
    count = (count - 1) & size_mask(i->addrsize);
    taken = count != 0 && (i->op == OP_LOOP || zero == (i->op == OP_LOOPE));
    if (taken) {
        jump_relative(cpu, i);
    }
    reg_write(cpu, i, RCX, i->addrsize, count);
}

/* ---- stack ---- */

static void do_push(struct vcpu *cpu, const struct insn *i)
{
    stack_push(cpu, operand_load(cpu, i, 0), i->opsize);
}

static void do_pop(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t v = mem_load(cpu, stack_linear(cpu, 0, bytes, false), bytes);
    uint64_t before = cpu->r.gpr[RSP], after;
    stack_set(cpu, before + bytes);
    if (!i->mem) {
        reg_write(cpu, i, i->has_modrm ? i->rm : i->reg, bytes, v);
        return;
    }
    /* An address based on RSP uses the value after the pop, but a fault must not see it. */
    after = cpu->r.gpr[RSP];
    uint64_t offset = interp_offset(cpu, i);
    cpu->r.gpr[RSP] = before;
    mem_store(cpu, seg_linear(cpu, (enum seg_name)i->seg, offset, bytes, true), v, bytes);
    cpu->r.gpr[RSP] = after;
}

static void do_push_sreg(struct vcpu *cpu, const struct insn *i)
{
    stack_push(cpu, cpu->r.seg[i->reg].selector, i->opsize);
}

static void do_pop_sreg(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = mem_load(cpu, stack_linear(cpu, 0, i->opsize, false), i->opsize);
    uint64_t before = cpu->r.gpr[RSP];
    unsigned wide = stack_bytes(cpu); /* pop ss may change it */
    cpu_load_segment(cpu, (enum seg_name)i->reg, (uint16_t)v);
    reg_write(cpu, i, RSP, wide, before + i->opsize);
}

static void do_pusha(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t linear[8];
    for (unsigned n = 0; n < 8; n++) {
        linear[n] = stack_linear(cpu, -(int64_t)((n + 1) * bytes), bytes, true);
        mem_probe(cpu, linear[n], bytes, true);
    }
    for (unsigned n = 0; n < 8; n++) {
        mem_store(cpu, linear[n], reg_read(cpu, i, n, bytes), bytes);
    }
    stack_set(cpu, cpu->r.gpr[RSP] - 8 * bytes);
}

static void do_popa(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t v[8];
    for (unsigned n = 0; n < 8; n++) {
        v[n] = mem_load(cpu, stack_linear(cpu, n * bytes, bytes, false), bytes);
    }
    for (unsigned n = 0; n < 8; n++) {
        if (7 - n != RSP) {
            reg_write(cpu, i, 7 - n, bytes, v[n]);
        }
    }
    stack_set(cpu, cpu->r.gpr[RSP] + 8 * bytes);
}

/*
 * Levels above 0 copy frame pointers of enclosing procedures.  They may lie where the new
 * ones are pushed, so after all is probed it goes push by push.
 */
static void do_enter(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize, level = i->imm2 & 31;
    uint64_t mask = size_mask(stack_bytes(cpu)), from[32] = {0}, to[33];
    uint64_t frame = cpu->r.gpr[RSP] - bytes, bp = cpu->r.gpr[RBP];
    for (unsigned n = 1; n < level; n++) {
        from[n] = seg_linear(cpu, SEG_SS, (bp - (uint64_t)n * bytes) & mask, bytes, false);
        mem_probe(cpu, from[n], bytes, false);
    }
    for (unsigned n = 0; n <= level; n++) {
        to[n] = stack_linear(cpu, -(int64_t)((n + 1) * bytes), bytes, true);
        mem_probe(cpu, to[n], bytes, true);
    }
    uint64_t sp = cpu->r.gpr[RSP] - (level + 1) * bytes - (uint64_t)i->imm;
    /* The processor looks whether the new top of the stack can be written. */
    mem_probe(cpu, seg_linear(cpu, SEG_SS, sp & mask, bytes, true), bytes, true);
    mem_store(cpu, to[0], bp, bytes);
    for (unsigned n = 1; n < level; n++) {
        mem_store(cpu, to[n], mem_load(cpu, from[n], bytes), bytes);
    }
    if (level) {
        mem_store(cpu, to[level], frame, bytes);
    }
    reg_write(cpu, i, RBP, bytes, frame);
    stack_set(cpu, sp);
}

static void do_leave(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize, wide = stack_bytes(cpu);
    uint64_t frame = cpu->r.gpr[RBP] & size_mask(wide);
    uint64_t v = mem_load(cpu, seg_linear(cpu, SEG_SS, frame, bytes, false), bytes);
    stack_set(cpu, frame + bytes);
    reg_write(cpu, i, RBP, bytes, v);
}

static void do_pushf(struct vcpu *cpu, const struct insn *i)
{
    stack_push(cpu, cpu_pushf(cpu, i->opsize), i->opsize);
}

static void do_popf(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = mem_load(cpu, stack_linear(cpu, 0, i->opsize, false), i->opsize);
    cpu_popf(cpu, v, i->opsize);
    stack_set(cpu, cpu->r.gpr[RSP] + i->opsize);
}

static const struct interp_row interp_branch_rows[] = {
    {OP_JMP, do_jmp}, {OP_JCC, do_jcc}, {OP_CALL, do_call}, {OP_JMP_IND, do_jmp_ind},
    {OP_CALL_IND, do_call_ind}, {OP_RET, do_ret}, {OP_LOOP, do_loop}, {OP_LOOPE, do_loop},
    {OP_LOOPNE, do_loop}, {OP_JCXZ, do_loop},
    {OP_PUSH_SREG, do_push_sreg}, {OP_POP_SREG, do_pop_sreg},
    {OP_PUSH, do_push}, {OP_POP, do_pop}, {OP_PUSHA, do_pusha}, {OP_POPA, do_popa},
    {OP_ENTER, do_enter}, {OP_LEAVE, do_leave}, {OP_PUSHF, do_pushf}, {OP_POPF, do_popf},
};
INTERP_TABLE(interp_branch);
