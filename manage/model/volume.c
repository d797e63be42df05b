/* SPDX-License-Identifier: GPL-2.0-or-later */

/* volume: libvirt's <volume> as a struct. */
#include "manage/model/volume.h"

#include "manage/error.h"

#include <string.h>

XML_WORDS(volume_type_names, "file", "block", "dir", "network", XML_OTHERS, "netdir", "ploop");
static XML_WORDS(encryption_formats, "default", "qcow", "luks", "luks2");
static XML_WORDS(secret_types, "passphrase");

static const struct xml_row extent_rows[] = {
    XML_LONG(struct volume_extent, start, "@start", XML_REQUIRED),
    XML_LONG(struct volume_extent, end, "@end", XML_REQUIRED),
};
static const struct xml_table extent_table = XML_TABLE("extent", struct volume_extent, extent_rows);

static const struct xml_row device_rows[] = {
    XML_TEXT(struct volume_device, path, "@path", XML_REQUIRED),
    XML_LIST(struct volume_device, extents, "extent", &extent_table, 0),
};
static const struct xml_table device_table = XML_TABLE("device", struct volume_device, device_rows);

static const struct xml_row timestamps_rows[] = {
    XML_TEXT(struct timestamps, atime, "atime", 0),
    XML_TEXT(struct timestamps, mtime, "mtime", 0),
    XML_TEXT(struct timestamps, ctime, "ctime", 0),
    XML_TEXT(struct timestamps, btime, "btime", 0),
};
static const struct xml_table timestamps_table =
    XML_TABLE("timestamps", struct timestamps, timestamps_rows);

static const struct xml_row secret_rows[] = {
    XML_ENUM(struct volume_secret, type, "@type", secret_types, XML_REQUIRED),
    XML_TEXT(struct volume_secret, uuid, "@uuid", 0),
    XML_TEXT(struct volume_secret, usage, "@usage", 0),
};
static const struct xml_table secret_table = XML_TABLE("secret", struct volume_secret, secret_rows);

static const struct xml_row encryption_rows[] = {
    XML_ENUM(struct volume_encryption, format, "@format", encryption_formats, XML_REQUIRED),
    XML_TEXT(struct volume_encryption, engine, "@engine", 0),
    XML_LIST(struct volume_encryption, secrets, "secret", &secret_table, 0),
    XML_TEXT(struct volume_encryption, cipher_name, "cipher/@name", 0),
    XML_INT(struct volume_encryption, cipher_size, "cipher/@size", 0),
    XML_TEXT(struct volume_encryption, cipher_mode, "cipher/@mode", 0),
    XML_TEXT(struct volume_encryption, cipher_hash, "cipher/@hash", 0),
    XML_TEXT(struct volume_encryption, ivgen_name, "ivgen/@name", 0),
    XML_TEXT(struct volume_encryption, ivgen_hash, "ivgen/@hash", 0),
};
const struct xml_table encryption_table =
    XML_TABLE("encryption", struct volume_encryption, encryption_rows);

#define V struct volume_def
static const struct xml_row volume_rows[] = {
    XML_ENUM(V, type, "@type", volume_type_names, 0),
    XML_TEXT(V, name, "name", XML_REQUIRED),
    XML_TEXT(V, key, "key", 0),
    XML_LIST(V, devices, "source/device", &device_table, 0),
    XML_SIZE(V, capacity, "capacity", 1, 0),
    XML_SIZE(V, allocation, "allocation", 1, 0),
    XML_SIZE(V, physical, "physical", 1, 0),
    XML_TEXT(V, path, "target/path", 0),
    XML_TEXT(V, format, "target/format/@type", 0),
    XML_STRUCT(V, permissions, "target/permissions", &permissions_table, 0),
    XML_STRUCT(V, timestamps, "target/timestamps", &timestamps_table, 0),
    XML_STRUCT(V, encryption, "target/encryption", &encryption_table, 0),
    XML_TEXT(V, compat, "target/compat", 0),
    XML_FLAG(V, nocow, "target/nocow", 0),
    XML_SIZE(V, cluster_size, "target/clusterSize", 1, 0),
    XML_FLAG(V, has_features, "target/features", 0),
    XML_FLAG(V, lazy_refcounts, "target/features/lazy_refcounts", 0),
    XML_FLAG(V, extended_l2, "target/features/extended_l2", 0),
    XML_FLAG(V, has_backing, "backingStore", 0),
    XML_TEXT(V, backing_path, "backingStore/path", 0),
    XML_TEXT(V, backing_format, "backingStore/format/@type", 0),
    XML_STRUCT(V, backing_permissions, "backingStore/permissions", &permissions_table, 0),
    XML_STRUCT(V, backing_timestamps, "backingStore/timestamps", &timestamps_table, 0),
    XML_TEXT(V, access, "", XML_OURS),
};
const struct xml_table volume_table = XML_TABLE("volume", V, volume_rows);

