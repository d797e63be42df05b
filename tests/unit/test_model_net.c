/* SPDX-License-Identifier: GPL-2.0-or-later */
/* manage/model: networks, pools and volumes are read, filled in, checked and written. */
#include "manage/error.h"
#include "manage/model/network.h"
#include "manage/model/volume.h"
#include "tests/unit/test.h"

#include <string.h>

#define UUID "<uuid>c4ae30b9-b1ad-4f17-8934-21cf65998b0a</uuid>"

static const char full[] =
    "<network ipv6='yes'>\n"
    "  <name>n2</name>\n"
    "  <uuid>c4ae30b9-b1ad-4f17-8934-21cf65998b0a</uuid>\n"
    "  <metadata>\n"
    "    <x:y xmlns:x=\"urn:x\">foo</x:y>\n"
    "  </metadata>\n"
    "  <forward dev='eth0' mode='nat'>\n"
    "    <nat>\n"
    "      <address start='1.2.3.4' end='1.2.3.10'/>\n"
    "      <port start='500' end='1000'/>\n"
    "    </nat>\n"
    "    <interface dev='eth0'/>\n"
    "  </forward>\n"
    "  <bridge name='br7' stp='off' delay='3'/>\n"
    "  <mtu size='1400'/>\n"
    "  <mac address='52:54:00:52:dc:05'/>\n"
    "  <domain name='net2' localOnly='yes'/>\n"
    "  <dns forwardPlainNames='no'>\n"
    "    <forwarder domain='a.b' addr='1.1.1.1'/>\n"
    "    <txt name='t' value='v'/>\n"
    "    <srv service='s' protocol='tcp' domain='d' target='t' port='1' priority='2' weight='3'/>\n"
    "    <host ip='10.1.1.2'>\n"
    "      <hostname>a</hostname>\n"
    "      <hostname>b</hostname>\n"
    "    </host>\n"
    "  </dns>\n"
    "  <vlan>\n"
    "    <tag id='42'/>\n"
    "  </vlan>\n"
    "  <port isolated='yes'/>\n"
    "  <ip address='10.1.1.1' prefix='24' localPtr='yes'>\n"
    "    <tftp root='/srv/tftp'/>\n"
    "    <dhcp>\n"
    "      <range start='10.1.1.128' end='10.1.1.254'>\n"
    "        <lease expiry='2' unit='hours'/>\n"
    "      </range>\n"
    "      <host mac='52:54:00:00:00:01' name='h' ip='10.1.1.5'/>\n"
    "      <bootp file='pxe' server='10.1.1.9'/>\n"
    "    </dhcp>\n"
    "  </ip>\n"
    "  <ip family='ipv6' address='fd00:1::1' prefix='64'/>\n"
    "  <route address='10.9.0.0' prefix='16' gateway='10.1.1.77'/>\n"
    "  <portgroup name='pg' default='yes'>\n"
    "    <vlan>\n"
    "      <tag id='7'/>\n"
    "    </vlan>\n"
    "  </portgroup>\n"
    "</network>\n";

static void network_is_written_as_it_was_read(void **state)
{
    (void)state;
    struct network_def *def = network_parse(full, NULL);
    assert_non_null(def);
    g_autofree char *text = network_format(def);
    assert_string_equal(text, full);
    struct network_def *copy = network_def_copy(def);
    g_autofree char *again = network_format(copy);
    assert_string_equal(again, full);
    assert_int_equal(((struct net_ip *)copy->ips->pdata[1])->bits, 64);
    network_def_free(def);
    network_def_free(copy);
}

static void network_is_filled_in(void **state)
{
    (void)state;
    struct network_def *def = network_parse(
        "<network><name>a</name><forward/><ip address='192.168.9.1'/></network>", NULL);
    assert_non_null(def);
    assert_int_equal(def->mode, FORWARD_NAT);
    assert_non_null(def->uuid);
    assert_true(g_str_has_prefix(def->mac, "52:54:00:"));
    assert_int_equal(def->stp, TRI_YES);
    assert_int_equal(((struct net_ip *)def->ips->pdata[0])->bits, 24);
    network_def_free(def);
}

