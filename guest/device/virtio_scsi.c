/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_scsi: a SCSI controller behind virtqueues.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.2, "SCSI Host Device".
 * Not modelled: bidirectional commands, protection information, asynchronous notification of
 * media events (a driver polls).
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/cpu/vcpu.h"
#include "guest/device/scsi.h"
#include "guest/device/virtio.h"

enum { CONTROL_QUEUE, EVENT_QUEUE, REQUEST_QUEUES };
enum { QUEUE_SIZE = 256, AUTO_QUEUES = UINT32_MAX, CONFIG_BYTES = 36 };
enum { TARGETS = 256, LUNS = 16384 };
enum feature { SCSI_F_HOTPLUG = 1, SCSI_F_CHANGE = 2 };
enum config {
    CFG_QUEUES = 0, CFG_SEG_MAX = 4, CFG_MAX_SECTORS = 8, CFG_PER_LUN = 12, CFG_EVENT_BYTES = 16,
    CFG_SENSE = 20, CFG_CDB = 24, CFG_CHANNEL = 28, CFG_TARGET = 30, CFG_LUN = 32,
};
enum { SENSE_DEFAULT = 96, CDB_DEFAULT = 32, SENSE_MAX = 252, CDB_MAX = 260 };
enum { REQUEST_HEAD = 19, RESPONSE_HEAD = 12, EVENT_BYTES = 16 };
enum response {
    OK = 0, OVERRUN = 1, BAD_TARGET = 3, FAILURE = 9, FUNCTION_SUCCEEDED = 10, FUNCTION_REJECTED = 11,
    INCORRECT_LUN = 12,
};
enum { TASK_MANAGEMENT = 0, EVENT_QUERY = 1, EVENT_SUBSCRIBE = 2 };
enum task {
    ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, NEXUS_RESET, UNIT_RESET, QUERY_TASK,
    QUERY_TASK_SET,
};
enum event { EVENT_TRANSPORT_RESET = 1, EVENT_PARAM_CHANGE = 3 };
enum { RESET_RESCAN = 1, RESET_REMOVED = 2 };
#define EVENTS_MISSED 0x80000000u

struct virtio_scsi {
    struct virtio_pci base;
    struct scsi_bus bus;
    /* State. */
    bool missed; /* an event found no buffer */
    /* Properties. */
    uint32_t num_queues, queue_size, max_sectors, per_lun;
    const char *iothread;
};

/* A request in the slot of its element.  Its parts are those of the chain without the headers:
 * where a header ends inside a part, that part is shortened until the end. */
struct scsi_chain {
    struct virtio_element e;
    struct virtio_scsi *s;
    uint64_t room, total; /* bytes of data that the initiator offers; that the command moves */
    struct iovec *cut;
    size_t cut_bytes;
    struct scsi_request r;
};

static struct virtio_scsi *of(struct virtio *v)
{
    return container_of(v, struct virtio_scsi, base.virtio);
}

static uint32_t config_value(const struct virtio_scsi *s, enum config at)
{
    return le32_at(s->base.virtio.config + at);
}

/* ---- requests ---- */

static void put_response(struct scsi_chain *c, enum response response)
{
    struct virtio *v = &c->s->base.virtio;
    unsigned queue = c->e.queue;
    uint32_t sense_room = config_value(c->s, CFG_SENSE), written = RESPONSE_HEAD + sense_room;
    uint8_t head[RESPONSE_HEAD + SENSE_MAX] = {0};
    if (c->cut) {
        c->cut->iov_base = (uint8_t *)c->cut->iov_base - c->cut_bytes;
        c->cut->iov_len += c->cut_bytes;
    }
    if (response == OK) {
        uint64_t moved = c->r.status == SCSI_GOOD ? c->total - c->r.left : 0;
        le32_put(head + 4, (uint32_t)MIN(c->room - moved, UINT32_MAX));
        head[10] = c->r.status;
        if (c->r.status == SCSI_CHECK) {
            uint8_t sense[SCSI_SENSE];
            scsi_put_sense(&c->r.sense, sense);
            le32_put(head, MIN(SCSI_SENSE, sense_room));
            memcpy(head + RESPONSE_HEAD, sense, MIN(SCSI_SENSE, sense_room));
        }
    }
    head[11] = (uint8_t)response;
    virtio_put(&c->e, 0, head, written);
    virtio_push(v, &c->e, (uint32_t)MIN(c->e.in_bytes, UINT32_MAX));
    virtio_interrupt(v, queue);
}

static void ended(struct scsi_request *r)
{
    put_response(container_of(r, struct scsi_chain, r), OK);
}

