/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of machines and their definitions on disk.
 *
 * A definition is DAEMON_ETC/qemu/NAME.xml; a link of the same name in autostart/ beside it says
 * that the machine starts with the daemon.
 */
#include "manage/daemon/domain.h"

#include "manage/daemon/checkpoint.h"

#include "base/error.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/tune.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

enum { JOB_SECONDS = 30 };

static struct {
    GPtrArray *all;
    GHashTable *by_name, *by_uuid;
} list;

/* --- objects --- */

static guint uuid_hash(gconstpointer uuid)
{
    guint h;
    memcpy(&h, uuid, sizeof(h));
    return h;
}

static gboolean uuid_equal(gconstpointer a, gconstpointer b)
{
    return memcmp(a, b, 16) == 0;
}

static void uuid_bytes(const char *text, uint8_t uuid[16])
{
    unsigned n = 0;
    for (const char *s = text; *s && n < 32; s++) {
        if (g_ascii_isxdigit(*s)) {
            uint8_t v = (uint8_t)g_ascii_xdigit_value(*s);
            uuid[n / 2] = (uint8_t)(n % 2 ? uuid[n / 2] | v : v << 4);
            n++;
        }
    }
}

static char *uuid_text(const uint8_t u[16])
{
    return g_strdup_printf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                           u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
                           u[12], u[13], u[14], u[15]);
}

Domain *domain_ref(Domain *d)
{
    d->refs++;
    return d;
}

void domain_unref(Domain *d)
{
    if (--d->refs == 0) {
        g_free(d->last_job);
        g_free(d->name);
        g_free(d);
    }
}

static Domain *add(const DomainDef *def)
{
    Domain *d = g_new0(Domain, 1);
    d->refs = 1; /* the list's */
    d->name = g_strdup(def->name);
    uuid_bytes(def->uuid, d->uuid);
    d->id = -1;
    d->state = STATE_SHUTOFF;
    domain_count_snapshots(d);
    checkpoint_recount(d);
    g_ptr_array_add(list.all, d);
    g_hash_table_insert(list.by_name, d->name, d);
    g_hash_table_insert(list.by_uuid, d->uuid, d);
    return d;
}

void domain_settle(Domain *d)
{
    if (d->persistent || d->machine || d->gone || d->writing) {
        return;
    }
    d->gone = true;
    domain_forget_snapshots(d); /* the next one of its name does not have them */
    checkpoint_forget_all(d);
    g_hash_table_remove(list.by_name, d->name);
    g_hash_table_remove(list.by_uuid, d->uuid);
    g_ptr_array_remove(list.all, d);
    domain_unref(d);
}

Domain *domain_by_name(const char *name)
{
    return g_hash_table_lookup(list.by_name, name);
}

Domain *domain_by_uuid(const uint8_t uuid[16])
{
    return g_hash_table_lookup(list.by_uuid, uuid);
}

Domain *domain_by_id(int id)
{
    for (unsigned i = 0; i < list.all->len; i++) {
        Domain *d = list.all->pdata[i];
        if (d->id == id) {
            return d;
        }
    }
    return NULL;
}

void domain_each(void (*each)(Domain *d, void *data), void *data)
{
    for (unsigned i = 0; i < list.all->len; i++) {
        Domain *d = list.all->pdata[i];
        if (d->persistent || d->machine) {
            each(d, data);
        }
    }
}

Domain *domain_get(const rpc_domain *named, GError **error)
{
    Domain *d = domain_by_uuid((const uint8_t *)named->uuid);
    if (!d) {
        g_autofree char *text = uuid_text((const uint8_t *)named->uuid);
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", text,
                      named->name);
        return NULL;
    }
    return domain_ref(d);
}

rpc_domain domain_rpc(const Domain *d)
{
    rpc_domain r = {.name = g_strdup(d->name), .id = d->id};
    memcpy(r.uuid, d->uuid, sizeof(r.uuid));
    return r;
}

bool domain_active(const Domain *d)
{
    return d->machine && d->id >= 0;
}

bool domain_check_active(const Domain *d, GError **error)
{
    if (!domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        return false;
    }
    return true;
}

