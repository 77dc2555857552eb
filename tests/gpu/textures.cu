// Arrays: textures with filtering, surfaces that kernels write, layers, and mipmapped arrays with levels chosen in the kernel.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tests/gpu/check.cuh"

static const int side = 256, layers = 4, levels = 6;

__global__ void sample(cudaTextureObject_t texture, float *out, int width, float shift)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < width)
        out[y * width + x] = tex2D<float>(texture, (x + shift) / width, (y + shift) / width);
}

__global__ void paint(cudaSurfaceObject_t surface, int width, int layer)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < width)
        surf2DLayeredwrite((float)(x * 3 + y * 5 + layer * 7), surface, x * (int)sizeof(float), y, layer);
}

__global__ void paint_level(cudaSurfaceObject_t surface, int width, int level)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < width)
        surf2Dwrite((float)(x + y * 2 + level * 100), surface, x * (int)sizeof(float), y);
}

__global__ void sample_layers(cudaTextureObject_t texture, float *out, int width)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    float sum = 0;
    for (int layer = 0; layer < 4; layer++)
        sum = sum * 3 + tex2DLayered<float>(texture, x + 0.5f, y + 0.5f, layer);
    if (x < width && y < width)
        out[y * width + x] = sum;
}

__global__ void sample_levels(cudaTextureObject_t texture, float *out, int width)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < width)
        out[y * width + x] = tex2DLod<float>(texture, (x + 0.5f) / width, (y + 0.5f) / width, (float)(x % 6) * 0.75f);
}

static cudaTextureObject_t texture_of(cudaResourceDesc resource, bool normalized, cudaTextureFilterMode filter)
{
    cudaTextureObject_t texture;
    cudaTextureDesc description = {};
    description.addressMode[0] = description.addressMode[1] = cudaAddressModeClamp;
    description.filterMode = description.mipmapFilterMode = filter;
    description.normalizedCoords = normalized;
    description.maxMipmapLevelClamp = levels - 1;
    OK(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
    return texture;
}

static cudaResourceDesc resource_of(cudaArray_t array)
{
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    return resource;
}

int main()
{
    const dim3 block(16, 16), grid(side / 16, side / 16);
    const cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    const std::vector<float> picture = random_values(side * side, 1);
    float *out = poisoned<float>(side * side);
    while (again()) {
        cudaArray_t flat, layered;
        OK(cudaMallocArray(&flat, &format, side, side));
        OK(cudaMemcpy2DToArray(flat, 0, 0, picture.data(), side * sizeof(float), side * sizeof(float), side,
                               cudaMemcpyHostToDevice));
        cudaTextureObject_t texture = texture_of(resource_of(flat), true, cudaFilterModeLinear);
        launch(sample, grid, block, nullptr, texture, out, side, 0.3f);
        result_of("filtered texture", out, side * side);
        OK(cudaDestroyTextureObject(texture));
        OK(cudaFreeArray(flat));

        OK(cudaMalloc3DArray(&layered, &format, make_cudaExtent(side, side, layers),
                             cudaArrayLayered | cudaArraySurfaceLoadStore));
        cudaResourceDesc resource = resource_of(layered);
        cudaSurfaceObject_t surface;
        OK(cudaCreateSurfaceObject(&surface, &resource));
        for (int layer = 0; layer < layers; layer++)
            launch(paint, grid, block, nullptr, surface, side, layer);
        texture = texture_of(resource, false, cudaFilterModePoint);
        launch(sample_layers, grid, block, nullptr, texture, out, side);
        result_of("layers", out, side * side);
        OK(cudaDestroyTextureObject(texture));
        OK(cudaDestroySurfaceObject(surface));
        OK(cudaFreeArray(layered));

        cudaMipmappedArray_t pyramid;
        OK(cudaMallocMipmappedArray(&pyramid, &format, make_cudaExtent(side, side, 0), levels, cudaArraySurfaceLoadStore));
        for (int level = 0; level < levels; level++) {
            cudaArray_t array;
            OK(cudaGetMipmappedArrayLevel(&array, pyramid, level));
            resource = resource_of(array);
            OK(cudaCreateSurfaceObject(&surface, &resource));
            launch(paint_level, grid, block, nullptr, surface, side >> level, level);
            OK(cudaDestroySurfaceObject(surface));
        }
        resource = {};
        resource.resType = cudaResourceTypeMipmappedArray;
        resource.res.mipmap.mipmap = pyramid;
        texture = texture_of(resource, true, cudaFilterModeLinear);
        launch(sample_levels, grid, block, nullptr, texture, out, side);
        result_of("mipmap levels", out, side * side);
        OK(cudaDestroyTextureObject(texture));
        OK(cudaFreeMipmappedArray(pyramid));
    }
    OK(cudaFree(out));
    return 0;
}
