// SPDX-License-Identifier: AGPL-3.0-or-later
// runtime_unseen LIBRARY linear|arrays MEGABYTES | launches MODULE | priority NUMBER: a runtime whose own dlsym is bound past every preloaded
// library, opened with RTLD_DEEPBIND, as in door_deepbind.
//
//     linear      allocates so many MiB twice, frees the first, allocates it again: prints what each call says, for plain, managed and
//                 stream-ordered memory
//     arrays      makes two arrays of so many MiB, frees the first, makes it again: prints what each call says, for a plain array and one
//                 with three dimensions
//     launches    ten launches and ten of a captured graph, with the result checked; prints "launched" and stays
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

static cudaError_t allocate(int kind, void **memory, size_t bytes)
{
    return kind == 0   ? CALL(cudaMalloc)(memory, bytes)
           : kind == 1 ? CALL(cudaMallocManaged)(memory, bytes, cudaMemAttachGlobal)
                       : CALL(cudaMallocAsync)(memory, bytes, NULL);
}

static void linear(size_t megabytes)
{
    for (int kind = 0; kind < 3; kind++) {
        void *first, *second;
        int a = allocate(kind, &first, megabytes << 20), b = allocate(kind, &second, megabytes << 20);
        int c = a ? -1 : (int)CALL(cudaFree)(first);
        int d = allocate(kind, &first, megabytes << 20);
        printf("%d %d %d %d\n", a, b, c, d);
        if (!d)
            OK(cudaFree, first);
    }
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
    const dim3 grid = {4, 1, 1}, block = {128, 1, 1};
    OK(cudaMalloc, (void **)&words, sizeof result);
    OK(cudaMemset, words, 0, sizeof result);
    OK(cudaLibraryLoadFromFile, &loaded, module, NULL, NULL, 0, NULL, NULL, 0);
    OK(cudaLibraryGetKernel, &add, loaded, "add_u32");
    OK(cudaStreamCreate, &stream);
    for (int round = 0; round < ROUNDS; round++)
        OK(cudaLaunchKernel, (const void *)add, grid, block, params, 0, stream);
    OK(cudaStreamBeginCapture, stream, cudaStreamCaptureModeGlobal);
    OK(cudaLaunchKernel, (const void *)add, grid, block, params, 0, stream);
    usleep(300000); // others want the GPU, so there are drains meanwhile
    OK(cudaLaunchKernel, (const void *)add, grid, block, params, 0, stream);
    OK(cudaStreamEndCapture, stream, &graph);
    OK(cudaGraphInstantiate, &executable, graph, 0);
    for (int round = 0; round < ROUNDS; round++)
        OK(cudaGraphLaunch, executable, stream);
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
        puts("usage: runtime_unseen LIBRARY linear|arrays MEGABYTES | launches MODULE | priority NUMBER");
        return 1;
    }
    if (strcmp(argv[2], "linear") == 0)
        linear(strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "arrays") == 0)
        arrays(strtoull(argv[3], NULL, 10));
    else if (strcmp(argv[2], "priority") == 0)
        priority(atoi(argv[3]));
    else
        launches(argv[3]);
    return 0;
}
