/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * scsi_command: what the command blocks of SCSI drives mean.
 *
 * Spec: T10 SPC-4, "Commands for all device types", "Parameters for all device types"; SBC-3,
 * "Commands for direct access block devices", "Parameters for direct access block devices".
 * Not modelled: reservations of other initiators (there is one), protection information,
 * WRITE SAME of a block that is not zero.
 */
#include "guest/device/scsi.h"

#include "base/bytes.h"
#include "base/log.h"

#include <string.h>

enum { UNMAP_HEADER = 8, UNMAP_DESCRIPTOR = 16, UNMAP_LIST_MAX = 64 };
enum { RANGE_MAX = 1 << 30 }; /* bytes of one UNMAP or WRITE SAME */
enum { PAGE_CACHING = 0x08, PAGE_CONTROL = 0x0a, PAGE_ALL = 0x3f };

struct scsi_answer scsi_fail(enum scsi_key key, enum scsi_asc asc, uint8_t ascq)
{
    return (struct scsi_answer){SCSI_FAIL, {(uint8_t)key, (uint8_t)asc, ascq}, 0, 0, 0};
}

struct scsi_answer scsi_bad_field(void)
{
    return scsi_fail(KEY_ILLEGAL, ASC_FIELD, 0);
}

struct scsi_answer scsi_reply(uint32_t bytes, uint32_t room)
{
    return (struct scsi_answer){.kind = SCSI_REPLY, .bytes = MIN(bytes, room)};
}

static struct scsi_answer done(void)
{
    return (struct scsi_answer){.kind = SCSI_DONE};
}

struct scsi_answer scsi_transfer(const struct scsi_drive *d, enum scsi_kind kind, uint64_t lba,
                                 uint64_t blocks)
{
    if (lba > d->blocks || blocks > d->blocks - lba) {
        return scsi_fail(KEY_ILLEGAL, ASC_LBA_RANGE, 0);
    }
    if (kind == SCSI_WRITE && image_read_only(d->image)) {
        return scsi_fail(KEY_PROTECT, ASC_WRITE_PROTECTED, 0);
    }
    return (struct scsi_answer){.kind = blocks ? (uint8_t)kind : SCSI_DONE, .lba = lba,
                                .blocks = blocks};
}

void scsi_put_sense(const struct scsi_sense *s, uint8_t out[SCSI_SENSE])
{
    memset(out, 0, SCSI_SENSE);
    out[0] = 0x70;
    out[2] = s->key;
    out[7] = SCSI_SENSE - 8;
    out[12] = s->asc;
    out[13] = s->ascq;
}

/* ---- commands of all drives ---- */

struct scsi_answer scsi_run_ready(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)d, (void)p, (void)out;
    return done();
}

struct scsi_answer scsi_run_request_sense(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    scsi_put_sense(&d->sense, out);
    if (d->atapi) {
        out[0] = 0xf0;
    } else if (d->sense.key == KEY_NONE && d->attention) { /* told here, it is told */
        scsi_put_sense(&(struct scsi_sense){KEY_ATTENTION, d->attention, 0}, out);
    }
    if (d->sense.key == KEY_ATTENTION || d->sense.key == KEY_NONE) {
        d->attention = 0;
    }
    d->sense = (struct scsi_sense){0};
    return scsi_reply(SCSI_SENSE, p[4]);
}

struct scsi_answer scsi_run_prevent(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)out;
    d->locked = p[4] & 1;
    return done();
}

struct scsi_answer scsi_run_start_stop(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool start = p[4] & 1, load_eject = d->cd && (p[4] & 2);
    (void)out;
    if (load_eject && !start && !d->tray_open && d->locked) {
        return scsi_fail(image_inserted(d->image) ? KEY_ILLEGAL : KEY_NOT_READY,
                         ASC_REMOVAL_PREVENTED, 2);
    }
    if (load_eject && d->tray_open == start) {
        d->tray_open = !start;
        d->media_event = !start                      ? MEDIA_REMOVAL
                         : image_inserted(d->image) ? MEDIA_NEW
                                                    : MEDIA_NONE;
        if (drive_tray_moved) {
            drive_tray_moved(d->image, d->tray_open);
        }
    }
    return done();
}

