/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/pipe.h"

#include "base/util.h"
#include "host/image/options.h"
#include "host/image/vmdk_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool is_pipe_in(const char *name)
{
    struct stat st;
    return !strcmp(name, "-") && (fstat(STDIN_FILENO, &st) != 0 || !S_ISREG(st.st_mode));
}

bool is_pipe_out(const char *name)
{
    return !strcmp(name, "-");
}

/* ---- bytes ---- */

int pipe_write(const void *from, size_t n)
{
    const uint8_t *at = from;
    while (n) {
        ssize_t k = write(STDOUT_FILENO, at, n);
        if (k < 0 && errno != EINTR) {
            return -errno;
        }
        k = MAX(k, 0);
        at += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Fewer than @n only at the end. */
static ssize_t read_all(struct pipe_in *in, void *to, size_t n)
{
    size_t done = MIN(n, in->n_head - in->used_head);
    memcpy(to, in->head + in->used_head, done);
    in->used_head += done;
    while (done < n) {
        ssize_t k = read(STDIN_FILENO, (uint8_t *)to + done, n - done);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return k < 0 ? -errno : (ssize_t)done;
        }
        done += (size_t)k;
    }
    return (ssize_t)done;
}

bool pipe_in_open(struct pipe_in *in, const char *format, GError **error)
{
    uint8_t head[PROBE_BYTES];
    *in = (struct pipe_in){.format = format};
    ssize_t n = read_all(in, head, sizeof(head));
    if (n < 0) {
        error_set_errno(error, (int)-n, "standard input");
        return false;
    }
    memcpy(in->head, head, (size_t)n);
    in->n_head = (size_t)n;
    in->used_head = 0;
    if (!format) {
        in->format = format_probe(head, (size_t)n, "-")->name;
    }
    return true;
}

/* ---- files without a name ---- */

char *spool_new(GError **error)
{
    const char *folder = g_getenv("TMPDIR");
    folder = folder && *folder ? folder : "/var/tmp";
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* not every file system can do that */
        g_autofree char *path = g_strdup_printf("%s/lodge-img-XXXXXX", folder);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
        }
    }
    if (fd < 0) {
        error_set_errno(error, errno, "a temporary file in '%s' ($TMPDIR)", folder);
        return NULL;
    }
    return g_strdup_printf("/proc/self/fd/%d", fd); /* stays open as long as we live */
}

char *pipe_in_spool(struct pipe_in *in, GError **error)
{
    g_autofree char *name = spool_new(error);
    g_autofree uint8_t *buffer = g_malloc(PIECE_BYTES);
    autofd int fd = name ? open(name, O_WRONLY | O_CLOEXEC) : -1;
    ssize_t n = 0;
    if (!name) {
        return NULL;
    }
    while (fd >= 0 && (n = read_all(in, buffer, PIECE_BYTES)) > 0) {
        for (ssize_t done = 0, k; done < n; done += k) {
            k = write(fd, buffer + done, (size_t)(n - done));
            if (k < 0) {
                error_set_errno(error, errno, "a temporary file for standard input");
                return NULL;
            }
        }
    }
    if (fd < 0 || n < 0) {
        error_set_errno(error, fd < 0 ? errno : (int)-n, "standard input");
        return NULL;
    }
    return g_steal_pointer(&name);
}

bool spool_out(const char *name, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE_BYTES);
    autofd int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    int failed = 0;
    while (fd >= 0 && !failed && (n = read(fd, buffer, PIECE_BYTES)) > 0) {
        failed = -pipe_write(buffer, (size_t)n);
    }
    if (fd < 0 || n < 0 || failed) {
        error_set_errno(error, failed ? failed : errno, "error while writing to standard output");
        return false;
    }
    return true;
}

/* ---- raw and vmdk from standard input ---- */

struct pipe_feed {
    struct feed feed;
    struct pipe_in *in;
    uint64_t at;
    struct vmdk_reader *vmdk; /* NULL: raw */
    struct vmdk_grain grain;  /* the next one, if .have */
    bool have, ended;
};

static int raw_next(struct feed *feed, struct piece *p)
{
    struct pipe_feed *f = (struct pipe_feed *)feed;
    p->offset = f->at;
    ssize_t n = read_all(f->in, p->data, feed->piece);
    if (n < 0) {
        return (int)n;
    }
    p->kind = n ? PIECE_DATA : PIECE_END;
    p->length = (uint64_t)n;
    f->at += (uint64_t)n;
    return 0;
}

static int raw_read(struct feed *feed, struct piece *p)
{
    (void)feed, (void)p; /* next() has the bytes already */
    return 0;
}

static int vmdk_ahead(struct pipe_feed *f)
{
    g_autoptr(GError) error = NULL;
    if (f->have || f->ended) {
        return 0;
    }
    int r = vmdk_reader_next(f->vmdk, &f->grain, &error);
    f->have = r > 0;
    f->ended = r == 0;
    if (r < 0) {
        f->feed.why = g_strdup(error->message);
    }
    return r < 0 ? -error_errno(error) : 0;
}

