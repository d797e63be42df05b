/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/* QEMU's ImageInfo of one node, with its keys in its order; a new reference. */
json_t *node_info(struct node *node);
