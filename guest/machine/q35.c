/* SPDX-License-Identifier: GPL-2.0-or-later */
/* q35: Q35 and ICH9, the board with PCI Express. */
#include "guest/machine/pc.h"

enum { MAX_CPUS = 255 };

static bool southbridge(struct machine *m, GError **error)
{
    struct board *b = m->board;
    struct device *lpc = pc_device_new("ICH9-LPC", error);
    if (!lpc || !device_set(lpc, "addr", "1f.0", error) ||
        !device_set(lpc, "smm", m->smm ? "on" : "off", error) ||
        !pc_connect_isa_irqs(m, lpc, error) ||
        !device_connect(lpc, "sci", WIRE_IRQ, b->isa_irq[SCI_IRQ], error)) {
        return false;
    }
    for (unsigned i = 0; i < 8; i++) {
        g_autofree char *wire = g_strdup_printf("gsi%u", i);
        if (b->gsi[16 + i] && !device_connect(lpc, wire, WIRE_IRQ, b->gsi[16 + i], error)) {
            return false;
        }
    }
    return device_start(lpc, b, "lpc", error);
}

static bool smbus(struct machine *m, GError **error)
{
    bool on;
    return machine_prop_bool(m, "smbus", true, &on, error) &&
           (!on || pc_device(m, "ICH9-SMB", "smbus", error, "addr", "1f.3", NULL));
}

static bool build(struct board *board, const struct machine_config *config, GError **error)
{
    struct machine *m = machine_of(board);
    (void)config;
    m->q35 = true;
    return pc_begin(m, 0xb0000000, 0x80000000, error) &&
           pc_device(m, "mch", "mch", error, "addr", "0", NULL) && southbridge(m, error) &&
           pc_hot_plug(m, error) && smbus(m, error) && pc_isa_devices(m, error) && pc_screen(m, "1", error) && pc_drives(m, error);
}

const struct machine_model machine_q35 = {
    .name = "q35",
    .alias = "pc-q35-7.2,pc-q35-7.1,pc-q35-7.0,pc-q35-6.2,pc-q35-6.1,pc-q35-6.0,pc-q35-5.2,"
             "pc-q35-4.2,pc-q35-3.1,pc-q35-2.12",
    .about = "Standard PC (Q35 + ICH9, 2009)",
    .max_cpus = MAX_CPUS,
    .build = build,
    .finish = pc_finish,
};
