/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * ac97: the sound function of Intel's ICH with a codec on its link.
 *
 * Spec: Intel, "82801AA (ICH) I/O Controller Hub Datasheet", "AC '97 Audio Controller Registers";
 * "Audio Codec '97", Revision 2.3, "Mixer Registers".
 * Three engines: line in, PCM out, microphone.  Codec accesses end at once, so the semaphore is
 * always free.  Not modelled: modem, secondary codecs, S/PDIF, tone and 3D.
 */
#include "guest/device/pci.h"
#include "guest/device/sound.h"
#include "host/audio/audio.h"

#include "base/bytes.h"

enum { ENGINES = 3, LINE_IN = 0, PCM_OUT = 1, MIC = 2, MIXER_BYTES = 256, MASTER_BYTES = 256 };
enum { ENTRIES = 32, ENTRY_BYTES = 8, ENTRIES_A_TICK = 256, CHUNK = 4096, FRAME = 4 };
enum {
    CR_RUNS = 1 << 0,
    CR_RESET = 1 << 1,
    CR_LAST = 1 << 2,
    CR_COMPLETE = 1 << 4,
    CR_KEPT = 0x1c
};
enum {
    SR_HALTED = 1 << 0,
    SR_AT_LAST = 1 << 1,
    SR_LAST = 1 << 2,
    SR_COMPLETE = 1 << 3,
    SR_FIFO = 1 << 4
};
enum { ENTRY_IOC = 1u << 31, CNT_COLD = 1 << 1, CNT_WARM = 1 << 2 };
enum { STA_READY = 1 << 8, VRA = 1 << 0, RATE = 48000, RATE_LEAST = 8000, MUTED = 1 << 15 };
#define STA_IN  (1u << 5)
#define STA_OUT (1u << 6)
#define STA_MIC (1u << 7)

struct ac97 {
    struct pci_device pci; /* first */
    struct audio_voice *voice;
    struct audio *audio;
    struct device_window window[2];
    /* Mixer. */
    uint16_t master, headphone, mono, beep, phone, mic, line, cd, video, aux, pcm, select, gain,
        mic_gain, general, three_d, power, extended, rate_out, rate_in, rate_mic;
    /* Bus master: an engine each. */
    uint32_t list[ENGINES];
    uint8_t civ[ENGINES], lvi[ENGINES], piv[ENGINES], cr[ENGINES];
    uint16_t sr[ENGINES], picb[ENGINES]; /* samples left in this entry */
    uint32_t control;
    /* More state. */
    uint32_t entry_at[ENGINES]; /* the next sample's address */
    bool entry_ioc[ENGINES];
    struct sound_pace pace[ENGINES];
};

static struct ac97 *self(struct device *dev)
{
    return container_of(dev, struct ac97, pci.dev);
}

/* ---- interrupts ---- */

static bool engine_asks(const struct ac97 *s, unsigned n)
{
    return ((s->sr[n] & SR_LAST) && (s->cr[n] & CR_LAST)) ||
           ((s->sr[n] & SR_COMPLETE) && (s->cr[n] & CR_COMPLETE));
}

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    struct ac97 *s = self(dev);
    (void)stored;
    return STA_READY | (engine_asks(s, LINE_IN) ? STA_IN : 0) |
           (engine_asks(s, PCM_OUT) ? STA_OUT : 0) | (engine_asks(s, MIC) ? STA_MIC : 0);
}

static void settle(struct device *dev)
{
    struct ac97 *s = self(dev);
    pci_irq(&s->pci, engine_asks(s, LINE_IN) || engine_asks(s, PCM_OUT) || engine_asks(s, MIC));
}

/* ---- loudness ---- */

/* Steps of 1.5 dB below the stream; PCM's own register begins 12 dB above it. */
static uint32_t loudness(const struct ac97 *s, unsigned shift)
{
    int steps = (s->master >> shift & 31) + (s->pcm >> shift & 31) - 8;
    uint32_t part = 65536;
    if ((s->master | s->pcm) & MUTED) {
        return 0;
    }
    for (int i = 0; i < steps; i++) {
        part = part * 55142u >> 16;
    }
    return part;
}

/* ---- engines ---- */

static unsigned rate_of(const struct ac97 *s, unsigned n)
{
    uint16_t rate = n == PCM_OUT ? s->rate_out : n == MIC ? s->rate_mic : s->rate_in;
    return MAX(rate, RATE_LEAST);
}

