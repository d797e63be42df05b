/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"

#include "base/error.h"

#include <string.h>

/* jansson recurses a level a bracket; its own limit of 2048 is deeper than anybody means. */
static bool shallow(const char *text, size_t n)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (in_string) {
            continue;
        } else if (text[i] == '{' || text[i] == '[') {
            if (++depth > JSON_DEPTH_MAX) {
                return false;
            }
        } else if ((text[i] == '}' || text[i] == ']') && depth) {
            depth--;
        }
    }
    return true;
}

json_t *json_parse(const char *text, size_t n, GError **error)
{
    json_error_t why;
    if (n > JSON_TEXT_MAX || !shallow(text, n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "JSON text is too %s",
                    n > JSON_TEXT_MAX ? "long" : "deep");
        return NULL;
    }
    json_t *value = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!value) {
        g_set_error(error, LODGE_ERROR, EINVAL, "JSON, line %d column %d: %s", why.line,
                    why.column, why.text);
    }
    return value;
}

static bool flatten(KeyVal *kv, const char *key, const json_t *value, GError **error)
{
    const char *name;
    json_t *member;
    size_t i;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        json_object_foreach((json_t *)value, name, member)
        {
            g_autofree char *path = key ? g_strdup_printf("%s.%s", key, name) : g_strdup(name);
            if (!flatten(kv, path, member, error)) {
                return false;
            }
        }
        return true;
    case JSON_ARRAY:
        json_array_foreach(value, i, member)
        {
            g_autofree char *path = g_strdup_printf("%s.%zu", key, i);
            if (!flatten(kv, path, member, error)) {
                return false;
            }
        }
        return true;
    case JSON_STRING:
        keyval_set(kv, key, json_string_value(value));
        return true;
    case JSON_INTEGER: {
        g_autofree char *text = g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
        keyval_set(kv, key, text);
        return true;
    }
    case JSON_TRUE:
    case JSON_FALSE:
        keyval_set(kv, key, json_is_true(value) ? "on" : "off");
        return true;
    case JSON_NULL:
    case JSON_REAL:
        break;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "\"%s\" must be a string, an integer or a boolean", key);
    return false;
}

KeyVal *json_to_keyval(const json_t *object, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_new();
    if (!json_is_object(object)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want a JSON object");
        return NULL;
    }
    return flatten(kv, NULL, object, error) ? g_steal_pointer(&kv) : NULL;
}

void json_framer_init(struct json_framer *f)
{
    *f = (struct json_framer){.text = g_string_new(NULL)};
}

void json_framer_clear(struct json_framer *f)
{
    if (f->text) {
        g_string_free(f->text, TRUE);
        f->text = NULL;
    }
}

/* The byte after which the text is whole.  No string holds a line end: there a text that
 * went wrong ends too, and the next one is read afresh. */
static bool ends_text(struct json_framer *f, char c)
{
    if (c == '\n') {
        return f->in_string || f->depth == 0;
    }
    if (f->in_string) {
        bool escaped = f->escaped;
        f->escaped = c == '\\' && !escaped;
        f->in_string = c != '"' || escaped;
        return false;
    }
    if (c == '"') {
        f->in_string = true;
    } else if (c == '{' || c == '[') {
        f->depth++;
    } else if (c == '}' || c == ']') {
        return f->depth == 0 || --f->depth == 0;
    }
    return false;
}

bool json_framer_byte(struct json_framer *f, char c)
{
    if (f->text->len == 0 && g_ascii_isspace(c)) {
        return false;
    }
    g_string_append_c(f->text, c);
    f->too_long = f->text->len > JSON_TEXT_MAX;
    if (f->too_long || !ends_text(f, c)) {
        return false;
    }
    f->depth = 0;
    f->in_string = f->escaped = false;
    return true;
}
