/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * scsi: buses, the units on them, and how a command goes on.
 *
 * Spec: T10 SAM-5, "SCSI architecture model", "Command processing"; SPC-4, "REPORT LUNS
 * command"; SBC-3, "UNMAP command", "WRITE SAME (16) command".
 */
#include "guest/device/scsi.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/board.h"

#include <string.h>

enum {
    OP_UNMAP = 0x42,
    OP_WRITE_SAME_10 = 0x41,
    OP_WRITE_SAME_16 = 0x93,
    OP_REPORT_LUNS = 0xa0,
    OP_INQUIRY = 0x12,
    OP_REQUEST_SENSE = 0x03
};
enum { UNMAP_LIST = 8, UNMAP_DESCRIPTOR = 16, BLOCK_MAX = 4096, FUA = 8, SAME_UNMAP = 8 };

static struct scsi_bus *buses;

/* ---- buses ---- */

void scsi_bus_add(struct scsi_bus *bus, struct device *owner)
{
    bus->owner = owner;
    bus->name = g_strdup_printf("%s.0", owner->id ? owner->id : owner->path);
    struct scsi_bus **at = &buses;
    while (*at) {
        at = &(*at)->next;
    }
    *at = bus;
}

void scsi_bus_remove(struct scsi_bus *bus)
{
    struct scsi_bus **at = &buses;
    while (*at && *at != bus) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = bus->next;
    }
    while (bus->units) { /* their devices go, too, or stay without a bus */
        struct scsi_unit *u = bus->units;
        bus->units = u->next;
        u->bus = NULL;
    }
    g_clear_pointer(&bus->name, g_free);
}

struct scsi_unit *scsi_find(struct scsi_bus *bus, unsigned target, unsigned lun)
{
    for (struct scsi_unit *u = bus->units; u; u = u->next) {
        if (u->prop_target == target && u->prop_lun == lun) {
            return u;
        }
    }
    return NULL;
}

bool scsi_target_exists(struct scsi_bus *bus, unsigned target)
{
    for (struct scsi_unit *u = bus->units; u; u = u->next) {
        if (u->prop_target == target) {
            return true;
        }
    }
    return false;
}

void scsi_bus_drain(struct scsi_bus *bus, unsigned target, unsigned lun)
{
    for (struct scsi_unit *u = bus->units; u; u = u->next) {
        if ((target == UINT_MAX || u->prop_target == target) &&
            (lun == UINT_MAX || u->prop_lun == lun)) {
            image_drain(u->d.image);
        }
    }
}

/* ---- units ---- */

static bool block_size_fits(uint32_t v, uint32_t max)
{
    return v >= 512 && v <= max && !(v & (v - 1));
}

static void medium_changed(void *owner)
{
    struct scsi_unit *u = owner;
    scsi_medium_changed(&u->d);
    if (u->changed) {
        u->changed(u);
    }
}

bool scsi_unit_open(struct scsi_unit *u, bool cd, GError **error)
{
    struct scsi_drive *d = &u->d;
    u->physical_block = MAX(u->physical_block, u->logical_block);
    if (!cd && (!u->prop_drive || !image_inserted(u->prop_drive))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a disk needs a drive with a medium");
        return false;
    }
    if (!block_size_fits(u->logical_block, BLOCK_MAX) ||
        !block_size_fits(u->physical_block, 1u << 21)) {
        g_set_error(
            error, LODGE_ERROR, EINVAL,
            "logical_block_size is a power of two from 512 to 4096, physical_block_size from that");
        return false;
    }
    if (!u->prop_drive) {
        u->prop_drive = image_new_empty(u->dev.path);
    }
    if (!drive_policy_apply(&u->policy, u->prop_drive, error)) {
        return false;
    }
    d->cd = cd;
    d->image = u->prop_drive;
    d->removable = u->removable || cd;
    d->rotation_rate = u->rotation_rate;
    d->block = cd ? SCSI_CD_BLOCK : u->logical_block;
    d->physical_block = u->physical_block;
    d->blocks = image_size(d->image) / d->block;
    image_on_change(d->image, medium_changed, u);
    return true;
}

void scsi_unit_close(struct scsi_unit *u)
{
    image_drain(u->d.image);
    image_on_change(u->d.image, NULL, NULL);
}

