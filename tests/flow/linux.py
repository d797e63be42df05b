#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux sees of a machine's options.  A boot costs more than a look, so each boot shows as
many of them as go together."""
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from guest import BUILD, UP, Failed, Machine, cpio, main, tiny

SKIP = 77  # meson's


def with_modules(folder, *names):
    """Options of the tiny guest's shell with more of its kernel's modules, as /NAME.ko."""
    modules = next((BUILD / "guests/tiny/root/lib/modules").glob("*/kernel"))
    more = {f"{n}.ko": next(modules.rglob(f"{n}.ko")).read_bytes() for n in names}
    args = tiny("shell", "256M")
    at = args.index("-initrd") + 1
    old = pathlib.Path(args[at]).read_bytes()
    args[at] = os.path.join(folder, "initrd")
    pathlib.Path(args[at]).write_bytes(old + bytes(-len(old) % 4) + cpio(more))
    return args


def expect_in(m, command, *texts):
    out = m.run(command)
    for text in texts:
        if text not in out:
            raise Failed(f"{command}: no \"{text}\" in {out}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- the host side of a confined process ----

def status(m, field):
    text = pathlib.Path(f"/proc/{m.p.pid}/status").read_text(encoding="ascii")
    return re.search(rf"^{field}:\s*(.*)", text, re.M).group(1).split()


def is_confined(m, root):
    """-runas, -chroot, -sandbox: as the host's kernel says it."""
    user = pwd.getpwnam("nobody")
    if status(m, "Uid") != [str(user.pw_uid)] * 4 or status(m, "Gid") != [str(user.pw_gid)] * 4:
        raise Failed(f"not nobody: {status(m, 'Uid')} {status(m, 'Gid')}")
    if int(status(m, "CapEff")[0], 16):
        raise Failed("capabilities are left")
    for task in pathlib.Path(f"/proc/{m.p.pid}/task").iterdir():
        if "Seccomp:\t2\n" not in (task / "status").read_text(encoding="ascii"):
            raise Failed(f"thread {task.name} has no filter")
    if os.readlink(f"/proc/{m.p.pid}/root") != root:
        raise Failed(f"root: {os.readlink(f'/proc/{m.p.pid}/root')}")


# ---- what both machines must do ----

def reaches_the_guest(m, port):
    """hostfwd: a connection from the host finds a listener in the guest, and its answer back."""
    data = os.urandom(300000)

    def echoed():
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                back = b""
                while chunk := s.recv(65536):
                    back += chunk
                return back == data
        except ConnectionError:  # nobody listens yet
            return False
    m.until(echoed, "no echo through hostfwd")


def sleeps(m):
    """S3 and back: memory, both CPUs, the disk and the network are as they were."""
    m.run("head -c 1000000 /dev/urandom >/tmp/kept; md5sum </tmp/kept >/tmp/sum")
    for _ in range(2):
        mark = len(m.seen)
        m.type("echo mem >/sys/power/state; echo wo''ken-$?\n")
        m.until(lambda: m.qmp("query-status")["status"] == "suspended", "the guest does not sleep")
        m.qmp("system_wakeup")
        m.expect("woken-0", after=mark)
    expect_in(m, "md5sum </tmp/kept | cmp - /tmp/sum", "done-0")
    expect_in(m, "grep -c ^processor /proc/cpuinfo", "\n2\n")
    expect_in(m, "head -c 8 /dev/vda", "the disk")
    expect_in(m, "ping -c 1 -W 60 10.0.2.2", "done-0")
    m.qmp("query-status")
    names = [e["event"] for e in m.events]
    if names.count("SUSPEND") != 2 or names.count("WAKEUP") != 2:
        raise Failed(f"events: {names}")


def powers_down(m):
    """The button arrives as a key press, and the guest turns the machine off."""
    m.run("for e in /dev/input/event*; do exec 3<$e; (dd bs=24 count=1 <&3 2>/dev/null | "
          "hexdump -v -e '12/2 \"%04x \" \"\\n\"'; poweroff -f) & done")
    mark = len(m.seen)
    m.qmp("system_powerdown")
    m.expect("0001 0074 0001", after=mark)  # EV_KEY, KEY_POWER, pressed
    code = m.wait()
    if code:
        raise Failed(f"exit code {code}")


