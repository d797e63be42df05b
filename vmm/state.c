/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/state.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "guest/cpu/models.h"
#include "guest/cpu/regs.h"
#include "guest/machine/machine.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { FRAME_BYTES = 16, HEAD_VERSION = 1, BLOCKS_MAX = 512 };
static const char magic[8] = "LODGEVM";

/* Finds damage, not malice. */
static uint64_t sum(const uint8_t *p, size_t n)
{
    uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15);
    for (; n >= 8; n -= 8, p += 8) {
        h = (h ^ le64_at(p)) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    for (; n; n--) {
        h = (h ^ *p++) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    return h;
}

void state_io_init(struct state_io *io, int fd)
{
    memset(io, 0, sizeof(*io));
    io->fd = fd;
    io->paced_at = g_get_monotonic_time();
    io->buf = g_malloc(STATE_SECTION_MAX);
}

void state_io_clear(struct state_io *io)
{
    g_clear_pointer(&io->buf, g_free);
}

/* ---- bytes ---- */

static bool is_cancelled(const struct state_io *io, GError **error)
{
    if (io->cancelled && atomic_load(io->cancelled)) {
        g_set_error(error, LODGE_ERROR, ECANCELED, "migration was cancelled");
        return true;
    }
    return false;
}

static bool write_all(struct state_io *io, const void *data, size_t n, GError **error)
{
    const uint8_t *p = data;
    while (n) {
        if (is_cancelled(io, error)) {
            return false;
        }
        ssize_t w = write(io->fd, p, n);
        if (w < 0 && errno != EINTR) {
            error_set_errno(error, errno, "writing the state");
            return false;
        }
        if (w > 0) {
            p += w;
            n -= (size_t)w;
            atomic_fetch_add(&io->bytes, (uint64_t)w);
        }
    }
    return true;
}

static bool read_all(struct state_io *io, void *data, size_t n, GError **error)
{
    uint8_t *p = data;
    while (n) {
        if (is_cancelled(io, error)) {
            return false;
        }
        ssize_t r = read(io->fd, p, n);
        if (r == 0) {
            g_set_error(error, LODGE_ERROR, EINVAL, "the state ends after %" PRIu64 " bytes",
                        atomic_load(&io->bytes));
            return false;
        }
        if (r < 0 && errno != EINTR) {
            error_set_errno(error, errno, "reading the state");
            return false;
        }
        if (r > 0) {
            p += r;
            n -= (size_t)r;
            atomic_fetch_add(&io->bytes, (uint64_t)r);
        }
    }
    return true;
}

/* Waits until what was sent since the last time is not more than the bound, which may change. */
static void keep_rate(struct state_io *io)
{
    uint64_t rate = io->max_rate ? atomic_load(io->max_rate) : 0, sent = atomic_load(&io->bytes);
    double due = rate ? (double)(sent - io->paced) * 1e6 / (double)rate : 0;
    int64_t ahead = (int64_t)due - (g_get_monotonic_time() - io->paced_at);
    if (ahead > 0) {
        g_usleep((gulong)MIN(ahead, G_USEC_PER_SEC));
    }
    io->paced = sent;
    io->paced_at = g_get_monotonic_time();
}

static void frame(uint8_t out[FRAME_BYTES], const char *tag, const uint8_t *content, uint32_t n)
{
    memcpy(out, tag, 4);
    le32_put(out + 4, n);
    le64_put(out + 8, sum(content, n));
}

static bool put_section(struct state_io *io, const char *tag, const uint8_t *content, uint32_t n,
                        GError **error)
{
    uint8_t head[FRAME_BYTES];
    frame(head, tag, content, n);
    io->sections++;
    keep_rate(io);
    return write_all(io, head, sizeof(head), error) && write_all(io, content, n, error);
}

static bool get_section(struct state_io *io, GError **error)
{
    uint8_t head[FRAME_BYTES];
    if (!read_all(io, head, sizeof(head), error)) {
        return false;
    }
    memcpy(io->tag, head, 4);
    io->n = le32_at(head + 4);
    for (unsigned i = 0; i < 4; i++) {
        if (!g_ascii_isupper(io->tag[i]) && io->tag[i] != ' ') {
            g_set_error(error, LODGE_ERROR, EINVAL, "the state is damaged (section name)");
            return false;
        }
    }
    if (io->n > STATE_SECTION_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the state is damaged (section %s of %u bytes)",
                    io->tag, io->n);
        return false;
    }
    io->sections++;
    if (!read_all(io, io->buf, io->n, error)) {
        return false;
    }
    if (sum(io->buf, io->n) != le64_at(head + 8)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the state is damaged (check sum of section %s)",
                    io->tag);
        return false;
    }
    return true;
}

