/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/out.h"

#include <stdio.h>
#include <string.h>

/*
 * One call says what is shown; print or --json decides how.
 */
bool out_is_json(const struct shell *sh)
{
    return out_of((struct shell *)sh)->json_wanted;
}

/* "CPU time:" becomes "cpu_time". */
static char *key_of(const char *label)
{
    GString *key = g_string_new(NULL);
    for (const char *p = label; *p; p++) {
        if (g_ascii_isalnum(*p)) {
            g_string_append_c(key, g_ascii_tolower(*p));
        } else if (*p == ' ' || *p == '-' || *p == '_') {
            g_string_append_c(key, '_');
        }
    }
    while (key->len && key->str[key->len - 1] == '_') {
        g_string_truncate(key, key->len - 1);
    }
    return g_string_free(key, FALSE);
}

static json_t *exact_value(const char *text)
{
    json_t *v = json_string(text);
    return v ? v : json_string("(not UTF-8)");
}

/* What fills up a line for people, and the line's end, are no part of the value. */
static json_t *text_value(const char *text)
{
    g_autofree char *bare = g_strstrip(g_strdup(text));
    return exact_value(bare);
}

/* ---- Tables ---- */

void out_table(struct shell *sh, const char *const *headers)
{
    struct out *o = out_of(sh);
    o->columns = g_strv_length((char **)headers);
    o->headers = g_strdupv((char **)headers);
    o->cells = g_ptr_array_new_with_free_func(g_free);
}

void out_row(struct shell *sh, ...)
{
    struct out *o = out_of(sh);
    va_list ap;
    va_start(ap, sh);
    for (unsigned i = 0; i < o->columns; i++) {
        g_ptr_array_add(o->cells, g_strdup(va_arg(ap, const char *)));
    }
    va_end(ap);
}

static void json_table(struct out *o)
{
    o->json = o->json ? o->json : json_array();
    for (unsigned at = 0; at < o->cells->len; at += o->columns) {
        json_t *row = json_object();
        for (unsigned i = 0; i < o->columns; i++) {
            g_autofree char *key = key_of(o->headers[i]);
            json_object_set_new(row, key, text_value(o->cells->pdata[at + i]));
        }
        json_array_append_new(o->json, row);
    }
}

static void print_row(char *const *cells, const size_t *widths, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        size_t have = (size_t)g_utf8_strlen(cells[i], -1);
        printf(" %s%*s", cells[i], i + 1 < n ? (int)(widths[i] - have + 2) : 0, "");
    }
    putchar('\n');
}

static void print_table(const struct out *o)
{
    g_autofree size_t *widths = g_new0(size_t, o->columns);
    size_t line = 0;
    for (unsigned i = 0; i < o->columns; i++) {
        widths[i] = o->quiet ? 0 : (size_t)g_utf8_strlen(o->headers[i], -1);
        for (unsigned at = i; at < o->cells->len; at += o->columns) {
            widths[i] = MAX(widths[i], (size_t)g_utf8_strlen(o->cells->pdata[at], -1));
        }
        line += widths[i] + 3;
    }
    if (!o->quiet) {
        print_row(o->headers, widths, o->columns);
        g_autofree char *dashes = g_strnfill(line, '-');
        puts(dashes);
    }
    for (unsigned at = 0; at < o->cells->len; at += o->columns) {
        print_row((char **)&o->cells->pdata[at], widths, o->columns);
    }
}

void out_table_end(struct shell *sh)
{
    struct out *o = out_of(sh);
    if (o->json_wanted) {
        json_table(o);
    } else {
        print_table(o);
    }
    g_clear_pointer(&o->headers, g_strfreev);
    g_clear_pointer(&o->cells, g_ptr_array_unref);
}

/* ---- Fields, notes, lines ---- */

static void field(struct out *o, int width, const char *label, const char *value)
{
    if (!o->json_wanted) {
        printf("%-*s%s\n", width, label, value);
        return;
    }
    if (!o->object) {
        o->object = json_object();
    }
    g_autofree char *key = key_of(label);
    json_object_set_new(o->object, key, text_value(value));
}

void out_field(struct shell *sh, const char *label, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *value = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    field(out_of(sh), 16, label, value);
}

void out_field_wide(struct shell *sh, int width, const char *label, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *value = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    field(out_of(sh), width, label, value);
}

