// SPDX-License-Identifier: AGPL-3.0-or-later
// stream_cases MODULE CASE [FILE]: what streams and captures do, apart from launching. Prints "done" at the end.
//
//     priorities      streams of every priority, and beyond: prints what they got
//     asked           the highest priority, asked for by every other road: prints what it became
//     green           half a second of work, queued at once in a green context; prints "worked" and stays
//     elsewhere       the same as graphs, in a stream of a context that is not current
//     invalidated     a capture that is broken off, then one that is not: prints what the calls say
//     to_graph        a capture into a graph that exists
//     host_waits      host functions that wait for a launch that comes after them
//     callback_waits  the same with callbacks of the old kind
//     own_streams     one thread captures a stream that synchronises with the default one, so that this cannot be used, while another has
//                     work in its own default stream that waits for FILE; prints "waiting"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

#define WORDS 1024u
#define ROUNDS 5

__typeof__(cuLaunchKernel) cuLaunchKernel_ptsz;

static CUcontext context;
static CUfunction add, spin;
static CUdeviceptr words;
static CUstream stream;

static CUresult try_launch(__typeof__(cuLaunchKernel) *function, CUstream into)
{
    uint32_t value = 1;
    uint64_t count = WORDS;
    void *params[] = {&words, &value, &count};
    return function(add, 1, 1, 1, 128, 1, 1, 0, into, params, NULL);
}

static void launch(__typeof__(cuLaunchKernel) *function, CUstream into)
{
    OK(try_launch(function, into));
}

static void expect_words(uint32_t expected)
{
    uint32_t result[WORDS];
    OK(cuCtxSynchronize());
    OK(cuMemcpyDtoH(result, words, sizeof result));
    for (unsigned i = 0; i < WORDS; i++)
        if (result[i] != expected)
            fail("word %u is %u where %u is expected", i, result[i], expected);
}

static void launch_captured(CUgraph graph)
{
    CUgraphExec executable;
    OK(cuGraphInstantiate(&executable, graph, 0));
    OK(cuGraphLaunch(executable, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuGraphExecDestroy(executable));
    OK(cuGraphDestroy(graph));
}

static void priorities(void)
{
    int least, greatest, got;
    CUstream made;
    OK(cuCtxGetStreamPriorityRange(&least, &greatest));
    printf("%d to %d:", least, greatest);
    for (int wanted = greatest - 2; wanted <= least + 2; wanted++) {
        OK(cuStreamCreateWithPriority(&made, CU_STREAM_NON_BLOCKING, wanted));
        OK(cuStreamGetPriority(made, &got));
        launch(cuLaunchKernel, made);
        EXPECT(cuStreamQuery(stream), CUDA_SUCCESS);
        OK(cuStreamSynchronize(made));
        OK(cuStreamDestroy(made));
        printf(" %d", got);
    }
    printf("\n");
}

static CUgraphNode captured_launch(const CUlaunchConfig *config)
{
    CUgraph graph;
    CUgraphNode node;
    size_t count = 1;
    uint32_t value = 0;
    uint64_t words_count = WORDS;
    void *params[] = {&words, &value, &words_count};
    OK(cuLaunchKernelEx(config, add, params, NULL));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuLaunchKernelEx(config, add, params, NULL));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphGetNodes(graph, &node, &count));
    return node;
}

static void say_node(const char *what, CUgraphNode node)
{
    CUlaunchAttributeValue got;
    OK(cuGraphKernelNodeGetAttribute(node, CU_KERNEL_NODE_ATTRIBUTE_PRIORITY, &got));
    printf(" %s %d", what, got.priority);
}

static void launch_spin(CUstream into)
{
    uint64_t ns = 5000000;
    void *params[] = {&ns};
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, into, params, NULL));
}

