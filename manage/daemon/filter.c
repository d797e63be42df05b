/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * filter: what <filterref> of an interface means, as rules of nftables' bridge family.
 *
 * A libvirt filter puts rules into a chain; "root" is where every frame goes, and the others are
 * entered from it by the protocol that their names begin with, all by their priorities.
 *
 * Where a filter needs the machine's address ($IP) and nobody says it, the first address that the
 * machine sends from is taken for its own: a set of nftables with room for one.
 *
 * Spec: libvirt, "Network Filters"; libnftables-json(5), "EXPRESSIONS"; RFC 826, "An Ethernet
 * Address Resolution Protocol", section "Packet format".
 */
#include "base/json.h"
#include "manage/daemon/port_guard.h"
#include "manage/rpc/error.h"

#include <string.h>

enum { DEPTH_MAX = 16, RULES_MAX = 4096, PRIORITY_RULE = 500, PRIO_HOOK = -200 };
enum direction { DIRECTION_OUT = 1, DIRECTION_IN = 2 }; /* as the machine sees it */

/* ---- what is made ---- */

struct filter_rule {
    int priority;
    unsigned order; /* of two with one priority the first comes first */
    unsigned directions;
    json_t *expr; /* matches and verdict; or NULL: a jump to .jump */
    const char *jump;
};
struct filter_chain {
    char *name;
    int priority;
    GArray *rules; /* struct filter_rule */
};

struct compiler {
    const struct domain_interface *nic;
    char *table;
    GPtrArray *chains; /* struct filter_chain */
    unsigned rules;
    bool learns; /* $IP is learned */
    GError **error;
};

/* Values of variables, of the interface and of each <filterref> on the way. */
struct scope {
    const struct scope *outer;
    GPtrArray *parameters; /* struct filter_parameter */
};

static void chain_free(void *data)
{
    struct filter_chain *c = data;
    for (unsigned i = 0; i < c->rules->len; i++) {
        json_decref(g_array_index(c->rules, struct filter_rule, i).expr);
    }
    g_array_unref(c->rules);
    g_free(c->name);
    g_free(c);
}

/* Chains other than root: their names' beginnings, and whose frames enter them. */
static const struct {
    const char *prefix, *ether_type;
    int priority;
} chain_kinds[] = {
    {"root", NULL, 0},        {"mac", NULL, -800},      {"vlan", "0x8100", -750},
    {"ipv4", "0x0800", -700}, {"ipv6", "0x86dd", -600}, {"arp", "0x0806", -500},
    {"rarp", "0x8035", -400},
};

static int kind_of(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(chain_kinds); i++) {
        const char *p = chain_kinds[i].prefix;
        size_t n = strlen(p);
        if (!strncmp(name, p, n) && (!name[n] || (i && name[n] == '-'))) {
            return (int)i;
        }
    }
    return -1;
}

static struct filter_chain *chain_get(struct compiler *c, const char *name, const char *priority)
{
    for (unsigned i = 0; i < c->chains->len; i++) {
        struct filter_chain *chain = c->chains->pdata[i];
        if (!strcmp(chain->name, name)) {
            return chain;
        }
    }
    int kind = kind_of(name);
    for (const char *p = name; *p; p++) {
        kind = g_ascii_isalnum(*p) || *p == '-' || *p == '_' ? kind : -1;
    }
    if (kind < 0 || strlen(name) > 60) {
        libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED, "filter chain '%s' is not supported", name);
        return NULL;
    }
    struct filter_chain *chain = g_new0(struct filter_chain, 1);
    chain->name = g_strdup(name);
    chain->priority =
        priority ? (int)g_ascii_strtoll(priority, NULL, 10) : chain_kinds[kind].priority;
    chain->rules = g_array_new(FALSE, TRUE, sizeof(struct filter_rule));
    g_ptr_array_add(c->chains, chain);
    return chain;
}

