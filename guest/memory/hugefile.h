/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * A file in memory without a name, @bytes long, all zeroes: a memfd, or, where the host lets us,
 * one that gets huge pages as its memory is touched.  -1 with errno.  One thread at a time.
 */
int huge_file(const char *name, uint64_t bytes);
