/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/drive.h"
#include "host/image/image.h"

/*
 * scsi - disks and CD-ROM drives by the SCSI command set, whatever carries the commands
 *
 * Spec: T10 SPC-4 (primary commands), SBC-3 (block commands), MMC-6 (multimedia commands).
 *
 * struct scsi_drive is a drive without a place: scsi_decode() says what a command block asks
 * of it.  scsi_command.c has the commands of all and of disks, mmc.c those of CD-ROM drives;
 * atapi.c uses them without the rest of this file.
 *
 * struct scsi_unit is such a drive as a device on a struct scsi_bus (scsi-hd, scsi-cd, or what
 * is inside usb-storage), struct scsi_request one command to it, in three steps: scsi_begin(),
 * scsi_move() for each piece of data that the initiator has room for, scsi_end().
 * Thread: machine lock held.
 */
enum { SCSI_CDB = 16, SCSI_DATA_MAX = 4096, SCSI_SENSE = 18, SCSI_CD_BLOCK = 2048 };
enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK = 0x02, SCSI_BUSY = 0x08 };
enum scsi_key {
    KEY_NONE = 0,
    KEY_NOT_READY = 2,
    KEY_MEDIUM = 3,
    KEY_HARDWARE = 4,
    KEY_ILLEGAL = 5,
    KEY_ATTENTION = 6,
    KEY_PROTECT = 7,
};
enum scsi_asc {
    ASC_NONE = 0x00,
    ASC_WRITE_ERROR = 0x0c,
    ASC_READ_ERROR = 0x11,
    ASC_PARAMETERS = 0x1a,
    ASC_OPCODE = 0x20,
    ASC_LBA_RANGE = 0x21,
    ASC_FIELD = 0x24,
    ASC_NO_UNIT = 0x25,
    ASC_PARAMETER = 0x26,
    ASC_WRITE_PROTECTED = 0x27,
    ASC_MEDIUM_CHANGED = 0x28,
    ASC_RESET = 0x29,
    ASC_CHANGED = 0x2a,
    ASC_INCOMPATIBLE = 0x30,
    ASC_SAVING = 0x39,
    ASC_NO_MEDIUM = 0x3a,
    ASC_LUNS_CHANGED = 0x3f,
    ASC_REMOVAL_PREVENTED = 0x53,
};
enum scsi_media_event { MEDIA_NONE, MEDIA_EJECT, MEDIA_NEW, MEDIA_REMOVAL };

/* What a command asks for, once its block is understood. */
enum scsi_kind {
    SCSI_DONE,  /* nothing: it has ended well */
    SCSI_FAIL,  /* nothing: .sense says why */
    SCSI_REPLY, /* .bytes that the decoder has written */
    SCSI_TAKE,  /* .bytes of parameters, then the command can be done */
    SCSI_READ,  /* .blocks from .lba on to the initiator */
    SCSI_WRITE,
    SCSI_FLUSH, /* no data */
    SCSI_KINDS,
};
struct scsi_sense {
    uint8_t key, asc, ascq;
};
struct scsi_answer {
    uint8_t kind;
    struct scsi_sense sense;
    uint32_t bytes;
    uint64_t lba, blocks;
};

struct scsi_drive {
    bool cd, atapi, removable, write_cache_off;
    Image *image;
    uint64_t blocks; /* on the medium, of .block bytes */
    uint32_t block, physical_block, min_io, opt_io;
    uint16_t rotation_rate;
    uint64_t wwn;
    const char *vendor, *product, *version, *serial, *device_id;
    /* State. */
    struct scsi_sense sense; /* for REQUEST SENSE, where the carrier does not hand it on */
    uint8_t tray_open, locked, media_event;
    uint8_t attention; /* additional sense code of what the initiator must hear first */
};
#define SCSI_DRIVE_STATE(type, d)                                                                  \
    STATE(type, d.sense.key), STATE(type, d.sense.asc), STATE(type, d.sense.ascq),                 \
        STATE(type, d.tray_open, .keep = true), STATE(type, d.locked), STATE(type, d.media_event), \
        STATE(type, d.attention), STATE(type, d.write_cache_off)

/* Decodes @cdb (SCSI_CDB bytes); a reply goes to @out, SCSI_DATA_MAX bytes. */
struct scsi_answer scsi_decode(struct scsi_drive *d, const uint8_t *cdb, uint8_t *out);
/* The parameters of a SCSI_TAKE command but UNMAP and WRITE SAME are in @data. */
struct scsi_answer scsi_take(struct scsi_drive *d, const uint8_t *cdb, const uint8_t *data,
                             uint32_t bytes);
