/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * deflate: a DEFLATE compressor with a window of 4 KiB.
 *
 * Spec: RFC 1951 "DEFLATE Compressed Data Format Specification version 1.3", "Compressed
 * blocks (length and distance codes)" and "Compression with dynamic Huffman codes".
 *
 * Matches are looked for in chains of positions with the same hash of four bytes, and in one
 * position with the same hash of three; a match waits for a better one at the next byte.  All
 * blocks have codes of their own.
 */
#include "host/image/deflate.h"

#include <glib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    WINDOW = 4096,
    HASH4_BITS = 13,
    HASH3_BITS = 11,
    MATCH_MIN = 3,
    MATCH_MAX = 258,
    FAR3 = 1024,         /* matches of three bytes from farther away cost more than literals */
    SYMBOLS_MAX = 30000, /* of a block */
    LITERALS = 288,
    DISTANCES = 30,
    END_OF_BLOCK = 256,
    LENGTH_CODES = 19,
    CODE_BITS_MAX = 15,
    LENGTH_BITS_MAX = 7,
};

struct code {
    uint16_t bits[LITERALS]; /* reversed, as they are written */
    uint8_t length[LITERALS];
};

struct deflater {
    uint16_t head4[1 << HASH4_BITS], head3[1 << HASH3_BITS]; /* low 16 bits of positions */
    uint16_t before[WINDOW];                                 /* of a position, in its chain */
    uint32_t symbols[SYMBOLS_MAX + 16]; /* a literal, or MATCH | length << 16 | distance */
    unsigned n_symbols;
    uint32_t literal_count[LITERALS], distance_count[DISTANCES];
    struct code literals, distances;
    uint8_t length_symbol[MATCH_MAX + 1]; /* less 257 */
    uint8_t distance_symbol[WINDOW + 1];
    /* The output. */
    uint64_t pending;
    unsigned pending_bits;
    uint8_t *at, *end;
};

static const uint32_t MATCH = UINT32_C(1) << 31;

static const uint16_t length_base[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                         15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                         67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t distance_base[24] = {1,   2,   3,   4,   5,    7,    9,    13,
                                           17,  25,  33,  49,  65,   97,   129,  193,
                                           257, 385, 513, 769, 1025, 1537, 2049, 3073};
static const uint8_t distance_extra[24] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4,  4,
                                           5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10};

/* How hard a level tries. */
static const struct effort {
    uint16_t depth; /* candidates looked at */
    uint16_t nice;  /* a match so long is good enough */
    bool lazy;
} efforts[10] = {
    [1] = {2, 16, false},  [2] = {4, 24, false},   [3] = {4, 32, true},
    [4] = {8, 48, true},   [5] = {12, 64, true},   [6] = {24, 128, true},
    [7] = {48, 258, true}, [8] = {128, 258, true}, [9] = {1024, 258, true},
};

struct match {
    unsigned length, distance;
};

/* ---- finding matches ---- */

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline unsigned hash4(uint32_t v)
{
    return (v * UINT32_C(0x9e3779b1)) >> (32 - HASH4_BITS);
}

static inline unsigned hash3(uint32_t v)
{
    return ((v & 0xffffff) * UINT32_C(0x9e3779b1)) >> (32 - HASH3_BITS);
}

/* How many bytes are the same, at most @max. */
static inline unsigned same(const uint8_t *a, const uint8_t *b, unsigned max)
{
    unsigned n = 0;
    for (; n + 8 <= max; n += 8) {
        uint64_t x = load64(a + n) ^ load64(b + n);
        if (x) {
            return n + (unsigned)__builtin_ctzll(x) / 8;
        }
    }
    while (n < max && a[n] == b[n]) {
        n++;
    }
    return n;
}

static inline void insert(struct deflater *d, const uint8_t *in, size_t pos)
{
    uint32_t v = load32(in + pos);
    unsigned h = hash4(v);
    d->before[pos % WINDOW] = d->head4[h];
    d->head4[h] = (uint16_t)pos;
    d->head3[hash3(v)] = (uint16_t)pos;
}

