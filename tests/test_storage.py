"""Whole files and locks under real concurrency, and paths and URIs taken apart and put together."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from blitz.errors import DataError
from blitz.run_files.directory import RunDirectory
from blitz.storage import (
    absolute,
    beside,
    exists,
    folder_of,
    joined,
    locked,
    name_of,
    open_location,
    replacing,
    write_whole,
    written_whole,
)
from tests.object_store import uri_of

_fork = multiprocessing.get_context("fork")


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    if request.param == "disk":
        return RunDirectory.of(str(tmp_path), "run")
    return RunDirectory.of(uri_of(request.getfixturevalue("s3_port"), tmp_path.name), "run")


def in_processes(act: Callable[[int], object], numbers: Sequence[int]) -> list[int | None]:
    """Exit codes of processes that each `act` for one of the numbers, all at once."""
    processes = [_fork.Process(target=act, args=(number,)) for number in numbers]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_of_many_writers_of_one_file_none_fails_and_one_is_the_last(tmp_path: Path) -> None:
    run = RunDirectory.of(str(tmp_path))
    contents = [bytes([number]) * (1000 + 70_000 * number) for number in range(4)]

    def write(number: int) -> None:
        for _ in range(50):
            run.write("file", contents[number])
            assert run.read("file") in contents

    assert in_processes(write, range(4)) == [0] * 4
    assert run.read("file") in contents
    # Nor is anything left beside it.
    assert os.listdir(tmp_path) == ["file"]


def test_two_probes_at_once_both_find_that_the_storage_can_be_written(folder: RunDirectory) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: folder.probe(), range(80)))
    assert folder.paths() == []


def test_a_writer_of_a_local_file_deletes_what_a_dead_one_left_and_nothing_of_a_live_one(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def die(_: int) -> None:
        with replacing(target) as part:
            part.write_text("half")
            os._exit(9)

    assert in_processes(die, [0]) == [9]
    (left,) = tmp_path.iterdir()
    with replacing(target) as part:
        assert not left.exists()
        part.write_text("slow")
        with written_whole(target) as write:
            write(b"quick")
        assert target.read_text() == "quick"
    assert target.read_text() == "slow"
    assert [*tmp_path.iterdir()] == [target]


def test_a_link_instead_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".file.1-00000000.tmp").symlink_to(tmp_path / "mine")
    RunDirectory.of(str(tmp_path / "runs")).write("file", b"theirs")
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_fails_half_way_leaves_the_file_that_was_there(folder: RunDirectory) -> None:
    folder.write("file", b"old")
    with suppress(ZeroDivisionError), written_whole(joined(folder.uri, "file")) as write:
        write(b"new")
        raise ZeroDivisionError
    assert folder.read("file") == b"old"
    with written_whole(joined(folder.uri, "file")) as write:
        write(b"n")
        write(b"ew")
    assert folder.read("file") == b"new"
    assert folder.paths() == ["file"]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe is not an ordinary file, and would be replaced"):
        write_whole(*open_location(tmp_path / "pipe"), b"")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_of_the_longest_name_is_written_whole(tmp_path: Path) -> None:
    name = "é" * 127
    RunDirectory.of(str(tmp_path)).write(name, b"data")
    assert os.listdir(tmp_path) == [name]


def test_only_one_process_at_a_time_holds_a_lock_that_each_holder_deletes(tmp_path: Path) -> None:
    counter, lock = tmp_path / "counter", tmp_path / ".lock"
    counter.write_text("0")

    def count(_: int) -> None:
        done = 0
        while done < 200:
            try:
                with locked(lock):
                    # Not atomic: two holders at a time would lose counts.
                    counter.write_text(str(int(counter.read_text() or 0) + 1))
                    done += 1
            except BlockingIOError:
                pass

    assert in_processes(count, range(4)) == [0] * 4
    assert counter.read_text() == "800"
    assert not lock.exists()


def test_a_lock_is_kept_from_a_second_holder_and_given_to_one_after_it(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
            pass
        assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("name", ["a?b", "a#b", "a b", "50%", "a%20b", "ünï", "a\nb", "*", "~", "a?", "#"])
def test_a_name_of_any_characters_is_the_same_file_by_path_and_by_uri(name: str, tmp_path: Path) -> None:
    for storage in (str(tmp_path), tmp_path.as_uri()):
        path = joined(storage, name)
        assert (name_of(path), folder_of(path)) == (name, storage)
        assert open_location(path)[1] == f"{tmp_path}/{name}"
        assert beside(path, ".b?c") == joined(storage, f"{name}.b?c")
        with written_whole(path) as write:
            write(storage.encode())
        assert exists(path)
    assert (tmp_path / name).read_text() == tmp_path.as_uri()


def test_parts_of_uris_are_put_before_their_query() -> None:
    path = joined("s3://bucket/runs?region=eu", "a?b")
    assert path == "s3://bucket/runs/a%3Fb?region=eu"
    assert (folder_of(path), name_of(path)) == ("s3://bucket/runs?region=eu", "a?b")
    assert beside(path, ".parts") == "s3://bucket/runs/a%3Fb.parts?region=eu"


@pytest.mark.parametrize(("end", "mend"), [("#b", "%23"), ("?b", "%3F"), ("?", "%3F")])
def test_a_file_uri_that_would_be_cut_short_is_refused(end: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"which ends the path of a URI; write {mend} for it"):
        absolute(f"{tmp_path.as_uri()}/a{end}")


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="a path is empty"):
        absolute("")
    with pytest.raises(DataError, match=r"~nobody-of-that-name: there is no such user; .* write \./~nobody"):
        absolute("~nobody-of-that-name")
