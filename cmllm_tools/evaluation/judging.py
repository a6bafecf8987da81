"""What a judge is asked about an answer, and how its words are read, as ViP-Bench does."""

from collections.abc import Callable

from ..errors import DataError
from ..strict import kind_of

# Times that a judge is asked again when it gives no number; then the score is 0.
AGAIN = 5
_AGAIN = "\nPredict the correctness of the answer (digit): "
# The rules of ViP-Bench in words of our own, with examples of our own: for its published figures take its own text.
PROMPT = """Give a score to a prediction by comparing it with the ground truth. Where the ground truth has <AND>, a \
prediction is right only with all of its elements; where it has <OR>, with any one of them. The score is one of 0.0 (all \
wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9 and 1.0 (all right). Complete the last row with the score alone.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which numbers are in the red rectangle? | 4 <AND> 9 | There is a 3. | 0.0
Which numbers are in the red rectangle? | 4 <AND> 9 | There is a 9. | 0.5
Which numbers are in the red rectangle? | 4 <AND> 9 | 9 and 4 | 1.0
What is the animal in the blue ellipse? | cat <OR> kitten | A kitten asleep on a chair. | 1.0
What is the animal in the blue ellipse? | cat <OR> kitten | A small dog. | 0.0
"""


def judged(judge: Callable[[str], str], prompt: str, question: str, truth: str, answer: str) -> float:
    """A judge's score in 0..1; a judge that gives no number is asked again, and then the score is 0.

    Raises:
        DataError: when the judge gives no text.
    """
    truth = truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    row = f"{prompt}\n{' | '.join([question, truth, answer, ''])}"
    for attempt in range(AGAIN + 1):
        said = kind_of(judge(row + (_AGAIN if attempt else "")), str, "A judge must give a text", DataError)
        try:
            score = float(said.split(" ")[0].strip())
        except ValueError:
            continue
        if 0 <= score <= 1:
            return score
    return 0.0
