"""The command line: it parses, calls the packages below, and prints."""

import inspect
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core
from typer import Argument, Option

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas import DataFrame

    from extract import Drawing, Encoder, Options, SpaceReport
    from finetune import Run
    from heads import Bundle, Entry, FeatureMatrix, Result, Stored, Sweep, Wanted
    from store import Dataset, FeatureStore, Section, SlurmJob, Split

ROWS_LEFT_OUT = 3
LEFT_OUT_KINDS = {"unreadable_image", "missing_file"}  # of `check`'s problems
ROWS_AT_ONCE = 4096
"""Rows that `predict` holds in memory."""
INTERRUPTED = 130
SAMPLE = "tem"
"""The built-in dataset that commands fall back to where there is no other."""


class _Commands(typer.core.TyperGroup):
    """What the user can repair becomes one line and exit code 2; anything else stays a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            from store import did_you_mean

            hint = did_you_mean(args[0], known) or f" There is {', '.join(known)}."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            say(str(stop) or "stopped: what was finished is kept, and the same command goes on from there")
            raise typer.Exit(getattr(stop, "status", INTERRUPTED)) from None
        except typer.BadParameter as error:
            error.message = in_words(error.message)
            raise
        except Exception as error:
            if all(
                base.__module__ != "store.errors" for base in type(error).__mro__
            ):  # by name: --help imports no store
                raise
            say(f"error: {error}")
            raise typer.Exit(2) from None


def in_words(message: str) -> str:
    """Return what typer says of a wrong value in the words used here, with the nearest right one."""
    from store import did_you_mean

    message = message.removeprefix("Value error, ")
    if message.startswith("Input should be a valid integer"):
        return "expected a whole number"
    if bound := re.fullmatch("Input should be (greater|less) than or equal to (.*)", message):
        return f"expected a number from {bound[2]} on" if bound[1] == "greater" else f"expected at most {bound[2]}"
    wrong = re.match("'([^']*)' is not one of (.*)", message)
    return message + did_you_mean(wrong[1], re.findall("'([^']*)'", wrong[2])) if wrong else message


class _SampleCommand(typer.core.TyperCommand):
    """Its help lists the samples that there are."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from store import SAMPLES

        with formatter.section("Samples"):
            formatter.write_dl([(name, f"{sample.summary}; {sample.n_rows} rows") for name, sample in SAMPLES.items()])
        super().format_epilog(ctx, formatter)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Embed every image and text once, sweep classical heads in seconds, fine-tune only when it pays.",
    epilog="Example: python cli.py demo",
)
store_app = typer.Typer(
    name="store", cls=_Commands, no_args_is_help=True, rich_markup_mode=None, help="Look into a feature store."
)
app.add_typer(store_app)

