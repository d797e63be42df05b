/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "base/util.h"
#include "guest/device/ata.h"
#include "guest/device/pci.h"

#include <glib/gstdio.h>
#include <stdlib.h>

enum { RAM_BYTES = 1 << 20, DISK_BYTES = 4 << 20, CD_BYTES = 1 << 20 };
enum { PRD_AT = 0x1000, DATA_AT = 0x10000, BM = 0xc000 };
enum { PRIMARY = 0x1f0, SECONDARY = 0x170 };

/* A machine of RAM, a PIIX3 IDE function, a disk as hda and a CD as hdc. */
static struct {
    struct board *board;
    struct pci_bus bus;
    struct ram *ram;
    struct region ram_region;
    struct device *ide;
    Image *disk, *cd;
    char *disk_path, *cd_path;
    struct irq irq[2];
    unsigned io; /* the channel under test */
} m;

static void note_irq(struct irq *irq, bool level)
{
    (void)irq, (void)level;
}

static void set_irq(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level)
{
    (void)bus, (void)devfn, (void)pin, (void)level;
}

static uint8_t byte_at(unsigned seed, uint64_t i)
{
    return (uint8_t)(seed + i * 3 + i / 512);
}

static Image *make_image(const char *id, char **path, uint64_t bytes, unsigned seed, bool read_only)
{
    g_autoptr(GError) error = NULL;
    *path = g_strdup("/tmp/lodge-test-ide-XXXXXX");
    autofd int fd = g_mkstemp(*path);
    g_autofree uint8_t *data = g_malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        data[i] = byte_at(seed, i);
    }
    assert_int_equal(write(fd, data, bytes), bytes);
    Image *img = image_open(
        &(struct image_options){.id = id, .file = *path, .format = "raw", .read_only = read_only},
        &error);
    assert_works(img != NULL, error);
    return img;
}

static int set_up(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    memset(&m, 0, sizeof(m));
    m.disk = make_image("disk", &m.disk_path, DISK_BYTES, 1, false);
    m.cd = make_image("cd", &m.cd_path, CD_BYTES, 77, true);
    m.board = board_new();
    m.ram = ram_new("ram", RAM_BYTES, NULL, &error);
    m.ram_region = (struct region){.name = "ram", .size = RAM_BYTES, .ram = m.ram};
    space_place(m.board->memory, &m.ram_region, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        m.irq[i].set = note_irq;
        m.board->isa_irq[14 + i] = &m.irq[i];
    }
    pci_bus_init(&m.bus, m.board, "pci.0", false);
    m.bus.set_irq = set_irq;
    m.board->pci = &m.bus;
    m.ide = device_new(device_model_find("piix3-ide"));
    assert_works(device_set(m.ide, "addr", "1.1", &error), error);
    assert_works(device_start(m.ide, m.board, "ide", &error), error);
    assert_works(ata_attach(m.board, "ide.0", 0, m.disk, false, &error), error);
    assert_works(ata_attach(m.board, "ide.1", 0, m.cd, true, &error), error);
    pci_config_write(&m.bus, 0, 9, PCI_BAR0 + 16, BM, 4);
    pci_config_write(&m.bus, 0, 9, PCI_COMMAND, 5, 2);
    m.io = PRIMARY;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    board_free(m.board);
    image_close(m.disk);
    image_close(m.cd);
    g_unlink(m.disk_path);
    g_unlink(m.cd_path);
    g_free(m.disk_path);
    g_free(m.cd_path);
    ram_free(m.ram);
    return 0;
}

/* ---- the driver ---- */

static void out(unsigned at, unsigned value)
{
    space_store(m.board->ports, m.io + at, value, 1);
}

static unsigned in(unsigned at)
{
    return (unsigned)space_load(m.board->ports, m.io + at, 1);
}

static struct irq *irq(void)
{
    return &m.irq[m.io == SECONDARY];
}

static unsigned settled_status(void)
{
    while (space_load(m.board->ports, m.io + 0x206, 1) & ATA_BSY) {
        image_drain_all();
    }
    return in(7);
}

static void command(unsigned code, uint32_t lba, unsigned count)
{
    out(6, 0xe0 | lba >> 24);
    out(2, count);
    out(3, lba & 0xff);
    out(4, lba >> 8 & 0xff);
    out(5, lba >> 16 & 0xff);
    out(7, code);
}

static void read_words(uint8_t *to, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2) {
        le16_put(to + i, (uint16_t)space_load(m.board->ports, m.io, 2));
    }
}

