// SPDX-License-Identifier: AGPL-3.0-or-later
// Descriptors that a program does not know of.
#ifndef VGPU_BASE_DESCRIPTOR_H
#define VGPU_BASE_DESCRIPTOR_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

// Replaces a descriptor that has become a standard stream, since the program has closed that one: what the program writes there
// is not meant for the file, nor what it reads. Close-on-exec. Returns it, or -1 with errno set, as of the call that made `fd`.
static inline int descriptor_apart(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int apart = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), reason = errno;
    close(fd);
    errno = reason;
    return apart;
}

#endif
