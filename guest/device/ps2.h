/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * ps2 - keyboard and mouse as they sit behind the keyboard controller
 *
 * Plain state, embedded in the controller (i8042.c), whose table has their fields.
 */
enum { PS2_QUEUE = 256 }; /* a line of text that a viewer pastes */

/* What waits to be sent; answers to commands empty it first. */
struct ps2_queue {
    uint8_t data[PS2_QUEUE];
    uint16_t first, n;
};

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command;  /* waits for its argument; 0: none */
    uint8_t last;     /* for resend */
    uint8_t scan_set; /* 1 or 2, before the controller's translation */
    uint8_t leds, rate;
    bool scanning;
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command, last;
    uint8_t rate, resolution;
    uint8_t id;       /* 0: plain, 3: with wheel, 4: with five buttons */
    uint8_t knocks;   /* how far the sequence of rates that asks for a wheel has come */
    bool reporting, remote, wrap, scaling;
    uint8_t buttons, buttons_sent;
    int32_t dx, dy, dz; /* not yet reported */
};

bool ps2_take(struct ps2_queue *q, uint8_t *byte); /* false if nothing waits */

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
/* @scancode: set 1, with 0x80 for the E0 prefix. */
void ps2_keyboard_key(struct ps2_keyboard *k, unsigned scancode, bool down);
/* The keyboard controller's translation: what set 2's @byte is in set 1. */
uint8_t ps2_translate(uint8_t byte);

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
/* Buttons: 1 left, 2 middle, 4 right (as VNC has them), 8 and 16 the side ones. */
void ps2_mouse_move(struct ps2_mouse *m, int x, int y, int wheel, unsigned buttons);

/* False if the values of a loaded state cannot be. */
bool ps2_queue_sane(const struct ps2_queue *q);
