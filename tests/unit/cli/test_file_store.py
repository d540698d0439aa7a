"""Files as objects: ids and generations that last, the last good version, and deletion with a finalizer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamline_admin.objects.files import FileObjects
from beamline_admin.objects.port import ObjectsError
from beamline_contract.names import FINALIZER
from beamline_contract.objects import BrokenObject, Extension, ObjectKey
from beamline_operator.core.ports import Event, EventReason, StoreError
from beamline_operator.edges.files import FileStore
from beamline_operator.edges.kept import MAX_EVENTS, SAME_EVENT_S

GUARD = ObjectKey("Extension", "default", "guard")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Files:
    """A folder with manifests and its store; :meth:`restart` is a second start on the same state."""

    def __init__(self, tmp: Path) -> None:
        self.folder = tmp / "manifests"
        self.folder.mkdir()
        self.state = tmp / "state"
        self.store = self.restart()

    def restart(self) -> FileStore:
        self.store = FileStore(self.folder, self.state, user="jane", now=lambda: NOW)
        self.changes = self.store.load()
        return self.store

    def write(self, text: str, name: str = "a.yaml") -> None:
        (self.folder / name).write_text(text)
        self.changes = self.store.look()

    @property
    def faults(self) -> list[str]:
        return [str(fault) for fault in self.store.faults]

    @property
    def guard(self) -> Extension:
        found = self.store.get(GUARD)
        assert isinstance(found, Extension), found
        return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def manifest(*, name: str = "guard", timeout: object = 5, type_: str = "pre", extra: str = "") -> str:
    return (
        f"apiVersion: beamline.io/v1alpha1\nkind: Extension\nmetadata: {{name: {name}}}\n"
        f"spec:\n  type: {type_}\n  timeoutMs: {timeout}\n{extra}"
    )


def test_a_document_becomes_an_object_with_what_a_server_adds(files: Files) -> None:
    files.write(manifest())
    meta = files.guard.metadata
    assert (meta.generation, meta.created_at, meta.changed_by) == (
        1,
        "2026-01-02T03:04:05Z",
        "file:a.yaml (jane)",
    )
    assert meta.uid
    assert files.changes.changed == (GUARD,)
    assert files.store.list("Extension") == [files.guard]
    assert files.store.file_of(GUARD) == "a.yaml"


@pytest.mark.parametrize(
    ("edited", "generation"),
    [
        pytest.param(manifest(timeout=6), 2, id="another timeout is a new generation"),
        pytest.param(manifest(), 1, id="the same text is not"),
        pytest.param("# a comment\n" + manifest(), 1, id="a comment is not"),
        pytest.param(manifest(extra="  retry: 1\n"), 1, id="a default written out is not"),
        pytest.param(
            manifest().replace("{name: guard}", "{name: guard, labels: {a: b}}"), 1, id="a label is not"
        ),
    ],
)
def test_the_generation_rises_only_with_the_spec(files: Files, edited: str, generation: int) -> None:
    files.write(manifest())
    files.write(edited)
    assert files.guard.metadata.generation == generation


async def test_a_second_start_keeps_ids_generations_and_status(files: Files) -> None:
    files.write(manifest())
    files.write(manifest(timeout=6))
    await files.store.write_status(GUARD, {"id": "guard"})
    before = files.guard
    files.restart()
    assert files.guard == before
    assert files.changes.keys == ()


def test_an_edit_between_two_starts_is_a_new_generation(files: Files) -> None:
    files.write(manifest())
    uid = files.guard.metadata.uid
    (files.folder / "a.yaml").write_text(manifest(timeout=60))
    files.restart()
    assert (files.guard.metadata.uid, files.guard.metadata.generation) == (uid, 2)


BROKEN = [
    pytest.param(manifest(timeout="never"), "a.yaml:6: spec.timeoutMs", id="a wrong value"),
    pytest.param(manifest() + "  a: [\n", "a.yaml:8: not valid YAML", id="broken YAML"),
    pytest.param(manifest(type_="post"), "a.yaml:5: spec.type: type is immutable", id="an immutable field"),
]


@pytest.mark.parametrize(("broken", "fault"), BROKEN)
def test_a_broken_edit_is_reported_and_the_last_good_version_stays(
    files: Files, broken: str, fault: str
) -> None:
    files.write(manifest())
    good = files.guard
    files.write(broken)
    assert files.faults[0].startswith(fault)
    assert files.guard == good
    listed = json.loads((files.state / "faults.json").read_text())
    assert listed[0]["file"] == "a.yaml"
    files.write(manifest())
    assert files.faults == []


@pytest.mark.parametrize(("broken", "fault"), BROKEN[:2])
def test_the_last_good_version_outlives_a_restart(files: Files, broken: str, fault: str) -> None:
    files.write(manifest())
    good = files.guard
    files.write(broken)
    files.restart()
    assert files.guard == good
    assert files.faults[0].startswith(fault)


def test_a_document_behind_a_syntax_error_is_not_taken_for_deleted(files: Files) -> None:
    files.write(manifest(name="first") + "---\n" + manifest())
    files.write(manifest(name="first") + "  a: [\n---\n" + manifest())
    assert files.changes.removed == ()
    assert files.guard


def test_an_object_that_was_never_valid_is_shown_as_broken(files: Files) -> None:
    files.write(manifest(timeout="never"))
    broken = files.store.get(GUARD)
    assert isinstance(broken, BrokenObject)
    assert str(broken.faults[0]).endswith("(a.yaml:6)")
    files.write(manifest())
    assert files.guard.metadata.uid == broken.metadata.uid
    files.write(manifest(timeout="never", name="other"), "b.yaml")
    files.restart()
    assert isinstance(files.store.get(ObjectKey("Extension", "default", "other")), BrokenObject)


def test_the_same_object_in_two_files_is_reported_with_both_places(files: Files) -> None:
    files.write(manifest())
    files.write("# second\n" + manifest(timeout=7), "b.yaml")
    assert files.faults == [
        "b.yaml:4: metadata.name: Extension default/guard is defined twice, first at a.yaml:3"
    ]
    assert files.guard.spec.timeout_ms == 5


def test_an_object_that_moves_to_another_file_is_still_the_same(files: Files) -> None:
    files.write(manifest())
    before = files.guard
    (files.folder / "a.yaml").rename(files.folder / "z.yaml")
    files.changes = files.store.look()
    assert files.changes.removed == ()
    assert files.guard.metadata.uid == before.metadata.uid
    assert files.store.file_of(GUARD) == "z.yaml"


def test_other_people_s_documents_are_skipped_and_told_once(files: Files) -> None:
    files.write("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    assert files.changes.skipped == ("a.yaml:1: Secret of v1 is not of Beamline: skipped",)
    assert files.store.look().skipped == ()
    assert files.faults == []


async def test_a_removed_document_takes_its_object_with_it(files: Files) -> None:
    files.write(manifest())
    files.write("")
    assert files.changes.removed == (GUARD,)
    assert files.store.get(GUARD) is None
    await files.store.write_status(GUARD, {})
    await files.store.set_finalizer(GUARD, True)
    assert list((files.state / "objects").iterdir()) == []


async def test_an_object_with_a_finalizer_is_deleted_in_two_steps(files: Files) -> None:
    files.write(manifest())
    await files.store.set_finalizer(GUARD, True)
    assert files.guard.metadata.finalizers == (FINALIZER,)
    (files.folder / "a.yaml").unlink()
    files.restart()
    assert files.changes.removed == (GUARD,)
    assert files.guard.metadata.deleting
    files.restart()
    assert files.guard.metadata.deleting
    await files.store.set_finalizer(GUARD, False)
    assert files.store.get(GUARD) is None


async def test_a_document_that_comes_back_while_it_is_being_deleted_stays(files: Files) -> None:
    files.write(manifest())
    await files.store.set_finalizer(GUARD, True)
    files.write("")
    files.write(manifest())
    assert not files.guard.metadata.deleting


async def test_status_and_events_are_told(files: Files) -> None:
    told: list[Any] = []
    files.store.on_status = lambda key, status: told.append((key, status))
    files.store.on_event = lambda key, event: told.append((key, event))
    files.write(manifest())
    event = Event(EventReason.SYNCED, "done")
    await files.store.write_status(GUARD, {"id": "guard"})
    await files.store.record_event(GUARD, event)
    assert told == [(GUARD, {"id": "guard"}), (GUARD, event)]
    kept = json.loads((files.state / "objects" / "Extension.default.guard.json").read_text())
    assert (kept["kind"], kept["status"], kept["spec"]["timeoutMs"]) == ("Extension", {"id": "guard"}, 5)


async def test_events_are_kept_counted_bounded_and_gone_with_their_object(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [NOW]
    monkeypatch.setattr(files.store, "_now", lambda: clock[0])
    files.write(manifest())
    reader = FileObjects(files.folder, files.state)
    held = await reader.get(GUARD)
    assert held is not None
    assert await reader.events(held) == []
    refused = Event(EventReason.REFUSED, "router r1 refused", "Warning")
    for number in range(MAX_EVENTS):
        clock[0] += timedelta(seconds=1)
        await files.store.record_event(GUARD, Event(EventReason.SYNCED, f"generation {number}"))
    for _ in range(3):
        clock[0] += timedelta(seconds=1)
        await files.store.record_event(GUARD, refused)
    clock[0] += timedelta(seconds=SAME_EVENT_S)
    await files.store.record_event(GUARD, refused)
    await files.store.record_event(ObjectKey("Extension", "default", "nobody"), refused)
    files.restart()
    found = await reader.events(held)
    assert len(found) == MAX_EVENTS
    assert [(one.reason, one.type, one.message, one.count) for one in found[:3]] == [
        ("Refused", "Warning", "router r1 refused", 1),
        ("Refused", "Warning", "router r1 refused", 3),
        ("Synced", "Normal", f"generation {MAX_EVENTS - 1}", 1),
    ]
    assert found[0].at == "2026-01-02T03:14:58.000000Z"
    assert [path.name for path in (files.state / "events").iterdir()] == ["Extension.default.guard.json"]
    (files.state / "events" / "Extension.default.guard.json").write_text("{")
    with pytest.raises(ObjectsError, match=r"events of Extension default/guard can.t be read"):
        await reader.events(held)
    await files.store.record_event(GUARD, refused)
    assert [one.count for one in await reader.events(held)] == [1]
    files.write("")
    assert await reader.events(held) == []


def test_a_kept_object_of_another_time_is_left_out_with_a_warning(files: Files) -> None:
    files.write(manifest())
    uid = files.guard.metadata.uid
    (files.state / "objects" / "Extension.default.guard.json").write_text("{")
    files.restart()
    assert files.guard.metadata.uid != uid


def test_a_folder_that_is_gone_changes_nothing_and_says_so(files: Files) -> None:
    files.write(manifest())
    (files.folder / "a.yaml").unlink()
    files.folder.rmdir()
    with pytest.raises(StoreError, match="can't be read: No such file"):
        files.store.look()
    assert files.guard


def test_a_state_that_can_not_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be made"):
        FileStore(tmp_path, tmp_path / "file" / "state").load()