Words = list[str] | None
Text = str | None
Data = Annotated[
    Path | None,
    Option("--data", help="A dataset.toml. Default: the one in this folder, else the built-in sample 'tem'."),
]
Store = Annotated[Text, Option("--store", help="The feature store. Default: features.zarr by the dataset.")]
Tasks = Annotated[Words, Option("--task", help="A task; repeatable. Default: all.")]
Backbones = Annotated[
    Words,
    Option(
        "--backbone",
        help="An encoder; repeatable. Any timm, torchvision or transformers name, local-dir:FOLDER, texture, ngrams.",
    ),
]
Converts = Annotated[
    Words, Option("--convert", help="How 16 bits become 8, instead of the spec's way; repeatable, to compare several.")
]
Blocks = Annotated[Words, Option("--blocks", help="Such as image+metadata; repeatable. Default: all.")]
Heads = Annotated[Words, Option("--head", help="linear, lightgbm, fusion or prior; repeatable.")]
Seed = Annotated[int, Option("--seed", min=0, help="Seed of a new split and of everything else random.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Option("--device", help="Where networks run.")]
Weights = Annotated[str, Option("--weights", help="pretrained, random, or a file or folder.")]
SPACE_NAME = (
    "image:bf@texture as extract names it, image@texture or image.log@texture as store ls does, or the start of a "
    "fingerprint."
)
Json = Annotated[bool, Option("--json", help="Print one JSON document on stdout, and nothing else there.")]


@dataclass(frozen=True)
class Place:
    """Where the rows and their vectors are."""

    data: Data = None
    store: Store = None

    def open(self, **variants: Any) -> "tuple[Dataset, FeatureStore]":
        """Load the dataset, with its images seen as the options of `with_variants` say, and its feature store."""
        from store import FeatureStore, load_dataset, with_variants

        given = {name: value for name, value in variants.items() if value is not None}
        self._refuse_memory()
        dataset = with_variants(load_dataset(find_spec(self.data)), **given)
        return dataset, FeatureStore(self.store or dataset.folder / "features.zarr")

    def _refuse_memory(self) -> None:
        """A store in memory would end with the command, and nothing that was embedded would be kept."""
        from store import InputError

        if self.store is not None and "memory://" in self.store:
            remedy = "give a folder, or a URL such as s3://bucket/features.zarr"
            raise InputError(
                f"--store {self.store}: memory ends with the command, and all its vectors with it; {remedy}"
            )

    def open_store(self) -> "FeatureStore":
        """Open the feature store alone, which needs no table and no images."""
        from store import FeatureStore, InputError

        if self.store is None and self.data is not None and not self.data.exists():
            raise InputError(f"{self.data}: there is no such file or folder; give --data a dataset.toml, or --store")
        return FeatureStore(self.store or find_spec(self.data).parent / "features.zarr")

    def open_filled_store(self) -> "FeatureStore":
        """Open a feature store to look into; one without any space is a mistyped name."""
        from store import InputError

        features = self.open_store()
        say_lost(features)
        if not features.spaces():
            remedy = "run store repair" if features.lost() else "correct --store, or run extract first"
            raise InputError(f"{features.url}: holds no {'sound ' * bool(features.lost())}feature space; {remedy}")
        return features


@dataclass(frozen=True)
class Seen:
    """How images are seen; given by --convert, --view and the like, for a quick comparison."""

    converts: Converts = None
    views: Annotated[
        Words, Option("--view", help="plain, fourier, or a perturbation such as gaussian_noise:0.1; repeatable.")
    ] = None
    tiles: Annotated[Text, Option("--tiles", help="Cut images into rows x columns, such as 2x2.")] = None
    tile_px: Annotated[int | None, Option("--tile-px", help="Cut images into squares of this side instead.")] = None
    pool: Annotated[Literal["mean", "max"] | None, Option("--pool", help="How tiles become one vector.")] = None
    turns: Annotated[
        Literal["none", "flips", "d4"] | None,
        Option("--turns", help="Average over mirrored images (flips), or over quarter turns too (d4)."),
    ] = None


@dataclass(frozen=True)
class Tried:
    """What heads are fitted on."""

    tasks: Tasks = None
    backbones: Backbones = None
    blocks: Blocks = None
    heads: Heads = None
    seed: Seed = 0

    @property
    def linear(self) -> dict[str, Any]:
        """What `make_sweep` takes, with the linear head alone where none is named."""
        return asdict(self) | {"heads": self.heads or ["linear"]}


@dataclass(frozen=True)
class Kept:
    """Which stored results are meant."""

    data: Data = None
    tasks: Tasks = None
    backbones: Backbones = None
    blocks: Blocks = None
    heads: Heads = None

    def open(self) -> "tuple[Stored, Sequence[str], Wanted]":
        """Open the results beside the dataset; return them, the tasks, and what is wanted."""
        from extract import folder_fingerprints
        from heads import Wanted, open_results
        from store import load_dataset

        dataset = load_dataset(find_spec(self.data))
        names = self.backbones or []
        wanted = Wanted(names, self.blocks or [], self.heads or [], folder_fingerprints(names, dataset))
        return open_results(dataset), self.tasks or [], wanted


@dataclass(frozen=True)
class Changed:
    """What of [finetune] is given on the command line."""

    assignments: Annotated[
        Words, Option("--set", metavar="KEY=VALUE", help="A key of [finetune]: lr=1e-4; repeatable.")
    ] = None
    backbones: Backbones = None
    preset: Annotated[Text, Option(help="A study's network: tem, cells, powder, reflectance or garbage.")] = None
    init: Annotated[
        Literal["heads", "backbone"] | None, Option(help="Where task heads begin. Default: heads, if linear.")
    ] = None
    weights: Annotated[Text, Option(help="pretrained, random, or a file or folder.")] = None


@dataclass(frozen=True)
class Part:
    """How much of the data is fitted and scored."""

    folds: Annotated[Literal["one", "all"], Option(help="Fit and score one outer fold, or each.")] = "one"
    subset: Annotated[int | None, Option(help="This many rows, for a quick look.")] = None
    final: Annotated[bool, Option("--final", help="Score the held-out rows (test) once, fitted on all others.")] = False

    @property
    def fold(self) -> int | None:
        """The outer fold that is scored; None for each."""
        return 0 if self.folds == "one" else None


@dataclass(frozen=True)
class Asked:
    """What SLURM is asked for."""

    partition: Annotated[Text, Option(help="SLURM's partition.")] = None
    time: Annotated[Text, Option(help="SLURM's time limit, such as 02:00:00.")] = None
    cpus: Annotated[int | None, Option(min=1, help="Cores of a job, and its threads.")] = None
    gpus: Annotated[int, Option(min=0, help="GPUs of a job; finetune runs a process on each.")] = 0
    memory: Annotated[Text, Option(help="Memory of a job, such as 16G.")] = None
    extra: Annotated[Words, Option("--sbatch", help="Passed on, such as --account=x.")] = None


@dataclass(frozen=True)
class Shown:
    """What a command prints: a document for machines, tables and lines for people; and whether rows were left out."""

    document: dict[str, Any]
    sections: "Sequence[Section | str]" = ()
    left_out: object = False


def command(example: str, group: typer.Typer = app, **how: Any) -> "Callable[[Callable[..., Any]], Callable[..., Any]]":
    """Register a command under its own name, its help ending with an example.

    A dataclass of options is taken as one argument: each of its fields becomes an option of its own. One that returns
    what it shows has --json.
    """

    def register(body: "Callable[..., Any]") -> "Callable[..., Any]":
        name = body.__name__.removeprefix(f"{group.info.name}_")
        group.command(name, epilog=f"Example: python cli.py {example}", **how)(_flat(body))
        return body

    return register


def _flat(body: "Callable[..., Any]") -> "Callable[..., None]":
    """Return what typer calls: it takes every option by name, and prints."""
    own = inspect.signature(body).parameters.values()
    groups: dict[str, Any] = {one.name: one.annotation for one in own if is_dataclass(one.annotation)}
    fields = {name: inspect.signature(group).parameters for name, group in groups.items()}

    @wraps(body)
    def called(as_json: bool = False, **given: Any) -> None:
        made = {name: group(**{key: given.pop(key) for key in fields[name]}) for name, group in groups.items()}
        shown = body(**given, **made)
        if shown is not None:
            show(shown, as_json=as_json)

    flat = [field for one in own for field in fields.get(one.name, {one.name: one}).values()]
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in flat]
    if inspect.signature(body).return_annotation is Shown:
        options.append(inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json))
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in options}
    return called


def say(*lines: str) -> None:
    """Print lines of progress or warning on stderr."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def show(shown: Shown, *, as_json: bool) -> None:
    """Print one JSON document, or tables with the lines under them; the exit code says whether rows were left out."""
    if as_json:
        print(json.dumps(shown.document, indent=2, allow_nan=False))
    else:
        show_report(shown.sections)
    raise typer.Exit(ROWS_LEFT_OUT if shown.left_out else 0)


def show_table(section: "Section") -> None:
    """Print a table on stdout; one-line rows where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*section.columns, title=section.title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in section.rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to wrap at
    console.print(table)


