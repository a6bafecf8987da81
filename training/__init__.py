"""What made the data in `cmllm_tools/embedded`; not part of the package."""
