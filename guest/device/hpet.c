/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hpet: high precision event timer, three comparators at 100 MHz.
 *
 * Spec: Intel, "IA-PC HPET (High Precision Event Timers) Specification", 1.0a, "Register
 * Model and Programming".
 */
#include "guest/device/board.h"
#include "guest/device/i8254.h"
#include "guest/device/mc146818.h"

enum { TIMERS = 3, TICK_NS = 10, HPET_BYTES = 1024 };
#define HPET_BASE 0xfed00000u
#define MIN_PERIOD_NS 50000 /* a shorter one would be an attack on the main loop */

/* Byte offsets; timer n is at 0x100 + 0x20 n. */
enum {
    AT_CAPABILITY = 0, AT_CONFIG = 0x10, AT_STATUS = 0x20, AT_COUNTER = 0xf0, AT_TIMERS = 0x100,
};
enum { T_CONFIG = 0, T_COMPARATOR = 8, T_ROUTE = 16, T_BYTES = 32 };
enum { ENABLE = 1, LEGACY = 2 };

#define TN_LEVEL    (1u << 1)
#define TN_ENABLE   (1u << 2)
#define TN_PERIODIC (1u << 3)
#define TN_CAN_PERIODIC (1u << 4)
#define TN_CAN_64   (1u << 5)
#define TN_SET_VALUE (1u << 6)
#define TN_32       (1u << 8)
#define TN_ROUTE_SHIFT 9
#define TN_MSI      (1u << 14)
#define TN_CAN_MSI  (1u << 15)
#define TN_WRITABLE (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32 | 0x3e00u)

struct hpet;

struct comparator {
    uint64_t config, value, period, route; /* route: MSI address << 32 | data */
    struct timer timer;
    struct hpet *hpet;
};

struct hpet {
    struct device dev;
    bool msi;        /* property */
    uint32_t intcap; /* property: inputs of the I/O APIC that may be chosen */
    uint64_t config, status, counter; /* counter: as it was when the clock said .since */
    int64_t since;
    struct comparator tm[TIMERS];
    struct irq *gsi[24], *legacy[2];
    struct region region;
    struct placing *placing;
};

static struct hpet *self(struct device *dev)
{
    return container_of(dev, struct hpet, dev);
}

static uint64_t counter(const struct hpet *s)
{
    if (!(s->config & ENABLE)) {
        return s->counter;
    }
    return s->counter + (uint64_t)MAX(clock_now() - s->since, 0) / TICK_NS;
}

static uint64_t width_mask(const struct comparator *t)
{
    return t->config & TN_32 ? UINT32_MAX : UINT64_MAX;
}

/* ---- interrupts ---- */

static struct irq *line_of(struct hpet *s, unsigned n)
{
    if ((s->config & LEGACY) && n < 2) {
        return s->legacy[n];
    }
    return s->gsi[(s->tm[n].config >> TN_ROUTE_SHIFT & 31) % 24];
}

