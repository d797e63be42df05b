/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/*
 * acpi_pm - the fixed ACPI hardware that PIIX4 and ICH9 have in common: PM1 event and
 * control blocks, power management timer, general-purpose events, power button.
 *
 * Spec: Advanced Configuration and Power Interface Specification 6.3, "ACPI Register Model",
 * "PM1 Event Grouping", "PM1 Control Grouping", "Power Management Timer".
 * Embedded in its device.
 */
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TIMER = 8, ACPI_PM_BYTES = 12, GPE_BYTES = 8 };
enum { SLEEP_S5 = 0, SLEEP_S3 = 1, SLEEP_S4 = 2 }; /* SLP_TYP, as the tables say too */

struct acpi_pm {
    struct device *dev;
    struct irq *sci;
    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint8_t gpe_sts[GPE_BYTES], gpe_en[GPE_BYTES];
    unsigned gpe_bytes;                 /* of each half */
    uint8_t disable_s3, disable_s4;     /* properties: the tables do not offer them */
    bool hotplug_root, hotplug_bridges; /* properties, too: PCI buses whose slots ACPI fills */
    uint64_t carry_at;                  /* guest-clock ns when the timer's top bit turns next */
    struct timer carry;
    struct region fixed, gpe;
};

#define ACPI_PM_STATE(type, m)                                                                     \
    STATE(type, m.pm1_sts), STATE(type, m.pm1_en), STATE(type, m.pm1_cnt),                         \
        STATE_ARRAY(type, m.gpe_sts), STATE_ARRAY(type, m.gpe_en), STATE(type, m.carry_at),        \
        STATE_TIMER(type, m.carry)

#define ACPI_PM_PROPS(type, m)                                                                     \
    {"disable_s3", PROP_U8, offsetof(type, m.disable_s3), .help = "1: no sleep to RAM"},           \
        {"disable_s4", PROP_U8, offsetof(type, m.disable_s4), .help = "1: no sleep to disk"},      \
    {                                                                                              \
        "acpi-pci-hotplug-with-bridge-support", PROP_BOOL, offsetof(type, m.hotplug_bridges), 1,   \
            .help = "off: ACPI fills no slots behind bridges and ports"                            \
    }

/* Names the regions .fixed (12 bytes) and .gpe; the device places them.  Becomes the board's
 * part "pm" and its power button. */
void acpi_pm_init(struct acpi_pm *pm, struct device *dev, unsigned gpe_bytes);
void acpi_pm_stop(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);
void acpi_pm_settle(struct acpi_pm *pm);
/* APM_CNT said ACPI_ENABLE or ACPI_DISABLE: who gets the events. */
void acpi_pm_enable(struct acpi_pm *pm, bool on);
/* After the reset that ends S3: tells the guest why it woke. */
void acpi_pm_wake(struct acpi_pm *pm);
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);
/* The machine's, found through the board's part "pm"; NULL if there is none. */
struct acpi_pm *acpi_pm_of(struct board *board);
