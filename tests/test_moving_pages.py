"""The pages that move, used as a reader uses them: what they show is what the library computes."""

import json

import numpy as np
import pytest

import idl_ref
from idl_ref.wellposed import project_rows, scale_to_norm

pytestmark = pytest.mark.browser
NAMES = ("cobweb", "two_neurons", "projection")


def shown(page, name, key):
    """Return a value that a page shows, with all digits."""
    return json.loads(page.locator(f"#{name}").get_attribute(f"data-{key}"))


def set_slider(page, label, value):
    """Type at a slider, as a reader does with the keyboard, until it has a value."""
    slider = page.locator(".moving label", has=page.locator("span").get_by_text(label, exact=True)).locator("input")
    slider.focus()
    low, high, step = (float(slider.get_attribute(name)) for name in ("min", "max", "step"))
    now = float(slider.input_value())
    presses = round((value - now) / step)
    for _ in range(abs(presses)):
        page.keyboard.press("ArrowRight" if presses > 0 else "ArrowLeft")
    assert low <= value <= high
    assert float(slider.input_value()) == pytest.approx(value)


def press_at(page, name, x, y, low, high, to=None):
    """Press the mouse at a point of the plane of a page, and drag it to another one if there is one."""
    box = page.locator(f"#{name} svg").bounding_box()
    unit = box["width"] / 400

    def place(x, y):
        inner = 400 - 2 * 34
        across, down = 34 + (x - low) / (high - low) * inner, 400 - 34 - (y - low) / (high - low) * inner
        return box["x"] + across * unit, box["y"] + down * unit

    page.mouse.move(*place(x, y))
    page.mouse.down()
    if to is not None:
        page.mouse.move(*place(*to), steps=5)
    page.mouse.up()


# --- a cobweb ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", ["relu", "tanh", "sigmoid", "softplus", "hardtanh", "identity"])
def test_the_cobweb_finds_the_equilibrium_of_the_library(visit, phi):
    page = visit().open("interactive/cobweb.html")
    page.locator(".moving label", has_text="φ").locator("select").select_option(phi)
    set_slider(page, "a", -0.6)
    set_slider(page, "z", 0.8)
    for _ in range(25):
        page.get_by_role("button", name="Step").click()
    x, bound, k = (shown(page, "cobweb", key) for key in ("x", "bound", "k"))
    options = idl_ref.SolveOptions(tol=1e-14)
    exact = idl_ref.solve_equilibrium([[-0.6]], [[0.8]], activation=phi, options=options).X[0, 0]
    assert k == 25
    assert abs(x - exact) <= bound + 4e-16  # The page leaves rounding out.
    assert bound <= 1e-4


def test_the_cobweb_scales_a_to_kappa_and_tells_where_nothing_is_proved(visit):
    page = visit().open("interactive/cobweb.html")
    says = page.locator("#cobweb .says")
    set_slider(page, "a", -1.5)
    assert "proves nothing" in says.inner_text()
    set_slider(page, "κ", 0.9)
    assert shown(page, "cobweb", "a") == -0.9
    page.get_by_role("button", name="Step").click()
    step, bound = shown(page, "cobweb", "step"), shown(page, "cobweb", "bound")
    assert bound == pytest.approx(0.9 * step / (1 - 0.9))
    assert "one equilibrium" in says.inner_text()


def test_the_cobweb_plays_pauses_and_starts_where_a_reader_clicks(visit):
    page = visit().open("interactive/cobweb.html")
    press_at(page, "cobweb", -2, 0, -3, 3)
    assert shown(page, "cobweb", "x") == pytest.approx(-2, abs=0.02)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('#cobweb').dataset.k >= 3")
    page.get_by_role("button", name="Pause").click()
    k = shown(page, "cobweb", "k")
    page.wait_for_timeout(800)
    assert shown(page, "cobweb", "k") == k


def test_readers_who_asked_for_less_motion_see_the_end_at_once(visit):
    page = visit(reduced_motion="reduce").open("interactive/cobweb.html")
    page.get_by_role("button", name="Play").click()
    assert shown(page, "cobweb", "k") == 60


# --- two neurons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", ["relu", "tanh", "identity"])
def test_a_trajectory_of_two_neurons_ends_at_the_equilibrium_of_the_library(visit, phi):
    page = visit().open("interactive/two_neurons.html")
    page.locator(".moving label", has_text="φ").locator("select").select_option(phi)
    A, z = [[0.3, -0.5], [0.4, 0.2]], [0.7, -0.2]
    for name, value in zip(("A₁₁", "A₁₂", "A₂₁", "A₂₂", "z₁", "z₂"), (*A[0], *A[1], *z), strict=True):
        page.get_by_label(name).fill(str(value))
    press_at(page, "two_neurons", 3.2, -0.6, -1, 4)
    options = idl_ref.SolveOptions(tol=1e-13)
    solution = idl_ref.solve_equilibrium(A, np.array([z]).T, activation=phi, options=options)
    assert shown(page, "two_neurons", "x") == pytest.approx(solution.X[:, 0], abs=1e-7)
    assert shown(page, "two_neurons", "norm") == pytest.approx(0.8)
    if phi != "tanh":
        assert np.allclose(shown(page, "two_neurons", "equilibria"), [solution.X[:, 0]])


