/* SPDX-License-Identifier: GPL-2.0-or-later */

/* pool: libvirt's <pool> as a struct. */
#include "manage/model/pool.h"

#include "manage/error.h"

#include <string.h>

XML_WORDS(pool_type_names, "dir", "fs", "netfs", "logical", "disk", "iscsi", "scsi", "mpath", "rbd",
          "sheepdog", "gluster", "zfs", "vstorage", "iscsi-direct", "nbd");

static const struct xml_row permissions_rows[] = {
    XML_TEXT(struct permissions, mode, "mode", 0),
    XML_RANGE(struct permissions, owner, "owner", -INT64_MAX, INT64_MAX, 0),
    XML_RANGE(struct permissions, group, "group", -INT64_MAX, INT64_MAX, 0),
    XML_TEXT(struct permissions, label, "label", 0),
};
const struct xml_table permissions_table =
    XML_TABLE("permissions", struct permissions, permissions_rows);

static const struct xml_row host_rows[] = {
    XML_TEXT(struct pool_host, name, "@name", XML_REQUIRED),
    XML_RANGE(struct pool_host, port, "@port", 0, UINT16_MAX, 0),
};
static const struct xml_table host_table = XML_TABLE("host", struct pool_host, host_rows);

static const struct xml_row extent_rows[] = {
    XML_LONG(struct free_extent, start, "@start", XML_REQUIRED),
    XML_LONG(struct free_extent, end, "@end", XML_REQUIRED),
};
static const struct xml_table extent_table =
    XML_TABLE("freeExtent", struct free_extent, extent_rows);

static const struct xml_row device_rows[] = {
    XML_TEXT(struct pool_device, path, "@path", XML_REQUIRED),
    XML_YESNO(struct pool_device, part_separator, "@part_separator", 0),
    XML_LIST(struct pool_device, free_extents, "freeExtent", &extent_table, 0),
};
static const struct xml_table device_table = XML_TABLE("device", struct pool_device, device_rows);

#define SOURCE(prefix)                                                                             \
    XML_LIST(struct pool_def, hosts, prefix "host", &host_table, 0),                               \
        XML_LIST(struct pool_def, devices, prefix "device", &device_table, 0),                     \
        XML_TEXT(struct pool_def, dir, prefix "dir/@path", 0),                                     \
        XML_TEXT(struct pool_def, source_name, prefix "name", 0),                                  \
        XML_TEXT(struct pool_def, initiator, prefix "initiator/iqn/@name", 0),                     \
        XML_TEXT(struct pool_def, format, prefix "format/@type", 0),                               \
        XML_TEXT(struct pool_def, auth_type, prefix "auth/@type", 0),                              \
        XML_TEXT(struct pool_def, auth_user, prefix "auth/@username", 0),                          \
        XML_TEXT(struct pool_def, secret_usage, prefix "auth/secret/@usage", 0),                   \
        XML_TEXT(struct pool_def, secret_uuid, prefix "auth/secret/@uuid", 0),                     \
        XML_TEXT(struct pool_def, vendor, prefix "vendor/@name", 0),                               \
        XML_TEXT(struct pool_def, product, prefix "product/@name", 0),                             \
        XML_TEXT(struct pool_def, protocol_version, prefix "protocol/@ver", 0)

static const struct xml_row pool_rows[] = {
    XML_ENUM(struct pool_def, type, "@type", pool_type_names, XML_REQUIRED),
    XML_TEXT(struct pool_def, name, "name", 0),
    XML_TEXT(struct pool_def, uuid, "uuid", 0),
    XML_SIZE(struct pool_def, capacity, "capacity", 1, 0),
    XML_SIZE(struct pool_def, allocation, "allocation", 1, 0),
    XML_SIZE(struct pool_def, available, "available", 1, 0),
    XML_YESNO(struct pool_def, cow, "features/cow/@state", 0),
    SOURCE("source/"),
    XML_TEXT(struct pool_def, path, "target/path", 0),
    XML_STRUCT(struct pool_def, permissions, "target/permissions", &permissions_table, 0),
};
const struct xml_table pool_table = XML_TABLE("pool", struct pool_def, pool_rows);

static const struct xml_row source_rows[] = {SOURCE("")};
static const struct xml_table source_table = XML_TABLE("source", struct pool_def, source_rows);

/* ---- names ---- */

