/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/gdb.h"

#include "base/util.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/paging.h"
#include "host/chardev/chardev.h"
#include "vmm/vm.h"

#include <string.h>

/*
 * gdb - a debugger's server
 *
 * Spec: "Debugging with GDB", appendix "GDB Remote Serial Protocol": "Packets", "Stop Reply
 * Packets", "General Query Packets".
 *
 * A thread is a vCPU, numbered from 1.  The machine stands still while the debugger thinks.
 */
enum { PACKET_MAX = 0x4000 };

static struct {
    struct outbox out;
    struct chardev *own; /* made by gdb_start() */
    GString *packet;
    enum { IDLE, BODY, SUM1, SUM2 } state;
    uint8_t sum, sent_sum;
    bool no_ack, waiting; /* .waiting: a c or s was not answered yet */
    struct vcpu *cpu;     /* of g, m and so on */
    struct vcpu *stopped; /* the one that made the machine stop */
} gdb;

/* ---- sending ---- */

static void reply(const char *text)
{
    uint8_t sum = 0;
    for (const char *s = text; *s; s++) {
        sum = (uint8_t)(sum + (uint8_t)*s);
    }
    g_autofree char *packet = g_strdup_printf("$%s#%02x", text, sum);
    outbox_put(&gdb.out, packet, strlen(packet));
}

static void reply_hex(const uint8_t *data, size_t n, const char *prefix)
{
    g_autoptr(GString) text = g_string_new(prefix);
    for (size_t i = 0; i < n; i++) {
        g_string_append_printf(text, "%02x", data[i]);
    }
    reply(text->str);
}

static unsigned thread_of(const struct vcpu *cpu)
{
    return cpu->index + 1;
}

static void reply_stopped(unsigned signal)
{
    g_autoptr(GString) text = g_string_new(NULL);
    static const char *const kinds[] = {[GDB_WRITE] = "watch", [GDB_READ] = "rwatch", [GDB_ACCESS] = "awatch"};
    const struct vcpu *cpu = gdb.stopped ? gdb.stopped : gdb.cpu;
    g_string_printf(text, "T%02xthread:%x;", signal, thread_of(cpu));
    if (cpu->watched) {
        enum gdb_point_kind kind = GDB_WRITE;
        for (unsigned i = 0; cpu->points && i < cpu->points->n; i++) {
            const struct gdb_point *p = &cpu->points->at[i];
            kind = p->linear == cpu->watch_hit && p->kind != GDB_EXECUTE ? p->kind : kind;
        }
        g_string_append_printf(text, "%s:%" G_GINT64_MODIFIER "x;", kinds[kind], cpu->watch_hit);
    }
    reply(text->str);
}

/* ---- numbers ---- */

static bool take_hex(const char **at, uint64_t *out)
{
    char *end;
    if (!g_ascii_isxdigit(**at)) {
        return false;
    }
    *out = g_ascii_strtoull(*at, &end, 16);
    *at = end;
    return true;
}

static bool skip(const char **at, char c)
{
    bool there = **at == c;
    *at += there;
    return there;
}

static size_t take_bytes(const char *at, uint8_t *out, size_t room)
{
    size_t n = 0;
    for (; n < room && g_ascii_isxdigit(at[0]) && g_ascii_isxdigit(at[1]); at += 2) {
        out[n++] = (uint8_t)(g_ascii_xdigit_value(at[0]) << 4 | g_ascii_xdigit_value(at[1]));
    }
    return n;
}

/* ---- running ---- */

enum action { STAY, CONTINUE, STEP };

static void act(struct vcpu *cpu, enum action what)
{
    cpu->single_step = what == STEP;
    cpu->watched = false;
    vcpu_hold(cpu, what == STAY);
}

static void act_all(enum action what)
{
    for (unsigned i = 0; i < vcpu_count(); i++) {
        act(vcpu_at(i), what);
    }
}