static void put_padded(uint8_t *out, size_t n, const char *text)
{
    memset(out, ' ', n);
    memcpy(out, text, MIN(strlen(text), n));
}

static uint32_t vpd_serial(const struct scsi_drive *d, uint8_t *out)
{
    size_t n = d->serial ? MIN(strlen(d->serial), 36) : 0;
    memcpy(out, n ? d->serial : "", n);
    return (uint32_t)n;
}

/* Names by which software knows the drive again: a text, and a world-wide name. */
static uint32_t vpd_identification(const struct scsi_drive *d, uint8_t *out)
{
    const char *id = d->device_id ? d->device_id : d->serial ? d->serial : image_id(d->image);
    uint32_t n = 0;
    size_t len = id ? MIN(strlen(id), 248) : 0;
    if (len) {
        out[0] = 2; /* ASCII, vendor specific */
        out[3] = (uint8_t)len;
        memcpy(out + 4, id, len);
        n = 4 + (uint32_t)len;
    }
    if (d->wwn) {
        static const uint8_t naa[4] = {1, 3, 0, 8};
        memcpy(out + n, naa, sizeof(naa));
        be64_put(out + n + 4, d->wwn);
        n += 12;
    }
    return n;
}

static uint32_t vpd_limits(const struct scsi_drive *d, uint8_t *out)
{
    uint32_t range = RANGE_MAX / d->block;
    out[0] = 1; /* WRITE SAME of 0 blocks is not "to the end" */
    be16_put(out + 2, (uint16_t)MIN(d->min_io / d->block, UINT16_MAX));
    be32_put(out + 8, d->opt_io / d->block);
    be32_put(out + 16, range);
    be32_put(out + 20, UNMAP_LIST_MAX);
    be32_put(out + 24, MAX(4096 / d->block, 1)); /* unmap granularity */
    be64_put(out + 32, range);
    return 60;
}

static uint32_t vpd_characteristics(const struct scsi_drive *d, uint8_t *out)
{
    be16_put(out, d->rotation_rate);
    return 60;
}

static uint32_t vpd_provisioning(const struct scsi_drive *d, uint8_t *out)
{
    (void)d;
    out[1] = 0xe0; /* UNMAP, WRITE SAME (16) and (10) give space back */
    out[2] = 2;    /* thin */
    return 4;
}

static uint32_t vpd_supported(const struct scsi_drive *d, uint8_t *out);

static const struct {
    uint8_t page;
    bool disk_only;
    uint32_t (*put)(const struct scsi_drive *d, uint8_t *out);
} vpd_pages[] = {
    {0x00, false, vpd_supported},      {0x80, false, vpd_serial},
    {0x83, false, vpd_identification}, {0xb0, true, vpd_limits},
    {0xb1, true, vpd_characteristics}, {0xb2, true, vpd_provisioning},
};

static uint32_t vpd_supported(const struct scsi_drive *d, uint8_t *out)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(vpd_pages); i++) {
        if (!vpd_pages[i].disk_only || !d->cd) {
            out[n++] = vpd_pages[i].page;
        }
    }
    return n;
}

static struct scsi_answer inquiry_page(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    memset(out, 0, 512);
    for (unsigned i = 0; i < G_N_ELEMENTS(vpd_pages); i++) {
        if (vpd_pages[i].page == p[2] && (!vpd_pages[i].disk_only || !d->cd)) {
            uint32_t n = vpd_pages[i].put(d, out + 4);
            out[0] = d->cd ? 5 : 0;
            out[1] = p[2];
            be16_put(out + 2, (uint16_t)n);
            return scsi_reply(n + 4, be16_at(p + 3));
        }
    }
    return scsi_bad_field();
}

