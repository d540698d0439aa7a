"""Refusals and faults as RFC 9457 problem documents, with one code from a closed list.

The list is the one of :class:`beamline_contract.errors.ErrorCode`, for what every door of Beamline may
answer, and :class:`AdminCode`, for what only makes sense about objects (contract: "Wire words").
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from beamline_contract.errors import HTTP_STATUS, ErrorCode

MEDIA_TYPE: Final = "application/problem+json"


class AdminCode(StrEnum):
    """What the admin API answers beyond the wire's errors."""

    INVALID_TYPE = "invalid_type"
    """There is no such type of extension."""
    NOT_FOUND = "not_found"
    """No object goes by that id, or no page by that path."""
    ALREADY_EXISTS = "already_exists"
    """An object of that id exists."""
    CONFLICT = "conflict"
    """The object is another than the caller thinks, or belongs to somebody else."""


Code = ErrorCode | AdminCode

STATUS: Final[dict[Code, int]] = {
    **{code: HTTP_STATUS[code] for code in ErrorCode},
    AdminCode.INVALID_TYPE: 400,
    AdminCode.NOT_FOUND: 404,
    AdminCode.ALREADY_EXISTS: 409,
    AdminCode.CONFLICT: 409,
}
TITLE: Final[dict[Code, str]] = {
    ErrorCode.INVALID_ARGUMENT: "The request is wrong",
    ErrorCode.UNAUTHENTICATED: "Who are you?",
    ErrorCode.PERMISSION_DENIED: "Not allowed",
    ErrorCode.NOT_FOUND: "Not found",
    ErrorCode.RESOURCE_EXHAUSTED: "Too much at once",
    ErrorCode.DEADLINE_EXCEEDED: "Out of time",
    ErrorCode.UNAVAILABLE: "The registry does not answer",
    ErrorCode.CANCELLED: "The caller went away",
    ErrorCode.VALIDATION_REJECTED: "Rejected",
    ErrorCode.STREAM_INTERRUPTED: "The stream broke",
    ErrorCode.INTERNAL: "A fault of the admin process",
    AdminCode.INVALID_TYPE: "No such type",
    AdminCode.NOT_FOUND: "Not found",
    AdminCode.ALREADY_EXISTS: "Already exists",
    AdminCode.CONFLICT: "Conflict",
}


class Problem(BaseModel):
    """An RFC 9457 problem document. ``code`` is for programs, ``detail`` and ``hint`` are for people."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """``urn:beamline:problem:`` and the code."""
    title: str
    status: int
    detail: str
    code: ErrorCode | AdminCode
    field: str | None = None
    """The parameter or field that is wrong."""
    hint: str | None = None
    """What to do about it."""
    request_id: str


class ProblemError(Exception):
    """Ends a request with a problem document. ``status`` overrides the code's own."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = STATUS[code] if status is None else status
        self.detail = detail
        self.field = field
        self.hint = hint

    def document(self, request_id: str) -> Problem:
        """The document to answer with."""
        return Problem.model_validate(
            {
                "type": f"urn:beamline:problem:{self.code.value}",
                "title": TITLE[self.code],
                "status": self.status,
                "detail": self.detail,
                "code": self.code.value,
                "field": self.field,
                "hint": self.hint,
                "request_id": request_id,
            }
        )
