"""``fastrec bench``: what it runs, what it says where a part did not run, and the page of figures from small real runs.

tests/bench/quick.json is what ``fastrec bench all --peers --quick --json`` wrote once; its figures say nothing.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from fastrec import cli

ROOT = Path(__file__).resolve().parents[1]


def program(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report():
    return program("report")


@pytest.fixture(scope="module")
def offline():
    spec = importlib.util.spec_from_file_location("docs_offline", ROOT / "scripts" / "docs_offline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fetched


@pytest.fixture(scope="module")
def found(report):
    return report.load(ROOT / "tests" / "bench" / "quick.json")


def test_every_part_is_on_the_page_with_a_plot_and_its_machine(report, found, offline, tmp_path):
    assert set(found) == set(report.NAMES)
    page = report.page(found)
    for name, title in report.NAMES.items():
        assert f'<h2 id="{name}">{title}</h2>' in page
        assert found[name]["about"]["date"] in page and found[name]["about"]["cpu"] in page
    assert page.count("<svg") == len(report.NAMES), "a plot for each part"
    assert "Taken with --quick" in page
    (tmp_path / "page.html").write_text(page)
    assert offline(tmp_path) == []
    assert "<script" not in page and "/tmp/" not in page and "/home/" not in page


def test_a_ratio_says_how_many_times_better(report, found):
    rows = {name: list(report.READ[name](found[name]["result"])) for name in found}
    for name, part in rows.items():
        assert any(row.ratio for row in part), f"{name} has no comparison"
    als = next(row for row in rows["train"] if row.peer == "implicit ALS")
    told = found["train"]["result"]["als"]
    assert als.ratio == pytest.approx(told["implicit ALS"]["iteration_s"] / told["fastrec als"]["iteration_s"])
    quality = found["quality"]["result"]["results"]["ml-100k, P"]
    recent = next(row for row in rows["quality"] if row.peer.startswith("recent popularity"))
    assert recent.ratio == pytest.approx(quality["FastRec fast"]["ndcg"] / quality["recent popularity"]["ndcg"])
    known = found["knowledge"]["result"]["rows"][0]
    assert rows["knowledge"][0].ratio == pytest.approx(known["with knowledge"] / known["without"])
    pictures = found["images"]["result"]["rows"]
    assert rows["images"][0].ratio == pytest.approx(pictures["image"]["ndcg"] / pictures["popularity"]["ndcg"])
    (last,) = found["rerank"]["result"]["rows"]
    assert rows["rerank"][0].ratio == pytest.approx(last["ndcg_after"] / last["ndcg_before"])
    assert rows["rerank"][1].ratio == pytest.approx(last["cpu_ms_per_user_whole_texts"] / last["cpu_ms_per_user"])
    search = next(row for row in rows["topk"] if row.ratio)
    timed = found["topk"]["result"]["rows"][0]
    assert search.ratio == pytest.approx(min(timed["ratios"]["fastrec-float32"].values()))


def test_bars_go_to_the_side_of_the_better(report):
    better, worse = report.Row("a", "1", "p", "2", 2.0), report.Row("b", "1", "p", "2", 0.5)
    plot = report.bars([better, worse, report.Row("c", "1")], "x")
    (left, right) = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', plot)
    assert float(left[0]) == pytest.approx(float(right[0]) + float(right[1])), "both begin at 1"
    assert left[1] == right[1] and "2.00" in plot and "0.50" in plot
    assert report.bars([report.Row("c", "1")], "x") == ""


def test_what_did_not_run_says_why(report, found):
    part = {"live": found["live"], "encode": {"about": found["live"]["about"], "command": "x", "why": "no <disk>"}}
    page = report.page(part)
    assert "Not run: no &lt;disk&gt;" in page
    assert page.count("Not run: nobody asked for it") == len(report.NAMES) - 2
    assert report.page({}).count("Not run: nobody asked for it") == len(report.NAMES)
    assert "No target was judged" in report.page({})
    absent = report.absent("train", found["train"])
    assert "--peer-python" in absent["RecTools"]


def test_a_missed_target_is_named_and_a_quick_run_judges_none(report, found):
    section = json.loads(json.dumps(found["live"]))
    section["result"]["missed"] = ["update under 1 ms"]
    assert "<li>Living on after fitting: update under 1 ms</li>" not in report.page({"live": section})
    section["quick"] = False
    page = report.page({"live": section})
    assert "<li>Living on after fitting: update under 1 ms</li>" in page
    assert "Missed: update under 1 ms" in report.markdown({"live": section})
    section["result"]["missed"] = []
    assert "<p>Nothing, of live.</p>" in report.page({"live": section})


def test_files_of_single_programs_make_a_page_too(report, found, tmp_path):
    (tmp_path / "scale.json").write_text(json.dumps(found["scale"]["result"]))
    page = report.page(report.load(tmp_path))
    assert "exact search of FastRec" in page and "are not in the file of a single program" in page


@pytest.mark.slow
def test_a_part_runs_and_what_the_file_held_stays(tmp_path, capfd):
    file, page = tmp_path / "found.json", tmp_path / "page.html"
    file.write_text(json.dumps({"sections": {"topk": {"command": "old", "why": "kept as it was"}}}))
    assert cli.main(["bench", "scale", "--quick", "--json", str(file), "--html", str(page)]) == 0
    assert capfd.readouterr().out.strip().endswith("missed: not judged: --quick")
    held = json.loads(file.read_text())["sections"]
    assert held["topk"]["why"] == "kept as it was"
    assert held["scale"]["result"]["items"] == 20000 and held["scale"]["seconds"] > 0
    assert held["scale"]["about"]["versions"]["fastrec-engine"]
    assert "kept as it was" in page.read_text() and "one user, index of faiss" in page.read_text()


def test_a_part_that_fails_says_so_and_the_exit_code_does(tmp_path, monkeypatch, capsys):
    run = program("run")
    monkeypatch.setitem(run.SECTIONS, "live", lambda args, out, work: [["live.py", "--items", "none"]])
    assert run.main(["live", "--json", str(tmp_path / "found.json")]) == 1
    assert "failed: live: live.py: error: argument --items: invalid int value" in capsys.readouterr().out
    monkeypatch.setitem(run.SECTIONS, "live", lambda args, out, work: [["live.py", "--help"]])
    assert run.main(["live"]) == 1
    assert "failed: live: it wrote no figures" in capsys.readouterr().out


def test_bad_input_is_refused_before_the_work(tmp_path, capfd):
    assert cli.main(["bench", "quick"]) == 2
    assert "PART is 'quick', expected all or of encode" in capfd.readouterr().err
    assert cli.main(["bench", "live", "--html", str(tmp_path / "nowhere" / "x.html")]) == 2
    assert "does not exist" in capfd.readouterr().err


def test_without_a_checkout_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "fastrec" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench"]) == 2
    assert "expected a checkout of FastRec" in capsys.readouterr().err
