#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices, figures and numbers of machines through lodged: attach and detach, other media, statistics,
memory, titles and metadata, the monitor, domain capabilities."""
import os
import pathlib
import re
import subprocess
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage
from test_manage_domain import Console, machine, started, UP

IMG = os.environ["LODGE_IMG"]


class Devices(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.images = os.path.join(cls.daemon.root, "images")
        os.mkdir(cls.images)
        for name, form in (("a", "qcow2"), ("b", "qcow2"), ("one.iso", "raw"), ("two.iso", "raw")):
            subprocess.run([IMG, "create", "-q", "-f", form, f"{cls.images}/{name}", "8M"], check=True)
        cls.conn = cls.daemon.connect()
        cls.dom = cls.conn.defineXML(machine("dev", devices=f"""<console type='pty'/>
            <disk type='file'><driver name='qemu' type='qcow2'/><source file='{cls.images}/a'/>
            <target dev='vda' bus='virtio'/></disk>
            <disk type='file' device='cdrom'><source file='{cls.images}/one.iso'/>
            <target dev='sda' bus='sata'/></disk>
            <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
            <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
            <controller type='pci' model='pcie-root-port'/><interface type='user'><mac address='52:54:00:12:00:01'/><model type='virtio'/></interface>"""))
        cls.console = started(cls.conn, cls.dom)
        cls.console.expect(UP)
        cls.console.expect(b"# ")

    def test_attach_and_detach(self):
        self.virsh("attach-disk", "dev", f"{self.images}/b", "vdb", "--subdriver", "qcow2", "--live",
                   "--config")
        self.assertIn(f"{self.images}/b", self.virsh("domblklist", "dev"))
        self.assertIn(f"{self.images}/b", self.virsh("domblklist", "dev", "--inactive"))
        self.assertIn("already exists", self.virsh("attach-disk", "dev", f"{self.images}/b", "vdb",
                                                   "--live", fails=True))
        for xml, part in ((f"<disk type='file'><driver name='qemu' type='qcow2'/><source file="
                           f"'{self.images}/b'/><target dev='vdd'/><transient/></disk>", "transient disk"),
                          ("<memory model='dimm'><target><size>131072</size></target></memory>", "'maxMemory' is not defined")):
            with self.assertRaisesRegex(libvirt.libvirtError, part):  # as at a start: nothing is dropped in silence
                self.dom.attachDevice(xml)
        self.virsh("detach-disk", "dev", "vdb", "--live", "--config")
        manage.until(lambda: "vdb" not in self.virsh("domblklist", "dev"), "vdb is gone")
        self.assertNotIn("vdb", self.virsh("domblklist", "dev", "--inactive"))
        self.assertIn("No disk found", self.virsh("detach-disk", "dev", "vdz", fails=True))

    def test_what_lies_below_is_readable(self):
        """An image that nobody may read under one that is attached, as volumes are made."""
        base, over = f"{self.images}/base", f"{self.images}/over"
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", base, "8M"], check=True)
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over], check=True)
        os.chmod(base, 0o600)
        owner = os.stat(base).st_uid
        self.virsh("attach-disk", "dev", over, "vde", "--subdriver", "qcow2", "--live")
        self.virsh("detach-disk", "dev", "vde", "--live")
        manage.until(lambda: "vde" not in self.virsh("domblklist", "dev"), "vde is gone")
        manage.until(lambda: os.stat(base).st_uid == owner, "its base is whose it was")

    def test_detached_by_what_was_attached(self):
        live, both = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        for kind, xml, flags in (
                ("rng", "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>", both),
                ("input", "<input type='tablet' bus='virtio'/>", live),
                ("watchdog", "<watchdog model='i6300esb' action='reset'/>", both ^ live)):
            with self.subTest(kind):
                count = [self.dom.XMLDesc(mode).count(f"<{kind} ") for mode in (0, 2)]
                self.dom.attachDeviceFlags(xml, flags)
                with self.assertRaisesRegex(libvirt.libvirtError, f"'{kind}' was found"):
                    self.dom.detachDeviceFlags(xml.replace("/dev/urandom", "/dev/random").replace("tablet", "mouse")
                                               .replace("reset", "poweroff"), flags)
                self.dom.detachDeviceFlags(xml, flags)
                manage.until(lambda: [self.dom.XMLDesc(mode).count(f"<{kind} ") for mode in (0, 2)] == count,  # pylint: disable=W0640
                             f"{kind} is gone")
        with self.assertRaisesRegex(libvirt.libvirtError, "detach of device 'memballoon'"):
            self.dom.detachDeviceFlags("<memballoon model='virtio'/>", libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def test_media(self):
        self.virsh("change-media", "dev", "sda", f"{self.images}/two.iso", "--update", "--live")
        self.assertIn("two.iso", self.virsh("domblklist", "dev"))
        self.virsh("change-media", "dev", "sda", "--eject", "--live")
        self.assertRegex(self.virsh("domblklist", "dev"), r"sda\s+-")
        self.virsh("change-media", "dev", "sda", f"{self.images}/one.iso", "--insert", "--live")

    def test_link(self):
        self.virsh("domif-setlink", "dev", "52:54:00:12:00:01", "down")
        self.assertIn("down", self.virsh("domif-getlink", "dev", "52:54:00:12:00:01"))
        self.virsh("domif-setlink", "dev", "52:54:00:12:00:01", "up")

    def test_figures(self):
        self.console.type(b"dd if=/dev/vda of=/dev/null bs=1M count=2; echo re''ad\n")
        self.console.expect(b"\nread")
        stats = self.dom.blockStats("vda")
        self.assertGreaterEqual(stats[1], 2 << 20)
        self.assertGreaterEqual(self.dom.blockStatsFlags("vda")["rd_bytes"], 2 << 20)
        self.assertEqual(self.dom.blockInfo("vda")[0], 8 << 20)
        everything = self.conn.getAllDomainStats()[0][1]
        self.assertEqual(everything["state.state"], libvirt.VIR_DOMAIN_RUNNING)
        self.assertEqual(everything["block.0.name"], "vda")
        self.assertEqual(everything["block.0.capacity"], 8 << 20)
        self.assertGreaterEqual(everything["block.0.rd.bytes"], 2 << 20)
        self.assertGreater(everything["cpu.time"], 0)
        self.assertGreater(self.dom.memoryStats()["rss"], 0)
        self.assertIn("vcpu.current=1", self.virsh("domstats", "dev"))

    def test_memory(self):
        self.virsh("setmem", "dev", "100M", "--live")
        manage.until(lambda: self.dom.info()[2] == 100 << 10, "the balloon is 100 MiB")
        self.virsh("setmaxmem", "dev", "256M", "--config")
        self.virsh("setmem", "dev", "200M", "--config")
        inactive = self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self.assertIn("<memory unit='KiB'>262144</memory>", inactive)
        self.assertIn("<currentMemory unit='KiB'>204800</currentMemory>", inactive)
        self.assertIn("higher than max memory", self.virsh("setmem", "dev", "1G", "--live", fails=True))
        self.virsh("setvcpus", "dev", "2", "--maximum", "--config")
        self.assertEqual(self.virsh("vcpucount", "dev", "--maximum", "--config"), "2")

    def test_words(self):
        self.virsh("desc", "dev", "--title", "a title", "--config", "--live")
        self.assertEqual(self.virsh("desc", "dev", "--title"), "a title")
        uri = "urn:test:1"
        self.assertIn("metadata not found", self.virsh("metadata", "dev", uri, fails=True))
        self.dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<x><y/></x>", "t", uri,
                             libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        self.assertIn("<y/>", self.dom.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, uri))
        self.assertIn('xmlns:t="urn:test:1"', self.dom.XMLDesc())

    def test_monitor(self):
        self.assertIn('"status":"running"',
                      self.virsh("qemu-monitor-command", "dev", '{"execute":"query-status"}').replace(" ", ""))
        self.assertIn("running", self.virsh("qemu-monitor-command", "dev", "--hmp", "info status"))
        self.assertIn("agent is not configured",
                      self.virsh("qemu-agent-command", "dev", '{"execute":"guest-ping"}', fails=True))

    def test_capabilities(self):
        self.assertIn("the machine 'foo' is not supported by emulator '/",
                      self.virsh("domcapabilities", "--machine", "foo", fails=True))
        for options in ((), ("--machine", "q35"), ("--machine", "pc-i440fx-4.2", "--virttype", "qemu"),
                        ("--emulatorbin", "/usr/bin/qemu-system-x86_64", "--arch", "i686")):
            text = self.virsh("domcapabilities", *options)
            self.assertIn("<value>vnc</value>", text)
            self.assertNotIn("spice", text)
            file = pathlib.Path(self.daemon.root, "caps.xml")
            file.write_text(text)
            p = subprocess.run(["virt-xml-validate", str(file), "domaincaps"], capture_output=True, text=True)
            self.assertEqual(p.returncode, 0, p.stderr + text)

        for option, value, words in (("machine", "pc-q35-foo", "the machine 'pc-q35-foo' is not supported by emulator"),
                                     ("arch", "foo", "unknown architecture: foo"),
                                     ("arch", "riscv64", "unable to find any emulator to serve 'riscv64' architecture"),
                                     ("virttype", "foo", "unknown virttype: foo"),
                                     ("emulatorbin", "/usr/bin/nosuch", "the emulator '/usr/bin/nosuch' is not")):
            self.assertIn(words, self.virsh("domcapabilities", f"--{option}", value, fails=True))

    def test_every_machine_is_named(self):
        """The list is kept twice: lodge-vm's own, and that of capabilities, which no other passes."""
        listed = set(re.findall("<machine[^>]*>(.*?)<", self.virsh("capabilities")))
        helped = subprocess.run([os.environ["LODGE_VM"], "-M", "help"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(listed, {line.split()[0] for line in helped.splitlines()[1:]})
        with self.assertRaisesRegex(libvirt.libvirtError, "does not support machine type 'pc-q35-foo'"):
            self.conn.defineXML(machine("foo", board="pc-q35-foo"))

    def test_kvm_is_what_works(self):
        """Definitions may ask for it anywhere; what is said of the host and what starts is the same."""
        works = "<domain type='kvm'/>" in self.virsh("capabilities")
        self.assertIn(f"<domain>{'kvm' if works else 'qemu'}</domain>", self.virsh("domcapabilities"))
        dom = self.conn.defineXML(machine("kvm", devices="").replace("type='qemu'", "type='kvm'", 1))
        self.addCleanup(dom.undefine)
        self.assertIn("<domain type='kvm'>", dom.XMLDesc())
        if works:
            self.assertIn("<domain>kvm</domain>", self.virsh("domcapabilities", "--virttype", "kvm"))
            dom.create()
            dom.destroy()
        else:
            self.assertRegex(self.virsh("domcapabilities", "--virttype", "kvm", fails=True),
                             "invalid argument: the accel 'kvm' is not supported by '.*lodge-vm' on this host: /dev/kvm")
            self.assertRegex(self.virsh("start", "kvm", fails=True), r"unsupported configuration: KVM does not work on this "
                             r"host \(/dev/kvm.*\): <domain type='qemu'> runs the same machine on Lodge's own engine")


class Kinds(manage.Case):
    """Machines that start with what virt-install and older XML write; lodge-vm shows what it got."""

    def started(self, name, kind, devices):
        conn = self.daemon.connect()
        dom = conn.defineXML(machine(name, devices=devices, board=kind))
        dom.create()
        tree = self.virsh("qemu-monitor-command", name, "--hmp", "info qtree")
        dom.destroy()
        dom.undefine()
        return tree

    def test_q35(self):
        tree = self.started("kinds", "q35", """<sound model='ich9'/><sound model='ac97'/>
            <input type='keyboard' bus='virtio'/><input type='mouse' bus='virtio'/>
            <input type='tablet' bus='virtio'/><video><model type='bochs'/></video>
            <controller type='usb' index='0' model='ich9-ehci1'/>
            <controller type='usb' index='0' model='ich9-uhci1'><master startport='0'/></controller>
            <controller type='usb' index='0' model='ich9-uhci2'><master startport='2'/></controller>
            <controller type='usb' index='0' model='ich9-uhci3'><master startport='4'/></controller>
            <controller type='pci' index='1' model='pcie-root-port'/>
            <controller type='pci' index='2' model='pcie-root-port'/>
            <controller type='pci' index='3' model='pcie-switch-upstream-port'/>
            <controller type='pci' index='4' model='pcie-switch-downstream-port'/>
            <controller type='pci' index='5' model='pcie-to-pci-bridge'/>
            <controller type='pci' index='6' model='pci-bridge'/>
            <controller type='pci' index='7' model='dmi-to-pci-bridge'/>
            <interface type='user'><model type='e1000'/><address type='pci' bus='6' slot='3'/></interface>
            <input type='tablet' bus='usb'/>""")
        for device in ("xio3130-downstream", "pci-bridge", "i82801b11-bridge", "ich9-intel-hda", "hda-duplex", "AC97", "virtio-keyboard-pci", "virtio-mouse-pci",
                       "virtio-tablet-pci", "bochs-display", "ich9-usb-ehci1", "ich9-usb-uhci3", "usb-tablet"):
            self.assertIn(device, tree)

    def test_pc(self):
        tree = self.started("kinds", "pc", """<sound model='ich6'><codec type='output'/></sound>
            <controller type='usb' index='0' model='piix3-uhci'/><input type='tablet' bus='usb'/>""")
        for device in ("intel-hda", "hda-output", "piix3-usb-uhci", "usb-tablet"):
            self.assertIn(device, tree)

    def test_usb_comes_with_its_controller(self):
        """Into a machine that was defined without; the second device finds the controller of the first."""
        conn = self.connect()
        stick = os.path.join(self.daemon.root, "stick")
        subprocess.run([IMG, "create", "-q", stick, "1M"], check=True)
        ports = "<controller type='pci' model='pcie-root-port'/>" * 2
        for board, devices in (("pc", ""), ("q35", ports)):
            dom = conn.createXML(machine("usb", devices=devices, board=board), libvirt.VIR_DOMAIN_START_PAUSED)
            self.assertNotIn("usb", dom.XMLDesc().split("</name>")[1])
            self.virsh("attach-disk", "usb", stick, "sda", "--targetbus", "usb")
            dom.attachDevice("<input type='tablet' bus='usb'/>")
            self.assertEqual(dom.XMLDesc().count("<controller type='usb' index='0' model='qemu-xhci'>"), 1)
            tree = self.virsh("qemu-monitor-command", "usb", "--hmp", "info qtree")
            for device in ("qemu-xhci", "usb-storage", "usb-tablet"):
                self.assertIn(device, tree)
            dom.destroy()
        dom = conn.createXML(machine("usb", devices="<controller type='usb' model='none'/>"),
                             libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        self.assertIn("USB is disabled for this domain",
                      self.virsh("attach-disk", "usb", stick, "sda", "--targetbus", "usb", fails=True))


    def test_a_port_to_spare(self):
        """Who says nothing of buses gets a port more than devices; the next finds none."""
        dom = self.connect().createXML(machine("spare", devices="<memballoon model='virtio'/>"),
                                       libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        dom.attachDevice("<interface type='user'><model type='virtio'/></interface>")
        with self.assertRaisesRegex(libvirt.libvirtError, "internal error: No more available PCI slots"):
            dom.attachDevice("<interface type='user'><model type='virtio'/></interface>")
        self.assertEqual(self.virsh("domiflist", "spare").count("virtio"), 1)

    def test_what_stays_where_it_is(self):
        """A slot without hot-plug is for what is there from the start; bridges and screens stay, too."""
        fixed = "<controller type='pci' index='1' model='pcie-root-port'><target hotplug='off'/></controller>"
        xml = machine("stays", devices=f"""{fixed}<controller type='pci' index='2' model='pcie-root-port'/>
            <controller type='pci' index='3' model='pcie-root-port'><target hotplug='off'/></controller>
            <rng model='virtio'><backend model='random'>/dev/urandom</backend><address type='pci' bus='1' slot='0'/></rng>
            <memballoon model='none'/><graphics type='vnc'/><video><model type='bochs'/></video>""")
        dom = self.connect().createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        self.assertEqual(dom.XMLDesc().count("hotplug='off'/>"), 2)
        dom.attachDevice("<interface type='user'><model type='virtio'/></interface>")
        self.assertIn("bus='0x02'", dom.XMLDesc().split("<interface")[1])
        root = ET.fromstring(dom.XMLDesc())
        for device, change, words in (
                ("<interface type='user'><model type='virtio'/></interface>", dom.attachDevice, "No more available PCI"),
                ("<interface type='user'><model type='virtio'/><address type='pci' bus='3' slot='0'/></interface>",
                 dom.attachDevice, "Bus 'pci.3' does not support hotplugging"),
                (ET.tostring(root.find("devices/rng"), encoding="unicode"), dom.detachDevice,
                 "Bus 'pci.1' does not support hotplugging"),
                ("<controller type='pci' index='4' model='pcie-root-port'/>", dom.attachDevice,
                 "'pci' controller cannot be hot plugged."),
                (ET.tostring(root.find("devices/controller[@index='2']"), encoding="unicode"), dom.detachDevice,
                 "'pci' controller cannot be hot unplugged."),
                (ET.tostring(root.find("devices/video"), encoding="unicode"), dom.detachDevice,
                 "live detach of device 'video' is not supported")):
            with self.subTest(device=device), self.assertRaisesRegex(libvirt.libvirtError, words):
                change(device)
        with self.assertRaisesRegex(libvirt.libvirtError, "'pcie-to-pci-bridge' needs the slot of a pcie-root-port"):
            self.connect().defineXML(machine("stays2", devices="<controller type='pci' model='pcie-to-pci-bridge'/>"))

    def test_a_definition_of_what_runs(self):
        """What dumpxml shows of a running machine is defined without what was its host's choice for this run."""
        conn = self.connect()
        first = conn.createXML(machine("first", devices="""<console type='pty'/><graphics type='vnc'/><channel type='unix'>
            <target type='virtio' name='org.qemu.guest_agent.0'/></channel><interface type='user'><model type='virtio'/>
            <alias name='ua-mine'/></interface>"""), libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(first.destroy)
        live = first.XMLDesc()
        for mark in ("/dev/pts/", "<alias name='serial0'/>", "org.qemu.guest_agent.0", "port='59"):
            self.assertIn(mark, live)
        again = re.sub(r"<uuid>.*</uuid>|<mac address=.*/>", "", live).replace("<name>first<", "<name>again<")
        dom = conn.defineXML(again)
        self.addCleanup(dom.undefine)
        xml = dom.XMLDesc()
        self.assertEqual(re.findall(r"<alias name='(.*?)'/>", xml), ["ua-mine"])
        self.assertIn("<graphics type='vnc' port='-1' autoport='yes'", xml)
        self.assertNotIn("/dev/pts/", xml)
        self.assertNotIn(self.daemon.root, xml.split("<devices>")[1])
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)  # beside the first
        self.addCleanup(dom.destroy)
        self.assertIn("ua-mine", dom.XMLDesc())


class Ports(manage.Case):
    """Cards in ports of q35: they may come while the guest boots, and have gone when virsh is back."""

    def has(self, names):
        """Waits until the guest has these disks and cards, and no others."""
        def same():
            at = len(self.console.seen)
            self.console.type(b"cd /sys/class; ls -d block/vd? net/eth? 2>/dev/null | xargs; echo ov''er\n")
            self.console.expect(b"\nover", at)
            return b"\n" + names + b"\n" in self.console.seen[at:].replace(b"\r", b"")
        manage.until(same, f"the guest has {names}")

    def test_come_and_go(self):
        image = os.path.join(self.daemon.root, "port.raw")
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        mac, nic = "52:54:00:12:00:07", pathlib.Path(self.daemon.root, "nic.xml")
        nic.write_text(f"<interface type='user'><mac address='{mac}'/><model type='virtio'/></interface>")
        conn = self.connect()
        dom = conn.defineXML(machine("ports", devices="<console type='pty'/>" +
                                     "<controller type='pci' model='pcie-root-port'/>" * 3))
        self.addCleanup(dom.undefine)
        self.console = started(conn, dom)
        self.addCleanup(dom.destroy)
        self.virsh("attach-disk", "ports", image, "vda", "--live")
        self.virsh("attach-device", "ports", str(nic), "--live")
        self.console.expect(UP)
        self.console.expect(b"# ")
        for turn in range(2):
            self.has(b"block/vda net/eth0")
            place = self.virsh("dumpxml", "ports", "--xpath", "//disk/address")
            self.virsh("detach-disk", "ports", "vda", "--live")
            self.assertNotIn("<disk", self.virsh("dumpxml", "ports"))
            self.has(b"net/eth0")
            self.virsh("detach-interface", "ports", "user", mac, "--live")
            self.assertNotIn("<interface", self.virsh("dumpxml", "ports"))
            self.has(b"")
            self.virsh("attach-disk", "ports", image, "vda", "--live")
            self.assertEqual(self.virsh("dumpxml", "ports", "--xpath", "//disk/address"), place)
            self.virsh("attach-device", "ports", str(nic), "--live")
        self.has(b"block/vda net/eth0")


class Snapshots(manage.Case):
    def setUp(self):
        self.image = os.path.join(self.daemon.root, "snap.qcow2")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", self.image, "8M"], check=True)
        os.chmod(self.image, 0o600)
        self.conn = self.connect()
        self.dom = self.conn.defineXML(machine("snap", board="pc", devices=f"""<console type='pty'/>
            <disk type='file'><driver name='qemu' type='qcow2'/><source file='{self.image}'/>
            <target dev='vda' bus='virtio'/></disk>"""))
        self.addCleanup(self.dom.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)

    def test_off(self):
        self.virsh("snapshot-create-as", "snap", "one", "the first")
        self.virsh("snapshot-create-as", "snap", "two")
        self.assertEqual(self.virsh("snapshot-current", "snap", "--name"), "two")
        self.assertEqual(self.virsh("snapshot-parent", "snap", "two"), "one")
        self.assertRegex(self.virsh("snapshot-list", "snap"), r"one .*shutoff\s*\n\s*two .*shutoff")
        self.assertIn("+- two", self.virsh("snapshot-list", "snap", "--tree"))
        self.assertIn("<description>the first</description>",
                      self.virsh("snapshot-dumpxml", "snap", "one"))
        self.assertIn("already exists", self.virsh("snapshot-create-as", "snap", "one", fails=True))
        self.assertIn("with 2 snapshots", self.virsh("undefine", "snap", fails=True))
        self.virsh("snapshot-revert", "snap", "one")
        self.assertEqual(self.virsh("snapshot-current", "snap", "--name"), "one")
        self.virsh("snapshot-delete", "snap", "one", "--children")
        self.assertEqual(self.virsh("snapshot-list", "snap", "--name"), "")
        out = subprocess.run([IMG, "snapshot", "-l", self.image], capture_output=True, text=True).stdout
        self.assertNotIn("one", out)
        self.assertIn("no domain snapshot", self.virsh("snapshot-info", "snap", "one", fails=True).lower())

    def test_running(self):
        console = started(self.conn, self.dom)
        self.addCleanup(self.dom.destroy)
        console.expect(UP)
        console.expect(b"# ")
        console.type(b"word=before\n")
        console.expect(b"# ")
        self.virsh("snapshot-create-as", "snap", "live")
        self.assertRegex(self.virsh("snapshot-list", "snap"), r"live .*running")
        console.type(b"word=after; echo se''t\n")
        console.expect(b"\nset")
        self.virsh("snapshot-revert", "snap", "live")
        self.assertEqual(self.dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        console.type(b"\necho it-is-$word\n")
        console.expect(b"it-is-before")
        # What has changed since is as it was: an overlay, a disk that came, memory.
        self.virsh("snapshot-create-as", "snap", "over", "--disk-only", "--no-metadata", "--diskspec",
                   f"vda,file={self.daemon.root}/over-live.qcow2")
        more = os.path.join(self.daemon.root, "more.qcow2")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", more, "1M"], check=True)
        self.virsh("attach-disk", "snap", more, "vdb", "--subdriver", "qcow2", "--persistent")
        self.virsh("setmaxmem", "snap", "200M", "--config")
        self.virsh("snapshot-revert", "snap", "live")
        self.assertEqual(self.dom.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT])
        for xml in (self.dom.XMLDesc(), self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)):
            self.assertNotIn("more.qcow2", xml)
            self.assertNotIn("over-live", xml)
            self.assertIn("<memory unit='KiB'>131072<", xml)
        console = Console(self.conn, self.dom)
        console.type(b"\necho it-is-$word\n")
        console.expect(b"it-is-before")
        self.virsh("snapshot-delete", "snap", "live")
        self.assertEqual(self.virsh("snapshot-list", "snap", "--name"), "")

    def test_pull(self):
        overlay = os.path.join(self.daemon.root, "over.qcow2")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", "-b", self.image, "-F", "qcow2", overlay],
                       check=True)
        self.conn.defineXML(self.dom.XMLDesc().replace(self.image, overlay))
        self.dom.create()
        self.addCleanup(self.dom.destroy)
        self.virsh("blockpull", "snap", "vda", "--wait")
        self.assertEqual(self.dom.blockJobInfo("vda"), {})
        self.dom.suspend()
        out = subprocess.run([IMG, "info", "-U", overlay], capture_output=True, text=True, check=True).stdout
        self.assertNotIn("backing file", out)
        self.assertIn("No device found", self.virsh("blockpull", "snap", "vdz", fails=True))


if __name__ == "__main__":
    unittest.main()
