# SPDX-License-Identifier: GPL-2.0-or-later
"""Every bad command line gets one line on stderr that names the mistake, and exit code 1."""
import os
import tempfile
import unittest

from vm import Vm, run

NODE = ["-object", "memory-backend-ram,id=a,size=64M", "-numa", "node,memdev=a"]
BAD = [
    (["-smp", "16,maxcpus=128,cores=4,threads=2,sockets=32"],
     "lodge-vm: cpu topology: sockets (32) * cores (4) * threads (2) > maxcpus (128)"),
    (["-smp", "4,maxcpus=2"], "maxcpus"),
    (["-smp", "0"], "greater than zero"),
    (["-smp", "many"], "many"),
    (["-smp", "3,cores=2"], "sockets (1) * cores (2)"),
    (["-smp", "300"], "300"),
    (["-m", "0"], "-m 0"),
    (["-m", "1Q"], "-m 1Q"),
    (["-m", "1G,slots=4"], "missing 'maxmem' option"),
    (["-m", "1G,slots=4,maxmem=1G"], "slots are of no use"),
    (["-m", "1G,slots=257,maxmem=8G"], "number up to 256"),
    (["-m", "1G,slots=4,maxmem=9T"], "beyond the processor's"),
    (["-object", "memory-backend-ram,id=m,size=1G", "-device", "pc-dimm,memdev=m"], "please specify the maxmem"),
    (["-smp", "1,maxcpus=2", "-device", "max-x86_64-cpu,socket-id=0,core-id=2,thread-id=0"], "must be in range 0:1"),
    (["-mem-path", "/no/such/folder"], "-mem-path /no/such/folder: No such file"),
    (["-fda", __file__, "-drive", f"if=floppy,index=0,file={__file__}"], "index=0"),
    (["-hda", __file__, "-drive", f"if=ide,bus=0,unit=0,file={__file__}"], "index=0"),
    (["-accel", "bt", "-enable-kvm"], "-enable-kvm and -accel interp:bt exclude"),
    (["-accel", "nosuch", "-enable-kvm"], "nosuch"),
    (["-kernel", __file__, "-kernel", "/no/such/kernel"], "/no/such/kernel"),
    (["-boot", "order=c,once=z"], "z"),
    (["-boot", "menu=perhaps"], "perhaps"),
    (["-append", "x"], "-kernel"),
    (["-smp", "2,sockets=0"], "greater than zero"),
    (["-smp", "cores=2,threads=2,sockets=2,maxcpus=4"], "maxcpus"),
    (["-M", "pc,accel=nosuch"], "nosuch"),
    (["-M", "nosuch"], "nosuch"),
    (["-M", "pc,usb=perhaps"], "usb=perhaps"),
    (["-M", "pc,colour=red"], "colour"),
    (["-accel", "nosuch"], "nosuch"),
    (["-cpu", "nosuch"], "nosuch"),
    (["-cpu", "max,+nosuch"], "nosuch"),
    (["-hda", "/no/such/disk"], "/no/such/disk"),
    (["-cdrom", "/no/such/disk"], "/no/such/disk"),
    (["-hdc", __file__, "-cdrom", __file__], "index=2"),
    (["-drive", "if=nosuch,file=/dev/null"], "nosuch"),
    (["-drive", "if=scsi,file=/dev/null"], "scsi"),
    (["-drive", "format=raw"], "file="),
    (["-drive", "file=/dev/null,format=nosuch"], "nosuch"),
    (["-drive", "file=/dev/null,format=raw,colour=red"], "colour"),
    (["-drive", "file=/dev/null,format=raw,cache=nosuch"], "nosuch"),
    (["-blockdev", "driver=raw"], "node-name"),
    (["-blockdev", "driver=raw,node-name=a,file=b"], "b"),
    (["-blockdev", "{\"driver\": "], "JSON"),
    (["-kernel", "/no/such/kernel"], "/no/such/kernel"),
    (["-kernel", __file__], "kernel"),
    (["-bios", "/no/such/bios"], "/no/such/bios"),
    (["-initrd", "/dev/null"], "-kernel"),
    (["-boot", "order=z"], "z"),
    (["-boot", "order=cc"], "c"),
    (["-boot", "colour=red"], "colour"),
    (["-serial", "nosuch"], "nosuch"),
    (["-serial", "file:/no/such/dir/file"], "/no/such/dir/file"),
    (["-serial", "stdio", "-monitor", "stdio"], "stdio"),
    (["-serial", "chardev:nosuch"], "nosuch"),
    (["-chardev", "socket,id=a"], "path="),
    (["-chardev", "null"], "id"),
    (["-chardev", "socket,id=a,host=127.0.0.1,port=70000,server=on,wait=off"], "70000"),
    (["-qmp", "tcp:127.0.0.1:99999,server=on,wait=off"], "99999"),
    (["-incoming", "tcp:127.0.0.1:70000"], "70000"),
    (["-serial", f"unix:{__file__},server=on,wait=off"], __file__),
    (["-chardev", "null,id=a", "-chardev", "null,id=a"], "taken"),
    (["-mon", "nosuch"], "nosuch"),
    (["-display", "gtk"], "gtk"),
    (["-vga", "qxl"], "qxl"),
    (["-vnc", "nowhere"], "nowhere"),
    (["-k", "nosuch-layout", "-vnc", ":77"], "nosuch-layout"),
    (["-k", "nosuch-layout"], "nosuch-layout"),
    (["-device", "isa-debug-exit", "-device", "isa-debug-exit"], "port 0x501 is taken"),
    (["-device", "pc-testdev", "-device", "pc-testdev"], "port 0xe0 is taken"),
    (["-device", "isa-debug-exit,iobase=0x64"], "port 0x64 is taken by i8042-cmd"),
    (["-daemonize", "-nographic"], "-nographic cannot be used with -daemonize"),
    (["-daemonize", "-serial", "mon:stdio"], "cannot use stdio with -daemonize"),
    (["-daemonize", "-chardev", "stdio,id=a"], "cannot use stdio with -daemonize"),
    (["-bios", "/dev/zero", "-drive", f"if=pflash,format=raw,readonly=on,file={__file__}"], "exclude"),
    (["-netdev", "nosuch,id=n"], "nosuch"),
    (["-netdev", "user"], "id"),
    (["-netdev", "user,id=n,colour=red"], "colour"),
    (["-nic", "user,model=nosuch"], "nosuch"),
    (["-device", "nosuch"], "nosuch"),
    (["-device", "e1000,colour=red"], "colour"),
    (["-device", "virtio-rng-pci,ioeventfd=maybe"], "maybe"),
    (["-device", "i6300esb,colour=red"], "colour"),
    (["-global", "e1000.colour=red"], "-global e1000.colour=red"),
    (["-global", "PIIX4_PM.disable_s3=maybe"], "maybe"),
    (["-global", "e1000"], "MODEL.PROPERTY=VALUE"),
    (["-readconfig", "/no/such/config"], "/no/such/config: No such file"),
    (["-readconfig", __file__], "line 2"),
    (["-watchdog-action", "bark"], "bark"),
    (["-action", "watchdog=bark"], "bark"),
    (["-M", "pc,kernel-irqchip=off"], "kernel-irqchip=off"),
    (["-device", "virtio-blk-pci"], "drive"),
    (["-device", "virtio-blk-pci,drive=nosuch"], "nosuch"),
    (["-drive", f"file={__file__},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d",
      "-device", "ide-hd,drive=d"], "in use"),
    (["-device", "e1000,netdev=nosuch"], "nosuch"),
    (["-object", "nosuch,id=a"], "nosuch"),
    (["-object", "rng-random,id=a,filename=/no/such/file"], "/no/such/file"),
    (["-object", "memory-backend-ram,id=a"], "size="),
    (["-M", "pc,memory-backend=nosuch"], "nosuch"),
    (["-uuid", "nosuch"], "nosuch"),
    (["-rtc", "base=nosuch"], "nosuch"),
    (["-rtc", "clock=vm"], "clock=vm"),
    (["-action", "reboot=nosuch"], "nosuch"),
    (["-d", "nosuch"], "nosuch"),
    (["-D", "/no/such/dir/log"], "/no/such/dir/log"),
    (["-runas", "nosuch-user"], "nosuch-user"),
    (["-chroot", "/no/such/dir"], "/no/such/dir"),
    (["-sandbox", "on,colour=red"], "colour"),
    (["-pidfile", "/no/such/dir/pid"], "/no/such/dir/pid"),
    (["-incoming", "file:/no/such/state"], "/no/such/state"),
    (["-incoming", "nosuch:x"], "nosuch"),
    (["-sandbox", "on,spawn=deny", "-incoming", "exec:cat"], "spawn=deny"),
    (["-gdb", "nosuch"], "nosuch"),
    (["-loadvm", "x"], "-loadvm"),
    (["-numa", "node"], "total memory for NUMA nodes (0x0) should equal RAM size (0x8000000)"),
    (["-numa", "node,mem=64"], "total memory for NUMA nodes (0x4000000)"),
    (["-numa", "node,mem=128,cpus=0-1"], "CPU index (1) should be smaller than maxcpus (1)"),
    (["-numa", "node,mem=128,cpus=x"], "-numa node,mem=128,cpus=x: Parameter 'cpus' expects"),
    (["-numa", "node,mem=128,cpus=0", "-numa", "node,cpus=0"], "CPU is already assigned to node-id: 0"),
    (["-numa", "node,nodeid=128"], "Max number of NUMA nodes reached: 128"),
    (["-numa", "node,mem=128", "-numa", "node,nodeid=0"], "Duplicate NUMA nodeid: 0"),
    (["-numa", "node,mem=128,nodeid=1"], "numa: Node ID missing: 0"),
    (["-numa", "node,memdev=nosuch"], "nosuch"),
    (["-numa", "node,colour=red"], "colour"),
    (["-numa", "hmat-lb"], "hmat-lb"),
    (["-numa", "node,mem=128", "-numa", "cpu,node-id=0,socket-id=9"], "no match found"),
    (["-numa", "node,mem=128", "-numa", "cpu,socket-id=0"], "Missing mandatory node-id"),
    (["-numa", "node,mem=128", "-numa", "cpu,node-id=0,die-id=0"], "die-id is not supported"),
    (["-numa", "cpu,node-id=0"], "Invalid node-id=0, NUMA node must be defined"),
    (["-numa", "dist,src=0,dst=0,val=10"], "Source/Destination NUMA node is missing"),
    (["-numa", "node,mem=128", "-numa", "dist,src=0,dst=0,val=9"], "NUMA distance (9) is invalid"),
    (["-numa", "node,mem=128", "-numa", "dist,src=0,dst=0,val=20"], "Local distance of node 0 should be 10."),
    (["-numa", "node,mem=128", "-numa", "dist,src=0,dst=0"], "Parameter 'val' is missing"),
    (["-numa", "node,mem=64", "-numa", "node,mem=64", "-numa", "dist,src=0,dst=0,val=10"],
     "The distance between node 0 and 1 is missing"),
    ([*NODE, "-numa", "node,mem=64"], "mixing both is not allowed"),
    ([*NODE, "-numa", "node,memdev=a"], "memory backend a can't be used multiple times."),
    ([*NODE, "-m", "64", "-M", "pc,memory-backend=a"], "mutually exclusive"),
    (["-usbdevice", "braille"], "-usbdevice braille"),
    (["-spice", "port=1"], "-spice"),
    (["-nosuch"], "-nosuch"),
    (["-m"], "requires an argument"),
]

