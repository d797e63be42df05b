/* SPDX-License-Identifier: GPL-2.0-or-later */

/* machine_disk: disks that are volumes of pools, on servers, or encrypted. */
#include "base/json.h"
#include "host/image/secret.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/secrets.h"
#include "manage/daemon/settings.h"
#include "manage/daemon/storage.h"

#include <inttypes.h>
#include <string.h>

#define PASSWORD "password-secret" /* the option that takes the id of a password */

/* ---- volumes of pools ---- */

bool disk_resolve(struct domain_disk *disk, GError **error)
{
    struct disk_source *s = disk->source;
    if (!s || !s->pool) {
        return true;
    }
    g_clear_pointer(&s->path, g_free);
    g_clear_pointer(&s->access, g_free);
    const struct volume_def *vol = storage_volume(s->pool, s->volume ? s->volume : "", error);
    if (!vol) {
        return false;
    }
    if (vol->access && !g_strcmp0(s->mode, "host")) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "volume '%s' has no device of this host: mode='host' of disk '%s' is not "
                      "supported",
                      s->volume, disk->target);
        return false;
    }
    if (vol->type == 1 + VOLUME_DIR) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "volume '%s' is a directory, no disk",
                      s->volume);
        return false;
    }
    if (vol->access) {
        s->access = g_strdup(vol->access);
    } else {
        s->path = g_strdup(vol->path);
    }
    return true;
}

bool disk_has_medium(const struct domain_disk *disk)
{
    const struct disk_source *s = disk->source;
    return s && (disk_path(disk) || s->protocol || s->access);
}

/* ---- servers ---- */

static const struct disk_auth *auth_of(const struct domain_disk *disk)
{
    return disk->source && disk->source->auth ? disk->source->auth : disk->auth;
}

static char *secret_id(const struct domain_disk *disk, const char *what)
{
    g_autofree char *node = disk_node_name(disk);
    return g_strdup_printf("%s-%s", node ? node : disk->target, what);
}

static const char *host_name(const struct disk_host *host)
{
    return host && host->name ? host->name : "localhost";
}

static char *host_port(const struct disk_host *host, int64_t fallback)
{
    return g_strdup_printf("%" PRId64, host && host->port != XML_ABSENT ? host->port : fallback);
}

static json_t *nbd_file(const struct disk_source *s, const struct disk_host *host, GError **error)
{
    const char *name = s->name ? s->name : "";
    g_autofree char *port = host_port(host, 10809);
    (void)error;
    return host && host->socket
               ? json_pack("{s:s, s:{s:s, s:s}, s:s}", "driver", "nbd", "server", "type", "unix",
                           "path", host->socket, "export", name)
               : json_pack("{s:s, s:{s:s, s:s, s:s}, s:s}", "driver", "nbd", "server", "type",
                           "inet", "host", host_name(host), "port", port, "export", name);
}

static json_t *url_file(const struct disk_source *s, const struct disk_host *host, GError **error)
{
    const char *name = s->name ? s->name : "";
    bool said = host && host->port != XML_ABSENT;
    g_autofree char *port = host_port(host, 0);
    g_autofree char *url =
        g_strdup_printf("%s://%s%s%s%s%s", s->protocol, host_name(host), said ? ":" : "",
                        said ? port : "", name[0] == '/' ? "" : "/", name);
    (void)error;
    return json_pack("{s:s, s:s}", "driver", s->protocol, "url", url);
}

json_t *disk_tls(const struct domain_disk *disk)
{
    if (!disk->source || disk->source->tls != TRI_YES) {
        return NULL;
    }
    g_autofree char *id = secret_id(disk, "tls");
    return json_pack("{s:s, s:s, s:s, s:s, s:b}", "qom-type", "tls-creds-x509", "id", id, "dir",
                     setting("nbd", "tls_folder"), "endpoint", "client", "verify-peer", 1);
}

static bool encrypt(const struct domain_disk *disk, json_t *file, GError **error)
{
    const struct disk_source *s = disk->source;
    if (s->tls_hostname) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "tlsHostname of disk '%s' is not supported: a certificate is checked against "
                      "the host",
                      disk->target);
        return false;
    }
    if (s->tls != TRI_YES) {
        return true;
    }
    if (strcmp(s->protocol, "nbd") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "TLS of disk protocol '%s' is not supported",
                      s->protocol);
        return false;
    }
    g_autofree char *id = secret_id(disk, "tls");
    json_object_set_new(file, "tls-creds", json_string(id));
    return true;
}

