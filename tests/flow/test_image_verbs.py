#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge-img beside Debian's qemu-img: the same command lines, the same output and exit code."""
import os
import re
import shlex

import images
from images import img, run


def both(*lines):
    """Runs shell lines with $Q as each of the two, in folders of their own; compares all they
    print and their exit codes."""
    seen = {}
    for who, program in (("qemu", images.QEMU_IMG), ("lodge", images.IMG)):
        os.makedirs(who)
        os.makedirs(f"bin-{who}")
        link = os.path.abspath(f"bin-{who}/qemu-img")
        os.symlink(program, link)
        seen[who] = []
        for line in lines:
            p = run("sh", "-c", line, cwd=who, check=False, env={**os.environ, "Q": link, "TZ": "UTC"})
            seen[who].append((line, p.returncode, clean(p.stdout), clean(p.stderr)))
    wrong = [f"\n--- qemu-img:  {q}\n--- lodge-img: {o}" for q, o in zip(seen["qemu"], seen["lodge"])
             if q != o]
    for who in ("qemu", "lodge"):
        run("rm", "-rf", who, f"bin-{who}")
    assert not wrong, "".join(wrong)


def clean(data):
    """Times, and folders of the two, are not the same."""
    text = data.decode()
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r'("date-n?sec": )\d+', r"\1N", text)
    text = re.sub(r'(\bcid"?: )\d+', r"\1N", text)  # of a vmdk, random
    text = re.sub(r"in \d+\.\d+ seconds", "in T seconds", text)
    text = re.sub(r"(Image end offset|disk size): .*", r"\1: N", text)  # where space is taken is ours
    text = re.sub(r'("actual-size|"image-end-offset)": \d+', r"\1: N", text)
    text = re.sub(r"\d+\.\d+% fragmented", "N% fragmented", text)
    return text.rstrip("\n").replace("/qemu/", "/X/").replace("/lodge/", "/X/")


def test_usage():
    both("$Q", "$Q foo", "$Q -x", "$Q create", "$Q create -f", "$Q create -z", "$Q create --foo",
         "$Q create a.raw", "$Q create a.raw 1 2", "$Q create a.raw 1Q", "$Q create a.raw -- -5",
         "$Q create a.raw 9E", "$Q create a.raw 99999999999999999999", "$Q create a.raw 1.5",
         "$Q create a.raw 1.5k && wc -c a.raw", "$Q create a.raw 0x100 && wc -c a.raw",
         "$Q info", "$Q info a b", "$Q info --output=foo a", "$Q info nofile", "$Q info -f foo a.raw",
         "$Q map", "$Q map --output=foo a", "$Q check", "$Q check -r foo a", "$Q check nofile",
         "$Q snapshot", "$Q snapshot -a a -d b a.raw", "$Q convert", "$Q convert a.raw",
         "$Q convert -S x a.raw b", "$Q convert -m 99 a.raw b", "$Q convert -m 0 a.raw b",
         "$Q convert nofile b", "$Q convert --target-is-zero a.raw b", "$Q convert -O foo a.raw b",
         "$Q convert -B x -O raw a.raw b", "$Q convert -n a.raw none", "$Q convert -c -O raw a.raw b",
         "$Q convert -C -S 4k a.raw b", "$Q convert -C -c a.raw b", "$Q convert -t foo a.raw b",
         "$Q convert -T foo a.raw b", "$Q convert --target-image-opts a.raw b",
         "$Q convert -l x a.raw b")


def test_raw():
    both("$Q create -f raw a.raw 10M", "$Q create -q a.raw 1M; ls -l a.raw | cut -c1-10",
         "head -c 4096 /dev/zero | dd of=a.raw conv=notrunc status=none",
         "$Q create -f raw -o help a.raw", "$Q create -o '?' a.raw",
         "$Q create -o size=2M b.raw", "$Q create -f raw -o preallocation=full c.raw 1M",
         "$Q create -o foo=1 c.raw 1M",
         "$Q create -b a.raw c.raw", "$Q create -b a.raw -F raw c.raw",
         "$Q info a.raw", "$Q info --output=json a.raw", "$Q info --backing-chain --output=json a.raw",
         "$Q info --image-opts driver=raw,file.filename=a.raw", "$Q info --image-opts -f raw x",
         "$Q info 'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"a.raw\"}}'",
         "$Q info file:a.raw", "$Q info foo:bar", "$Q info ''",
         "$Q map a.raw", "$Q map --output=json a.raw", "$Q map -s 4k -l 64k --output=json a.raw",
         "$Q map --start-offset=20M a.raw", "$Q check a.raw", "$Q check --output=json a.raw",
         "$Q snapshot -l a.raw", "$Q snapshot a.raw", "$Q snapshot -c x a.raw",
         "$Q snapshot -d x a.raw", "$Q convert a.raw d.raw && cmp a.raw d.raw",
         "$Q convert -p -f raw a.raw d.raw | tr '\\r' '\\n' | sed -n '1p;$p'",
         "$Q convert a.raw b.raw e.raw && wc -c e.raw", "$Q convert -n a.raw b.raw; wc -c b.raw",
         "$Q convert -n b.raw e.raw && wc -c e.raw", "ls")


