/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The xHCI and what sits on it, by a driver in miniature: rings, contexts, doorbells. */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "guest/device/xhci.h"

enum { DCBAA = 0x1000, COMMANDS = 0x2000, EVENTS = 0x3000, TABLE = 0x4000, INPUT = 0x5000, CONTEXT = 0x6000,
       RING0 = 0x10000, RING_BYTES = 0x1000, DATA = 0x40000, EVENTS_N = 64 };
enum { OPERATIONAL = 0x40, RUNTIME = 0x1020, DOORBELLS = 0x2000, BAR = 0xe0000000 };

struct host {
    struct rig *rig;
    struct device *dev;
    uint64_t command, event, ring[XHCI_ENDPOINTS];
    unsigned cycle;
};

static uint8_t *ram(struct host *h, uint64_t at)
{
    return h->rig->ram->host + at;
}

static uint32_t get(struct host *h, unsigned at)
{
    return (uint32_t)space_load(h->rig->board->memory, BAR + at, 4);
}

static void put(struct host *h, unsigned at, uint32_t value)
{
    space_store(h->rig->board->memory, BAR + at, value, 4);
}

static void put_trb(struct host *h, uint64_t at, uint64_t parameter, uint32_t status, uint32_t control)
{
    le64_put(ram(h, at), parameter);
    le32_put(ram(h, at + 8), status);
    le32_put(ram(h, at + 12), control | 1);
}

static struct device *plug(struct host *h, const char *model, bool drive)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(device_model_find(model));
    if (drive) {
        assert_works(device_give(dev, "drive", rig_disk(h->rig), &error), error);
    }
    assert_works(device_start(dev, h->rig->board, NULL, &error), error);
    return dev;
}

static void host_open(struct host *h)
{
    memset(h, 0, sizeof(*h));
    clock_start();
    h->rig = rig_new();
    h->dev = rig_start(h->rig, rig_device(h->rig, "qemu-xhci"));
    struct pci_device *pci = (struct pci_device *)h->dev;
    pci_config_write(&h->rig->bus, 0, pci->devfn, PCI_BAR0, BAR, 4);
    pci_config_write(&h->rig->bus, 0, pci->devfn, PCI_COMMAND, 7, 2);
}

static void host_start(struct host *h)
{
    put(h, OPERATIONAL, CMD_RESET);
    memset(ram(h, DCBAA), 0, DATA - DCBAA);
    h->command = COMMANDS;
    h->event = EVENTS;
    h->cycle = 1;
    for (unsigned i = 0; i < XHCI_ENDPOINTS; i++) {
        h->ring[i] = RING0 + i * RING_BYTES;
    }
    le64_put(ram(h, TABLE), EVENTS);
    le32_put(ram(h, TABLE + 8), EVENTS_N);
    put(h, OPERATIONAL + 0x38, 8);
    put(h, OPERATIONAL + 0x30, DCBAA);
    put(h, OPERATIONAL + 0x18, COMMANDS | 1);
    put(h, RUNTIME + 8, 1);
    put(h, RUNTIME + 0x18, EVENTS);
    put(h, RUNTIME + 0x10, TABLE);
    put(h, RUNTIME, 2);
    put(h, OPERATIONAL, CMD_RUN | CMD_INTERRUPTS);
}

static void host_close(struct host *h)
{
    rig_free(h->rig);
}

static bool next_event(struct host *h, struct trb *t)
{
    const uint8_t *e = ram(h, h->event);
    *t = (struct trb){h->event, le64_at(e), le32_at(e + 8), le32_at(e + 12)};
    if ((t->control & 1) != h->cycle) {
        return false;
    }
    h->event += TRB_BYTES;
    if (h->event == EVENTS + EVENTS_N * TRB_BYTES) {
        h->event = EVENTS;
        h->cycle ^= 1;
    }
    put(h, RUNTIME + 0x18, (uint32_t)h->event | 8);
    return true;
}

/* The next event of @type, which must come; others are passed over. */
static struct trb expect(struct host *h, enum trb_type type)
{
    struct trb t;
    for (unsigned i = 0; i < 200; i++) {
        while (next_event(h, &t)) {
            if (trb_type(&t) == type) {
                return t;
            }
        }
        rig_drain();
    }
    fail_msg("no event of type %u", type);
    return t;
}

