/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/*
 * paravirt - KVM's interface for guests that know it, for the engines of our own
 *
 * kvmclock is in msr.c, the end of interrupts without an exit in the local APIC.  All runs in
 * the vCPU's own thread.
 */
/* A write to the MSR of steal time; false: #GP. */
bool paravirt_steal_time(struct vcpu *cpu, uint64_t v);
/* Now and then while the guest runs: the time that the host took from it becomes visible. */
void paravirt_tick(struct vcpu *cpu);
/* Around the sleep of a halted vCPU: others need not interrupt it to have its TLB flushed. */
void paravirt_asleep(struct vcpu *cpu);
void paravirt_awake(struct vcpu *cpu);
/* VMCALL and VMMCALL. */
void paravirt_call(struct vcpu *cpu);
