// SPDX-License-Identifier: AGPL-3.0-or-later
// Another CUDA runtime, by its soname an old one, with recognisable answers.
int cudaMalloc(void **pointer, unsigned long bytes);
int cudaDeviceSynchronize(void);

int cudaMalloc(void **pointer, unsigned long bytes)
{
    (void)pointer;
    (void)bytes;
    return 10201;
}

int cudaDeviceSynchronize(void)
{
    return 10202;
}