@pytest.mark.parametrize(
    ("example", "count"), [("three equilibria", 3), ("none", 0), ("a spiral", 1), ("slow: κ = 0.99", 1)]
)
def test_all_equilibria_are_found_and_are_some(visit, example, count):
    page = visit().open("interactive/two_neurons.html")
    page.get_by_label("example").select_option(example)
    A = np.array([float(page.get_by_label(name).input_value()) for name in ("A₁₁", "A₁₂", "A₂₁", "A₂₂")]).reshape(2, 2)
    z = np.array([float(page.get_by_label(name).input_value()) for name in ("z₁", "z₂")])
    found = np.array(shown(page, "two_neurons", "equilibria")).reshape(-1, 2)
    assert len(found) == count
    for x in found:
        assert np.allclose(np.maximum(A @ x + z, 0), x)


def test_kappa_scales_all_of_A_as_the_library_does(visit):
    page = visit().open("interactive/two_neurons.html")
    page.get_by_label("example").select_option("three equilibria")
    set_slider(page, "κ", 0.9)
    A = scale_to_norm(np.array([[0.0, -2.0], [-2.0, 0.0]]), 0.9)
    exact = idl_ref.solve_equilibrium(A, np.ones((2, 1)), options=idl_ref.SolveOptions(tol=1e-14)).X[:, 0]
    assert np.allclose(shown(page, "two_neurons", "equilibria"), [exact])
    page.get_by_role("button", name="Start at the cross").click()
    assert np.allclose(shown(page, "two_neurons", "x"), exact)


def test_arrow_keys_and_enter_start_a_trajectory(visit):
    page = visit().open("interactive/two_neurons.html")
    page.locator("#two_neurons svg").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert "From (2.8000, 2.9000)" in page.locator("#two_neurons .says").inner_text()


def test_a_map_that_runs_away_is_told(visit):
    page = visit().open("interactive/two_neurons.html")
    page.get_by_label("example").select_option("none")
    page.get_by_role("button", name="Start at the cross").click()
    text = page.locator("#two_neurons .says").inner_text()
    assert "there is none" in text
    assert "do not come to rest" in text


# --- projection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [(1.6, 0.3), (0.9, 1.7), (-1.2, -1.1), (0.2, 0.3), (-0.05, 1.9), (0.0, -1.5)])
def test_a_dragged_row_is_projected_and_rescaled_as_in_the_library(visit, to):
    page = visit().open("interactive/projection.html")
    press_at(page, "projection", 0, 0, -2, 2, to)
    a = np.array([shown(page, "projection", "a")])
    kappa = shown(page, "projection", "kappa")
    assert a[0] == pytest.approx(to, abs=0.02)
    assert shown(page, "projection", "projected") == pytest.approx(project_rows(a, kappa)[0], abs=1e-12)
    assert shown(page, "projection", "rescaled") == pytest.approx(scale_to_norm(a, kappa)[0], abs=1e-12)


def test_a_row_moves_by_keys_and_by_touch(visit):
    page = visit().open("interactive/projection.html")
    page.locator("#projection svg").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert shown(page, "projection", "a") == [1.5, 0.4]
    phone = visit(width=360, has_touch=True).open("interactive/projection.html")
    box = phone.locator("#projection svg").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert shown(phone, "projection", "a") == pytest.approx([0, 0], abs=0.02)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_page_works_from_the_disk_and_after_a_change_of_size(visit, name):
    visitor = visit()
    page = visitor.open(f"interactive/{name}.html", from_disk=True)
    assert page.locator(f"#{name} svg").is_visible()
    for width in (1280, 768, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert visitor.overflow() <= 0
    box = page.locator(f"#{name} svg").bounding_box()
    assert 250 < box["width"] <= 360


@pytest.mark.parametrize("name", NAMES)
def test_without_javascript_a_picture_stands_there(visit, name):
    page = visit(java_script_enabled=False).open(f"interactive/{name}.html")
    picture = page.locator(f"#{name} img")
    assert picture.is_visible()
    assert len(picture.get_attribute("alt")) > 30
    assert picture.bounding_box()["width"] > 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_speaks_against_accessibility(visit, name, dark):
    visitor = visit(dark=dark)
    page = visitor.open(f"interactive/{name}.html")
    assert visitor.violations() == []
    assert len(page.locator(f"#{name} svg").get_attribute("aria-label")) > 30


@pytest.mark.parametrize("name", NAMES)
def test_scripts_stay_short(name):
    from browser import ROOT

    folder = ROOT / "docs" / "_static" / "interactive"
    lines = sum(len((folder / file).read_text(encoding="utf-8").splitlines()) for file in (f"{name}.js", "moving.js"))
    assert lines <= 300
