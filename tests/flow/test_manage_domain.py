#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines through lodged, with virsh and python3-libvirt: their lives from define to undefine,
what happens to them when lodged or their own process dies, their consoles and saved states."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import unittest
import xml.etree.ElementTree as ET

import libvirt
import libvirt_qemu

import guest
import manage

GUEST = pathlib.Path(os.environ.get("LODGE_BUILD", "build")).resolve() / "guests" / "tiny"
UP = b"lodge-guest: user space is up"


def machine(name, run="shell", devices="<console type='pty'/>", more="", memory=128, board="q35",
            initrd=GUEST / "initrd"):
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <os><type machine='{board}'>hvm</type>
    <kernel>{GUEST}/vmlinuz</kernel><initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 panic=-1 lodge.run={run}</cmdline></os>
  <features><acpi/><apic/></features>{more}
  <devices>{devices}</devices>
</domain>"""


def with_modules(folder, *names):
    """The initramfs with more modules of its kernel, as /NAME.ko."""
    modules = next((GUEST / "root/lib/modules").glob("*/kernel"))
    more = {f"{n}.ko": next(modules.rglob(f"{n}.ko")).read_bytes() for n in names}
    old, path = (GUEST / "initrd").read_bytes(), pathlib.Path(folder, "initrd")
    path.write_bytes(old + bytes(-len(old) % 4) + guest.cpio(more))
    return path


def children_of(pid):
    """Those of all threads, as far as they can still be seen."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found += pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            pass
    return found


def ticks_of(pid):
    """CPU time of a process itself; 0 if it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


class Console:
    """The text of a machine's console, read over the stream API."""

    def __init__(self, conn, dom, flags=libvirt.VIR_DOMAIN_CONSOLE_FORCE):
        self.stream = conn.newStream()
        dom.openConsole(None, self.stream, flags)
        self.seen = b""

    def expect(self, text, after=0):
        while text not in self.seen[after:]:
            got = self.stream.recv(4096)
            if not got:
                raise AssertionError(f"the console ended before {text}: {self.seen[-2000:]}")
            self.seen += got

    def type(self, text):
        self.stream.send(text)


def started(conn, dom):
    """Starts @dom; its console from the first byte on, for what a guest says to nobody is lost."""
    dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    return resumed(conn, dom)


def resumed(conn, dom):
    """The same of one that is paused."""
    console = Console(conn, dom)
    dom.resume()
    return console


