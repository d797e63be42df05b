/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/*
 * acpi_pcihp - hot-plug on PCI buses: they have the number that registers and tables know them by,
 * the root first, a bridge's before those behind it.
 *
 * Numbers are given when the tables are made; a bridge that comes later has no slots of the kind.
 */
enum { ACPI_PCIHP_BUSES = 256 };
enum { ACPI_PCIHP_PC = 0xae00, ACPI_PCIHP_Q35 = 0x0cc0, ACPI_PCIHP_BYTES = 0x14 };
/* Which slots of bus @number ACPI is to name, a bit each; @parent: the bus of its bridge, -1 if it
 * is the root.  False: there is none. */
bool acpi_pcihp_bus(struct board *board, unsigned number, int *parent, uint8_t *devfn,
                    uint32_t *slots);

/* For a port whose guest may also do without ACPI: do the tables name the slot of @bus? */
bool acpi_pcihp_names(const struct pci_bus *bus);
void acpi_pcihp_plugged(struct pci_bus *bus, const struct pci_device *pci);
/* False with an error if nobody could take out what is in the slot of @pci. */
bool acpi_pcihp_may_go(const struct pci_bus *bus, const struct pci_device *pci, GError **error);
void acpi_pcihp_unplug(struct pci_bus *bus, const struct pci_device *pci);
