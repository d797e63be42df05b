/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pc_parts: processors, interrupt controllers and the devices that every PC has. */
#include "guest/cpu/engine.h"
#include "guest/device/acpi_cpuhp.h"
#include "guest/device/acpi_pcihp.h"
#include "guest/device/acpi_pm.h"
#include "guest/device/ata.h"
#include "guest/device/cpu.h"
#include "guest/device/i8254.h"
#include "guest/device/i8259.h"
#include "guest/device/ioapic.h"
#include "guest/device/kvm_irqchip.h"
#include "guest/device/lapic.h"
#include "guest/machine/pc.h"
#include "host/image/image.h"

#include <stdio.h>

/* ---- interrupts ---- */

/* An ISA interrupt goes to the PIC and to the I/O APIC; the timer's to input 2 of the latter. */
static void line_set(struct irq *irq, bool level)
{
    struct machine *m = irq->owner;
    if (irq->n < 16 && m->pic_in[irq->n]) {
        irq_set(m->pic_in[irq->n], level);
    }
    irq_set(m->ioapic_in[irq->n == 0 ? 2 : irq->n], level);
}

static void request_smi(struct board *board)
{
    struct vcpu *cpu = vcpu_self();
    (void)board;
    vcpu_request(cpu ? cpu : vcpu_at(0), REQ_SMI);
}

static bool software_chips(struct machine *m, GError **error)
{
    struct board *board = m->board;
    struct device *ioapic = pc_device(m, "ioapic", "ioapic", error, NULL);
    struct device *pic = ioapic ? pc_device_new("i8259", error) : NULL;
    struct irq *intr = m->kvm ? kvm_irqchip_intr() : lapic_lint(board, 0);
    if (!pic ||
        !device_connect(pic, "int", WIRE_IRQ, irq_fan(intr, ioapic_input(ioapic, 0)), error) ||
        !device_start(pic, board, "pic", error)) {
        return false;
    }
    for (unsigned n = 0; n < 24; n++) {
        m->pic_in[n & 15] = n < 16 && n != 2 ? i8259_input(pic, n) : m->pic_in[n & 15];
        m->ioapic_in[n] = ioapic_input(ioapic, n);
        m->line[n] = (struct irq){.set = line_set, .owner = m, .n = n};
        board->gsi[n] = &m->line[n];
        if (n < 16) {
            board->isa_irq[n] = &m->line[n];
        }
    }
    if (m->kvm) {
        kvm_irqchip_join(pic, ioapic);
    }
    return true;
}

/* ---- processors ---- */

static char *apic_path(const struct machine *m, unsigned n)
{
    return !m->kvm ? g_strdup_printf("lapic.%u", n)
           : n     ? g_strdup_printf("kvm-apic.%u", n)
                   : g_strdup("kvm-apic");
}

static bool add_cpu(struct machine *m, unsigned n, GError **error)
{
    struct board *b = m->board;
    struct vcpu *cpu = vcpu_new(n, m->apic_ids[n], m->config.engine, m->cpu_model, m->vcpu_board,
                                b->memory, b->memory_smm, b->ports, error);
    if (!cpu) {
        return false;
    }
    g_autofree char *index = g_strdup_printf("%u", n), *path = apic_path(m, n);
    if (m->kvm ? pc_device(m, "kvm-apic", path, error, "cpu", index, NULL) != NULL
               : lapic_new(b, cpu, error) != NULL) {
        return true;
    }
    vcpu_remove(cpu);
    return false;
}

/* One number of a place; where there is only one of a kind it need not be said. */
static bool level(const char *name, uint32_t *at, unsigned n, bool needed, GError **error)
{
    if (*at == UINT32_MAX && !needed) {
        *at = 0;
    } else if (*at == UINT32_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU %s is not set", name);
    } else if (*at >= n) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid CPU %s: %u must be in range 0:%u", name,
                    *at, n - 1);
    }
    return *at < n;
}

