/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include "base/json.h"

#include <string.h>

/*
 * What the agent inside a guest knows and does, and the guest's addresses.
 */
#define NAMED DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)

static bool run_agent_command(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_maybe_text) got = {0};
    g_auto(GStrv) none = g_new0(char *, 1);
    char **words = args_many(a, "cmd");
    enum { BLOCK = -2, DEFAULT = -1, NO_WAIT = 0 };
    g_autofree char *line = g_strjoinv(" ", words ? words : none);
    uint64_t seconds = 0;
    bool given = args_number(a, "timeout", &seconds);
    int timeout = given                    ? (int)MIN(seconds, INT_MAX)
                  : args_flag(a, "async")  ? NO_WAIT
                  : args_flag(a, "block")  ? BLOCK
                                           : DEFAULT;
    if (given && timeout < 1) {
        return shell_fail(error, "timeout must be positive");
    }
    if (given + args_flag(a, "async") + args_flag(a, "block") > 1) {
        return shell_fail(error, "timeout, async and block options are exclusive");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_agent_command_args args = {dom, line, timeout, 0};
    if (!ask_domain_agent_command(shell_rpc(sh, NULL), &args, &got, error)) {
        return false;
    }
    g_autoptr(json_t) answer =
        args_flag(a, "pretty") && got.text ? json_loads(*got.text, 0, NULL) : NULL;
    g_autofree char *pretty = answer ? json_dumps(answer, JSON_ENCODE_ANY | JSON_INDENT(2)) : NULL;
    out_text(sh, "answer", pretty ? "%s\n\n" : "%s\n",
             pretty ? pretty : got.text ? *got.text : "");
    return true;
}

static bool run_domhostname(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_text) got = {0};
    const char *source = args_text(a, "source");
    unsigned from = g_strcmp0(source, "agent") == 0 ? 2 : g_strcmp0(source, "lease") == 0 ? 1 : 0;
    if (source && !from) {
        return shell_fail(error, "Unknown data source '%s'", source);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, from};
    if (!ask_domain_get_hostname(shell_rpc(sh, NULL), &args, &got, error)) {
        shell_failing(sh, "failed to get hostname");
        return false;
    }
    out_text(sh, "hostname", "%s\n", got.text);
    return true;
}

static bool run_domtime(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_time now;
    rpc_none none;
    uint64_t wanted = (uint64_t)g_get_real_time() / G_USEC_PER_SEC;
    bool set = args_number(a, "time", &wanted) || args_flag(a, "now") || args_flag(a, "sync");
    if (!exclusive(a, "time", "now", error) || !exclusive(a, "time", "sync", error) ||
        !exclusive(a, "now", "sync", error)) {
        return false;
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (set) {
        rpc_set_time_args args = {dom, (int64_t)wanted, 0, args_flag(a, "sync")};
        return ask_domain_set_time(shell_rpc(sh, NULL), &args, &none, error);
    }
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_get_time(shell_rpc(sh, NULL), &args, &now, error)) {
        return false;
    }
    if (args_flag(a, "pretty")) {
        g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(now.seconds);
        g_autofree char *text = t ? g_date_time_format(t, "%F %T") : g_strdup("?");
        out_text(sh, "time", "Time: %s", text);
    } else {
        out_text(sh, "time", "Time: %ld", (long)now.seconds);
    }
    return true;
}

static bool run_freeze(struct shell *sh, const struct args *a, GError **error)
{
    bool thaw = strcmp(shell_data(sh), "thaw") == 0;
    g_auto(rpc_domain) dom = {0};
    char **points = args_many(a, "mountpoint");
    rpc_int count;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_fsfreeze_args args = {.dom = dom};
    args.mountpoints.mountpoints_val = points;
    args.mountpoints.mountpoints_len = points ? g_strv_length(points) : 0;
    Rpc *rpc = shell_rpc(sh, NULL);
    if (thaw ? !ask_domain_fsthaw(rpc, &args, &count, error)
             : !ask_domain_fsfreeze(rpc, &args, &count, error)) {
        shell_failing(sh, "Unable to %s filesystems", thaw ? "thaw" : "freeze");
        return false;
    }
    out_note(sh, "%s %d filesystem(s)", thaw ? "Thawed" : "Froze", count.value);
    return true;
}

