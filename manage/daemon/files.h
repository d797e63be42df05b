/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

/*
 * Files that clients and definitions name may lie on a server that is dead: whoever touches one
 * then sleeps, with all that he holds.  So does who connects to a process that has stopped.
 */

/*
 * Whether all of @paths (NULL last) answer, be they there or not; daemon lock held, given up
 * meanwhile.  Each is looked at on another thread, for @seconds at most; one that did not answer is
 * not asked again until it has.  What is known of each goes to @found (NULL: nowhere), all zero for
 * what is not there.  False with ERR_OPERATION_TIMEOUT.
 */
bool files_answer(const char *const *paths, struct stat *found, unsigned seconds, GError **error);
/* The same for one. */
enum { FILES_SECONDS = 30 };
bool file_answers(const char *path, struct stat *found, GError **error);
/* A non-blocking connection to the UNIX socket @path, or -1 with errno: EAGAIN if too many wait
 * there already. */
int socket_connect(const char *path);
/*
 * Sockets that listen (migrate_way.c), or -1 with errno.  Names are looked up: without the lock.
 * @host NULL: at all addresses, of both families if the host has both.
 */
int socket_listen_tcp(const char *host, unsigned port);
int socket_listen_unix(const char *path);
