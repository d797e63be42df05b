/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"
#include "host/image/chain.h"
#include "host/image/codec.h"
#include "host/image/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* lodge-img: create, info, convert and check in their plainest form. */

enum { STEP = 2 << 20 };

static int report(GError *error)
{
    fprintf(stderr, "lodge-img: %s\n", error->message);
    g_error_free(error);
    return 1;
}

static const char *from_format, *to_format = "raw", *backing, *backing_format;
static GString *options_text;
static bool compress_units;

static bool make(const char *name, uint64_t size, GError **error)
{
    const struct image_format *f = format_find(to_format, error);
    if (!f || !f->tools || !f->tools->create_options) {
        return false;
    }
    g_autoptr(Options) o = options_new(f->tools->create_options, NULL);
    struct chain_create how = {.name = name, .format = to_format, .size = size, .options = o,
                               .backing_name = backing, .backing_format = backing_format};
    if (options_text->len && !options_parse(o, options_text->str, error)) {
        return false;
    }
    const char *prealloc = option_str(o, "preallocation");
    return (!prealloc || preallocation_of(prealloc, &how.preallocation, error)) &&
           chain_create(&how, error);
}

static int copy(struct node *from, struct node *to)
{
    static uint8_t buf[STEP], packed[STEP];
    uint32_t step = compress_units ? to->granule : STEP;
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < from->size;) {
        struct chain_status s;
        uint64_t n = MIN(from->size - at, step);
        r = chain_status(from, NULL, at, n, &s);
        if (r == 0 && s.zero && (s.length == n || !compress_units)) {
            at += s.length;
            continue;
        }
        memset(buf, 0, step);
        r = r ? r : chain_read(from, at, buf, n);
        int64_t k = compress_units ? to->codec->pack(buf, step, packed, step, 0) : 0;
        r = r ? r : k > 0 ? chain_write_packed(to, at, packed, (uint32_t)k) : chain_write(to, at, buf, n);
        at += n;
    }
    return r ? r : chain_flush(to);
}

static int convert(char **operands, GError **error)
{
    struct chain_open src = {.name = operands[0], .format = from_format, .flags = OPEN_READ_ONLY};
    struct node *from = chain_open(&src, error);
    struct chain_open dst = {.name = operands[1], .format = to_format, .flags = 0};
    struct node *to = from && make(operands[1], from->size, error) ? chain_open(&dst, error) : NULL;
    int r = to ? copy(from, to) : 0;
    chain_close(from);
    chain_close(to);
    if (r < 0) {
        error_set_errno(error, -r, "error while converting");
    }
    return to && r == 0 ? 0 : 1;
}

static int info(const char *name, GError **error)
{
    struct chain_open how = {.name = name, .format = from_format, .flags = OPEN_READ_ONLY | OPEN_NO_IO};
    struct node *n = chain_open(&how, error);
    if (!n) {
        return 1;
    }
    g_autoptr(json_t) data = json_object();
    printf("image: %s\nfile format: %s\nvirtual size: %" PRIu64 "\n", name, n->format->name, n->size);
    if (n->format->tools && n->format->tools->describe) {
        n->format->tools->describe(n, data);
        json_dumpf(data, stdout, JSON_INDENT(4));
        printf("\n");
    }
    chain_close(n);
    return 0;
}

static void tell(void *owner, const char *line)
{
    (void)owner;
    printf("%s\n", line);
}

static int check(const char *name, GError **error)
{
    struct chain_open how = {.name = name, .format = from_format, .flags = OPEN_READ_ONLY | OPEN_CHECK};
    struct node *n = chain_open(&how, error);
    struct check_result result = {.tell = tell};
    if (!n || !n->format->tools || !n->format->tools->check) {
        return n ? 63 : 1;
    }
    bool done = n->format->tools->check(n, 0, &result, error);
    printf("%" PRIu64 " errors, %" PRIu64 " leaks\n", result.corruptions, result.leaks);
    chain_close(n);
    return !done ? 1 : result.corruptions ? 2 : result.leaks ? 3 : 0;
}

static int run(const char *verb, int n, char **operands, GError **error)
{
    uint64_t size;
    if (!strcmp(verb, "create") && n == 2 && text_size(operands[1], 1, &size)) {
        return make(operands[0], size, error) ? 0 : 1;
    }
    if (!strcmp(verb, "convert") && n == 2) {
        return convert(operands, error);
    }
    if (!strcmp(verb, "info") && n == 1) {
        return info(operands[0], error);
    }
    if (!strcmp(verb, "check") && n == 1) {
        return check(operands[0], error);
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "create FILE SIZE, convert FROM TO, info FILE, check FILE");
    return 1;
}

int main(int argc, char **argv)
{
    GError *error = NULL;
    options_text = g_string_new(NULL);
    for (int c; (c = getopt(argc, argv, "f:O:o:b:F:c")) != -1;) {
        switch (c) {
        case 'f':
            from_format = to_format = optarg;
            break;
        case 'O':
            to_format = optarg;
            break;
        case 'o':
            g_string_append_printf(options_text, "%s%s", options_text->len ? "," : "", optarg);
            break;
        case 'b':
            backing = optarg;
            break;
        case 'F':
            backing_format = optarg;
            break;
        case 'c':
            compress_units = true;
            break;
        default:
            return 1;
        }
    }
    int code = argc - optind > 0
                   ? run(argv[optind], argc - optind - 1, argv + optind + 1, &error) : 1;
    return error ? report(error) : code;
}
