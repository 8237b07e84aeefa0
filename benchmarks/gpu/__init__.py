"""The GPU kit, `make gpu`: see `__main__.py`."""
