/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mc146818: real-time clock with 128 bytes of battery-backed memory.
 *
 * Spec: Motorola, "MC146818 Real-Time Clock Plus RAM (RTC)" data sheet, "Address Map",
 * "Registers".  The century byte at 32h is that of the PC.
 * The time is an offset from the host's wall clock; flags are brought up to date when
 * somebody looks or an enabled interrupt is due.  The square wave goes nowhere.
 */
#include "guest/device/mc146818.h"

#include "base/keyval.h"
#include "guest/device/board.h"

#include <stdio.h>
#include <time.h>

#define NS        INT64_C(1000000000)
#define UPDATE_NS 244000 /* how long before an update the UIP bit warns */
#define CLOCK_HZ  32768
#define FAR       (INT64_MAX / NS / 2) /* seconds: the year 2116, so that nanoseconds fit */

enum {
    SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR,
    REG_A, REG_B, REG_C, REG_D, CENTURY = 0x32, CMOS_BYTES = 128,
};
enum { A_UIP = 0x80, A_DIVIDER_RESET = 0x60, A_DIVIDER = 0x70, A_RATE = 0x0f };
enum {
    B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 8, B_BINARY = 4, B_24H = 2,
};
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };

struct mc146818 {
    struct device dev;
    struct irq *irq;
    const char *base;    /* property: utc, localtime or a date */
    bool muted;          /* HPET has IRQ 8 */
    uint8_t index;
    uint8_t cmos[CMOS_BYTES];
    int64_t offset;      /* guest's time less the wall clock, nanoseconds */
    int64_t second_seen; /* flags are right up to this second of the guest's time */
    int64_t tick_seen;   /* ... and this tick of CLOCK_HZ of the guest clock */
    struct timer timer;
    struct device_window window;
};

static struct mc146818 *self(struct device *dev)
{
    return container_of(dev, struct mc146818, dev);
}

/* ---- calendar ---- */

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, yoe = year - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = (int)(yoe + era * 400 + (*month <= 2));
}

