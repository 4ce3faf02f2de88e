"""pdequinox: emulators of partial differential equations."""

import jax
import jax.numpy as jnp
from pdequinox.arch import MLP, ClassicFNO, ClassicResNet, ClassicUNet, ConvNet, ModernResNet
from written import Listing

LIST = Listing()
FIELDS = {
    "MLP": lambda key: MLP(
        1, 1, 1, num_points=4, width_size=4, depth=1, activation=jnp.tanh, key=key
    ),
    "ConvNet": lambda key: ConvNet(
        1, 1, 1, hidden_channels=2, depth=2, activation=jnp.tanh, key=key
    ),
    "ClassicResNet": lambda key: ClassicResNet(
        1, 1, 1, hidden_channels=2, num_blocks=1, activation=jax.nn.softplus, key=key
    ),
    "ModernResNet": lambda key: ModernResNet(
        1, 1, 1, hidden_channels=2, num_blocks=1, activation=jnp.tanh, key=key
    ),
    "ClassicFNO": lambda key: ClassicFNO(
        1, 1, 1, hidden_channels=2, num_modes=2, num_blocks=1, key=key
    ),
    "ClassicUNet": lambda key: ClassicUNet(
        1, 1, 1, hidden_channels=2, num_levels=1, activation=jnp.tanh, key=key
    ),
}

for name, make in FIELDS.items():

    @LIST.add(
        name,
        lambda key, *_, make=make: make(key),
        shape=(1, 4),
        wrapper="flattens the field and keeps two points",
    )
    def _(parts, x):
        return jnp.ravel(parts(x))[:2]


ENTRIES = LIST.entries
