/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include "base/json.h"

#include <string.h>

/*
 * What is said about a domain, and the XML in its saved states.
 */
enum { DESCRIPTION, TITLE, ELEMENT }; /* kinds of metadata */
enum { SAVED_RUNNING = 2, SAVED_PAUSED = 4 };

static bool set_metadata(Rpc *rpc, const rpc_domain *dom, int type, char *text, char *key,
                         char *uri, unsigned flags, GError **error)
{
    rpc_none none;
    rpc_set_metadata_args args = {
        *dom, type, text ? &text : NULL, key ? &key : NULL, uri ? &uri : NULL, flags};
    return ask_domain_set_metadata(rpc, &args, &none, error);
}

/* "" where there is none. */
static bool get_words(Rpc *rpc, const rpc_domain *dom, int type, unsigned flags, rpc_text *got,
                      GError **error)
{
    rpc_get_metadata_args args = {*dom, type, NULL, flags};
    g_autoptr(GError) why = NULL;
    if (ask_domain_get_metadata(rpc, &args, got, &why)) {
        return true;
    }
    if (why->domain == LIBVIRT_ERROR && why->code == ERR_NO_DOMAIN_METADATA) {
        got->text = g_strdup("");
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool run_desc(struct shell *sh, const struct args *a, GError **error)
{
    int type = args_flag(a, "title") ? TITLE : DESCRIPTION;
    const char *noun = type == TITLE ? "title" : "description";
    char **given = args_many(a, "new-desc");
    unsigned flags = affect_of(a);
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_text) now = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!given && !args_flag(a, "edit")) {
        if (!get_words(rpc, &dom, type, flags, &now, error)) {
            return false;
        }
        if (*now.text) {
            out_text(sh, noun, "%s", now.text);
        } else {
            out_note_open(sh, "No %s for domain: %s", noun, dom.name);
        }
        return true;
    }
    g_autofree char *text = given ? g_strjoinv(" ", given) : NULL;
    if (args_flag(a, "edit")) {
        g_autoptr(GError) why = NULL;
        if (!text && !get_words(rpc, &dom, type, flags, &now, error)) {
            return false;
        }
        char *edited = shell_edit(sh, text ? text : now.text, &why);
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        if (!edited && !text) {
            out_note(sh, "Domain %s not changed", noun);
            return true;
        }
        g_free(text);
        text = g_strchomp(edited ? edited : g_strdup(now.text));
    }
    if (!set_metadata(rpc, &dom, type, text, NULL, NULL, flags, error)) {
        shell_failing(sh, "Failed to set new domain %s", noun);
        return false;
    }
    out_note_open(sh, "Domain %s updated successfully", noun);
    return true;
}

/* An application's element of a domain. */
struct element {
    const rpc_domain *dom;
    char *uri, *key;
    unsigned flags;
};

/* One that is not there yet is begun with an empty one. */
static char *get_element(struct shell *sh, const void *data, GError **error)
{
    const struct element *e = data;
    char *uri = e->uri;
    rpc_get_metadata_args args = {*e->dom, ELEMENT, &uri, e->flags};
    g_auto(rpc_text) now = {0};
    g_autoptr(GError) why = NULL;
    if (ask_domain_get_metadata(shell_rpc(sh, NULL), &args, &now, &why)) {
        return g_strdup(now.text);
    }
    if (why->domain == LIBVIRT_ERROR && why->code == ERR_NO_DOMAIN_METADATA) {
        return g_strdup("\n");
    }
    g_propagate_error(error, g_steal_pointer(&why));
    return NULL;
}

static bool put_element(struct shell *sh, const char *xml, bool validate, const void *data,
                        GError **error)
{
    const struct element *e = data;
    (void)validate;
    return set_metadata(shell_rpc(sh, NULL), e->dom, ELEMENT, (char *)xml, e->key, e->uri, e->flags,
                        error);
}

static bool edit_element(struct shell *sh, const struct element *e, GError **error)
{
    const struct edit edit = {get_element, put_element, e};
    bool changed;
    if (!edit_run(sh, &edit, &changed, error)) {
        return false;
    }
    out_note(sh, changed ? "Metadata modified" : "Metadata not changed");
    return true;
}

