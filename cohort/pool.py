"""What each case is for: labelled, pseudo-labelled, unlabelled or held out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from cohort.case import Case, Dataset
from cohort.errors import ConfigError, DataError, SelectionError
from cohort.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Four sets of case ids; no case is in two of them.

    Args:
        labelled: annotated by a human.
        pseudo_labelled: labelled by a model; may still be annotated.
        unlabelled: to select from.
        held_out: only ever evaluated on, fixed when a campaign starts.

    Raises:
        SelectionError: if a case is in two sets.
    """

    labelled: frozenset[str] = frozenset()
    pseudo_labelled: frozenset[str] = frozenset()
    unlabelled: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for (name, ids), (other, others) in combinations(self._sets().items(), 2):
            both = sorted(ids & others)
            if both:
                raise SelectionError(
                    f"Case {both[0]!r} is both {name} and {other} ({len(both)} such cases); every case "
                    "belongs into one part of the pool"
                )

    @classmethod
    def start(
        cls,
        dataset: Dataset,
        *,
        labelled: Iterable[str],
        held_out: Iterable[str],
        unlabelled: Iterable[str] | None = None,
    ) -> "Pool":
        """The pool of round 0.

        Args:
            dataset: that the ids are of.
            labelled: ids of the start set.
            held_out: ids to evaluate on.
            unlabelled: ids to select from; None takes all that remain.

        Raises:
            SelectionError: if an id is unknown or in two sets.
            DataError: if a patient is both held out and not.
        """
        start, out = frozenset(labelled), frozenset(held_out)
        known = frozenset(dataset.by_id)
        rest = known - start - out if unlabelled is None else frozenset(unlabelled)
        unknown = sorted((start | out | rest) - known)
        if unknown:
            raise SelectionError(
                f"Case {unknown[0]!r} is not in the data set {dataset.name!r} ({len(unknown)} such ids)"
            )
        pool = cls(labelled=start, unlabelled=rest, held_out=out)
        check_patients(pool, dataset)
        return pool

    @property
    def candidates(self) -> frozenset[str]:
        """Cases that may be annotated: unlabelled or pseudo-labelled."""
        return self.unlabelled | self.pseudo_labelled

    @property
    def case_ids(self) -> frozenset[str]:
        """All cases of the pool."""
        return self.candidates | self.labelled | self.held_out

    def annotate(self, case_ids: Iterable[str]) -> "Pool":
        """The pool after a human annotated some cases.

        Raises:
            SelectionError: if one of them is no candidate.
        """
        ids = self._candidates_only(case_ids, "annotated")
        return replace(
            self,
            labelled=self.labelled | ids,
            unlabelled=self.unlabelled - ids,
            pseudo_labelled=self.pseudo_labelled - ids,
        )

    def pseudo_label(self, case_ids: Iterable[str]) -> "Pool":
        """The pool in which exactly these candidates carry pseudo-labels; earlier ones are withdrawn.

        Raises:
            SelectionError: if one of them is no candidate.
        """
        ids = self._candidates_only(case_ids, "pseudo-labelled")
        return replace(self, pseudo_labelled=ids, unlabelled=self.candidates - ids)

    def _candidates_only(self, case_ids: Iterable[str], what: str) -> frozenset[str]:
        ids = frozenset(case_ids)
        wrong = sorted(ids - self.candidates)
        if wrong:
            place = next((name for name, part in self._sets().items() if wrong[0] in part), "not in the pool")
            raise SelectionError(
                f"Case {wrong[0]!r} cannot be {what}: it is {place}; expected an unlabelled case"
            )
        return ids

    def _sets(self) -> Mapping[str, frozenset[str]]:
        return {
            "labelled": self.labelled,
            "pseudo-labelled": self.pseudo_labelled,
            "unlabelled": self.unlabelled,
            "held out": self.held_out,
        }


def check_patients(pool: Pool, dataset: Dataset) -> None:
    """Refuse a patient with one scan held out and another that is not.

    Raises:
        DataError: naming the patient and both cases.
    """
    cases = dataset.by_id
    outside = {cases[case_id].patient_id: case_id for case_id in sorted(pool.case_ids - pool.held_out)}
    for case_id in sorted(pool.held_out):
        patient = cases[case_id].patient_id
        if patient in outside:
            raise DataError(
                f"Patient {patient!r} is both held out ({case_id!r}) and not ({outside[patient]!r}): "
                "what is learned from one scan would be tested on the other; keep a patient's cases together"
            )


