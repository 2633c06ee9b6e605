import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels.content.media_type import negotiate, parse
from manymodels.errors import NotAcceptable

CSV, JSON, LINES, PLAIN = "text/csv", "application/json", "application/jsonlines", "text/plain"
AVAILABLE = (JSON, CSV, LINES)
header_text = st.text(max_size=60) | st.text('abc/*;,="\\ \t.q019-', max_size=60)


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("text/csv", CSV, {}),
        ("  Text/CSV\t", CSV, {}),
        ("text/csv; charset=utf-8", CSV, {"charset": "utf-8"}),
        ("text/csv;HEADER = Present ", CSV, {"header": "Present"}),
        ('text/csv; a="x; y, z"; b=2', CSV, {"a": "x; y, z", "b": "2"}),
        (r'text/csv; delimiter="\""', CSV, {"delimiter": '"'}),
        (r'text/csv; a="\\"', CSV, {"a": "\\"}),
        ('text/csv; a="never closed; b=2', CSV, {"a": '"never closed; b=2'}),
        ("text/csv; a=1; A=2", CSV, {"a": "1"}),
        ("text/csv; delimiter==", CSV, {"delimiter": "="}),
        ("text/csv;;; alone", CSV, {}),
        ("", "", {}),
    ],
)
def test_a_media_type_is_a_lower_case_name_and_its_parameters(text, name, parameters):
    parsed = parse(text)
    assert parsed.name == name
    assert dict(parsed.parameters) == parameters


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/json;q=0.2, text/csv;q=0.8", CSV),
        ("application/json;q=0.8, text/csv;q=0.2", JSON),
        ("text/csv;q=0.5, application/json", JSON),
        ("text/csv; Q=0.5, application/json;q=0.4", CSV),
        # q=0 refuses, whatever else would cover it.
        ("application/json;q=0, */*", CSV),
        ("application/*;q=0, */*", CSV),
        ("*/*;q=0, text/csv;q=0.1", CSV),
        # The most specific range says the q-value, wherever it stands.
        ("*/*;q=0.9, application/json;q=0.1", CSV),
        ("application/*, application/json;q=0.3, text/csv;q=0.5", LINES),
        ("text/*;q=0.3, text/csv;q=0.7, application/*;q=0.5", CSV),
        ("application/*, application/jsonlines;q=0.5", JSON),
        # Parameters other than q neither help nor hinder.
        ("text/csv;header=present;q=0.9, application/json;q=0.8", CSV),
        ('text/csv;x="a,b;q=0";q=0.9, application/json;q=0.8', CSV),
        # Equals: the first named; within a wildcard the default.
        ("text/csv, application/json", CSV),
        ("text/csv;q=0.5, application/json;q=0.5", CSV),
        ("image/png, */*", JSON),
        ("text/csv, */*", CSV),
        ("*/*, text/csv", JSON),
        # What is no q-value counts as none, and one out of range as the nearest.
        ("text/csv;q=high, application/json;q=0.9", CSV),
        ("text/csv;q=nan, application/json;q=0.9", CSV),
        ("text/csv;q=-1, application/json;q=0.1", JSON),
        ("text/csv;q=7, application/json;q=1", CSV),
        (" , ,text/csv,", CSV),
    ],
)
def test_what_a_client_prefers(accept, chosen):
    assert negotiate(accept, JSON, AVAILABLE) == chosen


@pytest.mark.parametrize(
    "accept",
    ["*/*;q=0", "text/csv;q=0", "text/csv;q=0.000", "image/*", "text", "*", ",", "json", "*/json"],
)
def test_what_nothing_fits_is_answered_with_what_there_is(accept):
    with pytest.raises(NotAcceptable, match=f"{JSON}, {CSV}, {LINES}"):
        negotiate(accept, JSON, AVAILABLE)


@pytest.mark.parametrize(("default", "chosen"), [(CSV, CSV), ("Text/CSV; header=no", CSV)])
@pytest.mark.parametrize("accept", [None, "", "*/*"])
def test_without_a_wish_the_default_is_chosen(accept, default, chosen):
    assert negotiate(accept, default, AVAILABLE) == chosen


def test_a_wildcard_takes_the_first_there_is_where_the_default_is_none_of_them():
    assert negotiate("*/*", PLAIN, AVAILABLE) == JSON


@given(header_text)
def test_any_text_is_a_media_type(text):
    name, parameters = parse(text)
    assert name == name.strip().lower()
    for key, value in parameters.items():
        assert key == key.strip().lower()
        assert isinstance(value, str)


@given(header_text | st.lists(header_text, max_size=4).map(",".join), header_text)
def test_any_accept_is_a_media_type_or_not_acceptable(accept, default):
    with contextlib.suppress(NotAcceptable):
        assert negotiate(accept, default, AVAILABLE) in AVAILABLE


thousandths = st.integers(0, 1000)


@given(st.lists(thousandths, min_size=3, max_size=3), st.permutations(AVAILABLE))
def test_the_greatest_q_value_wins_in_any_order(qualities, order):
    wishes = dict(zip(order, qualities, strict=True))
    accept = ", ".join(f"{name};q={quality / 1000:.3f}" for name, quality in wishes.items())
    if not any(qualities):
        with pytest.raises(NotAcceptable):
            negotiate(accept, JSON, AVAILABLE)
    else:
        chosen = negotiate(accept, JSON, AVAILABLE)
        assert wishes[chosen] == max(qualities)
        assert chosen == next(name for name in order if wishes[name] == max(qualities))


def test_a_header_that_comes_again_is_not_parsed_again():
    assert parse("text/csv; charset=utf-8") is parse("text/csv; charset=utf-8")
    before = negotiate.cache_info().hits
    negotiate("text/csv;q=0.123", JSON, AVAILABLE)
    negotiate("text/csv;q=0.123", JSON, AVAILABLE)
    assert negotiate.cache_info().hits == before + 1
