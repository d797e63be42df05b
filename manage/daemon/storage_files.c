/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * storage_files: volumes that are files in a directory.
 *
 * What lies in a pool may come from anywhere: it is looked at as untrusted, and only its
 * metadata is read.
 */
#include "base/json.h"
#include "base/util.h"
#include "host/image/chain.h"
#include "host/image/describe.h"
#include "host/image/options.h"
#include "manage/daemon/secrets.h"
#include "manage/daemon/storage_kind.h"
#include "manage/error.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    VOLUMES_MAX = 16384,
    ISO_MAGIC_AT = 32769,
    BLOCK = 512,
    VOLUME_MODE = 0600,
    POOL_MODE = 0711
};

const char *const file_formats[] = {
    "raw", "none", "dir",   "bochs", "cloop", "dmg",  "iso",       "vpc",  "vdi",
    "cow", "qcow", "qcow2", "qed",   "vmdk",  "vhdx", "parallels", "luks", NULL,
};

const char *image_format_of(const char *format)
{
    return !format || !strcmp(format, "none") || !strcmp(format, "iso") ||
                   !strcmp(format, "unknown")
               ? "raw"
           : !strcmp(format, "ploop") ? "parallels"
                                      : format;
}

/* ---- pools ---- */

bool files_build(struct pool_def *def, GError **error)
{
    const struct permissions *p = def->permissions;
    mode_t mode = permissions_mode(p);
    struct stat st;
    bool there = stat(def->path, &st) == 0;
    if (there && !S_ISDIR(st.st_mode)) {
        libvirt_error(error, ERR_SYSTEM, "cannot create path '%s': Not a directory", def->path);
        return false;
    }
    if (!there && g_mkdir_with_parents(def->path, mode == (mode_t)-1 ? POOL_MODE : mode) < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot create path '%s': %s", def->path,
                      g_strerror(errno));
        return false;
    }
    if (!there || p) { /* the umask has no say */
        return bytes_set_permissions(def->path, p, there ? (mode_t)-1 : POOL_MODE, error);
    }
    return true;
}

bool files_remove(struct pool_def *def, GError **error)
{
    if (rmdir(def->path) < 0) {
        libvirt_error(error, ERR_SYSTEM, "failed to remove pool '%s': %s", def->path,
                      g_strerror(errno));
        return false;
    }
    return true;
}

static struct volume_def *look_at(struct pool_def *def, const char *name)
{
    g_autoptr(GError) error = NULL;
    struct volume_def *vol = volume_def_new(name);
    vol->path = g_build_filename(def->path, name, NULL);
    if (files_vol_refresh(def, vol, &error)) {
        return vol;
    }
    if (error->code == ERR_NO_STORAGE_VOL) { /* gone, or no file */
        volume_def_free(vol);
        return NULL;
    }
    return vol; /* broken or not readable: it is a volume all the same */
}

bool files_refresh(struct pool_def *def, struct pool_content *out, GError **error)
{
    struct statvfs fs;
    struct stat st;
    g_autoptr(GDir) dir = NULL;
    if (stat(def->path, &st) < 0 || statvfs(def->path, &fs) < 0 ||
        !(dir = g_dir_open(def->path, 0, NULL))) {
        libvirt_error(error, ERR_SYSTEM, "cannot open directory '%s': %s", def->path,
                      g_strerror(errno));
        return false;
    }
    out->capacity = (uint64_t)fs.f_frsize * fs.f_blocks;
    out->available = (uint64_t)fs.f_frsize * fs.f_bfree;
    out->allocation = out->capacity - out->available;
    permissions_set(&out->permissions, st.st_mode, st.st_uid, st.st_gid);
    const char *name;
    while ((name = g_dir_read_name(dir)) && out->volumes->len < VOLUMES_MAX) {
        struct volume_def *vol =
            name[0] == '.' || !g_utf8_validate(name, -1, NULL) || !name_check(name, "volume", NULL)
                ? NULL
                : look_at(def, name);
        if (vol) {
            g_ptr_array_add(out->volumes, vol);
        }
    }
    return true;
}

/* ---- one volume ---- */