struct scsi_answer scsi_run_inquiry(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    static const uint8_t disk[8] = {0x00, 0x00, 0x05, 0x12, 31, 0, 0, 0x02};
    static const uint8_t cd[8] = {0x05, 0x80, 0x05, 0x12, 31, 0, 0, 0x02};
    static const uint8_t packet[8] = {0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0};
    if (p[1] & 1) {
        return d->atapi ? scsi_bad_field() : inquiry_page(d, p, out);
    }
    if (p[2]) {
        return scsi_bad_field();
    }
    memcpy(out, d->atapi ? packet : d->cd ? cd : disk, 8);
    out[1] |= d->removable ? 0x80 : 0;
    put_padded(out + 8, 8, d->vendor ? d->vendor : "LODGE");
    put_padded(out + 16, 16, d->product ? d->product : d->cd ? "DVD-ROM" : "HARDDISK");
    put_padded(out + 32, 4, d->version ? d->version : "1.0");
    return scsi_reply(36, d->atapi ? p[4] : be16_at(p + 3));
}

/* ---- mode pages of disks ---- */

static uint32_t page_caching(const struct scsi_drive *d, bool changeable, uint8_t *out)
{
    memset(out, 0, 20);
    out[0] = PAGE_CACHING;
    out[1] = 18;
    out[2] = changeable || !d->write_cache_off ? 4 : 0;
    return 20;
}

static uint32_t page_control(bool changeable, uint8_t *out)
{
    memset(out, 0, 12);
    out[0] = PAGE_CONTROL;
    out[1] = 10;
    out[3] = changeable ? 0 : 0x10; /* commands may be reordered */
    return 12;
}

static uint32_t mode_pages(const struct scsi_drive *d, uint8_t page, bool changeable, uint8_t *out)
{
    uint32_t n = 0;
    if (page == PAGE_CACHING || page == PAGE_ALL) {
        n += page_caching(d, changeable, out);
    }
    if (page == PAGE_CONTROL || page == PAGE_ALL) {
        n += page_control(changeable, out + n);
    }
    return n;
}

static struct scsi_answer run_mode_sense(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool ten = p[0] == 0x5a, descriptor = !(p[1] & 8);
    uint32_t head = ten ? 8 : 4, n = head;
    memset(out, 0, 16);
    if (p[2] >> 6 == 3) {
        return scsi_fail(KEY_ILLEGAL, ASC_SAVING, 0);
    }
    if (descriptor) {
        be32_put(out + n, (uint32_t)MIN(d->blocks, 0xffffff));
        be32_put(out + n + 4, d->block);
        n += 8;
    }
    uint32_t pages = mode_pages(d, p[2] & 0x3f, p[2] >> 6 == 1, out + n);
    if (!pages) {
        return scsi_bad_field();
    }
    n += pages;
    uint8_t specific = (uint8_t)(0x10 | (image_read_only(d->image) ? 0x80 : 0)); /* DPOFUA */
    if (ten) {
        be16_put(out, (uint16_t)(n - 2));
        out[3] = specific;
        be16_put(out + 6, descriptor ? 8 : 0);
    } else {
        out[0] = (uint8_t)(n - 1);
        out[2] = specific;
        out[3] = descriptor ? 8 : 0;
    }
    return scsi_reply(n, ten ? be16_at(p + 7) : p[4]);
}

static struct scsi_answer run_mode_select(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint32_t bytes = p[0] == 0x55 ? be16_at(p + 7) : p[4];
    (void)d, (void)out;
    if (!(p[1] & 0x10) || bytes > SCSI_DATA_MAX) {
        return scsi_bad_field();
    }
    return bytes ? (struct scsi_answer){.kind = SCSI_TAKE, .bytes = bytes} : done();
}

struct scsi_answer scsi_take(struct scsi_drive *d, const uint8_t *cdb, const uint8_t *data,
                             uint32_t bytes)
{
    uint32_t head = cdb[0] == 0x55 ? 8 : 4;
    if (bytes < head) {
        return scsi_fail(KEY_ILLEGAL, ASC_PARAMETERS, 0);
    }
    uint64_t at = head + (uint64_t)(head == 8 ? be16_at(data + 6) : data[3]);
    while (at + 2 <= bytes) {
        const uint8_t *page = data + at;
        uint32_t n = page[1] + 2u;
        uint8_t now[32];
        if (at + n > bytes) {
            return scsi_fail(KEY_ILLEGAL, ASC_PARAMETERS, 0);
        }
        if (mode_pages(d, page[0] & 0x3f, false, now) != n || (page[0] & 0x3f) == PAGE_ALL) {
            return scsi_fail(KEY_ILLEGAL, ASC_PARAMETER, 0);
        }
        if ((page[0] & 0x3f) == PAGE_CACHING) {
            d->write_cache_off = !(page[2] & 4);
        }
        at += n;
    }
    return done();
}

