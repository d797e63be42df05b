/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "host/image/core.h"
#include "host/image/options.h"

/*
 * What the tests of bad images share: a sound image in memory, fields of it changed row by row,
 * and the words that the refusal must have.  A refusal is one line and writes nothing.
 */
enum { BAD_SIZE = 8 << 20 };

struct change {
    uint64_t at;
    unsigned n; /* bytes; 0: no more changes */
    uint64_t value;
};

struct row {
    const char *what, *options, *says;
    struct change changes[8];
    bool as_it_is; /* checksums are not made right again */
    uint32_t cut;  /* the file ends here; 0: it stays whole */
};

/* What is different between the formats. */
struct bad_format {
    const char *name;
    bool big_endian;
    void (*seal)(GByteArray *image); /* makes checksums right; or NULL */
};

static inline GByteArray *sound_image(const char *name, const char *options)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *format = format_find(name, &error);
    assert_non_null(format);
    g_autoptr(Options) o = options_new(format->tools->create_options, NULL);
    assert_works(!options || options_parse(o, options, &error), error);
    struct image_create how = {.file = mem_file(NULL, false, 0), .name = "memory", .size = BAD_SIZE,
                               .options = o};
    assert_works(format->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    return bytes;
}

/* The image's bytes are those in @image, also after a write. */
static inline struct node *open_bytes(GByteArray *image, const char *name, unsigned flags,
                                      GError **error)
{
    json_t *o = json_pack("{s:s}", "driver", name);
    struct node *n =
        node_open_file(mem_file(g_byte_array_ref(image), false, flags), NULL, o, flags, error);
    json_decref(o);
    return n;
}

static inline void change_bytes(GByteArray *image, const struct change *c, bool big_endian)
{
    if (c->at + c->n > image->len) {
        guint old = image->len;
        g_byte_array_set_size(image, (guint)(c->at + c->n));
        memset(image->data + old, 0, image->len - old);
    }
    for (unsigned i = 0; i < c->n; i++) {
        unsigned byte = big_endian ? c->n - 1 - i : i;
        image->data[c->at + i] = (uint8_t)(c->value >> 8 * byte);
    }
}

static inline GByteArray *bad_image(const struct bad_format *f, const struct row *row)
{
    GByteArray *image = sound_image(f->name, row->options);
    for (unsigned k = 0; k < G_N_ELEMENTS(row->changes) && row->changes[k].n; k++) {
        change_bytes(image, &row->changes[k], f->big_endian);
    }
    if (f->seal && !row->as_it_is) {
        f->seal(image);
    }
    if (row->cut) {
        g_byte_array_set_size(image, row->cut);
    }
    return image;
}

static inline void refused(const struct row *row, GByteArray *image, struct node *n, GError *error,
                           const uint8_t *before)
{
    if (n || !error || !strstr(error->message, row->says) || strchr(error->message, '\n')) {
        fail_msg("%s: %s", row->what, error ? error->message : "opens");
    }
    assert_memory_equal(before, image->data, image->len);
}

static inline void refuse_rows(const struct bad_format *f, const struct row *rows, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++) {
        for (unsigned writing = 0; writing < 2; writing++) {
            g_autoptr(GError) error = NULL;
            GByteArray *image = bad_image(f, &rows[i]);
            g_autofree uint8_t *before = g_memdup2(image->data, image->len);
            struct node *n = open_bytes(image, f->name, writing ? 0 : OPEN_READ_ONLY, &error);
            refused(&rows[i], image, n, error, before);
            g_byte_array_unref(image);
        }
    }
}

/* Every cut of the file is refused or reads without harm. */
static inline void cut_anywhere(const char *name, const char *options)
{
    GByteArray *whole = sound_image(name, options);
    for (unsigned n = 0; n < whole->len; n += n < 200 ? 7 : n < 8192 ? 509 : 65521) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = g_byte_array_new();
        uint8_t buf[512];
        g_byte_array_append(image, whole->data, n);
        struct node *node = open_bytes(image, name, OPEN_READ_ONLY, &error);
        if (node) {
            chain_read(node, 0, buf, sizeof(buf));
            chain_close(node);
        } else {
            assert_non_null(error);
        }
        g_byte_array_unref(image);
    }
    g_byte_array_unref(whole);
}

/* Corruptions that check finds in @image. */
static inline uint64_t corruptions_of(GByteArray *image, const char *name)
{
    g_autoptr(GError) error = NULL;
    struct check_result out = {0};
    struct node *n = open_bytes(image, name, OPEN_READ_ONLY | OPEN_CHECK, &error);
    assert_works(n != NULL, error);
    assert_works(n->format->tools->check(n, FIX_NOTHING, &out, &error), error);
    chain_close(n);
    return out.corruptions;
}

/* What reading the first sector of @image gives. */
static inline int read_of(GByteArray *image, const char *name)
{
    g_autoptr(GError) error = NULL;
    uint8_t buf[512];
    struct node *n = open_bytes(image, name, OPEN_READ_ONLY, &error);
    assert_works(n != NULL, error);
    int r = chain_read(n, 0, buf, sizeof(buf));
    chain_close(n);
    return r;
}

/* 64 KiB of data in each of the first @n MiB. */
static inline void fill_image(GByteArray *image, const char *name, unsigned n)
{
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *data = g_malloc(65536);
    struct node *node = open_bytes(image, name, 0, &error);
    assert_works(node != NULL, error);
    for (unsigned i = 0; i < n; i++) {
        memset(data, (int)i + 1, 65536);
        assert_int_equal(chain_write(node, (uint64_t)i << 20, data, 65536), 0);
    }
    assert_int_equal(chain_flush(node), 0);
    chain_close(node);
}
