/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * iscsi, iscsi-direct, nbd and rbd: volumes are what a server offers.  It is spoken to by the
 * same libraries that machines reach such disks by, not by the kernel: neither a session of
 * iscsid nor a node in /dev is needed, and a volume's path is a name that lodge-img opens.
 */
#include "base/json.h"
#include "host/image/chain.h"
#include "host/image/protocol.h"
#include "manage/daemon/secrets.h"
#include "manage/daemon/storage.h"
#include "manage/error.h"

#include <inttypes.h>
#include <string.h>

static const struct remote {
    int type; /* enum pool_type */
    const char *driver;
    const char *item; /* the option that names one volume */
    int64_t port;
    const char *auth; /* <auth type=...>; NULL: none */
    enum secret_usage usage;
} remotes[] = {
    {POOL_ISCSI, "iscsi", "lun", 3260, "chap", SECRET_USAGE_ISCSI},
    {POOL_ISCSI_DIRECT, "iscsi", "lun", 3260, "chap", SECRET_USAGE_ISCSI},
    {POOL_NBD, "nbd", "export", 10809, NULL, SECRET_USAGE_NONE},
    {POOL_RBD, "rbd", "image", 6789, "ceph", SECRET_USAGE_CEPH},
};

#define UNIT      "unit:0:0:"
#define NO_EXPORT "default" /* the volume's name of an export without one */

static const struct remote *remote_of(const struct pool_def *def)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(remotes); i++) {
        if (remotes[i].type == def->type) {
            return &remotes[i];
        }
    }
    return &remotes[0]; /* not reached: each kind below has its row */
}

/* ---- names ---- */

/* "host:port", an address of IPv6 in brackets. */
static char *host_port(const struct remote *r, const struct pool_host *host)
{
    bool six = strchr(host->name, ':');
    return g_strdup_printf("%s%s%s:%" PRId64, six ? "[" : "", host->name, six ? "]" : "",
                           host->port == XML_ABSENT ? r->port : host->port);
}

/* What the server calls it, of the volume's name. */
static const char *item_of(const struct remote *r, const char *name)
{
    if (!strcmp(r->driver, "iscsi")) {
        return g_str_has_prefix(name, UNIT) ? name + strlen(UNIT) : name;
    }
    return !strcmp(r->driver, "nbd") && !strcmp(name, NO_EXPORT) ? "" : name;
}

static char *volume_name(const struct remote *r, const char *item)
{
    return g_strconcat(!strcmp(r->driver, "iscsi") ? UNIT : "", *item ? item : NO_EXPORT, NULL);
}

/* A name that the image library opens; for rbd libvirt's, which Ceph's own tools know. */
static char *volume_path(const struct remote *r, const struct pool_def *def, const char *item)
{
    if (!strcmp(r->driver, "rbd")) {
        return g_strdup_printf("%s/%s", def->source_name, item);
    }
    g_autofree char *where = host_port(r, def->hosts->pdata[0]);
    if (!strcmp(r->driver, "nbd")) {
        g_autofree char *escaped = g_uri_escape_string(item, "/", FALSE);
        return g_strdup_printf("nbd://%s/%s", where, escaped);
    }
    const struct pool_device *target = def->devices->pdata[0];
    return g_strdup_printf("iscsi://%s/%s/%s", where, target->path, item);
}

/* ---- the server ---- */

/*
 * User and password that <auth> means.  The password goes by an id too, which is what volumes are
 * opened with later.
 */
static bool add_auth(const struct remote *r, const struct pool_def *def, json_t *o, GError **error)
{
    if (!def->auth_type) {
        return true;
    }
    if (g_strcmp0(def->auth_type, r->auth) || !def->auth_user) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s pool does not support auth type '%s'",
                      pool_type_names[def->type], def->auth_type);
        return false;
    }
    daemon_lock();
    GBytes *value = secret_value(def->secret_uuid, r->usage, def->secret_usage, error);
    daemon_unlock();
    if (!value) {
        return false;
    }
    gsize n;
    const char *bytes = g_bytes_get_data(value, &n);
    bool ceph = !strcmp(r->driver, "rbd"); /* the secret's value is the key, decoded */
    g_autofree char *text =
        ceph ? g_base64_encode((const guchar *)bytes, n) : g_strndup(bytes ? bytes : "", n);
    g_autofree char *id = g_strconcat("pool-", def->uuid, NULL);
    g_autoptr(GBytes) password = g_bytes_new(text, strlen(text));
    json_object_set_new(o, "user", json_string(def->auth_user));
    json_object_set_new(o, "password", json_string(text));
    g_bytes_unref(value);
    return !def->uuid || secret_publish(id, password, error);
}

/* Ceph's monitors, of which there may be several. */
static json_t *monitors(const struct remote *r, const struct pool_def *def)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < xml_count(def->hosts); i++) {
        const struct pool_host *host = def->hosts->pdata[i];
        g_autofree char *port =
            g_strdup_printf("%" PRId64, host->port == XML_ABSENT ? r->port : host->port);
        json_array_append_new(all, json_pack("{s:s, s:s}", "host", host->name, "port", port));
    }
    return all;
}

