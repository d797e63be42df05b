/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include <libxml/tree.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/*
 * What is put into a domain and taken out again.
 */
enum { LIVE = 1, CONFIG = 2, FORCE = 4 };
enum { INACTIVE = 2 }; /* of XML flags */
#define NAMED DOMAIN_OPTION(COMPLETE_DOMAIN)
#define WHERE                                                                                      \
    {"persistent", OPT_BOOL, 0, "now, if it runs, and from the next start on"},                    \
        {"config", OPT_BOOL, 0, "from the next start on"},                                         \
        {"live", OPT_BOOL, 0, "in the running machine"},                                           \
        {"current", OPT_BOOL, 0, "in whichever of the two there is"}

static unsigned where(const struct args *a, const rpc_domain *dom)
{
    unsigned flags = (args_flag(a, "config") ? CONFIG : 0) | (args_flag(a, "live") ? LIVE : 0);
    if (args_flag(a, "persistent")) {
        flags |= CONFIG | (dom->id != -1 ? LIVE : 0);
    }
    return flags;
}

enum action { ATTACH, DETACH, UPDATE };

static bool apply(struct shell *sh, const rpc_domain *dom, enum action what, const char *xml,
                  unsigned flags, GError **error)
{
    rpc_domain_text_flags args = {*dom, (char *)xml, flags};
    rpc_none none;
    Rpc *rpc = shell_rpc(sh, NULL);
    return what == ATTACH   ? ask_domain_attach_device_flags(rpc, &args, &none, error)
           : what == DETACH ? ask_domain_detach_device_flags(rpc, &args, &none, error)
                            : ask_domain_update_device_flags(rpc, &args, &none, error);
}

