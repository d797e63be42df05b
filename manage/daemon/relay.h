/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Carries bytes both ways between two sockets, which it owns from now on, until one of them ends.
 * Any thread. */
void relay_start(int one, int two);
