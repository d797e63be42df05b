/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

#include <stdlib.h>

/*
 * Verbs that name one object and call one procedure: their row's .data is one of these.
 */
struct flag_bit {
    const char *option;
    unsigned bit;
};
struct simple {
    int procedure;
    bool with_flags;            /* its shape is the object and flags, not the object alone */
    unsigned base_flags;        /* always set */
    const char *failing, *done; /* with one %s, the name; NULL: nothing is said */
    struct flag_bit bits[10];
};
/* qsort(), but an array of nothing may be nowhere. */
static inline void sort_items(void *items, size_t n, size_t size,
                              int (*compare)(const void *, const void *))
{
    if (n) {
        qsort(items, n, size, compare);
    }
}
verb_fn run_console, run_ssh_helper;

/*
 * The serial line @device (NULL: the first) of @dom on this terminal until the guest ends it or,
 * with *@left then set, the user does.
 */
bool console_on_terminal(Rpc *rpc, const rpc_domain *dom, const char *device, unsigned flags,
                         bool *left, GError **error);
verb_fn run_simple_domain, run_simple_network, run_simple_pool;

/* Bits of the options that were given. */
unsigned flags_of(const struct args *a, const struct flag_bit *bits, unsigned n);

/* A verb that prints the XML of an object: its procedure takes the object and flags. */
verb_fn run_domain_xml, run_network_xml, run_pool_xml;
/* Prints @xml, or what --xpath selects of it. */
bool show_xml(struct shell *sh, const struct args *a, const char *xml, GError **error);
/* A verb that reads a file and makes an object of it: "Domain '%s' defined from %s". */
struct from_file {
    int procedure;
    bool with_flags;
    const char *done;
    struct flag_bit bits[6];
};
verb_fn run_domain_from_file, run_network_from_file, run_pool_from_file;

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
        {"wrap", OPT_BOOL, 0, "those parts in one element"}
#define FILE_OPTION                                                                                \
    {                                                                                              \
        "file", OPT_TEXT, OPT_NEEDED, "file with the XML", COMPLETE_FILE                           \
    }
