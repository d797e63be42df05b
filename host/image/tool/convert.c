/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"
#include "host/image/tool/pipe.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* lodge-img convert */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'O', NULL, "FORMAT", "format of TARGET (raw)"},
    {'B', NULL, "BACKING", "TARGET gets this backing file; what FILE has from its own is left out"},
    {'F', NULL, "FORMAT", "format of BACKING"},
    {'C', NULL, NULL, "let the kernel copy where it can"},
    {'c', NULL, NULL, "compress"},
    {0, "compression", "zlib|zstd", "compress qcow2 by this method"},
    {0, "level", "N", "level of compression; 1 is the fastest"},
    {'o', NULL, "OPTIONS", "options of TARGET's format; -o help lists them"},
    {'l', NULL, "SNAPSHOT", "copy this snapshot: ID, NAME, snapshot.id=ID or snapshot.name=NAME"},
    {'S', NULL, "SIZE", "runs of zeros of this size are left out (4k); 0: TARGET is written whole"},
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    {'n', NULL, NULL, "TARGET is there already"},
    OPTION_CACHE,
    OPTION_SRC_CACHE,
    {'m', NULL, "N", "threads, 1 to 16 (one for each processor)"},
    {'W', NULL, NULL, "write in any order"},
    OPTION_SHARE,
    {'r', NULL, "RATE", "bytes a second at most"},
    {0, "salvage", NULL, "go on after read errors; what is unreadable becomes zeros"},
    {0, "target-is-zero", NULL, "with -n: TARGET reads as zero already"},
    {0, "bitmaps", NULL, "copy persistent bitmaps too"},
    {0, "skip-broken-bitmaps", NULL, "but not those that are marked inconsistent"},
    {0, "target-image-opts", NULL, "TARGET is a list such as driver=qcow2,file.filename=PATH"},
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { MAX_SPARSE = INT32_MAX };

struct convert {
    struct args *args;
    struct tool_common common;
    const char *target, *format; /* .format: of the target */
    unsigned source_flags, target_flags;
    uint64_t sparse, rate, threads, level;
    bool make, packed, quiet, has_backing;
    struct tool_create create;
    struct node **sources;
    unsigned n_sources;
    struct node *out;
    /* Standard input and output. */
    struct pipe_in in;
    struct feed *pipe_feed; /* the only source, instead of .sources */
    bool pipe_out;          /* to standard output as it comes */
    char *spool;            /* the target, until it goes to standard output */
};

/* ---- the command line ---- */

static bool take_numbers(struct convert *c)
{
    const char *s = args_get(c->args, "S"), *m = args_get(c->args, "m");
    const char *r = args_get(c->args, "r"), *level = args_get(c->args, "level");
    if (s && !tool_number("buffer size for sparse output", s, 0, MAX_SPARSE, &c->sparse)) {
        return false;
    }
    if (c->sparse % 512) {
        tool_error(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples "
            "of 512 up to %d. Select 0 to disable sparse detection (fully allocates output).",
            MAX_SPARSE / 512 * 512);
        return false;
    }
    if (m && (!text_u64(m, &c->threads) || c->threads < 1 || c->threads > THREADS_MAX)) {
        tool_error("Invalid number of coroutines. Allowed number of coroutines is between 1 and %d",
                   THREADS_MAX);
        return false;
    }
    if (level && (!text_u64(level, &c->level) || c->level < 1 || c->level > 22)) {
        tool_error("Invalid level '%s': levels are 1 to 12 for zlib and 1 to 22 for zstd", level);
        return false;
    }
    return !r || tool_number("rate limit", r, 1, INT64_MAX, &c->rate);
}

static bool take_caches(struct convert *c)
{
    const char *t = args_get(c->args, "t"), *source = args_get(c->args, "T");
    if (!cache_flags(t ? t : "unsafe", &c->target_flags)) {
        tool_error("Invalid cache option: %s", t);
        return false;
    }
    if (!cache_flags(source, &c->source_flags)) {
        tool_error("Invalid source cache option: %s", source);
        return false;
    }
    return true;
}

