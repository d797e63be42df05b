/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmcoreinfo: the guest kernel tells where its note for crash dumps is, so that a dump made from
 * outside can be read.
 *
 * Spec: QEMU, "VMCoreInfo device".
 */
#include "guest/device/vmcoreinfo.h"

#include "base/bytes.h"
#include "guest/device/board.h"
#include "guest/device/fw_cfg.h"

#define FILE_NAME "etc/vmcoreinfo"
enum { BYTES = 16, AT_HOST = 0, AT_GUEST = 2, AT_SIZE = 4, AT_PLACE = 8, FORMAT_ELF = 1 };

struct vmcoreinfo {
    struct device dev;
    uint8_t said[BYTES]; /* state: the file, as the guest has written it */
};

static struct vmcoreinfo *self(struct device *dev)
{
    return container_of(dev, struct vmcoreinfo, dev);
}

static struct device *fw_of(const struct vmcoreinfo *s)
{
    return board_part(s->dev.board, "fw_cfg");
}

static void written(void *owner, size_t at, size_t n)
{
    struct vmcoreinfo *s = owner;
    size_t have;
    const uint8_t *bytes = fw_cfg_file_bytes(fw_of(s), FILE_NAME, &have);
    (void)at, (void)n;
    memcpy(s->said, bytes, MIN(have, sizeof(s->said)));
}

bool vmcoreinfo_note(struct device *dev, uint64_t *gpa, uint32_t *bytes)
{
    const struct vmcoreinfo *s = self(dev);
    *bytes = le32_at(s->said + AT_SIZE);
    *gpa = le64_at(s->said + AT_PLACE);
    return le16_at(s->said + AT_GUEST) == FORMAT_ELF && *bytes && *gpa;
}

static void reset(struct device *dev)
{
    struct vmcoreinfo *s = self(dev);
    memset(s->said, 0, sizeof(s->said));
    le16_put(s->said + AT_HOST, FORMAT_ELF);
    if (fw_of(s)) {
        fw_cfg_replace_file(fw_of(s), FILE_NAME, s->said, sizeof(s->said));
    }
}

static bool loaded(struct device *dev, GError **error)
{
    struct vmcoreinfo *s = self(dev);
    (void)error;
    if (fw_of(s)) {
        fw_cfg_replace_file(fw_of(s), FILE_NAME, s->said, sizeof(s->said));
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct vmcoreinfo *s = self(dev);
    const struct fw_cfg_hooks hooks = {.written = written, .owner = s, .writable = true};
    if (board_part(dev->board, "vmcoreinfo") || !fw_of(s)) {
        g_set_error(error, LODGE_ERROR, EBUSY,
                    fw_of(s) ? "the machine has one already" : "the machine has no fw_cfg");
        return false;
    }
    if (!fw_cfg_add_live_file(fw_of(s), FILE_NAME, s->said, sizeof(s->said), &hooks, error)) {
        return false;
    }
    board_add_part(dev->board, "vmcoreinfo", dev);
    return true;
}

static const struct reg regs[] = {STATE_ARRAY(struct vmcoreinfo, said)};

const struct device_model model_vmcoreinfo = {
    .name = "vmcoreinfo",
    .about = "lets the guest say where its note for dumps is",
    .spec = "QEMU, \"VMCoreInfo device\"",
    .size = sizeof(struct vmcoreinfo),
    .version = 1,
    .bus = BUS_OTHER,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
