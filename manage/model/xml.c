/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML text to structs and back, by tables; see xml.h. */
#include "manage/model/xml.h"

#include "manage/error.h"

#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>

/* --- text to tree --- */

static void refuse_dtd(void *ctx, const xmlChar *name, const xmlChar *external, const xmlChar *sys)
{
    xmlParserCtxt *parser = ctx;
    (void)name;
    (void)external;
    (void)sys;
    parser->_private = parser; /* seen below */
    xmlStopParser(parser);
}

static void silent(void *ctx, const char *fmt, ...)
{
    (void)ctx;
    (void)fmt;
}

/* Where the parser stopped, with the line itself and a pointer below, as libvirt shows it. */
static void set_parse_error(xmlParserCtxt *parser, const char *text, const char *what,
                            GError **error)
{
    const xmlError *e = &parser->lastError;
    unsigned line = e->line > 0 ? (unsigned)e->line : 1,
             column = e->int2 > 0 ? (unsigned)e->int2 : 1;
    const char *at = text;
    for (unsigned n = 1; n < line && at; n++) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    size_t len = at ? MIN(strcspn(at, "\n"), 200) : 0;
    g_autofree char *words = g_strstrip(g_strdup(e->message ? e->message : "no XML"));
    g_autofree char *shown = g_utf8_make_valid(at ? at : "", (ssize_t)len);
    g_set_error(error, LIBVIRT_ERROR, ERR_XML_DETAIL, "(%s):%u:%u: %s\n%s\n%*s^", what, line,
                column, words, shown, (int)MIN(column - 1, 200), "");
}

xmlDoc *xml_parse(const char *text, const char *what, const char *root, GError **error)
{
    xmlParserCtxt *parser = xmlNewParserCtxt();
    if (!parser) {
        libvirt_error(error, ERR_NO_MEMORY, "XML parser");
        return NULL;
    }
    parser->sax->internalSubset = refuse_dtd;
    parser->sax->error = silent;
    parser->sax->warning = silent;
    g_autoptr(xmlDoc) doc = xmlCtxtReadDoc(parser, (const xmlChar *)text, NULL, NULL,
                                           XML_PARSE_NONET | XML_PARSE_NOWARNING |
                                               XML_PARSE_NOERROR | XML_PARSE_BIG_LINES);
    bool dtd = parser->_private == parser, whole = doc && parser->wellFormed;
    if (dtd) {
        libvirt_error(error, ERR_XML, "%s: a document type declaration is not accepted", what);
    } else if (!whole) {
        set_parse_error(parser, text, what, error);
    }
    xmlFreeParserCtxt(parser);
    if (dtd || !whole) {
        return NULL;
    }
    const xmlNode *top = xmlDocGetRootElement(doc);
    if (root && strcmp((const char *)top->name, root) != 0) {
        libvirt_error(error, ERR_XML, "unexpected root element <%s>, expecting <%s>",
                      (const char *)top->name, root);
        return NULL;
    }
    return g_steal_pointer(&doc);
}

/* libvirt's words to a hypervisor itself.  Spec: libvirt, "QEMU/KVM/HVF hypervisor driver". */
static const char ns_prefix[] = "qemu", ns_uri[] = "http://libvirt.org/schemas/domain/qemu/1.0";

/* The name of @node as paths have it; NULL: it belongs to a name space that is none of ours. */
static char *name_of(const xmlNode *node)
{
    if (!node->ns) {
        return g_strdup((const char *)node->name);
    }
    return strcmp((const char *)node->ns->href, ns_uri) == 0
               ? g_strconcat(ns_prefix, ":", (const char *)node->name, NULL)
               : NULL;
}

static bool in_name_space(const char *path)
{
    return g_str_has_prefix(path, ns_prefix) && path[strlen(ns_prefix)] == ':';
}

/* --- fields --- */

static void *field(const struct xml_row *row, const void *object)
{
    return (char *)object + row->offset;
}

static char **text_of(const struct xml_row *row, const void *object)
{
    return field(row, object);
}

static int64_t *int_of(const struct xml_row *row, const void *object)
{
    return field(row, object);
}

static int *enum_of(const struct xml_row *row, const void *object)
{
    return field(row, object); /* enum tristate is an int too */
}