static bool run_domfsinfo(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"Mountpoint", "Name", "Type", "Target", NULL};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_fsinfos) got = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_get_fsinfo(shell_rpc(sh, NULL), &args, &got, error)) {
        shell_failing(sh, "Unable to get filesystem information");
        return false;
    }
    if (!got.items.items_len) {
        out_note_open(sh, "No filesystems are mounted in the domain");
        return true;
    }
    out_table(sh, headers);
    for (unsigned i = 0; i < got.items.items_len; i++) {
        const rpc_fsinfo *fs = &got.items.items_val[i];
        g_autoptr(GString) devices = g_string_new(NULL);
        for (unsigned k = 0; k < fs->devices.devices_len; k++) {
            g_string_append_printf(devices, "%s%s", k ? "," : "", fs->devices.devices_val[k]);
        }
        out_row(sh, fs->mountpoint, fs->name, fs->fstype, devices->str, NULL);
    }
    out_table_end(sh);
    return true;
}

static bool run_domfstrim(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    char *point = (char *)args_text(a, "mountpoint");
    uint64_t least = 0;
    rpc_none none;
    args_number(a, "minimum", &least);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_fstrim_args args = {dom, point ? &point : NULL, least, 0};
    if (!ask_domain_fstrim(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Unable to invoke fstrim");
        return false;
    }
    return true;
}

static bool run_password(struct shell *sh, const struct args *a, GError **error)
{
    enum { ENCRYPTED = 1 };
    g_auto(rpc_domain) dom = {0};
    char *user = (char *)args_text(a, "user"), *password = (char *)args_text(a, "password");
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_password_args args = {dom, &user, &password, args_flag(a, "encrypted") ? ENCRYPTED : 0};
    if (!ask_domain_set_user_password(shell_rpc(sh, NULL), &args, &none, error)) {
        return false;
    }
    out_note(sh, "Password set successfully for %s in %s", user, dom.name);
    return true;
}

static bool run_guestinfo(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit kinds[] = {{"user", 1},      {"os", 2},          {"timezone", 4},
                                            {"hostname", 8},  {"filesystem", 16}, {"disk", 32},
                                            {"interface", 64}};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params) got = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uint_flags args = {dom, flags_of(a, kinds, G_N_ELEMENTS(kinds)), 0};
    if (!ask_domain_get_guest_info(shell_rpc(sh, NULL), &args, &got, error)) {
        return false;
    }
    for (unsigned i = 0; i < got.params.params_len; i++) {
        const rpc_param *p = &got.params.params_val[i];
        g_autofree char *value = param_text(p), *label = g_strdup_printf("%-20s: ", p->field);
        out_field_wide(sh, 0, label, "%s", value);
    }
    return true;
}

static bool run_agent_timeout(struct shell *sh, const struct args *a, GError **error)
{
    enum { BLOCK = -2 };
    g_auto(rpc_domain) dom = {0};
    rpc_int got;
    uint64_t seconds = 0;
    bool given = args_number(a, "timeout", &seconds);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_int_flags args = {dom, given ? (int)MIN(seconds, INT_MAX) : BLOCK, 0};
    return ask_domain_agent_set_response_timeout(shell_rpc(sh, NULL), &args, &got, error);
}