/* Levels are a status bit; everything else is low between its edges. */
static void settle(struct device *dev)
{
    struct hpet *s = self(dev);
    uint32_t high = 0;
    bool legacy[2] = {false, false};
    for (unsigned n = 0; n < TIMERS; n++) {
        const struct comparator *t = &s->tm[n];
        if ((s->status >> n & 1) && (t->config & TN_LEVEL) && (t->config & TN_ENABLE) &&
            (s->config & ENABLE)) {
            if ((s->config & LEGACY) && n < 2) {
                legacy[n] = true;
            } else {
                high |= 1u << (t->config >> TN_ROUTE_SHIFT & 31) % 24;
            }
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(s->gsi); i++) {
        irq_set(s->gsi[i], high >> i & 1);
    }
    irq_set(s->legacy[0], legacy[0]);
    irq_set(s->legacy[1], legacy[1]);
}

static void interrupt(struct hpet *s, unsigned n)
{
    struct comparator *t = &s->tm[n];
    if (t->config & TN_LEVEL) {
        s->status |= UINT64_C(1) << n;
        settle(&s->dev);
    }
    if (!(t->config & TN_ENABLE) || !(s->config & ENABLE)) {
        return;
    }
    if ((t->config & TN_MSI) && s->dev.board->msi) {
        s->dev.board->msi(s->dev.board, t->route >> 32, (uint32_t)t->route);
    } else if (!(t->config & TN_LEVEL)) {
        irq_pulse(line_of(s, n));
    }
}

/* ---- timers ---- */

/* Nobody notices when it fires: Linux leaves its first timer running like that. */
static bool silent(const struct comparator *t)
{
    return !(t->config & (TN_ENABLE | TN_LEVEL));
}

static void plan(struct hpet *s, unsigned n)
{
    struct comparator *t = &s->tm[n];
    if (!(s->config & ENABLE) || silent(t)) {
        timer_disarm(&t->timer);
        return;
    }
    uint64_t ahead = (t->value - counter(s)) & width_mask(t);
    int64_t now = clock_now(), most = (TIMER_OFF - now) / TICK_NS - 1;
    int64_t due = ahead < (uint64_t)most ? now + (int64_t)ahead * TICK_NS : TIMER_OFF;
    if ((t->config & TN_PERIODIC) && t->period < MIN_PERIOD_NS / TICK_NS) {
        due = MAX(due, now + MIN_PERIOD_NS);
    }
    timer_arm(&t->timer, due);
}

/* The next multiple of the period after now; those that were missed are lost. */
static void advance(struct comparator *t, uint64_t now)
{
    uint64_t mask = width_mask(t), late = (now - t->value) & mask;
    if (!(late >> (t->config & TN_32 ? 31 : 63))) {
        t->value = (t->value + (late / t->period + 1) * t->period) & mask;
    }
}

static uint64_t value_now(const struct hpet *s, struct comparator t)
{
    if ((s->config & ENABLE) && (t.config & TN_PERIODIC) && t.period) {
        advance(&t, counter(s));
    }
    return t.value;
}

static void fire(void *owner)
{
    struct comparator *t = owner;
    struct hpet *s = t->hpet;
    unsigned n = (unsigned)(t - s->tm);
    interrupt(s, n);
    if ((t->config & TN_PERIODIC) && t->period) {
        advance(t, counter(s));
        plan(s, n);
    } else if (t->config & TN_32) { /* the counter's low half comes by again */
        int64_t again = clock_now() + (INT64_C(1) << 32) * TICK_NS;
        timer_arm(&t->timer, again);
    }
}

/* ---- registers: 64 bits each, written in halves ---- */

static uint64_t merge(uint64_t old, uint64_t at, uint64_t value, unsigned bytes)
{
    unsigned shift = (unsigned)(at & 7) * 8;
    uint64_t lanes = (bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << bytes * 8) - 1) << shift;
    return (old & ~lanes) | (value << shift & lanes);
}

static uint64_t timer_config(const struct hpet *s, const struct comparator *t)
{
    return t->config | TN_CAN_PERIODIC | TN_CAN_64 | (s->msi ? TN_CAN_MSI : 0) |
           (uint64_t)s->intcap << 32;
}

static uint64_t reg_read(struct hpet *s, uint64_t at)
{
    switch (at) {
    case AT_CAPABILITY: /* revision 1, 64 bits, legacy replacement, femtoseconds a tick */
        return UINT64_C(0x8086a001) | (TIMERS - 1) << 8 | UINT64_C(1000000) * TICK_NS << 32;
    case AT_CONFIG:
        return s->config;
    case AT_STATUS:
        return s->status;
    case AT_COUNTER:
        return counter(s);
    default:
        break;
    }
    if (at < AT_TIMERS || at >= AT_TIMERS + TIMERS * T_BYTES) {
        return 0;
    }
    const struct comparator *t = &s->tm[(at - AT_TIMERS) / T_BYTES];
    switch ((at - AT_TIMERS) % T_BYTES) {
    case T_CONFIG:
        return timer_config(s, t);
    case T_COMPARATOR:
        return value_now(s, *t);
    case T_ROUTE:
        return t->route;
    default:
        return 0;
    }
}

static void mute_legacy(struct hpet *s)
{
    struct device *pit = board_part(s->dev.board, "pit"), *rtc = board_part(s->dev.board, "rtc");
    bool mute = s->config & LEGACY;
    if (pit) {
        i8254_mute(pit, mute);
    }
    if (rtc) {
        mc146818_mute(rtc, mute);
    }
}

static void config_write(struct hpet *s, uint64_t v)
{
    uint64_t old = s->config;
    v &= ENABLE | LEGACY;
    if ((old ^ v) & ENABLE) {
        s->counter = counter(s);
        s->since = clock_now();
    }
    s->config = v;
    if ((old ^ v) & LEGACY) {
        mute_legacy(s);
    }
    for (unsigned n = 0; n < TIMERS; n++) {
        plan(s, n);
    }
}

static void timer_config_write(struct hpet *s, unsigned n, uint64_t v)
{
    struct comparator *t = &s->tm[n];
    uint64_t writable = TN_WRITABLE | (s->msi ? TN_MSI : 0);
    if (silent(t)) {
        t->value = value_now(s, *t);
    }
    t->config = v & writable;
    if (!(t->config & TN_LEVEL)) {
        s->status &= ~(UINT64_C(1) << n);
    }
    if (t->config & TN_32) {
        t->value &= UINT32_MAX;
        t->period &= UINT32_MAX;
    }
    plan(s, n);
}

