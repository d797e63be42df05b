/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The state of a whole machine as a stream of sections:
 *
 *     "HEAD" what machine it is: name, CPUs, blocks of memory
 *     "PAGE" pages of a block, "ZERO" pages that are all zero
 *     "CLCK" the clock, "CPU " one CPU each, "DEV " one device each
 *     "LAST" how many sections there were
 *
 * A section is its name, the length of its content, a check sum, the content.  Pages that
 * are never sent are zero.  Content names what it is (devices by path, registers by name),
 * so that versions can differ and every refusal says in what.
 */
enum { STATE_SECTION_MAX = 16 << 20, STATE_PAGES_MAX = 256 };

struct state_io {
    int fd;
    uint32_t sections;
    _Atomic uint64_t bytes;      /* that went through */
    const _Atomic bool *cancelled; /* NULL: cannot be */
    const _Atomic uint64_t *max_rate; /* bytes a second; NULL or 0: no bound */
    uint64_t paced;              /* .bytes at .paced_at, monotonic microseconds */
    int64_t paced_at;
    uint8_t *buf;                /* content of a section */
    uint32_t n;                  /* its length */
    char tag[5];
};

/* @fd stays the caller's; blocking. */
void state_io_init(struct state_io *io, int fd);
void state_io_clear(struct state_io *io);

/* ---- saving ---- */
bool state_put_head(struct state_io *io, bool running, GError **error);
/* Pages [first, first + n) of memory block @block, where @dirty is NULL or has their bit (bit
 * 0 is the block's first page).  Zero pages are skipped unless @zeroes. */
bool state_put_pages(struct state_io *io, unsigned block, const uint64_t *dirty, bool zeroes,
                     GError **error);
/* Clock, CPUs and devices as bytes; machine lock held, machine stopped. */
GByteArray *state_collect(uint32_t *sections);
bool state_put_rest(struct state_io *io, GByteArray *collected, uint32_t sections, GError **error);

/* ---- loading ---- */
/* All of it, into a machine that stands still.  Takes the machine lock where it needs it. */
bool state_load(struct state_io *io, bool *running, GError **error);
