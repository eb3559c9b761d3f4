"""The engine ``dask://``: the workers of a Dask cluster are seats.

A seat is a task of Dask that lasts as long as the batch (:mod:`nbrun.engines.dask_worker`). So the scheduler places the
seats, an adaptive cluster grows for them, and a lost one is executed again on another worker. Runs are no tasks. This
process sends each run to one seat, in a call that the scheduler passes on, so Dask never executes a run again by
itself.

The function of a task and of a call is a pickle in a pickle. The scheduler unpickles only the outer one, so it needs
no nbrun, and a worker without nbrun answers with an error that can be explained.
"""

import asyncio
import contextlib
import logging
import pickle
import secrets
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from nbrun.core.batch.parcels import Delivery, Needs, Parcel, unpacked_event
from nbrun.core.events import Event
from nbrun.core.formats.json_text import as_object, loads
from nbrun.core.planning.destinations import without_credentials
from nbrun.core.planning.option_types import PathName
from nbrun.errors import BadFrame, ExitCode, NbrunError, SeatLost, ServerError, UsageError
from nbrun.jupyter.kernelspecs import KernelSpec, KernelSpecs
from nbrun.runner.engine import EngineCall, SeatSetting
from nbrun.runner.stop import StopSwitch

_is_first = "distributed" not in sys.modules  # the log of a program that uses Dask is not changed
import dask  # noqa: E402
import distributed  # noqa: E402
from distributed.versions import VersionMismatchWarning  # noqa: E402

from nbrun.engines.dask_setting import describe  # noqa: E402
from nbrun.engines.dask_worker import CALL, TOPIC, occupy  # noqa: E402