static void moved(struct scsi_request *r)
{
    if (r->status != SCSI_GOOD) {
        ended(r);
    } else {
        scsi_end(r, ended);
    }
}

/* The parts after the first @skip bytes of @iov; the part in which they begin is cut. */
static unsigned skip_head(struct scsi_chain *c, struct iovec **iov, unsigned n, size_t skip)
{
    while (n && skip >= (*iov)->iov_len) {
        skip -= (*iov)->iov_len;
        (*iov)++;
        n--;
    }
    c->cut = n && skip ? *iov : NULL;
    c->cut_bytes = skip;
    if (c->cut) {
        c->cut->iov_base = (uint8_t *)c->cut->iov_base + skip;
        c->cut->iov_len -= skip;
    }
    return n;
}

static void transfer(struct scsi_chain *c)
{
    struct virtio_element *e = &c->e;
    bool in = scsi_to_initiator(&c->r);
    size_t head = in ? RESPONSE_HEAD + config_value(c->s, CFG_SENSE)
                     : REQUEST_HEAD + config_value(c->s, CFG_CDB);
    struct iovec *iov = in ? e->iov + e->nout : e->iov;
    c->room = (in ? e->in_bytes : e->out_bytes) - head;
    c->total = c->r.left;
    if (c->total > c->room) {
        put_response(c, OVERRUN);
        return;
    }
    unsigned n = skip_head(c, &iov, in ? e->nin : e->nout, head);
    scsi_move(&c->r, iov, n, c->total, moved);
}

/* "1, target, unit in the flat form"; false: there is no such place. */
static bool find_unit(struct virtio_scsi *s, const uint8_t *lun, struct scsi_unit **u)
{
    unsigned number = (lun[2] << 8 | lun[3]) & 0x3fff;
    *u = NULL;
    if (lun[0] != 1 || lun[4] || lun[5] || lun[6] || lun[7]) {
        return false;
    }
    *u = scsi_find(&s->bus, lun[1], number);
    return *u || scsi_target_exists(&s->bus, lun[1]);
}

static void handle(struct virtio_scsi *s, struct scsi_chain *c)
{
    struct virtio *v = &s->base.virtio;
    uint8_t head[REQUEST_HEAD + SCSI_CDB];
    uint32_t cdb = config_value(s, CFG_CDB), sense = config_value(s, CFG_SENSE);
    c->s = s;
    c->cut = NULL;
    c->room = c->total = 0;
    if (c->e.out_bytes < REQUEST_HEAD + cdb || c->e.in_bytes < RESPONSE_HEAD + sense) {
        virtio_break(v, "a request without its headers");
        return;
    }
    memset(head, 0, sizeof(head));
    virtio_get(&c->e, 0, head, REQUEST_HEAD + MIN(cdb, SCSI_CDB));
    struct scsi_request *r = &c->r;
    if (!find_unit(s, head, &r->unit)) {
        put_response(c, BAD_TARGET);
        return;
    }
    memcpy(r->cdb, head + REQUEST_HEAD, SCSI_CDB);
    r->bus = &s->bus;
    r->target = head[1];
    scsi_begin(r);
    if (r->left) {
        transfer(c);
    } else {
        moved(r);
    }
}

/* ---- control ---- */

static enum response manage_task(struct virtio_scsi *s, const uint8_t *m)
{
    const uint8_t *lun = m + 8;
    struct scsi_unit *u;
    uint32_t task = le32_at(m + 4);
    bool place = find_unit(s, lun, &u);
    if (task == NEXUS_RESET ? !scsi_target_exists(&s->bus, lun[1]) : !place) {
        return BAD_TARGET;
    }
    if (task != NEXUS_RESET && !u) {
        return INCORRECT_LUN;
    }
    switch (task) {
    case ABORT_TASK:
    case ABORT_TASK_SET:
    case CLEAR_TASK_SET: /* nothing is under way any more when this returns */
        image_drain(u->d.image);
        return FUNCTION_SUCCEEDED;
    case UNIT_RESET:
        scsi_unit_reset(u);
        return FUNCTION_SUCCEEDED;
    case NEXUS_RESET:
        for (u = s->bus.units; u; u = u->next) {
            if (u->prop_target == lun[1]) {
                scsi_unit_reset(u);
            }
        }
        return FUNCTION_SUCCEEDED;
    case QUERY_TASK:
    case QUERY_TASK_SET:
        image_drain(u->d.image);
        return OK; /* not present: it has ended */
    default:
        return FUNCTION_REJECTED;
    }
}

