// Liveness of slots by open file description locks, and taking back what dead processes held.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include "simgpu/state/liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "simgpu/state/state.h"

static char state_path[PATH_MAX];
static dev_t state_dev;
static ino_t state_ino;

void liveness_remember(const char *path, const struct stat *st)
{
    snprintf(state_path, sizeof state_path, "%s", path);
    state_dev = st->st_dev;
    state_ino = st->st_ino;
}

static struct flock lock_range(short type, uint32_t slot)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = STATE_LOCK_OFFSET + slot, .l_len = 1};
}

int liveness_lock(int fd, uint32_t slot)
{
    struct flock lock = lock_range(F_WRLCK, slot);
    return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

void liveness_clear(struct state_file *file, uint32_t slot)
{
    struct state_slot *s = &file->slot[slot];

    for (uint32_t d = 0; d < STATE_MAX_DEVICES; d++) {
        atomic_fetch_and(&file->engine[d].waiting[slot / 64], ~(1ull << (slot % 64)));
        uint64_t owner = atomic_load(&file->engine[d].owner);
        if ((owner & 0xffff) == slot + 1)
            atomic_compare_exchange_strong(&file->engine[d].owner, &owner, owner & ~0xffffull);
        atomic_store(&s->device[d].tentative_bytes, 0);
        atomic_store(&s->device[d].committed_bytes, 0);
        atomic_store(&s->device[d].contexts, 0);
        atomic_store(&s->device[d].ticket, 0);
    }
    atomic_store(&s->pid, 0);
    atomic_store(&s->live, 0);
}

static int open_probe(void)
{
    struct stat st;
    int fd = open(state_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0 && (fstat(fd, &st) || st.st_dev != state_dev || st.st_ino != state_ino)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool locked(int fd, uint32_t slot)
{
    struct flock lock = lock_range(F_WRLCK, slot);
    return fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}

bool state_slot_alive(uint32_t slot)
{
    if (slot == state_slot_index())
        return true;
    int fd = open_probe();
    if (fd < 0)
        return true;
    bool alive = locked(fd, slot);
    close(fd);
    return alive;
}

void state_sweep(void)
{
    struct state_file *file = state_file();
    int fd = open_probe();

    if (fd < 0)
        return;
    for (uint32_t i = 0; i < STATE_MAX_SLOTS; i++) {
        if (i == state_slot_index() || !atomic_load(&file->slot[i].live) || locked(fd, i))
            continue;
        // Between the look and the lock a new process may have claimed the slot; then the lock is refused.
        if (liveness_lock(fd, i) == 0) {
            struct flock unlock = lock_range(F_UNLCK, i);
            liveness_clear(file, i);
            fcntl(fd, F_OFD_SETLK, &unlock);
        }
    }
    close(fd);
}
