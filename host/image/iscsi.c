/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * iscsi: logical units of iSCSI targets, by libiscsi, which does one thing at a time.
 *
 * Names: iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN
 *
 * Spec: RFC 7143, "Internet Small Computer System Interface (iSCSI) Protocol"; T10 SBC-3,
 * "SCSI Block Commands - 3".
 */
#include "base/json.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <string.h>

enum {
    TIMEOUT_SECONDS = 30,
    RECONNECTS = 3,
    PIECE = 1 << 20,
    BLOCK_MAX = 64 << 10,
    LBA_STATUS_BYTES = 8 + 16 * 32,
    PAGE_PROVISIONING = 0xb2,
    NO_SPACE_ASCQ = 0x2707, /* "space allocation failed write protect" */
};

struct unit {
    char *portal, *target, *user, *password, *initiator, *digest;
    uint64_t lun_number, timeout;
    int lun;
    GMutex lock; /* of the rest */
    struct iscsi_context *iscsi;
    uint32_t block; /* bytes; a power of two */
    uint64_t blocks;
    bool thin, zero_unmapped; /* LBPME, LBPRZ */
    bool can_unmap, can_write_same;
    bool write_protected;
};

/* ---- names and options ---- */

static bool take_name(struct unit *u, const char *name, GError **error)
{
    struct iscsi_url *url = iscsi_parse_full_url(NULL, name);
    if (!url) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s: want iscsi://[USER[%%PASSWORD]@]HOST[:PORT]/TARGET/LUN", name);
        return false;
    }
    u->portal = g_strdup(url->portal);
    u->target = g_strdup(url->target);
    u->lun_number = (uint64_t)url->lun;
    if (*url->user) {
        u->user = g_strdup(url->user);
        u->password = g_strdup(url->passwd);
    }
    iscsi_destroy_url(url);
    return true;
}

static bool take_options(struct unit *u, const json_t *o, GError **error)
{
    static const char *const known[] = {"filename",      "transport", "portal", "target",
                                        "user",          "password",  "lun",    "initiator-name",
                                        "header-digest", "timeout",   NULL};
    static const char *const digests[] = {"crc32c", "none", "crc32c-none", "none-crc32c", NULL};
    const char *name = json_text(o, "filename"), *transport = json_text(o, "transport");
    u->timeout = TIMEOUT_SECONDS;
    if (!remote_options(o, known, error) || !json_u64(o, "lun", &u->lun_number, error) ||
        !json_u64(o, "timeout", &u->timeout, error)) {
        return false;
    }
    u->initiator = g_strdup(json_text(o, "initiator-name"));
    u->digest = g_strdup(json_text(o, "header-digest"));
    if (u->digest && !g_strv_contains(digests, u->digest)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid header-digest setting : %s", u->digest);
        return false;
    }
    if (transport && strcmp(transport, "tcp")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unknown transport: %s", transport);
        return false;
    }
    if (name) {
        return take_name(u, name, error);
    }
    u->portal = g_strdup(json_text(o, "portal"));
    u->target = g_strdup(json_text(o, "target"));
    u->user = g_strdup(json_text(o, "user"));
    u->password = g_strdup(json_text(o, "password"));
    if (!u->portal || !u->target || u->lun_number > UINT16_MAX || u->timeout > INT32_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "iscsi: Need all of transport, portal and target, and a LUN below 65536");
        return false;
    }
    return true;
}

/* ---- SCSI ---- */

/* Frees @task; 0 or a negative errno value. */
static int finish(struct scsi_task *task)
{
    if (!task) {
        return -EIO;
    }
    int status = task->status, key = (int)task->sense.key, ascq = task->sense.ascq;
    scsi_free_scsi_task(task);
    if (status == SCSI_STATUS_GOOD) {
        return 0;
    }
    if (status == SCSI_STATUS_TIMEOUT) {
        return -ETIMEDOUT;
    }
    if (status == SCSI_STATUS_CHECK_CONDITION) {
        switch (key) {
        case SCSI_SENSE_DATA_PROTECTION:
            return ascq == NO_SPACE_ASCQ ? -ENOSPC : -EACCES;
        case SCSI_SENSE_ILLEGAL_REQUEST:
            return -ENOTSUP;
        default:
            return -EIO;
        }
    }
    return -EIO;
}

