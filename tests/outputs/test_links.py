"""Links that do not lead straight: through links outside of the tree, and those that a backup keeps."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Project

HERE = "one/checkpoints"
OLD, NEWER, NEWEST = (f"epoch={epoch}-step={epoch}.ckpt" for epoch in (1, 12, 13))
LINKS = {"elsewhere": "two/pretrained.ckpt", "beside it": f"{HERE}/last.ckpt"}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("hops", [1, 2])
def test_what_a_link_leads_to_through_one_outside_stays_under_its_name(project: Project, link: str, hops: int) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (OLD, NEWER, NEWEST)})
    to = project.outputs / HERE / OLD
    for hop in range(hops):
        outside = project.folder / f"best-{hop}.ckpt"
        outside.symlink_to(to)
        to = outside
    project.make({link: f"-> {to}"})
    assert f"{link} points to it" in project.doit("plan", "delete_old=1", "verbose=1")
    project.doit("migrate", "delete_old=1")
    assert (project.outputs / link).exists()
    assert OLD in project.names("one")


def test_links_outside_that_lead_in_a_circle_lead_nowhere(project: Project) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (OLD, NEWER)} | {"two/pretrained.ckpt": f"-> {project.folder}/a"})
    (project.folder / "a").symlink_to("b")
    (project.folder / "b").symlink_to("a")
    project.doit("migrate", "delete_old=1")
    assert OLD not in project.names("one")


def test_a_link_in_a_backup_stays_as_it_was(project: Project) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (NEWER, NEWEST)})
    project.make({f"{HERE}/last.ckpt": f"-> {project.outputs / HERE / NEWER}"})
    project.doit("backup")
    (backup,) = project.folder.glob("outputs_backup_*")
    backup.rename(project.outputs / backup.name)
    project.doit("migrate")
    assert os.readlink(project.outputs / backup.name / HERE / "last.ckpt") == f"{project.outputs / HERE / NEWER}"
    assert "damaged" not in project.doit("backups", "to=outputs", "verify=1")