void out_next(struct shell *sh)
{
    struct out *o = out_of(sh);
    if (!o->json_wanted) {
        putchar('\n');
    } else if (o->object) {
        o->json = o->json ? o->json : json_array();
        json_array_append_new(o->json, o->object);
        o->object = NULL;
    }
}

static void note(struct out *o, const char *text, const char *end)
{
    if (o->json_wanted) {
        o->object = o->object ? o->object : json_object();
        json_object_set_new(o->object, "message", text_value(text));
    } else if (!o->quiet) {
        printf("%s%s", text, end);
    }
}

void out_note(struct shell *sh, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    note(out_of(sh), text, "\n");
}

void out_note_open(struct shell *sh, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    note(out_of(sh), text, "");
}

void out_text(struct shell *sh, const char *key, const char *fmt, ...)
{
    struct out *o = out_of(sh);
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (o->json_wanted) {
        o->object = o->object ? o->object : json_object();
        json_object_set_new(o->object, key, text_value(text));
    } else {
        fputs(text, stdout);
    }
}

void out_exact(struct shell *sh, const char *key, const char *text)
{
    struct out *o = out_of(sh);
    if (o->json_wanted) {
        o->object = o->object ? o->object : json_object();
        json_object_set_new(o->object, key, exact_value(text));
    } else {
        fputs(text, stdout);
    }
}

void out_line(struct shell *sh, const char *fmt, ...)
{
    struct out *o = out_of(sh);
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (o->json_wanted) {
        o->json = o->json ? o->json : json_array();
        g_strchomp(text); /* what stands before it may be a tree's branches */
        json_array_append_new(o->json, exact_value(text));
    } else {
        puts(text);
    }
}

/* ---- Trees ---- */

static unsigned n_children(const struct out_node *nodes, unsigned n, const char *parent)
{
    unsigned children = 0;
    for (unsigned i = 0; i < n; i++) {
        children += g_strcmp0(nodes[i].parent, parent) == 0;
    }
    return children;
}

/* The line of @name and all below it; after the last of a branch there is an empty line. */
static void branch(struct shell *sh, const struct out_node *nodes, unsigned n, const char *name,
                   const char *indent, bool last)
{
    unsigned left = n_children(nodes, n, name);
    if (left || last) {
        out_line(sh, left ? "%s  |" : "%s", indent);
    }
    for (unsigned i = 0; left && i < n; i++) {
        if (g_strcmp0(nodes[i].parent, name) == 0) {
            g_autofree char *deeper = g_strconcat(indent, --left ? "  | " : "    ", NULL);
            out_line(sh, "%s  +- %s", indent, nodes[i].name);
            branch(sh, nodes, n, nodes[i].name, deeper, !left);
        }
    }
}

void out_tree(struct shell *sh, const struct out_node *nodes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        bool below = false;
        for (unsigned k = 0; nodes[i].parent && !below && k < n; k++) {
            below = strcmp(nodes[k].name, nodes[i].parent) == 0;
        }
        if (!below) {
            out_line(sh, "%s", nodes[i].name);
            branch(sh, nodes, n, nodes[i].name, "", true);
        }
    }
}

char *out_size(uint64_t bytes, int digits)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned i = 0;
    while (value >= 1024 && i + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        i++;
    }
    return g_strdup_printf("%.*f %s", digits, value, units[i]);
}

static void dump(struct out *o, size_t form)
{
    if (o->json_wanted) {
        json_t *all = o->json ? o->json : o->object;
        if (o->json && o->object) {
            json_array_append_new(o->json, o->object);
        }
        if (all) {
            json_dumpf(all, stdout, form | JSON_ENCODE_ANY);
            putchar('\n');
            json_decref(all);
        }
        o->json = o->object = NULL;
    }
}

void out_flush(struct shell *sh)
{
    dump(out_of(sh), JSON_INDENT(2));
    fflush(stdout);
}

bool out_look(struct shell *sh)
{
    dump(out_of(sh), JSON_COMPACT);
    return fflush(stdout) == 0;
}

void out_stat(struct shell *sh, const char *name, const char *value)
{
    struct out *o = out_of(sh);
    if (o->json_wanted) {
        o->object = o->object ? o->object : json_object();
        json_object_set_new(o->object, name, text_value(value));
    } else {
        printf("  %s=%s\n", name, value);
    }
}
