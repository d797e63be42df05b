#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that keep rules on the same host: theirs survive whatever lodged's networks do, and a network's
survive, or come back after, whatever they do.  Real firewalld and ufw where they are installed, and rules as Docker's."""
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
import manage
from test_manage_network import NetworkCase, Server, ask, run

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""
DOCKER = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Firewalls(NetworkCase):
    XML = """<network><name>guarded</name><forward/><bridge name='guardbr' stp='off'/><ip address='10.70.0.1' prefix='24'/>
        </network>"""

    def need(self, program, why):
        if not find(program):
            manage.leave_out(self, f"{program} is not installed: {why}")

    def works(self, *argv, **more):
        """iptables needs parts of the kernel that nft does not."""
        p = run(*argv, check=False, **more)
        if p.returncode:
            manage.leave_out(self, p.stderr.strip())

    def setUp(self):
        self.addCleanup(self.host.run, "nft", "flush", "ruleset")

    def rules(self):
        """The text of all tables but ours."""
        names = [n for n in self.host.run("nft", "list", "tables").split("\n") if n and "lodge_" not in n]
        return {n: self.host.run("nft", "-s", "list", *n.split()) for n in names}

    def ours(self):
        manage.until(lambda: "lodge_guardbr" in self.tables(), "our table is there")
        return self.host.run("nft", "-s", "list", "table", "inet", "lodge_guardbr")

    def beside(self):
        """A network comes and goes, and nobody else's rule does."""
        theirs = self.rules()
        self.assertTrue(theirs)
        self.network(self.XML)
        whole = self.ours()
        self.assertIn("masquerade", whole)
        self.assertEqual(self.rules(), theirs)
        self.virsh("net-destroy", "guarded")
        self.assertEqual(self.rules(), theirs)
        self.virsh("net-start", "guarded")
        return whole

    def test_docker(self):
        self.need("iptables-restore", "a part of the package iptables")
        self.works("ip", "netns", "exec", self.host.name, "iptables-restore", input=DOCKER)
        whole = self.beside()
        guest = self.machine("behind", "guardbr")
        self.static(guest, "10.70.0.2/24", "10.70.0.1")
        self.addCleanup(Server(self.world, 90).close)
        self.assertEqual(guest.enter(lambda: ask("203.0.113.2", 90)), "203.0.113.1")
        for table in ("nat", "filter"):  # as when Docker starts anew
            self.host.run("iptables", "-t", table, "-F")
            self.host.run("iptables", "-t", table, "-X")
        self.host.run("iptables-restore", "-n", input=DOCKER)
        self.assertEqual(self.ours(), whole)
        self.assertEqual(guest.enter(lambda: ask("203.0.113.2", 90)), "203.0.113.1")

    def test_nftables_service(self):
        """Its file begins with "flush ruleset"."""
        conf = f"{self.dir}/nftables.conf"
        pathlib.Path(conf).write_text("flush ruleset\ntable inet filter {\n chain input { type filter hook input priority 0; "
                                      "tcp dport 22 accept; }\n}\n")
        self.host.run("nft", "-f", conf)
        whole = self.beside()
        for _ in range(3):
            self.host.run("nft", "-f", conf)
            self.assertEqual(self.ours(), whole)
        self.host.run("nft", "delete", "table", "inet", "lodge_guardbr")
        self.assertEqual(self.ours(), whole)

    def ufw(self, *args):
        """With its settings in a folder of ours."""
        places = {f"{self.dir}/ufw-etc": "/etc/ufw", f"{self.dir}/ufw-default": "/etc/default",
                  f"{self.dir}/ufw-lib": "/lib/ufw"}
        for own, path in places.items():
            if not os.path.exists(own):
                shutil.copytree(path, own, symlinks=True)
        mounts = "; ".join(f"mount --bind {own} {path}" for own, path in places.items())
        return run("unshare", "-m", "sh", "-ec", mounts + '; exec ip netns exec "$@"', "sh", self.host.name, "ufw", *args).stdout

    def test_ufw(self):
        self.need("ufw", "the package of the name")
        self.works("ip", "netns", "exec", self.host.name, "iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW")
        self.host.run("nft", "flush", "ruleset")
        self.ufw("--force", "enable")
        self.addCleanup(self.ufw, "disable")
        self.ufw("allow", "2222/tcp")
        whole = self.beside()
        self.assertIn("2222/tcp", self.ufw("status"))
        self.ufw("reload")
        self.assertEqual(self.ours(), whole)
        self.assertIn("2222/tcp", self.ufw("status"))
        self.ufw("disable")
        self.assertEqual(self.ours(), whole)

    def test_firewalld(self):
        self.need("firewalld", "where there is systemd, its package would begin to guard this host")
        address = f"{self.dir}/bus"
        pathlib.Path(f"{self.dir}/bus.conf").write_text(BUS.format(address))
        env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={address}"}
        with open(f"{self.dir}/firewalld.log", "w") as log:
            for argv in (["dbus-daemon", f"--config-file={self.dir}/bus.conf", "--nofork"],
                         ["ip", "netns", "exec", self.host.name, "firewalld", "--nofork", "--nopid", "--log-target=console"]):
                p = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
                self.addCleanup(p.wait)
                self.addCleanup(p.terminate)
                manage.until(lambda: os.path.exists(address), "the bus is there")

        def command(*args):
            return run("ip", "netns", "exec", self.host.name, "firewall-cmd", *args, env=env, check=False).stdout.strip()
        manage.until(lambda: command("--state") == "running", "firewalld runs")
        whole = self.beside()
        self.assertEqual(command("--add-port=2222/tcp"), "success")
        for args in (["--reload"], ["--complete-reload"]):
            self.assertEqual(command(*args), "success")
            self.assertEqual(self.ours(), whole)
            self.assertIn("table inet firewalld", self.rules())


if __name__ == "__main__":
    manage.need_networks()
    unittest.main()
