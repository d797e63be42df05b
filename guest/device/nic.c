/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/nic.h"

#include "base/bytes.h"

void nic_default_mac(uint8_t mac[6])
{
    static const uint8_t none[6], first[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    static unsigned used;
    if (memcmp(mac, none, 6) == 0) {
        memcpy(mac, first, 6);
        mac[5] = (uint8_t)(mac[5] + used++);
    }
}

bool nic_plug(struct netdev *net, bool (*receive)(void *card, const void *frame, size_t n),
              void *card, GError **error)
{
    if (net && net->card) {
        g_set_error(error, LODGE_ERROR, EBUSY, "netdev \"%s\" has a card already", net->id);
        return false;
    }
    if (net) {
        net->card = card;
        net->receive = receive;
    }
    return true;
}

void nic_unplug(struct netdev *net)
{
    if (net) {
        net->receive = NULL;
        net->link_changed = NULL;
        net->card = NULL;
    }
}

bool nic_must_wait(struct timer *again)
{
    if (clock_running()) {
        return false;
    }
    if (!timer_armed(again)) {
        timer_arm(again, clock_now());
    }
    return true;
}

uint32_t nic_sum(const uint8_t *p, size_t n, uint32_t sum)
{
    uint64_t wide = sum;
    for (; n >= 4; p += 4, n -= 4) {
        wide += be32_at(p);
    }
    if (n >= 2) {
        wide += be16_at(p);
        p += 2;
        n -= 2;
    }
    if (n) {
        wide += (uint64_t)*p << 8;
    }
    while (wide >> 16) {
        wide = (wide & 0xffff) + (wide >> 16);
    }
    return (uint32_t)wide;
}