/* ---- other commands of disks ---- */

static struct scsi_answer run_capacity_10(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)p;
    be32_put(out, (uint32_t)MIN(d->blocks - 1, UINT32_MAX));
    be32_put(out + 4, d->block);
    return scsi_reply(8, 8);
}

static struct scsi_answer run_service_in(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    if ((p[1] & 0x1f) != 0x10) { /* READ CAPACITY (16) */
        return scsi_bad_field();
    }
    memset(out, 0, 32);
    be64_put(out, d->blocks - 1);
    be32_put(out + 8, d->block);
    out[13] = (uint8_t)__builtin_ctz(MAX(d->physical_block / d->block, 1));
    out[14] = 0x80; /* LBPME: UNMAP works */
    return scsi_reply(32, be32_at(p + 10));
}

static struct scsi_answer run_rw_6(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint32_t lba = (p[1] & 0x1fu) << 16 | be16_at(p + 2);
    (void)out;
    return scsi_transfer(d, p[0] & 2 ? SCSI_WRITE : SCSI_READ, lba, p[4] ? p[4] : 256);
}

/* READ, WRITE, WRITE AND VERIFY of 10, 12 and 16 bytes: the low bits of the code are the same. */
static struct scsi_answer run_rw(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    enum scsi_kind kind = (p[0] & 0xf) == 8 ? SCSI_READ : SCSI_WRITE;
    (void)out;
    if (p[1] & 0xe0) { /* protection information */
        return scsi_bad_field();
    }
    switch (p[0] >> 5) {
    case 4:
        return scsi_transfer(d, kind, be64_at(p + 2), be32_at(p + 10));
    case 5:
        return scsi_transfer(d, kind, be32_at(p + 2), be32_at(p + 6));
    default:
        return scsi_transfer(d, kind, be32_at(p + 2), be16_at(p + 7));
    }
}

static struct scsi_answer run_verify(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool long_form = p[0] == 0x8f;
    (void)out;
    if (p[1] & 0xe6) { /* comparing with bytes of the initiator */
        return scsi_bad_field();
    }
    struct scsi_answer a = scsi_transfer(d, SCSI_READ, long_form ? be64_at(p + 2) : be32_at(p + 2),
                                         long_form ? be32_at(p + 10) : be16_at(p + 7));
    return a.kind == SCSI_FAIL ? a : done();
}

static struct scsi_answer run_flush(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    (void)d, (void)p, (void)out;
    return (struct scsi_answer){.kind = SCSI_FLUSH};
}

static struct scsi_answer run_unmap(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    uint32_t bytes = be16_at(p + 7);
    (void)out;
    if ((p[1] & 1) || bytes > UNMAP_HEADER + UNMAP_LIST_MAX * UNMAP_DESCRIPTOR) {
        return scsi_bad_field();
    }
    if (image_read_only(d->image)) {
        return scsi_fail(KEY_PROTECT, ASC_WRITE_PROTECTED, 0);
    }
    return bytes ? (struct scsi_answer){.kind = SCSI_TAKE, .bytes = bytes} : done();
}

/* One block that is to fill the range; without NDOB it is sent. */
static struct scsi_answer run_write_same(struct scsi_drive *d, const uint8_t *p, uint8_t *out)
{
    bool long_form = p[0] == 0x93;
    uint64_t lba = long_form ? be64_at(p + 2) : be32_at(p + 2);
    uint32_t n = long_form ? be32_at(p + 10) : be16_at(p + 7);
    (void)out;
    if (!n || n > RANGE_MAX / d->block || (p[1] & (long_form ? 0xf6 : 0xf7))) {
        return scsi_bad_field();
    }
    struct scsi_answer a = scsi_transfer(d, SCSI_WRITE, lba, n);
    if (a.kind == SCSI_WRITE) {
        a.kind = SCSI_TAKE;
        a.bytes = long_form && (p[1] & 1) ? 0 : d->block;
    }
    return a;
}

