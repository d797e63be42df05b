/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors that came over a monitor's UNIX socket (SCM_RIGHTS), by the names of getfd. */
#include "vmm/monitor/qmp_handlers.h"

#include "base/keyval.h"
#include "base/util.h"
#include "vmm/monitor/monitor.h"

#include <fcntl.h>
#include <unistd.h>

enum { FDS_MAX = 64 };

static struct {
    char *name;
    int fd;
} named[FDS_MAX];
static int fresh = -1; /* came last and has no name yet */

void monitor_fd_came(void *peer, int fd)
{
    (void)peer;
    if (fresh >= 0) {
        close(fresh);
    }
    fresh = fd;
}

static int find(const char *name)
{
    for (int i = 0; i < FDS_MAX; i++) {
        if (g_strcmp0(named[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int take(int i)
{
    g_clear_pointer(&named[i].name, g_free);
    return named[i].fd;
}

int monitor_take_fd(const char *name, GError **error)
{
    uint64_t number;
    int i = find(name);
    if (i >= 0) {
        return take(i);
    }
    if (text_u64(name, &number) && number <= INT_MAX && fcntl((int)number, F_GETFD) >= 0) {
        return (int)number;
    }
    g_set_error(error, LODGE_ERROR, EBADF, "File descriptor named '%s' has not been found", name);
    return -1;
}

json_t *qmp_getfd(json_t *args, GError **error)
{
    const char *name = qmp_str(args, "fdname");
    autofd int fd = g_steal_fd(&fresh);
    if (fd < 0) {
        g_set_error(error, LODGE_ERROR, EBADF, "No file descriptor supplied via SCM_RIGHTS");
        return NULL;
    }
    if (g_ascii_isdigit(*name)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'fdname' expects a name not starting with a digit");
        return NULL;
    }
    int i = find(name);
    if (i >= 0) {
        close(take(i)); /* the new one takes its place */
    } else {
        i = find(NULL);
    }
    if (i < 0) {
        g_set_error(error, LODGE_ERROR, EMFILE, "more than %d named descriptors", FDS_MAX);
        return NULL;
    }
    named[i].name = g_strdup(name);
    named[i].fd = g_steal_fd(&fd);
    return NULL;
}

json_t *qmp_closefd(json_t *args, GError **error)
{
    int i = find(qmp_str(args, "fdname"));
    if (i < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "File descriptor named '%s' not found",
                    qmp_str(args, "fdname"));
        return NULL;
    }
    close(take(i));
    return NULL;
}
