#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures lodged beside Debian's libvirtd, both in folders of their own, in one run.

Prints each figure with its goal and keeps all of them as JSON under <build>/bench/.  A ratio over 1
says that lodged is better.  --domains 1000,10000 are the sizes of the lists; as many definitions are
put into the servers' folders as files.  Lists and definitions are made in turns, so that both
servers meet the same machine.

"list --all by its own shell" is lodge with lodged and virsh with libvirtd.  virsh with both asks for
the state of each domain by a call of its own and works longer for that call than lodged does: the
row with its processor time says how long.  "virsh's calls" are the same ones made by a client that
does nothing else.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import statistics
import tempfile
import threading
import time
import uuid

RUNNING = """<domain type='qemu'><name>run{0}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{1}'>hvm</type></os></domain>"""
MACHINES, CLIENTS, DEFINES, ALONE, LISTS = 5, 16, 20, 50, 9
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


def run_shell(command):
    """Seconds it took, and of how much processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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


def lists(build, servers, args, size, results):
    def show(shell, server):
        return run_shell([shell, "-c", server.uri, "list", "--all"])
    for _ in range(LISTS if size <= 1000 else args.runs):
        for name, server in servers.items():
            took, busy = show("virsh", server)
            raw = calls(build, server, 1, 0.01)
            for row, value in ((f"list --all by its own shell, {size}, s", show(server.shell, server)[0]),
                               (f"virsh list --all, {size}, s", took),
                               (f"  virsh's processor time, {size}, s", busy),
                               (f"virsh's calls, {size}, s", raw["list"]),
                               (f"connect with {size}, us", raw["connect"])):
                out = results[name]
                out[row] = min(out.get(row, value), value)


def fill(server, first, count, text):
    """Definitions as files, as the server writes them; their paths."""
    paths = []
    for i in range(first, count):
        paths.append(server.definitions / f"bench{i}.xml")
        own = re.sub("<uuid>.*</uuid>", f"<uuid>{uuid.uuid4()}</uuid>", text)
        paths[-1].write_text(re.sub(r"\bbench0\b", f"bench{i}", own))
    return paths


def define_alone(servers, results):
    """In turns; what one definition looks like when the server wrote it."""
    import libvirt
    conns = {name: libvirt.open(server.uri) for name, server in servers.items()}
    took, texts = dict.fromkeys(servers, 0.0), {}
    for i in range(ALONE):
        for name, conn in conns.items():
            begin = time.monotonic()
            conn.defineXML(DOMAIN.format(i, servers[name].machine))
            took[name] += time.monotonic() - begin
    for name, conn in conns.items():
        results[name]["define, 1 client, ms each"] = took[name] * 1000 / ALONE
        texts[name] = conn.lookupByName("bench0").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        for i in range(ALONE):
            conn.lookupByName(f"bench{i}").undefine()
        conn.close()
    return texts


def many_domains(build, servers, args, results):
    texts = define_alone(servers, results)
    paths, empty, made = {name: [] for name in servers}, {}, 0
    for name, server in servers.items():
        server.restart()
        empty[name] = server.rss()
    try:
        for size in args.domains:
            for name, server in servers.items():
                server.stop()
                paths[name] += fill(server, made, size, texts[name])
                results[name][f"start of the daemon with {size}, s"] = server.start()
            made = size
            lists(build, servers, args, size, results)
        for name, server in servers.items():
            if made:
                results[name]["RSS a defined domain, KiB"] = (server.rss() - empty[name]) / made
                results[name][f"threads with {made} domains"] = server.status("Threads")
    finally:
        for name, server in servers.items():
            server.stop()
            for path in paths[name]:
                path.unlink()
            server.start()


def measure(build, server, args):
    out = {"RSS idle, KiB": server.rss()}
    one = [calls(build, server, 1, args.seconds) for _ in range(args.runs)]
    out["connect + first call, us"] = min(r["connect"] for r in one)
    out["calls/s, 1 client"] = max(r["calls"] for r in one)
    out["calls/s, 50 clients"] = max(calls(build, server, 50, args.seconds)["calls"] for _ in range(args.runs))
    machines(server, out)
    out[f"define, {CLIENTS} clients, ms each"] = define_together(server)
    out["RSS idle, once used, KiB"] = server.rss()
    return out


# What the project wants of lodged: a limit, or how many times better than libvirtd.
GOALS = {"RSS idle, KiB": 10240, "RSS idle, once used, KiB": 10240, "RSS a defined domain, KiB": 5,
         "RSS a running domain, KiB": 60, "connect + first call, us": 150}
TIMES, NOT_SLOWER, ALIKE, THREADS = 3, 0.9, 1.5, 8
MORE_IS_BETTER = ("calls/s",)


def verdict(row, mine, ratio, all_mine):
    if row.startswith(" "):
        return ""  # explains the row above
    if row.startswith("threads"):
        return "met" if mine <= THREADS else "MISSED"
    goal = mine <= GOALS[row] if row in GOALS else ratio is None or ratio >= (
        NOT_SLOWER if row.startswith("define") else TIMES)
    if row.startswith("connect with"):  # however many domains there are
        goal = goal and mine <= ALIKE * all_mine["connect + first call, us"]
    return "met" if goal else "MISSED"


def show(results):
    other = results.get("libvirtd", {})
    print(f"{'':42}{'lodged':>12}{'libvirtd':>12}{'ratio':>8}")
    for row, mine in results["lodged"].items():
        theirs = other.get(row)
        ratio = None
        if theirs and mine:
            ratio = mine / theirs if row.startswith(MORE_IS_BETTER) else theirs / mine
        print(f"{row:42}{mine:12.4g}{theirs if theirs is not None else float('nan'):12.4g}"
              f"{ratio if ratio is not None else float('nan'):8.2f}  {verdict(row, mine, ratio, results['lodged'])}")


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
    with tempfile.TemporaryDirectory(prefix="lodge-bench-", dir="/var/tmp") as folder, contextlib.ExitStack() as all_of:
        os.chmod(folder, 0o711)  # machines are users of their own
        servers = {"lodged": lodged(args.build, folder + "/l")}
        all_of.callback(servers["lodged"].close)
        if shutil.which("libvirtd"):
            servers["libvirtd"] = libvirtd(folder + "/v")
            all_of.callback(servers["libvirtd"].close)
        results = {name: measure(args.build, server, args) for name, server in servers.items()}
        many_domains(args.build, servers, args, results)
    show(results)
    (args.build / "bench").mkdir(exist_ok=True)
    (args.build / "bench/manage.json").write_text(json.dumps(results, indent=1))


main()
