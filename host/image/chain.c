/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * chain: opening an image and what is below it.  What an image's header says of its backing file
 * fills the gaps that options leave (node_options.c).
 */
#include "host/image/chain.h"

#include "base/json.h"
#include "host/image/cipher.h"
#include "host/image/core.h"
#include "host/image/dirty.h"
#include "host/image/options.h"
#include "host/image/protocol.h"

#include <sys/stat.h>
#include <unistd.h>

/* ---- formats ---- */

const struct image_format *format_find(const char *name, GError **error)
{
    for (unsigned i = 0; i < n_image_formats; i++) {
        if (!strcmp(image_formats[i]->name, name)) {
            return image_formats[i];
        }
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "Unknown driver '%s'", name);
    return NULL;
}

const struct image_format *format_probe(const uint8_t *head, size_t n, const char *file_name)
{
    const struct image_format *best = NULL;
    unsigned most = 0;
    for (unsigned i = 0; i < n_image_formats; i++) {
        unsigned sure = image_formats[i]->probe(head, n, file_name);
        if (sure > most) {
            most = sure;
            best = image_formats[i];
        }
    }
    return best; /* raw is always a little sure */
}

static const struct image_format *probe_file(struct file *f, GError **error)
{
    uint8_t head[PROBE_BYTES];
    size_t n = (size_t)MIN(file_size(f), sizeof(head));
    int r = file_read(f, 0, head, n);
    if (r < 0) {
        error_set_errno(error, -r, "Could not read image for determining its format");
        return NULL;
    }
    const struct image_format *format = format_probe(head, n, f->name);
    const char *known = image_probe_name(head, n);
    return known && !strcmp(format->name, "raw") ? format_find(known, error) : format;
}

void check_tell(struct check_result *out, const char *fmt, ...)
{
    if (out->tell) {
        va_list ap;
        va_start(ap, fmt);
        g_autofree char *line = g_strdup_vprintf(fmt, ap);
        va_end(ap);
        out->tell(out->owner, line);
    }
}

/* ---- nodes ---- */

struct node *node_new(const struct image_format *format, struct file *file)
{
    struct node *n = g_new0(struct node, 1);
    n->core = g_new0(struct core, 1);
    n->format = format;
    n->file = file;
    n->granule = n->align = 1;
    g_mutex_init(&n->lock);
    g_mutex_init(&n->core->tracks.lock);
    g_cond_init(&n->core->tracks.ended);
    g_mutex_init(&n->core->units.lock);
    return n;
}

static void format_close(struct node *n)
{
    if (n->core->opened) {
        n->format->close(n);
        n->core->opened = false;
    }
    units_clear(&n->core->units);
    g_clear_pointer(&n->backing_name, g_free);
    g_clear_pointer(&n->backing_format, g_free);
}

void node_close(struct node *n)
{
    if (!n) {
        return;
    }
    format_close(n);
    file_close(n->file);
    json_decref(n->options);
    g_mutex_clear(&n->lock);
    g_mutex_clear(&n->core->tracks.lock);
    g_cond_clear(&n->core->tracks.ended);
    g_mutex_clear(&n->core->units.lock);
    dirty_forget(n);
    g_free(n->core->name);
    g_free(n->core);
    g_free(n);
}

void chain_close(struct node *n)
{
    while (n) {
        struct node *backing = n->backing;
        node_close(n);
        n = backing;
    }
}

bool node_guessed(const struct node *n)
{
    return n->core->guessed;
}

const char *node_name(const struct node *n)
{
    return n->core->name ? n->core->name : n->file ? n->file->name : "";
}

static bool is_power(uint32_t v)
{
    return v && !(v & (v - 1));
}

static bool format_open(struct node *n, GError **error)
{
    n->core->opened = true;
    n->granule = n->align = 1;
    if (!n->format->open(n, n->flags, error)) {
        return false;
    }
    if (!is_power(n->granule) || !is_power(n->align) || n->size > INT64_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Image is too big");
        return false;
    }
    return true;
}

