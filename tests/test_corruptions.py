"""Two thousand seeded damages: no traceback, no hang, and no mask that is read otherwise than it is, in silence."""

import random
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from corruptions import damage_bytes, damage_yaml, odd_mask, odd_name
from earlier_runs import unpack_earlier_runs
from PIL import Image
from places import ROOT

from search.cli import main
from search.config.load import load_config
from search.space.search import Search
from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import ConfigError, DataError

pytestmark = pytest.mark.slow
BATCHES = range(8)
"""Each damage has a seed of its own; batches let several processes share the work."""
SIDE, NUM_PAIRS = 24, 5


@pytest.mark.parametrize("batch", BATCHES)
def test_damaged_configs_are_read_or_refused_with_a_message(tmp_path: Path, batch: int) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))]
    file = tmp_path / "config.yaml"
    for seed in range(batch * 100, batch * 100 + 100):
        rng = random.Random(seed)
        file.write_text(damage_yaml(rng.choice(texts), rng), encoding="utf-8")
        try:
            Search.of(load_config(file))
        except ConfigError:
            continue
        except Exception as error:
            raise AssertionError(f"config {seed}: {error!r}\n{file.read_text(encoding='utf-8')}") from error


def _pairs() -> dict[str, npt.NDArray[np.bool_]]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return {f"photo{i}": (rows - 9 - i) ** 2 + (columns - 12) ** 2 < 20 + 8 * i for i in range(NUM_PAIRS)}


def _damaged_data(folder: Path, rng: random.Random) -> str:
    """Writes a small data set, then damages it in one way, and says how."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, (name, mask) in enumerate(_pairs().items()):
        noise = np.random.default_rng(number).integers(0, 99, (SIDE, SIDE, 3), np.uint8) + mask[..., None] * np.uint8(
            99
        )
        Image.fromarray(noise).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    paths = sorted(folder.rglob("*.png"))
    way = rng.choice(["bytes", "values", "values", "turn", "resize", "rename", "extra", "swap"])
    path = rng.choice([p for p in paths if way == "bytes" or p.parent.name == "masks"])
    if way == "bytes":
        return damage_bytes(path, rng)
    if way == "values":
        count = rng.choice([1, NUM_PAIRS])
        for name, mask in list(_pairs().items())[:count]:
            odd = odd_mask(mask, rng)
            (folder / "masks" / f"{name}.png").unlink()
            odd.save(folder / "masks" / f"{name}.{'png' if odd.mode != 'I' and odd.mode != 'F' else 'tif'}")
    elif way == "turn":
        Image.open(path).rotate(90, expand=True).crop((0, 0, SIDE, SIDE - 4)).save(path)
    elif way == "resize":
        Image.open(path).resize((SIDE * rng.choice([2, 3]), SIDE), 0).save(path)
    elif way == "rename":
        path.rename(path.with_name(odd_name(rng)))
    elif way == "extra":
        shutil.copy(path, path.with_name(odd_name(rng)))
    else:
        (folder / "images" / path.name).unlink()
        (folder / "images" / path.name).symlink_to(rng.choice(["/nowhere", ".", path]))
    return f"{path.name}: {way}"


@pytest.mark.parametrize("batch", BATCHES)
def test_damaged_data_is_never_read_wrong_in_silence(tmp_path: Path, batch: int) -> None:
    for seed in range(batch * 100, batch * 100 + 100):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        what = f"data {seed}: {_damaged_data(folder / 'data', rng)}"
        config = DataConfig(
            root=str(folder / "data"), image_size=SIDE, val_fraction=0.4, cache_dir=str(folder / "cache")
        )
        try:
            index = discover(config)
            with open_cache(build_cache(index, config)) as cache:
                warnings = (*index.warnings, *cache.warnings)
                read = {Path(name).name.split(".")[0]: cache.mask(i) for i, name in enumerate(cache.names)}
        except DataError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        wrong = [n for n, mask in _pairs().items() if n not in read or not np.array_equal(read[n] > 0, mask)]
        assert not wrong or warnings, f"{what}: {wrong} read wrong in silence"


@pytest.fixture(scope="module")
def earlier_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_earlier_runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("batch", BATCHES)
def test_damaged_runs_are_shown_or_refused_with_a_message(earlier_runs: Path, tmp_path: Path, batch: int) -> None:
    for seed in range(batch * 50, batch * 50 + 50):
        rng = random.Random(seed)
        results = tmp_path / str(seed)
        shutil.copytree(earlier_runs, results)
        name = rng.choice(["ended", "killed"])
        files = sorted(path for path in (results / name).rglob("*") if path.is_file())
        what = f"run {seed}: {name}, " + damage_bytes(rng.choice(files), rng)
        commands = [["ls"], ["show", name], ["report", name, "--open", "no"]]
        for command in commands if seed % 5 == 0 else commands[:2]:
            done = CliRunner().invoke(main, [*command, "--results", str(results)])
            assert done.exception is None or isinstance(done.exception, SystemExit), (
                f"{what}: {command} {done.exception!r}"
            )
            assert done.exit_code in (0, 1, 2), f"{what}: {command} exit {done.exit_code}"
            assert "Traceback" not in done.output, f"{what}: {done.output}"
        shutil.rmtree(results)
