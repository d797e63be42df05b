/* SPDX-License-Identifier: GPL-2.0-or-later */

/* storage_bytes: what all volumes with a path have in common, whatever pool they are in. */
#include "base/json.h"
#include "base/util.h"
#include "host/image/chain.h"
#include "manage/daemon/files.h"
#include "manage/daemon/secrets.h"
#include "manage/daemon/storage_kind.h"
#include "manage/error.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

enum { CHUNK = 1 << 20 };

/* ---- what stat() tells ---- */

static char *moment(const struct timespec *t)
{
    return t->tv_nsec ? g_strdup_printf("%" PRId64 ".%09ld", (int64_t)t->tv_sec, t->tv_nsec)
                      : g_strdup_printf("%" PRId64, (int64_t)t->tv_sec);
}

void bytes_look(const struct stat *st, struct permissions **p, struct timestamps **t)
{
    permissions_set(p, st->st_mode, st->st_uid, st->st_gid);
    *t = *t ? *t : timestamps_new();
    g_free((*t)->atime);
    g_free((*t)->mtime);
    g_free((*t)->ctime);
    g_free((*t)->btime);
    (*t)->atime = moment(&st->st_atim);
    (*t)->mtime = moment(&st->st_mtim);
    (*t)->ctime = moment(&st->st_ctim);
    (*t)->btime = g_strdup("0"); /* stat() does not tell */
}

bool bytes_set_permissions(const char *path, const struct permissions *p, mode_t fallback,
                           GError **error)
{
    mode_t mode = permissions_mode(p);
    mode = mode == (mode_t)-1 ? fallback : mode;
    uid_t owner = p && p->owner >= 0 ? (uid_t)p->owner : (uid_t)-1;
    gid_t group = p && p->group >= 0 ? (gid_t)p->group : (gid_t)-1;
    if ((owner != (uid_t)-1 || group != (gid_t)-1) && lchown(path, owner, group) < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot chown '%s' to (%d, %d): %s", path, (int)owner,
                      (int)group, g_strerror(errno));
        return false;
    }
    if (mode != (mode_t)-1 && chmod(path, mode) < 0) { /* after chown(), which clears bits */
        libvirt_error(error, ERR_SYSTEM, "cannot set mode of '%s' to 0%o: %s", path, mode,
                      g_strerror(errno));
        return false;
    }
    return true;
}

bool device_vol_refresh(struct pool_def *def, struct volume_def *vol, GError **error)
{
    uint64_t size = 0;
    struct stat st;
    (void)def;
    autofd int fd = open(vol->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) ||
        ioctl(fd, BLKGETSIZE64, &size) < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot open volume '%s': %s", vol->path,
                      g_strerror(errno));
        return false;
    }
    vol->type = 1 + VOLUME_BLOCK;
    bytes_look(&st, &vol->permissions, &vol->timestamps);
    vol->capacity = vol->allocation = vol->physical = (int64_t)size;
    return true;
}

/* ---- copying ---- */

/* How @vol is opened, @key being the id of its passphrase; NULL: by its path alone. */
static json_t *open_options(const struct volume_def *vol, const char *key)
{
    if (vol->access) {
        json_t *file = json_parse(vol->access, strlen(vol->access), NULL);
        return file ? json_pack("{s:s, s:o}", "driver", "raw", "file", file) : NULL;
    }
    if (!key) {
        return NULL;
    }
    json_t *file = json_pack("{s:s, s:s}", "driver", "file", "filename", vol->path);
    return g_strcmp0(vol->format, "qcow2")
               ? json_pack("{s:s, s:s, s:o}", "driver", "luks", "key-secret", key, "file", file)
               : json_pack("{s:s, s:{s:s, s:s}, s:o}", "driver", "qcow2", "encrypt", "format",
                           "luks", "key-secret", key, "file", file);
}

