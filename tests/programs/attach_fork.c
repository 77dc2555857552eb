// SPDX-License-Identifier: AGPL-3.0-or-later
// Forked children. One made before CUDA was used is a program of its own; one made afterwards gets CUDA_ERROR_NOT_INITIALIZED from every
// call, and neither its calls nor its end disturb the parent.
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

static void wait_for(pid_t child, const char *which)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("no child");
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail("the child made %s CUDA was used failed with status %d", which, status);
}

int main(void)
{
    CUdeviceptr address, other;
    fflush(stdout);
    pid_t before = fork();
    if (before == 0) {
        start();
        OK(cuMemAlloc(&address, 64 * MIB));
        exit(0);
    }
    wait_for(before, "before");

    start();
    OK(cuMemAlloc(&address, 64 * MIB));
    size_t rest = told_free();
    for (int round = 0; round < 3; round++) {
        fflush(stdout);
        pid_t after = fork();
        if (after == 0) {
            EXPECT(cuInit(0), CUDA_ERROR_NOT_INITIALIZED);
            EXPECT(cuMemAlloc(&other, MIB), CUDA_ERROR_NOT_INITIALIZED);
            EXPECT(cuMemFree(address), CUDA_ERROR_NOT_INITIALIZED);
            EXPECT(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_NOT_INITIALIZED);
            exit(0); // with the parent's exit handlers
        }
        wait_for(after, "after");
        expect_free(rest, "after a child's end");
    }
    OK(cuMemFree(address));
    expect_free(rest + 64 * MIB, "in the parent");
    return 0;
}
