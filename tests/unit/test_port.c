/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * manage/daemon: ports of machines on real bridges of the kernel, in a network name space of our
 * own: frames pass, isolated ports stay apart, what is wrong is said and undone.
 */
#include "manage/daemon/netlink.h"
#include "manage/daemon/network.h"
#include "manage/error.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FRAME = 64, PATIENCE_MS = 60000, QUIET_MS = 100 };

static void frame_to(uint8_t *frame, uint8_t last)
{
    static const uint8_t from[] = {0x52, 0x54, 0, 0, 0, 0xfe};
    memset(frame, 0, FRAME);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, from, sizeof(from));
    frame[12] = 0x88; /* an experimental type: nobody else sends such */
    frame[13] = 0xb5;
    frame[14] = last;
}

/* Whether the frame with mark @mark comes out of @fd within @ms. */
static bool comes(int fd, uint8_t mark, int ms)
{
    uint8_t got[2048];
    gint64 end = g_get_monotonic_time() + (gint64)ms * 1000;
    while (g_get_monotonic_time() < end) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 10) == 1 && read(fd, got, sizeof(got)) >= 15 && got[12] == 0x88 &&
            got[13] == 0xb5 && got[14] == mark) {
            return true;
        }
    }
    return false;
}

/* A port that has just come up may not forward yet: the frame is sent until it has come. */
static bool passes(const struct port *from, const struct port *to)
{
    static uint8_t mark;
    uint8_t frame[FRAME];
    gint64 end = g_get_monotonic_time() + (gint64)PATIENCE_MS * 1000;
    frame_to(frame, ++mark);
    while (g_get_monotonic_time() < end) {
        assert_int_equal(write(from->fds[0], frame, FRAME), FRAME);
        if (comes(to->fds[0], mark, QUIET_MS)) {
            return true;
        }
    }
    return false;
}

static struct port attach(const char *bridge, uint8_t mac, enum tristate isolated)
{
    struct port port;
    g_autoptr(GError) error = NULL;
    struct port_want want = {
        .bridge = bridge, .mac = {0x52, 0x54, 0, 0, 0, mac}, .isolated = isolated};
    if (!port_attach(&want, &port, &error)) {
        fail_msg("%s", error->message);
    }
    return port;
}

static void make_bridge(const char *name)
{
    g_autoptr(GError) error = NULL;
    struct bridge how = {.name = name, .mac = {0x52, 0x54, 0, 0, 1, 1}};
    assert_works(bridge_create(&how, &error) && link_up(name, &error), error);
}

static void frames_pass(void **state)
{
    (void)state;
    bool vlans;
    make_bridge("br0");
    assert_true(link_is_bridge("br0", &vlans));
    assert_false(vlans);
    struct port a = attach("br0", 1, TRI_ABSENT), b = attach("br0", 2, TRI_ABSENT);
    assert_string_equal(a.device, "vnet0");
    assert_string_equal(b.device, "vnet1");
    assert_string_equal(a.bridge, "br0");
    assert_false(link_is_bridge("vnet0", NULL));
    assert_true(passes(&a, &b));
    assert_true(passes(&b, &a));
    port_clear(&a);
    assert_int_equal(link_index("vnet0"), 0);
    port_detach("vnet0"); /* it is gone already */
    port_clear(&b);
    link_delete("br0", NULL);
}

static void isolated_ports_stay_apart(void **state)
{
    (void)state;
    uint8_t frame[FRAME];
    make_bridge("br0");
    struct port a = attach("br0", 1, TRI_YES), b = attach("br0", 2, TRI_YES),
                up = attach("br0", 3, TRI_NO);
    assert_true(passes(&a, &up));
    assert_true(passes(&up, &b));
    assert_true(passes(&b, &up)); /* all three forward by now */
    frame_to(frame, 200);
    assert_int_equal(write(a.fds[0], frame, FRAME), FRAME);
    assert_true(comes(up.fds[0], 200, PATIENCE_MS));
    assert_false(comes(b.fds[0], 200, QUIET_MS));
    port_clear(&a);
    port_clear(&b);
    port_clear(&up);
    link_delete("br0", NULL);
}

static void queues_and_names(void **state)
{
    (void)state;
    struct port port, second;
    g_autoptr(GError) error = NULL;
    make_bridge("br0");
    struct port_want want = {
        .bridge = "br0", .device = "mine%d", .queues = 3, .vnet_header = true, .mtu = 1400};
    assert_works(port_attach(&want, &port, &error), error);
    assert_string_equal(port.device, "mine0");
    assert_int_equal(port.queues, 3);
    assert_int_equal(port.mtu, 1400);
    want = (struct port_want){.bridge = "br0", .device = "mine0"};
    assert_false(port_attach(&want, &second, &error)); /* the name is taken */
    g_clear_error(&error);
    want = (struct port_want){.bridge = "br0", .queues = PORT_QUEUES_MAX + 1};
    assert_false(port_attach(&want, &second, &error));
    g_clear_error(&error);
    port_clear(&port);
    link_delete("br0", NULL);
}

static struct network *run_network(const char *xml)
{
    struct network *net = g_new0(struct network, 1);
    net->def = network_parse(xml, NULL);
    assert_non_null(net->def);
    net->active = true;
    net->ports = g_ptr_array_new();
    net->refs = 1;
    g_ptr_array_add(networks, net);
    return net;
}

static void forget(struct network *net)
{
    g_ptr_array_remove(networks, net);
    network_def_free(net->def);
    g_ptr_array_unref(net->ports);
    g_free(net);
}

