"""What several rows of the family table share: prompts, and notes in words."""

from .replay import CallSite

TEXT_MODEL = CallSite("model.text_model")

QWEN_TEXT = "<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"
DEEPSEEK_TEXT = "User: {image}{question}\n\nAssistant:"

IDEFICS_TEMPLATE = "User:{image}{question}<end_of_utterance>\nAssistant:"
RESOLUTION = "another resolution than the processor's own is not laid out"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
DEEPSTACK = "the latent is added to the embeddings alone, not to the features that are added again in later layers"
SHARED = "its layers share keys, or keep keys of several sizes"
LINEAR = "its layers of linear attention keep no keys"
HYBRID = "layers of linear attention hold no attention weights and are left out"
OVERLAP = (
    "boxes are the cells of its grid; its overlapping convolutions may look up to half a cell aside, which only probing a "
    "checkpoint tells"
)
GLM_TEMPLATE = "[gMASK]<sop><|user|>\n{image}{question}<|assistant|>\n"
GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
QUERIES_OF_ITS_OWN = "learned queries look at each image by itself, and not at several together"
PUT_IN = "its processor puts the image in, which is no part of the text"
