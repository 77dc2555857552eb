// SPDX-License-Identifier: AGPL-3.0-or-later
// Prints what the program is told of its GPU's memory: "device TOTAL total TOTAL free FREE", in bytes.
#include "driver.h"

int main(void)
{
    size_t device_total, available, total;
    CUdevice device;
    start();
    OK(cuDeviceGet(&device, 0));
    OK(cuDeviceTotalMem(&device_total, device));
    OK(cuMemGetInfo(&available, &total));
    printf("device %zu total %zu free %zu\n", device_total, total, available);
    return 0;
}