static bool no_volume(const struct volume_def *vol, GError **error)
{
    libvirt_error(error, ERR_NO_STORAGE_VOL, "no storage vol with matching path '%s'", vol->path);
    return false;
}

static bool is_iso(int fd)
{
    char magic[5];
    return pread(fd, magic, sizeof(magic), ISO_MAGIC_AT) == sizeof(magic) &&
           !memcmp(magic, "CD001", sizeof(magic));
}

static void set_text(char **to, const char *text)
{
    g_free(*to);
    *to = g_strdup(text);
}

/* What qcow2 has and libvirt tells. */
static void look_at_qcow2(struct volume_def *vol, struct node *node)
{
    g_autoptr(json_t) info = node_info(node);
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    const char *compat = json_string_value(json_object_get(data, "compat"));
    json_t *cluster = json_object_get(info, "cluster-size");
    set_text(&vol->compat, compat);
    vol->has_features = compat && strcmp(compat, "0.10") != 0;
    vol->lazy_refcounts = json_is_true(json_object_get(data, "lazy-refcounts"));
    vol->extended_l2 = json_is_true(json_object_get(data, "extended-l2"));
    vol->cluster_size = cluster ? json_integer_value(cluster) : XML_ABSENT;
    if (json_is_true(json_object_get(info, "encrypted")) && !vol->encryption) {
        vol->encryption = volume_encryption_new("luks");
    }
}

static void look_at_backing(struct volume_def *vol, struct node *node)
{
    struct stat st;
    g_autofree char *path = node->backing_name ? node_backing_path(node) : NULL;
    set_text(&vol->backing_path, path && g_utf8_validate(path, -1, NULL) ? path : NULL);
    set_text(&vol->backing_format, vol->backing_path ? node->backing_format : NULL);
    vol->has_backing = vol->backing_path != NULL;
    if (vol->has_backing && path[0] == '/' && stat(path, &st) == 0) {
        bytes_look(&st, &vol->backing_permissions, &vol->backing_timestamps);
    }
}

/* Size and format as the file's own bytes say. */
static bool look_at_image(struct volume_def *vol, int fd, GError **error)
{
    g_autoptr(GError) inner = NULL;
    struct chain_open how = {.name = vol->path,
                             .flags = OPEN_READ_ONLY | OPEN_NO_IO | OPEN_UNTRUSTED |
                                      OPEN_NO_BACKING | OPEN_SHARE | OPEN_NO_LOCK};
    struct node *node = chain_open(&how, &inner);
    if (!node) {
        libvirt_error(error, ERR_INTERNAL, "%s", inner->message);
        return false;
    }
    const char *format = node->format->name;
    vol->capacity = (int64_t)node->size;
    if (!strcmp(format, "raw") && is_iso(fd)) {
        format = "iso";
    }
    if (!strcmp(format, "luks")) { /* for libvirt raw bytes that are encrypted */
        format = "raw";
        vol->encryption = vol->encryption ? vol->encryption : volume_encryption_new("luks");
    }
    set_text(&vol->format, format);
    if (!strcmp(format, "qcow2")) {
        look_at_qcow2(vol, node);
    }
    look_at_backing(vol, node);
    chain_close(node);
    return true;
}

bool files_vol_refresh(struct pool_def *def, struct volume_def *vol, GError **error)
{
    struct stat st;
    (void)def;
    /* A pipe or a device without medium must not make us wait. */
    autofd int fd = open(vol->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    int result = fd >= 0 ? fstat(fd, &st) : stat(vol->path, &st);
    if (result < 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISBLK(st.st_mode))) {
        return no_volume(vol, error);
    }
    vol->type = 1 + (S_ISDIR(st.st_mode)   ? VOLUME_DIR
                     : S_ISBLK(st.st_mode) ? VOLUME_BLOCK
                                           : VOLUME_FILE);
    set_text(&vol->key, vol->path);
    bytes_look(&st, &vol->permissions, &vol->timestamps);
    if (S_ISBLK(st.st_mode)) {
        return device_vol_refresh(def, vol, error);
    }
    bool directory = S_ISDIR(st.st_mode);
    vol->allocation = directory ? 0 : (int64_t)st.st_blocks * BLOCK;
    vol->physical = directory || !st.st_size ? XML_ABSENT : st.st_size;
    vol->capacity = directory ? 0 : st.st_size;
    set_text(&vol->format, directory ? "dir" : "raw");
    return directory || fd < 0 || look_at_image(vol, fd, error);
}

