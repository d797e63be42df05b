/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmdk descriptor: the text that names a disk's extents, its parent and its content's number.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", section "The Descriptor File".
 */
#include "host/image/vmdk.h"

#include <stdlib.h>
#include <string.h>

static const char *const access_names[] = {"RW", "RDONLY", "NOACCESS"};
static const char *const type_names[] = {"FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "ZERO"};

const char *vmdk_type_name(enum vmdk_extent_type type)
{
    return type_names[type];
}

static int index_of(const char *const *names, unsigned n, const char *word)
{
    for (unsigned i = 0; i < n; i++) {
        if (!g_ascii_strcasecmp(names[i], word)) {
            return (int)i;
        }
    }
    return -1;
}

/* Cuts the next word off *@at; NULL at the end.  The text is changed. */
static char *next_word(char **at)
{
    char *word = *at + strspn(*at, " \t");
    char *end = word + strcspn(word, " \t");
    if (!*word) {
        return NULL;
    }
    *at = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

static bool parse_number(const char *word, uint64_t *out)
{
    char *end;
    if (!word || !g_ascii_isdigit(*word)) {
        return false;
    }
    errno = 0;
    *out = strtoull(word, &end, 10);
    return !errno && !*end;
}

/* The part of *@at between double quotes, which is cut off; NULL if there is none. */
static char *quoted(char **at)
{
    char *start = *at + strspn(*at, " \t");
    char *end = *start == '"' ? strchr(start + 1, '"') : NULL;
    if (!end) {
        return NULL;
    }
    *end = '\0';
    *at = end + 1;
    return start + 1;
}

static bool wrong_line(const char *line, const char *why, GError **error)
{
    g_autofree char *shown = g_strescape(line, NULL);
    g_set_error(error, LODGE_ERROR, EINVAL, "extent line \"%.80s\": %s", shown, why);
    return false;
}

/* What follows the number of sectors: a file, and for flat extents where in it. */
static bool parse_place(const char *line, char *at, struct vmdk_line *out, GError **error)
{
    const char *name = quoted(&at), *number = next_word(&at);
    bool flat = out->type == VMDK_FLAT || out->type == VMDK_VMFS;
    if (out->type == VMDK_ZERO) {
        return true;
    }
    if (!name || !*name) {
        return wrong_line(line, "no file name in quotes", error);
    }
    if (flat && number && !parse_number(number, &out->offset)) {
        return wrong_line(line, "the offset is not a number of sectors", error);
    }
    if (out->type == VMDK_FLAT && !number) {
        return wrong_line(line, "a FLAT extent needs an offset", error);
    }
    if (out->offset > VMDK_MAX_SECTORS) {
        return wrong_line(line, "the offset is too large", error);
    }
    out->name = g_strdup(name);
    return true;
}

static bool parse_line(const char *line, struct vmdk_line *out, GError **error)
{
    g_autofree char *copy = g_strdup(line);
    char *at = copy;
    const char *access = next_word(&at), *sectors = next_word(&at), *type = next_word(&at);
    int t = type ? index_of(type_names, G_N_ELEMENTS(type_names), type) : -1;
    out->access = (enum vmdk_access)index_of(access_names, G_N_ELEMENTS(access_names), access);
    if (!parse_number(sectors, &out->sectors)) {
        return wrong_line(line, "the size is not a number of sectors", error);
    }
    if (out->sectors == 0 || out->sectors > VMDK_MAX_SECTORS) {
        return wrong_line(line, "an extent has 1 to 2^47 sectors", error);
    }
    if (t < 0) {
        return wrong_line(line, "extents are FLAT, SPARSE, ZERO, VMFS or VMFSSPARSE", error);
    }
    out->type = (enum vmdk_extent_type)t;
    return parse_place(line, at, out, error);
}

static bool add_line(struct vmdk_desc *d, const char *text, GError **error)
{
    struct vmdk_line line = {0};
    if (d->n_lines == VMDK_MAX_EXTENTS) {
        g_set_error(error, LODGE_ERROR, EFBIG, "more than %u extents", VMDK_MAX_EXTENTS);
        return false;
    }
    if (!parse_line(text, &line, error)) {
        return false;
    }
    if (d->n_lines % 64 == 0) {
        d->lines = g_renew(struct vmdk_line, d->lines, d->n_lines + 64);
    }
    d->lines[d->n_lines++] = line;
    d->sectors += line.sectors;
    if (d->sectors > VMDK_MAX_SECTORS) {
        return wrong_line(text, "all extents together have more than 2^47 sectors", error);
    }
    return true;
}

/* The value of a line "KEY = value" or "KEY="value""; NULL if the line has another key. */
static char *value_of(const char *line, const char *key)
{
    const char *equals = strchr(line, '=');
    if (!equals) {
        return NULL;
    }
    g_autofree char *name = g_strstrip(g_strndup(line, (gsize)(equals - line)));
    if (g_ascii_strcasecmp(name, key)) {
        return NULL;
    }
    char *value = g_strstrip(g_strdup(equals + 1));
    size_t n = strlen(value);
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
        memmove(value, value + 1, n - 2);
        value[n - 2] = '\0';
    }
    return value;
}

static bool is_extent(const char *line)
{
    size_t n = strcspn(line, " \t");
    for (unsigned i = 0; i < G_N_ELEMENTS(access_names); i++) {
        if (line[n] && strlen(access_names[i]) == n &&
            !g_ascii_strncasecmp(line, access_names[i], n)) {
            return true;
        }
    }
    return false;
}

static bool parse_cid(const char *line, const char *key, uint32_t *out, bool *found, GError **error)
{
    g_autofree char *value = value_of(line, key);
    char *end;
    if (!value) {
        return true;
    }
    errno = 0;
    uint64_t v = strtoull(value, &end, 16);
    if (errno || *end || end == value || v > UINT32_MAX) {
        g_autofree char *shown = g_strescape(value, NULL);
        g_set_error(error, LODGE_ERROR, EINVAL, "%s \"%.20s\" is not a 32-bit number", key, shown);
        return false;
    }
    *out = (uint32_t)v;
    *found = true;
    return true;
}

static void take_text(const char *line, const char *key, char **out)
{
    char *value = *out ? NULL : value_of(line, key);
    *out = value ? value : *out;
}

bool vmdk_desc_parse(const char *text, struct vmdk_desc *d, GError **error)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    bool has_cid = false, has_parent = false;
    *d = (struct vmdk_desc){.parent_cid = UINT32_MAX};
    for (char **l = lines; *l; l++) {
        char *line = g_strstrip(*l);
        if (is_extent(line)
                ? !add_line(d, line, error)
                : !parse_cid(line, "CID", &d->cid, &has_cid, error) ||
                      !parse_cid(line, "parentCID", &d->parent_cid, &has_parent, error)) {
            return false;
        }
        take_text(line, "createType", &d->create_type);
        take_text(line, "parentFileNameHint", &d->parent_hint);
    }
    if (!has_cid) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the descriptor has no CID");
        return false;
    }
    if (!d->create_type || !*d->create_type) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the descriptor has no createType");
        return false;
    }
    return true;
}

