// SPDX-License-Identifier: AGPL-3.0-or-later
// A program that refers to the driver weakly and finds none loaded. Prints what cuInit and another function return, where they are.
#include <stdio.h>

int cuInit(unsigned flags) __attribute__((weak));
int cuMemFree_v2(unsigned long long pointer) __attribute__((weak));
int cudaDeviceSynchronize(void) __attribute__((weak));

int main(void)
{
    printf("%d %d %d\n", cuInit ? cuInit(0) : -1, cuMemFree_v2 ? cuMemFree_v2(1) : -1,
           cudaDeviceSynchronize ? cudaDeviceSynchronize() : -1);
    return 0;
}
