# SPDX-License-Identifier: GPL-2.0-or-later
"""Block jobs: chains that become shorter and drives that move while something is written."""
import json
import os
import subprocess
import tempfile
import unittest

from vm import Vm, until

IMG = os.environ["LODGE_IMG"]
MIB = 1 << 20


def img(*args, code=0):
    p = subprocess.run([IMG, *args], capture_output=True, text=True, timeout=120)
    assert p.returncode == code, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout


class Jobs(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-jobs-")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def chain(self, *names, size="32M", fmt="qcow2"):
        """Images over each other, each with a MiB of its own: 1 at 0, 2 at 1 MiB, ..."""
        below = None
        for i, name in enumerate(names):
            more = ["-b", self.path(below), "-F", fmt] if below else []
            img("create", "-q", "-f", fmt, *more, self.path(name), size)
            with Vm("-S", "-drive", f"if=none,id=d,file={self.path(name)},format={fmt}") as vm:
                self.io(vm, f"write -P {i + 1} {i}M 1M")
                self.io(vm, "write -P 0xee 20M 64k" if i == 0 else f"write -P {i} {20 * MIB + 4096 * i} 4096")
                vm.ok("quit")
                vm.wait_exit()
            below = name
        return Vm("-S", "-drive", f"if=none,id=d,file={self.path(names[-1])},format={fmt},discard=unmap")

    def io(self, vm, command):
        out = vm.ok("human-monitor-command", **{"command-line": f'qemu-io d "{command}"'})
        self.assertNotIn("failed", out)

    def expect(self, vm, layers):
        for i in range(layers):
            self.io(vm, f"read -P {i + 1} {i}M 1M")
        self.io(vm, "read -P 0xee 20M 4096")
        for i in range(1, layers):
            self.io(vm, f"read -P {i} {20 * MIB + 4096 * i} 4096")

    def depth(self, vm):
        return vm.ok("query-block")[0]["inserted"]["backing_file_depth"]

    def end(self, vm, *images):
        vm.ok("quit")
        vm.wait_exit()
        for name in images:
            code = subprocess.run(["qemu-img", "check", "-q", self.path(name)]).returncode
            self.assertEqual(code, 0, name)

    def test_stream_takes_no_space_for_zeroes(self):
        """Neither for holes of a raw image nor for zeroes that lie in it."""
        base, top = self.path("base.raw"), self.path("top")
        with open(base, "wb") as f:
            f.truncate(64 * MIB)
            os.pwrite(f.fileno(), bytes(16 * MIB), 32 * MIB)
            os.pwrite(f.fileno(), b"here" * 1024, 10 * MIB)
        img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
        with Vm("-blockdev", f"driver=qcow2,node-name=d,file.driver=file,file.filename={top}", "-device", "virtio-blk-pci,drive=d") as vm:
            vm.ok("block-stream", device="d", job_id="j")
            self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
            vm.ok("quit")
            vm.wait_exit()
        self.assertNotIn("backing", img("info", top))
        self.assertLess(os.stat(top).st_blocks * 512, 2 * MIB)
        self.assertEqual(subprocess.run(["qemu-img", "compare", "-q", base, top]).returncode, 0)

    def test_stream_makes_a_chain_short(self):
        with self.chain("a", "b", "c") as vm:
            vm.ok("block-stream", device="d", job_id="j", base=self.path("a"))
            done = vm.wait_event("BLOCK_JOB_COMPLETED")["data"]
            self.assertEqual((done["device"], done["type"], done["len"]), ("j", "stream", 32 * MIB))
            self.assertNotIn("error", done)
            self.assertEqual(self.depth(vm), 1)
            self.expect(vm, 3)
            vm.events.clear()
            vm.ok("block-stream", device="d")
            vm.wait_event("BLOCK_JOB_COMPLETED")
            self.assertEqual(self.depth(vm), 0)
            self.expect(vm, 3)
            self.assertEqual(vm.ok("query-block-jobs"), [])
            self.end(vm, "a", "b", "c")
        self.assertNotIn("backing", img("info", self.path("c")))

    def test_commit_of_a_middle_image(self):
        with self.chain("a", "b", "c", "d") as vm:
            vm.ok("block-commit", device="d", top=self.path("c"), base=self.path("a"))
            self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
            self.assertEqual(self.depth(vm), 1)
            self.expect(vm, 4)
            self.io(vm, "write -P 9 5M 1M")
            self.end(vm, "a", "d")
        info = json.loads(img("info", "--output=json", self.path("d")))
        self.assertEqual(info["full-backing-filename"], self.path("a"))

    def test_commit_of_the_top_image_pivots(self):
        with self.chain("a", "b", "c") as vm:
            vm.ok("block-commit", device="d", job_id="j")
            vm.wait_event("BLOCK_JOB_READY")
            self.assertEqual(vm.ok("query-block-jobs")[0]["status"], "ready")
            self.io(vm, "write -P 7 7M 1M")
            self.io(vm, "write -z 1M 64k")
            vm.ok("block-job-complete", device="j")
            vm.wait_event("BLOCK_JOB_COMPLETED")
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["file"], self.path("a"))
            self.io(vm, "read -P 7 7M 1M")
            self.io(vm, "read -P 0 1M 64k")
            self.io(vm, "read -P 3 2M 1M")
            self.io(vm, "write -P 8 8M 4096")
            self.end(vm, "a")

    def test_a_mirror_follows_writes(self):
        for fmt in "raw", "qcow2":
            with self.subTest(fmt=fmt), self.chain("a", "b") as vm:
                target = self.path("t." + fmt)
                vm.ok("drive-mirror", device="d", job_id="j", target=target, format=fmt, sync="full")
                for i in range(20):
                    self.io(vm, f"write -P {i + 30} {(i * 7) % 16 + 3}M 100k")
                vm.wait_event("BLOCK_JOB_READY")
                self.io(vm, "write -P 99 30M 70000")
                self.io(vm, "discard 20M 1M")
                vm.ok("block-job-complete", device="j")
                vm.wait_event("BLOCK_JOB_COMPLETED")
                self.assertEqual(vm.ok("query-block")[0]["inserted"]["file"], target)
                self.io(vm, "read -P 99 30M 70000")
                self.io(vm, "read -P 1 0 1M")
                self.io(vm, "write -P 5 31M 1M")
                self.end(vm, *([] if fmt == "raw" else ["t.qcow2"]))
                for name in "a", "b", "t." + fmt:
                    os.unlink(self.path(name))

    def test_a_mirror_that_is_cancelled_when_ready_is_a_copy(self):
        with self.chain("a", "b") as vm:
            vm.ok("blockdev-add", **{"driver": "raw", "node-name": "t", "file": {
                "driver": "file", "filename": self.make_raw("t.raw", 32 * MIB)}})
            vm.ok("blockdev-mirror", device="d", job_id="j", target="t", sync="full")
            vm.wait_event("BLOCK_JOB_READY")
            self.io(vm, "write -P 7 8M 64k")
            vm.ok("block-job-cancel", device="j")
            vm.wait_event("BLOCK_JOB_COMPLETED")
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["file"], self.path("b"))
            self.end(vm)
        img("compare", "-q", self.path("b"), self.path("t.raw"))

    def test_what_a_slow_mirror_has_not_copied_yet_is_copied_at_its_end(self):
        """Of many pieces that are dirty then; cancelled, and when the machine goes elsewhere."""
        for end in "cancel", "migrate":
            with self.subTest(end), self.chain("a", "b") as vm:
                vm.ok("blockdev-add", **{"driver": "raw", "node-name": "t", "file": {
                    "driver": "file", "filename": self.make_raw("t.raw", 32 * MIB)}})
                vm.ok("blockdev-mirror", device="d", job_id="j", target="t", sync="full")
                vm.wait_event("BLOCK_JOB_READY")
                vm.ok("block-job-set-speed", device="j", speed=65536)
                self.io(vm, "write -P 7 8M 16M")
                if end == "cancel":
                    vm.ok("block-job-cancel", device="j")
                else:
                    vm.ok("migrate", uri=f"file:{self.path('state')}")
                self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
                self.end(vm)
            img("compare", "-q", self.path("b"), self.path("t.raw"))
            for name in "a", "b", "t.raw":
                os.unlink(self.path(name))

    def make_raw(self, name, size):
        with open(self.path(name), "wb") as f:
            f.truncate(size)
        return self.path(name)

    def test_a_backup_is_what_was_when_it_began(self):
        with self.chain("a", "b") as vm:
            img("convert", "-U", "-O", "raw", self.path("b"), self.path("then.raw"))
            vm.ok("drive-backup", device="d", job_id="j", target=self.path("t"), format="qcow2",
                  sync="full", speed=8 * MIB)
            for i in range(30):
                self.io(vm, f"write -P {i + 100} {31 - i}M 200k")
            vm.ok("block-job-set-speed", device="j", speed=0)
            self.assertNotIn("error", vm.wait_event("BLOCK_JOB_COMPLETED")["data"])
            self.end(vm, "t")
        img("compare", "-q", self.path("then.raw"), self.path("t"))

    def test_jobs_can_be_cancelled_paused_and_refused(self):
        with self.chain("a", "b") as vm:
            vm.ok("block-stream", device="d", job_id="j", speed=65536)
            self.assertIn("job already", vm.refused("block-stream", device="d", job_id="k")["desc"])
            vm.ok("block-job-pause", device="j")
            self.assertEqual(vm.ok("query-block-jobs")[0]["status"], "paused")
            vm.ok("block-job-resume", device="j")
            vm.ok("job-cancel", id="j")
            vm.wait_event("BLOCK_JOB_CANCELLED")
            until(lambda: vm.ok("query-jobs") == [], "the job stays")
            self.assertEqual(self.depth(vm), 1)
            self.expect(vm, 2)
            vm.refused("block-commit", device="d", top=self.path("a"), base=self.path("b"))
            vm.refused("block-job-complete", device="nobody")
            vm.ok("block-stream", device="d", job_id="j", auto_dismiss=False, auto_finalize=False)
            vm.wait_event("BLOCK_JOB_PENDING")
            vm.ok("job-finalize", id="j")
            self.assertEqual(vm.ok("query-jobs")[0]["status"], "concluded")
            vm.ok("job-dismiss", id="j")
            self.assertEqual(vm.ok("query-jobs"), [])
            vm.ok("drive-mirror", device="d", job_id="m", target=self.path("x"), sync="full")
            self.end(vm, "a", "b")


if __name__ == "__main__":
    unittest.main(verbosity=2)
