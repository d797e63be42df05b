/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPU models as lodge-vm tells of them: it is started without a machine, asked over its monitor,
 * and what it said is kept until another lodge-vm is installed.
 */
#include "manage/daemon/cpu.h"

#include "base/json.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/machine.h"

#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MS = 60000, ANSWER_MAX = 1 << 20 };

/* --- names --- */

/* Where libvirt's spelling is not QEMU's. */
static const char underscored[][16] = {"cmp-legacy", "ds-cpl",     "fxsr-opt",
                                       "lahf-lm",    "tsc-adjust", "perfctr-core"};
static const char *const synonyms[][2] = {{"sse3", "pni"},
                                          {"sse4-1", "sse4.1"},
                                          {"sse4-2", "sse4.2"},
                                          {"pclmuldq", "pclmulqdq"},
                                          {"ffxsr", "fxsr-opt"}};

char *cpu_feature_name(const char *libvirt)
{
    char *name = g_ascii_strdown(libvirt, -1);
    g_strdelimit(name, "_", '-');
    for (unsigned i = 0; i < G_N_ELEMENTS(synonyms); i++) {
        if (strcmp(name, synonyms[i][0]) == 0) {
            g_free(name);
            return g_strdup(synonyms[i][1]);
        }
    }
    return name;
}

static char *libvirt_name(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(underscored); i++) {
        if (strcmp(name, underscored[i]) == 0) {
            return g_strdelimit(g_strdup(name), "-", '_');
        }
    }
    return g_strdup(name);
}

/* What the hypervisor adds is no part of a CPU that is compared or named. */
static bool ours(const char *name)
{
    return g_str_has_prefix(name, "kvm") || strcmp(name, "hypervisor") == 0;
}

static const char *vendor_word(const char *vendor)
{
    return g_strcmp0(vendor, "GenuineIntel") == 0   ? "Intel"
           : g_strcmp0(vendor, "AuthenticAMD") == 0 ? "AMD"
           : g_strcmp0(vendor, "HygonGenuine") == 0 ? "Hygon"
                                                    : NULL;
}

/* --- asking --- */

struct talk {
    GPid pid;
    int to, from, said; /* the last is what it complains with */
    GString *in;        /* bytes that came and are no line yet */
};

static bool talk_begin(struct talk *t, bool kvm, GError **error)
{
    g_autofree char *program = vm_program();
    const char *argv[] = {program,    "-machine", "none", "-accel", kvm ? "kvm" : "bt", "-S",
                          "-display", "none",     "-qmp", "stdio",  "-nodefaults",      NULL};
    g_autoptr(GError) own = NULL;
    t->in = g_string_new(NULL);
    if (!program ||
        !g_spawn_async_with_pipes(NULL, (char **)(void *)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                                  NULL, NULL, &t->pid, &t->to, &t->from, &t->said, &own)) {
        libvirt_error(error, ERR_INTERNAL, "lodge-vm cannot be asked for its CPU models: %s",
                      own ? own->message : "it is not installed");
        return false;
    }
    return true;
}

/* What it said of why it does not answer, without its name and the remedy for a command line. */
static char *last_words(struct talk *t)
{
    char buffer[1024];
    ssize_t n = read(t->said, buffer, sizeof(buffer) - 1);
    buffer[MAX(n, 0)] = 0;
    const char *text = buffer + (g_str_has_prefix(buffer, "lodge-vm: ") ? 10 : 0);
    const char *remedy = strstr(text, " (-accel ");
    return g_strndup(text, MIN(remedy ? (size_t)(remedy - text) : SIZE_MAX, strcspn(text, "\n")));
}

/* Its last words, if @wanted. */
static char *talk_end(struct talk *t, bool wanted)
{
    char *words = NULL;
    if (t->pid > 0) {
        close(t->to);
        close(t->from);
        kill(t->pid, SIGKILL);
        waitpid(t->pid, NULL, 0);
        words = wanted ? last_words(t) : NULL;
        close(t->said);
    }
    g_string_free(t->in, TRUE);
    return words;
}

