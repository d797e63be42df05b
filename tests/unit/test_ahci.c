/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "guest/device/ata.h"

enum { HBA = 0xe0000000, LISTS = 0x1000, FISES = 0x2000, TABLES = 0x4000, DATA = 0x20000 };
enum { PORT0 = 0x100, PORT1 = 0x180 };

static struct rig *rig;
static struct device *hba;
static Image *cd;

static uint32_t get(unsigned at)
{
    return (uint32_t)space_load(rig->board->memory, HBA + at, 4);
}

static void set(unsigned at, uint32_t value)
{
    space_store(rig->board->memory, HBA + at, value, 4);
}

static void start_port(unsigned port, unsigned n)
{
    set(port + 0x00, LISTS + 0x400 * n);
    set(port + 0x08, FISES + 0x100 * n);
    set(port + 0x14, 0x7dc000ff);
    set(port + 0x18, 0x10);
    set(port + 0x18, 0x11);
}

static int set_up(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    rig = rig_new();
    rig_disk_fill();
    cd = image_open(&(struct image_options){.id = "cd", .file = rig_disk_path(), .format = "raw",
                                            .read_only = true, .lock_off = true}, &error);
    assert_works(cd != NULL, error);
    hba = rig_start(rig, rig_device(rig, "ich9-ahci"));
    assert_works(ata_attach(rig->board, "ide.0", 0, rig_disk(rig), false, &error), error);
    assert_works(ata_attach(rig->board, "ide.1", 0, cd, true, &error), error);
    unsigned devfn = ((struct pci_device *)hba)->devfn;
    pci_config_write(&rig->bus, 0, devfn, PCI_BAR0 + 20, HBA, 4);
    pci_config_write(&rig->bus, 0, devfn, PCI_COMMAND, 6, 2);
    set(4, 1);
    set(4, 2);
    start_port(PORT0, 0);
    start_port(PORT1, 1);
    rig_drain();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_free(rig);
    image_close(cd);
    return 0;
}

/* A command with two pieces of memory, the first 1,000 bytes long. */
static void command(unsigned n, unsigned slot, const uint8_t *fis, uint32_t bytes, uint32_t to,
                    const uint8_t *packet)
{
    uint8_t *ram = rig->ram->host, *header = ram + LISTS + 0x400 * n + 32 * slot;
    unsigned table = TABLES + 0x100 * (slot + 32 * n), first = MIN(bytes, 1000u);
    memset(header, 0, 32);
    le16_put(header, (uint16_t)(5 | (packet ? 0x20 : 0)));
    le16_put(header + 2, bytes > first ? 2 : bytes ? 1 : 0);
    le32_put(header + 8, table);
    memset(ram + table, 0, 0x100);
    memcpy(ram + table, fis, 20);
    if (packet) {
        memcpy(ram + table + 0x40, packet, 12);
    }
    le32_put(ram + table + 0x80, to);
    le32_put(ram + table + 0x8c, first - 1);
    le32_put(ram + table + 0x90, to + first);
    le32_put(ram + table + 0x9c, bytes - first - 1);
}

static void issue(unsigned port, uint32_t slots)
{
    set(port + 0x38, slots);
    rig_drain();
}

static void assert_data(uint32_t to, uint64_t from, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        assert_int_equal(rig->ram->host[to + i], (uint8_t)(from + i + (from + i) / 512));
    }
}

static void ports_show_their_drives(void **state)
{
    (void)state;
    assert_int_equal(get(0x0c), 0x3f);
    assert_int_equal(get(PORT0 + 0x28), 0x113);
    assert_int_equal(get(PORT0 + 0x24), 0x101);
    assert_int_equal(get(PORT1 + 0x24), 0xeb140101);
    assert_int_equal(get(0x200 + 0x28), 0);
    assert_int_equal(get(PORT0 + 0x20) & 0x89, 0);
}