def choose_held_out(
    dataset: Dataset, *, count: int | None = None, fraction: float | None = None, seed: int
) -> tuple[str, ...]:
    """Choose the cases to evaluate on, whole patients at a time.

    Where the data set holds cases out itself, the first of its list are taken. Elsewhere patients come in
    the order of a seeded hash of their id, so that neither the order of the cases nor a new patient
    reshuffles them; only patients count whose cases all have a reference. Patients are added until the
    number is reached, so it can be exceeded by the further cases of the last one.

    Args:
        dataset: to choose from.
        count: how many cases; goes before `fraction`. None with no fraction takes the data set's own list.
        fraction: of all cases, in (0, 1). No more than the data set's own list holds, where it has one.
        seed: of the campaign.

    Returns:
        Case ids, at least one, in the order in which they were chosen.

    Raises:
        ConfigError: if nothing would be held out, nothing would be left, or there are not enough cases.
    """
    wanted = _wanted(dataset, count, fraction)
    patients = _patients_in_order(dataset, seed)
    available = sum(len(cases) for cases in patients)
    if wanted > available:
        raise ConfigError(
            f"{wanted} cases are to be held out, but only {available} of the data set {dataset.name!r} can "
            "be: they need a reference, and where the data set has a list of its own they must be in it; "
            "hold out fewer"
        )
    chosen: list[str] = []
    for cases in patients:
        if len(chosen) >= wanted:
            break
        chosen += [case.case_id for case in cases]
    if len(chosen) >= len(dataset.cases):
        raise ConfigError(
            f"Holding out {wanted} cases takes all {len(dataset.cases)} cases of the data set "
            f"{dataset.name!r} (patients are kept together) and leaves nothing to learn from; hold out fewer"
        )
    return tuple(chosen)


def choose_start(dataset: Dataset, *, held_out: Collection[str], count: int, seed: int) -> tuple[str, ...]:
    """Choose the labelled cases of round 0 at random among those with a reference that are not held out.

    Cases come in the order of a seeded hash of their id: neither the order of the cases nor a new case
    reshuffles the others, and a larger start set contains the smaller one.

    Args:
        dataset: to choose from.
        held_out: ids that are out of the question, and with them every case of their patients.
        count: how many cases, 1 or more.
        seed: of the campaign.

    Raises:
        ConfigError: if there are not enough cases.
    """
    if count < 1:
        raise ConfigError(f"A start set of {count} cases cannot train a model; expected 1 or more")
    eligible = eligible_for_start(dataset, held_out=held_out)
    if count > len(eligible):
        raise ConfigError(
            f"The start set needs {count} cases, but only {len(eligible)} of the data set {dataset.name!r} "
            f"have a reference and are not held out ({len(held_out)} are); ask for fewer"
        )
    ranked = sorted(eligible, key=lambda case_id: derive_seed(seed, "start", case_id))
    return tuple(ranked[:count])


def eligible_for_start(dataset: Dataset, *, held_out: Collection[str]) -> tuple[str, ...]:
    """Ids of the cases with a reference of whose patients nobody is held out, in the data set's order."""
    cases = dataset.by_id
    out = {cases[case_id].patient_id for case_id in held_out if case_id in cases}
    return tuple(c.case_id for c in dataset.cases if c.patient_id not in out and c.annotated)


def _wanted(dataset: Dataset, count: int | None, fraction: float | None) -> int:
    own = len(dataset.held_out)
    if count is not None:
        wanted = count
    elif fraction is not None:
        if not 0.0 < fraction < 1.0:
            raise ConfigError(
                f"The held-out fraction is {fraction}; expected more than 0 (something to evaluate on) and "
                "less than 1, which leaves nothing to learn from"
            )
        wanted = round(fraction * len(dataset.cases))
        wanted = min(wanted, own) if own else wanted
    else:
        wanted = own
    if wanted < 1:
        raise ConfigError(
            f"No case of the {len(dataset.cases)} of the data set {dataset.name!r} would be held out, which "
            "leaves nothing to evaluate on; raise the held-out count or fraction"
        )
    return wanted


def _patients_in_order(dataset: Dataset, seed: int) -> list[list[Case]]:
    """Cases grouped by patient: only patients that may be held out, in the order of choice."""
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(dataset.cases, key=lambda case: case.case_id):
        by_patient[case.patient_id].append(case)
    if dataset.held_out:
        cases = dataset.by_id
        patients = list(dict.fromkeys(cases[case_id].patient_id for case_id in dataset.held_out))
    else:
        patients = sorted(by_patient, key=lambda patient: derive_seed(seed, "held out", patient))
    return [by_patient[p] for p in patients if all(case.annotated for case in by_patient[p])]
