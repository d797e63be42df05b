# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's state goes to a file, through a command and a socket, and comes back."""
import os
import random
import re
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import unittest

from vm import Vm, run, until

SEED = os.environ.get("LODGE_SEED", "1")  # "random" soaks
HEAD = 8  # the state's magic; then sections: tag, length, sum, content
FRAME = struct.Struct("<4sIQ")


def checksum(data):
    """The sum of a section, as vmm/state.c has it: whoever forges a state can do it too."""
    mask, whole = (1 << 64) - 1, len(data) & ~7
    h = len(data) * 0x9e3779b97f4a7c15 & mask
    for word in (*(w for w, in struct.iter_unpack("<Q", data[:whole])), *data[whole:]):
        h = (h ^ word) * 0xff51afd7ed558ccd & mask
        h ^= h >> 32
    return h


def sections(state):
    """Where the contents are, and how long, of all sections but the guest's pages."""
    at = HEAD
    while at < len(state):
        tag, n, _ = FRAME.unpack_from(state, at)
        at += FRAME.size
        if n and tag != b"PAGE":
            yield at, n
        at += n


def forged(state, rng):
    """@state with some bytes of one section changed, and a sum that fits."""
    out = bytearray(state)
    at, n = rng.choice(list(sections(state)))
    for _ in range(rng.randint(1, 4)):
        k = at + rng.randrange(n)
        value = rng.choice((rng.randbytes(1), b"\xff" * 8, bytes(4), struct.pack("<I", 0x7fffffff),
                            bytes([out[k] ^ 1 << rng.randrange(8)])))[:at + n - k]
        out[k:k + len(value)] = value
    FRAME.pack_into(out, at - FRAME.size, bytes(out[at - FRAME.size:at - FRAME.size + 4]), n,
                    checksum(out[at:at + n]))
    return bytes(out)

