/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i8237: two cascaded DMA controllers and their page registers.
 *
 * Spec: Intel, "8237A High Performance Programmable DMA Controller" data sheet, "Register
 * Description", "Programming"; Intel, "82371AB (PIIX4)", "DMA Registers".
 * Not modelled: memory-to-memory transfers and compressed timing, which no PC has wired.
 */
#include "guest/device/i8237.h"

#include "guest/device/board.h"

enum { MODE_VERIFY = 0, MODE_TO_MEMORY = 4, MODE_FROM_MEMORY = 8, MODE_DIRECTION = 12 };
enum { MODE_AUTO = 0x10, MODE_DOWN = 0x20 };
enum { COMMAND_DISABLE = 4 };
enum { CASCADE = 4 };

struct controller {
    uint16_t base_address[4], base_count[4], address[4], count[4];
    uint8_t mode[4];
    uint8_t command, mask, terminal, dreq, soft, temporary;
    bool high_next; /* the byte flip-flop */
};

struct port_bank {
    struct region region;
    struct i8237 *dma;
    unsigned n;
};

struct i8237 {
    struct device dev;
    struct controller ctl[2];
    uint8_t page[16]; /* ports 80h to 8fh; those of no channel are plain memory */
    struct {
        void (*ready)(void *owner);
        void *owner;
    } user[8];
    bool running; /* .ready is on the stack */
    struct port_bank bank[2];
    struct device_window pages;
    struct placing *placing[2];
};

static struct i8237 *self(struct device *dev)
{
    return container_of(dev, struct i8237, dev);
}

static bool may_run(const struct i8237 *s, unsigned channel)
{
    const struct controller *c = &s->ctl[channel / 4];
    uint8_t bit = (uint8_t)(1 << (channel & 3));
    return !(c->command & COMMAND_DISABLE) && !(c->mask & bit) && (c->dreq & bit);
}

/* Lets the peripherals transfer whose channels are ready. */
static void settle(struct device *dev)
{
    struct i8237 *s = self(dev);
    if (s->running) {
        return;
    }
    s->running = true;
    for (unsigned i = 0; i < 8; i++) {
        if (s->user[i].ready && may_run(s, i)) {
            s->user[i].ready(s->user[i].owner);
        }
    }
    s->running = false;
}

void i8237_attach(struct device *dma, unsigned channel, void (*ready)(void *owner), void *owner)
{
    self(dma)->user[channel & 7].ready = ready;
    self(dma)->user[channel & 7].owner = owner;
}

void i8237_request(struct device *dma, unsigned channel, bool dreq)
{
    struct controller *c = &self(dma)->ctl[channel / 4 & 1];
    uint8_t bit = (uint8_t)(1 << (channel & 3));
    c->dreq = dreq ? c->dreq | bit : c->dreq & (uint8_t)~bit;
    settle(dma);
}

bool i8237_done(struct device *dma, unsigned channel)
{
    return self(dma)->ctl[channel / 4 & 1].terminal >> (channel & 3) & 1;
}

/* ---- transfers ---- */

/* Where the next unit lies: a byte, on channels 5 to 7 a word. */
static uint64_t unit_address(const struct i8237 *s, unsigned channel)
{
    static const uint8_t page_of[8] = {7, 3, 1, 2, 15, 11, 9, 10};
    const struct controller *c = &s->ctl[channel / 4];
    uint64_t page = s->page[page_of[channel]], at = c->address[channel & 3];
    return channel < 4 ? page << 16 | at : (page & 0xfe) << 16 | at << 1;
}

/* After a unit: false once the count has run out. */
static bool step(struct controller *c, unsigned i)
{
    c->address[i] = (uint16_t)(c->mode[i] & MODE_DOWN ? c->address[i] - 1 : c->address[i] + 1);
    if (c->count[i]--) {
        return true;
    }
    c->terminal |= (uint8_t)(1 << i);
    if (c->mode[i] & MODE_AUTO) {
        c->address[i] = c->base_address[i];
        c->count[i] = c->base_count[i];
    } else {
        c->mask |= (uint8_t)(1 << i);
    }
    return false;
}

static size_t transfer(struct i8237 *s, unsigned channel, uint8_t *data, size_t n,
                       unsigned direction)
{
    struct controller *c = &s->ctl[channel / 4 & 1];
    struct space *memory = s->dev.board->memory;
    unsigned i = channel & 3, unit = channel < 4 ? 1 : 2, way = c->mode[i] & MODE_DIRECTION;
    size_t done = 0;
    if ((c->mask >> i & 1) || (c->command & COMMAND_DISABLE) ||
        (way != direction && way != MODE_VERIFY)) {
        return 0;
    }
    c->terminal &= (uint8_t) ~(1 << i);
    for (bool more = true; more && n - done >= unit; done += unit) {
        uint64_t at = unit_address(s, channel);
        if (way == MODE_TO_MEMORY) {
            space_write(memory, at, data + done, unit);
        } else if (way == MODE_FROM_MEMORY) {
            space_read(memory, at, data + done, unit);
        }
        more = step(c, i);
    }
    return done;
}

size_t i8237_read_memory(struct device *dma, unsigned channel, void *data, size_t n)
{
    return transfer(self(dma), channel & 7, data, n, MODE_FROM_MEMORY);
}

size_t i8237_write_memory(struct device *dma, unsigned channel, const void *data, size_t n)
{
    return transfer(self(dma), channel & 7, (uint8_t *)data, n, MODE_TO_MEMORY);
}

/* ---- ports ---- */

