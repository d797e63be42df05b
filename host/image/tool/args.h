/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/tool/tool.h"

enum args_outcome { ARGS_FINE, ARGS_HELP, ARGS_WRONG };

/* Prints what is wrong.  args_clear() after all of them. */
enum args_outcome args_parse(struct args *args, const struct verb *verb, int argc, char **argv);
void args_clear(struct args *args);
