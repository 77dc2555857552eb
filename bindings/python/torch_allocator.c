// SPDX-License-Identifier: AGPL-3.0-or-later
// For PyTorch's CUDAPluggableAllocator: memory from the virtual GPU whose own stream is current, else from the first one that was named.
// bindings/python/torch_two_instances.py shows its use.
#include <stdatomic.h>
#include <stdio.h>
#include <sys/types.h>
#include <vgpu.h>

#define MOST 16

int torch_allocator_add(struct vgpu *vgpu);
void *torch_allocator_malloc(ssize_t bytes, int device, vgpu_stream stream);
void torch_allocator_free(void *pointer, ssize_t bytes, int device, vgpu_stream stream);

static struct vgpu *_Atomic known[MOST];

// Names a virtual GPU; before the first allocation on its stream.
int torch_allocator_add(struct vgpu *vgpu)
{
    for (int i = 0; i < MOST; i++) {
        struct vgpu *none = NULL;
        if (atomic_compare_exchange_strong(&known[i], &none, vgpu))
            return 0;
    }
    return -1;
}

static struct vgpu *owner(vgpu_stream stream)
{
    for (int i = 0; i < MOST && atomic_load(&known[i]); i++)
        if (vgpu_own_stream(known[i]) == stream)
            return known[i];
    return NULL;
}

void *torch_allocator_malloc(ssize_t bytes, int device, vgpu_stream stream)
{
    struct vgpu *vgpu = owner(stream);
    void *pointer = NULL;
    (void)device;
    int rc = vgpu ? vgpu_malloc_async(vgpu, (size_t)bytes, stream, &pointer) : vgpu_malloc(known[0], (size_t)bytes, &pointer);
    if (rc)
        fprintf(stderr, "torch_allocator: %s\n", vgpu_detail());
    return pointer;
}

// The stream is the one that the memory was allocated for.
void torch_allocator_free(void *pointer, ssize_t bytes, int device, vgpu_stream stream)
{
    struct vgpu *vgpu = owner(stream);
    (void)bytes, (void)device;
    int rc = vgpu ? vgpu_free_async(vgpu, pointer, stream) : vgpu_free(known[0], pointer);
    if (rc)
        fprintf(stderr, "torch_allocator: %s\n", vgpu_detail());
}
