// SPDX-License-Identifier: AGPL-3.0-or-later
// For PyTorch's CUDAPluggableAllocator: memory from the virtual GPU whose own stream is current, else from the first one that was named.
// bindings/python/torch_two_instances.py shows its use. What does not fit is an exception: PyTorch makes a tensor of a null pointer.
#include <atomic>
#include <cstdio>
#include <dlfcn.h>
#include <stdexcept>
#include <sys/types.h>
#include <vgpu.h>

static std::atomic<vgpu *> known[16];

// Names a virtual GPU; before the first allocation on its stream. Returns -1 if there are too many.
extern "C" int torch_allocator_add(vgpu *gpu)
{
    for (auto &place : known) {
        vgpu *none = nullptr;
        if (place.compare_exchange_strong(none, gpu))
            return 0;
    }
    return -1;
}

static vgpu *owner(vgpu_stream stream)
{
    for (auto &place : known) {
        vgpu *gpu = place;
        if (!gpu || vgpu_own_stream(gpu) == stream)
            return gpu;
    }
    return nullptr;
}

extern "C" void *torch_allocator_malloc(ssize_t bytes, int, vgpu_stream stream)
{
    vgpu *gpu = owner(stream);
    void *pointer = nullptr;
    int rc = gpu ? vgpu_malloc_async(gpu, size_t(bytes), stream, &pointer) : vgpu_malloc(known[0], size_t(bytes), &pointer);
    if (rc)
        throw std::runtime_error(vgpu_detail());
    return pointer;
}

// Waits for a stream that is no virtual GPU's: vgpu_free knows nothing of its work.
static void wait_for(vgpu_stream stream)
{
    static const auto synchronize =
        reinterpret_cast<int (*)(vgpu_stream)>(dlsym(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD), "cuStreamSynchronize"));
    if (synchronize)
        synchronize(stream);
}

// The stream is the one that the memory was allocated for.
extern "C" void torch_allocator_free(void *pointer, ssize_t, int, vgpu_stream stream)
{
    vgpu *gpu = owner(stream);
    if (!gpu)
        wait_for(stream);
    int rc = gpu ? vgpu_free_async(gpu, pointer, stream) : vgpu_free(known[0], pointer);
    if (rc)
        std::fprintf(stderr, "torch_allocator: %s\n", vgpu_detail());
}