static uint8_t encode(const struct mc146818 *s, int v)
{
    return (uint8_t)(s->cmos[REG_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static int decode(const struct mc146818 *s, uint8_t v)
{
    return s->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct mc146818 *s, int hour)
{
    if (s->cmos[REG_B] & B_24H) {
        return encode(s, hour);
    }
    return (uint8_t)(encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct mc146818 *s, uint8_t v)
{
    if (s->cmos[REG_B] & B_24H) {
        return decode(s, v);
    }
    return decode(s, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static bool is_time(unsigned index)
{
    return index == CENTURY || (index <= YEAR && index != SECONDS_ALARM &&
                                index != MINUTES_ALARM && index != HOURS_ALARM);
}

static bool stopped(const struct mc146818 *s)
{
    return (s->cmos[REG_B] & B_SET) || (s->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static int64_t rtc_ns(const struct mc146818 *s)
{
    int64_t now;
    return __builtin_add_overflow(clock_wall_ns(), s->offset, &now) ? 0 : now;
}

static int64_t second_of(int64_t ns)
{
    return ns >= 0 ? ns / NS : -((-ns + NS - 1) / NS);
}

/* The time as it is now into the bytes that show it. */
static void time_to_bytes(struct mc146818 *s)
{
    int64_t second = second_of(rtc_ns(s)), days = second / 86400, left = second % 86400;
    int year, month, day, rest = (int)(left < 0 ? left + 86400 : left);
    days -= left < 0;
    date_of(days, &year, &month, &day);
    s->cmos[SECONDS] = encode(s, rest % 60);
    s->cmos[MINUTES] = encode(s, rest / 60 % 60);
    s->cmos[HOURS] = encode_hour(s, rest / 3600);
    s->cmos[WEEKDAY] = encode(s, (int)((days % 7 + 11) % 7) + 1); /* 1970 began on a Thursday */
    s->cmos[DAY] = encode(s, day);
    s->cmos[MONTH] = encode(s, month);
    s->cmos[YEAR] = encode(s, year % 100);
    s->cmos[CENTURY] = encode(s, year / 100);
}

/* Goes on from the time in the bytes, @fraction nanoseconds into the second. */
static void time_from_bytes(struct mc146818 *s, int64_t fraction)
{
    int64_t year = decode(s, s->cmos[CENTURY]) * 100 + decode(s, s->cmos[YEAR]);
    int month = CLAMP(decode(s, s->cmos[MONTH]), 1, 12);
    int64_t days = days_of(year, month, decode(s, s->cmos[DAY]));
    int64_t second = days * 86400 + decode_hour(s, s->cmos[HOURS]) * 3600 +
                     decode(s, s->cmos[MINUTES]) * 60 + decode(s, s->cmos[SECONDS]);
    second = CLAMP(second, -FAR, FAR);
    s->offset = second * NS + fraction - clock_wall_ns();
    s->second_seen = second;
}

/* The guest has set the time. */
static void time_is_set(struct mc146818 *s, int64_t fraction)
{
    struct board *board = s->dev.board;
    time_from_bytes(s, fraction);
    if (board->tell) {
        board->tell(board, BOARD_CLOCK_SET, &s->dev, second_of(s->offset + NS / 2));
    }
}

/* ---- flags ---- */

static bool alarm_field(const struct mc146818 *s, unsigned index, int v)
{
    uint8_t want = s->cmos[index];
    bool any = (want & 0xc0) == 0xc0;
    return any || (index == HOURS_ALARM ? decode_hour(s, want) : decode(s, want)) == v;
}

/* The first second after @after at which the alarm goes off; within two days, or never. */
static int64_t next_alarm(const struct mc146818 *s, int64_t after)
{
    int64_t t = after + 1, end = t + 2 * 86400;
    while (t < end) {
        int day = (int)((t % 86400 + 86400) % 86400);
        if (!alarm_field(s, HOURS_ALARM, day / 3600)) {
            t += 3600 - day % 3600;
        } else if (!alarm_field(s, MINUTES_ALARM, day / 60 % 60)) {
            t += 60 - day % 60;
        } else if (!alarm_field(s, SECONDS_ALARM, day % 60)) {
            t++;
        } else {
            return t;
        }
    }
    return INT64_MAX;
}

/* Ticks of CLOCK_HZ between periodic interrupts; 0: none. */
static int64_t period(const struct mc146818 *s)
{
    unsigned rate = s->cmos[REG_A] & A_RATE;
    if (!rate || (s->cmos[REG_A] & A_DIVIDER) > 0x20) {
        return 0;
    }
    return INT64_C(1) << (rate <= 2 ? rate + 6 : rate - 1);
}

static int64_t tick_now(void)
{
    return (int64_t)((__int128)clock_now() * CLOCK_HZ / NS);
}

static void catch_up(struct mc146818 *s)
{
    int64_t second = second_of(rtc_ns(s)), tick = tick_now(), step = period(s);
    if (!stopped(s) && second != s->second_seen) {
        s->cmos[REG_C] |= C_UF;
        if (next_alarm(s, s->second_seen) <= second) {
            s->cmos[REG_C] |= C_AF;
        }
    }
    if (step && tick / step != s->tick_seen / step) {
        s->cmos[REG_C] |= C_PF;
    }
    s->second_seen = second;
    s->tick_seen = tick;
}

static void settle(struct device *dev)
{
    struct mc146818 *s = self(dev);
    irq_set(s->irq, !s->muted && (s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF)));
}

void mc146818_mute(struct device *rtc, bool mute)
{
    self(rtc)->muted = mute;
    settle(rtc);
}

/* When the next enabled interrupt is due. */
static void plan(struct mc146818 *s)
{
    int64_t now = clock_now(), ns = rtc_ns(s), second = second_of(ns), due = TIMER_OFF;
    uint8_t b = s->cmos[REG_B];
    if (!stopped(s)) {
        int64_t at = b & B_UIE ? second + 1 : b & B_AIE ? next_alarm(s, second) : INT64_MAX;
        if (at != INT64_MAX) {
            due = now + (at - second) * NS - (ns - second * NS);
        }
    }
    if ((b & B_PIE) && period(s)) {
        int64_t tick = (tick_now() / period(s) + 1) * period(s);
        due = MIN(due, (int64_t)(((__int128)tick * NS + CLOCK_HZ - 1) / CLOCK_HZ));
    }
    timer_arm(&s->timer, due);
}

static void fire(void *owner)
{
    struct mc146818 *s = owner;
    catch_up(s);
    settle(&s->dev);
    plan(s);
}

/* ---- ports ---- */

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    struct mc146818 *s = self(dev);
    uint8_t c;
    (void)stored;
    if (is_time(s->index) && !stopped(s)) {
        time_to_bytes(s);
    }
    switch (s->index) {
    case REG_A: {
        int64_t fraction = rtc_ns(s) % NS;
        bool soon = !stopped(s) && fraction >= NS - UPDATE_NS;
        return s->cmos[REG_A] | (soon ? A_UIP : 0);
    }
    case REG_C:
        catch_up(s);
        c = s->cmos[REG_C];
        s->cmos[REG_C] = 0;
        return c | (c & s->cmos[REG_B] & (C_PF | C_AF | C_UF) ? C_IRQF : 0);
    case REG_D:
        return D_VALID;
    default:
        return s->cmos[s->index];
    }
}

static void control_write(struct mc146818 *s, unsigned index, uint8_t v)
{
    bool was_stopped = stopped(s), was_set = s->cmos[REG_B] & B_SET;
    int64_t fraction = (rtc_ns(s) % NS + NS) % NS;
    catch_up(s);
    if (!was_stopped) {
        time_to_bytes(s); /* in the format that was chosen until now */
    }
    s->cmos[index] = index == REG_A ? v & 0x7f : v;
    if (was_stopped && !stopped(s)) { /* the divider starts half a second before an update */
        time_is_set(s, was_set ? fraction : NS / 2);
    }
    if (s->cmos[REG_B] & B_SET) {
        s->cmos[REG_B] &= (uint8_t)~B_UIE;
    }
}

static void data_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct mc146818 *s = self(dev);
    uint8_t v = (uint8_t)now;
    (void)old;
    if (s->index == REG_A || s->index == REG_B) {
        control_write(s, s->index, v);
    } else if (is_time(s->index) && !stopped(s)) {
        int64_t fraction = (rtc_ns(s) % NS + NS) % NS;
        catch_up(s);
        time_to_bytes(s);
        s->cmos[s->index] = v;
        time_is_set(s, fraction);
    } else if (s->index != REG_C && s->index != REG_D) {
        catch_up(s);
        s->cmos[s->index] = v;
    }
    plan(s);
}

void mc146818_set(struct device *rtc, uint8_t index, uint8_t value)
{
    if (index > REG_D && index < CMOS_BYTES) {
        self(rtc)->cmos[index] = value;
    }
}

uint8_t mc146818_get(struct device *rtc, uint8_t index)
{
    return index < CMOS_BYTES ? self(rtc)->cmos[index] : 0;
}

/* ---- life ---- */

static void reset(struct device *dev)
{
    struct mc146818 *s = self(dev);
    s->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    s->cmos[REG_C] = 0;
    s->second_seen = second_of(rtc_ns(s));
    s->tick_seen = tick_now();
}

static bool loaded(struct device *dev, GError **error)
{
    struct mc146818 *s = self(dev);
    if (s->index >= CMOS_BYTES || s->second_seen > 2 * FAR || s->second_seen < -2 * FAR ||
        s->offset > FAR * NS || s->offset < -FAR * NS) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the clock is in no possible state");
        return false;
    }
    return true;
}

/* "2006-06-17T16:01:21" or "2006-06-17" in nanoseconds since 1970. */
static bool date_parse(const char *text, int64_t *ns)
{
    int y, mo, d, h = 0, mi = 0, sec = 0, end = 0, more = 0;
    if (sscanf(text, "%4d-%2d-%2d%n", &y, &mo, &d, &end) != 3) {
        return false;
    }
    if (text[end] == 'T') {
        sscanf(text + end, "T%2d:%2d:%2d%n", &h, &mi, &sec, &more);
        end += more;
    }
    if (text[end] || y < 1970 || y > 2200 || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 ||
        mi > 59 || sec > 60) {
        return false;
    }
    *ns = (days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec) * NS;
    return true;
}

static bool set_base(struct mc146818 *s, GError **error)
{
    int64_t wall = clock_wall_ns(), date;
    if (!s->base || g_str_equal(s->base, "utc")) {
        return true;
    }
    if (g_str_equal(s->base, "localtime")) {
        time_t now = (time_t)(wall / NS);
        struct tm tm;
        localtime_r(&now, &tm);
        s->offset = tm.tm_gmtoff * NS;
        return true;
    }
    if (!date_parse(s->base, &date)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "base \"%s\" is not utc, localtime or a date like 2006-06-17T16:01:21",
                    s->base);
        return false;
    }
    s->offset = date - wall;
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct mc146818 *s = self(dev);
    if (!set_base(s, error)) {
        return false;
    }
    s->timer.fire = fire;
    s->timer.owner = s;
    s->cmos[REG_A] = 0x26;
    s->cmos[REG_B] = B_24H;
    device_window_init(&s->window, dev, 0, "rtc", 2);
    device_place(&s->window, dev->board->ports, 0x70, 0);
    board_add_part(dev->board, "rtc", dev);
    return true;
}

static const struct reg regs[] = {
    REG(struct mc146818, index, .port = 0, .dir = REG_W, .writable = 0x7f,
        .help = "bit 7 would mask NMI"),
    REG_COMPUTED("data", .port = 1, .dir = REG_RW, .on_read = data_read, .on_write = data_write),
    STATE_ARRAY(struct mc146818, cmos, .keep = true),
    STATE(struct mc146818, offset, .keep = true, .help = "nanoseconds ahead of the wall clock"),
    STATE(struct mc146818, muted),
    STATE(struct mc146818, second_seen, .keep = true),
    STATE(struct mc146818, tick_seen, .keep = true),
    STATE_TIMER(struct mc146818, timer),
};

static const struct wire wires[] = {{"irq", WIRE_IRQ, offsetof(struct mc146818, irq)}};

static const struct prop props[] = {
    {"base", PROP_STRING, offsetof(struct mc146818, base), .help = "utc, localtime or a date"},
};

const struct device_model model_mc146818 = {
    .name = "mc146818rtc",
    .about = "PC clock and battery-backed memory",
    .spec = "Motorola MC146818 data sheet, \"Address Map\"",
    .size = sizeof(struct mc146818),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
