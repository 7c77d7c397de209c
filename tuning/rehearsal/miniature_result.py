"""The result of a rehearsal on one miniature, as its process hands it over."""

from metaopt.bench.records.findings import Finding
from metaopt.bench.records.trials import Model

# Each miniature with the workload of AlgoPerf that it stands for; those that take longest first.
MINIATURES = {
    "mini_conformer": "librispeech_conformer",
    "mini_deepspeech": "librispeech_deepspeech",
    "mini_wmt": "wmt",
    "mini_vit": "imagenet_vit",
    "mini_resnet": "imagenet_resnet",
    "mini_ogbg": "ogbg",
    "mini_fastmri": "fastmri",
    "mini_lm": "finewebedu_lm",
    "mini_criteo": "criteo1tb",
}


class MiniatureResult(Model):
    """What a submission did on one miniature; ``None`` where it did not come so far.

    Attributes:
        workload: The miniature.
        batch_size: The submission's batch size for the workload that the miniature stands for.
        compilations: The functions that were compiled in the first six steps.
        state_copies: The size of the optimizer state over that of the parameters.
        is_saved: Whether the optimizer state comes back from a checkpoint as it was.
        steps: The steps of the trial.
        is_trained: Whether the trial ended without a failure.
        loss_before: The training loss of the initial parameters.
        loss_after: The training loss at the last evaluation.
        time_factor: Seconds per gradient evaluation over AdamW's, without compilation.
        target: ``"met"``, ``"missed"``, ``"cut short"`` or ``"no target yet"``; empty without a
            trial.
        findings: What would fail in a competition (errors), and what is worth a look (notes).
    """

    workload: str
    batch_size: int | None = None
    compilations: int | None = None
    state_copies: float | None = None
    is_saved: bool | None = None
    steps: int = 0
    is_trained: bool = False
    loss_before: float | None = None
    loss_after: float | None = None
    time_factor: float | None = None
    target: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        """The findings that would fail in a competition."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def falls(self) -> bool | None:
        """Whether the training loss fell; ``None`` without a trial."""
        if not self.is_trained or self.loss_before is None or self.loss_after is None:
            return None
        return self.loss_after < self.loss_before
