/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/verb.h"
#include "manage/error.h"
#include "manage/model/domain.h"

/*
 * The machines that lodged knows: definitions on disk, and the running ones.  All of it belongs
 * to the daemon lock.  A definition that is not in use is not kept in memory: the XML is read
 * when somebody asks, what lists show is here.
 */
struct machine;

/* libvirt's numbers. */
enum domain_state {
    STATE_NONE,
    STATE_RUNNING,
    STATE_BLOCKED,
    STATE_PAUSED,
    STATE_SHUTDOWN,
    STATE_SHUTOFF,
    STATE_CRASHED,
    STATE_PMSUSPENDED,
};
enum running_reason {
    RUNNING_UNKNOWN,
    RUNNING_BOOTED,
    RUNNING_MIGRATED,
    RUNNING_RESTORED,
    RUNNING_FROM_SNAPSHOT,
    RUNNING_UNPAUSED,
    RUNNING_MIGRATION_CANCELED,
    RUNNING_SAVE_CANCELED,
    RUNNING_WAKEUP,
};
enum paused_reason {
    PAUSED_UNKNOWN,
    PAUSED_USER,
    PAUSED_MIGRATION,
    PAUSED_SAVE,
    PAUSED_DUMP,
    PAUSED_IOERROR,
    PAUSED_WATCHDOG,
    PAUSED_FROM_SNAPSHOT,
    PAUSED_SHUTTING_DOWN,
    PAUSED_SNAPSHOT,
    PAUSED_CRASHED,
    PAUSED_STARTING_UP,
};
enum shutoff_reason {
    SHUTOFF_UNKNOWN,
    SHUTOFF_SHUTDOWN,
    SHUTOFF_DESTROYED,
    SHUTOFF_CRASHED,
    SHUTOFF_MIGRATED,
    SHUTOFF_SAVED,
    SHUTOFF_FAILED,
    SHUTOFF_FROM_SNAPSHOT,
};
enum lifecycle_event {
    EVENT_DEFINED,
    EVENT_UNDEFINED,
    EVENT_STARTED,
    EVENT_SUSPENDED,
    EVENT_RESUMED,
    EVENT_STOPPED,
    EVENT_SHUTDOWN,
    EVENT_PMSUSPENDED,
    EVENT_CRASHED,
};

/* What is known of a job that may take long; see virDomainGetJobStats. */
struct job_figures {
    int type, operation;                                     /* libvirt's numbers; JOB_NONE */
    int64_t since;                                           /* monotonic, us */
    uint64_t elapsed_ms, total, processed, remaining, speed; /* bytes, bytes/s */
    uint64_t passes, downtime_ms;
    bool has_memory, has_downtime;
};
enum { JOB_NONE, JOB_BOUNDED, JOB_UNBOUNDED, JOB_COMPLETED, JOB_FAILED, JOB_CANCELLED };
enum {
    OPERATION_SAVE = 2,
    OPERATION_MIGRATION_IN = 4,
    OPERATION_MIGRATION_OUT = 5,
    OPERATION_DUMP = 8,
    OPERATION_BACKUP = 9,
};

typedef struct domain Domain;
struct domain {
    int refs;
    char *name;
    uint8_t uuid[16];
    int id; /* -1 while it is off */
    uint8_t state, reason;
    bool persistent, autostart, managed_save;
    unsigned snapshots, checkpoints; /* how many it has */
    bool gone;                       /* no longer in the lists */
    bool job;                        /* somebody changes it */
    bool writing;                    /* its file is being replaced */
    bool returning;                  /* files that its machine had become ours again */
    bool moving;                     /* it is on its way to another host, or from there */
    uint16_t vcpus;                  /* of the definition, for those that are off */
    int64_t memory, max_memory;
    int64_t booted;               /* wall clock, s */
    struct job_figures *last_job; /* that has ended; NULL: none, or it was told */
    struct machine *machine;      /* running, or about to */
};

