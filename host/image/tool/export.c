/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/ova.h"

/* lodge-img export */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {0, "force", NULL, "replace files that are there"},
    {'n', "name", "NAME", "name of the machine (that of the file)"},
    {0, "cpus", "N", "processors of the machine (1)"},
    {0, "memory", "SIZE", "memory of the machine (1G)"},
    {0, "os", "TEXT", "operating system, for people"},
    {0, "manifest", "KIND", "digests of the files: sha256, sha1, none (sha256)"},
    {0, "level", "N", "level of compression; 1 is the fastest"},
    {'m', NULL, "N", "threads, 1 to 16 (one for each processor)"},
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

static int run(struct args *args)
{
    return ova_run("lodge_export", args);
}

const struct verb verb_export = {"export", "pack disks as an OVA or OVF",
                                 "DISK... FILE.ova|FILE.ovf", options, run};