DATA = ("head -c 4194304 /dev/zero | tr '\\0' '\\377' > a.raw; truncate -s 10M a.raw; "
        "printf hello | dd of=a.raw bs=1 seek=6000000 conv=notrunc status=none")


def test_raw_more():
    both(DATA, "$Q resize a.raw", "$Q resize -f raw a.raw -5M", "$Q resize -f raw a.raw +1M",
         "$Q resize -f raw a.raw foo", "$Q resize -f raw a.raw +", "$Q resize a.raw 5M",
         "$Q resize -f raw --shrink a.raw -20M", "$Q resize -f raw --preallocation=foo a.raw 20M",
         "$Q resize -f raw --preallocation=full --shrink a.raw 5M", "$Q resize", "$Q resize a b 5",
         "$Q resize -f raw --preallocation=falloc a.raw 12M", "$Q info a.raw | grep virtual",
         "$Q resize -q --shrink -f raw a.raw 10M; wc -c a.raw",
         "$Q rebase", "$Q rebase a.raw", "$Q rebase -f raw -b y a.raw", "$Q rebase -u -f raw -b y a.raw",
         "$Q rebase -T foo -b y a.raw", "$Q rebase -t foo -b y a.raw",
         "$Q commit a.raw", "$Q commit -f raw a.raw", "$Q commit -b y -f raw a.raw",
         "$Q amend a.raw", "$Q amend -o foo=1 a.raw", "$Q amend -o help", "$Q amend -f raw -o size=1 a.raw",
         "$Q amend -o compat=v2 nofile", "$Q bench", "$Q bench -c 10 -d 2 -s 512 -f raw a.raw",
         "$Q bench -w -c 10 -f raw --flush-interval 3 a.raw", "$Q bench -c 10 -f raw --flush-interval 3 a.raw",
         "$Q bench -w -c 100 -d 4 -f raw --flush-interval 10 --pattern 255 -S 8k -o 4k a.raw",
         "$Q bench -w -c 100 -d 4 -f raw --flush-interval 10 --no-drain a.raw", "cksum a.raw",
         "$Q bitmap", "$Q bitmap a.raw b", "$Q bitmap --add a.raw", "$Q bitmap --add -g 3 -f raw a.raw b",
         "$Q bitmap --remove -g 512 a.raw b", "$Q bitmap --add -F raw a.raw b", "$Q bitmap --add -b x a.raw b",
         "$Q dd", "$Q dd if=a.raw", "$Q dd if=a.raw of=b.raw bs=1M count=2 skip=1; cksum b.raw",
         "$Q dd if=a.raw of=b.raw bs=0", "$Q dd if=a.raw of=b.raw bs=x", "$Q dd if=a.raw of=b.raw foo=1",
         "$Q dd if=a.raw of=b.raw foo", "$Q dd if=a.raw of=b.raw skip=11M bs=1; wc -c b.raw",
         "$Q dd bs=4k if=a.raw of=b.raw skip=2; cksum b.raw",
         "$Q dd if=nofile of=b.raw",
         "$Q measure", "$Q measure -O raw", "$Q measure --size 1G -O foo", "$Q measure --size 1G a.raw",
         "$Q measure a b", "$Q measure --size 1G", "$Q measure -O raw a.raw", "$Q measure --output=json a.raw",
         "$Q measure -f raw -l foo a.raw",
         "$Q compare", "$Q compare a.raw", "$Q compare a.raw nofile", "$Q compare nofile a.raw",
         "$Q compare a.raw a.raw", "$Q compare -s a.raw a.raw", "$Q compare -T foo a.raw a.raw",
         "$Q compare -q a.raw a.raw", "cp a.raw c.raw; printf x | dd of=c.raw bs=1 seek=5001 conv=notrunc status=none",
         "$Q compare a.raw c.raw", "$Q compare -q a.raw c.raw", "$Q compare -s a.raw c.raw",
         "$Q compare a.raw b.raw", "$Q compare -s a.raw b.raw", "truncate -s 12M a.raw", "$Q compare c.raw a.raw",
         "cp a.raw c.raw; truncate -s 14M c.raw", "$Q compare c.raw a.raw", "$Q compare a.raw c.raw",
         "$Q compare -p a.raw c.raw | tr '\\r' '\\n' | sed -n '1p;$p'",
         "$Q map a.raw", "$Q map --output=json a.raw")