static void forwarded_ports_come_from_metadata(void **state)
{
    (void)state;
    struct network_def *def =
        network_parse("<network><name>a</name><metadata><l:forward xmlns:l='" NETWORK_NAMESPACE
                      "' proto='tcp' port='2222' to='10.0.0.2' toPort='22'/></metadata></network>",
                      NULL);
    assert_non_null(def);
    assert_int_equal(def->forwarded->len, 1);
    const struct net_forwarded *f = def->forwarded->pdata[0];
    assert_int_equal(f->port, 2222);
    assert_int_equal(f->to_port, 22);
    assert_string_equal(f->to, "10.0.0.2");
    network_def_free(def);
}

struct bad {
    const char *xml, *says;
    int code;
};
#define NET(inside) "<network><name>n</name>" inside "</network>"
static const struct bad bad_networks[] = {
    {"<network><name>../x</name></network>", "cannot contain '/'", ERR_XML},
    {"<network><name>..</name></network>", "invalid network name", ERR_XML},
    {"<network/>", "missing", ERR_XML},
    {NET("<uuid>x</uuid>"), "malformed uuid", ERR_XML},
    {NET("<frob/>"), "<frob>", ERR_CONFIG_UNSUPPORTED},
    {NET("<forward mode='hostdev'/>"), "hostdev", ERR_CONFIG_UNSUPPORTED},
    {NET("<forward mode='bridge'><interface dev='a/b'/></forward>"), "no name for a device",
     ERR_XML},
    {NET("<forward mode='bridge'/>"), "needs a <bridge>", ERR_XML},
    {NET("<forward mode='bridge'/><bridge name='b'/><ip address='1.2.3.4'/>"), "<ip>",
     ERR_CONFIG_UNSUPPORTED},
    {NET("<forward mode='route'><nat><port start='1' end='2'/></nat></forward>"), "<nat>",
     ERR_CONFIG_UNSUPPORTED},
    {NET("<forward><nat><port start='9' end='2'/></nat></forward>"), "port range", ERR_XML},
    {NET("<bridge name='0123456789abcdef'/>"), "no name for a bridge", ERR_XML},
    {NET("<mac address='01:00:00:00:00:01'/>"), "mac address", ERR_XML},
    {NET("<ip address='1.2.3'/>"), "Invalid address", ERR_XML},
    {NET("<ip address='1.2.3.4' prefix='33'/>"), "netmask or prefix", ERR_XML},
    {NET("<ip address='1.2.3.4' netmask='255.0.255.0'/>"), "netmask or prefix", ERR_XML},
    {NET("<ip address='1.2.3.4' family='ipv6'/>"), "Invalid address", ERR_XML},
    {NET("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.1.2' "
         "end='10.0.1.9'/></dhcp></ip>"),
     "not entirely within", ERR_XML},
    {NET("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.9' "
         "end='10.0.0.2'/></dhcp></ip>"),
     "invalid dhcp range", ERR_XML},
    {NET("<ip address='10.0.0.1' prefix='24'><dhcp><host ip='10.0.0.2'/></dhcp></ip>"),
     "At least one", ERR_XML},
    {NET("<ip address='10.0.0.1'><dhcp><host name='a&#10;dhcp-script=/x' "
         "ip='10.0.0.2'/></dhcp></ip>"),
     "not allowed", ERR_XML},
    {NET("<dns><txt name='a,b' value='c'/></dns>"), "not allowed", ERR_XML},
    {NET("<dns><host ip='1.1.1.1'><hostname>a b</hostname></host></dns>"), "not allowed", ERR_XML},
    {NET("<domain name='a&#10;b'/>"), "not allowed", ERR_XML},
    {NET("<ip address='1.2.3.4'><tftp root='/x&#10;user=root'/></ip>"), "not allowed", ERR_XML},
    {NET("<vlan><tag id='5000'/></vlan>"), "too large", ERR_XML},
    {NET("<portgroup name='a'/><portgroup name='a'/>"), "multiple portgroups", ERR_XML},
    {NET("<bridge zone='x'/>"), "firewalld", ERR_CONFIG_UNSUPPORTED},
    {NET("<metadata><l:forward xmlns:l='" NETWORK_NAMESPACE
         "' proto='x' port='1' to='1.2.3.4'/></metadata>"),
     "tcp|udp", ERR_XML},
    {NET("<route address='10.0.0.0' prefix='8' gateway='x'/>"), "invalid route", ERR_XML},
};

static void what_is_wrong_with_a_network_is_said(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_networks); i++) {
        g_autoptr(GError) error = NULL;
        struct network_def *def = network_parse(bad_networks[i].xml, &error);
        if (def || !strstr(error->message, bad_networks[i].says) ||
            error->code != bad_networks[i].code) {
            fail_msg("%s: %s", bad_networks[i].xml, error ? error->message : "accepted");
        }
    }
}

