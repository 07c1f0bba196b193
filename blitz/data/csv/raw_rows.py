"""How the cells of a row become a table model's inputs, as JSON for programs that do not import blitz."""

from typing import Any

from blitz.data.csv.dates import PATTERNS
from blitz.data.csv.reading.numbers import LARGEST_NUMBER, MISSING_NUMBERS, PLAIN
from blitz.data.csv.reading.units import REPLACEMENTS
from blitz.data.csv.tabular import CsvFit
from blitz.data.csv.text_features import BUCKETS, FACTOR, MOST_PIECES, SIZES


def described_cells(fit: CsvFit) -> dict[str, Any]:
    """The columns of each input in their order, and how their cells are read.

    `docs/deploy/run_table.py` reads rows by it.
    """
    return {
        "numbers": [one.name for one in fit.numbers],
        "missing_number": "nan",
        "cells": {
            "missing": sorted(MISSING_NUMBERS),
            "number": PLAIN,
            "largest": LARGEST_NUMBER,
            "numbers": {
                one.name: {
                    "decimal": one.writing.decimal,
                    "replacements": REPLACEMENTS[one.writing.unit],
                    "groups": one.writing.groups,
                }
                for one in fit.plain_numbers
            },
        },
        "categories": {one.name: one.codes for one in fit.categories},
        "unknown_category": 0,
        "hashed_categories": {
            one.name: {
                "first_code": 1 + len(one.values),
                "codes": one.buckets,
                "missing": [""] if one.name in fit.verbatim else sorted(MISSING_NUMBERS),
            }
            for one in fit.categories
            if one.buckets
        },
        "texts": {
            "columns": fit.texts,
            "sizes": SIZES,
            "buckets": BUCKETS,
            "factor": FACTOR,
            "pieces": MOST_PIECES,
        }
        if fit.texts
        else {},
        "dates": {
            one.name: {
                "order": one.order,
                "numbers": list(one.names),
                "parts": one.parts,
                "patterns": PATTERNS[one.order],
            }
            for one in fit.dates
        },
    }
