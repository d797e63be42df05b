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

/* Loads the files that the settings name. */
bool tls_start(GError **error);
void tls_stop(void);
struct tls *tls_new(int fd);
void tls_free(struct tls *tls);

enum tls_step { TLS_FAILED, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_DONE };
/* A step of the handshake, the check of the client's certificate and the confirmation. */
enum tls_step tls_handshake(struct tls *tls, GError **error);
/* As recv() and send(), EAGAIN too. */
ssize_t tls_receive(struct tls *tls, void *to, size_t n);
ssize_t tls_send(struct tls *tls, const void *from, size_t n);
/* Bytes that were read from the socket but not yet asked for. */
bool tls_pending(struct tls *tls);
/* Distinguished name of the client's certificate. */
const char *tls_peer(const struct tls *tls);
