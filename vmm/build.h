/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "vmm/options.h"

/* Between the files that make a machine of options. */

/* vmm/drives.c: what stands at a place, NULL: nothing. */
struct image *build_placed(const char *iface, unsigned index);
/* vmm/build.c */
void build_ide_is_cd(unsigned index, bool cd);
void build_add_device(const char *text); /* as a -device, after the user's */
void build_add_nic(const char *text);    /* ... and before */
/* vmm/backends.c */
bool build_objects(struct vm_options *o, GError **error);
bool build_ram_source(struct vm_options *o, GError **error);
/* What the -object @id says about memory, and its size; it counts as used from now on. */
const struct ram_source *build_memory_backend(const char *id, uint64_t *bytes, GError **error);
/* The same for a module, which says itself whether it uses it. */
const struct ram_source *build_module_backend(const char *id, uint64_t *bytes, GError **error);
bool build_nets(struct vm_options *o, GError **error);
bool build_audio(struct vm_options *o, GError **error);
bool build_serials(struct vm_options *o, GError **error);
bool build_monitors(struct vm_options *o, GError **error);
bool build_display(struct vm_options *o, GError **error);
struct chardev *build_chardev(const char *id);
/* vmm/accel.c: NULL with a line for the user. */
const struct cpu_engine *build_engine(const struct vm_options *o, GError **error);
void build_engine_notes(void); /* why it is not the engine of the first choice */
/* vmm/numa.c; after build_ram_source() */
bool build_numa(struct vm_options *o, GError **error);
/* vmm/devices.c */
bool build_globals(struct vm_options *o, GError **error);
