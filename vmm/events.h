/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/display/display.h"

#include <jansson.h>

/* events - what devices and viewers have to tell becomes events of QMP */
struct board;
struct image;

void events_open(struct board *board);
/* qmp_block.c: of a drive, by the guest or by a command. */
void event_tray_moved(struct image *img, bool open);
struct ost;
json_t *event_ost(const struct ost *ost);
/* As query-vnc and the events show it. */
json_t *event_vnc_end(const struct vnc_end *end);
