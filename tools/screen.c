// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tools/screen.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static struct {
    bool pictures;
    sigset_t signals;
} screen;

static bool terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && term[0] && strcmp(term, "dumb") != 0;
}

bool screen_usable(void)
{
    return terminal();
}

bool screen_colour(void)
{
    const char *no_color = getenv("NO_COLOR");
    return terminal() && !(no_color && no_color[0]);
}

static int put(const char *text, size_t length)
{
    while (length) {
        ssize_t written = write(STDOUT_FILENO, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

void screen_open(bool pictures)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH};
    sigemptyset(&screen.signals);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        struct sigaction action;
        // What the caller ignores (nohup does SIGHUP) stays ignored. A blocked SIGWINCH would be dropped under its default.
        if (sigaction(taken[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&screen.signals, taken[i]);
    }
    sigprocmask(SIG_BLOCK, &screen.signals, NULL);
    screen.pictures = pictures;
    if (pictures)
        put(ENTER, strlen(ENTER));
}

void screen_close(void)
{
    if (screen.pictures)
        put(LEAVE, strlen(LEAVE));
    // The signals stay blocked: the command is about to end, and a second Ctrl-C must not kill it first.
    screen.pictures = false;
}

int screen_show(const char *text)
{
    struct winsize size;
    unsigned rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
    char *frame;
    size_t length;
    FILE *out = open_memstream(&frame, &length);
    if (!out)
        return -errno;
    fputs("\033[H", out);
    for (unsigned row = 0; row < rows && *text; row++) {
        size_t line = strcspn(text, "\n");
        // No line feed after the last row, which would scroll the screen.
        fprintf(out, "%s%.*s\033[K", row ? "\r\n" : "", (int)line, text);
        text += line + (text[line] == '\n');
    }
    fputs("\033[J", out);
    int rc = fclose(out) == 0 ? put(frame, length) : -ENOMEM;
    free(frame);
    return rc;
}

static void stop_until_continued(void)
{
    if (screen.pictures)
        put(LEAVE, strlen(LEAVE));
    raise(SIGSTOP);
    if (screen.pictures)
        put(ENTER, strlen(ENTER));
}

enum screen_event screen_wait(uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        struct timespec left = clock_timespec(deadline_ns > now_ns ? deadline_ns - now_ns : 0);
        int number = sigtimedwait(&screen.signals, NULL, &left);
        if (number < 0 && errno == EAGAIN)
            return SCREEN_TIME;
        if (number == SIGTSTP)
            stop_until_continued();
        if (number == SIGTSTP || number == SIGWINCH)
            return SCREEN_RESIZED;
        if (number > 0)
            return SCREEN_STOP;
    }
}
