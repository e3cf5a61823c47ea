"""The committed docs/house.svg is the output of docs/house.py, and rooms and arrows in it do not overlap."""

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import test_floors
from hypothesis import given
from hypothesis import strategies as st

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def house():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("house")
    for name in ("house", "layered"):
        sys.modules.pop(name, None)
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def picture(house):
    return house.picture()


def test_the_committed_picture_is_that_of_these_modules(house, picture):
    assert house.PICTURE.read_text(encoding="utf-8") == picture, "run python docs/house.py and look at it"


def test_the_script_reads_the_imports_as_the_test_of_floors_does(house):
    found = house.imports()
    assert set(found) == set(test_floors.FLOORS)
    for name, path in test_floors.FILES.items():
        expected = set(test_floors.imports(path.read_text(encoding="utf-8"), name)) & set(found)
        assert found[name] == expected - {name}


def test_every_module_is_shown(picture):
    for name in test_floors.FLOORS:
        assert (
            ".".join(name.split(".")[:3]).rpartition(".")[2] in picture
        )  # folders in a wing are shown without their files


def test_arrows_go_down_and_nothing_overlaps(house):
    surveyed = house.survey()
    stack, down = house.grid(surveyed)
    stack = house.ordered(stack, down)
    row_of = {item: i for i, row in enumerate(stack) for item in row}
    assert all(row_of[lower] == row_of[upper] - 1 for upper in down for lower in down[upper])
    wide = {item: 1 if item.end else house.size(item.room, surveyed)[0] for item in row_of}
    x = house.places(stack, down, {item: wide[item] + 8 for item in wide}, house.LEFT, house.RIGHT)
    for row in stack:
        assert all(x[a] + wide[a] / 2 < x[b] - wide[b] / 2 for a, b in pairwise(row))
        assert x[row[0]] - wide[row[0]] / 2 >= house.LEFT
        assert x[row[-1]] + wide[row[-1]] / 2 <= house.RIGHT


def test_arrows_that_follow_from_others_are_left_out(house):
    assert house.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    with pytest.raises(ValueError, match="rooms import each other in a circle: b, a, b"):
        house.reduced({"a": {"b"}, "b": {"a"}})


@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(0.1, 9), st.floats(0, 9)), min_size=1, max_size=9))
def test_places_are_the_nearest_that_are_far_enough_apart(house, items):
    wanted, weights, distances = (list(column) for column in zip(*items, strict=True))
    apart = distances[1:]
    found = house.spread(wanted, weights, apart, 0, 100)
    assert all(b - a >= distance - 1e-9 for (a, b), distance in zip(pairwise(found), apart, strict=True))
    assert found[0] >= 0
    assert found[-1] <= 100 + 1e-9
    cost = sum(w * (x - target) ** 2 for x, target, w in zip(found, wanted, weights, strict=True))
    for i in range(len(found)):  # Moving one place, or all places before or after it, does not reduce the cost.
        for step in (-1e-3, 1e-3):
            for moved in ([i], range(i, len(found)), range(i + 1)):
                other = [x + step if k in moved else x for k, x in enumerate(found)]
                fits = all(b - a >= distance for (a, b), distance in zip(pairwise(other), apart, strict=True))
                if fits and other[0] >= 0 and other[-1] <= 100:
                    assert sum(w * (x - t) ** 2 for x, t, w in zip(other, wanted, weights, strict=True)) >= cost - 1e-6
