/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/*
 * acpi_hotplug - numbered places of one kind (processors, memory modules) whose things come
 * and go: what acpi_cpuhp and acpi_memhp have in common behind their register blocks.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS CPU hotplug interface", "QEMU<->ACPI BIOS memory hotplug
 * interface"; ACPI Specification 6.3, "_OST (OSPM Status Indication)", "_EJx (Eject)".
 * Machine lock held.  Embedded in its device.
 */
enum { ACPI_PLACES = 256 };
enum { HOTPLUG_ENABLED = 1, HOTPLUG_INSERT = 2, HOTPLUG_REMOVE = 4, HOTPLUG_EJECT = 8 };

struct acpi_hotplug {
    struct device *dev;
    const char *kind;                                          /* as QMP's events name it */
    unsigned gpe;                                              /* rings for it */
    struct device *(*at)(struct board *board, unsigned place); /* what is there, or NULL */
    uint32_t places;
    uint32_t select;
    uint8_t events[ACPI_PLACES]; /* HOTPLUG_INSERT, _REMOVE that the guest has not taken yet */
    uint32_t ost_event[ACPI_PLACES], ost_status[ACPI_PLACES];
};

/* The register that selects stands among the device's own, at the block's first port. */
#define ACPI_HOTPLUG_STATE(type, m)                                                                \
    STATE_ARRAY(type, m.events, .keep = true), STATE_ARRAY(type, m.ost_event, .keep = true),       \
        STATE_ARRAY(type, m.ost_status, .keep = true)

/* @h may be NULL in these three: a machine without ACPI. */
void acpi_hotplug_plugged(struct acpi_hotplug *h, unsigned place);
/* The guest is asked to give the thing at @place; false: nobody can be asked. */
bool acpi_hotplug_unplug(struct acpi_hotplug *h, unsigned place);
/* What the guest has said of @place; false: there is no such place. */
bool acpi_hotplug_status(struct acpi_hotplug *h, unsigned place, struct ost *out);

bool acpi_hotplug_selected(const struct acpi_hotplug *h);
/* The control register: an event taken, or the thing given; one of them, the first. */
void acpi_hotplug_control(struct acpi_hotplug *h, uint64_t value);
void acpi_hotplug_ost_event(struct acpi_hotplug *h, uint64_t value);
void acpi_hotplug_ost_status(struct acpi_hotplug *h, uint64_t value);
void acpi_hotplug_reset(struct acpi_hotplug *h);
bool acpi_hotplug_loaded(const struct acpi_hotplug *h, GError **error);
