#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Network cards of machines: what each is plugged into, and how that is seen and changed."""
import os
import pathlib
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(__file__))
import libvirt
import manage
from test_manage_domain import machine, resumed
from test_manage_network import NetworkCase, run

LODGE = os.environ["LODGE"]


class CardCase(NetworkCase):
    def setUp(self):
        self.conn = self.daemon.connect()
        self.addCleanup(self.conn.close)

    def start(self, name, *cards, vcpus=1):
        dom = self.conn.createXML(machine(name, devices="".join(cards) + "<console type='pty'/>", board="pc",
                                          more=f"<vcpu>{vcpus}</vcpu>"), libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(self.daemon.run_virsh, "destroy", name)
        return dom

    def fails(self, name, card, words):
        with self.assertRaises(libvirt.libvirtError) as caught:
            self.start(name, card)
        self.assertIn(words, str(caught.exception))

    def card(self, dom, index=0):
        return ET.fromstring(dom.XMLDesc()).findall("devices/interface")[index]

    def lodge(self, *args):
        p = subprocess.run([LODGE, "-c", self.daemon.uri, *args], capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout

    def validate(self, schema, *texts):
        paths = [pathlib.Path(self.dir, f"v{i}.xml") for i in range(len(texts))]
        for path, text in zip(paths, texts):
            path.write_text(text)
        run("xmllint", "--noout", "--relaxng", f"/usr/share/libvirt/schemas/{schema}.rng", *paths)


class NetworkPorts(CardCase):
    XML = """<network><name>plugs</name><forward/><bridge name='plugbr' stp='off'/><ip address='10.50.0.1' prefix='24'/>
        <portgroup name='apart'/><port isolated='yes'/></network>"""
    OWN = """<networkport>{uuid}<owner><name>somebody</name><uuid>9e1ff1f6-94e4-4b8b-8c3f-9f5a1d1b2c3d</uuid></owner>
        <mac address='52:54:00:50:00:99'/></networkport>"""
    ID = "2d744f06-1a6e-4e3f-a1c3-0cd1b5a9c1aa"

    def ids(self):
        return self.virsh("net-port-list", "plugs", "--uuid").split()

    def put(self, text):
        path = f"{self.dir}/port{len(os.listdir(self.dir))}.xml"
        pathlib.Path(path).write_text(text)
        return path

    def test_machines_are_seen(self):
        self.network(self.XML)
        self.assertEqual(self.ids(), [])
        self.assertNotIn("connections", self.virsh("net-dumpxml", "plugs"))
        one = self.start("plug1", "<interface type='network'><mac address='52:54:00:50:00:01'/><source network='plugs' "
                                  "portgroup='apart'/></interface>")
        two = self.start("plug2", "<interface type='network'><source network='plugs'/></interface>")
        source = self.card(one).find("source").attrib
        self.assertEqual((source["bridge"], source["portid"] in self.ids(), len(self.ids())), ("plugbr", True, 2))
        self.assertIn("<network connections='2'>", self.virsh("net-dumpxml", "plugs"))
        self.assertNotIn("connections", self.virsh("net-dumpxml", "plugs", "--inactive"))
        shown = self.virsh("net-port-dumpxml", "plugs", source["portid"])
        self.validate("networkport", shown)
        self.validate("network", self.virsh("net-dumpxml", "plugs"))
        for words in ("<name>plug1</name>", one.UUIDString(), "<group>apart</group>", "<port isolated='yes'/>",
                      "<mac address='52:54:00:50:00:01'/>", "<plug type='network' bridge='plugbr'/>"):
            self.assertIn(words, shown)
        resumed(self.conn, two).expect(b"busybox")  # a guest that lets go of a card
        self.daemon.kill()  # the next one knows them, too
        self.daemon.start()
        self.assertEqual(len(self.ids()), 2)
        self.assertEqual(self.virsh("net-port-dumpxml", "plugs", source["portid"]), shown)
        self.virsh("destroy", "plug1")
        self.assertEqual(len(self.ids()), 1)
        self.virsh("attach-interface", "plug2", "network", "plugs", "--mac", "52:54:00:50:00:02", "--live",
                   "--model", "virtio")
        self.assertEqual(len(self.ids()), 2)
        self.virsh("detach-interface", "plug2", "network", "--mac", "52:54:00:50:00:02", "--live")
        manage.until(lambda: len(self.ids()) == 1, "the card has gone")
        self.virsh("destroy", "plug2")
        self.assertEqual(self.ids(), [])

    def test_clients_make_them(self):
        self.network(self.XML)
        file = self.put(self.OWN.format(uuid=f"<uuid>{self.ID}</uuid>"))
        for program in (self.virsh, lambda *args: self.lodge(*args)):
            self.assertIn(f"Network port {self.ID} created from", program("net-port-create", "plugs", file, "--validate"))
            self.assertIn(self.ID, program("net-port-list", "plugs"))
            self.assertEqual(program("net-port-list", "plugs", "--uuid").split(), [self.ID])
            self.assertIn("<plug type='network' bridge='plugbr'/>", program("net-port-dumpxml", "plugs", self.ID))
            self.assertIn("deleted", program("net-port-delete", "plugs", self.ID))
        with self.assertRaises(libvirt.libvirtError) as caught:
            self.conn.networkLookupByName("plugs").portLookupByUUIDString(self.ID)
        self.assertEqual(caught.exception.get_error_code(), libvirt.VIR_ERR_NO_NETWORK_PORT)
        self.virsh("net-port-create", "plugs", self.put(self.OWN.format(uuid="")))  # gets a UUID
        self.assertEqual(len(self.ids()), 1)
        self.virsh("net-port-create", "plugs", file)
        self.assertIn("already exists", self.virsh("net-port-create", "plugs", file, fails=True))
        for text, words in (("<networkport/>", "owner"), (self.OWN.replace("52:54", "53:54").format(uuid=""), "mac"),
                            (self.OWN.replace("<mac", "<group>nosuch</group><mac").format(uuid=""), "nosuch"),
                            (self.OWN.replace("<mac", "<virtualport type='openvswitch'/><mac").format(uuid=""), "<virtualport>")):
            self.assertIn(words, self.virsh("net-port-create", "plugs", self.put(text), fails=True))
        self.virsh("net-destroy", "plugs")
        self.assertEqual(self.ids(), [])
        self.assertIn("not active", self.virsh("net-port-create", "plugs", file, fails=True))
        self.virsh("net-start", "plugs")
        self.assertEqual(self.ids(), [])



class Wires(CardCase):
    """What a card is plugged into, and what of it is refused."""
    USER = "<interface type='user'>{}<model type='virtio'/></interface>"
    BR = "<interface type='bridge'><mac address='52:54:00:51:00:01'/><source bridge='wirebr'/>{}</interface>"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host.run("ip", "link", "add", "wirebr", "type", "bridge")
        cls.host.run("ip", "link", "add", "low0", "type", "veth", "peer", "name", "low1")
        for device in ("low0", "low1", "wirebr"):
            cls.host.run("ip", "link", "set", device, "up")

    def link(self, device):
        return self.host.run("ip", "-d", "link", "show", device)

    def taps(self, device):
        """How many descriptors of @device machines have open."""
        infos = [path for pid in self.daemon.machines() for path in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir()]
        return sum(f"iff:\t{device}\n" in path.read_text() for path in infos)

    def test_interfaces_of_the_host(self):
        self.start("shown", self.BR.format("<model type='virtio'/>"))
        names = self.virsh("iface-list", "--all")
        dumps = {n: self.virsh("iface-dumpxml", n) for n in ("lo", "ext0", "low0", "wirebr") if n in names}
        self.assertEqual(len(dumps), 4)
        self.validate("interface", *dumps.values())
        self.assertRegex(dumps["wirebr"], r"<bridge stp='off' delay='15'>\s+<interface type='ethernet' name='vnet\d+'>")

    def test_addresses_by_what_the_host_has_seen(self):
        self.start("seen", self.BR.format("<model type='virtio'/>"))
        for address in ("10.51.9.9", "fd00:51::9"):
            self.host.run("ip", "neigh", "add", address, "lladdr", "52:54:00:51:00:01", "dev", "wirebr")
            self.addCleanup(self.host.run, "ip", "neigh", "flush", "to", address, "nud", "permanent")
        shown = self.virsh("domifaddr", "seen", "--source", "arp")
        self.assertRegex(shown, r"vnet\d+ +52:54:00:51:00:01 +ipv4 +10\.51\.9\.9/0")
        self.assertRegex(shown, r"ipv6 +fd00:51::9/0")
        self.assertNotIn("10.51", self.virsh("domifaddr", "seen"))

    def test_moves(self):
        """update-device plugs the card in elsewhere, and its ports of networks go along."""
        self.network("<network><name>other</name><bridge name='otherbr' stp='off'/></network>")
        dom = self.start("moves", self.BR.format("<model type='virtio'/>"))
        tap = self.card(dom).find("target").get("dev")

        def change(text):
            self.virsh("update-device", "moves", self.put(text), "--live")
            return self.host.run("bridge", "-d", "link", "show", "dev", tap)
        card = self.BR.format("{}<target dev='" + tap + "'/><model type='virtio'/>")
        self.assertIn("isolated on", change(card.format("<port isolated='yes'/>")))
        self.assertIn("isolated='yes'", dom.XMLDesc())
        self.assertIn("isolated off", change(card.format("")))
        there = card.format("").replace("type='bridge'", "type='network'").replace("bridge='wirebr'", "network='other'")
        self.assertIn("master otherbr", change(there))
        self.assertEqual(self.card(dom).find("source").get("portid"), self.virsh("net-port-list", "other", "--uuid"))
        self.assertIn("master wirebr", change(card.format("")))
        self.assertEqual(self.virsh("net-port-list", "other", "--uuid"), "")
        self.assertNotIn("portid", dom.XMLDesc())
        with self.assertRaises(libvirt.libvirtError) as caught:
            dom.updateDeviceFlags(card.format("<mtu size='1300'/>"))
        self.assertIn("cannot modify network device mtu", str(caught.exception))

    def test_own_tap(self):
        dom = self.start("own", "<interface type='ethernet'><mac address='52:54:00:51:00:09'/><target dev='mytap'/>"
                                "<model type='virtio'/><mtu size='1400'/></interface>")
        self.assertRegex(self.link("mytap"), r"mtu 1400(?s:.)*fe:54:00:51:00:09")
        self.assertNotIn("master", self.link("mytap"))
        self.assertIn("ethernet", self.virsh("domiflist", "own"))
        dom.destroy()
        self.assertNotIn("mytap", self.host.run("ip", "link"))

    def test_somebody_elses_tap(self):
        self.host.run("ip", "tuntap", "add", "theirs0", "mode", "tap", "multi_queue")
        self.addCleanup(self.host.run, "ip", "link", "del", "theirs0")
        before = self.link("theirs0")
        card = ("<interface type='ethernet'><target dev='{}' managed='no'/><model type='virtio'/><driver queues='2'/>"
                "</interface>")
        dom = self.start("theirs", card.format("theirs0"))
        self.assertIn("managed='no'", dom.XMLDesc())
        dom.destroy()
        self.assertEqual(self.link("theirs0").split("link/ether")[1][:20], before.split("link/ether")[1][:20])
        self.assertIn("tap", self.link("theirs0"))  # it is there as before
        self.fails("none", card.format("nosuch0"), "does not exist")
        self.fails("none", card.format("wirebr"), "wirebr")
        self.assertIn("wirebr", self.link("wirebr"))

    def test_several_queues(self):
        self.host.run("ip", "addr", "add", "10.51.0.1/24", "dev", "wirebr")
        self.addCleanup(self.host.run, "ip", "addr", "del", "10.51.0.1/24", "dev", "wirebr")
        card = self.BR.format("<model type='virtio'/><mtu size='1400'/><driver name='qemu' queues='4'/>")
        dom = self.start("queues", card, vcpus=2)
        console = resumed(self.conn, dom)
        console.expect(b"busybox")
        self.assertEqual(self.taps(self.card(dom).find("target").get("dev")), 4)
        console.type(b"ip addr add 10.51.0.2/24 dev eth0; ip link set eth0 up; cd /sys/class/net/eth0; "
                     b"echo has $(ls queues | grep -c rx) mtu $(cat mtu); until ping -c 1 -W 1 10.51.0.1; do :; done; "
                     b"for i in 1 2 3 4 5 6 7 8; do ping -c 1 10.51.0.1 || echo lost; done; echo done-$((7))\n")
        console.expect(b"has 2 mtu 1400")  # as many as the guest has processors
        console.expect(b"done-7")
        self.assertNotIn(b"lost\r", console.seen.split(b"has 2", 1)[1])
        later = card.replace(":01'", ":02'").replace("'4'", "'3'")
        dom.attachDevice(later)
        self.assertEqual(self.taps(self.card(dom, 1).find("target").get("dev")), 3)
        self.virsh("destroy", "queues")
        self.fails("none", self.BR.format("<model type='e1000'/><driver queues='4'/>"), "not supported for: e1000")
        self.fails("none", self.BR.format("<model type='virtio'/><driver queues='99'/>"), "1 to 31")
        self.fails("none", self.BR.format("<model type='virtio'/><driver name='vhost'/>"), "vhost")

    def test_boot_order_and_rom(self):
        """What the firmware boots from, and the card's own; a machine's process is told so."""
        card = self.BR.format("<model type='virtio'/><boot order='{}'/><rom {}/>")
        self.start("roms", card.format(2, "enabled='no'"), card.replace(":01'", ":02'").format(1, "file='/usr/lib/ipxe/qemu/pxe-e1000.rom'"))
        line = pathlib.Path(f"/proc/{self.daemon.machines()[0]}/cmdline").read_text()
        words = [w for w in line.split("\0") if w.startswith("virtio-net-pci")]
        self.assertEqual([re.search(r"bootindex=(\d)", w)[1] for w in words], ["2", "1"])
        self.assertRegex(words[0], "romfile=(,|$)")
        self.assertIn("romfile=/usr/lib/ipxe/qemu/pxe-e1000.rom", words[1])
        self.virsh("destroy", "roms")
        self.fails("none", card.format(1, "bar='off'"), "'bar'")
        self.fails("none", card.format(1, "file='/no/such/rom'"), "/no/such/rom")
        self.fails("none", card.format(1, "enabled='no'") + card.replace(":01'", ":02'").format(1, "enabled='no'"), "boot order")

    def test_refused_by_name(self):
        for card, words in (
                (self.USER.format("<vlan><tag id='4'/></vlan>"), "<vlan>"),
                (self.USER.format("<port isolated='yes'/>"), "isolated"),
                (self.USER.format("<filterref filter='clean-traffic'/>"), "<filterref>"),
                (self.USER.format("<bandwidth><inbound average='5'/></bandwidth>"), "<bandwidth>"),
                (self.USER.format("<mtu size='1400'/>"), "<mtu>"),
                (self.USER.format("<portForward proto='tcp' dev='eth0'><range start='5'/></portForward>"), "dev="),
                (self.USER.format("<portForward proto='tcp'><range start='5' end='9' exclude='yes'/></portForward>"), "exclude"),
                (self.USER.format("<portForward proto='tcp'><range start='5' end='999'/></portForward>"), "at most 256"),
                (self.BR.format("<ip address='10.0.0.1'/>"), "<ip>"),
                (self.BR.format("<virtualport type='openvswitch'/>"), "<virtualport>"),
                (self.BR.format("<teaming type='persistent'/>"), "<teaming>"),
                (self.BR.format("<coalesce><rx><frames max='7'/></rx></coalesce>"), "<coalesce>"),
                (self.BR.format("<script path='/x'/>"), "<script>"),
                (self.BR.format("<backend tap='/dev/x'/>"), "<backend>"),
                (self.BR.format("<tune><sndbuf>1</sndbuf></tune>"), "<tune>"),
                (self.BR.format("<target dev='x0' managed='no'/>"), "managed='no'"),
                (self.BR.format("<model type='virtio'/><driver txmode='timer'/>"), "txmode"),
                ("<interface type='vhostuser'><source type='unix' path='/x' mode='client'/></interface>", "vhostuser"),
                ("<interface type='hostdev'><source/></interface>", "hostdev"),
                ("<interface type='direct' trustGuestRxFilters='yes'><source dev='low0'/></interface>", "trustGuestRxFilters"),
                ("<interface type='direct'><source dev='low0'/><vlan><tag id='4'/></vlan></interface>", "<vlan>"),
                ("<interface type='direct'><source dev='low0'/><filterref filter='clean-traffic'/></interface>", "<filterref>"),
                ("<interface type='direct'><source dev='low0' mode='sideways'/></interface>", "sideways"),
                ("<interface type='direct'><source dev='nosuch0'/></interface>", "nosuch0"),
                ("<interface type='bridge'><source bridge='nosuch0'/></interface>", "nosuch0"),
                ("<interface type='network'><source network='default' portgroup='none'/></interface>", "is not active"),
                ("<interface type='ethernet'><target managed='no'/></interface>", "target dev name"),
                ("<interface type='ethernet'><filterref filter='clean-traffic'/></interface>", "<filterref>")):
            with self.subTest(words):
                self.fails("none", card, words)

    def test_user_network(self):
        """Its addresses, and ports that come in, of a card from the start and of one that came later."""
        user = ("<mac address='52:54:00:51:00:0{0}'/><ip family='ipv4' address='172.17.{0}.0' prefix='24'/><portForward "
                "proto='tcp' address='127.0.0.1'><range start='{0}322' to='22'/></portForward>")
        dom = self.start("user", self.USER.format(user.format(3)))
        console = resumed(self.conn, dom)
        console.expect(b"busybox")
        console.type(b"ip addr\n")
        console.expect(b"inet 172.17.3.")
        dom.attachDevice(self.USER.format(user.format(4)))
        listening = self.host.run("ss", "-ltn")
        self.assertIn("127.0.0.1:3322", listening)
        self.assertIn("127.0.0.1:4322", listening)
        limits = ["--inbound", "100,200,300", "--live"]
        self.assertIn("<bandwidth> of an interface of type 'user'",
                      self.virsh("domiftune", "user", "52:54:00:51:00:03", *limits, fails=True))
        limited = self.USER.format(user.format(3) + "<bandwidth><outbound average='10'/></bandwidth>")
        self.assertIn("<bandwidth> of an interface of type 'user'",
                      self.virsh("update-device", "user", self.put(limited), "--live", fails=True))

    def test_link_state(self):
        dom = self.start("state", self.BR.format("<model type='virtio'/><link state='down'/>"))
        console = resumed(self.conn, dom)
        console.expect(b"busybox")
        tap = self.card(dom).find("target").get("dev")
        self.assertIn("down", self.virsh("domif-getlink", "state", tap))
        for word in ("up", "down"):
            self.virsh("domif-setlink", "state", tap, word)
            self.assertIn(f"{tap} {word}", self.virsh("domif-getlink", "state", tap))
            console.type(b"ip link set eth0 up; until grep -q %d /sys/class/net/eth0/carrier; do sleep .1; done; echo is-$((1))-%s\n"
                         % (word == "up", word.encode()))
            console.expect(b"is-1-" + word.encode())
        self.virsh("update-device", "state", self.put(ET.tostring(self.changed(dom, "up"), encoding="unicode")), "--live")
        console.type(b"until grep -q 1 /sys/class/net/eth0/carrier; do sleep .1; done; echo is-$((2))-up\n")
        console.expect(b"is-2-up")

    def put(self, text):
        path = f"{self.dir}/device{len(os.listdir(self.dir))}.xml"
        pathlib.Path(path).write_text(text)
        return path

    def changed(self, dom, state):
        card = self.card(dom)
        card.find("link").set("state", state)
        return card

    def need_macvtap(self):
        try:
            self.host.run("ip", "link", "add", "link", "low0", "name", "try0", "type", "macvtap")
        except subprocess.CalledProcessError:
            manage.leave_out(self, "the kernel has no macvtap")
        # Another name space has macvtaps of the same indexes, and with them the names of their nodes.
        index = int(self.host.run("cat", "/sys/class/net/try0/ifindex"))
        self.host.run("ip", "link", "del", "try0")
        for i in range(4):
            self.world.run("ip", "link", "add", "link", "ext0", "name", f"taken{i}", "index", str(index + i), "type", "macvtap",
                           check=False)
            self.addCleanup(self.world.run, "ip", "link", "del", f"taken{i}", check=False)

    def test_macvtap(self):
        """A card from the start, one that comes later and goes, and frames through both."""
        self.need_macvtap()
        self.host.run("ip", "addr", "add", "10.52.0.1/24", "dev", "low1")
        self.addCleanup(self.host.run, "ip", "addr", "del", "10.52.0.1/24", "dev", "low1")
        self.network("<network><name>mv</name><forward mode='bridge'><interface dev='low0'/></forward></network>")
        card = ("<interface type='network'><mac address='52:54:00:52:00:0{}'/><source network='mv'/><model type='virtio'/>"
                "<driver queues='2'/><bandwidth><inbound average='1000'/><outbound average='2000'/></bandwidth></interface>")
        dom = self.start("mv", card.format(1))
        console = resumed(self.conn, dom)
        console.expect(b"busybox")
        self.assertEqual({k: v for k, v in self.card(dom).find("source").attrib.items() if k != "portid"},
                         {"network": "mv", "dev": "low0", "mode": "bridge"})
        console.type(b"ip link set eth0 up; ip addr add 10.52.0.2/24 dev eth0; until ping -c 1 -W 1 10.52.0.1; do :; done; "
                     b"echo done-$((1))\n")
        console.expect(b"done-1")
        device = self.card(dom).find("target").get("dev")
        # What leaves its device is what the machine sends.
        self.assertRegex(self.host.run("tc", "qdisc", "show", "dev", device), r"tbf .*rate 16384Kbit")
        self.assertIn("rate over 1000 kbytes", self.host.run("nft", "list", "table", "netdev", f"lodge_{device}"))
        dom.attachDevice(card.format(2))
        second = self.card(dom, 1).find("target").get("dev")
        self.assertIn("macvtap mode bridge", re.sub(" +", " ", self.link(second)))
        self.assertIn("dev='low0' connections='2'", self.virsh("net-dumpxml", "mv"))
        console.type(b"until ip link set eth1 up; do sleep .1; done; ip addr add 10.53.0.2/24 dev eth1; echo done-$((2))\n")
        console.expect(b"done-2")
        self.host.run("ip", "addr", "add", "10.53.0.1/24", "dev", "low1")
        self.addCleanup(self.host.run, "ip", "addr", "del", "10.53.0.1/24", "dev", "low1")
        console.type(b"until ping -c 1 -W 1 -I eth1 10.53.0.1; do :; done; echo done-$((3))\n")
        console.expect(b"done-3")
        dom.detachDevice(card.format(2))
        manage.until(lambda: second not in self.host.run("ip", "link"), "the second macvtap has gone")
        dom.destroy()
        self.assertNotIn("macvtap", self.host.run("ip", "link"))

    def test_one_device_each(self):
        """passthrough: a device belongs to one machine."""
        self.need_macvtap()
        self.network("<network><name>whole</name><forward mode='passthrough'><interface dev='low0'/><interface dev='low1'/>"
                     "</forward></network>")
        card = "<interface type='network'><source network='whole'/><model type='virtio'/></interface>"
        doms = [self.start(f"whole{i}", card) for i in range(2)]
        self.assertEqual({self.card(dom).find("source").get("dev") for dom in doms}, {"low0", "low1"})
        self.fails("none", card, "requires exclusive access")
        doms[0].destroy()
        self.start("whole3", card)


if __name__ == "__main__":
    manage.need_networks()
    unittest.main()
