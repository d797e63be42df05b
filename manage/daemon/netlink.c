/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * netlink: bridges, ports, taps, addresses and routes.
 *
 * Spec: Linux, Documentation/userspace-api/netlink/intro.rst and specs/rt_link.yaml,
 * rt_addr.yaml, rt_route.yaml.
 */
#include "manage/daemon/netlink.h"

#include "base/util.h"

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_MAX = 4096, MAC_BYTES = 6, CENTISECONDS = 100, ANSWER_MAX = 32768 };

/* One request in the making. */
struct request {
    char bytes[REQUEST_MAX];
    struct nlmsghdr *head;
};

static void begin(struct request *r, uint16_t type, uint16_t flags)
{
    memset(r->bytes, 0, sizeof(r->bytes));
    r->head = mnl_nlmsg_put_header(r->bytes);
    r->head->nlmsg_type = type;
    r->head->nlmsg_flags = NLM_F_REQUEST | flags;
    r->head->nlmsg_seq = 1;
}

static struct ifinfomsg *begin_link(struct request *r, uint16_t type, uint16_t flags)
{
    begin(r, type, flags);
    struct ifinfomsg *info = mnl_nlmsg_put_extra_header(r->head, sizeof(*info));
    info->ifi_family = AF_UNSPEC;
    return info;
}

/* Sends it and hands what comes back to @each, which may be NULL; 0 or a negative errno value. */
static int talk(struct request *r, mnl_cb_t each, void *owner)
{
    struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!s) {
        return -errno;
    }
    g_autofree char *answer = g_malloc(ANSWER_MAX);
    unsigned port;
    ssize_t n = -1;
    int more = MNL_CB_ERROR;
    if (mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) == 0) {
        port = mnl_socket_get_portid(s);
        n = mnl_socket_sendto(s, r->head, r->head->nlmsg_len);
    }
    while (n >= 0) {
        n = mnl_socket_recvfrom(s, answer, ANSWER_MAX);
        more = n < 0 ? MNL_CB_ERROR : mnl_cb_run(answer, (size_t)n, 1, port, each, owner);
        if (more <= MNL_CB_STOP) {
            break;
        }
    }
    int result = more == MNL_CB_ERROR ? -errno : 0;
    mnl_socket_close(s);
    return result;
}

static bool ask(struct request *r, GError **error, const char *what, const char *name)
{
    r->head->nlmsg_flags |= NLM_F_ACK;
    int result = talk(r, NULL, NULL);
    if (result) {
        error_set_errno(error, -result, "Unable to %s %s", what, name);
        return false;
    }
    return true;
}

unsigned link_index(const char *name)
{
    return if_nametoindex(name);
}

static bool find_index(const char *name, int *index, GError **error)
{
    *index = (int)link_index(name);
    if (!*index) {
        g_set_error(error, LODGE_ERROR, ENODEV, "There is no network device %s", name);
        return false;
    }
    return true;
}

struct seen_link {
    bool bridge, vlans;
};

/* Keeps attributes up to IFLA_MAX and the like in a table by their numbers. */
struct attributes {
    const struct nlattr **table;
    unsigned max;
};

static int keep(const struct nlattr *attr, void *owner)
{
    struct attributes *all = owner;
    if (mnl_attr_get_type(attr) <= all->max) {
        all->table[mnl_attr_get_type(attr)] = attr;
    }
    return MNL_CB_OK;
}

