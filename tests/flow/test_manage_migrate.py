#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration between two lodged on one machine, with virsh and python3-libvirt: led by the client
and by the source, of guests that run, are paused or off; what fails half-way leaves the guest where it was."""
import os
import pathlib
import re
import signal
import struct
import subprocess
import threading
import unittest

import libvirt

import manage
from test_manage_domain import Console, machine, started, UP

IMG, LODGE = os.environ["LODGE_IMG"], os.environ["LODGE"]


class ByHand:
    """libvirt's five steps, each when the test wants it; closing a connection is what the death of a client does to it."""
    LIVE, PAUSED, GUARD, UNSAFE = 1 << 0, 1 << 5, 1 << 8, 1 << 9

    def __init__(self, source, destination, dom, flags=LIVE | GUARD | UNSAFE):
        self.source, self.destination = manage.Wire(source.socket), manage.Wire(destination.socket)
        for wire in (self.source, self.destination):
            self.call(wire, 1, struct.pack(">II", 0, 0))  # open
        self.dom = self.text(dom.name()) + dom.UUID() + struct.pack(">i", dom.ID())
        self.name, self.flags = dom.name(), flags

    @staticmethod
    def text(value):
        value = value if isinstance(value, bytes) else value.encode()
        return struct.pack(">I", len(value)) + value + bytes(-len(value) % 4)

    @staticmethod
    def take(body):
        n, = struct.unpack_from(">I", body)
        return body[4:4 + n], body[4 + (n + 3) // 4 * 4:]

    def params(self, **texts):
        return struct.pack(">I", len(texts)) + b"".join(
            self.text(k) + struct.pack(">i", 7) + self.text(v) for k, v in texts.items())

    @staticmethod
    def call(wire, number, body):
        code, answer = wire.call(number, body)
        if code:
            raise AssertionError(f"procedure {number}: error {code}")
        return answer

    def perform(self):
        """Begin, prepare, perform: then the state is at the destination, and waits."""
        answer = self.call(self.source, 302, self.dom + self.params() + struct.pack(">I", self.flags))
        cookie, rest = self.take(answer)
        xml, _ = self.take(rest)
        answer = self.call(self.destination, 303, self.params(destination_name=self.name, destination_xml=xml) +
                           self.text(cookie) + struct.pack(">I", self.flags))
        cookie, rest = self.take(answer)
        uri, _ = self.take(rest[4:])
        answer = self.call(self.source, 305, self.dom + struct.pack(">I", 0) + self.params(migrate_uri=uri) +
                           self.text(cookie) + struct.pack(">I", self.flags))
        self.cookie, _ = self.take(answer)
        return self

    def finish(self, cancelled=False):
        """Whether it runs there."""
        code, _ = self.destination.call(306, self.params(destination_name=self.name) + self.text(self.cookie) +
                                        struct.pack(">Ii", self.flags, cancelled))
        return code == 0

    def confirm(self, cancelled=False):
        self.call(self.source, 307, self.dom + self.params() + self.text(b"") + struct.pack(">Ii", self.flags, cancelled))

    def close(self):
        self.source.close()
        self.destination.close()


class Moves(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a, cls.b = manage.Daemon(), manage.Daemon()
        cls.addClassCleanup(cls.a.close)
        cls.addClassCleanup(cls.b.close)
        cls.peer = f"qemu+unix://elsewhere/system?socket={cls.b.socket}"
        cls.shared = os.path.join(cls.a.root, "shared")
        os.mkdir(cls.shared, 0o755)

    def setUp(self):
        self.at_a, self.at_b = self.a.connect(), self.b.connect()
        self.addCleanup(self.at_a.close)
        self.addCleanup(self.at_b.close)

    def define(self, name, more="", **rest):
        dom = self.at_a.defineXML(machine(name, devices=f"<console type='pty'/>{more}", **rest))
        for daemon in (self.a, self.b):
            self.addCleanup(daemon.run_virsh, "undefine", name)
            self.addCleanup(daemon.run_virsh, "destroy", name)
        return dom

    def running(self, name, **more):
        dom = self.define(name, **more)
        console = started(self.at_a, dom)
        console.expect(UP)
        console.expect(b"# ")
        return dom, console

    def reason(self, daemon, name):
        return daemon.virsh("domstate", name, "--reason")

    def answers(self, name):
        """The shell at the destination is the one that was at the source."""
        console = Console(self.at_b, self.at_b.lookupByName(name))
        console.type(b"\necho it-is-$word\n")
        console.expect(b"it-is-kept")

    def test_a_counting_guest(self):
        """Every number is written once, by the source or by the destination, to a disk and aloud."""
        said, disk = os.path.join(self.shared, "said"), os.path.join(self.shared, "disk")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
        dom, console = self.running("counts", more=f"""
            <serial type='pty'><target port='0'/></serial>
            <serial type='file'><source path='{said}' append='on'/><target port='1'/></serial>
            <disk type='file'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda'/></disk>
            <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
            <interface type='user'><model type='virtio'/></interface><graphics type='vnc'/>""")
        console.type(b"word=kept; i=0; while :; do i=$((i+1)); echo $i; echo $i | dd of=/dev/vda conv=notrunc "
                     b"2>/dev/null; done >/dev/ttyS1 &\n")

        def last():
            return int(pathlib.Path(said).read_text().split()[-1])
        manage.until(lambda: os.path.getsize(said) > 20 and last() > 5, "it counts")
        self.assertIn("Unsafe migration: Migration without shared storage is unsafe",
                      self.a.virsh("migrate", "--live", "counts", self.b.uri, fails=True))
        self.assertEqual(self.reason(self.a, "counts"), "running (unpaused)")
        before = last()
        self.a.virsh("migrate", "--live", "--unsafe", "--persistent", "--verbose", "counts", self.b.uri)
        self.assertEqual(self.reason(self.a, "counts"), "shut off (migrated)")
        self.assertEqual(self.reason(self.b, "counts"), "running (migrated)")
        self.assertTrue(self.at_b.lookupByName("counts").isPersistent())
        manage.until(lambda: last() > before + 5, "it goes on counting")
        self.answers("counts")
        for daemon, operation in ((self.a, "Outgoing migration"), (self.b, "Incoming migration")):
            info = daemon.virsh("domjobinfo", "counts", "--completed")
            self.assertRegex(info, r"Job type: +Completed")
            self.assertRegex(info, f"Operation: +{operation}")
        self.assertIn("Job type:         None", self.b.virsh("domjobinfo", "counts"))
        self.a.virsh("undefine", "counts")
        self.b.virsh("migrate", "--live", "--unsafe", "--persistent", "--undefinesource", "counts",
                     self.a.uri, "--migrateuri", "tcp://127.0.0.1")
        self.assertIn("failed to get domain", self.b.virsh("domstate", "counts", fails=True))
        self.assertEqual(self.reason(self.a, "counts"), "running (migrated)")
        self.a.virsh("destroy", "counts")
        numbers = pathlib.Path(said).read_text().split("\n")[:-1]
        self.assertEqual([int(n) for n in numbers], list(range(1, len(numbers) + 1)))
        check = subprocess.run([IMG, "check", disk], capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stdout)
        first = subprocess.run([IMG, "dd", "-O", "raw", f"if={disk}", f"of={disk}.raw", "bs=512", "count=1"])
        self.assertEqual(first.returncode, 0)
        written = int(pathlib.Path(disk + ".raw").read_bytes().split()[0])
        self.assertIn(written, range(len(numbers) - 3, len(numbers) + 3))

    def test_led_by_the_source(self):
        """Peer to peer, also through the managers' own connection; other names, other XML; paused guests; plain parameters."""
        _, console = self.running("leads")
        console.type(b"word=kept; echo re''ady\n")
        console.expect(b"\nready")
        here = f"qemu+unix://elsewhere/system?socket={self.a.socket}"
        self.a.virsh("migrate", "--live", "--p2p", "--dname", "led", "leads", self.peer)
        self.assertEqual(self.reason(self.a, "leads"), "shut off (migrated)")
        self.assertEqual(self.reason(self.b, "led"), "running (migrated)")
        self.answers("led")
        self.b.virsh("suspend", "led")
        self.b.virsh("migrate", "--live", "--p2p", "--tunnelled", "--dname", "leads", "led", here)
        self.assertIn("failed to get domain", self.b.virsh("domstate", "led", fails=True))
        self.assertEqual(self.a.virsh("domstate", "leads"), "paused")
        self.a.virsh("resume", "leads")
        xml = os.path.join(self.shared, "leads.xml")
        text = self.a.virsh("dumpxml", "--migratable", "leads")
        pathlib.Path(xml).write_text(text.replace("<os>", "<title>moved</title><os>"))
        self.a.virsh("migrate", "leads", self.b.uri, "--xml", xml)  # not live: it stands still meanwhile
        self.assertEqual(self.b.virsh("desc", "--title", "leads"), "moved")
        self.answers("leads")
        dom = self.at_b.lookupByName("leads")  # what virDomainMigrate() and migrate2() send
        self.assertEqual(dom.migrate(self.at_a, libvirt.VIR_MIGRATE_LIVE, None, None, 0).state()[0],
                         libvirt.VIR_DOMAIN_RUNNING)

    def test_our_own_shell(self):
        """lodge's verbs do and print what virsh's do."""
        _, console = self.running("shell")
        console.type(b"word=kept; echo re''ady\n")
        console.expect(b"\nready")

        def both(*words):
            theirs = self.a.run_virsh(*words)
            ours = subprocess.run([LODGE, "-c", self.a.uri, *words], capture_output=True, text=True,
                                  timeout=manage.PATIENCE, stdin=subprocess.DEVNULL)
            self.assertEqual((ours.returncode, ours.stdout, ours.stderr),
                             (theirs.returncode, theirs.stdout, theirs.stderr), words)
            return ours

        both("migrate-setspeed", "shell", "700")
        both("migrate-getspeed", "shell")
        both("migrate-setmaxdowntime", "shell", "250")
        both("migrate-getmaxdowntime", "shell")
        both("domjobinfo", "shell")
        both("domjobabort", "shell")
        both("migrate", "--live", "--postcopy", "shell", self.b.uri)
        both("migrate", "--offline", "shell", self.b.uri)
        both("migrate", "--timeout", "3", "shell", self.b.uri)
        both("migrate", "--live", "--timeout-suspend", "shell", self.b.uri)
        both("migrate", "--live", "--copy-storage-all", "--migrate-disks", "vdy,vdz", "shell", self.b.uri)
        moved = subprocess.run([LODGE, "-c", self.a.uri, "migrate", "--live", "--persistent", "shell", self.b.uri],
                               capture_output=True, text=True, timeout=manage.PATIENCE)
        self.assertEqual((moved.returncode, moved.stderr), (0, ""))
        self.assertEqual(self.reason(self.b, "shell"), "running (migrated)")
        self.assertEqual(self.reason(self.a, "shell"), "shut off (migrated)")
        both("domjobinfo", "shell", "--completed", "--keep-completed")
        self.answers("shell")
        here = f"qemu+unix://elsewhere/system?socket={self.a.socket}"
        back = subprocess.run([LODGE, "-c", self.b.uri, "migrate", "--p2p", "--live", "shell", here],
                              capture_output=True, text=True, timeout=manage.PATIENCE)
        self.assertEqual((back.returncode, back.stderr), (0, ""))
        self.assertEqual(self.reason(self.a, "shell"), "running (migrated)")
        # Too slow for its patience: the guest stands still until it is there.
        self.a.virsh("migrate-setspeed", "shell", "2")
        slow = subprocess.Popen([LODGE, "-c", self.a.uri, "migrate", "--live", "--verbose", "--timeout", "1", "shell",
                                 self.b.uri], stderr=subprocess.PIPE, text=True)
        manage.until(lambda: self.a.virsh("domstate", "shell") == "paused", "it is suspended")
        self.a.virsh("migrate-setspeed", "shell", "0")
        self.assertRegex(slow.communicate(timeout=manage.PATIENCE)[1], r"^(\nMigration: \[ *\d+ %\])*\nMigration: \[100 %\]$")
        self.assertEqual((slow.returncode, self.reason(self.b, "shell")), (0, "running (migrated)"))
        self.answers("shell")

    def test_copying_disks(self):
        """Disks that the hosts do not share go along while the guest writes; what fails leaves nothing there."""
        def disk(where):
            return os.path.join(self.shared, where)
        for name in ("here.qcow2", "base.qcow2"):
            subprocess.run([IMG, "create", "-q", "-f", "qcow2", disk(name), "16M"], check=True)
        _, console = self.running("copies", more=f"""
            <disk type='file'><driver name='qemu' type='qcow2'/><source file='{disk("here.qcow2")}'/><target dev='vda'/></disk>""")
        console.type(b"word=kept; dd if=/dev/urandom of=/dev/vda bs=64k count=100 2>/dev/null; sync; md5sum /dev/vda | "
                     b"cut -c1-32 >/sum; i=0; while :; do i=$((i+1)); echo $i | dd of=/dev/vda bs=512 seek=20000 "
                     b"conv=notrunc,fsync 2>/dev/null; done & sleep 1; echo re''ady\n")
        console.expect(b"\nready")

        def xml(daemon, old, new):
            text = daemon.virsh("dumpxml", "--migratable", "copies")
            self.assertIn(old, text)
            file = os.path.join(self.shared, "copies.xml")
            pathlib.Path(file).write_text(text.replace(disk(old), disk(new)))
            return file
        there = xml(self.a, "here.qcow2", "there.qcow2")
        self.assertIn("is missing", self.a.virsh("migrate", "--live", "copies", self.b.uri, "--copy-storage-inc", "--xml",
                                                 there, fails=True))
        self.assertIn("disk target vdz not found", self.a.virsh(
            "migrate", "--live", "copies", self.b.uri, "--copy-storage-all", "--migrate-disks", "vdz", "--unsafe", "--xml",
            there, fails=True))
        # Given up in the middle of the copy.
        self.a.virsh("migrate-setspeed", "copies", "1")
        mover = subprocess.Popen(["virsh", "-c", self.a.uri, "migrate", "--live", "copies", self.b.uri,
                                  "--copy-storage-all", "--xml", there], stderr=subprocess.PIPE, text=True)
        manage.until(lambda: os.path.exists(disk("there.qcow2")) and "Unbounded" in self.a.virsh("domjobinfo", "copies"),
                     "it is on its way")
        self.a.virsh("domjobabort", "copies")
        self.assertIn("canceled by client", mover.communicate()[1])
        manage.until(lambda: not os.path.exists(disk("there.qcow2")), "the half image is gone")
        self.assertEqual(self.reason(self.a, "copies"), "running (unpaused)")
        self.a.virsh("migrate-setspeed", "copies", "0")
        # Led by the client, then back by the source, into an image over a base that is there.
        self.a.virsh("migrate", "--live", "copies", self.b.uri, "--copy-storage-all", "--xml", there)
        self.assertEqual(self.reason(self.b, "copies"), "running (migrated)")
        self.answers("copies")
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", "-b", disk("base.qcow2"), "-F", "qcow2", disk("back.qcow2")],
                       check=True)
        here = f"qemu+unix://elsewhere/system?socket={self.a.socket}"
        self.b.virsh("migrate", "--live", "--p2p", "copies", here, "--copy-storage-inc", "--xml",
                     xml(self.b, "there.qcow2", "back.qcow2"))
        self.assertEqual(self.reason(self.a, "copies"), "running (migrated)")
        console = Console(self.at_a, self.at_a.lookupByName("copies"))
        console.type(b"\nkill %1; sync; a=$(dd if=/dev/vda bs=512 skip=20000 count=1 2>/dev/null | head -n1 | tr -d '\\0'); "
                     b"[ $a -gt 3 ] && echo counts-well; dd if=/dev/zero of=/dev/vda bs=512 seek=20000 count=1 "
                     b"conv=notrunc,fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; md5sum /dev/vda | cut -c1-32 | "
                     b"cmp - /sum && echo sum-is-''same\n")
        console.expect(b"sum-is-same")
        self.assertIn(b"counts-well", console.seen)
        self.a.virsh("destroy", "copies")
        for name in ("there.qcow2", "back.qcow2"):
            check = subprocess.run([IMG, "check", disk(name)], capture_output=True, text=True)
            self.assertEqual(check.returncode, 0, check.stdout)

    def test_a_full_disk_there(self):
        """The copy of a disk fails in the middle, or from the start: the guest loses nothing and goes on here."""
        here, small = os.path.join(self.shared, "full.qcow2"), os.path.join(self.shared, "small")
        there, xml = os.path.join(small, "full.qcow2"), os.path.join(self.shared, "full.xml")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", small], check=False).returncode:
            manage.leave_out(self, "a tmpfs cannot be mounted")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=True)
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", here, "3M"], check=True)
        dom, console = self.running("full", more=f"""
            <disk type='file'><driver name='qemu' type='qcow2'/><source file='{here}'/><target dev='vda'/></disk>""")
        pathlib.Path(xml).write_text(self.a.virsh("dumpxml", "--migratable", "full").replace(here, there))
        move = ("virsh", "-c", self.a.uri, "migrate", "--live", "full", self.b.uri, "--copy-storage-all", "--xml", xml)

        def fails(mover):
            self.assertRegex(mover.communicate()[1], "migration of disk vda to the destination failed: .*[Ss]pace")
            self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
            self.assertIn("Job type:         None", self.a.virsh("domjobinfo", "full"))
            manage.until(lambda: "full" not in self.b.virsh("list", "--all") and not os.path.exists(there), "all is gone")

        self.a.virsh("migrate-setspeed", "full", "1")
        mover = subprocess.Popen(move, stderr=subprocess.PIPE, text=True)
        manage.until(lambda: mover.poll() is not None or re.search(r"Memory total: +1\d\d", self.a.virsh("domjobinfo", "full")),
                     "the memory is on its way")
        console.type(b"dd if=/dev/urandom of=/vda bs=64k count=48 2>/dev/null; dd if=/vda of=/dev/vda bs=64k conv=fsync "
                     b"2>/dev/null && echo wri''tten\n")
        fails(mover)
        console.expect(b"written")
        self.a.virsh("migrate-setspeed", "full", "0")
        fails(subprocess.Popen(move, stderr=subprocess.PIPE, text=True))
        console.type(b"echo 3 >/proc/sys/vm/drop_caches; cmp /dev/vda /vda && echo sa''me\n")
        console.expect(b"same")

    def test_other_ways(self):
        """A UNIX socket, a name of its own there, suspended or given up when it lasts too long."""
        dom, console = self.running("ways")
        console.type(b"word=kept; echo re''ady\n")
        console.expect(b"\nready")
        self.a.virsh("migrate-setspeed", "ways", "1")
        # Too slow: the source stops the guest, which then goes.
        self.a.virsh("migrate", "--live", "ways", self.b.uri, "--timeout", "1", "--timeout-suspend", "--migrateuri",
                     "tcp://127.0.0.1", "--bandwidth", "200", "--abort-on-error", "--change-protection", "--verbose")
        self.assertIn(self.b.virsh("domstate", "ways"), ("running", "paused"))
        self.b.run_virsh("resume", "ways")
        self.a.virsh("undefine", "ways")
        door = os.path.join(self.shared, "door")
        self.b.virsh("migrate", "--live", "ways", self.a.uri, "--migrateuri", f"unix://{door}", "--suspend", "--dname",
                     "paths", "--persistent")
        self.assertFalse(os.path.exists(door))
        self.assertEqual(self.a.virsh("domstate", "paths"), "paused")
        self.assertIn("failed to get domain", self.b.virsh("domstate", "ways", fails=True))
        self.a.virsh("destroy", "paths")
        self.a.virsh("undefine", "paths")

    def test_killed_in_the_middle(self):
        """Whichever lodged dies: the guest runs on at the source, nothing is left at the destination."""
        here, there = os.path.join(self.shared, "mine.raw"), os.path.join(self.shared, "yours.raw")
        with open(here, "wb") as f:
            f.write(os.urandom(8 << 20))
        _, console = self.running("lives", more=f"<disk type='file'><driver name='qemu' type='raw'/><source file='{here}'/>"
                                                "<target dev='vda'/></disk>")
        console.type(b"word=kept; echo re''ady\n")
        console.expect(b"\nready")
        xml = os.path.join(self.shared, "lives.xml")
        pathlib.Path(xml).write_text(self.a.virsh("dumpxml", "--migratable", "lives").replace(here, there))

        def busy():
            return "Unbounded" in self.a.virsh("domjobinfo", "lives")

        def begin(*options):
            mover = subprocess.Popen(["virsh", "-c", self.a.uri, "migrate", "--live", "lives", self.b.uri, *options],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            manage.until(busy, "it is on its way")
            return mover

        def nothing_there():
            return "lives" not in self.b.virsh("list", "--all", "--name").split() and not os.path.exists(there)

        copy = ("--copy-storage-all", "--xml", xml)
        for what, victim, options in (("the source copies disks", "a", copy), ("the target takes disks", "b", copy),
                                      ("the state comes", "b", ("--unsafe",)), ("the state is here", "b", ("--unsafe",))):
            with self.subTest(what=what):
                self.a.virsh("migrate-setspeed", "lives", "1")
                mover, daemon = begin(*options), getattr(self, victim)
                if options is copy:
                    manage.until(lambda: os.path.exists(there), "the image is made")
                daemon.kill()
                if what == "the state is here":
                    self.a.virsh("migrate-setspeed", "lives", "0")
                    mover.wait()
                daemon.start()
                mover.wait()
                self.at_a, self.at_b = self.a.connect(), self.b.connect()
                manage.until(nothing_there, "nothing is there")
                manage.until(lambda: not busy(), "nothing is under way")
                manage.until(lambda: self.a.virsh("domstate", "lives") == "running", "it runs here")
                console = Console(self.at_a, self.at_a.lookupByName("lives"))
                console.type(b"\necho still-$((6*7))\n")
                console.expect(b"still-42")
        # And can go after all.
        self.a.virsh("migrate-setspeed", "lives", "0")
        self.a.virsh("migrate", "--live", "lives", self.b.uri, *copy)
        self.answers("lives")

    def test_between_the_steps(self):
        """Whoever dies when the state is there already: one of the two runs it, and the other never will."""
        _, console = self.running("once")
        console.type(b"word=kept; echo re''ady\n")
        console.expect(b"\nready")
        console.stream.abort()  # two who read one console have half of it each

        def move(source=self.a, destination=self.b, **more):
            conn = source.connect()
            self.addCleanup(conn.close)
            by = ByHand(source, destination, conn.lookupByName("once"), **more).perform()
            self.addCleanup(by.close)
            self.assertEqual(self.reason(source, "once"), "paused (migrating)")
            self.assertEqual(self.reason(destination, "once"), "paused (migrating)")
            return by

        def here():
            manage.until(lambda: "once" not in self.b.virsh("list", "--all", "--name").split(), "nothing is there")
            manage.until(lambda: self.a.virsh("domstate", "once") == "running", "it runs here")
            self.assertIn("Job type:         None", self.a.virsh("domjobinfo", "once"))
            conn = self.a.connect()
            console = Console(conn, conn.lookupByName("once"))
            console.type(b"\necho $word-$((6*7))\n")
            console.expect(b"kept-42")
            console.stream.abort()
            conn.close()

        uuid = self.at_a.lookupByName("once").UUIDString()
        with self.subTest("the client's connection to the source"):
            by = move()
            by.source.close()
            here()
            self.assertFalse(by.finish())
        with self.subTest("the source's lodged"):
            by = move()
            self.a.kill()
            self.a.start()
            here()
            self.assertFalse(by.finish())
        with self.subTest("the destination's lodged"):
            by = move()
            self.b.kill()
            self.b.start()
            manage.until(lambda: "once" not in self.b.virsh("list", "--all", "--name").split(), "it is dropped")
            by.confirm(cancelled=True)
            here()
        with self.subTest("the destination's machine"):
            by = move()
            os.kill(self.b.pid(uuid), signal.SIGKILL)
            manage.until(lambda: not by.finish(), "it is not there")
            by.confirm(cancelled=True)
            here()
        with self.subTest("an abort that comes too late to be one"):
            by = move()
            by.confirm(cancelled=True)
            self.assertFalse(by.finish())
            here()

        def stays_there(source, destination):
            """The source may not run it, whoever wants that."""
            for verb in ("resume", "domjobabort", "save"):
                more = [os.path.join(self.shared, "once.saved")] if verb == "save" else []
                self.assertIn("the machine runs at the migration's destination",
                              source.virsh(verb, "once", *more, fails=True), verb)
                self.assertEqual(self.reason(source, "once"), "paused (migrating)")
            self.assertFalse(os.path.exists(os.path.join(self.shared, "once.saved")))

        with self.subTest("the client's connection to the destination, before it hears that all is well"):
            by = move()
            self.assertTrue(by.finish())
            self.assertEqual(self.reason(self.b, "once"), "running (migrated)")
            by.confirm(cancelled=True)  # libvirt's clients take silence for a failure
            stays_there(self.a, self.b)
            self.a.kill()
            self.a.start()
            manage.until(lambda: "stays paused" in self.a.log().rsplit("ready in", 1)[1], "it is asked for")
            stays_there(self.a, self.b)
            self.a.virsh("destroy", "once")
            self.at_b = self.b.connect()
            self.answers("once")
        with self.subTest("the source, and the guest is to stand still"):
            by = move(self.b, self.a, flags=ByHand.LIVE | ByHand.GUARD | ByHand.PAUSED)
            self.assertTrue(by.finish())
            self.assertEqual(self.reason(self.a, "once"), "paused (user)")
            by.source.close()
            manage.until(lambda: "stays paused" in self.b.log().rsplit("ready in", 1)[1], "it is asked for")
            stays_there(self.b, self.a)
            self.b.virsh("destroy", "once")
            self.a.virsh("resume", "once")
            here()
        with self.subTest("the source's machine"):
            by = move()
            os.kill(self.a.pid(uuid), signal.SIGKILL)
            manage.until(lambda: self.a.virsh("domstate", "once") == "shut off", "its end is noticed")
            self.assertTrue(by.finish())
            self.assertEqual(self.reason(self.b, "once"), "running (migrated)")
            self.answers("once")

    def test_off(self):
        self.define("off")
        self.assertIn("persistent flag", self.a.virsh("migrate", "--offline", "off", self.b.uri, fails=True))
        self.a.virsh("migrate", "--offline", "--persistent", "--undefinesource", "off", self.b.uri)
        self.assertEqual(self.b.virsh("domstate", "off"), "shut off")
        self.assertIn("failed to get domain", self.a.virsh("domstate", "off", fails=True))
        self.assertIn("not running", self.b.virsh("migrate", "--live", "off", self.a.uri, fails=True))

    def test_what_goes_wrong(self):
        """Whatever it is: the guest runs on where it was, and nothing is left at the other side."""
        dom, console = self.running("stays")

        def still_here(*state):
            self.assertIn(dom.state()[0], state or (libvirt.VIR_DOMAIN_RUNNING,))
            manage.until(lambda: "stays" not in self.b.virsh("list", "--all"), "nothing is left")
            self.assertIn("Job type:         None", self.a.virsh("domjobinfo", "stays"))

        for options, words in ((("--listen-address", "192.0.2.7"), "cannot listen for the migration"),
                               (("--migrateuri", "tcp://[::1]:49150", "--listen-address", "127.0.0.1"),
                                "unable to connect to"),
                               (("--migrateuri", "rdma://x"), "unsupported migration URI"),
                               (("--copy-storage-all", "--tunnelled", "--p2p"), "copying of storage is not supported with tunnelled"),
                               (("--copy-storage-synchronous-writes", "--copy-storage-all"), "synchronous writes is not supported"),
                               (("--tls",), "TLS of the migration's own connection is not supported"),
                               (("--parallel",), "several connections is not supported"),
                               (("--auto-converge",), "auto-convergence is not supported"),
                               (("--postcopy",), "post-copy is not supported"),
                               (("--compressed",), "compression is not supported"),
                               (("--tunnelled",), "peer2peer")):
            with self.subTest(options=options):
                uri = self.peer if "--p2p" in options else self.b.uri
                text = self.a.virsh("migrate", "--live", "stays", uri, *options, fails=True)
                self.assertRegex(text, words)
                still_here()
        with manage.Daemon("-o", "migration.host=" + "x" * 70, "-o", "migration.first_port=49300",
                           "-o", "migration.last_port=49399") as named:
            text = self.a.virsh("migrate", "--live", "stays", named.uri, fails=True)
            self.assertRegex(text, "unable to connect to 'tcp:x{70}:493[0-9][0-9]': No route to host")
            still_here()
        self.assertIn("cannot connect",
                      self.a.virsh("migrate", "--live", "--p2p", "stays",
                                   "qemu+unix://elsewhere/system?socket=/nowhere", fails=True))
        still_here()
        # Slow enough for things to happen on the way.
        self.a.virsh("migrate-setspeed", "stays", "1")
        self.assertEqual(self.a.virsh("migrate-getspeed", "stays"), "1")
        self.a.virsh("migrate-setmaxdowntime", "stays", "100")
        self.assertEqual(self.a.virsh("migrate-getmaxdowntime", "stays"), "100")

        def moving():
            return "Unbounded" in self.a.virsh("domjobinfo", "stays")

        def in_thread(*options):
            result = []
            thread = threading.Thread(target=lambda: result.append(self.a.run_virsh(
                "migrate", "--live", "stays", self.b.uri, *options)))
            thread.start()
            manage.until(moving, "it is on its way")
            return thread, result

        thread, result = in_thread()
        manage.until(lambda: re.search(r"Memory total: +1\d\d", self.a.virsh("domjobinfo", "stays")),
                     "figures of the move")
        self.assertEqual(self.b.virsh("domstate", "--reason", "stays"), "paused (migrating)")
        self.a.virsh("domjobabort", "stays")
        thread.join()
        self.assertIn("canceled by client", result[0].stderr)
        still_here()
        with self.assertRaisesRegex(libvirt.libvirtError, "unable to connect"):
            dom.migrate3(self.at_b, {"migrate_uri": "tcp://[::1]:49150", "listen_address": "127.0.0.1"},
                         libvirt.VIR_MIGRATE_LIVE)
        dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "still here", None, None, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        thread, result = in_thread()  # the destination's machine dies
        self.b.virsh("destroy", "stays")
        thread.join()
        self.assertIn("migration out job", result[0].stderr)
        still_here()
        leader = subprocess.Popen(["virsh", "-c", self.a.uri, "migrate", "--live", "stays", self.b.uri],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        manage.until(moving, "it is on its way")
        leader.kill()  # who led it vanishes
        leader.wait()
        manage.until(lambda: not moving(), "the move is given up")
        still_here()
        thread, result = in_thread()  # its user suspends it, which may not undo itself
        self.a.virsh("suspend", "stays")
        self.a.virsh("domjobabort", "stays")
        thread.join()
        still_here(libvirt.VIR_DOMAIN_PAUSED)
        self.assertEqual(self.reason(self.a, "stays"), "paused (user)")
        self.a.virsh("resume", "stays")
        console.type(b"echo still-$((6*7))\n")
        console.expect(b"still-42")


if __name__ == "__main__":
    unittest.main()
