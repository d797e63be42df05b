#!/usr/bin/python3
"""Real guests: kernels and disks of Debian's packages on each engine."""
import hashlib
import os
import pathlib
import pty
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time

from guest import BUILD, PATIENCE, UP, Failed, Machine, cpio, guest_file, main, tiny


def tiny_boot(engine, machine="pc", cpus=1, seconds=PATIENCE, guest="tiny", more=()):
    with Machine(["-M", machine, "-accel", engine, "-smp", str(cpus), "-no-reboot", *more,
                  *tiny("poweroff", guest=guest)]) as m:
        m.expect(UP, seconds)
        code = m.wait()
        if code:
            raise Failed(f"exit code {code}")


def four_cpus():
    nodes = ["-numa", "node,cpus=0-2,mem=96", "-numa", "node,mem=160", "-numa", "cpu,node-id=1,core-id=3",
             "-numa", "dist,src=0,dst=1,val=31"]
    with Machine(["-accel", "bt", "-smp", "4", *nodes, *tiny("shell", "256M")]) as m:
        m.expect(UP)
        m.expect("busybox")
        out = m.run("cd /sys/devices/system/node; cat node?/cpulist node?/distance; cd /")
        if "\n0-2\n3\n10 31\n31 10\n" not in out:
            raise Failed(f"not the two nodes of the command line: {out}")
        sizes = re.findall(r"MemTotal: +(\d+)", m.run("cat /sys/devices/system/node/node?/meminfo"))
        if len(sizes) != 2 or int(sizes[0]) >= 96 << 10 or not 96 << 10 < int(sizes[1]) <= 160 << 10:
            raise Failed(f"memory of the nodes: {sizes}")
        out = m.run("grep -c ^processor /proc/cpuinfo")
        if "\n4\n" not in out:
            raise Failed(f"not 4 CPUs: {out}")
        # All four at once, and the kernel must not have lost trust in its clock.
        m.run("for i in 1 2 3 4; do (n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done) & done; wait")
        out = m.run("dmesg | grep kvm-guest")
        for text in ("setup PV IPIs", "setup pv remote TLB flush"):
            if text not in out:
                raise Failed(f"the kernel does not use {text!r}: {out}")
        if "uncachable" not in m.run("cat /proc/mtrr"):
            raise Failed("no memory types")
        # It begins with kvm-clock, and takes the TSC once that has been compared with other clocks.
        at = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        m.until(lambda: "\ntsc\n" in m.run(f"cat {at}"), "the clock source is not the TSC")
        m.type("poweroff -f\n")
        m.wait()


def reboots():
    """64 restarts in a row; each must come up."""
    with Machine(["-accel", "bt", *tiny("reboot", append="quiet")]) as m:
        at = 0
        for _ in range(64):
            at = m.expect(UP, after=at)


def login(m, seconds):
    m.expect("guest login:", seconds)
    m.type("root\n")
    m.expect(r"root@guest:~# ")


def debian(engine, machine, firmware=(), disk="virtio", seconds=PATIENCE):
    """Firmware, boot loader, kernel, systemd, login; the network; power off."""
    drive = f"file={guest_file('debian', 'disk.raw')},format=raw,if={disk},snapshot=on"
    with Machine(["-M", machine, "-accel", engine, "-smp", "2", "-m", "512M", "-drive", drive,
                  "-nic", "user,model=virtio-net-pci", "-no-reboot", *firmware]) as m:
        login(m, seconds)
        m.until(lambda: "10.0.2.15" in m.run("ip -4 addr"), "no address by DHCP")
        if "done-0" not in m.run("ping -c 1 -W 5 10.0.2.2"):
            raise Failed("the gateway does not answer")
        m.type("poweroff\n")
        code = m.wait()
        if code:
            raise Failed(f"exit code {code}")


def ovmf():
    """Through UEFI; the variable store is a copy that the firmware may write."""
    store = BUILD / "guests" / "debian" / "vars.fd"
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", store)
    debian("bt", "q35", (
        "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
        "-drive", f"if=pflash,format=raw,unit=1,file={store}"))