static int look_at_link(const struct nlmsghdr *head, void *owner)
{
    struct seen_link *seen = owner;
    const struct nlattr *link[IFLA_LINKINFO + 1] = {NULL}, *info[IFLA_INFO_MAX + 1] = {NULL};
    const struct nlattr *data[IFLA_BR_VLAN_FILTERING + 1] = {NULL};
    mnl_attr_parse(head, sizeof(struct ifinfomsg), keep, &(struct attributes){link, IFLA_LINKINFO});
    if (link[IFLA_LINKINFO]) {
        mnl_attr_parse_nested(link[IFLA_LINKINFO], keep, &(struct attributes){info, IFLA_INFO_MAX});
    }
    const char *kind = info[IFLA_INFO_KIND] ? mnl_attr_get_str(info[IFLA_INFO_KIND]) : "";
    seen->bridge = !strcmp(kind, "bridge");
    if (seen->bridge && info[IFLA_INFO_DATA]) {
        mnl_attr_parse_nested(info[IFLA_INFO_DATA], keep,
                              &(struct attributes){data, IFLA_BR_VLAN_FILTERING});
        const struct nlattr *vlans = data[IFLA_BR_VLAN_FILTERING];
        seen->vlans = vlans && mnl_attr_get_u8(vlans);
    }
    return MNL_CB_STOP; /* no message follows */
}

bool link_is_bridge(const char *name, bool *vlans)
{
    struct request r;
    struct seen_link seen = {false, false};
    int index = (int)link_index(name);
    begin_link(&r, RTM_GETLINK, 0)->ifi_index = index;
    bool ok = index && talk(&r, look_at_link, &seen) == 0 && seen.bridge;
    if (vlans) {
        *vlans = seen.vlans;
    }
    return ok;
}

/* RTM_NEWLINK for a device that is there. */
static struct ifinfomsg *change(struct request *r, const char *name, GError **error)
{
    int index;
    if (!find_index(name, &index, error)) {
        return NULL;
    }
    struct ifinfomsg *info = begin_link(r, RTM_NEWLINK, 0);
    info->ifi_index = index;
    return info;
}

bool link_delete(const char *name, GError **error)
{
    struct request r;
    int index;
    if (!find_index(name, &index, error)) {
        return false;
    }
    begin_link(&r, RTM_DELLINK, 0)->ifi_index = index;
    return ask(&r, error, "remove", name);
}

bool link_up(const char *name, GError **error)
{
    struct request r;
    struct ifinfomsg *info = change(&r, name, error);
    if (!info) {
        return false;
    }
    info->ifi_flags = IFF_UP;
    info->ifi_change = IFF_UP;
    return ask(&r, error, "switch on", name);
}

bool link_set_mtu(const char *name, unsigned mtu, GError **error)
{
    struct request r;
    if (!change(&r, name, error)) {
        return false;
    }
    mnl_attr_put_u32(r.head, IFLA_MTU, mtu);
    return ask(&r, error, "set the MTU of", name);
}

bool link_set_mac(const char *name, const uint8_t mac[6], GError **error)
{
    struct request r;
    if (!change(&r, name, error)) {
        return false;
    }
    mnl_attr_put(r.head, IFLA_ADDRESS, MAC_BYTES, mac);
    return ask(&r, error, "set the MAC address of", name);
}

bool link_set_master(const char *name, const char *bridge, GError **error)
{
    struct request r;
    int index = 0;
    if (!change(&r, name, error) || (bridge && !find_index(bridge, &index, error))) {
        return false;
    }
    mnl_attr_put_u32(r.head, IFLA_MASTER, (uint32_t)index);
    g_autofree char *what = bridge ? g_strdup_printf("put onto bridge %s the device", bridge)
                                   : g_strdup("take from its bridge the device");
    return ask(&r, error, what, name);
}

