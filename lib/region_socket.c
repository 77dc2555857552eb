// SPDX-License-Identifier: AGPL-3.0-or-later
// A region changes hands as two descriptors over a socket beside the pool: POOL.region.NAME. Each end checks who the other is.
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/region.h"

#define BACKLOG 16
#define GROUPS_MOST 64

// A socket's name has room for 107 bytes, and a pool's path may be longer: the name is taken relative to the open directory.
static int address_of(const char *pool, const char *name, struct sockaddr_un *address, int *directory)
{
    char folder[PATH_MAX], file[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", pool);
    snprintf(file, sizeof file, "%s", pool);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *directory = open(dirname(folder), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0)
        return fail(-errno, "cannot open the directory of the pool %s: %s", pool, strerror(errno));
    int length = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s.region.%s", *directory,
                          basename(file), name);
    if (length < (int)sizeof address->sun_path)
        return 0;
    close(*directory);
    return fail(-ENAMETOOLONG, "the file name of the pool %s is too long for regions beside it", pool);
}

void socket_remove(const char *pool, const char *name)
{
    char path[PATH_MAX + POOL_NAME_BYTES + 16];
    snprintf(path, sizeof path, "%s.region.%s", pool, name);
    unlink(path);
}

int socket_listen(const struct region *region)
{
    struct sockaddr_un address;
    int directory;
    int rc = address_of(region->path, region->name, &address, &directory);
    if (rc)
        return rc;
    int fd = descriptor_apart(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    rc = fd;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0) {
        rc = fail(-errno, "cannot open the socket of the region %s beside the pool %s: %s", region->name, region->path,
                  strerror(errno));
        if (fd >= 0)
            close(fd);
    } else {
        // As the pool's own mode: for its group, if it has one.
        struct stat status;
        bool shared = stat(region->path, &status) == 0 && status.st_mode & S_IWGRP;
        chmod(address.sun_path, shared ? 0660 : 0600);
    }
    close(directory);
    return rc;
}

int socket_probe(const char *pool, const char *name)
{
    struct sockaddr_un address;
    int directory;
    int rc = address_of(pool, name, &address, &directory);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rc = fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN) ? 0 : -errno;
    if (fd >= 0)
        close(fd);
    close(directory);
    return rc;
}

static bool is_in_group(int fd, gid_t group)
{
    gid_t groups[GROUPS_MOST];
    socklen_t bytes = sizeof groups;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) < 0)
        return false;
    for (size_t i = 0; i < bytes / sizeof groups[0]; i++)
        if (groups[i] == group)
            return true;
    return false;
}

// Whether the process at the other end may share this pool's memory, by its file's mode.
static bool may_share(int fd, const char *pool)
{
    struct ucred peer;
    struct stat status;
    socklen_t bytes = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return false;
    if (peer.uid == geteuid() || peer.uid == 0)
        return true;
    if (stat(pool, &status) < 0 || !(status.st_mode & S_IWGRP))
        return false;
    return peer.gid == status.st_gid || is_in_group(fd, status.st_gid);
}

void socket_serve(const struct region *region)
{
    int fds[2] = {region->page_fd, region->memory_fd};
    int connection = accept4(region->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0)
        return;
    if (may_share(connection, region->path)) {
        union {
            char room[CMSG_SPACE(sizeof fds)];
            struct cmsghdr alignment;
        } control = {{0}};
        uint64_t id = region->page->id;
        struct iovec data = {&id, sizeof id};
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fds)};
        memcpy(CMSG_DATA(rights), fds, sizeof fds);
        sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    close(connection);
}

static int fail_late(const char *name)
{
    return fail(-ETIMEDOUT, "the owner of the region %s does not answer (is it stopped?)", name);
}

// Waits for no longer than for the answer if many others wait to be accepted already.
static bool connect_to(int fd, const struct sockaddr_un *address)
{
    const struct timeval patience = {.tv_usec = REGION_PATIENCE_NS / NS_PER_US};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
}

static int receive(int fd, const char *name, int fds[2])
{
    union {
        char room[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    uint64_t id;
    struct iovec data = {&id, sizeof id};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, (int)(REGION_PATIENCE_NS / NS_PER_MS)) != 1)
        return fail_late(name);
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (length < 0 && errno == ECONNRESET)
        return fail(REGION_SOCKET_RESET, "the owner of the region %s has just gone", name);
    struct cmsghdr *rights = length < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_type != SCM_RIGHTS || rights->cmsg_len != CMSG_LEN(2 * sizeof(int)))
        return fail(-EPERM, "the owner of the region %s does not share it with this process", name);
    memcpy(fds, CMSG_DATA(rights), 2 * sizeof(int));
    int first = descriptor_apart(fds[0]), second = descriptor_apart(fds[1]), reason = errno;
    if (first >= 0 && second >= 0) {
        fds[0] = first;
        fds[1] = second;
        return 0;
    }
    if (first >= 0)
        close(first);
    if (second >= 0)
        close(second);
    return fail(-reason, "no descriptors for the region %s: %s", name, strerror(reason));
}

int socket_fetch(const char *pool, const char *name, int *page_fd, int *memory_fd)
{
    struct sockaddr_un address;
    int directory, fds[2] = {-1, -1};
    sigset_t all, before;
    int rc = address_of(pool, name, &address, &directory);
    if (rc)
        return rc;
    // A signal that the program handles would end a wait before its time.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || !connect_to(fd, &address))
        rc = errno == EAGAIN ? fail_late(name)
                             : fail(-errno, "there is no region %s beside the pool %s (%s)", name, pool, strerror(errno));
    else if (!may_share(fd, pool))
        rc = fail(-EPERM, "the region %s belongs to another user", name);
    else
        rc = receive(fd, name, fds);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (fd >= 0)
        close(fd);
    close(directory);
    if (rc == 0) {
        *page_fd = fds[0];
        *memory_fd = fds[1];
    }
    return rc;
}