static bool rule_add(struct compiler *c, struct filter_chain *chain, struct filter_rule rule)
{
    if (++c->rules > RULES_MAX) {
        libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED, "more than %d rules of filters", RULES_MAX);
        json_decref(rule.expr);
        return false;
    }
    rule.order = c->rules;
    g_array_append_val(chain->rules, rule);
    return true;
}

/* ---- matches ---- */

enum value_kind { VALUE_MAC, VALUE_IP, VALUE_NUMBER, VALUE_TYPE, VALUE_PROTOCOL, VALUE_OPCODE };

/* An attribute of a rule's protocol: what it is compared with. */
struct attribute {
    const char *name;
    enum value_kind kind;
    const char *protocol, *field; /* of nft; or: */
    const char *base;             /* raw bits behind a header's start */
    int offset, length;
    const char *mask; /* the attribute with the length of a prefix */
    const char *end;  /* the attribute with the end of a range */
};

#define RAW(what, base, at, bits) what, NULL, NULL, base, at, bits
#define NETWORK_HEADER            "nh"
#define MACS                                                                                       \
    {"srcmacaddr", VALUE_MAC, "ether", "saddr"},                                                   \
    {                                                                                              \
        "dstmacaddr", VALUE_MAC, "ether", "daddr"                                                  \
    }
#define ARP                                                                                        \
    MACS, {"opcode", RAW(VALUE_OPCODE, NETWORK_HEADER, 48, 16)},                                   \
        {"hwtype", RAW(VALUE_NUMBER, NETWORK_HEADER, 0, 16)},                                      \
        {"protocoltype", RAW(VALUE_NUMBER, NETWORK_HEADER, 16, 16)},                               \
        {"arpsrcmacaddr", RAW(VALUE_MAC, NETWORK_HEADER, 64, 48)},                                 \
        {"arpdstmacaddr", RAW(VALUE_MAC, NETWORK_HEADER, 144, 48)},                                \
        {"arpsrcipaddr", VALUE_IP, "arp", "saddr ip"},                                             \
    {                                                                                              \
        "arpdstipaddr", VALUE_IP, "arp", "daddr ip"                                                \
    }
#define INTERNET(p, next)                                                                          \
    MACS, {"srcipaddr", VALUE_IP, p, "saddr", .mask = "srcipmask"},                                \
        {"dstipaddr", VALUE_IP, p, "daddr", .mask = "dstipmask"},                                  \
        {"protocol", VALUE_PROTOCOL, p, next},                                                     \
        {"srcportstart", VALUE_NUMBER, "th", "sport", .end = "srcportend"},                        \
    {                                                                                              \
        "dstportstart", VALUE_NUMBER, "th", "dport", .end = "dstportend"                           \
    }

static const struct attribute mac_attributes[] = {
    MACS, {"protocolid", VALUE_TYPE, "ether", "type"}, {NULL}};
static const struct attribute arp_attributes[] = {ARP, {NULL}};
static const struct attribute ip_attributes[] = {INTERNET("ip", "protocol"), {NULL}};
static const struct attribute ipv6_attributes[] = {INTERNET("ip6", "nexthdr"), {NULL}};

/* Protocols that rules name.  Those with .l4 need the state of connections where they let pass. */
static const struct protocol {
    const char *name, *ether_type;
    const struct attribute *attributes;
    const char *l4;
} protocols[] = {
    {"mac", NULL, mac_attributes, NULL},
    {"arp", "0x0806", arp_attributes, NULL},
    {"rarp", "0x8035", arp_attributes, NULL},
    {"ip", "0x0800", ip_attributes, NULL},
    {"ipv6", "0x86dd", ipv6_attributes, NULL},
    {"all", "0x0800", ip_attributes, ""},
    {"tcp", "0x0800", ip_attributes, "tcp"},
    {"udp", "0x0800", ip_attributes, "udp"},
    {"icmp", "0x0800", ip_attributes, "icmp"},
    {"igmp", "0x0800", ip_attributes, "igmp"},
    {"all-ipv6", "0x86dd", ipv6_attributes, ""},
    {"tcp-ipv6", "0x86dd", ipv6_attributes, "tcp"},
    {"udp-ipv6", "0x86dd", ipv6_attributes, "udp"},
};

