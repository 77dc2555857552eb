// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_tls MODULE: launches from a program with much thread-local data, which takes room on the stack of every thread.
#include <stdint.h>

#include "driver.h"

__thread volatile char data[1 << 20];

int main(int argc, char **argv)
{
    CUmodule module;
    CUfunction spin;
    uint64_t ns = 1000;
    void *params[] = {&ns};
    if (argc < 2)
        fail("usage: attach_tls MODULE");
    data[0] = 1;
    start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    OK(cuCtxSynchronize());
    return 0;
}
