/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"
#include "host/image/image.h"

/* What becomes of requests that fail on the host, as the device of a drive says it. */
struct drive_policy {
    const char *werror, *rerror; /* NULL: as the drive has it */
};
#define DRIVE_POLICY_PROPS(type, member)                                                           \
    {"werror", PROP_STRING, offsetof(type, member.werror),                                         \
     .help = "auto, report, ignore, stop or enospc"},                                              \
    {                                                                                              \
        "rerror", PROP_STRING, offsetof(type, member.rerror),                                      \
            .help = "auto, report, ignore or stop"                                                 \
    }

/* The guest has opened or closed the tray of a drive.  NULL: nobody listens; machine lock held. */
extern void (*drive_tray_moved)(Image *img, bool open);

bool drive_policy_apply(const struct drive_policy *p, Image *img, GError **error);
