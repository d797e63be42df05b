/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "base/util.h"
#include "guest/device/virtio.h"
#include "host/image/image.h"

#include <glib/gstdio.h>
#include <stdlib.h>

enum { RAM_BYTES = 1 << 20, DISK_BYTES = 1 << 20, QUEUE = 16 };
enum { DESC_AT = 0x1000, AVAIL_AT = 0x2000, USED_AT = 0x3000, HEADER_AT = 0x4000,
       STATUS_AT = 0x4100, DATA_AT = 0x5000, TABLE_AT = 0x8000 };
enum { BAR4 = 0xe0000000, BAR1 = 0xe1000000, BAR0 = 0xc000 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

/* A machine of RAM, a PCI bus and one virtio disk, and what a driver keeps. */
static struct {
    struct board *board;
    struct pci_bus bus;
    struct ram *ram;
    struct region ram_region;
    struct device *dev;
    Image *disk;
    char *path;
    uint8_t slot;
    uint16_t avail, used;
    unsigned interrupts;
    bool line;
} m;

static void set_irq(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level)
{
    (void)bus, (void)devfn, (void)pin;
    m.interrupts += level && !m.line;
    m.line = level;
}

static void set_cfg(unsigned at, uint32_t value, unsigned bytes)
{
    pci_config_write(&m.bus, 0, m.slot, at, value, bytes);
}

static uint32_t reg(unsigned at, unsigned bytes)
{
    return (uint32_t)space_load(m.board->memory, BAR4 + at, bytes);
}

static void set_reg(unsigned at, uint32_t value, unsigned bytes)
{
    space_store(m.board->memory, BAR4 + at, value, bytes);
}

static Image *drive_by_id(const char *id)
{
    return image_find(id);
}

static void open_disk(void)
{
    g_autoptr(GError) error = NULL;
    m.path = g_strdup("/tmp/lodge-test-virtio-XXXXXX");
    autofd int fd = g_mkstemp(m.path);
    g_autofree uint8_t *data = g_malloc(DISK_BYTES);
    for (unsigned i = 0; i < DISK_BYTES; i++) {
        data[i] = (uint8_t)(i + i / 512);
    }
    assert_int_equal(write(fd, data, DISK_BYTES), DISK_BYTES);
    m.disk = image_open(&(struct image_options){.id = "d0", .file = m.path, .format = "raw",
                                                .discard = true}, &error);
    assert_works(m.disk != NULL, error);
}

static struct device *make_disk(void)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(device_model_find("virtio-blk-pci"));
    assert_works(device_set(dev, "drive", "d0", &error), error);
    assert_works(device_set(dev, "serial", "serial-1", &error), error);
    assert_works(device_set(dev, "queue-size", "16", &error), error);
    assert_works(device_start(dev, m.board, "disk", &error), error);
    return dev;
}

static int set_up(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    memset(&m, 0, sizeof(m));
    open_disk();
    m.board = board_new();
    m.board->backends.drive = drive_by_id;
    m.ram = ram_new("ram", RAM_BYTES, NULL, &error);
    m.ram_region = (struct region){.name = "ram", .size = RAM_BYTES, .ram = m.ram};
    space_place(m.board->memory, &m.ram_region, 0, 0);
    pci_bus_init(&m.bus, m.board, "pci.0", false);
    m.bus.set_irq = set_irq;
    m.board->pci = &m.bus;
    m.dev = make_disk();
    m.slot = ((struct pci_device *)m.dev)->devfn;
    set_cfg(PCI_BAR0, BAR0, 4);
    set_cfg(PCI_BAR0 + 4, BAR1, 4);
    set_cfg(PCI_BAR0 + 16, BAR4, 4);
    set_cfg(PCI_COMMAND, 7, 2);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    board_free(m.board);
    image_close(m.disk);
    g_unlink(m.path);
    g_free(m.path);
    ram_free(m.ram);
    return 0;
}

/* ---- the driver ---- */

static void negotiate(uint64_t wanted)
{
    set_reg(20, 0, 1);
    set_reg(20, 1, 1);
    set_reg(20, 3, 1);
    for (unsigned i = 0; i < 2; i++) {
        set_reg(0, i, 4);
        set_reg(8, i, 4);
        set_reg(12, reg(4, 4) & (uint32_t)(wanted >> 32 * i), 4);
    }
    set_reg(20, 11, 1);
    assert_int_equal(reg(20, 1), 11);
    memset(m.ram->host, 0, DATA_AT);
    m.avail = m.used = 0;
    set_reg(22, 0, 2);
    assert_int_equal(reg(24, 2), QUEUE);
    set_reg(32, DESC_AT, 4);
    set_reg(40, AVAIL_AT, 4);
    set_reg(48, USED_AT, 4);
    set_reg(28, 1, 2);
    set_reg(20, 15, 1);
    assert_int_equal(reg(20, 1), 15);
}

