/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/audio/backend.h"

#include <errno.h>
#include <string.h>

/*
 * audio - backends by id, and the adding up of voices
 *
 * Each voice writes into the ring at a place of its own; what all that play have written goes
 * out.  One that is a whole ring ahead no longer waits for the others.
 */
enum { RING = 1 << 15, RATE_MIN = 4000, RATE_MAX = 192000, CHUNK = 1024 };

struct mix {
    int32_t left[RING], right[RING]; /* sums; zero where nobody has written */
    unsigned at;                     /* the next frame that goes out */
    struct audio_voice *voices;
};

struct audio_voice {
    struct audio *audio;
    unsigned rate;  /* 0: does not play */
    unsigned ahead; /* frames written that have not gone out */
    uint32_t phase; /* where between .last and the next frame; of .audio->rate */
    struct audio_frame last;
    struct audio_voice *next;
};

void (*audio_broken)(const struct audio *a, int err);

static GPtrArray *audios; /* of struct audio * */

/* ---- voices ---- */

static int16_t clamp(int32_t v)
{
    return (int16_t)CLAMP(v, INT16_MIN, INT16_MAX);
}

static void send(struct audio *a, unsigned n)
{
    struct audio_frame out[CHUNK];
    struct mix *m = a->mix;
    for (unsigned done = 0, now; done < n; done += now) {
        now = MIN(n - done, (unsigned)CHUNK);
        for (unsigned i = 0; i < now; i++, m->at = (m->at + 1) % RING) {
            out[i] = (struct audio_frame){clamp(m->left[m->at]), clamp(m->right[m->at])};
            m->left[m->at] = m->right[m->at] = 0;
        }
        if (a->backend->play) {
            a->backend->play(a, out, now);
        }
    }
    for (struct audio_voice *v = m->voices; v; v = v->next) {
        v->ahead -= MIN(v->ahead, n);
    }
}

/* What every voice that plays has written; of those that have stopped, all. */
static void send_complete(struct audio *a)
{
    unsigned least = UINT_MAX, most = 0;
    for (const struct audio_voice *v = a->mix->voices; v; v = v->next) {
        least = v->rate ? MIN(least, v->ahead) : least;
        most = MAX(most, v->ahead);
    }
    send(a, MIN(least, most));
}

static void add(struct audio_voice *v, struct audio_frame f)
{
    struct mix *m = v->audio->mix;
    if (v->ahead == RING) {
        send(v->audio, RING / 2);
    }
    unsigned at = (m->at + v->ahead++) % RING;
    m->left[at] += f.left;
    m->right[at] += f.right;
}

static int16_t between(int16_t a, int16_t b, uint32_t part, uint32_t whole)
{
    return (int16_t)(a + ((int64_t)b - a) * part / whole);
}

/* From the voice's rate to the backend's, on straight lines between frames. */
void audio_play(struct audio_voice *v, const struct audio_frame *frames, size_t n)
{
    unsigned rate = v->audio ? v->audio->rate : 0;
    if (!rate || !v->rate) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        for (; v->phase < rate; v->phase += v->rate) {
            add(v, (struct audio_frame){between(v->last.left, frames[i].left, v->phase, rate),
                                        between(v->last.right, frames[i].right, v->phase, rate)});
        }
        v->phase -= rate;
        v->last = frames[i];
    }
    send_complete(v->audio);
}

void audio_voice_start(struct audio_voice *v, unsigned rate)
{
    if (!v->rate) {
        v->phase = 0;
        v->last = (struct audio_frame){0};
    }
    v->rate = CLAMP(rate, (unsigned)RATE_MIN, (unsigned)RATE_MAX);
}

void audio_voice_stop(struct audio_voice *v)
{
    bool played = v->rate;
    v->rate = 0;
    if (!played || !v->audio) {
        return;
    }
    send_complete(v->audio);
    for (const struct audio_voice *o = v->audio->mix->voices; o; o = o->next) {
        if (o->rate) {
            return;
        }
    }
    if (v->audio->backend->pause) {
        v->audio->backend->pause(v->audio);
    }
}

struct audio_voice *audio_voice_new(struct audio *a)
{
    struct audio_voice *v = g_new0(struct audio_voice, 1);
    v->audio = a;
    if (a) {
        v->next = a->mix->voices;
        a->mix->voices = v;
    }
    return v;
}

