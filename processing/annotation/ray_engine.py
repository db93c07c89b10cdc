"""Bulk annotation on Ray Data: the same chunks, annotated by actors on one machine or many."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from ...configuration.errors import brief, shown
from .annotator import Annotate, AnnotatorOptions, TextAnnotator
from .chunks import AnnotatedChunk, TextChunk


# Chunks on their way are held in shared memory, beyond which Ray writes them to the disk.
_OBJECT_STORE_BYTES = 256 * 1024**2
# Of 127.0.0.1 Ray makes the machine's address that others reach.
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"


@contextmanager
def ray_cluster(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Join the Ray cluster at an address ("auto" for this machine's), or start one on the loopback address.

    The cluster is left, or stopped, with the block.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Expected Ray to be installed, got none. Install it, in a clone of the repository: "
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
            f"Expected a Ray cluster at {shown(address)}, got none: {brief(error)}. Start one with `ray start --head`."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def on_ray(options: AnnotatorOptions, fingerprint: str, actors: int, gpus_per_actor: float = 0) -> Annotate:
    """Annotate chunks on the cluster of `ray_cluster`; see `annotate_in_parts`.

    Input is read, and output written, where this process runs. Chunks are read as they are annotated. Those of an actor
    or machine that fails are annotated again by another one, and counted once. Each actor must be able to reach the
    model, which has to be the one of the fingerprint.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class ChunkSource(Datasource):
        """One task that reads chunk after chunk: Ray waits with the next where the actors are slower."""

        def __init__(self, chunks: Callable[[], Iterator[TextChunk]]):
            super().__init__()
            self.chunks = chunks

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            chunks = self.chunks
            return [ReadTask(lambda: map(_pack, chunks()), BlockMetadata(None, None, None, None))]

    class Actor:
        def __init__(self) -> None:
            self.annotate = TextAnnotator(options, fingerprint)

        def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
            return (_pack(self.annotate(TextChunk.from_bytes(data.as_py()))) for data in table.column("chunk"))

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
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from (AnnotatedChunk.from_bytes(data.as_py()) for data in table.column("chunk"))
        except ray.exceptions.ActorDiedError as error:  # one that is killed is started again, so this one can't start
            raise ValueError(
                f"Expected each actor to load the model, got: {str(error).strip().splitlines()[-1]}. Make sure "
                "that all machines reach it."
            ) from error

    return annotate


def _pack(chunk: TextChunk | AnnotatedChunk) -> pa.Table:
    return pa.table({"chunk": [chunk.to_bytes()]})


__all__ = ["on_ray", "ray_cluster"]
