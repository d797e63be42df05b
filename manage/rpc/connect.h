/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/client.h"

/*
 * qemu:///system, qemu:///session, lodge:///..., with ?socket=PATH; qemu+ssh://HOST/system runs
 * ssh (?keyfile=, ?no_verify=1, ?no_tty=1, ?command=).  Starts a session lodged of one's own if
 * nobody listens at the session's socket.
 */
Rpc *connect_to(const char *uri, bool read_only, GError **error);
/* The same without a word to the daemon: for who carries another client's. */
Rpc *connect_silently(const char *uri, bool read_only, GError **error);
/* LODGE_URI, LIBVIRT_DEFAULT_URI, else for root the system if its lodged listens, or the session.
 */
char *connect_default_uri(void);
