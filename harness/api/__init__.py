"""The plugin API: what a plugin implements (`interfaces`), what it is handed (`types`), hooks and registry."""
