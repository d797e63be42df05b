/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/* What the host is and can run; the caller frees the text. */
char *capabilities_xml(void);

/* The host's processors as /sys tells. */
struct host_cpus {
    int online, present, nodes, sockets, cores, threads, mhz;
    char vendor[16];
    bool virtualization; /* vmx or svm, and /dev/kvm can be opened */
};
const struct host_cpus *host_cpus(void);
/* KiB. */
unsigned long long host_memory(void);
/* The host's own UUID: of the board if it tells, else of the installation, else NULL. */
char *host_uuid(void);
