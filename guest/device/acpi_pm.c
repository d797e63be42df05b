/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_pm: PM1 blocks, power management timer, general-purpose events.
 *
 * Spec: ACPI Specification 6.3, "ACPI Register Model".
 * Not modelled: bus master status, throttling (P_CNT).
 */
#include "guest/device/acpi_pm.h"

enum { TIMER_HZ = 3579545, NS = 1000000000, TOP_BIT = 1 << 23 };
enum {
    STS_TIMER = 1 << 0,
    STS_GLOBAL = 1 << 5,
    STS_POWER = 1 << 8,
    STS_SLEEP = 1 << 9,
    STS_RTC = 1 << 10,
    STS_WAKE = 1 << 15
};
enum { STS_ALL = STS_TIMER | STS_GLOBAL | STS_POWER | STS_SLEEP | STS_RTC | STS_WAKE };
enum { EN_ALL = STS_TIMER | STS_GLOBAL | STS_POWER | STS_SLEEP | STS_RTC };
enum { CNT_SCI = 1 << 0, CNT_GO = 1 << 13, CNT_STORED = 0x1c07 };

static uint64_t ticks(void)
{
    return (uint64_t)((unsigned __int128)clock_now() * TIMER_HZ / NS);
}

static uint64_t ns_of(uint64_t t)
{
    return (uint64_t)((unsigned __int128)t * NS / TIMER_HZ) + 1;
}

static void set_carry(struct acpi_pm *pm)
{
    pm->carry_at = ns_of((ticks() | (TOP_BIT - 1)) + 1);
}

/* The status bit is worked out when somebody looks; the timer runs only for an interrupt. */
static void note_carry(struct acpi_pm *pm)
{
    if ((uint64_t)clock_now() >= pm->carry_at) {
        pm->pm1_sts |= STS_TIMER;
    }
}

void acpi_pm_settle(struct acpi_pm *pm)
{
    bool level = (pm->pm1_sts & pm->pm1_en) && (pm->pm1_cnt & CNT_SCI);
    for (unsigned i = 0; i < pm->gpe_bytes; i++) {
        level |= (pm->gpe_sts[i] & pm->gpe_en[i]) && (pm->pm1_cnt & CNT_SCI);
    }
    irq_set(pm->sci, level);
    if ((pm->pm1_en & STS_TIMER) && !(pm->pm1_sts & STS_TIMER)) {
        timer_arm(&pm->carry, (int64_t)pm->carry_at);
    } else {
        timer_disarm(&pm->carry);
    }
}

static void carry_fired(void *owner)
{
    struct acpi_pm *pm = owner;
    note_carry(pm);
    acpi_pm_settle(pm);
}

static void sleep_now(struct acpi_pm *pm, unsigned type)
{
    struct board *board = pm->dev->board;
    if (board->request && type == SLEEP_S5) {
        board->request(board, BOARD_SHUTDOWN, 0);
    } else if (board->request && type == SLEEP_S4) {
        board->request(board, BOARD_SUSPEND_DISK, 0);
    } else if (board->request && type == SLEEP_S3) {
        board->request(board, BOARD_SUSPEND, 0);
    }
}

static uint32_t fixed_dword(struct acpi_pm *pm, uint64_t at)
{
    switch (at & ~UINT64_C(3)) {
    case PM1_STS:
        note_carry(pm);
        return pm->pm1_sts | (uint32_t)pm->pm1_en << 16;
    case PM1_CNT:
        return pm->pm1_cnt;
    default:
        return (uint32_t)ticks() & 0xffffff;
    }
}

static uint64_t fixed_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)bytes;
    return fixed_dword(owner, at) >> (at & 3) * 8;
}

static void event_write(struct acpi_pm *pm, uint32_t value, uint32_t lanes)
{
    note_carry(pm);
    uint32_t clear = value & lanes & STS_ALL;
    if (pm->pm1_sts & clear & STS_TIMER) {
        set_carry(pm);
    }
    pm->pm1_sts &= (uint16_t)~clear;
    uint32_t stored = (lanes >> 16) & EN_ALL;
    pm->pm1_en = (uint16_t)((pm->pm1_en & ~stored) | (value >> 16 & stored));
}

