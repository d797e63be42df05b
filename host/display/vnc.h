/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "host/display/display.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * vnc_server.c: clients, in a thread of their own
 *
 * libvncserver waits for a client that reads or writes slowly.  So it runs in a thread of
 * ours that owns all its state, never takes the machine lock, and has a copy of the screen.
 * What clients do comes out as struct vnc_input.
 */
enum vnc_what { VNC_KEYSYM, VNC_SCANCODE, VNC_POINTER, VNC_COUNT };

struct vnc_input {
    enum vnc_what what;
    uint32_t code;       /* keysym or scan code; VNC_COUNT: how many clients there are now */
    bool down;
    int x, y;            /* VNC_POINTER: place on the screen, or motion if .relative */
    bool relative;
    unsigned buttons;    /* RFB's mask: left, middle, right, wheel up, wheel down */
    enum vnc_step step;  /* VNC_COUNT: why it is told, and of whom */
    struct vnc_end client;
};

struct vnc_config {
    const int *listener; /* sockets that listen; closed by vnc_server_stop() */
    unsigned n_listeners;
    bool password;       /* wanted; nobody gets in before one is set */
    enum { VNC_SHARE_EXCLUSIVE, VNC_SHARE_FORCED, VNC_SHARE_IGNORE } share;
    /* Main loop: takes what clients did; machine lock held. */
    void (*input)(const struct vnc_input *in);
};

bool vnc_server_start(const struct vnc_config *config, GError **error);
void vnc_server_stop(void);
/* Main loop.  A new size; the picture is black until it is put. */
void vnc_server_resize(unsigned w, unsigned h);
/* Copies a rectangle; only what differs is sent. */
void vnc_server_put(const uint32_t *pixels, unsigned stride, unsigned x, unsigned y, unsigned w,
                    unsigned h);
void vnc_server_password(const char *text);
void vnc_server_expire(int64_t at); /* seconds since 1970 */
void vnc_server_pointer_mode(bool absolute);
unsigned vnc_server_clients(struct vnc_end *out, unsigned most);
/* What getsockname() or getpeername() says. */
bool vnc_end_of(int fd, bool peer, struct vnc_end *out);
