#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as the guest sees them: what the XML says of each bus, floppies and their media, hot-plug, caches,
what is discarded, sources that are no files."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import libvirt

import manage
import servers
from test_manage_domain import machine, started, UP

IMG = os.environ["LODGE_IMG"]
AMD64 = pathlib.Path(os.environ.get("LODGE_BUILD", "build")).resolve() / "guests" / "amd64"


def img(*args):
    return subprocess.run([IMG, *args], capture_output=True, text=True, check=True).stdout


def disk(file, target="vda", bus="virtio", more="", driver="", form="raw", kind="disk"):
    source = f"<source file='{file}'/>" if file else ""
    return f"""<disk type='file' device='{kind}'><driver name='qemu' type='{form}' {driver}/>{source}
        <target dev='{target}' bus='{bus}'/>{more}</disk>"""


class Guest(manage.FolderCase):
    def file(self, name, data):
        pathlib.Path(self.path(name)).write_bytes(data)
        return self.path(name)

    def define(self, xml):
        dom = self.conn.defineXML(xml)
        self.addCleanup(self.forget)
        return dom

    def forget(self):
        dom = self.daemon.connect().lookupByName(self.name)
        if dom.isActive():
            dom.destroy()
        dom.undefine()

    def boot(self, devices, amd64=False, **more):
        xml = machine(self.name, devices="<console type='pty'/>" + devices, **more)
        if amd64:  # Debian's kernel for all machines: floppies, AHCI, USB
            xml = re.sub(r"/[^<]*/(vmlinuz|initrd)<", rf"{AMD64}/\1<", xml)
        self.dom = self.define(xml)
        self.console, self.turn = started(self.conn, self.dom), 0
        self.console.expect(UP)
        self.console.expect(b"# ")

    def say(self, line):
        """Runs @line in the guest; what it printed."""
        self.turn += 1
        end, at = b"end-%d:" % self.turn, len(self.console.seen)
        self.console.type(b"%s; echo en''d-%d:$?\n" % (line.encode(), self.turn))
        self.console.expect(b"\n" + end, at)
        self.console.expect(b"# ", at + self.console.seen[at:].index(b"\n" + end))
        return self.console.seen[at:].decode(errors="replace")

    def until_said(self, line, words):
        manage.until(lambda: words in self.say(line), f"{words} of {line}")

    def v(self, verb, *args, **more):
        return self.virsh(verb, self.name, *args, **more)


# Prints the disk that lies at the place $1 of the device tree.
AT = "at() { for d in /sys/block/sd*; do case $(readlink -f $d) in $1) echo $d;; esac; done; }"
# A disk a bus: what its XML says, a command of the guest and what that shows.
BUSES = (
    ("virtio", "vda", "<serial>my-virtio</serial><blockio logical_block_size='512' physical_block_size='4096'/>",
     "cat /sys/block/vda/serial /sys/block/vda/queue/physical_block_size", r"my-virtio4096"),
    ("scsi", "sda", "<serial>my-scsi</serial><wwn>5000c50015ea71aa</wwn><vendor>LODGE</vendor>"
     "<product>fine-disk</product><address type='drive' controller='0' bus='0' target='3' unit='5'/>",
     "cd $(at '*:0:3:5/*')/device; cat vendor model wwid; tail -c +5 vpd_pg80; echo; cd /",
     r"LODGE\s+fine-disk\s+naa.5000c50015ea71aa\s+my-scsi"),
    ("usb", "sdb", "<serial>my-usb</serial>",
     "d=$(at '*/usb*'); cat $(readlink -f $d/device/../../../..)/serial $d/removable", r"my-usb\s+0"),
    ("ide", "hdb", "<serial>my-ide</serial><wwn>5000c50015ea71bb</wwn><address type='drive' controller='0' bus='1' "
     "target='0' unit='0'/><geometry cyls='77' heads='5' secs='9'/>",
     "d=$(at '*:01.1/*'); cat $d/device/wwid; tail -c +5 $d/device/vpd_pg80; echo; "
     "for i in /sys/class/ata_device/*/id; do head -n1 $i; done",
     r"naa.5000c50015ea71bb\s+my-ide\s(?s:.*)\w{4} 004d \w{4} 0005 \w{4} \w{4} 0009 "),
    ("sata", "sdc", "<serial>my-sata</serial>", "d=$(at '*:0[2-9].0/ata*'); tail -c +5 $d/device/vpd_pg80; echo",
     r"my-sata"),
)


