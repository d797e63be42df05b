/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * hda: the controller of Intel's High Definition Audio.
 *
 * Spec: Intel, "High Definition Audio Specification", Revision 1.0a, "Register Interface",
 * "Programming Model".
 * Commands are answered at once.  A stream moves as the guest's clock goes, SOUND_TICK_NS at a
 * time.  Bounds against a hostile list: a tick visits so many entries, a chunk has so many bytes.
 * Not modelled: striping, the aliases of LPIB, bidirectional streams.
 */
#include "guest/device/hda.h"

#include "base/bytes.h"

enum { GCTL_RUNS = 1 << 0 };
enum { RING_ENTRIES = 256, CORB_ENTRY = 4, RIRB_ENTRY = 8, LIST_ENTRY = 16 };
enum { CORB_RUNS = 1 << 1, POINTER_RESET = 1 << 15 };
enum { RIRB_INTERRUPTS = 1 << 0, RIRB_RUNS = 1 << 1, RIRB_RESPONSE = 1 << 0 };
enum { NOW_BUSY = 1 << 0, NOW_VALID = 1 << 1 };
enum { STREAM_RESET = 1 << 0, STREAM_RUNS = 1 << 1, STREAM_EVENTS = 0x1c };
enum { STS_COMPLETE = 1 << 2, STS_DESCRIPTOR = 1 << 4, STS_READY = 1 << 5 };
enum { DMA_POSITIONS = 1, ENTRY_IOC = 1, ENTRIES_A_TICK = 1024, CHUNK = 4096 };
enum { FIFO_OUT = 0xbf, FIFO_IN = 0x77 };
#define INT_CONTROLLER 0x40000000u
#define INT_GLOBAL     0x80000000u

static struct hda *self(struct device *dev)
{
    return container_of(dev, struct hda, pci.dev);
}

static uint64_t address(uint32_t high, uint32_t low)
{
    return (uint64_t)high << 32 | (low & ~0x7fu);
}

/* ---- interrupts ---- */

static uint32_t events(const struct hda *s)
{
    uint32_t now = 0;
    for (unsigned i = 0; i < HDA_STREAMS; i++) {
        now |= s->sts[i] & s->ctl[i] & STREAM_EVENTS ? 1u << i : 0;
    }
    if ((s->rirb_sts & s->rirb_ctl & RIRB_RESPONSE) || (s->statests & s->wakeen)) {
        now |= INT_CONTROLLER;
    }
    return now;
}

static uint64_t intsts_read(struct device *dev, uint64_t stored)
{
    uint32_t now = events(self(dev));
    (void)stored;
    return now | (now ? INT_GLOBAL : 0);
}

void hda_settle(struct device *dev)
{
    struct hda *s = self(dev);
    uint32_t asks = s->intctl & INT_GLOBAL ? events(s) & s->intctl : 0;
    bool is_msi = pci_msi_enabled(&s->pci);
    pci_irq(&s->pci, asks && !is_msi);
    if ((asks & ~s->told) && is_msi) {
        pci_msi(&s->pci, 0);
    }
    s->told = asks;
}

/* ---- commands ---- */

static void respond(struct hda *s, unsigned cad, uint32_t response)
{
    uint8_t bytes[RIRB_ENTRY];
    le32_put(bytes, response);
    le32_put(bytes + 4, cad);
    s->rirb_wp = (uint16_t)((s->rirb_wp + 1) % RING_ENTRIES);
    pci_dma_write(&s->pci, address(s->rirb_high, s->rirb_low) + s->rirb_wp * RIRB_ENTRY, bytes,
                  sizeof(bytes));
    s->responses++;
}

static bool ask(struct hda *s, uint32_t command, uint32_t *response)
{
    unsigned cad = command >> 28;
    struct hda_codec *c = cad < HDA_CODECS ? s->codec[cad] : NULL;
    *response = c ? hda_command(c, command & 0x0fffffff) : 0;
    return c != NULL;
}

