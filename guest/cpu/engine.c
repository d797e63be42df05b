/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/engine.h"

#include <glib.h>

const struct cpu_engine *cpu_engine_find(const char *name)
{
    const char *real = g_str_equal(name, "tcg") ? "bt" : name;
    for (unsigned i = 0; i < n_cpu_engines; i++) {
        if (g_str_equal(cpu_engines[i]->name, real)) {
            return cpu_engines[i];
        }
    }
    return NULL;
}