static bool is_int(const struct xml_row *row)
{
    return row->kind == XML_KIND_INT || row->kind == XML_KIND_HEX || row->kind == XML_KIND_SIZE;
}

static XML_WORDS(yesno, "yes", "no");
static XML_WORDS(onoff, "on", "off");

static const char *const *words_of(const struct xml_row *row)
{
    return row->kind == XML_KIND_YESNO ? yesno : row->kind == XML_KIND_ONOFF ? onoff : row->words;
}

static bool present(const struct xml_row *row, const void *object)
{
    switch (row->kind) {
    case XML_KIND_INT:
    case XML_KIND_HEX:
    case XML_KIND_SIZE:
        return *int_of(row, object) != XML_ABSENT;
    case XML_KIND_YESNO:
    case XML_KIND_ONOFF:
    case XML_KIND_ENUM:
        return *enum_of(row, object) != 0;
    case XML_KIND_FLAG:
        return *(bool *)field(row, object);
    case XML_KIND_LIST:
        return xml_count(*(GPtrArray **)field(row, object)) > 0;
    default:
        return *(void **)field(row, object) != NULL;
    }
}

void *xml_new(const struct xml_table *t)
{
    void *object = g_malloc0(t->size);
    for (unsigned i = 0; i < t->n; i++) {
        if (is_int(&t->rows[i])) {
            *int_of(&t->rows[i], object) = XML_ABSENT;
        }
    }
    return object;
}

void xml_free(const struct xml_table *t, void *object)
{
    for (unsigned i = 0; object && i < t->n; i++) {
        const struct xml_row *row = &t->rows[i];
        void **p = field(row, object);
        if (row->kind == XML_KIND_TEXT || row->kind == XML_KIND_RAW) {
            g_free(*p);
        } else if (row->kind == XML_KIND_STRUCT) {
            xml_free(row->table, *p);
        } else if (row->kind == XML_KIND_LIST && *p) {
            GPtrArray *list = *p;
            for (unsigned k = 0; k < list->len; k++) {
                xml_free(row->table, list->pdata[k]);
            }
            g_ptr_array_unref(list);
        }
    }
    g_free(object);
}

void xml_append(const struct xml_table *t, GPtrArray **list, void *object)
{
    (void)t;
    if (!*list) {
        *list = g_ptr_array_new();
    }
    g_ptr_array_add(*list, object);
}

void *xml_copy(const struct xml_table *t, const void *object)
{
    void *copy = g_memdup2(object, t->size);
    for (unsigned i = 0; i < t->n; i++) {
        const struct xml_row *row = &t->rows[i];
        void **p = field(row, copy);
        if (row->kind == XML_KIND_TEXT || row->kind == XML_KIND_RAW) {
            *p = g_strdup(*p);
        } else if (row->kind == XML_KIND_STRUCT && *p) {
            *p = xml_copy(row->table, *p);
        } else if (row->kind == XML_KIND_LIST && *p) {
            GPtrArray *from = *p, *to = NULL;
            for (unsigned k = 0; k < from->len; k++) {
                xml_append(row->table, &to, xml_copy(row->table, from->pdata[k]));
            }
            *p = to;
        }
    }
    return copy;
}

const struct xml_row *xml_differs(const struct xml_table *t, const void *is, const void *asked)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct xml_row *row = &t->rows[i];
        bool same = !present(row, asked) || (row->flags & (XML_LIVE | XML_OURS));
        if (row->kind == XML_KIND_TEXT) {
            same = same || g_strcmp0(*text_of(row, is), *text_of(row, asked)) == 0;
        } else if (is_int(row)) {
            same = same || *int_of(row, is) == *int_of(row, asked);
        } else if (row->kind == XML_KIND_FLAG) {
            same = same || *(bool *)field(row, is);
        } else if (words_of(row)) {
            same = same || *enum_of(row, is) == *enum_of(row, asked);
        } else {
            same = true;
        }
        if (!same) {
            return row;
        }
    }
    return NULL;
}

/* --- reading --- */

static const struct {
    const char *name;
    uint64_t bytes;
} units[] = {
    {"b", 1},          {"bytes", 1},        {"KB", 1000},
    {"k", 1ull << 10}, {"KiB", 1ull << 10}, {"MB", 1000000},
    {"M", 1ull << 20}, {"MiB", 1ull << 20}, {"GB", 1000000000},
    {"G", 1ull << 30}, {"GiB", 1ull << 30}, {"TB", 1000000000000},
    {"T", 1ull << 40}, {"TiB", 1ull << 40}, {"PB", 1000000000000000},
    {"P", 1ull << 50}, {"PiB", 1ull << 50}, {"EB", 1000000000000000000},
    {"E", 1ull << 60}, {"EiB", 1ull << 60},
};

