/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/lock.h"
#include "base/util.h"
#include "host/image/chain.h"
#include "host/image/image.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MIB = 1 << 20 };

/* A file of @bytes bytes, each of which says where it is. */
static char *make_file(uint64_t bytes)
{
    char *path = g_strdup("/tmp/lodge-test-image-XXXXXX");
    autofd int fd = g_mkstemp(path);
    g_autofree uint8_t *data = g_malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i * 7 + i / 512);
    }
    assert_int_equal(write(fd, data, bytes), bytes);
    return path;
}

static void drop_file(char *path)
{
    g_unlink(path);
    g_free(path);
}

static Image *open_image(const struct image_options *opts)
{
    g_autoptr(GError) error = NULL;
    Image *img = image_open(opts, &error);
    assert_works(img != NULL, error);
    return img;
}

struct waiter {
    struct image_request req;
    int result;
    bool over;
};

static void note_done(struct image_request *req, int result)
{
    struct waiter *w = container_of(req, struct waiter, req);
    w->result = result;
    w->over = true;
}

static int run(Image *img, enum image_op op, uint64_t offset, const struct iovec *iov, unsigned n)
{
    struct waiter w = {.req = {.op = op, .offset = offset, .iov = iov, .niov = n,
                               .done = note_done}};
    for (unsigned i = 0; i < n; i++) {
        w.req.bytes += iov[i].iov_len;
    }
    image_submit(img, &w.req);
    assert_false(w.over); /* never inside the call */
    while (!w.over) {
        g_main_context_iteration(NULL, TRUE);
    }
    return w.result;
}

static int run_range(Image *img, enum image_op op, uint64_t offset, uint64_t bytes)
{
    struct waiter w = {.req = {.op = op, .offset = offset, .bytes = bytes, .done = note_done}};
    image_submit(img, &w.req);
    while (!w.over) {
        g_main_context_iteration(NULL, TRUE);
    }
    return w.result;
}

static void requests_move_bytes(const char *aio, bool direct)
{
    char *path = make_file(MIB);
    g_autoptr(json_t) o = aio ? json_pack("{s:s}", "aio", aio) : NULL;
    Image *img = open_image(&(struct image_options){
        .id = "a", .file = path, .format = "raw", .options = o, .direct = direct, .discard = true});
    static uint8_t a[40000], b[40000], c[80000];
    for (unsigned i = 0; i < sizeof(a); i++) {
        a[i] = (uint8_t)(i * 13);
        b[i] = (uint8_t)(i * 31);
    }
    struct iovec iov[] = {{a, sizeof(a)}, {b, sizeof(b)}}, in = {c, sizeof(c)};
    assert_int_equal(run(img, IMAGE_WRITE, 1536, iov, 2), 0);
    assert_int_equal(run(img, IMAGE_READ, 1536, &in, 1), 0);
    assert_memory_equal(c, a, sizeof(a));
    assert_memory_equal(c + sizeof(a), b, sizeof(b));
    assert_int_equal(run_range(img, IMAGE_FLUSH, 0, 0), 0);
    assert_int_equal(run_range(img, IMAGE_ZERO, 4096, 8192), 0);
    assert_int_equal(image_read(img, 4095, c, 8194), 0);
    assert_int_equal(c[0], a[4095 - 1536]);
    for (unsigned i = 1; i <= 8192; i++) {
        assert_int_equal(c[i], 0);
    }
    assert_int_equal(c[8193], a[4096 + 8192 - 1536]);
    assert_int_equal(run_range(img, IMAGE_DISCARD, 0, 65536), 0);
    struct iovec one = {c, 512};
    assert_int_equal(run(img, IMAGE_READ, MIB, &one, 1), -EIO);
    assert_int_equal(run(img, IMAGE_WRITE, UINT64_MAX - 511, &one, 1), -EIO);
    struct image_stats stats = image_stats(img);
    assert_int_equal(stats.wr_bytes, 80000);
    image_close(img);
    drop_file(path);
}

static void requests_work_through_io_uring(void **state)
{
    (void)state;
    requests_move_bytes(NULL, false);
}

static void requests_work_through_threads(void **state)
{
    (void)state;
    requests_move_bytes("threads", false);
}

static void requests_without_page_cache_work_at_any_alignment(void **state)
{
    (void)state;
    char *path = make_file(512);
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    drop_file(path);
    if (fd < 0) {
        skip(); /* an old tmpfs */
    }
    close(fd);
    requests_move_bytes(NULL, true);
    requests_move_bytes("threads", true);
}

