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
# front: what the user's editor does to the XML. {d} is a folder of one's own.
LINES = r"""
# threads
iothreadinfo m
iothreadinfo off
iothreadinfo m --config
iothreadinfo m --live
iothreadinfo off --live
iothreadadd m 2
iothreadadd m 0
iothreaddel m 9
virsh iothreadadd m 5
lodge iothreadadd m 6
iothreadinfo m
virsh iothreaddel m 6
lodge iothreaddel m 5
iothreadinfo m
iothreadpin m 1 0
iothreadpin m 1 r
iothreadpin m 1 9-
iothreadpin m 77 0
iothreadpin m 1
iothreadinfo nosuch
vcpupin m
vcpupin m 0
vcpupin m 0 0
vcpupin m 0 9-
vcpupin m --cpulist 0
emulatorpin m
emulatorpin m 0
emulatorpin m r
# snapshots and checkpoints
snapshot-list off
virsh snapshot-create-as off s1 words
lodge snapshot-create-as off s2
virsh snapshot-create-as off s3
lodge snapshot-revert off s2
virsh snapshot-create-as off a4
snapshot-list off
snapshot-list off --parent
snapshot-list off --roots
snapshot-list off --leaves
snapshot-list off --no-leaves
snapshot-list off --tree
snapshot-list off --name
snapshot-list off --name --tree
snapshot-list off --parent --tree
snapshot-list off --parent --roots
snapshot-list off --roots --tree
snapshot-list off --roots --from s1
snapshot-list off --roots --current
snapshot-list off --from s1
snapshot-list off --from s1 --descendants
snapshot-list off --from s1 --tree
snapshot-list off --from s2 --tree --descendants
snapshot-list off --from s1 --parent
snapshot-list off --from s1 --name
snapshot-list off --from nosuch
snapshot-list off --current
snapshot-list off --current --descendants --tree
snapshot-list off --descendants
snapshot-list off --current --from s1
snapshot-list off --topological --name
snapshot-list off --topological --parent
snapshot-list off --metadata --name
snapshot-list off --no-metadata --name
snapshot-list off --inactive --name
snapshot-list off --active --name
snapshot-list off --disk-only --name
snapshot-list off --internal --name
snapshot-list off --external --name
snapshot-list nosuch
snapshot-info off s1
snapshot-info off s2
snapshot-info off --current
snapshot-info off
snapshot-info off nosuch
snapshot-parent off s1
snapshot-parent off s3
snapshot-parent off --current
snapshot-parent off nosuch
snapshot-parent off
snapshot-dumpxml off s1
snapshot-dumpxml off s1 --xpath //name
snapshot-dumpxml off s1 --security-info
snapshot-dumpxml off
snapshot-current off
snapshot-current off --name
snapshot-current off --snapshotname s1
snapshot-current off --name
snapshot-current off s3
snapshot-current off nosuch
snapshot-current m
edited 'true' snapshot-edit off s1
edited 'sed -i s,words,worte,' virsh snapshot-edit off s1
edited 'sed -i s,worte,more,' lodge snapshot-edit off s1
snapshot-dumpxml off s1 --xpath //description
edited 'sed -i s,name.s1.,name\>zz\<,' snapshot-edit off s1
edited 'sed -i s,\<name\>s3,\<name\>s9,' snapshot-edit off s3
edited 'sed -i s,\<name\>s3,\<name\>s9,' snapshot-edit off s3 --rename --clone
edited 'true' snapshot-edit off nosuch
edited 'true' snapshot-edit off
edited 'true' snapshot-edit off --current
edited 'true' snapshot-edit off s1 --current
edited 'sed -i s,name.a4.,name\>a5\<,' virsh snapshot-edit off a4 --rename
edited 'sed -i s,name.a5.,name\>a6\<,' lodge snapshot-edit off a5 --rename
snapshot-list off --name
snapshot-create-as off x --print-xml --diskspec vda,snapshot=external,file=/a,driver=qcow2 --diskspec vdb
snapshot-create-as off x --print-xml --diskspec vda,frob=1
snapshot-create-as off x y --print-xml --memspec file=/x,snapshot=external
snapshot-delete off s1 --children-only --metadata
snapshot-delete off nosuch
snapshot-delete off
snapshot-list off --name
checkpoint-list m
checkpoint-create-as m c1 words --print-xml --diskspec vda,checkpoint=bitmap,bitmap=b --diskspec sda,checkpoint=no
checkpoint-create-as m c1 --print-xml --diskspec vda,frob=no
virsh checkpoint-create-as m c1 words --diskspec vda,checkpoint=bitmap --diskspec sda,checkpoint=no
lodge checkpoint-create-as m c2 --diskspec vda
virsh checkpoint-create-as m c3
checkpoint-create-as m c1
checkpoint-list m
checkpoint-list m --parent
checkpoint-list m --roots
checkpoint-list m --leaves
checkpoint-list m --no-leaves
checkpoint-list m --tree
checkpoint-list m --name
checkpoint-list m --name --tree
checkpoint-list m --topological --name
checkpoint-list m --from c1
checkpoint-list m --from c1 --descendants --name
checkpoint-list m --from c2 --tree
checkpoint-list m --from c2 --parent
checkpoint-list m --from nosuch
checkpoint-list m --from c1 --roots
checkpoint-list m --parent --tree
checkpoint-list m --parent --roots
checkpoint-list m --roots --tree
checkpoint-info m c1
checkpoint-info m c2
checkpoint-info m nosuch
checkpoint-info m
checkpoint-parent m c2
checkpoint-parent m c1
checkpoint-parent m
edited 'true' checkpoint-edit m c1
edited 'sed -i s,words,worte,' virsh checkpoint-edit m c1
edited 'sed -i s,worte,more,' lodge checkpoint-edit m c1
checkpoint-dumpxml m c1 --no-domain --xpath //description
edited 'sed -i s,name.c1.,name\>zz\<,' checkpoint-edit m c1
edited 'true' checkpoint-edit m nosuch
edited 'true' checkpoint-edit m
checkpoint-create m --redefine-validate
checkpoint-dumpxml m c1 --no-domain
checkpoint-dumpxml m c1 --size --no-domain
checkpoint-delete m c1 --metadata --children-only
checkpoint-delete m
snapshot-current off --name
snapshot-current off --name
# the host, screens, figures
freecell
freecell --cellno 0
freecell --cellno 9
freecell --all
freecell 0
freecell --all --cellno 0
freepages
freepages --all
freepages --all --cellno 1
freepages --cellno 0
freepages --cellno 0 --pagesize 4
freepages --cellno 0 --pagesize 2048
freepages --cellno 0 --pagesize 3
freepages --cellno 7 --pagesize 4
freepages --all --pagesize 4
nodecpumap
nodecpumap --pretty
nodememstats --cell 99
nodedev-list --tree
nodedev-list --cap net
nodedev-list --cap net,pci
nodedev-list --cap frob
nodedev-list --tree --cap net
nodedev-list --inactive
nodedev-list --all
nodedev-dumpxml computer --xpath //name
nodedev-dumpxml net_lo_00_00_00_00_00_00
nodedev-dumpxml nosuch
nodedev-info nosuch
version
version --daemon
vncdisplay m
vncdisplay off
domdisplay m
domdisplay m --include-password
domdisplay m --type vnc
domdisplay m --type spice
domdisplay m --all
domdisplay m --all --include-password
domdisplay off
domdisplay nosuch
domblkinfo m
domblkinfo m --all
domblkinfo m vda
domblkinfo m vda --human
domblkinfo m --all --human
domblkinfo off --all
domblkinfo m nosuch
dommemstat off --period 3 --live
dommemstat off --period 3
dommemstat off
vcpucount m
vcpucount m --guest
vcpucount off --guest
vcpucount m --maximum
vcpucount m --maximum --live
vcpucount m --current
vcpucount m --active --live
vcpucount m --config --live
vcpucount m --maximum --active
vcpucount m --guest --live
vcpuinfo m --pretty
vcpuinfo off --pretty
domstats off --dirtyrate
domstats off --perf
setvcpus m 2 --guest
setvcpus off 2 --guest
setvcpus m 2 --guest --config
# devices, undefine
attach-disk m /a vda --print-xml --targetbus virtio --driver qemu --subdriver qcow2 --iothread 1 --cache none --io native --type disk --mode readonly --serial S --wwn 5000c50015ea71ac --alias ua-x --rawio --address pci:0000.01.0b.0 --multifunction
attach-disk m /a sda --print-xml --address scsi:1.2.3
attach-disk m /a sda --print-xml --address usb:1.2
attach-disk m /a sda --print-xml --address ide:0.0.3
attach-disk m /a sda --print-xml --address frob:0
attach-disk m /a sda --print-xml --address pci:zz
attach-disk m /a vdb --print-xml --address scsi:1.2.3
attach-disk m /a vdb --print-xml --address pci:0.1.2.3
attach-disk m /a hda --print-xml --address pci:0.1.2.3
attach-disk m name vdb --print-xml --sourcetype network --source-protocol nbd --source-host-name h:10809 --source-host-transport tcp
attach-disk m name vdb --print-xml --source-protocol nbd --source-host-socket /s --source-host-transport unix
attach-disk m name vdb --print-xml --source-host-name h
attach-disk m name vdb --print-xml --source-protocol nbd --source-host-name h
attach-disk m name vdb --print-xml --source-protocol nbd
attach-disk m /a vdb --print-xml --mode frob
attach-disk m /a vdb --print-xml --sourcetype network
attach-disk m /a vdb --print-xml --sourcetype zz
attach-disk m /a vdb --print-xml --type cdrom --io x
attach-disk m
change-media m nosuch --eject
setmem m
setmaxmem m
setvcpus m
blockresize m vda
attach-interface m network default --print-xml --target t0 --mac 52:54:00:00:00:01 --model virtio --script /s --alias ua-n --inbound 1,2,3 --outbound 4,5,6
attach-interface m bridge br0 --print-xml --source-mode vepa
attach-interface m network x --print-xml --inbound a
attach-interface m network x --print-xml --inbound ,3
attach-interface m network x --print-xml --inbound 1,2,3,4
attach-interface m network x --print-xml --outbound 1,2,3,4
attach-interface m network x --print-xml --outbound ,2
attach-interface m network x --print-xml --inbound 1,,3
attach-interface m network x --print-xml --inbound 1,2,3,4,5
attach-interface m internal x --print-xml
attach-interface m network nosuch
undefine m --remove-all-storage
undefine m --storage vda --remove-all-storage
undefine off --storage frob
undefine off --nvram --keep-nvram
virsh pool-create-as p dir --target {d}/p
virsh vol-create-as p v1 1M
virsh vol-create-as p v2 1M
virsh vol-create-as p v3 1M
virsh vol-create-as p v4 1M
virsh define {d}/one.xml
virsh define {d}/two.xml
virsh undefine one --remove-all-storage --wipe-storage
lodge undefine two --remove-all-storage --wipe-storage
virsh define {d}/one.xml
virsh define {d}/two.xml
virsh vol-create-as p v1 1M
virsh vol-create-as p v3 1M
virsh undefine one --storage vda,{d}/p/v2
lodge undefine two --storage vda,{d}/p/v4
vol-list p
freepages --all
# tuning, agents that are not there, CPUs, metadata
domiftune m lgt0
domiftune off 52:54:00:0a:0b:01
domiftune off 52:54:00:0a:0b:01 --inbound 100,200,300
domiftune off 52:54:00:0a:0b:01
domiftune off 52:54:00:0a:0b:01 --outbound 100,200,300
domiftune off 52:54:00:0a:0b:01 --inbound 0
domiftune off 52:54:00:0a:0b:01
domiftune off 52:54:00:0a:0b:01 --inbound a
domiftune off 52:54:00:0a:0b:01 --inbound ,2
domiftune off 52:54:00:0a:0b:01 --outbound ,2
domiftune off 52:54:00:0a:0b:01 --outbound 1,2,3,4
domiftune off nosuch
domiftune off
domiftune m lgt0 --inbound 100,200,300 --outbound 10
domiftune m lgt0
domiftune m lgt0 --config
attach-disk m
undefine m --storage vda --remove-all-storage
undefine off --storage frob
qemu-agent-command m x
qemu-agent-command m x --timeout 1 --block
domjobinfo m
domjobinfo off
domjobinfo m --completed
domjobinfo m --anystats
domjobinfo m --rawstats
domjobabort m
guestinfo m
guestinfo off
domfsinfo m
domfsinfo off
domfsfreeze m
domfsthaw m
domfsfreeze m --mountpoint /
domtime m
domtime m --now
domtime off
domtime m --time 5 --now
domtime m --sync --now
domtime m --pretty
domfstrim m
set-user-password m root x
set-user-password off root x
guest-agent-timeout m
guest-agent-timeout off
guest-agent-timeout m --timeout 5
domhostname m
domhostname m --source lease
domhostname m --source frob
domifaddr m
domifaddr m --source agent
domifaddr m --source arp
domifaddr m --source frob
guestvcpus m
guestvcpus m 0 --enable
guestvcpus m --enable
guestvcpus m 0
cpu-baseline {d}/m.xml
cpu-compare {d}/m.xml
cpu-compare {d}/nosuch
hypervisor-cpu-compare {d}/m.xml
hypervisor-cpu-baseline {d}/m.xml
hypervisor-cpu-baseline --model qemu64
hypervisor-cpu-baseline --model Nehalem --features
schedinfo m
schedinfo m --set cpu_shares=2000
schedinfo m cpu_shares=1000
schedinfo m --set frob=1
schedinfo off --config
memtune m
memtune m --min-guarantee 5
memtune m --hard-limit 1G
memtune off --hard-limit 1G --config
memtune off
blkiotune m
blkiotune off --weight 500
blkiotune off
numatune m
numatune off --mode frob
numatune off --nodeset 0
numatune off
cpu-stats m --total
cpu-stats off
domblkerror m
domblkthreshold m vda frob
domblkthreshold m nosuch 1M
qemu-monitor-event --timeout 1
qemu-monitor-event nosuch
qemu-monitor-event --event ( --regex
domblkerror off
maxvcpus frob
metadata m urn:x
metadata m urn:x --set <a/>
metadata m urn:x --edit
metadata m urn:x --set <a/> --key k --live
edited 'true' metadata m urn:x --edit
edited 'sed -i s,a/,b/,' lodge metadata m urn:x --edit --key k
metadata m urn:x
metadata m urn:x --remove
# pools, volumes, secrets
pool-list --type dir
pool-list --type netfs,dir
pool-list --type frob
pool-list --all --type netfs
virsh vol-create-as p v1 1M
vol-dumpxml v1 p --xpath //name
vol-dumpxml v1 p --xpath //name --wrap
vol-delete nosuch p
vol-clone v1 v2 p --print-xml
vol-wipe v1 p --algorithm frob
vol-wipe v1 p --algorithm zero
vol-wipe v1 p --algorithm trim
vol-wipe v1 p --algorithm random
vol-wipe v1 p --algorithm nnsa
vol-wipe v1 p --algorithm dod
vol-wipe v1 p --algorithm bsi
vol-wipe v1 p --algorithm schneier
vol-wipe v1 p --algorithm pfitzner7
vol-wipe v1 p --algorithm pfitzner33
pool-start p --build --overwrite
pool-define {d}/nosuch --validate
find-storage-pool-sources dir
find-storage-pool-sources-as netfs localhost
pool-event --list
pool-event p --event lifecycle --timeout 1
vol-create p {d}/nosuch --validate
vol-download v1 {d}/out p --offset 5 --length 10
vol-resize v1 3M p
vol-resize v1 1M p
vol-pool v1
vol-pool {d}/p/v1
vol-pool {d}/p/v1 --uuid
vol-key {d}/p/v1
vol-info v1 p --physical
vol-create-as p v7 1M --format qcow2 --print-xml
vol-create-as p v7 frob
vol-create-as p
secret-list --ephemeral
secret-list --private --no-ephemeral
secret-dumpxml nosuch
secret-define {d}/nosuch --validate
secret-define {d}/secret.xml --validate
secret-list
secret-list --no-private
secret-dumpxml {uuid}9 --xpath //uuid
secret-set-value {uuid}9
secret-set-value {uuid}9 --base64 c2VjcmV0
secret-get-value {uuid}9
secret-get-value {uuid}9 --plain
secret-undefine nosuch
echo --shell a 'b c' "d'e"
echo --xml '<a>' b
echo --split a b
echo --err a b
echo --shell --xml 'a b' '&'
echo --shell ''
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
            with self.subTest(verb=line):
                editor = "true"
                if line.startswith("edited "):
                    editor, line = re.match(r"edited '(.*?)' (.*)", line).groups()
                words = shlex.split(line.format(d=self.folder, uuid=UUID))
                if words[0] in ("virsh", "lodge"):
                    program = "virsh" if words[0] == "virsh" else LODGE
                    out, err, code = self.run_line(program, words[1:], editor)()
                    self.assertEqual(code, 0, out + err)
                else:
                    theirs = self.run_line("virsh", words, editor)
                    before = theirs() if words[0] in CHANGES else None
                    ours = self.run_line(LODGE, words, editor)()
                    self.assertEqual(ours, before or theirs())


if __name__ == "__main__":
    sys.exit(unittest.main())
