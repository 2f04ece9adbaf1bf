"""Images and sounds of items in a Recommender."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import hash_encoder

from fastrec import ArtifactError, ConfigError, DataError, Recommender, load, metrics
from fastrec.data.checks import Place
from fastrec.data.media import files
from fastrec.data.read import read
from fastrec.encode import MediaEncoder
from fastrec.models import Audio, Image
from fastrec.refit import refit

COLOURS = {0: (200, 30, 40), 1: (30, 40, 220)}


@pytest.fixture(scope="session")
def shown(items, picture, png):
    """The items with an image of the colour of their group; none for i8, garbage for i9, half a file for i11."""
    pictures = [png(picture(COLOURS[int(i[1:]) % 2], seed=int(i[1:]))) for i in items["item_id"]]
    pictures[8], pictures[9], pictures[11] = None, b"garbage", pictures[11][:50]
    return items.with_columns(pl.Series("image", pictures, pl.Binary))


def fit(events, items, folder, models=("popularity", "content", "image"), **settings):
    made = {"encoder": hash_encoder, "models": list(models), "weights": "equal", "progress": False, **settings}
    return Recommender(image_encoder=folder, **made).fit(events, items)


@pytest.fixture(scope="module")
def seen(events, shown, tower):
    return fit(events, shown, tower("clip"))


def test_items_that_look_alike(seen):
    for item in ("i2", "i3", "i40", "i41"):  # the last two have no event
        near = seen.similar_items(item, 8, by="image").items
        assert {int(i[1:]) % 2 for i in near} == {int(item[1:]) % 2}


def test_bad_files_are_told_by_id_and_left_out(seen, events, shown, tower):
    told = [note for note in seen.report.notes if "image of item" in note]
    assert len(told) == 2 and "'i9'" in told[0] and "'i11'" in told[1] and "decoded" in told[0]
    media = seen._fitted("test").embeddings.media["image"]
    unknown = [seen.item_ids.index(i) for i in ("i8", "i9", "i11")]
    assert not media.known[unknown].any() and (media.vectors[unknown] == 0).all() and media.known.sum() == 39
    np.testing.assert_allclose(media.vectors[media.known].mean(axis=0), 0, atol=1e-6)
    with pytest.raises(DataError, match=r"\[fit\] items: image of item 'i9'") as caught:
        Recommender(encoder=hash_encoder, image_encoder=tower("clip"), models=["image"]).fit(events, shown, strict=True)
    assert caught.value.column == "image"


def test_the_report_says_why_an_image_of_pillow_is_left_out(events, items, tower, picture, png, monkeypatch, caplog):
    from PIL import Image

    drawn = [Image.fromarray(picture(COLOURS[int(i[1:]) % 2])) for i in items["item_id"]]
    drawn[4] = Image.open(io.BytesIO(png(picture(COLOURS[0]))[:-900]))
    drawn[6] = Image.new("HSV", (4, 3))
    rec = fit(events, {"item_id": items["item_id"].to_list(), "image": drawn}, tower("clip"), ["image"])
    broken, odd = sorted(note for note in rec.report.notes if note.startswith("image of item"))
    assert "'i4' is left out" in broken and "OSError: image file is truncated" in broken
    assert "'i6' is left out" in odd and "cannot write mode HSV" in odd
    # The log of add_items says the same, and of many it counts the last ones.
    monkeypatch.setattr("fastrec.encode.media._TOLD", 2)
    assert rec.add_items({"item_id": ["a", "b", "c", "d"], "image": [drawn[6]] * 4})["unreadable"] == 4
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert told[0].startswith("[add_items] image of item 'a' is left out: ") and "cannot write mode HSV" in told[0]
    assert told[2:] == ["[add_items] image of 2 other items is left out: it cannot be read"]


def test_a_missing_image_adds_nothing(seen):
    why = seen.recommend("u0", 30, explain=True, filter_seen=False)
    shares = {item: one["sources"] for item, one in zip(why, why.explanations, strict=True)}
    for item in {"i8", "i9", "i11"} & shares.keys():
        assert shares[item]["image"] == 0
    assert max(one["image"] for one in shares.values()) > 0.5
    for score, one in zip(why.scores, why.explanations, strict=True):
        assert sum(one["sources"].values()) == pytest.approx(float(score), abs=1e-4)


def test_columns_in_every_form(events, items, tower, picture, png, tmp_path):
    from PIL import Image

    arrays = [picture(COLOURS[int(i[1:]) % 2], seed=int(i[1:])) for i in items["item_id"]]
    paths = []
    for n, array in enumerate(arrays):
        paths.append(str(tmp_path / f"{n}.png"))
        (tmp_path / f"{n}.png").write_bytes(png(array))
    plain = {name: items[name].to_list() for name in ("item_id", "title")}
    data = [Path(p).read_bytes() for p in paths]
    forms = {
        "paths": plain | {"image": paths},
        "bytes": plain | {"Image": data},
        "arrays": plain | {"image": arrays},
        "pathlib": plain | {"image": [Path(p) for p in paths]},
        "pillow": plain | {"image": [Image.open(paths[0]), *map(Image.fromarray, arrays[1:])]},
        "one array": plain | {"image": np.stack(arrays)},
        "pandas": pl.DataFrame({**plain, "image": paths}).to_pandas(),
        "hugging face": pl.DataFrame({**plain, "image": [{"bytes": d, "path": None} for d in data]}),
    }
    found = {name: fit(events, given, tower("clip"), ["image"]) for name, given in forms.items()}
    want = found["paths"]._fitted("test").embeddings.media["image"].vectors
    for name, rec in found.items():
        np.testing.assert_allclose(rec._fitted("test").embeddings.media["image"].vectors, want, atol=1e-6, err_msg=name)
    with pytest.raises(DataError, match=r"column 'image' row 0: holds Int64, expected paths, bytes or arrays"):
        fit(events, plain | {"image": list(range(42))}, tower("clip"))
    with pytest.raises(DataError, match=r"column 'image' mixes kinds: row 1 holds b'.{0,80} \(bytes\), row 0"):
        fit(events, plain | {"image": [Path(paths[0]), data[1], *paths[2:]]}, tower("clip"))
    mixed = [{"bytes": None, "path": paths[0]}, *({"bytes": d, "path": None} for d in data[1:])]
    with pytest.raises(DataError, match="column 'image' row 0: holds a path without bytes beside bytes"):
        fit(events, plain | {"image": mixed}, tower("clip"))


def test_saved_loaded_and_lived_on(seen, tower, tmp_path, picture, png):
    seen.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder)
    users = ["u0", "u1"]
    np.testing.assert_array_equal(again.recommend(users, 9).scores, seen.recommend(users, 9).scores)
    assert b"PNG" not in b"".join(p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file())
    counts = again.add_items(
        {
            "item_id": ["new red", "new blue", "bad", "none"],
            "title": ["", "", "", ""],
            "image": [png(picture(COLOURS[0], 99)), png(picture(COLOURS[1], 98)), b"bad", None],
        }
    )
    assert counts["added"] == 4 and counts["unreadable"] == 1
    assert {int(i[1:]) % 2 for i in again.similar_items("new red", 5, by="image").items} == {0}
    assert {int(i[1:]) % 2 for i in again.similar_items("new blue", 5, by="image").items} == {1}
    again.save(tmp_path / "n")
    later = load(tmp_path / "n", encoder=hash_encoder)
    np.testing.assert_array_equal(later.similar_items("new red", 5).scores, again.similar_items("new red", 5).scores)
    later.add_items({"item_id": ["more"], "title": [""], "image": [png(picture(COLOURS[1], 97))]})
    assert "new blue" in list(later.similar_items("more", 24, by="image"))


def test_arrays_of_different_shapes_in_one_column():
    sounds = [np.zeros(9, np.int16), np.zeros((2, 900), np.float32), None, np.zeros(0)]
    drawn = [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.uint8), None, np.zeros((2, 4, 3))]
    for name, values in (("audio", sounds), ("Image", drawn)):
        for table in (
            {name: values},
            pd.DataFrame({name: values}),
            pl.DataFrame({name: pl.Series(values, dtype=pl.Object)}),
        ):
            column = files(read(table, what="items")[name], Place("fit", "items", name))
            for value, got in zip(values, column.to_list(), strict=True):
                assert (got is None) == (value is None)
                if value is not None:
                    found = np.load(io.BytesIO(got))
                    assert found.shape == value.shape and found.dtype == value.dtype


def test_training_anew_takes_new_images_and_their_mean(seen, tower, tmp_path, picture, png):
    seen.save(tmp_path / "m")
    rec = load(tmp_path / "m", encoder=hash_encoder)
    pictures = [png(picture((240, 240, 10), seed)) for seed in range(30)]
    rec.add_items({"item_id": [f"n{i}" for i in range(30)], "title": [""] * 30, "image": pictures})
    rec.save(tmp_path / "m")
    refit(tmp_path / "m", force=True, encoder=hash_encoder)
    state = load(tmp_path / "m", encoder=hash_encoder)._fitted("test")
    found = state.embeddings.media["image"]
    np.testing.assert_allclose(found.vectors[found.known].mean(axis=0), 0, atol=1e-6)
    want, _ = MediaEncoder("image", tower("clip")).encode(pictures)
    np.testing.assert_allclose(
        found.vectors[state.items.rows([f"n{i}" for i in range(30)])] + found.mean, want, atol=1e-5
    )


def test_a_function_in_place_of_the_model_that_was_saved(seen, tower, tmp_path):
    seen.save(tmp_path / "m")
    again = load(tmp_path / "m", encoder=hash_encoder, image_encoder=lambda values: np.ones((len(values), 24)))
    np.testing.assert_array_equal(again.recommend("u0", 9).scores, seen.recommend("u0", 9).scores)
    with pytest.raises(ArtifactError, match="image_encoder"):
        load(tmp_path / "m", encoder=hash_encoder, image_encoder=tower("clip", seed=1))


def test_the_log_brings_new_items_back(events, shown, tower, tmp_path, picture, png):
    rec = fit(events, shown, tower("clip"), store=tmp_path / "log.sqlite")
    rec.save(tmp_path / "m")
    rec.add_items({"item_id": ["x"], "title": ["apple"], "image": [png(picture(COLOURS[0], 5))]})
    again = load(tmp_path / "m", encoder=hash_encoder, store=tmp_path / "log.sqlite")
    np.testing.assert_array_equal(again.similar_items("x", 5).scores, rec.similar_items("x", 5).scores)
    np.testing.assert_array_equal(again.similar_items("x", 5).items, rec.similar_items("x", 5).items)


def test_sentences_are_compared_with_images(events, shown, tower):
    alone = fit(events, shown.drop("title", "category", "tags"), tower("clip"), ["image"], encoder=None)
    found = alone.recommend_for_text("a red", 45)
    state = alone._fitted("test")
    media = state.embeddings.media["image"]
    text = alone._media["image"].encode_text(["a red"])[0]
    scores = media.vectors @ text
    order = np.argsort(-scores, kind="stable")
    assert [i for i in found] == [alone.item_ids[i] for i in order]  # noqa: C416
    # Those that have an image stand as their cosines do.
    cosines = (media.vectors + media.mean) @ text
    known = [i for i in order if media.known[i]]
    assert (np.diff(cosines[known]) <= 1e-6).all()
    both = fit(events, shown, tower("clip"))
    why = both.recommend_for_text(["apple fruit", ""], 4, explain=True)
    assert all(set(one["sources"]) == {"content", "image"} for one in why.explanations[0])
    assert {i for i in why.items[0]} and len(why.items[1]) == 4  # noqa: C416
    assert len(both.recommend_for_text(["apple", ""], 4, on_unknown="skip").items) == 1
    plain = fit(events, shown, tower("vit"), ["image"], encoder=None)
    with pytest.raises(ConfigError, match="no text encoder"):
        plain.recommend_for_text("red", 3)


def test_sounds(events, items, tower, tone):
    heard = [tone(200 + 900 * (int(i[1:]) % 2), seed=int(i[1:])) for i in items["item_id"]]
    table = items.select("item_id").with_columns(pl.Series("audio", heard, pl.Binary))
    rec = Recommender(
        encoder=None, audio_encoder=tower("wav2vec2"), models=[Audio(decay=2.0)], weights="equal", progress=False
    ).fit(events, table)
    assert rec.weights == {"audio": 1.0}
    assert {int(i[1:]) % 2 for i in rec.similar_items("i3", 6, by="audio").items} == {1}
    assert {int(i[1:]) % 2 for i in rec.recommend("u0", 5).items} == {0}


def test_a_function_in_place_of_a_model(events, items, tmp_path):
    def look(values):
        return [[1.0, 0.2] if value.endswith("0") else [0.2, 1.0] for value in values]

    table = items.select("item_id").with_columns(image=pl.Series([f"p{int(i[1:]) % 2}" for i in items["item_id"]]))
    rec = Recommender(encoder=None, image_encoder=look, models=["image"], weights="equal", progress=False).fit(
        events, table
    )
    rec.save(tmp_path / "m")
    again = load(tmp_path / "m")
    np.testing.assert_array_equal(again.recommend("u0", 5).items, rec.recommend("u0", 5).items)
    with pytest.raises(ConfigError, match="image_encoder of the model is not here"):
        again.add_items({"item_id": ["y"], "image": ["p0"]})
    given = load(tmp_path / "m", image_encoder=look)
    given.add_items({"item_id": ["y"], "image": ["p0"]})
    assert {int(i[1:]) % 2 for i in given.similar_items("y", 5).items} == {0}


def test_a_preset_takes_images_where_there_are_any(events, shown, tower, tmp_path):
    rec = Recommender(encoder=None, image_encoder=tower("clip"), weights="equal", progress=False)
    rec.fit(events, shown.drop("title", "category", "tags"))
    assert list(rec.weights)[-1] == "image" and "als" in rec.weights
    rec.save(tmp_path / "m")
    assert load(tmp_path / "m").evaluate(split="loo", per_model=False).rows


def test_without_an_encoder_or_a_column(events, shown, items, tower):
    rec = Recommender(encoder=None, models=["popularity", "image"], progress=False).fit(events, shown)
    assert list(rec.weights) == ["popularity"]
    with pytest.raises(DataError, match=r"none of the models \(image\)"):
        Recommender(encoder=None, models=["image"], progress=False).fit(events, shown)
    rec = fit(events, items, tower("clip"), ["popularity", "image"])
    assert any("no column 'image'" in note for note in rec.report.notes) and list(rec.weights) == ["popularity"]
    for make in (Image, Audio):
        with pytest.raises(ConfigError, match="decay"):
            make(decay="soon")


def test_images_help_where_there_is_no_text(tower, picture, png):
    # Four kinds of items, told apart by colour alone; a quarter of the items has no event.
    colours = [(220, 40, 40), (40, 200, 60), (50, 60, 230), (210, 200, 40)]
    rng = np.random.default_rng(1)
    kinds, n = np.arange(80) % 4, 80
    rows = [
        (f"u{u}", int(i), step)
        for u in range(120)
        for step, i in enumerate(rng.permutation(np.flatnonzero(kinds == u % 4))[:8])
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    table = pl.DataFrame(
        {"item_id": list(range(n)), "image": [png(picture(colours[k], seed=i)) for i, k in enumerate(kinds)]}
    )
    cold = list(range(60, 80))
    train, test = (events.filter(pl.col("item_id").is_in(cold) == side) for side in (False, True))
    users = sorted(set(test["user_id"]) & set(train["user_id"]))
    wanted = [test.filter(pl.col("user_id") == u)["item_id"].to_list() for u in users]
    found = {}
    for models in (["popularity"], ["popularity", "image"]):
        rec = Recommender(encoder=None, image_encoder=tower("clip"), models=models, progress=False).fit(train, table)
        found[models[-1]] = metrics.ndcg(rec.recommend(users, 5, allow=cold).items, wanted, 5)
    assert found["image"] > found["popularity"] + 0.3, found