/* A unit that was reset says so once (UNIT ATTENTION), and that is all it does. */
static bool attention(const struct scsi_task *task)
{
    return task && task->status == SCSI_STATUS_CHECK_CONDITION &&
           task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

static bool read_capacity(struct unit *u, GError **error)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(u->iscsi, u->lun);
    for (unsigned i = 0; attention(task) && i < 8; i++) {
        scsi_free_scsi_task(task);
        task = iscsi_readcapacity16_sync(u->iscsi, u->lun);
    }
    struct scsi_readcapacity16 *rc =
        task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    bool good = rc && rc->block_length >= 512 && rc->block_length <= BLOCK_MAX &&
                !(rc->block_length & (rc->block_length - 1)) &&
                rc->returned_lba < INT64_MAX / rc->block_length;
    if (good) {
        u->block = rc->block_length;
        u->blocks = rc->returned_lba + 1;
        u->thin = rc->lbpme;
        u->zero_unmapped = rc->lbprz;
    } else {
        g_set_error(error, LODGE_ERROR, EIO, "iSCSI: failed to read the unit's capacity: %s",
                    iscsi_get_error(u->iscsi));
    }
    if (task) {
        scsi_free_scsi_task(task);
    }
    return good;
}

/* What the unit can do besides reading and writing; if it does not say, nothing. */
static void read_features(struct unit *u)
{
    struct scsi_task *task = iscsi_inquiry_sync(u->iscsi, u->lun, 1, PAGE_PROVISIONING, 255);
    struct scsi_inquiry_logical_block_provisioning *lbp =
        task && task->status == SCSI_STATUS_GOOD && u->thin ? scsi_datain_unmarshall(task) : NULL;
    if (lbp) {
        u->can_unmap = lbp->lbpu;
        u->can_write_same = lbp->lbpws;
    }
    if (task) {
        scsi_free_scsi_task(task);
    }
    task = iscsi_modesense6_sync(u->iscsi, u->lun, 1, SCSI_MODESENSE_PC_CURRENT,
                                 SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, 255);
    struct scsi_mode_sense *ms =
        task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    u->write_protected = ms && (ms->device_specific_parameter & 0x80);
    if (task) {
        scsi_free_scsi_task(task);
    }
}

static void set_digest(struct unit *u)
{
    enum iscsi_header_digest d = ISCSI_HEADER_DIGEST_NONE_CRC32C;
    if (u->digest && !strcmp(u->digest, "crc32c")) {
        d = ISCSI_HEADER_DIGEST_CRC32C;
    } else if (u->digest && !strcmp(u->digest, "none")) {
        d = ISCSI_HEADER_DIGEST_NONE;
    } else if (u->digest && !strcmp(u->digest, "crc32c-none")) {
        d = ISCSI_HEADER_DIGEST_CRC32C_NONE;
    }
    iscsi_set_header_digest(u->iscsi, d);
}

static bool make_context(struct unit *u, enum iscsi_session_type type, GError **error)
{
    u->iscsi = iscsi_create_context(u->initiator ? u->initiator : "iqn.2008-11.org.linux-kvm");
    if (!u->iscsi) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "iSCSI: Failed to create iSCSI context.");
        return false;
    }
    set_digest(u);
    iscsi_set_session_type(u->iscsi, type);
    iscsi_set_timeout(u->iscsi, (int)u->timeout);
    iscsi_set_reconnect_max_retries(u->iscsi, RECONNECTS);
    if ((u->target && iscsi_set_targetname(u->iscsi, u->target)) ||
        (u->user &&
         iscsi_set_initiator_username_pwd(u->iscsi, u->user, u->password ? u->password : ""))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "iSCSI: Failed to set target name or password.");
        return false;
    }
    return true;
}

