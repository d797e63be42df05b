/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/* What the monitor does with a balloon: the board's part "balloon". */
enum { BALLOON_PAGE = 4096, BALLOON_STATS = 10 };

/* How many bytes the guest is to give up; rounded down to pages. */
void balloon_set_target(struct device *dev, uint64_t bytes);
/* How many it has given up. */
uint64_t balloon_given(const struct device *dev);
/* The guest's last figures by tag (VIRTIO_BALLOON_S_*); UINT64_MAX: not told. */
const uint64_t *balloon_stats(const struct device *dev);
/* When they came, seconds since 1970; 0: never. */
uint64_t balloon_stats_time(const struct device *dev);
/* Asks for new ones every @seconds; 0: no more. */
void balloon_poll_stats(struct device *dev, uint32_t seconds);
uint32_t balloon_poll_seconds(const struct device *dev);
/* Asks the guest for new ones. */
void balloon_ask_stats(struct device *dev);
