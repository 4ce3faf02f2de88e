"""flowjax: normalising flows as maps of one input, and their log-densities."""

import jax.numpy as jnp
from flowjax.distributions import Normal
from flowjax.flows import (
    block_neural_autoregressive_flow,
    coupling_flow,
    masked_autoregressive_flow,
    planar_flow,
)
from paramax import unwrap
from written import Listing

LIST = Listing()
FLOWS = {
    "coupling flow": (coupling_flow, {"nn_width": 4}),
    "masked autoregressive flow": (masked_autoregressive_flow, {"nn_width": 4}),
    "block neural autoregressive flow": (block_neural_autoregressive_flow, {"nn_block_dim": 2}),
    "planar flow": (planar_flow, {"width_size": 4, "depth": 1}),
}

for name, (make, options) in FLOWS.items():

    def parts(key, *_, make=make, options=options):
        """A flow of one layer in two dimensions."""
        return make(key, base_dist=Normal(jnp.zeros(2)), flow_layers=1, invert=True, **options)

    @LIST.add(f"log_prob of a {name}", parts, shape=(2,), wrapper="returns `log_prob` of one point")
    def _(flow, x):
        return unwrap(flow).log_prob(x)


ENTRIES = LIST.entries