/* The combinations that cannot be. */
static bool check_switches(struct convert *c)
{
    const struct args *a = c->args;
    bool n = args_has(a, "n");
    const char *wrong = NULL;
    if (args_has(a, "C") && args_has(a, "S")) {
        wrong = "Cannot enable copy offloading when -S is used";
    } else if (args_has(a, "C") && c->packed) {
        wrong = "Cannot enable copy offloading when -c is used";
    } else if (args_has(a, "target-image-opts") && !n) {
        wrong = "--target-image-opts requires use of -n flag";
    } else if (args_has(a, "target-is-zero") && !n) {
        wrong = "--target-is-zero requires use of -n flag";
    } else if (args_has(a, "skip-broken-bitmaps") && !args_has(a, "bitmaps")) {
        wrong = "Use of --skip-broken-bitmaps requires --bitmaps";
    } else if (args_has(a, "image-opts") && args_has(a, "f")) {
        wrong = "--image-opts and --format are mutually exclusive";
    } else if (args_has(a, "target-image-opts") && args_has(a, "O")) {
        wrong = "--target-image-opts and -O are mutually exclusive";
    } else if (a->n_operands < 2) {
        wrong = "Must specify image file name";
    }
    if (wrong) {
        tool_error("%s", wrong);
    }
    return !wrong;
}

static bool take_args(struct convert *c)
{
    const char *method = args_get(c->args, "compression");
    c->format = args_get(c->args, "O");
    c->format = c->format || args_has(c->args, "target-image-opts") ? c->format : "raw";
    c->packed = args_has(c->args, "c") || method;
    c->make = !args_has(c->args, "n");
    c->quiet = args_has(c->args, "q");
    c->sparse = SPARSE_DEFAULT;
    c->threads = (uint64_t)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, THREADS_MAX);
    if (!take_numbers(c) || !tool_common(c->args, &c->common) || !take_caches(c) ||
        !check_switches(c)) {
        return false;
    }
    c->n_sources = c->args->n_operands - 1;
    c->target = c->args->operands[c->n_sources];
    c->create.name = c->target;
    c->create.format = c->format;
    return true;
}

/* ---- standard input and output ---- */

static bool is_one_of(const char *format, const char *const *formats)
{
    return format && g_strv_contains(formats, format);
}

/* Whether standard output takes the target without a file in between. */
static bool streams_out(const struct convert *c)
{
    static const char *const streams[] = {"raw", "vmdk", NULL};
    if (args_has(c->args, "o")) { /* options say how a file is laid out */
        return !strcmp(c->format, "vmdk");
    }
    return is_one_of(c->format, streams) || (!strcmp(c->format, "qcow2") && !c->packed);
}

/* Whether the bytes of standard input can be taken as they come. */
static bool streams_in(const struct convert *c)
{
    static const char *const growing[] = {"raw", "qcow2", NULL};
    if (args_has(c->args, "l") || args_has(c->args, "B") || !c->make) {
        return false;
    }
    if (c->pipe_out && strcmp(c->format, "raw")) { /* the size stands in front */
        return !strcmp(c->in.format, "vmdk") && !strcmp(c->format, "vmdk");
    }
    return !strcmp(c->in.format, "vmdk") ||
           (!strcmp(c->in.format, "raw") && (c->pipe_out || is_one_of(c->format, growing)));
}

