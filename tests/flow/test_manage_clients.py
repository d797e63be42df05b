#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that people use, unmodified: virt-install brings Debian to its login, virt-xml and virt-clone
change machines, virt-xml-validate finds nothing, virt-manager and virt-viewer show a screen under Xvfb.
All of it happens in a network name space of our own, so that the default network is ours alone."""
import ctypes
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import unittest
import zlib

import libvirt

import manage
from test_manage_domain import Console, machine

BUILD = pathlib.Path(os.environ.get("LODGE_BUILD", "build")).resolve()
DISK = BUILD / "guests/debian/disk.raw"
IMG, LODGE = os.environ["LODGE_IMG"], os.environ["LODGE"]
BOOT = 600  # seconds that Debian may take on a busy host
CLONE_NEWNET = 0x40000000


def setUpModule():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network name space of our own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def image(path, size=None, backing=None):
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", *(["-b", backing, "-F", "raw"] if backing else []), path,
                    *([size] if size else [])], check=True)
    return path


class Client(manage.Case):
    """One lodged, and programs that are told its URI."""
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = os.path.join(cls.daemon.root, "home")
        os.mkdir(cls.home, 0o700)
        cls.env = {**os.environ, "HOME": cls.home, "XDG_RUNTIME_DIR": cls.home, "XDG_CACHE_HOME": cls.home,
                   "LC_ALL": "C.UTF-8"}
        cls.conn = cls.daemon.connect()
        cls.addClassCleanup(cls.conn.close)

    def run_client(self, program, *args):
        p = subprocess.run([program, "--connect", self.daemon.uri, *args], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=BOOT, env=self.env, check=False)
        self.assertEqual(p.returncode, 0, f"{program} {args}: {p.stdout}{p.stderr}{self.daemon.log()}")
        return p.stdout

    def install(self, name, *args):
        """virt-install as it is used, with the newest Debian that its database knows."""
        known = subprocess.run(["osinfo-query", "--fields=short-id", "os"], capture_output=True, text=True,
                               check=True).stdout
        system = "debian12" if re.search(r"\bdebian12\b", known) else "debian11"
        return self.run_client("virt-install", "--import", "--name", name, "--osinfo", system,
                               "--noautoconsole", *args)

    def validate(self, kind, text):
        path = pathlib.Path(self.daemon.root, "validate.xml")
        path.write_text(text)
        p = subprocess.run(["virt-xml-validate", str(path), kind], capture_output=True, text=True, check=False)
        self.assertEqual(p.returncode, 0, f"{kind}: {p.stdout}{p.stderr}{text}")


AGENT = "/usr/sbin/qemu-ga"


def agent_disk(folder):
    """A file system with what Debian's qemu-guest-agent installs, and the libraries that it needs."""
    tree, path = os.path.join(folder, "agent"), os.path.join(folder, "agent.raw")
    text = subprocess.run(["ldd", AGENT], capture_output=True, text=True, check=True).stdout
    libraries = [f for f in re.findall(r"=> (/\S+)", text) if not re.search(r"/lib(c|m)\.so", f)]
    for there, files in (("usr/sbin", [AGENT]), ("usr/local/lib", libraries),
                         ("etc/systemd/system", ["/lib/systemd/system/qemu-guest-agent.service"]),
                         ("etc/udev/rules.d", ["/lib/udev/rules.d/60-qemu-guest-agent.rules"])):
        os.makedirs(f"{tree}/{there}")
        for file in files:
            shutil.copy(file, f"{tree}/{there}")
    with open(path, "wb") as f:
        f.truncate(32 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path], check=True)
    os.chmod(path, 0o666)
    return path


