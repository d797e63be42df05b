/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/verb.h"

#include <stdio.h>
#include <string.h>

/* The host: what it has and how busy it is. */

bool verb_node_get_info(struct call *call, const rpc_none *args, rpc_node_info *ret, GError **error)
{
    const struct host_cpus *h = host_cpus();
    (void)call, (void)args, (void)error;
    g_strlcpy(ret->model, "x86_64", sizeof(ret->model));
    ret->memory = host_memory();
    ret->cpus = h->online;
    ret->mhz = h->mhz;
    ret->nodes = h->nodes;
    ret->sockets = h->sockets;
    ret->cores = h->cores;
    ret->threads = h->threads;
    return true;
}