bool name_check(const char *name, const char *what, GError **error)
{
    if (!name || !*name) {
        libvirt_error(error, ERR_XML, "missing %s name", what);
        return false;
    }
    if (strchr(name, '/')) {
        libvirt_error(error, ERR_XML, "name %s cannot contain '/'", name);
        return false;
    }
    for (const char *p = name; *p; p++) {
        if (g_ascii_iscntrl(*p)) {
            libvirt_error(error, ERR_XML, "%s name has a control character", what);
            return false;
        }
    }
    if (!strcmp(name, ".") || !strcmp(name, "..") || strlen(name) > 200) {
        libvirt_error(error, ERR_XML, "invalid %s name '%.200s'", what, name);
        return false;
    }
    return true;
}

void uuid_bytes(const char *uuid, uint8_t out[16])
{
    unsigned n = 0;
    for (; *uuid && n < 16; uuid++) {
        if (g_ascii_isxdigit(uuid[0]) && g_ascii_isxdigit(uuid[1])) {
            out[n++] =
                (uint8_t)(g_ascii_xdigit_value(uuid[0]) << 4 | g_ascii_xdigit_value(uuid[1]));
            uuid++;
        }
    }
}

char *uuid_text(const uint8_t uuid[16])
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < 16; i++) {
        g_string_append_printf(s, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
                               uuid[i]);
    }
    return g_string_free(s, FALSE);
}

/* 32 hexadecimal digits, with "-" and blanks anywhere between two bytes. */
static bool uuid_valid(const char *text)
{
    unsigned digits = 0;
    for (; *text; text++) {
        if (g_ascii_isxdigit(*text)) {
            digits++;
        } else if ((*text != '-' && !g_ascii_isspace(*text)) || digits % 2) {
            return false;
        }
    }
    return digits == 32;
}

bool uuid_normalise(char **uuid, GError **error)
{
    uint8_t bytes[16];
    if (!*uuid) {
        *uuid = g_uuid_string_random();
        return true;
    }
    if (!uuid_valid(*uuid)) {
        libvirt_error(error, ERR_XML, "malformed uuid element");
        return false;
    }
    uuid_bytes(*uuid, bytes);
    g_free(*uuid);
    *uuid = uuid_text(bytes);
    return true;
}

/* ---- permissions ---- */

mode_t permissions_mode(const struct permissions *p)
{
    return p && p->mode ? (mode_t)g_ascii_strtoull(p->mode, NULL, 8) : (mode_t)-1;
}

void permissions_set(struct permissions **p, mode_t mode, uid_t owner, gid_t group)
{
    if (!*p) {
        *p = xml_new(&permissions_table);
    }
    g_free((*p)->mode);
    (*p)->mode = g_strdup_printf("0%03o", mode & 07777);
    (*p)->owner = owner;
    (*p)->group = group;
}

void permissions_replace(struct permissions **p, struct permissions *with)
{
    xml_free(&permissions_table, *p);
    *p = with;
}

bool permissions_check(const struct permissions *p, GError **error)
{
    char *end = NULL;
    if (!p) {
        return true;
    }
    if (p->mode && (!*p->mode || g_ascii_strtoull(p->mode, &end, 8) > 07777 || *end)) {
        libvirt_error(error, ERR_XML, "malformed octal mode");
        return false;
    }
    if ((p->owner != XML_ABSENT && (p->owner < -1 || p->owner > UINT32_MAX)) ||
        (p->group != XML_ABSENT && (p->group < -1 || p->group > UINT32_MAX))) {
        libvirt_error(error, ERR_XML, "malformed %s element",
                      p->owner < -1 || p->owner > UINT32_MAX ? "owner" : "group");
        return false;
    }
    return true;
}

/* ---- pools ---- */

struct pool_def *pool_def_new(int type)
{
    struct pool_def *def = xml_new(&pool_table);
    def->type = type;
    return def;
}

struct pool_def *pool_def_copy(const struct pool_def *def)
{
    return xml_copy(&pool_table, def);
}

void pool_def_free(struct pool_def *def)
{
    if (def) {
        xml_free(&pool_table, def);
    }
}

char *pool_format(const struct pool_def *def)
{
    return xml_write_text(&pool_table, def, XML_MODE_LIVE);
}

void pool_source_format(const struct pool_def *def, GString *out)
{
    xml_write(&source_table, def, XML_MODE_LIVE, 1, out);
}

void pool_add_device(struct pool_def *def, const char *path)
{
    struct pool_device *device = xml_new(&device_table);
    device->path = g_strdup(path);
    xml_append(&device_table, &def->devices, device);
}

