/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/machine.h"

/* What a machine's guest says of its memory through the balloon. */
enum { BALLOON_FIGURES = 11 };
struct balloon_figure {
    int tag;          /* libvirt's number */
    const char *stat; /* as domstats calls it */
    uint64_t value;   /* KiB, or a number */
};
/* Those that the guest has told; how many.  Gives up the lock. */
unsigned balloon_figures(struct machine *m, unsigned ms,
                         struct balloon_figure out[BALLOON_FIGURES]);
/* Has the guest asked as often as the definition says. */
bool balloon_start(struct machine *m, GError **error);
