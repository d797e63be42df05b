/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * mmc: the commands of CD-ROM and DVD-ROM drives, behind ATAPI, virtio-scsi and USB.
 *
 * Spec: T10 MMC-6, "Commands and parameters for MM devices".
 * Not modelled: audio, raw sectors (READ CD gives user data only), writing.
 */
#include "guest/device/scsi.h"

#include "base/bytes.h"

#include <string.h>

enum { MSF_OFFSET = 150, FRAMES = 75 };
enum { CD_MAX_SECTORS = 80 * 60 * 75 }; /* what is larger is a DVD */

static struct scsi_answer run_read_capacity(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)p;
    uint32_t total = (uint32_t)MIN(d->blocks, UINT32_MAX);
    be32_put(out, total - 1);
    be32_put(out + 4, SCSI_CD_BLOCK);
    return scsi_reply(8, 8);
}

static struct scsi_answer run_read_10(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)out;
    return scsi_transfer(d, SCSI_READ, be32_at(p + 2), be16_at(p + 7));
}

static struct scsi_answer run_read_12(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)out;
    return scsi_transfer(d, SCSI_READ, be32_at(p + 2), be32_at(p + 6));
}

static struct scsi_answer run_read_cd(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint32_t count = (uint32_t)p[6] << 16 | be16_at(p + 7);
    uint8_t parts = p[9] & 0xf8;
    (void)out;
    if (parts && parts != 0x10 && count) { /* more than user data */
        return scsi_bad_field();
    }
    return scsi_transfer(d, SCSI_READ, be32_at(p + 2), parts ? count : 0);
}

static struct scsi_answer run_seek(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)out;
    if (be32_at(p + 2) >= d->blocks) {
        return scsi_fail(KEY_ILLEGAL, ASC_LBA_RANGE, 0);
    }
    return (struct scsi_answer){.kind = SCSI_DONE};
}

static void put_address(uint8_t *out, uint32_t lba, bool msf)
{
    if (!msf) {
        be32_put(out, lba);
        return;
    }
    uint32_t frame = lba + MSF_OFFSET;
    out[0] = 0;
    out[1] = (uint8_t)(frame / FRAMES / 60);
    out[2] = (uint8_t)(frame / FRAMES % 60);
    out[3] = (uint8_t)(frame % FRAMES);
}

/* One data track and the lead-out. */
static uint32_t toc_tracks(const struct scsi_drive *d, bool msf, uint8_t start, uint8_t *out)
{
    uint32_t n = 4, total = (uint32_t)d->blocks;
    static const uint8_t track[4] = {0, 0x14, 1, 0}, lead_out[4] = {0, 0x16, 0xaa, 0};
    if (start <= 1) {
        memcpy(out + n, track, sizeof(track));
        put_address(out + n + 4, 0, msf);
        n += 8;
    }
    memcpy(out + n, lead_out, sizeof(lead_out));
    put_address(out + n + 4, total, msf);
    return n + 8;
}

static uint32_t toc_raw(const struct scsi_drive *d, bool msf, uint8_t *out)
{
    static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};
    uint32_t n = 4, total = (uint32_t)d->blocks;
    for (unsigned i = 0; i < sizeof(points); i++, n += 11) {
        uint8_t *e = out + n;
        memset(e, 0, 11);
        e[0] = 1;
        e[1] = 0x14;
        e[3] = points[i];
        if (points[i] == 0xa2 || points[i] == 1) {
            put_address(e + 7, points[i] == 1 ? 0 : total, msf);
        } else {
            e[8] = 1; /* first and last track */
        }
    }
    return n;
}

static struct scsi_answer run_read_toc(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool msf = p[1] & 2;
    uint8_t format = (p[2] & 0xf) ? p[2] & 0xf : p[9] >> 6, start = p[6];
    uint32_t n = 12;
    memset(out, 0, 64);
    out[2] = out[3] = 1;
    if ((format == 0 && start > 1 && start != 0xaa) || format > 2) {
        return scsi_bad_field();
    }
    if (format == 0) {
        n = toc_tracks(d, msf, start, out);
    } else if (format == 1) { /* the first track of the last session */
        out[5] = 0x14;
        out[6] = 1;
        put_address(out + 8, 0, msf);
    } else {
        n = toc_raw(d, msf, out);
    }
    be16_put(out, (uint16_t)(n - 2));
    return scsi_reply(n, be16_at(p + 7));
}

