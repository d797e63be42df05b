/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What machines can be made of: domain capabilities.  Only what lodge-vm has when it is asked is
 * named, so that tools do not choose what would be refused.
 */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/cpu.h"
#include "manage/daemon/machine.h"

#include <string.h>

struct choice {
    const char *value;
    const char *device; /* which lodge-vm must have; NULL: always there */
};

static void put_enum(GString *xml, unsigned depth, const char *name, const struct choice *choices)
{
    g_string_append_printf(xml, "%*s<enum name='%s'>\n", (int)depth * 2, "", name);
    for (; choices->value; choices++) {
        if (!choices->device || vm_has_device(choices->device)) {
            g_string_append_printf(xml, "%*s<value>%s</value>\n", (int)depth * 2 + 2, "",
                                   choices->value);
        }
    }
    g_string_append_printf(xml, "%*s</enum>\n", (int)depth * 2, "");
}

/* One kind of device with its enums. */
static const struct {
    const char *element, *needs;
    struct {
        const char *name;
        struct choice choices[8];
    } enums[3];
} kinds[] = {
    {"disk",
     NULL,
     {{"diskDevice", {{"disk"}, {"cdrom"}, {"floppy", "isa-fdc"}}},
      {"bus",
       {{"ide", "ide-hd"},
        {"fdc", "isa-fdc"},
        {"scsi", "scsi-hd"},
        {"virtio"},
        {"usb", "usb-storage"},
        {"sata", "ich9-ahci"}}},
      {"model", {{"virtio"}}}}},
    {"graphics", NULL, {{"type", {{"vnc"}}}}},
    {"video",
     NULL,
     {{"modelType",
       {{"vga", "VGA"}, {"virtio", "virtio-vga"}, {"none"}, {"bochs", "bochs-display"}}}}},
    {"hostdev", "vfio-pci", {{NULL}}},
    {"rng", NULL, {{"model", {{"virtio"}}}, {"backendModel", {{"random"}, {"builtin"}}}}},
    {"filesystem", "vhost-user-fs-pci", {{NULL}}},
    {"tpm", "tpm-tis", {{NULL}}},
    {"redirdev", "usb-redir", {{NULL}}},
    {"channel", NULL, {{"type", {{"pty"}, {"unix"}}}}},
};

static bool put_cpu(GString *xml, bool kvm, GError **error)
{
    static const struct choice both[] = {{"on"}, {"off"}, {NULL}};
    const struct cpu_choice *c = cpu_choice(kvm, error);
    const struct cpu_kind *best = c ? cpu_best(c, c->vendor, c->host) : NULL;
    if (!c) {
        return false;
    }
    g_string_append(xml, "  <cpu>\n    <mode name='host-passthrough' supported='yes'>\n");
    put_enum(xml, 3, "hostPassthroughMigratable", both);
    g_string_append(xml, "    </mode>\n    <mode name='maximum' supported='yes'>\n");
    put_enum(xml, 3, "maximumMigratable", both);
    g_string_append_printf(xml, "    </mode>\n    <mode name='host-model' supported='%s'%s>\n",
                           best ? "yes" : "no", best ? "" : "/");
    if (best) {
        g_autoptr(GPtrArray) extras = cpu_extras(best, c->host);
        g_autoptr(GPtrArray) lacks = cpu_lacks(best, c->host);
        g_string_append_printf(xml, "      <model fallback='forbid'>%s</model>\n", best->name);
        if (c->vendor) {
            g_string_append_printf(xml, "      <vendor>%s</vendor>\n", c->vendor);
        }
        for (unsigned i = 0; i < extras->len; i++) {
            g_string_append_printf(xml, "      <feature policy='require' name='%s'/>\n",
                                   (char *)extras->pdata[i]);
        }
        for (unsigned i = 0; i < lacks->len; i++) {
            g_string_append_printf(xml, "      <feature policy='disable' name='%s'/>\n",
                                   (char *)lacks->pdata[i]);
        }
        g_string_append(xml, "    </mode>\n");
    }
    g_string_append(xml, "    <mode name='custom' supported='yes'>\n");
    for (unsigned i = 0; i < c->kinds->len; i++) {
        const struct cpu_kind *kind = c->kinds->pdata[i];
        g_string_append_printf(xml, "      <model usable='%s' vendor='%s'>%s</model>\n",
                               kind->usable ? "yes" : "no", kind->vendor ? kind->vendor : "unknown",
                               kind->name);
    }
    g_string_append(xml, "    </mode>\n  </cpu>\n");
    return true;
}

static void put_os(GString *xml)
{
    static const char *const codes[] = {"/usr/share/OVMF/OVMF_CODE_4M.fd"};
    static const struct choice types[] = {{"rom"}, {"pflash"}, {NULL}};
    static const struct choice both[] = {{"yes"}, {"no"}, {NULL}}, no[] = {{"no"}, {NULL}};
    static const struct choice efi[] = {{"efi"}, {NULL}}, none[] = {{NULL}};
    bool have = g_file_test(codes[0], G_FILE_TEST_EXISTS);
    g_string_append(xml, "  <os supported='yes'>\n");
    put_enum(xml, 2, "firmware", have ? efi : none);
    g_string_append(xml, "    <loader supported='yes'>\n");
    if (have) {
        g_string_append_printf(xml, "      <value>%s</value>\n", codes[0]);
    }
    put_enum(xml, 3, "type", types);
    put_enum(xml, 3, "readonly", both);
    put_enum(xml, 3, "secure", no);
    g_string_append(xml, "    </loader>\n  </os>\n");
}

