/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * codec_lzfse: LZFSE, as in newer dmg images; reading only.
 *
 * A stream is a row of blocks: bytes as they are, LZVN (copies coded in bytes) or LZFSE proper:
 * literals and the lengths and distances of copies, both coded by finite state entropy and read
 * from their ends backwards.
 *
 * Spec: Apple, "lzfse", lzfse_internal.h and lzvn_decode_base.h, comments on block headers and
 * opcodes; Jarek Duda, "Asymmetric numeral systems", for the coding.
 */
#include "host/image/codec.h"

#include "base/bytes.h"

#include <errno.h>

enum {
    MAGIC_END = 0x24787662,  /* "bvx$" */
    MAGIC_RAW = 0x2d787662,  /* "bvx-" */
    MAGIC_LZVN = 0x6e787662, /* "bvxn" */
    MAGIC_FSE = 0x32787662,  /* "bvx2" */
    LITERALS_MAX = 40000, MATCHES_MAX = 10000,
    L_SYMBOLS = 20, M_SYMBOLS = 20, D_SYMBOLS = 64, LITERAL_SYMBOLS = 256,
    SYMBOLS = L_SYMBOLS + M_SYMBOLS + D_SYMBOLS + LITERAL_SYMBOLS,
    L_STATES = 64, M_STATES = 64, D_STATES = 256, LITERAL_STATES = 1024,
    HEADER = 32,
};

struct stream {
    const uint8_t *in, *in_end;
    uint8_t *start, *out, *out_end;
};

/* ---- copying: every step checks both ends ---- */

static bool put_literals(struct stream *s, const uint8_t *from, size_t n)
{
    if (n > (size_t)(s->out_end - s->out)) {
        return false;
    }
    memcpy(s->out, from, n);
    s->out += n;
    return true;
}

static bool take_literals(struct stream *s, size_t n)
{
    if (n > (size_t)(s->in_end - s->in) || !put_literals(s, s->in, n)) {
        return false;
    }
    s->in += n;
    return true;
}

/* Overlaps repeat what was just written. */
static bool put_match(struct stream *s, size_t n, size_t distance)
{
    if (n && (!distance || distance > (size_t)(s->out - s->start) ||
              n > (size_t)(s->out_end - s->out))) {
        return false;
    }
    for (size_t i = 0; i < n; i++, s->out++) {
        *s->out = s->out[-(ptrdiff_t)distance];
    }
    return true;
}

/* ---- LZVN ---- */

enum opcode_kind { OP_SHORT, OP_MEDIUM, OP_LONG, OP_AGAIN, OP_LITERALS, OP_MATCH, OP_NOTHING, OP_END, OP_BAD };

static enum opcode_kind kind_of(uint8_t op)
{
    if (op >= 0xf0) {
        return OP_MATCH;
    }
    if (op >= 0xe0) {
        return OP_LITERALS;
    }
    if (op >= 0xd0 || (op >= 0x70 && op < 0x80)) {
        return OP_BAD;
    }
    if (op >= 0xa0 && op < 0xc0) {
        return OP_MEDIUM;
    }
    if ((op & 7) == 6 && op < 0x40) {
        return op == 0x06 ? OP_END : op == 0x0e || op == 0x16 ? OP_NOTHING : OP_BAD;
    }
    return (op & 7) == 7 ? OP_LONG : (op & 7) == 6 ? OP_AGAIN : OP_SHORT;
}

struct step {
    size_t bytes, literals, match, distance; /* .distance 0: as before */
};

