// SPDX-License-Identifier: AGPL-3.0-or-later
// watch_free: what others take of the GPU's memory, as the driver sees it. Prints "ready" and watches until SIGTERM or SIGINT; prints
// "peak BYTES now BYTES" then. Both are beyond what was taken at the beginning; on a GPU that nobody else uses. Run it without the library.
//
// watch_free once: prints "free BYTES" for each line that it reads, what the driver has free then.
#include <signal.h>
#include <string.h>
#include <time.h>

#include "driver.h"

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void answer(void)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        printf("free %zu\n", told_free());
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    start();
    if (argc > 1 && strcmp(argv[1], "once") == 0) {
        answer();
        return 0;
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    size_t whole = told_free(), least = whole, now = whole;
    puts("ready");
    fflush(stdout);
    while (!stopped) {
        now = told_free();
        least = now < least ? now : least;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    printf("peak %zu now %zu\n", whole - least, whole > now ? whole - now : 0);
    return 0;
}
