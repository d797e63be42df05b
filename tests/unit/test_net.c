/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/util.h"
#include "host/net/net.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A card that keeps the last frames; .room counts down to "no room". */
struct card {
    unsigned n, room;
    size_t bytes[64];
    uint8_t frame[64][2048];
};

static bool card_receive(void *owner, const void *frame, size_t n)
{
    struct card *c = owner;
    if (c->n == G_N_ELEMENTS(c->bytes) || c->room == 0) {
        return false;
    }
    c->room--;
    c->bytes[c->n] = n;
    memcpy(c->frame[c->n++], frame, MIN(n, sizeof(c->frame[0])));
    return true;
}

static struct netdev *plug(const char *options, struct card *card)
{
    g_autoptr(GError) error = NULL;
    struct netdev *net = netdev_new(options, &error);
    assert_works(net != NULL, error);
    memset(card, 0, sizeof(*card));
    card->room = UINT_MAX;
    net->receive = card_receive;
    net->card = card;
    return net;
}

/* Turns the main loop until the card has @n frames, a second at most. */
static void wait_frames(struct card *card, unsigned n)
{
    gint64 end = g_get_monotonic_time() + G_USEC_PER_SEC;
    while (card->n < n && g_get_monotonic_time() < end) {
        g_main_context_iteration(NULL, FALSE);
    }
    assert_true(card->n >= n);
}

static void transmit(struct netdev *net, const void *frame, size_t n)
{
    struct iovec iov = {(void *)frame, n};
    net_send(net, &iov, 1);
}

static const uint8_t my_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static void ethernet(uint8_t *f, const uint8_t *to, uint16_t type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, my_mac, 6);
    be16_put(f + 12, type);
}

static uint16_t ip_sum(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i += 2) {
        sum += be16_at(p + i);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static void ip_header(uint8_t *p, unsigned bytes, uint8_t protocol, uint32_t from, uint32_t to)
{
    memset(p, 0, 20);
    p[0] = 0x45;
    be16_put(p + 2, (uint16_t)bytes);
    p[8] = 64;
    p[9] = protocol;
    be32_put(p + 12, from);
    be32_put(p + 16, to);
    be16_put(p + 10, ip_sum(p, 20));
}

/* DHCP discover as a guest's first words; the answer offers @want. */
static void discover(struct netdev *net, struct card *card, uint32_t want)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t f[14 + 20 + 8 + 240 + 4] = {0};
    ethernet(f, all, 0x0800);
    ip_header(f + 14, sizeof(f) - 14, 17, 0, 0xffffffff);
    uint8_t *udp = f + 34, *dhcp = udp + 8;
    be16_put(udp, 68);
    be16_put(udp + 2, 67);
    be16_put(udp + 4, 8 + 240 + 4);
    dhcp[0] = 1, dhcp[1] = 1, dhcp[2] = 6;
    be32_put(dhcp + 4, 0x12345678);
    memcpy(dhcp + 28, my_mac, 6);
    be32_put(dhcp + 236, 0x63825363);
    memcpy(dhcp + 240, "\x35\x01\x01\xff", 4);
    transmit(net, f, sizeof(f));
    wait_frames(card, 1);
    const uint8_t *a = card->frame[card->n - 1];
    assert_int_equal(be16_at(a + 12), 0x0800);
    assert_int_equal(be16_at(a + 34 + 2), 68);
    assert_int_equal(be32_at(a + 42 + 4), 0x12345678);
    assert_int_equal(be32_at(a + 42 + 16), want);
}

static void the_user_network_answers_dhcp(void **state)
{
    (void)state;
    static struct card card;
    discover(plug("user,id=n0", &card), &card, 0x0a00020f);
    netdevs_close();
    discover(plug("user,id=n0,net=192.168.7.0/24,dhcpstart=192.168.7.20", &card), &card, 0xc0a80714);
    netdevs_close();
}

static void the_gateway_answers_arp(void **state)
{
    (void)state;
    static struct card card;
    struct netdev *net = plug("user,id=n0", &card);
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t f[60] = {0};
    ethernet(f, all, 0x0806);
    memcpy(f + 14, "\0\1\x08\0\6\4\0\1", 8);
    memcpy(f + 22, my_mac, 6);
    be32_put(f + 28, 0x0a00020f);
    be32_put(f + 38, 0x0a000202);
    transmit(net, f, sizeof(f));
    wait_frames(&card, 1);
    assert_int_equal(be16_at(card.frame[0] + 12), 0x0806);
    assert_int_equal(be16_at(card.frame[0] + 20), 2);
    assert_int_equal(be32_at(card.frame[0] + 28), 0x0a000202);
    netdevs_close();
}

