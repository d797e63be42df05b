/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/*
 * acpi_pcihp - hot-plug of the machine pc: buses by the number that registers and tables know them
 * by, the root first, a bridge's before those behind it.
 *
 * Numbers are given when the tables are made; a bridge that comes later has no slots of the kind.
 */
enum { ACPI_PCIHP_BUSES = 16 };
/* Which slots of bus @number ACPI is to name, a bit each; @parent: the bus of its bridge, -1 if it
 * is the root.  False: there is none. */
bool acpi_pcihp_bus(struct board *board, unsigned number, int *parent, uint8_t *devfn,
                    uint32_t *slots);
