/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/login.h"

#include "manage/daemon/daemon.h"
#include "manage/daemon/settings.h"
#include "manage/error.h"

#include <gio/gio.h>
#include <pthread.h>
#include <sasl/sasl.h>

/* ---- SASL. ---- */

enum {
    SSF_ENCRYPTED = 56, /* the least strength that libvirt's clients take as encryption */
    SSF_BEST = 100000,
    WRAP_BYTES = 64 << 10, /* the largest piece we let the peer send */
};

struct login {
    sasl_conn_t *conn;
    bool encrypted, wraps;
};

/* With --root the library's own configuration is below it too. */
static int own_path(void *context, char **path)
{
    (void)context;
    *path = strdup(setting("sasl", "folder"));
    return *path ? SASL_OK : SASL_NOMEM;
}

typedef int (*callback_fn)(void);
static const sasl_callback_t own_callbacks[] = {
    {SASL_CB_GETCONFPATH, (callback_fn)(void (*)(void))own_path, NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

/* Steps of several clients run on threads of their own. */
static void *mutex_new(void)
{
    pthread_mutex_t *m = g_new(pthread_mutex_t, 1);
    pthread_mutex_init(m, NULL);
    return m;
}

static int mutex_lock(void *m)
{
    return pthread_mutex_lock(m);
}

static int mutex_unlock(void *m)
{
    return pthread_mutex_unlock(m);
}

static void mutex_free(void *m)
{
    pthread_mutex_destroy(m);
    g_free(m);
}

static bool library_started(GError **error)
{
    static int code = SASL_NOTINIT;
    if (code == SASL_NOTINIT) {
        sasl_set_mutex(mutex_new, mutex_lock, mutex_unlock, mutex_free);
        code = sasl_server_init(own_callbacks, "libvirt");
    }
    if (code != SASL_OK) {
        libvirt_error(error, ERR_AUTH_FAILED, "SASL: %s", sasl_errstring(code, NULL, NULL));
    }
    return code == SASL_OK;
}

static bool set_properties(struct login *l)
{
    sasl_ssf_t below = SSF_BEST;
    sasl_security_properties_t props = {.maxbufsize = WRAP_BYTES, .max_ssf = SSF_BEST};
    if (l->encrypted) {
        props.max_ssf = 0;
    } else {
        props.min_ssf = SSF_ENCRYPTED;
        props.security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_NOPLAINTEXT;
    }
    return (!l->encrypted || sasl_setprop(l->conn, SASL_SSF_EXTERNAL, &below) == SASL_OK) &&
           sasl_setprop(l->conn, SASL_SEC_PROPS, &props) == SASL_OK;
}

static void login_free(struct login *l)
{
    if (l->conn) {
        sasl_dispose(&l->conn);
    }
    g_free(l);
}

static struct login *login_new(bool encrypted, GError **error)
{
    if (!library_started(error)) {
        return NULL;
    }
    struct login *l = g_new0(struct login, 1);
    l->encrypted = encrypted;
    int code =
        sasl_server_new("libvirt", NULL, NULL, NULL, NULL, NULL, SASL_SUCCESS_DATA, &l->conn);
    if (code != SASL_OK || !set_properties(l)) {
        libvirt_error(error, ERR_AUTH_FAILED, "SASL: %s", sasl_errstring(code, NULL, NULL));
        login_free(l);
        return NULL;
    }
    return l;
}

static char *login_mechanisms(struct login *l, GError **error)
{
    const char *list = NULL;
    unsigned n = 0;
    if (sasl_listmech(l->conn, NULL, "", ",", "", &list, &n, NULL) != SASL_OK || !n) {
        libvirt_error(error, ERR_AUTH_FAILED, "SASL has no mechanism to offer");
        return NULL;
    }
    return g_strdup(list);
}

static bool finish(struct login *l, GError **error)
{
    const void *ssf = NULL;
    if (l->encrypted) {
        return true;
    }
    if (sasl_getprop(l->conn, SASL_SSF, &ssf) != SASL_OK ||
        *(const sasl_ssf_t *)ssf < SSF_ENCRYPTED) {
        libvirt_error(error, ERR_AUTH_FAILED, "the mechanism does not encrypt");
        return false;
    }
    l->wraps = true;
    return true;
}

static enum login_step login_step(struct login *l, const char *mechanism, const void *in,
                                  unsigned n, const char **out, unsigned *out_n, GError **error)
{
    int code = mechanism ? sasl_server_start(l->conn, mechanism, in, n, out, out_n)
                         : sasl_server_step(l->conn, in, n, out, out_n);
    if (code == SASL_CONTINUE) {
        return LOGIN_GO_ON;
    }
    if (code != SASL_OK) {
        daemon_log("SASL: %s", sasl_errdetail(l->conn));
        libvirt_error(error, ERR_AUTH_FAILED, "authentication failed");
        return LOGIN_FAILED;
    }
    return finish(l, error) ? LOGIN_DONE : LOGIN_FAILED;
}

static const char *login_user(struct login *l, GError **error)
{
    const void *name = NULL;
    if (sasl_getprop(l->conn, SASL_USERNAME, &name) != SASL_OK || !name ||
        !setting_admits("sasl", "allow", name)) {
        libvirt_error(error, ERR_AUTH_FAILED, "the user is not on the list sasl.allow");
        return NULL;
    }
    return name;
}

static bool login_wraps(const struct login *l)
{
    return l->wraps;
}

static struct packet *login_wrap(struct login *l, struct packet *p)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    const void *limit = NULL;
    sasl_getprop(l->conn, SASL_MAXOUTBUF, &limit);
    unsigned piece = limit && *(const unsigned *)limit ? *(const unsigned *)limit : 4096;
    for (size_t at = 0; at < p->length; at += piece) {
        const char *out = NULL;
        unsigned n = 0;
        if (sasl_encode(l->conn, (const char *)p->data + at, (unsigned)MIN(piece, p->length - at),
                        &out, &n) != SASL_OK) {
            packet_free(p);
            return NULL;
        }
        g_byte_array_append(bytes, (const guint8 *)out, n);
    }
    packet_free(p);
    struct packet *wrapped = g_try_malloc(sizeof(*wrapped) + bytes->len);
    if (wrapped) {
        *wrapped = (struct packet){.length = bytes->len};
        memcpy(wrapped->data, bytes->data, bytes->len);
    }
    return wrapped;
}

static bool login_unwrap(struct login *l, const void *in, size_t n, GByteArray *out)
{
    const char *bytes = NULL;
    unsigned length = 0;
    if (sasl_decode(l->conn, in, (unsigned)n, &bytes, &length) != SASL_OK) {
        return false;
    }
    if (length) {
        g_byte_array_append(out, (const guint8 *)bytes, length);
    }
    return true;
}

/* ---- polkit, by D-Bus. ---- */

enum { ANSWER_MS = 120000 }; /* somebody may be typing a password */
enum { MAY_ASK = 1 };

/* Since when a process has been running, so that its number cannot be reused in between. */
static guint64 start_time(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? g_ascii_strtoull(at + 1, NULL, 10) : 0;
}

static bool polkit_admits(int pid, unsigned uid, bool read_only, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GDBusConnection) bus = g_bus_get_sync(G_BUS_TYPE_SYSTEM, NULL, &why);
    g_autoptr(GVariant) answer = NULL;
    if (bus) {
        GVariantBuilder subject, details;
        g_variant_builder_init(&subject, G_VARIANT_TYPE("a{sv}"));
        g_variant_builder_add(&subject, "{sv}", "pid", g_variant_new_uint32((guint32)pid));
        g_variant_builder_add(&subject, "{sv}", "start-time",
                              g_variant_new_uint64(start_time(pid)));
        g_variant_builder_add(&subject, "{sv}", "uid", g_variant_new_int32((gint32)uid));
        g_variant_builder_init(&details, G_VARIANT_TYPE("a{ss}"));
        answer = g_dbus_connection_call_sync(
            bus, "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority",
            "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization",
            g_variant_new("((sa{sv})sa{ss}us)", "unix-process", &subject,
                          read_only ? "org.lodge.monitor" : "org.lodge.manage", &details, MAY_ASK,
                          ""),
            G_VARIANT_TYPE("((bba{ss}))"), G_DBUS_CALL_FLAGS_NONE, ANSWER_MS, NULL, &why);
    }
    gboolean admitted = FALSE;
    if (answer) {
        g_variant_get(answer, "((bb@a{ss}))", &admitted, NULL, NULL);
    }
    if (!admitted) {
        libvirt_error(error, why ? ERR_AUTH_UNAVAILABLE : ERR_AUTH_FAILED, "%s",
                      why ? why->message : "access denied by policy");
    }
    return admitted;
}

const struct login_module lodge_login = {
    .create = login_new,
    .destroy = login_free,
    .mechanisms = login_mechanisms,
    .step = login_step,
    .user = login_user,
    .wraps = login_wraps,
    .wrap = login_wrap,
    .unwrap = login_unwrap,
    .polkit_admits = polkit_admits,
};
