/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img check */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_LONG_FORMAT,
    OPTION_OUTPUT,
    {'r', "repair", "leaks|all", "repair lost space, or all errors"},
    OPTION_SRC_CACHE,
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { CODE_FAILED = 1, CODE_CORRUPT = 2, CODE_LEAKS = 3, CODE_NO_CHECK = 63 };

static void tell(void *unused, const char *line)
{
    (void)unused;
    fflush(stdout);
    fprintf(stderr, "%s\n", line);
}

static void print_human(const struct check_result *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        puts("No errors were found on the image.");
    }
    if (r->corruptions) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    }
    if (r->check_errors) {
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    }
    if (r->total_clusters && r->allocated_clusters) {
        double total = (double)r->total_clusters, used = (double)r->allocated_clusters;
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters, used * 100 / total,
               (double)r->fragmented_clusters * 100 / used,
               (double)r->compressed_clusters * 100 / used);
    }
    if (r->image_end_offset) {
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
    }
}

static void set_number(json_t *o, const char *key, uint64_t v)
{
    if (v) {
        json_object_set_new(o, key, json_integer((json_int_t)v));
    }
}

static void print_as_json(const struct check_result *r, const char *file, const char *format)
{
    json_t *o = json_object();
    set_number(o, "image-end-offset", r->image_end_offset);
    set_number(o, "total-clusters", r->total_clusters);
    set_number(o, "allocated-clusters", r->allocated_clusters);
    set_number(o, "fragmented-clusters", r->fragmented_clusters);
    set_number(o, "compressed-clusters", r->compressed_clusters);
    set_number(o, "corruptions", r->corruptions);
    set_number(o, "corruptions-fixed", r->corruptions_fixed);
    set_number(o, "leaks", r->leaks);
    set_number(o, "leaks-fixed", r->leaks_fixed);
    json_object_set_new(o, "check-errors", json_integer((json_int_t)r->check_errors));
    json_object_set_new(o, "filename", json_text_of(file));
    json_object_set_new(o, "format", json_string(format));
    print_json(o);
    json_decref(o);
}

static void print_repaired(const struct check_result *r)
{
    puts("The following inconsistencies were found and repaired:\n");
    printf("    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
           "Double checking the fixed image now...\n",
           r->leaks_fixed, r->corruptions_fixed);
}

static int code_of(const struct check_result *r)
{
    if (r->check_errors) {
        tool_error("Check failed");
        return CODE_FAILED;
    }
    return r->corruptions ? CODE_CORRUPT : r->leaks ? CODE_LEAKS : 0;
}

static int check(struct node *node, const char *file, unsigned fix, bool json, bool quiet)
{
    const struct format_tools *tools = node->format->tools;
    struct check_result r = {.tell = tell};
    GError *error = NULL;
    if (!tools || !tools->check) {
        tool_error("This image format does not support checks");
        return CODE_NO_CHECK;
    }
    bool ok = tools->check(node, fix, &r, &error);
    if (ok && (r.corruptions_fixed || r.leaks_fixed)) {
        if (!json && !quiet) {
            print_repaired(&r);
        }
        struct check_result again = {.tell = tell};
        ok = tools->check(node, FIX_NOTHING, &again, &error);
        again.leaks_fixed = r.leaks_fixed;
        again.corruptions_fixed = r.corruptions_fixed;
        r = again;
    }
    if (!ok) {
        int code = error_errno(error) == ENOTSUP ? CODE_NO_CHECK : CODE_FAILED;
        bool told = code == CODE_NO_CHECK || g_str_has_prefix(error->message, "Check failed");
        tool_report(error, "%s", told ? "" : "Check failed: ");
        return code;
    }
    if (json) {
        print_as_json(&r, file, node->format->name);
    } else if (!quiet) {
        print_human(&r);
    }
    return code_of(&r);
}

static int run(struct args *args)
{
    struct tool_common common;
    bool json;
    unsigned flags = OPEN_CHECK | OPEN_NO_BACKING, fix = FIX_NOTHING;
    const char *r = args_get(args, "r"), *cache = args_get(args, "T");
    if (r && !strcmp(r, "leaks")) {
        fix = FIX_LEAKS;
    } else if (r && !strcmp(r, "all")) {
        fix = FIX_LEAKS | FIX_ERRORS;
    } else if (r) {
        return tool_usage("Unknown option value for -r (expecting 'leaks' or 'all'): %s", r);
    }
    if (!tool_wants_json(args, &json) || !tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    if (!file) {
        return 1;
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid source cache option: %s", cache);
        return 1;
    }
    struct node *node =
        tool_open(&common, file, args_get(args, "f"), flags | (fix ? OPEN_UNMAP : OPEN_READ_ONLY));
    int code = node ? check(node, file, fix, json, args_has(args, "q")) : CODE_FAILED;
    if (node && code != CODE_FAILED && fix && !tool_flush(node, file)) {
        code = CODE_FAILED;
    }
    tool_close(node);
    return code;
}

const struct verb verb_check = {"check", "look for errors in an image's metadata", "FILE", options,
                                run};
