// SPDX-License-Identifier: AGPL-3.0-or-later
// What the program asks about memory that a heap gave out (VGPU_ALLOCATOR=chunk). To the driver it is part of a larger mapping;
// the answers here are those for an allocation of its own.
#include <errno.h>

#include "base/log.h"
#include "shim/heap_memory.h"

// The driver numbers buffers from 1; those of heaps are set apart.
#define BUFFER_ID_BIT (1ull << 62)

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    struct heap_piece piece;
    CUcontext context;
    int rc = heap_memory_find(address, &piece, &context);
    if (rc)
        return REAL(cuMemGetAddressRange_v2)(base, bytes, rc == -ENOENT ? address : HEAP_MEMORY_NOWHERE);
    driver_layer_seen();
    if (base)
        *base = piece.address;
    if (bytes)
        *bytes = piece.bytes;
    return CUDA_SUCCESS;
}

static void correct(CUpointer_attribute attribute, void *data, const struct heap_piece *piece, CUcontext context)
{
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = context;
        break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = piece->id | BUFFER_ID_BIT;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = piece->address;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = piece->bytes;
        break;
    default: // true of the whole mapping
        break;
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
    struct heap_piece piece;
    CUcontext context;
    int found = heap_memory_find(address, &piece, &context);
    CUresult rc = REAL(cuPointerGetAttribute)(data, attribute, found == -EALREADY ? HEAP_MEMORY_NOWHERE : address);
    if (rc == CUDA_SUCCESS && found == 0)
        correct(attribute, data, &piece, context);
    return rc;
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **data, CUdeviceptr address)
{
    struct heap_piece piece;
    CUcontext context;
    int found = heap_memory_find(address, &piece, &context);
    CUresult rc = REAL(cuPointerGetAttributes)(count, attributes, data, found == -EALREADY ? HEAP_MEMORY_NOWHERE : address);
    for (unsigned i = 0; rc == CUDA_SUCCESS && found == 0 && i < count; i++)
        correct(attributes[i], data[i], &piece, context);
    return rc;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address)
{
    static atomic_bool said;
    struct heap_piece piece;
    CUcontext context;
    if (heap_memory_find(address, &piece, &context) == -ENOENT)
        return REAL(cuIpcGetMemHandle)(handle, address);
    driver_layer_seen();
    if (!atomic_exchange(&said, true))
        log_warn(
            "cuIpcGetMemHandle: memory of VGPU_ALLOCATOR=chunk cannot be exported to other processes: use VGPU_ALLOCATOR=native");
    return CUDA_ERROR_NOT_SUPPORTED;
}
