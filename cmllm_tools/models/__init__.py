"""Models: loading, prompts, record and replay, answers, and the table of families."""
