"""Small configs for commands, and what a refusal looks like."""

from click.testing import Result

SYNTHETIC = "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
SPACE = "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"


def refused(result: Result, *fragments: str) -> None:
    """A command has ended with 2 and one message, which holds some text, and without a traceback."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.output.count("error:") <= 1
    flat = " ".join(result.output.split())
    for fragment in fragments:
        assert fragment in flat
