"""The command line: ``fastrec demo | fit | recommend | similar | evaluate | refit | tune | serve | bench | doctor``.

Results go to stdout, everything else to stderr. Exit code 2 for bad input, 1 for a failure; one line
says what was wrong, a traceback comes with ``--debug`` only.
"""

import argparse
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError, DataError, FastRecError, UnknownIdError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fastrec").setLevel(logging.DEBUG if args.debug else logging.INFO)
    for noisy in ("transformers", "urllib3", "httpx", "numba"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return int(args.run(args) or 0)
    except (ConfigError, DataError, UnknownIdError) as error:
        return _fail(error, 2, args.debug)
    except (FastRecError, OSError) as error:
        return _fail(error, 1, args.debug)
    except KeyboardInterrupt:
        print("fastrec: interrupted", file=sys.stderr)
        return 130


def _fail(error: BaseException, code: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"fastrec: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastrec", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the main job on real data, end to end")
    demo.add_argument("--out", type=Path, default=Path("recs.parquet"), help="where the recommendations go")
    demo.set_defaults(run=_demo)

    fit = commands.add_parser("fit", help="learn from events and write a model")
    _learning(fit)
    fit.add_argument("--out", type=Path, required=True, help="folder of the model")
    fit.add_argument("--goal", choices=("next", "period"), default="next")
    fit.add_argument("--strict", action="store_true", help="raise where rows would be dropped")
    fit.set_defaults(run=_fit)

    recommend = commands.add_parser("recommend", help="top-k for users of a model")
    recommend.add_argument("model", type=Path)
    who = recommend.add_mutually_exclusive_group(required=True)
    who.add_argument("--users", nargs="+", metavar="ID")
    who.add_argument("--all", action="store_true", help="all users of the model")
    recommend.add_argument("-k", type=int, default=10)
    recommend.add_argument(
        "--out",
        type=Path,
        help="parquet or csv file, or with --all a folder of parts; without it a table on stdout",
    )
    recommend.add_argument("--users-per-part", type=int, metavar="N", help="users of a part of the folder")
    recommend.set_defaults(run=_recommend)

    similar = commands.add_parser("similar", help="items most like the given ones")
    similar.add_argument("model", type=Path)
    similar.add_argument("items", nargs="+", metavar="ITEM")
    similar.add_argument("-k", type=int, default=10)
    similar.set_defaults(run=_similar)

    evaluate = commands.add_parser("evaluate", help="fit on the past of the events, measure on what followed")
    _learning(evaluate)
    evaluate.add_argument("--split", choices=("time", "loo"), default="time")
    evaluate.add_argument("-k", type=int, default=10)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    evaluate.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots there")
    evaluate.add_argument("--ladder", action="store_true", help="what each step from popularity on buys")
    evaluate.set_defaults(run=_evaluate)

    refit = commands.add_parser("refit", help="train a model anew on its events and the log, and keep the better one")
    refit.add_argument("model", type=Path)
    refit.add_argument("--store", help="the event log that the model is served with: a file or redis://...")
    refit.add_argument("--margin", type=float, default=0.02, help="share of NDCG by which the new one may be worse")
    refit.add_argument("--force", action="store_true", help="replace the model even when the new one is worse")
    refit.set_defaults(run=_refit)

    tune = commands.add_parser("tune", help="fine-tune the language model on behaviour")
    tune.add_argument("events", help="parquet, csv, tsv or jsonl file, folder or glob")
    tune.add_argument("--items", required=True, help="item texts, the same kinds of file")
    tune.add_argument("--encoder", default="minilm", help="model name or folder to begin with")
    tune.add_argument("--method", choices=("full", "lora"), default="full")
    tune.add_argument("--steps", type=int, default=300)
    tune.add_argument("--out", type=Path, required=True, help="new folder of the tuned model")
    tune.set_defaults(run=_tune)
    serve = commands.add_parser("serve", help="answer over HTTP, with a page to look inside")
    serve.add_argument("model", type=Path)
    serve.add_argument("--host", default="127.0.0.1", help="beyond loopback only with FASTREC_API_KEY set")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--workers", type=int, default=1, help="processes")
    serve.add_argument(
        "--model-process",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the model in a process of its own, which is started again when it dies",
    )
    serve.add_argument("--store", help="event store: a path or redis://...; default MODEL.events")
    serve.add_argument("--rate", type=float, help="requests a second for each key")
    serve.add_argument("--target-ms", type=float, default=100, help="longest latency that a request is let in for")
    serve.add_argument("--body-timeout", type=float, default=10, help="seconds until a body must be there")
    serve.add_argument("--max-body", type=int, default=2**21, help="bytes of a request")
    serve.add_argument("--cors", nargs="*", default=[], metavar="ORIGIN", help="origins that browsers may call from")
    serve.add_argument("--tracing", action="store_true", help="OpenTelemetry spans")
    serve.set_defaults(run=_serve)

    bench = commands.add_parser("bench", help="measure, beside the peers where asked; needs a checkout")
    parts = "encode, topk, train, live, serve, scale, quality, images, knowledge, rerank"
    bench.add_argument("parts", nargs="*", metavar="PART", help=f"all, or of {parts}")
    bench.add_argument("--peers", action="store_true", help="also the peers, in the same run")
    bench.add_argument("--peer-python", metavar="PYTHON", help="Python of an environment with more peers")
    bench.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say nothing")
    bench.add_argument("--limit", metavar="SECONDS", help="longest time of a part")
    bench.add_argument("--json", metavar="FILE", help="the figures; those of other parts stay")
    bench.add_argument("--html", metavar="FILE", help="one page with plots")
    bench.set_defaults(run=_bench)

    doctor = commands.add_parser("doctor", help="which operator runs on which backend, and why not")
    doctor.set_defaults(run=_doctor)
    return parser


def _learning(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that fit."""
    parser.add_argument("events", help="parquet, csv, tsv or jsonl file, folder or glob")
    parser.add_argument("--items", help="item texts and columns, the same kinds of file")
    parser.add_argument("--knowledge", help="triples about the items: head, relation, tail")
    parser.add_argument("--models", default="auto", help='"fast", "best", "auto" or names with commas between')
    parser.add_argument("--encoder", default="minilm", help='model name or folder, or "none"')


def _recommender(args: argparse.Namespace) -> Any:
    from fastrec.recommender import Recommender

    models = args.models if args.models in ("fast", "best", "auto") else [m.strip() for m in args.models.split(",")]
    rec = Recommender(models=models, encoder=None if args.encoder == "none" else args.encoder)
    if args.encoder not in ("none", "minilm"):
        from fastrec.encode import Encoder

        _ = Encoder(args.encoder).dimension  # a name that is none is refused although no item has a text
    return rec


def _demo(args: argparse.Namespace) -> None:
    from fastrec import demo

    demo.run(args.out)


def _fit(args: argparse.Namespace) -> None:
    knowledge = args.knowledge
    rec = _recommender(args).fit(args.events, args.items, knowledge=knowledge, goal=args.goal, strict=args.strict)
    rec.save(args.out)
    print(rec.report)
    print(f"weights: {', '.join(f'{name} {weight:.2f}' for name, weight in rec.weights.items())}")
    print(f"model written to {args.out}")


def _recommend(args: argparse.Namespace) -> None:
    parts = args.all and args.out is not None and (args.out.is_dir() or not args.out.suffix)
    if args.users_per_part is not None and not parts:
        raise ConfigError("[cli] --users-per-part needs --all and a folder for --out")
    rec = _load(args.model)
    if args.out is not None:
        _check_output(args.out, () if parts else (".parquet", ".csv"))
    if args.all and args.out is not None and args.out.suffix.lower() != ".csv":
        more = {} if args.users_per_part is None else {"users_per_part": args.users_per_part}
        counts = rec.recommend_all(args.out, args.k, **more)
        print(f"{counts['users']} users in {counts['parts']} files at {args.out}, {counts['written']} written now")
        return
    users = rec.user_ids if args.all else _ids(args.users, rec.user_ids)
    _show(rec.recommend(users, args.k), args.out)


def _similar(args: argparse.Namespace) -> None:
    rec = _load(args.model)
    _show(rec.similar_items(_ids(args.items, rec.item_ids), args.k), None)


def _evaluate(args: argparse.Namespace) -> None:
    from fastrec import evaluation, report
    from fastrec.evaluation import SPLITS

    for path in (args.json, args.html):
        if path:
            _check_output(path)
    # Only what reading gives is needed of all events: the models are fitted on the past of the split alone.
    settings = _recommender(args)._settings
    reader = argparse.Namespace(**{**vars(args), "models": "popularity"})
    rec = _recommender(reader).fit(args.events, args.items, knowledge=args.knowledge, goal=SPLITS[args.split])
    result = evaluation.evaluate(
        rec._live.state, settings, None, split=args.split, k=args.k, per_model=True, ladder=args.ladder
    )
    if args.json:
        result.to_json(args.json)
    if args.html:
        args.html.write_text(report.html(result), encoding="utf-8")
    print(result)


def _refit(args: argparse.Namespace) -> int:
    from fastrec.refit import refit

    result = refit(args.model, store=args.store, margin=args.margin, force=args.force)
    print(result)
    return 0 if result.replaced else 1


def _tune(args: argparse.Namespace) -> None:
    from fastrec import Tuning, tune

    tuning = Tuning(method=args.method, steps=args.steps)
    tune(args.events, args.items, args.out, encoder=args.encoder, tuning=tuning)
    print(f"model written to {args.out}")


def _serve(args: argparse.Namespace) -> None:
    from fastrec import serve

    settings = serve.ServeSettings.from_env(
        rate=args.rate,
        target=args.target_ms / 1000,
        max_body=args.max_body,
        body_timeout=args.body_timeout,
        cors=tuple(args.cors),
        tracing=args.tracing,
        store=args.store or f"{args.model.resolve()}.events",
    )
    serve.run(
        args.model,
        host=args.host,
        port=args.port,
        workers=args.workers,
        model_process=args.model_process,
        settings=settings,
    )


def _bench(args: argparse.Namespace) -> int:
    """The benchmarks are no part of the package: they compare with other packages and take hours."""
    words = [*args.parts, *(f"--{flag}" for flag in ("peers", "quick") if getattr(args, flag))]
    for option in ("peer_python", "limit", "json", "html"):
        if getattr(args, option) is not None:
            words.append(f"--{option.replace('_', '-')}={getattr(args, option)}")
    here = Path(__file__).resolve().parents[1]
    for root in (here, Path.cwd()):
        program = root / "benchmarks" / "run.py"
        if program.is_file():
            return subprocess.run([sys.executable, str(program), *words], check=False).returncode
    raise ConfigError(
        f"[bench] there is no benchmarks/run.py in {here} or the working directory; expected a checkout of FastRec, "
        "go to one and call it there"
    )


def _doctor(args: argparse.Namespace) -> None:
    from fastrec import doctor

    print(doctor.table())


def _load(folder: Path) -> Any:
    from fastrec.recommender import load

    return load(folder)


def _ids(texts: list[str], known: Any) -> list[Any]:
    """Command-line words as ids of the model's kind: int where the model has ints."""
    if len(known) and isinstance(known[0], int):
        for text in texts:
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise DataError(f"[cli] id {text!r} is no whole number, the ids of this model are")
        return [int(text) for text in texts]
    return texts


def _check_output(path: Path, endings: tuple[str, ...] = ()) -> None:
    """ConfigError before the work, not after it, where a result could not be written."""
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"[cli] --out {path} ends in {path.suffix!r}, expected {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise ConfigError(f"[cli] the folder of {path} does not exist")


def _show(result: Any, out: Path | None) -> None:
    table = result.to_polars()
    if out is None:
        sys.stdout.write(table.write_csv(separator="\t"))
    elif out.suffix.lower() == ".parquet":
        table.write_parquet(out)
    else:
        table.write_csv(out)


if __name__ == "__main__":
    sys.exit(main())
