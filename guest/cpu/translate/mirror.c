/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mirror: a process's mappings as the guest's page tables have them.
 *
 * Guest memory is in files (memfd), so a page of it can be mapped anywhere.  What is mapped are
 * pages that the program may use without anybody hearing of it: present, for users, with A set
 * and for writing D, without page flags.  All else is a fault there, and comes to us.
 *
 * It is compared with the page tables again after each flush of the TLB, area by area (2 MiB, a
 * page of page-table entries).  A page is executable there only if it cannot be written to and
 * stops before each instruction that would show the host's processor instead of the guest's:
 * there are four breakpoint registers, and who needs them last has them.
 *
 * Spec: Intel SDM, volume 3A, "4-Level Paging and 5-Level Paging"; volume 2, the instructions.
 */
#include "guest/cpu/translate/direct.h"

#include <string.h>
#include <sys/mman.h>

enum {
    AREA_PAGES = 512,
    AREAS = 2048 /* hashed; a power of two */,
    AREAS_MOST = AREAS / 2,
    MAPS_MOST = 40000 /* Linux allows 65,530 */
};
enum { P = 1, RW = 2, US = 4, A = 1 << 5, D = 1 << 6, PS = 1 << 7 };
#define NX         (UINT64_C(1) << 63)
#define FRAME      UINT64_C(0x000ffffffffff000)
#define USER_LEAST UINT64_C(0x10000) /* what a host lets be mapped */
#define USER_MOST  (TRACEE_END - 1)

#define ANEW UINT64_MAX /* an entry of a page table that says so is looked at each time */

/* Bits of a shown page, below its host address. */
enum { SHOW = 1, SHOW_WRITE = 2, SHOW_EXEC = 4 };

struct area {
    struct area *next;          /* of all */
    uint64_t number;            /* linear >> 21, plus 1; 0: free */
    uint32_t seen;              /* by which sync; 0: it is empty */
    unsigned shown;             /* pages */
    bool large;                 /* one page of the guest's */
    uint64_t above;             /* as in effective(), when last compared */
    unsigned forgotten;         /* mirror_forget_writes() up to then */
    uint64_t raw[AREA_PAGES];   /* the table, when last compared; ANEW: to be looked at again */
    uint64_t entry[AREA_PAGES]; /* what of it decided */
    uint64_t page[AREA_PAGES];  /* what is mapped: host address | SHOW_*; or 0 */
};

struct file {
    uint8_t *host;
    uint64_t bytes;
};

/* Neighbours that are mapped alike. */
struct run {
    uint64_t linear, bytes;
    uint64_t page; /* of the first; 0: they go */
};

struct mirror {
    struct tracee *tracee;
    struct file file[TRACEE_FILES];
    unsigned n_files, n_areas, maps;
    unsigned shown, gone; /* pages; those that went in the sync in hand */
    uint32_t turn;
    struct run run;
    uint64_t watch[TRACEE_BREAKS]; /* instructions with a breakpoint; 0: free */
    unsigned next_watch;
    struct area *areas;
    struct area *area[AREAS];
};

static uint64_t *writable;         /* a bit a page of the pool */
static _Atomic unsigned forgotten; /* moves when one of them goes */

