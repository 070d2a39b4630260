"""The table of what fits where: the smallest slice, and going on where it stopped."""

import dataclasses
import json

import pytest
from helpers.plan import made_plan

from train import plan_table
from train.chips import GIB, parse_slice
from train.decoder import check_rows
from train.plan_runs import rows_of


@pytest.fixture
def planned(monkeypatch):
    """Slices that were planned, in order; chips of 16 GiB hold 20 GiB nowhere."""
    seen = []

    def fake(cfg, where, asked):
        seen.append((asked.model, where.name))
        needed = 20 * GIB if where.name == "v5e:2x4" else 10 * GIB
        return made_plan(where.name, needed)

    monkeypatch.setattr(plan_table, "plan", fake)
    return seen


def table(capsys, *arguments) -> list[str]:
    assert plan_table.main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_the_smallest_slice_that_fits_is_shown(planned, tmp_path, capsys):
    """8 chips are too few. Time, MFU, chip-hours are those of the plan."""
    lines = table(capsys, f"--workdir={tmp_path}", "--only=sft-7b")
    assert planned == [("llama2-7b", "v5e:2x4"), ("llama2-7b", "v5e:4x4")]
    assert len(lines) == 3 and lines[2].startswith("| SFT of Llama-2-7B | v5e:4x4, 16")
    seconds = 2e12 / 197e12  # of the update that `made_plan` makes up
    hours = seconds * 16 * 10_000 / 128 / 3600
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[4] == "10.0 of 15.8"
    assert cells[6] == f"{12e12 / (16 * 2e12):.0%}"
    assert cells[7:9] == ["update, compute", f"{hours:.3g}"]


def test_what_is_planned_is_not_planned_again(planned, tmp_path, capsys):
    """In parts, in any order, and a row's plans that were stopped midway."""
    table(capsys, f"--workdir={tmp_path}", "--only=dpo-7b")
    smaller = next(tmp_path.glob("dpo-7b-v5e-2x4-*.json"))
    assert not json.loads(smaller.read_text())["fits"]
    smaller.unlink()
    lines = table(capsys, f"--workdir={tmp_path}", "--only=reward-7b")
    assert len(lines) == 3  # of dpo-7b a smaller slice is open again
    before = len(planned)
    lines = table(capsys, f"--workdir={tmp_path}", "--only=dpo-7b,reward-7b")
    assert planned[before:] == [("llemma-7b", "v5e:2x4")]
    assert len(lines) == 4


def test_other_settings_are_another_plan(monkeypatch, tmp_path):
    """Each part of the inputs is in the name of the file."""
    row = plan_table.ROWS["sft-7b"]
    on = row.slices[0]
    other = [
        (row, on._replace(accum=4)),
        (row, on._replace(tensor=2)),
        (row, on._replace(topology="v5p:2x2x2")),
        (row._replace(model="llama2-13b"), on),
        (row._replace(config="dpo.py:paper"), on),
    ]
    files = {plan_table.kept_at(tmp_path, "x", *pair) for pair in other}
    files.add(plan_table.kept_at(tmp_path, "x", row, on))
    monkeypatch.setattr(plan_table, "_version", lambda package: "another")
    files.add(plan_table.kept_at(tmp_path, "x", row, on))
    assert len(files) == 7


@pytest.mark.parametrize("name", plan_table.ROWS)
def test_every_row_can_be_laid_on_its_slices(name):
    """Sizes multiply to the devices, rows divide over them, slices are in order."""
    row = plan_table.ROWS[name]
    chips = [parse_slice(on.topology).chips for on in row.slices]
    assert chips == sorted(chips)
    for on in row.slices:
        cfg = plan_table.settings(row, on)
        mesh = dataclasses.asdict(cfg.mesh)
        assert mesh["data"] * mesh["fsdp"] * mesh["tensor"] == (
            parse_slice(on.topology).devices
        )
        check_rows(*rows_of(cfg), _Mesh(mesh))


def test_the_readme_shows_every_row_or_names_it():
    """In its table by what is told and one of its slices, else among those left out."""
    text = (plan_table.CONFIGS.parent / "README.md").read_text()
    named = [name for name in plan_table.ROWS if f"`{name}`" in text]
    shown = [
        name
        for name, row in plan_table.ROWS.items()
        if any(f"\n| {row.told} | {on.topology} |" in text for on in row.slices)
    ]
    assert sorted(named + shown) == sorted(plan_table.ROWS)


class _Mesh:
    """As much of a mesh as `check_rows` asks for."""

    def __init__(self, shape):
        self.shape = shape


def test_an_unknown_row_is_one_line(tmp_path, capsys):
    assert plan_table.main([f"--workdir={tmp_path}", "--only=sft-7bb"]) == 2
    err = capsys.readouterr().err
    assert err == "error: --only: no row 'sft-7bb'; did you mean 'sft-7b'?\n"