static bool cpu_start(struct board *board, const struct cpu_place *at, uint32_t node,
                      uint32_t *index, GError **error)
{
    struct machine *m = machine_of(board);
    const struct cpu_topology *t = &m->config.topology;
    const struct numa *numa = m->config.numa;
    unsigned threads = MAX(t->threads, 1), cores = MAX(t->cores, 1), dies = MAX(t->dies, 1);
    unsigned sockets = m->config.maxcpus / (threads * cores * dies);
    struct cpu_place p = *at;
    if (!level("socket-id", &p.socket, sockets, true, error) ||
        !level("die-id", &p.die, dies, dies > 1, error) ||
        !level("core-id", &p.core, cores, true, error) ||
        !level("thread-id", &p.thread, threads, true, error)) {
        return false;
    }
    *index = ((p.socket * dies + p.die) * cores + p.core) * threads + p.thread;
    if (vcpu_find(*index)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "CPU[%u] with APIC ID %u exists", *index,
                    m->apic_ids[*index]);
        return false;
    }
    if (node != UINT32_MAX && node != (numa ? numa->cpu_node[*index] : 0)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "node-id=%u must match numa node specified with -numa option", node);
        return false;
    }
    return add_cpu(m, *index, error);
}

static void cpu_stop(struct board *board, uint32_t index)
{
    g_autofree char *path = apic_path(machine_of(board), index);
    device_free(board_find(board, path));
    vcpu_remove(vcpu_find(index));
}

bool pc_cpu_present(const struct machine *m, unsigned index)
{
    return vcpu_find(index) && !cpu_device_leaving(m->board, index);
}

static bool pci_hot_plug(struct machine *m, GError **error)
{
    const struct acpi_pm *pm = acpi_pm_of(m->board);
    g_autofree char *port =
        g_strdup_printf("%u", m->q35 ? ACPI_PCIHP_Q35 : (unsigned)ACPI_PCIHP_PC);
    return pc_device(m, "acpi-pcihp", "pcihp", error, "port", port, "root",
                     pm->hotplug_root ? "on" : "off", "bridges",
                     pm->hotplug_bridges ? "on" : "off", NULL);
}

bool pc_hot_plug(struct machine *m, GError **error)
{
    g_autofree char *port =
        g_strdup_printf("%u", m->q35 ? ACPI_CPUHP_Q35 : (unsigned)ACPI_CPUHP_PC);
    g_autofree char *places = g_strdup_printf("%u", m->config.maxcpus);
    unsigned bits = m->cpu_model->phys_bits;
    if (bits && m->board->dimm_bytes && pc_memory_end(m) > UINT64_C(1) << bits) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "-m maxmem=: memory would end beyond the processor's %u bits of addresses",
                    bits);
        return false;
    }
    return pci_hot_plug(m, error) &&
           (m->config.maxcpus == 1 ||
            pc_device(m, "acpi-cpuhp", "cpuhp", error, "port", port, "places", places, NULL)) &&
           (!m->board->dimm_slots || pc_device(m, "acpi-memhp", "memhp", error, NULL));
}

bool pc_cpus(struct machine *m, GError **error)
{
    struct board *b = m->board;
    m->cpu_model = cpu_model_new(m->config.cpu, m->config.engine->name, &m->config.topology, error);
    if (!m->cpu_model) {
        return false;
    }
    m->split_irqchip = m->kvm && g_str_equal(machine_prop(m, "kernel-irqchip", "on"), "split");
    m->vcpu_board = m->kvm ? &kvm_irqchip_vcpu_board : lapic_vcpu_board(b);
    if (m->kvm && !pc_device(m, "kvm-irqchip", "irqchip", error, "split",
                             m->split_irqchip ? "on" : "off", NULL)) {
        return false;
    }
    for (unsigned n = 0; n < m->config.cpus; n++) {
        if (!add_cpu(m, n, error)) {
            return false;
        }
    }
    b->cpus = m->config.cpus;
    b->cpu_start = cpu_start;
    b->cpu_stop = cpu_stop;
    if (!m->kvm) {
        b->msi = lapic_msi;
        b->smi = request_smi;
    }
    return (m->kvm && !m->split_irqchip) || software_chips(m, error);
}

