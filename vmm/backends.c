/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"
#include "base/rng.h"
#include "guest/device/iothread.h"
#include "guest/device/pc_dimm.h"
#include "host/audio/audio.h"
#include "host/chardev/chardev.h"
#include "host/image/secret.h"
#include "host/image/tls.h"
#include "host/net/net.h"
#include "vmm/build.h"
#include "vmm/export.h"
#include "vmm/monitor/monitor.h"
#include "vmm/vm.h"

#include <stdio.h>
#include <string.h>

/* backends - what stands behind the machine's devices: objects, memory, networks, ports, monitors
 */

/* ---- -object ---- */

struct object {
    char *id, *kind;
    uint64_t size; /* memory backends */
    bool used;     /* the machine's memory */
    struct ram_source source;
};

static GPtrArray *objects; /* of struct object * */

static struct object *object_find(const char *id)
{
    for (unsigned i = 0; objects && i < objects->len; i++) {
        struct object *ob = g_ptr_array_index(objects, i);
        if (g_str_equal(ob->id, id)) {
            return ob;
        }
    }
    return NULL;
}

static bool make_rng(struct object *ob, KeyVal *kv, GError **error)
{
    const char *path = NULL;
    if (g_str_equal(ob->kind, "rng-random")) {
        path = keyval_get(kv, "filename");
        path = path ? path : "/dev/urandom";
    }
    return keyval_done(kv, error) && rng_new(ob->id, path, error) != NULL;
}

/* host-nodes=N, as often as needed, and policy=: which of the host's memory it is. */
static bool take_nodes(struct ram_source *source, KeyVal *kv, GError **error)
{
    static const char *const policies[] = {"default", "preferred", "bind", "interleave"};
    enum { NODES = 64 };
    const char *policy = keyval_get(kv, "policy");
    keyval_get(kv, "host-nodes");
    for (unsigned k = 0; k < keyval_count(kv); k++) {
        const char *nodes = keyval_value(kv, k), *key = keyval_key(kv, k);
        if (!g_str_equal(key, "host-nodes") && !g_str_has_prefix(key, "host-nodes.")) {
            continue;
        }
        keyval_get(kv, key);
        g_auto(GStrv) ends = g_strsplit(nodes, "-", 2);
        uint64_t first, last;
        if (!ends[0] || !text_u64(ends[0], &first) ||
            !text_u64(ends[1] ? ends[1] : ends[0], &last) || last < first || last >= NODES) {
            g_set_error(error, LODGE_ERROR, EINVAL, "host-nodes=%s: expected N or N-N, below %d",
                        nodes, NODES);
            return false;
        }
        for (uint64_t i = first; i <= last; i++) {
            source->nodes |= UINT64_C(1) << i;
        }
    }
    for (unsigned i = 0; policy && i < G_N_ELEMENTS(policies); i++) {
        if (g_str_equal(policy, policies[i])) {
            source->policy = (int)i;
            policy = NULL;
        }
    }
    if (policy || (source->nodes != 0) != (source->policy != 0)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    policy ? "policy=%s: expected default, preferred, bind or interleave"
                           : "host-nodes= and policy= come together",
                    policy);
        return false;
    }
    return true;
}

static bool make_memory(struct object *ob, KeyVal *kv, GError **error)
{
    bool is_file = g_str_equal(ob->kind, "memory-backend-file"), merge = true, dump = true;
    const char *path = keyval_get(kv, "mem-path");
    ob->source.share = g_str_equal(ob->kind, "memory-backend-memfd");
    if (!take_nodes(&ob->source, kv, error)) {
        return false;
    }
    if (!keyval_size(kv, "size", 1, &ob->size, error) ||
        !keyval_bool(kv, "share", &ob->source.share, error) ||
        !keyval_bool(kv, "prealloc", &ob->source.prealloc, error) ||
        !keyval_bool(kv, "merge", &merge, error) || !keyval_bool(kv, "dump", &dump, error) ||
        !keyval_done(kv, error)) {
        return false;
    }
    if (ob->size == 0 || is_file != (path != NULL)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    ob->size == 0 ? "it needs size="
                    : is_file     ? "it needs mem-path="
                                  : "mem-path= is for memory-backend-file");
        return false;
    }
    ob->source.mem_path = g_strdup(path);
    ob->source.merge_off = !merge;
    ob->source.dump_off = !dump;
    return true;
}

