/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/virtio.h"
#include "host/chardev/chardev.h"

/*
 * virtio_serial - one controller and the ports on it (virtconsole, virtserialport)
 */
enum { SERIAL_PORTS_MAX = 31, SERIAL_FIFO = 4096 };

struct virtio_serial;

struct serial_port {
    struct device dev; /* first */
    struct virtio_serial *bus;
    bool console;

    /* State. */
    uint8_t ready, guest_open;
    uint16_t fifo_used;       /* bytes for the guest that it has no buffer for yet */
    uint8_t fifo[SERIAL_FIFO];
    uint64_t sent;            /* of the chain that is being written to the chardev */

    /* Properties. */
    struct chardev *chr;
    const char *name, *prop_bus;
    uint32_t nr;
};

bool serial_port_start(struct serial_port *p, GError **error);
void serial_port_stop(struct serial_port *p);

#define SERIAL_PORT_STATE                                                                          \
    STATE(struct serial_port, ready), STATE(struct serial_port, guest_open),                       \
        STATE(struct serial_port, fifo_used), STATE_ARRAY(struct serial_port, fifo),               \
        STATE(struct serial_port, sent)
#define SERIAL_PORT_PROPS                                                                          \
    {"chardev", PROP_CHARDEV, offsetof(struct serial_port, chr)},                                  \
        {"name", PROP_STRING, offsetof(struct serial_port, name), .help = "/dev/virtio-ports/..."},\
        {"nr", PROP_U32, offsetof(struct serial_port, nr), UINT32_MAX},                            \
        {"bus", PROP_STRING, offsetof(struct serial_port, prop_bus)}
/* For the models' .loaded. */
bool serial_port_loaded(struct device *dev, GError **error);
