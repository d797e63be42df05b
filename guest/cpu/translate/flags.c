/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flags: glue that tests something changes the host's flags, which are the guest's.  Where
 * the guest's matter they wait in .fl_saved until somebody needs them.
 */
#include "guest/cpu/translate/translate.h"

void flags_save(struct code *c)
{
    emit_mov(c, S2, RAX);
    emit_lahf(c);
    emit_seto_al(c);
    emit_store(c, 2, SLOT(fl_saved), RAX);
    emit_mov(c, RAX, S2);
}

void flags_load(struct code *c)
{
    emit_mov(c, S2, RAX);
    emit_load(c, 2, RAX, SLOT(fl_saved));
    emit_add_al_imm(c, 0x7f); /* 1 becomes an overflow; SAHF leaves OF alone */
    emit_sahf(c);
    emit_mov(c, RAX, S2);
}

void flags_free(struct tr *t)
{
    if (t->saved || !(t->live[t->at] & FLAGS_ARITH)) {
        return;
    }
    flags_save(&t->hot);
    t->saved = true;
}

void flags_restore(struct tr *t)
{
    if (!t->saved) {
        return;
    }
    flags_load(&t->hot);
    t->saved = false;
}
