/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <libxml/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * libvirt's XML as plain structs.  One table of rows describes an element; reading, writing,
 * copying and freeing walk it.  What no row names is refused by name, never dropped.
 *
 *     struct boot { int dev; int64_t order; char *path; };
 *     static const struct xml_row boot_rows[] = {
 *         XML_ENUM(struct boot, dev, "@dev", boot_names, XML_REQUIRED),
 *         XML_INT(struct boot, order, "@order", 0), // 0 to 4294967295; XML_LONG, XML_RANGE
 *         XML_TEXT(struct boot, path, "kernel/image", 0), // the text of <kernel><image>
 *     };
 *     const struct xml_table boot_table = XML_TABLE("boot", struct boot, boot_rows);
 *
 * Names that begin with "qemu:" are those of libvirt's name space for what goes past it to QEMU.
 * Paths are relative to the table's element: "@name" an attribute, "." the element's own text,
 * "a/b" the text of an element below.  Rows stand in the order in which they are written, those
 * with a common front together and attributes before children.
 */
enum xml_kind {
    XML_KIND_TEXT,   /* char *, NULL if absent; with .words one of them */
    XML_KIND_INT,    /* int64_t from .least to .most, XML_ABSENT if absent; reads 0x too */
    XML_KIND_HEX,    /* the same, written as 0x with .arg digits */
    XML_KIND_SIZE,   /* int64_t in units of .arg bytes, with an attribute "unit" */
    XML_KIND_YESNO,  /* enum tristate */
    XML_KIND_ONOFF,  /* enum tristate */
    XML_KIND_ENUM,   /* int: index into .words (XML_WORDS), whose first is NULL: absent */
    XML_KIND_FLAG,   /* bool: the element is there */
    XML_KIND_LIST,   /* GPtrArray * of .table's structs, NULL if there are none */
    XML_KIND_STRUCT, /* pointer to .table's struct or NULL */
    XML_KIND_RAW,    /* char *: everything inside the element as it came, any content */
};

#define XML_ABSENT INT64_MIN

/*
 * The words of an ENUM.  Behind XML_OTHERS stand those that libvirt knows, too, and that are
 * refused by name: what is in neither part is no valid XML.
 */
#define XML_OTHERS           NULL
#define XML_WORDS(name, ...) const char *const name[] = {NULL, __VA_ARGS__, NULL, NULL}

enum tristate { TRI_ABSENT, TRI_YES, TRI_NO };

enum xml_row_flags {
    XML_REQUIRED = 1,
    XML_LIVE = 2,   /* of a running object: read and written only with XML_MODE_LIVE */
    XML_SECRET = 4, /* written only with XML_MODE_SECRET */
    XML_OURS = 8,   /* never read nor written, only copied and freed; its path is "" */
};
enum xml_mode { XML_MODE_LIVE = 1, XML_MODE_SECRET = 2 };

struct xml_row {
    const char *path;
    uint8_t kind, flags;
    uint16_t offset;
    uint16_t arg;
    const char *const *words;
    const struct xml_table *table;
    int64_t least, most;
};

/*
 * With .variants the rows only say which fields there are: element and text go by the variant
 * that attribute .by, one of .words, chooses; .by_offset is where that word's index is.
 */
struct xml_table {
    const char *element;
    size_t size;
    const struct xml_row *rows;
    unsigned n;
    const char *by;
    uint16_t by_offset;
    const char *const *words;
    const struct xml_table *variants;
};

#define XML_ROW(type, field, xpath, xkind, xflags, ...)                                            \
    {                                                                                              \
        .path = (xpath), .kind = (xkind), .flags = (xflags), .offset = offsetof(type, field),      \
        ##__VA_ARGS__                                                                              \
    }