static bool make_secret(struct object *ob, KeyVal *kv, GError **error)
{
    keyval_get(kv, "id");
    (void)ob;
    return secret_add(kv, error) && keyval_done(kv, error);
}

static bool make_tls(struct object *ob, KeyVal *kv, GError **error)
{
    return tls_object_add(ob->kind, kv, error) && keyval_done(kv, error);
}

static bool make_iothread(struct object *ob, KeyVal *kv, GError **error)
{
    return keyval_done(kv, error) && iothread_new(ob->id, error) != NULL;
}

static const struct {
    const char *kind, *about;
    bool (*make)(struct object *ob, KeyVal *kv, GError **error);
} object_kinds[] = {
    {"iothread", "thread for the queues of disks (iothread= of virtio-blk-pci, virtio-scsi-pci)",
     make_iothread},
    {"rng-builtin", "random bytes of the kernel", make_rng},
    {"rng-random", "random bytes of a file (filename=)", make_rng},
    {"secret", "passphrase or key (data=, file=, format=, keyid=, iv=)", make_secret},
    {"tls-creds-x509", "certificates of a folder (dir=, endpoint=, verify-peer=)", make_tls},
    {"tls-creds-psk", "keys that both sides know (dir=, username=, endpoint=)", make_tls},
    {"tls-creds-anon", "encryption of who is not known (endpoint=)", make_tls},
    {"memory-backend-ram", "guest memory (size=, prealloc=, host-nodes=, policy=)", make_memory},
    {"memory-backend-file", "guest memory in a file (size=, mem-path=, share=, prealloc=)",
     make_memory},
    {"memory-backend-memfd", "guest memory other processes can map (size=, prealloc=)",
     make_memory},
};

void vm_list_objects(GString *out)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(object_kinds); i++) {
        g_string_append_printf(out, "  %-22s %s\n", object_kinds[i].kind, object_kinds[i].about);
    }
}

static void object_free(struct object *ob)
{
    g_free(ob->id);
    g_free(ob->kind);
    g_free((char *)ob->source.mem_path);
    g_free(ob);
}

bool vm_object_add(KeyVal *kv, GError **error)
{
    const char *kind = keyval_get(kv, "qom-type"), *id = keyval_get(kv, "id");
    if (!id || !*id || object_find(id)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    id && *id ? "object id \"%s\" is taken" : "an object needs an id%s",
                    id && *id ? id : "");
        return false;
    }
    for (unsigned i = 0; kind && i < G_N_ELEMENTS(object_kinds); i++) {
        if (g_str_equal(object_kinds[i].kind, kind)) {
            struct object *ob = g_new0(struct object, 1);
            ob->id = g_strdup(id);
            ob->kind = g_strdup(kind);
            if (!object_kinds[i].make(ob, kv, error)) {
                object_free(ob);
                return false;
            }
            objects = objects ? objects : g_ptr_array_new();
            g_ptr_array_add(objects, ob);
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "no object type \"%s\"; -object help lists them",
                kind ? kind : "");
    return false;
}

