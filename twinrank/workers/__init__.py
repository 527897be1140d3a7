"""TASKS → OTHERS: batches of documents cut and encoded by processes of this machine, or by actors of a Ray cluster (`ray`).

Who calls reads, compares and writes, as without workers; only what needs the models is done by them. Each opens the models
of the recipe itself, and is refused where these are not the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType

from twinrank.errors import InputError, MissingExtraError
from twinrank.preparation import Preparation
from twinrank.recipe import Recipe
from twinrank.workers.opening import Opening
from twinrank.workers.pool import Pool, Team


class Workers:
    """Who encodes what is added: `count` processes of this machine, or as many actors of the Ray cluster at `ray`.

    >>> Workers(4)
    Workers(4)

    Without a `count` there are as many actors as the cluster has cores.
    `threads` is what each may use: by default its share of this machine's (TWINRANK_THREADS, or the cores), in a cluster
    TWINRANK_THREADS or 1. They begin with the first batch, and stay until `close`, or the end of a `with`: several calls of
    `Collection.add` may share them.

    `ray` is an address as `ray.init` takes it: "auto" for the cluster that this machine is part of, "host:6379",
    "ray://host:10001", "local" for one made for this call. On every node twinrank of this version is installed, and each
    model found under the name or path that the recipe has.
    """

    def __init__(self, count: int | None = None, *, ray: str | None = None, threads: int | None = None) -> None:
        if count is None and ray is None:
            raise InputError("workers: say how many processes, or the address of a Ray cluster")
        for name, number in (("workers", count), ("threads of a worker", threads)):
            if number is not None and number < 1:
                raise InputError(f"{name}: expected a whole number from 1 on, got {number}")
        if ray is not None and find_spec("ray") is None:
            raise MissingExtraError("encoding on a cluster needs ray: pip install 'twinrank[ray]'")
        self.count, self.ray, self.threads = count, ray, threads
        self._pool: Pool | None = None
        self._opening: Opening | None = None

    def pool(self, recipe: Recipe, preparation: Preparation) -> Pool:
        """Those who prepare documents as `preparation` does; the ones of the last call, where that was for the same."""
        opening = Opening.of(recipe, preparation)
        if self._pool is None or opening != self._opening:
            self.close()
            self._pool, self._opening = Pool(self._team(opening)), opening
        return self._pool

    def _team(self, opening: Opening) -> Team:
        if self.ray is None:
            from twinrank.workers.processes import Processes

            assert self.count is not None
            return Processes(opening, self.count, self.threads)
        from twinrank.workers.actors import Actors

        return Actors(opening, self.ray, self.count, self.threads)

    def close(self) -> None:
        """End them, whatever they are at; the next task begins with new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        given = [] if self.count is None else [str(self.count)]
        given += [f"{name}={value!r}" for name, value in (("ray", self.ray), ("threads", self.threads)) if value is not None]
        return f"Workers({', '.join(given)})"


@contextmanager
def at_work(workers: Workers | int | None) -> Iterator[Workers | None]:
    """Workers for one call: those that were made for it end with it, those that were given do where it fails."""
    given = Workers(workers) if isinstance(workers, int) else workers
    try:
        yield given
    except BaseException:
        if given is not None:
            given.close()
        raise
    if given is not None and given is not workers:
        given.close()
