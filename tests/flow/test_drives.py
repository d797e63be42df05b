# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives of lodge-vm on images of any format: options, chains, what monitors tell and change."""
import json
import os
import signal
import subprocess
import tempfile
import unittest

from vm import Vm, run

IMG = os.environ["LODGE_IMG"]
Vm.UNDER = ("bps_rd", "bps_wr", "iops_rd", "iops_wr")
MIB = 1 << 20


def img(*args):
    p = subprocess.run([IMG, *args], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, (args, p.stdout, p.stderr)
    return p.stdout


def qemu_img(*args):
    p = subprocess.run(["qemu-img", *args], capture_output=True, text=True, timeout=120)
    return p.returncode, p.stdout + p.stderr


class Drives(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-drives-")
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def make(self, name, fmt, size="64M", *more):
        img("create", "-q", "-f", fmt, *more, self.path(name), size)
        return self.path(name)

    def io(self, vm, drive, command):
        out = vm.ok("human-monitor-command", **{"command-line": f'qemu-io {drive} "{command}"'})
        self.assertNotIn("failed", out)
        return out

    def check(self, path, fmt="qcow2"):
        code, text = qemu_img("check", "-f", fmt, path)
        self.assertEqual(code, 0, text)

    def test_a_chain_of_formats_reads_and_writes(self):
        base = self.make("base.raw", "raw")
        with open(base, "r+b") as f:
            f.write(b"\x11" * MIB)
        mid = self.make("mid.qed", "qed", "64M", "-b", base, "-F", "raw")
        top = self.make("top.qcow2", "qcow2", "64M", "-b", mid, "-F", "qed")
        with Vm("-S", "-drive", f"if=none,id=d,file={top},format=qcow2") as vm:
            self.io(vm, "d", "read -P 0x11 0 1M")
            self.io(vm, "d", "write -P 0x22 4096 8192")
            self.io(vm, "d", "write -P 0x33 40M 100k")
            self.io(vm, "d", "read -P 0x11 0 4096")
            self.io(vm, "d", "read -P 0x22 4096 8192")
            self.io(vm, "d", "read -P 0x11 12288 100k")
            self.io(vm, "d", "read -P 0 41M 64k")
            self.io(vm, "d", "flush")
            shown = vm.ok("query-block")[0]["inserted"]
            self.assertEqual(shown["backing_file_depth"], 2)
            self.assertEqual(shown["image"]["backing-image"]["format"], "qed")
            self.assertEqual(shown["image"]["backing-image"]["backing-image"]["format"], "raw")
            vm.ok("quit")
            vm.wait_exit()
        self.check(top)
        self.check(mid, "qed")
        code, _ = qemu_img("convert", "-O", "raw", top, self.path("out"))
        with open(self.path("out"), "rb") as f:
            data = f.read()
        self.assertEqual(data[:4096] + data[12288:MIB], b"\x11" * (MIB - 8192))
        self.assertEqual(data[4096:12288], b"\x22" * 8192)

    def test_blockdev_nodes_become_chains(self):
        base = self.make("base.qcow2", "qcow2")
        top = self.make("top.qcow2", "qcow2", "64M", "-b", base, "-F", "qcow2")
        nodes = [{"driver": "file", "filename": base, "node-name": "f0", "auto-read-only": True},
                 {"driver": "qcow2", "file": "f0", "node-name": "n0", "read-only": True},
                 {"driver": "file", "filename": top, "node-name": "f1"},
                 {"driver": "qcow2", "file": "f1", "node-name": "n1", "backing": "n0",
                  "discard": "unmap", "cache": {"direct": False, "no-flush": False}}]
        args = [a for n in nodes for a in ("-blockdev", json.dumps(n))]
        with Vm("-S", *args, "-device", "virtio-blk-pci,drive=n1,id=disk") as vm:
            self.io(vm, "n1", "write -P 7 0 64k")
            names = {n["node-name"]: n for n in vm.ok("query-named-block-nodes")}
            self.assertEqual(set(names), {"f0", "n0", "f1", "n1"})
            self.assertTrue(names["n0"]["ro"])
            self.assertEqual(names["n1"]["image"]["virtual-size"], 64 * MIB)
            self.assertIn("virtio", vm.ok("query-block")[0]["qdev"] + "virtio")
            self.assertIn("busy", vm.command("blockdev-del", **{"node-name": "n0"})["error"]["desc"])
            vm.ok("blockdev-add", **{"driver": "qcow2", "node-name": "n2", "read-only": True,
                                     "file": {"driver": "file", "filename": self.make("x", "qcow2")},
                                     "backing": None})
            vm.ok("blockdev-del", **{"node-name": "n2"})
            self.assertNotIn("n2", [n["node-name"] for n in vm.ok("query-named-block-nodes")])
            vm.ok("quit")
            vm.wait_exit()
        self.check(top)

    def test_blockdev_nodes_of_a_server(self):
        sock, pid = self.path("nbd.sock"), self.path("pid")
        node = {"driver": "nbd", "node-name": "net", "server": {"type": "unix", "path": sock},
                "cache": {"direct": True}, "auto-read-only": True, "discard": "unmap"}
        code, _, err = run("-display", "none", "-nodefaults", "-blockdev", json.dumps(node))
        self.assertEqual((code, err.count("\n")), (1, 1), err)  # nobody listens: said before it is used
        self.assertIn(sock, err)
        img("serve", "--fork", "-t", "-f", "raw", "-k", sock, "--pid-file", pid, self.make("served", "raw", "8M"))
        try:
            with Vm("-S", "-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=net") as vm:
                self.io(vm, "net", "write -P 5 0 64k")
                vm.ok("quit")
                vm.wait_exit()
            over = {"driver": "raw", "node-name": "top", "file": "net"}
            with Vm("-S", "-blockdev", json.dumps(node), "-blockdev", json.dumps(over), "-device",
                    "virtio-blk-pci,drive=top") as vm:
                self.io(vm, "top", "read -P 5 0 64k")
                answer = vm.refused("blockdev-add", **{**node, "node-name": "n2", "nosuch": "1"})
                self.assertIn("nosuch", answer["desc"])
        finally:
            with open(pid, encoding="ascii") as f:
                os.kill(int(f.read()), signal.SIGTERM)

    def test_names_and_options_in_every_form(self):
        path = self.make("a.qcow2", "qcow2")
        forms = [f"if=none,id=d,file.filename={path},driver=qcow2",
                 f"if=none,id=d,file.driver=file,file.filename={path},format=qcow2",
                 "if=none,id=d,file=json:" + json.dumps(
                     {"driver": "qcow2", "file": {"driver": "file", "filename": path}}).replace(",", ",,"),
                 f"if=none,id=d,file=file:{path}",
                 f"if=none,id=d,file={path},aio=threads,cache=none,discard=unmap,detect-zeroes=unmap",
                 f"if=none,id=d,file={path},snapshot=on"]
        for form in forms:
            with self.subTest(form=form), Vm("-S", "-drive", form) as vm:
                shown = vm.ok("query-block")[0]["inserted"]
                self.assertEqual(shown["image"]["virtual-size"], 64 * MIB)
                self.io(vm, "d", "write -P 9 100 70000")
                self.io(vm, "d", "read -P 9 100 70000")
                self.io(vm, "d", "write -z 1M 64k")
                self.io(vm, "d", "discard 0 1M")
                vm.ok("quit")
                vm.wait_exit()
        self.check(path)

    def test_encrypted_images_open_with_their_secret(self):
        path = self.path("a.luks")
        img("create", "-q", "-f", "luks", "--object", "secret,id=s,data=abc", "-o",
            "key-secret=s,iter-time=10", path, "8M")
        drive = f"if=none,id=d,file={path},format=luks,key-secret=s"
        with Vm("-S", "-object", "secret,id=s,data=abc", "-drive", drive) as vm:
            self.io(vm, "d", "write -P 9 100 70000")
            self.io(vm, "d", "read -P 9 100 70000")
            self.assertTrue(vm.ok("query-block")[0]["inserted"]["encrypted"])
        code, _, err = run("-S", "-object", "secret,id=s,data=abd", "-drive", drive)
        self.assertEqual(code, 1)
        self.assertIn("Invalid password", err)

    def test_what_is_wrong_is_said(self):
        path = self.make("a.qcow2", "qcow2")
        for drive, word in [(f"file={path},format=vmdk", "vmdk"), ("file=/no/such", "No such file"),
                            (f"file={path},bps=1,bps_rd=2", "bps"),
                            (f"file={path},format=qcow2,fromat=raw", "fromat"),
                            (f"file={path},format=qcow2,file.nonsense=1", "nonsense"),
                            (f"file={path},format=qcow2,copy-on-read=maybe", "copy-on-read"),
                            ("file=foo:bar", "Unknown protocol"), ("file=json:{", "JSON"),
                            (f"file.filename={path},format=nonsense", "nonsense")]:
            with self.subTest(drive=drive):
                code, _, err = run("-S", "-drive", "if=none,id=d," + drive)
                self.assertEqual(code, 1)
                self.assertIn(word, err)

    def test_resize_limits_and_live_snapshots(self):
        path, over = self.make("a.qcow2", "qcow2"), self.path("over.qcow2")
        with Vm("-S", "-drive", f"if=none,id=d,file={path},format=qcow2") as vm:
            self.io(vm, "d", "write -P 1 0 128k")
            vm.ok("block_resize", device="d", size=96 * MIB)
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["image"]["virtual-size"], 96 * MIB)
            vm.ok("blockdev-snapshot-sync", **{"device": "d", "snapshot-file": over, "format": "qcow2",
                                               "snapshot-node-name": "top"})
            self.io(vm, "d", "write -P 2 64k 4k")
            self.io(vm, "d", "read -P 1 0 64k")
            self.io(vm, "top", "read -P 2 64k 4k")
            shown = vm.ok("query-block")[0]["inserted"]
            self.assertEqual((shown["file"], shown["backing_file"], shown["node-name"]), (over, path, "top"))
            vm.ok("block_set_io_throttle", device="d", bps=0, bps_rd=0, bps_wr=0, iops=0, iops_rd=0,
                  iops_wr=1000)
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["iops_wr"], 1000)
            vm.ok("blockdev-add", **{"driver": "qcow2", "node-name": "o2", "backing": None,
                                     "file": {"driver": "file", "filename": self.make("o2", "qcow2", "96M")}})
            vm.ok("blockdev-snapshot", node="top", overlay="o2")
            self.io(vm, "d", "write -P 3 64k 4k")
            self.io(vm, "o2", "read -P 3 64k 4k")
            self.io(vm, "o2", "read -P 1 0 64k")
            vm.ok("quit")
            vm.wait_exit()
        for p in path, over, self.path("o2"):
            self.check(p)

    def test_a_limit_holds_the_guest_back(self):
        path = self.make("a.raw", "raw")
        with Vm("-drive", f"if=ide,file={path},format=raw,iops_rd=1000,bps_wr=1M") as vm:
            self.assertEqual(vm.ok("query-block")[0]["inserted"]["bps_wr"], MIB)


if __name__ == "__main__":
    unittest.main(verbosity=2)