static bool choose_format(struct node *n, const json_t *o, GError **error)
{
    const char *driver = json_text(o, "driver");
    if (driver && protocol_exists(driver)) {
        driver = "raw";
    }
    if (driver) {
        n->format = format_find(driver, error);
        return n->format;
    }
    n->format = probe_file(n->file, error);
    n->core->guessed = n->format && !strcmp(n->format->name, "raw");
    return n->format;
}

struct node *node_open_file(struct file *f, const char *name, json_t *o, unsigned flags,
                            GError **error)
{
    struct node *n = node_new(NULL, f);
    n->options = json_incref(o);
    n->core->name = g_strdup(name ? name : n->file->name);
    n->read_only = n->file->read_only || (flags & OPEN_LATER);
    n->flags = n->read_only ? flags | OPEN_READ_ONLY : flags;
    n->untrusted = (flags | f->flags) & OPEN_UNTRUSTED;
    if (!choose_format(n, o, error) || !format_open(n, error)) {
        node_close(n);
        return NULL;
    }
    n->read_only |= !n->format->place;
    return n;
}

static bool is_write_refused(const GError *error)
{
    int code = error_errno(error);
    return code == EACCES || code == EPERM || code == EROFS;
}

struct file *node_file_open(json_t *part, unsigned flags, GError **error)
{
    unsigned own = flags & ~(unsigned)OPEN_COPY_ON_READ;
    if (!options_flags(part, &own, error)) {
        return NULL;
    }
    own |= flags & OPEN_READ_ONLY;
    if (!options_are_node(part)) {
        return file_open(NULL, part, own, error);
    }
    struct node *inner = chain_open(&(struct chain_open){.options = part, .flags = own}, error);
    return inner ? file_of_node(inner) : NULL;
}

/* @o: the node's object, @part: its file's. */
static struct file *open_part(const json_t *o, json_t *part, unsigned flags, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool either = false;
    if (!json_bool(o, "auto-read-only", &either, error)) {
        return NULL;
    }
    struct file *f = node_file_open(part, flags, &why);
    if (!f && either && !(flags & OPEN_READ_ONLY) && is_write_refused(why)) {
        f = node_file_open(part, flags | OPEN_READ_ONLY, error);
    } else if (!f) {
        g_propagate_error(error, g_steal_pointer(&why));
    }
    return f;
}

static struct node *node_open(const char *name, json_t *o, unsigned flags, GError **error)
{
    g_autoptr(json_t) part = options_file_part(o);
    if (!options_flags(o, &flags, error)) {
        return NULL;
    }
    g_autofree char *shown = options_name(o, name);
    struct file *f = open_part(o, part, flags, error);
    struct node *n = f ? node_open_file(f, shown, o, flags, error) : NULL;
    if (n && !options_check(n, part, error)) {
        node_close(n);
        return NULL;
    }
    if (n && n->read_only && (flags & OPEN_COPY_ON_READ)) {
        g_set_error(error, LODGE_ERROR, EROFS, "Can't use copy-on-read on read-only device");
        node_close(n);
        return NULL;
    }
    return n;
}

bool node_reopen(struct node *n, bool read_only, GError **error)
{
    if (n->read_only == read_only) {
        return true;
    }
    if (!n->format->place) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "format \"%s\" cannot be written", n->format->name);
        return false;
    }
    unsigned flags = n->flags;
    format_close(n);
    bool reopened = file_reopen(n->file, read_only, error);
    n->read_only = n->file->read_only;
    n->flags = n->read_only ? flags | OPEN_READ_ONLY : flags & ~(unsigned)OPEN_READ_ONLY;
    return format_open(n, reopened ? error : NULL) && reopened;
}

bool node_hand(struct node *n, bool ours, GError **error)
{
    unsigned flags = n->flags & ~(unsigned)(OPEN_LATER | OPEN_READ_ONLY);
    format_close(n);
    bool ok = file_hold(n->file, ours, error);
    n->read_only = !ok || !ours;
    n->flags = n->read_only ? flags | OPEN_LATER | OPEN_READ_ONLY : flags;
    return format_open(n, ok ? error : NULL) && ok;
}

