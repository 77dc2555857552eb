// SPDX-License-Identifier: AGPL-3.0-or-later
// What one context takes: measured while programs outside the pool take and give memory, of which only the GPU's free memory tells.
#include "shim/calibrate.h"

#include "tests/unit/tap.h"

#define MIB (1ull << 20)
#define TOTAL (80ull << 30)
#define CONTEXT (512 * MIB)

// --- a driver that knows how much memory is free ----------------------------------------------------------------------------------

__thread unsigned driver_layer_calls;

// What neighbours hold at each look at the free memory; the last figure stays. Three looks belong to an attempt.
static const uint64_t *neighbours;
static size_t neighbour_count, looks;
static int contexts, made, primaries, pushed;
static int active; // whether the program has a primary context

static CUresult get_info(size_t *available, size_t *total)
{
    size_t look = looks++;
    uint64_t taken = neighbour_count ? neighbours[look < neighbour_count ? look : neighbour_count - 1] : 0;
    *total = TOTAL;
    *available = TOTAL - taken - (uint64_t)(contexts + primaries) * CONTEXT;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *context, unsigned int flags, CUdevice ordinal)
{
    (void)flags, (void)ordinal;
    *context = (CUcontext)(void *)&contexts;
    contexts++;
    made++;
    return CUDA_SUCCESS;
}

static CUresult destroy(CUcontext context)
{
    (void)context;
    contexts--;
    return CUDA_SUCCESS;
}

static CUresult get_state(CUdevice ordinal, unsigned int *flags, int *state)
{
    (void)ordinal;
    *flags = 0;
    *state = active;
    return CUDA_SUCCESS;
}

static CUresult retain(CUcontext *context, CUdevice ordinal)
{
    (void)ordinal;
    *context = (CUcontext)(void *)&primaries;
    primaries++;
    return CUDA_SUCCESS;
}

static CUresult release(CUdevice ordinal)
{
    (void)ordinal;
    primaries--;
    return CUDA_SUCCESS;
}

static CUresult push(CUcontext context)
{
    (void)context;
    pushed++;
    return CUDA_SUCCESS;
}

static CUresult pop(CUcontext *context)
{
    *context = (CUcontext)(void *)&primaries;
    pushed--;
    return CUDA_SUCCESS;
}

static CUresult load(CUmodule *module, const void *image)
{
    (void)image;
    *module = NULL;
    return CUDA_SUCCESS;
}

static CUresult get_function(CUfunction *function, CUmodule module, const char *name)
{
    (void)module, (void)name;
    *function = NULL;
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                       unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, CUstream stream, void **params,
                       void **extra)
{
    (void)function, (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z;
    (void)shared_bytes, (void)stream, (void)params, (void)extra;
    return CUDA_SUCCESS;
}

struct driver_entries driver_entries = {
    .cuMemGetInfo_v2 = get_info,
    .cuCtxCreate_v2 = create,
    .cuCtxDestroy_v2 = destroy,
    .cuDevicePrimaryCtxGetState = get_state,
    .cuDevicePrimaryCtxRetain = retain,
    .cuDevicePrimaryCtxRelease_v2 = release,
    .cuCtxPushCurrent_v2 = push,
    .cuCtxPopCurrent_v2 = pop,
    .cuModuleLoadData = load,
    .cuModuleGetFunction = get_function,
    .cuLaunchKernel = launch,
};

void *driver_resolve(enum driver_id id)
{
    (void)id;
    bail_out("a driver function is called that this driver lacks");
}

// ----------------------------------------------------------------------------------------------------------------------------------

// Measures beside neighbours that hold so many bytes, look by look.
static uint64_t beside(const uint64_t *bytes, size_t count)
{
    neighbours = bytes;
    neighbour_count = count;
    looks = 0;
    made = 0;
    uint64_t measured = calibrate_context(0);
    is_int(contexts + primaries + pushed, 0, "every context has ended and none is current");
    return measured;
}
#define BESIDE(...) beside((const uint64_t[]){__VA_ARGS__}, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

int main(void)
{
    is_int(beside(NULL, 0), CONTEXT, "on a quiet GPU the figure is right");
    is_int(made, 2, "and seen twice");
    is_int(BESIDE(9 * MIB), CONTEXT, "what neighbours hold all the time does not count");
    is_int(BESIDE(0, CONTEXT, 0, 0), CONTEXT, "a neighbour's context that comes and goes with ours is not part of it");
    is_int(BESIDE(0, 0, 0, 0, 3 * MIB, 0, 0), CONTEXT, "nor if it does so the second time");
    is_int(BESIDE(CONTEXT, 0, CONTEXT, 0), CONTEXT,
           "a neighbour's context that goes and comes while ours is there hides nothing");
    is_int(BESIDE(0, 0, 2 * MIB, 2 * MIB, 2 * MIB, 4 * MIB, 4 * MIB, 4 * MIB, 6 * MIB), CONTEXT,
           "a figure counts without quiet, if it is seen three times");
    is_int(made, 3, "and after the third");
    is_int(BESIDE(0, 10 * MIB, 10 * MIB, 0, 10 * MIB, 10 * MIB, 0), CONTEXT, "and not after two");
    is_int(BESIDE(0, 2 * MIB, 1, 2, 4 * MIB, 3, 4, 6 * MIB, 5, 6, 8 * MIB, 7, 8, 10 * MIB, 9, 10, 12 * MIB, 11), 0,
           "if every attempt says something else, nothing is known");
    is_int(BESIDE(0, 4 * MIB, 0, 0, 6 * MIB, 0, 0, 2 * MIB, 0, 0, 8 * MIB, 0, 0, 10 * MIB, 0, 0, 12 * MIB, 0),
           CONTEXT + 2 * MIB, "but the least figure, if free memory came back each time");
    is_int(BESIDE(CONTEXT, 0, 0, CONTEXT, 0, 0, CONTEXT, 0, 0, CONTEXT, 0, 0, CONTEXT, 0, 0, CONTEXT, 0, 0), 0,
           "nothing is known where more was given back than a context takes");

    active = 1;
    is_int(beside(NULL, 0), 0, "beside a primary context of the program's own nothing is measured");
    is_int(made, 0, "and no context made");
    return done_testing();
}
