/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"
#include "guest/device/irq.h"

/*
 * kvm-irqchip - the kernel's interrupt controllers
 *
 * With its property "split" the board makes i8259 (its "int" to kvm_irqchip_intr()) and
 * ioapic, and joins them to the kernel's local APICs.
 */
struct device;

extern const struct vcpu_board kvm_irqchip_vcpu_board; /* for vcpu_new() */
struct irq *kvm_irqchip_intr(void);
void kvm_irqchip_join(struct device *pic, struct device *ioapic);
