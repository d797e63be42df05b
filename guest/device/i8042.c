/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i8042: keyboard controller with keyboard and mouse, A20 gate and reset line.
 *
 * Spec: IBM, "Personal System/2 Hardware Interface Technical Reference", "Keyboard and
 * Auxiliary Device Controller".
 * Bytes arrive in no time: the next one is there when the last was read.
 */
#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"
#include "guest/device/ps2.h"
#include "host/display/display.h"

enum { STATUS_FULL = 1, STATUS_SYSTEM = 4, STATUS_COMMAND = 8, STATUS_UNLOCKED = 0x10,
       STATUS_AUX = 0x20 };
enum { MODE_KEY_IRQ = 1, MODE_AUX_IRQ = 2, MODE_SYSTEM = 4, MODE_KEY_OFF = 0x10,
       MODE_AUX_OFF = 0x20, MODE_TRANSLATE = 0x40 };
enum { OUT_RUN = 1, OUT_A20 = 2 };
enum source { FROM_NOBODY, FROM_CONTROLLER, FROM_KEYBOARD, FROM_MOUSE, FROM_WRITE_AUX };

struct i8042 {
    struct device dev;
    struct display_input input;
    struct irq *irq_key, *irq_aux;
    uint8_t status; /* SYSTEM and COMMAND only */
    uint8_t ram[32]; /* byte 0 is the mode */
    uint8_t output_port, data, source;
    uint8_t command;     /* waits for its byte at port 60h; 0: none */
    bool release;        /* translation: F0 was seen */
    struct ps2_keyboard kbd;
    struct ps2_mouse mouse;
    struct device_window window[2];
};

static struct i8042 *self(struct device *dev)
{
    return container_of(dev, struct i8042, dev);
}

static bool aux(const struct i8042 *s)
{
    return s->source == FROM_MOUSE || s->source == FROM_WRITE_AUX;
}

static void reply(struct i8042 *s, uint8_t byte, enum source source)
{
    s->data = byte;
    s->source = source;
}

/* A byte of the keyboard as port 60h shows it; false if it was only a part of one. */
static bool translate(struct i8042 *s, uint8_t *byte)
{
    if (!(s->ram[0] & MODE_TRANSLATE)) {
        return true;
    }
    if (*byte == 0xf0) {
        s->release = true;
        return false;
    }
    *byte = ps2_translate(*byte);
    if (s->release && *byte < 0x80) {
        *byte |= 0x80;
    }
    s->release = false;
    return true;
}

/* Fills an empty output buffer with what waits. */
static void fill(struct i8042 *s)
{
    uint8_t byte;
    while (s->source == FROM_NOBODY && !(s->ram[0] & MODE_KEY_OFF) &&
           ps2_take(&s->kbd.out, &byte)) {
        s->kbd.last = byte;
        if (translate(s, &byte)) {
            reply(s, byte, FROM_KEYBOARD);
        }
    }
    if (s->source == FROM_NOBODY && !(s->ram[0] & MODE_AUX_OFF) &&
        ps2_take(&s->mouse.out, &byte)) {
        s->mouse.last = byte;
        reply(s, byte, FROM_MOUSE);
    }
}

static void drive(struct i8042 *s)
{
    bool full = s->source != FROM_NOBODY;
    irq_set(s->irq_key, full && !aux(s) && (s->ram[0] & MODE_KEY_IRQ));
    irq_set(s->irq_aux, full && aux(s) && (s->ram[0] & MODE_AUX_IRQ));
}

static void settle(struct device *dev)
{
    fill(self(dev));
    drive(self(dev));
}

/* ---- from the host ---- */

static void on_key(void *keyboard, unsigned scancode, bool down)
{
    struct i8042 *s = keyboard;
    ps2_keyboard_key(&s->kbd, scancode, down);
    settle(&s->dev);
}

static void on_pointer(void *mouse, int x, int y, int wheel, unsigned buttons)
{
    struct i8042 *s = mouse;
    ps2_mouse_move(&s->mouse, x, y, wheel, buttons);
    settle(&s->dev);
}

/* ---- port 60h ---- */

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    struct i8042 *s = self(dev);
    (void)stored;
    s->source = FROM_NOBODY;
    drive(s); /* so that the next byte makes an edge */
    return s->data;
}