static void control_write(struct acpi_pm *pm, uint32_t value, uint32_t lanes)
{
    uint32_t stored = lanes & CNT_STORED; /* SCI_EN too: Linux sets it so after S3 */
    pm->pm1_cnt = (uint16_t)((pm->pm1_cnt & ~stored) | (value & stored));
    if (value & lanes & CNT_GO) {
        sleep_now(pm, pm->pm1_cnt >> 10 & 7);
    }
}

static void fixed_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct acpi_pm *pm = owner;
    unsigned shift = (unsigned)(at & 3) * 8;
    uint32_t lanes = (uint32_t)((UINT64_C(1) << bytes * 8) - 1) << shift;
    if (at < PM1_CNT) {
        event_write(pm, (uint32_t)value << shift, lanes);
    } else if (at < PM_TIMER) {
        control_write(pm, (uint32_t)value << shift, lanes);
    }
    acpi_pm_settle(pm);
}

/* Status bytes, then enable bytes. */
static uint64_t gpe_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct acpi_pm *pm = owner;
    (void)bytes;
    return at < pm->gpe_bytes ? pm->gpe_sts[at] : pm->gpe_en[at - pm->gpe_bytes];
}

static void gpe_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct acpi_pm *pm = owner;
    (void)bytes;
    if (at < pm->gpe_bytes) {
        pm->gpe_sts[at] &= (uint8_t)~value;
    } else {
        pm->gpe_en[at - pm->gpe_bytes] = (uint8_t)value;
    }
    acpi_pm_settle(pm);
}

static const struct region_ops fixed_ops = {
    .read = fixed_read, .write = fixed_write, .max_bytes = 4};
static const struct region_ops gpe_ops = {.read = gpe_read, .write = gpe_write, .max_bytes = 1};

/* ACPI's fixed power button; while the guest sleeps it wakes it. */
static void press(struct board *board)
{
    struct acpi_pm *pm = acpi_pm_of(board);
    pm->pm1_sts |= STS_POWER;
    acpi_pm_settle(pm);
    if (board->request) {
        board->request(board, BOARD_WAKEUP, 0);
    }
}

static struct acpi_pm *the_pm;

struct acpi_pm *acpi_pm_of(struct board *board)
{
    return the_pm && the_pm->dev->board == board ? the_pm : NULL;
}

void acpi_pm_init(struct acpi_pm *pm, struct device *dev, unsigned gpe_bytes)
{
    pm->dev = dev;
    pm->gpe_bytes = gpe_bytes;
    pm->carry = (struct timer){.fire = carry_fired, .owner = pm, .due = TIMER_OFF};
    pm->fixed =
        (struct region){.name = "acpi-pm", .size = ACPI_PM_BYTES, .ops = &fixed_ops, .owner = pm};
    pm->gpe =
        (struct region){.name = "acpi-gpe", .size = 2 * gpe_bytes, .ops = &gpe_ops, .owner = pm};
    the_pm = pm;
    board_add_part(dev->board, "pm", dev);
    dev->board->power_button = press;
}

void acpi_pm_stop(struct acpi_pm *pm)
{
    pm->dev->board->power_button = NULL;
    the_pm = NULL;
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    if (pm->dev) {
        set_carry(pm);
    }
}

void acpi_pm_enable(struct acpi_pm *pm, bool on)
{
    pm->pm1_cnt = (uint16_t)((pm->pm1_cnt & ~CNT_SCI) | (on ? CNT_SCI : 0));
    acpi_pm_settle(pm);
}

void acpi_pm_wake(struct acpi_pm *pm)
{
    pm->pm1_sts |= STS_WAKE | STS_POWER;
    acpi_pm_settle(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
    pm->gpe_sts[n / 8 % GPE_BYTES] |= (uint8_t)(1u << n % 8);
    acpi_pm_settle(pm);
}