static json_t *match(bool equal, json_t *left, json_t *right)
{
    return json_pack("{s:{s:s, s:o, s:o}}", "match", "op", equal ? "==" : "!=", "left", left,
                     "right", right);
}

static json_t *payload(const struct attribute *a)
{
    return a->base
               ? json_pack("{s:{s:s, s:i, s:i}}", "payload", "base", a->base, "offset", a->offset,
                           "len", a->length)
               : json_pack("{s:{s:s, s:s}}", "payload", "protocol", a->protocol, "field", a->field);
}

static json_t *type_is(const char *type)
{
    return match(true, json_pack("{s:{s:s, s:s}}", "payload", "protocol", "ether", "field", "type"),
                 json_integer(g_ascii_strtoll(type, NULL, 16)));
}

static bool number(const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    *out = g_ascii_strtoull(text, &end, g_str_has_prefix(text, "0x") ? 16 : 10);
    return g_ascii_isdigit(text[0]) && !*end && *out <= max;
}

static json_t *word_number(const char *text, const char *const *words, const int64_t *values)
{
    uint64_t n;
    for (unsigned i = 0; words[i]; i++) {
        if (!g_ascii_strcasecmp(words[i], text)) {
            return json_integer(values[i]);
        }
    }
    return number(text, UINT16_MAX, &n) ? json_integer((json_int_t)n) : NULL;
}

static json_t *mac_value(const struct attribute *a, const char *text)
{
    if (!mac_valid(text) && strcmp(text, "ff:ff:ff:ff:ff:ff")) {
        return NULL;
    }
    uint64_t n = 0;
    for (unsigned i = 0; i < 6; i++) {
        n = n << 8 | g_ascii_strtoull(text + 3 * i, NULL, 16);
    }
    return a->base ? json_integer((json_int_t)n) : json_string(text);
}

static json_t *value_of(const struct attribute *a, const char *text)
{
    static const char *const types[] = {"ipv4", "ipv6", "arp", "rarp", "vlan", NULL};
    static const int64_t type_values[] = {0x800, 0x86dd, 0x806, 0x8035, 0x8100};
    static const char *const codes[] = {"Request", "Reply", "Request_Reverse", "Reply_Reverse",
                                        NULL};
    static const int64_t code_values[] = {1, 2, 3, 4};
    static const char *const numbers[] = {"icmp", "igmp",   "tcp",  "udp", "esp",
                                          "ah",   "icmpv6", "sctp", NULL};
    static const int64_t number_values[] = {1, 2, 6, 17, 50, 51, 58, 132};
    switch (a->kind) {
    case VALUE_MAC:
        return mac_value(a, text);
    case VALUE_IP:
        return g_hostname_is_ip_address(text) ? json_string(text) : NULL;
    case VALUE_TYPE:
        return word_number(text, types, type_values);
    case VALUE_OPCODE:
        return word_number(text, codes, code_values);
    case VALUE_PROTOCOL:
        return word_number(text, numbers, number_values);
    case VALUE_NUMBER:
        break;
    }
    uint64_t n;
    return number(text, UINT16_MAX, &n) ? json_integer((json_int_t)n) : NULL;
}

/* "24" or "255.255.255.0"; -1: neither. */
static int prefix_of(const char *mask, bool six)
{
    uint64_t n;
    unsigned b[4];
    if (number(mask, six ? 128 : 32, &n)) {
        return (int)n;
    }
    if (six || sscanf(mask, "%3u.%3u.%3u.%3u", &b[0], &b[1], &b[2], &b[3]) != 4) {
        return -1;
    }
    uint32_t bits = b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3], length = 0;
    while (length < 32 && bits & 1u << (31 - length)) {
        length++;
    }
    return length < 32 && bits << length ? -1 : (int)length;
}