static bool take_stdin(struct convert *c)
{
    GError *error = NULL;
    if (!is_pipe_in(c->args->operands[0])) {
        c->args->operands[0] = (char *)"/proc/self/fd/0";
        return true;
    }
    if (!pipe_in_open(&c->in, args_get(c->args, "f"), &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    if (streams_in(c)) {
        c->pipe_feed = feed_of_pipe(&c->in, &error);
        c->create.size = c->pipe_feed && c->pipe_feed->size != UINT64_MAX ? c->pipe_feed->size : 0;
    } else {
        c->args->operands[0] = pipe_in_spool(&c->in, &error); /* until the program ends */
    }
    if (error) {
        tool_report(error, "Could not open '-': ");
    }
    return !error;
}

static bool take_stdout(struct convert *c)
{
    GError *error = NULL;
    if (!is_pipe_out(c->target)) {
        return true;
    }
    if (!c->make || args_has(c->args, "target-image-opts") || args_has(c->args, "bitmaps")) {
        tool_error("-n, --target-image-opts and --bitmaps need a file that can be opened, not '-'");
        return false;
    }
    if (isatty(STDOUT_FILENO)) {
        tool_error("An image does not belong on a terminal: send it to a file or a program");
        return false;
    }
    signal(SIGPIPE, SIG_IGN); /* EPIPE is told like other errors */
    progress_to_stderr();
    c->pipe_out = streams_out(c);
    if (!c->pipe_out) {
        c->create.name = c->target = c->spool = spool_new(&error);
    }
    if (error) {
        tool_report(error, "%s", "");
    }
    return !error;
}

/* ---- sources ---- */

static bool open_sources(struct convert *c)
{
    if (c->n_sources == 1 && !strcmp(c->args->operands[0], "-") && !take_stdin(c)) {
        return false;
    }
    if (c->pipe_feed) {
        c->n_sources = 0;
        return true;
    }
    c->sources = g_new0(struct node *, c->n_sources);
    for (unsigned i = 0; i < c->n_sources; i++) {
        c->sources[i] = tool_open(&c->common, c->args->operands[i], args_get(c->args, "f"),
                                  OPEN_READ_ONLY | c->source_flags);
        if (!c->sources[i]) {
            return false;
        }
        if (__builtin_add_overflow(c->create.size, c->sources[i]->size, &c->create.size) ||
            c->create.size > INT64_MAX) {
            tool_error("The sources together are larger than 8 EiB");
            return false;
        }
    }
    return true;
}

/* "NAME", "snapshot.name=NAME" or "snapshot.id=ID". */
static const char *snapshot_word(const char *text)
{
    static const char *const keys[] = {"snapshot.name=", "snapshot.id="};
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (g_str_has_prefix(text, keys[i])) {
            return text + strlen(keys[i]);
        }
    }
    return text;
}

static bool load_snapshot(struct convert *c)
{
    const char *text = args_get(c->args, "l");
    GError *error = NULL;
    if (!text) {
        return true;
    }
    if (c->n_sources > 1) {
        tool_error("No support for concatenating multiple snapshot");
        return false;
    }
    if (!tool_load_snapshot(c->sources[0], snapshot_word(text), &error)) {
        tool_report(error, "Failed to load snapshot: ");
        return false;
    }
    c->create.size = c->sources[0]->size;
    return true;
}

/* ---- the target ---- */

static bool take_backing(struct convert *c)
{
    const char *b = args_get(c->args, "B"), *F = args_get(c->args, "F");
    if (b && !options_set(c->create.options, "backing_file", b, NULL)) {
        tool_error("Backing file not supported for file format '%s'", c->format);
        return false;
    }
    if (F && !options_set(c->create.options, "backing_fmt", F, NULL)) {
        tool_error("Backing format not supported for file format '%s'", c->format);
        return false;
    }
    c->create.backing = option_str(c->create.options, "backing_file");
    c->create.backing_format = option_str(c->create.options, "backing_fmt");
    c->has_backing = c->create.backing != NULL;
    if (c->has_backing && c->n_sources > 1) {
        tool_error("Having a backing file for the target makes no sense when concatenating "
                   "multiple input images");
        return false;
    }
    if (c->has_backing && !c->create.backing_format) {
        tool_error("Use of backing file requires explicit backing format");
        return false;
    }
    return true;
}

static bool check_packed(const struct convert *c, const struct image_format *f)
{
    const char *mode = option_str(c->create.options, "preallocation");
    if (!c->packed) {
        return true;
    }
    if (!f->place_packed) {
        tool_error("Compression not supported for this file format");
        return false;
    }
    if (mode && strcmp(mode, "off")) {
        tool_error("Compression and preallocation not supported at the same time");
        return false;
    }
    if (option_bool(c->create.options, "encryption", false) ||
        option_given(c->create.options, "encrypt.format")) {
        tool_error("Compression and encryption not supported at the same time");
        return false;
    }
    return true;
}

/* The one subformat whose every unit is packed, -c or not, is the only one for a pipe. */
static bool check_subformat(struct convert *c)
{
    const char *subformat = option_str(c->create.options, "subformat");
    bool stream = !g_strcmp0(subformat, "streamOptimized");
    c->packed |= stream;
    if (c->pipe_out && subformat && !stream) {
        tool_error("Of vmdk only subformat=streamOptimized can go to standard output");
        return false;
    }
    return true;
}

static bool prepare_target(struct convert *c)
{
    g_autofree char *text = args_joined(c->args, "o");
    const char *method = args_get(c->args, "compression");
    GError *error = NULL;
    const struct image_format *f = format_find(c->format, NULL);
    if (!f) {
        tool_error("Unknown file format '%s'", c->format);
        return false;
    }
    if (!create_prepare(&c->create, text, &error) ||
        (method && !options_set(c->create.options, "compression_type", method, &error))) {
        tool_report(error, "%s", "");
        return false;
    }
    if (!take_backing(c) || !check_packed(c, f)) {
        return false;
    }
    if (option_given(c->create.options, "size")) {
        c->create.size = option_size(c->create.options, "size", 0);
    }
    return check_subformat(c);
}

static bool make_target(struct convert *c)
{
    GError *error = NULL;
    if (c->make && !c->pipe_out && !create_run(&c->create, &error)) {
        tool_report(error, "%s: error while converting %s: ", c->target, c->format);
        return false;
    }
    return true;
}

static bool open_target(struct convert *c)
{
    struct tool_common common = {.image_opts = args_has(c->args, "target-image-opts"),
                                 .made_with = c->make ? c->create.options : NULL};
    unsigned no_backing = c->make && !c->has_backing ? OPEN_NO_BACKING : 0;
    if (c->pipe_out) {
        return true;
    }
    c->out = tool_open(&common, c->target, c->format, c->target_flags | no_backing | OPEN_UNMAP);
    if (!c->out) {
        return false;
    }
    if (!c->make && c->out->size < c->create.size) {
        tool_error("Output file is smaller than input file");
        return false;
    }
    if (c->packed && !c->out->codec) {
        tool_error("Compression not supported for this file format");
        return false;
    }
    return true;
}

/* ---- the copy ---- */

static bool choose_threads(struct convert *c)
{
    for (unsigned i = 0; i < c->n_sources && !args_has(c->args, "m"); i++) {
        c->threads = MAX(tool_threads(c->sources[i]), tool_threads(c->out));
    }
    return true;
}

/* Space that is there already reads as noise under a cipher. */
static bool has_noise(struct node *n)
{
    struct chain_status s = {.zero = true};
    for (uint64_t at = 0; n->cipher && s.zero && at < n->size; at += s.length) {
        if (chain_status(n, NULL, at, n->size - at, &s) < 0) {
            return true;
        }
    }
    return !s.zero;
}

static bool reads_zero(const struct convert *c)
{
    if (args_has(c->args, "target-is-zero")) {
        return true;
    }
    return c->make && !c->has_backing && !target_is_device(c->out) && !has_noise(c->out);
}

static struct feed *open_feed(struct convert *c)
{
    if (c->pipe_feed) {
        return g_steal_pointer(&c->pipe_feed);
    }
    return c->has_backing ? feed_above(c->sources[0], c->sources[0]->backing)
                          : feed_of_chains(c->sources, c->n_sources);
}

static struct sink *open_sink(struct convert *c, const struct feed *feed)
{
    struct sink_options how = {
        .packed = c->packed,
        .any_order = args_has(c->args, "W"),
        .keep_space = c->sparse == 0,
        .grows = feed->size == UINT64_MAX,
    };
    struct sink *sink;
    GError *error = NULL;
    if (!c->pipe_out) {
        how.starts_zero = reads_zero(c);
        return sink_of_chain(c->out, &how);
    }
    sink = !strcmp(c->format, "qcow2")
               ? sink_of_qcow2_pipe(c->sources, c->n_sources, &error)
               : sink_of_pipe(c->format, c->create.options, c->create.size, &error);
    if (!sink) {
        tool_report(error, "%s", "");
    }
    return sink;
}

/* Every byte, or every cluster that was announced, goes through a pipe. */
static bool writes_all(const struct convert *c)
{
    return c->pipe_out && strcmp(c->format, "vmdk");
}

static bool run_copy(struct convert *c, struct feed *feed, struct sink *sink)
{
    struct copy run = {
        .feed = feed,
        .sink = sink,
        .threads = (unsigned)c->threads,
        .sparse = writes_all(c) ? 0 : c->sparse,
        .level = (int)c->level,
        .rate = c->rate,
        .salvage = args_has(c->args, "salvage"),
        .offload = args_has(c->args, "C"),
        .quiet = c->quiet,
        .progress_of = feed->size == UINT64_MAX ? 0 : feed->size,
        .progress = progress_bytes,
    };
    if (sink->codec && feed->grain > 1 && feed->grain % sink->unit) {
        tool_error("Units of %u bytes cannot be packed from a stream of %u bytes each: use a file",
                   sink->unit, feed->grain);
        return false;
    }
    int error = copy_run(&run);
    if (error) {
        tool_error("error while %s at byte %" PRIu64 ": %s",
                   run.failed_writing ? "writing" : "reading", run.failed_at,
                   feed->why && !run.failed_writing ? feed->why : g_strerror(-error));
    }
    return !error;
}

static bool copy(struct convert *c)
{
    struct feed *feed = open_feed(c);
    struct sink *sink = open_sink(c, feed);
    bool ok = sink && run_copy(c, feed, sink);
    feed_free(feed);
    sink_free(sink);
    return ok;
}

static bool copy_bitmaps(struct convert *c)
{
    GError *error = NULL;
    if (!args_has(c->args, "bitmaps")) {
        return true;
    }
    if (c->n_sources != 1) {
        tool_error("--bitmaps needs one source that can be opened");
        return false;
    }
    const struct format_tools *from = c->sources[0]->format->tools, *to = c->out->format->tools;
    if (!from || !from->bitmaps || !to || !to->bitmaps) {
        tool_error("Format driver '%s' does not support bitmaps",
                   from && from->bitmaps ? c->out->format->name : c->sources[0]->format->name);
        return false;
    }
    if (!to->bitmaps->copy(c->out, c->sources[0], args_has(c->args, "skip-broken-bitmaps"),
                           &error)) {
        tool_report(error, "Failed to copy bitmaps: ");
        return false;
    }
    return true;
}

/* What goes wrong while metadata is written out counts as much as what did before. */
static bool finish(struct convert *c)
{
    int error = c->out ? chain_flush(c->out) : 0;
    if (error) {
        tool_error("error while writing %s: %s", c->target, g_strerror(-error));
    }
    return !error;
}

static bool send_spool(struct convert *c)
{
    GError *error = NULL;
    if (!c->spool) {
        return true;
    }
    tool_close(g_steal_pointer(&c->out));
    if (!spool_out(c->spool, &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    return true;
}

static void clear(struct convert *c)
{
    feed_free(c->pipe_feed);
    tool_close(c->out);
    for (unsigned i = 0; c->sources && i < c->n_sources; i++) {
        tool_close(c->sources[i]);
    }
    g_free(c->sources);
    g_free(c->spool);
    options_free(c->create.options);
}

static int run(struct args *args)
{
    struct convert c = {.args = args};
    g_autofree char *text = args_joined(args, "o");
    if (options_ask_help(text)) {
        const char *name = args_get(args, "O");
        const struct image_format *f = format_find(name ? name : "raw", NULL);
        if (!f) {
            tool_error("Unknown file format '%s'", name);
            return 1;
        }
        return print_create_options(f, args->n_operands > 1);
    }
    if (!take_args(&c) || !progress_begin(args)) {
        return 1;
    }
    if (!c.make && text) {
        tool_warn("-o has no effect when skipping image creation");
    }
    bool ok = take_stdout(&c);
    progress_at(0);
    ok = ok && open_sources(&c) && load_snapshot(&c) && (!c.make || prepare_target(&c)) &&
         make_target(&c) && open_target(&c) && choose_threads(&c) && copy(&c) && copy_bitmaps(&c) && finish(&c) &&
         send_spool(&c);
    if (ok) {
        progress_at(100);
    }
    progress_end();
    clear(&c);
    return ok ? 0 : 1;
}

const struct verb verb_convert = {"convert", "copy disks to a new image, perhaps of another format",
                                  "FILE... TARGET", options, run};