static void output_port_write(struct i8042 *s, uint8_t v)
{
    uint8_t changed = s->output_port ^ v;
    s->output_port = v;
    if (changed & OUT_A20) {
        vcpus_set_a20(v & OUT_A20);
    }
    if (!(v & OUT_RUN) && s->dev.board->request) {
        s->dev.board->request(s->dev.board, BOARD_RESET, 0);
    }
}

/* The byte that a command at port 64h has asked for. */
static void command_argument(struct i8042 *s, uint8_t command, uint8_t v)
{
    switch (command) {
    case 0x60 ... 0x7f:
        s->ram[command & 31] = v;
        break;
    case 0xd1:
        output_port_write(s, v);
        break;
    case 0xd2:
        reply(s, v, FROM_CONTROLLER);
        break;
    case 0xd3:
        reply(s, v, FROM_WRITE_AUX);
        break;
    default:
        s->ram[0] &= (uint8_t)~MODE_AUX_OFF;
        ps2_mouse_write(&s->mouse, v);
        break;
    }
}

static void data_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct i8042 *s = self(dev);
    uint8_t command = s->command;
    (void)old;
    s->status &= (uint8_t)~STATUS_COMMAND;
    s->command = 0;
    if (command) {
        command_argument(s, command, (uint8_t)now);
    } else {
        s->ram[0] &= (uint8_t)~MODE_KEY_OFF; /* writing to it switches the keyboard on */
        ps2_keyboard_write(&s->kbd, (uint8_t)now);
    }
}

/* ---- port 64h ---- */

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    struct i8042 *s = self(dev);
    return stored | STATUS_UNLOCKED | (s->source != FROM_NOBODY ? STATUS_FULL : 0) |
           (aux(s) ? STATUS_AUX : 0);
}

static void self_test(struct i8042 *s)
{
    s->status |= STATUS_SYSTEM;
    s->ram[0] |= MODE_SYSTEM;
    reply(s, 0x55, FROM_CONTROLLER);
}

static uint8_t output_port_read(const struct i8042 *s)
{
    bool full = s->source != FROM_NOBODY;
    return (uint8_t)((s->output_port & 0xcf) | (full && !aux(s) ? 0x10 : 0) |
                     (full && aux(s) ? 0x20 : 0));
}

static void command_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct i8042 *s = self(dev);
    uint8_t v = (uint8_t)now;
    (void)old;
    s->status |= STATUS_COMMAND;
    s->command = 0;
    switch (v) {
    case 0x20 ... 0x3f:
        reply(s, s->ram[v & 31], FROM_CONTROLLER);
        break;
    case 0x60 ... 0x7f:
    case 0xd1 ... 0xd4:
        s->command = v;
        break;
    case 0xa7:
        s->ram[0] |= MODE_AUX_OFF;
        break;
    case 0xa8:
        s->ram[0] &= (uint8_t)~MODE_AUX_OFF;
        break;
    case 0xa9: /* test of the mouse's and the keyboard's lines: no fault */
    case 0xab:
        reply(s, 0, FROM_CONTROLLER);
        break;
    case 0xaa:
        self_test(s);
        break;
    case 0xad:
        s->ram[0] |= MODE_KEY_OFF;
        break;
    case 0xae:
        s->ram[0] &= (uint8_t)~MODE_KEY_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked */
        reply(s, 0x80, FROM_CONTROLLER);
        break;
    case 0xd0:
        reply(s, output_port_read(s), FROM_CONTROLLER);
        break;
    case 0xdd:
        output_port_write(s, s->output_port & (uint8_t)~OUT_A20);
        break;
    case 0xdf:
        output_port_write(s, s->output_port | OUT_A20);
        break;
    case 0xe0: /* test inputs: clock and data of the keyboard are high */
        reply(s, 3, FROM_CONTROLLER);
        break;
    case 0xf0 ... 0xff: /* pulses output lines whose bit is 0; line 0 is reset */
        if (!(v & OUT_RUN) && dev->board->request) {
            dev->board->request(dev->board, BOARD_RESET, 0);
        }
        break;
    default:
        break;
    }
}