static void fetch(struct ac97 *s, unsigned n)
{
    uint8_t e[ENTRY_BYTES] = {0};
    s->civ[n] = s->piv[n] % ENTRIES;
    s->piv[n] = (uint8_t)((s->civ[n] + 1) % ENTRIES);
    if (!pci_dma_read(&s->pci, s->list[n] + s->civ[n] * ENTRY_BYTES, e, sizeof(e))) {
        memset(e, 0, sizeof(e));
    }
    s->entry_at[n] = le32_at(e) & ~1u;
    s->picb[n] = le16_at(e + 4);
    s->entry_ioc[n] = le32_at(e + 4) & ENTRY_IOC;
}

static void halt(struct ac97 *s, unsigned n)
{
    s->sr[n] |= SR_HALTED;
    sound_pace_stop(&s->pace[n]);
    if (n == PCM_OUT) {
        audio_voice_stop(s->voice);
    }
}

static void play(struct ac97 *s, const uint8_t *data, unsigned bytes)
{
    struct audio_frame out[CHUNK / FRAME];
    uint32_t left = loudness(s, 8), right = loudness(s, 0);
    unsigned n = bytes / FRAME;
    for (unsigned i = 0; i < n; i++) {
        out[i].left = (int16_t)((int64_t)(int16_t)le16_at(data + i * FRAME) * left >> 16);
        out[i].right = (int16_t)((int64_t)(int16_t)le16_at(data + i * FRAME + 2) * right >> 16);
    }
    audio_voice_start(s->voice, rate_of(s, PCM_OUT));
    audio_play(s->voice, out, n);
}

/* Recorded is silence: there is no backend that hears. */
static void move_chunk(struct ac97 *s, unsigned n, unsigned bytes)
{
    uint8_t data[CHUNK] = {0};
    if (n != PCM_OUT) {
        pci_dma_write(&s->pci, s->entry_at[n], data, bytes);
        return;
    }
    if (!pci_dma_read(&s->pci, s->entry_at[n], data, bytes)) {
        memset(data, 0, bytes);
    }
    play(s, data, bytes);
}

/* The entry is done: on to the next, unless it was the last that is valid. */
static bool entry_over(struct ac97 *s, unsigned n)
{
    s->sr[n] |= s->entry_ioc[n] ? SR_COMPLETE : 0;
    if (s->civ[n] == s->lvi[n]) {
        s->sr[n] |= SR_LAST | SR_AT_LAST;
        halt(s, n);
        return false;
    }
    fetch(s, n);
    return true;
}

static void move(struct ac97 *s, unsigned n, unsigned bytes)
{
    for (unsigned turns = 0; bytes && turns < ENTRIES_A_TICK; turns++) {
        unsigned chunk = MIN(MIN(bytes, s->picb[n] * 2u), (unsigned)CHUNK);
        chunk = chunk > FRAME ? chunk - chunk % FRAME : chunk;
        if (chunk) {
            move_chunk(s, n, chunk);
        }
        s->entry_at[n] += chunk;
        s->picb[n] = (uint16_t)(s->picb[n] - (chunk + 1) / 2);
        bytes -= chunk;
        if (!s->picb[n] && !entry_over(s, n)) {
            return;
        }
    }
}

/* As far as the guest's clock has come: at each tick, and whenever the guest looks. */
static void catch_up(struct ac97 *s, unsigned n)
{
    if (timer_armed(&s->pace[n].timer)) {
        move(s, n, sound_pace_due(&s->pace[n], rate_of(s, n)) * FRAME);
    }
}

static void tick(void *owner)
{
    struct sound_pace *p = owner;
    struct ac97 *s = p->card;
    move(s, p->n, sound_pace_due(p, rate_of(s, p->n)) * FRAME);
    settle(&s->pci.dev);
}

static void go(struct ac97 *s, unsigned n)
{
    s->sr[n] &= (uint16_t) ~(SR_HALTED | SR_AT_LAST);
    fetch(s, n);
    sound_pace_start(&s->pace[n]);
}

static void reset_engine(struct ac97 *s, unsigned n)
{
    halt(s, n);
    s->list[n] = s->entry_at[n] = 0;
    s->civ[n] = s->lvi[n] = s->piv[n] = 0;
    s->picb[n] = 0;
    s->sr[n] = SR_HALTED;
    s->entry_ioc[n] = false;
    s->cr[n] &= CR_KEPT;
}

static void cr_write(struct ac97 *s, unsigned n, uint64_t old, uint64_t now)
{
    bool runs = now & CR_RUNS;
    if (now & CR_RESET) {
        reset_engine(s, n);
    } else if (runs && !(old & CR_RUNS) && !s->picb[n]) {
        go(s, n);
    } else if (runs && !(old & CR_RUNS)) { /* goes on where it paused */
        s->sr[n] &= (uint16_t)~SR_HALTED;
        sound_pace_start(&s->pace[n]);
    } else if (!runs && (old & CR_RUNS)) {
        catch_up(s, n);
        halt(s, n);
    }
}

