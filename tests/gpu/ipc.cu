// CUDA IPC: one process allocates, another one opens the memory and the event and works in them.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/gpu/check.cuh"

static const size_t items = 1 << 20;

struct handles {
    cudaIpcMemHandle_t memory;
    cudaIpcEventHandle_t event;
};

__global__ void transform(uint32_t *p, uint32_t factor, uint64_t n)
{
    uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * factor + (uint32_t)i;
}

static void transform_all(void *memory, uint32_t factor)
{
    launch(transform, blocks_for(items, 256), 256, nullptr, static_cast<uint32_t *>(memory), factor, items);
}

static int importer(int channel)
{
    struct handles handles;
    while (read(channel, &handles, sizeof handles) == (ssize_t)sizeof handles) {
        void *memory;
        cudaEvent_t ready;
        OK(cudaIpcOpenEventHandle(&ready, handles.event));
        OK(cudaIpcOpenMemHandle(&memory, handles.memory, cudaIpcMemLazyEnablePeerAccess));
        OK(cudaStreamWaitEvent(nullptr, ready, 0));
        transform_all(memory, 7);
        OK(cudaDeviceSynchronize());
        OK(cudaIpcCloseMemHandle(memory));
        OK(cudaEventDestroy(ready));
        EXPECT(write(channel, "", 1) == 1);
    }
    return 0;
}

int main()
{
    int channel[2], status;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = fork(); // before either has called CUDA
    EXPECT(child >= 0);
    close(channel[child ? 1 : 0]);
    if (!child)
        return importer(channel[1]);
    while (again()) {
        struct handles handles;
        char answer;
        cudaEvent_t ready;
        uint32_t *memory = poisoned<uint32_t>(items);
        OK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming | cudaEventInterprocess));
        OK(cudaIpcGetMemHandle(&handles.memory, memory));
        OK(cudaIpcGetEventHandle(&handles.event, ready));
        transform_all(memory, 3);
        OK(cudaEventRecord(ready, nullptr));
        EXPECT(write(channel[0], &handles, sizeof handles) == (ssize_t)sizeof handles);
        EXPECT(read(channel[0], &answer, 1) == 1);
        transform_all(memory, 11);
        result_of("shared memory", memory, items);
        OK(cudaEventDestroy(ready));
        OK(cudaFree(memory));
    }
    close(channel[0]);
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