static bool run_device(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const failing[] = {"attach", "detach", "update"};
    static const char *const done[] = {"attached", "detached", "updated"};
    const struct simple *s = shell_data(sh);
    enum action what = (enum action)s->base_flags;
    const char *path = args_text(a, "file");
    g_auto(rpc_domain) dom = {0};
    g_autofree char *xml = shell_read_file(path, error);
    if (!xml || !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    unsigned force = what == UPDATE && args_flag(a, "force") ? FORCE : 0;
    if (!apply(sh, &dom, what, xml, where(a, &dom) | force, error)) {
        shell_failing(sh, "Failed to %s device from %s", failing[what], path);
        return false;
    }
    out_note(sh, "Device %s successfully", done[what]);
    return true;
}

/* ---- Disks ---- */

static void attribute(GString *xml, const char *name, const char *value)
{
    if (value) {
        g_autofree char *safe = g_markup_escape_text(value, -1);
        g_string_append_printf(xml, " %s='%s'", name, safe);
    }
}

static bool is_block(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* Kinds of addresses as virsh writes them: "pci:0000.00.0b.0", "sata:0.0.3". */
static const struct address_kind {
    const char *prefix, *type;
    unsigned n;
    const char *names[4];
    const char *format; /* of each number */
} address_kinds[] = {
    {"pci:", "pci", 4, {"domain", "bus", "slot", "function"}, NULL},
    {"scsi:", "drive", 3, {"controller", "bus", "unit"}, "%u"},
    {"ide:", "drive", 3, {"controller", "bus", "unit"}, "%u"},
    {"sata:", "drive", 3, {"controller", "bus", "unit"}, "%u"},
    {"usb:", "usb", 2, {"bus", "port"}, "%u"},
};

/* Which kinds fit disks whose targets begin with a name, and what virsh says of others. */
static const struct {
    const char *target, *kinds[3], *expecting;
} address_rules[] = {
    {"vd", {"pci:"}, "expecting a pci:0000.00.00.00 or ccw:00.0.0000 address."},
    {"sd", {"scsi:", "usb:", "sata:"},
     "expecting a scsi:00.00.00 or usb:00.00 or sata:00.00.00 address."},
    {"hd", {"ide:"}, "expecting an ide:00.00.00 address."},
};

static bool address_fits(const char *target, const char *prefix, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(address_rules); i++) {
        if (g_str_has_prefix(target, address_rules[i].target)) {
            for (unsigned k = 0; k < 3 && address_rules[i].kinds[k]; k++) {
                if (strcmp(address_rules[i].kinds[k], prefix) == 0) {
                    return true;
                }
            }
            return shell_fail(error, "%s", address_rules[i].expecting);
        }
    }
    return true;
}

static bool disk_address(const struct args *a, GString *xml, GError **error)
{
    static const unsigned digits[] = {4, 2, 2, 1};
    const char *text = args_text(a, "address");
    const struct address_kind *k = NULL;
    if (!text) {
        return true;
    }
    for (unsigned i = 0; !k && i < G_N_ELEMENTS(address_kinds); i++) {
        k = g_str_has_prefix(text, address_kinds[i].prefix) ? &address_kinds[i] : NULL;
    }
    g_auto(GStrv) words = k ? g_strsplit(text + strlen(k->prefix), ".", -1) : NULL;
    if (!k || g_strv_length(words) != k->n) {
        return shell_fail(error, "Invalid address.");
    }
    if (!address_fits(args_text(a, "target"), k->prefix, error)) {
        return false;
    }
    g_string_append_printf(xml, "  <address type='%s'", k->type);
    for (unsigned i = 0; i < k->n; i++) {
        char *end;
        unsigned n = (unsigned)g_ascii_strtoull(words[i], &end, 16);
        if (end == words[i] || *end) {
            return shell_fail(error, "Invalid address.");
        }
        if (k->format) {
            g_string_append_printf(xml, " %s='%u'", k->names[i], n);
        } else {
            g_string_append_printf(xml, " %s='0x%0*x'", k->names[i], (int)digits[i], n);
        }
    }
    if (args_flag(a, "multifunction")) {
        g_string_append(xml, " multifunction='on'");
    }
    g_string_append(xml, "/>\n");
    return true;
}

/* On a server: the image's name is what --source says. */
static void network_source(const struct args *a, GString *xml)
{
    const char *where = args_text(a, "source-host-name");
    const char *transport = args_text(a, "source-host-transport");
    const char *socket = args_text(a, "source-host-socket");
    const char *colon = where ? strrchr(where, ':') : NULL;
    bool last = colon && *where != '[' ? true : colon && colon[-1] == ']';
    g_autofree char *host = last ? g_strndup(where, (size_t)(colon - where)) : g_strdup(where);
    g_string_append(xml, "  <source");
    attribute(xml, "protocol", args_text(a, "source-protocol"));
    attribute(xml, "name", args_text(a, "source"));
    g_string_append(xml, host || socket || transport ? ">\n    <host" : "/>\n");
    if (host || socket || transport) {
        attribute(xml, "transport", transport);
        attribute(xml, "name", host);
        attribute(xml, "port", last ? colon + 1 : NULL);
        attribute(xml, "socket", socket);
        g_string_append(xml, "/>\n  </source>\n");
    }
}

static void text_element(GString *xml, const char *name, const char *text)
{
    if (text) {
        g_autofree char *safe = g_markup_escape_text(text, -1);
        g_string_append_printf(xml, "  <%s>%s</%s>\n", name, safe, name);
    }
}

/* What stands behind the target. */
static bool disk_more(const struct args *a, GString *xml, GError **error)
{
    const char *mode = args_text(a, "mode");
    if (mode && strcmp(mode, "readonly") != 0 && strcmp(mode, "shareable") != 0) {
        return shell_fail(error, "No support for %s in command 'attach-disk'", mode);
    }
    if (mode) {
        g_string_append_printf(xml, "  <%s/>\n", mode);
    }
    text_element(xml, "serial", args_text(a, "serial"));
    if (args_text(a, "alias")) {
        g_string_append(xml, "  <alias");
        attribute(xml, "name", args_text(a, "alias"));
        g_string_append(xml, "/>\n");
    }
    text_element(xml, "wwn", args_text(a, "wwn"));
    return disk_address(a, xml, error);
}

/* file, block or network; NULL with an error. */
static const char *disk_type(const struct args *a, GError **error)
{
    static const char *const types[] = {"file", "block", "network"};
    static const char *const hosts[] = {"source-host-name", "source-host-transport",
                                        "source-host-socket"};
    const char *kind = args_text(a, "sourcetype"), *protocol = args_text(a, "source-protocol");
    for (unsigned i = 0; !protocol && i < G_N_ELEMENTS(hosts); i++) {
        if (args_text(a, hosts[i])) {
            shell_fail(error, "Option --source-protocol is required by option --%s", hosts[i]);
            return NULL;
        }
    }
    if (!kind) {
        return protocol ? "network" : is_block(args_text(a, "source")) ? "block" : "file";
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (strcmp(kind, types[i]) == 0) {
            if ((i == 2) == !protocol) {
                shell_fail(error, "--source-protocol option requires --sourcetype network");
                return NULL;
            }
            return types[i];
        }
    }
    shell_fail(error, "Unknown source type: '%s'", kind);
    return NULL;
}

static bool disk_xml(const struct args *a, GString *xml, GError **error)
{
    static const char *const driver[][2] = {{"driver", "name"}, {"subdriver", "type"},
                                            {"iothread", "iothread"}, {"cache", "cache"},
                                            {"io", "io"}};
    const char *type = disk_type(a, error);
    bool any = false;
    if (!type) {
        return false;
    }
    g_string_append(xml, "<disk");
    attribute(xml, "type", type);
    attribute(xml, "device", args_text(a, "type"));
    attribute(xml, "rawio", args_flag(a, "rawio") ? "yes" : NULL);
    g_string_append(xml, ">\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(driver); i++) {
        if (args_text(a, driver[i][0])) {
            g_string_append(xml, any ? "" : "  <driver");
            attribute(xml, driver[i][1], args_text(a, driver[i][0]));
            any = true;
        }
    }
    g_string_append(xml, any ? "/>\n" : "");
    if (strcmp(type, "network") == 0) {
        network_source(a, xml);
    } else if (*args_text(a, "source")) {
        g_string_append(xml, "  <source");
        attribute(xml, strcmp(type, "block") == 0 ? "dev" : "file", args_text(a, "source"));
        g_string_append(xml, "/>\n");
    }
    g_string_append(xml, "  <target");
    attribute(xml, "dev", args_text(a, "target"));
    attribute(xml, "bus", args_text(a, "targetbus"));
    g_string_append(xml, "/>\n");
    if (!disk_more(a, xml, error)) {
        return false;
    }
    g_string_append(xml, "</disk>\n");
    return true;
}

/* Prints @xml with --print-xml, else puts the device into the domain. */
static bool attach(struct shell *sh, const struct args *a, const char *xml, const char *what,
                   GError **error)
{
    g_auto(rpc_domain) dom = {0};
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s", xml);
        return true;
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (!apply(sh, &dom, ATTACH, xml, where(a, &dom), error)) {
        shell_failing(sh, "Failed to attach %s", what);
        return false;
    }
    out_note(sh, "%c%s attached successfully", g_ascii_toupper(*what), what + 1);
    return true;
}

static bool run_attach_disk(struct shell *sh, const struct args *a, GError **error)
{
    g_autoptr(GString) xml = g_string_new(NULL);
    return disk_xml(a, xml, error) && attach(sh, a, xml->str, "disk", error);
}

/* The one node that @path selects, as XML of its own; NULL if there is none. */
static char *node_xml(struct xpath *x, const char *path, int *count)
{
    xmlXPathObjectPtr found = xpath_nodes(x, path);
    char *text = NULL;
    *count = found && found->nodesetval ? found->nodesetval->nodeNr : 0;
    if (*count) {
        xmlBufferPtr buffer = xmlBufferCreate();
        xmlNodeDump(buffer, x->doc, found->nodesetval->nodeTab[0], 0, 1);
        text = g_strdup((const char *)xmlBufferContent(buffer));
        xmlBufferFree(buffer);
    }
    xmlXPathFreeObject(found);
    return text;
}

/* In XPath a string has no escapes: what holds a quote is in no XML of ours either. */
static bool plain(const char *text, GError **error)
{
    return !strpbrk(text, "'\"") || shell_fail(error, "'%s' is no name of a device", text);
}

static bool take_out(struct shell *sh, const struct args *a, const char *path, const char *what,
                     const char *missing, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    int count;
    if (!xpath_domain(sh, args_text(a, "domain"), args_flag(a, "config") ? INACTIVE : 0, &dom, &x,
                      error)) {
        return false;
    }
    g_autofree char *xml = node_xml(&x, path, &count);
    if (!xml) {
        /* virsh says which interface it did not find before it says what failed. */
        bool card = strcmp(what, "interface") == 0;
        shell_failing(sh, "%s", card ? missing : "");
        return card ? shell_fail(error, "Failed to detach interface")
                    : shell_fail(error, "%s", missing);
    }
    if (count > 1) {
        return shell_fail(error, "Domain has %d interfaces. Please specify which one to detach "
                                 "using --mac", count);
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s\n", xml);
        return true;
    }
    if (!apply(sh, &dom, DETACH, xml, where(a, &dom), error)) {
        shell_failing(sh, "Failed to detach %s", what);
        return false;
    }
    g_autofree char *title = g_strdup(what);
    *title = g_ascii_toupper(*title);
    out_note(sh, "%s detached successfully", title);
    return true;
}

static bool run_detach_disk(struct shell *sh, const struct args *a, GError **error)
{
    const char *t = args_text(a, "target");
    if (!plain(t, error)) {
        return false;
    }
    g_autofree char *path = g_strdup_printf(
        "devices/disk[target/@dev='%s' or source/@file='%s' or source/@dev='%s']", t, t, t);
    g_autofree char *missing = g_strdup_printf("No disk found whose source path or target is %s", t);
    return take_out(sh, a, path, "disk", missing, error);
}

/* ---- Network cards ---- */

static bool bandwidth(const struct args *a, GString *xml, GError **error)
{
    static const char *const ways[] = {"inbound", "outbound"};
    bool any = false;
    for (unsigned w = 0; w < G_N_ELEMENTS(ways); w++) {
        struct rate rate;
        if (!rate_of(a, ways[w], &rate, error)) {
            return false;
        }
        if (!rate.value[RATE_AVERAGE] && !rate.value[RATE_FLOOR]) {
            continue;
        }
        g_string_append_printf(xml, "%s    <%s", any ? "" : "  <bandwidth>\n", ways[w]);
        any = true;
        for (unsigned i = 0; i < N_RATES; i++) {
            if (rate.value[i]) {
                g_string_append_printf(xml, " %s='%" PRIu64 "'", rate_names[i], rate.value[i]);
            }
        }
        g_string_append(xml, "/>\n");
    }
    g_string_append(xml, any ? "  </bandwidth>\n" : "");
    return true;
}

static bool interface_xml(const struct args *a, GString *xml, GError **error)
{
    static const char *const attributes[][2] = {
        {"network", "network"}, {"bridge", "bridge"}, {"direct", "dev"}, {"user", NULL}};
    static const char *const elements[][3] = {
        {"target", "target", "dev"}, {"mac", "mac", "address"}, {"script", "script", "path"},
        {"model", "model", "type"}, {"alias", "alias", "name"}};
    const char *type = args_text(a, "type");
    unsigned i = 0;
    while (i < G_N_ELEMENTS(attributes) && strcmp(attributes[i][0], type) != 0) {
        i++;
    }
    if (i == G_N_ELEMENTS(attributes)) {
        return shell_fail(error, "No support for %s in command 'attach-interface'", type);
    }
    const char *mode = args_text(a, "source-mode");
    if (mode && strcmp(type, "direct") != 0) {
        return shell_fail(error, "Invalid source mode: %s", mode);
    }
    g_string_append_printf(xml, "<interface type='%s'>\n", type);
    if (attributes[i][1]) {
        g_string_append(xml, "  <source");
        attribute(xml, attributes[i][1], args_text(a, "source"));
        attribute(xml, "mode", mode);
        g_string_append(xml, "/>\n");
    }
    for (i = 0; i < G_N_ELEMENTS(elements); i++) {
        if (args_text(a, elements[i][0])) {
            g_string_append_printf(xml, "  <%s", elements[i][1]);
            attribute(xml, elements[i][2], args_text(a, elements[i][0]));
            g_string_append(xml, "/>\n");
        }
    }
    if (!bandwidth(a, xml, error)) {
        return false;
    }
    g_string_append(xml, "</interface>\n");
    return true;
}

static bool run_attach_interface(struct shell *sh, const struct args *a, GError **error)
{
    g_autoptr(GString) xml = g_string_new(NULL);
    return interface_xml(a, xml, error) && attach(sh, a, xml->str, "interface", error);
}

static bool has_interface(struct shell *sh, const struct args *a, const char *type)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    g_autofree char *path = g_strdup_printf("devices/interface[@type='%s']/@type", type);
    g_autofree char *found =
        xpath_domain(sh, args_text(a, "domain"), args_flag(a, "config") ? INACTIVE : 0, &dom, &x, NULL)
            ? xpath_text(&x, NULL, path) : NULL;
    return found != NULL;
}

