/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sound: backends and the adding up of voices; HDA by a driver in miniature. */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "host/audio/audio.h"

enum {
    BAR = 0xe0000000,
    RATE = 48000,
    CORB = 0x1000,
    RIRB = 0x2000,
    LIST = 0x3000,
    DATA = 0x10000
};
enum {
    GCTL = 0x08,
    STATESTS = 0x0e,
    INTCTL = 0x20,
    INTSTS = 0x24,
    NOW_OUT = 0x60,
    NOW_IN = 0x64,
    NOW_STS = 0x68,
    OUT0 = 0x100,
    CTL = 0,
    STREAM_TAG = 2,
    STS = 3,
    LPIB = 4,
    CBL = 8,
    LVI = 0xc,
    FORMAT = 0x12,
    BDL = 0x18
};

static struct audio *wav(const char *id, char **path, const char *more)
{
    g_autoptr(GError) error = NULL;
    *path = g_strdup_printf("/tmp/lodge-test-%s-%d.wav", id, getpid());
    g_autofree char *text = g_strdup_printf("wav,id=%s,path=%s%s", id, *path, more);
    g_autoptr(KeyVal) kv = keyval_parse(text, "driver", &error);
    struct audio *a = audio_new(kv, &error);
    assert_works(a != NULL, error);
    return a;
}

/* What the file holds behind its header, whose lengths are right. */
static GBytes *samples(char *path)
{
    gsize n;
    char *text;
    audios_close();
    assert_true(g_file_get_contents(path, &text, &n, NULL));
    g_unlink(path);
    g_free(path);
    assert_true(n >= 44 && memcmp(text, "RIFF", 4) == 0);
    assert_int_equal(le32_at(text + 4), n - 8);
    assert_int_equal(le32_at(text + 40), n - 44);
    GBytes *b = g_bytes_new(text + 44, n - 44);
    g_free(text);
    return b;
}

static int16_t sample(GBytes *b, size_t i)
{
    const uint8_t *at = g_bytes_get_data(b, NULL);
    assert_true(i * 2 + 2 <= g_bytes_get_size(b));
    return (int16_t)le16_at(at + i * 2);
}

static void voices_are_added(void **unused)
{
    char *path;
    struct audio *a = wav("mix", &path, ",out.frequency=48000");
    struct audio_voice *one = audio_voice_new(a), *two = audio_voice_new(a);
    struct audio_frame f[100], half[50];
    (void)unused;
    for (unsigned i = 0; i < 100; i++) {
        f[i] = (struct audio_frame){1000, -1000};
        half[i / 2] = (struct audio_frame){30000, -32768};
    }
    audio_voice_start(one, 48000);
    audio_voice_start(two, 24000); /* each frame of it becomes two */
    audio_play(one, f, 100);
    audio_play(two, half, 50);
    audio_voice_stop(one);
    audio_play(two, half, 50);
    audio_voice_free(one);
    audio_voice_free(two);
    g_autoptr(GBytes) b = samples(path);
    assert_int_equal(g_bytes_get_size(b), 200 * 4);
    assert_int_equal(sample(b, 40), 31000);
    assert_int_equal(sample(b, 41), -32768); /* no louder than the file can be */
    assert_int_equal(sample(b, 300), 30000);
}

/* One that plays nothing does not hold back the other for ever. */
static void a_silent_voice_is_left_behind(void **unused)
{
    char *path;
    struct audio *a = wav("gap", &path, ",out.frequency=48000,out.channels=1");
    struct audio_voice *one = audio_voice_new(a), *two = audio_voice_new(a);
    struct audio_frame f[1000] = {{0}};
    (void)unused;
    audio_voice_start(one, 48000);
    audio_voice_start(two, 48000);
    for (unsigned i = 0; i < 200; i++) {
        audio_play(one, f, 1000);
    }
    audio_voice_free(one);
    audio_voice_free(two);
    g_autoptr(GBytes) b = samples(path);
    assert_int_equal(g_bytes_get_size(b), 200 * 1000 * 2);
}

static void bad_options(void **unused)
{
    static const char *const texts[] = {
        "wav",
        "id=x",
        "pa,id=x",
        "alsa,id=x",
        "none,id=x,path=/tmp/x",
        "wav,id=x,path=/",
        "wav,id=x,out.frequency=1",
        "wav,id=x,out.channels=3",
        "wav,id=x,out.format=f32",
        "wav,id=x,out.channels=0",
        "none,id=",
        "none,id=x,out.frequency=999999999",
    };
    (void)unused;
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(KeyVal) kv = keyval_parse(texts[i], "driver", &error);
        assert_null(audio_new(kv, &error));
        assert_non_null(error);
    }
    assert_null(audio_first());
}

/* ---- HDA ---- */

struct hda_rig {
    struct rig *rig;
    struct device *card, *codec;
};

static uint64_t in(struct hda_rig *h, unsigned at, unsigned bytes)
{
    return space_load(h->rig->board->memory, BAR + at, bytes);
}

static void out(struct hda_rig *h, unsigned at, uint64_t value, unsigned bytes)
{
    space_store(h->rig->board->memory, BAR + at, value, bytes);
}

