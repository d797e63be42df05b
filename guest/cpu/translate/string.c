/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * string: movs, stos and their relatives.
 */
#include "guest/cpu/translate/translate.h"

bool emit_string(struct tr *t, const struct insn *i)
{
    (void)t, (void)i;
    return false;
}
