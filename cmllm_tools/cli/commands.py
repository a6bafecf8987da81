"""The commands by name, without what they run with: to list them must load neither torch nor transformers."""

# Module of this folder whose COMMANDS has the function that adds its options; what it does.
COMMANDS = {
    "demo": ("steer", "steer the embedded model, or smol, on a held-out scene"),
    "steer": ("steer", "ask about a region of an image"),
    "compare": ("compare", "refer to a region in several ways, and measure what each does and costs"),
    "eval": ("evaluate", "answer a data set by several methods, and score the answers"),
    "reproduce": ("reproduce", "run a published table, and set its figures beside what comes out"),
    "records": ("evaluate", "put files of answers together, and sum them up"),
    "heads": ("measure", "rank heads by how well their attention finds what is referred to"),
    "sweep": (
        "measure",
        "steer with every window of layers and context token, and recommend one; tested on the set's other half",
    ),
    "report": ("report", "a page of a run's answers: figures, differences, and a gallery to filter"),
    "data": ("data", "see what a data set has, and what is wrong with it"),
    "assemble": ("assemble", "put the model smol together: SmolLM2-135M-Instruct, and eyes of this package"),
    "families": ("families", "list the supported families of models"),
}
