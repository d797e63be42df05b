/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/args.h"

#include "base/error.h"
#include "base/keyval.h"

#include <string.h>

enum { KIB = 1024 };

static int find(const struct verb_row *verb, const char *name)
{
    for (int i = 0; verb->options && verb->options[i].name; i++) {
        if (strcmp(verb->options[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The next option that takes a word by its place, or -1. */
static int next_place(const struct args *a)
{
    for (int i = 0; a->verb->options && a->verb->options[i].name; i++) {
        const struct option_row *o = &a->verb->options[i];
        if (o->kind != OPT_BOOL && !(o->flags & OPT_NAMED) &&
            (o->kind == OPT_MANY || !a->value[i])) {
            return i;
        }
    }
    return -1;
}

bool args_scaled(const char *text, uint64_t unit, uint64_t *out)
{
    static const char letters[] = "kmgtpe";
    size_t n = strspn(text, "0123456789");
    g_autofree char *digits = g_strndup(text, n), *suffix = g_ascii_strdown(text + n, -1);
    const char *letter = *suffix ? strchr(letters, *suffix) : NULL;
    bool bytes = !strcmp(suffix, "b") || !strcmp(suffix, "byte") || !strcmp(suffix, "bytes");
    bool decimal = letter && !strcmp(suffix + 1, "b");
    if (!text_u64(digits, out) ||
        (*suffix && !bytes && (!letter || (suffix[1] && !decimal && strcmp(suffix + 1, "ib"))))) {
        return false;
    }
    unit = bytes || letter ? 1 : unit;
    for (const char *l = letters; letter && l <= letter; l++) {
        unit *= decimal ? 1000 : 1024;
    }
    return !__builtin_mul_overflow(*out, unit, out);
}

static bool number_is_good(const struct option_row *o, const char *text)
{
    uint64_t n;
    return o->kind == OPT_NUMBER ? text_u64(text, &n)
           : o->kind == OPT_SIZE ? args_scaled(text, KIB, &n)
                                 : true;
}

static bool store(struct args *a, int at, const char *word, GError **error)
{
    const struct option_row *o = &a->verb->options[at];
    if (o->kind == OPT_MANY) {
        unsigned n = a->many ? g_strv_length(a->many) : 0;
        a->many = g_realloc_n(a->many, n + 2, sizeof(char *));
        a->many[n] = g_strdup(word);
        a->many[n + 1] = NULL;
        if (!a->value[at]) {
            a->value[at] = g_strdup("");
        }
        return true;
    }
    if (a->value[at]) {
        return shell_fail(error, "option --%s already seen", o->name);
    }
    if (!number_is_good(o, word)) {
        return shell_fail(error, "Numeric value '%s' for <%s> option is malformed or out of range",
                          word, o->name);
    }
    a->value[at] = g_strdup(word);
    return true;
}

/* --name, --name VALUE, --name=VALUE: how many words were used, 0 with an error. */
static unsigned option(struct args *a, char *const *words, unsigned n, GError **error)
{
    const char *name = words[0] + 2, *equals = strchr(name, '=');
    g_autofree char *bare = equals ? g_strndup(name, (size_t)(equals - name)) : g_strdup(name);
    int at = find(a->verb, bare);
    if (at < 0) {
        shell_fail(error, "command '%s' doesn't support option --%s", a->verb->name, bare);
        return 0;
    }
    const struct option_row *o = &a->verb->options[at];
    if (o->kind == OPT_BOOL) {
        if (equals) {
            shell_fail(error, "invalid '=' after option --%s", bare);
            return 0;
        }
        return store(a, at, "", error) ? 1 : 0;
    }
    if (equals) {
        return store(a, at, equals + 1, error) ? 1 : 0;
    }
    if (n < 2) {
        shell_fail(error, "expected syntax: --%s <%s>", o->name,
                   o->kind == OPT_TEXT || o->kind == OPT_MANY ? "string" : "number");
        return 0;
    }
    return store(a, at, words[1], error) ? 2 : 0;
}

/* Every one that is missing has its line. */
static bool needed_are_there(const struct args *a, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (int i = 0; a->verb->options && a->verb->options[i].name; i++) {
        const struct option_row *o = &a->verb->options[i];
        if (o->flags & OPT_NEEDED && !a->value[i]) {
            bool named = o->flags & OPT_NAMED || o->kind == OPT_NUMBER || o->kind == OPT_SIZE;
            g_string_append_printf(text, "%scommand '%s' requires %s%s%s option",
                                   text->len ? "\nerror: " : "", a->verb->name, named ? "--" : "<",
                                   o->name, named ? "" : ">");
        }
    }
    return !text->len || shell_fail(error, "%s", text->str);
}

bool args_parse(struct args *a, const struct verb_row *verb, char *const *words, unsigned n,
                GError **error)
{
    bool only_words = false;
    *a = (struct args){.verb = verb};
    while (n) {
        unsigned used = 1;
        if (!only_words && strcmp(words[0], "--") == 0) {
            only_words = true;
        } else if (!only_words && g_str_has_prefix(words[0], "--")) {
            used = option(a, words, n, error);
            if (!used) {
                return false;
            }
        } else {
            int at = next_place(a);
            if (at < 0) {
                return shell_fail(error, "unexpected data '%s'", words[0]);
            }
            if (!store(a, at, words[0], error)) {
                return false;
            }
        }
        words += used;
        n -= used;
    }
    return needed_are_there(a, error);
}

void args_clear(struct args *a)
{
    for (unsigned i = 0; i < ARGS_MAX; i++) {
        g_clear_pointer(&a->value[i], g_free);
    }
    g_clear_pointer(&a->many, g_strfreev);
}

/* A verb asks only for options of its own table. */
static int must_find(const struct args *a, const char *name)
{
    int at = find(a->verb, name);
    g_assert(at >= 0 && at < ARGS_MAX);
    return at;
}

bool args_flag(const struct args *a, const char *name)
{
    return a->value[must_find(a, name)] != NULL;
}

const char *args_text(const struct args *a, const char *name)
{
    return a->value[must_find(a, name)];
}

bool args_number(const struct args *a, const char *name, uint64_t *out)
{
    int at = must_find(a, name);
    const char *text = a->value[at];
    if (!text) {
        return false;
    }
    if (a->verb->options[at].kind == OPT_SIZE) {
        args_scaled(text, KIB, out);
        *out /= KIB;
    } else {
        text_u64(text, out);
    }
    return true;
}

char **args_many(const struct args *a, const char *name)
{
    must_find(a, name);
    return a->many;
}

/* ---- Lines ---- */

/* One word from @p on; NULL with an error at a quote that stays open. */
static const char *take_word(const char *p, GString *word, GError **error)
{
    char quote = 0;
    for (; *p && (quote || (!g_ascii_isspace(*p) && *p != ';')); p++) {
        if (quote && *p == quote) {
            quote = 0;
        } else if (!quote && (*p == '\'' || *p == '"')) {
            quote = *p;
        } else if (*p == '\\' && quote != '\'') {
            if (!p[1]) {
                shell_fail(error, "dangling \\");
                return NULL;
            }
            g_string_append_c(word, *++p);
        } else {
            g_string_append_c(word, *p);
        }
    }
    if (quote) {
        shell_fail(error, "missing \"%c\"", quote);
        return NULL;
    }
    return p;
}

bool words_of_line(const char *line, GPtrArray *out, GError **error)
{
    for (const char *p = line; *p;) {
        if (g_ascii_isspace(*p)) {
            p++;
        } else if (*p == ';') {
            g_ptr_array_add(out, NULL);
            p++;
        } else if (*p == '#') {
            break;
        } else {
            GString *word = g_string_new(NULL);
            p = take_word(p, word, error);
            g_ptr_array_add(out, g_string_free(word, FALSE));
            if (!p) {
                return false;
            }
        }
    }
    return true;
}
