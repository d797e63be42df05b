/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <inttypes.h>
#include <string.h>

static const char *state_name(unsigned state)
{
    static const char *const names[] = {"inactive", "building", "running", "degraded",
                                        "inaccessible"};
    return state < G_N_ELEMENTS(names) ? names[state] : "unknown";
}

static int by_name(const void *a, const void *b)
{
    return g_ascii_strcasecmp(((const rpc_pool *)a)->name, ((const rpc_pool *)b)->name);
}

/* ---- pool-list ---- */

static void list_row(struct shell *sh, Rpc *rpc, const rpc_pool *pool, bool details)
{
    rpc_pool_args args = {*pool};
    rpc_int active = {0}, persistent = {0}, autostart = {0};
    rpc_pool_info info = {0};
    ask_storage_pool_is_active(rpc, &args, &active, NULL);
    bool known = ask_storage_pool_get_autostart(rpc, &args, &autostart, NULL);
    const char *started = !known ? "no autostart" : autostart.value ? "yes" : "no";
    if (!details) {
        out_row(sh, pool->name, active.value ? "active" : "inactive", started, NULL);
        return;
    }
    ask_storage_pool_is_persistent(rpc, &args, &persistent, NULL);
    bool sized = ask_storage_pool_get_info(rpc, &args, &info, NULL) && active.value;
    g_autofree char *capacity = sized ? out_size(info.capacity, 2) : g_strdup("-");
    g_autofree char *allocation = sized ? out_size(info.allocation, 2) : g_strdup("-");
    g_autofree char *available = sized ? out_size(info.available, 2) : g_strdup("-");
    out_row(sh, pool->name, state_name(info.state), started, persistent.value ? "yes" : "no",
            capacity, allocation, available, NULL);
}

/* The bits of "dir,fs", one after the other from 1 << 6 on. */
static bool types_of(const char *text, unsigned *flags, GError **error)
{
    static const char *const types[] = {"dir",   "fs",       "netfs",   "logical", "disk",
                                        "iscsi", "scsi",     "mpath",   "rbd",     "sheepdog",
                                        "gluster", "zfs",    "vstorage", "iscsi-direct"};
    enum { FIRST = 6 };
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    for (unsigned i = 0; words[i]; i++) {
        unsigned n = 0;
        while (n < G_N_ELEMENTS(types) && strcmp(types[n], words[i]) != 0) {
            n++;
        }
        if (n == G_N_ELEMENTS(types)) {
            return shell_fail(error, "Invalid pool type '%s'", words[i]);
        }
        *flags |= 1u << (FIRST + n);
    }
    return true;
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    enum { INACTIVE = 1, ACTIVE = 2 };
    static const struct flag_bit bits[] = {
        {"persistent", 4}, {"transient", 8}, {"autostart", 16}, {"no-autostart", 32}};
    static const char *const plain[] = {"Name", "State", "Autostart", NULL};
    static const char *const detailed[] = {"Name", "State", "Autostart", "Persistent", "Capacity",
                                           "Allocation", "Available", NULL};
    unsigned flags = flags_of(a, bits, G_N_ELEMENTS(bits));
    if (args_text(a, "type") && !types_of(args_text(a, "type"), &flags, error)) {
        return false;
    }
    flags |= args_flag(a, "inactive") ? 0 : ACTIVE;
    flags |= args_flag(a, "inactive") || args_flag(a, "all") ? INACTIVE : 0;
    rpc_list_args args = {1, flags};
    g_auto(rpc_pools) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_storage_pools(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list pools");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_pool), by_name);
    if (args_flag(a, "name") || args_flag(a, "uuid")) {
        for (unsigned i = 0; i < all.items.items_len; i++) {
            g_autofree char *uuid = uuid_text(all.items.items_val[i].uuid);
            out_line(sh, "%s", args_flag(a, "uuid") ? uuid : all.items.items_val[i].name);
        }
        return true;
    }
    out_table(sh, args_flag(a, "details") ? detailed : plain);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        list_row(sh, rpc, &all.items.items_val[i], args_flag(a, "details"));
    }
    out_table_end(sh);
    return true;
}

