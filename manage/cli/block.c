/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on the disks of running domains, their limits, core dumps. */
#include "manage/cli/object.h"
#include "manage/cli/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NAMED DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)
#define DISK  {"path", OPT_TEXT, OPT_NEEDED, "the disk's source or target"}

enum { POLL_MS = 100, ABORT_ASYNC = 1, ABORT_PIVOT = 2, JOB_BYTES = 1 };
enum { STATUS_COMPLETED, STATUS_FAILED, STATUS_CANCELED, STATUS_READY, STATUS_NONE = -1 };
enum { CLASS_BLOCK_JOB = 8, CLASS_BLOCK_JOB_2 = 16 };
static const char *const job_names[] = {"Unknown job",  "Block Pull",          "Block Copy",
                                        "Block Commit", "Active Block Commit", "Backup"};

static const char *job_name(int type)
{
    return job_names[type > 0 && type < (int)G_N_ELEMENTS(job_names) ? type : 0];
}

/* ---- waiting for a job ---- */

struct wait {
    struct shell *sh;
    rpc_domain dom;
    const char *disk, *label; /* .label NULL: no progress */
    int64_t until;            /* monotonic, us; 0: as long as it takes */
    bool async;
    int status; /* as an event has told it */
    unsigned percent; /* shown last */
};

static void on_event(uint32_t program, int procedure, const uint8_t *body, size_t n, void *data)
{
    struct wait *w = data;
    rpc_event_block_job message = {0};
    if (program == PROGRAM_REMOTE &&
        (procedure == EVENT_domain_block_job || procedure == EVENT_domain_block_job_2) &&
        packet_decode(body, n, (xdrproc_t)xdr_rpc_event_block_job, &message, sizeof(message))) {
        if (strcmp(message.disk, w->disk) == 0 && strcmp(message.dom.name, w->dom.name) == 0) {
            w->status = message.status;
        }
        xdr_free((xdrproc_t)xdr_rpc_event_block_job, (char *)&message);
    }
}

static bool abort_job(const struct wait *w, unsigned flags, GError **error)
{
    rpc_domain_text_flags args = {w->dom, (char *)w->disk, flags};
    rpc_none none;
    return ask_domain_block_job_abort(shell_rpc(w->sh, NULL), &args, &none, error);
}

/* The job's status at its end or when it is ready. */
static bool wait_job(struct wait *w, int *status, GError **error)
{
    Rpc *rpc = shell_rpc(w->sh, NULL);
    bool given_up = false;
    while (w->status == STATUS_NONE) {
        rpc_domain_text_flags args = {w->dom, (char *)w->disk, JOB_BYTES};
        rpc_block_job_info info;
        if (!ask_domain_get_block_job_info(rpc, &args, &info, error)) {
            return false;
        }
        if (!info.found) {
            w->status = w->status == STATUS_NONE ? STATUS_COMPLETED : w->status;
            break;
        }
        if (w->label && w->percent != progress_percent(info.cur, info.end)) {
            w->percent = progress_percent(info.cur, info.end);
            progress_show(w->label, w->percent);
        }
        if (w->until && g_get_monotonic_time() > w->until && !given_up) {
            given_up = true;
            if (!abort_job(w, w->async ? ABORT_ASYNC : 0, error)) {
                return false;
            }
            w->status = STATUS_CANCELED;
        } else if (!rpc_wait(rpc, POLL_MS, error)) {
            return false;
        }
    }
    *status = w->status;
    bool whole = *status == STATUS_READY || *status == STATUS_COMPLETED;
    if (w->label && whole && w->percent != 100) {
        progress_show(w->label, 100);
    }
    return true;
}

static bool hear(struct wait *w, GError **error)
{
    Rpc *rpc = shell_rpc(w->sh, NULL);
    rpc_on_event(rpc, on_event, w);
    for (int i = 0; i < 2; i++) {
        rpc_domain_register args = {i ? CLASS_BLOCK_JOB_2 : CLASS_BLOCK_JOB, &w->dom};
        rpc_int id;
        if (!ask_connect_domain_event_callback_register_any(rpc, &args, &id, error)) {
            return false;
        }
    }
    return true;
}

