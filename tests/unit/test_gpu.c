/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio GPU, by a driver in miniature. */
#include "tests/unit/vdriver.h"

#include "guest/device/virtio_gpu.h"

enum { HEAD = 24, OK_NODATA = 0x1100, ERR_RESOURCE = 0x1203, ERR_PARAMETER = 0x1205, W = 64, H = 32 };

struct bench {
    struct vdriver v;
    struct display *display;
    struct display_viewer viewer;
    unsigned changes, resizes;
    uint64_t request, reply, pixels;
};

static void changed(struct display_viewer *v, unsigned x, unsigned y, unsigned w, unsigned h)
{
    struct bench *b = container_of(v, struct bench, viewer);
    assert_true(x + w <= b->display->width && y + h <= b->display->height);
    b->changes++;
}

static void resized(struct display_viewer *v)
{
    container_of(v, struct bench, viewer)->resizes++;
}

static void bench_open(struct bench *b, const char *model)
{
    memset(b, 0, sizeof(*b));
    vd_plug(&b->v, model, NULL);
    b->display = b->v.board->display = display_new();
    vd_plugged(&b->v);
    b->viewer = (struct display_viewer){.changed = changed, .resized = resized};
    display_add_viewer(b->display, &b->viewer);
    vd_start(&b->v, VIRTIO_BIT(1), 2);
    b->request = vd_alloc(&b->v, 4096);
    b->reply = vd_alloc(&b->v, 4096);
    b->pixels = vd_alloc(&b->v, W * H * 4);
}

static void bench_close(struct bench *b)
{
    display_remove_viewer(b->display, &b->viewer);
    vd_unplug(&b->v);
    g_free(b->display);
}

/* Sends a command with @n words behind the header; the reply's type. */
static unsigned send(struct bench *b, unsigned queue, uint32_t type, const uint32_t *words, unsigned n)
{
    uint8_t *m = vd_at(&b->v, b->request);
    memset(m, 0, HEAD);
    memset(vd_at(&b->v, b->reply), 0, HEAD);
    le32_put(m, type);
    le32_put(m + 4, 1);
    le64_put(m + 8, 77);
    for (unsigned i = 0; i < n; i++) {
        le32_put(m + HEAD + 4 * i, words[i]);
    }
    vd_add(&b->v, queue, (struct vd_part[]){{b->request, HEAD + 4 * n, false}, {b->reply, 4096, true}, {0}});
    vd_kick(&b->v, queue);
    vd_used(&b->v, queue, NULL);
    return le32_at(vd_at(&b->v, b->reply));
}
#define WORDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4

static void show(struct bench *b)
{
    uint32_t at = (uint32_t)b->pixels, half = W * H * 2;
    assert_int_equal(send(b, 0, 0x101, WORDS(5, 2, W, H)), OK_NODATA);
    assert_int_equal(send(b, 0, 0x106, WORDS(5, 2, at, 0, half, 0, at + half, 0, half, 0)), OK_NODATA);
    assert_int_equal(send(b, 0, 0x103, WORDS(0, 0, W, H, 0, 5)), OK_NODATA);
    for (unsigned i = 0; i < W * H; i++) {
        le32_put(vd_at(&b->v, b->pixels + 4 * i), 0xff000000 | i * 0x501);
    }
    assert_int_equal(send(b, 0, 0x105, WORDS(0, 0, W, H, 0, 0, 5, 0)), OK_NODATA);
    assert_int_equal(send(b, 0, 0x104, WORDS(0, 0, W, H, 5, 0)), OK_NODATA);
}

static void check_picture(struct bench *b)
{
    assert_int_equal(b->display->width, W);
    assert_int_equal(b->display->height, H);
    for (unsigned i = 0; i < W * H; i++) {
        assert_int_equal(b->display->pixels[i], i * 0x501 & 0xffffff);
    }
}

static void a_frame_buffer_is_shown(void **state)
{
    struct bench b;
    bench_open(&b, *state);
    assert_int_equal(send(&b, 0, 0x100, NULL, 0), 0x1101);
    assert_int_equal(le32_at(vd_at(&b.v, b.reply + HEAD + 8)), 1280);
    assert_int_equal(le64_at(vd_at(&b.v, b.reply + 8)), 77);
    assert_int_equal(send(&b, 0, 0x10a, WORDS(0, 0)), 0x1104);
    assert_memory_equal(vd_at(&b.v, b.reply + HEAD + 8), "\0\xff\xff\xff", 4);
    show(&b);
    check_picture(&b);
    assert_true(b.changes > 0);
    assert_int_equal(send(&b, 0, 0x102, WORDS(5, 0)), OK_NODATA);
    assert_null(b.display->pixels);
    bench_close(&b);
}

