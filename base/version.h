// SPDX-License-Identifier: AGPL-3.0-or-later
// The version of the project, as `vgpu version` prints it.
#ifndef VGPU_BASE_VERSION_H
#define VGPU_BASE_VERSION_H

#define VGPU_VERSION "0.1.0"

#endif
