/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/rpc/connect.h"

#include "base/util.h"

#include <string.h>
#include <sys/socket.h>

/*
 * From a URI to a connection.
 */
enum { START_PATIENCE_MS = 60000, START_STEP_MS = 20 };
static const char system_socket[] = "/run/libvirt/virtlodged-sock";

static bool somebody_listens(const char *path)
{
    g_autoptr(Rpc) rpc = rpc_connect(path, NULL);
    return rpc != NULL;
}

char *connect_default_uri(void)
{
    const char *uri = g_getenv("LODGE_URI");
    uri = uri && *uri ? uri : g_getenv("LIBVIRT_DEFAULT_URI");
    if (uri && *uri) {
        return g_strdup(uri);
    }
    bool system = getuid() == 0 && somebody_listens(system_socket);
    return g_strdup(system ? "qemu:///system" : "qemu:///session");
}

/* What the URI says behind its question mark; NULL: nothing of that name. */
static char *param_of(GUri *uri, const char *name)
{
    const char *query = g_uri_get_query(uri);
    g_autoptr(GHashTable) params =
        query ? g_uri_parse_params(query, -1, "&", G_URI_PARAMS_NONE, NULL) : NULL;
    return params ? g_strdup(g_hash_table_lookup(params, name)) : NULL;
}

static char *socket_of(GUri *uri, bool read_only)
{
    char *given = param_of(uri, "socket");
    if (given) {
        return given;
    }
    if (strcmp(g_uri_get_path(uri), "/session") == 0) {
        return g_build_filename(g_get_user_runtime_dir(), "libvirt", "virtlodged-sock", NULL);
    }
    return g_strconcat(system_socket, read_only ? "-ro" : "", NULL);
}

/* ---- A daemon of the user's own ---- */

static char *lodged_path(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *beside = folder ? g_build_filename(folder, "lodged", NULL) : NULL;
    if (beside && access(beside, X_OK) == 0) {
        return g_steal_pointer(&beside);
    }
    return g_find_program_in_path("lodged");
}

static void detach(void *unused)
{
    (void)unused;
    setsid();
}

static Rpc *start_and_connect(const char *path, GError **error)
{
    g_autofree char *program = lodged_path();
    if (!program) {
        libvirt_error(error, ERR_RPC, "%s: nobody listens, and there is no lodged to start", path);
        return NULL;
    }
    /* It leaves when nobody has been there for a while; its machines stay. */
    char *argv[] = {program, (char *)"--session", (char *)"--timeout", (char *)"120", NULL};
    if (!g_spawn_async(NULL, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL,
                       detach, NULL, NULL, error)) {
        return NULL;
    }
    for (unsigned waited = 0;; waited += START_STEP_MS) {
        g_clear_error(error);
        Rpc *rpc = rpc_connect(path, error);
        if (rpc || waited >= START_PATIENCE_MS) {
            return rpc;
        }
        g_usleep(START_STEP_MS * 1000);
    }
}

/* ---- Another host ---- */

/*
 * What the other host is to run: our own helper, which knows its sockets and starts what is not
 * there, else netcat, which by itself would not end with us if it knows -q.  Its login shell may be
 * any, so a plain one gets the words.
 */
static char *there(GUri *uri, const char *scheme, const char *path, bool read_only)
{
    g_autofree char *socket = param_of(uri, "socket");
    g_autofree char *local = g_strdup_printf("%s://%s%s%s", scheme, g_uri_get_path(uri),
                                             socket ? "?socket=" : "", socket ? socket : "");
    g_autofree char *uri_word = g_shell_quote(local), *path_word = g_shell_quote(path);
    g_autofree char *script = g_strdup_printf(
        "if command -v lodge >/dev/null 2>&1; then exec lodge %sssh-helper %s; "
        "elif nc -q 2>&1 | grep -q 'requires an argument'; then exec nc -q 0 -U %s; "
        "else exec nc -U %s; fi",
        read_only ? "-r " : "", uri_word, path_word, path_word);
    g_autofree char *quoted = g_shell_quote(script);
    return g_strconcat("sh -c ", quoted, NULL);
}

static void words(GPtrArray *argv, const char *option, const char *value)
{
    g_ptr_array_add(argv, g_strdup(option));
    if (value) {
        g_ptr_array_add(argv, g_strdup(value));
    }
}