static bool connect_unit(struct unit *u, GError **error)
{
    u->lun = (int)u->lun_number;
    if (!make_context(u, ISCSI_SESSION_NORMAL, error)) {
        return false;
    }
    if (iscsi_full_connect_sync(u->iscsi, u->portal, u->lun)) {
        g_set_error(error, LODGE_ERROR, EIO, "iSCSI: Failed to connect to LUN : %s",
                    iscsi_get_error(u->iscsi));
        return false;
    }
    return true;
}

/* ---- data ---- */

/* Whole blocks, at most PIECE bytes. */
static int blocks_once(struct unit *u, uint64_t at, uint8_t *to, const uint8_t *from, size_t n)
{
    struct scsi_iovec iov = {to ? to : (uint8_t *)from, n};
    uint64_t lba = at / u->block;
    for (unsigned i = 0;; i++) {
        struct scsi_task *task =
            to ? iscsi_read16_iov_sync(u->iscsi, u->lun, lba, (uint32_t)n, (int)u->block, 0, 0, 0,
                                       0, 0, &iov, 1)
               : iscsi_write16_iov_sync(u->iscsi, u->lun, lba, NULL, (uint32_t)n, (int)u->block, 0,
                                        0, 0, 0, 0, &iov, 1);
        if (!attention(task) || i == 8) {
            bool short_read = to && task && task->residual_status == SCSI_RESIDUAL_UNDERFLOW;
            int r = finish(task);
            return r ? r : short_read ? -EIO : 0;
        }
        scsi_free_scsi_task(task);
    }
}

/* A part of one block, through a buffer. */
static int part(struct unit *u, uint64_t at, uint8_t *to, const uint8_t *from, size_t n)
{
    uint64_t start = at & ~(uint64_t)(u->block - 1);
    g_autofree uint8_t *block = g_try_malloc(u->block);
    int r = block ? blocks_once(u, start, block, NULL, u->block) : -ENOMEM;
    if (r) {
        return r;
    }
    if (to) {
        memcpy(to, block + (at - start), n);
        return 0;
    }
    memcpy(block + (at - start), from, n);
    return blocks_once(u, start, NULL, block, u->block);
}

static int transfer(struct unit *u, uint64_t at, uint8_t *to, const uint8_t *from, size_t n)
{
    int r = 0;
    g_mutex_lock(&u->lock);
    while (n && !r) {
        size_t into = at & (u->block - 1), whole = n & ~(size_t)(u->block - 1), now;
        if (into || !whole) {
            now = MIN(n, u->block - into);
            r = part(u, at, to, from, now);
        } else {
            now = MIN(whole, PIECE);
            r = blocks_once(u, at, to, from, now);
        }
        at += now;
        to = to ? to + now : NULL;
        from = from ? from + now : NULL;
        n -= now;
    }
    g_mutex_unlock(&u->lock);
    return r;
}

static int unit_read(struct file *f, uint64_t at, void *to, size_t n)
{
    return transfer(f->priv, at, to, NULL, n);
}

static int unit_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    return at + n > f->size ? -ENOSPC : transfer(f->priv, at, NULL, from, n);
}

static bool whole_blocks(const struct unit *u, uint64_t at, uint64_t n)
{
    return !((at | n) & (u->block - 1));
}

static int unit_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    struct unit *u = f->priv;
    if (!u->can_write_same || !whole_blocks(u, at, n)) {
        return -ENOTSUP;
    }
    g_autofree uint8_t *block = g_malloc0(u->block);
    int r = 0;
    g_mutex_lock(&u->lock);
    for (uint64_t now; n && !r; at += now, n -= now) {
        now = MIN(n, (uint64_t)u->block * UINT16_MAX);
        r = finish(iscsi_writesame16_sync(u->iscsi, u->lun, at / u->block, block, u->block,
                                          (uint32_t)(now / u->block), 0, may_unmap, 0, 0));
    }
    g_mutex_unlock(&u->lock);
    return r;
}