# The line, its CPUs, MiB and disks.
NOTES = [
    ("-drive file=myimg.raw,format=raw -cdrom bootable.iso -m 4096 -boot order=d", 1, 4096,
     ["bootable.iso", "myimg.raw"]),
    ("-m 4096 -enable-kvm -drive file=win,format=raw -cpu host -smp cores=6 -vga std", 6, 4096, ["win"]),
    ("-k en-us -smp 16,maxcpus=128,cores=4,threads=2,sockets=16", 16, 128, []),
    ("-mem-path /dev/shm -m 64", 1, 64, []),
    ("-fda f -hda a -hdb b -hdc c -hdd d", 1, 128, ["a", "b", "c", "d", "f"]),
    ("-boot order=cd,once=d,menu=on -m 512M", 1, 512, []),
    ("-m 2G -smp 2", 2, 2048, []),
    ("-hda a -cdrom d -no-reboot -snapshot", 1, 128, ["a", "d"]),
]

PROCESSORS = """
486-v1 athlon Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Broadwell-v4 Cascadelake-Server-noTSX
Cascadelake-Server-v5 Conroe-v1 Cooperlake Cooperlake-v2 core2duo coreduo Denverton Denverton-v3 Dhyana Dhyana-v2
EPYC-IBPB EPYC-Milan-v1 EPYC-Rome-v2 EPYC-v3 EPYC-v4 Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS Haswell-v1
Icelake-Server-noTSX Icelake-Server-v6 IvyBridge-IBRS KnightsMill kvm32-v1 kvm64-v1 n270 Nehalem-IBRS Opteron_G1
Opteron_G2 Opteron_G3-v1 Opteron_G4 Opteron_G5 Penryn-v1 pentium3-v1 phenom qemu64-v1 SandyBridge-IBRS SapphireRapids
Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Client-v1 Skylake-Client-v4 Skylake-Server-IBRS
Skylake-Server-noTSX-IBRS Skylake-Server-v5 Snowridge Snowridge-v4 Westmere-IBRS Westmere-v2
"""

