/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/run.h"

int main(int argc, char **argv)
{
    return shell_main(argc, argv);
}
