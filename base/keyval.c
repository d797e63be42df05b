/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/keyval.h"

#include "base/error.h"

#include <string.h>

struct pair {
    char *key, *value;
    bool known;
};

struct keyval {
    GArray *pairs; /* of struct pair */
};

static struct pair *pair_at(const KeyVal *kv, unsigned i)
{
    return &g_array_index(kv->pairs, struct pair, i);
}

static void pair_clear(void *data)
{
    struct pair *p = data;
    g_free(p->key);
    g_free(p->value);
}

KeyVal *keyval_new(void)
{
    KeyVal *kv = g_new0(KeyVal, 1);
    kv->pairs = g_array_new(FALSE, FALSE, sizeof(struct pair));
    g_array_set_clear_func(kv->pairs, pair_clear);
    return kv;
}

void keyval_free(KeyVal *kv)
{
    if (kv) {
        g_array_unref(kv->pairs);
        g_free(kv);
    }
}

void keyval_set(KeyVal *kv, const char *key, const char *value)
{
    struct pair p = {g_strdup(key), g_strdup(value), false};
    g_array_append_val(kv->pairs, p);
}

/* One item up to a single comma, ",," made ","; moves *@at behind the comma. */
static char *next_item(const char **at)
{
    GString *out = g_string_new(NULL);
    const char *s = *at;
    for (; *s; s++) {
        if (*s == ',') {
            if (s[1] != ',') {
                break;
            }
            s++;
        }
        g_string_append_c(out, *s);
    }
    *at = *s ? s + 1 : s;
    return g_string_free(out, FALSE);
}

static bool is_key(const char *s, size_t n)
{
    return n > 0 && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "-_.+/:") >= n;
}

static bool add_item(KeyVal *kv, const char *item, const char *implied, GError **error)
{
    const char *eq = strchr(item, '=');
    if (implied && (!eq || !is_key(item, (size_t)(eq - item)))) {
        keyval_set(kv, implied, item);
        return true;
    }
    if (!eq) {
        bool off = g_str_has_prefix(item, "no") && item[2] && !strchr("-.", item[2]) &&
                   !g_str_equal(item, "node") && !g_str_equal(item, "noreboot");
        keyval_set(kv, off ? item + 2 : item, off ? "off" : "on");
        return true;
    }
    if (eq == item) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a parameter name is missing before \"%s\"", item);
        return false;
    }
    g_autofree char *key = g_strndup(item, (size_t)(eq - item));
    keyval_set(kv, key, eq + 1);
    return true;
}

