// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_truth HELPER MODULE: what this process is charged against what the driver's free memory loses, family by family, on a GPU that
// nobody else uses. HELPER is watch_free, which is run without the library and says what the driver has free; MODULE holds
// simgpu/device/memkernels.cu. Prints a line for each family:
//
//   FAMILY: charged BYTES lost BYTES
//
// and fails where they differ by more than a chunk for each kind of allocation that is live, or do not come back. A context is charged
// from its creation what it takes once it has run a kernel that uses the heap, so each one does.
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "large_code.h"

#define COUNT 8

static FILE *to_helper, *from_helper;
static CUstream stream;
static CUmemoryPool pool;
static bool wrong;

// The environment without what preloads the library, for the helper alone.
static void start_helper(char *path, char **environ)
{
    int down[2], up[2], count = 0;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    char *arguments[] = {path, "once", NULL}, **environment;
    for (char **entry = environ; *entry; entry++)
        count++;
    environment = calloc((size_t)count + 1, sizeof *environment);
    if (!environment || pipe(down) || pipe(up))
        fail("no helper");
    count = 0;
    for (char **entry = environ; *entry; entry++)
        if (strncmp(*entry, "LD_PRELOAD=", 11) != 0)
            environment[count++] = *entry;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, down[0], 0);
    posix_spawn_file_actions_adddup2(&actions, up[1], 1);
    posix_spawn_file_actions_addclose(&actions, down[1]);
    posix_spawn_file_actions_addclose(&actions, up[0]);
    if (posix_spawn(&pid, path, &actions, NULL, arguments, environment))
        fail("%s does not start", path);
    close(down[0]);
    close(up[1]);
    to_helper = fdopen(down[1], "w");
    from_helper = fdopen(up[0], "r");
}

static long long driver_free(void)
{
    long long bytes;
    fputs("?\n", to_helper);
    fflush(to_helper);
    if (fscanf(from_helper, " free %lld", &bytes) != 1)
        fail("the helper does not answer");
    return bytes;
}

// One family: `get` and `put` make and give back number i of COUNT.
struct family {
    const char *name;
    void (*get)(int i);
    void (*put)(int i);
    int chunks; // by how many 2 MiB the two figures may differ
};

static union {
    CUdeviceptr address;
    CUarray array;
    CUmipmappedArray mipmapped;
    CUgraphExec graph;
    CUmodule module;
    CUcontext context;
    CUmemGenericAllocationHandle memory;
} objects[COUNT];

static void get_small(int i)
{
    OK(cuMemAlloc(&objects[i].address, 100000));
}

static void get_medium(int i)
{
    OK(cuMemAlloc(&objects[i].address, 1500000));
}

static void get_large(int i)
{
    OK(cuMemAlloc(&objects[i].address, 37 * MIB + 12345));
}

static void get_pitched(int i)
{
    size_t pitch;
    OK(cuMemAllocPitch(&objects[i].address, &pitch, 5000, 3000, 4));
}

// Managed memory is on the GPU once it was used there.
static void get_managed(int i)
{
    OK(cuMemAllocManaged(&objects[i].address, 16 * MIB, CU_MEM_ATTACH_GLOBAL));
    OK(cuMemsetD8(objects[i].address, 1, 16 * MIB));
    OK(cuCtxSynchronize());
}

static void get_async(int i)
{
    OK(cuMemAllocAsync(&objects[i].address, 5 * MIB, stream));
    OK(cuStreamSynchronize(stream));
}

static void get_pool(int i)
{
    OK(cuMemAllocFromPoolAsync(&objects[i].address, 11 * MIB, pool, stream));
    OK(cuStreamSynchronize(stream));
}

static void put_linear(int i)
{
    OK(cuMemFree(objects[i].address));
}

static void put_async(int i)
{
    OK(cuMemFreeAsync(objects[i].address, stream));
    OK(cuStreamSynchronize(stream));
}

static void get_created(int i)
{
    const CUmemAllocationProp on_device = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                           .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    OK(cuMemCreate(&objects[i].memory, 6 * MIB, &on_device, 0));
}

