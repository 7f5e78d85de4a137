"""What the checks of states and slates both use: a bundle, the items, and where to report."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.verify.keys import Keys
from deploy.verify.recompute.epochs import Epochs
from deploy.verify.recompute.items import Items
from deploy.verify.recompute.rules import RulesThen
from deploy.verify.report import Kind, Report, Violation
from stream.core.state import Interest
from stream.inference.bundle import Bundle
from stream.inference.models import Models
from stream.inference.text_encoder import Encoder
from stream.settings import Settings


@dataclass
class Context:
    """One bundle and one deployment.

    Attributes:
        bundle: The bundle.
        models: Its step and score graphs.
        encoder: Its text encoder.
        items: The items, which follow the items topic.
        settings: Settings of the deployment.
        report: Where to add what was found.
        other_states: Number of states of another step model.
        other_slates: Number of slates of another bundle.
        rules: Offset in the rules topic -> the rules there, for each that a slate names.
        lost_rules: Number of slates whose rules are no longer known.
        epochs: The epochs of the tables that slates name.
        lost_tables: Number of slates whose epoch is no longer known.
        judged: Ids of all bundles that are judged, each in a context of its own.
        counts: Whether what is of none of them is counted here.
    """

    bundle: Bundle
    models: Models
    encoder: Encoder
    items: Items
    settings: Settings
    report: Report
    other_states: int = 0
    other_slates: int = 0
    rules: dict[int, RulesThen] = field(default_factory=dict)
    lost_rules: int = 0
    epochs: Epochs = field(default_factory=Epochs)
    lost_tables: int = 0
    judged: frozenset[str] = frozenset()
    counts: bool = True

    def fits(self, state: Interest) -> bool:
        """Return whether h and c have the bundle's size."""
        return len(state.h) == self.bundle.hidden

    def add(self, kind: Kind, message: str, key: bytes, seq: int, position: tuple[str, int, int]) -> None:
        """Report a violation. position: (topic, partition, offset) of the record."""
        self.report.add(Violation(kind, message, Keys(self.settings.key).name(key), seq, *position))

    def note_others(self) -> None:
        """Note how many states and slates were left out."""
        if self.lost_rules:
            message = (
                f"{self.lost_rules} slates do not fit the rules that the topic {self.settings.rules_topic} still has: earlier "
                "records were compacted away, so these slates cannot be judged"
            )
            self.report.note(Violation("lost-rules", message))
        if self.lost_tables:
            message = (
                f"{self.lost_tables} slates name epochs of which the topic {self.settings.tables_topic} no longer has all rows: "
                "later epochs have replaced them, so these slates are not recomputable"
            )
            self.report.note(Violation("lost-tables", message))
        if self.other_states or self.other_slates:
            names = ", ".join(sorted(one[:12] for one in self.judged | {self.bundle.id}))
            known = f"bundles {names}" if len(self.judged) > 1 else f"bundle {names}"
            message = (
                f"{self.other_states} states and {self.other_slates} slates come from another model or bundle than {known} and "
                "were left out; judge them with their own bundle"
            )
            self.report.note(Violation("other-model", message))
