/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/rpc/error.h"

#include <string.h>

enum { LEVEL_ERROR = 2 };

void error_body_make(struct error_body *out, const GError *error, int domain)
{
    enum libvirt_code code = libvirt_error_code(error);
    const char *words = libvirt_error_words(code);
    size_t front = (size_t)(strstr(words, "%s") - words);
    bool ours = error->domain == LIBVIRT_ERROR;
    out->message = ours ? g_strdup(error->message) : libvirt_error_text(code, error->message);
    out->str1 = g_strdup(words);
    bool starts = strncmp(out->message, words, front) == 0;
    out->str2 = g_strdup(starts ? out->message + front : out->message);
    out->error = (rpc_error){
        .code = code,
        .domain = domain,
        .message = &out->message,
        .level = LEVEL_ERROR,
        .str1 = &out->str1,
        .str2 = &out->str2,
        .int1 = -1,
        .int2 = -1,
    };
}

void error_body_clear(struct error_body *body)
{
    g_free(body->message);
    g_free(body->str1);
    g_free(body->str2);
}

GError *error_from_body(const rpc_error *body)
{
    const char *text = body->message ? *body->message : "the daemon gave no reason";
    return g_error_new_literal(LIBVIRT_ERROR, body->code, text);
}
