/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>

/*
 * lodged as a whole: the lock, the places, the life.
 *
 * Threads: the main loop owns sockets and timers; verbs that may wait run on worker threads.
 * All state belongs to the daemon lock.  Callbacks of the main loop do not hold it and take it
 * where they touch state.  Whoever waits (a machine's monitor, a disk, a child process) gives
 * it up meanwhile and finds the world changed afterwards: hold a reference on what you need.
 */
void daemon_lock(void);
void daemon_unlock(void);
bool daemon_lock_held(void); /* by this thread; for assertions */
/* Gives the lock up until somebody has called daemon_wake(), or up to @end of
 * g_get_monotonic_time(): then false.  Who waits looks again at what it waits for. */
bool daemon_wait(gint64 end);
void daemon_wake(void);
/*
 * A turn belongs to one caller at a time, who may give the lock up meanwhile: what is written to
 * the disk comes one after the other.  Waits a while for who has it.
 */
bool daemon_take_turn(bool *turn, GError **error);
void daemon_end_turn(bool *turn);
/* How long a wait for somebody else takes that should take @seconds: less with LODGED_PATIENCE in
 * the environment, so that tests of time-outs need not last. */
unsigned daemon_patience(unsigned seconds);

/*
 * DAEMON_RUN is gone after a restart of the host, DAEMON_ETC holds definitions, DAEMON_VAR what
 * is large.  With `--root DIR` they are DIR/run, DIR/etc and DIR/var.
 */
enum daemon_place { DAEMON_RUN, DAEMON_ETC, DAEMON_VAR };
/* A path below the place from the names that follow, NULL last.  The caller frees it. */
char *daemon_path(enum daemon_place place, ...) G_GNUC_NULL_TERMINATED;
/* The same, and its folder (not the last name) is made with @mode. */
char *daemon_path_make(enum daemon_place place, int mode, GError **error,
                       ...) G_GNUC_NULL_TERMINATED;
/* The folder for clients' sockets: DIR/run/libvirt, /run/libvirt or $XDG_RUNTIME_DIR/libvirt. */
const char *daemon_socket_folder(void);
bool daemon_is_session(void); /* of one user, who need not be root */
/* NULL without --root. */
const char *daemon_root(void);
/* Full path of a program of ours ("lodge-vm"): beside lodged itself, else from PATH. */
char *daemon_program(const char *name);
/*
 * @text as file @path, whole or not at all, after a power cut too.  It waits for the disk: who
 * holds the daemon lock makes others wait too.  Threads that write into one folder share its
 * flushes.
 */
bool daemon_write_file(const char *path, const char *text, gssize n, int mode, GError **error);
/* The same, and its folder, by who holds the daemon lock, which is given up meanwhile.  In a turn.
 */
bool daemon_keep_file(const char *path, const char *text, int mode, GError **error);
/* The other way; it need not be there. */
bool daemon_forget_file(const char *path, GError **error);
/* The same for what need not outlive the host (DAEMON_RUN): nothing is flushed. */
bool daemon_note_file(const char *path, const char *text, GError **error);
/* At start: takes away what a lodged that was killed has left by halves. */
void daemon_sweep(void);

/* What a part of the daemon does at start and end, in the order of the table in daemon.c. */
struct daemon_room {
    const char *name;
    /* Before the sockets open, daemon lock held. */
    bool (*start)(GError **error);
    /* After they closed, daemon lock held.  Machines stay running.  Optional. */
    void (*stop)(void);
};

/* Leaves the main loop, from any thread. */
void daemon_quit(void);
/*
 * Threads for whatever may wait; @work is called without the daemon lock.  Each client has a lane
 * of its own for its calls and streams: while many wait for a sick machine, who has nothing on a
 * thread yet gets one all the same.
 */
struct lane;
struct lane *lane_new(void);
void lane_free(struct lane *lane); /* what is in it is done all the same */
void lane_work(struct lane *lane, void (*work)(void *), void *data);
/* The daemon's own. */
void daemon_worker(void (*work)(void *), void *data);
/* The other way, from any thread: @errand runs once on the main loop. */
void daemon_in_loop(int priority, void (*errand)(void *), void *data);

/* One line in the log.  Any thread. */
void daemon_log(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* main() of lodged. */
int daemon_main(int argc, char **argv);
