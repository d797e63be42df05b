#!/usr/bin/python3
"""Devices that come and go while Linux runs: ACPI hot-plug, and a root port's own where that is off."""
import os
import time

from guest import PATIENCE, Failed, Machine, main, tiny


def disk(m, name):
    """Does the guest have the disk?"""
    return f"{name}-is-there" in m.run(f"[ -b /dev/{name} ] && echo {name}-is-th''ere")


def wait_disk(m, name, there, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while disk(m, name) != there:
        if time.monotonic() > end:
            raise Failed(f"{name} is {'not ' if there else ''}there after {seconds} s")
        time.sleep(0.2)


def wait_event(m, name, device, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while True:
        for e in getattr(m, "events", []):
            if e["event"] == name and e.get("data", {}).get("device") == device:
                m.events.remove(e)
                return
        if time.monotonic() > end:
            raise Failed(f"no {name} of {device} in {seconds} s")
        m.qmp("query-status")
        time.sleep(0.1)


def refused(m, command, text, **arguments):
    try:
        m.qmp(command, **arguments)
    except Failed as e:
        if text in str(e):
            return
        raise
    raise Failed(f"{command} {arguments} was not refused")


def hotplug(machine, bus, extra, turns):
    folder = os.environ.get("TMPDIR", "/tmp")
    image = os.path.join(folder, f"lodge-hot-{os.getpid()}.raw")
    with open(image, "wb") as f:
        f.write(b"the hot disk".ljust(1 << 20, b"."))
    args = ["-M", machine, "-accel", "bt", *extra, "-drive", f"if=none,id=d,file={image},format=raw",
            *tiny("shell", "256M")]
    try:
        with Machine(args, qmp=True) as m:
            m.qmp("device_add", driver="virtio-blk-pci", id="hot", drive="d", **bus)
            m.expect("busybox")
            wait_disk(m, "vda", True)  # it came before there was anybody to tell
            m.qmp("device_del", id="hot")
            wait_event(m, "DEVICE_DELETED", "hot")
            wait_disk(m, "vda", False)
            if not turns:
                return
            refused(m, "device_add", "does not support hotplugging", driver="isa-serial")
            refused(m, "device_del", "not found", id="nobody")
            for turn in range(turns):
                m.qmp("device_add", driver="virtio-blk-pci", id="hot", drive="d", **bus)
                wait_disk(m, "vda", True)
                if "the hot disk" not in m.run("head -c 12 /dev/vda"):
                    raise Failed(f"turn {turn}: the disk reads wrong\n{m.seen[-2000:]}")
                refused(m, "device_add", "Duplicate", driver="virtio-rng-pci", id="hot", **bus)
                m.qmp("device_del", id="hot")
                wait_event(m, "DEVICE_DELETED", "hot")
                wait_disk(m, "vda", False)
            # Asked to go, and the machine starts anew: it is gone.
            m.qmp("device_add", driver="virtio-blk-pci", id="hot", drive="d", **bus)
            wait_disk(m, "vda", True)
            at = len(m.seen)
            m.qmp("system_reset")
            m.expect("busybox", after=at)
            wait_disk(m, "vda", True)
            m.qmp("device_del", id="hot")
            wait_event(m, "DEVICE_DELETED", "hot")
            m.type("poweroff -f\n")
            m.wait()
    finally:
        os.unlink(image)


# What a kernel says at some places of its way; all at once is not what a user does.
MOMENTS = ("Linux version", "ACPI: Core revision", "GPEs in block", "PCI host bridge to bus", "Slot .0.",
           "PCI: Using ACPI", "TCP: Hash", "Serial: 8250", "Segment Routing")


def booting(bridge):
    """Cards that come while Linux boots are there in the end, and go at once."""
    ports = [word for i in range(len(MOMENTS)) for word in ("-device", f"{bridge},id=port{i}")]
    args = ["-M", "q35", "-accel", "bt", *ports, *tiny("shell", "256M", append="loglevel=7")]
    with Machine(args, qmp=True) as m:
        for i, moment in enumerate(MOMENTS):
            m.expect(moment)
            m.qmp("device_add", driver="virtio-rng-pci", id=f"rng{i}", bus=f"port{i}")
        m.expect("busybox")
        m.until(lambda: f"\n{len(MOMENTS)}\n" in m.run("ls /sys/bus/virtio/devices | wc -l"),
                f"not all of {len(MOMENTS)} cards are there")
        if "OS now controls [PCIeCapability]" not in m.run("dmesg"):
            raise Failed("Linux does not leave hot-plug to ACPI")
        for i in range(len(MOMENTS)):
            m.qmp("device_del", id=f"rng{i}")
        for i in range(len(MOMENTS)):
            wait_event(m, "DEVICE_DELETED", f"rng{i}")
        m.until(lambda: "\n0\n" in m.run("ls /sys/bus/virtio/devices | wc -l"), "cards stay")
        m.type("poweroff -f\n")
        m.wait()


def switched_off():
    """Where ACPI does not do it, those who have no other way say so."""
    off = ["-global", "PIIX4_PM.acpi-root-pci-hotplug=off"]
    with Machine(["-M", "pc", "-accel", "bt", "-S", *off, "-device", "pci-bridge,id=b,chassis_nr=1"], qmp=True) as m:
        refused(m, "device_add", "Bus 'pci.0' does not support", driver="virtio-rng-pci")
        m.qmp("device_add", driver="virtio-rng-pci", bus="b")
    for board, model in (("pc", "PIIX4_PM"), ("q35", "ICH9-LPC")):
        off = ["-global", f"{model}.acpi-pci-hotplug-with-bridge-support=off"]
        with Machine(["-M", board, "-accel", "bt", "-S", *off, "-device", "pci-bridge,id=b,chassis_nr=1"], qmp=True) as m:
            refused(m, "device_add", "Bus 'b' does not support", driver="virtio-rng-pci", bus="b")
            if board == "pc":
                m.qmp("device_add", driver="virtio-rng-pci")
            else:
                refused(m, "device_add", "Bus 'pcie.0' does not support", driver="virtio-rng-pci")


CPUS = "/sys/devices/system/cpu"


def online(m, cpus, switch_on=True):
    """Waits until these CPUs of the guest work, after switching on those that came."""
    command = f"cat {CPUS}/online"
    if switch_on:
        command = f"for c in {CPUS}/cpu[0-9]*/online; do echo 1 > $c; done 2> /dev/null; {command}"
    end = time.monotonic() + PATIENCE
    while f"\n{cpus}\n" not in (text := m.run(command)):
        if time.monotonic() > end:
            raise Failed(f"CPUs online are not {cpus}: {text}")
        time.sleep(0.2)


def cpu_indexes(m):
    return [c["cpu-index"] for c in m.qmp("query-cpus-fast")]


def plug_cpu(m, index, name):
    """As a manager does it: what the place is called comes from the machine."""
    rows = m.qmp("query-hotpluggable-cpus")
    place = rows[len(rows) - 1 - index]
    if "qom-path" in place:
        raise Failed(f"place {index} is taken: {place}")
    m.qmp("device_add", driver=place["type"], id=name, **place["props"])


def cpus(machine, accel, uefi=False):
    """A CPU in the middle and one at the end come and go; a reset and another machine keep them."""
    args = ["-M", machine, "-accel", accel, "-smp", "1,maxcpus=4,sockets=2,cores=1,threads=2",
            *tiny("shell", "256M")]
    folder = os.environ.get("TMPDIR", "/tmp")
    state = os.path.join(folder, f"lodge-cpus-{os.getpid()}.state")
    if uefi:  # which is told anew how many there are
        flash = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_"
        args += ["-drive", flash + "CODE_4M.fd", "-drive", flash + "VARS_4M.fd"]
    with Machine(args, qmp=True) as m:
        m.expect("busybox")
        online(m, "0", False)
        kind = m.qmp("query-hotpluggable-cpus")[0]["type"]
        refused(m, "device_add", "core-id: 7 must be in range 0:0", driver=kind, socket_id=0,
                core_id=7, thread_id=1)
        refused(m, "device_add", "socket-id is not set", driver=kind, thread_id=1)
        refused(m, "device_add", "exists", driver=kind, socket_id=0, core_id=0, thread_id=0)
        refused(m, "device_add", "expected cpu type", driver="Z80-x86_64-cpu", socket_id=0)
        plug_cpu(m, 2, "two")
        online(m, "0-1")
        plug_cpu(m, 1, "one")
        online(m, "0-2")
        if cpu_indexes(m) != [0, 1, 2]:
            raise Failed(f"CPUs are {cpu_indexes(m)}")
        said = {s.get("device"): s for s in m.qmp("query-acpi-ospm-status")}
        if said["two"]["source"] != 1 or said["two"]["status"] != 0:
            raise Failed(f"the guest said of it: {said}")
        if "done-0" not in m.run("taskset -p 4 $$ && dmesg | grep -q nosuch; taskset -p 1 $$"):
            raise Failed("no program runs on the CPU")
        m.qmp("device_del", id="two")
        wait_event(m, "DEVICE_DELETED", "two")
        refused(m, "device_del", "not found", id="two")
        if cpu_indexes(m) != [0, 1]:
            raise Failed(f"CPUs are {cpu_indexes(m)}")
        plug_cpu(m, 2, "two")
        online(m, "0-2")
        at = len(m.seen)
        m.qmp("system_reset")
        m.expect("busybox", after=at)
        online(m, "0-2", False)
        m.qmp("device_del", id="one")
        wait_event(m, "DEVICE_DELETED", "one")
        m.qmp("migrate", uri=f"exec:cat > {state}")
        m.until(lambda: m.qmp("query-migrate")["status"] in ("completed", "failed"), "migration")
    more = ["-device", f"{kind},id=two,socket-id=1,core-id=0,thread-id=0"]
    try:
        with Machine([*args, "-incoming", f"exec:cat {state}"], qmp=True) as m:
            m.wait()
            if "with 2 CPUs" not in m.stderr():
                raise Failed(f"a machine with less CPUs says: {m.stderr()}")
        with Machine([*args, *more, "-incoming", f"exec:cat {state}"], qmp=True) as m:
            m.until(lambda: m.qmp("query-status")["status"] == "running", "it does not go on")
            if cpu_indexes(m) != [0, 2]:
                raise Failed(f"CPUs are {cpu_indexes(m)}")
            m.type("\n")
            m.run("true")
            m.qmp("device_del", id="two")
            wait_event(m, "DEVICE_DELETED", "two")
            online(m, "0", False)
            m.type("poweroff -f\n")
            m.wait()
    finally:
        os.unlink(state)


def total(m):
    """KiB that the guest's Linux has."""
    return int(m.run("echo ki''b: $(sed -n 's/MemTotal: *//p' /proc/meminfo)").split("kib: ")[1].split()[0])


def wait_total(m, least, most):
    end = time.monotonic() + PATIENCE
    while not least <= (has := total(m)) <= most:
        if time.monotonic() > end:
            raise Failed(f"the guest has {has} KiB, not {least} to {most}")
        time.sleep(0.2)


def plug_memory(m, name, kind="memory-backend-ram", **where):
    m.qmp("object-add", qom_type=kind, id=f"mem-{name}", size=128 << 20)
    m.qmp("device_add", driver="pc-dimm", id=name, memdev=f"mem-{name}", **where)


MORE_KIB = 128 << 10


def fill(size):
    return f"mkdir -p /m; mount -t tmpfs -o size=400M t /m; yes lodge | head -c {size} > /m/x"


strange = "tr -d 'lodge\\n' < /m/x"  # nothing, unless memory has changed


def memory(machine, accel):
    """Modules come, are used and go; one that is needed stays, over a reset and on another machine."""
    boot = tiny("shell", append="memhp_default_state=online_movable")[2:]
    args = ["-M", machine, "-accel", accel, "-m", "256M,slots=4,maxmem=2G", *boot]
    folder = os.environ.get("TMPDIR", "/tmp")
    state = os.path.join(folder, f"lodge-memory-{os.getpid()}.state")
    with Machine(args, qmp=True) as m:
        m.expect("busybox")
        base = total(m)
        refused(m, "device_add", "no such memory backend", driver="pc-dimm", memdev="nobody")
        plug_memory(m, "a")
        refused(m, "object-del", "in use", id="mem-a")
        refused(m, "device_add", "busy", driver="pc-dimm", memdev="mem-a")
        m.qmp("object-add", qom_type="memory-backend-ram", id="odd", size=3 << 20)
        refused(m, "device_add", "multiple of 0x200000", driver="pc-dimm", memdev="odd")
        m.qmp("object-add", qom_type="memory-backend-ram", id="huge", size=1 << 31)
        refused(m, "device_add", "not enough space", driver="pc-dimm", memdev="huge")
        m.qmp("object-add", qom_type="memory-backend-ram", id="good", size=128 << 20)
        refused(m, "device_add", "slot 0 is busy", driver="pc-dimm", memdev="good", slot=0)
        refused(m, "device_add", "valid range is [0-3]", driver="pc-dimm", memdev="good", slot=4)
        refused(m, "device_add", "conflicts", driver="pc-dimm", memdev="good", addr=0x100000000)
        refused(m, "device_add", "outside", driver="pc-dimm", memdev="good", addr=0x40000000)
        refused(m, "device_add", "number of numa nodes", driver="pc-dimm", memdev="good", node=1)
        plug_memory(m, "b", "memory-backend-memfd", slot=2)
        wait_total(m, base + 2 * MORE_KIB - 8000, base + 2 * MORE_KIB)
        sizes = m.qmp("query-memory-size-summary")
        if sizes != {"base-memory": 256 << 20, "plugged-memory": 256 << 20}:
            raise Failed(f"query-memory-size-summary: {sizes}")
        found = [(d["data"]["id"], d["data"]["addr"], d["data"]["slot"])
                 for d in m.qmp("query-memory-devices")]
        if found != [("a", 1 << 32, 0), ("b", (1 << 32) + (128 << 20), 2)]:
            raise Failed(f"query-memory-devices: {found}")
        # More than the machine began with, so the modules hold some of it.
        m.run(fill("220M"))
        if "done-1" not in (text := m.run(f"{strange} | grep -q .")):
            raise Failed(f"what was written reads otherwise: {text}")
        m.run("rm /m/x")
        m.qmp("device_del", id="a")
        wait_event(m, "DEVICE_DELETED", "a")
        wait_total(m, base, base + MORE_KIB)
        m.qmp("object-del", id="mem-a")
        # What the kernel itself lives in cannot go.
        m.run("echo offline > /sys/devices/system/memory/memory33/state;"
              "echo online_kernel > /sys/devices/system/memory/memory33/state;"
              "i=0; while [ $i -lt 3000 ]; do echo > /m/$i; i=$((i+1)); done")
        m.qmp("device_del", id="b")
        wait_event(m, "MEM_UNPLUG_ERROR", "b")
        at = len(m.seen)
        m.qmp("system_reset")
        m.expect("busybox", after=at)
        wait_total(m, base + MORE_KIB - 8000, base + MORE_KIB)
        m.run(fill("150M"))
        m.qmp("migrate", uri=f"exec:cat > {state}")
        m.until(lambda: m.qmp("query-migrate")["status"] in ("completed", "failed"), "migration")
    more = ["-object", "memory-backend-ram,id=mem-b,size=128M"]
    dimm = "pc-dimm,id=b,memdev=mem-b,slot=2,addr="
    try:
        for device, text in (([], 'this machine has 0'),
                             ([*more, "-device", dimm + "0x100000000"], "the state has it at 0x108000000")):
            with Machine([*args, *device, "-incoming", f"exec:cat {state}"], qmp=True) as m:
                m.wait()
                if text not in m.stderr():
                    raise Failed(f"a machine with other memory says: {m.stderr()}")
        with Machine([*args, *more, "-device", dimm + "0x108000000",
                      "-incoming", f"exec:cat {state}"], qmp=True) as m:
            m.until(lambda: m.qmp("query-status")["status"] == "running", "it does not go on")
            m.type("\n")
            if "done-1" not in m.run(f"{strange} | grep -q ."):
                raise Failed("memory has changed on the way")
            m.run("rm /m/x")
            m.qmp("device_del", id="b")
            wait_event(m, "DEVICE_DELETED", "b")
            m.type("poweroff -f\n")
            m.wait()
    finally:
        os.unlink(state)


TESTS = {
    "hotplug-memory-pc": lambda: memory("pc", "bt"),
    "hotplug-memory-q35": lambda: memory("q35", "bt"),
    "hotplug-cpu-pc": lambda: cpus("pc", "bt"),
    "hotplug-cpu-q35": lambda: cpus("q35", "bt", uefi=True),
    "hotplug-pc": lambda: hotplug("pc", {}, [], 2),
    "hotplug-bridge": lambda: hotplug("pc", {"bus": "behind"}, [
        "-device", "pci-bridge,id=front,chassis_nr=1,addr=6",
        "-device", "pci-bridge,id=behind,bus=front,chassis_nr=2,addr=3"], 2),
    "hotplug-q35": lambda: hotplug("q35", {"bus": "port"}, ["-device", "pcie-root-port,id=port"], 2),
    "hotplug-q35-native": lambda: hotplug("q35", {"bus": "port"}, [
        "-device", "pcie-root-port,id=port", "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"], 0),
    "hotplug-booting": lambda: booting("pcie-root-port"),
    "hotplug-off": switched_off,
}

if __name__ == "__main__":
    main(TESTS)
