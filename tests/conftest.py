import ast
import gzip
import logging
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.clusters import Head, head_node
from tests.object_store import s3_server

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

# More threads than a loaded machine has free cores wait for each other far longer than they compute: one, unless more
# are set. In the environment, so that the processes that tests start have as many and compute the same bits.
if "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

# Tests start their own clusters.
os.environ.pop("RAY_ADDRESS", None)
# Its workers would by default have a lower priority than other tests.
os.environ.update(RAY_worker_niceness="0")

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("BLITZ_TEST_DATA", _SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set BLITZ_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def mnist_root(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST unpacked, as torchvision reads it."""
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (test_data / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that need a cluster share the process that has started it, and leave the others to another process.

    Those whose nodes come and go take so long that they are a share of their own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file, test = nodeid.partition("[")[0].split("::")[:2]
            return _clusters(config.rootpath / file).get(test, file)

    return Lanes(config, log)


@cache
def _clusters(file: Path) -> dict[str, str]:
    """The tests of a file that need a cluster, and which kind."""
    text = file.read_text()
    top = ast.parse(text).body
    everything = any(isinstance(each, ast.Assign) and "mark.cluster" in ast.unparse(each) for each in top)
    tests = [each for each in top if isinstance(each, ast.FunctionDef)]
    kind = "nodes that come and go" if "ray.cluster_utils" in text else "cluster"
    return {
        test.name: kind
        for test in tests
        if everything or any("mark.cluster" in ast.unparse(one) for one in test.decorator_list)
    }


@pytest.fixture(scope="session")
def ray_runtime() -> Iterator[None]:
    """One local Ray runtime for the whole session: starting it takes longer than most tests."""
    import ray

    # More CPUs than the smallest machine has: they are only numbers to Ray, and three workers then get one each.
    ray.init("local", num_cpus=4, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cluster(ray_runtime: None) -> "Iterator[Cluster]":
    """A cluster to add nodes to: a head of one CPU, which misses a node some two seconds after it was killed."""
    from ray.cluster_utils import Cluster

    # Its nodes want a token if this process does, and the first runtime of its own is what decides that.
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "_system_config": checks})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray head node of its own process, as `ray start --head` makes it, that requires a token."""
    with head_node() as started:
        yield started


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3 server that lives as long as the session."""
    with s3_server() as port:
        yield port