/* In periodic mode a write sets the period, and after TN_SET_VALUE the comparator too. */
static void comparator_write(struct hpet *s, unsigned n, uint64_t at, uint64_t v, unsigned bytes)
{
    struct comparator *t = &s->tm[n];
    bool high = at & 4;
    if (high && (t->config & TN_32)) {
        return;
    }
    if (!(t->config & TN_PERIODIC) || (t->config & TN_SET_VALUE)) {
        t->value = merge(t->value, at, v, bytes) & width_mask(t);
    }
    if (t->config & TN_PERIODIC) {
        t->period = merge(t->period, at, v, bytes) & (width_mask(t) >> 1);
    }
    if (high || bytes == 8 || (t->config & TN_32)) {
        t->config &= ~(uint64_t)TN_SET_VALUE;
    }
    plan(s, n);
}

static void timer_write(struct hpet *s, uint64_t at, uint64_t v, unsigned bytes)
{
    unsigned n = (unsigned)(at - AT_TIMERS) / T_BYTES;
    struct comparator *t = &s->tm[n];
    switch ((at - AT_TIMERS) % T_BYTES & ~7u) {
    case T_CONFIG:
        timer_config_write(s, n, merge(t->config, at, v, bytes));
        break;
    case T_COMPARATOR:
        comparator_write(s, n, at, v, bytes);
        break;
    case T_ROUTE:
        /* The data sheet has the data in the low half, the address in the high one. */
        t->route = merge(t->route, at, v, bytes);
        break;
    default:
        break;
    }
}

static uint64_t region_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)bytes;
    return reg_read(owner, at & ~UINT64_C(7)) >> (at & 7) * 8;
}

static void region_write(void *owner, uint64_t at, uint64_t v, unsigned bytes)
{
    struct hpet *s = owner;
    switch (at & ~UINT64_C(7)) {
    case AT_CONFIG:
        config_write(s, merge(s->config, at, v, bytes));
        break;
    case AT_STATUS:
        s->status &= ~merge(0, at, v, bytes);
        break;
    case AT_COUNTER:
        if (!(s->config & ENABLE)) {
            s->counter = merge(s->counter, at, v, bytes);
        }
        break;
    default:
        if (at >= AT_TIMERS && at < AT_TIMERS + TIMERS * T_BYTES) {
            timer_write(s, at, v, bytes);
        }
        break;
    }
    settle(&s->dev);
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    static const struct region_ops ops = {.read = region_read, .write = region_write,
                                          .min_bytes = 4};
    struct hpet *s = self(dev);
    struct board *b = dev->board;
    (void)error;
    for (unsigned n = 0; n < TIMERS; n++) {
        s->tm[n].hpet = s;
        s->tm[n].timer.fire = fire;
        s->tm[n].timer.owner = &s->tm[n];
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(s->gsi); i++) {
        s->gsi[i] = device_irq(dev, b->gsi[i]);
    }
    s->legacy[0] = device_irq(dev, b->isa_irq[0]);
    s->legacy[1] = device_irq(dev, b->isa_irq[8]);
    s->region = (struct region){.name = "hpet", .size = HPET_BYTES, .ops = &ops, .owner = s};
    s->placing = space_place(b->memory, &s->region, HPET_BASE, 0);
    board_add_part(b, "hpet", dev);
    return true;
}

static void stop(struct device *dev)
{
    space_remove(self(dev)->placing);
}

static void reset(struct device *dev)
{
    mute_legacy(self(dev));
}

static bool loaded(struct device *dev, GError **error)
{
    struct hpet *s = self(dev);
    if (s->since < 0 || s->since > INT64_MAX / 4) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the counter is in no possible state");
        return false;
    }
    for (unsigned n = 0; n < TIMERS; n++) {
        s->tm[n].period &= width_mask(&s->tm[n]) >> 1;
    }
    mute_legacy(s); /* the reset before has given the lines back */
    return true;
}

#define TM(n)                                                                                      \
    STATE(struct hpet, tm[n].config), STATE(struct hpet, tm[n].value, .reset = UINT64_MAX),        \
        STATE(struct hpet, tm[n].period), STATE(struct hpet, tm[n].route),                         \
        STATE_TIMER(struct hpet, tm[n].timer)

static const struct reg regs[] = {
    STATE(struct hpet, config, .help = "1 enabled, 2 legacy replacement"),
    STATE(struct hpet, status),
    STATE(struct hpet, counter),
    STATE(struct hpet, since),
    TM(0),
    TM(1),
    TM(2),
};

static const struct prop props[] = {
    {"msi", PROP_BOOL, offsetof(struct hpet, msi)},
    {"hpet-intcap", PROP_U32, offsetof(struct hpet, intcap), 4,
     .help = "bit n: a timer may use input n of the I/O APIC"},
};

const struct device_model model_hpet = {
    .name = "hpet",
    .about = "high precision event timer",
    .spec = "IA-PC HPET Specification 1.0a, \"Register Model and Programming\"",
    .size = sizeof(struct hpet),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