static unsigned command(struct host *h, uint64_t parameter, uint32_t control, unsigned *slot)
{
    put_trb(h, h->command, parameter, 0, control);
    h->command += TRB_BYTES;
    put(h, DOORBELLS, 0);
    struct trb t = expect(h, TRB_COMMAND_DONE);
    if (slot) {
        *slot = t.control >> 24;
    }
    return t.status >> 24;
}

static void queue(struct host *h, unsigned endpoint, uint64_t parameter, uint32_t status, uint32_t control)
{
    put_trb(h, h->ring[endpoint], parameter, status, control);
    h->ring[endpoint] += TRB_BYTES;
}

static void input_endpoint(struct host *h, unsigned endpoint)
{
    uint8_t *c = ram(h, INPUT + (endpoint + 1) * CONTEXT_BYTES);
    le64_put(c + 8, h->ring[endpoint] | 1);
    le32_put(ram(h, INPUT + 4), le32_at(ram(h, INPUT + 4)) | 1u << endpoint);
}

/* Resets port @port and brings its device up, with endpoints @mask besides 0; its slot. */
static unsigned bring_up(struct host *h, unsigned port, uint32_t mask)
{
    unsigned slot = 0;
    put(h, 0x440 + 16 * (port - 1), 1 << 9 | 1 << 4);
    assert_int_equal(get(h, 0x440 + 16 * (port - 1)) & 3, 3);
    assert_int_equal(command(h, 0, TRB_ENABLE_SLOT << 10, &slot), CC_SUCCESS);
    le64_put(ram(h, DCBAA + 8 * slot), CONTEXT + 0x800 * (slot - 1));
    memset(ram(h, INPUT), 0, 0x800);
    le32_put(ram(h, INPUT + 4), 3);
    le32_put(ram(h, INPUT + CONTEXT_BYTES + 4), port << 16);
    input_endpoint(h, 1);
    assert_int_equal(command(h, INPUT, TRB_ADDRESS << 10 | slot << 24, NULL), CC_SUCCESS);
    le32_put(ram(h, INPUT + 4), 1);
    for (unsigned i = 2; i < XHCI_ENDPOINTS; i++) {
        if (mask >> i & 1) {
            input_endpoint(h, i);
        }
    }
    assert_int_equal(command(h, INPUT, TRB_CONFIGURE << 10 | slot << 24, NULL), CC_SUCCESS);
    return slot;
}

/* A control transfer; the event's code, and bytes that were not moved in @left. */
static unsigned control(struct host *h, unsigned slot, const uint8_t setup[8], uint32_t *left)
{
    unsigned n = le16_at(setup + 6);
    bool in = setup[0] & 0x80;
    queue(h, 1, le64_at(setup), 8, TRB_SETUP << 10 | TRB_IMMEDIATE);
    if (n) {
        queue(h, 1, DATA, n, TRB_DATA << 10 | TRB_ISP | (in ? TRB_DIR_IN : 0));
    }
    queue(h, 1, 0, 0, TRB_STATUS << 10 | TRB_IOC);
    put(h, DOORBELLS + 4 * slot, 1);
    struct trb t = expect(h, TRB_TRANSFER_EVENT);
    if (left) {
        *left = t.status & 0xffffff;
    }
    if (t.status >> 24 == CC_SHORT) {
        t = expect(h, TRB_TRANSFER_EVENT);
    }
    return t.status >> 24;
}
#define SETUP(...) (const uint8_t[8]){__VA_ARGS__}

