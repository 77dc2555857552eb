# SPDX-License-Identifier: AGPL-3.0-or-later
"""JAX: jitted functions, a gradient, a loop on the GPU. How it takes memory is set in the environment."""
import os

# No timing of kernels against each other, which could end with another result.
os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0 --xla_gpu_deterministic_ops=true"
from check import need, passes, result  # noqa: E402

jax = need("jax")
import jax.numpy as jnp  # noqa: E402

if jax.default_backend() != "gpu":
    print("JAX has no GPU backend here")
    raise SystemExit(77)


def predict(weights, inputs):
    for w in weights:
        inputs = jnp.tanh(inputs @ w)
    return inputs


@jax.jit
def step(weights, inputs, targets):
    loss, gradient = jax.value_and_grad(lambda w: jnp.mean((predict(w, inputs) - targets) ** 2))(weights)
    return [w - 0.1 * g for w, g in zip(weights, gradient)], loss


@jax.jit
def iterate(x):
    return jax.lax.fori_loop(0, 50, lambda i, y: jnp.sin(y) + jnp.roll(y, i) * 0.5, x)


for _ in passes():
    keys = jax.random.split(jax.random.key(1), 5)
    weights = [jax.random.normal(key, (256, 256)) / 16 for key in keys[:3]]
    inputs, targets = jax.random.normal(keys[3], (512, 256)), jax.random.normal(keys[4], (512, 256))
    for _ in range(20):
        weights, loss = step(weights, inputs, targets)
    result("loss", jax.device_get(loss))
    result("weights", jax.device_get(weights[0]))
    result("loop", jax.device_get(iterate(inputs)))
    result("sort", jax.device_get(jnp.sort(inputs, axis=1)))
