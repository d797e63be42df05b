/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a machine can be changed by a number: memory, titles, what follows an end. */
#include "manage/daemon/machine.h"
#include "manage/daemon/params.h"

#include <string.h>

/* --- memory --- */

enum { MEMORY_MAXIMUM = 4 };

/* Writes @change into the definition on disk. */
static bool change_config(Domain *d, void (*change)(DomainDef *def, int64_t v), int64_t v,
                          GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def) {
        return false;
    }
    change(def, v);
    return domain_def_check(def, error) && domain_save_config(d, def, error);
}

static void set_maximum(DomainDef *def, int64_t kib)
{
    def->memory = kib;
    def->current_memory = MIN(def->current_memory, kib);
}

static void set_current(DomainDef *def, int64_t kib)
{
    def->current_memory = kib;
}

static bool balloon(Domain *d, uint64_t kib, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    if (kib > (uint64_t)m->def->memory) {
        libvirt_error(error, ERR_INVALID_ARG, "cannot set memory higher than max memory");
        return false;
    }
    if (!m->def->balloon || m->def->balloon->model != BALLOON_VIRTIO) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "Unable to change memory of active domain without the balloon device");
        return false;
    }
    return qmp_do(m->qmp, error, "balloon", "{s:I}", "value", (json_int_t)kib * 1024);
}

static bool set_memory(const rpc_domain *named, uint64_t kib, unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    bool maximum = flags & MEMORY_MAXIMUM;
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (!kib || kib > (UINT64_C(1) << 40)) {
        libvirt_error(error, ERR_INVALID_ARG, "memory of %lu KiB is not possible",
                      (unsigned long)kib);
        return false;
    }
    if (maximum && (flags & AFFECT_LIVE)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot resize the maximum memory on an active domain");
        return false;
    }
    if ((flags & AFFECT_LIVE) && !balloon(d, kib, error)) {
        return false;
    }
    if (!(flags & AFFECT_CONFIG)) {
        return true;
    }
    if (!maximum && kib > (uint64_t)d->max_memory) {
        libvirt_error(error, ERR_INVALID_ARG, "cannot set memory higher than max memory");
        return false;
    }
    return change_config(d, maximum ? set_maximum : set_current, (int64_t)kib, error);
}

bool verb_domain_set_memory(struct call *call, const rpc_domain_uhyper *args, rpc_none *ret,
                            GError **error)
{
    (void)call, (void)ret;
    return set_memory(&args->dom, args->value, AFFECT_LIVE, error);
}

bool verb_domain_set_memory_flags(struct call *call, const rpc_domain_uhyper_flags *args,
                                  rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return set_memory(&args->dom, args->value, args->flags, error);
}

bool verb_domain_set_max_memory(struct call *call, const rpc_domain_uhyper *args, rpc_none *ret,
                                GError **error)
{
    (void)call, (void)ret;
    return set_memory(&args->dom, args->value, MEMORY_MAXIMUM, error);
}

/* --- titles, descriptions, metadata --- */

enum { METADATA_DESCRIPTION, METADATA_TITLE, METADATA_ELEMENT };

/* <key:element xmlns:key="uri"> out of the inside of <metadata>; NULL: there is none. */
static xmlNode *find_element(xmlDoc *doc, const char *uri)
{
    for (xmlNode *n = xmlDocGetRootElement(doc)->children; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && n->ns &&
            g_strcmp0((const char *)n->ns->href, uri) == 0) {
            return n;
        }
    }
    return NULL;
}

static xmlDoc *metadata_doc(const DomainDef *def, GError **error)
{
    g_autofree char *text =
        g_strdup_printf("<metadata>%s</metadata>", def->metadata ? def->metadata : "");
    return xml_parse(text, "metadata", NULL, error);
}

static char *dump_children(xmlDoc *doc)
{
    xmlBuffer *buffer = xmlBufferCreate();
    for (xmlNode *n = xmlDocGetRootElement(doc)->children; n; n = n->next) {
        xmlNodeDump(buffer, doc, n, 0, 0);
    }
    char *text = g_strstrip(g_strdup((const char *)xmlBufferContent(buffer)));
    xmlBufferFree(buffer);
    return text;
}

/* As libvirt: without the name space and its declaration, which remain the document's. */
static char *dump_bare(xmlDoc *doc, xmlNode *node)
{
    xmlBuffer *buffer = xmlBufferCreate();
    xmlNs *declared = g_steal_pointer(&node->nsDef), *ns = g_steal_pointer(&node->ns);
    xmlNodeDump(buffer, doc, node, 0, 0);
    node->nsDef = declared;
    node->ns = ns;
    char *text = g_strdup((const char *)xmlBufferContent(buffer));
    xmlBufferFree(buffer);
    return text;
}

