// SPDX-License-Identifier: AGPL-3.0-or-later
// The pool in which programs started from here would meet.
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "options/options.h"
#include "pool/pool.h"
#include "tools/doctor.h"

#define GROUP_DIRECTORY "/run/vgpu" // as in pool_default_path

// Held for microseconds if all is well.
#define LOCK_PATIENCE_NS (NS_PER_S / 2)

// Whether a pool could be made at `path`: as in pool_open, short of naming the file.
static void check_place(const char *path)
{
    char copy[PATH_MAX];
    struct statvfs space;
    snprintf(copy, sizeof copy, "%s", path);
    const char *directory = dirname(copy);
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        doctor_say(DOCTOR_FAIL, "pool",
                   "%s cannot be created: %s: its directory must exist, be writable and be of a kind that supports "
                   "O_TMPFILE (tmpfs, ext4, xfs)",
                   path, strerror(errno));
        return;
    }
    if (fstatvfs(fd, &space) == 0 && (uint64_t)space.f_bavail * space.f_frsize < sizeof(struct pool_layout))
        doctor_say(DOCTOR_FAIL, "pool", "%s cannot be created: %s has %llu KiB free and it needs %zu", path, directory,
                   (unsigned long long)space.f_bavail * space.f_frsize >> 10, sizeof(struct pool_layout) >> 10);
    else if (access("/proc/self/fd", F_OK) < 0)
        doctor_say(DOCTOR_FAIL, "pool", "%s cannot be created: /proc must be mounted, to give it its name", path);
    else
        doctor_say(DOCTOR_OK, "pool", "%s does not exist yet; the first program creates it", path);
    close(fd);
}

static void check_processes(const struct pool *pool)
{
    unsigned live = 0, dead = 0;
    int probe = pool_probe_open(pool);
    for (uint32_t slot = 0; slot < POOL_MAX_PROCESSES; slot++) {
        if (atomic_load(&pool->layout->processes[slot].state) == POOL_FREE)
            continue;
        if (pool_alive(probe, slot))
            live++;
        else
            dead++;
    }
    pool_probe_close(probe);
    doctor_say(DOCTOR_OK, "pool", "used by %u program%s%s", live, live == 1 ? "" : "s",
               dead ? "; the next one to start takes back what dead ones left" : "");
}

static void check_lock(struct pool *pool)
{
    struct error error;
    int lock = pool_lock(pool, LOCK_PATIENCE_NS, &error);
    if (lock >= 0)
        pool_unlock(lock);
    else
        doctor_say(DOCTOR_FAIL, "pool", "%s%s", error.text,
                   lock == -ETIMEDOUT ? " Continue or end it: no program can start." : "");
}

void doctor_pool(void)
{
    static struct options options;
    struct pool pool;
    struct error error;
    struct stat status;
    char path[PATH_MAX];
    const char *text = getenv(option_table[OPTION_POOL].variable);
    options_defaults(&options);
    if (text && options_parse(&options, OPTION_POOL, text, &error))
        return; // doctor_options has said so
    pool_default_path(path, options.pool);
    if (!options.pool[0] && stat(GROUP_DIRECTORY, &status) == 0 && strncmp(path, GROUP_DIRECTORY, strlen(GROUP_DIRECTORY)) != 0)
        doctor_say(DOCTOR_WARN, "pool",
                   GROUP_DIRECTORY " exists, but this user may not write to it: programs of its group and of "
                                   "this user do not know about each other");
    int rc = pool_open_readonly(&pool, path, &error);
    if (rc == -ENOENT) {
        check_place(path);
        return;
    }
    if (rc) {
        doctor_say(DOCTOR_FAIL, "pool", "%s", error.text);
        return;
    }
    if (stat(path, &status) == 0 && access(path, R_OK | W_OK) == 0)
        doctor_say(DOCTOR_OK, "pool", "%s of user %u, mode %04o, layout version %u, chunks of %llu MiB", path,
                   (unsigned)status.st_uid, (unsigned)status.st_mode & 07777, POOL_VERSION,
                   (unsigned long long)pool.chunk_bytes >> 20);
    else
        doctor_say(DOCTOR_FAIL, "pool", "%s cannot be written by this user: join the group that owns it, or set %s", path,
                   option_table[OPTION_POOL].variable);
    check_processes(&pool);
    check_lock(&pool);
    pool_close(&pool);
}
