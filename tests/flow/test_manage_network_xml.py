#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Definitions of networks beside libvirt's own: what lodged keeps of a document, prints of it and makes of
net-update is what libvirt's test driver, which is part of its client library, makes of the same."""
import pathlib
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared/reference/xml"
REFERENCE = ("libvirtd-net-dumpxml.xml", "virtinst-network-nat.xml")
ID = "<uuid>81ff0d90-c91e-6742-64da-4a736edb9a9b</uuid>"
OWN = "<mac address='52:54:00:17:3f:37'/>"  # given, as each of the two would make up its own



def document_of(inside, name="net"):
    return f"<network><name>{name}</name>{ID}{inside}</network>"


# What is inside <network>, behind the name and the UUID.
SAME = {
    "nat": f"<forward/><bridge name='virbr7'/>{OWN}<ip address='192.168.7.1' netmask='255.255.255.0'><dhcp>"
           "<range start='192.168.7.2' end='192.168.7.254'/></dhcp></ip>",
    "isolated": f"<bridge name='virbr7' stp='on' delay='4'/>{OWN}<ip address='192.168.7.1' prefix='24'/>",
    "route": f"<forward mode='route' dev='eth1'/><bridge name='virbr7' stp='off'/>{OWN}"
             "<ip address='10.7.0.1' netmask='255.255.0.0'/>",
    "open": f"<forward mode='open'/><bridge name='virbr7'/>{OWN}<ip address='10.7.0.1' netmask='255.255.0.0'/>",
    "ports of nat": "<forward mode='nat' dev='eth7'><nat><address start='1.2.3.4' end='1.2.3.9'/><port start='500' end='600'/>"
                    f"</nat></forward><bridge name='br7' stp='off' delay='3' macTableManager='kernel'/><mtu size='1400'/>{OWN}"
                    "<ip address='10.1.1.1' prefix='24'/>",
    "nat6": f"<forward mode='nat'><nat ipv6='yes'><port start='1024' end='65535'/></nat></forward><bridge name='v7'/>{OWN}"
            "<ip family='ipv6' address='2001:db8:ca2:2::1' prefix='64'/>",
    "names": f"<forward/><bridge name='virbr7'/>{OWN}<domain name='lab' localOnly='yes'/><dns forwardPlainNames='no'>"
             "<forwarder addr='8.8.8.8'/><forwarder domain='example.com' addr='8.8.4.4'/><forwarder domain='x.org'/>"
             "<txt name='example' value='example value'/><srv service='name' protocol='tcp' domain='test-domain-name' "
             "target='.' port='1024' priority='10' weight='10'/><srv service='kerberos' protocol='udp'/>"
             "<host ip='192.168.7.5'><hostname>gateway</hostname><hostname>host</hostname></host></dns>"
             "<ip address='192.168.7.1' netmask='255.255.255.0' localPtr='yes'/>",
    "no names": f"<bridge name='virbr7'/>{OWN}<dns enable='no'/><ip address='192.168.7.1' netmask='255.255.255.0'/>",
    "hosts": f"<forward/><bridge name='virbr7'/>{OWN}<ip address='192.168.7.1' netmask='255.255.255.0'><tftp root='/srv/tftp'/>"
             "<dhcp><range start='192.168.7.2' end='192.168.7.99'><lease expiry='24' unit='hours'/></range>"
             "<range start='192.168.7.120' end='192.168.7.140'/>"
             "<host mac='00:16:3e:77:e2:ed' name='a.example.com' ip='192.168.7.10'><lease expiry='0'/></host>"
             "<host mac='00:16:3e:3e:a9:1a' ip='192.168.7.11'/><host name='c' ip='192.168.7.12'/>"
             "<bootp file='pxeboot.img' server='192.168.7.1'/></dhcp></ip>",
    "both families": f"<forward/><bridge name='virbr7'/>{OWN}<ip address='192.168.7.1' netmask='255.255.255.0'><dhcp>"
                     "<range start='192.168.7.2' end='192.168.7.254'/></dhcp></ip><ip family='ipv6' "
                     "address='2001:db8:ca2:2::1' prefix='64'><dhcp><range start='2001:db8:ca2:2:1::10' "
                     "end='2001:db8:ca2:2:1::ff'/><host name='paul' ip='2001:db8:ca2:2:3::1'/><host "
                     "id='0:1:0:1:18:aa:62:fe:0:16:3e:44:55:66' ip='2001:db8:ca2:2:3::2'/></dhcp></ip>",
    "several addresses": f"<bridge name='virbr7'/>{OWN}<ip address='10.7.0.1' netmask='255.255.0.0'/>"
                         "<ip address='10.8.0.1' prefix='16'/><ip family='ipv6' address='fd00:7::1' prefix='64'/>",
    "routes": f"<bridge name='virbr7'/>{OWN}<ip address='192.168.7.1' netmask='255.255.255.0'/>"
              "<ip family='ipv6' address='2001:db8:ca2:2::1' prefix='64'/>"
              "<route address='192.168.222.0' netmask='255.255.255.0' gateway='192.168.7.10'/>"
              "<route family='ipv6' address='2001:db8:ac10:fc00::' prefix='64' gateway='2001:db8:ca2:2::7' metric='2'/>",
    "tags": f"<bridge name='virbr7'/>{OWN}<vlan trunk='yes'><tag id='42'/><tag id='47' nativeMode='untagged'/></vlan>"
            "<port isolated='yes'/>",
    "groups": f"<bridge name='virbr7'/>{OWN}<portgroup name='engineering' default='yes'><bandwidth><inbound average='1000' "
              "peak='5000' burst='5120'/><outbound average='1000'/></bandwidth></portgroup>"
              "<portgroup name='sales' trustGuestRxFilters='no'><vlan><tag id='7'/></vlan></portgroup>",
    "bandwidth": f"<bridge name='virbr7'/>{OWN}<bandwidth><inbound average='1000' peak='5000' burst='5120'/>"
                 "<outbound average='128' peak='256' burst='256'/></bandwidth>",
    "another's bridge": "<forward mode='bridge'/><bridge name='br0'/>",
    "macvtap": "<forward mode='bridge'><interface dev='eth20'/><interface dev='eth21'/></forward>",
    "private": "<forward mode='private' dev='eth20'/>",
    "vepa": "<forward mode='vepa'><interface dev='eth20'/></forward>",
    "passthrough": "<forward mode='passthrough'><interface dev='eth20'/><interface dev='eth21'/></forward>",
    "metadata": f"<metadata><a:one xmlns:a='urn:a'>text</a:one><b:two xmlns:b='urn:b' x='1'><b:three/></b:two></metadata>"
                f"<bridge name='virbr7'/>{OWN}",
}
# What both refuse.
REFUSED = {
    "no name": "<network/>",
    "slash": "<network><name>a/b</name></network>",
    "mode": document_of("<forward mode='sideways'/>"),
    "address": document_of("<ip address='1.2.3' netmask='255.255.255.0'/>"),
    "netmask": document_of("<ip address='1.2.3.4' netmask='255.0.255.0'/>"),
    "prefix": document_of("<ip address='1.2.3.4' prefix='33'/>"),
    "both masks": document_of("<ip address='1.2.3.4' prefix='24' netmask='255.255.255.0'/>"),
    "netmask of IPv6": document_of("<ip family='ipv6' address='fd00::1' netmask='255.255.255.0'/>"),
    "family": document_of("<ip family='ipv6' address='1.2.3.4' prefix='24'/>"),
    "range": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.9' end='10.0.0.2'/></dhcp></ip>"),
    "range outside": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.1.2' end='10.0.1.9'/></dhcp></ip>"),
    "multicast host": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><host mac='01:00:00:00:00:01' ip='10.0.0.2'/>"
                                  "</dhcp></ip>"),
    "host of nothing": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><host/></dhcp></ip>"),
    "lease unit": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.9'>"
                              "<lease expiry='5' unit='days'/></range></dhcp></ip>"),
    "short lease": document_of("<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.9'>"
                               "<lease expiry='5' unit='seconds'/></range></dhcp></ip>"),
    "route": document_of("<ip address='10.0.0.1' prefix='24'/><route address='10.9.0.0' prefix='16' gateway='fd00::1'/>"),
    "route of a host": document_of("<ip address='10.0.0.1' prefix='24'/><route address='10.9.0.1' prefix='16' "
                                   "gateway='10.0.0.2'/>"),
    "metric": document_of("<ip address='10.0.0.1' prefix='24'/><route address='10.9.0.0' prefix='16' gateway='10.0.0.2' "
                          "metric='0'/>"),
    "two default groups": document_of("<portgroup name='a' default='yes'/><portgroup name='b' default='yes'/>"),
    "two groups of a name": document_of("<portgroup name='a'/><portgroup name='a'/>"),
    "tag": document_of("<vlan><tag id='4096'/></vlan>"),
    "no tag": document_of("<vlan/>"),
    "native": document_of("<vlan><tag id='4' nativeMode='sometimes'/></vlan>"),
    "nat of a route": document_of("<forward mode='route'><nat><port start='1' end='2'/></nat></forward>"),
    "nat ports": document_of("<forward mode='nat'><nat><port start='9' end='2'/></nat></forward>"),
    "nat addresses": document_of("<forward mode='nat'><nat><address start='1.2.3.9' end='1.2.3.4'/></nat></forward>"),
    "two devices": document_of("<forward dev='eth0'><interface dev='eth1'/></forward>"),
    "stp of another's": document_of("<forward mode='bridge'/><bridge name='br0' stp='on'/>"),
    "addresses of another's": document_of("<forward mode='bridge'/><bridge name='br0'/><ip address='10.0.0.1' prefix='8'/>"),
    "bridge and device": document_of("<forward mode='bridge'><interface dev='eth0'/></forward><bridge name='br0'/>"),
    "bandwidth": document_of("<bandwidth><inbound peak='5'/></bandwidth>"),
    "floor": document_of("<bandwidth><outbound average='1' floor='5'/></bandwidth>"),
    "txt without name": document_of("<dns><txt value='x'/></dns>"),
    "txt with a blank": document_of("<dns><txt name='a b' value='x'/></dns>"),
    "srv without protocol": document_of("<dns><srv service='x'/></dns>"),
    "srv port": document_of("<dns><srv service='x' protocol='tcp' target='t' port='70000'/></dns>"),
    "srv port alone": document_of("<dns><srv service='x' protocol='tcp' port='70'/></dns>"),
    "dns host without names": document_of("<dns><host ip='1.2.3.4'/></dns>"),
    "dns host without ip": document_of("<dns><host><hostname>a</hostname></host></dns>"),
    "forwarder": document_of("<dns><forwarder addr='nowhere'/></dns>"),
    "empty forwarder": document_of("<dns><forwarder/></dns>"),
    "mac": document_of("<mac address='01:00:00:00:00:01'/>"),
    "delay": document_of("<bridge name='b' delay='x'/>"),
    "local without domain": document_of("<domain localOnly='yes'/>"),
}
# Of these, what libvirt's parser lets pass and its network driver refuses, or nobody does.
LENIENT = {"address", "netmask", "two default groups", "two groups of a name", "addresses of another's", "local without domain"}
# What ours refuses because no machine here gets it.
LEFT_OUT = {
    "<forward mode='hostdev'><pf dev='eth0'/></forward>": "hostdev",
    "<forward mode='passthrough'><pf dev='eth0'/></forward>": "<pf>",
    "<forward mode='bridge'/><bridge name='ovsbr0'/><virtualport type='openvswitch'/>": "<virtualport>",
    "<forward mode='bridge'/><bridge name='b0'/><virtualport type='midonet'><parameters interfaceid='"
    "0b4f2e3c-7ba1-4ab9-8f4d-4f0bdbd8a7a1'/></virtualport>": "<virtualport>",
    "<forward mode='passthrough'><interface dev='eth0'/></forward><virtualport type='802.1Qbh'>"
    "<parameters profileid='x'/></virtualport>": "<virtualport>",
    "<bridge name='b' macTableManager='libvirt'/>": "macTableManager",
    "<bridge name='b'/><frob/>": "<frob>",
    "<domain name='a' register='yes'/>": "register",
    "<forward mode='vepa'><interface dev='eth0'/></forward><portgroup name='a' trustGuestRxFilters='yes'/>":
        "trustGuestRxFilters",
    "<bridge name='b' zone='public'/>": "zone",
}


