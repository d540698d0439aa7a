"""What the admin process may do in a cluster: the one list of rights, each with its reason.

The chart's roles hold exactly these (a test compares), and the cluster suite runs the process under an
account with nothing else, and without each of them in turn. Who may do what *through* the process is another
question: :mod:`.cluster_identity`.
"""

from __future__ import annotations

from typing import Any, Final

from beamline_contract.names import GROUP

OBJECTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "apiGroups": [GROUP],
        "resources": ["extensions", "routingpolicies"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    },
)
"""In each namespace that it serves. Server-side apply is ``patch``, and ``create`` where there is no object
yet; it signs an object, by ``patch``, before it deletes it.
"""

REVIEWS: Final[tuple[dict[str, Any], ...]] = (
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
)
"""In the whole cluster, because reviews belong to no namespace: whose a token is, and what its owner may."""


def rules() -> list[dict[str, Any]]:
    """The rules of one ClusterRole that holds them all."""
    return [*OBJECTS, *REVIEWS]
