/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "vmm/monitor/qmp.h"

/* A prototype for each row of schema/monitor.def. */
#define QMP(name, handler, args, result, help) json_t *qmp_##handler(json_t *a, GError **error);
#include "schema/monitor.def"
#undef QMP