static bool rng_used(const struct rng_source *rng)
{
    for (struct device *dev = vm_board()->devices; dev; dev = dev->next) {
        for (unsigned i = 0; i < dev->model->nprops; i++) {
            const struct prop *p = &dev->model->props[i];
            if (p->kind == PROP_RNG &&
                memcmp((const char *)dev + p->slot, &rng, sizeof(rng)) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* True if nobody used it; what it was made of is gone then. */
static bool object_release(const struct object *ob)
{
    if (g_str_equal(ob->kind, "secret")) {
        return secret_remove(ob->id);
    }
    if (tls_object_known(ob->kind)) {
        return !export_server_uses(ob->id) && tls_creds_remove(ob->id);
    }
    if (iothread_find(ob->id)) {
        return iothread_remove(ob->id);
    }
    struct rng_source *rng = rng_find(ob->id);
    if (rng) {
        return !rng_used(rng) && rng_remove(ob->id);
    }
    return ob->size && !ob->used && !pc_dimm_uses(vm_board(), ob->id);
}

bool vm_object_remove(const char *id, GError **error)
{
    struct object *ob = object_find(id);
    if (!ob) {
        g_set_error(error, LODGE_ERROR, ENOENT, "object '%s' not found", id);
        return false;
    }
    if (object_release(ob)) {
        g_ptr_array_remove(objects, ob);
        object_free(ob);
        return true;
    }
    g_set_error(error, LODGE_ERROR, EBUSY, "object '%s' is in use, can not be deleted", id);
    return false;
}

KeyVal *vm_keyval(const char *text, const char *implied, GError **error)
{
    if (*text != '{') {
        return keyval_parse(text, implied, error);
    }
    g_autoptr(json_t) json = json_parse(text, strlen(text), error);
    return json ? json_to_keyval(json, error) : NULL;
}

static bool add_object(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    g_autoptr(KeyVal) kv = vm_keyval(use->text, "qom-type", error);
    bool ok = kv && vm_object_add(kv, error);
    if (!ok) {
        g_prefix_error(error, "-object %s: ", use->text);
    }
    return ok;
}

bool build_objects(struct vm_options *o, GError **error)
{
    return vm_options_each(o, (const char *const[]){"object", NULL}, add_object, NULL, error);
}

const struct ram_source *build_module_backend(const char *id, uint64_t *bytes, GError **error)
{
    struct object *ob = object_find(id);
    if (!ob || !ob->size || ob->used) {
        g_set_error(error, LODGE_ERROR, ob && ob->used ? EBUSY : ENOENT,
                    ob && ob->used ? "can't use already busy memdev: %s"
                                   : "memdev=%s: no such memory backend",
                    id);
        return NULL;
    }
    *bytes = ob->size;
    return &ob->source;
}

const struct ram_source *build_memory_backend(const char *id, uint64_t *bytes, GError **error)
{
    struct object *ob = object_find(id);
    if (!ob || !ob->size) {
        g_set_error(error, LODGE_ERROR, ENOENT, "memory-backend=%s: no such memory backend", id);
        return NULL;
    }
    ob->used = true;
    *bytes = ob->size;
    return &ob->source;
}

bool build_ram_source(struct vm_options *o, GError **error)
{
    struct machine_config *m = &o->machine;
    m->ram_source = (struct ram_source){.mem_path = o->mem_path, .prealloc = o->mem_prealloc};
    if (o->mem_path && access(o->mem_path, F_OK) < 0) { /* a file there would be a surprise */
        error_set_errno(error, errno, "-mem-path %s", o->mem_path);
        return false;
    }
    if (!o->memory_backend) {
        return true;
    }
    uint64_t bytes;
    const struct ram_source *source = build_memory_backend(o->memory_backend, &bytes, error);
    if (!source) {
        g_prefix_error(error, "-machine ");
        return false;
    }
    if (bytes != m->ram_bytes && m->ram_bytes != 128 << 20) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "machine memory size (-m) differs from that of memory backend %s",
                    o->memory_backend);
        return false;
    }
    m->ram_bytes = bytes;
    m->max_ram_bytes = MAX(m->max_ram_bytes, bytes);
    m->ram_source = *source;
    return true;
}

/* ---- networks ---- */

static unsigned nics;

/* QEMU's names of cards to those of our devices. */
static bool add_nic(const char *model, const char *mac, const char *netdev, GError **error)
{
    static const char *const aliases[][2] = {{"virtio", "virtio-net-pci"},
                                             {"e1000-82540em", "e1000"}};
    model = model ? model : "e1000";
    for (unsigned i = 0; i < G_N_ELEMENTS(aliases); i++) {
        model = g_str_equal(model, aliases[i][0]) ? aliases[i][1] : model;
    }
    if (!device_model_find(model)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "no network card model \"%s\"", model);
        return false;
    }
    g_autoptr(GString) text = g_string_new(model);
    if (netdev) {
        g_string_append_printf(text, ",netdev=%s", netdev);
    }
    if (mac) {
        g_string_append_printf(text, ",mac=%s", mac);
    }
    build_add_nic(text->str);
    nics++;
    return true;
}

/* Makes the netdev of what is left of @kv after the card's keys were taken out. */
static bool netdev_of_rest(KeyVal *kv, const char *kind, const char *id, GError **error)
{
    keyval_get(kv, "kind");
    keyval_get(kv, "id");
    g_autofree char *rest = keyval_rest(kv);
    g_autofree char *text =
        g_strdup_printf("%s,id=%s%s%s", kind, id, rest ? "," : "", rest ? rest : "");
    return netdev_new(text, error) != NULL;
}

static bool on_nic(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    g_autoptr(KeyVal) kv = keyval_parse(use->text, "kind", error);
    const char *kind = kv ? keyval_get(kv, "kind") : NULL, *id = kv ? keyval_get(kv, "id") : NULL;
    if (g_strcmp0(kind, "none") == 0) {
        return true;
    }
    g_autofree char *made = g_strdup_printf("__org.qemu.nic%u", nics);
    id = id ? id : made;
    bool ok = kv && kind;
    const char *model = ok ? keyval_get(kv, "model") : NULL,
               *mac = ok ? keyval_get(kv, "mac") : NULL;
    ok = ok && netdev_of_rest(kv, kind, id, error) && add_nic(model, mac, id, error);
    if (!ok) {
        g_prefix_error(error, "-nic %s: ", use->text);
    }
    return ok;
}

/* The old form: cards and backends hang on one hub; one of each is what it is used for. */
struct old_net {
    bool card, none;
    char *model, *mac, *backend;
};

static bool on_net(const struct option_use *use, void *owner, GError **error)
{
    struct old_net *net = owner;
    g_autoptr(KeyVal) kv = keyval_parse(use->text, "kind", error);
    const char *kind = kv ? keyval_get(kv, "kind") : NULL;
    if (!kind) {
        g_prefix_error(error, "-net %s: ", use->text);
        return false;
    }
    if (g_str_equal(kind, "none")) {
        net->none = true;
    } else if (g_str_equal(kind, "nic") && !net->card) {
        net->card = true;
        net->model = g_strdup(keyval_get(kv, "model"));
        net->mac = g_strdup(keyval_get(kv, "macaddr"));
        keyval_get(kv, "name");
        if (!keyval_done(kv, error)) {
            g_prefix_error(error, "-net %s: ", use->text);
            return false;
        }
    } else if (!g_str_equal(kind, "nic") && !net->backend) {
        net->backend = g_strdup("hub0");
        if (!netdev_of_rest(kv, kind, "hub0", error)) {
            g_prefix_error(error, "-net %s: ", use->text);
            return false;
        }
    } else {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "-net %s: more than one card or backend: use -nic or -netdev", use->text);
        return false;
    }
    return true;
}

