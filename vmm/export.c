/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/export.h"

#include "base/util.h"
#include "host/image/dirty.h"
#include "host/image/image.h"
#include "host/image/job.h"
#include "host/image/protocol.h"
#include "host/image/serve.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/*
 * A server's exports stay as they are while it runs: when one comes or goes the server ends and
 * another one takes its socket.
 */
struct export
{
    char *id, *name, *description, *node;
    struct serve_export e;
    struct job *job; /* whose beginning it shows; NULL: the node as it is */
};

static struct {
    const struct serve_api *api;
    struct serve_options options;
    int listening; /* kept; servers get copies */
    Server *server;
    GThread *thread;
} nbd = {.listening = -1};

static GPtrArray *exports; /* struct export * */

/* ---- bytes of a backup job ---- */

static int view_read(void *job, uint64_t offset, void *to, uint64_t n)
{
    return job_read(job, offset, to, n);
}

static int view_status(void *job, uint64_t offset, uint64_t n, struct chain_status *out)
{
    return job_status(job, offset, n, out);
}

static const struct serve_view job_view_ops = {view_read, view_status};

/* ---- the server ---- */

static gpointer run(gpointer server)
{
    nbd.api->run(server);
    return NULL;
}

static void pause_server(void)
{
    if (nbd.server) {
        nbd.api->stop(nbd.server);
        g_thread_join(g_steal_pointer(&nbd.thread));
        nbd.api->free(g_steal_pointer(&nbd.server));
    }
}

static bool run_server(GError **error)
{
    Server *s = nbd.api->new (&nbd.options, error);
    for (unsigned i = 0; s && i < exports->len; i++) {
        struct export *x = exports->pdata[i];
        if (!nbd.api->add_export(s, &x->e, error)) {
            nbd.api->free(s);
            return false;
        }
    }
    int fd = s ? fcntl(nbd.listening, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd < 0) {
        if (s) {
            error_set_errno(error, errno, "NBD server");
            nbd.api->free(s);
        }
        return false;
    }
    nbd.api->listen(s, fd);
    nbd.server = s;
    nbd.thread = g_thread_new("nbd-server", run, s);
    return true;
}

static void free_export(struct export *x)
{
    g_free(x->id);
    g_free(x->name);
    g_free(x->description);
    g_free(x->node);
    for (unsigned i = 0; i < x->e.n_bitmaps; i++) {
        g_free((char *)(uintptr_t)x->e.bitmaps[i]);
    }
    g_free(x);
}

static void end_export(struct export *x)
{
    vm_event("BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", x->id));
    free_export(x);
}

static bool uses(const struct export *x, const struct node *top)
{
    for (; top; top = top->backing) {
        if (x->e.image == top || x->e.bitmaps_node == top) {
            return true;
        }
    }
    return false;
}

/* Exports of nodes that are about to go end. */
static void on_node_moves(struct node *top)
{
    bool any = false;
    for (unsigned i = 0; exports && i < exports->len; i++) {
        any |= uses(exports->pdata[i], top);
    }
    if (!any) {
        return;
    }
    g_autoptr(GError) error = NULL;
    pause_server();
    for (unsigned i = exports->len; i-- > 0;) {
        if (uses(exports->pdata[i], top)) {
            end_export(g_ptr_array_steal_index(exports, i));
        }
    }
    if (!run_server(&error)) {
        vm_report("NBD server: %s", error->message);
    }
}

bool export_server_runs(void)
{
    return nbd.listening >= 0;
}

bool export_server_uses(const char *tls_creds)
{
    const struct tls_creds *tls = export_server_runs() ? nbd.options.tls : NULL;
    return tls && g_str_equal(tls->id, tls_creds);
}

bool export_server_start(const struct nbd_start *how, GError **error)
{
    autofd int fd = how->listening;
    const struct tls_creds *tls = how->tls_creds ? tls_creds_find(how->tls_creds) : NULL;
    if (how->tls_creds && !tls) {
        g_set_error(error, LODGE_ERROR, ENOENT, "No TLS credentials with id '%s'", how->tls_creds);
        return false;
    }
    nbd.api = nbd.api ? nbd.api : module_symbol("serve", "lodge_serve", error);
    if (!nbd.api) {
        return false;
    }
    image_node_moves = on_node_moves;
    exports = exports ? exports : g_ptr_array_new();
    nbd.options = (struct serve_options){.clients = how->clients, .persistent = true, .tls = tls};
    nbd.listening = g_steal_fd(&fd);
    if (!run_server(error)) {
        close(g_steal_fd(&nbd.listening));
        return false;
    }
    return true;
}