static bool run_metadata(struct shell *sh, const struct args *a, GError **error)
{
    char *uri = (char *)args_text(a, "uri"), *set = (char *)args_text(a, "set");
    bool gone = args_flag(a, "remove"), edit = args_flag(a, "edit");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_text) now = {0};
    struct element e = {&dom, uri, (char *)args_text(a, "key"), affect_of(a)};
    if (!exclusive(a, "edit", "set", error) || !exclusive(a, "remove", "set", error) ||
        !exclusive(a, "remove", "edit", error)) {
        return false;
    }
    if ((set || edit) && !e.key) {
        return shell_fail(error, "namespace key is required when modifying metadata");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if (edit) {
        return edit_element(sh, &e, error);
    }
    if (set || gone) {
        if (!set_metadata(rpc, &dom, ELEMENT, set, e.key, uri, e.flags, error)) {
            return false;
        }
        out_note(sh, "Metadata %s", set ? "modified" : "removed");
        return true;
    }
    rpc_get_metadata_args args = {dom, ELEMENT, &uri, e.flags};
    if (!ask_domain_get_metadata(rpc, &args, &now, error)) {
        return false;
    }
    out_text(sh, "xml", "%s\n", now.text);
    return true;
}

/* ---- Saved states: of a domain, which lodged keeps, or a file ---- */

enum { SECURE = 1 };

static unsigned state_of(const struct args *a)
{
    return (args_flag(a, "running") ? SAVED_RUNNING : 0u) |
           (args_flag(a, "paused") ? SAVED_PAUSED : 0u);
}

/* @dom: the domain whose state it is; NULL: @file. */
enum saved_verb { SAVED_DUMP, SAVED_DEFINE, SAVED_EDIT };
/* A domain's own saved state, or a file. */
struct saved {
    const rpc_domain *dom;
    const char *file;
    unsigned flags; /* of put_saved() */
};

static char *saved_xml(struct shell *sh, const struct saved *s, unsigned flags, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    g_auto(rpc_text) xml = {0};
    if (!rpc) {
        return NULL;
    }
    rpc_text_flags by_file = {(char *)s->file, flags};
    rpc_domain_flags by_dom = {.flags = flags};
    if (s->dom) {
        by_dom.dom = *s->dom;
    }
    return (s->dom ? ask_domain_managed_save_get_xml_desc(rpc, &by_dom, &xml, error)
                   : ask_domain_save_image_get_xml_desc(rpc, &by_file, &xml, error))
               ? g_strdup(xml.text)
               : NULL;
}

static char *get_saved(struct shell *sh, const void *data, GError **error)
{
    return saved_xml(sh, data, SECURE, error);
}

static bool put_saved(struct shell *sh, const char *xml, bool validate, const void *data,
                      GError **error)
{
    const struct saved *s = data;
    char *text = (char *)xml;
    rpc_none none;
    Rpc *rpc = shell_rpc(sh, error);
    (void)validate;
    if (s->dom) {
        rpc_domain_maybe_flags args = {*s->dom, &text, s->flags};
        return ask_domain_managed_save_define_xml(rpc, &args, &none, error);
    }
    rpc_save_image_define_args args = {(char *)s->file, text, s->flags};
    return rpc && ask_domain_save_image_define_xml(rpc, &args, &none, error);
}

static bool define_saved(struct shell *sh, const struct args *a, const struct saved *s,
                         GError **error)
{
    g_autofree char *xml = shell_read_file(args_text(a, "xml"), error);
    if (!xml || !put_saved(sh, xml, false, s, error)) {
        if (xml && s->dom) {
            shell_failing(sh, "Failed to update %s XML configuration", s->dom->name);
        } else if (xml) {
            shell_failing(sh, "Failed to update %s", s->file);
        }
        return false;
    }
    if (s->dom) {
        out_note(sh, "Managed save state file of domain '%s' updated.", s->dom->name);
    } else {
        out_note(sh, "State file %s updated.", s->file);
    }
    return true;
}

static bool edit_saved(struct shell *sh, const struct saved *s, GError **error)
{
    const struct edit e = {get_saved, put_saved, s};
    bool changed;
    if (!edit_run(sh, &e, &changed, error)) {
        return false;
    }
    if (s->dom) {
        out_note(sh,
                 changed ? "Managed save image of Domain '%s' XML configuration edited."
                         : "Managed save image of domain '%s' XML configuration not changed.",
                 s->dom->name);
    } else {
        out_note(
            sh, changed ? "State file %s edited." : "Saved image %s XML configuration not changed.",
            s->file);
    }
    return true;
}