/* Options that reach the server; NULL with an error. */
static json_t *server_options(const struct remote *r, const struct pool_def *def, GError **error)
{
    const struct pool_host *host = def->hosts->pdata[0];
    json_t *o = json_pack("{s:s}", "driver", r->driver);
    if (!strcmp(r->driver, "rbd")) {
        json_object_set_new(o, "pool", json_string(def->source_name));
        json_object_set_new(o, "server", monitors(r, def));
    } else if (!strcmp(r->driver, "nbd")) {
        g_autofree char *port =
            g_strdup_printf("%" PRId64, host->port == XML_ABSENT ? r->port : host->port);
        json_object_set_new(
            o, "server",
            json_pack("{s:s, s:s, s:s}", "type", "inet", "host", host->name, "port", port));
    } else {
        g_autofree char *portal = host_port(r, host);
        json_object_set_new(o, "portal", json_string(portal));
        if (xml_count(def->devices)) {
            const struct pool_device *target = def->devices->pdata[0];
            json_object_set_new(o, "target", json_string(target->path));
        }
        if (def->initiator) {
            json_object_set_new(o, "initiator-name", json_string(def->initiator));
        }
    }
    if (!add_auth(r, def, o, error)) {
        g_clear_pointer(&o, json_decref);
    }
    return o;
}

/* @server's options and what names volume @name on it. */
static json_t *item_options(const struct remote *r, const json_t *server, const char *name)
{
    json_t *o = json_copy((json_t *)server);
    const char *item = item_of(r, name);
    bool number = !strcmp(r->item, "lun");
    json_object_set_new(o, r->item,
                        number ? json_integer(g_ascii_strtoll(item, NULL, 10)) : json_string(item));
    return o;
}

/* Sets how @vol is opened. */
static void set_access(const struct remote *r, const struct pool_def *def, const json_t *server,
                       struct volume_def *vol)
{
    g_autoptr(json_t) o = item_options(r, server, vol->name);
    if (json_object_get(o, "password")) {
        json_object_del(o, "password");
        json_object_set_new(o, "password-secret", json_sprintf("pool-%s", def->uuid));
    }
    g_free(vol->access);
    vol->access = json_dumps(o, JSON_COMPACT); /* GLib's free() is libc's */
}

static const struct protocol *protocol_of(const struct remote *r, GError **error)
{
    g_autoptr(GError) inner = NULL;
    const struct protocol *p = protocol_find(r->driver, &inner);
    if (!p || !p->server) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s",
                      p ? "this protocol lists nothing" : inner->message);
        return NULL;
    }
    return p;
}

static bool fail(GError **error, const struct pool_def *def, const GError *why)
{
    libvirt_error(error, ERR_INTERNAL, "storage pool '%s': %s", def->name ? def->name : "",
                  why->message);
    return false;
}

/* ---- pools ---- */

static struct volume_def *volume_of(const struct remote *r, const struct pool_def *def,
                                    const json_t *server, const json_t *found)
{
    const char *item = json_string_value(json_object_get(found, "name"));
    if (!item || !g_utf8_validate(item, -1, NULL) || strlen(item) > 1024) {
        return NULL;
    }
    g_autofree char *name = volume_name(r, item);
    struct volume_def *vol = volume_def_new(name);
    vol->type = 1 + VOLUME_NETWORK;
    vol->path = volume_path(r, def, item);
    vol->key = g_strdup(vol->path);
    vol->format = g_strdup("raw");
    vol->capacity = vol->allocation = json_integer_value(json_object_get(found, "size"));
    set_access(r, def, server, vol);
    return vol;
}

static bool refresh(struct pool_def *def, struct pool_content *out, GError **error)
{
    const struct remote *r = remote_of(def);
    g_autoptr(GError) inner = NULL;
    g_autoptr(json_t) server = server_options(r, def, error), found = json_array();
    const struct protocol *p = server ? protocol_of(r, error) : NULL;
    if (!p) {
        return false;
    }
    struct server_room room = {0};
    if (!p->server->list(server, found, &inner) ||
        (p->server->room && !p->server->room(server, &room, &inner))) {
        return fail(error, def, inner);
    }
    size_t i;
    const json_t *one;
    json_array_foreach(found, i, one)
    {
        struct volume_def *vol = volume_of(r, def, server, one);
        if (vol) {
            out->capacity += (uint64_t)vol->capacity;
            g_ptr_array_add(out->volumes, vol);
        }
    }
    out->allocation = out->capacity;
    if (p->server->room) {
        out->capacity = room.all;
        out->allocation = room.taken;
        out->available = room.free;
    }
    return true;
}

