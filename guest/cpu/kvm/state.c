/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * state - struct regs to KVM and back
 *
 * Spec: KVM API documentation, "KVM_SET_REGS", "KVM_SET_SREGS", "KVM_SET_MSRS",
 * "KVM_SET_XSAVE", "KVM_SET_VCPU_EVENTS", "KVM_SET_MP_STATE", "KVM_SET_DEBUGREGS".
 */
#include "guest/cpu/kvm/kvm.h"

#include "guest/cpu/models.h"

#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum { MSR_DEBUGCTL = 0x1d9 };

/* MSRs that travel; one that this kernel does not know is left out when it first fails. */
static const struct {
    uint32_t index;
    uint16_t slot; /* offsetof() in struct regs */
} msrs[] = {
#define M(index, field)                                                                            \
    {                                                                                              \
        index, offsetof(struct regs, field)                                                        \
    }
    M(0x174, sysenter_cs),
    M(0x175, sysenter_esp),
    M(0x176, sysenter_eip),
    M(0xc0000081, star),
    M(0xc0000082, lstar),
    M(0xc0000083, cstar),
    M(0xc0000084, fmask),
    M(0xc0000102, kernel_gs_base),
    M(0xc0000103, tsc_aux),
    M(0x277, pat),
    M(0x2ff, mtrr_def_type),
    M(0x250, mtrr_fixed[0]),
    M(0x258, mtrr_fixed[1]),
    M(0x259, mtrr_fixed[2]),
    M(0x268, mtrr_fixed[3]),
    M(0x269, mtrr_fixed[4]),
    M(0x26a, mtrr_fixed[5]),
    M(0x26b, mtrr_fixed[6]),
    M(0x26c, mtrr_fixed[7]),
    M(0x26d, mtrr_fixed[8]),
    M(0x26e, mtrr_fixed[9]),
    M(0x26f, mtrr_fixed[10]),
    M(0x200, mtrr_base[0]),
    M(0x201, mtrr_mask[0]),
    M(0x202, mtrr_base[1]),
    M(0x203, mtrr_mask[1]),
    M(0x204, mtrr_base[2]),
    M(0x205, mtrr_mask[2]),
    M(0x206, mtrr_base[3]),
    M(0x207, mtrr_mask[3]),
    M(0x208, mtrr_base[4]),
    M(0x209, mtrr_mask[4]),
    M(0x20a, mtrr_base[5]),
    M(0x20b, mtrr_mask[5]),
    M(0x20c, mtrr_base[6]),
    M(0x20d, mtrr_mask[6]),
    M(0x20e, mtrr_base[7]),
    M(0x20f, mtrr_mask[7]),
    M(0x1a0, misc_enable),
    M(0x3a, feature_control),
    M(0x9e, smbase),
    M(0x48, spec_ctrl),
    M(MSR_DEBUGCTL, debugctl),
    M(0x4b564d00, kvm_wall_clock),
    M(0x4b564d01, kvm_system_time),
    M(0x4b564d02, kvm_async_pf),
    M(0x4b564d03, kvm_steal_time),
    M(0x4b564d04, kvm_eoi),
    M(0x4b564d05, kvm_poll),
#undef M
};
static bool msr_refused[G_N_ELEMENTS(msrs)];

static uint64_t *msr_field(struct regs *r, unsigned i)
{
    return (uint64_t *)((char *)r + msrs[i].slot);
}

/* One at a time: a list stops at the first that the kernel refuses. */
static void msr_one(struct vcpu *cpu, uint32_t index, uint64_t *value, bool set, bool *refused)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry = {.index = index, .data = *value}};
    if (kvm_vcpu_ioctl(cpu, set ? KVM_SET_MSRS : KVM_GET_MSRS, &one) != 1) {
        *refused = true;
    } else if (!set) {
        *value = one.entry.data;
    }
}

static void move_msrs(struct vcpu *cpu, bool set)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(msrs); i++) {
        /* Writing even 0 to DEBUGCTL makes a kernel that does not have it complain in its log. */
        bool idle = set && msrs[i].index == MSR_DEBUGCTL && !cpu->r.debugctl;
        if (!msr_refused[i] && !idle) {
            msr_one(cpu, msrs[i].index, msr_field(&cpu->r, i), set, &msr_refused[i]);
        }
    }
    /* The guest's TSC goes over as its value now. */
    bool refused = false;
    uint64_t tsc = vcpu_tsc(cpu);
    if (set) {
        msr_one(cpu, 0x10, &tsc, true, &refused);
    } else {
        uint64_t theirs = tsc;
        msr_one(cpu, 0x10, &theirs, false, &refused);
        cpu->r.tsc_offset += refused ? 0 : theirs - tsc;
    }
}

