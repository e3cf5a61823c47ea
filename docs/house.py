"""Draw docs/house.svg, the modules of idl_ref on their floors: python docs/house.py, from anywhere.

The imports are read from the sources, without importing anything, and the floors from the table in
tests/test_floors.py, whose comments are the titles of the storeys. A room is a file or a folder of idl_ref. The rooms
of a storey get rows, and docs/layered.py finds their places. Every step is deterministic: tests/test_house.py compares
the committed picture with what this script writes.
"""

import ast
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parent))

from layered import Item, Rows, Ties, ordered, places, spread, turned

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TABLE, PICTURE = ROOT / "idl_ref", ROOT / "tests" / "test_floors.py", ROOT / "docs" / "house.svg"
CAPTION = (
    "An arrow means “imports”. Arrows that follow from others are left out, and so are those to the ground floor,",
    "which any room may use. Rooms of the same name, side by side in the wings of a folder, do the same thing.",
)

# --- what there is: modules, imports, storeys -------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Files by their names within the package: "" is idl_ref itself, "backends.numpy" a folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(node: ast.AST, package: str, known: dict[str, Path]) -> set[str]:
    """The modules that the statements below a node import, lazily or for types alone, too."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = ["idl_ref", *filter(None, package.split("."))]
        parent = ".".join([*above[: len(above) + 1 - node.level], node.module or ""]) if node.level else node.module
        parent = str(parent).rstrip(".")
        names = [f"{parent}.{alias.name}" for alias in node.names]
        names = [name if name.removeprefix("idl_ref.") in known else parent for name in names]
    inside = {name.removeprefix("idl_ref").lstrip(".") for name in names if f"{name}.".startswith("idl_ref.")}
    return inside.union(*(imported(child, package, known) for child in ast.iter_child_nodes(node)))


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    known, result = modules(), {}
    for name, path in known.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        result[name] = (imported(ast.parse(path.read_text(encoding="utf-8")), package, known) & set(known)) - {name}
    return result


def storeys() -> tuple[list[str], dict[str, int], dict[str, int]]:
    """Titles, the storey of each module, and its floor. A title is a comment of the table, up to a colon or a comma."""
    text = TABLE.read_text(encoding="utf-8")
    table = re.search(r"^FLOORS = \{\n(.*?)^\}", text, flags=re.M | re.S)
    assert table is not None
    titles, storey, floor = [], {}, {}
    for line in table[1].splitlines():
        if comment := re.match(r" *# ([^:;,]+)", line):
            titles.append(comment[1].strip())
        elif row := re.match(r' *"([\w.]*)": (\d+),', line):
            storey[row[1]], floor[row[1]] = len(titles) - 1, int(row[2])
    return titles, storey, floor


# --- rooms and the arrows between them --------------------------------------------------------------------------------


class House(NamedTuple):
    """Rooms by name, each with its modules; their storeys; what each imports."""

    titles: list[str]
    rooms: dict[str, list[str]]
    storey: dict[str, int]
    arrows: dict[str, set[str]]
    inner: dict[str, set[str]]  # the imports of modules
    order: list[str]  # of the modules in the table


def survey() -> House:
    """The rooms. A file that stands above the folder it lies in, because it imports more, is a room of its own."""
    titles, storey, floor = storeys()
    inner = imports()
    rooms: dict[str, list[str]] = {}
    home = {}
    for module in sorted(inner, key=lambda name: (floor[name], list(floor).index(name))):
        top = module.partition(".")[0]
        home[module] = top if floor[module] <= floor[top] else module
        rooms.setdefault(home[module], []).append(module)
    arrows = {room: {home[name] for module in rooms[room] for name in inner[module]} - {room} for room in rooms}
    ground = {room for room in rooms if floor[room] == 0}
    titles.append(f"the ground floor: {titles[min(storey[room] for room in ground)]}")
    level = {room: max(own := [storey[m] for m in rooms[room]], key=lambda s: (own.count(s), s)) for room in rooms}
    for _ in rooms:  # arrows go down: a room stands no lower than what it imports
        level = {room: max([level[room], *(level[other] for other in arrows[room])]) for room in rooms}
    level = {room: -1 if room in ground else level[room] for room in rooms}  # the last title
    arrows = {room: others - ground for room, others in arrows.items()}
    return House(titles, rooms, level, reduced(arrows), inner, list(floor))


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that follow from others (the transitive reduction)."""
    below: dict[str, set[str]] = {}

    def reach(room: str, *path: str) -> set[str]:
        if room in path:
            raise ValueError(f"rooms import each other in a circle: {', '.join((*path, room))}")
        if room not in below:
            below[room] = arrows[room].union(*(reach(other, *path, room) for other in arrows[room]))
        return below[room]

    return {
        room: {other for other in others if not any(other in reach(third) for third in others)}
        for room, others in arrows.items()
    }


