/* SPDX-License-Identifier: GPL-2.0-or-later */

/* port: libvirt's <networkport>, a machine's place on a network. */
#include "manage/error.h"
#include "manage/model/network_rows.h"
#include "manage/model/pool.h"

static XML_WORDS(plug_words, "network", "bridge", "direct");

#define P struct net_port
static const struct xml_row port_rows[] = {
    XML_TEXT(P, uuid, "uuid", 0),
    XML_TEXT(P, owner, "owner/name", XML_REQUIRED),
    XML_TEXT(P, owner_uuid, "owner/uuid", XML_REQUIRED),
    XML_TEXT(P, group, "group", 0),
    XML_TEXT(P, mac, "mac/@address", XML_REQUIRED),
    XML_STRUCT(P, inbound, "bandwidth/inbound", &inbound_table, 0),
    XML_STRUCT(P, outbound, "bandwidth/outbound", &outbound_table, 0),
    XML_STRUCT(P, vlan, "vlan", &net_vlan_table, 0),
    XML_YESNO(P, isolated, "port/@isolated", 0),
    XML_YESNO(P, trust, "rxfilters/@trustGuest", 0),
    XML_ENUM(P, plug, "plug/@type", plug_words, 0),
    XML_TEXT(P, bridge, "plug/@bridge", 0),
    XML_TEXT(P, dev, "plug/@dev", 0),
    XML_TEXT(P, mode, "plug/@mode", 0),
};
static const struct xml_table port_table = XML_TABLE("networkport", P, port_rows);
#undef P

struct net_port *net_port_new(void)
{
    return xml_new(&port_table);
}

struct net_port *net_port_parse(const char *text, GError **error)
{
    uint8_t mac[6];
    struct net_port *port = xml_read_text(&port_table, text, "network_port_definition", 0, error);
    if (port && uuid_normalise(&port->uuid, error) && uuid_normalise(&port->owner_uuid, error) &&
        vlan_check(port->vlan, error) && bandwidth_check(port->inbound, port->outbound, error)) {
        if (mac_parse(port->mac, mac) && !(mac[0] & 1)) {
            return port;
        }
        libvirt_error(error, ERR_XML, "unable to parse mac '%s' of <networkport>", port->mac);
    }
    net_port_free(port);
    return NULL;
}

void net_port_free(void *port)
{
    if (port) {
        xml_free(&port_table, port);
    }
}

char *net_port_format(const struct net_port *port)
{
    return xml_write_text(&port_table, port, XML_MODE_LIVE);
}
