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
from test_manage_domain import Console, machine
from test_manage_network import NetworkCase, run

PAUSED = libvirt.VIR_DOMAIN_START_PAUSED
LODGE = os.environ["LODGE"]


class CardCase(NetworkCase):
    def setUp(self):
        self.conn = self.daemon.connect()
        self.addCleanup(self.conn.close)

    def start(self, name, *cards, flags=PAUSED, more="<console type='pty'/>", board="pc"):
        dom = self.conn.createXML(machine(name, devices="".join(cards) + more, board=board), flags)
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
        two = self.start("plug2", "<interface type='network'><source network='plugs'/></interface>", flags=0)
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
        Console(self.conn, two).expect(b"busybox")  # a guest that lets go of a card
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


if __name__ == "__main__":
    if os.getuid() != 0 or run("ip", "netns", "add", f"x{os.getpid()}", check=False).returncode:
        print("skipped: needs root and network name spaces")
        sys.exit(77)
    run("ip", "netns", "del", f"x{os.getpid()}")
    unittest.main()