/* The next line that is an answer; NULL at the end or after too long. */
static json_t *talk_read(struct talk *t)
{
    gint64 end = g_get_monotonic_time() + ANSWER_MS * G_GINT64_CONSTANT(1000);
    for (;;) {
        const char *line_end = strchr(t->in->str, '\n');
        if (line_end) {
            json_t *o = json_parse(t->in->str, (size_t)(line_end - t->in->str), NULL);
            g_string_erase(t->in, 0, line_end - t->in->str + 1);
            if (json_object_get(o, "return") || json_object_get(o, "error")) {
                return o;
            }
            json_decref(o);
            continue;
        }
        struct pollfd p = {.fd = t->from, .events = POLLIN};
        char buffer[4096];
        gint64 left = (end - g_get_monotonic_time()) / 1000;
        ssize_t n =
            left > 0 && poll(&p, 1, (int)left) == 1 ? read(t->from, buffer, sizeof(buffer)) : 0;
        if (n <= 0 || t->in->len > ANSWER_MAX) {
            return NULL;
        }
        g_string_append_len(t->in, buffer, n);
    }
}

static json_t *talk_ask(struct talk *t, const char *command, json_t *args, GError **error)
{
    g_autoptr(json_t) o = args ? json_pack("{s:s, s:o}", "execute", command, "arguments", args)
                               : json_pack("{s:s}", "execute", command);
    g_autofree char *text = json_dumps(o, JSON_COMPACT), *line = g_strconcat(text, "\n", NULL);
    g_autoptr(json_t) answer =
        write(t->to, line, strlen(line)) == (ssize_t)strlen(line) ? talk_read(t) : NULL;
    json_t *result = json_incref(json_object_get(answer, "return"));
    if (!result) {
        const char *why =
            json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
        libvirt_error(error, ERR_INTERNAL, "lodge-vm: %s: %s", command, why ? why : "no answer");
    }
    return result;
}

static json_t *expand(struct talk *t, const char *name, GError **error)
{
    g_autoptr(json_t) o =
        talk_ask(t, "query-cpu-model-expansion",
                 json_pack("{s:s, s:{s:s}}", "type", "full", "model", "name", name), error);
    return json_incref(json_object_get(json_object_get(o, "model"), "props"));
}

static void add_true(GHashTable *set, json_t *props, bool all)
{
    const char *key;
    json_t *value;
    json_object_foreach(props, key, value)
    {
        if ((json_is_true(value) || (all && json_is_boolean(value))) && !ours(key)) {
            g_hash_table_add(set, (void *)g_intern_string(key));
        }
    }
}

static GHashTable *new_set(void)
{
    return g_hash_table_new(g_str_hash, g_str_equal);
}

/* Paravirtual and such are in every model; without them a model is what its name says. */
static const char *const everywhere[] = {"x2apic",
                                         "tsc-deadline",
                                         "tsc-adjust",
                                         "arat",
                                         "spec-ctrl",
                                         "arch-capabilities",
                                         "lfence-always-serializing",
                                         "null-sel-clr-base",
                                         "srso-no",
                                         "tsa-sq-no",
                                         "tsa-l1-no"};

static bool ask_one(struct talk *t, struct cpu_choice *c, json_t *definition, GError **error)
{
    const char *name = json_string_value(json_object_get(definition, "name"));
    json_t *lacks = json_object_get(definition, "unavailable-features");
    g_autoptr(json_t) props = expand(t, name, error);
    if (!props) {
        return false;
    }
    if (!json_is_true(json_object_get(definition, "migration-safe"))) { /* max, host */
        add_true(c->host, props, false);
        add_true(c->known, props, true);
        c->vendor = vendor_word(json_string_value(json_object_get(props, "vendor")));
        return true;
    }
    struct cpu_kind *kind = g_new0(struct cpu_kind, 1);
    kind->name = g_intern_string(name);
    kind->vendor = vendor_word(json_string_value(json_object_get(props, "vendor")));
    kind->features = new_set();
    kind->usable = json_array_size(lacks) == 0;
    add_true(kind->features, props, false);
    for (unsigned i = 0; i < G_N_ELEMENTS(everywhere); i++) {
        g_hash_table_remove(kind->features, everywhere[i]);
    }
    size_t i;
    json_t *one;
    json_array_foreach(lacks, i, one)
    {
        g_hash_table_add(kind->features, (void *)g_intern_string(json_string_value(one)));
    }
    g_ptr_array_add(c->kinds, kind);
    return true;
}

static void kind_free(void *kind)
{
    struct cpu_kind *k = kind;
    g_hash_table_unref(k->features);
    g_free(k);
}

static void choice_free(struct cpu_choice *c)
{
    g_ptr_array_unref(c->kinds);
    g_hash_table_unref(c->host);
    g_hash_table_unref(c->known);
    g_free(c);
}