/* Somebody on the host connects to the forwarded port: the guest sees ARP, then a SYN. */
static void a_forwarded_connection_reaches_the_guest(void **state)
{
    (void)state;
    static struct card card;
    int probe = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    assert_int_equal(bind(probe, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(getsockname(probe, (struct sockaddr *)&sa, &len), 0);
    close(probe);
    g_autofree char *opts =
        g_strdup_printf("user,id=n0,hostfwd=tcp:127.0.0.1:%u-:22", ntohs(sa.sin_port));
    struct netdev *net = plug(opts, &card);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    wait_frames(&card, 1);
    const uint8_t *q = card.frame[0];
    assert_int_equal(be16_at(q + 12), 0x0806); /* who has 10.0.2.15? */
    assert_int_equal(be32_at(q + 38), 0x0a00020f);
    uint8_t f[60] = {0};
    ethernet(f, q + 6, 0x0806);
    memcpy(f + 14, "\0\1\x08\0\6\4\0\2", 8);
    memcpy(f + 22, my_mac, 6);
    be32_put(f + 28, 0x0a00020f);
    memcpy(f + 32, q + 22, 10);
    transmit(net, f, sizeof(f));
    wait_frames(&card, 2);
    const uint8_t *syn = card.frame[card.n - 1];
    assert_int_equal(syn[14 + 9], 6);
    assert_int_equal(be16_at(syn + 34 + 2), 22);
    assert_int_equal(syn[34 + 13], 2);
    close(fd);
    netdevs_close();
}

static void frames_wait_for_a_card_without_room_and_keep_their_order(void **state)
{
    (void)state;
    static struct card card;
    struct netdev *net = plug("user,id=n0", &card);
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    card.room = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint8_t f[60] = {0};
        ethernet(f, all, 0x0806);
        memcpy(f + 14, "\0\1\x08\0\6\4\0\1", 8);
        memcpy(f + 22, my_mac, 6);
        be32_put(f + 28, 0x0a00020f);
        be32_put(f + 38, 0x0a000202 + i % 2);
        transmit(net, f, sizeof(f));
    }
    assert_int_equal(card.n, 0);
    card.room = 2;
    net_resume(net);
    assert_int_equal(card.n, 2);
    assert_int_equal(be32_at(card.frame[0] + 28), 0x0a000202);
    assert_int_equal(be32_at(card.frame[1] + 28), 0x0a000203);
    net_set_link(net, false);
    card.room = 9;
    net_set_link(net, true);
    assert_int_equal(card.n, 3);
    netdevs_close();
}

static unsigned free_port(int type)
{
    int probe = socket(AF_INET, type, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    assert_int_equal(bind(probe, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(getsockname(probe, (struct sockaddr *)&sa, &len), 0);
    close(probe);
    return ntohs(sa.sin_port);
}

static void talk(struct netdev *a, struct card *card_a, struct netdev *b, struct card *card_b)
{
    uint8_t f[1500];
    for (unsigned i = 0; i < sizeof(f); i++) {
        f[i] = (uint8_t)(i * 3);
    }
    for (unsigned i = 0; i < 100; i++) { /* a connection takes a moment to be accepted */
        g_main_context_iteration(NULL, FALSE);
    }
    transmit(a, f, 60);
    transmit(a, f, sizeof(f));
    wait_frames(card_b, 2);
    assert_int_equal(card_b->bytes[0], 60);
    assert_int_equal(card_b->bytes[1], sizeof(f));
    assert_memory_equal(card_b->frame[1], f, sizeof(f));
    card_a->room = 0;
    transmit(b, f, 100);
    transmit(b, f, 200);
    transmit(b, f, 300);
    for (unsigned i = 0; i < 100; i++) {
        g_main_context_iteration(NULL, FALSE);
    }
    assert_int_equal(card_a->n, 0);
    card_a->room = UINT_MAX;
    net_resume(a);
    wait_frames(card_a, 3);
    assert_int_equal(card_a->bytes[2], 300);
}

static void two_machines_share_a_cable(void **state)
{
    (void)state;
    static struct card ca, cb;
    unsigned port = free_port(SOCK_STREAM), u1 = free_port(SOCK_DGRAM), u2 = free_port(SOCK_DGRAM);
    g_autofree char *listens = g_strdup_printf("socket,id=a,listen=127.0.0.1:%u", port);
    g_autofree char *connects = g_strdup_printf("socket,id=b,connect=127.0.0.1:%u", port);
    struct netdev *a = plug(listens, &ca), *b = plug(connects, &cb);
    talk(a, &ca, b, &cb);
    netdevs_close();
    g_autofree char *one = g_strdup_printf("socket,id=a,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u", u1, u2);
    g_autofree char *two = g_strdup_printf("socket,id=b,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u", u2, u1);
    a = plug(one, &ca);
    b = plug(two, &cb);
    talk(a, &ca, b, &cb);
    netdevs_close();
}

/* Moves to a network name space of our own, where the user may make one; there is no way back. */
static void need_taps(void)
{
    static bool own;
    own = own || unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    if (!own || access("/dev/net/tun", R_OK | W_OK) < 0) {
        print_message("skipped: no taps in a network of our own: %s\n", g_strerror(errno));
        skip();
    }
}

static void a_tap_carries_frames_with_and_without_their_header(void **state)
{
    (void)state;
    static struct card card;
    need_taps();
    struct netdev *net = plug("tap,id=t0,ifname=lodge0,script=no,downscript=no", &card);
    struct ifreq req = {.ifr_flags = IFF_UP};
    g_strlcpy(req.ifr_name, "lodge0", sizeof(req.ifr_name));
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &req), 0);
    close(fd);
    wait_frames(&card, 1); /* the kernel greets its neighbours by IPv6 */
    assert_int_equal(card.frame[0][0], 0x33);
    uint8_t f[12 + 60] = {0};
    ethernet(f + 12, (const uint8_t *)"\xff\xff\xff\xff\xff\xff", 0x0806);
    transmit(net, f + 12, 60);
    net->set_offload(net, 12, 0);
    assert_int_equal(net->vnet_hdr_bytes, 12);
    transmit(net, f, sizeof(f));
    card.n = 0;
    wait_frames(&card, 1);
    assert_int_equal(card.frame[0][12], 0x33);
    netdevs_close();
}

enum { FLOWS = 32 }; /* a card holds twice as many frames: the kernel says something, too */

/* From the kernel's end; the hashes of flows decide about their queues. */
static void send_flows(const char *device)
{
    uint8_t f[60] = {0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(device)};
    autofd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    ethernet(f, (const uint8_t *)"\x52\x54\0\0\0\1", 0x0800);
    for (unsigned i = 0; i < FLOWS; i++) {
        ip_header(f + 14, 46, 17, 0x0a000001, 0x0a000002);
        be16_put(f + 34, (uint16_t)(1000 + i));
        be16_put(f + 36, 53);
        assert_int_equal(sendto(fd, f, sizeof(f), 0, (struct sockaddr *)&to, sizeof(to)), sizeof(f));
    }
}

static unsigned flows(const struct card *card)
{
    unsigned n = 0;
    for (unsigned i = 0; i < card->n; i++) {
        n += card->frame[i][12] == 8 && card->frame[i][23] == 17 && card->frame[i][37] == 53;
    }
    return n;
}

/* Turns the main loop until all flows are with the two; how many the second has. */
static unsigned wait_flows(struct card *one, struct card *two, const char *device)
{
    gint64 end = g_get_monotonic_time() + 120 * G_USEC_PER_SEC;
    one->n = two->n = 0;
    send_flows(device);
    while (flows(one) + flows(two) < FLOWS && g_get_monotonic_time() < end) {
        g_main_context_iteration(NULL, FALSE);
    }
    assert_int_equal(flows(one) + flows(two), FLOWS);
    return flows(two);
}

static void a_tap_of_several_queues_hands_out_by_those_in_use(void **state)
{
    (void)state;
    static struct card one, two;
    need_taps();
    struct netdev *net = plug("tap,id=t0,ifname=lodge1,queues=2", &one);
    assert_non_null(net->more);
    assert_null(net->more->more);
    two.room = UINT_MAX;
    net->more->receive = card_receive;
    net->more->card = &two;
    struct ifreq req = {.ifr_flags = IFF_UP};
    g_strlcpy(req.ifr_name, "lodge1", sizeof(req.ifr_name));
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &req), 0);
    net->more->use(net->more, false);
    assert_int_equal(wait_flows(&one, &two, "lodge1"), 0);
    net->more->use(net->more, true);
    unsigned second = wait_flows(&one, &two, "lodge1");
    assert_true(second > 0 && second < FLOWS);
    uint8_t f[60] = {0};
    ethernet(f, (const uint8_t *)"\xff\xff\xff\xff\xff\xff", 0x88b5);
    transmit(net->more, f, sizeof(f));
    netdevs_close();
}