struct volume_def *volume_def_new(const char *name)
{
    struct volume_def *def = xml_new(&volume_table);
    def->name = g_strdup(name);
    return def;
}

void volume_def_free(struct volume_def *def)
{
    if (def) {
        xml_free(&volume_table, def);
    }
}

struct volume_def *volume_def_copy(const struct volume_def *def)
{
    return xml_copy(&volume_table, def);
}

char *volume_format(const struct volume_def *def)
{
    return xml_write_text(&volume_table, def, XML_MODE_LIVE);
}

struct timestamps *timestamps_new(void)
{
    return xml_new(&timestamps_table);
}

struct volume_encryption *volume_encryption_new(const char *format)
{
    struct volume_encryption *e = xml_new(&encryption_table);
    for (int i = 1; encryption_formats[i]; i++) {
        e->format = strcmp(format, encryption_formats[i]) ? e->format : i;
    }
    return e;
}

void volume_encryption_add_secret(struct volume_encryption *e, const char *uuid)
{
    struct volume_secret *s = xml_new(&secret_table);
    s->type = 1;
    s->uuid = g_strdup(uuid);
    xml_append(&secret_table, &e->secrets, s);
}

bool volume_encryption_check(const struct volume_encryption *e, GError **error)
{
    const char *format = encryption_formats[e->format];
    if (strcmp(format, "luks")) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "encryption format %s is not supported",
                      format);
    } else if (e->engine && strcmp(e->engine, "qemu")) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "encryption engine %s is not supported",
                      e->engine);
    } else if (e->cipher_name && e->cipher_size == XML_ABSENT) {
        libvirt_error(error, ERR_XML, "cipher info missing 'size' attribute");
    } else {
        return true;
    }
    return false;
}

void volume_add_device(struct volume_def *def, const char *path, int64_t start, int64_t end)
{
    struct volume_device *device = xml_new(&device_table);
    struct volume_extent *extent = xml_new(&extent_table);
    device->path = g_strdup(path);
    *extent = (struct volume_extent){start, end};
    xml_append(&extent_table, &device->extents, extent);
    xml_append(&device_table, &def->devices, device);
}

static bool check(struct volume_def *def, GError **error)
{
    if (!def->name || !*def->name) {
        libvirt_error(error, ERR_XML, "missing volume name element");
        return false;
    }
    if (strchr(def->name, '/')) {
        libvirt_error(error, ERR_OPERATION_INVALID, "volume name '%s' cannot contain '/'",
                      def->name);
        return false;
    }
    if (def->capacity != XML_ABSENT && def->allocation == XML_ABSENT) {
        def->allocation = def->capacity;
    }
    return name_check(def->name, "volume", error) && permissions_check(def->permissions, error);
}

struct volume_def *volume_parse(const char *text, GError **error)
{
    struct volume_def *def =
        xml_read_text(&volume_table, text, "storage_volume_definition", 0, error);
    if (def && !check(def, error)) {
        volume_def_free(def);
        return NULL;
    }
    return def;
}
