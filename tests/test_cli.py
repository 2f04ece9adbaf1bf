"""The command line as a person types it."""

import json

import polars as pl
import pytest

import fastrec
from fastrec import cli


@pytest.fixture(scope="module")
def files(tmp_path_factory, events, items):
    folder = tmp_path_factory.mktemp("cli")
    events.write_parquet(folder / "events.parquet")
    items.write_ndjson(folder / "items.jsonl")
    code = cli.main(
        [
            "fit",
            str(folder / "events.parquet"),
            "--items",
            str(folder / "items.jsonl"),
            "--encoder",
            "none",
            "--out",
            str(folder / "model"),
        ]
    )
    assert code == 0
    return folder


def test_recommend_prints_a_table(files, capsys):
    assert cli.main(["recommend", str(files / "model"), "--users", "u1", "u2", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "user_id\titem_id\tscore\trank" and len(lines) == 7
    assert lines[1].startswith("u1\ti") and lines[1].endswith("\t1")


def test_recommend_all_to_a_file(files, tmp_path):
    assert cli.main(["recommend", str(files / "model"), "--all", "--out", str(tmp_path / "r.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "r.parquet").shape == (600, 4)
    assert cli.main(["recommend", str(files / "model"), "--all", "--out", str(tmp_path / "r.csv")]) == 0
    assert pl.read_csv(tmp_path / "r.csv").height == 600


def test_recommend_all_to_a_folder(files, tmp_path, capsys):
    words = ["recommend", str(files / "model"), "--all", "-k", "3", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--users-per-part", "25"]) == 0
    assert f"60 users in 3 files at {tmp_path / 'out'}, 3 written now" in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "out").shape == (180, 4)
    assert cli.main([*words, "--users-per-part", "25"]) == 0
    assert "0 written now" in capsys.readouterr().out
    assert cli.main([*words, "--users-per-part", "30"]) == 2
    assert "begun with users_per_part=25, this call has 30" in capsys.readouterr().err
    assert cli.main(["recommend", str(files / "model"), "--users", "u1", "--out", str(tmp_path / "out")]) == 2
    assert cli.main([*words[:-1], str(tmp_path / "r.parquet"), "--users-per-part", "30"]) == 2
    assert "--users-per-part needs --all and a folder" in capsys.readouterr().err


def test_similar(files, capsys):
    assert cli.main(["similar", str(files / "model"), "i1", "-k", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("split", ["time", "loo"])
def test_evaluate(files, tmp_path, capsys, split):
    code = cli.main(
        [
            "evaluate",
            str(files / "events.parquet"),
            "--encoder",
            "none",
            "--split",
            split,
            "--models",
            "popularity,item_item",
            "--json",
            str(tmp_path / "e.json"),
        ]
    )
    assert code == 0
    assert "recent popularity" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["split"] == split


def test_evaluate_to_a_page_with_the_ladder(files, tmp_path, capsys):
    page = tmp_path / "e.html"
    words = ["evaluate", str(files / "events.parquet"), "--encoder", "none", "--models", "popularity,item_item"]
    assert cli.main([*words, "--ladder", "--html", str(page)]) == 0
    assert "collaborative" in capsys.readouterr().out
    assert page.read_text().startswith("<!DOCTYPE html>") and "collaborative" in page.read_text()
    assert cli.main([*words, "--html", str(tmp_path / "nowhere" / "e.html")]) == 2
    assert "the folder of" in capsys.readouterr().err


def test_doctor(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "score_topk" in out and "numba" in out and "ok" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["recommend", "{}/nothing", "--users", "u1"], 1, "[load]"),
        (["recommend", "{}/model", "--users", "u1", "-k", "0"], 2, "[recommend] k=0"),
        (["recommend", "{}/model", "--users", "u1", "--out", "r.xls"], 2, "expected .parquet or .csv"),
        (["similar", "{}/model", "i999"], 2, "unknown item"),
        (["fit", "{}/none.parquet", "--out", "{}/x"], 2, "none.parquet"),
        (
            ["fit", "{}/events.parquet", "--models", "quick", "--out", "{}/x", "--encoder", "none"],
            2,
            "unknown model",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(files, capsys, words, code, message):
    assert cli.main([w.format(files) for w in words]) == code
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fastrec: ")]
    assert len(err) == 1 and message in err[0]


def test_debug_shows_the_traceback(files):
    with pytest.raises(Exception, match="unknown item"):
        cli.main(["--debug", "similar", str(files / "model"), "i999"])


def test_integer_ids_from_the_command_line(tmp_path, capsys):
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5]}).write_csv(tmp_path / "e.csv")
    assert cli.main(["fit", str(tmp_path / "e.csv"), "--encoder", "none", "--out", str(tmp_path / "m")]) == 0
    capsys.readouterr()
    assert cli.main(["recommend", str(tmp_path / "m"), "--users", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("2\t6\t")
    assert cli.main(["recommend", str(tmp_path / "m"), "--users", "two"]) == 2


def test_an_encoder_that_is_none_is_refused_although_no_item_has_a_text(files, tmp_path, capsys):
    command = ["fit", str(files / "events.parquet"), "--out", str(tmp_path / "m"), "--encoder"]
    assert cli.main([*command, "no/such"]) == 1
    assert "no/such" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "nowhere" / "at" / "all")]) == 2
    assert not (tmp_path / "m").exists()


def test_evaluate_is_that_of_the_recommender_and_fits_the_past_alone(files, tmp_path, monkeypatch):
    from fastrec.models import ItemItem

    seen, fit = [], ItemItem.fit

    def noted(self, data, *rest):
        seen.append(len(data.items))
        return fit(self, data, *rest)

    monkeypatch.setattr(ItemItem, "fit", noted)
    arguments = ["evaluate", str(files / "events.parquet"), "--encoder", "none", "--models", "popularity,item_item"]
    assert cli.main([*arguments, "--split", "loo", "--json", str(tmp_path / "e.json")]) == 0
    events = pl.read_parquet(files / "events.parquet")
    assert max(seen) < len(events.unique(["user_id", "item_id"]))
    rec = fastrec.Recommender(encoder=None, models=["popularity", "item_item"]).fit(events)
    want = rec.evaluate(split="loo").rows
    assert json.loads((tmp_path / "e.json").read_text())["models"] == want
