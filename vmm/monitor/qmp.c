/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "base/json.h"
#include "host/chardev/chardev.h"
#include "vmm/vm.h"

#include <string.h>

/*
 * qmp - JSON in, JSON out
 *
 * Spec: QEMU, "QEMU Machine Protocol Specification" (docs/interop/qmp-spec.txt).
 *
 * Each client is a session: greeting, qmp_capabilities, then commands answered in order and
 * events between them.  Out-of-band execution is not offered.
 */
struct qmp {
    struct outbox out;
    struct json_framer in;
    bool pretty, negotiated;
    struct qmp *next;
};

static struct qmp *all;

/* ---- sending ---- */

static void send_json(struct qmp *q, json_t *message)
{
    char *text = json_dumps(message, q->pretty ? JSON_INDENT(4) : JSON_COMPACT);
    if (text) {
        g_autofree char *line = g_strconcat(text, "\r\n", NULL);
        outbox_put(&q->out, line, strlen(line));
        free(text);
    }
    json_decref(message);
}


static void greet(struct qmp *q)
{
    json_framer_clear(&q->in);
    json_framer_init(&q->in);
    q->negotiated = false;
    send_json(q, json_pack("{s:{s:o, s:[]}}", "QMP", "version", qmp_query_version(NULL, NULL),
                           "capabilities"));
}

static void send_event(const char *name, json_t *data)
{
    int64_t now = g_get_real_time();
    json_t *event = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds",
                              (json_int_t)(now / G_USEC_PER_SEC), "microseconds",
                              (json_int_t)(now % G_USEC_PER_SEC), "event", name);
    if (data) {
        json_object_set_new(event, "data", data);
    }
    for (struct qmp *q = all; q; q = q->next) {
        if (q->negotiated && q->out.chr->open) {
            send_json(q, json_incref(event));
        }
    }
    json_decref(event);
}

/* ---- arguments ---- */

bool qmp_next_arg(const char **at, struct qmp_arg *out)
{
    const char *s = *at + strspn(*at, ", ");
    size_t name = strcspn(s, "?:, "), type;
    if (!*s) {
        return false;
    }
    *out = (struct qmp_arg){.optional = s[name] == '?'};
    g_strlcpy(out->name, s, MIN(name + 1, sizeof(out->name)));
    s += name + out->optional;
    if (*s == ':') {
        type = strcspn(++s, ", ");
        g_strlcpy(out->type, s, MIN(type + 1, sizeof(out->type)));
        s += type;
    }
    *at = s;
    return true;
}

static bool has_type(const json_t *value, const char *type)
{
    static const struct {
        const char *name;
        json_type type;
    } types[] = {{"str", JSON_STRING}, {"int", JSON_INTEGER}, {"object", JSON_OBJECT}};
    if (*type == '[') {
        return json_is_array(value);
    }
    if (g_str_equal(type, "bool")) {
        return json_is_boolean(value);
    }
    if (g_str_equal(type, "number")) {
        return json_is_number(value);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (g_str_equal(types[i].name, type)) {
            return json_typeof(value) == types[i].type;
        }
    }
    return true; /* any */
}

static bool check_arguments(const struct qmp_command *c, json_t *args, GError **error)
{
    struct qmp_arg arg;
    const char *at = c->args, *key;
    json_t *value;
    bool open_ended = false;
    size_t known = 0;
    while (qmp_next_arg(&at, &arg)) {
        value = json_object_get(args, arg.name);
        open_ended |= g_str_equal(arg.name, "...");
        known += value != NULL;
        if (!value && !arg.optional && *arg.type) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' is missing", arg.name);
            return false;
        }
        if (value && !has_type(value, arg.type)) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "Invalid parameter type for '%s', expected: %s", arg.name,
                        g_str_equal(arg.type, "str")    ? "string"
                        : g_str_equal(arg.type, "int")  ? "integer"
                        : g_str_equal(arg.type, "bool") ? "boolean"
                        : *arg.type == '['              ? "array"
                                                        : arg.type);
            return false;
        }
    }
    if (open_ended || known == json_object_size(args)) {
        return true;
    }
    json_object_foreach(args, key, value)
    {
        bool found = false;
        for (at = c->args; qmp_next_arg(&at, &arg);) {
            found |= g_str_equal(arg.name, key);
        }
        if (!found) {
            g_autofree char *shown = g_strescape(key, NULL);
            g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' is unexpected", shown);
            return false;
        }
    }
    return true;
}

/* ---- commands ---- */