static void desc_in(uint64_t table, unsigned i, uint64_t at, uint32_t bytes, unsigned flags,
                    unsigned next)
{
    uint8_t *d = m.ram->host + table + 16 * i;
    le64_put(d, at);
    le32_put(d + 8, bytes);
    le16_put(d + 12, (uint16_t)flags);
    le16_put(d + 14, (uint16_t)next);
}

static void desc(unsigned i, uint64_t at, uint32_t bytes, unsigned flags, unsigned next)
{
    desc_in(DESC_AT, i, at, bytes, flags, next);
}

static void offer(unsigned head)
{
    le16_put(m.ram->host + AVAIL_AT + 4 + 2 * (m.avail % QUEUE), (uint16_t)head);
    le16_put(m.ram->host + AVAIL_AT + 2, ++m.avail);
}

static void kick(void)
{
    set_reg(0x3000, 0, 2);
}

static void header(uint32_t type, uint64_t sector)
{
    le32_put(m.ram->host + HEADER_AT, type);
    le64_put(m.ram->host + HEADER_AT + 8, sector);
    m.ram->host[STATUS_AT] = 0xff;
}

static bool finished(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (le16_at(m.ram->host + USED_AT + 2) != m.used) {
            m.used++;
            return true;
        }
        image_drain_all();
    }
    return false;
}

static unsigned transfer(uint32_t type, uint64_t sector, uint32_t bytes)
{
    bool reads = type == 0 || type == 8;
    header(type, sector);
    desc(0, HEADER_AT, 16, NEXT, 1);
    desc(1, DATA_AT, bytes, NEXT | (reads ? WRITE : 0), 2);
    desc(2, STATUS_AT, 1, WRITE, 0);
    if (!bytes) {
        desc(0, HEADER_AT, 16, NEXT, 2);
    }
    offer(0);
    kick();
    assert_true(finished());
    return m.ram->host[STATUS_AT];
}

#define EVENT_IDX VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define MODERN VIRTIO_BIT(VIRTIO_F_VERSION_1)

static void a_modern_driver_reads_and_writes(void **state)
{
    (void)state;
    uint8_t buf[1024];
    negotiate(UINT64_MAX & ~EVENT_IDX);
    assert_int_equal(reg(0x2000, 4), DISK_BYTES / 512);
    assert_int_equal(transfer(0, 2, 1024), 0);
    assert_int_equal(image_read(m.disk, 1024, buf, 1024), 0);
    assert_memory_equal(m.ram->host + DATA_AT, buf, 1024);
    assert_true(m.line);
    assert_int_equal(reg(0x1000, 1), 1);
    assert_false(m.line);
    memset(m.ram->host + DATA_AT, 0x77, 512);
    assert_int_equal(transfer(1, 9, 512), 0);
    assert_int_equal(image_read(m.disk, 9 * 512, buf, 512), 0);
    assert_int_equal(buf[0] & buf[511], 0x77);
    assert_int_equal(transfer(4, 0, 0), 0);
    assert_int_equal(transfer(8, 0, 20), 0);
    assert_string_equal((char *)m.ram->host + DATA_AT, "serial-1");
    assert_int_equal(transfer(99, 0, 512), 2);
    assert_int_equal(transfer(0, DISK_BYTES / 512, 512), 1);
    assert_int_equal(transfer(0, UINT64_MAX - 1, 512), 1);
    assert_int_equal(transfer(0, 0, 511), 1);
    uint8_t *range = m.ram->host + DATA_AT;
    le64_put(range, 9);
    le32_put(range + 8, 1);
    le32_put(range + 12, 0);
    assert_int_equal(transfer(13, 0, 16), 0);
    assert_int_equal(image_read(m.disk, 9 * 512, buf, 512), 0);
    assert_int_equal(buf[0] | buf[511], 0);
    assert_int_equal(transfer(11, 0, 16), 0);
}

static void indirect_tables_work(void **state)
{
    (void)state;
    negotiate(UINT64_MAX);
    header(0, 4);
    desc_in(TABLE_AT, 0, HEADER_AT, 16, NEXT, 1);
    desc_in(TABLE_AT, 1, DATA_AT, 512, NEXT | WRITE, 2);
    desc_in(TABLE_AT, 2, DATA_AT + 512, 513, WRITE, 0); /* the status follows the data */
    desc(5, TABLE_AT, 48, INDIRECT, 0);
    m.ram->host[DATA_AT + 1024] = 0xff;
    offer(5);
    kick();
    assert_true(finished());
    assert_int_equal(m.ram->host[DATA_AT + 1024], 0);
    assert_int_equal(m.ram->host[DATA_AT], (uint8_t)(2048 + 4));
    assert_int_equal(le32_at(m.ram->host + USED_AT + 4), 5);
    assert_int_equal(le32_at(m.ram->host + USED_AT + 8), 1025);
}