def run_on_a_terminal(guest, talk, seconds):
    """What `make run` ends in: a login on this terminal, and back in the shell.  @talk: what is
    waited for, and what is typed then."""
    tools = pathlib.Path(__file__).resolve().parents[2] / "tools"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(tools / "run", ["run", str(BUILD), guest])
    seen, end = b"", time.monotonic() + seconds
    for text, keys in talk:
        while text not in seen:
            if time.monotonic() > end:
                raise Failed(f"no {text!r} in {seen[-2000:]!r}")
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
        seen = seen.partition(text)[2]  # the next text may be there already
        os.write(terminal, keys)
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # the terminal's end
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise Failed(f"exit code {code}")


def run_tiny():
    run_on_a_terminal("tiny", ((b"/ # ", b"ifconfig eth0\r"), (b"10.0.2.15", b""),
                               (b"/ # ", b"poweroff\r")), 2 * PATIENCE)


def run_debian():
    """Through SeaBIOS, GRUB and systemd; packages come over the network."""
    prompt = b"root@guest:~# "
    run_on_a_terminal("debian", (
        (b"guest login:", b"root\r"),
        (prompt, b"until ip -4 addr | grep 10.0.2.15; do sleep 1; done\r"), (b"inet 10.0.2.15", b""),
        (prompt, b"apt-get -q update; echo rc=$?\r"), (b"rc=0", b""),
        (prompt, b"poweroff\r")), 500)


def with_programs(names, flags=()):
    """The tiny guest's initramfs with programs from tests/guest in /, as arguments."""
    source = pathlib.Path(__file__).resolve().parent.parent / "guest"
    initrd = pathlib.Path(tempfile.mkdtemp(prefix="lodge-programs-"), "initrd")
    files = {}
    for name in names:
        program = initrd.parent / name
        subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-static", "-pthread", *flags, "-o", program,
                        source / f"{name}.c"], check=True)
        files[name] = program.read_bytes()
    old = pathlib.Path(guest_file("tiny", "initrd")).read_bytes()
    initrd.write_bytes(old + bytes(-len(old) % 4) + cpio(files))
    return initrd


def stress():
    """Four CPUs with all that can go wrong between them at once: tests/guest/stress.c."""
    initrd = with_programs(["stress"])
    try:
        with Machine(["-accel", "bt", "-smp", "4", *tiny("shell", "512M"), "-initrd", str(initrd)]) as m:
            m.expect("busybox")
            be_stressed(m)
            m.type("poweroff\n")
            m.wait()
    finally:
        shutil.rmtree(initrd.parent)


def be_stressed(m):
    seconds = os.environ.get("LODGE_STRESS", "12")
    out = m.run(f"/stress {seconds}", PATIENCE + 10 * int(seconds))
    if "stress: ok" not in out or "wrong" in out:
        raise Failed(out)


