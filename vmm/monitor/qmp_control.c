/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "base/json.h"
#include "base/util.h"
#include "guest/cpu/paging.h"
#include "guest/device/pci.h"
#include "guest/device/virtio_balloon.h"
#include "guest/machine/machine.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "vmm/handover.h"
#include "vmm/migrate.h"
#include "vmm/monitor/monitor.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The commands that do something. */

#define UNUSED (void)args, (void)error
#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)

/* A handler that answers {} or fails: the error says which. */
static json_t *done(bool ok)
{
    (void)ok;
    return NULL;
}

HANDLER(capabilities)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(args, "enable"), i, one)
    {
        g_set_error(error, LODGE_ERROR, EINVAL, "capability %s not available",
                    json_is_string(one) ? json_string_value(one) : "(no string)");
        return NULL;
    }
    return NULL;
}

/* ---- life ---- */

HANDLER(stop)
{
    UNUSED;
    if (vm_running()) {
        vm_stop(VM_PAUSED);
    }
    return NULL;
}

HANDLER(cont)
{
    (void)args;
    return done(vm_cont(error));
}

HANDLER(quit)
{
    UNUSED;
    vm_request_shutdown(CAUSE_HOST);
    return NULL;
}

HANDLER(system_reset)
{
    UNUSED;
    vm_request_reset(CAUSE_HOST_RESET);
    return NULL;
}

HANDLER(system_powerdown)
{
    UNUSED;
    vm_power_button();
    return NULL;
}

HANDLER(system_wakeup)
{
    (void)args;
    return done(vm_wakeup(error));
}

HANDLER(inject_nmi)
{
    UNUSED;
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_request(vcpu_at(i), REQ_NMI);
    }
    return NULL;
}

HANDLER(set_action)
{
    const char *key;
    json_t *value;
    json_object_foreach(args, key, value)
    {
        if (!vm_set_action(key, json_string_value(value), error)) {
            return NULL;
        }
    }
    return NULL;
}

/* ---- memory ---- */

typedef bool peek_fn(uint64_t at, void *to, uint64_t n, void *owner);

static bool peek_physical(uint64_t at, void *to, uint64_t n, void *owner)
{
    (void)owner;
    space_read(vm_board()->memory, at, to, n); /* holes read as ones */
    return true;
}

static bool peek_linear(uint64_t at, void *to, uint64_t n, void *owner)
{
    return paging_peek(owner, at, to, n);
}

/* Bytes of RAM, and of addresses below 4 GiB that may be something else. */
static uint64_t most_memory(void)
{
    uint64_t most = UINT64_C(1) << 32;
    for (unsigned i = 0; ram_at(i); i++) {
        most += ram_at(i)->size;
    }
    return most;
}

static bool copy_memory(int fd, const char *path, uint64_t at, uint64_t left, peek_fn *peek,
                        void *owner, GError **error)
{
    uint8_t buf[PAGE_SIZE];
    for (uint64_t n; left; left -= n, at += n) {
        n = MIN(left, PAGE_SIZE - (at & (PAGE_SIZE - 1)));
        if (!peek(at, buf, n, owner)) {
            g_set_error(error, LODGE_ERROR, EFAULT,
                        "Invalid addr 0x%016" G_GINT64_MODIFIER "x specified", at);
            return false;
        }
        if (write(fd, buf, n) != (ssize_t)n) {
            error_set_errno(error, errno, "%s", path);
            return false;
        }
    }
    return true;
}

static bool save_memory(json_t *args, peek_fn *peek, void *owner, GError **error)
{
    const char *path = qmp_str(args, "filename");
    uint64_t at = (uint64_t)json_integer_value(json_object_get(args, "val"));
    uint64_t left = (uint64_t)json_integer_value(json_object_get(args, "size"));
    if (left > most_memory()) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'size' expects no more than there is");
        return false;
    }
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        error_set_errno(error, errno, "%s", path);
        return false;
    }
    bool ok = copy_memory(fd, path, at, left, peek, owner, error);
    struct stat st;
    if (!ok && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        unlink(path); /* half a file would pass for a whole one */
    }
    return ok;
}