/* ---- what machine it is ---- */

static unsigned block_count(void)
{
    unsigned n = 0;
    while (ram_at(n)) {
        n++;
    }
    return n;
}

static const struct machine_model *board_model(void)
{
    return machine_find(vm_options()->machine.machine);
}

bool state_put_head(struct state_io *io, bool running, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    const struct cpu_model *cpu = vcpu_at(0)->model;
    put_le(out, HEAD_VERSION, 4);
    put_text(out, board_model()->name);
    put_le(out, vcpu_count(), 4);
    put_le(out, running, 1);
    put_text(out, cpu->name);
    put_le(out, CPUID_WORDS, 4);
    for (unsigned i = 0; i < CPUID_WORDS; i++) {
        put_le(out, cpu->words[i], 4);
    }
    put_le(out, block_count(), 4);
    for (unsigned i = 0; ram_at(i); i++) {
        put_text(out, ram_at(i)->name);
        put_le(out, ram_at(i)->size, 8);
    }
    return write_all(io, magic, sizeof(magic), error) &&
           put_section(io, "HEAD", out->data, out->len, error);
}

struct load {
    struct state_io *io;
    struct ram *blocks[BLOCKS_MAX]; /* by their number in the stream */
    uint8_t *got[BLOCKS_MAX];       /* a byte a page: it was in the stream */
    unsigned n_blocks;
    bool running;
    GHashTable *loaded;             /* paths of devices */
    unsigned cpus;
    uint64_t clock;
};

static bool damaged(const char *where, GError **error)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "the state is damaged (%s)", where);
    return false;
}

static bool same_machine(struct load *l, struct reader *in, GError **error)
{
    char name[256];
    uint64_t cpus, running;
    if (!read_text(in, name) || !read_le(in, &cpus, 4) || !read_le(in, &running, 1)) {
        return damaged("HEAD", error);
    }
    if (!g_str_equal(name, board_model()->name) || cpus != vcpu_count()) {
        g_autofree char *shown = g_strescape(name, NULL);
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "state is of machine %s with %" PRIu64 " CPU%s, this one is %s with %u", shown,
                    cpus, cpus == 1 ? "" : "s", board_model()->name, vcpu_count());
        return false;
    }
    l->running = running;
    return true;
}

/* The guest has looked at CPUID: what it saw must still be there. */
static bool same_cpu(struct reader *in, GError **error)
{
    const struct cpu_model *cpu = vcpu_at(0)->model;
    char name[256];
    uint64_t n, word;
    if (!read_text(in, name) || !read_le(in, &n, 4)) {
        return damaged("HEAD", error);
    }
    for (unsigned i = 0; i < n; i++) {
        if (!read_le(in, &word, 4)) {
            return damaged("HEAD", error);
        }
        uint32_t missing = (uint32_t)word & ~(i < CPUID_WORDS ? cpu->words[i] : 0);
        if (missing && i != CPUID_KVM_EAX) {
            g_autofree char *shown = g_strescape(name, NULL);
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "state is of CPU model %s, whose features %s lacks here (word %u, bits %#x)",
                        shown, cpu->name, i, missing);
            return false;
        }
    }
    return true;
}

/* Cards of one kind have blocks of one name: the first of them that is not taken yet. */
static struct ram *block_named(const struct load *l, const char *name)
{
    for (unsigned i = 0, b; ram_at(i); i++) {
        for (b = 0; b < l->n_blocks && l->blocks[b] != ram_at(i); b++) {
        }
        if (b == l->n_blocks && g_str_equal(ram_at(i)->name, name)) {
            return ram_at(i);
        }
    }
    return NULL;
}

