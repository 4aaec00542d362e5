"""Where an encoder's weights come from, and the digest that says which they are."""

import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from store import InputError, first_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
PROBE_SECONDS = 3.0  # at most three times for one file (hub, file, where it redirects to): ten seconds in total
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # timm/models/_hub.py
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


class WeightsError(InputError):
    """Pretrained weights are neither cached nor within reach."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"the pretrained weights of '{name}' are out of reach ({reason}). Connect once, or point HF_HOME to a "
            "cache that has them; or give --weights FILE-OR-FOLDER; or give --weights random."
        )


def state_digest(state: "Mapping[str, torch.Tensor]") -> str:
    """Return the sha256 (hex) over sorted name, dtype, shape and bytes of every tensor."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_or_random(load: Callable[[str], T], weights: str, *, seed: int, falls_back: bool) -> tuple[T, list[str]]:
    """Return what `load` makes of weights, or of random ones where they are out of reach and it may fall back.

    Args:
        load: Takes ``"pretrained"``, ``"random"``, or a file or folder.
        weights: Which of them.
        seed: Of the random ones, for the warning.
        falls_back: Whether random ones will do.

    Returns:
        The network, and a warning where it has random weights instead.

    Raises:
        WeightsError: The weights are out of reach, and no others will do.
    """
    try:
        return load(weights), []
    except WeightsError as error:
        if not falls_back:
            raise
        return load("random"), [f"random weights instead of pretrained ones, seed {seed}: {error}"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside the block and leave the caller's generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights: `path`, or the one inside it if it is a folder.

    Raises:
        InputError: Nothing there.
    """
    if path.is_file():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    expected = f"a folder with one of {', '.join(WEIGHT_FILES)}" if path.is_dir() else "a file or a folder"
    raise InputError(f"weights '{path}': expected {expected}, or the words 'pretrained' or 'random'")


def read_state(path: Path) -> "dict[str, torch.Tensor]":
    """Read tensors by name from a safetensors or PyTorch file, without running code from it.

    Raises:
        InputError: The file is neither.
    """
    import torch
    from safetensors.torch import load_file

    try:
        load = (
            load_file if path.suffix == ".safetensors" else partial(torch.load, map_location="cpu", weights_only=True)
        )
        state = load(path)
    except Exception as error:  # noqa: BLE001 - damaged bytes make a reader raise nearly anything
        raise InputError(f"weights '{path}' cannot be read as tensors only: {first_line(error)}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"weights '{path}' hold more than tensors: expected a state dict")
    return state


def hub_file(name: str, repo: str, filenames: Sequence[str]) -> Path:
    """Return the first of `filenames` that a hub repository has, from the cache or downloaded.

    Args:
        name: What the user asked for, for the message.
        repo: ``owner/name``, or ``owner/name@revision``.
        filenames: Best first.

    Raises:
        WeightsError: Not cached, and the hub does not answer within a few seconds.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repo_id, _, revision = repo.partition("@")
    for filename in filenames:
        cached = try_to_load_from_cache(repo_id, filename, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    filename = _first_in_reach(name, repo_id, filenames, revision or None)
    return Path(_download(name, lambda: hf_hub_download(repo_id, filename, revision=revision or None)))


def hub_folder(name: str) -> Path:
    """Return a local folder with the configuration, tokenizer and weights of a transformers model on the hub.

    Raises:
        WeightsError: Not cached, and the hub does not answer within a few seconds.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(TEXT_FILES), local_files_only=True))
        if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError:
        raise InputError(f"'{name}' is no name of a model on the hub") from None
    _first_in_reach(name, name, ["config.json"], None)
    has_safe = _answers(name, name, "model.safetensors") or _answers(name, name, "model.safetensors.index.json")
    patterns = [*TEXT_FILES, *([] if has_safe else ["pytorch_model*.bin"])]
    return Path(_download(name, lambda: snapshot_download(name, allow_patterns=patterns)))


def url_file(name: str, url: str) -> Path:
    """Return the file behind a plain URL from torch's hub cache, downloaded if it is not there.

    Raises:
        WeightsError: Not cached, and the server does not answer within a few seconds.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    if reason := unreachable(url):
        raise WeightsError(name, reason)
    folder.mkdir(parents=True, exist_ok=True)
    _download(name, lambda: torch.hub.download_url_to_file(url, str(path), progress=False))
    return path


def unreachable(url: str) -> str | None:
    """Return why the server of `url` does not answer within `PROBE_SECONDS`, or None if it does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return _probe(url)


@lru_cache(maxsize=32)
def _probe(url: str) -> str | None:
    def head() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with suppress(urllib.error.HTTPError):  # an error is an answer too
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()

    try:
        _within(PROBE_SECONDS, head)
    except (OSError, ValueError) as error:
        return f"{_host(url)} does not answer: {first_line(error)}"
    return None


def _first_in_reach(name: str, repo_id: str, filenames: Sequence[str], revision: str | None) -> str:
    """Return the first file that the hub offers, having asked where its bytes would come from."""
    from huggingface_hub import constants

    if reason := unreachable(constants.ENDPOINT):
        raise WeightsError(name, reason)
    for filename in filenames:
        if _answers(name, repo_id, filename, revision):
            return filename
    raise InputError(f"the hub's '{repo_id}' has none of {', '.join(filenames)}: give --weights FILE-OR-FOLDER")


def _answers(name: str, repo_id: str, filename: str, revision: str | None = None) -> bool:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    url = hf_hub_url(repo_id, filename, revision=revision, endpoint=constants.ENDPOINT)
    try:
        location = _within(PROBE_SECONDS, lambda: get_hf_file_metadata(url, timeout=PROBE_SECONDS).location)
    except EntryNotFoundError:
        return False
    except HfHubHTTPError as error:
        raise WeightsError(name, first_line(error)) from None
    except OSError as error:
        raise WeightsError(name, f"{_host(url)} does not answer: {first_line(error)}") from None
    if _host(location) != _host(url) and (reason := unreachable(f"https://{_host(location)}/")):
        raise WeightsError(name, reason)
    return True


def _download(name: str, run: Callable[[], T]) -> T:
    try:
        return run()
    except Exception as error:
        if not _is_network(error):
            raise
        raise WeightsError(name, first_line(error)) from None


def _within(seconds: float, run: Callable[[], T]) -> T:
    """Run something that may hang (a name server, a silent network) and give up on it after `seconds`."""
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append((run(), None))
        except Exception as error:  # noqa: BLE001 - handed to the caller below
            outcome.append((None, error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    result, error = outcome[0]
    if error is None:
        return result  # type: ignore[no-any-return]
    if isinstance(error, OSError) or not _is_network(error):
        raise error
    raise ConnectionError(first_line(error)) from None


def _is_network(error: Exception) -> bool:
    """Whether an error came from the way to the hub; huggingface_hub's client has changed its name over time."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2")


def _host(url: str) -> str:
    return url.split("//", 1)[-1].split("/", 1)[0]
