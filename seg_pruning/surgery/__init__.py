"""How channels leave a network: torch and numpy, nothing else."""
