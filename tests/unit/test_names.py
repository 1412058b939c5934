"""Whatever a server, a URL or a manifest proposes, safe path segments come out; and nothing else goes in."""

import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import FileNameError
from download.filenames import (
    LONGEST,
    LONGEST_PATH,
    UNNAMED,
    check_filename,
    check_path,
    clean,
    final_path,
    from_disposition,
    name_of_url,
    suffixed,
)

names = st.text(max_size=400) | st.text("a./\\ :\x00ä\u202e\u0301-", max_size=60) | st.binary(max_size=99).map(repr)
cleaned = names.map(clean).filter(lambda name: name is not None)


@given(names)
def test_a_cleaned_name_is_one_safe_segment_that_can_be_written_and_clean_already(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    result = clean(name)
    if result is None:
        return
    assert result not in ("", ".", "..")
    assert not result.startswith(".")
    assert not set(result) & set('/\\<>:"|?*\x00')
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in result)
    assert result.isprintable()
    assert len(result.encode()) <= LONGEST
    assert PurePosixPath(result).name == result
    assert PureWindowsPath(result).name == result
    assert result[-1] not in " ."
    assert unicodedata.is_normalized("NFC", result)
    assert clean(result) == result
    assert check_filename(result) == result
    path = tmp_path_factory.getbasetemp() / result
    path.write_bytes(b"")
    path.unlink()


@given(st.lists(names, min_size=1, max_size=4).map("/".join))
def test_a_checked_filename_is_checked_already_and_stays_below_its_folder(text: str) -> None:
    try:
        name = check_filename(text)
    except ValueError:
        return
    assert check_filename(name) == name
    assert all(clean(segment) == segment for segment in name.split("/"))
    assert len(name.encode()) <= LONGEST_PATH
    assert not PurePosixPath(name).is_absolute()
    assert Path(final_path(Path("/d"), f"b/{name}")).is_relative_to("/d/b")
    assert ".." not in PurePosixPath(name).parts


@given(names | st.lists(names, max_size=4).map("/".join))
def test_a_path_that_the_worker_accepts_stays_below_its_folder(text: str) -> None:
    try:
        check_path(text)
    except ValueError:
        return
    assert os.path.normpath(f"/d/b/{text}") == f"/d/b/{text}"
    assert max(len(segment.encode()) for segment in text.split("/")) <= LONGEST


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
    for result in (name_of_url("http://h/" + text), from_disposition(text), from_disposition(header)):
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
        ("nul .txt", "_nul .txt"),
        ("console", "console"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("fdp\u202eexe.pdf", "fdpexe.pdf"),
        ("a.txt. . ", "a.txt"),
        ("a\ud800b", "a_b"),
        ("a\u00a0b\u3000c", "a b c"),  # blanks that look like none
        ("a\ue000b\uffffc", "a_b_c"),  # private, and no character at all
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
        ("http://h/", UNNAMED),
        ("http://h", UNNAMED),
        ("http://h/..", UNNAMED),
        ("http://[/x", UNNAMED),
    ],
)
def test_a_name_from_a_url(url: str, result: str) -> None:
    assert name_of_url(url) == result


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


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a/b.txt", "a/b.txt"),
        (" a / .b ", "a/b"),
        ("NUL/e\u0301:x", "_NUL/\u00e9_x"),
        ("a\nb", "ab"),
    ],
)
def test_a_filename_is_cleaned_segment_by_segment(text: str, result: str) -> None:
    assert check_filename(text) == result


outside = pytest.mark.parametrize(
    "text", ["", "/", "../x", "a/../x", "a/..", ". ./x/..", "/etc/x", "a//b", "a/", ".", " .. /x", "a\\..\\x", "\\x"]
)


@outside
def test_a_path_out_of_the_folder_is_neither_a_filename_nor_a_place(text: str) -> None:
    with pytest.raises(ValueError, match="expected filename to be a relative path"):
        check_filename(text)
    with pytest.raises(FileNameError, match="expected filename to be a relative path"):
        final_path(Path("/d"), f"b/{text}")


@pytest.mark.parametrize("text", ["...", "a/. .", "\u202e", "a/\n/b", "x/" * 512 + "y"])
def test_a_filename_of_which_nothing_is_left_or_that_is_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_filename(text)


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "a\x7f", "\ud800", "x" * 256, "ä" * 128])
def test_a_path_that_cannot_be_written_is_no_place(text: str) -> None:
    with pytest.raises(FileNameError, match="expected a path of at most 255 bytes per part, without controls"):
        final_path(Path("/d"), f"b/{text}")


def test_a_place_does_not_lead_through_a_link(tmp_path: Path) -> None:
    downloads, outside = tmp_path / "downloads", tmp_path / "outside"
    (downloads / "b").mkdir(parents=True)
    outside.mkdir()
    (downloads / "linked").symlink_to(outside)
    (downloads / "b/linked").symlink_to(outside)
    (downloads / "b/dangling").symlink_to(tmp_path / "nothing")
    for path in ("linked/x", "b/linked/x", "b/linked/y/x", "b/dangling/x"):
        with pytest.raises(FileNameError, match="is a symbolic link; nothing was published"):
            final_path(downloads, path)
    # Where the downloads themselves are is the operator's business.
    (tmp_path / "elsewhere").symlink_to(downloads)
    assert final_path(tmp_path / "elsewhere", "b/new/x") == f"{tmp_path}/elsewhere/b/new/x"
