#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge beside virsh at one lodged: each line printed by both is the same, byte for byte, each option of
virsh is known, and what is left out is named here with its reason."""
import contextlib
import os
import pathlib
import re
import select
import shlex
import subprocess
import sys
import unittest

import manage
from test_manage_clients import setUpModule  # noqa: F401: a network name space, before all tests

LODGE = os.environ["LODGE"]
UUID = "6f1a2b3c-0001-4000-8000-00000000000"
MACHINE = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
<vcpu current='1'>2</vcpu><iothreads>2</iothreads><os><type machine='q35'>hvm</type></os><devices>
<disk type='file'><driver name='qemu' type='{kind}'/><source file='{one}'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><source file='{two}'/><target dev='sda' bus='sata'/><readonly/></disk>
<interface type='ethernet'><mac address='52:54:00:0a:0b:01'/><target dev='{tap}'/><model type='virtio'/></interface>
<graphics type='vnc' port='-1' passwd='geheim'/><video><model type='vga'/></video><console type='pty'/>
</devices></domain>"""
SECRET = f"""<secret ephemeral="no" private="no"><uuid>{UUID}9</uuid><usage type="volume">
<volume>/x</volume></usage></secret>"""

# Verbs of virsh that lodge has not, and why.
NO_VERBS = {
    "lodged answers none of these: hosts are configured by their own tools": """
        iface-begin iface-bridge iface-commit iface-define iface-destroy iface-edit iface-rollback iface-start
        iface-unbridge iface-undefine nodesuspend node-memory-tune allocpages nwfilter-binding-create
        nwfilter-binding-delete""",
    "no devices of the host are made or given to guests": """
        nodedev-autostart nodedev-create nodedev-define nodedev-destroy nodedev-detach nodedev-reattach nodedev-reset
        nodedev-start nodedev-undefine update-memory-device""",
    "no encrypted memory": "domlaunchsecinfo domsetlaunchsecstate nodesevinfo",
    "of other hypervisors, or of QEMU's command line": """
        lxc-enter-namespace domxml-from-native domxml-to-native qemu-attach send-process-signal""",
    "no counters of the host's processor, no compressed or post-copied memory": """
        perf domdirtyrate-calc migrate-compcache migrate-postcopy""",
    "the agent's commands can be sent by qemu-agent-command": "get-user-sshkeys set-user-sshkeys",
    "only from programs": "dom-fd-associate",
    "threads for disks do not poll": "iothreadset",
}
NO_OPTIONS = {
    "schedinfo": "weight cap", "domjobabort": "postcopy", "migrate-setspeed": "postcopy", "migrate-getspeed": "postcopy",
    "create": "pass-fds", "start": "pass-fds", "qemu-monitor-command": "pass-fds", "attach-interface": "managed",
    "pool-create-as": "adapter-name adapter-wwnn adapter-wwpn adapter-parent adapter-parent-wwnn adapter-parent-wwpn "
                      "adapter-parent-fabric-wwn",
    "pool-define-as": "adapter-name adapter-wwnn adapter-wwpn adapter-parent adapter-parent-wwnn adapter-parent-wwpn "
                      "adapter-parent-fabric-wwn",
    "migrate": "copy-storage-synchronous-writes rdma-pin-all postcopy-after-precopy postcopy-resume zerocopy graphicsuri "
               "timeout-postcopy disks-uri comp-methods comp-mt-level comp-mt-threads comp-mt-dthreads comp-xbzrle-cache "
               "auto-converge-initial auto-converge-increment tls postcopy-bandwidth parallel parallel-connections "
               "tls-destination",
}

