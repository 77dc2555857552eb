// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_fill [BYTES [FILE]]: allocates blocks of BYTES (2 MiB) until refused, prints "full COUNT" and keeps them until killed. Several at
// once begin together: each prints "ready" and waits until FILE exists.
#include <unistd.h>

#include "driver.h"

int main(int argc, char **argv)
{
    size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 2 * MIB;
    unsigned count = 0;
    CUdeviceptr address;
    start();
    if (argc > 2) {
        puts("ready");
        fflush(stdout);
        while (access(argv[2], F_OK) != 0)
            usleep(1000);
    }
    CUresult rc;
    while ((rc = cuMemAlloc(&address, bytes)) == CUDA_SUCCESS)
        count++;
    expect(rc, CUDA_ERROR_OUT_OF_MEMORY, "the first refusal");
    printf("full %u\n", count);
    fflush(stdout);
    for (;;)
        pause();
}
