/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "host/image/core.h"
#include "host/image/options.h"

#include <string.h>

/*
 * Bad headers: a good image in memory, one field of it changed.  Opening must fail with one line
 * that says what is wrong, and must not have written anything.
 */
struct bad {
    const char *what;
    uint64_t at; /* byte of the file */
    unsigned bytes; /* of the field; 0: the file is cut at .at */
    uint64_t value;
    const char *says; /* part of the message; NULL: it opens, and reading ends with or without errors */
};

/* An empty image, or one of which some was written. */
static G_GNUC_UNUSED GByteArray *good_image(const char *format, const char *options, uint64_t size,
                                            const char *backing)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *f = format_find(format, &error);
    g_autoptr(Options) o = options_new(f->tools->create_options, NULL);
    struct image_create how = {.file = mem_file(NULL, false, 0), .name = "memory", .size = size,
                               .options = o, .backing_name = backing,
                               .backing_format = backing ? "raw" : NULL};
    assert_works(!*options || options_parse(o, options, &error), error);
    assert_works(f->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    return bytes;
}

static struct node *open_bytes(GByteArray *bytes, const char *format, const char *json,
                               unsigned flags, GError **error)
{
    json_t *o = json_loads(json, 0, NULL);
    json_object_set_new(o, "driver", json_string(format));
    struct file *f = mem_file(g_byte_array_ref(bytes), false, flags & OPEN_READ_ONLY);
    struct node *n = node_open_file(f, NULL, o, flags | OPEN_NO_BACKING, error);
    json_decref(o);
    return n;
}

/* Writes @n bytes of noise at @offset. */
static G_GNUC_UNUSED void fill_image(GByteArray *bytes, const char *format, const char *json,
                                     uint64_t offset, uint64_t n)
{
    g_autoptr(GError) error = NULL;
    struct node *node = open_bytes(bytes, format, json, 0, &error);
    assert_works(node != NULL, error);
    g_autofree uint8_t *buf = g_malloc(n);
    for (uint64_t i = 0; i < n; i++) {
        buf[i] = (uint8_t)(i * 31 + i / 251 + 1);
    }
    assert_int_equal(chain_write(node, offset, buf, n), 0);
    assert_int_equal(chain_flush(node), 0);
    chain_close(node);
}

static void put_field(GByteArray *to, const struct bad *b, bool big)
{
    if (!b->bytes) {
        g_byte_array_set_size(to, (guint)b->at);
        return;
    }
    assert_true(b->at + b->bytes <= to->len);
    for (unsigned i = 0; i < b->bytes; i++) {
        unsigned shift = 8 * (big ? b->bytes - 1 - i : i);
        to->data[b->at + i] = (uint8_t)(b->value >> shift);
    }
}

static void read_all(struct node *n)
{
    static uint8_t buf[1 << 16];
    uint64_t size = MIN(n->size, 64 << 20);
    for (uint64_t at = 0; at < size; at += sizeof(buf)) {
        (void)!chain_read(n, at, buf, MIN(sizeof(buf), size - at));
    }
}

static G_GNUC_UNUSED void try_bad(const GByteArray *good, const char *format, const char *json,
                                  const struct bad *b, bool big)
{
    g_autoptr(GError) error = NULL;
    GByteArray *bytes = g_byte_array_new();
    g_byte_array_append(bytes, good->data, good->len);
    put_field(bytes, b, big);
    g_autofree uint8_t *before = g_memdup2(bytes->data, bytes->len);
    guint size = bytes->len;
    struct node *n = open_bytes(bytes, format, json, 0, &error);
    if (b->says && n) {
        fail_msg("%s, %s: it opens", format, b->what);
    }
    if (b->says && (!strstr(error->message, b->says) || strchr(error->message, '\n'))) {
        fail_msg("%s, %s: \"%s\" does not say \"%s\"", format, b->what, error->message, b->says);
    }
    if (!b->says && !n) {
        fail_msg("%s, %s: %s", format, b->what, error->message);
    }
    if (n) {
        read_all(n);
        chain_close(n);
    }
    if (bytes->len != size || (size && memcmp(bytes->data, before, size))) {
        fail_msg("%s, %s: the file was changed", format, b->what);
    }
    g_byte_array_unref(bytes);
}

#define TRY_ALL(good, format, json, rows, big)                                                     \
    for (size_t i_ = 0; i_ < G_N_ELEMENTS(rows); i_++) {                                           \
        try_bad(good, format, json, &(rows)[i_], big);                                             \
    }
