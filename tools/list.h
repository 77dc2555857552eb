// SPDX-License-Identifier: AGPL-3.0-or-later
// The two ways in which `vgpu list` writes a snapshot. Both return 0, or -ENOMEM; whether the stream took it shows in ferror(out).
#ifndef VGPU_TOOLS_LIST_H
#define VGPU_TOOLS_LIST_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/snapshot.h"

// Tables for people.
int list_text(const struct snapshot *snapshot, FILE *out, bool colour);

// One JSON object: indented where `pretty`, else in one line. docs/vgpu.1.scd describes it.
int list_json(const struct snapshot *snapshot, FILE *out, bool pretty);

#endif
