/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtconsole: console on a virtio-serial bus (hvc0).
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Console Device".
 */
#include "base/util.h"
#include "guest/device/virtio_serial.h"

static bool start(struct device *dev, GError **error)
{
    struct serial_port *p = container_of(dev, struct serial_port, dev);
    p->console = true;
    return serial_port_start(p, error);
}

static void stop(struct device *dev)
{
    serial_port_stop(container_of(dev, struct serial_port, dev));
}

static const struct reg regs[] = {SERIAL_PORT_STATE};
static const struct prop props[] = {SERIAL_PORT_PROPS};

const struct device_model model_virtconsole = {
    .name = "virtconsole",
    .about = "console on a virtio-serial bus (hvc0)",
    .spec = "OASIS VIRTIO 1.1, \"Console Device\"",
    .size = sizeof(struct serial_port),
    .version = 1,
    .bus = BUS_VIRTIO,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .loaded = serial_port_loaded,
};
