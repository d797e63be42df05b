/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * wav: what the guest plays, in a file.
 *
 * Spec: IBM and Microsoft, "Multimedia Programming Interface and Data Specifications 1.0",
 * "Waveform Audio File Format (WAVE)".
 * Both lengths in the header are written when the last voice stops, and at the end.
 */
#include "host/audio/backend.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { HEADER_BYTES = 44, RIFF_LENGTH_AT = 4, DATA_LENGTH_AT = 40, SAMPLE_BYTES = 2, CHUNK = 1024 };
/* A length that the header can hold, with a margin for the chunks around the data. */
#define DATA_MAX (UINT32_MAX - 4096u)

struct wav {
    int fd;
    uint32_t bytes; /* of data */
    bool broken;    /* the file takes no more: said once */
};

static bool put(struct audio *a, const void *from, size_t n)
{
    struct wav *w = a->own;
    ssize_t wrote = write(w->fd, from, n);
    if (wrote == (ssize_t)n) {
        return true;
    }
    w->broken = true;
    if (audio_broken) {
        audio_broken(a, wrote < 0 ? errno : ENOSPC);
    }
    return false;
}

static void put_length(struct wav *w, uint32_t length, off_t at)
{
    uint8_t bytes[4];
    le32_put(bytes, length);
    if (pwrite(w->fd, bytes, sizeof(bytes), at) < 0) {
        w->broken = true; /* a pipe: readers go by its end */
    }
}

static void wav_pause(struct audio *a)
{
    struct wav *w = a->own;
    put_length(w, w->bytes + HEADER_BYTES - 8, RIFF_LENGTH_AT);
    put_length(w, w->bytes, DATA_LENGTH_AT);
}

static void wav_play(struct audio *a, const struct audio_frame *frames, size_t n)
{
    struct wav *w = a->own;
    int16_t out[2 * CHUNK];
    while (n && !w->broken && w->bytes < DATA_MAX) {
        size_t now = MIN(n, (size_t)CHUNK), samples = now * a->channels;
        for (size_t i = 0; i < now; i++) {
            if (a->channels == 1) {
                out[i] = (int16_t)((frames[i].left + frames[i].right) / 2);
            } else {
                out[2 * i] = frames[i].left;
                out[2 * i + 1] = frames[i].right;
            }
        }
        if (put(a, out, samples * SAMPLE_BYTES)) {
            w->bytes += (uint32_t)(samples * SAMPLE_BYTES);
        }
        frames += now;
        n -= now;
    }
}

static bool put_header(struct audio *a)
{
    uint8_t h[HEADER_BYTES] = "RIFF....WAVEfmt ";
    unsigned frame = a->channels * SAMPLE_BYTES;
    le32_put(h + RIFF_LENGTH_AT, HEADER_BYTES - 8);
    le32_put(h + 16, 16); /* bytes of the format */
    le16_put(h + 20, 1);  /* PCM */
    le16_put(h + 22, (uint16_t)a->channels);
    le32_put(h + 24, a->rate);
    le32_put(h + 28, a->rate * frame);
    le16_put(h + 32, (uint16_t)frame);
    le16_put(h + 34, 8 * SAMPLE_BYTES);
    memcpy(h + 36, "data", 4);
    return put(a, h, sizeof(h));
}

static bool wav_open(struct audio *a, KeyVal *kv, GError **error)
{
    const char *path = keyval_get(kv, "path");
    path = path ? path : "lodge.wav";
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        error_set_errno(error, errno, "%s", path);
        return false;
    }
    struct wav *w = g_new0(struct wav, 1);
    w->fd = fd;
    a->own = w;
    if (!put_header(a)) {
        error_set_errno(error, EIO, "%s", path);
        return false;
    }
    return true;
}

static void wav_close(struct audio *a)
{
    struct wav *w = a->own;
    if (w) {
        wav_pause(a);
        close(w->fd);
        g_free(w);
    }
}

const struct audio_backend audio_wav = {
    .name = "wav",
    .about = "into a file (path=, out.frequency=, out.channels=)",
    .open = wav_open,
    .play = wav_play,
    .pause = wav_pause,
    .close = wav_close,
};
