/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>

/*
 * The host's devices, read from /sys whenever somebody asks: verbs/node_device.c.  Those that come
 * and go are told of by node_events.c.
 */
enum node_kind { KIND_COMPUTER, KIND_PCI, KIND_USB, KIND_NET, KIND_BLOCK };
struct node_device {
    enum node_kind kind;
    char *name, *path; /* libvirt's name; what it is in /sys */
};

/* All of them, to be unreferenced; daemon lock not needed. */
GPtrArray *node_devices(void);
/* Daemon lock held, given up meanwhile: from now on events are told.  False with an error where
 * the kernel does not tell us. */
bool node_events_begin(GError **error);
