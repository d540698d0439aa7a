"""Forms that one of our own pages sent, for whoever is logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from fastapi import Request

from beamline_contract.errors import ErrorCode

from ..gate import session_of
from ..page_calls import form_is_ours
from ..problems import ProblemError
from .login import MAX_FORM_BYTES, read_form

MAX_FIELDS = 200


def ours(limit: int = MAX_FORM_BYTES) -> Callable[[Request], Awaitable[dict[str, str]]]:
    """A dependency: the fields of the form, of at most ``limit`` bytes. It raises :class:`ProblemError` for a
    form that no page of the caller's own session sent.
    """

    async def fields(request: Request) -> dict[str, str]:
        text = (await read_form(request, limit)).decode("latin-1")
        try:
            found = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError:
            raise ProblemError(ErrorCode.INVALID_ARGUMENT, "the form has too many fields") from None
        if not form_is_ours(request.scope, session_of(request.scope) or "", found.get("word", "")):
            raise ProblemError(
                ErrorCode.PERMISSION_DENIED,
                "this form does not come from a page of your session",
                hint="open the page again, then try once more",
            )
        return found

    return fields
