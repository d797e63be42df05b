/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_input: keys and pointers as the events that Linux's input layer knows.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Input Device"; Linux,
 * include/uapi/linux/input-event-codes.h for the numbers.
 * A packet (what ends with EV_SYN) waits for buffers whole, or is lost whole.  What the driver
 * says (lamps) is taken and forgotten.
 */
#include "guest/device/virtio_input.h"

#include "base/bytes.h"
#include "base/util.h"

#include <linux/input-event-codes.h>

enum { EVENTS, STATUS, QUEUES, QUEUE_SIZE = 64, EVENT_BYTES = 8, BURST = 64 };
enum {
    CONFIG_NAME = 1,
    CONFIG_SERIAL = 2,
    CONFIG_IDS = 3,
    CONFIG_PROPERTIES = 0x10,
    CONFIG_EVENTS = 0x11,
    CONFIG_AXIS = 0x12
};
enum { SELECT_AT = 0, SUBSELECT_AT = 1, SIZE_AT = 2, DATA_AT = 8, DATA_BYTES = 128 };
enum { ABS_LAST = 0x7fff, VENDOR = 0x0627, VERSION = 2, BUS_IS_VIRTUAL = 6 };

static struct virtio_input *of(struct virtio *v)
{
    return container_of(v, struct virtio_input, base.virtio);
}

static struct virtio_input *self(struct device *dev)
{
    return container_of(dev, struct virtio_input, base.pci.dev);
}

/* ---- keys ---- */

/* Scan codes behind E0; the others have the same numbers in Linux as far as F12. */
static const uint8_t extended_keys[128] = {
    [0x10] = KEY_PREVIOUSSONG, [0x19] = KEY_NEXTSONG,   [0x1c] = KEY_KPENTER,
    [0x1d] = KEY_RIGHTCTRL,    [0x20] = KEY_MUTE,       [0x22] = KEY_PLAYPAUSE,
    [0x24] = KEY_STOPCD,       [0x2e] = KEY_VOLUMEDOWN, [0x30] = KEY_VOLUMEUP,
    [0x35] = KEY_KPSLASH,      [0x37] = KEY_SYSRQ,      [0x38] = KEY_RIGHTALT,
    [0x45] = KEY_PAUSE,        [0x46] = KEY_PAUSE,      [0x47] = KEY_HOME,
    [0x48] = KEY_UP,           [0x49] = KEY_PAGEUP,     [0x4b] = KEY_LEFT,
    [0x4d] = KEY_RIGHT,        [0x4f] = KEY_END,        [0x50] = KEY_DOWN,
    [0x51] = KEY_PAGEDOWN,     [0x52] = KEY_INSERT,     [0x53] = KEY_DELETE,
    [0x5b] = KEY_LEFTMETA,     [0x5c] = KEY_RIGHTMETA,  [0x5d] = KEY_COMPOSE,
    [0x5e] = KEY_POWER,        [0x5f] = KEY_SLEEP,      [0x63] = KEY_WAKEUP,
};
static const uint8_t plain_keys[128] = {
    [0x59] = KEY_KPEQUAL, [0x70] = KEY_KATAKANAHIRAGANA, [0x73] = KEY_RO,
    [0x79] = KEY_HENKAN,  [0x7b] = KEY_MUHENKAN,         [0x7d] = KEY_YEN,
    [0x7e] = KEY_KPCOMMA,
};

static uint16_t key_of(unsigned scancode)
{
    unsigned code = scancode & 0x7f;
    if (scancode & 0x80) {
        return extended_keys[code];
    }
    return code <= KEY_F12 ? (uint16_t)code : plain_keys[code];
}

static const uint16_t buttons[] = {BTN_LEFT, BTN_RIGHT, BTN_MIDDLE};
static const uint8_t button_bits[] = {1, 4, 2}; /* as the display counts them */

/* ---- events ---- */

static void give(struct virtio_input *s)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    uint8_t given = 0;
    while (given < s->waiting && virtio_ready(v, EVENTS) && (e = virtio_pop(v, EVENTS))) {
        uint8_t bytes[EVENT_BYTES];
        le16_put(bytes, s->type[given]);
        le16_put(bytes + 2, s->code[given]);
        le32_put(bytes + 4, s->value[given]);
        virtio_push(v, e, (uint32_t)virtio_put(e, 0, bytes, sizeof(bytes)));
        given++;
    }
    if (given) {
        s->waiting = (uint8_t)(s->waiting - given);
        memmove(s->type, s->type + given, s->waiting * sizeof(*s->type));
        memmove(s->code, s->code + given, s->waiting * sizeof(*s->code));
        memmove(s->value, s->value + given, s->waiting * sizeof(*s->value));
        virtio_interrupt(v, EVENTS);
    }
}

