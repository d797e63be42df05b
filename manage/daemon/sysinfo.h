/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

/* What the host's firmware says of it (SMBIOS), as far as the kernel shows it to us. */
char *sysinfo_xml(void);
/* The words of a type of SMBIOS structures (0 to 3) as lodge-vm's -smbios takes them, each
 * ",name=value" with commas doubled; empty if nothing is known. */
char *sysinfo_words(unsigned type);
