// SPDX-License-Identifier: AGPL-3.0-or-later
#include "pool/pool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/line.h"
#include "base/quiet.h"

#define GROUP_DIRECTORY "/run/vgpu"
#define LOCK_RETRY_NS (200 * NS_PER_US)
// Not to hang on what is no regular file, such as a FIFO without a writer.
#define OPEN_FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK)

// Descriptors of the pool file that this process has open, or is about to open, right now. Nearly always none.
static _Atomic uint32_t open_descriptors;

void pool_default_path(char path[PATH_MAX], const char *configured)
{
    struct stat status;
    if (configured && configured[0])
        snprintf(path, PATH_MAX, "%s", configured);
    else if (stat(GROUP_DIRECTORY, &status) == 0 && S_ISDIR(status.st_mode) && access(GROUP_DIRECTORY, W_OK | X_OK) == 0)
        snprintf(path, PATH_MAX, GROUP_DIRECTORY "/pool");
    else
        snprintf(path, PATH_MAX, "/dev/shm/vgpu.%u", (unsigned)geteuid());
}

static bool in_group_directory(const char *path)
{
    return strncmp(path, GROUP_DIRECTORY "/", sizeof GROUP_DIRECTORY) == 0;
}

// A folder that a group may write need not hand its group down to new files.
static void give_to_group(int fd, const char *directory)
{
    struct stat status;
    bool shared = stat(directory, &status) == 0 && status.st_mode & S_IWGRP;
    if (shared && fchown(fd, (uid_t)-1, status.st_gid) < 0)
        return; // who is not in the group may only keep it in his own
}

static bool is_chunk(uint64_t bytes)
{
    return bytes >= POOL_MIN_CHUNK_BYTES && bytes <= POOL_MAX_CHUNK_BYTES && (bytes & (bytes - 1)) == 0;
}

// open, but never as standard input, output or error if the program has closed these: its output would overwrite the pool.
static int open_file(const char *path, int flags)
{
    int taken[STDERR_FILENO + 1], count = 0;
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            taken[count++] = open("/", O_PATH | O_CLOEXEC); // reading and writing still fail with EBADF
    int opened = open(path, flags, 0600), reason = errno;
    while (count-- > 0)
        if (taken[count] >= 0)
            close(taken[count]);
    errno = reason;
    return opened;
}