static void write_words(const uint8_t *from, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2) {
        space_store(m.board->ports, m.io, le16_at(from + i), 2);
    }
}

/* The guest memory for DMA: odd pieces, as a real list has them. */
static void make_prd(unsigned bytes)
{
    uint8_t *prd = m.ram->host + PRD_AT;
    unsigned at = DATA_AT, n = 0;
    for (unsigned left = bytes, step; left; left -= step, at += step, n++) {
        step = MIN(left, n % 2 ? 4096u : 1022u);
        le32_put(prd + 8 * n, at);
        le32_put(prd + 8 * n + 4, step | (step == left ? 1u << 31 : 0));
    }
    unsigned bm = m.io == PRIMARY ? BM : BM + 8;
    space_store(m.board->ports, bm, 0, 1);
    space_store(m.board->ports, bm + 4, PRD_AT, 4);
    space_store(m.board->ports, bm + 2, 6, 1);
}

static unsigned go_dma(bool to_memory)
{
    unsigned bm = m.io == PRIMARY ? BM : BM + 8;
    space_store(m.board->ports, bm, to_memory ? 9 : 1, 1);
    image_drain_all();
    unsigned status = (unsigned)space_load(m.board->ports, bm + 2, 1);
    space_store(m.board->ports, bm, to_memory ? 8 : 0, 1);
    return status & 7;
}

static void assert_pattern(const uint8_t *p, unsigned seed, uint64_t at, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        if (p[i] != byte_at(seed, at + i)) {
            fail_msg("byte %u is %02x", i, p[i]);
        }
    }
}

static void a_disk_identifies_itself(void **state)
{
    (void)state;
    uint8_t id[512];
    command(0xec, 0, 0);
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC | ATA_DRQ);
    read_words(id, sizeof(id));
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC);
    assert_int_equal(le32_at(id + 120), DISK_BYTES / 512);
    assert_int_equal(le64_at(id + 200), DISK_BYTES / 512);
    assert_memory_equal(id + 54, "OLGD EAHDRIDKS", 14);
    out(6, 0xb0); /* there is no second drive */
    assert_int_equal(in(7), 0);
    command(0xa0, 0, 0); /* and a disk takes no packets */
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
}

static void sectors_are_read_and_written_by_the_processor(void **state)
{
    (void)state;
    static uint8_t data[200 * 512], back[512];
    command(0x20, 5, 200);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(settled_status() & ATA_DRQ, ATA_DRQ);
        assert_false(irq()->level);
        read_words(data + 512 * i, 512);
        assert_true(i == 199 || (space_load(m.board->ports, 0x3f6, 1) & ATA_BSY) || irq()->level);
    }
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC);
    assert_pattern(data, 1, 5 * 512, sizeof(data));
    memset(data, 0xa5, sizeof(data));
    command(0x30, 7, 70);
    for (unsigned i = 0; i < 70; i++) {
        assert_int_equal(settled_status() & ATA_DRQ, ATA_DRQ);
        write_words(data, 512);
    }
    assert_int_equal(settled_status(), ATA_DRDY | ATA_DSC);
    assert_int_equal(image_read(m.disk, 76 * 512, back, 512), 0);
    assert_memory_equal(back, data, 512);
    assert_int_equal(image_read(m.disk, 77 * 512, back, 512), 0);
    assert_pattern(back, 1, 77 * 512, 512);
}

static void several_sectors_are_a_block(void **state)
{
    (void)state;
    static uint8_t data[20 * 512];
    command(0xc6, 0, 8);
    command(0xc4, 3, 20);
    for (unsigned done = 0; done < 20; done += 8) {
        assert_int_equal(settled_status() & ATA_DRQ, ATA_DRQ);
        read_words(data + 512 * done, MIN(20 - done, 8) * 512);
    }
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC);
    assert_pattern(data, 1, 3 * 512, sizeof(data));
    command(0xc6, 0, 5);
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
}

/* What INS does: many reads at once, of words or double words, in parts that end anywhere. */
static void many_reads_at_once(void **state)
{
    (void)state;
    static uint8_t data[4 * 512 + 4];
    for (unsigned bytes = 2; bytes <= 4; bytes += 2) {
        command(0x20, 9, 4);
        memset(data, 0, sizeof(data));
        for (unsigned i = 0; i < 4; i++) {
            uint8_t *to = data + 512 * i;
            assert_int_equal(settled_status() & ATA_DRQ, ATA_DRQ);
            space_load_many(m.board->ports, m.io, bytes, to, 3);
            to += 3 * bytes;
            uint64_t one = space_load(m.board->ports, m.io, bytes);
            memcpy(to, &one, bytes);
            space_load_many(m.board->ports, m.io, bytes, to + bytes, 512 / bytes - 4);
        }
        assert_int_equal(settled_status(), ATA_DRDY | ATA_DSC);
        assert_pattern(data, 1, 9 * 512, 4 * 512);
        space_load_many(m.board->ports, m.io, bytes, data, 2); /* nothing is there */
        assert_int_equal(le32_at(data), 0);
    }
}

