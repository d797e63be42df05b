/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include "base/keyval.h"
#include "base/util.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names ---- */

char *uuid_text(const rpc_uuid u)
{
    const unsigned char *b = (const unsigned char *)u;
    return g_strdup_printf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                           b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                           b[12], b[13], b[14], b[15]);
}

bool text_uuid(const char *text, rpc_uuid out)
{
    unsigned n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '-') {
            continue;
        }
        if (n == 16 || !g_ascii_isxdigit(p[0]) || !g_ascii_isxdigit(p[1])) {
            return false;
        }
        out[n++] = (char)(g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]));
        p++;
    }
    return n == 16;
}

static bool domain_by_other_names(Rpc *rpc, const char *name, rpc_domain_ret *ret)
{
    uint64_t id;
    rpc_uuid_args by_uuid;
    if (text_u64(name, &id) && id <= INT32_MAX) {
        rpc_int by_id = {(int)id};
        if (ask_domain_lookup_by_id(rpc, &by_id, ret, NULL)) {
            return true;
        }
    }
    return text_uuid(name, by_uuid.uuid) && ask_domain_lookup_by_uuid(rpc, &by_uuid, ret, NULL);
}

bool shell_domain(struct shell *sh, const char *name, rpc_domain *out, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    rpc_domain_ret ret = {0};
    rpc_text by_name = {(char *)name};
    if (!rpc) {
        return false;
    }
    if (!domain_by_other_names(rpc, name, &ret) &&
        !ask_domain_lookup_by_name(rpc, &by_name, &ret, NULL)) {
        return shell_fail(error, "failed to get domain '%s'", name);
    }
    *out = ret.dom;
    return true;
}

bool shell_network(struct shell *sh, const char *name, rpc_network *out, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    rpc_network_ret ret = {0};
    rpc_text by_name = {(char *)name};
    rpc_uuid_args by_uuid;
    if (!rpc) {
        return false;
    }
    if (!(text_uuid(name, by_uuid.uuid) && ask_network_lookup_by_uuid(rpc, &by_uuid, &ret, NULL)) &&
        !ask_network_lookup_by_name(rpc, &by_name, &ret, error)) {
        shell_failing(sh, "failed to get network '%s'", name);
        return false;
    }
    *out = ret.net;
    return true;
}

bool shell_pool(struct shell *sh, const char *name, rpc_pool *out, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    rpc_pool_ret ret = {0};
    rpc_text by_name = {(char *)name};
    rpc_uuid_args by_uuid;
    if (!rpc) {
        return false;
    }
    if (!(text_uuid(name, by_uuid.uuid) &&
          ask_storage_pool_lookup_by_uuid(rpc, &by_uuid, &ret, NULL)) &&
        !ask_storage_pool_lookup_by_name(rpc, &by_name, &ret, error)) {
        shell_failing(sh, "failed to get pool '%s'", name);
        return false;
    }
    *out = ret.pool;
    return true;
}

static bool volume_in(struct shell *sh, Rpc *rpc, const char *name, const char *pool,
                      rpc_volume_ret *ret, GError **error)
{
    g_auto(rpc_pool) p = {0};
    if (!shell_pool(sh, pool, &p, error)) {
        return false;
    }
    rpc_pool_text args = {p, (char *)name};
    return ask_storage_vol_lookup_by_name(rpc, &args, ret, NULL);
}

bool shell_volume(struct shell *sh, const char *name, const char *pool, rpc_volume *out,
                  GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    rpc_volume_ret ret = {0};
    rpc_text text = {(char *)name};
    g_autoptr(GError) why = NULL;
    if (!rpc) {
        return false;
    }
    if (!(pool && volume_in(sh, rpc, name, pool, &ret, &why)) && !why &&
        !ask_storage_vol_lookup_by_key(rpc, &text, &ret, NULL)) {
        ask_storage_vol_lookup_by_path(rpc, &text, &ret, &why);
        if (why) {
            shell_failing(sh,
                          pool ? "failed to get vol '%s'"
                               : "failed to get vol '%s', specifying --pool might help",
                          name);
        }
    }
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    *out = ret.vol;
    return true;
}

const char *domain_state_name(int state)
{
    static const char *const names[] = {"no state",    "running",  "idle",    "paused",
                                        "in shutdown", "shut off", "crashed", "pmsuspended"};
    return state >= 0 && state < (int)G_N_ELEMENTS(names) ? names[state] : names[0];
}