def test_create_help():
    names = "sed 's/ *- .*//'"  # the words are ours
    both(*(f"$Q create -f {fmt} -o help x | {names}" for fmt in images.CREATABLE),
         *(f"$Q create -f {fmt} -o help x" for fmt in ("bochs", "cloop", "dmg", "foo")),
         *(f"$Q create -f {fmt} -o help | {names}" for fmt in ("qcow2", "vhdx", "vpc")),
         "$Q convert -O qcow2 -o help", "$Q convert -O vdi -o help a b",
         "$Q amend -f qcow2 -o help", f"$Q amend -f luks -o help | {names}", "$Q amend -f vdi -o help", "ls")


def test_create_lines():
    both("$Q create -f raw -o nocow=on,extent_size_hint=1M h.raw 1M; ls h.raw",
         "$Q create -f qcow2 -o extent_size_hint=1M,cluster_size=3 h.qcow2 1M; ls h.qcow2",
         *(f"$Q create -f {fmt} t.{fmt} 64M; $Q info t.{fmt} | grep -v 'cid\\|disk size'"
           for fmt in images.CREATABLE if fmt != "luks"),
         "$Q create -f qcow2 -o compat=v3,cluster_size=32k,preallocation=metadata,lazy_refcounts=on,"
         "refcount_bits=8,nocow=on,compression_type=zstd,extended_l2=off a 10M",
         "$Q create -f qcow2 -o data_file=d.raw,data_file_raw=on b 10M", "$Q info b",
         *(["$Q create -f vmdk -o subformat=monolithicFlat,adapter_type=lsilogic,hwversion=4 v.vmdk 64M"]
           if "vmdk" in images.CREATABLE else []),
         "$Q create -f vpc -o force_size=on,subformat=fixed v.vpc 64M",
         "$Q create -f vhdx -o block_size=1M,subformat=fixed,log_size=2M,block_state_zero=on v.x 64M",
         "$Q create -f qed -o cluster_size=4k,table_size=2,backing_file=a,backing_fmt=qcow2 q.qed 64M",
         "$Q create -f qcow -o backing_file=a,backing_fmt=qcow2 q.qcow 64M",
         "$Q create -f parallels -o cluster_size=2M p.p 64M", "$Q create -f vdi -o static=on v.vdi 64M",
         "$Q create -f qcow2 -b a -F qcow2 o", "$Q create -f qcow2 -b 'a,b' -F qcow2 -u o 5M",
         "$Q create -f qcow2 -b a o2", "$Q create -f qcow2 -b nofile o2", "$Q create -f qcow2 -b nofile o2 1G",
         "$Q create -f qcow2 -b nofile -F qcow2 o2", "$Q create -f qcow2 -b '' -F qcow2 o2",
         "$Q create -f qcow2 -b o2 -F qcow2 o2", "$Q create -f qcow2 -u -b a o2 1M",
         "$Q create -f qcow2 -b a -F foo o2", "$Q create -f qcow2 -b a -F qcow2 -o size=3M o2",
         "$Q create -f qcow2 -o cluster_size=1 o3 1M", "$Q create -f qcow2 -o cluster_size=3M o3 1M",
         "$Q create -f qcow2 -o foo=1 o3 1M", "$Q create -f qcow2 -o lazy_refcounts=5 o3 1M",
         "$Q create -f qcow2 -o refcount_bits=x o3 1M",
         "$Q create -f qcow2 -o refcount_bits=3 o3 1M", "$Q create -f qcow2 -o compat=v2,lazy_refcounts=on o3 1M", "$Q create -f qcow2 o3 1E",
         "$Q create -f qcow2 -o data_file_raw=on o3 1M", "$Q create -q -f qcow2 o4 1M")


QCOW2 = ("$Q create -q -f qcow2 base.qcow2 8M; qemu-io -c 'write -P 1 0 1M' -c 'write -P 2 3M 100k' "
         "-c 'write -z 5M 64k' base.qcow2 >/dev/null",
         "$Q create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2; qemu-io -c 'write -P 3 64k 64k' "
         "-c 'write -P 4 3M 4k' -c 'write -z 512k 64k' top.qcow2 > /dev/null",
         "$Q create -q -f qcow2 -b $PWD/top.qcow2 -F qcow2 third.qcow2 12M")


