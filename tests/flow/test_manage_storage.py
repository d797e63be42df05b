#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage pools and volumes, from virsh and python3-libvirt."""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

import libvirt

sys.path.insert(0, os.path.dirname(__file__))
import manage

LODGE_IMG = os.environ["LODGE_IMG"]
MIB = 1 << 20


def image_info(path, *more):
    return subprocess.run([LODGE_IMG, "info", *more, path], capture_output=True, text=True,
                          check=True).stdout


def validate(test, xml, schema):
    """libvirt's own RELAX NG schema accepts what we write."""
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as f:
        f.write(xml)
        f.flush()
        p = subprocess.run(["virt-xml-validate", f.name, schema], capture_output=True, text=True)
    test.assertEqual(p.returncode, 0, p.stdout + p.stderr + xml)


class Pools(manage.Case):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="lodge-pool-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def test_life(self):
        target = f"{self.dir}/images"
        self.assertIn("defined", self.virsh("pool-define-as", "life", "dir", "--target", target))
        self.assertIn("No such file", self.virsh("pool-start", "life", fails=True))
        self.virsh("pool-build", "life")
        self.assertEqual(os.stat(target).st_mode & 0o7777, 0o711)
        self.virsh("pool-start", "life")
        self.assertIn("already active", self.virsh("pool-start", "life", fails=True))
        self.assertIn("still active", self.virsh("pool-undefine", "life", fails=True))
        self.assertIn("still active", self.virsh("pool-delete", "life", fails=True))
        info = self.virsh("pool-info", "life")
        self.assertRegex(info, r"State: +running")
        self.assertRegex(info, r"Persistent: +yes")
        xml = self.virsh("pool-dumpxml", "life")
        validate(self, xml, "storagepool")
        fs = os.statvfs(target)
        self.assertIn(f"<capacity unit='bytes'>{fs.f_frsize * fs.f_blocks}</capacity>", xml)
        self.assertIn("<mode>0711</mode>", xml)
        self.virsh("pool-autostart", "life")
        self.assertTrue(os.path.islink(f"{self.daemon.root}/etc/storage/autostart/life.xml"))
        self.assertRegex(self.virsh("pool-list", "--all", "--autostart"), r"life +active +yes")
        self.virsh("pool-autostart", "life", "--disable")
        self.assertEqual(self.virsh("pool-name", self.virsh("pool-uuid", "life")), "life")
        with open(f"{target}/new.raw", "wb") as f:
            f.truncate(MIB)
        self.assertNotIn("new.raw", self.virsh("vol-list", "life"))
        self.virsh("pool-refresh", "life")
        self.assertIn("new.raw", self.virsh("vol-list", "life"))
        self.virsh("pool-destroy", "life")
        self.assertIn("not active", self.virsh("vol-list", "life", fails=True))
        self.assertIn("Directory not empty", self.virsh("pool-delete", "life", fails=True))
        os.unlink(f"{target}/new.raw")
        self.virsh("pool-delete", "life")
        self.assertFalse(os.path.exists(target))
        self.virsh("pool-undefine", "life")
        self.assertIn("no storage pool with matching name 'life'",
                      self.virsh("pool-info", "life", fails=True))

    def test_transient(self):
        self.virsh("pool-create-as", "passing", "dir", "--target", self.dir)
        self.assertRegex(self.virsh("pool-info", "passing"), r"Persistent: +no")
        self.assertIn("no config file", self.virsh("pool-autostart", "passing", fails=True))
        self.virsh("pool-destroy", "passing")
        self.assertNotIn("passing", self.virsh("pool-list", "--all"))
        self.virsh("pool-create-as", "passing", "dir", "--target", f"{self.dir}/made", "--build")
        self.virsh("pool-destroy", "passing")

    def test_permissions_and_edit(self):
        target = f"{self.dir}/p"
        xml = (f"<pool type='dir'><name>perm</name><target><path>{target}</path><permissions>"
               "<mode>0750</mode><owner>1</owner><group>2</group></permissions></target></pool>")
        with open(f"{self.dir}/p.xml", "w") as f:
            f.write(xml)
        self.virsh("pool-define", f"{self.dir}/p.xml")
        self.virsh("pool-build", "perm")
        st = os.stat(target)
        self.assertEqual((st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o750, 1, 2))
        env = dict(os.environ, EDITOR=f"sed -i s,{target},{self.dir}/q,")
        p = subprocess.run(["virsh", "-c", self.daemon.uri, "pool-edit", "perm"], env=env,
                           capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(f"<path>{self.dir}/q</path>", self.virsh("pool-dumpxml", "perm"))
        self.virsh("pool-undefine", "perm")

    def test_what_is_refused(self):
        self.virsh("pool-define-as", "one", "dir", "--target", f"{self.dir}/one")
        for args, words in (
                (("one", "dir", "--target", f"{self.dir}/x"), "already exists with uuid"),
                (("two", "dir", "--target", f"{self.dir}/one"), "Storage source conflict with pool: 'one'"),
                (("two", "dir"), "missing storage pool target path"),
                (("two", "nosuch", "--target", "/x"), "'nosuch'"),
                (("a/b", "dir", "--target", "/x"), "cannot contain '/'"),
                (("two", "fs", "--target", "/x"), "missing storage pool source device name"),
                (("two", "netfs", "--target", "/x", "--source-host", "h"), "missing storage pool source path"),
                (("two", "gluster", "--target", "/x"), "missing backend for pool type")):
            self.assertIn(words, self.virsh("pool-define-as", *args, fails=True))
        self.virsh("pool-undefine", "one")
        with open(f"{self.dir}/bad.xml", "w") as f:
            f.write("<pool type='dir'><name>x</name>\n<frob/></pool>")
        self.assertIn("<frob>", self.virsh("pool-define", f"{self.dir}/bad.xml", fails=True))

    def test_events_and_errors_in_python(self):
        libvirt.virEventRegisterDefaultImpl()
        conn = self.connect()
        seen = []
        stop = threading.Event()

        def loop():
            while not stop.is_set():
                libvirt.virEventRunDefaultImpl()
        timer = libvirt.virEventAddTimeout(100, lambda *_: None, None)
        thread = threading.Thread(target=loop, daemon=True)
        conn.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE,
                                         lambda c, p, e, d, o: seen.append((p.name(), e)), None)
        conn.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_REFRESH,
                                         lambda c, p, o: seen.append((p.name(), "refresh")), None)
        thread.start()
        pool = conn.storagePoolDefineXML(
            f"<pool type='dir'><name>ev</name><target><path>{self.dir}/ev</path></target></pool>")
        pool.build()
        pool.create()
        pool.refresh()
        pool.destroy()
        pool.delete()
        pool.undefine()
        want = [("ev", 0), ("ev", 4), ("ev", 2), ("ev", "refresh"), ("ev", 3), ("ev", 5), ("ev", 1)]
        manage.until(lambda: len(seen) >= len(want), f"events: {seen}")
        self.assertEqual(seen, want)
        stop.set()
        thread.join()
        libvirt.virEventRemoveTimeout(timer)
        for call, code in ((lambda: conn.storagePoolLookupByName("x"), libvirt.VIR_ERR_NO_STORAGE_POOL),
                           (lambda: conn.storageVolLookupByPath("/x"), libvirt.VIR_ERR_NO_STORAGE_VOL),
                           (lambda: conn.storageVolLookupByKey("/x"), libvirt.VIR_ERR_NO_STORAGE_VOL)):
            with self.assertRaises(libvirt.libvirtError) as caught:
                call()
            self.assertEqual(caught.exception.get_error_code(), code)
        self.assertIn("<pool type='dir' supported='yes'>", conn.getStoragePoolCapabilities())

    def test_restart(self):
        with manage.Daemon() as d:
            d.virsh("pool-define-as", "stays", "dir", "--target", self.dir)
            d.virsh("pool-define-as", "begins", "dir", "--target", f"{self.dir}/b")
            d.virsh("pool-build", "begins")
            d.virsh("pool-autostart", "begins")
            d.virsh("pool-start", "stays")
            d.virsh("pool-create-as", "passing", "dir", "--target", f"{self.dir}/t", "--build")
            d.virsh("vol-create-as", "stays", "v.raw", "1M")
            d.kill()
            d.start()
            listed = d.virsh("pool-list", "--all")
            self.assertRegex(listed, r"stays +active +no")
            self.assertRegex(listed, r"begins +active +yes")
            self.assertRegex(listed, r"passing +active +no")
            self.assertIn("v.raw", d.virsh("vol-list", "stays"))
            self.assertRegex(d.virsh("pool-info", "passing"), r"Persistent: +no")

    def test_two_daemons(self):
        with manage.Daemon() as other:
            self.virsh("pool-create-as", "same", "dir", "--target", self.dir)
            self.assertNotIn("same", other.virsh("pool-list", "--all"))
            other.virsh("pool-create-as", "same", "dir", "--target", self.dir)
            other.virsh("pool-destroy", "same")
            self.assertIn("same", self.virsh("pool-list"))
            self.virsh("pool-destroy", "same")

    def loop_device(self):
        disk = f"{self.dir}/disk"
        with open(disk, "wb") as f:
            f.truncate(32 * MIB)
        p = subprocess.run(["losetup", "--find", "--partscan", "--show", disk], capture_output=True, text=True)
        if p.returncode:
            manage.leave_out(self, "no loop devices: " + p.stderr)
        device = p.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device])
        return device

    def test_partitions(self):
        device = self.loop_device()
        self.addCleanup(subprocess.run, ["partx", "--delete", device], stderr=subprocess.DEVNULL)
        base = os.path.basename(device)
        self.virsh("pool-define-as", "parts", "disk", "--source-dev", device, "--target", "/dev",
                   "--source-format", "gpt")
        self.virsh("pool-start", "parts", fails=True)
        self.virsh("pool-build", "parts")
        self.assertIn("already has a partition table", self.virsh("pool-build", "parts", fails=True))
        self.virsh("pool-build", "parts", "--overwrite")
        self.virsh("pool-start", "parts")
        self.assertIn("expected", self.virsh("vol-create-as", "parts", "wrong", "4M", fails=True))
        self.virsh("vol-create-as", "parts", f"{base}p1", "4M")
        self.virsh("vol-create-as", "parts", f"{base}p2", "8M", "--format", "linux-swap")
        self.assertIn("no large enough free extent",
                      self.virsh("vol-create-as", "parts", f"{base}p3", "64M", fails=True))
        self.assertRegex(self.virsh("vol-list", "parts", "--details"), rf"{base}p2 +{device}p2 +block +8.00 MiB")
        xml = self.virsh("vol-dumpxml", f"{base}p1", "parts")
        validate(self, xml, "storagevol")
        self.assertIn("<extent start='1048576' end='5242880'/>", xml)
        self.virsh("pool-refresh", "parts")
        xml = self.virsh("pool-dumpxml", "parts")
        validate(self, xml, "storagepool")
        self.assertIn(f"<freeExtent start='{13 * MIB}'", xml)
        with open(f"{self.dir}/data", "wb") as f:
            f.write(os.urandom(4 * MIB))
        self.virsh("vol-upload", f"{base}p1", f"{self.dir}/data", "--pool", "parts")
        self.virsh("vol-download", f"{base}p1", f"{self.dir}/back", "--pool", "parts")
        subprocess.run(["cmp", f"{self.dir}/data", f"{self.dir}/back"], check=True)
        self.virsh("vol-wipe", f"{base}p1", "parts")
        with open(f"{device}p1", "rb") as f:
            self.assertEqual(f.read().strip(b"\0"), b"")
        self.virsh("vol-delete", f"{base}p1", "parts")
        self.assertNotIn(f"{base}p1", self.virsh("vol-list", "parts"))
        self.virsh("vol-create-as", "parts", f"{base}p1", "2M")  # the number is free again
        for n in (1, 2):
            self.virsh("vol-delete", f"{base}p{n}", "parts")
        self.virsh("pool-destroy", "parts")
        self.virsh("pool-undefine", "parts")

    def test_volume_groups_are_looked_for(self):
        self.assertIn("<sources>", self.virsh("find-storage-pool-sources", "logical"))
        self.assertIn("hostname must be specified", self.virsh("find-storage-pool-sources", "netfs", fails=True))
        self.assertIn("does not support source discovery", self.virsh("find-storage-pool-sources", "dir", fails=True))
        self.virsh("pool-define-as", "vg", "logical", "--source-name", "nosuchvg")
        self.assertIn("<path>/dev/nosuchvg</path>", self.virsh("pool-dumpxml", "vg"))
        self.assertIn("nosuchvg", self.virsh("pool-start", "vg", fails=True))
        self.virsh("pool-undefine", "vg")

    def test_volume_group(self):
        """All of a volume group; its volumes where the kernel has a device mapper."""
        device, name = self.loop_device(), f"lodge{os.getpid()}"
        subprocess.run(["wipefs", "-aq", device], check=True)
        self.addCleanup(subprocess.run, ["vgremove", "-f", name], capture_output=True)
        self.virsh("pool-define-as", "lvm", "logical", "--source-dev", device, "--source-name", name)
        self.virsh("pool-build", "lvm")
        sources = self.virsh("find-storage-pool-sources", "logical")
        self.assertRegex(sources, rf"(?s)<device path='{device}'/>.*<name>{name}</name>.*<format type='lvm2'/>")
        self.virsh("pool-start", "lvm")
        xml = self.virsh("pool-dumpxml", "lvm")
        validate(self, xml, "storagepool")
        self.assertIn(f"<capacity unit='bytes'>{28 * MIB}</capacity>", xml)
        if os.path.exists("/sys/class/misc/device-mapper"):
            self.virsh("vol-create-as", "lvm", "one", "8M")
            self.virsh("vol-resize", "one", "12M", "--pool", "lvm")
            self.virsh("pool-refresh", "lvm")
            self.assertRegex(self.virsh("vol-list", "lvm", "--details"), rf"one +/dev/{name}/one +block +12.00 MiB")
            self.virsh("vol-delete", "one", "lvm")
        else:
            print("no device mapper: logical volumes are not made", file=sys.stderr)
            self.assertIn("device-mapper", self.virsh("vol-create-as", "lvm", "one", "8M", fails=True))
        self.assertEqual(self.daemon.connect().storagePoolLookupByName("lvm").numOfVolumes(), 0)
        self.virsh("pool-destroy", "lvm")
        self.virsh("pool-delete", "lvm")
        self.assertNotIn(name, self.virsh("find-storage-pool-sources", "logical"))
        self.virsh("pool-undefine", "lvm")

    def test_sources_as_and_events(self):
        """find-storage-pool-sources-as asks what the document asks; pool-event prints what happens."""
        self.assertIn("<sources>", self.virsh("find-storage-pool-sources-as", "logical"))
        error = self.virsh("find-storage-pool-sources-as", "iscsi", "127.0.0.1", "1", fails=True)
        self.assertIn("127.0.0.1", error)
        p = subprocess.Popen(["virsh", "-c", self.daemon.uri, "pool-event", "--event", "lifecycle", "--loop"],
                             stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(p.stdout))
        conn = self.connect()

        def heard():  # until the listener has registered
            pool = conn.storagePoolCreateXML(
                f"<pool type='dir'><name>told</name><target><path>{self.dir}</path></target></pool>")
            pool.destroy()
            self.assertIsNone(p.poll())
            return sum("Stopped" in line for line in seen) >= 1
        reader.start()
        manage.until(heard, "the events")
        p.terminate()
        reader.join()
        text = "".join(seen)
        for event in ("Started", "Stopped"):
            self.assertIn(f"event 'lifecycle' for storage pool told: {event}", text)

    def test_pool_lists(self):
        self.virsh("pool-define-as", "listed", "dir", "--target", f"{self.dir}/l")
        self.virsh("pool-define-as", "listed2", "logical", "--source-name", "listedvg")
        conn = self.connect()

        def names(flags):
            return {p.name() for p in conn.listAllStoragePools(flags)} & {"listed", "listed2"}
        self.assertEqual(names(0), {"listed", "listed2"})
        self.assertEqual(names(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_DIR), {"listed"})
        self.assertEqual(names(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_LOGICAL), {"listed2"})
        self.assertEqual(names(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE), set())
        self.assertEqual(names(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_TRANSIENT), set())
        self.assertLessEqual({"listed", "listed2"}, set(conn.listDefinedStoragePools()))
        self.assertGreaterEqual(conn.numOfDefinedStoragePools(), 2)
        for name in ("listed", "listed2"):
            self.virsh("pool-undefine", name)

    def test_dead_server(self):
        """A pool whose server does not answer holds up who asks for it, for a while, and nobody else."""
        target = f"{self.dir}/dead"
        os.mkdir(target)
        daemon = manage.Daemon(env={"LODGED_PATIENCE": "2"})
        self.addCleanup(daemon.close)
        daemon.virsh("pool-create-as", "dead", "dir", "--target", target)
        server = manage.dead_folder(self, target)
        conn, other = daemon.connect(), daemon.connect()
        self.addCleanup(conn.close)
        self.addCleanup(other.close)
        errors = []

        def refresh():
            try:
                conn.storagePoolLookupByName("dead").refresh()
            except libvirt.libvirtError as e:
                errors.append(e.get_error_code())
        thread = threading.Thread(target=refresh)
        thread.start()
        dead = other.storagePoolLookupByName("dead")
        while thread.is_alive():
            dead.info()
            dead.XMLDesc()
            other.listAllStoragePools()
            daemon.virsh("pool-list", "--all", "--details")
            thread.join(1)
        self.assertEqual(errors, [libvirt.VIR_ERR_OPERATION_TIMEOUT])
        self.assertTrue(dead.isActive())
        for call in (dead.refresh, dead.destroy):  # at once: it is known to be dead
            with self.assertRaises(libvirt.libvirtError) as caught:
                call()
            self.assertEqual(caught.exception.get_error_code(), libvirt.VIR_ERR_OPERATION_TIMEOUT)
        server.close()
        manage.until(lambda: daemon.run_virsh("pool-refresh", "dead").returncode == 0, "it is back")
        daemon.virsh("pool-destroy", "dead")

    def test_file_system(self):
        target = f"{self.dir}/mnt"
        device = self.loop_device()
        self.addCleanup(subprocess.run, ["umount", target], stderr=subprocess.DEVNULL)
        self.virsh("pool-define-as", "fs", "fs", "--source-dev", device, "--target", target,
                   "--source-format", "ext4")
        self.virsh("pool-build", "fs", "--no-overwrite")
        self.assertIn("already formatted", self.virsh("pool-build", "fs", "--no-overwrite", fails=True))
        self.virsh("pool-build", "fs", "--overwrite")
        self.virsh("pool-start", "fs")
        self.assertTrue(os.path.ismount(target))
        validate(self, self.virsh("pool-dumpxml", "fs"), "storagepool")
        # The disk becomes full: one error, and nothing half-made stays.
        error = self.virsh("vol-create-as", "fs", "big.raw", "100M", fails=True)
        self.assertIn("No space left on device", error)
        self.assertEqual(len(error.splitlines()), 2)
        self.assertFalse(os.path.exists(f"{target}/big.raw"))
        self.assertNotIn("big.raw", self.virsh("vol-list", "fs"))
        self.virsh("vol-create-as", "fs", "small.raw", "1M")
        self.daemon.kill()
        self.daemon.start()
        self.assertIn("small.raw", self.virsh("vol-list", "fs"))
        self.virsh("pool-destroy", "fs")
        self.assertFalse(os.path.ismount(target))
        self.virsh("pool-undefine", "fs")


