// SPDX-License-Identifier: AGPL-3.0-or-later
// mem_told [watch]: prints what the program is told of its GPU's memory: "device TOTAL total TOTAL free FREE", in bytes. watch: again and
// again, until it is killed.
#include <unistd.h>

#include "driver.h"

int main(int argc, char **argv)
{
    (void)argv;
    size_t device_total, available, total;
    CUdevice device;
    start();
    OK(cuDeviceGet(&device, 0));
    do {
        OK(cuDeviceTotalMem(&device_total, device));
        OK(cuMemGetInfo(&available, &total));
        printf("device %zu total %zu free %zu\n", device_total, total, available);
        fflush(stdout);
    } while (argc > 1 && usleep(20000) == 0);
    return 0;
}
