#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every event that a client may register for is heard by python3-libvirt when its cause occurs; those that are not
told here are told elsewhere (EVERY_EVENT says where)."""
import os
import pathlib
import select
import socket
import struct
import subprocess
import threading
import unittest
import xml.etree.ElementTree as ET

import libvirt
import libvirt_qemu

import manage
from test_actions import SILENCE, firmware
from test_manage_domain import Console, machine, started


class Heard(list):
    """What was told of some kinds of events, oldest first."""

    def of(self, kind):
        return [told for k, *told in self if k == kind]

    def wait(self, kind, *wanted):
        """Until exactly @wanted was told of @kind."""
        manage.until(lambda: len(self.of(kind)) >= len(wanted), f"{kind}: {wanted}, not only {self}")
        assert self.of(kind) == [list(w) for w in wanted], (self.of(kind), wanted)


class Case(manage.FolderCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        manage.hear_events()

    def hear(self, *kinds, dom=None, conn=None):
        """Of domains: by the end of the kinds' names in libvirt."""
        heard = Heard()
        for kind in kinds:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}")
            (conn or self.conn).domainEventRegisterAny(
                dom, number, lambda _c, _d, *told: heard.append((told[-1], *told[:-1])), kind)
        return heard

    def define(self, name, **more):
        dom = self.conn.defineXML(machine(name, **more))
        self.addCleanup(self.forget, name)
        return dom

    def forget(self, name):
        self.daemon.run_virsh("destroy", name)
        self.daemon.run_virsh("undefine", name, "--managed-save", "--snapshots-metadata")


class Guest(Case):
    """What guests do."""

    def test_agent(self):
        """The guest opens and closes the agent's port; what it does while no lodged is there is seen afterwards."""
        channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        dom = self.define("agent", devices="<console type='pty'/>" + channel)
        on, off = (1, libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_CHANNEL), (2, 2)
        born = (2, libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_DOMAIN_STARTED)

        def state():
            return ET.fromstring(self.conn.lookupByName("agent").XMLDesc()).find("devices/channel/target").get("state")
        heard = self.hear("AGENT_LIFECYCLE")
        console = started(self.conn, dom)
        console.expect(b"# ")
        heard.wait("AGENT_LIFECYCLE", born)
        self.assertEqual(state(), "disconnected")
        console.type(b"exec 5<>$(echo /dev/vport*)\n")
        heard.wait("AGENT_LIFECYCLE", born, on)
        self.assertEqual(state(), "connected")
        console.type(b"exec 5>&-\n")
        heard.wait("AGENT_LIFECYCLE", born, on, off)
        self.assertEqual(state(), "disconnected")
        self.daemon.kill()
        pid = self.daemon.machines()
        console = None
        self.daemon.start()
        self.assertEqual(self.daemon.machines(), pid)
        self.conn = self.connect()
        dom = self.conn.lookupByName("agent")
        heard = self.hear("AGENT_LIFECYCLE")
        console = Console(self.conn, dom)
        console.type(b"exec 5<>$(echo /dev/vport*)\n")
        heard.wait("AGENT_LIFECYCLE", on)
        dom.reset()  # a guest that boots has nothing open
        heard.wait("AGENT_LIFECYCLE", on, off)

    def test_what_it_does(self):
        """Clock, balloon, trays, jobs, limits, names: one running guest."""
        iso = self.path("x.iso")
        pathlib.Path(iso).write_bytes(bytes(1 << 20))
        dom = self.define("busy", board="pc", devices=f"""<console type='pty'/><memballoon model='virtio'/>
            <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{iso}'/>
            <target dev='hda' bus='ide'/></disk>
            <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{iso}'/>
            <target dev='vda' bus='virtio'/><readonly/></disk>""")
        console = started(self.conn, dom)
        console.expect(b"# ")
        heard = self.hear("RTC_CHANGE", "BALLOON_CHANGE", "TRAY_CHANGE", "TUNABLE", "METADATA_CHANGE", "JOB_COMPLETED",
                          "DISK_CHANGE", "BLOCK_JOB", "REBOOT")
        console.type(b"date -s 2031-05-06 && hwclock -u -w\n")
        manage.until(lambda: heard.of("RTC_CHANGE"), "the clock is set")
        self.assertGreater(heard.of("RTC_CHANGE")[0][0], 365 * 86400)
        dom.setMemoryFlags(100 << 10)
        manage.until(lambda: [100 << 10] in heard.of("BALLOON_CHANGE"), "the balloon is there")
        console.type(b"echo 1 >/proc/sys/dev/cdrom/autoeject; head -c 1 /dev/sr0\n")  # behind who closes it
        heard.wait("TRAY_CHANGE", ("ide0-0-0", libvirt.VIR_DOMAIN_EVENT_TRAY_CHANGE_OPEN))
        self.assertIn("tray='open'", dom.XMLDesc())
        self.virsh("change-media", "busy", "hda", iso, "--update", "--live", "--force")
        heard.wait("TRAY_CHANGE", ("ide0-0-0", 0), ("ide0-0-0", libvirt.VIR_DOMAIN_EVENT_TRAY_CHANGE_CLOSE))
        heard.wait("DISK_CHANGE", (iso, iso, "ide0-0-0", 0))
        self.assertNotIn("tray=", dom.XMLDesc())
        dom.setBlockIoTune("vda", {"total_bytes_sec": 5000000}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        manage.until(lambda: heard.of("TUNABLE"), "the disk's limit")
        told, = heard.of("TUNABLE")[0]
        self.assertEqual((told["blkdeviotune.disk"], told["blkdeviotune.total_bytes_sec"]), ("vda", 5000000))
        dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "a title", None, None)
        dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<a/>", "k", "urn:x")
        heard.wait("METADATA_CHANGE", (libvirt.VIR_DOMAIN_METADATA_TITLE, None),
                   (libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:x"))
        dom.coreDumpWithFormat(self.path("core"), libvirt.VIR_DOMAIN_CORE_DUMP_FORMAT_RAW, libvirt.VIR_DUMP_MEMORY_ONLY)
        dom.managedSave()
        manage.until(lambda: len(heard.of("JOB_COMPLETED")) == 2, "both jobs")
        (dump,), (save,) = heard.of("JOB_COMPLETED")
        for job, operation in ((dump, libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP), (save, libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE)):
            self.assertEqual((job["operation"], job["success"]), (operation, True))
            self.assertGreater(job["memory_total"], 100 << 20)
            self.assertGreater(job["time_elapsed"], 0)
        self.assertIn("Save", self.virsh("domjobinfo", "busy", "--completed"))
        dom.create()
        with self.assertRaises(libvirt.libvirtError):
            dom.save("/nosuch/folder/file")
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_SAVE_CANCELED])
        self.assertEqual(len(heard.of("JOB_COMPLETED")), 2)  # it never began


