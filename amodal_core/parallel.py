"""Many jobs in processes of their own, here or on a Ray cluster; one that fails stops no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from threading import Thread
from typing import Any, TypeVar

from amodal_core.errors import InputError
from amodal_core.extras import extra

_Job = TypeVar("_Job")


class ProcessEndedError(Exception):
    """The process of a job ended amid it: killed, out of memory, or crashed."""


def cores() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def outcomes(
    function: Callable[[_Job], Any],
    jobs: Sequence[_Job],
    workers: int,
    cluster: str = "",
    preload: Sequence[str] = (),
) -> Iterator[tuple[int, Any]]:
    """Run a function on each job and give what it returned, or the exception, as they end.

    Args:
        function: of a module; it, jobs and results can be pickled.
        jobs: its arguments.
        workers: how many run at once.
        cluster: "" for processes of this machine; "local" for a Ray started here, otherwise the
            address of one ("auto", "ray://head:10001"), whose machines have this package and see
            the same paths.
        preload: modules that local processes have imported when they begin, once for all.

    Yields:
        (number of the job, result or exception).

    Raises:
        InputError: Ray is not installed, or there is no cluster at that address.
    """
    workers = max(1, min(workers, len(jobs)))
    with ExitStack() as ending:
        slots: list[Executor] = []
        if cluster:
            ray = ending.enter_context(_Ray(cluster, workers))
            slots = [ray] * workers
        else:
            slots = [process(preload) for _ in range(workers)]
            ending.callback(lambda: end(*slots))
        left = iter(enumerate(jobs))
        running: dict[Future[Any], tuple[int, int]] = {}

        def next_in(slot: int) -> None:
            if (following := next(left, None)) is not None:
                number, job = following
                running[slots[slot].submit(function, job)] = number, slot

        for slot in range(workers):
            next_in(slot)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, slot = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    end(slots[slot])
                    slots[slot] = process(preload)
                    error = ProcessEndedError("killed, out of memory or crashed")
                next_in(slot)
                yield number, future.result() if error is None else error


def process(preload: Sequence[str] = (), count: int = 1) -> ProcessPoolExecutor:
    """Processes that end with this one, however it is killed.

    They are forked from a server that has imported `preload` and done nothing else: what takes
    seconds is imported once for all. The first call of a process decides it for all later ones.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(count, mp_context=context, initializer=_die_with_parent)


def end(*pools: Executor) -> None:
    """End their processes now; nobody waits for what they do."""
    for pool in pools:
        for child in list((getattr(pool, "_processes", None) or {}).values()):
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _die_with_parent() -> None:
    """A worker ends with the process whose jobs it does, however that ends.

    The server that forked it stays while a worker is left, so that its end says nothing. What is
    left of a Ctrl-C is the parent's to decide.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Ray(Executor):
    """A Ray cluster as an executor; each job takes one of its cores."""

    def __init__(self, address: str, workers: int) -> None:
        with extra("ray", "a Ray cluster"):
            import ray
        self._ray = ray
        place: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                **({"address": address} if address != "local" else {"address": "local", **place}),
                log_to_driver=False,
                logging_level="error",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = f"no Ray cluster: {str(error).splitlines()[0]}"
            raise InputError(what, address, "start one: ray start --head") from error
        finally:
            signal.signal(signal.SIGTERM, ours)  # Ray puts its own in its place

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run there; a machine that is lost is another's work, an exception is the caller's."""
        task = self._ray.remote(max_retries=1, retry_exceptions=False)(fn)
        future: Future[Any] = task.remote(*args, **kwargs).future()
        return future

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