static void networks_are_updated(void **state)
{
    (void)state;
    static const struct {
        unsigned command, section;
        const char *xml, *says; /* NULL: it works */
    } steps[] = {
        {NETWORK_ADD_LAST, SECTION_IP_DHCP_HOST,
         "<host mac='52:54:00:00:00:05' ip='10.0.0.9' name='q'/>", NULL},
        {NETWORK_ADD_LAST, SECTION_IP_DHCP_HOST, "<host mac='52:54:00:00:00:05' ip='10.0.0.8'/>",
         "there is an existing dhcp host entry"},
        {NETWORK_MODIFY, SECTION_IP_DHCP_HOST,
         "<host mac='52:54:00:00:00:05' ip='10.0.0.10' name='q'/>", NULL},
        {NETWORK_ADD_FIRST, SECTION_IP_DHCP_RANGE, "<range start='10.0.0.20' end='10.0.0.30'/>",
         NULL},
        {NETWORK_ADD_FIRST, SECTION_IP_DHCP_RANGE, "<range start='11.0.0.20' end='11.0.0.30'/>",
         "not entirely"},
        {NETWORK_DELETE, SECTION_DNS_HOST, "<host ip='10.0.0.78'/>",
         "couldn't locate a matching DNS HOST"},
        {NETWORK_ADD_LAST, SECTION_DNS_HOST, "<host ip='10.0.0.78'><hostname>z</hostname></host>",
         NULL},
        {NETWORK_ADD_LAST, SECTION_PORTGROUP, "<portgroup name='a'/>", NULL},
        {NETWORK_MODIFY, SECTION_DNS_TXT, "<txt name='a' value='b'/>", "cannot be modified"},
        {NETWORK_ADD_LAST, SECTION_BRIDGE, "<bridge/>", "can't update 'bridge' section"},
        {NETWORK_ADD_LAST, 99, "<bridge/>", "can't update 'unknown' section"},
        {9, SECTION_DNS_TXT, "<txt name='a'/>", "can't update"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_autoptr(GError) error = NULL;
        struct network_def *def = network_parse(NET("<ip address='10.0.0.1' prefix='24'><dhcp>"
                                                    "<range start='10.0.0.100' end='10.0.0.200'/>"
                                                    "</dhcp></ip>"),
                                                NULL);
        if (steps[i].command == NETWORK_MODIFY ||
            strstr(steps[i].says ? steps[i].says : "", "existing")) {
            network_update(def, steps[0].command, steps[0].section, -1, steps[0].xml, NULL);
        }
        bool ok = network_update(def, steps[i].command, steps[i].section, -1, steps[i].xml, &error);
        if (ok != !steps[i].says || (!ok && !strstr(error->message, steps[i].says))) {
            fail_msg("step %u: %s", i, error ? error->message : "accepted");
        }
        network_def_free(def);
    }
}

/* ---- pools ---- */

static const char *const fs_formats[] = {"auto", "ext4", NULL};
static const struct pool_rules dir_rules = {.needs = NEEDS_PATH};
static const struct pool_rules fs_rules = {.needs = NEEDS_DEVICE | NEEDS_PATH,
                                           .formats = fs_formats};
static const struct pool_rules vg_rules = {.needs = NEEDS_NAME, .path = "/dev/"};

static const struct pool_rules *rules(int type)
{
    return type == POOL_DIR       ? &dir_rules
           : type == POOL_FS      ? &fs_rules
           : type == POOL_LOGICAL ? &vg_rules
                                  : NULL;
}

static void pools_are_filled_in(void **state)
{
    (void)state;
    struct pool_def *def = pool_parse("<pool type='fs'><name>p</name>" UUID
                                      "<source><device path='/dev/sdb'/></source>"
                                      "<target><path>//srv//x/</path></target></pool>",
                                      rules, NULL);
    assert_non_null(def);
    g_autofree char *text = pool_format(def);
    assert_string_equal(text, "<pool type='fs'>\n"
                              "  <name>p</name>\n"
                              "  <uuid>c4ae30b9-b1ad-4f17-8934-21cf65998b0a</uuid>\n"
                              "  <capacity unit='bytes'>0</capacity>\n"
                              "  <allocation unit='bytes'>0</allocation>\n"
                              "  <available unit='bytes'>0</available>\n"
                              "  <source>\n"
                              "    <device path='/dev/sdb'/>\n"
                              "    <format type='auto'/>\n"
                              "  </source>\n"
                              "  <target>\n"
                              "    <path>/srv/x</path>\n"
                              "  </target>\n"
                              "</pool>\n");
    pool_def_free(def);
    def = pool_parse("<pool type='logical'><source><name>vg0</name></source></pool>", rules, NULL);
    assert_non_null(def);
    assert_string_equal(def->name, "vg0");
    assert_string_equal(def->path, "/dev/vg0");
    pool_def_free(def);
}

#define POOL(type, inside) "<pool type='" type "'><name>p</name>" inside "</pool>"
static const struct bad bad_pools[] = {
    {POOL("dir", ""), "missing storage pool target path", ERR_XML},
    {POOL("nosuch", ""), "Invalid value for attribute 'type'", ERR_XML},
    {POOL("sheepdog", ""), "missing backend for pool type", ERR_INTERNAL},
    {POOL("fs", "<target><path>/x</path></target>"), "missing storage pool source device name",
     ERR_XML},
    {POOL("fs", "<source><device path='/a'/><format "
                "type='frob'/></source><target><path>/x</path></target>"),
     "unknown pool format type frob", ERR_XML},
    {POOL("dir", "<target><path>x</path></target>"), "not absolute", ERR_XML},
    {POOL("dir", "<target><path>/x</path><permissions><mode>9</mode></permissions></target>"),
     "octal mode", ERR_XML},
    {POOL("dir", "<target><path>/x</path><permissions><owner>-2</owner></permissions></target>"),
     "owner", ERR_XML},
    {"<pool type='dir'><name>a/b</name><target><path>/x</path></target></pool>",
     "cannot contain '/'", ERR_XML},
    {"<pool type='dir'><target><path>/x</path></target></pool>", "missing pool source name",
     ERR_XML},
};

static void what_is_wrong_with_a_pool_is_said(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_pools); i++) {
        g_autoptr(GError) error = NULL;
        struct pool_def *def = pool_parse(bad_pools[i].xml, rules, &error);
        if (def || !strstr(error->message, bad_pools[i].says) || error->code != bad_pools[i].code) {
            fail_msg("%s: %s", bad_pools[i].xml, error ? error->message : "accepted");
        }
    }
}