void pool_add_host(struct pool_def *def, const char *name)
{
    struct pool_host *host = xml_new(&host_table);
    host->name = g_strdup(name);
    xml_append(&host_table, &def->hosts, host);
}

struct free_extent *free_extent_new(int64_t start, int64_t end)
{
    struct free_extent *e = xml_new(&extent_table);
    *e = (struct free_extent){start, end};
    return e;
}

void pool_set_free_extents(struct pool_def *def, const GPtrArray *extents)
{
    struct pool_device *device = xml_count(def->devices) ? def->devices->pdata[0] : NULL;
    if (device && device->free_extents) {
        g_ptr_array_set_free_func(device->free_extents, g_free);
        g_clear_pointer(&device->free_extents, g_ptr_array_unref);
    }
    for (unsigned i = 0; device && i < xml_count(extents); i++) {
        xml_append(&extent_table, &device->free_extents,
                   g_memdup2(extents->pdata[i], sizeof(struct free_extent)));
    }
}

struct pool_def *pool_source_parse(const char *text, GError **error)
{
    return text && *text ? xml_read_text(&source_table, text, "storage_source", 0, error)
                         : pool_def_new(POOL_NONE);
}

static bool format_check(struct pool_def *def, const char *const *formats, GError **error)
{
    if (!formats) {
        g_clear_pointer(&def->format, g_free); /* libvirt does not look at it either */
        return true;
    }
    if (!def->format) {
        def->format = g_strdup(formats[0]);
    }
    for (; *formats; formats++) {
        if (!strcmp(*formats, def->format)) {
            return true;
        }
    }
    libvirt_error(error, ERR_XML, "unknown pool format type %s", def->format);
    return false;
}

/* Without "//" and without a "/" at the end, as paths are compared. */
static char *clean_path(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    GString *clean = g_string_new(NULL);
    for (char **p = parts; *p; p++) {
        if (**p) {
            g_string_append_printf(clean, "/%s", *p);
        }
    }
    return g_string_free(clean->len ? clean : g_string_append_c(clean, '/'), FALSE);
}

static bool target_check(struct pool_def *def, const struct pool_rules *rules, GError **error)
{
    if (!def->path && rules->path) {
        def->path = g_strconcat(rules->path, def->source_name, NULL);
    }
    if (!def->path) {
        if (rules->needs & NEEDS_PATH) {
            libvirt_error(error, ERR_XML, "missing storage pool target path");
            return false;
        }
        return true;
    }
    if (!g_path_is_absolute(def->path)) {
        libvirt_error(error, ERR_XML, "storage pool target path '%s' is not absolute", def->path);
        return false;
    }
    char *clean = clean_path(def->path);
    g_free(def->path);
    def->path = clean;
    return true;
}

static bool source_check(struct pool_def *def, unsigned needs, GError **error)
{
    const char *lacks = NULL;
    if ((needs & NEEDS_HOST) && !xml_count(def->hosts)) {
        lacks = "missing storage pool source host name";
    } else if ((needs & NEEDS_DEVICE) && !xml_count(def->devices)) {
        lacks = "missing storage pool source device name";
    } else if ((needs & NEEDS_DIR) && !def->dir) {
        lacks = "missing storage pool source path";
    }
    if (lacks) {
        libvirt_error(error, ERR_XML, "%s", lacks);
        return false;
    }
    if ((needs & NEEDS_NAME) && !def->source_name) {
        def->source_name = g_strdup(def->name);
    }
    return true;
}

struct pool_def *pool_parse(const char *text, const struct pool_rules *(*rules)(int type),
                            GError **error)
{
    struct pool_def *def = xml_read_text(&pool_table, text, "storage_pool_definition", 0, error);
    if (!def) {
        return NULL;
    }
    const struct pool_rules *r = rules(def->type);
    if (!r) {
        libvirt_error(error, ERR_INTERNAL, "missing backend for pool type %d (%s)", def->type,
                      pool_type_names[def->type]);
    } else {
        if (!def->name && (r->needs & NEEDS_NAME)) {
            def->name = g_strdup(def->source_name);
        }
        if (name_check(def->name, "pool source", error) && uuid_normalise(&def->uuid, error) &&
            source_check(def, r->needs, error) && format_check(def, r->formats, error) &&
            target_check(def, r, error) && permissions_check(def->permissions, error)) {
            def->capacity = def->allocation = def->available = 0;
            return def;
        }
    }
    pool_def_free(def);
    return NULL;
}
