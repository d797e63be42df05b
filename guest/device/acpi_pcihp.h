/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/* acpi_pcihp - hot-plug of the machine pc: the slots, a bit each, that ACPI is to name. */
uint32_t acpi_pcihp_slots(struct board *board);
