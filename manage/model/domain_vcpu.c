/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of a machine's vCPUs it has: <vcpu current=> says the first so many, <vcpus> says it of
 * each.
 */
#include "manage/error.h"
#include "manage/model/domain.h"

static struct vcpu_state *find(const DomainDef *def, unsigned id)
{
    for (unsigned i = 0; i < xml_count(def->vcpu_states); i++) {
        struct vcpu_state *s = def->vcpu_states->pdata[i];
        if (s->id == id) {
            return s;
        }
    }
    return NULL;
}

unsigned domain_vcpus_online(const DomainDef *def)
{
    return (unsigned)(def->current_vcpus == XML_ABSENT ? def->vcpus : def->current_vcpus);
}

bool domain_vcpu_online(const DomainDef *def, unsigned id)
{
    const struct vcpu_state *s = find(def, id);
    return xml_count(def->vcpu_states) ? s && s->enabled == TRI_YES : id < domain_vcpus_online(def);
}

bool domain_vcpu_removable(const DomainDef *def, unsigned id)
{
    const struct vcpu_state *s = find(def, id);
    return s && s->hotpluggable == TRI_YES;
}

static void add_state(DomainDef *def, unsigned id, bool online)
{
    struct vcpu_state *s = g_new0(struct vcpu_state, 1);
    s->id = id;
    s->enabled = online ? TRI_YES : TRI_NO;
    s->hotpluggable = online ? TRI_NO : TRI_YES;
    s->order = online ? (int64_t)id + 1 : XML_ABSENT;
    xml_append(NULL, &def->vcpu_states, s);
}

static void count(DomainDef *def)
{
    int64_t n = 0;
    for (unsigned i = 0; i < xml_count(def->vcpu_states); i++) {
        n += ((struct vcpu_state *)def->vcpu_states->pdata[i])->enabled == TRI_YES;
    }
    def->current_vcpus = n == def->vcpus ? XML_ABSENT : n;
}

void domain_vcpu_set(DomainDef *def, unsigned id, bool online, bool removable)
{
    int64_t last = 0;
    unsigned had = xml_count(def->vcpu_states) ? 0 : domain_vcpus_online(def);
    for (unsigned i = 0; i < def->vcpus; i++) {
        if (!find(def, i)) {
            add_state(def, i, i < had);
        }
        last = MAX(last, find(def, i)->order == XML_ABSENT ? 0 : find(def, i)->order);
    }
    struct vcpu_state *s = find(def, id);
    bool was = s->enabled == TRI_YES;
    s->enabled = online ? TRI_YES : TRI_NO;
    s->hotpluggable = removable || !online ? TRI_YES : TRI_NO;
    s->order = !online ? XML_ABSENT : was && s->order != XML_ABSENT ? s->order : last + 1;
    count(def);
}

void domain_vcpus_set(DomainDef *def, unsigned n, bool removable)
{
    if (!removable && !xml_count(def->vcpu_states)) {
        def->current_vcpus = n == def->vcpus ? XML_ABSENT : n;
        return;
    }
    for (unsigned i = 0; i < def->vcpus && domain_vcpus_online(def) < n; i++) {
        if (!domain_vcpu_online(def, i)) {
            domain_vcpu_set(def, i, true, removable);
        }
    }
    for (unsigned i = (unsigned)def->vcpus; i-- > 1 && domain_vcpus_online(def) > n;) {
        if (domain_vcpu_online(def, i)) {
            domain_vcpu_set(def, i, false, true);
        }
    }
}

void domain_vcpus_limit(DomainDef *def, unsigned n)
{
    for (unsigned i = xml_count(def->vcpu_states); i-- > 0;) {
        struct vcpu_state *s = def->vcpu_states->pdata[i];
        if (s->id >= n) {
            g_free(g_ptr_array_remove_index(def->vcpu_states, i));
        }
    }
    bool all = def->current_vcpus == XML_ABSENT;
    int64_t old = def->vcpus;
    def->vcpus = n;
    if (xml_count(def->vcpu_states)) {
        for (unsigned i = (unsigned)old; all && i < n; i++) {
            domain_vcpu_set(def, i, true, false);
        }
        count(def);
    } else if (def->current_vcpus != XML_ABSENT && def->current_vcpus >= n) {
        def->current_vcpus = XML_ABSENT;
    }
}

static bool wrong(GError **error, const struct vcpu_state *s, const char *what)
{
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "vcpu '%ld' %s", (long)s->id, what);
    return false;
}

bool domain_vcpus_fill(DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->vcpu_states); i++) {
        struct vcpu_state *s = def->vcpu_states->pdata[i];
        bool online = s->enabled == TRI_YES;
        if (s->id < 0 || s->id >= def->vcpus) {
            return wrong(error, s, "is beyond the maximum");
        }
        if (find(def, (unsigned)s->id) != s) {
            return wrong(error, s, "is there twice");
        }
        if (!s->hotpluggable) {
            s->hotpluggable = online ? TRI_NO : TRI_YES;
        }
        if (!online && s->hotpluggable == TRI_NO) {
            return wrong(error, s, "is both offline and not hotpluggable");
        }
        if (s->id == 0 && !online) {
            return wrong(error, s, "can't be offline");
        }
    }
    if (xml_count(def->vcpu_states)) {
        count(def);
        /* lodge-vm begins with the first so many. */
        for (unsigned i = 1; i < def->vcpus; i++) {
            struct vcpu_state *s = find(def, i);
            bool fixed = domain_vcpu_online(def, i) && !domain_vcpu_removable(def, i);
            bool before =
                domain_vcpu_online(def, i - 1) && (i == 1 || !domain_vcpu_removable(def, i - 1));
            if (fixed && !before) {
                return wrong(error, s, "must be hotpluggable: it comes after one that is");
            }
        }
    }
    return true;
}
