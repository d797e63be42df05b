/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flags: glue that tests something changes the host's flags, which are the guest's.  Where
 * the guest's matter they wait in .fl_saved until somebody needs them.
 */
#include "guest/cpu/translate/translate.h"

void flags_free(struct tr *t)
{
    if (t->saved || !(t->live[t->at] & FLAGS_ARITH)) {
        return;
    }
    emit_store(&t->hot, 8, SLOT(temp), RAX);
    emit_lahf(&t->hot);
    emit_seto_al(&t->hot);
    emit_store(&t->hot, 2, SLOT(fl_saved), RAX);
    emit_load(&t->hot, 8, RAX, SLOT(temp));
    t->saved = true;
}

void flags_restore(struct tr *t)
{
    if (!t->saved) {
        return;
    }
    emit_store(&t->hot, 8, SLOT(temp), RAX);
    emit_load(&t->hot, 2, RAX, SLOT(fl_saved));
    emit_add_al_imm(&t->hot, 0x7f); /* 1 becomes an overflow; SAHF leaves OF alone */
    emit_sahf(&t->hot);
    emit_load(&t->hot, 8, RAX, SLOT(temp));
    t->saved = false;
}
