/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/dump.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/cpu/vcpu.h"
#include "guest/device/vmcoreinfo.h"
#include "guest/machine/machine.h"
#include "guest/memory/space.h"
#include "vmm/vm.h"

#include <elf.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/procfs.h>
#include <unistd.h>

/*
 * dump - the guest as a core file that crash(8) and gdb read
 *
 * A segment a stretch of memory that lies together in the guest and here, under its physical
 * address.  The notes are those of 64 bits whatever mode a CPU is in.  Each CPU has two notes:
 * "CORE" NT_PRSTATUS as the kernel writes it for a process, and "QEMU" with what a process does not
 * have.
 *
 * Spec: System V ABI, "Program Header", "Note Section"; QEMU, "dump-guest-memory" (the layout of
 * its note is known from its readers, crash and libkdumpfile).
 */
enum { SPANS_MAX = 4096, CHUNK = 1 << 20, NOTE_QEMU = 0, NOTE_VERSION = 1, VMCOREINFO_MAX = 1 << 16 };

struct note_segment {
    uint32_t selector, limit, flags, pad;
    uint64_t base;
};
struct note_cpu {
    uint32_t version, size;
    uint64_t gpr[16], rip, rflags; /* in the order of registers below */
    struct note_segment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
    uint64_t cr[5], kernel_gs_base;
};
static const uint8_t gpr_order[16] = {RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP,
                                      8,   9,   10,  11,  12,  13,  14,  15};

struct stretch {
    uint64_t at, bytes;
    const uint8_t *host;
};

static struct {
    int fd;
    GArray *stretches;
    GByteArray *head; /* all that comes before the memory */
    GThread *thread;
    _Atomic uint64_t completed;
    uint64_t total;
    enum dump_status status;
    int code;
    char *error;
} dump = {.fd = -1};

void (*dump_over)(void);

/* ---- memory ---- */

static void add_stretch(GArray *list, const struct span *s, const struct dump_part *part)
{
    uint64_t from = s->start, to = s->end;
    if (part->length) {
        from = MAX(from, part->begin);
        to = MIN(to, part->begin + part->length);
    }
    if (!s->host || from >= to) {
        return;
    }
    struct stretch new = {from, to - from, s->host + (from - s->start)};
    struct stretch *last = list->len ? &g_array_index(list, struct stretch, list->len - 1) : NULL;
    if (last && last->at + last->bytes == new.at && last->host + last->bytes == new.host) {
        last->bytes += new.bytes;
        return;
    }
    g_array_append_val(list, new);
}

static GArray *find_memory(const struct dump_part *part, GError **error)
{
    g_autofree struct span *spans = g_new(struct span, SPANS_MAX);
    unsigned n = space_spans(vm_board()->memory, spans, SPANS_MAX);
    GArray *list = g_array_new(FALSE, FALSE, sizeof(struct stretch));
    for (unsigned i = 0; i < MIN(n, SPANS_MAX); i++) {
        add_stretch(list, &spans[i], part);
    }
    if (!list->len || n > SPANS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    list->len ? "memory lies in too many pieces" : "dump: no guest memory there");
        g_array_unref(list);
        return NULL;
    }
    return list;
}

/* ---- notes ---- */

static void add_note(GByteArray *out, const char *name, uint32_t type, const void *desc, size_t n)
{
    static const uint8_t zero[4];
    Elf64_Nhdr head = {
        .n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = (uint32_t)n, .n_type = type};
    g_byte_array_append(out, (const uint8_t *)&head, sizeof(head));
    g_byte_array_append(out, (const uint8_t *)name, head.n_namesz);
    g_byte_array_append(out, zero, -out->len & 3);
    g_byte_array_append(out, desc, (guint)n);
    g_byte_array_append(out, zero, -out->len & 3);
}