bool chain_resize(struct node *n, uint64_t size, enum preallocation how, GError **error)
{
    const struct format_tools *tools = n->format->tools;
    uint64_t was = n->size;
    if (!tools || !tools->resize) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Image format driver does not support resize");
        return false;
    }
    bool ok = tools->resize(n, size, how, error);
    if (!ok && n->size > was) {
        tools->resize(n, was, PREALLOC_OFF, NULL);
    }
    return ok;
}

/* ---- backing files ---- */

/* @name, which stands in @node's header, as seen from our working directory. */
static char *beside(const struct node *n, const char *name)
{
    g_autofree char *scheme = name_scheme(name);
    const struct file *f = file_innermost(n->file);
    if (scheme || name[0] == '/' || f->fd < 0) {
        return g_strdup(name);
    }
    g_autofree char *dir = g_path_get_dirname(f->name);
    return strcmp(dir, ".") || g_str_has_prefix(f->name, "./")
               ? g_build_filename(dir, name, NULL) : g_strdup(name);
}

char *node_backing_path(const struct node *n)
{
    return n->backing_name ? beside(n, n->backing_name) : NULL;
}

/* For images that nobody vouches for: @name is a plain file in the image's own directory,
 * symbolic links followed.  The path, or NULL. */
static char *trusted_path(const struct node *n, const char *name, GError **error)
{
    g_autofree char *path = beside(n, name), *scheme = name_scheme(name);
    g_autofree char *dir = g_path_get_dirname(n->file->name);
    char *real_dir = n->file->fd < 0 ? NULL : realpath(dir, NULL), *real = realpath(path, NULL);
    struct stat st;
    g_autofree char *inside = real_dir ? g_strconcat(real_dir, strcmp(real_dir, "/") ? "/" : "", NULL)
                                       : NULL;
    bool fits = !scheme && real && inside && g_str_has_prefix(real, inside) &&
                !strchr(real + strlen(inside), '/') && !lstat(real, &st) && S_ISREG(st.st_mode);
    g_autofree char *result = fits ? g_strdup(real) : NULL;
    free(real);
    free(real_dir);
    if (!fits) {
        g_autofree char *shown = g_strescape(name, NULL);
        g_set_error(error, LODGE_ERROR, EPERM,
                    "untrusted image names '%s', which is no plain file in its own directory", shown);
    }
    return g_steal_pointer(&result);
}

struct file *file_open_beside(struct node *n, const char *name, bool read_only, GError **error)
{
    g_autofree char *path = n->untrusted ? trusted_path(n, name, error) : beside(n, name);
    if (!path) {
        return NULL;
    }
    if (g_str_has_prefix(path, "json:")) {
        g_set_error(error, LODGE_ERROR, EPERM, "a name inside an image cannot be json:");
        return NULL;
    }
    unsigned flags = read_only ? n->flags | OPEN_READ_ONLY : n->flags & ~(unsigned)OPEN_READ_ONLY;
    return file_open(path, NULL, flags, error);
}

static bool is_file(const struct file *f, const struct stat *st)
{
    struct stat own;
    return f->cached_fd >= 0 && !fstat(f->cached_fd, &own) && own.st_dev == st->st_dev &&
           own.st_ino == st->st_ino;
}

static bool same_file(const struct file *a, const struct file *b)
{
    struct stat st;
    return b->cached_fd >= 0 && !fstat(b->cached_fd, &st) && is_file(a, &st);
}

static bool endless(GError **error, const char *name, const struct node *n)
{
    g_set_error(error, LODGE_ERROR, ELOOP, "Backing file '%s' of '%s' creates an infinite loop.", name,
                n->file->name);
    return false;
}

/* Before it is opened, which our own lock on it would refuse. */
static bool check_name(const struct node *top, const char *name, GError **error)
{
    const char *path = name ? name_local_path(name) : NULL;
    struct stat st;
    for (const struct node *n = path && !stat(path, &st) ? top : NULL; n; n = n->backing) {
        if (is_file(n->file, &st)) {
            return endless(error, name, n);
        }
    }
    return true;
}

/* A chain that comes back to a file it has been at would never end. */
static bool check_loop(const struct node *top, const struct node *last, GError **error)
{
    unsigned depth = 0;
    for (const struct node *n = top; n && n != last; n = n->backing) {
        if (same_file(n->file, last->file)) {
            return endless(error, last->file->name, n);
        }
        depth++;
    }
    if (depth >= CHAIN_DEPTH_MAX) {
        g_set_error(error, LODGE_ERROR, ELOOP, "more than %d backing files", CHAIN_DEPTH_MAX);
        return false;
    }
    return true;
}

