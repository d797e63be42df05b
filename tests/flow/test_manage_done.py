#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs that people live by, on a machine that runs and one that is off: virsh and lodge print
the same, byte for byte, and do the same."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

import manage
from test_manage_clients import setUpModule  # noqa: F401: a network name space, before all tests
from test_manage_domain import Console, machine, with_modules

LODGE = os.environ["LODGE"]
UUID = "6f1a2b3c-0001-4000-8000-00000000000"
MAC = "52:54:00:0a:0b:0"

DEVICES = """<disk type='file'><driver name='qemu' type='qcow2'/><source file='{d}/a.qcow2'/>
  <target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='cdrom'><source file='{d}/one.iso'/><target dev='sda' bus='sata'/></disk>
  <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
  <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
  <interface type='user'><mac address='{mac}1'/><model type='virtio'/></interface>
  <graphics type='vnc'/><video><model type='vga'/></video><console type='pty'/>"""
NETWORK = f"""<network><name>lan</name><uuid>{UUID}7</uuid><mac address='{MAC}7'/>
  <bridge name='{{bridge}}'/><ip address='{{net}}.1' netmask='255.255.255.0'/></network>"""
POOL = f"""<pool type='dir'><name>p</name><uuid>{UUID}8</uuid>
  <target><path>{{d}}/pool</path></target></pool>"""

# A line each, in its turn.  "= what" is done by the test itself; "edited", "kept" and "broken" say what
# the user does in the editor; {d} is a folder of one's own.
# First the list of issue 4's "Done when", then what else there is.
VERBS = """
net-list --all
net-define {d}/net.xml
net-define {d}/nosuch.xml
net-list --all
net-start lan
net-start lan
net-list --all
net-info lan
net-dumpxml lan
net-dumpxml lan --xpath //ip
net-autostart lan
net-info lan
edited net-edit lan
kept net-edit lan
broken net-edit lan
net-dumpxml lan --inactive
list
list --all
define {d}/m.xml
define {d}/nosuch.xml
define {d}/broken.xml
define {d}/unknown.xml
list
list --all
list --all --name
list --all --uuid
list --all --title
list --inactive --name --uuid
list --id
dominfo m
dominfo nosuch
domstate m
domstate m --reason
domid m
domuuid m
domname m
domblklist m
domblklist m --details
domiflist m
dumpxml m --inactive
dumpxml m --xpath //name
dumpxml m --xpath //controller --wrap
dumpxml m --xpath //nosuch
domblkinfo m vda
domblkinfo m nosuch
vcpucount m
vcpucount m --maximum --config
vcpuinfo m
setmaxmem m 256M --config
setmem m 200M --config
setvcpus m 2 --maximum --config
setvcpus m 2 --config
setvcpus m 9 --config
dominfo m
edited edit m
kept edit m
broken edit m
dumpxml m --inactive
autostart m
dominfo m
autostart m --disable
autostart nosuch
domrename m m2
domrename m2 m
desc m
desc m Words of a machine
desc m
desc m --title Title
desc m --title
desc m --title --config
desc nosuch
edited desc m --edit
kept desc m --edit
metadata m urn:x
metadata m urn:x --set <a/>
metadata m urn:x --key x --set <a/>
metadata m urn:x
metadata m urn:x --remove
metadata m urn:x
domif-getlink m {mac}1
domif-setlink m {mac}1 down
domif-getlink m {mac}1
domif-getlink m {mac}1 --config
domif-setlink m {mac}1 sideways
domif-setlink m {mac}1 up --config
domif-setlink m {mac}9 up
domif-getlink m nosuch
set-lifecycle-action m poweroff frob
set-lifecycle-action m frob destroy
set-lifecycle-action m reboot destroy --config
set-lifecycle-action m reboot restart --config
managedsave-dumpxml m
qemu-monitor-command m --hmp info name
dompmwakeup m
dompmsuspend m mem
suspend m
resume m
shutdown m
reboot m
destroy m
reset m
console m
vncdisplay m
domdisplay m
ttyconsole m
save m {d}/saved
screenshot m
send-key m KEY_A
inject-nmi m
domblkstat m vda
domifstat m vnet0
dommemstat m
domstats m
domcontrol m
managedsave m
managedsave-remove m
setmem m 100M --live
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --config
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --config
detach-disk m vdb --config
detach-disk m vdb --config
attach-interface m network lan --mac {mac}2 --model virtio --config
detach-interface m network --mac {mac}2 --config
detach-interface m network --mac {mac}2 --config
attach-device m {d}/nosuch.xml
snapshot-list m
snapshot-current m
start m --paused
start m
= runs
list
list --all
list --title
list --state-paused
dominfo m
domstate m --reason
resume m
= up
list --all
dominfo m
domstate m --reason
define {d}/m.xml
undefine m --nvram --bad
domrename m m2
domid m
domuuid m
domname m
domname 1
dominfo 1
dominfo {uuid}1
domblklist m --details
domiflist m
vncdisplay m
domdisplay m
domcontrol m
vcpucount m
vcpuinfo m
suspend m
suspend m
list
domstate m --reason
resume m
resume m
setmem m 100M --live
setmem m 9G --live
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --live
domblklist m
domblkinfo m vdb
domblkinfo m vda --human
detach-disk m vdb --live
= unplugged vdb
change-media m sda --eject
change-media m sda {d}/two.iso --insert
domblklist m
attach-interface m network lan --mac {mac}2 --model virtio --live
domiflist m
detach-interface m network --mac {mac}2 --live
= unplugged {mac}2
send-key m KEY_LEFTSHIFT KEY_A
send-key m KEY_NOSUCH
screenshot m {d}/screen
inject-nmi m
domblkstat m vda --human
domblkstat m vda
domblkstat m
dommemstat m
domifstat m {mac}1
domstats m --state --balloon --vcpu
snapshot-create-as m one
snapshot-list m
snapshot-info m one
snapshot-current m --name
snapshot-parent m one
snapshot-revert m one
snapshot-delete m one
snapshot-delete m one
autostart m
list --autostart
autostart m --disable
edited edit m
desc m --live For now
desc m --live
desc m --config
metadata m urn:x --live --key x --set <a/>
metadata m urn:x
domif-setlink m {mac}1 down
domif-getlink m {mac}1
domif-getlink m {mac}1 --config
domif-setlink m {mac}1 up
set-lifecycle-action m reboot destroy
set-lifecycle-action m reboot restart
qemu-monitor-command m --hmp info name
qemu-monitor-command m {{"execute":"query-name"}} --return-value
dompmwakeup m
dompmsuspend m mem
managedsave m
managedsave-dumpxml m --xpath //name
kept managedsave-edit m
managedsave-define m {d}/nosuch.xml
managedsave-define m {d}/broken.xml
list --all
list --all --managed-save
dominfo m
managedsave-remove m
managedsave-remove m
start m
= up
save m {d}/saved
save-image-dumpxml {d}/saved --xpath //name
save-image-dumpxml {d}/nosuch
kept save-image-edit {d}/saved
save-image-define {d}/saved {d}/nosuch.xml
list --all
restore {d}/saved
restore {d}/nosuch
list
reboot m
reboot m --mode agent
reset m
= up
shutdown m --mode agent
shutdown m --mode nosuch
= listens
shutdown m
= off
list --all
domstate m --reason
dominfo m
start m
= up
destroy m
destroy m
domstate m --reason
undefine m
undefine m
list --all
create {d}/t.xml
create {d}/t.xml
list --all --transient
dominfo t
undefine t
autostart t
destroy t --graceful
list --all
net-autostart lan --disable
net-destroy lan
net-destroy lan
net-undefine lan
net-undefine lan
net-list --all
pool-list --all
pool-define {d}/pool.xml
pool-define {d}/nosuch.xml
pool-build p
pool-start p
pool-list --all
pool-list --all --details
pool-info p
pool-dumpxml p
edited pool-edit p
kept pool-edit p
pool-dumpxml p --inactive
pool-destroy p
pool-undefine p
pool-list --all
""".strip().splitlines()

