"""Where results err, for people: what `report` prints, as sections."""

from collections.abc import Iterable, Mapping
from typing import Any

from heads.metrics import metric_names
from heads.per_class import RATES
from heads.report import SHOWN, interval, number
from store import Section, counted


def errors_report(reports: Iterable[Mapping[str, Any]], missing: Mapping[str, str]) -> list[Section]:
    """Return each result's scores per class or output, what was taken for what, and the worst rows.

    Args:
        reports: What `write_errors` gave.
        missing: Why a task has no result.
    """
    found: list[Section] = []
    for one in reports:
        found += _class_sections(one) if one["kind"] == "classification" else _output_sections(one)
        found.append(Section(lines=[*(f"  {what}: {path}" for what, path in one["files"].items()), ""]))
    return [*found, *(Section(lines=[f"left out: {reason}"]) for reason in missing.values())]


def _class_sections(report: Mapping[str, Any]) -> list[Section]:
    cells = [
        [row["class"], *(interval(row[name]) for name in RATES), str(row["rows"]), str(row["predicted"])]
        for row in report["classes"]
    ]
    means = [
        [f"{mean} mean", *(interval(report[mean][name]) for name in RATES), "", ""] for mean in ("macro", "weighted")
    ]
    never = [row["class"] for row in report["classes"] if row["rows"] and not row["predicted"]]
    lines = [*_beside_baseline(report), *([f"never predicted: {', '.join(never)}"] if never else [])]
    columns = ["class", *RATES, "rows", "predicted"]
    return [
        Section(_reported(report), columns, [*cells, *means], [*(f"  {line}" for line in lines), ""]),
        _confusion_section(report["confusion"]),
        _wrong_section(report),
    ]


def _confusion_section(found: Mapping[str, Any]) -> Section:
    classes, counts = found["classes"], found["counts"]
    if len(classes) > SHOWN:
        return Section(lines=[f"  {len(classes)} classes: which was taken for which is in the chart and in --json", ""])
    cells = [[name, *map(str, row)] for name, row in zip(classes, counts, strict=True)]
    return Section("Confusions", ["label \\ predicted", *classes], cells)


def _wrong_section(report: Mapping[str, Any]) -> Section:
    rows = report["wrong"][:SHOWN]
    texts = [name for name in (rows[0] if rows else ()) if name.startswith("text_")]
    cells = [
        [*(row[name] for name in ("id", "label", "predicted")), number(row["p_predicted"]), number(row["p_label"])]
        + [row[name] for name in texts]
        for row in rows
    ]
    shown = f"; here are {SHOWN}" if report["n_wrong"] > SHOWN else ""
    of = f"of {report['n_rows']} rows"
    line = f"  {counted(report['n_wrong'], f'{of} is', f'{of} are')} misclassified, surest first{shown}"
    columns = [
        "id",
        "label",
        "predicted",
        "probability",
        "of the label",
        *(name.removeprefix("text_") for name in texts),
    ]
    return Section("Misclassified", columns if rows else (), cells, [line])


def _output_sections(report: Mapping[str, Any]) -> list[Section]:
    metrics = metric_names("regression")
    cells = []
    for output in report["outputs"]:
        name = output["output"] + (f" ({output['unit']})" if output["unit"] else "")
        cells.append([name, *(interval(output["metrics"][metric]) for metric in metrics)])
        cells.append(["  without features", *(number(output["baseline"].get(metric)) for metric in metrics)])
    lines = [f"  {line}" for line in _beside_baseline(report)]
    return [Section(_reported(report), ["output", *metrics], cells, [*lines, ""]), _far_section(report)]


def _far_section(report: Mapping[str, Any]) -> Section:
    cells = [
        [row["id"], row["output"], *(f"{row[name]:.4g}" for name in ("label", "predicted", "error"))]
        for row in report["farthest"][:SHOWN]
    ]
    title = "Farthest off" + (", in standard deviations of its output" if len(report["outputs"]) > 1 else "")
    return Section(title, ["id", "output", "label", "predicted", "error"], cells)


def _reported(report: Mapping[str, Any]) -> str:
    rows = f"{counted(report['n_rows'], 'row')} of {report['split']}"
    return f"{report['task']}, {rows}: {' + '.join(report['blocks'])}, {report['head']}"


def _beside_baseline(report: Mapping[str, Any]) -> list[str]:
    name = report["headline"]
    score, without = interval(report["metrics"][name]), number(report["baseline"][name])
    n = report["n_left_out"]
    left_out = [f"left out: {counted(n, 'labelled row')} without features"] if n else []
    return [f"{name} {score}; without features {without}", report["verdict"], *left_out]
