/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/error.h"

#include <gio/gio.h>

ERROR_DOMAIN(lodge_error)

void error_set_errno(GError **error, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error(error, LODGE_ERROR, code, "%s: %s", text, g_strerror(code));
}

/* GLib goes from errno to its own codes but not back. */
static const struct {
    GIOErrorEnum io;
    int code;
} rows[] = {
    {G_IO_ERROR_NOT_FOUND, ENOENT},
    {G_IO_ERROR_EXISTS, EEXIST},
    {G_IO_ERROR_NOT_DIRECTORY, ENOTDIR},
    {G_IO_ERROR_INVALID_ARGUMENT, EINVAL},
    {G_IO_ERROR_PERMISSION_DENIED, EACCES},
    {G_IO_ERROR_NOT_SUPPORTED, ENOTSUP},
    {G_IO_ERROR_NO_SPACE, ENOSPC},
    {G_IO_ERROR_BUSY, EBUSY},
    {G_IO_ERROR_TIMED_OUT, ETIMEDOUT},
    {G_IO_ERROR_CANCELLED, ECANCELED},
    {G_IO_ERROR_CONNECTION_REFUSED, ECONNREFUSED},
    {G_IO_ERROR_CONNECTION_CLOSED, ECONNRESET},
};

/* The same of files. */
static const struct {
    GFileError file;
    int code;
} file_rows[] = {
    {G_FILE_ERROR_NOENT, ENOENT}, {G_FILE_ERROR_EXIST, EEXIST},
    {G_FILE_ERROR_ISDIR, EISDIR}, {G_FILE_ERROR_NOTDIR, ENOTDIR},
    {G_FILE_ERROR_ACCES, EACCES}, {G_FILE_ERROR_PERM, EPERM},
    {G_FILE_ERROR_LOOP, ELOOP},   {G_FILE_ERROR_NXIO, ENXIO},
    {G_FILE_ERROR_NODEV, ENODEV}, {G_FILE_ERROR_ROFS, EROFS},
    {G_FILE_ERROR_NOSPC, ENOSPC}, {G_FILE_ERROR_NOMEM, ENOMEM},
    {G_FILE_ERROR_MFILE, EMFILE}, {G_FILE_ERROR_NFILE, ENFILE},
    {G_FILE_ERROR_INVAL, EINVAL}, {G_FILE_ERROR_NAMETOOLONG, ENAMETOOLONG},
};

int error_errno(const GError *error)
{
    if (error->domain == LODGE_ERROR) {
        return error->code;
    }
    for (size_t i = 0; error->domain == G_FILE_ERROR && i < G_N_ELEMENTS(file_rows); i++) {
        if (error->code == (int)file_rows[i].file) {
            return file_rows[i].code;
        }
    }
    /* By name: calling into GIO would have every program load it. */
    bool io = error->domain == g_quark_try_string("g-io-error-quark");
    for (size_t i = 0; io && i < G_N_ELEMENTS(rows); i++) {
        if (error->code == (int)rows[i].io) {
            return rows[i].code;
        }
    }
    return EIO;
}