/* --- jobs --- */

static bool job_begin(Domain *d, bool beside, GError **error)
{
    int64_t until = g_get_monotonic_time() + daemon_patience(JOB_SECONDS) * G_USEC_PER_SEC;
    while (d->job || (d->moving && !beside)) {
        if (!daemon_wait(until)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT,
                          "cannot acquire state change lock (held by another call)");
            return false;
        }
    }
    d->job = true;
    return true;
}

bool domain_job_begin(Domain *d, GError **error)
{
    return job_begin(d, false, error);
}

bool domain_job_begin_beside(Domain *d, GError **error)
{
    return job_begin(d, true, error);
}

void domain_job_end(Domain *d)
{
    d->job = false;
    daemon_wake();
}

static DomainJob *take(const rpc_domain *named, bool beside, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    if (!d || !job_begin(d, beside, error)) {
        return NULL;
    }
    if (d->gone) { /* while we waited */
        domain_job_end(d);
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", d->name);
        return NULL;
    }
    return g_steal_pointer(&d);
}

DomainJob *domain_take(const rpc_domain *named, GError **error)
{
    return take(named, false, error);
}

DomainJob *domain_take_beside(const rpc_domain *named, GError **error)
{
    return take(named, true, error);
}

/* --- events and states --- */

void domain_event(Domain *d, enum lifecycle_event event, int detail)
{
    rpc_event_domain_int2 message = {.dom = domain_rpc(d), .event = event, .detail = detail};
    event_domain_lifecycle(&message);
    g_free(message.dom.name);
}

void domain_set_state(Domain *d, enum domain_state state, int reason)
{
    d->state = (uint8_t)state;
    d->reason = (uint8_t)reason;
    daemon_wake();
}

bool domain_affect(const Domain *d, unsigned *flags, GError **error)
{
    if (!(*flags & (AFFECT_LIVE | AFFECT_CONFIG))) {
        *flags |= domain_active(d) ? AFFECT_LIVE : AFFECT_CONFIG;
    }
    if ((*flags & AFFECT_LIVE) && !domain_check_active(d, error)) {
        return false;
    }
    if ((*flags & AFFECT_CONFIG) && !d->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "transient domains do not have any persistent config");
        return false;
    }
    return true;
}

/* --- definitions --- */

static char *xml_file(const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    return daemon_path(DAEMON_ETC, "qemu", file, NULL);
}

static char *autostart_link(const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    return daemon_path(DAEMON_ETC, "qemu", "autostart", file, NULL);
}

char *domain_managed_save_path(const Domain *d)
{
    g_autofree char *file = g_strconcat(d->name, ".save", NULL);
    return daemon_path(DAEMON_VAR, "qemu", "save", file, NULL);
}

static char *variables_path(const char *name)
{
    g_autofree char *file = g_strconcat(name, "_VARS.fd", NULL);
    return daemon_path(DAEMON_VAR, "qemu", "nvram", file, NULL);
}

void domain_name_variables(DomainDef *def)
{
    if (!def->nvram && (def->firmware == FIRMWARE_EFI || def->loader_type == LOADER_PFLASH)) {
        def->nvram = variables_path(def->name);
    }
}

/* Variables that are where lodged put them go with the machine's name: the next one of the old
 * name is not to boot with them. */
static bool move_variables(DomainDef *def, const char *old, GError **error)
{
    g_autofree char *from = variables_path(old), *to = variables_path(def->name);
    if (g_strcmp0(def->nvram, from) != 0) {
        return true;
    }
    if (rename(from, to) != 0 && errno != ENOENT) {
        libvirt_error(error, ERR_SYSTEM, "cannot rename %s: %s", from, g_strerror(errno));
        return false;
    }
    g_free(def->nvram);
    def->nvram = g_steal_pointer(&to);
    return true;
}

static DomainDef *read_file(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) own = NULL;
    if (!g_file_get_contents(path, &text, NULL, &own)) {
        libvirt_error(error, ERR_SYSTEM, "%s", own->message);
        return NULL;
    }
    DomainDef *def = domain_def_load(text, 0, error);
    if (def) {
        domain_name_variables(def);
    }
    return def;
}

