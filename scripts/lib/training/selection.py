"""Which epoch of a training is kept where it is not the last: the best on the validation images."""

from dataclasses import dataclass

import torch

from lib.core import metric as metrics
from lib.core.errors import UserError
from lib.core.metric import ACCURACY, Metric
from lib.core.settings import Settings
from lib.training.measures import Answers, score
from lib.training.metrics import probabilities


@dataclass(frozen=True)
class Selection:
    """By what the epochs of a training are compared.

    Attributes:
        metric: by which.
        labels: of the validation images, int64 [N].
        classes: their names.
        positive: the number of the positive class; None with more than two.
        output: what the model returns: `log_softmax`, `softmax` or `logits`.
    """

    metric: Metric
    labels: torch.Tensor
    classes: list[str]
    positive: int | None
    output: str | None

    @classmethod
    def of(
        cls, settings: Settings, labels: torch.Tensor, classes: list[str], output: str | None
    ) -> "Selection | None":
        """Return the selection of a training; None where the last epoch is kept.

        Raises:
            UserError: there is no such metric, or no such class, or it cannot be computed for these
                images.
        """
        if settings.keep == "last":
            return None
        metric = metrics.parse(settings.metric or ACCURACY.name, classes)
        positive = metrics.positive_class(settings.positive, classes)
        selection = cls(metric, labels, classes, positive, output)
        selection.value(torch.full((len(labels), len(classes)), 1 / len(classes)))
        return selection

    def value(self, output: torch.Tensor) -> float:
        """Return the metric of a model's output for the validation images, [N, classes].

        Raises:
            UserError: it cannot be computed for these images.
        """
        sure = probabilities(output, self.output).float().numpy()
        answers = Answers(
            self.labels.cpu().numpy(), sure.argmax(axis=1), sure, self.classes, self.positive
        )
        value = score(self.metric, answers)
        if value is None:
            raise UserError(
                f"keep: there is no {self.metric.name} of the validation images: none of them is "
                "of the class, or all are"
            )
        return value