/* ---- pool-info ---- */

static void size_field(struct shell *sh, const char *label, uint64_t bytes, bool plain)
{
    g_autofree char *human = plain ? g_strdup_printf("%" PRIu64, bytes) : out_size(bytes, 2);
    out_field(sh, label, "%s", human);
}

static bool run_info(struct shell *sh, const struct args *a, GError **error)
{
    bool bytes = args_flag(a, "bytes");
    g_auto(rpc_pool) pool = {0};
    rpc_pool_info info;
    rpc_int persistent = {0}, autostart = {0};
    if (!shell_pool(sh, args_text(a, "pool"), &pool, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_pool_args args = {pool};
    if (!ask_storage_pool_get_info(rpc, &args, &info, error)) {
        return false;
    }
    g_autofree char *uuid = uuid_text(pool.uuid);
    out_field(sh, "Name:", "%s", pool.name);
    out_field(sh, "UUID:", "%s", uuid);
    out_field(sh, "State:", "%s", state_name(info.state));
    if (ask_storage_pool_is_persistent(rpc, &args, &persistent, NULL)) {
        out_field(sh, "Persistent:", "%s", persistent.value ? "yes" : "no");
    }
    if (ask_storage_pool_get_autostart(rpc, &args, &autostart, NULL)) {
        out_field(sh, "Autostart:", "%s", autostart.value ? "yes" : "no");
    }
    if (info.state == 2 || info.state == 3) {
        size_field(sh, "Capacity:", info.capacity, bytes);
        size_field(sh, "Allocation:", info.allocation, bytes);
        size_field(sh, "Available:", info.available, bytes);
    }
    return true;
}

/* ---- what there could be ---- */

static bool find_sources(struct shell *sh, const struct args *a, char *spec, GError **error)
{
    rpc_find_sources_args args = {(char *)args_text(a, "type"), spec ? &spec : NULL, 0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_find_storage_pool_sources(rpc, &args, &xml, error)) {
        shell_failing(sh, "Failed to find any %s pool sources", args_text(a, "type"));
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_find(struct shell *sh, const struct args *a, GError **error)
{
    const char *file = args_text(a, "srcSpec");
    g_autofree char *spec = file ? shell_read_file(file, error) : NULL;
    return (spec || !file) && find_sources(sh, a, spec, error);
}

static bool run_find_as(struct shell *sh, const struct args *a, GError **error)
{
    const char *host = args_text(a, "host"), *port = args_text(a, "port");
    const char *initiator = args_text(a, "initiator");
    if (!host) {
        return port || initiator ? shell_fail(error, "%s requires --host to be specified",
                                              port ? "--port" : "--initiator")
                                 : find_sources(sh, a, NULL, error);
    }
    g_autofree char *safe = g_markup_printf_escaped("<source>\n  <host name='%s'%s%s%s/>\n", host,
                                                    port ? " port='" : "", port ? port : "",
                                                    port ? "'" : "");
    g_autofree char *from =
        initiator ? g_markup_printf_escaped("  <initiator>\n    <iqn name='%s'/>\n  </initiator>\n",
                                            initiator)
                  : g_strdup("");
    g_autofree char *spec = g_strconcat(safe, from, "</source>\n", NULL);
    return find_sources(sh, a, spec, error);
}

static bool run_capabilities(struct shell *sh, const struct args *a, GError **error)
{
    (void)a;
    rpc_flags args = {0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_storage_pool_capabilities(rpc, &args, &xml, error)) {
        shell_failing(sh, "failed to get storage pool capabilities");
        return false;
    }
    out_text(sh, "xml", "%s\n", xml.text);
    return true;
}

/* ---- pool-define-as, pool-create-as ---- */

static void element(GString *xml, const char *indent, const char *fmt, const char *value)
{
    if (value) {
        g_autofree char *safe = g_markup_escape_text(value, -1);
        g_string_append(xml, indent);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        g_string_append_printf(xml, fmt, safe);
#pragma GCC diagnostic pop
    }
}

static char *pool_xml(const struct args *a)
{
    GString *xml = g_string_new(NULL);
    element(xml, "", "<pool type='%s'>\n", args_text(a, "type"));
    element(xml, "  ", "<name>%s</name>\n", args_text(a, "name"));
    static const char *const source[] = {"source-host", "source-path", "source-dev", "source-name",
                                         "source-format", "auth-type", "source-initiator",
                                         "source-protocol-ver"};
    bool any = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(source); i++) {
        any |= args_text(a, source[i]) != NULL;
    }
    if (any) {
        g_string_append(xml, "  <source>\n");
        element(xml, "    ", "<host name='%s'/>\n", args_text(a, "source-host"));
        element(xml, "    ", "<dir path='%s'/>\n", args_text(a, "source-path"));
        element(xml, "    ", "<device path='%s'/>\n", args_text(a, "source-dev"));
        element(xml, "    ", "<initiator>\n      <iqn name='%s'/>\n    </initiator>\n",
                args_text(a, "source-initiator"));
        element(xml, "    ", "<auth type='%s'", args_text(a, "auth-type"));
        element(xml, "", " username='%s'>\n", args_text(a, "auth-username"));
        element(xml, "      ", "<secret usage='%s'/>\n    </auth>\n", args_text(a, "secret-usage"));
        element(xml, "      ", "<secret uuid='%s'/>\n    </auth>\n", args_text(a, "secret-uuid"));
        element(xml, "    ", "<format type='%s'/>\n", args_text(a, "source-format"));
        element(xml, "    ", "<name>%s</name>\n", args_text(a, "source-name"));
        element(xml, "    ", "<protocol ver='%s'/>\n", args_text(a, "source-protocol-ver"));
        g_string_append(xml, "  </source>\n");
    }
    if (args_text(a, "target")) {
        g_string_append(xml, "  <target>\n");
        element(xml, "    ", "<path>%s</path>\n", args_text(a, "target"));
        g_string_append(xml, "  </target>\n");
    }
    g_string_append(xml, "</pool>\n");
    return g_string_free(xml, FALSE);
}

/* <auth> has all of its parts or is not there. */
static bool check_auth(const struct args *a, GError **error)
{
    bool type = args_text(a, "auth-type"), user = args_text(a, "auth-username");
    bool usage = args_text(a, "secret-usage"), uuid = args_text(a, "secret-uuid");
    if (type != user || type != (usage || uuid)) {
        return shell_fail(error, "--auth-type, --auth-username and one of --secret-usage and "
                                 "--secret-uuid belong together");
    }
    return !(usage && uuid) || shell_fail(error, "Options --secret-uuid and --secret-usage are "
                                                 "mutually exclusive");
}

static bool run_as(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"build", 1}, {"overwrite", 2}, {"no-overwrite", 4}};
    bool create = strcmp(shell_data(sh), "create") == 0;
    if (!check_auth(a, error)) {
        return false;
    }
    g_autofree char *xml = pool_xml(a);
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s", xml);
        return true;
    }
    Rpc *rpc = shell_rpc(sh, error);
    g_auto(rpc_pool_ret) ret = {0};
    rpc_text_flags args = {xml, create ? flags_of(a, bits, G_N_ELEMENTS(bits)) : 0};
    bool ok = rpc && (create ? ask_storage_pool_create_xml(rpc, &args, &ret, error)
                             : ask_storage_pool_define_xml(rpc, &args, &ret, error));
    if (!ok) {
        shell_failing(sh, "Failed to %s pool %s", create ? "create" : "define",
                      args_text(a, "name"));
        return false;
    }
    out_note(sh, "Pool %s %s", ret.pool.name, create ? "created" : "defined");
    return true;
}

