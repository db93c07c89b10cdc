"""Bulk annotation on Ray Data: the same chunks, annotated by actors on one machine or many."""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..configuration.messages import brief, shown
from .annotation import AnnotatorOptions, TextAnnotator
from .annotation_chunks import AnnotatedChunk, TextChunk


# Chunks on their way are held in shared memory, beyond which Ray writes them to the disk.
_OBJECT_STORE_BYTES = 256 * 1024**2
# Of 127.0.0.1 Ray makes the machine's address that others reach.
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


def start_ray(address: str | None = None, num_cpus: int | None = None) -> None:
    """Start Ray in this process, or join a cluster.

    Parameters
    ----------
    address : str, optional
        Address of a running cluster ("auto" for the one that this machine belongs to); by default one is started
        on this machine, for this process alone, that listens on the loopback address.
    num_cpus : int, optional
        Cores that Ray counts on where it is started here; by default all.

    Raises
    ------
    ValueError
        If Ray isn't installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Expected Ray to be installed, but it isn't. Install it, in a clone of the repository: "
            'pip install -c constraints.txt -e ".[ray]".'
        ) from error
    options: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    if address is None:
        options |= {"num_cpus": num_cpus, "include_dashboard": False, "_node_ip_address": _LOOPBACK}
        options |= {"object_store_memory": _OBJECT_STORE_BYTES, "address": "local"}
    else:
        options["address"] = address
    try:
        if address and ":" in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes
        ray.init(**options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a Ray cluster at {shown(address)}, but there is none: {brief(error)}. Start one with "
            "`ray start --head`."
        ) from error


def on_ray(
    options: AnnotatorOptions, fingerprint: str, actors: int, gpus_per_actor: float = 0
) -> Callable[[Callable[[], Iterator[TextChunk]]], Iterable[AnnotatedChunk]]:
    """Annotate chunks on Ray, which `start_ray` started; see `annotate_in_parts`.

    Input is read, and output written, where this process runs. Chunks are read as they are annotated. Those of an actor
    or machine that fails are annotated again by another one, and counted once.

    Parameters
    ----------
    options : AnnotatorOptions
        What the actors load. Each must be able to reach the model.
    fingerprint : str
        What the model's checksum has to be on every machine.
    actors : int
        Processes that hold a model.
    gpus_per_actor : float, default 0
        GPUs that each of them needs.

    Returns
    -------
    callable
        As `annotate_in_parts` wants it.
    """
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class ChunkSource(Datasource):
        """One task that reads chunk after chunk: Ray waits with the next where the actors fall behind."""

        def __init__(self, chunks: Callable[[], Iterator[TextChunk]]):
            super().__init__()
            self.chunks = chunks

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            chunks = self.chunks

            def read() -> Iterator[pa.Table]:
                for chunk in chunks():
                    yield pa.table({"chunk": [chunk.to_bytes()]})

            return [ReadTask(read, BlockMetadata(None, None, None, None))]

    class Actor:
        def __init__(self) -> None:
            self.annotate = TextAnnotator(options, fingerprint)

        def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
            for data in table.column("chunk"):
                chunk = self.annotate(TextChunk.from_bytes(data.as_py()))
                yield pa.table({"chunk": [chunk.to_bytes()]})

    def annotate(chunks: Callable[[], Iterator[TextChunk]]) -> Iterator[AnnotatedChunk]:
        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = 1  # a chunk goes on as soon as it is there
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}  # where the files are
        dataset = ray.data.read_datasource(
            ChunkSource(chunks), num_cpus=0, resources=here, override_num_blocks=1
        ).map_batches(
            Actor,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=actors),
            num_cpus=0 if gpus_per_actor else 1,
            num_gpus=gpus_per_actor,
        )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for data in batch.column("chunk"):
                    yield AnnotatedChunk.from_bytes(data.as_py())
        except ray.exceptions.ActorDiedError as error:  # one that is killed is started again, so this one can't start
            raise ValueError(
                f"Expected each actor to load the model, but one can't: {str(error).strip().splitlines()[-1]}"
            ) from error

    return annotate


__all__ = ["on_ray", "start_ray"]