bool bridge_create(const struct bridge *how, GError **error)
{
    struct request r;
    begin_link(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    mnl_attr_put_strz(r.head, IFLA_IFNAME, how->name);
    mnl_attr_put(r.head, IFLA_ADDRESS, MAC_BYTES, how->mac);
    struct nlattr *info = mnl_attr_nest_start(r.head, IFLA_LINKINFO);
    mnl_attr_put_strz(r.head, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(r.head, IFLA_INFO_DATA);
    mnl_attr_put_u32(r.head, IFLA_BR_FORWARD_DELAY, how->delay * CENTISECONDS);
    mnl_attr_put_u32(r.head, IFLA_BR_STP_STATE, how->stp);
    if (how->vlans) {
        mnl_attr_put_u8(r.head, IFLA_BR_VLAN_FILTERING, 1);
    }
    mnl_attr_nest_end(r.head, data);
    mnl_attr_nest_end(r.head, info);
    return ask(&r, error, how->vlans ? "make, with VLAN tags, bridge" : "make bridge", how->name);
}

/*
 * A token bucket as the device's queue, in the place of what was there.  Times are told in ticks
 * of 64 ns; the kernel works out all else itself where the link layer is named.
 */
bool link_shape(const char *name, const struct link_rate *rate, GError **error)
{
    enum { TICK_NS = 64, LATENCY_MS = 500, PEAK_MTU = 65536 };
    struct request r;
    int index;
    if (!find_index(name, &index, error)) {
        return false;
    }
    begin(&r, rate->bytes ? RTM_NEWQDISC : RTM_DELQDISC,
          rate->bytes ? NLM_F_CREATE | NLM_F_REPLACE : 0);
    struct tcmsg *head = mnl_nlmsg_put_extra_header(r.head, sizeof(*head));
    *head = (struct tcmsg){.tcm_family = AF_UNSPEC, .tcm_ifindex = index, .tcm_parent = TC_H_ROOT};
    if (!rate->bytes) {
        r.head->nlmsg_flags |= NLM_F_ACK;
        int result = talk(&r, NULL, NULL); /* ENOENT, EINVAL: there was none */
        return result == 0 || result == -ENOENT || result == -EINVAL ||
               (error_set_errno(error, -result, "Unable to lift the limit of %s", name), false);
    }
    struct tc_tbf_qopt how = {
        .rate = {.linklayer = TC_LINKLAYER_ETHERNET,
                 .rate = (uint32_t)MIN(rate->bytes, UINT32_MAX)},
        .peakrate = {.linklayer = TC_LINKLAYER_ETHERNET,
                     .rate = (uint32_t)MIN(rate->peak, UINT32_MAX)},
        .limit = (uint32_t)MIN(rate->bytes * LATENCY_MS / 1000 + rate->burst, INT32_MAX),
        .buffer = (uint32_t)MIN(rate->burst * (1000000000 / TICK_NS) / rate->bytes, UINT32_MAX),
        .mtu =
            rate->peak ? (uint32_t)((uint64_t)PEAK_MTU * (1000000000 / TICK_NS) / rate->peak) : 0};
    mnl_attr_put_strz(r.head, TCA_KIND, "tbf");
    struct nlattr *options = mnl_attr_nest_start(r.head, TCA_OPTIONS);
    mnl_attr_put(r.head, TCA_TBF_PARMS, sizeof(how), &how);
    if (rate->bytes > UINT32_MAX) {
        mnl_attr_put_u64(r.head, TCA_TBF_RATE64, rate->bytes);
    }
    if (rate->peak > UINT32_MAX) {
        mnl_attr_put_u64(r.head, TCA_TBF_PRATE64, rate->peak);
    }
    mnl_attr_nest_end(r.head, options);
    return ask(&r, error, "limit the speed of", name);
}

bool port_isolate(const char *name, GError **error)
{
    struct request r;
    int index;
    if (!find_index(name, &index, error)) {
        return false;
    }
    /* RTM_NEWLINK would reach the device and not the bridge. */
    struct ifinfomsg *info = begin_link(&r, RTM_SETLINK, 0);
    info->ifi_family = AF_BRIDGE;
    info->ifi_index = index;
    struct nlattr *port = mnl_attr_nest_start(r.head, IFLA_PROTINFO);
    mnl_attr_put_u8(r.head, IFLA_BRPORT_ISOLATED, 1);
    mnl_attr_nest_end(r.head, port);
    return ask(&r, error, "isolate bridge port", name);
}

static bool port_vlan(const char *name, uint16_t type, unsigned id, uint16_t flags, GError **error)
{
    struct request r;
    int index;
    struct bridge_vlan_info vlan = {.vid = (uint16_t)id, .flags = flags};
    if (!find_index(name, &index, error)) {
        return false;
    }
    struct ifinfomsg *info = begin_link(&r, type, 0);
    info->ifi_family = AF_BRIDGE;
    info->ifi_index = index;
    struct nlattr *spec = mnl_attr_nest_start(r.head, IFLA_AF_SPEC);
    mnl_attr_put(r.head, IFLA_BRIDGE_VLAN_INFO, sizeof(vlan), &vlan);
    mnl_attr_nest_end(r.head, spec);
    g_autofree char *what = g_strdup_printf("set VLAN %u of", id);
    return ask(&r, error, what, name);
}

bool port_vlan_add(const char *name, unsigned id, bool untagged, GError **error)
{
    return port_vlan(name, RTM_SETLINK, id,
                     untagged ? BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED : 0, error);
}

bool port_vlan_remove(const char *name, unsigned id, GError **error)
{
    return port_vlan(name, RTM_DELLINK, id, 0, error);
}

static const struct {
    const char *name;
    uint32_t mode;
} macvtap_modes[] = {
    {"bridge", MACVLAN_MODE_BRIDGE},
    {"private", MACVLAN_MODE_PRIVATE},
    {"vepa", MACVLAN_MODE_VEPA},
    {"passthrough", MACVLAN_MODE_PASSTHRU},
};

bool macvtap_create(const char *name, const char *lower, const char *mode, const uint8_t mac[6],
                    GError **error)
{
    struct request r;
    int index;
    uint32_t value = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(macvtap_modes); i++) {
        value |= strcmp(mode, macvtap_modes[i].name) ? 0 : macvtap_modes[i].mode;
    }
    if (!find_index(lower, &index, error)) {
        return false;
    }
    begin_link(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    mnl_attr_put_strz(r.head, IFLA_IFNAME, name);
    mnl_attr_put_u32(r.head, IFLA_LINK, (uint32_t)index);
    mnl_attr_put(r.head, IFLA_ADDRESS, MAC_BYTES, mac);
    struct nlattr *info = mnl_attr_nest_start(r.head, IFLA_LINKINFO);
    mnl_attr_put_strz(r.head, IFLA_INFO_KIND, "macvtap");
    struct nlattr *data = mnl_attr_nest_start(r.head, IFLA_INFO_DATA);
    mnl_attr_put_u32(r.head, IFLA_MACVLAN_MODE, value);
    mnl_attr_nest_end(r.head, data);
    mnl_attr_nest_end(r.head, info);
    return ask(&r, error, "make macvtap", name);
}

int tap_open(const char *name, bool vnet_header, bool multi, char *taken, GError **error)
{
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    autofd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        error_set_errno(error, errno, "Unable to open /dev/net/tun, is tun module loaded?");
        return -1;
    }
    req.ifr_flags |= (short)((vnet_header ? IFF_VNET_HDR : 0) | (multi ? IFF_MULTI_QUEUE : 0));
    g_strlcpy(req.ifr_name, name, sizeof(req.ifr_name));
    if (ioctl(fd, TUNSETIFF, &req) < 0) {
        error_set_errno(error, errno, "Unable to create tap device %s", name);
        return -1;
    }
    g_strlcpy(taken, req.ifr_name, IFNAMSIZ);
    return g_steal_fd(&fd);
}

/* Major and minor of the device's node, as sysfs tells them; 0: it does not. */
static dev_t macvtap_number(const char *name, unsigned index)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/tap%u/dev", name, index);
    g_autofree char *text = NULL;
    unsigned major, minor;
    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        sscanf(text, "%u:%u", &major, &minor) != 2) {
        return 0;
    }
    return makedev(major, minor);
}