/* ---- life ---- */

static void reset(struct device *dev)
{
    struct i8042 *s = self(dev);
    s->ram[0] = MODE_KEY_IRQ | MODE_AUX_IRQ | MODE_TRANSLATE; /* as firmware leaves it */
    s->output_port = 0xcc | OUT_RUN | OUT_A20;
    ps2_keyboard_reset(&s->kbd);
    ps2_mouse_reset(&s->mouse);
}

static bool loaded(struct device *dev, GError **error)
{
    struct i8042 *s = self(dev);
    enum { FAR = 1 << 20 };
    if (!ps2_queue_sane(&s->kbd.out) || !ps2_queue_sane(&s->mouse.out) ||
        s->source > FROM_WRITE_AUX || s->mouse.knocks > 2 || s->kbd.scan_set < 1 ||
        s->kbd.scan_set > 2 || ABS((int64_t)s->mouse.dx) > FAR ||
        ABS((int64_t)s->mouse.dy) > FAR || ABS((int64_t)s->mouse.dz) > FAR) {
        g_set_error(error, LODGE_ERROR, EINVAL, "keyboard or mouse are in no possible state");
        return false;
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct i8042 *s = self(dev);
    struct display *d = dev->board->display;
    (void)error;
    if (!s->irq_key && !s->irq_aux) { /* not wired by the board: where every PC has them */
        s->irq_key = device_irq(dev, dev->board->isa_irq[1]);
        s->irq_aux = device_irq(dev, dev->board->isa_irq[12]);
    }
    device_window_init(&s->window[0], dev, 0, "i8042-data", 1);
    device_window_init(&s->window[1], dev, 1, "i8042-cmd", 1);
    device_place(&s->window[0], dev->board->ports, 0x60, 0);
    device_place(&s->window[1], dev->board->ports, 0x64, 0);
    if (d) {
        s->input = (struct display_input){
            .name = "PS/2 Mouse", .key = on_key, .pointer = on_pointer, .owner = s};
        display_add_input(d, &s->input, true);
    }
    return true;
}

static void stop(struct device *dev)
{
    struct display *d = dev->board->display;
    if (d) {
        display_remove_input(d, &self(dev)->input);
    }
}

#define S(field)   STATE(struct i8042, field)
#define QUEUE(dir) STATE_ARRAY(struct i8042, dir.out.data), S(dir.out.first), S(dir.out.n)
static const struct reg regs[] = {
    REG_COMPUTED("data-port", .window = 0, .port = 0, .dir = REG_RW, .on_read = data_read,
                 .on_write = data_write),
    REG(struct i8042, status, .window = 1, .port = 0, .dir = REG_R, .on_read = status_read),
    REG_COMPUTED("command-port", .window = 1, .port = 0, .dir = REG_W, .on_write = command_write),
    STATE_ARRAY(struct i8042, ram),
    S(output_port),
    S(data),
    S(source),
    S(command),
    S(release),
    QUEUE(kbd),
    S(kbd.command),
    S(kbd.last),
    S(kbd.scan_set),
    S(kbd.leds),
    S(kbd.rate),
    S(kbd.scanning),
    QUEUE(mouse),
    S(mouse.command),
    S(mouse.last),
    S(mouse.rate),
    S(mouse.resolution),
    S(mouse.id),
    S(mouse.knocks),
    S(mouse.reporting),
    S(mouse.remote),
    S(mouse.wrap),
    S(mouse.scaling),
    S(mouse.buttons),
    S(mouse.buttons_sent),
    S(mouse.dx),
    S(mouse.dy),
    S(mouse.dz),
};

static const struct wire wires[] = {
    {"irq", WIRE_IRQ, offsetof(struct i8042, irq_key)},
    {"irq-mouse", WIRE_IRQ, offsetof(struct i8042, irq_aux)},
};

const struct device_model model_i8042 = {
    .name = "i8042",
    .about = "keyboard controller with keyboard and mouse",
    .spec = "IBM PS/2 Hardware Interface Technical Reference, \"Keyboard and Auxiliary Device "
            "Controller\"",
    .size = sizeof(struct i8042),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .start = start,
    .stop = stop,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
