/* SPDX-License-Identifier: GPL-2.0-or-later */

/* hda_micro: sound codec: speaker and microphone; the work is in hda_codec.c. */
#include "guest/device/hda.h"

static bool start(struct device *dev, GError **error)
{
    static const struct hda_kind kind = {.device = 0x0032, .out = true, .in = true, .micro = true};
    return hda_codec_start((struct hda_codec *)dev, &kind, error);
}

static const struct reg regs[] = {HDA_CODEC_STATE};
static const struct prop props[] = {HDA_CODEC_PROPS};

const struct device_model model_hda_micro = {
    .name = "hda-micro",
    .about = "sound codec: speaker and microphone",
    .start = start,
    HDA_CODEC_MODEL,
};
