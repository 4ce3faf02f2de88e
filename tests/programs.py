"""A Dask cluster that is no part of this process."""

import json
import subprocess
import sys
import time
from pathlib import Path


class Programs:
    """A scheduler and a worker as programs of their own."""

    def __init__(self, file: Path) -> None:
        """What tells where the scheduler listens is `file`."""
        self.file, self.port = file, "0"
        self.started: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start both, the scheduler where it was before."""
        self.file.unlink(missing_ok=True)
        self._run("scheduler", "--dashboard-address", ":0", "--port", self.port)
        while not (self.file.exists() and self.file.read_text()):
            time.sleep(0.05)
        self.port = json.loads(self.file.read_text())["address"].rpartition(":")[2]
        self._run("worker", "--no-dashboard", "--nthreads", "1", "--no-nanny")

    def kill(self) -> None:
        """Kill both."""
        while self.started:
            process = self.started.pop()
            process.kill()
            process.wait()

    def __enter__(self) -> "Programs":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _run(self, program: str, *words: str) -> None:
        tests = str(Path(__file__).parent)  # where the cells' class is
        module = f"distributed.cli.dask_{program}"
        code = f"import runpy, sys; sys.path.append({tests!r}); "
        code += f"runpy.run_module({module!r}, run_name='__main__')"
        given = [sys.executable, "-c", code, *words, "--scheduler-file", str(self.file)]
        self.started.append(subprocess.Popen(given, stderr=subprocess.DEVNULL))
