"""Tables on paper and in programs: hand-written expectations, and hostile texts."""

from __future__ import annotations

import pandas as pd
import pytest

from ablation.analyse.report.formats import Table, csv, escape_latex, latex, markdown

SMALL = Table.of(
    ["arm", "n", "difference"], [["bce", "3", "baseline"], ["a_b & c", "12", "[-0.01, +0.02]"], ["x", "", ""]]
)


def test_columns_of_numbers_are_found() -> None:
    assert SMALL.numbers == {1, 2}
    assert Table.of(["a", "b"], [["1", "x"], ["2", "3"]]).numbers == {0}
    assert Table.of(["a"], [[""]]).numbers == frozenset()


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 cells in a table of 1"):
        Table.of(["a"], [["1", "2"]])


def test_empty_columns_are_left_out_but_never_the_first() -> None:
    table = Table.of(["arm", "p", "n"], [["", "", "3"], ["", "", "4"]]).used()
    assert table.head == ("arm", "n") and table.rows == (("", "3"), ("", "4")) and table.numbers == {1}


def test_columns_can_go_first() -> None:
    table = SMALL.first("arm", "difference", "not there")
    assert table.head == ("arm", "difference", "n") and table.numbers == {1, 2}
    assert table.rows[0] == ("bce", "baseline", "3")


def test_latex_by_hand() -> None:
    assert latex(SMALL, "study x") == (
        "% study x\n"
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{@{}lrr@{}}\n"
        "\\toprule\n"
        "arm & n & difference \\\\\n"
        "\\midrule\n"
        "bce & 3 & baseline \\\\\n"
        "a\\_b \\& c & 12 & {[$-$0.01, +0.02]} \\\\\n"
        "x &  &  \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100%", r"100\%"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a_b^c~d#e$f", r"a\_b\textasciicircum{}c\textasciitilde{}d\#e\$f"),
        ("<b>|\"", r"\textless{}b\textgreater{}\textbar{}\textquotedbl{}"),
        ("-0.5", "$-$0.5"),
        ("alpha-beta", "alpha-beta"),
        ("[x]", "{[x]}"),
        ("line\nbreak\x00", "line break"),
        ("0.5 ± 0.1", r"0.5 $\pm$ 0.1"),
    ],
)  # fmt: skip
def test_latex_sets_the_text_and_nothing_else(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


def test_a_comment_cannot_be_left_by_a_line_break() -> None:
    assert latex(SMALL, "a\n\\input{x}").startswith("% a \\input{x}\n% needs")


def test_markdown_by_hand() -> None:
    assert markdown(SMALL).split("\n") == [
        "| arm | n | difference |",
        "| --- | ---: | ---: |",
        "| bce | 3 | baseline |",
        r"| a\_b & c | 12 | \[-0.01, +0.02\] |",
        "| x |  |  |",
    ]


def test_a_spreadsheet_finds_no_formula() -> None:
    frame = pd.DataFrame({"name": ["=1+1", "+x", "-x", "@x", "plain", ""], "value": [-1.5, 2, 3, 4, 5, 6]})
    lines = csv(frame).split("\n")
    assert lines[:5] == ["name,value", "'=1+1,-1.5", "'+x,2.0", "'-x,3.0", "'@x,4.0"]
