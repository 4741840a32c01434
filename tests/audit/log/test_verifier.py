"""The offline verifier: what it accepts, and the tamper list, each attack named with its row."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.log import verifier
from audit.log.rows import log_row
from audit.log.signing import Signer
from audit.log.verifier import VerifyError, canonical, verify_file
from cloudsignal.cli.proofs import verify
from tests.support.log_packs import SIGNER, WITNESS, Members, MemoryLog, changed, put, row_at, with_rows

KEYS = [SIGNER.key]
LOG = MemoryLog(600)
PACK = LOG.pack(range(200, 300))
WHOLE = LOG.pack(range(600))


def refusal(path: Path, keys: list[verifier.Key] | None = None) -> str:
    """The message of the verifier about a file."""
    with pytest.raises(VerifyError) as refused:
        verify_file(path, KEYS if keys is None else keys)
    return str(refused.value)


def test_rows_have_canonical_bytes_without_blanks_and_empty_fields() -> None:
    assert canonical(row_at(0)).decode() == (
        '{"count":3,"details":{"tries":1.5,"words":["é",null,{"a":true,"b":1}]},"id":"00000000-0000-0000-0000-000000000001",'
        '"ip":"0a000001","kind":"acl_denied","org_id":"org_a","qos":1,"retain":false,"topic":"plant/0/temp",'
        '"ts":1769860800000000}'
    )


@pytest.mark.parametrize(
    ("number", "written"),
    [(0.1, "0.1"), (1.0, "1"), (-0.0, "0"), (1e20, "1" + "0" * 20), (5e-7, "0.0000005"), (Decimal("1.50"), "1.5")],
)
def test_a_number_has_one_form(number: float | Decimal, written: str) -> None:
    assert canonical({"details": {"n": number}}) == b'{"details":{"n":%s}}' % written.encode()


def test_addresses_have_one_form() -> None:
    assert (
        log_row({"ip": "::ffff:10.0.0.1"})["ip"] == log_row({"ip": "::ffff:a00:1"})["ip"] == "0" * 20 + "ffff0a000001"
    )


def test_a_proof_a_complete_pack_and_a_selection_verify(tmp_path: Path) -> None:
    said = verify_file(put(tmp_path / "a", LOG.proof(299)), KEYS, [WITNESS.key])
    assert said == (
        "verified: row 299 of log.example/org_a (acl_denied 00000000-0000-0000-0000-00000000012c), "
        "in its tree of 600 rows"
    )
    assert "rows 200 to 300 (exclusive)" in verify_file(put(tmp_path / "b", PACK), KEYS, [WITNESS.key])
    assert "complete and in order" in verify_file(put(tmp_path / "c", WHOLE), KEYS)
    chosen = verify_file(put(tmp_path / "d", LOG.pack(None, [0, 255, 256, 599])), KEYS)
    assert "4 rows" in chosen
    assert "nothing is said of rows that are not in it" in chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 600), st.data())
def test_every_proof_verifies_in_every_tree_that_holds_its_row(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    row, found, checkpoint = verifier.verify_proof(LOG.proof(index, size), KEYS)
    assert (row.row["topic"], found, checkpoint.size) == (f"plant/{index}/temp", index, size)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_byte_of_a_proof_changed_added_or_cut_is_refused(data: st.DataObject) -> None:
    raw = LOG.proof(77)
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(1, 255))
    for wrong in (
        bytes([*raw[:at], raw[at] ^ byte, *raw[at + 1 :]]),
        raw[:at],
        raw[:at] + raw[at : at + 1] + raw[at:],
        raw + bytes([byte]),
    ):
        with pytest.raises(VerifyError):
            verifier.verify_proof(wrong, KEYS, [WITNESS.key])


def test_extra_signature_lines_are_ignored_when_unknown_and_refused_when_wrong(tmp_path: Path) -> None:
    other = Signer("log.example/org_a", Ed25519PrivateKey.from_private_bytes(b"\x05" * 32))
    line = other.line(b"something\n")
    assert "verified" in verify_file(put(tmp_path / "a", LOG.proof(3) + line), KEYS)
    assert "signature of log.example/org_a does not verify" in refusal(
        put(tmp_path / "b", LOG.proof(3) + SIGNER.line(b"something\n"))
    )


Rows = list[dict[str, Any]]


def _count(rows: Rows) -> None:
    rows[42]["row"]["count"] = 1


def _letter(rows: Rows) -> None:
    rows[42]["row"]["topic"] = "plant/242/temq"


def _salt(rows: Rows) -> None:
    rows[42]["salt"] = "00" * 16


def _field(rows: Rows) -> None:
    rows[42]["row"]["note"] = "harmless"


def _drop(rows: Rows) -> None:
    del rows[42]


def _cut(rows: Rows) -> None:
    del rows[60:]


def _add(rows: Rows) -> None:
    rows.insert(42, {**rows[42], "row": {**rows[42]["row"], "topic": "invented"}})


def _append(rows: Rows) -> None:
    rows.append({**rows[42], "row": {**rows[42]["row"], "topic": "invented"}})


def _twice(rows: Rows) -> None:
    rows.insert(50, rows[42])


def _swap(rows: Rows) -> None:
    rows[42], rows[43] = rows[43], rows[42]


def _move(rows: Rows) -> None:
    rows.insert(42, rows.pop(80))


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (_count, "row 242 (acl_denied 00000000-0000-0000-0000-0000000000f3) was changed"),
        (_letter, "row 242 (acl_denied 00000000-0000-0000-0000-0000000000f3) was changed"),
        (_salt, "row 242 (acl_denied 00000000-0000-0000-0000-0000000000f3) was changed"),
        (_field, "row 242 (acl_denied 00000000-0000-0000-0000-0000000000f3) was changed"),
        (_drop, "row 242 was dropped"),
        (_cut, "row 260 was dropped"),
        (_add, "a row (acl_denied 00000000-0000-0000-0000-0000000000f3) was added before row 242"),
        (_append, "a row (acl_denied 00000000-0000-0000-0000-0000000000f3) was added after row 299"),
        (_twice, "row 242 (acl_denied 00000000-0000-0000-0000-0000000000f3) was added a second time, before row 250"),
        (_swap, "row 243 (acl_denied 00000000-0000-0000-0000-0000000000f4) was moved to 242"),
        (_move, "row 280 (acl_denied 00000000-0000-0000-0000-000000000119) was moved to 242"),
    ],
)
def test_the_first_row_that_was_touched_is_named(tmp_path: Path, attack: Callable[[Rows], None], named: str) -> None:
    assert refusal(put(tmp_path / "pack.zip", with_rows(PACK, attack))) == named


def test_a_line_with_another_number_was_moved(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        rows[42]["index"] = 7

    assert "row 242" in refusal(put(tmp_path / "a.zip", with_rows(PACK, change, renumber=False)))


def test_in_a_selection_a_changed_and_a_moved_row_are_named(tmp_path: Path) -> None:
    pack = LOG.pack(None, [10, 20, 30])

    def change(rows: Rows) -> None:
        rows[1]["row"]["count"] = 1

    def swap(rows: Rows) -> None:
        rows[0], rows[1] = rows[1], rows[0]

    assert refusal(put(tmp_path / "a", with_rows(pack, change, renumber=False))).startswith("row 20 (acl_denied")
    assert "row 10" in refusal(put(tmp_path / "b", with_rows(pack, swap, renumber=False)))


def _replace(name: str, content: bytes) -> Callable[[Members], None]:
    return lambda members: members.__setitem__(name, content)


def test_organizations_swapped_a_key_replaced_and_a_checkpoint_of_another_tree_are_refused(tmp_path: Path) -> None:
    other = MemoryLog(600, org="org_b", signer=Signer("log.example/org_b", SIGNER.private))
    foreign = put(tmp_path / "a", other.pack(range(200, 300)))
    assert "log.example/org_b is not signed by a key that you trust" in refusal(foreign)
    signed_by_another = MemoryLog(600, signer=Signer(SIGNER.name, Ed25519PrivateKey.from_private_bytes(b"\x06" * 32)))
    assert "not signed by a key that you trust" in refusal(put(tmp_path / "b", signed_by_another.pack(range(200, 300))))
    relabeled = MemoryLog(600, org="org_b")
    mixed = changed(PACK, _replace("checkpoint", relabeled.note()))
    assert "do not lead to the root" in refusal(put(tmp_path / "c", mixed))
    rows_of_other = with_rows(PACK, lambda rows: rows.__setitem__(0, {**rows[0], "row": other.rows[200]}))
    assert refusal(put(tmp_path / "d", rows_of_other)).startswith("row 200 (acl_denied")


def test_a_checkpoint_rolled_back_does_not_cover_the_later_rows(tmp_path: Path) -> None:
    older = changed(PACK, _replace("checkpoint", LOG.note(250)))
    assert "250" in refusal(put(tmp_path / "a", older))
    honest = LOG.pack(range(200, 250), size=250)
    assert "tree of 250" in verify_file(put(tmp_path / "b", honest), KEYS)


def test_a_changed_missing_or_longer_tile_is_refused(tmp_path: Path) -> None:
    tiles = [name for name in zipfile.ZipFile(put(tmp_path / "z", PACK)).namelist() if name.startswith("tile/")]
    assert len(tiles) == 4
    for name in tiles:
        for change in (
            lambda members, name=name: members.__setitem__(name, members[name][:-1] + b"\xff"),
            lambda members, name=name: members.__setitem__(name, members[name] + b"\0"),
            lambda members, name=name: members.pop(name),
        ):
            assert "tile" in refusal(put(tmp_path / "a", changed(PACK, change)))


def test_what_is_beside_the_members_of_a_pack_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.zip", PACK)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("pack.json", "{}")
    assert "a name twice" in refusal(path)
    assert "beside its members" in refusal(put(tmp_path / "b.zip", PACK + b"after the end"))
    path = put(tmp_path / "c.zip", PACK)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"trust me"
    assert "beside its members" in refusal(path)
    assert "not a pack" in refusal(put(tmp_path / "d.zip", PACK[: len(PACK) // 2]))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"[]",
        b'{"format":"cloudsignal-audit-pack-2","range":null}',
        b'{"format":"cloudsignal-audit-pack-1","range":[200,601]}',
        b'{"format":"cloudsignal-audit-pack-1","range":[300,200]}',
        b'{"format":"cloudsignal-audit-pack-1","range":[true,300]}',
        b'{"format":"cloudsignal-audit-pack-1","range":[200,300],"range":null}',
        b'{"format":"cloudsignal-audit-pack-1","range":[200,301]}',
        b'{"format":"cloudsignal-audit-pack-1","range":[199,300]}',
    ],
)
def test_a_pack_with_another_head_is_refused(tmp_path: Path, head: bytes) -> None:
    assert refusal(put(tmp_path / "a", changed(PACK, _replace("pack.json", head))))


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b'{"index":200}\n',
        b'{"index":200,"salt":"00","row":{}}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":NaN}}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":1e9999999}}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":1e99999999999999999999}}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":1},"more":1}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":"\\ud800"}}\n',
        b'{"index":200,"salt":"00000000000000000000000000000000","row":' + b"[" * 100_000 + b"\n",
        b'{"index":200,"salt":"00000000000000000000000000000000","row":{"a":1}}',
        b'{"index":' + b"9" * 5_000 + b"}\n",
    ],
)
def test_a_line_that_is_no_row_is_refused_and_never_crashes(tmp_path: Path, line: bytes) -> None:
    assert refusal(put(tmp_path / "a", changed(PACK, _replace("rows.jsonl", line))))


def _outcome(path: Path) -> str:
    try:
        return verify_file(path, KEYS)
    except VerifyError as error:
        return str(error)


def test_any_byte_of_a_pack_changed_is_verified_or_refused_and_never_crashes(tmp_path: Path) -> None:
    pack, honest = LOG.pack(range(2), size=2), "tree of 2 rows"
    found = set()
    for at in range(len(pack)):
        for bits in (0x01, 0xFF):
            broken = bytearray(pack)
            broken[at] ^= bits
            found.add(_outcome(put(tmp_path / "a.zip", bytes(broken))))
    assert any("damaged" in each for each in found)
    assert all(each.startswith("verified: rows 0 to 2 ") for each in found if honest in each)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_in_another_method_of_compression_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("pack.json", "{}")
    assert refusal(path) == "pack.json is neither stored nor deflated"


def test_rows_without_end_are_not_all_held_to_name_the_first_wrong_one(tmp_path: Path) -> None:
    """The memory that a pack of two rows and 20,000 more takes is that of a few rows."""

    def bomb(members: Members) -> None:
        members["rows.jsonl"] += members["rows.jsonl"].splitlines(keepends=True)[-1] * 20_000

    path = put(tmp_path / "a", changed(LOG.pack(range(2), size=2), bomb))
    tracemalloc.start()
    said = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "was added after row 1" in said
    assert peak < 1_500_000


def test_a_row_that_is_not_verified_puts_nothing_into_the_message(tmp_path: Path) -> None:
    lie = "\x1b[2K\x9b1A\rverified: rows 0 to 9 (\u202e" + "x" * 1_000

    def change(rows: Rows) -> None:
        rows[42]["row"].update(kind=lie, id={"deep": lie})

    for pack in (PACK, LOG.pack(None, list(range(200, 300)))):
        said = refusal(put(tmp_path / "a", with_rows(pack, change, renumber=False)))
        assert said.startswith("row 242 (??2K?1A?verified??rows?0?to?9")
        assert said.isprintable()
        assert len(said) < 150


def test_an_origin_that_steers_a_terminal_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = MemoryLog(3, signer=Signer("log\x9b2K", SIGNER.private))
    assert verifier.main([str(put(tmp_path / "a", other.pack(range(3)))), "--key", SIGNER.key.vkey]) == 1
    assert "log\\x9b2K is not signed" in capsys.readouterr().err


def test_the_keys_of_logs_and_of_witnesses_do_not_stand_in_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log's own key as a witness would make the log its own witness."""
    path, log, witness = put(tmp_path / "a", PACK), SIGNER.key.vkey, WITNESS.key.vkey
    for keys, said in (
        (["--key", log, "--witness", log], "this is not the verifier key of a witness"),
        (["--key", witness], "this is not the verifier key of a log"),
    ):
        with pytest.raises(SystemExit) as left:
            verifier.main([str(path), *keys])
        assert left.value.code == 2
        assert said in capsys.readouterr().err
        assert said in str(CliRunner().invoke(verify, [str(path), *keys], standalone_mode=False).exception)