def show_report(sections: "Sequence[Section | str]") -> None:
    """Print tables with the lines under them; packages make them (`heads/report.py`), only this prints them."""
    for section in sections:
        if not isinstance(section, str) and section.columns:
            show_table(section)
        for line in [section] if isinstance(section, str) else section.lines:
            print(line)


@contextmanager
def progress(what: str) -> Iterator["Callable[[int, int], None]"]:
    """Yield a callback ``(done, total)`` that draws a bar on stderr, or nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def find_spec(data: Path | None) -> Path:
    """Return the dataset.toml to use; without one, write the built-in sample and say so."""
    if data is not None:
        return data / "dataset.toml" if data.is_dir() else data
    if (found := Path("dataset.toml")).exists():
        return found
    if not (found := Path(SAMPLE, "dataset.toml")).exists():
        say(f"no --data and no dataset.toml here: making the built-in sample in ./{SAMPLE}")
        write(SAMPLE, Path(SAMPLE))
    else:
        say(f"no --data and no dataset.toml here: using the built-in sample in ./{SAMPLE}")
    return found


def write(name: str, folder: Path, n_rows: int | None = None, seed: int = 0) -> Path:
    """Write a built-in sample with a progress bar and return its dataset.toml."""
    from store import write_sample

    with progress(f"drawing {name}") as update:
        return write_sample(name, folder, n_rows=n_rows, seed=seed, progress=update)


def embed(
    dataset: "Dataset", features: "FeatureStore", backbones: Sequence[str] | None, options: "Options", **how: Any
) -> "list[SpaceReport]":
    """Extract with the named encoders, or the built-in ones; warnings go to stderr."""
    from extract import make_encoders

    encoders, warnings = make_encoders(backbones or list(dict.fromkeys(built_in(dataset).values())), dataset, options)
    say(*(f"warning: {warning}" for warning in warnings))
    return embed_with(encoders, dataset, features, **how)


def built_in(dataset: "Dataset") -> dict[str, str]:
    """Return the built-in encoder of each block, which needs no weights."""
    from store import block_names

    return {name: "texture" if name.startswith("image:") else "ngrams" for name in block_names(dataset)}


def embed_with(
    encoders: "Mapping[str, Sequence[Encoder]]", dataset: "Dataset", features: "FeatureStore", **how: Any
) -> "list[SpaceReport]":
    """Extract with encoders by block."""
    from extract import extract_features

    with progress("embedding") as update:
        reports = extract_features(dataset, encoders, features, progress=update, **how)
    say_reports(reports)
    return reports


def say_lost(features: "FeatureStore") -> None:
    """Name the spaces that cannot say what they are, and are left out, on stderr."""
    for folder in features.lost():
        say(f"warning: the space {folder} has no sound description and is left out; run store repair")


def say_reports(reports: "Sequence[SpaceReport]") -> None:
    """Print the closing line of each space, and what failed in it, on stderr."""
    from extract import closing_lines

    say(*(line for report in reports for line in closing_lines(report)))


def say_speed(n_rows: int, seconds: float, *, device: Literal["auto", "cpu", "cuda"]) -> dict[str, float]:
    """Print how fast rows went from their files to their predictions on stderr, and return it for the document."""
    from extract import resolve_device
    from store import counted

    rate = n_rows / seconds
    speed = f"{rate:.{0 if rate >= 10 else 1}f} rows/s"
    say(f"{counted(n_rows, 'row')} in {seconds:.1f} s, {speed} on {resolve_device(device)}")
    return {"seconds": round(seconds, 3), "rows_per_second": round(rate, 1)}


def make_sweep(dataset: "Dataset", features: "FeatureStore", *, folds: int | None = None, **what: Any) -> "Sweep":
    """Put a dataset's stored features, its split and what shall be tried together."""
    from heads import open_rows

    chosen = {name: value for name, value in what.items() if value is not None}
    asked = {name: chosen[name] for name in ("tasks", "heads", "seed") if name in chosen}
    dataset, split = open_rows(dataset, folds=folds, **asked)
    return sweep_rows(dataset, split, features, **chosen)


def sweep_rows(
    dataset: "Dataset",
    split: "Split",
    features: "FeatureStore",
    *,
    backbones: Sequence[str] | None = None,
    needed: "Sequence[tuple[str, Options]]" = (),
    **what: Any,
) -> "Sweep":
    """Read the vectors of these rows, embedding first by what encoders are `needed`; say what is odd about them."""
    from extract import Options, folder_digests
    from heads import Sweep, check_combinations, load_matrix, sweep_warnings

    say_lost(features)
    if not features.spaces() and (dataset.images or dataset.texts):
        check_combinations(dataset, built_in(dataset), what.get("blocks", ()))  # a mistyped one costs no embedding
        say("nothing is embedded yet: using the built-in encoders")
        embed(dataset, features, None, Options())
    for name, options in needed:
        embed(dataset, features, [name], options)
    matrix = load_matrix(dataset, features, backbones=backbones, digests=folder_digests(backbones or []))
    sweep = Sweep(dataset, matrix, split, **what)
    say(*(f"warning: {line}" for line in sweep_warnings(sweep)))
    return sweep


def embed_more(sweep: "Sweep", features: "FeatureStore", source: Path, options: "Options") -> "FeatureMatrix":
    """Embed rows that the dataset does not have as its own are embedded, and return their matrix."""
    from extract import encoders_from_spaces
    from heads import load_matrix_like, needed_spec
    from store import prediction_dataset

    matrix = sweep.matrix
    dataset = prediction_dataset(needed_spec(sweep.dataset, set(matrix.blocks)), source)
    embed_with(encoders_from_spaces(matrix.spaces, matrix.provenance, options), dataset, features)
    return load_matrix_like(dataset, features, spaces=matrix.spaces, columns=matrix.columns)


