#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux plays a tone; the file of -audiodev wav holds it."""
import array
import os
import pathlib
import struct
import subprocess
import tempfile

from guest import Failed, Machine, cpio, main, tiny



def with_tone(folder):
    """Options of the guest with Debian's whole kernel, its shell and /tone."""
    source = pathlib.Path(__file__).resolve().parent.parent / "guest" / "tone.c"
    program, args = os.path.join(folder, "tone"), tiny("shell", "256M", "quiet", guest="amd64")
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source, "-lm"], check=True)
    at = args.index("-initrd") + 1
    old = pathlib.Path(args[at]).read_bytes()
    args[at] = os.path.join(folder, "initrd")
    pathlib.Path(args[at]).write_bytes(old + bytes(-len(old) % 4) +
                                       cpio({"tone": pathlib.Path(program).read_bytes()}))
    return args


def heard(path):
    """The frequency of what is loud in the file: rising edges a second, and how long it lasts."""
    data = pathlib.Path(path).read_bytes()
    riff, wave, channels, rate, length = (data[:4], data[8:12], *struct.unpack_from("<HI", data, 22),
                                          struct.unpack_from("<I", data, 40)[0])
    if (riff, wave, channels) != (b"RIFF", b"WAVE", 2) or length != len(data) - 44:
        raise Failed(f"{path} is no WAVE file of its length: {data[:44]!r}, {len(data)} bytes")
    left = array.array("h", data[44:44 + length // 4 * 4])[::2]
    loud = [i for i, v in enumerate(left) if abs(v) > 2000]
    if not loud:
        raise Failed(f"{path}: silence, {len(left)} frames")
    tone = left[loud[0]:loud[-1] + 1]
    rises, high = 0, False
    for v in tone: # with a threshold on both sides, so that only the tone counts
        if v > 1000 and not high:
            rises, high = rises + 1, True
        elif v < -1000:
            high = False
    return rises * rate / len(tone), len(tone) / rate


# Options, and what the card's PCI device is in the guest; None: the PC's own speaker.
CARDS = {
    "hda": (["-device", "intel-hda,id=sound0", "-device", "hda-duplex,bus=sound0.0,cad=0,audiodev=hda"], "0x2668", 440),
    "ich9": (["-device", "ich9-intel-hda,id=s1", "-device", "hda-micro,bus=s1.0,mixer=off,audiodev=ich9"], "0x293e", 1000),
    "ac97": (["-device", "AC97,audiodev=ac97"], "0x2415", 700),
    "speaker": (["-M", "pcspk-audiodev=speaker"], None, 880),
}
MS = 600


def play(m, card, hz):
    """Plays in the background; /tmp/HZ says how that went."""
    if card:
        find = (f"until n=$(grep -l {card} /sys/class/sound/card?/device/device) && n=${{n#*/card}} && n=${{n%%/*}} && "
                "i=${n#0} && [ -c /dev/dsp$i ]; do sleep 0.2; done")
        m.run(f"{find}; (/tone /dev/dsp$i /dev/mixer$i {hz} {MS} >/tmp/{hz} 2>&1 &)")
    else:
        m.run("e=$(grep -l Speaker /sys/class/input/event*/device/name); e=${e#*/event}; "
              f"(/tone beep /dev/input/event${{e%%/*}} {hz} {MS} >/tmp/{hz} 2>&1 &)")


def sound():
    """Three cards and the speaker at a time, each into a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        args = []
        for name, (options, _, _) in CARDS.items():
            args += ["-audiodev", f"wav,id={name},path={folder}/{name}.wav", *options]
        with Machine(["-accel", "bt", *args, *with_tone(folder)]) as m:
            m.expect("busybox")
            for _, card, hz in CARDS.values():
                play(m, card, hz)
            m.until(lambda: m.run("cat /tmp/*").count("tone: ok") == len(CARDS), "not all have played")
            m.type("poweroff -f\n")
            if m.wait():
                raise Failed("exit code")
        for name, (_, _, hz) in CARDS.items():
            found, lasted = heard(f"{folder}/{name}.wav")
            # What a busy host delays is heard as a gap.
            if abs(found - hz) > hz * 0.1 or lasted < MS / 1000 * 0.8:
                raise Failed(f"{name}: {found:.1f} Hz for {lasted:.2f} s")


if __name__ == "__main__":
    main({"sound": sound})
