/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/json.h"

#include <sys/types.h>

/*
 * A client of one machine's monitor.  The main loop reads; any thread that holds the daemon
 * lock may send and gives the lock up while it waits.  One machine that does not answer delays
 * only who asked it, and that one until a time-out.
 */
struct qmp;
struct qmp_ops {
    /* Main loop, daemon lock held. */
    /* @when: its "seconds" and "microseconds". */
    void (*event)(void *data, const char *name, const json_t *body, const json_t *when);
    void (*closed)(void *data);
    /* All that was asked has an answer now, some of it when nobody waited for it any more. */
    void (*caught_up)(void *data);
    /* What the other end says of an error in the words of users, to be freed; daemon lock held. */
    char *(*words)(void *data, const char *text);
};

enum { QMP_TIMEOUT_MS = 30000 };

/* Connects to the UNIX socket @path, whose other end is listening already. */
struct qmp *qmp_open(const char *path, const struct qmp_ops *ops, void *data, GError **error);
/* No callback comes after this; commands under way fail.  NULL is fine. */
void qmp_close(struct qmp *q);

/*
 * The "return" of @command, which the caller owns; @args (NULL: none) is given away.  The lock
 * must be held and is given up meanwhile.
 */
json_t *qmp_run(struct qmp *q, const char *command, json_t *args, int timeout_ms, GError **error);
/* The same with the answer as it came, be it "return" or "error". */
json_t *qmp_ask(struct qmp *q, const char *command, json_t *args, int timeout_ms, GError **error);
/* When (monotonic, us) the oldest command was sent that has no answer yet; 0: all have one. */
int64_t qmp_unanswered(const struct qmp *q);
/* The other end has hung up; NULL is fine. */
bool qmp_is_dead(const struct qmp *q);
/* Hands over a copy of @fd, which the machine knows by @name from then on. */
bool qmp_give_fd(struct qmp *q, int fd, const char *name, GError **error);
/* The same with json_pack()'s format and without a result. */
bool qmp_do(struct qmp *q, GError **error, const char *command, const char *fmt, ...);
