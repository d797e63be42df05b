/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "host/audio/audio.h"

/* For the files of this folder: a backend is a row. */
struct audio_backend {
    const char *name;  /* the first word of -audiodev */
    const char *about; /* one line for -audiodev help */
    /* Takes its own keys from @kv; NULL: has none. */
    bool (*open)(struct audio *a, KeyVal *kv, GError **error);
    /* @n frames at the rate of @a; NULL: nobody listens. */
    void (*play)(struct audio *a, const struct audio_frame *frames, size_t n);
    void (*pause)(struct audio *a); /* the last voice has stopped */
    void (*close)(struct audio *a);
};

/* Generated from the list in meson.build. */
extern const struct audio_backend *const audio_backends[];
extern const unsigned n_audio_backends;
