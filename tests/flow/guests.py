#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot loaders, testers and kernels of Debian's packages, each started as its users start it.

What they say is read from text memory (all of it: the start address scrolls) or from the
serial port; what is typed goes in as keys.
"""
import hashlib
import http.server
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time

from guest import UP, Failed, Machine, guest_file, main, tiny
from rfb import Viewer

MEMTEST = "/boot/memtest86+{}.bin"
KEYS = {" ": "spc", "\n": "ret", "-": "minus", "=": "equal", "/": "slash", ".": "dot", "'": "apostrophe",
        ";": "semicolon", ",": "comma"}
SHIFTED = {"(": "9", ")": "0", ":": "semicolon", "_": "minus", ">": "dot", "!": "1"}


def media(name):
    return guest_file("media", name)


class Screen(Machine):
    """A machine with a graphics adapter; what it shows is text."""

    def __init__(self, args, vga=True):
        super().__init__(["-accel", "bt", *(["-vga", "std"] if vga else []), *args], qmp=True)

    def text(self):
        path = os.path.join(self.folder, "text")
        self.qmp("pmemsave", val=0xB8000, size=0x8000, filename=path)
        cells = pathlib.Path(path).read_bytes()[::2]
        shown = "".join(chr(c) if 32 <= c < 127 else " " for c in cells)
        return "\n".join(shown[n:n + 80].rstrip() for n in range(0, len(shown), 80))

    def see(self, *texts):
        for text in texts:
            try:
                self.until(lambda: text in self.text(), f"no \"{text}\" on the screen")
            except Failed:
                self.seen += "\n--- screen:\n" + "\n".join(x for x in self.text().split("\n") if x)
                raise

    def press(self, text):
        for c in text:
            keys = [KEYS.get(c, c)]
            if c in SHIFTED or c.isupper():
                keys = ["shift", SHIFTED.get(c, c.lower())]
            self.qmp("send-key", keys=[{"type": "qcode", "data": k} for k in keys], hold_time=20)
            time.sleep(0.05)

    def powered_off(self):
        code = self.wait()
        if code:
            raise Failed(f"exit code {code}")


def shows(args, *texts):
    with Screen(args) as m:
        m.see(*texts)


# ---- memtest86+ ----

def memtest():
    """As a kernel with and without firmware, and from its CD; it counts and tests memory."""
    for args in (["-kernel", MEMTEST.format("x64"), "-M", "pc,kernel-firmware=off"],
                 ["-kernel", MEMTEST.format("ia32"), "-M", "q35,kernel-firmware=on"],
                 ["-cdrom", "/usr/lib/memtest86+/memtest86+x64.iso"]):
        shows([*args, "-m", "64"], "Memtest86+ v6.10", "Memory  :   64MB", "Test #", "Errors: 0")


# ---- GRUB's rescue media ----

def grub(args, modules):
    """The shell answers what is typed."""
    with Screen(args) as m:
        m.see("GNU GRUB  version 2.06", "Memtest86+")
        m.press("c")
        m.see("grub>")
        m.press("echo a(3)-_:b\n")
        m.see("\na(3)-_:b")
        m.press("ls\n")
        m.see(modules)


def grub_rescue():
    grub(["-fda", media("grub-rescue-floppy.img")], "(fd0)")
    grub(["-M", "q35", "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=c,bootindex=1", "-drive",
          f"if=none,id=c,media=cdrom,file={media('grub-rescue-cdrom.iso')}"], "(cd)")
    grub(["-device", "qemu-xhci", "-device", "usb-storage,drive=u,bootindex=1", "-drive",
          f"if=none,id=u,format=raw,file={media('grub-rescue-usb.img')}", "-snapshot"], "(hd0")


# ---- iPXE ----

def ipxe():
    """From its CD and as a kernel: it asks for an address itself."""
    for model, args in (("e1000", ["-cdrom", media("ipxe.iso")]),
                        ("virtio-net-pci", ["-kernel", media("ipxe.lkrn"), "-M", "pc,kernel-firmware=on"])):
        shows([*args, "-boot", "d", "-nic", f"user,model={model}"],
              "iPXE 1.0.0", "net0: 10.0.2.15/255.255.255.0 gw 10.0.2.2")


def pxe():
    """The network card's ROM fetches a script by TFTP, the script a kernel."""
    folder = os.path.dirname(media("pxe/boot.ipxe"))
    for machine, model in (("pc", "e1000"), ("q35", "virtio-net-pci")):
        shows(["-M", machine, "-boot", "n", "-nic",
               f"user,model={model},tftp={folder},bootfile=boot.ipxe"], "Memtest86+ v6.10")


