/* SPDX-License-Identifier: GPL-2.0-or-later */

/* hda_duplex: sound codec: line out and line in; the work is in hda_codec.c. */
#include "guest/device/hda.h"

static bool start(struct device *dev, GError **error)
{
    static const struct hda_kind kind = {.device = 0x0022, .out = true, .in = true};
    return hda_codec_start((struct hda_codec *)dev, &kind, error);
}

static const struct reg regs[] = {HDA_CODEC_STATE};
static const struct prop props[] = {HDA_CODEC_PROPS};

const struct device_model model_hda_duplex = {
    .name = "hda-duplex",
    .about = "sound codec: line out and line in",
    .start = start,
    HDA_CODEC_MODEL,
};