struct node *bytes_open(const struct volume_def *vol, unsigned flags, GError **error)
{
    g_autoptr(GError) inner = NULL;
    const char *format = vol->type == 1 + VOLUME_BLOCK ? "raw" : image_format_of(vol->format);
    char *key = vol->encryption ? passphrase_take(vol->encryption, vol->path, error) : NULL;
    if (vol->encryption && !key) {
        return NULL;
    }
    g_autoptr(json_t) options = open_options(vol, key);
    struct chain_open how = {.name = options ? NULL : vol->path,
                             .format = options ? NULL : format,
                             .options = options,
                             .flags = vol->access ? flags & ~(unsigned)OPEN_UNTRUSTED : flags};
    struct node *node = chain_open(&how, &inner);
    passphrase_drop(key);
    if (!node) {
        libvirt_error(error, ERR_SYSTEM, "cannot open volume '%s': %s", vol->path, inner->message);
    }
    return node;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static int copy_data(struct node *from, struct node *to, uint64_t at, uint64_t n, bool to_is_zero,
                     uint8_t *buffer)
{
    int result = 0;
    for (uint64_t done = 0; !result && done < n;) {
        size_t part = (size_t)MIN(n - done, CHUNK);
        file_goes_on();
        result = chain_read(from, at + done, buffer, part);
        if (!result && !(to_is_zero && all_zero(buffer, part))) {
            result = chain_write(to, at + done, buffer, part);
        }
        done += part;
    }
    return result;
}

static int copy_all(struct node *from, struct node *to, bool to_is_zero)
{
    struct chain_status status;
    g_autofree uint8_t *buffer = g_malloc(CHUNK);
    uint64_t size = MIN(from->size, to->size);
    int result = 0;
    for (uint64_t at = 0; !result && at < size; at += status.length) {
        file_goes_on();
        result = chain_status(from, NULL, at, size - at, &status);
        if (!result && !status.zero) {
            result = copy_data(from, to, at, status.length, to_is_zero, buffer);
        } else if (!result && !to_is_zero) {
            result = chain_zero(to, at, status.length, ZERO_UNMAP);
        }
    }
    return result ? result : chain_flush(to);
}

bool bytes_copy(const struct volume_def *from, const struct volume_def *to, bool to_is_zero,
                GError **error)
{
    struct node *source = bytes_open(from, OPEN_READ_ONLY | OPEN_UNTRUSTED | OPEN_SHARE, error);
    struct node *target = source ? bytes_open(to, to_is_zero ? OPEN_NO_BACKING : 0, error) : NULL;
    int result = target ? copy_all(source, target, to_is_zero) : 0;
    if (result) {
        libvirt_error(error, ERR_SYSTEM, "cannot copy volume '%s' to '%s': %s", from->path,
                      to->path, g_strerror(-result));
    }
    if (target) {
        chain_close(target);
    }
    if (source) {
        chain_close(source);
    }
    return target && !result;
}

/* ---- wiping ---- */

enum { WIPE_ZERO = 0, WIPE_RANDOM = 8, WIPE_TRIM = 9, PASS_RANDOM = -1 };

/*
 * Passes by libvirt's numbers of algorithms, each of three bytes that repeat.
 *
 * Spec: P. Gutmann, "Secure Deletion of Data from Magnetic and Solid-State Memory", section
 * "Erasure of Data stored on Magnetic Media".
 */
static const struct {
    const char *name; /* for who reads */
    unsigned n;
    int passes[35];
} wipes[] = {
    {"zero", 1, {0}},
    {"nnsa", 4, {PASS_RANDOM, PASS_RANDOM, 0, 0}},
    {"dod", 4, {0, 0xffffff, PASS_RANDOM, 0}},
    {"bsi",
     9,
     {0xffffff, 0xfefefe, 0xfdfdfd, 0xfbfbfb, 0xf7f7f7, 0xefefef, 0xdfdfdf, 0xbfbfbf, 0x7f7f7f}},
    {"gutmann", 35, {PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, 0x555555,   0xaaaaaa,
                     0x924924,    0x492492,    0x249249,    0x000000,    0x111111,   0x222222,
                     0x333333,    0x444444,    0x555555,    0x666666,    0x777777,   0x888888,
                     0x999999,    0xaaaaaa,    0xbbbbbb,    0xcccccc,    0xdddddd,   0xeeeeee,
                     0xffffff,    0x924924,    0x492492,    0x249249,    0x6db6db,   0xb6db6d,
                     0xdb6db6,    PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM}},
    {"schneier", 7, {0, 0xffffff, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM}},
    {"pfitzner7",
     7,
     {PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM}},
    {"pfitzner33",
     33,
     {PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM,
      PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM,
      PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM,
      PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM,
      PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM, PASS_RANDOM}},
    {"random", 1, {PASS_RANDOM}},
    {"trim"},
};

static void fill(uint8_t *buffer, int pass)
{
    for (size_t i = 0; pass != PASS_RANDOM && i < CHUNK; i++) {
        buffer[i] = (uint8_t)(pass >> (16 - 8 * (i % 3)));
    }
    for (size_t at = 0; pass == PASS_RANDOM && at < CHUNK;) {
        ssize_t n = getrandom(buffer + at, CHUNK - at, 0);
        at += n > 0 ? (size_t)n : 0;
    }
}

static int overwrite(int fd, uint64_t size, int pass)
{
    g_autofree uint8_t *buffer = g_malloc(CHUNK);
    fill(buffer, pass);
    for (uint64_t at = 0; at < size;) {
        if (pass == PASS_RANDOM) {
            fill(buffer, pass);
        }
        file_goes_on();
        ssize_t n = pwrite(fd, buffer, (size_t)MIN(size - at, CHUNK), (off_t)at);
        if (n < 0) {
            return errno;
        }
        at += (uint64_t)n;
    }
    return fdatasync(fd) < 0 ? errno : 0;
}

/* What is no file: through what reaches it. */
static int overwrite_node(struct node *node, int pass)
{
    g_autofree uint8_t *buffer = g_malloc(CHUNK);
    int result = 0;
    fill(buffer, pass);
    for (uint64_t at = 0; !result && at < node->size; at += CHUNK) {
        if (pass == PASS_RANDOM) {
            fill(buffer, pass);
        }
        file_goes_on();
        result = chain_write(node, at, buffer, MIN(node->size - at, CHUNK));
    }
    return result ? result : chain_flush(node);
}

static bool wipe_node(const struct volume_def *vol, unsigned algorithm, GError **error)
{
    struct node *node = bytes_open(vol, 0, error);
    int result = 0;
    if (!node) {
        return false;
    }
    if (algorithm == WIPE_TRIM) {
        result = chain_zero(node, 0, node->size, ZERO_UNMAP);
    }
    for (unsigned i = 0; !result && i < wipes[algorithm].n; i++) {
        result = overwrite_node(node, wipes[algorithm].passes[i]);
    }
    chain_close(node);
    if (result) {
        libvirt_error(error, ERR_SYSTEM, "Failed to wipe storage volume with path '%s': %s",
                      vol->path, g_strerror(-result));
    }
    return !result;
}

static int wipe(int fd, const struct stat *st, uint64_t size, unsigned algorithm)
{
    /* Holes stay holes: there is nothing in them to wipe, and perhaps no space to fill them. */
    bool sparse = S_ISREG(st->st_mode) && (uint64_t)st->st_blocks * 512 < (uint64_t)st->st_size;
    if (algorithm == WIPE_ZERO && sparse) {
        return ftruncate(fd, 0) < 0 || ftruncate(fd, st->st_size) < 0 ? errno : 0;
    }
    if (algorithm == WIPE_TRIM) {
        int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        return fallocate(fd, mode, 0, (off_t)size) < 0 ? errno : 0;
    }
    int result = 0;
    for (unsigned i = 0; !result && i < wipes[algorithm].n; i++) {
        result = overwrite(fd, size, wipes[algorithm].passes[i]);
    }
    return result;
}

bool bytes_wipe(struct pool_def *def, const struct volume_def *vol, unsigned algorithm,
                GError **error)
{
    struct stat st;
    (void)def;
    if (algorithm >= G_N_ELEMENTS(wipes)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "wiping algorithm %u is not supported",
                      algorithm);
        return false;
    }
    if (vol->access) {
        return wipe_node(vol, algorithm, error);
    }
    autofd int fd = open(vol->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    int result = fd < 0 || fstat(fd, &st) < 0 ? errno : 0;
    uint64_t size = 0;
    if (!result && S_ISBLK(st.st_mode)) {
        result = ioctl(fd, BLKGETSIZE64, &size) < 0 ? errno : 0;
    } else if (!result) {
        size = (uint64_t)st.st_size;
    }
    if (!result) {
        result = wipe(fd, &st, size, algorithm);
    }
    if (result) {
        libvirt_error(error, ERR_SYSTEM, "Failed to wipe storage volume with path '%s': %s",
                      vol->path, g_strerror(result));
    }
    return !result;
}