static struct cpu_choice *ask_all(bool kvm, GError **error)
{
    struct talk t = {.pid = 0};
    struct cpu_choice *c = NULL;
    bool ok = talk_begin(&t, kvm, error);
    g_autoptr(json_t) hello = ok ? talk_ask(&t, "qmp_capabilities", NULL, error) : NULL;
    g_autoptr(json_t) list = hello ? talk_ask(&t, "query-cpu-definitions", NULL, error) : NULL;
    if (list) {
        c = g_new0(struct cpu_choice, 1);
        c->kinds = g_ptr_array_new_with_free_func(kind_free);
        c->host = new_set();
        c->known = new_set();
    }
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        ok = ok && ask_one(&t, c, one, error);
    }
    g_autofree char *words = talk_end(&t, !hello);
    if (words && words[0] && error && *error) {
        g_free((*error)->message);
        (*error)->message = g_steal_pointer(&words);
    }
    if (c && !ok) {
        choice_free(g_steal_pointer(&c)); /* half of an answer */
    }
    return c;
}

/*
 * What was learnt, and of what: the program, and for KVM also of the door to it, which may come,
 * go and change hands.  @why (of KVM that does not work) is not freed.
 */
static const struct cpu_choice *learnt(bool kvm, const char **why)
{
    static struct {
        const struct cpu_choice *choice, *last; /* .last: also of a program that has gone */
        const char *why;
        struct timespec of[2];
    } kept[2];
    g_autofree char *program = vm_program();
    struct stat st = {0}, door = {0};
    bool installed = program && stat(program, &st) == 0;
    if (kvm) {
        stat("/dev/kvm", &door); /* none: lodge-vm says so */
    }
    const struct timespec of[2] = {st.st_mtim, door.st_ctim};
    bool known = kept[kvm].choice || (kvm && kept[kvm].why);
    if (!installed || !known || memcmp(kept[kvm].of, of, sizeof(of)) != 0) {
        g_autoptr(GError) own = NULL;
        daemon_unlock();
        struct cpu_choice *c = ask_all(kvm, &own);
        daemon_lock();
        if (c) {
            c->before = kept[kvm].last; /* which stays: somebody may look at it */
            kept[kvm].last = c;
        }
        kept[kvm].choice = c;
        kept[kvm].why = own ? g_intern_string(own->message) : NULL;
        memcpy(kept[kvm].of, of, sizeof(of));
    }
    *why = kept[kvm].why;
    return kept[kvm].choice;
}

const struct cpu_choice *cpu_choice(bool kvm, GError **error)
{
    const char *why;
    const struct cpu_choice *c = learnt(kvm, &why);
    if (!c && kvm) {
        g_autofree char *program = vm_program();
        libvirt_error(error, ERR_INVALID_ARG,
                      "the accel 'kvm' is not supported by '%s' on this host: %s",
                      program ? program : "lodge-vm", why);
    } else if (!c) {
        libvirt_error(error, ERR_INTERNAL, "%s", why);
    }
    return c;
}

bool cpu_has_kvm(const char **why)
{
    return learnt(true, why) != NULL;
}

/* --- choosing --- */

const struct cpu_kind *cpu_kind_find(const struct cpu_choice *c, const char *name)
{
    for (unsigned i = 0; i < c->kinds->len; i++) {
        const struct cpu_kind *kind = c->kinds->pdata[i];
        if (g_ascii_strcasecmp(kind->name, name) == 0) {
            return kind;
        }
    }
    return NULL;
}

/* How many of @a are not in @b. */
static unsigned beyond(GHashTable *a, GHashTable *b)
{
    unsigned n = 0;
    GHashTableIter it;
    void *name;
    g_hash_table_iter_init(&it, a);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        n += !g_hash_table_contains(b, name);
    }
    return n;
}

const struct cpu_kind *cpu_best(const struct cpu_choice *c, const char *vendor, GHashTable *set)
{
    const struct cpu_kind *best = NULL;
    unsigned least = UINT_MAX;
    for (unsigned i = 0; i < c->kinds->len; i++) {
        const struct cpu_kind *kind = c->kinds->pdata[i];
        unsigned words = beyond(kind->features, set) + beyond(set, kind->features);
        if ((!vendor || g_strcmp0(kind->vendor, vendor) == 0) && words < least) {
            best = kind;
            least = words;
        }
    }
    return best;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static GPtrArray *difference(GHashTable *of, GHashTable *without)
{
    GPtrArray *out = g_ptr_array_new_with_free_func(g_free);
    GHashTableIter it;
    void *name;
    g_hash_table_iter_init(&it, of);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        if (!without || !g_hash_table_contains(without, name)) {
            g_ptr_array_add(out, libvirt_name(name));
        }
    }
    g_ptr_array_sort(out, by_name);
    return out;
}