bool xml_unit(const char *unit, uint64_t *bytes)
{
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
        if (g_ascii_strcasecmp(unit, units[i].name) == 0) {
            *bytes = units[i].bytes;
            return true;
        }
    }
    return false;
}

static bool bad_value(const struct xml_row *row, const xmlNode *node, const char *text,
                      GError **error)
{
    const char *at = strrchr(row->path, '@');
    if (at) {
        libvirt_error(error, ERR_XML,
                      "Invalid value for attribute '%s' in element '%s': '%.200s' (line %ld).",
                      at + 1, (const char *)node->name, text, xmlGetLineNo(node));
    } else {
        libvirt_error(error, ERR_XML, "Invalid value for element '%s': '%.200s' (line %ld).",
                      (const char *)node->name, text, xmlGetLineNo(node));
    }
    return false;
}

/* Whether libvirt has @text among the words of which @words has a part. */
static bool is_known(const char *const *words, const char *text)
{
    unsigned i = 1;
    while (words[i]) {
        i++;
    }
    for (i++; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool bad_word(const struct xml_row *row, const xmlNode *node, const char *text,
                     GError **error)
{
    const char *at = strrchr(row->path, '@');
    if (!is_known(words_of(row), text)) {
        return bad_value(row, node, text, error);
    }
    libvirt_error(
        error, ERR_CONFIG_UNSUPPORTED, "element <%s> with %s%s'%s' (line %ld) is not supported",
        (const char *)node->name, at ? at + 1 : "", at ? "=" : "", text, xmlGetLineNo(node));
    return false;
}

static bool parse_number(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    bool hex = g_str_has_prefix(text, "0x") || g_str_has_prefix(text, "0X");
    int64_t v = g_ascii_strtoll(text, &end, hex ? 16 : 10);
    if (errno || end == text || *end) {
        return false;
    }
    *out = v;
    return true;
}

static bool parse_int(const struct xml_row *row, const char *text, int64_t *out)
{
    int64_t v;
    if (!parse_number(text, &v) || v < row->least || v > row->most) {
        return false;
    }
    *out = v;
    return true;
}

static bool scale_size(const struct xml_row *row, const xmlNode *node, const char *text,
                       const char *unit, int64_t *out, GError **error)
{
    uint64_t bytes = row->arg;
    int64_t v;
    if (unit && !xml_unit(unit, &bytes)) {
        libvirt_error(error, ERR_INVALID_ARG, "unknown suffix '%.200s'", unit);
        return false;
    }
    bool number = parse_number(text, &v);
    if ((!number && errno != ERANGE) || *text == '-') {
        return bad_value(row, node, text, error);
    }
    if (!number || (uint64_t)v > (uint64_t)INT64_MAX / bytes) {
        libvirt_error(error, ERR_OVERFLOW, "value too large: %.200s%s", text, unit ? unit : "");
        return false;
    }
    uint64_t total = (uint64_t)v * bytes; /* what is no multiple is rounded up */
    *out = (int64_t)(total / row->arg + (total % row->arg != 0));
    return true;
}

static bool parse_size(const struct xml_row *row, const xmlNode *node, const char *text,
                       int64_t *out, GError **error)
{
    xmlChar *unit = xmlGetNoNsProp(node, (const xmlChar *)"unit");
    bool ok = scale_size(row, node, text, (const char *)unit, out, error);
    xmlFree(unit);
    return ok;
}

static int parse_word(const char *const *words, const char *text)
{
    for (int i = 1; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            return i;
        }
    }
    return 0;
}

/* @text into the field of @row; @node is the element whose text or attribute it is. */
static bool set_value(const struct xml_row *row, void *object, const xmlNode *node, char *text,
                      GError **error)
{
    if (present(row, object) && row->kind != XML_KIND_FLAG) {
        libvirt_error(error, ERR_XML, "element <%s> is given twice (line %ld)",
                      (const char *)node->name, xmlGetLineNo(node));
        return false;
    }
    switch (row->kind) {
    case XML_KIND_TEXT:
        *text_of(row, object) = g_strdup(text);
        return !row->words || parse_word(row->words, text) || bad_word(row, node, text, error);
    case XML_KIND_FLAG:
        *(bool *)field(row, object) = true;
        return g_strstrip(text)[0] == '\0' || bad_value(row, node, text, error);
    case XML_KIND_INT:
    case XML_KIND_HEX:
        return parse_int(row, g_strstrip(text), int_of(row, object)) ||
               bad_value(row, node, text, error);
    case XML_KIND_SIZE:
        return parse_size(row, node, g_strstrip(text), int_of(row, object), error);
    default:
        *enum_of(row, object) = parse_word(words_of(row), g_strstrip(text));
        return *enum_of(row, object) || bad_word(row, node, text, error);
    }
}

/* The row whose path is @prefix and then @name; with @below any row that goes on from there. */
static const struct xml_row *find(const struct xml_table *t, const char *prefix, const char *mark,
                                  const char *name, bool below)
{
    size_t np = strlen(prefix), nm = strlen(mark), nn = strlen(name);
    for (unsigned i = 0; i < t->n; i++) {
        const char *path = t->rows[i].path;
        if (strncmp(path, prefix, np) == 0 && strncmp(path + np, mark, nm) == 0 &&
            strncmp(path + np + nm, name, nn) == 0 && path[np + nm + nn] == (below ? '/' : '\0')) {
            return &t->rows[i];
        }
    }
    return NULL;
}

static bool unknown(const xmlNode *node, const char *attribute, const xmlNode *in, GError **error)
{
    if (attribute) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "attribute '%s' of element <%s> (line %ld) is not supported", attribute,
                      (const char *)node->name, xmlGetLineNo(node));
    } else {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "element <%s%s%s> in <%s> (line %ld) is not supported",
                      node->ns && node->ns->prefix ? (const char *)node->ns->prefix : "",
                      node->ns && node->ns->prefix ? ":" : "", (const char *)node->name,
                      in ? (const char *)in->name : "", xmlGetLineNo(node));
    }
    return false;
}

