#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot loaders, testers and kernels of Debian's packages, each started as its users start it.

What they say is read from text memory (all of it: the start address scrolls) or from the
serial port; what is typed goes in as keys.
"""
import os
import pathlib
import subprocess
import tempfile
import time

from guest import UP, Failed, Machine, guest_file, main, tiny

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
    grub(["-M", "q35", "-cdrom", media("grub-rescue-cdrom.iso")], "(cd)")
    grub(["-hda", media("grub-rescue-usb.img"), "-snapshot"], "(hd0")


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


def multiboot():
    """A kernel of our own, with a module, through firmware and without; devices for tests."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "multiboot.S")
    with tempfile.TemporaryDirectory() as folder:
        kernel, module = os.path.join(folder, "kernel"), os.path.join(folder, "module")
        subprocess.run(["gcc", "-m32", "-static", "-nostdlib", "-Wl,-Ttext=0x100000,--build-id=none",
                        "-o", kernel, source], check=True)
        pathlib.Path(module).write_bytes(b"inside the module\0")
        for machine, engine in (("pc", "bt"), ("q35", "bt"), ("pc,kernel-firmware=off", "interp")):
            with Machine(["-M", machine, "-accel", engine, "-m", "32", "-kernel", kernel, "-append",
                          "some words", "-initrd", f"{module} a text", "-device", "pc-testdev",
                          "-device", "isa-debug-exit,iobase=0x501,iosize=2"]) as m:
                code = m.wait()
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


def ovmf_kernel():
    """-kernel through UEFI: OVMF finds it in fw_cfg."""
    code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    with Screen(["-M", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={code}", "-no-reboot",
                 *tiny("poweroff", "256M", "quiet")], vga=False) as m:
        m.expect(UP)
        if "EFI stub" not in m.seen:
            raise Failed("not through UEFI")
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
    "ovmf-kernel": ovmf_kernel,
}

if __name__ == "__main__":
    main(TESTS)