/* False: there is no room. */
static bool add(struct virtio_input *s, uint16_t type, uint16_t code, int32_t value)
{
    if (s->waiting == INPUT_WAITING) {
        return false;
    }
    s->type[s->waiting] = type;
    s->code[s->waiting] = code;
    s->value[s->waiting] = (uint32_t)value;
    s->waiting++;
    return true;
}

/* Ends the packet that began when @before events waited. */
static void finish(struct virtio_input *s, uint8_t before, bool whole)
{
    if (s->waiting > before && !(whole && add(s, EV_SYN, SYN_REPORT, 0))) {
        s->waiting = before;
    }
    give(s);
}

static void key(void *owner, unsigned scancode, bool down)
{
    struct virtio_input *s = owner;
    uint16_t code = key_of(scancode);
    uint8_t before = s->waiting;
    if (code) {
        finish(s, before, add(s, EV_KEY, code, down));
    }
}

static bool add_motion(struct virtio_input *s, int x, int y)
{
    bool whole = true;
    if (!s->kind->absolute) {
        whole = (!x || add(s, EV_REL, REL_X, x)) && (!y || add(s, EV_REL, REL_Y, y));
    } else if (x != s->at_x || y != s->at_y) {
        whole = add(s, EV_ABS, ABS_X, x) && add(s, EV_ABS, ABS_Y, y);
        s->at_x = whole ? x : s->at_x;
        s->at_y = whole ? y : s->at_y;
    }
    return whole;
}

static void pointer(void *owner, int x, int y, int wheel, unsigned pressed)
{
    struct virtio_input *s = owner;
    uint8_t before = s->waiting;
    unsigned changed = (pressed ^ s->buttons) & 7;
    bool whole = add_motion(s, x, y) && (!wheel || add(s, EV_REL, REL_WHEEL, -wheel));
    for (unsigned i = 0; whole && i < G_N_ELEMENTS(buttons); i++) {
        if (changed & button_bits[i]) {
            whole = add(s, EV_KEY, buttons[i], (pressed & button_bits[i]) != 0);
        }
    }
    s->buttons = whole ? (uint8_t)(pressed & 7) : s->buttons;
    finish(s, before, whole);
}

/* ---- configuration ---- */

static uint8_t bit(uint8_t *map, unsigned n)
{
    map[n / 8] |= (uint8_t)(1 << n % 8);
    return (uint8_t)(n / 8 + 1);
}

static uint8_t key_bits(const struct virtio_input *s, uint8_t *map)
{
    uint8_t used = 0;
    for (unsigned code = 0; s->kind->keys && code < 256; code++) {
        used = key_of(code) ? MAX(used, bit(map, key_of(code))) : used;
    }
    for (unsigned i = 0; !s->kind->keys && i < G_N_ELEMENTS(buttons); i++) {
        used = MAX(used, bit(map, buttons[i]));
    }
    return used;
}

static uint8_t event_bits(const struct virtio_input *s, unsigned type, uint8_t *map)
{
    switch (type) {
    case EV_KEY:
        return key_bits(s, map);
    case EV_REP:
        return s->kind->keys ? 1 : 0; /* the guest repeats by itself */
    case EV_LED:
        if (!s->kind->keys) {
            return 0;
        }
        bit(map, LED_NUML);
        bit(map, LED_CAPSL);
        return bit(map, LED_SCROLLL);
    case EV_REL:
        if (s->kind->keys) {
            return 0;
        }
        if (!s->kind->absolute) {
            bit(map, REL_X);
            bit(map, REL_Y);
        }
        return bit(map, REL_WHEEL);
    case EV_ABS:
        if (!s->kind->absolute) {
            return 0;
        }
        bit(map, ABS_X);
        return bit(map, ABS_Y);
    default:
        return 0;
    }
}

static uint8_t text(uint8_t *to, const char *from)
{
    size_t n = from ? MIN(strlen(from), (size_t)DATA_BYTES) : 0;
    memcpy(to, from ? from : "", n);
    return (uint8_t)n;
}

