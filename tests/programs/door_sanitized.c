// SPDX-License-Identifier: AGPL-3.0-or-later
// Built with a sanitizer, whose runtime looks functions up before it or anything else is initialised.
#include "driver.h"

int main(void)
{
    start();
    printf("total %zu\n", told_total());
    return 0;
}