class Volumes(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dir = tempfile.mkdtemp(prefix="lodge-vols-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.daemon.virsh("pool-create-as", "p", "dir", "--target", cls.dir)
        os.mkdir(f"{cls.dir}.other")
        cls.addClassCleanup(shutil.rmtree, f"{cls.dir}.other", True)
        cls.daemon.virsh("pool-create-as", "other", "dir", "--target", f"{cls.dir}.other")

    def path(self, name):
        return f"{self.dir}/{name}"

    def test_formats_that_are_made(self):
        for name in ("raw", "qcow2", "qcow", "vmdk", "vdi", "vpc", "qed", "cow", "vhdx", "parallels", "iso"):
            vol = f"f.{name}"
            self.virsh("vol-create-as", "p", vol, "8M", "--format", name)
            st = os.stat(self.path(vol))
            self.assertEqual(st.st_mode & 0o7777, 0o600)
            if name not in ("raw", "iso"):
                self.assertIn(f"file format: {name}", image_info(self.path(vol)))
            self.virsh("pool-refresh", "p")  # what is found is what was made
            xml = self.virsh("vol-dumpxml", vol, "p")
            self.assertIn(f"<format type='{'raw' if name == 'iso' else name}'/>", xml)
            self.assertIn(f"<allocation unit='bytes'>{st.st_blocks * 512}</allocation>", xml)
            self.assertIn(f"<physical unit='bytes'>{st.st_size}</physical>", xml)
            if name not in ("vhdx", "parallels"):
                validate(self, xml, "storagevol")
            self.virsh("vol-delete", vol, "p")
            self.assertFalse(os.path.exists(self.path(vol)))
        for name in ("bochs", "cloop", "dmg", "frob", "luks"):
            self.virsh("vol-create-as", "p", "bad", "8M", "--format", name, fails=True)
            self.assertFalse(os.path.exists(self.path("bad")))
        self.virsh("vol-create-as", "p", "folder", "0", "--format", "dir")
        self.assertTrue(os.path.isdir(self.path("folder")))
        self.assertRegex(self.virsh("vol-list", "p", "--details"), r"folder .* dir ")
        self.virsh("vol-delete", "folder", "p")

    def test_names(self):
        self.virsh("vol-create-as", "p", "n.raw", "1M", "--allocation", "0")
        self.assertEqual(os.stat(self.path("n.raw")).st_blocks, 0)
        path = self.virsh("vol-path", "n.raw", "--pool", "p")
        self.assertEqual(path, self.path("n.raw"))
        self.assertEqual(self.virsh("vol-key", "n.raw", "--pool", "p"), path)
        self.assertEqual(self.virsh("vol-name", path), "n.raw")
        self.assertEqual(self.virsh("vol-pool", path), "p")
        self.assertRegex(self.virsh("vol-info", path), r"Capacity: +1.00 MiB")
        self.assertRegex(self.virsh("vol-info", "n.raw", "p", "--bytes"), r"Allocation: +0 bytes")
        self.assertIn("exists already", self.virsh("vol-create-as", "p", "n.raw", "1M", fails=True))
        for bad in ("../n.raw", "a/b", "..", ".", "/etc/x"):
            self.virsh("vol-create-as", "p", bad, "1M", fails=True)
        self.assertFalse(os.path.exists(f"{self.dir}/../n.raw"))
        self.assertIn("no storage vol with matching", self.virsh("vol-info", "nosuch", "p", fails=True))
        # A file that is in the way without being known is not touched.
        with open(self.path("hidden"), "w") as f:
            f.write("mine")
        self.assertIn("already exists", self.virsh("vol-create-as", "p", "hidden", "1M", fails=True))
        with open(self.path("hidden")) as f:
            self.assertEqual(f.read(), "mine")
        os.unlink(self.path("hidden"))
        self.virsh("vol-delete", path)

    def test_xml(self):
        xml = """<volume><name>x.qcow2</name><capacity unit='M'>16</capacity><target>
            <format type='qcow2'/><permissions><mode>0640</mode><owner>3</owner><group>4</group></permissions>
            <compat>1.1</compat><clusterSize unit='KiB'>128</clusterSize>
            <features><lazy_refcounts/><extended_l2/></features></target></volume>"""
        with open(self.path("in.xml"), "w") as f:
            f.write(xml)
        self.virsh("vol-create", "p", self.path("in.xml"))
        st = os.stat(self.path("x.qcow2"))
        self.assertEqual((st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o640, 3, 4))
        out = self.virsh("vol-dumpxml", "x.qcow2", "p")
        validate(self, out, "storagevol")
        for part in ("<compat>1.1</compat>", ">131072</clusterSize>", "<lazy_refcounts/>", "<extended_l2/>",
                     "<owner>3</owner>", ">16777216</capacity>"):
            self.assertIn(part, out)
        self.virsh("vol-delete", "x.qcow2", "p")
        with open(self.path("in.xml"), "w") as f:
            f.write("<volume><name>x</name><capacity>1</capacity>\n<target></volume>")
        self.assertIn(":2:", self.virsh("vol-create", "p", self.path("in.xml"), fails=True))
        os.unlink(self.path("in.xml"))

    def test_preallocation(self):
        self.virsh("vol-create-as", "p", "m.qcow2", "64M", "--format", "qcow2")
        self.virsh("vol-create-as", "p", "n.qcow2", "64M", "--format", "qcow2", "--prealloc-metadata")
        self.assertGreater(os.stat(self.path("n.qcow2")).st_size, os.stat(self.path("m.qcow2")).st_size + 32 * MIB)
        self.assertIn("raw volumes", self.virsh("vol-create-as", "p", "x.raw", "1M", "--prealloc-metadata", fails=True))
        # What is uploaded decides what the volume is.
        self.virsh("vol-create-as", "p", "up.raw", "1M", "--allocation", "0")
        self.virsh("vol-upload", "up.raw", self.path("m.qcow2"), "--pool", "p")
        xml = self.virsh("vol-dumpxml", "up.raw", "p")
        self.assertIn("<format type='qcow2'/>", xml)
        self.assertIn(f"<capacity unit='bytes'>{64 * MIB}</capacity>", xml)
        for name in ("m.qcow2", "n.qcow2", "up.raw"):
            self.virsh("vol-delete", name, "p")

    def test_backing(self):
        self.virsh("vol-create-as", "p", "base.qcow2", "8M", "--format", "qcow2")
        self.virsh("vol-create-as", "p", "over.qcow2", "8M", "--format", "qcow2",
                   "--backing-vol", "base.qcow2", "--backing-vol-format", "qcow2")
        self.assertIn("backing file", image_info(self.path("over.qcow2"), "--backing-chain"))
        xml = self.virsh("vol-dumpxml", "over.qcow2", "p")
        validate(self, xml, "storagevol")
        self.assertIn(f"<path>{self.path('base.qcow2')}</path>", xml.split("<backingStore>")[1])
        self.assertIn("<format type='qcow2'/>", xml.split("<backingStore>")[1])
        for name in ("over.qcow2", "base.qcow2"):
            self.virsh("vol-delete", name, "p")
        self.assertIn("nosuch", self.virsh("vol-create-as", "p", "o", "8M", "--format", "qcow2", "--backing-vol",
                                            "/nosuch", "--backing-vol-format", "qcow2", fails=True))

    def test_resize(self):
        for name in ("raw", "qcow2", "vdi", "vhdx"):
            vol = f"r.{name}"
            self.virsh("vol-create-as", "p", vol, "4M", "--format", name, "--allocation", "0")
            self.virsh("vol-resize", vol, "8M", "--pool", "p")
            self.assertRegex(self.virsh("vol-info", vol, "p", "--bytes"), rf"Capacity: +{8 * MIB} ")
            self.virsh("vol-resize", vol, "4M", "--pool", "p", "--delta")
            self.assertIn(f"{12 * MIB} bytes", image_info(self.path(vol)))
            self.assertIn("shrink", self.virsh("vol-resize", vol, "4M", "--pool", "p", fails=True))
            self.virsh("vol-delete", vol, "p")
        self.virsh("vol-create-as", "p", "a.raw", "1M", "--allocation", "0")
        self.virsh("vol-resize", "a.raw", "3M", "--pool", "p", "--allocate")
        self.assertGreaterEqual(os.stat(self.path("a.raw")).st_blocks * 512, 2 * MIB)
        self.virsh("vol-resize", "a.raw", "2M", "--pool", "p", "--shrink")
        self.assertEqual(os.stat(self.path("a.raw")).st_size, 2 * MIB)
        self.assertIn("Not enough space", self.virsh("vol-resize", "a.raw", "100T", "--pool", "p", "--allocate", fails=True))
        self.virsh("vol-delete", "a.raw", "p")

    def test_clone(self):
        data = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB)
        with open(self.path("src.raw"), "wb") as f:
            f.write(data)
        self.virsh("pool-refresh", "p")
        self.virsh("vol-clone", "src.raw", "copy.raw", "--pool", "p")
        with open(self.path("copy.raw"), "rb") as f:
            self.assertEqual(f.read(), data)
        with open(self.path("to.xml"), "w") as f:
            f.write("<volume><name>to.qcow2</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>")
        self.virsh("vol-create-from", "other", self.path("to.xml"), "src.raw", "--inputpool", "p")
        os.unlink(self.path("to.xml"))
        subprocess.run([LODGE_IMG, "compare", self.path("src.raw"), f"{self.dir}.other/to.qcow2"], check=True,
                       stdout=subprocess.DEVNULL)
        self.virsh("vol-clone", "to.qcow2", "again.qcow2", "--pool", "other")
        subprocess.run([LODGE_IMG, "compare", self.path("src.raw"), f"{self.dir}.other/again.qcow2"], check=True,
                       stdout=subprocess.DEVNULL)
        for vol, pool in (("src.raw", "p"), ("copy.raw", "p"), ("to.qcow2", "other"), ("again.qcow2", "other")):
            self.virsh("vol-delete", vol, pool)

    def test_create_from(self):
        """Each format becomes each other, whatever lies below it."""
        self.virsh("vol-create-as", "p", "under.qcow2", "3M", "--format", "qcow2")
        subprocess.run([LODGE_IMG, "bench", "-q", "-w", "-c", "8", "-s", "64k", "-S", "300k", "--pattern", "90", "-f", "qcow2",
                        self.path("under.qcow2")], check=True, stdout=subprocess.DEVNULL)
        self.virsh("vol-create-as", "p", "above.qcow2", "3M", "--format", "qcow2", "--backing-vol", "under.qcow2",
                   "--backing-vol-format", "qcow2")
        sources = ["above.qcow2"]
        xml = f"{self.dir}.other/.to.xml"
        for form in ("raw", "vdi", "vmdk", "vpc", "qed", "qcow2"):
            with open(xml, "w") as f:
                f.write(f"<volume><name>to.{form}</name><capacity>0</capacity><target><format type='{form}'/></target>"
                        "</volume>")
            self.virsh("vol-create-from", "p", xml, sources[-1], "--inputpool", "p")
            sources.append(f"to.{form}")
            self.assertIn("identical", subprocess.run(
                [LODGE_IMG, "compare", self.path("above.qcow2"), self.path(f"to.{form}")], capture_output=True, text=True,
                check=False).stdout, form)
        self.assertNotIn("backingStore", self.virsh("vol-dumpxml", "to.qcow2", "p"))
        # More room than there was; less is refused.
        with open(xml, "w") as f:
            f.write("<volume><name>more.qcow2</name><capacity unit='M'>9</capacity>"
                    "<target><format type='qcow2'/></target></volume>")
        self.virsh("vol-create-from", "p", xml, "to.raw", "--inputpool", "p", "--prealloc-metadata")
        self.assertRegex(self.virsh("vol-info", "more.qcow2", "p", "--bytes"), rf"Capacity: +{9 * MIB} ")
        self.virsh("vol-clone", "to.qcow2", "clone.qcow2", "--pool", "p", "--prealloc-metadata")
        self.assertGreater(os.stat(self.path("clone.qcow2")).st_size, 3 * MIB)
        self.assertIn("exists already", self.virsh("vol-clone", "to.qcow2", "clone.qcow2", "--pool", "p", fails=True))
        os.unlink(xml)
        for vol in (*sources, "more.qcow2", "clone.qcow2", "under.qcow2"):
            self.virsh("vol-delete", vol, "p")

    def test_upload_download(self):
        data = os.urandom(3 * MIB + 17)
        src, back = f"{self.dir}.other/.src", f"{self.dir}.other/.back"
        with open(src, "wb") as f:
            f.write(data)
        self.virsh("vol-create-as", "p", "u.raw", "4M", "--allocation", "0")
        self.virsh("vol-upload", "u.raw", src, "--pool", "p", "--offset", "4096")
        self.virsh("vol-download", "u.raw", back, "--pool", "p", "--offset", "4096", "--length", str(len(data)))
        with open(back, "rb") as f:
            self.assertEqual(hashlib.sha256(f.read()).digest(), hashlib.sha256(data).digest())
        self.virsh("vol-download", "u.raw", back, "--pool", "p")
        self.assertEqual(os.stat(back).st_size, 4 * MIB)
        # Longer than what was agreed to.
        self.assertIn("No space left", self.virsh("vol-upload", "u.raw", src, "--pool", "p", "--length", "4096",
                                                  fails=True))
        self.assertIn("nable to seek", self.virsh("vol-download", "u.raw", back, "--pool", "p", "--offset",
                                                  "99999999", fails=True))
        self.virsh("vol-delete", "u.raw", "p")

    def test_sparse_streams(self):
        src, back = f"{self.dir}.other/.hsrc", f"{self.dir}.other/.hback"
        with open(src, "wb") as f:
            f.truncate(64 * MIB)
            f.seek(16 * MIB)
            f.write(b"middle" * 1000)
            f.seek(40 * MIB)
            f.write(b"later" * 1000)
        self.virsh("vol-create-as", "p", "h.raw", "64M", "--allocation", "0")
        self.virsh("vol-upload", "h.raw", src, "--pool", "p", "--sparse")
        self.assertEqual(os.stat(self.path("h.raw")).st_size, 64 * MIB)
        self.assertLess(os.stat(self.path("h.raw")).st_blocks * 512, MIB)
        self.virsh("vol-download", "h.raw", back, "--pool", "p", "--sparse")
        self.assertLess(os.stat(back).st_blocks * 512, MIB)
        subprocess.run(["cmp", src, back], check=True)
        subprocess.run(["cmp", src, self.path("h.raw")], check=True)
        self.virsh("vol-delete", "h.raw", "p")

    def test_broken_off_upload(self):
        """Who vanishes in the middle of a stream leaves a volume that others can use."""
        conn = libvirt.open(self.daemon.uri)
        self.virsh("vol-create-as", "p", "b.raw", "8M")
        stream = conn.newStream()
        conn.storageVolLookupByPath(self.path("b.raw")).upload(stream, 0, 0)
        stream.send(b"x" * 65536)
        stream.abort()
        conn.close()
        self.virsh("vol-delete", "b.raw", "p")

    def test_formats(self):
        """Each format is made, copied into and looked at again; what cannot be made says so."""
        with open(self.path("seed"), "wb") as f:
            f.write(os.urandom(MIB))
        self.virsh("pool-refresh", "p")
        for form in ("raw", "vpc", "vdi", "cow", "qcow", "qcow2", "qed", "vmdk", "vhdx", "parallels", "ploop"):
            self.virsh("vol-create-as", "p", f"new.{form}", "4M", "--format", form)
            with open(f"{self.dir}/v.xml", "w") as f:
                f.write(f"<volume><name>copy</name><capacity>0</capacity><target><format type='{form}'/></target></volume>")
            self.virsh("vol-create-from", "p", f"{self.dir}/v.xml", "seed", "--inputpool", "p")
            shown = "parallels" if form == "ploop" else form
            self.assertIn(f"<format type='{shown}'/>", self.virsh("vol-dumpxml", "copy", "p"))
            p = subprocess.run([LODGE_IMG, "compare", "-f", "raw", "-F", shown, self.path("seed"), self.path("copy")],
                               capture_output=True, text=True)
            self.assertIn("identical", p.stdout, form)
            self.virsh("vol-delete", "copy", "p")
            self.virsh("vol-delete", f"new.{form}", "p")
        for form in ("bochs", "cloop", "dmg", "frob"):
            self.assertIn(f"{form}", self.virsh("vol-create-as", "p", "x", "4M", "--format", form, fails=True))
        self.virsh("vol-delete", "seed", "p")

    def test_wipe(self):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        for algorithm in ("program", None, "zero", "random", "nnsa", "dod", "bsi", "schneier", "pfitzner7",
                          "pfitzner33", "gutmann", "trim"):
            with open(self.path("w.raw"), "wb") as f:
                f.write(b"secret" * 20000)
            self.virsh("pool-refresh", "p")
            if algorithm == "program":  # by the older call, which virsh makes no more
                conn.storagePoolLookupByName("p").storageVolLookupByName("w.raw").wipe()
            else:
                self.virsh("vol-wipe", "w.raw", "p", *(("--algorithm", algorithm) if algorithm else ()))
            with open(self.path("w.raw"), "rb") as f:
                data = f.read()
            self.assertEqual(len(data), 120000)
            self.assertNotIn(b"secret", data)
            if algorithm in ("program", None, "zero", "trim", "nnsa", "dod"):
                self.assertEqual(data.strip(b"\0"), b"")
        self.virsh("vol-delete", "w.raw", "p")

    def test_foreign_files(self):
        """What lies in a pool is looked at without trust, and nothing in it stops a refresh."""
        subprocess.run([LODGE_IMG, "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw",
                        self.path("evil.qcow2"), "1M"], check=True)
        with open(self.path("torn.qcow2"), "wb") as f:
            f.write(b"QFI\xfb\0\0\0\3" + b"\xff" * 200)
        os.mkfifo(self.path("pipe"))
        os.symlink("/nosuch", self.path("dangling"))
        with open(self.path("cd.iso"), "wb") as f:
            f.seek(32768)
            f.write(b"\1CD001\1" + bytes(2041))
        with open(os.path.join(self.dir.encode(), b"\xff\xfe"), "wb"):
            pass
        self.virsh("pool-refresh", "p")
        listed = self.virsh("vol-list", "p")
        for name, there in (("evil.qcow2", True), ("torn.qcow2", True), ("cd.iso", True), ("pipe", False),
                            ("dangling", False)):
            self.assertEqual(name in listed, there, listed)
        self.assertIn("<format type='iso'/>", self.virsh("vol-dumpxml", "cd.iso", "p"))
        self.assertIn("/etc/shadow", self.virsh("vol-dumpxml", "evil.qcow2", "p"))
        error = self.virsh("vol-clone", "evil.qcow2", "stolen.qcow2", "--pool", "p", fails=True)
        self.assertIn("untrusted image", error)
        self.assertFalse(os.path.exists(self.path("stolen.qcow2")))
        for name in ("evil.qcow2", "torn.qcow2", "cd.iso"):
            self.virsh("vol-delete", name, "p")
        for name in (b"pipe", b"dangling", b"\xff\xfe"):
            os.unlink(os.path.join(self.dir.encode(), name))

    def test_long_work_holds_nobody_up(self):
        """While a volume is copied others are made; who wants the pool for itself waits."""
        with open(self.path("large.raw"), "wb") as f:
            for _ in range(96):
                f.write(os.urandom(MIB))
        self.virsh("pool-refresh", "p")
        conns = [self.connect() for _ in range(2)]
        errors = []

        def clone(conn):
            try:
                pool = conn.storagePoolLookupByName("p")
                pool.createXMLFrom("<volume><name>clone.raw</name><capacity>1</capacity></volume>",
                                   pool.storageVolLookupByName("large.raw"))
            except libvirt.libvirtError as e:
                errors.append(e)
        thread = threading.Thread(target=clone, args=(conns[0],))
        thread.start()
        pool = conns[1].storagePoolLookupByName("p")
        manage.until(lambda: os.path.exists(self.path("clone.raw")) or not thread.is_alive(), "the copy begins")
        made = pool.createXML("<volume><name>quick.raw</name><capacity>1024</capacity></volume>")
        pool.info()
        made.delete()
        pool.refresh()
        thread.join()
        self.assertEqual(errors, [])
        subprocess.run(["cmp", self.path("large.raw"), self.path("clone.raw")], check=True)
        for name in ("large.raw", "clone.raw"):
            self.virsh("vol-delete", name, "p")

    def test_read_only(self):
        conn = self.connect(read_only=True)
        pool = conn.storagePoolLookupByName("p")
        pool.XMLDesc()
        for call in (pool.refresh, pool.destroy,
                     lambda: pool.createXML("<volume><name>x</name><capacity>1</capacity></volume>")):
            with self.assertRaises(libvirt.libvirtError):
                call()


if __name__ == "__main__":
    if os.getuid() != 0:
        print("skipped: needs root for owners of volumes and loop devices")
        sys.exit(77)
    unittest.main()
