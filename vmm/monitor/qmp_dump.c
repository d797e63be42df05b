/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "base/util.h"
#include "host/image/options.h"
#include "vmm/dump.h"
#include "vmm/monitor/monitor.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <string.h>

/* The core dump of the guest. */

#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)

static json_t *view_json(void)
{
    static const char *const names[] = {"none", "active", "completed", "failed"};
    struct dump_view v = dump_view();
    return json_pack("{s:s, s:I, s:I}", "status", names[v.status], "completed",
                     (json_int_t)v.completed, "total", (json_int_t)v.total);
}

static void on_over(void)
{
    json_t *data = json_pack("{s:o}", "result", view_json());
    const char *wrong = dump_view().error;
    if (wrong) {
        json_object_set_new(data, "error", json_string(wrong));
    }
    vm_event("DUMP_COMPLETED", data);
}

static int open_target(const char *protocol, GError **error)
{
    if (g_str_has_prefix(protocol, "fd:")) {
        return monitor_take_fd(protocol + strlen("fd:"), error);
    }
    if (!g_str_has_prefix(protocol, "file:")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter 'protocol'");
        return -1;
    }
    const char *path = protocol + strlen("file:");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0400);
    if (fd < 0) {
        error_set_errno(error, errno, "Could not open '%s'", path);
    }
    return fd;
}

HANDLER(dump_guest_memory)
{
    struct dump_part part = {0};
    const char *format = qmp_str(args, "format");
    bool begins = json_object_get(args, "begin"), ends = json_object_get(args, "length");
    if (json_is_true(json_object_get(args, "paging"))) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "paging=true is not supported");
        return NULL;
    }
    if (format && strcmp(format, "elf") != 0) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "format '%s' is not supported, only elf", format);
        return NULL;
    }
    if (begins != ends) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' is missing",
                    begins ? "length" : "begin");
        return NULL;
    }
    if (!json_u64(args, "begin", &part.begin, error) ||
        !json_u64(args, "length", &part.length, error)) {
        return NULL;
    }
    if (ends && (!part.length || part.begin + part.length < part.begin)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'length' expects a non-zero length");
        return NULL;
    }
    if (dump_view().status == DUMP_ACTIVE) {
        g_set_error(error, LODGE_ERROR, EBUSY, "There is a dump in process, please wait.");
        return NULL;
    }
    int fd = open_target(qmp_str(args, "protocol"), error);
    dump_over = on_over;
    if (fd >= 0) {
        dump_start(fd, &part, json_is_true(json_object_get(args, "detach")), error);
    }
    return NULL;
}

HANDLER(query_dump)
{
    (void)args, (void)error;
    return view_json();
}

HANDLER(query_dump_capability)
{
    (void)args, (void)error;
    return json_pack("{s:[s]}", "formats", "elf");
}