bool pc_begin(struct machine *m, uint64_t gap_at, uint64_t split_at, GError **error)
{
    /* Whoever names a firmware or looks at the screen wants what firmware sets up. */
    bool through_firmware = m->config.graphic || m->config.bios || m->config.pflash[0] ||
                            (m->config.kernel && direct_boot_wants_bios(m->config.kernel));
    /* SMM is there for secure UEFI variables; SeaBIOS is faster without. */
    bool smm = m->q35 && m->config.pflash[0];
    if (!machine_prop_bool(m, "smm", smm, &m->smm, error) ||
        !machine_prop_bool(m, "kernel-firmware", through_firmware, &through_firmware, error)) {
        return false;
    }
    m->direct_wanted = m->config.kernel && !through_firmware;
    return pc_memory(m, gap_at, split_at, error) &&
           (m->direct_wanted || pc_firmware(m, "bios-256k.bin", error)) && pc_cpus(m, error);
}

/* ---- drives ---- */

/* -hda to -hdd, -cdrom: two units on each of two channels, or a port each. */
static bool attach_drives(struct machine *m, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(m->config.ide); i++) {
        char bus[8];
        if (!m->config.ide[i]) {
            continue;
        }
        snprintf(bus, sizeof(bus), "ide.%u", m->q35 ? i : i / 2);
        if (!ata_attach(m->board, bus, m->q35 ? 0 : i % 2, m->config.ide[i], m->config.ide_is_cd[i],
                        error)) {
            return false;
        }
    }
    return true;
}

static bool floppies(struct machine *m, GError **error)
{
    static const char *const drives[] = {"driveA", "driveB"};
    bool any = false;
    for (unsigned i = 0; i < 2; i++) {
        any |= m->config.floppy[i] && (image_inserted(m->config.floppy[i]) || !m->q35);
    }
    if (!any || (!device_model_find("isa-fdc") && !image_inserted(m->config.floppy[0]))) {
        return true;
    }
    struct device *dev = pc_device_new("isa-fdc", error);
    for (unsigned i = 0; dev && i < 2; i++) {
        if (m->config.floppy[i] && !device_give(dev, drives[i], m->config.floppy[i], error)) {
            return false;
        }
    }
    return dev && device_start(dev, m->board, "fdc", error);
}

bool pc_drives(struct machine *m, GError **error)
{
    bool controller = m->q35 ? device_model_find("ich9-ahci") != NULL : true;
    if (controller && !pc_device(m, m->q35 ? "ich9-ahci" : "piix3-ide", "ide", error, "addr",
                                 m->q35 ? "1f.2" : "1.1", NULL)) {
        return false;
    }
    return attach_drives(m, error) && floppies(m, error);
}

/* ---- ISA devices ---- */

bool pc_connect_isa_irqs(struct machine *m, struct device *dev, GError **error)
{
    for (unsigned n = 0; n < 16; n++) {
        g_autofree char *wire = g_strdup_printf("irq%u", n);
        struct irq *line = m->board->isa_irq[n];
        if (line && !device_connect(dev, wire, WIRE_IRQ, line, error)) {
            return false;
        }
    }
    return true;
}

static bool on_irq(struct machine *m, const char *model, const char *path, unsigned irq,
                   GError **error)
{
    struct device *dev = pc_device_new(model, error);
    return dev && device_connect(dev, "irq", WIRE_IRQ, m->board->isa_irq[irq], error) &&
           device_start(dev, m->board, path, error);
}

