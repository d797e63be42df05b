# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps, backups of a drive that is written to, and what NBD clients see of it; checked with Debian's
qemu-img, nbdinfo and nbdcopy."""
import json
import os
import subprocess
import tempfile
import unittest

from vm import Vm, until

IMG = os.environ["LODGE_IMG"]
KIB, MIB = 1 << 10, 1 << 20


def run(*args, code=0):
    p = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert p.returncode == code, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout


def img(*args, **more):
    return run(IMG, *args, **more)


class Backup(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-backup-")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def machine(self, name="a", size="32M", fmt="qcow2"):
        if not os.path.exists(self.path(name)):
            img("create", "-q", "-f", fmt, self.path(name), size)
        return Vm("-S", "-blockdev", f"{fmt},node-name=d,file.driver=file,file.filename={self.path(name)}",
                  "-device", "virtio-blk-pci,drive=d,id=disk")

    def io(self, vm, *commands):
        for c in commands:
            out = vm.ok("human-monitor-command", **{"command-line": f'qemu-io d "{c}"'})
            self.assertNotIn("failed", out)

    def error(self, vm, command, **arguments):
        return vm.refused(command, **arguments)["desc"]

    def bitmaps(self, vm):
        return {b["name"]: (b["count"], b["recording"], b["persistent"])
                for b in vm.ok("query-block")[0]["inserted"].get("dirty-bitmaps", [])}

    def add(self, vm, name, **more):
        vm.ok("block-dirty-bitmap-add", node="d", name=name, **more)

    def node(self, vm, name, *create, fmt="qcow2"):
        img("create", "-q", "-f", fmt, *create, self.path(name), "32M")
        vm.ok("blockdev-add", **{"driver": fmt, "node-name": name, "backing": None,
                                 "file": {"driver": "file", "filename": self.path(name)}})

    def end(self, vm, *images):
        vm.ok("quit")
        vm.wait_exit()
        for name in images:
            run("qemu-img", "check", "-q", self.path(name))

    def test_bitmaps_record_and_last(self):
        with self.machine() as vm:
            self.add(vm, "kept", persistent=True)
            self.add(vm, "fine", granularity=4096)
            self.add(vm, "off", disabled=True, persistent=True)
            # New space, space that is there, zeroes, and what goes the quick way.
            self.io(vm, "write -P 1 0 64k", "write -P 2 0 4k", "write -z 8M 128k", "write -P 3 16M 4k",
                    "write -P 3 16M 4k")
            self.assertEqual(self.bitmaps(vm), {"kept": (4 * 64 * KIB, True, True),
                                                "fine": (64 * KIB + 128 * KIB + 4 * KIB, True, False),
                                                "off": (0, False, True)})
            for words, command, args in (
                    ("already exists", "block-dirty-bitmap-add", {"name": "kept"}),
                    ("not found", "block-dirty-bitmap-clear", {"name": "x"}),
                    ("power of two", "block-dirty-bitmap-add", {"name": "x", "granularity": 1000}),
                    ("1 to 1023", "block-dirty-bitmap-add", {"name": ""})):
                self.assertIn(words, self.error(vm, command, node="d", **args))
            self.assertIn("Cannot find", self.error(vm, "block-dirty-bitmap-add", node="x", name="y"))
            vm.ok("block-dirty-bitmap-merge", node="d", target="off", bitmaps=["kept", {"node": "d", "name": "fine"}])
            vm.ok("block-dirty-bitmap-disable", node="d", name="kept")
            vm.ok("block-dirty-bitmap-clear", node="d", name="fine")
            self.io(vm, "write -P 4 20M 4k")
            now = self.bitmaps(vm)
            self.assertEqual((now["kept"][0], now["fine"][0], now["off"][0]), (4 * 64 * KIB, 4096, 4 * 64 * KIB))
            # All of a transaction or nothing.
            actions = [("add", {"name": "new"}), ("clear", {"name": "off"}), ("enable", {"name": "kept"}),
                       ("merge", {"target": "kept", "bitmaps": ["fine"]}), ("remove", {"name": "fine"})]
            actions = [{"type": "block-dirty-bitmap-" + t, "data": {"node": "d", **a}} for t, a in actions]
            bad = {"type": "block-dirty-bitmap-remove", "data": {"node": "d", "name": "nowhere"}}
            self.assertIn("not found", self.error(vm, "transaction", actions=actions + [bad]))
            self.assertEqual(self.bitmaps(vm), now)
            vm.ok("transaction", actions=actions)
            self.assertEqual(self.bitmaps(vm), {"kept": (5 * 64 * KIB, True, True), "off": (0, False, True),
                                                "new": (0, True, False)})
            self.end(vm, "a")
        listed = json.loads(run("qemu-img", "info", "--output=json", self.path("a")))["format-specific"]["data"]
        self.assertEqual(sorted((b["name"], b["flags"]) for b in listed["bitmaps"]), [("kept", ["auto"]), ("off", [])])
        with self.machine() as vm:
            self.assertEqual(self.bitmaps(vm), {"kept": (5 * 64 * KIB, True, True), "off": (0, False, True)})
            self.io(vm, "write -P 5 24M 4k", "write -P 5 24M 4k")
            self.assertEqual(self.bitmaps(vm)["kept"][0], 6 * 64 * KIB)
            vm.process.kill()  # a power cut: nobody may trust what was recorded
            vm.process.wait()
        with self.machine() as vm:
            one = [b for b in vm.ok("query-block")[0]["inserted"]["dirty-bitmaps"] if b["name"] == "kept"]
            self.assertTrue(one[0]["inconsistent"])
            self.assertIn("inconsistent", self.error(vm, "block-dirty-bitmap-clear", node="d", name="kept"))
            vm.ok("block-dirty-bitmap-remove", node="d", name="kept")
            self.end(vm, "a")

    def test_incremental(self):
        """A full copy, then what has changed since, twice; a job that is given up loses nothing."""
        with self.machine() as vm:
            self.io(vm, "write -P 1 0 8M")
            self.node(vm, "full")
            vm.ok("transaction", actions=[
                {"type": "block-dirty-bitmap-add", "data": {"node": "d", "name": "b", "persistent": True}},
                {"type": "blockdev-backup", "data": {"device": "d", "target": "full", "sync": "full",
                                                     "job-id": "j", "speed": 4 << 20}}])
            self.io(vm, "write -P 2 2M 1M", "write -P 2 30M 64k")  # before it is copied, perhaps
            self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
            self.assertEqual(self.bitmaps(vm)["b"][0], 1 * MIB + 64 * KIB)
            self.assertIn("bitmap name", self.error(vm, "drive-backup", device="d", target=self.path("x"), sync="incremental"))
            self.node(vm, "one", "-u", "-b", self.path("full"), "-F", "qcow2")
            vm.ok("blockdev-backup", device="d", target="one", sync="incremental", bitmap="b", speed=1, **{"job-id": "j"})
            self.io(vm, "write -P 3 4M 64k")
            vm.events.clear()
            vm.ok("block-job-cancel", device="j", force=True)
            vm.wait_event("BLOCK_JOB_CANCELLED")
            self.assertEqual(self.bitmaps(vm)["b"][0], 1 * MIB + 128 * KIB)
            vm.events.clear()
            self.node(vm, "two", "-u", "-b", self.path("full"), "-F", "qcow2")
            vm.ok("blockdev-backup", device="d", target="two", sync="incremental", bitmap="b", **{"job-id": "j"})
            done = vm.wait_event("BLOCK_JOB_COMPLETED")["data"]
            self.assertEqual((done["len"], done["offset"]), (1 * MIB + 128 * KIB, 1 * MIB + 128 * KIB))
            self.assertEqual(self.bitmaps(vm)["b"][0], 0)
            vm.events.clear()
            self.end(vm, "a", "full", "two")
        with self.machine() as vm:
            self.io(vm, "write -P 4 6M 64k")
            self.node(vm, "three", "-u", "-b", self.path("two"), "-F", "qcow2")
            vm.ok("blockdev-backup", device="d", target="three", sync="bitmap", bitmap="b", **{
                "bitmap-mode": "never", "job-id": "j"})
            vm.wait_event("BLOCK_JOB_COMPLETED")
            self.assertEqual(self.bitmaps(vm)["b"][0], 64 * KIB)
            self.end(vm, "a")
        run("qemu-img", "compare", "-q", self.path("a"), self.path("three"))
        run("qemu-img", "compare", "-q", self.path("full"), self.path("three"), code=1)

    def test_export_of_then(self):
        """NBD clients read the drive as it was, and which parts have changed, while it is written to."""
        sock = self.path("nbd")
        with self.machine() as vm:
            self.io(vm, "write -P 1 0 8M")
            self.add(vm, "b")
            self.io(vm, "write -P 2 1M 1M", "write -P 2 5M 64k")
            vm.ok("block-dirty-bitmap-add", node="d", name="frozen", disabled=True)
            self.node(vm, "scratch")
            vm.ok("transaction", actions=[
                {"type": "block-dirty-bitmap-merge", "data": {"node": "d", "target": "frozen", "bitmaps": ["b"]}},
                {"type": "blockdev-backup", "data": {"device": "d", "target": "scratch", "sync": "none", "job-id": "j"}}])
            self.assertIn("not running", self.error(vm, "block-export-add", type="nbd", id="e", **{"node-name": "scratch"}))
            vm.ok("nbd-server-start", addr={"type": "unix", "data": {"path": sock}})
            self.assertIn("already running", self.error(vm, "nbd-server-start", addr={"type": "unix", "data": {"path": sock}}))
            vm.ok("block-export-add", type="nbd", id="e", name="vda", bitmaps=["frozen"], **{"node-name": "scratch"})
            self.assertIn("read-only", self.error(vm, "block-export-add", type="nbd", id="f", writable=True,
                                                **{"node-name": "scratch"}))
            self.assertEqual([e["id"] for e in vm.ok("query-block-exports")], ["e"])
            self.io(vm, "write -P 9 0 4k", "write -P 9 1500k 2M", "write -P 9 16M 4k", "discard 7M 64k")
            uri = f"nbd+unix:///vda?socket={sock}"
            dirty = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:frozen", uri))
            self.assertEqual([(e["offset"], e["length"]) for e in dirty if e["type"]],
                             [(1 * MIB, 1 * MIB), (5 * MIB, 64 * KIB)])
            copy = self.path("copy")
            run("nbdcopy", uri, copy)
            self.io(vm, "write -P 8 3M 64k")
            run("nbdcopy", uri, self.path("again"))
            with open(copy, "rb") as f, open(self.path("again"), "rb") as g:
                data = f.read()
                self.assertEqual(data, g.read())
            self.assertEqual(len(data), 32 * MIB)
            want = bytearray(b"\1" * 8 * MIB) + bytes(24 * MIB)
            want[MIB:2 * MIB] = b"\2" * MIB
            want[5 * MIB:5 * MIB + 64 * KIB] = b"\2" * 64 * KIB
            self.assertTrue(data == bytes(want))
            # The job's end ends the export; the server goes on.
            vm.ok("block-job-cancel", device="j", force=True)
            vm.wait_event("BLOCK_EXPORT_DELETED")
            self.assertEqual(vm.ok("query-block-exports"), [])
            # A drive of its own, writable, and one that goes away beneath its export.
            self.node(vm, "other", fmt="raw")
            vm.ok("nbd-server-add", device="other", writable=True)
            run("nbdcopy", copy, f"nbd+unix:///other?socket={sock}")
            vm.ok("blockdev-del", **{"node-name": "other"})
            self.assertEqual(vm.ok("query-block-exports"), [])
            vm.ok("nbd-server-stop")
            self.assertIn("not running", self.error(vm, "nbd-server-stop"))
            self.end(vm, "a")
        with open(self.path("other"), "rb") as f:
            self.assertTrue(f.read() == data)

    def test_commit_takes_bitmaps_along(self):
        with self.machine() as vm:
            self.add(vm, "old", persistent=True)
            vm.ok("blockdev-snapshot-sync", **{"node-name": "d", "snapshot-file": self.path("o"),
                                               "snapshot-node-name": "o"})
            self.node_io(vm, "o", "write -P 1 0 64k")
            vm.ok("block-dirty-bitmap-add", node="o", name="new", persistent=True)
            self.node_io(vm, "o", "write -P 2 4M 64k")
            vm.ok("block-commit", device="o", **{"job-id": "j"})
            vm.wait_event("BLOCK_JOB_READY")
            vm.ok("block-job-complete", device="j")
            self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
            now = self.bitmaps(vm)
            self.assertEqual((now["old"], now["new"]), ((128 * KIB, True, True), (64 * KIB, True, True)))
            self.end(vm, "a")

    def node_io(self, vm, node, command):
        out = vm.ok("human-monitor-command", **{"command-line": f'qemu-io {node} "{command}"'})
        self.assertNotIn("failed", out)


if __name__ == "__main__":
    unittest.main()
