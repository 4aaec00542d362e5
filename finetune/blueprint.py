"""What a network is made of, as JSON: enough to build it again without weights, hub or dataset."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from finetune.settings import BranchSettings
from heads import plain_name
from store import StoreError

SCHEMA_VERSION = 1
CONFIG_PATH = "_name_or_path"  # where transformers read a configuration from


@dataclass(frozen=True)
class BranchPlan:
    """One branch.

    Attributes:
        name: Of its block; ``stack`` for several stacked here, ``metadata``.
        kind: ``"image"``, ``"text"`` or ``"metadata"``.
        blocks: The image or text blocks that feed it; several only for ``stack``.
        settings: Its projection, pooling and the like.
        dim: d that comes out of the encoder; of metadata, the number of columns.
        encoder: Architecture as timm or torchvision names it, or the transformers model's name; empty for metadata.
        in_chans: Of images: 3 for each.
        preprocess: As `FeatureSpace` has it; with the arguments of the architecture.
        pooling: Of positions or tokens, as `FeatureSpace` has it.
        config: Of text: the transformers configuration.
        shares: The branch whose encoder this one uses, if it has none of its own.
        source: Where the weights came from, for people.
    """

    name: str
    kind: Literal["image", "text", "metadata"]
    blocks: tuple[str, ...]
    settings: BranchSettings
    dim: int
    encoder: str = ""
    in_chans: int = 0
    preprocess: Mapping[str, Any] | None = None
    pooling: str = "none"
    config: Mapping[str, Any] | None = None
    shares: str | None = None
    source: str = ""

    @property
    def label(self) -> str:
        """What it reads, as entries name blocks: ``image:bf@efficientnet_b0``, ``metadata``."""
        return "metadata" if self.kind == "metadata" else f"{self.kind}:{'+'.join(self.blocks)}@{self.encoder}"

    @property
    def model_args(self) -> Mapping[str, Any]:
        """Arguments of a timm architecture."""
        found: Mapping[str, Any] = (self.preprocess or {}).get("model_args", {})
        return found


@dataclass(frozen=True)
class Fusion:
    """The layers over the concatenated features; without widths there are none."""

    widths: tuple[int, ...]
    activation: Literal["relu", "gelu", "none"]
    layer_norm: bool
    dropout: float


@dataclass(frozen=True)
class Output:
    """One task's head: c logits or t outputs."""

    name: str
    kind: Literal["classification", "regression"]
    n_outputs: int


@dataclass(frozen=True)
class Blueprint:
    """A whole network.

    Attributes:
        branches: In the order in which their features are joined.
        fusion: What follows.
        tasks: The heads.
        columns: Names of the metadata columns, in order, as `metadata_columns` makes them.
    """

    branches: tuple[BranchPlan, ...]
    fusion: Fusion
    tasks: tuple[Output, ...]
    columns: tuple[str, ...] = ()

    def branch(self, name: str) -> BranchPlan:
        """Return a branch by its name."""
        return next(branch for branch in self.branches if branch.name == name)

    def without_places(self) -> Self:
        """Return it with the mere names of folders and files that encoders began with: a bundle has its own."""
        return replace(self, branches=tuple(_without_places(branch) for branch in self.branches))

    def to_json(self) -> str:
        """Return it as JSON, with the schema version."""
        branches = [asdict(one) | {"settings": one.settings.model_dump(exclude_unset=True)} for one in self.branches]
        return json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self) | {"branches": branches})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild it.

        Raises:
            StoreError: Another schema version, or other fields.
        """
        fields = json.loads(text)
        version = fields.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"network of schema version {version!r}, expected {SCHEMA_VERSION}: use the version that wrote it"
            )
        try:
            return cls(
                branches=tuple(_branch(one) for one in fields["branches"]),
                fusion=Fusion(**fields["fusion"] | {"widths": tuple(fields["fusion"]["widths"])}),
                tasks=tuple(Output(**one) for one in fields["tasks"]),
                columns=tuple(fields["columns"]),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise StoreError(f"the description of a network is not as it was written: {error}") from None


def _without_places(plan: BranchPlan) -> BranchPlan:
    given = plan.settings.model_dump(include={"encoder", "weights"}, exclude_none=True)
    named = {key: plain_name(words) for key, words in given.items()}
    config = plan.config and {key: plain_name(at) if key == CONFIG_PATH else at for key, at in plan.config.items()}
    return replace(plan, settings=plan.settings.model_copy(update=named), config=config, source=plain_name(plan.source))


def _branch(fields: dict[str, Any]) -> BranchPlan:
    settings = BranchSettings.model_validate(fields["settings"])
    return BranchPlan(**fields | {"settings": settings, "blocks": tuple(fields["blocks"])})
