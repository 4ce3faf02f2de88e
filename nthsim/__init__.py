"""Exact gradient flow of finite-width networks beside their Neural Tangent Hierarchy.

The public names are listed in `__init__.pyi` and imported at first use, so that `nthsim --help`
does not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
