#!/usr/bin/env bash
# JAX on a CPU with the pass "fusion" disabled, as one does to have each number computed once: the gradient
# of a batch of sorts, w @ sort(A x) over x, comes back transposed where it should not be (jax 0.10.2 on
# Python 3.11). After layouts are assigned, "algsimp" takes a copy of a transposed array into the usual layout
# for none if a reshape follows. It needs no square arrays: an FFT behind the same reshape is wrong for 4 x 3.
# With the pass on nothing was wrong in 100 programs, as the copy is fused before. Without both, loops take
# many times as long; but a whole pipeline has a name too, and without that of the last simplifications alone
# nothing was wrong in 252 programs, 12 of which "fusion" alone gets wrong, at no cost that was seen.
# On 0.12.0.1 it is mended. Seen on x86-64:
#   jax 0.10.2: default off by 0, without fusions by 3, without the last simplifications too by 0
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
cat > "$folder/transposed.py" <<'PY'
import jax, jax.numpy as jnp, numpy as np

w = np.array([1.0, 2.0, -1.0], np.float32)
x = np.array([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.3, 0.1]], np.float32)
A = np.eye(3, dtype=np.float32)

def gradients(A, x):
    return jax.vmap(lambda one: jax.grad(lambda z: jnp.sort(z) @ w)(A @ one))(x)

right = np.zeros((3, 3))
for row, one in zip(right, x):
    row[np.argsort(one)] = w
off = lambda **options: float(
    np.abs(np.asarray(jax.jit(gradients, compiler_options=options)(A, x)) - right).max()
)
found = off(), off(xla_disable_hlo_passes="fusion"), off(
    xla_disable_hlo_passes="fusion,simplification after layout assignment"
)
print(f"jax {jax.__version__}: default off by {found[0]:g}, without fusions by {found[1]:g}, "
      f"without the last simplifications too by {found[2]:g}")
assert found[0] == found[2] == 0 and found[1] == 3
PY
env -u XLA_FLAGS "$folder/venv/bin/python" "$folder/transposed.py"
