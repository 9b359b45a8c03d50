from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from cartoseq.controller.toml_lines import KeyPath, key_lines, key_name

TRICKY = '''\
# [not.a.table]
title = "a # b = [c]" # [[x]]
"odd key" . 'b.c' = 'it\\'

[chip]
long = """
[inner]
key = 1 \\"""
two quotes"""""
list = [ # comment ]
  1,
  [ "x,]",
    2 ],
  { a = 1, b.c = [3] },
]
when = 1979-05-27 07:32:00

[[library]]
name = "a"
[library.sub]
x = 1
[[library]]
name = \'\'\'
b\'\'\'
[[library.lane]]
[[library.lane]]
y = -0.5e3
[library.sub]
x = 2
[top.below]
'''


def paths_of(value: object, path: KeyPath = ()) -> set[KeyPath]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return {path}.union(*(paths_of(below, (*path, step)) for step, below in items)) - {()}


def test_every_key_and_item_of_a_tricky_text_has_its_line() -> None:
    lines = key_lines(TRICKY)
    assert paths_of(tomllib.loads(TRICKY)) - set(lines) == {("top",)}
    assert set(lines) <= paths_of(tomllib.loads(TRICKY))
    assert lines["title",] == 2
    assert lines["odd key", "b.c"] == 3
    assert lines["chip",] == 5
    assert lines["chip", "long"] == 6
    assert lines["chip", "list"] == 10
    assert lines["chip", "list", 0] == 11
    assert lines["chip", "list", 1, 1] == 13
    assert lines["chip", "list", 2, "b", "c", 0] == 14
    assert lines["chip", "when"] == 16
    assert lines["library", 0] == 18
    assert lines["library", 0, "sub", "x"] == 21
    assert lines["library", 1] == 22
    assert lines["library", 1, "lane", 1, "y"] == 27
    assert lines["library", 1, "sub", "x"] == 29


def test_windows_line_ends_change_no_line() -> None:
    assert key_lines(TRICKY.replace("\n", "\r\n")) == key_lines(TRICKY)


def test_a_last_line_without_end_is_a_line() -> None:
    assert key_lines("a = 1\nb = 2") == {("a",): 1, ("b",): 2}
    assert key_lines("a = [1]\n# end") == {("a",): 1, ("a", 0): 1}
    assert key_lines("") == {}


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"])), max_size=5), st.integers(0, 5))
def test_texts_of_any_content_hide_no_later_key(texts: list[str], blank: int) -> None:
    quoted = ['"' + "".join(f"\\U{ord(c):08X}" if c in '"\\' else c for c in text) + '"' for text in texts]
    text = f"a = [{', '.join(quoted)}]\n" + "\n" * blank + "b = 1\n"
    assert tomllib.loads(text) == {"a": texts, "b": 1}
    assert key_lines(text)["b",] == 2 + blank


def test_a_path_is_written_as_a_person_would() -> None:
    assert key_name(("library", 0, "reads", 1, 0)) == "library[0].reads[1][0]"
    assert key_name(("chip",)) == "chip"
