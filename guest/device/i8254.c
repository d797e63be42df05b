/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i8254: interval timer; channel 0 interrupts, channel 2 makes sounds and measures time.
 *
 * Spec: Intel, "82C54 CHMOS Programmable Interval Timer" data sheet, "Mode Definitions",
 * "Read Operations"; Intel, "82371AB (PIIX4)", "NMISC: NMI Status and Control Register".
 * Counts are derived from the guest clock when they are looked at.  Differs: the output of
 * channel 0 makes one rising edge a period, the low phase between has no length; nothing
 * is heard.
 */
#include "guest/device/i8254.h"

#include "guest/device/board.h"

#define PIT_HZ     INT64_C(1193182)
#define NS         INT64_C(1000000000)
#define REFRESH_NS 15085 /* the memory refresh that bit 4 of port 61h shows */
#define FAST_TICKS 60    /* nobody gets interrupts faster than this: it would be an attack */

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum { PORT61_GATE = 1, PORT61_SPEAKER = 2, PORT61_REFRESH = 0x10, PORT61_OUT = 0x20 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };

struct channel {
    uint32_t count; /* as programmed: 1 to 65536 */
    int64_t loaded; /* guest clock when counting began */
    uint16_t latch;
    uint8_t mode, bcd, access, gate;
    uint8_t write_low, write_high_next, read_high_next;
    uint8_t latched; /* bytes of .latch still to be read */
    uint8_t status, status_latched;
    uint8_t never_loaded; /* a mode was set and no count yet */
};

struct i8254 {
    struct device dev;
    struct irq *irq;
    struct channel ch[3];
    uint8_t port61, muted, out0;
    int64_t edge; /* when channel 0's output rises next; TIMER_OFF: never */
    struct timer timer;
    struct device_window window[2];
    void (*ear)(void *owner); /* of the speaker */
    void *listener;
};

static struct i8254 *self(struct device *dev)
{
    return container_of(dev, struct i8254, dev);
}

static int64_t ticks_of(int64_t ns)
{
    return (int64_t)((__int128)ns * PIT_HZ / NS);
}

/* The first guest nanosecond at which @ticks have passed. */
static int64_t ns_of(int64_t ticks)
{
    return (int64_t)(((__int128)ticks * NS + PIT_HZ - 1) / PIT_HZ);
}

static bool periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static int64_t elapsed(const struct channel *c, int64_t now)
{
    return now > c->loaded ? ticks_of(now - c->loaded) : 0;
}

static bool output(const struct channel *c, int64_t now)
{
    int64_t d = elapsed(c, now), n = c->count;
    if (c->never_loaded) {
        return c->mode != 0;
    }
    switch (c->mode) {
    case 0:
        return d >= n;
    case 1:
        return d >= n; /* low from the trigger on */
    case 2:
        return !c->gate || d % n != n - 1;
    case 3:
        return !c->gate || d % n < (n + 1) / 2;
    default:
        return d != n;
    }
}