def test_qcow2_info():
    both(*QCOW2, *(f"$Q {verb} {name}" for name in ("base.qcow2", "top.qcow2", "third.qcow2")
                   for verb in ("info", "info --output=json", "info --backing-chain", "check",
                                "info --backing-chain --output=json", "check --output=json", "check -q",
                                "map", "map --output=json", "measure", "measure -O qcow2",
                                "measure --output=json -O qcow2 -o cluster_size=4k")),
         "$Q measure -O qcow2 --size 1T", "$Q measure -O qcow2 -o cluster_size=512 --size 10G",
         "$Q measure -O qcow2 -o preallocation=full --size 10G", 
         "$Q measure -O qcow2 -o extended_l2=on,cluster_size=128k --size 10G",
         "$Q create -q -f qcow2 -b self -F qcow2 -u self 1M; $Q info self; $Q info --backing-chain self",
         "$Q create -q -f qcow2 -b nofile -F qcow2 -u dangling 1M; $Q info dangling; "
         "$Q info --backing-chain dangling")


def test_snapshots():
    both(*QCOW2, "$Q snapshot -l base.qcow2", "$Q snapshot -c one base.qcow2",
         "$Q snapshot -c averyveryverylongname_indeed base.qcow2", "$Q snapshot -l base.qcow2",
         "$Q info base.qcow2", "$Q info --output=json base.qcow2",
         "qemu-io -c 'write -P 9 0 2M' base.qcow2 > /dev/null", "$Q check base.qcow2",
         "$Q convert -l one base.qcow2 one.raw; cksum one.raw",
         "$Q convert -l snapshot.name=one base.qcow2 one.raw; cksum one.raw",
         "$Q convert -l snapshot.id=2 base.qcow2 one.raw; cksum one.raw",
         "$Q measure -l one -O qcow2 base.qcow2",
         "$Q snapshot -a one base.qcow2", "$Q convert base.qcow2 one.raw; cksum one.raw",
         "$Q snapshot -d nosuch base.qcow2",
         "$Q snapshot -d one base.qcow2", "$Q snapshot -d averyveryverylongname_indeed base.qcow2", "$Q snapshot -l base.qcow2",
         "$Q check base.qcow2", "$Q convert base.qcow2 one.raw; cksum one.raw",
         "$Q snapshot -q -c x base.qcow2; $Q snapshot -l -a x base.qcow2")


def test_commit_and_rebase():
    both(*QCOW2, "cp base.qcow2 base2.qcow2; cp top.qcow2 top2.qcow2; cp third.qcow2 third2.qcow2",
         "$Q convert third.qcow2 want.raw; cksum want.raw", "$Q compare top.qcow2 base.qcow2",
         "$Q rebase -b base.qcow2 -F qcow2 third.qcow2; $Q compare third.qcow2 want.raw",
         "$Q info third.qcow2 | grep -v 'disk size'", "$Q check third.qcow2",
         "$Q rebase -b '' third.qcow2; $Q compare third.qcow2 want.raw; $Q info third.qcow2 | grep back",
         "$Q rebase -u -b base.qcow2 -F qcow2 third.qcow2; $Q info third.qcow2 | grep back",
         "$Q rebase -u -b base.qcow2 third.qcow2", "$Q rebase -b nofile -F qcow2 third.qcow2",
         "$Q rebase -b base.qcow2 -F foo third.qcow2",
         "$Q commit -p top.qcow2 | tr '\\r' '\\n' | sed -n '1p;$p'", "$Q map --output=json top.qcow2",
         "$Q check top.qcow2", "$Q check base.qcow2", "$Q convert top.qcow2 t.raw; $Q compare t.raw base.qcow2",
         "cp base2.qcow2 base.qcow2; cp top2.qcow2 top.qcow2; cp third2.qcow2 third.qcow2",
         "qemu-io -c 'write -P 7 10M 64k' third.qcow2 > /dev/null; $Q convert third.qcow2 want.raw",
         "$Q commit -d -b base.qcow2 third.qcow2; $Q compare base.qcow2 want.raw; $Q info base.qcow2 | grep virt",
         "$Q commit -q -b nosuch third.qcow2", "$Q commit base.qcow2")


