"""How files of delimited text are recognised."""

from __future__ import annotations

import pytest

from bmcli.data.dialects import WHITESPACE, Choices, Detection, detect_dialect

OPEN = Choices(None, None, None, None)


def detect(text: str, choices: Choices = OPEN, later: tuple[str, ...] = ()) -> Detection:
    return detect_dialect(text, later, True, choices)


CARS = "".join(f'{n}.5   8   {307 + n}.0      130.0      70  1\t"chevrolet model {n}"\n' for n in range(40))
MAILS = "".join(f"{'spam' if n % 3 else 'ham'}\tGo until jurong {n}, crazy\n" for n in range(60))


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("t, C;h, %;y\n" + "0,5;0,5;kalt\n" * 60, ";"),
        ("name;price\nx;1,5\ny;2,5\n", ";"),
        ("price;y\n$1,234.50;a\n$2,000.00;b\n", ";"),
        ('a,b\n"1;2;3",x\n"4;5;6",y\n', ","),
        ("id,tags,y\n1,a;b,yes\n2,b;c,no\n", ","),
        ("time,v\n2021-01-01 10:00,5\n2021-01-02 11:00,6\n", ","),
        ("review text\ngood film\nbad film\n", ","),
        ("text\nHello, world\nGood, day\nBad, day\n", ","),
        ("label\tmsg\n" + MAILS, "\t"),
        (CARS, WHITESPACE),
        ("  a     b    name\n 1.0   2.5  foo\n 3.25  4.0  bar\n", WHITESPACE),
    ],
)
def test_the_delimiter_is_what_makes_cells_of_one_value(text: str, delimiter: str) -> None:
    assert detect(text).dialect.delimiter == delimiter


def test_a_second_delimiter_that_fits_is_told() -> None:
    found = detect("t, C;h, %;y\n" + "0,5;0,5;kalt\n" * 60)
    assert found.notes == (
        "read with the delimiter ';', whose cells hold one value each; ',' would also split the rows, into 3 cells. "
        "To change it, set `delimiter`.",
    )
    assert detect("name;price\nx;1,5\ny;2,5\n").notes == ()


def test_rows_in_the_middle_of_a_file_count() -> None:
    start = "a,b\n" + "1,2;3\n" * 3
    assert detect(start).dialect.delimiter == ","
    assert detect("a;b,c\n1;2,3\n", later=("1;2\n" * 50,)).dialect.delimiter == ";"


@pytest.mark.parametrize(
    "text",
    [
        "5.1,3.5,setosa\n4.9,3.0,setosa\n6.1,2.9,virginica\n",
        MAILS,
        CARS,
        "2021-01-01,5\n2021-01-02,6\n",
        "red,big,a\nblue,small,b\n" * 10,
        "3\n1\n2\n",
    ],
)
def test_a_first_row_like_the_others_is_no_header(text: str) -> None:
    found = detect(text)
    assert not found.dialect.header
    assert "read without a header: the first row (" in found.notes[-1]
    assert "set `header: true`" in found.notes[-1]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "0,1,2,label\n1.5,2,3,a\n2.5,3,4,b\n",
        "country,2019,2020\nCH,5,6\nDE,3,4\n",
        "color,size\n" + "red,big\nblue,small\n" * 10,
        "text\none\ntwo\nthree\n",
        "country\nNA\n-\nDE\n",
        "a,b\n?,x\n1,y\n2,z\n",
        "2021-01-01,2021-02-01\n5,6\n7,8\n",
    ],
)
def test_a_first_row_of_names_is_the_header(text: str) -> None:
    assert detect(text).dialect.header


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("sep=;\na;b\n1;2\n", 1),
        ('"sep=,"\na,b\n1,2\n', 1),
        ("Report of 2021\n\nname;value;y\nx;1,5;a\ny;2,5;b\n", 2),
        ("Report of 2021\nname,value\nx,1.5\ny,2.5\n", 1),
        ("Report,,\nname,value,y\nx,1.5,1\ny,2.5,2\n", 1),
        ("# made by x, on 2021-03-04, ok\n# second\na,b,c\n1,2,3\n4,5,6\n", 2),
        ("# x y z\n1.0 2.0 3.0\n4 5 6\n", 0),
        ("\n\na,b\n1,2\n", 2),
        ("a,b\n1,2\n", 0),
    ],
)
def test_lines_above_the_table_are_skipped(text: str, lines: int) -> None:
    found = detect(text)
    assert found.dialect.skip_lines == lines
    assert found.dialect.header


def test_skipped_titles_are_told() -> None:
    assert detect("Report of 2021\n\nname;value;y\nx;1,5;a\ny;2,5;b\n").notes == (
        "1 line above the table left out, the first of them 'Report of 2021'; to read them, set `skip_lines: 0`.",
    )


def test_single_quotes_around_cells_are_quotes() -> None:
    assert detect("'a','b'\n" + "'1,2','x'\n" * 5).dialect.quote == "'"
    assert detect("a,b\n'tis,x\n'twas,y\n").dialect.quote == '"'


def test_a_first_line_of_names_that_is_read_as_a_row_is_told() -> None:
    rows = "5.5,red\n6.5,blue\n7.5,red\n"
    (note,) = detect("size,colour\n" + rows, Choices(None, None, None, False)).notes
    assert note.startswith("the first line ('size', 'colour') is read as a row, though it has words above numbers")
    assert detect("size,colour\n" + rows, Choices(None, None, None, True)).notes == ()
    assert detect(rows, Choices(None, None, None, False)).notes == ()


def test_what_is_chosen_is_kept() -> None:
    found = detect("1;2\n3;4\n", Choices(",", "none", 1, True))
    assert vars(found.dialect) == {"delimiter": ",", "quote": "none", "skip_lines": 1, "header": True}
    assert found.notes == ()
