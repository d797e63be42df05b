/* SPDX-License-Identifier: GPL-2.0-or-later */

/* passphrase: values of libvirt's secrets as secrets of the image library, which go by an id. */
#include "base/keyval.h"
#include "host/image/secret.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/secrets.h"
#include "manage/error.h"
#include "manage/model/volume.h"

bool secret_publish(const char *id, GBytes *value, GError **error)
{
    gsize n;
    g_autoptr(GError) inner = NULL;
    const guchar *bytes = g_bytes_get_data(value, &n);
    g_autofree char *text = g_base64_encode(bytes, n);
    g_autoptr(KeyVal) kv = keyval_new();
    keyval_set(kv, "id", id);
    keyval_set(kv, "format", "base64");
    keyval_set(kv, "data", text);
    secret_remove(id);
    if (!secret_add(kv, &inner)) {
        libvirt_error(error, ERR_INTERNAL, "%s", inner->message);
        return false;
    }
    return true;
}

GBytes *encryption_value(const struct volume_encryption *e, const char *path, GError **error)
{
    const struct volume_secret *s = xml_count(e->secrets) ? e->secrets->pdata[0] : NULL;
    if (xml_count(e->secrets) > 1) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "at most one <secret> of <encryption>");
        return NULL;
    }
    return secret_value(s ? s->uuid : NULL, SECRET_USAGE_VOLUME, s && s->usage ? s->usage : path,
                        error);
}

char *passphrase_take(const struct volume_encryption *e, const char *path, GError **error)
{
    static int serial;
    g_autofree char *id = g_strdup_printf("passphrase-%d", g_atomic_int_add(&serial, 1));
    daemon_lock();
    GBytes *value = encryption_value(e, path, error);
    daemon_unlock();
    bool ok = value && secret_publish(id, value, error);
    if (value) {
        g_bytes_unref(value);
    }
    return ok ? g_steal_pointer(&id) : NULL;
}

void passphrase_drop(char *id)
{
    if (id) {
        secret_remove(id);
        g_free(id);
    }
}
