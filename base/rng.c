/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/rng.h"

#include "base/error.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

static GPtrArray *all; /* of struct rng_source * */

struct rng_source *rng_new(const char *id, const char *path, GError **error)
{
    int fd = -1;
    if (path && (fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0) {
        error_set_errno(error, errno, "%s", path);
        return NULL;
    }
    struct rng_source *rng = g_new0(struct rng_source, 1);
    rng->id = g_strdup(id);
    rng->fd = fd;
    all = all ? all : g_ptr_array_new();
    g_ptr_array_add(all, rng);
    return rng;
}

struct rng_source *rng_find(const char *id)
{
    for (unsigned i = 0; all && i < all->len; i++) {
        struct rng_source *rng = g_ptr_array_index(all, i);
        if (g_strcmp0(rng->id, id) == 0) {
            return rng;
        }
    }
    return NULL;
}

bool rng_remove(const char *id)
{
    struct rng_source *rng = rng_find(id);
    if (!rng) {
        return false;
    }
    g_ptr_array_remove(all, rng);
    if (rng->fd >= 0) {
        close(rng->fd);
    }
    g_free(rng->id);
    g_free(rng);
    return true;
}

size_t rng_read(struct rng_source *rng, void *to, size_t n)
{
    ssize_t got = rng && rng->fd >= 0 ? read(rng->fd, to, n) : getrandom(to, n, GRND_NONBLOCK);
    return got > 0 ? (size_t)got : 0;
}
