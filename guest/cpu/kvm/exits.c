/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * exits - what ended KVM_RUN, a row each
 *
 * Spec: KVM API documentation, "The kvm_run structure".
 */
#include "guest/cpu/kvm/kvm.h"

#include "guest/cpu/debug.h"

#include <linux/kvm.h>
#include <string.h>

typedef int exit_fn(struct kvm_vcpu *v, struct kvm_run *run);

static int on_io(struct kvm_vcpu *v, struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned bytes = run->io.size;
    for (uint32_t i = 0; i < run->io.count; i++, data += bytes) {
        uint64_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_IN) {
            value = space_load(v->cpu->ports, run->io.port, bytes);
            memcpy(data, &value, bytes);
        } else {
            memcpy(&value, data, bytes);
            space_store(v->cpu->ports, run->io.port, value, bytes);
        }
    }
    return KVM_STAY;
}

static int on_mmio(struct kvm_vcpu *v, struct kvm_run *run)
{
    uint64_t value = 0;
    struct space *s = v->cpu->memory;
    unsigned bytes = MIN(run->mmio.len, 8);
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, bytes);
        space_store(s, run->mmio.phys_addr, value, bytes);
    } else {
        value = space_load(s, run->mmio.phys_addr, bytes);
        memcpy(run->mmio.data, &value, bytes);
    }
    return KVM_STAY;
}

static int on_shutdown(struct kvm_vcpu *v, struct kvm_run *run)
{
    (void)v, (void)run;
    return STOP_RESET; /* a PC answers a triple fault with a reset */
}

/* Which of the debugger's points the debug registers say was hit; a watchpoint is noted. */
static bool hits_point(struct vcpu *cpu, uint64_t dr6)
{
    bool hit = false;
    for (unsigned i = 0, used = 0; cpu->points && i < cpu->points->n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        if (p->soft || used == DEBUG_REGISTERS || !(dr6 >> used++ & 1)) {
            continue;
        }
        hit = true;
        if (p->kind != GDB_EXECUTE) {
            cpu->watched = true;
            cpu->watch_hit = p->linear;
        }
    }
    return hit;
}

/* The debugger's, or a breakpoint of the guest's own that we only saw first. */
static int on_debug(struct kvm_vcpu *v, struct kvm_run *run)
{
    const struct kvm_debug_exit_arch *why = &run->debug.arch;
    struct vcpu *cpu = v->cpu;
    if (why->exception == VEC_BP) {
        if (debug_gdb_breakpoint(cpu, why->pc)) {
            return STOP_DEBUG;
        }
    } else if (hits_point(cpu, why->dr6) || cpu->single_step) {
        return STOP_DEBUG;
    }
    v->inject = (uint8_t)why->exception;
    return KVM_STAY;
}

static int on_system_event(struct kvm_vcpu *v, struct kvm_run *run)
{
    if (run->system_event.type == KVM_SYSTEM_EVENT_RESET ||
        run->system_event.type == KVM_SYSTEM_EVENT_CRASH) {
        return STOP_RESET;
    }
    g_set_error(&v->cpu->error, LODGE_ERROR, ENOTSUP, "kvm: system event %u",
                run->system_event.type);
    return STOP_BROKEN;
}

static int on_fail_entry(struct kvm_vcpu *v, struct kvm_run *run)
{
    g_set_error(&v->cpu->error, LODGE_ERROR, EIO,
                "kvm: the processor refused the guest's state (reason 0x%llx)",
                (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    return STOP_BROKEN;
}

static int on_internal_error(struct kvm_vcpu *v, struct kvm_run *run)
{
    g_set_error(&v->cpu->error, LODGE_ERROR, EIO, "kvm: internal error %u%s",
                run->internal.suberror,
                run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                    ? " (an instruction that the kernel cannot emulate)"
                    : "");
    return STOP_BROKEN;
}

static struct {
    void (*ended)(void *owner, uint8_t vector);
    void *owner;
} eoi;

void kvm_on_eoi(void (*ended)(void *owner, uint8_t vector), void *owner)
{
    eoi.ended = ended;
    eoi.owner = owner;
}

static int on_eoi(struct kvm_vcpu *v, struct kvm_run *run)
{
    (void)v;
    if (eoi.ended) {
        eoi.ended(eoi.owner, run->eoi.vector);
    }
    return KVM_STAY;
}

static int on_nothing(struct kvm_vcpu *v, struct kvm_run *run)
{
    (void)v, (void)run;
    return KVM_STAY;
}

static exit_fn *const exits[] = {
    [KVM_EXIT_IO] = on_io,
    [KVM_EXIT_MMIO] = on_mmio,
    [KVM_EXIT_DEBUG] = on_debug,
    [KVM_EXIT_SHUTDOWN] = on_shutdown,
    [KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
    [KVM_EXIT_SYSTEM_EVENT] = on_system_event,
    [KVM_EXIT_IOAPIC_EOI] = on_eoi,
    [KVM_EXIT_INTR] = on_nothing,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = on_nothing,
};

int kvm_handle_exit(struct kvm_vcpu *v)
{
    uint32_t why = v->run->exit_reason;
    if (why >= G_N_ELEMENTS(exits) || !exits[why]) {
        g_set_error(&v->cpu->error, LODGE_ERROR, ENOTSUP, "kvm: exit %u has no handler", why);
        return STOP_BROKEN;
    }
    return exits[why](v, v->run);
}