def fit(sweep: "Sweep", *, final: bool = False, jobs: int = 1) -> "list[Entry]":
    """Fit and score everything with a bar on stderr."""
    from heads import run_sweep

    with progress("fitting heads") as update:
        return run_sweep(sweep, final=final, n_jobs=jobs, progress=update)


def write_report(dataset: "Dataset", result: "Result", folder: Path) -> dict[str, Any]:
    """Write the rows, the chart and the sheet of pictures of one result, and return what they say."""
    from extract import draw_rows
    from heads import row_captions, write_errors

    document = write_errors(result, dataset, folder)
    sheet = draw_rows(folder / f"{document['task']}-{document['split']}-sheet.png", dataset, row_captions(document))
    return document | {"files": document["files"] | ({"sheet": str(sheet)} if sheet else {})}


def train(run: "Run", *, final: bool) -> dict[str, Any]:
    """Train with a bar on stderr, or a line per epoch where stderr is no terminal."""
    from finetune import Listener

    with progress("fine-tuning") as update:
        lines = {} if sys.stderr.isatty() else {"each_epoch": say}
        return replace(run, listener=Listener(progress=update, say=say, **lines)).run(final=final)


def predict_files(
    folder: Path,
    source: Path,
    out: Path,
    *,
    store_url: str | None,
    options: "Options",
    drawing: "Drawing | None" = None,
) -> tuple[int, int]:
    """Embed what is new and predict it part by part; return the number of rows and of those without a prediction."""
    from extract import encoders_from_spaces, total_reports
    from heads import bundle_kind, load_bundle, prediction_words, store_beside, write_predictions
    from store import prediction_dataset

    if bundle_kind(folder) == "finetune":
        from finetune import predict_source

        how: dict[str, Any] = {"rows_at_once": ROWS_AT_ONCE, "options": options, "drawing": drawing}
        with progress("predicting") as update:
            return predict_source(folder, source, out, progress=update, **how)
    bundle = load_bundle(folder)
    dataset = prediction_dataset(bundle.spec, source)
    store = store_beside(folder, out, store_url)
    encoders = encoders_from_spaces(bundle.spaces, bundle.provenance, options)
    done: list[tuple[list[SpaceReport], int]] = []
    tables = predict_parts(bundle, dataset, store, encoders, done)
    if drawing is not None:
        tables = drawing.draw(tables, dataset, partial(prediction_words, bundle))
    write_predictions(tables, out)
    say_reports(total_reports(reports for reports, _ in done))
    return dataset.n_rows, sum(n_failed for _, n_failed in done)


def predict_parts(
    bundle: "Bundle",
    dataset: "Dataset",
    store: "FeatureStore",
    encoders: "dict[str, list[Encoder]]",
    done: "list[tuple[list[SpaceReport], int]]",
) -> "Iterator[DataFrame]":
    """Yield the predictions of ROWS_AT_ONCE rows after the other; note reports and rows without a vector in `done`."""
    from extract import extract_features, row_status

    with progress("embedding and predicting") as update:
        for part, advance in dataset.parts_of_progress(ROWS_AT_ONCE, update):
            reports = extract_features(part, encoders, store, progress=advance)
            matrix = bundle.load_matrix(part, store)
            done.append((reports, int((~matrix.complete).sum())))
            yield bundle.predict(matrix).assign(status=row_status(part, reports, matrix.complete))


