/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/inet.h"

#include "base/keyval.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PORT_MAX = 65535 };

bool inet_look_up(const char *host, const char *port, const struct addrinfo *hints,
                  struct addrinfo **out, GError **error)
{
    uint64_t number;
    if (text_u64(port, &number) && number > PORT_MAX) { /* getaddrinfo() takes it modulo 65536 */
        g_set_error(error, LODGE_ERROR, EINVAL, "port %s is over %d", port, PORT_MAX);
        return false;
    }
    int why = getaddrinfo(host && *host ? host : NULL, port, hints, out);
    if (why != 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s:%s: %s", host ? host : "", port,
                    gai_strerror(why));
    }
    return why == 0;
}

void unix_forget(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}