static bool is_node(int fd, dev_t number)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && (!number || st.st_rdev == number);
}

/* A node of our own, for as long as it takes to open it. */
static int open_own_node(dev_t number)
{
    g_autofree char *path =
        g_strdup_printf("/dev/.lodge-tap-%d-%u-%u", getpid(), major(number), minor(number));
    if (mknod(path, S_IFCHR | 0600, number) < 0) {
        return -1;
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int code = errno;
    unlink(path);
    errno = code;
    return fd;
}

/*
 * devtmpfs or udev makes /dev/tapINDEX a little later, if at all: it may also be the node of
 * another name space's device, whose index is the same.
 */
static int open_node(const char *name)
{
    enum { ATTEMPTS = 200, PAUSE = 10000000 };
    unsigned index = link_index(name);
    dev_t number = macvtap_number(name, index);
    g_autofree char *path = g_strdup_printf("/dev/tap%u", index);
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        autofd int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && is_node(fd, number)) {
            return g_steal_fd(&fd);
        }
        if (number) {
            return open_own_node(number);
        }
        if (fd < 0 && errno != ENOENT) {
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
    }
    errno = ENOENT;
    return -1;
}

int macvtap_open(const char *name, bool vnet_header, GError **error)
{
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    req.ifr_flags |= (short)(vnet_header ? IFF_VNET_HDR : 0);
    autofd int fd = open_node(name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &req) < 0) {
        error_set_errno(error, errno, "Unable to open macvtap %s", name);
        return -1;
    }
    return g_steal_fd(&fd);
}

