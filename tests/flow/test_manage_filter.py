#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What ports of machines let through: filters and limits of bandwidth, with real guests."""
import os
import subprocess
import sys
import unittest
from xml.etree import ElementTree

sys.path.insert(0, os.path.dirname(__file__))
import libvirt
import manage
from test_manage_domain import machine, resumed
from test_manage_network import NetworkCase, run

NETWORK = """<network><name>lab</name><forward mode='nat'/><bridge name='lab0' stp='off'/>
    <bandwidth><inbound average='50000' peak='100000' burst='10240'/><outbound average='60000'/></bandwidth>
    <ip address='10.41.0.1' prefix='24'><dhcp><range start='10.41.0.2' end='10.41.0.99'/>
    <host mac='52:54:00:41:00:02' ip='10.41.0.2'/><host mac='52:54:00:41:00:03' ip='10.41.0.3'/></dhcp></ip>
    <portgroup name='slow'><bandwidth><inbound average='4000'/></bandwidth></portgroup></network>"""


class Ports(NetworkCase):
    def xml(self, number, more, source="network='lab'"):
        kind = source.split("=")[0]
        return machine(f"port{number}", devices=(
            f"<interface type='{kind}'><mac address='52:54:00:41:00:0{number}'/><source {source}/>"
            f"<model type='virtio'/>{more}</interface><console type='pty'/>"))

    def boot(self, conn, number, more, **source):
        dom = conn.createXML(self.xml(number, more, **source), libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(self.daemon.run_virsh, "destroy", dom.name())
        console = resumed(conn, dom)
        console.expect(b"busybox")
        port = dom.XMLDesc().split("<target dev='")[1].split("'")[0]
        return dom, console, port

    def families(self):
        """Families of nftables in which there are tables of @name."""
        return self.host.run("nft", "list", "tables")

    def pings(self, address):
        return run("ip", "netns", "exec", self.host.name, "busybox", "ping", "-c", "1", "-W", "1", address, check=False
                   ).returncode == 0

    def test_clean_traffic(self):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        self.network(NETWORK)
        shown = self.host.run("tc", "qdisc", "show", "dev", "lab0")
        self.assertRegex(shown, r"tbf .*rate 409600Kbit burst 10Mb .*peakrate 819200Kbit|tbf .*rate 409600Kbit")
        self.assertRegex(self.host.run("nft", "list", "table", "netdev", "lodge_lab0"), r"limit rate over 6\d+ kbytes/second")
        limits = ("<bandwidth><inbound average='1000' burst='512'/><outbound average='2000' burst='300'/></bandwidth>"
                  "<filterref filter='clean-traffic'/>")
        dom, console, port = self.boot(conn, 2, limits)
        _, free, slow = self.boot(conn, 3, "", source="network='lab' portgroup='slow'")
        self.assertRegex(self.host.run("tc", "qdisc", "show", "dev", port), r"tbf .*rate 8192Kbit burst 512Kb")
        self.assertRegex(self.host.run("tc", "qdisc", "show", "dev", slow), r"tbf .*rate 32768Kbit")
        self.assertRegex(self.virsh("nwfilter-binding-list"), rf"{port} +clean-traffic")
        xml = self.virsh("nwfilter-binding-dumpxml", port)
        self.assertIn("<filterref filter='clean-traffic'/>", xml)
        with open(f"{self.dir}/binding.xml", "w") as f:
            f.write(xml)
        run("virt-xml-validate", f"{self.dir}/binding.xml", "nwfilterbinding")
        ours = [subprocess.run([os.environ["LODGE"], "-c", self.daemon.uri, *words], capture_output=True, text=True,
                               check=True).stdout for words in (["nwfilter-binding-list"], ["nwfilter-binding-dumpxml", port])]
        self.assertEqual([text.strip() for text in ours], [self.virsh("nwfilter-binding-list"), xml])
        self.assertIn("no nwfilter binding", self.virsh("nwfilter-binding-dumpxml", slow, fails=True))
        self.assertRegex(self.host.run("nft", "list", "table", "netdev", f"lodge_{port}"),
                         r"limit rate over 2000 kbytes/second burst 300 kbytes drop")
        # the first address that it sends from is its own: what DHCP gave; both ways are open
        manage.until(lambda: self.pings("10.41.0.2") and self.pings("10.41.0.3"), "both guests answer")
        self.assertIn("10.41.0.2", self.host.run("nft", "list", "set", "bridge", f"lodge_{port}", "learned"))
        for number, guest in ((2, console), (3, free)):
            guest.type(b"ip addr add 10.41.0.7%d/24 dev eth0 && echo has-an''other\n" % number)
            guest.expect(b"has-another")
        manage.until(lambda: self.pings("10.41.0.73"), "the free guest's second address answers")
        self.assertFalse(self.pings("10.41.0.72"))
        # somebody flushes everything, and lodged dies
        self.host.run("nft", "flush", "ruleset")
        manage.until(lambda: all(f"table {f} lodge_{port}" in self.families() for f in ("bridge", "netdev")) and
                     "table netdev lodge_lab0" in self.families(), "the port's tables are back")
        shown = self.virsh("domiftune", "port2", port)
        self.assertRegex(shown, r"inbound.average *: 1000")
        self.assertRegex(shown, r"inbound.burst *: 512")
        self.assertRegex(shown, r"outbound.burst *: 300")
        self.virsh("domiftune", "port2", port, "--inbound", "3000,4000,600", "--outbound", "0", "--live")
        self.assertRegex(self.host.run("tc", "qdisc", "show", "dev", port), r"tbf .*rate 24576Kbit burst 600Kb")
        self.assertNotIn(f"netdev lodge_{port}", self.families())
        self.assertIn("<inbound average='3000' peak='4000' burst='600'/>", dom.XMLDesc())
        self.assertNotIn("<outbound", dom.XMLDesc())
        self.virsh("domiftune", "port2", port, "--inbound", "0")
        self.assertNotIn("tbf", self.host.run("tc", "qdisc", "show", "dev", port))
        self.assertIn("find device 'nosuch'", self.virsh("domiftune", "port2", "nosuch", fails=True))
        # an update says limits anew, or none; what a card keeps for life is refused
        card = ElementTree.fromstring(dom.XMLDesc()).find("devices/interface")
        ElementTree.SubElement(ElementTree.SubElement(card, "bandwidth"), "outbound", average="700")
        dom.updateDeviceFlags(ElementTree.tostring(card).decode(), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.assertIn("limit rate over 700 kbytes", self.host.run("nft", "list", "table", "netdev", f"lodge_{port}"))
        self.assertIn("<outbound average='700'/>", dom.XMLDesc())
        card.find("model").set("type", "e1000")
        with self.assertRaisesRegex(libvirt.libvirtError, "model"):
            dom.updateDeviceFlags(ElementTree.tostring(card).decode(), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        card.find("model").set("type", "virtio")
        card.remove(card.find("bandwidth"))
        dom.updateDeviceFlags(ElementTree.tostring(card).decode(), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.assertNotIn(f"netdev lodge_{port}", self.families())
        dom.destroy()
        manage.until(lambda: f"lodge_{port}" not in self.families(), "the port's tables go with it")

    def test_what_is_refused(self):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        self.network(NETWORK.replace("lab", "lax").replace("10.41", "10.42").replace("00:41", "00:42"))
        listed = self.virsh("nwfilter-list")
        for name in ("clean-traffic", "no-mac-spoofing", "allow-dhcp"):
            self.assertIn(name, listed)
        for text in ("<filter name='web' chain='root'><rule action='accept' direction='in'><tcp dstportstart='80'/>"
                     "</rule></filter>",
                     "<filter name='ring' chain='root'><filterref filter='ring'/></filter>",
                     "<filter name='odd' chain='root'><rule action='drop' direction='in'><stp/></rule></filter>",
                     "<filter name='v6' chain='root'><filterref filter='no-ipv6-spoofing'/></filter>",
                     "<filter name='bad' chain='root'><rule action='drop' direction='in'>"
                     "<ip srcipaddr='1.2.3'/></rule></filter>"):
            with open(f"{self.dir}/filter.xml", "w") as f:
                f.write(text)
            self.virsh("nwfilter-define", f"{self.dir}/filter.xml")
        for more, words in (
                ("<filterref filter='nosuch'/>", "no nwfilter with matching name 'nosuch'"),
                ("<filterref filter='web'/>", "needs the state of connections"),
                ("<filterref filter='ring'/>", "in a circle"),
                ("<filterref filter='odd'/>", "<stp> in a filter is not supported"),
                ("<filterref filter='v6'/>", "<parameter name='IPV6'>"),
                ("<filterref filter='bad'/>", "'1.2.3' is not supported"),
                ("<bandwidth><inbound average='100' floor='50'/></bandwidth>", "'floor'"),
                ("<bandwidth><inbound peak='100'/></bandwidth>", "Missing mandatory average"),
                ("<bandwidth><outbound average='-1'/></bandwidth>", "Invalid value for attribute 'average'")):
            with open(f"{self.dir}/dom.xml", "w") as f:
                f.write(self.xml(4, more, source="network='lax'"))
            self.assertIn(words, self.virsh("create", f"{self.dir}/dom.xml", fails=True))
        self.assertEqual(self.daemon.machines(), [])
        manage.until(lambda: "lodge_vnet" not in self.families(), "nothing of them is left")

    def test_rules(self):
        """Every word of a rule that we know is one that nft takes."""
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        self.network(NETWORK.replace("lab", "law").replace("10.41", "10.43").replace("00:41", "00:43"))
        with open(f"{self.dir}/filter.xml", "w") as f:
            f.write("""<filter name='all-words' chain='root'>
                <rule action='accept' direction='inout' priority='10'><arp opcode='Request' hwtype='1' protocoltype='0x800'
                 arpsrcmacaddr='$MAC' arpsrcipaddr='10.43.0.9' arpdstipaddr='10.43.0.1'/></rule>
                <rule action='drop' direction='out' priority='20'><ip match='no' srcipaddr='10.43.0.0' srcipmask='255.255.255.0'/></rule>
                <rule action='return' direction='in' priority='30'><ipv6 srcipaddr='fe80::' srcipmask='10' protocol='icmpv6'/></rule>
                <rule action='accept' direction='out' priority='40'><ip protocol='tcp' dstportstart='80' dstportend='90'
                 srcipaddr='$HOSTS'/></rule>
                <rule action='reject' direction='in' priority='50'><tcp dstportstart='25'/></rule>
                <rule action='drop' direction='in' priority='60'><all/></rule>
                <rule action='continue' direction='out' priority='70'><mac protocolid='vlan'/></rule>
                <filterref filter='qemu-announce-self'/><filterref filter='no-ip-multicast'/>
                <filterref filter='allow-dhcp-server'><parameter name='DHCPSERVER' value='10.43.0.1'/></filterref></filter>""")
        self.virsh("nwfilter-define", f"{self.dir}/filter.xml")
        dom = conn.createXML(self.xml(5, "<filterref filter='all-words'><parameter name='HOSTS' value='10.43.0.8'/>"
                                      "<parameter name='HOSTS' value='10.43.0.9'/></filterref>", source="network='law'"), 0)
        self.addCleanup(dom.destroy)
        port = dom.XMLDesc().split("<target dev='")[1].split("'")[0]
        table = self.host.run("nft", "list", "table", "bridge", f"lodge_{port}")
        for words in ("ip saddr != 10.43.0.0/24 drop", "tcp dport 80-90", "ip saddr { 10.43.0.8, 10.43.0.9 }",
                      "fe80::/10", "ip daddr 224.0.0.0/4 drop", "10.43.0.1", "jump out-rarp"):
            self.assertIn(words, table)


if __name__ == "__main__":
    manage.need_networks()
    unittest.main()