#define SIMPLE(...) (&(const struct simple){&kind_pool, __VA_ARGS__})
#define AS_OPTIONS                                                                                 \
    {"name", OPT_TEXT, OPT_NEEDED, "name of the pool"},                                            \
        {"type", OPT_TEXT, OPT_NEEDED, "dir, fs, netfs, logical, disk, iscsi, ..."},               \
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"},                                \
        {"source-host", OPT_TEXT, 0, "host that has it"},                                          \
        {"source-path", OPT_TEXT, 0, "path there"}, {"source-dev", OPT_TEXT, 0, "block device"},   \
        {"source-name", OPT_TEXT, 0, "name of the source"},                                        \
        {"target", OPT_TEXT, 0, "where it is on this host", COMPLETE_FILE},                        \
        {"source-format", OPT_TEXT, 0, "file system, partition table"},                            \
        {"auth-type", OPT_TEXT, 0, "chap, ceph"}, {"auth-username", OPT_TEXT, 0, "user there"},    \
        {"secret-usage", OPT_TEXT, 0, "usage of the secret"},                                      \
        {"secret-uuid", OPT_TEXT, 0, "UUID of the secret"},                                        \
        {"source-protocol-ver", OPT_TEXT, 0, "version of the protocol"},                           \
        {"source-initiator", OPT_TEXT, 0, "our name, for iSCSI"}