class Machines(Case):
    """What machines without any guest do, whose ports the monitor writes."""

    def hmp(self, dom, *lines):
        for line in lines:
            said = libvirt_qemu.qemuMonitorCommand(dom, line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
            self.assertEqual(said, "", line)

    def test_panic(self):
        """And what is told of a machine by its own monitor's words."""
        dom = self.define("panics", devices="<panic model='isa'/>", more="<on_crash>preserve</on_crash>")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        heard, said = self.hear("LIFECYCLE"), []
        number = libvirt_qemu.qemuMonitorEventRegister(
            self.conn, dom, "GUEST_PANICKED", lambda _c, _d, event, *_: said.append(event), None)
        self.hmp(dom, "o /b 0x505 1")
        heard.wait("LIFECYCLE", (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED))
        manage.until(lambda: said == ["GUEST_PANICKED"], "the monitor's own")
        libvirt_qemu.qemuMonitorEventDeregister(self.conn, number)
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED])

    def test_log_goes_too(self):
        dom = self.define("logs")
        log = pathlib.Path(self.daemon.root, "var/log/qemu/logs.log")
        for program in ("virsh", os.environ["LODGE"]):
            for words, there in ([], True), (["--remove-logs"], False):
                dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
                self.assertIn("-name", log.read_text())
                subprocess.run([program, "-c", self.daemon.uri, "destroy", "logs", *words], check=True, capture_output=True,
                               timeout=manage.PATIENCE)
                self.assertEqual(log.exists(), there)

    def test_sleep_to_disk(self):
        """S4: what the guest wants to keep is on its disk, and the machine goes off."""
        dom = self.define("sleeps", more="<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/></pm>")
        console = started(self.conn, dom)
        console.expect(b"# ")
        with self.assertRaisesRegex(libvirt.libvirtError, "S3 state is disabled"):
            dom.pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_MEM, 0)
        with self.assertRaisesRegex(libvirt.libvirtError, "agent is not configured"):
            dom.pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_DISK, 0)
        heard = self.hear("LIFECYCLE", "PMSUSPEND_DISK")
        self.hmp(dom, "o /w 0x604 0x2800")
        heard.wait("PMSUSPEND_DISK", (0,))
        heard.wait("LIFECYCLE", (libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED, libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED_DISK),
                   (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST),
                   (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN))
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN])

    def test_watchdog(self):
        """Firmware of a few bytes winds the watchdog up and falls silent."""
        rom = self.path("rom")
        firmware(rom, SILENCE)
        for action, told in (("none", libvirt.VIR_DOMAIN_EVENT_WATCHDOG_NONE),
                             ("pause", libvirt.VIR_DOMAIN_EVENT_WATCHDOG_PAUSE)):
            dom = self.conn.defineXML(f"""<domain type='qemu'><name>barks</name><memory unit='MiB'>16</memory>
                <os><type machine='pc'>hvm</type><loader type='rom'>{rom}</loader></os><devices>
                <watchdog model='i6300esb' action='{action}'><address type='pci' domain='0' bus='0' slot='5' function='0'/>
                </watchdog></devices></domain>""")
            self.addCleanup(self.forget, "barks")
            heard = self.hear("WATCHDOG", "LIFECYCLE", dom=dom)
            dom.create()
            heard.wait("WATCHDOG", (told,))
            if action == "pause":
                manage.until(lambda: dom.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG], "pause")
                why = [libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG]
                manage.until(lambda: why in heard.of("LIFECYCLE"), "the reason")
            dom.destroy()
            dom.undefine()

    def test_lost_control(self):
        """A monitor that hangs up while its machine runs: the machine runs on, and is known not to be in hand."""
        dom = self.define("lost")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        door = f"{self.daemon.root}/run/qemu/{dom.UUIDString()}/qmp"
        pid, = self.daemon.machines()
        self.daemon.kill()
        os.rename(door, door + ".real")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as real:
            listener.bind(door)
            os.chown(door, *(os.stat(door + ".real").st_uid,) * 2)
            listener.listen(1)
            real.connect(door + ".real")
            self.daemon.start()
            lodged = listener.accept()[0]
            ends = {lodged: real, real: lodged}

            def relay():
                while True:
                    for end in select.select(ends, [], [])[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        ends[end].sendall(data)
            thread = threading.Thread(target=relay)
            thread.start()
            self.conn = self.connect()
            heard = self.hear("CONTROL_ERROR", "LIFECYCLE")
            manage.until(lambda: self.virsh("domcontrol", "lost") == "ok", "it is in hand again")
            lodged.shutdown(socket.SHUT_RDWR)
            heard.wait("CONTROL_ERROR", ())
            thread.join()
            lodged.close()
        self.assertIn("error", self.virsh("domcontrol", "lost"))
        self.assertEqual(heard.of("LIFECYCLE"), [])
        self.assertEqual(self.daemon.machines(), [pid])
        self.virsh("destroy", "lost")
        heard.wait("LIFECYCLE", (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED))

    def test_a_module_that_stays(self):
        """A guest that refuses to give a memory module back says so by ACPI's _OST, which is written here."""
        dom = self.define("keeps", more="""<maxMemory slots='2' unit='MiB'>512</maxMemory>
            <cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>""", devices="""<console type='pty'/>
            <memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>""")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        heard = self.hear("DEVICE_REMOVAL_FAILED")
        self.hmp(dom, "o /w 0xa00 0", "o /w 0xa04 3", "o /w 0xa08 1")
        heard.wait("DEVICE_REMOVAL_FAILED", ("dimm0",))
        self.assertIn("dimm0", dom.XMLDesc())


class Others(Case):
    """What is no domain's."""

    def test_node_devices(self):
        """A pair of links that comes, is told to have changed, and goes; one of them under a name of its own."""
        one, other = f"lev{os.getpid() % 10000}a", f"lev{os.getpid() % 10000}b"
        mac = "02:00:00:6c:65:76"
        name = f"net_{one}_{mac.replace(':', '_')}"
        heard, only = Heard(), Heard()

        def lifecycle(_c, dev, event, detail, into):
            into.append(("lifecycle", dev.name(), event, detail))
        self.conn.nodeDeviceEventRegisterAny(None, libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE, lifecycle, heard)
        self.conn.nodeDeviceEventRegisterAny(None, libvirt.VIR_NODE_DEVICE_EVENT_ID_UPDATE,
                                             lambda _c, dev, into: into.append(("update", dev.name())), heard)

        def link(*words, check=True):
            subprocess.run(["ip", "link", *words], check=check, capture_output=True)
        self.addCleanup(link, "del", one, check=False)
        link("add", one, "address", mac, "type", "veth", "peer", "name", other)
        created = ["lifecycle", name, libvirt.VIR_NODE_DEVICE_EVENT_CREATED, 0]
        manage.until(lambda: tuple(created) in heard, f"{name} comes: {heard}")
        dev = self.conn.nodeDeviceLookupByName(name)
        self.conn.nodeDeviceEventRegisterAny(dev, libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE, lifecycle, only)
        pathlib.Path(f"/sys/class/net/{one}/uevent").write_text("change")
        manage.until(lambda: ("update", name) in heard, "the change")
        link("set", one, "name", one[:-1] + "z")
        manage.until(lambda: ("lifecycle", name.replace(one, one[:-1] + "z"), 0, 0) in heard, "the new name")
        gone = ("lifecycle", name, libvirt.VIR_NODE_DEVICE_EVENT_DELETED, 0)
        self.assertIn(gone, heard)
        link("del", other)
        manage.until(lambda: any(n.startswith(f"net_{other}_") and e == 1 for _, n, e, *_ in
                                 [h for h in heard if h[0] == "lifecycle"]), "the peer goes")
        self.assertEqual(only, [gone])
        self.assertEqual(heard.count(tuple(created)), 1)

    def test_secrets(self):
        heard = Heard()
        self.conn.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE,
                                         lambda _c, _s, event, detail, _o: heard.append(("life", event, detail)), None)
        self.conn.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_VALUE_CHANGED,
                                         lambda _c, _s, _o: heard.append(("value",)), None)
        secret = self.conn.secretDefineXML("<secret ephemeral='yes'><usage type='volume'><volume>/x</volume></usage></secret>")
        secret.setValue(b"words")
        secret.undefine()
        heard.wait("life", (libvirt.VIR_SECRET_EVENT_DEFINED, 0), (libvirt.VIR_SECRET_EVENT_UNDEFINED, 0))
        heard.wait("value", ())
        self.assertEqual([kind for kind, *_ in heard], ["life", "value", "life"])

    def test_what_never_comes(self):
        """Is refused by name, and who wants all gets what there is."""
        for number, name in ((25, "memory-failure"), (26, "memory-device-size-change")):
            with self.assertRaisesRegex(libvirt.libvirtError, f"not supported.*the event {name}"):
                self.conn.domainEventRegisterAny(None, number, lambda *_: None, None)
        for number in range(25):
            self.conn.domainEventDeregisterAny(self.conn.domainEventRegisterAny(None, number, lambda *_: None, None))
        for program in ("virsh", os.environ["LODGE"]):
            p = subprocess.run([program, "-c", self.daemon.uri, "event", "--all", "--timeout", "1"], capture_output=True,
                               text=True, timeout=manage.PATIENCE)
            self.assertEqual((p.stdout.strip(), p.stderr), ("event loop timed out\nevents received: 0", ""), program)
            p = subprocess.run([program, "-c", self.daemon.uri, "event", "--event", "memory-failure"], capture_output=True,
                               text=True, timeout=manage.PATIENCE)
            self.assertIn("the event memory-failure", p.stderr)
        wire = manage.Wire(self.daemon.socket)
        self.addCleanup(wire.close)
        self.assertEqual(wire.call(1, struct.pack(">2I", 0, 0))[0], 0)
        self.assertEqual(wire.call(313, struct.pack(">2I", 1, 0))[0], libvirt.VIR_ERR_NO_SUPPORT)