static void run_commands(struct hda *s)
{
    uint8_t bytes[CORB_ENTRY];
    uint32_t response;
    if (!(s->corb_ctl & CORB_RUNS) || !(s->rirb_ctl & RIRB_RUNS) || !(s->gctl & GCTL_RUNS)) {
        return;
    }
    while (s->corb_rp % RING_ENTRIES != s->corb_wp % RING_ENTRIES) {
        s->corb_rp = (uint16_t)((s->corb_rp + 1) % RING_ENTRIES);
        if (!pci_dma_read(&s->pci, address(s->corb_high, s->corb_low) + s->corb_rp * CORB_ENTRY,
                          bytes, sizeof(bytes))) {
            return;
        }
        if (ask(s, le32_at(bytes), &response)) {
            respond(s, le32_at(bytes) >> 28, response);
        }
    }
    if (s->responses) { /* as many as were asked for, or all that there are */
        s->responses = 0;
        s->rirb_sts |= RIRB_RESPONSE;
    }
}

static void ring_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    run_commands(self(dev));
}

static void corb_rp_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->corb_rp = (uint16_t)(now & POINTER_RESET);
}

static void rirb_wp_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (now & POINTER_RESET) {
        self(dev)->rirb_wp = 0;
    }
}

static uint64_t rirb_wp_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->rirb_wp;
}

static void now_sts_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct hda *s = self(dev);
    (void)old;
    if (now & NOW_BUSY) {
        s->now_sts &= (uint16_t)~NOW_BUSY;
        if (ask(s, s->now_out, &s->now_in)) {
            s->now_sts |= NOW_VALID;
        }
    }
}

/* ---- streams ---- */

static bool is_out(unsigned n)
{
    return n >= HDA_OUT_FROM;
}

/* The next entry of the list; false: there is none to be had. */
static bool next_entry(struct hda *s, unsigned n, bool first)
{
    uint8_t e[LIST_ENTRY];
    s->entry[n] = first || s->entry[n] >= MIN(s->lvi[n], RING_ENTRIES - 1) ? 0 : s->entry[n] + 1;
    uint64_t at = address(s->list_high[n], s->list_low[n]) + s->entry[n] * LIST_ENTRY;
    bool good = pci_dma_read(&s->pci, at, e, sizeof(e));
    s->entry_done[n] = 0;
    s->entry_at[n] = good ? le64_at(e) : 0;
    s->entry_bytes[n] = good ? le32_at(e + 8) : 0;
    s->entry_ioc[n] = good && (le32_at(e + 12) & ENTRY_IOC);
    if (!good) {
        s->sts[n] |= STS_DESCRIPTOR;
    }
    return good;
}

static void stop_stream(struct hda *s, unsigned n)
{
    s->ctl[n] &= (uint8_t)~STREAM_RUNS;
    s->sts[n] &= (uint8_t)~STS_READY;
    sound_pace_stop(&s->pace[n]);
    for (unsigned i = 0; is_out(n) && i < HDA_CODECS; i++) {
        if (s->codec[i]) {
            hda_stream_stops(s->codec[i], s->tag[n] >> 4);
        }
    }
}

/* Recorded is silence: there is no backend that hears. */
static void move_chunk(struct hda *s, unsigned n, uint32_t bytes)
{
    uint8_t data[CHUNK] = {0};
    uint64_t at = s->entry_at[n] + s->entry_done[n];
    if (!is_out(n)) {
        pci_dma_write(&s->pci, at, data, bytes);
        return;
    }
    if (!pci_dma_read(&s->pci, at, data, bytes)) {
        memset(data, 0, bytes);
    }
    for (unsigned i = 0; i < HDA_CODECS; i++) {
        if (s->codec[i]) {
            hda_stream_data(s->codec[i], s->tag[n] >> 4, s->format[n], data, bytes);
        }
    }
}

static void move_stream(struct hda *s, unsigned n, uint32_t bytes)
{
    for (unsigned turns = 0; bytes && turns < ENTRIES_A_TICK; turns++) {
        uint32_t left = s->entry_bytes[n] - s->entry_done[n];
        uint32_t chunk = MIN(MIN(bytes, left), (uint32_t)CHUNK);
        uint32_t frame = hda_frame_bytes(s->format[n]);
        chunk = chunk > frame ? chunk - chunk % frame : chunk;
        if (chunk) {
            move_chunk(s, n, chunk);
        }
        s->entry_done[n] += chunk;
        bytes -= chunk;
        s->lpib[n] = s->cbl[n] && s->lpib[n] + chunk < s->cbl[n] ? s->lpib[n] + chunk : 0;
        if (s->entry_done[n] >= s->entry_bytes[n]) {
            s->sts[n] |= s->entry_ioc[n] ? STS_COMPLETE : 0;
            if (!next_entry(s, n, false)) {
                return;
            }
        }
    }
}

