/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"
#include "host/chardev/chardev.h"

/*
 * For the files of this folder: a backend is a row, and most are a stream over one or two
 * descriptors.
 */
struct chardev_backend {
    const char *name;  /* "socket": the first word of -chardev */
    const char *about; /* one line for `-chardev help` */
    /* Takes its keys from @opts; sets .kind and .about; the core sets .id. */
    struct chardev *(*open)(KeyVal *opts, GError **error);
};

/* Generated from the list in meson.build. */
extern const struct chardev_backend *const chardev_backends[];
extern const unsigned n_chardev_backends;

struct stream {
    struct chardev chr; /* first */
    int in, out;        /* may be one descriptor; -1: none; owned */
    bool datagrams;     /* one read, one message */
    guint in_watch, out_watch;
    /* The other end is gone; NULL: reading just ends. */
    void (*hung_up)(struct stream *s);
    /* Whether somebody is there after all, asked before bytes go nowhere; NULL: nobody. */
    bool (*somebody)(struct stream *s);
    /* Looks at what was read and may shorten it in place; NULL: as it is. */
    size_t (*filter)(struct stream *s, uint8_t *data, size_t n);
};

/* Sets the functions of .chr.  Descriptors are taken over and made non-blocking by the
 * caller; stream_start() begins reading. */
void stream_init(struct stream *s, const char *kind, int in, int out);
void stream_start(struct stream *s);
/* Stops watching and closes the descriptors; the chardev stays. */
void stream_stop(struct stream *s);
/* What .close of a plain stream does. */
void stream_close(struct chardev *chr);

void chardev_tell(struct chardev *chr, enum chardev_event event);
/* Gives @n bytes to the device end, in as many steps as it has room for; returns how many. */
size_t chardev_offer(struct chardev *chr, const uint8_t *data, size_t n);