/* @taken: an attribute that parse_size() or variant() reads. */
static bool read_attributes(const struct xml_table *t, void *object, const xmlNode *node,
                            const char *prefix, const char *taken, unsigned mode, GError **error)
{
    for (const xmlAttr *a = node->properties; a; a = a->next) {
        const char *name = (const char *)a->name;
        const struct xml_row *row = a->ns ? NULL : find(t, prefix, "@", name, false);
        if (!row && !a->ns && g_strcmp0(name, taken) == 0) {
            continue;
        }
        if (!row) {
            return unknown(node, name, NULL, error);
        }
        if ((row->flags & XML_LIVE) && !(mode & XML_MODE_LIVE)) {
            continue;
        }
        xmlChar *got = xmlNodeListGetString(node->doc, a->children, 1);
        g_autofree char *text = g_strdup(got ? (const char *)got : "");
        xmlFree(got);
        if (!set_value(row, object, node, text, error)) {
            return false;
        }
    }
    return true;
}

/* The text of @node itself, without that of elements inside; false if there are both. */
static char *own_text(const xmlNode *node)
{
    GString *out = g_string_new(NULL);
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (c->type == XML_TEXT_NODE || c->type == XML_CDATA_SECTION_NODE) {
            g_string_append(out, (const char *)c->content);
        }
    }
    return g_string_free(out, FALSE);
}

/* Everything inside @node, blanks at both ends stripped; name spaces are declared inside. */
static char *inner(const xmlNode *node)
{
    xmlBuffer *buffer = xmlBufferCreate();
    for (xmlNode *c = node->children; c; c = c->next) {
        xmlNode *copy = xmlDocCopyNode(c, node->doc, 1);
        xmlNodeDump(buffer, node->doc, copy, 0, 0);
        xmlFreeNode(copy);
    }
    char *text = g_strstrip(g_strdup((const char *)xmlBufferContent(buffer)));
    xmlBufferFree(buffer);
    return text;
}

static bool read_children(const struct xml_table *t, void *object, const xmlNode *node,
                          const char *prefix, unsigned mode, GError **error);

