/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SCSI drives behind virtio-scsi, seen by a driver. */
#include "tests/unit/vdriver.h"

#include "guest/device/scsi.h"
#include "guest/time/clock.h"

#include <glib/gstdio.h>

enum { DISK = 1 << 20, BLOCK = 512, HEAD = 51, RESPONSE = 108, REQUESTS = 2 };
enum { STATUS_CHECK = 2, BAD_TARGET = 3 };

struct bench {
    struct vdriver v;
    char *path;
    Image *disk, *cd;
    struct device *hd, *drive;
    uint64_t request, response, data;
};

struct result {
    uint8_t response, status, key, asc;
    uint32_t residual;
};

static struct device *unit(struct bench *b, const char *model, Image *img, const char *target)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(device_model_find(model));
    assert_works(device_give(dev, "drive", img, &error), error);
    assert_works(device_set(dev, "scsi-id", target, &error), error);
    assert_works(device_set(dev, "serial", "S123", &error), error);
    assert_works(device_start(dev, b->v.board, NULL, &error), error);
    return dev;
}

static void bench_open(struct bench *b)
{
    g_autoptr(GError) error = NULL;
    memset(b, 0, sizeof(*b));
    vd_plug(&b->v, "virtio-scsi-pci", NULL);
    vd_plugged(&b->v);
    b->path = g_strdup("/tmp/lodge-test-scsi-XXXXXX");
    int fd = g_mkstemp(b->path);
    assert_true(fd >= 0 && ftruncate(fd, DISK) == 0);
    close(fd);
    b->disk = image_open(&(struct image_options){.id = "d0", .file = b->path, .format = "raw",
                                                 .discard = true},
                         &error);
    assert_works(b->disk != NULL, error);
    b->cd = image_new_empty("c0");
    b->hd = unit(b, "scsi-hd", b->disk, "0");
    b->drive = unit(b, "scsi-cd", b->cd, "5");
    vd_start(&b->v, VIRTIO_BIT(1) | VIRTIO_BIT(2), 3);
    b->request = vd_alloc(&b->v, 64);
    b->response = vd_alloc(&b->v, RESPONSE);
    b->data = vd_alloc(&b->v, 65536);
}

static void bench_close(struct bench *b)
{
    vd_unplug(&b->v);
    image_close(b->disk);
    image_close(b->cd);
    g_unlink(b->path);
    g_free(b->path);
}

static void wait_for(struct bench *b, unsigned queue)
{
    uint32_t n;
    for (unsigned i = 0; i < 100 && !vd_used(&b->v, queue, &n); i++) {
        g_main_context_iteration(NULL, FALSE);
        image_drain_all();
    }
}

/* Sends @cdb to unit 0 of @target; @out and @in bytes of .data belong to it. */
static struct result command(struct bench *b, unsigned target, const uint8_t *cdb, size_t cdb_bytes,
                             uint32_t out, uint32_t in)
{
    uint8_t *m = vd_at(&b->v, b->request), *r = vd_at(&b->v, b->response);
    memset(m, 0, HEAD);
    memset(r, 0xee, RESPONSE);
    m[0] = 1;
    m[1] = (uint8_t)target;
    m[2] = 0x40;
    memcpy(m + 19, cdb, cdb_bytes);
    struct vd_part parts[5] = {{b->request, HEAD, false}};
    unsigned n = 1;
    if (out) {
        parts[n++] = (struct vd_part){b->data, out, false};
    }
    parts[n++] = (struct vd_part){b->response, RESPONSE, true};
    if (in) {
        parts[n++] = (struct vd_part){b->data, in, true};
    }
    vd_add(&b->v, REQUESTS, parts);
    vd_kick(&b->v, REQUESTS);
    wait_for(b, REQUESTS);
    return (struct result){.residual = le32_at(r + 4), .status = r[10], .response = r[11],
                           .key = r[12 + 2], .asc = r[12 + 12]};
}

#define CDB(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static void good(struct result r)
{
    assert_int_equal(r.response, 0);
    assert_int_equal(r.status, 0);
}

