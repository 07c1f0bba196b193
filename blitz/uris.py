"""Checks of URIs: they are printed and stored with a run, so they must not hold secrets."""

import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from blitz.errors import DataError

_SECRET_PARAMETER = re.compile(
    r"secret|passwo?r?d|token|signature|credential(?!_kind)|(access|account|api)_?key|\bsig\b"
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"',]*")


def is_uri(location: str | Path) -> bool:
    """Whether it is a URI rather than a path."""
    return "://" in str(location)


def is_web(location: str | Path) -> bool:
    """Whether it is on a web server, which has files and no folders."""
    return str(location).lower().startswith(("http://", "https://"))


def check_uri(uri: str) -> None:
    """Refuse a URI that holds a secret, or a `?` or `#` that would cut its path short.

    Raises:
        DataError: if it does.
    """
    check_secrets(uri)
    ends = "#" if "#" in uri else "?" if "?" in uri and uri.lower().startswith("file:") else ""
    if ends:
        raise DataError(f"{uri} has a '{ends}', which ends the path of a URI; write {urllib.parse.quote(ends)} for it")


def check_secrets(uri: str, flag: str = "") -> None:
    """Refuse a URI that holds a password or an access key; the message does not repeat it.

    Raises:
        DataError: if it does; `flag` is what the message says the URI was given for.
    """
    scheme, _, rest = uri.partition("://")
    where = f"{flag}: {scheme}://… holds" if flag else f"the URI {scheme}://… holds"
    mend = (
        "which would be printed and stored; leave it out, and give credentials by the environment (such as "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), by a profile (AWS_PROFILE) or by a role"
    )
    address = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = address.rpartition("@")
    is_bucket = scheme.lower().startswith(("s3", "gs", "gcs"))
    # A secret may hold a slash, so that only its start is in the address.
    has_secret = ":" in user or (":" in host if is_bucket else not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host))
    # "anonymous" is how a URI asks for access without credentials.
    if has_secret or (scheme.lower().startswith("s3") and user not in ("", "anonymous")):
        raise DataError(f"{where} a user name or password, {mend}")
    for name, value in urllib.parse.parse_qsl(rest.partition("?")[2], keep_blank_values=True):
        if _SECRET_PARAMETER.search(name.lower().replace("-", "_")) or re.search(r":[^@]*@", value):
            raise DataError(f"{where} a secret in its parameter '{name}', {mend}")


def check_words(words: Sequence[str]) -> None:
    """Refuse the words of a command line if one holds a URI with a secret: they are stored with the run.

    Raises:
        DataError: that names the flag.
    """
    for before, word in zip(("", *words), words, strict=False):
        name = word.partition("=")[0] if word.startswith("--") else before if before.startswith("--") else ""
        for uri in _URI.findall(word):
            check_secrets(uri, name)