def parse_words(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Return what a command would make of these words; what it would not take, it refuses here."""
    group: Any = typer.main.get_command(app)
    name = f"{Path(__file__).name} {command}"  # as its help is asked for
    found: dict[str, Any] = group.commands[command].make_context(name, list(words)).params
    return found


def check_words(command: str, words: Sequence[str], dataset: "Dataset") -> None:
    """Refuse words that a job would refuse: options, names, how images are seen, settings of fine-tuning."""
    given = {name: value for name, value in parse_words(command, words).items() if value is not None}
    if command == "finetune":
        from finetune import check_choice, choose_settings

        settings, _ = choose_settings(dataset, device="cpu", **fields_of(Changed, given))
        check_choice(dataset, settings, given.get("task", ()))
    else:
        check_blocks(command, given, dataset)


def check_blocks(command: str, given: Mapping[str, Any], dataset: "Dataset") -> None:
    """Refuse variants, shards, heads and backbones that `extract` or `heads` would refuse; nothing is loaded."""
    from extract import Shard, fitting_blocks
    from heads import HEADS, check_names
    from store import FeatureStore, with_variants

    with_variants(dataset, **fields_of(Seen, given))
    if "shard" in given:
        Shard.parse(given["shard"])
    check_names("head", given.get("heads", ()), HEADS)
    names = given.get("backbone", given.get("backbones", ()))
    spaces = FeatureStore(given.get("store", dataset.folder / "features.zarr")).spaces() if command == "heads" else []
    for name in {*names} - {space.encoder for space in spaces}:
        fitting_blocks(name, dataset)


def fields_of(group: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a command's words a dataclass of options holds."""
    return {name: given[name] for name in inspect.signature(group).parameters if name in given}


def write_job(
    path: Path, job: "SlurmJob", words: Sequence[str], *, tasks: Sequence[str], n_jobs: int | None, grid: Sequence[str]
) -> int:
    """Write a SLURM script once its words are known to be right; return the number of jobs in it."""
    from heads import check_names
    from store import array_words, batch_script, load_dataset, write_script

    of_tasks = [word for task in tasks for word in ("--task", task)]
    params = parse_words(job.command, [*words, *of_tasks])
    dataset = load_dataset(find_spec(params.get("data")))
    check_names("task", tasks, dataset.tasks)
    parts = array_words(job.command, n_jobs, tasks=tasks or list(dataset.tasks), grid=grid, params=params)
    words = words if parts and job.command == "heads" else [*words, *of_tasks]
    for own in parts or [[]]:
        check_words(job.command, [*words, *own], dataset)
    program = [sys.executable, str(Path(__file__).resolve()), job.command, *words]
    write_script(path, batch_script(job, program, parts))
    return max(1, len(parts))


@command("sample tem", cls=_SampleCommand)
def sample(
    name: Annotated[str, Argument(help="Which built-in sample.")],
    folder: Annotated[Path | None, Argument(help="Where to write it. Default: a folder of its name.")] = None,
    rows: Annotated[int | None, Option(help="How many rows. Default: the sample's own number.")] = None,
    seed: Seed = 0,
) -> None:
    """Write a built-in dataset: synthetic images from a physical model, with a table and a dataset.toml."""
    print(write(name, folder or Path(name), rows, seed))


@command("check --data tem/dataset.toml")
def check(data: Data = None) -> Shown:
    """Count rows, labels and problems: unreadable files, duplicates, leaks, rare classes."""
    from extract import probe_images
    from store import check_dataset, check_report, load_dataset, open_split, problem_rows

    dataset = load_dataset(find_spec(data))
    with progress("reading images") as update:
        unreadable = probe_images(dataset, progress=update)
    problems = problem_rows(check_dataset(dataset, open_split(dataset, keep=False)), unreadable)
    document = {"rows": dataset.n_rows, "problems": problems}
    left_out = [problem for problem in problems if problem["kind"] in LEFT_OUT_KINDS]
    return Shown(document, check_report(dataset, problems), left_out=left_out)


@command("explore --data tem/dataset.toml")
def explore(
    data: Data = None,
    out: Annotated[Path | None, Option(help="A folder for the pictures. Default: runs/explore by the dataset.")] = None,
    rows: Annotated[int, Option(min=1, help="Images are read of so many rows at most.")] = 2000,
    seed: Seed = 0,
) -> Shown:
    """Report on labels, metadata and pixels before any model, as tables and as pictures."""
    from extract import describe_images, draw_examples, images_report, look_at_images
    from heads import draw_exploration, run_folder
    from store import distribution_report, distributions, load_dataset, open_split

    dataset = load_dataset(find_spec(data))
    found = distributions(dataset, open_split(dataset, seed=seed, keep=False))
    with progress("reading images") as update:
        looks = look_at_images(dataset, n_rows=rows, seed=seed, progress=update)
    document = found | describe_images(dataset, looks)
    folder = out or run_folder(dataset, "explore")
    document["pictures"] = draw_exploration(document, folder, examples=partial(draw_examples, dataset, looks))
    say(f"pictures: {', '.join(document['pictures'].values()) or 'none'}")
    sections = [*distribution_report(found), *images_report(document)]
    return Shown(document, sections, left_out=bool(document["unreadable"]))


@command("extract --backbone efficientnet_b0")
def extract(
    place: Place,
    seen: Seen,
    backbone: Backbones = None,
    weights: Weights = "pretrained",
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Option("--precision", help="Of the forward pass. Lower is faster, and another feature space."),
    ] = "float32",
    dtype: Annotated[
        Literal["float32", "float16"], Option("--dtype", help="What the vectors are stored in.")
    ] = "float32",
    batch_size: Annotated[int | None, Option(min=1, help="Rows per forward pass.")] = None,
    is_compiled: Annotated[
        bool, Option("--compile", help="Let torch compile the network: for long runs on a GPU.")
    ] = False,
    retry: Annotated[bool, Option("--retry", help="Try files again that failed before.")] = False,
    shard: Annotated[
        Text,
        Option(
            "--shard",
            metavar="I/N",
            help="Only the I-th of N parts, told apart by content: each process reads all files, to hash them.",
        ),
    ] = None,
) -> Shown:
    """Embed every image and text that the feature store lacks, each once."""
    from extract import Options, Shard, spaces_report

    part = Shard.parse(shard) if shard else None
    dataset, features = place.open(**asdict(seen))
    is_sample = dataset.spec.sample is not None
    how: dict[str, Any] = {"precision": precision, "dtype": dtype, "is_compiled": is_compiled}
    options = Options(weights, seed, device, fallback_random=is_sample, is_postponed=True, **how)
    reports = embed(dataset, features, backbone, options, batch_size=batch_size, retry=retry, shard=part)
    return Shown(
        {"spaces": [asdict(report) for report in reports]},
        spaces_report(reports),
        left_out=any(report.failed for report in reports),
    )


@command("heads --task morphology")
def heads(
    place: Place,
    tried: Tried,
    seen: Seen,
    folds: Annotated[int | None, Option(help="Outer folds of a new split. Default: 5.")] = None,
    save: Annotated[bool, Option("--save", help="Refit the best heads and write a bundle for predict.")] = False,
    name: Annotated[str, Option(help="The bundle's folder in runs/.")] = "heads",
    final: Annotated[bool, Option("--final", help="Score the best heads once on the held-out rows (test).")] = False,
    jobs: Annotated[int, Option(min=1, help="Processes that fit at the same time.")] = 1,
) -> Shown:
    """Sweep heads over the stored features and metadata: which blocks earn their place?"""
    from heads import bundle_folder, entries_report, evaluate, save_bundle, save_chart, save_warnings

    sweep = make_sweep(*place.open(**asdict(seen)), **asdict(tried), folds=folds)
    folder = bundle_folder(sweep, name) if save else None
    entries = fit(sweep, final=final, jobs=jobs)
    document = {"entries": entries, **evaluate(sweep, entries), "chart": str(save_chart(sweep, entries))}
    say(f"chart: {document['chart']}")
    if folder is not None:
        document["bundle"] = str(save_bundle(sweep, entries, folder))
        say(*(f"warning: {line}" for line in save_warnings(entries)))
        say(f"bundle: {document['bundle']}")
    return Shown(document, entries_report(entries, document), left_out=not sweep.matrix.complete.all())


