"""Tables: a strict reader of .csv files, .parquet files, and the columns that become inputs of a model."""

import json
import math
import pickle
import re
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import idl_ref
from idl_ref import ImplicitModel, columns, delimited, npz, tables
from idl_ref.columns import Columns, Table, Words
from idl_ref.npz import FileFormatError

COLOURS = "age,colour\n30,red\n41,blue\n5.5,red\n"


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(tmp_path, text, **options):
    return tables.read(write(tmp_path, text), **options)


def plainly(column):
    """A column as a list of numbers or words, with None where a value is missing."""
    if isinstance(column, Words):
        return [None if code < 0 else column.words[code] for code in column.codes]
    return [None if math.isnan(value) else value for value in column.tolist()]


@pytest.fixture(params=["blocks of 16 bytes", "blocks of 1 MB"])
def blocks(request, monkeypatch):
    if request.param == "blocks of 16 bytes":
        monkeypatch.setattr(delimited, "BLOCK", 16)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_table(tmp_path, blocks):
    table = read(tmp_path, COLOURS)
    assert plainly(table.columns["age"]) == [30, 41, 5.5]
    assert plainly(table.columns["colour"]) == ["red", "blue", "red"]
    assert table.lines.tolist() == [2, 3, 4]
    assert len(table) == 3


# Each field of one column, and what the column then holds.
FIELDS = {
    "numbers": (["1", "2.5", "-3e2", "+4", ".5", "6."], [1, 2.5, -300, 4, 0.5, 6]),
    "spaces": ([" 1", "2 ", " 3 "], [1, 2, 3]),
    "missing numbers": (["1", "", "NA", "nan", "NaN", "null", "2"], [1, None, None, None, None, None, 2]),
    "too large": (["1", "1e400"], [1, math.inf]),
    "infinite": (["1", "-inf"], [1, -math.inf]),
    "leading zeros": (["007", "010"], [7, 10]),
    "long ids": (["12345678901234567890", "1"], [12345678901234567890.0, 1]),
    "truth values": (["True", "False", "True"], ["True", "False", "True"]),
    "dates": (["2024-01-02", "2024-01-03"], ["2024-01-02", "2024-01-03"]),
    "quotes": (['"a ""b"" c"', '"d,e"', '"f\ng"'], ['a "b" c', "d,e", "f\ng"]),
    "quoted numbers": (['"1"', '"2"'], [1, 2]),
    "words and missing words": (["x", "", " ", "NA"], ["x", None, None, "NA"]),
    "one word among numbers": (["1", "2", "x"], ["1", "2", "x"]),
    "underscores": (["1_000", "2"], ["1_000", "2"]),
    "digits of another script": (["١٢", "3"], ["١٢", "3"]),
    "hexadecimal": (["0x10", "2"], ["0x10", "2"]),
    "versions": (["1.2.3", "1.2"], ["1.2.3", "1.2"]),
    "a word after many numbers": ([*map(str, range(40)), "x"], [*map(str, range(40)), "x"]),
    "a comma for a point": (['"1,5"', "2"], ["1,5", "2"]),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("fields", "expected"), FIELDS.values(), ids=FIELDS)
def test_what_a_column_holds(tmp_path, blocks, fields, expected, end):
    rows = [f"{j},{field},{j}" for j, field in enumerate(fields)]
    table = read(tmp_path, end.join(["first,it,last", *rows]))
    wanted = [word.replace("\n", "\n") if isinstance(word, str) else word for word in expected]
    assert plainly(table.columns["it"]) == wanted
    assert table.columns["last"].tolist() == list(range(len(fields)))


