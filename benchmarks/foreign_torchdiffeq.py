"""Gradient flow by torchdiffeq's dopri5, in PyTorch's environment; driven by stiff.py."""

import sys
import time
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torchdiffeq import odeint  # pyright: ignore[reportMissingImports]

RTOL, ATOL = 1e-4, 1e-7


def main(path: Path) -> None:
    """Integrate once to compile and once for the clock; save f at the end."""
    torch.set_default_dtype(torch.float64)
    problem = np.load(path)
    x, y = (torch.from_numpy(problem[name]) for name in ("x", "y"))
    weights = [torch.from_numpy(problem[f"W{i}"]) for i in range(sum("W" in k for k in problem))]
    shapes, sizes = [w.shape for w in weights], [w.numel() for w in weights]
    evaluations = 0

    def network(theta: list[torch.Tensor]) -> torch.Tensor:
        *hidden, readout = theta
        h = x
        for W in hidden:
            h = torch.tanh(h @ W.T) / len(W) ** 0.5
        return (h @ readout.T).reshape(-1)

    def split(vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.view(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]

    def field(t: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        nonlocal evaluations
        del t
        evaluations += 1
        with torch.enable_grad():
            theta = [part.detach().requires_grad_() for part in split(vector)]
            loss = torch.mean((network(theta) - y) ** 2) / 2
            gradient = torch.autograd.grad(loss, theta)
        return -torch.cat([part.reshape(-1) for part in gradient])

    start = torch.cat([w.reshape(-1) for w in weights])
    field(torch.tensor(0.0), start)
    evaluations, clock = 0, time.perf_counter()
    times = torch.tensor([0.0, float(problem["t"])])
    end = odeint(field, start, times, rtol=RTOL, atol=ATOL, method="dopri5")[-1]
    print(time.perf_counter() - clock, evaluations)
    with torch.no_grad():
        np.save(path.with_suffix(".f.npy"), network(split(end)).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
