/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "guest/device/sound.h"
#include "host/audio/audio.h"

/*
 * hda - Intel's High Definition Audio: a controller that moves streams, and codecs on its link
 *
 * Spec: Intel, "High Definition Audio Specification", Revision 1.0a.
 */
enum { HDA_STREAMS = 8, HDA_OUT_FROM = 4, HDA_CODECS = 15, HDA_BAR_BYTES = 0x4000 };

struct hda_codec;

struct hda {
    struct pci_device pci; /* first */
    char *bus;             /* "sound0.0" */
    struct hda_codec *codec[HDA_CODECS];
    /* Registers. */
    uint32_t gctl, intctl, ssync;
    uint16_t wakeen, statests;
    uint32_t corb_low, corb_high, rirb_low, rirb_high, dma_low, dma_high;
    uint16_t corb_wp, corb_rp, rirb_wp, rirb_every;
    uint8_t corb_ctl, rirb_ctl, rirb_sts;
    uint32_t now_out, now_in;
    uint16_t now_sts;
    uint8_t ctl[HDA_STREAMS], tag[HDA_STREAMS], sts[HDA_STREAMS];
    uint32_t lpib[HDA_STREAMS], cbl[HDA_STREAMS], list_low[HDA_STREAMS], list_high[HDA_STREAMS];
    uint16_t lvi[HDA_STREAMS], format[HDA_STREAMS];
    /* More state. */
    int64_t wall_from;    /* guest time at which the wall clock was 0 */
    uint16_t responses;   /* since the last interrupt */
    uint32_t told;        /* what the last MSI was for */
    bool prop_msi;
    uint64_t entry_at[HDA_STREAMS];
    uint32_t entry_bytes[HDA_STREAMS], entry_done[HDA_STREAMS];
    uint16_t entry[HDA_STREAMS]; /* its number */
    bool entry_ioc[HDA_STREAMS];
    struct sound_pace pace[HDA_STREAMS];
    struct device_window window;
};

bool hda_start(struct device *dev, GError **error);
void hda_stop(struct device *dev);
void hda_settle(struct device *dev);
void hda_reset(struct device *dev);
bool hda_loaded(struct device *dev, GError **error);
void hda_config_written(struct pci_device *pci, unsigned at, unsigned bytes);
enum { HDA_NREGS = 146 };
extern const struct reg hda_regs[HDA_NREGS];
extern const struct prop hda_props[6];
#define HDA_CONTROLLER_MODEL                                                                       \
    .spec = "Intel, High Definition Audio Specification 1.0a, \"Register Interface\"",             \
    .size = sizeof(struct hda), .version = 1, .bus = BUS_PCI, .regs = hda_regs,                    \
    .nregs = G_N_ELEMENTS(hda_regs), .props = hda_props, .nprops = G_N_ELEMENTS(hda_props),        \
    .bus_data = &ident, .start = hda_start, .stop = hda_stop, .settle = hda_settle,                \
    .reset = hda_reset, .loaded = hda_loaded
#define HDA_IDENT                                                                                  \
    .vendor = 0x8086, .class = 0x040300, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,          \
    .irq_pin = 1, .config_written = hda_config_written

/* ---- codecs ---- */

struct hda_node; /* hda_codec.c's */

struct hda_kind {
    uint16_t device; /* of the vendor and device id */
    bool out, in, micro;
};

struct hda_codec {
    struct device dev; /* first */
    const struct hda_kind *kind;
    struct hda *bus;
    struct audio_voice *voice;
    /* State; [0] plays, [1] records. */
    uint16_t format[2];
    uint8_t stream[2], pin[2], unsolicited[2], eapd[2], power[6];
    uint8_t gain[2]; /* left, right; 0x80: muted */
    /* Properties. */
    const char *prop_bus;
    struct audio *audio;
    uint32_t prop_cad;
    bool prop_mixer;
};

/* For the controller. */
uint32_t hda_command(struct hda_codec *c, uint32_t command);
void hda_stream_stops(struct hda_codec *c, unsigned tag);
/* Whole samples of the stream @tag, shaped as @format says. */
void hda_stream_data(struct hda_codec *c, unsigned tag, unsigned format, const uint8_t *data, size_t n);
/* Bytes of a frame and frames a second; 0 if @format is none. */
unsigned hda_frame_bytes(unsigned format);
unsigned hda_rate(unsigned format);

bool hda_codec_start(struct hda_codec *c, const struct hda_kind *kind, GError **error);
void hda_codec_stop(struct device *dev);
void hda_codec_reset(struct device *dev);
bool hda_codec_loaded(struct device *dev, GError **error);
/* The controller whose bus has this name; NULL: the first that has room. */
struct hda *hda_bus_find(struct board *board, const char *name);

#define HDA_CODEC_STATE                                                                            \
    STATE_ARRAY(struct hda_codec, format), STATE_ARRAY(struct hda_codec, stream),                  \
        STATE_ARRAY(struct hda_codec, pin), STATE_ARRAY(struct hda_codec, unsolicited),            \
        STATE_ARRAY(struct hda_codec, eapd), STATE_ARRAY(struct hda_codec, power),                 \
        STATE_ARRAY(struct hda_codec, gain)
#define HDA_CODEC_PROPS                                                                            \
    {"bus", PROP_STRING, offsetof(struct hda_codec, prop_bus)},                                    \
        {"cad", PROP_U32, offsetof(struct hda_codec, prop_cad), UINT32_MAX,                        \
         .help = "address on the link, 0 to 14"},                                                  \
        {"audiodev", PROP_AUDIO, offsetof(struct hda_codec, audio)},                               \
        {"mixer", PROP_BOOL, offsetof(struct hda_codec, prop_mixer), 1, .help = "has volume and mute"}
#define HDA_CODEC_MODEL                                                                            \
    .spec = "Intel, High Definition Audio Specification 1.0a, \"Codec Features and Requirements\"",\
    .size = sizeof(struct hda_codec), .version = 1, .bus = BUS_HDA, .regs = regs,                  \
    .nregs = G_N_ELEMENTS(regs), .props = props, .nprops = G_N_ELEMENTS(props),                    \
    .stop = hda_codec_stop, .reset = hda_codec_reset, .loaded = hda_codec_loaded
