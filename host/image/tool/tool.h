/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the verbs of lodge-img share.  A verb is one file here and one word in the list of
 * meson.build: a table of its options and a function that runs it.  Verbs print; what they
 * call returns errors.
 */

/* One option; the last row has no .help. */
struct tool_option {
    char letter;       /* 0: only a long name */
    const char *name;  /* NULL: only a letter */
    const char *value; /* what follows it, for the help; NULL: a switch */
    const char *help;
};

/* Options that mean the same for most verbs. */
#define OPTION_OBJECT                                                                              \
    {                                                                                              \
        0, "object", "secret,id=ID,...", "define a secret for an encrypted image"                  \
    }
#define OPTION_IMAGE_OPTS                                                                          \
    {                                                                                              \
        0, "image-opts", NULL, "FILE is a list such as driver=qcow2,file.filename=PATH"            \
    }
#define OPTION_FORMAT                                                                              \
    {                                                                                              \
        'f', NULL, "FORMAT", "format of FILE; found out by probing without it"                     \
    }
#define OPTION_LONG_FORMAT                                                                         \
    {                                                                                              \
        'f', "format", "FORMAT", "format of FILE; found out by probing without it"                 \
    }
#define OPTION_QUIET                                                                               \
    {                                                                                              \
        'q', NULL, NULL, "print errors only"                                                       \
    }
#define OPTION_PROGRESS                                                                            \
    {                                                                                              \
        'p', NULL, NULL, "show the progress"                                                       \
    }
#define OPTION_PROGRESS_AS                                                                         \
    {                                                                                              \
        0, "progress", "json|text", "show it as lines of JSON, for programs"                       \
    }
#define OPTION_SHARE                                                                               \
    {                                                                                              \
        'U', "force-share", NULL, "open even if another program writes to it"                      \
    }
#define OPTION_CACHE                                                                               \
    {                                                                                              \
        't', NULL, "MODE",                                                                         \
            "cache mode of what is written: none, writeback, writethrough, directsync, unsafe"     \
    }
#define OPTION_SRC_CACHE                                                                           \
    {                                                                                              \
        'T', NULL, "MODE", "cache mode of what is read"                                            \
    }
#define OPTION_OUTPUT                                                                              \
    {                                                                                              \
        0, "output", "human|json", "how the answer is printed"                                     \
    }
#define OPTION_UNTRUSTED                                                                           \
    {                                                                                              \
        0, "untrusted", NULL,                                                                      \
            "the image may be hostile: no probing, nothing outside its folder is followed"         \
    }
#define OPTION_HELP                                                                                \
    {                                                                                              \
        'h', "help", NULL, "print this help"                                                       \
    }

struct given {
    const struct tool_option *option;
    const char *value; /* NULL for a switch */
};

/* A command line behind the verb. */
struct args {
    const struct verb *verb;
    struct given *given; /* in the order of the command line */
    unsigned n_given;
    char **operands; /* ends with NULL */
    unsigned n_operands;
};

struct verb {
    const char *name;
    const char *about;    /* one line */
    const char *operands; /* "FILE [SIZE]" */
    const struct tool_option *options;
    int (*run)(struct args *args); /* the exit code */
    bool sign_last;                /* the last word is no option, even with a minus: "-5M" */
};

/* What we are when called qemu-nbd. */
extern const struct verb verb_qemu_nbd;
/* Generated from the list in meson.build. */
extern const struct verb *const verbs[];
extern const unsigned n_verbs;

/* main() of lodge-img; also under the name qemu-img. */
int tool_main(int argc, char **argv);

/* ---- the command line ---- */

extern const char *tool_name; /* under which we were called: messages start with it */

/* @name: a letter ("f") or the long name ("object"). */
bool args_has(const struct args *args, const char *name);
const char *args_get(const struct args *args, const char *name); /* the last one; NULL: none */
/* All values of a repeatable -o joined with commas, g_malloc'd; NULL: none. */
char *args_joined(const struct args *args, const char *name);
/* Whether -o text asks for help ("help" or "?" as an item). */
bool options_ask_help(const char *text);
/*
 * A size with suffix, said to be @what in the message that it prints if it is none or not
 * between @min and @max.
 */
bool tool_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* --output=: false after a message if it is neither. */
bool tool_wants_json(const struct args *args, bool *json);

/* ---- messages ---- */

/* "NAME: TEXT" on standard error. */
void tool_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void tool_warn(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* The same for @error, which it frees, behind @fmt. */
void tool_report(GError *error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* tool_error() and where to find help; gives the exit code 1. */
int tool_usage(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* ---- printing ---- */

/* As QEMU indents and orders JSON; with a line end. */
void print_json(const json_t *value);
/* "format specific information" for people: nested lists and objects indented. */
void print_plain(const json_t *object, unsigned indent);
/* "1.5 GiB", g_malloc'd. */
char *size_text(uint64_t bytes);

/* ---- progress ---- */

/*
 * One work in per cent: -p prints it as it moves on, SIGUSR1 asks for one line.  One at a
 * time in a process; the functions may be called from any thread, one at a time.
 */
bool progress_begin(const struct args *args); /* false after a message */
void progress_to_stderr(void);                /* standard output is where the image goes */
void progress_at(double percent);
/* How much has been done, where bytes are known: gives rate and remaining time. */
void progress_bytes(uint64_t done, uint64_t all);
void progress_end(void);
