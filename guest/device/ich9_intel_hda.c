/* SPDX-License-Identifier: GPL-2.0-or-later */

/* ich9_intel_hda: a sound controller; the work is in hda.c. */
#include "guest/device/hda.h"

static const struct pci_ident ident = {HDA_IDENT, .device = 0x293e};

const struct device_model model_ich9_intel_hda = {
    .name = "ich9-intel-hda",
    .about = "Intel High Definition Audio (ICH9)",
    HDA_CONTROLLER_MODEL,
};
