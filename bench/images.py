#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures lodge-img beside Debian's qemu-img (and cp): same files, one run, on tmpfs.

Prints time (best of the runs), processor time, peak memory and size with ratios, says which of the
goals are met, and keeps all numbers as JSON under <build>/bench/.  A ratio over 1 says that lodge-img
is faster.  Name rows to narrow it: bench/images.py raw-to-qcow2 info.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
QEMU = shutil.which("qemu-img") or "qemu-img"


def be_fair():
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-15")
    except OSError:
        pass


def start(cmd):
    null = os.open("/dev/null", os.O_RDWR)
    pid = os.posix_spawn(cmd[0], cmd, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)])
    os.close(null)
    return pid


def measure(cmd):
    """Wall and processor seconds."""
    t0 = time.monotonic()
    _, status, use = os.wait4(start(cmd), 0)
    return {"wall": time.monotonic() - t0, "cpu": use.ru_utime + use.ru_stime,
            "code": os.waitstatus_to_exitcode(status)}


def peak_kib(cmd):
    """Of the program alone: ru_maxrss has its parent's, too.  Looked at every millisecond."""
    pid, peak = start(cmd), 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        try:
            for line in open(f"/proc/{pid}/status", encoding="ascii"):
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        except OSError:
            break
        time.sleep(0.001)
    os.waitpid(pid, 0)
    return peak


def system_bytes(n):
    """Programs and libraries: what disks mostly hold."""
    parts, left = [], n
    for folder in ("/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share"):
        for top, dirs, files in os.walk(folder):
            dirs.sort()
            for name in sorted(files):
                path = os.path.join(top, name)
                if left and os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as f:
                        parts.append(f.read(min(left, 8 * MIB)))
                    left -= len(parts[-1])
                if not left:
                    return b"".join(parts)
    return b"".join(parts)


def make_disk(path, mib):
    """Three quarters data, one quarter holes and zeros, in runs of 1 to 8 MiB."""
    rng, data, at = random.Random(1), system_bytes(min(mib, 256) * MIB), 0
    with open(path, "wb") as f:
        f.truncate(mib * MIB)
        while at < mib * MIB:
            n = min(rng.choice((1, 2, 4, 8)) * MIB, mib * MIB - at)
            kind = rng.randrange(8)
            if kind:
                f.seek(at)
                start = rng.randrange(0, len(data) - n)
                f.write(bytes(n) if kind == 1 else data[start:start + n])
            at += n


