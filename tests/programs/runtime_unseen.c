// SPDX-License-Identifier: AGPL-3.0-or-later
// runtime_unseen LIBRARY linear|arrays|reset MEGABYTES | launches MODULE | priority NUMBER: a runtime whose own dlsym is bound past every preloaded
// library, opened with RTLD_DEEPBIND, as in door_deepbind.
//
//     linear      allocates so many MiB twice, frees the first, allocates it again: prints what each call says, for plain, managed,
//                 pitched, three-dimensional and stream-ordered memory, of a pool, and of the thread's own stream
//     arrays      makes two arrays of so many MiB, frees the first, makes it again: prints what each call says, for a plain array, one
//                 with three dimensions and a mipmapped one
//     reset       allocates so many MiB, resets the device, allocates them again: prints what each call says, and the MiB that the
//                 device has in all
//     launches    ten launches, by every function in turn, and ten of a captured graph, with the result checked; prints "launched" and
//                 stays
//     priority    makes a stream of that priority, not as the first call: prints what it got
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 10
#define WORDS 4096u

static void *library;

static void *function(const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        printf("no %s\n", name);
        exit(1);
    }
    return found;
}

#define CALL(name) ((__typeof__(name) *)function(#name))
#define OK(name, ...)                                                                                                          \
    do {                                                                                                                       \
        cudaError_t error = CALL(name)(__VA_ARGS__);                                                                           \
        if (error != cudaSuccess) {                                                                                            \
            printf("%s: %d\n", #name, (int)error);                                                                             \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)

// The per-thread-default-stream forms, which the header knows under the plain names only.
__typeof__(cudaMallocAsync) cudaMallocAsync_ptsz;
__typeof__(cudaMallocFromPoolAsync) cudaMallocFromPoolAsync_ptsz;
__typeof__(cudaFreeAsync) cudaFreeAsync_ptsz;
__typeof__(cudaLaunchKernel) cudaLaunchKernel_ptsz;
__typeof__(cudaLaunchKernelExC) cudaLaunchKernelExC_ptsz;
__typeof__(cudaLaunchCooperativeKernel) cudaLaunchCooperativeKernel_ptsz;
__typeof__(cudaGraphLaunch) cudaGraphLaunch_ptsz;

static cudaMemPool_t pool(void)
{
    cudaMemPool_t standard;
    OK(cudaDeviceGetDefaultMemPool, &standard, 0);
    return standard;
}

static cudaError_t allocate_3d(void **memory, size_t bytes)
{
    struct cudaPitchedPtr pitched = {0};
    cudaError_t result = CALL(cudaMalloc3D)(&pitched, (struct cudaExtent){4096, 256, bytes >> 20});
    *memory = pitched.ptr;
    return result;
}

static cudaError_t allocate(const char *kind, void **memory, size_t bytes)
{
    size_t pitch;
    switch (*kind) {
    case 'l':
        return CALL(cudaMalloc)(memory, bytes);
    case 'm':
        return CALL(cudaMallocManaged)(memory, bytes, cudaMemAttachGlobal);
    case '2':
        return CALL(cudaMallocPitch)(memory, &pitch, 4096, bytes / 4096);
    case '3':
        return allocate_3d(memory, bytes);
    case 'a':
        return CALL(cudaMallocAsync)(memory, bytes, NULL);
    case 'p':
        return CALL(cudaMallocFromPoolAsync)(memory, bytes, pool(), NULL);
    case 'A':
        return CALL(cudaMallocAsync_ptsz)(memory, bytes, NULL);
    default:
        return CALL(cudaMallocFromPoolAsync_ptsz)(memory, bytes, pool(), NULL);
    }
}

// In the order of the stream where it was allocated so.
static cudaError_t release(const char *kind, void *memory)
{
    return strchr("ap", *kind)   ? CALL(cudaFreeAsync)(memory, NULL)
           : strchr("AP", *kind) ? CALL(cudaFreeAsync_ptsz)(memory, NULL)
                                 : CALL(cudaFree)(memory);
}

static void linear(size_t megabytes)
{
    for (const char *kind = "lm23apAP"; *kind; kind++) {
        void *first, *second;
        int a = allocate(kind, &first, megabytes << 20), b = allocate(kind, &second, megabytes << 20);
        int c = a ? -1 : (int)release(kind, first);
        int d = allocate(kind, &first, megabytes << 20);
        printf("%d %d %d %d\n", a, b, c, d);
        if (!d)
            OK(cudaFree, first);
    }
}

static void reset(size_t megabytes)
{
    void *memory;
    struct cudaDeviceProp properties;
    int a = CALL(cudaMalloc)(&memory, megabytes << 20), b = CALL(cudaDeviceReset)();
    int c = CALL(cudaMalloc)(&memory, megabytes << 20);
    OK(cudaGetDeviceProperties, &properties, 0);
    printf("%d %d %d %zu\n", a, b, c, properties.totalGlobalMem >> 20);
}

static void arrays(size_t megabytes)
{
    const struct cudaChannelFormatDesc desc = {32, 0, 0, 0, cudaChannelFormatKindFloat};
    cudaArray_t first, second;
    // 4096 x 64 elements of 4 bytes are 1 MiB, and no extent is more than a GPU has.
    int a = CALL(cudaMallocArray)(&first, &desc, 4096, 64 * megabytes, 0);
    int b = CALL(cudaMallocArray)(&second, &desc, 4096, 64 * megabytes, 0);
    int c = a ? -1 : (int)CALL(cudaFreeArray)(first);
    int d = CALL(cudaMallocArray)(&first, &desc, 4096, 64 * megabytes, 0);
    printf("%d %d %d %d\n", a, b, c, d);
    if (!d)
        OK(cudaFreeArray, first);
    const struct cudaExtent extent = {1024, 256, megabytes};
    a = CALL(cudaMalloc3DArray)(&first, &desc, extent, 0);
    b = CALL(cudaMalloc3DArray)(&second, &desc, extent, 0);
    c = a ? -1 : (int)CALL(cudaFreeArray)(first);
    d = CALL(cudaMalloc3DArray)(&first, &desc, extent, 0);
    printf("%d %d %d %d\n", a, b, c, d);
    if (!d)
        OK(cudaFreeArray, first);
    cudaMipmappedArray_t one, other;
    a = CALL(cudaMallocMipmappedArray)(&one, &desc, extent, 1, 0);
    b = CALL(cudaMallocMipmappedArray)(&other, &desc, extent, 1, 0);
    c = a ? -1 : (int)CALL(cudaFreeMipmappedArray)(one);
    d = CALL(cudaMallocMipmappedArray)(&one, &desc, extent, 1, 0);
    printf("%d %d %d %d\n", a, b, c, d);
}

// One launch, each time by another function.
static void launch(int round, cudaKernel_t kernel, void **params, cudaStream_t stream)
{
    const dim3 grid = {4, 1, 1}, block = {128, 1, 1};
    const cudaLaunchConfig_t config = {.gridDim = grid, .blockDim = block, .stream = stream};
    const void *name = (const void *)kernel;
    switch (round % 6) {
    case 0:
        OK(cudaLaunchKernel, name, grid, block, params, 0, stream);
        break;
    case 1:
        OK(cudaLaunchKernel_ptsz, name, grid, block, params, 0, stream);
        break;
    case 2:
        OK(cudaLaunchKernelExC, &config, name, params);
        break;
    case 3:
        OK(cudaLaunchKernelExC_ptsz, &config, name, params);
        break;
    case 4:
        OK(cudaLaunchCooperativeKernel, name, grid, block, params, 0, stream);
        break;
    default:
        OK(cudaLaunchCooperativeKernel_ptsz, name, grid, block, params, 0, stream);
    }
}

static void launches(const char *module)
{
    static uint32_t result[WORDS];
    cudaLibrary_t loaded;
    cudaKernel_t add;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    uint32_t *words, one = 1;
    uint64_t count = WORDS;
    void *params[] = {&words, &one, &count};
    OK(cudaMalloc, (void **)&words, sizeof result);
    OK(cudaMemset, words, 0, sizeof result);
    OK(cudaLibraryLoadFromFile, &loaded, module, NULL, NULL, 0, NULL, NULL, 0);
    OK(cudaLibraryGetKernel, &add, loaded, "add_u32");
    OK(cudaStreamCreate, &stream);
    for (int round = 0; round < ROUNDS; round++)
        launch(round, add, params, stream);
    OK(cudaStreamBeginCapture, stream, cudaStreamCaptureModeGlobal);
    launch(0, add, params, stream);
    usleep(300000); // others want the GPU, so there are drains meanwhile
    launch(0, add, params, stream);
    OK(cudaStreamEndCapture, stream, &graph);
    OK(cudaGraphInstantiate, &executable, graph, 0);
    for (int round = 0; round < ROUNDS; round += 2) {
        OK(cudaGraphLaunch, executable, stream);
        OK(cudaGraphLaunch_ptsz, executable, stream);
    }
    OK(cudaStreamSynchronize, stream);
    OK(cudaStreamDestroy, stream);
    OK(cudaMemcpy, result, words, sizeof result, cudaMemcpyDeviceToHost);
    for (unsigned i = 0; i < WORDS; i++) {
        if (result[i] != 3 * ROUNDS) {
            printf("word %u is %u\n", i, result[i]);
            exit(1);
        }
    }
    puts("launched");
    fflush(stdout);
    for (;;)
        pause();
}

static void priority(int asked)
{
    cudaStream_t stream;
    int got;
    OK(cudaStreamCreate, &stream);
    OK(cudaStreamCreateWithPriority, &stream, cudaStreamNonBlocking, asked);
    OK(cudaStreamGetPriority, stream, &got);
    printf("%d\n", got);
}

int main(int argc, char **argv)
{
    library = argc > 3 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : NULL;
    if (!library) {
        puts("usage: runtime_unseen LIBRARY linear|arrays|reset MEGABYTES | launches MODULE | priority NUMBER");
        return 1;
    }
    if (strcmp(argv[2], "linear") == 0)
        linear(strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "arrays") == 0)
        arrays(strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "reset") == 0)
        reset(strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "priority") == 0)
        priority(atoi(argv[3]));
    else
        launches(argv[3]);
    return 0;
}
