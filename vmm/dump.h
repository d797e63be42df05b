/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* The guest's memory and the registers of its CPUs as an ELF core. */
enum dump_status { DUMP_NONE, DUMP_ACTIVE, DUMP_COMPLETED, DUMP_FAILED };
struct dump_view {
    enum dump_status status;
    uint64_t completed, total;
    const char *error; /* NULL: none */
};
struct dump_part {
    uint64_t begin, length; /* of guest-physical addresses; .length 0: all */
};

/*
 * Writes to @fd, which is the dump's from now on; no vCPU runs meanwhile.  @detach: on a
 * thread; dump_over is called in the main loop at the end.  Machine lock held.
 */
bool dump_start(int fd, const struct dump_part *part, bool detach, GError **error);
struct dump_view dump_view(void);
extern void (*dump_over)(void);
