#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""opcodes.def -> insn_ops.h (names) and insn_table.h (the decoder's tables)."""
import itertools
import sys

MAPS = {'1byte': 0, '0f': 1, '0f38': 2, '0f3a': 3, 'evex5': 5, 'evex6': 6}
ENCS = ('legacy', 'vex', 'evex')
FLAGS = {'O': 'FLAG_OF', 'S': 'FLAG_SF', 'Z': 'FLAG_ZF', 'A': 'FLAG_AF', 'P': 'FLAG_PF',
         'C': 'FLAG_CF', 'D': 'FLAG_DF', 'I': 'FLAG_IF', '*': 'FLAGS_ALL'}
BITS = {'lock': 'LOCKABLE', 'byte': 'BYTE', 'no64': 'NO64', 'only64': 'ONLY64',
        'def64': 'DEF64', 'force64': 'FORCE64', 'cpl0': 'CPL0', 'ends': 'ENDS', 'o16': 'O16',
        'vsib': 'VSIB', 'align': 'ALIGN', 'odd_mem': 'ODD_MEM', 'same': 'DISTINCT',
        'rep': 'REP', 'max4': 'MAX4', 'no_vvvv': 'NO_VVVV', 'mandatory': 'MANDATORY',
        'own': 'OWN', 'no_mem': 'NO_MEM'}
# letter -> (operand kind, comes from modrm.rm, may be memory)
KINDS = {'E': ('RM', 1, 1), 'G': ('REG', 0, 0), 'M': ('MEM', 1, 1), 'R': ('RM', 1, 0),
         'Z': ('REG', 0, 0), 'S': ('SREG', 0, 0), 'C': ('CREG', 0, 0), 'D': ('DREG', 0, 0),
         'V': ('XMM', 0, 0), 'W': ('XMM_RM', 1, 1), 'U': ('XMM_RM', 1, 0), 'P': ('MMX', 0, 0),
         'Q': ('MMX_RM', 1, 1), 'N': ('MMX_RM', 1, 0), 'H': ('VVVV', 0, 0),
         'B': ('VVVV', 0, 0), 'L': ('IS4', 0, 0), 'I': ('IMM', 0, 0), 'J': ('REL', 0, 0),
         'A': ('FAR', 0, 0), 'O': ('MOFFS', 0, 1), 'X': ('STRING_SRC', 0, 0),
         'Y': ('STRING_DST', 0, 0), 'K': ('MASK', 0, 0)}
FIXED = {'AL': ('ACC', '1'), 'rAX': ('ACC', '0'), 'zAX': ('ACC', 'SIZE_Z'), 'AX': ('ACC', '2'),
         'CL': ('CL', '1'), 'DX': ('DX', '2'), '1': ('ONE', '1'), 'XMM0': ('XMM0', '16'),
         'ST0': ('ST', '10'), 'STi': ('ST', '10'), 'ES': ('SREG', '2'), 'CS': ('SREG', '2'),
         'SS': ('SREG', '2'), 'DS': ('SREG', '2'), 'FS': ('SREG', '2'), 'GS': ('SREG', '2')}
SIZES = {'b': '1', 'w': '2', 'd': '4', 'q': '8', 'dq': '16', 'qq': '32', 'v': '0', 't': '10',
         'y': 'SIZE_Y', 'z': 'SIZE_Z', 'x': 'SIZE_X', 'h': 'SIZE_H', 'f': 'SIZE_F',
         'e': 'SIZE_E', 'p': 'SIZE_P', 'a': 'SIZE_A', 's': 'SIZE_S', 'c': 'SIZE_C',
         '*': 'SIZE_HANDLER'}
IMMS = {'Ib': 'IMM_8', 'Is': 'IMM_S8', 'Iz': 'IMM_Z', 'Iv': 'IMM_V', 'Iw': 'IMM_16'}
# selectors in the order in which decode.c mixes them
DIMS = (('PFX', 4), ('REG', 8), ('MOD', 2), ('RM', 8), ('W', 2), ('L', 4), ('M64', 2))
PFX = {'np': 0, '66': 1, 'f3': 2, 'f2': 3}