static struct scsi_bus *find_bus(const struct scsi_unit *u, GError **error)
{
    for (struct scsi_bus *b = buses; b; b = b->next) {
        if (b->owner->board == u->dev.board &&
            (!u->prop_bus || g_str_equal(b->name, u->prop_bus))) {
            return b;
        }
    }
    g_set_error(error, LODGE_ERROR, ENODEV,
                u->prop_bus ? "there is no SCSI bus \"%s\"" : "there is no SCSI bus%s",
                u->prop_bus ? u->prop_bus : "");
    return NULL;
}

/* Without scsi-id= the first free target, without lun= its first free unit. */
static bool take_place(struct scsi_unit *u, GError **error)
{
    struct scsi_bus *bus = u->bus;
    bool any = u->prop_target == UINT32_MAX;
    uint32_t target = any ? 0 : u->prop_target, lun = u->prop_lun == UINT32_MAX ? 0 : u->prop_lun;
    while (any && target < bus->targets && scsi_find(bus, target, lun)) {
        target++;
    }
    while (u->prop_lun == UINT32_MAX && lun < bus->luns && scsi_find(bus, target, lun)) {
        lun++;
    }
    if (u->prop_channel || target >= bus->targets || lun >= bus->luns) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "bus \"%s\" has channel 0, targets 0 to %u, units 0 to %u", bus->name,
                    bus->targets - 1, bus->luns - 1);
        return false;
    }
    if (scsi_find(bus, target, lun)) {
        g_set_error(error, LODGE_ERROR, EBUSY, "scsi-id=%u, lun=%u is taken on bus \"%s\"", target,
                    lun, bus->name);
        return false;
    }
    u->prop_target = target;
    u->prop_lun = lun;
    return true;
}

static void unit_changed(struct scsi_unit *u)
{
    if (u->bus && u->bus->changed && u->d.attention) {
        u->bus->changed(u->bus, u, u->d.attention);
    }
}

static struct scsi_unit *unit_of(struct device *dev)
{
    return container_of(dev, struct scsi_unit, dev);
}

bool scsi_device_start(struct device *dev, GError **error)
{
    const struct scsi_variant *kind = dev->model->bus_data;
    struct scsi_unit *u = unit_of(dev);
    struct scsi_bus *bus = u->bus = find_bus(u, error);
    if (!bus || !take_place(u, error) || !scsi_unit_open(u, kind->cd, error)) {
        return false;
    }
    u->changed = unit_changed;
    struct scsi_unit **at = &bus->units;
    while (*at) {
        at = &(*at)->next;
    }
    *at = u;
    if (bus->plugged) {
        bus->plugged(bus, u);
    }
    return true;
}

void scsi_device_stop(struct device *dev)
{
    struct scsi_unit *u = unit_of(dev);
    scsi_unit_close(u);
    if (!u->bus) {
        return;
    }
    struct scsi_unit **at = &u->bus->units;
    while (*at && *at != u) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = u->next;
    }
    if (u->bus->unplugged) {
        u->bus->unplugged(u->bus, u);
    }
}

void scsi_unit_reset(struct scsi_unit *u)
{
    image_drain(u->d.image);
    u->d.attention = ASC_RESET;
    u->d.write_cache_off = !u->write_cache;
}

bool scsi_unit_sane(const struct scsi_unit *u, GError **error)
{
    if (u->d.tray_open > 1 || (u->d.tray_open && !u->d.cd)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "registers of a drive do not fit together");
        return false;
    }
    return true;
}

void scsi_device_reset(struct device *dev)
{
    scsi_unit_reset(unit_of(dev));
}

bool scsi_device_loaded(struct device *dev, GError **error)
{
    return scsi_unit_sane(unit_of(dev), error);
}

/* ---- requests ---- */

static void fail(struct scsi_request *r, enum scsi_key key, enum scsi_asc asc)
{
    r->kind = SCSI_FAIL;
    r->status = SCSI_CHECK;
    r->sense = (struct scsi_sense){(uint8_t)key, (uint8_t)asc, 0};
    r->left = 0;
}

