/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/events.h"

#include "guest/device/board.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* ---- devices: a guest may do it in a loop, so one event a second at most ---- */

enum { PAUSE_MS = 1000 };

static struct {
    int64_t value;
    gint64 sent;  /* monotonic, microseconds; 0: never */
    bool waiting; /* a source of the main loop will send it */
} news[BOARD_NEWS];

static json_t *news_data(enum board_news what)
{
    json_int_t v = (json_int_t)news[what].value;
    if (what == BOARD_CLOCK_SET) {
        return json_pack("{s:I}", "offset", v);
    }
    return json_pack("{s:I}", "actual", (json_int_t)vm_memory() - v);
}

static gboolean send_news(gpointer data)
{
    static const char *const names[] = {[BOARD_CLOCK_SET] = "RTC_CHANGE",
                                        [BOARD_BALLOON] = "BALLOON_CHANGE"};
    enum board_news what = GPOINTER_TO_UINT(data);
    news[what].waiting = false;
    news[what].sent = g_get_monotonic_time();
    vm_event(names[what], news_data(what));
    return G_SOURCE_REMOVE;
}

static void told(struct board *board, enum board_news what, int64_t value)
{
    (void)board;
    news[what].value = value;
    if (!news[what].waiting) {
        gint64 past = (g_get_monotonic_time() - news[what].sent) / 1000;
        bool soon = news[what].sent && past < PAUSE_MS;
        news[what].waiting = true;
        g_timeout_add(soon ? (guint)(PAUSE_MS - past) : 0, send_news, GUINT_TO_POINTER(what));
    }
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
}
