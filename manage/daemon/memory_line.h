/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/domain.h"

struct memory_line {
    const DomainDef *def;
    const char *folder; /* of the run; its "own" belongs to the machine */
};
/* Appends -m, -object and -numa; false if this host cannot do it. */
bool memory_line(GPtrArray *out, const struct memory_line *l, GError **error);
