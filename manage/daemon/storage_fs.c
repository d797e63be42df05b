/* SPDX-License-Identifier: GPL-2.0-or-later */

/* fs and netfs: a directory as well, but a file system is mounted there first. */
#include "manage/daemon/run.h"
#include "manage/daemon/storage_kind.h"
#include "manage/error.h"

#include <mntent.h>
#include <stdio.h>
#include <string.h>

enum { MOUNT_SECONDS = 20, MAKE_SECONDS = 3600 };

static const char *const fs_formats[] = {"auto",    "ext2", "ext3",  "ext4", "ufs",
                                         "iso9660", "udf",  "gfs",   "gfs2", "vfat",
                                         "hfs+",    "xfs",  "ocfs2", "vmfs", NULL};
static const char *const netfs_formats[] = {"auto", "nfs", "glusterfs", "cifs", NULL};

/* What mount(8) takes as the source. */
static char *source_of(const struct pool_def *def)
{
    if (def->type == POOL_FS) {
        return g_strdup(((struct pool_device *)def->devices->pdata[0])->path);
    }
    const struct pool_host *host = def->hosts->pdata[0];
    if (!g_strcmp0(def->format, "cifs")) {
        return g_strdup_printf("//%s/%s", host->name, def->dir);
    }
    return g_strdup_printf("%s:%s", host->name, def->dir);
}

/* What is mounted at the target; NULL: nothing. */
static char *mounted(const struct pool_def *def)
{
    FILE *table = setmntent("/proc/self/mounts", "r");
    char buffer[8192], *source = NULL;
    struct mntent entry;
    while (table && getmntent_r(table, &entry, buffer, sizeof(buffer))) {
        if (!strcmp(entry.mnt_dir, def->path)) {
            g_free(source);
            source = g_strdup(entry.mnt_fsname);
        }
    }
    if (table) {
        endmntent(table);
    }
    return source;
}

static bool running(const struct pool_def *def)
{
    g_autofree char *source = mounted(def);
    return source;
}

/*
 * With the version of NFS that <protocol> names. A server that is not there is said at once: a pool
 * that waits can be started again.
 */
static char *mount_options(const struct pool_def *def, const char *format, GError **error)
{
    bool nfs = def->type == POOL_NETFS && (!strcmp(format, "nfs") || !strcmp(format, "auto"));
    const char *version = def->protocol_version;
    if (version && (!*version || version[strspn(version, "0123456789.")])) {
        libvirt_error(error, ERR_XML, "storage pool protocol ver '%s' is no version", version);
        return NULL;
    }
    return g_strdup_printf("nodev,nosuid,noexec%s%s%s", nfs ? ",retry=0" : "",
                           version ? ",nfsvers=" : "", version ? version : "");
}

static bool start(struct pool_def *def, GError **error)
{
    g_autofree char *source = source_of(def), *there = mounted(def);
    if (there && !strcmp(there, source)) {
        return true;
    }
    if (there) {
        libvirt_error(error, ERR_OPERATION_INVALID, "'%s' is mounted at '%s' already", there,
                      def->path);
        return false;
    }
    if (!g_file_test(def->path, G_FILE_TEST_IS_DIR)) {
        libvirt_error(error, ERR_SYSTEM, "mount point '%s' does not exist", def->path);
        return false;
    }
    if (source[0] == '-') {
        libvirt_error(error, ERR_XML, "'%s' is no name of a source", source);
        return false;
    }
    const char *format = def->format ? def->format : "auto";
    g_autofree char *options = mount_options(def, format, error);
    if (!options) {
        return false;
    }
    const char *const argv[] = {"mount", "-t", format, "-o", options, source, def->path, NULL};
    const char *const any[] = {"mount", "-o", options, source, def->path, NULL};
    bool guess = def->type == POOL_NETFS && !strcmp(format, "auto");
    return run_program(guess ? any : argv, NULL, MOUNT_SECONDS, NULL, NULL, error);
}