static void volumes_are_read_and_written(void **state)
{
    (void)state;
    static const char text[] = "<volume type='file'>\n"
                               "  <name>v.qcow2</name>\n"
                               "  <capacity unit='bytes'>21474836480</capacity>\n"
                               "  <allocation unit='bytes'>0</allocation>\n"
                               "  <target>\n"
                               "    <format type='qcow2'/>\n"
                               "    <permissions>\n"
                               "      <mode>0644</mode>\n"
                               "      <owner>64055</owner>\n"
                               "      <group>64055</group>\n"
                               "    </permissions>\n"
                               "    <compat>1.1</compat>\n"
                               "    <features>\n"
                               "      <lazy_refcounts/>\n"
                               "    </features>\n"
                               "  </target>\n"
                               "  <backingStore>\n"
                               "    <path>/srv/base.qcow2</path>\n"
                               "    <format type='qcow2'/>\n"
                               "  </backingStore>\n"
                               "</volume>\n";
    struct volume_def *def = volume_parse(text, NULL);
    assert_non_null(def);
    assert_int_equal(permissions_mode(def->permissions), 0644);
    g_autofree char *again = volume_format(def);
    assert_string_equal(again, text);
    volume_def_free(def);
    def = volume_parse("<volume><name>a</name><capacity unit='G'>1</capacity></volume>", NULL);
    assert_int_equal(def->capacity, 1 << 30);
    assert_int_equal(def->allocation, 1 << 30);
    volume_def_free(def);
    assert_null(volume_parse("<volume><name>../a</name></volume>", NULL));
    assert_null(volume_parse("<volume><name>..</name></volume>", NULL));
    assert_null(volume_parse("<volume><capacity>1</capacity></volume>", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network_is_written_as_it_was_read),
        cmocka_unit_test(network_is_filled_in),
        cmocka_unit_test(forwarded_ports_come_from_metadata),
        cmocka_unit_test(what_is_wrong_with_a_network_is_said),
        cmocka_unit_test(networks_are_updated),
        cmocka_unit_test(pools_are_filled_in),
        cmocka_unit_test(what_is_wrong_with_a_pool_is_said),
        cmocka_unit_test(volumes_are_read_and_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