/* ---- variables ---- */

static bool bad(struct compiler *c, const char *attribute, const char *text)
{
    libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED,
                  "attribute '%s' of a filter's rule with value '%s' is not supported", attribute,
                  text);
    return false;
}

/* All values of @name; an empty list where it is to be learned, NULL with an error. */
static GPtrArray *values_of(struct compiler *c, const struct scope *scope, const char *name)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    if (!strcmp(name, "MAC")) {
        g_ptr_array_add(all, g_strdup(c->nic->mac));
    }
    for (const struct scope *s = scope; s && !all->len; s = s->outer) {
        for (unsigned i = 0; i < xml_count(s->parameters); i++) {
            const struct filter_parameter *p = s->parameters->pdata[i];
            if (!strcmp(p->name, name)) {
                g_ptr_array_add(all, g_strdup(p->value));
            }
        }
    }
    if (!all->len && strcmp(name, "IP")) {
        libvirt_error(c->error, ERR_INTERNAL,
                      "filter needs a <parameter name='%s'> of the interface", name);
        g_ptr_array_unref(all);
        return NULL;
    }
    return all;
}

static json_t *learned(void)
{
    return json_string("@learned");
}

/* ---- rules ---- */

/* The right side for @text, which may be a range or a network. */
static json_t *right_of(struct compiler *c, xmlNode *node, const struct attribute *a,
                        const char *text)
{
    g_autofree char *mask = a->mask ? (char *)xmlGetProp(node, BAD_CAST a->mask) : NULL;
    g_autofree char *end = a->end ? (char *)xmlGetProp(node, BAD_CAST a->end) : NULL;
    json_t *value = value_of(a, text), *last = end ? value_of(a, end) : NULL;
    int prefix = mask ? prefix_of(mask, !strcmp(a->protocol, "ip6")) : 0;
    if (!value || (end && !last) || prefix < 0) {
        json_decref(value);
        json_decref(last);
        bad(c, a->name, !value ? text : prefix < 0 ? mask : end);
        return NULL;
    }
    if (end) {
        return json_pack("{s:[o, o]}", "range", value, last);
    }
    return mask ? json_pack("{s:{s:o, s:i}}", "prefix", "addr", value, "len", prefix) : value;
}

/* Adds what attribute @a of @node asks for, if it is there; false with an error. */
static bool compare(struct compiler *c, const struct scope *scope, xmlNode *node,
                    const struct attribute *a, bool equal, json_t *expr)
{
    g_autofree char *text = (char *)xmlGetProp(node, BAD_CAST a->name);
    if (!text) {
        return true;
    }
    if (text[0] != '$') {
        json_t *right = right_of(c, node, a, text);
        return right && json_array_append_new(expr, match(equal, payload(a), right)) == 0;
    }
    g_autoptr(GPtrArray) values = values_of(c, scope, text + 1);
    if (!values) {
        return false;
    }
    if (!values->len) {
        c->learns = true;
        json_array_append_new(expr, match(equal, payload(a), learned()));
        return true;
    }
    json_t *set = json_array();
    for (unsigned i = 0; i < values->len; i++) {
        json_t *value = value_of(a, values->pdata[i]);
        if (!value) {
            json_decref(set);
            return bad(c, a->name, values->pdata[i]);
        }
        json_array_append_new(set, value);
    }
    json_array_append_new(expr, match(equal, payload(a), json_pack("{s:o}", "set", set)));
    return true;
}

static const struct attribute *attribute_of(const struct protocol *p, const char *name)
{
    for (const struct attribute *a = p->attributes; a->name; a++) {
        if (!strcmp(a->name, name) || !g_strcmp0(a->mask, name) || !g_strcmp0(a->end, name)) {
            return a;
        }
    }
    return NULL;
}

