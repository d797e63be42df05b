/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/* Model-specific registers of interp and bt.  Own thread.  False: #GP. */
bool cpu_rdmsr(struct vcpu *cpu, uint32_t msr, uint64_t *value);
bool cpu_wrmsr(struct vcpu *cpu, uint32_t msr, uint64_t value);
