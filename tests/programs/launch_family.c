// SPDX-License-Identifier: AGPL-3.0-or-later
// launch_family MODULE FAMILY: makes ten launches by one family of functions, each on every device, and checks that each has run once.
// contextless: without a current context, but into a stream that has one. graph_elsewhere: on every device but the first, which is current. Before them, one of cuLaunchKernel that changes nothing. Prints
// "launched" and stays.
#include <string.h>
#include <unistd.h>

#include "driver.h"

#define LAUNCHES 10
#define WORDS 4096u
#define BLOCKS 4
#define THREADS 128

// The per-thread-default-stream forms, which the header knows under the plain names only.
__typeof__(cuLaunchKernel) cuLaunchKernel_ptsz;
__typeof__(cuLaunchKernelEx) cuLaunchKernelEx_ptsz;
__typeof__(cuLaunchCooperativeKernel) cuLaunchCooperativeKernel_ptsz;
__typeof__(cuGraphLaunch) cuGraphLaunch_ptsz;
__typeof__(cuStreamBeginCaptureToGraph) cuStreamBeginCaptureToGraph_ptsz;
__typeof__(cuStreamEndCapture) cuStreamEndCapture_ptsz;

struct place {
    CUcontext context;
    CUfunction add;
    CUdeviceptr words;
    CUstream stream;
};

static struct place places[16];
static int place_count;
static bool per_thread; // whether graphs are captured by those forms

// The arguments of add_u32: adds 1 to every word.
struct arguments {
    CUdeviceptr words;
    uint32_t value;
    uint64_t count;
    void *params[3];
};

static void **arguments_of(struct arguments *a, const struct place *place)
{
    *a = (struct arguments){.words = place->words, .value = 1, .count = WORDS};
    a->params[0] = &a->words;
    a->params[1] = &a->value;
    a->params[2] = &a->count;
    return a->params;
}

static CUresult plain(const struct place *place, __typeof__(cuLaunchKernel) *launch, CUstream stream)
{
    struct arguments a;
    return launch(place->add, BLOCKS, 1, 1, THREADS, 1, 1, 0, stream, arguments_of(&a, place), NULL);
}

static CUresult cooperative(const struct place *place, __typeof__(cuLaunchCooperativeKernel) *launch, CUstream stream)
{
    struct arguments a;
    return launch(place->add, BLOCKS, 1, 1, THREADS, 1, 1, 0, stream, arguments_of(&a, place));
}

static CUresult extended(const struct place *place, __typeof__(cuLaunchKernelEx) *launch, CUstream stream,
                         CUlaunchAttribute *attribute)
{
    struct arguments a;
    CUlaunchConfig config = {.gridDimX = BLOCKS,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = THREADS,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = stream,
                             .attrs = attribute,
                             .numAttrs = attribute ? 1 : 0};
    return launch(&config, place->add, arguments_of(&a, place), NULL);
}

static CUresult legacy(const struct place *place, const char *family)
{
    uint64_t words = place->words, count = WORDS;
    CUresult rc = cuFuncSetBlockShape(place->add, THREADS, 1, 1);
    if (rc != CUDA_SUCCESS)
        return rc;
    OK(cuParamSetSize(place->add, 24));
    OK(cuParamSetv(place->add, 0, &words, sizeof words));
    OK(cuParamSeti(place->add, 8, 1));
    OK(cuParamSetv(place->add, 16, &count, sizeof count));
    if (strcmp(family, "launch") == 0)
        return cuLaunch(place->add);
    if (strcmp(family, "grid") == 0)
        return cuLaunchGrid(place->add, BLOCKS, 1);
    return cuLaunchGridAsync(place->add, BLOCKS, 1, place->stream);
}

