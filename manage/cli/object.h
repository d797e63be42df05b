/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

#include <stdlib.h>
#include <termios.h>

/*
 * A kind of thing that has a name, a UUID and XML; verbs that name one of them and call one
 * procedure have no function of their own. Their row's .data is the kind, or one of the structs
 * below.
 */
union object {
    struct {
        char *name;
        rpc_uuid uuid;
    } named; /* as the first four begin */
    rpc_domain domain;
    rpc_network network;
    rpc_pool pool;
    rpc_nwfilter filter;
    rpc_node_device device;
    rpc_secret secret;
};
typedef bool find_fn(struct shell *sh, const char *name, union object *out, GError **error);
find_fn find_domain, find_network, find_pool;

struct kind {
    const char *option;            /* which option of its verbs names it */
    const char *title;             /* "Network", at the beginning of a sentence */
    const char *quote;             /* what stands around its name */
    const char *autostart_failing; /* "failed to %smark network %s as autostarted" */
    find_fn *find;
    xdrproc_t codec;
    int get_xml, define, set_autostart; /* procedures */
    unsigned edit_flags;                /* of get_xml */
    bool define_with_flags;
    bool can_skip_validate; /* its edit has --skip-validate */
};
extern const struct kind kind_domain, kind_network, kind_pool, kind_filter;

struct flag_bit {
    const char *option;
    unsigned bit;
};
struct simple {
    const struct kind *kind;
    int procedure;
    bool with_flags;            /* its shape is the object and flags, not the object alone */
    unsigned base_flags;        /* always set */
    const char *failing, *done; /* with one %s, the name; NULL: nothing is said */
    struct flag_bit bits[10];
};
verb_fn run_simple, run_autostart, run_edit, run_name, run_uuid;
/* Prints the XML of an object: the procedure takes the object and flags. */
verb_fn run_object_xml;

/* A verb that reads a file and makes an object of it: "Domain '%s' defined from %s". */
struct from_file {
    const struct kind *kind;
    int procedure;
    bool with_flags;
    const char *failing, *done; /* with the file; with the object's name and the file */
    struct flag_bit bits[6];
};
verb_fn run_from_file;

/* qsort(), but an array of nothing may be nowhere. */
static inline void sort_items(void *items, size_t n, size_t size,
                              int (*compare)(const void *, const void *))
{
    if (n) {
        qsort(items, n, size, compare);
    }
}
verb_fn run_console, run_ssh_helper, run_undefine_domain;

/*
 * The serial line @device (NULL: the first) of @dom on this terminal until the guest ends it or,
 * with *@left then set, the user does. @stay: the end of an input that is no terminal is no reason.
 */
bool console_on_terminal(Rpc *rpc, const rpc_domain *dom, const char *device, unsigned flags,
                         bool stay, bool *left, GError **error);
/* The keys of this terminal come as they are; false: it is none.  @before: what to set it to again.
 */
bool terminal_raw(struct termios *before);
/* ---- Which of a domain's two definitions, and typed parameters ---- */
enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2 };
#define AFFECT_OPTIONS                                                                             \
    {"config", OPT_BOOL, 0, "from the next start on"},                                             \
        {"live", OPT_BOOL, 0, "of the running domain"},                                            \
    {                                                                                              \
        "current", OPT_BOOL, 0, "whichever of the two there is"                                    \
    }
unsigned affect_of(const struct args *a);
/* False, with virsh's words, if both options are given. */
bool exclusive(const struct args *a, const char *one, const char *two, GError **error);
/* A list of rpc_param, which owns them; g_array_unref(). */
GArray *params_new(void);
void params_text(GArray *list, const char *name, const char *value); /* NULL: nothing */
/* @type: 1 int, 2 unsigned, 3 int64_t, 4 uint64_t */
void params_number(GArray *list, const char *name, int type, uint64_t v);
/* "name           : value" */
void show_param(struct shell *sh, const char *name, const char *value);

/* "average,peak,burst,floor" of a card's traffic, each of which may be missing. */
enum { RATE_AVERAGE, RATE_PEAK, RATE_BURST, RATE_FLOOR, N_RATES };
extern const char *const rate_names[N_RATES];
struct rate {
    uint64_t value[N_RATES]; /* 0: not said */
};
/* What --@option says; nothing if it is not given, or empty. */
bool rate_of(const struct args *a, const char *option, struct rate *out, GError **error);

/* Bits of the options that were given. */
unsigned flags_of(const struct args *a, const struct flag_bit *bits, unsigned n);

/* Prints @xml, or what --xpath selects of it. */
bool show_xml(struct shell *sh, const struct args *a, const char *xml, GError **error);
/*
 * Something that is changed in an editor: @get gives its XML, g_free(); @put takes the new one.
 * What is refused may be mended as often as the user likes.
 */
struct edit {
    char *(*get)(struct shell *sh, const void *data, GError **error);
    bool (*put)(struct shell *sh, const char *xml, bool validate, const void *data, GError **error);
    const void *data;
    bool validate, can_skip_validate;
    bool put_unchanged; /* there is more to do than the XML says */
};
bool edit_run(struct shell *sh, const struct edit *e, bool *changed, GError **error);

#define DOMAIN_OPTION(completion)                                                                  \
    {                                                                                              \
        "domain", OPT_TEXT, OPT_NEEDED, "domain name, id or uuid", completion                      \
    }
#define NETWORK_OPTION                                                                             \
    {                                                                                              \
        "network", OPT_TEXT, OPT_NEEDED, "network name or uuid", COMPLETE_NETWORK                  \
    }
#define POOL_OPTION                                                                                \
    {                                                                                              \
        "pool", OPT_TEXT, OPT_NEEDED, "pool name or uuid", COMPLETE_POOL                           \
    }
#define XPATH_OPTIONS                                                                              \
    {"xpath", OPT_TEXT, OPT_NAMED, "only the parts that this XPath expression names"},             \
    {                                                                                              \
        "wrap", OPT_BOOL, 0, "those parts in one element"                                          \
    }
#define FILE_OPTION                                                                                \
    {                                                                                              \
        "file", OPT_TEXT, OPT_NEEDED, "file with the XML", COMPLETE_FILE                           \
    }