static void many_requests_are_under_way_at_once(void **state)
{
    (void)state;
    enum { N = 600 };
    char *path = make_file(N * 512);
    Image *img = open_image(&(struct image_options){.id = "a", .file = path, .format = "raw"});
    static struct waiter w[N];
    static uint8_t data[N][512];
    static struct iovec iov[N];
    image_plug();
    for (unsigned i = 0; i < N; i++) {
        iov[i] = (struct iovec){data[i], 512};
        w[i] = (struct waiter){.req = {.op = IMAGE_READ, .offset = i * 512, .bytes = 512,
                                       .iov = &iov[i], .niov = 1, .done = note_done}};
        image_submit(img, &w[i].req);
    }
    image_unplug();
    image_drain_all();
    for (unsigned i = 0; i < N; i++) {
        assert_true(w[i].over);
        assert_int_equal(w[i].result, 0);
        assert_int_equal(data[i][5], (uint8_t)((i * 512 + 5) * 7 + i));
    }
    image_close(img);
    drop_file(path);
}

/* A disk of 1 MiB whose first read makes a block of what is below its own. */
static void what_was_read_is_copied(void **state)
{
    enum { SIZE = MIB, BLOCK = 65536 };
    g_autoptr(GError) error = NULL;
    char *base = make_file(SIZE), *top = make_file(1);
    g_autofree uint8_t *data = g_malloc(BLOCK);
    struct chain_create how = {.name = top, .format = "qcow2", .size = SIZE, .backing_name = base,
                               .backing_format = "raw"};
    (void)state;
    assert_works(chain_create(&how, &error), error);
    json_t *o = json_pack("{s:s}", "copy-on-read", "on");
    Image *img = open_image(&(struct image_options){
        .id = "cor", .file = top, .format = "qcow2", .options = o});
    struct iovec iov = {data, 512};
    assert_int_equal(run(img, IMAGE_READ, 3 * BLOCK + 1024, &iov, 1), 0);
    assert_int_equal(data[5], (uint8_t)((3 * BLOCK + 1029) * 7 + (3 * BLOCK + 1029) / 512));
    for (unsigned b = 0; b < SIZE / BLOCK; b++) {
        struct chain_status s;
        assert_int_equal(chain_status(image_top(img), NULL, (uint64_t)b * BLOCK, BLOCK, &s), 0);
        assert_int_equal(s.depth, b == 3 ? 0 : 1);
    }
    assert_int_equal(run(img, IMAGE_READ, 3 * BLOCK + 1024, &iov, 1), 0); /* from its new place */
    assert_int_equal(data[5], (uint8_t)((3 * BLOCK + 1029) * 7 + (3 * BLOCK + 1029) / 512));
    image_close(img);
    json_decref(o);
    drop_file(base);
    drop_file(top);
}

static void a_snapshot_leaves_the_file_alone(void **state)
{
    (void)state;
    char *path = make_file(MIB);
    Image *img = open_image(&(struct image_options){.id = "a", .file = path, .snapshot = true});
    uint8_t buf[2048], want[2048], block[512];
    assert_int_equal(image_read(img, 4096, want, sizeof(want)), 0);
    memset(block, 0xee, sizeof(block));
    struct iovec w = {block, 512}, r = {buf, sizeof(buf)};
    assert_int_equal(run(img, IMAGE_WRITE, 4096 + 512, &w, 1), 0);
    memset(want + 512, 0xee, 512);
    assert_int_equal(run(img, IMAGE_READ, 4096, &r, 1), 0);
    assert_memory_equal(buf, want, sizeof(want));
    assert_int_equal(image_write(img, 4096 + 1600, "abc", 3), 0); /* less than a sector */
    memcpy(want + 1600, "abc", 3);
    assert_int_equal(run(img, IMAGE_READ, 4096, &r, 1), 0);
    assert_memory_equal(buf, want, sizeof(want));
    image_close(img);
    img = open_image(&(struct image_options){.id = "a", .file = path, .read_only = true});
    assert_int_equal(image_read(img, 4096, buf, sizeof(buf)), 0);
    assert_int_equal(buf[512], (uint8_t)((4096 + 512) * 7 + 9));
    assert_int_equal(run(img, IMAGE_WRITE, 0, &w, 1), -EROFS);
    image_close(img);
    drop_file(path);
}