static bool run_detach_interface(struct shell *sh, const struct args *a, GError **error)
{
    const char *type = args_text(a, "type"), *mac = args_text(a, "mac");
    if (!plain(type, error) || (mac && !plain(mac, error))) {
        return false;
    }
    g_autofree char *path =
        mac ? g_strdup_printf("devices/interface[@type='%s' and mac/@address='%s']", type, mac)
            : g_strdup_printf("devices/interface[@type='%s']", type);
    g_autofree char *missing =
        mac && has_interface(sh, a, type)
            ? g_strdup_printf("No interface with MAC address %s was found", mac)
            : g_strdup_printf("No interface found whose type is %s", type);
    return take_out(sh, a, path, "interface", missing, error);
}

/* ---- Media ---- */

/* The one disk that is called @name, by its target or its file. */
static bool change_source(struct xpath *x, const char *name, const char *source, bool block,
                          GError **error)
{
    g_autofree char *path =
        g_strdup_printf("devices/disk[target/@dev='%s' or source/@file='%s']", name, name);
    xmlXPathObjectPtr disks = xpath_nodes(x, path);
    bool found = disks && disks->nodesetval && disks->nodesetval->nodeNr == 1;
    if (found) {
        xmlNodePtr disk = disks->nodesetval->nodeTab[0], next;
        for (xmlNodePtr n = disk->children; n; n = next) {
            next = n->next;
            if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, "source") == 0) {
                xmlUnlinkNode(n);
                xmlFreeNode(n);
            }
        }
        if (source) {
            xmlNodePtr s = xmlNewChild(disk, NULL, BAD_CAST "source", NULL);
            xmlSetProp(disk, BAD_CAST "type", BAD_CAST(block ? "block" : "file"));
            xmlNewProp(s, BAD_CAST(block ? "dev" : "file"), BAD_CAST source);
        }
    }
    xmlXPathFreeObject(disks);
    return found || shell_fail(error, "No disk found whose source path or target is %s", name);
}

