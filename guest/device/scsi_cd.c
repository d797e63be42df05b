/* SPDX-License-Identifier: GPL-2.0-or-later */

/* scsi_cd: CD-ROM drive on a SCSI bus; the work is in scsi.c. */
#include "guest/device/scsi.h"

static const struct scsi_variant kind = {.cd = true};
static const struct reg regs[] = {SCSI_UNIT_STATE(struct scsi_device, unit)};
static const struct prop props[] = {SCSI_UNIT_PROPS(struct scsi_device, unit)};

const struct device_model model_scsi_cd = {
    .name = "scsi-cd",
    .about = "CD-ROM drive on a SCSI bus",
    .spec = "T10 SPC-4; MMC-6, \"Commands and parameters for MM devices\"",
    SCSI_DEVICE_MODEL,
};
