/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/packet.h"

#include <glib.h>
#include <stdbool.h>

/* SASL by Cyrus' library, service "libvirt": who the user is, and the layer that encrypts. */
struct login;

/* @encrypted: something below encrypts already, so the mechanism need not. */
struct login *login_new(bool encrypted, GError **error);
void login_free(struct login *l);
/* Names of mechanisms, separated by commas; NULL with an error if there is none. */
char *login_mechanisms(struct login *l, GError **error);

enum login_step { LOGIN_FAILED, LOGIN_GO_ON, LOGIN_DONE };
/* @mechanism NULL: a further step.  @out is the login's and may be NULL. */
enum login_step login_step(struct login *l, const char *mechanism, const void *in, unsigned n,
                           const char **out, unsigned *out_n, GError **error);
/* After LOGIN_DONE: NULL if the user is not admitted. */
const char *login_user(struct login *l, GError **error);
/* Whether packets must be wrapped from now on. */
bool login_wraps(const struct login *l);
/* Replaces the bytes of @p, which is freed; NULL if that fails. */
struct packet *login_wrap(struct login *l, struct packet *p);
/* Appends what is inside to @out; false if it was tampered with. */
bool login_unwrap(struct login *l, const void *in, size_t n, GByteArray *out);

/* Is the process of a UNIX socket's other end one that polkit lets in?  Waits. */
bool polkit_admits(int pid, unsigned uid, bool read_only, GError **error);
/* Whether the setting socket.auth asks for it here. */
bool polkit_wanted(void);
