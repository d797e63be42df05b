# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make install` leaves below DESTDIR, and that it runs from there."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from guest import BUILD, UP, Machine, tiny

PROGRAMS = {"lodge-vm": "bin", "lodge-img": "bin", "lodged": "sbin"}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="lodge-install-")
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", cls.folder.name],
                       check=True)
        cls.root = next(pathlib.Path(cls.folder.name).rglob("bin/lodge-vm")).parents[1]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def program(self, name):
        return str(self.root / PROGRAMS[name] / name)

    def ran(self, *command):
        p = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return p.returncode, p.stdout, p.stderr

    def test_programs_say_who_they_are(self):
        for name in PROGRAMS:
            code, out, err = self.ran(self.program(name), "--version")
            self.assertEqual((code, err), (0, ""), name)
            self.assertTrue(out.startswith(name), out)

    def test_nothing_points_to_the_build_folder(self):
        for path in self.root.rglob("*"):
            if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
                out = self.ran("readelf", "-dW", path)[1]
                self.assertNotRegex(out, "RPATH|RUNPATH", path)

    def test_modules_are_found(self):
        modules = list(self.root.rglob("lodge/image-*.so"))
        self.assertIn("image-nbd.so", [m.name for m in modules])
        err = self.ran(self.program("lodge-img"), "info", "nbd:unix:/no/such")[2]
        self.assertIn("Failed to connect to '/no/such'", err)
        hidden = self.root / "hidden"
        modules[0].parent.rename(hidden)
        try:
            err = self.ran(self.program("lodge-img"), "info", "nbd:unix:/no/such")[2]
            self.assertNotIn("Failed to connect", err)
            self.assertEqual(err.count("\n"), 1, err)
        finally:
            hidden.rename(modules[0].parent)

    def test_a_guest_boots(self):
        with Machine(["-accel", "bt", "-no-reboot", *tiny("poweroff")], program=self.program("lodge-vm")) as m:
            m.expect(UP)
            self.assertEqual(m.wait(), 0)

    def test_man_pages_are_clean_and_name_every_option(self):
        for name in ("lodge-vm", "lodge-img"):
            page = self.root / "share" / "man" / "man1" / f"{name}.1"
            self.assertEqual(self.ran("groff", "-man", "-ww", "-Wbreak", "-z", page), (0, "", ""))
            text = page.read_text(encoding="utf-8").replace("\\-", "-")
            for option in re.findall(r"^(-[\w-]+)", self.ran(self.program(name), "--help")[1], re.M):
                self.assertIn(option, text, name)

    def test_bash_completes(self):
        script = self.root / "share" / "bash-completion" / "completions" / "lodge-img.bash"
        out = self.ran("bash", "-c", f". {script}; COMP_WORDS=(lodge-img comp); COMP_CWORD=1; _lodge_img; "
                       "echo ${COMPREPLY[@]}")
        self.assertEqual(out, (0, "compare\n", ""))

    def test_other_shells_get_theirs(self):
        self.assertTrue((self.root / "share/zsh/site-functions/_lodge-img").exists())
        self.assertTrue((self.root / "share/fish/vendor_completions.d/lodge-img.fish").exists())


if __name__ == "__main__":
    unittest.main()