class Debian(Client):
    """
    What virt-install writes by default for a Debian guest runs whole, on both boards; on one of them Debian's agent,
    as its own package starts it.
    """

    # A command in the guest, and what it must print: a modern virtio device's id is 0x1040 and its kind.
    PCI = "cat /sys/bus/pci/devices/*/modalias"
    WHOLE = (("cat /sys/class/virtio-ports/*/name", (b"org.qemu.guest_agent.0",)),
             (PCI, (b"v00001B36d0000000D", b"v00001AF4d00001050")),
             ("cat /sys/bus/virtio/devices/*/device", (b"0x0001", b"0x0002", b"0x0003", b"0x0004", b"0x0005",
                                                       b"0x0010")),
             ("until ip -4 -o addr show | grep 192.168.122; do sleep 1; done", (b"inet 192.168.122.",)),
             ("ping -c 1 -W 60 192.168.122.1", (b"1 received",)))

    def test_virt_install_to_the_login(self):
        self.virsh("net-start", "default")
        consoles = {}
        for board in ("pc", "q35"):
            disk = image(f"{self.daemon.root}/{board}.qcow2", backing=str(DISK))
            self.install(board, "--machine", board, "--memory", "512", "--disk", disk)
            consoles[board] = Console(self.conn, self.conn.lookupByName(board))
        for board, console in consoles.items():
            with self.subTest(board=board):
                self.watch(self.conn.lookupByName(board), console)
        leases = self.virsh("net-dhcp-leases", "default")
        self.assertEqual(leases.count("192.168.122."), 2, leases)

    def watch(self, dom, console):
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            self.validate("domain", dom.XMLDesc(flags))
        console.expect(b"login: ")
        console.type(b"root\n")
        console.expect(b"~# ")
        for command, answers in self.WHOLE:
            with self.subTest(board=dom.name(), command=command):
                at = len(console.seen)
                console.type(f"{command}; echo do''ne\n".encode())
                console.expect(b"done\r", at)
                for answer in answers:
                    self.assertIn(answer, console.seen[at:])
        if dom.name() == "q35":
            self.with_agent(console)
            self.virsh("shutdown", dom.name(), "--mode", "agent")
        else:
            dom.shutdown()
        manage.until(lambda: not dom.isActive(), f"{dom.name()} is off", BOOT)
        self.assertEqual(dom.state(), [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN])

    def ask(self, console, command):
        """What the guest's shell prints."""
        at = len(console.seen)
        console.type(f"echo be''gin; {command}; echo do''ne\n".encode())
        console.expect(b"done\r", at)
        return console.seen[at:].decode(errors="replace").rpartition("begin\r\n")[2].rpartition("done\r")[0]

    def both(self, *words):
        """What virsh prints, and lodge, too."""
        said = [subprocess.run([program, "-c", self.daemon.uri, *words], capture_output=True, text=True, timeout=BOOT,
                               stdin=subprocess.DEVNULL, env=self.env, check=False) for program in ("virsh", LODGE)]
        self.assertEqual((said[1].returncode, said[1].stdout, said[1].stderr),
                         (said[0].returncode, said[0].stdout, said[0].stderr))
        self.assertEqual(said[0].returncode, 0, said[0].stderr)
        return said[0].stdout

    def with_agent(self, console):
        self.virsh("attach-disk", "q35", agent_disk(self.daemon.root), "vdz", "--subdriver", "raw", "--live")
        self.ask(console, "until mount $(blkid -t TYPE=ext4 -o device | grep -v vda) /mnt; do sleep 1; done 2>/dev/null; "
                 "cp -r /mnt/* /; umount /mnt; ldconfig; systemctl daemon-reload; udevadm control --reload; "
                 "udevadm trigger --action=add --subsystem-match=virtio-ports")
        self.virsh("detach-disk", "q35", "vdz", "--live")
        manage.until(lambda: not self.daemon.run_virsh("qemu-agent-command", "q35", '{"execute":"guest-ping"}').returncode,
                     "systemd has started the agent", BOOT)
        self.assertIn('"id":"debian"', self.virsh("qemu-agent-command", "q35", '{"execute":"guest-get-osinfo"}').replace(" ", ""))
        self.assertRegex(self.both("domfsinfo", "q35"), r"(?m)^ / +vda\d* +ext4 +vda")
        shown = self.both("guestinfo", "q35", "--os", "--user", "--hostname", "--filesystem")
        for pattern in (r"os\.id +: debian", r"user\.0\.name +: root", r"hostname +: \S+", r"fs\.0\.mountpoint +: /",
                        r"fs\.0\.disk\.0\.alias +: vda"):
            self.assertRegex(shown, pattern)
        self.assertEqual(self.both("domhostname", "q35", "--source", "agent").strip(), self.ask(console, "hostname").strip())
        self.assertIn("192.168.122.", self.both("domifaddr", "q35", "--source", "agent"))
        self.virsh("set-user-password", "q35", "root", "geheim")
        self.assertIn("it-is-mine", self.ask(console, """perl -e '$h=(getpwnam("root"))[1]; print crypt("geheim",$h) eq $h ? """
                                             """"it-is"."-mine" : "no"'"""))
        self.both("domfstrim", "q35")
        self.assertRegex(self.virsh("domfsfreeze", "q35"), r"Froze [1-9]\d* filesystem")
        console.type(b"sync; echo x >/root/x; sync; echo writ''ten\n")
        self.assertIn('"frozen"', self.virsh("qemu-agent-command", "q35", '{"execute":"guest-fsfreeze-status"}'))
        self.assertRegex(self.virsh("domfsthaw", "q35"), r"Thawed [1-9]\d* filesystem")
        console.expect(b"written\r")


