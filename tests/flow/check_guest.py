#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodged where the kernel has what build hosts often lack: `make check-guest`.

A machine of lodge-vm boots Debian's cloud kernel; its initramfs is busybox with all modules, the
programs of this build and a few of the host's with their libraries.  A script in it tries VLAN
filtering, the device mapper, iSCSI, macvtap and control groups, each through lodged and the
shell `lodge`, with machines inside the machine where ports are needed.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from guest import BUILD, Failed, Machine, guest_file
from nested_kvm import libraries, pack, put

MINUTES = int(os.environ.get("LODGE_GUEST_MINUTES", "20"))
OURS = ["lodged", "lodge", "lodge-vm", "lodge-img"]
HOSTS = ["nft", "ip", "bridge", "tc", "dnsmasq", "lvm", "tgtd", "tgtadm", "mount", "umount", "sfdisk",
         "blkid", "rpc.nfsd", "rpc.mountd", "exportfs"]
MODULES = ["net", "drivers/md", "drivers/net", "drivers/block", "drivers/virtio", "drivers/scsi", "fs", "lib",
           "crypto", "arch/x86/crypto", "drivers/vhost", "drivers/char"]
LVM = "devices { use_devicesfile = 0 }\nactivation { udev_sync = 0\n udev_rules = 0 }\nbackup { backup = 0\n archive = 0 }\n"