# --- how large a room is ----------------------------------------------------------------------------------------------

LEFT, RIGHT, GAP, LANE = 138, 1184, 16, 9  # pixels; an arrow that passes a row takes a LANE of it
CELL, STRIP = 21, 24  # heights


def width(text: str, size: float = 13) -> float:
    """Wide enough for the text in any sans-serif font."""
    return 0.58 * size * len(text)


class Wing(NamedTuple):
    """A folder of folders: columns of cells, and the files that lie beside the folders, above and below."""

    columns: dict[str, list[str]]
    rows: list[str]  # names that several columns have
    above: list[str]
    below: list[str]


def last(module: str) -> str:
    return module.rpartition(".")[2]


def parts_of(folder: str, modules: list[str]) -> list[str]:
    """The names of the files and folders in a folder; those of folders end in a slash."""
    names = [module.removeprefix(f"{folder}.") for module in modules if module.startswith(f"{folder}.")]
    deep = {name.partition(".")[0] for name in names if "." in name}
    return [f"{name}/" if name in deep else name for name in names if "." not in name]


def wing(room: str, house: House) -> Wing | None:
    """The columns of a folder that has folders, or None."""
    inside = [module for module in house.rooms[room] if module != room]
    folders = [folder for folder in inside if folder.count(".") == 1 and parts_of(folder, inside)]
    if not folders:
        return None
    folders.sort(key=lambda folder: min(i for i, m in enumerate(house.order) if f"{m}.".startswith(f"{folder}.")))
    columns = {folder: parts_of(folder, inside)[::-1] for folder in folders}
    count = [name for names in columns.values() for name in names]
    rows = [name for name in dict.fromkeys(count) if count.count(name) > 1]
    beside = [module for module in inside if module.count(".") == 1 and module not in folders]
    used = set().union(*(house.inner[m] for m in inside if ".".join(m.split(".")[:2]) in folders))
    above = [last(module) for module in beside if module not in used]
    return Wing(columns, rows, above, [last(module) for module in beside if module in used])


def column_width(wing: Wing) -> float:
    return min(206, (RIGHT - LEFT - 110) / len(wing.columns))  # arrows that pass need the rest


def own_cells(wing: Wing, folder: str) -> list[str]:
    return [name for name in wing.columns[folder] if name not in wing.rows]


def lines(names: list[str], limit: int = 48) -> list[str]:
    """Names in lines of at most so many characters."""
    result = [""]
    for name in names:
        longer = f"{result[-1]} · {name}" if result[-1] else name
        result = [*result[:-1], longer] if len(longer) <= limit else [*result, name]
    return result


