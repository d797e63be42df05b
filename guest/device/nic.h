/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"
#include "host/net/net.h"

/* What network cards share. */
enum { ETH_HEADER = 14, ETH_VLAN_BYTES = 4, ETH_TYPE_VLAN = 0x8100 };

/* Fills an address that the user left at zero: 52:54:00:12:34:56 and counting. */
void nic_default_mac(uint8_t mac[6]);
/* Connects the card to its backend; NULL is a card without a cable.  False: it is taken. */
bool nic_plug(struct netdev *net, bool (*receive)(void *card, const void *frame, size_t n),
              void *card, GError **error);
void nic_unplug(struct netdev *net);

/*
 * Frames may arrive while the machine is stopped, and guest memory must not change then.
 * True: hold the frame; @again fires, and should net_resume(), once the machine runs.
 */
bool nic_must_wait(struct timer *again);

/* Ones' complement sum of bytes, folded to 16 bits, not inverted; RFC 1071. */
uint32_t nic_sum(const uint8_t *p, size_t n, uint32_t sum);