/* Those that have something to do, which act() has said, do it. */
static void go(void)
{
    g_autoptr(GError) error = NULL;
    gdb.waiting = true;
    gdb.stopped = NULL;
    if (!vm_cont(&error)) {
        gdb.waiting = false;
        g_autofree char *text = g_strdup_printf("lodge-vm: %s\n", error->message);
        reply_hex((const uint8_t *)text, strlen(text), "O");
        reply_stopped(2);
    }
}

static void end_actions(void)
{
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_at(i)->single_step = false;
        vcpu_hold(vcpu_at(i), false);
    }
}

/* In the main loop, machine stopped. */
static bool debug_stop(struct vcpu *cpu)
{
    if (!gdb.out.chr->open) {
        act_all(CONTINUE);
        return false;
    }
    gdb.stopped = gdb.cpu = cpu;
    end_actions();
    if (gdb.waiting) {
        gdb.waiting = false;
        reply_stopped(5);
    }
    return true;
}

/* For other reasons: the monitor's stop, a broken CPU, the end of the machine. */
static void other_stop(enum vm_state why)
{
    if (why != VM_DEBUG) {
        end_actions();
    }
    if (gdb.waiting && why != VM_DEBUG) {
        gdb.waiting = false;
        reply_stopped(why == VM_INTERNAL_ERROR ? 6 : 2);
    }
}

static void on_continue(const char *args)
{
    uint64_t at;
    if (take_hex(&args, &at)) {
        gdb.cpu->r.rip = at;
    }
    act_all(CONTINUE);
    go();
}

static void step_one(void)
{
    act_all(STAY);
    act(gdb.cpu, STEP);
    go();
}

static void on_step(const char *args)
{
    uint64_t at;
    if (take_hex(&args, &at)) {
        gdb.cpu->r.rip = at;
    }
    step_one();
}

static void on_signal(const char *args) /* C05, S05: there are no signals to give */
{
    (void)args;
    act_all(CONTINUE);
    go();
}

static void on_signal_step(const char *args)
{
    (void)args;
    step_one();
}

static struct vcpu *cpu_of_thread(uint64_t id)
{
    return id == 0 ? gdb.cpu : vcpu_find((unsigned)(id - 1));
}

/* One of vCont's actions, for those CPUs that no action before it named. */
static bool take_action(const char **args, bool named[])
{
    char action = **args;
    uint64_t id = 0, signal;
    *args += action != '\0';
    if (action == 'C' || action == 'S') {
        take_hex(args, &signal);
    }
    bool all = !skip(args, ':') || g_str_has_prefix(*args, "-1");
    if (!all) {
        skip(args, 'p');
    } else if (**args == '-') {
        *args += 2;
    }
    struct vcpu *one = !all && take_hex(args, &id) ? cpu_of_thread(id) : NULL;
    if (!strchr("cCsS", action) || !action || (!all && !one)) {
        return false;
    }
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *cpu = vcpu_at(i);
        if ((all || cpu == one) && !named[i]) {
            named[i] = true;
            act(cpu, g_ascii_tolower(action) == 's' ? STEP : CONTINUE);
        }
    }
    return true;
}

/* vCont;s:1;c: CPUs that no action names stand still. */
static void on_vcont(const char *args)
{
    g_autofree bool *named = g_new0(bool, vcpu_count());
    if (skip(&args, '?')) {
        reply("vCont;c;C;s;S");
        return;
    }
    act_all(STAY);
    while (skip(&args, ';')) {
        if (!take_action(&args, named)) {
            reply("E22");
            return;
        }
    }
    go();
}

static void on_status(const char *args)
{
    (void)args;
    reply_stopped(5);
}

/* ---- threads ---- */

static void on_thread(const char *args) /* Hg1, Hc-1 */
{
    uint64_t id;
    const char *number = args + 1;
    struct vcpu *cpu = take_hex(&number, &id) ? cpu_of_thread(id) : gdb.cpu;
    if (cpu) {
        gdb.cpu = cpu;
    }
    reply(cpu ? "OK" : "E22");
}