bool files_vol_plan(struct pool_def *def, struct volume_def *vol, GError **error)
{
    if (!vol->format) {
        set_text(&vol->format, "raw");
    }
    const char *format = image_format_of(vol->format);
    if (strcmp(format, "dir") && !format_find(format, NULL)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unknown volume format type %s", vol->format);
        return false;
    }
    if (!vol->encryption && !strcmp(format, "luks")) {
        libvirt_error(error, ERR_XML, "a volume of format luks needs <encryption>");
        return false;
    }
    if (vol->encryption && strcmp(format, "raw") && strcmp(format, "luks") &&
        strcmp(format, "qcow2")) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "volume encryption unsupported with format %s",
                      vol->format);
        return false;
    }
    if (vol->encryption && !volume_encryption_check(vol->encryption, error)) {
        return false;
    }
    vol->type = 1 + (strcmp(format, "dir") ? VOLUME_FILE : VOLUME_DIR);
    g_free(vol->path);
    vol->path = g_build_filename(def->path, vol->name, NULL);
    set_text(&vol->key, vol->path);
    return true;
}

/* ---- making ---- */

static bool make_raw(const struct volume_def *vol, GError **error)
{
    autofd int fd = open(vol->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, VOLUME_MODE);
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot create path '%s': %s", vol->path,
                      g_strerror(errno));
        return false;
    }
    int result = ftruncate(fd, vol->capacity) < 0 ? errno : 0;
    int64_t take = MIN(vol->allocation, vol->capacity);
    if (!result && take > 0) {
        result = posix_fallocate(fd, 0, take);
    }
    if (result) {
        libvirt_error(error, ERR_SYSTEM, "cannot allocate %" PRId64 " bytes in file '%s': %s",
                      result == EFBIG || take <= 0 ? vol->capacity : take, vol->path,
                      g_strerror(result));
        unlink(vol->path);
        return false;
    }
    return true;
}

/* One option of a LUKS header, which qcow2's begin with a word. */
static bool luks_option(Options *options, bool qcow2, const char *name, const char *value,
                        GError **error)
{
    g_autofree char *full = g_strconcat(qcow2 ? "encrypt." : "", name, NULL);
    return !value || options_set(options, full, value, error);
}

/* @key: id of the passphrase. */
static bool luks_options(const struct volume_encryption *e, bool qcow2, const char *key,
                         Options *options, GError **error)
{
    g_autofree char *cipher =
        e->cipher_name ? g_strdup_printf("%s-%" PRId64, e->cipher_name, e->cipher_size) : NULL;
    return (!qcow2 || options_set(options, "encrypt.format", "luks", error)) &&
           luks_option(options, qcow2, "key-secret", key, error) &&
           luks_option(options, qcow2, "cipher-alg", cipher, error) &&
           luks_option(options, qcow2, "cipher-mode", e->cipher_mode, error) &&
           luks_option(options, qcow2, "hash-alg", e->cipher_hash, error) &&
           luks_option(options, qcow2, "ivgen-alg", e->ivgen_name, error) &&
           luks_option(options, qcow2, "ivgen-hash-alg", e->ivgen_hash, error);
}

/* What <target> says as options of the format. */
static bool image_options(const struct volume_def *vol, const char *key, Options *options,
                          GError **error)
{
    g_autoptr(GError) inner = NULL;
    bool ok = true;
    bool qcow2 = !strcmp(image_format_of(vol->format), "qcow2");
    g_autofree char *size = g_strdup_printf("%" PRId64, vol->capacity);
    g_autofree char *cluster = g_strdup_printf("%" PRId64, vol->cluster_size);
    ok = options_set(options, "size", size, &inner) &&
         (!key || luks_options(vol->encryption, qcow2, key, options, &inner)) &&
         (!vol->compat || options_set(options, "compat", vol->compat, &inner)) &&
         (!vol->lazy_refcounts || options_set(options, "lazy_refcounts", "on", &inner)) &&
         (!vol->extended_l2 || options_set(options, "extended_l2", "on", &inner)) &&
         (!vol->nocow || options_set(options, "nocow", "on", &inner)) &&
         (vol->cluster_size == XML_ABSENT || options_set(options, "cluster_size", cluster, &inner));
    if (!ok) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "format %s: %s", vol->format, inner->message);
    }
    return ok;
}

