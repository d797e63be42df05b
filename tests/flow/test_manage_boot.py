#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine starts from, with SeaBIOS and real media: <boot dev>, <boot order> and <bootmenu>."""
import os
import unittest

import libvirt

import guest
import manage

DISK, FLOPPY = ("disk", "disk", "this is the disk"), ("floppy", "floppy", "this is the floppy")
CD = ("grub-rescue-cdrom.iso", "cdrom", "GNU GRUB  version 2.06")
MEMTEST = ("/usr/lib/memtest86+/memtest86+x64.iso", "cdrom", "Memtest86+ v6.10")
NOTHING = ("nothing", "disk", "")
IPXE = "Open Source Network Boot Firmware"
CARD = "<interface type='user'><model type='{}'/>{}</interface>"


def sector(text):
    """A boot sector that prints @text by the BIOS: xor ax,ax; mov ds,ax; mov si,text; lodsb; ..."""
    code = bytes.fromhex("31c0 8ed8 be157c ac 84c0 74fe b40e bb0700 cd10 ebf2")
    return (code + text.encode()).ljust(510, b"\0") + b"\x55\xaa"


class Boot(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name, text in ((DISK[0], sector(DISK[2])), (FLOPPY[0], sector(FLOPPY[2])), (NOTHING[0], b"")):
            with open(os.path.join(cls.daemon.root, name), "wb") as f:
                f.write(text)
                f.truncate(1440 << 10)

    def setUp(self):
        self.conn = self.connect()

    def disk(self, what, dev, bus, order=None):
        file, kind, _ = what
        media = kind == "cdrom" and file[0] != "/"
        path = guest.guest_file("media", file) if media else os.path.join(self.daemon.root, file)
        readonly = "<transient/>" if kind == "disk" else ""
        boot = f"<boot order='{order}'/>" if order else ""
        return f"""<disk type='file' device='{kind}'><driver name='qemu' type='raw'/><source file='{path}'/>
            <target dev='{dev}' bus='{bus}'/>{readonly}{boot}</disk>"""

    def start(self, devices, boots="", board="pc"):
        name = "boots"
        self.dom = self.conn.createXML(f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
            <os><type machine='{board}'>hvm</type>{boots}</os><features><acpi/></features>
            <devices><graphics type='vnc'/><video><model type='vga'/></video>{devices}</devices></domain>""")

    def text(self):
        cells = self.dom.memoryPeek(0xB8000, 4000, libvirt.VIR_MEMORY_PHYSICAL)[::2]
        return "".join(chr(c) if 32 <= c < 127 else " " for c in cells)

    def see(self, text):
        try:
            manage.until(lambda: text in self.text(), text)
        except AssertionError as e:
            raise AssertionError(f"{e}; on the screen: {' '.join(self.text().split())}") from e

    def starts(self, text, *args, **more):
        with self.subTest(text=text, args=args):
            self.start(*args, **more)
            try:
                self.see(text)
            finally:
                self.dom.destroy()

    def test_kinds_of_devices(self):
        cd, disk = self.disk(MEMTEST, "hdc", "ide"), self.disk(DISK, "vda", "virtio")
        nothing = self.disk(NOTHING, "vda", "virtio")
        for dev, text, devices in (("hd", DISK[2], disk + cd), ("cdrom", MEMTEST[2], disk + cd),
                                   ("fd", FLOPPY[2], nothing + cd + self.disk(FLOPPY, "fda", "fdc")),
                                   ("network", IPXE, disk + cd + CARD.format("virtio", ""))):
            self.starts(text, devices, f"<boot dev='{dev}'/>")
        # the first has nothing that starts; the second does
        self.starts(MEMTEST[2], nothing + cd, "<boot dev='hd'/><boot dev='cdrom'/>")

    def test_order_of_devices(self):
        others = self.disk(NOTHING, "vda", "virtio", 2) + self.disk(MEMTEST, "sda", "sata", 3)
        self.starts(MEMTEST[2], others, board="q35")
        for what, dev, bus, text in ((CD, "sdb", "scsi", CD[2]), (DISK, "sdb", "usb", DISK[2]),
                                     (DISK, "sdb", "sata", DISK[2]), (DISK, "vdb", "virtio", DISK[2]),
                                     (FLOPPY, "fda", "fdc", FLOPPY[2])):
            self.starts(text, others + self.disk(what, dev, bus, 1), board="q35")
        self.starts(IPXE, others + CARD.format("e1000", "<boot order='1'/>"), board="q35")

    def test_floppy_is_changed(self):
        floppy = os.path.join(self.daemon.root, FLOPPY[0])
        empty = """<disk type='file' device='floppy'><target dev='fdb' bus='fdc'/></disk>"""
        self.start(self.disk((NOTHING[0], "floppy", ""), "fda", "fdc") + empty, "<boot dev='fd'/>")
        self.addCleanup(self.dom.destroy)
        self.see("not a bootable disk")
        self.virsh("change-media", "boots", "fda", floppy, "--update")
        self.assertRegex(self.virsh("domblklist", "boots"), f"fda +{floppy}")
        self.dom.reset()
        self.see(FLOPPY[2])
        self.virsh("change-media", "boots", "fda", "--eject")
        self.assertRegex(self.virsh("domblklist", "boots"), r"fda +-")
        self.virsh("change-media", "boots", "fdb", floppy, "--insert")
        self.assertRegex(self.virsh("domblklist", "boots"), f"fdb +{floppy}")

    def test_menu(self):
        self.start(self.disk(DISK, "vda", "virtio") + self.disk(MEMTEST, "hdc", "ide"),
                   "<boot dev='hd'/><boot dev='cdrom'/><bootmenu enable='yes' timeout='60000'/>")
        self.addCleanup(self.dom.destroy)
        self.see("Press ESC for boot menu")
        self.dom.sendKey(0, 20, [1], 1, 0)  # Escape
        self.see("Select boot device")
        self.see("2. ")
        self.dom.sendKey(0, 20, [3], 1, 0)  # 2
        self.see(MEMTEST[2])


if __name__ == "__main__":
    unittest.main()