HANDLER(pmemsave)
{
    return done(save_memory(args, peek_physical, NULL, error));
}

HANDLER(memsave)
{
    json_int_t index = json_integer_value(json_object_get(args, "cpu-index"));
    struct vcpu *cpu = index >= 0 && index <= UINT_MAX ? vcpu_find((unsigned)index) : NULL;
    if (!cpu) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'cpu-index' expects a CPU number");
        return NULL;
    }
    vm_hold();
    save_memory(args, peek_linear, cpu, error);
    vm_release();
    return NULL;
}

HANDLER(human_monitor_command)
{
    (void)error;
    g_autofree char *text = monitor_line(qmp_str(args, "command-line"));
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_auto(GStrv) lines = g_strsplit(valid, "\n", -1);
    g_autofree char *crlf = g_strjoinv("\r\n", lines);
    return json_string(crlf);
}

/* ---- screen and keys ---- */

HANDLER(screendump)
{
    const char *format = qmp_str(args, "format");
    struct display *d = vm_board()->display;
    if (!d) {
        g_set_error(error, LODGE_ERROR, ENODEV, "There is no console to take a screendump from");
        return NULL;
    }
    if (d->refresh) {
        d->refresh(d->adapter);
    }
    return done(display_dump(d, qmp_str(args, "filename"), format ? format : "ppm", error));
}

static bool scancode_of(json_t *key, unsigned *out, GError **error)
{
    const char *type = qmp_str(key, "type");
    json_t *data = json_object_get(key, "data");
    if (type && g_str_equal(type, "number") && json_is_integer(data)) {
        *out = (unsigned)json_integer_value(data) & 0xff;
        return true;
    }
    const char *name = json_string_value(data);
    *out = name ? display_scancode(name) : 0;
    if (!*out) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'data' does not accept value '%s'",
                    name ? name : "");
    }
    return *out != 0;
}

/* Keys held by send-key, released by a timer. */
static struct {
    unsigned code[16], n;
    guint timer;
} held;

static gboolean release_keys(gpointer unused)
{
    (void)unused;
    while (held.n) {
        display_key(vm_board()->display, held.code[--held.n], false);
    }
    held.timer = 0;
    return G_SOURCE_REMOVE;
}

bool vm_send_keys(const unsigned *codes, unsigned n, unsigned hold_ms)
{
    g_clear_handle_id(&held.timer, g_source_remove);
    release_keys(NULL);
    if (n > G_N_ELEMENTS(held.code)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        held.code[held.n++] = codes[i];
        display_key(vm_board()->display, codes[i], true);
    }
    held.timer = g_timeout_add(hold_ms, release_keys, NULL);
    return true;
}

HANDLER(send_key)
{
    json_t *keys = json_object_get(args, "keys"), *hold = json_object_get(args, "hold-time"), *key;
    unsigned codes[16];
    size_t i, n = json_array_size(keys);
    if (n == 0 || n > G_N_ELEMENTS(codes)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'keys' expects 1 to 16 keys");
        return NULL;
    }
    json_array_foreach(keys, i, key)
    {
        if (!scancode_of(key, &codes[i], error)) {
            return NULL;
        }
    }
    json_int_t ms = hold ? json_integer_value(hold) : 100;
    vm_send_keys(codes, (unsigned)n, (unsigned)CLAMP(ms, 1, 60000));
    return NULL;
}

/* What input-send-event's events add up to. */
struct pointer_move {
    int x, y, wheel;
    bool any, absolute;
};

static unsigned buttons;
static int last_x, last_y;