bool address_add(const char *name, int family, const void *address, unsigned prefix, GError **error)
{
    struct request r;
    int index;
    if (!find_index(name, &index, error)) {
        return false;
    }
    begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    struct ifaddrmsg *head = mnl_nlmsg_put_extra_header(r.head, sizeof(*head));
    *head = (struct ifaddrmsg){.ifa_family = (uint8_t)family,
                               .ifa_prefixlen = (uint8_t)prefix,
                               .ifa_index = (uint32_t)index};
    size_t n = family == AF_INET ? 4 : 16;
    mnl_attr_put(r.head, IFA_LOCAL, n, address);
    mnl_attr_put(r.head, IFA_ADDRESS, n, address);
    if (family == AF_INET && prefix < 31) {
        uint32_t all;
        memcpy(&all, address, sizeof(all));
        all |= GUINT32_TO_BE(UINT32_MAX >> prefix);
        mnl_attr_put(r.head, IFA_BROADCAST, sizeof(all), &all);
    }
    if (family == AF_INET6) { /* nobody else is on the new bridge yet */
        mnl_attr_put_u32(r.head, IFA_FLAGS, IFA_F_NODAD);
    }
    return ask(&r, error, "add an address to", name);
}

bool route_add(const char *name, int family, const void *network, unsigned prefix,
               const void *gateway, unsigned metric, GError **error)
{
    struct request r;
    int index;
    if (!find_index(name, &index, error)) {
        return false;
    }
    begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    struct rtmsg *head = mnl_nlmsg_put_extra_header(r.head, sizeof(*head));
    *head = (struct rtmsg){.rtm_family = (uint8_t)family,
                           .rtm_dst_len = (uint8_t)prefix,
                           .rtm_table = RT_TABLE_MAIN,
                           .rtm_protocol = RTPROT_STATIC,
                           .rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                           .rtm_type = RTN_UNICAST};
    size_t n = family == AF_INET ? 4 : 16;
    mnl_attr_put(r.head, RTA_DST, n, network);
    mnl_attr_put_u32(r.head, RTA_OIF, (uint32_t)index);
    if (gateway) {
        mnl_attr_put(r.head, RTA_GATEWAY, n, gateway);
    }
    if (metric) {
        mnl_attr_put_u32(r.head, RTA_PRIORITY, metric);
    }
    return ask(&r, error, "add a route through", name);
}

