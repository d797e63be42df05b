/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/domain.h"

#include <jansson.h>

struct memory_line {
    const DomainDef *def;
    const char *folder; /* of the run; its "own" belongs to the machine */
};
/* Appends -m, -object and -numa; false if this host cannot do it. */
bool memory_line(GPtrArray *out, const struct memory_line *l, GError **error);
/* What is behind a module that has its alias: for -object, and for object-add. */
char *memory_module(const struct memory_line *l, const struct domain_memory_device *dimm,
                    GError **error);
json_t *memory_module_object(const struct memory_line *l, const struct domain_memory_device *dimm,
                             GError **error);
