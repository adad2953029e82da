"""How channels leave a network: for any torch user.

Torch and numpy, safetensors for files, rich for the report; nothing above this package is imported.
"""