static struct scsi_answer run_read_subchannel(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)d;
    memset(out, 0, 4);
    out[1] = 0x15; /* no audio is playing */
    return scsi_reply(4, be16_at(p + 7));
}

static bool is_dvd(const struct scsi_drive *d)
{
    return d->blocks > CD_MAX_SECTORS;
}

/* A feature descriptor: number, version and flags, additional bytes. */
static uint32_t put_feature(uint8_t *out, uint16_t number, uint8_t flags, const uint8_t *more,
                            uint8_t bytes)
{
    be16_put(out, number);
    out[2] = flags;
    out[3] = bytes;
    memcpy(out + 4, more, bytes);
    return 4u + bytes;
}

static struct scsi_answer run_get_configuration(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint16_t first = be16_at(p + 2), profile = !scsi_has_medium(d) ? 0 : is_dvd(d) ? 0x10 : 0x08;
    uint8_t profiles[] = {0, 0x10, profile == 0x10, 0, 0, 0x08, profile == 0x08, 0};
    static const uint8_t core[] = {0, 0, 0, 2, 1, 0, 0, 0}, removable[] = {0x39, 0, 0, 0};
    static const uint8_t readable[] = {0, 0, 8, 0, 0, 16, 1, 0}, cd_read[] = {0, 0, 0, 0};
    const struct {
        uint16_t number;
        uint8_t flags, bytes;
        const uint8_t *more;
    } all[] = {
        {0x00, 0x03, sizeof(profiles), profiles}, {0x01, 0x0b, sizeof(core), core},
        {0x03, 0x03, sizeof(removable), removable},
        {0x10, profile != 0, sizeof(readable), readable},
        {0x1e, profile == 0x08, sizeof(cd_read), cd_read}, {0x1f, profile == 0x10, 0, cd_read},
    };
    uint8_t which = p[1] & 3;
    uint32_t n = 8;
    for (unsigned i = 0; i < G_N_ELEMENTS(all) && which < 3; i++) {
        bool wanted = which == 2 ? all[i].number == first : all[i].number >= first;
        if (wanted && (which != 1 || (all[i].flags & 1))) {
            n += put_feature(out + n, all[i].number, all[i].flags, all[i].more, all[i].bytes);
        }
    }
    if (which == 3) {
        return scsi_bad_field();
    }
    memset(out, 0, 8);
    be32_put(out, n - 4);
    be16_put(out + 6, profile);
    return scsi_reply(n, be16_at(p + 7));
}

static struct scsi_answer run_get_event(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool media = p[4] & 0x10;
    if (!(p[1] & 1)) { /* asynchronous notification is not ours */
        return scsi_bad_field();
    }
    memset(out, 0, 8);
    be16_put(out, media ? 6 : 2);
    out[2] = media ? 4 : 0x80; /* the media class, or no event available */
    out[3] = 0x10;
    out[4] = d->media_event;
    out[5] = (uint8_t)(d->tray_open | image_inserted(d->image) << 1);
    if (media) {
        d->media_event = MEDIA_NONE;
    }
    return scsi_reply(media ? 8 : 4, be16_at(p + 7));
}

static struct scsi_answer run_read_disc_information(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)d;
    if (p[1] & 7) {
        return scsi_bad_field();
    }
    memset(out, 0, 34);
    be16_put(out, 32);
    out[2] = 0x0e; /* a finished disc */
    out[3] = out[4] = out[5] = out[6] = 1;
    out[7] = 0x20;
    return scsi_reply(34, be16_at(p + 7));
}

