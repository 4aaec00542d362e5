"""The dataset.toml of each real dataset in ../shared/data, as a user would write it."""

from pathlib import Path

SPECS = {
    "emps": """
name = "emps"
table = "{data}/emps/labels.csv"
root = "{data}/emps/images"
id = "name"
group = "doi"                      # figures of one paper look alike
split = "split_group"
[images.em]
column = "name"
[tasks.count]
column = "count_bin"
[tasks.size]
column = "size_bin"
[tasks.shape]
column = "shape_bin"
[tasks.coverage]
column = "coverage"
""",
    "ifc_cellcycle": """
name = "ifc_cellcycle"
table = "{data}/ifc_cellcycle/labels.csv"
root = "{data}/ifc_cellcycle"
id = "name"
split = "split"                    # train, val, test, and the independent run "ood"
[images.bf]
column = "name"
folder = "BF"
[images.df]
column = "name"
folder = "DF"
[tasks.phase4]
column = "phase4"
[tasks.mitotic]
column = "mitotic"
[tasks.dna_rel]                    # measured from the FL channel, which is therefore no input
column = "dna_rel"
""",
    "trashnet": """
name = "trashnet"
table = "{data}/trashnet/labels.csv"
root = "{data}/trashnet/images"
id = "name"
[images.photo]
column = "name"
[tasks.label]
column = "label"
""",
}


def write_spec(name: str, folder: Path, data: Path) -> Path:
    """Write the spec of a real dataset into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "dataset.toml"
    spec.write_text(SPECS[name].format(data=data))
    return spec
