// SPDX-License-Identifier: AGPL-3.0-or-later
// A kernel of one's own on a virtual GPU: once by vgpu_launch, and once by the CUDA runtime (as <<<>>> does it) in a turn.
//
//     nvcc -cudart shared own_kernel.cu $(pkg-config --cflags --libs vgpu)
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vgpu.h>

__global__ void scale(float *values, float factor, unsigned count)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        values[i] *= factor;
}

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, vgpu_strerror(rc), vgpu_detail());
    exit(1);
}

int main()
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *gpu;
    void *memory;
    float values[256], factor = 3;
    unsigned count = 256;

    config.memory_bytes = 64u << 20;
    check(vgpu_create(&config, &gpu), "vgpu_create");
    check(vgpu_malloc(gpu, sizeof values, &memory), "vgpu_malloc");
    for (float &value : values)
        value = 2;
    check(vgpu_memcpy(gpu, memory, values, sizeof values), "vgpu_memcpy");

    void *args[] = {&memory, &factor, &count};
    struct vgpu_launch_config launch = VGPU_LAUNCH_INIT;
    launch.host_function = (const void *)scale;
    launch.block[0] = 256;
    launch.args = args;
    check(vgpu_launch(gpu, &launch), "vgpu_launch");

    factor = 7;
    check(vgpu_enter(gpu), "vgpu_enter");
    cudaLaunchKernel((const void *)scale, dim3(1), dim3(256), args, 0, vgpu_own_stream(gpu));
    check(vgpu_leave(gpu), "vgpu_leave");

    check(vgpu_memcpy(gpu, values, memory, sizeof values), "vgpu_memcpy");
    printf("%g\n", values[255]);
    check(vgpu_destroy(gpu), "vgpu_destroy");
    return 0;
}