# `check NAME` runs the function NAME; what it prints is shown only if it fails.
SCRIPT = r"""
export PATH=/lodge:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb
mkdir -p /run /var/lib/misc /etc /root /sys/fs/cgroup /dev/shm /dev/pts /dev/net
mount -t tmpfs none /run; mount -t tmpfs none /dev/shm; mount -t devpts none /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
echo "+cpu +memory +io +cpuset +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /run/lock /run/lvm
ln -s /run /var/run; ln -s /proc/self/fd /dev/fd; ln -s /proc/self/fd/0 /dev/stdin
ifconfig lo up
for m in tun macvtap bridge dm-mod loop nf_tables nft_masq nft_limit sch_tbf; do modprobe $m; done
. /lib.sh
mkdir -p $ROOT; chmod 711 $ROOT
lodged --root $ROOT >/tmp/lodged.log 2>&1 &
until_true test -S $S
check() { if sh -exc ". /lib.sh; $1" >/tmp/out 2>&1; then echo "guest-passed $1"; else
    tail -n 50 /tmp/out; tail -n 5 /tmp/lodged.log; echo "guest-failed $1"; fi; }
uname -r
for t in @TESTS@; do check $t; done
echo guest-end
"""
# The functions; read by a shell of its own for each, so that the first failure ends it.
LIBRARY = r"""# By their paths where busybox has a smaller program of the name.
IQN=iqn.2026-01.org.example:disks
ROOT=/run/lodged
S=$ROOT/run/libvirt/virtlodged-sock
l() { lodge -c "qemu:///system?socket=$S" "$@"; }
until_true() { set +x; n=0; until "$@" >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 1500 ] || return 1; sleep 0.2; done; }
not() { if "$@"; then return 1; fi; }
domain() { # NAME MORE INTERFACE: a machine inside this machine
cat >/tmp/$1.xml <<X
<domain type='qemu'><name>$1</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
<os><type machine='pc'>hvm</type><kernel>/inner/vmlinuz</kernel><initrd>/inner/initrd</initrd>
<cmdline>console=ttyS0 panic=-1 quiet lodge.run=shell</cmdline></os>$2
<devices>$3<serial type='file'><source path='/tmp/$1.log'/></serial></devices></domain>
X
l create /tmp/$1.xml; }
network() { echo "$1" >/tmp/net.xml; l net-create /tmp/net.xml; }

vlan() {
    network "<network><name>vlans</name><bridge name='vbr0' stp='off'/><portgroup name='blue'><vlan><tag id='42'/></vlan></portgroup>
        <portgroup name='trunk'><vlan trunk='yes'><tag id='7' nativeMode='untagged'/><tag id='9'/></vlan></portgroup></network>"
    domain v1 "" "<interface type='network'><source network='vlans' portgroup='blue'/><port isolated='yes'/></interface>
        <interface type='network'><source network='vlans' portgroup='trunk'/></interface>"
    bridge vlan show
    bridge vlan show dev vnet0 | grep -q '42 PVID Egress Untagged'
    not sh -c "bridge vlan show dev vnet0 | grep -q ' 1 '"
    bridge vlan show dev vnet1 | grep -q '7 PVID Egress Untagged'
    bridge vlan show dev vnet1 | grep -q '9$'
    bridge -d link show dev vnet0 | grep -q 'isolated on'
    l destroy v1; l net-destroy vlans
}
inner_boot() {
    domain inner "" ""
    until_true grep -q 'user space is up' /tmp/inner.log
    l domstate inner | grep -q running
    l destroy inner
}
macvtap() {
    modprobe dummy numdummies=1; ip link set dummy0 up
    network "<network><name>direct</name><forward mode='bridge'><interface dev='dummy0'/></forward></network>"
    domain m1 "" "<interface type='network'><source network='direct'/><model type='virtio'/></interface>"
    /usr/sbin/ip -d link show | grep -q 'macvtap *mode bridge'
    l domstate m1 | grep -q running
    l destroy m1; l net-destroy direct
    not sh -c "/usr/sbin/ip -d link show | grep -q 'macvtap *mode'"
}
cgroups() {
    domain g1 "<cputune><shares>512</shares><period>100000</period><quota>50000</quota></cputune>
        <memtune><hard_limit unit='MiB'>1024</hard_limit></memtune>" ""
    find /sys/fs/cgroup -name memory.max | xargs grep -H . ; find /sys/fs/cgroup -name cpu.max | xargs grep -H .
    find /sys/fs/cgroup -name memory.max | xargs cat | grep -qx 1073741824
    find /sys/fs/cgroup -name cpu.max | xargs cat | grep -qx '50000 100000'
    l destroy g1
}
logical() {
    l pool-define-as vg logical --source-dev /dev/vda --source-name lodgevg
    l pool-build vg; l pool-start vg
    l vol-create-as vg one 8M
    test -b /dev/lodgevg/one
    l vol-resize one 16M --pool vg
    dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null
    l vol-upload one /tmp/data --pool vg
    l vol-download one /tmp/back --pool vg; cmp /tmp/data /tmp/back
    l vol-create-as vg snap 4M --backing-vol one; l vol-delete snap vg
    l vol-list vg --details
    l vol-list vg --details | grep -q '16.00 MiB'
    domain d1 "" "<disk type='volume'><source pool='vg' volume='one'/><target dev='hda'/></disk>"
    l domstate d1 | grep -q running
    l destroy d1
    l vol-delete one vg; l pool-destroy vg; l pool-delete vg; l pool-undefine vg
}
iscsi() {
    dd if=/dev/urandom of=/tmp/unit bs=1M count=4 2>/dev/null
    (tgtd -f >/tmp/tgtd.log 2>&1 &)
    until_true tgtadm --lld iscsi --mode target --op show
    tgtadm --lld iscsi --op new --mode target --tid 1 -T $IQN
    tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun 1 -b /tmp/unit
    tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL
    l find-storage-pool-sources-as iscsi 127.0.0.1 | grep -q $IQN
    l pool-define-as units iscsi --source-host 127.0.0.1 --source-dev $IQN --target /dev/disk/by-path
    l pool-start units; l vol-list units | grep -q unit:0:0:1
    l vol-download unit:0:0:1 /tmp/unit.back --pool units; cmp /tmp/unit /tmp/unit.back
    domain i1 "" "<disk type='volume'><source pool='units' volume='unit:0:0:1'/><target dev='hda'/></disk>"
    l domstate i1 | grep -q running
    l destroy i1; l pool-destroy units; l pool-undefine units
}
nfs() {
    l pool-define-as shared netfs --source-host 127.0.0.1 --source-path /disks --target /mnt/shared --source-format nfs --source-protocol-ver 4.2
    l pool-build shared
    not l pool-start shared 2>/tmp/err; cat /tmp/err
    grep -q 'mount.nfs.*refused' /tmp/err
    modprobe nfsd
    mkdir -p /export /var/lib/nfs/v4recovery; mount -t tmpfs none /export; mkdir /export/disks
    touch /var/lib/nfs/etab /var/lib/nfs/rmtab
    mount -t nfsd none /proc/fs/nfsd
    echo '/export 127.0.0.1(rw,fsid=0,no_root_squash,no_subtree_check,insecure)' >/etc/exports
    exportfs -ra
    rpc.mountd -N 3 -N 2
    rpc.nfsd -p 2049 -N 3 -U 4
    l pool-start shared
    grep -q ' /mnt/shared nfs4 .*vers=4.2' /proc/mounts
    grep ' /mnt/shared ' /proc/mounts | grep nosuid | grep nodev | grep -q noexec
    l vol-create-as shared one.qcow2 8M --format qcow2
    test -f /export/disks/one.qcow2
    l vol-list shared | grep -q one.qcow2
    dd if=/dev/urandom of=/tmp/data bs=1M count=2 2>/dev/null
    l vol-create-as shared two 2M; l vol-upload two /tmp/data --pool shared
    cmp /tmp/data /export/disks/two
    domain n1 "" "<disk type='volume'><driver name='qemu' type='qcow2'/><source pool='shared' volume='one.qcow2'/><target dev='hda'/></disk>"
    l domstate n1 | grep -q running
    l destroy n1
    l vol-delete two shared
    l pool-destroy shared
    not grep -q ' /mnt/shared ' /proc/mounts
    l pool-undefine shared
}
bandwidth() {
    network "<network><name>slow</name><bridge name='sbr0' stp='off'/><bandwidth><inbound average='1000'/><outbound average='500'/></bandwidth>
        <ip address='10.77.0.1' prefix='24'><dhcp><range start='10.77.0.2' end='10.77.0.9'/></dhcp></ip></network>"
    /usr/sbin/tc qdisc show dev sbr0 | grep -q 'tbf .*rate 8192Kbit'
    nft list table netdev lodge_sbr0 | grep -q 'limit rate over 500 kbytes/second'
    domain b1 "" "<interface type='network'><source network='slow'/><model type='virtio'/><filterref filter='clean-traffic'/></interface>"
    until_true sh -c "lodge -c 'qemu:///system?socket=$S' net-dhcp-leases slow | grep -q 10.77.0"
    until_true sh -c "nft list set bridge lodge_vnet0 learned | grep -q 10.77.0 || busybox ping -c 1 -W 1 10.77.0.2"
    l destroy b1; l net-destroy slow
}
"""
TESTS = ["vlan", "macvtap", "cgroups", "logical", "iscsi", "nfs", "bandwidth", "inner_boot"]


