/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/tool.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * -p: "    (12.34/100%)" and a carriage return, each time one per cent has been done; on a
 * terminal rate and remaining time follow.  Without it SIGUSR1 asks for one line on standard
 * error, as with qemu-img.
 */
enum mode { MODE_ASKED, MODE_TEXT, MODE_JSON };

enum { RATE_AFTER_US = 500000 }; /* what is guessed from less would jump */

static struct {
    enum mode mode;
    FILE *out;
    bool terminal, ended;
    double now, shown;
    uint64_t done, all; /* bytes; .all 0: not known */
    int64_t started;    /* us */
} progress;
static atomic_bool asked;

static void on_sigusr1(int unused)
{
    (void)unused;
    asked = true;
}

static const char *time_text(char *to, size_t n, double seconds)
{
    uint64_t s = (uint64_t)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(to, n, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60),
                 (unsigned)(s % 60));
    } else {
        snprintf(to, n, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
    }
    return to;
}

/* Bytes a second, 0 while it is too early to say. */
static double rate_now(double *left)
{
    int64_t spent = g_get_monotonic_time() - progress.started;
    if (!progress.all || !progress.done || spent < RATE_AFTER_US) {
        return 0;
    }
    double rate = (double)progress.done * 1e6 / (double)spent;
    *left = (double)(progress.all - MIN(progress.done, progress.all)) / rate;
    return rate;
}

static void show_text(void)
{
    double left, rate = progress.terminal ? rate_now(&left) : 0;
    fprintf(progress.out, "    (%3.2f/100%%)", progress.now);
    if (rate > 0) {
        char t[32];
        g_autofree char *size = size_text((uint64_t)rate);
        /* Blanks for what a longer line before may have left. */
        fprintf(progress.out, "  %s/s, %s left      ", size, time_text(t, sizeof(t), left));
    }
    fputc('\r', progress.out);
    fflush(progress.out);
}

static void show_json(void)
{
    double left = 0, rate = rate_now(&left);
    fprintf(progress.out, "{\"percent\": %.2f", progress.now);
    if (progress.all) {
        fprintf(progress.out, ", \"done\": %" PRIu64 ", \"total\": %" PRIu64, progress.done,
                progress.all);
    }
    if (rate > 0) {
        fprintf(progress.out, ", \"bytes-per-second\": %.0f, \"seconds-left\": %.1f", rate, left);
    }
    fputs("}\n", progress.out);
    fflush(progress.out);
}

static void show(void)
{
    if (progress.mode == MODE_TEXT) {
        show_text();
    } else if (progress.mode == MODE_JSON && !progress.ended) {
        show_json();
        progress.ended = progress.now == 100;
    }
}

bool progress_begin(const struct args *args)
{
    const char *how = args_get(args, "progress");
    if (how && strcmp(how, "json") && strcmp(how, "text")) {
        tool_usage("--progress must be used with json or text as argument.");
        return false;
    }
    memset(&progress, 0, sizeof(progress));
    progress.out = stdout;
    progress.started = g_get_monotonic_time();
    if (args_has(args, "q")) {
        progress.mode = MODE_ASKED;
    } else if (how && !strcmp(how, "json")) {
        progress.mode = MODE_JSON;
    } else if (how || args_has(args, "p")) {
        progress.mode = MODE_TEXT;
    }
    progress.terminal = isatty(STDOUT_FILENO);
    if (progress.mode == MODE_ASKED) {
        struct sigaction sa = {.sa_handler = on_sigusr1, .sa_flags = SA_RESTART};
        sigaction(SIGUSR1, &sa, NULL);
    }
    return true;
}

void progress_to_stderr(void)
{
    progress.out = stderr;
    progress.terminal = isatty(STDERR_FILENO);
}

void progress_at(double percent)
{
    progress.now = MIN(percent, 100);
    if (asked) {
        asked = false;
        fprintf(stderr, "    (%3.2f/100%%)\n", progress.now);
    }
    if (progress.now > progress.shown + 1 || progress.now < progress.shown - 1 ||
        progress.now == 0 || progress.now == 100) {
        progress.shown = progress.now;
        show();
    }
}

void progress_bytes(uint64_t done, uint64_t all)
{
    progress.done = done;
    progress.all = all;
    progress_at(all ? 100.0 * (double)done / (double)all : 0);
}

void progress_end(void)
{
    if (progress.mode == MODE_TEXT) {
        fputc('\n', progress.out);
        fflush(progress.out);
    }
}