static bool take_button(json_t *data, struct pointer_move *move, GError **error)
{
    static const struct {
        const char *name;
        unsigned bit;
        int wheel;
    } names[] = {{"left", 1, 0}, {"right", 2, 0}, {"middle", 4, 0}, {"wheel-up", 0, 1}, {"wheel-down", 0, -1}};
    const char *name = qmp_str(data, "button");
    bool down = json_is_true(json_object_get(data, "down"));
    for (unsigned i = 0; name && i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i].name, name)) {
            buttons = down ? buttons | names[i].bit : buttons & ~names[i].bit;
            move->wheel += down ? names[i].wheel : 0;
            move->any = true;
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'button' does not accept value '%s'",
                name ? name : "");
    return false;
}

static bool take_axis(const char *type, json_t *data, struct pointer_move *move, GError **error)
{
    const char *axis = qmp_str(data, "axis");
    int value = (int)json_integer_value(json_object_get(data, "value"));
    bool absolute = g_str_equal(type, "abs");
    if (!axis || (!g_str_equal(axis, "x") && !g_str_equal(axis, "y"))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'axis' expects x or y");
        return false;
    }
    if (absolute != vm_board()->display->pointer_absolute) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the pointer is %s",
                    absolute ? "relative" : "absolute");
        return false;
    }
    if (absolute) {
        *(*axis == 'x' ? &last_x : &last_y) = value;
    } else {
        *(*axis == 'x' ? &move->x : &move->y) += value;
    }
    move->any = true;
    move->absolute = absolute;
    return true;
}

static bool take_event(json_t *event, struct pointer_move *move, GError **error)
{
    const char *type = qmp_str(event, "type");
    json_t *data = json_object_get(event, "data");
    unsigned code;
    if (g_strcmp0(type, "key") == 0) {
        if (!scancode_of(json_object_get(data, "key"), &code, error)) {
            return false;
        }
        display_key(vm_board()->display, code, json_is_true(json_object_get(data, "down")));
        return true;
    }
    if (g_strcmp0(type, "btn") == 0) {
        return take_button(data, move, error);
    }
    if (g_strcmp0(type, "rel") == 0 || g_strcmp0(type, "abs") == 0) {
        return take_axis(type, data, move, error);
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'type' does not accept value '%s'",
                type ? type : "");
    return false;
}

HANDLER(input_send_event)
{
    struct pointer_move move = {0};
    json_t *event;
    size_t i;
    json_array_foreach(json_object_get(args, "events"), i, event)
    {
        if (!take_event(event, &move, error)) {
            return NULL;
        }
    }
    if (move.any) {
        bool absolute = vm_board()->display->pointer_absolute;
        display_pointer(vm_board()->display, absolute ? last_x : move.x, absolute ? last_y : move.y,
                        move.wheel, buttons);
    }
    return NULL;
}

HANDLER(change_vnc_password)
{
    return done(vnc_set_password(qmp_str(args, "password"), error));
}

HANDLER(set_password)
{
    const char *protocol = qmp_str(args, "protocol");
    if (!g_str_equal(protocol, "vnc")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "protocol %s: only vnc has a password", protocol);
        return NULL;
    }
    return qmp_change_vnc_password(args, error);
}

/* "now", "never", "+SECONDS" from now, or SECONDS since 1970. */
static bool take_time(const char *text, int64_t *at, GError **error)
{
    bool later = *text == '+';
    guint64 seconds = 0, limit = G_MAXINT32 * UINT64_C(1000);
    if (g_str_equal(text, "never")) {
        *at = INT64_MAX;
        return true;
    }
    if (!g_str_equal(text, "now") &&
        !g_ascii_string_to_unsigned(text + later, 10, 0, limit, &seconds, NULL)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "time '%s': want now, never, +SECONDS or SECONDS",
                    text);
        return false;
    }
    *at = (int64_t)seconds + (later ? g_get_real_time() / G_USEC_PER_SEC : 0);
    return true;
}

HANDLER(expire_password)
{
    const char *protocol = qmp_str(args, "protocol");
    int64_t at;
    if (!g_str_equal(protocol, "vnc")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "protocol %s: only vnc has a password", protocol);
        return NULL;
    }
    return take_time(qmp_str(args, "time"), &at, error) ? done(vnc_expire_password(at, error))
                                                         : NULL;
}

