/* SPDX-License-Identifier: GPL-2.0-or-later */

/* scsi_cd: CD-ROM drive on a SCSI bus; the work is in scsi.c. */
#include "guest/device/scsi.h"

#include "base/util.h"

struct scsi_cd {
    struct scsi_unit unit;
};

static struct scsi_unit *self(struct device *dev)
{
    return container_of(dev, struct scsi_unit, dev);
}

static bool start(struct device *dev, GError **error)
{
    return scsi_unit_start(self(dev), true, error);
}

static void reset(struct device *dev)
{
    scsi_unit_reset(self(dev));
}

static bool loaded(struct device *dev, GError **error)
{
    return scsi_unit_sane(self(dev), error);
}

static const struct reg regs[] = {SCSI_UNIT_STATE(struct scsi_cd, unit)};
static const struct prop props[] = {SCSI_UNIT_PROPS(struct scsi_cd, unit)};

const struct device_model model_scsi_cd = {
    .name = "scsi-cd",
    .about = "CD-ROM drive on a SCSI bus",
    .spec = "T10 SPC-4; MMC-6, \"Commands and parameters for MM devices\"",
    .size = sizeof(struct scsi_cd),
    .version = 1,
    .bus = BUS_SCSI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = scsi_unit_stop,
    .reset = reset,
    .loaded = loaded,
};