static bool run_guestvcpus(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params) got = {0};
    const char *cpus = args_text(a, "cpulist");
    bool on = args_flag(a, "enable"), off = args_flag(a, "disable");
    rpc_none none;
    if (!exclusive(a, "enable", "disable", error)) {
        return false;
    }
    if ((on || off) && !cpus) {
        return shell_fail(error, "Option --cpulist is required by option --%s",
                          on ? "enable" : "disable");
    }
    if (cpus && !on && !off) {
        return shell_fail(error, "One of options --enable or --disable is required by "
                                 "option --cpulist");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (cpus) {
        rpc_domain_cpus_flags args = {dom, (char *)cpus, on, 0};
        return ask_domain_set_guest_vcpus(shell_rpc(sh, NULL), &args, &none, error);
    }
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_get_guest_vcpus(shell_rpc(sh, NULL), &args, &got, error)) {
        return false;
    }
    for (u_int i = 0; i < got.params.params_len; i++) {
        const rpc_param *p = &got.params.params_val[i];
        g_autofree char *label = g_strdup_printf("%-15s: ", p->field);
        out_field_wide(sh, 0, label, "%s", p->value.type == 7 ? p->value.rpc_value_u.s : "");
    }
    return true;
}

/* --- addresses --- */

static void show_card(struct shell *sh, const rpc_domain_interface *card, bool full)
{
    const char *mac = card->mac ? *card->mac : NULL;
    if (!card->addresses.addresses_len) {
        out_line(sh, " %-10s %-17s    %-12s %s", card->name, mac ? mac : "N/A", "N/A", "N/A");
    }
    for (u_int k = 0; k < card->addresses.addresses_len; k++) {
        const rpc_address *at = &card->addresses.addresses_val[k];
        bool named = full || k == 0;
        out_line(sh, " %-10s %-17s    %-12s %s/%u", named ? card->name : "-",
                 !named ? "-"
                 : mac  ? mac
                        : "",
                 at->type ? "ipv6" : "ipv4", at->address, at->prefix);
    }
}

static bool run_domifaddr(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const sources[] = {"lease", "agent", "arp"};
    const char *source = args_text(a, "source"), *only = args_text(a, "interface");
    unsigned number = 0;
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_domain_interfaces) got = {0};
    while (source && number < G_N_ELEMENTS(sources) && strcmp(source, sources[number]) != 0) {
        number++;
    }
    if (number == G_N_ELEMENTS(sources)) {
        return shell_fail(error, "Unknown data source '%s'", source);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uint_flags args = {dom, number, 0};
    if (!ask_domain_interface_addresses(shell_rpc(sh, NULL), &args, &got, error)) {
        shell_failing(sh, "Failed to query for interfaces addresses");
        return false;
    }
    out_note(sh, " %-10s %-20s %-8s     %s", "Name", "MAC address", "Protocol", "Address");
    out_note(sh, "%s%s", "-------------------------------------------------",
             "------------------------------");
    for (u_int i = 0; i < got.items.items_len; i++) {
        const rpc_domain_interface *card = &got.items.items_val[i];
        if (!only || strcmp(only, card->name) == 0) {
            show_card(sh, card, args_flag(a, "full"));
        }
    }
    return true;
}

