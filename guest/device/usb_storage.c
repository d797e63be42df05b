/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * usb_storage: a disk or CD-ROM drive on USB.
 *
 * Spec: USB-IF, Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0, "Command Block
 * Wrapper (CBW)", "Command Status Wrapper (CSW)", "The Thirteen Cases".
 * The command set is that of scsi.c.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/scsi.h"
#include "guest/device/usb.h"

enum { EP_IN = 1, EP_OUT = 2, CBW_BYTES = 31, CSW_BYTES = 13 };
enum { GET_MAX_LUN = 0xfe, BULK_RESET = 0xff, CLASS_IN = 0xa1, CLASS_OUT = 0x21 };
#define CBW_SIGNATURE 0x43425355u
#define CSW_SIGNATURE 0x53425355u
enum csw_status { CSW_PASSED = 0, CSW_FAILED = 1, CSW_PHASE = 2 };
enum phase { WANT_COMMAND, MOVE_DATA, SEND_STATUS, PHASES };

struct usb_storage {
    struct usb_device usb; /* first */
    struct scsi_unit unit;
    struct usb_transfer *waits; /* under way in the image */
    bool inside;                /* transfer() has not returned: its result says how it ended */
    /* State. */
    uint8_t phase, in;
    bool ended;             /* the command is over, .r.status says how */
    uint32_t tag, host_left; /* bytes of data that the host has still to move */
    uint32_t residue;        /* of its data that were of no use */
    struct scsi_request r;
};

static struct usb_storage *of(struct usb_device *u)
{
    return container_of(u, struct usb_storage, usb);
}

static struct usb_storage *of_request(struct scsi_request *r)
{
    return container_of(r, struct usb_storage, r);
}

static void finish(struct usb_storage *s, enum usb_result result)
{
    struct usb_transfer *t = s->waits;
    s->waits = NULL;
    if (t && !s->inside) {
        t->ended(t, result);
    }
}

/* ---- the command ---- */

/* Over: its sense is kept for REQUEST SENSE, status can be asked for. */
static void command_ended(struct scsi_request *r)
{
    struct usb_storage *s = of_request(r);
    s->ended = true;
    if (r->status == SCSI_CHECK) {
        s->unit.d.sense = r->sense;
    }
    usb_wake(&s->usb, 0x80 | EP_IN);
    usb_wake(&s->usb, EP_OUT);
}

static enum usb_result take_command(struct usb_storage *s, struct usb_transfer *t)
{
    uint8_t cbw[CBW_BYTES] = {0};
    struct scsi_request *r = &s->r;
    bool whole = t->bytes == CBW_BYTES && usb_get(t, cbw, CBW_BYTES) == CBW_BYTES;
    if (!whole || le32_at(cbw) != CBW_SIGNATURE || cbw[13] || !cbw[14] || cbw[14] > SCSI_CDB) {
        return USB_STALL; /* until the host resets the transport */
    }
    t->done = CBW_BYTES;
    s->tag = le32_at(cbw + 4);
    s->residue = s->host_left = le32_at(cbw + 8);
    s->in = cbw[12] >> 7;
    memset(r->cdb, 0, SCSI_CDB);
    memcpy(r->cdb, cbw + 15, cbw[14]);
    scsi_begin(r);
    s->ended = false;
    s->phase = s->residue ? MOVE_DATA : SEND_STATUS;
    if (r->left && (!s->residue || s->in != scsi_to_initiator(r))) {
        s->ended = true; /* the host means another direction, or no data */
        r->status = SCSI_BUSY;
        r->left = 0;
    } else if (r->status != SCSI_GOOD) {
        command_ended(r);
    } else if (!r->left) {
        scsi_end(r, command_ended);
    }
    return USB_OK;
}

static void data_moved(struct scsi_request *r)
{
    struct usb_storage *s = of_request(r);
    bool was_short = true;
    if (s->waits) {
        uint32_t n = r->status == SCSI_GOOD ? (uint32_t)r->moving : 0;
        s->waits->done = n;
        s->residue -= n;
        s->host_left -= n;
        was_short = n < s->waits->bytes;
    }
    if (r->status != SCSI_GOOD) {
        command_ended(r);
    } else if (!r->left) {
        scsi_end(r, command_ended);
    }
    if (!s->host_left || (s->in && was_short)) { /* a short packet ends the data */
        s->phase = SEND_STATUS;
    }
    finish(s, USB_OK);
}

/* Data that the command does not have, or does not want. */
static enum usb_result no_more_data(struct usb_storage *s, struct usb_transfer *t)
{
    if (!s->ended) {
        return USB_NAK; /* the command is still being done */
    }
    if (s->in) {
        s->phase = SEND_STATUS;
        return s->r.status == SCSI_GOOD ? USB_OK : USB_STALL;
    }
    t->done = MIN(t->bytes, s->host_left);
    s->host_left -= t->done;
    s->phase = s->host_left ? MOVE_DATA : SEND_STATUS;
    return USB_OK;
}

static enum usb_result move_data(struct usb_storage *s, struct usb_transfer *t)
{
    if (t->in != s->in) {
        return USB_STALL;
    }
    if (!s->r.left) {
        return no_more_data(s, t);
    }
    s->waits = t;
    s->inside = true;
    scsi_move(&s->r, t->iov, t->niov, MIN(t->bytes, s->host_left), data_moved);
    s->inside = false;
    return s->waits ? USB_ASYNC : USB_OK;
}

