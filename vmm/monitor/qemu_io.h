/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <glib.h>

/* One command of qemu-io on a drive or node: "read -P 1 0 64k", "write", "discard", "flush". */
bool qemu_io(const char *drive, const char *command, GString *out, GError **error);