class Row:
    def __init__(self, where, enc, cls, feat):
        self.where, self.enc, self.cls, self.feat = where, enc, cls, feat
        self.keys = {d: None for d, _ in DIMS}
        self.operands, self.bits, self.imm = [], set(), 'IMM_NONE'
        self.flags = {'r': '', 'w': '', 'u': ''}
        self.regs = {'ir': [], 'iw': []}
        self.mem, self.mem_bytes = 0, '0'
        self.form = set()

    def copy(self):
        new = Row(self.where, self.enc, self.cls, self.feat)
        new.__dict__.update(self.__dict__)
        new.keys, new.bits = dict(self.keys), set(self.bits)
        return new


def fail(where, text):
    sys.exit(f'{where}: {text}')


def parse_opcode(row, text):
    """HH[-HH][/R][m|s][/N] -> range of opcodes; fills the keys"""
    head, *rest = text.split('/')
    mod = None
    parts = [head] + rest
    for i, p in enumerate(parts):
        if p[-1] in 'mr':
            mod, parts[i] = 'rm'.index(p[-1]), p[:-1]
    if mod is not None:
        row.keys['MOD'] = {1 - mod}  # 1: register
        row.form.add('FORM_MODRM')
    if len(parts) > 1:
        row.keys['REG'] = {int(parts[1])}
        row.form.add('FORM_MODRM')
    if len(parts) > 2:
        row.keys['RM'] = {int(parts[2])}
        row.keys['MOD'] = {1}
    low, _, high = parts[0].partition('-')
    return range(int(low, 16), int(high or low, 16) + 1)


def parse_prefix(row, text):
    first, *rest = text.split('.')
    if first != 'any':
        row.keys['PFX'] = {PFX[p] for p in first.split('|')}
        row.bits.add('mandatory')
    for r in rest:
        row.keys[r[0].upper()] = {int(r[1])}


def parse_operand(row, text):
    access = 'MEM_READ'
    if text[-1] in '+=&':
        access = {'+': 'MEM_RW', '=': 'MEM_WRITE', '&': 'MEM_ADDRESS'}[text[-1]]
        text = text[:-1]
    if text in FIXED:
        kind, size = FIXED[text]
        if text == 'zAX':
            row.bits.add('max4')
        if kind == 'SREG':
            row.form |= {'FORM_SREG', 'FORM_NARROW'}
        if kind == 'ACC':
            if access != 'MEM_READ':
                row.regs['iw'] = row.regs['iw'] + ['rax']
            if access != 'MEM_WRITE':
                row.regs['ir'] = row.regs['ir'] + ['rax']
        if kind in ('CL', 'DX'):
            row.regs['ir'] = row.regs['ir'] + [{'CL': 'rcx', 'DX': 'rdx'}[kind]]
        row.operands.append((kind, access, size))
        return
    if text in IMMS:
        if row.imm != 'IMM_NONE':
            row.imm = {'IMM_8': 'IMM_8_8', 'IMM_16': 'IMM_16_8'}[row.imm]
        else:
            row.imm = IMMS[text]
        row.operands.append(('IMM', access, {'Iz': 'SIZE_Z', 'Iv': '0', 'Iw': '2'}.get(text, '1')))
        return
    in_memory = None
    if text[0] == 'R' and 'M' in text:  # RdMb: 4 bytes of a register or 1 in memory
        text, in_memory = text.split('M')
        text = 'E' + text[1:]
    letter, size = text[0], text[1:]
    if letter not in KINDS or size not in SIZES:
        fail(row.where, f'operand {text}')
    kind, modrm, memory = KINDS[letter]
    if letter == 'R' or letter in 'UN':
        memory = 0
        if row.keys['MOD'] is None:
            if letter != 'R':
                fail(row.where, f'operand {text} needs the r mark')
            row.bits.add('no_mem')
    if modrm or letter in 'GSCDVP':
        row.form.add('FORM_MODRM')
    if letter == 'Z':
        row.form.add('FORM_OPREG')
    if letter == 'J':
        row.imm = {'b': 'IMM_S8', 'z': 'IMM_Z'}[size]
    if letter == 'A':
        row.imm = 'IMM_FAR'
    if letter == 'O':
        row.imm = 'IMM_MOFFS'
    if letter == 'L':
        row.imm = 'IMM_8'
    if letter in 'XY' and size == 'z':
        row.bits.add('max4')
    if memory and row.keys['MOD'] != {1}:
        row.mem, row.mem_bytes = access, SIZES[in_memory or size]
        if row.enc == 'legacy' and row.cls == 'sse' and size == 'dq' and letter in 'WM' and \
                'unal' not in row.bits:
            row.bits.add('align')
    if letter in 'SCDPQN':
        row.form.add('FORM_NARROW')
    row.operands.append((kind, access, SIZES[size]))


