/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a bare-metal program on every CPU engine and compares what it writes with the
 * expected text.  Usage: harness program.bin expected.txt [engine ...]
 *
 * The machine: 16 MiB of RAM, and behind it the same as ROM; the program at 0x10000, entered
 * in real mode at 1000:0000 with interrupts off.  Ports: 0xe9 writes a character; 0xf4 ends; 0xf0 requests the
 * interrupt with the written vector, 0xf1 an NMI, 0xf2 an SMI; 0xf5 reads 0x5a; 0xf3 asks for
 * an interrupt that comes when the program sleeps, with a wish that its TLB be flushed.
 * The translator runs twice: as it is, interpreting what is cold, and translating all.
 * Last it runs with all engines in turns of a millisecond, because a vCPU may change its
 * engine between two runs.  LODGE_LOG=int in the environment shows what is delivered.
 */
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/translate/bt.h"
#include "guest/cpu/vcpu.h"
#include "guest/time/clock.h"

#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RAM_BYTES = 16 << 20, LOAD_AT = 0x10000, SECONDS = 150 };
enum { PREEMPTED_AT = 0x101010, ASLEEP = 1, FLUSH_WANTED = 2 }; /* KVM's steal time area */

static GString *output;
static bool ended;
static int pending_vector = -1;
static _Atomic int late_vector = -1;
static struct vcpu *vcpu;

static uint64_t port_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)owner, (void)at, (void)bytes;
    return at == 5 ? 0x5a : 0xff;
}

static void port_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    (void)owner, (void)bytes;
    switch (at) {
    case 0:
        pending_vector = (int)(value & 0xff);
        vcpu_request(vcpu, REQ_INTR);
        break;
    case 1:
        vcpu_request(vcpu, REQ_NMI);
        break;
    case 2:
        vcpu_request(vcpu, REQ_SMI);
        break;
    case 3:
        late_vector = (int)(value & 0xff);
        break;
    case 4:
        ended = true;
        vcpu_request(vcpu, REQ_EXIT);
        break;
    }
}

static void char_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    (void)owner, (void)at, (void)bytes;
    g_string_append_c(output, (char)value);
}

static const struct region_ops port_ops = {
    .read = port_read, .write = port_write, .lockless = true};
static const struct region_ops char_ops = {.write = char_write, .lockless = true};

static int acknowledge(void *owner, struct vcpu *cpu)
{
    int vector = pending_vector;
    (void)owner, (void)cpu;
    pending_vector = -1;
    return vector;
}

static bool interrupt_pending(void *owner, struct vcpu *cpu)
{
    (void)owner;
    if (pending_vector < 0) {
        vcpu_unrequest(cpu, REQ_INTR);
    }
    return pending_vector >= 0;
}

/* As if there were 128 processors. */
static int send_ipis(void *owner, struct vcpu *cpu, uint64_t who, uint32_t first, uint32_t icr)
{
    (void)owner;
    if (icr & 0x800) {
        return -1;
    }
    if ((who & 1) && !first) {
        pending_vector = (int)(icr & 0xff);
        vcpu_request(cpu, REQ_INTR);
    }
    return __builtin_popcountll(who);
}

/* What another processor would do that finds the program's processor asleep. */
static void wake_sleeper(uint8_t *preempted)
{
    uint8_t asleep = ASLEEP;
    if (late_vector >= 0 &&
        __atomic_compare_exchange_n(preempted, &asleep, ASLEEP | FLUSH_WANTED, false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        pending_vector = late_vector;
        late_vector = -1;
        vcpu_request(vcpu, REQ_INTR);
    }
}

static const struct vcpu_board board = {.acknowledge = acknowledge,
                                        .send_ipis = send_ipis,
                                        .interrupt_pending = interrupt_pending};

static void on_stop(void *owner, struct vcpu *cpu, int stop)
{
    static const char *const names[] = {"kicked", "halted", "shutdown", "debug", "broken"};
    (void)owner;
    g_string_append_printf(output, "%s\n", names[stop]);
    if (cpu->error) {
        g_string_append_printf(output, "%s\n", cpu->error->message);
    }
    ended = true;
}

static void start_state(struct regs *r)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        r->seg[i].selector = LOAD_AT >> 4;
        r->seg[i].base = LOAD_AT;
    }
    r->seg[SEG_SS].selector = 0;
    r->seg[SEG_SS].base = 0;
    r->gpr[RSP] = 0x7000;
    r->rip = 0;
    r->idt.limit = 0x3ff;
}

