# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that becomes full or breaks in the middle of any command: a clear error, exit code 1, the
source untouched, and what was changed in place not corrupt."""
import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
import unittest

IMG = os.environ["LODGE_IMG"]
FAULT = os.environ["LODGE_FAULT"]
MIB = 1 << 20
# Calls that fail first: the early ones each, then fewer and fewer.
MOMENTS = (1, 2, 3, 5, 8, 14, 25, 60, 150)
WRITERS = ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "parallels", "cow")


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Faults(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="lodge-fault-")
        self.addCleanup(self.dir.cleanup)
        self.source = self.path("source.raw")
        with open(self.source, "wb") as f:
            for i in range(24):
                f.seek(i * 160 * 1024)
                f.write(bytes([i + 1, 0x5a]) * 32768)
            f.truncate(4 * MIB)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def img(self, *args, fault=None, codes=(0,)):
        env = dict(os.environ)
        if fault:
            env.update(LD_PRELOAD=FAULT, FAULT_LOG=self.path("hit"), **fault)
        p = subprocess.run([IMG, *args], env=env, cwd=self.dir.name, capture_output=True, text=True,
                           timeout=60)
        self.assertIn(p.returncode, codes, (args, fault, p.stdout, p.stderr))
        return p

    def known(self, fmt):
        return subprocess.run([IMG, "create", "-q", "-f", fmt, self.path("probe." + fmt), "1M"],
                              capture_output=True).returncode == 0

    def each_moment(self, prepare, args, victim, kind, code, after, codes=(1,)):
        """Runs the command with the victim failing from ever later calls on, until none fails."""
        untouched = digest(self.source)
        for at in MOMENTS:
            prepare()
            if os.path.exists(self.path("hit")):
                os.unlink(self.path("hit"))
            fault = {"FAULT_FILE": victim, "FAULT_KIND": kind, "FAULT_AT": str(at),
                     "FAULT_ERRNO": str(code)}
            p = self.img(*args, fault=fault, codes=(0, *codes))
            hit = os.path.exists(self.path("hit"))
            with self.subTest(args=args, at=at, kind=kind):
                self.assertEqual(digest(self.source), untouched)
                if hit and p.returncode == 0:
                    # Only advice may fail without a word: giving back space, a shorter way to copy.
                    after(True)
                elif hit:
                    self.assertIn(p.returncode, codes)
                    self.assertIn("lodge-img: ", p.stdout + p.stderr)
                    told = [line for line in p.stderr.splitlines() if line.startswith("lodge-img: ")]
                    self.assertLessEqual(len(told), 4, p.stderr)
                    after(False)
            if not hit:
                return

    def same(self, fmt):
        def after(succeeded):
            if succeeded:
                self.img("compare", "-q", "-f", "raw", "-F", fmt, self.source, self.path("out"))
        return after

    def contents(self, name):
        self.img("convert", "-f", "qcow2", "-O", "raw", name, "contents")
        return digest(self.path("contents"))

    def not_lost(self, changed, expected):
        """What `check -r` mends is mended; what the guest sees has not changed."""
        def after(_):
            self.img("check", "-q", "-f", "qcow2", "-r", "all", self.path(changed), codes=(0, 2, 3))
            self.img("check", "-q", "-f", "qcow2", self.path(changed))
            if expected:
                self.assertEqual(self.contents("over"), expected)
        return after

    def fresh(self, *names):
        def prepare():
            for name in names:
                if os.path.exists(self.path(name)):
                    os.unlink(self.path(name))
        return prepare

    def kept(self, **files):
        """Copies of what was prepared once take the place of what the last run left."""
        def prepare():
            for name, keep in files.items():
                shutil.copy(self.path(keep), self.path(name))
        return prepare

    def test_a_full_disk_under_convert(self):
        for fmt in filter(self.known, WRITERS):
            size = ["-o", "force_size=on"] if fmt == "vpc" else []
            self.each_moment(self.fresh("out"), ["convert", "-f", "raw", "-O", fmt, *size, "source.raw", "out"],
                             "/out", "write", errno.ENOSPC, self.same(fmt))

    def test_a_full_disk_under_compression(self):
        self.each_moment(self.fresh("out"), ["convert", "-c", "-f", "raw", "-O", "qcow2", "source.raw", "out"],
                         "/out", "write", errno.ENOSPC, self.same("qcow2"))

    def test_a_broken_disk_under_create(self):
        for fmt in filter(self.known, WRITERS):
            self.each_moment(self.fresh("out"), ["create", "-q", "-f", fmt, "out", "4M"], "/out", "write",
                             errno.EIO, lambda _: None)

    def test_a_source_that_cannot_be_read(self):
        for fmt in filter(self.known, WRITERS):
            size = ["-o", "force_size=on"] if fmt == "vpc" else []
            self.img("convert", "-f", "raw", "-O", fmt, *size, "source.raw", "in.img")
            for args in (["convert", "-f", fmt, "-O", "raw", "in.img", "out"],
                         ["dd", "-f", fmt, "-O", "raw", "if=in.img", "of=out"],
                         ["info", "-f", fmt, "in.img"], ["map", "-f", fmt, "in.img"]):
                self.each_moment(self.fresh("out"), args, "in.img", "read", errno.EIO, lambda _: None)

    def test_who_only_reads_says_that_he_cannot(self):
        self.img("convert", "-f", "raw", "-O", "qcow2", "source.raw", "in.img")
        self.img("snapshot", "-c", "s", "in.img")
        self.img("bitmap", "-f", "qcow2", "--add", "in.img", "b")
        nothing = lambda _: None
        for args, codes in ((["compare", "-f", "raw", "-F", "qcow2", "source.raw", "in.img"], (2, 4)),
                            (["measure", "-f", "qcow2", "-O", "qcow2", "in.img"], (1,)),
                            (["checksum", "-f", "qcow2", "in.img"], (1,)),
                            (["check", "-f", "qcow2", "in.img"], (1,)),
                            (["snapshot", "-l", "in.img"], (1,)),
                            (["convert", "-l", "s", "-f", "qcow2", "-O", "raw", "in.img", "out"], (1,)),
                            (["bench", "-q", "-f", "qcow2", "-c", "50", "-s", "65536", "in.img"], (1,)),
                            (["export", "-q", "--force", "-f", "qcow2", "in.img", "out.ova"], (1,)),
                            (["create", "-q", "-f", "qcow2", "-b", "in.img", "-F", "qcow2", "out"], (1,))):
            self.each_moment(self.fresh("out", "out.ova"), args, "/in.img", "read", errno.EIO, nothing, codes)
        # What cannot be read from below is not invented, and the image stays as it is.
        self.layers()
        both = self.kept(over="over0", base="base0")
        both()
        contents = self.contents("over")
        for args, victim in ((["rebase", "-q", "-b", "", "over"], "/base"), (["commit", "-q", "over"], "/over")):
            self.each_moment(both, args, victim, "read", errno.EIO, self.not_lost("over", contents))

    def test_what_else_writes(self):
        self.layers()
        shutil.copy(self.path("over0"), self.path("damaged0"))
        with open(self.path("damaged0"), "r+b") as f:  # a refcount too high, and one too low
            f.seek(2 * 65536 + 2 * 4)
            f.write(bytes([0, 3, 0, 3]))
        with open(self.path("sparse0"), "wb") as f:
            f.write(bytes(MIB) + b"x" * MIB + bytes(2 * MIB))
        self.img("convert", "-S", "0", "-f", "raw", "-O", "qcow2", "sparse0", "full0")
        self.img("export", "-q", "-f", "raw", "source.raw", "one.ova")
        wanted = digest(self.path("sparse0"))

        def as_before(_):
            self.img("convert", "-f", "qcow2", "-O", "raw", "full", "contents")
            self.assertEqual(digest(self.path("contents")), wanted)

        for code in errno.ENOSPC, errno.EIO:
            self.each_moment(self.kept(over="damaged0", base="base0"), ["check", "-q", "-f", "qcow2", "-r", "all", "over"],
                             "/over", "write", code, self.not_lost("over", None))
            self.each_moment(self.kept(full="full0"), ["sparsify", "-q", "-f", "qcow2", "full"], "/full", "write", code,
                             as_before)
            self.each_moment(self.fresh("out.ova"), ["export", "-q", "--force", "-f", "raw", "source.raw", "out.ova"],
                             "lodge-export", "write", code, lambda _: None)
            self.each_moment(self.fresh(), ["import", "-q", "--force", "-O", "qcow2", "one.ova"],
                             ".qcow2", "write", code, lambda _: None)

    def layers(self):
        """base0 and over0: qcow2 images, the second over the first."""
        self.img("convert", "-f", "raw", "-O", "qcow2", "source.raw", "base0")
        self.img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-u", "over0", "4M")
        shutil.copy(self.path("base0"), self.path("base"))
        self.img("bench", "-q", "-f", "qcow2", "-w", "-c", "40", "-s", "8192", "-S", "90112", "over0")

    def test_in_place_commands_leave_no_corruption(self):
        self.layers()
        self.img("snapshot", "-c", "s", "over0")
        shutil.copy(self.path("over0"), self.path("snap0"))
        self.img("snapshot", "-d", "s", "over0")
        both = self.kept(over="over0", base="base0")
        cases = [
            (both, ["commit", "-q", "over"], "base", "/base"),
            (both, ["commit", "-q", "over"], "over", "/over"),
            (both, ["rebase", "-q", "-b", "", "over"], "over", "/over"),
            (both, ["resize", "-q", "-f", "qcow2", "over", "64M"], "over", "/over"),
            (both, ["amend", "-q", "-f", "qcow2", "-o", "compat=0.10", "over"], "over", "/over"),
            (both, ["amend", "-q", "-f", "qcow2", "-o", "refcount_bits=64", "over"], "over", "/over"),
            (both, ["snapshot", "-q", "-c", "n", "over"], "over", "/over"),
            (self.kept(over="snap0", base="base0"), ["snapshot", "-q", "-a", "s", "over"], "over", "/over"),
            (self.kept(over="snap0", base="base0"), ["snapshot", "-q", "-d", "s", "over"], "over", "/over"),
            (both, ["bitmap", "-f", "qcow2", "--add", "over", "b"], "over", "/over"),
            (both, ["bench", "-q", "-f", "qcow2", "-w", "-c", "60", "over"], "over", "/over"),
        ]
        both()
        contents = self.contents("over")
        for prepare, args, changed, victim in cases:
            same = None if args[0] in ("bench", "resize") or "-a" in args else contents
            for code in errno.ENOSPC, errno.EIO:
                self.each_moment(prepare, args, victim, "write", code, self.not_lost(changed, same))


if __name__ == "__main__":
    unittest.main(verbosity=2)