static void dma_reads_and_writes(void **state)
{
    (void)state;
    uint8_t back[512];
    make_prd(128 * 512);
    command(0xc8, 100, 128);
    assert_int_equal(go_dma(true), 4);
    assert_true(irq()->level);
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC);
    assert_false(irq()->level);
    assert_pattern(m.ram->host + DATA_AT, 1, 100 * 512, 128 * 512);
    memset(m.ram->host + DATA_AT, 0x3c, 128 * 512);
    make_prd(128 * 512);
    command(0xca, 200, 128);
    assert_int_equal(go_dma(false), 4);
    assert_int_equal(image_read(m.disk, 327 * 512, back, 512), 0);
    assert_int_equal(back[0] & back[511], 0x3c);
    assert_int_equal(image_read(m.disk, 328 * 512, back, 512), 0);
    assert_pattern(back, 1, 328 * 512, 512);
}

static void sectors_beyond_the_end_are_not_found(void **state)
{
    (void)state;
    command(0x20, DISK_BYTES / 512 - 1, 2);
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
    assert_int_equal(in(1), ATA_ABRT | ATA_IDNF);
    command(0x24, 0, 0); /* 48 bits: 65536 sectors */
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
}

/* ---- packets ---- */

static void packet(const uint8_t *p, unsigned limit, bool dma)
{
    uint8_t raw[12] = {0};
    memcpy(raw, p, 12);
    out(6, 0xa0);
    out(1, dma);
    out(4, limit & 0xff);
    out(5, limit >> 8);
    out(7, 0xa0);
    assert_int_equal(in(7) & ATA_DRQ, ATA_DRQ);
    assert_int_equal(in(2), 1);
    write_words(raw, 12);
}

static unsigned take_answer(uint8_t *to)
{
    unsigned n = 0;
    while (settled_status() & ATA_DRQ) {
        unsigned block = in(4) | in(5) << 8;
        assert_int_equal(in(2), 2);
        read_words(to + n, block);
        n += block;
    }
    assert_int_equal(in(2), 3);
    return n;
}

static unsigned sense(void)
{
    static const uint8_t request[12] = {3, 0, 0, 0, 18};
    uint8_t s[18];
    packet(request, 18, false);
    assert_int_equal(take_answer(s), 18);
    return s[2] << 8 | s[12];
}

static void a_cd_is_read(void **state)
{
    (void)state;
    static uint8_t data[40 * 2048];
    static const uint8_t capacity[12] = {0x25};
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 40};
    static const uint8_t beyond[12] = {0x28, 0, 0, 0, 0xff, 3, 0, 0, 40};
    static const uint8_t odd[12] = {0xff};
    m.io = SECONDARY;
    command(0xec, 0, 0);
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
    assert_int_equal(in(4) | in(5) << 8, 0xeb14);
    packet(capacity, 8, false);
    assert_int_equal(take_answer(data), 8);
    assert_int_equal(be32_at(data), CD_BYTES / 2048 - 1);
    packet(read, 0xfffe, false);
    assert_int_equal(take_answer(data), sizeof(data));
    assert_pattern(data, 77, 3 * 2048, sizeof(data));
    packet(read, 2048, false);
    assert_int_equal(take_answer(data), sizeof(data));
    assert_pattern(data, 77, 3 * 2048, sizeof(data));
    make_prd(sizeof(data));
    packet(read, 0, true);
    assert_int_equal(go_dma(true), 4);
    assert_pattern(m.ram->host + DATA_AT, 77, 3 * 2048, sizeof(data));
    packet(beyond, 2048, false);
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
    assert_int_equal(sense(), 0x521);
    packet(odd, 2048, false);
    assert_int_equal(in(7) & ATA_ERR, ATA_ERR);
    assert_int_equal(sense(), 0x520);
}