static enum usb_result send_status(struct usb_storage *s, struct usb_transfer *t)
{
    uint8_t csw[CSW_BYTES];
    if (!s->ended) {
        return USB_NAK;
    }
    le32_put(csw, CSW_SIGNATURE);
    le32_put(csw + 4, s->tag);
    le32_put(csw + 8, s->residue);
    csw[12] = s->r.status == SCSI_GOOD ? CSW_PASSED : s->r.status == SCSI_CHECK ? CSW_FAILED : CSW_PHASE;
    usb_put(t, csw, MIN(t->bytes, sizeof(csw)));
    s->phase = WANT_COMMAND;
    return USB_OK;
}

static enum usb_result transfer(struct usb_device *u, struct usb_transfer *t)
{
    struct usb_storage *s = of(u);
    if (t->endpoint != (t->in ? EP_IN : EP_OUT)) {
        return USB_STALL;
    }
    if (s->waits) {
        return USB_NAK;
    }
    if (s->phase == MOVE_DATA) {
        return move_data(s, t);
    }
    if (s->phase == SEND_STATUS && t->in) {
        return send_status(s, t);
    }
    return t->in ? USB_NAK : take_command(s, t);
}

/* ---- life ---- */

static void transport_reset(struct usb_storage *s)
{
    image_drain(s->unit.d.image); /* ends what is under way */
    s->phase = WANT_COMMAND;
    s->r.left = 0;
    s->ended = true;
}

static void bus_reset(struct usb_device *u)
{
    transport_reset(of(u));
    scsi_unit_reset(&of(u)->unit);
}

static int control(struct usb_device *u, const uint8_t setup[8], uint8_t *data)
{
    switch (setup[0] << 8 | setup[1]) {
    case CLASS_IN << 8 | GET_MAX_LUN:
        data[0] = 0;
        return 1;
    case CLASS_OUT << 8 | BULK_RESET:
        transport_reset(of(u));
        return 0;
    default:
        return -1;
    }
}

static const uint8_t device_descriptor[18] = {18, 1, 0x00, 0x02, 0, 0, 0, 64, 0xf4, 0x46, 0x01, 0x00,
                                              0,  0, 1,    2,    3, 1};
static const uint8_t config_descriptor[32] = {
    9, 2, 32, 0, 1, 1, 0, 0xc0, 0, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, /* SCSI, bulk-only */
    7, 5, 0x80 | EP_IN, 2, 0x00, 0x02, 0, 7, 5, EP_OUT, 2, 0x00, 0x02, 0,
};
static const char *const strings[] = {"Lodge", "USB Disk", "1-0000:00:00.0-1", NULL};
static void cancel(struct usb_device *u)
{
    image_drain(of(u)->unit.d.image);
}

static const struct usb_model model = {.device = device_descriptor, .config = config_descriptor,
                                       .strings = strings, .speed = USB_HIGH, .high_only = true, .control = control,
                                       .transfer = transfer, .reset = bus_reset, .cancel = cancel};

static bool start(struct device *dev, GError **error)
{
    struct usb_storage *s = container_of(dev, struct usb_storage, usb.dev);
    s->usb.serial = s->unit.d.serial;
    s->r.unit = &s->unit;
    s->ended = true;
    if (!scsi_unit_open(&s->unit, false, error)) {
        return false;
    }
    if (!usb_start(&s->usb, &model, error)) {
        scsi_unit_close(&s->unit);
        return false;
    }
    return true;
}

static void stop(struct device *dev)
{
    struct usb_storage *s = container_of(dev, struct usb_storage, usb.dev);
    scsi_unit_close(&s->unit);
    usb_stop(&s->usb);
}

static void reset(struct device *dev)
{
    struct usb_storage *s = container_of(dev, struct usb_storage, usb.dev);
    usb_device_reset(&s->usb);
}

static bool loaded(struct device *dev, GError **error)
{
    struct usb_storage *s = container_of(dev, struct usb_storage, usb.dev);
    if (s->phase >= PHASES || s->in > 1 || !scsi_request_sane(&s->r)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a command cannot be as it is stated");
        return false;
    }
    return scsi_unit_sane(&s->unit, error) && usb_loaded(&s->usb, error);
}

static const struct reg regs[] = {
    USB_STATE(struct usb_storage, usb),
    SCSI_UNIT_STATE(struct usb_storage, unit),
    SCSI_REQUEST_STATE(struct usb_storage, r),
    STATE(struct usb_storage, phase),
    STATE(struct usb_storage, in),
    STATE(struct usb_storage, ended),
    STATE(struct usb_storage, tag),
    STATE(struct usb_storage, host_left),
    STATE(struct usb_storage, residue),
};

static const struct prop props[] = {
    USB_PROPS(struct usb_storage, usb),
    SCSI_DRIVE_PROPS(struct usb_storage, unit),
    {"removable", PROP_BOOL, offsetof(struct usb_storage, unit.removable)},
};

const struct device_model model_usb_storage = {
    .name = "usb-storage",
    .about = "USB disk",
    .spec = "USB-IF Mass Storage Bulk-Only Transport 1.0; T10 SPC-4, SBC-3",
    .size = sizeof(struct usb_storage),
    .version = 1,
    .bus = BUS_USB,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .reset = reset,
    .loaded = loaded,
};