# ---- isolinux ----

def isolinux():
    """One image as a CD and, because it is a hybrid, as a disk."""
    iso = media("isolinux.iso")
    for args in (["-M", "pc", "-cdrom", iso], ["-M", "q35", "-cdrom", iso],
                 ["-M", "pc", "-drive", f"file={iso},format=raw,if=virtio,readonly=on"]):
        with Screen([*args, "-m", "256", "-no-reboot"]) as m:
            m.expect(UP)
            m.powered_off()


# ---- kernels that are no bzImage ----

def pvh():
    with Screen(["-m", "256", "-no-reboot", "-kernel", media("vmlinux"), *tiny("poweroff")[4:]],
                vga=False) as m:
        m.expect(UP)
        m.powered_off()


def move_absolute(m):
    """The pointer's place comes to the guest as it is: two events, buttons and both axes."""
    mice = m.qmp("query-mice")
    if not mice[0]["absolute"]:
        raise Failed(f"pointer is not absolute: {mice}")
    m.qmp("input-send-event", events=[
        {"type": "abs", "data": {"axis": "x", "value": 0x1111}},
        {"type": "abs", "data": {"axis": "y", "value": 0x3fff}}])
    m.qmp("input-send-event", events=[
        {"type": "btn", "data": {"button": "left", "down": True}}])
    m.expect("00000000 00002222 00007FFE")


