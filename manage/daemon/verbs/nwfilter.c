/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/port_guard.h"
#include "manage/daemon/uuid.h"
#include "manage/daemon/verb.h"
#include "manage/model/xml.h"

#include <errno.h>
#include <unistd.h>

/*
 * Network filters: kept and shown as they were defined, in etc/nwfilter/NAME.xml, because
 * tools define them and interfaces name them; daemon/filter.c makes rules of them.
 */
struct filter {
    char *name, *xml;
    uint8_t uuid[16];
};

static GHashTable *filters; /* name -> struct filter */
static bool turn;           /* of who changes them; the lock is given up while the disk writes */

static void filter_free(void *item)
{
    struct filter *f = item;
    g_free(f->name);
    g_free(f->xml);
    g_free(f);
}

static xmlNode *child(xmlNode *root, const char *name)
{
    xmlNode *node = xmlFirstElementChild(root);
    while (node && strcmp((const char *)node->name, name) != 0) {
        node = xmlNextElementSibling(node);
    }
    return node;
}

static char *xml_take(xmlChar *text)
{
    char *copy = g_strdup((const char *)text);
    xmlFree(text);
    return copy;
}

/* The uuid of @root, made if there is none; false if it is none. */
static bool take_uuid(xmlNode *root, const struct filter *old, struct filter *f, GError **error)
{
    xmlNode *node = child(root, "uuid");
    g_autofree char *text = node ? xml_take(xmlNodeGetContent(node)) : NULL;
    if (text && !g_uuid_string_is_valid(g_strstrip(text))) {
        libvirt_error(error, ERR_XML, "malformed uuid element");
        return false;
    }
    if (!text) {
        if (old) {
            text = g_malloc(UUID_TEXT);
            uuid_text(old->uuid, text);
        } else {
            text = g_uuid_string_random();
        }
        node = xmlNewDocNode(root->doc, NULL, BAD_CAST "uuid", NULL);
        xmlNodeAddContent(node, BAD_CAST text);
        if (root->children) {
            xmlAddPrevSibling(root->children, node);
        } else {
            xmlAddChild(root, node);
        }
    }
    uuid_bytes(text, f->uuid);
    return true;
}

static char *dump(xmlNode *root)
{
    xmlBuffer *buffer = xmlBufferCreate();
    xmlNodeDump(buffer, root->doc, root, 0, 1);
    char *text = g_strconcat((const char *)xmlBufferContent(buffer), "\n", NULL);
    xmlBufferFree(buffer);
    return text;
}

/* What each rule must say; what it looks for is read when it is compiled, with its variables. */
static const struct {
    const char *attribute;
    const char *const words[6];
} rule_words[] = {
    {"action", {"accept", "drop", "reject", "return", "continue", NULL}},
    {"direction", {"in", "out", "inout", NULL}},
};

static bool rule_valid(xmlNode *rule, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rule_words); i++) {
        const char *name = rule_words[i].attribute;
        g_autofree char *word = xml_take(xmlGetProp(rule, BAD_CAST name));
        if (!word) {
            libvirt_error(error, ERR_XML, "missing attribute '@%s' in element <rule> (line %ld)",
                          name, xmlGetLineNo(rule));
            return false;
        }
        if (!g_strv_contains(rule_words[i].words, word)) {
            libvirt_error(error, ERR_XML,
                          "Invalid value for attribute '%s' in element 'rule': '%.200s' (line "
                          "%ld).",
                          name, word, xmlGetLineNo(rule));
            return false;
        }
    }
    return true;
}

static bool parts_valid(xmlNode *root, GError **error)
{
    static const char *const others[] = {"uuid", "filterref", NULL};
    for (xmlNode *e = xmlFirstElementChild(root); e; e = xmlNextElementSibling(e)) {
        const char *name = (const char *)e->name;
        bool rule = strcmp(name, "rule") == 0;
        if (rule && !rule_valid(e, error)) {
            return false;
        }
        if (!rule && !g_strv_contains(others, name)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "element <%s> in <filter> (line %ld) is not supported", name,
                          xmlGetLineNo(e));
            return false;
        }
    }
    return true;
}