class Buses(Guest):
    def test_words_and_media(self):
        """On the old board with all its buses; then disks and media come and go."""
        data = {bus: os.urandom(512) for bus, *_ in BUSES}
        disks = [disk(self.file(bus, data[bus] + bytes(1 << 20)), target, bus, more,
                      "cache='writethrough'" if bus in ("ide", "scsi") else "")
                 for bus, target, more, _, _ in BUSES]
        floppies = [self.file(f"fd{i}", bytes([65 + i]) * 1474560) for i in range(2)]
        self.boot("".join(disks) + disk(floppies[0], "fda", "fdc", kind="floppy") +
                  "<controller type='scsi' model='virtio-scsi'/><controller type='usb' model='qemu-xhci'/>",
                  amd64=True, board="pc", memory=192)
        self.say(AT)
        for bus, _, _, command, shown in BUSES:
            with self.subTest(bus=bus):
                manage.until(lambda: re.search(shown, self.say(command)), shown)  # USB comes later
        through = "cat $(at '*:01.1/*')/queue/write_cache $(at '*:0:3:5/*')/queue/write_cache"
        self.assertIn("write through\r\nwrite through", self.say(through))
        self.media(floppies)
        self.coming_and_going()

    def coming_and_going(self):
        """Disks on the buses that take them while the guest runs."""
        for bus, target, see in (("virtio", "vdb", "echo /sys/block/vdb"), ("scsi", "sdh", "at '*:0:0:6/*'"),
                                 ("usb", "sdj", "at '*/usb*' | tail -n 1")):
            with self.subTest(bus=bus):
                place = "<address type='drive' controller='0' bus='0' target='0' unit='6'/>" if bus == "scsi" else ""
                xml = self.path(f"{bus}.xml")
                pathlib.Path(xml).write_text(disk(self.file("late-" + bus, bus.encode().ljust(2 << 20)), target, bus, place))
                self.v("attach-device", xml, "--live")
                self.assertIn(target, self.v("domblklist"))
                self.until_said(f"d=$({see}); cat $d/size; head -c 6 /dev/${{d##*/}}; echo", f"4096\r\n{bus}")
                self.v("detach-disk", target, "--live")
                self.until_said(f"d=$({see}); [ -n \"$d\" ] && cat $d/size; echo go''ne", "gone")
                manage.until(lambda t=target: t not in self.v("domblklist"), "it is gone")
        for bus, target, words in (("ide", "hdd", "disk bus 'ide' cannot be hotplugged"),
                                   ("sata", "sdk", "disk bus 'sata' cannot be hotplugged"),
                                   ("fdc", "fdb", "cdrom/floppy device hotplug isn't supported"),
                                   ("scsi", "sdl", 'Failed to get "write" lock')):  # it is another disk's
            xml, kind = self.path(f"{bus}.xml"), "floppy" if bus == "fdc" else "disk"
            pathlib.Path(xml).write_text(disk(self.path("virtio"), target, bus, kind=kind))
            self.assertIn(words, self.v("attach-device", xml, "--live", fails=True))
        self.assertIn("cannot be hot unplugged", self.v("detach-disk", "hdb", "--live", fails=True))
        # A SCSI controller more, as the disk needs it; files are whose they were.
        late, xml = self.path("late-scsi"), self.path("more.xml")
        self.assertEqual(os.stat(late).st_uid, os.getuid())
        pathlib.Path(xml).write_text(disk(late, "sdm", "scsi", "<address type='drive' controller='2' unit='3'/>"))
        self.v("attach-device", xml, "--live")
        self.until_said("cat $(at '*:0:0:3/*')/size", "4096")
        controller = self.path("controller.xml")
        pathlib.Path(controller).write_text("<controller type='scsi' index='2'/>")
        self.assertIn("device is busy", self.v("detach-device", controller, "--live", fails=True))
        self.v("detach-device", xml, "--live")
        manage.until(lambda: "sdm" not in self.v("domblklist"), "it is gone")
        manage.until(lambda: os.stat(late).st_uid == os.getuid(), "its file is ours")
        self.v("detach-device", controller, "--live")
        manage.until(lambda: "type='scsi' index='2'" not in self.v("dumpxml"), "the controller is gone")

    def media(self, floppies):
        # The floppy: read, exchanged, taken out, put in again, written.
        first = "dd if=/dev/fd0 bs=512 count=1 2>/dev/null | head -c 4; echo ''."
        self.assertIn("AAAA.", self.say(first))
        self.v("change-media", "fda", floppies[1], "--update")
        self.until_said(first, "BBBB.")
        self.assertIn(floppies[1], self.v("domblklist"))
        self.v("change-media", "fda", "--eject")
        self.assertRegex(self.v("domblklist"), r"fda\s+-")
        self.assertNotIn("BBBB", self.say(first))
        self.v("change-media", "fda", floppies[0], "--insert")
        self.until_said(first, "AAAA.")
        self.assertIn("end-", self.say("echo CCCC | dd of=/dev/fd0 conv=fsync,notrunc 2>/dev/null"))
        self.assertEqual(pathlib.Path(floppies[0]).read_bytes()[:6], b"CCCC\nA")


