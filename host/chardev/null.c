/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

static struct chardev *null_open(KeyVal *opts, GError **error)
{
    (void)opts, (void)error;
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, "null", -1, -1);
    s->chr.about = g_strdup("null");
    return &s->chr;
}

const struct chardev_backend chardev_null = {"null", "swallows all, says nothing", null_open};
