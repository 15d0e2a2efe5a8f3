"""What the shared protocol makes of hostile lines."""

from __future__ import annotations

import pytest

from runtime_image.djinn_runtime.protocol import ProtocolError, decode_record


@pytest.mark.parametrize("depth", [600, 30_000])
def test_a_record_that_nests_too_deeply_is_refused(depth: int) -> None:
    line = b'{"n":1,"t":1,"type":"log","data":{"a":' + b"[" * depth + b"]" * depth + b"}}"
    with pytest.raises(ProtocolError):
        decode_record(line)