static uint8_t half(struct controller *c, uint16_t v)
{
    bool high = c->high_next;
    c->high_next = !high;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t bank_read(void *owner, uint64_t at, unsigned bytes)
{
    struct port_bank *b = owner;
    struct controller *c = &b->dma->ctl[b->n];
    unsigned reg = (unsigned)at >> b->n;
    uint8_t v;
    (void)bytes;
    switch (reg) {
    case 0 ... 7:
        return half(c, reg & 1 ? c->count[reg / 2] : c->address[reg / 2]);
    case 8: /* status: what ended, what asks */
        v = (uint8_t)(c->terminal | (c->dreq | c->soft) << 4);
        c->terminal = 0;
        return v;
    case 13:
        return c->temporary;
    case 15:
        return c->mask | 0xf0;
    default:
        return 0xff;
    }
}

static void half_write(struct controller *c, uint16_t *base, uint16_t *now, uint8_t v)
{
    unsigned shift = c->high_next ? 8 : 0;
    c->high_next = !c->high_next;
    *base = *now = (uint16_t)((*base & ~(0xff << shift)) | v << shift);
}

static void clear(struct controller *c)
{
    c->command = c->terminal = c->soft = c->temporary = 0;
    c->high_next = false;
    c->mask = 0x0f;
}

static uint8_t with_bit(uint8_t bits, uint8_t v)
{
    uint8_t bit = (uint8_t)(1 << (v & 3));
    return v & 4 ? bits | bit : bits & (uint8_t)~bit;
}

static void bank_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct port_bank *b = owner;
    struct controller *c = &b->dma->ctl[b->n];
    unsigned reg = (unsigned)at >> b->n, i = reg / 2;
    uint8_t v = (uint8_t)value;
    (void)bytes;
    switch (reg) {
    case 0 ... 7:
        half_write(c, reg & 1 ? &c->base_count[i] : &c->base_address[i],
                   reg & 1 ? &c->count[i] : &c->address[i], v);
        break;
    case 8:
        c->command = v;
        break;
    case 9:
        c->soft = with_bit(c->soft, v);
        break;
    case 10:
        c->mask = with_bit(c->mask, v);
        break;
    case 11:
        c->mode[v & 3] = v & 0xfc;
        break;
    case 12:
        c->high_next = false;
        break;
    case 13:
        clear(c);
        break;
    case 14:
        c->mask = 0;
        break;
    default:
        c->mask = v & 0x0f;
        break;
    }
    settle(&b->dma->dev);
}

static const struct region_ops bank_ops = {.read = bank_read, .write = bank_write, .max_bytes = 1};

/* ---- life ---- */

static void reset(struct device *dev)
{
    clear(&self(dev)->ctl[0]);
    clear(&self(dev)->ctl[1]);
}

static bool start(struct device *dev, GError **error)
{
    static const uint16_t at[2] = {0x00, 0xc0};
    struct i8237 *s = self(dev);
    (void)error;
    for (unsigned i = 0; i < 2; i++) {
        struct port_bank *b = &s->bank[i];
        *b = (struct port_bank){.dma = s, .n = i};
        b->region = (struct region){.name = i ? "dma2" : "dma1", .size = 16u << i,
                                    .ops = &bank_ops, .owner = b};
        s->placing[i] = space_place(dev->board->ports, &b->region, at[i], 0);
    }
    device_window_init(&s->pages, dev, 0, "dma-pages", 16);
    device_place(&s->pages, dev->board->ports, 0x80, -1);
    board_add_part(dev->board, "dma", dev);
    return true;
}

static void stop(struct device *dev)
{
    space_remove(self(dev)->placing[0]);
    space_remove(self(dev)->placing[1]);
}

static bool loaded(struct device *dev, GError **error)
{
    const struct controller *c = self(dev)->ctl;
    if ((c[0].mask | c[0].dreq | c[0].terminal | c[0].soft | c[1].mask | c[1].dreq |
         c[1].terminal | c[1].soft) & 0xf0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a controller has no more than 4 channels");
        return false;
    }
    return true;
}

#define CTL(n)                                                                                     \
    STATE_ARRAY(struct i8237, ctl[n].base_address), STATE_ARRAY(struct i8237, ctl[n].base_count),  \
        STATE_ARRAY(struct i8237, ctl[n].address), STATE_ARRAY(struct i8237, ctl[n].count),        \
        STATE_ARRAY(struct i8237, ctl[n].mode), STATE(struct i8237, ctl[n].command),               \
        STATE(struct i8237, ctl[n].mask), STATE(struct i8237, ctl[n].terminal),                    \
        STATE(struct i8237, ctl[n].dreq), STATE(struct i8237, ctl[n].soft),                        \
        STATE(struct i8237, ctl[n].temporary), STATE(struct i8237, ctl[n].high_next)
#define PAGE(n)                                                                                    \
    {                                                                                              \
        .name = "page[" #n "]", .slot = offsetof(struct i8237, page[n]), .size = 1, .port = n,     \
        .dir = REG_RW, .writable = 0xff                                                            \
    }

static const struct reg regs[] = {
    CTL(0),  CTL(1),  PAGE(0),  PAGE(1),  PAGE(2),  PAGE(3),  PAGE(4),  PAGE(5),  PAGE(6),
    PAGE(7), PAGE(8), PAGE(9), PAGE(10), PAGE(11), PAGE(12), PAGE(13), PAGE(14), PAGE(15),
};

const struct device_model model_i8237 = {
    .name = "i8257",
    .alias = "i8237",
    .about = "PC DMA controllers and page registers",
    .spec = "Intel 8237A data sheet, \"Register Description\"",
    .size = sizeof(struct i8237),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .stop = stop,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
