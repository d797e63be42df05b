/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/machine/tables.h"

/* Appends the AML of the DSDT: what the machine has that cannot be found by looking. */
void dsdt_write(GByteArray *out, const struct pc_layout *pc);