static void tick(void *owner)
{
    struct sound_pace *p = owner;
    struct hda *s = p->card;
    unsigned frame = hda_frame_bytes(s->format[p->n]),
             due = sound_pace_due(p, hda_rate(s->format[p->n]));
    uint8_t position[4];
    if (!frame) {
        stop_stream(s, p->n);
        return;
    }
    if (!(s->ssync & 1u << p->n)) {
        move_stream(s, p->n, due * frame);
    }
    if (s->dma_low & DMA_POSITIONS) {
        le32_put(position, s->lpib[p->n]);
        pci_dma_write(&s->pci, address(s->dma_high, s->dma_low) + p->n * 8, position,
                      sizeof(position));
    }
    hda_settle(&s->pci.dev);
}

static void reset_stream(struct hda *s, unsigned n)
{
    stop_stream(s, n);
    s->ctl[n] = s->tag[n] = s->sts[n] = 0;
    s->lpib[n] = s->cbl[n] = s->list_low[n] = s->list_high[n] = 0;
    s->lvi[n] = s->format[n] = s->entry[n] = 0;
    s->entry_at[n] = s->entry_bytes[n] = s->entry_done[n] = 0;
    s->entry_ioc[n] = false;
}

static void ctl_write(struct hda *s, unsigned n, uint64_t old, uint64_t now)
{
    bool starts = (now & STREAM_RUNS) && !(old & STREAM_RUNS);
    if (now & STREAM_RESET) {
        reset_stream(s, n);
        s->ctl[n] = STREAM_RESET;
    } else if (starts && hda_frame_bytes(s->format[n]) && next_entry(s, n, true)) {
        s->sts[n] |= STS_READY;
        sound_pace_start(&s->pace[n]);
    } else if (!(now & STREAM_RUNS) && (old & STREAM_RUNS)) {
        stop_stream(s, n);
    }
}

#define CTL_WRITE(n)                                                                               \
    static void ctl_write_##n(struct device *dev, uint64_t old, uint64_t now)                      \
    {                                                                                              \
        ctl_write(self(dev), n, old, now);                                                         \
    }
CTL_WRITE(0)
CTL_WRITE(1)
CTL_WRITE(2)
CTL_WRITE(3)
CTL_WRITE(4)
CTL_WRITE(5)
CTL_WRITE(6)
CTL_WRITE(7)

/* ---- the whole ---- */

static void reset_registers(struct hda *s)
{
    for (unsigned i = 0; i < HDA_STREAMS; i++) {
        reset_stream(s, i);
    }
    s->gctl = s->intctl = s->ssync = 0;
    s->corb_low = s->corb_high = s->rirb_low = s->rirb_high = s->dma_low = s->dma_high = 0;
    s->corb_wp = s->corb_rp = s->rirb_wp = s->rirb_every = s->responses = 0;
    s->corb_ctl = s->rirb_ctl = s->rirb_sts = 0;
    s->now_out = s->now_in = s->now_sts = 0;
    s->wall_from = clock_now();
}

/* When the link comes out of reset, who is there says so. */
static void gctl_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct hda *s = self(dev);
    if (!(now & GCTL_RUNS)) {
        reset_registers(s);
    } else if (!(old & GCTL_RUNS)) {
        for (unsigned i = 0; i < HDA_CODECS; i++) {
            if (s->codec[i]) {
                device_reset(&s->codec[i]->dev);
                s->statests |= (uint16_t)(1 << i);
            }
        }
    }
}

/* 24 MHz. */
static uint64_t wall_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return (uint64_t)(clock_now() - self(dev)->wall_from) * 24 / 1000;
}

