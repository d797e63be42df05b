/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmport: VMware's port: commands in registers, answers in registers; version and a pointer
 * with absolute coordinates.
 *
 * Spec: VMware open-vm-tools, "backdoor_def.h"; Linux, "vmmouse" driver; QEMU's
 * `-machine vmport=on`.
 * The pointer's words wait in a queue; the PS/2 mouse's interrupt tells the guest to look.
 * Commands that are not known are answered with all ones, as where there is no such port.
 */
#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"
#include "host/display/display.h"

enum { PORT = 0x5658, MAGIC = 0x564d5868, UNKNOWN = 0xffffffff };
enum { GET_VERSION = 10, POINTER_DATA = 39, POINTER_STATUS = 40, POINTER_COMMAND = 41 };
enum { VERSION = 6, TYPE_SERVER = 2 };
enum {
    POINTER_ENABLE = 0x45414552,
    POINTER_DISABLE = 0x000000f5,
    POINTER_RELATIVE = 0x4c455252,
    POINTER_ABSOLUTE = 0x53424152,
    POINTER_VERSION = 0x3442554a
};
enum { QUEUE = 256 /* words */, EVENT_WORDS = 4, ANSWER_WORDS = 6, STATUS_ERROR = 0xffff };

struct vmport {
    struct device dev;
    uint32_t queue[QUEUE];
    uint16_t queued, status;
    bool absolute;
    struct display_input input; /* ready while the guest wants the pointer absolute */
    struct device_window window;
};

static struct vmport *self(struct device *dev)
{
    return container_of(dev, struct vmport, dev);
}

/* ---- the pointer ---- */

static void on_pointer(void *owner, int x, int y, int wheel, unsigned buttons)
{
    struct vmport *s = owner;
    uint32_t pressed = (buttons & 1 ? 0x20 : 0) | (buttons & 4 ? 0x10 : 0) | (buttons & 2 ? 8 : 0);
    if (s->queued <= QUEUE - EVENT_WORDS) {
        uint32_t *to = s->queue + s->queued;
        to[0] = pressed;
        to[1] = (uint32_t)x << 1;
        to[2] = (uint32_t)y << 1;
        to[3] = (uint32_t)wheel;
        s->queued += EVENT_WORDS;
    }
    struct display_input *ps2 = display_pointer_input(s->dev.board->display, &s->input);
    if (ps2) { /* its interrupt makes the driver look here */
        ps2->pointer(ps2->owner, 1, 0, 0, 0);
    }
}

/* Who takes the pointer's motion follows from .absolute. */
static void settle(struct device *dev)
{
    struct vmport *s = self(dev);
    if (dev->board->display) {
        display_input_ready(dev->board->display, &s->input, s->absolute);
    }
}

static void pointer_command(struct vmport *s, uint32_t command)
{
    switch (command) {
    case POINTER_ENABLE:
        s->queue[0] = POINTER_VERSION;
        s->queued = 1;
        s->status = 0;
        break;
    case POINTER_DISABLE:
        s->queued = 0;
        s->status = STATUS_ERROR;
        s->absolute = false;
        break;
    case POINTER_RELATIVE:
    case POINTER_ABSOLUTE:
        s->absolute = command == POINTER_ABSOLUTE;
        break;
    default:
        break;
    }
}

static void set_gpr(struct vcpu *cpu, enum gpr n, uint32_t value)
{
    cpu->r.gpr[n] = (cpu->r.gpr[n] & ~UINT64_C(0xffffffff)) | value;
}

/* The first words of the queue; what goes to EAX is the result. */
static uint32_t pointer_data(struct vmport *s, struct vcpu *cpu)
{
    static const enum gpr to[ANSWER_WORDS] = {RAX, RBX, RCX, RDX, RSI, RDI};
    uint32_t n = (uint32_t)cpu->r.gpr[RBX], first = s->queue[0];
    if (!n || n > ANSWER_WORDS || n > s->queued) {
        s->status = STATUS_ERROR;
        return UNKNOWN;
    }
    for (unsigned i = 1; i < n; i++) {
        set_gpr(cpu, to[i], s->queue[i]);
    }
    s->queued -= (uint16_t)n;
    memmove(s->queue, s->queue + n, s->queued * sizeof(s->queue[0]));
    return first;
}

/* ---- the port ---- */

static uint32_t command(struct vmport *s, struct vcpu *cpu)
{
    uint32_t argument = (uint32_t)cpu->r.gpr[RBX], what = (uint16_t)cpu->r.gpr[RCX];
    if (what == GET_VERSION) {
        set_gpr(cpu, RBX, MAGIC);
        set_gpr(cpu, RCX, TYPE_SERVER);
        return VERSION;
    }
    struct display *d = s->dev.board->display;
    if (!d || !display_pointer_input(d, &s->input)) {
        return UNKNOWN; /* there is no mouse whose interrupt could be used */
    }
    switch (what) {
    case POINTER_DATA:
        return pointer_data(s, cpu);
    case POINTER_STATUS:
        return (uint32_t)s->status << 16 | s->queued;
    case POINTER_COMMAND:
        pointer_command(s, argument);
        return 0;
    default:
        return UNKNOWN;
    }
}

static uint64_t port_read(struct device *dev, uint64_t stored)
{
    struct vcpu *cpu = vcpu_self();
    uint32_t answer = UNKNOWN;
    (void)stored;
    if (!cpu) {
        return UNKNOWN; /* a monitor reads: it has no registers to answer in */
    }
    vcpu_gprs(cpu, false);
    if ((uint32_t)cpu->r.gpr[RAX] == MAGIC) {
        answer = command(self(dev), cpu);
        vcpu_gprs(cpu, true);
    }
    return answer;
}

/* ---- life ---- */

static bool loaded(struct device *dev, GError **error)
{
    struct vmport *s = self(dev);
    if (s->queued > QUEUE) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the pointer is in no possible state");
        return false;
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct vmport *s = self(dev);
    struct display *d = dev->board->display;
    (void)error;
    if (d) {
        s->input = (struct display_input){
            .name = "vmmouse", .pointer = on_pointer, .owner = s, .absolute = true};
        display_add_input(d, &s->input, false);
    }
    device_window_init(&s->window, dev, 0, "vmport", 4);
    device_place(&s->window, dev->board->ports, PORT, 0);
    return true;
}

static void stop(struct device *dev)
{
    if (dev->board->display) {
        display_remove_input(dev->board->display, &self(dev)->input);
    }
}

static const struct reg regs[] = {
    REG_COMPUTED("command", .port = 0, .width = 4, .dir = REG_R, .on_read = port_read,
                 .help = "EAX: the magic number, CX: the command"),
    STATE_ARRAY(struct vmport, queue),
    STATE(struct vmport, queued),
    STATE(struct vmport, status, .reset = STATUS_ERROR),
    STATE(struct vmport, absolute),
};

const struct device_model model_vmport = {
    .name = "vmport",
    .about = "VMware's port: version, absolute pointer",
    .spec = "VMware open-vm-tools, backdoor_def.h",
    .size = sizeof(struct vmport),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .stop = stop,
    .settle = settle,
    .loaded = loaded,
};