DomainDef *domain_config(const Domain *d, GError **error)
{
    if (!d->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "transient domains do not have any persistent config");
        return NULL;
    }
    g_autofree char *path = xml_file(d->name);
    return read_file(path, error);
}

DomainDef *domain_def_of(const Domain *d, bool live, GError **error)
{
    return live && d->machine ? domain_def_copy(d->machine->def) : domain_config(d, error);
}

/* What lists and dominfo say of a machine that is off. */
static void summarize(Domain *d, const DomainDef *def)
{
    d->vcpus = (uint16_t)(def->current_vcpus == XML_ABSENT ? def->vcpus : def->current_vcpus);
    d->memory = def->current_memory;
    d->max_memory = def->memory;
}

/* Texts of one machine go to the disk one after the other: waits for the one before. */
static bool written(Domain *d, GError **error)
{
    int64_t until = g_get_monotonic_time() + JOB_SECONDS * G_USEC_PER_SEC;
    while (d->writing) {
        if (!daemon_wait(until)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT,
                          "the definition of '%s' before is still being written", d->name);
            return false;
        }
    }
    return true;
}

static bool writing_begin(Domain *d, GError **error)
{
    bool ok = written(d, error);
    d->writing |= ok;
    return ok;
}

static void writing_end(Domain *d)
{
    d->writing = false;
    daemon_wake();
}

static bool write_config(const Domain *d, const DomainDef *def, GError **error)
{
    if (d->gone || strcmp(d->name, def->name) != 0) { /* while we waited */
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", def->name);
        return false;
    }
    g_autofree char *file = g_strconcat(d->name, ".xml", NULL);
    g_autofree char *path = daemon_path_make(DAEMON_ETC, 0755, error, "qemu", file, NULL);
    g_autofree char *text = domain_def_format(def, XML_MODE_SECRET);
    daemon_unlock();
    bool ok = path && daemon_write_file(path, text, -1, 0600, error);
    daemon_lock();
    return ok;
}

bool domain_save_config(Domain *d, const DomainDef *def, GError **error)
{
    if (!writing_begin(d, error)) {
        return false;
    }
    bool ok = write_config(d, def, error);
    if (ok) {
        summarize(d, def);
    }
    writing_end(d);
    return ok;
}

/* The machine that @def names, if there is one; false if name and UUID do not go together. */
static bool same_machine(const DomainDef *def, Domain **found, GError **error)
{
    uint8_t uuid[16];
    uuid_bytes(def->uuid, uuid);
    Domain *by_uuid = domain_by_uuid(uuid), *by_name = domain_by_name(def->name);
    if (by_uuid && strcmp(by_uuid->name, def->name) != 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "domain '%s' is already defined with uuid %s",
                      by_uuid->name, def->uuid);
        return false;
    }
    if (!by_uuid && by_name) {
        g_autofree char *text = uuid_text(by_name->uuid);
        libvirt_error(error, ERR_OPERATION_FAILED, "domain '%s' already exists with uuid %s",
                      def->name, text);
        return false;
    }
    *found = by_uuid;
    return true;
}

Domain *domain_define(const DomainDef *def, GError **error)
{
    Domain *d;
    for (;;) {
        if (!same_machine(def, &d, error)) {
            return NULL;
        }
        if (!d || !d->writing) {
            break;
        }
        g_autoptr(Domain) busy = domain_ref(d); /* it may be on its way out */
        if (!written(busy, error)) {
            return NULL;
        }
    }
    g_autoptr(Domain) keep = domain_ref(d ? d : add(def));
    d = keep;
    if (!domain_save_config(d, def, error)) {
        domain_settle(d);
        return NULL;
    }
    bool was = d->persistent;
    d->persistent = true;
    if (d->machine) {
        machine_save(d->machine);
    }
    domain_event(d, EVENT_DEFINED, was ? 1 : 0);
    return d;
}

Domain *domain_add_transient(const DomainDef *def, GError **error)
{
    Domain *d;
    if (!same_machine(def, &d, error)) {
        return NULL;
    }
    if (d && domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain '%s' is already active", def->name);
        return NULL;
    }
    return d ? d : add(def);
}

