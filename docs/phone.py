"""What pages get so that they fit a phone: tables whose rows become cards, formulas that break, figures that fit."""

import html
import re
import struct

TABLE = re.compile(r'<table class="docutils[^>]*>.*?</table>', re.S)
ROW = re.compile(r"<tr[^>]*>.*?</tr>", re.S)
CELL = re.compile(r"<(t[dh])([^>]*)>(.*?)</t[dh]>", re.S)
NUMBER = re.compile(r"[-−]?[\d.,]+(/\d+|e[-+]\d+)?( ?(s|ms|µs|ns|%|×))?")
ROLES = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "th": "columnheader", "td": "cell"}
FITS = 44  # characters of a row of a table fit on a phone, with two for the space around each cell
WRAPS = 20  # in a column that is narrower, text breaks into too many lines
FIGURE_FITS = 600  # pixels: no figure of one panel is wider, and its words can be read where it is as wide as a phone
FIGURE = re.compile(r'<img (?:alt="[^"]*" )?[^>]*?src="(?:\.\./)*_images/([^"]+\.png)"')
COMMANDS = re.compile(r'<div class="highlight-sh notranslate">.*?</pre>', re.S)
OPTION = re.compile(r"(?<=[>\s])(--?[A-Za-z][\w-]*)(?=[<\s=])")  # in a block of commands
NAMED = re.compile(r'<span class="pre">(--?[A-Za-z][\w-]*)</span>')  # in a sentence
PRINTED = re.compile(r'<div class="highlight-(?:text|none) notranslate">(.*?</pre>)', re.S)
COLUMNS = re.compile(r"\S {2,}\S|^[^ \n]*(,[^ ,\n]+){3}", re.M)  # two spaces, or commas without a space: a table


def words(cell):
    """Return the text of a cell without tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()


def width(rows):
    """Return how many characters wide a table is at least, when prose in its cells breaks into lines."""

    def narrowest(column):
        longest = max(map(len, column[1:]), default=0)
        return max(min(longest, WRAPS), max((len(word) for text in column for word in text.split()), default=0))

    return sum(narrowest(column) + 2 for column in zip(*rows, strict=True))


def keep_numbers(body):
    """Keep a number in one line with its exponent and its unit: browsers break a line behind the sign of the former."""

    def kept(cell):
        number = NUMBER.fullmatch(words(cell[3]))
        return f"<{cell[1]}{cell[2]} data-number>{cell[3]}</{cell[1]}>" if number else cell[0]

    return TABLE.sub(lambda table: CELL.sub(kept, table.group()), body)


def label_cells(body):
    """Give each cell of a table that is too wide for a phone the heading of its column.

    There, the style sheet shows each row as a card with these labels, and leaves out empty cells. The roles keep it a
    table for readers who listen.
    """

    def labelled(found):
        table = found.group()
        rows = [[words(cell) for _, _, cell in CELL.findall(row)] for row in ROW.findall(table)]
        if not rows or len({len(row) for row in rows}) != 1 or width(rows) <= FITS:
            return table

        def with_labels(row):
            labels = iter(rows[0])

            def with_label(cell):
                label = html.escape(next(labels))
                return f'<td{cell[2]} data-label="{label}">{cell[3]}</td>' if words(cell[3]) else cell[0]

            return CELL.sub(with_label, row.group())

        head, tag, cells = table.partition("<tbody>")
        table = head + tag + ROW.sub(with_labels, cells)
        table = re.sub(r"<(table|thead|tbody|tr|th|td)\b", lambda tag: f'{tag[0]} role="{ROLES[tag[1]]}"', table)
        return table.replace('class="docutils', 'class="cards docutils', 1)

    return TABLE.sub(labelled, body)


def join_punctuation(body):
    """Keep a comma or a full stop on the line of the formula before it."""
    return re.sub(r"(</math>)(</span>)([.,;:)]+)", r"\1\3\2", body)


def keep_options(body):
    """Keep the hyphens of an option of a command in one line with its name."""
    for blocks in (COMMANDS, PRINTED):
        body = blocks.sub(lambda found: OPTION.sub(r'<span class="option">\1</span>', found.group()), body)
    return NAMED.sub(r'<span class="pre option">\1</span>', body)


def break_sentences(body):
    """Let lines of a printed text break, unless they have columns, which two spaces or commas separate."""

    def marked(found):
        columns = COLUMNS.search(words(found[1]))
        return found.group() if columns else found.group().replace(" notranslate", " prose notranslate", 1)

    return PRINTED.sub(marked, body)


def fit_figures(body, folder):
    """Mark the figures that are too wide for a phone, where they scroll, and name their sharper files, if any."""

    def marked(found):
        name = found[1]
        path = next((p / name for p in (folder, folder / "gallery" / "images") if (p / name).exists()), None)
        if path is None:
            return found.group()
        image = found.group()
        if "srcset" not in image and path.with_name(f"{path.stem}_2_00x.png").exists():
            source = re.search(r'src="([^"]+)\.png"', image)[1]
            image += f' srcset="{source}_2_00x.png 2x"'
        (pixels,) = struct.unpack(">I", path.read_bytes()[16:20])  # the width in the header of a PNG file
        return image.replace("<img ", '<img data-wide="true" ', 1) if pixels > FIGURE_FITS else image

    return FIGURE.sub(marked, body)
