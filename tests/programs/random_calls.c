// SPDX-License-Identifier: AGPL-3.0-or-later
// random_calls [--calls N] [--seed S] [--threads T] [--without FAMILY]... [--go FILE] [--hold]: N calls of the driver over all families of memory, by T threads that take,
// give back, pass on to each other and ask for too much, in an order that the seed decides. A call must succeed, or be refused with
// CUDA_ERROR_OUT_OF_MEMORY, or, where it is wrong, be called so. In the end everything is given back and the last context destroyed;
// prints "done CALLS REFUSED", and with --hold stays until killed, so that others can look at what it has left. With --go it prints "ready"
// when it has its context, and begins when the file exists.
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

#define SLOTS 24
#define EXCHANGED 32

struct thread;

struct object {
    const struct family *family; // NULL: nothing
    CUdeviceptr address;
    size_t bytes;
    void *handle;
    CUmemGenericAllocationHandle memory;
};

// `get` makes one of about `bytes`; `use` and `poke` may be NULL.
struct family {
    const char *name;
    CUresult (*get)(struct thread *thread, struct object *object, size_t bytes);
    void (*use)(struct thread *thread, struct object *object);
    void (*put)(struct thread *thread, struct object *object);
};

struct thread {
    pthread_t id;
    uint64_t random;
    unsigned long calls, refused;
    CUstream stream;
    struct object slots[SLOTS];
};

static unsigned long calls_per_thread;
static uint64_t seed = 1;
static CUcontext primary;
static CUmemoryPool own_pool;
static size_t told;
static pthread_mutex_t exchange = PTHREAD_MUTEX_INITIALIZER, extra_context = PTHREAD_MUTEX_INITIALIZER;
static struct object exchanged[EXCHANGED];

static uint64_t next(struct thread *thread) // xorshift64*
{
    thread->random ^= thread->random >> 12;
    thread->random ^= thread->random << 25;
    thread->random ^= thread->random >> 27;
    return thread->random * 0x2545f4914f6cdd1dull;
}

static size_t below(struct thread *thread, size_t limit)
{
    return (size_t)(next(thread) >> 16) % limit;
}

// A call of the driver, counted. MUST: it has to succeed. MAY: it may be refused.
#define CALL(call) (thread->calls++, (call))
#define MUST(call) expect(CALL(call), CUDA_SUCCESS, #call)
#define WRONG(call, expected) expect(CALL(call), (expected), #call)

static CUresult may(struct thread *thread, CUresult rc, const char *what)
{
    if (rc == CUDA_ERROR_OUT_OF_MEMORY)
        thread->refused++;
    else
        expect(rc, CUDA_SUCCESS, what);
    return rc;
}

#define MAY(call) may(thread, CALL(call), #call)

static CUresult get_linear(struct thread *thread, struct object *object, size_t bytes)
{
    return MAY(cuMemAlloc(&object->address, bytes));
}

static CUresult get_pitched(struct thread *thread, struct object *object, size_t bytes)
{
    size_t pitch;
    return MAY(cuMemAllocPitch(&object->address, &pitch, 1000, bytes / 1000 + 1, 4));
}

static CUresult get_managed(struct thread *thread, struct object *object, size_t bytes)
{
    return MAY(cuMemAllocManaged(&object->address, bytes, CU_MEM_ATTACH_GLOBAL));
}

static CUresult get_async(struct thread *thread, struct object *object, size_t bytes)
{
    return MAY(cuMemAllocAsync(&object->address, bytes, thread->stream));
}

static CUresult get_from_pool(struct thread *thread, struct object *object, size_t bytes)
{
    return MAY(cuMemAllocFromPoolAsync(&object->address, bytes, own_pool, thread->stream));
}

static void put_address(struct thread *thread, struct object *object)
{
    MUST(cuMemFree(object->address));
}

static void put_async(struct thread *thread, struct object *object)
{
    MUST(cuMemFreeAsync(object->address, thread->stream));
    if (below(thread, 4) == 0)
        MUST(cuStreamSynchronize(thread->stream));
}

static const CUmemAllocationProp on_device = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                              .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};

