#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of the domain XML that a running guest shows: full disks, transient and copied-on-read ones, limits
that disks share, media that are missing, what the guest says of its memory."""
import ctypes
import json
import os
import pathlib
import re
import subprocess
import time
import unittest

import libvirt

import manage
from test_manage_domain import machine, started, UP, with_modules

IMG = os.environ["LODGE_IMG"]

manage.hear_events()


def img(*args):
    return subprocess.run([IMG, *args], capture_output=True, text=True, check=True).stdout


def disk(file, target="vda", driver="", more="", form="raw", bus="virtio", kind="disk", source=""):
    return f"""<disk type='file' device='{kind}'><driver name='qemu' type='{form}' {driver}/>
        <source file='{file}' {source}/><target dev='{target}' bus='{bus}'/>{more}</disk>"""


class Elements(manage.FolderCase):
    def define(self, devices="", **more):
        dom = self.conn.defineXML(machine(self.name, devices="<console type='pty'/>" + devices, **more))
        self.addCleanup(self.forget)
        return dom

    def forget(self):
        dom = self.daemon.connect().lookupByName(self.name)
        if dom.isActive():
            dom.destroy()
        dom.undefine()

    def boot(self, devices="", **more):
        self.dom = self.define(devices, **more)
        self.console = started(self.conn, self.dom)
        self.console.expect(UP)
        self.console.expect(b"# ")
        self.turn = 0

    def say(self, line):
        """Runs @line in the guest; what it printed."""
        self.turn += 1
        end = b"end-%d:" % self.turn
        at = len(self.console.seen)
        self.console.type(b"%s; echo en''d-%d:$?\n" % (line.encode(), self.turn))
        self.console.expect(b"\n" + end, at)
        self.console.expect(b"# ", at + self.console.seen[at:].index(b"\n" + end))
        return self.console.seen[at:].decode(errors="replace")

    def qmp(self, command, **args):
        text = json.dumps({"execute": command, "arguments": args})
        return json.loads(self.virsh("qemu-monitor-command", self.name, text))["return"]

    def small_disk(self, name):
        """A file system of 1 MiB, which can grow."""
        folder = self.path(name)
        os.mkdir(folder)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"size=1M,mode=755") != 0:
            manage.leave_out(self, "no tmpfs: " + os.strerror(ctypes.get_errno()))
        self.addCleanup(libc.umount2, folder.encode(), 2)
        return folder, lambda: self.assertEqual(
            libc.mount(b"none", folder.encode(), b"tmpfs", 32, b"size=32M,mode=755"), 0)

    def test_full_disk(self):
        folder, grow = self.small_disk("small")
        for name in ("stop.raw", "report.raw"):
            with open(f"{folder}/{name}", "wb") as f:
                f.truncate(8 << 20)
        seen = []
        self.conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            lambda _c, _d, path, alias, action, reason, _o: seen.append((path, alias, action, reason)), None)
        self.boot(disk(f"{folder}/report.raw", "vda", "error_policy='report'") +
                  disk(f"{folder}/stop.raw", "vdb", "error_policy='stop' rerror_policy='report'"))
        xml = self.dom.XMLDesc()
        self.assertIn("error_policy='report'", xml)
        self.assertIn("error_policy='stop' rerror_policy='report'", xml)
        out = self.say("dd if=/dev/zero of=/dev/vda bs=64k count=32 conv=fsync")
        self.assertRegex(out, "(?i)i/o error")
        self.assertEqual(self.dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        manage.until(lambda: (f"{folder}/report.raw", "virtio-disk0", 2, "enospc") in seen, "the report")
        self.console.type(b"dd if=/dev/zero of=/dev/vdb bs=64k count=32 conv=fsync; echo wri''tten $?\n")
        paused = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
        manage.until(lambda: self.dom.state() == paused, "the machine stands still")
        manage.until(lambda: (f"{folder}/stop.raw", "virtio-disk1", 1, "enospc") in seen, "the stop")
        self.assertRegex(self.virsh("domblkerror", self.name), "vdb: no space")
        self.assertIn("paused (I/O error)", self.virsh("domstate", self.name, "--reason"))
        grow()
        self.dom.resume()
        self.console.expect(b"written 0")
        self.assertEqual(self.dom.diskErrors(), {})
        tight, _ = self.small_disk("tight")
        why = self.virsh("dump", self.name, f"{tight}/core", "--memory-only", fails=True)
        self.assertIn("memory-only dump failed: dump: failed to save memory: No space left on device", why)
        self.assertEqual(os.listdir(tight), [])

    def test_transient(self):
        with open(self.path("a.raw"), "wb") as f:
            f.write(b"old" + bytes((1 << 20) - 3))
        img("create", "-q", "-f", "qcow2", self.path("base"), "2M")
        img("create", "-q", "-f", "qcow2", "-b", self.path("base"), "-F", "qcow2", self.path("top"))
        self.boot(disk(self.path("a.raw"), more="<transient/>") +
                  disk(self.path("top"), "vdb", "copy_on_read='on'", form="qcow2"))
        self.assertIn("3131", self.say("printf 1111 > /dev/vda; sync; od -x -N 4 /dev/vda"))
        with open(self.path("a.raw"), "rb") as f:
            self.assertEqual(f.read(3), b"old")
        for verb in (["save", self.name, self.path("state")], ["snapshot-create-as", self.name, "one"]):
            self.assertIn("transient disk 'vda'", self.virsh(*verb, fails=True))
        self.dom.destroy()
        console = started(self.conn, self.dom)
        console.expect(UP)
        console.expect(b"# ")
        console.type(b"head -c 3 /dev/vda; echo -is; cat /dev/vdb > /dev/null; echo re''ad\n")
        console.expect(b"old-is")
        console.expect(b"\nread")

    def test_copied_on_read(self):
        img("create", "-q", "-f", "qcow2", self.path("base"), "2M")
        with open(self.path("data"), "wb") as f:
            f.write(b"x" * (1 << 20))
        img("convert", "-O", "qcow2", self.path("data"), self.path("base"))
        img("create", "-q", "-f", "qcow2", "-b", self.path("base"), "-F", "qcow2", self.path("top"))
        self.boot(disk(self.path("top"), driver="copy_on_read='on'", form="qcow2"))
        self.say("cat /dev/vda > /dev/null")
        self.dom.destroy()
        above = json.loads(img("map", "--output=json", self.path("top")))
        self.assertEqual({row["depth"] for row in above if row["data"]}, {0})

    def test_shared_limits(self):
        for name in "ab":
            img("create", "-q", "-f", "raw", self.path(name), "1M")
        limit = "<iotune><total_bytes_sec>4000000</total_bytes_sec><group_name>both</group_name></iotune>"
        self.boot(disk(self.path("a"), more=limit) + disk(self.path("b"), "vdb", more=limit))
        groups = [(r["inserted"]["group"], r["inserted"]["bps"]) for r in self.qmp("query-block")]
        self.assertEqual(groups, [("both", 4000000)] * 2)
        self.virsh("blkdeviotune", self.name, "vda", "--total-bytes-sec", "5000000", "--live")
        self.assertEqual([r["inserted"]["bps"] for r in self.qmp("query-block")], [5000000] * 2)
        self.assertEqual(self.dom.XMLDesc().count("<total_bytes_sec>5000000</total_bytes_sec>"), 2)
        self.virsh("blkdeviotune", self.name, "vda", "--total-bytes-sec", "6000000", "--group-name", "own",
                   "--live")
        self.assertEqual([r["inserted"]["bps"] for r in self.qmp("query-block")], [6000000, 5000000])
        self.assertEqual(self.dom.blockIoTune("vda")["group_name"], "own")

    def test_missing_media(self):
        seen = []
        self.conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
            lambda _c, _d, old, new, alias, reason, _o: seen.append((old, new, alias, reason)), None)
        cd, hard = self.path("no.iso"), self.path("no.raw")
        self.dom = self.define(
            disk(cd, "sda", kind="cdrom", bus="sata", source="startupPolicy='optional'") +
            disk(hard, "vda", source="startupPolicy='optional'"))
        self.dom.create()
        manage.until(lambda: len(seen) == 2, "both are told")
        self.assertEqual(sorted(seen), sorted([(cd, None, "sata0-0-0", 0), (hard, None, "virtio-disk0", 1)]))
        live = self.dom.XMLDesc()
        self.assertNotIn("no.iso", live)
        self.assertNotIn("vda", live)
        self.assertIn("no.iso", self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        self.dom.destroy()
        given = self.dom.XMLDesc()
        for policy, words in (("mandatory", "Cannot access storage file"), ("requisite", "Cannot access"),
                              ("whatever", "startupPolicy")):
            with self.assertRaisesRegex(libvirt.libvirtError, words):
                xml = given.replace("no.iso' startupPolicy='optional'", f"no.iso' startupPolicy='{policy}'")
                self.conn.defineXML(xml).create()

    def test_memory_figures(self):
        self.boot("<memballoon model='virtio' autodeflate='on' freePageReporting='on'><stats period='1'/>"
                  "</memballoon>")
        wanted = {"unused", "available", "usable", "last_update", "minor_fault", "swap_in"}
        manage.until(lambda: wanted <= set(self.dom.memoryStats()), "the guest's figures")
        stats = self.dom.memoryStats()
        self.assertGreater(stats["available"], stats["unused"])
        self.assertLess(stats["available"], 128 << 10)
        first = stats["last_update"]
        manage.until(lambda: self.dom.memoryStats()["last_update"] > first, "figures come again")
        self.assertIn("balloon.available=", self.virsh("domstats", self.name, "--balloon"))
        self.virsh("dommemstat", self.name, "--period", "3", "--live", "--config")
        self.assertIn("<stats period='3'/>", self.dom.XMLDesc())
        self.assertIn("<stats period='3'/>", self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        alias = re.search(r"<memballoon.*?alias name='(\w+)'", self.dom.XMLDesc(), re.S)[1]
        self.assertEqual(self.qmp("qom-get", path=f"/machine/peripheral/{alias}",
                                  property="guest-stats-polling-interval"), 3)
        self.virsh("dommemstat", self.name, "--period", "0", "--live")
        self.assertNotIn("<stats", self.dom.XMLDesc())

    def test_iothreads(self):
        for name in "ab":
            img("create", "-q", "-f", "raw", self.path(name), "4M")
        self.boot(disk(self.path("a"), driver="iothread='1'") +
                  disk(self.path("b"), "sda", bus="scsi") +
                  "<controller type='scsi' model='virtio-scsi'><driver iothread='4'/></controller>",
                  more="<iothreads>3</iothreads><iothreadids><iothread id='4'/></iothreadids>"
                       "<cputune><iothreadpin iothread='1' cpuset='0'/></cputune>")
        self.assertEqual([row[0] for row in self.dom.ioThreadInfo()], [1, 2, 4])
        threads = {row["id"]: row["thread-id"] for row in self.qmp("query-iothreads")}
        self.assertEqual(set(threads), {"iothread1", "iothread2", "iothread4"})
        self.assertEqual(os.sched_getaffinity(threads["iothread1"]), {0})
        with open(f"/proc/{threads['iothread1']}/comm") as f:
            self.assertEqual(f.read().strip(), "IO iothread1")

        def work():
            with open(f"/proc/{threads['iothread1']}/status") as f:
                return int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", f.read())[1])
        before = work()
        self.assertIn("end-1:0", self.say("dd if=/dev/urandom of=/tmp/r bs=1M count=4 2>/dev/null; "
                                          "cp /tmp/r /dev/vda; sync; echo 3 > /proc/sys/vm/drop_caches; "
                                          "cmp /tmp/r /dev/vda"))
        self.assertGreater(work(), before)
        self.virsh("iothreadadd", self.name, "7", "--live", "--config")
        self.assertRegex(self.virsh("iothreadinfo", self.name), r"(?s)1 +0\n.*\n *7 ")
        self.virsh("iothreadpin", self.name, "7", "0", "--live", "--config")
        threads = {row["id"]: row["thread-id"] for row in self.qmp("query-iothreads")}
        self.assertEqual(os.sched_getaffinity(threads["iothread7"]), {0})
        self.assertIn("<iothreadpin iothread='7' cpuset='0'/>", self.dom.XMLDesc())
        self.assertIn("already using", self.virsh("iothreadadd", self.name, "7", "--live", fails=True))
        self.assertIn("being used by 'vda'", self.virsh("iothreaddel", self.name, "1", "--live", fails=True))
        self.assertIn("not found", self.virsh("iothreadpin", self.name, "9", "0", "--live", fails=True))
        self.virsh("iothreaddel", self.name, "7", "--live", "--config")
        self.virsh("iothreaddel", self.name, "2", "--live")
        self.assertEqual([row[0] for row in self.dom.ioThreadInfo()], [1, 4])
        self.assertIn("iothread.count=2", self.virsh("domstats", self.name, "--iothread"))
        inactive = self.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self.assertIn("<iothreads>3</iothreads>", inactive)
        self.assertNotIn("iothread='7'", inactive)
        for words, xml in (("not available for bus sata", disk("/x", "sdb", "iothread='1'", bus="sata")),
                           ("'5' not defined", disk("/x", driver="iothread='5'"))):
            with self.assertRaisesRegex(libvirt.libvirtError, words):
                self.conn.defineXML(machine("never", devices=xml, more="<iothreads>1</iothreads>"))

    def test_words_of_the_machine(self):
        initrd = with_modules(self.folder, "qemu_fw_cfg", "pvpanic", "pvpanic-mmio")
        more = """<memoryBacking><locked/><discard/></memoryBacking>
            <clock offset='timezone' timezone='Asia/Tokyo'/><on_crash>coredump-restart</on_crash>"""
        self.dom = self.define("<panic model='isa'/>", initrd=initrd, more=more)
        xml = self.dom.XMLDesc()
        xml = re.sub("<apic/>", "<apic eoi='off'/><kvm><hidden state='on'/></kvm><vmcoreinfo state='on'/>", xml)
        xml = xml.replace("</os>", "<bios rebootTimeout='3000'/></os>")
        self.dom = self.conn.defineXML(xml)
        self.console, self.turn = started(self.conn, self.dom), 0
        self.console.expect(UP)
        self.console.expect(b"# ")
        pid = self.daemon.pid(self.dom.UUIDString())
        with open(f"/proc/{pid}/status") as f:
            self.assertGreaterEqual(int(re.search(r"VmLck:\s*(\d+)", f.read())[1]), 128 << 10)
        if subprocess.run(["prlimit", "--memlock=unlimited", "true"], check=False).returncode == 0:
            with open(f"/proc/{pid}/limits") as f:  # for modules that come later
                self.assertRegex(f.read(), r"Max locked memory +unlimited +unlimited")
        with open(f"/proc/{pid}/cmdline") as f:
            line = f.read()
        for word in ("reboot-timeout=3000", "-kvm-pv-eoi", "kvm=off", "vmcoreinfo"):
            self.assertIn(word, line)
        out = self.say("echo rtc $(cat /sys/class/rtc/rtc0/since_epoch) now")
        rtc = int(re.search(r"rtc (\d+) now", out)[1])
        self.assertAlmostEqual(rtc, time.time() + 9 * 3600, delta=600)
        self.say("for m in qemu_fw_cfg pvpanic pvpanic-mmio; do insmod /$m.ko; done")
        self.virsh("dump", self.name, self.path("core"), "--memory-only")
        notes = subprocess.run(["readelf", "-nW", self.path("core")], capture_output=True, text=True).stdout
        self.assertIn("VMCOREINFO", notes)
        seen = len(self.console.seen)
        self.console.type(b"echo c > /proc/sysrq-trigger\n")
        self.console.expect(UP, seen)  # it has been restarted
        dumps = [p for p in pathlib.Path(self.daemon.root).rglob(f"*-{self.name}-*") if p.parent.name == "dump"]
        self.assertEqual(len(dumps), 1)
        for words, more in (("'preserve' action", "<on_reboot>preserve</on_reboot>"),
                            ("no time zone", "<clock offset='timezone' timezone='No/Where'/>")):
            with self.assertRaisesRegex(libvirt.libvirtError, words):
                self.conn.defineXML(machine("never", more=more))

    def test_refused_words(self):
        for words, xml in (
                ("copy_on_read is not compatible", disk("/x", driver="copy_on_read='on'", more="<readonly/>")),
                ("read error policy", disk("/x", driver="rerror_policy='enospace'")),
                ("allowed only for cdrom", disk("/x", source="startupPolicy='requisite'")),
                ("only valid for usb", disk("/x").replace("<target ", "<target removable='on' ")),
                ("Only scsi", disk("/x", more="<vendor>V</vendor>"))):
            with self.assertRaisesRegex(libvirt.libvirtError, words):
                self.conn.defineXML(machine("never", devices=xml))


if __name__ == "__main__":
    unittest.main()