@command("report --task morphology")
def report(
    kept: Kept, out: Annotated[Path | None, Option(help="A folder. Default: runs/report by the dataset.")] = None
) -> Shown:
    """Show where the best stored result of each task errs, by class or output and row by row; nothing is fitted."""
    from heads import errors_report, run_folder

    stored, tasks, wanted = kept.open()
    results, missing = stored.best(tasks, wanted)
    folder = out or run_folder(stored.dataset, "report")
    reports = [write_report(stored.dataset, result, folder) for result in results]
    is_partial = any(one["n_left_out"] for one in reports)
    return Shown({"reports": reports, "missing": missing}, errors_report(reports, missing), is_partial)


@command("leaderboard --head finetune")
def leaderboard(kept: Kept) -> Shown:
    """Rank the stored results of each task, such as the runs of a grid, beside the best; nothing is fitted."""
    from heads import standings, standings_report

    rows = standings(*kept.open())
    return Shown({"entries": rows}, standings_report(rows))


@command("audit --task morphology")
def audit(
    place: Place,
    task: Tasks = None,
    backbone: Backbones = None,
    blocks: Blocks = None,
    merge: Annotated[
        bool, Option("--merge", help="Put duplicates into one group and write splits.json anew, for all commands.")
    ] = False,
    seed: Seed = 0,
) -> Shown:
    """Look for leaks and wrong labels: duplicates across folds and groups, and labels that models doubt.

    Models are linear heads fitted on other rows; labels are listed by how improbable they are to the best of them.
    """
    from heads import audit_labels, audit_leaks, audit_report, folded, merge_duplicates, open_runs

    dataset, features = place.open()
    what = Tried(task, backbone, blocks, seed=seed).linear
    sweep = make_sweep(dataset, features, **what)
    document = audit_leaks(sweep.dataset, sweep.matrix, sweep.split) | ({"merged": []} if merge else {})
    if merge and document["duplicates"]:
        document["merged"] = merge_duplicates(dataset, document["duplicates"])
        say(f"{dataset.folder / 'splits.json'}: made anew; its scores are not comparable with the old")
        sweep = make_sweep(dataset, features, **what)
    sweep = folded(sweep)
    document["labels"] = audit_labels(sweep, fit(sweep), open_runs(sweep.dataset)[1])
    return Shown(document, audit_report(document))


@command("curve --task morphology --unlabelled tem/unlabelled")
def curve(
    place: Place,
    tried: Tried,
    unlabelled: Annotated[
        Path | None, Option(help="A folder, or a table, of images without labels to learn from.")
    ] = None,
    weights: Weights = "pretrained",
    device: Device = "auto",
) -> Shown:
    """Score against the number of labelled rows: would more labels help, or rows without any?"""
    from extract import Options
    from heads import curve_report, learning_curves

    dataset, features = place.open()
    sweep = make_sweep(dataset, features, **tried.linear)
    more = None if unlabelled is None else embed_more(sweep, features, unlabelled, Options(weights, device=device))
    curves = learning_curves(sweep, fit(sweep), more=more)
    return Shown({"curves": curves}, curve_report(curves), left_out=more is not None and not more.complete.all())


@command("transfer --leave-one-group-out --task morphology")
def transfer(
    place: Place,
    tried: Tried,
    hold_out: Annotated[Words, Option(help="COLUMN=VALUE that no model sees; repeatable.")] = None,
    leave_one_group_out: Annotated[
        bool, Option("--leave-one-group-out", help="Each group in turn is never seen. Default without --hold-out.")
    ] = False,
) -> Shown:
    """Score on what was never seen: each group in turn, or with --hold-out such as another instrument."""
    from heads import held_out_groups, held_out_values, open_runs, transfer_report
    from heads import transfer as score_transfer

    dataset, features = place.open()
    held = held_out_values(dataset, hold_out or [])
    sweep = make_sweep(dataset, features, **tried.linear)
    if leave_one_group_out or not held:
        held |= held_out_groups(sweep.dataset, sweep.split)
    entries = score_transfer(sweep, held, *open_runs(sweep.dataset))
    return Shown({"entries": entries}, transfer_report(entries))


@command("robustness --task morphology")
def robustness(
    place: Place,
    tried: Tried,
    view: Annotated[Words, Option(help="A perturbation, or one strength: blur, blur:2; repeatable.")] = None,
    weights: Weights = "pretrained",
    device: Device = "auto",
) -> Shown:
    """Fitted on clean images, scored on disturbed ones: noise, blur, gamma, compression."""
    from extract import Options, encoders_like
    from heads import check_plain, disturbed, draw_robustness, open_runs, robustness_report, run_folder
    from heads import robustness as score_robustness
    from store import perturbation_views, with_variants

    views = perturbation_views(view or [])
    dataset, features = place.open()
    sweep = make_sweep(dataset, features, **tried.linear)
    check_plain(sweep)
    variants = with_variants(dataset, views=views)
    options = Options(weights, device=device)
    embed_with(encoders_like(variants, sweep.matrix.spaces, sweep.matrix.provenance, options), variants, features)
    entries = fit(sweep)
    found = score_robustness(sweep, entries, open_runs(sweep.dataset)[1], disturbed(sweep, features, views))
    chart = run_folder(dataset, "robustness.png")
    draw_robustness(found, chart, unit_of=dataset.spec.unit_of)
    say(f"chart: {chart}")
    return Shown({"robustness": found, "chart": str(chart)}, robustness_report(found))


@command("conversions --task morphology")
def conversions(
    place: Place,
    task: Tasks = None,
    backbone: Backbones = None,
    head: Heads = None,
    convert: Converts = None,
    weights: Weights = "pretrained",
    seed: Seed = 0,
    device: Device = "auto",
) -> Shown:
    """Every conversion of 16 bits to 8 with every stored encoder: which serves best, and is it more than chance?"""
    from extract import Options, deep_blocks, encoders_like
    from heads import chosen_conversions, compare_conversions, conversions_report, each_alone, mean_ranks, open_runs
    from store import with_variants

    dataset, features = place.open()
    tried = Tried(task, backbone, heads=head, seed=seed).linear
    matrix, deep = make_sweep(dataset, features, **tried).matrix, deep_blocks(dataset)
    variants = with_variants(dataset, converts=chosen_conversions(dataset, deep, convert or []))
    spaces = {name: space for name, space in matrix.spaces.items() if name.partition("@")[0] in deep}
    encoders = encoders_like(variants, spaces, matrix.provenance, Options(weights, device=device))
    embed_with(encoders, variants, features)
    sweep = each_alone(make_sweep(variants, features, **tried), encoders)
    rows = compare_conversions(fit(sweep), open_runs(sweep.dataset)[1], dataset=dataset, variants=variants)
    ranks = mean_ranks(rows)
    return Shown({"conversions": rows, "ranks": ranks}, conversions_report(rows, ranks))


