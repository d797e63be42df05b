#!/usr/bin/python3
"""Devices that come and go while Linux runs: ACPI hot-plug on pc, a root port's own on q35."""
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
            m.expect("busybox")
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


TESTS = {
    "hotplug-pc": lambda: hotplug("pc", {}, [], 2),
    "hotplug-q35": lambda: hotplug("q35", {"bus": "port"}, ["-device", "pcie-root-port,id=port"], 1),
}

if __name__ == "__main__":
    main(TESTS)
