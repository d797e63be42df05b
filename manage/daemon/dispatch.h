/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/packet.h"

#include <stdbool.h>
#include <stdint.h>

/* Who may call a verb. */
enum verb_may { MAY_ANYONE, MAY_READER, MAY_WRITER };

struct verb_row {
    uint32_t program;
    int number;
    const char *name;
    enum verb_may may;
    bool present;
};

/* Once, before the first call. */
void dispatch_start(void);
void dispatch_list(void (*each)(const struct verb_row *row, void *data), void *data);
/* The error packet that answers @h. */
struct packet *dispatch_error(const struct packet_header *h, const char *verb, const GError *error);
