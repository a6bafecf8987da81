"""Which words of a text a tokenizer does not know, and which it does."""

import re
from typing import Any

# As many words can be read; a tokenizer with more knows pieces of words.
FEW = 300


def unknown_words(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The words of a text of which some part becomes the tokenizer's unknown token, each once, in their order.

    Such a token says nothing: whatever the word, the model reads the same. Tokenizers of bytes know all words.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return ()
    # Halves of characters, which no tokenizer takes, are refused where the question is asked.
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", text.encode("utf-8", "ignore").decode()))
    return tuple(word for word in words if unknown in tokenizer(word, add_special_tokens=False)["input_ids"])


def known_words(tokenizer: Any) -> tuple[str, ...]:
    """All words that a tokenizer knows, sorted; none where they are too many to be read."""
    known = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    return tuple(sorted(word for word in known if word.isalpha())) if len(known) <= FEW else ()
