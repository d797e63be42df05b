/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What users say to a machine past lodged, and the note that they did. */
#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/verb.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const struct {
    const char *word, *message; /* libvirt's, in the log and for clients */
} taints[] = {
    [TAINT_ARGUMENTS] = {"custom-argv", "custom configuration parameters specified"},
    [TAINT_MONITOR] = {"custom-monitor", "custom monitor control commands issued"},
    [TAINT_HOST_CPU] = {"host-cpu", "potentially unsafe use of host CPU passthrough"},
    [TAINT_AGENT] = {"custom-ga-command", "custom guest agent control commands issued"},
};

static void log_taint(const Domain *d, const char *word)
{
    g_autofree char *file = g_strconcat(d->name, ".log", NULL);
    g_autofree char *path = daemon_path(DAEMON_VAR, "log", "qemu", file, NULL);
    autofd int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        g_autoptr(GDateTime) now = g_date_time_new_now_utc();
        g_autofree char *stamp = g_date_time_format(now, "%F %T+0000");
        dprintf(fd, "%s: Domain id=%d is tainted: %s\n", stamp, d->id, word);
    }
}

void machine_taint(struct machine *m, enum taint why)
{
    if (!(m->tainted >> why & 1)) {
        m->tainted |= 1u << why;
        log_taint(m->domain, taints[why].word);
        machine_save(m);
    }
}

void machine_taint_defined(struct machine *m)
{
    if (m->def->qemu_arguments || m->def->qemu_variables) {
        machine_taint(m, TAINT_ARGUMENTS);
    }
    if (m->def->cpu && m->def->cpu->mode == MODE_HOST_PASSTHROUGH) {
        machine_taint(m, TAINT_HOST_CPU);
    }
}

char **machine_environment(const DomainDef *def)
{
    char **env = g_get_environ();
    for (unsigned i = 0; i < xml_count(def->qemu_variables); i++) {
        const struct qemu_variable *v = def->qemu_variables->pdata[i];
        env = g_environ_setenv(env, v->name, v->value ? v->value : "", TRUE);
    }
    return env;
}

enum { MESSAGES_DEPRECATED = 1, MESSAGES_TAINTED = 2 };

bool verb_domain_get_messages(struct call *call, const rpc_domain_flags *args, rpc_texts *ret,
                              GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !d->machine || (args->flags & ~MESSAGES_TAINTED) == MESSAGES_DEPRECATED) {
        return d != NULL;
    }
    ret->texts.texts_val = g_new0(char *, G_N_ELEMENTS(taints));
    for (unsigned i = 0; i < G_N_ELEMENTS(taints); i++) {
        if (d->machine->tainted >> i & 1) {
            ret->texts.texts_val[ret->texts.texts_len++] =
                g_strconcat("tainted: ", taints[i].message, NULL);
        }
    }
    return true;
}