@command("predict tem/runs/heads tem/unlabelled")
def predict(
    bundle: Annotated[Path, Argument(help="A bundle's folder, made by heads --save or finetune.")],
    source: Annotated[Path, Argument(help="A folder of images, or a table like the training table.")],
    out: Annotated[Path, Option(help="Where to write the predictions, csv.")] = Path("predictions.csv"),
    draw: Annotated[
        Path | None, Option(help="A folder for copies of the images with their predictions written below.")
    ] = None,
    store: Store = None,
    weights: Weights = "pretrained",
    device: Device = "auto",
) -> Shown:
    """Predict labels and probabilities for new files, embedding what is new."""
    from extract import Drawing, Options
    from heads import predictions_report

    options, drawing = Options(weights=weights, device=device), None if draw is None else Drawing(draw, source)
    started = time.perf_counter()
    n_rows, n_failed = predict_files(bundle, source, out, store_url=store, options=options, drawing=drawing)
    speed = say_speed(n_rows, time.perf_counter() - started, device=device)
    drawn = {} if drawing is None else {"drawn": drawing.document()}
    document = {"rows": n_rows, "failed": n_failed, "out": str(out), **speed, **drawn}
    return Shown(document, predictions_report(document), left_out=n_failed or (drawing and drawing.left_out))


@command("explain tem/runs/heads tem/unlabelled --rows 4")
def explain(
    bundle: Annotated[Path, Argument(help="A bundle's folder, made by heads --save or finetune.")],
    source: Annotated[Path, Argument(help="A folder of images, or a table like the training table.")],
    out: Annotated[Path, Option(help="A folder for the pictures.")] = Path("explain"),
    rows: Annotated[int, Option(min=1, help="How many rows, from the first on.")] = 8,
    data: Annotated[
        Path | None, Option(help="What the bundle was made from. Default: the dataset it lies beside.")
    ] = None,
    store: Store = None,
    weights: Weights = "pretrained",
    device: Device = "auto",
) -> Shown:
    """Show what predictions look at: heat maps, the training rows they resemble, and what each block is worth."""
    from extract import Options
    from finetune import explain_files, explain_report
    from heads import store_beside, training_of

    options, features = Options(weights=weights, device=device), store_beside(bundle, out, store)
    training = training_of(bundle, find_spec(data) if data else None)
    if training is None:
        say("no dataset beside the bundle: no training rows to compare with (give --data)")
    how: dict[str, Any] = {"training": training, "store": features, "options": options}
    with progress("explaining") as update:
        document = explain_files(bundle, source, out, n_rows=rows, progress=update, **how)
    is_partial = any(row["status"] != "ok" for row in document["rows"])
    return Shown(document, explain_report(document), left_out=is_partial)


@command("store ls", store_app)
def store_ls(place: Place) -> Shown:
    """List the feature spaces."""
    from store import store_report

    features = place.open_filled_store()
    rows = [features.info(space) for space in features.spaces()]
    return Shown({"spaces": rows}, store_report(rows))


@command("store info image@texture", store_app)
def store_info(
    place: Place, name: Annotated[str, Argument(metavar="SPACE", help=f"What to show: {SPACE_NAME}")]
) -> Shown:
    """Show all that decides a space's vectors, and where they came from."""
    from store import Section

    features = place.open_filled_store()
    space = features.find(name)
    document = features.info(space) | {"space": json.loads(space.to_json())}
    cells = [[key, json.dumps(value)] for key, value in document.items()]
    return Shown(document, [Section(space.name, ["key", "value"], cells)])


@command("store verify", store_app)
def store_verify(place: Place) -> Shown:
    """Read every chunk and name the damaged ones."""
    from store import damage_report

    damage = place.open_store().verify()
    if not damage:
        place.open_filled_store()
    sections = damage_report(damage, "store repair mends that")
    return Shown({"ok": not damage, "damaged": damage}, sections, left_out=damage)


@command("store repair", store_app)
def store_repair(place: Place) -> Shown:
    """Drop exactly the damaged chunks, which the next extract fills; write damaged descriptions again."""
    from store import damage_report

    damage = place.open_store().repair()
    if not damage:
        place.open_filled_store()
    sections = damage_report(damage, "the next extract brings back what was dropped")
    return Shown({"ok": not damage, "damaged": damage}, sections, left_out=damage)


@command("store gc --drop image@texture", store_app)
def store_gc(place: Place, drop: Annotated[Words, Option(help=f"To delete: {SPACE_NAME} Repeatable.")] = None) -> Shown:
    """Delete what killed writers left behind, and spaces by name."""
    from store import counted

    features = place.open_store()
    say_lost(features)
    document = features.gc(drop=drop or [])
    deleted = f"{counted(len(document['dropped']), 'space')} and {counted(len(document['files']), 'leftover file')}"
    return Shown(document, [f"{deleted} deleted, {document['bytes']} bytes freed"])