static void networks_say_what_a_port_is(void **state)
{
    (void)state;
    struct port a, b;
    g_autoptr(GError) error = NULL;
    struct network *net =
        run_network("<network><name>n</name><forward mode='bridge'/><bridge name='br0'/>"
                    "<port isolated='yes'/></network>");
    struct port_want want = {.network = "n", .mac = {0x52, 0x54, 0, 0, 0, 1}};
    assert_false(port_attach(&want, &a, &error)); /* the host has no such bridge */
    assert_non_null(strstr(error->message, "there is no bridge 'br0'"));
    g_clear_error(&error);
    make_bridge("br0");
    assert_works(port_attach(&want, &a, &error), error);
    want.isolated = TRI_NO; /* of the interface itself */
    assert_works(port_attach(&want, &b, &error), error);
    assert_true(passes(&a, &b));
    want = (struct port_want){.network = "other"};
    struct port none;
    assert_false(port_attach(&want, &none, &error));
    assert_int_equal(error->code, ERR_NO_NETWORK);
    g_clear_error(&error);
    net->active = false;
    want.network = "n";
    assert_false(port_attach(&want, &none, &error));
    assert_int_equal(error->code, ERR_OPERATION_INVALID);
    port_clear(&a);
    port_clear(&b);
    link_delete("br0", NULL);
    forget(net);
}

/* On a kernel whose bridges know VLANs two tags do not meet; on any other that is said. */
static void vlans_stay_apart(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct bridge how = {.name = "br0", .mac = {0x52, 0x54, 0, 0, 1, 1}, .vlans = true};
    static const char xml[] =
        "<network><name>n</name><forward mode='bridge'/><bridge name='br0'/><vlan>"
        "<tag id='42'/></vlan><portgroup name='seven'><vlan><tag "
        "id='7'/></vlan></portgroup></network>";
    bool knows = bridge_create(&how, &error);
    if (!knows) {
        assert_non_null(strstr(error->message, "with VLAN tags"));
        g_clear_error(&error);
        make_bridge("br0");
    }
    link_up("br0", NULL);
    struct network *net = run_network(xml);
    struct port a, b, c;
    struct port_want want = {.network = "n"}, seven = {.network = "n", .portgroup = "seven"};
    if (!knows) {
        assert_false(port_attach(&want, &a, &error));
        assert_non_null(strstr(error->message, "vlan_filtering is off"));
        assert_int_equal(link_index("vnet0"), 0);
    } else {
        uint8_t frame[FRAME];
        assert_works(port_attach(&want, &a, &error) && port_attach(&want, &b, &error) &&
                         port_attach(&seven, &c, &error),
                     error);
        assert_true(passes(&a, &b));
        frame_to(frame, 201);
        assert_int_equal(write(a.fds[0], frame, FRAME), FRAME);
        assert_true(comes(b.fds[0], 201, PATIENCE_MS));
        assert_false(comes(c.fds[0], 201, QUIET_MS));
        port_clear(&a);
        port_clear(&b);
        port_clear(&c);
    }
    link_delete("br0", NULL);
    forget(net);
}

static void macvtap_reaches_its_device(void **state)
{
    (void)state;
    struct port port;
    char name[IFNAMSIZ];
    g_autoptr(GError) error = NULL;
    int fd = tap_open("low%d", false, false, name, &error);
    assert_true(fd >= 0);
    assert_works(link_up(name, &error), error);
    struct port_want want = {.lower = name, .mode = "bridge", .mac = {0x52, 0x54, 0, 0, 0, 9}};
    if (!port_attach(&want, &port, &error)) { /* a kernel without it */
        assert_non_null(strstr(error->message, "macvtap"));
        assert_int_equal(link_index("macvtap0"), 0);
        print_message("no macvtap here: %s\n", error->message);
    } else {
        assert_string_equal(port.device, "macvtap0");
        assert_string_equal(port.mode, "bridge");
        struct ifreq flags;
        assert_int_equal(ioctl(port.fds[0], TUNGETIFF, &flags), 0);
        assert_int_equal(flags.ifr_flags & IFF_VNET_HDR, 0);
        port_clear(&port);
        port_detach("macvtap0");
        assert_int_equal(link_index("macvtap0"), 0);
    }
    close(fd);
    g_clear_error(&error);
    want.lower = "nosuch0";
    assert_false(port_attach(&want, &port, &error));
    assert_non_null(strstr(error->message, "nosuch0"));
}

static void addresses_and_routes(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    g_autofree char *device = NULL, *none = NULL;
    uint8_t address[4] = {10, 77, 0, 1}, net[4] = {10, 77, 0, 0}, far[4] = {10, 78, 0, 0},
            via[4] = {10, 77, 0, 9};
    make_bridge("br0");
    assert_works(address_add("br0", AF_INET, address, 24, &error), error);
    assert_works(route_device(AF_INET, net, 24, &device, &error), error);
    assert_string_equal(device, "br0");
    assert_works(route_device(AF_INET, net, 16, &none, &error), error);
    assert_null(none);
    assert_works(route_add("br0", AF_INET, far, 16, via, 7, &error), error);
    assert_false(route_add("br0", AF_INET, far, 16, via, 7, &error));
    g_clear_error(&error);
    assert_false(address_add("nosuch0", AF_INET, address, 24, &error));
    link_delete("br0", NULL);
}

int main(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        printf("skipped: no network name space of our own: %s\n", strerror(errno));
        return 77;
    }
    if (access("/dev/net/tun", R_OK | W_OK) < 0) {
        printf("skipped: /dev/net/tun: %s\n", strerror(errno));
        return 77;
    }
    networks = g_ptr_array_new();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_pass),          cmocka_unit_test(isolated_ports_stay_apart),
        cmocka_unit_test(queues_and_names),     cmocka_unit_test(networks_say_what_a_port_is),
        cmocka_unit_test(vlans_stay_apart),     cmocka_unit_test(macvtap_reaches_its_device),
        cmocka_unit_test(addresses_and_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
