// Memory of others: IPC handles, external memory, pools of other processes.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// An import takes no memory of the device: whoever exported it pays. External memory is the exporter's; an opened IPC handle has the size
// of what it names and contents of its own, since device memory belongs to the process; an imported pool is a name and no more.
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/driver/pool_internal.h"

#define IPC_MAGIC 0x43504955504753ull // "SGPUIPC", little-endian

struct ipc {
    uint64_t magic, pid, bytes, base;
};
_Static_assert(sizeof(struct ipc) <= sizeof(CUipcMemHandle), "an IPC handle holds this");

struct CUextMemory_st {
    int fd;
    size_t bytes;
};

CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *allocation = range_find(ptr);
    if (!out || !allocation || allocation->kind != ALLOCATION_DEVICE)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct ipc ipc = {IPC_MAGIC, (uint64_t)getpid(), allocation->bytes, allocation->base};
    memset(out, 0, sizeof *out);
    memcpy(out, &ipc, sizeof ipc);
    return api_leave(CUDA_SUCCESS);
}

// Reserves addresses for memory that is not this process's, and enters them.
static CUresult import(struct device *device, size_t bytes, int fd, size_t offset, CUdeviceptr *out)
{
    struct allocation *allocation = calloc(1, sizeof *allocation);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED,
                      fd, (off_t)offset);

    if (!allocation || base == MAP_FAILED) {
        free(allocation);
        if (base != MAP_FAILED)
            munmap(base, bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *allocation = (struct allocation){.base = (uintptr_t)base, .bytes = bytes, .kind = ALLOCATION_IMPORTED, .device = device};
    CUresult rc = range_insert(allocation);
    if (rc) {
        munmap(base, bytes);
        free(allocation);
        return rc;
    }
    *out = allocation->base;
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned flags)
{
    struct CUctx_st *ctx;
    struct ipc ipc;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    memcpy(&ipc, &handle, sizeof ipc);
    if (!out || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS || ipc.magic != IPC_MAGIC)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (ipc.pid == (uint64_t)getpid())
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    return api_leave(import(ctx->device, ipc.bytes, -1, 0, out));
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *out, CUipcMemHandle handle, unsigned flags)
{
    return cuIpcOpenMemHandle_v2(out, handle, flags);
}

CUresult imported_free(struct allocation *allocation)
{
    range_remove(allocation);
    munmap((void *)allocation->base, allocation->bytes);
    free(allocation);
    return CUDA_SUCCESS;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *allocation = range_find(ptr);
    if (!allocation || allocation->base != ptr || allocation->kind != ALLOCATION_IMPORTED)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(imported_free(allocation));
}

// What stands for a pool between processes is a descriptor that only this knows.
CUresult cuMemPoolExportToShareableHandle(void *out, CUmemoryPool pool, CUmemAllocationHandleType type,
                                          unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(pool, HANDLE_POOL) || pool->destroyed || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
        !pool->shareable)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    int fd = memfd_create("simgpu-pool", MFD_CLOEXEC);
    if (fd < 0)
        return api_leave(CUDA_ERROR_OPERATING_SYSTEM);
    *(int *)out = fd;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *out, void *os_handle, CUmemAllocationHandleType type,
                                            unsigned long long flags)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || fcntl((int)(intptr_t)os_handle, F_GETFD) < 0)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUmemPoolHandle_st *pool = pool_new(device_get(0));
    if (!pool)
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    pool->imported = true;
    *out = pool;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *description)
{
    struct stat st;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !description || !description->size)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (description->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD)
        return api_leave(CUDA_ERROR_NOT_SUPPORTED);
    int fd = description->handle.fd;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size < description->size)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUextMemory_st *memory = malloc(sizeof *memory);
    if (!memory || !handle_add(memory, HANDLE_EXTERNAL)) {
        free(memory);
        return api_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    *memory = (struct CUextMemory_st){.fd = fd, .bytes = description->size}; // the descriptor is the driver's from now on
    *out = memory;
    return api_leave(CUDA_SUCCESS);
}

CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *out, CUexternalMemory memory,
                                         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *description)
{
    struct CUctx_st *ctx;
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    if (!handle_is(memory, HANDLE_EXTERNAL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!out || !description || !description->size || description->offset > memory->bytes ||
        description->size > memory->bytes - description->offset)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    return api_leave(import(ctx->device, description->size, memory->fd, description->offset, out));
}

CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!handle_is(memory, HANDLE_EXTERNAL))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    close(memory->fd);
    handle_remove(memory);
    free(memory);
    return api_leave(CUDA_SUCCESS);
}