/* What the opcode at @p, of which @left bytes are there, says; false if it is cut. */
static bool decode_op(enum opcode_kind kind, const uint8_t *p, size_t left, struct step *out)
{
    static const uint8_t sizes[] = {[OP_SHORT] = 2, [OP_MEDIUM] = 3, [OP_LONG] = 3, [OP_AGAIN] = 1,
                                    [OP_LITERALS] = 1, [OP_MATCH] = 1, [OP_NOTHING] = 1};
    bool more = (p[0] & 15) == 0 && (kind == OP_LITERALS || kind == OP_MATCH);
    *out = (struct step){.bytes = sizes[kind] + more};
    if (out->bytes > left) {
        return false;
    }
    size_t run = more ? p[1] + 16u : p[0] & 15u;
    switch (kind) {
    case OP_LITERALS:
        out->literals = run;
        break;
    case OP_MATCH:
        out->match = run;
        break;
    case OP_MEDIUM:
        out->literals = p[0] >> 3 & 3;
        out->match = ((p[0] & 7u) << 2 | (p[1] & 3u)) + 3;
        out->distance = le16_at(p + 1) >> 2;
        break;
    case OP_NOTHING:
        break;
    default:
        out->literals = p[0] >> 6;
        out->match = (p[0] >> 3 & 7u) + 3;
        out->distance = kind == OP_SHORT  ? (p[0] & 7u) << 8 | p[1]
                        : kind == OP_LONG ? le16_at(p + 1)
                                          : 0;
    }
    return kind != OP_SHORT && kind != OP_LONG && kind != OP_MEDIUM ? true : out->distance;
}

static bool lzvn(struct stream *s)
{
    size_t distance = 0;
    while (s->in < s->in_end) {
        enum opcode_kind kind = kind_of(*s->in);
        struct step step;
        if (kind == OP_END) {
            return true;
        }
        if (kind == OP_BAD || !decode_op(kind, s->in, (size_t)(s->in_end - s->in), &step)) {
            return false;
        }
        distance = step.distance ? step.distance : distance;
        s->in += step.bytes;
        if (!take_literals(s, step.literals) || !put_match(s, step.match, distance)) {
            return false;
        }
    }
    return false; /* no end */
}

/* ---- finite state entropy ---- */

/* Bits from the end of a buffer backwards. */
struct bits {
    const uint8_t *p;
    size_t n;
    uint64_t left; /* bits */
    bool over;
};

/* @unused: bits of the last byte that hold nothing. */
static struct bits bits_of(const uint8_t *p, size_t n, unsigned unused)
{
    return (struct bits){p, n, n * 8 - MIN(unused, n * 8), unused > n * 8};
}

static uint32_t pull(struct bits *b, unsigned n)
{
    if (n > b->left) {
        b->over = true;
        return 0;
    }
    b->left -= n;
    size_t at = b->left / 8;
    uint64_t word = 0;
    memcpy(&word, b->p + at, MIN(sizeof(word), b->n - at));
    return (uint32_t)(GUINT64_FROM_LE(word) >> b->left % 8 & ((UINT64_C(1) << n) - 1));
}

struct entry {
    int16_t delta;
    uint8_t bits;   /* of the next state */
    uint8_t extra;  /* bits of the value besides */
    uint32_t value; /* symbol, or what .extra is added to */
};

struct coder {
    struct entry *entries;
    uint32_t state;
};

/* Values of length and distance symbols. */
static const uint8_t l_extra[L_SYMBOLS] = {[16] = 2, 3, 5, 8}, m_extra[M_SYMBOLS] = {[16] = 3, 5, 8, 11};

static unsigned extra_of(unsigned symbols, unsigned i, const uint8_t *extra)
{
    return symbols == D_SYMBOLS ? i / 4 : extra ? extra[i] : 0;
}

/* A symbol that is @freq[i] times in so many states; false if they are more than there are. */
static bool fill_entries(struct entry *t, unsigned states, const uint16_t *freq, unsigned symbols,
                         const uint8_t *extra)
{
    unsigned at = 0;
    uint32_t base = 0;
    memset(t, 0, states * sizeof(*t));
    for (unsigned i = 0; i < symbols; i++) {
        unsigned f = freq[i], more = extra_of(symbols, i, extra);
        if (f > states - at) {
            return false;
        }
        unsigned k = f ? (unsigned)(__builtin_clz(f) - __builtin_clz(states)) : 0;
        unsigned first = f ? ((2 * states) >> k) - f : 0;
        for (unsigned j = 0; j < f; j++) {
            bool low = j < first;
            t[at++] = (struct entry){
                .delta = (int16_t)(low ? (int)((f + j) << k) - (int)states : (int)((j - first) << (k - 1))),
                .bits = (uint8_t)(low ? k : k - 1),
                .extra = (uint8_t)more,
                .value = base,
            };
        }
        base += 1u << more;
    }
    return true;
}