static void a_disk_identifies_itself_by_pio(void **state)
{
    (void)state;
    const uint8_t identify[20] = {0x27, 0x80, 0xec};
    command(0, 3, identify, 512, DATA, NULL);
    issue(PORT0, 8);
    assert_int_equal(get(PORT0 + 0x38), 0);
    assert_int_equal(get(PORT0 + 0x10) & 2, 2);
    assert_int_equal(get(8), 1);
    assert_true(rig->intx != 0);
    assert_int_equal(le32_at(rig->ram->host + DATA + 120), RIG_DISK / 512);
    assert_int_equal(le16_at(rig->ram->host + DATA + 150), 31);
    assert_int_equal(le32_at(rig->ram->host + LISTS + 3 * 32 + 4), 512);
    set(PORT0 + 0x10, UINT32_MAX);
    set(8, 1);
    assert_true(rig->intx == 0);
}

static void sectors_are_read_by_dma_and_pio(void **state)
{
    (void)state;
    const uint8_t dma[20] = {0x27, 0x80, 0x25, 0, 9, 0, 0, 0x40, 0, 0, 0, 0, 60};
    const uint8_t pio[20] = {0x27, 0x80, 0x24, 0, 7, 0, 0, 0x40, 0, 0, 0, 0, 100};
    const uint8_t beyond[20] = {0x27, 0x80, 0x25, 0, 9, 0, 0, 0x40, 9, 0, 0, 0, 60};
    command(0, 0, dma, 60 * 512, DATA, NULL);
    command(0, 1, pio, 100 * 512, DATA + 0x10000, NULL);
    issue(PORT0, 3); /* one after the other */
    assert_int_equal(get(PORT0 + 0x38), 0);
    assert_int_equal(get(PORT0 + 0x10) & 3, 3);
    assert_data(DATA, 9 * 512, 60 * 512);
    assert_data(DATA + 0x10000, 7 * 512, 100 * 512);
    command(0, 2, beyond, 60 * 512, DATA, NULL);
    issue(PORT0, 4);
    assert_true(get(PORT0 + 0x10) & 1u << 30);
    assert_int_equal(get(PORT0 + 0x38), 4);
    assert_int_equal(get(PORT0 + 0x20) & 1, 1);
    set(PORT0 + 0x18, 0x10);
    assert_int_equal(get(PORT0 + 0x38), 0);
}

static void queued_commands_run_together(void **state)
{
    (void)state;
    uint8_t fis[20] = {0x27, 0x80, 0x60, 4, 0, 0, 0, 0x40};
    for (unsigned i = 0; i < 32; i++) {
        fis[4] = (uint8_t)(i * 4);
        fis[12] = (uint8_t)(i << 3);
        command(0, i, fis, 2048, DATA + 2048 * i, NULL);
    }
    set(PORT0 + 0x34, UINT32_MAX);
    issue(PORT0, UINT32_MAX);
    assert_int_equal(get(PORT0 + 0x38), 0);
    assert_int_equal(get(PORT0 + 0x34), 0);
    assert_int_equal(get(PORT0 + 0x10) & 8, 8);
    assert_data(DATA, 0, 32 * 2048);
    fis[2] = 0x61;
    fis[4] = 200;
    memset(rig->ram->host + DATA, 0x66, 2048);
    command(0, 0, fis, 2048, DATA, NULL);
    set(PORT0 + 0x34, 1);
    issue(PORT0, 1);
    uint8_t back[2048];
    assert_int_equal(image_read(rig_disk(rig), 200 * 512, back, sizeof(back)), 0);
    assert_memory_equal(back, rig->ram->host + DATA, sizeof(back));
    fis[9] = 1; /* beyond the end */
    command(0, 5, fis, 2048, DATA, NULL);
    set(PORT0 + 0x34, 1 << 5);
    issue(PORT0, 1 << 5);
    assert_true(get(PORT0 + 0x10) & 1u << 30);
    assert_int_equal(get(PORT0 + 0x34), 1 << 5);
}

