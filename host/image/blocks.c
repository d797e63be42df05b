/* SPDX-License-Identifier: GPL-2.0-or-later */

/* blocks: one flat table of large blocks, with nothing below. */
#include "host/image/blocks.h"

#include "host/image/cipher.h"

#include <string.h>

enum { CLAIMS_AT_ONCE = 64 };

void blocks_uuid(uint8_t out[UUID_BYTES])
{
    memset(out, 0, UUID_BYTES);
    cipher_random(out, UUID_BYTES, NULL); /* fails only on kernels without getrandom() */
    out[7] = (uint8_t)((out[7] & 0x0f) | 0x40);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}

void blocks_clear(struct blocks *k)
{
    g_free(k->claims);
    k->claims = NULL;
    k->n_claims = k->room = 0;
}

static struct claim *claim_of(struct blocks *k, uint64_t block)
{
    for (unsigned i = 0; i < k->n_claims; i++) {
        if (k->claims[i].block == block) {
            return &k->claims[i];
        }
    }
    return NULL;
}

static struct claim *claim_new(struct blocks *k, uint64_t block)
{
    if (k->n_claims == k->room) {
        struct claim *more = g_try_renew(struct claim, k->claims, k->room + CLAIMS_AT_ONCE);
        if (!more) {
            return NULL;
        }
        k->claims = more;
        k->room += CLAIMS_AT_ONCE;
    }
    k->claims[k->n_claims] = (struct claim){.block = block};
    return &k->claims[k->n_claims++];
}

static void claim_drop(struct blocks *k, struct claim *c)
{
    if (--c->users == 0) {
        *c = k->claims[--k->n_claims];
    }
}

int blocks_map(struct node *node, struct blocks *k, uint64_t offset, uint64_t length, bool wait,
               struct extent *out)
{
    uint64_t size = UINT64_C(1) << k->shift, b = offset >> k->shift, in = offset & (size - 1);
    uint64_t at = 0, next_at = 0;
    enum extent_kind kind = EXTENT_ABSENT, next;
    int r = k->get(node, b, wait, &kind, &at);
    if (r < 0) {
        return r;
    }
    bool ready = !node->read_only && (!k->touched || k->touched(node, b));
    uint64_t run = size - in;
    while (run < length && k->get(node, ++b, wait, &next, &next_at) == 0 && next == kind &&
           (kind != EXTENT_DATA ||
            (next_at == at + in + run &&
             ready == (!node->read_only && (!k->touched || k->touched(node, b)))))) {
        run += size;
    }
    *out = (struct extent){.kind = kind, .length = MIN(run, length)};
    if (kind == EXTENT_DATA) {
        out->at = at + in;
        out->in_place = ready;
        out->holes = true;
    }
    return 0;
}

static int place_fresh(struct node *node, struct blocks *k, uint64_t b, uint64_t *at)
{
    struct claim *c = claim_of(k, b);
    if (!c) {
        uint64_t where;
        int r = k->take(node, b, &where);
        c = r < 0 ? NULL : claim_new(k, b);
        if (!c) {
            return r < 0 ? r : -ENOMEM;
        }
        c->at = where;
    }
    c->users++;
    *at = c->at;
    return 0;
}

int blocks_place(struct node *node, struct blocks *k, uint64_t offset, uint64_t length,
                 struct extent *out)
{
    uint64_t size = UINT64_C(1) << k->shift, b = offset >> k->shift, in = offset & (size - 1);
    uint64_t at;
    enum extent_kind kind;
    int r = k->get(node, b, true, &kind, &at);
    if (r < 0) {
        return r;
    }
    bool fresh = kind != EXTENT_DATA;
    if (fresh) {
        r = place_fresh(node, k, b, &at);
    } else if (k->touch) {
        r = k->touch(node, b, at);
    }
    if (r < 0) {
        return r;
    }
    *out = (struct extent){.kind = EXTENT_DATA,
                           .length = MIN(length, size - in),
                           .at = at + in,
                           .fresh = fresh,
                           .cookie = at};
    return 0;
}

int blocks_link(struct node *node, struct blocks *k, uint64_t offset, const struct extent *placed)
{
    struct claim *c = claim_of(k, offset >> k->shift);
    int r = k->set(node, offset >> k->shift, placed->cookie);
    if (c) {
        claim_drop(k, c);
    }
    return r;
}

/* The space is lost until `check -r leaks`, unless another request links the same block. */
void blocks_unplace(struct blocks *k, uint64_t offset, const struct extent *placed)
{
    struct claim *c = claim_of(k, offset >> k->shift);
    (void)placed;
    if (c) {
        claim_drop(k, c);
    }
}

int blocks_zero(struct node *node, struct blocks *k, uint64_t offset, uint64_t length,
                enum zero_kind kind)
{
    uint64_t size = UINT64_C(1) << k->shift;
    while (length) {
        uint64_t b = offset >> k->shift, in = offset & (size - 1), n = MIN(length, size - in), at;
        enum extent_kind is;
        int r = k->get(node, b, true, &is, &at);
        if (r == 0 && is == EXTENT_DATA) {
            r = k->touch ? k->touch(node, b, at) : 0;
            r = r ? r : file_zero(node->file, at + in, n, kind != ZERO_KEEP);
        }
        if (r < 0) {
            return r;
        }
        offset += n;
        length -= n;
    }
    return 0;
}
