/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/display/display.h"
#include "vmm/build.h"
#include "vmm/vm.h"

#include <stdio.h>

bool build_display(struct vm_options *o, GError **error)
{
    bool on_display = o->display && g_str_has_prefix(o->display, "vnc=");
    const char *where = o->vnc ? o->vnc : on_display ? o->display + 4 : NULL;
    bool none = o->nographic || (o->display && !on_display) || o->machine.nodefaults;
    g_autoptr(GError) why = NULL;
    if (!vnc_keymap_is_known(o->keymap, error)) {
        g_prefix_error(error, "-k: ");
        return false;
    }
    if (where) {
        if (!vnc_start(vm_board()->display, where, o->keymap, error)) {
            g_prefix_error(error, "-vnc %s: ", where);
            return false;
        }
        return true;
    }
    if (none) {
        return true;
    }
    /* Nobody said where the screen goes: VNC on this host, at the first free display. */
    if (!vnc_start(vm_board()->display, "localhost:0,to=99", o->keymap, &why)) {
        vm_report("no VNC server: %s", why->message);
        return true;
    }
    g_autoptr(GString) text = g_string_new(NULL);
    struct vnc_end end;
    vnc_server(&end);
    vnc_end_text(&end, text);
    printf("VNC server running on %s\n", text->str);
    fflush(stdout);
    return true;
}
