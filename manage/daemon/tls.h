/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * TLS by GnuTLS with libvirt's conventions: the client shows a certificate, whose name must be
 * on the list tls.allow, and the server's first byte inside is a 1.
 */
struct tls;

enum tls_step { TLS_FAILED, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_DONE };

/*
 * GnuTLS costs 2 MiB in a process that only has it linked, hence a module, opened when
 * tls.listen is set.
 */
struct tls_module {
    /* Loads the files that the settings name; again after they changed. */
    bool (*start)(GError **error);
    void (*stop)(void);
    struct tls *(*create)(int fd);
    void (*destroy)(struct tls *tls);
    /* A step of the handshake, the check of the client's certificate and the confirmation. */
    enum tls_step (*handshake)(struct tls *tls, GError **error);
    /* As recv() and send(), EAGAIN too. */
    ssize_t (*receive)(struct tls *tls, void *to, size_t n);
    ssize_t (*send)(struct tls *tls, const void *from, size_t n);
    /* Bytes that were read from the socket but not yet asked for. */
    bool (*pending)(struct tls *tls);
};
extern const struct tls_module lodge_tls; /* in the module */
extern const struct tls_module *tls;      /* NULL until it is opened; client.c */