static bool clock_and_timers(struct machine *m, GError **error)
{
    struct device *rtc = pc_device_new("mc146818rtc", error);
    if (!rtc || !device_connect(rtc, "irq", WIRE_IRQ, m->board->isa_irq[8], error) ||
        (m->config.rtc_base && !device_set(rtc, "base", m->config.rtc_base, error)) ||
        !device_start(rtc, m->board, "rtc", error)) {
        return false;
    }
    bool kernels = m->kvm && !m->split_irqchip;
    return kernels || on_irq(m, "i8254", "pit", 0, error);
}

static bool serial_ports(struct machine *m, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(m->config.serial); i++) {
        if (!m->config.serial[i]) {
            continue;
        }
        g_autofree char *index = g_strdup_printf("%u", i);
        g_autofree char *path = g_strdup_printf("serial%u", i);
        struct device *dev = pc_device_new("isa-serial", error);
        if (!dev || !device_set(dev, "index", index, error) ||
            !device_give(dev, "chardev", m->config.serial[i], error) ||
            !device_start(dev, m->board, path, error)) {
            return false;
        }
    }
    return true;
}

static bool parallel_port(struct machine *m, GError **error)
{
    if (!m->config.parallel[0]) {
        return true;
    }
    struct device *dev = pc_device_new("isa-parallel", error);
    return dev && device_set(dev, "index", "0", error) &&
           device_give(dev, "chardev", m->config.parallel[0], error) &&
           device_start(dev, m->board, "parallel0", error);
}

static bool keyboard(struct machine *m, GError **error)
{
    struct device *dev = pc_device_new("i8042", error);
    return dev && device_connect(dev, "irq", WIRE_IRQ, m->board->isa_irq[1], error) &&
           device_connect(dev, "irq-mouse", WIRE_IRQ, m->board->isa_irq[12], error) &&
           device_start(dev, m->board, "i8042", error);
}

bool pc_screen(struct machine *m, const char *addr, GError **error)
{
    const char *vga = m->config.vga ? m->config.vga : "none";
    if (g_str_equal(vga, "none")) {
        return true;
    }
    if (g_str_equal(vga, "virtio")) {
        return pc_device(m, "virtio-vga", "vga", error, "addr", addr, NULL);
    }
    if (!g_str_equal(vga, "std")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "-vga %s is not supported: std, virtio and none are",
                    vga);
        return false;
    }
    return pc_device(m, "VGA", "vga", error, "addr", addr, NULL);
}

static bool debug_port(struct machine *m, GError **error)
{
    if (!m->config.debugcon) {
        return true;
    }
    struct device *dev = pc_device_new("isa-debugcon", error);
    return dev && device_give(dev, "chardev", m->config.debugcon, error) &&
           device_start(dev, m->board, "debugcon", error);
}

/* The speaker is heard only where somebody listens; the kernel's own timer tells nobody. */
static bool speaker(struct machine *m, GError **error)
{
    const char *audio = machine_prop(m, "pcspk-audiodev", NULL);
    if (!audio) {
        return true;
    }
    if (!board_part(m->board, "pit")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "-M pcspk-audiodev=%s: not with the kernel's timer: add kernel-irqchip=split", audio);
        return false;
    }
    return pc_device(m, "pcspk", "pcspk", error, "audiodev", audio, NULL);
}

bool pc_isa_devices(struct machine *m, GError **error)
{
    bool hpet, vmport;
    if (!machine_prop_bool(m, "hpet", !m->config.no_hpet, &hpet, error) ||
        !machine_prop_bool(m, "vmport", true, &vmport, error)) {
        return false;
    }
    return clock_and_timers(m, error) && speaker(m, error) && serial_ports(m, error) &&
           parallel_port(m, error) && debug_port(m, error) &&
           keyboard(m, error) && (!vmport || pc_device(m, "vmport", "vmport", error, NULL)) &&
           pc_device(m, "fw_cfg", "fw_cfg", error, NULL) &&
           pc_device(m, "i8257", "dma", error, NULL) &&
           pc_device(m, "port92", "port92", error, NULL) &&
           (!hpet || pc_device(m, "hpet", "hpet", error, NULL));
}