def parse_row(where, fields, enc, cls, feat):
    row = Row(where, enc, cls, feat)
    opcodes = parse_opcode(row, fields[0])
    parse_prefix(row, fields[1])
    row.name = fields[2]
    variants = []
    for option in fields[4:]:
        key, eq, value = option.partition('=')
        if key in ('r', 'w', 'u') and eq:
            row.flags[key] = value
        elif key in ('ir', 'iw'):
            row.regs[key] = value.split(',')
        elif key == 'class':
            row.cls = value
        elif key == 'feat':
            row.feat = value
        elif key == 'l1':
            variants.append(('L', 1, value))
        elif key == 'reg':
            variants.append(('MOD', 1, value))
        elif key in BITS or key == 'unal':
            row.bits.add(key)
        else:
            fail(where, f'option {option}')
    if fields[3] != '-':
        for o in fields[3].split(','):
            parse_operand(row, o)
    row.bits.discard('unal')
    if enc != 'legacy':
        if not any(k == 'VVVV' for k, _, _ in row.operands):
            row.bits.add('no_vvvv')
        row.form.add('FORM_MODRM' if row.operands else 'FORM_NONE')
        row.form.discard('FORM_NONE')
    rows = [row]
    for dim, value, feature in variants:
        other = row.copy()
        row.keys[dim], other.keys[dim] = {1 - value}, {value}
        other.feat = feature
        rows.append(other)
    return opcodes, rows


def parse(path):
    slots, rows = {}, []
    amap = enc = cls = feat = None
    for n, line in enumerate(open(path), 1):
        fields = line.split('#')[0].split()
        where = f'{path}:{n}'
        if not fields:
            continue
        if fields[0].startswith('@'):
            key, value = fields
            if key == '@map':
                amap = MAPS[value]
            elif key == '@enc':
                enc = value
            elif key == '@class':
                cls = value
            elif key == '@feat':
                feat = value
            continue
        opcodes, new = parse_row(where, fields, enc, cls, feat)
        for row in new:
            rows.append(row)
            for opcode in opcodes:
                slots.setdefault((ENCS.index(enc), amap, opcode), []).append(row)
    return slots, rows


def fill_slot(key, rows):
    """-> (selector names, table of rows)"""
    used = [d for d, _ in DIMS if any(r.keys[d] is not None for r in rows)]
    if any('no64' in r.bits for r in rows) and any('only64' in r.bits for r in rows):
        used.append('M64')
        for r in rows:
            r.keys['M64'] = {0} if 'no64' in r.bits else {1} if 'only64' in r.bits else None
    sizes = [dict(DIMS)[d] for d in used]
    table = {}
    # explicit prefixes win over "any"
    for row in sorted(rows, key=lambda r: r.keys['PFX'] is not None):
        ranges = [sorted(row.keys[d]) if row.keys[d] is not None else range(s)
                  for d, s in zip(used, sizes)]
        for index in itertools.product(*ranges):
            old = table.get(index)
            if old and (old.keys['PFX'] is None) == (row.keys['PFX'] is None):
                fail(row.where, f'overlaps {old.where}')
            table[index] = row
    flat = [table.get(i) for i in itertools.product(*[range(s) for s in sizes])]
    return used, flat


def mask(names, table):
    return ' | '.join(table(n) for n in names) or '0'