bool mirror_open(void)
{
    void *p = mmap(NULL, (ram_pool_size >> PAGE_BITS) / 8, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    writable = p == MAP_FAILED ? NULL : p;
    return writable;
}

bool mirror_forget_writes(const void *host_page)
{
    size_t n = ram_page_index(host_page);
    uint64_t bit = UINT64_C(1) << n % 64;
    bool had = (__atomic_load_n(&writable[n / 64], __ATOMIC_SEQ_CST) & bit) &&
               (__atomic_fetch_and(&writable[n / 64], ~bit, __ATOMIC_SEQ_CST) & bit);
    if (had) {
        atomic_fetch_add(&forgotten, 1);
    }
    return had;
}

struct mirror *mirror_new(void)
{
    struct mirror *m = g_try_new0(struct mirror, 1);
    int fds[TRACEE_FILES];
    for (unsigned i = 0; m && ram_at(i); i++) {
        const struct ram *ram = ram_at(i);
        for (unsigned k = 0; k < ram->n_parts && m->n_files < TRACEE_FILES; k++) {
            const struct ram_part *part = &ram->parts[k];
            if (part->fd >= 0 && part->page == PAGE_SIZE && !ram->read_only) {
                fds[m->n_files] = part->fd;
                m->file[m->n_files++] = (struct file){ram->host + part->at, part->bytes};
            }
        }
    }
    m = m && m->n_files && (m->tracee = tracee_new(fds, m->n_files)) ? m : (g_free(m), NULL);
    return m;
}

void mirror_free(struct mirror *m)
{
    tracee_free(m->tracee);
    for (unsigned k = 0; k < AREAS; k++) {
        g_free(m->area[k]);
    }
    g_free(m);
}

struct tracee *mirror_tracee(const struct mirror *m)
{
    return m->tracee;
}

/* ---- what a page may show ---- */

/*
 * Instructions that show the host's processor or save more than the guest's has.  Any bytes that
 * look like one count; one that lies across two pages does not.
 */
static bool tells(const uint8_t *at)
{
    unsigned modrm = at[2], reg = modrm >> 3 & 7;
    bool mem = modrm < 0xc0;
    switch (at[1]) {
    case 0x01:
        return modrm == 0xd0 || modrm == 0xf9; /* XGETBV; RDTSCP, which has RDPID's number, too */
    case 0x03:
        return !mem; /* LSL, which tells the number of the processor */
    case 0x34:       /* SYSENTER, from which the host does not come back to where it was */
    case 0xa2:       /* CPUID */
        return true;
    case 0xae:
        return mem && (reg == 4 || reg == 6); /* XSAVE, XSAVEOPT */
    case 0xc7:
        return mem ? reg == 4 : reg == 7; /* XSAVEC; RDPID */
    default:
        return false;
    }
}

/* Where such instructions are; if there are more than can be watched, that and one. */
static unsigned find_telling(const uint8_t *page, uint16_t found[TRACEE_BREAKS])
{
    const uint8_t *end = page + PAGE_SIZE - 2;
    unsigned n = 0;
    for (const uint8_t *at = page; (at = memchr(at, 0x0f, (size_t)(end - at))); at++) {
        if (tells(at) && n++ < TRACEE_BREAKS) {
            found[n - 1] = (uint16_t)(at - page);
        }
        if (n > TRACEE_BREAKS) {
            break;
        }
    }
    return n;
}

/* The host page of guest memory that has a file behind it, or NULL. */
static uint8_t *page_at(struct vcpu *cpu, uint64_t gpa)
{
    struct span v = space_find(cpu->memory, gpa);
    return v.host && v.writable && v.start <= gpa && v.end - gpa >= PAGE_SIZE
               ? v.host + (gpa - v.start)
               : NULL;
}

static const struct file *file_of(const struct mirror *m, const uint8_t *host, unsigned *number)
{
    for (unsigned k = 0; k < m->n_files; k++) {
        const struct file *f = &m->file[k];
        if (host >= f->host && host < f->host + f->bytes) {
            *number = k;
            return f;
        }
    }
    return NULL;
}

/*
 * May it be written to without anybody hearing of it?  Who gives the page a flag sees the bit
 * afterwards, or this sees the flag.
 */
static bool may_write(const uint8_t *host)
{
    size_t n = ram_page_index(host);
    uint64_t bit = UINT64_C(1) << n % 64;
    if (!(__atomic_load_n(&writable[n / 64], __ATOMIC_SEQ_CST) & bit)) {
        __atomic_fetch_or(&writable[n / 64], bit, __ATOMIC_SEQ_CST);
    }
    return !ram_flags(host);
}

static uint64_t shown_for(struct mirror *m, struct vcpu *cpu, uint64_t entry)
{
    unsigned number;
    uint8_t *host = page_at(cpu, entry & FRAME);
    if (!host || !file_of(m, host, &number) || (ram_flags(host) & PAGE_WATCH)) {
        return 0;
    }
    bool write = (entry & RW) && (entry & D);
    uint16_t at[TRACEE_BREAKS];
    bool exec = !(entry & NX) && !(entry & RW) && !find_telling(host, at);
    return (uint64_t)host | SHOW | (write && may_write(host) ? SHOW_WRITE : 0) |
           (exec ? SHOW_EXEC : 0);
}

/* ---- mapping ---- */

static bool end_run(struct mirror *m)
{
    struct run r = m->run;
    unsigned number;
    m->run.bytes = 0;
    if (!r.bytes) {
        return true;
    }
    if (!r.page) {
        return tracee_unmap(m->tracee, r.linear, r.bytes);
    }
    uint8_t *host = (uint8_t *)(r.page & PAGE_MASK);
    const struct file *f = file_of(m, host, &number);
    unsigned prot =
        PROT_READ | (r.page & SHOW_WRITE ? PROT_WRITE : 0) | (r.page & SHOW_EXEC ? PROT_EXEC : 0);
    return f && ++m->maps < MAPS_MOST &&
           tracee_map(m->tracee, r.linear, r.bytes, number, (uint64_t)(host - f->host), prot);
}

/* From now on @linear shows @page. */
static bool change(struct mirror *m, uint64_t linear, uint64_t page)
{
    struct run *r = &m->run;
    bool next = r->bytes && r->linear + r->bytes == linear &&
                (r->page ? page == r->page + r->bytes : !page);
    if (next) {
        unsigned a, b;
        next = !page || file_of(m, (uint8_t *)(r->page & PAGE_MASK), &a) ==
                            file_of(m, (uint8_t *)(page & PAGE_MASK), &b);
    }
    if (!next) {
        if (!end_run(m)) {
            return false;
        }
        *r = (struct run){.linear = linear, .page = page};
    }
    r->bytes += PAGE_SIZE;
    return true;
}

static bool is_home(uint64_t linear)
{
    return linear - TRACEE_HOME < TRACEE_BYTES || linear < USER_LEAST || linear > USER_MOST;
}

static uint64_t linear_of(const struct area *a, unsigned k)
{
    return ((a->number - 1) << 21) + (uint64_t)k * PAGE_SIZE;
}

static bool show(struct mirror *m, struct area *a, unsigned k, uint64_t page)
{
    uint64_t linear = linear_of(a, k);
    if (a->page[k] == page || is_home(linear)) {
        return true;
    }
    a->shown += (page != 0) - (unsigned)(a->page[k] != 0);
    m->shown += (page != 0) - (unsigned)(a->page[k] != 0);
    m->gone += a->page[k] && (a->page[k] ^ page) >> PAGE_BITS;
    a->page[k] = page;
    return change(m, linear, page);
}

/* ---- areas ---- */

static struct area **find_area(struct mirror *m, uint64_t linear)
{
    uint64_t number = (linear >> 21) + 1;
    uint64_t h = number * UINT64_C(0x9e3779b97f4a7c15) >> 53;
    while (m->area[h % AREAS] && m->area[h % AREAS]->number != number) {
        h++;
    }
    return &m->area[h % AREAS];
}

static struct area *get_area(struct mirror *m, uint64_t linear)
{
    struct area **a = find_area(m, linear);
    if (!*a && m->n_areas < AREAS_MOST && (*a = g_try_new0(struct area, 1))) {
        (*a)->number = (linear >> 21) + 1;
        (*a)->next = m->areas;
        m->areas = *a;
        m->n_areas++;
    }
    return *a;
}

/* ---- breakpoints ---- */

static void unwatch(struct mirror *m, uint64_t linear)
{
    for (unsigned n = 0; n < TRACEE_BREAKS; n++) {
        if (m->watch[n] && !((m->watch[n] ^ linear) >> PAGE_BITS)) {
            m->watch[n] = 0;
            tracee_break(m->tracee, n, 0);
        }
    }
}

/* The page that has breakpoint @n cannot be executed any more. */
static bool take_watch(struct mirror *m, unsigned n)
{
    uint64_t linear = m->watch[n];
    if (!linear) {
        return true;
    }
    struct area *a = *find_area(m, linear);
    unsigned k = linear >> PAGE_BITS & 511;
    unwatch(m, linear);
    return !a || !a->page[k] || show(m, a, k, a->page[k] & ~(uint64_t)SHOW_EXEC);
}

/* A page that holds what tells becomes executable, if there are breakpoints enough for it. */
static bool watch(struct mirror *m, struct area *a, unsigned k)
{
    uint64_t page = a->page[k], linear = linear_of(a, k);
    uint16_t at[TRACEE_BREAKS];
    if (!page || (page & SHOW_EXEC) || (a->entry[k] & (NX | RW))) {
        return true;
    }
    unsigned n = find_telling((uint8_t *)(page & PAGE_MASK), at);
    for (unsigned i = 0; n <= TRACEE_BREAKS && i < n; i++) {
        unsigned slot = m->next_watch++ % TRACEE_BREAKS;
        if (!take_watch(m, slot)) {
            return false;
        }
        if (!tracee_break(m->tracee, slot, linear + at[i])) { /* others have them all */
            unwatch(m, linear);
            return end_run(m);
        }
        m->watch[slot] = linear + at[i];
    }
    return (n > TRACEE_BREAKS || show(m, a, k, page | SHOW_EXEC)) && end_run(m);
}

/* ---- comparing ---- */

/* What of an entry decides, with the rights @above of the levels above it. */
static uint64_t effective(uint64_t entry, uint64_t above)
{
    if (!(entry & P) || !(entry & A) || !(entry & above & US)) {
        return 0;
    }
    return (entry & (FRAME | P | D)) | (entry & above & RW) | ((entry | above) & NX);
}

static bool look_at_page(struct mirror *m, struct vcpu *cpu, struct area *a, unsigned k,
                         uint64_t entry, bool deep)
{
    uint64_t page = a->page[k];
    bool wrote = page & SHOW_WRITE, could = (entry & RW) && (entry & D);
    if (entry != a->entry[k] || deep) {
        a->entry[k] = entry;
        unwatch(m, linear_of(a, k)); /* it may be another page now */
        page = entry ? shown_for(m, cpu, entry) : 0;
    } else if (page && could && wrote != may_write((uint8_t *)(page & PAGE_MASK))) {
        page ^= SHOW_WRITE; /* its flags have changed */
    }
    return show(m, a, k, page);
}

/* All of @a has to be looked at, if @above or anything that no entry says has changed. */
static void look_anew(struct area *a, bool large, uint64_t above, bool deep)
{
    unsigned now = atomic_load(&forgotten);
    if (deep || large != a->large || above != a->above || now != a->forgotten) {
        memset(a->raw, 0xff, sizeof(a->raw));
    }
    a->large = large;
    a->above = above;
    a->forgotten = now;
}

/*
 * Entry @k of @table, or of @entry, a large page's.  One for the same memory as the one before it
 * is most likely that of the page of zeroes, about to be replaced, and the next 500 are too: not
 * @said, unless wanted.
 */
static uint64_t entry_at(const uint64_t *table, uint64_t entry, unsigned k, bool *repeats)
{
    if (!table) {
        *repeats = false;
        return entry ? (entry & ~(FRAME & 0x1fffff)) + (uint64_t)k * PAGE_SIZE : 0;
    }
    uint64_t e = __atomic_load_n(&table[k], __ATOMIC_RELAXED);
    *repeats = k && (e & P) && !((e ^ table[k - 1]) & (FRAME | P));
    return e;
}

/*
 * @entry: of the level whose entries map 2 MiB; @above as in effective().  What is as it was when
 * last compared is passed over, but for the page at @linear.
 */
static bool look_at_area(struct mirror *m, struct vcpu *cpu, uint64_t linear, uint64_t entry,
                         uint64_t above, bool deep)
{
    static const uint64_t none[AREA_PAGES];
    unsigned wanted = linear >> PAGE_BITS & 511;
    const uint64_t *table = none;
    bool large = entry & PS, ok = true, repeats;
    struct area *a = get_area(m, linear);
    if (!a) {
        return false;
    }
    if (large) {
        table = NULL;
    } else if (entry & P) {
        table = (uint64_t *)page_at(cpu, entry & FRAME);
        table = table ? table : none;
        above = (above & entry & (RW | US)) | ((above | entry) & NX);
    }
    look_anew(a, large, above, deep);
    for (unsigned k = 0; k < AREA_PAGES && ok; k++) {
        uint64_t raw = entry_at(table, entry, k, &repeats);
        if (raw == a->raw[k] && raw != ANEW && k != wanted) {
            continue;
        }
        uint64_t e = effective(raw, above);
        a->raw[k] = raw;
        if ((e || a->entry[k]) && !(repeats && !a->page[k] && k != wanted)) {
            ok = look_at_page(m, cpu, a, k, e, deep);
        }
    }
    a->seen = m->turn;
    return ok && end_run(m);
}

/* The entries of the level above, for each of which there is an area. */
static bool walk(struct mirror *m, struct vcpu *cpu, uint64_t table_at, unsigned level,
                 uint64_t linear, uint64_t above, bool deep)
{
    const uint64_t *table = (const uint64_t *)page_at(cpu, table_at & FRAME);
    unsigned n = level == 4 ? 256 : 512, shift = 3 + 9 * level;
    for (unsigned k = 0; table && k < n; k++) {
        uint64_t e = __atomic_load_n(&table[k], __ATOMIC_RELAXED);
        uint64_t at = linear + ((uint64_t)k << shift);
        uint64_t rights = (above & e & (RW | US)) | ((above | e) & NX);
        if (!(e & P) || (level == 3 && (e & PS))) {
            continue; /* programs with pages of 1 GiB do without what is in them */
        }
        if (level == 2 ? !look_at_area(m, cpu, at, e, above, deep)
                       : !walk(m, cpu, e, level - 1, at, rights, deep)) {
            return false;
        }
    }
    return true;
}

static bool drop_area(struct mirror *m, struct area *a)
{
    bool ok = true;
    a->large = false;
    a->seen = 0;
    for (unsigned k = 0; a->shown && k < AREA_PAGES; k++) {
        ok = ok && show(m, a, k, 0);
    }
    memset(a->entry, 0, sizeof(a->entry));
    memset(a->raw, 0xff, sizeof(a->raw));
    return ok && end_run(m);
}

bool mirror_sync(struct mirror *m, struct vcpu *cpu, bool deep, bool *other)
{
    unsigned before = m->shown;
    m->turn++;
    m->gone = 0;
    if (!walk(m, cpu, cpu->r.cr3, 4, 0, RW | US, deep)) {
        return false;
    }
    for (struct area *a = m->areas; a; a = a->next) {
        if (a->seen && a->seen != m->turn && !drop_area(m, a)) {
            return false;
        }
    }
    *other = m->gone > before / 2;
    return true;
}

/* The entry that maps the 2 MiB around @linear, and the rights above it. */
static uint64_t area_entry(struct vcpu *cpu, uint64_t linear, uint64_t *above)
{
    uint64_t e = cpu->r.cr3 | P;
    *above = RW | US;
    for (unsigned level = 4; level >= 2 && (e & P); level--) {
        const uint64_t *table = (const uint64_t *)page_at(cpu, e & FRAME);
        if (level < 4) {
            *above = (*above & e & (RW | US)) | ((*above | e) & NX);
        }
        e = table ? __atomic_load_n(&table[linear >> (3 + 9 * level) & 511], __ATOMIC_RELAXED) : 0;
        if (level == 3 && (e & PS)) {
            return 0;
        }
    }
    return e;
}

bool mirror_look(struct mirror *m, struct vcpu *cpu, uint64_t linear, bool fetch, bool *shown)
{
    uint64_t above, before, e;
    *shown = false;
    if (linear > USER_MOST) {
        return true;
    }
    struct area *a = *find_area(m, linear);
    unsigned k = linear >> 12 & 511;
    before = a ? a->page[k] : 0;
    e = area_entry(cpu, linear, &above);
    if (!look_at_area(m, cpu, linear, e & P ? e : 0, above, false)) {
        return false;
    }
    a = *find_area(m, linear);
    if (fetch && !watch(m, a, k)) {
        return false;
    }
    *shown = a->page[k] && a->page[k] != before;
    return true;
}

bool mirror_drop(struct mirror *m, uint64_t linear, uint64_t bytes)
{
    bool ok = true;
    for (uint64_t at = linear; ok && at - linear < bytes; at += PAGE_SIZE) {
        struct area *a = at <= USER_MOST ? *find_area(m, at) : NULL;
        if (a && a->large) {
            ok = drop_area(m, a);
        } else if (a) {
            a->entry[at >> 12 & 511] = 0;
            a->raw[at >> 12 & 511] = ANEW;
            ok = show(m, a, at >> 12 & 511, 0);
        }
    }
    return ok && end_run(m);
}