static void put_created(int i)
{
    OK(cuMemRelease(objects[i].memory));
}

static void get_array_of(int i, size_t width, size_t height, size_t depth)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {
        .Width = width, .Height = height, .Depth = depth, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    OK(cuArray3DCreate(&objects[i].array, &descriptor));
}

static void get_small_array(int i)
{
    get_array_of(i, 50, 70, 0);
}

static void get_array(int i)
{
    get_array_of(i, 1000, 1000, 0);
}

static void get_array_3d(int i)
{
    get_array_of(i, 100, 90, 80);
}

static void put_array(int i)
{
    OK(cuArrayDestroy(objects[i].array));
}

static void get_mipmapped(int i)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {.Width = 1000, .Height = 1000, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    OK(cuMipmappedArrayCreate(&objects[i].mipmapped, &descriptor, 5));
}

static void put_mipmapped(int i)
{
    OK(cuMipmappedArrayDestroy(objects[i].mipmapped));
}

static void get_sparse(int i)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {
        .Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4, .Flags = CUDA_ARRAY3D_SPARSE};
    OK(cuArray3DCreate(&objects[i].array, &descriptor));
}

static void get_graph(int i)
{
    CUgraph graph;
    CUdeviceptr address;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemAllocAsync(&address, 20 * MIB, stream));
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiateWithFlags(&objects[i].graph, graph, 0));
    OK(cuGraphDestroy(graph));
    OK(cuGraphLaunch(objects[i].graph, stream));
    OK(cuStreamSynchronize(stream));
}

static void put_graph(int i)
{
    OK(cuGraphExecDestroy(objects[i].graph));
}

static void get_module(int i)
{
    CUdeviceptr address;
    OK(cuModuleLoadData(&objects[i].module, ".version 7.0\n.target sm_70\n.address_size 64\n\n"
                                            ".visible .global .align 8 .b8 big[10000000];\n"));
    OK(cuModuleGetGlobal(&address, NULL, objects[i].module, "big"));
}

static void put_module(int i)
{
    OK(cuModuleUnload(objects[i].module));
}

static const char *code_image;

static void get_code(int i)
{
    CUfunction function;
    OK(cuModuleLoadData(&objects[i].module, code_image));
    for (int k = 0; k < LARGE_CODE_KERNELS; k++)
        OK(cuModuleGetFunction(&function, objects[i].module, large_code_names[k]));
}

static void raise_limit(CUlimit limit, int i, size_t by)
{
    size_t value;
    (void)i;
    OK(cuCtxGetLimit(&value, limit));
    OK(cuCtxSetLimit(limit, value + by));
}

static void get_stack(int i)
{
    raise_limit(CU_LIMIT_STACK_SIZE, i, 256);
}

static void put_stack(int i)
{
    raise_limit(CU_LIMIT_STACK_SIZE, i, (size_t)-256);
}

static const char *module_path;

// Runs a kernel of the module in the current context, which then keeps what the kernel makes it take.
static void run_kernel(const char *name)
{
    CUmodule module;
    CUfunction function;
    CUdeviceptr sum;
    unsigned count = 100;
    void *params[] = {&sum, &count};
    OK(cuModuleLoad(&module, module_path));
    OK(cuModuleGetFunction(&function, module, name));
    OK(cuMemAlloc(&sum, 4));
    OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    OK(cuCtxSynchronize());
    OK(cuMemFree(sum));
    OK(cuModuleUnload(module));
}

// Contexts are only two, for their size.
static void get_context_with(int i, size_t heap, const char *kernel)
{
    CUcontext before;
    if (i > 1)
        return;
    OK(cuCtxGetCurrent(&before));
    OK(create_context(&objects[i].context, 0));
    raise_limit(CU_LIMIT_MALLOC_HEAP_SIZE, i, heap);
    run_kernel("heap_user");
    run_kernel(kernel);
    OK(cuCtxSetCurrent(before));
}

