/* SPDX-License-Identifier: GPL-2.0-or-later */

/* ide_hd: disk on an IDE or AHCI port; the work is in ata.c. */
#include "guest/device/ata.h"

#include "base/util.h"

static bool start(struct device *dev, GError **error)
{
    return ata_drive_start(container_of(dev, struct ata_drive, dev), false, error);
}

static const struct reg regs[] = {ATA_STATE};
static const struct prop props[] = {ATA_PROPS};

const struct device_model model_ide_hd = {
    .name = "ide-hd",
    .about = "disk on an IDE or AHCI port",
    .spec = "INCITS 397, AT Attachment with Packet Interface 7",
    .size = sizeof(struct ata_drive),
    .version = 1,
    .bus = BUS_IDE,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = ata_drive_stop,
    .reset = ata_drive_reset,
    .loaded = ata_drive_loaded,
};
