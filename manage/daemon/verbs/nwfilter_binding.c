/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Which port of a machine has which filter.  They come and go with <filterref>, by nobody else. */
#include "manage/daemon/machine.h"
#include "manage/daemon/verb.h"
#include "manage/model/xml.h"

#include <string.h>

struct search {
    const char *port; /* NULL: all */
    GArray *all;      /* rpc_nwfilter_binding, for lists */
    GString *xml;     /* of .port */
    bool found;
    char *filter; /* of .port */
};

static void element(GString *out, unsigned depth, const char *name, const char *text)
{
    g_string_append_printf(out, "%*s<%s>", (int)depth * 2, "", name);
    xml_escape(out, text);
    g_string_append_printf(out, "</%s>\n", name);
}

static void attribute(GString *out, const char *front, const char *value, const char *end)
{
    g_string_append(out, front);
    xml_escape(out, value);
    g_string_append(out, end);
}

static void write_xml(GString *out, const DomainDef *def, const struct domain_interface *nic)
{
    g_string_append(out, "<filterbinding>\n  <owner>\n");
    element(out, 2, "name", def->name);
    element(out, 2, "uuid", def->uuid);
    g_string_append(out, "  </owner>\n");
    attribute(out, "  <portdev name='", nic->target, "'/>\n");
    attribute(out, "  <mac address='", nic->mac, "'/>\n");
    attribute(out, "  <filterref filter='", nic->filter, "'");
    g_string_append(out, xml_count(nic->filter_parameters) ? ">\n" : "/>\n");
    for (unsigned i = 0; i < xml_count(nic->filter_parameters); i++) {
        const struct filter_parameter *p = nic->filter_parameters->pdata[i];
        attribute(out, "    <parameter name='", p->name, "'");
        attribute(out, " value='", p->value, "'/>\n");
    }
    g_string_append(out, xml_count(nic->filter_parameters) ? "  </filterref>\n" : "");
    g_string_append(out, "</filterbinding>\n");
}

static void look(Domain *d, void *data)
{
    struct search *s = data;
    g_autoptr(Machine) m = machine_of(d, NULL);
    for (unsigned i = 0; m && i < xml_count(m->def->interfaces); i++) {
        const struct domain_interface *nic = m->def->interfaces->pdata[i];
        if (!nic->filter || !nic->target || (s->port && strcmp(s->port, nic->target) != 0)) {
            continue;
        }
        if (s->all) {
            rpc_nwfilter_binding one = {g_strdup(nic->target), g_strdup(nic->filter)};
            g_array_append_val(s->all, one);
        } else if (!s->found) {
            s->found = true;
            s->filter = g_strdup(nic->filter);
            write_xml(s->xml, m->def, nic);
        }
    }
}

static bool find(struct search *s, const char *port, GError **error)
{
    *s = (struct search){.port = port, .xml = g_string_new(NULL)};
    domain_each(look, s);
    if (!s->found) {
        g_string_free(s->xml, TRUE);
        libvirt_error(error, ERR_NO_NWFILTER_BINDING, "no nwfilter binding for port dev '%s'",
                      port);
    }
    return s->found;
}

bool verb_connect_list_all_nwfilter_bindings(struct call *call, const rpc_list_args *args,
                                             rpc_nwfilter_bindings *ret, GError **error)
{
    (void)call, (void)error;
    struct search s = {.all = g_array_new(FALSE, TRUE, sizeof(rpc_nwfilter_binding))};
    domain_each(look, &s);
    ret->count = s.all->len;
    ret->items.items_len = s.all->len;
    ret->items.items_val = (rpc_nwfilter_binding *)(void *)g_array_free(s.all, FALSE);
    if (!args->need_results) {
        xdr_free((xdrproc_t)xdr_rpc_nwfilter_bindings, (char *)ret);
        ret->items.items_val = NULL;
        ret->items.items_len = 0;
    }
    return true;
}

bool verb_nwfilter_binding_lookup_by_port_dev(struct call *call, const rpc_text *args,
                                              rpc_nwfilter_binding_ret *ret, GError **error)
{
    (void)call;
    struct search s;
    if (!find(&s, args->text, error)) {
        return false;
    }
    g_string_free(s.xml, TRUE);
    ret->binding = (rpc_nwfilter_binding){g_strdup(args->text), s.filter};
    return true;
}

bool verb_nwfilter_binding_get_xml_desc(struct call *call, const rpc_nwfilter_binding_flags *args,
                                        rpc_text *ret, GError **error)
{
    (void)call;
    struct search s;
    if (!find(&s, args->binding.port, error)) {
        return false;
    }
    g_free(s.filter);
    ret->text = g_string_free(s.xml, FALSE);
    return true;
}
