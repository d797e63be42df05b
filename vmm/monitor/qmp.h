/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "vmm/monitor/monitor.h"

/* schema/monitor.def with its handlers. */
struct qmp_command {
    const char *name;
    json_t *(*run)(json_t *args, GError **error); /* NULL without an error: {} */
    const char *args, *result, *help;
};
extern const struct qmp_command qmp_commands[];
extern const unsigned n_qmp_commands;

/* One argument of .args. */
struct qmp_arg {
    char name[32], type[16]; /* "[str]" for lists */
    bool optional;
};
/* Takes the next one from *@at; false at the end.  "..." has an empty type. */
bool qmp_next_arg(const char **at, struct qmp_arg *out);

/* For handlers: QMP's error class is made of the errno value of the error. */
static inline const char *qmp_str(json_t *args, const char *key)
{
    return json_string_value(json_object_get(args, key));
}

void qmp_close(void);
