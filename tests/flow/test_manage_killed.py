#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
lodged is killed at any step of what it does: another one finds all as it was before, or as it was to be, and
nothing else.  With LODGE_LONG at each step, else at a few of them.
"""
import contextlib
import mmap
import os
import pathlib
import struct
import subprocess
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage

IMG = os.environ["LODGE_IMG"]
LONG = bool(os.environ.get("LODGE_LONG"))
FOREVER = 0
MACHINE = """<domain type='qemu'><name>{0}</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
<devices>{1}</devices></domain>"""
DISK = """<disk type='file'><driver name='qemu' type='{1}'/><source file='{0}'/><target dev='{2}' bus='virtio'/></disk>"""


class Killed(unittest.TestCase):
    FEW = 2  # steps at which it is killed, of any number

    @classmethod
    def setUpClass(cls):
        cls.daemon = manage.Daemon()
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.stop()
        root = cls.daemon.root
        cls.log = pathlib.Path(root, "steps")
        with open(f"{root}/dies", "wb") as file:
            file.write(bytes(mmap.PAGESIZE))
        with open(f"{root}/dies", "r+b") as file:
            cls.counter = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        cls.daemon.env = {"LD_PRELOAD": os.environ["LODGE_DIES"], "LODGED_DIES": f"{root}/dies", "LODGED_STEPS": str(cls.log)}
        cls.daemon.start()
        cls.folder = pathlib.Path(root, "images")
        cls.before = cls.files()
        cls.folder.mkdir()
        cls.folder.chmod(0o755)

    def setUp(self):
        self.conn = self.daemon.connect()
        self.addCleanup(lambda: self.conn.close())
        self.round = 0
        self.name = self.id().rsplit(".", 1)[1].removeprefix("test_")

    @property
    def left(self):
        return struct.unpack_from("i", self.counter)[0]

    @left.setter
    def left(self, value):
        struct.pack_into("i", self.counter, 0, value)

    def steps_of(self, act):
        """How many it takes."""
        self.left = far = 1 << 30
        act()
        taken, self.left = far - self.left, FOREVER
        return taken

    def dies_in(self, act, step):
        self.log.write_text("")
        self.left = step
        with contextlib.suppress(libvirt.libvirtError):
            act()
        died = self.left <= 0
        self.left = FOREVER
        if died:
            self.daemon.process.wait(manage.PATIENCE)
            self.daemon.start()
            self.conn.close()
            self.conn = self.daemon.connect()
        return died

    def at_any_step(self, prepare, act, check):
        """
        @prepare() gives what @act(it) works on; @check(it) looks at what has come of it, and takes it away.  Both get
        their libvirt objects anew: another lodged may answer.
        """
        it = prepare()
        count = self.steps_of(lambda: act(it))
        check(it)
        self.nothing_is_left()
        self.assertGreater(count, 0)
        steps = range(1, count + 1) if LONG else sorted({1 + i * (count - 1) // self.FEW for i in range(1, self.FEW + 1)})
        for step in steps:
            self.round += 1
            it = prepare()
            self.dies_in(lambda: act(it), step)
            about = (self.log.read_text().splitlines() or ["nothing"])[-1]
            with self.subTest(step=step, of=count, instead_of=about):
                for dom in self.conn.listAllDomains():
                    self.known(dom)
                check(it)
                self.nothing_is_left()

    @staticmethod
    def known(dom):
        """Waits until lodged knows what goes on in a machine that it has found."""
        with contextlib.suppress(libvirt.libvirtError):
            dom.blockJobInfo("vda")

    def nothing_is_left(self):
        """Of no machine, and no half file."""
        manage.until(lambda: not self.daemon.machines(), "no process")
        self.assertEqual([dom.name() for dom in self.conn.listAllDomains()], [])
        self.assertEqual(self.files() - self.before, set())
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), [])

    @classmethod
    def files(cls):
        root = cls.daemon.root
        found = {str(path.relative_to(root)) for place in ("etc", "var", "run/qemu") for path in pathlib.Path(root, place).rglob("*")
                 if path.is_symlink() or path.is_file()}
        return {path for path in found if not path.startswith("var/log/")}

    # --- machines and images ---

    def image(self, name, size="1M"):
        path = self.folder / name
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", path, size], check=True)
        path.chmod(0o666)
        return path

    def unique(self):
        return f"{self.name}{self.round}"

    def define(self, devices="", name=None):
        return self.conn.defineXML(MACHINE.format(name or self.unique(), devices)).name()

    def start(self, devices=""):
        name = self.define(devices)
        self.dom(name).create()
        return name

    def dom(self, name):
        return self.conn.lookupByName(name)

    def take_away(self, name, *files):
        dom = self.dom(name)
        if dom.isActive():
            dom.destroy()
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        for file in files:
            os.unlink(file)

    def sources(self, name, live=True):
        xml = self.dom(name).XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE)
        return {disk.find("target").get("dev"): pathlib.Path(disk.find("source").get("file"))
                for disk in ET.fromstring(xml).iter("disk")}

    def runs(self, name):
        return self.dom(name).state()[0] == libvirt.VIR_DOMAIN_RUNNING

    # --- what it does ---

    def test_save(self):
        file = self.folder / "state"

        def check(name):
            self.assertEqual(self.dom(name).isActive(), not file.exists())
            if file.exists():
                self.conn.restore(str(file))
                file.unlink()
            self.assertTrue(self.runs(name))
            self.take_away(name)
        self.at_any_step(self.start, lambda name: self.dom(name).save(str(file)), check)

    def test_managed_save(self):
        def check(name):
            dom = self.dom(name)
            self.assertEqual(dom.isActive(), not dom.hasManagedSaveImage())
            if not dom.isActive():
                dom.create()
            self.assertTrue(self.runs(name))
            self.assertFalse(dom.hasManagedSaveImage())
            self.take_away(name)
        self.at_any_step(self.start, lambda name: self.dom(name).managedSave(), check)

    def test_wake(self):
        def prepare():
            name = self.start()
            self.dom(name).managedSave()
            return name

        def check(name):
            dom = self.dom(name)
            self.assertEqual(dom.isActive(), not dom.hasManagedSaveImage())
            if not dom.isActive():
                dom.create()
            self.assertFalse(dom.hasManagedSaveImage())
            manage.until(lambda: self.runs(name), "it runs")
            self.take_away(name)
        self.at_any_step(prepare, lambda name: self.dom(name).create(), check)

    def test_start(self):
        def check(name):
            if not self.dom(name).isActive():
                self.dom(name).create()
            manage.until(lambda: self.runs(name), "it runs")
            self.take_away(name)
        self.at_any_step(self.define, lambda name: self.dom(name).create(), check)

    def test_define(self):
        title = "<title>new</title>"

        def check(name):
            self.assertIn(title in self.dom(name).XMLDesc(), (True, False))
            self.take_away(name)
        self.at_any_step(self.define, lambda name: self.conn.defineXML(self.dom(name).XMLDesc().replace("<memory", title + "<memory", 1)),
                         check)

    def test_undefine(self):
        def prepare():
            name = self.start()
            self.dom(name).managedSave()
            self.dom(name).setAutostart(1)
            return name

        def act(name):
            self.dom(name).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)

        def check(name):
            if name in [dom.name() for dom in self.conn.listAllDomains()]:
                self.take_away(name)
        self.at_any_step(prepare, act, check)

    def test_rename(self):
        def prepare():
            name = self.define()
            self.dom(name).setAutostart(1)
            return name, self.dom(name).UUIDString()

        def check(it):
            dom, = self.conn.listAllDomains()
            self.assertEqual(dom.UUIDString(), it[1])
            self.assertIn(dom.name(), (it[0], it[0] + "new"))
            self.assertEqual(ET.fromstring(dom.XMLDesc()).find("name").text, dom.name())
            self.assertTrue(dom.autostart())
            self.take_away(dom.name())
        self.at_any_step(prepare, lambda it: self.dom(it[0]).rename(it[0] + "new"), check)

    # --- snapshots ---

    def in_image(self, file):
        return subprocess.run([IMG, "snapshot", "-l", "-U", file], capture_output=True, text=True, check=True).stdout.count("point")

    def internal(self, prepare):
        def begin():
            file = self.image("disk")
            return prepare(DISK.format(file, "qcow2", "vda")), file

        def check(it):
            name, file = it
            running = self.dom(name).isActive()
            if running:
                manage.until(lambda: self.runs(name), "it goes on")
                self.dom(name).destroy()
            self.assertEqual(self.in_image(file), self.dom(name).snapshotNum())
            self.take_away(name, file)
        self.at_any_step(begin, lambda it: self.dom(it[0]).snapshotCreateXML("<domainsnapshot><name>point</name></domainsnapshot>"),
                         check)

    def test_internal_snapshot(self):
        self.internal(self.start)

    def external(self, prepare, more, flags):
        def begin():
            file = self.image("disk")
            return prepare(DISK.format(file, "qcow2", "vda")), file

        def act(it):
            xml = f"<domainsnapshot><name>point</name>{more}<disks><disk name='vda' snapshot='external'><source file='{self.folder}/over'/></disk></disks></domainsnapshot>"
            self.dom(it[0]).snapshotCreateXML(xml, flags)

        def check(it):
            name, file = it
            dom, over, memory = self.dom(name), self.folder / "over", self.folder / "memory"
            if dom.isActive():
                manage.until(lambda: self.runs(name), "it goes on")
            top = self.sources(name)["vda"]
            self.assertEqual(self.sources(name, live=False)["vda"], top)
            self.assertEqual(top, over if dom.snapshotNum() else file)
            self.assertEqual(over.exists(), bool(dom.snapshotNum()))
            self.assertEqual(memory.exists(), bool(dom.snapshotNum()) and bool(more))
            if dom.isActive():
                dom.destroy()
            dom.create()
            self.take_away(name, *self.folder.iterdir())
        self.at_any_step(begin, act, check)

    def test_external_snapshot(self):
        self.external(self.start, "", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)

    def test_external_snapshot_with_memory(self):
        self.external(self.start, f"<memory snapshot='external' file='{self.folder}/memory'/>", 0)

    # --- disks ---

    def pivot(self, begin):
        def prepare():
            file = self.image("disk")
            name = self.start(DISK.format(file, "qcow2", "vda"))
            begin(self.dom(name))
            manage.until(lambda: self.dom(name).blockJobInfo("vda").get("cur") == self.dom(name).blockJobInfo("vda").get("end"), "it is ready")
            return name

        def check(name):
            dom = self.dom(name)
            manage.until(lambda: dom.blockJobInfo("vda") == {} or dom.blockJobInfo("vda")["cur"] == dom.blockJobInfo("vda")["end"], "it is known")
            if dom.blockJobInfo("vda"):
                dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            self.assertEqual(self.sources(name), self.sources(name, live=False))
            self.assertNotIn("<mirror", dom.XMLDesc())
            dom.destroy()
            dom.create()
            self.take_away(name, *self.folder.iterdir())
        self.at_any_step(prepare, lambda name: self.dom(name).blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT), check)

    def test_commit(self):
        def begin(dom):
            dom.snapshotCreateXML("<domainsnapshot/>", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)
            dom.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        self.pivot(begin)

    def test_copy(self):
        self.pivot(lambda dom: dom.blockCopy("vda", DISK.format(self.folder / "copy", "qcow2", "x").replace(
            "<target dev='x' bus='virtio'/>", ""), {}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB))

    def test_attach(self):
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG

        def prepare():
            files = self.image("disk"), self.image("more")
            return self.start(DISK.format(files[0], "qcow2", "vda")), files

        def act(it):
            self.dom(it[0]).attachDeviceFlags(DISK.format(it[1][1], "qcow2", "vdb"), flags)

        def check(it):
            name, files = it
            xml = DISK.format(files[1], "qcow2", "vdb")
            has = {live: "vdb" in self.sources(name, live) for live in (True, False)}
            for live, flag in ((True, libvirt.VIR_DOMAIN_AFFECT_LIVE), (False, libvirt.VIR_DOMAIN_AFFECT_CONFIG)):
                if not has[live]:
                    self.dom(name).attachDeviceFlags(xml, flag)
            self.assertEqual(self.sources(name), self.sources(name, live=False))
            self.dom(name).destroy()
            manage.until(lambda: not os.stat(files[1]).st_uid or os.geteuid(), "it is given back")
            self.take_away(name, *files)
        self.at_any_step(prepare, act, check)


if __name__ == "__main__":
    unittest.main()