static bool set_element(DomainDef *def, const char *xml, const char *key, const char *uri,
                        GError **error)
{
    g_autoptr(xmlDoc) doc = metadata_doc(def, error);
    if (!doc) {
        return false;
    }
    xmlNode *old = find_element(doc, uri);
    if (old) {
        xmlUnlinkNode(old);
        xmlFreeNode(old);
    }
    if (xml) {
        g_autoptr(xmlDoc) given = xml_parse(xml, "metadata_xml", NULL, error);
        if (!given) {
            return false;
        }
        xmlNode *copy = xmlDocCopyNode(xmlDocGetRootElement(given), doc, 1);
        xmlSetNs(copy, xmlNewNs(copy, (const xmlChar *)uri, (const xmlChar *)key));
        xmlAddChild(xmlDocGetRootElement(doc), copy);
    }
    g_free(def->metadata);
    def->metadata = dump_children(doc);
    if (!*def->metadata) {
        g_clear_pointer(&def->metadata, g_free);
    }
    return true;
}

static bool set_metadata(DomainDef *def, const rpc_set_metadata_args *args, GError **error)
{
    const char *text = args->metadata ? *args->metadata : NULL;
    if (args->type == METADATA_ELEMENT) {
        if (!args->uri || (text && !args->key)) {
            libvirt_error(error, ERR_INVALID_ARG, "metadata needs a name space and its key");
            return false;
        }
        return set_element(def, text, args->key ? *args->key : NULL, *args->uri, error);
    }
    if (args->type != METADATA_DESCRIPTION && args->type != METADATA_TITLE) {
        libvirt_error(error, ERR_INVALID_ARG, "unknown metadata type %d", args->type);
        return false;
    }
    char **field = args->type == METADATA_TITLE ? &def->title : &def->description;
    g_free(*field);
    *field = g_strdup(text && *text ? text : NULL);
    return domain_def_check(def, error);
}

bool verb_domain_set_metadata(struct call *call, const rpc_set_metadata_args *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (flags & AFFECT_LIVE) {
        if (!set_metadata(d->machine->def, args, error)) {
            return false;
        }
        machine_save(d->machine);
    }
    if (flags & AFFECT_CONFIG) {
        g_autoptr(DomainDef) def = domain_config(d, error);
        if (!def || !set_metadata(def, args, error) || !domain_save_config(d, def, error)) {
            return false;
        }
    }
    rpc_event_metadata message = {.dom = domain_rpc(d), .type = args->type, .uri = args->uri};
    event_domain_metadata_change(&message);
    g_free(message.dom.name);
    return true;
}

bool verb_domain_get_metadata(struct call *call, const rpc_get_metadata_args *args, rpc_text *ret,
                              GError **error)
{
    (void)call;
    unsigned flags = args->flags;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = domain_def_of(d, flags & AFFECT_LIVE, error);
    if (!def) {
        return false;
    }
    if (args->type == METADATA_ELEMENT) {
        g_autoptr(xmlDoc) doc = args->uri ? metadata_doc(def, error) : NULL;
        xmlNode *node = doc ? find_element(doc, *args->uri) : NULL;
        if (node) {
            ret->text = dump_bare(doc, node);
        }
    } else {
        ret->text = g_strdup(args->type == METADATA_TITLE ? def->title : def->description);
    }
    if (!ret->text) {
        libvirt_error(error, ERR_NO_DOMAIN_METADATA,
                      args->type == METADATA_ELEMENT ? "Requested metadata element is not present"
                                                     : "Requested metadata is not present");
        return false;
    }
    return true;
}

/* --- what follows an end --- */

bool verb_domain_set_lifecycle_action(struct call *call, const rpc_domain_uint2_flags *args,
                                      rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (args->first > 2 || args->second > 5) {
        libvirt_error(error, ERR_INVALID_ARG, "unknown lifecycle action");
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        bool live = i == 0; /* first: the machine may end while the disk writes */
        if (!(flags & (live ? AFFECT_LIVE : AFFECT_CONFIG))) {
            continue;
        }
        g_autoptr(DomainDef) own = live ? NULL : domain_config(d, error);
        DomainDef *def = live ? d->machine->def : own;
        if (!def) {
            return false;
        }
        int *fields[] = {&def->on_poweroff, &def->on_reboot, &def->on_crash};
        *fields[args->first] = (int)args->second + 1;
        if (live) {
            machine_save(d->machine);
        } else if (!domain_save_config(d, def, error)) {
            return false;
        }
    }
    return true;
}

/* --- the monitor and the agent --- */

enum { MONITOR_HMP = 1 };

