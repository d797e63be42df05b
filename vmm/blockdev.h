/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* Nodes of -blockdev: @options as QMP's blockdev-add has them; values may be text. */
bool vm_blockdev_add(const json_t *options, GError **error);
bool vm_blockdev_remove(const char *name, GError **error);