static int unit_discard(struct file *f, uint64_t at, uint64_t n)
{
    struct unit *u = f->priv;
    if (!u->can_unmap || !whole_blocks(u, at, n)) {
        return 0;
    }
    int r = 0;
    g_mutex_lock(&u->lock);
    for (uint64_t now; n && !r; at += now, n -= now) {
        now = MIN(n, (uint64_t)u->block * UINT16_MAX);
        struct unmap_list list = {at / u->block, (uint32_t)(now / u->block)};
        r = finish(iscsi_unmap_sync(u->iscsi, u->lun, 0, 0, &list, 1));
    }
    g_mutex_unlock(&u->lock);
    return r == -ENOTSUP ? 0 : r;
}

static int unit_flush(struct file *f)
{
    struct unit *u = f->priv;
    g_mutex_lock(&u->lock);
    int r = finish(iscsi_synchronizecache16_sync(u->iscsi, u->lun, 0, 0, 0, 0));
    g_mutex_unlock(&u->lock);
    return r == -ENOTSUP ? 0 : r; /* no cache to flush */
}

/* It is as large as it is. */
static int unit_resize(struct file *f, uint64_t size)
{
    return size > f->size ? -ENOSPC : -ENOTSUP;
}

/* Unmapped blocks are holes only if they read as zero. */
static int unit_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    struct unit *u = f->priv;
    *data = true;
    *length = n;
    if (!u->thin || !u->zero_unmapped) {
        return 0;
    }
    g_mutex_lock(&u->lock);
    struct scsi_task *task =
        iscsi_get_lba_status_sync(u->iscsi, u->lun, at / u->block, LBA_STATUS_BYTES);
    struct scsi_get_lba_status *s =
        task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
    if (s && s->num_descriptors && s->descriptors[0].lba == at / u->block &&
        s->descriptors[0].num_blocks) {
        uint64_t bytes = (uint64_t)s->descriptors[0].num_blocks * u->block - at % u->block;
        *data = s->descriptors[0].provisioning == SCSI_PROVISIONING_TYPE_MAPPED;
        *length = MIN(n, bytes);
    }
    if (task) {
        scsi_free_scsi_task(task);
    }
    g_mutex_unlock(&u->lock);
    return 0;
}

/* ---- life ---- */

static bool check_writable(const struct unit *u, bool read_only, GError **error)
{
    if (u->write_protected && !read_only) {
        g_set_error(error, LODGE_ERROR, EROFS, "iSCSI: LUN is write protected");
        return false;
    }
    return true;
}

static struct unit *unit_new(void)
{
    struct unit *u = g_new0(struct unit, 1);
    g_mutex_init(&u->lock);
    return u;
}

static bool unit_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct unit *u = unit_new();
    f->priv = u;
    f->read_only = flags & OPEN_READ_ONLY;
    if (!take_options(u, options, error) || !connect_unit(u, error) || !read_capacity(u, error)) {
        return false;
    }
    read_features(u);
    f->size = u->blocks * u->block;
    if (!f->name) {
        f->name = g_strdup_printf("iscsi://%s/%s/%d", u->portal, u->target, u->lun);
    }
    return check_writable(u, f->read_only, error);
}

static void unit_free(struct unit *u)
{
    if (u->iscsi) {
        if (iscsi_is_logged_in(u->iscsi)) {
            iscsi_logout_sync(u->iscsi);
        }
        iscsi_destroy_context(u->iscsi);
    }
    g_mutex_clear(&u->lock);
    g_free(u->portal);
    g_free(u->target);
    g_free(u->user);
    g_free(u->password);
    g_free(u->initiator);
    g_free(u->digest);
    g_free(u);
}

static void unit_close(struct file *f)
{
    if (f->priv) {
        unit_free(f->priv);
        f->priv = NULL;
    }
}

static bool unit_reopen(struct file *f, bool read_only, GError **error)
{
    f->read_only = read_only;
    return check_writable(f->priv, read_only, error);
}

