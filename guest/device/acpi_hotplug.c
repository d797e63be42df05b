/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/acpi_hotplug.h"

#include "guest/device/acpi_pm.h"

static void tell(struct acpi_hotplug *h)
{
    struct acpi_pm *pm = acpi_pm_of(h->dev->board);
    if (pm) {
        acpi_pm_gpe(pm, h->gpe);
    }
}

void acpi_hotplug_plugged(struct acpi_hotplug *h, unsigned place)
{
    if (h && place < h->places) {
        h->events[place] = HOTPLUG_INSERT;
        tell(h);
    }
}

bool acpi_hotplug_unplug(struct acpi_hotplug *h, unsigned place)
{
    if (!h || place >= h->places) {
        return false;
    }
    h->events[place] |= HOTPLUG_REMOVE;
    tell(h);
    return true;
}

bool acpi_hotplug_status(struct acpi_hotplug *h, unsigned place, struct ost *out)
{
    if (!h || place >= h->places) {
        return false;
    }
    struct device *dev = h->at(h->dev->board, place);
    *out = (struct ost){.device = dev ? dev->id : NULL,
                        .kind = h->kind,
                        .slot = place,
                        .source = h->ost_event[place],
                        .status = h->ost_status[place]};
    return true;
}

bool acpi_hotplug_selected(const struct acpi_hotplug *h)
{
    return h->select < h->places;
}

static void let_go(struct acpi_hotplug *h, unsigned place)
{
    struct device *dev = h->at(h->dev->board, place);
    h->events[place] = 0;
    if (dev) {
        dev->model->ejected(dev);
    }
}

void acpi_hotplug_control(struct acpi_hotplug *h, uint64_t value)
{
    if (!acpi_hotplug_selected(h)) {
        return;
    }
    if (value & HOTPLUG_INSERT) {
        h->events[h->select] &= (uint8_t)~HOTPLUG_INSERT;
    } else if (value & HOTPLUG_REMOVE) {
        h->events[h->select] &= (uint8_t)~HOTPLUG_REMOVE;
    } else if (value & HOTPLUG_EJECT) {
        let_go(h, h->select);
    }
}

void acpi_hotplug_ost_event(struct acpi_hotplug *h, uint64_t value)
{
    if (acpi_hotplug_selected(h)) {
        h->ost_event[h->select] = (uint32_t)value;
    }
}

void acpi_hotplug_ost_status(struct acpi_hotplug *h, uint64_t value)
{
    struct board *board = h->dev->board;
    struct ost ost;
    if (!acpi_hotplug_selected(h)) {
        return;
    }
    h->ost_status[h->select] = (uint32_t)value;
    if (board->ost && acpi_hotplug_status(h, h->select, &ost)) {
        board->ost(board, &ost);
    }
}

/* A guest that starts anew finds those that came; what it was asked to give it need not. */
void acpi_hotplug_reset(struct acpi_hotplug *h)
{
    for (unsigned i = 0; i < h->places; i++) {
        if (h->events[i] & HOTPLUG_REMOVE) {
            let_go(h, i);
        }
        h->events[i] = 0;
        h->ost_event[i] = h->ost_status[i] = 0;
    }
}

bool acpi_hotplug_loaded(const struct acpi_hotplug *h, GError **error)
{
    for (unsigned i = 0; i < ACPI_PLACES; i++) {
        if (h->events[i] & ~(HOTPLUG_INSERT | HOTPLUG_REMOVE)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s %u: no such event %u", h->kind, i,
                        h->events[i]);
            return false;
        }
    }
    return true;
}