static void refused(struct result r, unsigned key, unsigned asc)
{
    assert_int_equal(r.response, 0);
    assert_int_equal(r.status, STATUS_CHECK);
    assert_int_equal(r.key, key);
    assert_int_equal(r.asc, asc);
}

static void ready(struct bench *b)
{
    refused(command(b, 0, CDB(0), 0, 0), KEY_ATTENTION, ASC_RESET);
    good(command(b, 0, CDB(0), 0, 0));
}

static void says_who_it_is(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b);
    const uint8_t *d = vd_at(&b.v, b.data);
    good(command(&b, 0, CDB(0x12, 0, 0, 0, 96), 0, 96));
    assert_memory_equal(d + 8, "LODGE   HARDDISK", 16);
    good(command(&b, 0, CDB(0x12, 1, 0x80, 0, 96), 0, 96));
    assert_int_equal(d[3], 4);
    assert_memory_equal(d + 4, "S123", 4);
    for (unsigned page = 0; page < 256; page++) {
        struct result r = command(&b, 0, CDB(0x12, 1, (uint8_t)page, 2, 0), 0, 512);
        bool known = page == 0 || page == 0x80 || page == 0x83 || (page >= 0xb0 && page <= 0xb2);
        assert_int_equal(r.status, known ? 0 : STATUS_CHECK);
    }
    good(command(&b, 5, CDB(0x12, 0, 0, 0, 36), 0, 36));
    assert_int_equal(d[0], 5);
    assert_int_equal(command(&b, 7, CDB(0x12, 0, 0, 0, 36), 0, 36).response, BAD_TARGET);
    good(command(&b, 0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), 0, 64));
    assert_int_equal(be32_at(d), 8);
    bench_close(&b);
}

static void what_was_written_is_read(void **state)
{
    struct bench b;
    uint64_t seed = 7;
    (void)state;
    bench_open(&b);
    ready(&b);
    uint8_t *d = vd_at(&b.v, b.data);
    good(command(&b, 0, CDB(0x25), 0, 8));
    assert_int_equal(be32_at(d), DISK / BLOCK - 1);
    good(command(&b, 0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 0, 32));
    assert_int_equal(be64_at(d), DISK / BLOCK - 1);
    g_autofree uint8_t *model = g_malloc0(DISK), *back = g_malloc(DISK);
    for (unsigned i = 0; i < 100; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned lba = seed >> 40 & 0x3ff, n = 1 + (seed >> 20 & 31), bytes = n * BLOCK;
        for (unsigned k = 0; k < bytes; k++) {
            d[k] = (uint8_t)(seed >> 16 ^ k * i);
        }
        memcpy(model + lba * BLOCK, d, bytes);
        uint8_t hi = (uint8_t)(lba >> 8), lo = (uint8_t)lba, c = (uint8_t)n;
        switch (i % 4) {
        case 0:
            good(command(&b, 0, CDB(0x0a, 0, hi, lo, c), bytes, 0));
            break;
        case 1:
            good(command(&b, 0, CDB(0x2a, 8, 0, 0, hi, lo, 0, 0, c), bytes, 0));
            break;
        case 2:
            good(command(&b, 0, CDB(0xaa, 0, 0, 0, hi, lo, 0, 0, 0, c), bytes, 0));
            break;
        default:
            good(command(&b, 0, CDB(0x8a, 0, 0, 0, 0, 0, 0, 0, hi, lo, 0, 0, 0, c), bytes, 0));
            break;
        }
        good(command(&b, 0, CDB(0x28, 0, 0, 0, hi, lo, 0, 0, c), 0, bytes));
        assert_memory_equal(d, model + lba * BLOCK, bytes);
    }
    good(command(&b, 0, CDB(0x35), 0, 0));
    assert_int_equal(image_read(b.disk, 0, back, DISK), 0);
    assert_memory_equal(back, model, DISK);
    bench_close(&b);
}

