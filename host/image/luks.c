/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * luks: a disk encrypted as a whole, behind a LUKS version 1 header.
 *
 * Spec: LUKS On-Disk Format Specification, version 1.2.3, section "LUKS partition header".
 */
#include "host/image/luks.h"

#include "host/image/cipher.h"
#include "host/image/format.h"
#include "host/image/options.h"

#include <inttypes.h>
#include <string.h>

static unsigned luks_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= 8 && !memcmp(head, "LUKS\xba\xbe\0", 7) && (head[7] == 1 || head[7] == 2) ? 100 : 0;
}

static bool luks_open_node(struct node *node, unsigned flags, GError **error)
{
    struct luks_area area = {.file = node->file, .length = file_size(node->file)};
    const char *secret = flags & OPEN_NO_IO ? NULL : json_text(node->options, "key-secret");
    if (!secret && !(flags & OPEN_NO_IO)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'key-secret' is required for cipher");
        return false;
    }
    struct luks *l = luks_open(&area, secret, node->untrusted, error);
    if (!l) {
        return false;
    }
    node->priv = l;
    if (luks_payload(l) > area.length) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "LUKS payload at byte %" PRIu64 " is behind the end of the file",
                    luks_payload(l));
        return false;
    }
    node->size = (area.length - luks_payload(l)) & ~(uint64_t)(CIPHER_SECTOR - 1);
    node->cipher = luks_cipher(l);
    node->align = CIPHER_SECTOR;
    return true;
}

static void luks_close(struct node *node)
{
    luks_free(node->priv);
    node->priv = NULL;
    node->cipher = NULL;
}

static int luks_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                    struct extent *out)
{
    (void)wait;
    *out = (struct extent){.kind = EXTENT_DATA, .length = length, .tweak = offset,
                           .at = luks_payload(node->priv) + offset, .in_place = true};
    return 0;
}

static int luks_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    return luks_map(node, offset, length, true, out);
}

static int luks_flush(struct node *node)
{
    return file_flush(node->file);
}

/* ---- whole images ---- */

static const struct option_desc create_options[] = {
    {"cipher-alg", "str", "Cipher and key length, such as aes-256 or serpent-128", NULL},
    {"cipher-mode", "str", "Mode of the cipher: xts, cbc, ctr, ecb", NULL},
    {"hash-alg", "str", "Hash that passphrases go through", NULL},
    {"iter-time", "num", "Milliseconds that trying a passphrase takes", NULL},
    {"ivgen-alg", "str", "What a sector's initialization vector is made of: plain, plain64, essiv",
     NULL},
    {"ivgen-hash-alg", "str", "Hash of the essiv generator", NULL},
    {"key-secret", "str", "ID of the secret with the passphrase", NULL},
    {0},
};

static const struct option_desc amend_options[] = {
    {"state", "str", "active: add a passphrase; inactive: erase key slots", NULL},
    {"keyslot", "num", "Key slot to fill or erase, 0 to 7", NULL},
    {"old-secret", "str", "ID of a secret: erase the key slots that it opens", NULL},
    {"new-secret", "str", "ID of the secret with the new passphrase", NULL},
    {"iter-time", "num", "Milliseconds that trying the new passphrase takes", NULL},
    {0},
};

static const char *prefixed(const struct options *o, const char *prefix, const char *name)
{
    g_autofree char *full = g_strconcat(prefix, name, NULL);
    return option_str(o, full);
}

/* False if it is there and no number up to @max. */
static bool prefixed_num(const struct options *o, const char *prefix, const char *name,
                         uint64_t max, uint64_t *out, GError **error)
{
    const char *text = prefixed(o, prefix, name);
    if (text && (!text_u64(text, out) || *out > max)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s%s' is out of range: '%s'", prefix,
                    name, text);
        return false;
    }
    return true;
}

