"""Names and proofs from the descriptions of removed layers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json

from forensics_lib.formats.tar_split import crc64
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.layers import named_by_layers
from forensics_lib.recovery.remnant import Confidence
from tests.recovery.scene import remnant

CONTENT = b"MINER\n"
HEADER, END = b"h" * 512, bytes(1024)
DIFF_ID = f"sha256:{hashlib.sha256(HEADER + CONTENT + END).hexdigest()}"


def description(name: str = "etc/miner.conf", content: bytes = CONTENT) -> bytes:
    checksum = crc64([content]).to_bytes(8, "big")
    entries = [
        {"type": 2, "payload": base64.b64encode(HEADER).decode()},
        {"type": 1, "name": name, "size": len(content), "payload": base64.b64encode(checksum).decode()},
        {"type": 2, "payload": base64.b64encode(END).decode()},
    ]
    return gzip.compress(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries), mtime=0)


def test_a_nameless_file_gets_its_name() -> None:
    rows = [remnant(CONTENT), remnant(b"OTHER\n"), remnant(CONTENT, "known/name"), remnant(description())]
    named = named_by_layers(rows, ProblemLog(strict=True))
    assert [row.path for row in named] == ["etc/miner.conf", "", "known/name", ""]
    assert named[0].confidence is Confidence.VERIFIED


def test_a_whole_layer_is_proved_by_an_image_config() -> None:
    base = f"sha256:{'0' * 64}"
    config = json.dumps({"rootfs": {"diff_ids": [base, DIFF_ID]}}).encode()
    rows = [remnant(config, kind="image"), remnant(description(), "tar-split.json.gz", "layer"), remnant(CONTENT)]
    row = named_by_layers(rows, ProblemLog(strict=True))[1]
    chain = hashlib.sha256(f"{base} {DIFF_ID}".encode()).hexdigest()
    assert row.path == f"layerdb/sha256/{chain}/tar-split.json.gz"
    assert row.confidence is Confidence.VERIFIED


def test_a_whole_layer_is_placed_by_the_record_of_its_parent() -> None:
    parent = f"sha256:{'1' * 64}"
    chain = hashlib.sha256(f"{parent} {DIFF_ID}".encode()).hexdigest()
    rows = [
        remnant(parent.encode()),
        remnant(None, f"image/overlay2/layerdb/sha256/{chain}/diff"),
        remnant(description(), "tar-split.json.gz", "layer"),
        remnant(CONTENT),
    ]
    assert named_by_layers(rows, ProblemLog())[2].path == f"layerdb/sha256/{chain}/tar-split.json.gz"


def test_nothing_fits() -> None:
    rows = [remnant(gzip.compress(b"text\n")), remnant(b"\x1f\x8b broken, and long enough"), remnant(CONTENT)]
    assert named_by_layers(rows, ProblemLog(strict=True)) == rows
    incomplete = [remnant(description()), remnant(CONTENT, complete=False)]
    assert [row.path for row in named_by_layers(incomplete, ProblemLog())] == ["", ""]