static int vmdk_next(struct feed *feed, struct piece *p)
{
    struct pipe_feed *f = (struct pipe_feed *)feed;
    p->offset = f->at;
    int error = vmdk_ahead(f);
    if (error) {
        return error;
    }
    uint64_t end = f->have ? f->grain.offset : feed->size;
    if (f->at >= feed->size) {
        p->kind = PIECE_END;
        return 0;
    }
    if (f->at < end) {
        p->kind = PIECE_ZERO;
        p->length = end - f->at;
    } else {
        p->kind = PIECE_DATA;
        p->length = MIN(f->grain.unit, feed->size - f->at);
        if (f->grain.stored > feed->piece || f->grain.unit > feed->piece) {
            return -EIO;
        }
        memcpy(p->packed, f->grain.packed, f->grain.stored);
        p->stored = f->grain.stored;
        p->unpacked = f->grain.unit;
        f->have = false;
    }
    f->at += p->length;
    return 0;
}

static int vmdk_read(struct feed *feed, struct piece *p)
{
    (void)feed;
    return codec_zlib.unpack(p->packed, p->stored, p->data, p->unpacked);
}

static void pipe_feed_close(struct feed *feed)
{
    vmdk_reader_free(((struct pipe_feed *)feed)->vmdk);
}

static ssize_t read_for_vmdk(void *owner, void *to, size_t n)
{
    return read_all(owner, to, n);
}

struct feed *feed_of_pipe(struct pipe_in *in, GError **error)
{
    bool raw = !strcmp(in->format, "raw");
    struct vmdk_reader *reader = NULL;
    if (!raw) {
        reader = vmdk_reader_new(read_for_vmdk, in, error);
        if (!reader) {
            return NULL;
        }
    }
    struct pipe_feed *f = g_new0(struct pipe_feed, 1);
    f->in = in;
    f->vmdk = reader;
    f->feed.close = pipe_feed_close;
    f->feed.size = raw ? UINT64_MAX : vmdk_reader_size(reader);
    f->feed.grain = raw ? 1 : vmdk_reader_unit(reader);
    f->feed.next = raw ? raw_next : vmdk_next;
    f->feed.read = raw ? raw_read : vmdk_read;
    return &f->feed;
}

/* ---- raw and vmdk to standard output ---- */

struct pipe_sink {
    struct sink sink;
    struct vmdk_writer *vmdk;
};

static int raw_data(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    (void)s, (void)offset; /* in order, without gaps */
    return pipe_write(from, n);
}

static int raw_zero(struct sink *s, uint64_t offset, uint64_t n)
{
    static const uint8_t zeros[65536];
    int error = 0;
    (void)s, (void)offset;
    for (uint64_t part; n && !error; n -= part) {
        part = MIN(n, sizeof(zeros));
        error = pipe_write(zeros, part);
    }
    return error;
}

static int vmdk_packed(struct sink *s, uint64_t offset, const void *from, uint32_t stored)
{
    g_autoptr(GError) error = NULL;
    bool ok = vmdk_writer_grain(((struct pipe_sink *)s)->vmdk, offset, from, stored, &error);
    return ok ? 0 : -error_errno(error);
}

static int vmdk_zero(struct sink *s, uint64_t offset, uint64_t n)
{
    (void)s, (void)offset, (void)n; /* what no grain covers reads as zero */
    return 0;
}

static int write_for_vmdk(void *owner, const void *from, size_t n)
{
    (void)owner;
    return pipe_write(from, n);
}

static int vmdk_end(struct sink *s, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    (void)size;
    return vmdk_writer_finish(((struct pipe_sink *)s)->vmdk, &error) ? 0 : -error_errno(error);
}

static void vmdk_close(struct sink *s)
{
    vmdk_writer_free(((struct pipe_sink *)s)->vmdk);
}

struct sink *sink_of_pipe(const char *format, const struct options *options, uint64_t size,
                          GError **error)
{
    struct pipe_sink *s = g_new0(struct pipe_sink, 1);
    bool raw = !strcmp(format, "raw");
    s->sink = (struct sink){.size = size, .granule = 1, .ordered = true};
    if (raw) {
        s->sink.data = raw_data;
        s->sink.zero = raw_zero;
        return &s->sink;
    }
    struct vmdk_stream_options how = {.size = size,
                                      .name = "disk.vmdk",
                                      .adapter_type = option_str(options, "adapter_type"),
                                      .hw_version = option_str(options, "hwversion"),
                                      .tools_version = option_str(options, "toolsversion")};
    s->vmdk = vmdk_writer_new(&how, write_for_vmdk, NULL, error);
    if (!s->vmdk) {
        g_free(s);
        return NULL;
    }
    s->sink.codec = &codec_zlib;
    s->sink.unit = s->sink.granule = VMDK_STREAM_UNIT;
    s->sink.starts_zero = true;
    s->sink.packed = vmdk_packed;
    s->sink.zero = vmdk_zero;
    s->sink.end = vmdk_end;
    s->sink.close = vmdk_close;
    return &s->sink;
}
