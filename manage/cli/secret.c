/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <string.h>
#include <termios.h>
#include <unistd.h>

static const char *usage_name(int type)
{
    static const char *const names[] = {"none", "volume", "ceph", "iscsi", "tls", "vtpm"};
    return type >= 0 && type < (int)G_N_ELEMENTS(names) ? names[type] : "unknown";
}

static bool find(struct shell *sh, const struct args *a, rpc_secret_ret *ret, GError **error)
{
    rpc_uuid_args args;
    const char *text = args_text(a, "secret");
    Rpc *rpc = shell_rpc(sh, error);
    unsigned n = 0;
    for (const char *p = text; n < 16 && g_ascii_isxdigit(p[0]) && g_ascii_isxdigit(p[1]);) {
        args.uuid[n++] = (char)(g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]));
        p += p[2] == '-' ? 3 : 2;
    }
    if (n < 16) {
        shell_failing(sh, "failed to get secret '%s'", text);
        return shell_fail(error, "uuidstr in virSecretLookupByUUIDString must be a valid UUID");
    }
    if (!rpc || !ask_secret_lookup_by_uuid(rpc, &args, ret, error)) {
        shell_failing(sh, "failed to get secret '%s'", text);
        return false;
    }
    return true;
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"UUID", "Usage", NULL};
    static const struct flag_bit bits[] = {
        {"ephemeral", 1}, {"no-ephemeral", 2}, {"private", 4}, {"no-private", 8}};
    rpc_list_args args = {1, flags_of(a, bits, G_N_ELEMENTS(bits))};
    g_auto(rpc_secrets) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_secrets(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list secrets");
        return false;
    }
    out_table(sh, headers);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        const rpc_secret *s = &all.items.items_val[i];
        g_autofree char *uuid = uuid_text(s->uuid);
        g_autofree char *usage = s->usage_type
                                     ? g_strdup_printf("%s %s", usage_name(s->usage_type),
                                                       s->usage_id)
                                     : g_strdup("Unused");
        out_row(sh, uuid, usage, NULL);
    }
    out_table_end(sh);
    return true;
}

static bool run_define(struct shell *sh, const struct args *a, GError **error)
{
    g_autofree char *xml = shell_read_file(args_text(a, "file"), error);
    g_auto(rpc_secret_ret) ret = {0};
    Rpc *rpc = xml ? shell_rpc(sh, error) : NULL;
    rpc_text_flags args = {xml, args_flag(a, "validate")};
    if (!rpc) {
        return false;
    }
    if (!ask_secret_define_xml(rpc, &args, &ret, error)) {
        shell_failing(sh, "Failed to set secret attributes from %s", args_text(a, "file"));
        return false;
    }
    g_autofree char *uuid = uuid_text(ret.secret.uuid);
    out_note(sh, "Secret %s created", uuid);
    return true;
}

static bool run_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_secret_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    if (!find(sh, a, &ret, error)) {
        return false;
    }
    rpc_secret_flags args = {ret.secret, 0};
    if (!ask_secret_get_xml_desc(shell_rpc(sh, NULL), &args, &xml, error)) {
        return false;
    }
    return show_xml(sh, a, xml.text, error);
}

/* What the user types without seeing it; NULL with an error. */
static char *read_hidden(GError **error)
{
    struct termios was, quiet;
    char line[1024];
    if (tcgetattr(STDIN_FILENO, &was) != 0) {
        shell_fail(error, "Input is not a terminal");
        return NULL;
    }
    quiet = was;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    printf("Enter new value for secret:");
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    char *got = fgets(line, sizeof(line), stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);
    putchar('\n');
    if (!got) {
        shell_fail(error, "Failed to read secret");
        return NULL;
    }
    got = g_strdup(g_strchomp(line));
    explicit_bzero(line, sizeof(line));
    return got;
}