void audio_voice_free(struct audio_voice *v)
{
    if (!v) {
        return;
    }
    audio_voice_stop(v);
    if (v->audio) {
        send(v->audio, v->ahead); /* what it has said stays said */
    }
    for (struct audio_voice **at = v->audio ? &v->audio->mix->voices : NULL; at && *at;
         at = &(*at)->next) {
        if (*at == v) {
            *at = v->next;
            break;
        }
    }
    g_free(v);
}

/* ---- backends ---- */

static const struct audio_backend *backend_of(const char *name, GError **error)
{
    for (unsigned i = 0; i < n_audio_backends; i++) {
        if (g_str_equal(audio_backends[i]->name, name)) {
            return audio_backends[i];
        }
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP,
                "driver=%s is not supported; -audiodev help lists what is", name);
    return NULL;
}

static bool only(KeyVal *kv, const char *key, const char *value, GError **error)
{
    const char *given = keyval_get(kv, key);
    if (!given || g_str_equal(given, value)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "%s=%s: only %s is supported", key, given, value);
    return false;
}

static bool shape(struct audio *a, KeyVal *kv, GError **error)
{
    unsigned period = 0;
    if (!keyval_unsigned(kv, "out.frequency", RATE_MAX, &a->rate, error) ||
        !keyval_unsigned(kv, "out.channels", 2, &a->channels, error) ||
        !keyval_unsigned(kv, "timer-period", UINT_MAX, &period, error) ||
        !only(kv, "out.format", "s16", error) || !only(kv, "out.mixing-engine", "on", error) ||
        !only(kv, "in.mixing-engine", "on", error) ||
        !only(kv, "out.fixed-settings", "on", error)) {
        return false;
    }
    if (a->rate < RATE_MIN || !a->channels) {
        g_set_error(error, LODGE_ERROR, EINVAL, "out.%s=%u is too little",
                    a->channels ? "frequency" : "channels", a->channels ? a->rate : a->channels);
        return false;
    }
    return true;
}

static void audio_free(struct audio *a)
{
    if (a->backend && a->backend->close) {
        a->backend->close(a);
    }
    g_free(a->mix);
    g_free(a->id);
    g_free(a);
}

struct audio *audio_new(KeyVal *kv, GError **error)
{
    const char *driver = keyval_get(kv, "driver"), *id = keyval_get(kv, "id");
    const struct audio_backend *backend = NULL;
    if (!driver || !id || !*id || audio_find(id)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    !driver       ? "it needs a driver; -audiodev help lists them%s"
                    : !id || !*id ? "it needs an id%s"
                                  : "the id \"%s\" is taken",
                    driver && id ? id : "");
        return NULL;
    }
    if (!(backend = backend_of(driver, error))) {
        return NULL;
    }
    struct audio *a = g_new0(struct audio, 1);
    a->id = g_strdup(id);
    a->rate = 44100;
    a->channels = 2;
    a->mix = g_new0(struct mix, 1);
    bool good = shape(a, kv, error);
    a->backend = good ? backend : NULL;
    if (!good || (backend->open && !backend->open(a, kv, error)) || !keyval_done(kv, error)) {
        audio_free(a);
        return NULL;
    }
    audios = audios ? audios : g_ptr_array_new();
    g_ptr_array_add(audios, a);
    return a;
}

struct audio *audio_find(const char *id)
{
    for (unsigned i = 0; audios && i < audios->len; i++) {
        struct audio *a = audios->pdata[i];
        if (g_str_equal(a->id, id)) {
            return a;
        }
    }
    return NULL;
}

struct audio *audio_first(void)
{
    return audios && audios->len ? audios->pdata[0] : NULL;
}

/* Devices may outlive this: their voices go nowhere from now on. */
void audios_close(void)
{
    for (unsigned i = 0; audios && i < audios->len; i++) {
        struct audio *a = audios->pdata[i];
        for (struct audio_voice *v = a->mix->voices; v; v = v->next) {
            audio_voice_stop(v);
            v->audio = NULL;
        }
        audio_free(a);
    }
    g_clear_pointer(&audios, g_ptr_array_unref);
}

void audio_kinds(GString *out)
{
    for (unsigned i = 0; i < n_audio_backends; i++) {
        g_string_append_printf(out, "  %-10s %s\n", audio_backends[i]->name,
                               audio_backends[i]->about);
    }
}