EDITORS = {"edited": "sed -i -e '/^<domain type/,$ s,</name>,</name><title>T</title>,' "
                     "-e 's,<ip address,<domain name=\"lab\"/><ip address,' "
                     "-e 's,<mode>.*</mode>,<mode>0700</mode>,' \"$1\"",
           "kept": "true", "broken": "exit 3"}

# What a clock, the host or a process decides.
WILD = ((r"\bvnet\d+", "vnetN"),
        (r"\blg[vl]\d+", "BRIDGE"),
        (r"10\.213\.[67]\.", "NET."),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:N"),
        (r"/tmp/(?:virsh|lodge-)\w+\.xml", "FILE"),
        (r"(?m)^CPU time: .*\n", ""),
        (r"(?m)^(rss|\w+_fault|unused|usable|disk_caches|last_update) \d+$", r"\1 N"),
        (r"(?m)^(CPU: +)\d+$", r"\1N"),
        (r"(cpu\.\w+|vcpu\.\d+\.\w+|balloon\.(?!current|maximum)[\w.-]+)=\d+", r"\1=N"),
        (r"(?m)^(vd\w|vnet\w+|[0-9a-f:]{17}|) (\w+) \d+$", r"\1 \2 N"),
        (r"(number of \w+ \w+|total duration of [\w ()]+): +\d+", r"\1: N"),
        (r"(Creation Time: +|\n one +)[-+:\d ]{25}", r"\1TIME"),
        (r"<creationTime>\d+", "<creationTime>"),
        (r"/dev/pts/\d+", "/dev/pts/N"),
        (r"(Capacity|Allocation|Available): .*", r"\1:"),
        (r"<(allocation|available|capacity) unit='bytes'>\d+", r"<\1>"),
        (r"(?m)^( p .*(?:running|active) .*)$", "POOL"),
        (r"(?s)(Cannot|cannot|Failed to) open(?: file)? '([^']*)'", r"\1 open '\2'"))


