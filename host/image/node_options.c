/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * node_options: what names, json: and options say of a node, as one JSON object
 * {"driver", "file", "backing", ...}.
 */
#include "base/json.h"
#include "host/image/core.h"
#include "host/image/options.h"
#include "host/image/protocol.h"

#include <string.h>

static const char json_scheme[] = "json:";

/* ---- one object ---- */

/* Of a name: {"driver", "file": ...} as json: says, else {"file": {"filename": name}}. */
static json_t *options_of_name(const char *name, GError **error)
{
    if (g_str_has_prefix(name, json_scheme)) {
        const char *text = name + strlen(json_scheme);
        g_autoptr(json_t) all = json_parse(text, strlen(text), error);
        g_autoptr(KeyVal) flat = all ? json_to_keyval(all, error) : NULL;
        if (!flat) {
            g_prefix_error(error, "Could not parse the JSON options: ");
            return NULL;
        }
        bool no_backing = json_is_null(json_object_get(all, "backing"));
        json_t *nested = options_nest(flat, error);
        if (nested && no_backing) {
            json_object_set_new(nested, "backing", json_null());
        }
        return nested;
    }
    json_t *text = json_string(name);
    if (!text) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a file name that is not UTF-8");
        return NULL;
    }
    return json_pack("{s:{s:o}}", "file", "filename", text);
}

bool options_have_file(const json_t *o)
{
    return json_object_get(o, "file") || json_object_get(o, "filename");
}

bool options_are_node(const json_t *o)
{
    const char *driver = json_text(o, "driver");
    return driver ? !protocol_exists(driver) : json_is_object(json_object_get(o, "file"));
}

/* {"driver": "copy-on-read", "file": {...}} is what is in "file", with a switch. */
static json_t *without_filters(json_t *o, GError **error)
{
    while (!g_strcmp0(json_text(o, "driver"), "copy-on-read")) {
        json_t *inner = json_object_get(o, "file");
        if (!options_are_node(inner)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "driver \"copy-on-read\" needs \"file\"");
            return NULL;
        }
        json_object_set_new(inner, "copy-on-read", json_true());
        o = inner;
    }
    return json_incref(o);
}

json_t *options_merge(const struct chain_open *how, GError **error)
{
    g_autoptr(json_t) o = how->options ? json_deep_copy(how->options) : json_object();
    json_t *file = json_object_get(o, "file");
    if (json_is_string(file)) { /* "file": "name", where -blockdev would name a node */
        json_object_set_new(o, "file", json_pack("{s:O}", "filename", file));
    }
    if (how->name && !options_have_file(o)) {
        g_autoptr(json_t) named = options_of_name(how->name, error);
        if (!named) {
            return NULL;
        }
        json_object_update_missing(o, named);
    }
    if (how->format) {
        json_object_set_new(o, "driver", json_string(how->format));
    }
    g_autoptr(json_t) all = without_filters(o, error);
    const char *driver = all ? json_text(all, "driver") : NULL;
    if (!all || (driver && !protocol_exists(driver) && !format_find(driver, error))) {
        return NULL;
    }
    return g_steal_pointer(&all);
}

json_t *options_file_part(json_t *o)
{
    const char *driver = json_text(o, "driver");
    json_t *file = json_object_get(o, "file");
    if (json_is_object(file)) {
        return json_incref(file);
    }
    if (driver && protocol_exists(driver)) {
        return json_incref(o);
    }
    const char *name = json_text(o, "filename");
    return name ? json_pack("{s:s}", "filename", name) : json_object();
}

char *options_name(const json_t *o, const char *name)
{
    const json_t *file = json_object_get(o, "file");
    bool part = json_object_get(o, "offset") || json_object_get(o, "size");
    if (name && !g_str_has_prefix(name, json_scheme)) {
        return g_strdup(name);
    }
    if (!part && !options_are_node(file)) {
        return NULL;
    }
    char *text = json_dumps(o, 0), *all = g_strconcat(json_scheme, text, NULL);
    free(text);
    return all;
}

/* ---- keys that mean the same for every driver ---- */