/* "TARGET/LUN", or the target alone: its unit 0. */
static json_t *iscsi_file(const struct disk_source *s, const struct disk_host *host, GError **error)
{
    const char *name = s->name ? s->name : "", *slash = strrchr(name, '/');
    char *end = NULL;
    uint64_t lun = slash ? g_ascii_strtoull(slash + 1, &end, 10) : 0;
    if (!*name || (slash && (end == slash + 1 || *end)) || lun > UINT16_MAX) {
        libvirt_error(error, ERR_XML, "'%s' is no name of a target and its unit", name);
        return NULL;
    }
    g_autofree char *target = slash ? g_strndup(name, (size_t)(slash - name)) : g_strdup(name);
    g_autofree char *port = host_port(host, 3260);
    bool six = strchr(host_name(host), ':');
    json_t *o = json_pack("{s:s, s:s, s:o, s:s, s:I}", "driver", "iscsi", "transport", "tcp",
                          "portal", json_sprintf(six ? "[%s]:%s" : "%s:%s", host_name(host), port),
                          "target", target, "lun", (json_int_t)lun);
    if (s->initiator) {
        json_object_set_new(o, "initiator-name", json_string(s->initiator));
    }
    return o;
}

static json_t *rbd_file(const struct disk_source *s, const struct disk_host *host, GError **error)
{
    const char *name = s->name ? s->name : "", *slash = strchr(name, '/');
    if (!slash || slash == name || !slash[1]) {
        libvirt_error(error, ERR_XML, "'%s' is no name of a pool and its image", name);
        return NULL;
    }
    g_autofree char *pool = g_strndup(name, (size_t)(slash - name));
    json_t *o = json_pack("{s:s, s:s, s:s, s:[]}", "driver", "rbd", "pool", pool, "image",
                          slash + 1, "server");
    json_t *servers = json_object_get(o, "server");
    (void)host;
    for (unsigned i = 0; i < xml_count(s->hosts); i++) {
        g_autofree char *port = host_port(s->hosts->pdata[i], 6789);
        json_array_append_new(
            servers, json_pack("{s:s, s:s}", "host", host_name(s->hosts->pdata[i]), "port", port));
    }
    return o;
}

static const struct {
    const char *protocol;
    json_t *(*file)(const struct disk_source *s, const struct disk_host *host, GError **error);
    enum secret_usage auth;
} protocols[] = {
    {"nbd", nbd_file, SECRET_USAGE_NONE},   {"http", url_file, SECRET_USAGE_NONE},
    {"https", url_file, SECRET_USAGE_NONE}, {"ftp", url_file, SECRET_USAGE_NONE},
    {"ftps", url_file, SECRET_USAGE_NONE},  {"iscsi", iscsi_file, SECRET_USAGE_ISCSI},
    {"rbd", rbd_file, SECRET_USAGE_CEPH},
};

/* The row of @disk's protocol; -1 with an error. */
static int protocol_of(const struct domain_disk *disk, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        if (!strcmp(protocols[i].protocol, disk->source->protocol)) {
            if (auth_of(disk) && !protocols[i].auth) {
                libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                              "<auth> of disk protocol '%s' is not supported",
                              disk->source->protocol);
                return -1;
            }
            return (int)i;
        }
    }
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "disk protocol '%s' is not supported",
                  disk->source->protocol);
    return -1;
}

