/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pc: i440FX and PIIX3, the board that every x86 system boots on. */
#include "guest/machine/pc.h"

enum { MAX_CPUS = 255 };

static bool southbridge(struct machine *m, GError **error)
{
    struct device *isa = pc_device_new("PIIX3", error);
    if (!isa || !device_set(isa, "addr", "1.0", error) || !pc_connect_isa_irqs(m, isa, error) ||
        !device_start(isa, m->board, "piix3", error)) {
        return false;
    }
    struct device *pm = pc_device_new("PIIX4_PM", error);
    return pm && device_set(pm, "addr", "1.3", error) &&
           device_set(pm, "smm", m->smm ? "on" : "off", error) &&
           device_connect(pm, "sci", WIRE_IRQ, m->board->isa_irq[SCI_IRQ], error) &&
           device_start(pm, m->board, "pm", error) &&
           pc_hot_plug(m, error);
}

static bool build(struct board *board, const struct machine_config *config, GError **error)
{
    struct machine *m = machine_of(board);
    (void)config;
    return pc_begin(m, 0xe0000000, 0xc0000000, error) &&
           pc_device(m, "i440FX", "i440fx", error, "addr", "0", NULL) && southbridge(m, error) &&
           pc_isa_devices(m, error) && pc_screen(m, "2", error) && pc_drives(m, error);
}

const struct machine_model machine_pc = {
    .name = "pc",
    .alias = "pc-i440fx-7.2,pc-i440fx-7.1,pc-i440fx-7.0,pc-i440fx-6.2,pc-i440fx-6.1,pc-i440fx-6.0,"
             "pc-i440fx-5.2,pc-i440fx-4.2,pc-i440fx-3.1,pc-i440fx-2.12",
    .about = "Standard PC (i440FX + PIIX, 1996)",
    .is_default = true,
    .max_cpus = MAX_CPUS,
    .build = build,
    .finish = pc_finish,
};