void vmdk_desc_clear(struct vmdk_desc *d)
{
    for (unsigned i = 0; i < d->n_lines; i++) {
        g_free(d->lines[i].name);
    }
    g_free(d->lines);
    g_free(d->create_type);
    g_free(d->parent_hint);
    *d = (struct vmdk_desc){0};
}

/* ---- writing ---- */

static unsigned heads_of(const char *adapter_type)
{
    return adapter_type && g_ascii_strcasecmp(adapter_type, "ide") ? 255 : 16;
}

char *vmdk_desc_make(const struct vmdk_desc_options *how)
{
    unsigned heads = heads_of(how->adapter_type);
    GString *s = g_string_new("# Disk DescriptorFile\nversion=1\n");
    g_string_append_printf(s, "CID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", how->cid,
                           how->parent_cid, how->create_type);
    if (how->parent_hint) {
        g_string_append_printf(s, "parentFileNameHint=\"%s\"\n", how->parent_hint);
    }
    g_string_append_printf(s, "\n# Extent description\n%s\n", how->lines);
    g_string_append_printf(s, "# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%s\"\n",
                           how->hw_version ? how->hw_version : "4");
    g_string_append_printf(s, "ddb.geometry.cylinders = \"%" G_GUINT64_FORMAT "\"\n",
                           how->sectors / 63 / heads);
    g_string_append_printf(s,
                           "ddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"63\"\n"
                           "ddb.adapterType = \"%s\"\nddb.toolsVersion = \"%s\"\n",
                           heads, how->adapter_type ? how->adapter_type : "ide",
                           how->tools_version ? how->tools_version : "2147483647");
    return g_string_free(s, FALSE);
}

char *vmdk_desc_replace(const char *text, const char *key, const char *value)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    bool found = false;
    for (char **l = lines; *l; l++) {
        g_autofree char *old = found ? NULL : value_of(*l, key);
        if (old) {
            char *fresh = g_strdup_printf("%.*s=%s", (int)strcspn(*l, "="), *l, value);
            g_free(*l);
            *l = fresh;
            found = true;
        }
    }
    return found ? g_strjoinv("\n", lines) : NULL;
}

char *vmdk_desc_with_extents(const char *text, const char *extents, uint64_t sectors)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *s = g_string_new(NULL);
    g_autofree char *adapter = NULL;
    bool put = false;
    for (char **l = lines; *l; l++) {
        g_autofree char *line = g_strstrip(g_strdup(*l));
        take_text(line, "ddb.adapterType", &adapter);
        if (is_extent(line)) {
            g_string_append(s, put ? "" : extents);
            put = true;
            continue;
        }
        g_string_append(s, *l);
        g_string_append(s, l[1] ? "\n" : "");
    }
    g_autofree char *cylinders =
        g_strdup_printf(" \"%" G_GUINT64_FORMAT "\"", sectors / 63 / heads_of(adapter));
    g_autofree char *made = g_string_free(s, FALSE);
    char *with = vmdk_desc_replace(made, "ddb.geometry.cylinders", cylinders);
    return with ? with : g_steal_pointer(&made);
}
