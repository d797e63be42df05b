/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/* pc_dimm - memory modules, which may come and go while the guest runs. */
struct dimm {
    struct device *dev;
    uint64_t at, bytes; /* in guest memory */
    uint32_t slot, node;
    const char *memdev; /* id of its backend */
    bool hotplugged;    /* it came while the machine ran */
};

/* The module in @slot; false: there is none. */
bool pc_dimm_at(struct board *board, unsigned slot, struct dimm *out);
/* Is @memdev behind one? */
bool pc_dimm_uses(struct board *board, const char *memdev);
/* Bytes of all. */
uint64_t pc_dimm_total(struct board *board);
