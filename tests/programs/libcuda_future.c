// SPDX-License-Identifier: AGPL-3.0-or-later
// A driver of the future without a GPU: two of its functions are in no table.
int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuDeviceGetCount(int *count);
int cuFutureAlloc(void);
int cuFutureLaunch(void);

int cuInit(unsigned flags)
{
    (void)flags;
    return 0;
}

int cuDriverGetVersion(int *version)
{
    *version = 99010;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = 0;
    return 0;
}

int cuFutureAlloc(void)
{
    return 999;
}

int cuFutureLaunch(void)
{
    return 999;
}