bool export_server_stop(GError **error)
{
    if (nbd.listening < 0) {
        g_set_error(error, LODGE_ERROR, ENOENT, "NBD server not running");
        return false;
    }
    pause_server();
    close(g_steal_fd(&nbd.listening));
    while (exports->len) {
        end_export(g_ptr_array_steal_index(exports, exports->len - 1));
    }
    return true;
}

/* ---- exports ---- */

static struct export *find(const char *id)
{
    for (unsigned i = 0; exports && i < exports->len; i++) {
        struct export *x = exports->pdata[i];
        if (!g_strcmp0(x->id, id)) {
            return x;
        }
    }
    return NULL;
}

static bool take_node(struct export *x, const char *name, bool writable, GError **error)
{
    Image *img = NULL;
    struct node *n = image_find_node(name, &img);
    if (!n && (img = image_find(name))) {
        n = image_top(img);
    }
    x->job = n ? NULL : job_of_target(name);
    x->e.image = x->job ? job_target(x->job) : n;
    if (!x->e.image) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Cannot find device='' nor node-name='%s'", name);
        return false;
    }
    if (writable && !x->job && n == image_top(img) && !image_claim(img, error)) {
        return false;
    }
    if (writable && (x->job || n->read_only || n != image_top(img))) {
        g_set_error(error, LODGE_ERROR, EROFS, "Cannot export read-only node as writable");
        return false;
    }
    if (x->job) {
        x->e.view = &job_view_ops;
        x->e.owner = x->job;
        x->e.bitmaps_node = job_source(x->job);
    }
    x->e.size = x->e.image->size;
    x->e.read_only = !writable;
    x->e.unmap = writable;
    x->e.shared = !writable;
    return true;
}

static bool take_bitmap(struct export *x, json_t *said, GError **error)
{
    const char *name =
        json_string_value(json_is_object(said) ? json_object_get(said, "name") : said);
    const char *of = json_string_value(json_object_get(said, "node"));
    struct node *node = x->e.bitmaps_node ? x->e.bitmaps_node : x->e.image;
    Image *img;
    if (of) {
        node = image_find_node(of, &img);
        if (!node || (x->e.n_bitmaps && x->e.bitmaps_node != node)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Cannot find node-name='%s' for bitmaps", of);
            return false;
        }
        x->e.bitmaps_node = node;
    }
    if (!name || x->e.n_bitmaps == SERVE_BITMAPS_MAX || !dirty_exists(node, name)) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Dirty bitmap '%s' not found", name ? name : "");
        return false;
    }
    x->e.bitmaps[x->e.n_bitmaps++] = g_strdup(name);
    return true;
}

bool export_add(const struct export_add *what, GError **error)
{
    if (nbd.listening < 0) {
        g_set_error(error, LODGE_ERROR, ENOENT, "NBD server not running");
        return false;
    }
    if (find(what->id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "Block export id '%s' is already in use", what->id);
        return false;
    }
    struct export *x = g_new0(struct export, 1);
    x->id = g_strdup(what->id);
    x->name = g_strdup(what->name ? what->name : what->node);
    x->node = g_strdup(what->node);
    x->description = g_strdup(what->description);
    x->e.name = x->name;
    x->e.description = x->description;
    x->e.depth = what->depth;
    bool ok = take_node(x, what->node, what->writable, error);
    size_t i;
    json_t *said;
    json_array_foreach(what->bitmaps, i, said)
    {
        ok = ok && take_bitmap(x, said, error);
    }
    if (!ok) {
        free_export(x);
        return false;
    }
    pause_server();
    g_ptr_array_add(exports, x);
    if (!run_server(error)) {
        g_ptr_array_remove(exports, x);
        free_export(x);
        run_server(NULL);
        return false;
    }
    return true;
}

bool export_remove(const char *id, GError **error)
{
    struct export *x = find(id);
    if (!x) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Export '%s' is not found", id);
        return false;
    }
    pause_server();
    g_ptr_array_remove(exports, x);
    end_export(x);
    return run_server(error);
}

json_t *export_list(void)
{
    json_t *all = json_array();
    for (unsigned i = 0; exports && i < exports->len; i++) {
        const struct export *x = exports->pdata[i];
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:b}", "id", x->id, "type", "nbd",
                                             "node-name", x->node, "shutting-down", 0));
    }
    return all;
}