static struct scsi_answer run_read_dvd_structure(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint32_t total = (uint32_t)d->blocks, n = 8;
    if (p[1] & 0xf || p[6] || p[7] > 1) {
        return scsi_bad_field();
    }
    if (!is_dvd(d)) {
        return scsi_fail(KEY_ILLEGAL, ASC_INCOMPATIBLE, 2);
    }
    memset(out, 0, 4 + 2048);
    if (p[7] == 0) { /* physical format: a DVD-ROM of one layer */
        out[4] = 1;
        out[5] = 0x0f;
        out[6] = 1;
        be32_put(out + 8, 0x30000);
        be32_put(out + 12, 0x30000 + total - 1);
        n = 4 + 2048;
    }
    be16_put(out, (uint16_t)(n - 2));
    return scsi_reply(n, be16_at(p + 8));
}

static struct scsi_answer run_mechanism_status(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    memset(out, 0, 8);
    out[1] = d->tray_open ? 0x10 : 0;
    out[5] = 1;
    return scsi_reply(8, be16_at(p + 8));
}

static uint32_t page_errors(uint8_t *out)
{
    static const uint8_t page[8] = {0x01, 6, 0, 5};
    memcpy(out, page, sizeof(page));
    return sizeof(page);
}

static uint32_t page_capabilities(const struct scsi_drive *d, uint8_t *out)
{
    static const uint8_t page[22] = {0x2a, 20, 0x3b, 0, 0x70, 0x03, 0x29, 0, 0x02, 0xc2, 0, 2,
                                     0x02, 0x00, 0x02, 0xc2};
    memcpy(out, page, sizeof(page));
    out[6] |= d->locked ? 2 : 0;
    return sizeof(page);
}

static struct scsi_answer run_mode_sense(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint8_t page = p[2] & 0x3f, control = p[2] >> 6, medium;
    bool ten = p[0] == 0x5a;
    uint32_t n = ten ? 8 : 4;
    if (control == 3) {
        return scsi_fail(KEY_ILLEGAL, ASC_SAVING, 0);
    }
    if (control == 1 || (page != 0x01 && page != 0x2a && page != 0x3f)) {
        return scsi_bad_field();
    }
    memset(out, 0, 8);
    if (page != 0x2a) {
        n += page_errors(out + n);
    }
    if (page != 0x01) {
        n += page_capabilities(d, out + n);
    }
    medium = d->tray_open ? 0x71 : image_inserted(d->image) ? 0x01 : 0x70;
    if (ten) {
        be16_put(out, (uint16_t)(n - 2));
        out[2] = medium;
    } else {
        out[0] = (uint8_t)(n - 1);
        out[1] = medium;
    }
    return scsi_reply(n, ten ? be16_at(p + 7) : p[4]);
}

const struct scsi_command mmc_commands[256] = {
    [0x00] = {scsi_run_ready, NEEDS_MEDIUM},
    [0x03] = {scsi_run_request_sense, DURING_ATTENTION},
    [0x12] = {scsi_run_inquiry, DURING_ATTENTION},
    [0x1a] = {run_mode_sense, 0},
    [0x1b] = {scsi_run_start_stop, 0},
    [0x1e] = {scsi_run_prevent, 0},
    [0x25] = {run_read_capacity, NEEDS_MEDIUM},
    [0x28] = {run_read_10, NEEDS_MEDIUM},
    [0x2b] = {run_seek, NEEDS_MEDIUM},
    [0x42] = {run_read_subchannel, NEEDS_MEDIUM},
    [0x43] = {run_read_toc, NEEDS_MEDIUM},
    [0x46] = {run_get_configuration, DURING_ATTENTION},
    [0x4a] = {run_get_event, DURING_ATTENTION},
    [0x51] = {run_read_disc_information, NEEDS_MEDIUM},
    [0x5a] = {run_mode_sense, 0},
    [0xa8] = {run_read_12, NEEDS_MEDIUM},
    [0xad] = {run_read_dvd_structure, NEEDS_MEDIUM},
    [0xbb] = {scsi_run_ready, 0},
    [0xbd] = {run_mechanism_status, 0},
    [0xbe] = {run_read_cd, NEEDS_MEDIUM},
};
