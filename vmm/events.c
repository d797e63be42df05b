/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/events.h"

#include "guest/device/board.h"
#include "guest/device/drive.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* ---- devices: a guest may do it in a loop, so one event a second at most ---- */

enum { PAUSE_MS = 1000 };

/* What was told within the last second. */
struct news {
    enum board_news what;
    char *id; /* of the device; "" if it has none */
    int64_t value;
    bool fresh; /* not sent yet */
};
static GList *news;

static void send_event(const struct news *n)
{
    json_int_t v = (json_int_t)n->value;
    switch (n->what) {
    case BOARD_CLOCK_SET:
        vm_event("RTC_CHANGE", json_pack("{s:I}", "offset", v));
        break;
    case BOARD_BALLOON:
        vm_event("BALLOON_CHANGE", json_pack("{s:I}", "actual", (json_int_t)vm_memory() - v));
        break;
    case BOARD_PORT:
        vm_event("VSERPORT_CHANGE", json_pack("{s:s, s:b}", "id", n->id, "open", v != 0));
        break;
    }
}

static gboolean send_news(gpointer data)
{
    struct news *n = data;
    if (n->fresh) {
        n->fresh = false;
        send_event(n);
        g_timeout_add(PAUSE_MS, send_news, n);
    } else {
        news = g_list_remove(news, n);
        g_free(n->id);
        g_free(n);
    }
    return G_SOURCE_REMOVE;
}

static void told(struct board *board, enum board_news what, const struct device *of, int64_t value)
{
    const char *id = of->id ? of->id : "";
    struct news *n = NULL;
    (void)board;
    for (GList *l = news; l && !n; l = l->next) {
        struct news *other = l->data;
        n = other->what == what && g_str_equal(other->id, id) ? other : NULL;
    }
    if (!n) {
        n = g_new(struct news, 1);
        *n = (struct news){.what = what, .id = g_strdup(id)};
        news = g_list_prepend(news, n);
        g_timeout_add(0, send_news, n);
    }
    n->value = value;
    n->fresh = true;
}

/* ---- viewers ---- */

json_t *event_vnc_end(const struct vnc_end *end)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "host", end->host, "service", end->service, "family",
                     end->family, "websocket", end->websocket);
}

static void viewer_told(enum vnc_step step, const struct vnc_end *client)
{
    static const char *const names[] = {[VNC_CONNECTED] = "VNC_CONNECTED",
                                        [VNC_INITIALIZED] = "VNC_INITIALIZED",
                                        [VNC_DISCONNECTED] = "VNC_DISCONNECTED"};
    struct vnc_end at;
    if (!vnc_server(&at)) {
        return;
    }
    json_t *server = event_vnc_end(&at);
    json_object_set_new(server, "auth", json_string(vnc_auth()));
    vm_event(names[step], json_pack("{s:o, s:o}", "server", server, "client", event_vnc_end(client)));
}

/* ---- what the guest says of things that come and go ---- */

json_t *event_ost(const struct ost *ost)
{
    return json_pack("{s:s*, s:s, s:o, s:I, s:I}", "device", ost->device, "slot-type", ost->kind,
                     "slot", json_sprintf("%u", ost->slot), "source", (json_int_t)ost->source,
                     "status", (json_int_t)ost->status);
}

/* Spec: ACPI 6.3, "_OST (OSPM Status Indication)", "Operating System Ejection". */
static bool is_refusal(const struct ost *ost)
{
    enum { EJECT_REQUEST = 3, EJECTION = 0x103, IN_PROGRESS = 0x84 };
    return (ost->source == EJECT_REQUEST || ost->source == EJECTION) && ost->status &&
           ost->status < IN_PROGRESS;
}

static void ost_said(struct board *board, const struct ost *ost)
{
    (void)board;
    if (g_str_equal(ost->kind, "DIMM") && is_refusal(ost) && ost->device) {
        vm_event("MEM_UNPLUG_ERROR", json_pack("{s:s, s:s}", "device", ost->device, "msg",
                                               "the guest cannot do without it"));
    }
    vm_event("ACPI_DEVICE_OST", json_pack("{s:o}", "info", event_ost(ost)));
}

void events_open(struct board *board)
{
    board->tell = told;
    board->ost = ost_said;
    vnc_told = viewer_told;
    drive_tray_moved = event_tray_moved;
}
