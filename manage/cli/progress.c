/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/progress.h"

#include "manage/rpc/connect.h"

#include <string.h>

enum { LOOK_MS = 500 };

struct progress {
    GThread *thread; /* NULL: a second connection might ask for a password again */
    GMutex lock;
    GCond over_now;
    bool over;
    char *uri;
    rpc_domain dom;
    const char *label;
    int64_t suspend_at; /* monotonic; 0: never, or done */
};

void progress_show(const char *label, unsigned percent)
{
    g_printerr("\r%s: [%3u %%]", label, percent);
}

unsigned progress_percent(uint64_t done, uint64_t total)
{
    return done >= total ? 100 : MIN((unsigned)((double)done / (double)total * 100), 99u);
}

/* False if there is nothing to be seen any more. */
static bool look(struct progress *p, Rpc *rpc, unsigned *shown)
{
    rpc_domain_args args = {p->dom};
    rpc_job_info info = {0};
    rpc_none none;
    if (p->suspend_at && g_get_monotonic_time() >= p->suspend_at) {
        p->suspend_at = 0;
        ask_domain_suspend(rpc, &args, &none, NULL);
    }
    if (!p->label) {
        return true;
    }
    if (!ask_domain_get_job_info(rpc, &args, &info, NULL)) {
        return false;
    }
    unsigned now = info.data_total ? progress_percent(info.data_processed, info.data_total) : 0;
    if (info.type != 0 && now != *shown && now < 100) { /* all of it is said at the end */
        *shown = now;
        progress_show(p->label, now);
    }
    return true;
}

static void *watch(void *data)
{
    struct progress *p = data;
    g_autoptr(Rpc) rpc = connect_to(p->uri, !p->suspend_at, NULL);
    unsigned shown = 100;
    bool goes_on = rpc != NULL;
    while (goes_on && look(p, rpc, &shown)) {
        int64_t until = g_get_monotonic_time() + LOOK_MS * 1000;
        until = p->suspend_at ? MIN(until, p->suspend_at) : until;
        g_mutex_lock(&p->lock);
        while (!p->over && g_cond_wait_until(&p->over_now, &p->lock, until)) {
        }
        goes_on = !p->over;
        g_mutex_unlock(&p->lock);
    }
    return NULL;
}

struct progress *progress_begin(struct shell *sh, const rpc_domain *dom, const char *label)
{
    return progress_begin_limited(sh, dom, label, 0);
}

struct progress *progress_begin_limited(struct shell *sh, const rpc_domain *dom, const char *label,
                                        uint64_t seconds)
{
    struct progress *p = g_new0(struct progress, 1);
    const char *uri = shell_uri(sh), *transport = uri ? strchr(uri, '+') : NULL;
    p->uri = g_strdup(uri);
    p->dom = *dom;
    p->dom.name = g_strdup(dom->name);
    p->label = label;
    p->suspend_at = seconds ? g_get_monotonic_time() + (int64_t)seconds * G_USEC_PER_SEC : 0;
    g_mutex_init(&p->lock);
    g_cond_init(&p->over_now);
    if (seconds || !transport || g_str_has_prefix(transport, "+unix")) {
        p->thread = g_thread_new("progress", watch, p);
    }
    return p;
}

void progress_end(struct progress *p, bool ok)
{
    if (p->thread) {
        g_mutex_lock(&p->lock);
        p->over = true;
        g_cond_signal(&p->over_now);
        g_mutex_unlock(&p->lock);
        g_thread_join(p->thread);
    }
    if (ok && p->label) {
        progress_show(p->label, 100);
    }
    g_mutex_clear(&p->lock);
    g_cond_clear(&p->over_now);
    g_free(p->dom.name);
    g_free(p->uri);
    g_free(p);
}
