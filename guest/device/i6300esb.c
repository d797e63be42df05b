/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i6300esb: watchdog timer with two stages.
 *
 * Spec: Intel, "6300ESB I/O Controller Hub Datasheet", "Watchdog Timer (WDT)".
 * The first stage may raise an interrupt (IRQ or SMI, as configured); the second tells the
 * owner of the machine, who does what -watchdog-action says.
 */
#include "guest/device/pci.h"

#include "base/bytes.h"

enum { CONFIG_AT = 0x60, LOCK_AT = 0x68, BAR_BYTES = 0x10 };
enum { CONFIG_SCALE = 1 << 2, CONFIG_NO_REBOOT = 1 << 5, CONFIG_INT = 3 };
enum { INT_IRQ = 0, INT_SMI = 2 };
enum { LOCK_LOCKED = 1 << 0, LOCK_ENABLE = 1 << 1, LOCK_FREE_RUN = 1 << 2 };
enum { RELOAD = 1 << 8, TIMED_OUT = 1 << 9 };
enum { UNLOCK_1 = 0x80, UNLOCK_2 = 0x86, PRELOAD_MAX = 0xfffff, PCI_HZ = 33000000 };

struct i6300esb {
    struct pci_device pci;
    uint32_t preload1, preload2;
    uint8_t unlock; /* steps of the key that were taken: 2 opens one write */
    uint8_t stage;  /* 1, 2; 0: not running */
    bool interrupt, timed_out;
    struct timer timer;
    struct device_window window;
};

static struct i6300esb *self(struct device *dev)
{
    return (struct i6300esb *)dev;
}

/* A count is 2^15 PCI clocks (about a millisecond), or 2^5 of them (about a microsecond). */
static void run(struct i6300esb *s, unsigned stage)
{
    unsigned shift = s->pci.config[CONFIG_AT] & CONFIG_SCALE ? 5 : 15;
    uint64_t clocks = (uint64_t)(stage == 1 ? s->preload1 : s->preload2) << shift;
    s->stage = (uint8_t)stage;
    timer_arm(&s->timer, clock_now() + (int64_t)(clocks * 1000 / (PCI_HZ / 1000000)));
}

static void settle(struct device *dev)
{
    struct i6300esb *s = self(dev);
    pci_irq(&s->pci, s->interrupt && (s->pci.config[CONFIG_AT] & CONFIG_INT) == INT_IRQ);
}

static void first_stage(struct i6300esb *s)
{
    struct board *board = s->pci.dev.board;
    s->interrupt = true;
    if ((s->pci.config[CONFIG_AT] & CONFIG_INT) == INT_SMI && board->smi) {
        board->smi(board);
    }
    settle(&s->pci.dev);
    run(s, 2);
}

static void second_stage(struct i6300esb *s)
{
    struct board *board = s->pci.dev.board;
    s->stage = 0;
    if (!(s->pci.config[CONFIG_AT] & CONFIG_NO_REBOOT)) {
        s->timed_out = true;
        if (board->request) {
            board->request(board, BOARD_WATCHDOG, 0);
        }
    }
    if (s->pci.config[LOCK_AT] & LOCK_FREE_RUN) {
        run(s, 1);
    }
}

static void fired(void *owner)
{
    struct i6300esb *s = owner;
    if (s->stage == 1 && !(s->pci.config[LOCK_AT] & LOCK_FREE_RUN)) {
        first_stage(s);
    } else {
        second_stage(s);
    }
}

static void halt(struct i6300esb *s)
{
    s->stage = 0;
    timer_disarm(&s->timer);
}

/* Once locked, only a reset changes the register. */
static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct i6300esb *s = self(&pci->dev);
    uint8_t lock = pci->config[LOCK_AT];
    if (at > LOCK_AT || at + bytes <= LOCK_AT) {
        return;
    }
    if (lock & LOCK_LOCKED) {
        pci->writable[LOCK_AT] = 0;
    }
    if (!(lock & LOCK_ENABLE)) {
        halt(s);
    } else if (!s->stage) {
        run(s, 1);
    }
}