static const struct option_desc file_options[] = {
    {"size", "size", "", NULL},
    {"nocow", "bool (on/off)", "", NULL},
    {NULL},
};

/* The format of a backing volume that its maker did not name. */
static bool find_backing(struct volume_def *vol, GError **error)
{
    g_autoptr(GError) inner = NULL;
    struct chain_open how = {
        .name = vol->backing_path,
        .format = vol->backing_format ? image_format_of(vol->backing_format) : NULL,
        .flags = OPEN_READ_ONLY | OPEN_NO_IO | OPEN_UNTRUSTED | OPEN_NO_BACKING | OPEN_SHARE};
    struct node *node =
        vol->backing_path && vol->backing_path[0] == '/' ? chain_open(&how, &inner) : NULL;
    if (!node) {
        libvirt_error(error, ERR_SYSTEM, "inaccessible backing store volume %s%s%s",
                      vol->backing_path ? vol->backing_path : "", inner ? ": " : "",
                      inner ? inner->message : "");
        return false;
    }
    if (!vol->backing_format) {
        set_text(&vol->backing_format, node->format->name);
    }
    if (vol->capacity == XML_ABSENT) {
        vol->capacity = (int64_t)node->size;
    }
    chain_close(node);
    return true;
}

static bool make_image_with(struct volume_def *vol, unsigned flags, const char *key, GError **error)
{
    const char *name = image_format_of(vol->format);
    const struct image_format *format =
        format_find(key && !strcmp(name, "raw") ? "luks" : name, NULL);
    if (!format->tools || !format->tools->create) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "volumes of format %s cannot be made",
                      vol->format);
        return false;
    }
    g_autoptr(Options) options = options_new(format->tools->create_options, file_options);
    if (!image_options(vol, key, options, error)) {
        return false;
    }
    g_autoptr(GError) inner = NULL;
    struct chain_create how = {
        .name = vol->path,
        .format = format->name,
        .size = (uint64_t)vol->capacity,
        .backing_name = vol->has_backing ? vol->backing_path : NULL,
        .backing_format = vol->has_backing ? image_format_of(vol->backing_format) : NULL,
        .options = options,
        .preallocation = flags & CREATE_PREALLOCATE ? PREALLOC_METADATA : PREALLOC_OFF,
    };
    if (!chain_create(&how, &inner)) {
        libvirt_error(error, ERR_SYSTEM, "cannot create volume '%s': %s", vol->path,
                      inner->message);
        return false;
    }
    return true;
}

static bool make_image(struct volume_def *vol, unsigned flags, GError **error)
{
    char *key = vol->encryption ? passphrase_take(vol->encryption, vol->path, error) : NULL;
    bool ok = (key || !vol->encryption) && make_image_with(vol, flags, key, error);
    passphrase_drop(key);
    return ok;
}

static bool make(struct volume_def *vol, unsigned flags, GError **error)
{
    if (vol->type == 1 + VOLUME_DIR) {
        if (mkdir(vol->path, VOLUME_MODE | 0100) < 0) {
            libvirt_error(error, ERR_SYSTEM, "cannot create path '%s': %s", vol->path,
                          g_strerror(errno));
            return false;
        }
        return true;
    }
    bool raw = !strcmp(image_format_of(vol->format), "raw") && !vol->encryption;
    if (raw && vol->has_backing) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "backing storage not supported for raw volumes");
        return false;
    }
    if (raw && (flags & CREATE_PREALLOCATE)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "metadata preallocation is not supported for raw volumes");
        return false;
    }
    if (vol->has_backing && !find_backing(vol, error)) {
        return false;
    }
    if (vol->capacity == XML_ABSENT) {
        libvirt_error(error, ERR_XML, "missing capacity element");
        return false;
    }
    return raw ? make_raw(vol, error) : make_image(vol, flags, error);
}

