/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/secret.h"

struct volume_encryption; /* manage/model/volume.h */

/*
 * Secrets for the daemon's own use (a disk's passphrase, a pool's login).  Daemon lock held.
 * The value of the secret of @uuid, or of @usage and @id if @uuid is NULL; NULL with an error.
 */
GBytes *secret_value(const char *uuid, enum secret_usage usage, const char *id, GError **error);
/* The UUID of the secret that was made for @id, or NULL. */
const char *secret_uuid_for(enum secret_usage usage, const char *id);
/* The passphrase of @e's secret; of the one made for the volume at @path if it names none. */
GBytes *encryption_value(const struct volume_encryption *e, const char *path, GError **error);

/* ---- what host/image gets of them: passphrase.c; any thread ---- */

/* @value goes by @id from now on; secret_remove(@id) ends that. */
bool secret_publish(const char *id, GBytes *value, GError **error);
/*
 * encryption_value() by an id of its own, for as long as an image is made or opened.  Without
 * the daemon lock.
 */
char *passphrase_take(const struct volume_encryption *e, const char *path, GError **error);
void passphrase_drop(char *id); /* NULL is fine */