static void ram(struct hda_rig *h, uint64_t at, const void *from, size_t n)
{
    assert_true(space_write(h->rig->board->memory, at, from, n));
}

static struct hda_rig plug(const char *codec, struct audio *a)
{
    g_autoptr(GError) error = NULL;
    struct hda_rig h = {.rig = rig_new()};
    h.card = rig_start(h.rig, rig_device(h.rig, "intel-hda"));
    h.codec = rig_device(h.rig, codec);
    assert_works(device_give(h.codec, "audiodev", a, &error), error);
    rig_start(h.rig, h.codec);
    struct pci_device *pci = (struct pci_device *)h.card;
    pci_config_write(&h.rig->bus, 0, pci->devfn, PCI_BAR0, BAR, 4);
    pci_config_write(&h.rig->bus, 0, pci->devfn, PCI_COMMAND, 7, 2);
    out(&h, GCTL, 1, 4);
    assert_int_equal(in(&h, STATESTS, 2), 1); /* the codec has come up */
    return h;
}

static uint32_t ask(struct hda_rig *h, unsigned node, unsigned verb)
{
    out(h, NOW_OUT, node << 20 | verb, 4);
    out(h, NOW_STS, 2, 2);
    out(h, NOW_STS, 1, 2);
    return in(h, NOW_STS, 2) & 2 ? (uint32_t)in(h, NOW_IN, 4) : UINT32_MAX;
}

static void entry(struct hda_rig *h, unsigned n, uint64_t at, uint32_t bytes, uint32_t flags)
{
    uint8_t e[16];
    le64_put(e, at);
    le32_put(e + 8, bytes);
    le32_put(e + 12, flags);
    ram(h, LIST + n * 16, e, sizeof(e));
}

static void run_stream(struct hda_rig *h, unsigned cbl, unsigned lvi)
{
    ask(h, 2, 0x70610); /* the DAC listens to stream 1 */
    out(h, OUT0 + CBL, cbl, 4);
    out(h, OUT0 + LVI, lvi, 2);
    out(h, OUT0 + FORMAT, 0x11, 2);
    out(h, OUT0 + BDL, LIST, 4);
    out(h, OUT0 + STREAM_TAG, 0x10, 1);
    out(h, INTCTL, 0x80000010, 4);
    out(h, OUT0 + CTL, 0x06, 1);
}

static void hda_plays(void **unused)
{
    char *path;
    uint8_t data[4096];
    struct hda_rig h = plug("hda-duplex", wav("hda", &path, ",out.frequency=48000"));
    (void)unused;
    assert_int_equal(ask(&h, 0, 0xf0000), 0x1af40022);
    assert_int_equal(ask(&h, 1, 0xf0004), 2 << 16 | 4);
    for (unsigned i = 0; i < sizeof(data); i += 2) {
        le16_put(data + i, i & 2 ? (uint16_t)-1000 : 20000);
    }
    ram(&h, DATA, data, sizeof(data));
    entry(&h, 0, DATA, 2048, 0);
    entry(&h, 1, DATA + 2048, 2048, 1);
    run_stream(&h, 4096, 1);
    clock_advance(15000000); /* 720 frames of 1024: within the second entry */
    assert_int_equal(in(&h, OUT0 + LPIB, 4), 2880);
    assert_int_equal(in(&h, INTSTS, 4), 0);
    clock_advance(10000000);
    assert_int_equal(in(&h, INTSTS, 4), 0x80000010);
    assert_true(h.rig->intx);
    out(&h, OUT0 + STS, 4, 1);
    assert_false(h.rig->intx);
    ask(&h, 2, 0x3b080); /* mute: left, right, out */
    clock_advance(10000000);
    out(&h, OUT0 + CTL, 0, 1);
    g_autoptr(GBytes) b = samples(path);
    assert_int_equal(g_bytes_get_size(b), 35 * 48 * 4);
    assert_int_equal(sample(b, 100), 20000);
    assert_int_equal(sample(b, 101), -1000);
    assert_int_equal(sample(b, 2 * 34 * 48), 0);
    rig_free(h.rig);
}

/* Lists that lead nowhere, entries without bytes, formats that are none: the tick ends. */
static void hda_bears_nonsense(void **unused)
{
    char *path;
    struct hda_rig h = plug("hda-output", wav("bad", &path, ""));
    (void)unused;
    for (unsigned i = 0; i < 256; i++) {
        entry(&h, i, UINT64_MAX - 8, i % 3 ? 0 : UINT32_MAX, 1);
    }
    run_stream(&h, 0, 255);
    clock_advance(1000000000);
    out(&h, OUT0 + FORMAT, 0xffff, 2);
    clock_advance(1000000000);
    out(&h, OUT0 + BDL, 0xffffff80, 4);
    out(&h, OUT0 + CTL, 0, 1);
    out(&h, OUT0 + CTL, 2, 1);
    clock_advance(1000000000);
    assert_int_equal(ask(&h, 5, 0xf0009), 0); /* it has no such node */
    g_bytes_unref(samples(path));
    rig_free(h.rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(voices_are_added),   cmocka_unit_test(a_silent_voice_is_left_behind),
        cmocka_unit_test(bad_options),        cmocka_unit_test(hda_plays),
        cmocka_unit_test(hda_bears_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
