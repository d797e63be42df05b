/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/verb.h"
#include "manage/model/xml.h"

#include <string.h>
#include <unistd.h>

/*
 * The host's network interfaces, as /sys shows them.  They are shown, not configured: that is
 * the distribution's business.
 */
#define CLASS_FOLDER "/sys/class/net"
enum { LIST_INACTIVE = 1, LIST_ACTIVE = 2 };

/* One line of file @name of the interface; NULL if it is not there. */
static char *attribute(const char *interface, const char *name)
{
    g_autofree char *path = g_build_filename(CLASS_FOLDER, interface, name, NULL);
    char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_strstrip(text) : NULL;
}

static char *mac_of(const char *interface)
{
    char *mac = attribute(interface, "address");
    return mac ? mac : g_strdup("");
}

static bool is_up(const char *interface)
{
    enum { UP = 1 }; /* IFF_UP */
    g_autofree char *flags = attribute(interface, "flags");
    return flags && g_ascii_strtoull(flags, NULL, 16) & UP;
}

/* Names of those that @wanted admits; 0 is all of them. */
static GPtrArray *names_of(unsigned wanted)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) dir = g_dir_open(CLASS_FOLDER, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *address = attribute(name, "address"); /* else no interface */
        if (address && (!wanted || wanted & (is_up(name) ? LIST_ACTIVE : LIST_INACTIVE))) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
    return names;
}

static bool check(const char *name, GError **error)
{
    g_autofree char *address = strchr(name, '/') ? NULL : attribute(name, "address");
    if (!address) {
        libvirt_error(error, ERR_NO_INTERFACE, "couldn't find interface named '%s'", name);
    }
    return address;
}

static bool count(unsigned wanted, rpc_int *ret)
{
    g_autoptr(GPtrArray) names = names_of(wanted);
    ret->value = (int)names->len;
    return true;
}

static bool list(unsigned wanted, int max, rpc_names *ret)
{
    g_autoptr(GPtrArray) names = names_of(wanted);
    unsigned n = MIN(names->len, (unsigned)MAX(max, 0));
    ret->names.names_val = g_new0(rpc_string, MAX(n, 1));
    for (; ret->names.names_len < n; ret->names.names_len++) {
        ret->names.names_val[ret->names.names_len] =
            g_strdup(g_ptr_array_index(names, ret->names.names_len));
    }
    return true;
}

bool verb_connect_num_of_interfaces(struct call *call, const rpc_none *args, rpc_int *ret,
                                    GError **error)
{
    (void)call, (void)args, (void)error;
    return count(LIST_ACTIVE, ret);
}

bool verb_connect_num_of_defined_interfaces(struct call *call, const rpc_none *args, rpc_int *ret,
                                            GError **error)
{
    (void)call, (void)args, (void)error;
    return count(LIST_INACTIVE, ret);
}

bool verb_connect_list_interfaces(struct call *call, const rpc_int *args, rpc_names *ret,
                                  GError **error)
{
    (void)call, (void)error;
    return list(LIST_ACTIVE, args->value, ret);
}

bool verb_connect_list_defined_interfaces(struct call *call, const rpc_int *args, rpc_names *ret,
                                          GError **error)
{
    (void)call, (void)error;
    return list(LIST_INACTIVE, args->value, ret);
}

bool verb_connect_list_all_interfaces(struct call *call, const rpc_list_args *args,
                                      rpc_interfaces *ret, GError **error)
{
    g_autoptr(GPtrArray) names = names_of(args->flags & (LIST_ACTIVE | LIST_INACTIVE));
    (void)call, (void)error;
    ret->count = names->len;
    ret->items.items_val = g_new0(rpc_interface, names->len + 1);
    for (unsigned i = 0; args->need_results && i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        ret->items.items_val[ret->items.items_len++] =
            (rpc_interface){g_strdup(name), mac_of(name)};
    }
    return true;
}

bool verb_interface_lookup_by_name(struct call *call, const rpc_text *args, rpc_interface_ret *ret,
                                   GError **error)
{
    (void)call;
    if (!check(args->text, error)) {
        return false;
    }
    ret->iface = (rpc_interface){g_strdup(args->text), mac_of(args->text)};
    return true;
}