static const struct qmp_command *command_find(const char *name)
{
    for (unsigned i = 0; i < n_qmp_commands; i++) {
        if (g_str_equal(qmp_commands[i].name, name)) {
            return &qmp_commands[i];
        }
    }
    return NULL;
}

static const char *class_of(const GError *error)
{
    int code = error_errno(error);
    return code == ENODEV   ? "DeviceNotFound"
           : code == ENXIO  ? "DeviceNotActive"
           : code == ENOSYS ? "CommandNotFound"
                            : "GenericError";
}

json_t *qmp_run(const char *name, json_t *arguments, const char **class, GError **error)
{
    g_autoptr(GError) why = NULL;
    const struct qmp_command *c = command_find(name);
    json_t *result = NULL;
    *class = "GenericError";
    if (!c) {
        g_autofree char *shown = g_strescape(name, NULL);
        *class = "CommandNotFound";
        g_set_error(error, LODGE_ERROR, ENOSYS, "The command %s has not been found", shown);
        return NULL;
    }
    g_autoptr(json_t) none = json_object();
    json_t *args = arguments ? arguments : none;
    if (check_arguments(c, args, &why)) {
        result = c->run(args, &why);
    }
    if (why) {
        *class = class_of(why);
        g_propagate_error(error, g_steal_pointer(&why));
        return NULL;
    }
    return result ? result : json_object();
}

static void reply(struct qmp *q, json_t *message, json_t *id)
{
    if (id) {
        json_object_set(message, "id", id);
    }
    send_json(q, message);
}

static void reply_error(struct qmp *q, const char *class, const char *text, json_t *id)
{
    json_t *desc = json_string(text);
    desc = desc ? desc : json_string("(the message is not UTF-8)");
    reply(q, json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc", desc), id);
}

/* The frame around a command: members, and their types.  NULL: answered. */
static const char *check_frame(struct qmp *q, json_t *message, json_t *id)
{
    const char *key;
    json_t *value;
    g_autofree char *text = NULL;
    if (!json_is_object(message)) {
        reply_error(q, "GenericError", "QMP input must be a JSON object", id);
        return NULL;
    }
    json_object_foreach(message, key, value)
    {
        bool known = g_str_equal(key, "execute") || g_str_equal(key, "id") ||
                     (g_str_equal(key, "arguments") && json_is_object(value)) ||
                     g_str_equal(key, "control");
        if (!known && !text) {
            g_autofree char *shown = g_strescape(key, NULL);
            text = g_str_equal(key, "arguments")
                       ? g_strdup("QMP input member 'arguments' must be an object")
                       : g_strdup_printf("QMP input member '%s' is unexpected", shown);
        }
    }
    const char *name = json_string_value(json_object_get(message, "execute"));
    if (text || !name) {
        reply_error(q, "GenericError", text ? text : "QMP input lacks member 'execute'", id);
        return NULL;
    }
    return name;
}

static void dispatch(struct qmp *q, json_t *message)
{
    json_t *id = json_is_object(message) ? json_object_get(message, "id") : NULL;
    const char *name = check_frame(q, message, id), *class;
    g_autoptr(GError) error = NULL;
    if (!name) {
        return;
    }
    bool is_first = g_str_equal(name, "qmp_capabilities");
    if (is_first == q->negotiated) {
        reply_error(q, "CommandNotFound",
                    is_first ? "Capabilities negotiation is already complete, command ignored"
                             : "Expecting capabilities negotiation with 'qmp_capabilities'",
                    id);
        return;
    }
    json_t *result = qmp_run(name, json_object_get(message, "arguments"), &class, &error);
    if (!result) {
        reply_error(q, class, error->message, id);
        return;
    }
    q->negotiated |= is_first;
    reply(q, json_pack("{s:o}", "return", result), id);
}

/* ---- the stream ---- */

static void take_text(struct qmp *q)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) message = json_parse(q->in.text->str, q->in.text->len, &error);
    g_string_truncate(q->in.text, 0);
    if (!message) {
        reply_error(q, "GenericError", error->message, NULL);
    } else {
        dispatch(q, message);
    }
}

static void receive(void *peer, const uint8_t *data, size_t n)
{
    struct qmp *q = peer;
    for (size_t i = 0; i < n; i++) {
        if (json_framer_byte(&q->in, (char)data[i])) {
            take_text(q);
        } else if (q->in.too_long) {
            reply_error(q, "GenericError", "JSON text is too long", NULL);
            json_framer_clear(&q->in);
            json_framer_init(&q->in);
            if (q->out.chr->hang_up) {
                q->out.chr->hang_up(q->out.chr);
            }
            return;
        }
    }
}

