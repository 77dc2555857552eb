// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory of another process is that one's: an IPC handle, physical memory, external memory and a pool, exported by a process and imported
// by a second, which it starts, change nothing of what is free to the second one.
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

#define BYTES (64 * MIB)

static void import(char **arguments)
{
    CUipcMemHandle ipc;
    CUmemGenericAllocationHandle memory;
    CUmemoryPool pool;
    CUdeviceptr address;
    start();
    size_t whole = told_free();
    for (size_t i = 0; i < sizeof ipc; i++) {
        unsigned byte;
        sscanf(arguments[0] + 2 * i, "%2x", &byte);
        ((unsigned char *)&ipc)[i] = (unsigned char)byte;
    }
    OK(cuIpcOpenMemHandle(&address, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    expect_free(whole, "with an IPC handle");
    OK(cuIpcCloseMemHandle(address));
    expect_free(whole, "without it");

    OK(cuMemImportFromShareableHandle(&memory, (void *)(intptr_t)atoi(arguments[1]), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    OK(cuMemAddressReserve(&address, BYTES, 0, 0, 0));
    OK(cuMemMap(address, BYTES, 0, memory, 0));
    expect_free(whole, "with imported memory");
    OK(cuMemUnmap(address, BYTES));
    OK(cuMemRelease(memory));
    expect_free(whole, "without it");

    OK(cuMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)atoi(arguments[2]), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                          0));
    if (cuMemAllocFromPoolAsync(&address, BYTES, pool, NULL) == CUDA_SUCCESS)
        fail("memory was allocated from another process's pool");
    expect_free(whole, "with an imported pool");
    OK(cuMemPoolDestroy(pool));
    expect_free(whole, "without it");

    CUexternalMemory external;
    const CUDA_EXTERNAL_MEMORY_HANDLE_DESC described = {.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD,
                                                        .handle.fd = atoi(arguments[3]),
                                                        .size = BYTES};
    const CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer = {.size = BYTES};
    // The handle is one of another interface: the driver may insist on that.
    CUresult rc = cuImportExternalMemory(&external, &described);
    if (rc != CUDA_SUCCESS) {
        printf("external memory: error %d\n", (int)rc);
        return;
    }
    OK(cuExternalMemoryGetMappedBuffer(&address, external, &buffer));
    expect_free(whole, "with external memory");
    OK(cuMemFree(address));
    OK(cuDestroyExternalMemory(external));
    expect_free(whole, "without it");
}

// The descriptors go to the child as they are: nothing between here and there makes them close.
static int inheritable(int fd)
{
    int copy = dup(fd);
    if (copy < 0)
        fail("no descriptor");
    return copy;
}

static int exported(void)
{
    const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemGenericAllocationHandle memory;
    int fd;
    OK(cuMemCreate(&memory, BYTES, &prop, 0));
    OK(cuMemExportToShareableHandle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    return inheritable(fd);
}

static int exported_pool(void)
{
    const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemoryPool pool;
    CUdeviceptr address;
    int fd;
    OK(cuMemPoolCreate(&pool, &props));
    OK(cuMemAllocFromPoolAsync(&address, BYTES, pool, NULL));
    OK(cuMemPoolExportToShareableHandle(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    return inheritable(fd);
}

int main(int argc, char **argv, char **environment)
{
    CUipcMemHandle ipc;
    CUdeviceptr address;
    char text[2 * sizeof ipc + 1], fds[3][16];
    pid_t pid;
    int status;
    if (argc > 4) {
        import(argv + 1);
        return 0;
    }
    start();
    OK(cuMemAlloc(&address, BYTES));
    OK(cuIpcGetMemHandle(&ipc, address));
    for (size_t i = 0; i < sizeof ipc; i++)
        sprintf(text + 2 * i, "%02x", ((unsigned char *)&ipc)[i]);
    sprintf(fds[0], "%d", exported());
    sprintf(fds[1], "%d", exported_pool());
    sprintf(fds[2], "%d", exported());
    char *arguments[] = {argv[0], text, fds[0], fds[1], fds[2], NULL};
    if (posix_spawn(&pid, argv[0], NULL, NULL, arguments, environment) || waitpid(pid, &status, 0) != pid)
        fail("no second process");
    return status != 0;
}