#define XML_TEXT(type, field, path, flags)  XML_ROW(type, field, path, XML_KIND_TEXT, flags)
#define XML_RAW(type, field, path, flags)   XML_ROW(type, field, path, XML_KIND_RAW, flags)
#define XML_INT(type, field, path, flags)   XML_RANGE(type, field, path, 0, UINT32_MAX, flags)
#define XML_LONG(type, field, path, flags)  XML_RANGE(type, field, path, 0, INT64_MAX, flags)
#define XML_YESNO(type, field, path, flags) XML_ROW(type, field, path, XML_KIND_YESNO, flags)
#define XML_ONOFF(type, field, path, flags) XML_ROW(type, field, path, XML_KIND_ONOFF, flags)
#define XML_FLAG(type, field, path, flags)  XML_ROW(type, field, path, XML_KIND_FLAG, flags)
#define XML_RANGE(type, field, path, from, to, flags)                                              \
    XML_ROW(type, field, path, XML_KIND_INT, flags, .least = (from), .most = (to))
#define XML_HEX(type, field, path, digits, to, flags)                                              \
    XML_ROW(type, field, path, XML_KIND_HEX, flags, .arg = (digits), .most = (to))
/* Bare numbers count in @unitbytes: 1 (unit='bytes') or 1024 (unit='KiB'). */
#define XML_SIZE(type, field, path, unitbytes, flags)                                              \
    XML_ROW(type, field, path, XML_KIND_SIZE, flags, .arg = (unitbytes))
#define XML_ENUM(type, field, path, names, flags)                                                  \
    XML_ROW(type, field, path, XML_KIND_ENUM, flags, .words = (names))
#define XML_WORD(type, field, path, names, flags)                                                  \
    XML_ROW(type, field, path, XML_KIND_TEXT, flags, .words = (names))
#define XML_LIST(type, field, path, sub, flags)                                                    \
    XML_ROW(type, field, path, XML_KIND_LIST, flags, .table = (sub))
#define XML_STRUCT(type, field, path, sub, flags)                                                  \
    XML_ROW(type, field, path, XML_KIND_STRUCT, flags, .table = (sub))
#define XML_TABLE(name, type, xrows)                                                               \
    {                                                                                              \
        .element = (name), .size = sizeof(type), .rows = (xrows), .n = G_N_ELEMENTS(xrows)         \
    }

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)

/*
 * Whole text to a tree.  No network, no external files, no document type declaration.  What is
 * not well-formed is ERR_XML_DETAIL with line and column; @what names the source in it, as
 * "domain_definition".  @root NULL: any root element.
 */
xmlDoc *xml_parse(const char *text, const char *what, const char *root, GError **error);

void *xml_new(const struct xml_table *t); /* every field absent */
void xml_free(const struct xml_table *t, void *object);
void *xml_copy(const struct xml_table *t, const void *object);
/*
 * The first row of @t with a plain value in which @asked says another thing than @is; what @asked
 * does not say is as it is.  NULL: there is none.
 */
const struct xml_row *xml_differs(const struct xml_table *t, const void *is, const void *asked);
/* A new struct of @node, which is checked to be the table's element; NULL with an error. */
void *xml_read(const struct xml_table *t, const xmlNode *node, unsigned mode, GError **error);
/* Both steps at once. */
void *xml_read_text(const struct xml_table *t, const char *text, const char *what, unsigned mode,
                    GError **error);
/* Appends the element at @depth steps of indentation, with a line end, as libvirt writes. */
void xml_write(const struct xml_table *t, const void *object, unsigned mode, unsigned depth,
               GString *out);
char *xml_write_text(const struct xml_table *t, const void *object, unsigned mode);
/* Appends @text with what XML reserves escaped; control characters are left out. */
void xml_escape(GString *out, const char *text);
/* "KiB", "M", "bytes"...: how many bytes; false if it is no unit. */
bool xml_unit(const char *unit, uint64_t *bytes);

/* An item of a LIST field, which may be NULL. */
static inline unsigned xml_count(const GPtrArray *list)
{
    return list ? list->len : 0;
}
/* Appends to a LIST field, making the list if it is not there. */
void xml_append(const struct xml_table *t, GPtrArray **list, void *object);
