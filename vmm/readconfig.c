/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/options.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

/*
 * readconfig - groups of a file that stand for options
 *
 *     [drive "disk"]            -drive id=disk,file=a.qcow2,if=none
 *       file = "a.qcow2"
 *       if = "none"
 *
 * A line is a group, a key with a value in quotes, a comment after #, or empty.
 */
enum { FILE_MAX = 1 << 20 };

/* Groups whose option has another name. */
static const struct {
    const char *group, *option;
} others[] = {{"memory", "m"},
              {"smp-opts", "smp"},
              {"boot-opts", "boot"},
              {"numa", "numa"},
              {"realtime", "overcommit"}};

struct group {
    char *name;
    GString *text; /* "id=disk,file=a.qcow2" */
};

static const char *option_of(const char *group)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
        if (g_str_equal(others[i].group, group)) {
            return others[i].option;
        }
    }
    return group;
}

static void put(GString *text, const char *key, const char *value)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    g_autofree char *escaped = g_strjoinv(",,", parts);
    g_string_append_printf(text, "%s%s=%s", text->len ? "," : "", key, escaped);
}

static bool end_group(struct vm_options *o, struct group *g, GError **error)
{
    bool good = !g->name || vm_options_apply(o, option_of(g->name), g->text->str, error);
    g_clear_pointer(&g->name, g_free);
    g_string_truncate(g->text, 0);
    return good;
}

/* [name] or [name "id"] */
static bool begin_group(struct group *g, const char *line)
{
    char name[64] = "", id[64] = "", end = 0;
    bool named = sscanf(line, "[%63[^] \"] \"%63[^\"]\" %c", name, id, &end) == 3 && end == ']';
    if (!named && (sscanf(line, "[%63[^] \"] %c", name, &end) != 2 || end != ']')) {
        return false;
    }
    g->name = g_strdup(name);
    if (named) {
        put(g->text, "id", id);
    }
    return true;
}

/* key = "value" */
static bool take_pair(struct group *g, const char *line)
{
    char key[64] = "", value[4096] = "";
    bool empty = sscanf(line, " %63[^= \t] = \"%c", key, value) == 2 && *value == '"';
    if (!empty && sscanf(line, " %63[^= \t] = \"%4095[^\"]\"", key, value) != 2) {
        return false;
    }
    put(g->text, key, empty ? "" : value);
    return true;
}

static bool take_line(struct vm_options *o, struct group *g, char *line, GError **error)
{
    g_strstrip(line);
    if (!*line || *line == '#') {
        return true;
    }
    if (*line == '[') {
        if (!end_group(o, g, error)) {
            return false;
        }
        if (begin_group(g, line)) {
            return true;
        }
    } else if (g->name && take_pair(g, line)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "it is no group, no key = \"value\" in a group");
    return false;
}

bool vm_options_read(struct vm_options *o, const char *path, GError **error)
{
    g_autofree char *content = NULL;
    g_autoptr(GError) why = NULL;
    gsize n;
    if (!g_file_get_contents(path, &content, &n, &why)) {
        error_set_errno(error, error_errno(why), "-readconfig %s", path);
        return false;
    }
    if (n > FILE_MAX || strlen(content) != n) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-readconfig %s: no text of up to 1 MiB", path);
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(content, "\n", -1);
    struct group g = {.text = g_string_new(NULL)};
    bool good = true;
    unsigned i = 0;
    for (; lines[i] && good; i++) {
        good = take_line(o, &g, lines[i], error);
    }
    good = good && end_group(o, &g, error);
    if (!good) {
        g_prefix_error(error, "-readconfig %s: up to line %u: ", path, i);
    }
    g_free(g.name);
    g_string_free(g.text, TRUE);
    return good;
}