static void change_engine(const struct cpu_engine *const *engines, unsigned n)
{
    static unsigned turn;
    if (n > 1) {
        vcpus_pause();
        vcpu->engine = engines[++turn % n];
        if (!ended) {
            vcpus_resume();
        }
    }
}

/* In a child process of its own: an engine that crashes must not take the others along. */
static int run(const char *program, const char *expected, const struct cpu_engine *const *engines,
               unsigned n_engines)
{
    const struct cpu_engine *engine = engines[0];
    const char *name = n_engines > 1 ? "all in turns" : engine->name;
    g_autoptr(GError) error = NULL;
    g_autofree char *code = NULL, *want = NULL;
    gsize n;
    if (!g_file_get_contents(program, &code, &n, &error) ||
        !g_file_get_contents(expected, &want, NULL, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    struct space *memory = space_new("memory", UINT64_C(1) << 40);
    struct space *ports = space_new("ports", 1 << 16);
    struct ram *ram = ram_new("ram", RAM_BYTES, NULL, &error);
    struct region r = {.name = "ram", .size = RAM_BYTES, .ram = ram};
    struct region io = {.name = "ports", .size = 8, .ops = &port_ops};
    struct region text = {.name = "text", .size = 1, .ops = &char_ops};
    struct region rom = {.name = "rom", .size = RAM_BYTES, .ram = ram, .read_only = true};
    space_place(memory, &r, 0, 0);
    space_place(memory, &rom, RAM_BYTES, 0);
    space_place(ports, &io, 0xf0, 0);
    space_place(ports, &text, 0xe9, 0);
    memcpy(ram->host + LOAD_AT, code, n);
    struct cpu_topology topology = {1, 1, 1, 1};
    struct cpu_model *model = cpu_model_new("max", engine->name, &topology, &error);
    vcpu = model ? vcpu_new(0, 0, engine, model, &board, memory, NULL, ports, &error) : NULL;
    if (!vcpu) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    output = g_string_new(NULL);
    start_state(&vcpu->r);
    vcpus_on_stop(on_stop, NULL);
    clock_start();
    if (g_getenv("LODGE_LOG")) {
        log_enable(g_getenv("LODGE_LOG"), NULL);
    }
    gint64 deadline = g_get_monotonic_time() + SECONDS * G_USEC_PER_SEC;
    vcpus_resume();
    while (!ended && g_get_monotonic_time() < deadline) {
        g_usleep(1000);
        wake_sleeper(ram->host + PREEMPTED_AT);
        change_engine(engines, n_engines);
    }
    vcpus_pause();
    if (!ended) {
        g_string_append_printf(output, "timeout at %04x:%lx\n", vcpu->r.seg[SEG_CS].selector,
                               (unsigned long)vcpu->r.rip);
    }
    if (strcmp(output->str, want)) {
        printf("%s on %s: wrote\n%s-- but expected\n%s--\n", program, name, output->str,
               want);
        return 1;
    }
    printf("%s on %s: ok\n", program, name);
    return 0;
}

static bool chosen(const char *name, char **names, int n)
{
    for (int i = 0; i < n; i++) {
        if (!strcmp(names[i], name)) {
            return true;
        }
    }
    return n == 0 && strcmp(name, "kvm");
}

static bool run_in_child(char **argv, const struct cpu_engine *const *engines, unsigned n)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int rc = run(argv[1], argv[2], engines, n);
        fflush(stdout);
        _exit(rc);
    }
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    }
    printf("%s on %s: failed (status %#x)\n", argv[1], n > 1 ? "all in turns" : engines[0]->name,
           status);
    return false;
}

int main(int argc, char **argv)
{
    const struct cpu_engine *engines[8];
    unsigned n = 0;
    bool ok = true;
    if (argc < 3) {
        fprintf(stderr, "usage: harness program.bin expected.txt [engine ...]\n");
        return 2;
    }
    for (unsigned e = 0; e < n_cpu_engines && n < G_N_ELEMENTS(engines); e++) {
        if (chosen(cpu_engines[e]->name, argv + 3, argc - 3)) {
            engines[n++] = cpu_engines[e];
            ok &= run_in_child(argv, &cpu_engines[e], 1);
            if (!strcmp(cpu_engines[e]->name, "bt")) {
                bt_hot = 0;
                ok &= run_in_child(argv, &cpu_engines[e], 1);
            }
        }
    }
    if (n > 1) {
        ok &= run_in_child(argv, engines, n);
    }
    return !ok;
}
