import pytest

from blitz.visible import all_visible, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name, größer 猫 🐈", "plain name, größer 猫 🐈"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("a\ttab", "a\\ttab"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("nul\0", "nul\\x00"),
        ("\u202eleft\u2066", "\\u202eleft\\u2066"),
        ("\u2028line\x85", "\\u2028line\\x85"),
        ("lone \udce4", "lone \\udce4"),
        ("10\xa0000", "10\xa0000"),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),
    ],
)
def test_what_would_move_other_text_is_escaped_and_all_else_stays(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert all_visible({text: [text, 1, None, {"of": text}]}) == {shown: [shown, 1, None, {"of": shown}]}
