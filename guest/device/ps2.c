/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ps2: the keyboard's and the mouse's end of the PS/2 protocol.
 *
 * Spec: IBM, "Personal System/2 Hardware Interface Technical Reference", "Keyboards (101-
 * and 102-Key)" and "Mouse"; Microsoft, "Key Scan Code Specification", revision 1.3a;
 * Microsoft, "IntelliMouse" wheel protocol.
 * Not modelled: scan code set 3, typematic repeat (viewers repeat keys themselves).
 */
#include "guest/device/ps2.h"

#include <glib.h>
#include <string.h>

enum { ACK = 0xfa, RESEND = 0xfe, TEST_OK = 0xaa };

/* ---- queues ---- */

static unsigned room(const struct ps2_queue *q)
{
    return PS2_QUEUE - q->n;
}

static void put(struct ps2_queue *q, uint8_t byte)
{
    if (room(q)) {
        q->data[(q->first + q->n++) % PS2_QUEUE] = byte;
    }
}

static void put_all(struct ps2_queue *q, const uint8_t *bytes, unsigned n)
{
    if (room(q) >= n) { /* a key or a packet is sent whole or not at all */
        for (unsigned i = 0; i < n; i++) {
            put(q, bytes[i]);
        }
    }
}

static void answer(struct ps2_queue *q, uint8_t byte)
{
    q->n = 0;
    put(q, byte);
}

bool ps2_take(struct ps2_queue *q, uint8_t *byte)
{
    if (!q->n) {
        return false;
    }
    *byte = q->data[q->first];
    q->first = (uint16_t)((q->first + 1) % PS2_QUEUE);
    q->n--;
    return true;
}

bool ps2_queue_sane(const struct ps2_queue *q)
{
    return q->first < PS2_QUEUE && q->n <= PS2_QUEUE;
}

/* ---- keyboard ---- */

/* Scan codes of set 2 by those of set 1; 0: no key. */
static const uint8_t set2_of[128] = {
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
    0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
    0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
};

uint8_t ps2_translate(uint8_t byte)
{
    for (unsigned i = 1; i < G_N_ELEMENTS(set2_of); i++) {
        if (set2_of[i] == byte) {
            return (uint8_t)i;
        }
    }
    return byte; /* answers, prefixes */
}

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->scan_set = 2;
    k->rate = 0x2b;
    k->command = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    *k = (struct ps2_keyboard){.scanning = true};
    keyboard_defaults(k);
}

static void keyboard_argument(struct ps2_keyboard *k, uint8_t command, uint8_t v)
{
    switch (command) {
    case 0xed:
        k->leds = v & 7;
        break;
    case 0xf3:
        k->rate = v;
        break;
    case 0xf0:
        if (v > 2) {
            answer(&k->out, RESEND);
            return;
        }
        answer(&k->out, ACK);
        if (v == 0) {
            put(&k->out, k->scan_set);
        } else {
            k->scan_set = v;
        }
        return;
    default:
        break;
    }
    answer(&k->out, ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t waiting = k->command;
    k->command = 0;
    if (waiting && byte < 0xe0) {
        keyboard_argument(k, waiting, byte);
        return;
    }
    switch (byte) {
    case 0xee:
        answer(&k->out, 0xee); /* echo */
        return;
    case 0xfe:
        answer(&k->out, k->last);
        return;
    case 0xed:
    case 0xf0:
    case 0xf3:
        k->command = byte;
        break;
    case 0xf2:
        answer(&k->out, ACK);
        put(&k->out, 0xab);
        put(&k->out, 0x83);
        return;
    case 0xf4:
        k->scanning = true;
        break;
    case 0xf5:
        keyboard_defaults(k);
        k->scanning = false;
        break;
    case 0xf6:
        keyboard_defaults(k);
        break;
    case 0xff:
        ps2_keyboard_reset(k);
        answer(&k->out, ACK);
        put(&k->out, TEST_OK);
        return;
    case 0xf7 ... 0xfd: /* key types of set 3 */
        break;
    default:
        answer(&k->out, RESEND);
        return;
    }
    answer(&k->out, ACK);
}

enum { KEY_PRINT = 0xb7, KEY_PAUSE = 0xc6 };

static void key_set1(struct ps2_keyboard *k, unsigned code, bool down)
{
    uint8_t seq[2] = {0xe0, (uint8_t)((code & 0x7f) | (down ? 0 : 0x80))};
    bool prefixed = code & 0x80;
    put_all(&k->out, seq + !prefixed, 1u + prefixed);
}

static void key_set2(struct ps2_keyboard *k, unsigned code, bool down)
{
    uint8_t seq[3];
    unsigned n = 0;
    if (!set2_of[code & 0x7f]) {
        return;
    }
    if (code & 0x80) {
        seq[n++] = 0xe0;
    }
    if (!down) {
        seq[n++] = 0xf0;
    }
    seq[n++] = set2_of[code & 0x7f];
    put_all(&k->out, seq, n);
}

void ps2_keyboard_key(struct ps2_keyboard *k, unsigned scancode, bool down)
{
    static const uint8_t pause1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t pause2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    if (!k->scanning || scancode > 0xff) {
        return;
    }
    if (scancode == KEY_PAUSE) { /* has no break code */
        if (down) {
            put_all(&k->out, k->scan_set == 1 ? pause1 : pause2,
                    k->scan_set == 1 ? sizeof(pause1) : sizeof(pause2));
        }
    } else if (k->scan_set == 1) {
        key_set1(k, scancode, down);
    } else {
        key_set2(k, scancode, down);
    }
}

/* ---- mouse ---- */

static void mouse_defaults(struct ps2_mouse *m)
{
    m->rate = 100;
    m->resolution = 2;
    m->scaling = m->reporting = m->remote = false;
    m->dx = m->dy = m->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    *m = (struct ps2_mouse){.id = 0};
    mouse_defaults(m);
}

static int take_axis(int32_t *left, int least, int most)
{
    int v = CLAMP(*left, least, most);
    *left -= v;
    return v;
}

static void packet(struct ps2_mouse *m)
{
    static const uint8_t order[8] = {0, 1, 4, 5, 2, 3, 6, 7}; /* left, right, middle */
    int x = take_axis(&m->dx, -255, 255), y = take_axis(&m->dy, -255, 255);
    uint8_t p[4] = {(uint8_t)(8 | order[m->buttons & 7] | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0)),
                    (uint8_t)x, (uint8_t)y};
    unsigned n = 3;
    if (m->id == 3) {
        p[n++] = (uint8_t)take_axis(&m->dz, -127, 127);
    } else if (m->id == 4) {
        int z = take_axis(&m->dz, -7, 7);
        p[n++] = (uint8_t)((z & 0x0f) | (m->buttons & 0x18) << 1);
    } else {
        m->dz = 0;
    }
    m->buttons_sent = m->buttons;
    for (unsigned i = 0; i < n; i++) {
        put(&m->out, p[i]);
    }
}