static bool same_blocks(struct load *l, struct reader *in, GError **error)
{
    uint64_t n, size;
    char name[256];
    if (!read_le(in, &n, 4) || n > BLOCKS_MAX) {
        return damaged("HEAD", error);
    }
    for (l->n_blocks = 0; l->n_blocks < n; l->n_blocks++) {
        if (!read_text(in, name) || !read_le(in, &size, 8)) {
            return damaged("HEAD", error);
        }
        struct ram *ram = block_named(l, name);
        if (!ram || ram->size != size) {
            g_autofree char *shown = g_strescape(name, NULL);
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "state has %" PRIu64 " KiB of memory \"%s\", this machine has %" PRIu64, size >> 10,
                        shown, ram ? ram->size >> 10 : 0);
            return false;
        }
        l->blocks[l->n_blocks] = ram;
        l->got[l->n_blocks] = g_malloc0(size >> PAGE_BITS);
    }
    for (unsigned i = 0, b; ram_at(i); i++) {
        for (b = 0; b < n && l->blocks[b] != ram_at(i); b++) {
        }
        if (b == n) {
            g_set_error(error, LODGE_ERROR, EINVAL, "this machine has memory \"%s\", the state has not",
                        ram_at(i)->name);
            return false;
        }
    }
    return true;
}

static bool load_head(struct load *l, GError **error)
{
    struct reader in = {l->io->buf, l->io->buf + l->io->n};
    uint64_t version;
    if (l->n_blocks || !read_le(&in, &version, 4)) {
        return damaged("HEAD", error);
    }
    if (version != HEAD_VERSION) {
        g_set_error(error, LODGE_ERROR, EINVAL, "state is of version %" PRIu64 ", this program reads %d",
                    version, HEAD_VERSION);
        return false;
    }
    return same_machine(l, &in, error) && same_cpu(&in, error) && same_blocks(l, &in, error);
}

/* ---- memory ---- */

enum { RUN_HEAD = 12 }; /* block 2, pages 2, first page 8 */

enum page_kind { PAGE_SKIPPED, PAGE_ZERO, PAGE_FULL };

static enum page_kind kind_of(const struct ram *ram, uint64_t page, const uint64_t *dirty, bool zeroes)
{
    if (dirty && !(dirty[page / 64] >> (page % 64) & 1)) {
        return PAGE_SKIPPED;
    }
    bool full = !is_zero(ram->host + (page << PAGE_BITS), PAGE_SIZE);
    return full ? PAGE_FULL : zeroes ? PAGE_ZERO : PAGE_SKIPPED;
}

/* The guest may be running: what changes meanwhile is sent again, so the copy is made before
 * its check sum. */
static bool put_run(struct state_io *io, unsigned block, uint64_t first, unsigned n, bool zero,
                    GError **error)
{
    const struct ram *ram = ram_at(block);
    uint32_t bytes = RUN_HEAD;
    le16_put(io->buf, (uint16_t)block);
    le16_put(io->buf + 2, (uint16_t)n);
    le64_put(io->buf + 4, first);
    if (!zero) {
        memcpy(io->buf + RUN_HEAD, ram->host + (first << PAGE_BITS), (size_t)n << PAGE_BITS);
        bytes += n << PAGE_BITS;
    }
    return put_section(io, zero ? "ZERO" : "PAGE", io->buf, bytes, error);
}

bool state_put_pages(struct state_io *io, unsigned block, const uint64_t *dirty, bool zeroes,
                     GError **error)
{
    const struct ram *ram = ram_at(block);
    uint64_t pages = ram->size >> PAGE_BITS;
    for (uint64_t i = 0; i < pages;) {
        enum page_kind kind = kind_of(ram, i, dirty, zeroes);
        unsigned n = 1;
        while (i + n < pages && n < STATE_PAGES_MAX && kind != PAGE_SKIPPED &&
               kind_of(ram, i + n, dirty, zeroes) == kind) {
            n++;
        }
        if (kind != PAGE_SKIPPED && !put_run(io, block, i, n, kind == PAGE_ZERO, error)) {
            return false;
        }
        i += n;
    }
    return true;
}

