#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Processors and memory that come and go in a running guest, through lodged with virsh: what its Linux,
the live XML and every figure say, through a killed lodged, a saved state, another lodged and the next start."""
import os
import pathlib
import re
import subprocess
import unittest

import libvirt

import manage
from test_manage_domain import Console, UP, machine

LODGE = os.environ["LODGE"]
SHELL = "shell memhp_default_state=online_movable"
DIMM = """<memory model='dimm' access='private'><target><size unit='MiB'>128</size><node>0</node></target></memory>"""


class HotPlug(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a, cls.b = manage.Daemon(), manage.Daemon()
        cls.addClassCleanup(cls.a.close)
        cls.addClassCleanup(cls.b.close)
        manage.hear_events()

    def define(self, name, vcpus, more="", board="q35", memory=160):
        text = machine(name, run=SHELL, board=board, memory=memory, more=f"""
            <maxMemory slots='3' unit='MiB'>1024</maxMemory>{vcpus}{more}""")
        file = pathlib.Path(self.a.root, f"{name}.xml")
        file.write_text(text)
        self.a.virsh("define", str(file))
        for daemon in (self.a, self.b):
            self.addCleanup(daemon.run_virsh, "undefine", "--managed-save", name)
            self.addCleanup(daemon.run_virsh, "destroy", name)

    def file(self, text):
        path = pathlib.Path(self.a.root, "device.xml")
        path.write_text(text)
        return str(path)

    def up(self, daemon, name, boots=True):
        conn = daemon.connect()
        self.addCleanup(conn.close)
        console = Console(conn, conn.lookupByName(name))
        if boots:
            console.expect(UP)
            console.expect(b"# ")
        return console

    def ask(self, console, command):
        """Output of a command in the guest."""
        at = len(console.seen)
        console.type(b"\n" + command.encode() + b"; echo do''ne-$?; echo ov''er\n")
        console.expect(b"over", at)
        return console.seen[at:].decode(errors="replace").replace("\r", "")

    def guest_has(self, console, cpus):
        switch = "for c in /sys/devices/system/cpu/cpu[0-9]*/online; do echo 1 >$c; done 2>/dev/null; "
        manage.until(lambda: f"\n{cpus}\n" in self.ask(
            console, switch + "cat /sys/devices/system/cpu/online"), f"CPUs {cpus}")

    def guest_memory(self, console, least, most):
        def has():
            text = self.ask(console, "echo ki''b: $(sed -n 's/MemTotal: *//p' /proc/meminfo)")
            return least <= int(re.search(r"\nkib: (\d+)", text)[1]) >> 10 <= most
        manage.until(has, f"{least} to {most} MiB")

    def fewer(self, daemon, name, n, *words):
        """Takes processors away; a busy guest may take longer than virsh waits."""
        p = daemon.run_virsh(*words)
        self.assertTrue(p.returncode == 0 or "timed out" in p.stderr, p.stderr)
        self.counts(daemon, name, n)

    def counts(self, daemon, name, n):
        manage.until(lambda: daemon.virsh("vcpucount", name, "--current", "--live") == str(n), f"{n} CPUs")

    def test_processors(self):
        self.define("cpus", "<vcpu current='1'>4</vcpu><cpu><topology sockets='2' cores='1' threads='2'/></cpu>",
                    board="pc")
        self.a.virsh("start", "cpus")
        console = self.up(self.a, "cpus")
        self.guest_has(console, "0")
        self.a.virsh("setvcpus", "cpus", "3", "--live")
        for _ in range(20):  # those that came wait until they are started, whatever they are asked
            said = self.a.virsh("qemu-monitor-command", "cpus", "--hmp", "info cpus")
            self.assertEqual(len(re.findall(r"CPU #[12]: pc=0x0*fff0 \(halted\)", said)), 2, said)
        self.guest_has(console, "0-2")
        self.assertRegex(self.a.virsh("dominfo", "cpus"), r"CPU\(s\):\s+3")
        self.assertEqual(self.a.virsh("vcpucount", "cpus", "--current", "--live"), "3")
        self.assertEqual(self.a.virsh("vcpucount", "cpus", "--current", "--config"), "1")
        self.assertEqual(re.findall(r"VCPU:\s+(\d+)", self.a.virsh("vcpuinfo", "cpus")), ["0", "1", "2"])
        self.assertIn("vcpu.current=3", self.a.virsh("domstats", "--vcpu", "cpus"))
        xml = self.a.virsh("dumpxml", "cpus")
        self.assertIn("<vcpu placement='static' current='3'>4</vcpu>", xml)
        self.assertIn("<vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>", xml)
        self.assertIn("<vcpu id='2' enabled='yes' hotpluggable='yes' order='3'/>", xml)
        self.assertIn("<vcpu id='3' enabled='no' hotpluggable='yes'/>", xml)
        self.assertNotIn("<vcpus>", self.a.virsh("dumpxml", "--inactive", "cpus"))
        for words, part in ((("setvcpus", "cpus", "5"), "greater than max allowable"),
                            (("setvcpu", "cpus", "2", "--enable"), "already in requested state"),
                            (("setvcpu", "cpus", "0", "--disable"), "can't be modified"),
                            (("setvcpu", "cpus", "7", "--enable"), "not present")):
            self.assertIn(part, self.a.virsh(*words, fails=True))
        self.fewer(self.a, "cpus", 2, "setvcpu", "cpus", "1", "--disable", "--live")
        self.guest_has(console, "0,2")
        ours = subprocess.run([LODGE, "-c", self.a.uri, "setvcpu", "cpus", "3", "--enable", "--live"],
                              capture_output=True, text=True, timeout=manage.PATIENCE)
        self.assertEqual(ours.returncode, 0, ours.stderr)
        self.counts(self.a, "cpus", 3)
        self.a.virsh("vcpupin", "cpus", "3", "0", "--live")
        # Another lodged finds them, also those that went while there was none.
        self.a.kill()
        self.a.start()
        self.counts(self.a, "cpus", 3)
        self.fewer(self.a, "cpus", 2, "setvcpu", "cpus", "2", "--disable", "--live")
        console = self.up(self.a, "cpus", boots=False)
        self.guest_has(console, "0,3")
        self.ask(console, "word=kept")
        self.a.virsh("managedsave", "cpus")
        self.a.virsh("start", "cpus")
        self.counts(self.a, "cpus", 2)
        self.a.virsh("migrate", "--live", "cpus", self.b.uri)
        self.counts(self.b, "cpus", 2)
        console = self.up(self.b, "cpus", boots=False)
        self.assertIn("it-is-kept", self.ask(console, "echo it-is-$word"))
        self.guest_has(console, "0,3")
        self.b.virsh("setvcpus", "cpus", "4", "--live")
        self.guest_has(console, "0-3")
        self.fewer(self.b, "cpus", 1, "setvcpus", "cpus", "1", "--live")
        self.b.virsh("destroy", "cpus")
        # What the definition says of each.
        self.a.virsh("setvcpus", "cpus", "2", "--config", "--hotpluggable")
        self.a.virsh("setvcpu", "cpus", "3", "--enable", "--config")
        xml = self.a.virsh("dumpxml", "cpus")
        self.assertIn("<vcpu placement='static' current='3'>4</vcpu>", xml)
        self.assertIn("<vcpu id='1' enabled='yes' hotpluggable='yes' order='2'/>", xml)
        self.a.virsh("start", "cpus")
        console = self.up(self.a, "cpus")
        self.guest_has(console, "0-2")
        self.assertEqual(re.findall(r"VCPU:\s+(\d+)", self.a.virsh("vcpuinfo", "cpus")), ["0", "1", "3"])
        self.fewer(self.a, "cpus", 1, "setvcpus", "cpus", "1", "--live")

    def test_memory(self):
        cell = """<cpu><numa><cell id='0' cpus='0' memory='160' unit='MiB'/></numa></cpu>"""
        self.define("mem", "<vcpu>1</vcpu>", more=cell)
        self.a.virsh("start", "mem")
        console = self.up(self.a, "mem")
        events = []
        conn = self.a.connect()
        for kind, name in ((libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, "added"),
                           (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, "removed")):
            conn.domainEventRegisterAny(None, kind, lambda _c, _d, alias, name: events.append((name, alias)), name)
        self.a.virsh("attach-device", "mem", self.file(DIMM), "--live", "--config")
        manage.until(lambda: ("added", "dimm0") in events, "event of the module")
        self.guest_memory(console, 160, 288)
        info = self.a.virsh("dominfo", "mem")
        self.assertRegex(info, r"Max memory:\s+294912 KiB")
        self.assertRegex(info, r"Used memory:\s+294912 KiB")
        self.assertIn("balloon.maximum=294912", self.a.virsh("domstats", "--balloon", "mem"))
        xml = self.a.virsh("dumpxml", "mem")
        self.assertIn("<memory unit='KiB'>294912</memory>", xml)
        self.assertIn("<maxMemory slots='3' unit='KiB'>1048576</maxMemory>", xml)
        self.assertRegex(xml, r"<alias name='dimm0'/>\s*<address type='dimm' slot='0' base='0x100000000'/>")
        inactive = self.a.virsh("dumpxml", "--inactive", "mem")
        self.assertIn("<memory model='dimm' access='private'>", inactive)
        self.assertIn("<memory unit='KiB'>294912</memory>", inactive)
        for text, part in ((DIMM.replace(">128<", ">1024<"), "must not be less|exceeds|not enough"),
                           (DIMM.replace("<node>0", "<node>1"), "only '1' NUMA nodes"),
                           (DIMM.replace("</memory>", "<address type='dimm' slot='0'/></memory>"), "already being used"),
                           (DIMM.replace("</memory>", "<address type='dimm' slot='3'/></memory>"), "exceeds slots"),
                           (DIMM.replace(">128<", ">3<"), "multiple of 2 MiB")):
            self.assertRegex(self.a.virsh("attach-device", "mem", self.file(text), "--live", fails=True), part)
        self.a.kill()
        self.a.start()
        self.assertRegex(self.a.virsh("dominfo", "mem"), r"Max memory:\s+294912 KiB")
        self.a.virsh("attach-device", "mem", self.file(DIMM), "--live")
        console = self.up(self.a, "mem", boots=False)
        self.guest_memory(console, 288, 416)
        self.ask(console, "mkdir /m; mount -t tmpfs -o size=300M t /m; yes lodge | head -c 150M >/m/x; word=kept")
        self.a.virsh("managedsave", "mem")
        self.a.virsh("start", "mem")
        self.a.virsh("migrate", "--live", "mem", self.b.uri)
        console = self.up(self.b, "mem", boots=False)
        self.assertIn("it-is-kept", self.ask(console, "echo it-is-$word"))
        self.assertIn("done-1", self.ask(console, "tr -d 'lodge\\n' </m/x | grep -q ."))
        self.ask(console, "rm /m/x")
        self.assertRegex(self.b.virsh("dumpxml", "mem"), r"slot='1' base='0x108000000'")
        p = self.b.run_virsh("detach-device-alias", "mem", "dimm1", "--live")
        self.assertEqual(p.returncode, 0, p.stderr)
        manage.until(lambda: "dimm1" not in self.b.virsh("dumpxml", "mem"), "dimm1 has gone")
        self.assertRegex(self.b.virsh("dominfo", "mem"), r"Max memory:\s+294912 KiB")
        self.b.virsh("detach-device", "mem", self.file(DIMM), "--live")
        manage.until(lambda: "dimm0" not in self.b.virsh("dumpxml", "mem"), "dimm0 has gone")
        self.guest_memory(console, 0, 160)
        self.assertRegex(self.b.virsh("dominfo", "mem"), r"Max memory:\s+163840 KiB")
        self.assertIn("no matching device", self.b.virsh("detach-device", "mem", self.file(DIMM), "--live", fails=True))
        self.b.virsh("destroy", "mem")
        # The definition has its own, from the start on.
        self.a.virsh("start", "mem")
        console = self.up(self.a, "mem")
        self.guest_memory(console, 160, 288)
        self.a.virsh("destroy", "mem")
        self.a.virsh("detach-device", "mem", self.file(DIMM), "--config")
        self.assertNotIn("dimm", self.a.virsh("dumpxml", "mem"))


if __name__ == "__main__":
    unittest.main()