class End(manage.Case):
    def test_connection_closed(self):
        """Who asked for it gets a word before lodged hangs up; python3-libvirt makes its callback of that."""
        manage.hear_events()
        conn, seen = self.daemon.connect(), []
        conn.registerCloseCallback(lambda _c, reason, _o: seen.append(reason), None)
        wires = []
        for asks in (True, False):
            wire = manage.Wire(self.daemon.socket)
            self.addCleanup(wire.close)
            self.assertEqual(wire.call(1, struct.pack(">2I", 0, 0))[0], 0)
            self.assertEqual(wire.call(360)[0], 0)
            if not asks:
                self.assertEqual(wire.call(361)[0], 0)
            wires.append(wire)
        self.daemon.stop()
        program, procedure, kind, serial, status, body = wires[0].receive()
        self.assertEqual((program, procedure, kind, serial, status), (manage.Wire.REMOTE, 362, 2, 0, 0))
        self.assertEqual(struct.unpack(">I", body)[0], libvirt.VIR_CONNECT_CLOSE_REASON_EOF)
        for wire in wires:
            self.assertIsNone(wire.receive())
        manage.until(lambda: seen, "the callback")
        self.assertEqual(seen, [libvirt.VIR_CONNECT_CLOSE_REASON_EOF])
        conn.close()


if __name__ == "__main__":
    unittest.main()