char *param_text(const rpc_param *p)
{
    const rpc_value *v = &p->value;
    switch (v->type) {
    case 1:
        return g_strdup_printf("%d", v->rpc_value_u.i);
    case 2:
        return g_strdup_printf("%u", v->rpc_value_u.ui);
    case 3:
        return g_strdup_printf("%" PRId64, (int64_t)v->rpc_value_u.l);
    case 4:
        return g_strdup_printf("%" PRIu64, (uint64_t)v->rpc_value_u.ul);
    case 5:
        return g_strdup_printf("%f", v->rpc_value_u.d);
    case 6:
        return g_strdup(v->rpc_value_u.b ? "yes" : "no");
    default:
        return g_strdup(v->rpc_value_u.s);
    }
}

/* ---- One object, one procedure ---- */

unsigned flags_of(const struct args *a, const struct flag_bit *bits, unsigned n)
{
    unsigned flags = 0;
    for (unsigned i = 0; i < n && bits[i].option; i++) {
        flags |= args_flag(a, bits[i].option) ? bits[i].bit : 0;
    }
    return flags;
}

/* All three kinds of object are first in both shapes: (object) and (object, flags). */
static bool ask_simple(struct shell *sh, const struct simple *s, const char *name, xdrproc_t codec,
                       const void *args, GError **error)
{
    rpc_none none;
    Rpc *rpc = shell_rpc(sh, error);
    bool ok = rpc && rpc_ask(rpc, PROGRAM_REMOTE, s->procedure, codec, args,
                             (xdrproc_t)xdr_rpc_none, &none, sizeof(none), error);
    const char *words = ok ? s->done : s->failing;
    g_autofree char *text = NULL;
    if (!words) {
        return ok;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    text = g_strdup_printf(words, name);
#pragma GCC diagnostic pop
    if (ok) {
        out_note(sh, "%s", text);
    } else {
        shell_failing(sh, "%s", text);
    }
    return ok;
}

bool run_simple_domain(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    const char *name = args_text(a, "domain");
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, name, &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, s->base_flags | flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    return ask_simple(sh, s, dom.name,
                      s->with_flags ? (xdrproc_t)xdr_rpc_domain_flags
                                    : (xdrproc_t)xdr_rpc_domain_args,
                      &args, error);
}

bool run_simple_network(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_network) net = {0};
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    rpc_network_flags args = {net, s->base_flags};
    return ask_simple(sh, s, net.name,
                      s->with_flags ? (xdrproc_t)xdr_rpc_network_flags
                                    : (xdrproc_t)xdr_rpc_network_args,
                      &args, error);
}

bool run_simple_pool(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_pool) pool = {0};
    if (!shell_pool(sh, args_text(a, "pool"), &pool, error)) {
        return false;
    }
    rpc_pool_flags args = {pool, s->base_flags | flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    return ask_simple(sh, s, pool.name,
                      s->with_flags ? (xdrproc_t)xdr_rpc_pool_flags : (xdrproc_t)xdr_rpc_pool_args,
                      &args, error);
}

/* ---- XML out ---- */

bool show_xml(struct shell *sh, const struct args *a, const char *xml, GError **error)
{
    const char *path = args_text(a, "xpath");
    g_auto(xpath_t) x = {0};
    if (!path) {
        out_text(sh, "xml", "%s", xml);
        return true;
    }
    if (!xpath_open(&x, xml, error)) {
        return false;
    }
    g_autofree char *parts = xpath_dump(&x, path, args_flag(a, "wrap"), error);
    if (parts) {
        out_text(sh, "xml", "%s", parts);
    }
    return parts != NULL;
}

static bool print_xml(struct shell *sh, const struct args *a, xdrproc_t codec, const void *args,
                      GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    return rpc &&
           rpc_ask(rpc, PROGRAM_REMOTE, s->procedure, codec, args, (xdrproc_t)xdr_rpc_text, &xml,
                   sizeof(xml), error) &&
           show_xml(sh, a, xml.text, error);
}

bool run_domain_xml(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    return print_xml(sh, a, (xdrproc_t)xdr_rpc_domain_flags, &args, error);
}

bool run_network_xml(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_network) net = {0};
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    rpc_network_flags args = {net, flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    return print_xml(sh, a, (xdrproc_t)xdr_rpc_network_flags, &args, error);
}

