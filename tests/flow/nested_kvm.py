#!/usr/bin/python3
"""The KVM engine on real KVM, on hosts without it: inside an emulated machine with SVM.

The outer machine is Debian's QEMU under software emulation with `-cpu EPYC,+svm,+npt`; its
initramfs holds lodge-vm with its libraries, the kernel's kvm modules, and the inner guest.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from guest import BUILD, LODGE, UP, Failed, Machine, guest_file, main

MODULES = ["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko"]
FIRMWARE = ["/usr/share/seabios/bios-256k.bin"]


def libraries(program):
    """The shared objects that a program maps, its loader included."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+\.so\S*)", out)))


def put(tree, path, where=None):
    target = tree / (where or path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def outer_initrd(script, to):
    """The tiny guest's tree with everything that the script needs."""
    with tempfile.TemporaryDirectory() as tmp:
        tree = pathlib.Path(tmp) / "tree"
        shutil.copytree(BUILD / "guests/tiny/tree", tree, symlinks=True)
        put(tree, LODGE, "/lodge/lodge-vm")
        for lib in libraries(LODGE):
            put(tree, lib)
        for f in FIRMWARE:
            put(tree, f)
        modules = next((BUILD / "guests/tiny/root/lib/modules").glob("*/kernel"))
        for m in MODULES:
            put(tree, str(modules / m), "/kvm/" + os.path.basename(m))
        put(tree, guest_file("tiny", "vmlinuz"), "/inner/vmlinuz")
        put(tree, guest_file("tiny", "initrd"), "/inner/initrd")
        (tree / "nested").write_text(script)
        subprocess.run(f"find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 >'{to}'",
                       shell=True, cwd=tree, check=True)


def in_outer(script, cpus=2, module_options="", seconds=600):
    """Runs a shell script inside the outer machine; its serial output."""
    initrd = BUILD / "guests" / "nested.initrd"
    head = "mkdir -p /run; for m in irqbypass kvm; do insmod /kvm/$m.ko; done\n" \
           f"insmod /kvm/kvm-amd.ko {module_options}\nls -l /dev/kvm\ncd /inner\n"
    outer_initrd(head + script + "\necho nested-end\n", initrd)
    with Machine(["-accel", "tcg", "-cpu", "EPYC,+svm,+npt", "-smp", str(cpus), "-m", "1536",
                  "-no-reboot", "-kernel", guest_file("tiny", "vmlinuz"), "-initrd", str(initrd),
                  "-append", "console=ttyS0 panic=-1 quiet lodge.run=/nested"],
                 program="qemu-system-x86_64") as m:
        m.expect("nested-end", seconds)
        m.wait(60)
        return m.seen


INNER = ("-m 256 -display none -serial stdio -nodefaults -no-reboot -kernel vmlinuz -initrd initrd "
         "-append 'console=ttyS0 panic=-1 quiet lodge.run=poweroff'")


def boots(options, module_options="", times=1):
    out = in_outer(f"/lodge/lodge-vm {options} {INNER} </dev/null; echo inner-exit-$?",
                   module_options=module_options)
    if out.count(UP) < times + 1 or "inner-exit-0" not in out:
        raise Failed(out[-3000:])
    if "bt" in re.findall(r"lodge-vm: .*", out):
        raise Failed("the engine was not kvm")


def self_test():
    """With real KVM under it the default engine is kvm, without a word."""
    out = in_outer(f"/lodge/lodge-vm {INNER} </dev/null 2>/tmp/err; echo inner-exit-$?; cat /tmp/err")
    if out.count(UP) < 2 or "inner-exit-0" not in out or "/dev/kvm" in out.split("inner-exit-0")[1]:
        raise Failed(out[-3000:])


TESTS = {
    "kvm-pc": lambda: boots("-accel kvm -M pc"),
    "kvm-q35-smp": lambda: boots("-accel kvm -M q35 -smp 2"),
    "kvm-pc-smp": lambda: boots("-accel kvm -M pc -smp 2"),
    "kvm-shadow-paging": lambda: boots("-accel kvm -M pc", "npt=0"),
}

if __name__ == "__main__":
    main(TESTS)
