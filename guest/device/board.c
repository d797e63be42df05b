/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/board.h"

struct board *board_new(void)
{
    struct board *b = g_new0(struct board, 1);
    b->memory = space_new("memory", UINT64_C(1) << 52);
    b->memory_smm = space_new("memory-smm", UINT64_C(1) << 52);
    b->ports = space_new("io", 0x10000);
    b->parts = g_hash_table_new(g_str_hash, g_str_equal);
    space_place_space(b->memory_smm, b->memory, 0);
    return b;
}

void board_free(struct board *board)
{
    while (board->devices) {
        struct device *last = board->devices;
        while (last->next) {
            last = last->next;
        }
        device_free(last);
    }
    g_hash_table_destroy(board->parts);
    space_free(board->memory_smm);
    space_free(board->memory);
    space_free(board->ports);
    g_free(board);
}

bool board_ports_free(const struct board *board, uint64_t at, uint64_t n, GError **error)
{
    for (uint64_t port = at; port < at + n; port++) {
        const struct region *r = space_find(board->ports, port).region;
        if (r) {
            g_set_error(error, LODGE_ERROR, EBUSY, "port 0x%x is taken by %s", (unsigned)port,
                        r->name);
            return false;
        }
    }
    return true;
}

struct device *board_part(struct board *board, const char *name)
{
    return g_hash_table_lookup(board->parts, name);
}

void board_add_part(struct board *board, const char *name, struct device *dev)
{
    g_hash_table_insert(board->parts, (void *)name, dev);
}

struct device *board_find(struct board *board, const char *id_or_path)
{
    for (struct device *dev = board->devices; dev; dev = dev->next) {
        if (g_strcmp0(dev->id, id_or_path) == 0) {
            return dev;
        }
    }
    for (struct device *dev = board->devices; dev; dev = dev->next) {
        if (g_str_equal(dev->path, id_or_path)) {
            return dev;
        }
    }
    return NULL;
}

void board_reset(struct board *board)
{
    for (struct device *dev = board->devices; dev; dev = dev->next) {
        device_reset(dev);
    }
}
