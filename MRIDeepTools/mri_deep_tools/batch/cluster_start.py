"""Where the workers of a batch come from: this machine, a running Dask scheduler, or the jobs of a batch system."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DependencyError, RequestError
from ..progress import Progress
from .worker import LANES

__all__ = ["FAULTS", "QUEUES", "Crew", "Request", "make_queue", "parse_cluster", "started"]

QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
}
"""Batch systems, and the classes of dask-jobqueue that know them."""

FAULTS = (OSError, TimeoutError, asyncio.TimeoutError, concurrent.futures.CancelledError, RuntimeError)
"""What Dask raises when the other side is gone (before Python 3.11 some of these are not one)."""

_KNOWN = f"local:N, tcp://HOST:PORT, or one of {', '.join(QUEUES)}"
_EXAMPLE = "write KEY: VALUE lines (jobs: 20, cores: 8, memory: 32 GiB ...)"
_CONNECT_SECONDS = 15
_PATIENCE = 60.0


@dataclass(frozen=True)
class Request:
    """What ``--cluster`` and ``--cluster-config`` ask for.

    Attributes
    ----------
    name : as the person wrote it.
    kind : ``local``, ``scheduler`` or a key of :data:`QUEUES`.
    workers : how many worker processes (local) or jobs (batch systems).
    address : of the scheduler.
    settings : arguments of dask-jobqueue's cluster.
    threads : of the processor, per worker; None: what the worker was started with.
    lanes : jobs that a worker has in work at once, one of them computed on; no more than Dask gives it threads.

    """

    name: str
    kind: str
    workers: int = 1
    address: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    lanes: int = LANES


@dataclass(frozen=True)
class Crew:
    """A client that is connected, and how to treat its workers.

    Attributes
    ----------
    client : of Dask.
    patience : seconds without any worker after which the batch gives up; infinite where jobs wait in a queue.
    mend : asks for the workers that are missing, where something can be done about it.

    """

    client: Any
    patience: float
    mend: Callable[[], None] = lambda: None


def parse_cluster(text: str, config: str | Path | None = None, lanes: int = LANES) -> Request:
    """Return what ``--cluster TEXT --cluster-config CONFIG`` ask for.

    Raises
    ------
    RequestError : not a known kind of cluster, or a configuration that cannot be used.
    DependencyError : the extra is not installed.

    """
    kind, _, rest = text.strip().partition(":")
    if kind in QUEUES and not rest:
        require("dask_jobqueue")
        return _queue_request(kind, config, lanes)
    if config is not None:
        raise RequestError(
            f"a cluster of the kind {text!r} takes no configuration", f"leave --cluster-config out, or use {_KNOWN}"
        )
    if kind == "local" and rest.isascii() and rest.isdigit() and int(rest) > 0:
        require("distributed")
        from ..inference import available_threads

        threads = max(1, available_threads() // int(rest))
        return Request(text.strip(), "local", int(rest), threads=threads, lanes=lanes)
    if kind in ("tcp", "tls") and rest.startswith("//") and rest[2:].rpartition(":")[2].isdigit():
        require("distributed")
        return Request(text.strip(), "scheduler", address=text.strip(), lanes=lanes)
    raise RequestError(f"there is no cluster {text!r}", f"use {_KNOWN}")


def require(name: str) -> Any:
    """Import a package of the extra ``batch``, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"a batch on a cluster needs {name.replace('_', '-')}, which is not installed",
            'install it with: pip install "mri-deep-tools[batch]"',
        ) from error


def _queue_request(kind: str, config: str | Path | None, lanes: int) -> Request:
    from ..config import read_mapping

    settings = dict(read_mapping(config, "--cluster-config", _EXAMPLE)) if config is not None else {}
    jobs = settings.pop("jobs", 1)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise RequestError(f"jobs is {jobs!r} in the cluster's configuration", "give the number of jobs, 1 or more")
    return Request(kind, kind, jobs, settings={"processes": 1, **settings}, lanes=lanes)


