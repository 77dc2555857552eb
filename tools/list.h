// SPDX-License-Identifier: AGPL-3.0-or-later
// The two formats in which `vgpu list` writes a snapshot. Both return 0 or -ENOMEM; errors of the stream show in ferror(out).
#ifndef VGPU_TOOLS_LIST_H
#define VGPU_TOOLS_LIST_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/snapshot.h"

// Tables for people.
int list_text(const struct snapshot *snapshot, FILE *out, bool colour);

// One JSON object: indented if `pretty`, else on one line. docs/vgpu.1.scd describes it.
int list_json(const struct snapshot *snapshot, FILE *out, bool pretty);

#endif