/* Movements behind a backlog are added up: the pointer is not to lag behind the hand. */
enum { MOUSE_BACKLOG = 48, MOST_MOVED = 100000 };

void ps2_mouse_move(struct ps2_mouse *m, int x, int y, int wheel, unsigned buttons)
{
    if (!m->reporting) {
        return;
    }
    m->dx = CLAMP(m->dx + CLAMP(x, -MOST_MOVED, MOST_MOVED), -MOST_MOVED, MOST_MOVED);
    m->dy = CLAMP(m->dy - CLAMP(y, -MOST_MOVED, MOST_MOVED), -MOST_MOVED, MOST_MOVED);
    m->dz = CLAMP(m->dz + CLAMP(wheel, -100, 100), -MOST_MOVED, MOST_MOVED);
    m->buttons = (uint8_t)(buttons & 0x1f);
    while (!m->remote && m->out.n <= MOUSE_BACKLOG &&
           (m->dx || m->dy || m->dz || m->buttons != m->buttons_sent)) {
        packet(m);
    }
}

/* Rates 200, 100, 80 switch the wheel on; then 200, 200, 80 the side buttons. */
static void knock(struct ps2_mouse *m, uint8_t rate)
{
    static const uint8_t wheel[] = {200, 100, 80}, five[] = {200, 200, 80};
    const uint8_t *want = m->id == 0 ? wheel : five;
    if (m->id == 4) {
        return;
    }
    m->knocks = rate == want[m->knocks] ? m->knocks + 1 : rate == 200;
    if (m->knocks == 3) {
        m->id = m->id == 0 ? 3 : 4;
        m->knocks = 0;
    }
}

static void mouse_status(struct ps2_mouse *m)
{
    static const uint8_t order[8] = {0, 4, 2, 6, 1, 5, 3, 7};
    put(&m->out, (uint8_t)(order[m->buttons & 7] | (m->scaling ? 0x10 : 0) |
                           (m->reporting ? 0x20 : 0) | (m->remote ? 0x40 : 0)));
    put(&m->out, m->resolution);
    put(&m->out, m->rate);
}

/* Commands without an argument; false if there is no such. */
static bool mouse_command(struct ps2_mouse *m, uint8_t byte)
{
    switch (byte) {
    case 0xe6:
    case 0xe7:
        m->scaling = byte == 0xe7;
        return true;
    case 0xea:
        m->remote = false;
        return true;
    case 0xec:
        m->wrap = false;
        return true;
    case 0xee:
        m->wrap = true;
        return true;
    case 0xf0:
        m->remote = true;
        return true;
    case 0xf4:
        m->reporting = true;
        return true;
    case 0xf5:
        m->reporting = false;
        return true;
    case 0xf6:
        mouse_defaults(m);
        return true;
    case 0xe8:
    case 0xf3:
        m->command = byte;
        return true;
    default:
        return byte == 0xe9 || byte == 0xeb || byte == 0xf2 || byte == 0xff;
    }
}

static void mouse_argument(struct ps2_mouse *m, uint8_t command, uint8_t v)
{
    if (command == 0xf3) {
        m->rate = v;
        knock(m, v);
    } else {
        m->resolution = v & 3;
    }
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t waiting = m->command;
    m->command = 0;
    if (waiting) {
        mouse_argument(m, waiting, byte);
        answer(&m->out, ACK);
        return;
    }
    if (m->wrap && byte != 0xec && byte != 0xff) {
        answer(&m->out, byte);
        return;
    }
    if (byte == 0xfe) {
        answer(&m->out, m->last);
        return;
    }
    if (!mouse_command(m, byte)) {
        answer(&m->out, RESEND);
        return;
    }
    answer(&m->out, ACK);
    if (byte == 0xe9) {
        mouse_status(m);
    } else if (byte == 0xeb) {
        packet(m);
    } else if (byte == 0xf2) {
        put(&m->out, m->id);
    } else if (byte == 0xff) {
        ps2_mouse_reset(m);
        answer(&m->out, ACK);
        put(&m->out, TEST_OK);
        put(&m->out, 0);
    }
}