ANSWERS = [
    (["-version"], "lodge-vm version"), (["-h"], "-machine"), (["-M", "?"], "q35"),
    (["-machine", "help"], "pc"), (["-cpu", "?"], "qemu64"), (["-accel", "help"], "interp"),
    (["-device", "?"], "virtio-net-pci"), (["-device", "e1000,help"], "mac="),
    (["-netdev", "help"], "user"), (["-chardev", "help"], "socket"), (["-object", "help"], "rng-builtin"),
    (["-d", "help"], "guest_errors"), (["-display", "help"], "vnc"),
]


class Options(unittest.TestCase):
    def test_bad_options_get_one_line(self):
        for args, part in BAD:
            with self.subTest(args=args):
                code, out, err = run("-display", "none", "-accel", "interp", "-S", *args)
                self.assertEqual(code, 1, err)
                self.assertEqual(out, "")
                self.assertEqual(err.count("\n"), 1, err)
                self.assertTrue(err.startswith("lodge-vm: "), err)
                self.assertIn(part, err)

    def test_one_line_whatever_else_there_is_to_say(self):
        """The word about KVM comes with a machine, not before another error; a lock is one line."""
        with tempfile.NamedTemporaryFile() as disk:
            disk.truncate(1 << 20)
            drive = ["-drive", f"file={disk.name},format=raw"]
            with Vm("-S", *drive):
                for args, part in ((["-enable-kvm", "-device", "nosuch"], "nosuch"), (drive, "lock")):
                    code, _, err = run("-display", "none", "-S", *args)
                    self.assertEqual(code, 1)
                    self.assertEqual(err.count("\n"), 1, err)
                    self.assertIn(part, err)

    def test_a_network_without_a_card_is_mentioned(self):
        code, _, err = run("-M", "none", "-nodefaults", "-display", "none", "-monitor", "stdio",
                           "-accel", "interp", "-netdev", "user,id=lonely", stdin="quit\n")
        self.assertEqual((code, err), (0, "lodge-vm: warning: netdev lonely has no peer\n"))

    def test_a_sandbox_without_programs_says_so(self):
        with Vm("-S", "-sandbox", "on,spawn=deny") as vm:
            self.assertIn("spawn=deny", vm.refused("migrate", uri="exec:cat")["desc"])
            self.assertEqual(vm.ok("query-status")["running"], False)

    def test_half_a_dump_is_no_file(self):
        with tempfile.TemporaryDirectory() as folder, Vm("-S") as vm:
            path = os.path.join(folder, "dump")
            vm.ok("pmemsave", val=0, size=8192, filename=path)
            self.assertEqual(os.path.getsize(path), 8192)
            vm.ok("stop")
            vm.refused("pmemsave", val=0, size=1 << 50, filename=path)
            vm.refused("pmemsave", val=0, size=4096, filename="/dev/full")
            self.assertTrue(os.path.exists("/dev/full"))

    def test_notes_of_people_run_as_written(self):
        """Lines that stand in instructions everywhere, with nothing added but where to look."""
        with tempfile.TemporaryDirectory() as folder:
            names = {}
            for name in ("myimg.raw", "bootable.iso", "win", "a", "b", "c", "d", "f"):
                names[name] = os.path.join(folder, name)
                with open(names[name], "wb") as file:
                    file.truncate(1 << 20)
            for line, cpus, memory, drives in NOTES:
                with self.subTest(line=line):
                    words = [os.path.join(folder, w) if w in names else
                             w.replace("file=", f"file={folder}/") for w in line.split()]
                    with Vm(*words, "-S", accel=None, defaults=True) as vm:
                        self.assertEqual(len(vm.ok("query-cpus-fast")), cpus)
                        self.assertEqual(vm.ok("query-memory-size-summary")["base-memory"], memory << 20)
                        inserted = [b["inserted"]["file"] for b in vm.ok("query-block") if "inserted" in b]
                        self.assertEqual(sorted(os.path.basename(f) for f in inserted), drives)

    def test_everyday_processors_are_known(self):
        """Names that stand in lines for QEMU 7.2 and in what libvirt wrote down."""
        with Vm("-S", "-cpu", "Haswell-noTSX-IBRS", accel=None) as vm:
            listed = {d["name"] for d in vm.ok("query-cpu-definitions")}
            for name in PROCESSORS.split():
                self.assertIn(name, listed)
            for name in sorted(listed):
                props = vm.ok("query-cpu-model-expansion", type="full", model={"name": name})["model"]["props"]
                self.assertTrue(props["fpu"], name)

            def looks(name):
                model = vm.ok("query-cpu-model-expansion", type="full", model={"name": name})["model"]
                return {k: v for k, v in model["props"].items()}
            self.assertEqual(looks("Haswell-v4"), looks("Haswell-noTSX-IBRS"))
            self.assertNotEqual(looks("core2duo"), looks("Penryn"))

    def test_a_machine_may_bring_its_usb(self):
        for words, there in ((["-M", "q35,usb=on"], True), (["-M", "pc,usb=off"], False), (["-M", "pc", "-usb"], True),
                             (["-usb", "-M", "q35,usb=off"], False)):
            with self.subTest(words=words), Vm("-S", *words, accel=None) as vm:
                classes = [d["class_info"]["class"] for bus in vm.ok("query-pci") for d in bus["devices"]]
                self.assertEqual(0x0c03 in classes, there, classes)

    def test_questions_are_answered(self):
        for args, part in ANSWERS:
            with self.subTest(args=args):
                code, out, err = run(*args)
                self.assertEqual(code, 0, err)
                self.assertIn(part, out)
                self.assertEqual(err, "")

    def test_a_file_that_is_no_state_is_refused(self):
        with tempfile.NamedTemporaryFile() as f:
            f.write(b"x" * 100)
            f.flush()
            code, _, err = run("-display", "none", "-accel", "interp", "-incoming", "file:" + f.name)
            self.assertEqual(code, 1)
            self.assertEqual(err.count("\n"), 1, err)
            self.assertIn("no state of a machine", err)


