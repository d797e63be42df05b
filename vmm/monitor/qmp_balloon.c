/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/virtio_balloon.h"
#include "vmm/monitor/qmp_handlers.h"
#include "vmm/monitor/qmp_qom.h"
#include "vmm/vm.h"

/* The two properties of a balloon that are no words of its -device. */
#define STATS  "guest-stats"
#define PERIOD "guest-stats-polling-interval"

static bool is_balloon(const struct device *dev)
{
    return board_part(vm_board(), "balloon") == dev;
}

static json_t *stats(const struct device *dev)
{
    static const char *const names[BALLOON_STATS] = {
        "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
        "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
        "stat-htlb-pgalloc", "stat-htlb-pgfail"};
    json_t *all = json_object();
    for (unsigned i = 0; i < BALLOON_STATS; i++) { /* -1: the guest does not say */
        json_object_set_new(all, names[i], json_integer((json_int_t)balloon_stats(dev)[i]));
    }
    return json_pack("{s:I, s:o}", "last-update", (json_int_t)balloon_stats_time(dev), "stats",
                     all);
}

json_t *qom_balloon(const struct device *dev, const char *property)
{
    return !is_balloon(dev)                ? NULL
           : g_str_equal(property, STATS)  ? stats(dev)
           : g_str_equal(property, PERIOD) ? json_integer(balloon_poll_seconds(dev))
                                           : NULL;
}

json_t *qmp_qom_set(json_t *args, GError **error)
{
    const char *path = qmp_str(args, "path"), *name = qmp_str(args, "property");
    struct device *dev = qom_device(path);
    const json_t *value = json_object_get(args, "value");
    json_int_t seconds = json_integer_value(value);
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", path);
    } else if (!is_balloon(dev) || !g_str_equal(name, PERIOD)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Property '%s.%s' cannot be set while the machine runs", dev->model->name,
                    name);
    } else if (!json_is_integer(value) || seconds < 0 || seconds > UINT32_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '" PERIOD "' expects seconds");
    } else {
        balloon_poll_stats(dev, (uint32_t)seconds);
    }
    return NULL;
}