static void on_alive(const char *args)
{
    uint64_t id;
    reply(take_hex(&args, &id) && cpu_of_thread(id) ? "OK" : "E22");
}

static void on_thread_list(const char *args)
{
    g_autoptr(GString) text = g_string_new("m");
    (void)args;
    for (unsigned i = 0; i < vcpu_count(); i++) {
        g_string_append_printf(text, "%s%x", i ? "," : "", thread_of(vcpu_at(i)));
    }
    reply(text->str);
}

static void on_thread_end(const char *args)
{
    (void)args;
    reply("l");
}

static void on_thread_info(const char *args)
{
    uint64_t id;
    struct vcpu *cpu = skip(&args, ',') && take_hex(&args, &id) ? cpu_of_thread(id) : NULL;
    g_autofree char *text = cpu ? g_strdup_printf("CPU#%u [%s]", cpu->index, cpu->r.halted ? "halted" : "running")
                                : g_strdup("");
    reply_hex((const uint8_t *)text, strlen(text), "");
}

static void on_current_thread(const char *args)
{
    g_autofree char *text = g_strdup_printf("QC%x", thread_of(gdb.cpu));
    (void)args;
    reply(text);
}

/* ---- registers and memory ---- */

static void on_read_all(const char *args)
{
    uint8_t data[GDB_REGS_BYTES];
    (void)args;
    reply_hex(data, gdb_regs_read_all(gdb.cpu, data), "");
}

static void on_write_all(const char *args)
{
    uint8_t data[GDB_REGS_BYTES];
    size_t n = take_bytes(args, data, sizeof(data));
    reply(gdb_regs_write_all(gdb.cpu, data, n) ? "OK" : "E22");
}

static void on_read_one(const char *args)
{
    uint8_t data[16];
    uint64_t n;
    size_t bytes = take_hex(&args, &n) ? gdb_reg_read(gdb.cpu, (unsigned)MIN(n, 10000), data) : 0;
    if (bytes) {
        reply_hex(data, bytes, "");
    } else {
        reply("E22");
    }
}

static void on_write_one(const char *args)
{
    uint8_t data[16];
    uint64_t n;
    bool ok = take_hex(&args, &n) && skip(&args, '=') && n < 10000;
    ok = ok && gdb_reg_write(gdb.cpu, (unsigned)n, data, take_bytes(args, data, sizeof(data)));
    reply(ok ? "OK" : "E22");
}

static void on_read_memory(const char *args)
{
    uint8_t data[PACKET_MAX / 2];
    uint64_t at, n;
    if (!take_hex(&args, &at) || !skip(&args, ',') || !take_hex(&args, &n) || n > sizeof(data) - 8 ||
        !paging_peek(gdb.cpu, at, data, n)) {
        reply("E14");
        return;
    }
    reply_hex(data, n, "");
}

static void on_write_memory(const char *args)
{
    uint8_t data[PACKET_MAX / 2];
    uint64_t at, n;
    if (!take_hex(&args, &at) || !skip(&args, ',') || !take_hex(&args, &n) || !skip(&args, ':') ||
        n > sizeof(data) || take_bytes(args, data, n) != n || !paging_poke(gdb.cpu, at, data, n)) {
        reply("E14");
        return;
    }
    reply("OK");
}

static void change_point(const char *args, bool (*change)(enum gdb_point_kind, uint64_t, uint64_t))
{
    static const enum gdb_point_kind kinds[] = {GDB_EXECUTE, GDB_EXECUTE, GDB_WRITE, GDB_READ, GDB_ACCESS};
    uint64_t kind, at, bytes;
    if (!take_hex(&args, &kind) || kind >= G_N_ELEMENTS(kinds) || !skip(&args, ',') ||
        !take_hex(&args, &at) || !skip(&args, ',') || !take_hex(&args, &bytes)) {
        reply("");
        return;
    }
    reply(change(kinds[kind], at, kind < 2 ? 1 : bytes) ? "OK" : "E28");
}