static uint32_t next_value(struct coder *c, struct bits *b)
{
    const struct entry *e = &c->entries[c->state];
    uint32_t v = pull(b, e->bits + e->extra);
    c->state = (uint32_t)(e->delta + (int)(v >> e->extra));
    return e->value + (v & ((1u << e->extra) - 1));
}

/* Frequencies are coded in 2 to 14 bits, the shorter the smaller. */
static unsigned take_frequency(uint32_t bits, unsigned *n)
{
    static const uint8_t lengths[32] = {2, 3, 2, 5, 2, 3, 2, 8,  2, 3, 2, 5, 2, 3, 2, 14,
                                        2, 3, 2, 5, 2, 3, 2, 8,  2, 3, 2, 5, 2, 3, 2, 14};
    static const uint8_t values[32] = {0, 2, 1, 4, 0, 3, 1, 0, 0, 2, 1, 5, 0, 3, 1, 0,
                                       0, 2, 1, 6, 0, 3, 1, 0, 0, 2, 1, 7, 0, 3, 1, 0};
    *n = lengths[bits & 31];
    return *n == 8 ? 8 + (bits >> 4 & 15) : *n == 14 ? 24 + (bits >> 4 & 1023) : values[bits & 31];
}

static bool take_frequencies(const uint8_t *p, const uint8_t *end, uint16_t freq[SYMBOLS])
{
    uint64_t bits = 0;
    unsigned have = 0, n;
    for (unsigned i = 0; i < SYMBOLS; i++) {
        for (; have < 14 && p < end; have += 8) {
            bits |= (uint64_t)*p++ << have;
        }
        freq[i] = (uint16_t)take_frequency((uint32_t)bits, &n);
        if (n > have) {
            return false;
        }
        bits >>= n;
        have -= n;
    }
    return true;
}

/* A block as its header says. */
struct block {
    uint32_t raw, literals, literal_bytes, matches, lmd_bytes, header;
    unsigned literal_unused, lmd_unused;
    uint32_t literal_state[4], l_state, m_state, d_state;
};

static uint32_t field(uint64_t v, unsigned at, unsigned n)
{
    return (uint32_t)(v >> at & ((UINT64_C(1) << n) - 1));
}

static bool read_block(const uint8_t *p, size_t left, struct block *b)
{
    if (left < HEADER) {
        return false;
    }
    uint64_t x = le64_at(p + 8), y = le64_at(p + 16), z = le64_at(p + 24);
    *b = (struct block){
        .raw = le32_at(p + 4),
        .literals = field(x, 0, 20), .literal_bytes = field(x, 20, 20), .matches = field(x, 40, 20),
        .literal_unused = 7 - field(x, 60, 3),
        .literal_state = {field(y, 0, 10), field(y, 10, 10), field(y, 20, 10), field(y, 30, 10)},
        .lmd_bytes = field(y, 40, 20), .lmd_unused = 7 - field(y, 60, 3),
        .header = field(z, 0, 32),
        .l_state = field(z, 32, 10), .m_state = field(z, 42, 10), .d_state = field(z, 52, 10),
    };
    return b->header >= HEADER && b->header <= left &&
           (uint64_t)b->literal_bytes + b->lmd_bytes <= left - b->header &&
           b->literals <= LITERALS_MAX && b->literals % 4 == 0 && b->matches <= MATCHES_MAX &&
           b->l_state < L_STATES && b->m_state < M_STATES && b->d_state < D_STATES;
}

static bool decode_literals(const struct block *b, const uint8_t *in, const uint16_t *freq,
                            uint8_t out[LITERALS_MAX])
{
    struct entry entries[LITERAL_STATES];
    struct bits bits = bits_of(in, b->literal_bytes, b->literal_unused);
    struct coder c[4];
    for (unsigned i = 0; i < 4; i++) {
        c[i] = (struct coder){entries, b->literal_state[i]}; /* ten bits: always a state */
    }
    if (!fill_entries(entries, LITERAL_STATES, freq, LITERAL_SYMBOLS, NULL)) {
        return false;
    }
    for (uint32_t i = 0; i < b->literals; i++) {
        out[i] = (uint8_t)next_value(&c[i % 4], &bits);
    }
    return !bits.over;
}

