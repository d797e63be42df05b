/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The screen, keyboard and pointer of the machine: devices on one side (VGA draws, i8042
 * takes keys), viewers on the other (VNC, screendump).  One screen a machine.
 * Thread: machine lock held.
 */
struct display {
    /* Pixels, 32 bits each, 0x00RRGGBB, rows .stride bytes apart; owned by the adapter's
     * device and valid until its next resize. */
    uint32_t *pixels;
    unsigned width, height, stride;

    /* The adapter's end: bring .pixels up to date, calling display_changed(). */
    void (*refresh)(void *adapter);
    void *adapter;

    struct display_input *inputs; /* the latest first: of the ready ones it is asked first */
    bool pointer_absolute;        /* of the one that has the pointer */

    struct display_viewer *viewers;
    unsigned timer_ms, timer; /* the shortest interval of a viewer, its GLib source; 0: none */
};

/* A keyboard, a pointer, or both; .ready and .next are the display's. */
struct display_input {
    const char *name; /* "QEMU HID Tablet": for monitors */
    /* Set 1 scan codes with 0x80 for the E0 prefix; NULL: no keys. */
    void (*key)(void *owner, unsigned scancode, bool down);
    /* Relative motion in pixels, or absolute 0..32767 if .absolute; wheel steps.  Buttons: 1
     * left, 2 middle, 4 right.  NULL: no pointer. */
    void (*pointer)(void *owner, int x, int y, int wheel, unsigned buttons);
    void *owner;
    bool absolute, ready;
    struct display_input *next;
};

struct display_viewer {
    void (*pointer_mode)(struct display_viewer *v); /* .pointer_absolute has changed */
    void (*resized)(struct display_viewer *v);
    void (*changed)(struct display_viewer *v, unsigned x, unsigned y, unsigned w, unsigned h);
    struct display_viewer *next;
    unsigned interval_ms; /* how often it wants refresh(); 0: never on its own */
};

struct display *display_new(void);
void display_resize(struct display *d, uint32_t *pixels, unsigned w, unsigned h, unsigned stride);
void display_changed(struct display *d, unsigned x, unsigned y, unsigned w, unsigned h);
void display_add_viewer(struct display *d, struct display_viewer *v);
void display_remove_viewer(struct display *d, struct display_viewer *v);
void display_add_input(struct display *d, struct display_input *in, bool ready);
void display_remove_input(struct display *d, struct display_input *in); /* one that is not there is fine */
/* The guest has begun to listen to it, or does no more. */
void display_input_ready(struct display *d, struct display_input *in, bool ready);
/* Who has the pointer; @after: who would without it and those before it.  NULL: nobody. */
struct display_input *display_pointer_input(struct display *d, const struct display_input *after);
void display_key(struct display *d, unsigned scancode, bool down);
void display_pointer(struct display *d, int x, int y, int wheel, unsigned buttons);
/* Writes the screen as PPM or PNG (by @format: "ppm", "png"). */
bool display_dump(struct display *d, const char *path, const char *format, GError **error);
/* QEMU key names ("ret", "ctrl", "a") to scan codes; 0 if there is none. */
unsigned display_scancode(const char *qcode_name);
/* The other way round: for the text of events and logs; NULL if there is none. */
const char *display_key_name(unsigned scancode);

/* Of -k, NULL is fine; the error says which there are. */
bool vnc_keymap_is_known(const char *keymap, GError **error);
/* VNC server by -vnc's argument (":0", "127.0.0.1:1,password=on", "unix:/path", "none");
 * with to=N the first free display up to N is taken. */
bool vnc_start(struct display *d, const char *options, const char *keymap, GError **error);
void vnc_stop(void);
/* Of -vnc password=on: nobody gets in before it is set.  At most 8 bytes count.  False:
 * there is no VNC server, or it was started without password=on. */
bool vnc_set_password(const char *password, GError **error);
/* Whoever comes @at or later, in seconds since 1970, does not get in; INT64_MAX: never too late.
 * Fails as vnc_set_password(). */
bool vnc_expire_password(int64_t at, GError **error);
/* One end of a connection, or where the server listens. */
struct vnc_end {
    char host[108], service[16]; /* a UNIX socket's path is its host */
    const char *family;          /* "ipv4", "ipv6", "unix" */
    bool websocket;
};
enum vnc_step { VNC_CONNECTED, VNC_INITIALIZED, VNC_DISCONNECTED };
/* Told of each client; set by whoever wants to know.  Main loop, machine lock held. */
extern void (*vnc_told)(enum vnc_step step, const struct vnc_end *client);
bool vnc_server(struct vnc_end *out); /* false: there is none */
/* "127.0.0.1:5900", "[::1]:5900", "unix:PATH". */
void vnc_end_text(const struct vnc_end *end, GString *out);
const char *vnc_auth(void);           /* "none", "vnc" */
unsigned vnc_clients(struct vnc_end *out, unsigned most);
