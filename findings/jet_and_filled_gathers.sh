#!/usr/bin/env bash
# jax.experimental.jet on an index beyond an array's end that is filled in, as padding of neighbours by the
# neutral number of a product: the rule of "gather" puts the fill value into every coefficient (times 2 in the
# second, by jet's scale), where those after the first are zero, as a constant does not move. jvp and nested
# derivatives are right. With the fill value 0 nobody sees it. Seen on x86-64, Python 3.13:
#   jax 0.12.0.1: jet [1, 2], nested derivatives [0, 0]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.12.0.1 jaxlib==0.12.0.1
cat > "$folder/filled.py" <<'PY'
import jax, jax.numpy as jnp
from jax.experimental.jet import jet

padded = lambda z: z.at[7].get(mode="fill", fill_value=1.0)
z, v = jnp.array([2.0, 3.0]), jnp.array([5.0, 7.0])
_, found = jet(padded, (z,), [[v, jnp.zeros(2)]])
once = lambda z: jax.jvp(padded, (z,), (v,))[1]
right = once(z), jax.jvp(once, (z,), (v,))[1]
print(f"jax {jax.__version__}: jet {[int(a) for a in found]}, nested derivatives {[int(a) for a in right]}")
assert [*map(float, found)] == [1, 2] and [*map(float, right)] == [0, 0]
PY
"$folder/venv/bin/python" "$folder/filled.py"