class Domains(manage.Case):
    def setUp(self):
        self.conn = self.connect()

    def define(self, name, **more):
        dom = self.conn.defineXML(machine(name, **more))
        self.addCleanup(self.forget, name)
        return dom

    def forget(self, name):
        try:
            dom = self.daemon.connect().lookupByName(name)
            if dom.isActive():
                dom.destroy()
            if dom.isPersistent():
                dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
                                  libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        except libvirt.libvirtError:
            pass

    def fails(self, code, call, *args):
        with self.assertRaises(libvirt.libvirtError) as caught:
            call(*args)
        self.assertEqual(caught.exception.get_error_code(), code, caught.exception)
        return str(caught.exception)

    def state(self, dom, *wanted):
        manage.until(lambda: tuple(dom.state()) == wanted, f"state {wanted}")

    def test_life(self):
        file = pathlib.Path(self.daemon.root, "life.xml")
        file.write_text(machine("life", devices="<console type='pty'/><graphics type='vnc'/>"))
        self.addCleanup(self.forget, "life")
        self.assertIn("Domain 'life' defined", self.virsh("define", str(file)))
        self.assertRegex(self.virsh("list", "--all"), r"-\s+life\s+shut off")
        self.assertIn("Domain 'life' started", self.virsh("start", "life"))
        self.assertRegex(self.virsh("list"), r"\d+\s+life\s+running")
        info = self.virsh("dominfo", "life")
        self.assertRegex(info, r"State:\s+running")
        self.assertRegex(info, r"Max memory:\s+131072 KiB")
        self.assertEqual(self.virsh("domstate", "life", "--reason"), "running (booted)")
        self.assertRegex(self.virsh("vncdisplay", "life"), r"127\.0\.0\.1:\d+")
        self.assertRegex(self.virsh("ttyconsole", "life"), r"/dev/pts/\d+")
        self.virsh("suspend", "life")
        self.assertEqual(self.virsh("domstate", "life", "--reason"), "paused (user)")
        self.virsh("resume", "life")
        self.assertEqual(self.virsh("domstate", "life", "--reason"), "running (unpaused)")
        self.assertIn("Requested operation is not valid: domain is already running",
                      self.virsh("resume", "life", fails=True))
        for verb in ("shutdown", "reboot"):
            self.assertIn("unsupported flags (0x4)", self.virsh(verb, "life", "--mode", "initctl", fails=True))
        self.virsh("reset", "life")
        self.assertIn("already active", self.virsh("start", "life", fails=True))
        self.virsh("destroy", "life")
        self.assertEqual(self.virsh("domstate", "life", "--reason"), "shut off (destroyed)")
        self.assertIn("domain is not running", self.virsh("destroy", "life", fails=True))
        self.virsh("undefine", "life")
        self.assertIn("failed to get domain 'life'", self.virsh("dominfo", "life", fails=True))

    def test_xml_validates_and_round_trips(self):
        dom = self.define("valid", devices="""<console type='pty'/><graphics type='vnc'/>
            <interface type='user'><model type='virtio'/></interface>
            <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
            <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>""")
        for live in (False, True):
            if live:
                dom.create()
            file = pathlib.Path(self.daemon.root, "valid.xml")
            file.write_text(dom.XMLDesc())
            p = subprocess.run(["virt-xml-validate", str(file), "domain"], capture_output=True,
                               text=True)
            self.assertEqual(p.returncode, 0, p.stderr + file.read_text())
        inactive = dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self.conn.defineXML(inactive)
        self.assertEqual(inactive, dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def test_sleep_states(self):
        """<pm> decides whether Linux finds S3."""
        for name, board, mem, shown in (("awake", "q35", "no", b"[s2idle]\r"),
                                        ("drowsy", "pc", "yes", b"s2idle [deep]")):
            dom = self.define(name, board=board, more=f"<pm><suspend-to-mem enabled='{mem}'/></pm>")
            console = started(self.conn, dom)
            console.expect(UP)
            console.expect(b"# ")
            console.type(b"cat /sys/power/mem_sleep; echo as''ked\n")
            console.expect(b"asked")
            self.assertIn(shown, console.seen)

    def test_errors(self):
        self.fails(42, self.conn.lookupByName, "nobody")
        self.fails(42, self.conn.lookupByUUIDString, "00000000-0000-4000-8000-000000000001")
        self.fails(42, self.conn.lookupByID, 4711)
        text = self.fails(35, self.conn.defineXML, "<domain type='qemu'>\n  <name>x</nam>\n</domain>")
        self.assertRegex(text, r"\(domain_definition\):2:\d+: ")
        text = self.fails(67, self.conn.defineXML, machine("x", devices="<tpm model='tpm-crb'/>"))
        self.assertIn("<tpm>", text)
        dom = self.define("twin")
        self.fails(9, self.conn.defineXML, machine("twin", more="<title>another</title>"))
        self.fails(55, dom.destroy)
        self.fails(55, dom.suspend)
        bad = self.define("bad", devices="<disk><source file='/nowhere/x'/><target dev='vda'/></disk>")
        self.assertIn("/nowhere/x", self.fails(38, bad.create))
        self.assertEqual(bad.state(), [libvirt.VIR_DOMAIN_SHUTOFF, 0])
        for i, (what, more, devices) in enumerate((
                ("features/pmu", "<features><pmu state='on'/></features>", ""),
                ("passwdValidTo", "", "<graphics type='vnc' passwdValidTo='2030-01-01T00:00:00'/>"),
                ("transport 'tls'", "", "<disk type='network'><source protocol='nbd' name='x'><host name='localhost' "
                 "transport='tls'/></source><target dev='vdq'/></disk>"),
                ("<bandwidth> of an interface of type 'user'", "", "<interface type='user'><bandwidth>"
                 "<inbound average='100'/></bandwidth></interface>"),
                ("@frequency", "<clock offset='utc'><timer name='tsc' frequency='1000000'/></clock>", ""))):
            wish = self.define(f"wish{i}", more=more, devices=devices)
            self.assertIn(what, self.fails(67, wish.create))
        self.assertEqual(self.daemon.machines(), [])

    def test_console_and_shutdown(self):
        dom = self.define("talks", initrd=with_modules(self.daemon.root, "button", "evdev"))
        console = started(self.conn, dom)
        console.expect(UP)
        console.expect(b"# ")
        console.type(b"echo $((6*7))-was-asked\n")
        console.expect(b"42-was-asked")
        console.type(b"insmod /button.ko; insmod /evdev.ko; for e in /dev/input/event*; do "
                     b"exec 3<$e; (dd bs=24 count=1 <&3 >/dev/null 2>&1; poweroff -f) & done; echo list''ens\n")
        console.expect(b"\nlistens")
        dom.shutdown()
        self.state(dom, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)

    def test_one_console_at_a_time(self):
        first = started(self.conn, self.define("watched"))
        first.expect(b"# ")
        other = self.connect()
        dom = other.lookupByName("watched")
        for flags in (0, libvirt.VIR_DOMAIN_CONSOLE_SAFE):
            self.assertIn("Active console session exists for this domain", self.fails(9, Console, other, dom, flags))
        second = Console(other, dom, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        while first.stream.recv(4096):
            pass
        first.type(b"echo nobo''dy\n")
        first.stream.finish()
        second.type(b"echo he''ard\n")
        second.expect(b"\nheard")
        self.assertNotIn(b"nobody", second.seen)
        second.stream.finish()
        Console(other, dom, 0).stream.finish()

    def test_what_is_not_done_is_refused(self):
        dom, file = self.define("cached"), os.path.join(self.daemon.root, "cached.save")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.assertIn("not outgoing migration in post-copy mode",
                      self.fails(55, dom.abortJobFlags, libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY))
        for verb in (["save", "cached", file], ["managedsave", "cached"], ["restore", file]):
            self.assertIn("past the host's cache", self.virsh(*verb, "--bypass-cache", fails=True))
        self.virsh("managedsave", "cached")
        self.assertIn("past the host's cache", self.virsh("start", "cached", "--bypass-cache", fails=True))

    def test_variables_as_new(self):
        self.addCleanup(self.forget, "flash")
        dom = self.conn.defineXML(machine("flash", devices="").replace("<os>", "<os firmware='efi'>"))
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        path = pathlib.Path(ET.fromstring(dom.XMLDesc()).findtext("os/nvram"))
        new = path.read_bytes()
        for flag, kept in ((0, True), (libvirt.VIR_DOMAIN_START_RESET_NVRAM, False)):
            dom.destroy()
            path.write_bytes(b"mine" + new[4:])
            dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED | flag)
            self.assertEqual(path.read_bytes()[:4] == b"mine", kept)
        self.assertEqual(path.read_bytes(), new)
        dom.destroy()
        self.fails(55, dom.undefine)  # "cannot undefine domain with nvram"
        dom.rename("flashed")  # they go with its name
        self.assertFalse(path.exists())
        moved = pathlib.Path(ET.fromstring(dom.XMLDesc()).findtext("os/nvram"))
        self.assertEqual((moved.name, moved.read_bytes()), ("flashed_VARS.fd", new))
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        self.assertFalse(moved.exists())

    def test_hot_program_has_a_process(self):
        """In spite of the sandbox that all machines have, and its time is the machine's."""
        dom = self.define("computes")
        console = started(self.conn, dom)
        console.expect(b"# ")
        console.type(b"(i=0; while :; do i=$((i + 1)); done) & echo comp''utes\n")
        console.expect(b"\ncomputes")
        pid, tick = self.daemon.machines()[0], 10**9 // os.sysconf("SC_CLK_TCK")
        manage.until(lambda: any(ticks_of(child) > 20 for child in children_of(pid)), "no program computes in a process")
        jit = json.loads(libvirt_qemu.qemuMonitorCommand(dom, '{"execute": "query-jit"}', 0))["return"]
        self.assertGreater(sum(cpu["direct"] for cpu in jit["cpus"]), 0)
        own = ticks_of(pid)
        self.assertGreaterEqual(dom.info()[4], (own + 20) * tick)
        spent = dom.vcpus()[0][0][2]
        console.type(b"kill $!; wait; exec 2>&1; echo is-o''ver\n")
        console.expect(b"is-over")
        self.assertGreaterEqual(dom.vcpus()[0][0][2], spent)
        dom.destroy()

    def test_guest_powers_off(self):
        dom = self.define("ends", run="poweroff")
        dom.create()
        self.state(dom, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)

    def test_transient(self):
        dom = self.conn.createXML(machine("brief"), libvirt.VIR_DOMAIN_START_PAUSED)
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_PAUSED)
        self.assertFalse(dom.isPersistent())
        self.fails(55, dom.setAutostart, 1)
        dom.destroy()
        self.fails(42, self.conn.lookupByName, "brief")

    def test_ends_with_its_client(self):
        defined = self.define("tied")
        other = self.daemon.connect()
        brief = other.createXML(machine("tied-too"), libvirt.VIR_DOMAIN_START_AUTODESTROY)
        self.assertTrue(brief.isActive())
        other.lookupByName("tied").createWithFlags(libvirt.VIR_DOMAIN_START_AUTODESTROY)
        self.assertTrue(defined.isActive())
        brief = None
        other.close()
        self.state(defined, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED)
        manage.until(lambda: "tied-too" not in self.virsh("list", "--all", "--name"), "it is gone")

    def test_lodged_is_killed(self):
        dom = self.define("survivor")
        dom.create()
        uuid, number, tty = dom.UUIDString(), dom.ID(), self.virsh("ttyconsole", "survivor")
        pids = self.daemon.machines()
        self.assertEqual(len(pids), 1)
        self.daemon.kill()
        os.kill(pids[0], 0)
        self.daemon.start()
        self.conn = self.connect()
        dom = self.conn.lookupByUUIDString(uuid)
        self.assertEqual(dom.ID(), number)
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        self.assertEqual(self.virsh("ttyconsole", "survivor"), tty)
        dom.suspend()
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_PAUSED)
        dom.resume()
        self.daemon.kill()
        os.kill(pids[0], signal.SIGKILL)  # while nobody looks
        manage.until(lambda: not self.daemon.machines(), "its process is gone")
        self.daemon.start()
        self.conn = self.connect()
        manage.until(lambda: self.conn.lookupByName("survivor").state()[0] == libvirt.VIR_DOMAIN_SHUTOFF,
                     "its end is noticed")

    def test_machine_is_killed(self):
        dom = self.define("victim")
        dom.create()
        for pid in self.daemon.machines():
            os.kill(pid, signal.SIGKILL)
        self.state(dom, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
        self.assertIn("victim: lodge-vm", self.daemon.log())

    def test_stopped_machine_delays_nobody(self):
        dom = self.define("hangs")
        other = self.define("fine")
        dom.create()
        other.create()
        pid = next(p for p in self.daemon.machines()
                   if b"guest=hangs" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes())
        os.kill(pid, signal.SIGSTOP)
        asks = threading.Thread(target=lambda: self.fails(9, self.daemon.connect()
                                                          .lookupByName("hangs").suspend))
        asks.start()
        other.suspend()
        other.resume()
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
        dom.destroy()
        asks.join()
        self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_SHUTOFF)

    def test_saved(self):
        dom = self.define("sleeper")
        console = started(self.conn, dom)
        console.expect(b"# ")
        console.type(b"remembered=yes\n")
        console.expect(b"# ")
        path = os.path.join(self.daemon.root, "sleeper.save")
        dom.save(path)
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED])
        self.assertIn("<name>sleeper</name>", self.conn.saveImageGetXMLDesc(path))
        self.conn.restore(path)
        console = Console(self.conn, dom)
        console.type(b"echo is-$remembered\n")
        console.expect(b"is-yes")
        shutil.copy(path, path + ".cut")
        os.truncate(path + ".cut", os.path.getsize(path) // 2)
        dom.destroy()
        text = self.fails(9, self.conn.restore, path + ".cut")
        self.assertRegex(text, f"'{path}.cut' cannot be loaded: the state (ends after|is damaged)")
        self.conn.restore(path)
        dom.managedSave()
        self.assertTrue(dom.hasManagedSaveImage())
        dom.create()
        self.assertFalse(dom.hasManagedSaveImage())
        console = Console(self.conn, dom)
        console.type(b"echo still-$remembered\n")
        console.expect(b"still-yes")
        self.fails(9, self.conn.restore, os.path.join(self.daemon.root, "lodged.log"))

    def test_screen(self):
        dom = self.define("screen", devices="<graphics type='vnc'/><video><model type='vga'/></video>")
        dom.create()
        stream = self.conn.newStream()
        self.assertEqual(dom.screenshot(stream, 0), "image/x-portable-pixmap")
        self.assertEqual(stream.recv(2), b"P6")
        dom.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 0, [28], 1)
        fd = dom.openGraphicsFD(0)
        self.assertEqual(os.read(fd, 4), b"RFB ")
        os.close(fd)
        ours, theirs = socket.socketpair()  # the older way: the client brings the socket
        with ours, theirs:
            dom.openGraphics(0, theirs.fileno(), 0)
            theirs.close()
            hello = b""
            while len(hello) < 12:
                hello += ours.recv(12 - len(hello))
            ours.sendall(hello)  # we speak that version too
            self.assertGreater(len(ours.recv(1)), 0)  # what it offers
            dom.destroy()
            while ours.recv(4096):
                pass

    def test_screen_for_browsers(self):
        """On a port that is chosen; keys of layouts that there are not are refused at once."""
        self.assertIn("keymap='de'", self.fails(67, self.conn.defineXML, machine(
            "keys", devices="<graphics type='vnc' keymap='de'/>")))
        dom = self.define("web", devices="<graphics type='vnc' port='-1' websocket='-1'/>")
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        port = int(ET.fromstring(dom.XMLDesc()).find("devices/graphics").get("websocket"))
        with socket.create_connection(("127.0.0.1", port), manage.PATIENCE):
            pass
        kept = ET.fromstring(dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).find("devices/graphics")
        self.assertEqual(kept.get("websocket"), "-1")
        dom.destroy()

    def test_autostart(self):
        dom = self.define("early")
        dom.setAutostart(1)
        self.assertTrue(dom.autostart())
        self.daemon.stop()
        os.unlink(f"{self.daemon.root}/run/qemu/autostarted")  # as if the host had booted
        self.daemon.start()
        self.conn = self.connect()
        dom = self.conn.lookupByName("early")
        self.state(dom, libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)


