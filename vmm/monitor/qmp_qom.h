/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

#include <jansson.h>

/* Paths and properties of qom-get and qom-set. */
struct device *qom_device(const char *path); /* "/machine/peripheral/ID"; NULL: none */
/* What a balloon has beside the words of its -device; NULL: nothing of that name. */
json_t *qom_balloon(const struct device *dev, const char *property);
