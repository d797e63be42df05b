/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * pcspk: the loudspeaker on channel 2 of the timer, as a voice.
 *
 * Spec: Intel, "82371AB PCI-to-ISA / IDE Xcelerator (PIIX4)", "NMI Status and Control Register".
 * What plays is derived from the timer, so there is no state but how far it has been played.
 */
#include "guest/device/board.h"
#include "guest/device/i8254.h"
#include "guest/device/sound.h"
#include "host/audio/audio.h"

enum { RATE = 32000, LOUD = 8000, CHUNK = 256 };

struct pcspk {
    struct device dev;
    struct device *pit;
    struct audio_voice *voice;
    struct audio *audio;
    struct sound_pace pace;
};

static struct pcspk *self(struct device *dev)
{
    return container_of(dev, struct pcspk, dev);
}

static void tick(void *owner)
{
    struct sound_pace *p = owner;
    struct pcspk *s = p->card;
    struct audio_frame out[CHUNK];
    if (!s->pit || !i8254_speaker_on(s->pit)) {
        sound_pace_stop(p);
        audio_voice_stop(s->voice);
        return;
    }
    unsigned due = sound_pace_due(p, RATE);
    int64_t from = clock_now() - (int64_t)due * (1000000000 / RATE);
    audio_voice_start(s->voice, RATE);
    for (unsigned done = 0, n; done < due; done += n) {
        n = MIN(due - done, (unsigned)CHUNK);
        for (unsigned i = 0; i < n; i++) {
            bool high = i8254_speaker(s->pit, from + (int64_t)(done + i) * (1000000000 / RATE));
            out[i].left = out[i].right = high ? LOUD : -LOUD;
        }
        audio_play(s->voice, out, n);
    }
}

static void heard(void *owner)
{
    struct pcspk *s = owner;
    if (i8254_speaker_on(s->pit) && !timer_armed(&s->pace.timer)) {
        sound_pace_start(&s->pace);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct pcspk *s = self(dev);
    (void)error;
    s->pit = board_part(dev->board, "pit");
    s->voice = audio_voice_new(s->audio);
    sound_pace_init(&s->pace, tick, s, 0);
    if (s->pit) {
        i8254_listen(s->pit, heard, s);
    }
    return true;
}

static void stop(struct device *dev)
{
    struct pcspk *s = self(dev);
    if (s->pit) {
        i8254_listen(s->pit, NULL, NULL);
    }
    audio_voice_free(s->voice);
}

static void reset(struct device *dev)
{
    audio_voice_stop(self(dev)->voice);
}

static bool loaded(struct device *dev, GError **error)
{
    if (self(dev)->pace.from < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the speaker began before time did");
        return false;
    }
    return true;
}

static const struct reg regs[] = {SOUND_PACE_STATE(struct pcspk, pace)};
static const struct prop props[] = {{"audiodev", PROP_AUDIO, offsetof(struct pcspk, audio)}};

const struct device_model model_pcspk = {
    .name = "pcspk",
    .alias = "isa-pcspk",
    .about = "PC speaker: -M pcspk-audiodev=ID",
    .spec = "Intel PIIX4 data sheet, \"NMI Status and Control Register\"",
    .size = sizeof(struct pcspk),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .reset = reset,
    .loaded = loaded,
};