static bool load_pages(struct load *l, bool zero, GError **error)
{
    const uint8_t *buf = l->io->buf;
    if (l->io->n < RUN_HEAD || le16_at(buf) >= l->n_blocks) {
        return damaged("PAGE", error);
    }
    struct ram *ram = l->blocks[le16_at(buf)];
    uint64_t n = le16_at(buf + 2), first = le64_at(buf + 4), pages = ram->size >> PAGE_BITS;
    if (n > STATE_PAGES_MAX || first >= pages || n > pages - first ||
        l->io->n != RUN_HEAD + (zero ? 0 : n << PAGE_BITS)) {
        return damaged("PAGE", error);
    }
    uint8_t *to = ram->host + (first << PAGE_BITS);
    memset(l->got[le16_at(buf)] + first, 1, n);
    if (zero) {
        memset(to, 0, n << PAGE_BITS);
    } else {
        memcpy(to, buf + RUN_HEAD, n << PAGE_BITS);
    }
    ram_note_write(to, n << PAGE_BITS);
    return true;
}

/* A new machine has firmware in memory that the old one may have written over with zeroes. */
static void clear_rest(struct load *l)
{
    for (unsigned b = 0; b < l->n_blocks; b++) {
        for (uint64_t i = 0; i < l->blocks[b]->size >> PAGE_BITS; i++) {
            uint8_t *page = l->blocks[b]->host + (i << PAGE_BITS);
            if (!l->got[b][i] && !is_zero(page, PAGE_SIZE)) {
                memset(page, 0, PAGE_SIZE);
                ram_note_write(page, PAGE_SIZE);
            }
        }
    }
}

/* ---- clock, CPUs, devices ---- */

static void collect_section(GByteArray *out, const char *tag, const GByteArray *content,
                            uint32_t *sections)
{
    uint8_t head[FRAME_BYTES];
    frame(head, tag, content->data, content->len);
    g_byte_array_append(out, head, sizeof(head));
    g_byte_array_append(out, content->data, content->len);
    (*sections)++;
}

static void put_blob(GByteArray *out, GBytes *blob)
{
    gsize n;
    const uint8_t *p = g_bytes_get_data(blob, &n);
    put_le(out, n, 4);
    g_byte_array_append(out, p, (guint)n);
    g_bytes_unref(blob);
}

GByteArray *state_collect(uint32_t *sections)
{
    GByteArray *out = g_byte_array_new();
    g_autoptr(GByteArray) part = g_byte_array_new();
    put_le(part, (uint64_t)clock_now(), 8);
    collect_section(out, "CLCK", part, sections);
    for (unsigned i = 0; i < vcpu_count(); i++) {
        g_byte_array_set_size(part, 0);
        put_le(part, vcpu_at(i)->index, 4);
        put_blob(part, vcpu_save(vcpu_at(i)));
        collect_section(out, "CPU ", part, sections);
    }
    for (struct device *d = vm_board()->devices; d; d = d->next) {
        g_byte_array_set_size(part, 0);
        put_text(part, d->path);
        put_text(part, d->model->name);
        put_blob(part, device_save(d));
        collect_section(out, "DEV ", part, sections);
    }
    return out;
}

bool state_put_rest(struct state_io *io, GByteArray *collected, uint32_t sections, GError **error)
{
    uint8_t last[4];
    if (!write_all(io, collected->data, collected->len, error)) {
        return false;
    }
    io->sections += sections;
    le32_put(last, io->sections);
    return put_section(io, "LAST", last, sizeof(last), error);
}

static bool load_clock(struct load *l, GError **error)
{
    struct reader in = {l->io->buf, l->io->buf + l->io->n};
    if (!read_le(&in, &l->clock, 8) || l->clock > INT64_MAX / 2) {
        return damaged("CLCK", error);
    }
    clock_set((int64_t)l->clock);
    return true;
}

static GBytes *get_blob(struct reader *in)
{
    uint64_t n;
    const uint8_t *p = read_le(in, &n, 4) ? read_bytes(in, n) : NULL;
    return p && in->at == in->end ? g_bytes_new(p, n) : NULL;
}

