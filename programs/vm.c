/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/vm.h"

int main(int argc, char **argv)
{
    return vm_main(argc, argv);
}