static void a_short_last_sector_reads_as_zero(void **state)
{
    (void)state;
    char *path = make_file(700);
    Image *img = open_image(&(struct image_options){.id = "a", .file = path, .format = "raw"});
    assert_int_equal(image_size(img), 1024);
    uint8_t buf[1024];
    memset(buf, 0xaa, sizeof(buf));
    struct iovec r = {buf, sizeof(buf)};
    assert_int_equal(run(img, IMAGE_READ, 0, &r, 1), 0);
    assert_int_equal(buf[699], (uint8_t)(699 * 7 + 1));
    assert_int_equal(buf[700] | buf[1023], 0);
    image_close(img);
    drop_file(path);
}

static void a_guessed_raw_disk_cannot_become_another_format(void **state)
{
    (void)state;
    char *path = make_file(MIB);
    Image *img = open_image(&(struct image_options){.id = "a", .file = path});
    uint8_t evil[512] = "QFI\xfb\0\0\0\3";
    struct iovec w = {evil, 512};
    assert_true(image_guarded(img));
    assert_int_equal(run(img, IMAGE_WRITE, 0, &w, 1), -EPERM);
    assert_int_equal(image_write(img, 0, evil, 8), -EPERM);
    assert_int_equal(image_write(img, 4, evil + 4, 4), 0); /* harmless until the rest comes */
    assert_int_equal(image_write(img, 0, evil, 4), -EPERM);
    evil[0] = 0;
    assert_int_equal(run(img, IMAGE_WRITE, 0, &w, 1), 0);
    image_close(img);
    img = open_image(&(struct image_options){.id = "a", .file = path, .format = "raw"});
    evil[0] = 'Q';
    assert_int_equal(run(img, IMAGE_WRITE, 0, &w, 1), 0); /* the user knows what it is */
    image_close(img);
    drop_file(path);
}

static void what_cannot_be_opened_is_named(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    char *path = make_file(4096);
    assert_fails(image_open(&(struct image_options){.file = "/no/such"}, &error), error, ENOENT);
    assert_fails(image_open(&(struct image_options){.file = "/tmp"}, &error), error, EISDIR);
    assert_fails(image_open(&(struct image_options){.file = "nobody:x:1"}, &error), error, ENOTSUP);
    assert_fails(image_open(&(struct image_options){.file = path, .format = "qcow2"}, &error),
                 error, EINVAL);
    assert_fails(image_open(&(struct image_options){.file = path, .format = "nonsense"}, &error),
                 error, ENOTSUP);
    autofd int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "QFI\xfb\0\0\0\3", 8, 0), 8);
    assert_false(image_open(&(struct image_options){.file = path}, &error));
    assert_non_null(strstr(error->message, path));
    assert_null(image_find("a"));
    drop_file(path);
}

static void two_writers_are_refused(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    char *path = make_file(4096);
    struct image_options opts = {.id = "a", .file = path, .format = "raw"};
    Image *img = open_image(&opts);
    assert_fails(image_open(&opts, &error), error, EBUSY);
    opts.lock_off = true;
    Image *other = open_image(&opts);
    image_close(other);
    opts.lock_off = false;
    opts.read_only = true;
    assert_fails(image_open(&opts, &error), error, EBUSY);
    image_close(img);
    img = open_image(&opts);
    other = open_image(&opts); /* readers share */
    image_close(img);
    image_close(other);
    drop_file(path);
}

static void media_change_while_the_drive_stays(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    char *path = make_file(8192);
    Image *img = image_new_empty("cd0");
    uint8_t buf[512];
    struct iovec r = {buf, 512};
    assert_ptr_equal(image_find("cd0"), img);
    assert_false(image_inserted(img));
    assert_int_equal(run(img, IMAGE_READ, 0, &r, 1), -ENOMEDIUM);
    assert_works(image_change(img, &(struct image_options){.file = path, .read_only = true},
                              &error), error);
    assert_int_equal(image_size(img), 8192);
    assert_int_equal(run(img, IMAGE_READ, 0, &r, 1), 0);
    image_eject(img);
    assert_false(image_inserted(img));
    image_close(img);
    drop_file(path);
}

/* ---- errors of the host ---- */

static unsigned n_failed;
static enum image_on_error last_action;

