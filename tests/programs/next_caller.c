// SPDX-License-Identifier: AGPL-3.0-or-later
// Calls a function that libnext.c interposes.
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    printf("%ld\n", a64l("/"));
    return 0;
}
