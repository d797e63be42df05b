/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/* The table of architectural state, made of regs.def. */
enum reg_group {
    REGS_GENERAL, REGS_SEGMENT, REGS_CONTROL, REGS_DEBUG, REGS_CLOCK, REGS_MSR, REGS_HIDDEN,
    REGS_VECTOR,
};
struct cpu_reg {
    const char *name;
    uint16_t at, bytes; /* in struct regs; more than 8 bytes: an array */
    uint8_t group;      /* enum reg_group */
};
extern const struct cpu_reg cpu_regs[];
extern const unsigned n_cpu_regs;

/* State stream of a paused vCPU: for each register its name, its size and its bytes. */
GBytes *vcpu_save(const struct vcpu *cpu);
/* All registers, each once, of the right size: else EINVAL, and @cpu is as it was. */
bool vcpu_load(struct vcpu *cpu, GBytes *state, GError **error);