def test_resize_and_amend():
    both(*QCOW2, "$Q resize base.qcow2 +8M", "$Q info base.qcow2 | grep virtual", "$Q check base.qcow2",
         "$Q resize base.qcow2 4M", "$Q resize --shrink base.qcow2 4M", "$Q check base.qcow2",
         "$Q convert base.qcow2 b.raw; cksum b.raw", "$Q resize --preallocation=metadata base.qcow2 6M",
         "$Q resize --preallocation=full base.qcow2 7M; $Q check base.qcow2",
         "$Q resize -q base.qcow2 0", "$Q amend -o compat=0.10 base.qcow2; $Q info base.qcow2 | grep -v 'disk size'",
         "$Q amend -o compat=1.1,lazy_refcounts=on base.qcow2; $Q info base.qcow2 | grep lazy",
         "$Q amend -p -o refcount_bits=64 base.qcow2 | tr '\\r' '\\n' | sed -n '1p;$p'; $Q info base.qcow2 | grep refc",
         "$Q amend -o size=9M base.qcow2; $Q info base.qcow2 | grep virtual", "$Q check base.qcow2",
         "$Q amend -o foo=1 base.qcow2", 
         "$Q amend -o refcount_bits=3 base.qcow2", "$Q amend -o help base.qcow2",
         "$Q resize -f vdi nofile 1M",
         *(f"$Q create -q -f {fmt} t.{fmt} 64M; $Q amend -f {fmt} -o size=1M t.{fmt}"
           for fmt in ("vdi", "qed", "vpc", "vhdx", "parallels", "qcow")))


def test_bitmaps():
    both("$Q create -q -f qcow2 a.qcow2 8M", "$Q map --format qcow2 a.qcow2", "$Q bitmap --add a.qcow2 b0", "$Q bitmap --add -g 32k a.qcow2 b1",
         "$Q bitmap --add a.qcow2 b0", "$Q info a.qcow2", "$Q info --output=json a.qcow2",
         "$Q bitmap --disable a.qcow2 b0", "$Q info a.qcow2", "$Q bitmap --enable --clear a.qcow2 b0",
         "qemu-io -c 'write -P 1 1M 100k' a.qcow2 > /dev/null", "$Q bitmap --add --merge b0 a.qcow2 b2",
         "$Q bitmap --remove a.qcow2 b1", "$Q bitmap --remove a.qcow2 nosuch", "$Q info a.qcow2",
         "$Q bitmap --add --granularity 64k a.qcow2 b3", "$Q info --format qcow2 a.qcow2",
         "$Q check --format qcow2 --repair leaks a.qcow2",
         "$Q check a.qcow2", "$Q convert --bitmaps -O qcow2 a.qcow2 c.qcow2; $Q info c.qcow2; $Q check c.qcow2",
         "$Q create -q -f qcow2 d.qcow2 8M; $Q bitmap --add d.qcow2 x; $Q bitmap --merge b0 -b a.qcow2 -F qcow2 d.qcow2 x",
         "$Q convert --bitmaps -O raw a.qcow2 c.raw", "$Q convert --skip-broken-bitmaps a.qcow2 c.raw",
         "$Q measure -O qcow2 a.qcow2", "$Q measure --output=json -O qcow2 a.qcow2")


def test_check():
    """Broken in known places: what is found, and what a repair makes of it."""
    poke = "printf '\\000' | dd of=b.qcow2 bs=1 seek=%d conv=notrunc status=none"
    both(*QCOW2, "cp base.qcow2 b.qcow2; truncate -s +200k b.qcow2; $Q check b.qcow2; $Q check --output=json b.qcow2",
         # A refcount of a used cluster, then of one that nobody uses.
         "cp base.qcow2 b.qcow2; " + poke % (131072 + 2 * 5 + 1) + "; $Q check b.qcow2; $Q check --output=json b.qcow2; "
         "$Q check -q b.qcow2; $Q check -r leaks b.qcow2; $Q check -r all b.qcow2 2>/dev/null; $Q check b.qcow2",
         "cp base.qcow2 b.qcow2; printf '\\001' | dd of=b.qcow2 bs=1 seek=131291 conv=notrunc status=none; "
         "truncate -s +4M b.qcow2; $Q check b.qcow2; $Q check -r leaks b.qcow2; $Q check b.qcow2",
         *(f"$Q create -q -f {fmt} t.{fmt} 64M; $Q check t.{fmt}; $Q check --output=json t.{fmt}"
           for fmt in ("qcow", "vdi", "vmdk", "vpc", "qed", "vhdx", "parallels") if fmt in images.CREATABLE))


def test_compare_formats():
    both(*QCOW2, "$Q convert -O raw base.qcow2 r.raw; $Q convert -O vdi base.qcow2 v.vdi",
         "$Q compare base.qcow2 r.raw", "$Q compare -s base.qcow2 r.raw", "$Q compare base.qcow2 v.vdi",
         "$Q compare -f qcow2 -F vdi base.qcow2 v.vdi", "$Q compare -f raw base.qcow2 r.raw",
         "$Q compare -s base.qcow2 top.qcow2",
         "$Q compare top.qcow2 third.qcow2", "$Q compare -s top.qcow2 third.qcow2", "$Q compare -q top.qcow2 v.vdi",
         "$Q dd -f qcow2 -O qcow2 if=base.qcow2 of=dd.qcow2 bs=64k skip=1 count=40; $Q convert dd.qcow2 r.raw; cksum r.raw")