/* Every attribute must be one that is known; "match" and "comment" are for all. */
static bool known_attributes(struct compiler *c, const struct protocol *p, xmlNode *node)
{
    for (const xmlAttr *at = node->properties; at; at = at->next) {
        const char *name = (const char *)at->name;
        if (strcmp(name, "match") && strcmp(name, "comment") && !attribute_of(p, name)) {
            libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED,
                          "attribute '%s' of <%s> in a filter is not supported", name, p->name);
            return false;
        }
    }
    return true;
}

static json_t *verdict_of(const char *action)
{
    static const struct {
        const char *action, *verdict;
    } all[] = {{"accept", "accept"},
               {"drop", "drop"},
               {"reject", "drop"},
               {"return", "return"},
               {"continue", "continue"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        if (!strcmp(all[i].action, action)) {
            return json_pack("{s:n}", all[i].verdict);
        }
    }
    return NULL;
}

static const struct protocol *protocol_of(struct compiler *c, xmlNode *node, const char *action)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        const struct protocol *p = &protocols[i];
        if (!strcmp(p->name, (const char *)node->name)) {
            if (p->l4 && strcmp(action, "drop") && strcmp(action, "reject")) {
                libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED,
                              "action '%s' of <%s> in a filter needs the state of connections, "
                              "which is not supported on bridges",
                              action, p->name);
                return NULL;
            }
            return known_attributes(c, p, node) ? p : NULL;
        }
    }
    libvirt_error(c->error, ERR_CONFIG_UNSUPPORTED, "<%s> in a filter is not supported",
                  (const char *)node->name);
    return NULL;
}

/* One protocol element of a rule, or none: every frame. */
static json_t *expression(struct compiler *c, const struct scope *scope, xmlNode *node,
                          const char *action)
{
    json_t *expr = json_array();
    const struct protocol *p = node ? protocol_of(c, node, action) : NULL;
    bool ok = p || !node;
    if (p) {
        g_autofree char *says = (char *)xmlGetProp(node, BAD_CAST "match");
        bool equal = g_strcmp0(says, "no") != 0;
        if (p->ether_type) {
            json_array_append_new(expr, type_is(p->ether_type));
        }
        if (p->l4 && *p->l4) {
            json_array_append_new(
                expr,
                match(true, json_pack("{s:{s:s}}", "meta", "key", "l4proto"), json_string(p->l4)));
        }
        for (const struct attribute *a = p->attributes; ok && a->name; a++) {
            ok = compare(c, scope, node, a, equal, expr);
        }
    }
    json_t *verdict = ok ? verdict_of(action) : NULL;
    if (ok && !verdict) {
        bad(c, "action", action);
    }
    if (!verdict) {
        json_decref(expr);
        return NULL;
    }
    if (strcmp(action, "continue")) {
        json_array_append_new(expr, verdict);
    } else {
        json_decref(verdict);
    }
    return expr;
}

static bool take_rule(struct compiler *c, const struct scope *scope, struct filter_chain *chain,
                      xmlNode *rule)
{
    g_autofree char *action = (char *)xmlGetProp(rule, BAD_CAST "action");
    g_autofree char *direction = (char *)xmlGetProp(rule, BAD_CAST "direction");
    g_autofree char *priority = (char *)xmlGetProp(rule, BAD_CAST "priority");
    struct filter_rule made = {
        .priority = priority ? (int)g_ascii_strtoll(priority, NULL, 10) : PRIORITY_RULE,
        .directions = !g_strcmp0(direction, "in")    ? DIRECTION_IN
                      : !g_strcmp0(direction, "out") ? DIRECTION_OUT
                                                     : DIRECTION_IN | DIRECTION_OUT};
    xmlNode *node = xmlFirstElementChild(rule);
    do {
        made.expr = expression(c, scope, node, action ? action : "");
        if (!made.expr || !rule_add(c, chain, made)) {
            return false;
        }
        node = node ? xmlNextElementSibling(node) : NULL;
    } while (node);
    return true;
}