static bool on_netdev(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    if (*use->text != '{') {
        return netdev_new(use->text, error) != NULL;
    }
    g_autoptr(KeyVal) kv = vm_keyval(use->text, NULL, error);
    const char *kind = kv ? keyval_get(kv, "type") : NULL, *id = kv ? keyval_get(kv, "id") : NULL;
    if (kv && (!kind || !id)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-netdev %s: it needs type and id", use->text);
    }
    return kind && id && netdev_of_rest(kv, kind, id, error);
}

bool build_nets(struct vm_options *o, GError **error)
{
    struct old_net net = {0};
    bool any =
        vm_options_used(o, "net") || vm_options_used(o, "nic") || vm_options_used(o, "netdev");
    bool ok = vm_options_each(o, (const char *const[]){"netdev", NULL}, on_netdev, NULL, error) &&
              vm_options_each(o, (const char *const[]){"nic", NULL}, on_nic, NULL, error) &&
              vm_options_each(o, (const char *const[]){"net", NULL}, on_net, &net, error);
    if (ok && !any && !o->machine.nodefaults) {
        ok = netdev_new("user,id=__org.qemu.nic0", error) &&
             add_nic(NULL, NULL, "__org.qemu.nic0", error);
    } else if (ok && (net.card || net.backend) && !net.none) {
        ok = !net.card || add_nic(net.model, net.mac, net.backend, error);
    }
    g_free(net.model);
    g_free(net.mac);
    g_free(net.backend);
    return ok;
}

/* ---- serial ports and monitors ---- */

