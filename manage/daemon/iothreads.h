/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/machine.h"

/* Puts the I/O threads of a machine that has just come up where its definition says. */
bool iothreads_place(struct machine *m, GError **error);