static struct kvm_segment seg_to(const struct segment *s)
{
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = s->attr & SEG_TYPE,
                                .s = !!(s->attr & SEG_S),
                                .dpl = (s->attr >> SEG_DPL_SHIFT) & 3,
                                .present = !!(s->attr & SEG_P),
                                .avl = (s->attr >> 12) & 1,
                                .l = !!(s->attr & SEG_L),
                                .db = !!(s->attr & SEG_DB),
                                .g = !!(s->attr & SEG_G),
                                .unusable = !!(s->attr & SEG_UNUSABLE) || !(s->attr & SEG_P)};
}

static struct segment seg_from(const struct kvm_segment *k)
{
    uint32_t attr = (uint32_t)(k->type | k->s << 4 | k->dpl << SEG_DPL_SHIFT | k->present << 7 |
                               k->avl << 12 | k->l << 13 | k->db << 14 | k->g << 15);
    return (struct segment){.base = k->base,
                            .limit = k->limit,
                            .selector = k->selector,
                            .attr = attr | (k->unusable ? SEG_UNUSABLE : 0)};
}

/* KVM's order of general registers is not the instruction encoding's. */
#define GPRS(X)                                                                                    \
    X(rax, RAX)                                                                                    \
    X(rbx, RBX) X(rcx, RCX) X(rdx, RDX) X(rsi, RSI) X(rdi, RDI) X(rsp, RSP) X(rbp, RBP) X(r8, R8)  \
        X(r9, R9) X(r10, R10) X(r11, R11) X(r12, R12) X(r13, R13) X(r14, R14) X(r15, R15)
#define SEGS(X)                                                                                    \
    X(es, seg[SEG_ES])                                                                             \
    X(cs, seg[SEG_CS]) X(ss, seg[SEG_SS]) X(ds, seg[SEG_DS]) X(fs, seg[SEG_FS]) X(gs, seg[SEG_GS]) \
        X(ldt, ldt) X(tr, tr)

static void push_sregs(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    struct kvm_sregs s;
    kvm_vcpu_ioctl(cpu, KVM_GET_SREGS, &s); /* keeps the interrupt bitmap */
#define X(k, f) s.k = seg_to(&r->f);
    SEGS(X)
#undef X
    s.gdt = (struct kvm_dtable){.base = r->gdt.base, .limit = r->gdt.limit};
    s.idt = (struct kvm_dtable){.base = r->idt.base, .limit = r->idt.limit};
    s.cr0 = r->cr0, s.cr2 = r->cr2, s.cr3 = r->cr3, s.cr4 = r->cr4, s.cr8 = r->cr8;
    s.efer = r->efer;
    s.apic_base = r->apic_base;
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    if (r->event_pending && r->event_vector >= 32) {
        s.interrupt_bitmap[r->event_vector / 64] = UINT64_C(1) << (r->event_vector % 64);
    }
    kvm_vcpu_ioctl(cpu, KVM_SET_SREGS, &s);
}

static void pull_sregs(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    struct kvm_sregs s;
    kvm_vcpu_ioctl(cpu, KVM_GET_SREGS, &s);
#define X(k, f) r->f = seg_from(&s.k);
    SEGS(X)
#undef X
    r->gdt = (struct table_register){.base = s.gdt.base, .limit = s.gdt.limit};
    r->idt = (struct table_register){.base = s.idt.base, .limit = s.idt.limit};
    r->cr0 = s.cr0, r->cr2 = s.cr2, r->cr3 = s.cr3, r->cr4 = s.cr4, r->cr8 = s.cr8;
    r->efer = s.efer;
    r->apic_base = s.apic_base;
}

static void push_events(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    struct kvm_vcpu_events e = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
                 (kvm_has(KVM_CAP_X86_SMM) ? KVM_VCPUEVENT_VALID_SMM : 0),
        .nmi = {.masked = r->nmi_blocked},
        .interrupt = {.shadow = (r->shadow & SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) |
                                (r->shadow & SHADOW_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0)},
        .smi = {.smm = r->in_smm},
    };
    if (r->event_pending && r->event_vector == VEC_NMI) {
        e.nmi.injected = 1;
    } else if (r->event_pending && r->event_vector < 32) {
        e.exception.injected = 1;
        e.exception.nr = r->event_vector;
        e.exception.has_error_code = r->event_has_code;
        e.exception.error_code = r->event_code;
    } else if (r->event_pending) {
        e.interrupt.injected = 1;
        e.interrupt.nr = r->event_vector;
        e.interrupt.soft = r->event_soft;
    }
    kvm_vcpu_ioctl(cpu, KVM_SET_VCPU_EVENTS, &e);
    struct kvm_mp_state mp = {.mp_state = r->wait_sipi ? KVM_MP_STATE_UNINITIALIZED
                                          : r->halted  ? KVM_MP_STATE_HALTED
                                                       : KVM_MP_STATE_RUNNABLE};
    kvm_vcpu_ioctl(cpu, KVM_SET_MP_STATE, &mp);
}