/* "chardev:ID" names one that exists; "mon:DEV" puts a monitor beside the port. */
static struct chardev *port(const char *label, const char *spec, GError **error)
{
    bool beside = g_str_has_prefix(spec, "mon:");
    if (g_str_has_prefix(spec, "chardev:")) {
        struct chardev *chr = build_chardev(spec + 8);
        if (!chr) {
            g_set_error(error, LODGE_ERROR, ENOENT, "%s: no such chardev", spec);
        }
        return chr;
    }
    if (!beside) {
        struct chardev *chr = chardev_new_short(label, spec, error);
        if (chr && g_str_equal(chr->kind, "pty")) {
            fprintf(stderr, "char device redirected to %s (label %s)\n", chr->about + 4, label);
        }
        return chr;
    }
    /* A terminal that is shared does not end the machine on Ctrl-C. */
    const char *signals = g_str_equal(spec, "mon:stdio") ? ",signal=off" : "";
    g_autofree char *text = g_strdup_printf("%s%s,mux=on", spec + 4, signals);
    if (!chardev_new_short(label, text, error)) {
        return NULL;
    }
    struct chardev *chr = chardev_find(label);
    return chr && monitor_new(chardev_find(label), MONITOR_HMP, error) ? chr : NULL;
}

struct chardev *build_chardev(const char *id)
{
    return chardev_find(id);
}

struct ports {
    struct chardev **to;
    unsigned n, room;
    const char *name;
};

static bool on_port(const struct option_use *use, void *owner, GError **error)
{
    struct ports *p = owner;
    g_autofree char *label = g_strdup_printf("%s%u", p->name, p->n);
    if (p->n == p->room) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-%s %s: there are %u %s ports", p->name, use->text,
                    p->room, p->name);
        return false;
    }
    if (g_str_equal(use->text, "none")) {
        p->n++;
        return true;
    }
    p->to[p->n] = port(label, use->text, error);
    if (!p->to[p->n]) {
        g_prefix_error(error, "-%s ", p->name);
        return false;
    }
    p->n++;
    return true;
}

static bool on_chardev(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    struct chardev *chr = chardev_new(use->text, error);
    if (chr && g_str_equal(chr->kind, "pty")) {
        fprintf(stderr, "char device redirected to %s (label %s)\n", chr->about + 4, chr->id);
    }
    return chr != NULL;
}

bool build_serials(struct vm_options *o, GError **error)
{
    struct machine_config *m = &o->machine;
    struct ports serial = {m->serial, 0, G_N_ELEMENTS(m->serial), "serial"};
    struct ports parallel = {m->parallel, 0, G_N_ELEMENTS(m->parallel), "parallel"};
    bool monitor = vm_options_used(o, "monitor") || vm_options_used(o, "mon") ||
                   vm_options_used(o, "qmp") || vm_options_used(o, "qmp-pretty");
    if (!vm_options_each(o, (const char *const[]){"chardev", NULL}, on_chardev, NULL, error)) {
        return false;
    }
    if (!vm_options_used(o, "serial") && !m->nodefaults) {
        vm_options_add(o, "serial", !o->nographic ? "vc" : monitor ? "stdio" : "mon:stdio");
    } else if (o->nographic && !monitor && !m->nodefaults) {
        vm_options_add(o, "default-monitor", "stdio");
    }
    if (!vm_options_each(o, (const char *const[]){"serial", NULL}, on_port, &serial, error) ||
        !vm_options_each(o, (const char *const[]){"parallel", NULL}, on_port, &parallel, error)) {
        return false;
    }
    if (o->debugcon && !g_str_equal(o->debugcon, "none") &&
        !(m->debugcon = port("debugcon", o->debugcon, error))) {
        g_prefix_error(error, "-debugcon ");
        return false;
    }
    return true;
}

/* ---- sound ---- */

static void tell_broken(const struct audio *a, int err)
{
    vm_report("audiodev %s takes no more: %s", a->id, g_strerror(err));
}

static bool on_audiodev(const struct option_use *use, void *owner, GError **error)
{
    (void)owner;
    g_autoptr(KeyVal) kv = vm_keyval(use->text, "driver", error);
    if (!kv || !audio_new(kv, error)) {
        g_prefix_error(error, "-audiodev %s: ", use->text);
        return false;
    }
    return true;
}