/* Two ports of one bridge. */
static void bridge_ports_reach_each_other(void **state)
{
    (void)state;
    static struct card card, other;
    need_taps();
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_autoptr(GError) error = NULL;
    assert_null(netdev_new("bridge,id=n,br=lodge-none", &error));
    assert_non_null(strstr(error->message, "br=lodge-none"));
    struct ifreq req = {.ifr_flags = IFF_UP};
    g_strlcpy(req.ifr_name, "lodge-br", sizeof(req.ifr_name));
    if (ioctl(fd, SIOCBRADDBR, req.ifr_name) < 0) {
        print_message("skipped: no bridges here: %s\n", g_strerror(errno));
        skip();
    }
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &req), 0);
    struct netdev *one = plug("bridge,id=b1,br=lodge-br", &card), *two = plug("bridge,id=b2,br=lodge-br", &other);
    uint8_t f[60] = {0};
    ethernet(f, (const uint8_t *)"\xff\xff\xff\xff\xff\xff", 0x88b5);
    gint64 end = g_get_monotonic_time() + 120 * G_USEC_PER_SEC;
    bool came = false;
    while (!came && g_get_monotonic_time() < end) { /* a port forwards once it is up */
        transmit(one, f, sizeof(f));
        g_main_context_iteration(NULL, FALSE);
        for (; other.n; other.n--) {
            came |= other.frame[other.n - 1][12] == 0x88;
        }
        other.room = G_N_ELEMENTS(other.bytes);
    }
    assert_true(came);
    assert_ptr_not_equal(one, two);
    netdevs_close();
}