static void put_devices(GString *xml)
{
    g_string_append(xml, "  <devices>\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (kinds[i].needs) { /* what may wait: not there, whatever lodge-vm has */
            g_string_append_printf(xml, "    <%s supported='no'/>\n", kinds[i].element);
            continue;
        }
        g_string_append_printf(xml, "    <%s supported='yes'>\n", kinds[i].element);
        for (unsigned k = 0; k < G_N_ELEMENTS(kinds[i].enums) && kinds[i].enums[k].name; k++) {
            put_enum(xml, 3, kinds[i].enums[k].name, kinds[i].enums[k].choices);
        }
        g_string_append_printf(xml, "    </%s>\n", kinds[i].element);
    }
    g_string_append(xml, "  </devices>\n");
}

/* Architectures that libvirt knows and lodge-vm does not run. */
static const char *const foreign[] = {
    "aarch64",    "alpha",        "armv6l",      "armv7b",    "armv7l",   "cris",
    "ia64",       "lm32",         "loongarch64", "m68k",      "mips",     "mips64",
    "microblaze", "microblazeel", "mipsel",      "mips64el",  "openrisc", "parisc",
    "parisc64",   "ppc",          "ppcle",       "ppc64",     "ppc64le",  "ppcemb",
    "s390",       "riscv32",      "riscv64",     "s390x",     "sh4",      "sh4eb",
    "sparc",      "xtensa",       "sparc64",     "unicore32", "xtensaeb", NULL};

static bool check_arch(const char *arch, GError **error)
{
    if (strcmp(arch, "x86_64") == 0 || strcmp(arch, "i686") == 0) {
        return true;
    }
    if (g_strv_contains(foreign, arch)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "unable to find any emulator to serve '%s' architecture", arch);
    } else {
        libvirt_error(error, ERR_INVALID_ARG, "unknown architecture: %s", arch);
    }
    return false;
}

/* What QEMU's programs are called stands for ours, as in a definition. */
static bool check_emulator(const char *path, GError **error)
{
    g_autofree char *base = g_path_get_basename(path);
    if (domain_stands_for_ours(base) || strcmp(base, "lodge-vm") == 0) {
        return true;
    }
    libvirt_error(error, ERR_INVALID_ARG, "the emulator '%s' is not lodge-vm", path);
    return false;
}

/* Whose capabilities are asked for. */
struct caps_of {
    const char *arch, *board;
    char program[PATH_MAX];
    bool kvm;
};

static bool find_out(const rpc_domcaps_args *args, struct caps_of *of, GError **error)
{
    const char *machine = args->machine ? *args->machine : "pc", *why;
    const char *type = args->virt_type ? *args->virt_type : NULL;
    g_autofree char *found = vm_program();
    g_strlcpy(of->program, found ? found : "/usr/bin/lodge-vm", sizeof(of->program));
    of->arch = args->arch ? *args->arch : "x86_64";
    of->board = domain_board(machine);
    if (!check_arch(of->arch, error) ||
        (args->emulator && !check_emulator(*args->emulator, error))) {
        return false;
    }
    if (type && strcmp(type, "qemu") != 0 && strcmp(type, "kvm") != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "unknown virttype: %s", type);
        return false;
    }
    if (!of->board) {
        libvirt_error(error, ERR_INVALID_ARG, "the machine '%s' is not supported by emulator '%s'",
                      machine, of->program);
        return false;
    }
    of->kvm = type ? strcmp(type, "kvm") == 0 : cpu_has_kvm(&why);
    return true;
}

bool verb_connect_get_domain_capabilities(struct call *call, const rpc_domcaps_args *args,
                                          rpc_text *ret, GError **error)
{
    (void)call;
    struct caps_of of;
    if (!find_out(args, &of, error)) {
        return false;
    }
    const char *type = of.kvm ? "kvm" : "qemu", *program = of.program, *board = of.board;
    const char *arch = of.arch;
    static const struct choice sources[] = {{"file"}, {"anonymous"}, {"memfd"}, {NULL}};
    vm_learn_devices();
    g_autoptr(GString) xml = g_string_new("<domainCapabilities>\n");
    g_string_append_printf(xml, "  <path>%s</path>\n  <domain>%s</domain>\n  <machine>", program,
                           type);
    xml_escape(xml, board);
    g_string_append_printf(xml,
                           "</machine>\n  <arch>%s</arch>\n  <vcpu max='255'/>\n"
                           "  <iothreads supported='yes'/>\n",
                           arch);
    put_os(xml);
    if (!put_cpu(xml, of.kvm, error)) {
        return false;
    }
    g_string_append(xml, "  <memoryBacking supported='yes'>\n");
    put_enum(xml, 2, "sourceType", sources);
    g_string_append(xml, "  </memoryBacking>\n");
    put_devices(xml);
    g_string_append(xml,
                    "  <features>\n    <gic supported='no'/>\n    <vmcoreinfo supported='yes'/>\n"
                    "    <genid supported='no'/>\n    <backingStoreInput supported='no'/>\n"
                    "    <backup supported='yes'/>\n    <sev supported='no'/>\n"
                    "    <sgx supported='no'/>\n    <hyperv supported='no'/>\n"
                    "  </features>\n</domainCapabilities>\n");
    ret->text = g_string_free(g_steal_pointer(&xml), FALSE);
    return true;
}