class Events(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        manage.hear_events()

    def hear(self, conn, *kinds):
        """What is told from now on, as (kind, what comes with it)."""
        seen = []
        for kind in kinds:
            conn.domainEventRegisterAny(None, kind, lambda _c, _d, *told: seen.append((told[-1], *told[:-1])), kind)
        return seen

    def all_of(self, seen, wanted):
        manage.until(lambda: len(seen) >= len(wanted), f"all of {wanted}, not only {seen}")
        self.assertEqual(seen, wanted)

    def test_order(self):
        conn = self.connect()
        life = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        seen = self.hear(conn, life)
        dom = conn.defineXML(machine("heard"))
        dom.create()
        dom.suspend()
        dom.resume()
        dom.destroy()
        dom.undefine()
        self.all_of(seen, [(life, *told) for told in ((0, 0), (2, 0), (3, 0), (4, 0), (5, 1), (1, 0))])

    def test_killed(self):
        conn, life = self.connect(), libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        conn.createXML(machine("dies"))
        seen = self.hear(conn, life)
        pid, = self.daemon.machines()
        os.kill(pid, signal.SIGKILL)
        self.all_of(seen, [(life, libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED)])

    def test_reset_is_told(self):
        conn, reboot = self.connect(), libvirt.VIR_DOMAIN_EVENT_ID_REBOOT
        dom = conn.createXML(machine("resets"))
        self.addCleanup(dom.destroy)
        seen = self.hear(conn, reboot)
        dom.reset(0)
        self.all_of(seen, [(reboot,)])

    def test_sleep_is_told(self):
        """S3, which lodged finds again after a restart; a wake-up that it is told of."""
        conn = self.connect()
        dom = conn.defineXML(machine("naps", board="pc", more="<pm><suspend-to-mem enabled='yes'/></pm>"))
        self.addCleanup(lambda: self.daemon.run_virsh("destroy", "naps"))
        life, down = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_PMSUSPEND
        console = started(conn, dom)
        console.expect(b"# ")
        seen = self.hear(conn, life, down)
        console.type(b"echo mem > /sys/power/state; echo wo''ken\n")
        self.all_of(seen, [(down, 0), (life, libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED, 0)])
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_PMSUSPENDED, 0])
        for call in (dom.suspend, dom.resume):
            with self.assertRaisesRegex(libvirt.libvirtError, "domain is pmsuspended"):
                call()
        self.daemon.kill()
        self.daemon.start()
        conn = self.connect()
        dom = conn.lookupByName("naps")
        manage.until(lambda: dom.state() == [libvirt.VIR_DOMAIN_PMSUSPENDED, 0], "it is found asleep")
        up = libvirt.VIR_DOMAIN_EVENT_ID_PMWAKEUP
        seen = self.hear(conn, life, up)
        console = Console(conn, dom)
        dom.pMWakeup()
        self.all_of(seen, [(up, 0), (life, libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_WAKEUP)])
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_WAKEUP])
        console.expect(b"\nwoken")

    def test_viewer_is_told(self):
        conn, told = self.connect(), libvirt.VIR_DOMAIN_EVENT_ID_GRAPHICS
        dom = conn.createXML(machine("seen", devices="<graphics type='vnc'/>"))
        self.addCleanup(dom.destroy)
        seen = self.hear(conn, told)
        port = int(ET.fromstring(dom.XMLDesc()).find("devices/graphics").get("port"))
        with socket.create_connection(("127.0.0.1", port), manage.PATIENCE) as s, s.makefile("rb") as f:
            s.sendall(f.read(12))
            self.assertIn(1, f.read(f.read(1)[0]))
            s.sendall(b"\1")
            self.assertEqual(f.read(4), bytes(4))
            s.sendall(b"\1")
            f.read(24)
            manage.until(lambda: len(seen) == 2, "it is let in")
        manage.until(lambda: len(seen) == 3, "it is gone")
        self.assertEqual([phase for _, phase, *_ in seen], [0, 1, 2])
        for _, _, local, remote, auth, subject in seen:
            self.assertEqual((local["family"], local["node"], local["service"]), (0, "127.0.0.1", str(port)))
            self.assertEqual((remote["family"], remote["node"]), (0, "127.0.0.1"))
            self.assertEqual((auth, subject), ("none", []))


if __name__ == "__main__":
    unittest.main()