def test_all_formats():
    """What both tell of images that qemu-img made."""
    images.make_source("src.raw", 3 << 20)
    for name, (fmt, options) in images.FORMATS.items():
        if fmt not in images.CREATABLE:
            continue
        verbs = ["info", "info --output=json", "check", "check --output=json", "measure -O raw"]
        if fmt != "vhdx" and name not in ("qcow2-2m", "qcow2-extl2"):  # of which we know more
            verbs += ["map", "map --output=json", "measure -O qcow2"]
        made = f"$Q convert -f raw -O {fmt} {'-o ' + options if options else ''} $S t.img"
        both("qemu-img" + made[2:].replace("$S", "../src.raw"), *(f"$Q {v} -f {fmt} t.img" for v in verbs))


def test_secrets():
    both("$Q create a.raw 1M", "$Q info --object foo a.raw",
         "$Q info --object foo,id=x a.raw", "$Q info --object secret,data=5 a.raw",
         "$Q info --object secret,id=x,data=5 a.raw | grep virtual")


def test_lean():
    """What a local image does not need is not mapped: half of qemu-img's start is its libraries."""
    needed = run("ldd", images.IMG).stdout.decode()
    for library in ("gio-2.0", "gnutls", "libnbd", "libcurl", "libssh", "libiscsi", "libnfs", "librbd"):
        assert library not in needed, f"lodge-img maps {library}"


def test_nodes_in_nodes():
    """A format below a format, parts of raw disks, disks that keep nothing."""
    make = ["$Q create -q -f qcow2 a.qcow2 8M", "qemu-io -c 'write -P 3 300k 100k' a.qcow2 >/dev/null",
            "cp a.qcow2 b && truncate -s +64k b && (head -c 65536 /dev/zero; cat b) > part.raw"]
    part = '{"driver": "raw", "offset": 65536, "file": {"driver": "file", "filename": "part.raw"}}'
    both(*make,
         f"$Q map --output=json 'json:{{\"driver\": \"qcow2\", \"file\": {part}}}'",
         f"$Q convert -O raw 'json:{{\"driver\": \"qcow2\", \"file\": {part}}}' out.raw && sha256sum out.raw",
         f"$Q check 'json:{{\"driver\": \"qcow2\", \"file\": {part}}}'",
         "$Q convert -n -O raw a.qcow2 nofile 2>/dev/null; $Q create -q -f raw deep.raw 8M",
         "$Q create -q -f qcow2 outer.qcow2 16M",
         # An image inside a disk grows there, and says when that disk is full.
         "$Q convert -n -f qcow2 --target-image-opts a.qcow2 driver=raw,file.driver=qcow2,file.file.filename=outer.qcow2"
         " && $Q compare -f qcow2 -F qcow2 a.qcow2 outer.qcow2",
         "$Q info --image-opts driver=qcow2,file.driver=raw,file.file.driver=file,file.file.filename=a.qcow2",
         "$Q create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2",
         f"$Q map 'json:{{\"driver\": \"qcow2\", \"backing\": {part}, \"file\": {{\"driver\": \"file\", "
         "\"filename\": \"top.qcow2\"}}'",
         "$Q info null-co://", "$Q bench -c 10 -f raw -w null-co://", "$Q bench -c 10 -f raw -i io_uring null-aio://",
         "$Q convert -O raw 'json:{\"driver\":\"null-co\",\"size\":1048576,\"read-zeroes\":true}' x && stat -c %s x",
         "$Q info --image-opts driver=file,filename=a.qcow2", "$Q info /dev/null",
         "$Q create -q -f qcow2 file:a:b.qcow2 1M && $Q info file:a:b.qcow2 && ls",
         "$Q info --image-opts driver=raw,size=1M,file.filename=part.raw | tail -3",
         "$Q resize -f raw --image-opts driver=raw,size=1M,file.filename=part.raw 2M",
         "$Q create -f qcow2 x.qcow2 1G -o size=2G")
    # What is above writes as it likes, growth of the image in which it lies included.
    img("create", "-q", "-f", "qcow2", "outer.qcow2", "1M")
    inner = '{"driver": "qcow2", "file": {"driver": "qcow2", "file": {"filename": "outer.qcow2"}}}'
    img("create", "-q", "-f", "qcow2", "tiny.qcow2", "4M")
    img("convert", "-n", "-f", "raw", "tiny.qcow2", "--target-image-opts",
        "driver=raw,file.driver=qcow2,file.file.filename=outer.qcow2")
    img("bench", "-q", "-w", "-c", "60", "-s", "64k", "json:" + inner)
    img("check", "json:" + inner)
    img("check", "-f", "qcow2", "outer.qcow2")