/* The targets of a portal. */
static bool find(const struct pool_def *spec, int type, GPtrArray *found, GError **error)
{
    g_autoptr(GError) inner = NULL;
    if (!xml_count(spec->hosts)) {
        libvirt_error(error, ERR_INVALID_ARG, "hostname must be specified for %s sources",
                      pool_type_names[type]);
        return false;
    }
    const struct pool_host *host = spec->hosts->pdata[0];
    const struct remote *r = &remotes[0];
    g_autoptr(json_t) server = server_options(r, spec, error), names = json_array();
    const struct protocol *p = server ? protocol_of(r, error) : NULL;
    if (!p) {
        return false;
    }
    if (!p->server->targets(server, names, &inner)) {
        return fail(error, spec, inner);
    }
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        struct pool_def *def = pool_def_new(POOL_NONE);
        pool_add_host(def, host->name);
        ((struct pool_host *)def->hosts->pdata[0])->port = host->port;
        pool_add_device(def, json_string_value(name));
        g_ptr_array_add(found, def);
    }
    return true;
}

static bool find_iscsi(const struct pool_def *spec, GPtrArray *found, GError **error)
{
    return find(spec, POOL_ISCSI, found, error);
}

static bool find_direct(const struct pool_def *spec, GPtrArray *found, GError **error)
{
    return find(spec, POOL_ISCSI_DIRECT, found, error);
}

/* ---- volumes ---- */

static bool vol_refresh(struct pool_def *def, struct volume_def *vol, GError **error)
{
    (void)def;
    struct node *node = bytes_open(vol, OPEN_READ_ONLY, error);
    if (!node) {
        return false;
    }
    vol->capacity = vol->allocation = (int64_t)node->size;
    chain_close(node);
    return true;
}

static bool vol_plan(struct pool_def *def, struct volume_def *vol, GError **error)
{
    if (vol->has_backing || vol->encryption || (vol->format && strcmp(vol->format, "raw"))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "volumes of %s pools have no %s",
                      pool_type_names[def->type],
                      vol->has_backing  ? "<backingStore>"
                      : vol->encryption ? "<encryption>"
                                        : "format but raw");
        return false;
    }
    vol->type = 1 + VOLUME_NETWORK;
    g_free(vol->path);
    vol->path = volume_path(remote_of(def), def, vol->name);
    g_free(vol->key);
    vol->key = g_strdup(vol->path);
    return true;
}

static bool vol_create(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                       unsigned flags, GError **error)
{
    g_autoptr(GError) inner = NULL;
    const struct remote *r = remote_of(def);
    g_autoptr(json_t) server = server_options(r, def, error);
    if (flags) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s volumes are not preallocated",
                      pool_type_names[def->type]);
        return false;
    }
    if (!server) {
        return false;
    }
    set_access(r, def, server, vol);
    g_autoptr(json_t) options = item_options(r, server, vol->name);
    if (!file_make(NULL, options, (uint64_t)vol->capacity, &inner)) {
        return fail(error, def, inner);
    }
    bool ok = (!from || bytes_copy(from, vol, true, error)) && vol_refresh(def, vol, error);
    if (!ok) {
        const struct protocol *p = protocol_of(r, NULL);
        p->server->remove(options, NULL);
    }
    return ok;
}

static bool vol_delete(struct pool_def *def, const struct volume_def *vol, GError **error)
{
    g_autoptr(GError) inner = NULL;
    const struct remote *r = remote_of(def);
    g_autoptr(json_t) server = server_options(r, def, error);
    const struct protocol *p = server ? protocol_of(r, error) : NULL;
    g_autoptr(json_t) options = p ? item_options(r, server, vol->name) : NULL;
    return p && (p->server->remove(options, &inner) || fail(error, def, inner));
}

static bool vol_resize(struct pool_def *def, struct volume_def *vol, uint64_t size, unsigned flags,
                       GError **error)
{
    g_autoptr(GError) inner = NULL;
    (void)flags;
    struct node *node = bytes_open(vol, 0, error);
    bool ok = node && (chain_resize(node, size, PREALLOC_OFF, &inner) || fail(error, def, inner));
    if (node) {
        chain_close(node);
    }
    return ok && vol_refresh(def, vol, error);
}

/* What others made can be looked at, filled and wiped; only Ceph lets its clients make some. */
#define OF_OTHERS .refresh = refresh, .vol_refresh = vol_refresh, .vol_wipe = bytes_wipe

const struct storage_kind storage_kind_iscsi = {
    .type = POOL_ISCSI,
    .about = "logical units of an iSCSI target",
    .rules = {.needs = NEEDS_HOST | NEEDS_DEVICE},
    .find = find_iscsi,
    OF_OTHERS,
};

const struct storage_kind storage_kind_iscsi_direct = {
    .type = POOL_ISCSI_DIRECT,
    .about = "logical units of an iSCSI target",
    .rules = {.needs = NEEDS_HOST | NEEDS_DEVICE | MAY_INITIATOR},
    .find = find_direct,
    OF_OTHERS,
};

const struct storage_kind storage_kind_nbd = {
    .type = POOL_NBD,
    .about = "exports of an NBD server",
    .rules = {.needs = NEEDS_HOST},
    OF_OTHERS,
};

const struct storage_kind storage_kind_rbd = {
    .type = POOL_RBD,
    .about = "images of a Ceph pool",
    .rules = {.needs = NEEDS_HOST | NEEDS_NAME},
    .vol_plan = vol_plan,
    .vol_create = vol_create,
    .vol_delete = vol_delete,
    .vol_resize = vol_resize,
    OF_OTHERS,
};