/*
 * The best match at @pos that is longer than @best.length, and notes the position.  At least
 * eight bytes follow.  Positions are kept in 16 bits: what they seem to mean is always
 * compared, so an old one is a bad guess and no harm.
 */
static inline struct match find(struct deflater *d, const uint8_t *in, size_t pos, size_t in_n,
                                struct match best, unsigned depth, unsigned nice)
{
    const uint8_t *here = in + pos;
    uint32_t v = load32(here);
    unsigned h4 = hash4(v), h3 = hash3(v);
    unsigned max = (unsigned)MIN(MATCH_MAX, in_n - pos);
    unsigned reach = (unsigned)MIN(WINDOW, pos);
    unsigned distance = (uint16_t)(pos - d->head4[h4]), near = 0;

    if (best.length < MATCH_MIN) {
        unsigned d3 = (uint16_t)(pos - d->head3[h3]);
        if (d3 && d3 <= MIN(reach, FAR3) && !((load32(here - d3) ^ v) & 0xffffff)) {
            best = (struct match){MATCH_MIN, d3};
        }
    }
    d->before[pos % WINDOW] = d->head4[h4];
    d->head4[h4] = (uint16_t)pos;
    d->head3[h3] = (uint16_t)pos;
    if (best.length >= max) {
        return best;
    }
    while (distance > near && distance <= reach && depth--) {
        const uint8_t *there = here - distance;
        if (load32(there) == v && (best.length < 4 || load32(there + best.length - 3) ==
                                                          load32(here + best.length - 3))) {
            unsigned n = same(here, there, max);
            if (n > best.length) {
                best = (struct match){n, distance};
                if (n >= nice || n == max) {
                    break;
                }
            }
        }
        near = distance;
        distance = (uint16_t)(pos - d->before[(pos - distance) % WINDOW]);
    }
    return best;
}

/* ---- the code of a block ---- */

/* Lengths of at most @limit bits for symbols with these counts (Huffman, then shortened). */
static void make_lengths(const uint32_t *count, unsigned n, unsigned limit, uint8_t *length)
{
    /* Leaves by count, then inner nodes in the order in which they are made: two queues. */
    uint32_t weight[2 * LITERALS];
    uint16_t parent[2 * LITERALS], symbol[LITERALS] = {0};
    unsigned used = 0;
    memset(length, 0, n);
    uint64_t keyed[LITERALS];
    for (unsigned i = 0; i < n; i++) {
        if (count[i]) {
            keyed[used++] = (uint64_t)count[i] << 16 | i;
        }
    }
    /* Shell sort: small, in place, no calls. */
    for (unsigned gap = 121; gap; gap /= 3) {
        for (unsigned i = gap; i < used; i++) {
            uint64_t k = keyed[i];
            unsigned j = i;
            for (; j >= gap && keyed[j - gap] > k; j -= gap) {
                keyed[j] = keyed[j - gap];
            }
            keyed[j] = k;
        }
    }
    for (unsigned i = 0; i < used; i++) {
        weight[i] = (uint32_t)(keyed[i] >> 16);
        symbol[i] = (uint16_t)keyed[i];
    }
    if (used < 2) {
        length[symbol[0]] = (uint8_t)used; /* one symbol has a bit, none has none */
        return;
    }
    unsigned leaf = 0, inner = used, made = used;
    while (made < 2 * used - 1) {
        uint32_t sum = 0;
        for (unsigned k = 0; k < 2; k++) {
            bool take_leaf = leaf < used && (inner >= made || weight[leaf] <= weight[inner]);
            unsigned node = take_leaf ? leaf++ : inner++;
            sum += weight[node];
            parent[node] = (uint16_t)made;
        }
        weight[made++] = sum;
    }
    /* Depths from the root down; too deep ones are cut, then paid for. */
    uint16_t depth[2 * LITERALS];
    unsigned per_length[CODE_BITS_MAX + 1] = {0};
    depth[made - 1] = 0;
    for (unsigned i = made - 1; i-- > 0;) {
        depth[i] = (uint16_t)(depth[parent[i]] + 1);
        if (i < used) {
            per_length[MIN(depth[i], limit)]++;
        }
    }
    uint32_t total = 0;
    for (unsigned l = 1; l <= limit; l++) {
        total += per_length[l] << (limit - l);
    }
    while (total > 1u << limit) {
        unsigned l = limit - 1;
        while (!per_length[l]) {
            l--;
        }
        per_length[l]--;
        per_length[l + 1] += 2;
        per_length[limit]--;
        total--;
    }
    unsigned i = 0;
    for (unsigned l = limit; l > 0; l--) {
        for (unsigned k = per_length[l]; k > 0; k--) {
            length[symbol[i++]] = (uint8_t)l;
        }
    }
}

