// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tools/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define GAP 2

void table_init(struct table *table, const struct table_column *columns, size_t column_count)
{
    *table = (struct table){.columns = columns, .column_count = column_count};
}

void table_add(struct table *table, const char *format, ...)
{
    if (table->cell_count == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        char **cells = realloc(table->cells, capacity * sizeof *cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    va_list args;
    va_start(args, format);
    if (vasprintf(&table->cells[table->cell_count], format, args) < 0)
        table->failed = true;
    else
        table->cell_count++;
    va_end(args);
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = strlen(table->columns[column].title);
    for (size_t i = column; i < table->cell_count; i += table->column_count) {
        size_t length = strlen(table->cells[i]);
        if (length > width)
            width = length;
    }
    return width;
}

static void print_cell(const struct table *table, FILE *out, size_t column, size_t width, const char *text)
{
    bool last = column == table->column_count - 1;
    if (table->columns[column].right)
        fprintf(out, "%*s", (int)width, text);
    else if (last)
        fputs(text, out); // no trailing blanks on a line
    else
        fprintf(out, "%-*s", (int)width, text);
    if (!last)
        fprintf(out, "%*s", GAP, "");
}

void table_print(const struct table *table, FILE *out, bool bold)
{
    size_t *widths = calloc(table->column_count, sizeof *widths);
    if (!widths)
        return;
    for (size_t column = 0; column < table->column_count; column++)
        widths[column] = column_width(table, column);
    fputs(bold ? "\033[1m" : "", out);
    for (size_t column = 0; column < table->column_count; column++)
        print_cell(table, out, column, widths[column], table->columns[column].title);
    fputs(bold ? "\033[0m\n" : "\n", out);
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t column = i % table->column_count;
        print_cell(table, out, column, widths[column], table->cells[i]);
        if (column == table->column_count - 1)
            fputc('\n', out);
    }
    free(widths);
}

void table_clear(struct table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}
