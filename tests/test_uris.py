"""Secrets in URIs are refused wherever one is taken, and never repeated."""

import importlib
import sys
from pathlib import Path

import pytest

from blitz.cli.command_line import run
from blitz.errors import DataError, UserError
from blitz.launch.cluster.head_node import check_address
from blitz.run_files.directory import RunDirectory
from blitz.storage import Folder, open_location
from blitz.uris import check_uri

SECRET = "wJalrXUt"
WITH_SECRETS = [
    f"s3://AKIAKEY:{SECRET}@bucket/runs",
    f"s3://AKIAKEY:{SECRET}/b+c@bucket/runs",
    f"s3://AKIAKEY:123/{SECRET}@bucket/runs",
    f"s3://AKIAKEY:a%2F{SECRET}@bucket/runs",
    f"s3://{SECRET}@bucket/runs",
    f"S3://AKIAKEY:?{SECRET}@bucket/runs",
    f"hdfs://user:{SECRET}@host:8020/runs",
    f"abfs://container:{SECRET}@account.blob.core.windows.net/runs",
    f"file://user:{SECRET}@/runs",
    f"s3://bucket/runs?secret_key={SECRET}",
    f"s3://bucket/runs?region=eu&access_key={SECRET}",
    f"s3://bucket/runs?accessKey={SECRET}",
    f"s3://bucket/runs?X-Amz-Signature={SECRET}",
    f"s3://bucket/runs?sec%72et={SECRET}",
    f"s3://bucket/runs?endpoint_override=user:{SECRET}@host:9000",
    f"abfs://container@account.blob.core.windows.net/runs?sig={SECRET}",
    f"gs://bucket/runs?access_token={SECRET}",
]


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_a_uri_with_a_secret_is_refused_without_repeating_it(uri: str) -> None:
    for take in (open_location, RunDirectory.of, lambda uri: Folder("/").find(uri)):
        with pytest.raises(DataError, match="give credentials by the environment") as refused:
            take(uri)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/runs",
        "s3://bucket/runs?scheme=http&endpoint_override=127.0.0.1:9000&region=eu",
        "s3://bucket/a@b:c/runs",
        "s3://anonymous@bucket/runs",
        "gs://anonymous@bucket/runs",
        "hdfs://user@host:8020/runs",
        "hdfs://[::1]:8020/runs",
        "abfs://container@account.blob.core.windows.net/runs?credential_kind=default",
        "file:///runs",
    ],
)
def test_a_uri_without_a_secret_is_taken(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["train", "table_csv", "--data.train-csv", "URI"], "--data.train-csv"),
        (["train", "digits", "--storage=URI"], "--storage"),
        (["train", "finetune", "--init-from", "URI"], "--init-from"),
        (["train", "table_csv", "--data.cache", "URI"], "--data.cache"),
        (["tune", "digits_lr", "--storage", "URI"], "--storage"),
        (["runs", "--storage", "URI"], "--storage"),
        (["report", "URI"], "the URI"),
        (["report", "run", "--out", "URI"], "--out"),
        (["export", "URI", "--output", "here"], "the URI"),
        (["evaluate", "URI"], "the URI"),
        (["predict", "run", "URI", "out.csv"], "the URI"),
        (["predict", "run", "in.csv", "URI"], "the URI"),
        (["prepare", "in.csv", "--out", "URI"], "--out"),
        (["doctor", "digits", "--storage", "URI"], "--storage"),
    ],
)
def test_every_command_refuses_a_secret_in_its_words_before_anything_is_done(
    words: list[str],
    flag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *rest = (word.replace("URI", WITH_SECRETS[0]) for word in words)
    monkeypatch.setattr(sys, "argv", [command, *rest])
    with pytest.raises(SystemExit) as left:
        run(importlib.import_module(f"blitz.cli.{command}").main, rest)
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert err.startswith(f"error: {flag}")
    assert err.count("\n") == 1
    assert SECRET not in out + err
    assert [*tmp_path.iterdir()] == []


def test_an_address_of_a_cluster_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(UserError, match="RAY_ADDRESS holds a user name or password") as refused:
        check_address(f"ray://user:{SECRET}@host:10001")
    assert SECRET not in str(refused.value)
