#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on the disks of machines through lodged: snapshots in new images, commit, copy and pull while the
guest writes, and what is left of them when lodged dies in the middle."""
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import unittest
from xml.etree import ElementTree

import libvirt

import manage
from test_manage_domain import Console, machine, started, UP

IMG = os.environ["LODGE_IMG"]
DISK = """<disk type='file'><driver name='qemu' type='{format}'/><source file='{file}'/>
    <target dev='{target}' bus='virtio'/></disk>"""


def img(*args):
    return subprocess.run([IMG, *args], capture_output=True, text=True, check=True).stdout


manage.hear_events()


class Events:
    """What the daemon says of block jobs, as (disk, type, status)."""

    def __init__(self, conn):
        self.seen = []
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
                                    lambda _c, _d, disk, kind, status, _o:
                                    self.seen.append((disk, kind, status)), None)

    def expect(self, *wanted):
        manage.until(lambda: wanted in self.seen, f"event {wanted}, seen {self.seen}")


class Monitor:
    """A machine's own monitor, for what happens while there is no lodged."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(manage.PATIENCE)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.ask("qmp_capabilities")

    def ask(self, command, **args):
        self.socket.sendall(json.dumps({"execute": command, "arguments": args}).encode() + b"\n")
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise AssertionError(f"{command}: {answer}")
            if "return" in answer:
                return answer["return"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()


class Work(manage.FolderCase):
    """A new machine for each test; its disk a.qcow2 belongs to nobody else."""

    def setUp(self):
        super().setUp()
        img("create", "-q", "-f", "qcow2", self.path("a.qcow2"), "16M")
        os.chmod(self.path("a.qcow2"), 0o600)
        self.dom = self.conn.defineXML(machine(self.name, devices="<console type='pty'/>" + self.disks()))
        self.addCleanup(self.forget)

    def disks(self):
        return DISK.format(format="qcow2", file=self.path("a.qcow2"), target="vda")

    def forget(self):
        dom = self.daemon.connect().lookupByName(self.name)
        if dom.isActive():
            dom.destroy()
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                          libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)

    def boot(self):
        self.console, self.turn = started(self.conn, self.dom), 0
        self.console.expect(UP)
        self.console.expect(b"# ")

    def talk(self):
        self.console = Console(self.conn, self.dom)
        self.turn = 0

    def say(self, line):
        """Runs @line in the guest; what it printed."""
        self.turn += 1
        self.console.seen = b""
        self.console.type(line.encode() + b"; echo d''one-%d\n" % self.turn)
        self.console.expect(b"done-%d\r\n" % self.turn)
        return self.console.seen.decode()

    def write(self, sector, word, disk="vda"):
        self.say(f"echo {word} | dd of=/dev/{disk} bs=512 seek={sector} conv=notrunc; sync")

    def words(self, *sectors):
        out = self.say("for s in " + " ".join(map(str, sectors)) + "; do dd if=/dev/vda bs=512 skip=$s count=1 "
                       "iflag=direct 2>/dev/null | head -c 8 | tr -d '\\0'; done")
        return re.findall(r"(?m)^(w\w+)\r", out)

    def v(self, verb, *args, **more):
        return self.virsh(verb, self.name, *args, **more)

    def source(self, *more):
        return re.findall(r"vda\s+(\S+)", self.v("domblklist", *more))

    def xpath(self, path):
        return self.virsh("dumpxml", self.name, "--xpath", path)

    def files(self, path="//disk/source/@file | //disk//backingStore/source/@file"):
        return re.findall(self.folder + r"/([\w.]+)", self.xpath(path))

    def restart(self):
        self.daemon.kill()
        self.daemon.start()
        self.conn = self.connect()
        self.dom = self.conn.lookupByName(self.name)
        self.talk()

    def job(self, *more):
        p = self.daemon.run_virsh("blockjob", self.name, "vda", *more)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout + p.stderr


