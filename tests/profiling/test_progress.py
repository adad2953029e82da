import io

from rich.console import Console

from seg_pruning.profiling.progress import progress_bar


def test_the_bar_shows_how_far_it_is() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with progress_bar("measuring latency", console=console) as progress:
        progress(3, 60)
        progress(60, 60)
    assert "measuring latency" in screen.getvalue()
    assert "60/60" in screen.getvalue()
