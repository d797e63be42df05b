/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdint.h>

/*
 * bt - what the machine's owner may set before the first vCPU runs: -accel bt,tb-size=.
 */
/* Bound of the translation cache in bytes, a multiple of the page size; 0: by guest memory. */
extern uint64_t bt_cache_bytes;
/* How often code is interpreted before it is translated; at most 255. */
extern unsigned bt_hot;
/* What was translated and how often generated code was left; nothing if no vCPU is bt's. */
void bt_describe(GString *out);