const struct verb_group verb_group_pool = {"Storage Pool", "pool", (const struct verb_row[]){
    {"find-storage-pool-sources", (const struct option_row[]){
        {"type", OPT_TEXT, OPT_NEEDED, "netfs, logical, iscsi, ..."},
        {"srcSpec", OPT_TEXT, 0, "file with <source>", COMPLETE_FILE}, {NULL}},
     "looks for what pools could be of", run_find},
    {"find-storage-pool-sources-as", (const struct option_row[]){
        {"type", OPT_TEXT, OPT_NEEDED, "netfs, logical, iscsi, ..."},
        {"host", OPT_TEXT, 0, "host to ask"}, {"port", OPT_TEXT, 0, "port there"},
        {"initiator", OPT_TEXT, 0, "our name, for iSCSI"}, {NULL}},
     "the same from arguments", run_find_as},
    {"pool-autostart", (const struct option_row[]){POOL_OPTION,
        {"disable", OPT_BOOL, 0, "not any more"}, {NULL}},
     "starts a pool together with the daemon", run_autostart, &kind_pool},
    {"pool-build", (const struct option_row[]){POOL_OPTION,
        {"no-overwrite", OPT_BOOL, 0, "not if there is something"},
        {"overwrite", OPT_BOOL, 0, "even if there is something"}, {NULL}},
     "makes what a pool lives in", run_simple,
     SIMPLE(PROC_storage_pool_build, true, 0, "Failed to build pool %s", "Pool %s built",
            {{"no-overwrite", 4}, {"overwrite", 8}})},
    {"pool-capabilities", NULL, "prints what kinds of pools there are, as XML", run_capabilities},
    {"pool-create", (const struct option_row[]){FILE_OPTION,
        {"build", OPT_BOOL, 0, "make what it lives in"},
        {"no-overwrite", OPT_BOOL, 0, "not if there is something"},
        {"overwrite", OPT_BOOL, 0, "even if there is something"}, {NULL}},
     "starts a pool from XML without defining it", run_from_file,
     &(const struct from_file){&kind_pool, PROC_storage_pool_create_xml, true,
        "Failed to create pool from %s", "Pool %s created from %s",
        {{"build", 1}, {"overwrite", 2}, {"no-overwrite", 4}}}},
    {"pool-create-as", (const struct option_row[]){AS_OPTIONS,
        {"build", OPT_BOOL, 0, "make what it lives in"},
        {"no-overwrite", OPT_BOOL, 0, "not if there is something"},
        {"overwrite", OPT_BOOL, 0, "even if there is something"}, {NULL}},
     "starts a pool from arguments without defining it", run_as, "create"},
    {"pool-define", (const struct option_row[]){FILE_OPTION,
        {"validate", OPT_BOOL, 0, "check the XML (it always is)"}, {NULL}},
     "keeps a pool's XML, without starting it", run_from_file,
     &(const struct from_file){&kind_pool, PROC_storage_pool_define_xml, true,
        "Failed to define pool from %s", "Pool %s defined from %s",
        {{"validate", 1}}}},
    {"pool-define-as", (const struct option_row[]){AS_OPTIONS, {NULL}}, "defines a pool from arguments",
     run_as, "define"},
    {"pool-delete", (const struct option_row[]){POOL_OPTION, {NULL}},
     "removes what a pool lives in", run_simple,
     SIMPLE(PROC_storage_pool_delete, true, 0, "Failed to delete pool %s", "Pool %s deleted",
            {{NULL}})},
    {"pool-destroy", (const struct option_row[]){POOL_OPTION, {NULL}}, "stops a pool",
     run_simple,
     SIMPLE(PROC_storage_pool_destroy, false, 0, "Failed to destroy pool %s", "Pool %s destroyed",
            {{NULL}})},
    {"pool-dumpxml", (const struct option_row[]){POOL_OPTION,
        {"inactive", OPT_BOOL, 0, "as it will be at the next start"}, XPATH_OPTIONS, {NULL}},
     "prints a pool's XML", run_object_xml,
     SIMPLE(PROC_storage_pool_get_xml_desc, true, 0, NULL, NULL, {{"inactive", 1}})},
    {"pool-edit", (const struct option_row[]){POOL_OPTION, {NULL}},
     "changes a pool's XML in an editor", run_edit, &kind_pool},
    {"pool-info", (const struct option_row[]){POOL_OPTION,
        {"bytes", OPT_BOOL, 0, "sizes as plain numbers"}, {NULL}},
     "tells about a pool", run_info},
    {"pool-list", (const struct option_row[]){
        {"inactive", OPT_BOOL, 0, "those that do not run"}, {"all", OPT_BOOL, 0, "both"},
        {"transient", OPT_BOOL, 0, "without definition"},
        {"persistent", OPT_BOOL, 0, "with one"}, {"autostart", OPT_BOOL, 0, "with autostart"},
        {"no-autostart", OPT_BOOL, 0, "without"},
        {"type", OPT_TEXT, 0, "of these kinds: dir,netfs,..."}, {"details", OPT_BOOL, 0, "sizes too"},
        {"uuid", OPT_BOOL, 0, "only UUIDs"}, {"name", OPT_BOOL, 0, "only names"}, {NULL}},
     "lists pools", run_list},
    {"pool-name", (const struct option_row[]){POOL_OPTION, {NULL}}, "prints a pool's name",
     run_name, &kind_pool},
    {"pool-refresh", (const struct option_row[]){POOL_OPTION, {NULL}},
     "looks again at what a pool holds", run_simple,
     SIMPLE(PROC_storage_pool_refresh, true, 0, "Failed to refresh pool %s", "Pool %s refreshed",
            {{NULL}})},
    {"pool-start", (const struct option_row[]){POOL_OPTION,
        {"build", OPT_BOOL, 0, "make what it lives in"},
        {"no-overwrite", OPT_BOOL, 0, "not if there is something"},
        {"overwrite", OPT_BOOL, 0, "even if there is something"}, {NULL}},
     "starts a pool that is defined", run_simple,
     SIMPLE(PROC_storage_pool_create, true, 0, "Failed to start pool %s", "Pool %s started",
            {{"build", 1}, {"overwrite", 2}, {"no-overwrite", 4}})},
    {"pool-undefine", (const struct option_row[]){POOL_OPTION, {NULL}},
     "forgets a pool's definition", run_simple,
     SIMPLE(PROC_storage_pool_undefine, false, 0, "Failed to undefine pool %s",
            "Pool %s has been undefined", {{NULL}})},
    {"pool-uuid", (const struct option_row[]){POOL_OPTION, {NULL}}, "prints a pool's UUID",
     run_uuid, &kind_pool},
    {NULL},
}};
