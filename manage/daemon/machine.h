/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/domain.h"
#include "manage/daemon/poller.h"
#include "manage/daemon/qmp.h"

/*
 * A running machine: its lodge-vm process, the monitor, what it was started with.  Kept in
 * DAEMON_RUN well enough that another lodged finds it.
 */
typedef struct machine Machine;
struct machine {
    struct watch watch; /* of .watch.fd, the pidfd; first */
    int refs;
    Domain *domain;  /* its owner; holds a reference */
    DomainDef *def;  /* live XML */
    struct qmp *qmp; /* NULL after the end: qmp_run() then says so */
    char *folder;    /* sockets and files of this run */
    pid_t pid;
    uint64_t start_time; /* of the process, as in /proc/PID/stat */
    bool watched, dying; /* the main loop waits for its end; destroy is under way */
    bool ended;
    bool recovering;   /* an earlier lodged's: what goes on in it is being asked for */
    bool hangs;        /* the same, and it will be asked again when it answers */
    bool rebooting;    /* a power-off is to be followed by a start */
    bool shut_down;    /* the guest or we have powered it off */
    int shutoff;       /* enum shutoff_reason; 0: by how it ends */
    int pause_reason;  /* why the next STOP comes */
    int resume_reason; /* and the next RESUME; RUNNING_UNKNOWN: unpaused */
    unsigned next_node;
    char *unfinished;      /* file that is being written and is of no use by halves; NULL: none */
    char *saved;           /* what it is called when it is whole, and the machine then ends */
    bool wakes;            /* its state is here, and it is to run */
    char *snapshot;        /* one that is being made in its images, of which nobody knows yet */
    char *dump_error;      /* why the last core is none; NULL: it is whole */
    GPtrArray *images;     /* new ones that its disks are about to be switched to; NULL: none */
    bool images_stay;      /* somebody else has made them */
    char *plugging;        /* alias of a device on its way in; "next.xml" has the machine with it */
    char *refused;         /* alias of the last device that the guest would not give */
    unsigned leaving;      /* devices that are out, but their backends not yet */
    int agent_seconds;     /* that an answer of the guest agent may take; 0: AGENT_SECONDS */
    unsigned tainted;      /* by what was done past lodged: a bit each enum taint */
    GPtrArray *block_jobs; /* struct block_job; disks.h */
    struct backup *backup; /* under way; NULL: none */
    unsigned uid;
    char *group_name; /* of its control groups */
    struct cgroup *group;
    GHashTable *children;   /* thread → struct spent; NULL until it is asked */
    struct job_figures job; /* under way; .type is JOB_NONE if there is none */
    struct machine_move {
        uint64_t speed;         /* MiB/s; 0: no bound */
        unsigned number;        /* of the move; another one after its end */
        bool performing;        /* somebody waits for it, and sees to what is to be done then */
        bool sending, given_up; /* its state is on its way; whoever wanted it has gone */
        bool returns;           /* the two lodge-vm see to it that one of them runs it */
        bool incoming;          /* until its client says that it is to run here */
        bool cancelled;         /* by somebody, maybe before its state is on its way */
        char *door;             /* UNIX socket by which it comes; NULL: none */
        GPtrArray *made;        /* images that were made for it here; NULL: none */
    } move;
};

enum { START_PAUSED = 1, START_AUTODESTROY = 2, START_RESET_NVRAM = 32 };
struct machine_start {
    unsigned flags;
    const char *incoming; /* of -incoming; NULL: boots */
    int incoming_fd;      /* where .incoming is "fd"; else -1 */
    GPtrArray *made;      /* images made for one from another host; NULL: it does not come */
    int event_detail;     /* of EVENT_STARTED */
    int running_reason;
};
/*
 * Starts @d, which is off and whose job the caller has, with a copy of @def.  Waits without the
 * lock; after a failure nothing is left.
 */
bool machine_start(Domain *d, const DomainDef *def, const struct machine_start *how,
                   GError **error);
/* What the last lines of the log say, from offset @from on; for an error. */
char *machine_log_tail(const Domain *d, goffset from);
bool machine_remove_log(const Domain *d, GError **error);
/* custom.c: notes for good, with a line in the machine's log, for what lodged does not vouch. */
enum taint { TAINT_ARGUMENTS, TAINT_MONITOR, TAINT_HOST_CPU, TAINT_AGENT };
void machine_taint(struct machine *m, enum taint why);
void machine_taint_defined(struct machine *m); /* what its definition has of it */
char **machine_environment(const DomainDef *def);
/* Kills it and waits until it is gone. */
bool machine_stop(Domain *d, int shutoff_reason, bool gently, GError **error);
/* Tells it to end and does not wait for that; nothing if it has ended. */
void machine_abandon(Machine *m);
Machine *machine_ref(Machine *m);
void machine_unref(Machine *m);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Machine, machine_unref)
/*
 * The machine of @d that is up, with a reference, else NULL with an error.  It may end whenever
 * the lock is given up; the structure then stays, without monitor.
 */
