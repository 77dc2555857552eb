// SPDX-License-Identifier: AGPL-3.0-or-later
// Names, paths and arguments come from outside: in a message they must neither end its line nor steer the terminal.
#ifndef VGPU_BASE_LINE_H
#define VGPU_BASE_LINE_H

static inline void line_clean(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

#endif