static void pull_events(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    struct kvm_vcpu_events e = {0};
    struct kvm_mp_state mp = {0};
    kvm_vcpu_ioctl(cpu, KVM_GET_VCPU_EVENTS, &e);
    kvm_vcpu_ioctl(cpu, KVM_GET_MP_STATE, &mp);
    r->nmi_blocked = e.nmi.masked;
    r->in_smm = e.smi.smm;
    r->shadow = (uint8_t)((e.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : 0) |
                          (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOV_SS : 0));
    r->event_pending = e.exception.injected || e.interrupt.injected || e.nmi.injected;
    r->event_vector = e.exception.injected ? e.exception.nr
                      : e.nmi.injected     ? VEC_NMI
                                           : e.interrupt.nr;
    /* What has arrived and is held off is asked for again: the next push forgets it. */
    vcpu_request(cpu, (e.nmi.pending ? REQ_NMI : 0) | (e.smi.pending ? REQ_SMI : 0));
    r->event_has_code = e.exception.injected && e.exception.has_error_code;
    r->event_code = e.exception.error_code;
    r->event_soft = !e.exception.injected && e.interrupt.injected && e.interrupt.soft;
    r->halted = mp.mp_state == KVM_MP_STATE_HALTED;
    r->wait_sipi =
        mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED;
}

static void move_fpu(struct vcpu *cpu, bool set)
{
    union {
        struct kvm_xsave xsave;
        uint8_t bytes[4096];
    } area = {0};
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = cpu->r.xcr0}}};
    if (set) {
        memcpy(area.bytes, cpu->r.xsave, XSAVE_BYTES);
        kvm_vcpu_ioctl(cpu, KVM_SET_XCRS, &xcrs);
        kvm_vcpu_ioctl(cpu, KVM_SET_XSAVE, &area);
        return;
    }
    if (kvm_vcpu_ioctl(cpu, KVM_GET_XCRS, &xcrs) >= 0 && xcrs.nr_xcrs) {
        cpu->r.xcr0 = xcrs.xcrs[0].value;
    }
    if (kvm_vcpu_ioctl(cpu, KVM_GET_XSAVE, &area) >= 0) {
        memcpy(cpu->r.xsave, area.bytes, XSAVE_BYTES);
    }
}

static void move_debug_registers(struct vcpu *cpu, bool set)
{
    struct regs *r = &cpu->r;
    struct kvm_debugregs d = {.dr6 = r->dr[6], .dr7 = r->dr[7]};
    memcpy(d.db, r->dr, sizeof(d.db));
    kvm_vcpu_ioctl(cpu, set ? KVM_SET_DEBUGREGS : KVM_GET_DEBUGREGS, &d);
    memcpy(r->dr, d.db, sizeof(d.db));
    r->dr[6] = d.dr6;
    r->dr[7] = d.dr7;
}

enum { CPUS_MAX = 256 };
static struct {
    void (*push)(void *owner);
    void *owner;
} after_push[CPUS_MAX];

_Atomic unsigned kvm_apics_due;

void kvm_on_push(unsigned index, void (*push)(void *owner), void *owner)
{
    g_assert(index < CPUS_MAX);
    after_push[index].push = push;
    after_push[index].owner = owner;
}

void kvm_gprs(struct vcpu *cpu, bool push)
{
    struct kvm_regs k;
    kvm_vcpu_ioctl(cpu, KVM_GET_REGS, &k);
#define X(k_, r_)                                                                                  \
    if (push) {                                                                                    \
        k.k_ = cpu->r.gpr[r_];                                                                     \
    } else {                                                                                       \
        cpu->r.gpr[r_] = k.k_;                                                                     \
    }
    GPRS(X)
#undef X
    if (push) {
        kvm_vcpu_ioctl(cpu, KVM_SET_REGS, &k);
    }
}

