"""Widgets for notebooks; they need the extra `cmllm_tools[notebook]`, and `import cmllm_tools` does not load them."""
