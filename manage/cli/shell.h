/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/client.h"

#include <jansson.h>

/*
 * The shell: a verb is a row in a table of its family, with its options and its function.
 * Verbs, options, output and exit codes are virsh's, so that scripts go on working.
 */
struct shell;
struct args;

enum option_kind {
    OPT_BOOL,
    OPT_TEXT,
    OPT_NUMBER, /* unsigned */
    OPT_SIZE,   /* KiB, or with a suffix */
    OPT_MANY,   /* all words that are left */
};
enum option_flags {
    OPT_NEEDED = 1,
    OPT_NAMED = 2, /* only as --name VALUE, never by its place */
    OPT_EMPTY_OK = 4,
};
enum completion {
    COMPLETE_NONE,
    COMPLETE_DOMAIN,
    COMPLETE_DOMAIN_ACTIVE,
    COMPLETE_DOMAIN_INACTIVE,
    COMPLETE_NETWORK,
    COMPLETE_POOL,
    COMPLETE_SNAPSHOT, /* of the domain in the same command */
    COMPLETE_VOLUME,   /* of the pool in the same command */
    COMPLETE_FILE,
    COMPLETE_VERB,
};
struct option_row {
    const char *name;
    enum option_kind kind;
    unsigned flags;
    const char *help;
    enum completion complete;
};

typedef bool verb_fn(struct shell *sh, const struct args *a, GError **error);
struct verb_row {
    const char *name;
    const struct option_row *options; /* ends with a row without a name; NULL: none */
    const char *help;
    verb_fn *run;
    const void *data; /* the function's own, by shell_data() */
};
struct verb_group {
    const char *title, *keyword;
    const struct verb_row *verbs; /* ends with a row without a name */
};
extern const struct verb_group *const verb_groups[]; /* ends with NULL */
extern const unsigned n_verb_groups;

