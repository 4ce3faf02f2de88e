#!/usr/bin/env bash
# JAX on a CPU, default options: the product z · (A x) with a matrix A of ones, mapped over 300 pairs of
# vectors, is off by its own size once compiled as a whole (jax 0.10.2 on Python 3.11; 0.11.2 and
# 0.12.0.1 likewise). Op by op it is right, and so it is with the compiler option
# xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT. Seen on x86-64, two cores:
#   default: relative error 0.85, with the option: 2.2e-07
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
"$folder/venv/bin/python" - <<'PY'
import jax, jax.numpy as jnp, numpy as np
z = np.sin(np.arange(4800.0, dtype=np.float32)).reshape(300, 16)
x = np.cos(np.arange(900.0, dtype=np.float32)).reshape(300, 3)
right = z.sum(axis=1) * x.sum(axis=1)
product = lambda z, x: jnp.sum(z * (x @ jnp.ones((3, 16), x.dtype)), axis=1)
option = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
off = lambda found: float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())
default, single = off(jax.jit(product)(z, x)), off(jax.jit(product, compiler_options=option)(z, x))
print(f"jax {jax.__version__}: default {default:.2g}, with the option {single:.2g}")
assert not default < 1e-3 and single < 1e-3 and off(product(z, x)) < 1e-3
PY