def pc():
    """A confined process: another user, another root, a filter as libvirt asks for it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.path.join(folder, "root")
        os.mkdir(root)
        disk = pathlib.Path(folder, "disk")
        disk.write_bytes(b"the disk".ljust(1 << 20, b"."))
        port = free_port()
        confined = ["-runas", "nobody", "-chroot", root, "-sandbox",
                    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
        with Machine(["-accel", "bt", "-M", "pc", "-smp", "2", "-cpu", "EPYC", *confined,
                      "-drive", f"file={disk},format=raw,if=virtio",
                      "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:7",
                      "-smbios", "type=1,manufacturer=Maker,product=Thing,serial=S123,version=v7",
                      "-uuid", "00112233-4455-6677-8899-aabbccddeeff",
                      *with_modules(folder, "button", "evdev")], qmp=True) as m:
            m.expect("busybox")
            is_confined(m, root)
            expect_in(m, "cd /sys/class/dmi/id; cat sys_vendor product_name product_serial "
                      "product_version product_uuid; cd /", "\nMaker\nThing\nS123\nv7\n"
                      "00112233-4455-6677-8899-aabbccddeeff\n")
            expect_in(m, "cat /proc/cpuinfo", "AuthenticAMD", "cpu family\t: 23\n", "model\t\t: 1\n",
                      "AMD EPYC Processor", " sse4_2 ")
            expect_in(m, "dd if=/dev/vda of=/dev/vda bs=4k count=8 seek=8 conv=fsync", "done-0")
            expect_in(m, "insmod /button.ko && insmod /evdev.ko", "done-0")
            m.run("(nc -ll -p 7 -e cat &)")
            reaches_the_guest(m, port)
            sleeps(m)
            reaches_the_guest(m, port)
            powers_down(m)
        if disk.read_bytes()[32768:32776] != b"the disk":
            raise Failed("what the guest wrote is not in the file")


def q35():
    """The other board; other tables; a command of the host behind an address of the network."""
    with tempfile.TemporaryDirectory() as folder:
        disk = pathlib.Path(folder, "disk")
        disk.write_bytes(b"the disk".ljust(1 << 20, b"."))
        forward = "guestfwd=tcp:10.0.2.100:99-cmd:tr a-z A-Z"
        with Machine(["-accel", "bt", "-M", "q35", "-smp", "2", "-cpu", "Haswell,-avx2",
                      "-drive", f"file={disk},format=raw,if=virtio",
                      "-nic", f"user,model=virtio-net-pci-non-transitional,{forward}", "-sandbox", "on",
                      "-smbios", "type=0,vendor=Firm,version=f9", "-smbios", "type=2,product=Board",
                      "-smbios", "type=3,serial=C55", *with_modules(folder, "button", "evdev")],
                     qmp=True) as m:
            m.expect("busybox")
            expect_in(m, "cd /sys/class/dmi/id; cat bios_vendor bios_version board_name chassis_serial; cd /",
                      "\nFirm\nf9\nBoard\nC55\n")
            out = m.run("cat /proc/cpuinfo")
            for text in ("GenuineIntel", "Intel Core Processor (Haswell)", " fma ", " bmi2 "):
                if text not in out or " avx2 " in out:
                    raise Failed(f"{text}: {out}")
            expect_in(m, "insmod /button.ko && insmod /evdev.ko", "done-0")
            expect_in(m, "echo shout | nc 10.0.2.100 99", "SHOUT")
            sleeps(m)
            powers_down(m)


def many_cpus():
    """The line of people's notes: sixteen CPUs come up, the others are possible."""
    line = "-k en-us -smp 16,maxcpus=128,cores=4,threads=2,sockets=16"
    with Machine(["-accel", "bt", *line.split(), *tiny("shell", "512M")]) as m:
        m.expect("busybox")
        expect_in(m, "cat /sys/devices/system/cpu/possible", "\n0-127\n")
        expect_in(m, "cat /sys/devices/system/cpu/online", "\n0-15\n")
        expect_in(m, "cd /sys/devices/system/cpu/cpu13/topology; cat physical_package_id core_id "
                  "thread_siblings_list", "\n1\n2\n12-13\n")
        m.type("poweroff -f\n")
        m.wait()


def huge_pages():
    """-mem-path on hugetlbfs; -mem-prealloc takes all of it before the guest runs."""
    count, bytes_each = pathlib.Path("/proc/sys/vm/nr_hugepages"), 2 << 20
    before = int(count.read_text(encoding="ascii"))
    want = (128 << 20) // bytes_each
    try:
        count.write_text(str(before + want), encoding="ascii")
    except OSError as e:
        print(f"no huge pages to be had: {e}")
        sys.exit(SKIP)
    folder = tempfile.mkdtemp(prefix="lodge-huge-")
    try:
        if int(count.read_text(encoding="ascii")) < before + want or subprocess.run(
                ["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=False).returncode:
            print("this kernel gives no 64 huge pages, or no hugetlbfs")
            sys.exit(SKIP)
        with Machine(["-accel", "bt", "-mem-path", folder, "-mem-prealloc", "-S", *tiny("poweroff")], qmp=True) as m:
            m.qmp("query-status")
            smaps = pathlib.Path(f"/proc/{m.p.pid}/smaps").read_text(encoding="utf-8")
            taken = [int(n) for n in re.findall(r"^(?:Shared|Private)_Hugetlb: +(\d+) kB", smaps, re.M)]
            if sum(taken) != 128 << 10:
                raise Failed(f"{sum(taken)} KiB of huge pages")
            m.qmp("cont")
            m.expect(UP)
            m.wait()
        if os.listdir(folder):
            raise Failed("a file is left")
        subprocess.run(["umount", folder], check=True)
    finally:
        count.write_text(str(before), encoding="ascii")
        shutil.rmtree(folder, ignore_errors=True)


def uefi():
    """-kernel through OVMF, which finds it in fw_cfg; a variable lives on in the flash and is
    there in the next process."""
    name = "/sys/firmware/efi/efivars/Lodge-4c6f6467-652d-766d-8074-657374732e31"
    mount = "insmod /efivarfs.ko && mount -t efivarfs none /sys/firmware/efi/efivars"
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "vars.fd")
        shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", store)
        args = ["-accel", "bt", "-M", "q35", "-drive",
                "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
                "-drive", f"if=pflash,format=raw,unit=1,file={store}", *with_modules(folder, "efivarfs")]
        with Machine(args) as m:
            m.expect("busybox")
            expect_in(m, "dmesg | grep efi:", "efi: EFI v2")
            expect_in(m, mount, "done-0")
            expect_in(m, f"printf '\\7\\0\\0\\0kept' >/tmp/v; dd if=/tmp/v of={name} bs=8", "done-0")
            m.type("poweroff\n")
            m.wait()
        with Machine(args) as m:
            m.expect("busybox")
            expect_in(m, f"{mount}; tail -c 4 {name}", "kept")
            m.type("poweroff\n")
            m.wait()


TESTS = {
    "pc": pc,
    "q35": q35,
    "many-cpus": many_cpus,
    "huge-pages": huge_pages,
    "uefi": uefi,
}

if __name__ == "__main__":
    main(TESTS)