@command("store export image:bf@texture --out bf.npz", store_app)
def store_export(
    place: Place,
    out: Annotated[Path, Option(help="The file to write: .npz, .parquet, .csv or .h5ad.")],
    name: Annotated[Text, Argument(metavar="SPACE", help=f"What to write: {SPACE_NAME}")] = None,
    space: Annotated[Text, Option(hidden=True, help="SPACE, for scripts that say so.")] = None,
    to: Annotated[Text, Option(help="npz, parquet, csv or anndata. Default: as --out ends.")] = None,
) -> Shown:
    """Write ids, keys and vectors for other tools, rows in dataset order."""
    from store import InputError, counted, export_block

    if (wanted := name or space) is None:
        raise InputError("say which space to write, such as image:bf@texture; store ls lists them")
    dataset, features = place.open()
    say_lost(features)
    document = export_block(dataset, features, wanted, to=to, out=out)
    n_lacking = len(document["left_out"])
    line = f"{out}: {counted(document['rows'], 'row')} of {document['name']}, {n_lacking} without a vector"
    return Shown(document, [line], left_out=n_lacking > 0)


@command("store import bf.npz", store_app)
def store_import(
    place: Place,
    file: Annotated[Path, Argument(help="A .npz or .parquet with keys and X, as store export writes it.")],
    space: Annotated[Text, Option(help=f"For a file that does not say: {SPACE_NAME}")] = None,
) -> Shown:
    """Store the vectors of a file; one that contradicts what is there already is refused."""
    from store import counted, import_vectors

    features = place.open_store()
    done = import_vectors(features, file, space=features.find(space) if space else None)
    vectors = f"{counted(done['rows'], 'vector')} stored in {done['name']} ({done['fingerprint'][:12]})"
    line = f"{vectors}, {done['present']} there already"
    repeated = f", {done['repeated']} repeated in the file" if done["repeated"] else ""
    return Shown(done, [line + repeated])


@command("slurm extract --backbone texture --array 8 --submit", context_settings={"ignore_unknown_options": True})
def slurm(
    command: Annotated[Literal["extract", "heads", "finetune"], Argument(help="What SLURM is to run.")],
    asked: Asked,
    words: Annotated[Words, Argument(help="The command's own options, such as --backbone x.")] = None,
    task: Tasks = None,
    array: Annotated[int | None, Option(min=1, help="Jobs: extract does a shard in each, heads a task.")] = None,
    grid: Annotated[Words, Option(help="For finetune: lr=1e-3,1e-4; repeatable, a job per combination.")] = None,
    out: Annotated[Path | None, Option(help="The script. Default: slurm-COMMAND.sh.")] = None,
    submit: Annotated[bool, Option("--submit", help="Hand the script to sbatch.")] = False,
) -> Shown:
    """Write, and submit, a batch script for SLURM: one command, or an array of shards, tasks or settings."""
    from store import SlurmJob, submit_script

    job = SlurmJob(command, Path.cwd(), **asdict(asked))
    path = out or Path(f"slurm-{command}.sh")
    n_jobs = write_job(path, job, words or [], tasks=task or [], n_jobs=array, grid=grid or [])
    job_id = submit_script(path) if submit else None
    jobs = "1 job" if n_jobs == 1 else f"an array of {n_jobs} jobs"
    line = f"{path}: {jobs}" + (f", submitted as {job_id}" if job_id else f"; run: sbatch {path}")
    return Shown({"script": str(path), "jobs": n_jobs, "job_id": job_id}, [line])


@command("finetune --backbone convnext_tiny --set lr=1e-5")
def finetune(
    place: Place,
    changed: Changed,
    part: Part,
    task: Tasks = None,
    name: Annotated[str, Option(help="The run's folder in runs/.")] = "finetune",
    resume: Annotated[bool, Option("--resume", help="Go on from the last checkpoint, if there is one.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
) -> Shown:
    """Train the whole network, and say whether that was worth it beside the heads."""
    from extract import Options
    from finetune import Run, check_run, choose_settings, finetune_report
    from heads import open_rows, open_runs, run_folder, store_of_subset
    from store import FeatureStore

    dataset, features = place.open()
    settings, notes = choose_settings(dataset, device=device, **asdict(changed))
    folder = run_folder(dataset, name)
    what: dict[str, Any] = {"tasks": task or (), "fold": part.fold, "seed": seed}
    rows, split = open_rows(dataset, tasks=task or (), subset=part.subset, final=part.final, seed=seed)
    ready = check_run(rows, split, settings, folder=folder, final=part.final, resume=resume, device=device, **what)
    say(*notes, *(f"warning: {note}" for note in ready.notes))
    features = features if part.subset is None else store_of_subset(rows, folder)
    own = FeatureStore(folder / "features.zarr")  # of vectors that extract would not have made
    needed = [(name, Options(weights, seed, device)) for name, weights in ready.encoders]
    sweep = sweep_rows(rows, split, features, needed=needed, **what)
    run = Run(sweep, own, settings, folder, *open_runs(dataset), device=device, resume=resume)
    document = train(run, final=part.final) | {"notes": notes}
    is_partial = document["left_out"] or not sweep.matrix.complete.all()
    return Shown(document, finetune_report(document), left_out=is_partial)


@command("demo")
def demo(folder: Annotated[Path, Argument(help="Where to work.")] = Path(SAMPLE)) -> None:
    """Everything once, on the built-in sample: check, extract, heads, a chart, a bundle, predictions."""
    from extract import Options
    from store import InputError

    spec, out = write(SAMPLE, folder), folder / "predictions.csv"
    show_report(check(spec).sections)
    for backbone in ("texture", "efficientnet_b0"):
        try:
            embed(*Place(spec).open(), [backbone], Options())
        except InputError as error:
            say(f"leaving {backbone} out: {error}")
    swept = heads(Place(spec), Tried(), Seen(), save=True)
    show_report(swept.sections)
    n_rows = predict(Path(swept.document["bundle"]), folder / "unlabelled", out).document["rows"]
    made = [str(spec), str(folder / "features.zarr"), *(swept.document[name] for name in ("chart", "bundle"))]
    print(f"wrote {', '.join(made)}, {out} ({n_rows} rows)")
    print("next: open the chart; write a dataset.toml for your own images (README); python cli.py --help")


if __name__ == "__main__":
    app()
