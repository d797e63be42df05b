#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every domain in ../shared/reference/xml, which virt-install, virt-manager and libvirtd have written: it is
refused by the name of what lodged has not got, or defined and kept whole, and started if it is a Linux guest's."""
import collections
import os
import pathlib
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage
from test_manage_clients import BUILD, image, setUpModule  # noqa: F401: the name space, before all tests

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared/reference/xml"
SPICE, HYPERV, OTHER = "'spicevmc'", "<hyperv>", "is not lodge-vm"

# What refuses each file as it is; None: nothing does.
WHOLE = {"imp-after-define-inactive": None, "imp-after-define-live": None, "libvirtd-domain-inactive": None,
         "vi-nographics": None, "vi-vnc": None, "vi-rich": "<filesystem>", "vi-testdriver": "'test'",
         "vi-qemu-scheme-minimal-caps": OTHER, "vi-unknown-scheme-minimal-caps": OTHER}
SYSTEMS = {SPICE: "alpinelinux3.16 centos-stream9 debian11 debiantesting fedora36 freebsd13.1 generic linux2020 "
                  "rhel9.0 ubuntu22.04", HYPERV: "win10 win11 win2k22"}
WHOLE.update({f"vi-import-{s}-{f}": why for why, systems in SYSTEMS.items() for s in systems.split()
              for f in ("bios", "uefi")})
WHOLE.update(dict.fromkeys("vi-cdrom-all vi-cloudinit vi-i686-pc vi-kernel-all vi-microvm vi-pxe-all vi-spice "
                           "vi-user virt-manager-wizard-debian11-install".split(), SPICE))

# Then without what domcapabilities leaves out, as the same program writes it for us.
LEFT_OUT = ("channel[@type='spicevmc']", "redirdev", "filesystem", "tpm", "vsock")
# What even then refuses a file, and whose guests are not Linux.
STILL = {"vi-testdriver": "'test'", "vi-microvm": "machine type 'microvm'"}
NOT_LINUX = re.compile("win|freebsd")
LIVE = {"imp-after-define-live"}  # tells of a run that is over, with its sockets
# No device of lodge-vm yet; where one appears here that it has, starting must work.
MISSING = re.compile("lodge-vm has no device '([^']*)'")
# Devices without a name of their own, or without a place.
NAMELESS = {"emulator", "graphics", "audio"}
PLACELESS = re.compile("^(serial|console|parallel|panic) |^input ps2|^controller (pci-root|pcie-root|none)$|"
                       "^controller controller|^memballoon none")
# What is told in other words: units, the exact board, our own program.
TOLD = {"memory", "currentMemory", "emulator", "type"}


def documents():
    for path in sorted(FOLDER.glob("*.xml")):
        for text in re.findall(r"(?s)<domain .*?</domain>\n", path.read_text()):
            yield path.stem, text


def plain(text):
    """The domain as a program writes it that has read our capabilities."""
    root = ET.fromstring(text)
    devices = root.find("devices")
    for path in LEFT_OUT:
        for e in devices.findall(path):
            devices.remove(e)
    for g in devices.findall("graphics[@type='spice']"):
        g.attrib = {"type": "vnc", "port": "-1"}
        for child in list(g):
            g.remove(child)
    for v in devices.findall("video/model[@type='qxl']"):
        v.attrib = {"type": "vga"}
    features = root.find("features")
    for e in features.findall("hyperv"):
        features.remove(e)
    for e in root.findall("clock/timer[@name='hypervclock']"):
        root.find("clock").remove(e)
    emulator = devices.find("emulator")
    if emulator is not None:
        devices.remove(emulator)
    return root


def facts(e, path=""):
    """Each element as its path, attributes and text."""
    path += "/" + e.tag
    yield path, dict(e.attrib), (e.text or "").strip()
    for child in e:
        yield from facts(child, path)


def lost(before, after):
    """What of @before is not in @after."""
    have = collections.defaultdict(list)
    for path, attributes, text in facts(after):
        have[path].append((attributes, text))
    for path, attributes, text in facts(before):
        name = path.rpartition("/")[2]
        if name in TOLD and path in have:
            continue
        attributes = {k: v for k, v in attributes.items() if (name, k, v) != ("graphics", "port", "-1")}
        if not any(attributes.items() <= a.items() and text == t for a, t in have[path]):
            yield path, attributes, text


