#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs that people live by, on a machine that runs and one that is off: virsh and lodge print
the same, byte for byte, which is what they should print, and do what they say."""
import concurrent.futures
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import unittest

import libvirt

import manage
from test_manage_clients import setUpModule  # noqa: F401: a network name space, before all tests
from test_manage_domain import UP, Console, machine, with_modules

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

# A line each, in its turn, and what it must say (manage.expectation()).  "= what" is done by the test itself, most
# of it a look at what the verb has done: in the guest, at the host.  "edited", "kept" and "broken" say what the user
# does in the editor; {d} is a folder of one's own.
# First the list of issue 4's "Done when", then what else there is.
VERBS = """
net-list --all == Name State Autostart Persistent default inactive no yes
= file etc/qemu/networks/lan.xml no
net-define {d}/net.xml == Network lan defined from {d}/net.xml
= file etc/qemu/networks/lan.xml yes
net-define {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
net-list --all == Name State Autostart Persistent default inactive no yes lan inactive no yes
= bridge no
net-start lan == Network lan started
= bridge yes
net-start lan !! Requested operation is not valid: network is already active
net-list --all == Name State Autostart Persistent default inactive no yes lan active no yes
net-info lan => Active: yes Persistent: yes Autostart: no Bridge:
net-dumpxml lan => <mac address='{mac}7'/> .. <ip address='NET.1' netmask='255.255.255.0'/>
net-dumpxml lan --xpath //ip == <ip address="NET.1" netmask="255.255.255.0"/>
net-autostart lan == Network lan marked as autostarted
= file etc/qemu/networks/autostart/lan.xml yes
net-info lan => Active: yes Persistent: yes Autostart: yes Bridge:
edited net-edit lan == Network lan XML configuration edited.
kept net-edit lan == Network lan XML configuration not changed.
broken net-edit lan !! internal error: Child process ({d}/broken .. ) unexpected exit status 3
net-dumpxml lan --inactive => <domain name='lab'/>
list == Id Name State
list --all == Id Name State
= file etc/qemu/m.xml no
define {d}/m.xml == Domain 'm' defined from {d}/m.xml
= file etc/qemu/m.xml yes
define {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
define {d}/broken.xml !! (domain_definition):3:34: Opening and ending tag mismatch: memory line 3 and memori
define {d}/unknown.xml !! unsupported configuration: element <sofa> in <devices> (line 8) is not
list == Id Name State
list --all == Id Name State - m shut off
list --all --name == m
list --all --uuid == {uuid}1
list --all --title == Id Name State Title - m shut off
list --inactive --name --uuid == {uuid}1 m
list --id
dominfo m => State: shut off CPU(s): 1 Max memory: 131072 KiB .. Persistent: yes Autostart: disable Managed save: no
dominfo nosuch !! failed to get domain 'nosuch'
domstate m == shut off
domstate m --reason == shut off (unknown)
domid m == -
domuuid m == {uuid}1
domname m !! failed to get domain 'm'
domblklist m => vda {d}/a.qcow2 sda {d}/one.iso
domblklist m --details => file disk vda {d}/a.qcow2 file cdrom sda {d}/one.iso
domiflist m => - user - virtio {mac}1
dumpxml m --inactive => <name>m</name> .. <vcpu placement='static'>1</vcpu> .. <target dev='vda' bus='virtio'/>
dumpxml m --xpath //name == <name>m</name>
dumpxml m --xpath //controller --wrap => <nodes> <controller type="pci" index="1" model="pcie-root-port">
dumpxml m --xpath //nosuch
domblkinfo m vda == Capacity: 8388608 Allocation: Physical: 262144
domblkinfo m nosuch !! invalid argument: invalid path: nosuch
vcpucount m == maximum config 1 current config 1
vcpucount m --maximum --config == 1
vcpuinfo m => VCPU: 0 CPU: N/A State: N/A
setmaxmem m 256M --config
setmem m 200M --config
setvcpus m 2 --maximum --config
setvcpus m 2 --config
setvcpus m 9 --config !! invalid argument: requested vcpus is greater than max allowable vcpus for
dominfo m => CPU(s): 2 Max memory: 262144 KiB Used memory: 204800 KiB .. Autostart: disable
edited edit m == Domain 'm' XML configuration edited.
kept edit m == Domain 'm' XML configuration not changed.
broken edit m !! internal error: Child process ({d}/broken .. ) unexpected exit status 3
dumpxml m --inactive => <title>T</title> <memory unit='KiB'>262144</memory> .. <vcpu placement='static'>2</vcpu>
autostart m == Domain 'm' marked as autostarted
= file etc/qemu/autostart/m.xml yes
dominfo m => Autostart: enable
autostart m --disable == Domain 'm' unmarked as autostarted
= file etc/qemu/autostart/m.xml no
autostart nosuch !! failed to get domain 'nosuch'
domrename m m2 == Domain successfully renamed
domrename m2 m == Domain successfully renamed
desc m == No description for domain: m
desc m Words of a machine == Domain description updated successfully
desc m == Words of a machine
desc m --title Title == Domain title updated successfully
desc m --title == Title
desc m --title --config == Title
desc nosuch !! failed to get domain 'nosuch'
edited desc m --edit == Domain description updated successfully
desc m == Other words of a machine
kept desc m --edit == Domain description not changed
metadata m urn:x !! metadata not found: Requested metadata element is not present
metadata m urn:x --set <a/> !! namespace key is required when modifying metadata
metadata m urn:x --key x --set <a/> == Metadata modified
metadata m urn:x == <a/>
metadata m urn:x --remove == Metadata removed
metadata m urn:x !! metadata not found: Requested metadata element is not present
domif-getlink m {mac}1 == 52:54:00:0a:0b:01 up
domif-setlink m {mac}1 down == Device updated successfully
domif-getlink m {mac}1 == 52:54:00:0a:0b:01 down
domif-getlink m {mac}1 --config == 52:54:00:0a:0b:01 down
domif-setlink m {mac}1 sideways !! invalid link state 'sideways'
domif-setlink m {mac}1 up --config == Device updated successfully
domif-setlink m {mac}9 up !! interface '52:54:00:0a:0b:09' not found
domif-getlink m nosuch !! Interface (dev: nosuch) not found.
set-lifecycle-action m poweroff frob !! Invalid lifecycle action 'frob'.
set-lifecycle-action m frob destroy !! Invalid lifecycle type 'frob'.
set-lifecycle-action m reboot destroy --config
set-lifecycle-action m reboot restart --config
managedsave-dumpxml m !! Requested operation is not valid: domain does not have managed save image
qemu-monitor-command m --hmp info name !! Requested operation is not valid: domain is not running
dompmwakeup m !! Requested operation is not valid: domain is not running
dompmsuspend m mem !! Requested operation is not valid: domain is not running
suspend m !! Requested operation is not valid: domain is not running
resume m !! Requested operation is not valid: domain is not running
shutdown m !! Requested operation is not valid: domain is not running
reboot m !! Requested operation is not valid: domain is not running
destroy m !! Requested operation is not valid: domain is not running
reset m !! Requested operation is not valid: domain is not running
console m !! The domain is not running
vncdisplay m !! Domain is not running
domdisplay m !! Domain is not running
ttyconsole m !!
save m {d}/saved !! Requested operation is not valid: domain is not running
screenshot m !! Requested operation is not valid: domain is not running
send-key m KEY_A !! Requested operation is not valid: domain is not running
inject-nmi m !! Requested operation is not valid: domain is not running
domblkstat m vda !! Requested operation is not valid: domain is not running
domifstat m vnet0 !! Requested operation is not valid: domain is not running
dommemstat m !! Requested operation is not valid: domain is not running
domstats m => state.state=5 .. balloon.current=204800 balloon.maximum=262144
domcontrol m !! Requested operation is not valid: domain is not running
managedsave m !! Requested operation is not valid: domain is not running
managedsave-remove m == Domain 'm' has no manage save image; removal skipped
setmem m 100M --live !! Requested operation is not valid: domain is not running
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --config == Disk attached successfully
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --config !! Requested operation is not valid: target vdb already exists
detach-disk m vdb --config == Disk detached successfully
detach-disk m vdb --config !! No disk found whose source path or target is vdb
attach-interface m network lan --mac {mac}2 --model virtio --config == Interface attached successfully
detach-interface m network --mac {mac}2 --config == Interface detached successfully
detach-interface m network --mac {mac}2 --config !! Failed to detach interface
attach-device m {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
snapshot-list m == Name Creation Time State
snapshot-current m !! domain 'm' has no current snapshot
start m --paused == Domain 'm' started
start m !! Domain is already active
= runs
list == Id Name State 1 m paused
list --all == Id Name State 1 m paused
list --title == Id Name State Title 1 m paused Title
list --state-paused == Id Name State 1 m paused
dominfo m => Id: 1 .. State: paused CPU(s): 2
domstate m --reason == paused (user)
qemu-monitor-command m --hmp info status => VM status: paused
resume m == Domain 'm' resumed
= up
= boot new
list --all == Id Name State 1 m running
dominfo m => State: running CPU(s): 2
domstate m --reason == running (unpaused)
define {d}/m.xml == Domain 'm' defined from {d}/m.xml
undefine m --nvram --bad !! command 'undefine' doesn't support option --bad
domrename m m2 !! Requested operation is not valid: cannot rename active domain
domid m == 1
domuuid m == {uuid}1
domname m !! failed to get domain 'm'
domname 1 == m
dominfo 1 => Name: m .. State: running
dominfo {uuid}1 => Name: m .. State: running
domblklist m --details => file disk vda {d}/a.qcow2 file cdrom sda {d}/one.iso
domiflist m => - user - virtio {mac}1
vncdisplay m == 127.0.0.1:N
domdisplay m == vnc://127.0.0.1:N
domcontrol m == ok
vcpucount m => maximum live 2 current config 1 current live 2
vcpuinfo m => State: running .. VCPU: 1 .. State: running
suspend m == Domain 'm' suspended
suspend m == Domain 'm' suspended
list == Id Name State 1 m paused
domstate m --reason == paused (user)
qemu-monitor-command m --hmp info status => VM status: paused
resume m == Domain 'm' resumed
qemu-monitor-command m --hmp info status == VM status: running
= boot same
resume m !! Requested operation is not valid: domain is already running
setmem m 100M --live
= memory 100
setmem m 9G --live !! invalid argument: cannot set memory higher than max memory
attach-disk m {d}/b.qcow2 vdb --subdriver qcow2 --live == Disk attached successfully
= sees /sys/block/vdb
domblklist m => sda {d}/one.iso vdb {d}/b.qcow2
domblkinfo m vdb == Capacity: 8388608 Allocation: Physical: 262144
domblkinfo m vda --human == Capacity: 8.000 MiB Allocation: Physical: 256.000 KiB
detach-disk m vdb --live == Disk detached successfully
= unplugged vdb
= sees_no /sys/block/vdb
qemu-monitor-command m --hmp info block => {d}/one.iso
change-media m sda --eject == Successfully ejected media.
qemu-monitor-command m --hmp info block => [not inserted]
change-media m sda {d}/two.iso --insert == Successfully inserted media.
qemu-monitor-command m --hmp info block => {d}/two.iso
domblklist m => vda {d}/a.qcow2 sda {d}/two.iso
attach-interface m network lan --mac {mac}2 --model virtio --live == Interface attached successfully
= card {mac}2 yes
domiflist m => user - virtio {mac}1 vnetN network lan virtio {mac}2
detach-interface m network --mac {mac}2 --live == Interface detached successfully
= unplugged {mac}2
= card {mac}2 no
= keys
send-key m KEY_LEFTSHIFT KEY_A
= heard
send-key m KEY_NOSUCH !! invalid keycode: 'KEY_NOSUCH'
screenshot m {d}/screen == Screenshot saved to {d}/screen, with type of image/x-portable-pixmap
= picture
inject-nmi m
= sees_line NMI:.*[1-9] /proc/interrupts
domblkstat m vda --human => number of read operations: N .. number of bytes written: N
domblkstat m vda => vda rd_req N .. vda flush_operations N
domblkstat m => rd_req N .. flush_operations N
dommemstat m => actual 102400
domifstat m {mac}1 !! Operation not supported: a user-mode interface has no counters
domstats m --state --balloon --vcpu => state.state=1 state.reason=5 balloon.current=102400 .. vcpu.1.state=N
snapshot-create-as m one == Domain snapshot one created
= types touch /after
= sees /after
snapshot-list m == Name Creation Time State one TIME running
snapshot-info m one => Current: yes State: running Location: internal Parent: - Children: 0
snapshot-current m --name == one
snapshot-parent m one !! snapshot 'one' has no parent
snapshot-revert m one == Domain snapshot one reverted
= up
= sees_no /after
= boot same
snapshot-delete m one == Domain snapshot one deleted
snapshot-delete m one !! Domain snapshot not found: no domain snapshot with matching name 'one'
autostart m == Domain 'm' marked as autostarted
list --autostart == Id Name State 1 m running
autostart m --disable == Domain 'm' unmarked as autostarted
dumpxml m --inactive --xpath //title
edited edit m == Domain 'm' XML configuration edited.
dumpxml m --inactive --xpath //title == <title>T</title>
dumpxml m --xpath /domain/title == <title>Title</title>
desc m --live For now == Domain description updated successfully
desc m --live == For now
desc m --config == No description for domain: m
metadata m urn:x --live --key x --set <a/> == Metadata modified
metadata m urn:x == <a/>
domif-setlink m {mac}1 down == Device updated successfully
= carrier 0
domif-getlink m {mac}1 == 52:54:00:0a:0b:01 down
domif-getlink m {mac}1 --config == 52:54:00:0a:0b:01 up
domif-setlink m {mac}1 up == Device updated successfully
= carrier 1
set-lifecycle-action m reboot destroy
set-lifecycle-action m reboot restart
qemu-monitor-command m --hmp info name == m
qemu-monitor-command m {{"execute":"query-name"}} --return-value == {"name":"m"}
dompmwakeup m !! internal error: unable to execute QEMU command 'system_wakeup': Unable to
dompmsuspend m mem !! argument unsupported: QEMU guest agent is not configured
managedsave m == Domain 'm' state saved by libvirt
= processes 0
= file var/qemu/save/m.save yes
managedsave-dumpxml m --xpath //name == <name>m</name>
kept managedsave-edit m => Managed save image of domain 'm' XML configuration not changed.
managedsave-define m {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
managedsave-define m {d}/broken.xml !! (domain_definition):3:34: Opening and ending tag mismatch: memory line 3 and memori
list --all == Id Name State - m shut off
list --all --managed-save == Id Name State - m saved
dominfo m => State: shut off .. Managed save: yes
managedsave-remove m == Removed managedsave image for domain 'm'
= file var/qemu/save/m.save no
managedsave-remove m == Domain 'm' has no manage save image; removal skipped
start m == Domain 'm' started
= up
= boot new
save m {d}/saved == Domain 'm' saved to {d}/saved
save-image-dumpxml {d}/saved --xpath //name == <name>m</name>
save-image-dumpxml {d}/nosuch !! operation failed: failed to open '{d}/nosuch': No such file or directory
kept save-image-edit {d}/saved == Saved image {d}/saved XML configuration not changed.
save-image-define {d}/saved {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
list --all == Id Name State - m shut off
= processes 0
restore {d}/saved == Domain restored from {d}/saved
= up
= boot same
restore {d}/nosuch !! operation failed: failed to open '{d}/nosuch': No such file or directory
list == Id Name State 3 m running
= listens
reboot m == Domain 'm' is being rebooted
= boots
= boot new
domid m == 3
reboot m --mode agent !! argument unsupported: QEMU guest agent is not configured
reset m == Domain 'm' was reset
= boots
= boot new
= processes 1
shutdown m --mode agent !! argument unsupported: QEMU guest agent is not configured
shutdown m --mode nosuch !! Unknown mode nosuch value, expecting 'acpi', 'agent', 'initctl',
= listens
shutdown m == Domain 'm' is being shutdown
= off
= processes 0
list --all == Id Name State - m shut off
domstate m --reason == shut off (shutdown)
dominfo m => Id: - .. State: shut off
start m == Domain 'm' started
= up
= processes 1
= boot new
destroy m == Domain 'm' destroyed
= processes 0
destroy m !! Requested operation is not valid: domain is not running
domstate m --reason == shut off (destroyed)
undefine m == Domain 'm' has been undefined
= file etc/qemu/m.xml no
undefine m !! failed to get domain 'm'
list --all == Id Name State
create {d}/t.xml == Domain 't' created from {d}/t.xml
= processes 1
= file etc/qemu/t.xml no
create {d}/t.xml !! Requested operation is not valid: domain 't' is already active
list --all --transient == Id Name State 5 t running
dominfo t => Name: t .. State: running .. Persistent: no
undefine t !! Requested operation is not valid: cannot undefine transient domain
autostart t !! Requested operation is not valid: cannot set autostart for transient
destroy t --graceful == Domain 't' destroyed
= processes 0
list --all == Id Name State
net-autostart lan --disable == Network lan unmarked as autostarted
= file etc/qemu/networks/autostart/lan.xml no
= bridge yes
net-destroy lan == Network lan destroyed
= bridge no
net-destroy lan !! Requested operation is not valid: network 'lan' is not active
net-undefine lan == Network lan has been undefined
= file etc/qemu/networks/lan.xml no
net-undefine lan !! Network not found: no network with matching name 'lan'
net-list --all == Name State Autostart Persistent default inactive no yes
pool-list --all == Name State Autostart
pool-define {d}/pool.xml == Pool p defined from {d}/pool.xml
= file etc/storage/p.xml yes
= file work/pool no
pool-start p !! cannot open directory .. work/pool
pool-define {d}/nosuch.xml !! Failed to open '{d}/nosuch.xml': No such file or directory
pool-build p == Pool p built
= file work/pool yes
= volume
vol-list p !! storage pool 'p' is not active
pool-start p == Pool p started
vol-list p == Name Path v.raw {d}/pool/v.raw
pool-list --all => POOL
pool-list --all --details => POOL
pool-info p => State: running Persistent: yes Autostart: no Capacity:
pool-dumpxml p => <path>{d}/pool</path>
edited pool-edit p == Pool p XML configuration edited.
kept pool-edit p == Pool p XML configuration not changed.
pool-dumpxml p --inactive => <mode>0700</mode>
pool-destroy p == Pool p destroyed
= file work/pool/v.raw yes
pool-undefine p == Pool p has been undefined
= file etc/storage/p.xml no
pool-list --all == Name State Autostart
""".strip().splitlines()

EDITORS = {"edited": "sed -i -e '/^<domain type/,$ s,</name>,</name><title>T</title>,' "
                     "-e 's,<ip address,<domain name=\"lab\"/><ip address,' "
                     "-e 's,<mode>.*</mode>,<mode>0700</mode>,' -e 's,^Words of,Other words of,' \"$1\"",
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
        (r"(Capacity: .*GiB|(Allocation|Available): .*)", lambda m: m[0].partition(" ")[0]),
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
        self.bridge, self.net = bridge, net
        self.console, self.heard_to, self.asked, self.booted = None, 0, 0, None
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
        """What no verb does: waits for the guest, talks to it, looks at the host."""
        conn = self.daemon.connect()
        try:
            found = [d for d in conn.listAllDomains() if d.name() == "m"]
            getattr(self, "do_" + what)(conn, found[0] if found else None, *of)
        finally:
            conn.close()

    def ask(self, command):
        """What the guest's shell prints."""
        self.asked += 1
        begin, end = f"begin-{self.asked}.", f"end-{self.asked}."  # its echo of the line has them with two marks more
        self.console.type(f"echo b''{begin[1:]}; {command}; echo e''{end[1:]}\n".encode())
        self.console.expect(end.encode(), self.heard_to)
        heard, self.heard_to = self.console.seen[self.heard_to:], len(self.console.seen)
        return heard.decode(errors="replace").partition(begin)[2].partition(end)[0].strip()

    def until(self, command, wanted):
        manage.until(lambda: wanted == (self.ask(f"{command} >/dev/null 2>&1 && echo ye''s") == "yes"),
                     f"the guest's {'yes' if wanted else 'no'} to: {command}")

    # ---- the guest ----

    def do_runs(self, _conn, dom):
        manage.until(dom.isActive, "it runs")

    def do_up(self, conn, dom):
        self.console, self.heard_to = Console(conn, dom), 0
        self.console.type(b"\n")
        self.console.expect(b"# ")
        self.ask("true")

    def do_boots(self, _conn, _dom):
        """Once more, seen on the same console."""
        self.console.expect(UP, self.heard_to)
        self.heard_to = self.console.seen.index(UP, self.heard_to)
        self.console.expect(b"# ", self.heard_to)
        self.ask("true")

    def do_boot(self, _conn, _dom, how):
        """Whether it has booted since the last time this was asked."""
        said = self.ask("cat /proc/sys/kernel/random/boot_id")  # its kernel may say something as well
        last, self.booted = self.booted, "".join(re.findall(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", said))
        if len(self.booted) != 36 or (self.booted == last) != (how == "same"):
            raise AssertionError(f"{said} after {last} is not the {how} boot")

    def do_sees(self, _conn, _dom, path):
        self.until(f"test -e {path}", True)

    def do_sees_no(self, _conn, _dom, path):
        self.until(f"test -e {path}", False)

    def do_sees_line(self, _conn, _dom, pattern, path):
        self.until(f"grep -E '{pattern}' {path}", True)

    def do_card(self, _conn, _dom, mac, there):
        self.until(f"grep -l {mac} /sys/class/net/*/address", there == "yes")

    def do_carrier(self, _conn, _dom, carrier):
        self.ask("ifconfig eth0 up")
        self.until(f"grep {carrier} /sys/class/net/eth0/carrier", True)

    def do_memory(self, _conn, dom, mib):
        """Its balloon has left it no more than this, and lodged has heard so: of events of a kind one a second comes."""
        manage.until(lambda: dom.info()[2] == int(mib) << 10, "the balloon has what it was to have")
        self.until(f"awk '/MemTotal/ {{ exit $2 > {mib} * 1024 }}' /proc/meminfo", True)

    def do_types(self, _conn, _dom, *words):
        self.ask(" ".join(words))

    def do_keys(self, _conn, _dom):
        self.ask("insmod /evdev.ko; for e in /dev/input/event*; do exec 3<$e; dd bs=24 count=1 <&3 >/heard 2>/dev/null & done")

    def do_heard(self, _conn, _dom):
        self.until("test -s /heard", True)

    def do_listens(self, conn, dom):
        self.do_up(conn, dom)
        self.ask("insmod /button.ko; insmod /evdev.ko; for e in /dev/input/event*; do exec 3<$e; "
                 "(dd bs=24 count=1 <&3 >/dev/null 2>&1; poweroff -f) & done")

    def do_off(self, _conn, dom):
        manage.until(lambda: not dom.isActive(), "it is off")

    def do_unplugged(self, _conn, dom, what):
        manage.until(lambda: what not in dom.XMLDesc(), f"{what} is gone")

    # ---- the host ----

    def do_processes(self, _conn, _dom, count):
        manage.until(lambda: len(self.daemon.machines()) == int(count), f"{count} machines")

    def do_file(self, _conn, _dom, path, there):
        path = f"{self.daemon.root}/{path}"
        if os.path.exists(path) != (there == "yes"):
            raise AssertionError(f"{path}: there? {there}")

    def do_volume(self, _conn, _dom):
        pathlib.Path(self.folder, "pool/v.raw").write_bytes(bytes(1 << 20))

    def do_bridge(self, _conn, _dom, there):
        """Of the network's XML or, before there is one, of its name."""
        p = subprocess.run(["ip", "-o", "-4", "addr", "show", "dev", self.bridge], capture_output=True, text=True,
                           check=False)
        if (f" {self.net}.1/24 " in p.stdout) != (there == "yes") or (p.returncode == 0) != (there == "yes"):
            raise AssertionError(f"{self.bridge}: there? {there}: {p.stdout}{p.stderr}")

    def do_picture(self, _conn, _dom):
        """The screenshot is one, and not of a blank screen."""
        head, pixels = pathlib.Path(self.folder, "screen").read_bytes().split(b"\n255\n", 1)
        width, height = map(int, re.fullmatch(rb"P6\n(\d+) (\d+)", head).groups())
        if len(pixels) != width * height * 3 or len(set(pixels)) < 2:
            raise AssertionError(f"a picture of {width}x{height} in {len(pixels)} bytes, {len(set(pixels))} values")


class Done(unittest.TestCase):
    maxDiff = None

    def test_virsh_and_lodge_print_the_same(self):
        with manage.Daemon() as first, manage.Daemon() as second, contextlib.ExitStack() as stack:
            number = os.getpid() % 100000
            sides = [Side("virsh", first, f"lgv{number}", "10.213.6"),
                     Side(LODGE, second, f"lgl{number}", "10.213.7")]
            at_once = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(sides))).map
            for line in VERBS:
                if line.startswith("= "):  # it waits for the guest; what comes behind would wait for nothing if it fails
                    list(at_once(lambda side: side.do(*line[2:].format(mac=MAC).split()), sides))
                    continue
                line, check = manage.expectation(line)
                with self.subTest(verb=line):
                    theirs, ours = (side.verb(line) for side in sides)
                    self.assertEqual(ours, theirs)
                    check({"d": "ROOT/work", "uuid": UUID, "mac": MAC}, *ours)


class Terminals(manage.Case):
    """virsh and lodge on a terminal."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.connect().defineXML(machine("m", more="<title>first</title>"))

    def terminal(self, program, *words, **env):
        t = manage.Terminal(program, "-c", self.daemon.uri, *words, **env)
        self.addCleanup(t.close)
        return t

    def console(self, program, *options):
        t = self.terminal(program, "console", "m", *options)
        t.expect(b"Connected to domain 'm'")
        t.expect(b"Escape character is ^]")
        manage.until(t.is_raw, "keys go to the guest one by one")
        return t

    def answers(self, console, number):
        console.type(f"echo $((6*{number}))-typed\n".encode())
        console.expect(f"\n{6 * number}-typed".encode())

    def leaves(self, console):
        console.type(b"\x1d")
        self.assertEqual(console.end(), 0, console.seen)
        self.assertFalse(console.is_raw())

    def test_console(self):
        dom = self.connect().lookupByName("m")
        for program in ("virsh", LODGE):
            with self.subTest(program=program):
                dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
                first = self.console(program)
                dom.resume()
                first.expect(UP)
                first.expect(b"# ")
                self.answers(first, 7)
                for other in ("virsh", LODGE):
                    for options in ((), ("--safe",)):
                        t = self.terminal(other, "console", "m", *options)
                        t.expect(b"Active console session exists for this domain")
                        self.assertEqual(t.end(), 1)
                self.answers(first, 8)
                second = self.console(program, "--force")
                self.assertEqual(first.end(), 0, first.seen)
                self.assertFalse(first.is_raw())
                self.answers(second, 9)
                self.leaves(second)
                self.assertEqual(dom.state()[0], libvirt.VIR_DOMAIN_RUNNING)
                third = self.console(program, "--safe")
                self.answers(third, 10)
                third.type(b"poweroff -f\n")
                self.assertEqual(third.end(), 0, third.seen)  # with the guest
                self.assertFalse(third.is_raw())
                manage.until(lambda: not dom.isActive(), "it is off")

    def test_somebody_else_edits(self):
        """The same machine, while the editor is open: the user is asked what to do."""
        editor, other = (os.path.join(self.daemon.root, name) for name in ("editor", "other"))
        pathlib.Path(editor).write_text(f"""#!/bin/sh
            sed -i -e 's,<title>mine</title>,<title>again</title>,' -e 's,<title>f.*</title>,<title>mine</title>,' "$1"
            [ ! -e {other} ] || virsh -q -c '{self.daemon.uri}' desc m --config --title theirs
            rm -f {other}""")
        os.chmod(editor, 0o755)
        dom = self.connect().lookupByName("m")
        prompt = b"The XML configuration was changed by another user. Try again? [y,n,i,f,?]: "
        for program in ("virsh", LODGE):
            for keys, title, code in (((b"?", b"f"), "mine", 0), ((b"n",), "theirs", 1), ((b"y",), "again", 0)):
                with self.subTest(program=program, keys=keys):
                    self.virsh("desc", "m", "--config", "--title", "first")
                    pathlib.Path(other).touch()
                    t = self.terminal(program, "edit", "m", VISUAL=editor)
                    for key in keys:
                        t.expect(prompt)
                        t.type(key)
                        if key == b"?":
                            t.expect(b"f - force, try to redefine again")
                    self.assertEqual(t.end(), code, t.seen)
                    self.assertEqual(b"Domain 'm' XML configuration edited." in t.seen, code == 0)
                    self.assertIn(f"<title>{title}</title>", dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


if __name__ == "__main__":
    sys.exit(unittest.main())