static struct filter *filter_read(const char *text, GError **error)
{
    g_autoptr(xmlDoc) doc = xml_parse(text, "nwfilter_definition", "filter", error);
    if (!doc) {
        return NULL;
    }
    xmlNode *root = xmlDocGetRootElement(doc);
    struct filter *f = g_new0(struct filter, 1);
    f->name = xml_take(xmlGetProp(root, BAD_CAST "name"));
    if (!f->name || !*f->name || strchr(f->name, '/') || f->name[0] == '.') {
        libvirt_error(error, ERR_XML, "filter has no valid name");
    } else if (parts_valid(root, error) &&
               take_uuid(root, g_hash_table_lookup(filters, f->name), f, error)) {
        f->xml = dump(root);
        return f;
    }
    filter_free(f);
    return NULL;
}

/* Filters that people's machines ask for by name, known to libvirt's users. */
#define RULE(action, direction, priority, inside)                                                  \
    "<rule action='" action "' direction='" direction "' priority='" priority "'>" inside "</"     \
    "rule>"
#define USE(filter) "<filterref filter='" filter "'/>"
static const struct {
    const char *name, *chain, *priority, *inside;
} shipped[] = {
    {"no-mac-spoofing", "mac", "-800",
     RULE("return", "out", "500", "<mac srcmacaddr='$MAC'/>") RULE("drop", "out", "500", "<mac/>")},
    {"no-ip-spoofing", "ipv4-ip", "-710",
     RULE("return", "out", "100", "<ip srcipaddr='0.0.0.0' protocol='udp'/>")
         RULE("return", "out", "500", "<ip srcipaddr='$IP'/>") RULE("drop", "out", "1000", "")},
    {"no-ipv6-spoofing", "ipv6-ip", "-610",
     RULE("return", "out", "100", "<ipv6 srcipaddr='fe80::' srcipmask='10' protocol='udp'/>")
         RULE("return", "out", "500", "<ipv6 srcipaddr='$IPV6'/>") RULE("drop", "out", "1000", "")},
    {"no-arp-ip-spoofing", "arp-ip", "-510",
     RULE("return", "out", "400", "<arp arpsrcipaddr='$IP'/>") RULE("drop", "out", "1000", "")},
    {"no-arp-mac-spoofing", "arp-mac", "-520",
     RULE("return", "out", "350", "<arp arpsrcmacaddr='$MAC'/>") RULE("drop", "out", "1000", "")},
    {"no-arp-spoofing", "root", NULL, USE("no-arp-mac-spoofing") USE("no-arp-ip-spoofing")},
    {"no-mac-broadcast", "ipv4", "-700",
     RULE("drop", "out", "500", "<mac dstmacaddr='ff:ff:ff:ff:ff:ff'/>")},
    {"no-ip-multicast", "ipv4", "-700",
     RULE("drop", "out", "500", "<ip dstipaddr='224.0.0.0' dstipmask='4'/>")},
    {"no-ipv6-multicast", "ipv6", "-600",
     RULE("drop", "out", "500", "<ipv6 dstipaddr='ff00::' dstipmask='8'/>")},
    {"allow-arp", "arp", "-500", RULE("accept", "inout", "500", "")},
    {"allow-ipv4", "ipv4", "-700", RULE("accept", "inout", "500", "")},
    {"allow-ipv6", "ipv6", "-600", RULE("accept", "inout", "500", "")},
    {"allow-incoming-ipv4", "ipv4", "-700", RULE("accept", "in", "500", "")},
    {"allow-incoming-ipv6", "ipv6", "-600", RULE("accept", "in", "500", "")},
    {"allow-dhcp", "ipv4", "-700",
     RULE("accept", "out", "100",
          "<ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' "
          "dstportstart='67'/>")
         RULE("accept", "in", "100", "<ip protocol='udp' srcportstart='67' dstportstart='68'/>")},
    {"allow-dhcp-server", "ipv4", "-700",
     RULE("accept", "out", "100",
          "<ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' "
          "dstportstart='67'/>")
         RULE("accept", "in", "100",
              "<ip srcipaddr='$DHCPSERVER' protocol='udp' srcportstart='67' dstportstart='68'/>")},
    {"no-other-l2-traffic", "root", NULL, RULE("drop", "inout", "1000", "")},
    {"no-other-rarp-traffic", "rarp", "-400", RULE("drop", "inout", "1000", "")},
    {"qemu-announce-self-rarp", "rarp", "-400",
     RULE("accept", "out", "500",
          "<rarp srcmacaddr='$MAC' dstmacaddr='ff:ff:ff:ff:ff:ff' opcode='Request_Reverse' "
          "arpsrcmacaddr='$MAC' arpdstmacaddr='$MAC'/>")
         RULE("accept", "in", "500",
              "<rarp dstmacaddr='ff:ff:ff:ff:ff:ff' opcode='Request_Reverse' "
              "arpsrcmacaddr='$MAC' arpdstmacaddr='$MAC'/>")},
    {"qemu-announce-self", "root", NULL,
     RULE("accept", "out", "500", "<mac protocolid='0x835'/>") USE("qemu-announce-self-rarp")
         USE("no-other-rarp-traffic")},
    {"clean-traffic", "root", NULL,
     USE("no-mac-spoofing") USE("no-ip-spoofing")
         RULE("accept", "out", "-650", "<mac protocolid='ipv4'/>") USE("allow-incoming-ipv4")
             USE("no-arp-spoofing") RULE("accept", "inout", "-500", "<mac protocolid='arp'/>")
                 USE("no-other-l2-traffic") USE("qemu-announce-self")},
};