#define READ_ONLY(name, value)                                                                     \
    static uint64_t name##_read(struct device *dev, uint64_t stored)                               \
    {                                                                                              \
        (void)dev, (void)stored;                                                                   \
        return value;                                                                              \
    }
READ_ONLY(gcap, HDA_OUT_FROM << 8 | (HDA_STREAMS - HDA_OUT_FROM) << 12 | 1) /* 64-bit addresses */
READ_ONLY(version, 0x0100)
READ_ONLY(outpay, 0x3c)
READ_ONLY(inpay, 0x1d)
READ_ONLY(ring_size, 0x42) /* 256 entries and nothing else */
READ_ONLY(fifo_in, FIFO_IN)
READ_ONLY(fifo_out, FIFO_OUT)

void hda_config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    (void)at, (void)bytes;
    hda_settle(&pci->dev); /* MSI may have come on */
}

void hda_reset(struct device *dev)
{
    struct hda *s = self(dev);
    reset_registers(s);
    s->pci.config[0x40] = 1; /* the link is this one, not AC '97 */
}

bool hda_loaded(struct device *dev, GError **error)
{
    struct hda *s = self(dev);
    bool good = s->wall_from >= 0 && s->rirb_wp < RING_ENTRIES;
    for (unsigned i = 0; i < HDA_STREAMS; i++) {
        bool runs = s->ctl[i] & STREAM_RUNS;
        good &= s->pace[i].from >= 0 && s->entry_done[i] <= s->entry_bytes[i] &&
                s->entry[i] < RING_ENTRIES && (runs || !timer_armed(&s->pace[i].timer));
    }
    if (!good) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the sound controller is in no possible state");
        return false;
    }
    return true;
}

bool hda_start(struct device *dev, GError **error)
{
    struct hda *s = self(dev);
    for (unsigned i = 0; i < HDA_STREAMS; i++) {
        sound_pace_init(&s->pace[i], tick, s, i);
    }
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    s->bus = dev->id ? g_strdup_printf("%s.0", dev->id) : g_strdup("hda.0");
    s->pci.writable[0x44] = 7; /* the traffic class, which there is only one of */
    device_window_init(&s->window, dev, 0, "hda", HDA_BAR_BYTES);
    pci_set_bar(&s->pci, 0, &s->window.region, false, false, false);
    return !s->prop_msi || pci_add_msi(&s->pci, 1, error);
}

void hda_stop(struct device *dev)
{
    struct hda *s = self(dev);
    for (unsigned i = 0; i < HDA_STREAMS; i++) {
        sound_pace_stop(&s->pace[i]);
    }
    for (unsigned i = 0; i < HDA_CODECS; i++) {
        if (s->codec[i]) {
            s->codec[i]->bus = NULL; /* it goes, too, or stays without a link */
        }
    }
    g_clear_pointer(&s->bus, g_free);
    pci_detach(&s->pci);
}

struct hda *hda_bus_find(struct board *board, const char *name)
{
    for (struct device *d = board->devices; d; d = d->next) {
        struct hda *s = d->model->start == hda_start ? self(d) : NULL;
        if (s && s->bus && (!name || g_str_equal(s->bus, name))) {
            return s;
        }
    }
    return NULL;
}

