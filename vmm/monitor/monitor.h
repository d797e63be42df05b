/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Monitors: a program speaks QMP, a person the commands of `help`, a debugger gdb's protocol. */
struct chardev;

enum monitor_kind { MONITOR_HMP, MONITOR_QMP, MONITOR_QMP_PRETTY };

bool monitor_new(struct chardev *chr, enum monitor_kind kind, GError **error);
void monitors_close(void);

/* Runs one line as the human monitor does; what it prints.  Caller frees. */
char *monitor_line(const char *line);

/* A gdb server; @spec as -gdb's argument.  "none" ends it. */
bool gdb_start(const char *spec, GError **error);

/* The descriptor that getfd or a number names; its name is free again.  -1 with an error. */
int monitor_take_fd(const char *name, GError **error);

/* ---- for the files of this folder ---- */

/* .receive_fd of a monitor's byte stream. */
void monitor_fd_came(void *peer, int fd);

/* Text that a slow reader takes later; a reader that takes nothing loses what is over the
 * bound. */
struct outbox {
    struct chardev *chr;
    GString *text;
};
void outbox_init(struct outbox *box, struct chardev *chr);
void outbox_clear(struct outbox *box);
void outbox_put(struct outbox *box, const char *text, size_t n);
void outbox_flush(struct outbox *box); /* from the chardev's .writable */

/* Runs a QMP command by name; a result, or NULL with an error whose QMP class is *@class. */
json_t *qmp_run(const char *name, json_t *arguments, const char **class, GError **error);
bool qmp_new(struct chardev *chr, bool pretty, GError **error);
bool hmp_new(struct chardev *chr, GError **error);