@pytest.mark.parametrize("name", [n for n in FIELDS if not re.search(r"missing|spaces|script|ids|underscores", n)])
def test_pandas_reads_the_same(tmp_path, name):
    """Where fields are missing or have spaces, pandas makes something else of a column of words."""
    pandas = pytest.importorskip("pandas")
    fields, expected = FIELDS[name]
    path = write(tmp_path, "\n".join(["it,last", *(f"{field},1" for field in fields)]))
    found = pandas.read_csv(path)["it"].tolist()
    assert [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for v in found] == expected


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), min_size=1, max_size=30), st.booleans())
def test_both_ways_of_reading_numbers_give_the_same_bits(tmp_path_factory, rows, crlf):
    end = "\r\n" if crlf else "\n"
    text = "".join(",".join(map(repr, row)) + end for row in rows)
    path = write(tmp_path_factory.mktemp("t"), f"a,b,c{end}" + text)
    fields = [line.split(",") for line in text.split(end)[:-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", 8)  # so that NumPy parses each row, and not only a part after the first
        fast = tables.read(path)
        patch.setattr(delimited, "_quickly", lambda *arguments: None)
        slow = tables.read(path)
    for k, name in enumerate("abc"):
        assert fast.columns[name].tobytes() == slow.columns[name].tobytes()
        assert fast.columns[name].tolist() == [float(row[k]) for row in fields]
    assert fast.lines.tolist() == slow.lines.tolist() == list(range(2, 2 + len(rows)))


@pytest.mark.parametrize("row", ["1,2", "1,x", "x,1"])
def test_numpy_parses_blocks_of_numbers(tmp_path, monkeypatch, row):
    """The quick way is taken, also beside words: without it, each field would go through Python."""
    monkeypatch.setattr(delimited, "BLOCK", 64)
    quickly, taken = delimited._quickly, []
    monkeypatch.setattr(delimited, "_quickly", lambda *arguments: taken.append(quickly(*arguments)) or taken[-1])
    table = read(tmp_path, "a,b\n" + f"{row}\n" * 100)
    assert len(taken) >= 5
    assert None not in taken
    assert [plainly(column)[-1] for column in table.columns.values()] == [
        float(w) if w < "a" else w for w in row.split(",")
    ]


@given(
    st.lists(
        st.lists(
            st.sampled_from(["1", "2.5", "", "x", "NA", "inf", " 3 ", '"4"', '"a,b"', "1_0", "é"]),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    )
)
def test_both_ways_of_reading_give_the_same(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("t"), "a,b,c\n" + "".join(",".join(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", 8)
        quick = tables.read(path)
        patch.setattr(delimited, "_quickly", lambda *arguments: None)
        slow = tables.read(path)
    assert [plainly(column) for column in quick.columns.values()] == [plainly(c) for c in slow.columns.values()]
    assert quick.lines.tolist() == slow.lines.tolist()


def test_a_mark_before_utf_8_and_spaces_around_names(tmp_path, blocks):
    table = read(tmp_path, b"\xef\xbb\xbf a , b \n1,2\n")
    assert list(table.columns) == ["a", "b"]


def test_tabs(tmp_path):
    table = tables.read(write(tmp_path, "a\tb\n1\tx,y\n", "table.tsv"))
    assert plainly(table.columns["b"]) == ["x,y"]


def test_lines_of_rows_after_a_line_break_in_a_field(tmp_path, blocks):
    table = read(tmp_path, 'a,b\n"x\ny",1\nz,2\n')
    assert table.lines.tolist() == [2, 4]


def test_empty_lines_at_the_end(tmp_path, blocks):
    assert len(read(tmp_path, "a,b\n1,2\n3,4\n\n\n\r\n")) == 2


def test_a_table_without_rows(tmp_path):
    assert len(read(tmp_path, "a,b\n")) == len(read(tmp_path, "a,b")) == 0


def test_columns_that_are_ignored(tmp_path):
    assert list(read(tmp_path, COLOURS, ignore=["colour"]).columns) == ["age"]
    with pytest.raises(ValueError, match=r"--ignore must name columns of .*table.csv; got size"):
        read(tmp_path, COLOURS, ignore=["size"])


WRONG = {
    "": "must begin with the names of its columns; got an empty file",
    "a,b\n1,2\n3\n": "line 3 must have 2 fields, as line 1; got 1",
    "a,b\n1,2\n3,4,5\n": "line 3 must have 2 fields, as line 1; got 3",
    'a,b\n1,2\n"3,4\n5,6\n7,8\n': "line 3 must be fields of a table; got a quote that is not closed",
    'a,b\n1,"2"x\n': "line 2 must be fields of a table; got ',' expected after '\"'",
    "a,a\n1,2\n": "different names of columns; got a twice",
    "a,\n1,2\n": "a name for each column; got none for column 2",
    "a, ,b\n1,2,3\n": "a name for each column; got none for column 2",
    "a,b\n1,2\nx\0y,3\n": "line 3 must be text; got a NUL byte",
    b"a,b\n1,2\n\xff,3\n": "line 3 must be text in UTF-8; got the byte 0xff",
    "a,b\n1,2\n".encode("utf-16"): "line 1 must be text in UTF-8; got the byte 0xff",
    "a,b\n1,2\n\n3,4\n": "line 3 must be a row; got an empty line between rows",
    "a;b\n1;2\n": "line 1 must separate the names of columns by commas; got ;: write it with commas",
    "a\tb\n1\t2\n": "line 1 must separate the names of columns by commas; got a tab: name it .tsv",
    "a,b\r1,2\r": "line 1 must be fields of a table; got new-line character seen in unquoted field",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=[repr(text)[:30] for text in WRONG])
def test_what_is_refused(tmp_path, blocks, text, words):
    with pytest.raises(FileFormatError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "table.csv"))


def test_errors_late_in_a_file_have_their_line(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK", 256)
    wrong = {
        b"1,2,3\n": "line 1001 must have 2",
        b"1,\0\n": "line 1001 must be text",
        b"\xff,1\n": "line 1001 must be text in UTF-8",
        b'"1,2': "line 1001 must be fields",
    }
    for line, words in wrong.items():
        whole = b"a,b\n" + b"1,2\n" * 999 + line
        with pytest.raises(FileFormatError, match=words):
            read(tmp_path, whole + b"1,2\n" * 5)


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST", 1 << 12)
    monkeypatch.setattr(delimited, "BLOCK", 1 << 10)
    with pytest.raises(FileFormatError, match="line 2 must have at most 4096 bytes"):
        read(tmp_path, "a,b\n" + "1" * 10_000)


def test_other_files(tmp_path):
    for name in ("x.txt", "x"):
        with pytest.raises(ValueError, match=r"must end in .csv, .tsv or .parquet"):
            tables.read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        tables.read(tmp_path / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        tables.read((tmp_path / "folder.csv").absolute())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_are_refused(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("t"), content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", 7)
        patch.setattr(npz, "Exception", FileFormatError, raising=False)  # so that any other exception fails the test
        with suppress(FileFormatError):
            table = tables.read(path)
            assert all(len(plainly(column)) == len(table) for column in table.columns.values())


def test_too_many_words(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TOO_MANY", 3)
    monkeypatch.setattr(delimited, "BLOCK", 16)
    with pytest.raises(ValueError, match=r"the column a must hold numbers, or words that repeat; got more than 3"):
        read(tmp_path, "a,b\n" + "".join(f"w{j},1\n" for j in range(9)))


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize("rows", [20_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_a_table_takes_little_memory(tmp_path, rows):
    """The float64 columns are twice the float32 data; besides there is a block of the file, as text and as numbers."""
    import memory_of_tables

    memory_of_tables.write(tmp_path / "t.csv", rows, 64)
    memory, _ = memory_of_tables.measure(tmp_path / "t.csv", rows, 64)
    assert memory <= 2.15 + 32e6 / (4 * 64 * rows)


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_chunks_of_known_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK", 16)
    path = write(tmp_path, "id,age,zip\n" + "".join(f"{j},{j},0{j}\n" for j in range(9)) + "9,old,09\n10,,010\n")
    parts = list(tables.chunks(path, {"zip": "category", "age": "number", "weight": "number"}))
    assert len(parts) > 3
    assert len(parts[0]) == 0
    assert set(parts[0].columns) == {"age", "zip"}
    assert np.concatenate([part.lines for part in parts]).tolist() == list(range(2, 13))
    age = [value for part in parts for value in plainly(part.columns["age"])]
    assert age == [*range(9), math.inf, None]
    assert [w for part in parts for w in plainly(part.columns["zip"])] == [f"0{j}" for j in range(11)]


# --- .parquet ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pyarrow", "pandas"])
def frame(request, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    data = {
        "whole": [1, 2, 3], "real": [1.5, None, math.inf], "flag": [True, False, True], "word": ["a", None, "b"],
        "maybe": pandas.array([1, None, 3], dtype="Int64"), "kind": pandas.Categorical(["x", "y", "x"]),
    }  # fmt: skip
    pandas.DataFrame(data).to_parquet(tmp_path / "t.parquet")
    if request.param == "pandas":
        read = pandas.read_parquet
        monkeypatch.setattr(tables, "_parquet", tables._parquet_by_pandas)
        monkeypatch.setattr(pandas, "read_parquet", read)
    return tmp_path / "t.parquet"


def test_parquet(frame):
    table = tables.read(frame)
    assert {name: plainly(column) for name, column in table.columns.items()} == {
        "whole": [1, 2, 3], "real": [1.5, None, math.inf], "flag": ["True", "False", "True"], "word": ["a", None, "b"],
        "maybe": [1, None, 3], "kind": ["x", "y", "x"],
    }  # fmt: skip
    assert (table.unit, table.lines.tolist()) == ("row", [1, 2, 3])


def test_parquet_is_refused(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    pandas.DataFrame({"when": pandas.to_datetime(["2024-01-02"])}).to_parquet(path)
    with pytest.raises(FileFormatError, match="the column when must hold numbers or text; got datetime64"):
        tables.read(path)
    pandas.DataFrame({"x": np.zeros(100_000)}).to_parquet(path)
    monkeypatch.setattr("idl_ref.npz.FREE", 0)
    with pytest.raises(FileFormatError, match=r"must have at most .* values in a file of this size; got 100,000"):
        tables.read(path)
    with pytest.raises(FileFormatError, match=r"damaged or not a .parquet file"):
        tables.read(write(tmp_path, b"PAR1" * 9, "u.parquet"))


def test_parquet_without_a_library(tmp_path, monkeypatch):
    for name in ("pyarrow", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r".parquet files need pyarrow or pandas: pip install pyarrow"):
        tables.read(write(tmp_path, b"", "t.parquet"))


# --- columns ----------------------------------------------------------------------------------------------------------


def people(m=6, **changes):
    table = {
        "age": np.arange(m, dtype=float), "colour": Words(np.arange(m) % 3, ["red", "blue", "green"]),
        "price": np.ones(m), **changes,
    }  # fmt: skip
    return Table(table, np.arange(2, 2 + m), "people.csv")


def test_matrix():
    found = Columns.fit(people(), ["price"])
    assert found.names == ("age", "colour")
    assert found.features == ["age", "colour=blue", "colour=green", "colour=red"]
    assert found.kinds == {"age": "number", "colour": "category"}
    assert found.targets == ("price",)
    U, bad = found.matrix(people())
    assert U.dtype == np.float32
    assert not bad.any()
    np.testing.assert_array_equal(U[:3], [[0, 0, 0, 1], [1, 1, 0, 0], [2, 0, 1, 0]])


def test_consumed_columns_leave_the_table():
    table, found = people(), Columns.fit(people(), ["price"])
    np.testing.assert_array_equal(found.matrix(table, consume=True)[0], found.matrix(people())[0])
    assert list(table.columns) == ["price"]


def test_order_and_other_columns_do_not_matter():
    found, table = Columns.fit(people(), ["price"]), people()
    turned = Table({"more": np.zeros(6), **dict(reversed(table.columns.items()))}, table.lines)
    np.testing.assert_array_equal(found.matrix(turned)[0], found.matrix(table)[0])


def test_bad_rows_have_no_numbers_and_a_reason():
    found = Columns.fit(people(), ["price"])
    age = np.array([0, np.nan, 2, np.inf, 4, 5])
    table = people(age=age, colour=Words(np.array([0, 1, -1, 1, 2, 0]), ["red", "blue", "pink"]))
    U, bad = found.matrix(table)
    assert bad.tolist() == [False, True, True, True, True, False]
    assert np.isnan(U[bad]).all()
    np.testing.assert_array_equal(U[~bad], [[0, 0, 0, 1], [5, 0, 0, 1]])
    assert found.faults(table) == {
        1: "age is missing", 2: "colour is missing", 3: "age is not a finite number",
        4: "colour has a word that the training data had not",
    }  # fmt: skip


def test_missing_values_are_filled():
    table = people(
        age=np.array([1, np.nan, 4, np.nan, 4, 3.0]), colour=Words(np.array([2, -1, 1, 2, 0, -1]), ["a", "b", "c"])
    )
    found = Columns.fit(table, ["price"], missing="mean")
    assert found.fills == (3.0, "c")
    U, bad = found.matrix(table)
    assert not bad.any()
    assert U[:, 0].tolist() == [1, 3, 4, 3, 4, 3]
    np.testing.assert_array_equal(U[1], [3, 0, 0, 1])
    unknown = people(colour=Words(np.zeros(6, int), ["z"]))
    assert found.matrix(unknown)[1].all()  # What is wrong is not missing.


def test_words_where_numbers_were_and_numbers_where_words_were():
    found = Columns.fit(people(), ["price"])
    assert found.matrix(people(age=Words(np.zeros(6, int), ["old"])))[1].all()
    coded = Columns.fit(people(colour=Words(np.arange(6) % 2, ["1", "2.5"])), ["price"])
    U, bad = coded.matrix(people(colour=np.array([1, 2.5, 1, 3, np.nan, 1])))
    assert bad.tolist() == [False, False, False, True, True, False]
    assert U[1, 1:].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"age": np.array([1, np.nan, 1, np.nan, 1, 1])},
            "the column age must have a value in every row; got 2 missing ones, the first in line 3",
        ),
        (
            {"colour": Words(np.array([0, 0, -1, 0, 0, 0]), ["a"])},
            "the column colour must have a value in every row; got 1 missing ones, the first in line 4",
        ),
        ({"age": np.array([1, 1, np.inf, 1, 1, 1])}, "the column age must hold finite numbers; got another in line 4"),
        ({"age": np.full(6, np.nan)}, "the column age must have values; got none in 6 rows: leave it out"),
        ({"colour": Words(np.full(6, -1), [])}, "the column colour must have values; got none in 6 rows"),
        (
            {"colour": Words(np.arange(6), list("abcdefghijkl"))},
            "the column colour must hold numbers, or words that repeat; got 12 different words in 6 rows",
        ),
    ],
)
def test_training_data_that_are_refused(changes, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        Columns.fit(people(**changes), ["price"])
    assert str(caught.value).startswith("people.csv: ")


def test_a_table_that_lacks_a_column():
    found = Columns.fit(people(), ["price"])
    with pytest.raises(ValueError, match="it lacks colour, and has age"):
        found.matrix(Table({"age": np.zeros(1)}, np.zeros(1)))


def test_headers():
    for missing in ("refuse", "mean"):
        found = Columns.fit(people(), ["price"], missing)
        text = json.dumps(found.to_header())
        assert Columns.from_header(json.loads(text)) == found


def header(**changes):
    return {**Columns.fit(people(), ["price"], "mean").to_header(), **changes}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "x",
        {},
        header(more=[]),
        header(names=["age"]),
        header(names=["age", "age"]),
        header(names=["age", ""]),
        header(names=["age", 3]),
        header(names="ab"),
        header(names=["price", "colour"]),
        header(names=["a", "b" * 1001]),
        header(categories=[None, ["red", "blue"]]),
        header(categories=[None, []]),
        header(categories=[None, ["a", "a"]]),
        header(categories=[None, "ab"]),
        header(categories=[["0"], ["red"]]),
        header(categories=[None, [1]]),
        header(fills=[None]),
        header(fills=["x", "red"]),
        header(fills=[math.inf, "red"]),
        header(fills=[1.0, "pink"]),
        header(fills=[True, "red"]),
        header(fills=[10**400, "red"]),
        header(fills=[1.0, ["red"]]),
        header(targets=[1]),
        header(targets="price"),
        header(names=[], categories=[], fills=[]),
        header(names=[["age"], "colour"]),
    ],
)
def test_headers_that_are_refused(wrong):
    with pytest.raises((ValueError, TypeError), match=r"."):
        Columns.from_header(wrong)


def test_too_much_for_a_header():
    words = tuple(f"{j:04}" + "x" * 200 for j in range(2000))
    with pytest.raises(ValueError, match="must have at most 262144 characters in a file"):
        Columns(("a",), (words,), (None,)).to_header()


# --- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    model = ImplicitModel(4, 1, 5, seed=0)
    model.columns = Columns.fit(people(), ["price"], "mean")
    return model


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_columns_are_stored_with_the_model(tmp_path, model, ending):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model.{ending}"
    model.save(path)
    assert idl_ref.load(path).columns == model.columns
    assert pickle.loads(pickle.dumps(model)).columns == model.columns
    frozen = model.freeze()
    assert frozen.columns == model.columns
    assert pickle.loads(pickle.dumps(frozen)).columns == model.columns
    model.columns = None
    model.save(path)
    assert idl_ref.load(path).columns is None


def test_columns_must_fit_the_model(model):
    with pytest.raises(ValueError, match="columns must become 4 inputs, as many as the model has; got 1"):
        model.columns = Columns(("a",), (None,), (None,))
    with pytest.raises(TypeError, match="columns must be None or Columns; got 'a'"):
        model.columns = "a"
    assert ImplicitModel(2, 1, 3).columns is None


def test_a_file_with_wrong_columns_is_refused(tmp_path, model, monkeypatch):
    for wrong in ({"names": "x"}, header(names=["a", 3]), Columns(("a",), (None,), (None,)).to_header()):
        with monkeypatch.context() as patch:
            patch.setattr(columns.Columns, "to_header", lambda self, wrong=wrong: wrong)
            model.save(tmp_path / "model.npz")
        with pytest.raises(FileFormatError, match="columns"):
            idl_ref.load(tmp_path / "model.npz")
