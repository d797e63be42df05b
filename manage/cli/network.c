/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <string.h>

enum { LIST_INACTIVE = 1, LIST_ACTIVE = 2 };

static int by_name(const void *a, const void *b)
{
    return g_ascii_strcasecmp(((const rpc_network *)a)->name, ((const rpc_network *)b)->name);
}

static void list_table(struct shell *sh, Rpc *rpc, const rpc_networks *all)
{
    static const char *const headers[] = {"Name", "State", "Autostart", "Persistent", NULL};
    out_table(sh, headers);
    for (unsigned i = 0; i < all->items.items_len; i++) {
        rpc_network_args args = {all->items.items_val[i]};
        rpc_int active = {0}, persistent = {0}, autostart = {-1};
        ask_network_is_active(rpc, &args, &active, NULL);
        ask_network_is_persistent(rpc, &args, &persistent, NULL);
        bool known = ask_network_get_autostart(rpc, &args, &autostart, NULL);
        out_row(sh, args.net.name, active.value ? "active" : "inactive",
                !known ? "no autostart" : autostart.value ? "yes" : "no",
                persistent.value ? "yes" : "no", NULL);
    }
    out_table_end(sh);
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"persistent", 4}, {"transient", 8}, {"autostart", 16}, {"no-autostart", 32}};
    unsigned flags = flags_of(a, bits, G_N_ELEMENTS(bits));
    flags |= args_flag(a, "inactive") ? 0 : LIST_ACTIVE;
    flags |= args_flag(a, "inactive") || args_flag(a, "all") ? LIST_INACTIVE : 0;
    rpc_list_args args = {1, flags};
    g_auto(rpc_networks) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_networks(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list networks");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_network), by_name);
    if (!args_flag(a, "name") && !args_flag(a, "uuid")) {
        list_table(sh, rpc, &all);
        return true;
    }
    for (unsigned i = 0; i < all.items.items_len; i++) {
        g_autofree char *uuid = uuid_text(all.items.items_val[i].uuid);
        out_line(sh, "%s", args_flag(a, "uuid") ? uuid : all.items.items_val[i].name);
    }
    return true;
}

static bool run_info(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_network) net = {0};
    g_auto(rpc_text) bridge = {0};
    rpc_int active = {0}, persistent = {0}, autostart = {0};
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_network_args args = {net};
    g_autofree char *uuid = uuid_text(net.uuid);
    out_field(sh, "Name:", "%s", net.name);
    out_field(sh, "UUID:", "%s", uuid);
    if (ask_network_is_active(rpc, &args, &active, NULL)) {
        out_field(sh, "Active:", "%s", active.value ? "yes" : "no");
    }
    if (ask_network_is_persistent(rpc, &args, &persistent, NULL)) {
        out_field(sh, "Persistent:", "%s", persistent.value ? "yes" : "no");
    }
    if (ask_network_get_autostart(rpc, &args, &autostart, NULL)) {
        out_field(sh, "Autostart:", "%s", autostart.value ? "yes" : "no");
    }
    if (ask_network_get_bridge_name(rpc, &args, &bridge, NULL)) {
        out_field(sh, "Bridge:", "%s", bridge.text);
    }
    return true;
}

static bool run_leases(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"Expiry Time", "MAC address", "Protocol", "IP address",
                                          "Hostname", "Client ID or DUID", NULL};
    g_auto(rpc_network) net = {0};
    g_auto(rpc_leases) leases = {0};
    char *mac = (char *)args_text(a, "mac");
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    rpc_leases_args args = {net, mac ? &mac : NULL, 1, 0};
    if (!ask_network_get_dhcp_leases(shell_rpc(sh, NULL), &args, &leases, error)) {
        shell_failing(sh, "Failed to get leases info for %s", net.name);
        return false;
    }
    out_table(sh, headers);
    for (unsigned i = 0; i < leases.items.items_len; i++) {
        const rpc_lease *l = &leases.items.items_val[i];
        g_autoptr(GDateTime) at = g_date_time_new_from_unix_local(l->expiry);
        g_autofree char *when = at ? g_date_time_format(at, "%F %T") : g_strdup("-");
        g_autofree char *address = g_strdup_printf("%s/%u", l->address, l->prefix);
        out_row(sh, when, l->mac ? *l->mac : "-", l->type == 0 ? "ipv4" : "ipv6", address,
                l->hostname ? *l->hostname : "-", l->client_id ? *l->client_id : "-", NULL);
    }
    out_table_end(sh);
    return true;
}

/* ---- net-update ---- */