static bool run_change_media(struct shell *sh, const struct args *a, GError **error)
{
    const char *target = args_text(a, "path"), *source = args_text(a, "source");
    bool eject = args_flag(a, "eject");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    int count;
    if (!eject && !source) {
        return shell_fail(error, "No disk source specified for inserting");
    }
    if (!plain(target, error) || !xpath_domain(sh, args_text(a, "domain"), 0, &dom, &x, error)) {
        return false;
    }
    if (!change_source(&x, target, eject ? NULL : source,
                       source && (args_flag(a, "block") || is_block(source)), error)) {
        return false;
    }
    g_autofree char *by_target = g_strdup_printf("devices/disk[target/@dev='%s']", target);
    g_autofree char *xml = node_xml(&x, by_target, &count);
    if (!xml) {
        return shell_fail(error, "No disk found whose target is %s", target);
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s\n", xml);
        return true;
    }
    unsigned flags = (args_flag(a, "live") ? LIVE : 0) | (args_flag(a, "config") ? CONFIG : 0) |
                     (args_flag(a, "force") ? FORCE : 0);
    const char *what = eject ? "eject" : args_flag(a, "insert") ? "insert" : "update";
    if (!apply(sh, &dom, UPDATE, xml, flags, error)) {
        shell_failing(sh, "Failed to complete action %s on media", what);
        return false;
    }
    out_text(sh, "message", "Successfully %s media.", eject ? "ejected" : source ? "inserted" : "updated");
    return true;
}