static void control(struct virtio_scsi *s, struct virtio_element *e)
{
    struct virtio *v = &s->base.virtio;
    uint8_t m[24] = {0}, answer[5] = {0};
    size_t n = virtio_get(e, 0, m, sizeof(m));
    switch (n >= 4 ? le32_at(m) : UINT32_MAX) {
    case TASK_MANAGEMENT:
        answer[0] = n == 24 ? (uint8_t)manage_task(s, m) : FAILURE;
        virtio_push(v, e, (uint32_t)virtio_put(e, 0, answer, 1));
        break;
    case EVENT_QUERY:
    case EVENT_SUBSCRIBE: /* none of these events is offered */
        virtio_push(v, e, (uint32_t)virtio_put(e, 0, answer, 5));
        break;
    default:
        virtio_break(v, "a control request that does not exist");
        break;
    }
}

/* ---- events ---- */

static void tell(struct virtio_scsi *s, uint32_t event, const struct scsi_unit *u, uint32_t reason)
{
    struct virtio *v = &s->base.virtio;
    uint8_t m[EVENT_BYTES] = {0};
    if (!(v->status & VIRTIO_DRIVER_OK)) {
        return;
    }
    struct virtio_element *e = virtio_ready(v, EVENT_QUEUE) ? virtio_pop(v, EVENT_QUEUE) : NULL;
    if (!e) {
        s->missed = true;
        return;
    }
    if (u) {
        m[4] = 1;
        m[5] = (uint8_t)u->prop_target;
        m[6] = u->prop_lun > 255 ? (uint8_t)(0x40 | u->prop_lun >> 8) : 0; /* as in REPORT LUNS */
        m[7] = (uint8_t)u->prop_lun;
    }
    le32_put(m, event | (s->missed ? EVENTS_MISSED : 0));
    le32_put(m + 12, reason);
    s->missed = false;
    virtio_push(v, e, (uint32_t)virtio_put(e, 0, m, sizeof(m)));
    virtio_interrupt(v, EVENT_QUEUE);
}

static void plugged(struct scsi_bus *bus, struct scsi_unit *u)
{
    struct virtio_scsi *s = container_of(bus, struct virtio_scsi, bus);
    if (virtio_has(&s->base.virtio, (enum virtio_feature)SCSI_F_HOTPLUG)) {
        tell(s, EVENT_TRANSPORT_RESET, u, RESET_RESCAN);
    }
}

static void unplugged(struct scsi_bus *bus, struct scsi_unit *u)
{
    struct virtio_scsi *s = container_of(bus, struct virtio_scsi, bus);
    if (virtio_has(&s->base.virtio, (enum virtio_feature)SCSI_F_HOTPLUG)) {
        tell(s, EVENT_TRANSPORT_RESET, u, RESET_REMOVED);
    }
}

static void changed(struct scsi_bus *bus, struct scsi_unit *u, uint8_t asc)
{
    struct virtio_scsi *s = container_of(bus, struct virtio_scsi, bus);
    if (virtio_has(&s->base.virtio, (enum virtio_feature)SCSI_F_CHANGE)) {
        tell(s, EVENT_PARAM_CHANGE, u, asc | (asc == ASC_CHANGED ? 9u << 8 : 0));
    }
}

/* ---- queues ---- */

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_scsi *s = of(v);
    struct virtio_element *e;
    if (queue == EVENT_QUEUE) {
        if (s->missed) {
            tell(s, 0, NULL, 0);
        }
        return;
    }
    image_plug();
    while ((e = virtio_pop(v, queue))) {
        if (queue == CONTROL_QUEUE) {
            control(s, e);
        } else {
            handle(s, container_of(e, struct scsi_chain, e));
        }
    }
    image_unplug();
    if (queue == CONTROL_QUEUE) {
        virtio_interrupt(v, queue);
    }
}

static void fill_sizes(struct virtio_scsi *s)
{
    le32_put(s->base.virtio.config + CFG_SENSE, SENSE_DEFAULT);
    le32_put(s->base.virtio.config + CFG_CDB, CDB_DEFAULT);
}

static void reset_queues(struct virtio *v)
{
    struct virtio_scsi *s = of(v);
    scsi_bus_drain(&s->bus, UINT_MAX, UINT_MAX);
    s->missed = false;
    fill_sizes(s);
}

static void config_written(struct virtio *v, unsigned at, unsigned bytes, uint32_t value)
{
    bool sense = at == CFG_SENSE && bytes == 4 && value <= SENSE_MAX;
    bool cdb = at == CFG_CDB && bytes == 4 && value <= CDB_MAX;
    if ((sense || cdb) && !(v->status & VIRTIO_DRIVER_OK)) {
        le32_put(v->config + at, value);
    }
}