Machine *machine_of(const Domain *d, GError **error);
/*
 * Waits until it is known what goes on in the machine of an earlier lodged; false with
 * ERR_OPERATION_TIMEOUT.  Who has the domain's job does not wait: it is needed for that.
 */
bool machine_await_recovery(const struct machine *m, GError **error);
bool machine_is_known(const struct machine *m, GError **error);
/* It answers again: asks what it did not answer when lodged started. */
void machine_caught_up(struct machine *m);
/* Where memory modules lie: only the machine knows where it was left to it. */
bool modules_learn(struct machine *m, GError **error);
/* Writes what a restarted lodged needs; after every change of the live XML. */
void machine_save(struct machine *m);
bool machine_pause(Domain *d, int reason, GError **error);
/* What EVENT_SUSPENDED says of a pause. */
int machine_pause_detail(int reason);
bool machine_resume(Domain *d, int reason, GError **error);
/* CPU time of the process in ns; 0 if it is gone. */
uint64_t machine_cpu_time(const struct machine *m);
/* That of a thread's children, which never becomes less. */
uint64_t machine_children_time(struct machine *m, pid_t thread);
/* The same with its two parts. */
uint64_t machine_cpu_times(const struct machine *m, uint64_t *user, uint64_t *kernel);

/* Finds the machines of an earlier lodged again; at start. */
void machines_recover(void);

/* command_line.c: the words of lodge-vm's command line; @fds gets descriptors to hand over. */
struct launch {
    int qmp_fd;
    const char *folder;
    GArray *fds;
    const struct machine_start *how;
    unsigned uid;
};
char **command_line(struct machine *m, const struct launch *l, GError **error);
/* startup.c: takes out what may lack and is not there; @cold: the guest boots. */
void startup_drop_missing(struct machine *m, bool cold);
/* unsupported.c: false if @def asks for what a machine does not get yet. */
bool machine_can_be(const DomainDef *def, GError **error);
/* device_options.c: options of one device for -device and device_add; NULL with an error if it has
 * none. */
json_t *device_options(const DomainDef *def, const struct xml_table *t, const void *device,
                       GError **error);
/* The same for vCPU @id. */
json_t *vcpu_options(const DomainDef *def, unsigned id, GError **error);
/* The same for the -blockdev of a disk: its node, with the file in it. */
json_t *disk_node(const struct domain_disk *disk, GError **error);
char *disk_node_name(const struct domain_disk *disk);
char *disk_file_name(const struct domain_disk *disk); /* of the file in it */
/* Whether its medium may be taken out; a drive of that kind has a name of its own. */
/* werror= or rerror= of an error policy; NULL: nothing was asked for. */
const char *disk_on_error(int policy, bool write);
bool disk_changeable(const struct domain_disk *disk);
char *disk_drive_name(const struct domain_disk *disk);
/* Its place in the boot order, from 1 on; XML_ABSENT: none. */
int64_t disk_boot_index(const DomainDef *def, const struct domain_disk *disk);
/* The board has it anyway. */
bool controller_builtin(const DomainDef *def, const struct domain_controller *c);
/* The -audiodev of a sound card. */
char *audio_name(const struct domain_sound *sound);
/* What `lodge-vm -device help` lists; gives up the lock when it has to ask. */
void vm_learn_devices(void);
/* Of what was learnt. */
bool vm_has_device(const char *name);
char *vm_program(void);
/* machine_disk.c: where a disk's bytes are, and what opens them. */
/* Finds what a pool's volume is; before anything else is asked of a disk. */
bool disk_resolve(struct domain_disk *disk, GError **error);
bool disk_has_medium(const struct domain_disk *disk);
/* The "file" of a disk that is neither file nor device. */
json_t *disk_network_file(const struct domain_disk *disk, GError **error);
/* Adds what <encryption> means to the options of the disk's node; NULL: refuses it. */
bool disk_decrypt(const struct domain_disk *disk, json_t *node, GError **error);
/* The object with its certificates; NULL: it has no TLS. */
json_t *disk_tls(const struct domain_disk *disk);
/* Hands each secret that the disk's node names to @give, with its id. */
typedef bool disk_secret_fn(void *owner, const char *id, GBytes *value, GError **error);
bool disk_secrets(const struct domain_disk *disk, disk_secret_fn *give, void *owner,
                  GError **error);
char *json_words(const json_t *options);
/* machine_host.c: what a machine takes of the host. */
/* card_check.c: whether the machine's cards can be what they are asked to be. */
enum { NIC_QUEUES_MAX = 31 }; /* pairs that a card of lodge-vm has at most */
bool card_can_be(const struct domain_interface *nic, GError **error);
bool cards_can_be(const DomainDef *def, GError **error);
/* The object of an interface for -netdev and netdev_add.  But for the user network's it makes a tap
 * or macvtap, whose name becomes @nic's target and whose descriptors are added to @fds; the caller
 * says what they are called. */
json_t *machine_netdev(struct machine *m, struct domain_interface *nic, GArray *fds,
                       GError **error);