static void ranges_are_given_back(void **state)
{
    struct bench b;
    uint8_t back[BLOCK * 8];
    (void)state;
    bench_open(&b);
    ready(&b);
    uint8_t *d = vd_at(&b.v, b.data);
    memset(d, 0x5a, BLOCK * 64);
    good(command(&b, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 64), BLOCK * 64, 0));
    memset(d, 0, 40); /* two descriptors: blocks 8 to 15, and 32 to 39 */
    be16_put(d, 38);
    be16_put(d + 2, 32);
    be64_put(d + 8, 8);
    be32_put(d + 16, 8);
    be64_put(d + 24, 32);
    be32_put(d + 32, 8);
    good(command(&b, 0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40), 40, 0));
    memset(d, 0, BLOCK);
    good(command(&b, 0, CDB(0x93, 8, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 8), BLOCK, 0));
    d[3] = 1;
    refused(command(&b, 0, CDB(0x93, 8, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0, 8), BLOCK, 0), KEY_ILLEGAL,
            ASC_PARAMETER);
    for (unsigned at = 0; at < 64; at += 8) {
        bool zero = at == 8 || at == 32 || at == 48;
        assert_int_equal(image_read(b.disk, at * BLOCK, back, sizeof(back)), 0);
        assert_int_equal(back[0], zero ? 0 : 0x5a);
        assert_int_equal(back[sizeof(back) - 1], zero ? 0 : 0x5a);
    }
    bench_close(&b);
}

static void what_cannot_be_is_refused(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b);
    ready(&b);
    refused(command(&b, 0, CDB(0x28, 0, 0, 0, 8, 0, 0, 0, 1), 0, BLOCK), KEY_ILLEGAL, ASC_LBA_RANGE);
    refused(command(&b, 0, CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1), 0,
                    BLOCK), KEY_ILLEGAL, ASC_LBA_RANGE);
    refused(command(&b, 0, CDB(0xff), 0, 0), KEY_ILLEGAL, ASC_OPCODE);
    refused(command(&b, 0, CDB(0x1a, 0, 0x3e, 0, 64), 0, 64), KEY_ILLEGAL, ASC_FIELD);
    assert_int_equal(command(&b, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 8), 0, BLOCK).response, 1);
    refused(command(&b, 5, CDB(0), 0, 0), KEY_ATTENTION, ASC_RESET);
    refused(command(&b, 5, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048), KEY_NOT_READY, ASC_NO_MEDIUM);
    bench_close(&b);
}

static void the_cache_can_be_switched_off(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b);
    ready(&b);
    uint8_t *d = vd_at(&b.v, b.data);
    good(command(&b, 0, CDB(0x1a, 8, 0x08, 0, 64), 0, 64));
    assert_int_equal(d[4 + 2] & 4, 4);
    memset(d, 0, 24);
    d[4] = 8;
    d[5] = 18;
    good(command(&b, 0, CDB(0x15, 0x10, 0, 0, 24), 24, 0));
    good(command(&b, 0, CDB(0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 64), 0, 64));
    assert_int_equal(d[8 + 2] & 4, 0);
    good(command(&b, 0, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), BLOCK, 0));
    bench_close(&b);
}

static void a_disc_is_put_in(void **state)
{
    struct bench b;
    g_autoptr(GError) error = NULL;
    (void)state;
    bench_open(&b);
    command(&b, 5, CDB(0), 0, 0);
    uint64_t event = vd_alloc(&b.v, 16);
    vd_add(&b.v, 1, (struct vd_part[]){{event, 16, true}, {0}});
    assert_works(image_change(b.cd, &(struct image_options){.file = b.path, .format = "raw",
                                                            .read_only = true, .lock_off = true},
                              &error), error);
    assert_true(vd_used(&b.v, 1, NULL));
    assert_int_equal(le32_at(vd_at(&b.v, event)), 3);
    assert_int_equal(le32_at(vd_at(&b.v, event + 12)), ASC_MEDIUM_CHANGED);
    refused(command(&b, 5, CDB(0), 0, 0), KEY_ATTENTION, ASC_MEDIUM_CHANGED);
    good(command(&b, 5, CDB(0x25), 0, 8));
    assert_int_equal(be32_at(vd_at(&b.v, b.data)), DISK / 2048 - 1);
    good(command(&b, 5, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 4), 0, 8192));
    good(command(&b, 5, CDB(0x1a, 0, 0x2a, 0, 64), 0, 64));
    bench_close(&b);
}