static void a_cd_takes_packets(void **state)
{
    (void)state;
    const uint8_t pio[20] = {0x27, 0x80, 0xa0, 0, 0, 0xfe, 0xff}, dma[20] = {0x27, 0x80, 0xa0, 1};
    const uint8_t capacity[12] = {0x25}, read[12] = {0x28, 0, 0, 0, 0, 2, 0, 0, 30};
    command(1, 0, pio, 8, DATA, capacity);
    issue(PORT1, 1);
    assert_int_equal(be32_at(rig->ram->host + DATA), RIG_DISK / 2048 - 1);
    assert_int_equal(get(PORT1 + 0x38), 0);
    command(1, 1, dma, 30 * 2048, DATA, read);
    issue(PORT1, 2);
    assert_data(DATA, 2 * 2048, 30 * 2048);
    memset(rig->ram->host + DATA, 0, 30 * 2048);
    command(1, 2, pio, 30 * 2048, DATA, read);
    issue(PORT1, 4);
    assert_data(DATA, 2 * 2048, 30 * 2048);
    assert_int_equal(get(PORT1 + 0x38), 0);
}

static void a_software_reset_leaves_the_signature(void **state)
{
    (void)state;
    uint8_t fis[20] = {0x27, 0};
    fis[15] = 4;
    command(1, 0, fis, 0, DATA, NULL);
    issue(PORT1, 1);
    fis[15] = 0;
    command(1, 0, fis, 0, DATA, NULL);
    issue(PORT1, 1);
    assert_int_equal(get(PORT1 + 0x24), 0xeb140101);
    assert_int_equal(rig->ram->host[FISES + 0x100 + 0x40], 0x34);
    assert_int_equal(get(PORT1 + 0x20) & 0x89, 0);
}

static void random_commands_are_survived(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);
    static const uint8_t codes[] = {0x20, 0x24, 0x25, 0x34, 0x35, 0x60, 0x61, 0xa0, 0xec,
                                    0xc4, 0xc5, 0x06, 0xa1, 0x08, 0xe7, 0x2f};
    for (unsigned round = 0; round < 4000; round++) {
        uint8_t fis[20] = {0x27, 0x80}, packet[12];
        unsigned slot = (unsigned)g_rand_int_range(rand, 0, 32), n = g_rand_int(rand) & 1;
        for (unsigned i = 3; i < 16; i++) {
            fis[i] = (uint8_t)(g_rand_int(rand) & g_rand_int(rand) & g_rand_int(rand));
        }
        for (unsigned i = 0; i < 12; i++) {
            packet[i] = (uint8_t)(g_rand_int(rand) & g_rand_int(rand));
        }
        fis[1] = g_rand_int(rand) & 7 ? 0x80 : 0;
        fis[2] = codes[g_rand_int(rand) % G_N_ELEMENTS(codes)];
        command(n, slot, fis, g_rand_int(rand) % 70000 + 1, DATA + (g_rand_int(rand) & 0xfffff),
                packet);
        unsigned port = n ? PORT1 : PORT0;
        set(port + 0x34, 1u << slot);
        set(port + 0x38, 1u << slot);
        if (!(g_rand_int(rand) & 7)) {
            set(port + (g_rand_int(rand) & 0x3c), g_rand_int(rand) & g_rand_int(rand));
        }
        if (!(g_rand_int(rand) & 3)) {
            rig_drain();
        }
        if (get(port + 0x10) & 1u << 30 || !(g_rand_int(rand) & 15)) {
            set(port + 0x18, 0);
            set(port + 0x10, UINT32_MAX);
            start_port(port, n);
        }
    }
    rig_drain();
}

#define ATEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ATEST(ports_show_their_drives),
        ATEST(a_disk_identifies_itself_by_pio),
        ATEST(sectors_are_read_by_dma_and_pio),
        ATEST(queued_commands_run_together),
        ATEST(a_cd_takes_packets),
        ATEST(a_software_reset_leaves_the_signature),
        ATEST(random_commands_are_survived),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