class Written(manage.Case):
    @classmethod
    def setUpClass(cls):
        if not FOLDER.is_dir():
            print(f"skipped: {FOLDER} is not there")
            sys.exit(77)
        super().setUpClass()
        cls.devices = subprocess.run([f"{BUILD}/lodge-vm", "-device", "help"], capture_output=True, text=True,
                                     check=True).stdout
        cls.conn = cls.daemon.connect()
        cls.addClassCleanup(cls.conn.close)

    def define(self, text):
        return self.conn.defineXML(text)

    def forget(self, dom):
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)

    def kept(self, root, dom):
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        xml = dom.XMLDesc(flags)
        self.assertEqual(list(lost(root, ET.fromstring(xml))), [])
        self.assertEqual(self.define(xml).XMLDesc(flags), xml)  # what is printed is what is there

    def refused(self, text, why):
        with self.assertRaises(libvirt.libvirtError) as caught:
            self.define(text)
        self.assertIn(why, str(caught.exception))

    def test_as_it_is(self):
        names = set()
        for name, text in documents():
            names.add(name)
            with self.subTest(file=name):
                if WHOLE[name]:
                    self.refused(text, WHOLE[name])
                    continue
                dom = self.define(text)
                if name not in LIVE:
                    self.kept(ET.fromstring(text), dom)
                self.forget(dom)
        self.assertEqual(names, set(WHOLE), "files and table differ")

    def test_without_what_is_left_out(self):
        dumps = []
        self.virsh("net-start", "default")
        for name, text in documents():
            root = plain(text)
            with self.subTest(file=name):
                whole = ET.tostring(root, encoding="unicode")
                if name in STILL:
                    self.refused(whole, STILL[name])
                    continue
                dom = self.define(whole)
                if name not in LIVE:
                    self.kept(root, dom)
                dumps.append(dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
                self.forget(dom)
                if not NOT_LINUX.search(name) and name not in LIVE:
                    self.starts(root)
        self.validate(dumps)

    def starts(self, root):
        """With disks of ours."""
        root.set("type", "qemu")
        for i, source in enumerate(root.findall("devices/disk/source")):
            source.set("file", image(f"{self.daemon.root}/disk{i}", "1M"))
        for disk in root.findall("devices/disk"):
            if disk.find("source") is not None:
                disk.find("driver").set("type", "qcow2")
        for name in ("kernel", "initrd"):
            for e in root.findall(f"os/{name}"):
                e.text = f"{BUILD}/guests/tiny/{'vmlinuz' if name == 'kernel' else name}"
        try:
            dom = self.conn.createXML(ET.tostring(root, encoding="unicode"), libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as e:
            missing = MISSING.search(str(e))
            if not missing:
                raise
            self.assertNotIn(f'"{missing[1]}"', self.devices)
            return
        try:
            self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_PAUSED)
            self.complete(ET.fromstring(dom.XMLDesc()))
        finally:
            dom.destroy()

    def complete(self, root):
        """Every device of a machine that runs has its name, its place and what is behind it."""
        for e in root.find("devices"):
            if e.tag not in NAMELESS:
                self.assertIsNotNone(e.find("alias"), ET.tostring(e))
            bus = e.get("bus") or e.get("model") or e.tag
            if e.tag not in NAMELESS and not PLACELESS.search(f"{e.tag} {bus}"):
                self.assertIsNotNone(e.find("address"), ET.tostring(e))
            if e.get("type") == "pty":
                self.assertTrue(e.find("source").get("path").startswith("/dev/pts/"), ET.tostring(e))
            if e.tag == "interface" and e.get("type") == "network":
                self.assertTrue(e.find("source").get("bridge") and e.find("target").get("dev"), ET.tostring(e))
            if e.tag == "disk" and e.get("device") == "disk":
                self.assertTrue(e.find("source").get("index"), ET.tostring(e))
                self.assertIsNotNone(e.find("backingStore"), ET.tostring(e))
            if e.tag == "graphics":
                self.assertTrue(int(e.get("port")) > 0 or e.find("listen[@type='socket']") is not None, ET.tostring(e))

    def validate(self, dumps):
        """All with one process: starting the validator costs more than its work."""
        paths = []
        for i, text in enumerate(dumps):
            paths.append(pathlib.Path(self.daemon.root, f"dump{i}.xml"))
            paths[-1].write_text(text)
        p = subprocess.run(["xmllint", "--noout", "--relaxng", "/usr/share/libvirt/schemas/domain.rng", *paths],
                           capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)


# What Vagrant and oVirt write beside devices, as far as no file above has it: empty elements, names of their own.
TEMPLATES = {
    "vagrant": """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>v</name><title></title>
        <description>Source: /home/x/Vagrantfile</description><uuid></uuid><memory>131072</memory><vcpu>1</vcpu>
        <cpu mode='host-model'><model fallback='allow'></model></cpu><cputune></cputune><memoryBacking></memoryBacking>
        <os><type>hvm</type><kernel></kernel><initrd></initrd><cmdline></cmdline><bootmenu enable='no'/></os>
        <features><acpi/><apic/><pae/></features><clock offset='utc'/><devices>
        <disk type='file' device='disk'><alias name='ua-box-volume-0'/><driver name='qemu' type='qcow2' cache='default'/>
        <source file='DISK'/><target dev='vda' bus='virtio'/></disk><serial type='pty'><target port='0'/></serial>
        <console type='pty'><target port='0'/></console><input type='mouse' bus='ps2'/>
        <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' keymap='en-us'/>
        <video><model type='vga' vram='16384' heads='1'/></video></devices><qemu:commandline></qemu:commandline></domain>""",
    "ovirt": """<domain type="qemu"><name>o</name><memory>131072</memory><currentMemory>131072</currentMemory>
        <iothreads>1</iothreads><maxMemory slots="16">524288</maxMemory><vcpu current="1">16</vcpu>
        <clock offset="variable" adjustment="0"/><cpu match="exact"><model>Nehalem</model>
        <topology cores="1" threads="1" sockets="16"/><numa><cell id="0" cpus="0-15" memory="131072"/></numa></cpu>
        <cputune/><devices><controller type="scsi" model="virtio-scsi" index="0"><driver iothread="1"/>
        <alias name="ua-4"/></controller><controller type="virtio-serial" index="0" ports="16"><alias name="ua-5"/></controller>
        <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel><rng model="virtio">
        <backend model="random"/><alias name="ua-6"/></rng><disk type="file" device="cdrom" snapshot="no">
        <driver name="qemu" type="raw" error_policy="report"/><source file="" startupPolicy="optional"/>
        <target dev="sdc" bus="sata"/><readonly/><alias name="ua-7"/></disk><disk snapshot="no" type="file" device="disk">
        <target dev="sda" bus="scsi"/><source file="DISK"/><driver name="qemu" io="threads" type="qcow2" cache="none"/>
        <alias name="ua-8"/><address bus="0" controller="0" unit="0" type="drive" target="0"/><boot order="1"/></disk>
        </devices><os><type arch="x86_64" machine="pc-q35-7.2">hvm</type><bios useserial="no"/></os></domain>""",
}


class Templates(Written):
    """Of programs whose XML no reference has."""
    test_as_it_is = test_without_what_is_left_out = None

    def test_all(self):
        for name, text in TEMPLATES.items():
            with self.subTest(program=name):
                dom = self.define(text.replace("DISK", image(f"{self.daemon.root}/{name}", "1M")))
                flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
                xml = dom.XMLDesc(flags)
                self.validate([xml])
                self.assertEqual(self.define(xml).XMLDesc(flags), xml)
                dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
                try:
                    self.complete(ET.fromstring(dom.XMLDesc()))
                finally:
                    dom.destroy()
                    self.forget(dom)


class Others(manage.Case):
    """What the reference has of other kinds, taken in as it is; and everything that we print."""
    POOLS = {"libvirtd-pool-dumpxml", "virsh-pool-dir", "virsh-pool-iscsi", "virsh-pool-logical", "virsh-pool-netfs",
             "virsh-pool-rbd", "virtinst-pool-dir"}
    VOLUMES = {"libvirtd-vol-dumpxml", "virsh-vol", "virt-manager-volume-create"}
    NETWORKS = {"libvirtd-net-dumpxml", "virtinst-network-nat"}
    # What is found out, not said.
    FOUND = {"capacity", "allocation", "available", "physical", "key", "atime", "mtime", "ctime", "btime", "timestamps"}

    def setUp(self):
        if not FOLDER.is_dir():
            manage.leave_out(self, f"{FOLDER} is not there")
        self.conn = self.connect()

    def text(self, name):
        return pathlib.Path(FOLDER, name + ".xml").read_text().replace("unit='B'", "unit='bytes'")

    def kept(self, text, xml):
        missing = [fact for fact in lost(ET.fromstring(text), ET.fromstring(xml))
                   if fact[0].rpartition("/")[2] not in self.FOUND and fact[1:] != ({}, "")]
        self.assertEqual(missing, [], xml)

    def valid(self, printed):
        """(schema, text) of each; one process a schema."""
        for schema in {kind for kind, _ in printed}:
            paths = []
            for i, text in enumerate(text for kind, text in printed if kind == schema):
                paths.append(pathlib.Path(self.daemon.root, f"{schema}{i}.xml"))
                paths[-1].write_text(text)
            p = subprocess.run(["xmllint", "--noout", "--relaxng", f"/usr/share/libvirt/schemas/{schema}.rng", *paths],
                               capture_output=True, text=True, check=False)
            self.assertEqual(p.returncode, 0, f"{schema}: {p.stderr}" + paths[0].read_text())

    def test_files_are_all_here(self):
        """A file of a pool, volume or network that no test knows."""
        found = {path.stem for path in FOLDER.glob("*.xml") if re.search(r"pool|vol|net", path.stem)
                 and not re.search(r"nodedev|domain", path.stem)}
        self.assertEqual(found, self.POOLS | self.VOLUMES | self.NETWORKS)

    def test_pools(self):
        printed = []
        for name in sorted(self.POOLS):
            with self.subTest(file=name):
                pool = self.conn.storagePoolDefineXML(self.text(name))
                self.kept(self.text(name), pool.XMLDesc())
                # The schema wants more of a target's name than the file has.
                printed.append(("storagepool", pool.XMLDesc().replace("'iqn.x'", "'iqn.2026-11.org.example:x'")))
                pool.undefine()
        self.valid(printed)

    def test_volumes(self):
        folder = f"{self.daemon.root}/images"
        os.mkdir(folder)
        pool = self.conn.storagePoolCreateXML(
            f"<pool type='dir'><name>images</name><target><path>{folder}</path></target></pool>")
        self.addCleanup(pool.destroy)
        printed = []
        for name in sorted(self.VOLUMES):
            with self.subTest(file=name):
                text = self.text(name).replace("/var/lib/libvirt/images", folder)
                vol = pool.createXML(text)
                printed.append(("storagevol", vol.XMLDesc()))
                self.kept(text, vol.XMLDesc())
                self.assertEqual(vol.info()[1], int(ET.fromstring(text).find("capacity").text))
        pool.refresh()  # what is found is what was made
        for name, text in zip(sorted(self.VOLUMES), [self.text(name) for name in sorted(self.VOLUMES)]):
            text = text.replace("/var/lib/libvirt/images", folder)
            self.kept(text, pool.storageVolLookupByName(ET.fromstring(text).find("name").text).XMLDesc())
        self.valid(printed)

    def test_networks(self):
        printed = []
        self.conn.networkLookupByName("default").undefine()
        for name in sorted(self.NETWORKS):
            with self.subTest(file=name):
                net = self.conn.networkDefineXML(self.text(name))
                printed.append(("network", net.XMLDesc()))
                self.kept(self.text(name), net.XMLDesc())
                net.undefine()
        self.valid(printed)

    def test_filters(self):
        text = self.text("libvirtd-nwfilter")
        was = self.conn.nwfilterLookupByName("clean-traffic")
        was.undefine()
        got = self.conn.nwfilterDefineXML(text)
        self.kept(text, got.XMLDesc())

    def test_everything_that_is_printed(self):
        conn, printed = self.conn, []
        secret = conn.secretDefineXML("<secret ephemeral='yes' private='no'><description>words</description>"
                                      "<usage type='ceph'><name>s</name></usage></secret>")
        printed.append(("secret", secret.XMLDesc()))
        printed.append(("capability", conn.getCapabilities()))
        printed.append(("storagepoolcaps", conn.getStoragePoolCapabilities()))
        for machine in ("pc", "q35"):
            for virt in ("qemu", "kvm"):
                try:
                    printed.append(("domaincaps", conn.getDomainCapabilities(None, None, machine, virt)))
                except libvirt.libvirtError as e:
                    self.assertEqual(virt, "kvm", e)  # where there is none
        printed += [("nodedev", dev.XMLDesc()) for dev in conn.listAllDevices()]
        printed += [("nwfilter", one.XMLDesc()) for one in conn.listAllNWFilters()]
        printed += [("interface", one.XMLDesc()) for one in conn.listAllInterfaces()]
        printed += [("network", one.XMLDesc()) for one in conn.listAllNetworks()]
        disk = image(f"{self.daemon.root}/disk.qcow2", "8M")
        dom = conn.defineXML(f"""<domain type='qemu'><name>v</name><memory unit='MiB'>64</memory>
            <os><type machine='q35'>hvm</type></os><devices><disk type='file'><driver name='qemu' type='qcow2'/>
            <source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>""")
        self.addCleanup(dom.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        for flags in (0, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY):
            name = "outer" if flags else "inner"
            snapshot = dom.snapshotCreateXML(f"<domainsnapshot><name>{name}</name></domainsnapshot>", flags)
            printed.append(("domainsnapshot", snapshot.getXMLDesc()))
        printed.append(("domain", dom.XMLDesc()))
        kinds = {kind for kind, _ in printed}
        self.assertEqual(len(kinds), 10, kinds)
        self.valid(printed)


if __name__ == "__main__":
    sys.exit(unittest.main())