// One grid over all devices.
static CUresult over_all(void)
{
    CUDA_LAUNCH_PARAMS launches[16] = {0};
    struct arguments a[16];
    // Not in the order of the devices, which must make no difference.
    for (int i = 0; i < place_count; i++) {
        const struct place *place = &places[place_count - 1 - i];
        launches[i] = (CUDA_LAUNCH_PARAMS){.function = place->add,
                                           .gridDimX = BLOCKS,
                                           .gridDimY = 1,
                                           .gridDimZ = 1,
                                           .blockDimX = THREADS,
                                           .blockDimY = 1,
                                           .blockDimZ = 1,
                                           .hStream = place->stream,
                                           .kernelParams = arguments_of(&a[i], place)};
    }
    return cuLaunchCooperativeKernelMultiDevice(launches, (unsigned)place_count, 0);
}

// Two additions, one of which does nothing, captured into the graph.
static CUgraph capture_graph(const struct place *place, uint32_t value, CUgraph graph)
{
    struct arguments a;
    void **params = arguments_of(&a, place);
    __typeof__(cuStreamBeginCaptureToGraph) *begin =
        per_thread ? cuStreamBeginCaptureToGraph_ptsz : cuStreamBeginCaptureToGraph;
    OK(begin(place->stream, graph, NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    a.value = value;
    OK(cuLaunchKernel(place->add, BLOCKS, 1, 1, THREADS, 1, 1, 0, place->stream, params, NULL));
    a.value = 0;
    OK(cuLaunchKernel(place->add, BLOCKS, 1, 1, THREADS, 1, 1, 0, place->stream, params, NULL));
    OK((per_thread ? cuStreamEndCapture_ptsz : cuStreamEndCapture)(place->stream, &graph));
    return graph;
}

static CUgraph new_graph(void)
{
    CUgraph graph;
    OK(cuGraphCreate(&graph, 0));
    return graph;
}

// A graph whose conditional node, which is true at each launch, has the additions.
static CUgraph conditional_graph(const struct place *place)
{
    CUgraph graph = new_graph();
    CUgraphNode node;
    CUgraphNodeParams params = {.type = CU_GRAPH_NODE_TYPE_CONDITIONAL,
                                .conditional = {.type = CU_GRAPH_COND_TYPE_IF, .size = 1, .ctx = place->context}};
    OK(cuGraphConditionalHandleCreate(&params.conditional.handle, graph, place->context, 1, CU_GRAPH_COND_ASSIGN_DEFAULT));
    OK(cuGraphAddNode(&node, graph, NULL, NULL, 0, &params));
    capture_graph(place, 1, params.conditional.phGraph_out[0]);
    return graph;
}

// As it should be, or with another value and set right in the executable, by a node or by another graph.
static CUgraphExec make_graph(const struct place *place, const char *family)
{
    struct arguments a;
    CUgraphExec executable;
    bool update = strcmp(family, "graph_updated") == 0, replace = strcmp(family, "graph_replaced") == 0;
    void **params = arguments_of(&a, place);
    CUgraph graph = strcmp(family, "graph_conditional") == 0 ? conditional_graph(place)
                                                             : capture_graph(place, update || replace ? 100 : 1, new_graph());
    OK(cuGraphInstantiate(&executable, graph, 0));
    if (replace) {
        CUgraphExecUpdateResultInfo info;
        OK(cuGraphDestroy(graph));
        graph = capture_graph(place, 1, new_graph());
        OK(cuGraphExecUpdate(executable, graph, &info));
    }
    if (update) {
        CUgraphNode nodes[2];
        size_t count = 2;
        CUDA_KERNEL_NODE_PARAMS node = {0};
        OK(cuGraphGetRootNodes(graph, nodes, &count));
        OK(cuGraphKernelNodeGetParams(nodes[0], &node));
        a.value = 1;
        node.kernelParams = params;
        node.extra = NULL;
        OK(cuGraphExecKernelNodeSetParams(executable, nodes[0], &node));
    }
    OK(cuGraphDestroy(graph));
    return executable;
}

static CUresult launch(const struct place *place, const char *family)
{
    static CUgraphExec graphs[16];
    CUlaunchAttribute cluster = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value.clusterDim = {1, 1, 1}};
    CUlaunchAttribute overlap = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                 .value.programmaticStreamSerializationAllowed = 1};
    if (strcmp(family, "kernel") == 0)
        return plain(place, cuLaunchKernel, place->stream);
    if (strcmp(family, "contextless") == 0) {
        OK(cuCtxSetCurrent(NULL));
        CUresult rc = plain(place, cuLaunchKernel, place->stream);
        OK(cuCtxSetCurrent(place->context));
        return rc;
    }
    if (strcmp(family, "kernel_ptsz") == 0)
        return plain(place, cuLaunchKernel_ptsz, NULL);
    if (strcmp(family, "ex") == 0)
        return extended(place, cuLaunchKernelEx, place->stream, NULL);
    if (strcmp(family, "ex_ptsz") == 0)
        return extended(place, cuLaunchKernelEx_ptsz, NULL, NULL);
    if (strcmp(family, "ex_cluster") == 0)
        return extended(place, cuLaunchKernelEx, place->stream, &cluster);
    if (strcmp(family, "ex_programmatic") == 0)
        return extended(place, cuLaunchKernelEx, place->stream, &overlap);
    if (strcmp(family, "cooperative") == 0)
        return cooperative(place, cuLaunchCooperativeKernel, place->stream);
    if (strcmp(family, "cooperative_ptsz") == 0)
        return cooperative(place, cuLaunchCooperativeKernel_ptsz, NULL);
    if (strncmp(family, "graph", 5) == 0) {
        CUgraphExec *graph = &graphs[place - places];
        if (!*graph)
            *graph = make_graph(place, family);
        if (strcmp(family, "graph_elsewhere") == 0)
            OK(cuCtxSetCurrent(places[0].context));
        return strcmp(family, "graph_ptsz") == 0 ? cuGraphLaunch_ptsz(*graph, NULL) : cuGraphLaunch(*graph, place->stream);
    }
    if (strcmp(family, "launch") == 0 || strcmp(family, "grid") == 0 || strcmp(family, "grid_async") == 0)
        return legacy(place, family);
    fail("no such family: %s", family);
}

