/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "vmm/monitor/monitor.h"

/* The human monitor's commands are rows. */
struct hmp_args {
    const char *const *at; /* the words after the command, NULL-terminated */
    unsigned n;
};

struct hmp_command {
    const char *name; /* names, separated by | */
    const char *args; /* for help */
    unsigned min, max; /* words */
    const char *help;
    bool (*run)(const struct hmp_args *args, GString *out, GError **error);
};

extern const struct hmp_command hmp_commands[];
extern const unsigned n_hmp_commands;
extern const struct hmp_command hmp_infos[];
extern const unsigned n_hmp_infos;

const struct hmp_command *hmp_find(const struct hmp_command *table, unsigned n, const char *word);
void hmp_list(const struct hmp_command *table, unsigned n, GString *out, const char *prefix);
void hmp_close(void);

/* vmm/monitor/examine.c: x, xp and print. */
bool hmp_examine(const struct hmp_args *args, bool physical, GString *out, GError **error);
bool hmp_print(const struct hmp_args *args, GString *out, GError **error);
bool hmp_port(const struct hmp_args *args, bool write, GString *out, GError **error);
/* Numbers, registers ($rip) and + - * / ( ). */
bool hmp_number(const char *text, uint64_t *out, GError **error);
/* The CPU that `cpu N` chose. */
struct vcpu *hmp_cpu(void);
