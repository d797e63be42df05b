/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/tool.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/*
 * Answers as text and as JSON.  Scripts compare qemu-img's JSON as text, so keys stand in its
 * order: that of a hash table of 512 places filled by the string hash of the Trivial Database
 * (tdb); keys that share a place stand in reverse order of insertion.
 */
enum { HASH_PLACES = 512, INDENT = 4 };

struct member {
    const char *key;
    const json_t *value;
    unsigned place, nth;
};

static unsigned place_of(const char *key)
{
    uint32_t h = UINT32_C(0x238f13af) * (uint32_t)strlen(key);
    for (unsigned i = 0; key[i]; i++) {
        h += (uint32_t)(unsigned char)key[i] << (i * 5 % 24);
    }
    return (UINT32_C(1103515243) * h + 12345) % HASH_PLACES;
}

static int by_place(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->place != y->place) {
        return x->place < y->place ? -1 : 1;
    }
    return x->nth > y->nth ? -1 : 1;
}

/* The members in printing order; their number in *n. */
static struct member *members_of(const json_t *object, size_t *n)
{
    struct member *all = g_new(struct member, json_object_size(object) + 1);
    const char *key;
    json_t *value;
    *n = 0;
    json_object_foreach((json_t *)object, key, value)
    {
        all[*n] = (struct member){key, value, place_of(key), (unsigned)*n};
        ++*n;
    }
    qsort(all, *n, sizeof(*all), by_place);
    return all;
}

static void newline(GString *out, unsigned depth)
{
    g_string_append_printf(out, "\n%*s", (int)(depth * INDENT), "");
}

/* Outside of printable ASCII as \uXXXX. */
static void append_string(GString *out, const char *text)
{
    g_autofree char *dumped = NULL;
    json_t *s = json_string(text);
    if (!s) { /* not UTF-8: a file name may be any bytes */
        g_autofree char *valid = g_utf8_make_valid(text, -1);
        s = json_string(valid);
    }
    dumped = json_dumps(s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    json_decref(s);
    g_string_append(out, dumped);
}

static void append_value(GString *out, const json_t *v, unsigned depth)
{
    g_autofree struct member *all = NULL;
    size_t n = 0;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        all = members_of(v, &n);
        g_string_append_c(out, '{');
        for (size_t i = 0; i < n; i++) {
            g_string_append(out, i ? "," : "");
            newline(out, depth + 1);
            append_string(out, all[i].key);
            g_string_append(out, ": ");
            append_value(out, all[i].value, depth + 1);
        }
        newline(out, depth);
        g_string_append_c(out, '}');
        break;
    case JSON_ARRAY:
        g_string_append_c(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            g_string_append(out, i ? "," : "");
            newline(out, depth + 1);
            append_value(out, json_array_get(v, i), depth + 1);
        }
        newline(out, depth);
        g_string_append_c(out, ']');
        break;
    case JSON_STRING:
        append_string(out, json_string_value(v));
        break;
    case JSON_INTEGER:
        g_string_append_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        g_string_append_printf(out, "%.17g", json_real_value(v));
        break;
    default:
        g_string_append(out, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    }
}

void print_json(const json_t *value)
{
    g_autoptr(GString) out = g_string_new(NULL);
    append_value(out, value, 0);
    puts(out->str);
}

static void print_nested(const json_t *v, unsigned indent)
{
    if (json_is_object(v) || json_is_array(v)) {
        putchar('\n');
        print_plain(v, indent + 1);
    } else if (json_is_string(v)) {
        printf(" %s\n", json_string_value(v));
    } else {
        g_autoptr(GString) out = g_string_new(NULL);
        append_value(out, v, 0);
        printf(" %s\n", out->str);
    }
}

void print_plain(const json_t *value, unsigned indent)
{
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            printf("%*s[%zu]:", (int)(indent * INDENT), "", i);
            print_nested(json_array_get(value, i), indent);
        }
        return;
    }
    size_t n;
    g_autofree struct member *all = members_of(value, &n);
    for (size_t i = 0; i < n; i++) {
        g_autofree char *name = g_strdelimit(g_strdup(all[i].key), "-", ' ');
        printf("%*s%s:", (int)(indent * INDENT), "", name);
        print_nested(all[i].value, indent);
    }
}

char *size_text(uint64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    double v = (double)bytes;
    unsigned i = 0;
    while (v >= 1000 && i + 1 < G_N_ELEMENTS(units)) {
        v /= 1024;
        i++;
    }
    return g_strdup_printf("%0.3g %sB", v, units[i]);
}