def stable(text, daemon):
    text = text.replace(daemon.root, "ROOT")
    for pattern, instead in WILD:
        text = re.sub(pattern, instead, text)
    return text


class Side:
    """One of the two shells, with a daemon and a machine of its own."""

    def __init__(self, program, daemon, bridge, net):
        self.program, self.daemon = program, daemon
        self.folder = os.path.join(daemon.root, "work")
        self.console = None
        os.mkdir(self.folder)
        for name, form in (("a.qcow2", "qcow2"), ("b.qcow2", "qcow2"), ("one.iso", "raw"), ("two.iso", "raw")):
            subprocess.run([os.environ["LODGE_IMG"], "create", "-q", "-f", form, f"{self.folder}/{name}",
                            "8M"], check=True)
        initrd = with_modules(self.folder, "button", "evdev")
        devices = DEVICES.format(d=self.folder, mac=MAC)
        whole = machine("m", devices=devices, initrd=initrd, more=f"<uuid>{UUID}1</uuid>")
        self.put("m.xml", whole)
        self.put("t.xml", machine("t", devices="", more=f"<uuid>{UUID}2</uuid>"))
        self.put("broken.xml", whole.replace("</memory>", "</memori>"))
        self.put("unknown.xml", whole.replace("<devices>", "<devices><sofa/>"))
        self.put("net.xml", NETWORK.format(bridge=bridge, net=net))
        self.put("pool.xml", POOL.format(d=self.folder))
        for name, script in EDITORS.items():
            self.put(name, f"#!/bin/sh\n{script}\n")
            os.chmod(f"{self.folder}/{name}", 0o755)

    def put(self, name, text):
        pathlib.Path(self.folder, name).write_text(text)

    def verb(self, line):
        editor, _, rest = line.partition(" ")
        if editor in EDITORS:
            line = rest
        p = subprocess.run([self.program, "-c", self.daemon.uri,
                            *line.format(d=self.folder, mac=MAC, uuid=UUID).split()],
                           capture_output=True, text=True, stdin=subprocess.DEVNULL,
                           timeout=manage.PATIENCE, check=False,
                           env={**os.environ, "LC_ALL": "C.UTF-8", "VISUAL": f"{self.folder}/{editor}"})
        return (p.returncode, stable(p.stdout, self.daemon), stable(p.stderr, self.daemon))

    def do(self, what, *of):
        """What no verb does: waits for the guest, talks to it."""
        conn = self.daemon.connect()
        try:
            dom = conn.lookupByName("m")
            getattr(self, "do_" + what)(conn, dom, *of)
        finally:
            conn.close()

    def do_runs(self, _conn, dom):
        manage.until(dom.isActive, "it runs")

    def do_up(self, conn, dom):
        self.console = Console(conn, dom)
        self.console.type(b"\n")
        self.console.expect(b"# ")

    def do_listens(self, conn, dom):
        self.do_up(conn, dom)
        self.console.type(b"insmod /button.ko; insmod /evdev.ko; for e in /dev/input/event*; do exec 3<$e; "
                          b"(dd bs=24 count=1 <&3 >/dev/null 2>&1; poweroff -f) & done; echo list''ens\n")
        self.console.expect(b"\nlistens")

    def do_off(self, _conn, dom):
        manage.until(lambda: not dom.isActive(), "it is off")

    def do_unplugged(self, _conn, dom, what):
        manage.until(lambda: what.format(mac=MAC) not in dom.XMLDesc(), f"{what} is gone")


class Done(unittest.TestCase):
    maxDiff = None

    def test_virsh_and_lodge_print_the_same(self):
        with manage.Daemon() as first, manage.Daemon() as second:
            number = os.getpid() % 100000
            sides = [Side("virsh", first, f"lgv{number}", "10.213.6"),
                     Side(LODGE, second, f"lgl{number}", "10.213.7")]
            for line in VERBS:
                with self.subTest(verb=line):
                    if line.startswith("= "):
                        for side in sides:
                            side.do(*line[2:].split())
                        continue
                    theirs, ours = (side.verb(line) for side in sides)
                    self.assertEqual(ours, theirs)


if __name__ == "__main__":
    sys.exit(unittest.main())