static CUresult create(struct thread *thread, struct object *object, size_t bytes)
{
    object->bytes = (bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    return MAY(cuMemCreate(&object->memory, object->bytes, &on_device, 0));
}

static CUresult get_mapped(struct thread *thread, struct object *object, size_t bytes)
{
    CUresult rc = create(thread, object, bytes);
    if (rc != CUDA_SUCCESS)
        return rc;
    MUST(cuMemAddressReserve(&object->address, object->bytes, 0, 0, 0));
    MUST(cuMemMap(object->address, object->bytes, 0, object->memory, 0));
    MUST(cuMemRelease(object->memory));
    return CUDA_SUCCESS;
}

static void use_mapped(struct thread *thread, struct object *object)
{
    CUmemGenericAllocationHandle again;
    MUST(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)object->address));
    MUST(cuMemRelease(again));
}

static void put_mapped(struct thread *thread, struct object *object)
{
    MUST(cuMemUnmap(object->address, object->bytes));
    MUST(cuMemAddressFree(object->address, object->bytes));
}

static void put_created(struct thread *thread, struct object *object)
{
    MUST(cuMemRelease(object->memory));
}

static CUDA_ARRAY3D_DESCRIPTOR image(size_t bytes, unsigned flags)
{
    size_t height = bytes / 4096 + 1;
    bool deep = height > 16384;
    return (CUDA_ARRAY3D_DESCRIPTOR){.Width = bytes < 65536 ? 64 : 1024,
                                     .Height = deep ? 1024 : height,
                                     .Depth = deep ? height / 1024 : 0,
                                     .Format = CU_AD_FORMAT_UNSIGNED_INT32,
                                     .NumChannels = 1,
                                     .Flags = flags};
}

static CUresult get_array(struct thread *thread, struct object *object, size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = image(bytes, 0);
    return MAY(cuArray3DCreate((CUarray *)&object->handle, &descriptor));
}

static void put_array(struct thread *thread, struct object *object)
{
    MUST(cuArrayDestroy(object->handle));
}

static CUresult get_mipmapped(struct thread *thread, struct object *object, size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = image(bytes, 0);
    return MAY(cuMipmappedArrayCreate((CUmipmappedArray *)&object->handle, &descriptor, 4));
}

static void use_mipmapped(struct thread *thread, struct object *object)
{
    CUarray level;
    MUST(cuMipmappedArrayGetLevel(&level, object->handle, 0));
}

static void put_mipmapped(struct thread *thread, struct object *object)
{
    MUST(cuMipmappedArrayDestroy(object->handle));
}