def _without_log() -> None:
    """Remove the handlers with which the import of Dask writes its log to standard error."""
    for name in ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application"):
        logger = logging.getLogger(name)
        for handler in tuple(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                logger.removeHandler(handler)
                logger.addHandler(logging.NullHandler())


if _is_first:
    _without_log()

CONNECT_LIMIT = 30.0
"""Seconds to reach the scheduler."""
ANSWER_LIMIT = 30.0
"""Seconds for a worker or the scheduler to answer; afterwards it counts as lost."""
READY_LIMIT = 90.0
"""Seconds for a seat to start its private server."""
LOOK = 1.0
"""Seconds between two looks at the cluster."""
POLL = 10.0
"""Seconds after which a seat without news is asked for a sign of life."""
END_LIMIT = 5.0
"""Seconds for the seats to end."""
CLOSE_LIMIT = 2.0
"""Seconds for the scheduler to release what is left, and for the connection to it to end."""
_LEAVING = ("closing_gracefully", "closing")
"""States of a worker that ends in an orderly way, for example because the cluster shrinks."""
_SETTINGS = ("ca_file", "cert", "key")
_log = logging.getLogger(__name__)


class _Pickled:
    """Is unpickled as the result of a function that is called without arguments."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return self._function, ()


class Dask:
    """The engine. Its seats execute the runs."""

    executes = True

    def __init__(self, call: EngineCall) -> None:
        """Check the address and the certificates."""
        self._startup = call.startup
        shown = f"--engine {without_credentials(call.url)}"
        url = urlsplit(call.url)
        is_tls = url.scheme.lower().endswith("+tls")
        given = {name: str(path) for name, path in call.read(dict.fromkeys(_SETTINGS, PathName())).items()}
        if call.access.ca_file is not None:
            given["ca_file"] = str(call.access.ca_file)
        self._address = _address(url.netloc, is_tls=is_tls, shown=shown)
        if url.path.strip("/") or url.query or url.fragment or "@" in url.netloc:
            raise UsageError(f"{shown}: the address has more than a host and a port")
        if not call.access.verify:
            raise UsageError(f"{shown}: --insecure is not possible with Dask", hint="Use --ca-file.")
        if given and not is_tls:
            raise UsageError(f"{shown}: certificates need dask+tls://")
        self._security = _security(given, shown) if is_tls else None

    @contextlib.asynccontextmanager
    async def seats(self, wanted: int) -> AsyncIterator[AsyncIterator["DaskSeat"]]:
        """Connect to the scheduler, and place up to `wanted` seats."""
        timeout = min(0.9 * self._startup, CONNECT_LIMIT)  # sooner than the limit for a seat, which says less
        with warnings.catch_warnings():
            # Other versions of msgpack on a worker are no news for a user of nbrun.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = distributed.Client(
                self._address,
                asynchronous=True,
                security=self._security,
                set_as_default=False,
                name="nbrun",
                timeout=timeout,
            )
            try:
                await client
            except (OSError, RuntimeError, ValueError, TypeError, ImportError) as error:
                await _quiet(client.close(CLOSE_LIMIT), CLOSE_LIMIT)
                hint = "Is it a scheduler of Dask, and is dask+tls:// needed or not?"
                raise ServerError(f"no Dask scheduler answers at {self._address}: {error}", hint=hint) from None
        cluster = _Cluster(client, self._address, wanted)
        try:
            await cluster.check_workers()
            watching = asyncio.create_task(cluster.watch())
            try:
                yield cluster.ready_seats()
            finally:
                watching.cancel()
                await asyncio.wait({watching})
        finally:
            await cluster.end()


def engine(call: EngineCall) -> Dask:
    """Return the engine for a call; raise :class:`UsageError`."""
    return Dask(call)


def _address(netloc: str, *, is_tls: bool, shown: str) -> str:
    """Return Dask's address for a URL; without a host it is that of Dask's configuration."""
    protocol = "tls" if is_tls else "tcp"
    if not netloc:
        configured = dask.config.get("scheduler-address", None)
        if not configured:
            hint = "Write HOST:8786 behind it, or set scheduler-address in Dask's configuration."
            raise UsageError(f"{shown}: there is no address", hint=hint)
        return str(configured)
    try:
        host, port = distributed.comm.parse_host_port(netloc)
    except ValueError as error:
        raise UsageError(f"{shown}: {error}", hint="Write HOST:PORT; a scheduler's usual port is 8786.") from None
    return f"{protocol}://{distributed.comm.unparse_host_port(host, port)}"


def _security(given: Mapping[str, str], shown: str) -> "distributed.Security":
    """Return the certificates: the given ones, or else those of Dask's configuration."""
    names = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    table = "Set ca_file, cert and key in [tool.nbrun.engine.dask], or distributed.comm.tls in Dask's configuration."
    try:
        security = distributed.Security(**{names[name]: path for name, path in given.items()}, require_encryption=True)
        context = security.get_connection_args("client")["ssl_context"]
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UsageError(f"{shown}: a certificate cannot be read: {error}", hint=table) from None
    if context is None:
        raise UsageError(f"{shown}: dask+tls:// needs a CA file and a certificate", hint=table)
    return security


async def _quiet(work: Coroutine[Any, Any, Any], limit: float) -> None:
    """Await what ends a connection; its failures do not matter any more."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(limit):
            await work


class _Cluster:
    """The seats of a batch on a cluster: placed, watched and ended."""

    def __init__(self, client: Any, address: str, wanted: int) -> None:
        self._client = client
        self._address = address
        self._wanted = wanted
        self._batch = secrets.token_hex(6)
        self._count = 0
        self._leases: dict[str, Any] = {}
        """The futures of the tasks, by key."""
        self._started: set[str] = set()
        """The keys of tasks that are executed."""
        self._seats: dict[str, DaskSeat] = {}
        self._ready: asyncio.Queue[DaskSeat | NbrunError] = asyncio.Queue()
        self._had_seat = False
        self._known: set[str] = set()
        """The addresses of the workers that were described."""
        self._unfit: set[str] = set()
        self._first: SeatSetting | None = None
        self._topics: set[str] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    # What the engine calls

    async def check_workers(self) -> None:
        """Raise :class:`UsageError` if a worker that is there now differs from this machine or from another one."""
        try:
            errors = await self._describe(list(await self._workers()))
        except Exception as error:  # noqa: BLE001 - what Dask raises is not documented
            raise self._lost(error) from None
        for different in errors:
            raise different

    async def ready_seats(self) -> AsyncIterator["DaskSeat"]:
        """Wait for seats; raise the error after which there is none."""
        while True:
            found = await self._ready.get()
            if isinstance(found, NbrunError):
                raise found
            if found.gone():
                await self.drop(found)
            else:
                self._had_seat = True
                yield found

    async def watch(self) -> None:
        """Place seats, and notice workers that join, until the scheduler is lost."""
        self._topics.add(TOPIC)
        self._client.subscribe_topic(TOPIC, self._announced)
        try:
            while True:
                self._changed.clear()
                await self._place()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), LOOK)
        except Exception as error:  # noqa: BLE001 - what Dask raises is not documented
            lost = self._lost(error)
            for seat in self._seats.values():
                seat.lose(str(lost))
            self._ready.put_nowait(lost)

    async def end(self) -> None:
        """End all seats, and leave nothing at the scheduler."""
        for task in self._opening:
            task.cancel()
        async with asyncio.TaskGroup() as group:
            for seat in self._seats.values():
                if not seat.is_lost:
                    group.create_task(_quiet(seat.call("end"), END_LIMIT))
        if self._leases:
            await _quiet(self._client.cancel(list(self._leases.values())), CLOSE_LIMIT)
        self._leases.clear()
        with contextlib.suppress(Exception):
            for topic in self._topics:
                self._client.unsubscribe_topic(topic)
        await _quiet(self._client.close(CLOSE_LIMIT), CLOSE_LIMIT)

    # What a seat calls

    async def send(self, address: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a call to a worker through the scheduler, and return its answer; raise what Dask raises."""
        answers = await self._client.scheduler.broadcast(msg={"op": CALL, **message}, workers=[address])
        answer: dict[str, Any] | None = answers[address]
        return {"gone": True} if answer is None else answer

    async def drop(self, seat: "DaskSeat") -> None:
        """End a lost seat; another one is placed instead."""
        self._seats.pop(seat.token, None)
        if not seat.is_used and not seat.gone():
            self._unfit.add(seat.address)
        seat.lose("it is not used any more")
        if seat.has_left:  # Dask executes the task again
            self._started.discard(seat.key)
        elif (lease := self._leases.pop(seat.key, None)) is not None:
            await _quiet(self._client.cancel([lease]), CLOSE_LIMIT)
        self._changed.set()

    # Workers and tasks

    def _lost(self, error: Exception) -> ServerError:
        """Return the error for a scheduler that does not answer any more."""
        reason = (
            f"no answer within {ANSWER_LIMIT:g} s" if isinstance(error, TimeoutError) else str(error) or repr(error)
        )
        return ServerError(f"the Dask scheduler at {self._address} is lost: {reason}")

    async def _workers(self) -> Mapping[str, int]:
        async with asyncio.timeout(ANSWER_LIMIT):
            workers: Mapping[str, int] = await self._client.nthreads()
        return workers

    async def _describe(self, addresses: list[str]) -> list[UsageError]:
        """Return the differences of these workers, which are unfit to be seats."""
        call = pickle.dumps(_Pickled(describe))
        found = await self._run(pickle.loads, call, workers=addresses)
        lacking = [address for address, answer in found.items() if isinstance(answer, Exception)]
        versions = await self._run(metadata.version, "jupyter-nbrun", workers=lacking)
        errors = []
        for address in addresses:
            name, answer = f"Dask worker {address}", found.get(address)
            try:
                if isinstance(answer, ImportError | AttributeError):
                    raise _other_nbrun(name, versions.get(address), answer)
                if isinstance(answer, dict):
                    setting = _unpacked(answer, name)
                    setting.check(name, self._first)
                    self._first = self._first or setting
            except UsageError as error:
                errors.append(error)
                self._unfit.add(address)
        self._known.update(addresses)
        return errors

    async def _run(self, function: Callable[..., Any], *arguments: Any, workers: list[str]) -> Mapping[str, Any]:
        """Call a function on workers, and return the results and errors by address."""
        if not workers:
            return {}
        found: Mapping[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_LIMIT):
                found = await self._client.run(function, *arguments, workers=workers, on_error="return")
        return found

    async def _place(self) -> None:
        """Submit the tasks that are missing, and place those again that wait while a worker has joined."""
        if self._client.status != "running":
            raise ConnectionError("the connection has ended")
        workers = await self._workers()
        self._known &= workers.keys()
        joined = [address for address in workers if address not in self._known]
        for error in await self._describe(joined):
            _log.warning("%s; it is not used", error)
        again = [key for key in self._leases if key not in self._started] if joined else []
        for key, lease in tuple(self._leases.items()):
            if lease.status in ("error", "cancelled", "finished"):
                _log.info("the task %s of a seat ended: %s", key, lease.status)
                again.append(key)
        if again:
            gone = [self._leases.pop(key) for key in set(again)]
            self._started.difference_update(again)
            await self._client.cancel(gone)
        fit = workers.keys() - self._unfit
        allowed = {"workers": sorted(fit)} if len(fit) < len(workers) else {}
        while len(self._leases) < self._wanted and (fit or not workers):
            self._count += 1
            key = f"nbrun-seat-{self._batch}-{self._count}"
            task = pickle.dumps(_Pickled(occupy))
            # Seats that wait for a thread must not hold up the tasks of others.
            self._leases[key] = self._client.submit(pickle.loads, task, key=key, pure=False, priority=-1, **allowed)

    def _announced(self, event: tuple[float, Any]) -> None:
        """Note that a seat is there, or that it has news."""
        key, token, address = event[1]
        if key not in self._leases:
            return
        if (seat := self._seats.get(token)) is not None:
            seat.has_news.set()
            return
        self._started.add(key)
        seat = self._seats[token] = DaskSeat(self, key, token, address)
        if address not in self._topics:
            self._topics.add(address)
            self._client.subscribe_topic(address, lambda event: self._noticed(address, event[1]))
        task = asyncio.create_task(self._open(seat))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _noticed(self, address: str, message: Any) -> None:
        """Note that a worker has left, or that it will."""
        for seat in [one for one in self._seats.values() if one.address == address]:
            match message:
                case {"action": "worker-status-change", "status": status}:
                    seat.is_leaving = status in _LEAVING
                case {"action": "remove-worker"}:
                    self._started.discard(seat.key)
                    seat.has_left = True
                    seat.is_leaving = seat.is_leaving or bool(message.get("expected"))
                    seat.lose("the worker was retired" if seat.is_leaving else "the worker has left the cluster")
                case _:
                    pass

    async def _open(self, seat: "DaskSeat") -> None:
        try:
            await seat.open()
        except SeatLost as error:
            _log.info("%s", error)
            await self.drop(seat)
        except NbrunError as error:
            if self._had_seat:
                _log.warning("%s; it is not used", error)
            else:
                self._ready.put_nowait(error)
            await self.drop(seat)
        else:
            self._ready.put_nowait(seat)


def _unpacked(content: Mapping[str, Any], where: str) -> SeatSetting:
    """Return the setting from the object of :func:`nbrun.engines.dask_setting.packed_setting`."""
    specs = {name: KernelSpec(name, shown, language) for name, (shown, language) in content["kernels"].items()}
    return SeatSetting(KernelSpecs(content["default"], specs, where), content["nbrun"], content["python"])


def _other_nbrun(name: str, version: Any, error: Exception) -> UsageError:
    if not isinstance(version, str):
        hint = "Install jupyter-nbrun[dask,local] where the workers run, in the version of this machine."
        return UsageError(f"{name}: it has no nbrun", hint=hint)
    hint = "Install the same nbrun, with its extra dask, on all workers and on this machine."
    return UsageError(f"{name}: its nbrun {version} cannot be a seat: {error}", hint=hint)


class DaskSeat:
    """A seat on a Dask worker."""

    def __init__(self, cluster: _Cluster, key: str, token: str, address: str) -> None:
        self.key = key
        self.token = token
        self.address = address
        self.name = f"Dask worker {address}"
        self.setting: SeatSetting | None = None
        self.is_used = False
        self.is_running = False
        self.is_leaving = False
        """Whether its worker ends in an orderly way. A run on it may go on until then."""
        self.has_left = False
        self.has_news = asyncio.Event()
        self._cluster = cluster
        self._loss: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def is_lost(self) -> bool:
        """Return whether the seat cannot be reached any more, or must not be."""
        return self._loss.done()

    def gone(self) -> bool:
        """Return whether the seat takes no further run."""
        return self.is_lost or (self.is_leaving and not self.is_running)

    def was_retired(self) -> bool:
        """Return whether the seat was lost because its worker ended in an orderly way."""
        return self.is_lost and self.is_leaving

    def lose(self, reason: str) -> None:
        """Note that the seat is lost."""
        if not self._loss.done():
            self._loss.set_result(reason)

    async def close(self) -> None:
        """End the seat after it was lost."""
        await self._cluster.drop(self)

    async def open(self) -> None:
        """Wait until the seat has its private server; raise :class:`NbrunError`."""
        answer = await self.call("hello", READY_LIMIT)
        if "error" in answer:
            error = UsageError if answer["is_usage"] else ServerError
            raise error(f"{self.name}: {answer['error']}", hint=answer["hint"])
        self.setting = _unpacked(answer, self.name)

    async def check(self, needs: Needs) -> None:
        """Raise :class:`UsageError` if the worker lacks something that the runs need, or :class:`SeatLost`."""
        answer = await self.call("check", secrets=dict(needs.secrets), folders=list(needs.folders))
        if "error" in answer:
            raise UsageError(answer["error"], hint=answer["hint"])

    async def run(self, parcel: Parcel, tell: Callable[[Event], None], stop: StopSwitch) -> Delivery:
        """Run a notebook on the seat; raises :class:`SeatLost` only."""
        self.is_used = self.is_running = True
        try:
            await self.call("run", parcel=parcel.encode())
            return await self._delivered(tell, stop)
        except asyncio.CancelledError:
            self.lose("its run was cancelled")  # it may still be executing it
            raise
        finally:
            self.is_running = False

    async def _delivered(self, tell: Callable[[Event], None], stop: StopSwitch) -> Delivery:
        """Pass on the events of the run and a stop, until there is the delivery."""
        stopping: set[asyncio.Task[None]] = set()

        def pull(reason: str) -> None:
            code = int(stop.exit_code or ExitCode.INTERRUPTED)
            stopping.add(asyncio.create_task(_quiet(self.call("stop", reason=reason, exit_code=code), ANSWER_LIMIT)))

        stop.listen(pull)
        try:
            seen = 0
            while True:
                self.has_news.clear()
                answer = await self.call("news", seen=seen)
                for content in answer["events"]:
                    tell(unpacked_event(as_object(loads(content))))
                seen += len(answer["events"])
                if "delivery" in answer:
                    return Delivery.decode(answer["delivery"])
                if "lost" in answer:
                    raise self._lost(answer["lost"])
                if not answer["more"]:
                    await self._news()
        except (BadFrame, ValueError, KeyError) as error:
            raise self._lost(f"it sent what cannot be read: {error}") from None
        finally:
            stop.forget(pull)
            for task in stopping:
                task.cancel()

    async def _news(self) -> None:
        """Wait for news, for the loss of the seat, or until it is time to ask."""
        news = asyncio.ensure_future(self.has_news.wait())
        try:
            either: set[asyncio.Future[Any]] = {news, self._loss}
            await asyncio.wait(either, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    async def call(self, call: str, limit: float = ANSWER_LIMIT, **arguments: Any) -> dict[str, Any]:
        """Send a call to the seat and return its answer; raise :class:`SeatLost`."""
        message = {"seat": self.token, "call": call, **arguments}
        sent = asyncio.ensure_future(self._cluster.send(self.address, message))
        try:
            either: set[asyncio.Future[Any]] = {sent, self._loss}
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if sent.done() and sent.exception() is None:
                answer = sent.result()
                if "gone" in answer:
                    raise self._lost("the seat has ended there")
                return answer
            if self._loss.done():
                raise self._lost(self._loss.result())
            if sent.done():
                raise self._lost(str(sent.exception()))
            raise self._lost(f"it did not answer within {limit:g} s")
        finally:
            if not sent.done():
                sent.cancel()

    def _lost(self, reason: str) -> SeatLost:
        self.lose(reason)
        return SeatLost(f"{self.name}: {reason}")