static void a_tablet_tells_where_it_is(void **state)
{
    struct host h;
    struct trb t;
    (void)state;
    host_open(&h);
    struct device *tablet = plug(&h, "usb-tablet", false);
    host_start(&h);
    unsigned slot = bring_up(&h, 1, 1 << 3);
    uint32_t left = 0;
    assert_int_equal(control(&h, slot, SETUP(0x80, 6, 0, 1, 0, 0, 64, 0), &left), CC_SUCCESS);
    assert_int_equal(left, 64 - 18);
    assert_memory_equal(ram(&h, DATA), "\x12\x01\x00\x02", 4);
    assert_false(h.rig->board->display->pointer_absolute);
    assert_int_equal(control(&h, slot, SETUP(0, 9, 1, 0, 0, 0, 0, 0), NULL), CC_SUCCESS);
    assert_true(h.rig->board->display->pointer_absolute);
    queue(&h, 3, DATA, 8, TRB_NORMAL << 10 | TRB_IOC | TRB_ISP);
    put(&h, DOORBELLS + 4 * slot, 3);
    assert_false(next_event(&h, &t));
    g_autoptr(GBytes) saved = device_save(tablet); /* in the middle of the transfer */
    g_autoptr(GBytes) saved_host = device_save(h.dev);
    device_reset(tablet);
    device_reset(h.dev);
    g_autoptr(GError) error = NULL;
    assert_works(device_load(h.dev, saved_host, &error), error);
    assert_works(device_load(tablet, saved, &error), error);
    put(&h, RUNTIME, 2);
    display_pointer(h.rig->board->display, 0x1234, 0x7fff, 0, 4);
    t = expect(&h, TRB_TRANSFER_EVENT);
    assert_int_equal(t.status >> 24, CC_SHORT);
    assert_int_equal(t.status & 0xffffff, 2);
    assert_memory_equal(ram(&h, DATA), "\x02\x34\x12\xff\x7f\x00", 6);
    device_free(tablet);
    expect(&h, TRB_PORT_EVENT);
    assert_false(h.rig->board->display->pointer_absolute);
    host_close(&h);
}

static void a_keyboard_reports_keys(void **state)
{
    struct host h;
    (void)state;
    host_open(&h);
    plug(&h, "usb-kbd", false);
    host_start(&h);
    unsigned slot = bring_up(&h, 1, 1 << 3);
    assert_int_equal(control(&h, slot, SETUP(0, 9, 1, 0, 0, 0, 0, 0), NULL), CC_SUCCESS);
    display_key(h.rig->board->display, 0x2a, true);
    display_key(h.rig->board->display, 0x1e, true);
    display_key(h.rig->board->display, 0x1e, false);
    static const uint8_t reports[3][8] = {{2}, {2, 0, 4}, {2}};
    for (unsigned i = 0; i < 3; i++) {
        queue(&h, 3, DATA, 8, TRB_NORMAL << 10 | TRB_IOC);
        put(&h, DOORBELLS + 4 * slot, 3);
        assert_int_equal(expect(&h, TRB_TRANSFER_EVENT).status, CC_SUCCESS << 24);
        assert_memory_equal(ram(&h, DATA), reports[i], 8);
    }
    assert_int_equal(control(&h, slot, SETUP(0xc0, 1, 0, 0, 0, 0, 8, 0), NULL), CC_STALL);
    host_close(&h);
}

/* One SCSI command by the bulk-only transport; the status byte of its wrapper. */
static unsigned bulk(struct host *h, unsigned slot, const uint8_t *cdb, unsigned n, uint32_t bytes, bool in)
{
    uint8_t *cbw = ram(h, DATA + 0x8000), *csw = ram(h, DATA + 0x9000);
    memset(cbw, 0, 31);
    le32_put(cbw, 0x43425355);
    le32_put(cbw + 4, 99);
    le32_put(cbw + 8, bytes);
    cbw[12] = in ? 0x80 : 0;
    cbw[14] = (uint8_t)n;
    memcpy(cbw + 15, cdb, n);
    queue(h, 4, DATA + 0x8000, 31, TRB_NORMAL << 10 | TRB_IOC);
    put(h, DOORBELLS + 4 * slot, 4);
    assert_int_equal(expect(h, TRB_TRANSFER_EVENT).status >> 24, CC_SUCCESS);
    unsigned ep = in ? 3 : 4;
    if (bytes) { /* in two parts */
        queue(h, ep, DATA, bytes / 2, TRB_NORMAL << 10 | TRB_CHAIN);
        queue(h, ep, DATA + bytes / 2, bytes - bytes / 2, TRB_NORMAL << 10 | TRB_IOC);
        put(h, DOORBELLS + 4 * slot, ep);
        expect(h, TRB_TRANSFER_EVENT);
    }
    queue(h, 3, DATA + 0x9000, 13, TRB_NORMAL << 10 | TRB_IOC);
    put(h, DOORBELLS + 4 * slot, 3);
    assert_int_equal(expect(h, TRB_TRANSFER_EVENT).status >> 24, CC_SUCCESS);
    assert_int_equal(le32_at(csw), 0x53425355);
    assert_int_equal(le32_at(csw + 4), 99);
    return csw[12];
}

