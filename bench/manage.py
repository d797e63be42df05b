#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures lodged beside Debian's libvirtd, both in folders of their own, in one run.

Prints each figure with its goal and keeps all of them as JSON under <build>/bench/.  A ratio over 1
says that lodged is better.  --domains 1000,10000 are the sizes of the lists; as many definitions are
put into the servers' folders as files.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import statistics
import tempfile
import threading
import time
import uuid

RUNNING = """<domain type='qemu'><name>run{0}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{1}'>hvm</type></os></domain>"""
MACHINES, CLIENTS, DEFINES, ALONE = 5, 16, 20, 50
DOMAIN = """<domain type='qemu'><name>bench{0}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{1}'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/tmp/bench{0}.qcow2'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""


def be_fair():
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-15")
    except OSError:
        pass


class Server:
    def __init__(self, command, socket, shell, definitions, helpers=()):
        self.command, self.socket, self.shell, self.machine = command, socket, shell, "pc"
        self.definitions = pathlib.Path(definitions)  # where it keeps its domains' files
        self.uri = f"qemu:///system?socket={socket}"
        self.helpers = [subprocess.Popen(h, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for h in helpers]
        try:
            self.start()
        except SystemExit:
            self.close()
            raise

    def start(self):
        """How long it takes until it answers."""
        import libvirt
        libvirt.registerErrorHandler(lambda *_: None, None)
        begin = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                libvirt.open(self.uri).close()
                return time.monotonic() - begin
            except libvirt.libvirtError:
                if time.monotonic() > begin + 120 or self.process.poll() is not None:
                    raise SystemExit(f"{self.command[0]} does not answer")
                time.sleep(0.005)

    def status(self, field):
        for line in open(f"/proc/{self.process.pid}/status", encoding="ascii"):
            if line.startswith(field + ":"):
                return int(line.split()[1])

    def rss(self):
        return self.status("VmRSS")

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def close(self):
        self.stop()
        for h in self.helpers:
            h.terminate()
            h.wait()


def lodged(build, root):
    os.makedirs(root)
    return Server([str(build / "lodged"), "--root", root], f"{root}/run/libvirt/virtlodged-sock",
                  str(build / "lodge"), f"{root}/etc/qemu")


def libvirtd(root):
    os.makedirs(root)
    config = f"{root}/conf"
    pathlib.Path(config).write_text(
        f'unix_sock_dir = "{root}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nmax_clients = 5000\n'
        "max_queued_clients = 1000\nmdns_adv = 0\n")
    log = [] if os.path.exists("/run/libvirt/virtlogd-sock") else [["virtlogd"]]  # machines need it
    os.makedirs("/run/libvirt", exist_ok=True)
    return Server(["libvirtd", "-f", config, "-p", f"{root}/pid"], f"{root}/libvirt-sock", "virsh",
                  "/etc/libvirt/qemu", log)


def calls(build, server, clients, seconds):
    out = subprocess.run([str(build / "manage/manage_calls"), server.socket, str(clients), str(seconds)],
                         check=True, capture_output=True, text=True, timeout=120).stdout
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}


def best_of(runs, action):
    times = []
    for _ in range(runs):
        start = time.monotonic()
        action()
        times.append(time.monotonic() - start)
    return min(times)


def machines(server, out):
    """Start, end and memory of running machines, which have nothing but a processor."""
    import libvirt
    conn, start, end = libvirt.open(server.uri), [], []
    domains = [conn.defineXML(RUNNING.format(i, server.machine)) for i in range(MACHINES)]
    try:
        domains[0].create()  # the first finds out about the host
        domains[0].destroy()
        before = server.rss()
        for d in domains:
            begin = time.monotonic()
            d.create()
            start.append(time.monotonic() - begin)
        out["RSS a running domain, KiB"] = (server.rss() - before) / MACHINES
        out["threads with running domains"] = server.status("Threads")
        for d in domains:
            begin = time.monotonic()
            d.destroy()
            end.append(time.monotonic() - begin)
        out["start to running, ms"] = statistics.median(start) * 1000
        out["destroy, ms"] = statistics.median(end) * 1000
    finally:
        for d in domains:
            if d.isActive():
                d.destroy()
            d.undefine()


def define_together(server):
    """Milliseconds a definition when many clients define at once."""
    import libvirt
    conns = [libvirt.open(server.uri) for _ in range(CLIENTS)]

    def each(what):
        def work(k):
            for i in range(DEFINES):
                what(conns[k], f"-{k}-{i}")
        threads = [threading.Thread(target=work, args=(k,)) for k in range(CLIENTS)]
        begin = time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return (time.monotonic() - begin) * 1000 / CLIENTS / DEFINES

    took = each(lambda conn, i: conn.defineXML(DOMAIN.format(i, server.machine)))
    each(lambda conn, i: conn.lookupByName(f"bench{i}").undefine())
    return took


def lists(build, server, args, size, out):
    def show(shell):
        return best_of(args.runs, lambda: subprocess.run(
            [shell, "-c", server.uri, "list", "--all"], check=True, stdout=subprocess.DEVNULL))
    out[f"virsh list --all, {size}, s"] = show("virsh")
    out[f"its own shell's list --all, {size}, s"] = show(server.shell)
    out[f"connect with {size}, us"] = calls(build, server, 1, 0.1)["connect"]


def fill(server, first, count, text):
    """Definitions as files, as the server writes them; their paths."""
    paths = []
    for i in range(first, count):
        paths.append(server.definitions / f"bench{i}.xml")
        own = re.sub("<uuid>.*</uuid>", f"<uuid>{uuid.uuid4()}</uuid>", text)
        paths[-1].write_text(re.sub(r"\bbench0\b", f"bench{i}", own))
    return paths


def many_domains(build, server, args, out):
    import libvirt
    conn = libvirt.open(server.uri)
    start = time.monotonic()
    for i in range(ALONE):
        conn.defineXML(DOMAIN.format(i, server.machine))
    out["define, 1 client, ms each"] = (time.monotonic() - start) * 1000 / ALONE
    for i in range(1, ALONE):
        conn.lookupByName(f"bench{i}").undefine()
    text = conn.lookupByName("bench0").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    conn.lookupByName("bench0").undefine()
    conn.close()
    made, paths = 0, []
    server.restart()
    empty = server.rss()
    try:
        for size in args.domains:
            server.stop()
            paths += fill(server, made, size, text)
            made = size
            out[f"start of the daemon with {size}, s"] = server.start()
            lists(build, server, args, size, out)
        if made:
            out["RSS a defined domain, KiB"] = (server.rss() - empty) / made
    finally:
        server.stop()
        for path in paths:
            path.unlink()
        server.start()


def measure(build, server, args):
    import libvirt
    out = {"RSS idle, KiB": server.rss()}
    one = [calls(build, server, 1, args.seconds) for _ in range(args.runs)]
    out["connect + first call, us"] = min(r["connect"] for r in one)
    out["calls/s, 1 client"] = max(r["calls"] for r in one)
    out["calls/s, 50 clients"] = max(calls(build, server, 50, args.seconds)["calls"] for _ in range(args.runs))
    machines(server, out)
    out[f"define, {CLIENTS} clients, ms each"] = define_together(server)
    out["RSS idle, once used, KiB"] = server.rss()
    many_domains(build, server, args, out)
    return out


# What the project wants of lodged: a limit, or how many times better than libvirtd.
GOALS = {"RSS idle, KiB": 10240, "RSS idle, once used, KiB": 10240, "RSS a defined domain, KiB": 5,
         "RSS a running domain, KiB": 60, "connect + first call, us": 150,
         "threads with running domains": 8}
TIMES = 3
MORE_IS_BETTER = ("calls/s",)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--domains", default="1000,10000",
                        type=lambda s: [int(n) for n in s.split(",") if n])
    args = parser.parse_args()
    args.build = args.build.resolve()
    subprocess.run(["ninja", "-C", str(args.build), "lodged", "lodge", "lodge-vm", "manage/manage_calls"], check=True,
                   stdout=subprocess.DEVNULL)
    be_fair()
    results = {}
    with tempfile.TemporaryDirectory(prefix="lodge-bench-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)  # machines are users of their own
        servers = [("lodged", lambda: lodged(args.build, folder + "/l"))]
        if shutil.which("libvirtd"):
            servers.append(("libvirtd", lambda: libvirtd(folder + "/v")))
        for name, start in servers:
            server = start()
            try:
                results[name] = measure(args.build, server, args)
            finally:
                server.close()
    other = results.get("libvirtd", {})
    print(f"{'':38}{'lodged':>12}{'libvirtd':>12}{'ratio':>8}")
    for row, mine in results["lodged"].items():
        theirs = other.get(row)
        ratio = None
        if theirs and mine:
            ratio = mine / theirs if row.startswith(MORE_IS_BETTER) else theirs / mine
        goal = mine <= GOALS[row] if row in GOALS else ratio is None or ratio >= (
            0.9 if row.startswith("define") else TIMES)
        print(f"{row:38}{mine:12.4g}{theirs if theirs is not None else float('nan'):12.4g}"
              f"{ratio if ratio is not None else float('nan'):8.2f}  {'met' if goal else 'MISSED'}")
    (args.build / "bench").mkdir(exist_ok=True)
    (args.build / "bench/manage.json").write_text(json.dumps(results, indent=1))


main()