static void on_add_point(const char *args)
{
    change_point(args, debug_add_point);
}

static void on_remove_point(const char *args)
{
    change_point(args, debug_remove_point);
}

/* ---- the rest ---- */

static void on_supported(const char *args)
{
    (void)args;
    reply("PacketSize=4000;qXfer:features:read+;vContSupported+;QStartNoAckMode+");
}

static void on_no_ack(const char *args)
{
    (void)args;
    reply("OK");
    gdb.no_ack = true;
}

static void on_attached(const char *args)
{
    (void)args;
    reply("1");
}

static void on_features(const char *args) /* :target.xml:0,ffb */
{
    uint64_t from, n;
    g_autofree char *xml = gdb_target_xml(gdb.cpu);
    if (!g_str_has_prefix(args, ":target.xml:")) {
        reply("E00");
        return;
    }
    args += strlen(":target.xml:");
    if (!take_hex(&args, &from) || !skip(&args, ',') || !take_hex(&args, &n)) {
        reply("E22");
        return;
    }
    size_t len = strlen(xml), start = MIN(from, len), take = MIN(n, len - start);
    take = MIN(take, PACKET_MAX - 8);
    g_autofree char *part = g_strndup(xml + start, take);
    g_autofree char *text = g_strconcat(start + take < len ? "m" : "l", part, NULL);
    reply(text);
}

static void on_command(const char *args) /* ,hex of a monitor command */
{
    uint8_t line[1024];
    size_t n = skip(&args, ',') ? take_bytes(args, line, sizeof(line) - 1) : 0;
    line[n] = '\0';
    g_autofree char *text = monitor_line((const char *)line);
    if (*text) {
        reply_hex((const uint8_t *)text, MIN(strlen(text), PACKET_MAX / 2 - 8), "O");
    }
    reply("OK");
}

static void on_detach(const char *args)
{
    (void)args;
    debug_clear_points();
    act_all(CONTINUE);
    reply("OK");
    vm_cont(NULL);
}

static void on_kill(const char *args)
{
    (void)args;
    vm_request_exit(0);
}

static void on_kill_packet(const char *args)
{
    reply("OK");
    on_kill(args);
}

/* Longer names first: the first that fits is taken. */
static const struct {
    const char *name;
    void (*run)(const char *args);
} packets[] = {
    {"qSupported", on_supported}, {"qXfer:features:read", on_features},
    {"qfThreadInfo", on_thread_list}, {"qsThreadInfo", on_thread_end},
    {"qThreadExtraInfo", on_thread_info}, {"qAttached", on_attached},
    {"qRcmd", on_command}, {"qC", on_current_thread}, {"QStartNoAckMode", on_no_ack},
    {"vCont", on_vcont}, {"vKill", on_kill_packet},
    {"?", on_status}, {"c", on_continue}, {"s", on_step}, {"C", on_signal}, {"S", on_signal_step},
    {"H", on_thread}, {"T", on_alive}, {"g", on_read_all}, {"G", on_write_all},
    {"p", on_read_one}, {"P", on_write_one}, {"m", on_read_memory}, {"M", on_write_memory},
    {"Z", on_add_point}, {"z", on_remove_point}, {"D", on_detach}, {"k", on_kill},
};

static void run_packet(const char *text)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(packets); i++) {
        size_t n = strlen(packets[i].name);
        /* "q..." and "v..." that are not listed are no one-letter packets. */
        if (strncmp(text, packets[i].name, n) == 0) {
            packets[i].run(text + n);
            return;
        }
    }
    reply("");
}

/* ---- receiving ---- */