def desc_text(row, ops, feats):
    pad = 4 - len(row.operands)
    kinds = [f'OPD_{k}' for k, _, _ in row.operands] + ['OPD_NONE'] * pad
    access = [a for _, a, _ in row.operands] + ['0'] * pad
    sizes = [s for _, _, s in row.operands] + ['0'] * pad
    flags = {k: mask(sorted(set(v)), lambda c: FLAGS[c]) for k, v in row.flags.items()}
    regs = {k: mask(sorted(set(v)), lambda r: f'1 << {r.upper()}') for k, v in row.regs.items()}
    bits = mask(sorted(row.bits), lambda b: 'INSN_' + BITS[b])
    return (f'{{"{row.name}", OP_{row.name.upper()}, CLASS_{row.cls.upper()}, {row.mem}, '
            f'{row.mem_bytes}, {{{", ".join(kinds)}}}, {{{", ".join(access)}}}, '
            f'{{{", ".join(sizes)}}}, {flags["r"]}, {flags["w"]}, {flags["u"]}, '
            f'{regs["ir"]}, {regs["iw"]}, {feats[row.feat]}, {row.imm}, '
            f'{mask(sorted(row.form), str)}, {bits}}},')


def feature_names(rows):
    names = sorted({r.feat for r in rows} - {'-'})
    table = {n: 'FEATURE_' + n.upper().replace('.', '_').replace('-', '_') for n in names}
    table['-'] = 'FEATURE_NONE'
    return names, table


def write_ops(out, rows):
    ops = sorted({r.name for r in rows})
    names, feats = feature_names(rows)
    out.write('/* Generated from opcodes.def. */\n#pragma once\n\nenum insn_op {\n'
              '    OP_INVALID,\n')
    out.writelines(f'    OP_{o.upper()},\n' for o in ops)
    out.write('    OP_COUNT\n};\n\n/* What an instruction needs the CPU model to offer. */\n'
              'enum cpu_feature {\n    FEATURE_NONE,\n')
    out.writelines(f'    {feats[n]},\n' for n in names)
    out.write('    FEATURE_COUNT\n};\n\n'
              '/* What the interpreter lets the host\'s own instruction do. */\n'
              '#define INSN_NATIVE_OPS(X)')
    own = {r.name for r in rows if r.bits & {'own', 'odd_mem'} or r.mem_bytes == 'SIZE_HANDLER'}
    native = {r.name for r in rows if r.cls in ('x87', 'mmx', 'sse', 'avx')} - own
    out.writelines(f' \\\n    X(OP_{o.upper()})' for o in sorted(native))
    out.write('\n')


def write_table(out, slots, rows):
    names, feats = feature_names(rows)
    for i, row in enumerate(rows):
        row.number = i + 1
    out.write('/* Generated from opcodes.def. */\n\n'
              'const char *const cpu_feature_names[FEATURE_COUNT] = {\n    "",\n')
    out.writelines(f'    "{n}",\n' for n in names)
    out.write('};\n\nstatic const struct insn_desc descs[] = {\n'
              '    {"(bad)", OP_INVALID, CLASS_UNDEFINED},\n')
    out.writelines(f'    {desc_text(r, None, feats)}\n' for r in rows)
    out.write('};\n\n')
    pool, seen, cells = [0], {}, {}
    for key, members in sorted(slots.items()):
        used, flat = fill_slot(key, members)
        numbers = tuple(r.number if r else 0 for r in flat)
        if numbers not in seen:
            seen[numbers] = len(pool)
            pool.extend(numbers)
        modrm = any('FORM_MODRM' in r.form for r in members)
        if modrm and not all('FORM_MODRM' in r.form for r in members) and \
                any(d in used for d in ('REG', 'MOD', 'RM')):
            fail(members[0].where, 'ModRM for some forms only')
        select = mask(used, lambda d: f'SEL_{d}')
        cells[key] = f'{{{seen[numbers]}, {select}, {int(modrm)}}}'
    out.write(f'static const uint16_t pool[{len(pool)}] = {{')
    for i, n in enumerate(pool):
        out.write(('\n    ' if i % 16 == 0 else ' ') + f'{n},')
    out.write('\n};\n\n')
    out.write('static const struct slot slots[3][7][256] = {\n')
    for key, cell in cells.items():
        out.write(f'    [{key[0]}][{key[1]}][0x{key[2]:02x}] = {cell},\n')
    out.write('};\n')


def main():
    _, kind, source, target = sys.argv
    slots, rows = parse(source)
    with open(target, 'w') as out:
        if kind == 'ops':
            write_ops(out, rows)
        else:
            write_table(out, slots, rows)


main()