static bool define(const char *text, rpc_nwfilter_ret *ret, GError **error);

/* Once: who removes one does not get it back. */
static bool ship(GError **error)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < G_N_ELEMENTS(shipped); i++) {
        const char *priority = shipped[i].priority;
        rpc_nwfilter_ret ret = {0};
        g_autofree char *text =
            g_strdup_printf("<filter name='%s' chain='%s'%s%s%s>%s</filter>", shipped[i].name,
                            shipped[i].chain, priority ? " priority='" : "",
                            priority ? priority : "", priority ? "'" : "", shipped[i].inside);
        ok = define(text, &ret, error);
        g_free(ret.filter.name);
    }
    return ok;
}

static bool filters_start(GError **error)
{
    g_autofree char *folder = daemon_path(DAEMON_ETC, "nwfilter", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    filters = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, filter_free);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL), *text = NULL;
        g_autoptr(GError) why = NULL;
        struct filter *f = NULL;
        if (!g_str_has_suffix(name, ".xml")) {
            continue;
        }
        if (g_file_get_contents(path, &text, NULL, &why)) {
            f = filter_read(text, &why);
        }
        if (f) {
            g_hash_table_replace(filters, f->name, f);
        } else {
            daemon_log("%s is left out: %s", path, why->message);
        }
    }
    return dir || daemon_is_session() || ship(error);
}

const char *nwfilter_xml(const char *name)
{
    const struct filter *f = g_hash_table_lookup(filters, name);
    return f ? f->xml : NULL;
}

static void filters_stop(void)
{
    g_clear_pointer(&filters, g_hash_table_unref);
}

const struct daemon_room room_nwfilters = {"network filters", filters_start, filters_stop};

static rpc_nwfilter name_of(const struct filter *f)
{
    rpc_nwfilter out = {.name = g_strdup(f->name)};
    memcpy(out.uuid, f->uuid, sizeof(out.uuid));
    return out;
}

static struct filter *by_uuid(const void *uuid)
{
    GHashTableIter iter;
    struct filter *f;
    g_hash_table_iter_init(&iter, filters);
    while (g_hash_table_iter_next(&iter, NULL, (void **)&f)) {
        if (memcmp(f->uuid, uuid, sizeof(f->uuid)) == 0) {
            return f;
        }
    }
    return NULL;
}

static struct filter *find(const rpc_nwfilter *wanted, GError **error)
{
    struct filter *f = by_uuid(wanted->uuid);
    if (!f) {
        libvirt_error(error, ERR_NO_NWFILTER, "no nwfilter with matching name '%s'", wanted->name);
    }
    return f;
}

/* ---- Verbs. ---- */

bool verb_connect_num_of_nwfilters(struct call *call, const rpc_none *args, rpc_int *ret,
                                   GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = (int)g_hash_table_size(filters);
    return true;
}

bool verb_connect_list_nwfilters(struct call *call, const rpc_int *args, rpc_names *ret,
                                 GError **error)
{
    GHashTableIter iter;
    struct filter *f;
    unsigned n = MIN((unsigned)MAX(args->value, 0), g_hash_table_size(filters));
    (void)call, (void)error;
    ret->names.names_val = g_new0(rpc_string, MAX(n, 1));
    g_hash_table_iter_init(&iter, filters);
    while (ret->names.names_len < n && g_hash_table_iter_next(&iter, NULL, (void **)&f)) {
        ret->names.names_val[ret->names.names_len++] = g_strdup(f->name);
    }
    return true;
}

