# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's state goes to a file, through a command and a socket, and comes back."""
import os
import stat
import re
import unittest

from vm import Vm, run


def registers(vm):
    """All but the distance to the host's time stamps, which differ from process to process."""
    return re.sub(r"\btsc=\w+", "", vm.hmp("info registers"))


class Migrate(unittest.TestCase):
    MACHINE = ["-m", "64", "-smp", "2", "-device", "e1000"]

    def saved(self, vm, uri):
        vm.ok("stop")
        marker = registers(vm)
        status = vm.migrate(uri)
        self.assertEqual(status["status"], "completed", status)
        self.assertEqual(vm.ok("query-status")["status"], "postmigrate")
        return marker

    def test_a_file_brings_the_machine_back(self):
        with Vm(*self.MACHINE) as vm:
            path = os.path.join(vm.dir.name, "state")
            marker = self.saved(vm, "file:" + path)
            self.assertEqual(os.listdir(vm.dir.name).count("state"), 1)
            with Vm(*self.MACHINE, "-incoming", "file:" + path) as again:
                again.wait_status("paused")
                self.assertEqual(registers(again), marker)
                again.ok("cont")
                self.assertTrue(again.ok("query-status")["running"])

    def test_a_command_and_a_running_guest(self):
        with Vm(*self.MACHINE) as vm:
            path = os.path.join(vm.dir.name, "state")
            self.assertEqual(vm.migrate(f"exec:cat > {path}")["status"], "completed")
            with Vm(*self.MACHINE, "-incoming", f"exec:cat {path}") as again:
                again.wait_status("running")

    def test_a_socket(self):
        with Vm(*self.MACHINE) as vm, Vm(*self.MACHINE, "-incoming", "defer") as to:
            path = os.path.join(vm.dir.name, "socket")
            self.assertEqual(to.ok("query-status")["status"], "inmigrate")
            to.ok("migrate-incoming", uri="unix:" + path)
            self.assertEqual(vm.migrate("unix:" + path)["status"], "completed")
            to.wait_status("running")

    def test_a_link_stays_one_and_a_device_too(self):
        with Vm(*self.MACHINE) as vm:
            link = os.path.join(vm.dir.name, "link")
            self.assertEqual(vm.migrate("file:" + os.path.join(vm.dir.name, "state"))["status"], "completed")
            os.symlink("state", link)
            self.assertEqual(vm.migrate("file:" + link)["status"], "completed")
            self.assertTrue(os.path.islink(link))
            self.assertEqual(vm.migrate("file:/dev/null")["status"], "completed")
            self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))
            self.assertIn("error", vm.command("pmemsave", val=0, size=-1, filename=link))

    def test_failures_leave_the_machine_running_and_no_file(self):
        with Vm(*self.MACHINE) as vm:
            self.assertIn("error", vm.command("migrate", uri="file:/no/such/dir/state"))
            self.assertIn("error", vm.command("migrate", uri="unix:/no/such/socket"))
            self.assertIn("error", vm.command("migrate", uri="nosuch:x"))
            status = vm.migrate("exec:cat > /dev/null; exit 3")
            self.assertEqual(status["status"], "failed")
            self.assertIn("3", status["error-desc"])
            vm.wait_status("running")

    def test_another_machine_refuses_the_state(self):
        with Vm(*self.MACHINE) as vm:
            path = os.path.join(vm.dir.name, "state")
            self.saved(vm, "file:" + path)
            for other, part in ((["-smp", "1"], "2 CPUs"), (["-M", "q35"], "machine pc"),
                                (["-m", "128"], "memory"), (["-device", "isa-debug-exit"], "isa-debug-exit"),
                                (["-device", "e1000"], "rom")):
                with self.subTest(other=other):
                    code, _, err = run("-display", "none", "-nodefaults", "-accel", "interp",
                                       *self.MACHINE, *other, "-incoming", "file:" + path)
                    self.assertEqual(code, 1)
                    self.assertEqual(err.count("\n"), 1, err)
                    self.assertIn(part, err)

    def test_a_damaged_state_is_refused(self):
        with Vm(*self.MACHINE) as vm:
            path = os.path.join(vm.dir.name, "state")
            self.saved(vm, "file:" + path)
            with open(path, "rb") as f:
                state = f.read()
            for bad in (state[:-1], state[:1000], state[:8], b"", state[:5000] + b"\xff" + state[5001:]):
                with open(path, "wb") as f:
                    f.write(bad)
                code, _, err = run("-display", "none", "-nodefaults", "-accel", "interp", *self.MACHINE,
                                   "-incoming", "file:" + path)
                self.assertEqual((code, err.count("\n")), (1, 1), err)


if __name__ == "__main__":
    unittest.main()