/* Whether the guest finds its cable plugged in. */
bool machine_net_link(struct machine *m, const struct domain_interface *nic, GError **error);
/* Gives back what machine_netdev() took; after the end, and for a card that has gone. */
void machine_net_close(const DomainDef *def);
/* Its tap goes to another bridge, or is something else on the same: what @wanted says. */
bool machine_net_move(struct machine *m, struct domain_interface *nic,
                      struct domain_interface *wanted, GError **error);
void machine_nic_close(const struct domain_interface *nic);
/* Of -vnc; picks a port where the definition leaves it open. */
/* Of a running machine; gives up the lock.  machine.c. */
bool machine_set_password(struct machine *m, const struct domain_graphics *g, GError **error);
char *machine_vnc_address(struct machine *m, struct domain_graphics *g, GError **error);

/* Events of one machine; machine_events.c. */
extern const struct qmp_ops machine_qmp_ops;
/* What it has come to while nobody listened has the consequences that it would have had. */
void machine_state_follows(struct machine *m);
/* Which channels the guest has opened, of query-chardev's answer. */
void machine_learn_ports(struct machine *m, const json_t *chardevs);
/* Of a machine that has just begun. */
void machine_tell_agent(struct machine *m);

/* verbs/domain_dump.c: memory of a machine that has crashed, in DAEMON_VAR; gives up the lock. */
bool machine_dump_crashed(struct machine *m, GError **error);
/* verbs/domain_device.c: the guest has let go of a device. */
void machine_device_gone(struct machine *m, const char *alias);
/* After a restart of lodged: whether one that was on its way in has come. */
void machine_plug_recover(struct machine *m);
/* verbs/domain_vcpu.c: the same of a vCPU. */
void machine_vcpu_gone(struct machine *m, unsigned id);

/* libvirt's numbers. */
enum block_job_status {
    BLOCK_JOB_COMPLETED,
    BLOCK_JOB_FAILED,
    BLOCK_JOB_CANCELED,
    BLOCK_JOB_READY,
};

/* agent.c */
enum { AGENT_SECONDS = 10, AGENT_SECONDS_MAX = 600 };
/* A line of JSON to the guest agent and its answer; gives up the lock. */
char *agent_command(struct machine *m, const char *command, int seconds, GError **error);
/* Its "return"; @args (NULL: none) is given away. */
json_t *agent_run(struct machine *m, const char *command, json_t *args, GError **error);
/* A command that ends the guest and has no answer. */
bool agent_send(struct machine *m, const char *command, json_t *args, GError **error);

/* migrate.c: what query-migrate's answer says of a job. */
void figures_learn(struct job_figures *j, const json_t *info);

/* save.c */
enum { SAVE_BYPASS_CACHE = 1, SAVE_RUNNING = 2, SAVE_PAUSED = 4, RESTORE_RESET_NVRAM = 8 };
/* Saves @d, whose job the caller has, and ends it.  @running: as it is now if negative. */
bool domain_save_to(Domain *d, const char *path, const char *xml, int running, GError **error);
/*
 * The state of a machine, which stays as it is afterwards: stopped.  @xml NULL: its own.  @ends: it
 * is to end then, by the caller or, if that dies, by the next lodged.
 */
bool machine_save_memory(struct machine *m, const char *path, const char *xml, bool running,
                         bool ends, GError **error);
/* Remembers, for the next lodged too, that @path is being written (NULL: it is whole), and what
 * comes of that when it is @saved (NULL: nothing). */
void machine_writes(struct machine *m, const char *path, const char *saved);
/* After a restart of lodged: what it paused the machine for has come to nothing. */
void machine_save_recover(struct machine *m);
/* verbs/domain_snapshot.c: nor is there a snapshot that it did not come to know of. */
void machine_snapshot_recover(struct machine *m);
/* snapshot_external.c: images that the machine was not switched to are gone; else its definition
 * follows. */
void machine_images_recover(struct machine *m);
/* lodge-vm's state stream alone, to @to, which is open file @path. */
bool machine_stream_state(struct machine *m, int to, const char *path, GError **error);
bool domain_restore_from(Domain *d, const char *path, unsigned flags, GError **error);
bool domain_restore_with(Domain *d, const char *path, const DomainDef *def, unsigned flags,
                         GError **error);
/* Puts @def into the file, in place; @running: as it is if negative. */
bool saved_define(const char *path, const DomainDef *def, int running, GError **error);
/* Descriptor at the state stream, or -1. */
int saved_open(const char *path, char **xml, bool *running, GError **error);
/* Waits until an incoming state is there, from file @from for as long as that answers, else
 * (NULL) for a while: all of it is under way already. */
bool machine_arrived(struct machine *m, const char *from, GError **error);
/* The power button; when the guest is off it is switched on again. */
bool machine_reboot(struct machine *m, GError **error);
/* The power button; the guest stays off, whatever was asked before. */
bool machine_power_off(struct machine *m, GError **error);
/* Tells lodge-vm what becomes of a guest that is off, as its definition says. */
bool machine_set_off_action(struct machine *m, GError **error);
