/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * The bytes under formats, and who reaches them.  `file` is built in; network protocols are
 * modules (GModule) that are loaded when the first name asks for them, each of which exports
 * `const struct protocol lodge_protocol`.  A module links what it needs of base itself.
 *
 * Threads: read, write, zero, discard and flush of one file may be called by several threads
 * at once; the rest only while nothing else is under way.
 */
struct protocol {
    const char *name; /* driver= */
    /* Keys that open() takes besides those of every file; NULL: it looks at all itself. */
    const char *const *open_options;
    /*
     * Sets .priv and .size, perhaps .read_only and .name.  @options has "driver" and either
     * "filename" (a name with its scheme: "nbd://host/export") or the driver's own keys.
     * @flags: enum open_flags.  The text is whole: "Failed to connect to 'x': Connection refused".
     */
    bool (*open)(struct file *f, const json_t *options, unsigned flags, GError **error);
    void (*close)(struct file *f); /* also after an open() that failed */
    /* Exactly @n bytes inside .size.  0 or -errno. */
    int (*read)(struct file *f, uint64_t at, void *to, size_t n);
    /* All below are optional; NULL: -ENOTSUP (discard, flush: nothing to do). */
    int (*write)(struct file *f, uint64_t at, const void *from, size_t n);
    int (*zero)(struct file *f, uint64_t at, uint64_t n, bool may_unmap); /* -ENOTSUP: by writes */
    int (*discard)(struct file *f, uint64_t at, uint64_t n);
    int (*flush)(struct file *f);
    int (*resize)(struct file *f, uint64_t size);
    /* Whether the range from @at begins with data or with a hole, and how far that goes. */
    int (*extent)(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length);
    uint64_t (*allocated)(struct file *f); /* NULL: .size */
    /* Makes @options' file, @size bytes long, or empties the one that is there. */
    bool (*create)(const json_t *options, uint64_t size, GError **error);
    /* For writing, or not any more. */
    bool (*reopen)(struct file *f, bool read_only, GError **error);
    const struct protocol_server *server; /* NULL: only single files can be reached */
    /* Locks what another process has written to, which may have another size now, or unlocks. */
    bool (*hold)(struct file *f, bool on, GError **error);
};

/* Bytes where things are made: all there are, taken by what is there, and free. */
struct server_room {
    uint64_t all, taken, free;
};

/* What protocols can say and do about a whole server, or a pool on it; all optional. */
struct protocol_server {
    /*
     * Appends {"name": text, "size": bytes} to @found for each thing that open() could reach;
     * @options are open()'s without what names one of them.
     */
    bool (*list)(const json_t *options, json_t *found, GError **error);
    /* The names of the targets that a portal has; @options: "portal", "user", "password"... */
    bool (*targets)(const json_t *options, json_t *found, GError **error);
    /* Removes what @options name, for good. */
    bool (*remove)(const json_t *options, GError **error);
    bool (*room)(const json_t *options, struct server_room *room, GError **error);
};
enum { SERVER_LIST_MAX = 16384 }; /* of .list: servers are not trusted */

struct file {
    const struct protocol *protocol;
    void *priv;     /* the protocol's */
    char *name;     /* for messages and info */
    uint64_t size;  /* bytes; file_size(), atomic: writers on several threads let it grow */
    uint32_t align; /* of offset, length and memory, for .fd; 1: none */
    unsigned flags; /* enum open_flags */
    bool read_only;
    /* Local files only: */
    int fd;        /* -1: not local.  O_DIRECT if .direct */
    int cached_fd; /* through the page cache: start-up, and requests that are not aligned */
    bool direct, block_device;
    uint64_t threshold; /* a write that ends beyond it is told of, once; 0: none.  Atomic */
    unsigned watched;   /* by this number, no other file's, once it had one; 0: never */
};
/* Called by whoever writes, on any thread; may be NULL. */
extern void (*file_passed)(struct file *f, uint64_t threshold, uint64_t excess);
/* Before a write that ends at @end. */
void file_writes_to(struct file *f, uint64_t end);

/*
 * @options as struct protocol's open() has them.  NULL as @options: @name, a path or a name
 * with a scheme.
 */
struct file *file_open(const char *name, const json_t *options, unsigned flags, GError **error);
/* A file without a name that goes away with us. */
struct file *file_temporary(uint64_t size, GError **error);
bool file_reopen(struct file *f, bool read_only, GError **error);
/* See node_hand(). */
bool file_hold(struct file *f, bool on, GError **error);
/* Makes or empties the file that name or options say. */
bool file_make(const char *name, const json_t *options, uint64_t size, GError **error);
/* Data or hole at @at; "data" for files that cannot say. */
int file_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length);
/* Raises .size: a write ended there. */
void file_grown(struct file *f, uint64_t end);

/* The protocol that a name's scheme or driver= means; NULL with an error. */
const struct protocol *protocol_find(const char *driver, GError **error);
/* @symbol of module image-@name.so, which stays loaded; for all that few runs need. */
const void *module_symbol(const char *name, const char *symbol, GError **error);
/* The same for module @file of another room, made in @folder of the build. */
const void *module_symbol_of(const char *folder, const char *file, const char *symbol,
                             GError **error);
bool protocol_exists(const char *driver);
/* Whether it reaches other machines: a module's. */
bool protocol_is_remote(const char *driver);
/* "nbd" of "nbd://x", for names that carry a scheme; NULL for paths. */
char *name_scheme(const char *name);
/* The path of a name without a scheme or with file:; NULL: not a local file's name. */
const char *name_local_path(const char *name);

extern const struct protocol protocol_file, protocol_host_device, protocol_null_co,
    protocol_null_aio;