# net-update, one after the other on one network: command, section, which <ip>, the element.
UPDATED = f"""<network><name>net</name>{ID}<forward/><bridge name='virbr7'/>{OWN}<domain name='lab'/>
    <ip address='10.7.0.1' prefix='24'><dhcp><range start='10.7.0.10' end='10.7.0.20'/>
    <host mac='52:54:00:00:00:01' name='one' ip='10.7.0.2'/><host mac='52:54:00:00:00:02' name='two' ip='10.7.0.3'/>
    </dhcp></ip><ip family='ipv6' address='fd00:7::1' prefix='64'/><ip address='10.8.0.1' prefix='24'/></network>"""
MODIFY, DELETE, LAST, FIRST = 1, 2, 3, 4
UPDATES = [
    (LAST, "BRIDGE", -1, "<bridge name='x'/>"), (MODIFY, "DOMAIN", -1, "<domain name='x'/>"),
    (LAST, "IP", -1, "<ip address='10.9.0.1' prefix='24'/>"), (MODIFY, "FORWARD", -1, "<forward/>"),
    (LAST, "FORWARD_PF", -1, "<pf dev='eth0'/>"), (0, "DNS_TXT", -1, "<txt name='a' value='b'/>"),
    (9, "DNS_TXT", -1, "<txt name='a' value='b'/>"),
    (LAST, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:03' ip='10.7.0.4'/>"),
    (LAST, "IP_DHCP_HOST", 0, "<host mac='52:54:00:00:00:04' ip='10.7.0.5'/>"),
    (FIRST, "IP_DHCP_HOST", 0, "<host mac='52:54:00:00:00:05' name='first' ip='10.7.0.6'/>"),
    (LAST, "IP_DHCP_HOST", 0, "<host mac='52:54:00:00:00:01' ip='10.7.0.7'/>"),  # there already, by each of the three
    (LAST, "IP_DHCP_HOST", 0, "<host mac='52:54:00:00:00:09' ip='10.7.0.2'/>"),
    (LAST, "IP_DHCP_HOST", 0, "<host mac='52:54:00:00:00:09' name='one' ip='10.7.0.8'/>"),
    (LAST, "IP_DHCP_HOST", 2, "<host mac='52:54:00:00:00:09' ip='10.8.0.2'/>"),  # DHCP on a second IPv4 address
    (LAST, "IP_DHCP_HOST", 7, "<host mac='52:54:00:00:00:09' ip='10.8.0.2'/>"),
    (MODIFY, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:01' name='uno' ip='10.7.0.2'/>"),
    (MODIFY, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:77' name='none' ip='10.7.0.77'/>"),
    (DELETE, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:02' name='other'/>"),  # the names differ
    (DELETE, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:02' ip='10.7.0.99'/>"),
    (DELETE, "IP_DHCP_HOST", -1, "<host name='two'/>"), (DELETE, "IP_DHCP_HOST", -1, "<host ip='10.7.0.5'/>"),
    (DELETE, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:03'/>"),
    (DELETE, "IP_DHCP_HOST", -1, "<host mac='52:54:00:00:00:03'/>"), (LAST, "IP_DHCP_HOST", -1, "<host/>"),
    (LAST, "IP_DHCP_HOST", -1, "<host mac='rubbish' ip='10.7.0.30'/>"), (LAST, "IP_DHCP_HOST", -1, "<range/>"),
    (LAST, "IP_DHCP_HOST", -1, "<host"),
    (LAST, "IP_DHCP_RANGE", -1, "<range start='10.7.0.30' end='10.7.0.40'/>"),
    (FIRST, "IP_DHCP_RANGE", 0, "<range start='10.7.0.50' end='10.7.0.60'/>"),
    (LAST, "IP_DHCP_RANGE", -1, "<range start='10.7.0.30' end='10.7.0.40'/>"),
    (LAST, "IP_DHCP_RANGE", 1, "<range start='fd00:7::30' end='fd00:7::40'/>"),
    (LAST, "IP_DHCP_RANGE", 0, "<range start='10.7.0.9' end='10.7.0.1'/>"),
    (LAST, "IP_DHCP_RANGE", 0, "<range start='10.6.0.1' end='10.6.0.9'/>"),
    (MODIFY, "IP_DHCP_RANGE", 0, "<range start='10.7.0.30' end='10.7.0.41'/>"),
    (DELETE, "IP_DHCP_RANGE", 0, "<range start='10.7.0.30' end='10.7.0.41'/>"),
    (DELETE, "IP_DHCP_RANGE", 0, "<range start='10.7.0.30' end='10.7.0.40'/>"),
    (LAST, "FORWARD_INTERFACE", -1, "<interface dev='eth0'/>"), (LAST, "FORWARD_INTERFACE", -1, "<interface dev='eth1'/>"),
    (LAST, "FORWARD_INTERFACE", -1, "<interface dev='eth1'/>"), (MODIFY, "FORWARD_INTERFACE", -1, "<interface dev='eth1'/>"),
    (DELETE, "FORWARD_INTERFACE", -1, "<interface dev='eth9'/>"), (DELETE, "FORWARD_INTERFACE", -1, "<interface dev='eth1'/>"),
    (LAST, "PORTGROUP", -1, "<portgroup name='a' default='yes'/>"), (FIRST, "PORTGROUP", -1, "<portgroup name='b'/>"),
    (LAST, "PORTGROUP", -1, "<portgroup name='a'/>"), (LAST, "PORTGROUP", -1, "<portgroup name='c' default='yes'/>"),
    (MODIFY, "PORTGROUP", -1, "<portgroup name='b' default='yes'/>"),
    (MODIFY, "PORTGROUP", -1, "<portgroup name='b'><bandwidth><inbound average='5'/></bandwidth></portgroup>"),
    (MODIFY, "PORTGROUP", -1, "<portgroup name='z'/>"), (DELETE, "PORTGROUP", -1, "<portgroup name='z'/>"),
    (DELETE, "PORTGROUP", -1, "<portgroup name='a'/>"),
    (LAST, "DNS_HOST", -1, "<host ip='10.7.0.80'><hostname>p</hostname><hostname>q</hostname></host>"),
    (LAST, "DNS_HOST", -1, "<host ip='10.7.0.81'><hostname>p</hostname></host>"),
    (LAST, "DNS_HOST", -1, "<host ip='10.7.0.80'><hostname>r</hostname></host>"),
    (FIRST, "DNS_HOST", -1, "<host ip='10.7.0.82'><hostname>s</hostname></host>"),
    (MODIFY, "DNS_HOST", -1, "<host ip='10.7.0.82'><hostname>t</hostname></host>"),
    (DELETE, "DNS_HOST", -1, "<host ip='10.7.0.99'/>"),
    (DELETE, "DNS_HOST", -1, "<host ip='10.7.0.80'><hostname>nobody</hostname></host>"),
    (DELETE, "DNS_HOST", -1, "<host><hostname>q</hostname></host>"), (DELETE, "DNS_HOST", -1, "<host ip='10.7.0.82'/>"),
    (LAST, "DNS_HOST", -1, "<host ip='10.7.0.83'/>"), (DELETE, "DNS_HOST", -1, "<host/>"),
    (LAST, "DNS_TXT", -1, "<txt name='a' value='b'/>"), (LAST, "DNS_TXT", -1, "<txt name='a' value='c'/>"),
    (FIRST, "DNS_TXT", -1, "<txt name='c' value='d e'/>"), (MODIFY, "DNS_TXT", -1, "<txt name='c' value='x'/>"),
    (DELETE, "DNS_TXT", -1, "<txt name='z'/>"), (DELETE, "DNS_TXT", -1, "<txt name='c'/>"),
    (LAST, "DNS_SRV", -1, "<srv service='s' protocol='tcp' target='t1' port='1'/>"),
    (LAST, "DNS_SRV", -1, "<srv service='s' protocol='tcp' target='t2' port='1'/>"),
    (LAST, "DNS_SRV", -1, "<srv service='s' protocol='tcp' target='t1' port='1'/>"),
    (FIRST, "DNS_SRV", -1, "<srv service='u' protocol='udp' domain='d' target='t'/>"),
    (MODIFY, "DNS_SRV", -1, "<srv service='u' protocol='udp' domain='d' target='v'/>"),
    (DELETE, "DNS_SRV", -1, "<srv service='s' protocol='tcp'/>"),  # two that fit
    (DELETE, "DNS_SRV", -1, "<srv service='s' protocol='tcp' target='t2'/>"),
    (DELETE, "DNS_SRV", -1, "<srv service='u' protocol='udp'/>"), (DELETE, "DNS_SRV", -1, "<srv service='n' protocol='udp'/>"),
]


# Three codes of libvirt's for elements that are not right.
WRONG_XML = libvirt.VIR_ERR_XML_ERROR
BROKEN = (WRONG_XML, libvirt.VIR_ERR_XML_DETAIL, libvirt.VIR_ERR_INTERNAL_ERROR)


def plain(xml):
    return ET.canonicalize(xml, strip_text=True)


class Networks(manage.Case):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ours = cls.daemon.connect()
        cls.addClassCleanup(cls.ours.close)
        cls.theirs = libvirt.open("test:///default")  # has one network of its own
        cls.addClassCleanup(cls.theirs.close)

    def define(self, conn, xml):
        """The network as it is printed, or the code of the error."""
        try:
            net = conn.networkDefineXML(xml)
        except libvirt.libvirtError as e:
            return e.get_error_code(), str(e)
        text = net.XMLDesc()
        net.undefine()
        return plain(text), text

    def test_documents(self):
        dumps = []
        for what, inside in SAME.items():
            with self.subTest(what):
                ours, text = self.define(self.ours, document_of(inside))
                self.assertEqual(ours, self.define(self.theirs, document_of(inside))[0])
                dumps.append(text)
        self.validate("network", dumps)

    def test_reference(self):
        if not FOLDER.is_dir():
            manage.leave_out(self, f"{FOLDER} is not there")
        for name in REFERENCE:
            xml = (FOLDER / name).read_text()
            xml = re.sub("<uuid>.*</uuid>", ID, xml.replace("default</name>", "other</name>")).replace("virbr0", "virbr7")
            with self.subTest(name):
                ours, text = self.define(self.ours, xml)
                theirs = self.define(self.theirs, xml)[0]
                if "<uuid>" not in xml:  # what each has made up
                    ours, theirs = (re.sub('<uuid>.*?</uuid>|<mac .*?</mac>| name="virbr1"', "", t) for t in (ours, theirs))
                self.assertEqual(ours, theirs)

    def test_refused(self):
        for what, xml in REFUSED.items():
            with self.subTest(what):
                ours, theirs = self.define(self.ours, xml), self.define(self.theirs, xml)
                self.assertIsInstance(ours[0], int, ours)
                if what not in LENIENT:
                    self.assertIsInstance(theirs[0], int, theirs)

    def test_left_out(self):
        for inside, word in LEFT_OUT.items():
            with self.subTest(inside):
                code, text = self.define(self.ours, document_of(inside))
                self.assertIn(code, (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_XML_ERROR))
                self.assertIn(word, text)

    def test_updates(self):
        nets = [conn.networkDefineXML(UPDATED) for conn in (self.ours, self.theirs)]
        for net in nets:
            self.addCleanup(net.undefine)
        for command, section, parent, xml in UPDATES:
            with self.subTest(f"{command} {section} {parent} {xml}"):
                results = []
                for net in nets:
                    try:
                        net.update(command, getattr(libvirt, "VIR_NETWORK_SECTION_" + section), parent, xml,
                                   libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG)
                        results.append((None, None))
                    except libvirt.libvirtError as e:
                        results.append((e.get_error_code(), str(e)))
                self.assertEqual(*(WRONG_XML if code in BROKEN else code for code, _ in results), results)
                ours, theirs = (net.XMLDesc() for net in nets)
                self.assertEqual(plain(ours), plain(theirs))

    def validate(self, schema, dumps):
        """All with one process: starting the validator costs more than its work."""
        paths = []
        for i, text in enumerate(dumps):
            paths.append(pathlib.Path(self.daemon.root, f"dump{i}.xml"))
            paths[-1].write_text(text)
        p = subprocess.run(["xmllint", "--noout", "--relaxng", f"/usr/share/libvirt/schemas/{schema}.rng", *paths],
                           capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