static void interrupts_come_when_the_driver_wants_them(void **state)
{
    (void)state;
    negotiate(UINT64_MAX & ~EVENT_IDX);
    le16_put(m.ram->host + AVAIL_AT, 1); /* no interrupts, please */
    assert_int_equal(transfer(0, 0, 512), 0);
    assert_false(m.line);
    negotiate(UINT64_MAX);
    le16_put(m.ram->host + AVAIL_AT + 4 + 2 * QUEUE, 2); /* only when the third is used */
    assert_int_equal(transfer(0, 0, 512), 0);
    assert_int_equal(transfer(0, 0, 512), 0);
    assert_false(m.line);
    assert_int_equal(transfer(0, 0, 512), 0);
    assert_true(m.line);
    assert_int_equal(le16_at(m.ram->host + USED_AT + 4 + 8 * QUEUE), 3); /* where it wants a kick */
}

static void a_legacy_driver_works(void **state)
{
    (void)state;
    struct space *io = m.board->ports;
    space_store(io, BAR0 + 18, 3, 1);
    space_store(io, BAR0 + 4, space_load(io, BAR0, 4) & 0x200, 4); /* FLUSH */
    assert_int_equal(space_load(io, BAR0 + 12, 2), QUEUE);
    memset(m.ram->host, 0, DATA_AT);
    space_store(io, BAR0 + 8, DESC_AT >> 12, 4);
    space_store(io, BAR0 + 18, 7, 1);
    assert_int_equal(space_load(io, BAR0 + 20, 4), DISK_BYTES / 512);
    header(0, 3);
    desc(0, HEADER_AT, 16, NEXT, 1);
    desc(1, DATA_AT, 512, NEXT | WRITE, 2);
    desc(2, STATUS_AT, 1, WRITE, 0);
    uint8_t *avail = m.ram->host + DESC_AT + 16 * QUEUE;
    le16_put(avail + 2, 1);
    space_store(io, BAR0 + 16, 0, 2);
    image_drain_all();
    assert_int_equal(le16_at(m.ram->host + DESC_AT + 0x1000 + 2), 1);
    assert_int_equal(m.ram->host[STATUS_AT], 0);
    assert_int_equal(m.ram->host[DATA_AT], (uint8_t)(3 * 512 + 3));
    assert_int_equal(space_load(io, BAR0 + 19, 1), 1);
    space_store(io, BAR0 + 18, 0, 1);
    assert_int_equal(space_load(io, BAR0 + 8, 4), 0);
}

struct bad_chain {
    const char *what;
    uint64_t at;
    uint32_t bytes;
    unsigned flags, next;
};

static void chains_that_cannot_be_need_a_reset(void **state)
{
    (void)state;
    static const struct bad_chain bad[] = {
        {"a loop", HEADER_AT, 16, NEXT, 0},
        {"an index outside", HEADER_AT, 16, NEXT, 300},
        {"a wild address", UINT64_C(0xdead00000000), 16, 0, 0},
        {"an address that wraps", UINT64_MAX - 3, 64, 0, 0},
        {"a length beyond RAM", HEADER_AT, UINT32_MAX, 0, 0},
        {"an odd indirect table", TABLE_AT, 17, INDIRECT, 0},
        {"an empty indirect table", TABLE_AT, 0, INDIRECT, 0},
        {"an indirect table outside RAM", RAM_BYTES - 16, 32, INDIRECT, 0},
        {"no header", HEADER_AT, 8, 0, 0},
        {"no status", HEADER_AT, 16, 0, 0},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        negotiate(UINT64_MAX);
        desc(0, bad[i].at, bad[i].bytes, bad[i].flags, bad[i].next);
        offer(0);
        kick();
        assert_int_equal(reg(20, 1), 15 | VIRTIO_NEEDS_RESET);
        kick();
        assert_int_equal(le16_at(m.ram->host + USED_AT + 2), 0);
    }
    negotiate(UINT64_MAX);
    assert_int_equal(transfer(0, 0, 512), 0); /* as good as new */
    le16_put(m.ram->host + AVAIL_AT + 2, 1000);
    kick();
    assert_int_equal(reg(20, 1), 15 | VIRTIO_NEEDS_RESET);
}

