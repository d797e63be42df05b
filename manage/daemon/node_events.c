/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices of the host that come, go and change, as the kernel tells of them.
 *
 * Spec: Linux, Documentation/ABI/testing/sysfs-uevent and lib/kobject_uevent.c: a message is
 * "ACTION@PATH", the path below /sys, and lines NAME=VALUE, all ended by zero bytes.
 */
#include "manage/daemon/node_device.h"

#include "manage/daemon/client.h"
#include "manage/daemon/verb.h"
#include "manage/error.h"

#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

/* libvirt's numbers. */
enum { DEVICE_CREATED, DEVICE_DELETED };
enum { KERNEL_GROUP = 1, MESSAGE_MAX = 8192, CHANGED_MAX = 1024 };

/* Daemon lock.  What is known is kept only while somebody listens. */
static GHashTable *known;   /* names; NULL: nobody listens */
static GHashTable *changed; /* paths below /sys, of which a change was told */
static bool looking, again;

static GHashTable *names_of(const GPtrArray *all)
{
    GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; i < all->len; i++) {
        const struct node_device *d = g_ptr_array_index(all, i);
        g_hash_table_add(names, g_strdup(d->name));
    }
    return names;
}

static void tell(const char *name, int event)
{
    rpc_event_node_device message = {.dev.name = (char *)name, .event = event};
    event_node_device_lifecycle(&message);
}

/* What is in @names and not in @others. */
static void tell_those_beyond(GHashTable *names, GHashTable *others, int event)
{
    GHashTableIter it;
    gpointer name;
    g_hash_table_iter_init(&it, names);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        if (!g_hash_table_contains(others, name)) {
            tell(name, event);
        }
    }
}

static void tell_changes(const GPtrArray *all, GHashTable *before)
{
    for (unsigned i = 0; i < all->len && changed; i++) {
        const struct node_device *d = g_ptr_array_index(all, i);
        if (g_hash_table_contains(changed, d->path) && g_hash_table_contains(before, d->name)) {
            rpc_event_node_device_update message = {.dev.name = d->name};
            event_node_device_update(&message);
        }
    }
    g_clear_pointer(&changed, g_hash_table_unref);
}

/* On a worker: what differs from what was there. */
static void look(void *unused)
{
    (void)unused;
    daemon_lock();
    do {
        again = false;
        daemon_unlock();
        g_autoptr(GPtrArray) all = node_devices();
        daemon_lock();
        if (known) {
            GHashTable *before = known;
            known = names_of(all);
            tell_those_beyond(before, known, DEVICE_DELETED);
            tell_those_beyond(known, before, DEVICE_CREATED);
            tell_changes(all, before);
            g_hash_table_unref(before);
        }
    } while (again);
    looking = false;
    daemon_unlock();
}

static void look_soon(void)
{
    again = true;
    if (!looking) {
        looking = true;
        daemon_worker(look, NULL);
    }
}

/* Daemon lock held.  @message ends with a zero byte. */
static void heard(const char *message)
{
    static const char change[] = "change@";
    if (!event_is_heard(CLASS_NODE_DEVICE)) {
        g_clear_pointer(&known, g_hash_table_unref);
        g_clear_pointer(&changed, g_hash_table_unref);
        return;
    }
    if (g_str_has_prefix(message, change)) {
        changed = changed ? changed : g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        if (g_hash_table_size(changed) < CHANGED_MAX) {
            g_hash_table_add(changed, g_strconcat("/sys", message + strlen(change), NULL));
        }
    }
    look_soon();
}

static void ready(struct watch *watch, uint32_t events)
{
    char bytes[MESSAGE_MAX];
    (void)events;
    for (;;) {
        struct sockaddr_nl from = {0};
        socklen_t length = sizeof(from);
        ssize_t n = recvfrom(watch->fd, bytes, sizeof(bytes) - 1, MSG_DONTWAIT,
                             (struct sockaddr *)&from, &length);
        if (n < 0 && errno != ENOBUFS) { /* then some were lost, and a look tells which */
            return;
        }
        bytes[MAX(n, 0)] = '\0';
        daemon_lock();
        if (!from.nl_pid) { /* others than the kernel have a number */
            heard(bytes);
        }
        daemon_unlock();
    }
}

static struct watch watch = {.fd = -1, .events = EPOLLIN, .ready = ready};

static bool node_events_start(GError **error)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
    (void)error; /* the rest of us works without */
    watch.fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (watch.fd < 0 || bind(watch.fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        !poller_add(&watch)) {
        daemon_log("no events of the host's devices: %s", g_strerror(errno));
        if (watch.fd >= 0) {
            close(watch.fd);
        }
        watch.fd = -1;
    }
    return true;
}

static void node_events_stop(void)
{
    if (watch.fd >= 0) {
        poller_remove(&watch);
        close(watch.fd);
    }
    g_clear_pointer(&known, g_hash_table_unref);
    g_clear_pointer(&changed, g_hash_table_unref);
}

bool node_events_begin(GError **error)
{
    if (watch.fd < 0) {
        libvirt_error(error, ERR_NO_SUPPORT,
                      "events of node devices: the kernel does not tell us of them here");
        return false;
    }
    if (!known) {
        daemon_unlock();
        g_autoptr(GPtrArray) all = node_devices();
        daemon_lock();
        known = known ? known : names_of(all);
    }
    look_soon(); /* for what came meanwhile */
    return true;
}

const struct daemon_room room_node_events = {
    .name = "events of devices", .start = node_events_start, .stop = node_events_stop};
