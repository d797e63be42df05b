/* SPDX-License-Identifier: GPL-2.0-or-later */

/* scsi_hd: disk on a SCSI bus; the work is in scsi.c. */
#include "guest/device/scsi.h"

static const struct scsi_variant kind = {.cd = false};
static const struct reg regs[] = {SCSI_UNIT_STATE(struct scsi_device, unit)};
static const struct prop props[] = {SCSI_UNIT_PROPS(struct scsi_device, unit)};

const struct device_model model_scsi_hd = {
    .name = "scsi-hd",
    .about = "disk on a SCSI bus",
    .spec = "T10 SPC-4; SBC-3, \"Commands for direct access block devices\"",
    SCSI_DEVICE_MODEL,
};
