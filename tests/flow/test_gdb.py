# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's gdb drives the machine through its firmware."""
import os
import shutil
import subprocess
import tempfile
import unittest

from vm import PATIENCE, Vm


@unittest.skipUnless(shutil.which("gdb"), "gdb is not installed")
class Gdb(unittest.TestCase):
    def session(self, vm_args, *commands, accel="interp"):
        with Vm("-S", *vm_args, accel=accel) as vm:
            path = os.path.join(vm.dir.name, "gdb")
            self.assertEqual(vm.hmp(f"gdbserver unix:{path}").strip()[:5], "Waiti")
            args = ["gdb", "-nx", "-q", "-batch", "-ex", "set pagination off", "-ex",
                    "set confirm off", "-ex", f"target remote {path}"]
            for c in commands:
                args += ["-ex", c]
            p = subprocess.run(args, capture_output=True, text=True, timeout=PATIENCE)
            return p.stdout + p.stderr

    def test_registers_and_single_step(self):
        out = self.session([], "p/x $pc", "p/x $cs", "p $eflags", "p/x $cr0", "stepi", "p/x $pc",
                           "set $rax = 0x1234", "p/x $rax", "p/x $mxcsr")
        self.assertIn("$1 = 0xfff0", out)
        self.assertIn("$2 = 0xf000", out)
        self.assertIn("$4 = 0x60000010", out)
        self.assertIn("$5 = 0xe05b", out)
        self.assertIn("$6 = 0x1234", out)
        self.assertIn("$7 = 0x1f80", out)

    def test_memory_reads_and_writes(self):
        out = self.session([], "x/2bx 0xfffffff0", "set {int}0x1000 = 0x11223344", "x/1wx 0x1000")
        self.assertIn("0xea", out)
        self.assertIn("0x11223344", out)

    def firmware(self, folder):
        """inc al; mov [0x500], al; jmp to the start; the reset vector jumps there."""
        rom = bytearray(65536)
        rom[0:7] = bytes.fromhex("fec0a20005ebf9")
        rom[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
        path = os.path.join(folder, "rom")
        with open(path, "wb") as f:
            f.write(rom)
        return path

    def test_breakpoints_and_watchpoints_stop_the_guest(self):
        with tempfile.TemporaryDirectory() as folder:
            for accel in ("interp", "bt"):
                with self.subTest(accel=accel):
                    out = self.session(
                        ["-bios", self.firmware(folder)], "stepi",
                        "p/x $rip",
                        "watch *(unsigned char *)0x500", "continue", "p/x *(unsigned char *)0x500",
                        "continue", "p/x *(unsigned char *)0x500", "p/x $al",
                        accel=accel)
                    self.assertIn("Hardware watchpoint", out)
                    self.assertIn("Old value = 0", out)
                    self.assertRegex(out, r"\$\d = 0x1\n")
                    self.assertRegex(out, r"\$\d = 0x2\n")

    def test_breakpoints(self):
        with tempfile.TemporaryDirectory() as folder:
            for accel in ("interp", "bt"):
                with self.subTest(accel=accel):
                    out = self.session(
                        ["-bios", self.firmware(folder)], "hbreak *0xf0002", "continue", "p/x $rip",
                        "p/x $al", "continue", "p/x $al", accel=accel)
                    self.assertRegex(out, r"\$1 = 0x2\n")
                    self.assertRegex(out, r"\$2 = 0x1\n")
                    self.assertRegex(out, r"\$3 = 0x2\n")

    def test_ctrl_c_stops_a_running_guest(self):
        with tempfile.TemporaryDirectory() as folder:
            out = self.session(
                ["-bios", self.firmware(folder)], "python import threading, os, signal",
                "python interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)",
                "python gdb.events.cont.connect(lambda e: threading.Timer(1, interrupt).start())",
                "continue", "p/x $cs")
            self.assertIn("SIGINT", out)
            self.assertIn("$1 = 0xf000", out)

    def test_threads_are_cpus_and_monitor_commands_work(self):
        out = self.session(["-smp", "3"], "info threads", "monitor info status", "detach")
        self.assertIn("CPU#2", out)
        self.assertIn("VM status", out)


if __name__ == "__main__":
    unittest.main()
