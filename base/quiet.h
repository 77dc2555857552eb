// SPDX-License-Identifier: AGPL-3.0-or-later
// Writing without the signals that the kernel raises in a thread that writes where it cannot: SIGPIPE where nobody reads any more, SIGXFSZ
// where a file may not grow. The program did not write, and must not die of them; the error number is enough.
//
// Thread safe: a thread's own signals.
#ifndef VGPU_BASE_QUIET_H
#define VGPU_BASE_QUIET_H

#include <signal.h>

struct quiet {
    sigset_t mask, pending; // the thread's, before
};

void quiet_begin(struct quiet *quiet);

// `reason`: the error number of what failed in between, 0 if nothing did. Leaves errno as it is.
void quiet_end(const struct quiet *quiet, int reason);

#endif
