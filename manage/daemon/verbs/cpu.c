/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPU models: their names, what fits this host, what several hosts have in common. */
#include "manage/daemon/cpu.h"
#include "manage/daemon/verb.h"

#include <string.h>

enum { COMPARE_FAIL = 1, COMPARE_VALIDATE = 2 };
enum { CPU_INCOMPATIBLE, CPU_IDENTICAL, CPU_SUPERSET };
enum { BASELINE_EXPAND = 1, BASELINE_MIGRATABLE = 2 };

static bool check_arch(const char *arch, GError **error)
{
    if (strcmp(arch, "x86_64") != 0 && strcmp(arch, "i686") != 0) {
        libvirt_error(error, ERR_NO_SUPPORT, "CPUs of architecture '%s'", arch);
        return false;
    }
    return true;
}

bool verb_connect_get_cpu_model_names(struct call *call, const rpc_cpu_models_args *args,
                                      rpc_names_count *ret, GError **error)
{
    (void)call;
    const struct cpu_choice *c = check_arch(args->arch, error) ? cpu_choice(false, error) : NULL;
    if (!c) {
        return false;
    }
    ret->count = (int)c->kinds->len;
    if (args->need_results) {
        ret->names.names_val = g_new0(char *, c->kinds->len);
        ret->names.names_len = c->kinds->len;
        for (unsigned i = 0; i < c->kinds->len; i++) {
            ret->names.names_val[i] = g_strdup(((const struct cpu_kind *)c->kinds->pdata[i])->name);
        }
    }
    return true;
}

/* --- a CPU in XML: a host's or a guest's --- */

typedef struct wanted Wanted;
struct wanted {
    const char *model; /* our name of it; NULL: only features */
    char *vendor;
    bool strict;
    GHashTable *features, *forbidden;
};

static void wanted_free(Wanted *w)
{
    g_free(w->vendor);
    g_hash_table_unref(w->features);
    g_hash_table_unref(w->forbidden);
    g_free(w);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Wanted, wanted_free)

static char *text_of(const xmlNode *node)
{
    xmlChar *text = xmlNodeGetContent(node);
    char *copy = g_strstrip(g_strdup((const char *)text));
    xmlFree(text);
    return copy;
}

static char *attribute(const xmlNode *node, const char *name)
{
    xmlChar *text = xmlGetNoNsProp(node, (const xmlChar *)name);
    char *copy = text ? g_strdup((const char *)text) : NULL;
    xmlFree(text);
    return copy;
}

static bool read_model(const struct cpu_choice *c, Wanted *w, const xmlNode *node, GError **error)
{
    g_autofree char *name = text_of(node);
    const struct cpu_kind *kind = cpu_kind_find(c, name);
    if (!kind) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Unknown CPU model %s", name);
        return false;
    }
    w->model = kind->name;
    GHashTableIter it;
    void *feature;
    g_hash_table_iter_init(&it, kind->features);
    while (g_hash_table_iter_next(&it, &feature, NULL)) {
        g_hash_table_add(w->features, feature);
    }
    return true;
}

static bool read_feature(const struct cpu_choice *c, Wanted *w, const xmlNode *node, GError **error)
{
    g_autofree char *given = attribute(node, "name"), *policy = attribute(node, "policy");
    g_autofree char *name = given ? cpu_feature_name(given) : NULL;
    if (!name) {
        libvirt_error(error, ERR_XML, "Missing CPU feature name");
        return false;
    }
    if (!g_hash_table_contains(c->known, name)) {
        if (!policy) {
            return true; /* of a host: ours would never show it */
        }
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "Unknown CPU feature %s", given);
        return false;
    }
    void *interned = (void *)g_intern_string(name);
    if (!policy || strcmp(policy, "require") == 0 || strcmp(policy, "force") == 0) {
        g_hash_table_add(w->features, interned);
    } else if (strcmp(policy, "optional") == 0) {
        if (g_hash_table_contains(c->host, name)) {
            g_hash_table_add(w->features, interned);
        }
    } else {
        g_hash_table_remove(w->features, interned);
        if (strcmp(policy, "forbid") == 0) {
            g_hash_table_add(w->forbidden, interned);
        }
    }
    return true;
}