bool run_pool_xml(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    g_auto(rpc_pool) pool = {0};
    if (!shell_pool(sh, args_text(a, "pool"), &pool, error)) {
        return false;
    }
    rpc_pool_flags args = {pool, flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    return print_xml(sh, a, (xdrproc_t)xdr_rpc_pool_flags, &args, error);
}

/* ---- XML in ---- */

char *shell_read_file(const char *path, GError **error)
{
    enum { XML_MAX = 10 << 20 };
    g_autoptr(GError) why = NULL;
    char *text = NULL;
    gsize n;
    GStatBuf st;
    if (g_stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > XML_MAX) {
        shell_fail(error, "Failed to read file '%s': it is over %d MiB", path, XML_MAX >> 20);
        return NULL;
    }
    if (!g_file_get_contents(path, &text, &n, &why)) {
        shell_fail(error, "Failed to open file '%s': %s", path, g_strerror(errno));
    }
    return text;
}

/* The object's name is the first member of what all of these procedures return. */
static bool make(struct shell *sh, const struct args *a, const char *what, xdrproc_t ret_codec,
                 void *ret, size_t size, GError **error)
{
    const struct from_file *f = shell_data(sh);
    const char *path = args_text(a, "file");
    g_autofree char *xml = shell_read_file(path, error);
    Rpc *rpc = xml ? shell_rpc(sh, error) : NULL;
    if (!rpc) {
        return false;
    }
    rpc_text_flags args = {xml, flags_of(a, f->bits, G_N_ELEMENTS(f->bits))};
    if (!rpc_ask(rpc, PROGRAM_REMOTE, f->procedure,
                 f->with_flags ? (xdrproc_t)xdr_rpc_text_flags : (xdrproc_t)xdr_rpc_text, &args,
                 ret_codec, ret, size, error)) {
        shell_failing(sh, "Failed to %s from %s", what, path);
        return false;
    }
    g_autofree char *text = NULL;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    text = g_strdup_printf(f->done, *(char **)ret, path);
#pragma GCC diagnostic pop
    out_note(sh, "%s", text);
    xdr_free(ret_codec, ret);
    return true;
}

static const char *what_verb(struct shell *sh)
{
    const struct from_file *f = shell_data(sh);
    return strstr(f->done, "created") ? "create" : "define";
}

bool run_domain_from_file(struct shell *sh, const struct args *a, GError **error)
{
    rpc_domain_ret ret = {0};
    g_autofree char *what = g_strdup_printf("%s domain", what_verb(sh));
    return make(sh, a, what, (xdrproc_t)xdr_rpc_domain_ret, &ret, sizeof(ret), error);
}

bool run_network_from_file(struct shell *sh, const struct args *a, GError **error)
{
    rpc_network_ret ret = {0};
    g_autofree char *what = g_strdup_printf("%s network", what_verb(sh));
    return make(sh, a, what, (xdrproc_t)xdr_rpc_network_ret, &ret, sizeof(ret), error);
}

bool run_pool_from_file(struct shell *sh, const struct args *a, GError **error)
{
    rpc_pool_ret ret = {0};
    g_autofree char *what = g_strdup_printf("%s pool", what_verb(sh));
    return make(sh, a, what, (xdrproc_t)xdr_rpc_pool_ret, &ret, sizeof(ret), error);
}

/* ---- The user's editor ---- */

char *shell_edit(struct shell *sh, const char *xml, GError **error)
{
    const char *editor = g_getenv("VISUAL");
    editor = editor && *editor ? editor : g_getenv("EDITOR");
    editor = editor && *editor ? editor : "vi";
    g_autofree char *path = NULL;
    autofd int fd = g_file_open_tmp("lodge-XXXXXX.xml", &path, error);
    (void)sh;
    if (fd < 0 || !g_file_set_contents(path, xml, -1, error)) {
        return NULL;
    }
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *command = g_strdup_printf("%s %s", editor, quoted);
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", command, NULL};
    int status;
    char *after = NULL;
    if (g_spawn_sync(NULL, argv, NULL, G_SPAWN_CHILD_INHERITS_STDIN, NULL, NULL, NULL, NULL,
                     &status, error)) {
        if (status != 0) {
            libvirt_error(error, ERR_INTERNAL, "Child process (%s %s) unexpected exit status %d",
                          editor, path, WIFEXITED(status) ? WEXITSTATUS(status) : status);
        } else {
            after = shell_read_file(path, error);
        }
    }
    unlink(path);
    if (after && strcmp(after, xml) == 0) {
        g_clear_pointer(&after, g_free);
    }
    return after;
}