static void discs_come_and_go(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    uint8_t data[64];
    static const uint8_t ready[12] = {0}, event[12] = {0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8};
    m.io = SECONDARY;
    packet(ready, 0, false);
    assert_int_equal(settled_status(), ATA_DRDY | ATA_DSC);
    image_eject(m.cd);
    packet(ready, 0, false);
    assert_int_equal(settled_status() & ATA_ERR, ATA_ERR);
    assert_int_equal(sense(), 0x23a);
    packet(event, 8, false);
    assert_int_equal(take_answer(data), 8);
    assert_int_equal(data[4] << 8 | data[5], 0x300);
    assert_works(
        image_change(m.cd, &(struct image_options){.file = m.cd_path, .read_only = true}, &error),
        error);
    packet(ready, 0, false);
    assert_int_equal(settled_status() & ATA_ERR, ATA_ERR);
    assert_int_equal(sense(), 0x628);
    packet(ready, 0, false);
    assert_int_equal(settled_status() & ATA_ERR, 0);
}

static void the_table_of_contents_has_one_track(void **state)
{
    (void)state;
    uint8_t data[64];
    static const uint8_t toc[12] = {0x43, 0, 0, 0, 0, 0, 0, 0, 64};
    m.io = SECONDARY;
    packet(toc, 64, false);
    assert_int_equal(take_answer(data), 20);
    assert_int_equal(be16_at(data), 18);
    assert_int_equal(data[14], 0xaa);
    assert_int_equal(be32_at(data + 16), CD_BYTES / 2048);
}

/* ---- state, hostility ---- */

static void a_transfer_goes_on_after_a_load(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    static uint8_t data[4 * 512];
    struct device *drive = board_find(m.board, "ide.0.0");
    command(0x20, 9, 4);
    settled_status();
    read_words(data, 700);
    g_autoptr(GBytes) a = device_save(m.ide), b = device_save(drive);
    device_reset(m.ide);
    device_reset(drive);
    assert_works(device_load(m.ide, a, &error), error);
    assert_works(device_load(drive, b, &error), error);
    read_words(data + 700, sizeof(data) - 700);
    assert_pattern(data, 1, 9 * 512, sizeof(data));
    assert_int_equal(in(7), ATA_DRDY | ATA_DSC);
}

static void random_accesses_are_survived(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(8);
    for (unsigned i = 0; i < 200000; i++) {
        unsigned at = (unsigned)g_rand_int_range(rand, 0, 8), v = g_rand_int(rand) & 0xff;
        m.io = g_rand_boolean(rand) ? PRIMARY : SECONDARY;
        switch (g_rand_int_range(rand, 0, 12)) {
        case 0:
            space_store(m.board->ports, m.io + 0x206, v & 0x86, 1);
            break;
        case 1:
            space_store(m.board->ports, BM + (g_rand_int(rand) & 15), v, 1);
            break;
        case 2:
            le32_put(m.ram->host + PRD_AT + (g_rand_int(rand) & 0xff8),
                     g_rand_int(rand) & 0x1fffff);
            space_store(m.board->ports, BM + (v & 8) + 4, PRD_AT, 4);
            break;
        case 3:
            image_drain_all();
            break;
        case 4:
        case 5:
            for (unsigned n = 0; n < 6; n++) {
                space_store(m.board->ports, m.io, g_rand_int(rand) & 0xff3f, 2);
            }
            break;
        case 6:
            space_load(m.board->ports, m.io + at, 1u << g_rand_int_range(rand, 0, 3));
            break;
        case 7: {
            static const uint8_t codes[] = {0x20, 0x25, 0x35, 0xa0, 0xec, 0xc8, 0xca, 0x06,
                                            0xc4, 0xc5, 0xc6, 0x24, 0x34, 0xa1, 0x08};
            out(7, codes[v % G_N_ELEMENTS(codes)]);
            break;
        }
        default:
            out(at, v);
            break;
        }
    }
    image_drain_all();
    m.io = PRIMARY;
    device_reset(m.ide);
    board_reset(m.board);
    a_disk_identifies_itself(state);
}

#define ITEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        ITEST(a_disk_identifies_itself),
        ITEST(sectors_are_read_and_written_by_the_processor),
        ITEST(several_sectors_are_a_block),
        ITEST(many_reads_at_once),
        ITEST(dma_reads_and_writes),
        ITEST(sectors_beyond_the_end_are_not_found),
        ITEST(a_cd_is_read),
        ITEST(discs_come_and_go),
        ITEST(the_table_of_contents_has_one_track),
        ITEST(a_transfer_goes_on_after_a_load),
        ITEST(random_accesses_are_survived),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