static uint8_t answer(const struct virtio_input *s, uint8_t select, uint8_t sub, uint8_t *to)
{
    switch (select) {
    case CONFIG_NAME:
        return sub ? 0 : text(to, s->kind->name);
    case CONFIG_SERIAL:
        return sub ? 0 : text(to, s->prop_serial);
    case CONFIG_IDS:
        le16_put(to, BUS_IS_VIRTUAL);
        le16_put(to + 2, VENDOR);
        le16_put(to + 4, s->kind->product);
        le16_put(to + 6, VERSION);
        return sub ? 0 : 8;
    case CONFIG_EVENTS:
        return event_bits(s, sub, to);
    case CONFIG_AXIS:
        if (s->kind->keys || !s->kind->absolute || sub > ABS_Y) {
            return 0;
        }
        le32_put(to + 4, ABS_LAST);
        return 20; /* least, most, fuzz, flat, resolution */
    default:
        return 0;
    }
}

/* What may be read follows from the two selectors. */
static void describe(struct virtio_input *s)
{
    uint8_t *c = s->base.virtio.config;
    memset(c + SIZE_AT, 0, DATA_AT + DATA_BYTES - SIZE_AT);
    c[SIZE_AT] = answer(s, c[SELECT_AT], c[SUBSELECT_AT], c + DATA_AT);
    if (!c[SIZE_AT]) {
        memset(c + DATA_AT, 0, DATA_BYTES);
    }
}

static void config_written(struct virtio *v, unsigned at, unsigned bytes, uint32_t value)
{
    for (unsigned i = 0; i < bytes && at + i <= SUBSELECT_AT; i++) {
        v->config[at + i] = (uint8_t)(value >> 8 * i);
    }
    describe(of(v));
}

/* ---- life ---- */

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_element *e;
    unsigned n = 0;
    if (queue == EVENTS) {
        give(of(v));
        return;
    }
    while (n++ < BURST && (e = virtio_pop(v, queue))) {
        virtio_push(v, e, 0);
    }
    virtio_interrupt(v, queue);
}

static void ready(struct virtio_input *s)
{
    struct display *d = s->base.pci.dev.board->display;
    if (d) {
        display_input_ready(d, &s->input, s->base.virtio.status & VIRTIO_DRIVER_OK);
    }
}

static void status_changed(struct virtio *v, uint8_t old)
{
    (void)old;
    ready(of(v));
}

static void reset_device(struct virtio *v)
{
    struct virtio_input *s = of(v);
    s->waiting = s->buttons = 0;
    s->at_x = s->at_y = -1;
    v->config[SELECT_AT] = v->config[SUBSELECT_AT] = 0;
    describe(s);
    ready(s);
}

static const struct virtio_model model = {
    .name = "virtio-input",
    .id = 18,
    .kick = kick,
    .reset = reset_device,
    .status_changed = status_changed,
    .config_written = config_written,
};

bool virtio_input_start(struct device *dev, GError **error)
{
    const struct input_ident *ident = container_of(dev->model->bus_data, struct input_ident, pci);
    struct virtio_input *s = self(dev);
    struct virtio *v = &s->base.virtio;
    s->kind = &ident->kind;
    v->model = &model;
    v->nqueues = QUEUES;
    v->queue_size_max[EVENTS] = v->queue_size_max[STATUS] = QUEUE_SIZE;
    v->config_bytes = DATA_AT + DATA_BYTES;
    if (!virtio_pci_start(&s->base, error)) {
        return false;
    }
    s->input = (struct display_input){.name = s->kind->name,
                                      .owner = s,
                                      .absolute = s->kind->absolute,
                                      .key = s->kind->keys ? key : NULL,
                                      .pointer = s->kind->keys ? NULL : pointer};
    if (dev->board->display) {
        display_add_input(dev->board->display, &s->input, false);
    }
    return true;
}

void virtio_input_stop(struct device *dev)
{
    if (dev->board->display) {
        display_remove_input(dev->board->display, &self(dev)->input);
    }
    virtio_pci_stop(dev);
}

bool virtio_input_loaded(struct device *dev, GError **error)
{
    struct virtio_input *s = self(dev);
    if (s->waiting > INPUT_WAITING) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u events wait, at most %d do", s->waiting,
                    INPUT_WAITING);
        return false;
    }
    describe(s);
    ready(s);
    return virtio_pci_loaded(dev, error);
}
