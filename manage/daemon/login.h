/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/packet.h"

#include <glib.h>
#include <stdbool.h>

/*
 * How clients prove themselves: SASL by Cyrus' library, service "libvirt" (who the user is, and the
 * layer that encrypts), and polkit.  Both cost memory even unused, hence a module, which is opened
 * when the first client is asked.
 */
struct login;

enum login_step { LOGIN_FAILED, LOGIN_GO_ON, LOGIN_DONE };

struct login_module {
    /* @encrypted: something below encrypts already, so the mechanism need not. */
    struct login *(*create)(bool encrypted, GError **error);
    void (*destroy)(struct login *l);
    /* Names of mechanisms, separated by commas; NULL with an error if there is none. */
    char *(*mechanisms)(struct login *l, GError **error);
    /* @mechanism NULL: a further step.  @out is the login's and may be NULL. */
    enum login_step (*step)(struct login *l, const char *mechanism, const void *in, unsigned n,
                            const char **out, unsigned *out_n, GError **error);
    /* After LOGIN_DONE: NULL if the user is not admitted. */
    const char *(*user)(struct login *l, GError **error);
    /* Whether packets must be wrapped from now on. */
    bool (*wraps)(const struct login *l);
    /* Replaces the bytes of @p, which is freed; NULL if that fails. */
    struct packet *(*wrap)(struct login *l, struct packet *p);
    /* Appends what is inside to @out; false if it was tampered with. */
    bool (*unwrap)(struct login *l, const void *in, size_t n, GByteArray *out);
    /* Is the process of a UNIX socket's other end one that polkit lets in?  Waits. */
    bool (*polkit_admits)(int pid, unsigned uid, bool read_only, GError **error);
};
extern const struct login_module lodge_login; /* in the module */
extern const struct login_module *login;      /* NULL until it is opened; client.c */