class Drivers(Guest):
    def blocks(self, name):
        """What the host has for the image, in KiB."""
        return os.stat(self.path(name)).st_blocks // 2

    def test_discard_and_zeroes(self):
        """What the guest discards and zeroes goes where, and only where, the XML lets it."""
        words = {"vda": ("raw", "discard='unmap'"), "vdb": ("qcow2", "discard='unmap'"), "vdc": ("raw", "discard='ignore'"),
                 "vdd": ("raw", ""), "vde": ("raw", "discard='unmap' detect_zeroes='unmap'"),
                 "vdf": ("raw", "detect_zeroes='on'"), "vdg": ("raw", "detect_zeroes='off'")}
        for name, (form, _) in words.items():
            img("create", "-q", "-f", form, self.path(name), "2M")
        self.boot("".join(disk(self.path(n), n, driver=driver, form=form) for n, (form, driver) in words.items()))
        self.assertIn("end-1:0", self.say("dd if=/dev/urandom of=/tmp/r bs=1M count=2 2>/dev/null; for d in a b c d e f g; "
                                          "do dd if=/tmp/r of=/dev/vd$d bs=64k conv=fsync 2>/dev/null || break; done"))
        for name in words:
            self.assertGreaterEqual(self.blocks(name), 2048, name)
        self.assertIn("end-2:0", self.say("for d in a b c d; do blkdiscard /dev/vd$d || break; done; "
                                          "dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync 2>/dev/null"))
        self.say("for d in e f g; do dd if=/dev/zero of=/dev/vd$d bs=64k count=32 oflag=direct conv=fsync 2>/dev/null; done")
        for name in ("vda", "vdb", "vde"):
            manage.until(lambda n=name: self.blocks(n) < 1024, f"{name} is smaller: {self.blocks(name)} KiB")
        for name in ("vdc", "vdd", "vdf", "vdg"):
            self.assertGreaterEqual(self.blocks(name), 2048, name)
        self.assertIn("same", self.say("echo 3 >/proc/sys/vm/drop_caches; for d in c d; do cmp /tmp/r /dev/vd$d || break; done"
                                       " && for d in e f g; do cmp -n 2097152 /dev/zero /dev/vd$d || break; done && echo sa''me"))

    def test_caches_and_io(self):
        """The guest sees whether what it wrote is safe; the host's page cache is used or not."""
        modes = {"vda": "cache='none' io='native'", "vdb": "cache='writeback' io='threads'", "vdc": "cache='writethrough'",
                 "vdd": "cache='directsync' io='io_uring'", "vde": "cache='unsafe'", "vdf": ""}
        for name in modes:
            img("create", "-q", "-f", "raw", self.path(name), "1M")
        self.boot("".join(disk(self.path(n), n, driver=driver) for n, driver in modes.items()))
        kinds = re.findall(r"(?m)^write (\w+)", self.say("cat /sys/block/vd?/queue/write_cache"))
        self.assertEqual(kinds, ["back", "back", "through", "through", "back", "back"])
        pid, = self.daemon.machines()
        direct = {}
        for fd in os.listdir(f"/proc/{pid}/fd"):
            name = os.path.basename(os.readlink(f"/proc/{pid}/fd/{fd}"))
            flags = int(re.search(r"flags:\s+(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text())[1], 8)
            direct[name] = direct.get(name, False) or bool(flags & os.O_DIRECT)
        self.assertEqual([n for n in modes if direct[n]], ["vda", "vdd"])
        self.assertIn("same", self.say("dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null; for d in vda vdb vdc vdd vde vdf; "
                                       "do dd if=/tmp/r of=/dev/$d bs=64k conv=fsync 2>/dev/null; done; "
                                       "echo 3 >/proc/sys/vm/drop_caches; for d in vda vdb vdc vdd vde vdf; do "
                                       "cmp /tmp/r /dev/$d || exit; done; echo sa''me"))
        for words, xml in (("native I/O needs either", disk("/x", driver="io='native'")),
                           ("CHS geometry", disk("/x", more="<geometry cyls='1' heads='1' secs='1'/>")),
                           ("is not whole", disk("/x", "hda", "ide", "<geometry cyls='1' heads='1'/>"))):
            with self.assertRaisesRegex(libvirt.libvirtError, words):
                self.conn.defineXML(machine("never", devices=xml, board="pc"))


class Sources(Guest):
    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.mkdtemp(prefix="lodge-tls-")
        cls.addClassCleanup(shutil.rmtree, cls.certificates)
        os.chmod(cls.certificates, 0o711)
        cls.OPTIONS = ("-o", f"nbd.tls_folder={cls.certificates}")
        super().setUpClass()

    def make_certificates(self):
        """A server and a client whose certificates one authority has signed."""
        def run(*args):
            subprocess.run(["certtool", *args], check=True, capture_output=True, cwd=self.certificates)
        for name, template in (("ca", "cn=us\nca\ncert_signing_key\n"),
                               ("server", "cn=server\ndns_name=localhost\ntls_www_server\nencryption_key\nsigning_key\n"),
                               ("client", "cn=client\ntls_www_client\nencryption_key\nsigning_key\n")):
            pathlib.Path(self.certificates, "template").write_text(template)
            run("--generate-privkey", "--ecc", "--outfile", f"{name}-key.pem")
            sign = (["--generate-self-signed"] if name == "ca" else
                    ["--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem"])
            run(*sign, "--load-privkey", f"{name}-key.pem", "--template", "template", "--outfile", f"{name}-cert.pem")

    def serve(self, *args):
        port = servers.free_port()
        program = servers.Program("nbdkit", "-f", "-p", str(port), "-i", "127.0.0.1", *args,
                                  ready=lambda: servers.answers(port))
        program.__enter__()
        self.addCleanup(program.__exit__)
        return port

    def network(self, protocol, port, target, name="", words="", more=""):
        name = f"name='{name}'" if name else ""
        return f"""<disk type='network'><driver name='qemu' type='raw'/><source protocol='{protocol}' {name} {words}>
            <host name='localhost' port='{port}'/></source><target dev='{target}'/>{more}</disk>"""

    def test_servers(self):
        """NBD plainly and with TLS, HTTP; what a guest writes arrives; strangers and other protocols are refused."""
        self.make_certificates()
        os.chdir(self.folder)
        plain, safe, page = (self.file(n, n.encode().ljust(1 << 20)) for n in ("plain", "safe", "page"))
        port = self.serve("file", plain)
        tls = self.serve("--tls=require", f"--tls-certificates={self.certificates}", "--tls-verify-peer", "file", safe)
        web = servers.free_port()
        nginx = servers.nginx(web)
        nginx.__enter__()
        self.addCleanup(nginx.__exit__)
        self.boot(self.network("nbd", port, "vda", words="tls='no'") +
                  self.network("nbd", tls, "vdb", words="tls='yes'") +
                  self.network("http", web, "vdc", "page", more="<readonly/>") +
                  "<controller type='scsi' model='virtio-scsi'/>")
        self.assertIn("plain.safe.page.", self.say("for d in a b c; do head -c 5 /dev/vd$d | tr -d ' '; echo -n .; done; echo"))
        self.say("for d in a b; do echo written | dd of=/dev/vd$d bs=512 seek=8 conv=fsync 2>/dev/null; done")
        for file in (plain, safe):
            with open(file, "rb") as f:
                self.assertEqual(f.read()[4096:4104], b"written\n")
        with open(self.path("live.xml"), "w") as f:
            f.write(self.dom.XMLDesc())
        subprocess.run(["virt-xml-validate", self.path("live.xml"), "domain"], check=True, capture_output=True)
        for target, words, xml in (
                ("vdx", "protocol='ssh'", self.network("ssh", 22, "vdx", "x")),
                ("vdx", "TLS of disk protocol 'http'", self.network("http", web, "vdx", "page", "tls='yes'")),
                ("vdx", "tlsHostname", self.network("nbd", tls, "vdx", words="tls='yes' tlsHostname='other'")),
                ("vdx", "(?i)tls", self.network("nbd", tls, "vdx")),
                ("vdx", "refused", self.network("nbd", servers.free_port(), "vdx")),
                ("vdx", "404|Not Found", self.network("http", web, "vdx", "nothing", more="<readonly/>"))):
            pathlib.Path(self.path("x.xml")).write_text(xml)
            self.assertRegex(self.v("attach-device", self.path("x.xml"), "--live", fails=True), words)
        # lodge-vm, which is nobody by now, must be able to read what makes it known to the server.
        key = f"{self.certificates}/client-key.pem"
        pathlib.Path(self.path("x.xml")).write_text(self.network("nbd", tls, "sdb", words="tls='yes'"))
        os.chmod(key, 0o600)
        self.assertIn(f"TLS credentials in '{key}' cannot be read: Permission denied",
                      self.v("attach-device", self.path("x.xml"), "--live", fails=True))
        os.chmod(key, 0o644)
        self.v("attach-device", self.path("x.xml"), "--live")
        self.v("detach-device", self.path("x.xml"), "--live")
        manage.until(lambda: "sdb" not in self.v("domblklist"), "it is gone")
        # Its credentials go with it, also if it never came.
        late = self.serve("--tls=require", f"--tls-certificates={self.certificates}", "file", self.file("late", b"late"))
        for port, fails in ((servers.free_port(), True), (late, False), (late, False)):
            pathlib.Path(self.path("x.xml")).write_text(self.network("nbd", port, "sdb", words="tls='yes'"))
            said = self.v("attach-device", self.path("x.xml"), "--live", fails=fails)
            if fails:
                self.assertIn("refused", said)
            else:
                self.v("detach-device", self.path("x.xml"), "--live")
                manage.until(lambda: "sdb" not in self.v("domblklist"), "it is gone")


if __name__ == "__main__":
    unittest.main()
