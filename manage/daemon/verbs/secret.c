/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/secrets.h"
#include "manage/daemon/uuid.h"
#include "manage/daemon/verb.h"


/*
 * Secrets: a definition in etc/secrets/UUID.xml, a value in UUID.base64 that only root may
 * read.  An ephemeral one has neither file.
 */
struct entry {
    struct secret *secret;
    uint8_t uuid[16];
    GBytes *value; /* NULL until set */
};

static GHashTable *entries; /* uuid text -> struct entry */
static bool turn;           /* of who changes them; the lock is given up while the disk writes */

enum { EVENT_DEFINED, EVENT_UNDEFINED };

static void entry_free(void *item)
{
    struct entry *e = item;
    secret_model_free(e->secret);
    g_clear_pointer(&e->value, g_bytes_unref);
    g_free(e);
}

static char *file_of(const char *uuid, const char *end)
{
    g_autofree char *name = g_strconcat(uuid, end, NULL);
    return daemon_path(DAEMON_ETC, "secrets", name, NULL);
}

static struct entry *add(struct secret *s)
{
    struct entry *e = g_new0(struct entry, 1);
    e->secret = s;
    uuid_bytes(s->uuid, e->uuid);
    g_hash_table_replace(entries, s->uuid, e);
    return e;
}

static void load_value(struct entry *e)
{
    g_autofree char *path = file_of(e->secret->uuid, ".base64"), *text = NULL;
    if (g_file_get_contents(path, &text, NULL, NULL)) {
        gsize n;
        guchar *bytes = g_base64_decode(text, &n);
        e->value = g_bytes_new_take(bytes, n);
    }
}

static bool secrets_start(GError **error)
{
    g_autofree char *folder = daemon_path(DAEMON_ETC, "secrets", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    (void)error;
    entries = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL), *text = NULL;
        g_autoptr(GError) why = NULL;
        if (!g_str_has_suffix(name, ".xml")) {
            continue;
        }
        struct secret *s =
            g_file_get_contents(path, &text, NULL, &why) ? secret_model_read(text, &why) : NULL;
        if (s) {
            load_value(add(s));
        } else {
            daemon_log("%s is left out: %s", path, why->message);
        }
    }
    return true;
}

static void secrets_stop(void)
{
    g_clear_pointer(&entries, g_hash_table_unref);
}

const struct daemon_room room_secrets = {"secrets", secrets_start, secrets_stop};

static struct entry *find(const void *uuid, GError **error)
{
    char text[UUID_TEXT];
    uuid_text(uuid, text);
    struct entry *e = g_hash_table_lookup(entries, text);
    if (!e) {
        libvirt_error(error, ERR_NO_SECRET, "no secret with matching uuid '%s'", text);
    }
    return e;
}

static struct entry *find_usage(int usage, const char *id)
{
    GHashTableIter iter;
    struct entry *e;
    g_hash_table_iter_init(&iter, entries);
    while (usage && g_hash_table_iter_next(&iter, NULL, (void **)&e)) {
        if (secret_usage_type(e->secret) == usage && strcmp(secret_usage_id(e->secret), id) == 0) {
            return e;
        }
    }
    return NULL;
}

static rpc_secret name_of(const struct entry *e)
{
    rpc_secret out = {.usage_type = secret_usage_type(e->secret),
                      .usage_id = g_strdup(secret_usage_id(e->secret))};
    memcpy(out.uuid, e->uuid, sizeof(out.uuid));
    return out;
}

static void tell(const struct entry *e, int event)
{
    rpc_event_secret m = {.secret = name_of(e), .event = event};
    event_secret_lifecycle(&m);
    g_free(m.secret.usage_id);
}

const char *secret_uuid_for(enum secret_usage usage, const char *id)
{
    const struct entry *e = find_usage((int)usage, id);
    return e ? e->secret->uuid : NULL;
}