class Tools(Client):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.disk = image(f"{cls.daemon.root}/tool.qcow2", "8M")

    def test_virt_xml_and_virt_clone(self):
        self.install("tool", "--memory", "128", "--disk", self.disk, "--network", "user", "--noreboot")
        dom = self.conn.lookupByName("tool")
        second = image(f"{self.daemon.root}/second.qcow2", "8M")
        for change, shown in (("--edit --memory 200", ">204800</memory>"),
                              ("--edit --vcpus 3", ">3</vcpu>"),
                              ("--edit --cpu host-model", "mode='host-model'"),
                              ("--edit --metadata title=hello", "<title>hello</title>"),
                              (f"--add-device --disk {second}", "second.qcow2"),
                              ("--add-device --network user,model=virtio,mac=52:54:00:12:34:99", "34:99"),
                              ("--add-device --watchdog default", "<watchdog "),
                              ("--add-device --input keyboard,bus=virtio", "bus='virtio'"),
                              ("--remove-device --disk 2", None)):
            with self.subTest(change=change):
                self.run_client("virt-xml", "tool", *change.split())
                xml = dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
                self.validate("domain", xml)
                if shown:
                    self.assertIn(shown, xml)
        self.assertNotIn("second.qcow2", dom.XMLDesc())
        self.run_client("virt-clone", "--original", "tool", "--name", "copy", "--file",
                        f"{self.daemon.root}/copy.qcow2")
        copy = self.conn.lookupByName("copy")
        self.assertNotEqual(copy.UUIDString(), dom.UUIDString())
        self.assertIn("copy.qcow2", copy.XMLDesc())
        self.assertGreater(os.path.getsize(f"{self.daemon.root}/copy.qcow2"), 0)
        self.run_client("virt-xml", "tool", "--remove-device", "--watchdog", "1")
        self.run_client("virt-xml", "tool", "--remove-device", "--input", "bus=virtio")
        dom.create()
        self.run_client("virt-xml", "tool", "--add-device", "--disk", second, "--update")
        self.assertIn("second.qcow2", dom.XMLDesc())
        dom.destroy()

    def test_virt_xml_validate(self):
        folder = os.path.join(self.daemon.root, "pool")
        os.mkdir(folder)
        self.virsh("pool-define-as", "p", "dir", "--target", folder)
        self.virsh("pool-start", "p")
        image(f"{folder}/snap.qcow2", "8M")
        self.virsh("pool-refresh", "p")
        self.conn.defineXML(machine("v", devices=f"<disk type='file'><driver name='qemu' type='qcow2'/>"
                                    f"<source file='{folder}/snap.qcow2'/><target dev='vda'/></disk>"))
        self.virsh("snapshot-create-as", "v", "one", "--description", "words")
        for kind, verb in (("domain", "dumpxml v"), ("network", "net-dumpxml default"),
                           ("storagepool", "pool-dumpxml p"), ("storagevol", "vol-dumpxml snap.qcow2 p"),
                           ("domaincaps", "domcapabilities"), ("domainsnapshot", "snapshot-dumpxml v one"),
                           ("nodedev", "nodedev-dumpxml computer")):
            with self.subTest(kind=kind):
                self.validate(kind, self.virsh(*verb.split()))


# What a program shows, as those who cannot see are told: a name a line.
READ_ALOUD = """
import gi
gi.require_version("Atspi", "2.0")
from gi.repository import Atspi
def tell(thing):
    if thing:
        print((thing.get_name() or "").replace("\\n", " "))
        for i in range(min(thing.get_child_count(), 1000)):
            tell(thing.get_child_at_index(i))
desktop = Atspi.get_desktop(0)
for i in range(desktop.get_child_count()):
    tell(desktop.get_child_at_index(i))
"""