static void make_code(struct code *c, unsigned n)
{
    unsigned per_length[CODE_BITS_MAX + 1] = {0}, next[CODE_BITS_MAX + 1] = {0}, code = 0;
    for (unsigned i = 0; i < n; i++) {
        per_length[c->length[i]]++;
    }
    per_length[0] = 0;
    for (unsigned l = 1; l <= CODE_BITS_MAX; l++) {
        code = (code + per_length[l - 1]) << 1;
        next[l] = code;
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned l = c->length[i], v = l ? next[l]++ : 0, r = 0;
        for (unsigned b = 0; b < l; b++) {
            r |= (v >> b & 1) << (l - 1 - b);
        }
        c->bits[i] = (uint16_t)r;
    }
}

/* ---- output ---- */

/* At most 32 bits; there is room (see block_fits()). */
static inline void put(struct deflater *d, uint32_t bits, unsigned n)
{
    d->pending |= (uint64_t)bits << d->pending_bits;
    d->pending_bits += n;
}

static inline void drain(struct deflater *d)
{
    memcpy(d->at, &d->pending, sizeof(d->pending));
    unsigned bytes = d->pending_bits / 8;
    d->at += bytes;
    d->pending = bytes == 8 ? 0 : d->pending >> (bytes * 8);
    d->pending_bits %= 8;
}

/* Run lengths of code lengths: symbols 0 to 18 in *out with their extra bits. */
static unsigned run_lengths(const uint8_t *length, unsigned n, uint16_t *out)
{
    unsigned made = 0;
    for (unsigned i = 0, run; i < n; i += run) {
        run = 1;
        while (i + run < n && length[i + run] == length[i]) {
            run++;
        }
        if (length[i] == 0 && run >= 3) {
            run = MIN(run, 138);
            out[made++] = (uint16_t)(run < 11 ? 17 | (run - 3) << 5 : 18 | (run - 11) << 5);
        } else if (run >= 4) {
            out[made++] = length[i];
            run = MIN(run - 1, 6);
            out[made++] = (uint16_t)(16 | (run - 3) << 5);
            run++;
        } else {
            out[made++] = length[i];
            run = 1;
        }
    }
    return made;
}

static unsigned extra_bits(unsigned symbol)
{
    return symbol == 16 ? 2 : symbol == 17 ? 3 : symbol == 18 ? 7 : 0;
}

struct header {
    unsigned n_literals, n_distances, n_lengths, n_runs;
    uint16_t runs[LITERALS + DISTANCES];
    struct code code;
    uint64_t bits;
};

static const uint8_t length_order[LENGTH_CODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                   11, 4,  12, 3, 13, 2, 14, 1, 15};