static int index_of(const char *const *names, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++) {
        if (names[i] && strcmp(names[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static bool run_update(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const commands[] = {NULL, "modify", "delete", "add-last", "add-first"};
    static const char *const sections[] = {
        NULL, "bridge", "domain", "ip", "ip-dhcp-host", "ip-dhcp-range", "forward",
        "forward-interface", "forward-pf", "portgroup", "dns-host", "dns-txt", "dns-srv"};
    static const struct flag_bit bits[] = {{"live", 1}, {"config", 2}};
    const char *command = args_text(a, "command"), *xml = args_text(a, "xml");
    int c = index_of(commands, G_N_ELEMENTS(commands),
                     strcmp(command, "add") == 0 ? "add-last" : command);
    int s = index_of(sections, G_N_ELEMENTS(sections), args_text(a, "section"));
    uint64_t parent = UINT64_MAX;
    g_auto(rpc_network) net = {0};
    rpc_none none;
    if (c < 0) {
        return shell_fail(error, "unrecognized command name '%s'", command);
    }
    if (s < 0) {
        return shell_fail(error, "unrecognized section name '%s'", args_text(a, "section"));
    }
    g_autofree char *text = *xml == '<' ? g_strdup(xml) : shell_read_file(xml, error);
    if (!text || !shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    args_number(a, "parent-index", &parent);
    rpc_network_update_args args = {net, (unsigned)c, (unsigned)s, (int)parent, text,
                                    flags_of(a, bits, 2)};
    if (!ask_network_update(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to update network %s", net.name);
        return false;
    }
    out_note_open(sh, "Updated network %s %s", net.name,
                  args.flags == 3   ? "persistent config and live state"
                  : args.flags == 2 ? "persistent config"
                                    : "live state");
    return true;
}

/* ---- ports ---- */

static bool run_port_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"UUID", NULL};
    g_auto(rpc_network) net = {0};
    g_auto(rpc_network_ports) all = {0};
    bool table = !args_flag(a, "uuid");
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    rpc_network_list_args args = {net, 1, 0};
    if (!ask_network_list_all_ports(shell_rpc(sh, NULL), &args, &all, error)) {
        shell_failing(sh, "Failed to list network ports");
        return false;
    }
    if (table) {
        out_table(sh, headers);
    }
    for (unsigned i = 0; i < all.items.items_len; i++) {
        g_autofree char *uuid = uuid_text(all.items.items_val[i].uuid);
        if (table) {
            out_row(sh, uuid, NULL);
        } else {
            out_line(sh, "%s", uuid);
        }
    }
    if (table) {
        out_table_end(sh);
    }
    return true;
}

static bool run_port_create(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"validate", 2}};
    g_auto(rpc_network) net = {0};
    g_auto(rpc_network_port_ret) ret = {0};
    const char *path = args_text(a, "file");
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    g_autofree char *xml = shell_read_file(path, error);
    if (!xml) {
        return false;
    }
    rpc_network_text_flags args = {net, xml, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_network_port_create_xml(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Failed to create network from %s", path);
        return false;
    }
    g_autofree char *uuid = uuid_text(ret.port.uuid);
    out_note_open(sh, "Network port %s created from %s", uuid, path);
    return true;
}

static bool find_port(struct shell *sh, const struct args *a, rpc_network_port_ret *ret,
                      GError **error)
{
    g_auto(rpc_network) net = {0};
    const char *name = args_text(a, "port");
    rpc_network_port_args args;
    if (!shell_network(sh, args_text(a, "network"), &net, error)) {
        return false;
    }
    args.net = net;
    if (!text_uuid(name, args.uuid)) {
        return shell_fail(error, "failed to get network port '%s'", name);
    }
    if (!ask_network_port_lookup_by_uuid(shell_rpc(sh, NULL), &args, ret, error)) {
        shell_failing(sh, "failed to get network port '%s'", name);
        return false;
    }
    return true;
}

static bool run_port_xml(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_network_port_ret) found = {0};
    g_auto(rpc_text) xml = {0};
    if (!find_port(sh, a, &found, error)) {
        return false;
    }
    rpc_network_port_flags args = {found.port, 0};
    return ask_network_port_get_xml_desc(shell_rpc(sh, NULL), &args, &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

static bool run_port_delete(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_network_port_ret) found = {0};
    rpc_none none;
    if (!find_port(sh, a, &found, error)) {
        return false;
    }
    g_autofree char *uuid = uuid_text(found.port.uuid);
    rpc_network_port_flags args = {found.port, 0};
    if (!ask_network_port_delete(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to delete network port %s", uuid);
        return false;
    }
    out_note(sh, "Network port %s deleted", uuid);
    return true;
}

#define PORT_OPTION                                                                                \
    {                                                                                              \
        "port", OPT_TEXT, OPT_NEEDED, "port UUID"                                                  \
    }
#define VALIDATE_OPTION                                                                            \
    {                                                                                              \
        "validate", OPT_BOOL, 0, "check the XML (it always is)"                                    \
    }
#define SIMPLE(...) (&(const struct simple){&kind_network, __VA_ARGS__})

const struct verb_group verb_group_network = {"Networking", "network", (const struct verb_row[]){
    {"net-autostart", (const struct option_row[]){NETWORK_OPTION,
        {"disable", OPT_BOOL, 0, "not any more"}, {NULL}},
     "starts a network together with the daemon", run_autostart, &kind_network},
    {"net-create", (const struct option_row[]){FILE_OPTION, VALIDATE_OPTION, {NULL}},
     "starts a network from XML without defining it", run_from_file,
     &(const struct from_file){&kind_network, PROC_network_create_xml_flags, true,
        "Failed to create network from %s", "Network %s created from %s",
        {{"validate", 1}}}},
    {"net-define", (const struct option_row[]){FILE_OPTION, VALIDATE_OPTION, {NULL}},
     "keeps a network's XML, without starting it", run_from_file,
     &(const struct from_file){&kind_network, PROC_network_define_xml_flags, true,
        "Failed to define network from %s", "Network %s defined from %s",
        {{"validate", 1}}}},
    {"net-destroy", (const struct option_row[]){NETWORK_OPTION, {NULL}},
     "stops a network", run_simple,
     SIMPLE(PROC_network_destroy, false, 0, "Failed to destroy network %s",
            "Network %s destroyed", {{NULL}})},
    {"net-dhcp-leases", (const struct option_row[]){NETWORK_OPTION,
        {"mac", OPT_TEXT, 0, "of this card alone"}, {NULL}},
     "lists the addresses that a network gave out", run_leases},
    {"net-dumpxml", (const struct option_row[]){NETWORK_OPTION,
        {"inactive", OPT_BOOL, 0, "as it will be at the next start"}, XPATH_OPTIONS, {NULL}},
     "prints a network's XML", run_object_xml,
     SIMPLE(PROC_network_get_xml_desc, true, 0, NULL, NULL, {{"inactive", 1}})},
    {"net-edit", (const struct option_row[]){NETWORK_OPTION, {NULL}},
     "changes a network's XML in an editor", run_edit, &kind_network},
    {"net-info", (const struct option_row[]){NETWORK_OPTION, {NULL}}, "tells about a network",
     run_info},
    {"net-list", (const struct option_row[]){
        {"inactive", OPT_BOOL, 0, "those that do not run"}, {"all", OPT_BOOL, 0, "both"},
        {"persistent", OPT_BOOL, 0, "with definition"},
        {"transient", OPT_BOOL, 0, "without"}, {"autostart", OPT_BOOL, 0, "with autostart"},
        {"no-autostart", OPT_BOOL, 0, "without"}, {"uuid", OPT_BOOL, 0, "only UUIDs"},
        {"name", OPT_BOOL, 0, "only names"}, {"table", OPT_BOOL, 0, "a table (default)"}, {NULL}},
     "lists networks", run_list},
    {"net-name", (const struct option_row[]){NETWORK_OPTION, {NULL}}, "prints a network's name",
     run_name, &kind_network},
    {"net-port-create", (const struct option_row[]){NETWORK_OPTION, FILE_OPTION, VALIDATE_OPTION,
        {NULL}},
     "makes a port on a running network", run_port_create},
    {"net-port-delete", (const struct option_row[]){NETWORK_OPTION, PORT_OPTION, {NULL}},
     "removes a port of a network", run_port_delete},
    {"net-port-dumpxml", (const struct option_row[]){NETWORK_OPTION, PORT_OPTION, XPATH_OPTIONS,
        {NULL}},
     "prints the XML of a network's port", run_port_xml},
    {"net-port-list", (const struct option_row[]){NETWORK_OPTION,
        {"uuid", OPT_BOOL, 0, "only UUIDs"}, {"table", OPT_BOOL, 0, "a table (default)"}, {NULL}},
     "lists who is plugged into a network", run_port_list},
    {"net-start", (const struct option_row[]){NETWORK_OPTION, {NULL}},
     "starts a network that is defined", run_simple,
     SIMPLE(PROC_network_create, false, 0, "Failed to start network %s", "Network %s started",
            {{NULL}})},
    {"net-undefine", (const struct option_row[]){NETWORK_OPTION, {NULL}},
     "forgets a network's definition", run_simple,
     SIMPLE(PROC_network_undefine, false, 0, "Failed to undefine network %s",
            "Network %s has been undefined", {{NULL}})},
    {"net-update", (const struct option_row[]){NETWORK_OPTION,
        {"command", OPT_TEXT, OPT_NEEDED, "add, add-first, add-last, delete, modify"},
        {"section", OPT_TEXT, OPT_NEEDED, "ip-dhcp-host, dns-host, portgroup, ..."},
        {"xml", OPT_TEXT, OPT_NEEDED, "the element, or a file with it", COMPLETE_FILE},
        {"parent-index", OPT_NUMBER, OPT_NAMED, "which of several parents"},
        {"config", OPT_BOOL, 0, "from the next start on"},
        {"live", OPT_BOOL, 0, "in the running network"},
        {"current", OPT_BOOL, 0, "in whichever of the two there is"}, {NULL}},
     "changes a part of a network", run_update},
    {"net-uuid", (const struct option_row[]){NETWORK_OPTION, {NULL}}, "prints a network's UUID",
     run_uuid, &kind_network},
    {NULL},
}};