void kvm_push(struct vcpu *cpu)
{
    struct kvm_regs k;
#define X(k_, r_) k.k_ = cpu->r.gpr[r_];
    GPRS(X)
#undef X
    k.rip = cpu->r.rip;
    k.rflags = cpu->r.rflags;
    push_sregs(cpu);
    kvm_vcpu_ioctl(cpu, KVM_SET_REGS, &k);
    move_fpu(cpu, true);
    move_msrs(cpu, true);
    move_debug_registers(cpu, true);
    if (after_push[cpu->index].push) {
        after_push[cpu->index].push(after_push[cpu->index].owner);
    }
    push_events(cpu);
    /* A guest that asked for it is told that it stood still: no soft lockup. */
    kvm_vcpu_ioctl(cpu, KVM_KVMCLOCK_CTRL, NULL);
}

void kvm_pull(struct vcpu *cpu)
{
    struct kvm_regs k;
    kvm_vcpu_ioctl(cpu, KVM_GET_REGS, &k);
#define X(k_, r_) cpu->r.gpr[r_] = k.k_;
    GPRS(X)
#undef X
    cpu->r.rip = k.rip;
    cpu->r.rflags = k.rflags;
    pull_sregs(cpu);
    move_fpu(cpu, false);
    move_msrs(cpu, false);
    move_debug_registers(cpu, false);
    pull_events(cpu);
}

/* ---- CPUID ---- */

enum { CPUID_MAX = 256 };

/* What KVM can give, or NULL; caller frees. */
static struct kvm_cpuid2 *supported(void)
{
    struct kvm_cpuid2 *can = g_malloc0(sizeof(*can) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2));
    can->nent = CPUID_MAX;
    if (ioctl(kvm_fd(), KVM_GET_SUPPORTED_CPUID, can) < 0) {
        g_clear_pointer(&can, g_free);
    }
    return can;
}

bool kvm_features(uint32_t words[])
{
    static const uint32_t deadline = 1u << 24, hypervisor = 1u << 31; /* of leaf 1, ECX */
    g_autofree struct kvm_cpuid2 *can = kvm_fd() < 0 ? NULL : supported();
    for (unsigned w = 0; can && w < CPUID_WORDS; w++) {
        uint32_t leaf, subleaf;
        unsigned reg;
        cpuid_word_at((enum cpuid_word)w, &leaf, &subleaf, &reg);
        words[w] = 0;
        for (unsigned i = 0; i < can->nent; i++) {
            const struct kvm_cpuid_entry2 *e = &can->entries[i];
            const uint32_t regs[] = {e->eax, e->ebx, e->ecx, e->edx};
            if (e->function == leaf && e->index == subleaf) {
                words[w] = regs[reg];
            }
        }
    }
    if (can && kvm_has(KVM_CAP_TSC_DEADLINE_TIMER)) {
        words[CPUID_1_ECX] |= deadline; /* the in-kernel APIC's */
    }
    if (can) {
        words[CPUID_1_ECX] |= hypervisor; /* which KVM leaves to its user to say */
    }
    return can != NULL;
}

/* The model holds no feature that KVM lacks; what it does not know at all is KVM's business. */
static struct cpuid_regs shown(const struct cpu_model *model, const struct kvm_cpuid_entry2 *e,
                               struct cpuid_regs m)
{
    struct cpuid_regs theirs = {e->eax, e->ebx, e->ecx, e->edx};
    switch (e->function) {
    case 7:
        m.eax = e->index ? m.eax : MIN(m.eax, e->eax);
        return m;
    case 0xd: /* sizes of the XSAVE area */
        return theirs;
    case 0x40000000:
        return model->kvm_pv ? theirs : (struct cpuid_regs){0};
    case 0x40000001:
        theirs.eax &= model->words[CPUID_KVM_EAX];
        return model->kvm_pv ? theirs : (struct cpuid_regs){0};
    case 0x8000000a: /* what its SVM can do */
        return model->offers[FEAT_SVM] ? theirs : (struct cpuid_regs){0};
    default:
        return m;
    }
}

bool kvm_set_cpuid(struct kvm_vcpu *v, GError **error)
{
    g_autofree struct kvm_cpuid2 *can = supported();
    if (!can) {
        error_set_errno(error, errno, "KVM_GET_SUPPORTED_CPUID");
        return false;
    }
    for (unsigned i = 0; i < can->nent; i++) {
        struct kvm_cpuid_entry2 *e = &can->entries[i];
        struct cpuid_regs r = shown(v->cpu->model, e, cpu_cpuid(v->cpu, e->function, e->index));
        e->eax = r.eax, e->ebx = r.ebx, e->ecx = r.ecx, e->edx = r.edx;
    }
    if (ioctl(v->fd, KVM_SET_CPUID2, can) < 0) {
        error_set_errno(error, errno, "KVM_SET_CPUID2");
        return false;
    }
    return true;
}