GPtrArray *cpu_extras(const struct cpu_kind *kind, GHashTable *set)
{
    return difference(set, kind ? kind->features : NULL);
}

GPtrArray *cpu_lacks(const struct cpu_kind *kind, GHashTable *set)
{
    return difference(kind->features, set);
}

/* --- a machine's --- */

static bool check_features(const struct cpu_choice *c, const struct domain_cpu *cpu, GError **error)
{
    g_autoptr(GString) lacks = g_string_new(NULL), has = g_string_new(NULL);
    for (unsigned i = 0; i < xml_count(cpu->features); i++) {
        const struct cpu_feature *f = cpu->features->pdata[i];
        g_autofree char *name = cpu_feature_name(f->name);
        if (!g_hash_table_contains(c->known, name) && !ours(name)) {
            if (f->policy == POLICY_DISABLE || f->policy == POLICY_OPTIONAL) {
                continue; /* what lodge-vm does not know, no guest sees */
            }
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unknown CPU feature: %s", f->name);
            return false;
        }
        bool there = g_hash_table_contains(c->host, name) || ours(name);
        if (f->policy == POLICY_FORCE && !there) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "<feature policy='force' name='%s'/>: lodge-vm cannot give what the "
                          "host lacks",
                          f->name);
            return false;
        }
        if (f->policy == POLICY_REQUIRE && !there) {
            g_string_append_printf(lacks, "%s%s", lacks->len ? ", " : "", f->name);
        }
        if (f->policy == POLICY_FORBID && there) {
            g_string_append_printf(has, "%s%s", has->len ? ", " : "", f->name);
        }
    }
    if (lacks->len || has->len) {
        libvirt_error(error, ERR_CPU_INCOMPATIBLE, "%s features: %s",
                      lacks->len ? "Host CPU does not provide required"
                                 : "Host CPU provides forbidden",
                      lacks->len ? lacks->str : has->str);
        return false;
    }
    return true;
}

static bool check_kind(const struct cpu_choice *c, const struct domain_cpu *cpu, GError **error)
{
    enum { MATCH_STRICT = 3, CHECK_PARTIAL = 2 };
    const struct cpu_kind *kind = cpu->model ? cpu_kind_find(c, cpu->model) : NULL;
    if (cpu->mode == MODE_CUSTOM && !kind && strcmp(cpu->model, "max") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "unknown CPU model: %s", cpu->model);
        return false;
    }
    if (cpu->vendor && g_strcmp0(cpu->vendor, c->vendor) != 0) {
        libvirt_error(error, ERR_CPU_INCOMPATIBLE,
                      "host CPU vendor does not match required CPU vendor %s", cpu->vendor);
        return false;
    }
    if (cpu->mode != MODE_CUSTOM || !kind ||
        (cpu->check < CHECK_PARTIAL && cpu->match != MATCH_STRICT)) {
        return true;
    }
    g_autoptr(GString) lacks = g_string_new(NULL);
    g_autoptr(GPtrArray) wanted = cpu_extras(NULL, kind->features);
    for (unsigned i = 0; i < wanted->len; i++) {
        g_autofree char *name = cpu_feature_name(wanted->pdata[i]);
        bool off = false;
        for (unsigned k = 0; k < xml_count(cpu->features); k++) {
            const struct cpu_feature *f = cpu->features->pdata[k];
            g_autofree char *other = cpu_feature_name(f->name);
            off |= strcmp(name, other) == 0 && f->policy >= POLICY_DISABLE;
        }
        if (!off && !g_hash_table_contains(c->host, name)) {
            g_string_append_printf(lacks, "%s%s", lacks->len ? "," : "", name);
        }
    }
    if (lacks->len) {
        libvirt_error(error, ERR_OPERATION_FAILED,
                      "guest CPU doesn't match specification: missing features: %s", lacks->str);
        return false;
    }
    return true;
}

/* @names, which are given away, unless the definition speaks of them itself. */
static void add_features(struct domain_cpu *cpu, GPtrArray *names, int policy)
{
    for (unsigned i = 0; i < names->len; i++) {
        bool said = false;
        for (unsigned k = 0; k < xml_count(cpu->features); k++) {
            said |=
                strcmp(((struct cpu_feature *)cpu->features->pdata[k])->name, names->pdata[i]) == 0;
        }
        if (!said) {
            struct cpu_feature *f = g_new0(struct cpu_feature, 1);
            f->policy = policy;
            f->name = g_strdup(names->pdata[i]);
            xml_append(NULL, &cpu->features, f);
        }
    }
    g_ptr_array_unref(names);
}

