// SPDX-License-Identifier: AGPL-3.0-or-later
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/line.h"

enum log_level log_threshold = LOG_INFO;

static char log_path[PATH_MAX];

// Not to wait for the reader of a FIFO.
static int open_log(void)
{
    return open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
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

// If nobody reads stderr any more, or the file may not grow, the message is lost; the program must not die of it.
static ssize_t write_without_signal(int fd, const char *line, size_t length)
{
    sigset_t blocked, raised, before, pending;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGPIPE);
    sigaddset(&blocked, SIGXFSZ);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    ssize_t written = write(fd, line, length);
    int reason = errno, signal = written >= 0 ? 0 : reason == EPIPE ? SIGPIPE : reason == EFBIG ? SIGXFSZ : 0;
    if (signal && !sigismember(&pending, signal)) {
        sigemptyset(&raised);
        sigaddset(&raised, signal);
        sigtimedwait(&raised, NULL, &(struct timespec){0});
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = reason;
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
        written = write_without_signal(fd, line, length);
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