def multiboot():
    """A kernel of our own, with a module, through firmware and without; devices for tests."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "multiboot.S")
    with tempfile.TemporaryDirectory() as folder:
        kernel, module = os.path.join(folder, "kernel"), os.path.join(folder, "module")
        subprocess.run(["gcc", "-m32", "-static", "-nostdlib", "-Wl,-Ttext=0x100000,--build-id=none",
                        "-o", kernel, source], check=True)
        pathlib.Path(module).write_bytes(b"inside the module\0")
        for machine, engine in (("pc", "bt"), ("q35", "bt"), ("pc,kernel-firmware=off", "interp"),
                                ("pc,kernel-firmware=off,vmport=off", "interp")):
            with Machine(["-M", machine, "-accel", engine, "-m", "32", "-kernel", kernel, "-append",
                          "some words", "-initrd", f"{module} a text", "-device", "pc-testdev",
                          "-device", "isa-debug-exit,iobase=0x501,iosize=2"], qmp=True) as m:
                if "vmport=off" not in machine:
                    m.expect("pointer is absolute")
                    move_absolute(m)
                code = m.wait()
                if ("\n00000006 00000001 3442554A " in m.seen) == ("vmport=off" in machine):
                    raise Failed("VMware's port")
                for text in (f"{kernel} some words\n", f"{module} a text\n", "inside the module\n",
                             "00000000 0009FC00 \n", "00100000 01", "pc-testdev echoes\n"):
                    if text not in m.seen:
                        raise Failed(f"no {text!r}")
                if code != 2 * 0x15 + 1:
                    raise Failed(f"exit code {code}")


def xen():
    """The hypervisor by multiboot, Linux and its initramfs as modules."""
    modules = f"{guest_file('amd64', 'vmlinuz')} console=hvc0 lodge.run=poweroff,{guest_file('amd64', 'initrd')}"
    with Screen(["-m", "512", "-no-reboot", "-kernel", media("xen"), "-append",
                 "console=com1 com1=115200,8n1 loglvl=warning", "-initrd", modules], vga=False) as m:
        m.expect("Xen 4\\.|Latest ChangeSet|Xen version 4")
        m.expect(UP)
        m.powered_off()


# ---- which drive is first ----

def boot_order():
    """-boot once= holds for one start, menu=on asks."""
    args = ["-hda", media("grub-rescue-usb.img"), "-cdrom", "/usr/lib/memtest86+/memtest86+x64.iso",
            "-snapshot", "-m", "64"]
    with Screen([*args, "-boot", "order=c,once=d"]) as m:
        m.see("Memtest86+ v6.10")
        m.qmp("system_reset")
        m.see("GNU GRUB  version 2.06")
    with Screen([*args, "-boot", "order=c,menu=on,splash-time=60000"]) as m:
        m.see("Press ESC for boot menu")
        m.qmp("send-key", keys=[{"type": "qcode", "data": "esc"}])
        m.see("Select boot device", "1. ", "2. ")
        m.press("2")
        m.see("Memtest86+ v6.10")
    # Nothing but what has a boot index, and that disk is no system.
    with Screen(["-m", "64", "-boot", "strict=on", "-cdrom", "/usr/lib/memtest86+/memtest86+x64.iso",
                 "-drive", "if=none,id=d,format=raw,read-only=on,file=" + __file__,
                 "-device", "virtio-blk-pci,drive=d,bootindex=1"]) as m:
        m.see("No bootable device")


# ---- Debian's kernel and the devices it knows ----

class Served:
    """A file for whoever asks this host by HTTP."""

    def __init__(self, data):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]


def md5(data):
    return hashlib.md5(data).hexdigest()


def expect_in(m, command, text):
    out = m.run(command)
    if text not in out:
        raise Failed(f"{command}: no \"{text}\" in {out}")


def network(m, card="eth0"):
    data = os.urandom(3 << 20)
    served = Served(data)
    expect_in(m, f"ifconfig {card}", "10.0.2.15")
    expect_in(m, "ping -c 1 -W 20 10.0.2.2 >/dev/null", "done-0")
    expect_in(m, f"wget -q -O - http://10.0.2.2:{served.port}/x | md5sum", md5(data))
    served.server.shutdown()


FIND_DISKS = ("for d in /sys/block/sd?; do case $(readlink $d) in */usb*) USB=/dev/${d##*/} ;; "
              "*/ata*) SATA=/dev/${d##*/} ;; *) SCSI=/dev/${d##*/} ;; esac; done")


def disks(m, folder):
    """SATA disk: what the guest wrote is in the file; CD and floppy are changed under it."""
    m.run(FIND_DISKS)
    expect_in(m, "dd if=/dev/urandom of=/tmp/r bs=64k count=64 2>/dev/null; dd if=/tmp/r of=$SATA bs=64k "
                 "2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; dd if=$SATA bs=4k count=1024 "
                 "2>/dev/null | cmp - /tmp/r", "done-0")
    m.run("md5sum /tmp/r")
    with open(os.path.join(folder, "disk"), "rb") as f:
        expect_in(m, "md5sum /tmp/r", md5(f.read(4 << 20)))
    for drive, device, size in (("cd", "/dev/sr0", 300 * 2048), ("fd", "/dev/fd0", 1474560)):
        for turn in range(2):
            data = os.urandom(size)
            path = os.path.join(folder, f"{drive}{turn}")
            pathlib.Path(path).write_bytes(data)
            m.qmp("blockdev-change-medium", device=drive, filename=path, format="raw")
            m.until(lambda: md5(data[:65536]) in m.run(f"dd if={device} bs=512 count=128 2>/dev/null | md5sum"),
                    f"the guest does not see another medium in {device}")


def viewer_of(m, vnc):
    """Comes once the guest's driver has set the adapter's own size."""
    found = []

    def sized():
        viewer = Viewer(vnc)
        if (viewer.width, viewer.height) == (1280, 800):
            found.append(viewer)
        else:
            viewer.close()
        return found
    m.until(sized, "the screen does not get its size")
    return found[0]


def keyboard_and_pointer(m, viewer):
    before = viewer.screen()
    m.run("(head -n 1 </dev/tty1 >/tmp/typed) & for e in /dev/input/event*; do (dd if=$e bs=24 count=6 "
          "2>/dev/null | hexdump -v -e '12/2 \"%04x \" \"\\n\"' >/tmp/${e##*/}) & done; sleep 1")
    viewer.type("Typed on a viewer 123\n")
    m.until(lambda: "Typed on a viewer 123" in m.run("cat /tmp/typed"), "what was typed did not arrive")
    if "virtio_gpu" not in m.run("cat /proc/fb") or (viewer.width, viewer.height) != (1280, 800):
        raise Failed(f"the screen is not virtio's: {viewer.width}x{viewer.height}")
    if before == viewer.screen():
        raise Failed("the viewer does not see what was typed")
    for step in range(8):
        viewer.pointer(10 + 9 * step, 10 + 5 * step, step & 1)
    m.until(lambda: " 0002 0000 00" in m.run("cat /tmp/event*"), "the pointer did not move")
    after = viewer.screen()
    if before == after:
        raise Failed("the viewer saw no change")


def scsi_and_usb(m, folder, viewer):
    """virtio-scsi and USB, there from the start and plugged in while Linux runs."""
    m.until(lambda: "the usb" in m.run(f"{FIND_DISKS}; head -c 8 $USB"), "no disk on USB")
    expect_in(m, "head -c 8 $SCSI", "the scsi")
    expect_in(m, "for d in $SCSI $USB; do dd if=/tmp/r of=$d bs=64k seek=16 conv=fsync 2>/dev/null; done", "done-0")
    for name in ("scsi", "usb"):
        with open(os.path.join(folder, name), "rb") as f:
            f.seek(1 << 20)
            expect_in(m, "md5sum /tmp/r", md5(f.read(4 << 20)))
    m.qmp("device_add", driver="scsi-cd", id="cd2", bus="scsi0.0", lun=3, scsi_id=7)
    m.until(lambda: "7:3" in m.run("ls /sys/class/scsi_device"), "no CD-ROM drive has come")
    m.qmp("device_del", id="cd2")
    m.until(lambda: "7:3" not in m.run("ls /sys/class/scsi_device"), "the CD-ROM drive has not gone")
    m.qmp("device_add", driver="usb-tablet", id="tablet", bus="usb.0")
    m.until(lambda: "USB Tablet" in m.run("cat /proc/bus/input/devices"), "no tablet has come")
    m.until(lambda: m.qmp("query-mice")[0]["absolute"], "the pointer is not absolute")
    m.run("e=$(grep -l Tablet /sys/class/input/event*/device/name | sed 's,.*/\\(event[0-9]*\\)/.*,\\1,'); "
          "(dd if=/dev/input/$e bs=24 count=12 2>/dev/null | hexdump -v -e '12/2 \"%04x \" \"\\n\"' >/tmp/tablet) & sleep 1")
    for step in range(8):
        viewer.pointer(viewer.width - 1, 7 * step, step & 1)
    m.until(lambda: " 0003 0000 7fff" in m.run("cat /tmp/tablet"), "the tablet does not tell where it is")
    m.qmp("device_del", id="tablet")
    m.until(lambda: "USB Tablet" not in m.run("cat /proc/bus/input/devices"), "the tablet has not gone")


def virtio_input(m, viewer):
    """Keys, a wheel and absolute places through virtio, by their names in the guest."""
    m.run("for e in /sys/class/input/event*; do case $(cat $e/device/name) in *Virtio*) "
          "n=$(sed 's/.* //' $e/device/name); (dd if=/dev/input/${e##*/} bs=24 count=4 2>/dev/null | "
          "hexdump -v -e '12/2 \"%04x \" \"\\n\"' >/tmp/v$n) & esac; done")
    want = {"Keyboard": " 0001 001e 0001", "Tablet": " 0003 0000 7fff"}
    m.until(lambda: m.qmp("query-mice")[0]["name"] == "QEMU Virtio Tablet", "the tablet does not have the pointer")

    def seen():
        viewer.type("ab")
        for step in range(4):
            viewer.pointer(viewer.width - 1 if step % 2 else 0, 7 * step, step & 1)
        return all(text in m.run(f"cat /tmp/v{name}") for name, text in want.items())
    m.until(seen, f"not all of {want}")


def older_usb(m, viewer):
    """A disk on EHCI, a keyboard and a tablet on UHCI."""
    m.until(lambda: "on ehci" in m.run("head -c 7 /dev/sda"), "no disk on EHCI")
    expect_in(m, "dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null; dd if=/tmp/r of=/dev/sda bs=64k seek=16 "
                 "conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/sda bs=64k skip=16 count=16 "
                 "2>/dev/null | cmp - /tmp/r", "done-0")
    m.qmp("device_add", driver="usb-tablet", id="tablet", bus="older-usb.0")
    m.until(lambda: "USB Tablet" in m.run("cat /proc/bus/input/devices"), "no tablet has come")
    m.until(lambda: "Tablet" in m.qmp("query-mice")[0]["name"] and "Virtio" not in m.qmp("query-mice")[0]["name"],
            "the tablet does not have the pointer")
    m.run("e=$(grep -l 'USB Tablet' /sys/class/input/event*/device/name | sed 's,.*/\\(event[0-9]*\\)/.*,\\1,'); "
          "(dd if=/dev/input/$e bs=24 count=8 2>/dev/null | hexdump -v -e '12/2 \"%04x \" \"\\n\"' >/tmp/tablet &)")

    def seen():
        for step in range(4):
            viewer.pointer(viewer.width - 1 if step % 2 else 0, 7 * step, step & 1)
        return " 0003 0000 7fff" in m.run("cat /tmp/tablet")
    m.until(seen, "the tablet does not tell where it is")
    m.qmp("device_del", id="tablet")
    m.until(lambda: "USB Tablet" not in m.run("cat /proc/bus/input/devices"), "the tablet has not gone")
    m.qmp("device_del", id="stick")
    m.until(lambda: "is-gone" in m.run("[ -b /dev/sda ] || echo is-go''ne"), "the disk has not gone")


def more_devices():
    """A bare frame buffer, virtio's keys and pointers, cards behind bridges, USB 1 and 2."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "behind").write_bytes(b"behind a bridge".ljust(1 << 20, b"."))
        pathlib.Path(folder, "stick").write_bytes(b"on ehci".ljust(8 << 20, b"."))
        vnc = os.path.join(folder, "vnc")
        usb = ["-device", "ich9-usb-ehci1,id=usb,addr=1d.7", "-drive", f"if=none,id=u,file={folder}/stick,format=raw",
               "-device", "usb-storage,drive=u,bus=usb.0,port=1,id=stick", "-device", "piix3-usb-uhci,id=older-usb"]
        for n in range(3):
            usb += ["-device", f"ich9-usb-uhci{n + 1},masterbus=usb.0,firstport={2 * n},addr=1d.{n}" +
                    (",multifunction=on" if not n else "")]
        with Screen(["-M", "q35", *usb, "-device", "bochs-display", "-vnc", f"unix:{vnc}", "-device", "virtio-keyboard-pci",
                     "-device", "virtio-mouse-pci", "-device", "virtio-tablet-pci",
                     "-device", "pcie-root-port,id=port", "-device", "x3130-upstream,id=up,bus=port",
                     "-device", "xio3130-downstream,id=down,bus=up,addr=3,chassis=2", "-device", "pcie-root-port,id=port2",
                     "-device", "pcie-pci-bridge,id=old,bus=port2", "-device", "pci-bridge,id=older,bus=old,chassis_nr=3,addr=2",
                     "-drive", f"if=none,id=b,file={folder}/behind,format=raw,readonly=on",
                     "-device", "virtio-blk-pci,drive=b,bus=older,addr=4", "-nic", "user,model=e1000e",
                     "-nic", "user,model=rtl8139",
                     *tiny("shell", "256M", "quiet console=tty0 console=ttyS0", guest="amd64")], vga=False) as m:
            m.expect("busybox")
            expect_in(m, "cat /proc/fb", "bochs-drm")
            network(m)
            for mode, line in ((0, "fasteoi"), (1, "MSI"), (2, "eth0-rx-0")):
                expect_in(m, f"rmmod e1000e; insmod /lib/modules/e1000e.ko IntMode={mode}; ifconfig eth0 mtu 4000 up; "
                             f"udhcpc -q -n -i eth0 -s /bin/lease >/dev/null; grep eth0 /proc/interrupts", line)
                expect_in(m, "ping -c 1 -s 1200 -W 20 10.0.2.2 >/dev/null", "done-0")
            expect_in(m, "ifconfig eth0 down; ifconfig eth1 up; udhcpc -q -n -i eth1 -s /bin/lease >/dev/null", "done-0")
            expect_in(m, "readlink /sys/class/net/eth1/device/driver", "8139cp")
            network(m, "eth1")
            viewer = viewer_of(m, vnc)
            virtio_input(m, viewer)
            older_usb(m, viewer)
            viewer.close()
            expect_in(m, "head -c 15 /dev/vda", "behind a bridge")
            for bus in "down", "older":  # behind a switch, and behind an old bridge behind another
                m.qmp("device_add", driver="virtio-rng-pci", id=f"on-{bus}", bus=bus)
                m.until(lambda: re.search("0x10(44|05)", m.run("cat /sys/bus/pci/devices/*/device")), f"no card comes to {bus}")
                m.qmp("device_del", id=f"on-{bus}")
                m.until(lambda: m.qmp("query-status") and f"on-{bus}" in {e["data"].get("device") for e in m.events
                                                                         if e["event"] == "DEVICE_DELETED"},
                        f"the card of {bus} does not go")
            m.type("poweroff -f\n")
            m.powered_off()