KeyVal *keyval_parse(const char *text, const char *implied, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_new();
    const char *at = text;
    for (bool first = true; *at; first = false) {
        g_autofree char *item = next_item(&at);
        if (*item && !add_item(kv, item, first ? implied : NULL, error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&kv);
}

const char *keyval_get(KeyVal *kv, const char *key)
{
    const char *value = NULL;
    for (unsigned i = 0; i < kv->pairs->len; i++) {
        struct pair *p = pair_at(kv, i);
        if (g_str_equal(p->key, key)) {
            p->known = true;
            value = p->value;
        }
    }
    return value;
}

bool text_bool(const char *text, bool *out)
{
    static const char *const on[] = {"on", "yes", "true", "y", NULL};
    static const char *const off[] = {"off", "no", "false", "n", NULL};
    if (g_strv_contains(on, text)) {
        *out = true;
        return true;
    }
    if (g_strv_contains(off, text)) {
        *out = false;
        return true;
    }
    return false;
}

bool text_u64(const char *text, uint64_t *out)
{
    char *end;
    if (!g_ascii_isdigit(*text)) {
        return false; /* strtoull() takes blanks and a minus */
    }
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    errno = 0;
    uint64_t v = g_ascii_strtoull(text, &end, hex ? 16 : 10);
    if (*end || errno) {
        return false;
    }
    *out = v;
    return true;
}

bool text_size(const char *text, uint64_t unit, uint64_t *out)
{
    static const char suffixes[] = "bkmgtpe";
    char *end;
    if (text_u64(text, out)) {
        return !__builtin_mul_overflow(*out, unit, out);
    }
    if (!g_ascii_isdigit(*text) || (text[0] == '0' && g_ascii_tolower(text[1]) == 'x')) {
        return false;
    }
    errno = 0;
    uint64_t whole = g_ascii_strtoull(text, &end, 10);
    double fraction = 0;
    if (*end == '.') {
        const char *dot = end;
        if (!g_ascii_isdigit(dot[1])) {
            return false;
        }
        end++;
        for (double place = 0.1; g_ascii_isdigit(*end); end++, place /= 10) {
            fraction += place * (*end - '0');
        }
    }
    if (*end) {
        const char *s = strchr(suffixes, g_ascii_tolower(*end));
        if (!s || end[1]) {
            return false;
        }
        unit = UINT64_C(1) << (10 * (s - suffixes));
    }
    uint64_t part = (uint64_t)(fraction * (double)unit);
    return errno == 0 && !__builtin_mul_overflow(whole, unit, out) &&
           !__builtin_add_overflow(*out, part, out);
}

static bool complain(const char *key, const char *value, const char *want, GError **error)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: %s", key, value, want);
    return false;
}

bool keyval_bool(KeyVal *kv, const char *key, bool *out, GError **error)
{
    const char *value = keyval_get(kv, key);
    return !value || text_bool(value, out) || complain(key, value, "want on or off", error);
}

bool keyval_u64(KeyVal *kv, const char *key, uint64_t max, uint64_t *out, GError **error)
{
    const char *value = keyval_get(kv, key);
    uint64_t v;
    if (!value) {
        return true;
    }
    if (!text_u64(value, &v) || v > max) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: want a number up to %" G_GUINT64_FORMAT,
                    key, value, max);
        return false;
    }
    *out = v;
    return true;
}

bool keyval_unsigned(KeyVal *kv, const char *key, unsigned max, unsigned *out, GError **error)
{
    uint64_t v = *out;
    bool ok = keyval_u64(kv, key, max, &v, error);
    *out = (unsigned)v;
    return ok;
}

bool keyval_size(KeyVal *kv, const char *key, uint64_t unit, uint64_t *out, GError **error)
{
    const char *value = keyval_get(kv, key);
    return !value || text_size(value, unit, out) ||
           complain(key, value, "want a size like 512M or 2G", error);
}

bool keyval_done(KeyVal *kv, GError **error)
{
    for (unsigned i = 0; i < kv->pairs->len; i++) {
        if (!pair_at(kv, i)->known) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no parameter \"%s\"", pair_at(kv, i)->key);
            return false;
        }
    }
    return true;
}

unsigned keyval_count(const KeyVal *kv)
{
    return kv->pairs->len;
}

const char *keyval_key(const KeyVal *kv, unsigned i)
{
    return pair_at(kv, i)->key;
}

const char *keyval_value(const KeyVal *kv, unsigned i)
{
    return pair_at(kv, i)->value;
}

bool keyval_known(const KeyVal *kv, unsigned i)
{
    return pair_at(kv, i)->known;
}

static void append_escaped(GString *out, const char *value)
{
    for (; *value; value++) {
        g_string_append_c(out, *value);
        if (*value == ',') {
            g_string_append_c(out, ',');
        }
    }
}

char *keyval_rest(const KeyVal *kv)
{
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < kv->pairs->len; i++) {
        if (!pair_at(kv, i)->known) {
            g_string_append_printf(out, "%s%s=", out->len ? "," : "", pair_at(kv, i)->key);
            append_escaped(out, pair_at(kv, i)->value);
        }
    }
    bool empty = out->len == 0;
    char *text = g_string_free(out, empty);
    return empty ? NULL : text;
}