static const struct virtio_model model = {
    .name = "virtio-scsi",
    .id = 8,
    .legacy_id = 0x1004,
    .element_bytes = sizeof(struct scsi_chain),
    .kick = kick,
    .reset = reset_queues,
    .config_written = config_written,
};

/* ---- life ---- */

static bool check_props(struct virtio_scsi *s, GError **error)
{
    const char *wrong = NULL;
    if (s->num_queues == AUTO_QUEUES) {
        s->num_queues = (uint32_t)CLAMP(s->base.pci.dev.board->cpus, 1,
                                        VIRTIO_QUEUES_MAX - REQUEST_QUEUES);
    }
    if (s->queue_size < 4 || s->queue_size > VIRTIO_QUEUE_SIZE_MAX ||
        (s->queue_size & (s->queue_size - 1))) {
        wrong = "virtqueue_size is a power of two from 4 to 1024";
    } else if (!s->num_queues || s->num_queues > VIRTIO_QUEUES_MAX - REQUEST_QUEUES) {
        wrong = "num_queues is from 1 to 62";
    }
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    }
    return !wrong;
}

static bool start(struct device *dev, GError **error)
{
    struct virtio_scsi *s = container_of(dev, struct virtio_scsi, base.pci.dev);
    struct virtio *v = &s->base.virtio;
    uint8_t *c = v->config;
    if (!check_props(s, error)) {
        return false;
    }
    v->model = &model;
    v->nqueues = s->num_queues + REQUEST_QUEUES;
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->queue_size_max[i] = (uint16_t)s->queue_size;
    }
    v->config_bytes = CONFIG_BYTES;
    v->offered = VIRTIO_BIT(SCSI_F_HOTPLUG) | VIRTIO_BIT(SCSI_F_CHANGE);
    le32_put(c + CFG_QUEUES, s->num_queues);
    le32_put(c + CFG_SEG_MAX, s->queue_size - 2);
    le32_put(c + CFG_MAX_SECTORS, s->max_sectors);
    le32_put(c + CFG_PER_LUN, s->per_lun);
    le32_put(c + CFG_EVENT_BYTES, EVENT_BYTES);
    le16_put(c + CFG_TARGET, TARGETS - 1);
    le32_put(c + CFG_LUN, LUNS - 1);
    fill_sizes(s);
    if (!virtio_pci_start(&s->base, error)) {
        return false;
    }
    if (!virtio_use_iothread(v, s->iothread, error)) {
        virtio_pci_stop(dev);
        return false;
    }
    s->bus = (struct scsi_bus){.targets = TARGETS, .luns = LUNS, .plugged = plugged,
                               .unplugged = unplugged, .changed = changed};
    scsi_bus_add(&s->bus, dev);
    return true;
}

static void stop(struct device *dev)
{
    struct virtio_scsi *s = container_of(dev, struct virtio_scsi, base.pci.dev);
    scsi_bus_drain(&s->bus, UINT_MAX, UINT_MAX);
    scsi_bus_remove(&s->bus);
    virtio_pci_stop(dev);
}

/* What the guest may set decides where in a chain the data begin. */
static bool loaded(struct device *dev, GError **error)
{
    struct virtio_scsi *s = container_of(dev, struct virtio_scsi, base.pci.dev);
    if (config_value(s, CFG_SENSE) > SENSE_MAX || config_value(s, CFG_CDB) > CDB_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "headers are larger than can be");
        return false;
    }
    return virtio_pci_loaded(dev, error);
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_scsi, base),
    STATE(struct virtio_scsi, missed),
};

#define P(field) offsetof(struct virtio_scsi, field)
static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_scsi, base),
    {"num_queues", PROP_U32, P(num_queues), AUTO_QUEUES, .help = "without: one a CPU"},
    {"virtqueue_size", PROP_U32, P(queue_size), QUEUE_SIZE},
    {"max_sectors", PROP_U32, P(max_sectors), 0xffff},
    {"cmd_per_lun", PROP_U32, P(per_lun), 128},
    {"iothread", PROP_STRING, P(iothread), .help = "id of the -object iothread"},
};

static const struct pci_ident ident = {
    .vendor = 0x1af4, .device = 0x1004, .class = 0x010000, .irq_pin = 1};

const struct device_model model_virtio_scsi = {
    .name = "virtio-scsi-pci",
    .alias = "virtio-scsi",
    .about = "SCSI controller behind virtio queues",
    .spec = "OASIS VIRTIO 1.2, \"SCSI Host Device\"",
    .size = sizeof(struct virtio_scsi),
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
    .loaded = loaded,
};
