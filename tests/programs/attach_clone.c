// SPDX-License-Identifier: AGPL-3.0-or-later
// attach_clone MODULE: a child made by a bare system call runs no fork handlers, but the exit handlers of its parent. It ends as it means
// to, and its parent launches on.
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

int main(int argc, char **argv)
{
    CUmodule module;
    CUfunction spin;
    uint64_t ns = 1000;
    void *params[] = {&ns};
    int status;
    if (argc < 2)
        fail("usage: attach_clone MODULE");
    start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        exit(3);
    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("no child");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
        fail("the child ended with status %#x", (unsigned)status);
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    OK(cuCtxSynchronize());
    return 0;
}
