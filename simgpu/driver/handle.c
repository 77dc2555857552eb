// An open-addressing hash table of object addresses.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/handle.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct entry {
    const void *object;
    enum handle_kind kind;
};

static struct entry *table;
static size_t capacity, count; // capacity is a power of two

static size_t home(const void *object)
{
    return (size_t)(((uintptr_t)object >> 4) * 0x9e3779b97f4a7c15ull >> 20) & (capacity - 1);
}

static size_t find(const void *object)
{
    size_t i = home(object);
    while (table[i].object && table[i].object != object)
        i = (i + 1) & (capacity - 1);
    return i;
}

static bool grow(void)
{
    struct entry *old = table;
    size_t old_capacity = capacity;
    struct entry *wider = calloc(capacity ? capacity * 2 : 256, sizeof *wider);

    if (!wider)
        return false;
    table = wider;
    capacity = capacity ? capacity * 2 : 256;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].object)
            table[find(old[i].object)] = old[i];
    free(old);
    return true;
}

bool handle_add(const void *object, enum handle_kind kind)
{
    if (count * 2 >= capacity && !grow())
        return false;
    table[find(object)] = (struct entry){object, kind};
    count++;
    return true;
}

void handle_remove(const void *object)
{
    if (!count)
        return;
    size_t hole = find(object);
    if (!table[hole].object)
        return;
    count--;
    // Entries behind the hole move up if the hole lies between their home and them, so that no search ends early.
    for (size_t i = (hole + 1) & (capacity - 1); table[i].object; i = (i + 1) & (capacity - 1)) {
        if (((i - home(table[i].object)) & (capacity - 1)) >= ((i - hole) & (capacity - 1))) {
            table[hole] = table[i];
            hole = i;
        }
    }
    table[hole].object = NULL;
}

bool handle_is(const void *object, enum handle_kind kind)
{
    if (!object || !count)
        return false;
    const struct entry *entry = &table[find(object)];
    return entry->object && entry->kind == kind;
}
