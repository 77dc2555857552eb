// SPDX-License-Identifier: AGPL-3.0-or-later
// One thread, while this process has regions: it hands over what the process owns, and every REGION_LOOK_MS tries for the lock
// of what others own. The kernel cannot tell a thread that a lock came free unless there is one for each.
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "lib/region.h"

#define REGION_LOOK_MS 50

pthread_mutex_t regions_mutex = PTHREAD_MUTEX_INITIALIZER;
struct region *regions;

static struct {
    bool running;
    int wake; // eventfd
} service = {.wake = -1};

// An owner without a socket takes the name's. Another region may have it by now: then this one no longer has a name.
static void take_name(struct region *region)
{
    struct error error;
    struct pool *pool = &region->payer->vgpu->pool;
    int lock = pool_lock(pool, 0, &error);
    if (lock < 0)
        return; // at the next look
    int rc = socket_probe(region->path, region->name);
    if (rc == 0) {
        atomic_store(&region->page->unlinked, 1);
    } else {
        socket_remove(region->path, region->name);
        region->listener = socket_listen(region);
    }
    pool_unlock(lock);
}

static void look_after(struct region *region)
{
    if (!region->maps)
        return; // on its way in or out
    if (!region->owned)
        region->owned = page_claim(region->page_fd, region->page);
    if (!region->owned)
        return;
    if (!region->payer)
        region_charge(region);
    bool named = !atomic_load(&region->page->unlinked);
    if (named && region->listener < 0)
        take_name(region);
    if (!named && region->listener >= 0) {
        close(region->listener);
        region->listener = -1;
    }
}

// Fills in what to wait for; returns how many, or -1 if there is no memory for it.
static int gather(struct pollfd **waits, int *timeout_ms)
{
    int count = 1;
    *timeout_ms = -1;
    for (struct region *region = regions; region; region = region->next)
        count++;
    struct pollfd *grown = realloc(*waits, (size_t)count * sizeof **waits);
    if (!grown)
        return -1;
    *waits = grown;
    count = 0;
    grown[count++] = (struct pollfd){.fd = service.wake, .events = POLLIN};
    for (struct region *region = regions; region; region = region->next) {
        look_after(region);
        grown[count++] = (struct pollfd){.fd = region->listener, .events = POLLIN};
        // Others may take the name of an owned region away, or its owner may die.
        *timeout_ms = REGION_LOOK_MS;
    }
    return count;
}

static void serve(const struct pollfd *waits, int count)
{
    for (int i = 1; i < count; i++)
        for (struct region *region = regions; region && waits[i].revents; region = region->next)
            if (region->listener == waits[i].fd)
                socket_serve(region);
}

static void *run(void *unused)
{
    struct pollfd *waits = NULL;
    int timeout_ms;
    uint64_t rung;
    (void)unused;
    pthread_setname_np(pthread_self(), "vgpu-regions");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_mutex_lock(&regions_mutex);
    while (regions) {
        int count = gather(&waits, &timeout_ms);
        pthread_mutex_unlock(&regions_mutex);
        if (count > 0)
            poll(waits, (nfds_t)count, timeout_ms);
        else
            poll(NULL, 0, REGION_LOOK_MS);
        if (count > 0 && waits[0].revents && read(service.wake, &rung, sizeof rung) < 0)
            log_debug("the regions' eventfd: %s", strerror(errno));
        pthread_mutex_lock(&regions_mutex);
        serve(waits, count);
    }
    service.running = false;
    pthread_mutex_unlock(&regions_mutex);
    free(waits);
    return NULL;
}

int service_notify(void)
{
    uint64_t one = 1;
    pthread_t thread;
    if (service.wake < 0)
        service.wake = descriptor_apart(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (service.wake < 0)
        return fail(-errno, "cannot make an eventfd: %s", strerror(errno));
    if (service.running)
        return write(service.wake, &one, sizeof one) < 0 && errno != EAGAIN ? fail(-errno, "eventfd: %s", strerror(errno)) : 0;
    int rc = thread_create_quiet(&thread, NULL, run, NULL);
    if (rc)
        return fail(-rc, "cannot start the thread that serves regions: %s", strerror(rc));
    pthread_detach(thread);
    service.running = true;
    return 0;
}

void service_reset(void)
{
    // What the child would keep alive of its parent's: a socket that nobody serves.
    for (struct region *region = regions; region; region = region->next) {
        if (region->listener >= 0)
            close(region->listener);
        close(region->page_fd);
        close(region->memory_fd);
    }
    if (service.wake >= 0)
        close(service.wake);
    service.wake = -1;
    service.running = false;
    regions = NULL;
    pthread_mutex_init(&regions_mutex, NULL);
}
