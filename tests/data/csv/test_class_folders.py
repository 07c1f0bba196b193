from pathlib import Path

from blitz.data.csv.class_folders import listing
from tests.pictures import picture

HIDDEN = (
    ".ipynb_checkpoints/cats/1-checkpoint.jpg",
    "__MACOSX/cats/._1.jpg",
    "cats/.ipynb_checkpoints/1-checkpoint.jpg",
    "cats/._1.jpg",
    "cats/.hidden.png",
    "cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "dogs/.Trash-1000/files/3.jpg",
    "lost+found/4.jpg",
)
NO_IMAGES = (".DS_Store", "cats/.DS_Store", "cats/Thumbs.db", "dogs/desktop.ini")


def test_hidden_files_and_what_systems_leave_are_no_images_and_no_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("cats/1.jpg", "cats/more/2.PNG", "dogs/3.jpg", *HIDDEN)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(tmp_path / name, "red", seed=number)
    for name in NO_IMAGES:
        (tmp_path / name).write_bytes(b"\0\0\0\1Bud1")
    assert listing(str(tmp_path)).decode().splitlines() == [
        "image,class",
        "cats/1.jpg,cats",
        "cats/more/2.PNG,cats",
        "dogs/3.jpg,dogs",
    ]
