/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_blk: a disk behind virtqueues.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Block Device".
 * Not modelled: SCSI command pass-through (a legacy feature), CONFIG_WCE.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/cpu/vcpu.h"
#include "guest/device/drive.h"
#include "guest/device/virtio.h"
#include "host/image/image.h"

enum { SECTOR = 512, HEADER_BYTES = 16, SEGMENT_BYTES = 16, ID_BYTES = 20, CONFIG_BYTES = 60 };
enum { HEADS = 16, SECTORS = 63, CYLINDERS_MAX = 16383, QUEUE_SIZE = 256 };
enum { AUTO_QUEUES = UINT16_MAX };
enum { RANGE_SECTORS_MAX = 1 << 22 }; /* of one discard or write-zeroes: 2 GiB */

enum feature {
    BLK_F_SEG_MAX = 2, BLK_F_GEOMETRY = 4, BLK_F_RO = 5, BLK_F_BLK_SIZE = 6, BLK_F_FLUSH = 9,
    BLK_F_TOPOLOGY = 10, BLK_F_MQ = 12, BLK_F_DISCARD = 13, BLK_F_WRITE_ZEROES = 14,
};
enum config {
    CFG_CAPACITY = 0, CFG_SEG_MAX = 12, CFG_CYLINDERS = 16, CFG_HEADS = 18, CFG_SECTORS = 19,
    CFG_BLK_SIZE = 20, CFG_PHYSICAL_EXP = 24, CFG_MIN_IO = 26, CFG_OPT_IO = 28,
    CFG_WRITEBACK = 32, CFG_QUEUES = 34, CFG_DISCARD_SECTORS = 36, CFG_DISCARD_SEG = 40,
    CFG_DISCARD_ALIGN = 44, CFG_ZEROES_SECTORS = 48, CFG_ZEROES_SEG = 52, CFG_ZEROES_UNMAP = 56,
};
enum request_type {
    T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13,
};
enum status { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { ZEROES_UNMAP = 1 };

struct virtio_blk {
    struct virtio_pci base;
    Image *drive;
    const char *serial;
    const char *iothread;
    struct drive_policy policy;
    uint16_t num_queues, queue_size;
    uint32_t logical_block, physical_block, bootindex;
    uint32_t min_io, opt_io;
    bool discard, write_zeroes, share_rw, scsi, write_cache;
};

/* A request in the slot of its element. */
struct blk_request {
    struct virtio_element e;
    struct virtio_blk *disk;
    struct image_request io;
    uint8_t *status; /* in guest memory */
    uint32_t type, written;
};

static struct virtio_blk *self(struct device *dev)
{
    return container_of(dev, struct virtio_blk, base.pci.dev);
}

static void complete(struct blk_request *r, enum status status)
{
    struct virtio *v = &r->disk->base.virtio;
    unsigned queue = r->e.queue;
    *r->status = (uint8_t)status;
    ram_note_write(r->status, 1);
    virtio_push(v, &r->e, r->written + 1);
    virtio_interrupt(v, queue);
}

/* A driver that did not take FLUSH believes that what is written is safe. */
static bool needs_flush(const struct blk_request *r)
{
    bool changed = r->io.op == IMAGE_WRITE || r->io.op == IMAGE_ZERO || r->io.op == IMAGE_DISCARD;
    return changed && !virtio_has(&r->disk->base.virtio, (enum virtio_feature)BLK_F_FLUSH);
}

static void io_done(struct image_request *io, int result)
{
    struct blk_request *r = container_of(io, struct blk_request, io);
    if (result == 0 && needs_flush(r)) {
        io->op = IMAGE_FLUSH;
        image_submit(r->disk->drive, io);
        return;
    }
    complete(r, result == 0 ? S_OK : S_IOERR);
}

/* Takes header and status out of the parts; what is left is data.  False if they lack. */
static bool split(struct virtio *v, struct blk_request *r, uint8_t header[HEADER_BYTES])
{
    struct virtio_element *e = &r->e;
    if (virtio_get(e, 0, header, HEADER_BYTES) != HEADER_BYTES || !e->in_bytes) {
        virtio_break(v, "a request without header or status");
        return false;
    }
    struct iovec *last = &e->iov[e->nout + e->nin - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    last->iov_len--;
    e->in_bytes--;
    size_t skip = HEADER_BYTES;
    for (struct iovec *part = e->iov; skip; part++) {
        size_t n = MIN(skip, part->iov_len);
        part->iov_base = (uint8_t *)part->iov_base + n;
        part->iov_len -= n;
        skip -= n;
    }
    e->out_bytes -= HEADER_BYTES;
    return true;
}

static bool in_disk(const struct virtio_blk *d, uint64_t sector, uint64_t bytes)
{
    uint64_t size = image_size(d->drive);
    uint64_t unit = d->logical_block / SECTOR;
    return sector <= size / SECTOR && bytes <= size - sector * SECTOR &&
           !(bytes % d->logical_block) && !(sector % unit);
}

static void start_io(struct blk_request *r, enum image_op op, uint64_t sector, uint64_t bytes)
{
    struct virtio_element *e = &r->e;
    bool reads = op == IMAGE_READ;
    const struct iovec *iov = reads ? e->iov + e->nout : e->iov;
    unsigned niov = reads ? e->nin : e->nout;
    while (niov && !iov->iov_len) { /* the header's part */
        iov++;
        niov--;
    }
    r->io.op = op;
    r->io.offset = sector * SECTOR;
    r->io.bytes = bytes;
    r->io.iov = iov;
    r->io.niov = niov;
    r->io.done = io_done;
    r->written = reads ? (uint32_t)bytes : 0;
    image_submit(r->disk->drive, &r->io);
}

static void do_transfer(struct blk_request *r, uint64_t sector)
{
    bool reads = r->type == T_IN;
    uint64_t bytes = reads ? r->e.in_bytes : r->e.out_bytes;
    if (!in_disk(r->disk, sector, bytes) || bytes > UINT32_MAX - 1 ||
        (!reads && image_read_only(r->disk->drive))) {
        complete(r, S_IOERR);
        return;
    }
    start_io(r, reads ? IMAGE_READ : IMAGE_WRITE, sector, bytes);
}

static void do_get_id(struct blk_request *r)
{
    char id[ID_BYTES] = {0};
    size_t n = r->disk->serial ? MIN(strlen(r->disk->serial), sizeof(id)) : 0;
    memcpy(id, r->disk->serial ? r->disk->serial : "", n);
    r->written = (uint32_t)virtio_put(&r->e, 0, id, sizeof(id));
    complete(r, S_OK);
}

/* Discard and write-zeroes: one segment, as max_*_seg says. */
static void do_range(struct blk_request *r)
{
    struct virtio_blk *d = r->disk;
    bool zeroes = r->type == T_WRITE_ZEROES;
    uint8_t raw[SEGMENT_BYTES];
    bool offered = zeroes ? d->write_zeroes : d->discard;
    if (!offered || r->e.out_bytes != SEGMENT_BYTES) {
        complete(r, offered ? S_IOERR : S_UNSUPP);
        return;
    }
    virtio_get(&r->e, 0, raw, sizeof(raw));
    uint64_t sector = le64_at(raw), bytes = (uint64_t)le32_at(raw + 8) * SECTOR;
    uint32_t flags = le32_at(raw + 12);
    if (flags & ~(zeroes ? (uint32_t)ZEROES_UNMAP : 0)) {
        complete(r, S_UNSUPP);
    } else if (!in_disk(d, sector, bytes) || bytes > (uint64_t)RANGE_SECTORS_MAX * SECTOR ||
               image_read_only(d->drive)) {
        complete(r, S_IOERR);
    } else {
        r->io.may_unmap = flags & ZEROES_UNMAP;
        start_io(r, zeroes ? IMAGE_ZERO : IMAGE_DISCARD, sector, bytes);
    }
}

static void handle(struct virtio_blk *d, struct blk_request *r)
{
    uint8_t header[HEADER_BYTES];
    r->disk = d;
    r->written = 0;
    if (!split(&d->base.virtio, r, header)) {
        return; /* the element goes with the reset that must follow */
    }
    r->type = le32_at(header);
    switch (r->type) {
    case T_IN:
    case T_OUT:
        do_transfer(r, le64_at(header + 8));
        break;
    case T_FLUSH:
        start_io(r, IMAGE_FLUSH, 0, 0);
        break;
    case T_GET_ID:
        do_get_id(r);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        do_range(r);
        break;
    default:
        complete(r, S_UNSUPP);
        break;
    }
}

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, base.virtio);
    struct virtio_element *e;
    image_plug();
    while ((e = virtio_pop(v, queue))) {
        handle(d, container_of(e, struct blk_request, e));
    }
    image_unplug();
    image_poll(d->drive);
}