/* --base64 on the command line is seen by others on this host; --file is not. */
static bool run_set(struct shell *sh, const struct args *a, GError **error)
{
    const char *text = args_text(a, "base64"), *path = args_text(a, "file");
    bool ask = args_flag(a, "interactive");
    g_auto(rpc_secret_ret) ret = {0};
    g_autofree char *value = NULL;
    gsize n = 0;
    rpc_none none;
    if (!exclusive(a, "file", "base64", error) || !exclusive(a, "plain", "base64", error) ||
        !exclusive(a, "interactive", "base64", error) ||
        !exclusive(a, "interactive", "file", error)) {
        return false;
    }
    if (!text && !path && !ask) {
        return shell_fail(error, "Input secret value is missing");
    }
    if (text) {
        g_printerr("error: Passing secret value as command-line argument is insecure!\n");
    }
    if (ask && !(value = read_hidden(error))) {
        return false;
    }
    if (ask) {
        n = strlen(value);
    } else if (text) {
        value = (char *)g_base64_decode(text, &n);
    } else if (!g_file_get_contents(path, &value, &n, error)) {
        return false;
    }
    if (path && !args_flag(a, "plain")) {
        g_base64_decode_inplace(value, &n);
    }
    if (!find(sh, a, &ret, error)) {
        return false;
    }
    rpc_secret_value_args args = {ret.secret, {(unsigned)n, value}, 0};
    bool ok = ask_secret_set_value(shell_rpc(sh, NULL), &args, &none, error);
    explicit_bzero(value, n);
    if (!ok) {
        shell_failing(sh, "Failed to set secret value");
        return false;
    }
    out_note(sh, "Secret value set");
    return true;
}

static bool run_get(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_secret_ret) ret = {0};
    g_auto(rpc_secret_value) value = {0};
    if (!find(sh, a, &ret, error)) {
        return false;
    }
    rpc_secret_flags args = {ret.secret, 0};
    if (!ask_secret_get_value(shell_rpc(sh, NULL), &args, &value, error)) {
        return false;
    }
    if (args_flag(a, "plain")) {
        g_autofree char *plain = g_strndup(value.value.value_val, value.value.value_len);
        out_exact(sh, "value", plain);
        return true;
    }
    g_autofree char *text =
        g_base64_encode((const guchar *)value.value.value_val, value.value.value_len);
    out_text(sh, "value", "%s", text);
    return true;
}

static bool run_undefine(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_secret_ret) ret = {0};
    rpc_none none;
    if (!find(sh, a, &ret, error)) {
        return false;
    }
    rpc_secret_args args = {ret.secret};
    if (!ask_secret_undefine(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to delete secret %s", args_text(a, "secret"));
        return false;
    }
    out_note(sh, "Secret %s deleted", args_text(a, "secret"));
    return true;
}

#define SECRET {"secret", OPT_TEXT, OPT_NEEDED, "UUID of the secret"}

const struct verb_group verb_group_secret = {"Secret", "secret", (const struct verb_row[]){
    {"secret-define", (const struct option_row[]){FILE_OPTION,
        {"validate", OPT_BOOL, 0, "check the XML (it always is)"}, {NULL}}, "makes a secret of XML",
     run_define},
    {"secret-dumpxml", (const struct option_row[]){SECRET, XPATH_OPTIONS, {NULL}}, "prints a secret's XML",
     run_dumpxml},
    {"secret-get-value", (const struct option_row[]){SECRET,
        {"plain", OPT_BOOL, 0, "the bytes, not base64"}, {NULL}}, "prints a secret's value",
     run_get},
    {"secret-list", (const struct option_row[]){
        {"ephemeral", OPT_BOOL, 0, "that are not kept"}, {"no-ephemeral", OPT_BOOL, 0, "that are"},
        {"private", OPT_BOOL, 0, "whose values nobody may ask for"},
        {"no-private", OPT_BOOL, 0, "the others"}, {NULL}},
     "lists secrets", run_list},
    {"secret-set-value", (const struct option_row[]){SECRET,
        {"base64", OPT_TEXT, 0, "the value, in base64; others on this host can see it"},
        {"file", OPT_TEXT, OPT_NAMED, "file with the value in base64", COMPLETE_FILE},
        {"plain", OPT_BOOL, 0, "the file holds the bytes themselves"},
        {"interactive", OPT_BOOL, 0, "typed on the terminal"}, {NULL}},
     "sets a secret's value", run_set},
    {"secret-undefine", (const struct option_row[]){SECRET, {NULL}}, "forgets a secret",
     run_undefine},
    {NULL},
}};
