"""Futures, and tasks that an executor runs."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any


class Future:
    """The result of work that finishes later; coroutine callbacks can await it."""

    def __init__(self, *, executor: Any = None) -> None:
        self._executor = executor
        self._state = threading.Condition()
        self._done = self._cancelled = self._exception_fetched = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._callbacks: list[Callable[[Future], Any]] = []

    def __del__(self) -> None:
        if self._exception is not None and not self._exception_fetched:
            warnings.warn(
                f"The following exception was never retrieved: {self._exception}", stacklevel=1
            )

    def __await__(self) -> Generator[Any, None, Any]:
        while not self._done and not self._cancelled:
            yield self
        return self.result()

    def cancel(self) -> None:
        """Give up, unless it is done."""
        self._finish(cancelled=True)

    def cancelled(self) -> bool:
        """Whether it was given up."""
        return self._cancelled

    def done(self) -> bool:
        """Whether there is a result, an exception or a cancellation."""
        return self._done or self._cancelled

    def result(self) -> Any:
        """The result; None before it is done. Raises what the work raised."""
        exception = self.exception()
        if exception is not None:
            raise exception
        return self._result

    def exception(self) -> BaseException | None:
        """What the work raised."""
        self._exception_fetched = True
        return self._exception

    def set_result(self, result: Any) -> None:
        """Finish with a result."""
        self._finish(result=result)

    def set_exception(self, exception: BaseException) -> None:
        """Finish with an exception."""
        self._finish(exception=exception)

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Call with this future when it is done; at once where it is."""
        with self._state:
            if not self.done():
                self._callbacks.append(callback)
                return
        self._call(callback)

    def _wait(self, timeout_sec: float | None) -> bool:
        with self._state:
            return self._state.wait_for(self.done, timeout_sec)

    def _finish(
        self,
        result: Any = None,
        exception: BaseException | None = None,
        cancelled: bool = False,
    ) -> None:
        with self._state:
            if self.done():
                return
            self._result, self._exception = result, exception
            self._done, self._cancelled = not cancelled, cancelled
            callbacks, self._callbacks = self._callbacks, []
            self._state.notify_all()
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Future], Any]) -> None:
        if self._executor is not None:
            self._executor.create_task(callback, self)
        else:
            callback(self)


class Task(Future):
    """A function or coroutine for an executor; done when it returns."""

    def __init__(
        self,
        handler: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        executor: Any = None,
        finished: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(executor=None)
        self._runner = executor
        self._on_finished = finished
        self._handler: Any = handler
        self._args, self._kwargs = args, kwargs or {}
        self._coroutine: Any = handler if inspect.iscoroutine(handler) else None
        self._step = threading.Lock()

    def __call__(self) -> None:
        """Run to the end, or to the next await."""
        if not self._step.acquire(blocking=False):
            return
        try:
            if self.done():
                return
            if self._coroutine is None:
                result = self._handler(*self._args, **self._kwargs)
                if not inspect.iscoroutine(result):
                    self._end(result=result)
                    return
                self._coroutine = result
            awaited = self._coroutine.send(None)
        except StopIteration as end:
            self._end(result=end.value)
            return
        except BaseException as error:
            self._end(exception=error)
            return
        finally:
            self._step.release()
        # Suspended: run on when what it waits for is done, else in the executor's next round.
        if isinstance(awaited, Future):
            awaited.add_done_callback(lambda _: self._runner._resume(self))
        else:
            self._runner._resume(self)

    def _end(self, **outcome: Any) -> None:
        if self._on_finished:
            self._on_finished()
        self._finish(**outcome)
