/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <sys/types.h>

/* Where a state goes to or comes from. */
struct transport {
    int fd;
    int listener; /* of an incoming socket; -1: none */
    pid_t child;  /* exec:'s; 0: none */
    char *path, *temporary; /* file: is written beside and renamed */
    bool out;
};

/* @out: to send.  An incoming socket listens; transport_accept() waits for the sender. */
bool transport_open(struct transport *t, const char *uri, bool out, GError **error);
bool transport_accept(struct transport *t, GError **error);
/* Makes a thread that waits in it fail. */
void transport_interrupt(struct transport *t);
/* @ok: all was said and done: the file gets its name, the command must have succeeded. */
bool transport_close(struct transport *t, bool ok, GError **error);
