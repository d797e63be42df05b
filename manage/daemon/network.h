/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/managed.h"
#include "manage/model/network.h"

#include <net/if.h>

/*
 * The networks of this daemon, and what a machine's interface is attached to.  All of it
 * belongs to the daemon lock.
 *
 * Starting and stopping give the lock up; the network's job flag is held meanwhile.
 */
struct network {
    struct network_def *def;
    struct network_def *next; /* defined while it runs: what it is after it was stopped; or NULL */
    GPtrArray *ports;         /* struct net_port: who is plugged in while it runs */
    bool active, persistent, autostart;
    bool changing;
    bool gone; /* no longer in the list */
    unsigned refs;
};

enum { NETWORK_DEFINED, NETWORK_UNDEFINED, NETWORK_STARTED, NETWORK_STOPPED };

extern GPtrArray *networks; /* struct network, by name */
extern const struct daemon_room room_network;

extern const struct managed_kind network_kind;
struct network *network_find(const char *name);
/* A new network or the one of that name with its definition changed; takes @def over.  With
 * @transient: one that is to be started now, whose lasting definition, if it has one, stays.  In a
 * turn. */
struct network *network_add(struct network_def *def, bool transient, GError **error);
void network_remove(struct network *net);
const struct network_def *network_lasting(const struct network *net);
/* The same as what lasts, and on the disk, or not at all.  In a turn; gives the lock up. */
struct network *network_define(struct network_def *def, GError **error);
bool network_save(const struct network *net, GError **error);
bool network_forget_files(struct network *net, GError **error);
bool network_set_autostart(struct network *net, bool on, GError **error);
void network_event(const struct network *net, int event);

/* Waits for whoever changes it, for a while only; ended by network_changed(). */
bool network_change(struct network *net, GError **error);
void network_changed(struct network *net);
/* With network_change() in force; they give up the lock. */
bool network_start(struct network *net, GError **error);
bool network_stop(struct network *net, GError **error);
/* What runs becomes @live, which is taken over on success, without an interruption of ports. */
bool network_apply(struct network *net, struct network_def *live, GError **error);

/* ---- who is plugged in ---- */

struct net_port *network_port_find(const struct network *net, const char *uuid);
/* Takes @port over, decides where it comes to and notes it. */
bool network_port_add(struct network *net, struct net_port *port, GError **error);
void network_port_remove(struct network *net, const char *uuid); /* @net NULL: nothing */
/* Which of the network's devices the next port gets; NULL with an error. */
const char *network_port_device(const struct network *net, GError **error);
void network_ports_load(struct network *net);
void network_ports_clear(struct network *net);
/* Their numbers into the definition of what runs. */
void network_ports_count(struct network *net);

/* ---- what a machine's interface is attached to ---- */

/* What <interface> says; what is NULL or 0 is not said. */
struct port_want {
    const char *owner, *owner_uuid;  /* the machine */
    const char *network, *portgroup; /* of type "network" */
    const char *bridge;              /* of type "bridge" */
    const char *lower, *mode;        /* of type "direct": macvtap over a device of the host */
    bool ethernet;                   /* a tap that is nowhere plugged in */
    bool theirs;                     /* .device is there, and stays */
    const char *device;              /* the host's name for the port */
    uint8_t mac[6];                  /* the guest's */
    bool vnet_header;                /* virtio: packets with a header for offloading */
    unsigned queues;                 /* descriptors that are wanted; 0 counts as 1 */
    unsigned mtu;                    /* 0: that of the network */
    const struct net_vlan *vlan;     /* instead of that of portgroup or network */
    enum tristate isolated;
};

enum { PORT_QUEUES_MAX = 256 };
struct port {
    char device[IFNAMSIZ]; /* "vnet0", "macvtap0" */
    char bridge[IFNAMSIZ]; /* "": none */
    char mode[16];         /* of macvtap; "": it is a tap */
    char lower[IFNAMSIZ];  /* of macvtap: the host's device */
    char id[37];           /* of the network's port; "": there is none */
    unsigned mtu;          /* 0: the usual one */
    int *fds;              /* .queues of them, the caller's; g_malloc'd */
    unsigned queues;
};

/*
 * Makes a tap on the bridge, or a macvtap.  It lives as long as its descriptors are open (a
 * macvtap: until port_detach()).  May be called with the lock held: it does not wait.
 * ERR_OPERATION_INVALID if the network does not run.
 */
bool port_attach(const struct port_want *want, struct port *out, GError **error);
/* After the machine has closed its descriptors; also if it is gone already. */
void port_detach(const char *device);
/* A tap goes to what @want says, of which only where and whose counts; @out gets .bridge and .id.
 */
bool port_move(const char *device, const struct port_want *want, struct port *out, GError **error);
void port_clear(struct port *port); /* closes and frees */