/* More entries are valid: an engine that waited for them goes on. */
static void lvi_write(struct ac97 *s, unsigned n)
{
    if ((s->cr[n] & CR_RUNS) && (s->sr[n] & SR_HALTED)) {
        go(s, n);
    }
}

#define ENGINE_HOOKS(n)                                                                            \
    static void cr_write_##n(struct device *dev, uint64_t old, uint64_t now)                       \
    {                                                                                              \
        cr_write(self(dev), n, old, now);                                                          \
    }                                                                                              \
    static void lvi_write_##n(struct device *dev, uint64_t old, uint64_t now)                      \
    {                                                                                              \
        (void)old, (void)now;                                                                      \
        lvi_write(self(dev), n);                                                                   \
    }                                                                                              \
    static uint64_t civ_read_##n(struct device *dev, uint64_t stored)                              \
    {                                                                                              \
        (void)stored;                                                                              \
        catch_up(self(dev), n);                                                                    \
        return self(dev)->civ[n];                                                                  \
    }                                                                                              \
    static uint64_t picb_read_##n(struct device *dev, uint64_t stored)                             \
    {                                                                                              \
        (void)stored;                                                                              \
        catch_up(self(dev), n);                                                                    \
        return self(dev)->picb[n];                                                                 \
    }
ENGINE_HOOKS(0)
ENGINE_HOOKS(1)
ENGINE_HOOKS(2)

/* ---- mixer and the whole ---- */

static uint64_t zero_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return 0;
}

/* SigmaTel's STAC9700, which drivers know. */
static uint64_t vendor1_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return 0x8384;
}

static uint64_t vendor2_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return 0x7600;
}

static uint64_t extended_id_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return VRA;
}

static void fixed_rates(struct ac97 *s)
{
    s->rate_out = s->rate_in = s->rate_mic = RATE;
}

static void extended_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (!(now & VRA)) {
        fixed_rates(self(dev));
    }
}

static void rate_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct ac97 *s = self(dev);
    uint16_t *rates[] = {&s->rate_out, &s->rate_in, &s->rate_mic};
    (void)old, (void)now;
    if (!(s->extended & VRA)) {
        fixed_rates(s);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rates); i++) {
        *rates[i] = CLAMP(*rates[i], RATE_LEAST, RATE);
    }
}

static void reset_mixer(struct ac97 *s)
{
    s->master = s->headphone = s->mono = s->gain = s->mic_gain = MUTED;
    s->phone = s->mic = 0x8008;
    s->line = s->cd = s->video = s->aux = s->pcm = 0x8808;
    s->beep = s->select = s->general = s->three_d = s->extended = 0;
    s->power = 0x000f; /* all parts are ready */
    fixed_rates(s);
}

static void mixer_reset_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    reset_mixer(self(dev));
}

static uint64_t power_read(struct device *dev, uint64_t stored)
{
    (void)dev;
    return stored | 0x000f;
}

/* A warm reset ends by itself; a cold one lasts while its bit is 0. */
static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct ac97 *s = self(dev);
    s->control &= ~(uint32_t)CNT_WARM;
    if (!(now & CNT_COLD) && (old & CNT_COLD)) {
        reset_mixer(s);
    }
}

static void reset(struct device *dev)
{
    struct ac97 *s = self(dev);
    for (unsigned i = 0; i < ENGINES; i++) {
        s->cr[i] = 0;
        reset_engine(s, i);
    }
    reset_mixer(s);
}

static bool loaded(struct device *dev, GError **error)
{
    struct ac97 *s = self(dev);
    bool good = true;
    for (unsigned i = 0; i < ENGINES; i++) {
        good &= s->pace[i].from >= 0 && s->civ[i] < ENTRIES && s->lvi[i] < ENTRIES;
    }
    if (!good) {
        g_set_error(error, LODGE_ERROR, EINVAL, "an engine is in no possible state");
    }
    return good;
}

static bool start(struct device *dev, GError **error)
{
    struct ac97 *s = self(dev);
    for (unsigned i = 0; i < ENGINES; i++) {
        sound_pace_init(&s->pace[i], tick, s, i);
    }
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    s->voice = audio_voice_new(s->audio ? s->audio : audio_first());
    device_window_init(&s->window[0], dev, 0, "ac97-mixer", MIXER_BYTES);
    device_window_init(&s->window[1], dev, 1, "ac97", MASTER_BYTES);
    pci_set_bar(&s->pci, 0, &s->window[0].region, true, false, false);
    pci_set_bar(&s->pci, 1, &s->window[1].region, true, false, false);
    return true;
}