/* A register opens for one write after 0x80, 0x86 at the reload register. */
static bool open_once(struct i6300esb *s)
{
    bool open = s->unlock == 2;
    s->unlock = 0;
    return open;
}

static void preload1_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (open_once(self(dev))) {
        self(dev)->preload1 = (uint32_t)now & PRELOAD_MAX;
    }
}

static void preload2_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (open_once(self(dev))) {
        self(dev)->preload2 = (uint32_t)now & PRELOAD_MAX;
    }
}

static void status_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->interrupt = self(dev)->interrupt && !(now & 1);
}

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->interrupt;
}

static void reload_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct i6300esb *s = self(dev);
    (void)old;
    if (now == UNLOCK_1) {
        s->unlock = 1;
    } else if (now == UNLOCK_2 && s->unlock == 1) {
        s->unlock = 2;
    } else if (open_once(s)) {
        s->timed_out = s->timed_out && !(now & TIMED_OUT);
        if ((now & RELOAD) && (s->pci.config[LOCK_AT] & LOCK_ENABLE)) {
            run(s, 1);
        }
    }
}

static uint64_t reload_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->timed_out ? TIMED_OUT : 0;
}

/* .timed_out is what tells the guest after the reset that it was the watchdog's. */
static void reset(struct device *dev)
{
    struct i6300esb *s = self(dev);
    le16_put(s->pci.config + CONFIG_AT, 0);
    s->pci.config[LOCK_AT] = 0;
    s->pci.writable[LOCK_AT] = LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUN;
    halt(s);
}

static bool loaded(struct device *dev, GError **error)
{
    struct i6300esb *s = self(dev);
    if (s->stage > 2 || s->preload1 > PRELOAD_MAX || s->preload2 > PRELOAD_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the watchdog is in no possible state");
        return false;
    }
    bool locked = s->pci.config[LOCK_AT] & LOCK_LOCKED;
    s->pci.writable[LOCK_AT] = locked ? 0 : LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUN;
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct i6300esb *s = self(dev);
    s->timer = (struct timer){.fire = fired, .owner = s, .due = TIMER_OFF};
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    le16_put(s->pci.writable + CONFIG_AT, CONFIG_INT | CONFIG_SCALE | CONFIG_NO_REBOOT);
    device_window_init(&s->window, dev, 0, "i6300esb", BAR_BYTES);
    pci_set_bar(&s->pci, 0, &s->window.region, false, false, false);
    return true;
}

static void stop(struct device *dev)
{
    timer_disarm(&self(dev)->timer);
    pci_detach(&self(dev)->pci);
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x25ab,
    .class = 0x088000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .irq_pin = 1,
    .config_written = config_written,
};

static const struct reg regs[] = {
    PCI_STATE(struct i6300esb, pci),
    REG_COMPUTED("timer1", .port = 0x0, .width = 4, .dir = REG_W, .on_write = preload1_write,
                 .help = "first stage's count"),
    REG_COMPUTED("timer2", .port = 0x4, .width = 4, .dir = REG_W, .on_write = preload2_write,
                 .help = "second stage's count"),
    REG_COMPUTED("status", .port = 0x8, .width = 4, .dir = REG_RW, .on_read = status_read,
                 .on_write = status_write, .help = "bit 0: the first stage has passed"),
    REG_COMPUTED("reload", .port = 0xc, .width = 2, .dir = REG_RW, .on_read = reload_read,
                 .on_write = reload_write, .help = "key, reload, time-out flag"),
    STATE(struct i6300esb, preload1, .reset = PRELOAD_MAX),
    STATE(struct i6300esb, preload2, .reset = PRELOAD_MAX),
    STATE(struct i6300esb, unlock),
    STATE(struct i6300esb, stage),
    STATE(struct i6300esb, interrupt),
    STATE(struct i6300esb, timed_out, .keep = true),
    STATE_TIMER(struct i6300esb, timer),
};
static const struct prop props[] = {PCI_PROPS(struct i6300esb, pci)};

const struct device_model model_i6300esb = {
    .name = "i6300esb",
    .about = "watchdog timer; what it does: -watchdog-action",
    .spec = "Intel 6300ESB data sheet, \"Watchdog Timer (WDT)\"",
    .size = sizeof(struct i6300esb),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
