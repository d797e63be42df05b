#!/usr/bin/python3
"""The KVM engine on real KVM, on hosts without it: inside an emulated machine with SVM.

The outer machine is Debian's QEMU under software emulation with `-cpu EPYC,+svm,+npt`; its
initramfs holds lodge-vm with its libraries, the kernel's kvm modules, and the inner guest.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from guest import BUILD, LODGE, PATIENCE, UP, Failed, Machine, guest_file, main

MODULES = ["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko"]
FIRMWARE = ["/usr/share/seabios/bios-256k.bin"]


def libraries(program):
    """The shared objects that a program maps, its loader included."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+\.so\S*)", out)))


def put(tree, path, where=None):
    target = tree / (where or path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def pack(tree, to):
    subprocess.run(f"find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 >'{to}'",
                   shell=True, cwd=tree, check=True)


def inner_initrd(scripts, to):
    """The tiny guest's initramfs, and behind it one with scripts for lodge.run=/NAME."""
    with tempfile.TemporaryDirectory() as tmp:
        for name, text in scripts.items():
            pathlib.Path(tmp, name).write_text(text)
        more = pathlib.Path(tmp, "..", f"more-{os.getpid()}.gz").resolve()
        pack(tmp, more)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(pathlib.Path(guest_file("tiny", "initrd")).read_bytes() + more.read_bytes())
    more.unlink()


def outer_initrd(script, to, inner_scripts=None, files=()):
    """The tiny guest's tree with everything that the script needs."""
    with tempfile.TemporaryDirectory() as tmp:
        tree = pathlib.Path(tmp) / "tree"
        shutil.copytree(BUILD / "guests/tiny/tree", tree, symlinks=True)
        put(tree, LODGE, "/lodge/lodge-vm")
        for lib in libraries(LODGE):
            put(tree, lib)
        for f in FIRMWARE:
            put(tree, f)
        modules = next((BUILD / "guests/tiny/root/lib/modules").glob("*/kernel"))
        for m in MODULES:
            put(tree, str(modules / m), "/kvm/" + os.path.basename(m))
        put(tree, guest_file("tiny", "vmlinuz"), "/inner/vmlinuz")
        inner_initrd(inner_scripts or {}, tree / "inner/initrd")
        for path, where in files:
            put(tree, path, where)
        (tree / "nested").write_text(script)
        pack(tree, to)


class Outer(Machine):
    """The outer machine, which runs @script with /dev/kvm there.  Its second serial port is
    for the inner machine's QMP, its third for the debugger."""

    def __init__(self, script, cpus=2, inner_scripts=None, files=(), append="quiet"):
        ports = tempfile.mkdtemp(prefix="lodge-kvm-")
        self.ports = ports
        self.gdb_path = os.path.join(ports, "gdb")
        initrd = pathlib.Path(ports) / "initrd"
        head = "mkdir -p /run; for m in irqbypass kvm; do insmod /kvm/$m.ko; done\n" \
               "insmod /kvm/kvm-amd.ko\nls -l /dev/kvm\ncd /inner\n"
        outer_initrd(head + script + "\necho nested-end\n", initrd, inner_scripts, files)
        super().__init__(
            ["-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-smp", str(cpus), "-m", "1536",
             "-serial", f"unix:{ports}/qmp,server=on,wait=off",
             "-serial", f"unix:{ports}/gdb,server=on,wait=off",
             "-no-reboot", "-kernel", guest_file("tiny", "vmlinuz"), "-initrd", str(initrd),
             "-append", f"console=ttyS0 panic=-1 no_timer_check {append} lodge.run=/nested"],
            program="qemu-system-x86_64")
        self.qmp_path = os.path.join(ports, "qmp")

    def __exit__(self, kind, value, trace):
        super().__exit__(kind, value, trace)
        shutil.rmtree(self.ports, ignore_errors=True)

    def end(self, seconds=PATIENCE):
        self.expect("nested-end", seconds)
        self.wait()
        return self.seen


def in_outer(script, seconds=2 * PATIENCE, **more):
    """Runs a shell script inside the outer machine; its serial output."""
    with Outer(script, **more) as m:
        return m.end(seconds)


def inner(run="poweroff", append="quiet"):
    return ("/lodge/lodge-vm -m 256 -display none -serial stdio -nodefaults -no-reboot "
            "-kernel vmlinuz -initrd initrd "
            f"-append 'console=ttyS0 panic=-1 {append} lodge.run={run}'")


def check_exit(out):
    if "inner-exit-0" not in out:
        raise Failed(out[-3000:])


# Each boots one after the other in one outer machine: what it is called, options of the engine's
# module if it has to be loaded anew, and options of lodge-vm.
BOOTS = [
    ("pc", "", "-accel kvm -M pc"),
    ("pc-smp", "", "-accel kvm -M pc -smp 2"),
    ("q35-smp", "", "-accel kvm -M q35 -smp 2"),
    ("default", "", ""),  # with real KVM under it the default engine is kvm, without a word
    ("shadow-paging", "npt=0", "-accel kvm -M pc"),
]


def boots():
    script = ""
    for name, module, options in BOOTS:
        if module:
            script += f"rmmod kvm_amd; insmod /kvm/kvm-amd.ko {module}\n"
        script += f"echo run-{name}; {inner(append='loglevel=7')} {options} </dev/null 2>/tmp/err; echo inner-exit-$?; cat /tmp/err\n"
    out = in_outer(script, 1000)
    for name, module, _ in BOOTS:
        part = re.search(rf"run-{name}\n.*?(?=run-|nested-end)", out, re.S).group()
        signs = [text in part for text in (UP, "Hypervisor detected: KVM", "inner-exit-0")]
        if not all(signs) or "lodge-vm:" in part:
            raise Failed(f"{name}:\n{part[-3000:]}")
        if module and "rmmod:" in out:
            raise Failed(out[-3000:])


# A disk read and written, the network, both CPUs: every interrupt and kick has its way.
IO_GUEST = """
md5sum /dev/vda
head -c 2097152 /dev/urandom >/tmp/r
cat /tmp/r >/dev/vda; sync; echo 3 >/proc/sys/vm/drop_caches
[ "$(head -c 2097152 /dev/vda | md5sum)" = "$(md5sum </tmp/r)" ] && echo disk-kept
ifconfig eth0 10.0.2.15 && ping -c 3 -W 10 10.0.2.2 && echo gateway-answers
grep -c ^processor /proc/cpuinfo
grep virtio /proc/interrupts
sleep 1
"""
IO_OUTER = """
mount -t debugfs debugfs /sys/kernel/debug
head -c 3145728 /dev/urandom >/tmp/disk
md5sum /tmp/disk
run() {{
    {command} -smp 2 "$@" -drive file=/tmp/disk,format=raw,if=none,id=d -netdev user,id=n </dev/null &
    while [ -d /proc/$! ]; do
        cat /sys/kernel/debug/kvm/$!-*/mmio_exits >/tmp/now 2>/dev/null && cp /tmp/now /tmp/exits
        sleep 0.3
    done
    wait $!
    echo "inner-exit-$? with $(cat /tmp/exits) MMIO exits"
}}
"""


def io(machine, runs):
    """Each run is a pair of what it has to say of kicks, and options."""
    script = IO_OUTER.format(command=inner("/io") + f" -accel kvm -M {machine}")
    for ioeventfd in runs:
        script += (f"run -device virtio-blk-pci,drive=d,ioeventfd={ioeventfd} "
                   f"-device virtio-net-pci,netdev=n,romfile=,ioeventfd={ioeventfd}\n")
    out = in_outer(script, inner_scripts={"io": IO_GUEST})
    for what in ("disk-kept", "gateway-answers", "inner-exit-0"):
        if out.count(what) != len(runs):
            raise Failed(f"{what} is there {out.count(what)} times of {len(runs)}\n{out[-5000:]}")
    sums = re.findall(r"([0-9a-f]{32})  (\S+)", out)
    if sums[0][0] != sums[1][0]:
        raise Failed(f"the disk reads wrong: {sums}")
    return [int(n) for n in re.findall(r"with (\d+) MMIO exits", out)]


def doorbells():
    """A kick through an eventfd does not leave the kernel: far fewer exits than without."""
    with_them, without = io("q35", ("on", "off"))
    print(f"MMIO exits: {with_them} with ioeventfd, {without} without")
    if with_them > without * 0.9:
        raise Failed(f"{with_them} MMIO exits with ioeventfd, {without} without")


# Memory that is written and checked all the time, and a clock.
LOAD_GUEST = """
head -c 20000000 /dev/urandom >/tmp/data; sum=$(md5sum </tmp/data)
while :; do cat /tmp/data >/tmp/copy; [ "$(md5sum </tmp/copy)" = "$sum" ] || echo memory-broken; done &
n=0; while [ $n -lt 25 ]; do usleep 250000; n=$((n+1)); echo tick-$n; done
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
echo 3 >/proc/sys/kernel/printk; dmesg | grep -iE "lockup|stall|BUG|clocksource.*unstable"
echo load-done
"""


def migrate(m, uri):
    m.qmp("migrate", uri=uri)
    m.until(lambda: m.qmp("query-migrate").get("status") in ("completed", "failed"), "no end of the migration")
    status = m.qmp("query-migrate")["status"]
    if status != "completed":
        raise Failed(f"migration: {status}")


RESTORED = 150  # seconds; it takes ten, and who waits for longer has been seen to wait in vain


def suspend(options):
    """State to a file under load, resumed in another process; the guest sees nothing of it."""
    command = inner("/load") + f" -accel kvm -smp 2 {options} </dev/null"
    script = (f"{command} -qmp /dev/ttyS1; echo first-exit-$?\n"
              f"{command} -incoming file:/tmp/state; echo inner-exit-$?\n")
    with Outer(script, inner_scripts={"load": LOAD_GUEST}) as m:
        m.connect()
        m.expect("tick-4")
        migrate(m, "file:/tmp/state")
        m.qmp("quit")
        at = m.expect("first-exit-0")
        m.expect("load-done", RESTORED, after=at)
        out = m.end()
    check_exit(out)
    for wrong in ("memory-broken", "lockup", "stall", "BUG", "unstable"):
        if wrong in out:
            raise Failed(f"{wrong}\n{out[-5000:]}")
    ticks = [int(n) for n in re.findall(r"tick-(\d+)", out)]
    if ticks != list(range(1, 26)):
        raise Failed(f"ticks: {ticks}\n{out[out.find('tick-1'):]}")


def nested_state():
    """A hypervisor inside the inner machine, with a guest that counts: reset and suspended
    while that runs."""
    command = ("/lodge/lodge-vm -m 64 -nodefaults -display none -accel kvm -cpu host "
               "-kernel /svm.elf -debugcon stdio")
    script = (f"{command} -qmp /dev/ttyS1 </dev/null; echo first-exit-$?\n"
              f"{command} -no-reboot -incoming file:/tmp/state </dev/null; echo inner-exit-$?\n")
    elf = str(BUILD / "tests/guest/svm.elf")
    with Outer(script, files=[(elf, "/svm.elf")]) as m:
        m.connect()
        at = m.expect(r"svm-begin\n(\.\n){5}")
        m.qmp("system_reset")
        m.expect(r"svm-begin\n(\.\n){10}", after=at)
        migrate(m, "file:/tmp/state")
        m.qmp("quit")
        m.expect("first-exit-0")
        out = m.end(RESTORED)
    check_exit(out)
    rest = out.split("first-exit-0")[1]
    if "svm-ok" not in rest or "svm:" in out:
        raise Failed(out[-3000:])


# Says what it has, and switches on the processors that come.
HOT_GUEST = """
while :; do
    for c in /sys/devices/system/cpu/cpu[1-9]*/online; do echo 1 >$c; done 2>/dev/null
    echo "has-$(grep -c ^processor /proc/cpuinfo)-cpus $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
    usleep 300000
done
"""


def kib(m, after):
    """What the inner guest says it has from now on."""
    at = m.expect(r"has-\d-cpus +\d+ kB", after=after)
    return int(re.findall(r"cpus +(\d+) kB", m.seen[after:at])[-1])


def hotplug():
    """A processor and memory come, a processor goes and comes again."""
    script = (f"{inner('/hot', 'quiet memhp_default_state=online_movable')} -accel kvm "
              "-m 256,slots=2,maxmem=1G -smp 1,maxcpus=2 -qmp /dev/ttyS1 </dev/null; echo inner-exit-$?")
    with Outer(script, inner_scripts={"hot": HOT_GUEST}) as m:
        m.connect()
        m.expect("has-1-cpus")
        for turn in (1, 2):
            place = next(c for c in m.qmp("query-hotpluggable-cpus") if "qom-path" not in c)
            m.qmp("device_add", driver=place["type"], id="two", **place["props"])
            at = len(m.seen)
            m.expect("has-2-cpus", after=at)
            if turn == 1:
                m.qmp("device_del", id="two")
                m.until(lambda: len(m.qmp("query-cpus-fast")) == 1, "the processor stays")
                at = len(m.seen)
                m.expect("has-1-cpus", after=at)
        before = kib(m, len(m.seen))
        m.qmp("object-add", qom_type="memory-backend-ram", id="more", size=128 << 20)
        m.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
        m.until(lambda: kib(m, len(m.seen)) > before + (100 << 10), "the guest has no more memory")
        m.qmp("quit")
        check_exit(m.end())


BUSY_GUEST = """
while :; do :; done &
while :; do :; done &
while :; do usleep 300000; echo alive; done
"""


def debugger():
    """gdb at the inner machine: one CPU steps while the other stands still; then all go on.
    (Breakpoints are not tried here: QEMU's SVM keeps DR7 and INT3 from the hypervisor.)"""
    script = (f"{inner('/busy')} -accel kvm -smp 2 -qmp /dev/ttyS1 -gdb /dev/ttyS2 </dev/null; "
              "echo inner-exit-$?")
    with Outer(script, inner_scripts={"busy": BUSY_GUEST}) as m:
        m.connect()
        m.expect("alive")
        m.qmp("stop")
        args = ["gdb", "-nx", "-q", "-batch"]
        other = ["thread 2", "echo other:", "p/x $pc", "p/x $rax", "p/x $rcx"]
        for c in ["set pagination off", "set confirm off", f"target remote {m.gdb_path}", *other,
                  "thread 1", "set scheduler-locking on", *["stepi", "p/x $pc"] * 4, *other, "detach"]:
            args += ["-ex", c]
        p = subprocess.run(args, capture_output=True, text=True, timeout=PATIENCE, check=False)
        out = p.stdout + p.stderr
        at = len(m.seen)
        m.expect("alive", after=at)
        m.qmp("quit")
        check_exit(m.end())
    values = re.findall(r"\$\d+ = (0x[0-9a-f]+)", out)
    if len(values) != 10 or values[:3] != values[7:] or len(set(values[3:7])) < 2:
        raise Failed(f"{values}\n{out}")


TESTS = {
    "kvm-boots": boots,
    "kvm-ioeventfd": doorbells,
    "kvm-suspend": lambda: suspend("-M pc"),
    "kvm-suspend-split": lambda: suspend("-M q35,kernel-irqchip=split"),
    "kvm-gdb": debugger,
    "kvm-nested": nested_state,
    "kvm-hotplug": hotplug,
    "kvm-split": lambda: io("pc,kernel-irqchip=split", ("on",)),
}

if __name__ == "__main__":
    main(TESTS)
