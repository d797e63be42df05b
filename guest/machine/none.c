/* SPDX-License-Identifier: GPL-2.0-or-later */
/* none: address spaces and RAM, nothing else; for tools that ask what this program can do. */
#include "guest/machine/pc.h"

static bool build(struct board *board, const struct machine_config *config, GError **error)
{
    struct machine *m = machine_of(board);
    if (config->kernel || config->bios) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-M none has no processor to run anything");
        return false;
    }
    ram_in_files = false; /* nothing will map it a second time */
    m->ram =
        ram_new("ram", (config->ram_bytes + PAGE_SIZE - 1) & PAGE_MASK, &config->ram_source, error);
    if (!m->ram) {
        return false;
    }
    m->ram_low = (struct region){.name = "ram", .size = m->ram->size, .ram = m->ram};
    space_place(board->memory, &m->ram_low, 0, 0);
    return true;
}

const struct machine_model machine_none = {
    .name = "none",
    .about = "empty machine",
    .max_cpus = 1,
    .build = build,
};
