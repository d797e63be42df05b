/* SPDX-License-Identifier: GPL-2.0-or-later */

/* intel_hda: a sound controller; the work is in hda.c. */
#include "guest/device/hda.h"

static const struct pci_ident ident = {HDA_IDENT, .device = 0x2668};

const struct device_model model_intel_hda = {
    .name = "intel-hda",
    .about = "Intel High Definition Audio (ICH6)",
    HDA_CONTROLLER_MODEL,
};
