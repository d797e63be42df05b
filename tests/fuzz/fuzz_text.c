/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"
#include "base/keyval.h"
#include "host/image/chain.h"
#include "host/image/options.h"

#include <stdlib.h>
#include <string.h>

/*
 * Text from users and peers: JSON as monitors take it, byte by byte; option text; sizes; names of
 * images.
 */
static void as_json(const char *text, size_t n)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) value = json_parse(text, n, &error);
    if (!value != !!error) {
        abort();
    }
    g_autoptr(KeyVal) flat = json_is_object(value) ? json_to_keyval(value, NULL) : NULL;
    g_autoptr(json_t) nested = flat ? options_nest(flat, NULL) : NULL;
    struct json_framer f;
    json_framer_init(&f);
    for (size_t i = 0; i < n && !f.too_long; i++) {
        if (json_framer_byte(&f, text[i])) {
            g_autoptr(json_t) one = json_parse(f.text->str, f.text->len, NULL);
            g_string_truncate(f.text, 0);
        }
    }
    json_framer_clear(&f);
}

static const struct option_desc known[] = {
    {"size", "size", "", NULL}, {"on", "bool (on/off)", "", NULL}, {"n", "num", "", NULL},
    {"text", "str", "", NULL},  {0},
};

static void as_options(const char *text)
{
    g_autoptr(Options) o = options_new(known, NULL);
    g_autoptr(json_t) nested = options_of_text(text, NULL);
    uint64_t size;
    bool on;
    (void)options_parse(o, text, NULL);
    (void)option_size(o, "size", 0), (void)option_bool(o, "on", false), (void)option_num(o, "n", 0);
    (void)text_size(text, 1, &size), (void)text_bool(text, &on);
}

/* Only names that cannot be opened: what is parsed before. */
static void as_name(const char *text)
{
    g_autofree char *name = g_strconcat("json:", text, NULL);
    g_autoptr(GError) error = NULL;
    struct chain_open how = {.name = name, .format = "raw", .flags = OPEN_READ_ONLY};
    if (!strstr(text, "file") && !strstr(text, "host") && !strstr(text, ":/")) {
        chain_close(chain_open(&how, &error));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    g_autofree char *text = g_strndup((const char *)data, n);
    as_json((const char *)data, n);
    as_options(text);
    as_name(text);
    return 0;
}
