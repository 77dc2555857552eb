// Making, mapping and joining the shared state file.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include "simgpu/state/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simgpu/state/liveness.h"
#include "simgpu/state/settings.h"

static struct state_file *mapped;
static uint32_t my_slot = STATE_NO_SLOT;

struct state_file *state_file(void)
{
    return mapped;
}

uint32_t state_slot_index(void)
{
    return my_slot;
}

// Writes a complete file under a temporary name and links it into place. Losing the race against another process is success.
static int create_file(const char *path)
{
    struct state_settings settings;
    struct state_file *file = NULL;
    char temporary[PATH_MAX];
    int rc = settings_read(&settings);

    if (rc)
        return rc;
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    // The space is taken now: a full tmpfs must show here and not later as SIGBUS.
    rc = -posix_fallocate(fd, 0, sizeof *file);
    if (rc)
        goto out;
    file = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED) {
        rc = -errno;
        goto out;
    }
    file->magic = STATE_MAGIC;
    file->version = STATE_VERSION;
    file->file_bytes = sizeof *file;
    file->device_count = settings.device_count;
    file->slot_count = STATE_MAX_SLOTS;
    file->capacity_bytes = settings.capacity_bytes;
    file->context_bytes = settings.context_bytes;
    file->code_bytes = settings.code_bytes;
    file->slice_ns = settings.slice_ns;
    file->switch_ns = settings.switch_ns;
    if (getrandom(file->uuid_seed, sizeof file->uuid_seed, 0) != sizeof file->uuid_seed)
        rc = -EIO;
    munmap(file, sizeof *file);
    if (!rc && link(temporary, path) && errno != EEXIST)
        rc = -errno;
out:
    unlink(temporary);
    close(fd);
    return rc;
}

static int check_header(const struct state_file *file)
{
    if (file->magic != STATE_MAGIC || file->version != STATE_VERSION || file->file_bytes != sizeof *file ||
        file->slot_count != STATE_MAX_SLOTS || file->device_count > STATE_MAX_DEVICES)
        return -EPROTO;
    return 0;
}

// Opens the file, which must be ours alone and have the right size.
static int open_file(const char *path, struct stat *st)
{
    int rc = 0, fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -errno;
    if (fstat(fd, st))
        rc = -errno;
    else if (!S_ISREG(st->st_mode) || st->st_uid != geteuid() || (st->st_mode & 077))
        rc = -EPERM;
    else if ((uint64_t)st->st_size != sizeof(struct state_file))
        rc = -EPROTO;
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

static int claim_slot(struct state_file *file, int fd)
{
    for (uint32_t i = 0; i < STATE_MAX_SLOTS; i++) {
        if (liveness_lock(fd, i))
            continue;
        // A slot whose lock is free is free, whether its last owner was swept yet or not.
        liveness_clear(file, i);
        atomic_store(&file->slot[i].pid, (uint32_t)getpid());
        atomic_store(&file->slot[i].live, 1);
        my_slot = i;
        return 0;
    }
    return -ENOSPC;
}

int state_open(bool join)
{
    char path[PATH_MAX];
    struct stat st;
    int fd, rc = settings_path(path, sizeof path);

    if (rc)
        return rc;
    fd = open_file(path, &st);
    if (fd == -ENOENT) {
        rc = create_file(path);
        if (rc)
            return rc;
        fd = open_file(path, &st);
    }
    if (fd < 0)
        return fd;
    struct state_file *file = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED) {
        rc = -errno;
        goto out;
    }
    rc = check_header(file);
    if (!rc && join && madvise(file, sizeof *file, MADV_DONTFORK))
        rc = -errno;
    if (!rc && join)
        rc = claim_slot(file, fd);
    if (rc) {
        munmap(file, sizeof *file);
        goto out;
    }
    mapped = file;
    liveness_remember(path, &st);
out:
    // The mapping, not the descriptor, keeps the description and with it the lock alive from here on.
    close(fd);
    return rc;
}

void state_uuid(uint32_t device, uint8_t uuid[16])
{
    memcpy(uuid, mapped->uuid_seed, 16);
    uuid[15] = (uint8_t)(uuid[15] + device);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); // a random UUID: version 4, variant 1
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

void state_uuid_text(uint32_t device, char *text, size_t text_bytes)
{
    const char *mig = getenv("SIMGPU_MIG");
    uint8_t b[16];

    state_uuid(device, b);
    snprintf(text, text_bytes, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             mig && !strcmp(mig, "1") ? "MIG" : "GPU", b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
             b[12], b[13], b[14], b[15]);
}
