/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/monitor.h"

#include "host/chardev/chardev.h"
#include "vmm/monitor/gdb.h"
#include "vmm/monitor/hmp.h"
#include "vmm/monitor/qmp.h"

enum { OUTBOX_MAX = 8 << 20 };

void outbox_init(struct outbox *box, struct chardev *chr)
{
    *box = (struct outbox){chr, g_string_new(NULL)};
}

void outbox_clear(struct outbox *box)
{
    g_string_free(box->text, TRUE);
    box->text = NULL;
}

void outbox_flush(struct outbox *box)
{
    if (box->text->len) {
        g_string_erase(box->text, 0, (gssize)chardev_write(box->chr, box->text->str, box->text->len));
    }
}

void outbox_put(struct outbox *box, const char *text, size_t n)
{
    if (box->text->len + n <= OUTBOX_MAX) {
        g_string_append_len(box->text, text, (gssize)n);
    }
    outbox_flush(box);
}

bool monitor_new(struct chardev *chr, enum monitor_kind kind, GError **error)
{
    return kind == MONITOR_HMP ? hmp_new(chr, error) : qmp_new(chr, kind == MONITOR_QMP_PRETTY, error);
}

void monitors_close(void)
{
    gdb_close();
    hmp_close();
    qmp_close();
}
