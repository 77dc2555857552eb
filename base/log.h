// SPDX-License-Identifier: AGPL-3.0-or-later
// Messages to the user of the program.
//
// Invariants: one message is one line in one write(2), so lines of several processes never mix; nothing ever goes to stdout;
// errno is preserved; a message below the level costs one compare. Thread safe. The level and the sink are set once, before
// other threads log, and again after fork.
#ifndef VGPU_BASE_LOG_H
#define VGPU_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

extern enum log_level log_threshold;

// Sends messages of `level` and more urgent ones to `path` (appended, created with mode 0600), or to stderr if path is NULL or
// empty. The file is opened for each message, so that no descriptor of ours stays in the program. Keeps a copy of the path.
// Returns 0, or -errno if the file cannot be opened; messages then go to stderr.
int log_configure(enum log_level level, const char *path);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_at(level, ...)                                                                                                     \
    do {                                                                                                                       \
        if ((level) <= log_threshold)                                                                                          \
            log_write(level, __VA_ARGS__);                                                                                     \
    } while (0)

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

#endif