# A line each, in its turn. "virsh" or "lodge" in front: by that one alone, what both cannot do; "edited WHAT" in
# front: what the user's editor does to the XML. {d} is a folder of one's own. Behind it, what both must say, as in
# manage.expectation().
LINES = r"""
# threads
iothreadinfo m => 1 .. 2
iothreadinfo off => 1 .. 2
iothreadinfo m --config => 1 .. 2
iothreadinfo m --live => 1 .. 2
iothreadinfo off --live !! Requested operation is not valid: domain is not running
iothreadadd m 2 !! invalid argument: an IOThread is already using iothread_id '2'
iothreadadd m 0 !! Invalid IOThread id value: '0'
iothreaddel m 9 !! invalid argument: cannot find IOThread '9' in iothreadids list
virsh iothreadadd m 5
lodge iothreadadd m 6
iothreadinfo m => 1 .. 2 .. 5 .. 6
virsh iothreaddel m 6
lodge iothreaddel m 5
iothreadinfo m => 1 .. 2
iothreadpin m 1 0
iothreadpin m 1 r
iothreadpin m 1 9- !! invalid argument: Failed to parse bitmap '9-'
iothreadpin m 77 0 !! invalid argument: iothread 77 not found
iothreadpin m 1 !! command 'iothreadpin' requires <cpulist> option
iothreadinfo nosuch !! failed to get domain 'nosuch'
vcpupin m => VCPU CPU Affinity 0 .. 1
vcpupin m 0 => VCPU CPU Affinity 0
vcpupin m 0 0
vcpupin m 0 9- !! invalid argument: Failed to parse bitmap '9-'
vcpupin m --cpulist 0 !! vcpupin: Missing vCPU number in pin mode.
emulatorpin m => emulator: CPU Affinity *:
emulatorpin m 0
emulatorpin m r
# snapshots and checkpoints
snapshot-list off == Name Creation Time State
virsh snapshot-create-as off s1 words == Domain snapshot s1 created
lodge snapshot-create-as off s2 == Domain snapshot s2 created
virsh snapshot-create-as off s3 == Domain snapshot s3 created
lodge snapshot-revert off s2 == Domain snapshot s2 reverted
virsh snapshot-create-as off a4 == Domain snapshot a4 created
snapshot-list off => a4 .. s1 .. s2 .. s3
snapshot-list off --parent => a4 .. s2 .. s1 .. s2 .. s1 .. s3 .. s2
snapshot-list off --roots => s1 .. shutoff
snapshot-list off --leaves => a4 .. s3
snapshot-list off --no-leaves => s1 .. s2
snapshot-list off --tree == s1 | +- s2 | +- a4 +- s3
snapshot-list off --name == a4 s1 s2 s3
snapshot-list off --name --tree !! Options --tree and --name are mutually exclusive
snapshot-list off --parent --tree !! Options --parent and --tree are mutually exclusive
snapshot-list off --parent --roots !! Options --parent and --roots are mutually exclusive
snapshot-list off --roots --tree !! Options --roots and --tree are mutually exclusive
snapshot-list off --roots --from s1 !! Options --roots and --from are mutually exclusive
snapshot-list off --roots --current !! Options --roots and --current are mutually exclusive
snapshot-list off --from s1 => s2 .. shutoff
snapshot-list off --from s1 --descendants => a4 .. s2 .. s3
snapshot-list off --from s1 --tree == s1 | +- s2
snapshot-list off --from s2 --tree --descendants == s2 | +- a4 +- s3
snapshot-list off --from s1 --parent => s2 .. shutoff s1
snapshot-list off --from s1 --name == s2
snapshot-list off --from nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
snapshot-list off --current == Name Creation Time State
snapshot-list off --current --descendants --tree == a4
snapshot-list off --descendants !! --descendants requires either --from or --current
snapshot-list off --current --from s1 !! --from and --current are mutually exclusive
snapshot-list off --topological --name == s1 s2 a4 s3
snapshot-list off --topological --parent => s1 .. s2 .. a4 .. s3
snapshot-list off --metadata --name == a4 s1 s2 s3
snapshot-list off --no-metadata --name
snapshot-list off --inactive --name == a4 s1 s2 s3
snapshot-list off --active --name
snapshot-list off --disk-only --name
snapshot-list off --internal --name == a4 s1 s2 s3
snapshot-list off --external --name
snapshot-list nosuch !! failed to get domain 'nosuch'
snapshot-info off s1 => Name: s1 Domain: off Current: no State: shutoff .. Parent: - Children: 1 Descendants: 3
snapshot-info off s2 => Name: s2 .. Parent: s1 Children: 2 Descendants: 2
snapshot-info off --current => Name: a4 .. Current: yes .. Parent: s2 Children: 0
snapshot-info off !! --snapshotname or --current is required
snapshot-info off nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
snapshot-parent off s1 !! snapshot 's1' has no parent
snapshot-parent off s3 == s2
snapshot-parent off --current == s2
snapshot-parent off nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
snapshot-parent off !! --snapshotname or --current is required
snapshot-dumpxml off s1 => <name>s1</name> <description>words</description> <state>shutoff</state>
snapshot-dumpxml off s1 --xpath //name == <name>s1</name> <name>off</name>
snapshot-dumpxml off s1 --security-info => passwd='geheim'
snapshot-dumpxml off !! command 'snapshot-dumpxml' requires <snapshotname> option
snapshot-current off => <name>a4</name> .. <parent> <name>s2</name>
snapshot-current off --name == a4
snapshot-current off --snapshotname s1 == Snapshot s1 set as current
snapshot-current off --name == s1
snapshot-current off s3 == Snapshot s3 set as current
snapshot-current off nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
snapshot-current m !! domain 'm' has no current snapshot
edited 'true' snapshot-edit off s1 == Snapshot s1 XML configuration not changed.
edited 'sed -i s,words,worte,' virsh snapshot-edit off s1 == Snapshot s1 edited.
edited 'sed -i s,worte,more,' lodge snapshot-edit off s1 == Snapshot s1 edited.
snapshot-dumpxml off s1 --xpath //description == <description>more</description>
edited 'sed -i s,name.s1.,name\>zz\<,' snapshot-edit off s1 !! Failed to update s1
edited 'sed -i s,\<name\>s3,\<name\>s9,' snapshot-edit off s3 !! Failed to update s3
edited 'sed -i s,\<name\>s3,\<name\>s9,' snapshot-edit off s3 --rename --clone !! Options --rename and --clone are mutually exclusive
edited 'true' snapshot-edit off nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
edited 'true' snapshot-edit off !! --snapshotname or --current is required
edited 'true' snapshot-edit off --current == Snapshot s3 XML configuration not changed.
edited 'true' snapshot-edit off s1 --current == Snapshot s1 edited.
edited 'sed -i s,name.a4.,name\>a5\<,' virsh snapshot-edit off a4 --rename
edited 'sed -i s,name.a5.,name\>a6\<,' lodge snapshot-edit off a5 --rename == Snapshot a5 renamed to a6.
snapshot-list off --name == a6 s1 s2 s3
snapshot-create-as off x --print-xml --diskspec vda,snapshot=external,file=/a,driver=qcow2 --diskspec vdb => <disk name='vda' snapshot='external'>
snapshot-create-as off x --print-xml --diskspec vda,frob=1 !! unable to parse diskspec: vda,frob=1
snapshot-create-as off x y --print-xml --memspec file=/x,snapshot=external => <memory snapshot='external' file='/x'/>
snapshot-delete off s1 --children-only --metadata == Domain snapshot s1 children deleted
snapshot-delete off nosuch !! Domain snapshot not found: no domain snapshot with matching name 'nosuch'
snapshot-delete off !! --snapshotname or --current is required
snapshot-list off --name == s1
checkpoint-list m == Name Creation Time
checkpoint-create-as m c1 words --print-xml --diskspec vda,checkpoint=bitmap,bitmap=b --diskspec sda,checkpoint=no => <disk name='vda' checkpoint='bitmap' bitmap='b'/>
checkpoint-create-as m c1 --print-xml --diskspec vda,frob=no !! unable to parse diskspec: vda,frob=no
virsh checkpoint-create-as m c1 words --diskspec vda,checkpoint=bitmap --diskspec sda,checkpoint=no == Domain checkpoint c1 created
lodge checkpoint-create-as m c2 --diskspec vda == Domain checkpoint c2 created
virsh checkpoint-create-as m c3 == Domain checkpoint c3 created
checkpoint-create-as m c1 !! operation failed: domain checkpoint c1 already exists
checkpoint-list m => c1 .. c2 .. c3
checkpoint-list m --parent => c1 .. c2 .. c1 .. c3 .. c2
checkpoint-list m --roots => c1
checkpoint-list m --leaves => c3
checkpoint-list m --no-leaves => c1 .. c2
checkpoint-list m --tree == c1 | +- c2 | +- c3
checkpoint-list m --name == c1 c2 c3
checkpoint-list m --name --tree !! Options --tree and --name are mutually exclusive
checkpoint-list m --topological --name == c1 c2 c3
checkpoint-list m --from c1 => c2
checkpoint-list m --from c1 --descendants --name == c2 c3
checkpoint-list m --from c2 --tree == c2 | +- c3
checkpoint-list m --from c2 --parent => c3 .. c2
checkpoint-list m --from nosuch !! Domain checkpoint not found: no domain checkpoint with matching name
checkpoint-list m --from c1 --roots !! Options --roots and --from are mutually exclusive
checkpoint-list m --parent --tree !! Options --parent and --tree are mutually exclusive
checkpoint-list m --parent --roots !! Options --parent and --roots are mutually exclusive
checkpoint-list m --roots --tree !! Options --roots and --tree are mutually exclusive
checkpoint-info m c1 == Name: c1 Domain: m Parent: - Children: 1 Descendants: 2
checkpoint-info m c2 == Name: c2 Domain: m Parent: c1 Children: 1 Descendants: 1
checkpoint-info m nosuch !! Domain checkpoint not found: no domain checkpoint with matching name
checkpoint-info m !! --checkpointname is required
checkpoint-parent m c2 == c1
checkpoint-parent m c1 !! checkpoint 'c1' has no parent
checkpoint-parent m !! --checkpointname is required
edited 'true' checkpoint-edit m c1 == Checkpoint c1 XML configuration not changed.
edited 'sed -i s,words,worte,' virsh checkpoint-edit m c1 == Checkpoint c1 edited.
edited 'sed -i s,worte,more,' lodge checkpoint-edit m c1 == Checkpoint c1 edited.
checkpoint-dumpxml m c1 --no-domain --xpath //description == <description>more</description>
edited 'sed -i s,name.c1.,name\>zz\<,' checkpoint-edit m c1 !! Failed to update c1
edited 'true' checkpoint-edit m nosuch !! Domain checkpoint not found: no domain checkpoint with matching name
edited 'true' checkpoint-edit m !! --checkpointname is required
checkpoint-create m --redefine-validate !! Option --redefine is required by option --redefine-validate
checkpoint-dumpxml m c1 --no-domain => <disk name='vda' checkpoint='bitmap' bitmap='c1'/>
checkpoint-dumpxml m c1 --size --no-domain => <disk name='vda' checkpoint='bitmap' bitmap='c1' size='0'/>
checkpoint-delete m c1 --metadata --children-only == Domain checkpoint c1 children deleted
checkpoint-delete m !! --checkpointname is required
snapshot-current off --name == s1
snapshot-current off --name == s1
# the host, screens, figures
freecell == Total: N KiB
freecell --cellno 0 == 0: N KiB
freecell --cellno 9 !! invalid argument: start cell 9 out of range
freecell --all => 0: N KiB .. Total: N KiB
freecell 0 == 0: N KiB
freecell --all --cellno 0 !! Options --all and --cellno are mutually exclusive
freepages !! missing cellno argument
freepages --all => Node 0:
freepages --all --cellno 1 !! Options --all and --cellno are mutually exclusive
freepages --cellno 0 !! missing pagesize argument
freepages --cellno 0 --pagesize 4 => KiB: N
freepages --cellno 0 --pagesize 2048 ??
freepages --cellno 0 --pagesize 3 !! operation failed: no pages of 3 KiB on this host
freepages --cellno 7 --pagesize 4 !! invalid argument: start cell 7 out of range
freepages --all --pagesize 4 => Node 0:
nodecpumap => CPUs present: .. CPUs online: .. CPU map:
nodecpumap --pretty => CPUs present: .. CPUs online: .. CPU map:
nodememstats --cell 99 !! invalid argument: no NUMA cell 99
nodedev-list --tree => computer | +-
nodedev-list --cap net == net_lo_00_00_00_00_00_00
nodedev-list --cap net,pci => net_lo_00_00_00_00_00_00
nodedev-list --cap frob !! Invalid capability type
nodedev-list --tree --cap net !! Option --tree is incompatible with --cap and --inactive
nodedev-list --inactive
nodedev-list --all => computer .. net_lo_00_00_00_00_00_00
nodedev-dumpxml computer --xpath //name == <name>computer</name>
nodedev-dumpxml net_lo_00_00_00_00_00_00 => <path>/sys/devices/virtual/net/lo</path>
nodedev-dumpxml nosuch !! no node device with matching name 'nosuch'
nodedev-info nosuch !! 'nosuch'
version => Compiled against library .. Using library: libvirt .. Running hypervisor: QEMU
version --daemon => Using library: libvirt .. Running against daemon:
vncdisplay m => 127.0.0.1:
vncdisplay off !! Domain is not running
domdisplay m => vnc://127.0.0.1:
domdisplay m --include-password => vnc://:geheim@127.0.0.1:
domdisplay m --type vnc => vnc://127.0.0.1:
domdisplay m --type spice !! No graphical display with type 'spice' found
domdisplay m --all => vnc://127.0.0.1:
domdisplay m --all --include-password => vnc://:geheim@127.0.0.1:
domdisplay off !! Domain is not running
domdisplay nosuch !! failed to get domain 'nosuch'
domblkinfo m !! command 'domblkinfo' requires <device> option
domblkinfo m --all => vda 1048576 .. sda 1048576
domblkinfo m vda => Capacity: 1048576 Allocation: .. Physical:
domblkinfo m vda --human => Capacity: 1.000 MiB Allocation:
domblkinfo m --all --human => vda 1.000 MiB .. sda 1.000 MiB
domblkinfo off --all => vda 1048576 .. sda 1048576
domblkinfo m nosuch !! invalid argument: invalid path: nosuch
dommemstat off --period 3 --live !! Requested operation is not valid: domain is not running
dommemstat off --period 3
dommemstat off !! Requested operation is not valid: domain is not running
vcpucount m == maximum config 2 maximum live 2 current config 1 current live 1
vcpucount m --guest !! argument unsupported: QEMU guest agent is not configured
vcpucount off --guest !! Requested operation is not valid: domain is not running
vcpucount m --maximum == 2
vcpucount m --maximum --live == 2
vcpucount m --current == 1
vcpucount m --active --live == 1
vcpucount m --config --live !! Options --live and --config are mutually exclusive
vcpucount m --maximum --active !! Options --active and --maximum are mutually exclusive
vcpucount m --guest --live !! argument unsupported: QEMU guest agent is not configured
vcpuinfo m --pretty => VCPU: 0 .. State: running
vcpuinfo off --pretty => VCPU: 0 CPU: N/A State: N/A CPU time N/A
domstats off --dirtyrate == Domain: 'off'
domstats off --perf == Domain: 'off'
setvcpus m 2 --guest !! argument unsupported: QEMU guest agent is not configured
setvcpus off 2 --guest !! Requested operation is not valid: domain is not running
setvcpus m 2 --guest --config !! Options --guest and --config are mutually exclusive
# devices, undefine
attach-disk m /a vda --print-xml --targetbus virtio --driver qemu --subdriver qcow2 --iothread 1 --cache none --io native --type disk --mode readonly --serial S --wwn 5000c50015ea71ac --alias ua-x --rawio --address pci:0000.01.0b.0 --multifunction => <address type='pci' domain='0x0000' bus='0x01' slot='0x0b' function='0x0'
attach-disk m /a sda --print-xml --address scsi:1.2.3 => <address type='drive' controller='1' bus='2' unit='3'/>
attach-disk m /a sda --print-xml --address usb:1.2 => <address type='usb' bus='1' port='2'/>
attach-disk m /a sda --print-xml --address ide:0.0.3 !! expecting a scsi:00.00.00 or usb:00.00 or sata:00.00.00 address.
attach-disk m /a sda --print-xml --address frob:0 !! Invalid address.
attach-disk m /a sda --print-xml --address pci:zz !! Invalid address.
attach-disk m /a vdb --print-xml --address scsi:1.2.3 !! expecting a pci:0000.00.00.00 or ccw:00.0.0000 address.
attach-disk m /a vdb --print-xml --address pci:0.1.2.3 => <address type='pci' domain='0x0000' bus='0x01' slot='0x02'
attach-disk m /a hda --print-xml --address pci:0.1.2.3 !! expecting an ide:00.00.00 address.
attach-disk m name vdb --print-xml --sourcetype network --source-protocol nbd --source-host-name h:10809 --source-host-transport tcp => <host transport='tcp' name='h' port='10809'/>
attach-disk m name vdb --print-xml --source-protocol nbd --source-host-socket /s --source-host-transport unix => <host transport='unix' socket='/s'/>
attach-disk m name vdb --print-xml --source-host-name h !! Option --source-protocol is required by option --source-host-name
attach-disk m name vdb --print-xml --source-protocol nbd --source-host-name h => <source protocol='nbd' name='name'>
attach-disk m name vdb --print-xml --source-protocol nbd => <source protocol='nbd' name='name'/>
attach-disk m /a vdb --print-xml --mode frob !! No support for frob in command 'attach-disk'
attach-disk m /a vdb --print-xml --sourcetype network !! --source-protocol option requires --sourcetype network
attach-disk m /a vdb --print-xml --sourcetype zz !! Unknown source type: 'zz'
attach-disk m /a vdb --print-xml --type cdrom --io x => <source file='/a'/>
attach-disk m !! command 'attach-disk' requires <target> option
change-media m nosuch --eject !! No disk found whose source path or target is nosuch
setmem m !! command 'setmem' requires --size option
setmaxmem m !! command 'setmaxmem' requires --size option
setvcpus m !! command 'setvcpus' requires --count option
blockresize m vda !! command 'blockresize' requires --size option
attach-interface m network default --print-xml --target t0 --mac 52:54:00:00:00:01 --model virtio --script /s --alias ua-n --inbound 1,2,3 --outbound 4,5,6 => <outbound average='4' peak='5' burst='6'/>
attach-interface m bridge br0 --print-xml --source-mode vepa !! Invalid source mode: vepa
attach-interface m network x --print-xml --inbound a !! field 'average' is malformed
attach-interface m network x --print-xml --inbound ,3 !! either inbound average or floor is mandatory
attach-interface m network x --print-xml --inbound 1,2,3,4 => <inbound average='1' peak='2' burst='3' floor='4'/>
attach-interface m network x --print-xml --outbound 1,2,3,4 !! outbound floor is unsupported yet
attach-interface m network x --print-xml --outbound ,2 !! outbound average is mandatory
attach-interface m network x --print-xml --inbound 1,,3 => <inbound average='1' burst='3'/>
attach-interface m network x --print-xml --inbound 1,2,3,4,5 !! Rate string '1,2,3,4,5' has too many fields
attach-interface m internal x --print-xml !! No support for internal in command 'attach-interface'
attach-interface m network nosuch !! Network not found: no network with matching name 'nosuch'
undefine m --remove-all-storage !! Storage volume deletion is supported only on stopped domains
undefine m --storage vda --remove-all-storage !! Storage volume deletion is supported only on stopped domains
undefine off --storage frob !! Volume 'frob' was not found in domain's definition.
undefine off --nvram --keep-nvram !! Options --nvram and --keep-nvram are mutually exclusive
virsh pool-create-as p dir --target {d}/p == Pool p created
virsh vol-create-as p v1 1M == Vol v1 created
virsh vol-create-as p v2 1M == Vol v2 created
virsh vol-create-as p v3 1M == Vol v3 created
virsh vol-create-as p v4 1M == Vol v4 created
virsh define {d}/one.xml == Domain 'one' defined from {d}/one.xml
virsh define {d}/two.xml == Domain 'two' defined from {d}/two.xml
virsh undefine one --remove-all-storage --wipe-storage => Wiping volume 'vda'({d}/p/v1) ... Done. .. 'sda'({d}/p/v2) removed.
lodge undefine two --remove-all-storage --wipe-storage => Wiping volume 'vda'({d}/p/v3) ... Done. .. 'sda'({d}/p/v4) removed.
virsh define {d}/one.xml == Domain 'one' defined from {d}/one.xml
virsh define {d}/two.xml == Domain 'two' defined from {d}/two.xml
virsh vol-create-as p v1 1M == Vol v1 created
virsh vol-create-as p v3 1M == Vol v3 created
virsh undefine one --storage vda,{d}/p/v2 == Domain 'one' has been undefined Volume 'vda'({d}/p/v1) removed.
lodge undefine two --storage vda,{d}/p/v4 == Domain 'two' has been undefined Volume 'vda'({d}/p/v3) removed.
vol-list p == Name Path
freepages --all => Node 0:
# tuning, agents that are not there, CPUs, metadata
domiftune m lgt0 => inbound.average: 0 inbound.peak : 0 inbound.burst : 0 inbound.floor : 0
domiftune off 52:54:00:0a:0b:01 => inbound.average: 0 inbound.peak : 0 inbound.burst : 0 inbound.floor : 0
domiftune off 52:54:00:0a:0b:01 --inbound 100,200,300
domiftune off 52:54:00:0a:0b:01 => inbound.average: 100 inbound.peak : 200 inbound.burst : 300 .. outbound.average: 0
domiftune off 52:54:00:0a:0b:01 --outbound 100,200,300
domiftune off 52:54:00:0a:0b:01 --inbound 0
domiftune off 52:54:00:0a:0b:01 => inbound.average: 0 .. outbound.average: 100 outbound.peak : 200 outbound.burst : 300
domiftune off 52:54:00:0a:0b:01 --inbound a !! field 'average' is malformed
domiftune off 52:54:00:0a:0b:01 --inbound ,2 !! either inbound average or floor is mandatory
domiftune off 52:54:00:0a:0b:01 --outbound ,2 !! outbound average is mandatory
domiftune off 52:54:00:0a:0b:01 --outbound 1,2,3,4 !! outbound floor is unsupported yet
domiftune off nosuch !! invalid argument: Can't find device 'nosuch'
domiftune off !! command 'domiftune' requires <interface> option
domiftune m lgt0 --inbound 100,200,300 --outbound 10
domiftune m lgt0 => inbound.average: 100 inbound.peak : 200 inbound.burst : 300 .. outbound.average: 10
domiftune m lgt0 --config => inbound.average: 0 inbound.peak : 0 inbound.burst : 0 inbound.floor : 0
attach-disk m !! command 'attach-disk' requires <target> option
undefine m --storage vda --remove-all-storage !! Storage volume deletion is supported only on stopped domains
undefine off --storage frob !! Volume 'frob' was not found in domain's definition.
qemu-agent-command m x !! argument unsupported: QEMU guest agent is not configured
qemu-agent-command m x --timeout 1 --block !! timeout, async and block options are exclusive
domjobinfo m == Job type: None
domjobinfo off !! Requested operation is not valid: domain is not running
domjobinfo m --completed == Job type: None
domjobinfo m --anystats == Job type: None
domjobinfo m --rawstats == Job type: 0
domjobabort m !! Requested operation is not valid: no job is active on the domain
guestinfo m !! argument unsupported: QEMU guest agent is not configured
guestinfo off !! Requested operation is not valid: domain is not running
domfsinfo m !! argument unsupported: QEMU guest agent is not configured
domfsinfo off !! Requested operation is not valid: domain is not running
domfsfreeze m !! argument unsupported: QEMU guest agent is not configured
domfsthaw m !! argument unsupported: QEMU guest agent is not configured
domfsfreeze m --mountpoint / !! argument unsupported: QEMU guest agent is not configured
domtime m !! argument unsupported: QEMU guest agent is not configured
domtime m --now !! argument unsupported: QEMU guest agent is not configured
domtime off !! Requested operation is not valid: domain is not running
domtime m --time 5 --now !! Options --time and --now are mutually exclusive
domtime m --sync --now !! Options --now and --sync are mutually exclusive
domtime m --pretty !! argument unsupported: QEMU guest agent is not configured
domfstrim m !! argument unsupported: QEMU guest agent is not configured
set-user-password m root x !! argument unsupported: QEMU guest agent is not configured
set-user-password off root x !! Requested operation is not valid: domain is not running
guest-agent-timeout m
guest-agent-timeout off !! Requested operation is not valid: domain is not running
guest-agent-timeout m --timeout 5
domhostname m !! argument unsupported: QEMU guest agent is not configured
domhostname m --source lease !! no hostname found for domain 'm'
domhostname m --source frob !! Unknown data source 'frob'
domifaddr m == Name MAC address Protocol Address
domifaddr m --source agent !! argument unsupported: QEMU guest agent is not configured
domifaddr m --source arp ??
domifaddr m --source frob !! Unknown data source 'frob'
guestvcpus m !! argument unsupported: QEMU guest agent is not configured
guestvcpus m 0 --enable !! argument unsupported: QEMU guest agent is not configured
guestvcpus m --enable !! Option --cpulist is required by option --enable
guestvcpus m 0 !! One of options --enable or --disable is required by option --cpulist
cpu-baseline {d}/m.xml !! File '{d}/m.xml' does not contain any <cpu> element or valid domain XML,
cpu-compare {d}/m.xml !! File '{d}/m.xml' does not contain any <cpu> element or valid domain XML,
cpu-compare {d}/nosuch !! Failed to open file '{d}/nosuch': No such file or directory
hypervisor-cpu-compare {d}/m.xml !! File '{d}/m.xml' does not contain any <cpu> element or valid domain XML,
hypervisor-cpu-baseline {d}/m.xml !! File '{d}/m.xml' does not contain any <cpu> element or valid domain XML,
hypervisor-cpu-baseline --model qemu64 => <model fallback='forbid'>qemu64</model>
hypervisor-cpu-baseline --model Nehalem --features => <feature policy='require' name='clflush'/>
schedinfo m ??
schedinfo m --set cpu_shares=2000 ??
schedinfo m cpu_shares=1000 ??
schedinfo m --set frob=1 ??
schedinfo off --config => Scheduler : posix cpu_shares : 0 vcpu_period : 0 vcpu_quota : 0
memtune m ??
memtune m --min-guarantee 5 !! invalid argument: parameter 'min_guarantee' not supported
memtune m --hard-limit 1G ??
memtune off --hard-limit 1G --config
memtune off == hard_limit : 1048576 soft_limit : unlimited swap_hard_limit: unlimited
blkiotune m ??
blkiotune off --weight 500
blkiotune off => weight : 500
numatune m == numa_mode : strict numa_nodeset :
numatune off --mode frob !! Invalid mode: frob
numatune off --nodeset 0
numatune off == numa_mode : strict numa_nodeset : 0
cpu-stats m --total ??
cpu-stats off !! Requested operation is not valid: domain is not running
domblkerror m == No errors found
domblkthreshold m vda frob !! Scaled numeric value 'frob' for <threshold> option is malformed or out of
domblkthreshold m nosuch 1M !! invalid argument: No device found for specified path: 'nosuch'
qemu-monitor-event --timeout 1 !! event loop timed out
qemu-monitor-event nosuch !! failed to get domain 'nosuch'
qemu-monitor-event --event ( --regex !! invalid argument: failed to compile regex '(': Error while compiling
domblkerror off !! Requested operation is not valid: domain is not running
maxvcpus frob == 255
metadata m urn:x !! metadata not found: Requested metadata element is not present
metadata m urn:x --set <a/> !! namespace key is required when modifying metadata
metadata m urn:x --edit !! namespace key is required when modifying metadata
metadata m urn:x --set <a/> --key k --live == Metadata modified
edited 'true' metadata m urn:x --edit !! namespace key is required when modifying metadata
edited 'sed -i s,a/,b/,' lodge metadata m urn:x --edit --key k == Metadata modified
metadata m urn:x == <b/>
metadata m urn:x --remove == Metadata removed
# pools, volumes, secrets
pool-list --type dir == Name State Autostart p active no
pool-list --type netfs,dir == Name State Autostart p active no
pool-list --type frob !! Invalid pool type 'frob'
pool-list --all --type netfs == Name State Autostart
virsh vol-create-as p v1 1M == Vol v1 created
vol-dumpxml v1 p --xpath //name == <name>v1</name>
vol-dumpxml v1 p --xpath //name --wrap == <nodes> <name>v1</name> </nodes>
vol-delete nosuch p !! Storage volume not found: no storage vol with matching path 'nosuch'
vol-clone v1 v2 p --print-xml => <path>{d}/p/v1</path>
vol-wipe v1 p --algorithm frob !! Unsupported algorithm 'frob'
vol-wipe v1 p --algorithm zero == Vol v1 wiped
vol-wipe v1 p --algorithm trim == Vol v1 wiped
vol-wipe v1 p --algorithm random == Vol v1 wiped
vol-wipe v1 p --algorithm nnsa == Vol v1 wiped
vol-wipe v1 p --algorithm dod == Vol v1 wiped
vol-wipe v1 p --algorithm bsi == Vol v1 wiped
vol-wipe v1 p --algorithm schneier == Vol v1 wiped
vol-wipe v1 p --algorithm pfitzner7 == Vol v1 wiped
vol-wipe v1 p --algorithm pfitzner33 == Vol v1 wiped
pool-start p --build --overwrite !! Requested operation is not valid: storage pool 'p' is already active
pool-define {d}/nosuch --validate !! Failed to open file '{d}/nosuch': No such file or directory
find-storage-pool-sources dir !! this function is not supported by the connection driver: pool type 'dir'
find-storage-pool-sources-as netfs localhost !! showmount
pool-event --list == lifecycle refresh
pool-event p --event lifecycle --timeout 1 !! event loop timed out
vol-create p {d}/nosuch --validate !! Failed to open file '{d}/nosuch': No such file or directory
vol-download v1 {d}/out p --offset 5 --length 10
vol-resize v1 3M p == Size of volume 'v1' successfully changed to 3M
vol-resize v1 1M p !! invalid argument: Can't shrink capacity below current capacity unless
vol-pool v1 !! Storage volume not found: no storage vol with matching path 'v1'
vol-pool {d}/p/v1 == p
vol-pool {d}/p/v1 --uuid ??
vol-key {d}/p/v1 == {d}/p/v1
vol-info v1 p --physical == Name: v1 Type: file Capacity: 3.00 MiB Physical: 3.00 MiB
vol-create-as p v7 1M --format qcow2 --print-xml => <capacity>1048576</capacity> .. <format type='qcow2'/>
vol-create-as p v7 frob !! Malformed size frob
vol-create-as p !! command 'vol-create-as' requires <capacity> option
secret-list --ephemeral == UUID Usage
secret-list --private --no-ephemeral == UUID Usage
secret-dumpxml nosuch !! uuidstr in virSecretLookupByUUIDString must be a valid UUID
secret-define {d}/nosuch --validate !! Failed to open file '{d}/nosuch': No such file or directory
secret-define {d}/secret.xml --validate == Secret {uuid}9 created
secret-list == UUID Usage {uuid}9 volume /x
secret-list --no-private == UUID Usage {uuid}9 volume /x
secret-dumpxml {uuid}9 --xpath //uuid == <uuid>{uuid}9</uuid>
secret-set-value {uuid}9 !! Input secret value is missing
secret-set-value {uuid}9 --base64 c2VjcmV0 == Secret value set
secret-get-value {uuid}9 == c2VjcmV0
secret-get-value {uuid}9 --plain == secret
secret-undefine nosuch !! uuidstr in virSecretLookupByUUIDString must be a valid UUID
echo --shell a 'b c' "d'e" == a 'b c' 'd'\''e'
echo --xml '<a>' b == &lt;a&gt; b
echo --split a b == a b
echo --err a b
echo --shell --xml 'a b' '&' !! Options --shell and --xml are mutually exclusive
echo --shell '' == ''
echo
"""
# Of which one waits for the other's end.
CHANGES = set("""vol-wipe vol-resize vol-download domiftune vcpupin emulatorpin iothreadpin memtune blkiotune numatune schedinfo metadata
    secret-set-value secret-define snapshot-edit snapshot-current checkpoint-edit undefine pool-start""".split())