Domain *domain_ref(Domain *d);
void domain_unref(Domain *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Domain, domain_unref)

/* What a client names, with a reference; NULL with ERR_NO_DOMAIN. */
Domain *domain_get(const rpc_domain *named, GError **error);
Domain *domain_by_name(const char *name);
Domain *domain_by_uuid(const uint8_t uuid[16]);
Domain *domain_by_id(int id);
/* Calls for each, but not for one whose first definition is still being written; the order is that
 * of definition. */
void domain_each(void (*each)(Domain *d, void *data), void *data);
/* verbs/domain.c: of each group of libvirt's flags for lists one must hold, unless none of the
 * group is asked for. */
bool domain_matches(const Domain *d, unsigned flags);
/* The name of @d in answers; the strings belong to the answer. */
rpc_domain domain_rpc(const Domain *d);
bool domain_active(const Domain *d);
/* ERR_OPERATION_INVALID "domain is not running" unless it is. */
bool domain_check_active(const Domain *d, GError **error);

/*
 * Changing calls come one after the other: waits up to 30 s for the one before, then
 * ERR_OPERATION_TIMEOUT.  Queries need none.
 */
bool domain_job_begin(Domain *d, GError **error);
/* For what may go on while it is on its way to another host. */
bool domain_job_begin_beside(Domain *d, GError **error);
void domain_job_end(Domain *d);
/* Ends at the end of the scope. */
typedef Domain DomainJob;
static inline void domain_job_release(DomainJob *d)
{
    domain_job_end(d);
    domain_unref(d);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DomainJob, domain_job_release)
/* domain_get() and domain_job_begin() in one. */
DomainJob *domain_take(const rpc_domain *named, GError **error);
DomainJob *domain_take_beside(const rpc_domain *named, GError **error);

/* The definition on disk; NULL with an error, also for a machine that has none. */
DomainDef *domain_config(const Domain *d, GError **error);
/* Where lodged keeps the variables of @def's UEFI firmware if @def does not say: then it does. */
void domain_name_variables(DomainDef *def);
/* The definition that a query with DOMAIN_AFFECT flags means, to be freed. */
DomainDef *domain_def_of(const Domain *d, bool live, GError **error);
/*
 * Makes @def the persistent definition: a new machine or a new text for one that is there.  It
 * needs no job; gives the lock up while the disk writes, as does domain_save_config().
 */
Domain *domain_define(const DomainDef *def, GError **error);
/* Writes @def as the definition of @d, whose machine may have ended when this returns. */
bool domain_save_config(Domain *d, const DomainDef *def, GError **error);
/* A machine without definition on disk. */
Domain *domain_add_transient(const DomainDef *def, GError **error);
/* The same, with its job, to be started or settled. */
DomainJob *domain_take_transient(const DomainDef *def, GError **error);
bool domain_undefine(Domain *d, GError **error);
bool domain_set_autostart(Domain *d, bool on, GError **error);
bool domain_rename(Domain *d, const char *name, GError **error);
/* Takes it out of the lists if nothing holds it there any more. */
void domain_settle(Domain *d);
/* Paths of what belongs to a machine. */
char *domain_managed_save_path(const Domain *d);
/* verbs/domain_snapshot.c: counts its snapshots into .snapshots; removes what is known of them. */
void domain_count_snapshots(Domain *d);
void domain_forget_snapshots(Domain *d);

void domain_event(Domain *d, enum lifecycle_event event, int detail);
/* verbs/domain_job.c: keeps @j as the last job of @d and tells the clients. */
void domain_job_over(Domain *d, const struct job_figures *j, int type);
void domain_set_state(Domain *d, enum domain_state state, int reason);

/* Which of the two states a change or a query is for. */
enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2 };
/* Turns "current" (0) into what it means now and checks that it can be done. */
bool domain_affect(const Domain *d, unsigned *flags, GError **error);

extern const struct daemon_room room_domains;