static void make_header(struct deflater *d, struct header *h)
{
    uint8_t lengths[LITERALS + DISTANCES];
    uint32_t count[LENGTH_CODES] = {0};
    h->n_literals = LITERALS - 2;
    while (!d->literals.length[h->n_literals - 1]) {
        h->n_literals--;
    }
    h->n_distances = DISTANCES;
    while (h->n_distances > 1 && !d->distances.length[h->n_distances - 1]) {
        h->n_distances--;
    }
    memcpy(lengths, d->literals.length, h->n_literals);
    memcpy(lengths + h->n_literals, d->distances.length, h->n_distances);
    h->n_runs = run_lengths(lengths, h->n_literals + h->n_distances, h->runs);
    for (unsigned i = 0; i < h->n_runs; i++) {
        count[h->runs[i] & 31]++;
    }
    make_lengths(count, LENGTH_CODES, LENGTH_BITS_MAX, h->code.length);
    make_code(&h->code, LENGTH_CODES);
    h->n_lengths = LENGTH_CODES;
    while (h->n_lengths > 4 && !h->code.length[length_order[h->n_lengths - 1]]) {
        h->n_lengths--;
    }
    h->bits = 3 + 5 + 5 + 4 + 3 * h->n_lengths;
    for (unsigned i = 0; i < h->n_runs; i++) {
        unsigned symbol = h->runs[i] & 31;
        h->bits += h->code.length[symbol] + extra_bits(symbol);
    }
}

static void put_header(struct deflater *d, const struct header *h, bool last)
{
    put(d, (unsigned)last | 2 << 1, 3);
    put(d, h->n_literals - 257, 5);
    put(d, h->n_distances - 1, 5);
    put(d, h->n_lengths - 4, 4);
    drain(d);
    for (unsigned i = 0; i < h->n_lengths; i++) {
        put(d, h->code.length[length_order[i]], 3);
        drain(d);
    }
    for (unsigned i = 0; i < h->n_runs; i++) {
        unsigned symbol = h->runs[i] & 31;
        put(d, h->code.bits[symbol], h->code.length[symbol]);
        put(d, h->runs[i] >> 5, extra_bits(symbol));
        drain(d);
    }
}

static void put_symbols(struct deflater *d)
{
    const struct code *lit = &d->literals, *dist = &d->distances;
    for (unsigned i = 0; i < d->n_symbols; i++) {
        uint32_t s = d->symbols[i];
        if (!(s & MATCH)) {
            put(d, lit->bits[s], lit->length[s]);
            if (d->pending_bits >= 48) {
                drain(d);
            }
            continue;
        }
        unsigned length = s >> 16 & 0x1ff, distance = s & 0xffff;
        unsigned l = d->length_symbol[length], f = d->distance_symbol[distance];
        drain(d);
        put(d, lit->bits[257 + l], lit->length[257 + l]);
        put(d, length - length_base[l], length_extra[l]);
        put(d, dist->bits[f], dist->length[f]);
        put(d, distance - distance_base[f], distance_extra[f]);
    }
    drain(d);
    put(d, lit->bits[END_OF_BLOCK], lit->length[END_OF_BLOCK]);
    drain(d);
}

static uint64_t symbol_bits(const struct deflater *d)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < LITERALS; i++) {
        unsigned extra = i > 256 && i < 286 ? length_extra[i - 257] : 0;
        bits += (uint64_t)d->literal_count[i] * (d->literals.length[i] + extra);
    }
    for (unsigned i = 0; i < 24; i++) {
        bits += (uint64_t)d->distance_count[i] * (d->distances.length[i] + distance_extra[i]);
    }
    return bits;
}

/* False: it does not fit. */
static bool end_block(struct deflater *d, bool last)
{
    struct header h;
    d->literal_count[END_OF_BLOCK] = 1;
    make_lengths(d->literal_count, LITERALS - 2, CODE_BITS_MAX, d->literals.length);
    make_code(&d->literals, LITERALS - 2);
    make_lengths(d->distance_count, DISTANCES, CODE_BITS_MAX, d->distances.length);
    make_code(&d->distances, DISTANCES);
    make_header(d, &h);
    uint64_t bits = d->pending_bits + h.bits + symbol_bits(d);
    /* drain() writes eight bytes at a time. */
    if ((bits + 7) / 8 + 8 > (uint64_t)(d->end - d->at)) {
        return false;
    }
    put_header(d, &h, last);
    put_symbols(d);
    d->n_symbols = 0;
    memset(d->literal_count, 0, sizeof(d->literal_count));
    memset(d->distance_count, 0, sizeof(d->distance_count));
    return true;
}

