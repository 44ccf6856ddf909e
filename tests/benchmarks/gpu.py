"""Everything that needs a GPU, by one command: the tests that are marked so, then the benchmarks of `segcore`.

    make bench NAME=gpu

or, where nothing can be installed: `PYTHONPATH=.:tests/support python3 -P tests/benchmarks/gpu.py`. The benchmarks need
torch, timm, numpy, pyarrow and OpenCV; the tests pytest, pydantic and Ray too, and are left out, with a line that says
so, where one of these is absent. Each benchmark writes its own page, `results/benchmarks/NAME_gpu.md`.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("step", "precision", "threshold", "packing", "compile", "checkpoint")
NEEDED_BY_TESTS = ("pytest", "pydantic", "ray")


def main() -> None:
    """Runs all of it, one after the other; the last line is one JSON object: what each ended with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run of each benchmark, and no pages.")
    parser.add_argument("--only", nargs="+", choices=("tests", *BENCHMARKS), default=("tests", *BENCHMARKS))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this process sees no CUDA device; everything here needs one", file=sys.stderr)
        sys.exit(2)
    ended: dict[str, object] = {"device": torch.cuda.get_device_name()}
    absent = [name for name in NEEDED_BY_TESTS if importlib.util.find_spec(name) is None]
    if "tests" in options.only and absent:
        print(f"the tests are left out: {', '.join(absent)} not installed")
    elif "tests" in options.only:
        ended["tests"] = run([sys.executable, "-m", "pytest", "-m", "gpu", "-ra", str(ROOT / "tests")])
    for name in BENCHMARKS:
        if name in options.only:
            command = [sys.executable, "-P", str(ROOT / "tests" / "benchmarks" / f"{name}.py")]
            ended[name] = run([*command, *(["--quick"] if options.quick else [])])
    print(json.dumps(ended))
    sys.exit(any(isinstance(code, int) and code != 0 for code in ended.values()))


def run(command: list[str]) -> int:
    """Runs a command from the repository's root, its output shown as it comes; returns its exit code."""
    print(f"== {' '.join(command)}", flush=True)
    started = time.perf_counter()
    paths = [str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"== exit code {code}, {time.perf_counter() - started:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    main()
