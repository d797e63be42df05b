/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/help.h"

#include <stdio.h>
#include <string.h>

/*
 * What is installed beside the program, made of the verbs' tables: the man page, and for each
 * shell a few lines that ask `lodge complete`.
 */
static const char bash[] =
    "_lodge() {\n"
    "    local uri=()\n"
    "    [[ ${COMP_WORDS[1]} == -c && $COMP_CWORD -gt 2 ]] && uri=(-c \"${COMP_WORDS[2]}\")\n"
    "    local from=$((1 + ${#uri[@]}))\n"
    "    mapfile -t COMPREPLY < <(lodge -q \"${uri[@]}\" complete -- "
    "\"${COMP_WORDS[@]:from:COMP_CWORD-from+1}\" 2>/dev/null)\n"
    "    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt -o default\n"
    "}\n"
    "complete -F _lodge lodge\n";

static const char zsh[] =
    "#compdef lodge\n"
    "local -a found\n"
    "found=(${(f)\"$(lodge -q complete -- ${words[2,CURRENT]} 2>/dev/null)\"})\n"
    "(( ${#found} )) && compadd -a found || _files\n";

static const char fish[] =
    "complete -c lodge -a '(lodge -q complete -- (commandline -opc)[2..] (commandline -ct) "
    "2>/dev/null)'\n";

/* In roff a line must not begin with a dot or a quote, and a backslash and a dash are marked. */
static void roff(const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\\') {
            fputs("\\e", stdout);
        } else if (*p == '-') {
            fputs("\\-", stdout);
        } else {
            putchar(*p);
        }
    }
}

static void man_verb(const struct verb_row *v)
{
    printf(".TP\n.B ");
    roff(v->name);
    for (const struct option_row *o = v->options; o && o->name; o++) {
        if (o->kind != OPT_BOOL && o->flags & OPT_NEEDED) {
            printf(" \\fI%s\\fB", o->name);
        }
    }
    putchar('\n');
    roff(v->help);
    printf(".\n");
    for (const struct option_row *o = v->options; o && o->name; o++) {
        printf(".br\n\\fB");
        roff(o->kind == OPT_MANY ? "" : "--");
        roff(o->name);
        printf("\\fR");
        fputs(o->kind == OPT_BOOL || o->kind == OPT_MANY ? ": " : " \\fIvalue\\fR: ", stdout);
        roff(o->help);
        putchar('\n');
    }
}

static void man(void)
{
    printf(".TH LODGE 1\n.SH NAME\nlodge \\- shell for virtual machines\n.SH SYNOPSIS\n"
           ".B lodge\n[\\fIOPTION\\fR]... [\\fIVERB\\fR [\\fIARGUMENT\\fR]...]\n"
           ".SH DESCRIPTION\nSpeaks to lodged(8), or to libvirt's daemons, with the verbs, options "
           "and output of virsh.\nWithout a verb it reads lines from a prompt. For a session "
           "(\\fBqemu:///session\\fR) it starts a lodged if there is none.\n"
           ".SH OPTIONS\n"
           ".TP\n.BR \\-c , \" \\-\\-connect \" \\fIURI\\fR\n"
           "qemu:///system, qemu:///session, qemu+ssh://HOST/system, with ?socket=PATH. Else "
           "LODGE_URI, LIBVIRT_DEFAULT_URI, the session; for root the system if its lodged "
           "listens.\n"
           ".TP\n.BR \\-r , \" \\-\\-readonly\"\nask for nothing that changes something.\n"
           ".TP\n.BR \\-q , \" \\-\\-quiet\"\nresults only.\n"
           ".TP\n.BR \\-t , \" \\-\\-timing\"\nsay how long each verb took.\n"
           ".TP\n.B \\-\\-json\nresults as JSON, values without "
           "padding: a table is an array of objects.\nWhat goes on (\\fBtop\\fR, \\fBevent "
           "\\-\\-loop\\fR) prints a line of JSON each time.\n"
           ".SH EXIT STATUS\n0 if the verb succeeded, else 1.\n");
    for (unsigned i = 0; i < n_verb_groups; i++) {
        printf(".SH VERBS: %s\n", verb_groups[i]->title);
        for (const struct verb_row *v = verb_groups[i]->verbs; v->name; v++) {
            man_verb(v);
        }
    }
    printf(".SH SEE ALSO\nlodged(8), lodge\\-vm(1), lodge\\-img(1)\n");
}

bool manual_show(const char *kind)
{
    static const struct {
        const char *kind, *text;
    } texts[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    if (strcmp(kind, "man") == 0) {
        man();
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        if (strcmp(kind, texts[i].kind) == 0) {
            fputs(texts[i].text, stdout);
            return true;
        }
    }
    g_printerr("lodge: --manual=%s: man, bash, zsh or fish\n", kind);
    return false;
}
