/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/*
 * acpi_cpuhp - tells the guest of processors that came or are to go.
 *
 * Machine lock held.  Without the device (no ACPI) nobody is told.
 */
enum { ACPI_CPUHP_PC = 0xaf00, ACPI_CPUHP_Q35 = 0x0cd8, ACPI_CPUHP_BYTES = 0x0c };
void acpi_cpuhp_plugged(struct board *board, unsigned index);
bool acpi_cpuhp_unplug(struct board *board, unsigned index, GError **error);
/* What the guest has said of processor @index; false: there is no such place. */
bool acpi_cpuhp_status(struct board *board, unsigned index, struct ost *out);