static bool decode_matches(struct stream *s, const struct block *b, const uint8_t *in,
                           const uint16_t *freq, const uint8_t *literals)
{
    struct entry l_entries[L_STATES], m_entries[M_STATES], d_entries[D_STATES];
    struct bits bits = bits_of(in, b->lmd_bytes, b->lmd_unused);
    struct coder l = {l_entries, b->l_state}, m = {m_entries, b->m_state}, d = {d_entries, b->d_state};
    uint32_t distance = 0, used = 0;
    if (!fill_entries(l_entries, L_STATES, freq, L_SYMBOLS, l_extra) ||
        !fill_entries(m_entries, M_STATES, freq + L_SYMBOLS, M_SYMBOLS, m_extra) ||
        !fill_entries(d_entries, D_STATES, freq + L_SYMBOLS + M_SYMBOLS, D_SYMBOLS, NULL)) {
        return false;
    }
    for (uint32_t i = 0; i < b->matches; i++) {
        uint32_t n = next_value(&l, &bits), copy = next_value(&m, &bits), back = next_value(&d, &bits);
        distance = back ? back : distance;
        if (bits.over || n > b->literals - used || !put_literals(s, literals + used, n) ||
            !put_match(s, copy, distance)) {
            return false;
        }
        used += n;
    }
    return true;
}

static bool fse(struct stream *s)
{
    struct block b;
    uint16_t freq[SYMBOLS];
    uint8_t literals[LITERALS_MAX];
    const uint8_t *p = s->in, *before = s->out;
    if (!read_block(p, (size_t)(s->in_end - p), &b)) {
        return false;
    }
    const uint8_t *payload = p + b.header;
    s->in = payload + b.literal_bytes + b.lmd_bytes;
    return take_frequencies(p + HEADER, payload, freq) &&
           decode_literals(&b, payload, freq + SYMBOLS - LITERAL_SYMBOLS, literals) &&
           decode_matches(s, &b, payload + b.literal_bytes, freq, literals) &&
           s->out - before == (ptrdiff_t)b.raw;
}

/* ---- blocks ---- */

static bool lzvn_block(struct stream *s)
{
    size_t left = (size_t)(s->in_end - s->in);
    uint32_t raw = left < 12 ? 0 : le32_at(s->in + 4), payload = left < 12 ? 0 : le32_at(s->in + 8);
    if (left < 12 || payload > left - 12 || raw > (size_t)(s->out_end - s->out)) {
        return false;
    }
    struct stream part = {s->in + 12, s->in + 12 + payload, s->start, s->out, s->out + raw};
    s->in = part.in_end;
    s->out = part.out_end;
    return lzvn(&part) && part.out == part.out_end;
}

static bool raw_block(struct stream *s)
{
    uint32_t n = s->in_end - s->in < 8 ? UINT32_MAX : le32_at(s->in + 4);
    s->in += n == UINT32_MAX ? 0 : 8;
    return n != UINT32_MAX && take_literals(s, n);
}

static int unpack(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    struct stream s = {in, in + in_n, out, out, out + out_n};
    bool ok = true;
    while (ok && s.out < s.out_end && s.in_end - s.in >= 4) {
        switch (le32_at(s.in)) {
        case MAGIC_RAW:
            ok = raw_block(&s);
            break;
        case MAGIC_LZVN:
            ok = lzvn_block(&s);
            break;
        case MAGIC_FSE:
            ok = fse(&s);
            break;
        case MAGIC_END:
            ok = false; /* too early */
            break;
        default:
            ok = false;
        }
    }
    return ok && s.out == s.out_end ? 0 : -EIO;
}

const struct codec codec_lzfse = {.name = "lzfse", .unpack = unpack};