static const struct scsi_command disk_commands[256] = {
    [0x00] = {scsi_run_ready, NEEDS_MEDIUM},
    [0x03] = {scsi_run_request_sense, DURING_ATTENTION},
    [0x08] = {run_rw_6, NEEDS_MEDIUM},
    [0x0a] = {run_rw_6, NEEDS_MEDIUM},
    [0x12] = {scsi_run_inquiry, DURING_ATTENTION},
    [0x15] = {run_mode_select, 0},
    [0x16] = {scsi_run_ready, 0}, /* RESERVE, RELEASE: there is one initiator */
    [0x17] = {scsi_run_ready, 0},
    [0x1a] = {run_mode_sense, 0},
    [0x1b] = {scsi_run_start_stop, 0},
    [0x1e] = {scsi_run_prevent, 0},
    [0x25] = {run_capacity_10, NEEDS_MEDIUM},
    [0x28] = {run_rw, NEEDS_MEDIUM},
    [0x2a] = {run_rw, NEEDS_MEDIUM},
    [0x2b] = {scsi_run_ready, NEEDS_MEDIUM},
    [0x2e] = {run_rw, NEEDS_MEDIUM},
    [0x2f] = {run_verify, NEEDS_MEDIUM},
    [0x35] = {run_flush, NEEDS_MEDIUM},
    [0x41] = {run_write_same, NEEDS_MEDIUM},
    [0x42] = {run_unmap, NEEDS_MEDIUM},
    [0x55] = {run_mode_select, 0},
    [0x5a] = {run_mode_sense, 0},
    [0x88] = {run_rw, NEEDS_MEDIUM},
    [0x8a] = {run_rw, NEEDS_MEDIUM},
    [0x8e] = {run_rw, NEEDS_MEDIUM},
    [0x8f] = {run_verify, NEEDS_MEDIUM},
    [0x91] = {run_flush, NEEDS_MEDIUM},
    [0x93] = {run_write_same, NEEDS_MEDIUM},
    [0x9e] = {run_service_in, NEEDS_MEDIUM},
    [0xa8] = {run_rw, NEEDS_MEDIUM},
    [0xaa] = {run_rw, NEEDS_MEDIUM},
    [0xae] = {run_rw, NEEDS_MEDIUM},
};

struct scsi_answer scsi_decode(struct scsi_drive *d, const uint8_t *cdb, uint8_t *out)
{
    const struct scsi_command *c = d->cd ? &mmc_commands[cdb[0]] : &disk_commands[cdb[0]];
    if (!c->run) {
        log_line(LOG_UNIMP, "%s: SCSI command %#x", image_id(d->image), cdb[0]);
        return scsi_fail(KEY_ILLEGAL, ASC_OPCODE, 0);
    }
    if (d->attention && !(c->flags & DURING_ATTENTION)) {
        uint8_t asc = d->attention;
        d->attention = 0;
        return scsi_fail(KEY_ATTENTION, (enum scsi_asc)asc, asc == ASC_CHANGED ? 9 : 0);
    }
    if ((c->flags & NEEDS_MEDIUM) && !scsi_has_medium(d)) {
        return scsi_fail(KEY_NOT_READY, ASC_NO_MEDIUM, d->tray_open ? 2 : 0);
    }
    return c->run(d, cdb, out);
}

void scsi_medium_changed(struct scsi_drive *d)
{
    bool there = image_inserted(d->image);
    d->blocks = image_size(d->image) / d->block;
    if (d->cd) {
        d->tray_open = 0;
        d->attention = there ? ASC_MEDIUM_CHANGED : 0;
        d->media_event = there ? MEDIA_NEW : MEDIA_REMOVAL;
    } else {
        d->attention = ASC_CHANGED; /* capacity data has changed */
    }
}
