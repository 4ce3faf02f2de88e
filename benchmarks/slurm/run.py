"""A sweep on a real Slurm of one node, beside the same sweep in this process.

    make slurm
    PYTHONPATH=benchmarks python benchmarks/slurm/run.py [--quick] [--out FOLDER]

Needs the rights of root, Slurm and munge (Debian: apt-get install slurm-wlm munge) and an
environment with dask-jobqueue, which `make slurm` makes. It starts munged, slurmctld and slurmd of
its own with all their files in a temporary folder, and ends them; a Slurm of the machine is left
alone, but must not run on the same ports. Workers are jobs of `SLURMCluster` that `adapt(minimum=2,
maximum=2)` asks for. Four sweeps are compared bit by bit with one that this process computed: with
the cluster itself, with its address, with a client, and while all jobs are cancelled, as at the end
of their walltime. The script fails where a number differs.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import settings, write

import nthsim as nth
from nthsim.models import FCN

#: Slurm with one node, no accounting and no cgroups.
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A Slurm of this machine alone, for as long as this lasts."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"not run: needs root and {', '.join(PROGRAMS)}; missing: {missing}")
    folder.chmod(0o755)
    for name in ("spool", "state"):
        (folder / name).mkdir()
    host, memory = socket.gethostname(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts = {"host": host, "cpus": os.cpu_count(), "memory": memory // 2**20 - 512}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, **facts))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    munge = [f"--{option}={folder / name}" for option, name in files.items()]
    munge += [f"--key-file={key}", f"--seed-file={folder / 'munge.seed'}"]
    programs = [
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", host],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in programs:
            log = (folder / f"{words[0]}.out").open("wb")
            started.append(subprocess.Popen(words, stdout=log, stderr=log))
            time.sleep(2)
        for _ in range(30):
            state = asked("sinfo", "--noheader", "--format=%T")
            if state == "idle":
                break
            time.sleep(1)
        else:
            logs = "\n".join(path.read_text() for path in sorted(folder.glob("*.out")))
            raise SystemExit(f"Slurm did not start, its node is {state!r}:\n{logs[-3000:]}")
        yield
    finally:
        asked("scancel", "--user=root")
        time.sleep(2)
        for process in reversed(started):
            process.terminate()
            process.wait()


def asked(*words: str) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def network(width: int, key: jax.Array) -> FCN:
    """A tanh network of depth 2 on three inputs."""
    return FCN(3, width, 2, key=key)


def study(widths: tuple[int, ...], seeds: int, **where: Any) -> nth.Scaling:
    """Two seeds a batch."""
    rng = np.random.default_rng(0)
    data = nth.Dataset(rng.normal(size=(5, 3)), rng.normal(size=5))
    sweep = nth.Sweep(chunk=2, **where)
    return nth.width_scaling(
        network, data, widths, seeds, (2, 3), [0.0, 1.0, 5.0], sweep=sweep, progress=False
    )


def same(one: nth.Scaling, other: nth.Scaling) -> bool:
    """Whether all numbers are equal, bit by bit."""
    names = ("initial_f", "initial_kernels", "kernel_rms", "kernel_max", "kernel_mean")
    names += ("drift", "error_f", "error_kernel", "blown_up")
    pairs = [(np.asarray(getattr(s, name)).tobytes() for s in (one, other)) for name in names]
    return all(a == b for a, b in pairs)


def main() -> None:
    """Sweep here, then four times on Slurm."""
    arguments = settings(__doc__).parse_args()
    jax.config.update("jax_enable_x64", True)
    nth.guard_process()
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    seeds = 4 if arguments.quick else 16
    found: dict[str, Any] = {"slurm": asked("sbatch", "--version")}
    with tempfile.TemporaryDirectory() as name, slurm(Path(name)):
        jobs = {"cores": 1, "processes": 1, "memory": "3GB", "walltime": "00:30:00"}
        place = {"interface": "lo", "local_directory": name, "log_directory": name}
        with SLURMCluster(
            **jobs, **place, scheduler_options={"dashboard_address": None}
        ) as cluster:
            cluster.adapt(minimum=2, maximum=2)
            with Client(cluster, set_as_default=False) as client:
                ways = {"cluster": cluster, "address": cluster.scheduler_address, "client": client}
                for way, where in ways.items():
                    found[way] = measured(way, (8, 16), seeds, where)
                # Widths that nothing is compiled for yet take long enough.
                end = asked, ("scancel", "--user=root")
                found["jobs cancelled"] = measured("jobs cancelled", (12, 24), seeds, cluster, end)
    write(arguments.out / "slurm.json", found)
    if not all(each["same bits"] for each in found.values() if isinstance(each, dict)):
        raise SystemExit("numbers differ")


def measured(
    way: str, widths: tuple[int, ...], seeds: int, cluster: Any, meanwhile: Any = None
) -> dict[str, Any]:
    """One sweep on a cluster: its seconds, what was told, and whether its numbers are right."""
    wanted = study(widths, seeds)
    if meanwhile:
        threading.Timer(5.0, *meanwhile).start()
    clock = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = study(widths, seeds, cluster=cluster)
    seconds = round(time.perf_counter() - clock, 1)
    words = [str(warning.message) for warning in told]
    facts = {"same bits": same(result, wanted), "seconds": seconds, "told": words}
    print(f"{way}: {facts}", flush=True)
    return facts


if __name__ == "__main__":
    main()