static CUgreenCtx make_green(void)
{
    CUdevResource processors;
    CUdevResourceDesc description;
    CUgreenCtx green;
    OK(cuDeviceGetDevResource(0, &processors, CU_DEV_RESOURCE_TYPE_SM));
    OK(cuDevResourceGenerateDesc(&description, &processors, 1));
    OK(cuGreenCtxCreate(&green, description, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    return green;
}

static void asked(void)
{
    int greatest, got;
    OK(cuCtxGetStreamPriorityRange(NULL, &greatest));
    printf("%d:", greatest);
    CUlaunchAttribute attributes[] = {{.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                       .value.programmaticStreamSerializationAllowed = 0},
                                      {.id = CU_LAUNCH_ATTRIBUTE_PRIORITY, .value.priority = greatest}};
    CUlaunchConfig config = {.gridDimX = 1,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 128,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .hStream = stream,
                             .attrs = attributes,
                             .numAttrs = 2};
    say_node("launch", captured_launch(&config));
    if (attributes[1].value.priority != greatest)
        fail("the launch has changed what it was given");
    config.numAttrs = 0;
    CUgraphNode node = captured_launch(&config);
    OK(cuGraphKernelNodeSetAttribute(node, CU_KERNEL_NODE_ATTRIBUTE_PRIORITY, &attributes[1].value));
    say_node("node", node);
    OK(cuStreamSetAttribute(stream, CU_STREAM_ATTRIBUTE_PRIORITY, &attributes[1].value));
    OK(cuStreamGetPriority(stream, &got));
    printf(" stream %d", got);

    CUstream made;
    CUgreenCtx green = make_green();
    OK(cuGreenCtxStreamCreate(&made, green, CU_STREAM_NON_BLOCKING, greatest));
    OK(cuStreamGetPriority(made, &got));
    printf(" green %d\n", got);
    OK(cuStreamDestroy(made));
    OK(cuGreenCtxDestroy(green));
}

static void stay(void)
{
    puts("worked");
    fflush(stdout);
    for (;;)
        pause();
}

// Half a second of work, queued at once in a green context that is current.
static void green_work(void)
{
    CUcontext current;
    CUstream made;
    CUgreenCtx green = make_green();
    OK(cuCtxFromGreenCtx(&current, green));
    OK(cuCtxSetCurrent(current));
    OK(cuGreenCtxStreamCreate(&made, green, CU_STREAM_NON_BLOCKING, 0));
    for (int i = 0; i < 100; i++)
        launch_spin(made);
    OK(cuStreamSynchronize(made));
    OK(cuStreamDestroy(made));
    OK(cuCtxSetCurrent(NULL));
    OK(cuGreenCtxDestroy(green));
    stay();
}

// The same as graphs, in a stream of a context that is not current.
static void elsewhere_work(void)
{
    CUcontext other;
    CUstream made;
    CUgraph graph;
    CUgraphExec executable;
    OK(cuCtxCreate(&other, NULL, 0, 0));
    OK(cuStreamCreate(&made, CU_STREAM_NON_BLOCKING));
    OK(cuCtxSetCurrent(context));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    launch_spin(stream);
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 100; i++)
        OK(cuGraphLaunch(executable, made));
    OK(cuStreamSynchronize(made));
    OK(cuCtxDestroy(other));
    stay();
}

static void invalidated(void)
{
    CUgraph graph = NULL;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    launch(cuLaunchKernel, stream);
    printf("synchronize %d", cuStreamSynchronize(stream));
    printf(" launch %d", try_launch(cuLaunchKernel, stream));
    printf(" end %d", cuStreamEndCapture(stream, &graph));
    printf(" again %d\n", cuStreamEndCapture(stream, &graph));
    expect_words(0);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    launch(cuLaunchKernel, stream);
    OK(cuStreamEndCapture(stream, &graph));
    launch_captured(graph);
    expect_words(1);
}

static void to_graph(void)
{
    CUgraph graph, same;
    OK(cuGraphCreate(&graph, 0));
    OK(cuStreamBeginCaptureToGraph(stream, graph, NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_GLOBAL));
    launch(cuLaunchKernel, stream);
    launch(cuLaunchKernel, stream);
    OK(cuStreamEndCapture(stream, &same));
    if (same != graph)
        fail("the capture went into another graph");
    launch_captured(graph);
    expect_words(2);
}

static atomic_int launched;

static void wait_for_launch(void *round)
{
    while (atomic_load(&launched) <= *(int *)round)
        usleep(100);
}

static void CUDA_CB wait_for_launch_back(CUstream of, CUresult result, void *round)
{
    (void)of;
    (void)result;
    wait_for_launch(round);
}

// Each host function ends only after a launch into another stream, which must not wait for the host function in turn.
static void host_waits(bool callbacks)
{
    int rounds[ROUNDS];
    CUstream other;
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    for (int round = 0; round < ROUNDS; round++) {
        rounds[round] = round;
        if (callbacks)
            OK(cuStreamAddCallback(stream, wait_for_launch_back, &rounds[round], 0));
        else
            OK(cuLaunchHostFunc(stream, wait_for_launch, &rounds[round]));
        launch(cuLaunchKernel, other);
        atomic_fetch_add(&launched, 1);
        OK(cuStreamSynchronize(stream));
    }
    expect_words(ROUNDS);
}

static CUdeviceptr flag;

static void *own_stream_work(void *argument)
{
    (void)argument;
    OK(cuCtxSetCurrent(context));
    launch(cuLaunchKernel_ptsz, NULL);
    OK(cuStreamWaitValue32(CU_STREAM_PER_THREAD, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    launch(cuLaunchKernel_ptsz, NULL);
    puts("waiting");
    fflush(stdout);
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    return NULL;
}

static void own_streams(const char *file)
{
    pthread_t thread;
    CUgraph graph;
    uint32_t *host;
    OK(cuMemHostAlloc((void **)&host, sizeof *host, CU_MEMHOSTALLOC_DEVICEMAP));
    *host = 0;
    OK(cuMemHostGetDevicePointer(&flag, host, 0));
    OK(cuStreamDestroy(stream));
    OK(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch(cuLaunchKernel, stream);
    if (pthread_create(&thread, NULL, own_stream_work, NULL))
        fail("no thread");
    while (access(file, F_OK) != 0)
        usleep(1000);
    __atomic_store_n(host, 1, __ATOMIC_SEQ_CST);
    pthread_join(thread, NULL);
    OK(cuStreamEndCapture(stream, &graph));
    launch_captured(graph);
    expect_words(3);
}

int main(int argc, char **argv)
{
    CUmodule module;
    if (argc < 3)
        fail("usage: stream_cases MODULE CASE [FILE]");
    context = start();
    OK(cuModuleLoad(&module, argv[1]));
    OK(cuModuleGetFunction(&add, module, "add_u32"));
    OK(cuModuleGetFunction(&spin, module, "spin_ns"));
    OK(cuMemAlloc(&words, WORDS * 4));
    OK(cuMemsetD32(words, 0, WORDS));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    if (strcmp(argv[2], "priorities") == 0)
        priorities();
    else if (strcmp(argv[2], "asked") == 0)
        asked();
    else if (strcmp(argv[2], "green") == 0)
        green_work();
    else if (strcmp(argv[2], "elsewhere") == 0)
        elsewhere_work();
    else if (strcmp(argv[2], "invalidated") == 0)
        invalidated();
    else if (strcmp(argv[2], "to_graph") == 0)
        to_graph();
    else if (strcmp(argv[2], "host_waits") == 0)
        host_waits(false);
    else if (strcmp(argv[2], "callback_waits") == 0)
        host_waits(true);
    else if (strcmp(argv[2], "own_streams") == 0 && argc > 3)
        own_streams(argv[3]);
    else
        fail("no such case: %s", argv[2]);
    puts("done");
    return 0;
}