def make_queue(request: Request) -> Any:
    """Return dask-jobqueue's cluster, of which no job is submitted yet.

    Raises
    ------
    RequestError : the configuration does not suffice, or names what dask-jobqueue does not know.

    """
    made = getattr(require("dask_jobqueue"), QUEUES[request.kind])
    known = (
        f"--cluster-config names a file whose keys are arguments of dask_jobqueue.{QUEUES[request.kind]}, and `jobs`"
    )
    try:
        return made(**request.settings)
    except (TypeError, ValueError) as error:
        text = str(error).partition("\n")[0].rstrip(".:").removesuffix(", for example")
        raise RequestError(f"the configuration of {request.kind} cannot be used: {text}", known) from error


@contextmanager
def started(request: Request, progress: Progress) -> Iterator[Crew]:
    """Start or find a cluster; at the end all that was started is stopped.

    Raises
    ------
    RequestError : no scheduler answers, or the batch system is not here.

    """
    require("distributed")
    _quieten()
    with ExitStack() as stack:
        if request.kind == "scheduler":
            crew = Crew(_client(stack, request.address), _PATIENCE)
        elif request.kind == "local":
            crew = Crew(_client(stack, _local(stack, request)), 10 * _PATIENCE)
        else:
            cluster = _submitted(stack, request)
            crew = Crew(_client(stack, cluster), float("inf"), lambda: _submit(cluster, request))
        what = {"local": "workers", "scheduler": None}.get(request.kind, "jobs")
        counted = {what: request.workers} if what else {}
        progress.device(request.name, **counted, dashboard=_dashboard(crew.client))
        yield crew


def _client(stack: ExitStack, where: Any) -> Any:
    from distributed import Client

    try:
        client = Client(where, timeout=_CONNECT_SECONDS)
    except (*FAULTS, ValueError) as error:
        raise RequestError(
            f"no Dask scheduler answers at {where}", "start one with `dask scheduler`, or correct the address"
        ) from error
    stack.callback(_closed, client)
    return client


def _local(stack: ExitStack, request: Request) -> Any:
    """Start a scheduler and worker processes on this machine, each with a thread of Dask for every lane."""
    from distributed import Nanny, Scheduler, SpecCluster

    # No limit of memory here: a batch looks at the memory that is free before it reads a file.
    options = {
        "nthreads": request.lanes,
        "memory_limit": 0,
        "dashboard": False,
        "host": "127.0.0.1",
        "silence_logs": 50,
    }
    options["preload"] = ["mri_deep_tools.batch.cluster_worker"]
    options["config"] = {"distributed.worker.profile.enabled": False}  # it takes processor time from the networks
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what Dask would set to 1
    options["env"] = dict.fromkeys(names, request.threads)
    spec = {number: {"cls": Nanny, "options": options} for number in range(request.workers)}
    dashboard = {"dashboard": True, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, **dashboard}}
    cluster = SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)
    stack.callback(_closed, cluster)
    return cluster


def _submitted(stack: ExitStack, request: Request) -> Any:
    cluster = make_queue(request)
    stack.callback(_closed, cluster)
    _submit(cluster, request)
    return cluster


def _submit(cluster: Any, request: Request) -> None:
    """Submit the jobs that are missing; those that ended, as at the end of their time, are submitted again."""

    async def submit() -> None:
        while len(cluster.worker_spec) < request.workers:
            cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster._correct_state()  # what `scale` calls as well, but there its errors are lost

    try:
        cluster.sync(submit)
    except OSError as error:
        name = getattr(error, "filename", None) or "its command"
        raise RequestError(
            f"{request.kind} is not on this machine ({name} does not start)", "begin where jobs are submitted"
        ) from error
    except RuntimeError as error:
        said = str(error).rpartition("stderr:")[2].strip().partition("\n")[0] or "it gives no reason"
        raise RequestError(
            f"{request.kind} does not take the job: {said}", "correct the cluster's configuration"
        ) from error


def _closed(thing: Any) -> None:
    """Close a client or a cluster, whatever state it is in."""
    with suppress(*FAULTS, AssertionError):  # the last where jobs could not be submitted
        thing.close(timeout=30)


def _dashboard(client: Any) -> str | None:
    """Return the address of the dashboard, None where the scheduler has none."""
    try:
        services = client.scheduler_info().get("services") or {}
    except FAULTS:
        return None
    return str(client.dashboard_link) if services.get("dashboard") else None


def _quieten() -> None:
    """Leave it to the batch to tell what happens to workers."""
    import warnings

    for name in ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"distributed(\..*)?")
