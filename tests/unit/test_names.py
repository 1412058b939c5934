"""Whatever a server or a URL proposes, one safe path segment comes out."""

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.names import LONGEST, clean, fallback, from_disposition, from_url, suffixed

names = st.text(max_size=400) | st.text("a./\\ :\x00ä\u202e\u0301-", max_size=60) | st.binary(max_size=99).map(repr)
cleaned = names.map(clean).filter(lambda name: name is not None)


@given(names)
def test_a_cleaned_name_is_one_safe_segment_and_clean_already(name: str) -> None:
    result = clean(name)
    if result is None:
        return
    assert result not in ("", ".", "..")
    assert not result.startswith(".")
    assert not set(result) & set('/\\<>:"|?*\x00')
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in result)
    assert len(result.encode()) <= LONGEST
    assert PurePosixPath(result).name == result
    assert PureWindowsPath(result).name == result
    assert result[-1] not in " ."
    assert unicodedata.is_normalized("NFC", result)
    assert clean(result) == result


@given(names)
def test_a_cleaned_name_can_be_written(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    result = clean(name)
    if result is not None:
        path = Path(tmp_path_factory.getbasetemp()) / result
        path.write_bytes(b"")
        path.unlink()


@given(cleaned, st.integers(2, 10**6), st.integers(2, 10**6))
def test_suffixes_are_safe_short_and_tell_apart(name: str, one: int, other: int) -> None:
    first, second = suffixed(name, one), suffixed(name, other)
    assert (first == second) == (one == other)
    assert suffixed(name, 1) == name
    assert len(first.encode()) <= LONGEST
    assert clean(first) == first


@given(st.text(max_size=200), st.binary(max_size=200))
def test_any_url_and_any_header_give_a_clean_name_or_none(text: str, raw: bytes) -> None:
    header = "attachment; " + raw.decode("latin-1")
    for result in (from_url("http://h/" + text), from_disposition(text), from_disposition(header)):
        assert result is None or clean(result) == result


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/passwd", "passwd"),
        ("C:\\x\\a.txt", "a.txt"),
        (".bashrc", "bashrc"),
        ("..", None),
        ("...", None),
        ("   ", None),
        ("", None),
        ("a\x00b\nc\x7f", "abc"),
        ("a<b>:c|d?e*", "a_b__c_d_e_"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("lpt¹", "_lpt¹"),
        ("console", "console"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("fdp\u202eexe.pdf", "fdpexe.pdf"),
        ("a.txt. . ", "a.txt"),
        ("a\ud800b", "a_b"),
    ],
)
def test_names_are_cleaned(name: str, result: str | None) -> None:
    assert clean(name) == result


def test_a_long_name_keeps_its_extension_and_no_half_character() -> None:
    result = clean("ä" * 300 + ".tar")
    assert result is not None
    assert result.endswith("ä.tar")
    assert 250 <= len(result.encode()) <= LONGEST


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("http://h/a/b.txt?c=d#e", "b.txt"),
        ("http://h/a%20b.txt", "a b.txt"),
        ("http://h/%2e%2e%2fpasswd", "passwd"),
        ("http://h/a%2Fb", "b"),
        ("http://h/%E4.txt", "ä.txt"),  # Latin-1
        ("http://h/%C3%A4.txt", "ä.txt"),  # UTF-8
        ("http://h/", None),
        ("http://h", None),
        ("http://h/..", None),
        ("http://[/x", None),
    ],
)
def test_a_name_from_a_url(url: str, result: str | None) -> None:
    assert from_url(url) == result


@pytest.mark.parametrize(
    ("header", "result"),
    [
        ('attachment; filename="a.txt"', "a.txt"),
        ("attachment; filename=a.txt", "a.txt"),
        ("attachment;filename = a b.txt ; x=y", "a b.txt"),
        ("inline; FILENAME=a.txt", "a.txt"),
        ('attachment; filename="a\\"b.txt"', "a_b.txt"),
        ('attachment; filename="a;b.txt"', "a;b.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt; filename=\"euro.txt\"", "€.txt"),
        ("attachment; filename=\"euro.txt\"; filename*=utf-8'en'%e2%82%ac.txt", "€.txt"),
        ("attachment; filename*=ISO-8859-1''%e4.txt", "ä.txt"),
        ("attachment; filename*=UTF-8''%e4.txt; filename=a.txt", "a.txt"),  # not UTF-8
        ("attachment; filename*=EBCDIC''a.txt; filename=b.txt", "b.txt"),
        ("attachment; filename*=UTF-8''..%2f..%2fetc%2fpasswd", "passwd"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\x\\\\a.txt"', "a.txt"),
        ('attachment; filename="' + "ä.txt".encode().decode("latin-1") + '"', "ä.txt"),  # UTF-8 on the wire
        ('attachment; filename="ä.txt"', "ä.txt"),  # Latin-1 on the wire
        ('attachment; filename=""', None),
        ("attachment", None),
        ("", None),
        (None, None),
        ('attachment; filename="a', "a"),
    ],
)
def test_a_name_from_a_disposition(header: str | None, result: str | None) -> None:
    assert from_disposition(header) == result


def test_a_url_without_a_name_has_a_stable_one() -> None:
    name = fallback("http://h/")
    assert name == fallback("http://h/") != fallback("http://g/")
    assert clean(name) == name
