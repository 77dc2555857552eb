// SPDX-License-Identifier: AGPL-3.0-or-later
// Text tables with columns as wide as their contents.
#ifndef VGPU_TOOLS_TABLE_H
#define VGPU_TOOLS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table_column {
    const char *title;
    bool right; // aligned to the right, as numbers are
};

struct table {
    const struct table_column *columns;
    size_t column_count;
    char **cells; // row by row
    size_t cell_count, capacity;
    bool failed; // out of memory: cells are missing
};

void table_init(struct table *table, const struct table_column *columns, size_t column_count);

// Adds the next cell, from left to right and row by row. Its text must be ASCII.
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Prints titles and rows, the titles bold if `bold`.
void table_print(const struct table *table, FILE *out, bool bold);

void table_clear(struct table *table);

#endif
