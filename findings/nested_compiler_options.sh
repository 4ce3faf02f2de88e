#!/usr/bin/env bash
# A jitted function with compiler_options may be called by itself and under vmap, but not under
# jax.grad in jax 0.10.2, where no jit of one's own is around it: the error speaks of "a nested jit".
# In jax 0.12.0.1 the same call works. Seen: 0.10.2 raises ValueError, 0.12.0.1 returns 2.0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for pair in python3.11:0.10.2 python3.13:0.12.0.1; do
  "${pair%%:*}" -m venv "$folder/${pair##*:}"
  "$folder/${pair##*:}/bin/pip" install -q "jax==${pair##*:}" "jaxlib==${pair##*:}"
  "$folder/${pair##*:}/bin/python" - <<'PY'
import jax
double = jax.jit(lambda x: 2 * x, compiler_options={"xla_cpu_enable_fast_math": False})
assert float(double(1.0)) == 2
try:
    found = float(jax.grad(double)(1.0))
except ValueError as error:
    found = type(error).__name__
print(f"jax {jax.__version__}: the gradient is {found}")
assert found == {"0.10.2": "ValueError", "0.12.0.1": 2.0}[jax.__version__]
PY
done
