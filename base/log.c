// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/descriptor.h"
#include "base/line.h"
#include "base/quiet.h"

enum log_level log_threshold = LOG_INFO;

static char log_path[PATH_MAX];

// Not to wait for the reader of a FIFO.
static int open_log(void)
{
    return descriptor_apart(open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
}

int log_configure(enum log_level level, const char *path)
{
    log_threshold = level;
    snprintf(log_path, sizeof log_path, "%s", path ? path : "");
    int saved = errno, rc = 0;
    int fd = log_path[0] ? open_log() : -1;
    if (fd >= 0)
        close(fd);
    else if (log_path[0] && errno != ENXIO) // a FIFO that nobody reads yet
        rc = -errno;
    errno = saved;
    return rc;
}

// If nobody reads stderr any more, or the file may not grow, the message is lost.
static ssize_t write_quietly(int fd, const char *line, size_t length)
{
    struct quiet quiet;
    quiet_begin(&quiet);
    ssize_t written = write(fd, line, length);
    quiet_end(&quiet, written < 0 ? errno : 0);
    return written;
}

static void emit(const char *line, size_t length)
{
    int fd = STDERR_FILENO;
    if (log_path[0]) {
        fd = open_log();
        if (fd < 0)
            fd = STDERR_FILENO;
    }
    ssize_t written;
    do {
        written = write_quietly(fd, line, length);
    } while (written < 0 && errno == EINTR);
    if (fd != STDERR_FILENO)
        close(fd);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    int saved = errno;
    char line[1024];
    int head = snprintf(line, sizeof line, "vgpu[%d]: %s: ", (int)getpid(), names[level]);
    va_list args;
    va_start(args, format);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, args);
    va_end(args);
    size_t length = (size_t)head + (body > 0 ? (size_t)body : 0);
    if (length > sizeof line - 2)
        length = sizeof line - 2;
    line_clean(line);
    line[length++] = '\n';
    int cancel = cancel_disable();
    emit(line, length);
    cancel_restore(cancel);
    errno = saved;
}
