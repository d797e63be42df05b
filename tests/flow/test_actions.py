# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine does when its guest breaks, panics, goes silent or starts anew: firmware of a few
bytes does each of them, on every engine where the engine matters."""
import os
import subprocess
import tempfile
import unittest

from vm import Vm, run, until

# Real mode at f000:0000; each says one byte on the debug console before its deed.
START = """
    .code16
    mov $'D', %al
    out %al, $0xe9
"""
DEATHS = {  # what ends in a shutdown of the processor, or asks for a reset
    "no interrupt table": "lidtl %cs:none; int3; none: .long 0, 0",
    "keyboard controller": "mov $0xfe, %al; out %al, $0x64; hlt",
    "port 92": "in $0x92, %al; and $0xfe, %al; out %al, $0x92; or $1, %al; out %al, $0x92; hlt",
    "reset control": "mov $0xcf9, %dx; mov $2, %al; out %al, %dx; mov $6, %al; out %al, %dx; hlt",
}
PANIC = "mov $0x505, %dx; mov $1, %al; out %al, %dx; hlt"
CONFIG = """
    .macro config address, value
    mov $0x80000000 + \\address, %eax
    mov $0xcf8, %dx
    outl %eax, %dx
    mov $\\value, %eax
    mov $0xcfc, %dx
    outl %eax, %dx
    .endm
"""
POWER_OFF = CONFIG + """
    config 0xb40, 0x600 # the PIIX4's power management block, decoded
    config 0xb80, 1
    config 0xb04, 1
    mov $0x604, %dx # SLP_TYP 0, SLP_EN
    mov $0x2000, %ax
    out %ax, %dx
    hlt
"""
SILENCE = CONFIG + """
    config 0x2810, 0xd0000 # the watchdog's registers, where real mode sees them
    config 0x2804, 2
    mov $0xd000, %ax
    mov %ax, %ds
    movw $0x80, 12
    movw $0x86, 12
    movl $1, 0
    movw $0x80, 12
    movw $0x86, 12
    movl $1, 4
    config 0x2868, 2 # enabled
    cli
    jmp .
"""


def firmware(path, code):
    """A ROM that does what @code says."""
    subprocess.run(["as", "--32", "-o", path + ".o"], input=START + code + "\n", text=True, check=True)
    subprocess.run(["objcopy", "-O", "binary", path + ".o", path], check=True)
    with open(path, "r+b") as f:
        f.truncate(65536)
        f.seek(0xFFF0)
        f.write(bytes.fromhex("ea000000f0"))


class Actions(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lodge-actions-")
        self.addCleanup(self.folder.cleanup)
        self.debug = os.path.join(self.folder.name, "debug")

    def guest(self, code):
        """Options of a machine whose firmware is @code."""
        path = os.path.join(self.folder.name, "rom")
        firmware(path, code)
        return ["-bios", path, "-debugcon", f"file:{self.debug}"]

    def running(self, *args):
        """Whoever listens from the start hears of what happens once."""
        vm = Vm("-S", *args)
        self.addCleanup(vm.__exit__)
        vm.ok("cont")
        return vm

    def said(self):
        with open(self.debug, "rb") as f:
            return f.read()

    def test_a_reset_starts_anew(self):
        for accel in ("interp", "bt"):
            for name, code in DEATHS.items():
                with self.subTest(accel=accel, death=name):
                    with Vm(*self.guest(code), accel=accel) as vm:
                        event = vm.wait_event("RESET")
                        self.assertEqual(event["data"], {"guest": True, "reason": "guest-reset"})
                        until(lambda: len(self.said()) >= 4, "the firmware did not start anew")
                        self.assertEqual(set(self.said()), set(b"D"))

    def test_no_reboot_ends_instead(self):
        for option in (["-no-reboot"], ["-action", "reboot=shutdown"]):
            for name, code in DEATHS.items():
                with self.subTest(option=option, death=name):
                    self.assertEqual(run("-display", "none", "-nodefaults", "-accel", "bt", *option,
                                         *self.guest(code)), (0, "", ""))
                    self.assertEqual(self.said(), b"D")

    def test_no_shutdown_stands_still(self):
        for option in (["-no-shutdown"], ["-action", "shutdown=pause"]):
            vm = self.running(*self.guest(DEATHS["no interrupt table"]), "-no-reboot", *option)
            vm.wait_status("shutdown")
            event = vm.wait_event("SHUTDOWN")
            self.assertEqual(event["data"], {"guest": True, "reason": "guest-reset"})
            self.assertEqual(vm.refused("cont")["class"], "GenericError")
            self.assertEqual(self.said(), b"D")
            vm.ok("quit")
            self.assertEqual(vm.wait_exit(), (0, ""))

    def test_power_off_is_no_reset(self):
        vm = self.running(*self.guest(POWER_OFF), "-no-shutdown")
        vm.wait_status("shutdown")
        self.assertEqual(vm.wait_event("SHUTDOWN")["data"], {"guest": True, "reason": "guest-shutdown"})
        self.assertEqual(run("-display", "none", "-nodefaults", "-accel", "interp", *self.guest(POWER_OFF)),
                         (0, "", ""))

    def test_panic(self):
        args = [*self.guest(PANIC), "-device", "pvpanic"]
        for action, told, code in (("shutdown", "poweroff", 0), ("exit-failure", "poweroff", 1)):
            out = run("-display", "none", "-nodefaults", "-accel", "interp", *args, "-action", f"panic={action}")
            self.assertEqual(out, (code, "", ""), action)
        for action, told, status in (("pause", "pause", "guest-panicked"), ("none", "run", "running")):
            vm = self.running(*args, "-action", f"panic={action}")
            self.assertEqual(vm.wait_event("GUEST_PANICKED")["data"]["action"], told)
            vm.wait_status(status)

    def test_set_action_changes_its_mind(self):
        with Vm("-S", *self.guest(DEATHS["keyboard controller"])) as vm:
            vm.ok("set-action", reboot="shutdown")
            vm.ok("cont")
            self.assertEqual(vm.wait_exit(), (0, ""))

    def test_watchdog(self):
        args = [*self.guest(SILENCE), "-device", "i6300esb,addr=5"]
        for action, status in (("pause", "watchdog"), ("none", "running")):
            vm = self.running(*args, "-action", f"watchdog={action}")
            self.assertEqual(vm.wait_event("WATCHDOG")["data"]["action"], action)
            vm.wait_status(status)
        vm = self.running(*args, "-watchdog-action", "reset")
        vm.wait_event("WATCHDOG")
        vm.wait_event("RESET")
        self.assertEqual(self.running(*args, "-watchdog-action", "poweroff").wait_exit(), (0, ""))


if __name__ == "__main__":
    unittest.main()