GBytes *secret_value(const char *uuid, enum secret_usage usage, const char *id, GError **error)
{
    struct entry *e = uuid ? g_hash_table_lookup(entries, uuid) : find_usage((int)usage, id);
    if (!e || !e->value) {
        libvirt_error(error, ERR_NO_SECRET,
                      e ? "secret '%s' does not have a value" : "no secret for '%s'",
                      uuid ? uuid : id);
        return NULL;
    }
    return g_bytes_ref(e->value);
}

/* ---- Verbs. ---- */

bool verb_connect_num_of_secrets(struct call *call, const rpc_none *args, rpc_int *ret,
                                 GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = (int)g_hash_table_size(entries);
    return true;
}

bool verb_connect_list_secrets(struct call *call, const rpc_int *args, rpc_names *ret,
                               GError **error)
{
    GHashTableIter iter;
    struct entry *e;
    unsigned n = MIN((unsigned)MAX(args->value, 0), g_hash_table_size(entries));
    (void)call, (void)error;
    ret->names.names_val = g_new0(rpc_string, MAX(n, 1));
    g_hash_table_iter_init(&iter, entries);
    while (ret->names.names_len < n && g_hash_table_iter_next(&iter, NULL, (void **)&e)) {
        ret->names.names_val[ret->names.names_len++] = g_strdup(e->secret->uuid);
    }
    return true;
}

bool verb_connect_list_all_secrets(struct call *call, const rpc_list_args *args, rpc_secrets *ret,
                                   GError **error)
{
    GHashTableIter iter;
    struct entry *e;
    unsigned f = args->flags;
    (void)call, (void)error;
    ret->items.items_val = g_new0(rpc_secret, g_hash_table_size(entries) + 1);
    g_hash_table_iter_init(&iter, entries);
    while (g_hash_table_iter_next(&iter, NULL, (void **)&e)) {
        /* Of each pair of bits: none asks for all, one for those alone. */
        bool brief = e->secret->ephemeral == TRI_YES, private = e->secret->private == TRI_YES;
        if (((f & 3) && !(f & (brief ? 1 : 2))) || ((f & 12) && !(f & (private ? 4 : 8)))) {
            continue;
        }
        if (args->need_results) {
            ret->items.items_val[ret->items.items_len++] = name_of(e);
        }
        ret->count++;
    }
    return true;
}

bool verb_secret_lookup_by_uuid(struct call *call, const rpc_uuid_args *args, rpc_secret_ret *ret,
                                GError **error)
{
    struct entry *e = find(args->uuid, error);
    (void)call;
    if (e) {
        ret->secret = name_of(e);
    }
    return e;
}

bool verb_secret_lookup_by_usage(struct call *call, const rpc_secret_usage_args *args,
                                 rpc_secret_ret *ret, GError **error)
{
    struct entry *e = find_usage(args->type, args->id);
    (void)call;
    if (!e) {
        libvirt_error(error, ERR_NO_SECRET, "no secret with matching usage '%s'", args->id);
        return false;
    }
    ret->secret = name_of(e);
    return true;
}

static bool write_secret(const struct secret *s, GError **error)
{
    g_autofree char *path = file_of(s->uuid, ".xml");
    g_autofree char *text = xml_write_text(&secret_table, s, 0);
    return daemon_keep_file(path, text, 0600, error);
}

static bool define(struct secret *s, rpc_secret_ret *ret, GError **error)
{
    struct entry *old = g_hash_table_lookup(entries, s->uuid);
    const struct entry *same = find_usage(secret_usage_type(s), secret_usage_id(s));
    if (same && same != old) {
        libvirt_error(error, ERR_INTERNAL, "a secret with UUID %s already defined for use with %s",
                      same->secret->uuid, secret_usage_id(s));
    } else if (old && old->secret->private == TRI_YES && s->private != TRI_YES) {
        libvirt_error(error, ERR_OPERATION_DENIED, "%s",
                      "cannot change private flag on existing secret");
    } else if (s->ephemeral == TRI_YES || write_secret(s, error)) {
        GBytes *value = old && old->value ? g_bytes_ref(old->value) : NULL;
        struct entry *e = add(s);
        e->value = value;
        ret->secret = name_of(e);
        tell(e, EVENT_DEFINED);
        return true;
    }
    secret_model_free(s);
    return false;
}

