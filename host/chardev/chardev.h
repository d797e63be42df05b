/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A byte stream between a device (or monitor) and the host: a pty, a socket, a file, the
 * terminal, a test.  Thread: both directions run with the machine lock held.
 *
 * The device end sets .receive, .room, .event and .peer.  A chardev reads from the host only
 * as much as .room() says, so a slow guest holds the writer back and nothing is lost.
 */
enum chardev_event {
    CHARDEV_OPENED,
    CHARDEV_CLOSED,
    CHARDEV_BREAK,
    CHARDEV_FOCUS,   /* keys typed at the multiplexer now come here */
    CHARDEV_UNFOCUS, /* ... and now they do not */
};

struct chardev {
    char *id;
    const char *kind;   /* "stdio", "socket", ... */
    char *about;        /* "unix:/tmp/x,server=on": for `info chardev` */
    /* Host end; set by the backend. */
    size_t (*write)(struct chardev *chr, const void *data, size_t n); /* returns taken */
    void (*accept_input)(struct chardev *chr); /* the device has room again */
    void (*close)(struct chardev *chr);
    void (*hang_up)(struct chardev *chr); /* sends a client away; NULL: there is none */
    bool open;          /* somebody is at the other end */
    /* Device end; set by the device. */
    void (*receive)(void *peer, const uint8_t *data, size_t n);
    void (*receive_fd)(void *peer, int fd); /* a UNIX socket's; NULL: closed; before the bytes */
    size_t (*room)(void *peer);  /* NULL: any amount */
    bool (*listens)(void *peer); /* somebody has opened the device; NULL: always so */
    void (*event)(void *peer, enum chardev_event event);
    void (*writable)(void *peer); /* after a short write: try again now */
    void *peer;
    int log_fd;         /* logfile=: a copy of what is written; chardev.c's */
    size_t (*unlogged_write)(struct chardev *chr, const void *data, size_t n);
};

/*
 * Makes a chardev from QEMU's -serial/-monitor short form ("stdio", "mon:stdio", "null",
 * "pty", "file:PATH", "unix:PATH,server=on,wait=off", "tcp:...", "vc", "pipe:PATH") or from
 * -chardev's long form ("socket,id=c0,path=...,server=on").  NULL with a line for the user.
 */
struct chardev *chardev_new_short(const char *id, const char *spec, GError **error);
struct chardev *chardev_new(const char *options, GError **error);
/* NULL: none.  Of a multiplexer (mux=on) each call gives a new port: one for each user. */
struct chardev *chardev_find(const char *id);
/* Calls @each for all, in order of creation. */
void chardev_each(void (*each)(struct chardev *chr, void *owner), void *owner);
void chardevs_close(void); /* at exit: terminal settings back, sockets unlinked */
/* Takes one out of the list and closes it. */
void chardev_remove(struct chardev *chr);
/* Text of `-chardev help`. */
void chardev_kinds(GString *out);
/* After devices were attached: reads from the host what waits there already. */
void chardevs_start(void);
/* What a ringbuf or vc holds, taken out of it: at most @n bytes; NULL if @chr is none. */
char *chardev_ring_take(struct chardev *chr, size_t n);

/*
 * Several users of one byte stream, one of which has the keys: C-a c moves them on.  The
 * first port has them first.
 */
struct chardev *chardev_mux_new(struct chardev *base);
struct chardev *chardev_mux_port(struct chardev *mux, const char *id, GError **error);
bool chardev_is_mux(const struct chardev *chr);
/* -echr: the key that begins an escape, 1 to 255; Ctrl-A unless set. */
extern uint8_t chardev_escape_key;
/* C-a x.  Set by the owner of the machine. */
extern void (*chardev_quit)(void);
/* A server with wait=on is about to wait for its first client: tell the user. */
extern void (*chardev_waiting)(const char *about);

/* How many bytes were taken; the rest: wait for .writable.  NULL: swallows all. */
static inline size_t chardev_write(struct chardev *chr, const void *data, size_t n)
{
    return chr ? chr->write(chr, data, n) : n;
}

static inline void chardev_accept_input(struct chardev *chr)
{
    if (chr && chr->accept_input) {
        chr->accept_input(chr);
    }
}
