// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/api_door.h"

#include "scheduler/gate.h"
#include "shim/loader.h"

static void exempt(bool on)
{
    gate_thread_exempt = on;
}

const struct api_door *vgpu_shim_door_1(void)
{
    static const struct api_door door = {.find = loader_find, .exempt = exempt};
    return &door;
}
