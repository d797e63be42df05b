/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/rpc/connect.h"

#include "base/util.h"

#include <string.h>
#include <sys/socket.h>

/*
 * From a URI to a connection.
 */
enum { START_PATIENCE_MS = 60000, START_STEP_MS = 20 };

char *connect_default_uri(void)
{
    const char *uri = g_getenv("LODGE_URI");
    uri = uri && *uri ? uri : g_getenv("LIBVIRT_DEFAULT_URI");
    if (uri && *uri) {
        return g_strdup(uri);
    }
    return g_strdup(getuid() == 0 ? "qemu:///system" : "qemu:///session");
}

static char *socket_of(GUri *uri, bool read_only)
{
    const char *query = g_uri_get_query(uri);
    g_autoptr(GHashTable) params =
        query ? g_uri_parse_params(query, -1, "&", G_URI_PARAMS_NONE, NULL) : NULL;
    const char *given = params ? g_hash_table_lookup(params, "socket") : NULL;
    if (given) {
        return g_strdup(given);
    }
    if (strcmp(g_uri_get_path(uri), "/session") == 0) {
        return g_build_filename(g_get_user_runtime_dir(), "libvirt", "virtlodged-sock", NULL);
    }
    return g_strdup(read_only ? "/run/libvirt/virtlodged-sock-ro" : "/run/libvirt/virtlodged-sock");
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
    char *argv[] = {program, (char *)"--session", NULL};
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

static Rpc *connect_ssh(GUri *uri, const char *path, GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        libvirt_error(error, ERR_SYSTEM, "socketpair: %s", g_strerror(errno));
        return NULL;
    }
    autofd int theirs = pair[1];
    autofd int ours = pair[0];
    g_autofree char *port = g_strdup_printf("%d", g_uri_get_port(uri));
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *command = g_strdup_printf("nc -U %s", quoted);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    for (const char *const *w = (const char *const[]){"ssh", "-T", "-e", "none", NULL}; *w; w++) {
        g_ptr_array_add(argv, (char *)*w);
    }
    if (g_uri_get_port(uri) > 0) {
        g_ptr_array_add(argv, (char *)"-p");
        g_ptr_array_add(argv, port);
    }
    if (g_uri_get_user(uri)) {
        g_ptr_array_add(argv, (char *)"-l");
        g_ptr_array_add(argv, (char *)g_uri_get_user(uri));
    }
    g_ptr_array_add(argv, (char *)"--");
    g_ptr_array_add(argv, (char *)g_uri_get_host(uri));
    g_ptr_array_add(argv, command);
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
    const char *transport = scheme[1], *host = g_uri_get_host(uri);
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
    return true;
}

Rpc *connect_to(const char *text, bool read_only, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, error);
    if (!uri) {
        return NULL;
    }
    g_auto(GStrv) scheme = g_strsplit(g_uri_get_scheme(uri), "+", 2);
    if (!check(uri, scheme, error)) {
        return NULL;
    }
    g_autofree char *path = socket_of(uri, read_only);
    g_autofree char *name = g_strdup_printf("%s://%s", scheme[0], g_uri_get_path(uri));
    g_autoptr(GError) why = NULL;
    g_autoptr(Rpc) rpc = NULL;
    if (scheme[1] && strcmp(scheme[1], "ssh") == 0) {
        rpc = connect_ssh(uri, path, &why);
    } else {
        rpc = rpc_connect(path, &why);
        if (!rpc && strcmp(g_uri_get_path(uri), "/session") == 0 && !g_uri_get_query(uri)) {
            g_clear_error(&why);
            rpc = start_and_connect(path, &why);
        }
    }
    if (!rpc) {
        g_propagate_error(error, g_steal_pointer(&why));
        return NULL;
    }
    return rpc_open(rpc, name, read_only, error) ? g_steal_pointer(&rpc) : NULL;
}
