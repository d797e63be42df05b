/* SPDX-License-Identifier: GPL-2.0-or-later */

/* scsi_hd: disk on a SCSI bus; the work is in scsi.c. */
#include "guest/device/scsi.h"

#include "base/util.h"

struct scsi_hd {
    struct scsi_unit unit;
};

static struct scsi_unit *self(struct device *dev)
{
    return container_of(dev, struct scsi_unit, dev);
}

static bool start(struct device *dev, GError **error)
{
    return scsi_unit_start(self(dev), false, error);
}

static void reset(struct device *dev)
{
    scsi_unit_reset(self(dev));
}

static bool loaded(struct device *dev, GError **error)
{
    return scsi_unit_sane(self(dev), error);
}

static const struct reg regs[] = {SCSI_UNIT_STATE(struct scsi_hd, unit)};
static const struct prop props[] = {SCSI_UNIT_PROPS(struct scsi_hd, unit)};

const struct device_model model_scsi_hd = {
    .name = "scsi-hd",
    .about = "disk on a SCSI bus",
    .spec = "T10 SPC-4; SBC-3, \"Commands for direct access block devices\"",
    .size = sizeof(struct scsi_hd),
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