static bool read_list(const struct xml_row *row, void *object, const xmlNode *node, unsigned mode,
                      GError **error)
{
    void *item = xml_read(row->table, node, mode, error);
    if (!item) {
        return false;
    }
    if (row->kind == XML_KIND_LIST) {
        xml_append(row->table, field(row, object), item);
    } else if (present(row, object)) {
        xml_free(row->table, item);
        libvirt_error(error, ERR_XML, "element <%s> is given twice (line %ld)",
                      (const char *)node->name, xmlGetLineNo(node));
        return false;
    } else {
        *(void **)field(row, object) = item;
    }
    return true;
}

/* One element below: a row of its own, or the front of rows. */
static bool read_child(const struct xml_table *t, void *object, const xmlNode *node,
                       const char *prefix, unsigned mode, GError **error)
{
    g_autofree char *name = name_of(node);
    const struct xml_row *row = name ? find(t, prefix, "", name, false) : NULL;
    bool below = name && find(t, prefix, "", name, true);
    if (!row && !below) {
        return unknown(node, NULL, node->parent, error);
    }
    bool skip = row && (row->flags & XML_LIVE) && !(mode & XML_MODE_LIVE);
    if (row && (row->kind == XML_KIND_LIST || row->kind == XML_KIND_STRUCT)) {
        return skip || read_list(row, object, node, mode, error);
    }
    if (row && row->kind == XML_KIND_RAW) {
        g_free(*text_of(row, object));
        *text_of(row, object) = inner(node);
        return true;
    }
    g_autofree char *text = own_text(node);
    if (row && !skip && !set_value(row, object, node, text, error)) {
        return false;
    }
    if (!row && g_strstrip(text)[0]) {
        libvirt_error(error, ERR_XML, "unexpected text in element <%s> (line %ld)", name,
                      xmlGetLineNo(node));
        return false;
    }
    g_autofree char *deeper = g_strconcat(prefix, name, "/", NULL);
    return read_attributes(t, object, node, deeper,
                           row && row->kind == XML_KIND_SIZE ? "unit" : NULL, mode, error) &&
           read_children(t, object, node, deeper, mode, error);
}

static bool read_children(const struct xml_table *t, void *object, const xmlNode *node,
                          const char *prefix, unsigned mode, GError **error)
{
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE && !read_child(t, object, c, prefix, mode, error)) {
            return false;
        }
    }
    return true;
}

static bool read_own_text(const struct xml_table *t, void *object, const xmlNode *node,
                          GError **error)
{
    const struct xml_row *row = find(t, "", "", ".", false);
    g_autofree char *text = own_text(node);
    if (row) {
        return set_value(row, object, node, text, error);
    }
    if (g_strstrip(text)[0]) {
        libvirt_error(error, ERR_XML, "unexpected text in element <%s> (line %ld)",
                      (const char *)node->name, xmlGetLineNo(node));
        return false;
    }
    return true;
}

static bool check_required(const struct xml_table *t, const void *object, const xmlNode *node,
                           GError **error)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct xml_row *row = &t->rows[i];
        if ((row->flags & XML_REQUIRED) && !present(row, object)) {
            libvirt_error(error, ERR_XML, "missing %s '%s' in element <%s> (line %ld)",
                          strchr(row->path, '@') ? "attribute" : "element", row->path,
                          (const char *)node->name, xmlGetLineNo(node));
            return false;
        }
    }
    return true;
}

/* The table for what attribute .by of @node says; remembers it in @object. */
static const struct xml_table *variant(const struct xml_table *t, void *object, const xmlNode *node,
                                       GError **error)
{
    xmlChar *word = xmlGetNoNsProp(node, (const xmlChar *)t->by);
    int which = word ? parse_word(t->words, (const char *)word) : 0;
    if (!word) {
        libvirt_error(error, ERR_XML, "missing attribute '%s' in element <%s> (line %ld)", t->by,
                      t->element, xmlGetLineNo(node));
    } else if (!which) {
        g_autofree char *path = g_strconcat("@", t->by, NULL);
        const struct xml_row row = {.path = path, .kind = XML_KIND_ENUM, .words = t->words};
        bad_word(&row, node, (const char *)word, error);
    }
    xmlFree(word);
    *(int *)(void *)((char *)object + t->by_offset) = which;
    return which ? &t->variants[which] : NULL;
}

