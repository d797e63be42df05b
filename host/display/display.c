/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/display/display.h"

struct display *display_new(void)
{
    return g_new0(struct display, 1);
}

static gboolean refresh_tick(gpointer data)
{
    struct display *d = data;
    if (d->refresh) {
        d->refresh(d->adapter);
    }
    return G_SOURCE_CONTINUE;
}

/* The timer runs only while somebody looks, and as often as the keenest viewer wants. */
static void set_timer(struct display *d)
{
    unsigned ms = 0;
    for (struct display_viewer *v = d->viewers; v; v = v->next) {
        if (v->interval_ms && (!ms || v->interval_ms < ms)) {
            ms = v->interval_ms;
        }
    }
    if (ms == d->timer_ms) {
        return;
    }
    if (d->timer) {
        g_source_remove(d->timer);
    }
    d->timer_ms = ms;
    d->timer = ms ? g_timeout_add(ms, refresh_tick, d) : 0;
}

void display_add_viewer(struct display *d, struct display_viewer *v)
{
    v->next = d->viewers;
    d->viewers = v;
    set_timer(d);
    if (v->resized && d->pixels) {
        v->resized(v);
    }
}

void display_remove_viewer(struct display *d, struct display_viewer *v)
{
    for (struct display_viewer **p = &d->viewers; *p; p = &(*p)->next) {
        if (*p == v) {
            *p = v->next;
            break;
        }
    }
    set_timer(d);
}

void display_resize(struct display *d, uint32_t *pixels, unsigned w, unsigned h, unsigned stride)
{
    d->pixels = pixels;
    d->width = w;
    d->height = h;
    d->stride = stride;
    for (struct display_viewer *v = d->viewers; v; v = v->next) {
        if (v->resized) {
            v->resized(v);
        }
    }
}

void display_changed(struct display *d, unsigned x, unsigned y, unsigned w, unsigned h)
{
    for (struct display_viewer *v = d->viewers; v; v = v->next) {
        if (v->changed) {
            v->changed(v, x, y, w, h);
        }
    }
}

/* ---- keys and pointer ---- */

struct display_input *display_pointer_input(struct display *d, const struct display_input *after)
{
    struct display_input *in = after ? after->next : d->inputs;
    while (in && !(in->ready && in->pointer)) {
        in = in->next;
    }
    return in;
}

static void choose_pointer(struct display *d)
{
    const struct display_input *in = display_pointer_input(d, NULL);
    bool absolute = in && in->absolute;
    if (absolute == d->pointer_absolute) {
        return;
    }
    d->pointer_absolute = absolute;
    for (struct display_viewer *v = d->viewers; v; v = v->next) {
        if (v->pointer_mode) {
            v->pointer_mode(v);
        }
    }
}

void display_add_input(struct display *d, struct display_input *in, bool ready)
{
    in->ready = ready;
    in->next = d->inputs;
    d->inputs = in;
    choose_pointer(d);
}

void display_remove_input(struct display *d, struct display_input *in)
{
    for (struct display_input **at = &d->inputs; *at; at = &(*at)->next) {
        if (*at == in) {
            *at = in->next;
            break;
        }
    }
    choose_pointer(d);
}

void display_input_ready(struct display *d, struct display_input *in, bool ready)
{
    if (in->ready != ready) {
        in->ready = ready;
        choose_pointer(d);
    }
}

void display_key(struct display *d, unsigned scancode, bool down)
{
    for (struct display_input *in = d->inputs; in; in = in->next) {
        if (in->ready && in->key) {
            in->key(in->owner, scancode, down);
            return;
        }
    }
}

void display_pointer(struct display *d, int x, int y, int wheel, unsigned buttons)
{
    struct display_input *in = display_pointer_input(d, NULL);
    if (in) {
        in->pointer(in->owner, x, y, wheel, buttons);
    }
}