IMG = os.environ.get("LODGE_IMG", os.path.join(os.path.dirname(__file__), "../../build/lodge-img"))


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

    def test_a_disk_changes_hands(self):
        """One process at a time writes to it: the lock and what the metadata say go along."""
        with tempfile.TemporaryDirectory() as folder:
            disk = os.path.join(folder, "disk")
            subprocess.run([IMG, "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
            machine = [*self.MACHINE, "-drive", f"if=virtio,id=d,format=qcow2,file={disk}"]

            def io(vm, line):
                return vm.hmp(f"qemu-io d \"{line}\"")

            with Vm(*machine) as vm, Vm(*machine, "-incoming", f"unix:{folder}/socket") as to:
                io(vm, "write -P 7 1M 64k")
                self.assertEqual(vm.migrate(f"unix:{folder}/socket")["status"], "completed")
                to.wait_status("running")
                self.assertIn("verification failed", io(to, "read -P 8 1M 64k"))
                self.assertNotIn("failed", io(to, "read -P 7 1M 64k"))
                self.assertNotIn("failed", io(to, "write -P 9 2M 64k"))
                self.assertIn("lock", vm.refused("cont")["desc"])
                self.assertEqual(vm.ok("query-status")["status"], "postmigrate")
                with open(disk, "rb") as f:
                    before = f.read()
                vm.ok("quit")
                vm.wait_exit()
                with open(disk, "rb") as f:
                    self.assertEqual(f.read(), before)
            check = subprocess.run([IMG, "check", disk], capture_output=True, text=True)
            self.assertEqual(check.returncode, 0, check.stdout)

    def test_a_disk_comes_back(self):
        with tempfile.TemporaryDirectory() as folder:
            disk = os.path.join(folder, "disk")
            subprocess.run([IMG, "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
            machine = [*self.MACHINE, "-drive", f"if=virtio,id=d,format=qcow2,file={disk}"]
            with Vm(*machine) as vm:
                self.assertEqual(vm.migrate("exec:cat > /dev/null; exit 3")["status"], "failed")
                vm.wait_status("running")
                self.assertNotIn("failed", vm.hmp("qemu-io d \"write -P 7 1M 64k\""))
                self.assertEqual(vm.migrate("exec:cat > /dev/null")["status"], "completed")
                vm.ok("cont")
                self.assertNotIn("failed", vm.hmp("qemu-io d \"read -P 7 1M 64k\""))

    def test_descriptors_that_the_manager_opened(self):
        with Vm(*self.MACHINE) as vm, socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            os.set_inheritable(listener.fileno(), True)
            with Vm(*self.MACHINE, "-incoming", "defer") as to:
                to.pass_fd("door", listener.fileno())
                to.ok("migrate-incoming", uri="fd:door")
                with socket.create_connection(listener.getsockname()) as peer:
                    self.assertIn("No file descriptor", vm.refused("getfd", fdname="x")["desc"])
                    vm.pass_fd("way", peer.fileno())
                    self.assertEqual(vm.migrate("fd:way")["status"], "completed")
                    to.wait_status("running")
                vm.pass_fd("more", 1)
                vm.ok("closefd", fdname="more")
                self.assertIn("'more' not found", vm.refused("closefd", fdname="more")["desc"])
                self.assertIn("digit", vm.refused_fd("1", 1)["desc"])

    def test_one_side_alone_runs_it(self):
        """The socket stays when the state is through: who goes on says so first, and the other then does not."""
        path = {"capability": "return-path", "state": True}

        def move(vm, to):
            where = "unix:" + os.path.join(vm.dir.name, "way")
            vm.ok("migrate-set-capabilities", capabilities=[path])
            self.assertEqual(vm.ok("query-migrate-capabilities"), [path])
            to.ok("migrate-incoming", uri=where)
            self.assertEqual(vm.migrate(where)["status"], "completed")
            to.wait_status("paused")

        with Vm(*self.MACHINE) as vm:
            with Vm(*self.MACHINE, "-S", "-incoming", "defer") as to:  # it comes back
                move(vm, to)
                vm.ok("cont")
                to.wait_exit()
            with Vm(*self.MACHINE, "-S", "-incoming", "defer") as to:  # the destination dies
                move(vm, to)
            vm.ok("cont")
            with Vm(*self.MACHINE, "-S", "-incoming", "defer") as to:  # it is taken, but stands still
                move(vm, to)
                to.ok("x-migrate-own")
                self.assertIn("runs at the migration's destination", vm.refused("cont")["desc"])
                self.assertEqual(to.ok("query-status")["status"], "paused")
        with Vm(*self.MACHINE, "-S", "-incoming", "defer") as to:
            with Vm(*self.MACHINE) as vm:
                move(vm, to)
                to.ok("cont")
                for command, more in (("cont", {}), ("x-migrate-own", {}), ("migrate", {"uri": "exec:cat >/dev/null"})):
                    self.assertIn("runs at the migration's destination", vm.refused(command, **more)["desc"])
                self.assertEqual(vm.ok("query-status")["status"], "postmigrate")
            self.assertTrue(to.ok("query-status")["running"])
        with Vm(*self.MACHINE, "-S", "-incoming", "defer") as to:
            with Vm(*self.MACHINE) as vm:
                move(vm, to)
            to.ok("cont")  # the source has died

    def test_a_destination_is_asked(self):
        """The source wants its machine back: the destination hangs up, or says that it runs there."""
        for word in (b"", b"T"):
            with self.subTest(word=word), Vm(*self.MACHINE) as vm, socket.socket(socket.AF_UNIX) as listener:
                way = os.path.join(vm.dir.name, "way")
                listener.bind(way)
                listener.listen()
                vm.ok("migrate-set-capabilities", capabilities=[{"capability": "return-path", "state": True}])
                vm.ok("migrate", uri="unix:" + way)
                peer, _ = listener.accept()
                state = bytearray()
                while state[-FRAME.size - 4:-FRAME.size] != b"LAST":  # whose content are four bytes
                    state += peer.recv(1 << 20)
                vm.wait_status("postmigrate")
                asked = []

                def answer():
                    asked.append(peer.recv(1))
                    peer.sendall(word)
                    peer.close()
                thread = threading.Thread(target=answer)
                thread.start()
                if word:
                    self.assertIn("runs at the migration's destination", vm.refused("cont")["desc"])
                else:
                    vm.ok("cont")
                thread.join()
                self.assertEqual(asked, [b"B"])

    def test_speed_and_passes(self):
        with Vm(*self.MACHINE) as vm:
            vm.ok("migrate-set-parameters", max_bandwidth=1000)
            vm.ok("migrate", uri="exec:cat > /dev/null")
            status = vm.ok("query-migrate")
            self.assertEqual(status["status"], "active")
            self.assertEqual(status["ram"]["page-size"], 4096)
            vm.ok("migrate-set-parameters", max_bandwidth=0)
            vm.wait_event("MIGRATION_PASS")
            vm.wait_status("postmigrate")

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

    def test_a_forged_state_ends_no_process_otherwise(self):
        """Whatever it says, it is refused in one line, or it is a machine that can be asked."""
        machine = [*self.MACHINE, "-m", "16", "-device", "nec-usb-xhci", "-device", "usb-tablet", "-device",
                   "virtio-scsi-pci", "-device", "virtio-gpu-pci", "-device", "virtio-serial-pci", "-device",
                   "ahci"]
        seed = random.randrange(1 << 32) if SEED == "random" else int(SEED, 0)
        with Vm(*machine) as vm:
            path = os.path.join(vm.dir.name, "state")
            self.saved(vm, "file:" + path)
            with open(path, "rb") as f:
                state = f.read()
            refused = 0
            for n in range(seed, seed + int(os.environ.get("LODGE_CASES", "40"))):
                with open(path, "wb") as f:
                    f.write(forged(state, random.Random(n)))
                with self.subTest(LODGE_SEED=n):
                    refused += self.refuses(machine, path)
            self.assertGreater(refused, 0)

    def refuses(self, machine, path):
        with Vm(*machine, "-incoming", "defer", accel="bt") as vm:
            try:
                vm.ok("migrate-incoming", uri="file:" + path)
                until(lambda: vm.ok("query-status")["status"] != "inmigrate", "no end of loading")
                vm.command("cont")  # some states are those of a machine that has panicked
                vm.hmp("info registers")
                vm.ok("quit")
            except (AssertionError, OSError):
                pass  # it has ended: how is what counts
            code, err = vm.wait_exit()
            self.assertEqual((code, err.count("\n")), (1, 1) if code else (0, 0), err)
            self.assertNotIn("\\x", err)  # nothing of its bytes reaches a terminal as it is
            return code == 1


if __name__ == "__main__":
    unittest.main()