void *xml_read(const struct xml_table *t, const xmlNode *node, unsigned mode, GError **error)
{
    g_autofree char *name = name_of(node);
    if (g_strcmp0(name, t->element) != 0) {
        libvirt_error(error, ERR_XML, "unexpected element <%s>, expecting <%s>",
                      (const char *)node->name, t->element);
        return NULL;
    }
    void *object = xml_new(t);
    const struct xml_table *whole = t;
    if (t->by && !(t = variant(t, object, node, error))) {
        xml_free(whole, object);
        return NULL;
    }
    const struct xml_row *own = find(t, "", "", ".", false);
    const char *taken = own && own->kind == XML_KIND_SIZE ? "unit" : whole->by;
    if (!read_attributes(t, object, node, "", taken, mode, error) ||
        !read_own_text(t, object, node, error) ||
        !read_children(t, object, node, "", mode, error) ||
        !check_required(t, object, node, error)) {
        xml_free(whole, object);
        return NULL;
    }
    return object;
}

void *xml_read_text(const struct xml_table *t, const char *text, const char *what, unsigned mode,
                    GError **error)
{
    g_autoptr(xmlDoc) doc = xml_parse(text, what, t->element, error);
    return doc ? xml_read(t, xmlDocGetRootElement(doc), mode, error) : NULL;
}

/* --- writing --- */

void xml_escape(GString *out, const char *text)
{
    for (const char *s = text; *s; s++) {
        switch (*s) {
        case '&':
            g_string_append(out, "&amp;");
            break;
        case '<':
            g_string_append(out, "&lt;");
            break;
        case '>':
            g_string_append(out, "&gt;");
            break;
        case '\'':
            g_string_append(out, "&apos;");
            break;
        case '"':
            g_string_append(out, "&quot;");
            break;
        default:
            if ((unsigned char)*s >= 0x20 || *s == '\n' || *s == '\t') {
                g_string_append_c(out, *s);
            }
        }
    }
}

/* An element under construction: which elements are open, and how far the last start tag is. */
struct writer {
    GString *out;
    unsigned depth, open; /* of the table's element; elements open below it and itself */
    const char *names[16];
    size_t lengths[16];
    bool in_tag;   /* the last start tag lacks its ">" */
    bool has_text; /* the innermost element holds text, so its end tag follows at once */
};

static void indent(struct writer *w, unsigned steps)
{
    g_string_append_printf(w->out, "%*s", (int)(2 * steps), "");
}

static void end_start_tag(struct writer *w)
{
    if (w->in_tag) {
        g_string_append(w->out, ">\n");
        w->in_tag = false;
    }
}

static void open_element(struct writer *w, const char *name, size_t n)
{
    end_start_tag(w);
    indent(w, w->depth + w->open);
    g_string_append_c(w->out, '<');
    g_string_append_len(w->out, name, (ssize_t)n);
    w->names[w->open] = name;
    w->lengths[w->open++] = n;
    w->in_tag = true;
}

static void close_element(struct writer *w)
{
    w->open--;
    if (w->in_tag) {
        g_string_append(w->out, "/>\n");
    } else {
        if (!w->has_text) {
            indent(w, w->depth + w->open);
        }
        g_string_append(w->out, "</");
        g_string_append_len(w->out, w->names[w->open], (ssize_t)w->lengths[w->open]);
        g_string_append(w->out, ">\n");
    }
    w->in_tag = w->has_text = false;
}

/* Opens and closes until exactly the @n elements of "a/b/c" are open below the table's own. */
static void go_to(struct writer *w, const char *path, size_t n)
{
    const char *parts[G_N_ELEMENTS(w->names)];
    size_t lengths[G_N_ELEMENTS(w->names)], count = 0;
    for (const char *at = path; at < path + n && count < G_N_ELEMENTS(parts) - 1;) {
        parts[count] = at;
        lengths[count] = strcspn(at, "/");
        lengths[count] = MIN(lengths[count], (size_t)(path + n - at));
        at += lengths[count++] + 1;
    }
    size_t same = 0;
    while (same < count && same + 1 < w->open && w->lengths[same + 1] == lengths[same] &&
           strncmp(w->names[same + 1], parts[same], lengths[same]) == 0) {
        same++;
    }
    while (w->open > same + 1) {
        close_element(w);
    }
    for (; same < count; same++) {
        open_element(w, parts[same], lengths[same]);
    }
}