bool files_vol_create(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                      unsigned flags, GError **error)
{
    struct stat st;
    if (lstat(vol->path, &st) == 0) {
        libvirt_error(error, ERR_OPERATION_INVALID, "volume target path '%s' already exists",
                      vol->path);
        return false;
    }
    if (flags & CREATE_REFLINK) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "reflink copies are not supported");
        return false;
    }
    if (from && vol->type == 1 + VOLUME_DIR) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "cannot copy from volume to a directory volume");
        return false;
    }
    if (from && (vol->capacity == XML_ABSENT || vol->capacity < from->capacity)) {
        vol->capacity = from->capacity;
    }
    if (!make(vol, flags, error)) {
        return false;
    }
    bool ok = (!from || bytes_copy(from, vol, !vol->has_backing, error)) &&
              bytes_set_permissions(vol->path, vol->permissions, VOLUME_MODE, error) &&
              files_vol_refresh(def, vol, error);
    if (!ok) {
        remove(vol->path);
    }
    return ok;
}

bool files_vol_delete(struct pool_def *def, const struct volume_def *vol, GError **error)
{
    (void)def;
    bool directory = vol->type == 1 + VOLUME_DIR;
    if ((directory ? rmdir(vol->path) : unlink(vol->path)) < 0 && errno != ENOENT) {
        libvirt_error(error, ERR_SYSTEM,
                      directory ? "cannot remove directory '%s': %s"
                                : "cannot unlink file '%s': %s",
                      vol->path, g_strerror(errno));
        return false;
    }
    return true;
}

static bool resize_raw(const struct volume_def *vol, uint64_t size, bool allocate, GError **error)
{
    struct stat st;
    autofd int fd = open(vol->path, O_RDWR | O_CLOEXEC);
    int result = fd < 0 || fstat(fd, &st) < 0 ? errno : 0;
    if (!result && allocate && size > (uint64_t)st.st_size) {
        result = posix_fallocate(fd, st.st_size, (off_t)size - st.st_size);
        if (result && ftruncate(fd, st.st_size) < 0) {
            result = errno;
        }
    } else if (!result && ftruncate(fd, (off_t)size) < 0) {
        result = errno;
    }
    if (result) {
        libvirt_error(error, ERR_SYSTEM, "Failed to truncate file '%s': %s", vol->path,
                      g_strerror(result));
    }
    return !result;
}

bool files_vol_resize(struct pool_def *def, struct volume_def *vol, uint64_t size, unsigned flags,
                      GError **error)
{
    const char *format = image_format_of(vol->format);
    if (vol->type == 1 + VOLUME_DIR) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "cannot resize volume '%s' of format dir",
                      vol->name);
        return false;
    }
    if (!strcmp(format, "raw") && !vol->encryption) {
        return resize_raw(vol, size, flags & RESIZE_ALLOCATE, error) &&
               files_vol_refresh(def, vol, error);
    }
    g_autoptr(GError) inner = NULL;
    struct node *node = bytes_open(vol, OPEN_UNTRUSTED | OPEN_NO_BACKING, error);
    bool ok = false;
    if (!node) {
        return false;
    }
    if (!node->format->tools || !node->format->tools->resize) {
        g_set_error(&inner, LODGE_ERROR, ENOTSUP, "format %s cannot be resized", format);
    } else {
        ok = node->format->tools->resize(node, (size + BLOCK - 1) / BLOCK * BLOCK,
                                         flags & RESIZE_ALLOCATE ? PREALLOC_FALLOC : PREALLOC_OFF,
                                         &inner);
        int result = ok ? chain_flush(node) : 0;
        if (result) {
            ok = false;
            error_set_errno(&inner, -result, "could not write");
        }
    }
    chain_close(node);
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_FAILED, "cannot resize volume '%s': %s", vol->name,
                      inner->message);
    }
    return ok && files_vol_refresh(def, vol, error);
}
