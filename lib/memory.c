// SPDX-License-Identifier: AGPL-3.0-or-later
// Memory of an instance: its heap over the driver's virtual memory management, and copies.
//
// Copies and fills are not gated: they do not hold a multiprocessor for long.
#include "lib/instance.h"

// Address space is plentiful; the heap reserves a multiple of this.
static uint64_t capacity_of(const struct vgpu *vgpu)
{
    return holdings_round_up(vgpu->gpu->bytes, HEAP_BLOCK_BYTES);
}

static int range_reserve(void *gpu, uint64_t bytes, uint64_t *address)
{
    CUdeviceptr range;
    (void)gpu;
    int rc = fail_driver(REAL(cuMemAddressReserve)(&range, bytes, 0, 0, 0), "cuMemAddressReserve");
    *address = rc ? 0 : range;
    return rc;
}

static void range_release(void *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    REAL(cuMemAddressFree)(address, bytes);
}

static bool memory_fits(void *gpu, uint64_t bytes)
{
    const struct holdings *holdings = &((struct vgpu *)gpu)->holdings;
    return holdings_may_fit(holdings, bytes) || (holdings_reap(holdings) && holdings_may_fit(holdings, bytes));
}

static int memory_create(void *gpu, uint64_t bytes, uint64_t *handle)
{
    struct vgpu *vgpu = gpu;
    const CUmemAllocationProp properties = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = vgpu->gpu->ordinal},
    };
    CUmemGenericAllocationHandle made;
    CUresult result;
    uint64_t deadline_ns = 0;
    int rc = holdings_take(&vgpu->holdings, bytes);
    if (rc)
        return rc;
    do
        result = REAL(cuMemCreate)(&made, bytes, &properties, 0);
    while (result == CUDA_ERROR_OUT_OF_MEMORY && holdings_await_return(&vgpu->holdings, &deadline_ns));
    rc = fail_driver(result, "cuMemCreate");
    if (rc)
        holdings_give(&vgpu->holdings, bytes);
    else
        *handle = made;
    return rc;
}

static void memory_release(void *gpu, uint64_t handle, uint64_t bytes)
{
    struct vgpu *vgpu = gpu;
    if (REAL(cuMemRelease)(handle) == CUDA_SUCCESS)
        holdings_give(&vgpu->holdings, bytes);
}

static int map(void *gpu, uint64_t address, uint64_t bytes, uint64_t handle)
{
    (void)gpu;
    return fail_driver(REAL(cuMemMap)(address, bytes, 0, handle, 0), "cuMemMap");
}

static int map_open(void *gpu, uint64_t address, uint64_t bytes)
{
    struct vgpu *vgpu = gpu;
    const CUmemAccessDesc access = {
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = vgpu->gpu->ordinal},
        .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    return fail_driver(REAL(cuMemSetAccess)(address, bytes, &access, 1), "cuMemSetAccess");
}

static int unmap(void *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return fail_driver(REAL(cuMemUnmap)(address, bytes), "cuMemUnmap");
}

static void *mark_put(void *gpu, void *stream)
{
    struct vgpu *vgpu = gpu;
    return streams_mark(&vgpu->streams, stream == HEAP_ANY_STREAM ? NULL : stream);
}

static bool mark_done(void *gpu, void *mark)
{
    struct vgpu *vgpu = gpu;
    return streams_mark_done(&vgpu->streams, mark);
}

static void mark_drop(void *gpu, void *mark)
{
    struct vgpu *vgpu = gpu;
    streams_mark_drop(&vgpu->streams, mark);
}

static bool is_idle(void *gpu)
{
    struct vgpu *vgpu = gpu;
    return streams_are_quiet(&vgpu->streams);
}

static const struct heap_gpu heap_ops = {
    .range_reserve = range_reserve,
    .range_release = range_release,
    .memory_fits = memory_fits,
    .memory_create = memory_create,
    .memory_release = memory_release,
    .map = map,
    .map_open = map_open,
    .unmap = unmap,
    .mark_put = mark_put,
    .mark_done = mark_done,
    .mark_drop = mark_drop,
    .is_idle = is_idle,
};

int memory_init(struct vgpu *vgpu)
{
    const struct heap_config config = {.ops = &heap_ops, .gpu = vgpu, .capacity_bytes = capacity_of(vgpu)};
    error_of_thread.text[0] = '\0';
    int rc = heap_create(&config, &vgpu->heap);
    if (rc && !error_of_thread.text[0])
        fail(rc, "no memory for the books of a heap");
    return rc;
}

static int refuse(struct vgpu *vgpu, uint64_t bytes)
{
    struct holdings_view view = holdings_look(&vgpu->holdings);
    holdings_count_refusal(&vgpu->holdings, bytes);
    return fail(-ENOMEM, "%llu bytes do not fit: %llu of %llu MiB are free", (unsigned long long)bytes,
                (unsigned long long)(view.free_bytes >> 20), (unsigned long long)(view.total_bytes >> 20));
}

// In a call.
static int allocate_in(struct vgpu *vgpu, size_t bytes, size_t alignment, void *stream, void **pointer)
{
    uint64_t address;
    if (!pointer)
        return fail_no_result();
    int rc = heap_alloc(vgpu->heap, bytes, alignment, stream, &address);
    if (rc == 0)
        *pointer = (void *)(uintptr_t)address;
    else if (rc == -ENOMEM)
        refuse(vgpu, bytes);
    else if (rc == -EINVAL)
        fail(rc, "%zu bytes aligned to %zu: allowed is 1 byte or more, and a power of two up to 2 MiB", bytes, alignment);
    return rc;
}