class Configuration(unittest.TestCase):
    def test_a_file_of_groups_stands_for_options(self):
        with tempfile.TemporaryDirectory() as folder:
            disk, config = os.path.join(folder, "a,b.raw"), os.path.join(folder, "config")
            with open(disk, "wb") as f:
                f.truncate(1 << 20)
            with open(config, "w", encoding="utf-8") as f:
                f.write(f"""# a machine
[machine]
  type = "q35"
[memory]
  size = "64M"
[name]
  guest = "out of a file"
[object "dice"]
  qom-type = "rng-builtin"
[drive "disk"]
  file = "{disk}"
  format = "raw"
  if = "none"
[device "card"]
  driver = "virtio-blk-pci"
  drive = "disk"
  serial = ""
""")
            with Vm("-S", "-readconfig", config) as vm:
                self.assertEqual(vm.ok("query-name")["name"], "out of a file")
                self.assertEqual(vm.ok("query-memory-size-summary")["base-memory"], 64 << 20)
                self.assertIn("card", vm.hmp("info qtree"))
                self.assertIn("disk", vm.hmp("info block"))

    def test_objects_go_when_nobody_uses_them(self):
        with Vm("-S", "-object", "rng-builtin,id=used", "-device", "virtio-rng-pci,rng=used",
                "-object", "rng-builtin,id=idle", "-object", "memory-backend-ram,id=ram,size=1M") as vm:
            for idle in ("idle", "ram"):
                vm.ok("object-del", id=idle)
            self.assertIn("in use", vm.refused("object-del", id="used")["desc"])
            self.assertIn("not found", vm.refused("object-del", id="idle")["desc"])

    def test_a_model_of_another_machine_is_only_mentioned(self):
        with Vm("-S", "-global", "kvm-pit.lost_tick_policy=delay") as vm:
            self.assertEqual(vm.ok("query-status")["status"], "prelaunch")


if __name__ == "__main__":
    unittest.main()
