/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * dmg: Apple's disk images (UDIF), reading only.
 *
 * A trailer says where the property list is, in which block tables stand as base64; each
 * names chunks of the disk that are raw, zero or packed.
 *
 * Spec: "Demystifying the DMG File Format" (newosxbook.com); Wikipedia, "Apple Disk Image",
 * section "UDIF data format".
 */
#include "host/image/dmg.h"

#include "base/bytes.h"
#include "host/image/codec.h"
#include "host/image/format.h"

#include <inttypes.h>

enum { TRAILER = 512, TAIL = 1024, LIST_MAX = 32 << 20 };

static unsigned dmg_probe(const uint8_t *head, size_t n, const char *file_name)
{
    if (n >= 8 && !memcmp(head, "encrcdsa", 8)) {
        return 100;
    }
    return file_name && g_str_has_suffix(file_name, ".dmg") ? 2 : 0;
}

/* The trailer, which may be followed by less than a sector. */
static bool read_trailer(struct node *node, uint8_t t[TRAILER], GError **error)
{
    uint8_t tail[TAIL];
    uint64_t size = file_size(node->file), n = MIN(size, TAIL);
    int r = file_read(node->file, size - n, tail, n);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot read the trailer");
        return false;
    }
    for (uint64_t at = n < TRAILER ? 0 : n - TRAILER + 1; at-- > 0;) {
        if (!memcmp(tail + at, "koly", 4)) {
            memcpy(t, tail + at, TRAILER);
            return true;
        }
    }
    uint8_t head[8] = {0};
    bool encrypted = size >= 8 && file_read(node->file, 0, head, 8) == 0 &&
                     (!memcmp(head, "encrcdsa", 8) || !memcmp(tail + n - 8, "cdsaencr", 8));
    g_set_error(error, LODGE_ERROR, encrypted ? ENOTSUP : EINVAL,
                encrypted ? "encrypted dmg images are not supported"
                          : "Could not locate UDIF trailer in dmg file");
    return false;
}

/* The part of the file that two fields of the trailer name; NULL with an error. */
static void *read_part(struct node *node, const char *what, uint64_t at, uint64_t n, GError **error)
{
    uint64_t size = file_size(node->file);
    if (at > size || n > size - at) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s of %" PRIu64 " bytes at byte %" PRIu64
                    " does not lie inside the file of %" PRIu64 " bytes",
                    what, n, at, size);
        return NULL;
    }
    if (n > LIST_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "%s of %" PRIu64 " bytes is too long", what, n);
        return NULL;
    }
    uint8_t *p = g_try_malloc(n + 1);
    int r = p ? file_read(node->file, at, p, n) : -ENOMEM;
    if (r < 0) {
        error_set_errno(error, -r, "Cannot read the %s", what);
        g_free(p);
        return NULL;
    }
    p[n] = 0;
    return p;
}

static bool read_table(struct node *node, const uint8_t *trailer, GError **error)
{
    struct dmg_table *t = node->priv;
    uint64_t list_at = be64_at(trailer + 216), list_n = be64_at(trailer + 224);
    uint64_t fork_at = be64_at(trailer + 40), fork_n = be64_at(trailer + 48);
    if (!list_n && !fork_n) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "dmg trailer has neither a property list nor a resource fork");
        return false;
    }
    g_autofree uint8_t *part = list_n
                                   ? read_part(node, "property list", list_at, list_n, error)
                                   : read_part(node, "resource fork", fork_at, fork_n, error);
    return part && (list_n ? dmg_add_property_list(t, (char *)part, list_n, error)
                           : dmg_add_resources(t, part, fork_n, error));
}

static bool dmg_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t trailer[TRAILER];
    (void)flags;
    if (!read_trailer(node, trailer, error)) {
        return false;
    }
    struct dmg_table *t = node->priv = g_new0(struct dmg_table, 1);
    t->data_at = be64_at(trailer + 24);
    t->file_size = file_size(node->file);
    if (t->data_at > t->file_size) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "data fork at byte %" PRIu64 " is behind the end of the file", t->data_at);
        return false;
    }
    if (!read_table(node, trailer, error)) {
        return false;
    }
    for (size_t i = 0; i < t->n; i++) {
        uint64_t end = (t->chunks[i].sector + t->chunks[i].sectors) * DMG_SECTOR;
        node->size = MAX(node->size, end);
    }
    dmg_sort(t);
    return true;
}

static void dmg_close(struct node *node)
{
    struct dmg_table *t = node->priv;
    if (t) {
        g_free(t->chunks);
        g_free(t);
        node->priv = NULL;
    }
}

static const struct codec *codec_of(enum dmg_type type)
{
    switch (type) {
    case DMG_ADC:
        return &codec_adc;
    case DMG_ZLIB:
        return &codec_zlib;
    case DMG_BZIP2:
        return &codec_bzip2;
    case DMG_LZFSE:
        return &codec_lzfse;
    case DMG_LZMA:
        return &codec_lzma;
    default:
        return NULL;
    }
}

/* What no chunk has is zero. */
static int dmg_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    const struct dmg_table *t = node->priv;
    const struct dmg_chunk *c = dmg_find(t, offset / DMG_SECTOR);
    const struct dmg_chunk *next = c ? c + 1 : t->chunks;
    uint64_t start = c ? c->sector * DMG_SECTOR : 0, end = c ? start + (uint64_t)c->sectors * DMG_SECTOR : 0;
    (void)wait;
    if (next && next < t->chunks + t->n) {
        length = MIN(length, next->sector * DMG_SECTOR - offset);
    }
    *out = (struct extent){.kind = EXTENT_ZERO, .length = length};
    if (offset >= end) {
        return 0;
    }
    out->length = MIN(length, end - offset);
    if (c->type == DMG_RAW) {
        out->kind = EXTENT_DATA;
        out->at = c->at + (offset - start);
    } else if (codec_of(c->type)) {
        out->kind = EXTENT_PACKED;
        out->at = c->at;
        out->stored = c->stored;
        out->codec = codec_of(c->type);
        out->unit = c->sectors * DMG_SECTOR;
        out->start = start;
    }
    return 0;
}

const struct image_format format_dmg = {
    .name = "dmg",
    .about = "Apple disk images (UDIF), reading only",
    .spec = "UDIF",
    .probe = dmg_probe,
    .open = dmg_open,
    .close = dmg_close,
    .map = dmg_map,
};
