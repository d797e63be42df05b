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
/*
 * That a file answered says little of the next call: the kernel remembers what it looks like.  So
 * whatever is done to such a file is done on a thread of its own, with or without the daemon lock,
 * which is given up meanwhile.
 *
 * Runs @act with @data.  False with ERR_OPERATION_TIMEOUT if @path, which it is about, did not
 * answer within FILES_SECONDS: then @data is @drop's, when @act has ended after all or at once.
 * @drop gets what @act has left or, not begun, what it was given.
 */
bool file_act(const char *path, void (*act)(void *data), void *data, void (*drop)(void *data),
              GError **error);
/*
 * The same for what may take long: as long as the server answers other questions, or @act says that
 * it goes on.  What is on no path of this host cannot be asked.
 */
bool file_work(const char *path, void (*act)(void *data), void *data, void (*drop)(void *data),
               GError **error);
void file_goes_on(void); /* by @act; elsewhere it does nothing */
/* Whether the server of @path, which is busy with something, answers all the same; lock held, given
 * up meanwhile. */
bool file_server_answers(const char *path);
/*
 * As the system's calls: -1 with errno, ETIMEDOUT if there was no answer.  What is done after that
 * is undone: who got no answer has not done it.  Nobody waits for who reads a pipe.  What is open
 * goes to @st; O_TRUNC is for regular files only.
 */
int path_stat(const char *path, struct stat *st);
int path_open(const char *path, int flags, mode_t mode, struct stat *st);
int path_chown(const char *path, uid_t uid);
/* To root, if it is @from's; who does not hold the lock waits for as long as it takes. */
int path_take_back(const char *path, uid_t from);
int path_empty(const char *path);
int path_unlink(const char *path);
int path_rename(const char *from, const char *to);
/* What errno says of @path after @words, or that it does not answer. */
void path_error(GError **error, int code, const char *words, const char *path);
/* Closes, which may wait for the server, too: nobody waits for that. */
void fd_let_go(int fd);
static inline void fd_let_go_cleanup(int *fd)
{
    fd_let_go(*fd);
}
#define autofile __attribute__((cleanup(fd_let_go_cleanup)))
/* A non-blocking connection to the UNIX socket @path, or -1 with errno: EAGAIN if too many wait
 * there already. */
int socket_connect(const char *path);
/*
 * Sockets that listen (migrate_way.c), or -1 with errno.  Names are looked up: without the lock.
 * @host NULL: at all addresses, of both families if the host has both.
 */
int socket_listen_tcp(const char *host, unsigned port);
int socket_listen_unix(const char *path);