static void a_disk_is_read_and_written(void **state)
{
    struct host h;
    (void)state;
    rig_disk_fill();
    host_open(&h);
    plug(&h, "usb-storage", true);
    host_start(&h);
    unsigned slot = bring_up(&h, 1, 1 << 3 | 1 << 4);
    assert_int_equal(control(&h, slot, SETUP(0, 9, 1, 0, 0, 0, 0, 0), NULL), CC_SUCCESS);
    static const uint8_t ready[6], sense[6] = {3, 0, 0, 0, 18}, read[10] = {0x28, 0, 0, 0, 0, 8, 0, 0, 8},
                         write[10] = {0x2a, 0, 0, 0, 0, 8, 0, 0, 8}, flush[10] = {0x35};
    assert_int_equal(bulk(&h, slot, ready, 6, 0, false), 1); /* it was reset */
    assert_int_equal(bulk(&h, slot, sense, 6, 18, true), 0);
    assert_int_equal(ram(&h, DATA)[2], 6);
    assert_int_equal(bulk(&h, slot, ready, 6, 0, false), 0);
    assert_int_equal(bulk(&h, slot, read, 10, 4096, true), 0);
    for (unsigned i = 0; i < 4096; i++) {
        unsigned at = 8 * 512 + i;
        assert_int_equal(ram(&h, DATA)[i], (uint8_t)(at + at / 512));
    }
    memset(ram(&h, DATA), 0x77, 4096);
    assert_int_equal(bulk(&h, slot, write, 10, 4096, false), 0);
    assert_int_equal(bulk(&h, slot, flush, 10, 0, false), 0);
    uint8_t back[4096];
    assert_int_equal(image_read(h.rig->disk, 8 * 512, back, sizeof(back)), 0);
    assert_memory_equal(back, ram(&h, DATA), 4096);
    host_close(&h);
}

/* Rings, contexts and doorbells at random: nothing may come of them but events. */
static void hostile_rings_do_no_harm(void **state)
{
    struct host h;
    struct trb t;
    uint64_t seed = 0x9e3779b97f4a7c15;
    (void)state;
    rig_disk_fill();
    host_open(&h);
    plug(&h, "usb-storage", true);
    plug(&h, "usb-kbd", false);
    for (unsigned round = 0; round < 60; round++) {
        host_start(&h);
        unsigned slot = bring_up(&h, 1 + round % 2, 1 << 3 | 1 << 4);
        control(&h, slot, SETUP(0, 9, 1, 0, 0, 0, 0, 0), NULL);
        for (unsigned i = 0; i < 200; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            unsigned ep = seed >> 60 & 3 ? 1 + (seed >> 40 & 3) : 0;
            uint32_t type = seed >> 44 & 1 ? TRB_NORMAL + (seed >> 45) % 8 : 9 + (seed >> 45) % 10;
            uint64_t at = ep ? RING0 + ep * RING_BYTES + (seed >> 30 & 0x3f) * TRB_BYTES
                             : COMMANDS + (seed >> 30 & 0x3f) * TRB_BYTES;
            put_trb(&h, at, seed >> 20 & 1 ? DATA : RING0 + (seed >> 8 & 0xffff0), seed >> 16 & 0x1ffff,
                    type << 10 | (seed >> 3 & 0x3fe) | (uint32_t)(slot << 24) | (uint32_t)(seed >> 50 & 0x1f) << 16);
            put(&h, DOORBELLS + 4 * (ep ? slot : 0), ep);
            if (seed >> 55 & 1) {
                display_key(h.rig->board->display, 0x1e, i & 1);
            }
            while (next_event(&h, &t)) {
            }
        }
        rig_drain();
    }
    host_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tablet_tells_where_it_is), cmocka_unit_test(a_keyboard_reports_keys),
        cmocka_unit_test(a_disk_is_read_and_written), cmocka_unit_test(hostile_rings_do_no_harm),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