/* Another medium, or none. */
void scsi_medium_changed(struct scsi_drive *d);
void scsi_put_sense(const struct scsi_sense *s, uint8_t out[SCSI_SENSE]);

/* ---- between scsi_command.c and mmc.c ---- */
typedef struct scsi_answer scsi_run_fn(struct scsi_drive *d, const uint8_t *p, uint8_t *out);
struct scsi_command {
    scsi_run_fn *run;
    uint8_t flags;
};
enum { NEEDS_MEDIUM = 1, DURING_ATTENTION = 2 };
extern const struct scsi_command mmc_commands[256];
static inline bool scsi_has_medium(const struct scsi_drive *d)
{
    return image_inserted(d->image) && !d->tray_open;
}
struct scsi_answer scsi_fail(enum scsi_key key, enum scsi_asc asc, uint8_t ascq);
struct scsi_answer scsi_bad_field(void);
/* The first of @bytes in the reply, as many as the initiator has room for. */
struct scsi_answer scsi_reply(uint32_t bytes, uint32_t room);
struct scsi_answer scsi_transfer(const struct scsi_drive *d, enum scsi_kind kind, uint64_t lba,
                                 uint64_t blocks);
scsi_run_fn scsi_run_ready, scsi_run_request_sense, scsi_run_inquiry, scsi_run_prevent,
    scsi_run_start_stop;

/* ---- units on a bus ---- */

struct scsi_unit {
    struct device dev; /* first, of BUS_SCSI; or inside a device of another bus */
    struct scsi_bus *bus;
    struct scsi_unit *next; /* on its bus */
    struct scsi_drive d;
    void (*changed)(struct scsi_unit *u); /* NULL, or: another medium or size */
    void *owner;
    /* Properties. */
    Image *prop_drive;
    struct drive_policy policy;
    const char *prop_bus;
    uint32_t prop_channel, prop_target, prop_lun, bootindex;
    uint32_t logical_block, physical_block;
    uint16_t rotation_rate;
    bool share_rw, write_cache, removable, dpofua;
    uint64_t discard_granularity;
};
#define SCSI_UNIT_STATE(type, m) SCSI_DRIVE_STATE(type, m.d)
/* Those that describe a drive, for every carrier ... */
#define SCSI_DRIVE_PROPS(type, m)                                                                  \
    {"drive", PROP_DRIVE, offsetof(type, m.prop_drive)},                                           \
        {"serial", PROP_STRING, offsetof(type, m.d.serial)},                                       \
        {"bootindex", PROP_U32, offsetof(type, m.bootindex), UINT32_MAX},                          \
        {"logical_block_size", PROP_U32, offsetof(type, m.logical_block), 512},                    \
        {"physical_block_size", PROP_U32, offsetof(type, m.physical_block), 512},                  \
        {"min_io_size", PROP_U32, offsetof(type, m.d.min_io)},                                     \
        {"opt_io_size", PROP_U32, offsetof(type, m.d.opt_io)},                                     \
        {"discard_granularity", PROP_U64, offsetof(type, m.discard_granularity), 4096},            \
        {"write-cache", PROP_BOOL, offsetof(type, m.write_cache), 1},                              \
        {"share-rw", PROP_BOOL, offsetof(type, m.share_rw)}, DRIVE_POLICY_PROPS(type, m.policy)
/* ... and those of a place on a bus. */
#define SCSI_UNIT_PROPS(type, m)                                                                   \
    SCSI_DRIVE_PROPS(type, m), {"bus", PROP_STRING, offsetof(type, m.prop_bus)},                   \
        {"channel", PROP_U32, offsetof(type, m.prop_channel)},                                     \
        {"scsi-id", PROP_U32, offsetof(type, m.prop_target), UINT32_MAX},                          \
        {"lun", PROP_U32, offsetof(type, m.prop_lun), UINT32_MAX},                                 \
        {"vendor", PROP_STRING, offsetof(type, m.d.vendor)},                                       \
        {"product", PROP_STRING, offsetof(type, m.d.product)},                                     \
        {"ver", PROP_STRING, offsetof(type, m.d.version)},                                         \
        {"device_id", PROP_STRING, offsetof(type, m.d.device_id)},                                 \
        {"wwn", PROP_U64, offsetof(type, m.d.wwn)},                                                \
        {"rotation_rate", PROP_U16, offsetof(type, m.rotation_rate)},                              \
        {"removable", PROP_BOOL, offsetof(type, m.removable)},                                     \
    {                                                                                              \
        "dpofua", PROP_BOOL, offsetof(type, m.dpofua), .help = "always on"                         \
    }

