/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

struct device;

/*
 * What CMOS should say of drive @unit: the type whose own disks have the geometry of the one
 * inside, because BIOS answers questions about the geometry from it.  0: no drive; without a
 * disk 5, which takes all.
 */
unsigned isa_fdc_drive_type(const struct device *dev, unsigned unit);