bool verb_domain_monitor_command(struct call *call, const rpc_domain_text_flags *args,
                                 rpc_text *ret, GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    machine_taint(m, TAINT_MONITOR);
    if (args->flags & MONITOR_HMP) {
        g_autoptr(json_t) got =
            qmp_run(m->qmp, "human-monitor-command", json_pack("{s:s}", "command-line", args->text),
                    QMP_TIMEOUT_MS, error);
        ret->text = got ? g_strdup(json_string_value(got)) : NULL;
        return got != NULL;
    }
    g_autoptr(json_t) command = json_parse(args->text, strlen(args->text), NULL);
    const char *name = json_string_value(json_object_get(command, "execute"));
    if (!name) {
        libvirt_error(error, ERR_INVALID_ARG, "the command is no JSON object with \"execute\"");
        return false;
    }
    json_t *arguments = json_incref(json_object_get(command, "arguments"));
    g_autoptr(json_t) answer = qmp_ask(m->qmp, name, arguments, QMP_TIMEOUT_MS, error);
    if (!answer) {
        return false;
    }
    json_t *id = json_object_get(command, "id"); /* of the client's, not ours */
    if (id) {
        json_object_set(answer, "id", id);
    } else {
        json_object_del(answer, "id");
    }
    g_autofree char *text = json_dumps(answer, JSON_COMPACT);
    ret->text = g_strdup(text);
    return true;
}

/* What the agent has not done is an error of the call; else its answer is the caller's. */
static bool agent_did(const char *command, const char *answer, GError **error)
{
    g_autoptr(json_t) asked = json_parse(command, strlen(command), NULL);
    g_autoptr(json_t) got = json_parse(answer, strlen(answer), NULL);
    const json_t *failure = json_object_get(got, "error");
    const char *name = json_string_value(json_object_get(asked, "execute"));
    const char *why = json_string_value(json_object_get(failure, "desc"));
    if (failure) {
        libvirt_error(error, ERR_INTERNAL, "unable to execute QEMU agent command '%s': %s",
                      name ? name : "", why ? why : "");
    }
    return !failure;
}

bool verb_domain_agent_command(struct call *call, const rpc_agent_command_args *args,
                               rpc_maybe_text *ret, GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (m) {
        machine_taint(m, TAINT_AGENT);
    }
    char *answer =
        m ? agent_command(m, args->command,
                          args->timeout > 0 ? MIN(args->timeout, 600) : AGENT_SECONDS, error)
          : NULL;
    if (!answer || !agent_did(args->command, answer, error)) {
        g_free(answer);
        return false;
    }
    ret->text = g_new(char *, 1);
    *ret->text = answer;
    return true;
}

bool verb_domain_get_time(struct call *call, const rpc_domain_flags *args, rpc_time *ret,
                          GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) got = m ? agent_run(m, "guest-get-time", NULL, error) : NULL;
    ret->seconds = json_integer_value(got) / 1000000000;
    ret->nseconds = (unsigned)(json_integer_value(got) % 1000000000);
    return got != NULL;
}

bool verb_domain_set_time(struct call *call, const rpc_set_time_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    json_t *time =
        args->flags & 1
            ? NULL
            : json_pack("{s:I}", "time", (json_int_t)(args->seconds * 1000000000 + args->nseconds));
    if (!m) {
        json_decref(time);
        return false;
    }
    g_autoptr(json_t) got = agent_run(m, "guest-set-time", time, error);
    return got != NULL;
}

/* @args is given away. */
static bool freeze(const rpc_domain *named, const char *command, json_t *args, rpc_int *ret,
                   GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) given = args;
    g_autoptr(json_t) got = m ? agent_run(m, command, json_incref(given), error) : NULL;
    ret->value = (int)json_integer_value(got);
    return got != NULL;
}

bool verb_domain_fsfreeze(struct call *call, const rpc_fsfreeze_args *args, rpc_int *ret,
                          GError **error)
{
    (void)call;
    json_t *list = json_array();
    for (unsigned i = 0; i < args->mountpoints.mountpoints_len; i++) {
        json_array_append_new(list, json_string(args->mountpoints.mountpoints_val[i]));
    }
    if (json_array_size(list)) {
        return freeze(&args->dom, "guest-fsfreeze-freeze-list",
                      json_pack("{s:o}", "mountpoints", list), ret, error);
    }
    json_decref(list);
    return freeze(&args->dom, "guest-fsfreeze-freeze", NULL, ret, error);
}

bool verb_domain_fsthaw(struct call *call, const rpc_fsfreeze_args *args, rpc_int *ret,
                        GError **error)
{
    (void)call;
    if (args->mountpoints.mountpoints_len) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "specifying mountpoints is not supported");
        return false;
    }
    return freeze(&args->dom, "guest-fsfreeze-thaw", NULL, ret, error);
}

bool verb_domain_fstrim(struct call *call, const rpc_fstrim_args *args, rpc_none *ret,
                        GError **error)
{
    (void)call, (void)ret;
    if (args->mountpoint) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "Specifying mount point is not supported for now");
        return false;
    }
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) got =
        m ? agent_run(m, "guest-fstrim", json_pack("{s:I}", "minimum", (json_int_t)args->minimum),
                      error)
          : NULL;
    return got != NULL;
}
