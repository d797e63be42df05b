/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <string.h>

/*
 * The host's own interfaces, and the filters that machines' cards name.
 */
AUTO_XDR(rpc_interface_ret)

/* ---- Interfaces ---- */

/* By name, or by address if it looks like one. */
static bool find_interface(struct shell *sh, const char *name, rpc_interface_ret *ret,
                           GError **error)
{
    rpc_text text = {(char *)name};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc) {
        return false;
    }
    if (strchr(name, ':') ? !ask_interface_lookup_by_mac_string(rpc, &text, ret, error)
                          : !ask_interface_lookup_by_name(rpc, &text, ret, error)) {
        shell_failing(sh, "failed to get interface '%s'", name);
        return false;
    }
    return true;
}

static int by_interface(const void *a, const void *b)
{
    return strcmp(((const rpc_interface *)a)->name, ((const rpc_interface *)b)->name);
}

static bool run_iface_list(struct shell *sh, const struct args *a, GError **error)
{
    enum { INACTIVE = 1, ACTIVE = 2 };
    static const char *const headers[] = {"Name", "State", "MAC Address", NULL};
    unsigned flags = args_flag(a, "all")        ? INACTIVE | ACTIVE
                     : args_flag(a, "inactive") ? INACTIVE
                                                : ACTIVE;
    rpc_list_args args = {1, flags};
    g_auto(rpc_interfaces) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_interfaces(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list interfaces");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_interface), by_interface);
    out_table(sh, headers);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        rpc_interface_args one = {all.items.items_val[i]};
        rpc_int active = {0};
        bool on = ask_interface_is_active(rpc, &one, &active, NULL) && active.value;
        out_row(sh, one.iface.name, on ? "active" : "inactive", one.iface.mac, NULL);
    }
    out_table_end(sh);
    return true;
}

static bool run_iface_xml(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_interface_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    if (!find_interface(sh, args_text(a, "interface"), &ret, error)) {
        return false;
    }
    rpc_interface_flags args = {ret.iface, args_flag(a, "inactive")};
    return ask_interface_get_xml_desc(shell_rpc(sh, NULL), &args, &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

/* The one that is not given: .data says which. */
static bool run_iface_word(struct shell *sh, const struct args *a, GError **error)
{
    bool name = strcmp(shell_data(sh), "name") == 0;
    g_auto(rpc_interface_ret) ret = {0};
    if (!find_interface(sh, args_text(a, "interface"), &ret, error)) {
        return false;
    }
    out_text(sh, name ? "name" : "mac", "%s\n", name ? ret.iface.name : ret.iface.mac);
    return true;
}

/* ---- Filters ---- */

static int by_filter(const void *a, const void *b)
{
    return strcmp(((const rpc_nwfilter *)a)->name, ((const rpc_nwfilter *)b)->name);
}

static bool run_filter_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"UUID", "Name", NULL};
    rpc_list_args args = {1, 0};
    g_auto(rpc_nwfilters) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    (void)a;
    if (!rpc || !ask_connect_list_all_nwfilters(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list network filters");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_nwfilter), by_filter);
    out_table(sh, headers);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        g_autofree char *uuid = uuid_text(all.items.items_val[i].uuid);
        out_row(sh, uuid, all.items.items_val[i].name, NULL);
    }
    out_table_end(sh);
    return true;
}

static int by_port(const void *a, const void *b)
{
    return g_ascii_strcasecmp(((const rpc_nwfilter_binding *)a)->port,
                              ((const rpc_nwfilter_binding *)b)->port);
}

static bool run_binding_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"Port Dev", "Filter", NULL};
    (void)a;
    rpc_list_args args = {1, 0};
    g_auto(rpc_nwfilter_bindings) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_nwfilter_bindings(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list network filter bindings");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_nwfilter_binding), by_port);
    out_table(sh, headers);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        out_row(sh, all.items.items_val[i].port, all.items.items_val[i].filter, NULL);
    }
    out_table_end(sh);
    return true;
}

static bool run_binding_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    rpc_text port = {(char *)args_text(a, "binding")};
    g_auto(rpc_nwfilter_binding_ret) found = {0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_nwfilter_binding_lookup_by_port_dev(rpc, &port, &found, error)) {
        shell_failing(sh, "failed to get nwfilter binding for port dev '%s'", port.text);
        return false;
    }
    rpc_nwfilter_binding_flags args = {found.binding, 0};
    return ask_nwfilter_binding_get_xml_desc(rpc, &args, &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

#define INTERFACE                                                                                  \
    {                                                                                              \
        "interface", OPT_TEXT, OPT_NEEDED, "name or MAC address of the interface"                  \
    }
#define FILTER                                                                                     \
    {                                                                                              \
        "nwfilter", OPT_TEXT, OPT_NEEDED, "name or UUID of the filter"                             \
    }

const struct verb_group verb_group_hostnet = {
    "Interfaces and Filters", "interface",
    (const struct verb_row[]){
        {"iface-dumpxml",
         (const struct option_row[]){
             INTERFACE, {"inactive", OPT_BOOL, 0, "as it is defined"}, XPATH_OPTIONS, {NULL}},
         "prints a host interface's XML", run_iface_xml},
        {"iface-list",
         (const struct option_row[]){{"inactive", OPT_BOOL, 0, "those that are down"},
                                     {"all", OPT_BOOL, 0, "all of them"},
                                     {NULL}},
         "lists the host's interfaces", run_iface_list},
        {"iface-mac", (const struct option_row[]){INTERFACE, {NULL}},
         "prints an interface's address", run_iface_word, "mac"},
        {"iface-name", (const struct option_row[]){INTERFACE, {NULL}}, "prints an interface's name",
         run_iface_word, "name"},
        {"nwfilter-binding-dumpxml",
         (const struct option_row[]){
             {"binding", OPT_TEXT, OPT_NEEDED, "name of the port"}, XPATH_OPTIONS, {NULL}},
         "prints which filter a port has", run_binding_dumpxml},
        {"nwfilter-binding-list", NULL, "lists the ports that have filters", run_binding_list},
        {"nwfilter-define",
         (const struct option_row[]){
             FILE_OPTION, {"validate", OPT_BOOL, 0, "what is unknown is always refused"}, {NULL}},
         "makes or changes a filter from XML", run_from_file,
         &(const struct from_file){&kind_filter,
                                   PROC_nwfilter_define_xml,
                                   false,
                                   "Failed to define network filter from %s",
                                   "Network filter %s defined from %s",
                                   {{NULL}}}},
        {"nwfilter-dumpxml", (const struct option_row[]){FILTER, XPATH_OPTIONS, {NULL}},
         "prints a filter's XML", run_object_xml,
         &(const struct simple){&kind_filter, PROC_nwfilter_get_xml_desc, true}},
        {"nwfilter-edit", (const struct option_row[]){FILTER, {NULL}},
         "changes a filter in an editor", run_edit, &kind_filter},
        {"nwfilter-list", NULL, "lists filters", run_filter_list},
        {"nwfilter-undefine", (const struct option_row[]){FILTER, {NULL}}, "forgets a filter",
         run_simple,
         &(const struct simple){&kind_filter, PROC_nwfilter_undefine, false, 0,
                                "Failed to undefine network filter %s",
                                "Network filter %s undefined"}},
        {NULL},
    }};
