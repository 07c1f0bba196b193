"""Keys of random choices: one stream for each use, whatever the numbers that follow."""

from itertools import product

from blitz.randomness import Use, key_for


def test_no_two_uses_share_a_key() -> None:
    small = range(4)
    keys = [key_for(use, *parts) for use in Use for length in (1, 2, 3) for parts in product(small, repeat=length)]
    assert len(set(keys)) == len(keys)


def test_the_numbers_of_the_uses_are_fixed() -> None:
    """Another number would change what every run of a seed learns."""
    assert {use.name: use.value for use in Use} == {
        "ORDER": 1,
        "HELD_OUT": 2,
        "AUGMENTATION": 3,
        "CHOICES": 4,
        "GENERATORS": 5,
        "EXAMPLES": 6,
        "SEARCH": 7,
        "ITEMS": 8,
        "QUANTILES": 9,
        "SAMPLING": 10,
        "GENERATION": 11,
        "EXPLAINED": 12,
    }
