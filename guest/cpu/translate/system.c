/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * system: instructions of the system part that need no help.
 */
#include "guest/cpu/translate/translate.h"

bool emit_system(struct tr *t, const struct insn *i)
{
    (void)t, (void)i;
    return false;
}