/* ---- parsing ---- */

static inline void note_literal(struct deflater *d, uint8_t byte)
{
    d->symbols[d->n_symbols++] = byte;
    d->literal_count[byte]++;
}

static inline void note_match(struct deflater *d, struct match m)
{
    d->symbols[d->n_symbols++] = MATCH | m.length << 16 | m.distance;
    d->literal_count[257 + d->length_symbol[m.length]]++;
    d->distance_count[d->distance_symbol[m.distance]]++;
}

static inline int worth(struct match m)
{
    return 4 * (int)m.length + __builtin_clz(m.distance);
}

/* The last eight bytes, which find() must not reach, become literals. */
size_t deflater_pack(struct deflater *d, const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n,
                     int level)
{
    const struct effort *e = &efforts[CLAMP(level, 1, 9)];
    size_t pos = 0, limit = in_n > 8 ? in_n - 8 : 0;
    memset(d->head4, 0, sizeof(d->head4));
    memset(d->head3, 0, sizeof(d->head3));
    memset(d->before, 0, sizeof(d->before));
    memset(d->literal_count, 0, sizeof(d->literal_count));
    memset(d->distance_count, 0, sizeof(d->distance_count));
    d->n_symbols = 0;
    d->pending = d->pending_bits = 0;
    d->at = out;
    d->end = out + out_n;
    while (pos < limit) {
        if (d->n_symbols >= SYMBOLS_MAX - 2 && !end_block(d, false)) {
            return 0;
        }
        struct match m = find(d, in, pos, in_n, (struct match){2, 1}, e->depth, e->nice);
        if (m.length < MATCH_MIN) {
            note_literal(d, in[pos++]);
            continue;
        }
        size_t seen = pos; /* noted up to here */
        while (e->lazy && m.length < e->nice && pos + 1 < limit) {
            struct match next =
                find(d, in, pos + 1, in_n, (struct match){m.length - 1, 1}, e->depth / 2, e->nice);
            seen = pos + 1;
            if (next.length < m.length || worth(next) <= worth(m) + 2) {
                break;
            }
            note_literal(d, in[pos++]);
            m = next;
            if (d->n_symbols >= SYMBOLS_MAX - 2) {
                break;
            }
        }
        note_match(d, m);
        size_t next = pos + m.length, last = MIN(next, limit);
        for (size_t i = seen + 1; i < last; i++) {
            insert(d, in, i);
        }
        pos = next;
    }
    while (pos < in_n) {
        note_literal(d, in[pos++]);
    }
    if (!end_block(d, true)) {
        return 0;
    }
    /* What is left in .pending: less than a byte. */
    if (d->pending_bits) {
        *d->at++ = (uint8_t)d->pending;
    }
    return (size_t)(d->at - out);
}

struct deflater *deflater_new(void)
{
    struct deflater *d = g_try_new0(struct deflater, 1);
    if (!d) {
        return NULL;
    }
    for (unsigned s = 0; s < 29; s++) {
        for (unsigned k = 0; k < 1u << length_extra[s] && length_base[s] + k <= MATCH_MAX; k++) {
            d->length_symbol[length_base[s] + k] = (uint8_t)s;
        }
    }
    for (unsigned s = 0; s < 24; s++) {
        for (unsigned k = 0; k < 1u << distance_extra[s]; k++) {
            d->distance_symbol[distance_base[s] + k] = (uint8_t)s;
        }
    }
    return d;
}

void deflater_free(struct deflater *d)
{
    g_free(d);
}
