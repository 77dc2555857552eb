// cuFFT: transforms in one and two dimensions and back.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cufft.h>

#include <cmath>

#include "tests/gpu/check.cuh"

int main()
{
    const int length = 4096, batch = 32, side = 512;
    const std::vector<float> signal = random_values((size_t)length * batch, 1);
    while (again()) {
        cufftHandle forward, backward, plane;
        float *real = to_device(signal);
        cufftComplex *spectrum = poisoned<cufftComplex>((size_t)(length / 2 + 1) * batch);
        OK(cufftPlan1d(&forward, length, CUFFT_R2C, batch));
        OK(cufftPlan1d(&backward, length, CUFFT_C2R, batch));
        OK(cufftExecR2C(forward, real, spectrum));
        result_of("real to complex", spectrum, (size_t)(length / 2 + 1) * batch);
        OK(cufftExecC2R(backward, spectrum, real));
        std::vector<float> back = result_of("complex to real", real, signal.size());
        for (size_t i = 0; i < back.size(); i += 997)
            EXPECT(std::fabs(back[i] / length - signal[i]) < 1e-4f);
        cufftDoubleComplex *image =
            reinterpret_cast<cufftDoubleComplex *>(to_device(random_values<double>((size_t)side * side * 2, 2)));
        OK(cufftPlan2d(&plane, side, side, CUFFT_Z2Z));
        OK(cufftExecZ2Z(plane, image, image, CUFFT_FORWARD));
        result_of("two dimensions", image, (size_t)side * side);
        for (cufftHandle plan : {forward, backward, plane})
            OK(cufftDestroy(plan));
        for (void *memory : {(void *)real, (void *)spectrum, (void *)image})
            OK(cudaFree(memory));
    }
    return 0;
}