static bool load_cpu(struct load *l, GError **error)
{
    struct reader in = {l->io->buf, l->io->buf + l->io->n};
    uint64_t index;
    g_autoptr(GBytes) blob = read_le(&in, &index, 4) ? get_blob(&in) : NULL;
    struct vcpu *cpu = blob ? vcpu_at(l->cpus) : NULL;
    if (!cpu) {
        return damaged("CPU", error);
    }
    if (index != cpu->index) {
        g_set_error(error, LODGE_ERROR, EINVAL, "state has CPU %u, this machine has CPU %u there",
                    (unsigned)index, cpu->index);
        return false;
    }
    l->cpus++;
    if (!vcpu_load(cpu, blob, error)) {
        g_prefix_error(error, "CPU %u: ", (unsigned)index);
        return false;
    }
    return true;
}

static struct device *by_path(const char *path)
{
    struct device *d = vm_board()->devices;
    while (d && !g_str_equal(d->path, path)) {
        d = d->next;
    }
    return d;
}

static bool load_device(struct load *l, GError **error)
{
    struct reader in = {l->io->buf, l->io->buf + l->io->n};
    char path[256], model[256];
    g_autoptr(GBytes) blob = read_text(&in, path) && read_text(&in, model) ? get_blob(&in) : NULL;
    if (!blob) {
        return damaged("DEV", error);
    }
    struct device *d = by_path(path);
    g_autofree char *shown = g_strescape(path, NULL);
    g_autofree char *shown_model = g_strescape(model, NULL);
    if (!d || !g_str_equal(d->model->name, model)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "state has device \"%s\" (%s), this machine has %s", shown,
                    shown_model, d ? d->model->name : "none there");
        return false;
    }
    if (!g_hash_table_add(l->loaded, g_strdup(path))) {
        return damaged("a device twice", error);
    }
    if (!device_load(d, blob, error)) {
        g_prefix_error(error, "device \"%s\": ", path);
        return false;
    }
    return true;
}

static bool check_complete(struct load *l, GError **error)
{
    if (l->io->n != 4 || le32_at(l->io->buf) != l->io->sections - 1) {
        return damaged("LAST", error);
    }
    for (struct device *d = vm_board()->devices; d; d = d->next) {
        if (!d->model->joins_later && !g_hash_table_contains(l->loaded, d->path)) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "this machine has device \"%s\" (%s), the state has not", d->path,
                        d->model->name);
            return false;
        }
    }
    if (l->cpus != vcpu_count()) {
        return damaged("a CPU is missing", error);
    }
    for (struct device *d = vm_board()->devices; d; d = d->next) {
        device_settle(d); /* lines that another device's state has overtaken */
    }
    return true;
}

/* Machine lock held. */
static bool load_section(struct load *l, bool *end, GError **error)
{
    static const struct {
        const char *tag;
        bool (*load)(struct load *l, GError **error);
    } rows[] = {{"HEAD", load_head}, {"CLCK", load_clock}, {"CPU ", load_cpu},
                {"DEV ", load_device}, {"LAST", check_complete}};
    const char *tag = l->io->tag;
    bool zero = g_str_equal(tag, "ZERO");
    if (l->n_blocks == 0 && !g_str_equal(tag, "HEAD")) {
        return damaged("it does not begin with HEAD", error);
    }
    if (zero || g_str_equal(tag, "PAGE")) {
        return load_pages(l, zero, error);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (g_str_equal(rows[i].tag, tag)) {
            *end = g_str_equal(tag, "LAST");
            return rows[i].load(l, error);
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "the state has a section %s that is not known here", tag);
    return false;
}

bool state_load(struct state_io *io, bool *running, GError **error)
{
    char head[sizeof(magic)];
    struct load l = {.io = io, .loaded = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    bool end = false, ok = read_all(io, head, sizeof(head), error);
    if (ok && memcmp(head, magic, sizeof(magic)) != 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "this is no state of a machine");
        ok = false;
    }
    while (ok && !end && (ok = get_section(io, error))) {
        machine_lock();
        ok = load_section(&l, &end, error);
        machine_unlock();
    }
    if (ok) {
        clear_rest(&l);
    }
    *running = l.running;
    g_hash_table_unref(l.loaded);
    for (unsigned i = 0; i < l.n_blocks; i++) {
        g_free(l.got[i]);
    }
    return ok;
}