static void add_prstatus(GByteArray *out, const struct vcpu *cpu)
{
    const struct regs *r = &cpu->r;
    struct elf_prstatus status = {0};
    const uint64_t regs[] = {r->gpr[15],
                             r->gpr[14],
                             r->gpr[13],
                             r->gpr[12],
                             r->gpr[RBP],
                             r->gpr[RBX],
                             r->gpr[11],
                             r->gpr[10],
                             r->gpr[9],
                             r->gpr[8],
                             r->gpr[RAX],
                             r->gpr[RCX],
                             r->gpr[RDX],
                             r->gpr[RSI],
                             r->gpr[RDI],
                             0,
                             r->rip,
                             r->seg[SEG_CS].selector,
                             r->rflags,
                             r->gpr[RSP],
                             r->seg[SEG_SS].selector,
                             r->seg[SEG_FS].base,
                             r->seg[SEG_GS].base,
                             r->seg[SEG_DS].selector,
                             r->seg[SEG_ES].selector,
                             r->seg[SEG_FS].selector,
                             r->seg[SEG_GS].selector};
    status.pr_pid = (int)cpu->index + 1;
    G_STATIC_ASSERT(sizeof(regs) == sizeof(status.pr_reg));
    memcpy(&status.pr_reg, regs, sizeof(regs));
    add_note(out, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

static struct note_segment segment(const struct segment *s)
{
    /* As in the second word of a descriptor: attributes from bit 8 on. */
    return (struct note_segment){.selector = s->selector,
                                 .limit = s->limit,
                                 .flags = (s->attr & 0xffff) << 8,
                                 .base = s->base};
}

static void add_cpu(GByteArray *out, const struct vcpu *cpu)
{
    const struct regs *r = &cpu->r;
    struct note_cpu c = {.version = NOTE_VERSION,
                         .size = sizeof(c),
                         .rip = r->rip,
                         .rflags = r->rflags,
                         .cs = segment(&r->seg[SEG_CS]),
                         .ds = segment(&r->seg[SEG_DS]),
                         .es = segment(&r->seg[SEG_ES]),
                         .fs = segment(&r->seg[SEG_FS]),
                         .gs = segment(&r->seg[SEG_GS]),
                         .ss = segment(&r->seg[SEG_SS]),
                         .ldt = segment(&r->ldt),
                         .tr = segment(&r->tr),
                         .gdt = {.limit = r->gdt.limit, .base = r->gdt.base},
                         .idt = {.limit = r->idt.limit, .base = r->idt.base},
                         .cr = {r->cr0, 0, r->cr2, r->cr3, r->cr4},
                         .kernel_gs_base = r->kernel_gs_base};
    for (unsigned i = 0; i < G_N_ELEMENTS(gpr_order); i++) {
        c.gpr[i] = r->gpr[gpr_order[i]];
    }
    add_note(out, "QEMU", NOTE_QEMU, &c, sizeof(c));
}

/* The kernel's own note, as it lies in guest memory: header, name, contents. */
static void add_vmcoreinfo(GByteArray *out)
{
    struct device *dev = board_part(vm_board(), "vmcoreinfo");
    Elf64_Nhdr head;
    uint64_t gpa;
    uint32_t n;
    if (!dev || !vmcoreinfo_note(dev, &gpa, &n) || n < sizeof(head) || n > VMCOREINFO_MAX) {
        return;
    }
    g_autofree uint8_t *note = g_malloc(n);
    if (!space_read(vm_board()->memory, gpa, note, n)) {
        return;
    }
    memcpy(&head, note, sizeof(head));
    uint64_t name = ((uint64_t)head.n_namesz + 3) & ~UINT64_C(3);
    if (head.n_namesz != sizeof("VMCOREINFO") || sizeof(head) + name + head.n_descsz > n ||
        memcmp(note + sizeof(head), "VMCOREINFO", head.n_namesz) != 0) {
        return; /* what a guest says is looked at before it is believed */
    }
    add_note(out, "VMCOREINFO", head.n_type, note + sizeof(head) + name, head.n_descsz);
}

/* ---- the head of the file ---- */

static GByteArray *make_head(const GArray *stretches)
{
    GByteArray *out = g_byte_array_new(), *notes = g_byte_array_new();
    unsigned n = stretches->len + 1;
    for (unsigned i = 0; vcpu_at(i); i++) {
        add_prstatus(notes, vcpu_at(i));
    }
    for (unsigned i = 0; vcpu_at(i); i++) {
        add_cpu(notes, vcpu_at(i));
    }
    add_vmcoreinfo(notes);
    Elf64_Ehdr file = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (uint16_t)n};
    uint64_t at = sizeof(file) + n * sizeof(Elf64_Phdr);
    Elf64_Phdr note = {
        .p_type = PT_NOTE, .p_offset = at, .p_filesz = notes->len, .p_memsz = notes->len};
    g_byte_array_append(out, (const uint8_t *)&file, sizeof(file));
    g_byte_array_append(out, (const uint8_t *)&note, sizeof(note));
    at += notes->len;
    for (unsigned i = 0; i < stretches->len; i++) {
        const struct stretch *s = &g_array_index(stretches, struct stretch, i);
        Elf64_Phdr load = {.p_type = PT_LOAD,
                           .p_offset = at,
                           .p_vaddr = s->at,
                           .p_paddr = s->at,
                           .p_filesz = s->bytes,
                           .p_memsz = s->bytes};
        g_byte_array_append(out, (const uint8_t *)&load, sizeof(load));
        at += s->bytes;
    }
    g_byte_array_append(out, notes->data, notes->len);
    g_byte_array_unref(notes);
    return out;
}

/* ---- writing ---- */

static int write_all(const uint8_t *from, uint64_t n)
{
    while (n) {
        ssize_t k = write(dump.fd, from, MIN(n, CHUNK));
        if (k < 0 && errno != EINTR) {
            return errno;
        }
        from += MAX(k, 0);
        n -= (uint64_t)MAX(k, 0);
        dump.completed += (uint64_t)MAX(k, 0);
    }
    return 0;
}

static gpointer write_dump(gpointer unused)
{
    (void)unused;
    dump.code = write_all(dump.head->data, dump.head->len);
    dump.completed = 0; /* counts memory */
    for (unsigned i = 0; i < dump.stretches->len && !dump.code; i++) {
        const struct stretch *s = &g_array_index(dump.stretches, struct stretch, i);
        dump.code = write_all(s->host, s->bytes);
    }
    return NULL;
}

static gboolean finish(gpointer unused)
{
    (void)unused;
    g_clear_pointer(&dump.thread, g_thread_join);
    if (close(g_steal_fd(&dump.fd)) != 0 && !dump.code) {
        dump.code = errno;
    }
    g_clear_pointer(&dump.stretches, g_array_unref);
    g_clear_pointer(&dump.head, g_byte_array_unref);
    dump.status = dump.code ? DUMP_FAILED : DUMP_COMPLETED;
    dump.error = dump.code
                     ? g_strdup_printf("dump: failed to save memory: %s", g_strerror(dump.code))
                     : NULL;
    vm_release();
    if (dump_over) {
        dump_over();
    }
    return G_SOURCE_REMOVE;
}

static gpointer write_detached(gpointer unused)
{
    write_dump(unused);
    g_idle_add(finish, NULL);
    return NULL;
}

bool dump_start(int fd, const struct dump_part *part, bool detach, GError **error)
{
    autofd int own = fd;
    if (dump.status == DUMP_ACTIVE) {
        g_set_error(error, LODGE_ERROR, EBUSY, "There is a dump in process, please wait.");
        return false;
    }
    GArray *stretches = find_memory(part, error);
    if (!stretches) {
        return false;
    }
    vm_hold();
    g_clear_pointer(&dump.error, g_free);
    dump.fd = g_steal_fd(&own);
    dump.status = DUMP_ACTIVE;
    dump.stretches = stretches;
    dump.head = make_head(stretches);
    dump.completed = 0;
    dump.total = 0;
    dump.code = 0;
    for (unsigned i = 0; i < stretches->len; i++) {
        dump.total += g_array_index(stretches, struct stretch, i).bytes;
    }
    if (detach) {
        dump.thread = g_thread_new("dump", write_detached, NULL);
        return true;
    }
    write_dump(NULL);
    finish(NULL);
    if (dump.error) {
        g_set_error(error, LODGE_ERROR, dump.code, "%s", dump.error);
    }
    return !dump.error;
}

struct dump_view dump_view(void)
{
    return (struct dump_view){dump.status, dump.completed, dump.total, dump.error};
}