bool luks_params_of(const struct options *o, const char *prefix, struct luks_params *out,
                    GError **error)
{
    *out = (struct luks_params){
        .cipher_alg = prefixed(o, prefix, "cipher-alg"),
        .cipher_mode = prefixed(o, prefix, "cipher-mode"),
        .ivgen_alg = prefixed(o, prefix, "ivgen-alg"),
        .ivgen_hash_alg = prefixed(o, prefix, "ivgen-hash-alg"),
        .hash_alg = prefixed(o, prefix, "hash-alg"),
        .key_secret = prefixed(o, prefix, "key-secret"),
    };
    return prefixed_num(o, prefix, "iter-time", INT32_MAX, &out->iter_time, error);
}

bool luks_amend_of(const struct options *o, const char *prefix, struct luks_amend *out,
                   GError **error)
{
    const char *state = prefixed(o, prefix, "state");
    bool active = state && !strcmp(state, "active");
    uint64_t slot = 0;
    if (!state || (!active && strcmp(state, "inactive"))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%sstate' must be active or inactive",
                    prefix);
        return false;
    }
    *out = (struct luks_amend){
        .active = active,
        .keyslot = -1,
        .new_secret = prefixed(o, prefix, "new-secret"),
        .old_secret = prefixed(o, prefix, "old-secret"),
    };
    if (!prefixed_num(o, prefix, "iter-time", INT32_MAX, &out->iter_time, error) ||
        !prefixed_num(o, prefix, "keyslot", INT32_MAX, &slot, error)) {
        return false;
    }
    if (prefixed(o, prefix, "keyslot")) {
        out->keyslot = (int)slot;
    }
    return true;
}

static bool luks_create_image(const struct image_create *how, GError **error)
{
    struct luks_params params;
    struct luks_area area = {.file = how->file};
    if (how->preallocation == PREALLOC_METADATA) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported preallocation mode 'metadata'");
        return false;
    }
    if (!luks_params_of(how->options, "", &params, error) ||
        !luks_header_size(&params, &area.length, error)) {
        return false;
    }
    struct luks *l = luks_create(&area, &params, error);
    luks_free(l);
    return l && file_preallocate(how->file, area.length, area.length + how->size,
                                 how->preallocation, error);
}

static bool luks_resize(struct node *node, uint64_t size, enum preallocation preallocation,
                        GError **error)
{
    uint64_t payload = luks_payload(node->priv);
    int r = size < node->size ? file_resize(node->file, payload + size) : 0;
    if (r < 0) {
        error_set_errno(error, -r, "Cannot resize the file");
        return false;
    }
    if (size > node->size && !file_preallocate(node->file, payload + node->size, payload + size,
                                               preallocation, error)) {
        return false;
    }
    node->size = size;
    return true;
}

static bool luks_amend_image(struct node *node, const struct options *options, bool force,
                             void (*progress)(void *owner, double part), void *owner,
                             GError **error)
{
    struct luks_amend how;
    bool ok = luks_amend_of(options, "", &how, error) && luks_amend(node->priv, &how, force, error);
    if (ok && progress) {
        progress(owner, 1);
    }
    return ok;
}

static void luks_describe_image(struct node *node, json_t *data)
{
    luks_describe(node->priv, false, data);
}

static bool luks_measure(const struct image_create *how, uint64_t used, uint64_t out[2],
                         GError **error)
{
    (void)used; /* zeroes are encrypted too */
    struct luks_params params;
    uint64_t header;
    if (!luks_params_of(how->options, "", &params, error) ||
        !luks_header_size(&params, &header, error)) {
        return false;
    }
    out[0] = out[1] = header + how->size;
    return true;
}

static const struct format_tools luks_tools = {
    .create_options = create_options,
    .amend_options = amend_options,
    .create = luks_create_image,
    .resize = luks_resize,
    .amend = luks_amend_image,
    .describe = luks_describe_image,
    .measure = luks_measure,
    .dirty_flag = true,
};

static const char *const open_options[] = {"key-secret", NULL};

const struct image_format format_luks = {
    .open_options = open_options,
    .name = "luks",
    .about = "a disk encrypted as a whole",
    .spec = "LUKS On-Disk Format Specification 1.2.3",
    .probe = luks_probe,
    .open = luks_open_node,
    .close = luks_close,
    .map = luks_map,
    .place = luks_place,
    .flush = luks_flush,
    .tools = &luks_tools,
};