/* ---- migration ---- */

HANDLER(migrate)
{
    return done(migrate_start(qmp_str(args, "uri"), error));
}

HANDLER(migrate_incoming)
{
    return done(migrate_deferred(qmp_str(args, "uri"), error));
}

HANDLER(migrate_cancel)
{
    UNUSED;
    migrate_stop();
    return NULL;
}

HANDLER(query_migrate)
{
    UNUSED;
    return migrate_status();
}

HANDLER(migrate_set_capabilities)
{
    json_t *one;
    size_t i;
    json_array_foreach(json_object_get(args, "capabilities"), i, one)
    {
        const char *name = qmp_str(one, "capability");
        bool on = json_is_true(json_object_get(one, "state"));
        if (g_strcmp0(name, "return-path") == 0) {
            migrate_parameters()->return_path = on;
        } else if (on) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "capability %s is not supported", name ? name : "");
            return NULL;
        }
    }
    return NULL;
}

HANDLER(query_migrate_capabilities)
{
    UNUSED;
    return json_pack("[{s:s, s:b}]", "capability", "return-path", "state",
                     (int)migrate_parameters()->return_path);
}

HANDLER(migrate_own)
{
    (void)args;
    return done(handover_own(error));
}

HANDLER(migrate_set_parameters)
{
    json_t *bandwidth = json_object_get(args, "max-bandwidth");
    json_t *downtime = json_object_get(args, "downtime-limit");
    struct migrate_parameters *p = migrate_parameters();
    (void)error;
    p->max_bandwidth = bandwidth ? (uint64_t)MAX(json_integer_value(bandwidth), 0) : p->max_bandwidth;
    p->downtime_ms = downtime ? (uint64_t)MAX(json_integer_value(downtime), 0) : p->downtime_ms;
    return NULL;
}

HANDLER(query_migrate_parameters)
{
    struct migrate_parameters *p = migrate_parameters();
    UNUSED;
    return json_pack("{s:I, s:I}", "max-bandwidth", (json_int_t)p->max_bandwidth, "downtime-limit",
                     (json_int_t)p->downtime_ms);
}

/* ---- media and devices ---- */

static json_t *with_keyval(json_t *args, bool (*add)(KeyVal *kv, GError **error), GError **error)
{
    g_autoptr(KeyVal) kv = json_to_keyval(args, error);
    return done(kv && add(kv, error));
}

HANDLER(device_add)
{
    return with_keyval(args, vm_device_hotplug, error);
}

HANDLER(device_del)
{
    return done(vm_device_remove(qmp_str(args, "id"), error));
}

HANDLER(object_add)
{
    return with_keyval(args, vm_object_add, error);
}

HANDLER(object_del)
{
    return done(vm_object_remove(qmp_str(args, "id"), error));
}

static bool add_netdev(KeyVal *kv, GError **error)
{
    const char *kind = keyval_get(kv, "type"), *id = keyval_get(kv, "id");
    const char *name = keyval_get(kv, "fd"), *names = keyval_get(kv, "fds");
    if (netdev_find(id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "Duplicate ID '%s' for netdev", id);
        return false;
    }
    g_auto(GStrv) each = g_strsplit(names ? names : name ? name : "", ":", -1);
    g_autoptr(GString) numbers = g_string_new(NULL);
    for (unsigned i = 0; each[i]; i++) {
        int fd = monitor_take_fd(each[i], error);
        if (fd < 0) {
            return false;
        }
        g_string_append_printf(numbers, "%s%d", i ? ":" : names ? ",fds=" : ",fd=", fd);
    }
    g_autofree char *rest = keyval_rest(kv);
    g_autofree char *text = g_strdup_printf("%s,id=%s%s%s%s", kind, id, numbers->str,
                                            rest ? "," : "", rest ? rest : "");
    return netdev_new(text, error) != NULL;
}

HANDLER(netdev_add)
{
    return with_keyval(args, add_netdev, error);
}

HANDLER(netdev_del)
{
    return done(netdev_remove(qmp_str(args, "id"), error));
}

