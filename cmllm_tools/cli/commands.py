"""The commands by name, without what they run with: to list them must load neither torch nor transformers."""

# Module of this folder whose COMMANDS has the function that adds its options; what it does.
COMMANDS = {
    "demo": ("steer", "steer the embedded model on one of its held-out scenes"),
    "steer": ("steer", "ask about a region of an image"),
    "compare": ("compare", "refer to a region in several ways, and measure what each does and costs"),
    "eval": ("measure", "measure accuracies on a held-out set"),
    "heads": ("measure", "rank heads by how well their attention finds what is referred to"),
    "sweep": (
        "measure",
        "steer with every window of layers and context token, and recommend one; tested on the set's other half",
    ),
    "families": ("families", "list the supported families of models"),
}
