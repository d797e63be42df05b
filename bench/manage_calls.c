/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast a daemon that speaks libvirt's protocol answers: manage_calls SOCKET CLIENTS SECONDS.
 * Prints "connect US" (connect to first answer after open), "list S" (the calls that virsh list
 * --all makes: all domains, then the state of each), "calls N" (NODE_GET_INFO a second, from one
 * thread a client).
 */
#include "manage/rpc/client.h"

#include <stdio.h>

static const char *path;
static double seconds;

static double now(void)
{
    return (double)g_get_monotonic_time() / 1e6;
}

static Rpc *open_one(void)
{
    g_autoptr(GError) error = NULL;
    Rpc *rpc = rpc_connect(path, &error);
    rpc_text hostname;
    if (!rpc || !rpc_open(rpc, "qemu:///system", false, &error) ||
        !ask_connect_get_hostname(rpc, &(rpc_none){0}, &hostname, &error)) {
        fprintf(stderr, "manage_calls: %s\n", error->message);
        exit(1);
    }
    g_free(hostname.text);
    return rpc;
}

/* Seconds. */
static double list_all(void)
{
    double start = now();
    Rpc *rpc = open_one();
    rpc_list_args args = {.need_results = 1, .flags = 3};
    rpc_domains all;
    if (!ask_connect_list_all_domains(rpc, &args, &all, NULL)) {
        exit(1);
    }
    for (unsigned i = 0; i < all.items.items_len; i++) {
        rpc_domain_flags which = {all.items.items_val[i], 0};
        rpc_domain_state state;
        if (!ask_domain_get_state(rpc, &which, &state, NULL)) {
            exit(1);
        }
    }
    xdr_free((xdrproc_t)xdr_rpc_domains, (char *)&all);
    rpc_free(rpc);
    return now() - start;
}

static gpointer call_on(gpointer data)
{
    Rpc *rpc = data;
    size_t calls = 0;
    double end = now() + seconds;
    while (now() < end) {
        rpc_node_info info;
        if (!ask_node_get_info(rpc, &(rpc_none){0}, &info, NULL)) {
            exit(1);
        }
        calls++;
    }
    return GSIZE_TO_POINTER(calls);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        return 2;
    }
    path = argv[1];
    int clients = atoi(argv[2]);
    seconds = g_ascii_strtod(argv[3], NULL);
    double best = 1e9;
    for (int i = 0; i < 200; i++) {
        double start = now();
        Rpc *rpc = open_one();
        best = MIN(best, now() - start);
        rpc_free(rpc);
    }
    double list = list_all();
    g_autofree GThread **threads = g_new(GThread *, clients);
    size_t calls = 0;
    for (int i = 0; i < clients; i++) {
        threads[i] = g_thread_new("client", call_on, open_one());
    }
    for (int i = 0; i < clients; i++) {
        calls += GPOINTER_TO_SIZE(g_thread_join(threads[i]));
    }
    printf("connect %.1f\nlist %.6f\ncalls %.0f\n", best * 1e6, list, (double)calls / seconds);
    return 0;
}