HANDLER(set_link)
{
    const char *name = qmp_str(args, "name");
    struct netdev *net = netdev_find(name);
    struct device *dev = net ? NULL : board_find(vm_board(), name);
    for (unsigned i = 0; dev && i < dev->model->nprops && !net; i++) {
        const struct prop *p = &dev->model->props[i];
        net = p->kind == PROP_NETDEV ? *(struct netdev **)((char *)dev + p->slot) : NULL;
    }
    if (!net) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", name);
        return NULL;
    }
    net_set_link(net, json_is_true(json_object_get(args, "up")));
    return NULL;
}

/* {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": ...}}, ...}} */
static bool flatten_backend(json_t *backend, GString *out, GError **error)
{
    static const char *const names[][2] = {{"out", "path"}, {"device", "path"}, {"in", "input-path"}};
    const char *type = qmp_str(backend, "type");
    g_autoptr(KeyVal) kv = json_to_keyval(json_object_get(backend, "data"), error);
    if (!type || !kv) {
        g_clear_error(error);
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'backend' needs type and data");
        return false;
    }
    g_string_append(out, type);
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        const char *key = keyval_key(kv, i);
        if (g_str_has_suffix(key, ".type")) {
            continue;
        }
        key = g_str_has_prefix(key, "addr.data.") ? key + strlen("addr.data.") : key;
        for (unsigned n = 0; n < G_N_ELEMENTS(names); n++) {
            key = g_str_equal(key, names[n][0]) ? names[n][1] : key;
        }
        g_auto(GStrv) commas = g_strsplit(keyval_value(kv, i), ",", -1);
        g_autofree char *value = g_strjoinv(",,", commas);
        g_string_append_printf(out, ",%s=%s", key, value);
    }
    return true;
}

HANDLER(chardev_add)
{
    g_autoptr(GString) text = g_string_new(NULL);
    if (!flatten_backend(json_object_get(args, "backend"), text, error)) {
        return NULL;
    }
    g_string_append_printf(text, ",id=%s", qmp_str(args, "id"));
    struct chardev *chr = chardev_new(text->str, error);
    return chr && g_str_equal(chr->kind, "pty") ? json_pack("{s:s}", "pty", chr->about + 4) : NULL;
}

HANDLER(chardev_del)
{
    const char *id = qmp_str(args, "id");
    struct chardev *chr = chardev_find(id);
    if (!chr) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Chardev '%s' not found", id);
    } else if (chr->peer || g_str_equal(chr->kind, "mux")) {
        g_set_error(error, LODGE_ERROR, EBUSY, "Chardev '%s' is busy", id);
    } else {
        chardev_remove(chr);
    }
    return NULL;
}

HANDLER(ringbuf_read)
{
    const char *id = qmp_str(args, "device");
    json_int_t size = json_integer_value(json_object_get(args, "size"));
    struct chardev *chr = chardev_find(id);
    g_autofree char *text = chr && size > 0 ? chardev_ring_take(chr, (size_t)size) : NULL;
    if (!text) {
        g_set_error(error, LODGE_ERROR, EINVAL, chr ? "'%s' is not a ringbuf device"
                                                    : "Device '%s' not found", id);
        return NULL;
    }
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    return json_string(valid);
}

HANDLER(balloon)
{
    json_int_t value = json_integer_value(json_object_get(args, "value"));
    struct device *dev = board_part(vm_board(), "balloon");
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENXIO, "No balloon device has been activated");
    } else if (value <= 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'target' expects a size");
    } else {
        uint64_t all = vm_memory();
        balloon_set_target(dev, all - MIN((uint64_t)value, all));
    }
    return NULL;
}

/* ---- the table ---- */

const struct qmp_command qmp_commands[] = {
#define QMP(name, handler, args, result, help) {name, qmp_##handler, args, result, help},
#include "schema/monitor.def"
#undef QMP
};
const unsigned n_qmp_commands = G_N_ELEMENTS(qmp_commands);
