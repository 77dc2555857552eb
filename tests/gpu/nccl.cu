// NCCL: sums and exchanges between two GPUs of one process.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <nccl.h>

#include "tests/gpu/check.cuh"

int main()
{
    const size_t n = 1 << 20;
    const int devices[2] = {0, 1};
    int count;
    ncclComm_t peers[2];
    cudaStream_t streams[2];
    float *values[2], *sums[2];
    OK(cudaGetDeviceCount(&count));
    if (count < 2)
        skip("the machine has one GPU");
    OK(ncclCommInitAll(peers, 2, devices));
    for (int i = 0; i < 2; i++) {
        OK(cudaSetDevice(i));
        OK(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking));
        values[i] = to_device(random_values(n, (uint64_t)i));
        sums[i] = poisoned<float>(n);
    }
    while (again()) {
        for (unsigned step = 0; step < 20; step++) {
            OK(ncclGroupStart());
            for (int i = 0; i < 2; i++)
                OK(ncclAllReduce(values[i], sums[i], n, ncclFloat, ncclSum, peers[i], streams[i]));
            OK(ncclGroupEnd());
        }
        for (int i = 0; i < 2; i++) {
            OK(cudaSetDevice(i));
            OK(cudaStreamSynchronize(streams[i]));
            result_of(i ? "sum on the second GPU" : "sum on the first GPU", sums[i], n);
        }
        OK(ncclGroupStart());
        for (int i = 0; i < 2; i++) {
            OK(ncclSend(values[i], n, ncclFloat, !i, peers[i], streams[i]));
            OK(ncclRecv(sums[i], n, ncclFloat, !i, peers[i], streams[i]));
        }
        OK(ncclGroupEnd());
        for (int i = 0; i < 2; i++) {
            OK(cudaSetDevice(i));
            OK(cudaStreamSynchronize(streams[i]));
            result_of(i ? "received from the first GPU" : "received from the second GPU", sums[i], n);
        }
    }
    for (int i = 0; i < 2; i++)
        OK(ncclCommDestroy(peers[i]));
    return 0;
}