static void blk_reset(struct virtio *v)
{
    struct virtio_blk *d = container_of(v, struct virtio_blk, base.virtio);
    image_drain(d->drive);
}

static const struct virtio_model blk = {
    .name = "virtio-blk",
    .id = 2,
    .legacy_id = 0x1001,
    .element_bytes = sizeof(struct blk_request),
    .kick = kick,
    .reset = blk_reset,
};

/* ---- life ---- */

static void fill_capacity(struct virtio_blk *d)
{
    uint8_t *c = d->base.virtio.config;
    uint64_t sectors = image_size(d->drive) / SECTOR;
    le64_put(c + CFG_CAPACITY, sectors);
    le16_put(c + CFG_CYLINDERS, (uint16_t)MIN(sectors / (HEADS * SECTORS), CYLINDERS_MAX));
}

static void medium_changed(void *owner)
{
    struct virtio_blk *d = owner;
    fill_capacity(d);
    virtio_config_changed(&d->base.virtio);
}

static void fill_config(struct virtio_blk *d)
{
    uint8_t *c = d->base.virtio.config;
    fill_capacity(d);
    le32_put(c + CFG_SEG_MAX, d->queue_size - 2u);
    c[CFG_HEADS] = HEADS;
    c[CFG_SECTORS] = SECTORS;
    le32_put(c + CFG_BLK_SIZE, d->logical_block);
    c[CFG_PHYSICAL_EXP] = (uint8_t)__builtin_ctz(d->physical_block / d->logical_block);
    le16_put(c + CFG_MIN_IO, (uint16_t)(d->min_io / d->logical_block));
    le32_put(c + CFG_OPT_IO, d->opt_io / d->logical_block);
    c[CFG_WRITEBACK] = d->write_cache;
    le16_put(c + CFG_QUEUES, d->num_queues);
    le32_put(c + CFG_DISCARD_SECTORS, RANGE_SECTORS_MAX);
    le32_put(c + CFG_DISCARD_SEG, 1);
    le32_put(c + CFG_DISCARD_ALIGN, d->logical_block / SECTOR);
    le32_put(c + CFG_ZEROES_SECTORS, RANGE_SECTORS_MAX);
    le32_put(c + CFG_ZEROES_SEG, 1);
    c[CFG_ZEROES_UNMAP] = 1;
}