/* How the node below @n is opened; false with *@error, or with nothing set at the end. */
static bool what_is_below(struct node *n, struct chain_open *how, char **path, GError **error)
{
    json_t *said = json_object_get(n->options, "backing");
    *how = (struct chain_open){.options = json_is_object(said) ? said : NULL,
                               .flags = (n->flags | OPEN_READ_ONLY) & ~(unsigned)(OPEN_CHECK | OPEN_COPY_ON_READ | OPEN_LATER)};
    if ((n->flags & OPEN_NO_BACKING) || json_is_null(said) ||
        (json_is_string(said) && !*json_string_value(said))) {
        return false;
    }
    if (json_is_string(said)) {
        how->name = *path = g_strdup(json_string_value(said));
        return true;
    }
    if (how->options && options_have_file(how->options)) {
        return true;
    }
    if (!n->backing_name) {
        return how->options != NULL;
    }
    *path = n->untrusted ? trusted_path(n, n->backing_name, error) : beside(n, n->backing_name);
    how->name = *path;
    how->format = how->options && json_text(how->options, "driver") ? NULL : n->backing_format;
    if (*path && n->untrusted && !how->format) {
        g_set_error(error, LODGE_ERROR, EPERM, "untrusted image does not say its backing file's format");
        return false;
    }
    return *path;
}

/* Opens all that is below @last, the end of the chain from @top. */
static bool open_below(struct node *top, struct node *last, GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;
        g_autofree char *path = NULL;
        struct chain_open how;
        if (!what_is_below(last, &how, &path, &why)) {
            if (!why) {
                return true;
            }
            g_propagate_prefixed_error(error, g_steal_pointer(&why), "Could not open backing file: ");
            return false;
        }
        g_autoptr(json_t) o = options_merge(&how, &why);
        struct node *next = o && check_name(top, path, &why) ? node_open(path, o, how.flags, &why)
                                                             : NULL;
        last->backing = next;
        if (!next || !check_loop(top, next, &why)) {
            g_propagate_prefixed_error(error, g_steal_pointer(&why), "Could not open backing file: ");
            return false;
        }
        last = next;
    }
}

struct node *chain_open(const struct chain_open *how, GError **error)
{
    g_autoptr(json_t) o = options_merge(how, error);
    struct node *top = o ? node_open(how->name, o, how->flags, error) : NULL;
    if (top && !open_below(top, top, error)) {
        chain_close(top);
        return NULL;
    }
    return top;
}

bool node_open_backing(struct node *n, const struct chain_open *how, GError **error)
{
    struct node *below = chain_open(how, error);
    for (struct node *b = below; b; b = b->backing) {
        if (same_file(b->file, n->file)) {
            g_set_error(error, LODGE_ERROR, ELOOP, "'%s' would be its own backing file", n->file->name);
            chain_close(below);
            return false;
        }
    }
    n->backing = below;
    return below;
}

/* ---- new images ---- */

static bool is_there(const struct chain_create *how)
{
    const char *path = how->name ? name_local_path(how->name) : NULL;
    return !path || !access(path, F_OK);
}

bool chain_create(const struct chain_create *how, GError **error)
{
    const struct image_format *format = format_find(how->format, error);
    bool existed = is_there(how);
    if (!format) {
        return false;
    }
    if (!format->tools || !format->tools->create) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Format driver '%s' does not support image creation",
                    format->name);
        return false;
    }
    struct image_create c = {.name = how->name,
                             .size = how->size,
                             .backing_name = how->backing_name,
                             .backing_format = how->backing_format,
                             .options = how->options,
                             .preallocation = how->preallocation};
    if (!file_make(how->name, how->target, 0, error)) {
        return false;
    }
    c.file = file_open(how->name, how->target, 0, error);
    bool made = c.file && format->tools->create(&c, error);
    file_close(c.file);
    if (!made && !existed) {
        unlink(name_local_path(how->name));
    }
    return made;
}