/* The target's own command: which units it has. */
static struct scsi_answer report_luns(struct scsi_request *r)
{
    uint32_t n = 8;
    memset(r->data, 0, sizeof(r->data));
    for (const struct scsi_unit *u = r->bus->units; u && n + 8 <= sizeof(r->data); u = u->next) {
        if (u->prop_target == r->target) {
            be16_put(r->data + n, (uint16_t)(u->prop_lun | (u->prop_lun > 255 ? 0x4000 : 0)));
            n += 8;
        }
    }
    be32_put(r->data, n - 8);
    return scsi_reply(n, be32_at(r->cdb + 6));
}

/* Nobody is at this place of a target that exists. */
static struct scsi_answer answer_for_nobody(struct scsi_request *r)
{
    if (r->cdb[0] == OP_INQUIRY && !(r->cdb[1] & 1)) {
        memset(r->data, 0, 36);
        r->data[0] = 0x7f; /* no device, and none can be here */
        r->data[2] = 5;
        r->data[3] = 2;
        r->data[4] = 31;
        return scsi_reply(36, be16_at(r->cdb + 3));
    }
    return scsi_fail(KEY_ILLEGAL, ASC_NO_UNIT, 0);
}

void scsi_begin(struct scsi_request *r)
{
    struct scsi_answer a = r->cdb[0] == OP_REPORT_LUNS && r->bus ? report_luns(r)
                           : !r->unit                            ? answer_for_nobody(r)
                                      : scsi_decode(&r->unit->d, r->cdb, r->data);
    r->kind = a.kind;
    r->sense = a.sense;
    r->status = a.kind == SCSI_FAIL ? SCSI_CHECK : SCSI_GOOD;
    r->at = 0;
    r->left = a.bytes;
    r->step = 0;
    if (a.kind == SCSI_READ || a.kind == SCSI_WRITE) {
        r->at = a.lba * r->unit->d.block;
        r->left = a.blocks * r->unit->d.block;
    }
}

static void submit(struct scsi_request *r, enum image_op op, uint64_t at, uint64_t bytes,
                   void (*done)(struct image_request *io, int result))
{
    r->io.op = op;
    r->io.offset = at;
    r->io.bytes = bytes;
    r->io.done = done;
    image_submit(r->unit->d.image, &r->io);
}

static void moved(struct image_request *io, int result)
{
    struct scsi_request *r = container_of(io, struct scsi_request, io);
    if (result < 0) {
        fail(r, KEY_MEDIUM, io->op == IMAGE_READ ? ASC_READ_ERROR : ASC_WRITE_ERROR);
    } else {
        r->at += r->moving;
        r->left -= r->moving;
    }
    r->done(r);
}

static void move_buffer(struct scsi_request *r, const struct iovec *iov, unsigned niov, bool out)
{
    uint64_t left = r->moving;
    for (unsigned i = 0; i < niov && left; i++) {
        size_t n = (size_t)MIN(left, iov[i].iov_len);
        memcpy(out ? iov[i].iov_base : r->data + r->at, out ? r->data + r->at : iov[i].iov_base, n);
        r->at += n;
        r->left -= n;
        left -= n;
    }
}

void scsi_move(struct scsi_request *r, const struct iovec *iov, unsigned niov, uint64_t bytes,
               void (*done)(struct scsi_request *r))
{
    r->done = done;
    r->moving = MIN(bytes, r->left);
    if ((r->kind == SCSI_READ || r->kind == SCSI_WRITE) && r->moving) {
        r->io.iov = iov;
        r->io.niov = niov;
        submit(r, r->kind == SCSI_READ ? IMAGE_READ : IMAGE_WRITE, r->at, r->moving, moved);
        return;
    }
    if (r->kind == SCSI_REPLY || r->kind == SCSI_TAKE) {
        move_buffer(r, iov, niov, r->kind == SCSI_REPLY);
    }
    done(r);
}

static void ended(struct image_request *io, int result)
{
    struct scsi_request *r = container_of(io, struct scsi_request, io);
    if (result < 0) {
        fail(r, KEY_MEDIUM, ASC_WRITE_ERROR);
    }
    r->done(r);
}

/* ---- UNMAP and WRITE SAME ---- */

static void unmap_next(struct scsi_request *r);