static void parameter_free(void *data)
{
    struct filter_parameter *p = data;
    g_free(p->name);
    g_free(p->value);
    g_free(p);
}

static GPtrArray *parameters_of(xmlNode *reference)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(parameter_free);
    for (xmlNode *n = xmlFirstElementChild(reference); n; n = xmlNextElementSibling(n)) {
        struct filter_parameter *p = g_new0(struct filter_parameter, 1);
        p->name = (char *)xmlGetProp(n, BAD_CAST "name");
        p->value = (char *)xmlGetProp(n, BAD_CAST "value");
        if (p->name && p->value) {
            g_ptr_array_add(all, p);
        } else {
            parameter_free(p);
        }
    }
    return all;
}

static bool take_filter(struct compiler *c, const struct scope *scope, const char *name,
                        unsigned depth)
{
    const char *text = nwfilter_xml(name);
    if (!text || depth > DEPTH_MAX) {
        libvirt_error(c->error, text ? ERR_CONFIG_UNSUPPORTED : ERR_NO_NWFILTER,
                      text ? "filter '%s' refers to filters in a circle, or too deep"
                           : "no nwfilter with matching name '%s'",
                      name);
        return false;
    }
    g_autoptr(xmlDoc) doc = xml_parse(text, "nwfilter_definition", "filter", c->error);
    if (!doc) {
        return false;
    }
    xmlNode *root = xmlDocGetRootElement(doc);
    g_autofree char *chain_name = (char *)xmlGetProp(root, BAD_CAST "chain");
    g_autofree char *priority = (char *)xmlGetProp(root, BAD_CAST "priority");
    struct filter_chain *chain = chain_get(c, chain_name ? chain_name : "root", priority);
    bool ok = chain;
    for (xmlNode *n = xmlFirstElementChild(root); ok && n; n = xmlNextElementSibling(n)) {
        if (!strcmp((const char *)n->name, "rule")) {
            ok = take_rule(c, scope, chain, n);
        } else if (!strcmp((const char *)n->name, "filterref")) {
            g_autofree char *inner = (char *)xmlGetProp(n, BAD_CAST "filter");
            g_autoptr(GPtrArray) parameters = parameters_of(n);
            struct scope below = {scope, parameters};
            ok = take_filter(c, &below, inner ? inner : "", depth + 1);
        }
    }
    return ok;
}

/* ---- commands ---- */

static int by_priority(const void *a, const void *b)
{
    const struct filter_rule *x = a, *y = b;
    return x->priority != y->priority ? (x->priority > y->priority) - (x->priority < y->priority)
                                      : (x->order > y->order) - (x->order < y->order);
}

static void command(json_t *all, const char *kind, json_t *object)
{
    json_object_set_new(object, "family", json_string("bridge"));
    json_array_append_new(all, json_pack("{s:{s:o}}", "add", kind, object));
}

static char *name_in(unsigned direction, const char *chain)
{
    return g_strdup_printf("%s-%s", direction == DIRECTION_OUT ? "out" : "in", chain);
}

