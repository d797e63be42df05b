/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/device/iothread.h"

#include "base/lock.h"
#include "guest/time/clock.h"

#include <glib.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct iothread {
    char *id;
    int tid;
    sem_t wake, up;
    bool ending;
    struct iothread_user *users;
    struct timer again; /* the machine stands: fires when it runs */
    struct iothread *next;
};

static struct iothread *threads;

/* ---- the thread ---- */

static void run_all(struct iothread *t)
{
    for (struct iothread_user *u = t->users; u; u = u->next) {
        uint64_t queues = atomic_exchange(&u->queues, 0);
        for (unsigned i = 0; queues; i++, queues >>= 1) {
            if (queues & 1) {
                u->run(u->owner, i);
            }
        }
    }
}

static void *main_of(void *thread)
{
    struct iothread *t = thread;
    char name[16];
    snprintf(name, sizeof(name), "IO %s", t->id);
    prctl(PR_SET_NAME, name);
    t->tid = (int)syscall(SYS_gettid);
    sem_post(&t->up);
    for (;;) {
        while (sem_wait(&t->wake) != 0) {
        }
        machine_lock();
        if (t->ending) {
            break;
        }
        if (clock_running()) {
            run_all(t);
        } else {
            timer_arm(&t->again, clock_now());
        }
        machine_unlock();
    }
    machine_unlock();
    sem_destroy(&t->wake);
    sem_destroy(&t->up);
    g_free(t->id);
    g_free(t);
    return NULL;
}

static void again(void *thread)
{
    sem_post(&((struct iothread *)thread)->wake);
}

/* ---- the list ---- */

Iothread *iothread_find(const char *id)
{
    struct iothread *t = threads;
    while (t && strcmp(t->id, id) != 0) {
        t = t->next;
    }
    return t;
}

Iothread *iothread_new(const char *id, GError **error)
{
    struct iothread *t = g_new0(struct iothread, 1), **end = &threads;
    pthread_t handle;
    t->id = g_strdup(id);
    t->again = (struct timer){.fire = again, .owner = t};
    sem_init(&t->wake, 0, 0);
    sem_init(&t->up, 0, 0);
    int e = pthread_create(&handle, NULL, main_of, t);
    if (e) {
        error_set_errno(error, e, "iothread %s: no thread", id);
        g_free(t->id);
        g_free(t);
        return NULL;
    }
    pthread_detach(handle);
    while (sem_wait(&t->up) != 0) {
    }
    while (*end) {
        end = &(*end)->next;
    }
    *end = t;
    return t;
}

bool iothread_remove(const char *id)
{
    struct iothread *t = iothread_find(id), **at = &threads;
    if (!t || t->users) {
        return false;
    }
    while (*at != t) {
        at = &(*at)->next;
    }
    *at = t->next;
    timer_disarm(&t->again);
    t->ending = true; /* it frees itself */
    sem_post(&t->wake);
    return true;
}

void iothread_each(void (*each)(const char *id, int tid, void *data), void *data)
{
    for (const struct iothread *t = threads; t; t = t->next) {
        each(t->id, t->tid, data);
    }
}

/* ---- its devices ---- */

bool iothread_join(struct iothread_user *u, const char *id, GError **error)
{
    struct iothread *t = id ? iothread_find(id) : NULL;
    if (id && !t) {
        g_set_error(error, LODGE_ERROR, ENOENT, "iothread=%s: no such iothread", id);
        return false;
    }
    if (t) {
        atomic_store(&u->queues, 0);
        u->thread = t;
        u->next = t->users;
        t->users = u;
    }
    return true;
}

void iothread_leave(struct iothread_user *u)
{
    if (!u->thread) {
        return;
    }
    struct iothread_user **at = &u->thread->users;
    while (*at != u) {
        at = &(*at)->next;
    }
    *at = u->next;
    u->thread = NULL;
}

void iothread_kick(struct iothread_user *u, unsigned queue)
{
    if (!atomic_fetch_or(&u->queues, UINT64_C(1) << queue)) {
        sem_post(&u->thread->wake);
    }
}