def size(room: str, house: House) -> tuple[float, float]:
    """Width and height of a room in the picture."""
    inside = [last(module) for module in house.rooms[room] if module != room]
    if found := wing(room, house):
        deepest = max((len(own_cells(found, folder)) + 1) // 2 for folder in found.columns)
        cells = STRIP + CELL * (len(found.rows) + deepest) + 10
        strips = STRIP * (bool(found.above) + bool(found.below))
        return column_width(found) * len(found.columns) + 20, 30 + cells + strips + LANE * 2 + 8
    if inside:
        shown = lines(inside)
        return max(width(label(room)) + 30, *(width(line, 11) + 24 for line in shown)), 30 + 15 * len(shown)
    return max(width(label(room)) + 22, 74), 30


def label(room: str) -> str:
    return room.replace(".", "/") or "__init__"


# --- rows, an order in them, and places -------------------------------------------------------------------------------


def rows(house: House) -> list[list[str]]:
    """Rooms from the bottom, no arrow within a row, no row too wide; each storey begins a new one."""
    result: list[list[str]] = []
    for storey in sorted(set(house.storey.values())):
        left = [room for room in house.rooms if house.storey[room] == storey]
        while left:
            row = [room for room in left if not house.arrows[room] & set(left)]
            while len(row) > 1 and sum(size(room, house)[0] + GAP for room in row) > RIGHT - LEFT - 60:
                row = row[: (len(row) + 1) // 2]
            result.append(row)
            left = [room for room in left if room not in row]
    return result


def grid(house: House) -> tuple[Rows, Ties]:
    """The rows with their passing arrows, and what each item is tied to in the row below."""
    stack = [[Item(room) for room in row] for row in rows(house)]
    place = {item.room: i for i, row in enumerate(stack) for item in row}
    down: Ties = {item: [] for row in stack for item in row}
    for room in house.rooms:
        for other in sorted(house.arrows[room]):
            passing = [Item(room, other, i) for i in range(place[room] - 1, place[other], -1)]
            for item in passing:
                stack[item.row].append(item)
            for upper, lower in pairwise([Item(room), *passing, Item(other)]):
                down.setdefault(upper, []).append(lower)
    return stack, down


# --- the picture ------------------------------------------------------------------------------------------------------

PAPER, INK, SOFT, ARROW = "#fbfaf7", "#1f2933", "#5b6673", "#52606d"
BANDS = ("#f1efe8", "#f8f6f1")
TINTS = ("#dbeafe", "#dcfce7", "#fef3c7", "#fce7f3", "#ede9fe")
CHANNEL, TOP = 36, 62  # between rows, and above the first


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def box(x: float, y: float, w: float, h: float, fill: str, more: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}"{more}/>'


FRAME, ROOM, SMALL = ' rx="5" stroke="#7b8794"', ' class="room"', ' class="small"'


def draw_room(room: str, x: float, y: float, house: House) -> list[str]:
    """A file, or a folder with its files, around x, from y down."""
    w, h = size(room, house)
    parts = [box(x - w / 2, y, w, h, "#ffffff", FRAME)]
    found = wing(room, house)
    inside = [last(module) for module in house.rooms[room] if module != room]
    parts.append(text(x, y + 20, label(room) + ("/" if inside else ""), ROOM))
    if found:
        return parts + draw_wing(found, x - w / 2 + 10, y + 30, h - 38, house)
    return parts + [text(x, y + 36 + 15 * i, line, SMALL) for i, line in enumerate(lines(inside)) if line]


def draw_wing(wing: Wing, left: float, top: float, height: float, house: House) -> list[str]:
    """Columns side by side, cells of the same name in the same row, then the other cells, two in a row."""
    parts, w = [], column_width(wing)
    middle = left + w * len(wing.columns) / 2
    if wing.above:
        parts.append(text(middle, top + 14, " · ".join(wing.above), SMALL))
        top, height = top + STRIP, height - STRIP
    if wing.below:
        parts.append(text(middle, top + height - 6, " · ".join(wing.below), SMALL))
        height -= STRIP
    height -= 2 * LANE
    for i, folder in enumerate(wing.columns):
        x = left + w * i
        parts.append(box(x + 3, top, w - 6, height, TINTS[i % len(TINTS)], ' rx="4"'))
        parts.append(text(x + w / 2, top + 17, last(folder) + "/", ROOM))
        for k, name in enumerate(wing.rows):
            if name in wing.columns[folder]:
                parts.append(box(x + 12, top + STRIP + CELL * k, w - 24, CELL - 3, "#ffffff", ' rx="3"'))
                parts.append(text(x + w / 2, top + STRIP + CELL * k + 13, name, SMALL))
        start = top + STRIP + CELL * len(wing.rows) + 6
        for k, name in enumerate(own_cells(wing, folder)):
            centre, y = x + w * (0.27 if k % 2 == 0 else 0.73), start + CELL * (k // 2)
            parts.append(box(centre - 0.21 * w, y, 0.42 * w, CELL - 3, "#ffffff", ' rx="3"'))
            parts.append(text(centre, y + 13, name, SMALL))
    return parts + draw_lanes(wing, left, top + height, house)


def draw_lanes(wing: Wing, left: float, y: float, house: House) -> list[str]:
    """Imports between the columns of a wing, each by a lane below them."""
    names, w = list(wing.columns), column_width(wing)
    folder_of = {module: ".".join(module.split(".")[:2]) for module in house.inner}
    pairs = {(folder_of[module], folder_of[other]) for module, others in house.inner.items() for other in others}
    parts = []
    targets = [target for target in names if any((source, target) in pairs for source in names if source != target)]
    for k, target in enumerate(targets):
        end, depth = left + w * (names.index(target) + 0.5), y + 8 + 5 * k
        for source in names:
            if (source, target) in pairs and source != target:
                start = left + w * (names.index(source) + 0.5) + 8 * k
                parts.append(f'<path d="M{start:.1f},{y:.1f} V{depth:.1f} H{end:.1f} V{y + 1:.1f}" class="arrow"/>')
    return parts


def ports(x: dict[Item, float], ties: Ties, item: Item, house: House) -> dict[Item, float]:
    """Where the arrows of an item leave it, or reach it, one for each item that it is tied to."""
    others = sorted(ties.get(item, []), key=lambda other: (x[other], other))
    if item.end or not others:
        return dict.fromkeys(others, x[item])
    half = size(item.room, house)[0] / 2 - 12
    low, high = x[item] - half, x[item] + half
    apart = [min(13.0, 2 * half / len(others))] * (len(others) - 1)
    wanted = [min(max(0.8 * x[item] + 0.2 * x[other] if half < 150 else x[other], low), high) for other in others]
    return dict(zip(others, spread(wanted, [1.0] * len(others), apart, low, high), strict=True))


def draw_arrows(stack: Rows, down: Ties, x: dict[Item, float], y: list[float], house: House) -> list[str]:
    """From the bottom of a room, straight through the rows on its way, to the top of another."""
    tall = [max(size(item.room, house)[1] for item in row if not item.end) for row in stack]
    up, parts = turned(down), []
    level = {item: i for i, row in enumerate(stack) for item in row}
    leave = {item: ports(x, down, item, house) for item in down}
    reach = {item: ports(x, up, item, house) for item in up}
    for room in house.rooms:
        for first in down[Item(room)]:
            upper, lower = Item(room), first
            at, height = leave[upper][lower], y[level[upper]] + size(room, house)[1]
            path = f"M{at:.1f},{height:.1f}"
            while True:
                end, bottom = reach[lower][upper], y[level[lower]]
                floor = y[level[upper]] + tall[level[upper]]
                half = (floor + bottom) / 2
                path += f" V{floor:.1f} C{at:.1f},{half:.1f} {end:.1f},{half:.1f} {end:.1f},{bottom:.1f}"
                at = end
                if not lower.end:
                    break
                upper, lower = lower, down[lower][0]
            parts.append(f'<path d="{path}" class="arrow"/>')
    return parts


STYLE = f"""<style>
text {{ font: 13px Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-size: 20px; font-weight: bold }} .room {{ font-weight: bold; text-anchor: middle }}
.small {{ font-size: 11px; text-anchor: middle }}
.storey {{ font-size: 12px; font-style: italic; fill: {SOFT} }} .caption {{ font-size: 12px; fill: {SOFT} }}
.arrow {{ fill: none; stroke: {ARROW}; stroke-width: 1.2; marker-end: url(#head) }}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0.5 L8,4 L0,7.5 z" fill="{ARROW}"/></marker></defs>"""


def picture() -> str:
    """The whole of docs/house.svg."""
    house = survey()
    stack, down = grid(house)
    stack = ordered(stack, down)
    wide = {item: LANE if item.end else size(item.room, house)[0] + GAP for row in stack for item in row}
    x = places(stack, down, wide, LEFT, RIGHT)
    tall = [max(size(item.room, house)[1] for item in row if not item.end) for row in stack]
    y = [TOP + sum(tall[i + 1 :]) + CHANNEL * (len(stack) - 1 - i) + CHANNEL / 2 for i in range(len(stack))]
    bottom = y[0] + tall[0] + CHANNEL / 2
    storey = [max(house.storey[item.room] for item in row if not item.end) for row in stack]
    parts = [text(16, 32, "The house of idl_ref: every import goes down", ' class="title"')]
    for k, number in enumerate(sorted(set(storey))):
        high = min(y[i] for i in range(len(stack)) if storey[i] == number) - CHANNEL / 2
        low = max(y[i] + tall[i] for i in range(len(stack)) if storey[i] == number) + CHANNEL / 2
        parts.append(box(0, high, 1200, low - high, BANDS[k % 2]))
        words = lines(house.titles[number].split(), 18)
        for j, line in enumerate(words):
            height = (high + low) / 2 + 4 + 15 * (j - (len(words) - 1) / 2)
            parts.append(text(16, height, line.replace(" · ", " "), ' class="storey"'))
    parts += draw_arrows(stack, down, x, y, house)
    for i, row in enumerate(stack):
        for item in row:
            parts += [] if item.end else draw_room(item.room, x[item], y[i], house)
    parts += [text(16, bottom + 24 + 17 * k, line, ' class="caption"') for k, line in enumerate(CAPTION)]
    height = bottom + 30 + 17 * len(CAPTION)
    extent = f'viewBox="0 0 1200 {height:.0f}" width="1200" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {extent}>'
    return "\n".join([head, STYLE, box(0, 0, 1200, height, PAPER), *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