class Jobs(Work):
    def test_snapshots_of_a_running_machine(self):
        self.boot()
        self.write(1, "wone")
        self.v("snapshot-create-as", "s1", "--disk-only", "--atomic")
        self.assertEqual(self.files(), ["a.s1", "a.qcow2"])
        self.assertEqual(self.source("--inactive"), [self.path("a.s1")])
        self.write(2000, "wtwo")
        self.v("snapshot-create-as", "s2", "--disk-only", "--diskspec", f"vda,file={self.path('x')}")
        self.write(4000, "wthree")
        self.assertEqual(self.words(1, 2000, 4000), ["wone", "wtwo", "wthree"])
        self.assertEqual(self.files(), ["x", "a.s1", "a.qcow2"])
        self.assertIn("+- s2", self.v("snapshot-list", "--tree"))
        self.assertEqual(self.v("snapshot-list", "--name", "--disk-only", "--external", "--leaves"), "s2")
        self.assertEqual(self.v("snapshot-list", "--name", "--internal"), "")
        self.assertEqual(self.v("snapshot-parent", "s2"), "s1")
        self.assertRegex(self.v("snapshot-info", "s2"), r"State: +disk-snapshot\nLocation: +external")
        xml = self.v("snapshot-dumpxml", "s2")
        self.assertIn("<memory snapshot='no'/>", xml)
        self.assertIn(f"<source file='{self.path('x')}'/>", xml)
        file = self.path("s.xml")
        for text, kind in ((xml, "domainsnapshot"), (self.dom.XMLDesc(), "domain")):
            with open(file, "w") as f:
                f.write(text)
            p = subprocess.run(["virt-xml-validate", file, kind], capture_output=True, text=True)
            self.assertEqual(p.returncode, 0, p.stderr + text)
        # What cannot be.
        for words, args in (
                ("already exists and is not a block device", ["s3", "--disk-only", "--diskspec",
                                                              f"vda,file={self.path('x')}"]),
                ("missing existing file for disk vda", ["s3", "--disk-only", "--reuse-external",
                                                        "--diskspec", f"vda,file={self.path('y')}"]),
                ("guest agent is not configured", ["s3", "--disk-only", "--quiesce"]),
                ("no disk named 'vdz'", ["s3", "--disk-only", "--diskspec", "vdz"]),
                ("requests internal|requested internal", ["s3", "--disk-only", "--diskspec",
                                                          "vda,snapshot=internal"]),
                ("must use snapshot mode 'internal'", ["s3", "--diskspec", "vda,snapshot=external"]),
                ("must be absolute", ["s3", "--memspec", "file=mem"])):
            self.assertRegex(self.v("snapshot-create-as", *args, fails=True), words)
        self.assertEqual(self.files(), ["x", "a.s1", "a.qcow2"])
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.qcow2", "a.s1", "s.xml", "x"])
        # Into an image that is there, and forgotten at once.
        img("create", "-q", "-f", "qcow2", "-u", "-b", self.path("x"), "-F", "qcow2", self.path("mine"), "16M")
        self.v("snapshot-create-as", "--disk-only", "--reuse-external", "--no-metadata", "--diskspec",
               f"vda,file={self.path('mine')}")
        self.assertEqual(self.files(), ["mine", "x", "a.s1", "a.qcow2"])
        self.assertEqual(self.v("snapshot-list", "--name").split(), ["s1", "s2"])
        # Deleting brings what was written since into what is below: in the middle, then at the top.
        self.v("snapshot-delete", "s1")
        self.assertEqual(self.files(), ["mine", "x", "a.qcow2"])
        self.v("blockcommit", "vda", "--shallow", "--active", "--pivot", "--delete")
        self.v("snapshot-delete", "s2")
        self.assertEqual(self.files(), ["a.qcow2"])
        self.assertEqual(self.source("--inactive"), [self.path("a.qcow2")])
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.qcow2", "s.xml"])
        self.assertEqual(self.words(1, 2000, 4000), ["wone", "wtwo", "wthree"])
        self.dom.destroy()
        self.assertEqual(os.stat(self.path("a.qcow2")).st_uid, os.getuid())
        img("check", "-q", self.path("a.qcow2"))

    def test_memory_in_a_file(self):
        self.boot()
        self.say("word=kept")
        self.write(1, "wone")
        self.v("snapshot-create-as", "m", "--memspec", f"file={self.path('mem')},snapshot=external")
        self.assertEqual(self.dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        self.assertIn("<state>running</state>", self.v("snapshot-dumpxml", "m"))
        self.write(1, "wtwo")
        self.assertIn("it-is-kept", self.say("echo it-is-$word"))
        self.dom.destroy()
        # The file is a saved machine over the image as it was.
        self.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        self.virsh("restore", self.path("mem"))
        self.dom = self.conn.lookupByName(self.name)
        self.assertEqual(self.source(), [self.path("a.qcow2")])
        self.talk()
        self.assertIn("it-is-kept", self.say("echo it-is-$word"))
        self.assertEqual(self.words(1), ["wone"])
        self.conn.defineXML(self.dom.XMLDesc())

    def test_lodged_dies_while_it_writes(self):
        """The machine goes on, of the file nothing is left."""
        self.boot()
        self.say("word=kept")
        for verb, file, *more in (("save", "f.new"), ("dump", "f"),
                                  ("snapshot-create-as", "f.new", "--no-metadata", "--memspec")):
            self.v("qemu-monitor-command", '{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 65536}}')
            args = [verb, self.name, *more, self.path("f")]
            p = subprocess.Popen(["virsh", "-c", self.daemon.uri, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            manage.until(lambda: os.path.exists(self.path(file)) and os.path.getsize(self.path(file)) > 0
                         and self.dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED, f"{verb} is under way")
            self.daemon.kill()
            p.wait()
            self.daemon.start()
            self.conn = self.connect()
            self.dom = self.conn.lookupByName(self.name)
            manage.until(lambda: self.dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING, f"it goes on after {verb}")
            manage.until(lambda: not os.path.exists(self.path(file)), "half a file is gone")
            if verb == "save":
                self.assertEqual(self.v("domstate", "--reason"), "running (save canceled)")
            self.talk()
            self.assertIn("it-is-kept", self.say("echo it-is-$word"))

    def test_lodged_dies_while_a_snapshot_is_made(self):
        """Of what nobody knows nothing is left, and the next one can be made."""
        self.dom.create()
        pid, status = self.daemon.machines()[0], f"{self.daemon.root}/run/qemu/{self.dom.UUIDString()}/status"

        def noted():
            with open(status) as f:
                return "snapshot=s1" in f.read()
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(lambda: pid in self.daemon.machines() and os.kill(pid, signal.SIGCONT))
        p = subprocess.Popen(["virsh", "-c", self.daemon.uri, "snapshot-create-as", self.name, "s1"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        manage.until(noted, "it is being made")
        self.daemon.kill()
        p.wait()
        os.kill(pid, signal.SIGCONT)
        with Monitor(status[:-len("status")] + "qmp") as monitor:
            if not monitor.ask("query-jobs"):  # lodged had not come to say it
                nodes = [n["node-name"] for n in monitor.ask("query-named-block-nodes") if n["drv"] == "qcow2"]
                monitor.ask("snapshot-save", **{"job-id": "snapshot", "tag": "s1", "vmstate": nodes[0], "devices": nodes})
            self.assertEqual([(j["id"], j["status"], j.get("error")) for j in monitor.ask("query-jobs")],
                             [("snapshot", "concluded", None)])
        self.daemon.start()
        self.conn = self.connect()
        self.v("snapshot-create-as", "s2")
        self.v("snapshot-create-as", "s1")
        self.assertEqual(self.v("snapshot-list", "--name").split(), ["s1", "s2"])
        self.v("snapshot-delete", "s1")
        self.v("destroy")
        self.assertEqual(re.findall(r"(?m) (s\d) ", img("snapshot", "-l", self.path("a.qcow2"))), ["s2"])

    def test_what_a_transient_machine_leaves(self):
        """It ends with the host, and so does what was known of its snapshots; those of a definition stay."""
        self.v("snapshot-create-as", "kept")
        img("create", "-q", "-f", "qcow2", self.path("b.qcow2"), "16M")
        dom = self.conn.createXML(machine("passing", devices=DISK.format(
            format="qcow2", file=self.path("b.qcow2"), target="vda")), libvirt.VIR_DOMAIN_START_PAUSED)
        self.virsh("snapshot-create-as", "passing", "s1")
        self.virsh("checkpoint-create-as", "passing", "c1")
        notes = [f"{self.daemon.root}/var/qemu/{kind}/passing" for kind in ("snapshot", "checkpoint")]
        self.assertEqual([os.listdir(folder) for folder in notes], [["s1.xml"], ["c1.xml"]])
        pid = self.daemon.pid(dom.UUIDString())
        self.daemon.kill()
        os.kill(pid, signal.SIGKILL)
        manage.until(lambda: pid not in self.daemon.machines(), "it has ended")
        self.daemon.start()
        self.conn = self.connect()
        manage.until(lambda: not any(map(os.path.exists, notes)), "nothing is left of it")
        self.assertEqual(self.v("snapshot-list", "--name"), "kept")

    def test_snapshots_of_a_machine_that_is_off(self):
        self.v("snapshot-create-as", "s1", "--disk-only")
        self.v("snapshot-create-as", "s2", "--disk-only")
        self.assertEqual(self.source(), [self.path("a.s2")])
        info = img("info", "--backing-chain", self.path("a.s2"))
        self.assertEqual(re.findall(r"(?m)^image: .*/(\S+)$", info), ["a.s2", "a.s1", "a.qcow2"])
        self.assertIn("offline or disk-only", self.v("snapshot-create-as", "s3", "--memspec",
                                                     self.path("mem"), fails=True))
        self.v("snapshot-delete", "s1")
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.qcow2", "a.s2"])
        self.assertEqual(self.v("snapshot-list", "--name", "--roots"), "s2")
        self.v("snapshot-delete", "s2", "--metadata")
        self.assertEqual(self.v("snapshot-list", "--name"), "")
        self.assertEqual(self.source(), [self.path("a.s2")])

    def chain(self):
        """a.qcow2 <- b <- c <- d, a word in each."""
        self.boot()
        for i, name in enumerate("bcd"):
            self.write(i * 1000 + 1, f"w{name}")
            self.v("snapshot-create-as", "--disk-only", "--no-metadata", "--diskspec",
                   f"vda,file={self.path(name)}")
        self.write(9000, "wtop")

    def test_commit(self):
        self.chain()
        events = Events(self.conn)
        for words, args in (
                ("active layer requires active flag", []),
                ("is not active", ["--active", "--top", self.path("c")]),
                ("has no backing file", ["--top", self.path("a.qcow2")]),
                ("could not find image", ["--top", self.path("zz")]),
                ("could not find base", ["--top", self.path("b"), "--base", self.path("c")]),
                ("is not immediately below", ["--top", self.path("c"), "--base",
                                              self.path("a.qcow2"), "--shallow"])):
            self.assertIn(words, self.v("blockcommit", "vda", *args, fails=True))
        self.assertIn("No device found", self.v("blockcommit", "vdz", "--active", fails=True))
        # In the middle, named by their numbers in the XML.
        number = {b.find("source").get("file"): b.get("index") for b in
                  ElementTree.fromstring(self.dom.XMLDesc()).iter("backingStore") if len(b)}
        top, base = number[self.path("c")], number[self.path("b")]
        out = self.v("blockcommit", "vda", "--top", f"vda[{top}]", "--base", f"vda[{base}]", "--wait",
                     "--verbose", "--keep-relative")
        self.assertIn("Commit complete", out)
        self.assertEqual(self.files(), ["d", "b", "a.qcow2"])
        self.assertRegex(img("info", "-U", self.path("d")), r"backing file: b \(actual path: .*/b\)")
        events.expect("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)
        # The top: ready first, and lodged is killed before somebody decides.
        self.v("blockcommit", "vda", "--active", "--wait")
        events.expect("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT, libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
        self.assertIn('ready="yes"', self.xpath("//disk/mirror"))
        self.assertIn("already in active block job", self.v("blockpull", "vda", fails=True))
        self.assertIn("already in active block job", self.v("snapshot-create-as", "--disk-only", fails=True))
        self.restart()
        self.assertIn("Active Block Commit: [100 %]", self.job("--info"))
        self.assertIn('job="active-commit" ready="yes"', self.xpath("//disk/mirror"))
        self.assertEqual(self.files("//disk/mirror/source/@file"), ["a.qcow2"])
        self.write(11000, "wlate")
        self.v("blockjob", "vda", "--pivot")
        self.assertEqual(self.files(), ["a.qcow2"])
        self.assertNotIn("<mirror", self.dom.XMLDesc())
        self.assertIn("No current block job", self.job())
        self.assertEqual(self.words(1, 1001, 2001, 9000, 11000), ["wb", "wc", "wd", "wtop", "wlate"])
        self.assertEqual(self.source("--inactive"), [self.path("a.qcow2")])

    def test_commit_is_over_while_nobody_looks(self):
        self.boot()
        self.write(1, "wone")
        self.v("snapshot-create-as", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={self.path('b')}")
        self.write(2000, "wtwo")
        self.v("blockcommit", "vda", "--active", "--wait")
        self.daemon.kill()
        with Monitor(f"{self.daemon.root}/run/qemu/{self.dom.UUIDString()}/qmp") as monitor:
            monitor.ask("block-job-complete", device="job-virtio-disk0")
            manage.until(lambda: monitor.ask("query-block-jobs") == [], "the job is over")
        self.daemon.start()
        self.conn = self.connect()
        self.dom = self.conn.lookupByName(self.name)
        self.talk()
        manage.until(lambda: self.files() == ["a.qcow2"], "lodged has found the machine")
        manage.until(lambda: self.source("--inactive") == [self.path("a.qcow2")], "the definition follows")
        self.assertEqual(self.words(1, 2000), ["wone", "wtwo"])

    def test_copy(self):
        self.boot()
        events = Events(self.conn)
        kind = libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
        self.write(1, "wone")
        self.v("snapshot-create-as", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={self.path('b')}")
        self.write(2000, "wtwo")
        self.assertIn("domain is not transient", self.v("blockcopy", "vda", self.path("c"), fails=True))
        self.assertIn("already exists", self.v("blockcopy", "vda", self.path("b"), "--transient-job",
                                               fails=True))
        # A whole copy, slowly, given up.
        self.v("blockcopy", "vda", self.path("slow.raw"), "--format", "raw", "--transient-job", "--bandwidth", "1")
        self.assertRegex(self.job("--raw"), r"(?s)type=Block Copy.*bandwidth=1\b")
        self.v("blockjob", "vda", "--bandwidth", "2")
        self.assertIn("bandwidth=2097152", self.job("--raw", "--bytes"))
        self.assertIn("not ready for pivot", self.v("blockjob", "vda", "--pivot", fails=True))
        # What cannot be done meanwhile is said in words of the definition, but lodge-vm's own answers are as they are.
        for words in (("detach-disk", "vda"), ("blockresize", "vda", "32M"), ("blockpull", "vda")):
            self.assertIn("disk 'vda' already in active block job", self.v(*words, fails=True))
        self.assertIn("the state cannot be saved: the job of disk 'vda' is not whole yet",
                      self.v("dump", self.path("core"), fails=True))
        node = re.search(r'"node-name": ?"(libvirt-\d+-format)"', self.v("qemu-monitor-command", '{"execute": "query-block"}'))[1]
        self.assertEqual(json.loads(self.v("qemu-monitor-command", json.dumps(
            {"execute": "block_resize", "arguments": {"node-name": node, "size": 1 << 25}}))),
            {"error": {"class": "GenericError", "desc": "libvirt-1-format: a block job runs"}})
        self.assertEqual(json.loads(self.v("qemu-monitor-command", '{"execute": "nosuch", "id": "x"}')),
                         {"id": "x", "error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}})
        self.v("blockjob", "vda", "--abort")
        events.expect("vda", kind, libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED)
        self.assertEqual(self.files(), ["b", "a.qcow2"])
        # A copy of now that the machine does not move to.
        self.v("blockcopy", "vda", self.path("then.raw"), "--format", "raw", "--transient-job", "--wait", "--finish",
               "--granularity", "65536", "--buf-size", "1048576")
        self.assertRegex(self.v("blockcopy", "vda", self.path("odd.raw"), "--transient-job", "--granularity", "1000", fails=True),
                         "granularity must be power of 2")
        # What was made for a copy that does not begin is gone, what was there is as it was; an aborted one stays.
        self.assertTrue(os.path.exists(self.path("slow.raw")))
        pathlib.Path(self.path("empty")).touch()
        for words in (("--format", "nosuch"), ("--shallow", "--format", "raw")):
            for name in ("odd.raw", "empty"):
                self.v("blockcopy", "vda", self.path(name), "--transient-job", *words, fails=True)
            self.assertEqual((os.path.exists(self.path("odd.raw")), os.path.getsize(self.path("empty"))), (False, 0))
        with open(self.path("then.raw"), "rb") as f:
            data = f.read()
        self.assertEqual((data[512:517], data[1024000:1024005]), (b"wone\n", b"wtwo\n"))
        # Only its own top, which the machine then uses; lodged is killed on the way.
        self.v("blockcopy", "vda", self.path("c"), "--shallow", "--transient-job", "--wait")
        for verb in (("managedsave",), ("save", self.path("s")), ("migrate", self.daemon.uri, "--live")):
            self.assertIn("domain has active block job", self.v(*verb, fails=True))  # it would be thrown away
        self.assertIn("disk 'vda' already in active block job", self.v("snapshot-create-as", "s", fails=True))
        events.expect("vda", kind, libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
        self.write(4000, "wthree")
        self.restart()
        self.assertIn('job="copy"', self.xpath("//disk/mirror"))
        self.v("blockjob", "vda", "--pivot")
        self.assertEqual(self.files(), ["c", "a.qcow2"])
        self.assertEqual(self.source("--inactive"), [self.path("c")])
        # Into an image that is there, by XML.
        img("create", "-q", "-f", "qcow2", self.path("e"), "16M")
        with open(self.path("e.xml"), "w") as f:
            f.write(f"<disk type='file'><source file='{self.path('e')}'/><driver type='qcow2'/></disk>")
        self.v("blockcopy", "vda", "--xml", self.path("e.xml"), "--reuse-external", "--transient-job", "--wait",
               "--pivot")
        self.assertEqual(self.files(), ["e"])
        self.assertEqual(self.words(1, 2000, 4000), ["wone", "wtwo", "wthree"])
        self.v("blockresize", "vda", "20M")
        self.assertIn("20971520", self.v("domblkinfo", "vda"))
        manage.until(lambda: "40960" in self.say("cat /sys/block/vda/size"), "the guest sees the new size")

    def test_pull(self):
        self.chain()
        self.v("blockpull", "vda", "--base", self.path("b"), "--wait", "--keep-relative")
        self.assertEqual(self.files(), ["d", "b", "a.qcow2"])
        self.assertRegex(img("info", "-U", self.path("d")), r"backing file: b \(actual path: .*/b\)")
        self.v("blockpull", "vda", "--wait")
        self.assertEqual(self.files(), ["d"])
        self.assertEqual(self.words(1, 1001, 2001, 9000), ["wb", "wc", "wd", "wtop"])


class Limits(Work):
    def limits(self, *more):
        out = self.v("blkdeviotune", "vda", *more)
        return {k: int(v) for k, v in re.findall(r"(\w+)\s*: (\d+)", out) if int(v)}

    def test_throttling(self):
        self.v("blkdeviotune", "vda", "--total-iops-sec", "5000", "--config")
        self.assertIn("<total_iops_sec>5000</total_iops_sec>", self.dom.XMLDesc())
        self.boot()
        self.assertEqual(self.limits(), {"total_iops_sec": 5000})
        rows = json.loads(self.v("qemu-monitor-command", '{"execute":"query-block"}'))["return"]
        self.assertEqual(rows[0]["inserted"]["iops"], 5000)
        self.v("blkdeviotune", "vda", "--read-bytes-sec", "1M", "--read-bytes-sec-max", "2M",
               "--read-bytes-sec-max-length", "3", "--live")
        self.assertEqual(self.limits(), {"total_iops_sec": 5000, "read_bytes_sec": 1 << 20,
                                         "read_bytes_sec_max": 2 << 20, "read_bytes_sec_max_length": 3})
        self.assertEqual(self.limits("--config"), {"total_iops_sec": 5000})
        file = self.path("d.xml")
        with open(file, "w") as f:
            f.write(self.dom.XMLDesc())
        subprocess.run(["virt-xml-validate", file, "domain"], check=True, capture_output=True)
        for words, args in (
                ("cannot be set at the same time", ["--total-bytes-sec", "1M", "--write-bytes-sec", "1M"]),
                ("must be set if", ["--write-iops-sec-max", "10"]),
                ("cannot be smaller than", ["--write-iops-sec", "10", "--write-iops-sec-max", "5"])):
            self.assertIn(words, self.v("blkdeviotune", "vda", *args, "--live", fails=True))
        self.restart()
        self.assertEqual(self.limits()["read_bytes_sec"], 1 << 20)
        # What was there goes on through a slow disk; no limit again.
        self.v("blkdeviotune", "vda", "--read-bytes-sec", "0", "--total-iops-sec", "0",
               "--read-bytes-sec-max", "0")
        self.assertEqual(self.limits(), {})
        self.assertNotIn("<iotune>", self.dom.XMLDesc())

    def test_threshold(self):
        """A write beyond an offset of the image's file is told of, once; also of what a snapshot has put there."""
        self.boot()
        seen = []
        self.conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD,
            lambda _c, _d, disk, path, limit, over, _o: seen.append((disk, os.path.basename(path), limit, over > 0)), None)
        index = re.search(r"a.qcow2' index='(\d+)'", self.dom.XMLDesc())[1]
        for words, args in (("No device found", ("vdz", "1M")), ("can't be set", (f"vda[{int(index) + 7}]", "1M"))):
            self.assertIn(words, self.v("domblkthreshold", *args, fails=True))
        self.v("domblkthreshold", "vda", "2M")
        self.say("dd if=/dev/urandom of=/dev/vda bs=64k count=8 conv=fsync 2>/dev/null")
        self.assertEqual(seen, [])
        self.say("dd if=/dev/urandom of=/dev/vda bs=64k count=80 conv=fsync 2>/dev/null")
        both = [("vda", "a.qcow2", 2 << 20, True), (f"vda[{index}]", "a.qcow2", 2 << 20, True)]
        manage.until(lambda: sorted(seen) == sorted(both), f"the event, {seen}")
        self.say("dd if=/dev/urandom of=/dev/vda bs=64k count=100 conv=fsync 2>/dev/null")
        self.assertEqual(len(seen), 2)
        self.v("snapshot-create-as", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={self.path('b')}")
        index = re.search(r"/b' index='(\d+)'", self.dom.XMLDesc())[1]
        p = subprocess.run([os.environ["LODGE"], "-c", self.daemon.uri, "domblkthreshold", self.name, f"vda[{index}]", "1MiB"],
                           capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.say("dd if=/dev/urandom of=/dev/vda bs=64k count=40 conv=fsync 2>/dev/null")
        manage.until(lambda: ("vda", "b", 1 << 20, True) in seen, f"the event of the new image, {seen}")

    def test_core_dump(self):
        self.boot()
        self.say("secret=in-memory-only")
        core = self.path("core")
        self.v("dump", core, "--memory-only")
        self.assertEqual(self.dom.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED])
        notes = subprocess.run(["readelf", "-hlnW", core], capture_output=True, text=True, check=True).stdout
        self.assertIn("CORE (Core file)", notes)
        self.assertRegex(notes, r"CORE\s+0x00000150\s+NT_PRSTATUS")
        self.assertRegex(notes, r"QEMU\s+0x000001b8")
        with open(core, "rb") as f:
            data = f.read()
        loads = [[int(x, 16) for x in row] for row in
                 re.findall(r"LOAD\s+(0x\w+) (0x\w+) (0x\w+) (0x\w+)", notes)]
        memory = sum(row[3] for row in loads if row[2] < 1 << 31)
        self.assertTrue(127 << 20 <= memory <= 128 << 20, notes)
        self.assertIn(b"in-memory-only", data)
        # The registers are those of the moment: CR3's page table is in the dump, the CPU in the kernel.
        at = data.index(b"QEMU\0\0\0\0") + 8
        registers = struct.unpack_from("<18Q", data, at + 8)
        control = struct.unpack_from("<6Q", data, at + 8 + 18 * 8 + 10 * 24)
        self.assertTrue(control[0] & 1 << 31 and control[4] & 1 << 5, control)
        self.assertTrue(any(row[2] <= control[3] & ~0xfff < row[2] + row[3] for row in loads), control)
        self.assertNotEqual(registers[16], 0)
        self.v("dump", core, "--memory-only", "--live", "--format", "elf")
        self.assertIn("--say--", self.say("echo --say--"))
        self.assertIn("unsupported dumpformat 'kdump-zlib'",
                      self.v("dump", core, "--memory-only", "--format", "kdump-zlib", fails=True))
        self.v("dump", self.path("whole"), "--reset")
        self.console.expect(UP)
        with open(self.path("whole"), "rb") as f:
            self.assertNotEqual(f.read(4), b"\x7fELF")
        self.v("dump", self.path("whole"), "--crash")
        self.assertEqual(self.dom.state(), [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED])


# Each in its turn, by virsh and by lodge, at a daemon of its own; {d} is the folder of the images.
LINES = """
snapshot-create-as both --no-metadata --disk-only --diskspec vda,file={d}/b n1 == Domain snapshot n1 created
snapshot-create-as both --no-metadata --disk-only --diskspec vda,file={d}/c n2 == Domain snapshot n2 created
blockcommit both vda !! invalid argument: commit of '{d}/c' active layer requires active flag
blockcommit both vda --top {d}/b --wait == Commit complete
blockcommit both vda --active --wait == Now in synchronized phase
blockjob both vda
blockjob both vda --info --raw == type=Active Block Commit bandwidth=0 cur=0 end=0
blockjob both vda --pivot
blockjob both vda == No current block job for vda
blockjob both vda --abort !! invalid argument: disk vda does not have an active block job
snapshot-create-as both --no-metadata --disk-only --diskspec vda,file={d}/d n3 == Domain snapshot n3 created
blockcommit both vda --keep-overlay == Commit complete, overlay image kept
blockcommit both vda --pivot == Successfully pivoted
blockcopy both vda --dest {d}/copy --format qcow2 --transient-job --print-xml => <source file='{d}/copy'/>
blockcopy both vda --dest {d}/copy --transient-job --finish == Successfully copied
blockcopy both vda --dest {d}/copy2 --transient-job --format raw --wait == Now in mirroring phase
blockjob both vda --abort
snapshot-create-as both --no-metadata --disk-only --diskspec vda,file={d}/g n4 == Domain snapshot n4 created
blockpull both vda --wait == Pull complete
blockpull both vda --base {d}/zz !! invalid argument: could not find image '{d}/zz' in chain for '{d}/g'
blockresize both vda 32M == Block device 'vda' is resized
domblkinfo both vda => Capacity: 33554432
blkdeviotune both vda => total_bytes_sec: 0 read_bytes_sec : 0 write_bytes_sec: 0 total_iops_sec :
blkdeviotune both vda --total-bytes-sec 1M --total-iops-sec 100
blkdeviotune both vda => total_bytes_sec: 1048576 .. total_iops_sec : 100
blkdeviotune both vda --read-bytes-sec 1M --total-bytes-sec 1M !! invalid argument: total and read/write of bytes_sec cannot be set at the
dump both {d}/core --memory-only == Domain 'both' dumped to {d}/core
dump both {d}/core --crash == Domain 'both' dumped to {d}/core
dump both {d}/core !! Requested operation is not valid: domain is not running
blockjob both vda !! Requested operation is not valid: domain is not running
""".strip().splitlines()


class Both(Work):
    def transcript(self, program):
        seen = []
        for line in LINES:
            line, check = manage.expectation(line)
            p = subprocess.run([program, "-c", self.daemon.uri, *line.format(d=self.folder).split()],
                               capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                               timeout=manage.PATIENCE, env={**os.environ, "LC_ALL": "C.UTF-8"})
            seen.append((line, check, p.returncode, p.stdout, p.stderr))
        return seen

    def test_both(self):
        """virsh and lodge print the same, on machines that are alike."""
        theirs, ours = None, None
        for program in ("virsh", os.environ["LODGE"]):
            self.boot()
            theirs, ours = ours, self.transcript(program)
            for name in os.listdir(self.folder):
                os.unlink(self.path(name))
            img("create", "-q", "-f", "qcow2", self.path("a.qcow2"), "16M")
            self.conn.defineXML(machine("both", devices="<console type='pty'/>" + self.disks()).replace(
                "</name>", f"</name><uuid>{self.dom.UUIDString()}</uuid>"))
        for one, other in zip(theirs, ours):
            with self.subTest(verb=one[0]):
                self.assertEqual(other[2:], one[2:])
                other[1]({"d": self.folder}, *other[2:])


class TwoDisks(Work):
    def disks(self):
        img("create", "-q", "-f", "raw", self.path("b.raw"), "8M")
        return super().disks() + DISK.format(format="raw", file=self.path("b.raw"), target="vdb")

    def test_all_or_none(self):
        self.boot()
        self.write(1, "wone", "vdb")
        self.v("snapshot-create-as", "s", "--disk-only", "--atomic")
        self.assertEqual(self.files(), ["a.s", "a.qcow2", "b.s", "b.raw"])
        self.assertIn("already exists", self.v("snapshot-create-as", "t", "--disk-only", "--diskspec",
                                               f"vdb,file={self.path('a.s')}", fails=True))
        self.assertEqual(self.files(), ["a.s", "a.qcow2", "b.s", "b.raw"])
        self.v("snapshot-create-as", "t", "--disk-only", "--diskspec", "vda,snapshot=no")
        self.assertEqual(self.files(), ["a.s", "a.qcow2", "b.t", "b.s", "b.raw"])


if __name__ == "__main__":
    unittest.main()
