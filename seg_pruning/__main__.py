"""``python -m seg_pruning`` is the command ``seg-pruning``."""

from seg_pruning.cli import command

if __name__ == "__main__":
    command()
