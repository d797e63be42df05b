/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/xml.h"

/* libvirt's <bandwidth>: KiB a second, .burst KiB; XML_ABSENT: not said. */
struct bandwidth {
    int64_t average, peak, burst, floor;
};

extern const struct xml_table inbound_table, outbound_table;
/* @in or @out may be NULL. */
bool bandwidth_check(const struct bandwidth *in, const struct bandwidth *out, GError **error);