static void append_value(struct writer *w, const struct xml_row *row, const void *object)
{
    switch (row->kind) {
    case XML_KIND_TEXT:
        xml_escape(w->out, *text_of(row, object));
        break;
    case XML_KIND_HEX:
        g_string_append_printf(w->out, "0x%0*" PRIx64, row->arg, (uint64_t)*int_of(row, object));
        break;
    case XML_KIND_INT:
    case XML_KIND_SIZE:
        g_string_append_printf(w->out, "%" PRId64, *int_of(row, object));
        break;
    default:
        g_string_append(w->out, words_of(row)[*enum_of(row, object)]);
    }
}

static void write_text(struct writer *w, const struct xml_row *row, const void *object)
{
    if (row->kind == XML_KIND_FLAG) {
        return;
    }
    if (row->kind == XML_KIND_SIZE) {
        g_string_append_printf(w->out, " unit='%s'", row->arg == 1 ? "bytes" : "KiB");
    }
    if (row->kind == XML_KIND_RAW) {
        end_start_tag(w);
        indent(w, w->depth + w->open);
        g_string_append_printf(w->out, "%s\n", *text_of(row, object));
        return;
    }
    if (row->kind == XML_KIND_TEXT && !**text_of(row, object)) {
        return;
    }
    g_string_append_c(w->out, '>');
    w->in_tag = false;
    w->has_text = true;
    append_value(w, row, object);
}

static void write_row(struct writer *w, const struct xml_row *row, const void *object,
                      unsigned mode)
{
    const char *leaf = strrchr(row->path, '/');
    size_t above = leaf ? (size_t)(leaf - row->path) : 0;
    leaf = leaf ? leaf + 1 : row->path;
    if (row->kind == XML_KIND_LIST || row->kind == XML_KIND_STRUCT) {
        go_to(w, row->path, above);
        end_start_tag(w);
        void **p = field(row, object);
        GPtrArray *list = *p;
        for (unsigned i = 0; row->kind == XML_KIND_LIST && i < list->len; i++) {
            xml_write(row->table, list->pdata[i], mode, w->depth + w->open, w->out);
        }
        if (row->kind == XML_KIND_STRUCT) {
            xml_write(row->table, *p, mode, w->depth + w->open, w->out);
        }
    } else if (*leaf == '@') {
        go_to(w, row->path, above);
        g_string_append_printf(w->out, " %s='", leaf + 1);
        append_value(w, row, object);
        g_string_append_c(w->out, '\'');
    } else {
        go_to(w, row->path, *leaf == '.' ? above : strlen(row->path));
        write_text(w, row, object);
    }
}

/* The name space, in the start tag of who has elements of it; those are inside each other. */
static void declare(const struct xml_table *t, const void *object, GString *out)
{
    for (unsigned i = 0; !in_name_space(t->element) && i < t->n; i++) {
        if (in_name_space(t->rows[i].path) && present(&t->rows[i], object)) {
            g_string_append_printf(out, " xmlns:%s='%s'", ns_prefix, ns_uri);
            return;
        }
    }
}

void xml_write(const struct xml_table *t, const void *object, unsigned mode, unsigned depth,
               GString *out)
{
    struct writer w = {.out = out, .depth = depth};
    open_element(&w, t->element, strlen(t->element));
    if (t->variants) {
        int which = *(const int *)(const void *)((const char *)object + t->by_offset);
        g_string_append_printf(out, " %s='%s'", t->by, t->words[which]);
        t = &t->variants[which];
    }
    bool in_tag = true;
    for (unsigned i = 0; i < t->n; i++) {
        const struct xml_row *row = &t->rows[i];
        if (in_tag && row->path[0] != '@') {
            in_tag = false;
            declare(t, object, out);
        }
        if (present(row, object) && !(row->flags & XML_OURS) &&
            (!(row->flags & XML_LIVE) || (mode & XML_MODE_LIVE)) &&
            (!(row->flags & XML_SECRET) || (mode & XML_MODE_SECRET))) {
            write_row(&w, row, object, mode);
        }
    }
    while (w.open) {
        close_element(&w);
    }
}

char *xml_write_text(const struct xml_table *t, const void *object, unsigned mode)
{
    GString *out = g_string_new(NULL);
    xml_write(t, object, mode, 0, out);
    return g_string_free(out, FALSE);
}