static void end_packet(void)
{
    if (!gdb.no_ack) {
        outbox_put(&gdb.out, gdb.sum == gdb.sent_sum ? "+" : "-", 1);
        if (gdb.sum != gdb.sent_sum) {
            return;
        }
    }
    if (vm_running()) {
        return; /* nothing but Ctrl-C is understood while the guest runs */
    }
    run_packet(gdb.packet->str);
}

static void interrupt(void)
{
    if (vm_running()) {
        gdb.stopped = gdb.cpu;
        vm_stop(VM_PAUSED); /* other_stop() answers */
    }
}

static void take(char c)
{
    switch (gdb.state) {
    case IDLE:
        if (c == '$') {
            g_string_truncate(gdb.packet, 0);
            gdb.sum = 0;
            gdb.state = BODY;
        } else if (c == 3) {
            interrupt();
        }
        break;
    case BODY:
        if (c == '#') {
            gdb.state = SUM1;
        } else if (gdb.packet->len == PACKET_MAX) {
            gdb.state = IDLE;
        } else {
            gdb.sum = (uint8_t)(gdb.sum + (uint8_t)c);
            g_string_append_c(gdb.packet, c);
        }
        break;
    case SUM1:
        gdb.sent_sum = (uint8_t)(g_ascii_xdigit_value(c) << 4);
        gdb.state = SUM2;
        break;
    case SUM2:
        gdb.sent_sum |= (uint8_t)(g_ascii_xdigit_value(c) & 15);
        gdb.state = IDLE;
        end_packet();
        break;
    }
}

static void receive(void *peer, const uint8_t *data, size_t n)
{
    (void)peer;
    for (size_t i = 0; i < n; i++) {
        take((char)data[i]);
    }
}

static void event(void *peer, enum chardev_event what)
{
    (void)peer;
    if (what == CHARDEV_OPENED) {
        gdb.state = IDLE;
        gdb.no_ack = gdb.waiting = false;
        gdb.cpu = vcpu_at(0);
        gdb.stopped = NULL;
        if (vm_running()) {
            vm_stop(VM_PAUSED);
        }
    } else if (what == CHARDEV_CLOSED) {
        g_string_truncate(gdb.out.text, 0);
        gdb.waiting = false;
        vm_hold();
        debug_clear_points();
        act_all(CONTINUE);
        vm_release();
    }
}

static void writable(void *peer)
{
    (void)peer;
    outbox_flush(&gdb.out);
}

void gdb_close(void)
{
    if (gdb.packet) {
        gdb.out.chr->receive = NULL;
        gdb.out.chr->event = NULL;
        gdb.out.chr->writable = NULL;
        vm_debug_stop = NULL;
        vm_stopped = NULL;
        if (gdb.own) {
            chardev_remove(gdb.own);
        }
        outbox_clear(&gdb.out);
        g_string_free(gdb.packet, TRUE);
        gdb.packet = NULL;
        gdb.own = NULL;
    }
}

bool gdb_start(const char *spec, GError **error)
{
    bool named = g_str_has_prefix(spec, "chardev:");
    bool server = g_str_has_prefix(spec, "tcp:") || g_str_has_prefix(spec, "unix:");
    g_autofree char *text = g_strconcat(spec, server ? ",server=on,wait=off" : "", NULL);
    gdb_close();
    if (g_str_equal(spec, "none")) {
        return true;
    }
    struct chardev *chr = named ? chardev_find(spec + 8) : chardev_new_short("gdb", text, error);
    if (!chr) {
        if (named) {
            g_set_error(error, LODGE_ERROR, ENOENT, "%s: no such chardev", spec);
        }
        g_prefix_error(error, "-gdb ");
        return false;
    }
    gdb.own = named ? NULL : chr;
    outbox_init(&gdb.out, chr);
    gdb.packet = g_string_new(NULL);
    gdb.cpu = vcpu_at(0);
    chr->receive = receive;
    chr->event = event;
    chr->writable = writable;
    vm_debug_stop = debug_stop;
    vm_stopped = other_stop;
    chardev_accept_input(chr);
    return true;
}
