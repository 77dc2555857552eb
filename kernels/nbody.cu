// Moves bodies that attract each other: much arithmetic on little data, tiled in shared memory.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// One kernel is one step in time, from one buffer to the other. Motion is chaotic, so the host does not follow it from the
// start: it computes the last step again in double precision from the state before it. A velocity may differ by TOLERANCE of
// what the step could have changed plus the rounding of its own size. Every body also counts its steps, exactly.
#include "kernels/common.cuh"

#define BLOCK 128
#define SOFTENING 0.01f // squared length below which attraction stops growing
#define TIME_STEP 0.0005f
#define TOLERANCE 1e-4
#define MOST_CHECKED 512

// In position.w the mass, in velocity.w the steps taken, modulo STEP_WRAP: whole numbers that a float holds exactly.
#define STEP_WRAP 8388608.0f

__global__ void nbody(const float4 *position, const float4 *velocity, float4 *next_position, float4 *next_velocity, unsigned n)
{
    __shared__ float4 tile[BLOCK];
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    float4 p = i < n ? position[i] : make_float4(0, 0, 0, 0);
    float ax = 0, ay = 0, az = 0;

    for (unsigned first = 0; first < n; first += BLOCK) {
        unsigned j = first + threadIdx.x;
        tile[threadIdx.x] = j < n ? position[j] : make_float4(0, 0, 0, 0);
        __syncthreads();
        for (unsigned k = 0; k < BLOCK; k++) {
            float dx = tile[k].x - p.x, dy = tile[k].y - p.y, dz = tile[k].z - p.z;
            float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + SOFTENING);
            float pull = tile[k].w * inverse * inverse * inverse;
            ax += pull * dx;
            ay += pull * dy;
            az += pull * dz;
        }
        __syncthreads();
    }
    if (i < n) {
        float4 v = velocity[i];
        v.x += ax * TIME_STEP;
        v.y += ay * TIME_STEP;
        v.z += az * TIME_STEP;
        v.w = v.w + 1 == STEP_WRAP ? 0 : v.w + 1;
        next_velocity[i] = v;
        next_position[i] = make_float4(p.x + v.x * TIME_STEP, p.y + v.y * TIME_STEP, p.z + v.z * TIME_STEP, p.w);
    }
}

static bool near(double value, double expected, double scale)
{
    return fabs(value - expected) <= TOLERANCE * scale + 1e-6 * fabs(expected); // false for NaN
}

struct state {
    std::vector<float4> position, velocity;
};

static bool verify_body(const state &before, const state &after, size_t i)
{
    const float4 p = before.position[i], v = before.velocity[i], q = after.position[i], w = after.velocity[i];
    double a[3] = {0, 0, 0}, pull_sum = 0;

    for (const float4 &other : before.position) {
        double dx = (double)other.x - p.x, dy = (double)other.y - p.y, dz = (double)other.z - p.z;
        double square = dx * dx + dy * dy + dz * dz + (double)SOFTENING;
        double pull = other.w / (square * sqrt(square));
        a[0] += pull * dx;
        a[1] += pull * dy;
        a[2] += pull * dz;
        pull_sum += pull * sqrt(square);
    }
    const double t = (double)TIME_STEP, change = pull_sum * t;
    return near(w.x, v.x + a[0] * t, change) && near(w.y, v.y + a[1] * t, change) && near(w.z, v.z + a[2] * t, change) &&
           near(q.x, p.x + (double)w.x * t, change * t) && near(q.y, p.y + (double)w.y * t, change * t) &&
           near(q.z, p.z + (double)w.z * t, change * t) && q.w == p.w;
}

static bool verify(const state &before, const state &after, uint64_t steps)
{
    const size_t n = after.position.size(), checked = n < MOST_CHECKED ? n : MOST_CHECKED;
    const float counted = (float)(steps % (uint64_t)STEP_WRAP);

    for (size_t i = 0; i < n; i++) {
        if (after.velocity[i].w != counted) {
            fprintf(stderr, "%s: body %zu made %.0f steps, expected %.0f\n", workload.name, i, (double)after.velocity[i].w,
                    (double)counted);
            return false;
        }
    }
    for (size_t k = 0; steps && k < checked; k++) {
        size_t i = k * n / checked;
        if (!verify_body(before, after, i)) {
            fprintf(stderr, "%s: body %zu is not where its last step leads\n", workload.name, i);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    workload.name = "nbody";
    workload.purpose = "Moves bodies under gravity, one kernel a step. The last step is checked in double precision.";
    workload.size_help = "bodies (default 1024)";
    workload.size = 1024;
    workload.least = 1;
    workload.most = 1 << 24;
    begin(nullptr, 0, argc, argv);

    const size_t n = workload.size;
    state start = {std::vector<float4>(n), std::vector<float4>(n)};
    for (size_t i = 0; i < n; i++) {
        auto coordinate = [&](unsigned axis) { return (float)(mixed(3 * i + axis) >> 40) / (float)(1 << 23) - 1; };
        start.position[i] = make_float4(coordinate(0), coordinate(1), coordinate(2), 1.0f / (float)n);
        start.velocity[i] = make_float4(0, 0, 0, 0);
    }
    float4 *position[2] = {to_device(start.position), poisoned<float4>(n)};
    float4 *velocity[2] = {to_device(start.velocity), poisoned<float4>(n)};
    cudaStream_t stream;
    CHECK(cudaStreamCreate(&stream));
    uint64_t steps = run_steps(stream, [&](uint64_t step) {
        unsigned from = step % 2, to = from ^ 1;
        launch(nbody, blocks_for(n, BLOCK), BLOCK, 0, stream, position[from], velocity[from], position[to], velocity[to], n);
    });
    unsigned last = steps % 2;
    state after = {to_host(position[last], n), to_host(velocity[last], n)};
    state before = {to_host(position[last ^ 1], n), to_host(velocity[last ^ 1], n)};
    bool right = verify(before, after, steps);
    CHECK(cudaStreamDestroy(stream));
    for (unsigned i = 0; i < 2; i++) {
        CHECK(cudaFree(position[i]));
        CHECK(cudaFree(velocity[i]));
    }
    uint64_t sum = checksum(checksum_of(after.position), after.velocity.data(), n * sizeof(float4));
    return report(&workload, right, sum, "");
}
