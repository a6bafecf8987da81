"""What is asked, of one image or in a conversation about several, and what a method makes of it."""

from dataclasses import dataclass, replace

from PIL import Image

from ..errors import PromptError, RegionError, SettingsError
from ..inputs.conversation import Conversation, Messages, is_messages, read_messages
from ..inputs.images import ImageSource, read_image
from ..inputs.regions import Region, Regions, as_regions
from ..inputs.video import Video
from ..layout.sheet import numbers_of, on_frames, own_region, region_on_sheet, sheet_of
from ..models.look import Look, Seen
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..strict import shown
from .method import Method, Request, named


@dataclass(frozen=True, eq=False)
class Asked:
    """An image and a question, or a conversation.

    Args:
        image: upright RGB image; the sheet of a conversation's.
        question: the user's words.
        conversation: None for one image and one question.
        look: at the image, where there is one.
    """

    image: Image.Image
    question: str
    conversation: Conversation | None = None
    look: Look | Seen | None = None

    @classmethod
    def of(cls, image: ImageSource | Look | Seen | Conversation | Messages, question: str | None) -> "Asked":
        """Of what `refer` takes.

        Raises:
            ImageError: for what cannot be read.
            PromptError: for a conversation with a question beside it, and an image without one.
        """
        talk = read_messages(image) if is_messages(image) else image
        if isinstance(talk, Video) and question is not None:
            # A question is checked where it is prepared.
            talk, question = talk.asked(question), None
        if isinstance(talk, Conversation):
            if question is not None:
                raise PromptError(f"A conversation has its question; give None for another one; got {shown(question)}.")
            return cls(sheet_of(talk.images), talk.question, talk)
        if question is None:
            raise PromptError("A question must be given with an image; got None. Only a conversation has its own.")
        look = talk if isinstance(talk, Look | Seen) else None
        return cls(read_image(talk) if look is None else look.image, question, None, look)

    def regions(self, regions: Regions) -> tuple[Region, ...]:
        """Regions in pixels of the image, or the sheet.

        Raises:
            RegionError: for one that is off its image.
        """
        sizes = [self.image.size] if self.conversation is None else [each.size for each in self.conversation.images]
        if (self.conversation is None or self.conversation.timing is None) and any(
            region.frames is not None for region in as_regions(regions)
        ):
            raise RegionError(f"A region's frames are those of a video, and what is shown is none; got {shown(regions)}.")
        return tuple(region_on_sheet(region, sizes) for region in as_regions(regions))

    def named(self, place: str) -> "Asked":
        """The same with these words in the question in the place of the region's."""
        words = named(self.question, place)
        return replace(self, question=words, conversation=self.conversation and self.conversation.asking(words))

    def prepared(self, mllm: Mllm) -> Prompt:
        """As the model reads it."""
        if self.conversation is not None:
            return mllm.prepare(self.conversation)
        if isinstance(self.look, Seen):
            return self.look.prompt(self.question)
        return mllm.prepare(self.image if self.look is None else self.look, self.question)

    def sent(self, method: Method, regions: tuple[Region, ...], mllm: Mllm) -> tuple["Asked", tuple[Region, ...]]:
        """What a method sends in place of this, and where the regions are in that.

        In a conversation, a method that draws, crops or says where a region is does so for the image that it is on, or for
        each of the frames.

        Raises:
            SettingsError: for such a method with regions on several images.
        """
        if self.conversation is None:
            request = method.sent(Request(self.image, self.question, regions), mllm).named("")
            look = self.look if request.image is self.image else None
            return Asked(request.image, request.question, None, look), request.regions
        if type(method).sent is Method.sent:
            return self.named(""), regions
        images = list(self.conversation.images)
        sizes = [image.size for image in images]
        shown_on = {numbers_of(region, sizes) for region in regions}
        if len(shown_on) > 1:
            several = sorted({number for each in shown_on for number in each})
            raise SettingsError(
                f"{method.called()} changes one image, the one that the regions are on; these are on images {several}. "
                "Give regions of one image, or a method that changes no image, as AttentionEdit()."
            )
        (numbers,) = shown_on
        own = tuple(own_region(region, sizes) for region in regions)
        # Of a video, each frame that the regions are on.
        requests = [method.sent(Request(images[each], self.question, own), mllm).named("") for each in numbers]
        for number, request in zip(numbers, requests, strict=True):
            images[number] = request.image
        changed = Asked.of(self.conversation.showing(images).asking(requests[0].question), None)
        return changed, changed.regions([on_frames(region, numbers) for region in requests[0].regions])
