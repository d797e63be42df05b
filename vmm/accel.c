/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/engine.h"
#include "vmm/build.h"
#include "vmm/vm.h"

#include <string.h>

/* Said when the machine is there: what was wrong with the rest comes alone. */
static GPtrArray *notes; /* of char * */

static void note(const char *why, const char *then)
{
    notes = notes ? notes : g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(notes, g_strdup_printf("%s; %s", why, then));
}

void build_engine_notes(void)
{
    for (unsigned i = 0; notes && i < notes->len; i++) {
        vm_report("%s", (char *)notes->pdata[i]);
    }
}

/* The engine that takes over where KVM is no help. */
static const struct cpu_engine *software(void)
{
    const struct cpu_engine *bt = cpu_engine_find("bt");
    return bt && (!bt->probe || bt->probe(NULL)) ? bt : cpu_engine_find("interp");
}

static bool usable(const struct cpu_engine *engine, GError **error)
{
    return !engine->probe || engine->probe(error);
}

/* Without a word from the user, and -enable-kvm: KVM, else software and why. */
static const struct cpu_engine *choose(void)
{
    g_autoptr(GError) why = NULL;
    const struct cpu_engine *kvm = cpu_engine_find("kvm"), *other = software();
    if (kvm && usable(kvm, &why)) {
        return kvm;
    }
    g_autofree char *then = g_strdup_printf("%s runs the guest", other ? other->name : "nothing");
    note(why ? why->message : "this build has no kvm", then);
    return other;
}

static bool known(char *const *names, GError **error)
{
    for (unsigned i = 0; names[i]; i++) {
        if (!cpu_engine_find(names[i])) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no accelerator \"%s\"; -accel help lists them",
                        names[i]);
            return false;
        }
    }
    return true;
}

static const struct cpu_engine *from_list(char *const *names, GError **error)
{
    for (unsigned i = 0; names[i]; i++) {
        g_autoptr(GError) why = NULL;
        const struct cpu_engine *engine = cpu_engine_find(names[i]);
        if (usable(engine, &why)) {
            return engine;
        }
        if (!names[i + 1]) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "%s (-accel kvm:bt runs without it)", why->message);
            return NULL;
        }
        g_autofree char *then = g_strdup_printf("trying %s", names[i + 1]);
        note(why->message, then);
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-accel needs a name");
    return NULL;
}

const struct cpu_engine *build_engine(const struct vm_options *o, GError **error)
{
    g_auto(GStrv) names = g_strsplit(o->accel ? o->accel : "", ":", -1);
    if (!known(names, error)) {
        return NULL;
    }
    if (names[0] && !o->enable_kvm) {
        return from_list(names, error);
    }
    if (names[0] && !g_strv_contains((const char *const *)names, "kvm")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-enable-kvm and -accel %s exclude each other", o->accel);
        return NULL;
    }
    const struct cpu_engine *engine = choose();
    if (!engine) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "no CPU engine works here");
    }
    return engine;
}
