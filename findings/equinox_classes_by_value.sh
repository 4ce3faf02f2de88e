#!/usr/bin/env bash
# cloudpickle sends a class that a script defines by its contents: it makes an empty class at the other
# end and fills it afterwards. Equinox looks at the fields of a module's class while the class is made.
# So the class arrives with all fields in `dataclasses.fields`, and yet no instance of it can be made
# there: its own `__init__` may not set them. A plain frozen dataclass arrives as it was.
# Seen with equinox 0.13.8, cloudpickle 3.1.3, jax 0.10.2: FrozenInstanceError; the dataclass is fine.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q equinox==0.13.8 cloudpickle==3.1.3 jax==0.10.2 jaxlib==0.10.2
cat > "$folder/here.py" <<'PY'
import dataclasses, sys
import cloudpickle
import equinox as eqx

class Layer(eqx.Module):
    kernel: float
    bias: float
    def __init__(self, kernel):
        self.kernel, self.bias = kernel, 0.0

@dataclasses.dataclass(frozen=True)
class Plain:
    kernel: float

print(Layer(2.0))
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump((Layer, Plain), file)
PY
cat > "$folder/there.py" <<'PY'
import dataclasses, pickle, sys
with open(sys.argv[1], "rb") as file:
    Layer, Plain = pickle.load(file)
found = tuple(field.name for field in dataclasses.fields(Layer))
try:
    Layer(2.0)
    made = "fine"
except Exception as error:
    made = type(error).__name__
print(found, made, Plain(2.0))
assert (found, made, Plain(2.0).kernel) == (("kernel", "bias"), "FrozenInstanceError", 2.0)
PY
"$folder/venv/bin/python" "$folder/here.py" "$folder/classes"
"$folder/venv/bin/python" "$folder/there.py" "$folder/classes"
