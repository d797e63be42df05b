/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/engine.h"

/*
 * The KVM engine: the ordinary KVM API of /dev/kvm.
 *
 * Spec: Linux kernel documentation, "The Definitive KVM (Kernel-based Virtual Machine) API
 * Documentation" (Documentation/virt/kvm/api.rst); section titles are the ioctls' names.
 *
 * One VM a process.  Interrupt controllers are the kernel's (KVM_CREATE_IRQCHIP), so a board
 * makes the devices kvm_irqchip and kvm_apic in place of i8259, ioapic, lapic and i8254.
 * With a split chip only the local APICs are: the board makes i8259, ioapic and i8254.
 */
/* Before kvm_open(). */
void kvm_split_irqchip(void);
bool kvm_is_split(void);

/* Opens /dev/kvm and makes the VM; idempotent.  EACCES, ENOENT, ENOTSUP with a line. */
bool kvm_open(GError **error);
/* Is the VM made, that is, does this machine run on KVM? */
bool kvm_active(void);

/* Sets an interrupt input of the kernel's PIC and IO-APIC.  Any thread. */
void kvm_set_gsi(unsigned gsi, bool level);
/* Delivers a message-signalled interrupt. */
void kvm_send_msi(uint64_t address, uint32_t data);
/*
 * The same for a source that sends often: an eventfd that the kernel turns into the message
 * (irqfd).  *@route is NULL at first, made when it is first used and follows the message when
 * that changes.  Machine lock held.
 */
struct kvm_route;
void kvm_route_send(struct kvm_route **route, uint64_t address, uint32_t data);
void kvm_route_free(struct kvm_route *route); /* NULL is fine */
/* Split: what the pins of the board's IO-APIC send now. */
struct kvm_message {
    uint64_t address;
    uint32_t data;
};
void kvm_pin_routes(const struct kvm_message *pins, unsigned n);
/* Split: whom to tell that a level-triggered vector was ended; vCPU's thread, no lock held. */
void kvm_on_eoi(void (*ended)(void *owner, uint8_t vector), void *owner);
/* Follows doorbells (guest/memory/space.h) and the layout of @memory and @ports. */
void kvm_doorbells_init(struct space *memory, struct space *ports);
/*
 * What is to happen in vCPU @index's thread after its registers went over to the kernel:
 * its local APIC follows, whose mode depends on them.
 */
void kvm_on_push(unsigned index, void (*push)(void *owner), void *owner);
/*
 * How many local APICs have a state that the kernel does not know yet, after a reset or a load.
 * An interrupt sent to one of them now would be overwritten, so no vCPU enters before all are over.
 */
extern _Atomic unsigned kvm_apics_due;

/* State of the kernel's devices, for kvm_irqchip: 0 or -errno. */
int kvm_vm_ioctl(unsigned long request, void *arg);
int kvm_vcpu_ioctl(struct vcpu *cpu, unsigned long request, void *arg);

/* ---- inside the room ---- */

struct kvm_run;

struct kvm_vcpu {
    struct vcpu *cpu;
    int fd;
    struct kvm_run *run;
    size_t run_bytes;
    unsigned long thread; /* pthread_t: whom a kick interrupts */
    bool dirty;           /* cpu->r was changed by us: push before the next entry */
    bool debugging;       /* KVM_SET_GUEST_DEBUG is on */
    uint8_t inject;       /* VEC_DB or VEC_BP that was the guest's own: deliver it */
};

int kvm_fd(void); /* /dev/kvm */
int kvm_routes_init(bool split); /* 0 or -errno */
int kvm_vm_fd(void);
bool kvm_has(int capability);

/* Maps the RAM of both memory spaces into the VM and follows their changes. */
bool kvm_memory_init(struct space *memory, struct space *memory_smm, GError **error);

bool kvm_features(uint32_t words[]); /* the engine's .features */
bool kvm_set_cpuid(struct kvm_vcpu *v, GError **error);
void kvm_pull(struct vcpu *cpu);
void kvm_push(struct vcpu *cpu);
void kvm_gprs(struct vcpu *cpu, bool push);

enum { DEBUG_REGISTERS = 4 };

enum { KVM_STAY = -1 }; /* go back into the guest */
/* Deals with what ended KVM_RUN; an enum stop, or KVM_STAY. */
int kvm_handle_exit(struct kvm_vcpu *v);

/* Runs 64-bit kernel-mode code with paging for a moment; the error says how slow it was. */
bool kvm_selftest(GError **error);
