"""Names, labels and description keys of a data set's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import open_clip

from stages.common.errors import UserError, nearest
from stages.common.names import spelling
from stages.ingest.datasets import Listing
from stages.ingest.labels import first_unsure


def refuse_unsure(key: str, called: list[str]) -> None:
    """Refuse a list of names for classes whose order has to be guessed.

    Raises:
        UserError: their letters and their numbers give another order.
    """
    unsure = first_unsure(called)
    if unsure:
        raise UserError(
            f"datasets.{key}.names is a list, and it is not clear whether '{unsure[0]}' or '{unsure[1]}' comes first; "
            f"write which name is whose, as names: {{'{unsure[0]}': ..., '{unsure[1]}': ...}}"
        )


def own_names(
    key: str,
    found: list[str],
    given: Mapping[int | str, str] | Sequence[str] | None,
    called: Sequence[str] | None = None,
) -> list[str]:
    """The classes' names after renaming: by label, or by the name found, exactly or in any spelling.

    Args:
        called: what the classes are called on disk, which `given` may use as well.

    Raises:
        UserError: not one name for each class; a name for an unknown class, or two names for one class.
    """
    if given is None:
        return found
    if not isinstance(given, Mapping):
        if len(given) != len(found):
            raise UserError(f"datasets.{key}.names has {len(given)} names for {len(found)} classes")
        return list(given)
    by_name = {str(name): name_given for name, name_given in given.items()}
    classes = list(zip(called or found, found, strict=True))
    # Folders "Cat" and "cat" differ only in their spelling.
    exact = [next((name for name in both if name in by_name), None) for both in classes]
    rest = [{spelling(name) for name in both} for both, name in zip(classes, exact, strict=True) if name is None]
    wanted: dict[str, str] = {}
    for name in [name for name in by_name if name not in exact]:
        form = spelling(name)
        if not any(form in forms for forms in rest) and any(form in map(spelling, both) for both in classes):
            raise UserError(f"datasets.{key}.names names the class '{name}' twice, in two spellings; keep one")
        if not any(form in forms for forms in rest):
            raise UserError(f"datasets.{key}.names: no class is called '{name}'{nearest(name, found)}")
        if wanted.setdefault(form, by_name[name]) != by_name[name]:
            raise UserError(f"datasets.{key}.names names the class '{name}' twice, in two spellings; keep one")
    return [
        by_name[name] if name is not None else next((wanted[f] for f in map(spelling, both) if f in wanted), both[1])
        for both, name in zip(classes, exact, strict=True)
    ]


def own_fine(names: Sequence[str], found: Sequence[Sequence[str]] | None) -> list[list[str]] | None:
    """The right names of each class: its own first, then those found, each once whatever the spelling."""
    if found is None:
        return None
    fine = []
    for name, others in zip(names, found, strict=True):
        forms: dict[str, str] = {}
        for form in (name, *others):
            forms.setdefault(spelling(form), form)
        fine.append(list(forms.values()))
    return fine


def other_keys(listing: Listing, names: Sequence[str], published: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Keys under which a description file may list each class instead of its name; best first.

    They are the name that the reader found, keys known from published files, and the other right names.

    Args:
        listing: what the reader found.
        names: the classes' names, which `params.yaml` may have replaced.
    """
    keys = []
    for label, (name, found) in enumerate(zip(names, listing.names, strict=True)):
        listed = listing.keys[label] if listing.keys else []
        right = listing.fine[label] if listing.fine else []
        forms: dict[str, str] = {}
        for form in (name, found, *listed, *published.get(found, ()), *right):
            forms.setdefault(spelling(form), form)
        keys.append(list(forms.values())[1:])
    return keys


def labelled_aliases(key: str, aliases: Mapping[int | str, str], names: Sequence[str]) -> dict[int, str]:
    """Label -> key in description files, from an entry's `aliases`, whose keys are class names or labels.

    An alias by label beats one by a name that several classes share.

    Raises:
        UserError: no such class, one class with two aliases, or a number that may be a label or a name.
    """
    by_shared_name: dict[int, str] = {}
    one_by_one: dict[int, str] = {}
    for wanted, description_key in aliases.items():
        labels = [label for label, name in enumerate(names) if spelling(name) == spelling(str(wanted))]
        if isinstance(wanted, int) and labels and labels != [wanted]:
            at_label = f"; the class of label {wanted} is '{names[wanted]}'" if 0 <= wanted < len(names) else ""
            raise UserError(
                f"datasets.{key}.aliases: {wanted} is the name of the class of label {labels[0]}{at_label}; write the "
                f"name of the class that you mean in quotes, as '{wanted}'"
            )
        if isinstance(wanted, int) or (not labels and wanted.isdecimal()):
            labels = [int(wanted)]
        if not labels or not 0 <= labels[0] < len(names):
            near = nearest(str(wanted), list(names))
            raise UserError(f"datasets.{key}.aliases: no class has the name or label '{wanted}'{near}")
        found = one_by_one if len(labels) == 1 else by_shared_name
        for label in labels:
            if found.setdefault(label, description_key) != description_key:
                raise UserError(
                    f"datasets.{key}.aliases gives the class '{names[label]}' (label {label}) two keys, "
                    f"'{found[label]}' and '{description_key}'; keep one"
                )
    return {**by_shared_name, **one_by_one}


def template_texts(templates: str | list[str]) -> list[str] | str:
    """Templates with `{name}`: one of open_clip's sets, or as given. A file's name stays, because `refine` reads it."""
    sets = {"imagenet7": open_clip.SIMPLE_IMAGENET_TEMPLATES, "imagenet80": open_clip.OPENAI_IMAGENET_TEMPLATES}
    if isinstance(templates, str) and templates in sets:
        return [template("{name}") for template in sets[templates]]
    return templates
