"""The texts of a data set: collected, embedded, refined."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.common import paths
from stages.common.artifacts import TEXTS, ClassesParameters, EncoderMeta, TextsParameters
from stages.common.checks import label_similarities
from stages.common.cli import Job
from stages.common.columns import embedding_column, embedding_rows
from stages.common.encoders import load_encoder
from stages.common.errors import UserError
from stages.common.labels import names_digest, read_classes
from stages.common.params import LABEL, TEMPLATE, WAFFLE, Refine
from stages.common.tables import make_meta, open_table, write_table
from stages.common.templates import fill
from stages.refine.baselines import join_descriptor, join_to_prompt, waffle_descriptors
from stages.refine.select import EXACT, RANK, SIMILAR, select
from stages.refine.sources import match_classes, read_source, read_templates, source_file, warn_of_unknown_aliases


@dataclass(frozen=True)
class Text:
    """A text of one class, before it is embedded."""

    label: int
    source: str
    description: str


def collect_texts(job: Job, names: Sequence[str], made_by: ClassesParameters) -> list[Text]:
    """Every text of every class: label prompts, templates, each source in order, random descriptors.

    Args:
        names: of the classes, by label.
        made_by: parameters of `classes.parquet`: templates, and the keys of classes in description files.
    """
    prompts = [fill(job.params.refine.label_prompt, name=name) for name in names]
    random = waffle_descriptors(job.params.seed, job.params.refine.waffle_pairs, names)
    templates = read_templates(made_by.templates, paths.descriptions_folder(job.dataset))
    aliases, fallbacks = made_by.aliases, made_by.fallbacks

    keys: set[str] = set()

    def generate() -> Iterator[tuple[str, int, str]]:
        for label, prompt in enumerate(prompts):
            yield LABEL, label, prompt
        for label, name in enumerate(names):
            yield from ((TEMPLATE, label, fill(template, name=name)) for template in templates)
        for source, kind in job.params.read_sources().items():
            path, joined = paths.descriptions(job.dataset, source), kind == "descriptors"
            found = read_source(path)
            keys.update(found)
            matched = match_classes(path, found, names, aliases, fallbacks, may_be_empty=joined)
            for label, texts in enumerate(matched):
                if joined:
                    # As published: CLIP-D's texts begin with the name, WaffleCLIP's with a prompt.
                    texts = [join_descriptor(names[label], text) for text in texts] or [names[label]]
                yield from ((source, label, text) for text in texts)
        for label, prompt in enumerate(prompts):
            yield from ((WAFFLE, label, join_to_prompt(prompt, text)) for text in random)

    texts = [Text(label, source, text) for source, label, text in generate()]
    warn_of_unknown_aliases(job.dataset, aliases, keys)
    return texts


def texts_table(
    texts: Sequence[Text],
    embeddings: np.ndarray,
    tokens: np.ndarray,
    context_length: int,
    sources: Sequence[str],
    refine: Refine,
) -> pa.Table:
    """The table of texts, with the refinement of the union of `sources`.

    Args:
        texts: N texts, those of LABEL first, by label.
        embeddings: [N, D] float32 of unit norm.
        tokens: [N] int32, tokens of each text, with the special ones.
        context_length: tokens that the model sees.
        sources: those whose union is refined, in order; texts of other sources get `kept` null.
    """
    labels = np.array([text.label for text in texts], dtype=np.int32)
    truncated = tokens > context_length
    similarity = label_similarities(embeddings, labels)
    judged, kept = np.zeros(len(texts), dtype=bool), np.zeros(len(texts), dtype=bool)
    because = np.full(len(texts), None, dtype=object)
    duplicate_of = np.full(len(texts), -1, dtype=np.int32)
    for rows in union_rows(texts, labels, sources):
        chosen = select(
            [texts[row].description for row in rows],
            embeddings[rows],
            similarity[rows],
            refine.cosine_threshold,
            refine.top_k,
            truncated[rows],
        )
        repeats = chosen.duplicate_of >= 0
        judged[rows], kept[rows], because[rows] = True, chosen.kept, chosen.dropped_because
        duplicate_of[rows[repeats]] = rows[chosen.duplicate_of[repeats]]
    return pa.table(
        {
            "label": labels,
            "source": [text.source for text in texts],
            "description": [text.description for text in texts],
            "tokens": tokens,
            "truncated": truncated,
            "label_similarity": similarity,
            "kept": pa.array(kept, mask=~judged),
            "dropped_because": pa.array(because, pa.string()),
            "duplicate_of": pa.array(duplicate_of, mask=duplicate_of < 0),
            "embedding": embedding_column(embeddings),
        }
    )


def union_rows(texts: Sequence[Text], labels: np.ndarray, sources: Sequence[str]) -> list[np.ndarray]:
    """The rows of each class that has texts of `sources`, in the order of `sources`."""
    places = {source: place for place, source in enumerate(sources)}
    rank = np.array([places.get(text.source, -1) for text in texts])
    rows = np.lexsort((rank, labels))  # stable: as they come within a source
    rows = rows[rank[rows] >= 0]
    return [own for own in np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1) if len(own)]


def known_embeddings(path: Path, model: EncoderMeta) -> tuple[dict[str, tuple[np.ndarray, int]], EncoderMeta]:
    """Embeddings of an earlier run with the same `model`: description -> [D] float32, and its number of tokens.

    Returns:
        Also `model` with that run's notes of where the weights came from, so that another path changes no byte.
    """
    try:
        opened = open_table(path, TEXTS, earlier=True)
        there = opened.meta.encoder().shareable()
        if not there.same_model(model):
            return {}, model
        table = opened.read(["description", "tokens", "embedding"])
    except UserError:  # no file, or an unusable one
        return {}, model
    rows = embedding_rows(table["embedding"])
    descriptions, tokens = table["description"].to_pylist(), table["tokens"].to_pylist()
    known = {text: (row, count) for text, row, count in zip(descriptions, rows, tokens, strict=True)}
    return known, model.model_copy(update={"name": there.name, "pretrained": there.pretrained})


def known_origins(path: Path) -> dict[tuple[str, str], str]:
    """Source and SHA-256 of its file -> the LLM that wrote it, as earlier texts note it.

    A colleague who has the texts may lack the log of the answers.
    """
    try:
        files = open_table(path, TEXTS, earlier=True).meta.parameters.files
    except UserError:  # no file, or an unusable one
        return {}
    return {(file.name, file.sha256): file.origin for file in files if file.origin is not None}


def truncated_lines(texts: Sequence[Text], truncated: Sequence[bool], context_length: int) -> list[str]:
    """One line for each source with texts that the model sees only in part."""
    counts = Counter(text.source for text in texts)
    cut = Counter(text.source for text, is_cut in zip(texts, truncated, strict=True) if is_cut)
    return [
        f"{source}: {count} of {counts[source]} texts exceed {context_length} tokens; the model sees their beginning"
        for source, count in cut.items()
    ]


def summary(job: Job, table: pa.Table) -> str:
    """How many descriptions were refined, kept and dropped, in one line."""
    kept = Counter(table["kept"].to_pylist())
    why = Counter(table["dropped_because"].to_pylist())
    return (
        f"refine {job.dataset} {job.model}: of {kept[True] + kept[False]} descriptions {kept[True]} kept; dropped "
        f"{why[EXACT]} exact duplicates, {why[SIMILAR]} similar, {why[RANK]} below the top {job.params.refine.top_k}"
    )


def texts_parameters(job: Job, names: Sequence[str]) -> TextsParameters:
    """What `texts.parquet` is made with, without its `files`; `names` are those of the classes, by label."""
    return TextsParameters(
        seed=job.params.seed,
        classes=names_digest(names),
        sources=job.params.read_sources(),
        refined=job.params.refined_sources(),
        **job.params.refine.model_dump(exclude={"sources", "batch_size"}),
    )


def refine_dataset(job: Job) -> list[str]:
    """Embed and refine the texts of a data set and write `texts.parquet`; returns the lines to print.

    Raises:
        UserError: a source that is missing or wrong, a class without texts, or a model that cannot be loaded.
    """
    classes = read_classes(job.dataset)
    files = [source_file(job.dataset, source) for source in job.params.read_sources()]
    texts = collect_texts(job, classes.names, classes.parameters)
    encoder = load_encoder(job.model, job.params)
    model = encoder.meta.model_copy(update={"precision": "float32"})
    path = paths.texts(job.dataset, job.model)
    embedded: dict[str, tuple[np.ndarray, int]] = {}
    origins: dict[tuple[str, str], str] = {}
    # Those of this project last, because its notes stay.
    for earlier in [*sorted(paths.old_texts(path).glob("*.parquet")), path]:
        known, model = known_embeddings(earlier, model)
        embedded |= known
        origins |= known_origins(earlier)
    new = [description for description in dict.fromkeys(t.description for t in texts) if description not in embedded]
    rows = encoder.encode_texts(new, job.params.refine.batch_size, "texts").numpy()
    embedded.update(zip(new, zip(rows, encoder.token_counts(new), strict=True), strict=True))
    embeddings = np.stack([embedded[text.description][0] for text in texts])
    tokens = np.array([embedded[text.description][1] for text in texts], dtype=np.int32)
    sources = job.params.refined_sources()
    table = texts_table(texts, embeddings, tokens, encoder.context_length, sources, job.params.refine)
    files = [file.model_copy(update={"origin": file.origin or origins.get((file.name, file.sha256))}) for file in files]
    made_with = texts_parameters(job, classes.names).model_copy(update={"files": files})
    write_table(path, table, make_meta(TEXTS, job.dataset, made_with, model))
    shutil.rmtree(paths.old_texts(path), ignore_errors=True)
    lines = truncated_lines(texts, table["truncated"].to_pylist(), encoder.context_length)
    return [*lines, f"{summary(job, table)}; {len(new)} texts embedded"]