static int create_file(const char *path, uint64_t chunk_bytes, struct error *error)
{
    char copy[PATH_MAX];
    if (chunk_bytes && !is_chunk(chunk_bytes))
        return error_set(error, -EINVAL,
                         "cannot create the pool %s with chunks of %llu bytes: allowed is a power of two from %llu to %llu",
                         path, (unsigned long long)chunk_bytes, POOL_MIN_CHUNK_BYTES, POOL_MAX_CHUNK_BYTES);
    snprintf(copy, sizeof copy, "%s", path);
    const char *directory = dirname(copy);
    int fd = open_file(directory, O_TMPFILE | O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno,
                         "cannot create the pool %s: %s (its directory must exist, be writable and support O_TMPFILE)", path,
                         strerror(errno));

    int rc = 0;
    struct quiet quiet;
    const struct pool_header header = {
        .magic = POOL_MAGIC,
        .version = POOL_VERSION,
        .bytes = sizeof(struct pool_layout),
        .chunk_bytes = chunk_bytes ? chunk_bytes : POOL_DEFAULT_CHUNK_BYTES,
        .created_ns = clock_now_ns(),
    };
    char source[64];
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    // fchmod rather than the mode given to open, which the program's umask would change. The space is taken now: a full tmpfs
    // must show here as an error, not later as SIGBUS.
    quiet_begin(&quiet);
    if (in_group_directory(path))
        give_to_group(fd, directory);
    if (fchmod(fd, in_group_directory(path) ? 0660 : 0600) < 0 ||
        (errno = posix_fallocate(fd, 0, sizeof(struct pool_layout))) != 0 ||
        pwrite(fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        rc = error_set(error, -errno, "cannot fill the new pool %s: %s", path, strerror(errno));
    quiet_end(&quiet, -rc);
    if (rc == 0 && linkat(AT_FDCWD, source, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 && errno != EEXIST)
        rc = error_set(error, -errno, "cannot name the new pool %s: %s (/proc must be mounted)", path, strerror(errno));
    close(fd);
    return rc;
}

static int check_file(const char *path, const struct stat *status, struct error *error)
{
    if (!S_ISREG(status->st_mode))
        return error_set(error, -EINVAL, "the pool %s is not a regular file", path);
    if (status->st_mode & (S_IROTH | S_IWOTH))
        return error_set(error, -EPERM, "the pool %s is open to all users (mode %04o): chmod o-rw it, or set VGPU_POOL", path,
                         (unsigned)(status->st_mode & 07777));
    bool own = status->st_uid == geteuid() || status->st_uid == 0;
    bool group = (status->st_mode & 0060) == 0060 && !(strncmp(path, "/dev/shm/", 9) == 0);
    if (!own && !group)
        return error_set(error, -EPERM, "the pool %s belongs to user %u, not to user %u: remove it, or set VGPU_POOL", path,
                         (unsigned)status->st_uid, (unsigned)geteuid());
    if ((uint64_t)status->st_size < sizeof(struct pool_header))
        return error_set(error, -EINVAL, "%s is not a pool (%lld bytes): remove it, or set VGPU_POOL", path,
                         (long long)status->st_size);
    return 0;
}

static int check_header(const char *path, const struct stat *status, const struct pool_header *header, uint64_t chunk_bytes,
                        struct error *error)
{
    if (header->magic != POOL_MAGIC)
        return error_set(error, -EINVAL, "%s is not a pool: remove it, or set VGPU_POOL", path);
    if (header->version != POOL_VERSION)
        return error_set(
            error, -EPROTO,
            "the pool %s has layout version %u and this library needs %u: stop the programs that use it and remove "
            "it, or set VGPU_POOL to another path",
            path, header->version, POOL_VERSION);
    if (header->bytes != sizeof(struct pool_layout) || (uint64_t)status->st_size < sizeof(struct pool_layout))
        return error_set(
            error, -EPROTO,
            "the pool %s is damaged (%lld bytes, said to be %u, should be %zu): stop the programs that use it and remove it, "
            "or set VGPU_POOL to another path",
            path, (long long)status->st_size, header->bytes, sizeof(struct pool_layout));
    uint64_t chunk = header->chunk_bytes;
    if (!is_chunk(chunk))
        return error_set(error, -EINVAL, "the pool %s is damaged (chunk of %llu bytes): remove it", path,
                         (unsigned long long)chunk);
    if (chunk_bytes && chunk_bytes != chunk)
        return error_set(error, -EINVAL, "VGPU_CHUNK asks for chunks of %llu MiB but the pool %s has chunks of %llu MiB",
                         (unsigned long long)(chunk_bytes >> 20), path, (unsigned long long)(chunk >> 20));
    return 0;
}

static int map_file(struct pool *pool, const char *path, int fd, bool writable, uint64_t chunk_bytes, struct error *error)
{
    struct stat status;
    struct pool_header header;
    if (fstat(fd, &status) < 0)
        return error_set(error, -errno, "cannot examine the pool %s: %s", path, strerror(errno));
    int rc = check_file(path, &status, error);
    if (rc)
        return rc;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        return error_set(error, -EIO, "cannot read the pool %s", path);
    rc = check_header(path, &status, &header, chunk_bytes, error);
    if (rc)
        return rc;
    void *layout = mmap(NULL, sizeof(struct pool_layout), writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (layout == MAP_FAILED)
        return error_set(error, -errno, "cannot map the pool %s: %s", path, strerror(errno));
    // A forked child must neither see the pool as its parent nor keep the parent's slot alive.
    madvise(layout, sizeof(struct pool_layout), MADV_DONTFORK);
    pool->layout = layout;
    pool->device = status.st_dev;
    pool->inode = status.st_ino;
    pool->chunk_bytes = header.chunk_bytes;
    snprintf(pool->path, sizeof pool->path, "%s", path);
    return 0;
}

static int cannot_open(const char *path, int reason, struct error *error)
{
    return error_set(error, -reason, "cannot open the pool %s: %s%s", path, strerror(reason),
                     reason == EACCES ? ": set VGPU_POOL to a path of your own" : "");
}

static int open_error(const char *path, struct error *error)
{
    int reason = errno;
    if (reason == ELOOP)
        return error_set(error, -reason, "the pool %s is a symbolic link, which is not followed: name the file itself", path);
    return cannot_open(path, reason, error);
}

static int make_absolute(char absolute[PATH_MAX], const char *path, struct error *error)
{
    char directory[PATH_MAX];
    bool relative = path[0] != '/';
    if (relative && !getcwd(directory, sizeof directory))
        return error_set(error, -errno, "cannot find the pool %s: %s", path, strerror(errno));
    int length = snprintf(absolute, PATH_MAX, "%s%s%s", relative ? directory : "", relative ? "/" : "", path);
    if (length >= PATH_MAX)
        return error_set(error, -ENAMETOOLONG, "the name of the pool is too long: %.80s...", path);
    return 0;
}

int pool_open(struct pool *pool, const char *name, uint64_t chunk_bytes, struct error *error)
{
    char path[PATH_MAX];
    *pool = (struct pool){0};
    int rc = make_absolute(path, name, error);
    if (rc)
        return rc;
    int fd = open_file(path, O_RDWR | OPEN_FLAGS);
    if (fd < 0 && errno == ENOENT) {
        rc = create_file(path, chunk_bytes, error);
        if (rc)
            return rc;
        fd = open_file(path, O_RDWR | OPEN_FLAGS);
    }
    if (fd < 0)
        return open_error(path, error);
    rc = map_file(pool, path, fd, true, chunk_bytes, error);
    close(fd);
    return rc;
}

static int open_existing(struct pool *pool, const char *name, bool writable, struct error *error)
{
    char path[PATH_MAX];
    *pool = (struct pool){0};
    int rc = make_absolute(path, name, error);
    if (rc)
        return rc;
    int fd = open_file(path, (writable ? O_RDWR : O_RDONLY) | OPEN_FLAGS);
    if (fd < 0)
        return open_error(path, error);
    rc = map_file(pool, path, fd, writable, 0, error);
    close(fd);
    return rc;
}

int pool_open_existing(struct pool *pool, const char *path, struct error *error)
{
    return open_existing(pool, path, true, error);
}

int pool_open_readonly(struct pool *pool, const char *path, struct error *error)
{
    return open_existing(pool, path, false, error);
}

void pool_close(struct pool *pool)
{
    if (pool->layout)
        munmap(pool->layout, sizeof(struct pool_layout));
    *pool = (struct pool){0};
}

static bool is_pool_file(const struct pool *pool, int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_dev == pool->device && status.st_ino == pool->inode;
}

static void shut(int fd)
{
    close(fd);
    atomic_fetch_sub(&open_descriptors, 1);
}

// Opens the pool's file anew, as a description of its own, and checks that it is still the mapped file. For shut().
static int reopen(const struct pool *pool, int flags)
{
    atomic_fetch_add(&open_descriptors, 1); // before there is one: see pool_forget_after_fork
    int fd = open_file(pool->path, flags | OPEN_FLAGS);
    if (fd < 0) {
        int reason = errno;
        atomic_fetch_sub(&open_descriptors, 1);
        return reason == ENOENT || reason == ENOTDIR || reason == ELOOP ? -ESTALE : -reason;
    }
    if (!is_pool_file(pool, fd)) {
        shut(fd);
        return -ESTALE;
    }
    return fd;
}

static int reopen_error(const struct pool *pool, int rc, struct error *error)
{
    if (rc == -ESTALE)
        return error_set(error, rc, "the pool %s was removed or replaced while in use: restart this program", pool->path);
    return cannot_open(pool->path, -rc, error);
}

void pool_forget_after_fork(struct pool *pool)
{
    // Descriptors are open for microseconds, so few children have any to close; they find them by the file's identity.
    if (pool->inode && atomic_exchange(&open_descriptors, 0)) {
        int saved = errno;
        int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _Alignas(struct dirent64) char buffer[4096];
        for (long length; (length = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0;) {
            for (long at = 0; at < length;) {
                const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
                int fd = entry->d_name[0] == '.' ? -1 : (int)strtol(entry->d_name, NULL, 10);
                if (fd >= 0 && is_pool_file(pool, fd))
                    close(fd);
                at += entry->d_reclen;
            }
        }
        if (directory >= 0)
            close(directory);
        errno = saved;
    }
    *pool = (struct pool){0};
}

static struct flock byte_lock(uint32_t byte)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = POOL_LOCK_OFFSET + byte, .l_len = 1};
}

int pool_lock(struct pool *pool, uint64_t patience_ns, struct error *error)
{
    int fd = reopen(pool, O_RDWR);
    if (fd < 0)
        return reopen_error(pool, fd, error);
    struct flock lock = byte_lock(0);
    for (uint64_t deadline = clock_now_ns() + patience_ns; fcntl(fd, F_OFD_SETLK, &lock) < 0;) {
        int reason = errno;
        if ((reason != EAGAIN && reason != EACCES && reason != EINTR) || clock_now_ns() >= deadline) {
            shut(fd);
            if (reason == EAGAIN || reason == EACCES)
                return error_set(error, -ETIMEDOUT,
                                 "cannot lock the pool %s: another process holds it (is one of its programs stopped?)",
                                 pool->path);
            return error_set(error, -reason, "cannot lock the pool %s: %s", pool->path, strerror(reason));
        }
        clock_sleep_ns(LOCK_RETRY_NS);
    }
    return fd;
}

void pool_unlock(int lock)
{
    // Unlocked explicitly: a child forked meanwhile may have a copy of the descriptor.
    struct flock unlock = byte_lock(0);
    unlock.l_type = F_UNLCK;
    fcntl(lock, F_OFD_SETLK, &unlock);
    shut(lock);
}

int pool_probe_open(const struct pool *pool)
{
    return reopen(pool, O_RDONLY);
}

void pool_probe_close(int probe)
{
    if (probe >= 0)
        shut(probe);
}

bool pool_alive(int probe, uint32_t slot)
{
    struct flock lock = byte_lock(1 + slot);
    if (probe < 0 || fcntl(probe, F_OFD_GETLK, &lock) < 0)
        return true;
    return lock.l_type != F_UNLCK;
}

static void describe_self(struct pool_process *process)
{
    process->pid = (int32_t)getpid();
    process->started_ns = clock_now_ns();
    memset(process->command, 0, sizeof process->command);
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, process->command, sizeof process->command - 1);
    close(fd);
    if (length > 0 && process->command[length - 1] == '\n')
        process->command[length - 1] = '\0';
    line_clean(process->command);
}

int pool_claim(struct pool *pool, struct error *error)
{
    // The lock must belong to a description that lives exactly as long as the mapping. The mapping made by pool_open is
    // replaced, at the same address, by one of a fresh description that holds the lock.
    int fd = reopen(pool, O_RDWR);
    if (fd < 0)
        return reopen_error(pool, fd, error);
    int rc = error_set(error, -ENOSPC, "the pool %s is full: all %u process slots are taken", pool->path, POOL_MAX_PROCESSES);
    for (uint32_t slot = 0; slot < POOL_MAX_PROCESSES; slot++) {
        struct pool_process *process = &pool->layout->processes[slot];
        struct flock lock = byte_lock(1 + slot);
        if (atomic_load(&process->state) != POOL_FREE || fcntl(fd, F_OFD_SETLK, &lock) < 0)
            continue;
        void *layout = mmap(pool->layout, sizeof(struct pool_layout), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
        if (layout == MAP_FAILED) {
            rc = error_set(error, -errno, "cannot map the pool %s: %s", pool->path, strerror(errno));
            break;
        }
        madvise(layout, sizeof(struct pool_layout), MADV_DONTFORK);
        describe_self(process);
        atomic_store(&process->bell, slot);
        atomic_store(&process->state, POOL_LIVE);
        rc = (int)slot;
        break;
    }
    shut(fd);
    return rc;
}
