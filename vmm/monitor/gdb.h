/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"
#include "vmm/monitor/monitor.h"

/* vmm/monitor/gdb_regs.c: registers as target.xml describes them. */
enum { GDB_REGS_BYTES = 2048 };
char *gdb_target_xml(const struct vcpu *cpu);
size_t gdb_regs_read_all(const struct vcpu *cpu, uint8_t out[GDB_REGS_BYTES]);
/* Fewer bytes than there are registers: the first of them. */
bool gdb_regs_write_all(struct vcpu *cpu, const uint8_t *data, size_t n);
/* Bytes of register @n, 0 if there is none. */
size_t gdb_reg_read(const struct vcpu *cpu, unsigned n, uint8_t out[16]);
bool gdb_reg_write(struct vcpu *cpu, unsigned n, const uint8_t *data, size_t bytes);

void gdb_close(void);