struct scsi_bus {
    char *name; /* "scsi0.0"; owned */
    struct device *owner;
    unsigned targets, luns; /* how many there may be */
    struct scsi_unit *units;
    /* A unit has come, is about to go, or reports a change (an additional sense code). */
    void (*plugged)(struct scsi_bus *bus, struct scsi_unit *u);
    void (*unplugged)(struct scsi_bus *bus, struct scsi_unit *u);
    void (*changed)(struct scsi_bus *bus, struct scsi_unit *u, uint8_t asc);
    struct scsi_bus *next; /* scsi.c's */
};
/* At a controller's start and stop; units that are still there stay without a bus. */
void scsi_bus_add(struct scsi_bus *bus, struct device *owner);
void scsi_bus_remove(struct scsi_bus *bus);
struct scsi_unit *scsi_find(struct scsi_bus *bus, unsigned target, unsigned lun);
bool scsi_target_exists(struct scsi_bus *bus, unsigned target);
void scsi_bus_drain(struct scsi_bus *bus, unsigned target, unsigned lun); /* UINT_MAX: any */

/* Checks the properties that describe a drive and fills .d; @cd: an empty one is fine. */
bool scsi_unit_open(struct scsi_unit *u, bool cd, GError **error);
void scsi_unit_close(struct scsi_unit *u);
/* For scsi-hd and scsi-cd. */
/* Of the models on this bus, which differ in their words and in what this says. */
struct scsi_variant {
    bool cd;
};
struct scsi_device {
    struct scsi_unit unit; /* first */
};
bool scsi_device_start(struct device *dev, GError **error);
void scsi_device_stop(struct device *dev);
void scsi_device_reset(struct device *dev);
bool scsi_device_loaded(struct device *dev, GError **error);
#define SCSI_DEVICE_MODEL                                                                          \
    .size = sizeof(struct scsi_device), .version = 1, .bus = BUS_SCSI, .regs = regs,               \
    .nregs = G_N_ELEMENTS(regs), .props = props, .nprops = G_N_ELEMENTS(props), .bus_data = &kind, \
    .start = scsi_device_start, .stop = scsi_device_stop, .reset = scsi_device_reset,              \
    .loaded = scsi_device_loaded
void scsi_unit_reset(struct scsi_unit *u);
bool scsi_unit_sane(const struct scsi_unit *u, GError **error);

struct scsi_request {
    struct scsi_unit *unit; /* NULL: nobody is there, but its target is */
    struct scsi_bus *bus;
    unsigned target;
    void (*done)(struct scsi_request *r); /* of the step under way */
    struct image_request io;
    uint64_t moving;
    unsigned step;
    /* State, where a step may end and the next not follow at once. */
    uint8_t cdb[SCSI_CDB];
    uint8_t kind;   /* enum scsi_kind */
    uint8_t status; /* once it has ended */
    struct scsi_sense sense;
    uint64_t at;   /* the next byte of the medium, or of .data */
    uint64_t left; /* bytes not yet moved */
    uint8_t data[SCSI_DATA_MAX];
};
#define SCSI_REQUEST_STATE(type, r)                                                                \
    STATE_ARRAY(type, r.cdb), STATE(type, r.kind), STATE(type, r.status),                          \
        STATE(type, r.sense.key), STATE(type, r.sense.asc), STATE(type, r.sense.ascq),             \
        STATE(type, r.at), STATE(type, r.left), STATE_ARRAY(type, r.data)
/* Understands .cdb for .unit: sets .kind and .left. */
void scsi_begin(struct scsi_request *r);
static inline bool scsi_to_initiator(const struct scsi_request *r)
{
    return r->kind == SCSI_REPLY || r->kind == SCSI_READ;
}
/* Moves the next @bytes, at most .left; @done is called, perhaps before this returns. */
void scsi_move(struct scsi_request *r, const struct iovec *iov, unsigned niov, uint64_t bytes,
               void (*done)(struct scsi_request *r));
/* No more data: does what is to be done; @done finds .status and .sense. */
void scsi_end(struct scsi_request *r, void (*done)(struct scsi_request *r));
/* A loaded .kind, .at and .left fit .unit. */
bool scsi_request_sane(const struct scsi_request *r);