static uint64_t features_of(const struct virtio_blk *d)
{
    return VIRTIO_BIT(BLK_F_SEG_MAX) | VIRTIO_BIT(BLK_F_GEOMETRY) | VIRTIO_BIT(BLK_F_BLK_SIZE) |
           VIRTIO_BIT(BLK_F_TOPOLOGY) | (d->write_cache ? VIRTIO_BIT(BLK_F_FLUSH) : 0) |
           (image_read_only(d->drive) ? VIRTIO_BIT(BLK_F_RO) : 0) |
           (d->num_queues > 1 ? VIRTIO_BIT(BLK_F_MQ) : 0) |
           (d->discard ? VIRTIO_BIT(BLK_F_DISCARD) : 0) |
           (d->write_zeroes ? VIRTIO_BIT(BLK_F_WRITE_ZEROES) : 0);
}

static bool is_power_of_two(uint32_t v, uint32_t min, uint32_t max)
{
    return v >= min && v <= max && !(v & (v - 1));
}

static bool check_props(struct virtio_blk *d, GError **error)
{
    const char *wrong = NULL;
    if (d->num_queues == AUTO_QUEUES) {
        d->num_queues = (uint16_t)CLAMP(d->base.pci.dev.board->cpus, 1,
                                        VIRTIO_QUEUES_MAX - 1);
    }
    d->physical_block = MAX(d->physical_block, d->logical_block);
    if (!image_inserted(d->drive)) {
        wrong = "the drive holds no medium";
    } else if (d->scsi) {
        wrong = "scsi=on: there is no SCSI command pass-through";
    } else if (!is_power_of_two(d->queue_size, 4, VIRTIO_QUEUE_SIZE_MAX)) {
        wrong = "queue-size is a power of two from 4 to 1024";
    } else if (!d->num_queues || d->num_queues > VIRTIO_QUEUES_MAX - 1) {
        wrong = "num-queues is from 1 to 63";
    } else if (!is_power_of_two(d->logical_block, SECTOR, 32768) ||
               !is_power_of_two(d->physical_block, SECTOR, 1u << 21)) {
        wrong = "block sizes are powers of two from 512";
    }
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    }
    return !wrong;
}

