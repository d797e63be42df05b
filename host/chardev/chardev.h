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
enum chardev_event { CHARDEV_OPENED, CHARDEV_CLOSED, CHARDEV_BREAK };

struct chardev {
    char *id;
    const char *kind;   /* "stdio", "socket", ... */
    char *about;        /* "unix:/tmp/x,server=on": for `info chardev` */
    /* Host end; set by the backend. */
    size_t (*write)(struct chardev *chr, const void *data, size_t n); /* returns taken */
    void (*accept_input)(struct chardev *chr); /* the device has room again */
    void (*close)(struct chardev *chr);
    bool open;          /* somebody is at the other end */
    /* Device end; set by the device. */
    void (*receive)(void *peer, const uint8_t *data, size_t n);
    size_t (*room)(void *peer);  /* NULL: any amount */
    void (*event)(void *peer, enum chardev_event event);
    void (*writable)(void *peer); /* after a short write: try again now */
    void *peer;
};

/*
 * Makes a chardev from QEMU's -serial/-monitor short form ("stdio", "mon:stdio", "null",
 * "pty", "file:PATH", "unix:PATH,server=on,wait=off", "tcp:...", "vc", "pipe:PATH") or from
 * -chardev's long form ("socket,id=c0,path=...,server=on").  NULL with a line for the user.
 */
struct chardev *chardev_new_short(const char *id, const char *spec, GError **error);
struct chardev *chardev_new(const char *options, GError **error);
struct chardev *chardev_find(const char *id);
/* Calls @each for all, in order of creation. */
void chardev_each(void (*each)(struct chardev *chr, void *owner), void *owner);
void chardevs_close(void); /* at exit: terminal settings back, sockets unlinked */

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