static void event(void *peer, enum chardev_event what)
{
    struct qmp *q = peer;
    if (what == CHARDEV_OPENED) {
        greet(q);
    } else if (what == CHARDEV_CLOSED) {
        g_string_truncate(q->out.text, 0);
        q->negotiated = false;
    }
}

static void writable(void *peer)
{
    outbox_flush(&((struct qmp *)peer)->out);
}

bool qmp_new(struct chardev *chr, bool pretty, GError **error)
{
    (void)error;
    struct qmp *q = g_new0(struct qmp, 1);
    outbox_init(&q->out, chr);
    json_framer_init(&q->in);
    q->pretty = pretty;
    q->next = all;
    all = q;
    chr->peer = q;
    chr->receive = receive;
    chr->receive_fd = monitor_fd_came;
    chr->event = event;
    chr->writable = writable;
    vm_event_sink = send_event;
    if (chr->open) {
        greet(q);
    }
    return true;
}

void qmp_close(void)
{
    vm_event_sink = NULL;
    for (struct qmp *q = all, *next; q; q = next) {
        next = q->next;
        q->out.chr->receive = NULL;
        q->out.chr->receive_fd = NULL;
        q->out.chr->event = NULL;
        q->out.chr->writable = NULL;
        outbox_clear(&q->out);
        json_framer_clear(&q->in);
        g_free(q);
    }
    all = NULL;
}

/* ---- what the table says of itself ---- */

json_t *qmp_query_commands(json_t *args, GError **error)
{
    json_t *list = json_array();
    (void)args, (void)error;
    for (unsigned i = 0; i < n_qmp_commands; i++) {
        json_array_append_new(list, json_pack("{s:s}", "name", qmp_commands[i].name));
    }
    return list;
}

static const char *const events[] = {
#define EVENT(name) name,
#include "schema/events.def"
#undef EVENT
};

json_t *qmp_query_events(json_t *args, GError **error)
{
    json_t *list = json_array();
    (void)args, (void)error;
    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        json_array_append_new(list, json_pack("{s:s}", "name", events[i]));
    }
    return list;
}

static void add_builtin(json_t *list, const char *name, const char *json_type)
{
    json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", name, "meta-type", "builtin",
                                          "json-type", json_type));
}

static void add_object(json_t *list, const char *name, json_t *members)
{
    json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object",
                                          "members", members));
}

/* "", "object" and "any" have no members of their own here. */
static const char *schema_type(const char *type)
{
    return !*type || g_str_equal(type, "object") ? "0" : type;
}

static json_t *members_of(const char *args)
{
    struct qmp_arg arg;
    json_t *members = json_array();
    while (qmp_next_arg(&args, &arg)) {
        if (*arg.type) {
            json_t *m = json_pack("{s:s, s:s}", "name", arg.name, "type", schema_type(arg.type));
            if (arg.optional) {
                json_object_set_new(m, "default", json_null());
            }
            json_array_append_new(members, m);
        }
    }
    return members;
}

json_t *qmp_query_qmp_schema(json_t *args, GError **error)
{
    static const char *const builtins[][2] = {{"str", "string"},   {"int", "int"},
                                              {"bool", "boolean"}, {"number", "number"},
                                              {"any", "value"}};
    static const char *const lists[] = {"str", "int", "bool", "number", "any", "object"};
    json_t *list = json_array();
    (void)args, (void)error;
    for (unsigned i = 0; i < G_N_ELEMENTS(builtins); i++) {
        add_builtin(list, builtins[i][0], builtins[i][1]);
    }
    add_object(list, "0", json_array());
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++) {
        g_autofree char *name = g_strdup_printf("[%s]", lists[i]);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", name, "meta-type", "array",
                                              "element-type", schema_type(lists[i])));
    }
    for (unsigned i = 0; i < n_qmp_commands; i++) {
        const struct qmp_command *c = &qmp_commands[i];
        g_autofree char *type = *c->args ? g_strdup_printf("%s-arg", c->name) : g_strdup("0");
        if (*c->args) {
            add_object(list, type, members_of(c->args));
        }
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", c->name, "meta-type",
                                              "command", "arg-type", type, "ret-type",
                                              schema_type(c->result)));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", events[i], "meta-type",
                                              "event", "arg-type", "0"));
    }
    return list;
}