static bool start(struct device *dev, GError **error)
{
    struct virtio_blk *d = self(dev);
    struct virtio *v = &d->base.virtio;
    if (!check_props(d, error) || !drive_policy_apply(&d->policy, d->drive, error)) {
        return false;
    }
    v->model = &blk;
    v->nqueues = d->num_queues;
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->queue_size_max[i] = d->queue_size;
    }
    v->config_bytes = CONFIG_BYTES;
    v->offered = features_of(d);
    fill_config(d);
    if (!virtio_pci_start(&d->base, error)) {
        return false;
    }
    if (!virtio_use_iothread(v, d->iothread, error)) {
        virtio_pci_stop(dev);
        return false;
    }
    image_on_change(d->drive, medium_changed, d);
    return true;
}

static void stop(struct device *dev)
{
    image_on_change(self(dev)->drive, NULL, NULL);
    virtio_pci_stop(dev);
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_blk, base),
};

#define P(field) offsetof(struct virtio_blk, field)
static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_blk, base),
    {"drive", PROP_DRIVE, P(drive), .required = true, .help = "id of the -drive or -blockdev"},
    {"serial", PROP_STRING, P(serial), .help = "at most 20 characters"},
    {"num-queues", PROP_U16, P(num_queues), AUTO_QUEUES, .help = "without: one a CPU"},
    {"scsi", PROP_BOOL, P(scsi), .help = "off: there is no command pass-through"},
    {"queue-size", PROP_U16, P(queue_size), QUEUE_SIZE},
    {"logical_block_size", PROP_U32, P(logical_block), SECTOR},
    {"physical_block_size", PROP_U32, P(physical_block), SECTOR},
    {"min_io_size", PROP_U32, P(min_io)},
    {"opt_io_size", PROP_U32, P(opt_io)},
    {"discard", PROP_BOOL, P(discard), 1},
    {"write-zeroes", PROP_BOOL, P(write_zeroes), 1},
    {"write-cache", PROP_BOOL, P(write_cache), 1, .help = "off: what was written is safe"},
    {"share-rw", PROP_BOOL, P(share_rw)},
    {"bootindex", PROP_U32, P(bootindex), UINT32_MAX},
    {"iothread", PROP_STRING, P(iothread), .help = "id of the -object iothread"},
    DRIVE_POLICY_PROPS(struct virtio_blk, policy),
};

static const struct pci_ident ident = {
    .vendor = 0x1af4,
    .device = 0x1001,
    .class = 0x010000,
    .irq_pin = 1,
};

const struct device_model model_virtio_blk = {
    .name = "virtio-blk-pci",
    .alias = "virtio-blk",
    .about = "disk behind virtio queues",
    .spec = "OASIS VIRTIO 1.1, \"Block Device\"",
    .size = sizeof(struct virtio_blk),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = virtio_pci_settle,
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
};