static bool run_saved(struct shell *sh, const struct args *a, struct saved *s, GError **error)
{
    switch (*(const enum saved_verb *)shell_data(sh)) {
    case SAVED_DUMP: {
        g_autofree char *xml = saved_xml(sh, s, args_flag(a, "security-info") ? SECURE : 0, error);
        return xml && show_xml(sh, a, xml, error);
    }
    case SAVED_DEFINE:
        s->flags = state_of(a);
        return define_saved(sh, a, s, error);
    case SAVED_EDIT:
        s->flags = state_of(a);
        break;
    }
    return edit_saved(sh, s, error);
}

static bool run_managed(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    struct saved s = {&dom};
    return shell_domain(sh, args_text(a, "domain"), &dom, error) && run_saved(sh, a, &s, error);
}

static bool run_image(struct shell *sh, const struct args *a, GError **error)
{
    struct saved s = {.file = args_text(a, "file")};
    return run_saved(sh, a, &s, error);
}

/* ---- What it does when the guest is done ---- */

static bool word_of(const char *const *words, const char *text, unsigned *n)
{
    for (*n = 0; words[*n]; ++*n) {
        if (strcmp(words[*n], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool run_lifecycle(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const types[] = {"poweroff", "reboot", "crash", NULL};
    static const char *const actions[] = {"destroy",  "restart",          "rename-restart",
                                          "preserve", "coredump-destroy", "coredump-restart",
                                          NULL};
    g_auto(rpc_domain) dom = {0};
    rpc_domain_uint2_flags args = {.flags = affect_of(a)};
    rpc_none none;
    if (!word_of(types, args_text(a, "type"), &args.first)) {
        return shell_fail(error, "Invalid lifecycle type '%s'.", args_text(a, "type"));
    }
    if (!word_of(actions, args_text(a, "action"), &args.second)) {
        return shell_fail(error, "Invalid lifecycle action '%s'.", args_text(a, "action"));
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom;
    if (!ask_domain_set_lifecycle_action(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Unable to change lifecycle action.");
        return false;
    }
    return true;
}

static bool run_pmsuspend(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const targets[] = {"mem", "disk", "hybrid", NULL};
    g_auto(rpc_domain) dom = {0};
    rpc_pm_suspend_args args = {0};
    rpc_none none;
    uint64_t duration = 0;
    if (!word_of(targets, args_text(a, "target"), &args.target)) {
        return shell_fail(error, "Invalid target");
    }
    args_number(a, "duration", &duration);
    args.duration = duration;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom;
    if (!ask_domain_pm_suspend_for_duration(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Domain '%s' could not be suspended", dom.name);
        return false;
    }
    out_note(sh, "Domain '%s' successfully suspended", dom.name);
    return true;
}

/* ---- Network cards ---- */

/* The card that people call by its device on the host or by its address. */
static xmlNodePtr find_card(struct xpath *x, const char *name, xmlXPathObjectPtr *found)
{
    g_autofree char *path = strpbrk(name, "'\"") ? g_strdup("devices/none")
                            : strchr(name, ':')
                                ? g_strdup_printf("devices/interface[mac/@address='%s']", name)
                                : g_strdup_printf("devices/interface[target/@dev='%s']", name);
    *found = xpath_nodes(x, path);
    return *found && (*found)->nodesetval && (*found)->nodesetval->nodeNr == 1
               ? (*found)->nodesetval->nodeTab[0]
               : NULL;
}

static bool show_link(struct shell *sh, const char *name, xmlNodePtr card, GError **error)
{
    for (xmlNodePtr n = card ? card->children : NULL; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, "link") == 0) {
            xmlChar *state = xmlGetProp(n, BAD_CAST "state");
            out_text(sh, "state", "%s %s", name, state ? (const char *)state : "up");
            xmlFree(state);
            return true;
        }
    }
    if (card) {
        out_text(sh, "state", "%s up", name);
    }
    return card || shell_fail(error, "Interface (%s: %s) not found.",
                              strchr(name, ':') ? "mac" : "dev", name);
}

static bool run_getlink(struct shell *sh, const struct args *a, GError **error)
{
    enum { INACTIVE = 2 };
    const char *name = args_text(a, "interface");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    xmlXPathObjectPtr found = NULL;
    if (!xpath_domain(sh, args_text(a, "domain"), args_flag(a, "config") ? INACTIVE : 0, &dom, &x,
                      error)) {
        return false;
    }
    bool ok = show_link(sh, name, find_card(&x, name, &found), error);
    xmlXPathFreeObject(found);
    return ok;
}

static void set_link(xmlNodePtr card, const char *state)
{
    xmlNodePtr link = NULL;
    for (xmlNodePtr n = card->children; n; n = n->next) {
        if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, "link") == 0) {
            link = n;
        }
    }
    link = link ? link : xmlNewChild(card, NULL, BAD_CAST "link", NULL);
    xmlSetProp(link, BAD_CAST "state", BAD_CAST state);
}

static bool update_card(struct shell *sh, const rpc_domain *dom, struct xpath *x, xmlNodePtr card,
                        unsigned flags, bool print, GError **error)
{
    xmlBufferPtr text = xmlBufferCreate();
    rpc_none none;
    xmlNodeDump(text, x->doc, card, 0, 0);
    rpc_domain_text_flags args = {*dom, (char *)text->content, flags};
    bool ok = true;
    if (print) {
        out_text(sh, "xml", "%s\n", text->content);
    } else if ((ok = ask_domain_update_device_flags(shell_rpc(sh, NULL), &args, &none, error))) {
        out_note(sh, "Device updated successfully");
    } else {
        shell_failing(sh, "Failed to update interface link state");
    }
    xmlBufferFree(text);
    return ok;
}

static bool run_setlink(struct shell *sh, const struct args *a, GError **error)
{
    enum { INACTIVE = 2 };
    const char *name = args_text(a, "interface"), *state = args_text(a, "state");
    bool config = args_flag(a, "config");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    xmlXPathObjectPtr found = NULL;
    rpc_int active = {0};
    if (strcmp(state, "up") != 0 && strcmp(state, "down") != 0) {
        return shell_fail(error, "invalid link state '%s'", state);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_args by_dom = {dom};
    ask_domain_is_active(shell_rpc(sh, NULL), &by_dom, &active, NULL);
    config |= !active.value;
    g_auto(rpc_domain) again = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), config ? INACTIVE : 0, &again, &x, error)) {
        return false;
    }
    xmlNodePtr card = find_card(&x, name, &found);
    bool ok = card || shell_fail(error, "interface '%s' not found", name);
    if (ok) {
        set_link(card, state);
        ok = update_card(sh, &dom, &x, card, config ? AFFECT_CONFIG : AFFECT_LIVE,
                         args_flag(a, "print-xml"), error);
    }
    xmlXPathFreeObject(found);
    return ok;
}

/* ---- The machine's own monitor ---- */

static bool run_monitor(struct shell *sh, const struct args *a, GError **error)
{
    enum { HMP = 1 };
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_text) got = {0};
    g_autofree char *line = g_strjoinv(" ", args_many(a, "cmd"));
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {dom, line, args_flag(a, "hmp") ? HMP : 0};
    if (!ask_domain_monitor_command(shell_rpc(sh, NULL), &args, &got, error)) {
        return false;
    }
    g_autoptr(json_t) answer = args_flag(a, "pretty") || args_flag(a, "return-value")
                                   ? json_loads(got.text, 0, NULL)
                                   : NULL;
    json_t *shown = args_flag(a, "return-value") ? json_object_get(answer, "return") : answer;
    size_t form = JSON_ENCODE_ANY | (args_flag(a, "pretty") ? JSON_INDENT(2) : JSON_COMPACT);
    g_autofree char *text = shown ? json_dumps(shown, form) : NULL;
    out_text(sh, "answer", "%s%s", text ? text : got.text, text ? "" : "\n");
    return true;
}

