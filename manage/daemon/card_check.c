/* SPDX-License-Identifier: GPL-2.0-or-later */

/* card_check: what an <interface> may ask for goes by its type and model: all else is refused. */
#include "manage/daemon/machine.h"
#include "manage/rpc/error.h"

#include <string.h>

enum {
    TYPE_NETWORK = 1 << IFACE_NETWORK,
    TYPE_BRIDGE = 1 << IFACE_BRIDGE,
    TYPE_USER = 1 << IFACE_USER,
    TYPE_DIRECT = 1 << IFACE_DIRECT,
    TYPE_ETHERNET = 1 << IFACE_ETHERNET
};
enum { ON_BRIDGE = TYPE_NETWORK | TYPE_BRIDGE, DRIVER_VHOST = 2, FORWARDS_MAX = 256 };

static bool refuse(const char *element, const struct domain_interface *nic, GError **error)
{
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                  "<%s> of an interface of type '%s' is not supported", element,
                  interface_table.rows[0].words[nic->type]);
    return false;
}

static bool type_may(const struct domain_interface *nic, GError **error)
{
    const struct {
        const char *element;
        bool asked;
        unsigned types;
    } rows[] = {
        {"vlan", xml_count(nic->tags), ON_BRIDGE},
        {"port isolated='yes'", nic->isolated == TRI_YES, ON_BRIDGE},
        {"bandwidth", nic->inbound || nic->outbound, ON_BRIDGE | TYPE_DIRECT | TYPE_ETHERNET},
        {"filterref", nic->filter, ON_BRIDGE},
        {"mtu", nic->mtu != XML_ABSENT, ON_BRIDGE | TYPE_ETHERNET},
        {"ip", xml_count(nic->ips), TYPE_USER},
        {"target managed='no'", nic->target_managed == TRI_NO, TYPE_ETHERNET},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (rows[i].asked && !(rows[i].types >> nic->type & 1)) {
            return refuse(rows[i].element, nic, error);
        }
    }
    if (nic->target_managed == TRI_NO && !nic->target) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "target dev name required for an interface with managed='no'");
        return false;
    }
    return true;
}

static bool model_may(const struct domain_interface *nic, GError **error)
{
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"queues", nic->queues},
                {"rx_queue_size", nic->rx_queue_size},
                {"tx_queue_size", nic->tx_queue_size}};
    if (nic->driver == DRIVER_VHOST) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<driver name='vhost'> of an interface is not supported");
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (rows[i].value != XML_ABSENT && !g_str_has_prefix(nic->model, "virtio")) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s of <driver> is not supported for: %s",
                          rows[i].name, nic->model);
            return false;
        }
    }
    if (nic->queues != XML_ABSENT && (nic->queues < 1 || nic->queues > NIC_QUEUES_MAX ||
                                      (nic->queues > 1 && nic->type == IFACE_USER))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<driver queues='%ld'>: a card has 1 to %d, and 1 on a user network",
                      (long)nic->queues, NIC_QUEUES_MAX);
        return false;
    }
    return true;
}

static bool forwards_may(const struct domain_interface *nic, GError **error)
{
    int64_t ports = 0;
    for (unsigned i = 0; i < xml_count(nic->forwards); i++) {
        const struct port_forward *f = nic->forwards->pdata[i];
        if (f->dev) {
            return refuse("portForward dev=", nic, error);
        }
        for (unsigned k = 0; k < xml_count(f->ranges); k++) {
            const struct port_range *r = f->ranges->pdata[k];
            int64_t end = r->end == XML_ABSENT ? r->start : r->end;
            int64_t to = r->to == XML_ABSENT ? r->start : r->to;
            if (r->exclude == TRI_YES) {
                return refuse("range exclude='yes'", nic, error);
            }
            if (r->start < 1 || end < r->start || end > UINT16_MAX || to < 1 ||
                to + end - r->start > UINT16_MAX) {
                libvirt_error(error, ERR_XML, "invalid <range> of <portForward>: %ld to %ld",
                              (long)r->start, (long)end);
                return false;
            }
            ports += end - r->start + 1;
        }
    }
    if (ports > FORWARDS_MAX) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<portForward> of %ld ports: an interface has at most %d", (long)ports,
                      FORWARDS_MAX);
    }
    return ports <= FORWARDS_MAX;
}

bool card_can_be(const struct domain_interface *nic, GError **error)
{
    return type_may(nic, error) && model_may(nic, error) && forwards_may(nic, error);
}

bool cards_can_be(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        if (!card_can_be(def->interfaces->pdata[i], error)) {
            return false;
        }
    }
    return true;
}