static void units_come_and_go(void **state)
{
    struct bench b;
    g_autoptr(GError) error = NULL;
    (void)state;
    bench_open(&b);
    uint64_t event = vd_alloc(&b.v, 32);
    vd_add(&b.v, 1, (struct vd_part[]){{event, 16, true}, {0}});
    vd_add(&b.v, 1, (struct vd_part[]){{event + 16, 16, true}, {0}});
    Image *more = image_new_empty("c1");
    struct device *dev = unit(&b, "scsi-cd", more, "9");
    assert_true(vd_used(&b.v, 1, NULL));
    assert_int_equal(le32_at(vd_at(&b.v, event)), 1);
    assert_int_equal(vd_at(&b.v, event)[5], 9);
    assert_int_equal(le32_at(vd_at(&b.v, event + 12)), 1);
    good(command(&b, 9, CDB(0x12, 0, 0, 0, 36), 0, 36));
    struct device *twice = device_new(device_model_find("scsi-hd"));
    device_give(twice, "drive", b.disk, NULL);
    device_set(twice, "scsi-id", "9", NULL);
    assert_fails(device_start(twice, b.v.board, NULL, &error), error, EBUSY);
    device_free(dev);
    assert_true(vd_used(&b.v, 1, NULL));
    assert_int_equal(le32_at(vd_at(&b.v, event + 28)), 2);
    assert_int_equal(command(&b, 9, CDB(0x12, 0, 0, 0, 36), 0, 36).response, BAD_TARGET);
    image_close(more);
    bench_close(&b);
}

static void a_state_is_moved(void **state)
{
    struct bench b;
    g_autoptr(GError) error = NULL;
    (void)state;
    bench_open(&b);
    ready(&b);
    for (unsigned i = 0; i < 3; i++) {
        struct device *devs[] = {&b.v.dev->pci.dev, b.hd, b.drive};
        for (unsigned k = 0; k < 3; k++) {
            image_drain_all();
            g_autoptr(GBytes) saved = device_save(devs[k]);
            device_reset(devs[k]);
            assert_works(device_load(devs[k], saved, &error), error);
        }
        good(command(&b, 0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, BLOCK));
    }
    bench_close(&b);
}

/* Random command blocks and random chains: nothing may come of them but answers. */
static void hostile_requests_do_no_harm(void **state)
{
    struct bench b;
    uint64_t seed = 0x9e3779b97f4a7c15;
    (void)state;
    bench_open(&b);
    for (unsigned i = 0; i < 4000; i++) {
        uint8_t cdb[16];
        for (unsigned k = 0; k < 16; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            cdb[k] = (uint8_t)(seed >> 33 & (seed >> 45));
        }
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        cdb[0] = (uint8_t)(seed >> 50);
        unsigned out = seed >> 30 & 1 ? seed >> 32 & 0xfff : 0, in = seed >> 31 & 1 ? seed >> 20 & 0xfff : 0;
        command(&b, seed >> 60 & 1 ? 0 : 5, cdb, 16, out, in);
    }
    for (unsigned i = 0; i < 500; i++) { /* chains cut in odd places */
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct vd_part p[4] = {{b.data, (seed >> 20 & 63) + 1, false}, {b.data, (seed >> 30 & 127) + 1, true},
                               {b.data + 4096, (seed >> 40 & 1023) + 1, true}};
        vd_add(&b.v, REQUESTS, p);
        vd_kick(&b.v, REQUESTS);
        vd_add(&b.v, 0, p);
        vd_kick(&b.v, 0);
        image_drain_all();
        if (i % 8 == 0) {
            vd_start(&b.v, VIRTIO_BIT(1), 3);
            b.v.heap = b.data + 65536;
        }
    }
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_who_it_is),
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(ranges_are_given_back),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(the_cache_can_be_switched_off),
        cmocka_unit_test(a_disc_is_put_in),
        cmocka_unit_test(units_come_and_go),
        cmocka_unit_test(a_state_is_moved),
        cmocka_unit_test(hostile_requests_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