struct neighbours {
    neighbour_fn each;
    void *owner;
};

static int look_at_neighbour(const struct nlmsghdr *head, void *owner)
{
    const struct neighbours *n = owner;
    const struct ndmsg *neighbour = mnl_nlmsg_get_payload(head);
    const struct nlattr *attrs[NDA_LLADDR + 1] = {NULL};
    size_t bytes = neighbour->ndm_family == AF_INET ? 4 : 16;
    mnl_attr_parse(head, sizeof(*neighbour), keep, &(struct attributes){attrs, NDA_LLADDR});
    const struct nlattr *to = attrs[NDA_DST], *mac = attrs[NDA_LLADDR];
    if ((neighbour->ndm_family == AF_INET || neighbour->ndm_family == AF_INET6) &&
        !(neighbour->ndm_state & (NUD_NOARP | NUD_FAILED | NUD_INCOMPLETE)) && to && mac &&
        mnl_attr_get_payload_len(to) == bytes && mnl_attr_get_payload_len(mac) == MAC_BYTES) {
        n->each(n->owner, neighbour->ndm_family, mnl_attr_get_payload(to),
                mnl_attr_get_payload(mac));
    }
    return MNL_CB_OK;
}

bool neighbours_each(neighbour_fn each, void *owner, GError **error)
{
    struct request r;
    struct neighbours n = {each, owner};
    begin(&r, RTM_GETNEIGH, NLM_F_DUMP);
    mnl_nlmsg_put_extra_header(r.head, sizeof(struct ndmsg));
    int result = talk(&r, look_at_neighbour, &n);
    if (result) {
        error_set_errno(error, -result, "Unable to read the table of neighbours");
    }
    return !result;
}

struct same_route {
    const uint8_t *network;
    unsigned prefix, index;
    size_t bytes;
};

static bool same_network(const uint8_t *a, const uint8_t *b, unsigned prefix)
{
    unsigned whole = prefix / 8, rest = prefix % 8;
    return !memcmp(a, b, whole) && (!rest || !((a[whole] ^ b[whole]) >> (8 - rest)));
}

static int look_at_route(const struct nlmsghdr *head, void *owner)
{
    struct same_route *want = owner;
    const struct rtmsg *route = mnl_nlmsg_get_payload(head);
    const struct nlattr *attrs[RTA_OIF + 1] = {NULL};
    mnl_attr_parse(head, sizeof(*route), keep, &(struct attributes){attrs, RTA_OIF});
    const struct nlattr *dst = attrs[RTA_DST], *oif = attrs[RTA_OIF];
    if (route->rtm_table == RT_TABLE_MAIN && dst && mnl_attr_get_payload_len(dst) == want->bytes &&
        oif && mnl_attr_get_payload_len(oif) == sizeof(uint32_t) &&
        route->rtm_dst_len == want->prefix &&
        same_network(mnl_attr_get_payload(dst), want->network, want->prefix)) {
        want->index = mnl_attr_get_u32(oif);
    }
    return MNL_CB_OK;
}

bool route_device(int family, const void *network, unsigned prefix, char **device, GError **error)
{
    struct request r;
    char name[IFNAMSIZ] = "?";
    struct same_route want = {network, prefix, 0, family == AF_INET ? 4 : 16};
    begin(&r, RTM_GETROUTE, NLM_F_DUMP);
    struct rtmsg *head = mnl_nlmsg_put_extra_header(r.head, sizeof(*head));
    head->rtm_family = (uint8_t)family;
    int result = talk(&r, look_at_route, &want);
    *device = NULL;
    if (result) {
        error_set_errno(error, -result, "Unable to read the routing table");
        return false;
    }
    if (want.index) {
        if_indextoname(want.index, name);
        *device = g_strdup(name);
    }
    return true;
}
