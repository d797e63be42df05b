#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools of what servers offer: real ones of Debian's on the loopback device, and virsh."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import libvirt

sys.path.insert(0, os.path.dirname(__file__))
import manage
import servers
from test_manage_domain import machine, resumed, started, UP

LODGE_IMG = os.environ["LODGE_IMG"]
MIB = 1 << 20
IQN = "iqn.2026-01.org.example:disks"


def random_file(path, size):
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


class Remote(manage.Case):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="lodge-pools-")
        os.chmod(self.dir, 0o711)  # machines are users of their own
        self.addCleanup(shutil.rmtree, self.dir, True)

    def program(self, *args, **more):
        p = servers.Program(*args, log=f"{self.dir}/server.log", **more)
        p.__enter__()
        self.addCleanup(p.__exit__)
        return p

    def target(self, *units):
        """Debian's tgtd with @units, files; its port."""
        port, control = servers.free_port(), str(os.getpid() % 30000 + 1)
        env = {"TGT_IPC_SOCKET": f"{self.dir}/tgt"}

        def adm(*args):
            return subprocess.run(["tgtadm", "-C", control, "--lld", "iscsi", *args], capture_output=True,
                                  text=True, env={**os.environ, **env})
        self.program("tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}", env=env, patience=1,
                     ready=lambda: servers.answers(port))
        self.addCleanup(adm, "--op", "delete", "--mode", "system")
        manage.until(lambda: adm("--mode", "target", "--op", "show").returncode == 0, "tgtd's control socket")
        self.assertEqual(adm("--op", "new", "--mode", "target", "--tid", "1", "-T", IQN).returncode, 0)
        for i, unit in enumerate(units):
            p = adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(i + 1), "-b", unit)
            self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL").returncode, 0)
        self.adm = adm
        return port

    def write(self, name, text):
        with open(f"{self.dir}/{name}", "w") as f:
            f.write(text)
        return f"{self.dir}/{name}"

    def define(self, name, kind, port, source="", target=""):
        """virsh pool-define-as knows no port."""
        return self.virsh("pool-define", self.write("pool.xml", f"<pool type='{kind}'><name>{name}</name><source>"
                          f"<host name='127.0.0.1' port='{port}'/>{source}</source>{target}</pool>"))

    def bytes_of(self, pool, volume):
        """All of a volume goes to a file and another comes back."""
        path = random_file(f"{self.dir}/up", 4 * MIB)
        self.virsh("vol-upload", volume, path, "--pool", pool)
        self.virsh("vol-download", volume, f"{self.dir}/down", "--pool", pool)
        subprocess.run(["cmp", path, f"{self.dir}/down"], check=True)
        self.virsh("vol-download", volume, f"{self.dir}/part", "--pool", pool, "--offset", "1000", "--length", "5000")
        with open(path, "rb") as f, open(f"{self.dir}/part", "rb") as part:
            self.assertEqual(f.read()[1000:6000], part.read())
        self.virsh("vol-upload", volume, f"{self.dir}/part", "--pool", pool, "--offset", "3000000")
        self.virsh("vol-download", volume, f"{self.dir}/down", "--pool", pool)
        with open(f"{self.dir}/part", "rb") as part, open(f"{self.dir}/down", "rb") as f:
            self.assertEqual(part.read(), f.read()[3000000:3005000])
        self.assertIn("No space left", self.virsh("vol-upload", volume, path, "--pool", pool, "--offset", str(MIB),
                                                  fails=True))
        self.virsh("vol-wipe", volume, pool)
        self.virsh("vol-download", volume, f"{self.dir}/down", "--pool", pool)
        with open(f"{self.dir}/down", "rb") as f:
            self.assertEqual(f.read(), bytes(4 * MIB))

    def test_iscsi(self):
        one, two = random_file(f"{self.dir}/one", 4 * MIB), random_file(f"{self.dir}/two", 8 * MIB)
        port = self.target(one, two)
        found = self.virsh("find-storage-pool-sources-as", "iscsi", "127.0.0.1", str(port))
        self.assertIn(f"<device path='{IQN}'/>", found)
        self.define("units", "iscsi", port, f"<device path='{IQN}'/>",
                    "<target><path>/dev/disk/by-path</path></target>")
        self.virsh("pool-start", "units")
        listed = self.virsh("vol-list", "units")
        self.assertRegex(listed, rf"unit:0:0:1 +iscsi://127.0.0.1:{port}/{IQN}/1")
        self.assertRegex(self.virsh("vol-list", "units", "--details"), r"unit:0:0:2 .* network +8.00 MiB +8.00 MiB")
        self.assertIn("12.00 MiB", self.virsh("pool-info", "units"))
        xml = self.virsh("vol-dumpxml", "unit:0:0:1", "units")
        self.assertIn("<volume type='network'>", xml)
        self.assertIn("does not support volume creation", self.virsh("vol-create-as", "units", "x", "1M", fails=True))
        self.assertIn("does not support vol deletion", self.virsh("vol-delete", "unit:0:0:1", "units", fails=True))
        path = self.virsh("vol-path", "unit:0:0:1", "units")
        self.assertEqual(self.virsh("vol-name", path), "unit:0:0:1")
        info = subprocess.run([LODGE_IMG, "info", path], capture_output=True, text=True, check=True).stdout
        self.assertIn("4 MiB", info)
        self.bytes_of("units", "unit:0:0:1")
        # a copy into a pool of files
        self.virsh("pool-create-as", "files", "dir", "--target", self.dir)
        with open(f"{self.dir}/copy.xml", "w") as f:
            f.write("<volume><name>copy.qcow2</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>")
        self.virsh("vol-create-from", "files", f"{self.dir}/copy.xml", "unit:0:0:2", "--inputpool", "units")
        subprocess.run([LODGE_IMG, "compare", "-f", "raw", "-F", "qcow2", two, f"{self.dir}/copy.qcow2"],
                       stdout=subprocess.DEVNULL, check=True)
        self.virsh("pool-destroy", "files")
        # the target goes away
        self.adm("--op", "delete", "--mode", "target", "--tid", "1", "--force")
        self.assertIn("iSCSI", self.virsh("pool-refresh", "units", fails=True))
        self.assertNotIn("units", self.virsh("pool-list"))
        self.assertIn("iSCSI", self.virsh("pool-start", "units", fails=True))
        self.virsh("pool-undefine", "units")

    def test_iscsi_with_a_password(self):
        port = self.target(random_file(f"{self.dir}/one", 4 * MIB))
        for args in (("--op", "new", "--mode", "account", "--user", "lodge", "--password", "sesamesesame"),
                     ("--op", "bind", "--mode", "account", "--tid", "1", "--user", "lodge")):
            self.assertEqual(self.adm(*args).returncode, 0)
        us = f"<device path='{IQN}'/><initiator><iqn name='iqn.2026-01.org.example:us'/></initiator>"
        self.define("chap", "iscsi-direct", port, us)
        self.assertIn("iSCSI", self.virsh("pool-start", "chap", fails=True))
        self.virsh("pool-undefine", "chap")
        self.define("chap", "iscsi-direct", port,
                    us + "<auth type='chap' username='lodge'><secret usage='unit'/></auth>")
        self.assertIn("no secret for 'unit'", self.virsh("pool-start", "chap", fails=True))
        with open(f"{self.dir}/secret.xml", "w") as f:
            f.write("<secret private='yes'><usage type='iscsi'><target>unit</target></usage></secret>")
        uuid = self.virsh("secret-define", f"{self.dir}/secret.xml").split()[1]
        self.virsh("secret-set-value", uuid, "--file", self.write("wrong", "wrongwrongwrong"), "--plain")
        self.assertIn("iSCSI", self.virsh("pool-start", "chap", fails=True))
        self.virsh("secret-set-value", uuid, "--file", self.write("right", "sesamesesame"), "--plain")
        self.virsh("pool-start", "chap")
        self.assertNotIn("sesame", self.virsh("vol-dumpxml", "unit:0:0:1", "chap") + self.virsh("pool-dumpxml", "chap"))
        self.bytes_of("chap", "unit:0:0:1")
        self.virsh("pool-destroy", "chap")
        self.virsh("pool-undefine", "chap")
        self.virsh("secret-undefine", uuid)

    def secret(self, usage, value):
        """A secret of @usage, XML; its UUID."""
        uuid = self.virsh("secret-define", self.write("secret.xml", f"<secret>{usage}</secret>")).split()[1]
        self.virsh("secret-set-value", uuid, "--file", self.write("value", value), "--plain")
        self.addCleanup(self.virsh, "secret-undefine", uuid)
        return uuid

    def encrypted(self, name, form, uuid, more=""):
        """A LUKS volume of the pool "safe", filled from its volume "plain"."""
        self.virsh("vol-create-from", "safe", self.write("vol.xml", f"""<volume><name>{name}</name>
            <capacity unit='MiB'>4</capacity><target><format type='{form}'/><encryption format='luks'>
            <secret type='passphrase' uuid='{uuid}'/>{more}</encryption></target></volume>"""),
                   "plain", "--inputpool", "safe")

    def test_encrypted_volumes(self):
        """LUKS in raw and qcow2, read by Debian's qemu-img and by a guest; a unit behind a password."""
        self.virsh("pool-create-as", "safe", "dir", "--target", self.dir)
        self.addCleanup(self.virsh, "pool-destroy", "safe")
        plain = random_file(f"{self.dir}/plain", 4 * MIB)
        self.virsh("pool-refresh", "safe")
        uuid = self.secret("<description>disks</description>", "open sesame")
        for wrong, words in (("<encryption format='qcow'/>", "encryption format qcow is not supported"),
                             ("<encryption format='luks2'/>", "encryption format luks2 is not supported"),
                             ("<encryption format='luks'/>", "no secret for"),
                             ("<encryption format='luks'><secret type='passphrase' "
                              "uuid='00000000-0000-0000-0000-000000000001'/></encryption>", "Secret not found"),
                             ("<encryption format='luks'><cipher name='aes'/></encryption>", "'size'"),
                             ("<format type='vdi'/><encryption format='luks'/>", "unsupported with format vdi")):
            xml = f"<volume><name>no</name><capacity>1048576</capacity><target>{wrong}</target></volume>"
            self.assertIn(words, self.virsh("vol-create", "safe", self.write("vol.xml", xml), fails=True))
        self.assertFalse(os.path.exists(f"{self.dir}/no"))
        # a key slot costs two seconds of a processor to make and to open: few here are lodged's own
        self.encrypted("mine", "raw", uuid, "<cipher name='aes' size='128' mode='cbc' hash='sha256'/>"
                       "<ivgen name='essiv' hash='sha256'/>")
        info = subprocess.run(["qemu-img", "info", f"{self.dir}/mine"], capture_output=True, text=True).stdout
        for words in ("file format: luks", "cipher alg: aes-128", "cipher mode: cbc", "ivgen alg: essiv"):
            self.assertIn(words, info)
        key = ("--object", f"secret,id=s,file={self.dir}/value")
        subprocess.run(["qemu-img", "compare", *key, "--image-opts",
                        f"driver=luks,key-secret=s,file.filename={self.dir}/mine",
                        f"driver=raw,file.filename={plain}"], stdout=subprocess.DEVNULL, check=True)
        self.virsh("vol-create", "safe", self.write("vol.xml", f"""<volume><name>mine.qcow2</name>
            <capacity unit='MiB'>4</capacity><target><format type='qcow2'/><encryption format='luks'>
            <secret type='passphrase' uuid='{uuid}'/></encryption></target></volume>"""))
        self.assertIn("encrypted: yes", subprocess.run(["qemu-img", "info", f"{self.dir}/mine.qcow2"],
                                                       capture_output=True, text=True).stdout)
        for name, form, options in (("one", "luks", "iter-time=10,key-secret=s"),
                                    ("two", "qcow2", "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s")):
            subprocess.run([LODGE_IMG, "convert", *key, "-O", form, "-o", options, plain, f"{self.dir}/{name}"],
                           check=True)
        self.virsh("pool-refresh", "safe")
        xml = self.virsh("vol-dumpxml", "one", "safe")
        self.assertIn("<format type='raw'/>", xml)
        self.assertIn("<encryption format='luks'/>", xml)
        self.assertIn("<capacity unit='bytes'>4194304</capacity>", xml)
        # what a path's own secret opens needs none named
        own = self.secret(f"<usage type='volume'><volume>{self.dir}/two</volume></usage>", "open sesame")
        self.assertIn(own, self.virsh("vol-dumpxml", "two", "safe"))
        self.virsh("vol-resize", "two", "5M", "--pool", "safe")
        self.guest_reads(uuid, plain)

    def guest_reads(self, uuid, plain):
        unit = random_file(f"{self.dir}/unit", 4 * MIB)
        port = self.target(unit)
        for args in (("--op", "new", "--mode", "account", "--user", "lodge", "--password", "sesamesesame"),
                     ("--op", "bind", "--mode", "account", "--tid", "1", "--user", "lodge")):
            self.assertEqual(self.adm(*args).returncode, 0)
        self.secret("<usage type='iscsi'><target>unit</target></usage>", "sesamesesame")
        self.define("guarded", "iscsi", port, f"<device path='{IQN}'/><auth type='chap' username='lodge'>"
                    "<secret usage='unit'/></auth>")
        self.virsh("pool-start", "guarded")
        key = f"<encryption format='luks'><secret type='passphrase' uuid='{uuid}'/></encryption>"
        login = "<auth username='lodge'><secret type='iscsi' usage='unit'/></auth>"
        disks = (("vda", "file", "raw", f"<source file='{self.dir}/one'>{key}</source>"),
                 ("vdb", "volume", "qcow2", f"<source pool='safe' volume='two'/>{key}"),
                 ("vdc", "volume", "raw", "<source pool='guarded' volume='unit:0:0:1'/>"),
                 ("vdd", "network", "raw", f"<source protocol='iscsi' name='{IQN}/1'><host name='127.0.0.1' "
                                           f"port='{port}'/>{login}</source>"))
        devices = "".join(f"<disk type='{kind}'><driver name='qemu' type='{form}'/>{source}"
                          f"<target dev='{dev}' bus='virtio'/></disk>" for dev, kind, form, source in disks[1:])
        ports = "<controller type='pci' model='pcie-root-port'/>" * 6
        conn = self.connect()
        dom = conn.defineXML(machine("reader", devices=f"<console type='pty'/>{ports}{devices}"))
        self.addCleanup(self.virsh, "undefine", "reader")
        console = started(conn, dom)
        self.addCleanup(self.virsh, "destroy", "reader")
        for pid in self.daemon.machines():
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                self.assertNotIn(b"sesame", f.read())
        console.expect(UP)
        console.expect(b"# ")
        first = disks[0]
        self.virsh("attach-device", "reader", self.write("disk.xml", f"<disk type='{first[1]}'><driver name='qemu' "
                   f"type='raw'/>{first[3]}<target dev='vde' bus='virtio'/></disk>"))
        for dev, path in (("vda", plain), ("vdb", unit), ("vdc", unit), ("vdd", plain)):
            with open(path, "rb") as f:
                digest = hashlib.md5(f.read()).hexdigest()
            console.type(f"until dd if=/dev/{dev} bs=1M count=4 2>/dev/null | md5sum | grep {digest}; do sleep 1; "
                         f"done; echo {dev} is ri''ght\n".encode())
            console.expect(f"{dev} is right".encode())
        live = self.virsh("dumpxml", "reader")
        self.assertRegex(live, r"<source pool='safe' volume='two' index='\d+'/>")
        self.virsh("detach-disk", "reader", "vde")
        manage.until(lambda: "vde" not in self.virsh("domblklist", "reader"), "vde is gone")
        self.virsh("destroy", "reader")
        self.virsh("pool-destroy", "guarded")
        self.assertIn("is not active", self.virsh("start", "reader", fails=True))
        self.virsh("pool-start", "guarded")
        self.virsh("start", "reader")

    def test_nbd(self):
        port = servers.free_port()
        os.mkdir(f"{self.dir}/exports")
        for name, size in (("first", 4), ("a b", 8)):
            random_file(f"{self.dir}/exports/{name}", size * MIB)
        self.program("nbdkit", "-f", "-p", port, "-i", "127.0.0.1", "file", f"dir={self.dir}/exports",
                     ready=lambda: servers.answers(port))
        self.define("exports", "nbd", port)
        self.virsh("pool-start", "exports")
        self.assertRegex(self.virsh("vol-list", "exports"), rf"first +nbd://127.0.0.1:{port}/first")
        self.assertRegex(self.virsh("pool-list", "--details"), r"exports +running")
        self.bytes_of("exports", "first")
        path = self.virsh("vol-path", "a b", "exports")
        subprocess.run([LODGE_IMG, "compare", "-f", "raw", "-F", "raw", path, f"{self.dir}/exports/a b"],
                       stdout=subprocess.DEVNULL, check=True)
        self.virsh("pool-destroy", "exports")
        self.virsh("pool-undefine", "exports")

    def test_rbd(self):
        """A cluster of one, which wants a key."""
        os.mkdir(f"{self.dir}/ceph")
        with servers.Ceph(f"{self.dir}/ceph") as cluster:
            auth = "<auth type='ceph' username='admin'><secret usage='ceph-admin'/></auth>"
            self.define("ceph", "rbd", cluster.port, f"<name>images</name>{auth}")
            self.assertIn("ceph-admin", self.virsh("pool-start", "ceph", fails=True))
            made = self.virsh("secret-define", self.write("secret.xml", "<secret><usage type='ceph'><name>ceph-admin"
                                                          "</name></usage></secret>"))
            self.virsh("secret-set-value", made.split()[1], "--base64", cluster.key)
            self.virsh("pool-start", "ceph")
            self.volumes_of_ceph(cluster)
            self.images_of_ceph(cluster)
            self.machine_of_ceph(cluster)
        self.virsh("pool-destroy", "ceph")
        self.virsh("pool-undefine", "ceph")

    def volumes_of_ceph(self, cluster):
        def counted():
            self.virsh("pool-refresh", "ceph")
            info = self.virsh("pool-info", "ceph")
            return re.search(r"Capacity: +128.00 MiB", info) and re.search(r"Available: +1[012]\d\.\d+ MiB", info)
        manage.until(counted, "the manager knows how much there is")
        self.virsh("vol-create-as", "ceph", "one", "4M")
        self.assertEqual(cluster.call("rbd", "ls", "images"), "one")
        self.bytes_of("ceph", "one")
        self.virsh("vol-resize", "one", "8M", "--pool", "ceph")
        self.virsh("vol-upload", "one", f"{self.dir}/up", "--pool", "ceph", "--offset", str(4 * MIB))
        self.virsh("vol-clone", "one", "two", "--pool", "ceph")
        self.assertRegex(self.virsh("vol-list", "ceph", "--details"), r"two +images/two +network +8.00 MiB")
        self.virsh("vol-download", "two", f"{self.dir}/down", "--pool", "ceph", "--offset", str(4 * MIB))
        subprocess.run(["cmp", f"{self.dir}/up", f"{self.dir}/down"], check=True)
        self.virsh("vol-delete", "one", "--pool", "ceph")
        cluster.call("rbd", "create", "--size", "4M", "images/others")
        self.virsh("pool-refresh", "ceph")
        self.assertRegex(self.virsh("vol-list", "ceph"), r"others +images/others\n")
        self.assertIn("format but raw", self.virsh("vol-create-as", "ceph", "x", "1M", "--format", "qcow2", fails=True))

    def images_of_ceph(self, cluster):
        def img(*args, good=True):
            p = subprocess.run([LODGE_IMG, *args], capture_output=True, text=True)
            self.assertEqual(p.returncode == 0, good, p.stderr)
            return p.stdout if good else p.stderr
        name, random = f"rbd:images/%s:conf={cluster.conf}", random_file(f"{self.dir}/random", 6 * MIB)
        img("convert", "-O", "qcow2", random, name % "cow")
        self.assertIn("file format: qcow2", img("info", name % "cow"))
        img("compare", random, name % "cow")
        img("create", "-f", "raw", name % "raw", "8M")
        self.assertEqual(json.loads(img("map", "-f", "raw", "--output=json", name % "raw"))[0]["data"], False)
        img("convert", "-n", "-O", "raw", random, name % "raw")
        img("resize", "-f", "raw", name % "raw", "6M", "--shrink")
        img("compare", "-f", "raw", "-F", "raw", random, name % "raw")
        cluster.call("rbd", "snap", "create", "images/raw@before")
        img("bench", "-w", "-c", "16", "-f", "raw", name % "raw")
        img("compare", "-f", "raw", "-F", "raw", random, name % "raw@before")
        self.assertIn("No such file", img("info", name % "nobody", good=False))

    def machine_of_ceph(self, cluster):
        """What a guest writes stands in the cluster."""
        disks = f"""<disk type='network'><driver name='qemu' type='raw'/>
            <auth username='admin'><secret type='ceph' usage='ceph-admin'/></auth>
            <source protocol='rbd' name='images/two'><host name='127.0.0.1' port='{cluster.port}'/></source>
            <target dev='vda' bus='virtio'/></disk>
            <disk type='volume'><source pool='ceph' volume='others'/><target dev='vdb' bus='virtio'/></disk>"""
        conn = self.connect()
        dom = conn.createXML(machine("afar", devices=f"<console type='pty'/>{disks}"), libvirt.VIR_DOMAIN_START_PAUSED)
        self.addCleanup(self.gone, dom)
        console = resumed(conn, dom)
        console.expect(b"# ")
        console.type(b"dd if=/dev/urandom of=/r bs=1M count=3 && dd if=/r of=/dev/vda bs=64k conv=fsync && "
                     b"dd if=/r of=/dev/vdb bs=64k conv=fsync && md5sum /r | sed s/^/sum:/\n")
        console.expect(b"  /r\r\n")
        digest = console.seen.split(b"sum:")[-1][:32].decode()
        dom.destroy()
        for volume in ("two", "others"):
            self.virsh("vol-download", volume, f"{self.dir}/down", "--pool", "ceph", "--length", str(3 * MIB))
            with open(f"{self.dir}/down", "rb") as f:
                self.assertEqual(hashlib.md5(f.read()).hexdigest(), digest)

    def gone(self, dom):
        try:
            dom.destroy()
        except libvirt.libvirtError:
            pass

    def test_what_is_not_there(self):
        for kind in ("scsi", "mpath", "gluster", "zfs", "vstorage", "sheepdog"):
            self.assertIn(f"({kind})", self.virsh("pool-define-as", "x", kind, "--target", "/x", "--source-host", "h",
                                                  "--source-name", "n", "--source-path", "/p", fails=True))
        self.assertIn("unknown storage pool type", self.virsh("find-storage-pool-sources", "frob", fails=True))
        self.assertIn("hostname must be specified", self.virsh("find-storage-pool-sources", "iscsi", fails=True))
        caps = self.virsh("pool-capabilities")
        self.assertIn("<pool type='iscsi' supported='yes'>", caps)
        self.assertIn("<pool type='zfs' supported='no'>", caps)


if __name__ == "__main__":
    unittest.main()