# What a clock or the host decides between two calls.
WILD = ((r"(Total|\d+): +\d+ KiB", r"\1: N KiB"), (r"(?m)^(\d+KiB): \d+$", r"\1: N"), (r"\t(\w+) +[\d.]+ seconds", r"\1"),
        (r"(?m)^(Compiled against library): .*", r"\1"), (r"/tmp/(?:virsh|lodge-)\w+\.xml", "FILE"),
        (r"(?m)^(net_(?!lo_)|block_(loop|nbd|dm)).*\n", ""), (r"<([amcb]time)>[\d.]+", r"<\1>"))


def stable(text):
    for pattern, instead in WILD:
        text = re.sub(pattern, instead, text)
    return re.sub(r"(?m) +$", "", text)


def verbs_of(program):
    text = subprocess.run([program, "help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(?m)^    ([a-z0-9-]+) ", text)


def options_of(program, verb):
    text = subprocess.run([program, "help", verb], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?m)^    \[?(?:--|<)([a-zA-Z0-9_-]+)", text.partition("OPTIONS")[2]))


class Tables(unittest.TestCase):
    """help of both, verb by verb."""

    def test_verbs_and_options_are_those_of_virsh(self):
        left_out = {verb for verbs in NO_VERBS.values() for verb in verbs.split()}
        ours = verbs_of(LODGE)
        theirs = verbs_of("virsh")
        self.assertGreater(len(theirs), 250)
        self.assertEqual(left_out & set(ours), set(), "they are there: out of the list with them")
        self.assertEqual(set(theirs) - set(ours) - left_out, set())
        for verb in set(theirs) & set(ours):
            with self.subTest(verb=verb):
                missing = options_of("virsh", verb) - options_of(LODGE, verb)
                self.assertEqual(missing, set(NO_OPTIONS.get(verb, "").split()))

    def test_every_verb_has_its_page_and_words(self):
        page = subprocess.run([LODGE, "--manual=man"], capture_output=True, text=True, check=True).stdout
        for verb in verbs_of(LODGE):
            self.assertIn(".B " + verb.replace("-", "\\-"), page)
            self.assertIn(verb, subprocess.run([LODGE, "-q", "complete", "--", verb], capture_output=True, text=True,
                                               check=True).stdout.split())


class Lines(manage.Case):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = os.path.join(cls.daemon.root, "work")
        os.mkdir(cls.folder, 0o711)
        os.mkdir(f"{cls.folder}/p")
        for name, form in (("a.qcow2", "qcow2"), ("b.qcow2", "qcow2"), ("c.iso", "raw")):
            subprocess.run([os.environ["LODGE_IMG"], "create", "-q", "-f", form, f"{cls.folder}/{name}", "1M"], check=True)
        for number, (name, one, two, kind) in enumerate((
                ("m", "a.qcow2", "c.iso", "qcow2"), ("off", "b.qcow2", "c.iso", "qcow2"), ("one", "p/v1", "p/v2", "raw"),
                ("two", "p/v3", "p/v4", "raw"))):
            pathlib.Path(cls.folder, f"{name}.xml").write_text(MACHINE.format(
                name=name, uuid=f"{UUID}{number}", kind=kind, one=f"{cls.folder}/{one}", two=f"{cls.folder}/{two}",
                tap=f"lgt{number}"), encoding="ascii")
        pathlib.Path(cls.folder, "secret.xml").write_text(SECRET, encoding="ascii")
        for name in ("m", "off"):
            cls.daemon.virsh("define", f"{cls.folder}/{name}.xml")
        cls.daemon.virsh("start", "m", "--paused")

    def run_line(self, program, words, editor):
        p = subprocess.Popen([program, "-c", self.daemon.uri, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, stdin=subprocess.DEVNULL,
                             env={**os.environ, "LC_ALL": "C.UTF-8", "VISUAL": editor, "TZ": "UTC"})
        return lambda: (*map(stable, p.communicate(timeout=manage.PATIENCE)), p.returncode)

    def test_what_machines_say_to_their_monitors(self):
        """Both listen; which of the events come from a machine that goes on and is paused again is the same."""
        with contextlib.ExitStack() as stack:
            listeners = []
            for program in ("virsh", LODGE):
                for options in ("--event res.*|stop --regex --no-case", "m --event STOP"):
                    p = stack.enter_context(subprocess.Popen(
                        [program, "-c", self.daemon.uri, "qemu-monitor-event", *options.split(), "--loop"],
                        stdout=subprocess.PIPE, text=True))
                    stack.callback(p.kill)
                    listeners.append((p, []))

            def heard():
                self.virsh("resume", "m")
                self.virsh("suspend", "m")
                for p, seen in listeners:
                    while select.select([p.stdout], [], [], 0)[0]:
                        seen.append(p.stdout.readline())
                return all(any("event STOP" in line for line in seen) for _, seen in listeners)
            manage.until(heard, "all listen")
            for p, seen in listeners:
                self.assertRegex(seen[-1], r"^event (STOP|RESUME) at \d+\.\d{6} for domain 'm': ")
            self.assertTrue(any("RESUME" in line for line in listeners[2][1]))
            self.assertFalse(any("RESUME" in line for line in listeners[3][1]))

    def test_saves_and_tells_how_far_it_is(self):
        """How much of it is seen on the way depends on the host, but the end is the same."""
        said = []
        for program in ("virsh", LODGE):
            for words, back in ((["save", "m", f"{self.folder}/state"], ["restore", f"{self.folder}/state"]),
                                (["managedsave", "m"], ["start", "m"])):
                out, err, code = self.run_line(program, [*words, "--verbose"], "true")()
                self.assertEqual(code, 0, out + err)
                self.assertRegex(err, r"^([\r\n](Save|Managedsave): \[[ \d]+ %\])+$")
                said.append((out, re.split("[\r\n]", err)[-1]))
                self.virsh(*back)
        self.assertEqual(said[:2], said[2:])
        self.assertEqual([err for _, err in said[2:]], ["Save: [100 %]", "Managedsave: [100 %]"])

    def test_prints_what_virsh_prints(self):
        for line in LINES.splitlines():
            if not line or line.startswith("#"):
                continue
            line, check = manage.expectation(line)
            with self.subTest(verb=line):
                editor = "true"
                if line.startswith("edited "):
                    editor, line = re.match(r"edited '(.*?)' (.*)", line).groups()
                words = shlex.split(line.format(d=self.folder, uuid=UUID))
                if words[0] in ("virsh", "lodge"):
                    program = "virsh" if words[0] == "virsh" else LODGE
                    ours = self.run_line(program, words[1:], editor)()
                else:
                    theirs = self.run_line("virsh", words, editor)
                    before = theirs() if words[0] in CHANGES else None
                    ours = self.run_line(LODGE, words, editor)()
                    self.assertEqual(ours, before or theirs())
                check({"d": self.folder, "uuid": UUID}, ours[2], *ours[:2])


if __name__ == "__main__":
    sys.exit(unittest.main())