#define FROM_FILE(verb, action, text, ...)                                                         \
    {verb, (const struct option_row[]){NAMED, FILE_OPTION, WHERE, __VA_ARGS__ {NULL}}, text,       \
     run_device,                                                                                   \
     &(const struct simple){.base_flags = action}}

const struct verb_group verb_group_device = {"Domain Devices", "device", (const struct verb_row[]){
    FROM_FILE("attach-device", ATTACH, "puts a device of XML into a domain", ),
    {"attach-disk", (const struct option_row[]){NAMED,
        {"source", OPT_TEXT, OPT_NEEDED, "file or block device", COMPLETE_FILE},
        {"target", OPT_TEXT, OPT_NEEDED, "vdb, sda, ..."},
        {"targetbus", OPT_TEXT, 0, "virtio, sata, scsi, ide, usb"},
        {"driver", OPT_TEXT, 0, "qemu"}, {"subdriver", OPT_TEXT, 0, "format of the image"},
        {"iothread", OPT_TEXT, 0, "number of the thread that serves it"},
        {"cache", OPT_TEXT, 0, "none, writeback, ..."}, {"io", OPT_TEXT, 0, "native, threads"},
        {"type", OPT_TEXT, 0, "disk, cdrom, floppy"}, {"mode", OPT_TEXT, 0, "readonly, shareable"},
        {"sourcetype", OPT_TEXT, 0, "file, block, network"},
        {"serial", OPT_TEXT, 0, "serial number"}, {"wwn", OPT_TEXT, 0, "world wide name"},
        {"alias", OPT_TEXT, 0, "its name, ua-..."},
        {"rawio", OPT_BOOL, 0, "with the right to raw SCSI commands"},
        {"address", OPT_TEXT, 0, "pci:0000.00.0b.0, scsi:0.0.3, sata:0.0.3, ide:0.0.1, usb:0.1"},
        {"multifunction", OPT_BOOL, 0, "the first function of several at its PCI address"},
        {"source-protocol", OPT_TEXT, OPT_NAMED, "nbd, iscsi, rbd, ..."},
        {"source-host-name", OPT_TEXT, OPT_NAMED, "HOST[:PORT]"},
        {"source-host-transport", OPT_TEXT, OPT_NAMED, "tcp, unix"},
        {"source-host-socket", OPT_TEXT, OPT_NAMED, "path of the server's socket"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, WHERE, {NULL}},
     "puts a disk into a domain", run_attach_disk},
    {"attach-interface", (const struct option_row[]){NAMED,
        {"type", OPT_TEXT, OPT_NEEDED, "network, bridge, direct, user"},
        {"source", OPT_TEXT, OPT_NEEDED, "which"}, {"target", OPT_TEXT, 0, "name on the host"},
        {"mac", OPT_TEXT, 0, "MAC address"},
        {"script", OPT_TEXT, 0, "what makes the bridge"},
        {"model", OPT_TEXT, 0, "virtio, e1000, ..."}, {"alias", OPT_TEXT, 0, "its name, ua-..."},
        {"inbound", OPT_TEXT, OPT_NAMED, "AVERAGE,PEAK,BURST,FLOOR in KiB (a second)"},
        {"outbound", OPT_TEXT, OPT_NAMED, "AVERAGE,PEAK,BURST"},
        {"source-mode", OPT_TEXT, 0, "of type direct: bridge, vepa, private"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, WHERE, {NULL}},
     "puts a network card into a domain", run_attach_interface},
    {"change-media", (const struct option_row[]){NAMED,
        {"path", OPT_TEXT, OPT_NEEDED, "target of the drive"},
        {"source", OPT_TEXT, 0, "the new medium", COMPLETE_FILE},
        {"eject", OPT_BOOL, 0, "take it out"}, {"insert", OPT_BOOL, 0, "put it in"},
        {"update", OPT_BOOL, 0, "change it"}, {"current", OPT_BOOL, 0, "in whichever there is"},
        {"live", OPT_BOOL, 0, "in the running machine"},
        {"config", OPT_BOOL, 0, "from the next start on"},
        {"force", OPT_BOOL, 0, "even if the guest has locked it"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"},
        {"block", OPT_BOOL, 0, "the medium is a block device"}, {NULL}},
     "changes what is in a CD or floppy drive", run_change_media},
    FROM_FILE("detach-device", DETACH, "takes a device out of a domain", ),
    {"detach-disk", (const struct option_row[]){NAMED,
        {"target", OPT_TEXT, OPT_NEEDED, "target of the disk"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, WHERE, {NULL}},
     "takes a disk out of a domain", run_detach_disk},
    {"detach-interface", (const struct option_row[]){NAMED,
        {"type", OPT_TEXT, OPT_NEEDED, "network, bridge, ..."},
        {"mac", OPT_TEXT, 0, "MAC address"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, WHERE, {NULL}},
     "takes a network card out of a domain", run_detach_interface},
    FROM_FILE("update-device", UPDATE, "changes a device of a domain",
        {"force", OPT_BOOL, 0, "even if the guest has locked it"}, ),
    {NULL},
}};
