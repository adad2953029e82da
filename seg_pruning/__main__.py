"""``python -m seg_pruning`` is the command ``seg-pruning``."""

from seg_pruning.cli import main

if __name__ == "__main__":
    main()
