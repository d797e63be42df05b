/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/memory/ram.h"

#include "base/util.h"
#include "guest/memory/ahead.h"
#include "guest/memory/hugefile.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { BLOCKS_MAX = 384 }; /* 256 memory modules, and what cards have */
#define POOL_BYTES (UINT64_C(1) << 42)
#define HUGE_2M    (UINT64_C(2) << 20)

uint8_t *ram_pool;
uint64_t ram_pool_size = POOL_BYTES;
_Atomic uint8_t *ram_page_flags;
void (*ram_code_written)(void *host, uint64_t bytes);
void (*ram_sync_writes)(struct ram *ram);
bool ram_in_files, ram_locked;

static struct ram *blocks[BLOCKS_MAX];
static uint64_t pool_used;

static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool make_pool(GError **error)
{
    if (ram_pool) {
        return true;
    }
    uint8_t *pool = reserve(POOL_BYTES + HUGE_2M);
    void *flags = mmap(NULL, POOL_BYTES >> PAGE_BITS, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *states = mmap(NULL, POOL_BYTES >> AHEAD_SHIFT, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!pool || flags == MAP_FAILED || states == MAP_FAILED) {
        error_set_errno(error, errno, "address space for guest memory");
        return false;
    }
    ram_pool = (uint8_t *)(((uintptr_t)pool + HUGE_2M - 1) & ~(uintptr_t)(HUGE_2M - 1));
    ram_page_flags = flags;
    ahead_states = states;
    return true;
}

/* A descriptor for @source's path: the file itself, or a nameless one in the directory. */
static int open_path(const char *path, uint64_t size, uint64_t *page, GError **error)
{
    struct stat st;
    autofd int fd = -1;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        g_autofree char *name = g_strdup_printf("%s/lodge-ram-XXXXXX", path);
        fd = g_mkstemp_full(name, O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0) {
            unlink(name);
        }
    } else {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    struct statfs fs;
    if (fd < 0 || fstatfs(fd, &fs) < 0) {
        error_set_errno(error, errno, "-mem-path %s", path);
        return -1;
    }
    *page = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : PAGE_SIZE;
    if (size % *page) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "-mem-path %s: memory size is not a multiple of its %" G_GUINT64_FORMAT
                    " byte pages",
                    path, *page);
        return -1;
    }
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size < size && ftruncate(fd, (off_t)size) < 0) {
        error_set_errno(error, errno, "-mem-path %s: size %" G_GUINT64_FORMAT, path, size);
        return -1;
    }
    return g_steal_fd(&fd);
}

/* What @source says is behind @bytes bytes: a descriptor, or -1 for anonymous memory. */
static bool open_part(const char *name, const struct ram_source *source, struct ram_part *part,
                      GError **error)
{
    part->page = PAGE_SIZE;
    part->fd = -1;
    if (source && source->mem_path) {
        part->fd = open_path(source->mem_path, part->bytes, &part->page, error);
        return part->fd >= 0;
    }
    if ((source && source->share) || (ram_in_files && part->bytes >= HUGE_2M)) {
        part->fd = huge_file(name, part->bytes);
        if (part->fd < 0) {
            error_set_errno(error, errno, "%s: memfd", name);
            return false;
        }
    }
    return true;
}