/* <cpu> as the root or somewhere below it, as in capabilities. */
static const xmlNode *find_cpu(const xmlNode *node)
{
    for (; node; node = node->next) {
        if (node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, "cpu") == 0) {
            return node;
        }
        const xmlNode *below = find_cpu(node->children);
        if (below) {
            return below;
        }
    }
    return NULL;
}

static Wanted *read_cpu(const struct cpu_choice *c, const char *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = xml_parse(xml, "CPU_definition", NULL, error);
    const xmlNode *cpu = doc ? find_cpu(xmlDocGetRootElement(doc)) : NULL;
    if (!cpu) {
        if (doc) {
            libvirt_error(error, ERR_XML, "XML does not contain expected 'cpu' element");
        }
        return NULL;
    }
    g_autoptr(Wanted) w = g_new0(Wanted, 1);
    w->features = g_hash_table_new(g_str_hash, g_str_equal);
    w->forbidden = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree char *match = attribute(cpu, "match");
    w->strict = g_strcmp0(match, "strict") == 0;
    for (unsigned round = 0; round < 2; round++) { /* features change what the model has */
        for (const xmlNode *n = cpu->children; n; n = n->next) {
            const char *name = n->type == XML_ELEMENT_NODE ? (const char *)n->name : "";
            if (round == 0 && strcmp(name, "model") == 0 && !read_model(c, w, n, error)) {
                return NULL;
            }
            if (round == 0 && strcmp(name, "vendor") == 0) {
                g_free(w->vendor);
                w->vendor = text_of(n);
            }
            if (round == 1 && strcmp(name, "feature") == 0 && !read_feature(c, w, n, error)) {
                return NULL;
            }
        }
    }
    if (!w->model && !g_hash_table_size(w->features)) {
        libvirt_error(error, ERR_XML, "CPU model and features are both missing");
        return NULL;
    }
    return g_steal_pointer(&w);
}

/* --- comparing --- */

static unsigned common(GHashTable *a, GHashTable *b)
{
    unsigned n = 0;
    GHashTableIter it;
    void *name;
    g_hash_table_iter_init(&it, a);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        n += g_hash_table_contains(b, name);
    }
    return n;
}

static bool compare(bool kvm, const char *xml, unsigned flags, int *result, GError **error)
{
    const struct cpu_choice *c = cpu_choice(kvm, error);
    g_autoptr(Wanted) w = c ? read_cpu(c, xml, error) : NULL;
    if (!w) {
        return false;
    }
    unsigned had = common(w->features, c->host);
    bool identical = had == g_hash_table_size(c->host);
    *result = identical ? CPU_IDENTICAL : CPU_SUPERSET;
    const char *why = NULL;
    if (w->vendor && g_strcmp0(w->vendor, c->vendor) != 0) {
        why = "host CPU vendor does not match required CPU vendor";
    } else if (had < g_hash_table_size(w->features)) {
        why = "Host CPU does not provide required features";
    } else if (common(w->forbidden, c->host)) {
        why = "Host CPU provides forbidden features";
    } else if (w->strict && !identical) {
        why = "Host CPU does not strictly match guest CPU: Extra features";
    }
    if (!why) {
        return true;
    }
    *result = CPU_INCOMPATIBLE;
    if (flags & COMPARE_FAIL) {
        libvirt_error(error, ERR_CPU_INCOMPATIBLE, "%s", why);
        return false;
    }
    return true;
}

/* The host's processor is what the best of its engines gives: KVM, where that works. */
static bool by_kvm(void)
{
    const char *why;
    return cpu_has_kvm(&why);
}

bool verb_connect_compare_cpu(struct call *call, const rpc_text_flags *args, rpc_int *ret,
                              GError **error)
{
    (void)call;
    return compare(by_kvm(), args->text, args->flags, &ret->value, error);
}