static bool run_detach_alias(struct shell *sh, const struct args *a, GError **error)
{
    enum { LIVE = 1, CONFIG = 2 };
    static const struct flag_bit where[] = {{"live", LIVE}, {"config", CONFIG}};
    g_auto(rpc_domain) dom = {0};
    const char *alias = args_text(a, "alias");
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {dom, (char *)alias, flags_of(a, where, G_N_ELEMENTS(where))};
    if (!ask_domain_detach_device_alias(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to detach device with alias %s", alias);
        return false;
    }
    out_note(sh, "Device detach request sent successfully");
    return true;
}

/* clang-format off */
static const struct verb_row verbs[] = {
        {"domfsinfo", (const struct option_row[]){NAMED, {NULL}}, "lists the guest's file systems",
         run_domfsinfo},
        {"domfstrim",
         (const struct option_row[]){
             NAMED,
             {"minimum", OPT_NUMBER, 0, "smallest piece, in bytes"},
             {"mountpoint", OPT_TEXT, 0, "of this file system alone"},
             {NULL}},
         "gives back what the guest's file systems do not use", run_domfstrim},
        {"guest-agent-timeout",
         (const struct option_row[]){DOMAIN_OPTION(COMPLETE_DOMAIN),
                                     {"timeout", OPT_NUMBER, OPT_NAMED, "seconds"},
                                     {NULL}},
         "says how long the agent may take", run_agent_timeout},
        {"guestinfo",
         (const struct option_row[]){
             NAMED,
             {"user", OPT_BOOL, 0, "who is logged in"},
             {"os", OPT_BOOL, 0, "which system it is"},
             {"timezone", OPT_BOOL, 0, "its time zone"},
             {"hostname", OPT_BOOL, 0, "its name"},
             {"filesystem", OPT_BOOL, 0, "its file systems"},
             {"disk", OPT_BOOL, 0, "its disks"},
             {"interface", OPT_BOOL, 0, "its interfaces"},
             {NULL}},
         "tells what the agent knows", run_guestinfo},
        {"set-user-password",
         (const struct option_row[]){
             NAMED,
             {"user", OPT_TEXT, OPT_NEEDED, "who"},
             {"password", OPT_TEXT, OPT_NEEDED, "the new one"},
             {"encrypted", OPT_BOOL, 0, "it is encrypted already"},
             {NULL}},
         "sets a guest user's password", run_password},
    {"detach-device-alias", (const struct option_row[]){NAMED,
        {"alias", OPT_TEXT, OPT_NEEDED, "the device's alias"},
        {"live", OPT_BOOL, 0, "out of the running machine"},
        {"config", OPT_BOOL, 0, "from the next start on"},
        {"current", OPT_BOOL, 0, "of whichever of the two there is"}, {NULL}},
     "takes a device out by its alias", run_detach_alias},
    {"domfsfreeze", (const struct option_row[]){NAMED,
        {"mountpoint", OPT_MANY, 0, "only these"}, {NULL}},
     "stops all writing to a guest's file systems", run_freeze, "freeze"},
    {"domfsthaw", (const struct option_row[]){NAMED,
        {"mountpoint", OPT_MANY, 0, "only these"}, {NULL}},
     "lets a guest's file systems be written again", run_freeze, "thaw"},
    {"domhostname", (const struct option_row[]){NAMED,
        {"source", OPT_TEXT, OPT_NAMED, "agent or lease"}, {NULL}},
     "prints a guest's host name", run_domhostname},
    {"domifaddr", (const struct option_row[]){NAMED,
        {"interface", OPT_TEXT, 0, "only this one"},
        {"full", OPT_BOOL, 0, "names in every line"},
        {"source", OPT_TEXT, OPT_NAMED, "lease, agent or arp"}, {NULL}},
     "prints the addresses of a guest", run_domifaddr},
    {"domtime", (const struct option_row[]){NAMED,
        {"now", OPT_BOOL, 0, "set it to this host's"}, {"pretty", OPT_BOOL, 0, "as people read it"},
        {"sync", OPT_BOOL, 0, "set it from the guest's own clock chip"},
        {"time", OPT_NUMBER, OPT_NAMED, "set it to this, in seconds since 1970"}, {NULL}},
     "prints or sets a guest's time", run_domtime},
    {"guestvcpus", (const struct option_row[]){NAMED,
        {"cpulist", OPT_TEXT, 0, "which"}, {"enable", OPT_BOOL, 0, "take them into use"},
        {"disable", OPT_BOOL, 0, "out of it"}, {NULL}},
     "prints or changes which processors a guest uses", run_guestvcpus},
    {"qemu-agent-command", (const struct option_row[]){NAMED,
        {"timeout", OPT_NUMBER, OPT_NAMED, "seconds"},
        {"async", OPT_BOOL, 0, "do not wait for the answer"},
        {"block", OPT_BOOL, 0, "wait for it as long as it takes"},
        {"pretty", OPT_BOOL, 0, "the answer in several lines"},
        {"cmd", OPT_MANY, OPT_NEEDED, "the command"}, {NULL}},
     "sends a command to the guest's agent", run_agent_command},
    {NULL},
};
/* clang-format on */

const struct verb_group verb_group_guest = {"Guest Agent and Addresses", "guest", verbs};
