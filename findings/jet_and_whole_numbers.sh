#!/usr/bin/env bash
# Taylor arithmetic (jax.experimental.jet) takes the conversion of numbers to a type of whole numbers
# for linear: it makes every Taylor coefficient whole, without a word, where the derivatives of JAX
# are zero. So a step function has slopes in jet, and that of a slope below one is right by chance.
# Seen with jax 0.10.2 and 0.12.0.1: slope 50 of the steps of (50 x).astype(int), 0 for x.astype(int)
# along a slope of 0.5, 3 along one of 3; by jax.jvp all are 0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for pair in python3.11:0.10.2 python3.13:0.12.0.1; do
  "${pair%%:*}" -m venv "$folder/${pair##*:}"
  "$folder/${pair##*:}/bin/pip" install -q "jax==${pair##*:}" "jaxlib==${pair##*:}"
  "$folder/${pair##*:}/bin/python" - <<'PY'
import jax
from jax.experimental.jet import jet
def steps(k):
    return lambda x: (k * x).astype(int).astype(float)
x = jax.numpy.array(0.3)
found = []
for k, slope in ((50.0, 1.0), (1.0, 0.5), (1.0, 3.0)):
    _, (first,) = jet(steps(k), (x,), ([slope],))
    _, tangent = jax.jvp(steps(k), (x,), (jax.numpy.array(slope),))
    found.append((float(first), float(tangent)))
print(f"jax {jax.__version__}: {found}")
assert found == [(50.0, 0.0), (0.0, 0.0), (3.0, 0.0)]
PY
done
