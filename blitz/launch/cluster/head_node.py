"""Whether a head node answers at an address and lets this process in; Ray itself would try for minutes."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from blitz.errors import UserError, require
from blitz.launch.cluster.ray_internals import address_of_local_cluster

_SECONDS_TO_ANSWER = 5.0
_FIRST_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The first call to any head node; its request has no fields."""
_CALL_OF_CLIENT = "/ray.rpc.RayletDriver/ClusterInfo"
"""A call to Ray Client's server; whoever is let in without having connected is NOT_FOUND."""
_PORTS = {"": 6379, "ray://": 10001}
"""Ray's own default ports, of a head node and of its server for Ray Client."""


def check_address(address: str) -> None:
    """Call the head node at `address`, which is HOST:PORT, ray://HOST:PORT, auto or local, as Ray will.

    Raises:
        UserError: if nothing answers there, if what answers is no head node, or if only one of it and this process
            uses a token.
    """
    if address == "local":
        return
    require(
        "@" not in address, "RAY_ADDRESS holds a user name or password, which Ray does not take; set it to HOST:6379"
    )
    host, port = _host_and_port(_local_address() if address == "auto" else address)
    try:
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise UserError(
            f"the cluster's address (RAY_ADDRESS) is {address}, and nothing answers there ({error}); "
            "start the cluster, or unset it to run on this machine"
        ) from error
    # With TLS, Ray itself checks the certificates.
    if os.environ.get("RAY_USE_TLS") != "1":
        token = _token()
        refused = _refused(address, f"{host}:{port}", token)
        require(refused is None, f"the cluster's address (RAY_ADDRESS) is {address}, {refused}")
        # This process would require a token of the cluster too, and everything that it starts there would fail.
        require(
            token is None or asks_for_token(address),
            f"the cluster's address (RAY_ADDRESS) is {address}, and that cluster has no token, while RAY_AUTH_MODE is "
            "token here; unset RAY_AUTH_MODE",
        )


def asks_for_token(address: str) -> bool:
    """Whether the head node at `address`, which has answered, refuses clients without a token."""
    host, port = _host_and_port(_local_address() if address == "auto" else address)
    return _refused(address, f"{host}:{port}", token=None) is not None


def _local_address() -> str:
    """The address of the cluster that runs on this machine."""
    try:
        return address_of_local_cluster()
    except ConnectionError as error:
        raise UserError(
            "the cluster's address (RAY_ADDRESS) is auto, and no cluster, or more than one, runs on this machine; "
            "start one with `ray start --head`, or set it to HOST:6379"
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    url = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        port = url.port or _PORTS[_scheme(address)]
    except ValueError:
        raise UserError(
            f"the cluster's address (RAY_ADDRESS) is {address}; it must be HOST:PORT or auto, or ray://HOST:PORT"
        ) from None
    require(
        url.scheme == "ray" and url.hostname is not None,
        f"the cluster's address (RAY_ADDRESS) is {address}, a dashboard's address, where jobs are submitted: "
        "use `ray job submit -- blitz train …`, or set RAY_ADDRESS to HOST:6379",
    )
    return url.hostname or "", port


def _scheme(address: str) -> str:
    return "ray://" if address.startswith("ray://") else ""


def _token() -> str | None:
    """The token that Ray will send.

    Raises:
        UserError: if RAY_AUTH_MODE asks for one, and there is none.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return file.read_text().strip()
    except OSError:
        raise UserError(
            f"RAY_AUTH_MODE is token, and there is none in {file}; copy the head node's ~/.ray/auth_token there, "
            "or set RAY_AUTH_TOKEN to what `ray get-auth-token` prints on it"
        ) from None


def _refused(address: str, host_and_port: str, token: str | None) -> str | None:
    """Why the head node at `address` refuses a client with `token`, and what to do; None if it accepts it."""
    # Imported here: it is installed with Ray's dashboard, and a run in this process does not need it.
    import grpc

    scheme = _scheme(address)
    with grpc.insecure_channel(host_and_port, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_CALL_OF_CLIENT if scheme else _FIRST_CALL)(
                b"", timeout=_SECONDS_TO_ANSWER, metadata=[("authorization", f"Bearer {token}")] if token else None
            )
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.UNAUTHENTICATED if token:
                    return "and the token is not the one of that cluster; copy the head node's ~/.ray/auth_token"
                case grpc.StatusCode.UNAUTHENTICATED:
                    return "and the cluster wants a token; set RAY_AUTH_MODE=token"
                case grpc.StatusCode.UNIMPLEMENTED if scheme:
                    return f"and what answers there is the head node itself; set it to {host_and_port}, without ray://"
                case grpc.StatusCode.UNIMPLEMENTED:
                    return f"and what answers there is Ray Client's server; set it to ray://{host_and_port}"
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED if scheme:
                    return (
                        "and what answers there is not Ray Client's server; its port is 10001, or what "
                        "`ray start --ray-client-server-port` said"
                    )
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                    return (
                        "and what answers there is not the head node of a Ray cluster; its port is 6379, or what "
                        "`ray start --port` said (8265 is the dashboard's, where `ray job submit` goes)"
                    )
    return None