static uint16_t bcd_of(uint32_t v)
{
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint32_t binary_of(uint16_t bcd)
{
    return (bcd & 15u) + (bcd >> 4 & 15u) * 10 + (bcd >> 8 & 15u) * 100 + (bcd >> 12) * 1000u;
}

static uint16_t counter(const struct channel *c, int64_t now)
{
    int64_t d = elapsed(c, now), n = c->count, v;
    switch (c->mode) {
    case 2:
        v = n - d % n;
        break;
    case 3: /* by twos */
        v = n - (2 * d) % n;
        break;
    default:
        v = n - d;
        break;
    }
    if (c->bcd) {
        v %= 10000;
        return bcd_of((uint32_t)(v < 0 ? v + 10000 : v));
    }
    return (uint16_t)v;
}

/* When channel 0 rises next after @now. */
static int64_t next_edge(const struct channel *c, int64_t now)
{
    int64_t d = elapsed(c, now), n = c->count;
    if (c->never_loaded || !c->gate) {
        return TIMER_OFF;
    }
    switch (c->mode) {
    case 0:
    case 1:
        return d < n ? c->loaded + ns_of(n) : TIMER_OFF;
    case 2:
    case 3:
        return c->loaded + ns_of((d / n + 1) * n);
    default:
        return d <= n ? c->loaded + ns_of(n + 1) : TIMER_OFF;
    }
}

static void settle(struct device *dev)
{
    struct i8254 *s = self(dev);
    irq_set(s->irq, s->out0 && !s->muted);
}

static void plan(struct i8254 *s, int64_t now)
{
    const struct channel *c = &s->ch[0];
    int64_t edge = next_edge(c, now);
    if (periodic(c) && c->count < FAST_TICKS && edge != TIMER_OFF) {
        edge = MAX(edge, clock_now() + ns_of(FAST_TICKS));
    }
    s->edge = edge;
    timer_arm(&s->timer, edge);
}

/* Each edge is due at its own time, however late we are: a guest that counts ticks keeps its
 * time.  Only after a second without any are they lost. */
static void fire(void *owner)
{
    struct i8254 *s = owner;
    int64_t due = s->edge, now = clock_now();
    s->out0 = 0;
    settle(&s->dev);
    s->out0 = 1;
    settle(&s->dev);
    plan(s, now - due > NS ? now : due);
}

static void start_counting(struct i8254 *s, struct channel *c, uint32_t value)
{
    int64_t now = clock_now();
    if (c->bcd) {
        value = binary_of((uint16_t)value);
    }
    c->count = value ? value : c->bcd ? 10000 : 0x10000;
    if (c->count == 1 && periodic(c)) {
        c->count = 2; /* forbidden by the data sheet */
    }
    c->loaded = now;
    c->never_loaded = 0;
    if (c == &s->ch[0]) {
        s->out0 = output(c, now);
        plan(s, now);
    }
}

/* ---- ports 40h to 43h ---- */

static void latch_count(struct channel *c)
{
    if (!c->latched) {
        c->latch = counter(c, clock_now());
        c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    }
}

static void latch_status(struct channel *c)
{
    if (!c->status_latched) {
        c->status =
            (uint8_t)((output(c, clock_now()) ? STATUS_OUT : 0) |
                      (c->never_loaded ? STATUS_NULL : 0) | c->access << 4 | c->mode << 1 | c->bcd);
        c->status_latched = 1;
    }
}

static void read_back(struct i8254 *s, uint8_t v)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(v & 2 << i)) {
            continue;
        }
        if (!(v & 0x20)) {
            latch_count(&s->ch[i]);
        }
        if (!(v & 0x10)) {
            latch_status(&s->ch[i]);
        }
    }
}

static void set_mode(struct i8254 *s, struct channel *c, uint8_t v)
{
    static const uint8_t modes[] = {0, 1, 2, 3, 4, 5, 2, 3};
    c->access = v >> 4 & 3;
    c->mode = modes[v >> 1 & 7];
    c->bcd = v & 1;
    c->write_high_next = c->read_high_next = c->latched = c->status_latched = 0;
    c->never_loaded = 1;
    if (c == &s->ch[0]) {
        s->out0 = output(c, 0);
        plan(s, 0);
    }
}

static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct i8254 *s = self(dev);
    uint8_t v = (uint8_t)now, n = v >> 6;
    (void)old;
    if (n == 3) {
        read_back(s, v);
    } else if ((v >> 4 & 3) == ACCESS_LATCH) {
        latch_count(&s->ch[n]);
    } else {
        set_mode(s, &s->ch[n], v);
    }
}

static void count_write(struct i8254 *s, struct channel *c, uint8_t v)
{
    switch (c->access) {
    case ACCESS_LOW:
        start_counting(s, c, v);
        break;
    case ACCESS_HIGH:
        start_counting(s, c, (uint32_t)v << 8);
        break;
    case ACCESS_BOTH:
        if (c->write_high_next) {
            start_counting(s, c, c->write_low | (uint32_t)v << 8);
        } else {
            c->write_low = v;
        }
        c->write_high_next ^= 1;
        break;
    default:
        break;
    }
}

static uint8_t count_read(struct channel *c)
{
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    bool both = c->access == ACCESS_BOTH;
    bool high = both ? c->read_high_next : c->access == ACCESS_HIGH;
    uint16_t v = c->latched ? c->latch : counter(c, clock_now());
    c->read_high_next = both && !high;
    c->latched = (uint8_t)MAX(c->latched - 1, 0);
    return (uint8_t)(high ? v >> 8 : v);
}

#define CHANNEL_PORT(n)                                                                            \
    static uint64_t count##n##_read(struct device *dev, uint64_t stored)                           \
    {                                                                                              \
        (void)stored;                                                                              \
        return count_read(&self(dev)->ch[n]);                                                      \
    }                                                                                              \
    static void count##n##_write(struct device *dev, uint64_t old, uint64_t now)                   \
    {                                                                                              \
        (void)old;                                                                                 \
        count_write(self(dev), &self(dev)->ch[n], (uint8_t)now);                                   \
    }
CHANNEL_PORT(0)
CHANNEL_PORT(1)
CHANNEL_PORT(2)

/* ---- port 61h ---- */

static uint64_t port61_read(struct device *dev, uint64_t stored)
{
    struct i8254 *s = self(dev);
    int64_t now = clock_now();
    return stored | (now / REFRESH_NS & 1 ? PORT61_REFRESH : 0) |
           (output(&s->ch[2], now) ? PORT61_OUT : 0);
}