static bool map_part(const struct ram *ram, const struct ram_part *part,
                     const struct ram_source *source, GError **error)
{
    int flags =
        MAP_FIXED | (part->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED);
    void *p = mmap(ram->host + part->at, part->bytes, PROT_READ | PROT_WRITE, flags, part->fd, 0);
    if (p == MAP_FAILED) {
        error_set_errno(error, errno, "%s: %" G_GUINT64_FORMAT " bytes of memory", ram->name,
                        part->bytes);
        return false;
    }
    if (source && source->policy) { /* before the first page is there */
        unsigned long nodes = source->nodes;
        if (syscall(SYS_mbind, p, part->bytes, source->policy, &nodes, 8 * sizeof(nodes), 0) != 0) {
            error_set_errno(error, errno, "%s: cannot bind memory to host nodes", ram->name);
            return false;
        }
    }
    if (part->page == PAGE_SIZE && part->bytes >= HUGE_2M) {
        madvise(p, part->bytes, MADV_HUGEPAGE); /* advice: a refusal costs speed only */
    }
    bool touch = source && source->prealloc;
    if ((touch || part->page > PAGE_SIZE) && madvise(p, part->bytes, MADV_POPULATE_WRITE) < 0) {
        error_set_errno(error, errno, "%s: cannot get %" G_GUINT64_FORMAT " bytes now", ram->name,
                        part->bytes);
        return false;
    }
    if (ram_locked && mlock(p, part->bytes) < 0) {
        error_set_errno(error, errno, "%s: cannot lock %" G_GUINT64_FORMAT " bytes", ram->name,
                        part->bytes);
        return false;
    }
    if (!touch && !ram_locked && !(source && source->mem_path)) {
        ahead_open(p, part->bytes);
    }
    if (source && source->dump_off) {
        madvise(p, part->bytes, MADV_DONTDUMP);
    }
    return true;
}

static void close_parts(struct ram *ram)
{
    for (unsigned i = 0; i < ram->n_parts; i++) {
        if (ram->parts[i].fd >= 0) {
            close(ram->parts[i].fd);
        }
    }
    g_free(ram->parts);
}

/* The next of a chain; what has no source has no end of such parts. */
static const struct ram_source *next_source(const struct ram_source *s)
{
    return s ? s->next : NULL;
}

static bool open_parts(struct ram *ram, const struct ram_source *source, GError **error)
{
    unsigned n = 0;
    uint64_t at = 0;
    const struct ram_source *s = source;
    do {
        n++;
        s = next_source(s);
    } while (s);
    ram->parts = g_new(struct ram_part, n);
    for (s = source; ram->n_parts < n; s = next_source(s)) {
        struct ram_part *part = &ram->parts[ram->n_parts++];
        *part = (struct ram_part){.at = at, .bytes = next_source(s) ? s->bytes : ram->size - at};
        at += part->bytes;
        if (!open_part(ram->name, s, part, error)) {
            return false;
        }
    }
    return true;
}

static bool map_parts(struct ram *ram, const struct ram_source *source, GError **error)
{
    for (unsigned i = 0; i < ram->n_parts; i++, source = next_source(source)) {
        if (!map_part(ram, &ram->parts[i], source, error)) {
            if (source && source->mem_path) {
                g_prefix_error(error, "-mem-path %s: ", source->mem_path);
            }
            return false;
        }
    }
    return true;
}

/* Large blocks start on 2 MiB so that huge pages fit; hugetlbfs may want 1 GiB. */
static void place(struct ram *ram)
{
    uint64_t align = ram->size >= HUGE_2M ? HUGE_2M : PAGE_SIZE;
    uint64_t base = (uint64_t)(uintptr_t)ram_pool;
    for (unsigned i = 0; i < ram->n_parts; i++) {
        align = MAX(align, ram->parts[i].page);
    }
    ram->host = ram_pool + (((base + pool_used + align - 1) & ~(align - 1)) - base);
}

struct ram *ram_new(const char *name, uint64_t size, const struct ram_source *source,
                    GError **error)
{
    unsigned slot = 0;
    while (slot < BLOCKS_MAX && blocks[slot]) {
        slot++;
    }
    size = (size + PAGE_SIZE - 1) & PAGE_MASK;
    if (!make_pool(error)) {
        return NULL;
    }
    if (slot == BLOCKS_MAX || !size || size > POOL_BYTES - pool_used - 2 * RAM_GUARD - HUGE_2M) {
        g_set_error(error, LODGE_ERROR, ENOMEM,
                    "%s: no room for %" G_GUINT64_FORMAT " bytes of guest memory", name, size);
        return NULL;
    }
    g_autofree struct ram *ram = g_new0(struct ram, 1);
    *ram = (struct ram){.name = g_intern_string(name), .size = size};
    bool ok = open_parts(ram, source, error);
    if (ok) {
        place(ram);
        ok = map_parts(ram, source, error);
    }
    if (!ok) {
        close_parts(ram);
        return NULL;
    }
    pool_used = (uint64_t)(ram->host - ram_pool) + size + RAM_GUARD;
    return blocks[slot] = g_steal_pointer(&ram);
}