def find(program):
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise Failed(f"{program} is missing: tools/install-deps guest installs it")
    return path


def add_modules(tree):
    """What may be asked for, with the kernel's own list of who needs whom."""
    release = next((BUILD / "guests/tiny/root/lib/modules").glob("*"))
    to = tree / "lib/modules" / release.name
    for folder in MODULES:
        if (release / "kernel" / folder).exists():
            shutil.copytree(release / "kernel" / folder, to / "kernel" / folder)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy(release / name, to / name)
    subprocess.run([find("depmod"), "-b", tree, release.name], check=True)


def initrd(to, tests):
    with tempfile.TemporaryDirectory() as tmp:
        tree = pathlib.Path(tmp) / "tree"
        shutil.copytree(BUILD / "guests/tiny/tree", tree, symlinks=True)
        add_modules(tree)
        programs = [str(BUILD / p) for p in OURS] + [find(p) for p in HOSTS]
        modules = list((BUILD / "host/image").glob("image-*.so")) + list((BUILD / "manage").glob("manage-*.so"))
        for p in programs[:len(OURS)]:
            put(tree, p, "/lodge/" + os.path.basename(p))
        for p in programs[len(OURS):]:
            put(tree, p, "/usr/sbin/" + os.path.basename(p))
        for p in ("mount.nfs", "umount.nfs"):  # where mount looks for them
            put(tree, find(p), "/sbin/" + p)
        for m in modules:
            put(tree, str(m), f"/lodge/{m.relative_to(BUILD)}")
        for p in [*programs, find("mount.nfs"), *map(str, modules)]:
            for lib in libraries(p):
                put(tree, lib)
        for link in ("vgcreate", "vgchange", "vgs", "vgremove", "lvcreate", "lvs", "lvremove", "lvchange",
                     "lvresize", "lvextend", "lvreduce", "pvcreate", "pvs", "pvremove"):
            os.symlink("lvm", tree / "usr/sbin" / link)
        for path, text in (("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
                            "dnsmasq:x:999:65534::/:/bin/false\n"), ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
                           ("etc/lvm/lvm.conf", LVM), ("etc/hosts", "127.0.0.1 localhost guest\n"),
                           ("lib.sh", LIBRARY), ("check", SCRIPT.replace("@TESTS@", " ".join(tests)))):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        for firmware in ("/usr/share/seabios/bios-256k.bin", "/usr/lib/ipxe/qemu/efi-e1000.rom",
                         "/usr/lib/ipxe/qemu/efi-virtio.rom"):
            put(tree, firmware)
        put(tree, guest_file("tiny", "vmlinuz"), "/inner/vmlinuz")
        put(tree, guest_file("tiny", "initrd"), "/inner/initrd")
        pack(tree, to)


def main():
    tests = sys.argv[1:] or TESTS
    with tempfile.TemporaryDirectory(prefix="lodge-guest-") as folder:
        initrd(f"{folder}/initrd", tests)
        with open(f"{folder}/disk", "wb") as f:
            f.truncate(128 << 20)
        with Machine(["-smp", "2", "-m", "2048", "-no-reboot", "-kernel", guest_file("tiny", "vmlinuz"), "-initrd",
                      f"{folder}/initrd", "-drive", f"file={folder}/disk,format=raw,if=virtio", "-append",
                      "console=ttyS0 panic=-1 quiet lodge.run=/check"]) as m:
            at, passed, failed = 0, 0, 0
            for _ in tests:
                end = m.expect(r"guest-(passed|failed) \w+\n", MINUTES * 60, at)
                failed += m.seen.rfind("guest-failed", at, end) >= 0
                passed += m.seen.rfind("guest-passed", at, end) >= 0
                print(re.findall(r"guest-(?:passed|failed) \w+", m.seen[at:end])[-1][6:], flush=True)
                if m.seen.rfind("guest-failed", at, end) >= 0:
                    print(m.seen[at:end])
                at = end
            m.expect("guest-end", MINUTES * 60, at)
            m.wait()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
