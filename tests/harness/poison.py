"""A corpus of payloads that break careless readers, for tests of the core and of the real doors alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from beamline_contract.wire import MAX_BODY_BYTES, MAX_REPLY_BYTES

DEEP = 10_000


def nested(open_: str, close: str, count: int = DEEP) -> bytes:
    return (open_ * count + close * count).encode()


REQUESTS: list[Any] = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe\x00", id="bytes that are no UTF-8"),
    pytest.param(b'{"prompt": "\xc3\x28"}', id="a prompt with invalid UTF-8"),
    pytest.param(b'{"prompt": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
    pytest.param(rb'{"prompt": "\ud800"}', id="half a surrogate pair"),
    pytest.param(b"\xef\xbb\xbf" + b'{"prompt": "x"}', id="a byte order mark"),
    pytest.param(b'{"prompt": "a\x00b"}', id="a raw control character"),
    pytest.param(nested("[", "]"), id="ten thousand lists"),
    pytest.param(nested('{"a":', "}").replace(b":}", b":1}"), id="ten thousand objects"),
    pytest.param(b'{"prompt": "x", "context": ' + nested('{"a":', "}") + b"}", id="a deep context"),
    pytest.param(b"[" * DEEP, id="brackets that never close"),
    pytest.param(b"]" * DEEP, id="brackets that never opened"),
    pytest.param(b'{"prompt": "' + b"x" * MAX_BODY_BYTES + b'"}', id="one that is too large"),
    pytest.param(b'{"prompt": "' + b"x" * (1 << 20) + b'"}', id="a mebibyte and a little"),
    pytest.param(b'{"prompt": "x", "parameters": {"temperature": NaN}}', id="NaN"),
    pytest.param(b'{"prompt": "x", "parameters": {"temperature": Infinity}}', id="Infinity"),
    pytest.param(b'{"prompt": "x", "parameters": {"n": 1e999}}', id="a number beyond all bounds"),
    pytest.param(b'{"prompt": "x", "prompt": 5}', id="a key twice, the last of the wrong type"),
    pytest.param(b'{"prompt": "x", "prompt": "y"}', id="a key twice"),
    pytest.param(b'{"prompt": "x", "tenant_id": "a", "tenant_id": "b"}', id="two tenants"),
    pytest.param(rb'{"prompt": "x", "tenant_id": "a", "tenant\u005fid": "b"}', id="two tenants, one escaped"),
    pytest.param(b'{"prompt": "x",}', id="a comma too many"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"prompt"', id="text alone"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"{}", id="an empty object"),
    pytest.param(b'{"prompt": ["x"]}', id="a list as prompt"),
    pytest.param(b'{"prompt": "x", "messages": []}', id="both prompt and messages"),
    pytest.param(b'{"messages": {"role": "user"}}', id="an object as messages"),
    pytest.param(b'{"messages": [["user"]]}', id="lists as messages"),
    pytest.param(b'{"messages": [{"role": 1}]}', id="a number as role"),
    pytest.param(b'{"prompt": "x", "tenant_id": 5}', id="a number as tenant"),
    pytest.param(b'{"prompt": "x", "tenant_id": "a b"}', id="a tenant with a blank"),
    pytest.param(b'{"prompt": "x", "tenant_id": "a\\n"}', id="a tenant with a line break"),
    pytest.param(b'{"prompt": "x", "model": "' + b"m" * 257 + b'"}', id="a model that is too long"),
    pytest.param(b'{"prompt": "x", "policy": "../../x"}', id="a path as policy"),
    pytest.param(b'{"prompt": "x", "parameters": []}', id="a list as parameters"),
    pytest.param(b'{"prompt": "x", "context": "x"}', id="text as context"),
    pytest.param(b'{"prompt": "x", "__proto__": {}}', id="a field that nobody knows"),
    pytest.param(b'{"prompt": "x", "deadline_ms": 1}', id="a deadline in the body"),
]

REPLIES: list[Any] = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="bytes that are no UTF-8"),
    pytest.param(b'{"output": "\xc3\x28", "verdict": "\xc3\x28"}', id="text with invalid UTF-8"),
    pytest.param(rb'{"output": "\ud800", "verdict": "\ud800"}', id="half a surrogate pair"),
    pytest.param(nested("[", "]"), id="ten thousand lists"),
    pytest.param(b'{"metadata": ' + nested('{"a":', "}") + b"}", id="deep metadata"),
    pytest.param(b'{"output": "' + b"x" * MAX_REPLY_BYTES + b'"}', id="one that is too large"),
    pytest.param(b'{"output": "x", "usage": {"prompt_tokens": NaN}}', id="NaN"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[1]", id="a list"),
    pytest.param(b'"output"', id="text alone"),
    pytest.param(b'{"output": 5, "verdict": 5}', id="numbers for text"),
    pytest.param(b'{"output": ["x"], "verdict": ["pass"]}', id="lists for text"),
    pytest.param(b'{"output": "x", "output": {}, "verdict": "pass", "verdict": "maybe"}', id="keys twice"),
    pytest.param(
        b'{"output": "x", "output": "y", "verdict": "reject", "verdict": "pass"}', id="two verdicts"
    ),
    pytest.param(b'{"error": 5}', id="a number as error"),
    pytest.param(b'{"error": {"code": {"a": 1}, "message": [], "details": 5}}', id="an error of wrong types"),
    pytest.param(b'{"error": {"code": "INTERNAL", "retry_after_ms": -1e400}}', id="a pause beyond bounds"),
]

HOSTILE = {
    "tenant_id": "victim",
    "request_id": "forged",
    "trace_id": "f" * 32,
    "extension_id": "somebody",
    "provider_id": "somebody",
    "deadline_ms": 10**9,
    "route": "elsewhere",
    "policy": "elsewhere",
}
"""What a reply may say and never change."""

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("tenant_id", "environment", "model", "policy", "prompt", "messages", "parameters", "context")
