// Thrust: sorting, sorting by key, scanning, reducing.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <thrust/device_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>

#include "tests/gpu/check.cuh"

int main()
{
    std::vector<uint64_t> numbers(1 << 20);
    for (size_t i = 0; i < numbers.size(); i++)
        numbers[i] = mixed(i) >> 40; // short enough that some are equal
    while (again()) {
        thrust::device_vector<uint64_t> keys(numbers.begin(), numbers.end()), sums(numbers.size());
        thrust::device_vector<uint32_t> order(numbers.size());
        thrust::sequence(order.begin(), order.end());
        thrust::stable_sort_by_key(keys.begin(), keys.end(), order.begin());
        const uint32_t *sorted = thrust::raw_pointer_cast(order.data());
        const std::vector<uint32_t> permutation = result_of("order", sorted, order.size());
        for (size_t i = 1; i < permutation.size(); i++)
            EXPECT(numbers[permutation[i - 1]] <= numbers[permutation[i]]);
        thrust::inclusive_scan(keys.begin(), keys.end(), sums.begin());
        result_of("sums", thrust::raw_pointer_cast(sums.data()), sums.size());
        const uint64_t total = thrust::reduce(keys.begin(), keys.end());
        result("total", &total, sizeof total);
        thrust::sort(order.begin(), order.end());
        EXPECT(order[12345] == 12345);
    }
    return 0;
}