bool verb_connect_list_all_nwfilters(struct call *call, const rpc_list_args *args,
                                     rpc_nwfilters *ret, GError **error)
{
    GHashTableIter iter;
    struct filter *f;
    (void)call, (void)error;
    ret->count = g_hash_table_size(filters);
    ret->items.items_val = g_new0(rpc_nwfilter, ret->count + 1);
    g_hash_table_iter_init(&iter, filters);
    while (args->need_results && g_hash_table_iter_next(&iter, NULL, (void **)&f)) {
        ret->items.items_val[ret->items.items_len++] = name_of(f);
    }
    return true;
}

bool verb_nwfilter_lookup_by_name(struct call *call, const rpc_text *args, rpc_nwfilter_ret *ret,
                                  GError **error)
{
    struct filter *f = g_hash_table_lookup(filters, args->text);
    (void)call;
    if (!f) {
        libvirt_error(error, ERR_NO_NWFILTER, "no nwfilter with matching name '%s'", args->text);
        return false;
    }
    ret->filter = name_of(f);
    return true;
}

bool verb_nwfilter_lookup_by_uuid(struct call *call, const rpc_uuid_args *args,
                                  rpc_nwfilter_ret *ret, GError **error)
{
    struct filter *f = by_uuid(args->uuid);
    char text[UUID_TEXT];
    (void)call;
    if (!f) {
        uuid_text(args->uuid, text);
        libvirt_error(error, ERR_NO_NWFILTER, "no nwfilter with matching uuid '%s'", text);
        return false;
    }
    ret->filter = name_of(f);
    return true;
}

bool verb_nwfilter_get_xml_desc(struct call *call, const rpc_nwfilter_flags *args, rpc_text *ret,
                                GError **error)
{
    const struct filter *f = find(&args->filter, error);
    (void)call;
    if (f) {
        ret->text = g_strdup(f->xml);
    }
    return f;
}

static bool put(struct filter *f, rpc_nwfilter_ret *ret, GError **error)
{
    const struct filter *same = by_uuid(f->uuid), *old = g_hash_table_lookup(filters, f->name);
    g_autofree char *name = g_strconcat(f->name, ".xml", NULL);
    g_autofree char *path = daemon_path(DAEMON_ETC, "nwfilter", name, NULL);
    if (same != old) {
        libvirt_error(error, ERR_OPERATION_FAILED, "filter '%s' already exists with another uuid",
                      same ? same->name : old->name);
    } else if (daemon_keep_file(path, f->xml, 0644, error)) {
        g_hash_table_replace(filters, f->name, f);
        ret->filter = name_of(f);
        return true;
    }
    filter_free(f);
    return false;
}

static bool define(const char *text, rpc_nwfilter_ret *ret, GError **error)
{
    struct filter *f = filter_read(text, error);
    if (!f) {
        return false;
    }
    if (!daemon_take_turn(&turn, error)) {
        filter_free(f);
        return false;
    }
    bool ok = put(f, ret, error);
    daemon_end_turn(&turn);
    return ok;
}

bool verb_nwfilter_define_xml(struct call *call, const rpc_text *args, rpc_nwfilter_ret *ret,
                              GError **error)
{
    (void)call;
    return define(args->text, ret, error);
}

bool verb_nwfilter_define_xml_flags(struct call *call, const rpc_text_flags *args,
                                    rpc_nwfilter_ret *ret, GError **error)
{
    (void)call;
    return define(args->text, ret, error);
}

static bool forget(const struct filter *f, GError **error)
{
    g_autofree char *name = g_strconcat(f->name, ".xml", NULL);
    g_autofree char *path = daemon_path(DAEMON_ETC, "nwfilter", name, NULL);
    if (!daemon_forget_file(path, error)) {
        return false;
    }
    g_hash_table_remove(filters, f->name);
    return true;
}

bool verb_nwfilter_undefine(struct call *call, const rpc_nwfilter_args *args, rpc_none *ret,
                            GError **error)
{
    (void)call, (void)ret;
    if (!daemon_take_turn(&turn, error)) {
        return false;
    }
    struct filter *f = find(&args->filter, error);
    bool ok = f && forget(f, error);
    daemon_end_turn(&turn);
    return ok;
}