def direct():
    """All programs in processes of their own, out of a sandbox: the same stress, and tests/guest/programs.c."""
    initrd = with_programs(["stress", "programs"], ["-mavx2"])
    try:
        flags = "vsyscall=xonly transparent_hugepage=always"  # with less memory there are none
        with Machine(["-accel", "bt,direct=always", "-smp", "2", *tiny("shell", "640M", flags),
                      "-initrd", str(initrd), "-sandbox",
                      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"], qmp=True) as m:
            m.expect("busybox")
            out = m.run("/programs & /programs >/tmp/2; wait; cat /tmp/2")
            if out.count("programs: ok") != 2:
                raise Failed(out)
            be_stressed(m)
            stays = [c["direct"] for c in m.qmp("query-jit")["cpus"]]
            if not all(stays):
                raise Failed(f"programs were in processes of their own so often: {stays}")
            m.type("poweroff\n")
            m.wait()
    finally:
        shutil.rmtree(initrd.parent)


def rest():
    """What only the boot needed of the translator's memory is given back once the guest rests."""
    with Machine(["-accel", "bt", "-d", "jit-stats", *tiny("halt")], qmp=True) as m:
        m.expect(UP)
        m.until(lambda: m.qmp("query-jit")["cache"]["size"] == 8 << 20, "the cache stays as large as it was")
        m.qmp("quit")
        m.wait()
        if not re.search(r"jit-stats: cpu 0: blocks [1-9]", m.stderr()):
            raise Failed("no counters at the end")


def suspend():
    """State to a file under load, resumed in another process: the load goes on."""
    state = BUILD / "suspend.state"
    args = ["-accel", "bt", "-smp", "2", *tiny("shell", "256M")]
    with Machine(args, qmp=True) as m:
        m.expect("busybox")
        m.run("n=0; while :; do n=$((n+1)); done & cat /dev/urandom | md5sum & mark=kept")
        m.qmp("migrate", uri=f"file:{state}")
        m.until(lambda: m.qmp("query-migrate").get("status") not in ("setup", "active"),
                "the migration does not end")
        status = m.qmp("query-migrate").get("status")
        if status != "completed":
            raise Failed(f"migration: {status}")
        m.qmp("quit")
    with Machine([*args, "-incoming", f"file:{state}"], qmp=True) as m:
        # What is typed before the state is there goes to the machine that it replaces.
        m.until(lambda: m.qmp("query-status")["running"], "the state is not loaded")
        out = m.run("jobs >/tmp/j; echo mark=$mark jobs=$(wc -l </tmp/j)")
        if "mark=kept jobs=2" not in out:
            raise Failed(out)
    os.unlink(state)


def kernel_nbd():
    """Linux's own NBD client on a disk that lodge-img serves: reads it, writes, gives space back."""
    img, folder = str(BUILD / "lodge-img"), tempfile.mkdtemp(prefix="lodge-nbd-")
    client = shutil.which("nbd-client", path=os.environ["PATH"] + ":/usr/sbin")
    if not client:
        raise Failed("no nbd-client (Debian package nbd-client)")
    module = next(pathlib.Path(guest_file("tiny", "root")).glob("lib/modules/*/kernel/drivers/block/nbd.ko"))
    libraries = re.findall(r"(?:=> )?(/\S+) \(0x", subprocess.run(["ldd", client], capture_output=True, text=True,
                                                               check=True).stdout)
    files = {os.path.basename(name): pathlib.Path(name).read_bytes() for name in [client, *libraries]}
    loader = next(name for name in files if name.startswith("ld-linux"))
    old = pathlib.Path(guest_file("tiny", "initrd")).read_bytes()
    initrd, disk, raw = (os.path.join(folder, name) for name in ("initrd", "disk.qcow2", "disk.raw"))
    pathlib.Path(initrd).write_bytes(old + bytes(-len(old) % 4) + cpio({**files, "nbd.ko": module.read_bytes()}))
    with open(raw, "wb") as f:
        f.write(os.urandom(3 << 20))
        f.truncate(16 << 20)
    subprocess.run([img, "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([img, "serve", "-f", "qcow2", "-t", "--discard=unmap", "-b", "127.0.0.1", "-p", str(port),
                               disk])
    try:
        with Machine(["-accel", "bt", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n",
                      *tiny("shell", "256M"), "-initrd", initrd]) as m:
            m.expect("busybox")
            command = f"/{loader} --library-path / /nbd-client"
            out = m.run(f"insmod /nbd.ko; {command} 10.0.2.2 {port} /dev/nbd0 -N ''")
            if "done-0" not in out:
                raise Failed(out)
            with open(raw, "rb") as f:
                want = hashlib.md5(f.read()).hexdigest()
            if want not in m.run("md5sum /dev/nbd0"):
                raise Failed("the guest reads other bytes than are there")
            m.run("dd if=/dev/urandom of=/dev/nbd0 bs=4k seek=2000 count=300 conv=fsync 2>/dev/null")
            m.run("dd if=/dev/nbd0 of=/dev/nbd0 bs=64k skip=20 seek=200 count=9 conv=notrunc,fsync 2>/dev/null")
            m.run("blkdiscard -z -o 65536 -l 1048576 /dev/nbd0; echo 3 >/proc/sys/vm/drop_caches")
            sum = re.search("[0-9a-f]{32}", m.run("md5sum </dev/nbd0")).group()
            out = m.run(f"{command} -d /dev/nbd0")
            if "done-0" not in out:
                raise Failed(out)
            m.type("poweroff -f\n")
            m.wait()
        server.terminate()
        if server.wait(PATIENCE):
            raise Failed("lodge-img serve did not end well")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    subprocess.run([img, "convert", "-f", "qcow2", "-O", "raw", disk, raw], check=True)
    with open(raw, "rb") as f:
        if hashlib.md5(f.read()).hexdigest() != sum:
            raise Failed("the host finds other bytes than the guest left")
    subprocess.run([img, "check", "-q", "-f", "qcow2", disk], check=True)
    shutil.rmtree(folder)


def image_chain():
    """Overlays in qcow2 over one raw image: the guest reads what is below and writes; the host finds
    all of it, and nothing to complain of."""
    img, folder = str(BUILD / "lodge-img"), tempfile.mkdtemp(prefix="lodge-chain-")
    base = os.path.join(folder, "base.raw")
    with open(base, "wb") as f:
        f.write(os.urandom(8 << 20))
        f.truncate(64 << 20)
    drives = []
    for name, bus in (("v", "virtio"), ("i", "ide")):
        top = os.path.join(folder, name + ".qcow2")
        subprocess.run([img, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top], check=True)
        drives += ["-drive", f"file={top},format=qcow2,if={bus},discard=unmap"]
    with Machine(["-accel", "bt", *drives, *tiny("shell", "256M")]) as m:
        m.expect("busybox")
        sums = {}
        for disk in "vda", "sda":
            m.run(f"i=1; while [ $i -le 150 ]; do dd if=/dev/urandom of=/dev/{disk} bs=4k count=1 conv=notrunc "
                  f"seek=$((i * 97 % 16384)) 2>/dev/null; i=$((i+1)); done")
            m.run(f"dd if=/dev/{disk} of=/dev/{disk} bs=64k count=48 seek=600 conv=notrunc,fsync 2>/dev/null; sync")
            m.run("echo 3 >/proc/sys/vm/drop_caches")
            sums[disk] = re.search("[0-9a-f]{32}", m.run(f"md5sum </dev/{disk}")).group()
        m.type("poweroff -f\n")
        m.wait()
    for name, disk in (("v", "vda"), ("i", "sda")):
        top = os.path.join(folder, name + ".qcow2")
        if subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", top]).returncode:
            raise Failed(f"{disk}: qemu-img check complains")
        subprocess.run(["qemu-img", "convert", "-O", "raw", top, base + ".out"], check=True)
        with open(base + ".out", "rb") as f:
            if hashlib.md5(f.read()).hexdigest() != sums[disk]:
                raise Failed(f"{disk}: the host reads other bytes than the guest")
    shutil.rmtree(folder)


TESTS = {
    "image-chain": image_chain,
    "kernel-nbd": kernel_nbd,
    "tiny-interp": lambda: tiny_boot("interp", seconds=2 * PATIENCE),
    "tiny-bt": lambda: tiny_boot("bt"),
    "tiny-q35-bt": lambda: tiny_boot("bt", "q35", 2),
    "tiny-default": lambda: tiny_boot("kvm:bt"),
    "tiny-seabios-bt": lambda: tiny_boot("bt", "pc,kernel-firmware=on"),
    "i386-bt": lambda: tiny_boot("bt", guest="i386"),
    "four-cpus": four_cpus,
    "reboots": reboots,
    "debian-seabios-pc": lambda: debian("bt", "pc", disk="ide"),
    "debian-ovmf": ovmf,
    "rest": rest,
    "suspend": suspend,
    "stress": stress,
    "direct": direct,
    "run": run_tiny,
    "run-debian": run_debian,
}

if __name__ == "__main__":
    main(TESTS)
