/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/tool.h"

#include <stdarg.h>
#include <stdio.h>

/* What the user is told: always "NAME: ", so that scripts that look for qemu-img's find theirs. */
const char *tool_name = "lodge-img";

static void say(const char *kind, const char *fmt, va_list ap) G_GNUC_PRINTF(2, 0);
static void say(const char *kind, const char *fmt, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", tool_name, kind, text);
}

void tool_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

void tool_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void tool_report(GError *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *before = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tool_error("%s%s", before, error->message);
    g_error_free(error);
}

int tool_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
    fprintf(stderr, "Try '%s --help' for more information\n", tool_name);
    return 1;
}