def host_side(m):
    """What monitors show of a running Linux, and what it tells."""
    def hmp(line):
        return m.qmp("human-monitor-command", command_line=line)
    if "rw" not in hmp("info mem") or hmp("info tlb").count("\n") < 100:
        raise Failed("no mappings")
    if "blocks" not in hmp("info jit"):
        raise Failed("no counters")
    jit = m.qmp("query-jit")
    if not jit["cache"]["used"] or not all(jit["cpus"][0][c] for c in ("blocks", "tlb-miss", "tlb-fill",
                                                                     "system-call")):
        raise Failed(f"counters of nothing: {jit}")
    m.qmp("balloon", value=200 << 20)
    m.until(lambda: m.qmp("query-balloon")["actual"] == 200 << 20, "the balloon does not move")
    m.run("date -s 2031-05-06 && hwclock -u -w")
    names = ["BALLOON_CHANGE", "RTC_CHANGE", "VNC_INITIALIZED"]
    m.until(lambda: m.qmp("query-status") and set(names) <= {e["event"] for e in m.events},
            f"not all of {names}")


def devices():
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "disk").write_bytes(bytes(32 << 20))
        for name in ("scsi", "usb"):
            pathlib.Path(folder, name).write_bytes(f"the {name} disk".encode().ljust(8 << 20, b"."))
        vnc = os.path.join(folder, "vnc")
        with Screen(["-M", "q35,vmport=off", "-vga", "virtio", "-smp", "2", "-no-reboot", "-nic", "user,model=e1000",
                     "-drive", f"file={folder}/disk,format=raw,if=ide,index=0",
                     "-drive", "if=ide,index=2,media=cdrom,id=cd", "-drive", "if=floppy,index=0,id=fd",
                     "-device", "isa-fdc,driveA=fd", "-device", "virtio-balloon-pci",
                     "-drive", f"if=none,id=s,file={folder}/scsi,format=raw", "-device", "virtio-scsi-pci,id=scsi0",
                     "-device", "scsi-hd,bus=scsi0.0,drive=s", "-device", "qemu-xhci,id=usb",
                     "-drive", f"if=none,id=u,file={folder}/usb,format=raw", "-device", "usb-storage,drive=u",
                     "-vnc", f"unix:{vnc}",
                     *tiny("shell", "256M", "quiet console=tty0 console=ttyS0", guest="amd64")], vga=False) as m:
            m.expect("busybox")
            network(m)
            disks(m, folder)
            viewer = viewer_of(m, vnc)
            keyboard_and_pointer(m, viewer)
            scsi_and_usb(m, folder, viewer)
            host_side(m)
            viewer.close()
            m.type("poweroff -f\n")
            m.powered_off()


TESTS = {
    "memtest": memtest,
    "grub-rescue": grub_rescue,
    "ipxe": ipxe,
    "pxe": pxe,
    "isolinux": isolinux,
    "pvh": pvh,
    "multiboot": multiboot,
    "xen": xen,
    "boot-order": boot_order,
    "devices": devices,
    "more-devices": more_devices,
}

if __name__ == "__main__":
    main(TESTS)
