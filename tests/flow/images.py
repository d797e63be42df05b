# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of disk images share: formats, sources, and ours beside Debian's qemu-img."""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

IMG = os.path.abspath(os.environ.get("LODGE_IMG", os.path.join(os.path.dirname(__file__),
                                                               "../../build/lodge-img")))
QEMU_IMG = shutil.which("qemu-img")
MIB = 1 << 20

# Name: (format, options of -o or None).  Every format and subformat that can be created and written, with what qemu-img calls it.
FORMATS = {
    "raw": ("raw", None),
    "qcow2": ("qcow2", None),
    "qcow2-v2": ("qcow2", "compat=0.10"),
    "qcow2-512": ("qcow2", "cluster_size=512"),
    "qcow2-2m": ("qcow2", "cluster_size=2M"),
    "qcow2-extl2": ("qcow2", "extended_l2=on,cluster_size=128k"),
    "qcow2-zstd": ("qcow2", "compression_type=zstd"),
    "qcow2-ref1": ("qcow2", "refcount_bits=1"),
    "qcow2-ref64": ("qcow2", "refcount_bits=64"),
    "qcow2-meta": ("qcow2", "preallocation=metadata"),
    "qcow": ("qcow", None),
    "qed": ("qed", None),
    "qed-4k": ("qed", "cluster_size=4k"),
    "vdi": ("vdi", None),
    "vdi-static": ("vdi", "static=on"),
    "vmdk": ("vmdk", None),
    "vmdk-flat": ("vmdk", "subformat=monolithicFlat"),
    "vmdk-2gb": ("vmdk", "subformat=twoGbMaxExtentSparse"),
    "vmdk-2gbflat": ("vmdk", "subformat=twoGbMaxExtentFlat"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vpc": ("vpc", "force_size=on"),
    "vpc-fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", None),
    "vhdx-fixed": ("vhdx", "subformat=fixed"),
    "parallels": ("parallels", None),
}

BUSY_TRIES = 100  # of qemu-img to measure LUKS' hash on a busy machine


def run(*args, check=True, timeout=240, **more):
    """A program that is expected to end; its CompletedProcess, output as bytes."""
    stdin = more.pop("stdin", subprocess.DEVNULL)
    for _ in range(BUSY_TRIES):
        p = subprocess.run([str(a) for a in args], stdin=stdin, capture_output=True, timeout=timeout,
                           check=False, **more)
        if b"Unable to get accurate CPU usage" not in p.stderr:
            break
    if check and p.returncode:
        raise AssertionError(f"{' '.join(map(str, args))}: exit code {p.returncode}\n"
                             f"{p.stdout.decode(errors='replace')}"
                             f"{p.stderr.decode(errors='replace')}")
    return p


def img(*args, **more):
    """lodge-img."""
    return run(IMG, *args, **more)


def qemu_img(*args, **more):
    return run(QEMU_IMG, *args, **more)


def can_create(fmt):
    """Whether lodge-img knows the format: tests of others need not wait for it."""
    return img("create", "-f", fmt, "-o", "help", check=False).returncode == 0


CREATABLE = [f for f in ("raw", "qcow", "qcow2", "qed", "vdi", "vmdk", "vpc", "vhdx", "parallels", "luks")
             if can_create(f)]


def reaches(scheme):
    """Whether lodge-img was built with the client of a protocol."""
    p = img("info", f"{scheme}://127.0.0.1:1/x", check=False)
    return b"built without" not in p.stderr


def sha256_of(image, fmt=None, tool=None, size=None):
    """SHA-256 of the guest's bytes as `tool` (qemu-img if there is one) reads them; of the first
    `size` if given."""
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.abspath(image)),
                                     suffix=".raw") as out:
        run(tool or QEMU_IMG or IMG, "convert", *(("-f", fmt) if fmt else ()), "-O", "raw", image,
            out.name)
        return sha256_of_file(out.name, size)


def sha256_of_file(path, size=None):
    digest = hashlib.sha256()
    left = os.path.getsize(path) if size is None else size
    with open(path, "rb") as f:
        while left and (part := f.read(min(left, MIB))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def make_source(path, size=16 * MIB, seed=1):
    """A raw disk with all that a copy meets: text, noise, zeros, holes, and odd borders."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        at = 0
        while at < size:
            n = min(rng.choice((512, 4096, 65536, 200 * 512, 300 * 1024)), size - at)
            kind = rng.randrange(4)
            f.seek(at)
            if kind == 0:
                f.write(rng.randbytes(n))
            elif kind == 1:
                f.write((b"All work and no play makes %d a dull disk.\n" % at * (n // 16))[:n])
            elif kind == 2:
                f.write(bytes(n))
            at += n
    return path


class Folder(tempfile.TemporaryDirectory):
    """A scratch folder that is the working directory inside of `with`."""

    def __init__(self, prefix="lodge-img-"):
        super().__init__(prefix=prefix, dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)

    def __enter__(self):
        self.before = os.getcwd()
        os.chdir(self.name)
        return self.name

    def __exit__(self, *what):
        os.chdir(self.before)
        super().__exit__(*what)


SKIP = 77


def left_out(why):
    """Something that a package would bring is not here.  `make check` has installed all of them
    and says so in LODGE_ALL: there it is a failure."""
    if os.environ.get("LODGE_ALL") == "1":
        raise AssertionError(f"left out: {why}")
    print(f"     left out: {why}")


def need_qemu_img():
    if not QEMU_IMG:
        left_out("no qemu-img (Debian package qemu-utils)")
        sys.exit(SKIP)


def main(tests):
    """Runs all functions given, or those named on the command line; says what failed."""
    wanted = sys.argv[1:]
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        try:
            with Folder():
                test()
            print(f"ok   {test.__name__}", flush=True)
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print(f"FAIL {test.__name__}: {type(e).__name__}: {e}", flush=True)
            if not isinstance(e, AssertionError):
                import traceback
                traceback.print_exc()
    sys.exit(1 if failed else 0)