/* What an image is made in must be there already and is as large as it is. */
static bool unit_create(const json_t *options, uint64_t size, GError **error)
{
    struct file f = {0};
    bool ok = unit_open(&f, options, 0, error);
    if (ok && f.size < size) {
        g_set_error(error, LODGE_ERROR, ENOSPC,
                    "the LUN has %" PRIu64 " bytes, fewer than the %" PRIu64 " wanted", f.size,
                    size);
        ok = false;
    }
    unit_close(&f);
    g_free(f.name);
    return ok;
}

/* ---- the whole target ---- */

/* Disks only; what cannot be read, a unit without medium, is left out. */
static void list_units(struct unit *u, const struct scsi_reportluns_list *list, json_t *found)
{
    for (unsigned i = 0; i < list->num && json_array_size(found) < SERVER_LIST_MAX; i++) {
        u->lun = list->luns[i];
        struct scsi_task *task = iscsi_inquiry_sync(u->iscsi, u->lun, 0, 0, 64);
        struct scsi_inquiry_standard *inquiry =
            task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
        bool disk =
            inquiry && inquiry->device_type == SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS;
        if (task) {
            scsi_free_scsi_task(task);
        }
        if (disk && read_capacity(u, NULL)) {
            g_autofree char *name = g_strdup_printf("%d", u->lun);
            json_array_append_new(found, json_pack("{s:s, s:I}", "name", name, "size",
                                                   (json_int_t)(u->blocks * u->block)));
        }
    }
}

static bool target_list(const json_t *options, json_t *found, GError **error)
{
    enum { ALL_UNITS = 0, REPORT_BYTES = 8 + 8 * 1024 };
    struct unit *u = unit_new();
    bool ok = take_options(u, options, error) && connect_unit(u, error);
    if (ok) {
        struct scsi_task *task = iscsi_reportluns_sync(u->iscsi, ALL_UNITS, REPORT_BYTES);
        struct scsi_reportluns_list *list =
            task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
        ok = list;
        if (list) {
            list_units(u, list, found);
        } else {
            g_set_error(error, LODGE_ERROR, EIO, "iSCSI: the target does not list its units: %s",
                        iscsi_get_error(u->iscsi));
        }
        if (task) {
            scsi_free_scsi_task(task);
        }
    }
    unit_free(u);
    return ok;
}

static bool portal_targets(const json_t *options, json_t *found, GError **error)
{
    struct unit *u = unit_new();
    g_autoptr(json_t) any = json_copy((json_t *)options);
    json_object_set_new(any, "target", json_string("")); /* none, in a session of discovery */
    bool ok = take_options(u, any, error);
    g_clear_pointer(&u->target, g_free);
    ok = ok && make_context(u, ISCSI_SESSION_DISCOVERY, error);
    if (ok && (iscsi_connect_sync(u->iscsi, u->portal) || iscsi_login_sync(u->iscsi))) {
        g_set_error(error, LODGE_ERROR, EIO, "iSCSI: Failed to connect to %s: %s", u->portal,
                    iscsi_get_error(u->iscsi));
        ok = false;
    }
    struct iscsi_discovery_address *all = ok ? iscsi_discovery_sync(u->iscsi) : NULL;
    for (struct iscsi_discovery_address *a = all; a && json_array_size(found) < SERVER_LIST_MAX;
         a = a->next) {
        json_array_append_new(found, json_string(a->target_name));
    }
    if (all) {
        iscsi_free_discovery_data(u->iscsi, all);
    }
    unit_free(u);
    return ok;
}

static const struct protocol_server server = {.list = target_list, .targets = portal_targets};

const struct protocol lodge_protocol = {
    .name = "iscsi",
    .open = unit_open,
    .close = unit_close,
    .read = unit_read,
    .write = unit_write,
    .zero = unit_zero,
    .discard = unit_discard,
    .flush = unit_flush,
    .resize = unit_resize,
    .extent = unit_extent,
    .create = unit_create,
    .reopen = unit_reopen,
    .server = &server,
};
