/* SPDX-License-Identifier: GPL-2.0-or-later */

/* options: -o text against tables, and option objects. */
#include "host/image/options.h"

#include "base/json.h"

enum { ARRAY_MAX = 1024 };

struct options {
    const struct option_desc *known[2];
    GHashTable *values; /* name -> text */
};

Options *options_new(const struct option_desc *known, const struct option_desc *more)
{
    Options *o = g_new0(Options, 1);
    *o = (Options){{known, more}, g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free)};
    return o;
}

void options_free(Options *o)
{
    if (o) {
        g_hash_table_destroy(o->values);
        g_free(o);
    }
}

static const struct option_desc *desc_of(const Options *o, const char *name)
{
    for (unsigned i = 0; i < 2; i++) {
        for (const struct option_desc *d = o->known[i]; d && d->name; d++) {
            if (!strcmp(d->name, name)) {
                return d;
            }
        }
    }
    return NULL;
}

static bool suits(const struct option_desc *d, const char *value, GError **error)
{
    uint64_t number;
    bool on;
    if (g_str_has_prefix(d->type, "bool")) {
        if (!text_bool(value, &on)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' expects 'on' or 'off'",
                        d->name);
            return false;
        }
    } else if (!strcmp(d->type, "size")) {
        if (!text_size(value, 1, &number)) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "Parameter '%s' expects a non-negative number below 2^64", d->name);
            return false;
        }
    } else if (!strcmp(d->type, "num") && !text_u64(value, &number)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' expects a number", d->name);
        return false;
    }
    return true;
}

bool options_set(Options *o, const char *name, const char *value, GError **error)
{
    const struct option_desc *d = desc_of(o, name);
    if (!d) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter '%s'", name);
        return false;
    }
    if (!suits(d, value, error)) {
        return false;
    }
    g_hash_table_replace(o->values, g_strdup(name), g_strdup(value));
    return true;
}

bool options_parse(Options *o, const char *text, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, NULL, error);
    for (unsigned i = 0; kv && i < keyval_count(kv); i++) {
        if (!options_set(o, keyval_key(kv, i), keyval_value(kv, i), error)) {
            return false;
        }
    }
    return kv;
}

const char *option_str(const Options *o, const char *name)
{
    return o ? g_hash_table_lookup(o->values, name) : NULL;
}

bool option_given(const Options *o, const char *name)
{
    return option_str(o, name);
}

bool option_bool(const Options *o, const char *name, bool fallback)
{
    const char *text = option_str(o, name);
    return text && text_bool(text, &fallback) ? fallback : fallback;
}

uint64_t option_size(const Options *o, const char *name, uint64_t fallback)
{
    const char *text = option_str(o, name);
    uint64_t value;
    return text && text_size(text, 1, &value) ? value : fallback;
}

uint64_t option_num(const Options *o, const char *name, uint64_t fallback)
{
    const char *text = option_str(o, name);
    uint64_t value;
    return text && text_u64(text, &value) ? value : fallback;
}

bool preallocation_of(const char *text, enum preallocation *out, GError **error)
{
    static const char *const names[] = {"off", "metadata", "falloc", "full"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (!strcmp(names[i], text)) {
            *out = (enum preallocation)i;
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter value '%s' for preallocation", text);
    return false;
}

/* ---- objects ---- */

bool options_put(json_t *object, const char *path, json_t *value, GError **error)
{
    g_auto(GStrv) words = g_strsplit(path, ".", JSON_DEPTH_MAX + 1);
    unsigned n = g_strv_length(words);
    if (!g_utf8_validate(path, -1, NULL)) {
        json_decref(value);
        g_set_error(error, LODGE_ERROR, EINVAL, "an option's name is not UTF-8");
        return false;
    }
    for (unsigned i = 0; i + 1 < n; i++) {
        json_t *inner = json_object_get(object, words[i]);
        if (!inner) {
            inner = json_object();
            json_object_set_new(object, words[i], inner);
        }
        object = inner;
        if (!json_is_object(object)) {
            json_decref(value);
            g_set_error(error, LODGE_ERROR, EINVAL, "\"%s\" and \"%s\" cannot both be given",
                        words[i], path);
            return false;
        }
    }
    if (!n || n > JSON_DEPTH_MAX || json_is_object(json_object_get(object, words[n - 1]))) {
        json_decref(value);
        g_set_error(error, LODGE_ERROR, EINVAL, "option \"%s\" does not fit the others", path);
        return false;
    }
    json_object_set_new(object, words[n - 1], value);
    return true;
}

/* {"0": x, "1": y} as [x, y], everywhere inside. */
static json_t *arrays_of(json_t *value)
{
    const char *key;
    json_t *inner;
    void *next;
    if (!json_is_object(value)) {
        return json_incref(value);
    }
    json_t *object = json_object(), *array = json_array();
    json_object_foreach_safe(value, next, key, inner)
    {
        json_object_set_new(object, key, arrays_of(inner));
    }
    for (unsigned i = 0; i < ARRAY_MAX && i < json_object_size(object); i++) {
        char index[16];
        snprintf(index, sizeof(index), "%u", i);
        json_t *item = json_object_get(object, index);
        if (!item) {
            break;
        }
        json_array_append(array, item);
    }
    bool is_array = json_array_size(array) && json_array_size(array) == json_object_size(object);
    json_decref(is_array ? object : array);
    return is_array ? array : object;
}

json_t *options_nest(KeyVal *kv, GError **error)
{
    g_autoptr(json_t) flat = json_object();
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        json_t *value = json_string(keyval_value(kv, i));
        if (!value) {
            g_set_error(error, LODGE_ERROR, EINVAL, "\"%s\" is not UTF-8", keyval_key(kv, i));
            return NULL;
        }
        if (!options_put(flat, keyval_key(kv, i), value, error)) {
            return NULL;
        }
    }
    return arrays_of(flat);
}

json_t *options_of_text(const char *text, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, NULL, error);
    return kv ? options_nest(kv, error) : NULL;
}

const char *const options_of_nodes[] = {"driver",        "node-name",      "read-only",
                                        "force-share",   "auto-read-only", "discard",
                                        "detect-zeroes", "cache",          NULL};

const char *json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

bool json_bool(const json_t *object, const char *key, bool *out, GError **error)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_boolean(v)) {
        *out = json_is_true(v);
    } else if (v && (!json_is_string(v) || !text_bool(json_string_value(v), out))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
        return false;
    }
    return true;
}

bool json_u64(const json_t *object, const char *key, uint64_t *out, GError **error)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *out = (uint64_t)json_integer_value(v);
    } else if (v && (!json_is_string(v) || !text_size(json_string_value(v), 1, out))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' expects a number", key);
        return false;
    }
    return true;
}