static void registers_show_through_configuration_space(void **state)
{
    (void)state;
    unsigned at = pci_config_read(&m.bus, 0, m.slot, PCI_CAPABILITIES, 1);
    while (pci_config_read(&m.bus, 0, m.slot, at, 1) != PCI_CAP_VENDOR ||
           pci_config_read(&m.bus, 0, m.slot, at + 3, 1) != 5) {
        at = pci_config_read(&m.bus, 0, m.slot, at + 1, 1);
        assert_true(at != 0);
    }
    set_cfg(at + 4, 4, 1);
    set_cfg(at + 8, 0x2000, 4);
    set_cfg(at + 12, 4, 4);
    assert_int_equal(pci_config_read(&m.bus, 0, m.slot, at + 16, 4), DISK_BYTES / 512);
    set_cfg(at + 8, 20, 4);
    set_cfg(at + 12, 1, 4);
    set_cfg(at + 16, 3, 1);
    assert_int_equal(reg(20, 1), 3);
    set_cfg(at + 8, 0xfffffffc, 4); /* outside: nothing happens */
    set_cfg(at + 12, 4, 4);
    set_cfg(at + 16, 3, 4);
    pci_config_read(&m.bus, 0, m.slot, at + 16, 4);
}

static void features_that_were_not_offered_are_refused(void **state)
{
    (void)state;
    set_reg(20, 3, 1);
    set_reg(8, 1, 4);
    set_reg(12, 1 | 1u << 30, 4);
    set_reg(20, 11, 1);
    assert_int_equal(reg(20, 1), 3);
}

static void state_moves_between_machines(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    negotiate(UINT64_MAX);
    assert_int_equal(transfer(0, 0, 512), 0);
    g_autoptr(GBytes) saved = device_save(m.dev);
    set_reg(20, 0, 1);
    assert_works(device_load(m.dev, saved, &error), error);
    assert_int_equal(transfer(0, 1, 512), 0);
    assert_int_equal(m.ram->host[DATA_AT], (uint8_t)(512 + 1));
    assert_int_equal(m.avail, 2);
}

static void a_reset_waits_for_requests(void **state)
{
    (void)state;
    negotiate(UINT64_MAX);
    for (unsigned i = 0; i < 5; i++) {
        header(0, i);
        desc(3 * i, HEADER_AT, 16, NEXT, 3 * i + 1);
        desc(3 * i + 1, DATA_AT + i * 512, 512, NEXT | WRITE, 3 * i + 2);
        desc(3 * i + 2, STATUS_AT, 1, WRITE, 0);
        offer(3 * i);
    }
    kick();
    set_reg(20, 0, 1);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    negotiate(UINT64_MAX);
    assert_int_equal(transfer(0, 0, 512), 0);
}

/* Whatever lies in the rings, nothing crashes and a reset cures it. */
static void random_rings_are_survived(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(20);
    for (unsigned round = 0; round < 3000; round++) {
        negotiate(UINT64_MAX);
        for (unsigned i = 0; i < QUEUE; i++) {
            desc(i, g_rand_int_range(rand, 0, RAM_BYTES + 4096),
                 (uint32_t)g_rand_int_range(rand, 0, 1 << g_rand_int_range(rand, 1, 16)),
                 (unsigned)g_rand_int_range(rand, 0, 8), (unsigned)g_rand_int_range(rand, 0, 18));
        }
        for (unsigned i = 0; i < 64; i++) {
            m.ram->host[HEADER_AT + i * 16] = (uint8_t)g_rand_int_range(rand, 0, 14);
        }
        for (int i = g_rand_int_range(rand, 1, QUEUE); i > 0; i--) {
            offer((unsigned)g_rand_int_range(rand, 0, QUEUE));
        }
        kick();
        if (round % 3 == 0) {
            image_drain_all();
        }
    }
    negotiate(UINT64_MAX);
    assert_int_equal(transfer(0, 0, 512), 0);
}

static void random_register_writes_are_survived(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(21);
    for (unsigned round = 0; round < 100000; round++) {
        unsigned at = (unsigned)g_rand_int_range(rand, 0, 64) +
                      (unsigned)g_rand_int_range(rand, 0, 4) * 0x1000;
        unsigned bytes = 1u << g_rand_int_range(rand, 0, 3);
        if (round % 5 == 0) {
            space_load(m.board->memory, BAR4 + at, bytes);
            space_load(m.board->ports, BAR0 + (at & 63), bytes);
        } else if (round % 2) {
            space_store(m.board->memory, BAR4 + at, g_rand_int(rand), bytes);
        } else {
            space_store(m.board->ports, BAR0 + (at & 63), g_rand_int(rand), bytes);
        }
    }
    negotiate(UINT64_MAX);
    assert_int_equal(transfer(0, 0, 512), 0);
}

#define VTEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        VTEST(a_modern_driver_reads_and_writes),
        VTEST(indirect_tables_work),
        VTEST(interrupts_come_when_the_driver_wants_them),
        VTEST(a_legacy_driver_works),
        VTEST(chains_that_cannot_be_need_a_reset),
        VTEST(registers_show_through_configuration_space),
        VTEST(features_that_were_not_offered_are_refused),
        VTEST(state_moves_between_machines),
        VTEST(a_reset_waits_for_requests),
        VTEST(random_rings_are_survived),
        VTEST(random_register_writes_are_survived),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
