"""How is a variant loaded, loaded again or unloaded while the service answers?

The law: a bundle is opened and tested beside what serves, in a thread of its own, and swapped in whole; a load that
fails changes nothing but what is told of it. Changes of one variant come one after the other. What was swapped out
ends when the last request that found it does, and then its memory is given back: never while a bundle is opened, whose
growth would not be its own, and before the next one is, which has room then.

Names are looked up among those of the models folder; they never become a path. Knows nothing about HTTP.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from service.bundles import LoadedBundle, OpenEngine
from service.catalog import FailedBundle
from service.errors import STOPPING, DrainingError, LoadError, RequestTimeoutError
from service.leases import Lease
from service.memory import give_back_freed
from service.routing import VariantName
from service.serving import Serving, ServingVariant
from service.variants import scan, try_bundle
from sparsebert.errors import SparseBertError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A variant that serves from now on, and the version that it takes the place of. Holds no bundle."""

    version: str
    former_version: str | None
    load_s: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Unloaded:
    """A variant that serves no more, which version did, and whether its last request and its memory have gone."""

    former_version: str | None
    gone: bool


class Loader:
    """Changes what serves; use from one event loop."""

    def __init__(self, serving: Serving, open_engine: OpenEngine) -> None:
        self.loading = serving.loading
        self._serving = serving
        self._open_engine = open_engine
        self._turns: dict[VariantName, asyncio.Lock] = {}
        # One at a time, so that memory for one more is enough.
        self._opening = asyncio.Lock()
        # Whoever takes or gives back memory does so alone, so that what the process grows by is the bundle's.
        self._memory = asyncio.Lock()
        self._threads: set[threading.Thread] = set()
        self._loads: set[asyncio.Task[Loaded]] = set()
        self._endings: set[asyncio.Task[bool]] = set()
        # Of what is to end; holds none of it.
        self._leases: dict[asyncio.Task[bool], Lease] = {}

    async def found(self) -> dict[VariantName, Path]:
        """The bundles that lie in the models folder now."""
        return await self._in_thread(partial(scan, self._serving.settings.models))

    async def names(self) -> list[VariantName]:
        """Every variant that can be asked to be loaded or unloaded, in alphabetical order."""
        return sorted({*await self.found(), *self._serving.catalog.names})

    async def load(self, name: VariantName, deadline_s: float) -> Loaded:
        """Open what lies in the models folder now and let it serve; waited for until then, in the event loop's time.

        Raises LoadError, DrainingError, and RequestTimeoutError when it goes on.
        """
        task = self._keep(self._loads, self._load(name), name)
        await asyncio.wait([task], timeout=_left_s(deadline_s))
        if not task.done():
            raise RequestTimeoutError(f"variant {name} is still being loaded; the list of models tells when it is done")
        return task.result()

    async def _load(self, name: VariantName) -> Loaded:
        async with self._turn(name):
            self.loading.add(name)
            try:
                bundle = await self._opened(name)
            finally:
                self.loading.discard(name)
            self._refuse_when_stopping()
            former = self._serving.swap_in(bundle)
            log.info("variant %s serves version %s", name, bundle.manifest.version)
            if former is not None:
                self._end(former)
            return Loaded(
                version=bundle.manifest.version,
                former_version=None if former is None else former.bundle.manifest.version,
                load_s=bundle.load_s,
                memory_bytes=bundle.memory_bytes,
            )

    async def unload(self, name: VariantName, deadline_s: float) -> Unloaded:
        """Let it serve no more, and wait for its requests and its memory until then, in the event loop's time.

        One that is not loaded stays so. Raises DrainingError, and RequestTimeoutError when it is being loaded until
        then.
        """
        try:
            async with asyncio.timeout_at(deadline_s), self._turn(name):
                version = self._swap_out(name)
        except TimeoutError as error:
            raise RequestTimeoutError(f"variant {name} is being loaded; unload it when that is done") from error
        endings = [task for task in self._endings if task.get_name() == str(name)]
        if endings:
            await asyncio.wait(endings, timeout=_left_s(deadline_s))
        return Unloaded(former_version=version, gone=all(task.done() and task.result() for task in endings))

    async def close(self) -> None:
        """Wait for nothing any more."""
        tasks = [*self._loads, *self._endings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def join(self, timeout_s: float) -> None:
        """Wait for a bundle that is still being opened; not for ever."""
        for thread in list(self._threads):
            thread.join(timeout_s)

    @asynccontextmanager
    async def _turn(self, name: VariantName) -> AsyncIterator[None]:
        self._refuse_when_stopping()
        async with self._turns.setdefault(name, asyncio.Lock()):
            self._refuse_when_stopping()
            yield

    def _refuse_when_stopping(self) -> None:
        if self._serving.drain.draining:
            raise DrainingError(STOPPING)

    async def _opened(self, name: VariantName) -> LoadedBundle:
        async with self._opening:
            while unused := [task for task, lease in self._leases.items() if lease.num_held == 0]:
                await asyncio.wait(unused)
            async with self._memory:
                opened = await self._in_thread(partial(self._open, name))
        if isinstance(opened, FailedBundle):
            self._serving.note(opened)
            serves = "; the bundle that was loaded before still serves" if name in self._serving.variants else ""
            raise LoadError(f"variant {name} did not load: {opened.error}{serves}")
        return opened

    def _open(self, name: VariantName) -> LoadedBundle | FailedBundle:
        folder = scan(self._serving.settings.models).get(name)
        if folder is None:
            return FailedBundle(name=name, error=f"the models folder has no {name} any more; put its bundle there")
        opened = self._try(name, folder)
        if isinstance(opened, FailedBundle):
            give_back_freed()
        return opened

    def _try(self, name: VariantName, folder: Path) -> LoadedBundle | FailedBundle:
        try:
            return try_bundle(name, folder, self._serving.settings, self._open_engine, self._serving.clock_s)
        except BaseException as error:
            log.critical("variant %s failed", name, exc_info=error)
            reason = str(error) if isinstance(error, SparseBertError) else "opening it failed; the log says of what"
            return FailedBundle(name=name, error=reason)

    def _swap_out(self, name: VariantName) -> str | None:
        if name not in self._serving.catalog.names:
            return None
        former = self._serving.swap_out(name)
        if former is None:
            return None
        log.info("variant %s serves no more", name)
        self._end(former)
        return former.bundle.manifest.version

    def _keep(
        self, tasks: set[asyncio.Task[Result]], work: Coroutine[Any, Any, Result], name: VariantName
    ) -> asyncio.Task[Result]:
        """Begin what ends whether or not somebody waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=str(name))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # What it raises was told where it arose, and need not be asked for.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def _end(self, former: ServingVariant) -> None:
        """It ends when nobody uses it any more."""
        task = self._keep(self._endings, self._until_gone(former), former.name)
        self._leases[task] = former.lease
        task.add_done_callback(self._leases.pop)

    async def _until_gone(self, former: ServingVariant) -> bool:
        name = former.name
        await former.lease.ended()
        async with self._memory:
            leaving = self._serving.let_go(former)
            del former  # it would hold what is to leave
            try:
                gone = await self._in_thread(leaving.give_back)
            except RuntimeError as error:  # as many threads run as may
                log.error(
                    "the memory of a former bundle of %s is not given back (%s): restart the service", name, error
                )
                return False
        if not gone:
            log.warning("a former bundle of %s is still in use, maybe by a batch that does not end", name)
        return gone

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        """In a thread that does not keep the process from ending."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def run() -> None:
            try:
                tell = partial(_settle, future, call())
            except BaseException as error:  # noqa: BLE001 - who waits must hear of it
                tell = partial(_fail, future, error)
            self._threads.discard(threading.current_thread())
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell)

        thread = threading.Thread(target=run, name="load", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # as many run as may; there is none to wait for
            self._threads.discard(thread)
            raise
        return await future


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - asyncio.get_running_loop().time())


def _settle(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
