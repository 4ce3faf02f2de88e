#!/usr/bin/env bash
# Taylor arithmetic (jax.experimental.jet) takes erf in jax 0.10.2 and in 0.12.0.1, but its derivative,
# as jax.grad makes it, in 0.10.2 alone: in 0.12 it holds a function with a derivative of its own, in
# which jet loses a tracer. So jet of a gradient fails where the gradient of jet works.
# Seen: 0.10.2 fine, fine; 0.12.0.1 fine, UnexpectedTracerError.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for pair in python3.11:0.10.2 python3.13:0.12.0.1; do
  "${pair%%:*}" -m venv "$folder/${pair##*:}"
  "$folder/${pair##*:}/bin/pip" install -q "jax==${pair##*:}" "jaxlib==${pair##*:}"
  "$folder/${pair##*:}/bin/python" - <<'PY'
import jax
from jax.experimental.jet import jet
def tried(function):
    try:
        jet(function, (0.3,), ([1.0, 0.0],))
    except Exception as error:
        return type(error).__name__
    return "fine"
found = tried(jax.scipy.special.erf), tried(jax.grad(jax.scipy.special.erf))
print(f"jax {jax.__version__}: {', '.join(found)}")
assert found == {"0.10.2": ("fine", "fine"), "0.12.0.1": ("fine", "UnexpectedTracerError")}[jax.__version__]
PY
done
