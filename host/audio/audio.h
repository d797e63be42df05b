/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Where a guest's sound goes: -audiodev, by id.
 *
 * A sound card plays voices: frames of two samples, at the voice's own rate, handed over as the
 * guest's clock goes.  What several voices play at a time is added up.  Recording hears silence.
 * Thread: machine lock held.
 */
struct audio {
    char *id;
    const struct audio_backend *backend;
    unsigned rate, channels; /* of what the backend gets */
    struct mix *mix;         /* audio.c's */
    void *own;               /* the backend's */
};

struct audio_frame {
    int16_t left, right;
};

/* -audiodev's text.  NULL with a line for the user. */
struct audio *audio_new(KeyVal *kv, GError **error);
struct audio *audio_find(const char *id); /* NULL: none */
struct audio *audio_first(void);          /* of cards that name none; NULL: silence */
void audios_close(void);                  /* at exit: files are complete */
/* A backend takes no more: set by whoever tells the user. */
extern void (*audio_broken)(const struct audio *a, int err);
void audio_kinds(GString *out);           /* text of -audiodev help */

struct audio_voice;
struct audio_voice *audio_voice_new(struct audio *a); /* NULL: goes nowhere */
void audio_voice_free(struct audio_voice *v);         /* NULL is fine */
/* Idempotent; of a voice that plays, the rate changes. */
void audio_voice_start(struct audio_voice *v, unsigned rate);
void audio_voice_stop(struct audio_voice *v);
/* Data path. */
void audio_play(struct audio_voice *v, const struct audio_frame *frames, size_t n);
