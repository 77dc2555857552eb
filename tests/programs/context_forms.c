// SPDX-License-Identifier: AGPL-3.0-or-later
// context_forms [all]: contexts by the earlier forms of the functions that make and end them, which headers do not name any more: they are
// charged and given back, with what was allocated in them. A driver may refuse to mix the first forms with later ones; they only run with `all`.
#include "driver.h"

#define BYTES (64 * MIB)

CUresult create_1(CUcontext *context, unsigned flags, CUdevice device) __asm__("cuCtxCreate");
CUresult create_2(CUcontext *context, unsigned flags, CUdevice device) __asm__("cuCtxCreate_v2");
CUresult create_3(CUcontext *context, void *affinity, int count, unsigned flags, CUdevice device) __asm__("cuCtxCreate_v3");
CUresult destroy_1(CUcontext context) __asm__("cuCtxDestroy");
CUresult push_1(CUcontext context) __asm__("cuCtxPushCurrent");
CUresult pop_1(CUcontext *context) __asm__("cuCtxPopCurrent");
CUresult release_1(CUdevice device) __asm__("cuDevicePrimaryCtxRelease");
CUresult reset_1(CUdevice device) __asm__("cuDevicePrimaryCtxReset");

static CUresult create(int form, CUcontext *context)
{
    return form == 1 ? create_1(context, 0, 0) : form == 2 ? create_2(context, 0, 0) : create_3(context, NULL, 0, 0, 0);
}

static CUdeviceptr allocate(void)
{
    CUdeviceptr address;
    OK(cuMemAlloc(&address, BYTES));
    return address;
}

int main(int argc, char **argv)
{
    (void)argv;
    bool all = argc > 1;
    CUcontext context, primary = start();
    size_t whole = told_free();
    for (int form = all ? 1 : 2; form <= 3; form++) {
        OK(create(form, &context));
        (void)allocate();
        OK(all ? push_1(primary) : cuCtxPushCurrent(primary));
        size_t bytes = whole - told_free();
        if (bytes < BYTES + MIB)
            fail("a context of form %d and an allocation in it take %zu bytes", form, bytes);
        OK(all ? pop_1(&primary) : cuCtxPopCurrent(&primary));
        OK(all ? destroy_1(context) : cuCtxDestroy(context));
        OK(cuCtxSetCurrent(primary));
        expect_free(whole, "after a context");
    }
    for (int round = 0; all && round < 2; round++) {
        (void)allocate();
        OK(round ? release_1(0) : reset_1(0));
        OK(cuDevicePrimaryCtxRetain(&primary, 0));
        OK(cuCtxSetCurrent(primary));
        expect_free(whole, "after the primary context");
    }
    return 0;
}