static Rpc *connect_ssh(GUri *uri, const char *scheme, const char *path, bool read_only,
                        GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        libvirt_error(error, ERR_SYSTEM, "socketpair: %s", g_strerror(errno));
        return NULL;
    }
    autofd int theirs = pair[1];
    autofd int ours = pair[0];
    g_autofree char *port = g_strdup_printf("%d", g_uri_get_port(uri));
    g_autofree char *program = param_of(uri, "command"), *key = param_of(uri, "keyfile");
    g_autofree char *no_verify = param_of(uri, "no_verify"), *no_tty = param_of(uri, "no_tty");
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    words(argv, program ? program : "ssh", "-T");
    words(argv, "-e", "none");
    if (g_uri_get_port(uri) > 0) {
        words(argv, "-p", port);
    }
    if (g_uri_get_user(uri)) {
        words(argv, "-l", g_uri_get_user(uri));
    }
    if (key) {
        words(argv, "-i", key);
    }
    if (no_tty && strcmp(no_tty, "1") == 0) {
        words(argv, "-o", "BatchMode=yes");
    }
    if (no_verify && strcmp(no_verify, "1") == 0) {
        words(argv, "-o", "StrictHostKeyChecking=no");
    }
    words(argv, "--", g_uri_get_host(uri));
    g_ptr_array_add(argv, there(uri, scheme, path, read_only));
    g_ptr_array_add(argv, NULL);
    if (!g_spawn_async_with_fds(NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                                NULL, theirs, theirs, -1, error)) {
        return NULL;
    }
    return rpc_new(g_steal_fd(&ours));
}

/* ---- URIs ---- */

static bool check(GUri *uri, char *const *scheme, GError **error)
{
    const char *transport = scheme[1], *host = g_uri_get_host(uri), *path = g_uri_get_path(uri);
    if (strcmp(scheme[0], "qemu") != 0 && strcmp(scheme[0], "lodge") != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "no scheme '%s': qemu or lodge", scheme[0]);
        return false;
    }
    if (transport && strcmp(transport, "unix") != 0 && strcmp(transport, "ssh") != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "no transport '%s' here: unix or ssh", transport);
        return false;
    }
    if (!transport && host && *host) {
        libvirt_error(error, ERR_INVALID_ARG, "host '%s' needs a transport: %s+ssh://", host,
                      scheme[0]);
        return false;
    }
    if (*path && strcmp(path, "/") != 0 && strcmp(path, "/system") != 0 &&
        strcmp(path, "/session") != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "unexpected path '%s', try %s:///system or /session",
                      path, scheme[0]);
        return false;
    }
    return true;
}

static Rpc *connect_uri(GUri *uri, char *const *scheme, bool read_only, GError **error)
{
    g_autofree char *path = socket_of(uri, read_only);
    if (scheme[1] && strcmp(scheme[1], "ssh") == 0) {
        return connect_ssh(uri, scheme[0], path, read_only, error);
    }
    g_autoptr(GError) why = NULL;
    Rpc *rpc = rpc_connect(path, &why);
    if (!rpc && strcmp(g_uri_get_path(uri), "/session") == 0 && !g_uri_get_query(uri)) {
        g_clear_error(&why);
        rpc = start_and_connect(path, &why);
    }
    if (!rpc) {
        g_propagate_error(error, g_steal_pointer(&why));
    }
    return rpc;
}

static Rpc *connect_and_name(const char *text, bool read_only, char **name, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, error);
    if (!uri) {
        return NULL;
    }
    g_auto(GStrv) scheme = g_strsplit(g_uri_get_scheme(uri), "+", 2);
    if (!check(uri, scheme, error)) {
        return NULL;
    }
    *name = g_strdup_printf("%s://%s", scheme[0], g_uri_get_path(uri));
    return connect_uri(uri, scheme, read_only, error);
}

Rpc *connect_silently(const char *text, bool read_only, GError **error)
{
    g_autofree char *name = NULL;
    return connect_and_name(text, read_only, &name, error);
}

Rpc *connect_to(const char *text, bool read_only, GError **error)
{
    g_autofree char *name = NULL;
    g_autoptr(Rpc) rpc = connect_and_name(text, read_only, &name, error);
    return rpc && rpc_open(rpc, name, read_only, error) ? g_steal_pointer(&rpc) : NULL;
}