bool verb_interface_lookup_by_mac_string(struct call *call, const rpc_text *args,
                                         rpc_interface_ret *ret, GError **error)
{
    g_autoptr(GPtrArray) names = names_of(0);
    (void)call;
    for (unsigned i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        g_autofree char *mac = mac_of(name);
        if (g_ascii_strcasecmp(mac, args->text) == 0) {
            ret->iface = (rpc_interface){g_strdup(name), g_steal_pointer(&mac)};
            return true;
        }
    }
    libvirt_error(error, ERR_NO_INTERFACE, "couldn't find interface with MAC address '%s'",
                  args->text);
    return false;
}

bool verb_interface_is_active(struct call *call, const rpc_interface_args *args, rpc_int *ret,
                              GError **error)
{
    (void)call;
    ret->value = is_up(args->iface.name);
    return check(args->iface.name, error);
}

static void start_xml(GString *xml, unsigned depth, const char *type, const char *name)
{
    g_string_append_printf(xml, "%*s<interface type='%s' name='", (int)depth * 2, "", type);
    xml_escape(xml, name);
    g_string_append(xml, "'>\n");
}

/* What every kind has: whether there is a carrier and at what speed, and the address. */
static void link_xml(GString *xml, unsigned depth, const char *name)
{
    g_autofree char *state = attribute(name, "operstate"), *speed = attribute(name, "speed");
    g_autofree char *mac = mac_of(name);
    int64_t mbits = speed ? g_ascii_strtoll(speed, NULL, 10) : 0; /* -1: not known */
    if (state) {
        g_string_append_printf(xml, "%*s<link ", (int)depth * 2, "");
        if (mbits > 0 && !strcmp(state, "up")) {
            g_string_append_printf(xml, "speed='%" G_GINT64_FORMAT "' ", mbits);
        }
        g_string_append_printf(xml, "state='%s'/>\n", state);
    }
    if (*mac) {
        g_string_append_printf(xml, "%*s<mac address='%s'/>\n", (int)depth * 2, "", mac);
    }
}

/* How a bridge forwards, and its ports. */
static void bridge_xml(GString *xml, const char *name)
{
    g_autofree char *stp = attribute(name, "bridge/stp_state");
    g_autofree char *delay = attribute(name, "bridge/forward_delay"); /* hundredths of seconds */
    g_autofree char *ports = g_build_filename(CLASS_FOLDER, name, "brif", NULL);
    g_autoptr(GDir) dir = g_dir_open(ports, 0, NULL);
    const char *port;
    g_string_append_printf(xml, "  <bridge stp='%s' delay='%.2g'>\n",
                           !g_strcmp0(stp, "0") ? "off" : "on",
                           delay ? (double)g_ascii_strtoll(delay, NULL, 10) / 100 : 0.0);
    while (dir && (port = g_dir_read_name(dir))) {
        start_xml(xml, 2, "ethernet", port);
        link_xml(xml, 3, port);
        g_string_append(xml, "    </interface>\n");
    }
    g_string_append(xml, "  </bridge>\n");
}

bool verb_interface_get_xml_desc(struct call *call, const rpc_interface_flags *args, rpc_text *ret,
                                 GError **error)
{
    const char *name = args->iface.name;
    (void)call;
    if (!check(name, error)) {
        return false;
    }
    g_autofree char *bridge = g_build_filename(CLASS_FOLDER, name, "bridge", NULL);
    g_autofree char *mtu = attribute(name, "mtu");
    bool is_bridge = g_file_test(bridge, G_FILE_TEST_IS_DIR);
    GString *xml = g_string_new(NULL);
    start_xml(xml, 0, is_bridge ? "bridge" : "ethernet", name);
    if (mtu) {
        g_string_append_printf(xml, "  <mtu size='%s'/>\n", mtu);
    }
    if (is_bridge) {
        bridge_xml(xml, name);
    } else {
        link_xml(xml, 1, name);
    }
    g_string_append(xml, "</interface>\n");
    ret->text = g_string_free(xml, FALSE);
    return true;
}
