#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every word of the domain XML is refused by its name, or the machine is another one for it: a row says what the
definition asks for, and what is said to that, or what lodge-vm is told."""
import ctypes
import os
import re
import shutil
import socket
import unittest
import xml.etree.ElementTree as ET

import libvirt

import manage
from test_manage_clients import setUpModule  # noqa: F401: the name space, before all tests
from test_manage_domain import GUEST, machine

DISK = "<disk type='file' device='{kind}'><driver name='qemu' type='raw' {driver}/><source file='{file}'/>" \
    "<target dev='{dev}' bus='{bus}' {target}/>{more}</disk>"
PORT = "<controller type='pci' model='pcie-root-port' {0}>{1}</controller>"
QEMU = "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>{}</q:commandline>"


def disk(kind="disk", dev="vda", bus="virtio", driver="", target="", more="", file="FILE"):
    return DISK.format(**locals())



def one_video(words):
    return f"<graphics type='vnc'/><video><model {words}/></video>"


def hostdev(kind, source):
    return f"<hostdev mode='subsystem' type='{kind}'>{source}</hostdev>"


# (devices, what refuses them)
DEVICES_REFUSED = (
    # what may wait, and what no machine here has
    ("<hub type='usb'/>", "<hub>"),
    ("<shmem name='s'><model type='ivshmem-plain'/></shmem>", "<shmem>"),
    ("<redirdev bus='usb' type='tcp'/>", "<redirdev>"),
    ("<redirfilter><usbdev allow='no'/></redirfilter>", "<redirfilter>"),
    (hostdev("usb", "<source><vendor id='0x1'/><product id='0x2'/></source>"), "<hostdev>"),
    (hostdev("pci", "<source><address domain='0' bus='0' slot='1' function='0'/></source>"), "<hostdev>"),
    ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "<tpm>"),
    ("<vsock model='virtio'><cid auto='yes'/></vsock>", "<vsock>"),
    ("<filesystem type='mount'><source dir='/'/><target dir='t'/></filesystem>", "<filesystem>"),
    ("<smartcard mode='host'/>", "<smartcard>"),
    ("<crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>", "<crypto>"),
    ("<iommu model='intel'/>", "<iommu>"),
    ("<nvram/>", "<nvram>"),
    ("<lease><lockspace>s</lockspace><key>k</key><target path='/x'/></lease>", "<lease>"),
    ("<channel type='spicevmc'><target type='virtio'/></channel>", "'spicevmc'"),
    ("<graphics type='spice'/>", "'spice'"), ("<graphics type='sdl'/>", "'sdl'"),
    ("<graphics type='rdp'/>", "'rdp'"), ("<graphics type='egl-headless'/>", "'egl-headless'"),
    ("<video><model type='qxl'/></video>", "'qxl'"), ("<video><model type='cirrus'/></video>", "'cirrus'"),
    ("<video><model type='ramfb'/></video>", "'ramfb'"), ("<video><model type='vmvga'/></video>", "'vmvga'"),
    ("<input type='passthrough' bus='virtio'><source evdev='/x'/></input>", "'passthrough'"),
    ("<input type='evdev'><source dev='/x'/></input>", "'evdev'"),
    ("<watchdog model='itco'/>", "'itco'"), ("<panic model='hyperv'/>", "'hyperv'"),
    ("<memballoon model='xen'/>", "'xen'"), ("<sound model='sb16'/>", "'sb16'"),
    ("<sound model='usb'/>", "'usb'"), ("<audio id='1' type='alsa'/>", "'alsa'"),
    ("<memory model='nvdimm'><target><size>524288</size></target></memory>", "'nvdimm'"),
    ("<memory model='virtio-mem'><target><size>524288</size></target></memory>", "'virtio-mem'"),
    ("<rng model='virtio'><backend model='egd' type='udp'/></rng>", "'egd'|type"),
    ("<controller type='xenbus'/>", "'xenbus'"), ("<controller type='ccid'/>", "'ccid'"),
    ("<controller type='scsi' model='lsilogic'/>", "'lsilogic'"),
    ("<controller type='pci' model='pcie-expander-bus'/>", "'pcie-expander-bus'"),
    ("<interface type='network'><source network='default'/><virtualport type='openvswitch'/></interface>",
     "<virtualport>"),
    ("<interface type='vhostuser'><source type='unix' path='/x' mode='client'/></interface>", "'vhostuser'"),
    ("<interface type='hostdev'/>", "'hostdev'"), ("<interface type='server'/>", "'server'"),
    ("<interface type='user'><backend type='passt'/></interface>", "<backend>"),
    ("<interface type='user'><coalesce/></interface>", "<coalesce>"),
    ("<interface type='user'><model type='virtio'/><driver name='vhost'/></interface>", "vhost"),
    ("<interface type='user'><vlan><tag id='3'/></vlan></interface>", "<vlan>"),
    ("<serial type='spiceport'/>", "'spiceport'"), ("<serial type='dbus'/>", "'dbus'"),
    ("<serial type='pty'><target type='usb-serial'/></serial>", "'usb-serial'"),
    (disk(more="<reservations managed='yes'/>"), "reservations"), (disk(more="<geometry cyls='1'/>"), "geometry"),
    (disk().replace("'raw'", "'foo'"), "unsupported configuration: unknown driver format value 'foo'"),
    (disk(driver="iommu='on'"), "iommu"), (disk(kind="lun"), "'lun'"), (disk(dev="xvda", bus="xen"), "'xen'"),
    ("<disk type='nvme' device='disk'><target dev='vda'/></disk>", "'nvme'"),
    ("<disk type='vhostuser' device='disk'><target dev='vda'/></disk>", "'vhostuser'"),
    # what would be without effect where it stands
    (disk(kind="floppy", dev="fda", bus="fdc", more="<serial>s</serial>"), "serial of a floppy"),
    (disk(kind="floppy", dev="fda", bus="fdc", driver="queues='2'"), "queues of a floppy"),
    ("<controller type='ide' model='piix3-uhci' index='0'/>", "@model of another type"),
    ("<controller type='scsi' model='qemu-xhci'/>", "@model of another type"),
    ("<controller type='usb' model='piix3-uhci' ports='4'/>", "@ports"),
    ("<controller type='scsi' vectors='4'/>", "@vectors"),
    ("<controller type='usb'><driver queues='2'/></controller>", "@queues"),
    ("<controller type='usb'><driver iothread='1'/></controller>", "iothread"),
    (PORT.format("", "<model name='ioh3420'/>"), "'ioh3420'"),
    (PORT.format("", "<model name='pci-bridge'/>"), "model/@name"),
    (PORT.format("", "<target chassisNr='3'/>"), "@chassisNr"),
    ("<controller type='scsi'><target hotplug='off'/></controller>", "target/@hotplug"),
    ("<controller type='scsi'><target chassis='3'/></controller>", "@chassis "),
    ("<controller type='scsi'><target port='3'/></controller>", "target/@port"),
    ("<controller type='scsi'><master startport='1'/></controller>", "controller/master"),
    ("<serial type='pty'><protocol type='telnet'/></serial>", "protocol"),
    ("<serial type='pty'><target type='isa-serial' name='x'/></serial>", "target/@name"),
    ("<serial type='pty'><target type='isa-serial'><model name='pci-serial'/></target></serial>", "model/@name"),
    ("<serial type='pty'><target type='virtio'/></serial>", "<serial> with a target of type 'virtio'"),
    ("<console type='pty'><target type='isa-serial'/></console>", "<console> with a target"),
    ("<parallel type='pty'><target type='virtio'/></parallel>", "<parallel> with a target"),
    ("<graphics type='vnc' passwdValidTo='2030-01-01T00:00:00'/>", "without a password"),
    ("<graphics type='vnc' passwd='x' passwdValidTo='soon'/>", "cannot parse password validity time 'soon'"),
    ("<graphics type='vnc'><listen type='address'/><listen type='socket'/></graphics>", "more than one"),
    ("<graphics type='vnc'><listen type='network' network='nosuch'/></graphics>", "matching name 'nosuch'"),
    ("<graphics type='vnc'/><graphics type='vnc'/>", "only 1 graphics"),
    (one_video("type='vga' heads='2'"), "heads"), (one_video("type='bochs' vgamem='16384'"), "vgamem"),
    ("<video><model type='vga'/></video><video><model type='virtio'/></video>", "more than one <video>"),
    ("<sound model='ac97'><codec type='micro'/></sound>", "sound/codec"),
    ("<audio id='1' type='none' path='/x'/>", "audio/@path"),
    ("<input type='tablet' bus='ps2'/>", "ps2 bus does not support tablet"),
    ("<rng model='virtio'><backend model='random'/><address type='isa' iobase='0x100'/></rng>",
     "'isa' is not supported for <rng>"),
    (disk(more="<address type='usb' bus='0' port='1'/>"), "'usb' is not supported for <disk>"),
    ("<memballoon model='virtio'><address type='unassigned'/></memballoon>", "'unassigned'"),
)

# (elements beside <devices>, what refuses them)
MORE_REFUSED = (
    ("<launchSecurity type='sev'><cbitpos>47</cbitpos></launchSecurity>", "<launchSecurity>"),
    ("<idmap><uid start='0' target='1' count='1'/></idmap>", "<idmap>"),
    ("<keywrap><cipher name='aes' state='on'/></keywrap>", "<keywrap>"),
    ("<genid/>", "<genid>"), ("<bootloader>/x</bootloader>", "<bootloader>"),
    ("<perf><event name='cmt' enabled='yes'/></perf>", "<perf>"),
    ("<throttlegroups/>", "<throttlegroups>"), ("<defaultiothread thread_pool_min='1'/>", "<defaultiothread>"),
    ("<resource><partition>/other</partition></resource>", "partition other than '/machine'"),
    ("<resource><fibrechannel appid='x'/></resource>", "<fibrechannel>"),
    (QEMU.format("<q:arg value='-nosuch'/>"), "lodge-vm: .*-nosuch"), (QEMU.format("<q:arg/>"), "'@value'"),
    (QEMU.format("<q:arg value='-device'/><q:arg value='nosuch'/>"), "lodge-vm: -device nosuch: 'nosuch' is not"),
    (QEMU.format("<q:env name='9'/>"), "Invalid environment name '9'"), (QEMU.format("<q:x/>"), "<q:x>"),
    (QEMU.format("").replace("commandline", "capabilities"), "<q:capabilities>"),
    (QEMU.format("").replace("qemu/1.0", "xen/1.0"), "<q:commandline>"),
    ("<commandline/>", "<commandline>"),
    ("<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>", "type='static'"),
    ("<seclabel type='dynamic' model='dac' relabel='no'/>", "relabel='no'"),
    ("<seclabel type='dynamic' model='selinux' relabel='yes'/>", "Unable to find security driver for model selinux"),
    ("<clock offset='utc'><timer name='tsc' frequency='1000000000'/></clock>", "frequency"),
    ("<clock offset='utc'><timer name='rtc' track='guest'/></clock>", "track"),
    ("<clock offset='utc'><timer name='pit' track='wall'/></clock>", "track"),
    ("<clock offset='utc'><timer name='pit' tickpolicy='merge'/></clock>", "tickpolicy"),
    ("<clock offset='utc'><timer name='rtc' tickpolicy='discard'/></clock>", "tickpolicy"),
    ("<clock offset='utc'><timer name='pit' present='no'/></clock>", "present"),
    ("<clock offset='utc'><timer name='hypervclock' present='yes'/></clock>", "'hypervclock'"),
    ("<cpu mode='host-passthrough'><cache mode='passthrough'/></cpu>", "cpu/cache"),
    ("<cpu mode='host-passthrough'><cache mode='emulate' level='2'/></cpu>", "cpu/cache"),
    ("<cpu mode='host-passthrough'><maxphysaddr mode='emulate'/></cpu>", "<maxphysaddr>"),
    ("<cpu mode='host-passthrough'><maxphysaddr mode='emulate' bits='60'/></cpu>", "32 to 52"),
    ("<cpu mode='host-model'><maxphysaddr mode='passthrough'/></cpu>", "'passthrough'"),
    ("<vcpu>2</vcpu><cpu><topology sockets='1' dies='1' clusters='2' cores='1' threads='1'/></cpu>", "one cluster"),
    ("<vcpu placement='auto'>1</vcpu>", "numad"),
    ("<numatune><memory mode='strict' placement='auto'/></numatune>", "numad"),
    ("<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='1'/></cachetune></cputune>",
     "<cachetune>"),
    ("<cputune><vcpusched vcpus='0' scheduler='fifo' priority='1'/></cputune>", "<vcpusched>"),
    ("<memoryBacking><source type='other'/></memoryBacking>", "'other'"),
)

# (replaced, by, what refuses it)
REPLACED_REFUSED = (
    ("<apic/>", "<hyperv mode='custom'><relaxed state='on'/></hyperv>", "<hyperv>"),
    ("<apic/>", "<pmu state='on'/>", "features/pmu"), ("<apic/>", "<ioapic driver='kvm'/>", "<ioapic>"),
    ("<apic/>", "<pvspinlock state='on'/>", "<pvspinlock>"), ("<apic/>", "<viridian/>", "<viridian>"),
    ("<apic/>", "<smm state='on'><tseg unit='MiB'>48</tseg></smm>", "<tseg>"),
    ("</os>", "<bios useserial='yes'/></os>", "useserial"),
    ("</os>", "<nvram>/x</nvram></os>", "os/nvram"),
    ("</os>", "<nvram format='qcow2'>/x</nvram></os>", "'qcow2'"),
    ("</os>", "<firmware><feature enabled='no' name='secure-boot'/></firmware></os>", "no firmware='efi'"),
    ("<os>", "<os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware>", "'secure-boot'"),
    ("</os>", "<loader secure='yes'>/x</loader></os>", "secure"),
    ("</os>", "<loader type='rom' readonly='no'>/x</loader></os>", "readonly"),
    ("</os>", "<acpi><table type='slic'>/x</table></acpi></os>", "<acpi>"),
    (f"<kernel>{GUEST}/vmlinuz</kernel>", "", "without a kernel"),
    ("type='qemu'>", "type='xen'>", "'xen'"),
    (">hvm<", ">xen<", "'xen'"), ("machine='q35'", "machine='microvm'", "'microvm'"),
    ("machine='q35'", "machine='q35' arch='aarch64'", "'aarch64'"),
)

# (what is asked for, words of the command line): devices, then elements beside them, then replacements
DEVICES = (
    (disk(kind="cdrom", dev="sda", bus="sata", driver="cache='none' io='threads' discard='ignore'"),
     "media=cdrom.*,file.filename=.*,cache=none,discard=ignore,file.aio=threads"),
    (disk(kind="cdrom", dev="sda", bus="sata", target="tray='open'"), "media=cdrom"),
    (disk(kind="floppy", dev="fda", bus="fdc", more="<boot order='3'/>"),
     "isa-fdc,driveA=drive-fdc0-0-0,bootindexA=3"),
    (disk(dev="sda", bus="usb", more="<address type='usb' bus='1' port='3'/>") +
     "<controller type='usb' index='0'/><controller type='usb' index='1'/>", "usb-storage,.*bus=usb1.0,port=3"),
    (disk(dev="sda", bus="scsi", more="<address type='drive' unit='2'/>"), "bus=scsi0.0,channel=0,scsi-id=0,lun=2"),
    (disk(dev="sda", bus="sata", more="<address type='drive' unit='2'/>"), "ide-hd,.*bus=ide.2"),
    ("<panic model='isa'><address type='isa' iobase='0x505'/></panic>", "pvpanic,ioport=1285"),
    ("<controller type='pci' index='3' model='pci-bridge'><target chassisNr='7'/></controller>"
     "<controller type='pci' index='2' model='pcie-to-pci-bridge'/>"
     "<controller type='pci' index='1' model='pcie-root-port'/>", "pci-bridge,.*chassis_nr=7"),
    (one_video("type='bochs' vram='32768'"), "bochs-display,.*vgamem=33554432"),
    ("<graphics type='vnc' passwd='secret' passwdValidTo='2130-01-01T00:00:00'/>", "password=on"),
    ("<serial type='pty'><target type='isa-debug'/><address type='isa' iobase='0x402'/></serial>",
     "isa-debugcon,.*iobase=1026"),
    ("<memballoon model='none'/>", "-no-user-config"), ("<sound model='pcspk'/>", "pcspk-audiodev=audio1"),
)
MORE = (
    ("<resource><partition>/machine</partition></resource>", "-S"),
    ("<seclabel type='none'/>", "-S"),
    ("<seclabel type='dynamic' model='dac' relabel='yes'><label>+1:+1</label></seclabel>", "-S"),
    ("<clock offset='utc'><timer name='kvmclock' present='no'/></clock>", "-cpu max,-kvmclock"),
    ("<clock offset='utc'><timer name='rtc' tickpolicy='catchup' track='wall'/><timer name='pit' "
     "tickpolicy='delay'/><timer name='hpet' present='no'/></clock>", "hpet=off.*driftfix=slew"),
    ("<cpu mode='maximum'><cache mode='disable'/></cpu>", "-cpu max,l3-cache=off"),
    ("<cpu mode='maximum'><cache mode='emulate' level='3'/></cpu>", "-cpu max,l3-cache=on"),
    ("<cpu mode='maximum'><maxphysaddr mode='emulate' bits='42'/></cpu>", "-cpu max,phys-bits=42"),
    ("<cpu mode='maximum'><maxphysaddr mode='passthrough'/></cpu>", "-cpu max,host-phys-bits=on"),
    ("<vcpu>2</vcpu><cpu><topology sockets='1' dies='1' clusters='1' cores='2' threads='1'/></cpu>",
     "-smp 2,sockets=1,"),
    ("<memoryBacking><source type='file'/><access mode='shared'/><allocation mode='immediate'/><discard/>"
     "</memoryBacking>", "memory-backend-file,.*share=on,prealloc=on"),
    ("<memoryBacking><source type='anonymous'/><nosharepages/></memoryBacking>", "memory-backend-ram.*merge=off"),
    ("<numatune><memory mode='strict' nodeset='0'/><memnode cellid='0' mode='preferred' nodeset='0'/></numatune>"
     "<cpu><numa><cell id='0' cpus='0' memory='131072'/></numa></cpu>", "host-nodes=0,policy=preferred"),
    ("<iothreads>1</iothreads><iothreadids><iothread id='5'/></iothreadids>", "iothread,id=iothread5"),
    ("<on_reboot>destroy</on_reboot>", "-no-reboot"),
)
REPLACED = (
    ("machine='q35'", "machine='q35' arch='i686'", "-cpu max,-lm"),
    ("</os>", "<bootmenu enable='yes' timeout='3000'/></os>", "menu=on,splash-time=3000"),
    ("</os>", "<loader type='rom' readonly='yes'>/usr/share/seabios/bios-256k.bin</loader></os>",
     "-bios /usr/share/seabios/bios-256k.bin"),
    ("<os>", "<os firmware='efi'><firmware><feature enabled='no' name='secure-boot'/><feature enabled='no' "
     "name='enrolled-keys'/></firmware>", "if=pflash,unit=0,format=raw,readonly=on,file=.*OVMF_CODE"),
    ("</os>", "<loader type='pflash' readonly='no' format='raw'>FLASH</loader>"
     "<nvram template='VARS' format='raw'/></os>", "if=pflash,unit=0,format=raw,readonly=off,file=.*flash"),
    ("<apic/>", "<vmport state='off'/><smm state='off'/>", "vmport=off,smm=off"),
)


def lets_in(port, password):
    """Whether the VNC server takes @password (RFC 6143, "VNC Authentication")."""
    key = bytes(int(f"{b:08b}"[::-1], 2) for b in password.encode().ljust(8, b"\0"))
    crypt = ctypes.CDLL("libgcrypt.so.20")
    crypt.gcry_check_version(None)
    cipher, answer = ctypes.c_void_p(), ctypes.create_string_buffer(16)
    crypt.gcry_cipher_open(ctypes.byref(cipher), 302, 1, 0)  # DES, each block for itself
    crypt.gcry_cipher_setkey(cipher, key, 8)
    with socket.create_connection(("127.0.0.1", port), manage.PATIENCE) as s, s.makefile("rb") as f:
        s.sendall(f.read(12))
        assert 2 in f.read(f.read(1)[0])
        s.sendall(b"\2")
        crypt.gcry_cipher_encrypt(cipher, answer, 16, f.read(16), 16)
        s.sendall(answer.raw)
        return f.read(4) == bytes(4)


class Words(manage.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.file = os.path.join(cls.daemon.root, "medium")
        with open(cls.file, "wb") as f:
            f.truncate(1440 << 10)
        os.chmod(cls.file, 0o666)
        cls.flash = shutil.copy("/usr/share/OVMF/OVMF_CODE_4M.fd", os.path.join(cls.daemon.root, "flash"))

    def setUp(self):
        self.conn = self.connect()

    def xml(self, devices="", more="", old="", new=""):
        text = machine("never", devices=devices.replace("FILE", self.file), more=more)
        new = new.replace("FLASH", self.flash).replace("VARS", "/usr/share/OVMF/OVMF_VARS_4M.fd")
        text = text.replace("</name>", "</name><uuid>6ba7b810-9dad-11d1-80b4-00c04fd430c8</uuid>")
        assert old in text, old
        return text.replace(old, new, 1) if old else text

    def refused(self, words, **asked):
        with self.subTest(**asked), self.assertRaisesRegex(libvirt.libvirtError, words):
            dom = self.conn.defineXML(self.xml(**asked))
            dom.create()
            dom.destroy()  # nothing was refused

    def works(self, words, **asked):
        with self.subTest(**asked):
            dom = self.conn.defineXML(self.xml(**asked))
            dom.create()
            try:
                with open(f"/proc/{self.daemon.pid(dom.UUIDString())}/cmdline", encoding="utf-8") as f:
                    self.assertRegex(f.read().replace("\0", " "), words)
                self.assertNotIn("tray=", dom.XMLDesc())
            finally:
                dom.destroy()

    def test_what_is_refused(self):
        for devices, words in DEVICES_REFUSED:
            self.refused(words, devices=devices)
        for more, words in MORE_REFUSED:
            self.refused(words, more=more)
        for old, new, words in REPLACED_REFUSED:
            self.refused(words, old=old, new=new)

    def test_what_the_machine_is_told(self):
        for devices, words in DEVICES:
            self.works(words, devices=devices)
        for more, words in MORE:
            self.works(words, more=more)
        for old, new, words in REPLACED:
            self.works(words, old=old, new=new)

    def test_many_on_usb(self):
        """A controller more comes when the ports have gone; who has a port keeps it."""
        first = disk(dev="sda", bus="usb", more="<address type='usb' port='1'/>", driver="", file="FILE0")
        others = "".join(disk(dev=f"sd{'abcdef'[i]}", bus="usb", file=f"FILE{i}") for i in range(1, 6))
        for i in range(6):
            shutil.copy(self.file, f"{self.file}{i}")
            os.chmod(f"{self.file}{i}", 0o666)
        for controller, ports in (("", "0.2 0.1 0.3 0.4 1.1 1.2 1.3"),
                                  ("<controller type='usb' model='ich9-ehci1'/>", "0.2 0.1 0.3 0.4 0.5 0.6 1.1"),
                                  ("<controller type='usb' model='piix3-uhci'/>", "0.2 0.1 1.1 1.2 1.3 1.4 1.5")):
            with self.subTest(controller=controller):
                if "piix3" in controller:  # which has room for slow devices alone
                    first = disk(dev="sda", bus="usb", file="FILE0")
                    ports = "0.1 1.1 1.2 1.3 1.4 1.5 1.6"
                dom = self.conn.createXML(self.xml(
                    devices=f"{controller}<input type='tablet' bus='usb'/>{first}{others}"))
                try:
                    root = ET.fromstring(dom.XMLDesc())
                    found = [a for kind in ("input", "disk") for a in root.findall(f"devices/{kind}/address")]
                    self.assertEqual([f"{a.get('bus')}.{a.get('port')}" for a in found], ports.split())
                finally:
                    dom.destroy()

    def test_what_a_plugged_in_disk_keeps(self):
        limit = "<iotune><total_iops_sec>{}</total_iops_sec></iotune>"
        dom = self.conn.createXML(self.xml(devices=disk(driver="cache='none'", more="<serial>one</serial>")))
        self.addCleanup(dom.destroy)
        for field, asked in (("cache", disk(driver="cache='writeback'")), ("serial", disk(more="<serial>two</serial>")),
                             ("discard", disk(driver="discard='unmap'")), ("readonly", disk(more="<readonly/>")),
                             ("total_iops_sec", disk(more=limit.format(100)))):
            with self.subTest(field=field), self.assertRaisesRegex(
                    libvirt.libvirtError, rf"cannot modify field '{field}' \(or its parts\) of the disk") as caught:
                dom.updateDeviceFlags(asked.replace("FILE", self.file), libvirt.VIR_DOMAIN_AFFECT_LIVE)
            self.assertEqual(caught.exception.get_error_code(), libvirt.VIR_ERR_OPERATION_UNSUPPORTED)
        with self.assertRaisesRegex(libvirt.libvirtError, "does not have removable media"):
            dom.updateDeviceFlags(disk(file="/other"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        same = disk(driver="cache='none'").replace("device='disk'", "device='disk' snapshot='no'")
        dom.updateDeviceFlags(same.replace("FILE", self.file), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.assertIn("snapshot='no'", dom.XMLDesc())

    def test_words_for_lodge_vm_itself(self):
        own = "<q:arg value='-device'/><q:arg value='isa-debug-exit,iobase=0xf4'/><q:env name='OWN' value='a &lt; b'/>"
        dom = self.conn.defineXML(self.xml(more=QEMU.format(own) + "<cpu mode='host-passthrough'/>"))
        xml = dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        self.assertIn("xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'", xml)
        self.assertIn("""  <qemu:commandline>
    <qemu:arg value='-device'/>
    <qemu:arg value='isa-debug-exit,iobase=0xf4'/>
    <qemu:env name='OWN' value='a &lt; b'/>
  </qemu:commandline>""", xml)
        self.assertEqual(self.conn.defineXML(xml).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), xml)
        self.assertEqual(dom.messages(), [])
        dom.create()
        self.addCleanup(lambda: self.connect().lookupByName("never").destroy())
        pid = self.daemon.pid(dom.UUIDString())
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
            self.assertTrue(f.read().endswith("\0-device\0isa-debug-exit,iobase=0xf4\0"))
        with open(f"/proc/{pid}/environ", encoding="utf-8") as f:
            self.assertIn("OWN=a < b", f.read().split("\0"))
        said = ["custom configuration parameters specified", "potentially unsafe use of host CPU passthrough"]
        self.assertEqual(dom.messages(), ["tainted: " + words for words in said])
        self.virsh("qemu-monitor-command", "never", '{"execute": "query-status"}')
        said.insert(1, "custom monitor control commands issued")
        self.daemon.stop()
        self.daemon.start()
        again = self.connect().lookupByName("never")
        self.assertEqual(again.messages(), ["tainted: " + words for words in said])
        self.assertEqual(again.messages(libvirt.VIR_DOMAIN_MESSAGE_DEPRECATION), [])
        self.assertRegex(self.virsh("dominfo", "never"), "(?s)Messages: +tainted: " + ".*tainted: ".join(said))
        with open(f"{self.daemon.root}/var/log/qemu/never.log", encoding="utf-8") as f:
            found = re.findall("Domain id=[0-9]+ is tainted: (.*)", f.read())
        self.assertEqual(found[-3:], ["custom-argv", "host-cpu", "custom-monitor"])

    def test_names_of_ones_own(self):
        """Whatever hangs on a controller finds it by the name that it got."""
        for i in range(4):
            shutil.copy(self.file, f"{self.file}{i}")
            os.chmod(f"{self.file}{i}", 0o666)

        def own(controller, name, more=""):
            return f"<controller {controller}>{more}<alias name='ua-{name}'/></controller>"
        devices = "".join((
            own("type='pci' index='1' model='pcie-root-port'", "port"), own("type='scsi' model='virtio-scsi'", "scsi"),
            own("type='virtio-serial'", "channels"), own("type='sata' index='0'", "board"),
            own("type='sata' index='1'", "sata"), own("type='usb' index='0' model='ich9-ehci1'", "usb"),
            own("type='usb' index='0' model='ich9-uhci1'", "slow", "<master startport='0'/>"),
            "<channel type='unix'><target type='virtio' name='x'/></channel><input type='tablet' bus='usb'/>",
            disk(dev="sda", bus="scsi", file="FILE0"), disk(dev="sdb", bus="sata", file="FILE1", more="<alias name='ua-b'/>"
                 "<address type='drive' controller='1' bus='0' unit='2'/>"), disk(dev="sdc", bus="sata", file="FILE2"),
            "<rng model='virtio'><backend model='random'/><address type='pci' bus='1' slot='0'/></rng>"))
        dom = self.conn.defineXML(self.xml(devices=devices))
        dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(dom.destroy)
        tree = self.virsh("qemu-monitor-command", "never", "--hmp", "info qtree")
        for name in ("ua-scsi", "ua-channels", "ua-sata", "ua-usb", "ua-b", "ua-port"):
            self.assertIn(f'"{name}"', tree)
        xml = dom.XMLDesc()
        self.assertEqual(self.conn.defineXML(xml).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).count("<alias name='ua-"), 8)

    def test_password_of_the_screen(self):
        vnc = "<graphics type='vnc' passwd='{}' passwdValidTo='{}'/>"
        dom = self.conn.defineXML(self.xml(devices=vnc.format("open", "2130-01-01T00:00:00")))
        dom.create()
        self.addCleanup(dom.destroy)
        port = int(ET.fromstring(dom.XMLDesc()).find("devices/graphics").get("port"))
        self.assertTrue(lets_in(port, "open"))
        self.assertFalse(lets_in(port, "other"))
        dom.updateDeviceFlags(vnc.format("other", "2130-01-01T00:00:00"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        with self.assertRaisesRegex(libvirt.libvirtError, "cannot parse password validity time 'soon'"):
            dom.updateDeviceFlags(vnc.format("bad", "soon"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self.assertTrue(lets_in(port, "other"))
        self.assertFalse(lets_in(port, "open"))
        dom.updateDeviceFlags(vnc.format("other", "2020-01-01T00:00:00"),
                              libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        self.assertFalse(lets_in(port, "other"))
        self.assertIn("passwdValidTo='2020-01-01T00:00:00'", dom.XMLDesc(
            libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
        self.assertNotIn("passwd=", dom.XMLDesc())
        for words, change in (("port", "port='5999'"), ("keymap", "keymap='de'")):
            with self.assertRaisesRegex(libvirt.libvirtError, f"cannot change {words} setting"):
                dom.updateDeviceFlags(f"<graphics type='vnc' passwd='x' {change}/>")

    def test_screen_of_a_network(self):
        net = self.conn.networkCreateXML("<network><name>shown</name><bridge name='vwords0'/>"
                                         "<ip address='192.168.213.1' netmask='255.255.255.0'/></network>")
        self.addCleanup(net.destroy)
        dom = self.conn.defineXML(self.xml(
            devices="<graphics type='vnc'><listen type='network' network='shown'/></graphics>"))
        dom.create()
        self.addCleanup(dom.destroy)
        self.assertIn("<listen type='network' address='192.168.213.1' network='shown'/>", dom.XMLDesc())
        self.assertIn("192.168.213.1:", self.virsh("vncdisplay", "never"))

    def test_capabilities_agree(self):
        caps = ET.fromstring(self.conn.getDomainCapabilities(machine="q35"))
        offered = {path: {v.text for v in caps.findall(f"{path}/value")} for path in (
            "devices/video/enum[@name='modelType']", "devices/graphics/enum[@name='type']",
            "devices/disk/enum[@name='bus']", "memoryBacking/enum[@name='sourceType']")}
        asked = (
            ("devices/video/enum[@name='modelType']", lambda v: one_video(f"type='{v}'"), {"qxl", "cirrus", "ramfb"}),
            ("devices/graphics/enum[@name='type']", lambda v: f"<graphics type='{v}'/>", {"spice", "sdl"}))
        for path, element, no in asked:
            self.assertTrue(offered[path], path)
            self.assertFalse(offered[path] & no)
            for word in offered[path]:
                self.works("-S", devices=element(word))
        for word in offered["memoryBacking/enum[@name='sourceType']"]:
            self.works("-S", more=f"<memoryBacking><source type='{word}'/></memoryBacking>")
        for name in ("filesystem", "hostdev", "redirdev", "tpm"):
            e = caps.find(f"devices/{name}")
            self.assertTrue(e is None or e.get("supported") == "no", name)


if __name__ == "__main__":
    unittest.main()