// Memory that only an array keeps.
static CUresult get_deferred(struct thread *thread, struct object *object, size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = image(bytes, CUDA_ARRAY3D_DEFERRED_MAPPING);
    CUDA_ARRAY_MEMORY_REQUIREMENTS required;
    MUST(cuArray3DCreate((CUarray *)&object->handle, &descriptor));
    MUST(cuArrayGetMemoryRequirements(&required, object->handle, 0));
    object->bytes = (required.size + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    CUmemAllocationProp prop = on_device;
    prop.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
    CUresult rc = MAY(cuMemCreate(&object->memory, object->bytes, &prop, 0));
    if (rc != CUDA_SUCCESS) {
        MUST(cuArrayDestroy(object->handle));
        return rc;
    }
    CUarrayMapInfo info = {.resourceType = CU_RESOURCE_TYPE_ARRAY,
                           .resource.array = object->handle,
                           .memOperationType = CU_MEM_OPERATION_TYPE_MAP,
                           .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
                           .memHandle.memHandle = object->memory,
                           .deviceBitMask = 1};
    MUST(cuMemMapArrayAsync(&info, 1, thread->stream));
    MUST(cuMemRelease(object->memory));
    return CUDA_SUCCESS;
}

static CUresult get_graph(struct thread *thread, struct object *object, size_t bytes)
{
    CUgraph graph;
    CUdeviceptr address;
    MUST(cuStreamBeginCapture(thread->stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    MUST(cuMemAllocAsync(&address, bytes, thread->stream));
    MUST(cuMemFreeAsync(address, thread->stream));
    MUST(cuStreamEndCapture(thread->stream, &graph));
    MUST(cuGraphInstantiateWithFlags((CUgraphExec *)&object->handle, graph, 0));
    MUST(cuGraphDestroy(graph));
    return CUDA_SUCCESS;
}

static void use_graph(struct thread *thread, struct object *object)
{
    MAY(cuGraphLaunch(object->handle, thread->stream));
}

static void put_graph(struct thread *thread, struct object *object)
{
    MUST(cuGraphExecDestroy(object->handle));
    if (below(thread, 4) == 0)
        MUST(cuDeviceGraphMemTrim(0));
}

static CUresult get_module(struct thread *thread, struct object *object, size_t bytes)
{
    char text[256];
    (void)bytes;
    snprintf(text, sizeof text, ".version 7.0\n.target sm_70\n.address_size 64\n\n.visible .global .align 8 .b8 v[%zu];\n",
             1000ul << 3 * below(thread, 4)); // few different ones, which the driver compiles once
    return MAY(cuModuleLoadData((CUmodule *)&object->handle, text));
}

static void use_module(struct thread *thread, struct object *object)
{
    CUdeviceptr address;
    MAY(cuModuleGetGlobal(&address, NULL, object->handle, "v"));
}

static void put_module(struct thread *thread, struct object *object)
{
    MUST(cuModuleUnload(object->handle));
}

static const struct family families[] = {
    {"linear", get_linear, NULL, put_address},
    {"pitched", get_pitched, NULL, put_address},
    {"managed", get_managed, NULL, put_address},
    {"async", get_async, NULL, put_async},
    {"async-freed-at-once", get_async, NULL, put_address},
    {"linear-freed-in-order", get_linear, NULL, put_async},
    {"pool", get_from_pool, NULL, put_async},
    {"mapped", get_mapped, use_mapped, put_mapped},
    {"created", create, NULL, put_created},
    {"array", get_array, NULL, put_array},
    {"mipmapped", get_mipmapped, use_mipmapped, put_mipmapped},
    {"deferred", get_deferred, NULL, put_array},
    {"graph", get_graph, use_graph, put_graph},
    {"module", get_module, use_module, put_module},
};

#define FAMILIES (sizeof families / sizeof families[0])

static bool left_out[FAMILIES];

static void leave_out(const char *name)
{
    bool known = false;
    for (size_t i = 0; i < FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0)
            left_out[i] = known = true;
    if (!known)
        fail("there is no family named %s", name);
}

// Mostly small, sometimes large, now and then more than there is.
static size_t some_bytes(struct thread *thread)
{
    switch (below(thread, 64)) {
    case 0:
        return told;
    case 1:
    case 2:
        return below(thread, told / 4) + 1;
    default:
        return below(thread, below(thread, 2) ? 256 << 10 : 24 * MIB) + 1;
    }
}

static void put(struct thread *thread, struct object *object)
{
    if (object->family)
        object->family->put(thread, object);
    object->family = NULL;
}

static void get(struct thread *thread, struct object *object)
{
    size_t choice = below(thread, FAMILIES);
    const struct family *family = &families[choice];
    if (!left_out[choice] && family->get(thread, object, some_bytes(thread)) == CUDA_SUCCESS)
        object->family = family;
}

static void pass_on(struct thread *thread, struct object *object)
{
    struct object *other = &exchanged[below(thread, EXCHANGED)], passed;
    pthread_mutex_lock(&exchange);
    passed = *other;
    *other = *object;
    *object = passed;
    pthread_mutex_unlock(&exchange);
}

// Wrong calls change nothing, sizes near 2^64 among them.
static void call_wrongly(struct thread *thread)
{
    CUdeviceptr address;
    CUarray array;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {.Width = 0, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    WRONG(cuMemAlloc(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    WRONG(cuMemAlloc(&address, 0), CUDA_ERROR_INVALID_VALUE);
    WRONG(cuMemAlloc(&address, SIZE_MAX - below(thread, 4096)), CUDA_ERROR_OUT_OF_MEMORY);
    WRONG(cuMemAllocAsync(&address, SIZE_MAX - below(thread, 4096), thread->stream), CUDA_ERROR_OUT_OF_MEMORY);
    WRONG(cuMemFree(4096), CUDA_ERROR_INVALID_VALUE);
    WRONG(cuArray3DCreate(&array, &descriptor), CUDA_ERROR_INVALID_VALUE);
    WRONG(cuArray3DCreate(&array, NULL), CUDA_ERROR_INVALID_VALUE);
}

// A context of its own, which takes what was allocated in it along, and a limit raised in it.
static void visit_context(struct thread *thread)
{
    CUcontext context;
    CUdeviceptr address;
    CUarray array;
    size_t limit;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = image(below(thread, 4 * MIB) + 1, 0);
    if (pthread_mutex_trylock(&extra_context))
        return;
    CUresult rc = MAY(create_context(&context, 0));
    if (rc == CUDA_SUCCESS) {
        MAY(cuMemAlloc(&address, below(thread, 8 * MIB) + 1));
        MAY(cuArray3DCreate(&array, &descriptor));
        MUST(cuCtxGetLimit(&limit, CU_LIMIT_MALLOC_HEAP_SIZE));
        MAY(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, limit + below(thread, 64) * MIB));
        MUST(cuCtxDestroy(context));
        MUST(cuCtxSetCurrent(primary));
    }
    pthread_mutex_unlock(&extra_context);
}

static void look(struct thread *thread)
{
    size_t available, total;
    CUcontext context;
    MUST(cuMemGetInfo(&available, &total));
    if (total != told || available > total)
        fail("%zu of %zu bytes are free, where %zu were in all", available, total, told);
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    MUST(cuDevicePrimaryCtxRelease(0));
    MUST(cuMemPoolTrimTo(own_pool, below(thread, 64 * MIB)));
}

static void *run(void *argument)
{
    struct thread *thread = argument;
    MUST(cuCtxSetCurrent(primary));
    MUST(cuStreamCreate(&thread->stream, CU_STREAM_NON_BLOCKING));
    while (thread->calls < calls_per_thread) {
        struct object *object = &thread->slots[below(thread, SLOTS)];
        size_t choice = below(thread, 4096);
        if (choice == 0)
            visit_context(thread);
        else if (choice < 64)
            call_wrongly(thread);
        else if (choice < 192)
            look(thread);
        else if (choice < 640)
            pass_on(thread, object);
        else if (object->family && object->family->use && choice < 2048)
            object->family->use(thread, object);
        else if (object->family)
            put(thread, object);
        else
            get(thread, object);
    }
    for (int i = 0; i < SLOTS; i++)
        put(thread, &thread->slots[i]);
    MUST(cuStreamSynchronize(thread->stream));
    MUST(cuStreamDestroy(thread->stream));
    return NULL;
}

// Gives back what no thread has, and destroys the context.
static void finish(struct thread *thread)
{
    CUmemoryPool standard;
    OK(cuStreamCreate(&thread->stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < EXCHANGED; i++)
        put(thread, &exchanged[i]);
    OK(cuCtxSynchronize());
    OK(cuMemPoolDestroy(own_pool));
    OK(cuDeviceGetDefaultMemPool(&standard, 0));
    OK(cuMemPoolTrimTo(standard, 0));
    OK(cuDeviceGraphMemTrim(0));
    OK(cuDevicePrimaryCtxRelease(0));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"calls", required_argument, NULL, 'c'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"hold", no_argument, NULL, 'h'},
                                            {"go", required_argument, NULL, 'g'},
                                            {"without", required_argument, NULL, 'w'},
                                            {0}};
    const char *go = NULL;
    unsigned long calls = 10000, made = 0, refused = 0;
    int threads = 4, option;
    bool hold = false;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            calls = strtoul(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 't')
            threads = atoi(optarg);
        else if (option == 'h')
            hold = true;
        else if (option == 'w')
            leave_out(optarg);
        else if (option == 'g')
            go = optarg;
        else
            fail("usage: random_calls [--calls N] [--seed S] [--threads T] [--without FAMILY]... [--go FILE] [--hold]");
    }
    struct thread *all = calloc((size_t)threads, sizeof *all);
    if (threads < 1 || !all)
        fail("no threads");
    const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    primary = start();
    told = told_total();
    if (go) {
        puts("ready");
        fflush(stdout);
        while (access(go, F_OK))
            usleep(1000);
    }
    OK(cuMemPoolCreate(&own_pool, &props));
    calls_per_thread = calls / (unsigned long)threads;
    for (int i = 0; i < threads; i++) {
        all[i].random = (seed << 8 | (uint64_t)i) * 0x9e3779b97f4a7c15ull | 1;
        if (pthread_create(&all[i].id, NULL, run, &all[i]))
            fail("no thread");
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(all[i].id, NULL);
        made += all[i].calls;
        refused += all[i].refused;
    }
    finish(&all[0]);
    free(all);
    printf("done %lu %lu\n", made, refused);
    fflush(stdout);
    while (hold)
        pause();
    return 0;
}
