/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/verb.h"

/* libvirt's typed parameters: lists of named numbers and words. */
typedef GArray Params; /* of rpc_param */

static inline Params *params_new(void)
{
    return g_array_new(FALSE, TRUE, sizeof(rpc_param));
}
static inline void params_int(Params *p, const char *name, int v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 1, .rpc_value_u.i = v}};
    g_array_append_val(p, one);
}
static inline void params_uint(Params *p, const char *name, unsigned v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 2, .rpc_value_u.ui = v}};
    g_array_append_val(p, one);
}
static inline void params_llong(Params *p, const char *name, int64_t v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 3, .rpc_value_u.l = v}};
    g_array_append_val(p, one);
}
static inline void params_ullong(Params *p, const char *name, uint64_t v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 4, .rpc_value_u.ul = v}};
    g_array_append_val(p, one);
}
static inline void params_bool(Params *p, const char *name, bool v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 6, .rpc_value_u.b = v}};
    g_array_append_val(p, one);
}
static inline void params_text(Params *p, const char *name, const char *v)
{
    rpc_param one = {.field = g_strdup(name), .value = {.type = 7, .rpc_value_u.s = g_strdup(v)}};
    g_array_append_val(p, one);
}
/* The answer of a verb: the list is given away. */
static inline rpc_param *params_finish(Params *p, unsigned *count)
{
    *count = p->len;
    return (rpc_param *)(void *)g_array_free(p, FALSE);
}
/* A number of any type; false with ERR_INVALID_ARG for words and fractions. */
bool param_number(const rpc_param *p, int64_t *v, GError **error);