static void port61_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct channel *c = &self(dev)->ch[2];
    uint8_t gate = now & PORT61_GATE ? 1 : 0;
    if (gate && !(old & PORT61_GATE) && c->mode != 0 && c->mode != 4) {
        c->loaded = clock_now(); /* a rising gate starts modes 1, 2, 3 and 5 anew */
    }
    c->gate = gate;
    if (self(dev)->ear) {
        self(dev)->ear(self(dev)->listener);
    }
}

bool i8254_speaker_on(struct device *pit)
{
    unsigned both = PORT61_GATE | PORT61_SPEAKER;
    return (self(pit)->port61 & both) == both;
}

bool i8254_speaker(struct device *pit, int64_t at)
{
    const struct channel *c = &self(pit)->ch[2];
    return output(c, MAX(at, c->loaded));
}

void i8254_listen(struct device *pit, void (*ear)(void *owner), void *owner)
{
    self(pit)->ear = ear;
    self(pit)->listener = owner;
}

void i8254_mute(struct device *pit, bool mute)
{
    self(pit)->muted = mute;
    settle(pit);
}

static void reset(struct device *dev)
{
    struct i8254 *s = self(dev);
    int64_t now = clock_now();
    for (unsigned i = 0; i < 3; i++) {
        struct channel *c = &s->ch[i];
        *c = (struct channel){.count = 0x10000,
                              .loaded = now,
                              .mode = 3,
                              .access = ACCESS_BOTH,
                              .gate = i == 2 ? 0 : 1};
    }
    s->out0 = 1;
    plan(s, now);
}

static bool loaded(struct device *dev, GError **error)
{
    for (unsigned i = 0; i < 3; i++) {
        const struct channel *c = &self(dev)->ch[i];
        if (c->count < 1 || c->count > 0x10000 || (periodic(c) && c->count < 2) || c->mode > 5 ||
            c->access > ACCESS_BOTH || c->latched > 2 || c->loaded < 0 ||
            c->loaded > INT64_MAX / 4) {
            g_set_error(error, LODGE_ERROR, EINVAL, "channel %u is in no possible state", i);
            return false;
        }
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct i8254 *s = self(dev);
    (void)error;
    s->timer.fire = fire;
    s->timer.owner = s;
    device_window_init(&s->window[0], dev, 0, "pit", 4);
    device_window_init(&s->window[1], dev, 1, "port61", 1);
    device_place(&s->window[0], dev->board->ports, 0x40, 0);
    device_place(&s->window[1], dev->board->ports, 0x61, 0);
    board_add_part(dev->board, "pit", dev);
    return true;
}

#define CH(n, field) STATE(struct i8254, ch[n].field)
#define CHANNEL(n)                                                                                 \
    CH(n, count), CH(n, loaded), CH(n, latch), CH(n, mode), CH(n, bcd), CH(n, access),             \
        CH(n, gate), CH(n, write_low), CH(n, write_high_next), CH(n, read_high_next),              \
        CH(n, latched), CH(n, status), CH(n, status_latched), CH(n, never_loaded)

static const struct reg regs[] = {
    CHANNEL(0),
    CHANNEL(1),
    CHANNEL(2),
    STATE(struct i8254, muted, .help = "HPET has IRQ 0"),
    STATE(struct i8254, out0),
    STATE(struct i8254, edge, .reset = (uint64_t)TIMER_OFF),
    STATE_TIMER(struct i8254, timer),
    REG_COMPUTED("counter0", .port = 0, .dir = REG_RW, .on_read = count0_read,
                 .on_write = count0_write),
    REG_COMPUTED("counter1", .port = 1, .dir = REG_RW, .on_read = count1_read,
                 .on_write = count1_write),
    REG_COMPUTED("counter2", .port = 2, .dir = REG_RW, .on_read = count2_read,
                 .on_write = count2_write),
    REG_COMPUTED("control", .port = 3, .dir = REG_W, .on_write = control_write),
    REG(struct i8254, port61, .window = 1, .port = 0, .dir = REG_RW, .writable = 0x0f,
        .on_read = port61_read, .on_write = port61_write,
        .help = "gate and output of channel 2, speaker, refresh"),
};

static const struct wire wires[] = {{"irq", WIRE_IRQ, offsetof(struct i8254, irq)}};

const struct device_model model_i8254 = {
    .name = "i8254",
    .alias = "isa-pit",
    .about = "PC interval timer and port 61h",
    .spec = "Intel 82C54 data sheet, \"Mode Definitions\"",
    .size = sizeof(struct i8254),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .start = start,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
