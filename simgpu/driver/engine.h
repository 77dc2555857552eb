// SPDX-License-Identifier: AGPL-3.0-or-later
// The right to run kernels on one device, exclusive between processes.
//
// The word in shared memory names the holder and the time of the hand-over. It passes from the holder straight to the process
// that has waited longest. A holder keeps it for a slice while others wait, then passes it on between two blocks of a kernel or
// while the kernel sleeps; without ready work it gives it up at once. Whoever gets it after another process loses the switch
// time first.
//
// Nobody depends on a holder's goodwill: past its slice a dead one is overtaken at once, and one that merely does not react
// (stopped, or computing one long block) after a grace period. Waiting bits are set and cleared by their owners, or by somebody
// who overtakes them; a waiter sets its bit anew whenever it looks, so a bit lost that way costs a turn at most.
//
// A struct engine belongs to the executor thread of its device; no lock is needed or may be held while waiting.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_ENGINE_H
#define SIMGPU_DRIVER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

struct engine {
    uint32_t device;
    bool beside;           // a client of MPS: its kernels run beside those of others, and it never waits
    uint64_t held_word;    // the shared word while we hold the engine, else 0
    uint64_t slice_end_ns; // from here on others may have it
    uint64_t credit_ns;    // GPU time that was slept too long already and counts towards the next sleep
};

// Waits until this process holds the engine. Returns at once if it does.
void engine_acquire(struct engine *engine);

// Gives the engine up. Without effect if it is not held.
void engine_release(struct engine *engine);

// Passes the engine on if the slice is over and others wait, and takes it back if it was lost. It is held afterwards.
void engine_check(struct engine *engine);

// Lets `ns` of time pass in which this process holds the engine.
void engine_pass(struct engine *engine, uint64_t ns);

#endif