static void a_cursor_is_drawn_and_leaves_no_trace(void **state)
{
    struct bench b;
    bench_open(&b, *state);
    show(&b);
    uint64_t at = vd_alloc(&b.v, 64 * 64 * 4);
    memset(vd_at(&b.v, at), 0, 64 * 64 * 4);
    for (unsigned i = 0; i < 4; i++) {
        le32_put(vd_at(&b.v, at + 4 * i), 0xffffffff);
    }
    send(&b, 0, 0x101, WORDS(6, 1, 64, 64));
    send(&b, 0, 0x106, WORDS(6, 1, (uint32_t)at, 0, 64 * 64 * 4, 0));
    send(&b, 1, 0x300, WORDS(0, 10, 5, 0, 6, 1, 1, 0));
    assert_int_equal(b.display->pixels[4 * W + 9], 0xffffff);
    assert_int_equal(b.display->pixels[4 * W + 13], (4 * W + 13) * 0x501);
    send(&b, 1, 0x301, WORDS(0, 20, 15, 0, 0, 0, 0, 0));
    assert_int_equal(b.display->pixels[4 * W + 9], (4 * W + 9) * 0x501);
    assert_int_equal(b.display->pixels[14 * W + 19], 0xffffff);
    send(&b, 1, 0x300, WORDS(0, 0, 0, 0, 0, 0, 0, 0));
    check_picture(&b);
    bench_close(&b);
}

static void a_state_brings_the_picture_back(void **state)
{
    struct bench b;
    g_autoptr(GError) error = NULL;
    bench_open(&b, *state);
    show(&b);
    g_autoptr(GBytes) saved = device_save(&b.v.dev->pci.dev);
    device_reset(&b.v.dev->pci.dev);
    assert_null(b.display->pixels);
    assert_works(device_load(&b.v.dev->pci.dev, saved, &error), error);
    b.display->refresh(b.display->adapter);
    check_picture(&b);
    bench_close(&b);
}

static void what_cannot_be_is_refused(void **state)
{
    struct bench b;
    uint64_t seed = 3;
    bench_open(&b, *state);
    assert_int_equal(send(&b, 0, 0x101, WORDS(0, 2, W, H)), ERR_RESOURCE);
    assert_int_equal(send(&b, 0, 0x101, WORDS(1, 99, W, H)), ERR_PARAMETER);
    assert_int_equal(send(&b, 0, 0x101, WORDS(1, 2, 100000, H)), ERR_PARAMETER);
    assert_int_equal(send(&b, 0, 0x103, WORDS(0, 0, W, H, 0, 9)), ERR_RESOURCE);
    show(&b);
    assert_int_equal(send(&b, 0, 0x104, WORDS(1, 0, W, H, 5, 0)), ERR_PARAMETER);
    assert_int_equal(send(&b, 0, 0x103, WORDS(0xffffffff, 2, W, H, 0, 5)), ERR_PARAMETER);
    for (unsigned i = 0; i < 5000; i++) {
        uint32_t words[12];
        for (unsigned k = 0; k < 12; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            words[k] = (uint32_t)(seed >> 40 & (seed >> 33 & 3 ? 15 : 0xffffff));
        }
        send(&b, seed >> 62 & 1, (seed >> 60 & 1 ? 0x100 : 0x300) + (uint32_t)(seed >> 36) % 12, words, 12);
        if (i % 64 == 0) {
            b.display->refresh(b.display->adapter);
        }
    }
    bench_close(&b);
}

int main(void)
{
    static const char *const models[] = {"virtio-gpu-pci", "virtio-vga"};
    struct CMUnitTest tests[8];
    unsigned n = 0;
    for (unsigned i = 0; i < 2; i++) {
        void *m = (void *)models[i];
        tests[n++] = (struct CMUnitTest){"a frame buffer is shown", a_frame_buffer_is_shown, NULL, NULL, m};
        tests[n++] = (struct CMUnitTest){"a cursor is drawn and leaves no trace",
                                         a_cursor_is_drawn_and_leaves_no_trace, NULL, NULL, m};
        tests[n++] = (struct CMUnitTest){"a state brings the picture back", a_state_brings_the_picture_back,
                                         NULL, NULL, m};
        tests[n++] = (struct CMUnitTest){"what cannot be is refused", what_cannot_be_is_refused, NULL, NULL, m};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