def test_the_single_file_runs_in_a_bare_interpreter_and_names_the_row(tmp_path: Path) -> None:
    """-I: neither the project's folder nor PYTHONPATH; the file is copied away from the project."""
    script = tmp_path / "verify.py"
    shutil.copyfile(verifier.__file__, script)
    good, bad = put(tmp_path / "good.zip", PACK), put(tmp_path / "bad.zip", with_rows(PACK, _drop))
    proof = put(tmp_path / "row.tlog-proof", LOG.proof(5))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    key = ("--key", SIGNER.key.vkey)
    assert run(good, *key).stdout.startswith("verified: rows 200 to 300")
    assert run(proof, *key, "--witness", WITNESS.key.vkey).stdout.startswith("verified: row 5 ")
    dropped = run(bad, *key)
    assert (dropped.returncode, dropped.stderr) == (1, "NOT verified: row 242 was dropped\n")
    assert run(good).returncode == 2
    assert run(good, "--key", "nonsense").returncode == 2
    assert "cannot be read" in run(tmp_path / "none", *key).stderr


def test_the_single_file_imports_nothing_but_the_standard_library_and_cryptography() -> None:
    code = (
        "import sys, json, runpy; runpy.run_path(sys.argv[1], run_name='x'); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", code, verifier.__file__], capture_output=True, text=True, check=True
    )
    foreign = {name for name in json.loads(found.stdout) if not name.startswith("_")} - set(sys.stdlib_module_names)
    assert foreign == {"cryptography"}
