/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/protocol.h"
#include "host/image/tool/ova.h"

/* lodge-img import */

static const struct tool_option options[] = {
    OPTION_HELP,
    {'O', NULL, "FORMAT", "format of the new disks (qcow2)"},
    {'o', NULL, "OPTIONS", "options of that format; create -o help lists them"},
    {'c', NULL, NULL, "compress the new disks"},
    {'d', "directory", "FOLDER", "where the new disks go (.)"},
    {0, "list", NULL, "only tell what the machine has"},
    {0, "force", NULL, "overwrite what is there"},
    {'m', NULL, "N", "threads, 1 to 16 (one for each processor)"},
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    OPTION_OUTPUT,
    {0},
};

int ova_run(const char *symbol, struct args *args)
{
    g_autoptr(GError) error = NULL;
    union {
        const void *symbol;
        int (*run)(struct args *args);
    } found = {.symbol = module_symbol("ova", symbol, &error)};
    if (!found.symbol) {
        tool_error("%s", error->message);
        return 1;
    }
    return found.run(args);
}

static int run(struct args *args)
{
    return ova_run("lodge_import", args);
}

const struct verb verb_import = {"import", "unpack the disks of an OVA or OVF", "FILE.ova|FILE.ovf",
                                 options, run};
