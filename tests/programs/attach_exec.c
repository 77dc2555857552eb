// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_exec TIMES: uses CUDA and replaces itself by itself, so many times. Each run must find the GPU that the first one found.
#include <stdio.h>
#include <unistd.h>

#include "driver.h"

int main(int argc, char **argv)
{
    int times = argc > 1 ? atoi(argv[1]) : 0;
    CUdeviceptr address;
    start();
    size_t available = told_free();
    if (argc > 2 && strtoull(argv[2], NULL, 10) != available)
        fail("%zu bytes are free with %d runs to go, and were %s", available, times, argv[2]);
    OK(cuMemAlloc(&address, available / 2));
    if (times > 0) {
        char rest[16], found[32];
        snprintf(rest, sizeof rest, "%d", times - 1);
        snprintf(found, sizeof found, "%zu", available);
        execl("/proc/self/exe", argv[0], rest, found, (char *)NULL);
        fail("cannot execute");
    }
    puts("done");
    return 0;
}
