/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/*
 * acpi_memhp - tells the guest of memory modules that came or are to go.
 *
 * Machine lock held.  Without the device (no ACPI) nobody is told.
 */
enum { ACPI_MEMHP_AT = 0x0a00, ACPI_MEMHP_BYTES = 0x18 };
void acpi_memhp_plugged(struct board *board, unsigned slot);
bool acpi_memhp_unplug(struct board *board, unsigned slot, GError **error);
/* What the guest has said of the module in @slot; false: there is no such slot. */
bool acpi_memhp_status(struct board *board, unsigned slot, struct ost *out);
