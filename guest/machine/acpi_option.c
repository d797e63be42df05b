/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_option: -acpitable: tables that the user brings, whole (file=) or as a body (data=) for
 * which a header is made.
 *
 * Spec: ACPI Specification 6.3, "System Description Table Header".
 */
#include "base/bytes.h"
#include "base/keyval.h"
#include "guest/machine/tables.h"

#include <string.h>

enum { HEADER = 36, TABLE_MAX = 1 << 20 };

struct header_field {
    const char *key;
    uint8_t at, bytes;
    bool number;
    const char *otherwise;
};

static const struct header_field header_fields[] = {
    {"sig", 0, 4, false, "LODG"},           {"rev", 8, 1, true, "1"},
    {"oem_id", 10, 6, false, "LODGE"},      {"oem_table_id", 16, 8, false, "LODGEUSR"},
    {"oem_rev", 24, 4, true, "1"},          {"asl_compiler_id", 28, 4, false, "LODG"},
    {"asl_compiler_rev", 32, 4, true, "1"},
};

static bool set_field(uint8_t *h, const struct header_field *f, const char *text, GError **error)
{
    uint64_t v = 0;
    if (!f->number) {
        memset(h + f->at, f->at ? ' ' : 0, f->bytes);
        memcpy(h + f->at, text, MIN(strlen(text), f->bytes));
        return true;
    }
    if (!text_u64(text, &v) || v >> (f->bytes * 8)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s does not fit into %u bytes", f->key, text,
                    f->bytes);
        return false;
    }
    memcpy(h + f->at, &v, f->bytes);
    return true;
}

/* Fields that were given replace those of a whole table; a body gets all of them. */
static bool set_fields(uint8_t *h, KeyVal *kv, bool whole, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(header_fields); i++) {
        const struct header_field *f = &header_fields[i];
        const char *text = keyval_get(kv, f->key);
        text = text || whole ? text : f->otherwise;
        if (text && !set_field(h, f, text, error)) {
            return false;
        }
    }
    return true;
}

static bool append_files(GByteArray *out, const char *list, GError **error)
{
    g_auto(GStrv) files = g_strsplit(list, ":", -1);
    for (unsigned i = 0; files[i]; i++) {
        g_autofree char *data = NULL;
        g_autoptr(GError) why = NULL;
        gsize n;
        if (!g_file_get_contents(files[i], &data, &n, &why)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s", why->message);
            return false;
        }
        if (n > TABLE_MAX || out->len + n > TABLE_MAX) {
            g_set_error(error, LODGE_ERROR, E2BIG, "%s: a table has at most 1 MiB", files[i]);
            return false;
        }
        g_byte_array_append(out, (const uint8_t *)data, (guint)n);
    }
    return true;
}

static GBytes *make(KeyVal *kv, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    const char *file = keyval_get(kv, "file"), *data = keyval_get(kv, "data");
    if (!file == !data) {
        g_set_error(error, LODGE_ERROR, EINVAL, "either file= or data= must be given");
        return NULL;
    }
    g_byte_array_set_size(out, file ? 0 : HEADER);
    if (!file) {
        memset(out->data, 0, HEADER);
    }
    if (!append_files(out, file ? file : data, error)) {
        return NULL;
    }
    if (out->len < HEADER || (file && le32_at(out->data + 4) != out->len)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: its header does not say its length", file);
        return NULL;
    }
    if (!set_fields(out->data, kv, file, error) || !keyval_done(kv, error)) {
        return NULL;
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}

GBytes *acpi_table_from_option(const char *option, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(option, NULL, error);
    GBytes *table = kv ? make(kv, error) : NULL;
    if (!table) {
        g_prefix_error(error, "-acpitable %s: ", option);
    }
    return table;
}