def make_scattered(path, clusters):
    """4 KiB here and there on a disk of 64 GiB."""
    rng = random.Random(2)
    with open(path, "wb") as f:
        f.truncate(64 << 30)
        block = bytearray(rng.randbytes(4096))
        for i, n in enumerate(rng.sample(range((64 << 30) // 4096), clusters)):
            block[:8] = i.to_bytes(8, "little")
            os.pwrite(f.fileno(), block, n * 4096)


class Bench:
    def __init__(self, args):
        self.args = args
        self.tools = {"lodge": str(args.build / "lodge-img"), "qemu": QEMU}
        self.rows = {}

    def wanted(self, name):
        return not self.args.rows or any(w in name for w in self.args.rows)

    def row(self, name, command, goal, before=None, size=None, tools=None, runs=None):
        """@command(tool): arguments; @goal: the least ratio; @before(tool): what is not measured."""
        if not self.wanted(name):
            return
        entry = {"goal": goal}
        for _ in range(runs or self.args.runs):
            for who, tool in (tools or self.tools).items():
                if before:
                    before(tool)
                m = measure(command(tool))
                best = entry.setdefault(who, m)
                for key in ("wall", "cpu"):
                    best[key] = min(best[key], m[key])
                if size and os.path.exists(size):
                    best["size"] = os.path.getsize(size)
        for who, tool in (tools or self.tools).items():
            if before:
                before(tool)
            entry[who]["rss"] = peak_kib(command(tool))
        self.rows[name] = entry
        print(f"  {name}", file=sys.stderr)

    def show(self):
        print(f"\n{'row':22} {'lodge s':>9} {'qemu s':>9} {'ratio':>7} {'goal':>5} {'cpu':>6} {'peak MiB':>13} "
              f"{'size':>6}")
        for name, e in self.rows.items():
            if "qemu" not in e:
                print(f"{name:22} {e['lodge']['wall']:9.4f}")
                continue
            l, q = e["lodge"], e["qemu"]
            e["ratio"] = q["wall"] / l["wall"]
            e["cpu_ratio"] = q["cpu"] / max(l["cpu"], 1e-6)
            size = f"{l['size'] / q['size']:6.3f}" if "size" in l and "size" in q else ""
            notes = []
            if e["goal"] and e["ratio"] < e["goal"]:
                notes.append("below the goal")
            if l["rss"] > q["rss"] > 0:
                notes.append("more memory")
            if size and l["size"] > q["size"] * 1.05:
                notes.append("larger")
            if l["code"]:
                notes.append(f"exit code {l['code']}")
            print(f"{name:22} {l['wall']:9.4f} {q['wall']:9.4f} {e['ratio']:7.2f} {e['goal'] or 0:5} "
                  f"{e['cpu_ratio']:6.2f} {l['rss'] / 1024:6.1f} {q['rss'] / 1024:6.1f} {size:>6} {', '.join(notes)}")
        cp = self.rows.get("cp")
        if cp:
            for name in ("raw-to-qcow2", "qcow2-to-raw", "raw-to-raw"):
                if name in self.rows:
                    times = self.rows[name]["lodge"]["wall"] / cp["lodge"]["wall"]
                    print(f"{name}: {times:.2f} times cp's time (goal: 1.3)")


def converts(b, disk):
    convert = lambda *a: lambda tool: [tool, "convert", *a]
    drop = lambda _: pathlib.Path("out").unlink(missing_ok=True)
    b.row("cp", lambda _: [shutil.which("cp"), disk, "out"], None, drop, tools={"lodge": "cp"})
    b.row("raw-to-raw", convert("-f", "raw", "-O", "raw", disk, "out"), 1, drop)
    b.row("raw-to-qcow2", convert("-f", "raw", "-O", "qcow2", disk, "out"), 1, drop)
    if b.wanted("qcow2-to-raw"):
        subprocess.run([QEMU, "convert", "-f", "raw", "-O", "qcow2", disk, "disk.qcow2"], check=True)
        b.row("qcow2-to-raw", convert("-f", "qcow2", "-O", "raw", "disk.qcow2", "out"), 1, drop)
        os.unlink("disk.qcow2")
    part = "part.raw"
    with open(disk, "rb") as f, open(part, "wb") as to:
        to.write(f.read(b.args.packed_mib * MIB))
    b.row("qcow2-zlib", convert("-c", "-f", "raw", "-O", "qcow2", part, "out"), 4, drop, "out")
    b.row("qcow2-zstd", convert("-c", "-o", "compression_type=zstd", "-f", "raw", "-O", "qcow2", part, "out"),
          2, drop, "out")
    b.row("qcow-zlib", convert("-c", "-f", "raw", "-O", "qcow", part, "out"), 5, drop, "out")
    b.row("vmdk-stream", convert("-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", part, "out"), 5,
          drop, "out")
    os.unlink(part)
    drop(None)


def metadata(b, _):
    if b.wanted("check"):
        make_scattered("scattered.raw", b.args.clusters)
        subprocess.run([b.tools["lodge"], "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k",
                        "scattered.raw", "scattered.qcow2"], check=True)
        os.unlink("scattered.raw")
        b.row("check", lambda t: [t, "check", "scattered.qcow2"], 5)
        os.unlink("scattered.qcow2")
    big = ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "big.qcow2", "1T"]
    b.row("create-1T-metadata", lambda t: [t, *big], 5, lambda _: pathlib.Path("big.qcow2").unlink(missing_ok=True),
          runs=2)
    if b.wanted("snapshot-1T"):
        b.row("snapshot-1T", lambda t: [t, "snapshot", "-c", "one", "big.qcow2"], 5,
              lambda t: (pathlib.Path("big.qcow2").unlink(missing_ok=True),
                         subprocess.run([b.tools["lodge"], *big], check=True)), runs=2)
    pathlib.Path("big.qcow2").unlink(missing_ok=True)


def chains(b, disk):
    if not any(b.wanted(n) for n in ("rebase", "commit", "compare")):
        return
    shutil.copyfile(disk, "base.raw")
    shutil.copyfile(disk, "other.raw")
    with open("other.raw", "r+b") as f:
        for at in range(0, b.args.mib * MIB, 16 * MIB):
            f.seek(at)
            f.write(b"\x5a" * MIB)
    b.row("compare", lambda t: [t, "compare", "-f", "raw", "-F", "raw", disk, "base.raw"], 1)

    def overlay(_):
        subprocess.run([QEMU, "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"],
                       check=True)
        subprocess.run(["qemu-io", "-c", f"write -q 4M {b.args.mib // 4}M", "top.qcow2"], check=True,
                       stdout=subprocess.DEVNULL)

    b.row("rebase", lambda t: [t, "rebase", "-b", "other.raw", "-F", "raw", "top.qcow2"], 1, overlay)
    b.row("commit", lambda t: [t, "commit", "-q", "top.qcow2"], 1, overlay)
    for name in ("base.raw", "other.raw", "top.qcow2"):
        pathlib.Path(name).unlink(missing_ok=True)


def small(b, _):
    subprocess.run([QEMU, "create", "-q", "-f", "qcow2", "small.qcow2", "1G"], check=True)
    with open("small.raw", "wb") as f:
        f.truncate(MIB)
    for fmt in ("raw", "qcow2"):
        b.row(f"info-{fmt}", lambda t, fmt=fmt: [t, "info", f"small.{fmt}"], 2, runs=60)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--runs", type=int, default=3, help="the best of so many")
    p.add_argument("--mib", type=int, default=1024, help="size of the disk that is copied")
    p.add_argument("--packed-mib", type=int, default=128, help="of that is compressed")
    p.add_argument("--clusters", type=int, default=131072, help="for the row check")
    p.add_argument("--folder", default="/dev/shm", help="a tmpfs with room for three disks")
    p.add_argument("rows", nargs="*", help="parts of names of rows; all of them by default")
    args = p.parse_args()
    be_fair()
    args.build = args.build.resolve()
    out = args.build / "bench"
    out.mkdir(parents=True, exist_ok=True)
    b = Bench(args)
    with tempfile.TemporaryDirectory(prefix="lodge-bench-", dir=args.folder) as folder:
        os.chdir(folder)
        make_disk("disk.raw", args.mib)
        for group in (small, converts, chains, metadata):
            group(b, "disk.raw")
        os.chdir("/")
    b.show()
    path = out / f"images-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps({"date": time.strftime("%Y-%m-%d %H:%M"), "mib": args.mib, "cores": os.cpu_count(),
                                "rows": b.rows}, indent=1) + "\n")
    print(f"kept as {path.relative_to(args.build.parent)}")


if __name__ == "__main__":
    main()