def test_names_of_extents():
    both("mkdir d.e", *(f"$Q create -q -f vmdk -o subformat={kind} {name} 4M && find . | sort && grep -a ^RW {name};"
                        " find . -type f -delete"
                        for name in ("x", "x.img", "x.vmdk", "x.y.z", "d.e/x", "d.e/x.b")
                        for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")))


def test_what_scripts_do():
    """Lines in which ours once was not what a script expects."""
    make = ["$Q create -q -f qcow2 a.qcow2 64M", "$Q create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2",
            "qemu-io -c 'write -P 8 64k 64k' b.qcow2 >/dev/null"]
    both(*make, "$Q commit -r 1M b.qcow2", "$Q map b.qcow2 | cut -c 1-30")
    both(*make, "$Q commit -b a.qcow2 b.qcow2", "$Q map b.qcow2 | cut -c 1-30", "$Q info a.qcow2")
    both(*make, "$Q amend -o backing_file=foo b.qcow2", "$Q amend -o backing_file=a.qcow2,backing_fmt=qcow2 b.qcow2")


def test_chains_that_lead_nowhere():
    """Backing files that come back, go too deep, or are none: one line, at once."""
    def below(name, backing, fmt="qcow2"):
        img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", fmt, name, "1M")

    below("self", "self2")
    img("rebase", "-u", "-f", "qcow2", "-b", "self", "-F", "qcow2", "self")
    below("a", "b")
    below("b", "c")
    below("c", "a")
    below("d000", "d001")
    with open("d000", "rb") as f:
        first = f.read()
    for i in range(1, 205):
        with open(f"d{i:03}", "wb") as f:
            f.write(first.replace(b"d001", b"d%03d" % (i + 1)))
    img("create", "-q", "-f", "qcow2", "d205", "1M")
    os.mkdir("folder")
    os.mkfifo("fifo")
    for name, backing in (("none", "nofile"), ("dir", "folder"), ("json", "json:{}"), ("url", "http://127.0.0.1:1/x"),
                          ("odd", "nosuch:x"), ("pipe", "fifo")):
        below(name, backing, "raw")
    for name, words in (("self", b"infinite loop"), ("a", b"infinite loop"), ("d000", b"more than 200"),
                        ("none", b"No such file"), ("dir", b"regular file"), ("json", b""), ("odd", b"nosuch"),
                        ("pipe", b"regular file"), ("url", b"")):
        for verb in (["map"], ["convert", "-O", "raw"], ["bench", "-q", "-w", "-c", "1"]):
            p = img(verb[0], "-f", "qcow2", *verb[1:], name, *(["out"] if verb[0] == "convert" else []), check=False,
                    timeout=240)
            assert p.returncode == 1 and words in p.stderr, (name, verb, p)
            assert p.stderr.count(b"\n") == 1 and name.encode() in p.stderr, p.stderr
    img("map", "-f", "qcow2", "d010")  # 196 images
    assert not os.path.exists("out")


def test_block_device():
    """A disk of the host, where a loop device can be had."""
    loop = run("losetup", "--version", check=False).returncode == 0 and os.geteuid() == 0
    open("disk", "wb").truncate(8 << 20)
    p = run("losetup", "-f", "--show", os.path.abspath("disk"), check=False) if loop else None
    if not loop or p.returncode:
        print("     block devices: left out, there is no loop device here")
        return
    device = p.stdout.decode().strip()
    try:
        images.make_source("s.raw", 8 << 20)
        both(f"head -c 8M /dev/zero >{device}", f"$Q info {device}", f"$Q info --output=json {device}", f"$Q info host_device:{device}",
             f"$Q create -f raw {device} 40M",
             f"$Q convert -f raw -O raw ../s.raw {device} && cmp ../s.raw {device}",
             f"$Q convert -n -f raw -O raw -t none -T none ../s.raw {device} && cmp ../s.raw {device}",
             f"$Q convert -f raw -O qcow2 {device} x.qcow2 && $Q compare -f qcow2 -F raw x.qcow2 {device}",
             f"$Q create -q -f qcow2 {device} 100M && $Q bench -w -c 40 -t none -f qcow2 {device} && $Q check {device}",
             f"$Q info {device}")
        img("create", "-q", "-f", "qcow2", device, "1G")
        p = img("bench", "-q", "-w", "-s", "64k", "-c", "300", "-f", "qcow2", device, check=False)
        assert p.returncode == 1 and b"No space left on device" in p.stderr, p
        img("check", "-f", "qcow2", device)
        p = img("convert", "-f", "raw", "-O", "raw", "null-co://", device, check=False)
        assert p.returncode == 1 and b"Cannot grow device files" in p.stderr, p
    finally:
        run("losetup", "-d", device)


def test_values_of_options():
    """What an option of the moment cannot be is refused, in one line that names it."""
    img("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    for option, word in (("file.locking=maybe", b"locking"), ("lazy-refcounts=maybe", b"lazy-refcounts"),
                         ("file.aio=fast", b"aio"), ("discard=often", b"discard"), ("detect-zeroes=2", b"detect-zeroes"),
                         ("cache.direct=x", b"direct"), ("cache.size=1", b"cache.size"), ("cache=none", b"cache"),
                         ("read-only=x", b"read-only"), ("file.read-only=x", b"read-only"),
                         ("auto-read-only=x", b"auto-read-only"), ("force-share=x", b"force-share"),
                         ("copy-on-read=x", b"copy-on-read"), ("l2-cache-size=x", b"l2-cache-size"),
                         ("bogus=1", b"bogus"), ("file.bogus=1", b"bogus"), ("locking=off", b"locking"),
                         ("file.locking=", b"locking"), ("file.driver=quorum", b"quorum"),
                         ("file.driver=qcow2", b"qcow2"), ("backing.driver=nosuch", b"nosuch"),
                         ("encrypt.format=luks", b"encrypt")):
        p = img("info", "--image-opts", f"driver=qcow2,file.filename=a.qcow2,{option}", check=False)
        if option.startswith(("backing", "encrypt")):  # info opens one file, and without its key
            p = img("map", "--image-opts", f"driver=qcow2,file.filename=a.qcow2,{option}", check=False)
        assert p.returncode == 1 and word in p.stderr and p.stderr.count(b"\n") == 1, (option, p)
    img("info", "--image-opts", "driver=qcow2,file.filename=a.qcow2,l2-cache-size=1M,lazy-refcounts=on,file.locking=off,"
        "discard=unmap,detect-zeroes=on,cache.no-flush=on,file.aio=threads,force-share=off")
    for option in "size=1000", "offset=x", "size=9E", "size=-1":
        p = img("info", "--image-opts", f"driver=raw,file.filename=a.qcow2,{option}", check=False)
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1, (option, p)
    for driver in "quorum", "blkdebug", "blkverify", "throttle", "compress", "preallocate", "nosuch":
        p = img("info", "--image-opts", f"driver={driver},file.filename=a.qcow2", check=False)
        assert p.returncode == 1 and b"Unknown driver '%s'" % driver.encode() in p.stderr, p
    p = img("-T", "events", "info", "a.qcow2", check=False)
    assert p.returncode == 1 and b"tracing" in p.stderr, p
    os.symlink(images.IMG, "qemu-nbd")
    assert run("./qemu-nbd", "--help").stdout.startswith(b"usage: qemu-nbd [OPTIONS] FILE")


def test_help():
    """Every verb tells its options, and only those that are in its table."""
    text = img("--help").stdout.decode()
    verbs = re.findall(r"^  ([a-z]+) ", text, re.M)
    assert len(verbs) >= 16, text
    for verb in verbs:
        out = img(verb, "--help").stdout.decode()
        assert out.startswith(f"usage: lodge-img {verb} [OPTIONS]"), out
        assert img(verb, "-h").stdout.decode() == out
        for option in re.findall(r"--([a-z-]+)", out.split("Options:")[1]):
            p = img(verb, f"--{option}", check=False)
            assert b"unrecognized option" not in p.stderr, f"{verb} --{option}"
    assert img("--version").stdout.startswith(b"lodge-img version ")
    os.symlink(images.IMG, "qemu-img")
    assert run("./qemu-img", "--version").stdout.startswith(b"qemu-img version 7.2")


def test_names():
    """Messages start with the name of the program."""
    assert img("foo", check=False).stderr.startswith(b"lodge-img: Command not found: foo\n")


if __name__ == "__main__":
    images.need_qemu_img()
    images.main([test_usage, test_raw, test_raw_more, test_create_help, test_create_lines,
                 test_qcow2_info, test_snapshots, test_commit_and_rebase, test_resize_and_amend,
                 test_bitmaps, test_check, test_compare_formats, test_all_formats, test_secrets,
                 test_nodes_in_nodes, test_chains_that_lead_nowhere, test_names_of_extents, test_what_scripts_do, test_block_device, test_values_of_options, test_lean, test_help, test_names])
