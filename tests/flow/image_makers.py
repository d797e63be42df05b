# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of formats that lodge-img only reads, or that no other program has, made by the book."""
import base64
import bz2
import lzma
import struct
import zlib


# ---- cow ----

def make_cow(path, size, sectors, backing=b"", layout=64):
    """An oracle of its own: header, bitmap, sectors."""
    if layout == 64:
        head = struct.pack(">II1024siIQII", 0x4f4f4f4d, 2, backing, 0, 0, size, 512, 0)
    elif layout == 32:
        head = struct.pack(">II1024siQI", 0x4f4f4f4d, 2, backing, 0, size, 512)
    else:  # User-mode Linux
        head = struct.pack(">II4096siIQII", 0x4f4f4f4d, 2, backing, 0, 0, size, 512, 0)
    bitmap = bytearray((size // 512 + 7) // 8)
    for s in sectors:
        bitmap[s // 8] |= 1 << s % 8
    data_at = (len(head) + len(bitmap) + 511) // 512 * 512
    with open(path, "wb") as f:
        f.write(head + bitmap)
        for s, data in sectors.items():
            f.seek(data_at + s * 512)
            f.write(data)


# ---- lzfse ----

def find_copies(data, far, longest):
    """(literal bytes, length, distance) of each copy of four bytes or more, the rest last."""
    seen, at, start = {}, 0, 0
    while at + 4 <= len(data):
        word = data[at:at + 4]
        back = at - seen.get(word, at)
        seen[word] = at
        if not 0 < back <= far:
            at += 1
            continue
        n = 4
        while n < longest and at + n < len(data) and data[at + n] == data[at + n - back]:
            n += 1
        yield data[start:at], n, back
        at += n
        start = at
    yield data[start:], 0, 1


def pack_lzvn(data):
    """One block of LZVN that uses each kind of its opcodes."""
    out, last = bytearray(), 0
    for literals, n, back in find_copies(data, 65535, 600):
        again = len(literals) == 2 and back == last and 3 <= n <= 6
        while literals and not again:
            run = min(len(literals), 271)
            out += bytes((0xe0, run - 16)) if run >= 16 else bytes((0xe0 | run,))
            out += literals[:run]
            literals = literals[run:]
        if again:
            out += bytes((2 << 6 | n - 3 << 3 | 6,)) + literals
            continue
        if not n:
            continue
        first = min(n, 10 if back < 1536 or back > 16383 else 34) if n < 300 else 3
        if back < 1536:
            out += bytes((first - 3 << 3 | back >> 8, back & 255))
        elif back < 16384:
            out += bytes((0xa0 | first - 3 >> 2,)) + struct.pack("<H", back << 2 | first - 3 & 3)
        else:
            out += bytes((first - 3 << 3 | 7,)) + struct.pack("<H", back)
        n -= first
        while n:
            run = min(n, 271)
            out += bytes((0xf0, run - 16)) if run >= 16 else bytes((0xf0 | run,))
            n -= run
        last = back
    out += b"\6" + bytes(7)
    return b"bvxn" + struct.pack("<II", len(data), len(out)) + bytes(out)


class Bits:
    """Bits, the first one lowest."""

    def __init__(self):
        self.value, self.n = 0, 0

    def push(self, value, n):
        self.value |= (value & (1 << n) - 1) << self.n
        self.n += n

    def finish(self):
        """The bytes, and how many bits they have too many, as a header has it."""
        size = (self.n + 7) // 8
        return self.value.to_bytes(size, "little"), self.n - 8 * size + 7


class Coder:
    """Finite state entropy: symbols with their frequencies, encoded from the last to the first."""

    def __init__(self, symbols, count, states):
        self.freq, self.states, self.table = [0] * count, states, []
        for s in symbols:
            self.freq[s] += 1
        total = max(len(symbols), 1)
        self.freq = [max(1, f * states // total) if f else 0 for f in self.freq]
        while sum(self.freq) > states:
            self.freq[self.freq.index(max(self.freq))] -= 1
        self.freq[self.freq.index(max(self.freq))] += states - sum(self.freq)
        at = 0
        for f in self.freq:
            k = states.bit_length() - f.bit_length()
            self.table.append((f, k, at))
            at += f

    def encode(self, state, symbol, bits):
        f, k, at = self.table[symbol]
        n = k if state >= (f << k) - self.states else k - 1
        bits.push(state, n)
        return at - f + (self.states >> n) + (state >> n)


L_BITS, M_BITS = [0] * 16 + [2, 3, 5, 8], [0] * 16 + [3, 5, 8, 11]
D_BITS = [i // 4 for i in range(64)]


def symbol_of(value, widths):
    """Symbol, number of bits besides, and these."""
    base = 0
    for i, n in enumerate(widths):
        if value < base + (1 << n):
            return i, n, value - base
        base += 1 << n
    raise ValueError(value)


def frequency_bits(v, bits):
    short = {0: (0, 2), 1: (2, 2), 2: (1, 3), 3: (5, 3), 4: (3, 5), 5: (11, 5), 6: (19, 5), 7: (27, 5)}
    bits.push(*(short[v] if v < 8 else (v - 8 << 4 | 7, 8) if v < 24 else (v - 24 << 4 | 15, 14)))


def fse_block(steps, raw):
    literals = b"".join(s[0] for s in steps)
    literals += bytes(-len(literals) % 4)
    lmd, last = [], 0
    for part, n, back in steps:
        lmd.append((len(part), n, 0 if back == last else back))
        last = back
    columns = [[symbol_of(row[i], w) for row in lmd] for i, w in enumerate((L_BITS, M_BITS, D_BITS))]
    coders = [Coder([s[0] for s in c], n, states)
              for c, n, states in zip(columns, (20, 20, 64), (64, 64, 256))]
    coder = Coder(literals, 256, 1024)
    bits, states = Bits(), [0] * 4
    for i in reversed(range(len(literals))):
        states[i % 4] = coder.encode(states[i % 4], literals[i], bits)
    literal_bytes, literal_bits = bits.finish()
    bits, three = Bits(), [0] * 3
    bits.push(0, 64)  # so does Apple's encoder; 7-Zip insists on it
    for row in reversed(range(len(lmd))):
        for i in (2, 1, 0):
            symbol, n, extra = columns[i][row]
            bits.push(extra, n)
            three[i] = coders[i].encode(three[i], symbol, bits)
    lmd_bytes, lmd_bits = bits.finish()
    bits = Bits()
    for c in (*coders, coder):
        for f in c.freq:
            frequency_bits(f, bits)
    table = bits.finish()[0]
    x = len(literals) | len(literal_bytes) << 20 | len(lmd) << 40 | literal_bits << 60
    y = states[0] | states[1] << 10 | states[2] << 20 | states[3] << 30 | len(lmd_bytes) << 40 | lmd_bits << 60
    z = 32 + len(table) | three[0] << 32 | three[1] << 42 | three[2] << 52
    return b"bvx2" + struct.pack("<IQQQ", raw, x, y, z) + table + literal_bytes + lmd_bytes


def pack_fse(data):
    """Blocks of LZFSE proper; copies reach into the blocks before."""
    out, steps, raw = b"", [], 0
    for literals, n, back in find_copies(data, 200000, 2000):
        parts = [(literals[i:i + 300], 0, 1) for i in range(0, max(len(literals) - 1, 0) // 300 * 300, 300)]
        for step in parts + [(literals[len(parts) * 300:], n, back)]:
            steps.append(step)
            raw += len(step[0]) + step[1]
            if raw > 30000:
                out += fse_block(steps, raw)
                steps, raw = [], 0
    return out + (fse_block(steps, raw) if raw else b"")


def pack_lzfse(data, raw=0):
    """Blocks of both kinds in one stream, the last `raw` bytes in one that is not packed."""
    half = (len(data) - raw) // 2
    end = b"bvx-" + struct.pack("<I", raw) + data[len(data) - raw:] if raw else b""
    return pack_fse(data[:half]) + pack_lzvn(data[half:len(data) - raw]) + end + b"bvx$"


# ---- dmg ----

def pack_adc(data):
    """Literals, and copies of what came 1 to 65536 bytes before."""
    out, at, seen = bytearray(), 0, {}
    literals = bytearray()

    def flush():
        while literals:
            out.append(0x80 | min(len(literals), 128) - 1)
            out.extend(literals[:128])
            del literals[:128]
    while at < len(data):
        word = data[at:at + 4]
        back = at - seen.get(word, at)
        seen[word] = at
        if 0 < back <= 65536 and len(word) == 4:
            n = 4
            while n < 67 and at + n < len(data) and data[at + n] == data[at + n - back]:
                n += 1
            flush()
            if back <= 1024 and n <= 18:
                out.extend(((n - 3) << 2 | (back - 1) >> 8, (back - 1) & 255))
            else:
                out.extend((0x40 | n - 4, (back - 1) >> 8, (back - 1) & 255))
            at += n
        else:
            literals.append(data[at])
            at += 1
    flush()
    return bytes(out)


ADC, ZLIB, BZIP2, LZFSE, LZMA = range(0x80000004, 0x80000009)
PACKERS = {0: lambda d: b"", 1: lambda d: d, 2: lambda d: b"", ADC: pack_adc, ZLIB: zlib.compress,
           BZIP2: bz2.compress, LZMA: lambda d: lzma.compress(d, lzma.FORMAT_XZ),
           LZFSE: pack_lzfse}


def make_dmg(path, data, kinds, chunk=128 * 1024, resources=False):
    """A disk in chunks of the given kinds in turn; two partitions, each with its table."""
    body, tables = bytearray(b"\x11" * 512), []
    half = len(data) // 2 // chunk * chunk
    for first, last in ((0, half), (half, len(data))):
        rows = []
        for i, at in enumerate(range(first, last, chunk)):
            part = data[at:min(at + chunk, last)]
            kind = kinds[i % len(kinds)] if any(part) else 0
            stored = PACKERS[kind](part)
            rows.append(struct.pack(">IIQQQQ", kind, 0, (at - first) // 512, len(part) // 512,
                                    len(body) - 512, len(stored)))
            body += stored
        rows.append(struct.pack(">IIQQQQ", 0xffffffff, 0, (last - first) // 512, 0, len(body) - 512, 0))
        tables.append(struct.pack(">4sIQQQII", b"mish", 1, first // 512, (last - first) // 512, 0, 520, 0)
                      + bytes(24) + struct.pack(">III", 2, 32, zlib.crc32(data[first:last])) + bytes(124) + struct.pack(">I", len(rows))
                      + b"".join(rows))
    tail_at = len(body)
    if resources:
        parts = b"".join(struct.pack(">I", len(t)) + t for t in tables)
        tail = struct.pack(">IIII", 256, 256 + len(parts), len(parts), 0).ljust(256, b"\0") + parts
        where = struct.pack(">QQ", tail_at, len(tail)), struct.pack(">QQ", 0, 0)
    else:
        items = "".join(f"<dict><key>Attributes</key><string>0x0050</string><key>Data</key><data>\n"
                        f"{base64.encodebytes(t).decode()}</data><key>ID</key><string>{i}</string>"
                        f"<key>Name</key><string>part {i}</string></dict>" for i, t in enumerate(tables))
        tail = (f'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict>'
                f"<key>resource-fork</key><dict><key>blkx</key><array>{items}</array></dict></dict></plist>"
                ).encode()
        where = struct.pack(">QQ", 0, 0), struct.pack(">QQ", tail_at, len(tail))
    koly = (struct.pack(">4sIIIQQQ", b"koly", 4, 512, 1, 0, 512, tail_at - 512) + where[0]
            + struct.pack(">II", 1, 1) + bytes(16) + bytes(136) + where[1] + bytes(120) + bytes(136)
            + struct.pack(">IQ", 1, len(data) // 512))
    with open(path, "wb") as f:
        f.write(bytes(body) + tail + koly.ljust(512, b"\0"))


# ---- cloop, bochs ----

def make_cloop(path, data, block=65536):
    """Version 2: a script, block size, number of blocks, offsets, zlib streams."""
    parts = [zlib.compress(data[i:i + block].ljust(block, b"\0")) for i in range(0, len(data), block)]
    at, offsets = 136 + 8 * (len(parts) + 1), []
    for part in parts + [b""]:
        offsets.append(at)
        at += len(part)
    with open(path, "wb") as f:
        f.write(b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") + struct.pack(">II", block, len(parts))
                + struct.pack(f">{len(offsets)}Q", *offsets) + b"".join(parts))


def make_bochs(path, data, extent=16384):
    """A growing redolog: header, catalog, then a bitmap and sectors for each extent that has data."""
    n = (len(data) + extent - 1) // extent
    bitmap_n = extent // 512 // 8
    catalog, body, used = [], b"", 0
    for i in range(n):
        part = data[i * extent:(i + 1) * extent].ljust(extent, b"\0")
        if not any(part):
            catalog.append(0xffffffff)
            continue
        bits = bytearray(bitmap_n)
        for s in range(extent // 512):
            bits[s // 8] |= any(part[s * 512:s * 512 + 512]) << s % 8
        body += bytes(bits).ljust((bitmap_n + 511) // 512 * 512, b"\0") + part
        catalog.append(used)
        used += 1
    head = struct.pack("<32s16s16sIIIIIIQ", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, 512,
                       n, bitmap_n, extent, 0, len(data))
    with open(path, "wb") as f:
        f.write(head.ljust(512, b"\0") + struct.pack(f"<{n}I", *catalog) + body)