class Screen:
    """An X server without a screen, and what is on it."""

    def __init__(self, env):
        read, write = os.pipe()
        self.process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24",
                                         "-nolisten", "tcp"], pass_fds=[write],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as f:
            self.env = {**env, "DISPLAY": ":" + f.readline().strip(), "GDK_BACKEND": "x11"}

    def windows(self):
        """Id and title of each window that is shown."""
        text = subprocess.run(["xwininfo", "-root", "-tree"], env=self.env, capture_output=True, text=True,
                              check=True).stdout
        return re.findall(r'(0x[0-9a-f]+) "([^"]+)": .*?(?:\d\d\d)x\d', text)

    def shot(self):
        """Width, height and the pixels, four bytes each."""
        data = subprocess.run(["xwd", "-root", "-silent"], env=self.env, capture_output=True, check=True).stdout
        head = struct.unpack(">25I", data[:100])
        width, height, line = head[4], head[5], head[12]
        pixels = data[head[0] + head[19] * 12:]
        return width, height, [pixels[y * line:y * line + width * 4] for y in range(height)]

    def keep(self, name):
        """The picture in build/, for people to look at."""
        width, height, lines = self.shot()
        rows = bytearray()
        for line in lines:
            rgb = bytearray(width * 3)
            rgb[0::3], rgb[1::3], rgb[2::3] = line[2::4], line[1::4], line[0::4]
            rows += b"\0" + rgb
        with open(BUILD / name, "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n")
            for tag, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
                              (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")):
                f.write(struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)))

    def close(self):
        self.process.terminate()
        self.process.wait()


class Viewers(Client):
    """The guest's screen has text of the firmware; a viewer that shows it shows those pixels."""
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dom = cls.conn.createXML("""<domain type='qemu'><name>shown</name><memory unit='MiB'>64</memory>
            <os><type machine='pc'>hvm</type></os><devices><graphics type='vnc' autoport='yes'/>
            <video><model type='vga'/></video></devices></domain>""")

    def start(self, *argv):
        self.screen = Screen(self.env)
        self.addCleanup(self.screen.close)
        bus = pathlib.Path(self.daemon.root, f"bus-{argv[0]}")
        with open(f"{self.daemon.root}/viewer.log", "wb") as log:
            p = subprocess.Popen(["dbus-run-session", "--", "sh", "-c", 'echo "$DBUS_SESSION_BUS_ADDRESS" >"$0"; exec "$@"',
                                  str(bus), *argv], stdout=log, stderr=log, env=self.screen.env, start_new_session=True)

        def end():
            os.killpg(p.pid, signal.SIGTERM)
            p.wait()
        self.addCleanup(end)
        manage.until(lambda: bus.exists() and bus.read_text().endswith("\n"), "a session's bus")
        self.screen.env["DBUS_SESSION_BUS_ADDRESS"] = bus.read_text().strip()

    def in_session(self, *argv):
        return subprocess.run(argv, env=self.screen.env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=BOOT, check=True).stdout

    def reads(self, pattern):
        """Waits until the programs of the session say something like that."""
        said = [""]

        def matches():
            said[0] = self.in_session(sys.executable, "-c", READ_ALOUD)
            return re.search(pattern, said[0], re.M)
        try:
            manage.until(matches, pattern, BOOT)
        except AssertionError as e:
            raise AssertionError(f"{e}; but: {said[0]}") from e

    def sees(self, title):
        """Waits for the window and for the guest's light-grey letters on black in it."""
        manage.until(lambda: any(title in w[1] for w in self.screen.windows()), f"a window {title}", BOOT)
        manage.until(self.letters, "the guest's screen", BOOT)

    def letters(self):
        lines = self.screen.shot()[2]
        middle = lines[len(lines) // 8:]
        return sum(line.count(b"\xaa\xaa\xaa") for line in middle) > 500

    def test_virt_manager(self):
        """It lists the machines, and tells when one comes, starts and goes; then a console in a second window."""
        self.start("virt-manager", "--connect", self.daemon.uri, "--no-fork")
        self.reads("^shown Running$")
        self.screen.keep("virt-manager-list.png")
        other = self.conn.defineXML(machine("another"))
        self.reads("^another Shutoff$")
        other.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.reads("^another Paused$")
        other.destroy()
        other.undefine()
        manage.until(lambda: "another" not in self.in_session(sys.executable, "-c", READ_ALOUD), "it is gone", BOOT)
        self.assertFalse(self.letters())
        self.in_session("virt-manager", "--connect", self.daemon.uri, "--show-domain-console", "shown")
        self.sees("shown on QEMU")
        self.screen.keep("virt-manager.png")

    def test_virt_viewer(self):
        self.start("virt-viewer", "--connect", self.daemon.uri, "--wait", "shown")
        self.sees("shown (1)")
        self.screen.keep("virt-viewer.png")


if __name__ == "__main__":
    sys.exit(unittest.main())
