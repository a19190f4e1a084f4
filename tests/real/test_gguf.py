"""GGUF as its own library writes it is whole, and is cut off where its last byte is missing."""

from pathlib import Path

import pytest

from ckptrules.formats.files import check_file
from ckptrules.formats.gguf import BLOCKS
from tests.commands.test_verify import checked

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install -e '.[real]'")
numpy = pytest.importorskip("numpy", reason="needs gguf: pip install -e '.[real]'")


def test_the_sizes_of_blocks_are_those_of_the_library() -> None:
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: sizes for kind, sizes in BLOCKS.items() if kind in theirs} == theirs


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_what_the_library_writes_is_whole(tmp_path: Path, order: str) -> None:
    path = tmp_path / "model.gguf"
    made = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian[order])
    made.add_custom_alignment(64)
    made.add_token_list([f"word{number}" for number in range(1000)])
    made.add_token_scores([0.5] * 1000)
    made.add_tensor("q", numpy.zeros((2, 144), numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    made.add_tensor("w", numpy.ones((4, 256), numpy.float32))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()
    with path.open("rb") as file:
        assert check_file(file, path.stat().st_size, lambda _: None, quick=False).kind == "GGUF"
    assert checked(path.read_bytes()[:-1]).startswith("truncated")