json_t *disk_network_file(const struct domain_disk *disk, GError **error)
{
    const struct disk_source *s = disk->source;
    if (s->access) {
        json_t *o = json_parse(s->access, strlen(s->access), error);
        if (json_object_get(o, PASSWORD)) {
            g_autofree char *id = secret_id(disk, "password");
            json_object_set_new(o, PASSWORD, json_string(id));
        }
        return o;
    }
    const struct disk_host *host = xml_count(s->hosts) ? s->hosts->pdata[0] : NULL;
    if (host && host->transport == TRANSPORT_TLS) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "transport 'tls' of disk '%s' is not supported by lodged yet", disk->target);
        return NULL;
    }
    int row = protocol_of(disk, error);
    json_t *o = row < 0 ? NULL : protocols[row].file(s, host, error);
    if (o && !encrypt(disk, o, error)) {
        json_decref(o);
        return NULL;
    }
    if (o && auth_of(disk)) {
        g_autofree char *id = secret_id(disk, "password");
        json_object_set_new(o, "user", json_string(auth_of(disk)->user));
        json_object_set_new(o, PASSWORD, json_string(id));
    }
    return o;
}

/* ---- encryption ---- */

static const struct volume_encryption *encryption_of(const struct domain_disk *disk)
{
    return disk->source && disk->source->encryption ? disk->source->encryption : disk->encryption;
}

bool disk_decrypt(const struct domain_disk *disk, json_t *node, GError **error)
{
    const struct volume_encryption *e = encryption_of(disk);
    if (!e) {
        return true;
    }
    bool qcow2 = !g_strcmp0(disk->format, "qcow2"), luks = !g_strcmp0(disk->format, "luks");
    if (!node || (!qcow2 && !luks && strcmp(disk->format, "raw"))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<encryption> of a %s of format %s is not supported",
                      node ? "disk" : "removable medium", disk->format);
        return false;
    }
    if (!volume_encryption_check(e, error)) {
        return false;
    }
    g_autofree char *id = secret_id(disk, "passphrase");
    if (qcow2) {
        json_object_set_new(node, "encrypt",
                            json_pack("{s:s, s:s}", "format", "luks", "key-secret", id));
    } else {
        json_object_set_new(node, "driver", json_string("luks"));
        json_object_set_new(node, "key-secret", json_string(id));
    }
    return true;
}

/* ---- secrets ---- */

/* What a pool's volume is opened with goes by an id of the pool in this daemon. */
static bool pool_secret(const struct domain_disk *disk, disk_secret_fn *give, void *owner,
                        GError **error)
{
    const char *access = disk->source->access;
    g_autoptr(json_t) o = access ? json_parse(access, strlen(access), error) : NULL;
    const char *known = json_string_value(json_object_get(o, PASSWORD));
    size_t n;
    uint8_t *value = known ? secret_get(known, &n, error) : NULL;
    if (!value) {
        return !known;
    }
    g_autoptr(GBytes) bytes = g_bytes_new(value, n);
    g_autofree char *id = secret_id(disk, "password");
    secret_free(value, n);
    return give(owner, id, bytes, error);
}

/* Of a protocol that has one. */
static bool login_secret(const struct domain_disk *disk, disk_secret_fn *give, void *owner,
                         GError **error)
{
    const struct disk_auth *auth = auth_of(disk);
    int row = auth && disk->source->protocol ? protocol_of(disk, error) : -1;
    if (row < 0) {
        return !auth || !disk->source->protocol;
    }
    enum secret_usage usage = protocols[row].auth;
    g_autoptr(GBytes) value = secret_value(auth->secret_uuid, usage, auth->secret_usage, error);
    if (!value) {
        return false;
    }
    g_autofree char *id = secret_id(disk, "password");
    if (usage != SECRET_USAGE_CEPH) {
        return give(owner, id, value, error);
    }
    gsize n;
    const guchar *bytes = g_bytes_get_data(value, &n);
    g_autofree char *text = g_base64_encode(bytes, n); /* as Ceph's tools write a key */
    g_autoptr(GBytes) key = g_bytes_new(text, strlen(text));
    return give(owner, id, key, error);
}

bool disk_secrets(const struct domain_disk *disk, disk_secret_fn *give, void *owner, GError **error)
{
    const struct volume_encryption *e = encryption_of(disk);
    if (!disk_has_medium(disk)) {
        return true;
    }
    if (!pool_secret(disk, give, owner, error) || !login_secret(disk, give, owner, error)) {
        return false;
    }
    g_autoptr(GBytes) value = e ? encryption_value(e, disk_path(disk), error) : NULL;
    g_autofree char *id = secret_id(disk, "passphrase");
    return !e || (value && give(owner, id, value, error));
}