static int allocate(struct vgpu *vgpu, size_t bytes, size_t alignment, void **pointer)
{
    int rc = instance_enter(vgpu);
    if (rc)
        return rc;
    rc = allocate_in(vgpu, bytes, alignment, HEAP_ANY_STREAM, pointer);
    instance_leave(vgpu);
    return rc;
}

VGPU_API int vgpu_malloc_aligned(struct vgpu *vgpu, size_t bytes, size_t alignment, void **pointer)
{
    return allocate(vgpu, bytes, alignment, pointer);
}

VGPU_API int vgpu_malloc(struct vgpu *vgpu, size_t bytes, void **pointer)
{
    return allocate(vgpu, bytes, 0, pointer);
}

VGPU_API int vgpu_malloc_async(struct vgpu *vgpu, size_t bytes, vgpu_stream stream, void **pointer)
{
    int rc = instance_enter(vgpu);
    if (rc)
        return rc;
    rc = instance_stream(vgpu, &stream);
    if (rc == 0)
        rc = allocate_in(vgpu, bytes, 0, stream, pointer);
    instance_leave(vgpu);
    return rc;
}

// In a call.
static int release_in(struct vgpu *vgpu, void *pointer, void *stream)
{
    int rc = pointer ? heap_free(vgpu->heap, (uintptr_t)pointer, stream) : 0;
    if (rc == -ENOENT)
        fail(rc, "%p is not memory of this virtual GPU", pointer);
    else if (rc == -EFAULT)
        fail(rc, "%p is inside an allocation, not its beginning", pointer);
    else if (rc == -EALREADY)
        fail(rc, "nothing is allocated at %p: freed already, or never allocated", pointer);
    return rc;
}

VGPU_API int vgpu_free(struct vgpu *vgpu, void *pointer)
{
    int rc = instance_enter(vgpu);
    if (rc)
        return rc;
    rc = release_in(vgpu, pointer, HEAP_ANY_STREAM);
    instance_leave(vgpu);
    return rc;
}

VGPU_API int vgpu_free_async(struct vgpu *vgpu, void *pointer, vgpu_stream stream)
{
    int rc = instance_enter(vgpu);
    if (rc)
        return rc;
    rc = instance_stream(vgpu, &stream);
    if (rc == 0)
        rc = release_in(vgpu, pointer, stream);
    instance_leave(vgpu);
    return rc;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

VGPU_API int vgpu_mem_info(struct vgpu *vgpu, size_t *free_bytes, size_t *total_bytes)
{
    CALL call = call_begin_current(vgpu);
    size_t physical, physical_total;
    if (call.rc)
        return call.rc;
    if (!free_bytes || !total_bytes)
        return fail_no_result();
    int rc = fail_driver(REAL(cuMemGetInfo_v2)(&physical, &physical_total), "cuMemGetInfo");
    if (rc)
        return rc;
    struct holdings_view view = holdings_look(&vgpu->holdings);
    struct heap_stats heap = heap_look(vgpu->heap);
    // What the heap has but nobody uses serves the next allocation, or goes back before one is refused.
    *free_bytes = least(view.free_bytes, physical) + heap.physical_bytes - heap.live_bytes;
    *total_bytes = view.total_bytes;
    return 0;
}

// Follows work that was given to a stream, or refused.
static int finish(struct vgpu *vgpu, int rc, CUstream stream, bool wait)
{
    streams_touch(&vgpu->streams);
    return rc || !wait ? rc : fail_driver(REAL(cuStreamSynchronize)(stream), "cuStreamSynchronize");
}

static int copy(struct vgpu *vgpu, void *to, const void *from, size_t bytes, vgpu_stream stream, bool wait)
{
    CALL call = call_begin_current(vgpu);
    int rc = call.rc ? call.rc : instance_stream(vgpu, &stream);
    if (rc == 0 && !from)
        rc = fail(-EINVAL, "the source of the copy is NULL");
    if (rc || bytes == 0)
        return rc;
    rc = fail_driver(REAL(cuMemcpyAsync)((uintptr_t)to, (uintptr_t)from, bytes, stream), "cuMemcpyAsync");
    return finish(vgpu, rc, stream, wait);
}

static int fill(struct vgpu *vgpu, void *to, int value, size_t bytes, vgpu_stream stream, bool wait)
{
    CALL call = call_begin_current(vgpu);
    int rc = call.rc ? call.rc : instance_stream(vgpu, &stream);
    if (rc || bytes == 0)
        return rc;
    rc = fail_driver(REAL(cuMemsetD8Async)((uintptr_t)to, (unsigned char)value, bytes, stream), "cuMemsetD8Async");
    return finish(vgpu, rc, stream, wait);
}

VGPU_API int vgpu_memcpy(struct vgpu *vgpu, void *to, const void *from, size_t bytes)
{
    return copy(vgpu, to, from, bytes, NULL, true);
}

VGPU_API int vgpu_memcpy_async(struct vgpu *vgpu, void *to, const void *from, size_t bytes, vgpu_stream stream)
{
    return copy(vgpu, to, from, bytes, stream, false);
}

VGPU_API int vgpu_memset(struct vgpu *vgpu, void *to, int value, size_t bytes)
{
    return fill(vgpu, to, value, bytes, NULL, true);
}

VGPU_API int vgpu_memset_async(struct vgpu *vgpu, void *to, int value, size_t bytes, vgpu_stream stream)
{
    return fill(vgpu, to, value, bytes, stream, false);
}
