/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/machine/tables.h"

struct aml;

/* Appends the AML of the DSDT: what the machine has that cannot be found by looking. */
void dsdt_write(GByteArray *out, const struct pc_layout *pc);
/* dsdt_hotplug.c, inside \_SB: processors with what a guest needs to see them come and go. */
void dsdt_cpus(struct aml *a, const struct pc_layout *pc);
/* The same for memory modules. */
void dsdt_memory(struct aml *a, const struct pc_layout *pc);
