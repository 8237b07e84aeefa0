"""The built-in plugins, imported as `harness_plugins`. Each imports from `harness` alone, and none from another."""
