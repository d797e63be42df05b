/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/* cpu - a processor that was added by -device, and that may go again. */
struct device *cpu_device_find(struct board *board,
                               unsigned index); /* NULL: soldered on, or none */
/* The guest has let go of it, but it was not freed yet. */
bool cpu_device_leaving(struct board *board, unsigned index);
