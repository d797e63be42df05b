# SPDX-License-Identifier: GPL-2.0-or-later
"""savevm, loadvm and delvm: the machine's state inside a qcow2 image."""
import os
import re
import subprocess
import tempfile
import unittest

from vm import Vm, run

IMG = os.environ["LODGE_IMG"]


def registers(vm):
    """All but the distance to the host's time stamps, which differ from process to process."""
    return re.sub(r"\btsc=\w+", "", vm.hmp("info registers"))


class Savevm(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-savevm-")
        self.addCleanup(self.dir.cleanup)

    def make(self, name, *options):
        path = os.path.join(self.dir.name, name)
        more = ["-o", ",".join(options)] if options else []
        subprocess.run([IMG, "create", "-q", "-f", "qcow2", *more, path, "64M"], check=True)
        return path

    def io(self, vm, drive, command):
        out = vm.hmp(f'qemu-io {drive} "{command}"')
        self.assertNotIn("failed", out)

    def check(self, *paths):
        for path in paths:
            p = subprocess.run(["qemu-img", "check", path], capture_output=True, text=True)
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)

    def machine(self, a, b):
        return ["-m", "64", "-smp", "2", "-drive", f"if=none,id=a,file={a},format=qcow2",
                "-drive", f"if=none,id=b,file={b},format=qcow2",
                "-device", "virtio-blk-pci,drive=a", "-device", "virtio-blk-pci,drive=b"]

    def test_disks_and_machine_go_back_together(self):
        for options in ((), ("extended_l2=on",), ("cluster_size=4k",), ("compat=0.10",)):
            with self.subTest(options=options):
                a, b = self.make("a", *options), self.make("b")
                with Vm(*self.machine(a, b)) as vm:
                    vm.ok("stop")
                    self.io(vm, "a", "write -P 1 0 1M")
                    self.io(vm, "b", "write -P 2 63M 1M")
                    marker = registers(vm)
                    self.assertEqual(vm.hmp("savevm one"), "")
                    self.assertIn(" one ", vm.hmp("info snapshots"))
                    self.io(vm, "a", "write -P 3 512k 1M")
                    self.io(vm, "b", "write -P 4 0 1M")
                    vm.ok("cont")
                    vm.ok("stop")
                    self.assertEqual(vm.hmp("savevm two"), "")
                    self.assertEqual(vm.hmp("loadvm one"), "")
                    self.assertEqual(vm.ok("query-status")["status"], "paused")
                    self.assertEqual(registers(vm), marker)
                    self.io(vm, "a", "read -P 1 0 1M")
                    self.io(vm, "a", "read -P 0 1M 1M")
                    self.io(vm, "b", "read -P 0 0 1M")
                    self.assertEqual(vm.hmp("loadvm two"), "")
                    self.io(vm, "a", "read -P 3 512k 1M")
                    self.io(vm, "b", "read -P 4 0 1M")
                    self.assertEqual(vm.hmp("savevm one"), "")  # another one of that name
                    self.assertEqual(vm.hmp("delvm two"), "")
                    self.assertNotIn(" two ", vm.hmp("info snapshots"))
                    vm.ok("quit")
                    vm.wait_exit()
                self.check(a, b)
                out = subprocess.run(["qemu-img", "snapshot", "-l", a], capture_output=True, text=True).stdout
                self.assertIn("one", out)
                with Vm(*self.machine(a, b), "-loadvm", "one", "-S") as vm:
                    self.io(vm, "a", "read -P 3 512k 1M")
                    self.assertEqual(vm.ok("query-status")["status"], "paused")
                    vm.ok("cont")
                    self.assertEqual(vm.hmp("delvm one"), "")
                    vm.ok("quit")
                    vm.wait_exit()
                self.check(a, b)
                os.unlink(a), os.unlink(b)

    def test_a_running_guest_goes_on(self):
        a, b = self.make("a"), self.make("b")
        with Vm(*self.machine(a, b)) as vm:
            self.assertEqual(vm.hmp("savevm x"), "")
            self.assertTrue(vm.ok("query-status")["running"])
            self.assertEqual(vm.hmp("loadvm x"), "")
            self.assertTrue(vm.ok("query-status")["running"])

    def test_programs_ask_by_jobs(self):
        a, b = self.make("a"), self.make("b")
        with Vm(*self.machine(a, b)) as vm:
            nodes = [n["node-name"] for n in vm.ok("query-named-block-nodes")]
            vm.ok("stop")
            self.io(vm, "a", "write -P 1 0 1M")
            vm.ok("snapshot-save", job_id="s", tag="x", vmstate="a", devices=nodes)
            self.assertEqual([(j["id"], j["status"], "error" in j) for j in vm.ok("query-jobs")],
                             [("s", "concluded", False)])
            vm.refused("snapshot-save", job_id="s", tag="x", vmstate="a", devices=nodes)
            vm.ok("job-dismiss", id="s")
            self.io(vm, "a", "write -P 2 0 1M")
            vm.ok("snapshot-load", job_id="l", tag="x", vmstate="a", devices=nodes)
            self.io(vm, "a", "read -P 1 0 1M")
            vm.ok("snapshot-delete", job_id="d", tag="x", devices=nodes)
            vm.ok("snapshot-load", job_id="e", tag="x", vmstate="a", devices=nodes)
            self.assertIn("does not exist", vm.ok("query-jobs")[-1]["error"])

    def test_what_cannot_be_is_said(self):
        a, raw = self.make("a"), os.path.join(self.dir.name, "raw")
        with open(raw, "wb") as f:
            f.truncate(1 << 20)
        with Vm("-S", "-drive", f"if=none,id=a,file={a},format=qcow2") as vm:
            self.assertIn("does not exist", vm.hmp("loadvm nobody"))
            self.assertIn("does not exist", vm.hmp("delvm nobody"))
            self.assertIn("no snapshot", vm.hmp("info snapshots"))
        with Vm("-S", "-drive", f"if=none,id=a,file={raw},format=raw") as vm:
            self.assertIn("does not support snapshots", vm.hmp("savevm x"))
        subprocess.run([IMG, "snapshot", "-c", "disk", a], check=True)
        code, _, err = run("-S", "-drive", f"if=none,id=a,file={a},format=qcow2", "-loadvm", "disk")
        self.assertEqual(code, 1)
        self.assertIn("disk-only", err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