/* What a verb says of the ways in which its job may end. */
struct words {
    const char *label, *started, *aborted, *failed, *done;
    const char *ready, *finished; /* of jobs with two ends */
};

/* Begins with @begin and then does what --wait, --pivot and the like ask for. */
static bool run_job(struct shell *sh, const struct args *a, const struct words *words,
                    bool (*begin)(struct shell *, const struct args *, const rpc_domain *,
                                  GError **),
                    bool wait, bool pivot, bool finish, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    uint64_t seconds = 0;
    if (args_number(a, "timeout", &seconds)) {
        wait = true;
        if (seconds < 1 || seconds > G_MAXINT) {
            return shell_fail(error, "invalid timeout");
        }
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    struct wait w = {.sh = sh,
                     .dom = dom,
                     .disk = args_text(a, "path"),
                     .label = args_flag(a, "verbose") ? words->label : NULL,
                     .until = seconds ? g_get_monotonic_time() + (int64_t)seconds * G_USEC_PER_SEC
                                      : 0,
                     .async = args_flag(a, "async"),
                     .status = STATUS_NONE,
                     .percent = G_MAXUINT};
    wait |= pivot || finish;
    if ((wait && !hear(&w, error)) || !begin(sh, a, &dom, error)) {
        return false;
    }
    if (!wait) {
        out_note_open(sh, "%s", words->started);
        return true;
    }
    int status;
    bool ok = wait_job(&w, &status, error);
    rpc_on_event(shell_rpc(sh, NULL), NULL, NULL);
    if (!ok) {
        return false;
    }
    if (status == STATUS_CANCELED || status == STATUS_FAILED) {
        out_text(sh, "result", "\n%s",
                 status == STATUS_CANCELED ? words->aborted : words->failed);
        return false;
    }
    if ((pivot || finish) && !abort_job(&w, pivot ? ABORT_PIVOT : 0, error)) {
        shell_failing(sh, "failed to %s job for disk %s", pivot ? "pivot" : "finish", w.disk);
        return false;
    }
    out_text(sh, "result", "\n%s",
             pivot                    ? "Successfully pivoted"
             : finish                 ? words->finished
             : status == STATUS_READY ? words->ready
                                      : words->done);
    return true;
}

static uint64_t number(const struct args *a, const char *name)
{
    uint64_t n = 0;
    args_number(a, name, &n);
    return n;
}

/* ---- blockpull, blockcommit, blockcopy ---- */

static bool begin_pull(struct shell *sh, const struct args *a, const rpc_domain *dom,
                       GError **error)
{
    rpc_none none;
    char *base = (char *)args_text(a, "base"), *path = (char *)args_text(a, "path");
    unsigned bytes = args_flag(a, "bytes") ? 64 : 0;
    if (!base && !args_flag(a, "keep-relative")) {
        rpc_domain_of_uhyper_flags args = {*dom, path, number(a, "bandwidth"), bytes};
        return ask_domain_block_pull(shell_rpc(sh, NULL), &args, &none, error);
    }
    rpc_block_rebase_args args = {*dom, path, base ? &base : NULL, number(a, "bandwidth"),
                                  bytes | (args_flag(a, "keep-relative") ? 16u : 0)};
    return ask_domain_block_rebase(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_pull(struct shell *sh, const struct args *a, GError **error)
{
    static const struct words words = {.label = "Block Pull",
                                       .started = "Block Pull started",
                                       .aborted = "Pull aborted",
                                       .failed = "Pull failed",
                                       .done = "Pull complete"};
    return run_job(sh, a, &words, begin_pull, args_flag(a, "wait"), false, false, error);
}

static bool begin_commit(struct shell *sh, const struct args *a, const rpc_domain *dom,
                         GError **error)
{
    static const struct flag_bit bits[] = {{"shallow", 1}, {"delete", 2},        {"active", 4},
                                           {"pivot", 4},   {"keep-overlay", 4},  {"keep-relative", 8},
                                           {"bytes", 16}};
    rpc_none none;
    char *base = (char *)args_text(a, "base"), *top = (char *)args_text(a, "top");
    rpc_block_commit_args args = {*dom,
                                  (char *)args_text(a, "path"),
                                  base ? &base : NULL,
                                  top ? &top : NULL,
                                  number(a, "bandwidth"),
                                  flags_of(a, bits, G_N_ELEMENTS(bits))};
    return ask_domain_block_commit(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_commit(struct shell *sh, const struct args *a, GError **error)
{
    bool pivot = args_flag(a, "pivot"), keep = args_flag(a, "keep-overlay");
    bool active = args_flag(a, "active") || pivot || keep;
    const struct words words = {.label = "Block commit",
                                .started = active ? "Active Block Commit started"
                                                  : "Block Commit started",
                                .aborted = "Commit aborted",
                                .failed = "Commit failed",
                                .done = "Commit complete",
                                .ready = "Now in synchronized phase",
                                .finished = "Commit complete, overlay image kept"};
    if (pivot && keep) {
        return shell_fail(error, "Options --pivot and --keep-overlay are mutually exclusive");
    }
    return run_job(sh, a, &words, begin_commit, args_flag(a, "wait"), pivot, keep, error);
}

/* The <disk> of --dest and --format. */
static char *copy_xml(const struct args *a)
{
    g_autofree char *dest = g_markup_escape_text(args_text(a, "dest"), -1);
    const char *format = args_text(a, "format");
    bool device = args_flag(a, "blockdev");
    g_autoptr(GString) xml = g_string_new(NULL);
    g_string_append_printf(xml, "<disk type='%s'>\n  <source %s='%s'/>\n",
                           device ? "block" : "file", device ? "dev" : "file", dest);
    if (format) {
        g_autofree char *safe = g_markup_escape_text(format, -1);
        g_string_append_printf(xml, "  <driver type='%s'/>\n", safe);
    }
    g_string_append(xml, "</disk>\n");
    return g_string_free(g_steal_pointer(&xml), FALSE);
}

static bool begin_copy(struct shell *sh, const struct args *a, const rpc_domain *dom,
                       GError **error)
{
    static const struct flag_bit bits[] = {
        {"shallow", 1}, {"reuse-external", 2}, {"transient-job", 4}, {"synchronous-writes", 8}};
    const char *file = args_text(a, "xml");
    g_autofree char *xml = file ? shell_read_file(file, error) : copy_xml(a);
    rpc_none none;
    rpc_param params[3];
    unsigned n = 0;
    uint64_t v;
    if (!xml) {
        return false;
    }
    if (args_number(a, "bandwidth", &v) && v) {
        uint64_t unit = args_flag(a, "bytes") ? 1 : 1 << 20;
        if (v > G_MAXUINT64 / unit) {
            return shell_fail(error, "bandwidth must be less than %" PRIu64, G_MAXUINT64 / unit);
        }
        params[n++] = (rpc_param){(char *)"bandwidth", {4, {.ul = v * unit}}};
    }
    if (args_number(a, "granularity", &v) && v) {
        params[n++] = (rpc_param){(char *)"granularity", {2, {.ui = (unsigned)v}}};
    }
    if (args_number(a, "buf-size", &v) && v) {
        params[n++] = (rpc_param){(char *)"buf-size", {4, {.ul = v}}};
    }
    rpc_block_copy_args args = {*dom, (char *)args_text(a, "path"), xml, {n, params},
                                flags_of(a, bits, G_N_ELEMENTS(bits))};
    return ask_domain_block_copy(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_copy(struct shell *sh, const struct args *a, GError **error)
{
    static const struct words words = {.label = "Block Copy",
                                       .started = "Block Copy started",
                                       .aborted = "Copy aborted",
                                       .failed = "Copy failed",
                                       .done = "Copy complete",
                                       .ready = "Now in mirroring phase",
                                       .finished = "Successfully copied"};
    bool pivot = args_flag(a, "pivot"), finish = args_flag(a, "finish");
    if (pivot && finish) {
        return shell_fail(error, "Options --pivot and --finish are mutually exclusive");
    }
    if (!args_text(a, "dest") && !args_text(a, "xml")) {
        return shell_fail(error, "need either --dest or --xml");
    }
    if (args_text(a, "dest") && args_text(a, "xml")) {
        return shell_fail(error, "Options --dest and --xml are mutually exclusive");
    }
    if (args_flag(a, "print-xml")) {
        g_autofree char *xml =
            args_text(a, "xml") ? shell_read_file(args_text(a, "xml"), error) : copy_xml(a);
        if (xml) {
            out_text(sh, "xml", "%s", xml);
        }
        return xml != NULL;
    }
    return run_job(sh, a, &words, begin_copy, args_flag(a, "wait"), pivot, finish, error);
}

/* ---- blockjob ---- */

static bool show_job(struct shell *sh, const struct args *a, const rpc_domain *dom, GError **error)
{
    const char *path = args_text(a, "path");
    bool raw = args_flag(a, "raw");
    rpc_domain_text_flags args = {*dom, (char *)path,
                                  !raw || args_flag(a, "bytes") ? JOB_BYTES : 0};
    rpc_block_job_info info;
    if (!ask_domain_get_block_job_info(shell_rpc(sh, NULL), &args, &info, error)) {
        return false;
    }
    if (!info.found) {
        if (!raw) {
            out_note_open(sh, "No current block job for %s", path);
        }
        return true;
    }
    if (raw) {
        out_text(sh, "job", " type=%s\n bandwidth=%" PRIu64 "\n cur=%" PRIu64 "\n end=%" PRIu64 "\n",
                 job_name(info.type), (uint64_t)info.bandwidth, (uint64_t)info.cur,
                 (uint64_t)info.end);
        return true;
    }
    progress_show(job_name(info.type), progress_percent(info.cur, info.end));
    if (info.bandwidth) {
        double value = (double)info.bandwidth;
        static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
        unsigned unit = 0;
        for (; value >= 1024 && unit + 1 < G_N_ELEMENTS(units); unit++) {
            value /= 1024;
        }
        out_text(sh, "bandwidth", "    Bandwidth limit: %" PRIu64 " bytes/s (%-.3f %s/s)",
                 (uint64_t)info.bandwidth, value, units[unit]);
    }
    out_text(sh, "end", "\n");
    return true;
}

static bool run_blockjob(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    uint64_t speed;
    bool pivot = args_flag(a, "pivot"), async = args_flag(a, "async");
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (args_number(a, "bandwidth", &speed)) {
        rpc_domain_of_uhyper_flags args = {dom, (char *)args_text(a, "path"), speed,
                                           args_flag(a, "bytes") ? JOB_BYTES : 0};
        return ask_domain_block_job_set_speed(shell_rpc(sh, NULL), &args, &none, error);
    }
    if (args_flag(a, "abort") || pivot || async) {
        const struct wait w = {.sh = sh, .dom = dom, .disk = args_text(a, "path")};
        return abort_job(&w, (pivot ? ABORT_PIVOT : 0) | (async ? ABORT_ASYNC : 0), error);
    }
    return show_job(sh, a, &dom, error);
}

/* ---- blockresize ---- */

static bool run_resize(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    uint64_t kib = 0;
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args_number(a, "size", &kib);
    rpc_domain_of_uhyper_flags args = {dom, (char *)args_text(a, "path"), kib, 0};
    if (!ask_domain_block_resize(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to resize block device '%s'", args_text(a, "path"));
        return false;
    }
    out_note_open(sh, "Block device '%s' is resized", args_text(a, "path"));
    return true;
}

/* ---- blkdeviotune ---- */

static const char *const limits[] = {
    "total-bytes-sec",           "read-bytes-sec",           "write-bytes-sec",
    "total-iops-sec",            "read-iops-sec",            "write-iops-sec",
    "total-bytes-sec-max",       "read-bytes-sec-max",       "write-bytes-sec-max",
    "total-iops-sec-max",        "read-iops-sec-max",        "write-iops-sec-max",
    "size-iops-sec",             "total-bytes-sec-max-length", "read-bytes-sec-max-length",
    "write-bytes-sec-max-length", "total-iops-sec-max-length", "read-iops-sec-max-length",
    "write-iops-sec-max-length"};

static bool show_limits(struct shell *sh, const rpc_domain *dom, const char *disk, unsigned flags,
                        GError **error)
{
    g_auto(rpc_params_count) ret = {0};
    rpc_domain_maybe_int_flags args = {*dom, (char **)(uintptr_t)&disk, 64, flags};
    if (!ask_domain_get_block_io_tune(shell_rpc(sh, NULL), &args, &ret, error)) {
        shell_failing(sh, "Unable to get block I/O throttle parameters");
        return false;
    }
    for (unsigned i = 0; i < ret.params.params_len; i++) {
        const rpc_param *p = &ret.params.params_val[i];
        g_autofree char *value =
            p->value.type == 7 ? g_strdup(p->value.rpc_value_u.s)
                               : g_strdup_printf("%" PRIu64, (uint64_t)p->value.rpc_value_u.ul);
        g_autofree char *label = g_strdup_printf("%-15s: ", p->field);
        out_field_wide(sh, 0, out_is_json(sh) ? p->field : label, "%s", value);
    }
    return true;
}

static bool run_iotune(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"live", 1}, {"config", 2}};
    const char *disk = args_text(a, "device"), *group = args_text(a, "group-name");
    unsigned flags = flags_of(a, bits, G_N_ELEMENTS(bits)), n = 0;
    rpc_param params[G_N_ELEMENTS(limits) + 1];
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        const char *text = args_text(a, limits[i]);
        uint64_t v;
        if (!text) {
            continue;
        }
        if (!args_scaled(text, 1, &v)) {
            return shell_fail(error, "Unable to parse integer parameter '--%s'", limits[i]);
        }
        char *name = g_strdelimit(g_strdup(limits[i]), "-", '_');
        g_ptr_array_add(names, name);
        params[n++] = (rpc_param){name, {4, {.ul = v}}};
    }
    if (group) {
        params[n++] = (rpc_param){(char *)"group_name", {7, {.s = (char *)(uintptr_t)group}}};
    }
    if (!n) {
        return show_limits(sh, &dom, disk, flags, error);
    }
    rpc_domain_of_params_flags args = {dom, (char *)(uintptr_t)disk, {n, params}, flags};
    if (!ask_domain_set_block_io_tune(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Unable to change block I/O throttle");
        return false;
    }
    return true;
}

/* ---- dump ---- */

static bool run_threshold(struct shell *sh, const struct args *a, GError **error)
{
    const char *text = args_text(a, "threshold");
    g_auto(rpc_domain) dom = {0};
    uint64_t bytes;
    rpc_none none;
    if (!args_scaled(text, 1, &bytes)) {
        return shell_fail(error, "Scaled numeric value '%s' for <threshold> option is malformed "
                                 "or out of range", text);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_of_uhyper_flags args = {dom, (char *)args_text(a, "dev"), bytes, 0};
    return ask_domain_set_block_threshold(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_dump(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const formats[] = {"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy",
                                          "win-dmp"};
    static const struct flag_bit bits[] = {
        {"crash", 1}, {"live", 2}, {"bypass-cache", 4}, {"reset", 8}, {"memory-only", 16}};
    const char *to = args_text(a, "file"), *format = args_text(a, "format");
    unsigned flags = flags_of(a, bits, G_N_ELEMENTS(bits)), kind = 0;
    g_auto(rpc_domain) dom = {0};
    rpc_none none;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (format && !args_flag(a, "memory-only")) {
        return shell_fail(error, "--format only works with --memory-only");
    }
    while (format && kind < G_N_ELEMENTS(formats) && strcmp(formats[kind], format) != 0) {
        kind++;
    }
    if (kind == G_N_ELEMENTS(formats)) {
        return shell_fail(error,
                          "format '%s' is not supported, expecting 'kdump-zlib', 'kdump-lzo', "
                          "'kdump-snappy', 'win-dmp' or 'elf'",
                          format);
    }
    g_autofree char *full = g_canonicalize_filename(to, NULL);
    rpc_domain_text_flags plain = {dom, full, flags};
    rpc_core_dump_args named = {dom, full, kind, flags};
    struct progress *p = args_flag(a, "verbose") ? progress_begin(sh, &dom, "Dump") : NULL;
    bool ok = format ? ask_domain_core_dump_with_format(shell_rpc(sh, NULL), &named, &none, error)
                     : ask_domain_core_dump(shell_rpc(sh, NULL), &plain, &none, error);
    if (p) {
        progress_end(p, ok);
    }
    if (!ok) {
        shell_failing(sh, "Failed to core dump domain '%s' to %s", dom.name, to);
        return false;
    }
    out_note_open(sh, "\nDomain '%s' dumped to %s\n", dom.name, to);
    return true;
}

#define WAITING                                                                                    \
    {"wait", OPT_BOOL, 0, "until the job is over or could be"},                                    \
        {"verbose", OPT_BOOL, 0, "show how it goes on"},                                           \
        {"timeout", OPT_NUMBER, OPT_NAMED, "wait so many seconds, then give it up"},               \
        {"async", OPT_BOOL, 0, "do not wait for its end when it is given up"},                     \
        {"bytes", OPT_BOOL, 0, "the bandwidth is in bytes a second"},                              \
        {"bandwidth", OPT_NUMBER, OPT_NAMED, "MiB a second at most"}
#define LIMIT(name) {name, OPT_TEXT, OPT_NAMED, "bytes, requests or seconds; 0: no limit"}

const struct verb_group verb_group_block = {"Disks at work", "block", (const struct verb_row[]){
    {"blkdeviotune", (const struct option_row[]){DOMAIN_OPTION(COMPLETE_DOMAIN),
        {"device", OPT_TEXT, OPT_NEEDED, "the disk's source or target"},
        LIMIT("total-bytes-sec"), LIMIT("read-bytes-sec"), LIMIT("write-bytes-sec"),
        LIMIT("total-iops-sec"), LIMIT("read-iops-sec"), LIMIT("write-iops-sec"),
        LIMIT("total-bytes-sec-max"), LIMIT("read-bytes-sec-max"), LIMIT("write-bytes-sec-max"),
        LIMIT("total-iops-sec-max"), LIMIT("read-iops-sec-max"), LIMIT("write-iops-sec-max"),
        LIMIT("size-iops-sec"), {"group-name", OPT_TEXT, OPT_NAMED, "disks that share limits"},
        LIMIT("total-bytes-sec-max-length"), LIMIT("read-bytes-sec-max-length"),
        LIMIT("write-bytes-sec-max-length"), LIMIT("total-iops-sec-max-length"),
        LIMIT("read-iops-sec-max-length"), LIMIT("write-iops-sec-max-length"),
        {"config", OPT_BOOL, 0, "from the next start on"}, {"live", OPT_BOOL, 0, "of the running domain"},
        {"current", OPT_BOOL, 0, "of what it is now"}, {NULL}},
     "prints or changes how fast a disk may be", run_iotune},
    {"blockcommit", (const struct option_row[]){NAMED, DISK, WAITING,
        {"base", OPT_TEXT, OPT_NAMED, "the image to write to (the lowest)"},
        {"shallow", OPT_BOOL, 0, "to the image just below"},
        {"top", OPT_TEXT, OPT_NAMED, "the image to begin with (the top)"},
        {"active", OPT_BOOL, 0, "the top too, which the guest writes to"},
        {"delete", OPT_BOOL, 0, "remove what was committed"},
        {"pivot", OPT_BOOL, 0, "wait and go on with the base"},
        {"keep-overlay", OPT_BOOL, 0, "wait and go on with the top"},
        {"keep-relative", OPT_BOOL, 0, "backing files go on being named relatively"}, {NULL}},
     "writes images of a disk into one below them", run_commit},
    {"blockcopy", (const struct option_row[]){NAMED, DISK,
        {"dest", OPT_TEXT, 0, "the new image", COMPLETE_FILE}, WAITING,
        {"shallow", OPT_BOOL, 0, "only the top, over the same images"},
        {"reuse-external", OPT_BOOL, 0, "into an image that is there"},
        {"blockdev", OPT_BOOL, 0, "the destination is a block device"},
        {"pivot", OPT_BOOL, 0, "wait and go on with the copy"},
        {"finish", OPT_BOOL, 0, "wait and go on with the old"},
        {"xml", OPT_TEXT, OPT_NAMED, "file that describes the destination", COMPLETE_FILE},
        {"format", OPT_TEXT, OPT_NAMED, "of the new image"},
        {"granularity", OPT_NUMBER, OPT_NAMED, "bytes that are copied together"},
        {"buf-size", OPT_NUMBER, OPT_NAMED, "bytes under way at most"},
        {"transient-job", OPT_BOOL, 0, "it may be lost with the machine"},
        {"synchronous-writes", OPT_BOOL, 0, "the guest waits for both"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, {NULL}},
     "copies a disk while it is used", run_copy},
    {"blockjob", (const struct option_row[]){NAMED, DISK,
        {"abort", OPT_BOOL, 0, "give it up"}, {"async", OPT_BOOL, 0, "and do not wait for that"},
        {"pivot", OPT_BOOL, 0, "complete it and go on with the other image"},
        {"info", OPT_BOOL, 0, "tell how it goes on"}, {"bytes", OPT_BOOL, 0, "bandwidth in bytes"},
        {"raw", OPT_BOOL, 0, "figures for programs"},
        {"bandwidth", OPT_NUMBER, OPT_NAMED, "another limit, MiB a second"}, {NULL}},
     "tells of a disk's job, changes or ends it", run_blockjob},
    {"blockpull", (const struct option_row[]){NAMED, DISK, WAITING,
        {"base", OPT_TEXT, OPT_NAMED, "the image that stays below"},
        {"keep-relative", OPT_BOOL, 0, "backing files go on being named relatively"}, {NULL}},
     "copies what lies below into a disk's own image", run_pull},
    {"blockresize", (const struct option_row[]){NAMED, DISK,
        {"size", OPT_SIZE, OPT_NEEDED, "KiB, or with a suffix"}, {NULL}},
     "gives a disk another size", run_resize},
    {"domblkthreshold", (const struct option_row[]){NAMED,
        {"dev", OPT_TEXT, OPT_NEEDED, "target of the disk, also with an image's number: vda[1]"},
        {"threshold", OPT_TEXT, OPT_NEEDED, "bytes, or with a suffix"}, {NULL}},
     "asks for an event when a disk's image is written so far", run_threshold},
    {"dump", (const struct option_row[]){NAMED,
        {"file", OPT_TEXT, OPT_NEEDED, "where to", COMPLETE_FILE},
        {"live", OPT_BOOL, 0, "the guest goes on meanwhile"},
        {"crash", OPT_BOOL, 0, "end the domain afterwards"},
        {"bypass-cache", OPT_BOOL, 0, "past the host's cache"},
        {"reset", OPT_BOOL, 0, "reset the domain afterwards"},
        {"verbose", OPT_BOOL, 0, "show how it goes on"},
        {"memory-only", OPT_BOOL, 0, "memory and registers as an ELF core"},
        {"format", OPT_TEXT, OPT_NAMED, "of a core of memory: elf"}, {NULL}},
     "writes a domain's core to a file", run_dump},
    {NULL}}};