/* The devices of a -audio model=; their sound goes to @id. */
static bool add_card(struct vm_options *o, const char *model, const char *id, GError **error)
{
    if (g_str_equal(model, "hda")) {
        vm_options_add(o, "sound-device", "intel-hda");
        g_autofree char *codec = g_strdup_printf("hda-duplex,audiodev=%s", id);
        vm_options_add(o, "sound-device", codec);
    } else if (g_str_equal(model, "ac97")) {
        g_autofree char *card = g_strdup_printf("AC97,audiodev=%s", id);
        vm_options_add(o, "sound-device", card);
    } else if (g_str_equal(model, "pcspk")) {
        g_hash_table_replace(o->machine.props, g_strdup("pcspk-audiodev"), g_strdup(id));
    } else {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "model=%s is not supported: hda, ac97 and pcspk are", model);
        return false;
    }
    return true;
}

static bool on_audio(const struct option_use *use, void *owner, GError **error)
{
    struct vm_options *o = owner;
    static unsigned n;
    g_autofree char *made = g_strdup_printf("audiodev%u", n++);
    g_autoptr(KeyVal) kv = keyval_parse(use->text, "driver", error);
    const char *model = kv ? keyval_get(kv, "model") : NULL, *id = kv ? keyval_get(kv, "id") : NULL;
    if (kv && !id) {
        keyval_set(kv, "id", made);
    }
    if (!kv || !audio_new(kv, error) || (model && !add_card(o, model, id ? id : made, error))) {
        g_prefix_error(error, "-audio %s: ", use->text);
        return false;
    }
    return true;
}

bool build_audio(struct vm_options *o, GError **error)
{
    audio_broken = tell_broken;
    return vm_options_each(o, (const char *const[]){"audiodev", NULL}, on_audiodev, NULL, error) &&
           vm_options_each(o, (const char *const[]){"audio", NULL}, on_audio, o, error);
}

/* ---- monitors ---- */

static bool on_monitor(const struct option_use *use, void *owner, GError **error)
{
    static unsigned n;
    static const struct {
        const char *option;
        enum monitor_kind kind;
    } kinds[] = {
        {"monitor", MONITOR_HMP}, {"qmp", MONITOR_QMP}, {"qmp-pretty", MONITOR_QMP_PRETTY}};
    enum monitor_kind kind = MONITOR_HMP;
    (void)owner;
    if (g_str_equal(use->text, "none")) {
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        kind = g_str_equal(kinds[i].option, use->option) ? kinds[i].kind : kind;
    }
    g_autofree char *label = g_strdup_printf("compat_monitor%u", n++);
    struct chardev *chr = port(label, use->text, error);
    if (!chr || !monitor_new(chr, kind, error)) {
        g_prefix_error(error, "-%s ", use->option);
        return false;
    }
    return true;
}

static bool on_mon(const struct option_use *use, void *owner, GError **error)
{
    bool pretty = false;
    (void)owner;
    g_autoptr(KeyVal) kv = keyval_parse(use->text, "chardev", error);
    const char *id = kv ? keyval_get(kv, "chardev") : NULL;
    const char *mode = kv ? keyval_get(kv, "mode") : NULL;
    struct chardev *chr = id ? build_chardev(id) : NULL;
    bool control = mode && g_str_equal(mode, "control");
    if (!kv || !keyval_bool(kv, "pretty", &pretty, error) || !keyval_done(kv, error)) {
        g_prefix_error(error, "-mon %s: ", use->text);
        return false;
    }
    if (!chr || (mode && !control && !g_str_equal(mode, "readline"))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    chr ? "-mon %s: mode is readline or control" : "-mon %s: no such chardev",
                    use->text);
        return false;
    }
    return monitor_new(chr,
                       !control ? MONITOR_HMP
                       : pretty ? MONITOR_QMP_PRETTY
                                : MONITOR_QMP,
                       error);
}

/* The monitor that -nographic puts on the terminal gives way if a -serial took it. */
static bool on_default_monitor(const struct option_use *use, void *owner, GError **error)
{
    (void)owner, (void)error;
    struct chardev *chr = chardev_new_short("compat_monitor", use->text, NULL);
    return !chr || monitor_new(chr, MONITOR_HMP, error);
}

bool build_monitors(struct vm_options *o, GError **error)
{
    return vm_options_each(o, (const char *const[]){"monitor", "qmp", "qmp-pretty", NULL},
                           on_monitor, NULL, error) &&
           vm_options_each(o, (const char *const[]){"mon", NULL}, on_mon, NULL, error) &&
           vm_options_each(o, (const char *const[]){"default-monitor", NULL}, on_default_monitor,
                           NULL, error);
}