static bool check_hypervisor(const rpc_maybe_string arch, const rpc_maybe_string type, bool *kvm,
                             GError **error)
{
    const char *word = type ? *type : "qemu";
    if (arch && !check_arch(*arch, error)) {
        return false;
    }
    if (strcmp(word, "qemu") != 0 && strcmp(word, "kvm") != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "unknown virttype: %s", word);
        return false;
    }
    *kvm = strcmp(word, "kvm") == 0;
    return true;
}

bool verb_connect_compare_hypervisor_cpu(struct call *call, const rpc_hypervisor_cpu_args *args,
                                         rpc_int *ret, GError **error)
{
    bool kvm;
    (void)call;
    return check_hypervisor(args->arch, args->virt_type, &kvm, error) &&
           compare(kvm, args->xml, args->flags, &ret->value, error);
}

/* --- what several have in common --- */

static gboolean not_in(void *name, void *value, void *set)
{
    (void)value;
    return !g_hash_table_contains(set, name);
}

static char *baseline(bool kvm, char *const *cpus, unsigned n, unsigned flags, GError **error)
{
    const struct cpu_choice *c = cpu_choice(kvm, error);
    g_autoptr(Wanted) all = NULL;
    if (c && n == 0) {
        libvirt_error(error, ERR_INVALID_ARG, "no CPUs given");
    }
    for (unsigned i = 0; c && i < n; i++) {
        g_autoptr(Wanted) w = read_cpu(c, cpus[i], error);
        if (!w) {
            return NULL;
        }
        if (!all) {
            all = g_steal_pointer(&w);
            continue;
        }
        if (w->vendor && all->vendor && strcmp(w->vendor, all->vendor) != 0) {
            libvirt_error(error, ERR_OPERATION_FAILED, "CPU vendors do not match");
            return NULL;
        }
        g_hash_table_foreach_remove(all->features, not_in, w->features);
    }
    if (!all) {
        return NULL;
    }
    const struct cpu_kind *kind = cpu_best(c, all->vendor, all->features);
    if (!kind) {
        libvirt_error(error, ERR_OPERATION_FAILED, "CPUs are incompatible");
        return NULL;
    }
    g_autoptr(GString) xml = g_string_new("<cpu mode='custom' match='exact'>\n");
    g_string_append_printf(xml, "  <model fallback='forbid'>%s</model>\n", kind->name);
    if (all->vendor) {
        g_string_append(xml, "  <vendor>");
        xml_escape(xml, all->vendor);
        g_string_append(xml, "</vendor>\n");
    }
    g_autoptr(GPtrArray) extras = cpu_extras(flags & BASELINE_EXPAND ? NULL : kind, all->features);
    for (unsigned i = 0; i < extras->len; i++) {
        g_string_append_printf(xml, "  <feature policy='require' name='%s'/>\n",
                               (char *)extras->pdata[i]);
    }
    g_autoptr(GPtrArray) lacks = cpu_lacks(kind, all->features);
    for (unsigned i = 0; i < lacks->len; i++) {
        g_string_append_printf(xml, "  <feature policy='disable' name='%s'/>\n",
                               (char *)lacks->pdata[i]);
    }
    g_string_append(xml, "</cpu>\n");
    return g_string_free(g_steal_pointer(&xml), FALSE);
}

bool verb_connect_baseline_cpu(struct call *call, const rpc_baseline_args *args, rpc_text *ret,
                               GError **error)
{
    (void)call;
    ret->text = baseline(by_kvm(), args->cpus.cpus_val, args->cpus.cpus_len, args->flags, error);
    return ret->text != NULL;
}

bool verb_connect_baseline_hypervisor_cpu(struct call *call,
                                          const rpc_hypervisor_baseline_args *args, rpc_text *ret,
                                          GError **error)
{
    bool kvm;
    (void)call;
    ret->text = check_hypervisor(args->arch, args->virt_type, &kvm, error)
                    ? baseline(kvm, args->cpus.cpus_val, args->cpus.cpus_len, args->flags, error)
                    : NULL;
    return ret->text != NULL;
}