DomainJob *domain_take_transient(const DomainDef *def, GError **error)
{
    for (;;) {
        Domain *added = domain_add_transient(def, error);
        g_autoptr(Domain) d = added ? domain_ref(added) : NULL;
        if (!d || !domain_job_begin(d, error)) {
            return NULL;
        }
        if (!d->gone) {
            return g_steal_pointer(&d);
        }
        domain_job_end(d); /* somebody else's start of it has failed meanwhile */
    }
}

bool domain_set_autostart(Domain *d, bool on, GError **error)
{
    g_autofree char *name = g_strconcat(d->name, ".xml", NULL);
    g_autofree char *at =
        daemon_path_make(DAEMON_ETC, 0755, error, "qemu", "autostart", name, NULL);
    g_autofree char *to = g_strconcat("../", name, NULL);
    if (!at) {
        return false;
    }
    if (on ? symlink(to, at) != 0 && errno != EEXIST : g_unlink(at) != 0 && errno != ENOENT) {
        libvirt_error(error, ERR_SYSTEM, "Failed to change autostart of '%s': %s", d->name,
                      g_strerror(errno));
        return false;
    }
    d->autostart = on;
    return true;
}

bool domain_undefine(Domain *d, GError **error)
{
    if (!writing_begin(d, error)) {
        return false;
    }
    g_autofree char *path = xml_file(d->name), *at = autostart_link(d->name);
    daemon_unlock(); /* it may wait for the disk's journal */
    bool ok = g_unlink(path) == 0 || errno == ENOENT;
    int code = errno;
    if (ok) {
        g_unlink(at);
    }
    daemon_lock();
    writing_end(d);
    if (!ok) {
        libvirt_error(error, ERR_SYSTEM, "cannot remove config %s: %s", path, g_strerror(code));
        return false;
    }
    d->persistent = d->autostart = false;
    if (d->machine) {
        machine_save(d->machine);
    }
    domain_event(d, EVENT_UNDEFINED, 0);
    domain_settle(d);
    return true;
}

static void call_it(Domain *d, const char *name)
{
    g_hash_table_remove(list.by_name, d->name);
    g_free(d->name);
    d->name = g_strdup(name);
    g_hash_table_insert(list.by_name, d->name, d);
}

/* The file's name is what counts: one that calls itself otherwise has been renamed (load_all()). */
static bool move_file(Domain *d, const char *from, const char *to, GError **error)
{
    g_autofree char *old = xml_file(from), *new = xml_file(to);
    if (!writing_begin(d, error)) {
        return false;
    }
    daemon_unlock();
    int code = g_rename(old, new) == 0 ? 0 : errno;
    daemon_lock();
    writing_end(d);
    if (code) {
        libvirt_error(error, ERR_SYSTEM, "cannot rename '%s' to '%s': %s", old, new,
                      g_strerror(code));
    }
    return !code;
}

bool domain_rename(Domain *d, const char *name, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def) {
        return false;
    }
    g_autofree char *was = g_steal_pointer(&def->name);
    def->name = g_strdup(name);
    if (domain_by_name(name)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain with name '%s' already exists", name);
        return false;
    }
    if (!domain_def_check(def, error) || !move_variables(def, was, error)) {
        return false;
    }
    g_autofree char *old = g_strdup(d->name), *link = autostart_link(old);
    g_autofree char *new_link = autostart_link(name);
    bool autostart = d->autostart;
    call_it(d, name);
    bool moved =
        (!autostart || domain_set_autostart(d, true, error)) && move_file(d, old, name, error);
    if (!moved || !domain_save_config(d, def, error)) {
        if (moved) {
            move_file(d, name, old, NULL);
        }
        g_unlink(new_link);
        call_it(d, old);
        g_free(def->name);
        def->name = g_steal_pointer(&was);
        move_variables(def, name, NULL);
        return false;
    }
    g_unlink(link);
    domain_event(d, EVENT_UNDEFINED, 1);
    domain_event(d, EVENT_DEFINED, 2);
    return true;
}

