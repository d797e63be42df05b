/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/interp/interp.h"

extern interp_fn *interp_handlers[OP_COUNT];
void interp_handlers_init(void); /* idempotent */
/* Does @i need no interp_check(), whatever the state? */
bool interp_plain(const struct insn *i);
/* Raises what stands before execution: #UD, #NM, #GP. */
void interp_check(struct vcpu *cpu, const struct insn *i);