/* The descriptor under which this process has @path open. */
static int fd_of(const char *path)
{
    for (int fd = 3; fd < 64; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);
        if (!g_strcmp0(target, path)) {
            return fd;
        }
    }
    return -1;
}

static void on_failed(Image *img, bool write, int error, enum image_on_error action)
{
    (void)img, (void)write, (void)error;
    n_failed++;
    last_action = action;
}

/* Nobody looks at the main loop meanwhile; the others' requests and what failed are left to it. */
static void who_submitted_may_ask_for_the_end(void **state)
{
    (void)state;
    char *path = make_file(MIB);
    Image *img[2];
    uint8_t data[3][512];
    struct iovec iov[3];
    struct waiter w[3];
    for (unsigned i = 0; i < 2; i++) {
        img[i] = open_image(&(struct image_options){
            .id = i ? "b" : "a", .file = path, .format = "raw", .read_only = true});
    }
    for (unsigned i = 0; i < 3; i++) { /* b's, one behind the end of a, a's */
        iov[i] = (struct iovec){data[i], 512};
        w[i] = (struct waiter){.req = {.op = IMAGE_READ,
                                       .offset = i == 1 ? MIB : 1024,
                                       .bytes = 512,
                                       .iov = &iov[i],
                                       .niov = 1,
                                       .done = note_done}};
        image_submit(img[i ? 0 : 1], &w[i].req);
    }
    for (unsigned ms = 0; !w[2].over; ms++) {
        assert_true(ms < 180000);
        image_poll(img[0]);
        g_usleep(1000);
    }
    assert_int_equal(w[2].result, 0);
    assert_int_equal(data[2][5], (uint8_t)((1024 + 5) * 7 + 2));
    image_poll(img[0]);
    assert_false(w[0].over);
    assert_false(w[1].over);
    while (!w[0].over || !w[1].over) {
        g_main_context_iteration(NULL, TRUE);
    }
    assert_int_equal(w[0].result, 0);
    assert_true(w[1].result < 0);
    image_poll(img[0]); /* nothing left */
    image_close(img[0]);
    image_close(img[1]);
    drop_file(path);
}

/* /dev/full answers each write with ENOSPC: it stands in for the file of a full disk. */
static void a_full_disk_holds_the_request_until_there_is_room(void **state)
{
    (void)state;
    char *path = make_file(4096);
    Image *img = open_image(&(struct image_options){.id = "a", .file = path, .format = "raw"});
    uint8_t block[512] = {1};
    struct iovec iov = {block, sizeof(block)};
    struct waiter w = {.req = {.op = IMAGE_WRITE, .bytes = 512, .iov = &iov, .niov = 1,
                               .done = note_done}};
    int fd = fd_of(path), keep = dup(fd), full = open("/dev/full", O_RDWR | O_CLOEXEC);
    image_failed = on_failed;
    assert_true(dup2(full, fd) == fd);
    image_submit(img, &w.req);
    while (!n_failed) {
        g_main_context_iteration(NULL, TRUE);
    }
    assert_int_equal(last_action, IMAGE_ON_ERROR_STOP);
    assert_true(image_holds_failed());
    assert_false(w.over);
    image_drain_all(); /* does not wait for what is held */
    assert_true(dup2(keep, fd) == fd);
    image_retry_held();
    image_drain_all();
    assert_true(w.over);
    assert_int_equal(w.result, 0);
    assert_false(image_holds_failed());
    image_failed = NULL;
    close(keep);
    close(full);
    image_close(img);
    drop_file(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_work_through_io_uring),
        cmocka_unit_test(requests_work_through_threads),
        cmocka_unit_test(requests_without_page_cache_work_at_any_alignment),
        cmocka_unit_test(many_requests_are_under_way_at_once),
        cmocka_unit_test(what_was_read_is_copied),
        cmocka_unit_test(a_snapshot_leaves_the_file_alone),
        cmocka_unit_test(a_short_last_sector_reads_as_zero),
        cmocka_unit_test(a_guessed_raw_disk_cannot_become_another_format),
        cmocka_unit_test(what_cannot_be_opened_is_named),
        cmocka_unit_test(two_writers_are_refused),
        cmocka_unit_test(media_change_while_the_drive_stays),
        cmocka_unit_test(who_submitted_may_ask_for_the_end),
        cmocka_unit_test(a_full_disk_holds_the_request_until_there_is_room),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
