from collections.abc import Iterator

import pytest

from tests.trackers.stores import mlflow_server


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server that lives as long as the session."""
    pytest.importorskip("mlflow")
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as uri:
        yield uri
