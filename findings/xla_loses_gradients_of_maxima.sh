#!/usr/bin/env bash
# JAX on a CPU, default options, float64: the gradient of a network with max over neighbours behind a sum of
# two products, max(a tanh(z) + 0.3 z), is off by its own size once compiled (jax 0.10.2 on Python 3.11;
# 0.12.0.1 likewise), without ties and at 3 inputs as at 300. JAX's derivative of a maximum compares the
# entries with it, and XLA computes them anew where they are compared, rounded otherwise where a product and
# a sum become one instruction: none is equal. Op by op it is right, and so it is without the pass "fusion".
# Right as well is a process that forbids that instruction, by XLA_FLAGS=--xla_cpu_max_isa=AVX; the same flag
# as an option of one program, compiler_options={"xla_cpu_max_isa": "AVX"}, is accepted and does nothing.
# Seen on x86-64 with FMA, two cores:
#   default: off by 0.23 of the largest entry, without fusions: 2.9e-16, by an option of the program: 0.23
#   process without the instruction: 1.8e-16
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
cat > "$folder/lost.py" <<'PY'
import os
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)

def network(w, x):
    z = w[:48].reshape(8, 6) @ x
    z = w[48:56] * jnp.tanh(z) + 0.3 * z
    return jnp.max(z.reshape(4, 2), axis=1) @ w[56:]

rng = np.random.default_rng(0)
w, x = rng.normal(size=60), rng.normal(size=(3, 6))
gradients = jax.vmap(jax.grad(network), (None, 0))
with jax.disable_jit():
    right = np.stack([jax.grad(network)(w, one) for one in x])
numbers = lambda w: np.array([network(w, one) for one in x])
steps = [(numbers(w + 1e-6 * e) - numbers(w - 1e-6 * e)) / 2e-6 for e in np.eye(60)]
assert np.abs(np.stack(steps, 1) - right).max() < 1e-8  # central differences, no derivative of JAX's
off = lambda found: float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())
default = off(jax.jit(gradients)(w, x))
by = lambda **options: off(jax.jit(gradients, compiler_options=options)(w, x))
unfused, avx = by(xla_disable_hlo_passes="fusion"), by(xla_cpu_max_isa="AVX")
if "max_isa" in os.environ.get("XLA_FLAGS", ""):
    print(f"process without the instruction: {default:.2g}")
    assert default < 1e-12
else:
    print(f"jax {jax.__version__}: default {default:.2g}, without fusions {unfused:.2g}, "
          f"by an option of the program {avx:.2g}")
    assert default > 1e-3 and unfused < 1e-12 and avx == default
PY
env -u XLA_FLAGS "$folder/venv/bin/python" "$folder/lost.py"
XLA_FLAGS=--xla_cpu_max_isa=AVX "$folder/venv/bin/python" "$folder/lost.py"