static void prepare(struct place *place, int ordinal, const char *path)
{
    CUmodule module;
    OK(cuDevicePrimaryCtxRetain(&place->context, ordinal));
    OK(cuCtxSetCurrent(place->context));
    OK(cuModuleLoad(&module, path));
    OK(cuModuleGetFunction(&place->add, module, "add_u32"));
    OK(cuMemAlloc(&place->words, WORDS * 4));
    OK(cuMemsetD32(place->words, 0, WORDS));
    OK(cuStreamCreate(&place->stream, CU_STREAM_NON_BLOCKING));
    struct arguments a;
    void **params = arguments_of(&a, place);
    a.value = 0;
    // In the default stream, behind the words' clearing, and waited for: the streams of the families may overlap with both.
    OK(cuLaunchKernel(place->add, BLOCKS, 1, 1, THREADS, 1, 1, 0, NULL, params, NULL));
    OK(cuCtxSynchronize());
}

static void check(const struct place *place)
{
    static uint32_t result[WORDS];
    OK(cuCtxSetCurrent(place->context));
    OK(cuCtxSynchronize());
    OK(cuMemcpyDtoH(result, place->words, sizeof result));
    for (unsigned i = 0; i < WORDS; i++)
        if (result[i] != LAUNCHES)
            fail("word %u is %u where %u is expected", i, result[i], LAUNCHES);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        fail("usage: launch_family MODULE FAMILY");
    OK(cuInit(0));
    OK(cuDeviceGetCount(&place_count));
    for (int i = 0; i < place_count; i++)
        prepare(&places[i], i, argv[1]);
    bool over = strcmp(argv[2], "multi_device") == 0;
    int first = strcmp(argv[2], "graph_elsewhere") == 0;
    per_thread = strcmp(argv[2], "graph_ptsz") == 0;
    for (int round = 0; round < LAUNCHES; round++) {
        for (int i = first; i < (over ? 1 : place_count); i++) {
            OK(cuCtxSetCurrent(places[i].context));
            OK(over ? over_all() : launch(&places[i], argv[2]));
            OK(cuCtxSynchronize());
        }
    }
    for (int i = first; i < place_count; i++)
        check(&places[i]);
    puts("launched");
    fflush(stdout);
    for (;;)
        pause();
}