/* What host-model stands for today, as a definition that another host can be held to. */
static bool resolve_host_model(const struct cpu_choice *c, struct domain_cpu *cpu, GError **error)
{
    const struct cpu_kind *kind = cpu_best(c, c->vendor, c->host);
    if (!kind) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no CPU model fits this host");
        return false;
    }
    add_features(cpu, cpu_extras(kind, c->host), POLICY_REQUIRE);
    add_features(cpu, cpu_lacks(kind, c->host), POLICY_DISABLE);
    cpu->mode = MODE_CUSTOM;
    cpu->match = 2; /* exact */
    g_free(cpu->model);
    cpu->model = g_strdup(kind->name);
    cpu->fallback = 2; /* forbid */
    if (!cpu->vendor) {
        cpu->vendor = g_strdup(c->vendor);
    }
    return true;
}

/* What <features> says of the processor. */
static void put_features(GString *text, const DomainDef *def)
{
    if (def->apic_eoi) {
        g_string_append_printf(text, ",%ckvm-pv-eoi", def->apic_eoi == TRI_YES ? '+' : '-');
    }
    if (def->kvm_hidden == TRI_YES) {
        g_string_append(text, ",kvm=off");
    }
    for (unsigned i = 0; i < xml_count(def->timers); i++) {
        const struct clock_timer *timer = def->timers->pdata[i];
        if (timer->name == TIMER_KVMCLOCK && timer->present) {
            g_string_append_printf(text, ",%ckvmclock", timer->present == TRI_YES ? '+' : '-');
        }
    }
    if (def->cpu && def->cpu->cache_mode) {
        g_string_append_printf(text, ",l3-cache=%s",
                               def->cpu->cache_mode == CACHE_EMULATE ? "on" : "off");
    }
    if (def->cpu && def->cpu->address_mode == ADDRESSES_EMULATE) {
        g_string_append_printf(text, ",phys-bits=%ld", (long)def->cpu->address_bits);
    } else if (def->cpu && def->cpu->address_mode) {
        g_string_append(text, ",host-phys-bits=on");
    }
    if (def->os_arch == ARCH_I686) {
        g_string_append(text, ",-lm");
    }
}

char *cpu_argument(DomainDef *def, GError **error)
{
    struct domain_cpu *cpu = def->cpu;
    if (!cpu || (cpu->mode <= MODE_CUSTOM && !cpu->model)) { /* its topology at most */
        g_autoptr(GString) plain = g_string_new(NULL);
        put_features(plain, def);
        return plain->len ? g_strconcat("max", plain->str, NULL) : g_strdup("");
    }
    const struct cpu_choice *c = cpu_choice(def->type == DOMAIN_TYPE_KVM, error);
    if (!c || (cpu->mode == MODE_HOST_MODEL && !resolve_host_model(c, cpu, error)) ||
        !check_kind(c, cpu, error) || !check_features(c, cpu, error)) {
        return NULL;
    }
    g_autoptr(GString) text = g_string_new(cpu->mode == MODE_CUSTOM             ? cpu->model
                                           : cpu->mode == MODE_HOST_PASSTHROUGH ? "host"
                                                                                : "max");
    if (cpu->migratable) {
        g_string_append_printf(text, ",migratable=%s", cpu->migratable == TRI_YES ? "on" : "off");
    }
    if (cpu->mode == MODE_CUSTOM && cpu->match == 1) { /* minimum: all that the host has */
        g_autoptr(GPtrArray) all = cpu_extras(cpu_kind_find(c, cpu->model), c->host);
        for (unsigned i = 0; i < all->len; i++) {
            g_autofree char *name = cpu_feature_name(all->pdata[i]);
            g_string_append_printf(text, ",+%s", name);
        }
    }
    for (unsigned i = 0; i < xml_count(cpu->features); i++) {
        const struct cpu_feature *f = cpu->features->pdata[i];
        g_autofree char *name = cpu_feature_name(f->name);
        bool on = f->policy == POLICY_FORCE || f->policy == POLICY_REQUIRE ||
                  f->policy == POLICY_OPTIONAL;
        if ((g_hash_table_contains(c->known, name) || ours(name)) &&
            (!on || g_hash_table_contains(c->host, name) || ours(name))) {
            g_string_append_printf(text, ",%c%s", on ? '+' : '-', name);
        }
    }
    put_features(text, def);
    return g_string_free(g_steal_pointer(&text), FALSE);
}
