// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/api_door.h"

#include <string.h>

#include "base/version.h"
#include "scheduler/agent.h"
#include "shim/device.h"
#include "shim/loader.h"

static void exempt(bool on)
{
    gate_thread_exempt = on;
}

static const struct agent_service *agent(const char *version, const struct pool *pool, uint32_t *bell)
{
    const struct device *device = device_of(0);
    if (!device || strcmp(version, VGPU_VERSION) != 0 || device->gate.pool->device != pool->device ||
        device->gate.pool->inode != pool->inode)
        return NULL;
    *bell = device->gate.process;
    return &agent_service;
}

const struct api_door *vgpu_shim_door_1(void)
{
    static const struct api_door door = {.find = loader_find, .exempt = exempt, .agent = agent};
    return &door;
}