/* --- start of the daemon --- */

/* See domain_rename(): a lodged was killed after the first half of it. */
static bool end_rename(DomainDef *def, const char *file, const char *path, GError **error)
{
    g_autofree char *name = g_strndup(file, strlen(file) - strlen(".xml"));
    if (strcmp(def->name, name) == 0) {
        return true;
    }
    g_free(def->name);
    def->name = g_steal_pointer(&name);
    g_autofree char *text = domain_def_format(def, XML_MODE_SECRET);
    return daemon_write_file(path, text, -1, 0600, error);
}

static void load_all(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        if (!g_str_has_suffix(name, ".xml")) {
            continue;
        }
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autofree char *link = g_build_filename(folder, "autostart", name, NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(DomainDef) def = read_file(path, &error);
        Domain *there;
        if (def && !end_rename(def, name, path, &error)) {
            g_clear_pointer(&def, domain_def_free);
        }
        if (!def || !domain_def_check(def, &error) || !same_machine(def, &there, &error) || there) {
            daemon_log("%s is left out: %s", path, error ? error->message : "defined twice");
            continue;
        }
        Domain *d = add(def);
        g_autofree char *saved = domain_managed_save_path(d);
        d->persistent = true;
        d->autostart = g_file_test(link, G_FILE_TEST_IS_SYMLINK);
        d->managed_save = g_file_test(saved, G_FILE_TEST_EXISTS);
        summarize(d, def);
    }
}

static void autostart_one(void *data)
{
    Domain *d = data;
    g_autoptr(GError) error = NULL;
    daemon_lock();
    if (domain_job_begin(d, &error)) {
        g_autoptr(DomainDef) def = d->machine ? NULL : domain_config(d, &error);
        const struct machine_start how = {.incoming_fd = -1, .running_reason = RUNNING_BOOTED};
        if (def && !machine_start(d, def, &how, &error)) {
            daemon_log("autostart of %s: %s", d->name, error->message);
        }
        domain_job_end(d);
    }
    domain_unref(d);
    daemon_unlock();
}

static void autostart_all(Domain *d, void *data)
{
    (void)data;
    if (d->autostart && !d->machine) {
        daemon_worker(autostart_one, domain_ref(d));
    }
}

/* Once a boot of the host: what was shut down since is not to come back with the daemon. */
static bool first_of_boot(void)
{
    g_autofree char *mark = daemon_path_make(DAEMON_RUN, 0755, NULL, "qemu", "autostarted", NULL);
    bool first = mark && !g_file_test(mark, G_FILE_TEST_EXISTS);
    return first && g_file_set_contents(mark, "", 0, NULL);
}

/* Snapshots and checkpoints of transient machines that ended while no lodged saw it, as with the
 * host: nothing can be done with them, and the next machine of the name is not to have them. */
static void sweep(const char *kind)
{
    g_autofree char *folder = daemon_path(DAEMON_VAR, "qemu", kind, NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_strconcat(name, ".xml", NULL);
        g_autofree char *definition = daemon_path(DAEMON_ETC, "qemu", file, NULL);
        if (domain_by_name(name) || g_file_test(definition, G_FILE_TEST_EXISTS)) {
            continue; /* also if it cannot be read */
        }
        Domain gone = {.name = (char *)name};
        domain_forget_snapshots(&gone);
        checkpoint_forget_all(&gone);
        daemon_log("%s: its machine is gone, and what was known of its %ss", name, kind);
    }
}

static bool start(GError **error)
{
    (void)error;
    list.all = g_ptr_array_new();
    list.by_name = g_hash_table_new(g_str_hash, g_str_equal);
    list.by_uuid = g_hash_table_new(uuid_hash, uuid_equal);
    g_autofree char *folder = daemon_path(DAEMON_ETC, "qemu", NULL);
    load_all(folder);
    cgroups_start();
    machines_recover();
    sweep("snapshot");
    sweep("checkpoint");
    cgroups_sweep();
    if (first_of_boot()) {
        domain_each(autostart_all, NULL);
    }
    return true;
}

const struct daemon_room room_domains = {.name = "domains", .start = start};