static void get_context(int i)
{
    get_context_with(i, 0, "heap_user");
}

static void get_heap(int i)
{
    get_context_with(i, 64 * MIB, "heap_user");
}

static void get_frames(int i)
{
    get_context_with(i, 0, "large_frame");
}

static void put_context(int i)
{
    if (i <= 1)
        OK(cuCtxDestroy(objects[i].context));
}

static const struct family families[] = {
    {"linear, small", get_small, put_linear, 1},
    {"linear, of one block", get_medium, put_linear, 1},
    {"linear, large", get_large, put_linear, 1},
    {"pitched", get_pitched, put_linear, 1},
    {"managed", get_managed, put_linear, 1},
    {"stream-ordered", get_async, put_async, 1},
    {"pool", get_pool, put_async, 1},
    {"created", get_created, put_created, 1},
    {"arrays, small", get_small_array, put_array, 1},
    {"arrays", get_array, put_array, 1},
    {"arrays, 3-D", get_array_3d, put_array, 1},
    {"mipmapped arrays", get_mipmapped, put_mipmapped, 1},
    {"sparse arrays", get_sparse, put_array, 1},
    {"graphs", get_graph, put_graph, 1},
    {"modules", get_module, put_module, 1},
    {"code", get_code, put_module, 1},
    {"stack", get_stack, put_stack, 1},
    {"contexts", get_context, put_context, 2},
    {"contexts with a larger heap", get_heap, put_context, 2},
    {"contexts with large frames", get_frames, put_context, 2},
};

// Gives back what pools keep, so that it does not blur what comes next.
static void trim(void)
{
    CUmemoryPool standard;
    OK(cuCtxSynchronize());
    OK(cuDeviceGetDefaultMemPool(&standard, 0));
    OK(cuMemPoolTrimTo(standard, 0));
    OK(cuMemPoolTrimTo(pool, 0));
    OK(cuDeviceGraphMemTrim(0));
}

static void compare(const char *name, const char *when, long long charged, long long lost, int chunks)
{
    long long off = charged - lost;
    bool fits = off <= (long long)(chunks * 2 * MIB) && off >= -(long long)(chunks * 2 * MIB);
    wrong |= !fits;
    printf("%s%s: charged %lld lost %lld%s\n", name, when, charged, lost, fits ? "" : "  WRONG");
}

static void look_at(const struct family *family)
{
    trim();
    // Once beforehand: what the driver keeps from its first use of a family is no part of it.
    family->get(0);
    family->put(0);
    trim();
    long long told = (long long)told_free(), truth = driver_free();
    for (int i = 0; i < COUNT; i++)
        family->get(i);
    compare(family->name, "", told - (long long)told_free(), truth - driver_free(), family->chunks);
    for (int i = COUNT - 1; i >= 0; i--)
        family->put(i);
    trim();
    compare(family->name, ", given back", told - (long long)told_free(), truth - driver_free(), family->chunks);
}

int main(int argc, char **argv, char **environ)
{
    const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    if (argc < 3)
        fail("usage: mem_truth HELPER MODULE");
    module_path = argv[2];
    code_image = large_code_image();
    if (!code_image)
        fail("no memory for an image");
    start_helper(argv[1], environ);
    (void)driver_free(); // it has its context now
    long long bare = driver_free();
    start();
    run_kernel("heap_user");
    compare("the first context", "", (long long)(told_total() - told_free()), bare - driver_free(), 1);
    // Charged to nobody: what the driver keeps for managed memory from its first use until the process ends.
    long long before = driver_free();
    get_managed(0);
    put_linear(0);
    bare -= before - driver_free();
    printf("the first use of managed memory, kept: lost %lld\n", before - driver_free());
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemPoolCreate(&pool, &props));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        look_at(&families[i]);
    // What the driver keeps from the first use of each family: a chunk for each.
    trim();
    compare("in the end", "", (long long)(told_total() - told_free()), bare - driver_free(),
            (int)(sizeof families / sizeof families[0]));
    return wrong;
}
