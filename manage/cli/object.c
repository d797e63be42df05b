/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include "base/keyval.h"
#include "base/util.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

bool shell_filter(struct shell *sh, const char *name, rpc_nwfilter *out, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    rpc_nwfilter_ret ret = {0};
    rpc_text by_name = {(char *)name};
    rpc_uuid_args by_uuid;
    if (!rpc) {
        return false;
    }
    if (!(text_uuid(name, by_uuid.uuid) &&
          ask_nwfilter_lookup_by_uuid(rpc, &by_uuid, &ret, NULL)) &&
        !ask_nwfilter_lookup_by_name(rpc, &by_name, &ret, error)) {
        shell_failing(sh, "failed to get nwfilter '%s'", name);
        return false;
    }
    *out = ret.filter;
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
            shell_failing(sh, "failed to get vol '%s'%s", name,
                          pool || !shell_has_option(sh, "pool") ? ""
                                                                : ", specifying --pool might help");
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

unsigned affect_of(const struct args *a)
{
    return (args_flag(a, "live") ? AFFECT_LIVE : 0u) |
           (args_flag(a, "config") ? AFFECT_CONFIG : 0u);
}

bool exclusive(const struct args *a, const char *one, const char *two, GError **error)
{
    return !args_text(a, one) || !args_text(a, two) ||
           shell_fail(error, "Options --%s and --%s are mutually exclusive", one, two);
}

const char *const rate_names[N_RATES] = {"average", "peak", "burst", "floor"};

bool rate_of(const struct args *a, const char *option, struct rate *out, GError **error)
{
    const char *text = args_text(a, option);
    bool in = strcmp(option, "inbound") == 0;
    *out = (struct rate){0};
    if (!text) {
        return true;
    }
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    if (g_strv_length(words) > N_RATES) {
        return shell_fail(error, "Rate string '%s' has too many fields", text);
    }
    for (unsigned i = 0; words[i]; i++) {
        if (*words[i] && !text_u64(words[i], &out->value[i])) {
            return shell_fail(error, "field '%s' is malformed", rate_names[i]);
        }
    }
    if (!in && out->value[RATE_FLOOR]) {
        return shell_fail(error, "outbound floor is unsupported yet");
    }
    bool any = out->value[RATE_PEAK] || out->value[RATE_BURST];
    if (any && !out->value[RATE_AVERAGE] && !out->value[RATE_FLOOR]) {
        return shell_fail(error, in ? "either inbound average or floor is mandatory"
                                    : "outbound average is mandatory");
    }
    return true;
}

static void clear_param(void *param)
{
    xdr_free((xdrproc_t)xdr_rpc_param, param);
}

GArray *params_new(void)
{
    GArray *list = g_array_new(FALSE, TRUE, sizeof(rpc_param));
    g_array_set_clear_func(list, clear_param);
    return list;
}

void params_text(GArray *list, const char *name, const char *value)
{
    if (value) {
        rpc_param p = {.field = g_strdup(name), .value = {.type = 7}};
        p.value.rpc_value_u.s = g_strdup(value);
        g_array_append_val(list, p);
    }
}

void params_number(GArray *list, const char *name, int type, uint64_t v)
{
    rpc_param p = {.field = g_strdup(name), .value = {.type = type}};
    if (type == 2) {
        p.value.rpc_value_u.ui = (unsigned)v;
    } else if (type == 1) {
        p.value.rpc_value_u.i = (int)v;
    } else if (type == 3) {
        p.value.rpc_value_u.l = (quad_t)v;
    } else {
        p.value.rpc_value_u.ul = v;
    }
    g_array_append_val(list, p);
}

void show_param(struct shell *sh, const char *name, const char *value)
{
    enum { WIDTH = 15 };
    g_autofree char *label = g_strdup_printf("%-*s:", WIDTH, name);
    out_field_wide(sh, 0, label, " %s", value);
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

bool find_domain(struct shell *sh, const char *name, union object *out, GError **error)
{
    return shell_domain(sh, name, &out->domain, error);
}

bool find_network(struct shell *sh, const char *name, union object *out, GError **error)
{
    return shell_network(sh, name, &out->network, error);
}

bool find_pool(struct shell *sh, const char *name, union object *out, GError **error)
{
    return shell_pool(sh, name, &out->pool, error);
}

static bool find_filter(struct shell *sh, const char *name, union object *out, GError **error)
{
    return shell_filter(sh, name, &out->filter, error);
}

/* clang-format off */
const struct kind kind_domain = {
    "domain", "Domain", "'", "Failed to %smark domain '%s' as autostarted", find_domain,
    (xdrproc_t)xdr_rpc_domain, PROC_domain_get_xml_desc, PROC_domain_define_xml_flags,
    PROC_domain_set_autostart, .edit_flags = 3 /* with passwords, as it is defined */,
    .define_with_flags = true, .can_skip_validate = true,
};
const struct kind kind_network = {
    "network", "Network", "", "failed to %smark network %s as autostarted", find_network,
    (xdrproc_t)xdr_rpc_network, PROC_network_get_xml_desc, PROC_network_define_xml,
    PROC_network_set_autostart, .edit_flags = 1 /* as it is defined */,
};
const struct kind kind_pool = {
    "pool", "Pool", "", "failed to %smark pool %s as autostarted", find_pool,
    (xdrproc_t)xdr_rpc_pool, PROC_storage_pool_get_xml_desc, PROC_storage_pool_define_xml,
    PROC_storage_pool_set_autostart, .edit_flags = 1, .define_with_flags = true,
};
const struct kind kind_filter = {
    "nwfilter", "Network filter", "", NULL, find_filter, (xdrproc_t)xdr_rpc_nwfilter,
    PROC_nwfilter_get_xml_desc, PROC_nwfilter_define_xml, 0,
};
/* clang-format on */

/* Arguments of nearly all procedures: an object, alone or with one number behind it. */
struct object_call {
    xdrproc_t codec;
    union object *object;
    bool with_number;
    uint32_t number;
};

static bool_t xdr_object_call(XDR *x, struct object_call *c)
{
    return c->codec(x, c->object) && (!c->with_number || xdr_uint32_t(x, &c->number));
}

static bool ask_object(Rpc *rpc, int procedure, struct object_call *args, xdrproc_t ret_codec,
                       void *ret, size_t size, GError **error)
{
    return rpc_ask(rpc, PROGRAM_REMOTE, procedure, (xdrproc_t)xdr_object_call, args, ret_codec, ret,
                   size, error);
}

static void object_clear(const struct kind *kind, union object *o)
{
    xdr_free(kind->codec, (char *)o);
}

/* The words of a table, which know what they are given. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static char *say(const char *words, const char *one, const char *two)
{
    return words ? g_strdup_printf(words, one, two) : NULL;
}
#pragma GCC diagnostic pop

bool run_simple(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    union object o = {0};
    rpc_none none;
    if (!s->kind->find(sh, args_text(a, s->kind->option), &o, error)) {
        return false;
    }
    struct object_call args = {s->kind->codec, &o, s->with_flags,
                               s->base_flags | flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    bool ok = ask_object(shell_rpc(sh, NULL), s->procedure, &args, (xdrproc_t)xdr_rpc_none, &none,
                         sizeof(none), error);
    g_autofree char *text = say(ok ? s->done : s->failing, o.named.name, "");
    object_clear(s->kind, &o);
    if (text && ok) {
        out_note(sh, "%s", text);
    } else if (text) {
        shell_failing(sh, "%s", text);
    }
    return ok;
}

bool run_autostart(struct shell *sh, const struct args *a, GError **error)
{
    const struct kind *k = shell_data(sh);
    bool off = args_flag(a, "disable");
    union object o = {0};
    rpc_none none;
    if (!k->find(sh, args_text(a, k->option), &o, error)) {
        return false;
    }
    struct object_call args = {k->codec, &o, true, !off};
    bool ok = ask_object(shell_rpc(sh, NULL), k->set_autostart, &args, (xdrproc_t)xdr_rpc_none,
                         &none, sizeof(none), error);
    if (ok) {
        out_note(sh, "%s %s%s%s %smarked as autostarted", k->title, k->quote, o.named.name,
                 k->quote, off ? "un" : "");
    } else {
        g_autofree char *text = say(k->autostart_failing, off ? "un" : "", o.named.name);
        shell_failing(sh, "%s", text);
    }
    object_clear(k, &o);
    return ok;
}

static bool show_word(struct shell *sh, const struct args *a, bool uuid, GError **error)
{
    const struct kind *k = shell_data(sh);
    union object o = {0};
    if (!k->find(sh, args_text(a, k->option), &o, error)) {
        return false;
    }
    g_autofree char *text = uuid ? uuid_text(o.named.uuid) : g_strdup(o.named.name);
    out_text(sh, uuid ? "uuid" : "name", "%s\n", text);
    object_clear(k, &o);
    return true;
}

bool run_name(struct shell *sh, const struct args *a, GError **error)
{
    return show_word(sh, a, false, error);
}

bool run_uuid(struct shell *sh, const struct args *a, GError **error)
{
    return show_word(sh, a, true, error);
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

bool run_object_xml(struct shell *sh, const struct args *a, GError **error)
{
    const struct simple *s = shell_data(sh);
    union object o = {0};
    g_auto(rpc_text) xml = {0};
    if (!s->kind->find(sh, args_text(a, s->kind->option), &o, error)) {
        return false;
    }
    struct object_call args = {s->kind->codec, &o, true,
                               flags_of(a, s->bits, G_N_ELEMENTS(s->bits))};
    bool ok = ask_object(shell_rpc(sh, NULL), s->procedure, &args, (xdrproc_t)xdr_rpc_text, &xml,
                         sizeof(xml), error);
    object_clear(s->kind, &o);
    return ok && show_xml(sh, a, xml.text, error);
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

bool run_from_file(struct shell *sh, const struct args *a, GError **error)
{
    const struct from_file *f = shell_data(sh);
    const char *path = args_text(a, "file");
    g_autofree char *xml = shell_read_file(path, error);
    Rpc *rpc = xml ? shell_rpc(sh, error) : NULL;
    union object o = {0};
    if (!rpc) {
        return false;
    }
    rpc_text_flags args = {xml, flags_of(a, f->bits, G_N_ELEMENTS(f->bits))};
    if (!rpc_ask(rpc, PROGRAM_REMOTE, f->procedure,
                 f->with_flags ? (xdrproc_t)xdr_rpc_text_flags : (xdrproc_t)xdr_rpc_text, &args,
                 f->kind->codec, &o, sizeof(o), error)) {
        g_autofree char *text = say(f->failing, path, "");
        shell_failing(sh, "%s", text);
        return false;
    }
    g_autofree char *text = say(f->done, o.named.name, path);
    out_note(sh, "%s", text);
    bool ok = true;
    if (shell_has_option(sh, "console") && args_flag(a, "console")) {
        char *words[] = {(char *)"console", o.named.name};
        ok = shell_run_words(sh, words, G_N_ELEMENTS(words));
    }
    object_clear(f->kind, &o);
    return ok;
}

/* ---- The user's editor ---- */

enum { CTRL_C = 3, CTRL_D = 4 };
#define CHANGED "The XML configuration was changed by another user."

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

/*
 * What to do with what was refused, by one key: 'y'es, edit again, 'n'o, 'f'orce, 'i' without
 * validation.  Without a @text only the editor can be tried again.
 */
static char ask_again(const struct edit *e, const char *why, const char *text)
{
    const char *offer = !text ? "y,n,?" : e->can_skip_validate ? "y,n,i,f,?" : "y,n,f,?";
    struct termios before;
    char key = '?';
    if (!isatty(STDIN_FILENO) || !terminal_raw(&before)) {
        return 'n';
    }
    while (!key || key == '?' || key == ',' || !strchr(offer, key)) {
        printf("\r%s Try again? [%s]: ", why, offer);
        fflush(stdout);
        if (read(STDIN_FILENO, &key, 1) != 1 || key == CTRL_C || key == CTRL_D) {
            key = 'n';
        }
        key = g_ascii_tolower(key);
        if (key == '?') {
            printf("\r\ny - yes, start editor again\r\nn - no, throw away my changes\r\n%s%s"
                   "? - print this help\r\n",
                   strchr(offer, 'i') ? "i - turn off validation and try to redefine again\r\n"
                                      : "",
                   strchr(offer, 'f') ? "f - force, try to redefine again\r\n" : "");
        }
    }
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
    printf("\r\n");
    return key;
}

static bool put_edited(struct shell *sh, const struct edit *e, const char *xml, bool validate,
                       char **before, GError **error)
{
    g_autofree char *now = e->get(sh, e->data, error);
    if (!now) {
        return false;
    }
    if (strcmp(now, *before) != 0) {
        g_free(*before);
        *before = g_steal_pointer(&now);
        return shell_fail(error, CHANGED);
    }
    return e->put(sh, xml, validate, e->data, error);
}

bool edit_run(struct shell *sh, const struct edit *e, bool *changed, GError **error)
{
    g_autofree char *before = e->get(sh, e->data, error);
    g_autofree char *text = NULL;
    bool validate = e->validate;
    char next = 'y';
    *changed = false;
    while (before) {
        g_autoptr(GError) why = NULL;
        if (next == 'y') {
            g_autofree char *edited = shell_edit(sh, text ? text : before, &why);
            if (!edited && !why && !text && !e->put_unchanged) {
                return true;
            }
            if (!why && (edited || !text)) {
                g_free(text);
                text = edited ? g_steal_pointer(&edited) : g_strdup(before);
            }
        }
        if (!why && put_edited(sh, e, text, validate, &before, &why)) {
            *changed = true;
            return true;
        }
        bool raced = strcmp(why->message, CHANGED) == 0;
        if (isatty(STDIN_FILENO) && !raced) {
            g_printerr("error: %s\n", why->message);
        }
        next = ask_again(e, raced ? CHANGED : "Failed.", text);
        if (next == 'n') {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        validate &= next != 'i';
    }
    return false;
}

struct edited_object {
    const struct kind *kind;
    union object object;
};

static char *get_object(struct shell *sh, const void *data, GError **error)
{
    const struct edited_object *e = data;
    union object o = e->object;
    g_auto(rpc_text) xml = {0};
    struct object_call args = {e->kind->codec, &o, true, e->kind->edit_flags};
    return ask_object(shell_rpc(sh, NULL), e->kind->get_xml, &args, (xdrproc_t)xdr_rpc_text, &xml,
                      sizeof(xml), error)
               ? g_strdup(xml.text)
               : NULL;
}

static bool put_object(struct shell *sh, const char *xml, bool validate, const void *data,
                       GError **error)
{
    const struct edited_object *e = data;
    union object o = {0};
    rpc_text_flags args = {(char *)xml, validate};
    bool ok = rpc_ask(shell_rpc(sh, NULL), PROGRAM_REMOTE, e->kind->define,
                      e->kind->define_with_flags ? (xdrproc_t)xdr_rpc_text_flags
                                                 : (xdrproc_t)xdr_rpc_text,
                      &args, e->kind->codec, &o, sizeof(o), error);
    object_clear(e->kind, &o);
    return ok;
}

bool run_edit(struct shell *sh, const struct args *a, GError **error)
{
    const struct kind *k = shell_data(sh);
    struct edited_object o = {k, {{0}}};
    struct edit e = {get_object, put_object, &o, .can_skip_validate = k->can_skip_validate};
    bool changed;
    if (!k->find(sh, args_text(a, k->option), &o.object, error)) {
        return false;
    }
    e.validate = k->can_skip_validate && !args_flag(a, "skip-validate");
    bool ok = edit_run(sh, &e, &changed, error);
    if (ok) {
        out_note(sh, "%s %s%s%s XML configuration %s.", k->title, k->quote, o.object.named.name,
                 k->quote, changed ? "edited" : "not changed");
    }
    object_clear(k, &o.object);
    return ok;
}