void ram_free(struct ram *ram)
{
    for (unsigned i = 0; i < BLOCKS_MAX; i++) {
        if (blocks[i] == ram) {
            blocks[i] = NULL;
        }
    }
    /* Back to reserved: what still points there faults instead of meeting something else. */
    mmap(ram->host, ram->size, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
         -1, 0);
    close_parts(ram);
    g_free(ram);
}

static struct ram *block_of(const void *host)
{
    for (unsigned i = 0; i < BLOCKS_MAX; i++) {
        const struct ram *b = blocks[i];
        if (b && (const uint8_t *)host >= b->host && (const uint8_t *)host < b->host + b->size) {
            return blocks[i];
        }
    }
    return NULL;
}

static void discard_part(const struct ram *ram, const struct ram_part *part, uint64_t from,
                         uint64_t end)
{
    from = MAX(from, part->at);
    end = MIN(end, part->at + part->bytes);
    if (from >= end) {
        return;
    }
    /* A page of a file is only given back where the file loses it. */
    if (part->fd < 0 ? madvise(ram->host + from, end - from, MADV_DONTNEED) == 0
                     : fallocate(part->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 (off_t)(from - part->at), (off_t)(end - from)) == 0) {
        ram_note_write(ram->host + from, end - from);
    }
}

void ram_discard(void *host, uint64_t bytes)
{
    struct ram *ram = block_of(host);
    if (!ram) {
        return;
    }
    uint64_t from = (uint64_t)((uint8_t *)host - ram->host), end = MIN(from + bytes, ram->size);
    from = (from + PAGE_SIZE - 1) & PAGE_MASK;
    end &= PAGE_MASK;
    for (unsigned i = 0; i < ram->n_parts; i++) {
        discard_part(ram, &ram->parts[i], from, end);
    }
}

struct ram *ram_at(unsigned i)
{
    for (unsigned slot = 0; slot < BLOCKS_MAX; slot++) {
        if (blocks[slot] && i-- == 0) {
            return blocks[slot];
        }
    }
    return NULL;
}

struct ram *ram_find(const char *name)
{
    for (unsigned i = 0; i < BLOCKS_MAX; i++) {
        if (blocks[i] && g_str_equal(blocks[i]->name, name)) {
            return blocks[i];
        }
    }
    return NULL;
}

void ram_note_write(void *host, uint64_t bytes)
{
    size_t first = ram_page_index(host), last = ram_page_index((uint8_t *)host + bytes - 1);
    bool code = false;
    for (size_t i = first; bytes && i <= last; i++) {
        uint8_t f = atomic_load_explicit(&ram_page_flags[i], memory_order_relaxed);
        if (f & (PAGE_CLEAN_VGA | PAGE_CLEAN_LOG)) {
            atomic_fetch_and(&ram_page_flags[i], (uint8_t) ~(PAGE_CLEAN_VGA | PAGE_CLEAN_LOG));
        }
        code |= f & PAGE_CODE;
    }
    if (code && ram_code_written) {
        ram_code_written(host, bytes);
    }
}

bool ram_collect_dirty(struct ram *ram, uint64_t from, uint64_t bytes, uint8_t flag,
                       uint64_t *bitmap)
{
    size_t first = ram_page_index(ram->host + from);
    size_t n = (bytes + PAGE_SIZE - 1) >> PAGE_BITS;
    bool any = false;
    if (ram_sync_writes) {
        ram_sync_writes(ram);
    }
    memset(bitmap, 0, (n + 63) / 64 * sizeof(*bitmap));
    for (size_t i = 0; i < n; i++) {
        if (!(atomic_load_explicit(&ram_page_flags[first + i], memory_order_relaxed) & flag)) {
            atomic_fetch_or(&ram_page_flags[first + i], flag);
            bitmap[i / 64] |= UINT64_C(1) << (i % 64);
            any = true;
        }
    }
    return any;
}
