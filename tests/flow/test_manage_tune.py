#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of the host a machine may use, with virsh: control groups, processors, memory nodes,
CPU models; and what is said of the host.  What this host's kernel lacks is refused by name."""
import ctypes
import os
import pathlib
import re
import subprocess
import unittest

import libvirt

import manage
from test_manage_domain import Console, machine


def group_of(pid, controller):
    """The folder of a process in the hierarchy of @controller; None without one that can be used."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        two = number == "0" and not names
        if controller not in names.split(",") and not two:
            continue
        for mount in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            left, right = mount.split(" - ")
            kind, _, options = right.split(" ", 2)
            at = left.split()[4]
            if two and kind == "cgroup2":
                word = {"blkio": "io"}.get(controller, controller)
                if word in pathlib.Path(at, "cgroup.controllers").read_text().split():
                    return pathlib.Path(at + path), 2
            elif not two and kind == "cgroup" and controller in options.split(","):
                return pathlib.Path(at + path), 1
    return None, 0


def usable(controller):
    """Whether lodged can make groups there, as it would."""
    folder, version = group_of(os.getpid(), controller)
    if not folder:
        return False
    probe = folder / f"lodge-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        word = {"blkio": "io"}.get(controller, controller)
        if version == 1:
            return True
        try:
            (folder / "cgroup.subtree_control").write_text("+" + word)
        except OSError:
            return False
        return word in (probe / "cgroup.controllers").read_text().split()
    finally:
        probe.rmdir()


class Tune(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cpus = os.cpu_count()

    def define(self, name, **more):
        conn = self.daemon.connect()
        self.addCleanup(conn.close)
        dom = conn.defineXML(machine(name, **more))
        self.addCleanup(self.forget, name)
        return dom

    def forget(self, name):
        self.daemon.run_virsh("destroy", name)
        self.daemon.run_virsh("undefine", name)

    def start(self, name, **more):
        dom = self.define(name, **more)
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        return dom, self.pid(name)

    def pid(self, name):
        return self.daemon.pid(self.virsh("domuuid", name))

    def table(self, *args):
        """{name: value} of virsh's "name : value" lines."""
        lines = (line.split(":", 1) for line in self.virsh(*args).splitlines() if ":" in line)
        return {k.strip(): v.strip() for k, v in lines}

    def vcpu_threads(self, pid):
        found = {}
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            m = re.fullmatch(r"CPU (\d+)", (task / "comm").read_text().strip())
            if m:
                found[int(m[1])] = int(task.name)
        return found

    # --- control groups ---

    def test_config_without_groups(self):
        """Definitions change whether this host could do it or not."""
        self.define("cfg")
        self.virsh("schedinfo", "cfg", "--config", "cpu_shares=512", "--set", "vcpu_quota=50000",
                   "--set", "vcpu_period=100000")
        self.virsh("memtune", "cfg", "--config", "--hard-limit", "1G", "--swap-hard-limit", "2G",
                   "--soft-limit", "512M")
        self.virsh("blkiotune", "cfg", "--config", "--weight", "300", "--device-weights", "/dev/sda,400",
                   "--device-read-bytes-sec", "/dev/sda,1000000")
        self.virsh("numatune", "cfg", "--config", "--mode", "interleave", "--nodeset", "0")
        xml = self.virsh("dumpxml", "cfg")
        for part in ("<shares>512</shares>", "<quota>50000</quota>", "<period>100000</period>",
                     "<hard_limit unit='KiB'>1048576</hard_limit>",
                     "<swap_hard_limit unit='KiB'>2097152</swap_hard_limit>",
                     "<soft_limit unit='KiB'>524288</soft_limit>",
                     "<weight>300</weight>", "<path>/dev/sda</path>", "<weight>400</weight>",
                     "<read_bytes_sec>1000000</read_bytes_sec>",
                     "<memory mode='interleave' nodeset='0'/>"):
            self.assertIn(part, xml)
        self.assertEqual(self.table("schedinfo", "cfg")["cpu_shares"], "512")
        self.assertEqual(self.table("memtune", "cfg")["hard_limit"], "1048576")
        self.assertEqual(self.table("blkiotune", "cfg")["device_weight"], "/dev/sda,400")
        self.assertEqual(self.table("numatune", "cfg")["numa_mode"], "interleave")
        self.virsh("memtune", "cfg", "--config", "--hard-limit", "-1", "--swap-hard-limit", "-1")
        self.assertEqual(self.table("memtune", "cfg")["hard_limit"], "unlimited")
        self.assertIn("out of range", self.virsh("schedinfo", "cfg", "--config", "vcpu_period=7", fails=True))
        self.assertIn("swap_hard_limit", self.virsh("memtune", "cfg", "--config", "--hard-limit", "2G",
                                                    "--swap-hard-limit", "1G", fails=True))
        self.assertIn("range [10, 1000]", self.virsh("blkiotune", "cfg", "--config", "--weight", "7", fails=True))

    def test_processors_of_a_group(self):
        dom, pid = self.start("sched", more="<cputune><shares>700</shares><quota>80000</quota></cputune>"
                              if usable("cpu") else "")
        if not usable("cpu"):
            self.assertIn("cgroup CPU controller is not mounted", self.virsh("schedinfo", "sched", fails=True))
            self.forget("sched")
            self.define("sched", more="<cputune><shares>700</shares></cputune>")
            self.assertIn("CPU tuning is not available", self.virsh("start", "sched", fails=True))
            return
        inside, version = group_of(pid, "cpu")
        self.assertEqual(inside.name, "emulator")
        folder = inside.parent
        self.assertIn("lodge-", folder.parent.name)
        share = folder / ("cpu.shares" if version == 1 else "cpu.weight")
        self.assertEqual(share.read_text().strip(), "700")
        quota = folder / "vcpu0" / ("cpu.cfs_quota_us" if version == 1 else "cpu.max")
        self.assertEqual(quota.read_text().split()[0], "80000")
        events = []
        conn = dom.connect()
        self.assertEqual(self.table("schedinfo", "sched")["Scheduler"], "posix")
        self.virsh("schedinfo", "sched", "--live", "--set", "cpu_shares=300", "--set", "vcpu_quota=60000",
                   "--set", "emulator_quota=70000", "--set", "global_quota=90000")
        got = self.table("schedinfo", "sched")
        self.assertEqual([got[k] for k in ("cpu_shares", "vcpu_period", "vcpu_quota", "emulator_quota",
                                           "global_quota")],
                         ["300", "100000", "60000", "70000", "90000"])
        self.assertEqual(share.read_text().strip(), "300")
        self.assertEqual(quota.read_text().split()[0], "60000")
        thread = self.vcpu_threads(pid)[0]
        self.assertEqual(group_of(thread, "cpu")[0].name, "vcpu0")
        self.virsh("schedinfo", "sched", "--live", "--set", "vcpu_quota=-1")
        self.assertEqual(self.table("schedinfo", "sched")["vcpu_quota"], "-1")
        self.assertIn("<shares>300</shares>", self.virsh("dumpxml", "sched"))
        self.assertIn("<shares>700</shares>", self.virsh("dumpxml", "--inactive", "sched"))
        # Another lodged finds the group again; the end of the machine removes it.
        self.daemon.kill()
        self.daemon.start()
        manage.until(lambda: self.table("schedinfo", "sched")["cpu_shares"] == "300", "found again")
        self.virsh("schedinfo", "sched", "cpu_shares=400")
        self.assertEqual(share.read_text().strip(), "400")
        self.virsh("destroy", "sched")
        manage.until(lambda: not folder.exists(), "its group is removed")
        self.assertEqual(events, [])
        del conn

    def test_memory_of_a_group(self):
        if not usable("memory"):
            self.define("mem", more="<memtune><hard_limit unit='MiB'>400</hard_limit></memtune>")
            self.assertIn("Memory cgroup is not available", self.virsh("start", "mem", fails=True))
            return
        _, pid = self.start("mem", more="<memtune><hard_limit unit='MiB'>400</hard_limit></memtune>")
        folder, version = group_of(pid, "memory")
        hard = folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")
        self.assertEqual(hard.read_text().strip(), str(400 << 20))
        self.assertEqual(self.table("memtune", "mem")["hard_limit"], "409600")
        self.assertEqual(self.table("memtune", "mem")["soft_limit"], "unlimited")
        self.virsh("memtune", "mem", "--live", "--hard-limit", "500M", "--soft-limit", "450M")
        self.assertEqual(hard.read_text().strip(), str(500 << 20))
        self.assertEqual(self.table("memtune", "mem")["soft_limit"], "460800")
        swap = folder / ("memory.memsw.limit_in_bytes" if version == 1 else "memory.swap.max")
        if swap.exists():
            self.virsh("memtune", "mem", "--live", "--hard-limit", "600M", "--swap-hard-limit", "800M")
            self.assertEqual(swap.read_text().strip(), str((800 if version == 1 else 200) << 20))
            self.assertEqual(self.table("memtune", "mem")["swap_hard_limit"], "819200")
        usage = folder / ("memory.usage_in_bytes" if version == 1 else "memory.current")
        self.assertGreater(int(usage.read_text()), 1 << 20)  # it is charged there
        self.virsh("memtune", "mem", "--live", "--config", "--soft-limit", "-1")
        self.assertEqual(self.table("memtune", "mem")["soft_limit"], "unlimited")

    def test_disk_traffic_of_a_group(self):
        _, pid = self.start("blk")
        if not usable("blkio"):
            self.assertIn("blkio cgroup isn't mounted", self.virsh("blkiotune", "blk", fails=True))
            return
        folder, version = group_of(pid, "blkio")
        weights = ("blkio.weight", "blkio.bfq.weight") if version == 1 else ("io.bfq.weight", "io.weight")
        weight = next((folder / w for w in weights if (folder / w).exists()), None)
        if weight:
            self.virsh("blkiotune", "blk", "--weight", "222", "--live", "--config")
            self.assertEqual(weight.read_text().split()[-1], "222")
            self.assertEqual(self.table("blkiotune", "blk")["weight"], "222")
            self.assertIn("<weight>222</weight>", self.virsh("dumpxml", "--inactive", "blk"))
        disks = [d for d in pathlib.Path("/sys/block").iterdir() if (d / "device").exists()]
        if disks:
            device = f"/dev/{disks[0].name}"
            self.virsh("blkiotune", "blk", "--device-read-bytes-sec", f"{device},1048576",
                       "--device-write-iops-sec", f"{device},777")
            number = (disks[0] / "dev").read_text().strip()
            if version == 1:
                self.assertIn(f"{number} 1048576", (folder / "blkio.throttle.read_bps_device").read_text())
                self.assertIn(f"{number} 777", (folder / "blkio.throttle.write_iops_device").read_text())
            else:
                self.assertRegex((folder / "io.max").read_text(), f"{number} .*rbps=1048576.*wiops=777")
            self.assertEqual(self.table("blkiotune", "blk")["device_read_bytes_sec"], f"{device},1048576")
            self.virsh("blkiotune", "blk", "--device-read-bytes-sec", f"{device},0")
            self.assertEqual(self.table("blkiotune", "blk")["device_read_bytes_sec"], "")
        self.assertIn("must be a block device", self.virsh("blkiotune", "blk", "--device-weights", "/dev/null,500",
                                                           fails=True))

    # --- processors ---

    def test_pinning(self):
        last = self.cpus - 1
        _, pid = self.start("pin", more=f"<vcpu cpuset='0-{last}'>2</vcpu><cputune>"
                            f"<vcpupin vcpu='1' cpuset='{last}'/><emulatorpin cpuset='0'/></cputune>")
        threads = self.vcpu_threads(pid)
        self.assertEqual(set(threads), {0, 1})
        self.assertEqual(os.sched_getaffinity(threads[1]), {last})
        self.assertEqual(os.sched_getaffinity(threads[0]), set(range(self.cpus)))
        self.assertEqual(os.sched_getaffinity(pid), {0})
        self.assertEqual(self.virsh("vcpupin", "pin").split()[-4:], ["0", f"0-{last}" if last else "0", "1", str(last)])
        self.virsh("vcpupin", "pin", "0", "0", "--live", "--config")
        self.assertEqual(os.sched_getaffinity(threads[0]), {0})
        self.virsh("emulatorpin", "pin", str(last), "--live")
        self.assertEqual(os.sched_getaffinity(pid), {last})
        self.assertEqual(self.virsh("emulatorpin", "pin").split()[-1], str(last))
        self.assertEqual(self.virsh("emulatorpin", "pin", "--config").split()[-1], "0")
        info = self.virsh("vcpuinfo", "pin", "--pretty")
        self.assertRegex(info, r"VCPU: +0\nCPU: +0\nState: +running\n(CPU time: +\d+\.\d+s\n)?"
                         rf"CPU Affinity: +0 \(out of {self.cpus}\)")
        self.assertIn("<vcpupin vcpu='0' cpuset='0'/>", self.virsh("dumpxml", "--inactive", "pin"))
        self.assertIn("out of range", self.virsh("vcpupin", "pin", "7", "0", fails=True))
        self.assertIn("No IOThreads found", self.virsh("iothreadinfo", "pin"))

    def test_cpu_stats(self):
        _, pid = self.start("stats")
        total = self.virsh("cpu-stats", "stats", "--total")
        self.assertRegex(total, r"Total:\n\s+cpu_time +\d+\.\d+ seconds\n\s+user_time.*\n\s+system_time")
        if usable("cpuacct") and group_of(pid, "cpuacct")[1] == 1:
            self.assertRegex(self.virsh("cpu-stats", "stats"), r"CPU0:\n\s+cpu_time.*seconds\n\s+vcpu_time")

    def test_nodes(self):
        _, pid = self.start("numa", more="<numatune><memory mode='strict' nodeset='0'/></numatune>")
        self.assertEqual(self.table("numatune", "numa"), {"numa_mode": "strict", "numa_nodeset": "0"})
        self.assertRegex(pathlib.Path(f"/proc/{pid}/numa_maps").read_text(), r"bind:0")
        if usable("cpuset"):
            self.virsh("numatune", "numa", "--nodeset", "0", "--live")
        self.assertIn("can't change numatune mode",
                      self.virsh("numatune", "numa", "--mode", "preferred", "--live", fails=True))
        self.assertIn("numad is not available", self.refused("<vcpu placement='auto'>1</vcpu>"))

    def refused(self, more, smbios=None):
        conn = self.connect()
        xml = machine("refused", more=more)
        conn.defineXML(xml.replace("<os>", f"<os><smbios mode='{smbios}'/>") if smbios else xml)
        try:
            return self.virsh("start", "refused", fails=True)
        finally:
            self.forget("refused")

    def test_cells_of_a_guest(self):
        more = ("<vcpu>3</vcpu><numatune><memory mode='strict' nodeset='0'/><memnode cellid='1' mode='interleave' "
                "nodeset='0'/></numatune><cpu><numa><cell id='0' cpus='0,2' memory='96' unit='MiB'>"
                "<distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances></cell>"
                "<cell id='1' cpus='1' memory='65536' memAccess='shared'><distances>"
                "<sibling id='0' value='21'/><sibling id='1' value='10'/></distances></cell></numa></cpu>")
        dom, pid = self.start("cells", more=more)
        self.assertIn("<memory unit='KiB'>163840</memory>", self.virsh("dumpxml", "cells"))
        self.assertIn("<cell id='0' cpus='0,2' memory='98304' unit='KiB'>", self.virsh("dumpxml", "cells"))
        words = self.words(pid)
        for word in ("memory-backend-ram,id=ram-node0,size=98304k",
                     "memory-backend-memfd,id=ram-node1,size=65536k,share=on,host-nodes=0,policy=interleave",
                     "node,nodeid=0,memdev=ram-node0,cpus=0,cpus=2", "dist,src=0,dst=1,val=21"):
            self.assertIn(word, words)
        self.assertIn("interleave:0", pathlib.Path(f"/proc/{pid}/numa_maps").read_text())
        console = Console(dom.connect(), dom)
        dom.resume()
        console.expect(b"SRAT: PXM 1 -> APIC 0x01 -> Node 1")
        console.expect(b"Brought up 2 nodes, 3 CPUs")
        for bad, why in (("<cell id='0' cpus='0' memory='1'/><cell id='1' cpus='0' memory='1'/>", "in common"),
                         ("<cell id='1' cpus='0' memory='1'/>", "in order"),
                         ("<cell id='0' cpus='7' memory='1'/>", "beyond the maximum"),
                         ("<cell id='0' memory='1' unit='parsec'/>", "parsec"),
                         ("<cell id='0' memory='1'><distances><sibling id='0' value='11'/></distances></cell>",
                          "not valid")):
            with self.assertRaises(libvirt.libvirtError) as caught:
                dom.connect().defineXML(machine("bad", more=f"<cpu><numa>{bad}</numa></cpu>"))
            self.assertIn(why, str(caught.exception))

    def test_where_memory_comes_from(self):
        _, pid = self.start("file", more="<memoryBacking><nosharepages/><source type='file'/><access mode='shared'/>"
                            "<allocation mode='immediate'/></memoryBacking>")
        word = next(w for w in self.words(pid) if w.startswith("memory-backend-file"))
        self.assertRegex(word, "share=on,prealloc=on,merge=off$")
        self.assertIn("/own/", pathlib.Path(f"/proc/{pid}/maps").read_text())
        _, pid = self.start("memfd", more="<memoryBacking><source type='memfd'/></memoryBacking>")
        self.assertTrue(any(w.startswith("memory-backend-memfd,id=pc.ram") for w in self.words(pid)))
        self.assertIn("hugetlbfs mount for 12345 KiB", self.refused(
            "<memoryBacking><hugepages><page size='12345' unit='KiB'/></hugepages></memoryBacking>"))

    def test_huge_pages(self):
        """On a host that can set pages aside: the guest's memory lies in them."""
        count = pathlib.Path("/proc/sys/vm/nr_hugepages")
        folder = os.path.join(self.daemon.root, "huge")
        os.mkdir(folder)
        before, libc = int(count.read_text()), ctypes.CDLL(None, use_errno=True)
        try:
            count.write_text(str(before + 48))
            self.addCleanup(count.write_text, str(before))
        except OSError as e:
            manage.leave_out(self, f"huge pages: {e.strerror}")
        if int(count.read_text()) < before + 48:
            manage.leave_out(self, "no room for 48 huge pages")
        if libc.mount(b"none", folder.encode(), b"hugetlbfs", 0, b"pagesize=2M") != 0:
            manage.leave_out(self, f"no hugetlbfs: {os.strerror(ctypes.get_errno())}")
        self.addCleanup(libc.umount2, folder.encode(), 2)
        _, pid = self.start("huge", memory=80, more="<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages>"
                            "</memoryBacking>")
        self.assertTrue(any(f"mem-path={folder}" in w for w in self.words(pid)))
        self.assertRegex(pathlib.Path(f"/proc/{pid}/smaps").read_text(), r"Private_Hugetlb: +81920 kB")

    def test_nodes_of_the_host(self):
        xml = self.virsh("capabilities")
        self.assertRegex(xml, r"<cell id='0'>\n +<memory unit='KiB'>\d+</memory>\n +<pages unit='KiB' size='4'>\d+")
        self.assertRegex(xml, r"<sibling id='0' value='10'/>")
        self.assertRegex(self.virsh("freecell", "--all"), r"0: +\d+ KiB\n-+\nTotal: +\d+ KiB")
        self.assertRegex(self.virsh("freepages", "--cellno", "0", "--pagesize", "4"), r"4KiB: \d+")
        self.assertRegex(self.virsh("nodememstats", "0"), r"total *: +\d+ KiB\nfree *: +\d+ KiB")
        self.assertIn("buffers", self.virsh("nodememstats"))
        self.assertIn("user:", self.virsh("nodecpustats"))
        self.assertIn("out of range", self.virsh("freecell", "--cellno", "77", fails=True))
        self.assertIn("not supported", self.virsh("nodesuspend", "mem", "60", fails=True))

    # --- CPU models ---

    def words(self, pid):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")

    def test_cpu_models(self):
        self.assertLess({"Haswell", "Haswell-noTSX-IBRS", "EPYC-v4"}, set(self.virsh("cpu-models", "x86_64").split()))
        self.assertIn(">Haswell-noTSX-IBRS</model>", self.virsh("domcapabilities", "--virttype", "qemu"))
        self.virsh("cpu-models", "arm", fails=True)
        caps = self.virsh("domcapabilities", "--virttype", "qemu")
        self.assertRegex(caps, r"<mode name='host-model' supported='yes'>\n +<model fallback='forbid'>[\w-]+</model>")
        self.assertRegex(caps, r"<model usable='yes' vendor='Intel'>Conroe</model>|"
                         r"<model usable='yes' vendor='AMD'>qemu64</model>")
        path = self.write("caps.xml", caps)
        self.assertIn("identical", self.virsh("hypervisor-cpu-compare", "--virttype", "qemu", path))
        best = re.search(r"<model fallback='forbid'>([\w-]+)<", caps)[1]
        self.assertIn(f">{best}</model>", self.virsh("hypervisor-cpu-baseline", "--virttype", "qemu", path))
        small = self.write("small.xml", "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>")
        self.assertIn("superset", self.virsh("hypervisor-cpu-compare", "--virttype", "qemu", small))
        self.assertIn("superset", self.virsh("cpu-compare", small))
        none = self.write("none.xml", "<cpu><arch>x86_64</arch><model>qemu64</model><feature name='la57'/></cpu>")
        p = self.daemon.run_virsh("hypervisor-cpu-compare", "--virttype", "qemu", none)
        self.assertIn("incompatible", p.stdout + p.stderr)
        self.assertIn("does not provide", self.virsh("cpu-compare", "--error", none, fails=True))
        two = self.write("two.xml", "<cpu><model>Haswell</model></cpu><cpu><model>Nehalem</model></cpu>")
        got = self.virsh("hypervisor-cpu-baseline", two)
        self.assertIn("<model fallback='forbid'>Nehalem</model>", got)
        self.assertIn("policy='require' name='aes'",
                      self.virsh("cpu-baseline", self.write("one.xml", "<cpu><model>Westmere</model></cpu>"),
                                 "--features"))
        unknown = self.write("unknown.xml", "<cpu><arch>x86_64</arch><model>i8086</model></cpu>")
        self.assertIn("Unknown CPU model i8086", self.virsh("cpu-compare", unknown, fails=True))

    def write(self, name, text):
        path = pathlib.Path(self.daemon.root, name)
        path.write_text(text)
        return str(path)

    def test_cpu_of_a_machine(self):
        def cpu(text):
            return text + "<on_crash>destroy</on_crash>"
        _, pid = self.start("model", more=cpu("<cpu mode='host-model'/>"))
        live = self.virsh("dumpxml", "model")
        self.assertRegex(live, r"<cpu mode='custom' match='exact'.*>\n +<model fallback='forbid'>")
        self.assertIn("<cpu mode='host-model'", self.virsh("dumpxml", "--inactive", "model"))
        self.assertIn("-cpu", self.words(pid))
        _, pid = self.start("features", more=cpu(
            "<cpu mode='custom' match='exact'><model>qemu64</model><feature policy='disable' name='lahf_lm'/>"
            "<feature policy='optional' name='la57'/><feature policy='require' name='sse3'/></cpu>"))
        self.assertIn("qemu64,-lahf-lm,+pni", self.words(pid))
        self.assertIn("Host CPU does not provide required features: la57", self.refused(cpu(
            "<cpu mode='maximum'><feature policy='require' name='la57'/></cpu>")))
        self.assertIn("Host CPU provides forbidden features: sse2", self.refused(cpu(
            "<cpu mode='maximum'><feature policy='forbid' name='sse2'/></cpu>")))
        self.assertIn("name='la57'", self.refused(cpu(
            "<cpu mode='maximum'><feature policy='force' name='la57'/></cpu>")))
        self.assertIn("unknown CPU feature: warp", self.refused(cpu(
            "<cpu mode='maximum'><feature policy='require' name='warp'/></cpu>")))
        self.assertIn("unknown CPU model: i8086", self.refused(cpu(
            "<cpu mode='custom'><model>i8086</model></cpu>")))
        _, pid = self.start("plain", more=cpu("<cpu mode='custom'/>"))  # no model: as without <cpu>
        self.assertNotIn("-cpu", self.words(pid))
        self.assertIn("does not match required CPU vendor", self.refused(cpu(
            "<cpu mode='custom' match='exact'><model>qemu64</model><vendor>VIA</vendor></cpu>")))

    # --- our own shell beside virsh ---

    def test_lodge_prints_what_virsh_prints(self):
        self.start("same")
        small = self.write("same.xml", "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>")
        none = self.write("nofit.xml", "<cpu><model>qemu64</model><feature name='la57'/></cpu>")
        caps = self.write("samecaps.xml", self.virsh("domcapabilities", "--virttype", "qemu"))
        for line in f"""schedinfo same
                schedinfo same --config
                schedinfo same --config --set cpu_shares=300 vcpu_quota=90000
                schedinfo same --config --set nonsense=1
                schedinfo nosuch
                memtune same
                memtune same --config --hard-limit 1G
                memtune same --config
                memtune same --hard-limit 1x
                blkiotune same
                blkiotune same --config --weight 5
                blkiotune same --config --weight 400 --device-weights /dev/x,200
                blkiotune same --config
                numatune same
                numatune same --config --mode preferred --nodeset 0
                numatune same --config --mode silly
                numatune same --config
                vcpupin same
                vcpupin same 0
                vcpupin same 9
                vcpupin same 0 0 --config
                vcpupin same 0 x
                vcpupin same --config
                emulatorpin same
                emulatorpin same 0 --config
                emulatorpin same --config
                domblkerror same
                cpu-models x86_64
                cpu-compare {small}
                cpu-compare {none}
                cpu-compare --error {none}
                hypervisor-cpu-compare --virttype qemu {small}
                hypervisor-cpu-compare --virttype qemu {caps}
                hypervisor-cpu-compare --virttype qemu --error {none}
                cpu-baseline {small}
                cpu-baseline /nowhere
                hypervisor-cpu-baseline --virttype qemu --features {small}
                sysinfo""".splitlines():
            with self.subTest(line=line.strip()):
                words = line.split()
                theirs = self.daemon.run_virsh(*words)
                ours = subprocess.run([os.environ["LODGE"], "-c", self.daemon.uri, *words], text=True,
                                      capture_output=True, timeout=manage.PATIENCE,
                                      env={**os.environ, "LC_ALL": "C.UTF-8"})
                self.assertEqual((ours.stdout, ours.stderr, ours.returncode),
                                 (theirs.stdout, theirs.stderr, theirs.returncode))
        self.assertEqual(subprocess.run([os.environ["LODGE"], "-c", self.daemon.uri, "cpu-stats", "same", "--total"],
                                        capture_output=True).stdout.count(b"seconds"), 3)

    # --- the host, and the rest ---

    def test_sysinfo(self):
        xml = self.virsh("sysinfo")
        self.assertTrue(xml.startswith("<sysinfo type='smbios'>"))
        self.assertIn("<entry name='socket_destination'>CPU 0</entry>", xml)
        vendor = pathlib.Path("/sys/class/dmi/id/sys_vendor")
        if vendor.exists() and vendor.read_text().strip():
            self.assertIn(f"<entry name='manufacturer'>{vendor.read_text().strip()}</entry>", xml)
        _, pid = self.start("smbios", more="<sysinfo type='smbios'><bios><entry name='vendor'>Loam, Inc</entry></bios>"
                            "<oemStrings><entry>hello</entry></oemStrings></sysinfo><sysinfo type='fwcfg'>"
                            "<entry name='opt/org.example/x'>some text</entry></sysinfo>")
        self.virsh("destroy", "smbios")
        xml = self.virsh("dumpxml", "smbios").replace("<os>", "<os><smbios mode='sysinfo'/>")
        self.virsh("define", self.write("smbios.xml", xml))
        self.virsh("start", "smbios", "--paused")
        words = self.words(self.pid("smbios"))
        for word in ("type=0,vendor=Loam,, Inc", "type=11,value=hello", "name=opt/org.example/x,string=some text"):
            self.assertIn(word, words)
        self.assertIn("sysinfo are not available", self.refused("", smbios="sysinfo"))
        self.assertIn("entry name='colour'", self.refused(
            "<sysinfo type='smbios'><bios><entry name='colour'>x</entry></bios></sysinfo>", smbios="sysinfo"))

    def test_smbios_of_the_host(self):
        """All that it tells but its UUID; an error where it tells nothing.  "emulate" is what lodge-vm has itself."""
        conn = self.connect()
        dom = conn.defineXML(machine("firm").replace("<os>", "<os><smbios mode='emulate'/>"))
        self.addCleanup(self.forget, "firm")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.assertNotIn("-smbios", self.words(self.pid("firm")))
        dom.destroy()
        told = {}
        for number, names in enumerate(({"vendor": "bios_vendor"}, {"manufacturer": "sys_vendor"},
                                        {"manufacturer": "board_vendor"}, {"manufacturer": "chassis_vendor"})):
            for name, file in names.items():
                path = pathlib.Path("/sys/class/dmi/id", file)
                if path.exists() and path.read_text().strip():
                    told[number] = f"{name}={path.read_text().strip()}".replace(",", ",,")
        conn.defineXML(dom.XMLDesc().replace("'emulate'", "'host'"))
        if told:
            dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            words = self.words(self.pid("firm"))
            for number, word in told.items():
                self.assertTrue(any(w.startswith(f"type={number},") and word in w for w in words), (word, words))
            self.assertFalse(any(w.startswith("type=1,") and "uuid=" in w for w in words))
        elif not os.path.isdir("/sys/class/dmi/id"):
            self.assertIn("Host SMBIOS information is not available", self.virsh("start", "firm", fails=True))

    def test_peek(self):
        path = pathlib.Path(self.daemon.root, "disk.raw")
        path.write_bytes(bytes(range(256)) * 4096)
        dom, _ = self.start("peek", devices=f"<disk><source file='{path}'/><target dev='vda' bus='virtio'/></disk>")
        self.assertEqual(dom.blockPeek("vda", 3, 5), bytes(range(3, 8)))
        with self.assertRaises(libvirt.libvirtError):
            dom.blockPeek("/etc/passwd", 0, 5)
        with self.assertRaises(libvirt.libvirtError):
            dom.blockPeek("vda", 1 << 40, 5)
        low = dom.memoryPeek(0, 640 << 10, libvirt.VIR_MEMORY_PHYSICAL)
        self.assertEqual(len(low), 640 << 10)
        self.assertIn(b"lodge.run=shell", low)  # the kernel's command line
        self.assertEqual(self.virsh("domblkerror", "peek"), "No errors found")
        stats = self.table_of_stats("peek")
        for name in ("cpu.time", "cpu.user", "cpu.system", "vcpu.current", "vcpu.0.state", "vcpu.0.time",
                     "vcpu.0.delay", "block.0.rd.reqs"):
            self.assertIn(name, stats)
        self.assertIn("not supported by this daemon", self.virsh("domstats", "--perf", "--enforce", fails=True))

    def table_of_stats(self, name):
        return dict(line.strip().split("=", 1) for line in self.virsh("domstats", name).splitlines() if "=" in line)

    def test_another_xml_for_a_saved_one(self):
        self.start("asleep")
        path = f"{self.daemon.root}/asleep.save"
        self.virsh("save", "asleep", path)
        xml = self.virsh("save-image-dumpxml", path).replace("<memory", "<title>dreams</title><memory", 1)
        self.virsh("save-image-define", path, self.write("asleep.xml", xml), "--paused")
        self.assertIn("<title>dreams</title>", self.virsh("save-image-dumpxml", path))
        self.assertIn("does not match", self.virsh(
            "save-image-define", path, self.write("other.xml", xml.replace(">asleep<", ">other<")), fails=True))
        self.virsh("restore", path)
        self.assertEqual(self.virsh("domstate", "asleep"), "paused")
        self.assertEqual(self.virsh("desc", "--title", "asleep"), "dreams")
        self.virsh("managedsave", "asleep")
        self.virsh("managedsave-define", "asleep", self.write("asleep.xml", xml.replace("dreams", "nightmares")))
        self.assertIn("nightmares", self.virsh("managedsave-dumpxml", "asleep"))
        self.virsh("managedsave-remove", "asleep")

    def test_identity(self):
        conn = self.connect()
        conn.setIdentity({"user-name": "somebody"})
        with self.assertRaises(libvirt.libvirtError):
            conn.setIdentity({"shoe-size": 43})
        self.assertIn("speaks for user somebody", self.daemon.log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
