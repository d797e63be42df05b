/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looking into a machine: its disks' bytes and errors, its memory, its screen by a given socket. */
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"

#include "base/util.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* --- bytes --- */

static bool peek(int fd, uint64_t offset, unsigned size, rpc_blob *ret, const char *what,
                 GError **error)
{
    if (size > RPC_BLOB_MAX || offset > (uint64_t)INT64_MAX - size) {
        libvirt_error(error, ERR_INVALID_ARG, "size %u at %" PRIu64 " is too much at a time", size,
                      offset);
        return false;
    }
    ret->data.data_val = g_try_malloc((size_t)size + 1);
    ssize_t n = ret->data.data_val ? pread(fd, ret->data.data_val, size, (off_t)offset) : -1;
    if (n != (ssize_t)size) {
        libvirt_error(error, ERR_SYSTEM, "%s: failed to seek or read: %s", what,
                      n < 0 ? g_strerror(errno) : "it ends before");
        return false;
    }
    ret->data.data_len = size;
    return true;
}

struct file_peek {
    char *path;
    uint64_t offset;
    unsigned size;
    rpc_blob blob;
    GError *error;
    bool ok;
};

static void file_peek_free(void *data)
{
    struct file_peek *p = data;
    g_free(p->blob.data.data_val);
    g_clear_error(&p->error);
    g_free(p->path);
    g_free(p);
}

static void file_peek(void *data)
{
    struct file_peek *p = data;
    autofd int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        libvirt_error(&p->error, ERR_SYSTEM, "cannot open %s: %s", p->path, g_strerror(errno));
        return;
    }
    p->ok = peek(fd, p->offset, p->size, &p->blob, p->path, &p->error);
}

/* As libvirt: of the file as it is, whatever its format, and of the domain's own disks only. */
bool verb_domain_block_peek(struct call *call, const rpc_block_peek_args *args, rpc_blob *ret,
                            GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def = d ? domain_def_of(d, true, error) : NULL;
    struct domain_disk *disk = def ? domain_find_disk(def, args->path) : NULL;
    const char *path = disk ? disk_path(disk) : NULL;
    if (!path) {
        if (def) {
            libvirt_error(error, ERR_INVALID_ARG, "invalid disk or path '%s'", args->path);
        }
        return false;
    }
    struct file_peek *p = g_new(struct file_peek, 1);
    *p = (struct file_peek){.path = g_strdup(path), .offset = args->offset, .size = args->size};
    if (!file_act(path, file_peek, p, file_peek_free, error)) {
        return false;
    }
    bool ok = p->ok;
    if (ok) {
        *ret = p->blob;
        p->blob = (rpc_blob){0};
    } else {
        g_propagate_error(error, g_steal_pointer(&p->error));
    }
    file_peek_free(p);
    return ok;
}

enum { PEEK_VIRTUAL = 1, PEEK_PHYSICAL = 2 };

bool verb_domain_memory_peek(struct call *call, const rpc_memory_peek_args *args, rpc_blob *ret,
                             GError **error)
{
    (void)call;
    if (args->flags != PEEK_VIRTUAL && args->flags != PEEK_PHYSICAL) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL");
        return false;
    }
    if (args->size > RPC_BLOB_MAX || args->offset > INT64_MAX) {
        libvirt_error(error, ERR_INVALID_ARG, "size %u is too much at a time", args->size);
        return false;
    }
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    g_autofree char *path = g_build_filename(m->folder, "own", "peek", NULL);
    bool ok = qmp_do(m->qmp, error, args->flags == PEEK_VIRTUAL ? "memsave" : "pmemsave",
                     "{s:I, s:I, s:s}", "val", (json_int_t)args->offset, "size",
                     (json_int_t)args->size, "filename", path);
    /* The folder belongs to the machine, who might have put anything there. */
    autofd int fd = ok ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    if (ok && fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "%s: %s", path, g_strerror(errno));
        ok = false;
    }
    ok = ok && peek(fd, 0, args->size, ret, "memory of the domain", error);
    g_unlink(path);
    return ok;
}

/* --- disks that have failed --- */

enum { DISK_ERROR_UNSPEC = 1, DISK_ERROR_NO_SPACE = 2 };

static const json_t *block_of(const json_t *all, const struct domain_disk *disk)
{
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        const char *qdev = json_string_value(json_object_get(one, "qdev"));
        const char *base = qdev && strrchr(qdev, '/') ? strrchr(qdev, '/') + 1 : qdev;
        if (base && disk->alias && strcmp(base, disk->alias) == 0) {
            return one;
        }
    }
    return NULL;
}

bool verb_domain_get_disk_errors(struct call *call, const rpc_domain_int_flags *args,
                                 rpc_disk_errors *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) all = m ? qmp_run(m->qmp, "query-block", NULL, QMP_TIMEOUT_MS, error) : NULL;
    if (!all) {
        return false;
    }
    unsigned disks = xml_count(m->def->disks);
    if (args->value <= 0) {
        ret->count = (int)disks;
        return true;
    }
    unsigned room = MIN((unsigned)args->value, 256);
    ret->errors.errors_val = g_new0(rpc_disk_error, room);
    for (unsigned i = 0; i < disks && ret->errors.errors_len < room; i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        const json_t *block = block_of(all, disk);
        const char *status = json_string_value(json_object_get(block, "io-status"));
        if (status && strcmp(status, "ok") != 0) {
            ret->errors.errors_val[ret->errors.errors_len++] = (rpc_disk_error){
                .disk = g_strdup(disk->target),
                .error = strcmp(status, "nospace") == 0 ? DISK_ERROR_NO_SPACE : DISK_ERROR_UNSPEC};
        }
    }
    ret->count = (int)ret->errors.errors_len;
    return true;
}
