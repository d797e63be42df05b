/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/* The board's part "vmcoreinfo": where the guest says its note for dumps is; false: nowhere. */
bool vmcoreinfo_note(struct device *dev, uint64_t *gpa, uint32_t *bytes);