#define F(field, ...) REG(struct hda, field, .dir = REG_RW, __VA_ARGS__)
#define RO(label, at, bytes)                                                                       \
    REG_COMPUTED(#label, .port = at, .width = bytes, .dir = REG_R, .on_read = label##_read)
#define STREAM(n, fifo)                                                                            \
    F(ctl[n], .port = 0x80 + 0x20 * n, .writable = 0x1f, .on_write = ctl_write_##n),               \
        F(tag[n], .port = 0x82 + 0x20 * n, .writable = 0xff),                                      \
        F(sts[n], .port = 0x83 + 0x20 * n, .w1c = STREAM_EVENTS),                                  \
        REG(struct hda, lpib[n], .port = 0x84 + 0x20 * n, .dir = REG_R),                           \
        F(cbl[n], .port = 0x88 + 0x20 * n, .writable = UINT32_MAX),                                \
        F(lvi[n], .port = 0x8c + 0x20 * n, .writable = 0xff),                                      \
        REG_COMPUTED("fifo" #n, .port = 0x90 + 0x20 * n, .width = 2, .dir = REG_R,                 \
                     .on_read = fifo##_read),                                                      \
        F(format[n], .port = 0x92 + 0x20 * n, .writable = 0x7f7f),                                 \
        F(list_low[n], .port = 0x98 + 0x20 * n, .writable = 0xffffff80),                           \
        F(list_high[n], .port = 0x9c + 0x20 * n, .writable = UINT32_MAX),                          \
        SOUND_PACE_STATE(struct hda, pace[n])

const struct reg hda_regs[HDA_NREGS] = {
    PCI_STATE(struct hda, pci),
    RO(gcap, 0x00, 2),
    RO(version, 0x02, 2),
    RO(outpay, 0x04, 2),
    RO(inpay, 0x06, 2),
    F(gctl, .port = 0x08, .writable = 0x101, .on_write = gctl_write,
      .help = "bit 0: the link is out of reset"),
    F(wakeen, .port = 0x0c, .writable = 0x7fff),
    F(statests, .port = 0x0e, .w1c = 0x7fff),
    F(intctl, .port = 0x20, .writable = 0xc00000ff),
    REG_COMPUTED("intsts", .port = 0x24, .width = 4, .dir = REG_R, .on_read = intsts_read),
    REG_COMPUTED("walclk", .port = 0x30, .width = 4, .dir = REG_R, .on_read = wall_read),
    F(ssync, .port = 0x38, .writable = 0xff, .help = "streams that wait"),
    F(corb_low, .port = 0x40, .writable = 0xffffff80),
    F(corb_high, .port = 0x44, .writable = UINT32_MAX),
    F(corb_wp, .port = 0x48, .writable = 0xff, .on_write = ring_write),
    F(corb_rp, .port = 0x4a, .writable = 0xffff, .on_write = corb_rp_write),
    F(corb_ctl, .port = 0x4c, .writable = 0x03, .on_write = ring_write),
    RO(ring_size, 0x4e, 1),
    F(rirb_low, .port = 0x50, .writable = 0xffffff80),
    F(rirb_high, .port = 0x54, .writable = UINT32_MAX),
    STATE(struct hda, rirb_wp),
    REG_COMPUTED("rirbwp", .port = 0x58, .width = 2, .dir = REG_RW, .on_read = rirb_wp_read,
                 .on_write = rirb_wp_write),
    F(rirb_every, .port = 0x5a, .writable = 0xff),
    F(rirb_ctl, .port = 0x5c, .writable = 0x07, .on_write = ring_write),
    F(rirb_sts, .port = 0x5d, .w1c = 0x05),
    REG_COMPUTED("rirbsize", .port = 0x5e, .width = 1, .dir = REG_R, .on_read = ring_size_read),
    F(now_out, .port = 0x60, .writable = UINT32_MAX),
    REG(struct hda, now_in, .port = 0x64, .dir = REG_R),
    F(now_sts, .port = 0x68, .writable = 0x01, .w1c = 0x02, .on_write = now_sts_write),
    F(dma_low, .port = 0x70, .writable = 0xffffff81),
    F(dma_high, .port = 0x74, .writable = UINT32_MAX),
    STREAM(0, fifo_in),
    STREAM(1, fifo_in),
    STREAM(2, fifo_in),
    STREAM(3, fifo_in),
    STREAM(4, fifo_out),
    STREAM(5, fifo_out),
    STREAM(6, fifo_out),
    STREAM(7, fifo_out),
    STATE(struct hda, wall_from, .help = "when the wall clock was 0"),
    STATE(struct hda, responses),
    STATE(struct hda, told),
    STATE_ARRAY(struct hda, entry_at),
    STATE_ARRAY(struct hda, entry_bytes),
    STATE_ARRAY(struct hda, entry_done),
    STATE_ARRAY(struct hda, entry),
    STATE_ARRAY(struct hda, entry_ioc),
};
const struct prop hda_props[] = {
    PCI_PROPS(struct hda, pci),
    {"msi", PROP_BOOL, offsetof(struct hda, prop_msi), 1},
};