static void wrong_options_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        int code;
        const char *says;
    } rows[] = {
        {"usr,id=n", EINVAL, "no network backend \"usr\""},
        {"user", EINVAL, "no id="},
        {"user,id=n,nett=1", EINVAL, "no parameter \"nett\""},
        {"user,id=n,net=10.0.2", EINVAL, "net=10.0.2"},
        {"user,id=n,net=10.0.2.0/33", EINVAL, "net="},
        {"user,id=n,host=10.9.9.9", EINVAL, "host=10.9.9.9"},
        {"user,id=n,dns=10.0.2.2", EINVAL, "host= and dns="},
        {"user,id=n,restrict=maybe", EINVAL, "restrict=maybe"},
        {"user,id=n,tftp=/no/such", ENOTDIR, "tftp=/no/such"},
        {"user,id=n,hostfwd=tcp:1-2", EINVAL, "hostfwd=tcp:1-2"},
        {"user,id=n,hostfwd=icmp::1-:2", EINVAL, "hostfwd=icmp"},
        {"user,id=n,hostfwd=tcp::70000-:2", EINVAL, "70000"},
        {"user,id=n,guestfwd=tcp:10.0.2.100:1-chr0", ENOTSUP, "guestfwd="},
        {"user,id=n,smb=/tmp", ENOTSUP, "smb=/tmp"},
        {"tap,id=n,vhost=on", ENOTSUP, "vhost=on"},
        {"tap,id=n,script=/x", ENOTSUP, "script=/x"},
        {"tap,id=n,ifname=a-name-that-is-too-long", EINVAL, "15 bytes"},
        {"tap,id=n,fd=999", EBADF, "fd=999"},
        {"tap,id=n,fds=998:999", EBADF, "fd=998"},
        {"tap,id=n,fds=998:999,queues=2", EINVAL, "is enough"},
        {"tap,id=n,queues=0", EINVAL, "queues=0"},
        {"tap,id=n,queues=1000", EINVAL, "queues=1000"},
        {"bridge,id=n,helper=/x", ENOTSUP, "helper="},
        {"bridge,id=n,br=a-name-that-is-too-long", EINVAL, "15 bytes"},
        {"socket,id=n", EINVAL, "listen="},
        {"socket,id=n,listen=:1,connect=:2", EINVAL, "together"},
        {"socket,id=n,udp=127.0.0.1:1", EINVAL, "localaddr"},
        {"socket,id=n,connect=127.0.0.1:1", ECONNREFUSED, "127.0.0.1:1"},
        {"user,id=n,ipv4=off,ipv6=off", EINVAL, "ipv4=off"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        if (netdev_new(rows[i].options, &error) || !strstr(error->message, rows[i].says) ||
            error->code != rows[i].code) {
            fail_msg("%s: %s", rows[i].options, error ? error->message : "works");
        }
    }
    assert_null(netdev_find("n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_user_network_answers_dhcp),
        cmocka_unit_test(the_gateway_answers_arp),
        cmocka_unit_test(a_forwarded_connection_reaches_the_guest),
        cmocka_unit_test(frames_wait_for_a_card_without_room_and_keep_their_order),
        cmocka_unit_test(two_machines_share_a_cable),
        cmocka_unit_test(wrong_options_are_refused_by_name),
        cmocka_unit_test(a_tap_carries_frames_with_and_without_their_header), /* from here on elsewhere */
        cmocka_unit_test(a_tap_of_several_queues_hands_out_by_those_in_use),
        cmocka_unit_test(bridge_ports_reach_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
