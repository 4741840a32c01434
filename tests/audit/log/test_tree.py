"""The Merkle tree: RFC 6962's own definitions and roots, tiles, and the laws of proofs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.log.tree import completed, consistency_proof, inclusion_proof, root_of_range
from audit.log.verifier import (
    VerifyError,
    check_consistency,
    leaf_hash,
    root_of_inclusion,
    root_of_tiles,
    tile_path,
    tile_width,
)
from tests.support import log_reference as reference

LEAVES = [bytes.fromhex(one) for one in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The test vectors of Certificate Transparency: the roots of the first 0 to 8 leaves."""

ENTRIES = [b"%d" % index for index in range(300)]
TILES = reference.tiles_of(ENTRIES)


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_the_published_vectors(size: int) -> None:
    tiles = reference.tiles_of(LEAVES)
    assert reference.root(LEAVES[:size]).hex() == ROOTS[size]
    assert root_of_tiles(tiles, size).hex() == ROOTS[size]
    assert root_of_range(tiles, size, 0, size).hex() == ROOTS[size]


def test_the_inclusion_and_consistency_proofs_of_the_published_vectors() -> None:
    tiles = reference.tiles_of(LEAVES)
    assert [one.hex() for one in inclusion_proof(tiles, 5, 8)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [one.hex() for one in consistency_proof(tiles, 6, 8)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_every_size_up_to_300_has_the_root_of_the_definition() -> None:
    for size in range(301):
        assert root_of_tiles(TILES, size) == reference.root(ENTRIES[:size])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_proofs_are_those_of_the_definition_and_verify(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(0, new))
    index = data.draw(st.integers(0, new - 1))
    found = inclusion_proof(TILES, index, new)
    root = reference.root(ENTRIES[:new])
    assert found == reference.path(index, ENTRIES[:new])
    assert root_of_inclusion(index, new, leaf_hash(ENTRIES[index]), found) == root
    between = consistency_proof(TILES, old, new)
    assert between == (reference.proof(old, ENTRIES[:new]) if old else [])
    check_consistency(old, reference.root(ENTRIES[:old]), new, root, between)


@pytest.mark.parametrize("size", [65_536, 70_000])
def test_large_trees_prove_over_three_levels_of_tiles(size: int) -> None:
    tiles = reference.tiles_of([b"%d" % index for index in range(size)])
    root = root_of_tiles(tiles, size)
    for index in (0, 255, 256, 65_535, size - 1):
        assert root_of_inclusion(index, size, leaf_hash(b"%d" % index), inclusion_proof(tiles, index, size)) == root
    for old in (1, 255, 256, 257, 65_535, 65_536):
        check_consistency(old, root_of_tiles(tiles, old), size, root, consistency_proof(tiles, old, size))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_proof_with_any_byte_changed_a_line_more_or_less_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new))
    index = data.draw(st.integers(0, new - 1))
    root, old_root = reference.root(ENTRIES[:new]), reference.root(ENTRIES[:old])
    leaf = leaf_hash(ENTRIES[index])
    for wrong in _spoiled(data, inclusion_proof(TILES, index, new)):
        with pytest.raises(VerifyError):
            _require(root_of_inclusion(index, new, leaf, wrong) == root)
    for wrong in _spoiled(data, consistency_proof(TILES, old, new)):
        with pytest.raises(VerifyError):
            check_consistency(old, old_root, new, root, wrong)
    other = data.draw(st.integers(0, 300).filter(lambda one: one != index))
    with pytest.raises(VerifyError):
        _require(root_of_inclusion(other, new, leaf, inclusion_proof(TILES, index, new)) == root)


def test_a_forked_or_shorter_tree_is_not_consistent() -> None:
    fork = [*ENTRIES[:100], b"other", *ENTRIES[101:]]
    proof = consistency_proof(reference.tiles_of(fork), 150, 200)
    with pytest.raises(VerifyError, match="does not continue"):
        check_consistency(150, reference.root(ENTRIES[:150]), 200, reference.root(fork[:200]), proof)
    with pytest.raises(VerifyError, match="two different trees of 150"):
        check_consistency(150, reference.root(ENTRIES[:150]), 150, reference.root(fork[:150]), [])
    with pytest.raises(VerifyError, match="cannot continue"):
        check_consistency(200, reference.root(ENTRIES[:200]), 150, reference.root(ENTRIES[:150]), [])
    with pytest.raises(VerifyError):
        check_consistency(0, b"\0" * 32, 150, reference.root(ENTRIES[:150]), [])


def test_the_paths_of_tiles_are_those_of_the_specification() -> None:
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tile_path(3, 5) == "tile/3/005"
    assert tile_path(1, 1_000, 17) == "tile/1/x001/000.p/17"


def test_a_tree_of_70_000_has_the_tiles_that_the_specification_counts() -> None:
    assert [tile_width(0, index, 70_000) for index in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [tile_width(1, index, 70_000) for index in (0, 1, 2)] == [256, 17, 0]
    assert [tile_width(2, index, 70_000) for index in (0, 1)] == [1, 0]
    assert [tile_width(level, 0, 256) for level in (0, 1, 2)] == [256, 1, 0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_growing_adds_each_hash_of_the_upper_levels_once_and_changes_none(sizes: list[int]) -> None:
    entries = [b"%d" % index for index in range(701)]
    tiles = reference.tiles_of(entries)
    steps = sorted(sizes)
    found = [one for old, new in zip([0, *steps], steps, strict=False) for one in completed(tiles, old, new, 1)]
    assert found == [
        (at, reference.root(entries[at * 256 : (at + 1) * 256])) for at in range((steps or [0])[-1] // 256)
    ]


def _spoiled(data: st.DataObject, proof: list[bytes]) -> list[list[bytes]]:
    wrong = [[*proof, b"\0" * 32]]
    if proof:
        at, byte = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 31))
        changed = bytearray(proof[at])
        changed[byte] ^= data.draw(st.integers(1, 255))
        wrong += [[*proof[:at], bytes(changed), *proof[at + 1 :]], proof[:-1]]
    return wrong


def _require(condition: bool) -> None:
    if not condition:
        raise VerifyError("another root")
