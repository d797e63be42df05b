# SPDX-License-Identifier: GPL-2.0-or-later
"""A VNC viewer in miniature: RFB 3.8 without security, raw pixels, keys and pointer."""
import socket
import struct


class Viewer:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(120)
        self.s.connect(path)
        self.take(12)
        self.s.sendall(b"RFB 003.008\n")
        self.take(self.take(1)[0])
        self.s.sendall(b"\1")
        if self.take(4) != bytes(4):
            raise AssertionError("VNC: not let in")
        self.s.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.take(struct.unpack(">I", self.take(4))[0])
        self.s.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.s.sendall(struct.pack(">BxHii", 2, 2, 0, -223))

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                raise AssertionError("VNC: connection closed")
            data += more
        return data

    def key(self, symbol, down):
        self.s.sendall(struct.pack(">BBxxI", 4, down, symbol))

    def type(self, text):
        """ASCII; a capital letter comes with its shift key, as from a real keyboard."""
        for c in text:
            symbol = 0xFF0D if c == "\n" else ord(c)
            if c.isupper():
                self.key(0xFFE1, 1)
            self.key(symbol, 1)
            self.key(symbol, 0)
            if c.isupper():
                self.key(0xFFE1, 0)

    def pointer(self, x, y, buttons=0):
        self.s.sendall(struct.pack(">BBHH", 5, buttons, x, y))

    def screen(self):
        """All pixels now: rows of 0xRRGGBB."""
        self.s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        pixels = {}
        while True:
            kind, count = struct.unpack(">BxH", self.take(4))
            assert kind == 0, kind
            full = False
            for _ in range(count):
                x, y, w, h, encoding = struct.unpack(">HHHHi", self.take(12))
                if encoding == -223:
                    self.width, self.height = w, h
                    continue
                for row in range(h):
                    line = self.take(w * 4)
                    pixels[(x, y + row)] = line
                full = True
            if full:
                return pixels
            self.s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))

    def close(self):
        self.s.close()
