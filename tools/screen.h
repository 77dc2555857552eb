// SPDX-License-Identifier: AGPL-3.0-or-later
// Successive full-screen outputs ("pictures") on a terminal.
//
// Uses the sequences that every terminal since the VT100 and xterm has: alternate screen, cursor off, no line wrap, erase to
// the end of the line. Each picture is written in one write, over the old one, so that nothing flickers.
//
// Between screen_wait's calls, SIGINT, SIGTERM, SIGHUP, SIGTSTP and SIGWINCH are blocked; they are what it waits for. Not
// thread safe.
#ifndef VGPU_TOOLS_SCREEN_H
#define VGPU_TOOLS_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

// Whether stdout is a terminal that supports this; and whether colours are wanted there (https://no-color.org).
bool screen_usable(void);
bool screen_colour(void);

// Takes over the signals and, with `pictures`, the screen. screen_close restores the screen; the signals stay blocked, since
// the command ends.
void screen_open(bool pictures);
void screen_close(void);

// Shows `text`, whole lines, cut to the size of the terminal. Returns 0 or -errno.
int screen_show(const char *text);

enum screen_event { SCREEN_TIME, SCREEN_RESIZED, SCREEN_STOP };

// Waits until deadline_ns (monotonic), the end (SIGINT and the like), or an event that requires a new picture. Ctrl-Z stops the
// program with the terminal restored, and `fg` brings the picture back.
enum screen_event screen_wait(uint64_t deadline_ns);

#endif
