// SPDX-License-Identifier: AGPL-3.0-or-later
// Tasks: host functions that one worker thread of the instance runs one after another, each in the instance's turn.
//
// Invariants
//  - The worker is started by the first task and ends with the instance, after the last one.
//  - A task is referenced by its queue until it has run or was found cancelled, and by the caller until vgpu_task_release.
//  - The state moves one way: queued, then running and done, or cancelled. The thread that moves it from `queued` decides
//    which.
//  - No lock is held while a task runs or waits for its turn.
// Thread safe. The mutex here is never held together with another.
#ifndef VGPU_LIB_TASKS_H
#define VGPU_LIB_TASKS_H

#include "lib/instance.h"

// 0 or -ENOMEM. `depth` tasks may wait.
int tasks_init(struct vgpu *vgpu, uint32_t depth);

// Accepts no more tasks, runs those that are queued, and ends the worker. Then tasks_free may follow.
void tasks_drain(struct vgpu *vgpu);
// The opposite: accepts tasks again.
void tasks_resume(struct vgpu *vgpu);
void tasks_free(struct vgpu *vgpu);

struct tasks_view {
    uint64_t waiting, finished;
};
struct tasks_view tasks_look(struct vgpu *vgpu);

#endif
