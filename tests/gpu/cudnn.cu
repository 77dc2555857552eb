// cuDNN: a convolution forwards and backwards, by algorithms that are documented as deterministic.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cudnn.h>

#include "tests/gpu/check.cuh"

int main()
{
    const int images = 8, channels = 16, side = 32, filters = 32, width = 3;
    const size_t inputs = (size_t)images * channels * side * side, outputs = (size_t)images * filters * side * side;
    const size_t weights = (size_t)filters * channels * width * width;
    const float one = 1, zero = 0;
    const auto forward = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    const auto backward_data = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    const auto backward_filter = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t in, out;
    cudnnFilterDescriptor_t filter;
    cudnnConvolutionDescriptor_t convolution;
    OK(cudnnCreate(&handle));
    OK(cudnnCreateTensorDescriptor(&in));
    OK(cudnnCreateTensorDescriptor(&out));
    OK(cudnnCreateFilterDescriptor(&filter));
    OK(cudnnCreateConvolutionDescriptor(&convolution));
    OK(cudnnSetTensor4dDescriptor(in, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, images, channels, side, side));
    OK(cudnnSetTensor4dDescriptor(out, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, images, filters, side, side));
    OK(cudnnSetFilter4dDescriptor(filter, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, filters, channels, width, width));
    OK(cudnnSetConvolution2dDescriptor(convolution, 1, 1, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    while (again()) {
        size_t bytes[3];
        float *x = to_device(random_values(inputs, 1)), *w = to_device(random_values(weights, 2));
        float *y = poisoned<float>(outputs), *dx = poisoned<float>(inputs), *dw = poisoned<float>(weights);
        OK(cudnnGetConvolutionForwardWorkspaceSize(handle, in, filter, convolution, out, forward, &bytes[0]));
        OK(cudnnGetConvolutionBackwardDataWorkspaceSize(handle, filter, out, convolution, in, backward_data, &bytes[1]));
        OK(cudnnGetConvolutionBackwardFilterWorkspaceSize(handle, in, out, convolution, filter, backward_filter, &bytes[2]));
        char *workspace[3];
        for (int i = 0; i < 3; i++)
            workspace[i] = poisoned<char>(bytes[i] + 1);
        OK(cudnnConvolutionForward(handle, &one, in, x, filter, w, convolution, forward, workspace[0], bytes[0], &zero, out,
                                   y));
        result_of("forward", y, outputs);
        OK(cudnnConvolutionBackwardData(handle, &one, filter, w, out, y, convolution, backward_data, workspace[1], bytes[1],
                                        &zero, in, dx));
        result_of("backward, data", dx, inputs);
        OK(cudnnConvolutionBackwardFilter(handle, &one, in, x, out, y, convolution, backward_filter, workspace[2], bytes[2],
                                          &zero, filter, dw));
        result_of("backward, filter", dw, weights);
        for (void *memory : {(void *)x, (void *)w, (void *)y, (void *)dx, (void *)dw, (void *)workspace[0],
                             (void *)workspace[1], (void *)workspace[2]})
            OK(cudaFree(memory));
    }
    OK(cudnnDestroy(handle));
    return 0;
}