bool verb_secret_define_xml(struct call *call, const rpc_text_flags *args, rpc_secret_ret *ret,
                            GError **error)
{
    struct secret *s = secret_model_read(args->text, error);
    (void)call;
    if (!s || !daemon_take_turn(&turn, error)) {
        secret_model_free(s);
        return false;
    }
    bool ok = define(s, ret, error);
    daemon_end_turn(&turn);
    return ok;
}

bool verb_secret_get_xml_desc(struct call *call, const rpc_secret_flags *args, rpc_text *ret,
                              GError **error)
{
    const struct entry *e = find(args->secret.uuid, error);
    (void)call;
    if (e) {
        ret->text = xml_write_text(&secret_table, e->secret, 0);
    }
    return e;
}

static bool set_value(const rpc_secret_value_args *args, GError **error)
{
    struct entry *e = find(args->secret.uuid, error);
    if (!e) {
        return false;
    }
    if (e->secret->ephemeral != TRI_YES) {
        g_autofree char *path = file_of(e->secret->uuid, ".base64");
        g_autofree char *text =
            g_base64_encode((const guchar *)args->value.value_val, args->value.value_len);
        if (!daemon_keep_file(path, text, 0600, error)) {
            return false;
        }
    }
    g_clear_pointer(&e->value, g_bytes_unref);
    e->value = g_bytes_new(args->value.value_val, args->value.value_len);
    rpc_event_secret_value m = {.secret = name_of(e)};
    event_secret_value_changed(&m);
    g_free(m.secret.usage_id);
    return true;
}

bool verb_secret_set_value(struct call *call, const rpc_secret_value_args *args, rpc_none *ret,
                           GError **error)
{
    (void)call, (void)ret;
    if (!daemon_take_turn(&turn, error)) {
        return false;
    }
    bool ok = set_value(args, error);
    daemon_end_turn(&turn);
    return ok;
}

bool verb_secret_get_value(struct call *call, const rpc_secret_flags *args, rpc_secret_value *ret,
                           GError **error)
{
    const struct entry *e = find(args->secret.uuid, error);
    (void)call;
    if (!e) {
        return false;
    }
    if (e->secret->private == TRI_YES) {
        libvirt_error(error, ERR_INVALID_SECRET, "secret is private");
        return false;
    }
    if (!e->value) {
        libvirt_error(error, ERR_NO_SECRET, "secret '%s' does not have a value", e->secret->uuid);
        return false;
    }
    gsize n;
    const void *bytes = g_bytes_get_data(e->value, &n);
    ret->value.value_val = g_memdup2(bytes, n);
    ret->value.value_len = (unsigned)n;
    return true;
}

static bool undefine(const rpc_secret_args *args, GError **error)
{
    struct entry *e = find(args->secret.uuid, error);
    if (!e) {
        return false;
    }
    g_autofree char *xml = file_of(e->secret->uuid, ".xml");
    g_autofree char *value = file_of(e->secret->uuid, ".base64");
    if (!daemon_forget_file(value, error) || !daemon_forget_file(xml, error)) {
        return false;
    }
    tell(e, EVENT_UNDEFINED);
    g_hash_table_remove(entries, e->secret->uuid);
    return true;
}

bool verb_secret_undefine(struct call *call, const rpc_secret_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    if (!daemon_take_turn(&turn, error)) {
        return false;
    }
    bool ok = undefine(args, error);
    daemon_end_turn(&turn);
    return ok;
}