static void unmapped(struct image_request *io, int result)
{
    struct scsi_request *r = container_of(io, struct scsi_request, io);
    if (result < 0) {
        fail(r, KEY_MEDIUM, ASC_WRITE_ERROR);
        r->done(r);
        return;
    }
    r->step++;
    unmap_next(r);
}

static void unmap_next(struct scsi_request *r)
{
    const struct scsi_drive *d = &r->unit->d;
    uint32_t bytes = (uint32_t)r->at, list = bytes >= UNMAP_LIST ? be16_at(r->data + 2) : 0;
    uint64_t at = UNMAP_LIST + (uint64_t)r->step * UNMAP_DESCRIPTOR;
    while (at + UNMAP_DESCRIPTOR <= bytes && (r->step + 1) * UNMAP_DESCRIPTOR <= list) {
        struct scsi_answer a =
            scsi_transfer(d, SCSI_WRITE, be64_at(r->data + at), be32_at(r->data + at + 8));
        if (a.kind == SCSI_FAIL) {
            fail(r, (enum scsi_key)a.sense.key, (enum scsi_asc)a.sense.asc);
            break;
        }
        if (a.blocks) {
            submit(r, IMAGE_DISCARD, a.lba * d->block, a.blocks * d->block, unmapped);
            return;
        }
        at += UNMAP_DESCRIPTOR;
        r->step++;
    }
    r->done(r);
}

static void write_same(struct scsi_request *r)
{
    const struct scsi_drive *d = &r->unit->d;
    bool long_form = r->cdb[0] == OP_WRITE_SAME_16;
    uint64_t lba = long_form ? be64_at(r->cdb + 2) : be32_at(r->cdb + 2);
    uint64_t n = long_form ? be32_at(r->cdb + 10) : be16_at(r->cdb + 7);
    for (uint64_t i = 0; i < r->at; i++) {
        if (r->data[i]) {
            fail(r, KEY_ILLEGAL, ASC_PARAMETER);
            r->done(r);
            return;
        }
    }
    r->io.may_unmap = r->cdb[1] & SAME_UNMAP;
    submit(r, IMAGE_ZERO, lba * d->block, n * d->block, ended);
}

static void finish_taken(struct scsi_request *r)
{
    if (r->cdb[0] == OP_UNMAP) {
        unmap_next(r);
    } else if (r->cdb[0] == OP_WRITE_SAME_10 || r->cdb[0] == OP_WRITE_SAME_16) {
        write_same(r);
    } else {
        struct scsi_answer a = scsi_take(&r->unit->d, r->cdb, r->data, (uint32_t)r->at);
        if (a.kind == SCSI_FAIL) {
            fail(r, (enum scsi_key)a.sense.key, (enum scsi_asc)a.sense.asc);
        }
        r->done(r);
    }
}

/* What was written is to last: the command says so, or there is no cache as the guest set it. */
static bool writes_through(const struct scsi_request *r)
{
    bool says = r->cdb[0] >> 5 && (r->cdb[1] & FUA);
    return r->kind == SCSI_WRITE && (says || r->unit->d.write_cache_off);
}

void scsi_end(struct scsi_request *r, void (*done)(struct scsi_request *r))
{
    r->done = done;
    if (r->kind == SCSI_TAKE && r->left) { /* the initiator has sent less than it said */
        fail(r, KEY_ILLEGAL, ASC_PARAMETERS);
        done(r);
    } else if (r->kind == SCSI_TAKE) {
        finish_taken(r);
    } else if (r->kind == SCSI_FLUSH || writes_through(r)) {
        submit(r, IMAGE_FLUSH, 0, 0, ended);
    } else {
        done(r);
    }
}

bool scsi_request_sane(const struct scsi_request *r)
{
    bool data = r->kind == SCSI_REPLY || r->kind == SCSI_TAKE;
    bool medium = r->kind == SCSI_READ || r->kind == SCSI_WRITE;
    uint64_t end = data ? SCSI_DATA_MAX : medium ? r->unit->d.blocks * r->unit->d.block : 0;
    bool writes = r->kind == SCSI_WRITE || r->kind == SCSI_TAKE;
    return r->kind < SCSI_KINDS &&
           (!(data || medium) || (r->at <= end && r->left <= end - r->at)) &&
           (data || medium || !r->left) && !(writes && image_read_only(r->unit->d.image));
}