static bool stop(struct pool_def *def, GError **error)
{
    const char *const argv[] = {"umount", def->path, NULL};
    return !running(def) || run_program(argv, NULL, MOUNT_SECONDS, NULL, NULL, error);
}

/* A file system that is there is not overwritten unless that is said. */
static bool make_fs(struct pool_def *def, unsigned flags, GError **error)
{
    const char *device = ((struct pool_device *)def->devices->pdata[0])->path;
    const char *format = !strcmp(def->format, "auto") ? "ext4" : def->format;
    if (flags & BUILD_NO_OVERWRITE) {
        g_autofree char *found = NULL;
        int code;
        const char *const probe[] = {"blkid", "-p", "-o",   "value", "-s",
                                     "TYPE",  "--", device, NULL};
        if (!run_program(probe, NULL, MOUNT_SECONDS, &found, &code, error)) {
            return false;
        }
        if (found && *g_strstrip(found)) {
            libvirt_error(error, ERR_OPERATION_INVALID, "Device '%s' already formatted using '%s'",
                          device, found);
            return false;
        }
    }
    const char *force = !strcmp(format, "xfs")            ? "-f"
                        : g_str_has_prefix(format, "ext") ? "-F"
                                                          : NULL;
    const char *const argv[] = {"mkfs", "-t", format, force ? force : device, force ? device : NULL,
                                NULL};
    return run_program(argv, NULL, MAKE_SECONDS, NULL, NULL, error);
}

static bool build(struct pool_def *def, unsigned flags, GError **error)
{
    if ((flags & BUILD_OVERWRITE) && (flags & BUILD_NO_OVERWRITE)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "flags 'overwrite' and 'no-overwrite' are mutually exclusive");
        return false;
    }
    if (!files_build(def, error)) {
        return false;
    }
    return def->type == POOL_NETFS || !(flags & (BUILD_OVERWRITE | BUILD_NO_OVERWRITE)) ||
           make_fs(def, flags, error);
}

/* The directories that an NFS server exports. */
static bool find(const struct pool_def *spec, GPtrArray *found, GError **error)
{
    g_autofree char *text = NULL;
    if (!xml_count(spec->hosts)) {
        libvirt_error(error, ERR_INVALID_ARG, "hostname must be specified for netfs sources");
        return false;
    }
    const char *host = ((struct pool_host *)spec->hosts->pdata[0])->name;
    const char *const argv[] = {"showmount", "--no-headers", "--exports", "--", host, NULL};
    if (!run_program(argv, NULL, MOUNT_SECONDS, &text, NULL, error)) {
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", 4096);
    for (char **line = lines; *line; line++) {
        size_t n = strcspn(*line, " \t");
        if (**line == '/') {
            struct pool_def *def = pool_def_new(POOL_NONE);
            pool_add_host(def, host);
            def->dir = g_strndup(*line, n);
            def->format = g_strdup("nfs");
            g_ptr_array_add(found, def);
        }
    }
    return true;
}

#define FILES                                                                                      \
    .volume_formats = file_formats, .build = build, .start = start, .running = running,            \
    .refresh = files_refresh, .stop = stop, .remove = files_remove, .vol_plan = files_vol_plan,    \
    .vol_create = files_vol_create, .vol_refresh = files_vol_refresh,                              \
    .vol_delete = files_vol_delete, .vol_resize = files_vol_resize, .vol_wipe = bytes_wipe

const struct storage_kind storage_kind_fs = {
    .type = POOL_FS,
    .about = "files of a file system on a block device",
    .rules = {.needs = NEEDS_DEVICE | NEEDS_PATH, .formats = fs_formats},
    FILES,
};

const struct storage_kind storage_kind_netfs = {
    .type = POOL_NETFS,
    .about = "files of a file system on a server",
    .rules = {.needs = NEEDS_HOST | NEEDS_DIR | NEEDS_PATH, .formats = netfs_formats},
    .find = find,
    FILES,
};
