#!/usr/bin/python3
"""Measures lodge-vm beside Debian's QEMU under software emulation, and the host itself.

Same kernel, initramfs and guest programs, one run; prints a table with ratios and keeps all
numbers as JSON under <build>/bench/.  Ratios over 1 say that Lodge is faster.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
UP_LINE = b"lodge-guest: user space is up"
ROW = re.compile(rb"^(\w+) +([0-9.eE+-]+) +(ns|us|s|\S+/s)\s*$")
GROUPS = {
    "integer": "int_alu int_mix branchy branch_pred icall callret div64",
    "fp-simd": "nbody sse2_mandel sse2_int x87_mul x87_sin aesni avx2_fma",
    "memory": "memcpy_64 memcpy_16k memcpy_16m rep_movsb_4k rep_stosq_4k load64 store64 "
              "chase_16k chase_1m chase_32m tlb_stride",
    "jit": "smc_patch jit_cold jit_batch",
    "kernel": "null_syscall vdso_clock write_null stat open_close file_read_64k anon_fault "
              "file_fault cow_fault mprotect sig_self sig_fault",
    "processes": "fork_wait fork_exec thread_make ctxsw_pipe unix_pp tcp_pp futex_pp pipe_bw tcp_bw",
}


def machines(args):
    """Command lines by name, without kernel and memory."""
    common = ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    return {
        "lodge": [str(args.build / "lodge-vm"), "-M", "pc", "-accel", "bt", *common],
        "qemu": ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "max", *common],
    }


def be_fair():
    """The scheduler groups by session; a better group keeps neighbours from deciding."""
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-15")
    except OSError:
        pass


def boot_args(args, mib, append, cpus=1, initrd=None):
    return ["-m", str(mib), "-smp", str(cpus), "-kernel", str(args.tiny / "vmlinuz"),
            "-initrd", str(initrd or args.initrd),
            "-append", f"console=ttyS0 panic=-1 quiet {append}"]


def run_guest(cmd, seconds):
    """The lines a machine prints until it ends."""
    p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=seconds, check=False)
    return p.stdout.replace(b"\r", b"").splitlines()


def rows_of(lines):
    found = {}
    for line in lines:
        m = ROW.match(line)
        if m:
            found[m[1].decode()] = (float(m[2]), m[3].decode())
    return found


def make_initrd(base, files, initrd):
    """The initramfs @base with /bench behind it: the kernel takes archives in a row."""
    with tempfile.TemporaryDirectory() as tmp:
        tree = pathlib.Path(tmp) / "bench"
        tree.mkdir()
        for name, content in files.items():
            (tree / name).write_bytes(content)
            (tree / name).chmod(0o755)
        packed = subprocess.run("find bench | cpio --quiet -o -H newc -R 0:0 | gzip -1", shell=True,
                                cwd=tmp, stdout=subprocess.PIPE, check=True).stdout
    # Each archive starts on 4 bytes.
    base = base.read_bytes()
    initrd.write_bytes(base + b"\0" * (-len(base) % 4) + packed)


RUN_GUESTBENCH = b"""opts=
for w in $(cat /proc/cmdline); do
    case $w in bench=*) opts=$(echo ${w#bench=} | tr , ' ') ;; esac
done
ifconfig lo up
/bench/guestbench $opts
"""


def bench_rows(args, result):
    what = ["-s", str(args.seconds), "-r", str(args.reps), *args.rows]
    runs = {"native": [], **{name: [] for name in args.machines}}
    for i in range(args.runs):
        print(f"guest programs, run {i + 1} of {args.runs}", file=sys.stderr)
        runs["native"].append(rows_of(run_guest([str(args.guestbench), *what], 600)))
        for name in args.machines:
            cmd = machines(args)[name] + boot_args(
                args, 512, f"lodge.run=/bench/run bench={','.join(what)}", args.cpus)
            runs[name].append(rows_of(run_guest(cmd, 1200)))
    result["rows"] = medians(runs)


def native_apps(args, names):
    """The same programs of the same packages, in a chroot."""
    tree = args.apps / "tree"
    bench = tree / "bench"
    bench.mkdir(exist_ok=True)
    for name, content in app_files(args).items():
        (bench / name).write_bytes(content)
        (bench / name).chmod(0o755)
    # Like the guest's: /tmp in memory, /dev and /proc there.
    script = (f"mount -t tmpfs tmp {tree}/tmp && mount --rbind /dev {tree}/dev && "
              f"mount -t proc proc {tree}/proc && exec chroot {tree} /bench/apps.sh "
              f"/bench/guestbench {' '.join(names)}")
    who = [] if os.getuid() == 0 else ["--map-auto", "--map-root-user"]
    return rows_of(run_guest(["unshare", *who, "--mount", "--pid", "--fork", "sh", "-c", script],
                             600))


def app_files(args):
    return {"apps.sh": (HERE / "apps.sh").read_bytes(),
            "run": b"#!/bin/sh\nexec /bench/apps.sh /bench/guestbench \"$@\"\n",
            "guestbench": args.guestbench.read_bytes()}


def bench_apps(args, result):
    subprocess.run([HERE.parent / "tools/guest", "apps", args.apps], check=True)
    initrd = args.build / "bench" / "apps.initrd"
    make_initrd(args.apps / "initrd", app_files(args), initrd)
    runs = {"native": [], **{name: [] for name in args.machines}}
    for i in range(args.runs):
        print(f"applications, run {i + 1} of {args.runs}", file=sys.stderr)
        runs["native"].append(native_apps(args, args.apps_rows))
        for name in args.machines:
            append = f"lodge.run=/bench/run bench={','.join(args.apps_rows)}"
            cmd = machines(args)[name] + boot_args(args, 1024, append, args.cpus, initrd)
            runs[name].append(rows_of(run_guest(cmd, 1800)))
    result["apps"] = medians(runs)


def medians(runs):
    found = {}
    for row in runs["native"][0]:
        entry = {"unit": runs["native"][0][row][1]}
        for who, all_runs in runs.items():
            values = [r[row][0] for r in all_runs if row in r]
            if values:
                entry[who] = statistics.median(values)
        found[row] = entry
    return found


def time_of(entry, who):
    """Time an operation takes, in whatever unit: rates turned round."""
    v = entry.get(who)
    return None if not v else (1 / v if entry["unit"].endswith("/s") else v)


def bench_boot(args, result):
    times = {name: [] for name in args.machines}
    for _ in range(args.runs):
        for name in args.machines:
            cmd = machines(args)[name] + boot_args(args, 128, "lodge.run=poweroff")
            t0 = time.monotonic()
            with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL) as p:
                for line in p.stdout:
                    if UP_LINE in line:
                        times[name].append(time.monotonic() - t0)
                p.wait(60)
    result["boot_s"] = {n: statistics.median(t) for n, t in times.items() if t}


def pss_beside_ram(pid, mib):
    """KiB of proportional memory less the mapping that is the guest's RAM."""
    total, ram, size = 0, 0, 0
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word = line.split()
        if word[0] == "Size:":
            size = int(word[1])
        elif word[0] == "Pss:":
            total += int(word[1])
            if size == mib * 1024:
                ram += int(word[1])
    return total - ram


def bench_memory(args, result):
    result["memory_kib"] = {}
    for name in args.machines:
        cmd = machines(args)[name] + boot_args(args, 128, "lodge.run=halt")
        with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as p:
            for line in p.stdout:
                if UP_LINE in line:
                    break
            time.sleep(1)
            if p.poll() is None:
                result["memory_kib"][name] = pss_beside_ram(p.pid, 128)
                t0, c0 = time.monotonic(), cpu_seconds(p.pid)
                time.sleep(3)
                idle = (cpu_seconds(p.pid) - c0) / (time.monotonic() - t0)
                result.setdefault("idle_share", {})[name] = idle
            p.kill()


def cpu_seconds(pid):
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def show(result):
    print(f"{'row':16} {'native':>10} {'lodge':>10} {'qemu':>10} {'unit':>8} "
          f"{'x native':>9} {'over TCG':>9}")
    ratios = {}
    groups = {**GROUPS, "applications": " ".join(result.get("apps", {}))}
    for row, entry in [*result.get("rows", {}).items(), *result.get("apps", {}).items()]:
        native, ours, theirs = (time_of(entry, w) for w in ("native", "lodge", "qemu"))
        slow = ours / native if ours and native else None
        gain = theirs / ours if ours and theirs else None
        entry["slowdown"], entry["over_tcg"] = slow, gain
        cell = [f"{entry.get(w, float('nan')):10.4g}" for w in ("native", "lodge", "qemu")]
        print(f"{row:16} {' '.join(cell)} {entry['unit']:>8} "
              f"{slow if slow else float('nan'):9.2f} {gain if gain else float('nan'):9.2f}"
              f"{'  < 0.95' if gain and gain < 0.95 else ''}")
        for group, rows in groups.items():
            if row in rows.split() and slow and gain:
                ratios.setdefault(group, []).append((slow, gain))
    result["groups"] = {}
    for group, pairs in ratios.items():
        slow = statistics.geometric_mean(p[0] for p in pairs)
        gain = statistics.geometric_mean(p[1] for p in pairs)
        result["groups"][group] = {"slowdown": slow, "over_tcg": gain}
        print(f"  {group:14} geometric mean: {slow:6.2f} times native, {gain:6.2f} times TCG's speed")
    for key, unit, what in (("boot_s", "s", "process start to first user-space line"),
                            ("memory_kib", "KiB", "memory beside 128 MiB of guest RAM"),
                            ("idle_share", "", "share of a core used by an idle guest")):
        if result.get(key):
            print(f"{what}: " + ", ".join(f"{n} {v:.3g} {unit}" for n, v in result[key].items()))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--guestbench-source", type=pathlib.Path,
                   default=HERE.parent / "../shared/bench/guestbench.c")
    p.add_argument("--runs", type=int, default=5, help="medians are of so many runs")
    p.add_argument("--seconds", type=float, default=0.2)
    p.add_argument("--reps", type=int, default=3)
    p.add_argument("--cpus", type=int, default=2)
    p.add_argument("--machines", default="lodge,qemu", type=lambda s: s.split(","))
    p.add_argument("--only", default="rows,apps,boot,memory", type=lambda s: s.split(","))
    p.add_argument("rows", nargs="*",
                   help="rows of guestbench, with --only apps applications; all by default")
    args = p.parse_args()
    be_fair()
    args.build = args.build.resolve()
    out = args.build / "bench"
    out.mkdir(parents=True, exist_ok=True)
    args.tiny, args.apps = (args.build / "guests" / name for name in ("tiny", "apps"))
    args.apps_rows = args.rows if args.only == ["apps"] else []
    subprocess.run([HERE.parent / "tools/guest", "tiny", args.tiny], check=True)
    args.guestbench, args.initrd = out / "guestbench", out / "initrd"
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-w", "-o", args.guestbench,
                    args.guestbench_source, "-lm"], check=True)
    make_initrd(args.tiny / "initrd", {"run": RUN_GUESTBENCH,
                                       "guestbench": args.guestbench.read_bytes()}, args.initrd)
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True, check=False).stdout.strip()
    result = {"commit": commit, "date": time.strftime("%Y-%m-%d %H:%M"), "kernel": platform.release(),
              "cpu": next((l.split(":")[1].strip() for l in open("/proc/cpuinfo")
                           if l.startswith("model name")), "?"), "cores": os.cpu_count()}
    for part, fn in (("boot", bench_boot), ("memory", bench_memory), ("rows", bench_rows),
                     ("apps", bench_apps)):
        if part in args.only:
            fn(args, result)
    show(result)
    path = out / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept as {path.relative_to(args.build.parent)}")


if __name__ == "__main__":
    main()