/* Rules of one chain in one direction. */
static void write_chain(const struct compiler *c, const struct filter_chain *chain,
                        unsigned direction, json_t *all)
{
    g_autofree char *name = name_in(direction, chain->name);
    bool addresses = !strcmp(chain->name, "ipv4-ip") || !strcmp(chain->name, "arp-ip");
    if (c->learns && addresses && direction == DIRECTION_OUT) {
        const char *p = chain->name[0] == 'i' ? "ip" : "arp";
        const char *field = chain->name[0] == 'i' ? "saddr" : "saddr ip";
        json_t *left = json_pack("{s:{s:s, s:s}}", "payload", "protocol", p, "field", field);
        json_t *expr = json_pack("[o, {s:{s:s, s:O, s:s}}]",
                                 match(false, json_incref(left), json_string("0.0.0.0")), "set",
                                 "op", "add", "elem", left, "set", "@learned");
        json_decref(left);
        command(all, "rule",
                json_pack("{s:s, s:s, s:o}", "table", c->table, "chain", name, "expr", expr));
    }
    for (unsigned i = 0; i < chain->rules->len; i++) {
        const struct filter_rule *r = &g_array_index(chain->rules, struct filter_rule, i);
        if (!(r->directions & direction)) {
            continue;
        }
        json_t *expr = r->expr ? json_incref(r->expr) : json_array();
        if (!r->expr) {
            const char *type = chain_kinds[kind_of(r->jump)].ether_type;
            g_autofree char *target = name_in(direction, r->jump);
            if (type) {
                json_array_append_new(expr, type_is(type));
            }
            json_array_append_new(expr, json_pack("{s:{s:s}}", "jump", "target", target));
        }
        command(all, "rule",
                json_pack("{s:s, s:s, s:o}", "table", c->table, "chain", name, "expr", expr));
    }
}

/* The root chain jumps to the others, in the order of all priorities. */
static void add_jumps(struct compiler *c)
{
    struct filter_chain *root = chain_get(c, "root", NULL);
    for (unsigned i = 0; i < c->chains->len; i++) {
        struct filter_chain *chain = c->chains->pdata[i];
        if (chain != root) {
            rule_add(c, root,
                     (struct filter_rule){.priority = chain->priority,
                                          .directions = DIRECTION_IN | DIRECTION_OUT,
                                          .jump = chain->name});
        }
    }
    for (unsigned i = 0; i < c->chains->len; i++) {
        struct filter_chain *chain = c->chains->pdata[i];
        g_array_sort(chain->rules, by_priority);
    }
}

static void write_direction(const struct compiler *c, const char *device, unsigned direction,
                            json_t *all)
{
    bool out = direction == DIRECTION_OUT;
    for (unsigned i = 0; i < c->chains->len; i++) {
        const struct filter_chain *chain = c->chains->pdata[i];
        g_autofree char *name = name_in(direction, chain->name);
        command(all, "chain", json_pack("{s:s, s:s}", "table", c->table, "name", name));
    }
    const char *hook = out ? "prerouting" : "postrouting";
    g_autofree char *root = name_in(direction, "root");
    command(all, "chain",
            json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "table", c->table, "name", hook, "type",
                      "filter", "hook", hook, "prio", PRIO_HOOK, "policy", "accept"));
    command(
        all, "rule",
        json_pack("{s:s, s:s, s:[o, {s:{s:s}}]}", "table", c->table, "chain", hook, "expr",
                  match(true, json_pack("{s:{s:s}}", "meta", "key", out ? "iifname" : "oifname"),
                        json_string(device)),
                  "jump", "target", root));
    for (unsigned i = 0; i < c->chains->len; i++) {
        write_chain(c, c->chains->pdata[i], direction, all);
    }
}

json_t *filter_rules(const char *device, const struct domain_interface *nic, GError **error)
{
    struct compiler c = {
        .nic = nic,
        .table = g_strconcat("lodge_", device, NULL),
        .chains = g_ptr_array_new_with_free_func(chain_free),
        .error = error,
    };
    struct scope scope = {NULL, nic->filter_parameters};
    json_t *all = NULL;
    if (take_filter(&c, &scope, nic->filter, 0)) {
        add_jumps(&c);
        all = json_array();
        if (c.learns) {
            command(all, "set",
                    json_pack("{s:s, s:s, s:s, s:i}", "table", c.table, "name", "learned", "type",
                              "ipv4_addr", "size", 1));
        }
        write_direction(&c, device, DIRECTION_OUT, all);
        write_direction(&c, device, DIRECTION_IN, all);
    }
    g_ptr_array_unref(c.chains);
    g_free(c.table);
    return all;
}