/* The connection, made at the first use; NULL with an error. */
Rpc *shell_rpc(struct shell *sh, GError **error);
const char *shell_uri(struct shell *sh);
bool shell_read_only(const struct shell *sh);
const void *shell_data(const struct shell *sh);
/* Whether the verb that runs could be told @option. */
bool shell_has_option(const struct shell *sh, const char *option);
/* The line that is printed before the error's own: "Failed to start domain 'x'". */
void shell_failing(struct shell *sh, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* False, with a plain error of the shell's own. */
bool shell_fail(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void shell_quit(struct shell *sh);
bool shell_reconnect(struct shell *sh, const char *uri, bool read_only, GError **error);
const struct verb_row *shell_find(const char *name);
/* Runs one line of verbs, separated by semicolons. */
bool shell_run_line(struct shell *sh, const char *line);
bool shell_run_words(struct shell *sh, char **words, unsigned n);
/* With history and completion, until quit or the end of input. */
void shell_interact(struct shell *sh);
/* What may stand after @n @words, of which the last is begun; g_strfreev(). */
char **shell_complete(struct shell *sh, char *const *words, unsigned n);

/* ---- The options of a call. ---- */
bool args_flag(const struct args *a, const char *name);
const char *args_text(const struct args *a, const char *name);           /* NULL: not given */
bool args_number(const struct args *a, const char *name, uint64_t *out); /* false: not given */
/* "3", "3M", "3MiB", "3MB": bytes, of @unit without a suffix; false if it is none. */
bool args_scaled(const char *text, uint64_t unit, uint64_t *out);
char **args_many(const struct args *a, const char *name); /* borrowed; may be NULL */

/* ---- Output: as virsh prints it, or with --json one value for each verb. ---- */
void out_table(struct shell *sh, const char *const *headers); /* ends with NULL */
void out_row(struct shell *sh, ...) G_GNUC_NULL_TERMINATED;   /* const char * for each column */
void out_table_end(struct shell *sh);
/* What stands below what: all without a parent, each with what is below it. */
struct out_node {
    const char *name, *parent;
};
void out_tree(struct shell *sh, const struct out_node *nodes, unsigned n);
/* "Name:           value" */
void out_field(struct shell *sh, const char *label, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* The same with room for @width characters before the value. */
void out_field_wide(struct shell *sh, int width, const char *label, const char *fmt, ...)
    G_GNUC_PRINTF(4, 5);
/* Between two groups of fields. */
void out_next(struct shell *sh);
/* What --quiet leaves out: "Domain 'x' started". */
void out_note(struct shell *sh, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* The same where virsh forgets to end the line, and the empty one behind a verb ends it. */
void out_note_open(struct shell *sh, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Text as it is, for programs under @key and without white space around it. */
void out_text(struct shell *sh, const char *key, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* Of which every byte counts, for programs too. */
void out_exact(struct shell *sh, const char *key, const char *text);
/* One of several lines that are all alike. */
void out_line(struct shell *sh, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* "  name=value", the name as it is. */
void out_stat(struct shell *sh, const char *name, const char *value);
bool out_is_json(const struct shell *sh);
/* So far, at once: one of the looks of a verb that goes on; false if nobody reads any more. */
bool out_look(struct shell *sh);
/* "1.50 GiB" */
char *out_size(uint64_t bytes, int digits);

/* ---- Objects by name, UUID or number, as people type them. ---- */
bool shell_domain(struct shell *sh, const char *name, rpc_domain *out, GError **error);
bool shell_network(struct shell *sh, const char *name, rpc_network *out, GError **error);
bool shell_pool(struct shell *sh, const char *name, rpc_pool *out, GError **error);
bool shell_filter(struct shell *sh, const char *name, rpc_nwfilter *out, GError **error);
bool shell_volume(struct shell *sh, const char *name, const char *pool, rpc_volume *out,
                  GError **error);
char *uuid_text(const rpc_uuid uuid);
bool text_uuid(const char *text, rpc_uuid out);
/* A file that the verb takes, as text; NULL with an error. */
char *shell_read_file(const char *path, GError **error);
/* Opens @xml in the user's editor until it is left; NULL with an error, or if nothing changed. */
char *shell_edit(struct shell *sh, const char *xml, GError **error);
const char *domain_state_name(int state);
char *param_text(const rpc_param *p);
/* What statistics say under @name; 0 without it. */
uint64_t stats_number(const rpc_domain_stats *s, const char *name);

#define AUTO_XDR(type)                                                                             \
    static inline void type##_clear(type *value)                                                   \
    {                                                                                              \
        xdr_free((xdrproc_t)xdr_##type, (char *)value);                                            \
    }                                                                                              \
    G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(type, type##_clear)
AUTO_XDR(rpc_domain)
AUTO_XDR(rpc_network)
AUTO_XDR(rpc_pool)
AUTO_XDR(rpc_volume)
AUTO_XDR(rpc_snapshot)
AUTO_XDR(rpc_text)
AUTO_XDR(rpc_maybe_text)
AUTO_XDR(rpc_domains)
AUTO_XDR(rpc_networks)
AUTO_XDR(rpc_pools)
AUTO_XDR(rpc_volumes)
AUTO_XDR(rpc_snapshots)
AUTO_XDR(rpc_domain_ret)
AUTO_XDR(rpc_network_ret)
AUTO_XDR(rpc_network_ports)
AUTO_XDR(rpc_network_port_ret)
AUTO_XDR(rpc_pool_ret)
AUTO_XDR(rpc_volume_ret)
AUTO_XDR(rpc_snapshot_ret)
AUTO_XDR(rpc_params)
AUTO_XDR(rpc_params_count)
AUTO_XDR(rpc_all_stats)
AUTO_XDR(rpc_memory_stats)
AUTO_XDR(rpc_vcpus)
AUTO_XDR(rpc_cpu_maps)
AUTO_XDR(rpc_node_stats)
AUTO_XDR(rpc_leases)
AUTO_XDR(rpc_domain_interfaces)
AUTO_XDR(rpc_names_count)
AUTO_XDR(rpc_secrets)
AUTO_XDR(rpc_secret_ret)
AUTO_XDR(rpc_secret_value)
AUTO_XDR(rpc_node_devices)
AUTO_XDR(rpc_nwfilters)
AUTO_XDR(rpc_nwfilter_ret)
AUTO_XDR(rpc_nwfilter_bindings)
AUTO_XDR(rpc_nwfilter_binding_ret)
AUTO_XDR(rpc_interfaces)
AUTO_XDR(rpc_disk_errors)
AUTO_XDR(rpc_cells)
AUTO_XDR(rpc_counts)
AUTO_XDR(rpc_cpu_map)
AUTO_XDR(rpc_fsinfos)
AUTO_XDR(rpc_texts)
AUTO_XDR(rpc_job_stats)
AUTO_XDR(rpc_scheduler_type)
AUTO_XDR(rpc_iothreads)
AUTO_XDR(rpc_security_model)
AUTO_XDR(rpc_security_label)