#define NAMED  DOMAIN_OPTION(COMPLETE_DOMAIN)
#define ACTIVE DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)
#define STATES                                                                                     \
    {"running", OPT_BOOL, 0, "it is to run when it is back"},                                      \
    {                                                                                              \
        "paused", OPT_BOOL, 0, "it is to be paused then"                                           \
    }
#define STATE_FILE                                                                                 \
    {                                                                                              \
        "file", OPT_TEXT, OPT_NEEDED, "file with the state", COMPLETE_FILE                         \
    }
#define NEW_XML                                                                                    \
    {                                                                                              \
        "xml", OPT_TEXT, OPT_NEEDED, "file with the XML", COMPLETE_FILE                            \
    }
#define SHOWN                                                                                      \
    {"security-info", OPT_BOOL, 0, "with passwords"}, XPATH_OPTIONS,                               \
    {                                                                                              \
        NULL                                                                                       \
    }
#define VERB_IS(verb) (&(const enum saved_verb){verb})

const struct verb_group verb_group_words = {
    "Words and Saved States", "words",
    (const struct verb_row[]){
        {"desc",
         (const struct option_row[]){NAMED,
                                     AFFECT_OPTIONS,
                                     {"title", OPT_BOOL, 0, "the title, not the description"},
                                     {"edit", OPT_BOOL, 0, "in an editor"},
                                     {"new-desc", OPT_MANY, 0, "what it is to be"},
                                     {NULL}},
         "prints or changes a domain's description", run_desc},
        {"domif-getlink",
         (const struct option_row[]){
             NAMED,
             {"interface", OPT_TEXT, OPT_NEEDED, "device or address of the card"},
             {"config", OPT_BOOL, 0, "of the next start"},
             {NULL}},
         "tells whether a card's link is up", run_getlink},
        {"domif-setlink",
         (const struct option_row[]){
             NAMED,
             {"interface", OPT_TEXT, OPT_NEEDED, "device or address of the card"},
             {"state", OPT_TEXT, OPT_NEEDED, "up, down"},
             {"config", OPT_BOOL, 0, "of the next start"},
             {"print-xml", OPT_BOOL, 0, "do nothing but print the XML"},
             {NULL}},
         "brings a card's link up or down", run_setlink},
        {"dompmsuspend",
         (const struct option_row[]){
             ACTIVE,
             {"target", OPT_TEXT, OPT_NEEDED, "mem, disk, hybrid"},
             {"duration", OPT_NUMBER, OPT_NAMED, "seconds (the guest's to know)"},
             {NULL}},
         "puts a guest to sleep by its agent", run_pmsuspend},
        {"dompmwakeup", (const struct option_row[]){ACTIVE, {NULL}}, "wakes a guest that sleeps",
         run_simple,
         &(const struct simple){&kind_domain, PROC_domain_pm_wakeup, .with_flags = true,
                                .failing = "Domain '%s' could not be woken up",
                                .done = "Domain '%s' successfully woken up"}},
        {"managedsave-define", (const struct option_row[]){NAMED, NEW_XML, STATES, {NULL}},
         "changes the XML of a domain's saved state", run_managed, VERB_IS(SAVED_DEFINE)},
        {"managedsave-dumpxml", (const struct option_row[]){NAMED, SHOWN},
         "prints the XML of a domain's saved state", run_managed, VERB_IS(SAVED_DUMP)},
        {"managedsave-edit", (const struct option_row[]){NAMED, STATES, {NULL}},
         "changes that XML in an editor", run_managed, VERB_IS(SAVED_EDIT)},
        {"metadata",
         (const struct option_row[]){NAMED,
                                     {"uri", OPT_TEXT, OPT_NEEDED, "name space of the element"},
                                     AFFECT_OPTIONS,
                                     {"key", OPT_TEXT, OPT_NAMED, "its prefix"},
                                     {"edit", OPT_BOOL, 0, "in an editor"},
                                     {"set", OPT_TEXT, OPT_NAMED, "the element"},
                                     {"remove", OPT_BOOL, 0, "take it out"},
                                     {NULL}},
         "prints or changes an application's element of a domain", run_metadata},
        {"qemu-monitor-command",
         (const struct option_row[]){ACTIVE,
                                     {"hmp", OPT_BOOL, 0, "a line of the human monitor"},
                                     {"pretty", OPT_BOOL, 0, "the answer in several lines"},
                                     {"return-value", OPT_BOOL, 0, "what it returned alone"},
                                     {"cmd", OPT_MANY, OPT_NEEDED, "the command"},
                                     {NULL}},
         "says something to a machine's monitor", run_monitor},
        {"save-image-define", (const struct option_row[]){STATE_FILE, NEW_XML, STATES, {NULL}},
         "changes the XML of a saved state", run_image, VERB_IS(SAVED_DEFINE)},
        {"save-image-dumpxml", (const struct option_row[]){STATE_FILE, SHOWN},
         "prints the XML of a saved state", run_image, VERB_IS(SAVED_DUMP)},
        {"save-image-edit", (const struct option_row[]){STATE_FILE, STATES, {NULL}},
         "changes that XML in an editor", run_image, VERB_IS(SAVED_EDIT)},
        {"set-lifecycle-action",
         (const struct option_row[]){NAMED,
                                     {"type", OPT_TEXT, OPT_NEEDED, "poweroff, reboot, crash"},
                                     {"action", OPT_TEXT, OPT_NEEDED, "destroy, restart, preserve"},
                                     AFFECT_OPTIONS,
                                     {NULL}},
         "says what is to happen when a guest is done", run_lifecycle},
        {NULL},
    }};
