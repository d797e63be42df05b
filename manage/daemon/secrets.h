/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/secret.h"

/*
 * Secrets for the daemon's own use (a disk's passphrase, a pool's login).  Daemon lock held.
 * The value of the secret of @uuid, or of @usage and @id if @uuid is NULL; NULL with an error.
 */
GBytes *secret_value(const char *uuid, enum secret_usage usage, const char *id, GError **error);
