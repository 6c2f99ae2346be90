"""Section 1: what is wrong with the training set, in one sentence, a few numbers and what to do first."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning_inf.report.format import counted
from lightning_inf.report.run import Run
from lightning_inf.report.sections.classes import worst_class
from lightning_inf.report.sections.ranking import LABEL, ranked_list

TITLE = "Verdict"
ACTIONS = 3
#: Seconds that a person takes for a sample, about.
LOOK = 5


class Action(NamedTuple):
    """Something to do, with the section that it is about."""

    what: str
    why: str
    link: str


def context(run: Run) -> dict[str, Any]:
    """Give the cards their numbers, all of them from the summary, and the first things to do."""
    agreement = run.summary.get("agreement") or {}
    return {
        "label_issue": run.label_issue,
        "memorized": run.summary.get("memorized"),
        "leaked": run.summary.get("leaked"),
        "duplicates": run.summary.get("duplicates"),
        "worst": worst_class(run),
        "agreement": agreement,
        "pair": _pair(run),
        "default": ranked_list(run, LABEL, limit=1),
        "actions": actions(run),
    }


def actions(run: Run) -> list[Action]:
    """List up to three things to do, the dearest omission first."""
    summary = run.summary
    leaked, copies = summary.get("leaked") or {}, summary.get("duplicates") or {}
    issues = (run.label_issue or {}).get("num_issues") or 0
    rare = (summary.get("memorized") or {}).get("others") or 0
    found = []
    if n := leaked.get("samples"):
        why = "Results on them are better than on new data."
        found.append(Action(f"Remove {counted(n, 'training sample')} that the references hold, too", why, "duplicates"))
    if issues:
        minutes = counted(max(round(issues * LOOK / 60), 1), "minute")
        found.append(
            Action(f"Review {counted(issues, f'suspect {run.noun}')}", f"It takes about {minutes}.", "suspects")
        )
    if n := copies.get("copies"):
        torn = copies.get("conflicts")
        why = f"{counted(torn, 'group')} of copies {'has' if torn == 1 else 'have'} different labels." if torn else ""
        found.append(Action(f"Drop {counted(n, 'copy', 'copies')} of other training samples", why, "duplicates"))
    if (worst := worst_class(run)) and _stands_out(worst, issues, summary["dataset"]["scored"]):
        name = worst["label_name"] if worst["label_name"] is not None else worst["label"]
        share = f"{worst['label_issues'] / worst['samples']:.1%}"
        why = f"{share} of its labels are suspect, more than of the others."
        found.append(Action(f"Look at how the class {name} was labelled", why, "classes"))
    if rare:
        why = "They are probably right, but rare: more samples like them would help."
        found.append(Action(f"Look at {counted(rare, 'sample')} of high self-influence", why, "self-influence"))
    return found[:ACTIONS]


def _pair(run: Run) -> dict[str, Any] | None:
    """Find the pair of rankings to show: the default list, and one that asks something else than how labels were learnt."""
    known = [pair for pair in (run.summary.get("agreement") or {}).get("pairs", ()) if pair["overlap"] is not None]
    others = {column for m in run.summary["methods"] if m["kind"] != "dynamics" for column in m["columns"]}
    apart = [pair for pair in known if pair["scores"][0] == "label_score" and pair["scores"][1] in others]
    return next(iter([*apart, *known]), None)


def _stands_out(worst: dict[str, Any], issues: int, scored: int) -> bool:
    """Whether the class is noisier than all classes together, its interval taken at the lower end."""
    return bool(scored) and worst["low"] > issues / scored
