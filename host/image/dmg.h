/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Between the files of the format dmg: the chunks of which a disk consists. */
enum dmg_type {
    DMG_ZERO = 0,
    DMG_RAW = 1,
    DMG_IGNORE = 2,
    DMG_ADC = INT32_MIN + 4, /* 0x80000004 */
    DMG_ZLIB,
    DMG_BZIP2,
    DMG_LZFSE,
    DMG_LZMA,
    DMG_COMMENT = 0x7ffffffe,
    DMG_END = -1,
};

struct dmg_chunk {
    uint64_t sector, at; /* of the disk; byte of the file */
    uint32_t sectors, stored;
    enum dmg_type type;
};

struct dmg_table {
    struct dmg_chunk *chunks; /* sorted by .sector when all are in */
    size_t n, room;
    uint64_t data_at;   /* where the data fork starts */
    uint64_t file_size;
};

enum { DMG_SECTOR = 512, DMG_UNIT_MAX = 64 << 20 };

/* One "mish" block, @n bytes: adds its chunks.  Others are passed over. */
bool dmg_add_block(struct dmg_table *t, const uint8_t *block, size_t n, GError **error);
/* All blocks of a property list; @xml is changed. */
bool dmg_add_property_list(struct dmg_table *t, char *xml, size_t n, GError **error);
/* All blocks of a resource fork. */
bool dmg_add_resources(struct dmg_table *t, const uint8_t *fork, size_t n, GError **error);
void dmg_sort(struct dmg_table *t);
/* The last chunk that starts at or before @sector; NULL: none. */
const struct dmg_chunk *dmg_find(const struct dmg_table *t, uint64_t sector);