static void set_flag(unsigned *flags, unsigned flag, bool on)
{
    *flags = on ? *flags | flag : *flags & ~flag;
}

static bool check_words(const json_t *o, GError **error)
{
    static const struct {
        const char *key, *words;
    } known[] = {{"discard", " ignore off unmap on "},
                 {"detect-zeroes", " off on unmap "},
                 {"aio", " threads native io_uring "},
                 {"locking", " on off auto "}};
    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        const json_t *v = json_object_get(o, known[i].key);
        const char *text =
            json_is_boolean(v) ? json_is_true(v) ? "on" : "off" : json_string_value(v);
        g_autofree char *word = g_strdup_printf(" %s ", text ? text : "");
        if (v && !strstr(known[i].words, word)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' does not accept value '%s'",
                        known[i].key, text ? text : "?");
            return false;
        }
    }
    return true;
}

static bool check_cache(const json_t *o, GError **error)
{
    const json_t *cache = json_object_get(o, "cache");
    const char *key;
    json_t *value;
    if (cache && !json_is_object(cache)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'cache' is a group: cache.direct, cache.no-flush, cache.writeback");
        return false;
    }
    json_object_foreach((json_t *)cache, key, value)
    {
        bool on;
        if (strcmp(key, "direct") && strcmp(key, "no-flush") && strcmp(key, "writeback")) {
            g_set_error(error, LODGE_ERROR, EINVAL, "there is no option 'cache.%s'", key);
            return false;
        }
        if (!json_bool(cache, key, &on, error)) {
            g_prefix_error(error, "cache: ");
            return false;
        }
    }
    return true;
}

/* What is left unsaid stays as it is. */
bool options_flags(const json_t *o, unsigned *flags, GError **error)
{
    static const struct {
        const char *group, *key;
        unsigned flag;
    } switches[] = {{NULL, "read-only", OPEN_READ_ONLY},
                    {NULL, "force-share", OPEN_SHARE},
                    {NULL, "copy-on-read", OPEN_COPY_ON_READ},
                    {"cache", "direct", OPEN_DIRECT},
                    {"cache", "no-flush", OPEN_NO_FLUSH}};
    if (!check_words(o, error) || !check_cache(o, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(switches); i++) {
        bool on = *flags & switches[i].flag;
        const json_t *from = switches[i].group ? json_object_get(o, switches[i].group) : o;
        if (!json_bool(from, switches[i].key, &on, error)) {
            return false;
        }
        set_flag(flags, switches[i].flag, on);
    }
    if (*flags & OPEN_READ_ONLY) {
        *flags &= ~(unsigned)OPEN_LATER; /* it does not change hands */
    }
    const char *discard = json_text(o, "discard"), *aio = json_text(o, "aio");
    if (discard) {
        set_flag(flags, OPEN_UNMAP, !strcmp(discard, "unmap") || !strcmp(discard, "on"));
    }
    if (aio) {
        set_flag(flags, OPEN_THREADS, !strcmp(aio, "threads"));
    }
    return true;
}

/* ---- keys that nobody knows ---- */

static const char *const format_keys[] = {"file", "filename",     "backing",
                                          "aio",  "copy-on-read", NULL};

static bool check_keys(const json_t *o, const char *kind, const char *name, const char *const *more,
                       const char *const *own, GError **error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value)
    {
        if (!g_strv_contains(options_of_nodes, key) && !(more && g_strv_contains(more, key)) &&
            !(own && g_strv_contains(own, key))) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "Block %s '%s' does not support the option '%s'", kind, name, key);
            return false;
        }
    }
    return true;
}

/* What nobody asks for is a mistake of the user; protocols of the network look for themselves. */
bool options_check(const struct node *n, const json_t *part, GError **error)
{
    const struct protocol *p = n->file->protocol;
    const char *driver = json_text(n->options, "driver");
    bool whole = driver && protocol_exists(driver);
    if (!whole && !check_keys(n->options, "format", n->format->name, format_keys,
                              n->format->open_options, error)) {
        return false;
    }
    return !p->open_options || (!whole && json_equal(part, n->options)) ||
           check_keys(part, "protocol", p->name, NULL, p->open_options, error);
}