static void stop(struct device *dev)
{
    struct ac97 *s = self(dev);
    for (unsigned i = 0; i < ENGINES; i++) {
        sound_pace_stop(&s->pace[i]);
    }
    g_clear_pointer(&s->voice, audio_voice_free);
    pci_detach(&s->pci);
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x2415,
    .revision = 1,
    .class = 0x040100,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .irq_pin = 1,
};

enum { STEREO = 0x9f1f, ONE = 0x801f };
#define M(field, at, mask, ...)                                                                    \
    REG(struct ac97, field, .window = 0, .port = at, .dir = REG_RW, .writable = mask, __VA_ARGS__)
#define M_RO(label, at)                                                                            \
    REG_COMPUTED(#label, .window = 0, .port = at, .width = 2, .dir = REG_R, .on_read = label##_read)
#define E(field, at, ...) REG(struct ac97, field, .window = 1, .port = at, __VA_ARGS__)
#define ENGINE(n)                                                                                  \
    E(list[n], 0x10 * n, .dir = REG_RW, .writable = 0xfffffff8),                                   \
        E(civ[n], 0x10 * n + 4, .dir = REG_R, .on_read = civ_read_##n),                            \
        E(lvi[n], 0x10 * n + 5, .dir = REG_RW, .writable = 0x1f, .on_write = lvi_write_##n),       \
        E(sr[n], 0x10 * n + 6, .dir = REG_RW, .w1c = SR_LAST | SR_COMPLETE | SR_FIFO),             \
        E(picb[n], 0x10 * n + 8, .dir = REG_R, .on_read = picb_read_##n),                          \
        E(piv[n], 0x10 * n + 10, .dir = REG_R),                                                    \
        E(cr[n], 0x10 * n + 11, .dir = REG_RW, .writable = 0x1f, .on_write = cr_write_##n),        \
        SOUND_PACE_STATE(struct ac97, pace[n])

static const struct reg regs[] = {
    PCI_STATE(struct ac97, pci),
    REG_COMPUTED("reset", .window = 0, .port = 0x00, .width = 2, .dir = REG_RW,
                 .on_read = zero_read, .on_write = mixer_reset_write),
    M(master, 0x02, STEREO),
    M(headphone, 0x04, STEREO),
    M(mono, 0x06, ONE),
    M(beep, 0x0a, 0x801e),
    M(phone, 0x0c, ONE),
    M(mic, 0x0e, 0x805f),
    M(line, 0x10, STEREO),
    M(cd, 0x12, STEREO),
    M(video, 0x14, STEREO),
    M(aux, 0x16, STEREO),
    M(pcm, 0x18, STEREO),
    M(select, 0x1a, 0x0707),
    M(gain, 0x1c, 0x8f0f),
    M(mic_gain, 0x1e, 0x800f),
    M(general, 0x20, 0x8380),
    M(three_d, 0x22, 0x0f0f),
    M(power, 0x26, 0xff00, .on_read = power_read),
    M_RO(extended_id, 0x28),
    M(extended, 0x2a, VRA, .on_write = extended_write),
    M(rate_out, 0x2c, 0xffff, .on_write = rate_write),
    M(rate_in, 0x32, 0xffff, .on_write = rate_write),
    M(rate_mic, 0x34, 0xffff, .on_write = rate_write),
    M_RO(vendor1, 0x7c),
    M_RO(vendor2, 0x7e),
    ENGINE(0),
    ENGINE(1),
    ENGINE(2),
    E(control, 0x2c, .dir = REG_RW, .writable = 0x3f, .on_write = control_write),
    REG_COMPUTED("status", .window = 1, .port = 0x30, .width = 4, .dir = REG_RW,
                 .on_read = status_read),
    REG_COMPUTED("semaphore", .window = 1, .port = 0x34, .dir = REG_RW, .on_read = zero_read),
    STATE_ARRAY(struct ac97, entry_at),
    STATE_ARRAY(struct ac97, entry_ioc),
};

static const struct prop props[] = {
    PCI_PROPS(struct ac97, pci),
    {"audiodev", PROP_AUDIO, offsetof(struct ac97, audio)},
};

const struct device_model model_ac97 = {
    .name = "AC97",
    .alias = "ac97",
    .about = "Intel 82801AA AC97 Audio",
    .spec = "Intel 82801AA data sheet, \"AC '97 Audio Controller Registers\"",
    .size = sizeof(struct ac97),
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
