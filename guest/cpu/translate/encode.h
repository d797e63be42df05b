/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/decode/insn.h"
#include "guest/cpu/translate/emit_x64.h"

/*
 * Writing a guest instruction as a host instruction: the same operation, with other
 * registers in place of those that the translator uses itself and with its memory operand
 * at a host address.
 */
struct host_form {
    uint8_t reg, rm, vvvv; /* register numbers for the fields of that name */
    bool mem;
    struct mem m;          /* with .mem: the operand */
};

/* The instruction's own registers. */
struct host_form host_form_of(const struct insn *i);

/* False: it cannot be written that way (AH to BH beside a REX prefix). */
bool encode(struct code *c, const struct insn *i, const struct host_form *f);
