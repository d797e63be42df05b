/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

/* The program; its exit code. */
int shell_main(int argc, char **argv);
/* A verb has asked for the end. */
bool shell_is_over(const struct shell *sh);
